/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verbs that are one call without an answer to show: start, stop, pause, delete, …; and any
 * call by the name of its method. */
#include <stdio.h>

#include <json-c/json.h>

#include "cli/vmctl.h"

/* Whether the answer is a job, which goes on. */
static bool is_job(const struct args *args)
{
	struct json_object *wait = object_of(args->params, "wait");

	return wait && !json_object_get_boolean(wait);
}

int verb_call(struct args *args)
{
	struct api_reply reply;
	int status = call_method(args, &reply);

	if (!status && args->json)
		print_json(reply.result);
	else if (!status && is_job(args))
		printf("job %lld\n", (long long)int_of(reply.result, "id", 0));
	api_reply_finish(&reply);
	return status;
}

int verb_stop_all(struct args *args)
{
	struct api_reply reply;
	int status = call_method(args, &reply);

	if (!status && args->json)
		print_json(reply.result);
	else if (!status && is_job(args))
		printf("job %lld\n", (long long)int_of(reply.result, "id", 0));
	else if (!status)
		printf("%lld stopped\n", (long long)int_of(reply.result, "stopped", 0));
	api_reply_finish(&reply);
	return status;
}

/* The words of "vmctl call". 0, or -errno with *err. */
static int parse_call(struct args *args, struct json_object **params, struct api_error *err)
{
	const char *text = args->n_words > 1 ? args->words[1] : "{}", *near;

	if (!api_method_find(&api_umbrad_methods, args->words[0])) {
		near = api_method_nearest(&api_umbrad_methods, args->words[0]);
		return api_error_set(err, API_KIND_METHOD_NOT_FOUND,
				     "there is no method \"%.64s\"%s%s%s", args->words[0],
				     near ? "; did you mean \"" : "", near ? near : "",
				     near ? "\"?" : "");
	}
	*params = json_tokener_parse(text);
	if (json_object_is_type(*params, json_type_object))
		return 0;
	json_object_put(*params);
	return api_error_set(err, API_KIND_INVALID_PARAMS,
			     "the parameters are no JSON object: %.200s", text);
}

int verb_call_any(struct args *args)
{
	struct json_object *params = NULL;
	struct api_client *client;
	struct api_reply reply = {.fd = -1};
	struct api_error err;
	int status = 0;

	if (parse_call(args, &params, &err))
		return fail(args, &err);
	if (connect_umbrad(&client, NULL, true, &err)) {
		json_object_put(params);
		return fail(args, &err);
	}
	if (api_client_call(client, args->words[0], params, 0, &reply))
		status = fail(args, &reply.err);
	else
		print_json(reply.result);
	api_reply_finish(&reply);
	api_client_destroy(client);
	return status;
}
