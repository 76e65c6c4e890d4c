/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ways out for test payloads: isa-debug-exit (0xf4) and the text "Shutdown" at 0x8900. */
#ifndef UMBRA_DEVICES_DEBUGEXIT_H
#define UMBRA_DEVICES_DEBUGEXIT_H

#include "base/types.h"
#include "devices/bus.h"
#include "devices/machine.h"
#include "devices/state.h"

struct debugexit_state {
	uint32_t matched; /* letters of "Shutdown" seen so far */
};
extern const struct device_state_desc debugexit_state_desc;

struct debugexit {
	const struct machine_ops *ops;
	void *opaque;
	struct debugexit_state s; /* atomic */
};

extern const struct bus_ops debugexit_ops; /* 4 ports, 1/2/4-byte writes; dev: struct debugexit */
extern const struct bus_ops shutdown_ops;  /* 1 port */

void debugexit_init(struct debugexit *d, const struct machine_ops *ops, void *opaque);
void debugexit_reset(struct debugexit *d);
void debugexit_save(struct debugexit *d, struct debugexit_state *s);
int debugexit_load(struct debugexit *d, const struct debugexit_state *s);

#endif
