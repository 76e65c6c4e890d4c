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
#include "daemon/machine.h"
#include "daemon/store.h"

#define LOG_PIECE KIB(512)

static void fail_for(struct api_call *call, const char *machine, struct api_error *err)
{
	snprintf(err->machine, sizeof(err->machine), "%s", machine);
	api_call_error(call, err);
}

/* The machine that the call names; NULL: the call has been answered. */
static struct machine *find(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);
	const char *name = api_call_string(call, "name");
	struct machine *m = machine_find(d, name);
	const char *near;
	struct api_error err;

	if (m)
		return m;
	near = api_nearest(name, machine_name_at, d->n_machines, d);
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

static void system_version(struct api_call *call)
{
	static const char *const capabilities[] = {"events", "console-fd", "batch",
						   "bound-machines"};
	const struct umbrad *d = api_call_data(call);
	struct json_object *obj = json_object_new_object(), *caps = json_object_new_array();

	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		json_object_array_add(caps, json_object_new_string(capabilities[i]));
	json_object_object_add(obj, "version", json_object_new_string(UMBRA_VERSION));
	json_object_object_add(obj, "api", json_object_new_int(1));
	json_object_object_add(obj, "mode",
			       json_object_new_string(d->paths.system ? "system" : "user"));
	json_object_object_add(obj, "pid", json_object_new_int(getpid()));
	json_object_object_add(obj, "capabilities", caps);
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

static void machine_create_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);
	struct json_object *obj;
	struct machine_def def;
	struct api_error err;
	struct machine *m;
	char name[32];

	if (d->n_machines >= UMBRAD_MACHINES_MAX) {
		api_call_fail(call, API_KIND_LIMIT, "there are %d machines already",
			      UMBRAD_MACHINES_MAX);
		return;
	}
	make_name(d, name, sizeof(name));
	json_object_object_get_ex(api_call_params(call), "definition", &obj);
	if (machine_def_parse(&def, obj, name, "definition", &err)) {
		api_call_error(call, &err);
		return;
	}
	if (machine_find(d, def.name)) {
		api_error_set(&err, API_KIND_EXISTS, "there is a machine \"%s\" already", def.name);
		fail_for(call, def.name, &err);
		machine_def_finish(&def);
		return;
	}
	if (machine_create(&m, d, &def, api_call_bool(call, "transient", false), &err)) {
		api_call_error(call, &err);
		return;
	}
	api_events_emit(d->events, "created", m->def.name, NULL);
	api_call_reply(call, machine_to_json(m), -1);
}

static void machine_start_call(struct api_call *call)
{
	struct machine *m = find(call);
	struct api_error err;

	if (!m)
		return;
	if (m->state != MACHINE_STOPPED)
		wrong_state(call, m, "stopped");
	else if (machine_start(m, call, &err))
		fail_for(call, m->def.name, &err);
}

static void machine_stop_call(struct api_call *call)
{
	struct machine *m = find_active(call);

	if (!m)
		return;
	if (api_call_bool(call, "force", false)) {
		machine_wait(m, call, WAIT_STOP, 0);
		machine_end(m, VM_REASON_STOPPED);
	} else {
		machine_powerdown(m, call, api_call_number(call, "timeout", 0));
	}
}

void umbrad_forward(struct api_call *call)
{
	struct machine *m = find_active(call);

	if (m)
		machine_forward(m, call);
}

static void machine_list_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);
	struct json_object *obj = json_object_new_object(), *all = json_object_new_array();
	struct machine *m;

	list_for_each_entry (m, &d->machines, link)
		json_object_array_add(all, machine_to_json(m));
	json_object_object_add(obj, "machines", all);
	api_call_reply(call, obj, -1);
}

static void machine_show_call(struct api_call *call)
{
	struct machine *m = find(call);

	if (m)
		api_call_reply(call, machine_to_json(m), -1);
}

static void machine_console_call(struct api_call *call)
{
	struct machine *m = find_active(call);

	if (m)
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
		machine_end(m, VM_REASON_STOPPED);
	} else {
		wrong_state(call, m, "stopped");
	}
}

static void events_subscribe_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);
	uint64_t last = api_events_last(d->events);
	uint64_t since = (uint64_t)api_call_int(call, "since", (int64_t)last);
	struct api_session *session = api_call_session(call);
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "last", json_object_new_int64((int64_t)last));
	json_object_object_add(obj, "lost",
			       json_object_new_boolean(api_events_lost(d->events, since)));
	if (session &&
	    api_events_subscribe(d->events, session, since, api_call_string(call, "machine"))) {
		json_object_put(obj);
		api_call_fail(call, API_KIND_INTERNAL, "out of memory");
		return;
	}
	api_call_reply(call, obj, -1);
}

static void events_unsubscribe_call(struct api_call *call)
{
	struct umbrad *d = api_call_data(call);

	api_events_unsubscribe(d->events, api_call_session(call));
	api_call_reply(call, NULL, -1);
}

void umbrad_session_changed(void *data, struct api_session *session, int change)
{
	struct umbrad *d = data;
	struct machine *m;

	if (change > 0 || d->quitting)
		return;
	api_events_unsubscribe(d->events, session);
	list_for_each_entry (m, &d->machines, link) {
		if (m->bound != session)
			continue;
		m->bound = NULL;
		m->abandoned = true;
		machine_end(m, VM_REASON_STOPPED);
	}
}

const struct api_ops umbrad_ops = {
	.system_version = system_version,
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
	.events_subscribe = events_subscribe_call,
	.events_unsubscribe = events_unsubscribe_call,
};
