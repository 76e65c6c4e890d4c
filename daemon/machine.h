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

/* What was asked of a running machine; on disk before it is acted on. */
enum machine_intent {
	MACHINE_KEEP,
	MACHINE_STOP,	/* its end was asked for: no restart follows */
	MACHINE_FORGET, /* and then it is to be deleted */
};

struct machine {
	struct list link; /* in umbrad's machines */
	struct umbrad *d;
	struct machine_def def;
	bool transient;
	char *owner; /* api_caller.name of who made it; NULL: from before there were owners */
	enum machine_state state;
	struct vm_report exit; /* of the last run; has_exit */
	bool has_exit;

	/* Its run, with what RUNTIME/vm/NAME.json has of it. */
	pid_t pid;	/* 0: none that we know of */
	double started; /* seconds since 1970 */
	enum machine_intent intent;
	double force_at;       /* when a pressed power button becomes force; 0: never */
	bool automatic;	       /* started by policy: nobody waits for the answer */
	char *unit;	       /* its systemd service; or NULL */
	struct cgroup *cgroup; /* made by us; or NULL */
	/* Restarts by policy; they outlive a run. */
	unsigned restarts;    /* in a row */
	double restart_delay; /* before the last one */
	double restart_at;    /* the next is due then; 0: none */

	int pidfd;	     /* -1 with a pid of 0, and while a service is being started */
	struct event *ended; /* pidfd is readable */
	struct api_client *client;
	struct json_object *sandbox; /* as umbra-vm told; NULL: not yet */
	char engine[16];	     /* the same; "": not yet */
	char engine_why[240];
	enum vm_reason forced; /* why we ended it, when it leaves no report; else none */
	const char *killed;    /* a better reason for @forced's report; a literal */
	struct api_session *bound;
	bool abandoned; /* what it was bound to has gone: nobody will ask for its end */
	bool console;	/* machine.start is to answer with a console's descriptor: */
	int console_fd; /* or -1 */
	bool adopted;	/* found running; while "starting", its state is being asked for */
	unsigned reconnects;
	struct event *timeout, *kill, *button, *restart;
	struct event *linger; /* an ended transient machine waits for its waiter */
	/* The watchdog's, supervise.c. */
	int64_t pinged; /* when, in milliseconds; 0: no answer is awaited */
	bool hung;

	struct list waiters;
};

struct machine_new {
	struct machine_def def; /* taken, also on failure */
	bool transient;
	bool stored;	   /* it comes from the disk: there is nothing to write */
	const char *owner; /* copied; NULL: nobody's, so that admins alone see it */
};

/* The definition is on disk when this returns 0. */
int machine_create(struct machine **out, struct umbrad *d, struct machine_new *what,
		   struct api_error *err);
/* Without a process only. Removes what is on disk when @forget. */
void machine_destroy(struct machine *m, bool forget);
struct machine *machine_find(struct umbrad *d, const char *name);
const char *machine_name_at(const void *umbrad, size_t i);
struct json_object *machine_to_json(const struct machine *m);
/* The same without the definition, most of the work. */
struct json_object *machine_state_to_json(const struct machine *m);
/* One member of that; NULL: it is absent. */
struct json_object *machine_member_to_json(const struct machine *m, const char *name);

/*
 * Start the process; @call (NULL: by policy) is answered when the machine runs or has failed. 0, or
 * -errno with *err and @call untouched.
 */
int machine_start(struct machine *m, struct api_call *call, struct api_error *err);
/* End it by force for @reason, because @intent; what does not obey within seconds is killed. */
void machine_end(struct machine *m, enum vm_reason reason, enum machine_intent intent);
/* Kill it: it does not answer. @why is a literal for the report. */
void machine_kill(struct machine *m, const char *why);
/*
 * Press the power button; @force_after seconds later (0: never) end it by force. @call (NULL: none)
 * is answered when the button is pressed.
 */
void machine_powerdown(struct machine *m, struct api_call *call, double force_after);
/* Pass the call on to umbra-vm, and its answer (result, error, descriptor) back. */
void machine_forward(struct machine *m, struct api_call *call);
/* Attach a new console socket; its other end goes out with the answer. */
void machine_attach(struct machine *m, struct api_call *call);
/* Answer @call when the machine ends, or after @timeout seconds (0: never) with an error. */
void machine_wait(struct machine *m, struct api_call *call, enum waiter_kind kind, double timeout);
/* Look for a process that an earlier umbrad started, or what it left behind. */
void machine_adopt(struct machine *m);
/* units_sweep()'s is_known: the service may be a machine's, of ours or of another umbrad. */
bool machine_claims_unit(void *umbrad, const char *unit);

#endif
