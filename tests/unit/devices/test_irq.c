/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lines that share a GSI, and messages. */
#include "test_devices.h"

static void test_shared(void **state)
{
	struct probe p = {.msi_result = 1};
	struct irq_router r;
	struct irq_line a, b, loose = {0};

	assert_int_equal(irq_router_init(&r, &probe_ops, &p), 0);
	irq_line_init(&a, &r, 5);
	irq_line_init(&b, &r, 5);
	irq_raise(&a);
	irq_raise(&a);
	irq_raise(&b);
	irq_lower(&a);
	assert_true(p.level[5]);
	irq_lower(&b);
	irq_lower(&b);
	assert_false(p.level[5]);
	assert_int_equal(p.rises[5], 1);
	irq_pulse(&a);
	irq_pulse(&a);
	assert_int_equal(p.rises[5], 3);
	irq_raise(&loose);
	assert_int_equal(irq_msi(&r, 0xfee01000, 0x31), 1);
	assert_int_equal(irq_msi(&r, 0xfed01000, 0x31), 0);
	assert_int_equal(irq_msi(&r, 0x1fee01000, 0x31), 0);
	assert_int_equal(p.msis, 1);
	irq_router_finish(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_shared)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
