/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The machine's clock: a source with an offset, and a heap of timers. */
#include "devices/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_S 1000000000ull
#define HZ_MAX	 16000000000ull

const struct device_state_desc clock_state_desc = {"clock", 1, sizeof(struct clock_state)};

int clock_init(struct clock *c, const struct clock_config *cfg)
{
	memset(c, 0, sizeof(*c));
	if (cfg->tsc_hz < 1000000 || cfg->tsc_hz > HZ_MAX)
		return -EINVAL;
	c->ops = cfg->ops;
	c->opaque = cfg->opaque;
	c->tsc_hz = cfg->tsc_hz;
	c->announced = CLOCK_NEVER;
	return -pthread_mutex_init(&c->lock, NULL);
}

void clock_finish(struct clock *c)
{
	free(c->heap);
	c->heap = NULL;
	pthread_mutex_destroy(&c->lock);
}

uint64_t clock_host_ns(void *opaque)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t source_now(const struct clock *c)
{
	if (!c->ops)
		return __atomic_load_n(&c->manual_ns, __ATOMIC_ACQUIRE);
	return c->ops->now_ns(c->opaque);
}

static bool paused(const struct clock *c)
{
	return __atomic_load_n(&c->frozen_ns, __ATOMIC_ACQUIRE) != CLOCK_NEVER;
}

uint64_t clock_now(const struct clock *c)
{
	uint64_t frozen = __atomic_load_n(&c->frozen_ns, __ATOMIC_ACQUIRE);

	if (frozen != CLOCK_NEVER)
		return frozen;
	return source_now(c) + (uint64_t)__atomic_load_n(&c->offset, __ATOMIC_RELAXED);
}

uint64_t clock_tsc(const struct clock *c)
{
	return clock_ns_to_ticks(clock_now(c), c->tsc_hz);
}

uint64_t clock_source_ns(const struct clock *c, uint64_t ns)
{
	int64_t offset = __atomic_load_n(&c->offset, __ATOMIC_RELAXED);

	if (ns == CLOCK_NEVER)
		return CLOCK_NEVER;
	if (offset >= 0)
		return ns > (uint64_t)offset ? ns - (uint64_t)offset : 0;
	return clock_add(ns, 0 - (uint64_t)offset);
}

void clock_advance(struct clock *c, uint64_t now_ns)
{
	uint64_t source = now_ns - (uint64_t)__atomic_load_n(&c->offset, __ATOMIC_RELAXED);

	if (!c->ops && !paused(c) && now_ns > clock_now(c))
		__atomic_store_n(&c->manual_ns, source, __ATOMIC_RELEASE);
}

/* What there is to wait for: nothing while time stands still. Locked. */
static uint64_t first_deadline(const struct clock *c)
{
	return c->armed && !paused(c) ? c->heap[0]->deadline : CLOCK_NEVER;
}

/* Locked. */
static void announce_always(struct clock *c)
{
	c->announced = first_deadline(c);
	if (c->ops && c->ops->rearm)
		c->ops->rearm(c->opaque, c->announced);
}

/* Locked. */
static void announce(struct clock *c)
{
	if (first_deadline(c) != c->announced)
		announce_always(c);
}

void clock_pause(struct clock *c)
{
	pthread_mutex_lock(&c->lock);
	__atomic_store_n(&c->frozen_ns, clock_now(c), __ATOMIC_RELEASE);
	announce(c);
	pthread_mutex_unlock(&c->lock);
}

void clock_resume(struct clock *c)
{
	pthread_mutex_lock(&c->lock);
	if (paused(c)) {
		uint64_t frozen = __atomic_load_n(&c->frozen_ns, __ATOMIC_ACQUIRE);

		__atomic_store_n(&c->offset, (int64_t)(frozen - source_now(c)), __ATOMIC_RELAXED);
		__atomic_store_n(&c->frozen_ns, CLOCK_NEVER, __ATOMIC_RELEASE);
		announce_always(c);
	}
	pthread_mutex_unlock(&c->lock);
}

void clock_save(struct clock *c, struct clock_state *s)
{
	*s = (struct clock_state){.now_ns = clock_now(c), .tsc_hz = c->tsc_hz};
}

int clock_load(struct clock *c, const struct clock_state *s)
{
	/* Half the range is left for the machine to run in: 292 years. */
	if (s->tsc_hz != c->tsc_hz || s->now_ns > INT64_MAX)
		return -EINVAL;
	__atomic_store_n(&c->frozen_ns, s->now_ns, __ATOMIC_RELEASE);
	return 0;
}

static bool before(const struct clock_timer *a, const struct clock_timer *b)
{
	return a->deadline < b->deadline || (a->deadline == b->deadline && a->seq < b->seq);
}

static void heap_put(struct clock *c, size_t at, struct clock_timer *t)
{
	c->heap[at] = t;
	t->slot = at + 1;
}

static void heap_up(struct clock *c, size_t at, struct clock_timer *t)
{
	while (at) {
		size_t parent = (at - 1) / 2;

		if (!before(t, c->heap[parent]))
			break;
		heap_put(c, at, c->heap[parent]);
		at = parent;
	}
	heap_put(c, at, t);
}

static void heap_down(struct clock *c, size_t at, struct clock_timer *t)
{
	for (;;) {
		size_t child = at * 2 + 1;

		if (child >= c->armed)
			break;
		if (child + 1 < c->armed && before(c->heap[child + 1], c->heap[child]))
			child++;
		if (!before(c->heap[child], t))
			break;
		heap_put(c, at, c->heap[child]);
		at = child;
	}
	heap_put(c, at, t);
}

static void heap_remove(struct clock *c, struct clock_timer *t)
{
	size_t at = t->slot - 1;
	struct clock_timer *last = c->heap[--c->armed];

	t->slot = 0;
	if (last == t)
		return;
	heap_up(c, at, last);
	heap_down(c, last->slot - 1, last);
}

int clock_timer_init(struct clock *c, struct clock_timer *t, void (*fire)(void *), void *opaque)
{
	int ret = 0;

	*t = (struct clock_timer){.fire = fire, .opaque = opaque};
	pthread_mutex_lock(&c->lock);
	if (c->timers == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 16;
		struct clock_timer **heap = realloc(c->heap, cap * sizeof(*heap));

		if (heap) {
			c->heap = heap;
			c->cap = cap;
		} else {
			ret = -ENOMEM;
		}
	}
	if (!ret) {
		c->timers++;
		t->clock = c;
	}
	pthread_mutex_unlock(&c->lock);
	return ret;
}

void clock_timer_finish(struct clock_timer *t)
{
	struct clock *c = t->clock;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	if (t->slot)
		heap_remove(c, t);
	c->timers--;
	announce(c);
	pthread_mutex_unlock(&c->lock);
	t->clock = NULL;
}

void clock_timer_arm(struct clock_timer *t, uint64_t deadline_ns)
{
	struct clock *c = t->clock;

	pthread_mutex_lock(&c->lock);
	if (t->slot ? t->deadline != deadline_ns : deadline_ns != CLOCK_NEVER) {
		if (t->slot)
			heap_remove(c, t);
		if (deadline_ns != CLOCK_NEVER) {
			t->deadline = deadline_ns;
			t->seq = c->seq++;
			heap_up(c, c->armed++, t);
		}
		announce(c);
	}
	pthread_mutex_unlock(&c->lock);
}

uint64_t clock_next_deadline(struct clock *c)
{
	uint64_t next;

	pthread_mutex_lock(&c->lock);
	next = c->armed ? c->heap[0]->deadline : CLOCK_NEVER;
	pthread_mutex_unlock(&c->lock);
	return next;
}

uint64_t clock_run(struct clock *c)
{
	uint64_t now = clock_now(c), limit, next;

	pthread_mutex_lock(&c->lock);
	/* What is armed from here on waits for the next call: no timer can keep us here. */
	limit = c->seq;
	while (c->armed && c->heap[0]->deadline <= now && c->heap[0]->seq < limit) {
		struct clock_timer *t = c->heap[0];

		heap_remove(c, t);
		pthread_mutex_unlock(&c->lock);
		t->fire(t->opaque);
		pthread_mutex_lock(&c->lock);
	}
	/* Even the same deadline: the source's alarm for it has gone off. */
	announce_always(c);
	next = c->announced;
	pthread_mutex_unlock(&c->lock);
	return next;
}

/* Whole seconds apart, so that the products stay below 2^64 for every frequency allowed. */
uint64_t clock_ns_to_ticks(uint64_t ns, uint64_t hz)
{
	return ns / NS_PER_S * hz + ns % NS_PER_S * hz / NS_PER_S;
}

uint64_t clock_ticks_to_ns(uint64_t ticks, uint64_t hz)
{
	uint64_t s = ticks / hz;

	if (s > UINT64_MAX / NS_PER_S - 2)
		return CLOCK_NEVER;
	return s * NS_PER_S + (ticks % hz * NS_PER_S + hz - 1) / hz;
}
