/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Typed fields as data: one checker for parameters, machine definitions and configuration. */
#ifndef UMBRA_API_SCHEMA_H
#define UMBRA_API_SCHEMA_H

#include "api/error.h"
#include "base/types.h"

struct json_object;

enum api_type {
	API_BOOL,   /* bool */
	API_INT,    /* int64_t in [min, max] */
	API_NUMBER, /* double in [min, max] */
	API_STRING, /* char *, at most max bytes (0: 64 KiB), no NUL inside */
	API_NAME,   /* char *, a machine's name: [A-Za-z0-9][A-Za-z0-9._-]{0,62} */
	API_PATH,   /* char *, a path of at most 4095 bytes, not empty */
	API_SIZE,   /* uint64_t bytes in [min, max]; JSON: MiB as a number or "512M" (K, M, G, T) */
	API_ADDR,   /* uint64_t, any; JSON: "0x1f00" or "7936", or an integer, not negative */
	API_ENUM,   /* int, the index in choices */
	API_PATHS,  /* struct api_strings of at most max paths; JSON: an array */
	API_OBJECT, /* fields of its own (NULL: any object); struct json_object *, a reference */
	API_ANY,    /* any JSON; results only. struct json_object *, a reference */
};

struct api_strings {
	char **v;
	size_t n;
};

/* One field. @offset is where api_fields_load puts the value, in the type named at enum api_type.
 */
struct api_field {
	const char *name;
	enum api_type type;
	bool required;
	int64_t min, max;
	const char *const *choices; /* API_ENUM: NULL ends it */
	const struct api_fields *object;
	size_t offset;
	const char *dflt; /* the default as text, for help and documents; NULL: none */
	const char *help; /* half a sentence: no capital, no stop */
};

struct api_fields {
	const char *what; /* for errors: "machine definition", "parameters" */
	const struct api_field *f;
	size_t n;
};

#define API_FIELDS(what_, array)                                                                   \
	{                                                                                          \
		.what = (what_), .f = (array), .n = ARRAY_SIZE(array)                              \
	}

/*
 * Check @obj (NULL counts as {}) against @fields: not an object, unknown (with the nearest name),
 * missing, mistyped, out of range. @path is put before field names in errors ("" or "definition").
 * 0, or a -errno with *err filled. Nothing is loaded.
 */
int api_fields_check(const struct api_fields *fields, struct json_object *obj, const char *path,
		     struct api_error *err);
/*
 * Load an object that api_fields_check() accepted into the struct at @out; fields that are absent
 * (or null) leave their member alone. Strings are owned copies and replace (free) what was there.
 * 0 or -ENOMEM.
 */
int api_fields_load(const struct api_fields *fields, struct json_object *obj, void *out);
/* The reverse: an object of every member; NULL strings and empty arrays are left out. NULL: no
 * memory. */
struct json_object *api_fields_save(const struct api_fields *fields, const void *in);
/* Free what api_fields_load() allocated, and clear those pointers. */
void api_fields_free(const struct api_fields *fields, void *out);

/*
 * A command line's text as the JSON value of @field ("4" for an API_INT, …), checked. API_PATHS is
 * appended to *@value when that is an array already. 0, or -errno with *err.
 */
int api_field_from_text(const struct api_field *field, const char *text, struct json_object **value,
			struct api_error *err);
const struct api_field *api_field_find(const struct api_fields *fields, const char *name);
const char *api_type_name(enum api_type type);

/* A number in C's notation, hexadecimal or decimal, nothing around it; -EINVAL, -ERANGE. */
int api_addr_parse(const char *text, uint64_t *addr);
/* An API_ADDR's value; it has been checked. */
uint64_t api_addr_get(struct json_object *value);
/* …and the other way: "0x1f00", so that no reader rounds it. NULL: no memory. */
struct json_object *api_addr_new(uint64_t addr);
/* Whether @name may name a machine. */
bool api_name_valid(const char *name);
/* "512M" or "1G" or "64K" or plain bytes-in-MiB "256" to bytes; -EINVAL, -ERANGE. */
int api_size_parse(const char *text, uint64_t *bytes);

/*
 * The candidate nearest to @word that is near enough to be a slip (at most two edits, fewer for
 * short words), or NULL. @get returns the i-th candidate.
 */
const char *api_nearest(const char *word, const char *(*get)(const void *data, size_t i), size_t n,
			const void *data);

#endif
