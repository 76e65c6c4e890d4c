/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Over all machines: restart policy, autostart, the watchdog, the host's shutdown. */
#include "daemon/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/conn.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "daemon/journal.h"
#include "daemon/machine_internal.h"
#include "daemon/store.h"
#include "daemon/unit.h"

/* In RUNTIME, so that the host's next start finds none: autostart was carried out. */
#define AUTOSTARTED "autostarted"

struct supervise {
	struct umbrad *d;
	struct event *watch; /* while a machine runs */
	int64_t looked_ms;   /* when the watchdog last looked */

	/* Autostart: one after another, in order; the one that is being started. */
	const struct machine *starting;
	struct event *begin;

	/* Everything is being stopped. */
	bool stopping;
	int64_t order;	       /* of the machines whose turn it is */
	double until;	       /* then force */
	int64_t stopped;       /* how many have */
	struct api_call *call; /* NULL: nobody waits, or who waited has gone */
	struct event *deadline;
};

/* ---- restart policy ---- */

static bool is_failure(const struct vm_report *exit)
{
	switch (exit->reason) {
	case VM_REASON_CRASH:
	case VM_REASON_HALTED:
	case VM_REASON_ENGINE: return true;
	default: return false;
	}
}

void supervise_decide(struct machine *m)
{
	const struct config_machines *c = &m->d->config.machines;
	bool again;

	m->restart_at = 0;
	/* What was asked for, or cannot be otherwise the next time, is no reason. */
	again = m->intent == MACHINE_KEEP && m->exit.reason != VM_REASON_BAD_IMAGE &&
		!m->abandoned && !supervise_stopping(m->d->supervise) &&
		(m->def.restart == MACHINE_RESTART_ALWAYS ||
		 (m->def.restart == MACHINE_RESTART_ON_FAILURE && is_failure(&m->exit)));
	if (!again) {
		m->restarts = 0;
		m->restart_delay = 0;
		return;
	}
	if (machine_now() - m->started >= c->restart_reset) {
		m->restarts = 0;
		m->restart_delay = 0;
	}
	m->restart_delay = m->restart_delay > 0 ? MIN(m->restart_delay * 2, c->restart_delay_max)
						: c->restart_delay;
	m->restarts++;
	m->restart_at = machine_now() + m->restart_delay;
}

void supervise_arm(struct machine *m)
{
	double left = MAX(m->restart_at - machine_now(), 0.0);
	struct json_object *more = json_object_new_object();

	/* A clock that was set back must not make it wait for years. */
	machine_arm(m->restart, MIN(left, m->d->config.machines.restart_delay_max));
	json_object_object_add(more, "at", json_object_new_double(m->restart_at));
	json_object_object_add(more, "delay", json_object_new_double(m->restart_delay));
	json_object_object_add(more, "restarts", json_object_new_int((int)m->restarts));
	machine_emit(m, "restart", more);
}

void supervise_cancel(struct machine *m)
{
	if (m->restart_at <= 0)
		return;
	m->restart_at = 0;
	m->restarts = 0;
	m->restart_delay = 0;
	evtimer_del(m->restart);
	store_remove_run(m, false);
}

/* By policy: nobody waits for an answer, so the journal gets it. */
static int start(struct machine *m)
{
	struct api_error err = {0};
	int ret = machine_start(m, NULL, &err);

	if (ret)
		log_warn("machine \"%s\" could not be started: %s", m->def.name, err.text);
	return ret;
}

void supervise_restart(struct machine *m)
{
	if (m->state != MACHINE_STOPPED || supervise_stopping(m->d->supervise))
		return;
	journal_write(
		&(struct journal_entry){.event = JOURNAL_MACHINE_RESTARTED, .machine = m->def.name},
		"machine \"%s\" is started again by its restart policy, the %u. time in a row",
		m->def.name, m->restarts);
	if (!start(m))
		return;
	/* The next try comes as if it had run and failed. */
	vm_report_finish(&m->exit);
	m->exit = (struct vm_report){
		.state = VM_ENDED,
		.reason = VM_REASON_ENGINE,
		.message = "it could not be started again; see umbrad's log",
	};
	m->has_exit = true;
	supervise_decide(m);
	if (m->restart_at > 0) {
		machine_save_run(m);
		supervise_arm(m);
	}
}

/* ---- autostart ---- */

static bool autostarted(const struct supervise *s)
{
	return faccessat(s->d->run_fd, AUTOSTARTED, F_OK, 0) == 0;
}

/* Earlier of two by order, then by name. */
static bool earlier(const struct machine *a, const struct machine *b)
{
	if (a->def.start_order != b->def.start_order)
		return a->def.start_order < b->def.start_order;
	return strcmp(a->def.name, b->def.name) < 0;
}

/* The first machine behind @after (NULL: of all) that is to be started. */
static struct machine *next_to_start(const struct supervise *s, const struct machine *after)
{
	struct machine *best = NULL, *m;

	list_for_each_entry (m, &s->d->machines, link)
		if (m->def.autostart && m->state == MACHINE_STOPPED && m->restart_at <= 0 &&
		    (!after || earlier(after, m)) && (!best || earlier(m, best)))
			best = m;
	return best;
}

/* Go on behind @after. A machine that cannot be started holds up nobody. */
static void autostart(struct supervise *s, const struct machine *after)
{
	struct machine *m;

	s->starting = NULL;
	if (s->stopping)
		return;
	while ((m = next_to_start(s, after))) {
		s->starting = m;
		if (!start(m))
			return;
		s->starting = NULL;
		after = m;
	}
	if (fd_write_file_atomic(s->d->run_fd, AUTOSTARTED, "", 0, 0600))
		log_warn("that machines were started could not be noted: it may happen twice");
}

static void on_begin(evutil_socket_t fd, short what, void *arg)
{
	struct supervise *s = arg;

	if (!autostarted(s))
		autostart(s, NULL);
}

/* ---- the watchdog ---- */

static double watchdog_s(const struct supervise *s)
{
	return s->d->config.machines.watchdog;
}

/* Look often enough that a hang is told within twice the time that is allowed. */
static void arm_watch(struct supervise *s)
{
	double every = MIN(MAX(watchdog_s(s) / 3, 0.02), 5.0);

	if (watchdog_s(s) > 0 && s->d->n_running)
		machine_arm(s->watch, every);
}

static void tell_hung(struct machine *m, bool hung)
{
	struct json_object *more = json_object_new_object();

	m->hung = hung;
	json_object_object_add(more, "hung", json_object_new_boolean(hung));
	machine_emit(m, "hung", more);
	if (hung)
		journal_write(&(struct journal_entry){.event = JOURNAL_MACHINE_HUNG,
						      .level = LOG_LEVEL_WARNING,
						      .machine = m->def.name},
			      "umbra-vm %d of \"%s\" has not answered for %g s", m->pid,
			      m->def.name, m->d->config.machines.watchdog);
	else
		log_info("umbra-vm %d of \"%s\" answers again", m->pid, m->def.name);
}

static void on_pong(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	struct machine *m = data;

	cleanup_close(&fd);
	m->pinged = 0;
	if (m->hung && !err)
		tell_hung(m, false);
}

/* Not while it loads its guest, which may take its time. */
static bool is_watched(const struct machine *m)
{
	return m->client && m->pidfd >= 0 && m->state != MACHINE_STOPPED &&
	       (m->state != MACHINE_STARTING || m->adopted);
}

static void look_at(struct supervise *s, struct machine *m, int64_t now)
{
	if (!m->pinged) {
		/* It has no timeout: whoever wakes up after hours has something to say. */
		if (!api_client_send(m->client, "vm.ping", NULL, -1, 0, on_pong, m))
			m->pinged = now;
		return;
	}
	if (m->hung || (double)(now - m->pinged) < watchdog_s(s) * 1000)
		return;
	tell_hung(m, true);
	if (m->def.on_hang == MACHINE_HANG_KILL)
		machine_kill(m, "umbra-vm did not answer in time and was killed");
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
	struct supervise *s = arg;
	int64_t now = api_now_ms(), late = now - s->looked_ms;
	int64_t grace = (int64_t)(watchdog_s(s) * 500);
	struct machine *m, *tmp;

	list_for_each_entry_safe (m, tmp, &s->d->machines, link) {
		if (!is_watched(m))
			continue;
		/* While we stood still ourselves, nobody could be heard. */
		if (m->pinged && s->looked_ms && late > grace)
			m->pinged = now;
		look_at(s, m, now);
	}
	s->looked_ms = now;
	arm_watch(s);
}

/* ---- the host's shutdown ---- */

bool supervise_stopping(const struct supervise *s)
{
	return s && s->stopping;
}

static void stopped_all(struct supervise *s)
{
	struct api_call *call = TAKE_PTR(s->call);
	struct json_object *obj;

	s->stopping = false;
	evtimer_del(s->deadline);
	log_info("all machines are stopped, %lld of them just now", (long long)s->stopped);
	if (s->d->units)
		units_let_go(s->d->units);
	if (!call)
		return;
	obj = json_object_new_object();
	json_object_object_add(obj, "stopped", json_object_new_int64(s->stopped));
	api_call_on_gone(call, NULL, NULL);
	api_call_reply(call, obj, -1);
}

/* Press the buttons of those whose turn it is; when all of them have stopped, the next ones'. */
static void stop_next(struct supervise *s)
{
	struct machine *m;
	bool any = false;

	list_for_each_entry (m, &s->d->machines, link)
		if (m->state != MACHINE_STOPPED) {
			s->order = any ? MAX(s->order, m->def.start_order) : m->def.start_order;
			any = true;
		}
	if (!any) {
		stopped_all(s);
		return;
	}
	list_for_each_entry (m, &s->d->machines, link)
		if (m->state != MACHINE_STOPPED && m->def.start_order == s->order &&
		    m->intent == MACHINE_KEEP)
			machine_powerdown(m, NULL,
					  MIN(MAX(s->until - machine_now(), 0.001),
					      s->d->config.machines.stop_timeout));
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct supervise *s = arg;
	struct machine *m, *tmp;

	list_for_each_entry_safe (m, tmp, &s->d->machines, link)
		if (m->state != MACHINE_STOPPED)
			machine_end(m, VM_REASON_STOPPED, MACHINE_STOP);
}

static void on_caller_gone(struct api_call *call, void *data)
{
	struct supervise *s = data;

	s->call = NULL;
}

void supervise_stop_all(struct supervise *s, struct api_call *call, double timeout)
{
	struct machine *m;

	if (s->stopping) {
		if (call)
			api_call_fail(call, API_KIND_INVALID_STATE,
				      "all machines are being stopped already");
		return;
	}
	if (timeout <= 0)
		timeout = s->d->config.machines.shutdown_timeout;
	s->stopping = true;
	s->stopped = 0;
	s->until = machine_now() + timeout;
	s->call = call;
	if (call)
		api_call_on_gone(call, on_caller_gone, s);
	list_for_each_entry (m, &s->d->machines, link)
		supervise_cancel(m);
	machine_arm(s->deadline, timeout);
	stop_next(s);
}

bool supervise_waits(const struct supervise *s)
{
	const struct machine *m;

	list_for_each_entry (m, &s->d->machines, link)
		if (m->restart_at > 0)
			return true;
	return s->stopping;
}

/* The host's own, told by logind: it waits for us, but not for long. */
static void on_shutdown(void *data)
{
	supervise_stop_all(data, NULL, 0);
}

/* ---- all together ---- */

void supervise_state_changed(struct supervise *s, struct machine *m)
{
	struct machine *other;

	if (!s)
		return;
	if (m->state != MACHINE_STOPPED && !evtimer_pending(s->watch, NULL)) {
		s->looked_ms = 0;
		arm_watch(s);
	}
	if (s->starting == m && m->state != MACHINE_STARTING)
		autostart(s, m);
	if (!s->stopping || m->state != MACHINE_STOPPED)
		return;
	s->stopped++;
	if (s->call)
		api_call_progress(s->call,
				  (double)s->stopped /
					  (double)(s->stopped + (int64_t)s->d->n_running),
				  m->def.name);
	list_for_each_entry (other, &s->d->machines, link)
		if (other->state != MACHINE_STOPPED && other->def.start_order == s->order)
			return;
	stop_next(s);
}

void supervise_gone(struct supervise *s, const struct machine *m)
{
	if (s && s->starting == m)
		s->starting = NULL;
}

int supervise_create(struct supervise **out, struct umbrad *d)
{
	struct supervise *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->d = d;
	s->watch = evtimer_new(d->base, on_watch, s);
	s->begin = evtimer_new(d->base, on_begin, s);
	s->deadline = evtimer_new(d->base, on_deadline, s);
	if (!s->watch || !s->begin || !s->deadline) {
		supervise_destroy(s);
		return -ENOMEM;
	}
	/* Those that were adopted before there was a supervisor. */
	arm_watch(s);
	machine_arm(s->begin, 0);
	if (d->units)
		units_on_shutdown(d->units, on_shutdown, s);
	*out = s;
	return 0;
}

void supervise_destroy(struct supervise *s)
{
	if (!s)
		return;
	machine_free_event(&s->watch);
	machine_free_event(&s->begin);
	machine_free_event(&s->deadline);
	free(s);
}
