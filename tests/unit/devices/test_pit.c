/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The 8254: each mode's count and OUT, tick by tick, latches, gate, IRQ 0. */
#include "test_devices.h"

#include "devices/pit.h"

static struct clock clk;
static struct probe probe;
static struct irq_router router;
static struct pit pit;

static int setup(void **state)
{
	struct irq_line line;

	probe = (struct probe){0};
	manual_clock(&clk);
	if (irq_router_init(&router, &probe_ops, &probe))
		return -1;
	irq_line_init(&line, &router, 2);
	return pit_init(&pit, &clk, &line);
}

static int teardown(void **state)
{
	pit_finish(&pit);
	irq_router_finish(&router);
	clock_finish(&clk);
	return 0;
}

static uint64_t base; /* tick of the last load */

static void control(uint8_t value)
{
	out8(&pit_ops, &pit, 3, value);
}

static void load(unsigned n, uint16_t count)
{
	out8(&pit_ops, &pit, n, (uint8_t)count);
	out8(&pit_ops, &pit, n, (uint8_t)(count >> 8));
	base = clock_ns_to_ticks(clock_now(&clk), PIT_HZ);
}

/* To @ticks after the load. */
static void at(uint64_t ticks)
{
	run_to(&clk, clock_ticks_to_ns(base + ticks, PIT_HZ));
}

static uint16_t latched(unsigned n)
{
	uint16_t lsb;

	control((uint8_t)(n << 6));
	lsb = in8(&pit_ops, &pit, n);
	return (uint16_t)(in8(&pit_ops, &pit, n) << 8 | lsb);
}

static void gate2(bool on)
{
	out8(&pit_speaker_ops, &pit, 0, on);
}

/* OUT and, where @count is given, the count: ticks 1, 2, ... after the load or trigger. */
static void expect(unsigned n, const char *out, const uint16_t *count)
{
	for (unsigned i = 0; out[i]; i++) {
		at(i + 1);
		assert_int_equal(pit_out(&pit, n), out[i] == 'H');
		if (count)
			assert_int_equal(latched(n), count[i]);
	}
}

static void test_mode0(void **state)
{
	static const uint16_t count[] = {4, 3, 2, 1, 0, 0xffff, 0xfffe};

	gate2(true);
	control(0xb0);
	assert_false(pit_out(&pit, 2));
	load(2, 4);
	expect(2, "LLLLHHH", count);
	/* The first byte of a new count stops, with OUT low. */
	out8(&pit_ops, &pit, 2, 3);
	assert_false(pit_out(&pit, 2));
	at(50);
	assert_false(pit_out(&pit, 2));
	out8(&pit_ops, &pit, 2, 0);
	base = clock_ns_to_ticks(clock_now(&clk), PIT_HZ);
	expect(2, "LLLH", NULL);
	/* A closed gate holds the count. */
	load(2, 10);
	at(4);
	gate2(false);
	at(100);
	assert_int_equal(latched(2), 7);
	gate2(true);
	at(106);
	assert_false(pit_out(&pit, 2));
	at(107);
	assert_true(pit_out(&pit, 2));
}

static void test_mode1(void **state)
{
	gate2(false);
	control(0xb2);
	load(2, 3);
	at(20);
	assert_true(pit_out(&pit, 2)); /* waits for the trigger */
	gate2(true);
	base = clock_ns_to_ticks(clock_now(&clk), PIT_HZ);
	expect(2, "LLLHH", NULL);
	/* Triggered again on the way: the pulse gets longer. */
	gate2(false);
	gate2(true);
	base = clock_ns_to_ticks(clock_now(&clk), PIT_HZ);
	at(2);
	gate2(false);
	gate2(true);
	base = clock_ns_to_ticks(clock_now(&clk), PIT_HZ);
	expect(2, "LLLH", NULL);
}

static void test_mode2(void **state)
{
	static const uint16_t count[] = {3, 2, 1, 3, 2, 1, 3, 2};

	gate2(true);
	control(0xb4);
	load(2, 3);
	expect(2, "HHLHHLHH", count);
	/* A new count comes with the next period. */
	out8(&pit_ops, &pit, 2, 5);
	out8(&pit_ops, &pit, 2, 0);
	at(9);
	assert_int_equal(latched(2), 1);
	assert_false(pit_out(&pit, 2));
	at(10);
	assert_int_equal(latched(2), 5);
	at(14);
	assert_false(pit_out(&pit, 2));
	at(15);
	assert_true(pit_out(&pit, 2));
	/* The gate: OUT high at once, then from the start. */
	at(19);
	assert_false(pit_out(&pit, 2));
	gate2(false);
	assert_true(pit_out(&pit, 2));
	gate2(true);
	base = clock_ns_to_ticks(clock_now(&clk), PIT_HZ);
	expect(2, "HHHHLH", NULL);
}

static void test_mode3(void **state)
{
	static const uint16_t even[] = {4, 2, 4, 2, 4, 2}, odd[] = {4, 2, 0, 4, 2, 4, 2, 0, 4, 2};

	gate2(true);
	control(0xb6);
	load(2, 4);
	expect(2, "HHLLHH", even);
	control(0xb6);
	load(2, 5);
	expect(2, "HHHLLHHHLL", odd);
	control(0xbe); /* mode 7 is mode 3 */
	load(2, 4);
	expect(2, "HHLLHH", even);
}

static void test_mode4_5(void **state)
{
	gate2(true);
	control(0xb8);
	load(2, 3);
	expect(2, "HHHLHH", NULL);
	gate2(false);
	control(0xba);
	load(2, 2);
	at(9);
	assert_true(pit_out(&pit, 2));
	gate2(true);
	base = clock_ns_to_ticks(clock_now(&clk), PIT_HZ);
	expect(2, "HHLHHH", NULL);
}

static void test_bcd(void **state)
{
	gate2(true);
	control(0xb1);
	load(2, 0x1000);
	at(2);
	assert_int_equal(latched(2), 0x0999);
	at(1002);
	assert_int_equal(latched(2), 0x9999);
	load(2, 0);
	at(2);
	assert_int_equal(latched(2), 0x9999);
}

static void test_latches(void **state)
{
	gate2(true);
	control(0xb4);
	control(0xe8); /* status of 2: no count yet */
	assert_int_equal(in8(&pit_ops, &pit, 2), 0x80 | 0x40 | 0x34);
	load(2, 1000);
	at(11);
	control(0x80);
	at(50);
	control(0x80); /* a second latch is ignored until the first is read */
	assert_int_equal(in8(&pit_ops, &pit, 2), 990 & 0xff);
	assert_int_equal(in8(&pit_ops, &pit, 2), 990 >> 8);
	assert_int_equal(in8(&pit_ops, &pit, 2), 951 & 0xff);
	assert_int_equal(in8(&pit_ops, &pit, 2), 951 >> 8);
	control(0xc8); /* read-back of both: status comes first */
	assert_int_equal(in8(&pit_ops, &pit, 2), 0xb4);
	assert_int_equal(in8(&pit_ops, &pit, 2), 951 & 0xff);
	assert_int_equal(in8(&pit_ops, &pit, 2), 951 >> 8);
	assert_int_equal(in8(&pit_ops, &pit, 3), 0xff);
	/* LSB only and MSB only. */
	control(0x94);
	out8(&pit_ops, &pit, 2, 200);
	base = clock_ns_to_ticks(clock_now(&clk), PIT_HZ);
	at(2);
	assert_int_equal(in8(&pit_ops, &pit, 2), 199);
	assert_int_equal(in8(&pit_ops, &pit, 2), 199);
	control(0xa4);
	out8(&pit_ops, &pit, 2, 2);
	base = clock_ns_to_ticks(clock_now(&clk), PIT_HZ);
	at(2);
	assert_int_equal(in8(&pit_ops, &pit, 2), 1);
}

static void test_port61(void **state)
{
	uint8_t first;

	gate2(true);
	control(0xb0);
	load(2, 100);
	assert_int_equal(in8(&pit_speaker_ops, &pit, 0) & 0x2f, 0x01);
	at(101);
	assert_int_equal(in8(&pit_speaker_ops, &pit, 0) & 0x2f, 0x21);
	first = in8(&pit_speaker_ops, &pit, 0) & 0x10;
	run_to(&clk, clock_now(&clk) + 15085);
	assert_int_not_equal(in8(&pit_speaker_ops, &pit, 0) & 0x10, first);
	out8(&pit_speaker_ops, &pit, 0, 0xff);
	assert_int_equal(in8(&pit_speaker_ops, &pit, 0) & 0x0f, 3);
}

static void test_irq(void **state)
{
	unsigned before;

	/* As firmware leaves it: 18.2 a second. */
	run_to(&clk, 1000000000);
	assert_int_equal(probe.rises[2], 18);
	control(0x34);
	assert_true(probe.level[2]);
	load(0, 11932); /* 100 Hz */
	before = probe.rises[2];
	at(1193200 + 1);
	assert_int_equal(probe.rises[2] - before, 100);
	/* One shot. */
	control(0x30);
	assert_false(probe.level[2]);
	load(0, 1000);
	before = probe.rises[2];
	at(1000);
	assert_int_equal(probe.rises[2], before);
	at(1001);
	assert_int_equal(probe.rises[2], before + 1);
	at(100000);
	assert_int_equal(probe.rises[2], before + 1);
	/* A square wave. */
	control(0x36);
	load(0, 1000);
	before = probe.rises[2];
	at(10001);
	assert_int_equal(probe.rises[2], before + 10);
	/* Absurdly fast ones are coalesced, not suffered. */
	control(0x34);
	load(0, 1);
	before = probe.rises[2];
	at(PIT_HZ / 100);
	assert_in_range(probe.rises[2] - before, 100, 201);
	/* Reading does not swallow an edge that is due. */
	control(0x34);
	load(0, 1000);
	before = probe.rises[2];
	clock_advance(&clk, clock_ticks_to_ns(base + 1500, PIT_HZ));
	latched(0);
	assert_int_equal(probe.rises[2], before + 1);
}

static void test_state(void **state)
{
	struct pit_state st, bad;
	struct clock_state time;
	unsigned before;

	control(0x34);
	load(0, 1000);
	at(1500);
	clock_save(&clk, &time);
	pit_save(&pit, &st);
	before = probe.rises[2];
	at(2100);
	assert_int_equal(probe.rises[2], before + 1);
	clock_pause(&clk);
	assert_int_equal(clock_load(&clk, &time), 0);
	assert_int_equal(pit_load(&pit, &st), 0);
	clock_resume(&clk);
	before = probe.rises[2];
	at(2000);
	assert_int_equal(probe.rises[2], before);
	at(2001);
	assert_int_equal(probe.rises[2], before + 1);
	bad = st;
	bad.counter[0].count = 0;
	assert_int_equal(pit_load(&pit, &bad), -EINVAL);
	bad = st;
	bad.counter[2].mode = 6;
	assert_int_equal(pit_load(&pit, &bad), -EINVAL);
	bad = st;
	bad.counter[1].start = ~0ull;
	assert_int_equal(pit_load(&pit, &bad), -EINVAL);
	pit_reset(&pit);
	control(0xe2);
	assert_int_equal(in8(&pit_ops, &pit, 0) & 0x3f, 0x36);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_mode0), T(test_mode1),	T(test_mode2),	T(test_mode3), T(test_mode4_5),
		T(test_bcd),   T(test_latches), T(test_port61), T(test_irq),   T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
