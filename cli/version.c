/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl version: ours, and umbrad's where one runs. None is started for it. */
#include <stdio.h>

#include <json-c/json.h>

#include "cli/vmctl.h"

int verb_version(struct args *args)
{
	struct api_client *client = NULL;
	struct api_reply reply = {.fd = -1};
	bool runs = connect_umbrad(&client, NULL, false, NULL) == 0 &&
		    api_client_call(client, args->verb->method, NULL, 5000, &reply) == 0;

	if (args->json) {
		struct json_object *obj = json_object_new_object();

		json_object_object_add(obj, "vmctl", json_object_new_string(UMBRA_VERSION));
		json_object_object_add(obj, "umbrad", runs ? json_object_get(reply.result) : NULL);
		print_json(obj);
		json_object_put(obj);
	} else {
		puts("vmctl " UMBRA_VERSION);
		if (runs)
			printf("umbrad %s (%s mode, process %lld)\n",
			       string_of(reply.result, "version", "?"),
			       string_of(reply.result, "mode", "?"),
			       (long long)int_of(reply.result, "pid", 0));
		else
			puts("umbrad does not run");
	}
	api_reply_finish(&reply);
	api_client_destroy(client);
	return 0;
}
