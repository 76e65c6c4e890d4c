/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One connection: JSON texts and descriptors over a stream socket, on a libevent loop. */
#ifndef UMBRA_API_CONN_H
#define UMBRA_API_CONN_H

#include "api/error.h"

struct bufferevent;
struct event_base;
struct json_object;
struct api_conn;

#define API_MESSAGE_MAX MIB(4)	/* one message, received */
#define API_QUEUE_MAX	MIB(16) /* not yet sent */
#define API_DEPTH_MAX	32
#define API_FDS_MAX	4 /* received and not yet taken */

/*
 * Framing: JSON objects or arrays one after another, white space between them allowed; we end each
 * with a newline. A descriptor rides on its message's first byte; the receiver keeps them in order
 * and a message that says so ("fds": 1 in a result, or by its method's row) takes the oldest.
 */
struct api_conn_ops {
	/* A whole message, borrowed. */
	void (*message)(void *data, struct json_object *msg);
	/* What came is no JSON, or too large; @err says so. The connection reads no more, and
	 * closes when what the callee sends now has gone out. May be NULL. */
	void (*bad)(void *data, const struct api_error *err);
	/* The peer has gone, or the connection failed. The callee destroys it now or later. */
	void (*closed)(void *data);
	/* The TLS handshake is over. Only with api_conn_create_tls(); may be NULL. */
	void (*connected)(void *data);
};

/* Takes @fd on success. */
int api_conn_create(struct api_conn **out, struct event_base *base, int fd,
		    const struct api_conn_ops *ops, void *data);
/* The same over a bufferevent that does TLS, taken in any case (NULL: -ENOMEM): no descriptors. */
int api_conn_create_tls(struct api_conn **out, struct event_base *base, struct bufferevent *bev,
			const struct api_conn_ops *ops, void *data);
struct bufferevent *api_conn_bufferevent(const struct api_conn *conn); /* NULL: no TLS */
/* Of messages from now on: bytes (API_MESSAGE_MAX at first), and seconds from the first byte to the
 * last (0, as at first: any number). */
void api_conn_set_bounds(struct api_conn *conn, size_t max, double seconds);
/* Allowed in callbacks. NULL-safe. No callback comes after it. */
void api_conn_destroy(struct api_conn *conn);
/*
 * Queue a message; @fd (-1: none) is taken in any case. -ENOBUFS when the queue is full, -EPIPE
 * when the connection is closed.
 */
int api_conn_send(struct api_conn *conn, struct json_object *msg, int fd);
/* Read no more; close (and call closed) once the queue is empty. */
void api_conn_finish(struct api_conn *conn);
/* Read and tell all that has come already. */
void api_conn_drain(struct api_conn *conn);
/* The oldest descriptor received, or -1. */
int api_conn_take_fd(struct api_conn *conn);
int api_conn_fd(const struct api_conn *conn);
bool api_conn_idle(const struct api_conn *conn); /* nothing queued */
/* Send what is queued, blocking for at most @ms. Not for TLS. */
void api_conn_flush(struct api_conn *conn, int ms);
int64_t api_now_ms(void); /* since some time in the past, never set back */

#endif
