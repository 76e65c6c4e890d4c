/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ACPI fixed hardware: timer, power button, events, power off and reset. */
#include "test_devices.h"

#include "devices/acpi_pm.h"

static struct clock clk;
static struct probe probe;
static struct irq_router router;
static struct acpi_pm pm;
static unsigned poweroffs, resets;

static void poweroff(void *opaque)
{
	poweroffs++;
}

static void reset(void *opaque)
{
	resets++;
}

static const struct machine_ops ops = {.poweroff = poweroff, .reset = reset};

static int setup(void **state)
{
	struct irq_line line;

	poweroffs = resets = 0;
	probe = (struct probe){0};
	manual_clock(&clk);
	if (irq_router_init(&router, &probe_ops, &probe))
		return -1;
	irq_line_init(&line, &router, 9);
	return acpi_pm_init(&pm, &clk, &line, &ops, NULL);
}

static int teardown(void **state)
{
	acpi_pm_finish(&pm);
	irq_router_finish(&router);
	clock_finish(&clk);
	return 0;
}

static uint32_t get(unsigned offset, unsigned size)
{
	return (uint32_t)acpi_pm_ops.read(&pm, offset, size);
}

static void put(unsigned offset, unsigned size, uint32_t value)
{
	acpi_pm_ops.write(&pm, offset, size, value);
}

static void test_timer(void **state)
{
	assert_int_equal(get(ACPI_PM_TMR, 4), 0);
	run_to(&clk, 1000000000);
	assert_int_equal(get(ACPI_PM_TMR, 4), 3579545);
	run_to(&clk, clock_ticks_to_ns(1 << 23, ACPI_PM_TIMER_HZ));
	assert_int_equal(get(ACPI_PM_EVT, 2), 1);
	assert_false(probe.level[9]);
	put(ACPI_PM_EVT, 2, 1);
	assert_int_equal(get(ACPI_PM_EVT, 2), 0);
	put(ACPI_PM_EVT + 2, 2, 1);
	run_to(&clk, clock_ticks_to_ns(1 << 24, ACPI_PM_TIMER_HZ));
	assert_int_equal(get(ACPI_PM_TMR, 4), 0); /* 24 bits */
	assert_true(probe.level[9]);
	put(ACPI_PM_EVT, 4, 0x10001);
	assert_false(probe.level[9]);
	assert_int_equal(get(ACPI_PM_EVT, 4), 0x10000);
}

static void test_button(void **state)
{
	assert_false(acpi_pm_power_button(&pm));
	assert_int_equal(get(ACPI_PM_EVT, 2), 0x100);
	put(ACPI_PM_EVT + 1, 1, 0x01);
	assert_int_equal(get(ACPI_PM_EVT, 2), 0);
	put(ACPI_PM_EVT + 2, 2, 0xffff);
	assert_int_equal(get(ACPI_PM_EVT + 2, 2), 0x0521);
	assert_true(acpi_pm_power_button(&pm));
	assert_true(probe.level[9]);
	put(ACPI_PM_EVT, 2, 0x100);
	assert_false(probe.level[9]);
	acpi_pm_gpe(&pm, 3);
	assert_false(probe.level[9]);
	put(ACPI_PM_GPE0 + 2, 1, 0x08);
	assert_true(probe.level[9]);
	put(ACPI_PM_GPE0, 1, 0x08);
	assert_false(probe.level[9]);
	assert_int_equal(get(0x10, 4), 0);
	put(0x10, 4, ~0u);
}

static void test_power(void **state)
{
	assert_int_equal(get(ACPI_PM_CNT, 2), 1); /* ACPI mode */
	put(ACPI_PM_CNT, 2, ACPI_PM_SLP_S5 << 10);
	assert_int_equal(poweroffs, 0);
	put(ACPI_PM_CNT, 2, 1 << 10 | 1 << 13);
	assert_int_equal(poweroffs, 0);
	put(ACPI_PM_CNT, 2, ACPI_PM_SLP_S5 << 10 | 1 << 13);
	assert_int_equal(poweroffs, 1);
	assert_int_equal(get(ACPI_PM_CNT, 2), 1 | ACPI_PM_SLP_S5 << 10);
	out8(&acpi_reset_ops, &pm, 1, 0x02);
	assert_int_equal(resets, 0);
	out8(&acpi_reset_ops, &pm, 1, 0x06);
	assert_int_equal(resets, 1);
	out8(&acpi_reset_ops, &pm, 1, 0x06);
	assert_int_equal(resets, 1);
	acpi_pm_reset(&pm);
	out8(&acpi_reset_ops, &pm, 1, ACPI_RESET_VALUE);
	assert_int_equal(resets, 2);
}

static void test_state(void **state)
{
	struct acpi_pm_state st;

	put(ACPI_PM_EVT + 2, 2, 0x100);
	acpi_pm_power_button(&pm);
	acpi_pm_save(&pm, &st);
	acpi_pm_reset(&pm);
	assert_false(probe.level[9]);
	assert_int_equal(acpi_pm_load(&pm, &st), 0);
	assert_true(probe.level[9]);
	st.pm1_en = 0x8000;
	assert_int_equal(acpi_pm_load(&pm, &st), -EINVAL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_timer),
		T(test_button),
		T(test_power),
		T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
