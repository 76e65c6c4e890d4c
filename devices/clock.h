/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The machine's clock and its timers: the only time that devices know. */
#ifndef UMBRA_DEVICES_CLOCK_H
#define UMBRA_DEVICES_CLOCK_H

#include <pthread.h>

#include "base/types.h"
#include "devices/state.h"

#define CLOCK_NEVER UINT64_MAX

/*
 * Where time comes from. @now_ns never goes back and is called from any thread; it must not call
 * into the clock. @rearm (may be NULL) hears the earliest deadline whenever that changes
 * (CLOCK_NEVER: none, or paused), in order, with the clock's lock held: set a timerfd, wake a loop,
 * make a vCPU leave early; never call back.
 * Deadlines are on the machine's clock; clock_source_ns() gives the same moment on the source.
 */
struct clock_ops {
	uint64_t (*now_ns)(void *opaque);
	void (*rearm)(void *opaque, uint64_t deadline_ns);
};

struct clock_config {
	const struct clock_ops *ops; /* NULL: see clock_init() */
	void *opaque;
	uint64_t tsc_hz; /* 1 MHz to 16 GHz */
};

struct clock_timer {
	struct clock *clock;
	void (*fire)(void *opaque);
	void *opaque;
	uint64_t deadline, seq;
	size_t slot; /* in the heap + 1; 0: not armed */
};

/*
 * Starts paused at 0 (see clock_resume()). Locks: a device's lock may be held around any call here
 * but clock_run(), which holds no lock while a timer fires.
 */
struct clock {
	const struct clock_ops *ops;
	void *opaque;
	uint64_t tsc_hz;
	int64_t offset;	    /* machine's time minus the source's; atomic */
	uint64_t frozen_ns; /* while paused; CLOCK_NEVER: running; atomic */
	uint64_t manual_ns; /* the source when there are no ops; atomic */

	pthread_mutex_t lock;
	struct clock_timer **heap;
	size_t armed, timers, cap;
	uint64_t seq, announced;
};

struct clock_state {
	uint64_t now_ns;
	uint64_t tsc_hz; /* must be the same where it is loaded */
};
extern const struct device_state_desc clock_state_desc;

/* With @cfg->ops NULL, the clock stands still until clock_advance(). 0, -EINVAL or -ENOMEM. */
int clock_init(struct clock *c, const struct clock_config *cfg);
void clock_finish(struct clock *c);

/* A source on CLOCK_MONOTONIC, for clock_ops.now_ns. */
uint64_t clock_host_ns(void *opaque);

uint64_t clock_now(const struct clock *c);
/* The time-stamp counter that belongs to now; a vCPU adds its own offset. */
uint64_t clock_tsc(const struct clock *c);
/* Machine's time to the source's, saturating; CLOCK_NEVER stays. */
uint64_t clock_source_ns(const struct clock *c, uint64_t ns);
/* Without ops: move forward to @now_ns (never back) without firing anything. Any one thread. */
void clock_advance(struct clock *c, uint64_t now_ns);

/* Time stands still for the guest while paused. vCPUs stopped. */
void clock_pause(struct clock *c);
void clock_resume(struct clock *c);
void clock_save(struct clock *c, struct clock_state *s);
/* Paused. Armed timers keep their deadlines: load the devices afterwards. */
int clock_load(struct clock *c, const struct clock_state *s);

/* Reserves room, so that arming cannot fail. 0 or -ENOMEM. */
int clock_timer_init(struct clock *c, struct clock_timer *t, void (*fire)(void *), void *opaque);
/* @t must not be firing: stop the loop that runs the clock first. An all-zero timer is fine. */
void clock_timer_finish(struct clock_timer *t);
/*
 * (Re)arm for @deadline_ns; CLOCK_NEVER disarms. The callback may still come once after a disarm or
 * too early after a re-arm, when it was already on its way: it looks at the time and its own state.
 */
void clock_timer_arm(struct clock_timer *t, uint64_t deadline_ns);

/* The earliest deadline, paused or not; CLOCK_NEVER: none. */
uint64_t clock_next_deadline(struct clock *c);
/*
 * Fire, in the order of deadlines (then of arming), every timer that is due now, one after another.
 * Returns the next deadline (CLOCK_NEVER while paused). One thread at a time. A timer that re-arms
 * itself for the past fires again only in the next call.
 */
uint64_t clock_run(struct clock *c);

/* Ticks of a @hz counter (at most 16 GHz) that started at time 0. */
uint64_t clock_ns_to_ticks(uint64_t ns, uint64_t hz);
/* The first nanosecond at which that counter shows @ticks; CLOCK_NEVER when out of range. */
uint64_t clock_ticks_to_ns(uint64_t ticks, uint64_t hz);
/* @a + @b, or CLOCK_NEVER instead of an overflow. */
static inline uint64_t clock_add(uint64_t a, uint64_t b)
{
	return a + b < a ? CLOCK_NEVER : a + b;
}

#endif
