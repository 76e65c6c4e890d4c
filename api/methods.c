/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The methods that umbrad serves itself; those about a machine are in machine_methods.c. A row is
 * all that a new method needs besides its handler. */
#include "api/api.h"

#include <json-c/json.h>

#include "api/jobs.h"
#include "api/rows.h"

#define WAIT_MAX_S 31536000

const char *const machine_state_names[MACHINE_STATE_COUNT + 1] = {
	[MACHINE_STOPPED] = "stopped",	 [MACHINE_STARTING] = "starting",
	[MACHINE_RUNNING] = "running",	 [MACHINE_PAUSED] = "paused",
	[MACHINE_STOPPING] = "stopping", [MACHINE_STATE_COUNT] = NULL,
};

static const char *const log_names[] = {"console", "vm", NULL};

static const struct api_field one_name[] = {FIELD_NAME};

#define FIELD_USAGE                                                                                \
	{                                                                                          \
		.name = "usage", .type = API_BOOL, .dflt = "false",                                \
		.help = "with the processor time and the memory that its process uses"             \
	}

#define FIELD_BRIEF                                                                                \
	{                                                                                          \
		.name = "brief", .type = API_BOOL, .dflt = "false",                                \
		.help = "without its definition"                                                   \
	}

static const struct api_field list_params[] = {FIELD_USAGE, FIELD_BRIEF};
static const struct api_field show_params[] = {FIELD_NAME, FIELD_USAGE, FIELD_BRIEF};

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
	{.name = "owner",
	 .type = API_STRING,
	 .max = 127,
	 .help = "whose it is, as system.hello names them; by default who calls"},
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
	FIELD_WAIT,
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
	FIELD_WAIT,
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
	FIELD_WAIT,
};

static const struct api_field delete_params[] = {
	FIELD_NAME,
	{.name = "force",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "end the machine first when it runs"},
	FIELD_WAIT,
};

static const struct api_field stop_all_params[] = {
	FIELD_WAIT,
	{.name = "timeout",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = WAIT_MAX_S,
	 .dflt = "0",
	 .help = "seconds that all have together before force; 0 is the configuration's"},
};

static const struct api_field stop_all_result[] = {
	{.name = "stopped",
	 .type = API_INT,
	 .min = 0,
	 .max = INT32_MAX,
	 .required = true,
	 .help = "how many machines have ended"},
};

static const struct api_field subscribe_params[] = {
	{.name = "since",
	 .type = API_INT,
	 .min = 0,
	 .max = INT64_MAX,
	 .help = "replay the kept events after this number first"},
	{.name = "machine", .type = API_NAME, .help = "only this machine's events"},
	{.name = "types",
	 .type = API_STRING,
	 .max = 256,
	 .help = "only these kinds, parted by commas: created, deleted, state, job, progress, "
		 "restart, hung"},
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
	{.name = "engine", .type = API_STRING, .help = "what ran the virtual CPUs"},
	{.name = "engine_why", .type = API_STRING, .help = "why that engine"},
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
	{.name = "owner", .type = API_STRING, .help = "who made it"},
	{.name = "pid", .type = API_INT, .min = 1, .max = INT32_MAX, .help = "its process"},
	{.name = "started",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = INT64_MAX,
	 .help = "when it was started, seconds since 1970"},
	{.name = "host",
	 .type = API_OBJECT,
	 .help = "where its process lives: unit or cgroups, and what of these is missing"},
	{.name = "usage",
	 .type = API_OBJECT,
	 .help = "when asked for: cpu_seconds and rss (bytes) of its process"},
	{.name = "hung", .type = API_BOOL, .help = "its umbra-vm does not answer in time"},
	{.name = "engine", .type = API_STRING, .help = "what runs its virtual CPUs"},
	{.name = "engine_why", .type = API_STRING, .help = "why that engine"},
	{.name = "sandbox", .type = API_OBJECT, .help = "what umbra-vm has given up"},
	{.name = "restarts",
	 .type = API_INT,
	 .min = 0,
	 .max = INT32_MAX,
	 .help = "restarts by policy in a row"},
	{.name = "restart_at",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = INT64_MAX,
	 .help = "when the next is due, seconds since 1970"},
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

static const struct api_field hello_result[] = {
	{.name = "version", .type = API_STRING, .required = true, .help = "of umbrad"},
	{.name = "api",
	 .type = API_INT,
	 .min = 1,
	 .max = 1,
	 .required = true,
	 .help = "of this interface"},
	{.name = "capabilities", .type = API_ANY, .required = true, .help = "an array of names"},
	{.name = "level",
	 .type = API_STRING,
	 .required = true,
	 .help = "the most that the caller may do: none, read, operate, admin"},
	{.name = "name", .type = API_STRING, .required = true, .help = "who the caller is"},
};

static const struct api_field token_params[] = {
	{.name = "token",
	 .type = API_STRING,
	 .max = 95,
	 .required = true,
	 .help = "as vmctl token new printed it"},
};

static const struct api_field authenticated_result[] = {
	{.name = "level",
	 .type = API_STRING,
	 .required = true,
	 .help = "the most that the connection may do now"},
	{.name = "name", .type = API_STRING, .required = true, .help = "who the caller is"},
};

static const struct api_field job_params[] = {
	{.name = "id",
	 .type = API_INT,
	 .min = 1,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "the job's number"},
};

static const struct api_field job_wait_params[] = {
	{.name = "id",
	 .type = API_INT,
	 .min = 1,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "the job's number"},
	{.name = "timeout",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = WAIT_MAX_S,
	 .dflt = "0",
	 .help = "seconds to wait; 0 is for ever"},
};

static const struct api_field job_result[] = {
	{.name = "id",
	 .type = API_INT,
	 .min = 1,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "its number"},
	{.name = "method", .type = API_STRING, .required = true, .help = "what was called"},
	{.name = "machine", .type = API_NAME, .help = "the machine that it is about"},
	{.name = "owner", .type = API_STRING, .required = true, .help = "who called"},
	{.name = "state",
	 .type = API_ENUM,
	 .choices = api_job_state_names,
	 .required = true,
	 .help = "its state"},
	{.name = "progress",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = 1,
	 .required = true,
	 .help = "how much of it is done"},
	{.name = "what", .type = API_STRING, .help = "what it is at"},
	{.name = "started",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "when it began, seconds since 1970"},
	{.name = "ended",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = INT64_MAX,
	 .help = "when it ended, seconds since 1970"},
	{.name = "result", .type = API_OBJECT, .help = "the method's result, when it is done"},
	{.name = "error",
	 .type = API_OBJECT,
	 .help = "why it failed: {code, message, data {kind, …}}"},
};
static const struct api_field job_list_result[] = {
	{.name = "jobs",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of what job.show gives, the ended ones first"},
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
	{.name = "system.hello",
	 .summary = "Greet: who is the caller to umbrad, and what may it do.",
	 NO_PARAMS,
	 R(hello_result),
	 .access = API_NOBODY,
	 .flags = API_M_OOB,
	 HANDLER(system_hello)},
	{.name = "system.authenticate",
	 .summary = "Say who the caller is by a token, for the rest of the connection.",
	 P(token_params),
	 R(authenticated_result),
	 .access = API_NOBODY,
	 HANDLER(system_authenticate)},
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
	 P(list_params),
	 R(list_result),
	 .access = API_READ,
	 HANDLER(machine_list)},
	{.name = "machine.show",
	 .summary = "Show a machine: state, definition, last end.",
	 P(show_params),
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
	{.name = "system.stop_machines",
	 .summary = "Stop all machines, those that start last first, as the host's shutdown does.",
	 P(stop_all_params),
	 R(stop_all_result),
	 .access = API_ADMIN,
	 .flags = API_M_LONG,
	 HANDLER(system_stop_machines)},
	{.name = "events.subscribe",
	 .summary = "Be told of what happens, by \"event\" notifications on this connection.",
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
	{.name = "job.list",
	 .summary = "List the jobs: those that run, and those that ended a short while ago.",
	 NO_PARAMS,
	 R(job_list_result),
	 .access = API_READ,
	 .flags = API_M_OOB,
	 HANDLER(job_list)},
	{.name = "job.show",
	 .summary = "Show a job: state, progress, result.",
	 P(job_params),
	 R(job_result),
	 .access = API_READ,
	 .flags = API_M_OOB,
	 HANDLER(job_show)},
	{.name = "job.wait",
	 .summary = "Wait until a job has ended.",
	 P(job_wait_params),
	 R(job_result),
	 .access = API_READ,
	 HANDLER(job_wait)},
	{.name = "job.cancel",
	 .summary = "Stop a job half-way.",
	 P(job_params),
	 NO_RESULT,
	 .access = API_OPERATE,
	 .flags = API_M_OOB,
	 HANDLER(job_cancel)},
};

const struct api_table api_umbrad_methods = {
	.m = rows,
	.n = ARRAY_SIZE(rows),
	.more = &api_machine_methods,
};
