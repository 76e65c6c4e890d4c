/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl show and stats: one machine, a line a fact. */
#include <stdio.h>

#include <json-c/json.h>

#include "cli/vmctl.h"

#define SHOW_MS 2000

/* Objects in objects become "outer.inner: value". */
static void print_under(struct json_object *obj, const char *prefix)
{
	json_object_object_foreach(obj, key, value)
	{
		char name[256];

		snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
		if (json_object_is_type(value, json_type_object))
			print_under(value, name);
		else
			printf("%s: %s\n", name,
			       json_object_is_type(value, json_type_string)
				       ? json_object_get_string(value)
				       : json_object_to_json_string_ext(
						 value, JSON_C_TO_STRING_PLAIN |
								JSON_C_TO_STRING_NOSLASHESCAPE));
	}
}

void print_facts(struct json_object *obj)
{
	if (json_object_is_type(obj, json_type_object))
		print_under(obj, "");
}

/*
 * Whether a debugger holds it, which only its own process knows. One that does not answer is shown
 * without.
 */
static void add_debugger(struct args *args, struct json_object *machine)
{
	struct json_object *params, *v;
	struct api_client *client;
	struct api_reply reply;
	struct api_error err;

	if (!object_of(machine, "pid") || connect_umbrad(&client, NULL, false, &err))
		return;
	params = json_object_new_object();
	json_object_object_add(params, "name", json_object_get(object_of(args->params, "name")));
	if (!api_client_call(client, "machine.stats", params, SHOW_MS, &reply)) {
		v = object_of(reply.result, "debugger");
		if (v)
			json_object_object_add(machine, "debugger", json_object_get(v));
	}
	api_reply_finish(&reply);
	api_client_destroy(client);
}

int verb_show(struct args *args)
{
	struct api_reply reply;
	int status = call_method(args, &reply);

	if (!status)
		add_debugger(args, reply.result);
	if (!status && args->json)
		print_json(reply.result);
	else if (!status)
		print_facts(reply.result);
	api_reply_finish(&reply);
	return status;
}

int verb_stats(struct args *args)
{
	return call_and_show(args, print_facts);
}
