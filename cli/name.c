/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine by the beginning of its name, where no other's begins so. */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "base/buf.h"
#include "cli/vmctl.h"

#define TOLD_MAX 8

/* The names that begin with @text: how many, the first few in @told. */
static size_t find_candidates(struct json_object *all, const char *text, struct buf *told,
			      const char **first)
{
	size_t n = json_object_is_type(all, json_type_array) ? json_object_array_length(all) : 0;
	size_t found = 0;

	for (size_t i = 0; i < n; i++) {
		const char *name = string_of(json_object_array_get_idx(all, i), "name", "");

		if (strncmp(name, text, strlen(text)) != 0)
			continue;
		if (!found++)
			*first = name;
		if (found <= TOLD_MAX)
			buf_printf(told, "%s%s", found > 1 ? ", " : "", name);
	}
	if (found > TOLD_MAX)
		buf_printf(told, ", …");
	return found;
}

/* There is no machine @text. 0: @name is the one meant; or -errno with *err. */
static int choose(struct args *args, struct json_object *all, const char *text,
		  struct api_error *err)
{
	struct buf told = {0};
	const char *first = NULL;
	size_t n = find_candidates(all, text, &told, &first);
	int ret = 0;

	if (n > 1)
		ret = api_error_set(err, API_KIND_NOT_FOUND,
				    "there is no machine \"%s\"; these begin so: %s", text,
				    told.data ? told.data : "");
	else if (n && !strcmp(args->verb->name, "delete"))
		ret = api_error_set(err, API_KIND_NOT_FOUND,
				    "there is no machine \"%s\"; delete wants the whole name: "
				    "\"%s\"?",
				    text, first);
	else if (n)
		json_object_object_add(args->params, "name", json_object_new_string(first));
	if (ret)
		snprintf(err->machine, sizeof(err->machine), "%s", text);
	buf_finish(&told);
	return ret;
}

/*
 * The daemon is asked, since only it knows what there is. What fails here in any other way fails
 * again, and is told, when the verb itself calls.
 */
int complete_name(struct args *args)
{
	const char *text = string_of(args->params, "name", NULL);
	struct json_object *params;
	struct api_client *client;
	struct api_reply reply;
	struct api_error err;
	int status = 0;

	if (!text || !args->verb->operand || strncmp(args->verb->operand, "NAME", 4) != 0 ||
	    connect_umbrad(&client, NULL, true, &err))
		return 0;
	params = json_object_new_object();
	json_object_object_add(params, "name", json_object_new_string(text));
	if (api_client_call(client, "machine.show", params, 0, &reply) &&
	    reply.err.kind == API_KIND_NOT_FOUND) {
		api_reply_finish(&reply);
		if (!api_client_call(client, "machine.list", NULL, 0, &reply) &&
		    choose(args, object_of(reply.result, "machines"), text, &err))
			status = fail(args, &err);
	}
	api_reply_finish(&reply);
	connect_keep(client); /* the verb's own call comes next */
	return status;
}
