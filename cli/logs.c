/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl logs: a machine's console or process log, byte for byte. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <json-c/json.h>

#include "api/base64.h"
#include "base/cleanup.h"
#include "cli/vmctl.h"

#define LOOK_MS 200 /* between two looks at a log that is followed */

static const struct api_field fields[] = {
	{.name = "follow",
	 .type = API_BOOL,
	 .help = "go on with what comes, until the machine has ended"},
};
const struct api_fields logs_options = API_FIELDS("the options", fields);

struct logs {
	struct args *args;
	struct api_client *client;
	int64_t offset;
	bool failed; /* stdout */
};

/* One piece more. 0, with how many bytes it had; or the exit status, told. */
static int print_piece(struct logs *l, size_t *len)
{
	_cleanup_free_ void *data = NULL;
	struct api_reply reply;
	int status = 0;

	*len = 0;
	json_object_object_add(l->args->params, "offset", json_object_new_int64(l->offset));
	if (api_client_call(l->client, l->args->verb->method, json_object_get(l->args->params), 0,
			    &reply)) {
		status = fail(l->args, &reply.err);
	} else if (l->args->json) {
		print_json(reply.result);
	} else {
		data = base64_decode(string_of(reply.result, "data", ""), len);
		if (data && fwrite(data, 1, *len, stdout) != *len)
			l->failed = true;
		l->offset = int_of(reply.result, "next", l->offset);
		/* It has begun anew: with the machine's next start, or it was cut. */
		if (l->offset > int_of(reply.result, "size", 0))
			l->offset = 0;
		if (!data)
			*len = 0;
	}
	api_reply_finish(&reply);
	return status;
}

/* Whether its process may still write. */
static bool lives(struct logs *l)
{
	struct json_object *params = json_object_new_object();
	struct api_reply reply;
	bool ret;

	json_object_object_add(params, "name", json_object_get(object_of(l->args->params, "name")));
	ret = api_client_call(l->client, "machine.show", params, 0, &reply) == 0 &&
	      strcmp(string_of(reply.result, "state", "stopped"), "stopped") != 0;
	api_reply_finish(&reply);
	return ret;
}

static int print_log(struct logs *l)
{
	static const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000};
	bool follow = json_object_get_boolean(object_of(l->args->cli, "follow"));
	bool last = !follow;
	size_t len;
	int status;

	do {
		status = print_piece(l, &len);
		if (l->args->json || len || status || l->failed)
			continue;
		if (last)
			break;
		fflush(stdout);
		/* What it wrote before its end is looked for after it. */
		last = !lives(l);
		if (!last)
			nanosleep(&pause, NULL);
	} while (!status && !l->failed && !l->args->json);
	return l->failed ? VM_STATUS_INTERNAL : status;
}

int verb_logs(struct args *args)
{
	struct logs l = {.args = args};
	struct api_error err;
	int status;

	if (connect_umbrad(&l.client, NULL, true, &err))
		return fail(args, &err);
	status = print_log(&l);
	api_client_destroy(l.client);
	return status;
}
