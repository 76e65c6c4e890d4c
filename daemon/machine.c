/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One machine as umbrad sees it: definition, state, and who waits for what. */
#include "daemon/machine_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/client.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "daemon/cgroup.h"
#include "daemon/store.h"
#include "daemon/supervise.h"
#include "daemon/unit.h"

#define LINGER_S 30.0

struct waiter {
	struct list link;
	struct machine *m;
	struct api_call *call;
	enum waiter_kind kind;
	struct event *timer;
};

double machine_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void machine_arm(struct event *timer, double seconds)
{
	struct timeval tv = {.tv_sec = (time_t)seconds};

	tv.tv_usec = (suseconds_t)((seconds - (double)tv.tv_sec) * 1e6);
	evtimer_add(timer, &tv);
}

void machine_free_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

struct machine *machine_find(struct umbrad *d, const char *name)
{
	struct machine *m;

	list_for_each_entry (m, &d->machines, link)
		if (!strcmp(m->def.name, name))
			return m;
	return NULL;
}

const char *machine_name_at(const void *umbrad, size_t i)
{
	const struct umbrad *d = umbrad;
	const struct machine *m;

	list_for_each_entry (m, &d->machines, link)
		if (!i--)
			return m->def.name;
	return "";
}

/* ---- what machine.show tells, a function a member; NULL: it is absent ---- */

static struct json_object *show_name(const struct machine *m)
{
	return json_object_new_string(m->def.name);
}

static struct json_object *show_state(const struct machine *m)
{
	return json_object_new_string(machine_state_names[m->state]);
}

static struct json_object *show_transient(const struct machine *m)
{
	return json_object_new_boolean(m->transient);
}

static struct json_object *show_owner(const struct machine *m)
{
	return m->owner ? json_object_new_string(m->owner) : NULL;
}

static struct json_object *show_pid(const struct machine *m)
{
	return m->pid ? json_object_new_int(m->pid) : NULL;
}

static struct json_object *show_started(const struct machine *m)
{
	return m->pid ? json_object_new_double(m->started) : NULL;
}

/* Where its process lives on the host, and what the host could not give it. */
static struct json_object *show_host(const struct machine *m)
{
	struct json_object *obj = m->pid ? json_object_new_object() : NULL;

	if (!obj)
		return NULL;
	if (m->unit)
		json_object_object_add(obj, "unit", json_object_new_string(m->unit));
	if (m->cgroup)
		json_object_object_add(obj, "cgroups", cgroup_to_json(m->cgroup));
	if (m->cgroup && *cgroup_missing(m->cgroup))
		json_object_object_add(obj, "missing",
				       json_object_new_string(cgroup_missing(m->cgroup)));
	return obj;
}

static struct json_object *show_hung(const struct machine *m)
{
	return m->pid && m->hung ? json_object_new_boolean(true) : NULL;
}

static struct json_object *show_sandbox(const struct machine *m)
{
	return m->pid ? json_object_get(m->sandbox) : NULL;
}

static struct json_object *show_engine(const struct machine *m)
{
	return m->pid && *m->engine ? json_object_new_string(m->engine) : NULL;
}

static struct json_object *show_engine_why(const struct machine *m)
{
	return m->pid && *m->engine_why ? json_object_new_string(m->engine_why) : NULL;
}

static struct json_object *show_restarts(const struct machine *m)
{
	return m->restarts ? json_object_new_int((int)m->restarts) : NULL;
}

static struct json_object *show_restart_at(const struct machine *m)
{
	return m->restart_at > 0 ? json_object_new_double(m->restart_at) : NULL;
}

static struct json_object *show_exit(const struct machine *m)
{
	struct json_object *obj = m->has_exit ? vm_report_to_json(&m->exit) : NULL;

	if (obj)
		json_object_object_del(obj, "state");
	return obj;
}

static const struct {
	const char *name;
	struct json_object *(*show)(const struct machine *m);
} members[] = {
	{"name", show_name},
	{"state", show_state},
	{"transient", show_transient},
	{"owner", show_owner},
	{"pid", show_pid},
	{"started", show_started},
	{"host", show_host},
	{"hung", show_hung},
	{"engine", show_engine},
	{"engine_why", show_engine_why},
	{"sandbox", show_sandbox},
	{"restarts", show_restarts},
	{"restart_at", show_restart_at},
	{"exit", show_exit},
};

struct json_object *machine_member_to_json(const struct machine *m, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		if (!strcmp(members[i].name, name))
			return members[i].show(m);
	return NULL;
}

struct json_object *machine_state_to_json(const struct machine *m)
{
	struct json_object *obj = json_object_new_object();

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		struct json_object *v = members[i].show(m);

		if (v)
			json_object_object_add_ex(obj, members[i].name, v,
						  JSON_C_OBJECT_ADD_KEY_IS_NEW |
							  JSON_C_OBJECT_ADD_CONSTANT_KEY);
	}
	return obj;
}

struct json_object *machine_to_json(const struct machine *m)
{
	struct json_object *obj = machine_state_to_json(m);

	json_object_object_add(obj, "definition", machine_def_to_json(&m->def));
	return obj;
}

void machine_emit(struct machine *m, const char *type, struct json_object *more)
{
	api_events_emit(m->d->events, type, m->def.name, m->owner, more);
}

void machine_emit_state(struct machine *m)
{
	struct json_object *more = json_object_new_object();

	json_object_object_add(more, "state",
			       json_object_new_string(machine_state_names[m->state]));
	if (m->state == MACHINE_STOPPED && m->has_exit) {
		json_object_object_add(more, "reason",
				       json_object_new_string(vm_reason_names[m->exit.reason]));
		json_object_object_add(more, "code", json_object_new_int(m->exit.code));
		json_object_object_add(more, "status",
				       json_object_new_int(vm_report_status(&m->exit)));
	}
	machine_emit(m, "state", more);
}

void machine_assume_state(struct machine *m, enum machine_state state)
{
	if (m->state == MACHINE_STOPPED && state != MACHINE_STOPPED)
		m->d->n_running++;
	else if (m->state != MACHINE_STOPPED && state == MACHINE_STOPPED)
		m->d->n_running--;
	m->state = state;
}

void machine_set_state(struct machine *m, enum machine_state state)
{
	if (m->state == state)
		return;
	machine_assume_state(m, state);
	machine_emit_state(m);
	supervise_state_changed(m->d->supervise, m);
}

static void waiter_free(struct waiter *w)
{
	list_del(&w->link);
	if (w->timer)
		event_free(w->timer);
	free(w);
}

static void on_waiter_gone(struct api_call *call, void *data)
{
	waiter_free(data);
}

static void on_waiter_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct waiter *w = arg;
	struct api_call *call = w->call;
	struct api_error err;

	api_error_set(&err, API_KIND_TIMEOUT, "\"%s\" has not ended in the time allowed",
		      w->m->def.name);
	snprintf(err.machine, sizeof(err.machine), "%s", w->m->def.name);
	waiter_free(w);
	api_call_error(call, &err);
}

void machine_wait(struct machine *m, struct api_call *call, enum waiter_kind kind, double timeout)
{
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w) {
		api_call_fail(call, API_KIND_INTERNAL, "out of memory");
		return;
	}
	w->m = m;
	w->call = call;
	w->kind = kind;
	list_add_tail(&m->waiters, &w->link);
	api_call_on_gone(call, on_waiter_gone, w);
	if (timeout > 0) {
		w->timer = evtimer_new(m->d->base, on_waiter_timeout, w);
		machine_arm(w->timer, timeout);
	}
}

void machine_answer_error(struct machine *m, struct api_call *call, enum api_kind kind,
			  const char *text)
{
	struct api_error err;

	api_error_set(&err, kind, "%s", text);
	snprintf(err.machine, sizeof(err.machine), "%s", m->def.name);
	api_call_error(call, &err);
}

/* The machine ended before it ran: say how. */
static void answer_start_failed(struct machine *m, struct api_call *call)
{
	char text[400];

	if (m->exit.reason == VM_REASON_BAD_IMAGE) {
		machine_answer_error(m, call, API_KIND_BAD_IMAGE, m->exit.message);
		return;
	}
	snprintf(text, sizeof(text), "\"%s\" ended before it ran: %s%s%s", m->def.name,
		 vm_reason_names[m->exit.reason], m->exit.message[0] ? ": " : "", m->exit.message);
	machine_answer_error(m, call, API_KIND_VM_FAILED, text);
}

bool machine_answer_waiters(struct machine *m)
{
	bool told = false;

	while (!list_empty(&m->waiters)) {
		struct waiter *w = list_first(&m->waiters, struct waiter, link);
		struct api_call *call = w->call;
		enum waiter_kind kind = w->kind;

		waiter_free(w);
		told |= kind == WAIT_END || kind == WAIT_START;
		if (kind == WAIT_END)
			api_call_reply(call, machine_to_json(m), -1);
		else if (kind == WAIT_START)
			answer_start_failed(m, call);
		else
			api_call_reply(call, NULL, -1);
	}
	return told;
}

struct api_call *machine_take_start(struct machine *m)
{
	struct waiter *w;

	list_for_each_entry (w, &m->waiters, link) {
		struct api_call *call = w->call;

		if (w->kind != WAIT_START)
			continue;
		waiter_free(w);
		api_call_on_gone(call, NULL, NULL);
		return call;
	}
	return NULL;
}

static void on_linger(evutil_socket_t fd, short what, void *arg)
{
	machine_destroy(arg, true);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	machine_end(arg, VM_REASON_TIMEOUT, MACHINE_KEEP);
}

static void on_button_ignored(evutil_socket_t fd, short what, void *arg)
{
	machine_end(arg, VM_REASON_STOPPED, MACHINE_STOP);
}

static void on_kill(evutil_socket_t fd, short what, void *arg)
{
	machine_kill(arg, NULL);
}

static void on_restart(evutil_socket_t fd, short what, void *arg)
{
	supervise_restart(arg);
}

int machine_create(struct machine **out, struct umbrad *d, struct machine_new *what,
		   struct api_error *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	int ret;

	if (!m) {
		machine_def_finish(&what->def);
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	}
	list_init(&m->link);
	list_init(&m->waiters);
	m->d = d;
	m->def = what->def;
	m->transient = what->transient;
	m->owner = what->owner ? strdup(what->owner) : NULL;
	m->pidfd = m->console_fd = -1;
	m->timeout = evtimer_new(d->base, on_timeout, m);
	m->kill = evtimer_new(d->base, on_kill, m);
	m->button = evtimer_new(d->base, on_button_ignored, m);
	m->restart = evtimer_new(d->base, on_restart, m);
	m->linger = evtimer_new(d->base, on_linger, m);
	if (!m->timeout || !m->kill || !m->button || !m->restart || !m->linger ||
	    (what->owner && !m->owner))
		ret = api_error_set(err, API_KIND_INTERNAL, "out of memory");
	else if ((ret = what->stored ? 0 : store_save_definition(m)))
		api_error_set(err, API_KIND_IO, "cannot save the definition: %s", strerror(-ret));
	list_add_tail(&d->machines, &m->link);
	d->n_machines++;
	if (ret) {
		machine_destroy(m, false);
		return ret;
	}
	if (what->transient)
		machine_arm(m->linger, LINGER_S); /* whoever made it is to start it soon */
	*out = m;
	return 0;
}

void machine_destroy(struct machine *m, bool forget)
{
	list_del(&m->link);
	m->d->n_machines--;
	if (forget) {
		store_remove(m);
		supervise_cancel(m);
		machine_emit(m, "deleted", NULL);
	}
	while (!list_empty(&m->waiters)) {
		struct waiter *w = list_first(&m->waiters, struct waiter, link);
		struct api_call *call = w->call;

		waiter_free(w);
		machine_answer_error(m, call, API_KIND_NOT_FOUND, "the machine is no more");
	}
	api_client_abort(m->client);
	api_client_destroy(m->client);
	machine_free_event(&m->ended);
	cleanup_close(&m->pidfd);
	cleanup_close(&m->console_fd);
	machine_free_event(&m->timeout);
	machine_free_event(&m->kill);
	machine_free_event(&m->button);
	machine_free_event(&m->restart);
	machine_free_event(&m->linger);
	supervise_gone(m->d->supervise, m);
	unit_forget(m->d->units, m);
	cgroup_forget(m->cgroup);
	json_object_put(m->sandbox);
	free(m->unit);
	vm_report_finish(&m->exit);
	machine_def_finish(&m->def);
	free(m->owner);
	free(m);
}

int machine_pass_console(struct machine *m, api_answer answer, void *data)
{
	int pair[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	ret = api_client_send(m->client, "vm.attach_console", NULL, pair[1], MACHINE_CALL_MS,
			      answer, data);
	if (ret) {
		close(pair[0]);
		return ret;
	}
	return pair[0];
}

static void on_forwarded(void *data, struct json_object *result, int fd,
			 const struct api_error *err)
{
	struct api_call *call = data;
	const char *name = api_call_string(call, "name");
	struct api_error e;

	if (!err) {
		api_call_reply(call, json_object_get(result), fd);
		return;
	}
	cleanup_close(&fd);
	e = *err;
	snprintf(e.machine, sizeof(e.machine), "%s", name ? name : "");
	api_call_error(call, &e);
}

/* @params are taken. */
static void forward(struct machine *m, struct api_call *call, const char *method,
		    struct json_object *params, int ms)
{
	int fd = api_call_take_fd(call), ret = -EPIPE;

	if (m->client) {
		ret = api_client_send(m->client, method, params, fd, ms, on_forwarded, call);
	} else {
		json_object_put(params);
		cleanup_close(&fd);
	}
	if (ret)
		machine_answer_error(m, call, API_KIND_UNAVAILABLE, "umbra-vm does not listen");
}

void machine_forward(struct machine *m, struct api_call *call)
{
	const struct api_method *method = api_call_method(call);

	forward(m, call, method->name, json_object_get(api_call_params(call)),
		method->flags & API_M_LONG ? 0 : MACHINE_CALL_MS);
}

void machine_powerdown(struct machine *m, struct api_call *call, double force_after)
{
	if (m->intent == MACHINE_KEEP)
		m->intent = MACHINE_STOP;
	m->force_at = force_after > 0 ? machine_now() + force_after : 0;
	machine_save_run(m);
	if (force_after > 0)
		machine_arm(m->button, force_after);
	fault_point(FAULT_TELL);
	if (call)
		forward(m, call, "vm.stop", NULL, MACHINE_CALL_MS);
	else if (m->client)
		api_client_send(m->client, "vm.stop", NULL, -1, MACHINE_CALL_MS,
				machine_ignore_answer, NULL);
	fault_point(FAULT_TELL_DONE);
}

/* What machine_attach() remembers until umbra-vm has answered. */
struct attach {
	struct api_call *call;
	int fd;
};

static void on_attached(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	struct attach *a = data;

	cleanup_close(&fd);
	if (err)
		api_call_error(a->call, err);
	else
		api_call_reply(a->call, NULL, TAKE_FD(a->fd));
	cleanup_close(&a->fd);
	free(a);
}

void machine_attach(struct machine *m, struct api_call *call)
{
	struct attach *a = calloc(1, sizeof(*a));

	if (!a) {
		api_call_fail(call, API_KIND_INTERNAL, "out of memory");
		return;
	}
	a->call = call;
	a->fd = m->client ? machine_pass_console(m, on_attached, a) : -EPIPE;
	if (a->fd < 0) {
		free(a);
		machine_answer_error(m, call, API_KIND_UNAVAILABLE, "umbra-vm does not listen");
	}
}
