/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Errors as the API tells them. */
#include "api/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

/* Spec errors have the codes of JSON-RPC 2.0 section 5.1; the rest are 1000 + their place. */
static const struct {
	const char *name;
	int code;
	bool retryable;
	int err;
	int status; /* of HTTP, RFC 9110 section 15 */
} kinds[API_KIND_COUNT] = {
	[API_KIND_NONE] = {"none", 0, false, 0, 200},
	[API_KIND_PARSE] = {"parse", -32700, false, EBADMSG, 400},
	[API_KIND_INVALID_REQUEST] = {"invalid-request", -32600, false, EPROTO, 400},
	[API_KIND_METHOD_NOT_FOUND] = {"method-not-found", -32601, false, ENOSYS, 404},
	[API_KIND_INVALID_PARAMS] = {"invalid-params", -32602, false, EINVAL, 400},
	[API_KIND_INTERNAL] = {"internal", -32603, false, EIO, 500},
	[API_KIND_NOT_FOUND] = {"not-found", 1006, false, ENOENT, 404},
	[API_KIND_EXISTS] = {"exists", 1007, false, EEXIST, 409},
	[API_KIND_INVALID_STATE] = {"invalid-state", 1008, false, EBUSY, 409},
	[API_KIND_BAD_IMAGE] = {"bad-image", 1009, false, ENOEXEC, 409},
	[API_KIND_DENIED] = {"denied", 1010, false, EACCES, 403},
	[API_KIND_LIMIT] = {"limit", 1011, true, EAGAIN, 429},
	[API_KIND_TIMEOUT] = {"timeout", 1012, true, ETIMEDOUT, 504},
	[API_KIND_UNAVAILABLE] = {"unavailable", 1013, true, ECONNREFUSED, 503},
	[API_KIND_VM_FAILED] = {"vm-failed", 1014, false, ECHILD, 502},
	[API_KIND_NOT_SUPPORTED] = {"not-supported", 1015, false, EOPNOTSUPP, 501},
	[API_KIND_IO] = {"io", 1016, false, EIO, 500},
	[API_KIND_CANCELLED] = {"cancelled", 1017, false, ECANCELED, 409},
};

const char *api_kind_name(enum api_kind kind)
{
	return (unsigned)kind < API_KIND_COUNT ? kinds[kind].name : "internal";
}

enum api_kind api_kind_from_name(const char *name)
{
	for (unsigned i = 1; name && i < API_KIND_COUNT; i++)
		if (!strcmp(kinds[i].name, name))
			return (enum api_kind)i;
	return API_KIND_INTERNAL;
}

int api_kind_code(enum api_kind kind)
{
	return (unsigned)kind < API_KIND_COUNT ? kinds[kind].code : kinds[API_KIND_INTERNAL].code;
}

bool api_kind_retryable(enum api_kind kind)
{
	return (unsigned)kind < API_KIND_COUNT && kinds[kind].retryable;
}

int api_kind_errno(enum api_kind kind)
{
	return -((unsigned)kind < API_KIND_COUNT ? kinds[kind].err : EIO);
}

int api_kind_status(enum api_kind kind)
{
	return (unsigned)kind < API_KIND_COUNT ? kinds[kind].status : 500;
}

enum api_kind api_kind_from_errno(int err)
{
	switch (err < 0 ? -err : err) {
	case ENOENT: return API_KIND_NOT_FOUND;
	case EEXIST: return API_KIND_EXISTS;
	case EACCES:
	case EPERM: return API_KIND_DENIED;
	case EINVAL: return API_KIND_INVALID_PARAMS;
	case ENOEXEC: return API_KIND_BAD_IMAGE;
	case EBUSY: return API_KIND_INVALID_STATE;
	case EAGAIN:
	case EMFILE:
	case ENFILE:
	case ENOBUFS: return API_KIND_LIMIT;
	case ETIMEDOUT: return API_KIND_TIMEOUT;
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE: return API_KIND_UNAVAILABLE;
	case EOPNOTSUPP:
	case ENOSYS: return API_KIND_NOT_SUPPORTED;
	case ECANCELED: return API_KIND_CANCELLED;
	case ENOMEM: return API_KIND_INTERNAL;
	default: return API_KIND_IO;
	}
}

int api_error_set(struct api_error *err, enum api_kind kind, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		*err = (struct api_error){.kind = kind};
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return api_kind_errno(kind);
}

int api_error_field(struct api_error *err, const char *field, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		*err = (struct api_error){.kind = API_KIND_INVALID_PARAMS};
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
		snprintf(err->field, sizeof(err->field), "%s", field);
	}
	return api_kind_errno(API_KIND_INVALID_PARAMS);
}

/* The length of the UTF-8 sequence at @p, which ends at the NUL at the latest; 0: it is none. */
static unsigned utf8_length(const unsigned char *p)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned n = *p < 0x80	 ? 1
		     : *p < 0xc0 ? 0
		     : *p < 0xe0 ? 2
		     : *p < 0xf0 ? 3
		     : *p < 0xf8 ? 4
				 : 0;
	uint32_t c = n > 1 ? *p & (0x7fu >> n) : 0;

	if (n < 2)
		return n;
	for (unsigned i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

void api_make_utf8(char *s)
{
	for (unsigned char *p = (unsigned char *)s; *p;) {
		unsigned n = utf8_length(p);

		if (!n)
			*p = '?';
		p += n ? n : 1;
	}
}

struct json_object *api_error_to_json(const struct api_error *err)
{
	struct json_object *obj = json_object_new_object();
	struct json_object *data = json_object_new_object();
	struct api_error e = *err;

	if (!obj || !data) {
		json_object_put(obj);
		json_object_put(data);
		return NULL;
	}
	api_make_utf8(e.text);
	api_make_utf8(e.field);
	json_object_object_add(obj, "code", json_object_new_int(api_kind_code(e.kind)));
	json_object_object_add(obj, "message", json_object_new_string(e.text));
	json_object_object_add(obj, "data", data);
	json_object_object_add(data, "kind", json_object_new_string(api_kind_name(e.kind)));
	json_object_object_add(data, "retryable",
			       json_object_new_boolean(api_kind_retryable(e.kind)));
	if (e.machine[0])
		json_object_object_add(data, "machine", json_object_new_string(e.machine));
	if (e.field[0]) {
		struct json_object *details = json_object_new_object();

		json_object_object_add(details, "field", json_object_new_string(e.field));
		json_object_object_add(data, "details", details);
	}
	return obj;
}

static const char *string_in(struct json_object *obj, const char *name)
{
	struct json_object *v;

	if (!json_object_is_type(obj, json_type_object) ||
	    !json_object_object_get_ex(obj, name, &v) || !json_object_is_type(v, json_type_string))
		return NULL;
	return json_object_get_string(v);
}

void api_error_from_json(struct json_object *obj, struct api_error *err)
{
	struct json_object *data = NULL, *details = NULL;
	const char *s;

	*err = (struct api_error){0};
	if (json_object_is_type(obj, json_type_object))
		json_object_object_get_ex(obj, "data", &data);
	err->kind = api_kind_from_name(string_in(data, "kind"));
	s = string_in(obj, "message");
	snprintf(err->text, sizeof(err->text), "%s", s ? s : "an error without a message");
	s = string_in(data, "machine");
	snprintf(err->machine, sizeof(err->machine), "%s", s ? s : "");
	if (json_object_is_type(data, json_type_object))
		json_object_object_get_ex(data, "details", &details);
	s = string_in(details, "field");
	snprintf(err->field, sizeof(err->field), "%s", s ? s : "");
}
