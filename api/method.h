/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A method is declared once, as a row; every form of the API is made from the rows. */
#ifndef UMBRA_API_METHOD_H
#define UMBRA_API_METHOD_H

#include "api/schema.h"

struct api_call;

/* API_NOBODY rows may be called by who has not said yet who it is. */
enum api_access { API_NOBODY = -1, API_READ, API_OPERATE, API_ADMIN };
extern const char *const api_access_names[API_ADMIN + 2]; /* "read", "operate", "admin", NULL */
const char *api_access_name(enum api_access access);	  /* "none" too */

/* Method flags. */
#define API_M_FD_IN  1u /* one descriptor comes with the call */
#define API_M_FD_OUT 2u /* one descriptor may go with the reply: then the result has "fds": 1 */
#define API_M_LONG   4u /* may take over 100 ms: answered later (in issue 4's terms a job) */
/*
 * About one machine, the parameter "name", and served by its umbra-vm: umbrad only finds the
 * machine, which must have a process, and passes the call and its answer on. Such rows stand in
 * api_machine_methods, their handlers in struct api_machine_ops.
 */
#define API_M_MACHINE 8u
#define API_M_OOB     16u /* served even when API_CALLS_MAX calls are in flight on the connection */

/*
 * A handler answers its call exactly once, now or later, with api_call_reply() or api_call_fail().
 * Its parameters have been checked against the row.
 */
typedef void (*api_handler)(struct api_call *call);

struct api_method {
	const char *name;    /* "machine.start" */
	const char *summary; /* one sentence, capital and stop */
	struct api_fields params;
	struct api_fields result;
	enum api_access access;
	unsigned flags;
	const char *since;
	size_t handler; /* offset of an api_handler in the table's ops struct */
};

struct api_table {
	const struct api_method *m;
	size_t n;
	const struct api_table *more; /* further rows; or NULL */
};

/* Every row: those of the tables behind @more too. NULL: there are no more than @i. */
const struct api_method *api_method_at(const struct api_table *table, size_t i);
size_t api_method_count(const struct api_table *table);

const struct api_method *api_method_find(const struct api_table *table, const char *name);
/* The method's name nearest to a mistyped one, or NULL. */
const char *api_method_nearest(const struct api_table *table, const char *name);

#endif
