/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The 8259A pair (Intel 231468): fixed and rotating priorities, EOI modes, special mask, poll. */
#include "devices/pic.h"

#include <errno.h>
#include <string.h>

#define CASCADE 2

#define ICW4_AEOI 0x02
#define ICW4_SFNM 0x10

/* What a PC lets be level-triggered: never the timer, keyboard, cascade, RTC or coprocessor. */
static const uint8_t elcr_bits[2] = {0xf8, 0xde};

const struct device_state_desc pic_state_desc = {"pic", 1, sizeof(struct pic_state)};

/* The pins of which the request is the level itself. The slave's INT is one. */
static uint8_t level_pins(const struct pic *p, const struct pic_chip_state *c)
{
	return c == &p->s.chip[0] ? c->elcr | 1u << CASCADE : c->elcr;
}

/* The highest in @bits as a distance from the top, 0..7; 8 for none. */
static unsigned priority(const struct pic_chip_state *c, uint8_t bits)
{
	unsigned distance = 0;

	while (distance < 8 && !(bits & 1u << ((c->lowest + 1 + distance) & 7)))
		distance++;
	return distance;
}

static unsigned at_priority(const struct pic_chip_state *c, unsigned distance)
{
	return (c->lowest + 1 + distance) & 7;
}

/* The request that the chip would put through now, or -1. */
static int best_request(const struct pic *p, const struct pic_chip_state *c)
{
	unsigned want = priority(c, c->irr & ~c->imr);
	uint8_t blocking = c->isr;

	if (want == 8)
		return -1;
	if (c->special_mask)
		blocking &= ~c->imr;
	/* The master takes another of a slave in service: the slave itself has compared them. */
	if (c == &p->s.chip[0] && (c->icw4 & ICW4_SFNM))
		blocking &= ~(1u << CASCADE);
	return want < priority(c, blocking) ? (int)at_priority(c, want) : -1;
}

static void set_line(struct pic *p, struct pic_chip_state *c, unsigned pin, bool level)
{
	uint8_t bit = (uint8_t)(1u << pin);

	if (level_pins(p, c) & bit)
		c->irr = level ? c->irr | bit : c->irr & ~bit;
	else if (level && !(c->lines & bit))
		c->irr |= bit;
	c->lines = level ? c->lines | bit : c->lines & ~bit;
}

/* Work the INT pins out anew, the slave's first. */
static void update(struct pic *p)
{
	struct pic_chip_state *master = &p->s.chip[0], *slave = &p->s.chip[1];
	bool out;

	slave->output = best_request(p, slave) >= 0;
	set_line(p, master, CASCADE, slave->output);
	out = best_request(p, master) >= 0;
	if (out != master->output) {
		master->output = out;
		p->intr(p->opaque, out);
	}
}

static void acknowledge(struct pic *p, struct pic_chip_state *c, unsigned pin)
{
	uint8_t bit = (uint8_t)(1u << pin);

	if (!(level_pins(p, c) & bit))
		c->irr &= ~bit;
	if (!(c->icw4 & ICW4_AEOI))
		c->isr |= bit;
	else if (c->rotate_aeoi)
		c->lowest = (uint8_t)pin;
}

static void write_icw1(struct pic *p, struct pic_chip_state *c, uint8_t value)
{
	c->imr = 0;
	c->isr = 0;
	c->irr = c->lines & level_pins(p, c); /* edges are forgotten */
	c->lowest = 7;
	c->special_mask = 0;
	c->read_isr = 0;
	c->poll = 0;
	c->rotate_aeoi = 0;
	c->icw4 = 0;
	c->need_icw4 = value & 1;
	c->single = value >> 1 & 1;
	/* LTIM (bit 3) gave way to the ELCRs on a PC. */
	c->init_step = 2;
}

static void write_ocw2(struct pic_chip_state *c, uint8_t value)
{
	unsigned pin = value & 7, top;

	switch (value >> 5) {
	case 0: c->rotate_aeoi = 0; break;
	case 4: c->rotate_aeoi = 1; break;
	case 1:
	case 5: /* non-specific; what is masked under the special mask mode is not looked at */
		top = priority(c, c->isr & (c->special_mask ? ~c->imr : 0xff));
		if (top == 8)
			break;
		pin = at_priority(c, top);
		c->isr &= ~(1u << pin);
		if (value >> 5 == 5)
			c->lowest = (uint8_t)pin;
		break;
	case 3: c->isr &= ~(1u << pin); break;
	case 7:
		c->isr &= ~(1u << pin);
		c->lowest = (uint8_t)pin;
		break;
	case 6: c->lowest = (uint8_t)pin; break;
	default: break;
	}
}

static void write_ocw3(struct pic_chip_state *c, uint8_t value)
{
	if (value & 4)
		c->poll = 1;
	if (value & 2)
		c->read_isr = value & 1;
	if (value & 0x40)
		c->special_mask = value >> 5 & 1;
}

static void write_data(struct pic_chip_state *c, uint8_t value)
{
	uint8_t after_icw3 = c->need_icw4 ? 4 : 0;

	switch (c->init_step) {
	case 2:
		c->icw2 = value & 0xf8;
		c->init_step = c->single ? after_icw3 : 3;
		break;
	case 3: /* how the chips are wired is no choice of the guest's */
		c->init_step = after_icw3;
		break;
	case 4:
		c->icw4 = value & 0x1f;
		c->init_step = 0;
		break;
	default: c->imr = value; break;
	}
}

static void chip_write(struct pic *p, unsigned which, uint64_t offset, uint64_t value)
{
	struct pic_chip_state *c = &p->s.chip[which];

	pthread_mutex_lock(&p->lock);
	if (offset)
		write_data(c, (uint8_t)value);
	else if (value & 0x10)
		write_icw1(p, c, (uint8_t)value);
	else if (value & 0x08)
		write_ocw3(c, (uint8_t)value);
	else
		write_ocw2(c, (uint8_t)value);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

/* A poll is the INTA of those who have no INT wired. */
static uint8_t poll(struct pic *p, struct pic_chip_state *c)
{
	int pin = best_request(p, c);

	c->poll = 0;
	if (pin < 0)
		return 0;
	acknowledge(p, c, (unsigned)pin);
	update(p);
	return 0x80 | (uint8_t)pin;
}

static uint64_t chip_read(struct pic *p, unsigned which, uint64_t offset)
{
	struct pic_chip_state *c = &p->s.chip[which];
	uint8_t value;

	pthread_mutex_lock(&p->lock);
	if (c->poll)
		value = poll(p, c);
	else if (offset)
		value = c->imr;
	else
		value = c->read_isr ? c->isr : c->irr;
	pthread_mutex_unlock(&p->lock);
	return value;
}

static uint64_t master_read(void *dev, uint64_t offset, unsigned size)
{
	return chip_read(dev, 0, offset);
}

static void master_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	chip_write(dev, 0, offset, value);
}

static uint64_t slave_read(void *dev, uint64_t offset, unsigned size)
{
	return chip_read(dev, 1, offset);
}

static void slave_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	chip_write(dev, 1, offset, value);
}

static uint64_t elcr_read(void *dev, uint64_t offset, unsigned size)
{
	struct pic *p = dev;
	uint8_t value;

	pthread_mutex_lock(&p->lock);
	value = p->s.chip[offset].elcr;
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void elcr_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct pic *p = dev;

	pthread_mutex_lock(&p->lock);
	p->s.chip[offset].elcr = (uint8_t)value & elcr_bits[offset];
	pthread_mutex_unlock(&p->lock);
}

const struct bus_ops pic_master_ops = {master_read, master_write, 1};
const struct bus_ops pic_slave_ops = {slave_read, slave_write, 1};
const struct bus_ops pic_elcr_ops = {elcr_read, elcr_write, 1};

void pic_set_irq(struct pic *p, unsigned irq, bool level)
{
	if (irq > 15 || irq == CASCADE)
		return;
	pthread_mutex_lock(&p->lock);
	set_line(p, &p->s.chip[irq >> 3], irq & 7, level);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

uint8_t pic_ack(struct pic *p)
{
	struct pic_chip_state *c = &p->s.chip[0];
	int pin;

	pthread_mutex_lock(&p->lock);
	pin = best_request(p, c);
	if (pin >= 0)
		acknowledge(p, c, (unsigned)pin);
	if (pin == CASCADE) {
		c = &p->s.chip[1];
		pin = best_request(p, c);
		if (pin >= 0)
			acknowledge(p, c, (unsigned)pin);
	}
	update(p);
	pthread_mutex_unlock(&p->lock);
	return (uint8_t)(c->icw2 + (pin < 0 ? 7 : pin));
}

void pic_reset(struct pic *p)
{
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < 2; i++) {
		struct pic_chip_state *c = &p->s.chip[i];
		uint8_t lines = c->lines, output = c->output;

		*c = (struct pic_chip_state){
			.lines = lines,
			.output = output,
			.lowest = 7,
			.icw2 = i ? 0x70 : 0x08,
			.icw4 = 0x01,
			.need_icw4 = 1,
			.imr = i ? 0xff : 0xfa,
		};
	}
	update(p);
	pthread_mutex_unlock(&p->lock);
}

int pic_init(struct pic *p, void (*intr)(void *opaque, bool level), void *opaque)
{
	int ret;

	memset(p, 0, sizeof(*p));
	p->intr = intr;
	p->opaque = opaque;
	ret = -pthread_mutex_init(&p->lock, NULL);
	if (!ret)
		pic_reset(p);
	return ret;
}

void pic_finish(struct pic *p)
{
	pthread_mutex_destroy(&p->lock);
}

void pic_save(struct pic *p, struct pic_state *s)
{
	pthread_mutex_lock(&p->lock);
	*s = p->s;
	pthread_mutex_unlock(&p->lock);
}

static bool chip_valid(const struct pic_chip_state *c, unsigned which)
{
	return c->lowest <= 7 && !(c->icw2 & 7) && c->icw4 <= 0x1f && c->init_step != 1 &&
	       c->init_step <= 4 && !(c->elcr & ~elcr_bits[which]);
}

int pic_load(struct pic *p, const struct pic_state *s)
{
	if (!chip_valid(&s->chip[0], 0) || !chip_valid(&s->chip[1], 1))
		return -EINVAL;
	pthread_mutex_lock(&p->lock);
	p->s = *s;
	p->s.chip[0].output = best_request(p, &p->s.chip[0]) >= 0;
	p->intr(p->opaque, p->s.chip[0].output);
	update(p);
	pthread_mutex_unlock(&p->lock);
	return 0;
}
