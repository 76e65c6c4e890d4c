/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbrad and umbra-vm say to each other: arguments, configuration, methods, reports. */
#ifndef UMBRA_API_VM_PROTO_H
#define UMBRA_API_VM_PROTO_H

#include "api/machine_def.h"
#include "api/method.h"

/*
 * umbrad starts:
 *
 *	umbra-vm --control FD --config-fd FD --console-log FD --report FD --name NAME
 *
 * --control      a listening Unix stream socket: vm_control_create() takes it. JSON-RPC, the table
 *                below, any number of connections. umbra-vm opens nothing itself.
 * --config-fd    a file to read to its end: vm_config_read(). Paths are in it for messages only;
 *the files are open already, their descriptors' numbers in it.
 * --console-log  a file for the guest's console output: console_create() takes it.
 * --report       an empty file: vm_report_write() puts the end's report there before the process
 *                ends, so that a umbrad that was away can read it.
 *
 * --name         the machine's, so that ps shows it.
 *
 * stdin is /dev/null, stdout and stderr are the machine's log. The machine is created but does not
 * run until vm.start. At the machine's end umbra-vm: flushes the console (console_flush), writes
 *the report, tells it (vm_control_tell), flushes (vm_control_flush), exits with the report's
 *status. Alone: `umbra-vm --config FILE`: machine_def_load() and machine_files_open(), console on
 *stdio, starts at once, exits with vm_report_status().
 */

enum vm_state {
	VM_CREATED,
	VM_RUNNING,
	VM_PAUSED,
	VM_STOPPING, /* the power button was pressed */
	VM_ENDED,
	VM_STATE_COUNT,
};

/* Why a machine ended. Frozen names; append only. */
enum vm_reason {
	VM_REASON_NONE,
	VM_REASON_POWEROFF,   /* the guest powered off */
	VM_REASON_RESET,      /* the guest asked for a reset, and on_reset is "end" */
	VM_REASON_CRASH,      /* triple fault */
	VM_REASON_HALTED,     /* every vCPU halted with interrupts off: nothing can wake it */
	VM_REASON_DEBUG_EXIT, /* isa-debug-exit; @code is the status, (value << 1) | 1 */
	VM_REASON_TIMEOUT,    /* the definition's timeout */
	VM_REASON_STOPPED,    /* ended by force on request */
	VM_REASON_BAD_IMAGE,  /* it could not be loaded; @message says why */
	VM_REASON_ENGINE,     /* the engine or umbra-vm failed */
	VM_REASON_COUNT,
};

extern const char *const vm_state_names[VM_STATE_COUNT + 1];
extern const char *const vm_reason_names[VM_REASON_COUNT + 1];

/*
 * What vm.query answers, vm.state tells, and the report file holds. @detail and @stats are owned
 * references or NULL: detail {"vcpu": n, "registers": {"rip": "0x…", …}, "instructions": ["text",
 * …]} with the last instruction last; stats is what the stats op makes.
 */
struct vm_report {
	enum vm_state state;
	enum vm_reason reason; /* when ended */
	int code;	       /* debug-exit: the process status; else 0 */
	char message[256];     /* one sentence, or "" */
	char engine[16];       /* what runs, or ran, the vCPUs; "": none was chosen yet */
	char engine_why[240];  /* why that one */
	struct json_object *detail;
	struct json_object *stats;
};

void vm_report_finish(struct vm_report *report);
struct json_object *vm_report_to_json(const struct vm_report *report);
/* -EINVAL when it is no report. */
int vm_report_from_json(struct vm_report *report, struct json_object *obj);
/* Replace the file's contents. */
int vm_report_write(int fd, const struct vm_report *report);
/* The exit status of `vmctl run` and of umbra-vm; see the list in vmctl(1). */
int vm_report_status(const struct vm_report *report);

/* The exit statuses that are no reason's. */
#define VM_STATUS_USAGE	      64
#define VM_STATUS_BAD_IMAGE   65
#define VM_STATUS_UNAVAILABLE 69
#define VM_STATUS_STOPPED     122
#define VM_STATUS_HALTED      123
#define VM_STATUS_TIMEOUT     124
#define VM_STATUS_CRASH	      125
#define VM_STATUS_RESET	      126
#define VM_STATUS_INTERNAL    127

/* The configuration as --config-fd carries it: {"definition": {…}, "files": {"kernel": 5, …}}. */
struct vm_config {
	struct machine_def def;
	struct machine_files files;
};

void vm_config_finish(struct vm_config *config);
int vm_config_read(struct vm_config *config, int fd, struct api_error *err);
struct json_object *vm_config_to_json(const struct machine_def *def,
				      const struct machine_files *files);

/*
 * The methods, as vm_control.c serves them:
 *	vm.start {}
 *	vm.stop {force, reason}              force: ends with @reason ("stopped" or "timeout")
 *	vm.query {}                          -> {state, reason, code, message, pid, name, …}
 *	vm.attach_console {} + descriptor    a stream socket or pty
 *	vm.ping {}                           answers when the loop turns: umbrad's watchdog
 *	vm.quit {}                           ends the process, running or not, with "stopped"
 * and api_machine_methods, as a client of umbrad calls them: umbrad passes those on as they are.
 * Notification to every connection: vm.state, with a vm_report as parameters.
 */
extern const struct api_table vm_methods;

#endif
