/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One machine as umbrad sees it: definition, process, state, and who waits for what. */
#ifndef UMBRA_DAEMON_MACHINE_H
#define UMBRA_DAEMON_MACHINE_H

#include <sys/types.h>

#include "api/vm_proto.h"
#include "daemon/umbrad.h"

struct api_client;

/* What a call waits for; all are answered at the machine's end at the latest. */
enum waiter_kind { WAIT_START, WAIT_END, WAIT_STOP, WAIT_DELETE };

struct machine {
	struct list link; /* in umbrad's machines */
	struct umbrad *d;
	struct machine_def def;
	bool transient;
	enum machine_state state;
	struct vm_report exit; /* of the last run; has_exit */
	bool has_exit;
	/* While it has a process: */
	pid_t pid;
	int pidfd;
	struct event *ended; /* pidfd is readable */
	struct api_client *client;
	double started;	       /* seconds since 1970 */
	enum vm_reason forced; /* why we ended it, when it leaves no report; else none */
	struct api_session *bound;
	bool abandoned; /* what it was bound to has gone: nobody will ask for its end */
	unsigned reconnects;
	int console_fd; /* goes out with the answer of machine.start; or -1 */
	struct event *timeout, *kill, *button;
	struct event *linger; /* an ended transient machine waits for its waiter */
	struct list waiters;
};

/* @def is taken (finished on failure too). The definition is on disk when this returns 0. */
int machine_create(struct machine **out, struct umbrad *d, struct machine_def *def, bool transient,
		   struct api_error *err);
/* Without a process only. Removes what is on disk when @forget. */
void machine_destroy(struct machine *m, bool forget);
struct machine *machine_find(struct umbrad *d, const char *name);
const char *machine_name_at(const void *umbrad, size_t i);
struct json_object *machine_to_json(const struct machine *m);

/* Start the process; @call is answered when the machine runs or has failed. 0, or -errno with *err
 * and @call untouched. */
int machine_start(struct machine *m, struct api_call *call, struct api_error *err);
/* End it by force for @reason; what does not obey within seconds is killed. */
void machine_end(struct machine *m, enum vm_reason reason);
/* Press the power button; @force_after seconds later (0: never) end it by force. */
void machine_powerdown(struct machine *m, struct api_call *call, double force_after);
/* Pass the call on to umbra-vm, and its answer (result, error, descriptor) back. */
void machine_forward(struct machine *m, struct api_call *call);
/* Attach a new console socket; its other end goes out with the answer. */
void machine_attach(struct machine *m, struct api_call *call);
/* Answer @call when the machine ends, or after @timeout seconds (0: never) with an error. */
void machine_wait(struct machine *m, struct api_call *call, enum waiter_kind kind, double timeout);
/* Look for a process that an earlier umbrad started, or what it left behind. */
void machine_adopt(struct machine *m);

#endif
