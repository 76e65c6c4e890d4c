/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One connection: JSON texts and descriptors over a stream socket, on a libevent loop. */
#include "api/conn.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/list.h"

/* One message on its way out. */
struct outgoing {
	struct list link;
	struct buf text;
	size_t sent;
	int fd; /* rides on the first byte; -1: none, or sent */
};

struct api_conn {
	int fd;
	const struct api_conn_ops *ops;
	void *data;
	struct event *readable, *writable;
	struct json_tokener *tok;
	size_t in_len; /* bytes of the unfinished message */
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
	if (conn->tok)
		json_tokener_free(conn->tok);
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

static void conn_bad(struct api_conn *conn, const struct api_error *err)
{
	event_del(conn->readable);
	/* Whoever is still writing gets EPIPE and reads our answer, instead of blocking. */
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
		conn->ops->message(conn->data, msg);
		json_object_put(msg);
		return used;
	}
	json_object_put(msg);
	if (e != json_tokener_continue) {
		conn_bad_json(conn, json_tokener_error_desc(e));
		return 0;
	}
	conn->in_len += len;
	if (conn->in_len <= API_MESSAGE_MAX)
		return len;
	api_error_set(&err, API_KIND_INVALID_REQUEST, "a message may have at most %llu bytes",
		      (unsigned long long)API_MESSAGE_MAX);
	conn_bad(conn, &err);
	return 0;
}

static void conn_feed(struct api_conn *conn, const char *data, size_t len)
{
	while (len && !conn->dead && !conn->finishing && !conn->broken) {
		size_t used;

		if (!conn->in_len && is_space(*data)) {
			data++;
			len--;
			continue;
		}
		if (!conn->in_len && *data != '{' && *data != '[') {
			conn_bad_json(conn, "an object or array must begin it");
			return;
		}
		used = conn_parse(conn, data, len);
		if (!used)
			return;
		data += used;
		len -= used;
	}
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

/* One read. Whether there may be more at once. The caller is inside conn_enter(). */
static bool conn_read(struct api_conn *conn)
{
	char data[65536];
	ssize_t n = conn_receive(conn, data, sizeof(data));

	if (n == -EAGAIN || n == -EINTR)
		return false;
	if (n > 0)
		conn_feed(conn, data, (size_t)n);
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
	while (!conn->dead && !conn->broken && !conn->finishing && conn_read(conn))
		;
	conn_leave(conn);
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
	if (conn->broken || conn_push(conn) || (conn->finishing && list_empty(&conn->queue)))
		conn_over(conn);
	else if (!list_empty(&conn->queue))
		event_add(conn->writable, NULL);
	conn_leave(conn);
}

int api_conn_create(struct api_conn **out, struct event_base *base, int fd,
		    const struct api_conn_ops *ops, void *data)
{
	struct api_conn *conn = calloc(1, sizeof(*conn));
	int ret;

	if (!conn)
		return -ENOMEM;
	conn->fd = -1;
	conn->ops = ops;
	conn->data = data;
	list_init(&conn->queue);
	ret = fd_set_nonblock(fd, true);
	if (ret)
		goto fail;
	ret = -ENOMEM;
	conn->tok = json_tokener_new_ex(API_DEPTH_MAX);
	conn->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, conn);
	conn->writable = event_new(base, fd, EV_WRITE, on_writable, conn);
	if (!conn->tok || !conn->readable || !conn->writable || event_add(conn->readable, NULL))
		goto fail;
	json_tokener_set_flags(conn->tok, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS |
						  JSON_TOKENER_VALIDATE_UTF8);
	conn->fd = fd;
	*out = conn;
	return 0;
fail:
	conn_free(conn);
	return ret;
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

int api_conn_send(struct api_conn *conn, struct json_object *msg, int fd)
{
	_cleanup_close_ int owned = fd;
	struct outgoing *o;
	const char *text;
	size_t len;

	if (conn->broken || conn->dead)
		return -EPIPE;
	text = json_object_to_json_string_length(msg, JSON_C_TO_STRING_PLAIN, &len);
	o = calloc(1, sizeof(*o));
	if (!text || !o || buf_append(&o->text, text, len) || buf_append(&o->text, "\n", 1)) {
		if (o)
			buf_finish(&o->text);
		free(o);
		conn_break(conn);
		return -ENOMEM;
	}
	o->fd = TAKE_FD(owned);
	list_add_tail(&conn->queue, &o->link);
	conn->queued += o->text.len;
	if (conn_push(conn)) {
		conn_break(conn);
		return -EPIPE;
	}
	if (conn->queued > API_QUEUE_MAX) {
		conn_break(conn);
		return -ENOBUFS;
	}
	if (!list_empty(&conn->queue))
		event_add(conn->writable, NULL);
	return 0;
}

void api_conn_finish(struct api_conn *conn)
{
	conn->finishing = true;
	event_del(conn->readable);
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
	return conn->fd;
}

bool api_conn_idle(const struct api_conn *conn)
{
	return list_empty(&conn->queue);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

void api_conn_flush(struct api_conn *conn, int ms)
{
	int64_t end = now_ms() + ms;

	while (!conn->broken && !conn->dead && !list_empty(&conn->queue)) {
		struct pollfd p = {.fd = conn->fd, .events = POLLOUT};
		int64_t left = end - now_ms();

		if (left <= 0 || poll(&p, 1, (int)left) <= 0)
			return;
		if (conn_push(conn)) {
			conn_break(conn);
			return;
		}
	}
}
