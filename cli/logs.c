/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl logs: a machine's console or process log, byte for byte. */
#include <stdio.h>
#include <stdlib.h>

#include <json-c/json.h>

#include "api/base64.h"
#include "base/cleanup.h"
#include "cli/vmctl.h"

/* Write one piece; returns where the next begins, or -1 at the end. */
static int64_t print_piece(struct json_object *result, int64_t offset)
{
	size_t len = 0;
	_cleanup_free_ void *data = base64_decode(string_of(result, "data", ""), &len);
	int64_t next = int_of(result, "next", offset);

	if (data && fwrite(data, 1, len, stdout) != len)
		return -1;
	return data && len && next < int_of(result, "size", 0) ? next : -1;
}

int verb_logs(struct args *args)
{
	struct api_client *client;
	struct api_reply reply;
	struct api_error err;
	int64_t offset = 0;
	int status = 0;

	if (connect_umbrad(&client, NULL, true, &err))
		return fail(args, &err);
	while (!status && offset >= 0) {
		json_object_object_add(args->params, "offset", json_object_new_int64(offset));
		if (api_client_call(client, args->verb->method, json_object_get(args->params), 0,
				    &reply))
			status = fail(args, &reply.err);
		else if (args->json)
			print_json(reply.result);
		if (!status)
			offset = args->json ? -1 : print_piece(reply.result, offset);
		api_reply_finish(&reply);
	}
	api_client_destroy(client);
	return status;
}
