/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine's process as a transient service of systemd's, when systemd runs. */
#ifndef UMBRA_DAEMON_UNIT_H
#define UMBRA_DAEMON_UNIT_H

#include <sys/types.h>

#include "api/machine_def.h"
#include "daemon/spawn.h"

struct event_base;
struct units;

#define UNIT_PREFIX "umbra-"

/*
 * Connect to the service manager: the system's when @system, else the user's. 0, or -errno when
 * there is none that answers.
 */
int units_create(struct units **out, struct event_base *base, bool system);
/* Pending answers never come. NULL-safe. */
void units_destroy(struct units *u);

/*
 * Start service @unit ("umbra-NAME.service"), running spawn_vm()'s command with its descriptors,
 * which travel in @plan's socket to the program umbra-exec. @started is called once, never before
 * this returns 0: @ret 0 and the process, or -errno and what systemd said. -errno: it never is.
 */
typedef void (*unit_started)(void *data, int ret, pid_t pid, const char *text);
int unit_start(struct units *u, const char *unit, const struct spawn_what *what,
	       unit_started started, void *data);
/*
 * How the dead service's process ended: @status as wait(2) gives it (-1: not known) and systemd's
 * word for it ("oom-kill", "signal", …). Called once, not before this returns 0. Then the manager
 * forgets the service.
 */
typedef void (*unit_ended)(void *data, int status, const char *result);
int unit_end(struct units *u, const char *unit, unit_ended ended, void *data);
/*
 * Let the manager forget failed services "umbra-*" that a umbrad was killed before it could: those
 * that @is_known (which must outlive @u) does not claim.
 */
void units_sweep(struct units *u, bool (*is_known)(void *data, const char *unit), void *data);
/* Nobody wants answers for @data any more. NULL-safe. */
void unit_forget(struct units *u, const void *data);
/* SIGKILL to all that is in it. */
void unit_kill(struct units *u, const char *unit);

/* @data's @fn when the host is about to shut down (system manager with logind); @fn calls
 * units_let_go() when it has done what is to be done. */
void units_on_shutdown(struct units *u, void (*fn)(void *data), void *data);
void units_let_go(struct units *u);

#endif
