/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl wait: until a machine has ended, and how it did. */
#include <stdio.h>

#include "cli/vmctl.h"

int verb_wait(struct args *args)
{
	struct api_reply reply;
	int status = call_method(args, &reply);

	if (!status)
		status = tell_end(args, reply.result);
	api_reply_finish(&reply);
	return status;
}
