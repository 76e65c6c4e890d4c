/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Running machines in systemd-machined's list, for machinectl. It belongs to the host's
 * administrator, and so does the system's umbrad alone; where it does not run, nothing is missing.
 */
#include <string.h>

#include <systemd/sd-id128.h>

#include "base/log.h"
#include "daemon/dbus_internal.h"
#include "daemon/machine.h"

#define MACHINED       "org.freedesktop.machine1"
#define MACHINED_PATH  "/org/freedesktop/machine1"
#define MACHINED_IFACE "org.freedesktop.machine1.Manager"

/* These say that it is as we want it. */
static bool is_harmless(const sd_bus_error *e)
{
	return sd_bus_error_has_name(e, "org.freedesktop.machine1.NoSuchMachine") ||
	       sd_bus_error_has_name(e, "org.freedesktop.machine1.MachineExists");
}

static int on_answer(sd_bus_message *m, void *bus, sd_bus_error *ret_error)
{
	const sd_bus_error *e = sd_bus_message_get_error(m);
	struct dbus *b = bus;

	if (!e || is_harmless(e))
		return 1;
	if (!b->told_machined)
		log_info("machines are not registered with systemd-machined: %s",
			 e->message ? e->message : e->name);
	b->told_machined = true;
	return 1;
}

static void enlist(struct dbus *b, const struct machine *m)
{
	/* machined wants to know nothing of its id, name, service, class, leader and root. */
	sd_bus_call_method_async(b->bus, NULL, MACHINED, MACHINED_PATH, MACHINED_IFACE,
				 "RegisterMachine", on_answer, b, "sayssus", m->def.name, 0,
				 "umbra", "vm", (uint32_t)m->pid, "");
	bus_loop_rearm(b->loop);
}

void dbus_machined_begin(struct dbus *b)
{
	struct machine *m;

	if (!b->d->paths.system)
		return;
	list_for_each_entry (m, &b->d->machines, link)
		if (m->state == MACHINE_RUNNING || m->state == MACHINE_PAUSED)
			enlist(b, m);
}

void dbus_machined_event(struct dbus *b, const struct api_event *ev)
{
	const struct machine *m = machine_find(b->d, ev->machine);

	if (m && m->state == MACHINE_RUNNING && !strcmp(ev->type, "state")) {
		enlist(b, m);
	} else if ((!m || m->state == MACHINE_STOPPED) && ev->machine[0] &&
		   (!strcmp(ev->type, "state") || !strcmp(ev->type, "deleted"))) {
		sd_bus_call_method_async(b->bus, NULL, MACHINED, MACHINED_PATH, MACHINED_IFACE,
					 "UnregisterMachine", on_answer, b, "s", ev->machine);
		bus_loop_rearm(b->loop);
	}
}
