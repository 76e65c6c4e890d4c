/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl jobs, job show, job wait: long calls, and what became of them. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <json-c/json.h>

#include "cli/term.h"
#include "cli/vmctl.h"

static const struct column columns[] = {
	{.title = "ID", .right = true},	       {.title = "METHOD"},
	{.title = "MACHINE", .shrinks = true}, {.title = "STATE", .style = style_of_state},
	{.title = "DONE", .right = true},      {.title = "AGE", .right = true},
	{.title = "OWNER", .shrinks = true},   {.title = "WHAT", .shrinks = true},
};

static void add_job(struct table *t, struct json_object *job)
{
	struct json_object *error = object_of(job, "error");
	char age[16];

	text_of_age((double)time(NULL) - number_of(job, "started", 0), age, sizeof(age));
	table_add(t, "%lld", (long long)int_of(job, "id", 0));
	table_add(t, "%s", string_of(job, "method", "?"));
	table_add(t, "%s", string_of(job, "machine", "-"));
	table_add(t, "%s", string_of(job, "state", "?"));
	table_add(t, "%.0f%%", number_of(job, "progress", 0) * 100);
	table_add(t, "%s", age);
	table_add(t, "%s", string_of(job, "owner", "?"));
	table_add(t, "%s", error ? string_of(error, "message", "") : string_of(job, "what", ""));
}

int verb_jobs(struct args *args)
{
	return call_and_list(args, "jobs", columns, ARRAY_SIZE(columns), add_job);
}

/* The exit status is that of the call which the job is. */
static int status_of_job(struct json_object *job)
{
	struct json_object *data = object_of(object_of(job, "error"), "data");
	const char *state = string_of(job, "state", "");

	if (!strcmp(state, "running") || !strcmp(state, "done"))
		return 0;
	return status_of(api_kind_from_name(string_of(data, "kind", "internal")));
}

int verb_job_show(struct args *args)
{
	struct api_reply reply;
	int status = call_method(args, &reply);

	if (!status) {
		if (args->json)
			print_json(reply.result);
		else
			print_facts(reply.result);
		if (!strcmp(args->verb->method, "job.wait"))
			status = status_of_job(reply.result);
	}
	api_reply_finish(&reply);
	return status;
}
