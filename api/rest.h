/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* REST: a dispatcher's methods, the events and a few documents over HTTP. */
#ifndef UMBRA_API_REST_H
#define UMBRA_API_REST_H

#include "api/call.h"
#include "api/events.h"
#include "api/http.h"
#include "base/buf.h"

struct api_rest;

/* Gets the text, borrowed; NULL: it could not be made. Called exactly once. */
typedef void (*api_rest_text_fn)(void *arg, const struct buf *text);

struct api_rest_config {
	struct api_dispatcher *dispatcher;
	struct api_events *events;
	/*
	 * Who sends @req: by api_http_fd(), api_http_tls(), and the header "Authorization". Fills
	 * all of @caller but its transport. 0; or -errno with *err: answered with 401.
	 */
	int (*identify)(void *data, const struct api_http_request *req, struct api_caller *caller,
			struct api_error *err);
	/* /metrics, of what @caller may see. Tells @done now or later; NULL: there is none. */
	void (*metrics)(void *data, const struct api_caller *caller, api_rest_text_fn done,
			void *arg);
	void *data;
};

/* 0 or -ENOMEM. */
int api_rest_create(struct api_rest **out, struct event_base *base,
		    const struct api_rest_config *config);
/* Before its dispatcher and events end. NULL-safe. */
void api_rest_destroy(struct api_rest *rest);
/* See api_http_listen(). */
int api_rest_listen(struct api_rest *rest, int fd, struct api_tls *tls);
/*
 * What identify() says may have changed: streams of events to whom it says less of than before are
 * cut off. How many. (Every other request asks anew.) Not from within a request.
 */
size_t api_rest_recheck(struct api_rest *rest);
size_t api_rest_connections(const struct api_rest *rest);

#endif
