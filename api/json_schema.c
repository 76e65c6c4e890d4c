/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fields as JSON Schema. */
#include "api/json_schema.h"

#include <json-c/json.h>

void api_json_add_text(struct json_object *obj, const char *name, const char *value)
{
	json_object_object_add(obj, name, json_object_new_string(value));
}

static void add_range(struct json_object *s, const struct api_field *f)
{
	json_object_object_add(s, "minimum", json_object_new_int64(f->min));
	json_object_object_add(s, "maximum", json_object_new_int64(f->max));
}

struct json_object *api_json_schema(const struct api_fields *fields)
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
		json_object_object_add(props, f->name, api_json_schema_field(f));
		if (f->required)
			json_object_array_add(required, json_object_new_string(f->name));
	}
	api_json_add_text(s, "type", "object");
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
	api_json_add_text(s, "type", "string");
	json_object_object_add(s, "enum", values);
	return s;
}

static struct json_object *schema_of_paths(const struct api_field *f, struct json_object *s)
{
	struct json_object *items = json_object_new_object();

	api_json_add_text(items, "type", "string");
	api_json_add_text(s, "type", "array");
	json_object_object_add(s, "items", items);
	json_object_object_add(s, "maxItems", json_object_new_int64(f->max));
	return s;
}

static struct json_object *schema_of_text_or_integer(struct json_object *s, const char *pattern)
{
	struct json_object *types = json_object_new_array();

	json_object_array_add(types, json_object_new_string("integer"));
	json_object_array_add(types, json_object_new_string("string"));
	json_object_object_add(s, "type", types);
	api_json_add_text(s, "pattern", pattern);
	return s;
}

/* The default, in its type; many are only words for people. */
static void add_default(struct json_object *s, const struct api_field *f)
{
	struct json_object *v = NULL;
	struct api_error err;

	if (f->dflt && f->type != API_PATHS && !api_field_from_text(f, f->dflt, &v, &err))
		json_object_object_add(s, "default", v);
}

struct json_object *api_json_schema_field(const struct api_field *f)
{
	struct json_object *s;

	s = f->type == API_OBJECT ? api_json_schema(f->object) : json_object_new_object();
	api_json_add_text(s, "description", f->help);
	add_default(s, f);
	switch (f->type) {
	case API_BOOL: api_json_add_text(s, "type", "boolean"); break;
	case API_INT:
	case API_NUMBER:
		api_json_add_text(s, "type", f->type == API_INT ? "integer" : "number");
		add_range(s, f);
		break;
	case API_STRING:
	case API_PATH: api_json_add_text(s, "type", "string"); break;
	case API_NAME:
		api_json_add_text(s, "type", "string");
		api_json_add_text(s, "pattern", "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$");
		break;
	case API_ADDR:
		return schema_of_text_or_integer(s, "^(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})$");
	case API_SIZE: return schema_of_text_or_integer(s, "^[0-9]+([KMGTkmgt](i?B)?)?$");
	case API_ENUM: return schema_of_enum(f, s);
	case API_PATHS: return schema_of_paths(f, s);
	default: break;
	}
	return s;
}
