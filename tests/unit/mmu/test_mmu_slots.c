/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memslots: refusals, copies, windows, changes. */
#include "machine.h"

#include <errno.h>
#include <string.h>

#include "mmu/inspect.h"

static struct machine m;
static const struct mmu_config config = {.policy = MMU_POLICY_TDP};

static int setup(void **state)
{
	machine_init(&m, &config, 1);
	machine_add(&m, 0, 0, 0x10000, 0, 0);
	machine_add(&m, 1, 0x10000, 0x4000, 0x100000, 0);
	machine_add(&m, 2, 0x100000, 0x2000, 0x200000, SLOT_READONLY);
	return 0;
}

static int teardown(void **state)
{
	machine_audit(&m);
	machine_finish(&m);
	return 0;
}

static int add(uint32_t id, gpa_t gpa, uint64_t size, void *host, uint32_t flags)
{
	struct slot_desc d = {.id = id, .flags = flags, .gpa = gpa, .size = size, .host = host};

	return slot_add(m.vm, &d);
}

static void refused(void **state)
{
	uint8_t *host = m.map + 0x300000;

	assert_int_equal(add(9, 0xf000, 0x1000, host, 0), -EEXIST);
	assert_int_equal(add(9, 0xfffff000, 0x2000, host, 0), 0);
	assert_int_equal(slot_delete(m.vm, 9), 0);
	assert_int_equal(add(0, 0x200000, 0x1000, host, 0), -EEXIST);
	assert_int_equal(add(9, 0x200800, 0x1000, host, 0), -EINVAL);
	assert_int_equal(add(9, 0x200000, 0x1800, host, 0), -EINVAL);
	assert_int_equal(add(9, 0x200000, 0x1000, host + 1, 0), -EINVAL);
	assert_int_equal(add(9, 0x200000, 0, host, 0), -EINVAL);
	assert_int_equal(add(9, 0x200000, 0x1000, NULL, 0), -EINVAL);
	assert_int_equal(add(512, 0x200000, 0x1000, host, 0), -EINVAL);
	assert_int_equal(add(9, 0x200000, 0x1000, host, 8), -EINVAL);
	assert_int_equal(add(9, ~0xfffull, 0x2000, host, 0), -EINVAL);
	assert_int_equal(slot_delete(m.vm, 9), -ENOENT);
	assert_int_equal(slot_move(m.vm, 0, 0x8000), -EEXIST);
	assert_int_equal(slot_move(m.vm, 0, 0x10), -EINVAL);
	assert_int_equal(slot_set_flags(m.vm, 0, 4), -EINVAL);
	assert_int_equal(slot_delete(m.vm, 100000), -ENOENT);
}

static void copies(void **state)
{
	uint8_t out[0x3000], in[0x3000];
	uint64_t expected;

	for (unsigned i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7 + 1);
	/* Over the border of two slots whose memory does not adjoin. */
	assert_int_equal(slot_write(m.vm, 0xe801, out, sizeof(out)), 0);
	assert_int_equal(slot_read(m.vm, 0xe801, in, sizeof(in)), 0);
	assert_memory_equal(in, out, sizeof(in));
	assert_memory_equal(m.map + 0x100000, out + 0x17ff, 0x100);
	assert_int_equal(slot_read(m.vm, 0x13fff, in, 2), -EFAULT);
	assert_int_equal(slot_read(m.vm, ~0ull, in, 2), -EFAULT);
	assert_int_equal(slot_write(m.vm, 0x100000, out, 4), -EROFS);
	assert_int_equal(slot_write_rom(m.vm, 0x100ffc, out, 8), 0);
	assert_int_equal(slot_read(m.vm, 0x100ffc, in, 8), 0);
	assert_memory_equal(in, out, 8);

	for (unsigned size = 1; size <= 8; size *= 2) {
		uint64_t v = 0x1122334455667788, mask = size == 8 ? ~0ull : BIT(8 * size) - 1;

		poke(&m, 0x2000, ~0ull);
		assert_int_equal(slot_write(m.vm, 0x2000, &v, size), 0);
		assert_int_equal(peek(&m, 0x2000), (~0ull & ~mask) | (v & mask));
		expected = 1;
		assert_int_equal(slot_cmpxchg(m.vm, 0x2000, &expected, 5, size), 1);
		assert_int_equal(expected & mask, v & mask);
		assert_int_equal(slot_cmpxchg(m.vm, 0x2000, &expected, 5, size), 0);
		assert_int_equal(peek(&m, 0x2000) & mask, 5);
	}
	assert_int_equal(slot_cmpxchg(m.vm, 0x2001, &expected, 5, 8), -EINVAL);
	assert_int_equal(slot_cmpxchg(m.vm, 0x2000, &expected, 5, 3), -EINVAL);
	assert_int_equal(slot_cmpxchg(m.vm, 0x100000, &expected, 5, 8), -EROFS);
}

static void pairs(void **state)
{
	uint64_t expected[2] = {0, 0}, desired[2] = {3, 4};

	assert_int_equal(mmu_guest_cmpxchg16(m.cpu[0].v, 0x3010, expected, desired), 0);
	assert_int_equal(peek(&m, 0x3018), 4);
	assert_int_equal(mmu_guest_cmpxchg16(m.cpu[0].v, 0x3010, expected, desired), 1);
	assert_int_equal(expected[0], 3);
	assert_int_equal(expected[1], 4);
	assert_int_equal(mmu_guest_cmpxchg16(m.cpu[0].v, 0x3008, expected, desired), -EINVAL);
}

static void windows(void **state)
{
	struct slot_window w;
	uint64_t notified = m.notified;
	gpa_t gpa;

	assert_int_equal(slot_map(m.vm, 0xf800, 0x4000, MMU_ACC_WRITE, &w), 0);
	assert_int_equal(w.len, 0x800);
	assert_int_equal(slot_delete(m.vm, 0), -EBUSY);
	assert_int_equal(slot_move(m.vm, 0, 0x40000), -EBUSY);
	memset(w.host, 0x5a, 16);
	slot_unmap(m.vm, &w, 16);
	assert_int_equal(m.notified, notified + 1);
	assert_int_equal(peek(&m, 0xf800), 0x5a5a5a5a5a5a5a5a);
	assert_int_equal(slot_map(m.vm, 0x100000, 8, MMU_ACC_WRITE, &w), -EROFS);
	assert_int_equal(slot_map(m.vm, 0x100000, 8, 0, &w), 0);
	slot_unmap(m.vm, &w, 0);
	assert_int_equal(slot_map(m.vm, 0x50000, 8, 0, &w), -EFAULT);
	assert_true(slot_hva_to_gpa(m.vm, (hva_t)(uintptr_t)m.map + 0x100123, &gpa));
	assert_int_equal(gpa, 0x10123);
	assert_int_equal(slot_gpa_to_hva(m.vm, 0x10123), (hva_t)(uintptr_t)m.map + 0x100123);
	assert_int_equal(slot_gpa_to_hva(m.vm, 0x50000), 0);
}

static void listing(void **state)
{
	struct slot_desc d;

	assert_int_equal(slot_next(m.vm, 0, &d), 0);
	assert_int_equal(d.id, 0);
	assert_int_equal(slot_next(m.vm, d.gpa + d.size, &d), 0);
	assert_int_equal(d.id, 1);
	assert_int_equal(slot_next(m.vm, d.gpa + d.size, &d), 0);
	assert_int_equal(d.id, 2);
	assert_int_equal(slot_next(m.vm, d.gpa + d.size, &d), -ENOENT);
	assert_int_equal(slot_get(m.vm, 7, &d), -ENOENT);
}

/* What a processor may do follows the slots at once. */
static void changes(void **state)
{
	struct cpu *c = &m.cpu[0];
	struct outcome o;

	poke(&m, 0x10008, 77);
	o = cpu_access(c, 0x10008, 0, 0, 8);
	assert_int_equal(o.kind, OUT_OK);
	assert_int_equal(*(uint64_t *)o.hpa, 77);
	assert_int_equal(slot_move(m.vm, 1, 0x40000), 0);
	m.region[1].gpa = 0x40000;
	o = cpu_access(c, 0x10008, 0, 0, 8);
	assert_int_equal(o.kind, OUT_MMIO);
	assert_int_equal(o.gpa, 0x10008);
	o = cpu_access(c, 0x10008, 0, 0, 8);
	assert_int_equal(o.kind, OUT_MMIO);
	o = cpu_access(c, 0x40008, 0, 0, 8);
	assert_int_equal(*(uint64_t *)o.hpa, 77);
	assert_int_equal(slot_set_flags(m.vm, 1, SLOT_READONLY), 0);
	o = cpu_access(c, 0x40008, OACC_W, 1, 8);
	assert_int_equal(o.kind, OUT_MMIO);
	assert_int_equal(peek(&m, 0x40008), 77);
	assert_int_equal(slot_set_flags(m.vm, 1, 0), 0);
	o = cpu_access(c, 0x40008, OACC_W, 1, 8);
	assert_int_equal(o.kind, OUT_OK);
	assert_int_equal(peek(&m, 0x40008), 1);
	assert_int_equal(slot_delete(m.vm, 1), 0);
	m.region[1].used = false;
	assert_int_equal(cpu_access(c, 0x40008, 0, 0, 8).kind, OUT_MMIO);
}

/* The numbers of generations begin again: no old MMIO entry may pass for one of now. */
static void generation_wrap(void **state)
{
	assert_int_equal(cpu_access(&m.cpu[0], 0x40008, 0, 0, 8).kind, OUT_MMIO);
	for (unsigned i = 0; i < 2047; i++) {
		assert_int_equal(add(9, 0x80000, 0x1000, m.map + 0x300000, 0), 0);
		assert_int_equal(slot_delete(m.vm, 9), 0);
	}
	assert_int_equal(add(9, 0x40000, 0x1000, m.map + 0x300000, 0), 0);
	m.region[3] = (struct region){true, 9, 0x40000, 0x1000, m.map + 0x300000, false};
	assert_int_equal(cpu_access(&m.cpu[0], 0x40008, 0, 0, 8).kind, OUT_OK);
}

static void missing_pages(void **state)
{
	uint64_t missing[1] = {BIT(3)};
	struct mmu_fault f = {.addr = 0x3010, .access = 0};
	uint8_t byte;

	struct mmu_rmap_info rm;
	struct mmu_root root;

	assert_int_equal(cpu_access(&m.cpu[0], 0x3000, 0, 0, 8).kind, OUT_OK);
	assert_int_equal(mmu_inspect_rmap(m.vm, 3, 0, &rm, 1), 1);
	m.kicked = 0;
	assert_int_equal(slot_set_missing(m.vm, 0, missing), 0);
	assert_true(m.kicked == MMU_VCPUS_ALL);
	assert_int_equal(mmu_inspect_rmap(m.vm, 3, 0, &rm, 1), 0);
	assert_int_equal(mmu_load(m.cpu[0].v, &root), 0);
	assert_int_equal(mmu_page_fault(m.cpu[0].v, &f), MMU_WAIT);
	assert_int_equal(f.gpa, 0x3010);
	assert_int_equal(slot_read(m.vm, 0x3000, &byte, 1), -EFAULT); /* nobody to fetch it */
	assert_int_equal(slot_read(m.vm, 0x2000, &byte, 1), 0);
	missing[0] = 0;
	assert_int_equal(mmu_page_fault(m.cpu[0].v, &f), MMU_RETRY);
	assert_int_equal(slot_read(m.vm, 0x3000, &byte, 1), 0);
	/* Whoever waits by that map is woken. */
	m.kicked = 0;
	assert_int_equal(slot_set_missing(m.vm, 0, NULL), 0);
	assert_true(m.kicked == MMU_VCPUS_ALL);
	assert_int_equal(slot_set_missing(m.vm, 50, NULL), -ENOENT);
}

static int iommu(void *priv, uint64_t iova, uint64_t len, uint32_t access, gpa_t *gpa,
		 uint64_t *piece)
{
	uint64_t left = 0x1000 - (iova & 0xfff);

	if (iova >= 0x100000)
		return -EFAULT;
	*gpa = iova ^ 0x1000; /* pages swapped in pairs */
	*piece = MIN(len, left);
	return 0;
}

static void dma(void **state)
{
	struct dma_space space = {.vm = m.vm, .translate = iommu};
	uint8_t out[0x1800], in[0x1800];
	struct slot_window w;

	for (unsigned i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i ^ i >> 8);
	assert_int_equal(dma_write(&space, 0x800, out, sizeof(out)), 0);
	assert_memory_equal(m.map + 0x1800, out, 0x800);
	assert_memory_equal(m.map, out + 0x800, 0x1000);
	assert_int_equal(dma_read(&space, 0x800, in, sizeof(in)), 0);
	assert_memory_equal(in, out, sizeof(in));
	assert_int_equal(dma_read(&space, 0x100000, in, 1), -EFAULT);
	assert_int_equal(dma_map(&space, 0x800, 0x1800, 0, &w), 0);
	assert_int_equal(w.len, 0x800);
	assert_int_equal(w.gpa, 0x1800);
	slot_unmap(m.vm, &w, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(refused, setup, teardown),
		cmocka_unit_test_setup_teardown(copies, setup, teardown),
		cmocka_unit_test_setup_teardown(pairs, setup, teardown),
		cmocka_unit_test_setup_teardown(windows, setup, teardown),
		cmocka_unit_test_setup_teardown(listing, setup, teardown),
		cmocka_unit_test_setup_teardown(changes, setup, teardown),
		cmocka_unit_test_setup_teardown(generation_wrap, setup, teardown),
		cmocka_unit_test_setup_teardown(missing_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(dma, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
