/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON-RPC 2.0 over stream sockets on a libevent loop: a transport of the dispatcher. */
#include "api/server.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <json-c/json.h>

#include "api/conn.h"
#include "api/tls.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/list.h"

#define ACCEPT_PAUSE_MS 100 /* when descriptors have run out */
#define STRANGER_MAX	KIB(64)

struct listener {
	struct list link;
	struct api_server *server;
	struct api_listen how;
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
	struct api_connection counted;
	struct api_caller caller;
	enum api_access cap;
	bool tls, shaken; /* the TLS handshake is over */
	unsigned auth_failures;
	struct event *deadline; /* to have said who it is; then, for TLS, of idleness */
	struct list requests;
	size_t n_requests;
	struct list batches;
};

/* Answers that are to go out together. */
struct batch {
	struct list link; /* in its session's; unlinked when that has gone */
	struct json_object *answers;
	size_t pending;
	bool gone; /* the session has: nothing is sent */
};

/* A request that has not been answered. */
struct request {
	struct list link;
	struct api_session *session;
	struct batch *batch;
	struct json_object *id; /* owned; NULL: JSON's null, see @notification */
	bool notification;	/* nobody waits for an answer */
	struct api_call *call;
};

static void session_arm(struct api_session *session);
static void limit_message(struct api_session *session);

/* Who it is, as far as the socket tells, and (@was) what it has told itself. */
static int identify(struct api_session *session, const struct api_caller *was,
		    struct api_caller *caller)
{
	const struct api_server_config *config = &session->server->config;
	char cert[API_CALLER_NAME - 8] = "";
	struct api_peer peer = {.fd = -1, .tls = session->tls, .was = was};
	int ret = 0;

	*caller = (struct api_caller){
		.level = API_ADMIN,
		.transport = API_T_RPC,
		.passes_fds = !session->tls,
		.uid = (uid_t)-1,
		.sees_all = true,
		.session = session,
	};
	if (!session->tls)
		peer.fd = api_conn_fd(session->conn);
	else
		ret = api_tls_peer_name(api_conn_bufferevent(session->conn), cert, sizeof(cert));
	peer.cert = cert[0] ? cert : NULL;
	if (!ret && config->identify)
		ret = config->identify(config->data, &peer, caller);
	caller->level = MIN(caller->level, session->cap);
	return ret;
}

/* Whether it may do what it could; more is taken over. */
static bool still_known(struct api_session *session)
{
	struct api_caller now;
	bool more;

	if (identify(session, &session->caller, &now) || api_caller_lost(&now, &session->caller))
		return false;
	more = now.level > session->caller.level;
	session->caller = now;
	if (more) {
		limit_message(session);
		session_arm(session);
	}
	return true;
}

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
	if (!batch->gone && json_object_array_length(batch->answers))
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
	if (msg)
		api_conn_send(session->conn, msg, fd);
	else
		cleanup_close(&fd);
	json_object_put(msg);
}

static void request_free(struct request *r)
{
	r->session->n_requests--;
	list_del(&r->link);
	if (r->batch)
		batch_finish_one(r->session, r->batch);
	session_arm(r->session);
	json_object_put(r->id);
	free(r);
}

static void session_destroy(struct api_session *session)
{
	struct batch *batch, *tmp;

	list_del(&session->link);
	session->server->n_sessions--;
	/* What is called here must not find the connection. */
	list_for_each_entry_safe (batch, tmp, &session->batches, link) {
		list_del(&batch->link);
		batch->gone = true;
	}
	while (!list_empty(&session->requests)) {
		struct request *r = list_first(&session->requests, struct request, link);
		struct api_call *call = r->call;

		request_free(r);
		api_call_gone(call);
	}
	if (session->server->config.session_changed)
		session->server->config.session_changed(session->server->config.data, session, -1);
	api_connection_leave(&session->counted);
	event_free(session->deadline);
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
		/* json-c reads NaN and Infinity, which are no JSON to send back. */
		if ((t != json_type_null && t != json_type_string && t != json_type_int &&
		     t != json_type_double) ||
		    (t == json_type_double && !isfinite(json_object_get_double(*id)))) {
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

/* What the connection itself must say about the call. 0, or -errno with *err. */
static int check_call(const struct api_session *session, const struct api_method *m,
		      const struct batch *batch, struct api_error *err)
{
	const size_t limit = session->server->config.dispatcher->limits.calls;
	const size_t max = limit ? limit : API_CONNECTION_CALLS_DEFAULT;

	if (batch && m && (m->flags & (API_M_FD_IN | API_M_FD_OUT)))
		return api_error_set(err, API_KIND_INVALID_REQUEST,
				     "%s passes a descriptor and cannot be in a batch", m->name);
	if (session->n_requests >= max && !(m && m->flags & API_M_OOB))
		return api_error_set(err, API_KIND_LIMIT,
				     "%zu calls are in flight on this connection", max);
	return 0;
}

static struct request *request_create(struct api_session *session, struct batch *batch,
				      struct json_object *id, bool notification)
{
	struct request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->session = session;
	r->batch = batch;
	r->id = json_object_get(id);
	r->notification = notification;
	if (batch)
		batch->pending++;
	list_add_tail(&session->requests, &r->link);
	session->n_requests++;
	session_arm(session);
	return r;
}

static void on_reply(void *priv, struct json_object *result, int fd)
{
	struct request *r = priv;

	if (r->notification) {
		json_object_put(result);
		cleanup_close(&fd);
	} else {
		send_answer(r->session, r->batch, make_answer(r->id, "result", result), fd);
	}
	request_free(r);
}

static void on_fail(void *priv, const struct api_error *err)
{
	struct request *r = priv;

	if (!r->notification)
		send_error(r->session, r->batch, r->id, err);
	request_free(r);
}

static const struct api_reply_ops reply_ops = {.reply = on_reply, .fail = on_fail};

/* The method is known later to have access and parameters checked; a bad one is refused there. */
static void dispatch(struct api_session *session, struct json_object *msg, struct batch *batch)
{
	struct api_dispatcher *d = session->server->config.dispatcher;
	const struct api_method *method = NULL;
	struct json_object *id, *params, *name = NULL;
	struct api_call *call;
	struct request *r = NULL;
	struct api_error err;
	bool notification = false;
	int fd = -1, ret = check_request(msg, &id, &params, &err);

	if (!ret) {
		/* Only what is otherwise a request can be a notification. */
		notification = !json_object_object_get_ex(msg, "id", NULL);
		json_object_object_get_ex(msg, "method", &name);
		method = api_method_find(d->table, json_object_get_string(name));
		ret = check_call(session, method, batch, &err);
	}
	if (!ret && !(r = request_create(session, batch, id, notification)))
		ret = api_error_set(&err, API_KIND_INTERNAL, "out of memory");
	if (ret) {
		if (!notification)
			send_error(session, batch, id, &err);
		return;
	}
	if (method && method->flags & API_M_FD_IN)
		fd = api_conn_take_fd(session->conn);
	call = api_dispatch(d, json_object_get_string(name), params, fd, &session->caller,
			    &reply_ops, r);
	if (call)
		r->call = call;
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

/* A token that has been taken back is told at its next call, whenever that is noticed else. */
static bool refuse_revoked(struct api_session *session)
{
	struct api_error err;

	if (!session->caller.token || still_known(session))
		return false;
	session->caller.level = API_NOBODY;
	session->caller.sees_all = false;
	api_error_set(&err, API_KIND_DENIED, "the token has been taken back");
	send_error(session, NULL, NULL, &err);
	api_conn_finish(session->conn);
	return true;
}

static void on_message(void *data, struct json_object *msg)
{
	if (refuse_revoked(data))
		return;
	if (json_object_is_type(msg, json_type_array))
		dispatch_batch(data, msg);
	else
		dispatch(data, msg, NULL);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	session_destroy(arg);
}

/* The deadline that goes with what the session is at. */
static void session_arm(struct api_session *session)
{
	const struct api_limits *limits = &session->server->config.dispatcher->limits;
	struct timeval tv = {0};
	double s = 0;

	if (!session->shaken || session->caller.level == API_NOBODY) {
		/* Set once: calls do not buy more time. */
		if (evtimer_pending(session->deadline, NULL))
			return;
		s = limits->handshake_s > 0 ? limits->handshake_s : API_HANDSHAKE_DEFAULT;
	} else if (session->tls && !session->n_requests) {
		s = limits->idle_s;
	}
	evtimer_del(session->deadline);
	if (s <= 0)
		return;
	tv.tv_sec = (time_t)s;
	tv.tv_usec = (suseconds_t)((s - (double)tv.tv_sec) * 1e6);
	evtimer_add(session->deadline, &tv);
}

/* A stranger gets no room for large messages. */
static void limit_message(struct api_session *session)
{
	const double s = session->server->config.dispatcher->limits.message_s;

	api_conn_set_bounds(session->conn,
			    session->caller.level == API_NOBODY ? STRANGER_MAX : API_MESSAGE_MAX,
			    s > 0 ? s : API_MESSAGE_DEFAULT);
}

static void on_connected(void *data)
{
	struct api_session *session = data;
	int ret;

	session->shaken = true;
	evtimer_del(session->deadline);
	ret = identify(session, NULL, &session->caller);
	if (!ret)
		ret = api_connection_rename(&session->counted, &session->caller, NULL);
	if (ret) {
		session_destroy(session);
		return;
	}
	limit_message(session);
	session_arm(session);
}

static const struct api_conn_ops conn_ops = {
	.message = on_message,
	.bad = on_bad,
	.closed = on_closed,
	.connected = on_connected,
};

/* Takes @fd. */
static int session_connect(struct api_session *session, int fd, const struct api_listen *how)
{
	_cleanup_close_ int owned = fd;
	struct event_base *base = session->server->base;
	int ret;

	session->deadline = evtimer_new(base, on_deadline, session);
	if (!session->deadline)
		return -ENOMEM;
	session->tls = how->tls;
	if (!how->tls) {
		session->shaken = true;
		ret = api_conn_create(&session->conn, base, fd, &conn_ops, session);
		if (ret)
			return ret;
		TAKE_FD(owned);
		return identify(session, NULL, &session->caller);
	}
	/* Nobody yet; half-open ones are bounded as if they were one caller's. */
	session->caller = (struct api_caller){
		.level = API_NOBODY, .transport = API_T_RPC, .uid = (uid_t)-1, .name = "tls"};
	return api_conn_create_tls(&session->conn, base,
				   api_tls_bufferevent(how->tls, base, TAKE_FD(owned), NULL),
				   &conn_ops, session);
}

int api_server_add(struct api_server *server, int fd, const struct api_listen *how)
{
	struct api_session *session = calloc(1, sizeof(*session));
	int ret;

	if (!session) {
		close(fd);
		return -ENOMEM;
	}
	session->server = server;
	session->cap = how->cap;
	list_init(&session->requests);
	list_init(&session->batches);
	ret = session_connect(session, fd, how);
	if (!ret)
		ret = api_connection_enter(&session->counted, server->config.dispatcher,
					   &session->caller, NULL);
	if (ret) {
		if (session->deadline)
			event_free(session->deadline);
		api_conn_destroy(session->conn);
		free(session);
		return ret;
	}
	list_add_tail(&server->sessions, &session->link);
	server->n_sessions++;
	limit_message(session);
	session_arm(session);
	if (server->config.session_changed)
		server->config.session_changed(server->config.data, session, +1);
	return 0;
}

const struct api_caller *api_session_caller(const struct api_session *session)
{
	return &session->caller;
}

int api_session_authenticate(struct api_session *session, const struct api_caller *caller,
			     struct api_error *err)
{
	int ret = api_connection_rename(&session->counted, caller, err);

	if (ret)
		return ret;
	session->caller.level = MIN(caller->level, session->cap);
	session->caller.uid = caller->uid;
	session->caller.sees_all = caller->sees_all;
	session->caller.token = caller->token;
	snprintf(session->caller.name, sizeof(session->caller.name), "%s", caller->name);
	evtimer_del(session->deadline);
	limit_message(session);
	session_arm(session);
	return 0;
}

void api_session_auth_failed(struct api_session *session)
{
	if (++session->auth_failures >= API_AUTH_TRIES_MAX)
		api_conn_finish(session->conn);
}

size_t api_server_recheck(struct api_server *server)
{
	struct api_session *session, *tmp;
	size_t n = 0;

	list_for_each_entry_safe (session, tmp, &server->sessions, link) {
		if (!session->shaken || still_known(session))
			continue;
		session_destroy(session);
		n++;
	}
	return n;
}

static void on_accept(evutil_socket_t sock, short what, void *arg)
{
	const struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
	struct listener *l = arg;
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		api_server_add(l->server, fd, &l->how);
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

int api_server_listen(struct api_server *server, int fd, const struct api_listen *how)
{
	struct listener *l = calloc(1, sizeof(*l));
	int ret;

	if (!l)
		return -ENOMEM;
	l->server = server;
	l->how = *how;
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
	if (how->tls)
		api_tls_tune(fd);
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
	session_arm(session);
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
