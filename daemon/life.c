/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine's process: its start, its end, and how a new umbrad finds it again. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "daemon/cgroup.h"
#include "daemon/journal.h"
#include "daemon/machine_internal.h"
#include "daemon/spawn.h"
#include "daemon/store.h"
#include "daemon/supervise.h"
#include "daemon/unit.h"

#define KILL_AFTER_S   3.0 /* after being told to end */
#define LINGER_S       30.0
#define RECONNECTS_MAX 5

void machine_ignore_answer(void *data, struct json_object *result, int fd,
			   const struct api_error *err)
{
	cleanup_close(&fd);
}

int machine_save_run(struct machine *m)
{
	int ret = store_save_run(m);

	if (ret)
		log_warn("what is done with \"%s\" could not be saved: %s", m->def.name,
			 strerror(-ret));
	return ret;
}

/* ---- its end ---- */

/* Let go of the process, which has ended. */
static void release_process(struct machine *m)
{
	api_client_abort(m->client);
	api_client_destroy(m->client);
	m->client = NULL;
	machine_free_event(&m->ended);
	cleanup_close(&m->pidfd);
	m->pidfd = -1;
	m->pid = 0;
	m->bound = NULL;
	cleanup_close(&m->console_fd);
	m->console_fd = -1;
	m->pinged = 0;
	m->hung = false;
	json_object_put(m->sandbox);
	m->sandbox = NULL;
	*m->engine = *m->engine_why = 0;
	evtimer_del(m->timeout);
	evtimer_del(m->kill);
	evtimer_del(m->button);
}

/* Nothing is left of the run but what was to be kept of it. */
static void clear_run(struct machine *m, bool keep_record)
{
	cgroup_destroy(m->cgroup);
	m->cgroup = NULL;
	free(m->unit);
	m->unit = NULL;
	store_remove_run(m, keep_record);
}

/*
 * A report for a process that left none. @status is wait's, or -1 when it was nobody's child that
 * could be asked; @result is systemd's word, or NULL.
 */
static void make_report(struct machine *m, int status, const char *result)
{
	struct vm_report *r = &m->exit;

	*r = (struct vm_report){.state = VM_ENDED, .reason = VM_REASON_ENGINE};
	if (m->forced != VM_REASON_NONE) {
		r->reason = m->forced;
		snprintf(r->message, sizeof(r->message), "%s",
			 m->killed ? m->killed : "umbra-vm did not end by itself and was killed");
	} else if (result && !strcmp(result, "oom-kill")) {
		snprintf(r->message, sizeof(r->message),
			 "umbra-vm was killed by the kernel: out of memory");
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

static void tell_end(struct machine *m)
{
	bool failed = m->exit.reason == VM_REASON_ENGINE || m->exit.reason == VM_REASON_BAD_IMAGE;

	journal_write(
		&(struct journal_entry){
			.event = failed ? JOURNAL_MACHINE_FAILED : JOURNAL_MACHINE_ENDED,
			.level = failed ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
			.machine = m->def.name,
			.reason = vm_reason_names[m->exit.reason],
		},
		"machine \"%s\" ended: %s%s%s", m->def.name, vm_reason_names[m->exit.reason],
		m->exit.message[0] ? ": " : "", m->exit.message);
}

/*
 * The run is over, m->exit says how. First the disk, each step such that what follows can be made
 * up for by the next umbrad, then whoever waits. May destroy the machine.
 */
static void run_over(struct machine *m)
{
	bool deleting = m->intent == MACHINE_FORGET, told;

	m->has_exit = true;
	release_process(m);
	supervise_decide(m);
	if (!m->transient && !deleting) {
		int ret = store_save_exit(m);

		if (ret)
			log_warn("the end of \"%s\" could not be saved: %s", m->def.name,
				 strerror(-ret));
	}
	if (deleting)
		store_remove(m);
	else if (m->restart_at > 0)
		machine_save_run(m);
	clear_run(m, m->restart_at > 0);
	tell_end(m);
	if (m->state == MACHINE_STOPPED)
		machine_emit_state(m); /* it ended while no umbrad was there to tell it */
	else
		machine_set_state(m, MACHINE_STOPPED);
	told = machine_answer_waiters(m);
	if (m->restart_at > 0)
		supervise_arm(m);
	else if (deleting || (m->transient && (told || m->abandoned)))
		machine_destroy(m, true);
	else if (m->transient)
		machine_arm(m->linger, LINGER_S);
}

static void on_unit_end(void *data, int status, const char *result)
{
	struct machine *m = data;

	vm_report_finish(&m->exit);
	make_report(m, status, result);
	run_over(m);
}

/* The process is dead. May destroy the machine. */
static void process_dead(struct machine *m, int status)
{
	fault_point(FAULT_ENDED);
	if (m->ended)
		event_del(m->ended);
	if (m->unit && m->d->units) {
		/* systemd was its parent; a dead service that failed is to be forgotten too. */
		bool ask = !store_has_report(m);

		if (!unit_end(m->d->units, m->unit, ask ? on_unit_end : NULL, m) && ask) {
			/* Of one that ended while no umbrad was there, nothing else is known yet.
			 */
			if (m->state == MACHINE_STOPPED)
				machine_assume_state(m, MACHINE_STOPPING);
			return;
		}
	}
	vm_report_finish(&m->exit);
	if (store_read_report(m, &m->exit))
		make_report(m, status, NULL);
	run_over(m);
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
	process_dead(m, status);
}

void machine_kill(struct machine *m, const char *why)
{
	if (m->forced == VM_REASON_NONE) {
		m->forced = VM_REASON_ENGINE;
		m->killed = why;
	}
	fault_point(FAULT_KILL);
	if (m->pidfd >= 0)
		pidfd_send_signal(m->pidfd, SIGKILL, NULL, 0);
	else if (m->unit && m->d->units)
		unit_kill(m->d->units, m->unit);
	else if (m->cgroup)
		cgroup_kill(m->cgroup);
	fault_point(FAULT_KILL_DONE);
}

void machine_end(struct machine *m, enum vm_reason reason, enum machine_intent intent)
{
	struct json_object *params;

	if (intent != MACHINE_KEEP) {
		m->intent = MAX(m->intent, intent);
		m->force_at = machine_now();
		machine_save_run(m);
	}
	if (m->forced == VM_REASON_NONE)
		m->forced = reason;
	/* Whatever becomes of the message, the timer has the last word. */
	machine_arm(m->kill, KILL_AFTER_S);
	if (!m->client)
		return;
	params = json_object_new_object();
	json_object_object_add(params, "force", json_object_new_boolean(true));
	json_object_object_add(params, "reason", json_object_new_string(vm_reason_names[reason]));
	fault_point(FAULT_TELL);
	api_client_send(m->client, "vm.stop", params, -1, MACHINE_CALL_MS, machine_ignore_answer,
			NULL);
	fault_point(FAULT_TELL_DONE);
}

/* ---- what it tells ---- */

static void take_engine(struct machine *m, const struct vm_report *r)
{
	if (!*r->engine)
		return;
	memcpy(m->engine, r->engine, sizeof(m->engine));
	memcpy(m->engine_why, r->engine_why, sizeof(m->engine_why));
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
	take_engine(m, &r);
	/* The start is told by its own answer, so that waiters see it first. */
	if (r.state != VM_CREATED && !(m->state == MACHINE_STARTING && r.state == VM_RUNNING))
		machine_set_state(m, states[r.state]);
	if (r.state == VM_ENDED)
		machine_arm(m->kill, KILL_AFTER_S);
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

/* Keep what a vm.query says of the sandbox; the host's gaps are told once. */
static void take_sandbox(struct machine *m, struct json_object *result)
{
	struct json_object *v, *missing, *part;

	if (!json_object_object_get_ex(result, "sandbox", &v))
		return;
	if (!m->sandbox && json_object_object_get_ex(v, "missing", &missing) &&
	    json_object_is_type(missing, json_type_array) && json_object_array_length(missing)) {
		part = json_object_array_get_idx(missing, 0);
		journal_write(
			&(struct journal_entry){
				.event = JOURNAL_SANDBOX_PARTIAL,
				.level = LOG_LEVEL_WARNING,
				.machine = m->def.name,
			},
			"the sandbox of \"%s\" lacks %zu parts, the first: %s", m->def.name,
			json_object_array_length(missing), json_object_to_json_string(part));
	}
	json_object_put(m->sandbox);
	m->sandbox = json_object_get(v);
}

static void on_requeried(void *data, struct json_object *result, int fd,
			 const struct api_error *err)
{
	struct machine *m = data;

	cleanup_close(&fd);
	if (err)
		return;
	take_sandbox(m, result);
	on_vm_state(m, result);
}

static int query(struct machine *m, api_answer answer)
{
	return api_client_send(m->client, "vm.query", NULL, -1, MACHINE_CALL_MS, answer, m);
}

static void adopt_end(struct machine *m);

/*
 * umbra-vm closed its socket. It ends, which its pidfd will tell soon; or only the connection was
 * lost, and a new one costs the guest nothing.
 */
static void on_vm_closed(void *data)
{
	struct machine *m = data;

	api_client_destroy(m->client);
	m->client = NULL;
	if (m->pidfd < 0) {
		adopt_end(m); /* it died before it could introduce itself */
		return;
	}
	if (m->reconnects++ < RECONNECTS_MAX && connect_vm(m) == 0)
		query(m, on_requeried);
	else
		machine_arm(m->kill, KILL_AFTER_S);
}

/* Take @pidfd: it tells the end. */
static int watch_process(struct machine *m, pid_t pid, int pidfd)
{
	m->pid = pid;
	m->pidfd = pidfd;
	m->ended = event_new(m->d->base, pidfd, EV_READ, on_ended, m);
	return m->ended && !event_add(m->ended, NULL) ? 0 : -ENOMEM;
}

/* ---- its start ---- */

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

static void on_started(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	struct machine *m = data;
	struct api_call *call;

	cleanup_close(&fd);
	if (err && err->kind == API_KIND_UNAVAILABLE)
		return; /* it ended: run_over() answers, with its report */
	if (!err) {
		if (m->state == MACHINE_STARTING)
			machine_set_state(m, MACHINE_RUNNING);
		if (m->def.timeout > 0)
			machine_arm(m->timeout, m->def.timeout);
		if (m->client)
			query(m, on_requeried);
		journal_write(&(struct journal_entry){.event = JOURNAL_MACHINE_STARTED,
						      .machine = m->def.name},
			      "machine \"%s\" runs, process %d, engine %s (%s)", m->def.name,
			      m->pid, *m->engine ? m->engine : "unknown",
			      *m->engine_why ? m->engine_why : "it did not say why");
	}
	call = machine_take_start(m);
	if (call && err) {
		struct api_error e = *err;

		snprintf(e.machine, sizeof(e.machine), "%s", m->def.name);
		api_call_error(call, &e);
	} else if (call) {
		api_call_reply(call, machine_to_json(m), TAKE_FD(m->console_fd));
	}
	if (err)
		machine_end(m, VM_REASON_STOPPED, MACHINE_STOP);
}

static int tell_start(struct machine *m)
{
	int ms = (int)(m->d->config.machines.start_timeout * 1000), ret;

	fault_point(FAULT_TELL);
	ret = api_client_send(m->client, "vm.start", NULL, -1, ms, on_started, m);
	fault_point(FAULT_TELL_DONE);
	return ret;
}

/* The process is there; talk to it. 0, or -errno. */
static int begin(struct machine *m)
{
	int ret = connect_vm(m);

	if (!ret && m->console) {
		m->console_fd = machine_pass_console(m, on_attached_early, m);
		ret = MIN(m->console_fd, 0);
	}
	return ret ? ret : tell_start(m);
}

/* The start came to nothing, after it was answered that it is under way. */
static void start_failed(struct machine *m, const char *text)
{
	vm_report_finish(&m->exit);
	m->exit = (struct vm_report){.state = VM_ENDED, .reason = VM_REASON_ENGINE};
	snprintf(m->exit.message, sizeof(m->exit.message), "%.255s", text);
	if (m->unit && m->d->units)
		unit_end(m->d->units, m->unit, NULL, m);
	run_over(m);
}

static void on_unit_started(void *data, int ret, pid_t pid, const char *text)
{
	struct machine *m = data;
	int pidfd;

	fault_point(FAULT_SPAWN_DONE);
	if (ret) {
		char message[256];

		snprintf(message, sizeof(message), "systemd did not start %.100s: %.120s", m->unit,
			 text);
		start_failed(m, message);
		return;
	}
	pidfd = pidfd_open(pid, 0);
	if (pidfd < 0 || watch_process(m, pid, pidfd)) {
		process_dead(m, -1); /* it was quick to die */
		return;
	}
	machine_save_run(m);
	if (m->forced != VM_REASON_NONE || begin(m))
		machine_kill(m, "umbrad could not talk to it");
}

/* What is before the machine's name in its service's or group's: one host may have several
 * umbrads. */
static void host_prefix(const struct umbrad *d, char out[32])
{
	uint32_t h = 2166136261u;

	for (const char *p = d->paths.runtime; *p; p++)
		h = (h ^ (uint8_t)*p) * 16777619u;
	if (getenv("UMBRA_RUNTIME_DIR"))
		snprintf(out, 32, UNIT_PREFIX "%08x-", h);
	else
		snprintf(out, 32, UNIT_PREFIX);
}

bool machine_claims_unit(void *umbrad, const char *unit)
{
	struct umbrad *d = umbrad;
	const struct machine *m;
	char prefix[32];

	host_prefix(d, prefix);
	/* Another umbrad's. */
	if (strncmp(unit, prefix, strlen(prefix)) != 0)
		return true;
	unit += strlen(prefix);
	if (!strcmp(prefix, UNIT_PREFIX) && strspn(unit, "0123456789abcdef") == 8 && unit[8] == '-')
		return true;
	list_for_each_entry (m, &d->machines, link)
		if (m->unit && !strcmp(m->unit + strlen(prefix), unit))
			return true;
	return false;
}

/* The files of a run, in @fds. 0 or -errno. */
static int make_files(struct machine *m, struct spawn_fds *fds)
{
	char file[128];

	fault_point(FAULT_SOCKET);
	store_name(file, m->def.name, ".sock");
	fds->control = api_unix_listen(m->d->vm_fd, file, 0600);
	fault_point(FAULT_SOCKET_DONE);
	if (fds->control < 0)
		return fds->control;
	fault_point(FAULT_REPORT);
	store_name(file, m->def.name, ".report");
	fds->report = openat(m->d->vm_fd, file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
			     0600);
	fault_point(FAULT_REPORT_DONE);
	if (fds->report < 0)
		return -errno;
	fault_point(FAULT_LOGS);
	fds->console_log = store_open_log(m, false, O_RDWR | O_CREAT | O_TRUNC);
	fds->log = store_open_log(m, true, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
	fault_point(FAULT_LOGS_DONE);
	return fds->console_log < 0 ? fds->console_log : MIN(fds->log, 0);
}

static void close_files(struct spawn_fds *fds)
{
	cleanup_close(&fds->control);
	cleanup_close(&fds->report);
	cleanup_close(&fds->console_log);
	cleanup_close(&fds->log);
}

/* As our child, in a group of its own. */
static int spawn_child(struct machine *m, struct spawn_what *what)
{
	int joins[CGROUP_JOINS_MAX], pidfd, ret;
	pid_t pid;

	if (m->cgroup) {
		what->n_joins = cgroup_joins(m->cgroup, joins);
		what->joins = joins;
	}
	fault_point(FAULT_SPAWN);
	ret = spawn_vm(what, &pid, &pidfd);
	fault_point(FAULT_SPAWN_DONE);
	if (ret)
		return ret;
	ret = watch_process(m, pid, pidfd);
	if (!ret)
		ret = machine_save_run(m);
	if (!ret)
		ret = begin(m);
	if (ret) {
		pidfd_send_signal(m->pidfd, SIGKILL, NULL, 0);
		waitid(P_PIDFD, (id_t)m->pidfd, &(siginfo_t){0}, WEXITED);
	}
	return ret;
}

static int spawn(struct machine *m, const struct machine_files *files)
{
	struct spawn_what what = {
		.program = m->d->vm_program,
		.def = &m->def,
		.fds = {.control = -1, .console_log = -1, .report = -1, .log = -1, .files = files},
	};
	int ret = make_files(m, &what.fds);

	if (!ret && m->unit) {
		fault_point(FAULT_SPAWN);
		ret = unit_start(m->d->units, m->unit, &what, on_unit_started, m);
	} else if (!ret) {
		ret = spawn_child(m, &what);
	}
	close_files(&what.fds);
	return ret;
}

/* A new run: what is known of the one before does not count any more. */
static void new_run(struct machine *m, struct api_call *call)
{
	char prefix[32], name[128];

	evtimer_del(m->linger);
	evtimer_del(m->restart);
	m->restart_at = 0;
	if (call) {
		m->restarts = 0;
		m->restart_delay = 0;
	}
	m->automatic = !call;
	m->console = call && api_call_bool(call, "console", false);
	m->started = machine_now();
	m->intent = MACHINE_KEEP;
	m->force_at = 0;
	m->forced = VM_REASON_NONE;
	m->killed = NULL;
	m->reconnects = 0;
	m->abandoned = false;
	m->adopted = false;
	host_prefix(m->d, prefix);
	snprintf(name, sizeof(name), "%s%s", prefix, m->def.name);
	if (!m->d->units)
		m->cgroup = cgroup_create(name, &m->def);
	else if (asprintf(&m->unit, "%s.service", name) < 0)
		m->unit = NULL;
}

int machine_start(struct machine *m, struct api_call *call, struct api_error *err)
{
	_cleanup_(machine_files_finish) struct machine_files files;
	int ret;

	machine_files_init(&files);
	files.kvm_use = m->d->config.machines.kvm;
	if (supervise_stopping(m->d->supervise))
		return api_error_set(err, API_KIND_UNAVAILABLE, "all machines are being stopped");
	if (!m->d->vm_program)
		return api_error_set(err, API_KIND_UNAVAILABLE,
				     "the program umbra-vm is not installed");
	ret = machine_files_open(&files, &m->def, err);
	if (ret)
		return ret;
	new_run(m, call);
	ret = machine_save_run(m);
	if (!ret && m->cgroup)
		cgroup_make(m->cgroup, &m->def);
	if (!ret)
		ret = spawn(m, &files);
	if (ret) {
		release_process(m);
		clear_run(m, false);
		return api_error_set(err, API_KIND_VM_FAILED, "cannot start %.200s: %s",
				     m->d->vm_program, strerror(-ret));
	}
	if (call && api_call_bool(call, "bound", false))
		m->bound = api_call_session(call);
	machine_set_state(m, MACHINE_STARTING);
	if (call)
		machine_wait(m, call, WAIT_START, 0);
	return 0;
}

/* ---- after a crash ---- */

/* Do what was asked of it when the umbrad before us was killed. */
static void finish_intent(struct machine *m)
{
	double left = m->force_at - machine_now();

	if (m->intent == MACHINE_KEEP)
		return;
	if (m->force_at > 0 && left <= 0)
		machine_end(m, VM_REASON_STOPPED, m->intent);
	else if (m->state != MACHINE_STOPPING)
		machine_powerdown(m, NULL, MAX(left, 0.0));
	else if (m->force_at > 0)
		machine_arm(m->button, left);
}

static void on_adopted(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	struct machine *m = data;
	struct vm_report r;

	cleanup_close(&fd);
	if (err && err->kind == API_KIND_UNAVAILABLE)
		return; /* it ends, or is connected to again */
	if (err || vm_report_from_json(&r, result)) {
		log_warn("umbra-vm %d of \"%s\" does not answer: %s", m->pid, m->def.name,
			 err ? err->text : "no report");
		if (m->state == MACHINE_STARTING)
			machine_set_state(m, MACHINE_RUNNING);
		finish_intent(m);
		return;
	}
	take_sandbox(m, result);
	take_engine(m, &r);
	if (r.state == VM_CREATED && m->automatic && m->intent == MACHINE_KEEP)
		tell_start(m); /* a start that nobody asked for is finished */
	else if (r.state == VM_CREATED)
		machine_end(m, VM_REASON_STOPPED, MACHINE_STOP); /* …another is undone */
	else if (r.state == VM_RUNNING)
		machine_set_state(m, MACHINE_RUNNING);
	else
		on_vm_state(m, result);
	if (m->def.timeout > 0 && r.state != VM_CREATED)
		machine_arm(m->timeout, MAX(m->def.timeout - (machine_now() - m->started), 0.0));
	if (r.state != VM_CREATED && r.state != VM_ENDED)
		finish_intent(m);
	vm_report_finish(&r);
}

/* A start that was cut short before there was a process. */
static void undo_start(struct machine *m)
{
	bool again = m->automatic && m->intent == MACHINE_KEEP;

	if (again) {
		m->restart_at = machine_now();
		machine_save_run(m);
	}
	clear_run(m, again);
	machine_set_state(m, MACHINE_STOPPED);
	if (again) {
		supervise_arm(m);
	} else if (m->intent == MACHINE_FORGET) {
		machine_destroy(m, true);
	} else if (m->transient) {
		machine_arm(m->linger, LINGER_S);
	}
}

/*
 * It ended while no umbrad was there; m->pid is what the record says, 0 when the umbrad before us
 * had not come so far. May destroy the machine.
 */
static void adopt_end(struct machine *m)
{
	if (m->restart_at > 0) {
		/* Its end was dealt with. */
		clear_run(m, true);
		supervise_arm(m);
	} else if (m->pid || store_has_report(m)) {
		process_dead(m, -1);
	} else {
		if (m->unit && m->d->units)
			unit_end(m->d->units, m->unit, NULL, m);
		undo_start(m);
	}
}

static pid_t peer_of(const struct machine *m)
{
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);

	if (getsockopt(api_client_fd(m->client), SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -1;
	return cred.pid;
}

static int watch_peer(struct machine *m, pid_t pid)
{
	int pidfd = pid > 1 ? pidfd_open(pid, 0) : -1;

	return pidfd < 0 ? -ESRCH : watch_process(m, pid, pidfd);
}

static void adopted(struct machine *m)
{
	m->adopted = true;
	journal_write(
		&(struct journal_entry){.event = JOURNAL_MACHINE_ADOPTED, .machine = m->def.name},
		"machine \"%s\" is adopted, process %d", m->def.name, m->pid);
}

/*
 * umbra-vm has answered, so it has called listen() by itself, and a new connection's peer is it:
 * the one before was the dead umbrad's, who made the socket.
 */
static void on_introduced(void *data, struct json_object *result, int fd,
			  const struct api_error *err)
{
	struct machine *m = data;

	if (err && err->kind == API_KIND_UNAVAILABLE) {
		cleanup_close(&fd);
		return; /* on_vm_closed() follows */
	}
	if (err) {
		log_warn("whoever holds the socket of \"%s\" does not answer", m->def.name);
		machine_kill(m, "it did not answer a new umbrad");
		query(m, on_introduced);
		cleanup_close(&fd);
		return;
	}
	json_object_get(result);
	api_client_destroy(m->client);
	m->client = NULL;
	if (connect_vm(m) || watch_peer(m, peer_of(m))) {
		cleanup_close(&fd);
		adopt_end(m);
	} else {
		machine_save_run(m);
		adopted(m);
		on_adopted(m, result, fd, NULL);
	}
	json_object_put(result);
}

void machine_adopt(struct machine *m)
{
	pid_t recorded;

	store_load_run(m);
	recorded = m->pid;
	if (connect_vm(m)) {
		if (store_has_run(m))
			adopt_end(m);
		else if (m->transient)
			machine_arm(m->linger, LINGER_S);
		return;
	}
	machine_assume_state(m, MACHINE_STARTING);
	if (recorded > 1 && recorded == peer_of(m) && !watch_peer(m, recorded)) {
		adopted(m);
		query(m, on_adopted);
	} else {
		query(m, on_introduced);
	}
}
