/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target over what a client may send to REST: request bytes, in pieces, through evhttp,
 * the routes and the parameters to handlers that only look whether what reaches them was checked.
 * The first byte chooses the pieces' size; with its top bit the client goes away amid an answer.
 */
#include <event2/event.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/api.h"
#include "api/jobs.h"
#include "api/rest.h"
#include "base/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct world {
	struct event_base *base;
	struct api_dispatcher dispatcher;
	struct api_events *events;
	struct api_jobs *jobs;
	struct api_rest *rest;
	struct sockaddr_un name;
	socklen_t name_len;
	struct api_call *waiting; /* one that is answered later */
} w;

static void gone(struct api_call *call, void *data)
{
	w.waiting = NULL;
}

/* Every method: what comes here must be right by its row. */
static void handle(struct api_call *call)
{
	struct api_error err;

	if (api_fields_check(&api_call_method(call)->params, api_call_params(call), "", &err))
		abort();
	if (!strcmp(api_call_method(call)->name, "machine.wait") && !w.waiting) {
		w.waiting = call;
		api_call_on_gone(call, gone, NULL);
		return;
	}
	if (!strcmp(api_call_method(call)->name, "events.subscribe")) {
		api_events_subscribe(w.events, call);
		return;
	}
	api_call_reply(call, json_object_get(api_call_params(call)), -1);
}

static int begin_job(void *data, struct api_call *call, struct api_error *err)
{
	return api_jobs_begin(w.jobs, call, err);
}

static int identify(void *data, const struct api_http_request *req, struct api_caller *caller,
		    struct api_error *err)
{
	caller->level = API_ADMIN;
	caller->sees_all = true;
	caller->uid = 0;
	memcpy(caller->name, "fuzz", 5);
	return 0;
}

static void metrics(void *data, const struct api_caller *caller, api_rest_text_fn done, void *arg)
{
	done(arg, NULL);
}

/* A world for each input: what is left over is a leak. */
static void set_up(void)
{
	static api_handler ops[sizeof(struct api_ops) / sizeof(api_handler)];
	struct api_rest_config config = {
		.dispatcher = &w.dispatcher,
		.identify = identify,
		.metrics = metrics,
	};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	signal(SIGPIPE, SIG_IGN); /* as umbrad does */
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		ops[i] = handle;
	memset(&w, 0, sizeof(w));
	w.name.sun_family = AF_UNIX;
	w.name_len = sizeof(w.name);
	w.base = event_base_new();
	w.dispatcher.table = &api_umbrad_methods;
	w.dispatcher.ops = ops;
	w.dispatcher.forward = handle;
	w.dispatcher.begin_job = begin_job;
	api_dispatcher_init(&w.dispatcher);
	/* A name that the kernel makes up: the address is its family alone. */
	if (!w.base || api_events_create(&w.events, w.base) ||
	    api_jobs_create(&w.jobs, w.base, w.events) ||
	    bind(fd, (struct sockaddr *)&w.name, sizeof(sa_family_t)) || listen(fd, 16) ||
	    getsockname(fd, (struct sockaddr *)&w.name, &w.name_len))
		abort();
	config.events = w.events;
	if (api_rest_create(&w.rest, w.base, &config) || api_rest_listen(w.rest, fd, NULL))
		abort();
}

static void tear_down(void)
{
	api_rest_destroy(w.rest);
	api_dispatcher_finish(&w.dispatcher);
	api_jobs_destroy(w.jobs);
	api_events_destroy(w.events);
	event_base_free(w.base);
}

static void turn(void)
{
	for (unsigned k = 0; k < 6; k++)
		event_base_loop(w.base, EVLOOP_NONBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char sink[65536];
	size_t piece, n;
	bool leaves;
	int fd;

	if (!size || size > KIB(256))
		return 0;
	set_up();
	leaves = data[0] & 0x80;
	piece = data[0] & 0x7f ? (data[0] & 0x7f) * 8 : size;
	data++;
	size--;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&w.name, w.name_len))
		abort();
	turn();
	for (; size; data += n, size -= n) {
		n = MIN(piece, size);
		if (send(fd, data, n, MSG_NOSIGNAL) < 0)
			break;
		turn();
		while (!leaves && recv(fd, sink, sizeof(sink), 0) > 0)
			;
	}
	api_events_emit(w.events, "state", "m", "fuzz", NULL);
	turn();
	if (w.waiting && !leaves)
		api_call_reply(TAKE_PTR(w.waiting), NULL, -1);
	turn();
	close(fd);
	if (!leaves)
		turn();
	tear_down();
	return 0;
}
