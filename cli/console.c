/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl console: attach to a running machine. */
#include <stdio.h>
#include <string.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "base/cleanup.h"
#include "cli/relay.h"
#include "cli/remote.h"
#include "cli/vmctl.h"

struct attached {
	struct event_base *base;
	int sig;
};

static void on_end(void *data)
{
	struct attached *a = data;

	event_base_loopbreak(a->base);
}

static void on_interrupted(void *data, int sig)
{
	struct attached *a = data;

	a->sig = sig;
	event_base_loopbreak(a->base);
}

int verb_console(struct args *args)
{
	static const struct relay_ops ops = {
		.closed = on_end,
		.escaped = on_end,
		.interrupted = on_interrupted,
	};
	struct attached a = {.base = relay_base()};
	struct relay *relay = NULL;
	struct api_reply reply;
	int status;

	if (remote_chosen()->kind == REMOTE_SSH)
		remote_exec_there(args);
	if (!a.base)
		return VM_STATUS_INTERNAL;
	status = call_method(args, &reply);
	if (!status && (reply.fd < 0 || relay_create(&relay, a.base, reply.fd, &ops, &a))) {
		fputs("vmctl: no console came\n", stderr);
		status = VM_STATUS_INTERNAL;
	}
	if (!status) {
		reply.fd = -1;
		event_base_dispatch(a.base);
		status = a.sig ? 128 + a.sig : 0;
	}
	relay_destroy(relay);
	api_reply_finish(&reply);
	event_base_free(a.base);
	return status;
}
