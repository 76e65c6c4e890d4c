/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A call that takes its time, with a bar that shows how far it is. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli/term.h"
#include "cli/vmctl.h"

#define BAR_MAX 40

struct progress {
	const char *machine, *method;
	bool shown;
};

static void draw(struct progress *p, double fraction, const char *what)
{
	unsigned width = term_columns() ? term_columns() : 80;
	unsigned bar = MIN(width / 2, (unsigned)BAR_MAX);
	unsigned full = (unsigned)(MIN(MAX(fraction, 0.0), 1.0) * bar);

	fputs("\r\033[K[", stderr);
	for (unsigned i = 0; i < bar; i++)
		fputc(i < full ? '#' : '.', stderr);
	fprintf(stderr, "] %3.0f%% %.*s", fraction * 100, (int)(width - bar - 9), what);
	fflush(stderr);
	p->shown = true;
}

static void on_notify(void *data, const char *method, struct json_object *params)
{
	struct progress *p = data;

	if (strcmp(method, "event") != 0 || strcmp(string_of(params, "type", ""), "progress") ||
	    strcmp(string_of(params, "method", ""), p->method))
		return;
	draw(p, number_of(params, "fraction", 0), string_of(params, "what", ""));
}

static const struct api_client_ops ops = {.notify = on_notify};

/* Be told of the machine's progress on the same connection, ahead of the call's answer. */
static void subscribe(struct api_client *client, const struct progress *p)
{
	struct json_object *params = json_object_new_object();
	struct api_reply reply;

	json_object_object_add(params, "types", json_object_new_string("progress"));
	if (p->machine)
		json_object_object_add(params, "machine", json_object_new_string(p->machine));
	api_client_call(client, "events.subscribe", params, 0, &reply);
	api_reply_finish(&reply); /* one that cannot tell has no bar */
}

int call_with_progress(struct args *args, struct api_reply *reply)
{
	struct progress p = {
		.machine = string_of(args->params, "name", NULL),
		.method = args->verb->method,
	};
	const struct api_method *m = api_method_find(&api_umbrad_methods, p.method);
	bool bar = m && m->flags & API_M_LONG && !args->json && isatty(STDERR_FILENO);
	const struct connection c = {.start = true, .ops = bar ? &ops : NULL, .data = &p};
	struct api_client *client;
	int ret;

	*reply = (struct api_reply){.fd = -1};
	ret = connect_to(&client, &c, &reply->err);
	if (ret)
		return ret;
	if (bar)
		subscribe(client, &p);
	ret = api_client_call(client, p.method, json_object_get(args->params), 0, reply);
	if (p.shown)
		fputs("\r\033[K", stderr);
	if (bar)
		api_client_destroy(client);
	else
		connect_keep(client);
	return ret;
}
