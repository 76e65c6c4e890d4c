/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The face of api/: umbrad's methods, as the one table that every form of the API is made from. */
#ifndef UMBRA_API_API_H
#define UMBRA_API_API_H

#include "api/error.h"
#include "api/machine_def.h"
#include "api/method.h"
#include "api/server.h"

/* What umbrad fills: one handler a method. The rows in api/methods.c name the members by offset. */
struct api_ops {
	api_handler system_version;
	api_handler system_hello;
	api_handler system_authenticate;
	api_handler rpc_discover;
	api_handler machine_create;
	api_handler machine_start;
	api_handler machine_stop;
	api_handler machine_list;
	api_handler machine_show;
	api_handler machine_console;
	api_handler machine_logs;
	api_handler machine_wait;
	api_handler machine_delete;
	api_handler system_stop_machines;
	api_handler events_subscribe;
	api_handler events_unsubscribe;
	api_handler job_list;
	api_handler job_show;
	api_handler job_wait;
	api_handler job_cancel;
};

extern const struct api_table api_umbrad_methods;
/* The API_M_MACHINE rows, at the end of both umbrad's and umbra-vm's table. */
extern const struct api_table api_machine_methods;
extern const struct api_table api_dirty_methods; /* behind those */

/* A machine's states as umbrad tells them. */
enum machine_state {
	MACHINE_STOPPED,
	MACHINE_STARTING,
	MACHINE_RUNNING,
	MACHINE_PAUSED,
	MACHINE_STOPPING,
	MACHINE_STATE_COUNT,
};
extern const char *const machine_state_names[MACHINE_STATE_COUNT + 1];

/* An OpenRPC document of @table; NULL: no memory. */
struct json_object *api_openrpc(const struct api_table *table, const char *title);
/* An OpenAPI 3.1 document of what REST serves; NULL: no memory. */
struct json_object *api_openapi(const struct api_table *table, const char *title);

#endif
