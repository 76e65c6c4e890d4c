/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What machine.c, life.c and supervise.c share. */
#ifndef UMBRA_DAEMON_MACHINE_INTERNAL_H
#define UMBRA_DAEMON_MACHINE_INTERNAL_H

#include "api/client.h"
#include "daemon/machine.h"

struct event;

#define MACHINE_CALL_MS 10000 /* umbra-vm answers at once, or something is wrong with it */

/* Seconds since 1970. */
double machine_now(void);
void machine_arm(struct event *timer, double seconds);
void machine_free_event(struct event **ev);

/* machine.c */
void machine_set_state(struct machine *m, enum machine_state state);
/* It was found so: nothing has happened that is to be told. */
void machine_assume_state(struct machine *m, enum machine_state state);
/* Tell the state again, as an event: a umbrad that was away could not. */
void machine_emit_state(struct machine *m);
void machine_emit(struct machine *m, const char *type, struct json_object *more);
/* The machine has ended; whether a call was still there that wanted to know. */
bool machine_answer_waiters(struct machine *m);
/* The call that waits for the start to be done, or NULL; it is the caller's to answer. */
struct api_call *machine_take_start(struct machine *m);
void machine_answer_error(struct machine *m, struct api_call *call, enum api_kind kind,
			  const char *text);
/* A socket pair: one end goes to umbra-vm's console, the other is returned. -errno: no @answer
 * comes. */
int machine_pass_console(struct machine *m, api_answer answer, void *data);

/* life.c */
/* The run record on disk says what @m says. */
int machine_save_run(struct machine *m);
/* An answer that nobody waits for. */
void machine_ignore_answer(void *data, struct json_object *result, int fd,
			   const struct api_error *err);

#endif
