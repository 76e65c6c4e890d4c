/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* HTTP/1.1 on a libevent loop: listeners, bounds, one request at a time on each connection. */
#ifndef UMBRA_API_HTTP_H
#define UMBRA_API_HTTP_H

#include "api/call.h"

struct api_http;
struct api_http_request;
struct api_tls;
struct bufferevent;
struct evbuffer;
struct event_base;

#define API_HTTP_BODY_MAX    MIB(4)  /* of a request */
#define API_HTTP_HEAD_MAX    KIB(32) /* request line and headers */
#define API_HTTP_PENDING_MAX MIB(64) /* of all requests that are not whole yet */
#define API_HTTP_QUEUE_MAX   MIB(4)  /* of a stream, not yet sent */

struct api_http_config {
	/*
	 * Its limits: connections (one more, and who idles longest goes), handshake_s (from
	 * connecting, or from its first byte, a request must be whole) and idle_s.
	 */
	struct api_dispatcher *dispatcher;
	/*
	 * A request that is well formed, comes from no other site's page and has a body of at most
	 * API_HTTP_BODY_MAX. It must be answered, now or later, by api_http_reply() or a stream.
	 */
	void (*request)(void *data, struct api_http_request *req);
	/* What is refused before: @status with one sentence. To be answered at once. */
	void (*refuse)(void *data, struct api_http_request *req, int status, const char *why);
	void *data;
};

/* Nothing listens yet. 0 or -ENOMEM. */
int api_http_create(struct api_http **out, struct event_base *base,
		    const struct api_http_config *config);
/* Requests in flight are told that they are gone. NULL-safe. */
void api_http_destroy(struct api_http *http);
/* Accept on @fd (taken on success), through @tls (borrowed, outlives this; NULL: plain). */
int api_http_listen(struct api_http *http, int fd, struct api_tls *tls);
size_t api_http_connections(const struct api_http *http);

/* What came. All is borrowed, until the answer. */
enum api_http_method {
	API_HTTP_GET,
	API_HTTP_POST,
	API_HTTP_PUT,
	API_HTTP_DELETE,
	API_HTTP_OPTIONS,
	API_HTTP_OTHER,
	API_HTTP_METHODS,
};
extern const char *const api_http_method_names[API_HTTP_METHODS]; /* NULL for OTHER */

/* HEAD is GET; the body of its answer is left out here. */
enum api_http_method api_http_method(const struct api_http_request *req);
const char *api_http_path(const struct api_http_request *req);	/* still encoded, from '/' on */
const char *api_http_query(const struct api_http_request *req); /* still encoded; NULL: none */
const char *api_http_header(const struct api_http_request *req, const char *name);
const void *api_http_body(const struct api_http_request *req, size_t *len);
/* The connection: its socket, and its bufferevent when it is TLS, else NULL. */
int api_http_fd(const struct api_http_request *req);
/* Count the connection as @caller's. 0, or -errno with *err: it has too many. */
int api_http_count(struct api_http_request *req, const struct api_caller *caller,
		   struct api_error *err);
struct bufferevent *api_http_tls(const struct api_http_request *req);

/* Before the answer. */
void api_http_set_header(struct api_http_request *req, const char *name, const char *value);
/* The connection ends with this answer. */
void api_http_set_close(struct api_http_request *req);
/*
 * @gone is called once when the client goes away before it is answered, or amid a stream; @req is
 * freed then. Without it nobody is told. Must be set before anything is awaited: a request that
 * nobody remembers and that is answered after it is gone is a use after free.
 */
void api_http_on_gone(struct api_http_request *req, void (*gone)(void *data), void *data);
/* Answer, and free the request. @type NULL: no body. */
void api_http_reply(struct api_http_request *req, int status, const char *type, const void *data,
		    size_t len);
/* An answer in pieces, as long as the connection lives. */
void api_http_stream(struct api_http_request *req, int status, const char *type);
/* -ENOBUFS: the client does not read; end it. */
int api_http_stream_write(struct api_http_request *req, const void *data, size_t len);
/* The end of the stream, properly or by closing the connection; frees the request. */
void api_http_stream_end(struct api_http_request *req);
void api_http_abort(struct api_http_request *req);

#endif
