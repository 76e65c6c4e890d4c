/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events as signals. On a user's own bus they go to all. On the system's, where a machine's owner
 * is not everybody's business, each goes to those connections alone that have called us, may read,
 * and see the machine.
 */
#include <errno.h>
#include <string.h>

#include <json-c/json.h>

#include "api/jobs.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/dbus_internal.h"
#include "daemon/dbus_types.h"
#include "daemon/machine.h"

#define PROPERTIES     "org.freedesktop.DBus.Properties"
#define OBJECT_MANAGER "org.freedesktop.DBus.ObjectManager"

/* One signal: where it comes from, and how its body is put together. */
struct signal {
	const char *path, *iface, *member;
	int (*append)(sd_bus_message *m, const struct signal *s);
	const struct dbus_table *table;
	const struct api_event *ev;
	enum dbus_kind_id kind;
	const char *object; /* its path */
	struct json_object *shown;
};

static void send_one(struct dbus *b, const struct signal *s, const char *to)
{
	sd_bus_message *m = NULL;
	int ret = sd_bus_message_new_signal(b->bus, &m, s->path, s->iface, s->member);

	if (ret >= 0)
		ret = s->append(m, s);
	if (ret >= 0 && to)
		ret = sd_bus_message_set_destination(m, to);
	if (ret >= 0) {
		dbus_send(b, m);
		return;
	}
	log_debug("the signal %s cannot be sent: %s", s->member, strerror(-ret));
	sd_bus_message_unref(m);
}

static void send_signal(struct dbus *b, const struct signal *s)
{
	struct dbus_peer *peer;

	if (!b->d->paths.system) {
		send_one(b, s, NULL);
		return;
	}
	list_for_each_entry (peer, &b->peers, link)
		if (peer->reads && api_caller_sees(&peer->caller, s->ev->owner))
			send_one(b, s, peer->name);
}

static struct json_object *member(struct json_object *obj, const char *name)
{
	struct json_object *v = NULL;

	json_object_object_get_ex(obj, name, &v);
	return v;
}

static const char *text_of(struct json_object *obj, const char *name)
{
	struct json_object *v = member(obj, name);

	return v ? json_object_get_string(v) : "";
}

static int append_event(sd_bus_message *m, const struct signal *s)
{
	static const char *const skip[] = {"seq", "time", "type", "machine", NULL};
	struct json_object *obj = s->ev->obj;
	int ret = sd_bus_message_append(m, "tdss", s->ev->seq,
					json_object_get_double(member(obj, "time")), s->ev->type,
					s->ev->machine);

	if (ret >= 0)
		ret = sd_bus_message_open_container(m, 'a', "{sv}");
	if (ret >= 0)
		ret = dbus_append_entries(m, NULL, obj, skip);
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

static int append_job(sd_bus_message *m, const struct signal *s)
{
	int ret = sd_bus_message_append(m, "oss", s->object, text_of(s->ev->obj, "method"),
					s->ev->machine);

	if (ret >= 0 && !strcmp(s->member, "JobRemoved"))
		ret = sd_bus_message_append(m, "s", text_of(s->ev->obj, "state"));
	return ret;
}

static int append_added(sd_bus_message *m, const struct signal *s)
{
	int ret = sd_bus_message_append(m, "o", s->object);

	return ret < 0 ? ret : dbus_append_interfaces(m, s->table, s->kind, s->shown);
}

static int append_removed(sd_bus_message *m, const struct signal *s)
{
	int ret = sd_bus_message_append(m, "o", s->object);
	const char *iface;

	if (ret >= 0)
		ret = sd_bus_message_open_container(m, 'a', "s");
	for (size_t i = 0; ret >= 0 && (iface = dbus_table_interface(s->table, s->kind, i)); i++)
		ret = sd_bus_message_append(m, "s", iface);
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

static bool is_state(const struct api_event *ev)
{
	return !strcmp(ev->type, "state");
}

static int append_changed(sd_bus_message *m, const struct signal *s)
{
	int ret = sd_bus_message_append(m, "s", dbus_kinds[s->kind].iface);

	if (ret >= 0)
		ret = dbus_append_properties(m, s->table, s->kind, s->shown, is_state(s->ev));
	return ret < 0 ? ret : sd_bus_message_append(m, "as", 0);
}

static void tell_changed(struct dbus *b, struct signal s)
{
	s.path = s.object;
	s.iface = PROPERTIES;
	s.member = "PropertiesChanged";
	s.append = append_changed;
	send_signal(b, &s);
}

/* An object comes (@shown) or goes. */
static void tell_object(struct dbus *b, struct signal s)
{
	s.path = DBUS_ROOT;
	s.iface = OBJECT_MANAGER;
	s.member = s.shown ? "InterfacesAdded" : "InterfacesRemoved";
	s.append = s.shown ? append_added : append_removed;
	send_signal(b, &s);
}

static void tell_machine(struct dbus *b, struct signal s)
{
	struct machine *m = machine_find(b->d, s.ev->machine);
	_cleanup_free_ char *path = dbus_path(DBUS_MACHINE, s.ev->machine);

	if (!path)
		return;
	s.kind = DBUS_MACHINE;
	s.object = path;
	if (!strcmp(s.ev->type, "deleted")) {
		tell_object(b, s);
		return;
	}
	/* A change of state brings nothing new of the definition. */
	if (m)
		s.shown = is_state(s.ev) ? machine_state_to_json(m) : machine_to_json(m);
	if (s.shown && !strcmp(s.ev->type, "created"))
		tell_object(b, s);
	else if (s.shown)
		tell_changed(b, s);
	json_object_put(s.shown);
}

static void tell_job(struct dbus *b, struct signal s)
{
	struct json_object *id = member(s.ev->obj, "job");
	_cleanup_free_ char *path = id ? dbus_path(DBUS_JOB, json_object_get_string(id)) : NULL;
	bool begins = !strcmp(text_of(s.ev->obj, "state"), api_job_state_names[API_JOB_RUNNING]);
	struct json_object *shown;

	if (!path)
		return;
	s.kind = DBUS_JOB;
	s.object = path;
	s.path = DBUS_ROOT;
	s.iface = dbus_kinds[DBUS_MANAGER].iface;
	s.append = append_job;
	shown = api_job_to_json(b->d->jobs, (uint64_t)json_object_get_int64(id), NULL);
	s.shown = shown;
	if (!strcmp(s.ev->type, "progress") || !begins) {
		if (shown)
			tell_changed(b, s);
	} else if (shown) {
		tell_object(b, s);
	}
	if (!strcmp(s.ev->type, "job")) {
		s.member = begins ? "JobNew" : "JobRemoved";
		send_signal(b, &s);
		s.shown = NULL;
		if (!begins)
			tell_object(b, s);
	}
	json_object_put(shown);
}

static void on_event(void *bus, const struct api_event *ev)
{
	struct dbus *b = bus;
	struct signal s = {
		.path = DBUS_ROOT,
		.iface = dbus_kinds[DBUS_MANAGER].iface,
		.member = "Event",
		.append = append_event,
		.table = &b->table,
		.ev = ev,
	};

	if (member(ev->obj, "job"))
		tell_job(b, s);
	else if (ev->machine[0])
		tell_machine(b, s);
	send_signal(b, &s);
	if (b->d->paths.system)
		dbus_machined_event(b, ev);
}

int dbus_signals_begin(struct dbus *b)
{
	const struct api_events_filter all = {0};
	struct api_error err;

	return api_events_listen(b->d->events, &all, on_event, b, &b->listener, &err);
}

void dbus_signals_end(struct dbus *b)
{
	api_events_unlisten(b->listener);
	b->listener = NULL;
}
