/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl list: a table of all machines. */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "cli/term.h"
#include "cli/vmctl.h"

static const struct column columns[] = {
	{.title = "NAME", .shrinks = true},	{.title = "STATE", .style = style_of_state},
	{.title = "PID", .right = true},	{.title = "MEMORY", .right = true},
	{.title = "CPUS", .right = true},	{.title = "OWNER", .shrinks = true},
	{.title = "LAST END", .shrinks = true},
};

static void add_machine(struct table *t, struct json_object *m)
{
	struct json_object *def = object_of(m, "definition"), *end = object_of(m, "exit");
	const char *reason = string_of(end, "reason", "-");

	table_add(t, "%s", string_of(m, "name", "?"));
	table_add(t, "%s", string_of(m, "state", "?"));
	if (object_of(m, "pid"))
		table_add(t, "%lld", (long long)int_of(m, "pid", 0));
	else
		table_add(t, "-");
	table_add(t, "%s", string_of(def, "memory", "?"));
	table_add(t, "%lld", (long long)int_of(def, "cpus", 0));
	table_add(t, "%s", string_of(m, "owner", "-"));
	if (!strcmp(reason, "debug-exit"))
		table_add(t, "debug-exit %lld", (long long)int_of(end, "code", 0));
	else
		table_add(t, "%s", reason);
}

int verb_list(struct args *args)
{
	return call_and_list(args, "machines", columns, ARRAY_SIZE(columns), add_machine);
}
