/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The calling side: calls with answers that come later, or that are waited for. */
#ifndef UMBRA_API_CLIENT_H
#define UMBRA_API_CLIENT_H

#include "api/error.h"

struct event_base;
struct json_object;
struct api_client;
struct api_tls;

struct api_client_ops {
	/* Either may be NULL. @params is borrowed. */
	void (*notify)(void *data, const char *method, struct json_object *params);
	/* The connection has ended; every pending call has failed with API_KIND_UNAVAILABLE before.
	 * The callee may destroy the client. */
	void (*closed)(void *data);
};

/*
 * The answer: @result on success (borrowed, @err NULL), else @err. @fd is -1 or the callee's to
 * own.
 */
typedef void (*api_answer)(void *data, struct json_object *result, int fd,
			   const struct api_error *err);

/* @base may be NULL: then the client has a loop of its own. Takes @fd on success. */
int api_client_create(struct api_client **out, struct event_base *base, int fd,
		      const struct api_client_ops *ops, void *data);

/* A daemon elsewhere. */
struct api_client_where {
	struct event_base *base; /* NULL: a loop of its own */
	struct api_tls *tls;	 /* a client's; may be destroyed afterwards */
	const char *host, *port; /* @host is whom the certificate must name */
};
#define API_CONNECT_S 10
/*
 * Resolve, connect and shake hands, at most API_CONNECT_S seconds; the loop runs meanwhile. 0, or
 * -errno with *err.
 */
int api_client_connect_tls(struct api_client **out, const struct api_client_where *where,
			   const struct api_client_ops *ops, void *data, struct api_error *err);
/* Pending calls are dropped without an answer. NULL-safe; allowed in callbacks. */
void api_client_destroy(struct api_client *client);
/* Read and tell all that has come already. NULL-safe. */
void api_client_drain(struct api_client *client);
/* Answer every pending call with API_KIND_UNAVAILABLE; later sends fail. NULL-safe. */
void api_client_abort(struct api_client *client);
struct event_base *api_client_base(struct api_client *client);
int api_client_fd(const struct api_client *client);
bool api_client_closed(const struct api_client *client);
/*
 * @params (NULL: none) and @fd (-1: none) are taken in any case. @timeout_ms 0: none. When this
 * returns 0 the answer comes exactly once; on -errno it never does.
 */
int api_client_send(struct api_client *client, const char *method, struct json_object *params,
		    int fd, int timeout_ms, api_answer answer, void *data);

struct api_reply {
	struct json_object *result; /* owned by the caller */
	int fd;			    /* likewise, or -1 */
	struct api_error err;
};

void api_reply_finish(struct api_reply *reply);
/* Call and run the loop until the answer is there. 0, or a -errno with reply->err. */
int api_client_call(struct api_client *client, const char *method, struct json_object *params,
		    int timeout_ms, struct api_reply *reply);

#endif
