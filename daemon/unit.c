/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine's process as a transient service of systemd's, when systemd runs. */
#include "daemon/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

#include "api/paths.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "base/log.h"
#include "daemon/bus_loop.h"

#define MANAGER	     "org.freedesktop.systemd1"
#define MANAGER_PATH "/org/freedesktop/systemd1"
#define MANAGER_IF   "org.freedesktop.systemd1.Manager"
#define SERVICE_IF   "org.freedesktop.systemd1.Service"
#define ANSWER_US    10000000 /* it answers at once, or there is none worth waiting for */
#define RETRY_US     50000
#define TRIES_MAX    100
#define STOP_US	     10000000 /* from systemd's SIGTERM to its SIGKILL */
#define SLICE	     "umbra.slice"
#define SHUTDOWN     "umbrad-machines.service" /* stops all machines before systemd would */

struct units {
	struct event_base *base;
	bool system;
	char *helper; /* umbra-exec */
	sd_bus *bus;
	struct bus_loop *loop;
	struct list ops;
	bool (*is_known)(void *data, const char *unit);
	void *known_data;
	int inhibitor; /* or -1 */
	void (*on_shutdown)(void *data);
	void *shutdown_data;
};

/* Something that was asked of the manager and is not over. */
struct op {
	struct list link;
	struct units *u;
	char unit[160];
	unit_started started; /* of a start; else NULL */
	unit_ended ended;     /* of an end; NULL: nobody wants to know */
	const void *key;      /* @data of whoever asked */
	void *data;
	char *job;	       /* of a start, once it is queued */
	sd_bus_message *start; /* for another try */
	sd_bus_slot *slot;
	struct event *retry;
	unsigned tries;
};

static void op_destroy(struct op *op)
{
	list_del(&op->link);
	sd_bus_slot_unref(op->slot);
	sd_bus_message_unref(op->start);
	if (op->retry)
		event_free(op->retry);
	free(op->job);
	free(op);
}

static struct op *op_create(struct units *u, const char *unit, event_callback_fn retry, void *data)
{
	struct op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->u = u;
	op->key = op->data = data;
	snprintf(op->unit, sizeof(op->unit), "%s", unit);
	list_add_tail(&u->ops, &op->link);
	op->retry = evtimer_new(u->base, retry, op);
	if (!op->retry) {
		op_destroy(op);
		return NULL;
	}
	return op;
}

/* Whether there is another try. */
static bool op_again(struct op *op)
{
	const struct timeval soon = {.tv_usec = RETRY_US};

	op->slot = sd_bus_slot_unref(op->slot);
	if (++op->tries >= TRIES_MAX)
		return false;
	return event_add(op->retry, &soon) == 0;
}

static void reset_failed(struct units *u, const char *unit)
{
	sd_bus_call_method_async(u->bus, NULL, MANAGER, MANAGER_PATH, MANAGER_IF, "ResetFailedUnit",
				 NULL, NULL, "s", unit);
}

/* ---- start ---- */

static void start_over(struct op *op, int ret, pid_t pid, const char *text)
{
	unit_started started = op->started;
	void *data = op->data;
	char copy[200];

	snprintf(copy, sizeof(copy), "%s", text);
	op_destroy(op);
	if (started)
		started(data, ret, pid, copy);
}

static const char *error_text(sd_bus_message *m)
{
	const sd_bus_error *e = sd_bus_message_get_error(m);

	return e ? (e->message ? e->message : e->name) : NULL;
}

static int on_main_pid(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	struct op *op = arg;
	uint32_t pid = 0;

	if (error_text(m))
		start_over(op, -ESRCH, 0, error_text(m));
	else if (sd_bus_message_read(m, "v", "u", &pid) < 0 || !pid)
		start_over(op, -ESRCH, 0, "it has no process");
	else
		start_over(op, 0, (pid_t)pid, "");
	return 1;
}

static int unit_path(const char *unit, char **path)
{
	return sd_bus_path_encode(MANAGER_PATH "/unit", unit, path);
}

static void ask_main_pid(struct op *op)
{
	_cleanup_free_ char *path = NULL;
	int ret = unit_path(op->unit, &path);

	if (ret >= 0)
		ret = sd_bus_call_method_async(op->u->bus, &op->slot, MANAGER, path,
					       "org.freedesktop.DBus.Properties", "Get",
					       on_main_pid, op, "ss", SERVICE_IF, "MainPID");
	if (ret < 0)
		start_over(op, ret, 0, "its process cannot be asked for");
}

static int on_job_removed(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	const char *path, *unit, *result;
	struct units *u = arg;
	struct op *op;
	uint32_t id;

	if (sd_bus_message_read(m, "uoss", &id, &path, &unit, &result) < 0)
		return 0;
	list_for_each_entry (op, &u->ops, link) {
		if (!op->job || strcmp(op->job, path))
			continue;
		free(op->job);
		op->job = NULL;
		if (!strcmp(result, "done"))
			ask_main_pid(op);
		else
			start_over(op, -EIO, 0, result);
		break;
	}
	return 0;
}

static int on_queued(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	const sd_bus_error *e = sd_bus_message_get_error(m);
	struct op *op = arg;
	const char *job;

	op->slot = sd_bus_slot_unref(op->slot);
	/* A dead one of that name is about to be forgotten, or a umbrad was killed before it did.
	 */
	if (e && sd_bus_error_has_name(e, MANAGER ".UnitExists") && op_again(op)) {
		reset_failed(op->u, op->unit);
		return 1;
	}
	if (e)
		start_over(op, -sd_bus_error_get_errno(e), 0, error_text(m));
	else if (sd_bus_message_read(m, "o", &job) < 0 || !(op->job = strdup(job)))
		start_over(op, -EPROTO, 0, "its answer makes no sense");
	return 1;
}

static void try_start(evutil_socket_t fd, short what, void *arg)
{
	struct op *op = arg;
	int ret = sd_bus_call_async(op->u->bus, &op->slot, op->start, on_queued, op, ANSWER_US);

	if (ret < 0)
		start_over(op, ret, 0, strerror(-ret));
	else
		bus_loop_rearm(op->u->loop);
}

static int add_limits(sd_bus_message *m, const struct machine_def *def)
{
	int ret = 0;

	if (def->limit_memory)
		ret = sd_bus_message_append(m, "(sv)", "MemoryMax", "t",
					    (uint64_t)def->limit_memory);
	if (ret >= 0 && def->limit_cpus > 0)
		ret = sd_bus_message_append(m, "(sv)", "CPUQuotaPerSecUSec", "t",
					    (uint64_t)(def->limit_cpus * 1e6));
	if (ret >= 0 && def->limit_io)
		ret = sd_bus_message_append(m, "(sv)", "IOWeight", "t", (uint64_t)def->limit_io);
	if (ret >= 0 && def->limit_pids)
		ret = sd_bus_message_append(m, "(sv)", "TasksMax", "t", (uint64_t)def->limit_pids);
	return ret;
}

static int add_properties(const struct units *u, sd_bus_message *m, const struct spawn_what *what,
			  int order)
{
	char description[128];
	int ret;

	snprintf(description, sizeof(description), "Umbra machine %s", what->def->name);
	ret = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)(sv)(sv)(sv)(sv)", "Description", "s",
				    description, "Type", "s", "exec", "ExecStart", "a(sasb)", 1,
				    u->helper, 1, u->helper, 0, "StandardInputFileDescriptor", "h",
				    order, "StandardOutputFileDescriptor", "h", what->fds.log,
				    "StandardErrorFileDescriptor", "h", what->fds.log, "KillMode",
				    "s", "mixed", "TimeoutStopUSec", "t", (uint64_t)STOP_US);
	if (ret >= 0)
		ret = sd_bus_message_append(m, "(sv)", "Slice", "s", SLICE);
	if (ret >= 0 && u->system)
		ret = sd_bus_message_append(m, "(sv)", "Before", "as", 1, SHUTDOWN);
	return ret < 0 ? ret : add_limits(m, what->def);
}

static int make_start(struct units *u, sd_bus_message **out, const char *unit,
		      const struct spawn_what *what, int order)
{
	sd_bus_message *m = NULL;
	int ret = sd_bus_message_new_method_call(u->bus, &m, MANAGER, MANAGER_PATH, MANAGER_IF,
						 "StartTransientUnit");

	if (ret >= 0)
		ret = sd_bus_message_append(m, "ss", unit, "fail");
	if (ret >= 0)
		ret = sd_bus_message_open_container(m, 'a', "(sv)");
	if (ret >= 0)
		ret = add_properties(u, m, what, order);
	if (ret >= 0)
		ret = sd_bus_message_close_container(m);
	if (ret >= 0)
		ret = sd_bus_message_append(m, "a(sa(sv))", 0);
	if (ret < 0) {
		sd_bus_message_unref(m);
		return ret;
	}
	*out = m;
	return 0;
}

int unit_start(struct units *u, const char *unit, const struct spawn_what *what,
	       unit_started started, void *data)
{
	_cleanup_close_ int ours = -1, theirs = -1;
	int pair[2], ret;
	struct op *op;

	if (!u->loop)
		return -ENOTCONN;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	ours = pair[0];
	theirs = pair[1];
	/* It lies there until umbra-exec reads it; the message keeps it alive. */
	ret = spawn_send(what, ours);
	if (ret)
		return ret;
	op = op_create(u, unit, try_start, data);
	if (!op)
		return -ENOMEM;
	op->started = started;
	ret = make_start(u, &op->start, unit, what, theirs);
	if (ret >= 0)
		ret = sd_bus_call_async(u->bus, &op->slot, op->start, on_queued, op, ANSWER_US);
	if (ret < 0) {
		op_destroy(op);
		return ret;
	}
	bus_loop_rearm(u->loop);
	return 0;
}

/* ---- end ---- */

static void end_over(struct op *op, int status, const char *result)
{
	unit_ended ended = op->ended;
	void *data = op->data;
	char copy[64];

	snprintf(copy, sizeof(copy), "%s", result);
	reset_failed(op->u, op->unit);
	op_destroy(op);
	if (ended)
		ended(data, status, copy);
}

/* Of a{sv}, the three that matter. */
static int read_end(sd_bus_message *m, int32_t *code, int32_t *status, const char **result)
{
	const char *name;
	int ret = sd_bus_message_enter_container(m, 'a', "{sv}");

	while (ret >= 0 && (ret = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		ret = sd_bus_message_read(m, "s", &name);
		if (ret < 0)
			break;
		if (!strcmp(name, "ExecMainCode"))
			ret = sd_bus_message_read(m, "v", "i", code);
		else if (!strcmp(name, "ExecMainStatus"))
			ret = sd_bus_message_read(m, "v", "i", status);
		else if (!strcmp(name, "Result"))
			ret = sd_bus_message_read(m, "v", "s", result);
		else
			ret = sd_bus_message_skip(m, "v");
		if (ret >= 0)
			ret = sd_bus_message_exit_container(m);
	}
	return ret;
}

static int on_properties(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	int32_t code = 0, status = 0;
	const char *result = "";
	struct op *op = arg;

	if (error_text(m) || read_end(m, &code, &status, &result) < 0)
		end_over(op, -1, "");
	else if (!code && !op_again(op)) /* systemd has not heard of its death yet */
		end_over(op, -1, result);
	else if (code)
		end_over(op, code == CLD_EXITED ? status << 8 : status & 127, result);
	return 1;
}

static void ask_end(evutil_socket_t fd, short what, void *arg)
{
	_cleanup_free_ char *path = NULL;
	struct op *op = arg;
	int ret = unit_path(op->unit, &path);

	if (ret >= 0)
		ret = sd_bus_call_method_async(op->u->bus, &op->slot, MANAGER, path,
					       "org.freedesktop.DBus.Properties", "GetAll",
					       on_properties, op, "s", SERVICE_IF);
	if (ret < 0)
		end_over(op, -1, "");
	else
		bus_loop_rearm(op->u->loop);
}

int unit_end(struct units *u, const char *unit, unit_ended ended, void *data)
{
	const struct timeval now = {0};
	struct op *op = u->loop ? op_create(u, unit, ask_end, data) : NULL;

	if (!op)
		return u->loop ? -ENOMEM : -ENOTCONN;
	op->ended = ended;
	event_add(op->retry, &now);
	return 0;
}

static int on_failed_units(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	struct units *u = arg;
	const char *name;
	int ret;

	if (error_text(m) || sd_bus_message_enter_container(m, 'a', "(ssssssouso)") < 0)
		return 1;
	while (sd_bus_message_enter_container(m, 'r', "ssssssouso") > 0) {
		ret = sd_bus_message_read(m, "s", &name);
		if (ret >= 0 && !u->is_known(u->known_data, name))
			reset_failed(u, name);
		if (ret < 0 || sd_bus_message_skip(m, "sssssouso") < 0 ||
		    sd_bus_message_exit_container(m) < 0)
			break;
	}
	return 1;
}

void units_sweep(struct units *u, bool (*is_known)(void *data, const char *unit), void *data)
{
	u->is_known = is_known;
	u->known_data = data;
	if (!u->loop)
		return;
	sd_bus_call_method_async(u->bus, NULL, MANAGER, MANAGER_PATH, MANAGER_IF,
				 "ListUnitsByPatterns", on_failed_units, u, "asas", 1, "failed", 1,
				 UNIT_PREFIX "*.service");
	bus_loop_rearm(u->loop);
}

void unit_forget(struct units *u, const void *data)
{
	struct op *op;

	if (!u)
		return;
	list_for_each_entry (op, &u->ops, link)
		if (op->key == data) {
			op->started = NULL;
			op->ended = NULL;
			op->key = NULL;
		}
}

void unit_kill(struct units *u, const char *unit)
{
	if (!u->loop)
		return;
	sd_bus_call_method_async(u->bus, NULL, MANAGER, MANAGER_PATH, MANAGER_IF, "KillUnit", NULL,
				 NULL, "ssi", unit, "all", (int32_t)SIGKILL);
	bus_loop_rearm(u->loop);
}

/* ---- the host's shutdown ---- */

static int on_inhibited(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	struct units *u = arg;
	int fd;

	if (error_text(m)) {
		log_debug("logind lets us not delay a shutdown: %s", error_text(m));
		return 1;
	}
	if (sd_bus_message_read(m, "h", &fd) >= 0) {
		units_let_go(u);
		u->inhibitor = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	}
	return 1;
}

static int on_prepare(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	struct units *u = arg;
	int begins = 0;

	if (sd_bus_message_read(m, "b", &begins) >= 0 && begins && u->on_shutdown)
		u->on_shutdown(u->shutdown_data);
	return 0;
}

void units_on_shutdown(struct units *u, void (*fn)(void *data), void *data)
{
	u->on_shutdown = fn;
	u->shutdown_data = data;
	if (!u->system || !u->loop)
		return;
	sd_bus_match_signal_async(u->bus, NULL, "org.freedesktop.login1", "/org/freedesktop/login1",
				  "org.freedesktop.login1.Manager", "PrepareForShutdown",
				  on_prepare, NULL, u);
	sd_bus_call_method_async(u->bus, NULL, "org.freedesktop.login1", "/org/freedesktop/login1",
				 "org.freedesktop.login1.Manager", "Inhibit", on_inhibited, u,
				 "ssss", "shutdown", "umbrad", "Machines are being stopped",
				 "delay");
	bus_loop_rearm(u->loop);
}

void units_let_go(struct units *u)
{
	if (u->inhibitor >= 0)
		close(u->inhibitor);
	u->inhibitor = -1;
}

/* ---- all together ---- */

static void on_lost(void *data, int error)
{
	struct units *u = data;

	log_error("systemd's bus is lost (%s): no machine can be started until umbrad is "
		  "started again",
		  strerror(-error));
	bus_loop_destroy(u->loop);
	u->loop = NULL;
}

/* Ask for the signals that tell of jobs; that shows whether anybody is there. */
static int subscribe(struct units *u)
{
	sd_bus_error e = SD_BUS_ERROR_NULL;
	int ret = sd_bus_set_method_call_timeout(u->bus, ANSWER_US);

	if (ret >= 0)
		ret = sd_bus_match_signal(u->bus, NULL, MANAGER, MANAGER_PATH, MANAGER_IF,
					  "JobRemoved", on_job_removed, u);
	if (ret >= 0)
		ret = sd_bus_call_method(u->bus, MANAGER, MANAGER_PATH, MANAGER_IF, "Subscribe", &e,
					 NULL, "");
	sd_bus_error_free(&e);
	return MIN(ret, 0);
}

int units_create(struct units **out, struct event_base *base, bool system)
{
	struct units *u = calloc(1, sizeof(*u));
	int ret;

	if (!u)
		return -ENOMEM;
	u->base = base;
	u->system = system;
	u->inhibitor = -1;
	list_init(&u->ops);
	u->helper = api_find_program("umbra-exec", "daemon", "UMBRA_EXEC");
	if (!u->helper)
		ret = -ENOENT;
	else if (system && sd_booted() <= 0)
		ret = -ENOTCONN;
	else
		ret = system ? sd_bus_open_system(&u->bus) : sd_bus_open_user(&u->bus);
	if (ret >= 0)
		ret = subscribe(u);
	if (ret >= 0)
		ret = bus_loop_create(&u->loop, base, u->bus, on_lost, u);
	if (ret < 0) {
		units_destroy(u);
		return ret;
	}
	*out = u;
	return 0;
}

void units_destroy(struct units *u)
{
	if (!u)
		return;
	while (!list_empty(&u->ops))
		op_destroy(list_first(&u->ops, struct op, link));
	units_let_go(u);
	bus_loop_destroy(u->loop);
	/* Flushed, for what was asked of systemd is not to be lost. */
	sd_bus_flush_close_unref(u->bus);
	free(u->helper);
	free(u);
}
