/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where REST serves a row of the method table: by rule, from its name and parameters. */
#ifndef UMBRA_API_ROUTE_H
#define UMBRA_API_ROUTE_H

#include "api/http.h"
#include "api/method.h"

#define API_REST_PREFIX "/api/v1"
#define API_ROUTE_PATH	96

/*
 * "group.verb" is served under the group; a row whose first parameter is required and named "name"
 * under /machines/{name}, with its group in between when that is not "machine"; one whose first is
 * named "id" under the group's {id}. A group with a "list" has an s at its end. The verbs list,
 * show, create, delete and subscribe are the address itself: GET, GET, POST, DELETE, GET. Any other
 * verb comes behind it: GET when it only reads, else PUT.
 */
struct api_route {
	const struct api_method *method;
	enum api_http_method verb;
	char path[API_ROUTE_PATH];   /* behind API_REST_PREFIX: "/machines/{name}/mmu/walk" */
	const struct api_field *key; /* the one in braces; or NULL */
	bool creates;		     /* answered with 201 and the new one's address */
	bool streams;		     /* events.subscribe: answered with a stream of events */
};

/* 0, or -EINVAL: the name does not fit the rule. */
int api_route_make(const struct api_table *table, const struct api_method *method,
		   struct api_route *out);

#endif
