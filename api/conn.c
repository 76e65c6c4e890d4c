/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One connection: JSON texts and descriptors over a stream socket or TLS, on a libevent loop. */
#include "api/conn.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <json-c/json.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/list.h"

/* A turn of the loop: nobody starves the others, who wait for no more than a few short messages. */
#define READ_SIZE  65536
#define SERVE_TURN 8

/* One message on its way out. */
struct outgoing {
	struct list link;
	struct buf text;
	size_t sent;
	int fd; /* rides on the first byte; -1: none, or sent */
};

struct api_conn {
	int fd;			 /* -1 with @bev */
	struct bufferevent *bev; /* TLS; NULL: a plain socket */
	const struct api_conn_ops *ops;
	void *data;
	/* With @bev, the first is not used, and the other only ever made active by ourselves. */
	struct event *readable, *writable;
	struct event *late;	 /* the message that has begun takes too long */
	size_t max;		 /* bytes of a message */
	struct timeval max_time; /* of a message; zero: any */
	struct json_tokener *tok;
	size_t in_len;	    /* bytes of the unfinished message */
	struct buf rest;    /* has been read, and waits from @rest_at on for its turn */
	struct event *more; /* the next turn has come */
	size_t rest_at;
	int fds[API_FDS_MAX];
	size_t n_fds;
	struct list queue; /* of struct outgoing */
	size_t queued;	   /* bytes */
	unsigned depth;	   /* callbacks that we are inside of */
	bool finishing;	   /* read no more, close when the queue is empty */
	bool broken;	   /* the socket failed or its queue overflowed: close at once */
	bool dead;	   /* destroyed inside a callback: freed when it returns */
	bool told;	   /* closed() was called */
};

static void outgoing_destroy(struct outgoing *o)
{
	list_del(&o->link);
	buf_finish(&o->text);
	cleanup_close(&o->fd);
	free(o);
}

static void tls_close(struct bufferevent *bev)
{
	SSL *ssl = bufferevent_openssl_get_ssl(bev);

	/* Say goodbye if the socket takes it: else the peer must think that it was cut off. */
	if (SSL_is_init_finished(ssl))
		SSL_shutdown(ssl);
	ERR_clear_error();
	bufferevent_free(bev);
}

static void conn_free(struct api_conn *conn)
{
	struct outgoing *o, *tmp;

	list_for_each_entry_safe (o, tmp, &conn->queue, link)
		outgoing_destroy(o);
	for (size_t i = 0; i < conn->n_fds; i++)
		close(conn->fds[i]);
	if (conn->readable)
		event_free(conn->readable);
	if (conn->writable)
		event_free(conn->writable);
	if (conn->late)
		event_free(conn->late);
	if (conn->more)
		event_free(conn->more);
	buf_finish(&conn->rest);
	if (conn->tok)
		json_tokener_free(conn->tok);
	if (conn->bev)
		tls_close(conn->bev);
	cleanup_close(&conn->fd);
	free(conn);
}

static void conn_enter(struct api_conn *conn)
{
	conn->depth++;
}

static void conn_leave(struct api_conn *conn)
{
	if (!--conn->depth && conn->dead)
		conn_free(conn);
}

static void conn_stop_events(struct api_conn *conn)
{
	event_del(conn->readable);
	event_del(conn->writable);
	event_del(conn->late);
	event_del(conn->more);
	if (conn->bev)
		bufferevent_disable(conn->bev, EV_READ | EV_WRITE);
}

/* The connection is over. The caller is inside conn_enter(). */
static void conn_over(struct api_conn *conn)
{
	if (conn->told || conn->dead)
		return;
	conn->told = true;
	conn->broken = true;
	conn_stop_events(conn);
	conn->ops->closed(conn->data);
}

/* Report the failure from the loop, not from within the caller's stack. */
static void conn_break(struct api_conn *conn)
{
	conn->broken = true;
	event_active(conn->writable, EV_WRITE, 0);
}

static bool is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static void conn_stop_reading(struct api_conn *conn)
{
	event_del(conn->readable);
	event_del(conn->late);
	event_del(conn->more);
	if (conn->bev)
		bufferevent_disable(conn->bev, EV_READ);
}

static void conn_bad(struct api_conn *conn, const struct api_error *err)
{
	conn_stop_reading(conn);
	/* Whoever is still writing gets EPIPE and reads our answer, instead of blocking. */
	if (!conn->bev)
		shutdown(conn->fd, SHUT_RD);
	if (conn->ops->bad)
		conn->ops->bad(conn->data, err);
	if (!conn->dead)
		api_conn_finish(conn);
}

static void conn_bad_json(struct api_conn *conn, const char *why)
{
	struct api_error err;

	api_error_set(&err, API_KIND_PARSE, "the message is not JSON: %s", why);
	conn_bad(conn, &err);
}

/* Give the tokener one piece; returns the bytes that were used, 0 when reading is over. */
static size_t conn_parse(struct api_conn *conn, const char *data, size_t len)
{
	struct json_object *msg = json_tokener_parse_ex(conn->tok, data, (int)len);
	enum json_tokener_error e = json_tokener_get_error(conn->tok);
	size_t used = json_tokener_get_parse_end(conn->tok);
	struct api_error err;

	if (e == json_tokener_success) {
		conn->in_len = 0;
		event_del(conn->late);
		conn->ops->message(conn->data, msg);
		json_object_put(msg);
		return used;
	}
	json_object_put(msg);
	if (e != json_tokener_continue) {
		conn_bad_json(conn, json_tokener_error_desc(e));
		return 0;
	}
	if (!conn->in_len && timerisset(&conn->max_time))
		event_add(conn->late, &conn->max_time);
	conn->in_len += len;
	if (conn->in_len <= conn->max)
		return len;
	api_error_set(&err, API_KIND_INVALID_REQUEST, "a message may have at most %zu bytes",
		      conn->max);
	conn_bad(conn, &err);
	return 0;
}

static bool conn_reads(const struct api_conn *conn)
{
	return !conn->dead && !conn->finishing && !conn->broken;
}

/* Serve at most @turn messages; returns the bytes that were used. */
static size_t conn_feed(struct api_conn *conn, const char *data, size_t len, unsigned turn)
{
	size_t at = 0;

	while (at < len && turn && conn_reads(conn)) {
		size_t used;

		if (!conn->in_len && is_space(data[at])) {
			at++;
			continue;
		}
		if (!conn->in_len && data[at] != '{' && data[at] != '[') {
			conn_bad_json(conn, "an object or array must begin it");
			break;
		}
		used = conn_parse(conn, data + at, len - at);
		if (!used)
			break;
		at += used;
		turn -= !conn->in_len;
	}
	return at;
}

/* What waits is served in the next turn of the loop; till then nothing is read behind it. */
static void conn_pace(struct api_conn *conn)
{
	static const struct timeval at_once = {0};
	bool waits = conn->rest.len;

	/* What is left in a bufferevent is not told again by itself. */
	if (conn->bev)
		waits |= evbuffer_get_length(bufferevent_get_input(conn->bev)) > 0;
	else if (waits)
		event_del(conn->readable);
	else
		event_add(conn->readable, NULL);
	if (waits)
		evtimer_add(conn->more, &at_once);
}

/* A turn with what has just been read. */
static void conn_take(struct api_conn *conn, const char *data, size_t len)
{
	size_t used = conn_feed(conn, data, len, SERVE_TURN);

	if (!conn_reads(conn))
		return;
	if (used == len && !conn->bev)
		return;
	if (used < len && buf_append(&conn->rest, data + used, len - used))
		conn_break(conn);
	else
		conn_pace(conn);
}

/* A turn with what waits. */
static void conn_take_rest(struct api_conn *conn, unsigned turn)
{
	conn->rest_at += conn_feed(conn, conn->rest.data + conn->rest_at,
				   conn->rest.len - conn->rest_at, turn);
	if (!conn_reads(conn))
		return;
	if (conn->rest_at == conn->rest.len) {
		buf_finish(&conn->rest);
		conn->rest_at = 0;
	}
	conn_pace(conn);
}

/*
 * recvmsg() that keeps every descriptor that came: a peer may send more than one at once, and what
 * is not taken out of the control message would stay open. -EPROTO when there are too many.
 */
static ssize_t conn_receive(struct api_conn *conn, void *data, size_t len)
{
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(API_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(conn->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	const struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);
	size_t n_fds = 0;

	if (n < 0)
		return -errno;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (size_t i = 0; i < n_fds; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
		if (conn->n_fds < API_FDS_MAX) {
			conn->fds[conn->n_fds++] = fd;
		} else {
			close(fd); /* nobody takes them: that is no client of ours */
			n = -EPROTO;
		}
	}
	return msg.msg_flags & MSG_CTRUNC ? -EPROTO : n;
}

static void on_late(evutil_socket_t sock, short what, void *arg)
{
	struct api_conn *conn = arg;
	struct api_error err;

	api_error_set(&err, API_KIND_TIMEOUT, "the message did not end in the time allowed");
	conn_enter(conn);
	conn_bad(conn, &err);
	conn_leave(conn);
}

/* One read. Whether there may be more at once. The caller is inside conn_enter(). */
static bool conn_read(struct api_conn *conn)
{
	char data[READ_SIZE];
	ssize_t n;

	if (conn->rest.len) {
		conn_take_rest(conn, SERVE_TURN);
		return true;
	}
	if (conn->bev) {
		n = (ssize_t)bufferevent_read(conn->bev, data, sizeof(data));
		conn_take(conn, data, (size_t)n);
		return n > 0;
	}
	n = conn_receive(conn, data, sizeof(data));
	if (n == -EAGAIN || n == -EINTR)
		return false;
	if (n > 0)
		conn_take(conn, data, (size_t)n);
	else if (n == 0 && !list_empty(&conn->queue))
		api_conn_finish(conn); /* half closed: it may still read */
	else
		conn_over(conn);
	return n > 0;
}

static void on_readable(evutil_socket_t sock, short what, void *arg)
{
	struct api_conn *conn = arg;

	conn_enter(conn);
	conn_read(conn);
	conn_leave(conn);
}

void api_conn_drain(struct api_conn *conn)
{
	conn_enter(conn);
	while (conn_reads(conn) && conn_read(conn))
		;
	conn_leave(conn);
}

/* Nothing waits to be sent. */
static bool conn_idle(const struct api_conn *conn)
{
	return list_empty(&conn->queue) &&
	       (!conn->bev || !evbuffer_get_length(bufferevent_get_output(conn->bev)));
}

/* Send what the socket takes. 0 (also when some is left) or -errno. */
static int conn_push(struct api_conn *conn)
{
	while (!list_empty(&conn->queue)) {
		struct outgoing *o = list_first(&conn->queue, struct outgoing, link);
		ssize_t n = fd_send(conn->fd, o->text.data + o->sent, o->text.len - o->sent, o->fd);

		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		if (o->fd >= 0)
			close(TAKE_FD(o->fd));
		o->sent += (size_t)n;
		conn->queued -= (size_t)n;
		if (o->sent == o->text.len)
			outgoing_destroy(o);
	}
	return 0;
}

static void on_writable(evutil_socket_t sock, short what, void *arg)
{
	struct api_conn *conn = arg;

	conn_enter(conn);
	if (conn->broken || conn_push(conn) || (conn->finishing && conn_idle(conn)))
		conn_over(conn);
	else if (!list_empty(&conn->queue))
		event_add(conn->writable, NULL);
	conn_leave(conn);
}

static void on_bev_read(struct bufferevent *bev, void *arg)
{
	on_readable(-1, EV_READ, arg);
}

static void on_bev_write(struct bufferevent *bev, void *arg)
{
	on_writable(-1, EV_WRITE, arg);
}

static void on_bev_event(struct bufferevent *bev, short what, void *arg)
{
	struct api_conn *conn = arg;

	conn_enter(conn);
	if (what & BEV_EVENT_CONNECTED) {
		if (conn->ops->connected)
			conn->ops->connected(conn->data);
	} else if (!conn->finishing || !(what & BEV_EVENT_READING)) {
		if (conn->rest.len)
			conn_take_rest(conn, UINT_MAX); /* it has said this before it left */
		conn_over(conn);
	}
	conn_leave(conn);
}

static struct api_conn *conn_alloc(struct event_base *base, int fd, const struct api_conn_ops *ops,
				   void *data)
{
	struct api_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	conn->fd = -1;
	conn->ops = ops;
	conn->data = data;
	conn->max = API_MESSAGE_MAX;
	list_init(&conn->queue);
	conn->tok = json_tokener_new_ex(API_DEPTH_MAX);
	conn->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, conn);
	conn->writable = event_new(base, fd, EV_WRITE, on_writable, conn);
	conn->late = evtimer_new(base, on_late, conn);
	conn->more = evtimer_new(base, on_readable, conn);
	if (!conn->more || !conn->tok || !conn->readable || !conn->writable || !conn->late) {
		conn_free(conn);
		return NULL;
	}
	json_tokener_set_flags(conn->tok, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS |
						  JSON_TOKENER_VALIDATE_UTF8);
	return conn;
}

int api_conn_create(struct api_conn **out, struct event_base *base, int fd,
		    const struct api_conn_ops *ops, void *data)
{
	struct api_conn *conn = conn_alloc(base, fd, ops, data);
	int ret = conn ? fd_set_nonblock(fd, true) : -ENOMEM;

	if (!ret && event_add(conn->readable, NULL))
		ret = -ENOMEM;
	if (ret) {
		if (conn)
			conn_free(conn);
		return ret;
	}
	conn->fd = fd;
	*out = conn;
	return 0;
}

int api_conn_create_tls(struct api_conn **out, struct event_base *base, struct bufferevent *bev,
			const struct api_conn_ops *ops, void *data)
{
	struct api_conn *conn = bev ? conn_alloc(base, -1, ops, data) : NULL;

	if (!conn) {
		if (bev)
			bufferevent_free(bev);
		return -ENOMEM;
	}
	conn->bev = bev;
	bufferevent_setcb(bev, on_bev_read, on_bev_write, on_bev_event, conn);
	bufferevent_setwatermark(bev, EV_READ, 0, READ_SIZE);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	*out = conn;
	return 0;
}

void api_conn_destroy(struct api_conn *conn)
{
	if (!conn || conn->dead)
		return;
	conn->dead = true;
	conn_stop_events(conn);
	if (!conn->depth)
		conn_free(conn);
}

/* Put @msg into the queue; takes @fd. */
static int conn_enqueue(struct api_conn *conn, const char *text, size_t len, int fd)
{
	_cleanup_close_ int owned = fd;
	struct outgoing *o = calloc(1, sizeof(*o));

	if (!o || buf_append(&o->text, text, len) || buf_append(&o->text, "\n", 1)) {
		if (o)
			buf_finish(&o->text);
		free(o);
		return -ENOMEM;
	}
	o->fd = TAKE_FD(owned);
	list_add_tail(&conn->queue, &o->link);
	conn->queued += o->text.len;
	return conn_push(conn) ? -EPIPE : 0;
}

static int conn_enqueue_tls(struct api_conn *conn, const char *text, size_t len, int fd)
{
	struct evbuffer *out = bufferevent_get_output(conn->bev);

	cleanup_close(&fd); /* it cannot go */
	if (evbuffer_add(out, text, len) || evbuffer_add(out, "\n", 1))
		return -ENOMEM;
	conn->queued = evbuffer_get_length(out);
	return 0;
}

int api_conn_send(struct api_conn *conn, struct json_object *msg, int fd)
{
	const char *text;
	size_t len;
	int ret;

	if (conn->broken || conn->dead) {
		cleanup_close(&fd);
		return -EPIPE;
	}
	text = json_object_to_json_string_length(msg, JSON_C_TO_STRING_PLAIN, &len);
	if (!text) {
		cleanup_close(&fd);
		ret = -ENOMEM;
	} else if (conn->bev) {
		ret = conn_enqueue_tls(conn, text, len, fd);
	} else {
		ret = conn_enqueue(conn, text, len, fd);
	}
	if (!ret && conn->queued > API_QUEUE_MAX)
		ret = -ENOBUFS;
	if (ret)
		conn_break(conn);
	else if (!list_empty(&conn->queue))
		event_add(conn->writable, NULL);
	return ret;
}

void api_conn_finish(struct api_conn *conn)
{
	conn->finishing = true;
	conn_stop_reading(conn);
	event_active(conn->writable, EV_WRITE, 0);
}

int api_conn_take_fd(struct api_conn *conn)
{
	int fd;

	if (!conn->n_fds)
		return -1;
	fd = conn->fds[0];
	memmove(conn->fds, conn->fds + 1, --conn->n_fds * sizeof(conn->fds[0]));
	return fd;
}

int api_conn_fd(const struct api_conn *conn)
{
	return conn->bev ? (int)bufferevent_getfd(conn->bev) : conn->fd;
}

bool api_conn_idle(const struct api_conn *conn)
{
	return conn_idle(conn);
}

struct bufferevent *api_conn_bufferevent(const struct api_conn *conn)
{
	return conn->bev;
}

void api_conn_set_bounds(struct api_conn *conn, size_t max, double seconds)
{
	conn->max = max;
	conn->max_time.tv_sec = (time_t)seconds;
	conn->max_time.tv_usec = (suseconds_t)((seconds - (double)conn->max_time.tv_sec) * 1e6);
}

int64_t api_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

void api_conn_flush(struct api_conn *conn, int ms)
{
	int64_t end = api_now_ms() + ms;

	while (!conn->bev && !conn->broken && !conn->dead && !list_empty(&conn->queue)) {
		struct pollfd p = {.fd = conn->fd, .events = POLLOUT};
		int64_t left = end - api_now_ms();

		if (left <= 0 || poll(&p, 1, (int)left) <= 0)
			return;
		if (conn_push(conn)) {
			conn_break(conn);
			return;
		}
	}
}
