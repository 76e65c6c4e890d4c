/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is left of the keyboard controller: the reset lines, and nothing to find for a driver. */
#ifndef UMBRA_DEVICES_I8042_H
#define UMBRA_DEVICES_I8042_H

#include "base/types.h"
#include "devices/bus.h"
#include "devices/machine.h"

/* Stateless. */
struct i8042 {
	const struct machine_ops *ops;
	void *opaque;
};

extern const struct bus_ops i8042_data_ops;    /* 0x60; dev: struct i8042 */
extern const struct bus_ops i8042_command_ops; /* 0x64 */
extern const struct bus_ops i8042_port92_ops;  /* 0x92: A20 (always on) and fast reset */

void i8042_init(struct i8042 *k, const struct machine_ops *ops, void *opaque);

#endif
