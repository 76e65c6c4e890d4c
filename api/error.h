/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Errors as the API tells them: a frozen kind, a sentence, and the field or machine it is about. */
#ifndef UMBRA_API_ERROR_H
#define UMBRA_API_ERROR_H

#include "base/types.h"

struct json_object;

/*
 * The list is frozen: names may be added at its end, none changed or taken away. The first five are
 * the codes of the JSON-RPC specification; the others have codes above its reserved range.
 */
enum api_kind {
	API_KIND_NONE,
	API_KIND_PARSE,		  /* not JSON */
	API_KIND_INVALID_REQUEST, /* JSON, but no request; or larger than a message may be */
	API_KIND_METHOD_NOT_FOUND,
	API_KIND_INVALID_PARAMS, /* a missing, unknown, mistyped or out-of-range field */
	API_KIND_INTERNAL,	 /* our fault */
	API_KIND_NOT_FOUND,	 /* no such machine, file or log */
	API_KIND_EXISTS,	 /* the name is taken */
	API_KIND_INVALID_STATE,	 /* the machine is not in a state that allows it */
	API_KIND_BAD_IMAGE,	 /* the kernel, initrd or a module cannot be used */
	API_KIND_DENIED,
	API_KIND_LIMIT, /* a bound of ours is reached: calls in flight, machines */
	API_KIND_TIMEOUT,
	API_KIND_UNAVAILABLE,	/* the daemon or the machine's process cannot be reached */
	API_KIND_VM_FAILED,	/* the machine's process failed or died */
	API_KIND_NOT_SUPPORTED, /* the host or this build lacks it */
	API_KIND_IO,		/* the disk, a file or a socket failed */
	API_KIND_CANCELLED,
	API_KIND_COUNT,
};

/* All zero is "no error". @field is a dotted path, "" when the error is about no field. */
struct api_error {
	enum api_kind kind;
	char text[400];
	char field[128];
	char machine[64];
};

const char *api_kind_name(enum api_kind kind);
enum api_kind api_kind_from_name(const char *name);
/* The JSON-RPC error code. */
int api_kind_code(enum api_kind kind);
/* Whether the same call may succeed later without anybody changing anything. */
bool api_kind_retryable(enum api_kind kind);
/* The -errno that goes with @kind (never 0, except for API_KIND_NONE). */
int api_kind_errno(enum api_kind kind);
/* The HTTP status code that goes with @kind. */
int api_kind_status(enum api_kind kind);
/* The kind that tells a -errno of the system best. */
enum api_kind api_kind_from_errno(int err);

/* Fill @err (which may be NULL) and return the -errno of @kind. */
int api_error_set(struct api_error *err, enum api_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with the field's dotted path. */
int api_error_field(struct api_error *err, const char *field, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Text for JSON and D-Bus: each byte that is no UTF-8 (a client's bytes quoted, or cut in the
 * middle) becomes '?'. */
void api_make_utf8(char *s);

/* A JSON-RPC error object {code, message, data {kind, retryable, machine, details}}; NULL: no
 * memory. */
struct json_object *api_error_to_json(const struct api_error *err);
/* The reverse; what is missing or strange becomes API_KIND_INTERNAL. */
void api_error_from_json(struct json_object *obj, struct api_error *err);

#endif
