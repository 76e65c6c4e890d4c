/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The methods that umbrad serves itself; those about a machine are in machine_methods.c. A row is
 * all that a new method needs besides its handler. */
#include "api/api.h"

#include <json-c/json.h>

#include "api/rows.h"

#define WAIT_MAX_S 31536000

const char *const machine_state_names[MACHINE_STATE_COUNT + 1] = {
	[MACHINE_STOPPED] = "stopped",	 [MACHINE_STARTING] = "starting",
	[MACHINE_RUNNING] = "running",	 [MACHINE_PAUSED] = "paused",
	[MACHINE_STOPPING] = "stopping", [MACHINE_STATE_COUNT] = NULL,
};

static const char *const log_names[] = {"console", "vm", NULL};

static const struct api_field one_name[] = {FIELD_NAME};

static const struct api_field create_params[] = {
	{.name = "definition",
	 .type = API_OBJECT,
	 .required = true,
	 .object = &machine_def_fields,
	 .help = "the machine's definition; without a name, one is made up"},
	{.name = "transient",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "remove the machine when it has ended"},
};

static const struct api_field start_params[] = {
	FIELD_NAME,
	{.name = "console",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "pass a socket of the console with the answer, attached before the first byte"},
	{.name = "bound",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "end the machine when this connection closes"},
};

static const struct api_field stop_params[] = {
	FIELD_NAME,
	{.name = "force",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "end it at once, instead of pressing the power button"},
	{.name = "timeout",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = WAIT_MAX_S,
	 .dflt = "0",
	 .help = "seconds after the power button after which it is ended by force; 0 is never"},
};

static const struct api_field logs_params[] = {
	FIELD_NAME,
	{.name = "log",
	 .type = API_ENUM,
	 .choices = log_names,
	 .dflt = "console",
	 .help = "the guest's console, or what umbra-vm itself has to say"},
	{.name = "offset",
	 .type = API_INT,
	 .min = 0,
	 .max = INT64_MAX,
	 .dflt = "0",
	 .help = "the first byte wanted"},
};

static const struct api_field wait_params[] = {
	FIELD_NAME,
	{.name = "timeout",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = WAIT_MAX_S,
	 .dflt = "0",
	 .help = "seconds to wait; 0 is for ever"},
};

static const struct api_field delete_params[] = {
	FIELD_NAME,
	{.name = "force",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "end the machine first when it runs"},
};

static const struct api_field subscribe_params[] = {
	{.name = "since",
	 .type = API_INT,
	 .min = 0,
	 .max = INT64_MAX,
	 .help = "replay the kept events after this number first"},
	{.name = "machine", .type = API_NAME, .help = "only this machine's events"},
};

static const struct api_field report_fields[] = {
	{.name = "reason",
	 .type = API_STRING,
	 .required = true,
	 .help = "why it ended, see vm_reason"},
	{.name = "code", .type = API_INT, .min = 0, .max = 255, .help = "isa-debug-exit's status"},
	{.name = "status", .type = API_INT, .min = 0, .max = 255, .help = "vmctl's exit status"},
	{.name = "message", .type = API_STRING, .help = "one sentence"},
	{.name = "detail",
	 .type = API_OBJECT,
	 .help = "registers and last instructions of a crash"},
	{.name = "stats", .type = API_OBJECT, .help = "the final counters"},
};
static const struct api_fields report = API_FIELDS("a machine's end", report_fields);

static const struct api_field machine_result[] = {
	{.name = "name", .type = API_NAME, .required = true, .help = "the machine"},
	{.name = "state",
	 .type = API_ENUM,
	 .choices = machine_state_names,
	 .required = true,
	 .help = "its state"},
	{.name = "transient", .type = API_BOOL, .required = true, .help = "removed at its end"},
	{.name = "pid", .type = API_INT, .min = 1, .max = INT32_MAX, .help = "its process"},
	{.name = "started",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = INT64_MAX,
	 .help = "when it was started, seconds since 1970"},
	{.name = "definition",
	 .type = API_OBJECT,
	 .object = &machine_def_fields,
	 .help = "its definition"},
	{.name = "exit", .type = API_OBJECT, .object = &report, .help = "how its last run ended"},
};

static const struct api_field list_result[] = {
	{.name = "machines",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of what machine.show gives"},
};

static const struct api_field logs_result[] = {
	{.name = "data", .type = API_STRING, .required = true, .help = "bytes, in base64"},
	{.name = "next",
	 .type = API_INT,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "the offset behind them"},
	{.name = "size",
	 .type = API_INT,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "the log's size"},
};

static const struct api_field version_result[] = {
	{.name = "version", .type = API_STRING, .required = true, .help = "of umbrad"},
	{.name = "api",
	 .type = API_INT,
	 .min = 1,
	 .max = 1,
	 .required = true,
	 .help = "of this interface"},
	{.name = "mode", .type = API_STRING, .required = true, .help = "\"user\" or \"system\""},
	{.name = "pid",
	 .type = API_INT,
	 .min = 1,
	 .max = INT32_MAX,
	 .required = true,
	 .help = "umbrad's"},
	{.name = "capabilities", .type = API_ANY, .required = true, .help = "an array of names"},
};

static const struct api_field any_result[] = {API_FIELD_ANY};

static const struct api_field subscribe_result[] = {
	{.name = "last",
	 .type = API_INT,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "the newest event's number"},
	{.name = "lost",
	 .type = API_BOOL,
	 .required = true,
	 .help = "whether events after \"since\" are no longer kept"},
};

#define HANDLER(op) .handler = offsetof(struct api_ops, op), .since = "0.1"

static const struct api_method rows[] = {
	{.name = "system.version",
	 .summary = "Tell umbrad's version and what it can do.",
	 NO_PARAMS,
	 R(version_result),
	 .access = API_READ,
	 HANDLER(system_version)},
	{.name = "rpc.discover",
	 .summary = "Describe every method, as an OpenRPC document.",
	 NO_PARAMS,
	 R(any_result),
	 .access = API_READ,
	 HANDLER(rpc_discover)},
	{.name = "machine.create",
	 .summary = "Define a machine.",
	 P(create_params),
	 R(machine_result),
	 .access = API_ADMIN,
	 HANDLER(machine_create)},
	{.name = "machine.start",
	 .summary = "Start a machine.",
	 P(start_params),
	 R(machine_result),
	 .access = API_OPERATE,
	 .flags = API_M_FD_OUT | API_M_LONG,
	 HANDLER(machine_start)},
	{.name = "machine.stop",
	 .summary = "Press a machine's power button, or end it by force.",
	 P(stop_params),
	 NO_RESULT,
	 .access = API_OPERATE,
	 .flags = API_M_LONG,
	 HANDLER(machine_stop)},
	{.name = "machine.list",
	 .summary = "List all machines.",
	 NO_PARAMS,
	 R(list_result),
	 .access = API_READ,
	 HANDLER(machine_list)},
	{.name = "machine.show",
	 .summary = "Show a machine: state, definition, last end.",
	 P(one_name),
	 R(machine_result),
	 .access = API_READ,
	 HANDLER(machine_show)},
	{.name = "machine.console",
	 .summary = "Attach to a running machine's console.",
	 P(one_name),
	 NO_RESULT,
	 .access = API_OPERATE,
	 .flags = API_M_FD_OUT,
	 HANDLER(machine_console)},
	{.name = "machine.logs",
	 .summary = "Read a machine's logs.",
	 P(logs_params),
	 R(logs_result),
	 .access = API_READ,
	 HANDLER(machine_logs)},
	{.name = "machine.wait",
	 .summary = "Wait until a machine has ended.",
	 P(wait_params),
	 R(machine_result),
	 .access = API_READ,
	 .flags = API_M_LONG,
	 HANDLER(machine_wait)},
	{.name = "machine.delete",
	 .summary = "Delete a machine, its definition and logs.",
	 P(delete_params),
	 NO_RESULT,
	 .access = API_ADMIN,
	 .flags = API_M_LONG,
	 HANDLER(machine_delete)},
	{.name = "events.subscribe",
	 .summary = "Be told of every state change, by \"event\" notifications on this connection.",
	 P(subscribe_params),
	 R(subscribe_result),
	 .access = API_READ,
	 HANDLER(events_subscribe)},
	{.name = "events.unsubscribe",
	 .summary = "Be told no more.",
	 NO_PARAMS,
	 NO_RESULT,
	 .access = API_READ,
	 HANDLER(events_unsubscribe)},
};

const struct api_table api_umbrad_methods = {
	.m = rows,
	.n = ARRAY_SIZE(rows),
	.more = &api_machine_methods,
};
