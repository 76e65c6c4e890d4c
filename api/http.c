/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* HTTP/1.1 by libevent's evhttp; what evhttp leaves open is bounded here: connections, time, bytes,
 * and a client that goes away while it is served. */
#include "api/http.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>

#include "api/conn.h"
#include "api/tls.h"
#include "base/fd.h"
#include "base/list.h"

#define ACCEPT_PAUSE_MS 100 /* when descriptors have run out */
#define BUCKETS		256
#define ANSWER_S	60 /* for a client to take an answer */

/* One evhttp each: its bufferevent callback has no other way to tell where a connection came from.
 */
struct listener {
	struct list link;
	struct api_http *http;
	struct evhttp *ev;
	struct evconnlistener *accept; /* @ev's, once it is bound */
	struct event *resume;
	struct api_tls *tls; /* or NULL */
};

enum conn_state {
	CONN_READING,	/* a request, or the handshake before it */
	CONN_BUSY,	/* it is served */
	CONN_ANSWERING, /* the answer goes out */
	CONN_IDLE,
};

/*
 * evhttp does not tell that a connection has come or gone before its first request. So we hold a
 * reference to its bufferevent: when evhttp has let go of it, its callbacks are gone.
 */
struct conn {
	struct list link;   /* in api_http.conns, which waits longest first */
	struct list bucket; /* in api_http.buckets, by @bev */
	struct api_http *http;
	struct listener *listener;
	struct bufferevent *bev;
	struct evbuffer_cb_entry *input;
	struct evhttp_connection *ev;  /* NULL before the first request */
	struct api_http_request *req;  /* CONN_BUSY */
	struct event *closed;	       /* the peer's FIN or reset while CONN_BUSY */
	struct api_connection counted; /* since @counts: it has said who it is */
	enum conn_state state;
	int64_t deadline; /* not in CONN_BUSY */
	size_t pending;	  /* bytes of a request that is not whole */
	bool counts;
	bool over;  /* one too many: only to be told so */
	bool dying; /* shut down; evhttp will notice */
};

struct api_http_request {
	struct conn *conn;
	struct evhttp_request *ev;
	void (*gone)(void *data);
	void *gone_data;
};

struct api_http {
	struct event_base *base;
	struct api_http_config config;
	struct list listeners, conns;
	struct list buckets[BUCKETS];
	size_t n_conns; /* that are not dying */
	size_t pending; /* sum of the connections' */
	struct event *tick;
};

const char *const api_http_method_names[API_HTTP_METHODS] = {
	[API_HTTP_GET] = "GET",	      [API_HTTP_POST] = "POST",	      [API_HTTP_PUT] = "PUT",
	[API_HTTP_DELETE] = "DELETE", [API_HTTP_OPTIONS] = "OPTIONS",
};

/* ---- connections ---- */

static struct list *bucket_of(struct api_http *http, const struct bufferevent *bev)
{
	return &http->buckets[((uintptr_t)bev >> 6) % BUCKETS];
}

static struct conn *conn_find(struct api_http *http, const struct bufferevent *bev)
{
	struct conn *conn;

	list_for_each_entry (conn, bucket_of(http, bev), bucket)
		if (conn->bev == bev)
			return conn;
	return NULL;
}

/* @seconds 0: for ever. */
static void conn_wait(struct conn *conn, enum conn_state state, double seconds)
{
	conn->state = state;
	conn->deadline = seconds > 0 ? api_now_ms() + (int64_t)(seconds * 1000) : INT64_MAX;
	list_del(&conn->link);
	list_add_tail(&conn->http->conns, &conn->link);
}

static double request_s(const struct api_http *http)
{
	double s = http->config.dispatcher->limits.handshake_s;

	return s > 0 ? s : API_HANDSHAKE_DEFAULT;
}

static void conn_pending(struct conn *conn, size_t bytes)
{
	conn->http->pending += bytes - conn->pending;
	conn->pending = bytes;
}

/* It takes no place any more. */
static void conn_uncount(struct conn *conn)
{
	if (conn->counts)
		api_connection_leave(&conn->counted);
	conn->counts = false;
	if (!conn->dying)
		conn->http->n_conns--;
}

/* Ends it from outside evhttp, which notices that by itself when it reads or writes. */
static void conn_kill(struct conn *conn)
{
	conn_uncount(conn);
	conn->dying = true;
	shutdown(bufferevent_getfd(conn->bev), SHUT_RDWR);
}

/* evhttp is done with it, or about to be. */
static void conn_free(struct conn *conn)
{
	struct api_http_request *req = conn->req;

	if (req) {
		if (req->gone)
			req->gone(req->gone_data);
		/* One that evhttp has taken off its connection is ours to free. */
		if (!evhttp_request_get_connection(req->ev))
			evhttp_request_free(req->ev);
		free(req);
	}
	conn_pending(conn, 0);
	conn_uncount(conn);
	list_del(&conn->link);
	list_del(&conn->bucket);
	if (conn->closed)
		event_free(conn->closed);
	evbuffer_remove_cb_entry(bufferevent_get_input(conn->bev), conn->input);
	bufferevent_decref(conn->bev);
	free(conn);
}

static void on_close(struct evhttp_connection *ev, void *arg)
{
	conn_free(arg);
}

/* The client has gone while it is served: nobody else is looking. */
static void on_peer_closed(evutil_socket_t fd, short what, void *arg)
{
	struct conn *conn = arg;

	evhttp_connection_free(conn->ev);
}

static void on_input(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
	struct conn *conn = arg;

	if (!info->n_added)
		return;
	if (conn->state == CONN_IDLE)
		conn_wait(conn, CONN_READING, request_s(conn->http));
	conn_pending(conn, conn->pending + info->n_added);
	if (conn->http->pending > API_HTTP_PENDING_MAX && !conn->dying)
		conn_kill(conn);
}

/*
 * Room for a new one: of those that are not served, who has said nothing, or taken nothing of its
 * answer, for longest goes. With @counted only one that has said who it is.
 */
static bool make_room(struct api_http *http, bool counted)
{
	struct conn *conn;

	list_for_each_entry (conn, &http->conns, link) {
		if (conn->dying || conn->state == CONN_BUSY || (counted && !conn->counts))
			continue;
		conn_kill(conn);
		return true;
	}
	return false;
}

static size_t most(const struct api_http *http)
{
	size_t n = http->config.dispatcher->limits.connections;

	return n ? n : API_CONNECTIONS_DEFAULT;
}

static struct conn *conn_create(struct listener *l)
{
	struct api_http *http = l->http;
	struct conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	conn->http = http;
	conn->listener = l;
	if (l->tls)
		conn->bev = api_tls_bufferevent(l->tls, http->base, -1, NULL);
	else
		conn->bev = bufferevent_socket_new(http->base, -1, BEV_OPT_CLOSE_ON_FREE);
	if (conn->bev)
		conn->input = evbuffer_add_cb(bufferevent_get_input(conn->bev), on_input, conn);
	if (!conn->input) {
		if (conn->bev)
			bufferevent_free(conn->bev);
		free(conn);
		return NULL;
	}
	bufferevent_incref(conn->bev);
	list_init(&conn->link);
	conn_wait(conn, CONN_READING, request_s(http));
	list_add(bucket_of(http, conn->bev), &conn->bucket);
	conn->over = http->n_conns++ >= most(http) && !make_room(http, false);
	return conn;
}

/*
 * evhttp asks for the bufferevent of a connection it has accepted. Without one it makes a plain one
 * itself: its requests are found to belong to no connection of ours, and end it.
 */
static struct bufferevent *on_accept(struct event_base *base, void *arg)
{
	struct conn *conn = conn_create(arg);

	return conn ? conn->bev : NULL;
}

static bool conn_left(const struct conn *conn)
{
	bufferevent_event_cb event = NULL;

	bufferevent_getcb(conn->bev, NULL, NULL, &event, NULL);
	return !event;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct api_http *http = arg;
	struct conn *conn, *tmp;
	int64_t t = api_now_ms();

	list_for_each_entry_safe (conn, tmp, &http->conns, link) {
		if (conn_left(conn))
			conn_free(conn);
		else if (conn->state != CONN_BUSY && conn->deadline < t && !conn->dying)
			conn_kill(conn);
	}
}

/* ---- a request ---- */

static bool host_ok(const char *host)
{
	if (!*host)
		return false;
	for (; *host; host++)
		if (!isalnum((unsigned char)*host) && !strchr(".-_:[]%", *host))
			return false;
	return true;
}

/* How often a header is there; its last value to *@value. */
static unsigned header_count(struct evhttp_request *ev, const char *name, const char **value)
{
	struct evkeyval *h;
	unsigned n = 0;

	*value = NULL;
	for (h = evhttp_request_get_input_headers(ev)->tqh_first; h; h = h->next.tqe_next) {
		if (strcasecmp(h->key, name))
			continue;
		*value = h->value;
		n++;
	}
	return n;
}

/* A page of another site must not drive us with what its reader is allowed. */
static bool is_foreign(struct evhttp_request *ev)
{
	const char *origin, *host, *site, *bare;

	header_count(ev, "Host", &host);
	if (header_count(ev, "Sec-Fetch-Site", &site) && strcmp(site, "same-origin") &&
	    strcmp(site, "none"))
		return true;
	if (!header_count(ev, "Origin", &origin))
		return false;
	bare = strstr(origin, "://");
	return !bare || !host || strcasecmp(bare + 3, host);
}

/* How much of a body there is in the words of the headers: where two readers could differ, it is
 * refused. NULL: well. */
static const char *framing_fault(struct evhttp_request *ev)
{
	const char *length, *encoding;
	unsigned lengths = header_count(ev, "Content-Length", &length);
	unsigned encodings = header_count(ev, "Transfer-Encoding", &encoding);
	enum evhttp_cmd_type cmd = evhttp_request_get_command(ev);

	if (lengths > 1 || encodings > 1 || (lengths && encodings))
		return "The length of the body is told more than once.";
	if (encoding && strcasecmp(encoding, "chunked"))
		return "The only transfer encoding known here is \"chunked\".";
	if ((encoding || (length && strcmp(length, "0"))) &&
	    (cmd == EVHTTP_REQ_HEAD || cmd == EVHTTP_REQ_TRACE))
		return "A request with this method has no body.";
	return NULL;
}

/* The status with which it is refused, and why; 0: it is not. */
static int check(struct api_http_request *req, const char **why)
{
	struct evhttp_request *ev = req->ev;
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(ev);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL, *host;
	unsigned hosts = header_count(ev, "Host", &host);

	*why = framing_fault(ev);
	if (*why) {
		api_http_set_close(req);
		return 400;
	}
	if (evbuffer_get_length(evhttp_request_get_input_buffer(ev)) > API_HTTP_BODY_MAX) {
		*why = "The body has more than 4 MiB.";
		return 413;
	}
	*why = "There are as many connections as there may be.";
	if (req->conn->over) {
		api_http_set_close(req);
		return 429;
	}
	*why = "The address must be a path that begins with \"/\".";
	if (!path || path[0] != '/')
		return 400;
	*why = "There must be one header \"Host\".";
	if (hosts > 1 || (hosts && !host_ok(host)))
		return 400;
	*why = "A page of another site may not ask this.";
	return is_foreign(ev) ? 403 : 0;
}

/* All of the answer has gone to the socket; evhttp frees the request after this. */
static void on_answered(struct evhttp_request *ev, void *arg)
{
	struct conn *conn = arg;

	conn_wait(conn, CONN_IDLE, conn->http->config.dispatcher->limits.idle_s);
}

/* The first request on a connection shows evhttp's side of it. */
static int conn_attach(struct conn *conn, struct evhttp_connection *ev)
{
	if (conn->ev)
		return 0;
	conn->closed = event_new(conn->http->base, bufferevent_getfd(conn->bev), EV_CLOSED,
				 on_peer_closed, conn);
	if (!conn->closed)
		return -ENOMEM;
	conn->ev = ev;
	evhttp_connection_set_closecb(ev, on_close, conn);
	return 0;
}

static void on_request(struct evhttp_request *ev, void *arg)
{
	struct listener *l = arg;
	struct api_http *http = l->http;
	struct evhttp_connection *ev_conn = evhttp_request_get_connection(ev);
	struct conn *conn = conn_find(http, evhttp_connection_get_bufferevent(ev_conn));
	struct api_http_request *req = conn ? calloc(1, sizeof(*req)) : NULL;
	const char *why;
	int status;

	if (!req || conn_attach(conn, ev_conn)) {
		free(req);
		evhttp_connection_free(ev_conn);
		return;
	}
	req->conn = conn;
	req->ev = ev;
	conn->req = req;
	conn->state = CONN_BUSY;
	conn_pending(conn, 0);
	evhttp_request_set_on_complete_cb(ev, on_answered, conn);
	status = check(req, &why);
	if (status)
		http->config.refuse(http->config.data, req, status, why);
	else
		http->config.request(http->config.data, req);
	/* Answered later: then somebody must see when the client does not wait for it. */
	if (conn->req)
		event_add(conn->closed, NULL);
}

enum api_http_method api_http_method(const struct api_http_request *req)
{
	switch (evhttp_request_get_command(req->ev)) {
	case EVHTTP_REQ_GET:
	case EVHTTP_REQ_HEAD: return API_HTTP_GET;
	case EVHTTP_REQ_POST: return API_HTTP_POST;
	case EVHTTP_REQ_PUT: return API_HTTP_PUT;
	case EVHTTP_REQ_DELETE: return API_HTTP_DELETE;
	case EVHTTP_REQ_OPTIONS: return API_HTTP_OPTIONS;
	default: return API_HTTP_OTHER;
	}
}

const char *api_http_path(const struct api_http_request *req)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req->ev);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL;

	return path ? path : "";
}

const char *api_http_query(const struct api_http_request *req)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req->ev);

	return uri ? evhttp_uri_get_query(uri) : NULL;
}

const char *api_http_header(const struct api_http_request *req, const char *name)
{
	return evhttp_find_header(evhttp_request_get_input_headers(req->ev), name);
}

const void *api_http_body(const struct api_http_request *req, size_t *len)
{
	struct evbuffer *body = evhttp_request_get_input_buffer(req->ev);

	*len = evbuffer_get_length(body);
	return *len ? evbuffer_pullup(body, -1) : NULL;
}

int api_http_fd(const struct api_http_request *req)
{
	return bufferevent_getfd(req->conn->bev);
}

int api_http_count(struct api_http_request *req, const struct api_caller *caller,
		   struct api_error *err)
{
	struct conn *conn = req->conn;
	int ret;

	if (conn->counts)
		return api_connection_rename(&conn->counted, caller, err);
	/* Those of the other transports count too. */
	if (conn->http->config.dispatcher->n_connections >= most(conn->http))
		make_room(conn->http, true);
	ret = api_connection_enter(&conn->counted, conn->http->config.dispatcher, caller, err);
	conn->counts = !ret;
	return ret;
}

struct bufferevent *api_http_tls(const struct api_http_request *req)
{
	return req->conn->listener->tls ? req->conn->bev : NULL;
}

void api_http_set_header(struct api_http_request *req, const char *name, const char *value)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req->ev);

	evhttp_remove_header(headers, name);
	evhttp_add_header(headers, name, value);
}

void api_http_set_close(struct api_http_request *req)
{
	api_http_set_header(req, "Connection", "close");
}

void api_http_on_gone(struct api_http_request *req, void (*gone)(void *data), void *data)
{
	req->gone = gone;
	req->gone_data = data;
}

/* From here on evhttp has it alone. */
static struct evhttp_request *request_done(struct api_http_request *req)
{
	struct evhttp_request *ev = req->ev;
	struct conn *conn = req->conn;

	event_del(conn->closed);
	conn->req = NULL;
	conn_wait(conn, CONN_ANSWERING, ANSWER_S);
	free(req);
	return ev;
}

void api_http_reply(struct api_http_request *req, int status, const char *type, const void *data,
		    size_t len)
{
	bool head = evhttp_request_get_command(req->ev) == EVHTTP_REQ_HEAD;
	struct evbuffer *body = evbuffer_new();
	char length[24];

	if (!body || (type && !head && evbuffer_add(body, data, len))) {
		api_http_set_close(req);
		status = 500;
		type = NULL;
	}
	if (type)
		api_http_set_header(req, "Content-Type", type);
	if (type && head) {
		snprintf(length, sizeof(length), "%zu", len);
		api_http_set_header(req, "Content-Length", length);
	}
	evhttp_send_reply(request_done(req), status, NULL, body);
	if (body)
		evbuffer_free(body);
}

void api_http_stream(struct api_http_request *req, int status, const char *type)
{
	api_http_set_header(req, "Content-Type", type);
	evhttp_send_reply_start(req->ev, status, NULL);
}

int api_http_stream_write(struct api_http_request *req, const void *data, size_t len)
{
	struct evbuffer *out = bufferevent_get_output(req->conn->bev), *piece;

	if (evbuffer_get_length(out) + len > API_HTTP_QUEUE_MAX)
		return -ENOBUFS;
	piece = evbuffer_new();
	if (!piece || evbuffer_add(piece, data, len)) {
		if (piece)
			evbuffer_free(piece);
		return -ENOMEM;
	}
	evhttp_send_reply_chunk(req->ev, piece);
	evbuffer_free(piece);
	return 0;
}

void api_http_stream_end(struct api_http_request *req)
{
	evhttp_send_reply_end(request_done(req));
}

void api_http_abort(struct api_http_request *req)
{
	conn_kill(req->conn);
	api_http_set_close(req);
	evhttp_send_reply_end(request_done(req));
}

/* ---- listeners ---- */

static void on_accept_error(struct evconnlistener *accept, void *arg)
{
	const struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
	struct listener *l = arg;

	/* Out of descriptors: the connection stays in the backlog, and we do not spin. */
	evconnlistener_disable(accept);
	evtimer_add(l->resume, &pause);
}

static void on_resume(evutil_socket_t sock, short what, void *arg)
{
	struct listener *l = arg;

	evconnlistener_enable(l->accept);
}

static void listener_destroy(struct listener *l)
{
	list_del(&l->link);
	if (l->ev)
		evhttp_free(l->ev); /* its connections, and the socket once it is bound */
	if (l->resume)
		event_free(l->resume);
	free(l);
}

static struct listener *listener_create(struct api_http *http, struct api_tls *tls)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->http = http;
	l->tls = tls;
	list_init(&l->link);
	l->ev = evhttp_new(http->base);
	l->resume = evtimer_new(http->base, on_resume, l);
	if (!l->ev || !l->resume) {
		listener_destroy(l);
		return NULL;
	}
	evhttp_set_bevcb(l->ev, on_accept, l);
	evhttp_set_gencb(l->ev, on_request, l);
	evhttp_set_default_content_type(l->ev, NULL);
	/* All of them, unknown ones too: a wrong one is answered with what would be right. */
	evhttp_set_allowed_methods(l->ev, UINT16_MAX);
	evhttp_set_max_headers_size(l->ev, (ev_ssize_t)API_HTTP_HEAD_MAX);
	/* Between our bound and this one we answer in our own words, above it libevent in its. */
	evhttp_set_max_body_size(l->ev, (ev_ssize_t)(2 * API_HTTP_BODY_MAX));
	evhttp_set_flags(l->ev, EVHTTP_SERVER_LINGERING_CLOSE);
	return l;
}

int api_http_listen(struct api_http *http, int fd, struct api_tls *tls)
{
	struct listener *l = listener_create(http, tls);
	int on = 1;

	if (!l)
		return -ENOMEM;
	/* Inherited by its connections: an answer must not wait for an acknowledgement. A Unix
	 * socket knows no such thing. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (tls)
		api_tls_tune(fd);
	if (!fd_set_nonblock(fd, true))
		l->accept =
			evconnlistener_new(http->base, NULL, NULL,
					   LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_CLOSE_ON_FREE, 0, fd);
	if (!l->accept || !evhttp_bind_listener(l->ev, l->accept)) {
		listener_destroy(l);
		return -ENOMEM;
	}
	evconnlistener_set_error_cb(l->accept, on_accept_error);
	list_add_tail(&http->listeners, &l->link);
	return 0;
}

int api_http_create(struct api_http **out, struct event_base *base,
		    const struct api_http_config *config)
{
	const struct timeval second = {.tv_sec = 1};
	struct api_http *http = calloc(1, sizeof(*http));

	if (!http)
		return -ENOMEM;
	http->base = base;
	http->config = *config;
	list_init(&http->listeners);
	list_init(&http->conns);
	for (size_t i = 0; i < BUCKETS; i++)
		list_init(&http->buckets[i]);
	http->tick = event_new(base, -1, EV_PERSIST, on_tick, http);
	if (!http->tick || event_add(http->tick, &second)) {
		api_http_destroy(http);
		return -ENOMEM;
	}
	*out = http;
	return 0;
}

void api_http_destroy(struct api_http *http)
{
	if (!http)
		return;
	while (!list_empty(&http->listeners))
		listener_destroy(list_first(&http->listeners, struct listener, link));
	/* Those that evhttp let go of without a word. */
	while (!list_empty(&http->conns))
		conn_free(list_first(&http->conns, struct conn, link));
	if (http->tick)
		event_free(http->tick);
	free(http);
}

size_t api_http_connections(const struct api_http *http)
{
	return http->n_conns;
}
