/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl show and stats: one machine, a line a fact. */
#include <stdio.h>

#include <json-c/json.h>

#include "cli/vmctl.h"

/* Objects in objects become "outer.inner: value". */
static void print_facts(struct json_object *obj, const char *prefix)
{
	json_object_object_foreach(obj, key, value)
	{
		char name[256];

		snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
		if (json_object_is_type(value, json_type_object))
			print_facts(value, name);
		else
			printf("%s: %s\n", name,
			       json_object_is_type(value, json_type_string)
				       ? json_object_get_string(value)
				       : json_object_to_json_string_ext(value,
									JSON_C_TO_STRING_PLAIN));
	}
}

int verb_show(struct args *args)
{
	struct api_reply reply;
	int status = call_method(args, &reply);

	if (!status && args->json)
		print_json(reply.result);
	else if (!status && json_object_is_type(reply.result, json_type_object))
		print_facts(reply.result, "");
	api_reply_finish(&reply);
	return status;
}

int verb_stats(struct args *args)
{
	return verb_show(args);
}
