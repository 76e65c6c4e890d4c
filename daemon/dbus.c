/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.umbra.Vmm1: the connection to the bus, on the loop. */
#include "daemon/dbus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/log.h"
#include "daemon/dbus_internal.h"

#define RETRY_S 10

/* There is no bus, or no name on it for us: say so once, and try again. */
static void try_later(struct dbus *b, const char *why)
{
	const struct timeval later = {.tv_sec = RETRY_S};

	if (!b->told)
		log_info("no " DBUS_NAME " on the %s bus: %s",
			 b->d->paths.system ? "system" : "user's", why);
	b->told = true;
	evtimer_add(b->retry, &later);
}

static void disconnect(struct dbus *b)
{
	dbus_signals_end(b);
	while (!list_empty(&b->peers))
		dbus_peer_destroy(list_first(&b->peers, struct dbus_peer, link));
	bus_loop_destroy(b->loop);
	b->loop = NULL;
	b->bus = sd_bus_close_unref(b->bus);
}

static void on_lost(void *bus, int error)
{
	struct dbus *b = bus;

	disconnect(b);
	try_later(b, strerror(-error));
}

void dbus_send(struct dbus *b, sd_bus_message *m)
{
	int ret = sd_bus_send(b->bus, m, NULL);

	sd_bus_message_unref(m);
	if (ret < 0)
		log_debug("a D-Bus message could not be sent: %s", strerror(-ret));
	bus_loop_rearm(b->loop);
}

static int on_name(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	const sd_bus_error *e = sd_bus_message_get_error(m);
	struct dbus *b = arg;
	uint32_t answer = 0;

	if (e) {
		try_later(b, e->message ? e->message : e->name);
		return 1;
	}
	/* DBus-1 specification, RequestName: 1 is "primary owner", 4 "already owner". */
	if (sd_bus_message_read(m, "u", &answer) < 0 || (answer != 1 && answer != 4)) {
		try_later(b, "another umbrad has it");
		return 1;
	}
	b->told = false;
	if (dbus_signals_begin(b))
		log_warn("out of memory: no signals on the bus");
	dbus_machined_begin(b);
	log_debug("serving " DBUS_NAME);
	return 1;
}

/* What dbus_on_message() does not take, sd-bus refuses. */
static int on_foreign(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	return 0;
}

static void connect_bus(struct dbus *b)
{
	int ret = b->d->paths.system ? sd_bus_open_system(&b->bus) : sd_bus_open_user(&b->bus);

	if (ret >= 0)
		ret = bus_loop_create(&b->loop, b->d->base, b->bus, on_lost, b);
	if (ret >= 0)
		ret = sd_bus_add_filter(b->bus, NULL, dbus_on_message, b);
	/* So that sd-bus shows the way to it from "/". */
	if (ret >= 0)
		ret = sd_bus_add_fallback(b->bus, NULL, DBUS_ROOT, on_foreign, NULL);
	if (ret >= 0)
		ret = sd_bus_request_name_async(b->bus, NULL, DBUS_NAME, 0, on_name, b);
	if (ret >= 0) {
		bus_loop_rearm(b->loop);
		return;
	}
	disconnect(b);
	try_later(b, strerror(-ret));
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	disconnect(arg); /* we may be there without the name */
	connect_bus(arg);
}

int dbus_create(struct dbus **out, struct umbrad *d)
{
	struct dbus *b = calloc(1, sizeof(*b));
	int ret = b ? dbus_table_init(&b->table, d->dispatcher.table) : -ENOMEM;

	if (ret) {
		free(b);
		return ret;
	}
	b->d = d;
	b->show_machine = api_method_find(d->dispatcher.table, dbus_kinds[DBUS_MACHINE].show);
	list_init(&b->peers);
	b->retry = evtimer_new(d->base, on_retry, b);
	if (!b->retry) {
		dbus_destroy(b);
		return -ENOMEM;
	}
	connect_bus(b);
	*out = b;
	return 0;
}

void dbus_destroy(struct dbus *bus)
{
	if (!bus)
		return;
	disconnect(bus);
	if (bus->retry)
		event_free(bus->retry);
	dbus_table_finish(&bus->table);
	free(bus);
}

void dbus_recheck(struct dbus *bus)
{
	struct dbus_peer *peer;

	if (!bus)
		return;
	list_for_each_entry (peer, &bus->peers, link)
		if (peer->known)
			dbus_peer_identify(peer);
}

size_t dbus_peers(const struct dbus *bus)
{
	return bus ? bus->n_peers : 0;
}
