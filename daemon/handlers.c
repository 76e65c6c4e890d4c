/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbrad's handlers, one a method: find the machine, check its state, act, answer. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/cleanup.h"
#include "api/base64.h"
#include "daemon/auth.h"
#include "daemon/machine.h"
#include "daemon/store.h"
#include "daemon/usage.h"
#include "daemon/supervise.h"

#define LOG_PIECE KIB(512)

static void fail_for(struct api_call *call, const char *machine, struct api_error *err)
{
	snprintf(err->machine, sizeof(err->machine), "%s", machine);
	api_call_error(call, err);
}

/* The names of the machines that exist for who calls. */
struct names {
	const char **v;
	size_t n;
};

static const char *name_at(const void *data, size_t i)
{
	return ((const struct names *)data)->v[i];
}

static const char *nearest_name(const struct umbrad *d, const struct api_call *call,
				const char *name)
{
	struct names names = {.v = calloc(d->n_machines + 1, sizeof(char *))};
	const struct machine *m;
	const char *near;

	if (!names.v)
		return NULL;
	list_for_each_entry (m, &d->machines, link)
		if (machine_visible(m, api_call_caller(call)))
			names.v[names.n++] = m->def.name;
	near = api_nearest(name, name_at, names.n, &names);
	free(names.v);
	return near;
}

/* The machine that the call names; NULL: the call has been answered. What is somebody else's is
 * answered as what is not there. */
static struct machine *find(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);
	const char *name = api_call_string(call, "name");
	struct machine *m = machine_find(d, name);
	const char *near;
	struct api_error err;

	if (m && machine_visible(m, api_call_caller(call)))
		return m;
	near = nearest_name(d, call, name);
	api_error_set(&err, API_KIND_NOT_FOUND, "there is no machine \"%s\"%s%s%s", name,
		      near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
	fail_for(call, name, &err);
	return NULL;
}

static void wrong_state(struct api_call *call, const struct machine *m, const char *want)
{
	struct api_error err;

	api_error_set(&err, API_KIND_INVALID_STATE, "\"%s\" is %s, not %s", m->def.name,
		      machine_state_names[m->state], want);
	fail_for(call, m->def.name, &err);
}

/* The same, and it must have a process. */
static struct machine *find_active(struct api_call *call)
{
	struct machine *m = find(call);

	if (m && m->state == MACHINE_STOPPED) {
		wrong_state(call, m, "running");
		return NULL;
	}
	return m;
}

static struct json_object *capabilities(void)
{
	static const char *const names[] = {"events",	      "console-fd", "batch",
					    "bound-machines", "jobs",	    "tokens"};
	struct json_object *all = json_object_new_array();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		json_object_array_add(all, json_object_new_string(names[i]));
	return all;
}

static void system_version(struct api_call *call)
{
	const struct umbrad *d = api_call_data(call);
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "version", json_object_new_string(UMBRA_VERSION));
	json_object_object_add(obj, "api", json_object_new_int(1));
	json_object_object_add(obj, "mode",
			       json_object_new_string(d->paths.system ? "system" : "user"));
	json_object_object_add(obj, "pid", json_object_new_int(getpid()));
	json_object_object_add(obj, "capabilities", capabilities());
	api_call_reply(call, obj, -1);
}

/* Into @obj: who the caller is. */
static void add_caller(struct json_object *obj, const struct api_caller *caller)
{
	json_object_object_add(obj, "level",
			       json_object_new_string(api_access_name(caller->level)));
	json_object_object_add(obj, "name", json_object_new_string(caller->name));
}

static void system_hello(struct api_call *call)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "version", json_object_new_string(UMBRA_VERSION));
	json_object_object_add(obj, "api", json_object_new_int(1));
	json_object_object_add(obj, "capabilities", capabilities());
	add_caller(obj, api_call_caller(call));
	api_call_reply(call, obj, -1);
}

static void system_authenticate(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);
	struct api_session *session = api_call_session(call);
	struct json_object *obj;
	struct api_caller caller;
	struct api_error err;
	int ret;

	if (!session) {
		api_call_fail(call, API_KIND_NOT_SUPPORTED,
			      "only a JSON-RPC connection is authenticated by a call");
		return;
	}
	caller = *api_call_caller(call);
	ret = auth_token(d->auth, api_call_string(call, "token"), &caller, &err);
	if (ret)
		api_session_auth_failed(session);
	else
		ret = api_session_authenticate(session, &caller, &err);
	if (ret) {
		api_call_error(call, &err);
		return;
	}
	obj = json_object_new_object();
	add_caller(obj, api_session_caller(session));
	api_call_reply(call, obj, -1);
}

static void rpc_discover(struct api_call *call)
{
	api_call_reply(call, api_openrpc(&api_umbrad_methods, "Umbra"), -1);
}

/* A name that no machine has. */
static void make_name(struct umbrad *d, char *out, size_t len)
{
	do
		snprintf(out, len, "vm-%llu", (unsigned long long)++d->last_name);
	while (machine_find(d, out));
}

/* Whether @owner may have one more machine; if not, *err. */
static bool has_room(const struct umbrad *d, const struct api_caller *caller, const char *owner,
		     struct api_error *err)
{
	const struct config_machines *max = &d->config.machines;
	const struct machine *m;
	int64_t n = 0;

	if ((int64_t)d->n_machines >= max->max) {
		api_error_set(err, API_KIND_LIMIT, "there are %zu machines already", d->n_machines);
		return false;
	}
	list_for_each_entry (m, &d->machines, link)
		n += m->owner && !strcmp(m->owner, owner);
	if (n < max->max_per_owner || !strcmp(owner, caller->name))
		return true; /* who may create for others may have what it likes */
	api_error_set(err, API_KIND_LIMIT, "%s has %lld machines already", owner, (long long)n);
	return false;
}

static void machine_create_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);
	struct json_object *obj;
	const char *owner = api_call_string(call, "owner");
	struct machine_new what = {
		.transient = api_call_bool(call, "transient", false),
		.owner = owner ? owner : api_call_caller(call)->name,
	};
	struct api_error err;
	struct machine *m;
	char name[32];

	if (!has_room(d, api_call_caller(call), what.owner, &err)) {
		api_call_error(call, &err);
		return;
	}
	make_name(d, name, sizeof(name));
	json_object_object_get_ex(api_call_params(call), "definition", &obj);
	if (machine_def_parse(&what.def, obj, name, "definition", &err)) {
		api_call_error(call, &err);
		return;
	}
	if (!json_object_object_get_ex(obj, "sandbox", NULL))
		what.def.sandbox = d->config.machines.sandbox;
	api_call_set_machine(call, what.def.name);
	if (machine_find(d, what.def.name)) {
		api_error_set(&err, API_KIND_EXISTS, "there is a machine \"%s\" already",
			      what.def.name);
		fail_for(call, what.def.name, &err);
		machine_def_finish(&what.def);
		return;
	}
	if (machine_create(&m, d, &what, &err)) {
		api_call_error(call, &err);
		return;
	}
	api_events_emit(d->events, "created", m->def.name, m->owner, NULL);
	api_call_reply(call, machine_to_json(m), -1);
}

/* Whether a descriptor that the answer must have can go out; if not, the call is answered. */
static bool passes_fd(struct api_call *call)
{
	if (api_call_passes_fds(call))
		return true;
	api_call_fail(call, API_KIND_NOT_SUPPORTED,
		      "the answer has a descriptor, which does not go this way");
	return false;
}

static void machine_start_call(struct api_call *call)
{
	struct machine *m = find(call);
	struct api_error err;

	if (!m || (api_call_bool(call, "console", false) && !passes_fd(call)))
		return;
	if (m->state != MACHINE_STOPPED)
		wrong_state(call, m, "stopped");
	else if (machine_start(m, call, &err))
		fail_for(call, m->def.name, &err);
}

static void machine_stop_call(struct api_call *call)
{
	struct machine *m = find(call);

	if (!m)
		return;
	if (m->restart_at > 0) {
		/* It has stopped; that it stays so is what is asked for. */
		supervise_cancel(m);
		api_call_reply(call, NULL, -1);
	} else if (m->state == MACHINE_STOPPED) {
		wrong_state(call, m, "running");
	} else if (api_call_bool(call, "force", false)) {
		machine_wait(m, call, WAIT_STOP, 0);
		machine_end(m, VM_REASON_STOPPED, MACHINE_STOP);
	} else {
		machine_powerdown(m, call, api_call_number(call, "timeout", 0));
	}
}

void umbrad_forward(struct api_call *call)
{
	struct machine *m = find_active(call);

	if (m && (!(api_call_method(call)->flags & API_M_FD_OUT) || passes_fd(call)))
		machine_forward(m, call);
}

/* @m as its caller wants it. */
static struct json_object *to_json(const struct api_call *call, const struct machine *m)
{
	bool brief = api_call_bool(call, "brief", false);
	struct json_object *obj = brief ? machine_state_to_json(m) : machine_to_json(m);
	struct json_object *usage = NULL;

	if (m->pid && api_call_bool(call, "usage", false))
		usage = usage_to_json(m->pid);
	if (usage)
		json_object_object_add(obj, "usage", usage);
	return obj;
}

static void machine_list_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);
	struct json_object *obj = json_object_new_object(), *all = json_object_new_array();
	struct machine *m;

	list_for_each_entry (m, &d->machines, link)
		if (machine_visible(m, api_call_caller(call)))
			json_object_array_add(all, to_json(call, m));
	json_object_object_add(obj, "machines", all);
	api_call_reply(call, obj, -1);
}

static void machine_show_call(struct api_call *call)
{
	struct machine *m = find(call);

	if (m)
		api_call_reply(call, to_json(call, m), -1);
}

static void machine_console_call(struct api_call *call)
{
	struct machine *m = find_active(call);

	if (m && passes_fd(call))
		machine_attach(m, call);
}

static void machine_logs_call(struct api_call *call)
{
	_cleanup_free_ char *data = NULL, *text = NULL;
	_cleanup_close_ int fd = -1;
	int64_t offset = api_call_int(call, "offset", 0);
	const char *which = api_call_string(call, "log");
	struct machine *m = find(call);
	struct json_object *obj;
	struct stat st = {0};
	ssize_t n = 0;

	if (!m)
		return;
	fd = store_open_log(m, which && !strcmp(which, "vm"), O_RDONLY);
	data = malloc(LOG_PIECE);
	if (fd >= 0 && data && fstat(fd, &st) == 0)
		n = pread(fd, data, LOG_PIECE, offset);
	text = n >= 0 && data ? base64_encode(data, (size_t)n) : NULL;
	if (!text || (fd < 0 && fd != -ENOENT)) {
		api_call_fail(call, API_KIND_IO, "the log cannot be read");
		return;
	}
	obj = json_object_new_object();
	json_object_object_add(obj, "data", json_object_new_string(text));
	json_object_object_add(obj, "next", json_object_new_int64(offset + n));
	json_object_object_add(obj, "size", json_object_new_int64(st.st_size));
	api_call_reply(call, obj, -1);
}

static void machine_wait_call(struct api_call *call)
{
	struct machine *m = find(call);

	if (!m)
		return;
	if (m->state != MACHINE_STOPPED) {
		machine_wait(m, call, WAIT_END, api_call_number(call, "timeout", 0));
		return;
	}
	api_call_reply(call, machine_to_json(m), -1);
	/* That was what it lingered for. */
	if (m->transient && m->has_exit)
		machine_destroy(m, true);
}

static void machine_delete_call(struct api_call *call)
{
	struct machine *m = find(call);

	if (!m)
		return;
	if (m->state == MACHINE_STOPPED) {
		machine_destroy(m, true);
		api_call_reply(call, NULL, -1);
	} else if (api_call_bool(call, "force", false)) {
		machine_wait(m, call, WAIT_DELETE, 0);
		machine_end(m, VM_REASON_STOPPED, MACHINE_FORGET);
	} else {
		wrong_state(call, m, "stopped");
	}
}

static void system_stop_machines(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);

	supervise_stop_all(d->supervise, call, api_call_number(call, "timeout", 0));
}

static void events_subscribe_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);

	api_events_subscribe(d->events, call);
}

static void events_unsubscribe_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);

	api_events_unsubscribe(d->events, call);
}

int umbrad_begin_job(void *data, struct api_call *call, struct api_error *err)
{
	struct umbrad *d = data;

	return api_jobs_begin(d->jobs, call, err);
}

static void job_list_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);

	api_jobs_list(d->jobs, call);
}

static void job_show_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);

	api_jobs_show(d->jobs, call);
}

static void job_wait_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);

	api_jobs_wait(d->jobs, call);
}

static void job_cancel_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);

	api_jobs_cancel(d->jobs, call);
}

void umbrad_session_changed(void *data, struct api_session *session, int change)
{
	struct umbrad *d = data;
	struct machine *m;

	if (change > 0 || d->quitting)
		return;
	api_events_session_gone(d->events, session);
	list_for_each_entry (m, &d->machines, link) {
		if (m->bound != session)
			continue;
		m->bound = NULL;
		m->abandoned = true;
		machine_end(m, VM_REASON_STOPPED, MACHINE_STOP);
	}
}

const struct api_ops umbrad_ops = {
	.system_version = system_version,
	.system_hello = system_hello,
	.system_authenticate = system_authenticate,
	.rpc_discover = rpc_discover,
	.machine_create = machine_create_call,
	.machine_start = machine_start_call,
	.machine_stop = machine_stop_call,
	.machine_list = machine_list_call,
	.machine_show = machine_show_call,
	.machine_console = machine_console_call,
	.machine_logs = machine_logs_call,
	.machine_wait = machine_wait_call,
	.machine_delete = machine_delete_call,
	.system_stop_machines = system_stop_machines,
	.events_subscribe = events_subscribe_call,
	.events_unsubscribe = events_unsubscribe_call,
	.job_list = job_list_call,
	.job_show = job_show_call,
	.job_wait = job_wait_call,
	.job_cancel = job_cancel_call,
};
