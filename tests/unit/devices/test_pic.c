/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The 8259A pair against its datasheet. */
#include "test_devices.h"

#include "devices/pic.h"

static bool output;

static void intr(void *opaque, bool level)
{
	assert_int_not_equal(output, level);
	output = level;
}

#define MASTER &pic_master_ops, &pic
#define SLAVE  &pic_slave_ops, &pic

static struct pic pic;

/* Vectors 0x20 and 0x28, everything open. */
static int setup(void **state)
{
	output = false;
	if (pic_init(&pic, intr, NULL))
		return -1;
	out8(MASTER, 0, 0x11);
	out8(MASTER, 1, 0x20);
	out8(MASTER, 1, 0x04);
	out8(MASTER, 1, 0x01);
	out8(SLAVE, 0, 0x11);
	out8(SLAVE, 1, 0x28);
	out8(SLAVE, 1, 0x02);
	out8(SLAVE, 1, 0x01);
	return 0;
}

static int teardown(void **state)
{
	pic_finish(&pic);
	return 0;
}

static void edge(unsigned irq)
{
	pic_set_irq(&pic, irq, true);
	pic_set_irq(&pic, irq, false);
}

static uint8_t read_irr(const struct bus_ops *ops)
{
	out8(ops, &pic, 0, 0x0a);
	return in8(ops, &pic, 0);
}

static uint8_t read_isr(const struct bus_ops *ops)
{
	out8(ops, &pic, 0, 0x0b);
	return in8(ops, &pic, 0);
}

static void test_priority(void **state)
{
	edge(5);
	assert_true(output);
	edge(3);
	assert_int_equal(read_irr(&pic_master_ops), 0x28);
	assert_int_equal(pic_ack(&pic), 0x23);
	assert_false(output); /* 5 waits below 3 */
	edge(1);
	assert_true(output);
	assert_int_equal(pic_ack(&pic), 0x21);
	assert_int_equal(read_isr(&pic_master_ops), 0x0a);
	out8(MASTER, 0, 0x20); /* ends 1 */
	assert_int_equal(read_isr(&pic_master_ops), 0x08);
	assert_false(output);
	out8(MASTER, 0, 0x63); /* specific, 3 */
	assert_true(output);
	assert_int_equal(pic_ack(&pic), 0x25);
	out8(MASTER, 0, 0x20);
	assert_int_equal(read_isr(&pic_master_ops), 0);
	assert_int_equal(pic_ack(&pic), 0x27); /* spurious, nothing in service */
	assert_int_equal(read_isr(&pic_master_ops), 0);
}

static void test_mask(void **state)
{
	out8(MASTER, 1, 0xff);
	assert_int_equal(in8(MASTER, 1), 0xff);
	edge(4);
	assert_false(output);
	assert_int_equal(read_irr(&pic_master_ops), 0x10);
	out8(MASTER, 1, 0xef);
	assert_true(output);
	out8(MASTER, 1, 0xff);
	assert_false(output);
	/* Initialization forgets edges and the mask. */
	out8(MASTER, 0, 0x11);
	assert_int_equal(in8(MASTER, 1), 0);
	assert_false(output);
}

static void test_cascade(void **state)
{
	edge(14);
	edge(9);
	assert_true(output);
	assert_int_equal(read_irr(&pic_master_ops), 0x04);
	assert_int_equal(pic_ack(&pic), 0x29);
	assert_int_equal(read_isr(&pic_master_ops), 0x04);
	assert_int_equal(read_isr(&pic_slave_ops), 0x02);
	edge(5);
	edge(1);
	assert_int_equal(pic_ack(&pic), 0x21); /* above the cascade */
	out8(MASTER, 0, 0x20);
	assert_false(output);
	/* Not fully nested: a higher one of the slave waits for the master's EOI. */
	edge(8);
	assert_false(output);
	out8(MASTER, 0, 0x62);
	assert_true(output);
	assert_int_equal(pic_ack(&pic), 0x28);
	out8(SLAVE, 0, 0x20);
	out8(SLAVE, 0, 0x20);
	out8(MASTER, 0, 0x20);
	assert_int_equal(pic_ack(&pic), 0x2e);
	out8(SLAVE, 0, 0x66);
	out8(MASTER, 0, 0x62);
	assert_int_equal(pic_ack(&pic), 0x25);
}

static void test_special_fully_nested(void **state)
{
	out8(MASTER, 0, 0x11);
	out8(MASTER, 1, 0x20);
	out8(MASTER, 1, 0x04);
	out8(MASTER, 1, 0x11);
	edge(12);
	assert_int_equal(pic_ack(&pic), 0x2c);
	edge(9);
	assert_true(output);
	assert_int_equal(pic_ack(&pic), 0x29);
	edge(13);
	assert_false(output);
}

static void test_spurious_slave(void **state)
{
	out8(&pic_elcr_ops, &pic, 1, 0xff);
	assert_int_equal(in8(&pic_elcr_ops, &pic, 1), 0xde);
	out8(&pic_elcr_ops, &pic, 0, 0xff);
	assert_int_equal(in8(&pic_elcr_ops, &pic, 0), 0xf8);
	/* Level-triggered: withdrawn before INTA. */
	pic_set_irq(&pic, 10, true);
	assert_true(output);
	pic_set_irq(&pic, 10, false);
	assert_false(output);
	/* And asked for as long as it is high. */
	pic_set_irq(&pic, 10, true);
	assert_int_equal(pic_ack(&pic), 0x2a);
	out8(SLAVE, 0, 0x20);
	out8(MASTER, 0, 0x20);
	assert_true(output);
	pic_set_irq(&pic, 10, false);
	assert_false(output);
}

static void test_rotation(void **state)
{
	edge(3);
	assert_int_equal(pic_ack(&pic), 0x23);
	out8(MASTER, 0, 0xa0); /* rotate on non-specific EOI: 3 is lowest, 4 highest */
	edge(3);
	edge(5);
	edge(0);
	assert_int_equal(pic_ack(&pic), 0x25);
	out8(MASTER, 0, 0x20);
	assert_int_equal(pic_ack(&pic), 0x20);
	out8(MASTER, 0, 0x20);
	assert_int_equal(pic_ack(&pic), 0x23);
	out8(MASTER, 0, 0x20);
	out8(MASTER, 0, 0xc5); /* set priority: 5 lowest */
	edge(5);
	edge(7);
	edge(0);
	assert_int_equal(pic_ack(&pic), 0x27);
	out8(MASTER, 0, 0xe7); /* rotate on specific EOI: 7 lowest */
	edge(7);
	assert_int_equal(pic_ack(&pic), 0x20);
	out8(MASTER, 0, 0x20);
	assert_int_equal(pic_ack(&pic), 0x25);
	out8(MASTER, 0, 0x20);
	assert_int_equal(pic_ack(&pic), 0x27);
}

static void test_auto_eoi(void **state)
{
	out8(MASTER, 0, 0x11);
	out8(MASTER, 1, 0x20);
	out8(MASTER, 1, 0x04);
	out8(MASTER, 1, 0x03);
	edge(6);
	edge(7);
	assert_int_equal(pic_ack(&pic), 0x26);
	assert_int_equal(read_isr(&pic_master_ops), 0);
	assert_int_equal(pic_ack(&pic), 0x27);
	out8(MASTER, 0, 0x80); /* rotate in AEOI mode */
	edge(1);
	assert_int_equal(pic_ack(&pic), 0x21);
	edge(1);
	edge(6);
	assert_int_equal(pic_ack(&pic), 0x26);
	out8(MASTER, 0, 0x00);
	assert_int_equal(pic_ack(&pic), 0x21);
}

static void test_special_mask(void **state)
{
	edge(2 + 1);
	assert_int_equal(pic_ack(&pic), 0x23);
	edge(6);
	assert_false(output);
	out8(MASTER, 1, 0x08);
	out8(MASTER, 0, 0x68); /* set special mask: masked 3 no longer blocks 6 */
	assert_true(output);
	assert_int_equal(pic_ack(&pic), 0x26);
	out8(MASTER, 0, 0x20); /* non-specific EOI does not see 3 */
	assert_int_equal(read_isr(&pic_master_ops), 0x08);
	out8(MASTER, 0, 0x48);
	out8(MASTER, 0, 0x20);
	assert_int_equal(read_isr(&pic_master_ops), 0);
}

static void test_poll(void **state)
{
	out8(MASTER, 0, 0x0c);
	assert_int_equal(in8(MASTER, 0), 0);
	edge(4);
	out8(MASTER, 0, 0x0c);
	assert_int_equal(in8(MASTER, 0), 0x84);
	assert_int_equal(read_isr(&pic_master_ops), 0x10);
	assert_false(output);
}

static void test_state(void **state)
{
	struct pic_state st, bad;

	edge(9);
	pic_save(&pic, &st);
	assert_int_equal(pic_ack(&pic), 0x29);
	assert_false(output);
	assert_int_equal(pic_load(&pic, &st), 0);
	assert_true(output);
	assert_int_equal(pic_ack(&pic), 0x29);
	bad = st;
	bad.chip[1].lowest = 8;
	assert_int_equal(pic_load(&pic, &bad), -EINVAL);
	bad = st;
	bad.chip[0].elcr = 1;
	assert_int_equal(pic_load(&pic, &bad), -EINVAL);
	bad = st;
	bad.chip[0].init_step = 5;
	assert_int_equal(pic_load(&pic, &bad), -EINVAL);
}

static void test_reset(void **state)
{
	edge(5);
	pic_reset(&pic);
	assert_false(output);
	edge(0);
	assert_int_equal(pic_ack(&pic), 0x08);
	pic_set_irq(&pic, 2, true);
	pic_set_irq(&pic, 77, true);
	assert_int_equal(pic_ack(&pic), 0x0f);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_priority),	T(test_mask),
		T(test_cascade),	T(test_special_fully_nested),
		T(test_spurious_slave), T(test_rotation),
		T(test_auto_eoi),	T(test_special_mask),
		T(test_poll),		T(test_state),
		T(test_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
