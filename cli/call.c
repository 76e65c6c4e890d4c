/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verbs that are one call without an answer to show: start, stop, pause, resume, reset, delete.
 */
#include <stdio.h>

#include "cli/vmctl.h"

int verb_call(struct args *args)
{
	struct api_reply reply;
	int status = call_method(args, &reply);

	if (!status && args->json)
		print_json(reply.result);
	api_reply_finish(&reply);
	return status;
}
