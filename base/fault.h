/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Places where a crash is rehearsed: before and after each write, spawn and reply of umbrad's. */
#ifndef UMBRA_BASE_FAULT_H
#define UMBRA_BASE_FAULT_H

#include "base/types.h"

/*
 * A point a row here and in fault.c; `umbrad --fault-points` prints them. "X" is passed right
 * before X is done, "X-done" right after. They are in every build, so that what is tested is what
 * is shipped, and cost a look at one variable; only the environment at the start arms them.
 */
enum fault_point {
	FAULT_FILE_TEMP,   /* an atomic write: the new contents are in a temporary file, synced */
	FAULT_FILE_RENAME, /* … it has its name; the folder is not synced */
	FAULT_DEFINITION,
	FAULT_DEFINITION_DONE,
	FAULT_EXIT,
	FAULT_EXIT_DONE,
	FAULT_RUN, /* the record of a run, with what was asked of it */
	FAULT_RUN_DONE,
	FAULT_SOCKET,
	FAULT_SOCKET_DONE,
	FAULT_REPORT, /* the empty file for umbra-vm's report */
	FAULT_REPORT_DONE,
	FAULT_LOGS,
	FAULT_LOGS_DONE,
	FAULT_SPAWN,
	FAULT_SPAWN_DONE,
	FAULT_TELL, /* a change is asked of umbra-vm: vm.start, vm.stop */
	FAULT_TELL_DONE,
	FAULT_KILL, /* SIGKILL to umbra-vm */
	FAULT_KILL_DONE,
	FAULT_ENDED, /* umbra-vm is dead, nothing was done about it */
	FAULT_FORGET_RUN,
	FAULT_FORGET_RUN_DONE,
	FAULT_FORGET, /* the definition is removed */
	FAULT_FORGET_DONE,
	FAULT_EVENT, /* an event is written down, before it is told */
	FAULT_EVENT_DONE,
	FAULT_REPLY, /* an answer to a changing call */
	FAULT_REPLY_DONE,
	FAULT_COUNT,
};

extern const char *const fault_names[FAULT_COUNT + 1];

/*
 * Read $UMBRA_FAULT, "POINT[:N]": die of SIGKILL at the N-th (first) time that POINT is passed; and
 * $UMBRA_FAULT_LOG, a file to which each point's name is appended as it is passed. Call once at the
 * start. -EINVAL: there is no such point.
 */
int fault_setup(void);

extern bool fault_armed;
void fault_passed(enum fault_point point);

/* One thread's: umbrad's loop. */
static inline void fault_point(enum fault_point point)
{
	if (__builtin_expect(fault_armed, false))
		fault_passed(point);
}

#endif
