/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What bare-metal test payloads poke: a port latch, plain MMIO, interrupt lines by port. */
#ifndef UMBRA_DEVICES_TESTDEV_H
#define UMBRA_DEVICES_TESTDEV_H

#include <pthread.h>

#include "base/types.h"
#include "devices/bus.h"
#include "devices/irq.h"
#include "devices/state.h"

#define TESTDEV_MMIO_SIZE 0x10000

struct testdev_state {
	uint32_t latch;
	uint32_t lines; /* level of line n in bit n */
	uint8_t mmio[TESTDEV_MMIO_SIZE];
};
extern const struct device_state_desc testdev_state_desc;

struct testdev {
	pthread_mutex_t lock;
	struct irq_line line[IRQ_GSI_COUNT];
	struct testdev_state s;
};

extern const struct bus_ops testdev_latch_ops; /* 0xe0..0xe3; dev: struct testdev */
extern const struct bus_ops testdev_flush_ops; /* 0xe4: page to forget; nothing to do */
extern const struct bus_ops testdev_irq_ops;   /* 0x2000 + IRQ: a byte, its level */
extern const struct bus_ops testdev_mmio_ops;  /* TESTDEV_MMIO_SIZE bytes */

int testdev_init(struct testdev *t, struct irq_router *router);
void testdev_finish(struct testdev *t);
void testdev_reset(struct testdev *t);
void testdev_save(struct testdev *t, struct testdev_state *s);
int testdev_load(struct testdev *t, const struct testdev_state *s);

#endif
