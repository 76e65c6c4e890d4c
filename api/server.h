/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON-RPC 2.0 served through a method table on a libevent loop. */
#ifndef UMBRA_API_SERVER_H
#define UMBRA_API_SERVER_H

#include <sys/types.h>

#include "api/method.h"

struct event_base;
struct json_object;
struct api_machine_ops;
struct api_server;
struct api_session;

#define API_SESSIONS_MAX 4096
#define API_CALLS_MAX	 64 /* in flight on one connection */
#define API_BATCH_MAX	 64

struct api_server_config {
	const struct api_table *table;
	const void *ops;	/* what the rows' handler offsets are in */
	void *data;		/* api_call_data() */
	/*
	 * API_M_MACHINE rows: either @forward serves them all, with @data; or their handlers are in
	 * @machine_ops (one that is NULL is answered with "not-supported"), with @machine_data.
	 */
	api_handler forward;
	const struct api_machine_ops *machine_ops;
	void *machine_data;
	enum api_access access; /* the most that this socket's peers may do */
	/* A connection has come (+1) or gone (-1); may be NULL. */
	void (*session_changed)(void *data, struct api_session *session, int change);
};

/* Nothing listens yet. */
int api_server_create(struct api_server **out, struct event_base *base,
		      const struct api_server_config *config);
/* Calls in flight are told that they are gone, connections are closed. */
void api_server_destroy(struct api_server *server);
/* Accept on @fd (taken on success). */
int api_server_listen(struct api_server *server, int fd);
/* Serve a connected socket (taken on success). */
int api_server_add(struct api_server *server, int fd);
size_t api_server_sessions(const struct api_server *server);
/* A notification to every connection. @params is borrowed. */
void api_server_notify_all(struct api_server *server, const char *method,
			   struct json_object *params);
/* A notification to one. A connection whose queue is full is closed. */
void api_session_notify(struct api_session *session, const char *method,
			struct json_object *params);
/* Wait up to @ms until all that is queued has been sent. */
void api_server_flush(struct api_server *server, int ms);
/* The peer of a Unix socket. */
void api_session_peer(const struct api_session *session, uid_t *uid, pid_t *pid);

/* A call that is being served. */
struct json_object *api_call_params(const struct api_call *call); /* never NULL; borrowed */
const struct api_method *api_call_method(const struct api_call *call);
void *api_call_data(const struct api_call *call);
/* NULL when the connection has gone. */
struct api_session *api_call_session(const struct api_call *call);
/* The descriptor that came with an API_M_FD_IN call; the caller owns it. -1 the second time. */
int api_call_take_fd(struct api_call *call);
/*
 * A call that is answered later must be told when its caller goes away first: @gone is called once,
 * then the call is freed. Without it, the call stays valid and the reply goes nowhere.
 */
void api_call_on_gone(struct api_call *call, void (*gone)(struct api_call *call, void *data),
		      void *data);
/* Answer, and free the call. @result (NULL: {}) and @fd (-1: none) are taken. */
void api_call_reply(struct api_call *call, struct json_object *result, int fd);
void api_call_error(struct api_call *call, const struct api_error *err);
void api_call_fail(struct api_call *call, enum api_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Parameters by name; they have been checked, so that only absence needs a default. */
const char *api_call_string(const struct api_call *call, const char *name);
bool api_call_bool(const struct api_call *call, const char *name, bool dflt);
int64_t api_call_int(const struct api_call *call, const char *name, int64_t dflt);
uint64_t api_call_addr(const struct api_call *call, const char *name, uint64_t dflt);
double api_call_number(const struct api_call *call, const char *name, double dflt);

#endif
