/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A method table as an OpenRPC document. */
#include "api/api.h"

#include <json-c/json.h>

#include "api/json_schema.h"

static struct json_object *describe_method(const struct api_method *m)
{
	struct json_object *obj = json_object_new_object(), *params = json_object_new_array();
	struct json_object *result = json_object_new_object();

	for (size_t i = 0; i < m->params.n; i++) {
		struct json_object *p = json_object_new_object();

		api_json_add_text(p, "name", m->params.f[i].name);
		api_json_add_text(p, "summary", m->params.f[i].help);
		json_object_object_add(p, "required",
				       json_object_new_boolean(m->params.f[i].required));
		json_object_object_add(p, "schema", api_json_schema_field(&m->params.f[i]));
		json_object_array_add(params, p);
	}
	api_json_add_text(result, "name", "result");
	json_object_object_add(result, "schema", api_json_schema(&m->result));
	api_json_add_text(obj, "name", m->name);
	api_json_add_text(obj, "summary", m->summary);
	api_json_add_text(obj, "paramStructure", "by-name");
	json_object_object_add(obj, "params", params);
	json_object_object_add(obj, "result", result);
	api_json_add_text(obj, "x-access", api_access_name(m->access));
	api_json_add_text(obj, "x-since", m->since);
	json_object_object_add(obj, "x-long", json_object_new_boolean(m->flags & API_M_LONG));
	return obj;
}

struct json_object *api_openrpc(const struct api_table *table, const char *title)
{
	struct json_object *doc = json_object_new_object(), *info = json_object_new_object();
	struct json_object *methods = json_object_new_array();

	for (size_t i = 0; i < api_method_count(table); i++)
		json_object_array_add(methods, describe_method(api_method_at(table, i)));
	api_json_add_text(info, "title", title);
	api_json_add_text(info, "version", UMBRA_VERSION);
	api_json_add_text(doc, "openrpc", "1.2.6");
	json_object_object_add(doc, "info", info);
	json_object_object_add(doc, "methods", methods);
	return doc;
}
