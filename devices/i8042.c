/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * No keyboard controller, but its reset line. The status port reads as "output full, input empty"
 * for ever: a driver that first empties the buffer gives up after a few bytes instead of waiting
 * for the answers to its commands, and code that waits for the input side before a reset goes on.
 */
#include "devices/i8042.h"

#define STATUS	    0xfd /* all ones but bit 1, input buffer full */
#define PULSE_RESET 0xfe
#define PORT92_FAST 0x01
#define PORT92_A20  0x02

static uint64_t command_read(void *dev, uint64_t offset, unsigned size)
{
	return STATUS;
}

/* 0xf0 to 0xff pulse the output lines whose bits are 0; bit 0 is the processor's reset. */
static void command_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	const struct i8042 *k = dev;

	if ((value & 0xf1) == (PULSE_RESET & 0xf1))
		k->ops->reset(k->opaque);
}

static uint64_t port92_read(void *dev, uint64_t offset, unsigned size)
{
	return PORT92_A20;
}

static void port92_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	const struct i8042 *k = dev;

	if (value & PORT92_FAST)
		k->ops->reset(k->opaque);
}

const struct bus_ops i8042_data_ops = {NULL, NULL, 1};
const struct bus_ops i8042_command_ops = {command_read, command_write, 1};
const struct bus_ops i8042_port92_ops = {port92_read, port92_write, 1};

void i8042_init(struct i8042 *k, const struct machine_ops *ops, void *opaque)
{
	*k = (struct i8042){.ops = ops, .opaque = opaque};
}
