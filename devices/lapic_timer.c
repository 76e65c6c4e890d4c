/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The local APIC's timer: one-shot, periodic, TSC deadline (SDM 3A, 11.5.4). */
#include "devices/lapic_internal.h"

/*
 * A period may be as short as the guest likes, and the counter keeps to it, but interrupts come no
 * closer than this: what falls in between is coalesced. Without it one guest could keep the clock's
 * loop busy for nothing.
 */
#define PERIOD_FLOOR_NS 20000

static unsigned divide_shift(uint32_t divide)
{
	return (((divide & 3) | (divide >> 1 & 4)) + 1) & 7;
}

static uint64_t period_ns(const struct lapic *l)
{
	return (uint64_t)l->initial_count << divide_shift(l->divide);
}

static enum lapic_timer_mode timer_mode(const struct lapic *l)
{
	return lvt_timer_mode(get32(&l->lvt[LAPIC_LVT_TIMER]));
}

static uint64_t guest_tsc(const struct lapic *l)
{
	return clock_tsc(l->bus->clock) + l->tsc_offset;
}

/* The next moment something happens. Locked. */
static uint64_t next_event(const struct lapic *l)
{
	const struct clock *c = l->bus->clock;
	uint64_t now = guest_tsc(l);

	if (!l->tsc_deadline)
		return l->expire_ns;
	if (l->tsc_deadline <= now)
		return 0;
	return clock_ticks_to_ns(clock_add(clock_tsc(c), l->tsc_deadline - now), c->tsc_hz);
}

static void rearm_locked(struct lapic *l)
{
	uint64_t next = l->bus->passive ? CLOCK_NEVER : next_event(l);

	if (next != CLOCK_NEVER && timer_mode(l) == TIMER_PERIODIC)
		next = MAX(next, clock_now(l->bus->clock) + PERIOD_FLOOR_NS);
	clock_timer_arm(&l->timer, next);
}

/* Let everything happen that is due. Locked. */
static void catch_up(struct lapic *l)
{
	uint64_t now = clock_now(l->bus->clock), period;
	bool due = false;

	if (l->expire_ns <= now) {
		due = true;
		period = period_ns(l);
		if (timer_mode(l) == TIMER_PERIODIC && period)
			l->expire_ns = now + (period - (now - l->expire_ns) % period);
		else
			l->expire_ns = CLOCK_NEVER;
	}
	if (l->tsc_deadline && l->tsc_deadline <= guest_tsc(l)) {
		due = true;
		l->tsc_deadline = 0;
	}
	if (due)
		lapic_lvt_deliver(l, LAPIC_LVT_TIMER);
}

static void fire(void *opaque)
{
	struct lapic *l = opaque;

	pthread_mutex_lock(&l->lock);
	catch_up(l);
	rearm_locked(l);
	pthread_mutex_unlock(&l->lock);
}

int lapic_timer_init(struct lapic *l)
{
	l->expire_ns = CLOCK_NEVER;
	return clock_timer_init(l->bus->clock, &l->timer, fire, l);
}

static void stop_locked(struct lapic *l)
{
	l->expire_ns = CLOCK_NEVER;
	l->tsc_deadline = 0;
}

void lapic_timer_stop(struct lapic *l)
{
	pthread_mutex_lock(&l->lock);
	stop_locked(l);
	l->initial_count = 0;
	l->divide = 0;
	rearm_locked(l);
	pthread_mutex_unlock(&l->lock);
}

void lapic_timer_set_lvt(struct lapic *l, uint32_t lvt)
{
	enum lapic_timer_mode to = lvt_timer_mode(lvt), from;

	pthread_mutex_lock(&l->lock);
	catch_up(l);
	from = timer_mode(l);
	/* Between the two counting modes the counter runs on; to or from a deadline it stops. */
	if (from != to && (from == TIMER_TSC_DEADLINE || to == TIMER_TSC_DEADLINE))
		stop_locked(l);
	set32(&l->lvt[LAPIC_LVT_TIMER], lvt);
	rearm_locked(l);
	pthread_mutex_unlock(&l->lock);
}

void lapic_timer_set_initial(struct lapic *l, uint32_t count)
{
	pthread_mutex_lock(&l->lock);
	catch_up(l);
	if (timer_mode(l) != TIMER_TSC_DEADLINE) {
		l->initial_count = count;
		l->expire_ns = count ? clock_now(l->bus->clock) + period_ns(l) : CLOCK_NEVER;
	}
	rearm_locked(l);
	pthread_mutex_unlock(&l->lock);
}

static uint32_t current_locked(const struct lapic *l)
{
	uint64_t now = clock_now(l->bus->clock);
	unsigned shift = divide_shift(l->divide);

	if (l->expire_ns == CLOCK_NEVER || l->expire_ns <= now)
		return 0;
	return (uint32_t)((l->expire_ns - now + BIT(shift) - 1) >> shift);
}

/* The counts left stay the same; each takes another time from now on. */
void lapic_timer_set_divide(struct lapic *l, uint32_t divide)
{
	uint64_t left;

	pthread_mutex_lock(&l->lock);
	catch_up(l);
	left = current_locked(l);
	l->divide = divide;
	if (l->expire_ns != CLOCK_NEVER)
		l->expire_ns = clock_now(l->bus->clock) + (left << divide_shift(divide));
	rearm_locked(l);
	pthread_mutex_unlock(&l->lock);
}

uint32_t lapic_timer_current(struct lapic *l)
{
	uint32_t count;

	pthread_mutex_lock(&l->lock);
	catch_up(l);
	count = current_locked(l);
	pthread_mutex_unlock(&l->lock);
	return count;
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
	pthread_mutex_lock(&l->lock);
	if (timer_mode(l) == TIMER_TSC_DEADLINE) {
		catch_up(l);
		l->tsc_deadline = tsc;
		catch_up(l);
		rearm_locked(l);
	}
	pthread_mutex_unlock(&l->lock);
}

uint64_t lapic_timer_deadline(struct lapic *l)
{
	uint64_t tsc;

	pthread_mutex_lock(&l->lock);
	catch_up(l);
	tsc = l->tsc_deadline;
	pthread_mutex_unlock(&l->lock);
	return tsc;
}

void lapic_timer_rearm(struct lapic *l)
{
	pthread_mutex_lock(&l->lock);
	rearm_locked(l);
	pthread_mutex_unlock(&l->lock);
}

void lapic_set_tsc_offset(struct lapic *l, uint64_t offset)
{
	pthread_mutex_lock(&l->lock);
	catch_up(l);
	l->tsc_offset = offset;
	catch_up(l);
	rearm_locked(l);
	pthread_mutex_unlock(&l->lock);
}
