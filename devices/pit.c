/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The 8254 (Intel 231164). Nothing ticks: what a counter shows is worked out from the time since it
 * was loaded. As in the datasheet a load takes one tick, so the count N is there one tick after the
 * write and the terminal count N + 1 ticks after it.
 */
#include "devices/pit.h"

#include <errno.h>
#include <string.h>

/* Interrupts of a very short period come no closer than this; see the local APIC's. */
#define PERIOD_FLOOR_NS 50000
/* How long port 0x61's refresh bit stays in each state. */
#define REFRESH_NS 15085

const struct device_state_desc pit_state_desc = {"pit", 1, sizeof(struct pit_state)};

static uint64_t ticks_now(const struct pit *p)
{
	return clock_ns_to_ticks(clock_now(p->clock), PIT_HZ);
}

static bool periodic(const struct pit_counter_state *c)
{
	return c->mode == 2 || c->mode == 3;
}

static bool triggered(const struct pit_counter_state *c)
{
	return c->mode == 1 || c->mode == 5;
}

static uint64_t elapsed(const struct pit_counter_state *c, uint64_t now)
{
	return c->held + (c->counting && now > c->start ? now - c->start : 0);
}

/*
 * A period that ended takes over the count that was written meanwhile. Edges of OUT that lie behind
 * are forgotten: for counter 0, serve() comes first.
 */
static void turn_period(struct pit_counter_state *c, uint64_t now)
{
	uint64_t e = elapsed(c, now);

	if (!periodic(c) || !c->counting || !e)
		return;
	if (e - 1 < c->count)
		return;
	if (!c->next_count) {
		c->start += (e - 1) / c->count * c->count;
		return;
	}
	c->start += c->count;
	c->count = c->next_count;
	c->next_count = 0;
	turn_period(c, now);
}

static bool out_at(const struct pit_counter_state *c, uint64_t now)
{
	uint64_t e = elapsed(c, now), n = c->count, phase;

	if (!c->running)
		return c->mode != 0;
	switch (c->mode) {
	case 0: return e > n;
	case 1: return e == 0 || e > n;
	case 4:
	case 5: return e != n + 1;
	default:
		if (!c->counting || !e)
			return true;
		phase = (e - 1) % n;
		return c->mode == 2 ? phase != n - 1 : phase < (n + 1) / 2;
	}
}

static uint32_t square_count(uint64_t n, uint64_t phase)
{
	uint64_t half = (n + 1) / 2, top = n & ~1ull;

	if (phase >= half)
		phase -= half;
	return (uint32_t)(top - 2 * phase);
}

/* What the counting element shows, as the guest reads it. */
static uint16_t count_at(const struct pit_counter_state *c, uint64_t now)
{
	uint64_t e = elapsed(c, now), n = c->count, wrap = c->bcd ? 10000 : 65536;
	uint64_t value = n, bcd = 0;

	if (c->running && e > 1) {
		if (c->mode == 2)
			value = n - (e - 1) % n;
		else if (c->mode == 3)
			value = square_count(n, (e - 1) % n);
		else
			value = n % wrap + wrap - (e - 1) % wrap;
	} else if (c->running && c->mode == 3) {
		value = n & ~1ull;
	}
	value %= wrap;
	if (!c->bcd)
		return (uint16_t)value;
	for (unsigned shift = 0; shift < 16; shift += 4, value /= 10)
		bcd |= value % 10 << shift;
	return (uint16_t)bcd;
}

/* The first rising edge of OUT after tick @after; UINT64_MAX: none will come by itself. */
static uint64_t next_edge(const struct pit_counter_state *c, uint64_t after)
{
	uint64_t end = c->count + (c->mode == 4 ? 2 : 1), edge;

	if (!c->running || !c->counting || triggered(c))
		return UINT64_MAX;
	if (!periodic(c)) {
		edge = c->held < end ? c->start + end - c->held : c->start;
		return edge > after ? edge : UINT64_MAX;
	}
	if (after <= c->start)
		return c->start + end;
	return c->start + ((after - c->start - 1) / c->count + 1) * c->count + 1;
}

/* OUT0's level, on the wire. Locked. */
static void drive(struct pit *p, bool level)
{
	if (!p->passive)
		irq_set(&p->irq, level);
}

/* Deliver what is due of OUT0, and wait for the next. Locked. */
static void serve(struct pit *p)
{
	struct pit_counter_state *c = &p->s.counter[0];
	uint64_t now = ticks_now(p), ns = clock_now(p->clock), next;

	if (p->passive)
		return;
	if (next_edge(c, p->s.fired) <= now)
		irq_pulse(&p->irq);
	turn_period(c, now);
	p->s.fired = now;
	next = next_edge(c, now);
	next = next == UINT64_MAX ? CLOCK_NEVER : clock_ticks_to_ns(next, PIT_HZ);
	if (periodic(c) && next != CLOCK_NEVER)
		next = MAX(next, ns + PERIOD_FLOOR_NS);
	clock_timer_arm(&p->timer, next);
}

static void fire(void *opaque)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	serve(p);
	pthread_mutex_unlock(&p->lock);
}

static void load_count(struct pit_counter_state *c, uint16_t written, uint64_t now)
{
	uint32_t n = written;

	if (c->bcd)
		n = (written >> 12) * 1000 + (written >> 8 & 15) * 100 + (written >> 4 & 15) * 10 +
		    (written & 15);
	if (!n)
		n = c->bcd ? 10000 : 65536;
	if (periodic(c) && n == 1)
		n = 2; /* the datasheet forbids 1 */
	if (triggered(c) || (periodic(c) && c->running)) {
		turn_period(c, now);
		c->next_count = n;
		return;
	}
	c->count = n;
	c->held = 0;
	c->start = now;
	c->running = 1;
	c->counting = c->gate;
}

static void write_counter(struct pit_counter_state *c, uint8_t value, uint64_t now)
{
	switch (c->rw) {
	case 1: load_count(c, value, now); break;
	case 2: load_count(c, (uint16_t)(value << 8), now); break;
	default:
		if (!c->write_second) {
			c->write_second = 1;
			c->write_lsb = value;
			/* Mode 0 stops, with OUT low, until the second byte is there. */
			if (c->mode == 0)
				c->running = 0;
			break;
		}
		c->write_second = 0;
		load_count(c, (uint16_t)(value << 8 | c->write_lsb), now);
	}
}

static void latch_count(struct pit_counter_state *c, uint64_t now)
{
	if (c->latched_bytes)
		return;
	c->latched = count_at(c, now);
	c->latched_bytes = c->rw;
}

static void latch_status(struct pit_counter_state *c, uint64_t now)
{
	bool null_count = c->next_count || !c->running || !elapsed(c, now);

	if (c->status_latched)
		return;
	c->status = (uint8_t)(out_at(c, now) << 7 | null_count << 6 | c->rw << 4 | c->mode << 1 |
			      c->bcd);
	c->status_latched = 1;
}

static void write_control(struct pit *p, uint8_t value, uint64_t now)
{
	struct pit_counter_state *c = &p->s.counter[value >> 6 & 3];
	uint8_t gate, mode = value >> 1 & 7;

	if (value >> 6 == 3) { /* read-back */
		for (unsigned i = 0; i < PIT_COUNTERS; i++) {
			if (!(value & 2u << i))
				continue;
			turn_period(&p->s.counter[i], now);
			if (!(value & 0x20))
				latch_count(&p->s.counter[i], now);
			if (!(value & 0x10))
				latch_status(&p->s.counter[i], now);
		}
		return;
	}
	if (!(value & 0x30)) {
		turn_period(c, now);
		latch_count(c, now);
		return;
	}
	gate = c->gate;
	*c = (struct pit_counter_state){
		.gate = gate,
		.rw = value >> 4 & 3,
		.mode = mode > 5 ? mode - 4 : mode,
		.bcd = value & 1,
	};
}

static void pit_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct pit *p = dev;
	uint64_t now;

	pthread_mutex_lock(&p->lock);
	serve(p);
	now = ticks_now(p);
	if (offset == 3)
		write_control(p, (uint8_t)value, now);
	else
		write_counter(&p->s.counter[offset], (uint8_t)value, now);
	if (offset == 0 || (offset == 3 && value >> 6 == 0)) {
		/* The pin itself may have moved: a mode begins low or high. */
		p->s.fired = now;
		drive(p, out_at(&p->s.counter[0], now));
		serve(p);
	}
	pthread_mutex_unlock(&p->lock);
}

static uint8_t read_counter(struct pit_counter_state *c, uint64_t now)
{
	uint16_t value;
	bool msb;

	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	if (c->latched_bytes) {
		msb = !(c->latched_bytes & 1);
		c->latched_bytes &= msb ? 0 : 2;
		return (uint8_t)(msb ? c->latched >> 8 : c->latched);
	}
	turn_period(c, now);
	value = count_at(c, now);
	msb = c->rw == 2;
	if (c->rw == 3) {
		msb = c->read_second;
		c->read_second = !c->read_second;
	}
	return (uint8_t)(msb ? value >> 8 : value);
}

static uint64_t pit_read(void *dev, uint64_t offset, unsigned size)
{
	struct pit *p = dev;
	uint8_t value;

	if (offset == 3)
		return 0xff; /* write-only */
	pthread_mutex_lock(&p->lock);
	if (offset == 0)
		serve(p); /* an edge that is due must not be lost to turn_period() */
	value = read_counter(&p->s.counter[offset], ticks_now(p));
	pthread_mutex_unlock(&p->lock);
	return value;
}

const struct bus_ops pit_ops = {pit_read, pit_write, 1};

static void set_gate(struct pit_counter_state *c, bool gate, uint64_t now)
{
	if (c->gate == gate)
		return;
	c->gate = gate;
	if (!gate) {
		turn_period(c, now);
		if (!triggered(c)) {
			c->held = periodic(c) ? 0 : elapsed(c, now);
			c->counting = 0;
		}
		return;
	}
	if (triggered(c) || periodic(c)) {
		if (c->next_count)
			c->count = c->next_count;
		c->next_count = 0;
		c->held = 0;
		if (triggered(c) && c->count)
			c->running = 1;
	}
	if (c->running) {
		c->start = now;
		c->counting = 1;
	}
}

static uint64_t speaker_read(void *dev, uint64_t offset, unsigned size)
{
	struct pit *p = dev;
	uint64_t ns = clock_now(p->clock);
	uint8_t value;

	pthread_mutex_lock(&p->lock);
	value = p->s.port61 | (uint8_t)((ns / REFRESH_NS & 1) << 4);
	value |= (uint8_t)(out_at(&p->s.counter[2], clock_ns_to_ticks(ns, PIT_HZ)) << 5);
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void speaker_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct pit *p = dev;

	pthread_mutex_lock(&p->lock);
	p->s.port61 = value & 3;
	set_gate(&p->s.counter[2], value & 1, ticks_now(p));
	pthread_mutex_unlock(&p->lock);
}

const struct bus_ops pit_speaker_ops = {speaker_read, speaker_write, 1};

bool pit_out(struct pit *p, unsigned n)
{
	bool out;

	pthread_mutex_lock(&p->lock);
	if (n == 0)
		serve(p);
	turn_period(&p->s.counter[n], ticks_now(p));
	out = out_at(&p->s.counter[n], ticks_now(p));
	pthread_mutex_unlock(&p->lock);
	return out;
}

void pit_reset(struct pit *p)
{
	pthread_mutex_lock(&p->lock);
	memset(&p->s, 0, sizeof(p->s));
	for (unsigned i = 0; i < PIT_COUNTERS; i++) {
		p->s.counter[i].rw = 3;
		p->s.counter[i].gate = i != 2;
		p->s.counter[i].mode = 3;
	}
	load_count(&p->s.counter[0], 0, ticks_now(p));
	p->s.fired = ticks_now(p);
	/* OUT0 begins high, but that is no edge: the line waits for the first one. */
	drive(p, false);
	serve(p);
	pthread_mutex_unlock(&p->lock);
}

int pit_init(struct pit *p, struct clock *clock, const struct irq_line *irq)
{
	int ret;

	memset(p, 0, sizeof(*p));
	p->clock = clock;
	p->irq = *irq;
	ret = -pthread_mutex_init(&p->lock, NULL);
	if (ret)
		return ret;
	ret = clock_timer_init(clock, &p->timer, fire, p);
	if (ret) {
		pthread_mutex_destroy(&p->lock);
		return ret;
	}
	pit_reset(p);
	return 0;
}

void pit_finish(struct pit *p)
{
	clock_timer_finish(&p->timer);
	pthread_mutex_destroy(&p->lock);
}

void pit_set_passive(struct pit *p, bool passive)
{
	pthread_mutex_lock(&p->lock);
	p->passive = passive;
	if (passive) {
		irq_set(&p->irq, false);
		clock_timer_arm(&p->timer, CLOCK_NEVER);
	}
	pthread_mutex_unlock(&p->lock);
}

void pit_save(struct pit *p, struct pit_state *s)
{
	pthread_mutex_lock(&p->lock);
	serve(p);
	*s = p->s;
	pthread_mutex_unlock(&p->lock);
}

static bool counter_valid(const struct pit_counter_state *c, uint64_t now)
{
	return c->mode <= 5 && c->rw >= 1 && c->rw <= 3 && c->bcd <= 1 && c->gate <= 1 &&
	       c->running <= 1 && c->counting <= c->running && c->write_second <= 1 &&
	       c->read_second <= 1 && c->latched_bytes <= 3 && c->status_latched <= 1 &&
	       c->count <= 65536 && c->next_count <= 65536 && c->start <= now && c->held <= now &&
	       (!c->running || c->count > (periodic(c) ? 1 : 0)) &&
	       (!periodic(c) || c->next_count != 1);
}

int pit_load(struct pit *p, const struct pit_state *s)
{
	uint64_t now = ticks_now(p);

	for (unsigned i = 0; i < PIT_COUNTERS; i++)
		if (!counter_valid(&s->counter[i], now))
			return -EINVAL;
	if (s->port61 > 3 || s->fired > now)
		return -EINVAL;
	pthread_mutex_lock(&p->lock);
	p->s = *s;
	drive(p, out_at(&p->s.counter[0], s->fired));
	serve(p);
	pthread_mutex_unlock(&p->lock);
	return 0;
}
