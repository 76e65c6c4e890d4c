/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON-RPC 2.0 served through a method table on a libevent loop. */
#include "api/server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/conn.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/list.h"

#define ACCEPT_PAUSE_MS 100 /* when descriptors have run out */

struct listener {
	struct list link;
	struct api_server *server;
	int fd;
	struct event *readable, *resume;
};

struct api_server {
	struct event_base *base;
	struct api_server_config config;
	struct list listeners, sessions;
	size_t n_sessions;
};

struct api_session {
	struct list link;
	struct api_server *server;
	struct api_conn *conn;
	struct list calls;
	size_t n_calls;
	struct list batches;
};

/* Answers that are to go out together. */
struct batch {
	struct list link; /* in its session's; unlinked when that has gone */
	struct json_object *answers;
	size_t pending;
};

struct api_call {
	struct list link;
	struct api_session *session; /* NULL: gone */
	struct api_server *server;
	struct batch *batch;
	const struct api_method *method;
	struct json_object *id; /* owned; NULL: JSON's null, see @notification */
	bool notification;	/* nobody waits for an answer */
	struct json_object *params;
	int fd;
	void (*gone)(struct api_call *call, void *data);
	void *gone_data;
};

/* The answer's frame; takes @value. NULL: no memory. */
static struct json_object *make_answer(struct json_object *id, const char *what,
				       struct json_object *value)
{
	struct json_object *msg = json_object_new_object();

	if (!msg || !value) {
		json_object_put(msg);
		json_object_put(value);
		return NULL;
	}
	json_object_object_add(msg, "jsonrpc", json_object_new_string("2.0"));
	json_object_object_add(msg, "id", json_object_get(id));
	json_object_object_add(msg, what, value);
	return msg;
}

static void batch_finish_one(struct api_session *session, struct batch *batch)
{
	if (--batch->pending)
		return;
	if (session && json_object_array_length(batch->answers))
		api_conn_send(session->conn, batch->answers, -1);
	list_del(&batch->link);
	json_object_put(batch->answers);
	free(batch);
}

/* Send (or collect) an answer; takes @msg and @fd. */
static void send_answer(struct api_session *session, struct batch *batch, struct json_object *msg,
			int fd)
{
	if (batch && msg) {
		json_object_array_add(batch->answers, msg);
		cleanup_close(&fd);
		return;
	}
	if (session && msg)
		api_conn_send(session->conn, msg, fd);
	else
		cleanup_close(&fd);
	json_object_put(msg);
}

static void call_free(struct api_call *call)
{
	if (call->session)
		call->session->n_calls--;
	list_del(&call->link);
	if (call->batch)
		batch_finish_one(call->session, call->batch);
	json_object_put(call->id);
	json_object_put(call->params);
	cleanup_close(&call->fd);
	free(call);
}

static void session_destroy(struct api_session *session)
{
	struct api_call *call, *tmp;
	struct batch *batch, *tmp_batch;

	list_del(&session->link);
	session->server->n_sessions--;
	list_for_each_entry_safe (batch, tmp_batch, &session->batches, link)
		list_del(&batch->link);
	list_for_each_entry_safe (call, tmp, &session->calls, link) {
		list_del(&call->link);
		call->session = NULL;
		if (call->gone) {
			call->gone(call, call->gone_data);
			call_free(call);
		}
	}
	if (session->server->config.session_changed)
		session->server->config.session_changed(session->server->config.data, session, -1);
	api_conn_destroy(session->conn);
	free(session);
}

static void on_closed(void *data)
{
	session_destroy(data);
}

static void send_error(struct api_session *session, struct batch *batch, struct json_object *id,
		       const struct api_error *err)
{
	send_answer(session, batch, make_answer(id, "error", api_error_to_json(err)), -1);
}

static void on_bad(void *data, const struct api_error *err)
{
	send_error(data, NULL, NULL, err);
}

/* What a request must be before its method matters. 0, or -errno with *err. */
static int check_request(struct json_object *msg, struct json_object **id,
			 struct json_object **params, struct api_error *err)
{
	struct json_object *v;
	enum json_type t;

	*id = *params = NULL;
	if (!json_object_is_type(msg, json_type_object))
		return api_error_set(err, API_KIND_INVALID_REQUEST, "a request must be an object");
	if (json_object_object_get_ex(msg, "id", id)) {
		t = json_object_get_type(*id);
		if (t != json_type_null && t != json_type_string && t != json_type_int &&
		    t != json_type_double) {
			*id = NULL;
			return api_error_set(err, API_KIND_INVALID_REQUEST,
					     "\"id\" must be a string, a number or null");
		}
	}
	if (!json_object_object_get_ex(msg, "jsonrpc", &v) ||
	    !json_object_is_type(v, json_type_string) || strcmp(json_object_get_string(v), "2.0"))
		return api_error_set(err, API_KIND_INVALID_REQUEST, "\"jsonrpc\" must be \"2.0\"");
	if (!json_object_object_get_ex(msg, "method", &v) ||
	    !json_object_is_type(v, json_type_string))
		return api_error_set(err, API_KIND_INVALID_REQUEST, "\"method\" must be a string");
	if (json_object_object_get_ex(msg, "params", params) &&
	    !json_object_is_type(*params, json_type_object))
		return api_error_set(err, API_KIND_INVALID_PARAMS,
				     "\"params\" must be an object: parameters go by name");
	return 0;
}

/* Whether this session may call the method with these parameters now. 0, or -errno with *err. */
static int check_call(struct api_session *session, const struct api_method *m, struct batch *batch,
		      struct json_object *params, struct api_error *err)
{
	if (m->access > session->server->config.access)
		return api_error_set(err, API_KIND_DENIED, "%s is not allowed on this connection",
				     m->name);
	if (batch && (m->flags & (API_M_FD_IN | API_M_FD_OUT)))
		return api_error_set(err, API_KIND_INVALID_REQUEST,
				     "%s passes a descriptor and cannot be in a batch", m->name);
	if (session->n_calls >= API_CALLS_MAX)
		return api_error_set(err, API_KIND_LIMIT,
				     "%d calls are in flight on this connection", API_CALLS_MAX);
	return api_fields_check(&m->params, params, "", err);
}

static int find_method(struct api_server *server, struct json_object *msg,
		       const struct api_method **out, struct api_error *err)
{
	struct json_object *v = NULL;
	const char *name, *near;

	json_object_object_get_ex(msg, "method", &v);
	name = json_object_get_string(v);
	*out = api_method_find(server->config.table, name);
	if (*out)
		return 0;
	near = api_method_nearest(server->config.table, name);
	return api_error_set(err, API_KIND_METHOD_NOT_FOUND, "there is no method \"%.64s\"%s%s%s",
			     name, near ? "; did you mean \"" : "", near ? near : "",
			     near ? "\"?" : "");
}

static struct api_call *call_create(struct api_session *session, struct batch *batch)
{
	struct api_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->session = session;
	call->server = session->server;
	call->fd = -1;
	call->batch = batch;
	if (batch)
		batch->pending++;
	list_add_tail(&session->calls, &call->link);
	session->n_calls++;
	return call;
}

static void handle(struct api_call *call)
{
	const struct api_server_config *config = &call->server->config;
	const struct api_method *method = call->method;
	const void *ops = config->ops;
	api_handler handler = NULL;

	if (method->flags & API_M_MACHINE) {
		handler = config->forward;
		ops = config->machine_ops;
	}
	if (!handler && ops)
		handler = *(const api_handler *)((const char *)ops + method->handler);
	if (handler)
		handler(call);
	else
		api_call_fail(call, API_KIND_NOT_SUPPORTED, "%s is not served here", method->name);
}

static void dispatch(struct api_session *session, struct json_object *msg, struct batch *batch)
{
	struct json_object *id, *params;
	const struct api_method *method;
	struct api_call *call;
	struct api_error err;
	/* Only what is otherwise a request can be a notification. */
	bool notification = false;
	int fd = -1;
	int ret = check_request(msg, &id, &params, &err);

	if (!ret) {
		notification = !json_object_object_get_ex(msg, "id", NULL);
		ret = find_method(session->server, msg, &method, &err);
	}
	if (!ret && (method->flags & API_M_FD_IN) && !batch) {
		fd = api_conn_take_fd(session->conn);
		if (fd < 0)
			ret = api_error_set(&err, API_KIND_INVALID_PARAMS,
					    "%s must come with a descriptor", method->name);
	}
	if (!ret)
		ret = check_call(session, method, batch, params, &err);
	call = ret ? NULL : call_create(session, batch);
	if (!ret && !call)
		ret = api_error_set(&err, API_KIND_INTERNAL, "out of memory");
	if (ret) {
		cleanup_close(&fd);
		if (!notification)
			send_error(session, batch, id, &err);
		return;
	}
	call->method = method;
	call->id = json_object_get(id);
	call->notification = notification;
	call->params = params ? json_object_get(params) : json_object_new_object();
	call->fd = fd;
	handle(call);
}

static void dispatch_batch(struct api_session *session, struct json_object *msg)
{
	size_t n = json_object_array_length(msg);
	struct api_error err;
	struct batch *batch;

	if (!n || n > API_BATCH_MAX) {
		api_error_set(&err, API_KIND_INVALID_REQUEST, "a batch must have 1 to %d requests",
			      API_BATCH_MAX);
		send_error(session, NULL, NULL, &err);
		return;
	}
	batch = calloc(1, sizeof(*batch));
	if (!batch || !(batch->answers = json_object_new_array())) {
		free(batch);
		api_conn_finish(session->conn);
		return;
	}
	list_add_tail(&session->batches, &batch->link);
	batch->pending = 1; /* ours, until all are dispatched */
	for (size_t i = 0; i < n; i++)
		dispatch(session, json_object_array_get_idx(msg, i), batch);
	batch_finish_one(session, batch);
}

static void on_message(void *data, struct json_object *msg)
{
	if (json_object_is_type(msg, json_type_array))
		dispatch_batch(data, msg);
	else
		dispatch(data, msg, NULL);
}

static const struct api_conn_ops conn_ops = {
	.message = on_message,
	.bad = on_bad,
	.closed = on_closed,
};

int api_server_add(struct api_server *server, int fd)
{
	struct api_session *session;
	int ret;

	if (server->n_sessions >= API_SESSIONS_MAX)
		return -EAGAIN;
	session = calloc(1, sizeof(*session));
	if (!session)
		return -ENOMEM;
	session->server = server;
	list_init(&session->calls);
	list_init(&session->batches);
	ret = api_conn_create(&session->conn, server->base, fd, &conn_ops, session);
	if (ret) {
		free(session);
		return ret;
	}
	list_add_tail(&server->sessions, &session->link);
	server->n_sessions++;
	if (server->config.session_changed)
		server->config.session_changed(server->config.data, session, +1);
	return 0;
}

static void on_accept(evutil_socket_t sock, short what, void *arg)
{
	const struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
	struct listener *l = arg;
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		if (api_server_add(l->server, fd))
			close(fd);
	} else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
		/* Out of descriptors: the connection stays in the backlog, and we do not spin. */
		event_del(l->readable);
		evtimer_add(l->resume, &pause);
	}
}

static void on_resume(evutil_socket_t sock, short what, void *arg)
{
	struct listener *l = arg;

	event_add(l->readable, NULL);
}

static void listener_destroy(struct listener *l)
{
	list_del(&l->link);
	if (l->readable)
		event_free(l->readable);
	if (l->resume)
		event_free(l->resume);
	cleanup_close(&l->fd);
	free(l);
}

int api_server_listen(struct api_server *server, int fd)
{
	struct listener *l = calloc(1, sizeof(*l));
	int ret;

	if (!l)
		return -ENOMEM;
	l->server = server;
	l->fd = -1;
	list_init(&l->link);
	ret = fd_set_nonblock(fd, true);
	if (!ret) {
		l->readable = event_new(server->base, fd, EV_READ | EV_PERSIST, on_accept, l);
		l->resume = evtimer_new(server->base, on_resume, l);
		if (!l->readable || !l->resume || event_add(l->readable, NULL))
			ret = -ENOMEM;
	}
	if (ret) {
		listener_destroy(l);
		return ret;
	}
	l->fd = fd;
	list_add_tail(&server->listeners, &l->link);
	return 0;
}

int api_server_create(struct api_server **out, struct event_base *base,
		      const struct api_server_config *config)
{
	struct api_server *server = calloc(1, sizeof(*server));

	if (!server)
		return -ENOMEM;
	server->base = base;
	server->config = *config;
	list_init(&server->listeners);
	list_init(&server->sessions);
	*out = server;
	return 0;
}

void api_server_destroy(struct api_server *server)
{
	if (!server)
		return;
	while (!list_empty(&server->listeners))
		listener_destroy(list_first(&server->listeners, struct listener, link));
	while (!list_empty(&server->sessions))
		session_destroy(list_first(&server->sessions, struct api_session, link));
	free(server);
}

size_t api_server_sessions(const struct api_server *server)
{
	return server->n_sessions;
}

static struct json_object *make_notification(const char *method, struct json_object *params)
{
	struct json_object *msg = json_object_new_object();

	json_object_object_add(msg, "jsonrpc", json_object_new_string("2.0"));
	json_object_object_add(msg, "method", json_object_new_string(method));
	json_object_object_add(msg, "params", json_object_get(params));
	return msg;
}

void api_session_notify(struct api_session *session, const char *method, struct json_object *params)
{
	struct json_object *msg = make_notification(method, params);

	api_conn_send(session->conn, msg, -1);
	json_object_put(msg);
}

void api_server_notify_all(struct api_server *server, const char *method,
			   struct json_object *params)
{
	struct json_object *msg = make_notification(method, params);
	struct api_session *session;

	list_for_each_entry (session, &server->sessions, link)
		api_conn_send(session->conn, msg, -1);
	json_object_put(msg);
}

void api_server_flush(struct api_server *server, int ms)
{
	struct api_session *session;

	list_for_each_entry (session, &server->sessions, link)
		api_conn_flush(session->conn, ms);
}

void api_session_peer(const struct api_session *session, uid_t *uid, pid_t *pid)
{
	struct ucred cred = {.uid = (uid_t)-1, .pid = 0};
	socklen_t len = sizeof(cred);

	getsockopt(api_conn_fd(session->conn), SOL_SOCKET, SO_PEERCRED, &cred, &len);
	*uid = cred.uid;
	*pid = cred.pid;
}

struct json_object *api_call_params(const struct api_call *call)
{
	return call->params;
}

const struct api_method *api_call_method(const struct api_call *call)
{
	return call->method;
}

void *api_call_data(const struct api_call *call)
{
	const struct api_server_config *config = &call->server->config;

	return call->method->flags & API_M_MACHINE && !config->forward ? config->machine_data
								       : config->data;
}

struct api_session *api_call_session(const struct api_call *call)
{
	return call->session;
}

int api_call_take_fd(struct api_call *call)
{
	return TAKE_FD(call->fd);
}

void api_call_on_gone(struct api_call *call, void (*gone)(struct api_call *call, void *data),
		      void *data)
{
	call->gone = gone;
	call->gone_data = data;
}

void api_call_reply(struct api_call *call, struct json_object *result, int fd)
{
	if (!result)
		result = json_object_new_object();
	if (fd >= 0)
		json_object_object_add(result, "fds", json_object_new_int(1));
	if (call->notification || !call->session) {
		json_object_put(result);
		cleanup_close(&fd);
	} else {
		send_answer(call->session, call->batch, make_answer(call->id, "result", result),
			    fd);
	}
	call_free(call);
}

void api_call_error(struct api_call *call, const struct api_error *err)
{
	if (!call->notification && call->session)
		send_error(call->session, call->batch, call->id, err);
	call_free(call);
}

void api_call_fail(struct api_call *call, enum api_kind kind, const char *fmt, ...)
{
	struct api_error err = {.kind = kind};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err.text, sizeof(err.text), fmt, ap);
	va_end(ap);
	api_call_error(call, &err);
}

static struct json_object *param(const struct api_call *call, const char *name)
{
	struct json_object *v;

	return json_object_object_get_ex(call->params, name, &v) ? v : NULL;
}

const char *api_call_string(const struct api_call *call, const char *name)
{
	struct json_object *v = param(call, name);

	return v ? json_object_get_string(v) : NULL;
}

bool api_call_bool(const struct api_call *call, const char *name, bool dflt)
{
	struct json_object *v = param(call, name);

	return v ? json_object_get_boolean(v) : dflt;
}

int64_t api_call_int(const struct api_call *call, const char *name, int64_t dflt)
{
	struct json_object *v = param(call, name);

	return v ? json_object_get_int64(v) : dflt;
}

uint64_t api_call_addr(const struct api_call *call, const char *name, uint64_t dflt)
{
	struct json_object *v = param(call, name);

	return v ? api_addr_get(v) : dflt;
}

double api_call_number(const struct api_call *call, const char *name, double dflt)
{
	struct json_object *v = param(call, name);

	return v ? json_object_get_double(v) : dflt;
}
