/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ports and memory without meaning, and interrupt lines at the guest's own command. */
#include "devices/testdev.h"

#include <errno.h>
#include <string.h>

const struct device_state_desc testdev_state_desc = {"testdev", 1, sizeof(struct testdev_state)};

static uint64_t copy_out(struct testdev *t, const void *from, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	pthread_mutex_lock(&t->lock);
	memcpy(&value, (const uint8_t *)from + offset, size);
	pthread_mutex_unlock(&t->lock);
	return value;
}

static void copy_in(struct testdev *t, void *to, uint64_t offset, unsigned size, uint64_t value)
{
	pthread_mutex_lock(&t->lock);
	memcpy((uint8_t *)to + offset, &value, size);
	pthread_mutex_unlock(&t->lock);
}

/* Each width has the latch for itself: an access at 0xe1 is of byte 1, as the bus lays it out. */
static uint64_t latch_read(void *dev, uint64_t offset, unsigned size)
{
	struct testdev *t = dev;

	return copy_out(t, &t->s.latch, offset, size);
}

static void latch_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct testdev *t = dev;

	copy_in(t, &t->s.latch, offset, size, value);
}

static uint64_t mmio_read(void *dev, uint64_t offset, unsigned size)
{
	struct testdev *t = dev;

	return copy_out(t, t->s.mmio, offset, size);
}

static void mmio_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct testdev *t = dev;

	copy_in(t, t->s.mmio, offset, size, value);
}

static void flush_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	/* The page at this address is to be forgotten: it comes back by itself at any time. */
}

static void irq_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct testdev *t = dev;
	uint32_t bit = 1u << offset;

	pthread_mutex_lock(&t->lock);
	t->s.lines = value & 0xff ? t->s.lines | bit : t->s.lines & ~bit;
	irq_set(&t->line[offset], value & 0xff);
	pthread_mutex_unlock(&t->lock);
}

const struct bus_ops testdev_latch_ops = {latch_read, latch_write, 1 | 2 | 4};
const struct bus_ops testdev_flush_ops = {NULL, flush_write, 1 | 2 | 4};
const struct bus_ops testdev_irq_ops = {NULL, irq_write, 1};
const struct bus_ops testdev_mmio_ops = {mmio_read, mmio_write, 1 | 2 | 4 | 8};

static void drive_lines(struct testdev *t)
{
	for (unsigned i = 0; i < IRQ_GSI_COUNT; i++)
		irq_set(&t->line[i], t->s.lines >> i & 1);
}

void testdev_reset(struct testdev *t)
{
	pthread_mutex_lock(&t->lock);
	memset(&t->s, 0, sizeof(t->s));
	drive_lines(t);
	pthread_mutex_unlock(&t->lock);
}

int testdev_init(struct testdev *t, struct irq_router *router)
{
	memset(t, 0, sizeof(*t));
	/* Counted as ISA interrupts: line 0 is the timer's, GSI 2. */
	for (unsigned i = 0; i < IRQ_GSI_COUNT; i++)
		irq_line_init(&t->line[i], router, i ? i : 2);
	return -pthread_mutex_init(&t->lock, NULL);
}

void testdev_finish(struct testdev *t)
{
	pthread_mutex_destroy(&t->lock);
}

void testdev_save(struct testdev *t, struct testdev_state *s)
{
	pthread_mutex_lock(&t->lock);
	*s = t->s;
	pthread_mutex_unlock(&t->lock);
}

int testdev_load(struct testdev *t, const struct testdev_state *s)
{
	if (s->lines >> IRQ_GSI_COUNT)
		return -EINVAL;
	pthread_mutex_lock(&t->lock);
	t->s = *s;
	drive_lines(t);
	pthread_mutex_unlock(&t->lock);
	return 0;
}
