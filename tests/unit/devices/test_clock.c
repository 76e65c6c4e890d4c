/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Time, timers in order, pausing, conversions. */
#include "test_devices.h"

static unsigned order[64], fired;

struct numbered {
	struct clock_timer timer;
	unsigned number;
	uint64_t again;
};

static void note(void *opaque)
{
	struct numbered *n = opaque;

	order[fired++ % 64] = n->number;
	if (n->again)
		clock_timer_arm(&n->timer, n->again);
}

static void test_order(void **state)
{
	static const uint64_t at[] = {500, 100, 300, 300, 200, 900, 100, 700, 50, 300};
	static const unsigned want[] = {8, 1, 6, 4, 2, 3, 9, 0, 7, 5};
	struct numbered n[ARRAY_SIZE(at)];
	struct clock c;

	manual_clock(&c);
	fired = 0;
	assert_true(clock_next_deadline(&c) == CLOCK_NEVER);
	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		n[i].number = i;
		n[i].again = 0;
		assert_int_equal(clock_timer_init(&c, &n[i].timer, note, &n[i]), 0);
		clock_timer_arm(&n[i].timer, at[i]);
	}
	assert_int_equal(clock_next_deadline(&c), 50);
	assert_int_equal(clock_run(&c), 50);
	assert_int_equal(fired, 0);
	clock_advance(&c, 300);
	assert_int_equal(clock_run(&c), 500);
	assert_int_equal(fired, 7);
	clock_advance(&c, 100); /* never back */
	assert_int_equal(clock_now(&c), 300);
	run_to(&c, 1000);
	assert_memory_equal(order, want, sizeof(want));
	/* Re-armed and disarmed ones. */
	fired = 0;
	clock_timer_arm(&n[0].timer, 2000);
	clock_timer_arm(&n[1].timer, 1500);
	clock_timer_arm(&n[0].timer, 1200);
	clock_timer_arm(&n[1].timer, CLOCK_NEVER);
	run_to(&c, 3000);
	assert_int_equal(fired, 1);
	assert_int_equal(order[0], 0);
	/* One that re-arms itself for the past does not keep the loop. */
	n[0].again = 1;
	clock_timer_arm(&n[0].timer, 1);
	assert_int_equal(clock_run(&c), 1);
	assert_int_equal(fired, 2);
	for (unsigned i = 0; i < ARRAY_SIZE(at); i++)
		clock_timer_finish(&n[i].timer);
	assert_true(clock_next_deadline(&c) == CLOCK_NEVER);
	clock_finish(&c);
}

static uint64_t source, announced, announcements;

static uint64_t source_ns(void *opaque)
{
	return source;
}

static void rearm(void *opaque, uint64_t deadline_ns)
{
	announced = deadline_ns;
	announcements++;
}

static void test_pause(void **state)
{
	static const struct clock_ops ops = {source_ns, rearm};
	struct clock_config cfg = {.ops = &ops, .tsc_hz = TSC_HZ};
	struct clock_state st;
	struct numbered n = {.number = 1};
	struct clock c;

	source = 1000;
	assert_int_equal(clock_init(&c, &cfg), 0);
	assert_int_equal(clock_timer_init(&c, &n.timer, note, &n), 0);
	clock_timer_arm(&n.timer, 250);
	assert_int_equal(clock_now(&c), 0);
	assert_int_equal(announcements, 0); /* paused: nothing to wait for */
	clock_resume(&c);
	assert_int_equal(announced, 250);
	assert_int_equal(clock_source_ns(&c, 250), 1250);
	source = 1100;
	assert_int_equal(clock_now(&c), 100);
	assert_int_equal(clock_tsc(&c), 200);
	clock_pause(&c);
	assert_true(announced == CLOCK_NEVER);
	source = 9000;
	assert_int_equal(clock_now(&c), 100);
	assert_true(clock_run(&c) == CLOCK_NEVER);
	clock_save(&c, &st);
	assert_int_equal(st.now_ns, 100);
	clock_resume(&c);
	source = 9100;
	assert_int_equal(clock_now(&c), 200);
	assert_int_equal(clock_source_ns(&c, 250), 9150);
	clock_pause(&c);
	assert_int_equal(clock_load(&c, &st), 0);
	assert_int_equal(clock_now(&c), 100);
	st.tsc_hz++;
	assert_int_equal(clock_load(&c, &st), -EINVAL);
	st.tsc_hz--;
	st.now_ns = ~0ull;
	assert_int_equal(clock_load(&c, &st), -EINVAL);
	fired = 0;
	clock_resume(&c);
	source = 9250;
	assert_true(clock_run(&c) == CLOCK_NEVER);
	assert_int_equal(fired, 1);
	clock_timer_finish(&n.timer);
	clock_finish(&c);
}

static void test_convert(void **state)
{
	static const uint64_t hz[] = {1,	  32768,      1193182,	  3579545,
				      1000000000, 2999999999, 16000000000};

	for (unsigned i = 0; i < ARRAY_SIZE(hz); i++) {
		for (uint64_t t = 1; t < 1ull << 48; t = t * 3 + 1) {
			uint64_t ns = clock_ticks_to_ns(t, hz[i]);

			if (ns == CLOCK_NEVER)
				continue;
			/* Faster than a GHz, a nanosecond may hold several ticks. */
			assert_true(clock_ns_to_ticks(ns, hz[i]) >= t);
			assert_true(clock_ns_to_ticks(ns - 1, hz[i]) < t);
		}
	}
	assert_true(clock_ticks_to_ns(~0ull, 1) == CLOCK_NEVER);
	assert_true(clock_add(~0ull, 5) == CLOCK_NEVER);
}

static void test_limits(void **state)
{
	struct clock_config cfg = {.tsc_hz = 0};
	struct clock c;

	assert_int_equal(clock_init(&c, &cfg), -EINVAL);
	cfg.tsc_hz = 17000000000;
	assert_int_equal(clock_init(&c, &cfg), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_convert),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
