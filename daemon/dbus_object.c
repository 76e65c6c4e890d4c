/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Objects of the bus: their paths, properties and introspection. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "base/cleanup.h"
#include "daemon/dbus_internal.h"
#include "daemon/dbus_types.h"

char *dbus_path(enum dbus_kind_id kind, const char *id)
{
	char *path = NULL;

	return sd_bus_path_encode(dbus_kinds[kind].folder, id, &path) < 0 ? NULL : path;
}

const char *dbus_id_of(enum dbus_kind_id kind, struct json_object *shown)
{
	struct json_object *id;
	const char *text = NULL;

	if (dbus_kinds[kind].id && json_object_is_type(shown, json_type_object) &&
	    json_object_object_get_ex(shown, dbus_kinds[kind].id, &id))
		text = json_object_get_string(id);
	return text ? text : "";
}

static struct json_object *member(struct json_object *obj, const char *name)
{
	struct json_object *v = NULL;

	if (json_object_is_type(obj, json_type_object))
		json_object_object_get_ex(obj, name, &v);
	return v;
}

static struct json_object *value_of(const struct dbus_property *p, struct json_object *shown)
{
	return member(p->of_definition ? member(shown, "definition") : shown, p->field->name);
}

/* Always of the type that the introspection says. */
int dbus_append_value(sd_bus_message *m, const struct dbus_property *p, struct json_object *v)
{
	int ret = sd_bus_message_open_container(m, 'v', dbus_signature(p->field));

	if (ret >= 0)
		ret = dbus_append(m, p->field, v);
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

int dbus_append_property(sd_bus_message *m, const struct dbus_property *p,
			 struct json_object *shown)
{
	return dbus_append_value(m, p, value_of(p, shown));
}

int dbus_append_properties(sd_bus_message *m, const struct dbus_table *t, enum dbus_kind_id kind,
			   struct json_object *shown, bool state)
{
	int ret = sd_bus_message_open_container(m, 'a', "{sv}");

	for (size_t i = 0; ret >= 0 && i < t->properties[kind].n; i++) {
		const struct dbus_property *p = &t->properties[kind].p[i];

		if (state && p->of_definition)
			continue;
		ret = sd_bus_message_open_container(m, 'e', "sv");
		if (ret >= 0)
			ret = sd_bus_message_append_basic(m, 's', p->name);
		if (ret >= 0)
			ret = dbus_append_property(m, p, shown);
		if (ret >= 0)
			ret = sd_bus_message_close_container(m);
	}
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

int dbus_append_interfaces(sd_bus_message *m, const struct dbus_table *t, enum dbus_kind_id kind,
			   struct json_object *shown)
{
	int ret = sd_bus_message_open_container(m, 'a', "{sa{sv}}");
	const char *iface;

	for (size_t i = 0; ret >= 0 && (iface = dbus_table_interface(t, kind, i)); i++) {
		ret = sd_bus_message_open_container(m, 'e', "sa{sv}");
		if (ret >= 0)
			ret = sd_bus_message_append_basic(m, 's', iface);
		if (ret >= 0 && !strcmp(iface, dbus_kinds[kind].iface))
			ret = dbus_append_properties(m, t, kind, shown, false);
		else if (ret >= 0)
			ret = sd_bus_message_append(m, "a{sv}", 0);
		if (ret >= 0)
			ret = sd_bus_message_close_container(m);
	}
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

/* ---- introspection ---- */

static const char document_type[] =
	"<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n"
	" \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n";

/* The interfaces of the D-Bus specification that every object of ours has. */
static const char standard[] = " <interface name=\"org.freedesktop.DBus.Peer\">\n"
			       "  <method name=\"Ping\"/>\n"
			       "  <method name=\"GetMachineId\">\n"
			       "   <arg name=\"machine_uuid\" type=\"s\" direction=\"out\"/>\n"
			       "  </method>\n"
			       " </interface>\n"
			       " <interface name=\"org.freedesktop.DBus.Introspectable\">\n"
			       "  <method name=\"Introspect\">\n"
			       "   <arg name=\"data\" type=\"s\" direction=\"out\"/>\n"
			       "  </method>\n"
			       " </interface>\n"
			       " <interface name=\"org.freedesktop.DBus.Properties\">\n"
			       "  <method name=\"Get\">\n"
			       "   <arg name=\"interface\" type=\"s\" direction=\"in\"/>\n"
			       "   <arg name=\"property\" type=\"s\" direction=\"in\"/>\n"
			       "   <arg name=\"value\" type=\"v\" direction=\"out\"/>\n"
			       "  </method>\n"
			       "  <method name=\"GetAll\">\n"
			       "   <arg name=\"interface\" type=\"s\" direction=\"in\"/>\n"
			       "   <arg name=\"properties\" type=\"a{sv}\" direction=\"out\"/>\n"
			       "  </method>\n"
			       "  <method name=\"Set\">\n"
			       "   <arg name=\"interface\" type=\"s\" direction=\"in\"/>\n"
			       "   <arg name=\"property\" type=\"s\" direction=\"in\"/>\n"
			       "   <arg name=\"value\" type=\"v\" direction=\"in\"/>\n"
			       "  </method>\n"
			       "  <signal name=\"PropertiesChanged\">\n"
			       "   <arg name=\"interface\" type=\"s\"/>\n"
			       "   <arg name=\"changed\" type=\"a{sv}\"/>\n"
			       "   <arg name=\"invalidated\" type=\"as\"/>\n"
			       "  </signal>\n"
			       " </interface>\n";

static const char manager[] =
	" <interface name=\"org.freedesktop.DBus.ObjectManager\">\n"
	"  <method name=\"GetManagedObjects\">\n"
	"   <arg name=\"objects\" type=\"a{oa{sa{sv}}}\" direction=\"out\"/>\n"
	"  </method>\n"
	"  <signal name=\"InterfacesAdded\">\n"
	"   <arg name=\"object\" type=\"o\"/>\n"
	"   <arg name=\"interfaces\" type=\"a{sa{sv}}\"/>\n"
	"  </signal>\n"
	"  <signal name=\"InterfacesRemoved\">\n"
	"   <arg name=\"object\" type=\"o\"/>\n"
	"   <arg name=\"interfaces\" type=\"as\"/>\n"
	"  </signal>\n"
	" </interface>\n"
	" <node name=\"machine\"/>\n"
	" <node name=\"job\"/>\n";

static void describe_members(struct buf *xml, enum dbus_kind_id kind, struct json_object *list)
{
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *shown = json_object_array_get_idx(list, i);
		_cleanup_free_ char *path = dbus_path(kind, dbus_id_of(kind, shown));

		if (path)
			buf_printf(xml, " <node name=\"%s\"/>\n", strrchr(path, '/') + 1);
	}
}

char *dbus_document(const struct dbus_table *t, enum dbus_kind_id kind, bool object,
		    struct json_object *list)
{
	struct buf xml = {0};

	buf_append(&xml, document_type, sizeof(document_type) - 1);
	buf_printf(&xml, "<node>\n");
	if (object) {
		dbus_table_describe(t, kind, &xml);
		buf_append(&xml, standard, sizeof(standard) - 1);
		if (kind == DBUS_MANAGER)
			buf_append(&xml, manager, sizeof(manager) - 1);
	} else if (json_object_is_type(list, json_type_array)) {
		describe_members(&xml, kind, list);
	}
	buf_printf(&xml, "</node>\n");
	if (!xml.failed)
		return xml.data;
	buf_finish(&xml);
	return NULL;
}

char *dbus_introspect(const struct api_table *table)
{
	struct dbus_table t;
	struct buf xml = {0};

	if (dbus_table_init(&t, table))
		return NULL;
	buf_append(&xml, document_type, sizeof(document_type) - 1);
	buf_printf(&xml, "<node>\n");
	for (unsigned kind = 0; kind < DBUS_KINDS; kind++)
		dbus_table_describe(&t, (enum dbus_kind_id)kind, &xml);
	buf_printf(&xml, "</node>\n");
	dbus_table_finish(&t);
	if (!xml.failed)
		return xml.data;
	buf_finish(&xml);
	return NULL;
}
