/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* D-Bus messages without a bus: what conversions are tested with. */
#ifndef UMBRA_TESTS_LONE_BUS_H
#define UMBRA_TESTS_LONE_BUS_H

#include <systemd/sd-bus.h>

/* A connection that nobody answers, so that messages can be made; the program's end frees it. */
sd_bus *lone_bus(void);
/* A new, empty message. Aborts when there is no memory. */
sd_bus_message *lone_message(void);
/* Finish it, so that it can be read from its start. 0 or -errno. */
int lone_message_seal(sd_bus_message *m);

#endif
