/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.umbra.Vmm1: the method table on a D-Bus message bus. */
#ifndef UMBRA_DAEMON_DBUS_H
#define UMBRA_DAEMON_DBUS_H

#include "daemon/umbrad.h"

#define DBUS_NAME "org.umbra.Vmm1"
#define DBUS_ROOT "/org/umbra/Vmm1"

struct dbus;

/*
 * Connect to the bus of our mode (the system's, or the user's) and take the name, on the loop and
 * without ever blocking it. Where there is no bus, that is told once and tried again now and then.
 * 0 or -ENOMEM. The dispatcher, the events and the loop of @d must outlive it.
 */
int dbus_create(struct dbus **out, struct umbrad *d);
/* Calls in flight are gone, machines stay registered. NULL-safe. */
void dbus_destroy(struct dbus *bus);
/* The configuration of who may do what has changed. NULL-safe. */
void dbus_recheck(struct dbus *bus);
/* Bus connections that have called us and are still there; 0 for NULL. */
size_t dbus_peers(const struct dbus *bus);

/* Introspection of all three kinds of objects, as files are installed; NULL: no memory. Owned. */
char *dbus_introspect(const struct api_table *table);

#endif
