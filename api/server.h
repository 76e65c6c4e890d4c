/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON-RPC 2.0 over stream sockets on a libevent loop: a transport of the dispatcher. */
#ifndef UMBRA_API_SERVER_H
#define UMBRA_API_SERVER_H

#include "api/call.h"

struct event_base;
struct json_object;
struct api_server;
struct api_session;
struct api_tls;

#define API_BATCH_MAX	   64
#define API_AUTH_TRIES_MAX 3 /* wrong tokens on one connection */

/* Who is at the other end of a connection of any transport. */
struct api_peer {
	int fd;		  /* a Unix socket, asked for its credentials; -1: no such one */
	const char *cert; /* TLS: the verified certificate's common name; NULL: there is none */
	bool tls;
	const struct api_caller *was; /* asked again: who it was, maybe by a token; NULL: new */
};

struct api_server_config {
	struct api_dispatcher *dispatcher;
	/*
	 * Fill level, uid, name and sees_all of a peer. -errno: it may not connect. NULL: every
	 * peer may do everything (a private socket).
	 */
	int (*identify)(void *data, const struct api_peer *peer, struct api_caller *caller);
	/* A connection has come (+1) or gone (-1); may be NULL. */
	void (*session_changed)(void *data, struct api_session *session, int change);
	void *data;
};

/* What one listening socket lets through. */
struct api_listen {
	enum api_access cap; /* the most that its peers may do, whoever they are */
	struct api_tls *tls; /* borrowed; NULL: Unix sockets */
};

/* Nothing listens yet. */
int api_server_create(struct api_server **out, struct event_base *base,
		      const struct api_server_config *config);
/* Calls in flight are told that they are gone, connections are closed. */
void api_server_destroy(struct api_server *server);
/* Accept on @fd (taken on success). */
int api_server_listen(struct api_server *server, int fd, const struct api_listen *how);
/* Serve a connected socket, taken in any case. */
int api_server_add(struct api_server *server, int fd, const struct api_listen *how);
size_t api_server_sessions(const struct api_server *server);
/* A notification to every connection. @params is borrowed. */
void api_server_notify_all(struct api_server *server, const char *method,
			   struct json_object *params);
/* A notification to one. A connection whose queue is full is closed. */
void api_session_notify(struct api_session *session, const char *method,
			struct json_object *params);
/* Wait up to @ms until all that is queued has been sent. */
void api_server_flush(struct api_server *server, int ms);
const struct api_caller *api_session_caller(const struct api_session *session);
/*
 * The connection has said who it is: @caller's level (capped as the connection's always is), uid,
 * name and sees_all are those of its calls from now on. 0, or -errno with *err: too many.
 */
int api_session_authenticate(struct api_session *session, const struct api_caller *caller,
			     struct api_error *err);
/*
 * The rights that identify() gives may have changed: all are asked for again. Who may do less than
 * before is disconnected. How many are. Not from within a call.
 */
size_t api_server_recheck(struct api_server *server);
/* It said so wrongly; one that does so API_AUTH_TRIES_MAX times is closed. */
void api_session_auth_failed(struct api_session *session);

#endif
