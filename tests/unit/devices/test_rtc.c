/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The RTC: time in its forms, setting it, the three interrupts, memory sizes. */
#include "test_devices.h"

#include "devices/rtc.h"

#define S 1000000000ull
/* 2024-02-28 23:59:58, a Wednesday in a leap year. */
#define START 1709164798ll

static struct clock clk;
static struct probe probe;
static struct irq_router router;
static struct rtc rtc;

static int setup(void **state)
{
	struct rtc_config cfg = {
		.clock = &clk,
		.epoch_ns = START * (int64_t)S,
		.ram_below_4g = MIB(512),
		.ram_above_4g = GIB(2),
		.cpus = 4,
	};

	probe = (struct probe){0};
	manual_clock(&clk);
	if (irq_router_init(&router, &probe_ops, &probe))
		return -1;
	irq_line_init(&cfg.irq, &router, 8);
	return rtc_init(&rtc, &cfg);
}

static int teardown(void **state)
{
	rtc_finish(&rtc);
	irq_router_finish(&router);
	clock_finish(&clk);
	return 0;
}

static uint8_t get(uint8_t reg)
{
	out8(&rtc_ops, &rtc, 0, reg);
	return in8(&rtc_ops, &rtc, 1);
}

static void put(uint8_t reg, uint8_t value)
{
	out8(&rtc_ops, &rtc, 0, reg | 0x80);
	out8(&rtc_ops, &rtc, 1, value);
}

/* Reads hour to second and the date as one number of BCD digits, YYYYMMDDhhmmss. */
static uint64_t all(void)
{
	static const uint8_t regs[] = {0x32, 9, 8, 7, 4, 2, 0};
	uint64_t v = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
		v = v << 8 | get(regs[i]);
	return v;
}

static void test_time(void **state)
{
	assert_int_equal(all(), 0x20240228235958);
	assert_int_equal(get(6), 4);
	run_to(&clk, 2 * S - 1);
	assert_int_equal(all(), 0x20240228235959);
	assert_int_equal(get(0x0a), 0xa6); /* an update is near */
	run_to(&clk, 2 * S);
	assert_int_equal(get(0x0a), 0x26);
	assert_int_equal(all(), 0x20240229000000);
	put(0x0b, 0x06); /* binary */
	assert_int_equal(get(9), 24);
	put(0x0b, 0x00); /* 12 hours */
	assert_int_equal(get(4), 0x12);
	run_to(&clk, (2 + 13 * 3600) * S);
	assert_int_equal(get(4), 0x81);
	assert_int_equal(get(0x0d), 0x80);
	assert_int_equal(in8(&rtc_ops, &rtc, 0), 0xff);
}

static void test_set(void **state)
{
	put(0x0b, 0x82);
	run_to(&clk, 10 * S);
	assert_int_equal(get(0), 0x58); /* stands still */
	put(0x32, 0x19);
	put(9, 0x99);
	put(8, 0x12);
	put(7, 0x31);
	put(4, 0x23);
	put(2, 0x59);
	put(0, 0x59);
	put(0x0b, 0x02);
	assert_int_equal(all(), 0x19991231235959);
	run_to(&clk, 11 * S);
	assert_int_equal(all(), 0x20000101000000);
	put(4, 0x07); /* without SET */
	assert_int_equal(all(), 0x20000101070000);
	put(0x32, 0x99); /* beyond what we count: stays */
	assert_int_equal(all(), 0x20000101070000);
}

static void test_update(void **state)
{
	assert_int_equal(get(0x0c), 0);
	run_to(&clk, S);
	assert_int_equal(get(0x0c) & 0x10, 0x10);
	assert_int_equal(get(0x0c) & 0x10, 0);
	put(0x0b, 0x12);
	run_to(&clk, 2 * S - 1);
	assert_int_equal(probe.rises[8], 0);
	run_to(&clk, 2 * S);
	assert_true(probe.level[8]);
	run_to(&clk, 3 * S);
	assert_int_equal(probe.rises[8], 1); /* nobody read register C */
	assert_int_equal(get(0x0c) & 0x90, 0x90);
	assert_false(probe.level[8]);
	run_to(&clk, 4 * S);
	assert_int_equal(probe.rises[8], 2);
}

static void test_periodic(void **state)
{
	put(0x0a, 0x2d); /* 8 Hz */
	put(0x0b, 0x42);
	for (unsigned i = 1; i <= 16; i++) {
		run_to(&clk, i * S / 8);
		assert_int_equal(probe.rises[8], i);
		assert_int_equal(get(0x0c) & 0xc0, 0xc0);
	}
	put(0x0a, 0x20);
	get(0x0c);
	run_to(&clk, 10 * S);
	assert_int_equal(probe.rises[8], 16);
}

static void test_alarm(void **state)
{
	put(1, 0x05);
	put(3, 0x00);
	put(5, 0x00);
	put(0x0b, 0x22);
	run_to(&clk, 6 * S);
	assert_int_equal(probe.rises[8], 0);
	run_to(&clk, 7 * S);
	assert_int_equal(probe.rises[8], 1);
	assert_int_equal(get(0x0c) & 0xa0, 0xa0);
	run_to(&clk, 86000 * S);
	assert_int_equal(probe.rises[8], 1);
	run_to(&clk, (86400 + 7) * S);
	assert_int_equal(probe.rises[8], 2);
	get(0x0c);
	/* Every minute, at second 30. */
	put(1, 0x30);
	put(3, 0xff);
	put(5, 0xc0);
	for (unsigned i = 0; i < 5; i++) {
		run_to(&clk, (86400 + 7 + 25 + i * 60) * S);
		assert_int_equal(probe.rises[8], 3 + i);
		get(0x0c);
	}
	/* A second that never comes. */
	put(1, 0x75);
	run_to(&clk, 3 * 86400 * S);
	assert_int_equal(probe.rises[8], 7);
}

static void test_memory(void **state)
{
	assert_int_equal(get(0x15) | get(0x16) << 8, 640);
	assert_int_equal(get(0x17) | get(0x18) << 8, 0xffff);
	assert_int_equal(get(0x34) | get(0x35) << 8, (512 - 16) * 16);
	assert_int_equal(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 0x8000);
	assert_int_equal(get(0x5f), 3);
	put(0x70, 0xaa);
	assert_int_equal(get(0x70), 0xaa);
	put(0x0d, 0);
	assert_int_equal(get(0x0d), 0x80);
}

static void test_state(void **state)
{
	struct rtc_state st;

	put(0x0b, 0x12);
	run_to(&clk, 3 * S);
	rtc_save(&rtc, &st);
	rtc_reset(&rtc);
	assert_false(probe.level[8]);
	assert_int_equal(get(0x0b), 0x02);
	assert_int_equal(all(), 0x20240229000001);
	assert_int_equal(rtc_load(&rtc, &st), 0);
	assert_true(probe.level[8]);
	st.index = 128;
	assert_int_equal(rtc_load(&rtc, &st), -EINVAL);
	st.index = 0;
	st.epoch_ns = INT64_MAX;
	assert_int_equal(rtc_load(&rtc, &st), -EINVAL);
	st.epoch_ns = INT64_MIN;
	assert_int_equal(rtc_load(&rtc, &st), -EINVAL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_time),  T(test_set),    T(test_update), T(test_periodic),
		T(test_alarm), T(test_memory), T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
