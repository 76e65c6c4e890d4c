/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the device tests share: a clock by hand, a router that notes what it hears. */
#ifndef UMBRA_TEST_DEVICES_H
#define UMBRA_TEST_DEVICES_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"

#define TSC_HZ 2000000000ull

struct probe {
	unsigned rises[IRQ_GSI_COUNT];
	bool level[IRQ_GSI_COUNT];
	unsigned msis;
	uint64_t msi_addr;
	uint32_t msi_data;
	int msi_result;
};

static inline void probe_set_gsi(void *opaque, unsigned gsi, bool level)
{
	struct probe *p = opaque;

	assert_int_not_equal(p->level[gsi], level);
	p->level[gsi] = level;
	p->rises[gsi] += level;
}

static inline int probe_msi(void *opaque, uint64_t addr, uint32_t data)
{
	struct probe *p = opaque;

	p->msis++;
	p->msi_addr = addr;
	p->msi_data = data;
	return p->msi_result;
}

static const struct irq_router_ops probe_ops = {.set_gsi = probe_set_gsi, .msi = probe_msi};

/* Running, at time 0, moved by run_to() only. */
static inline void manual_clock(struct clock *c)
{
	struct clock_config cfg = {.tsc_hz = TSC_HZ};

	assert_int_equal(clock_init(c, &cfg), 0);
	clock_resume(c);
}

/* Move on to @ns and stop at every deadline between, as a machine without guests would. */
static inline void run_to(struct clock *c, uint64_t ns)
{
	for (;;) {
		uint64_t next = clock_next_deadline(c);

		if (next > ns)
			break;
		clock_advance(c, next);
		clock_run(c);
	}
	clock_advance(c, ns);
}

static inline uint8_t in8(const struct bus_ops *ops, void *dev, uint64_t offset)
{
	return (uint8_t)ops->read(dev, offset, 1);
}

static inline void out8(const struct bus_ops *ops, void *dev, uint64_t offset, uint8_t value)
{
	ops->write(dev, offset, 1, value);
}

#endif
