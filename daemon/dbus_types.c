/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values between D-Bus messages and JSON. */
#include "daemon/dbus_types.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "base/cleanup.h"

static int append_generic(sd_bus_message *m, struct json_object *v, unsigned depth);
static int append_dict(sd_bus_message *m, const struct api_fields *fields, struct json_object *obj,
		       unsigned depth);
static int read_variant(sd_bus_message *m, const struct api_field *f, struct json_object **out,
			struct api_error *err, unsigned depth);
static int read_dict(sd_bus_message *m, const struct api_fields *fields, struct json_object *obj,
		     struct api_error *err, unsigned depth);

const char *dbus_signature(const struct api_field *field)
{
	switch (field ? field->type : API_ANY) {
	case API_BOOL: return "b";
	case API_INT: return "x";
	case API_NUMBER: return "d";
	case API_STRING:
	case API_NAME:
	case API_PATH:
	case API_ENUM: return "s";
	case API_SIZE:
	case API_ADDR: return "t";
	case API_PATHS: return "as";
	case API_OBJECT: return "a{sv}";
	case API_ANY: break;
	}
	return "v";
}

/* ---- JSON to D-Bus ---- */

/* No NUL inside, and nothing that is no UTF-8: the bus would throw us out for it. */
static int append_string(sd_bus_message *m, struct json_object *v)
{
	_cleanup_free_ char *text = NULL;
	const char *s = v ? json_object_get_string(v) : "";

	text = strdup(s ? s : "");
	if (!text)
		return -ENOMEM;
	api_make_utf8(text);
	return sd_bus_message_append_basic(m, 's', text);
}

static int append_bool(sd_bus_message *m, bool b)
{
	int value = b;

	return sd_bus_message_append_basic(m, 'b', &value);
}

static uint64_t size_of(struct json_object *v)
{
	uint64_t bytes = 0;

	if (json_object_is_type(v, json_type_string))
		api_size_parse(json_object_get_string(v), &bytes);
	else if (v && __builtin_mul_overflow(json_object_get_uint64(v), MIB(1), &bytes))
		bytes = 0;
	return bytes;
}

static uint64_t addr_of(struct json_object *v)
{
	return json_object_is_type(v, json_type_int) || json_object_is_type(v, json_type_string)
		       ? api_addr_get(v)
		       : 0;
}

/* An array of @type, whose elements @append puts. */
static int append_array(sd_bus_message *m, const char *type, struct json_object *v,
			int (*append)(sd_bus_message *m, struct json_object *v, unsigned depth),
			unsigned depth)
{
	size_t n = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;
	int ret = ++depth > DBUS_DEPTH_MAX ? -ELOOP : sd_bus_message_open_container(m, 'a', type);

	for (size_t i = 0; ret >= 0 && i < n; i++)
		ret = append(m, json_object_array_get_idx(v, i), depth);
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

static int append_plain(sd_bus_message *m, struct json_object *v, unsigned depth)
{
	switch (json_object_get_type(v)) {
	case json_type_boolean: return append_bool(m, json_object_get_boolean(v));
	case json_type_double: {
		double d = json_object_get_double(v);

		return sd_bus_message_append_basic(m, 'd', &d);
	}
	case json_type_int: {
		int64_t x = json_object_get_int64(v);

		return sd_bus_message_append_basic(m, 'x', &x);
	}
	case json_type_object: return append_dict(m, NULL, v, depth);
	default: return append_string(m, v);
	}
}

static int append_element(sd_bus_message *m, struct json_object *v, unsigned depth)
{
	return append_generic(m, v, depth);
}

static int append_path(sd_bus_message *m, struct json_object *v, unsigned depth)
{
	return append_string(m, v);
}

static bool is_large(struct json_object *v)
{
	return json_object_is_type(v, json_type_int) && json_object_get_uint64(v) > INT64_MAX &&
	       json_object_get_int64(v) > 0;
}

static const char *plain_type(struct json_object *v)
{
	switch (json_object_get_type(v)) {
	case json_type_boolean: return "b";
	case json_type_double: return "d";
	case json_type_int: return is_large(v) ? NULL : "x";
	case json_type_string: return "s";
	case json_type_object: return "a{sv}";
	default: return NULL;
	}
}

/* The type of all elements of an array, "v" when they are not alike. */
static const char *element_type(struct json_object *v)
{
	size_t n = json_object_array_length(v);
	const char *type = n ? plain_type(json_object_array_get_idx(v, 0)) : NULL;

	for (size_t i = 1; type && i < n; i++) {
		const char *other = plain_type(json_object_array_get_idx(v, i));

		if (!other || strcmp(type, other))
			type = NULL;
	}
	return type ? type : "v";
}

static const char *generic_signature(struct json_object *v, char *space)
{
	const char *type = plain_type(v);

	if (json_object_is_type(v, json_type_array)) {
		sprintf(space, "a%s", element_type(v));
		return space;
	}
	return type ? type : v ? "t" : "g";
}

/* As a variant. */
static int append_generic(sd_bus_message *m, struct json_object *v, unsigned depth)
{
	char space[8];
	const char *type = generic_signature(v, space);
	int ret;

	ret = sd_bus_message_open_container(m, 'v', type);
	if (ret < 0)
		return ret;
	if (type == space) {
		ret = append_array(m, space + 1, v, space[1] == 'v' ? append_element : append_plain,
				   depth);
	} else if (type[0] == 't') {
		uint64_t t = json_object_get_uint64(v);

		ret = sd_bus_message_append_basic(m, 't', &t);
	} else if (type[0] == 'g') {
		ret = sd_bus_message_append_basic(m, 'g', "");
	} else {
		ret = append_plain(m, v, depth);
	}
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

static int append_field(sd_bus_message *m, const struct api_field *f, struct json_object *v,
			unsigned depth)
{
	switch (f ? f->type : API_ANY) {
	case API_BOOL: return append_bool(m, v && json_object_get_boolean(v));
	case API_INT: {
		int64_t x = v ? json_object_get_int64(v) : 0;

		return sd_bus_message_append_basic(m, 'x', &x);
	}
	case API_NUMBER: {
		double d = v ? json_object_get_double(v) : 0;

		return sd_bus_message_append_basic(m, 'd', &d);
	}
	case API_STRING:
	case API_NAME:
	case API_PATH:
	case API_ENUM: return append_string(m, v);
	case API_SIZE:
	case API_ADDR: {
		uint64_t t = f->type == API_SIZE ? size_of(v) : addr_of(v);

		return sd_bus_message_append_basic(m, 't', &t);
	}
	case API_PATHS: return append_array(m, "s", v, append_path, depth);
	case API_OBJECT: return append_dict(m, f->object, v, depth);
	case API_ANY: break;
	}
	return append_generic(m, v, depth);
}

/* Whether the value is of the kind that its field says. */
static bool fits(const struct api_field *f, struct json_object *v)
{
	switch (f->type) {
	case API_BOOL: return json_object_is_type(v, json_type_boolean);
	case API_INT: return json_object_is_type(v, json_type_int) && !is_large(v);
	case API_NUMBER:
		return json_object_is_type(v, json_type_double) ||
		       json_object_is_type(v, json_type_int);
	case API_SIZE:
	case API_ADDR:
		return json_object_is_type(v, json_type_string) ||
		       json_object_is_type(v, json_type_int);
	case API_PATHS: return json_object_is_type(v, json_type_array);
	case API_OBJECT: return json_object_is_type(v, json_type_object);
	case API_ANY: return false;
	default: return json_object_is_type(v, json_type_string);
	}
}

static int append_variant(sd_bus_message *m, const struct api_field *f, struct json_object *v,
			  unsigned depth)
{
	int ret;

	if (!f || !fits(f, v))
		return append_generic(m, v, depth);
	ret = sd_bus_message_open_container(m, 'v', dbus_signature(f));
	if (ret >= 0)
		ret = append_field(m, f, v, depth);
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

static int append_entry(sd_bus_message *m, const char *key, const struct api_field *f,
			struct json_object *v, unsigned depth)
{
	_cleanup_free_ char *text = strdup(key);
	int ret;

	if (!text)
		return -ENOMEM;
	api_make_utf8(text);
	ret = sd_bus_message_open_container(m, 'e', "sv");
	if (ret >= 0)
		ret = sd_bus_message_append_basic(m, 's', text);
	if (ret >= 0)
		ret = append_variant(m, f, v, depth);
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

static bool is_in(const char *const *names, const char *name)
{
	for (; names && *names; names++)
		if (!strcmp(*names, name))
			return true;
	return false;
}

static int append_entries(sd_bus_message *m, const struct api_fields *fields,
			  struct json_object *obj, const char *const *skip, unsigned depth)
{
	if (!json_object_is_type(obj, json_type_object))
		return 0;
	json_object_object_foreach(obj, key, value)
	{
		const struct api_field *f = fields ? api_field_find(fields, key) : NULL;
		int ret = is_in(skip, key) ? 0 : append_entry(m, key, f, value, depth);

		if (ret < 0)
			return ret;
	}
	return 0;
}

static int append_dict(sd_bus_message *m, const struct api_fields *fields, struct json_object *obj,
		       unsigned depth)
{
	int ret = ++depth > DBUS_DEPTH_MAX ? -ELOOP : sd_bus_message_open_container(m, 'a', "{sv}");

	if (ret >= 0)
		ret = append_entries(m, fields, obj, NULL, depth);
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

int dbus_append(sd_bus_message *m, const struct api_field *field, struct json_object *value)
{
	return append_field(m, field, value, 0);
}

int dbus_append_variant(sd_bus_message *m, const struct api_field *field, struct json_object *value)
{
	return append_variant(m, field, value, 0);
}

int dbus_append_entry(sd_bus_message *m, const char *key, const struct api_field *field,
		      struct json_object *value)
{
	return append_entry(m, key, field, value, 0);
}

int dbus_append_entries(sd_bus_message *m, const struct api_fields *fields, struct json_object *obj,
			const char *const *skip)
{
	return append_entries(m, fields, obj, skip, 0);
}

/* ---- D-Bus to JSON ---- */

static int broken(int ret, struct api_error *err)
{
	if (ret == -ENOMEM)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	return api_error_set(err, API_KIND_INVALID_PARAMS,
			     "the message's arguments cannot be read: %s", strerror(-ret));
}

static int take(struct json_object *v, struct json_object **out, struct api_error *err)
{
	if (!v)
		return broken(-ENOMEM, err);
	*out = v;
	return 0;
}

/* Bytes as the text that the schema reads. */
static struct json_object *size_new(uint64_t bytes)
{
	char text[32];

	if (bytes % KIB(1))
		snprintf(text, sizeof(text), "%llu bytes", (unsigned long long)bytes);
	else
		snprintf(text, sizeof(text), "%lluK", (unsigned long long)(bytes / KIB(1)));
	return json_object_new_string(text);
}

static struct json_object *number_new(const struct api_field *f, bool negative, uint64_t n)
{
	if (f && f->type == API_ADDR && !negative)
		return api_addr_new(n);
	if (f && f->type == API_SIZE && !negative)
		return size_new(n);
	return negative || n <= INT64_MAX ? json_object_new_int64((int64_t)n)
					  : json_object_new_uint64(n);
}

union basic {
	uint8_t y;
	int16_t n;
	uint16_t q;
	int32_t i;
	uint32_t u;
	int64_t x;
	uint64_t t;
	double d;
	int b;
	const char *s;
};

static struct json_object *basic_new(const struct api_field *f, char type, const union basic *v)
{
	switch (type) {
	case 'y': return number_new(f, false, v->y);
	case 'n': return number_new(f, v->n < 0, (uint64_t)v->n);
	case 'q': return number_new(f, false, v->q);
	case 'i': return number_new(f, v->i < 0, (uint64_t)v->i);
	case 'u': return number_new(f, false, v->u);
	case 'x': return number_new(f, v->x < 0, (uint64_t)v->x);
	case 't': return number_new(f, false, v->t);
	case 'd': return json_object_new_double(v->d);
	case 'b': return json_object_new_boolean(v->b);
	default: return json_object_new_string(v->s);
	}
}

/* A value whose type is known to be basic. */
static int read_basic(sd_bus_message *m, const struct api_field *f, char type,
		      struct json_object **out, struct api_error *err)
{
	union basic v = {0};
	int ret;

	if (type == 'h')
		return api_error_set(err, API_KIND_INVALID_PARAMS,
				     "a descriptor where none is taken");
	ret = sd_bus_message_read_basic(m, type, &v);
	if (ret <= 0)
		return broken(ret ? ret : -EBADMSG, err);
	if (type == 'g' && !v.s[0]) {
		*out = NULL; /* null, as it is told */
		return 0;
	}
	return take(basic_new(f, type, &v), out, err);
}

static int read_any(sd_bus_message *m, const struct api_field *f, struct json_object **out,
		    struct api_error *err, unsigned depth);

/* An array, or a structure, which becomes one too. */
static int read_list(sd_bus_message *m, char type, const char *contents, struct json_object **out,
		     struct api_error *err, unsigned depth)
{
	struct json_object *list = json_object_new_array(), *v;
	int ret = list ? sd_bus_message_enter_container(m, type, contents) : -ENOMEM;

	if (ret < 0) {
		json_object_put(list);
		return broken(ret, err);
	}
	while ((ret = sd_bus_message_at_end(m, false)) == 0) {
		v = NULL;
		ret = read_any(m, NULL, &v, err, depth);
		if (ret) {
			json_object_put(list);
			return ret;
		}
		json_object_array_add(list, v);
	}
	if (ret > 0)
		ret = sd_bus_message_exit_container(m);
	if (ret < 0) {
		json_object_put(list);
		return broken(ret, err);
	}
	*out = list;
	return 0;
}

static int read_object(sd_bus_message *m, const struct api_fields *fields, struct json_object **out,
		       struct api_error *err, unsigned depth)
{
	struct json_object *obj = json_object_new_object();
	int ret = obj ? read_dict(m, fields, obj, err, depth) : broken(-ENOMEM, err);

	if (ret)
		json_object_put(obj);
	else
		*out = obj;
	return ret;
}

/* Whatever comes next. */
static int read_any(sd_bus_message *m, const struct api_field *f, struct json_object **out,
		    struct api_error *err, unsigned depth)
{
	const char *contents;
	char type;
	int ret = sd_bus_message_peek_type(m, &type, &contents);

	if (ret <= 0)
		return broken(ret ? ret : -EBADMSG, err);
	if (type == 'v')
		return read_variant(m, f, out, err, depth);
	if ((type == 'a' || type == 'r') && ++depth > DBUS_DEPTH_MAX)
		return api_error_set(err, API_KIND_INVALID_PARAMS,
				     "more than %d levels in one another", DBUS_DEPTH_MAX);
	if (type == 'a' && !strncmp(contents, "{s", 2))
		return read_object(m, f && f->type == API_OBJECT ? f->object : NULL, out, err,
				   depth);
	if (type == 'a' && contents[0] == '{')
		return api_error_set(err, API_KIND_INVALID_PARAMS,
				     "a dictionary whose keys are no strings");
	if (type == 'a' || type == 'r')
		return read_list(m, type, contents, out, err, depth);
	return read_basic(m, f, type, out, err);
}

static int read_variant(sd_bus_message *m, const struct api_field *f, struct json_object **out,
			struct api_error *err, unsigned depth)
{
	int ret = sd_bus_message_enter_container(m, 'v', NULL);

	if (ret <= 0)
		return broken(ret ? ret : -EBADMSG, err);
	ret = read_any(m, f, out, err, depth);
	if (ret)
		return ret;
	ret = sd_bus_message_exit_container(m);
	if (ret >= 0)
		return 0;
	json_object_put(*out);
	*out = NULL;
	return broken(ret, err);
}

/* One entry that has been entered. */
static int read_entry(sd_bus_message *m, const struct api_fields *fields, struct json_object *obj,
		      struct api_error *err, unsigned depth)
{
	struct json_object *v = NULL;
	const char *key;
	int ret = sd_bus_message_read_basic(m, 's', &key);

	if (ret <= 0)
		return broken(ret ? ret : -EBADMSG, err);
	if (json_object_object_get_ex(obj, key, NULL))
		return api_error_field(err, key, "field \"%.64s\" is given twice", key);
	ret = read_any(m, fields ? api_field_find(fields, key) : NULL, &v, err, depth);
	if (ret)
		return ret;
	if (json_object_object_add(obj, key, v)) {
		json_object_put(v);
		return broken(-ENOMEM, err);
	}
	return 0;
}

static int read_dict(sd_bus_message *m, const struct api_fields *fields, struct json_object *obj,
		     struct api_error *err, unsigned depth)
{
	const char *contents;
	char type;
	int ret = sd_bus_message_peek_type(m, &type, &contents);

	if (ret <= 0 || type != 'a' || contents[0] != '{' || contents[1] != 's')
		return broken(ret < 0 ? ret : -EBADMSG, err);
	ret = sd_bus_message_enter_container(m, 'a', contents);
	if (ret < 0)
		return broken(ret, err);
	for (;;) {
		ret = sd_bus_message_peek_type(m, &type, &contents);
		if (ret > 0)
			ret = sd_bus_message_enter_container(m, 'e', contents);
		if (ret < 0)
			return broken(ret, err);
		if (!ret)
			break;
		ret = read_entry(m, fields, obj, err, depth);
		if (ret)
			return ret;
		ret = sd_bus_message_exit_container(m);
		if (ret < 0)
			return broken(ret, err);
	}
	ret = sd_bus_message_exit_container(m);
	return ret < 0 ? broken(ret, err) : 0;
}

int dbus_read(sd_bus_message *m, const struct api_field *field, struct json_object **out,
	      struct api_error *err)
{
	return read_any(m, field, out, err, 0);
}

int dbus_read_dict(sd_bus_message *m, const struct api_fields *fields, struct json_object *obj,
		   struct api_error *err)
{
	return read_dict(m, fields, obj, err, 0);
}
