/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The calling side: calls with answers that come later, or that are waited for. */
#include "api/client.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/conn.h"
#include "api/tls.h"
#include "base/cleanup.h"
#include "base/list.h"

struct pending {
	struct list link;
	struct api_client *client;
	int64_t id;
	struct event *timer; /* or NULL */
	api_answer answer;
	void *data;
};

struct api_client {
	struct event_base *base;
	bool own_base;
	struct api_conn *conn;
	const struct api_client_ops *ops;
	void *data;
	struct list pending;
	int64_t last_id;
	unsigned depth; /* callbacks that we are inside of */
	bool closed, dead;
	bool shaken;   /* the TLS handshake is over */
	char why[200]; /* TLS said when the connection ended, or "" */
};

static void pending_free(struct pending *p)
{
	list_del(&p->link);
	if (p->timer)
		event_free(p->timer);
	free(p);
}

static void client_free(struct api_client *client)
{
	if (client->own_base)
		event_base_free(client->base);
	free(client);
}

static void client_leave(struct api_client *client)
{
	if (!--client->depth && client->dead)
		client_free(client);
}

/* Give the answer and forget the call. @fd is the callee's. The caller is inside depth. */
static void pending_answer(struct pending *p, struct json_object *result, int fd,
			   const struct api_error *err)
{
	api_answer answer = p->answer;
	void *data = p->data;

	pending_free(p);
	answer(data, result, fd, err);
}

static struct pending *pending_find(struct api_client *client, struct json_object *id)
{
	struct pending *p;

	if (!json_object_is_type(id, json_type_int))
		return NULL;
	list_for_each_entry (p, &client->pending, link)
		if (p->id == json_object_get_int64(id))
			return p;
	return NULL;
}

static void on_answer(struct api_client *client, struct json_object *msg)
{
	struct json_object *id = NULL, *result = NULL, *error = NULL, *fds = NULL;
	struct pending *p;
	struct api_error err;
	int fd = -1;

	json_object_object_get_ex(msg, "id", &id);
	json_object_object_get_ex(msg, "error", &error);
	json_object_object_get_ex(msg, "result", &result);
	if (json_object_is_type(result, json_type_object) &&
	    json_object_object_get_ex(result, "fds", &fds))
		fd = api_conn_take_fd(client->conn);
	p = pending_find(client, id);
	if (!p) {
		cleanup_close(&fd); /* timed out before, or never asked */
		return;
	}
	if (!error) {
		pending_answer(p, result, fd, NULL);
		return;
	}
	api_error_from_json(error, &err);
	pending_answer(p, NULL, fd, &err);
}

static void on_message(void *data, struct json_object *msg)
{
	struct api_client *client = data;
	struct json_object *method, *params = NULL;

	if (!json_object_is_type(msg, json_type_object))
		return;
	client->depth++;
	if (json_object_object_get_ex(msg, "method", &method)) {
		json_object_object_get_ex(msg, "params", &params);
		if (client->ops && client->ops->notify &&
		    json_object_is_type(method, json_type_string))
			client->ops->notify(client->data, json_object_get_string(method), params);
	} else {
		on_answer(client, msg);
	}
	client_leave(client);
}

void api_client_abort(struct api_client *client)
{
	struct api_error err;

	if (!client)
		return;
	api_error_set(&err, API_KIND_UNAVAILABLE, "the connection was closed%s%s",
		      client->why[0] ? ": " : "", client->why);
	client->depth++;
	client->closed = true;
	while (!client->dead && !list_empty(&client->pending))
		pending_answer(list_first(&client->pending, struct pending, link), NULL, -1, &err);
	client_leave(client);
}

void api_client_drain(struct api_client *client)
{
	if (!client || client->closed)
		return;
	client->depth++;
	api_conn_drain(client->conn);
	client_leave(client);
}

static void on_closed(void *data)
{
	struct api_client *client = data;
	struct bufferevent *bev = api_conn_bufferevent(client->conn);

	if (bev)
		api_tls_why(bev, client->why, sizeof(client->why));
	client->depth++;
	api_client_abort(client);
	if (!client->dead && client->ops && client->ops->closed)
		client->ops->closed(client->data);
	client_leave(client);
}

static void on_connected(void *data)
{
	struct api_client *client = data;

	client->shaken = true;
}

static const struct api_conn_ops conn_ops = {
	.message = on_message,
	.closed = on_closed,
	.connected = on_connected,
};

static struct api_client *client_alloc(struct event_base *base, const struct api_client_ops *ops,
				       void *data)
{
	struct api_client *client = calloc(1, sizeof(*client));

	if (!client)
		return NULL;
	client->own_base = !base;
	client->base = base ? base : event_base_new();
	if (!client->base) {
		free(client);
		return NULL;
	}
	client->ops = ops;
	client->data = data;
	list_init(&client->pending);
	return client;
}

int api_client_create(struct api_client **out, struct event_base *base, int fd,
		      const struct api_client_ops *ops, void *data)
{
	struct api_client *client = client_alloc(base, ops, data);
	int ret;

	if (!client)
		return -ENOMEM;
	ret = api_conn_create(&client->conn, client->base, fd, &conn_ops, client);
	if (ret)
		client_free(client);
	else
		*out = client;
	return ret;
}

/* A connected socket to one address, waiting until @deadline (api_now_ms()). -errno. */
static int connect_address(const struct addrinfo *ai, int64_t deadline)
{
	_cleanup_close_ int fd =
		socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	socklen_t len = sizeof(int);
	int e = 0, n;

	if (fd < 0)
		return -errno;
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) == 0)
		return TAKE_FD(fd);
	if (errno != EINPROGRESS)
		return -errno;
	do
		n = poll(&p, 1, (int)MAX(deadline - api_now_ms(), (int64_t)0));
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 || e)
		return e ? -e : -errno;
	return TAKE_FD(fd);
}

static int connect_host(const struct api_client_where *where, int64_t deadline,
			struct api_error *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *all, *ai;
	int ret = getaddrinfo(where->host, where->port, &hints, &all), fd = -ENOENT;

	if (ret)
		return api_error_set(err, API_KIND_UNAVAILABLE, "%s: %s", where->host,
				     gai_strerror(ret));
	for (ai = all; ai && fd < 0; ai = ai->ai_next)
		fd = connect_address(ai, deadline);
	freeaddrinfo(all);
	if (fd < 0)
		return api_error_set(err, API_KIND_UNAVAILABLE, "cannot connect to %s:%s: %s",
				     where->host, where->port, strerror(-fd));
	return fd;
}

static void on_too_late(evutil_socket_t fd, short what, void *arg)
{
	struct api_client *client = arg;

	if (!client->shaken && !client->closed) {
		client->closed = true;
		snprintf(client->why, sizeof(client->why), "no answer within %d s", API_CONNECT_S);
	}
}

/* Run the loop until the handshake is over. */
static int shake_hands(struct api_client *client, int64_t deadline, struct api_error *err)
{
	const int64_t left = MAX(deadline - api_now_ms(), (int64_t)1);
	const struct timeval tv = {left / 1000, left % 1000 * 1000};
	struct event *timer = evtimer_new(client->base, on_too_late, client);
	const struct api_client_ops *ops = client->ops;

	if (!timer)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	evtimer_add(timer, &tv);
	client->ops = NULL; /* the caller has no client yet that could be closed */
	while (!client->shaken && !client->closed)
		if (event_base_loop(client->base, EVLOOP_ONCE))
			client->closed = true;
	client->ops = ops;
	event_free(timer);
	if (client->closed)
		return api_error_set(err, API_KIND_UNAVAILABLE, "TLS failed: %s", client->why);
	return 0;
}

int api_client_connect_tls(struct api_client **out, const struct api_client_where *where,
			   const struct api_client_ops *ops, void *data, struct api_error *err)
{
	const int64_t deadline = api_now_ms() + API_CONNECT_S * 1000;
	int fd = connect_host(where, deadline, err), ret = -ENOMEM;
	struct api_client *client;

	if (fd < 0)
		return fd;
	client = client_alloc(where->base, ops, data);
	if (client)
		ret = api_conn_create_tls(
			&client->conn, client->base,
			api_tls_bufferevent(where->tls, client->base, TAKE_FD(fd), where->host),
			&conn_ops, client);
	cleanup_close(&fd);
	if (ret)
		api_error_set(err, API_KIND_INTERNAL, "out of memory");
	else
		ret = shake_hands(client, deadline, err);
	if (ret && client)
		api_client_destroy(client);
	else
		*out = client;
	return ret;
}

void api_client_destroy(struct api_client *client)
{
	if (!client || client->dead)
		return;
	while (!list_empty(&client->pending))
		pending_free(list_first(&client->pending, struct pending, link));
	client->closed = client->dead = true;
	api_conn_destroy(client->conn);
	client->conn = NULL;
	if (!client->depth)
		client_free(client);
}

struct event_base *api_client_base(struct api_client *client)
{
	return client->base;
}

int api_client_fd(const struct api_client *client)
{
	return client->conn ? api_conn_fd(client->conn) : -1;
}

bool api_client_closed(const struct api_client *client)
{
	return client->closed;
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	const struct api_error err = {.kind = API_KIND_TIMEOUT,
				      .text = "no answer came in the time allowed"};
	struct pending *p = arg;
	struct api_client *client = p->client;

	client->depth++;
	pending_answer(p, NULL, -1, &err);
	client_leave(client);
}

static struct json_object *make_request(int64_t id, const char *method, struct json_object *params)
{
	struct json_object *msg = json_object_new_object();

	json_object_object_add(msg, "jsonrpc", json_object_new_string("2.0"));
	json_object_object_add(msg, "id", json_object_new_int64(id));
	json_object_object_add(msg, "method", json_object_new_string(method));
	if (params)
		json_object_object_add(msg, "params", params);
	return msg;
}

int api_client_send(struct api_client *client, const char *method, struct json_object *params,
		    int fd, int timeout_ms, api_answer answer, void *data)
{
	const struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	struct pending *p = calloc(1, sizeof(*p));
	struct json_object *msg = make_request(client->last_id + 1, method, params);
	int ret = -ENOMEM;

	if (client->closed || !p) {
		ret = client->closed ? -EPIPE : -ENOMEM;
		cleanup_close(&fd);
		goto fail;
	}
	list_init(&p->link);
	if (timeout_ms) {
		p->timer = evtimer_new(client->base, on_timeout, p);
		if (!p->timer || evtimer_add(p->timer, &tv)) {
			cleanup_close(&fd);
			goto fail;
		}
	}
	ret = api_conn_send(client->conn, msg, fd);
	if (ret)
		goto fail;
	p->client = client;
	p->id = ++client->last_id;
	p->answer = answer;
	p->data = data;
	list_add_tail(&client->pending, &p->link);
	json_object_put(msg);
	return 0;
fail:
	json_object_put(msg);
	if (p && p->timer)
		event_free(p->timer);
	free(p);
	return ret;
}

void api_reply_finish(struct api_reply *reply)
{
	json_object_put(reply->result);
	cleanup_close(&reply->fd);
	*reply = (struct api_reply){.fd = -1};
}

struct waited {
	struct api_reply *reply;
	bool done;
};

static void on_waited(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	struct waited *w = data;

	w->done = true;
	w->reply->result = json_object_get(result);
	w->reply->fd = fd;
	if (err)
		w->reply->err = *err;
}

int api_client_call(struct api_client *client, const char *method, struct json_object *params,
		    int timeout_ms, struct api_reply *reply)
{
	struct waited w = {.reply = reply};
	int ret;

	*reply = (struct api_reply){.fd = -1};
	ret = api_client_send(client, method, params, -1, timeout_ms, on_waited, &w);
	if (ret)
		return api_error_set(&reply->err, api_kind_from_errno(ret),
				     "cannot send the call: %s", strerror(-ret));
	while (!w.done)
		if (event_base_loop(client->base, EVLOOP_ONCE) && !w.done)
			on_closed(client); /* the loop failed: everybody gets an answer */
	return reply->err.kind ? api_kind_errno(reply->err.kind) : 0;
}
