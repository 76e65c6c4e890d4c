/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The I/O APIC: table entries to messages, edge and level, EOI. */
#include "test_devices.h"

#include "devices/ioapic.h"

static struct probe probe;
static struct irq_router router;
static struct ioapic io;

static int setup(void **state)
{
	probe = (struct probe){.msi_result = 1};
	return irq_router_init(&router, &probe_ops, &probe) || ioapic_init(&io, &router, 2);
}

static int teardown(void **state)
{
	ioapic_finish(&io);
	irq_router_finish(&router);
	return 0;
}

static uint32_t reg_read(unsigned reg)
{
	ioapic_ops.write(&io, 0, 4, reg);
	return (uint32_t)ioapic_ops.read(&io, 0x10, 4);
}

static void reg_write(unsigned reg, uint32_t value)
{
	ioapic_ops.write(&io, 0, 4, reg);
	ioapic_ops.write(&io, 0x10, 4, value);
}

static void rte(unsigned pin, uint32_t low, uint8_t dest)
{
	reg_write(0x11 + pin * 2, (uint32_t)dest << 24);
	reg_write(0x10 + pin * 2, low);
}

static void test_registers(void **state)
{
	assert_int_equal(reg_read(1), 0x00170020);
	assert_int_equal(reg_read(0), 0x02000000);
	reg_write(0, 0xffffffff);
	assert_int_equal(reg_read(0), 0x0f000000);
	assert_int_equal(reg_read(0x10), 0x10000);
	rte(23, 0xffffffff, 0xab);
	assert_int_equal(reg_read(0x10 + 46), 0x1afff);
	assert_int_equal(reg_read(0x11 + 46), 0xab000000);
	assert_int_equal(reg_read(0x40), 0);
	reg_write(0x40, 1);
	assert_int_equal(ioapic_ops.read(&io, 0x0, 1) & 0xff, 0x40);
	assert_int_equal(ioapic_ops.read(&io, 0x800, 4), 0);
}

static void test_edge(void **state)
{
	ioapic_set_pin(&io, 4, true); /* masked: lost */
	rte(4, 0x31, 3);
	assert_int_equal(probe.msis, 0);
	ioapic_set_pin(&io, 4, false);
	ioapic_set_pin(&io, 4, true);
	assert_int_equal(probe.msis, 1);
	assert_int_equal(probe.msi_addr, 0xfee03000);
	assert_int_equal(probe.msi_data, 0x31);
	ioapic_set_pin(&io, 4, true);
	assert_int_equal(probe.msis, 1);
	ioapic_set_pin(&io, 4, false);
	rte(4, 0x0931, 0x0f); /* logical, lowest priority */
	ioapic_set_pin(&io, 4, true);
	assert_int_equal(probe.msi_addr, 0xfee0f004);
	assert_int_equal(probe.msi_data, 0x131);
}

static void test_level(void **state)
{
	rte(9, 0x8041, 0);
	ioapic_set_pin(&io, 9, true);
	assert_int_equal(probe.msis, 1);
	assert_int_equal(probe.msi_data, 0xc041);
	assert_int_equal(reg_read(0x10 + 18), 0xc041); /* remote IRR */
	ioapic_set_pin(&io, 9, false);
	ioapic_set_pin(&io, 9, true);
	assert_int_equal(probe.msis, 1);
	ioapic_eoi(&io, 0x42);
	assert_int_equal(probe.msis, 1);
	ioapic_eoi(&io, 0x41); /* still high */
	assert_int_equal(probe.msis, 2);
	ioapic_set_pin(&io, 9, false);
	ioapic_ops.write(&io, 0x40, 4, 0x41);
	assert_int_equal(reg_read(0x10 + 18), 0x8041);
	assert_int_equal(probe.msis, 2);
	/* Masked while high, then opened. */
	reg_write(0x10 + 18, 0x18041);
	ioapic_set_pin(&io, 9, true);
	assert_int_equal(probe.msis, 2);
	reg_write(0x10 + 18, 0x8041);
	assert_int_equal(probe.msis, 3);
	/* The way of old kernels to end it: edge and back. */
	reg_write(0x10 + 18, 0x10041);
	reg_write(0x10 + 18, 0x8041);
	assert_int_equal(probe.msis, 4);
}

static void test_refused(void **state)
{
	probe.msi_result = 0;
	rte(9, 0x8041, 7);
	ioapic_set_pin(&io, 9, true);
	assert_int_equal(probe.msis, 1);
	assert_int_equal(reg_read(0x10 + 18), 0x8041); /* nobody took it: not in service */
	probe.msi_result = 1;
	reg_write(0x11 + 18, 0);
	assert_int_equal(probe.msis, 2);
	assert_int_equal(reg_read(0x10 + 18), 0xc041);
}

static void test_state(void **state)
{
	struct ioapic_state st;

	rte(9, 0x8041, 0);
	ioapic_set_pin(&io, 9, true);
	ioapic_save(&io, &st);
	ioapic_reset(&io);
	assert_int_equal(reg_read(0x10 + 18), 0x10000);
	assert_int_equal(ioapic_load(&io, &st), 0);
	assert_int_equal(probe.msis, 1);
	ioapic_eoi(&io, 0x41);
	assert_int_equal(probe.msis, 2);
	st.rte[0] = 1ull << 20;
	assert_int_equal(ioapic_load(&io, &st), -EINVAL);
	st.rte[0] = 0;
	st.lines = 1u << 24;
	assert_int_equal(ioapic_load(&io, &st), -EINVAL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers), T(test_edge), T(test_level), T(test_refused), T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
