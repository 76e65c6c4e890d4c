/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* D-Bus messages without a bus. */
#include "tests/unit/daemon/lone_bus.h"

#include <stdlib.h>
#include <sys/socket.h>

sd_bus *lone_bus(void)
{
	static sd_bus *bus;
	static int pair[2];

	if (bus)
		return bus;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) ||
	    sd_bus_new(&bus) < 0 || sd_bus_set_fd(bus, pair[0], pair[0]) < 0 ||
	    sd_bus_negotiate_fds(bus, 1) < 0 || sd_bus_start(bus) < 0)
		abort();
	return bus;
}

sd_bus_message *lone_message(void)
{
	sd_bus_message *m = NULL;

	if (sd_bus_message_new_signal(lone_bus(), &m, "/a", "a.b", "C") < 0)
		abort();
	return m;
}

int lone_message_seal(sd_bus_message *m)
{
	int ret = sd_bus_message_seal(m, 1, 0);

	return ret < 0 ? ret : sd_bus_message_rewind(m, 1);
}
