/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A method table as an OpenRPC document. */
#include "api/api.h"

#include <json-c/json.h>

static struct json_object *schema_of(const struct api_field *f);

static void add_string(struct json_object *obj, const char *name, const char *value)
{
	json_object_object_add(obj, name, json_object_new_string(value));
}

static void add_range(struct json_object *s, const struct api_field *f)
{
	json_object_object_add(s, "minimum", json_object_new_int64(f->min));
	json_object_object_add(s, "maximum", json_object_new_int64(f->max));
}

static struct json_object *schema_of_fields(const struct api_fields *fields)
{
	struct json_object *s = json_object_new_object(), *props = json_object_new_object();
	struct json_object *required = json_object_new_array();
	bool open = !fields;

	for (size_t i = 0; fields && i < fields->n; i++) {
		const struct api_field *f = &fields->f[i];

		if (f->name[0] == '*') {
			open = true;
			continue;
		}
		json_object_object_add(props, f->name, schema_of(f));
		if (f->required)
			json_object_array_add(required, json_object_new_string(f->name));
	}
	add_string(s, "type", "object");
	json_object_object_add(s, "properties", props);
	json_object_object_add(s, "required", required);
	json_object_object_add(s, "additionalProperties", json_object_new_boolean(open));
	return s;
}

static struct json_object *schema_of_enum(const struct api_field *f, struct json_object *s)
{
	struct json_object *values = json_object_new_array();

	for (size_t i = 0; f->choices[i]; i++)
		json_object_array_add(values, json_object_new_string(f->choices[i]));
	add_string(s, "type", "string");
	json_object_object_add(s, "enum", values);
	return s;
}

static struct json_object *schema_of_paths(struct json_object *s)
{
	struct json_object *items = json_object_new_object();

	add_string(items, "type", "string");
	add_string(s, "type", "array");
	json_object_object_add(s, "items", items);
	return s;
}

static struct json_object *schema_of_size(struct json_object *s)
{
	struct json_object *types = json_object_new_array();

	json_object_array_add(types, json_object_new_string("integer"));
	json_object_array_add(types, json_object_new_string("string"));
	json_object_object_add(s, "type", types);
	add_string(s, "pattern", "^[0-9]+([KMGTkmgt](i?B)?)?$");
	return s;
}

static struct json_object *schema_of(const struct api_field *f)
{
	struct json_object *s;

	if (f->type == API_OBJECT) {
		s = schema_of_fields(f->object);
		add_string(s, "description", f->help);
		return s;
	}
	s = json_object_new_object();
	add_string(s, "description", f->help);
	switch (f->type) {
	case API_BOOL: add_string(s, "type", "boolean"); break;
	case API_INT:
	case API_NUMBER:
		add_string(s, "type", f->type == API_INT ? "integer" : "number");
		add_range(s, f);
		break;
	case API_STRING:
	case API_PATH: add_string(s, "type", "string"); break;
	case API_NAME:
		add_string(s, "type", "string");
		add_string(s, "pattern", "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$");
		break;
	case API_ADDR:
		add_string(s, "type", "string");
		add_string(s, "pattern", "^(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})$");
		break;
	case API_SIZE: return schema_of_size(s);
	case API_ENUM: return schema_of_enum(f, s);
	case API_PATHS: return schema_of_paths(s);
	default: break;
	}
	return s;
}

static struct json_object *describe_method(const struct api_method *m)
{
	static const char *const access[] = {"read", "operate", "admin"};
	struct json_object *obj = json_object_new_object(), *params = json_object_new_array();
	struct json_object *result = json_object_new_object();

	for (size_t i = 0; i < m->params.n; i++) {
		struct json_object *p = json_object_new_object();

		add_string(p, "name", m->params.f[i].name);
		add_string(p, "summary", m->params.f[i].help);
		json_object_object_add(p, "required",
				       json_object_new_boolean(m->params.f[i].required));
		json_object_object_add(p, "schema", schema_of(&m->params.f[i]));
		json_object_array_add(params, p);
	}
	add_string(result, "name", "result");
	json_object_object_add(result, "schema", schema_of_fields(&m->result));
	add_string(obj, "name", m->name);
	add_string(obj, "summary", m->summary);
	add_string(obj, "paramStructure", "by-name");
	json_object_object_add(obj, "params", params);
	json_object_object_add(obj, "result", result);
	add_string(obj, "x-access", access[m->access]);
	add_string(obj, "x-since", m->since);
	return obj;
}

struct json_object *api_openrpc(const struct api_table *table, const char *title)
{
	struct json_object *doc = json_object_new_object(), *info = json_object_new_object();
	struct json_object *methods = json_object_new_array();

	for (size_t i = 0; i < api_method_count(table); i++)
		json_object_array_add(methods, describe_method(api_method_at(table, i)));
	add_string(info, "title", title);
	add_string(info, "version", UMBRA_VERSION);
	add_string(doc, "openrpc", "1.2.6");
	json_object_object_add(doc, "info", info);
	json_object_object_add(doc, "methods", methods);
	return doc;
}
