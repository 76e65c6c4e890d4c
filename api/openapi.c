/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What REST serves, as an OpenAPI 3.1 document. */
#include "api/api.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "api/json_schema.h"
#include "api/route.h"

static struct json_object *object_with(const char *name, struct json_object *value)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, name, value);
	return obj;
}

static struct json_object *reference(const char *to)
{
	return object_with("$ref", json_object_new_string(to));
}

static struct json_object *content_of(const char *type, struct json_object *schema)
{
	return object_with(type, object_with("schema", schema));
}

/* A response with a body, unless @schema is NULL. */
static void add_response(struct json_object *responses, const char *status, const char *text,
			 const char *type, struct json_object *schema)
{
	struct json_object *r = json_object_new_object();

	api_json_add_text(r, "description", text);
	if (schema)
		json_object_object_add(r, "content", content_of(type, schema));
	json_object_object_add(responses, status, r);
}

static struct json_object *responses_of(const struct api_route *r)
{
	struct json_object *responses = json_object_new_object();
	const struct api_method *m = r->method;

	if (r->streams)
		add_response(responses, "200", "A stream of events, as server-sent events.",
			     "text/event-stream",
			     object_with("type", json_object_new_string("string")));
	else if (m->result.n)
		add_response(responses, r->creates ? "201" : "200",
			     r->creates ? "It has been made." : "The result.", "application/json",
			     api_json_schema(&m->result));
	else
		add_response(responses, "204", "It is done.", NULL, NULL);
	if (m->flags & API_M_LONG)
		add_response(responses, "202", "It has begun: the job.", "application/json",
			     reference("#/components/schemas/Job"));
	json_object_object_add(responses, "default", reference("#/components/responses/Problem"));
	return responses;
}

static void add_parameter(struct json_object *parameters, const struct api_field *f, const char *in)
{
	struct json_object *p = json_object_new_object();
	bool required = f->required || !strcmp(in, "path");

	api_json_add_text(p, "name", f->name);
	api_json_add_text(p, "in", in);
	api_json_add_text(p, "description", f->help);
	json_object_object_add(p, "required", json_object_new_boolean(required));
	json_object_object_add(p, "schema", api_json_schema_field(f));
	json_object_array_add(parameters, p);
}

/* Whether a field is told in the body; "wait" is about the answer, and so in the address. */
static bool in_body(const struct api_route *r, const struct api_field *f)
{
	return r->verb != API_HTTP_GET && r->verb != API_HTTP_DELETE && f != r->key &&
	       strcmp(f->name, "wait");
}

static void add_parameters(struct json_object *op, const struct api_route *r)
{
	struct json_object *parameters = json_object_new_array();

	for (size_t i = 0; i < r->method->params.n; i++) {
		const struct api_field *f = &r->method->params.f[i];

		if (!in_body(r, f))
			add_parameter(parameters, f, f == r->key ? "path" : "query");
	}
	json_object_object_add(op, "parameters", parameters);
}

static void add_body(struct json_object *op, const struct api_route *r)
{
	struct json_object *props = json_object_new_object(), *required = json_object_new_array();
	struct json_object *schema, *body;
	size_t n = 0;

	for (size_t i = 0; i < r->method->params.n; i++) {
		const struct api_field *f = &r->method->params.f[i];

		if (!in_body(r, f))
			continue;
		n++;
		json_object_object_add(props, f->name, api_json_schema_field(f));
		if (f->required)
			json_object_array_add(required, json_object_new_string(f->name));
	}
	if (!n) {
		json_object_put(props);
		json_object_put(required);
		return;
	}
	schema = object_with("type", json_object_new_string("object"));
	body = json_object_new_object();
	json_object_object_add(body, "required",
			       json_object_new_boolean(json_object_array_length(required) != 0));
	json_object_object_add(schema, "properties", props);
	json_object_object_add(schema, "required", required);
	json_object_object_add(schema, "additionalProperties", json_object_new_boolean(false));
	json_object_object_add(body, "content", content_of("application/json", schema));
	json_object_object_add(op, "requestBody", body);
}

static struct json_object *operation(const struct api_route *r)
{
	struct json_object *op = json_object_new_object(), *tags = json_object_new_array();
	const struct api_method *m = r->method;

	json_object_array_add(tags,
			      json_object_new_string_len(m->name, (int)strcspn(m->name, ".")));
	api_json_add_text(op, "operationId", m->name);
	api_json_add_text(op, "summary", m->summary);
	json_object_object_add(op, "tags", tags);
	add_parameters(op, r);
	add_body(op, r);
	json_object_object_add(op, "responses", responses_of(r));
	api_json_add_text(op, "x-access", api_access_name(m->access));
	api_json_add_text(op, "x-since", m->since);
	return op;
}

/* The routes of one address stand under it, by their verbs in small letters. */
static void add_operation(struct json_object *paths, const char *path, const char *verb,
			  struct json_object *op)
{
	struct json_object *item;
	char small[16];
	size_t i;

	for (i = 0; verb[i] && i + 1 < sizeof(small); i++)
		small[i] = (char)tolower((unsigned char)verb[i]);
	small[i] = 0;
	if (!json_object_object_get_ex(paths, path, &item)) {
		item = json_object_new_object();
		json_object_object_add(paths, path, item);
	}
	json_object_object_add(item, small, op);
}

/* What is no row of the table. */
static void add_documents(struct json_object *paths)
{
	static const struct {
		const char *path, *id, *summary, *type;
		bool open;
	} documents[] = {
		{"/healthz", "healthz", "Tell that umbrad answers.", "text/plain", true},
		{"/metrics", "metrics", "Tell counters, in the OpenMetrics text format.",
		 "application/openmetrics-text", false},
		{API_REST_PREFIX "/openapi.json", "openapi", "Give this document.",
		 "application/json", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(documents); i++) {
		struct json_object *op = json_object_new_object(), *tags = json_object_new_array();
		struct json_object *responses = json_object_new_object();

		add_response(responses, "200", "The document.", documents[i].type,
			     json_object_new_object());
		json_object_object_add(responses, "default",
				       reference("#/components/responses/Problem"));
		json_object_array_add(tags, json_object_new_string("documents"));
		api_json_add_text(op, "operationId", documents[i].id);
		api_json_add_text(op, "summary", documents[i].summary);
		json_object_object_add(op, "tags", tags);
		json_object_object_add(op, "responses", responses);
		if (documents[i].open)
			json_object_object_add(op, "security", json_object_new_array());
		add_operation(paths, documents[i].path, "get", op);
	}
}

/* RFC 9457's members, and those of "data" in JSON-RPC. */
static struct json_object *problem_schema(void)
{
	static const struct api_field fields[] = {
		{.name = "type",
		 .type = API_STRING,
		 .required = true,
		 .help = "urn:umbra:error: and the kind"},
		{.name = "title",
		 .type = API_STRING,
		 .required = true,
		 .help = "the kind, for people"},
		{.name = "status",
		 .type = API_INT,
		 .min = 400,
		 .max = 599,
		 .required = true,
		 .help = "of HTTP"},
		{.name = "detail", .type = API_STRING, .help = "what is wrong, one sentence"},
		{.name = "kind",
		 .type = API_STRING,
		 .required = true,
		 .help = "one of a frozen list; the same in every API"},
		{.name = "retryable",
		 .type = API_BOOL,
		 .required = true,
		 .help = "whether the same request may succeed later by itself"},
		{.name = "machine", .type = API_STRING, .help = "the machine it is about"},
		{.name = "details", .type = API_OBJECT, .help = "{field}: what is wrong"},
	};
	static const struct api_fields problem = API_FIELDS("a problem", fields);

	return api_json_schema(&problem);
}

static struct json_object *components(const struct api_table *table)
{
	struct json_object *obj = json_object_new_object(), *bearer = json_object_new_object();
	struct json_object *problem = json_object_new_object(), *tls = json_object_new_object();
	struct json_object *security = json_object_new_object();
	struct json_object *schemas = json_object_new_object();
	const struct api_method *job = api_method_find(table, "job.show");

	api_json_add_text(bearer, "type", "http");
	api_json_add_text(bearer, "scheme", "bearer");
	api_json_add_text(tls, "type", "mutualTLS");
	json_object_object_add(security, "token", bearer);
	json_object_object_add(security, "certificate", tls);
	json_object_object_add(schemas, "Problem", problem_schema());
	json_object_object_add(schemas, "Job", api_json_schema(job ? &job->result : NULL));
	api_json_add_text(problem, "description", "What is wrong (RFC 9457).");
	json_object_object_add(
		problem, "content",
		content_of("application/problem+json", reference("#/components/schemas/Problem")));
	json_object_object_add(obj, "schemas", schemas);
	json_object_object_add(obj, "responses", object_with("Problem", problem));
	json_object_object_add(obj, "securitySchemes", security);
	return obj;
}

static struct json_object *paths_of(const struct api_table *table)
{
	struct json_object *paths = json_object_new_object();
	const struct api_method *m;
	struct api_route r;
	char path[API_ROUTE_PATH + 16];

	for (size_t i = 0; (m = api_method_at(table, i)); i++) {
		if (api_route_make(table, m, &r))
			continue;
		snprintf(path, sizeof(path), API_REST_PREFIX "%s", r.path);
		add_operation(paths, path, api_http_method_names[r.verb], operation(&r));
	}
	add_documents(paths);
	return paths;
}

/* A Unix socket asks for neither: it knows its peer. */
static struct json_object *security_of(void)
{
	struct json_object *security = json_object_new_array();

	json_object_array_add(security, object_with("certificate", json_object_new_array()));
	json_object_array_add(security, object_with("token", json_object_new_array()));
	json_object_array_add(security, json_object_new_object());
	return security;
}

struct json_object *api_openapi(const struct api_table *table, const char *title)
{
	struct json_object *doc = json_object_new_object(), *info = json_object_new_object();
	struct json_object *licence = json_object_new_object(), *servers = json_object_new_array();

	api_json_add_text(licence, "name", "LGPL-2.1-or-later");
	api_json_add_text(licence, "identifier", "LGPL-2.1-or-later");
	api_json_add_text(info, "title", title);
	api_json_add_text(info, "version", UMBRA_VERSION);
	api_json_add_text(info, "summary", "Virtual machines, and their memory's management.");
	json_object_object_add(info, "license", licence);
	json_object_array_add(servers, object_with("url", json_object_new_string("/")));
	api_json_add_text(doc, "openapi", "3.1.0");
	json_object_object_add(doc, "info", info);
	json_object_object_add(doc, "servers", servers);
	json_object_object_add(doc, "security", security_of());
	json_object_object_add(doc, "paths", paths_of(table));
	json_object_object_add(doc, "components", components(table));
	return doc;
}
