/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Short words for the rows of a method table. Included by the files that hold one, after all else.
 */
#ifndef UMBRA_API_ROWS_H
#define UMBRA_API_ROWS_H

#include "api/method.h"

#define P(array)  .params = API_FIELDS("the parameters", array)
#define R(array)  .result = API_FIELDS("the result", array)
#define NO_PARAMS .params = {.what = "the parameters"}
#define NO_RESULT .result = {.what = "the result"}

#define FIELD_NAME                                                                                 \
	{                                                                                          \
		.name = "name", .type = API_NAME, .required = true, .help = "the machine"          \
	}
/* Of every API_M_LONG row: such calls are jobs. */
#define FIELD_WAIT                                                                                 \
	{                                                                                          \
		.name = "wait", .type = API_BOOL,                                                  \
		.help = "answer at the end, instead of with the job at once; by default "          \
			"true over JSON-RPC, false over REST and D-Bus"                            \
	}
/* In a result: members that no field names. */
#define API_FIELD_ANY                                                                              \
	{                                                                                          \
		.name = "*", .type = API_ANY, .help = "see the method's summary"                   \
	}

#endif
