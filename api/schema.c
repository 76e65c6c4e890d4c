/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Typed fields as data: one checker for parameters, machine definitions and configuration. */
#include "api/schema.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define STRING_MAX_DFLT KIB(64)
#define NAME_LEN_MAX	63
#define PATH_LEN_MAX	4095

const char *api_type_name(enum api_type type)
{
	static const char *const names[] = {
		[API_BOOL] = "boolean",	 [API_INT] = "integer", [API_NUMBER] = "number",
		[API_STRING] = "string", [API_NAME] = "name",	[API_PATH] = "path",
		[API_SIZE] = "size",	 [API_ENUM] = "choice", [API_PATHS] = "paths",
		[API_OBJECT] = "object", [API_ANY] = "any",	[API_ADDR] = "address",
	};

	return names[type];
}

bool api_name_valid(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > NAME_LEN_MAX || !isalnum((unsigned char)name[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return false;
	return true;
}

int api_size_parse(const char *text, uint64_t *bytes)
{
	uint64_t n = 0, unit = MIB(1);
	const char *p = text;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	for (; isdigit((unsigned char)*p); p++)
		if (__builtin_mul_overflow(n, 10u, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
			return -ERANGE;
	switch (toupper((unsigned char)*p)) {
	case 0: break;
	case 'K':
		unit = KIB(1);
		p++;
		break;
	case 'M':
		unit = MIB(1);
		p++;
		break;
	case 'G':
		unit = GIB(1);
		p++;
		break;
	case 'T':
		unit = GIB(1024);
		p++;
		break;
	default: return -EINVAL;
	}
	if (unit != MIB(1) || p[-1] == 'M' || p[-1] == 'm') {
		if (*p == 'i' && p[1] == 'B')
			p += 2;
		else if (*p == 'B')
			p++;
	}
	if (*p)
		return -EINVAL;
	return __builtin_mul_overflow(n, unit, bytes) ? -ERANGE : 0;
}

int api_addr_parse(const char *text, uint64_t *addr)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	unsigned long long n;
	char *end;

	if (!(hex ? isxdigit((unsigned char)text[2]) : isdigit((unsigned char)text[0])))
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, hex ? 16 : 10);
	if (*end)
		return -EINVAL;
	if (errno)
		return -ERANGE;
	*addr = n;
	return 0;
}

uint64_t api_addr_get(struct json_object *value)
{
	uint64_t addr = 0;

	if (json_object_is_type(value, json_type_int))
		return json_object_get_uint64(value);
	api_addr_parse(json_object_get_string(value), &addr);
	return addr;
}

struct json_object *api_addr_new(uint64_t addr)
{
	char text[24];

	snprintf(text, sizeof(text), "%#llx", (unsigned long long)addr);
	return json_object_new_string(addr ? text : "0x0");
}

static void print_size(struct buf *b, uint64_t bytes)
{
	if (bytes >= GIB(1) && !(bytes % GIB(1)))
		buf_printf(b, "%lluG", (unsigned long long)(bytes >> 30));
	else if (bytes >= MIB(1) && !(bytes % MIB(1)))
		buf_printf(b, "%lluM", (unsigned long long)(bytes >> 20));
	else
		buf_printf(b, "%lluK", (unsigned long long)(bytes >> 10));
}

/* "an integer from 1 to 64" */
static void describe(struct buf *b, const struct api_field *f)
{
	switch (f->type) {
	case API_BOOL: buf_printf(b, "true or false"); break;
	case API_INT:
		buf_printf(b, "an integer from %lld to %lld", (long long)f->min, (long long)f->max);
		break;
	case API_NUMBER:
		buf_printf(b, "a number from %lld to %lld", (long long)f->min, (long long)f->max);
		break;
	case API_STRING:
		buf_printf(b, "a string of at most %lld bytes without NUL",
			   (long long)(f->max ? f->max : (int64_t)STRING_MAX_DFLT));
		break;
	case API_NAME:
		buf_printf(b, "a name of at most 63 letters, digits, '.', '_' and '-', "
			      "the first a letter or digit");
		break;
	case API_PATH: buf_printf(b, "a file's path"); break;
	case API_SIZE:
		buf_printf(b, "a size from ");
		print_size(b, (uint64_t)f->min);
		buf_printf(b, " to ");
		print_size(b, (uint64_t)f->max);
		buf_printf(b, " in whole pages of 4K (a number means MiB)");
		break;
	case API_ADDR: buf_printf(b, "an address such as \"0x1f00\", of at most 64 bits"); break;
	case API_ENUM:
		buf_printf(b, "one of ");
		for (size_t i = 0; f->choices[i]; i++)
			buf_printf(b, "%s%s", i ? ", " : "", f->choices[i]);
		break;
	case API_PATHS:
		buf_printf(b, "an array of at most %lld files' paths", (long long)f->max);
		break;
	case API_OBJECT: buf_printf(b, "an object"); break;
	case API_ANY: buf_printf(b, "any value"); break;
	}
}

/* Levenshtein's distance of two short words, where a swap of neighbours counts as one edit. */
static size_t edits(const char *a, const char *b)
{
	size_t d[34][34], n = strlen(a), m = strlen(b);

	if (n > 32 || m > 32)
		return 99;
	for (size_t i = 0; i <= n; i++) {
		for (size_t j = 0; j <= m; j++) {
			size_t best;

			if (!i || !j) {
				d[i][j] = i + j;
				continue;
			}
			best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			best = MIN(best, d[i - 1][j] + 1);
			best = MIN(best, d[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = MIN(best, d[i - 2][j - 2] + 1);
			d[i][j] = best;
		}
	}
	return d[n][m];
}

const char *api_nearest(const char *word, const char *(*get)(const void *data, size_t i), size_t n,
			const void *data)
{
	size_t best = strlen(word) < 4 ? 2 : 3; /* fewer edits than this */
	const char *found = NULL;

	for (size_t i = 0; i < n; i++) {
		size_t e = edits(word, get(data, i));

		if (e < best) {
			best = e;
			found = get(data, i);
		}
	}
	return found;
}

static const char *field_name_at(const void *data, size_t i)
{
	return ((const struct api_field *)data)[i].name;
}

static const char *choice_at(const void *data, size_t i)
{
	return ((const char *const *)data)[i];
}

const struct api_field *api_field_find(const struct api_fields *fields, const char *name)
{
	for (size_t i = 0; i < fields->n; i++)
		if (!strcmp(fields->f[i].name, name))
			return &fields->f[i];
	return NULL;
}

#define WHERE_MAX 128

/* Where a field is, for a message: most calls have none, so that this is done last. */
static void join(char *out, size_t len, const char *path, const char *name)
{
	snprintf(out, len, "%s%s%s", path, *path ? "." : "", name);
}

/* A value for an error message: short, on one line. */
static const char *quote(struct json_object *v, char *out, size_t len)
{
	const char *text = v ? json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN) : "null";

	if (snprintf(out, len, "%s", text ? text : "?") >= (int)len)
		memcpy(out + len - 4, "...", 4);
	return out;
}

/* One field's failure: it must be what describe() says, and is not. */
static int mismatch(const struct api_field *f, struct json_object *v, const char *path,
		    struct api_error *err)
{
	_cleanup_(buf_finish) struct buf b = {0};
	char shown[64], where[WHERE_MAX];
	const char *near = NULL;

	join(where, sizeof(where), path, f->name);
	describe(&b, f);
	if (f->type == API_ENUM && json_object_is_type(v, json_type_string)) {
		size_t n = 0;

		while (f->choices[n])
			n++;
		near = api_nearest(json_object_get_string(v), choice_at, n, f->choices);
	}
	return api_error_field(err, where, "field \"%s\" must be %s, not %s%s%s%s", where,
			       b.data ? b.data : "?", quote(v, shown, sizeof(shown)),
			       near ? "; did you mean \"" : "", near ? near : "",
			       near ? "\"?" : "");
}

static bool string_ok(struct json_object *v, size_t max)
{
	size_t len;

	if (!json_object_is_type(v, json_type_string))
		return false;
	len = (size_t)json_object_get_string_len(v);
	return len <= max && !memchr(json_object_get_string(v), 0, len);
}

static bool path_ok(struct json_object *v)
{
	return string_ok(v, PATH_LEN_MAX) && json_object_get_string_len(v) > 0;
}

static bool size_ok(const struct api_field *f, struct json_object *v, uint64_t *bytes)
{
	if (json_object_is_type(v, json_type_int)) {
		int64_t mib = json_object_get_int64(v);

		if (mib < 0 || __builtin_mul_overflow((uint64_t)mib, MIB(1), bytes))
			return false;
	} else if (!string_ok(v, 64) || api_size_parse(json_object_get_string(v), bytes)) {
		return false;
	}
	return *bytes >= (uint64_t)f->min && *bytes <= (uint64_t)f->max && !(*bytes % PAGE_SIZE);
}

/* json-c caps an integer that is too large: the largest is refused, as it may be another one. */
static bool addr_ok(struct json_object *v)
{
	uint64_t addr;

	if (json_object_is_type(v, json_type_int))
		return json_object_get_int64(v) >= 0 && json_object_get_uint64(v) != UINT64_MAX;
	return string_ok(v, 32) && !api_addr_parse(json_object_get_string(v), &addr);
}

static int enum_index(const struct api_field *f, struct json_object *v)
{
	if (!string_ok(v, STRING_MAX_DFLT))
		return -1;
	for (int i = 0; f->choices[i]; i++)
		if (!strcmp(f->choices[i], json_object_get_string(v)))
			return i;
	return -1;
}

static bool number_ok(const struct api_field *f, struct json_object *v)
{
	double d;

	if (!json_object_is_type(v, json_type_int) && !json_object_is_type(v, json_type_double))
		return false;
	d = json_object_get_double(v);
	return isfinite(d) && d >= (double)f->min && d <= (double)f->max;
}

static bool paths_ok(const struct api_field *f, struct json_object *v)
{
	if (!json_object_is_type(v, json_type_array) ||
	    json_object_array_length(v) > (size_t)f->max)
		return false;
	for (size_t i = 0; i < json_object_array_length(v); i++)
		if (!path_ok(json_object_array_get_idx(v, i)))
			return false;
	return true;
}

/* An object inside of another. */
static int check_object(const struct api_field *f, struct json_object *v, const char *path,
			struct api_error *err)
{
	char where[WHERE_MAX];

	join(where, sizeof(where), path, f->name);
	return api_fields_check(f->object, v, where, err);
}

/* @path: of the object that has the field. */
static int check_value(const struct api_field *f, struct json_object *v, const char *path,
		       struct api_error *err)
{
	uint64_t bytes;
	bool ok = false;

	switch (f->type) {
	case API_BOOL: ok = json_object_is_type(v, json_type_boolean); break;
	case API_INT:
		ok = json_object_is_type(v, json_type_int) && json_object_get_int64(v) >= f->min &&
		     json_object_get_int64(v) <= f->max;
		break;
	case API_NUMBER: ok = number_ok(f, v); break;
	case API_STRING: ok = string_ok(v, f->max ? (size_t)f->max : STRING_MAX_DFLT); break;
	case API_NAME:
		ok = string_ok(v, NAME_LEN_MAX) && api_name_valid(json_object_get_string(v));
		break;
	case API_PATH: ok = path_ok(v); break;
	case API_SIZE: ok = size_ok(f, v, &bytes); break;
	case API_ADDR: ok = addr_ok(v); break;
	case API_ENUM: ok = enum_index(f, v) >= 0; break;
	case API_PATHS: ok = paths_ok(f, v); break;
	case API_OBJECT:
		if (f->object && json_object_is_type(v, json_type_object))
			return check_object(f, v, path, err);
		ok = json_object_is_type(v, json_type_object);
		break;
	case API_ANY: ok = true; break;
	}
	return ok ? 0 : mismatch(f, v, path, err);
}

static int unknown_field(const struct api_fields *fields, const char *key, const char *path,
			 struct api_error *err)
{
	const char *near = api_nearest(key, field_name_at, fields->n, fields->f);
	char where[WHERE_MAX];

	join(where, sizeof(where), path, key);
	return api_error_field(err, where, "unknown field \"%.64s\" in %s%s%s%s", key, fields->what,
			       near ? "; did you mean \"" : "", near ? near : "",
			       near ? "\"?" : "");
}

static int missing_field(const struct api_fields *fields, const char *name, const char *path,
			 struct api_error *err)
{
	char where[WHERE_MAX];

	join(where, sizeof(where), path, name);
	return api_error_field(err, where, "field \"%s\" is missing in %s", where, fields->what);
}

int api_fields_check(const struct api_fields *fields, struct json_object *obj, const char *path,
		     struct api_error *err)
{
	int ret;

	if (obj && !json_object_is_type(obj, json_type_object))
		return api_error_field(err, path, "%s must be an object", fields->what);
	if (obj) {
		json_object_object_foreach(obj, key, value)
		{
			const struct api_field *f = api_field_find(fields, key);

			ret = f ? check_value(f, value, path, err)
				: unknown_field(fields, key, path, err);
			if (ret)
				return ret;
		}
	}
	for (size_t i = 0; i < fields->n; i++)
		if (fields->f[i].required &&
		    (!obj || !json_object_object_get_ex(obj, fields->f[i].name, NULL)))
			return missing_field(fields, fields->f[i].name, path, err);
	return 0;
}

static void free_member(const struct api_field *f, void *member)
{
	struct api_strings *s;

	switch (f->type) {
	case API_STRING:
	case API_NAME:
	case API_PATH:
		free(*(char **)member);
		*(char **)member = NULL;
		break;
	case API_PATHS:
		s = member;
		for (size_t i = 0; i < s->n; i++)
			free(s->v[i]);
		free(s->v);
		*s = (struct api_strings){0};
		break;
	case API_OBJECT:
	case API_ANY:
		json_object_put(*(struct json_object **)member);
		*(struct json_object **)member = NULL;
		break;
	default: break;
	}
}

void api_fields_free(const struct api_fields *fields, void *out)
{
	for (size_t i = 0; i < fields->n; i++)
		free_member(&fields->f[i], (char *)out + fields->f[i].offset);
}

static int load_paths(struct api_strings *s, struct json_object *v)
{
	size_t n = json_object_array_length(v);

	s->v = calloc(n ? n : 1, sizeof(*s->v));
	if (!s->v)
		return -ENOMEM;
	for (; s->n < n; s->n++) {
		s->v[s->n] = strdup(json_object_get_string(json_object_array_get_idx(v, s->n)));
		if (!s->v[s->n])
			return -ENOMEM;
	}
	return 0;
}

static int load_member(const struct api_field *f, struct json_object *v, void *member)
{
	free_member(f, member);
	switch (f->type) {
	case API_BOOL: *(bool *)member = json_object_get_boolean(v); break;
	case API_INT: *(int64_t *)member = json_object_get_int64(v); break;
	case API_NUMBER: *(double *)member = json_object_get_double(v); break;
	case API_SIZE: size_ok(f, v, member); break;
	case API_ADDR: *(uint64_t *)member = api_addr_get(v); break;
	case API_ENUM: *(int *)member = enum_index(f, v); break;
	case API_STRING:
	case API_NAME:
	case API_PATH:
		*(char **)member = strdup(json_object_get_string(v));
		return *(char **)member ? 0 : -ENOMEM;
	case API_PATHS: return load_paths(member, v);
	case API_OBJECT:
	case API_ANY: *(struct json_object **)member = json_object_get(v); break;
	}
	return 0;
}

int api_fields_load(const struct api_fields *fields, struct json_object *obj, void *out)
{
	for (size_t i = 0; i < fields->n; i++) {
		const struct api_field *f = &fields->f[i];
		struct json_object *v;
		int ret;

		if (!obj || !json_object_object_get_ex(obj, f->name, &v) || !v)
			continue;
		ret = load_member(f, v, (char *)out + f->offset);
		if (ret)
			return ret;
	}
	return 0;
}

static struct json_object *save_member(const struct api_field *f, const void *member)
{
	_cleanup_(buf_finish) struct buf b = {0};
	const struct api_strings *s;
	struct json_object *v;

	switch (f->type) {
	case API_BOOL: return json_object_new_boolean(*(const bool *)member);
	case API_INT: return json_object_new_int64(*(const int64_t *)member);
	case API_NUMBER: return json_object_new_double(*(const double *)member);
	case API_ADDR: return api_addr_new(*(const uint64_t *)member);
	case API_ENUM: return json_object_new_string(f->choices[*(const int *)member]);
	case API_SIZE:
		print_size(&b, *(const uint64_t *)member);
		return b.data ? json_object_new_string(b.data) : NULL;
	case API_STRING:
	case API_NAME:
	case API_PATH: return json_object_new_string(*(char *const *)member);
	case API_PATHS:
		s = member;
		v = json_object_new_array();
		for (size_t i = 0; v && i < s->n; i++)
			json_object_array_add(v, json_object_new_string(s->v[i]));
		return v;
	case API_OBJECT:
	case API_ANY: return json_object_get(*(struct json_object *const *)member);
	}
	return NULL;
}

static bool member_empty(const struct api_field *f, const void *member)
{
	switch (f->type) {
	case API_STRING:
	case API_NAME:
	case API_PATH:
	case API_OBJECT:
	case API_ANY: return !*(void *const *)member;
	case API_PATHS: return !((const struct api_strings *)member)->n;
	default: return false;
	}
}

struct json_object *api_fields_save(const struct api_fields *fields, const void *in)
{
	struct json_object *obj = json_object_new_object();

	for (size_t i = 0; obj && i < fields->n; i++) {
		const struct api_field *f = &fields->f[i];
		const void *member = (const char *)in + f->offset;
		struct json_object *v;

		if (member_empty(f, member))
			continue;
		v = save_member(f, member);
		if (!v || json_object_object_add(obj, f->name, v)) {
			json_object_put(v);
			json_object_put(obj);
			return NULL;
		}
	}
	return obj;
}

/* The text of an API_INT or API_NUMBER as JSON, or as the string it is, for the check to refuse. */
static struct json_object *number_from_text(const struct api_field *f, const char *text)
{
	char *end;

	errno = 0;
	if (f->type == API_INT) {
		long long n = strtoll(text, &end, 10);

		if (*text && !*end && !errno)
			return json_object_new_int64(n);
	} else {
		double d = strtod(text, &end);

		if (*text && !*end && !errno)
			return json_object_new_double(d);
	}
	return json_object_new_string(text);
}

int api_field_from_text(const struct api_field *f, const char *text, struct json_object **value,
			struct api_error *err)
{
	struct json_object *v;
	int ret;

	if (f->type == API_PATHS) {
		v = *value ? json_object_get(*value) : json_object_new_array();
		if (v)
			json_object_array_add(v, json_object_new_string(text));
	} else if (f->type == API_INT || f->type == API_NUMBER) {
		v = number_from_text(f, text);
	} else if (f->type == API_BOOL) {
		v = !strcmp(text, "true") || !strcmp(text, "false")
			    ? json_object_new_boolean(text[0] == 't')
			    : json_object_new_string(text);
	} else {
		v = json_object_new_string(text);
	}
	if (!v)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	ret = check_value(f, v, "", err);
	if (ret) {
		json_object_put(v);
		return ret;
	}
	json_object_put(*value);
	*value = v;
	return 0;
}
