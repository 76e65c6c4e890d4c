/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One dispatcher for every transport: finds the row, checks who calls and with what, runs it. */
#ifndef UMBRA_API_CALL_H
#define UMBRA_API_CALL_H

#include <sys/types.h>

#include "api/method.h"
#include "base/list.h"

struct json_object;
struct api_call;
struct api_machine_ops;
struct api_session;

#define API_CALLER_NAME 128
#define API_CALLS_TOTAL 8192 /* in flight in one dispatcher, of all callers */
#define API_CALLS_NAMED 1024 /* of these, of one name that is no admin's */

enum api_transport { API_T_RPC, API_T_REST, API_T_DBUS, API_T_JOB };

/* Who calls; copied into the call. */
struct api_caller {
	enum api_access level; /* the most it may do */
	enum api_transport transport;
	bool passes_fds; /* its transport carries descriptors, both ways */
	bool sees_all;	 /* machines of all owners; else only its own exist for it */
	uid_t uid;	 /* (uid_t)-1: none */
	uint64_t token;	 /* api_token.id of what let it in; 0: its socket or certificate did */
	/* For the journal and for owners: "unix:1000", "tls:CN", "token:NAME". */
	char name[API_CALLER_NAME];
	struct api_session *session; /* API_T_RPC: the connection; else NULL */
};

/* Whether it may do less, or is somebody else, than it was: what it began then must not go on. */
bool api_caller_lost(const struct api_caller *now, const struct api_caller *was);
/* Whether what @owner has (a machine, a job, their events) exists for @caller. */
bool api_caller_sees(const struct api_caller *caller, const char *owner);

/*
 * A transport's side of a call: exactly one of reply and fail is called, once, maybe before
 * api_dispatch() returns; neither after api_call_gone().
 */
struct api_reply_ops {
	/* Both taken; @fd is -1 or a descriptor (@result then has "fds": 1). Never NULL. */
	void (*reply)(void *priv, struct json_object *result, int fd);
	void (*fail)(void *priv, const struct api_error *err);
	/* May be NULL. @fraction 0..1, @what half a sentence. */
	void (*progress)(void *priv, double fraction, const char *what);
};

/*
 * What makes a call outlive its transport: a job. All are mandatory but running(). ended() comes
 * exactly once, before the transport's answer when that is still to come; then the call is freed.
 */
struct api_job_ops {
	/* The handler has returned and has not answered: the place to answer early. */
	void (*running)(void *job);
	/*
	 * @result is borrowed, NULL when @err is not. Returns what the transport, if it has not
	 * been answered, is told instead of @result: a new reference; NULL: @result.
	 */
	struct json_object *(*ended)(void *job, struct json_object *result,
				     const struct api_error *err);
	void (*progress)(void *job, double fraction, const char *what);
	/* The transport has gone. true: the call goes on without it; false: it is cancelled. */
	bool (*stays)(void *job);
};

/* How a call ended; told once for each call, refused ones and those of unknown methods too. */
struct api_audit {
	const struct api_caller *caller;
	const struct api_method *method; /* NULL: there is none of that name */
	const char *machine;		 /* "": the call was about none */
	const struct api_error *err;	 /* NULL: it was served */
	double seconds;			 /* from api_dispatch() to the end */
};

/* Bounds for every transport; zero: what the API_*_DEFAULT says. */
struct api_limits {
	size_t connections, connections_per_caller; /* the second not for admins */
	size_t calls;				    /* in flight, a connection */
	double handshake_s;			    /* TLS, and saying who one is */
	double message_s;			    /* from a message's first byte to its last */
	double idle_s;				    /* a TLS connection without calls; 0: never */
};
#define API_CONNECTIONS_DEFAULT	       4096
#define API_CONNECTIONS_CALLER_DEFAULT 1024
#define API_CONNECTION_CALLS_DEFAULT   64
#define API_HANDSHAKE_DEFAULT	       10.0
#define API_MESSAGE_DEFAULT	       30.0

/* One a process. Fill the first part (static or zeroed), then api_dispatcher_init(). */
struct api_dispatcher {
	const struct api_table *table;
	const void *ops; /* what the rows' handler offsets are in */
	void *data;	 /* api_call_data(), and what the callbacks below get */
	/*
	 * API_M_MACHINE rows: either @forward serves them all, with @data; or their handlers are in
	 * @machine_ops (one that is NULL is answered with "not-supported"), with @machine_data.
	 */
	api_handler forward;
	const struct api_machine_ops *machine_ops;
	void *machine_data;
	void (*audit)(void *data, const struct api_audit *a); /* may be NULL */
	/*
	 * Called before the handler of an API_M_LONG row: makes it a job with api_call_set_job()
	 * and, when the caller does not want to wait, answers with api_call_answer_early(). May be
	 * NULL. 0, or -errno with *err: the call is refused.
	 */
	int (*begin_job)(void *data, struct api_call *call, struct api_error *err);
	struct api_limits limits; /* may change at any time */

	/* Private. */
	struct list calls, connections;
	size_t n_calls, n_connections;
};

void api_dispatcher_init(struct api_dispatcher *d);
/* Calls in flight are told that they are gone. */
void api_dispatcher_finish(struct api_dispatcher *d);

/* A connection of any transport, counted against the bounds; part of the transport's own struct. */
struct api_connection {
	struct list link;
	struct api_dispatcher *d;
	char name[API_CALLER_NAME];
};
/* Count it. 0, or -errno with *err (which may be NULL): there are too many, close it. */
int api_connection_enter(struct api_connection *c, struct api_dispatcher *d,
			 const struct api_caller *caller, struct api_error *err);
/* It is somebody else's now (it has said who it is). 0, or -errno as above: it stays counted. */
int api_connection_rename(struct api_connection *c, const struct api_caller *caller,
			  struct api_error *err);
void api_connection_leave(struct api_connection *c);

/*
 * Find the row, check access, then parameters (nothing happens before that), run the handler.
 * @params is borrowed (NULL: none), @fd (-1: none) taken, @caller copied. Returns the handle, valid
 * until one of @ops is called: NULL when that was before this returned.
 */
struct api_call *api_dispatch(struct api_dispatcher *d, const char *method,
			      struct json_object *params, int fd, const struct api_caller *caller,
			      const struct api_reply_ops *ops, void *priv);
/* The same for what api_dispatch() and transports must say about a name; @out NULL on error. */
int api_dispatch_find(const struct api_dispatcher *d, const char *method,
		      const struct api_method **out, struct api_error *err);
/*
 * A question that a transport has answered by itself, as @method would have been: it is counted as
 * if it had been dispatched. @began: api_dispatch_clock() at its start.
 */
void api_dispatch_count(struct api_dispatcher *d, const struct api_method *method,
			const struct api_caller *caller, const char *machine, double began);
double api_dispatch_clock(void);
/* The transport's client went away: no reply will be taken, the handle is invalid. A job stays. */
void api_call_gone(struct api_call *call);

/* For handlers. A call is valid until it is answered, or until its gone() has returned. */
struct json_object *api_call_params(const struct api_call *call); /* never NULL; borrowed */
const struct api_method *api_call_method(const struct api_call *call);
void *api_call_data(const struct api_call *call);
struct api_dispatcher *api_call_dispatcher(const struct api_call *call);
const struct api_caller *api_call_caller(const struct api_call *call);
/* NULL when the connection has gone, and on transports that have none. */
struct api_session *api_call_session(const struct api_call *call);
/* Whether a descriptor can go out with the answer; if not, refuse before any effect. */
bool api_call_passes_fds(const struct api_call *call);
/* The descriptor that came with an API_M_FD_IN call; the caller owns it. -1 the second time. */
int api_call_take_fd(struct api_call *call);
/*
 * A call that is answered later must be told when its caller goes away or it is cancelled: @gone is
 * called once, then the call is freed. Without it, the call stays valid and the reply goes nowhere.
 */
void api_call_on_gone(struct api_call *call, void (*gone)(struct api_call *call, void *data),
		      void *data);
/* To the transport and the job. For a call that is being served. */
void api_call_progress(struct api_call *call, double fraction, const char *what);
/* Answer, and free the call. @result (NULL: {}) and @fd (-1: none) are taken. */
void api_call_reply(struct api_call *call, struct json_object *result, int fd);
void api_call_error(struct api_call *call, const struct api_error *err);
void api_call_fail(struct api_call *call, enum api_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Which machine the call is about, when that is not its parameter "name". */
void api_call_set_machine(struct api_call *call, const char *name);

/* For jobs. */
void api_call_set_job(struct api_call *call, const struct api_job_ops *ops, void *job);
/* Answer the transport now with @result (taken); the call goes on, its end is told to the job. */
void api_call_answer_early(struct api_call *call, struct json_object *result);
/*
 * End the call with "cancelled": gone() is called so that the handler lets go, the transport and
 * the job are told. -EBUSY when the handler has set no gone(): it cannot be stopped.
 */
int api_call_cancel(struct api_call *call);

/* Parameters by name; they have been checked, so that only absence needs a default. */
const char *api_call_string(const struct api_call *call, const char *name);
bool api_call_bool(const struct api_call *call, const char *name, bool dflt);
int64_t api_call_int(const struct api_call *call, const char *name, int64_t dflt);
uint64_t api_call_addr(const struct api_call *call, const char *name, uint64_t dflt);
double api_call_number(const struct api_call *call, const char *name, double dflt);

extern const char *const api_transport_names[API_T_JOB + 2]; /* "rpc", "rest", "dbus", "job" */

#endif
