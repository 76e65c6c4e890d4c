/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl run: a machine's whole life, and its end as our exit status. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/relay.h"
#include "cli/vmctl.h"

#define DRAIN_S	      2 /* for the console's end, when the machine's end is known */
#define RECONNECT_MS  100
#define RECONNECT_MAX 100

struct run {
	struct args *args;
	struct event_base *base;
	struct api_client *client;
	struct relay *relay;
	struct event *reconnect, *drain;
	struct json_object *machine; /* as machine.wait gave it; NULL until the end */
	bool console_closed;
	unsigned tries;
	char name[64];
	int status; /* of a failure; -1: none */
};

static void wait_for_end(struct run *r);

static void finish(struct run *r, int status)
{
	if (r->status < 0)
		r->status = status;
	event_base_loopbreak(r->base);
}

static void on_console_closed(void *data)
{
	struct run *r = data;

	r->console_closed = true;
	if (r->machine)
		event_base_loopbreak(r->base);
}

static struct json_object *name_params(const struct run *r)
{
	struct json_object *params = json_object_new_object();

	json_object_object_add(params, "name", json_object_new_string(r->name));
	return params;
}

static void on_stopped(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	cleanup_close(&fd); /* that it has ended, machine.wait tells */
}

static void on_escaped(void *data)
{
	struct run *r = data;
	struct json_object *params = name_params(r);

	json_object_object_add(params, "force", json_object_new_boolean(true));
	if (api_client_send(r->client, "machine.stop", params, -1, 0, on_stopped, r))
		finish(r, VM_STATUS_UNAVAILABLE);
}

/* The machine is bound to our connection, and ends with it. */
static void on_interrupted(void *data, int sig)
{
	finish(data, 128 + sig);
}

static const struct relay_ops relay_ops = {
	.closed = on_console_closed,
	.escaped = on_escaped,
	.interrupted = on_interrupted,
};

static void on_drained(evutil_socket_t fd, short what, void *arg)
{
	struct run *r = arg;

	event_base_loopbreak(r->base);
}

/* umbrad has gone; the machine has not. Another umbrad will have adopted it. */
static void on_reconnect(evutil_socket_t fd, short what, void *arg)
{
	struct run *r = arg;
	struct api_error err;

	api_client_destroy(r->client);
	r->client = NULL;
	if (connect_umbrad(&r->client, r->base, true, &err) == 0)
		wait_for_end(r);
	else
		finish(r, fail(r->args, &err));
}

static void on_end(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	const struct timeval retry = {.tv_usec = RECONNECT_MS * 1000}, drain = {.tv_sec = DRAIN_S};
	struct run *r = data;

	cleanup_close(&fd);
	if (err && err->kind == API_KIND_UNAVAILABLE && r->tries++ < RECONNECT_MAX) {
		evtimer_add(r->reconnect, &retry);
	} else if (err) {
		finish(r, fail(r->args, err));
	} else {
		r->machine = json_object_get(result);
		if (r->console_closed)
			event_base_loopbreak(r->base);
		else
			evtimer_add(r->drain, &drain);
	}
}

static void wait_for_end(struct run *r)
{
	const struct api_error gone = {.kind = API_KIND_UNAVAILABLE, .text = "umbrad has gone"};

	if (api_client_send(r->client, "machine.wait", name_params(r), -1, 0, on_end, r))
		on_end(r, NULL, -1, &gone);
}

/* 0 or the exit status, told. */
static int create(struct run *r)
{
	struct json_object *params = json_object_new_object(), *def;
	struct api_reply reply;
	struct api_error err;
	int status = 0;

	def = make_definition(r->args, &err);
	if (!def || connect_umbrad(&r->client, r->base, true, &err)) {
		json_object_put(def);
		json_object_put(params);
		return fail(r->args, &err);
	}
	json_object_object_add(params, "definition", def);
	json_object_object_add(params, "transient", json_object_new_boolean(true));
	if (api_client_call(r->client, "machine.create", params, 0, &reply))
		status = fail(r->args, &reply.err);
	else
		snprintf(r->name, sizeof(r->name), "%s", string_of(reply.result, "name", ""));
	api_reply_finish(&reply);
	return status;
}

static int start(struct run *r)
{
	struct json_object *params = name_params(r);
	struct api_reply reply, ignored;
	int status = 0;

	json_object_object_add(params, "console", json_object_new_boolean(true));
	json_object_object_add(params, "bound", json_object_new_boolean(true));
	if (api_client_call(r->client, "machine.start", params, 0, &reply)) {
		status = fail(r->args, &reply.err);
		params = name_params(r);
		json_object_object_add(params, "force", json_object_new_boolean(true));
		api_client_call(r->client, "machine.delete", params, 10000, &ignored);
		api_reply_finish(&ignored);
	} else if (reply.fd < 0) {
		r->console_closed = true; /* it could not be attached: the log has it */
	} else if (relay_create(&r->relay, r->base, reply.fd, &relay_ops, r) == 0) {
		reply.fd = -1;
	} else {
		fputs("vmctl: the console cannot be used\n", stderr);
		status = VM_STATUS_INTERNAL;
	}
	api_reply_finish(&reply);
	return status;
}

static void write_stats(struct run *r)
{
	const char *file = string_of(r->args->cli, "stats", NULL);
	struct json_object *stats = object_of(object_of(r->machine, "exit"), "stats");
	_cleanup_close_ int fd = -1;
	const char *text;

	if (!file)
		return;
	if (!stats) {
		fputs("vmctl: the machine left no counters\n", stderr);
		return;
	}
	if (!strcmp(file, "-")) {
		print_json(stats);
		return;
	}
	text = json_object_to_json_string_ext(stats, JSON_C_TO_STRING_PRETTY);
	/* Not by way of a rename: it may be a pipe or a device. */
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0 || fd_write_full(fd, text, strlen(text)) || fd_write_full(fd, "\n", 1))
		fprintf(stderr, "vmctl: cannot write %s: %s\n", file, strerror(errno));
}

static int run(struct run *r)
{
	int status = create(r);

	if (!status)
		status = start(r);
	if (status)
		return status;
	wait_for_end(r);
	event_base_dispatch(r->base);
	relay_destroy(r->relay);
	r->relay = NULL;
	if (!r->machine)
		return r->status < 0 ? VM_STATUS_INTERNAL : r->status;
	write_stats(r);
	return tell_end(r->args, r->machine);
}

int verb_run(struct args *args)
{
	struct run r = {.args = args, .base = relay_base(), .status = -1};
	int status = VM_STATUS_INTERNAL;

	if (!r.base)
		return status;
	r.reconnect = evtimer_new(r.base, on_reconnect, &r);
	r.drain = evtimer_new(r.base, on_drained, &r);
	if (r.reconnect && r.drain)
		status = run(&r);
	relay_destroy(r.relay);
	api_client_destroy(r.client);
	json_object_put(r.machine);
	if (r.reconnect)
		event_free(r.reconnect);
	if (r.drain)
		event_free(r.drain);
	event_base_free(r.base);
	return status;
}
