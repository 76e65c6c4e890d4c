/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* REST: routes made from the method table, calls through the dispatcher, errors as problems (RFC
 * 9457), events as a stream (the HTML standard's server-sent events). */
#include "api/rest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <event2/http.h>
#include <json-c/json.h>

#include "api/api.h"
#include "api/conn.h"
#include "api/route.h"
#include "base/cleanup.h"
#include "base/list.h"

#define SEGMENTS_MAX 6
#define QUERY_MAX    64 /* parameters in an address */
#define HEARTBEAT_S  15

struct api_rest {
	struct api_rest_config config;
	struct api_http *http;
	struct api_route *routes;
	size_t n_routes;
	struct list streams;
	struct event *heartbeat;
};

/* A request that is served. */
struct exchange {
	struct list link; /* in api_rest.streams, while it is one */
	struct api_rest *rest;
	struct api_http_request *req; /* NULL: the client has gone */
	const struct api_route *route;
	struct api_caller caller;
	struct json_object *params;
	struct api_call *call; /* in flight */
	bool *answered;	       /* told while api_dispatch() is at work */
	struct api_listener *listener;
	bool streaming, lost; /* events; @lost: not all that were asked for are kept */
};

/* ---- answers ---- */

static void reply_json(struct api_http_request *req, int status, const char *type,
		       struct json_object *obj)
{
	size_t len = 0;
	const char *text = json_object_to_json_string_length(
		obj, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);

	api_http_set_header(req, "Cache-Control", "no-store");
	api_http_reply(req, text ? status : 500, text ? type : NULL, text, len);
}

/* "invalid-params" as "Invalid params". */
static void add_title(struct json_object *obj, const char *kind)
{
	char title[32];

	snprintf(title, sizeof(title), "%s", kind);
	for (char *p = title; *p; p++)
		if (*p == '-')
			*p = ' ';
	if (title[0] >= 'a' && title[0] <= 'z')
		title[0] = (char)(title[0] - 'a' + 'A');
	json_object_object_add(obj, "title", json_object_new_string(title));
}

/* RFC 9457: beside its own members those that "data" has in JSON-RPC. */
static struct json_object *problem_of(const struct api_error *err, int status)
{
	struct json_object *rpc = api_error_to_json(err), *obj = json_object_new_object(), *data;
	char type[64];

	snprintf(type, sizeof(type), "urn:umbra:error:%s", api_kind_name(err->kind));
	json_object_object_add(obj, "type", json_object_new_string(type));
	add_title(obj, api_kind_name(err->kind));
	json_object_object_add(obj, "status", json_object_new_int(status));
	if (json_object_object_get_ex(rpc, "message", &data))
		json_object_object_add(obj, "detail", json_object_get(data));
	if (json_object_object_get_ex(rpc, "data", &data)) {
		json_object_object_foreach(data, key, value)
			json_object_object_add(obj, key, json_object_get(value));
	}
	json_object_put(rpc);
	return obj;
}

/* @status 0: the one of the error's kind. */
static void reply_problem(struct api_http_request *req, const struct api_error *err, int status)
{
	struct json_object *obj;

	status = status ? status : api_kind_status(err->kind);
	if (status == 401)
		api_http_set_header(req, "WWW-Authenticate", "Bearer realm=\"umbra\"");
	if (status == 429 || status == 503)
		api_http_set_header(req, "Retry-After", "1");
	obj = problem_of(err, status);
	reply_json(req, status, "application/problem+json", obj);
	json_object_put(obj);
}

/* What HTTP itself is refused for. */
static void on_refuse(void *data, struct api_http_request *req, int status, const char *why)
{
	struct api_error err = {0};

	api_error_set(&err,
		      status == 429   ? API_KIND_LIMIT
		      : status == 403 ? API_KIND_DENIED
				      : API_KIND_INVALID_REQUEST,
		      "%s", why);
	reply_problem(req, &err, status);
}

/* ---- an exchange ---- */

static void exchange_free(struct exchange *x)
{
	api_events_unlisten(x->listener);
	list_del(&x->link);
	json_object_put(x->params);
	free(x);
}

static void on_gone(void *data)
{
	struct exchange *x = data;

	if (x->call)
		api_call_gone(x->call);
	exchange_free(x);
}

static struct exchange *exchange_create(struct api_rest *rest, struct api_http_request *req,
					const struct api_caller *caller)
{
	struct exchange *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->rest = rest;
	x->req = req;
	x->caller = *caller;
	list_init(&x->link);
	return x;
}

/* The request is answered after this. */
static struct api_http_request *exchange_done(struct exchange *x)
{
	struct api_http_request *req = x->req;

	if (x->answered)
		*x->answered = true;
	api_http_on_gone(req, NULL, NULL);
	exchange_free(x);
	return req;
}

static void fail(struct exchange *x, const struct api_error *err, int status)
{
	reply_problem(exchange_done(x), err, status);
}

/* ---- events ---- */

static void stream_abort(struct exchange *x)
{
	api_http_abort(exchange_done(x));
}

static int stream_open(struct exchange *x)
{
	static const char hello[] = "retry: 1000\n\n";
	static const char lost[] = "event: lost\ndata: {}\n\n";
	int ret;

	x->streaming = true;
	list_add_tail(&x->rest->streams, &x->link);
	api_http_set_header(x->req, "Cache-Control", "no-store");
	api_http_stream(x->req, 200, "text/event-stream");
	ret = api_http_stream_write(x->req, hello, sizeof(hello) - 1);
	if (!ret && x->lost)
		ret = api_http_stream_write(x->req, lost, sizeof(lost) - 1);
	return ret;
}

static void on_event(void *data, const struct api_event *ev)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct exchange *x = data;

	buf_printf(&b, "id: %" PRIu64 "\nevent: %s\ndata: %s\n\n", ev->seq, ev->type,
		   json_object_to_json_string_ext(ev->obj, JSON_C_TO_STRING_PLAIN));
	/* Who does not read is not waited for: it comes again with Last-Event-ID. */
	if ((!x->streaming && stream_open(x)) || b.failed ||
	    api_http_stream_write(x->req, b.data, b.len))
		stream_abort(x);
}

static void on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
	struct api_rest *rest = arg;
	struct exchange *x, *tmp;

	list_for_each_entry_safe (x, tmp, &rest->streams, link)
		if (api_http_stream_write(x->req, ":\n\n", 3))
			stream_abort(x);
}

static bool result_bool(struct json_object *result, const char *name)
{
	struct json_object *v;

	return json_object_object_get_ex(result, name, &v) && json_object_get_boolean(v);
}

static const char *param_string(struct json_object *params, const char *name)
{
	struct json_object *v;

	return json_object_object_get_ex(params, name, &v) ? json_object_get_string(v) : NULL;
}

/* events.subscribe has been allowed, and its parameters checked but for what only a listener knows.
 */
static void stream_start(struct exchange *x, struct json_object *result)
{
	struct api_events_filter filter = {.caller = &x->caller};
	struct api_events *events = x->rest->config.events;
	struct json_object *since;
	struct api_error err;
	bool ended = false;

	if (x->answered)
		*x->answered = true;
	x->answered = &ended;
	x->call = NULL;
	x->lost = result_bool(result, "lost");
	filter.types = param_string(x->params, "types");
	filter.machine = param_string(x->params, "machine");
	filter.replay = json_object_object_get_ex(x->params, "since", &since);
	if (filter.replay)
		filter.since = (uint64_t)json_object_get_int64(since);
	if (api_events_listen(events, &filter, on_event, x, &x->listener, &err))
		fail(x, &err, 0);
	/* The replay may have found that the client does not read. */
	if (ended)
		return;
	x->answered = NULL;
	if (!x->streaming && stream_open(x))
		stream_abort(x);
}

/* ---- a call ---- */

/* A long row is a job unless its caller waits; its answer is the job then. */
static struct json_object *job_id(const struct exchange *x, struct json_object *result)
{
	struct json_object *id;

	if (!(x->route->method->flags & API_M_LONG) || result_bool(x->params, "wait"))
		return NULL;
	return json_object_object_get_ex(result, "id", &id) ? id : NULL;
}

/* Where what has been made is found. */
static void set_location(struct exchange *x, struct json_object *result)
{
	struct json_object *v = job_id(x, result);
	char address[160];

	if (!v && !json_object_object_get_ex(result, "name", &v))
		return;
	snprintf(address, sizeof(address), API_REST_PREFIX "%s/%s",
		 job_id(x, result) ? "/jobs" : x->route->path, json_object_get_string(v));
	api_http_set_header(x->req, "Location", address);
}

static void on_reply(void *priv, struct json_object *result, int fd)
{
	struct exchange *x = priv;
	int status = 200;

	cleanup_close(&fd);
	if (x->route->streams) {
		stream_start(x, result);
		json_object_put(result);
		return;
	}
	if (job_id(x, result))
		status = 202;
	else if (x->route->creates)
		status = 201;
	else if (!x->route->method->result.n)
		status = 204;
	if (status == 201 || status == 202)
		set_location(x, result);
	if (status == 204)
		api_http_reply(exchange_done(x), status, NULL, NULL, 0);
	else
		reply_json(exchange_done(x), status, "application/json", result);
	json_object_put(result);
}

static void on_fail(void *priv, const struct api_error *err)
{
	struct exchange *x = priv;
	/* Who has not said who it is may try again, having said it. */
	bool nobody = err->kind == API_KIND_DENIED && x->caller.level < API_READ;

	reply_problem(exchange_done(x), err, nobody ? 401 : 0);
}

static const struct api_reply_ops reply_ops = {.reply = on_reply, .fail = on_fail};

static void call(struct exchange *x)
{
	bool answered = false;
	struct api_call *handle;

	x->answered = &answered;
	api_http_on_gone(x->req, on_gone, x);
	handle = api_dispatch(x->rest->config.dispatcher, x->route->method->name, x->params, -1,
			      &x->caller, &reply_ops, x);
	if (answered)
		return;
	x->answered = NULL;
	x->call = handle;
}

/* ---- parameters ---- */

/* @name may come once only, be it in the path, the query or the body. Takes @v. */
static int add_param(struct json_object *params, const char *name, struct json_object *v,
		     struct api_error *err)
{
	if (json_object_object_get_ex(params, name, NULL)) {
		json_object_put(v);
		return api_error_field(err, name, "field \"%.64s\" is given twice", name);
	}
	json_object_object_add(params, name, v);
	return 0;
}

/*
 * A text of the address as the type that its field has. What is none goes on as it came, for the
 * dispatcher to refuse: it looks at who calls first.
 */
static int add_text(struct exchange *x, const char *name, const char *text, size_t len,
		    struct api_error *err)
{
	const struct api_field *f = api_field_find(&x->route->method->params, name);
	struct json_object *v = NULL, *old;

	if (f && f->type == API_PATHS && json_object_object_get_ex(x->params, name, &old) &&
	    json_object_is_type(old, json_type_array)) {
		v = json_object_get(old);
		if (strlen(text) == len && !api_field_from_text(f, text, &v, err)) {
			json_object_put(v);
			return 0;
		}
		json_object_put(v);
		return -EINVAL;
	}
	if (!f || strlen(text) != len || api_field_from_text(f, text, &v, err))
		v = json_object_new_string_len(text, (int)len);
	return add_param(x->params, name, v, err);
}

/* One "name=value" of @len bytes. */
static int add_query_one(struct exchange *x, const char *text, size_t len, struct api_error *err)
{
	_cleanup_free_ char *piece = strndup(text, len), *name = NULL, *value = NULL;
	char *equals = piece ? strchr(piece, '=') : NULL;
	size_t name_len = 0, value_len = 0;

	if (equals)
		*equals = 0;
	name = piece ? evhttp_uridecode(piece, 1, &name_len) : NULL;
	value = evhttp_uridecode(equals ? equals + 1 : "true", 1, &value_len);
	if (!name || !value)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	return add_text(x, name, value, value_len, err);
}

static int add_query(struct exchange *x, struct api_error *err)
{
	const char *q = api_http_query(x->req);
	unsigned n = 0;
	size_t len;
	int ret = 0;

	for (; !ret && q && *q; q += len + (q[len] == '&')) {
		len = strcspn(q, "&");
		if (!len)
			continue;
		if (++n > QUERY_MAX)
			return api_error_set(err, API_KIND_INVALID_REQUEST,
					     "the address has more than %d parameters", QUERY_MAX);
		ret = add_query_one(x, q, len, err);
	}
	return ret;
}

static int parse_body(const char *body, size_t len, struct json_object **out, struct api_error *err)
{
	struct json_tokener *tok = json_tokener_new_ex(API_DEPTH_MAX);
	struct json_object *obj;
	enum json_tokener_error fault;
	size_t end;

	if (!tok)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	obj = json_tokener_parse_ex(tok, body, (int)len);
	fault = json_tokener_get_error(tok);
	end = json_tokener_get_parse_end(tok);
	/* Of a number only what is behind it tells that it is whole. */
	if (fault == json_tokener_continue) {
		obj = json_tokener_parse_ex(tok, " ", 1);
		fault = json_tokener_get_error(tok);
		end = len;
	}
	json_tokener_free(tok);
	while (fault == json_tokener_success && end < len && strchr(" \t\r\n", body[end]))
		end++;
	if (fault != json_tokener_success || end < len) {
		json_object_put(obj);
		return api_error_set(err, API_KIND_PARSE, "the body is not one JSON text: %s",
				     fault == json_tokener_success ? "more comes behind it"
				     : fault == json_tokener_continue
					     ? "it ends too early"
					     : json_tokener_error_desc(fault));
	}
	*out = obj;
	return 0;
}

static bool is_json(const char *type)
{
	size_t len = type ? strcspn(type, "; \t") : 0;

	return len == strlen("application/json") && !strncasecmp(type, "application/json", len);
}

/* The members of the body's object. *@status is set where the error's kind does not say it. */
static int add_body(struct exchange *x, int *status, struct api_error *err)
{
	const char *coding = api_http_header(x->req, "Content-Encoding");
	struct json_object *obj = NULL;
	size_t len;
	const char *body = api_http_body(x->req, &len);
	int ret;

	if (!len)
		return 0;
	if (x->route->verb == API_HTTP_GET)
		return api_error_set(err, API_KIND_INVALID_REQUEST,
				     "what GET asks stands in the address, not in a body");
	if (!is_json(api_http_header(x->req, "Content-Type")) ||
	    (coding && strcasecmp(coding, "identity"))) {
		*status = 415;
		return api_error_set(err, API_KIND_INVALID_REQUEST,
				     "a body must be of the type application/json, as it is");
	}
	ret = parse_body(body, len, &obj, err);
	if (!ret && !json_object_is_type(obj, json_type_object))
		ret = api_error_set(err, API_KIND_INVALID_PARAMS,
				    "the body must be an object: parameters go by name");
	if (!ret) {
		json_object_object_foreach(obj, key, value)
		{
			ret = add_param(x->params, key, json_object_get(value), err);
			if (ret)
				break;
		}
	}
	json_object_put(obj);
	return ret;
}

/* A stream that was cut off goes on where it was. */
static int add_last_event(struct exchange *x, struct api_error *err)
{
	const char *last = api_http_header(x->req, "Last-Event-ID");

	if (!x->route->streams || !last || !*last ||
	    json_object_object_get_ex(x->params, "since", NULL))
		return 0;
	return add_text(x, "since", last, strlen(last), err);
}

/* ---- routes ---- */

/* A request's path in pieces, decoded. */
struct path {
	char *v[SEGMENTS_MAX];
	size_t len[SEGMENTS_MAX];
	size_t n;
};

static void path_finish(struct path *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i]);
}

/* false: it cannot be any route's. */
static bool path_split(struct path *p, const char *text)
{
	size_t prefix = strlen(API_REST_PREFIX);

	p->n = 0;
	if (strncmp(text, API_REST_PREFIX "/", prefix + 1))
		return false;
	for (text += prefix; *text; p->n++) {
		size_t len = strcspn(text + 1, "/");
		_cleanup_free_ char *piece = strndup(text + 1, len);

		if (p->n == SEGMENTS_MAX || !len || !piece)
			return false;
		p->v[p->n] = evhttp_uridecode(piece, 0, &p->len[p->n]);
		if (!p->v[p->n])
			return false;
		text += len + 1;
	}
	return true;
}

/* Whether @p is at the route's address; *@key is the piece that stands for the braces. */
static bool route_matches(const struct api_route *r, const struct path *p, size_t *key)
{
	const char *text = r->path;
	size_t i;

	for (i = 0; i < p->n && *text; i++) {
		size_t len = strcspn(text + 1, "/");

		if (text[1] == '{')
			*key = i;
		else if (len != p->len[i] || memcmp(text + 1, p->v[i], len))
			return false;
		text += len + 1;
	}
	return i == p->n && !*text;
}

/* The route, or NULL with the methods that are at the address (none: there is no such address). */
static const struct api_route *find_route(const struct api_rest *rest, const struct path *p,
					  enum api_http_method verb, size_t *key, unsigned *allowed)
{
	*allowed = 0;
	for (size_t i = 0; i < rest->n_routes; i++) {
		const struct api_route *r = &rest->routes[i];

		if (!route_matches(r, p, key))
			continue;
		if (r->verb == verb)
			return r;
		*allowed |= 1u << r->verb;
	}
	return NULL;
}

static void set_allow(struct api_http_request *req, unsigned allowed)
{
	_cleanup_(buf_finish) struct buf b = {0};

	for (unsigned i = 0; i < API_HTTP_OPTIONS; i++)
		if (allowed & 1u << i)
			buf_printf(&b, "%s%s, ", api_http_method_names[i],
				   i == API_HTTP_GET ? ", HEAD" : "");
	buf_printf(&b, "OPTIONS");
	if (!b.failed)
		api_http_set_header(req, "Allow", b.data);
}

static void no_route(struct api_http_request *req, unsigned allowed)
{
	struct api_error err;

	if (!allowed) {
		api_error_set(&err, API_KIND_METHOD_NOT_FOUND, "there is nothing at %.128s",
			      api_http_path(req));
		reply_problem(req, &err, 0);
		return;
	}
	set_allow(req, allowed);
	if (api_http_method(req) == API_HTTP_OPTIONS) {
		api_http_reply(req, 204, NULL, NULL, 0);
		return;
	}
	api_error_set(&err, API_KIND_METHOD_NOT_FOUND, "%.128s cannot be asked for that",
		      api_http_path(req));
	reply_problem(req, &err, 405);
}

static void serve_route(struct api_rest *rest, struct api_http_request *req,
			const struct api_caller *caller)
{
	_cleanup_(path_finish) struct path p = {0};
	const struct api_route *route = NULL;
	struct api_error err = {0};
	struct exchange *x;
	unsigned allowed = 0;
	int status = 0, ret;
	size_t key = 0;

	if (path_split(&p, api_http_path(req)))
		route = find_route(rest, &p, api_http_method(req), &key, &allowed);
	if (!route) {
		no_route(req, allowed);
		return;
	}
	x = exchange_create(rest, req, caller);
	if (!x) {
		api_error_set(&err, API_KIND_INTERNAL, "out of memory");
		reply_problem(req, &err, 0);
		return;
	}
	x->route = route;
	x->params = json_object_new_object();
	ret = add_body(x, &status, &err);
	if (!ret && route->key)
		ret = add_text(x, route->key->name, p.v[key], p.len[key], &err);
	if (!ret)
		ret = add_query(x, &err);
	if (!ret)
		ret = add_last_event(x, &err);
	if (ret)
		fail(x, &err, status);
	else
		call(x);
}

/* ---- documents ---- */

static void metrics_gone(void *data)
{
	struct exchange *x = data;

	x->req = NULL; /* freed when the text is there */
}

static void metrics_done(void *arg, const struct buf *text)
{
	static const char type[] = "application/openmetrics-text; version=1.0.0; charset=utf-8";
	struct exchange *x = arg;
	struct api_error err;

	if (!x->req) {
		exchange_free(x);
		return;
	}
	if (text) {
		api_http_reply(exchange_done(x), 200, type, text->data, text->len);
		return;
	}
	api_error_set(&err, API_KIND_UNAVAILABLE, "the metrics could not be gathered");
	fail(x, &err, 0);
}

static void serve_metrics(struct api_rest *rest, struct api_http_request *req,
			  const struct api_caller *caller)
{
	struct exchange *x = exchange_create(rest, req, caller);

	if (!x) {
		api_http_reply(req, 500, NULL, NULL, 0);
		return;
	}
	api_http_on_gone(req, metrics_gone, x);
	rest->config.metrics(rest->config.data, caller, metrics_done, x);
}

static void serve_openapi(struct api_rest *rest, struct api_http_request *req,
			  const struct api_caller *caller)
{
	struct json_object *doc = api_openapi(rest->config.dispatcher->table, "Umbra");

	reply_json(req, doc ? 200 : 500, "application/json", doc);
	json_object_put(doc);
}

static void serve_health(struct api_rest *rest, struct api_http_request *req,
			 const struct api_caller *caller)
{
	api_http_set_header(req, "Cache-Control", "no-store");
	api_http_reply(req, 200, "text/plain", "ok\n", 3);
}

/* What is at an address of its own. */
static const struct document {
	const char *path;
	void (*serve)(struct api_rest *rest, struct api_http_request *req,
		      const struct api_caller *caller);
	enum api_access access; /* API_NOBODY: nobody is asked who it is */
} documents[] = {
	{"/healthz", serve_health, API_NOBODY},
	{"/metrics", serve_metrics, API_READ},
	{API_REST_PREFIX "/openapi.json", serve_openapi, API_READ},
};

static const struct document *find_document(const struct api_rest *rest, const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(documents); i++)
		if (!strcmp(path, documents[i].path) &&
		    (documents[i].serve != serve_metrics || rest->config.metrics))
			return &documents[i];
	return NULL;
}

/* 0, or -errno with *err and the status. */
static int identify(struct api_rest *rest, struct api_http_request *req, enum api_access need,
		    struct api_caller *caller, int *status, struct api_error *err)
{
	int ret;

	*caller = (struct api_caller){.level = API_NOBODY, .uid = (uid_t)-1};
	*status = 401;
	ret = rest->config.identify(rest->config.data, req, caller, err);
	if (ret)
		return ret;
	caller->transport = API_T_REST;
	caller->passes_fds = false;
	caller->session = NULL;
	*status = 0;
	ret = api_http_count(req, caller, err);
	if (ret) {
		api_http_set_close(req);
		return ret;
	}
	if (caller->level >= need)
		return 0;
	*status = caller->level < API_READ ? 401 : 403;
	return api_error_set(err, API_KIND_DENIED, "this is not for everybody");
}

static void on_request(void *data, struct api_http_request *req)
{
	const struct document *doc = find_document(data, api_http_path(req));
	enum api_access need = doc ? doc->access : API_NOBODY;
	struct api_caller caller = {0};
	struct api_error err = {0};
	int status;

	if ((!doc || need > API_NOBODY) && identify(data, req, need, &caller, &status, &err))
		reply_problem(req, &err, status);
	else if (!doc)
		serve_route(data, req, &caller);
	else if (api_http_method(req) == API_HTTP_GET)
		doc->serve(data, req, &caller);
	else
		no_route(req, 1u << API_HTTP_GET);
}

/* ---- the whole ---- */

static int make_routes(struct api_rest *rest)
{
	const struct api_table *table = rest->config.dispatcher->table;
	const struct api_method *m;

	rest->routes = calloc(api_method_count(table), sizeof(*rest->routes));
	if (!rest->routes)
		return -ENOMEM;
	for (size_t i = 0; (m = api_method_at(table, i)); i++)
		if (!api_route_make(table, m, &rest->routes[rest->n_routes]))
			rest->n_routes++;
	return 0;
}

int api_rest_create(struct api_rest **out, struct event_base *base,
		    const struct api_rest_config *config)
{
	const struct timeval pause = {.tv_sec = HEARTBEAT_S};
	struct api_rest *rest = calloc(1, sizeof(*rest));
	const struct api_http_config http = {
		.dispatcher = config->dispatcher,
		.request = on_request,
		.refuse = on_refuse,
		.data = rest,
	};
	int ret;

	if (!rest)
		return -ENOMEM;
	rest->config = *config;
	list_init(&rest->streams);
	rest->heartbeat = event_new(base, -1, EV_PERSIST, on_heartbeat, rest);
	ret = rest->heartbeat && !event_add(rest->heartbeat, &pause) ? 0 : -ENOMEM;
	if (!ret)
		ret = make_routes(rest);
	if (!ret)
		ret = api_http_create(&rest->http, base, &http);
	if (ret) {
		api_rest_destroy(rest);
		return ret;
	}
	*out = rest;
	return 0;
}

void api_rest_destroy(struct api_rest *rest)
{
	if (!rest)
		return;
	api_http_destroy(rest->http);
	if (rest->heartbeat)
		event_free(rest->heartbeat);
	free(rest->routes);
	free(rest);
}

int api_rest_listen(struct api_rest *rest, int fd, struct api_tls *tls)
{
	return api_http_listen(rest->http, fd, tls);
}

size_t api_rest_recheck(struct api_rest *rest)
{
	struct exchange *x, *tmp;
	size_t n = 0;

	list_for_each_entry_safe (x, tmp, &rest->streams, link) {
		struct api_caller now = {.level = API_NOBODY, .uid = (uid_t)-1};
		struct api_error err;

		if (!rest->config.identify(rest->config.data, x->req, &now, &err) &&
		    !api_caller_lost(&now, &x->caller))
			continue;
		stream_abort(x);
		n++;
	}
	return n;
}

size_t api_rest_connections(const struct api_rest *rest)
{
	return api_http_connections(rest->http);
}
