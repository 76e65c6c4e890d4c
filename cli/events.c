/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl events: what has happened, and what happens. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "cli/term.h"
#include "cli/vmctl.h"

#define RECONNECT_MS  100
#define RECONNECT_MAX 100

static const struct api_field fields[] = {
	{.name = "follow", .type = API_BOOL, .help = "go on with what happens from now on"},
	{.name = "type",
	 .type = API_STRING,
	 .max = 256,
	 .help = "only these kinds, parted by commas: created, deleted, state, job, progress, "
		 "restart, hung"},
};
const struct api_fields events_options = API_FIELDS("the options", fields);

struct events {
	struct args *args;
	struct event_base *base;
	struct api_client *client;
	int64_t last; /* seen; -1: none */
	bool gone;
};

/* What every event has stands in columns, the rest behind them as name=value. */
static void print_event(struct json_object *ev)
{
	static const char *const columns[] = {"seq", "time", "type", "machine"};
	double when = number_of(ev, "time", 0);
	time_t seconds = (time_t)when;
	const char *type = string_of(ev, "type", "?");
	bool colour = term_colour(STDOUT_FILENO);
	char text[32] = "";
	struct tm tm;

	if (localtime_r(&seconds, &tm))
		strftime(text, sizeof(text), "%F %T", &tm);
	printf("%lld  %s.%03d  %s%-8s%s  %-12s", (long long)int_of(ev, "seq", 0), text,
	       (int)((when - (double)seconds) * 1000), colour ? "\033[1m" : "", type,
	       colour ? "\033[0m" : "", string_of(ev, "machine", "-"));
	json_object_object_foreach(ev, key, value)
	{
		bool column = false;

		for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
			column |= !strcmp(key, columns[i]);
		if (!column)
			printf("  %s=%s", key,
			       json_object_is_type(value, json_type_string)
				       ? json_object_get_string(value)
				       : json_object_to_json_string_ext(value,
									JSON_C_TO_STRING_PLAIN));
	}
	putchar('\n');
}

static void on_notify(void *data, const char *method, struct json_object *params)
{
	struct events *e = data;

	if (strcmp(method, "event") != 0)
		return;
	e->last = int_of(params, "seq", e->last);
	if (e->args->json)
		puts(json_object_to_json_string_ext(
			params, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	else
		print_event(params);
	fflush(stdout);
}

static void on_closed(void *data)
{
	struct events *e = data;

	e->gone = true;
	event_base_loopbreak(e->base);
}

static const struct api_client_ops ops = {.notify = on_notify, .closed = on_closed};

static struct json_object *make_params(const struct events *e)
{
	struct json_object *params = json_object_get(e->args->params);
	const char *types = string_of(e->args->cli, "type", NULL);
	bool follow = json_object_get_boolean(object_of(e->args->cli, "follow"));

	if (types)
		json_object_object_add(params, "types", json_object_new_string(types));
	if (e->last >= 0)
		json_object_object_add(params, "since", json_object_new_int64(e->last));
	else if (!follow && !object_of(params, "since"))
		json_object_object_add(params, "since", json_object_new_int64(0));
	return params;
}

/* The kept ones come before the answer. 0, or -errno with *err. */
static int subscribe(struct events *e, struct api_error *err)
{
	const struct connection c = {.base = e->base, .start = true, .ops = &ops, .data = e};
	int64_t since = MAX(int_of(e->args->params, "since", 0), e->last);
	struct api_reply reply;
	int ret;

	e->gone = false;
	ret = connect_to(&e->client, &c, err);
	if (ret)
		return ret;
	ret = api_client_call(e->client, "events.subscribe", make_params(e), 0, &reply);
	if (ret)
		*err = reply.err;
	else if (since > 0 && json_object_get_boolean(object_of(reply.result, "lost")))
		fprintf(stderr, "vmctl: some events after %lld are kept no more\n",
			(long long)since);
	api_reply_finish(&reply);
	return ret;
}

/* Another umbrad takes the place of one that has gone, and tells what was missed. */
static int resubscribe(struct events *e, struct api_error *err)
{
	int ret = -1;

	for (unsigned i = 0; ret && i < RECONNECT_MAX; i++) {
		api_client_destroy(e->client);
		e->client = NULL;
		if (i)
			usleep(RECONNECT_MS * 1000);
		ret = subscribe(e, err);
		if (ret && err->kind != API_KIND_UNAVAILABLE)
			break;
	}
	return ret;
}

int verb_events(struct args *args)
{
	struct events e = {.args = args, .base = event_base_new(), .last = -1};
	bool follow = json_object_get_boolean(object_of(args->cli, "follow"));
	struct api_error err;
	int status = 0, ret;

	if (!e.base)
		return VM_STATUS_INTERNAL;
	ret = subscribe(&e, &err);
	while (!ret && follow) {
		event_base_dispatch(e.base);
		if (e.gone)
			ret = resubscribe(&e, &err);
	}
	if (ret)
		status = fail(args, &err);
	api_client_destroy(e.client);
	event_base_free(e.base);
	return status;
}
