/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One machine as umbrad sees it: definition, process, state, and who waits for what. */
#include "daemon/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/client.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/spawn.h"
#include "daemon/store.h"

#define CALL_MS	       10000 /* umbra-vm answers at once, or something is wrong with it */
#define START_MS       60000 /* it loads the guest's files before it answers */
#define KILL_AFTER_S   3.0   /* after being told to end */
#define LINGER_S       30.0
#define RECONNECTS_MAX 5

struct waiter {
	struct list link;
	struct machine *m;
	struct api_call *call;
	enum waiter_kind kind;
	struct event *timer;
};

static void on_ended(evutil_socket_t fd, short what, void *arg);

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void arm(struct event *timer, double seconds)
{
	struct timeval tv = {.tv_sec = (time_t)seconds};

	tv.tv_usec = (suseconds_t)((seconds - (double)tv.tv_sec) * 1e6);
	evtimer_add(timer, &tv);
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

struct json_object *machine_to_json(const struct machine *m)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "name", json_object_new_string(m->def.name));
	json_object_object_add(obj, "state", json_object_new_string(machine_state_names[m->state]));
	json_object_object_add(obj, "transient", json_object_new_boolean(m->transient));
	if (m->pid) {
		json_object_object_add(obj, "pid", json_object_new_int(m->pid));
		json_object_object_add(obj, "started", json_object_new_double(m->started));
	}
	json_object_object_add(obj, "definition", machine_def_to_json(&m->def));
	if (m->has_exit) {
		struct json_object *e = vm_report_to_json(&m->exit);

		json_object_object_del(e, "state");
		json_object_object_add(obj, "exit", e);
	}
	return obj;
}

static void emit_state(struct machine *m)
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
	api_events_emit(m->d->events, "state", m->def.name, more);
}

static void set_state(struct machine *m, enum machine_state state)
{
	if (m->state == state)
		return;
	if (m->state == MACHINE_STOPPED)
		m->d->n_running++;
	else if (state == MACHINE_STOPPED)
		m->d->n_running--;
	m->state = state;
	emit_state(m);
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
		arm(w->timer, timeout);
	}
}

static void answer_error(struct machine *m, struct api_call *call, enum api_kind kind,
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
		answer_error(m, call, API_KIND_BAD_IMAGE, m->exit.message);
		return;
	}
	snprintf(text, sizeof(text), "\"%s\" ended before it ran: %s%s%s", m->def.name,
		 vm_reason_names[m->exit.reason], m->exit.message[0] ? ": " : "", m->exit.message);
	answer_error(m, call, API_KIND_VM_FAILED, text);
}

/* Whether a call is still answered that wanted to know about the end. */
static bool answer_waiters(struct machine *m)
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

static void free_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

/* Let go of the process, which has ended. */
static void release_process(struct machine *m)
{
	api_client_abort(m->client);
	api_client_destroy(m->client);
	m->client = NULL;
	free_event(&m->ended);
	cleanup_close(&m->pidfd);
	m->pidfd = -1;
	m->pid = 0;
	m->bound = NULL;
	cleanup_close(&m->console_fd);
	m->console_fd = -1;
	evtimer_del(m->timeout);
	evtimer_del(m->kill);
	evtimer_del(m->button);
}

/* A report for a process that left none. @status is wait's, or -1 when it was nobody's child. */
static void make_report(struct machine *m, int status)
{
	struct vm_report *r = &m->exit;

	*r = (struct vm_report){.state = VM_ENDED, .reason = VM_REASON_ENGINE};
	if (m->forced != VM_REASON_NONE) {
		r->reason = m->forced;
		snprintf(r->message, sizeof(r->message),
			 "umbra-vm did not end by itself and was killed");
	} else if (status >= 0 && WIFSIGNALED(status)) {
		snprintf(r->message, sizeof(r->message), "umbra-vm was killed by signal %d (%s)",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	} else if (status >= 0) {
		snprintf(r->message, sizeof(r->message),
			 "umbra-vm exited with status %d and no report; see its log",
			 WEXITSTATUS(status));
	} else {
		snprintf(r->message, sizeof(r->message), "umbra-vm ended without a report");
	}
}

static void on_linger(evutil_socket_t fd, short what, void *arg)
{
	machine_destroy(arg, true);
}

/* The process is gone. @status as make_report() wants it. May destroy the machine. */
static void process_ended(struct machine *m, int status)
{
	bool deleting = false, told;
	struct waiter *w;

	vm_report_finish(&m->exit);
	if (store_read_report(m, &m->exit))
		make_report(m, status);
	m->has_exit = true;
	release_process(m);
	list_for_each_entry (w, &m->waiters, link)
		deleting |= w->kind == WAIT_DELETE;
	if (!m->transient && !deleting) {
		int ret = store_save_exit(m);

		if (ret)
			log_warn("the end of \"%s\" could not be saved: %s", m->def.name,
				 strerror(-ret));
	}
	store_remove_run(m);
	log_info("machine \"%s\" ended: %s%s%s", m->def.name, vm_reason_names[m->exit.reason],
		 m->exit.message[0] ? ": " : "", m->exit.message);
	set_state(m, MACHINE_STOPPED);
	told = answer_waiters(m);
	if (deleting || (m->transient && (told || m->abandoned)))
		machine_destroy(m, true);
	else if (m->transient)
		arm(m->linger, LINGER_S);
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
	struct machine *m = arg;
	siginfo_t info = {0};
	int status = -1;

	/* Its last words may have come before, and are to be heard before its end. */
	api_client_drain(m->client);
	/* An adopted one is not our child (-ECHILD): its parent reaps it. */
	if (waitid(P_PIDFD, (id_t)m->pidfd, &info, WEXITED | WNOHANG) == 0 && info.si_pid)
		status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status & 127;
	process_ended(m, status);
}

static void on_kill(evutil_socket_t fd, short what, void *arg)
{
	struct machine *m = arg;

	if (m->pidfd >= 0)
		pidfd_send_signal(m->pidfd, SIGKILL, NULL, 0);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	machine_end(arg, VM_REASON_TIMEOUT);
}

static void on_button_ignored(evutil_socket_t fd, short what, void *arg)
{
	machine_end(arg, VM_REASON_STOPPED);
}

int machine_create(struct machine **out, struct umbrad *d, struct machine_def *def, bool transient,
		   struct api_error *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	int ret;

	if (!m) {
		machine_def_finish(def);
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	}
	list_init(&m->link);
	list_init(&m->waiters);
	m->d = d;
	m->def = *def;
	m->transient = transient;
	m->pidfd = m->console_fd = -1;
	m->timeout = evtimer_new(d->base, on_timeout, m);
	m->kill = evtimer_new(d->base, on_kill, m);
	m->button = evtimer_new(d->base, on_button_ignored, m);
	m->linger = evtimer_new(d->base, on_linger, m);
	if (!m->timeout || !m->kill || !m->button || !m->linger)
		ret = api_error_set(err, API_KIND_INTERNAL, "out of memory");
	else if ((ret = store_save_definition(m)))
		api_error_set(err, API_KIND_IO, "cannot save the definition: %s", strerror(-ret));
	list_add_tail(&d->machines, &m->link);
	d->n_machines++;
	if (ret) {
		machine_destroy(m, false);
		return ret;
	}
	if (transient)
		arm(m->linger, LINGER_S); /* whoever made it is to start it soon */
	*out = m;
	return 0;
}

void machine_destroy(struct machine *m, bool forget)
{
	list_del(&m->link);
	m->d->n_machines--;
	if (forget) {
		store_remove(m);
		api_events_emit(m->d->events, "deleted", m->def.name, NULL);
	}
	while (!list_empty(&m->waiters))
		waiter_free(list_first(&m->waiters, struct waiter, link));
	api_client_abort(m->client);
	api_client_destroy(m->client);
	free_event(&m->ended);
	cleanup_close(&m->pidfd);
	cleanup_close(&m->console_fd);
	free_event(&m->timeout);
	free_event(&m->kill);
	free_event(&m->button);
	free_event(&m->linger);
	vm_report_finish(&m->exit);
	machine_def_finish(&m->def);
	free(m);
}

static void on_vm_state(struct machine *m, struct json_object *params)
{
	static const enum machine_state states[VM_STATE_COUNT] = {
		[VM_CREATED] = MACHINE_STARTING, [VM_RUNNING] = MACHINE_RUNNING,
		[VM_PAUSED] = MACHINE_PAUSED,	 [VM_STOPPING] = MACHINE_STOPPING,
		[VM_ENDED] = MACHINE_STOPPING,
	};
	struct vm_report r;

	if (vm_report_from_json(&r, params))
		return;
	/* The start is told by its own answer, so that waiters see it first. */
	if (r.state != VM_CREATED && !(m->state == MACHINE_STARTING && r.state == VM_RUNNING))
		set_state(m, states[r.state]);
	if (r.state == VM_ENDED)
		arm(m->kill, KILL_AFTER_S);
	vm_report_finish(&r);
}

static void on_vm_notify(void *data, const char *method, struct json_object *params)
{
	if (!strcmp(method, "vm.state"))
		on_vm_state(data, params);
}

static void on_vm_closed(void *data);

static const struct api_client_ops vm_client_ops = {
	.notify = on_vm_notify,
	.closed = on_vm_closed,
};

static int connect_vm(struct machine *m)
{
	char file[128];
	int fd, ret;

	store_name(file, m->def.name, ".sock");
	fd = api_unix_connect(m->d->vm_fd, file);
	if (fd < 0)
		return fd;
	ret = api_client_create(&m->client, m->d->base, fd, &vm_client_ops, m);
	if (ret)
		close(fd);
	return ret;
}

static void on_requeried(void *data, struct json_object *result, int fd,
			 const struct api_error *err)
{
	cleanup_close(&fd);
	if (!err)
		on_vm_state(data, result);
}

/*
 * umbra-vm closed its socket. It ends, which its pidfd will tell soon; or only the connection was
 * lost, and a new one costs the guest nothing.
 */
static void on_vm_closed(void *data)
{
	struct machine *m = data;

	api_client_destroy(m->client);
	m->client = NULL;
	if (m->reconnects++ < RECONNECTS_MAX && connect_vm(m) == 0)
		api_client_send(m->client, "vm.query", NULL, -1, CALL_MS, on_requeried, m);
	else
		arm(m->kill, KILL_AFTER_S);
}

static int watch_process(struct machine *m)
{
	m->ended = event_new(m->d->base, m->pidfd, EV_READ, on_ended, m);
	return m->ended && !event_add(m->ended, NULL) ? 0 : -ENOMEM;
}

/* Everything that the process gets, and the process. 0 or -errno. */
static int start_process(struct machine *m, const struct machine_files *files)
{
	_cleanup_close_ int control = -1, console = -1, report = -1, log = -1;
	struct spawn_fds fds = {.files = files};
	char file[128];

	store_remove_run(m);
	store_name(file, m->def.name, ".sock");
	control = api_unix_listen(m->d->vm_fd, file, 0600);
	if (control < 0)
		return control;
	store_name(file, m->def.name, ".report");
	report = openat(m->d->vm_fd, file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
			0600);
	if (report < 0)
		return -errno;
	console = store_open_log(m, false, O_RDWR | O_CREAT | O_TRUNC);
	if (console < 0)
		return console;
	log = store_open_log(m, true, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
	if (log < 0)
		return log;
	fds.control = control;
	fds.console_log = console;
	fds.report = report;
	fds.log = log;
	return spawn_vm(m->d->vm_program, &m->def, &fds, &m->pid, &m->pidfd);
}

/* The answer to vm.attach_console, which goes out before vm.start. */
static void on_attached_early(void *data, struct json_object *result, int fd,
			      const struct api_error *err)
{
	struct machine *m = data;

	cleanup_close(&fd);
	if (!err || err->kind == API_KIND_UNAVAILABLE)
		return;
	log_warn("the console of \"%s\" was not attached: %s", m->def.name, err->text);
	cleanup_close(&m->console_fd);
	m->console_fd = -1;
}

static struct api_call *take_start_call(struct machine *m)
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

static void on_started(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	struct machine *m = data;
	struct api_call *call;

	cleanup_close(&fd);
	if (err && err->kind == API_KIND_UNAVAILABLE)
		return; /* it ended: process_ended() answers, with its report */
	if (!err) {
		if (m->state == MACHINE_STARTING)
			set_state(m, MACHINE_RUNNING);
		if (m->def.timeout > 0)
			arm(m->timeout, m->def.timeout);
	}
	call = take_start_call(m);
	if (call && err) {
		struct api_error e = *err;

		snprintf(e.machine, sizeof(e.machine), "%s", m->def.name);
		api_call_error(call, &e);
	} else if (call) {
		api_call_reply(call, machine_to_json(m), TAKE_FD(m->console_fd));
	}
	if (err)
		machine_end(m, VM_REASON_STOPPED);
}

/* A socket pair: one end goes to umbra-vm, the other is returned. */
static int pass_console(struct machine *m, api_answer answer, void *data)
{
	int pair[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	ret = api_client_send(m->client, "vm.attach_console", NULL, pair[1], CALL_MS, answer, data);
	if (ret) {
		close(pair[0]);
		return ret;
	}
	return pair[0];
}

/* The process runs; talk to it. 0, or -errno. */
static int begin(struct machine *m, bool console)
{
	int ret = watch_process(m);

	if (!ret)
		ret = connect_vm(m);
	if (!ret && console) {
		m->console_fd = pass_console(m, on_attached_early, m);
		ret = MIN(m->console_fd, 0);
	}
	if (!ret)
		ret = api_client_send(m->client, "vm.start", NULL, -1, START_MS, on_started, m);
	return ret;
}

int machine_start(struct machine *m, struct api_call *call, struct api_error *err)
{
	_cleanup_(machine_files_finish) struct machine_files files;
	int ret;

	machine_files_init(&files);
	if (!m->d->vm_program)
		return api_error_set(err, API_KIND_UNAVAILABLE,
				     "the program umbra-vm is not installed");
	ret = machine_files_open(&files, &m->def, err);
	if (ret)
		return ret;
	ret = start_process(m, &files);
	if (ret) {
		store_remove_run(m);
		return api_error_set(err, API_KIND_VM_FAILED, "cannot start %.200s: %s",
				     m->d->vm_program, strerror(-ret));
	}
	m->started = now();
	m->forced = VM_REASON_NONE;
	m->reconnects = 0;
	m->abandoned = false;
	store_save_run(m);
	evtimer_del(m->linger);
	ret = begin(m, api_call_bool(call, "console", false));
	if (ret) {
		pidfd_send_signal(m->pidfd, SIGKILL, NULL, 0);
		waitid(P_PIDFD, (id_t)m->pidfd, &(siginfo_t){0}, WEXITED);
		release_process(m);
		store_remove_run(m);
		return api_error_set(err, API_KIND_VM_FAILED, "cannot talk to umbra-vm: %s",
				     strerror(-ret));
	}
	if (api_call_bool(call, "bound", false))
		m->bound = api_call_session(call);
	set_state(m, MACHINE_STARTING);
	machine_wait(m, call, WAIT_START, 0);
	return 0;
}

static void on_ignored(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	cleanup_close(&fd);
}

void machine_end(struct machine *m, enum vm_reason reason)
{
	struct json_object *params = json_object_new_object();

	if (m->forced == VM_REASON_NONE)
		m->forced = reason;
	json_object_object_add(params, "force", json_object_new_boolean(true));
	json_object_object_add(params, "reason", json_object_new_string(vm_reason_names[reason]));
	/* Whatever becomes of the message, the timer has the last word. */
	arm(m->kill, KILL_AFTER_S);
	if (m->client)
		api_client_send(m->client, "vm.stop", params, -1, CALL_MS, on_ignored, NULL);
	else
		json_object_put(params);
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
		answer_error(m, call, API_KIND_UNAVAILABLE, "umbra-vm does not listen");
}

void machine_forward(struct machine *m, struct api_call *call)
{
	const struct api_method *method = api_call_method(call);

	forward(m, call, method->name, json_object_get(api_call_params(call)),
		method->flags & API_M_LONG ? 0 : CALL_MS);
}

void machine_powerdown(struct machine *m, struct api_call *call, double force_after)
{
	if (force_after > 0)
		arm(m->button, force_after);
	forward(m, call, "vm.stop", NULL, CALL_MS);
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
	a->fd = m->client ? pass_console(m, on_attached, a) : -EPIPE;
	if (a->fd < 0) {
		free(a);
		answer_error(m, call, API_KIND_UNAVAILABLE, "umbra-vm does not listen");
	}
}

static void on_adopted(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	struct machine *m = data;
	struct vm_report r;
	double left = m->def.timeout - (now() - m->started);

	cleanup_close(&fd);
	if (err && err->kind == API_KIND_UNAVAILABLE)
		return; /* it ends, or is connected to again */
	if (err || vm_report_from_json(&r, result)) {
		log_warn("umbra-vm %d of \"%s\" does not answer: %s", m->pid, m->def.name,
			 err ? err->text : "no report");
		if (m->state == MACHINE_STARTING)
			set_state(m, MACHINE_RUNNING);
		return;
	}
	if (r.state == VM_CREATED)
		machine_end(m, VM_REASON_STOPPED); /* the start was cut short: undone */
	else if (r.state == VM_RUNNING)
		set_state(m, MACHINE_RUNNING);
	else
		on_vm_state(m, result);
	vm_report_finish(&r);
	if (m->def.timeout > 0)
		arm(m->timeout, MAX(left, 0.0));
}

/* The process of a machine that ended while no umbrad was there. */
static void adopt_end(struct machine *m)
{
	struct vm_report r;
	char file[128];

	store_name(file, m->def.name, ".report");
	if (faccessat(m->d->vm_fd, file, F_OK, 0) == 0) {
		if (store_read_report(m, &r))
			r = (struct vm_report){
				.state = VM_ENDED,
				.reason = VM_REASON_ENGINE,
				.message = "umbra-vm ended without a report",
			};
		vm_report_finish(&m->exit);
		m->exit = r;
		m->has_exit = true;
		if (!m->transient)
			store_save_exit(m);
		emit_state(m);
	}
	store_remove_run(m);
	if (m->transient)
		arm(m->linger, LINGER_S);
}

void machine_adopt(struct machine *m)
{
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	int ret = connect_vm(m);

	if (ret) {
		adopt_end(m);
		return;
	}
	/* umbra-vm called listen() itself, so that this names it, and not the umbrad that made the
	 * socket. */
	if (getsockopt(api_client_fd(m->client), SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
	    cred.pid <= 1 || (m->pidfd = pidfd_open(cred.pid, 0)) < 0 || watch_process(m)) {
		log_warn("the process of \"%s\" cannot be watched", m->def.name);
		release_process(m);
		adopt_end(m);
		return;
	}
	m->pid = cred.pid;
	m->started = now();
	store_load_run(m);
	log_info("machine \"%s\" is adopted, process %d", m->def.name, m->pid);
	set_state(m, MACHINE_STARTING);
	api_client_send(m->client, "vm.query", NULL, -1, CALL_MS, on_adopted, m);
}
