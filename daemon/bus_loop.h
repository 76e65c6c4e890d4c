/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An sd_bus connection on the libevent loop. */
#ifndef UMBRA_DAEMON_BUS_LOOP_H
#define UMBRA_DAEMON_BUS_LOOP_H

#include <systemd/sd-bus.h>

struct event_base;
struct bus_loop;

/*
 * Process what comes on @bus (borrowed; it must outlive this). @lost is called once when the
 * connection has broken; it may destroy the loop. 0 or -errno.
 */
int bus_loop_create(struct bus_loop **out, struct event_base *base, sd_bus *bus,
		    void (*lost)(void *data, int error), void *data);
/* NULL-safe. */
void bus_loop_destroy(struct bus_loop *loop);
/* After anything that may have put something into sd-bus's queue, outside its callbacks. */
void bus_loop_rearm(struct bus_loop *loop);

#endif
