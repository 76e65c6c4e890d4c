/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl list: a table of all machines. */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "cli/vmctl.h"

static void print_row(struct json_object *m, int width)
{
	struct json_object *def = object_of(m, "definition"), *end = object_of(m, "exit");
	const char *reason = string_of(end, "reason", "-");
	char pid[16] = "-", last[48];

	if (object_of(m, "pid"))
		snprintf(pid, sizeof(pid), "%lld", (long long)int_of(m, "pid", 0));
	if (!strcmp(reason, "debug-exit"))
		snprintf(last, sizeof(last), "debug-exit %lld", (long long)int_of(end, "code", 0));
	else
		snprintf(last, sizeof(last), "%s", reason);
	printf("%-*s  %-8s  %7s  %6s  %4lld  %s\n", width, string_of(m, "name", "?"),
	       string_of(m, "state", "?"), pid, string_of(def, "memory", "?"),
	       (long long)int_of(def, "cpus", 0), last);
}

int verb_list(struct args *args)
{
	struct api_reply reply;
	int status = call_method(args, &reply), width = 4;
	struct json_object *all;
	size_t n;

	if (status)
		goto out;
	all = object_of(reply.result, "machines");
	if (args->json) {
		print_json(all);
		goto out;
	}
	n = json_object_is_type(all, json_type_array) ? json_object_array_length(all) : 0;
	for (size_t i = 0; i < n; i++)
		width = MAX(width,
			    (int)strlen(string_of(json_object_array_get_idx(all, i), "name", "")));
	printf("%-*s  %-8s  %7s  %6s  %4s  %s\n", width, "NAME", "STATE", "PID", "MEMORY", "CPUS",
	       "LAST END");
	for (size_t i = 0; i < n; i++)
		print_row(json_object_array_get_idx(all, i), width);
out:
	api_reply_finish(&reply);
	return status;
}
