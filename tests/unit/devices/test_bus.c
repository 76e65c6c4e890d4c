/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bus: ranges, absent addresses, splitting. */
#include "test_devices.h"

struct dev {
	uint8_t bytes[16];
	unsigned reads, writes, last_size;
};

static uint64_t dev_read(void *opaque, uint64_t offset, unsigned size)
{
	struct dev *d = opaque;
	uint64_t v = 0;

	assert_true(offset + size <= sizeof(d->bytes));
	d->reads++;
	d->last_size = size;
	memcpy(&v, d->bytes + offset, size);
	return v;
}

static void dev_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct dev *d = opaque;

	assert_true(offset + size <= sizeof(d->bytes));
	d->writes++;
	d->last_size = size;
	memcpy(d->bytes + offset, &value, size);
}

static const struct bus_ops byte_ops = {dev_read, dev_write, 1};
static const struct bus_ops all_ops = {dev_read, dev_write, 1 | 2 | 4 | 8};
static const struct bus_ops dword_ops = {dev_read, dev_write, 4};
static const struct bus_ops none_ops = {NULL, NULL, 1 | 2 | 4 | 8};

static void test_absent(void **state)
{
	struct bus b;

	assert_int_equal(bus_init(&b), 0);
	assert_int_equal(bus_read(&b, BUS_PIO, 0x80, 1), 0xff);
	assert_int_equal(bus_read(&b, BUS_PIO, 0xcf8, 4), 0xffffffff);
	assert_int_equal(bus_read(&b, BUS_PIO, 0xffff, 4), 0xffffffff);
	assert_true(bus_read(&b, BUS_MMIO, ~7ull, 8) == ~0ull);
	bus_write(&b, BUS_MMIO, ~0ull, 8, 1);
	assert_int_equal(b.absent, 1 + 4 + 4 + 8 + 8);
	bus_finish(&b);
}

static void test_ranges(void **state)
{
	struct dev d = {0};
	struct bus b;
	struct bus_range r = {0x100, 16, &all_ops, &d};

	assert_int_equal(bus_init(&b), 0);
	assert_int_equal(bus_register(&b, BUS_PIO, &r), 0);
	assert_int_equal(bus_register(&b, BUS_PIO, &r), -EEXIST);
	r.base = 0x10f;
	assert_int_equal(bus_register(&b, BUS_PIO, &r), -EEXIST);
	r.base = 0xfff8;
	assert_int_equal(bus_register(&b, BUS_PIO, &r), -EINVAL);
	r.len = 0;
	assert_int_equal(bus_register(&b, BUS_PIO, &r), -EINVAL);
	assert_int_equal(bus_unregister(&b, BUS_PIO, 0x101), -ENOENT);
	assert_int_equal(bus_unregister(&b, BUS_PIO, 0x100), 0);
	assert_int_equal(bus_read(&b, BUS_PIO, 0x100, 1), 0xff);

	r.len = 16;
	for (int i = 20; i >= 0; i--) {
		r.base = 0x1000 + (uint64_t)i * 32;
		assert_int_equal(bus_register(&b, BUS_MMIO, &r), 0);
	}
	r.base = 0x1008;
	assert_int_equal(bus_register(&b, BUS_MMIO, &r), -EEXIST);
	r.base = 0xff8;
	assert_int_equal(bus_register(&b, BUS_MMIO, &r), -EEXIST);
	r.base = ~0ull - 14;
	assert_int_equal(bus_register(&b, BUS_MMIO, &r), -EINVAL);
	r.base--;
	assert_int_equal(bus_register(&b, BUS_MMIO, &r), 0);
	assert_int_equal(bus_read(&b, BUS_MMIO, ~0ull, 1), 0);
	for (uint64_t a = 0x1000; a < 0x1000 + 21 * 32; a++)
		assert_int_equal(bus_read(&b, BUS_MMIO, a, 1), a % 32 < 16 ? 0 : 0xff);
	assert_int_equal(bus_unregister(&b, BUS_MMIO, 0x1020), 0);
	assert_int_equal(bus_unregister(&b, BUS_MMIO, 0x1020), -ENOENT);
	assert_int_equal(bus_read(&b, BUS_MMIO, 0x1020, 1), 0xff);
	assert_int_equal(bus_read(&b, BUS_MMIO, 0x1040, 1), 0);
	bus_finish(&b);
}

static void test_split(void **state)
{
	struct dev bytes = {{1, 2, 3, 4, 5, 6, 7, 8}}, all = {{0x11, 0x22}}, dwords = {{0}};
	struct bus_range r[] = {
		{0x10, 8, &byte_ops, &bytes},
		{0x18, 16, &all_ops, &all},
		{0x40, 16, &dword_ops, &dwords},
		{0x60, 4, &none_ops, NULL},
	};
	struct bus b;

	assert_int_equal(bus_init(&b), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(r); i++)
		assert_int_equal(bus_register(&b, BUS_PIO, &r[i]), 0);
	assert_int_equal(bus_read(&b, BUS_PIO, 0x10, 4), 0x04030201);
	assert_int_equal(bytes.reads, 4);
	assert_int_equal(bus_read(&b, BUS_PIO, 0x18, 2), 0x2211);
	assert_int_equal(all.reads, 1);
	/* Over the border between two devices, and over the end of one. */
	assert_int_equal(bus_read(&b, BUS_PIO, 0x16, 4), 0x22110807);
	assert_int_equal(bus_read(&b, BUS_PIO, 0x26, 4), 0xffff0000);
	/* What begins where nobody is. */
	assert_int_equal(bus_register(&b, BUS_MMIO, &r[0]), 0);
	for (enum bus_space space = BUS_PIO; space <= BUS_MMIO; space++) {
		assert_int_equal(bus_read(&b, space, 0xf, 2), 0x01ff);
		assert_int_equal(bus_read(&b, space, 0xd, 4), 0x01ffffff);
		assert_true(bus_read(&b, space, 0x9, 8) == 0x01ffffffffffffff);
		assert_int_equal(bus_read(&b, space, 0xc, 4), 0xffffffff);
		bus_write(&b, space, 0xe, 4, 0xee001122);
		assert_int_equal(bytes.bytes[1], 0xee);
		bytes.bytes[0] = 1;
		bytes.bytes[1] = 2;
	}
	bus_write(&b, BUS_PIO, 0x16, 4, 0xaabbccdd);
	assert_int_equal(bytes.bytes[6], 0xdd);
	assert_int_equal(bytes.bytes[7], 0xcc);
	assert_int_equal(all.bytes[0], 0xbb);
	assert_int_equal(all.bytes[1], 0xaa);
	/* Pieces that a device does not take are absent. */
	bus_write(&b, BUS_PIO, 0x40, 1, 0x55);
	assert_int_equal(dwords.writes, 0);
	bus_write(&b, BUS_PIO, 0x40, 4, 0x12345678);
	assert_int_equal(bus_read(&b, BUS_PIO, 0x40, 4), 0x12345678);
	assert_int_equal(bus_read(&b, BUS_PIO, 0x40, 2), 0xffff);
	assert_int_equal(bus_read(&b, BUS_PIO, 0x60, 4), 0xffffffff);
	bus_write(&b, BUS_PIO, 0x60, 4, 0);
	bus_finish(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
