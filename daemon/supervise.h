/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Over all machines: restart policy, autostart, the watchdog, the host's shutdown. */
#ifndef UMBRA_DAEMON_SUPERVISE_H
#define UMBRA_DAEMON_SUPERVISE_H

#include "daemon/machine.h"

struct supervise;

/* After store_load(). 0 or -ENOMEM. */
int supervise_create(struct supervise **out, struct umbrad *d);
/* NULL-safe. */
void supervise_destroy(struct supervise *s);

/* Every change of a machine's state, after it. NULL-safe. */
void supervise_state_changed(struct supervise *s, struct machine *m);
/* The machine is no more. NULL-safe. */
void supervise_gone(struct supervise *s, const struct machine *m);
/*
 * The run ended as m->exit says: decide whether another follows, and set m->restart_at, restarts
 * and restart_delay accordingly. Nothing is armed yet.
 */
void supervise_decide(struct machine *m);
/* Arm the restart that is due at m->restart_at, which is on disk. */
void supervise_arm(struct machine *m);
/* It is due now. */
void supervise_restart(struct machine *m);
/* No restart is due any more; what is on disk of it is removed. */
void supervise_cancel(struct machine *m);

/*
 * Stop all machines, highest start_order first, each group when the one before has stopped: power
 * button, then force. After @timeout seconds (0: the configuration's) all that still run are ended
 * by force. Nothing can be started until it is over. @call (NULL: none) is answered then.
 */
void supervise_stop_all(struct supervise *s, struct api_call *call, double timeout);
bool supervise_stopping(const struct supervise *s);
/* A restart is due: umbrad is not idle. */
bool supervise_waits(const struct supervise *s);

/*
 * missed.c: tell as events what the umbrad before us could not tell any more. After store_load(),
 * before anything else happens.
 */
void supervise_tell_missed(struct umbrad *d);

/* shutdown.c: ask the umbrad that runs for that, and wait for it; 0 also when there is none. */
int supervise_ask_stop_all(void);

#endif
