/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pages of 2 MiB and 1 GiB in EPT, NPT and shadow: split in place, eagerly, collapsed; deep tables;
 * and mechanisms turned off. */
#include "machine.h"

#include <errno.h>

static struct machine m;

#define SIZE GIB(1)

static void start(const struct mmu_config *config)
{
	machine_init(&m, config, 2);
	machine_add(&m, 0, 0, SIZE, 0, 0);
}

static int stop(void **state)
{
	machine_audit(&m);
	machine_finish(&m);
	return 0;
}

static struct mmu_config tdp(enum mmu_format format)
{
	return (struct mmu_config){.policy = MMU_POLICY_TDP, .tdp_format = format};
}

static int start_ept(void **state)
{
	struct mmu_config config = tdp(MMU_FORMAT_EPT);

	start(&config);
	return 0;
}

static int start_npt(void **state)
{
	struct mmu_config config = tdp(MMU_FORMAT_NPT);

	start(&config);
	return 0;
}

static int start_shadow(void **state)
{
	struct mmu_config config = {.policy = MMU_POLICY_SHADOW};

	start(&config);
	return 0;
}

/* How many faults one access took. */
static unsigned faults(gpa_t gpa, unsigned access)
{
	struct outcome o = cpu_access(&m.cpu[0], gpa, access, 1, 8);

	assert_int_equal(o.kind, OUT_OK);
	assert_int_equal(o.hpa, (uint64_t)(uintptr_t)machine_ptr(&m, gpa));
	return o.faults;
}

static struct mmu_vm_stats stats(void)
{
	struct mmu_vm_stats s;

	mmu_vm_read_stats(m.vm, &s);
	return s;
}

static struct mmu_vcpu_stats cpu_stats(void)
{
	struct mmu_vcpu_stats s;

	mmu_vcpu_read_stats(m.cpu[0].v, &s);
	return s;
}

static struct dirty_client *watch(uint32_t flags)
{
	struct dirty_client *c;

	assert_int_equal(dirty_client_create(m.vm, "log", flags, &c), 0);
	assert_int_equal(dirty_client_watch(c, 0), 0);
	return c;
}

/* The pages taken off the log are exactly these two (or one: the same twice). */
static void expect_dirty(struct dirty_client *c, gfn_t first, gfn_t last)
{
	gfn_t gfns[4];
	ssize_t n = dirty_take(c, gfns, 4);

	assert_int_equal(n, first == last ? 1 : 2);
	assert_int_equal(gfns[0], first);
	assert_int_equal(gfns[n - 1], last);
}

/* ---- the first write splits ---- */

static void split_in_place(void **state)
{
	struct dirty_client *c;

	mmu_set_disable(m.vm, MMU_NO_EAGER_SPLIT);
	faults(0x5000, OACC_W);
	assert_int_equal(stats().pages_1g, 1);
	c = watch(0);
	assert_int_equal(stats().lpages_split, 0);
	assert_int_equal(faults(0x5000, OACC_W), 1);
	expect_dirty(c, 5, 5);
	/* 1 GiB to 2 MiB, one of these to 4 KiB. */
	assert_int_equal(stats().lpages_split, 2);
	assert_int_equal(stats().lpages_eager_split, 0);
	assert_int_equal(stats().pages_1g, 0);
	assert_int_equal(stats().pages_2m, 511);
	assert_int_equal(stats().pages_4k, 512);
	/* All else is still mapped, and every write still noticed. */
	assert_int_equal(faults(0x6000, 0), 0);
	assert_int_equal(faults(MIB(600), 0), 0);
	assert_int_equal(faults(0x6000, OACC_W), 1);
	assert_int_equal(faults(MIB(600), OACC_W), 1);
	expect_dirty(c, 6, MIB(600) >> 12);
	machine_audit(&m);
	dirty_client_destroy(c);
}

static void dropped_without_split(void **state)
{
	struct dirty_client *c;

	mmu_set_disable(m.vm, MMU_NO_SPLIT);
	faults(0x5000, OACC_W);
	c = watch(0);
	faults(0x5000, OACC_W);
	expect_dirty(c, 5, 5);
	assert_int_equal(stats().lpages_split, 0);
	assert_int_equal(stats().pages_2m, 0);
	assert_int_equal(faults(MIB(600), 0), 1);
	dirty_client_destroy(c);
}

/* ---- before the first write ---- */

static void eager(void **state)
{
	struct dirty_client *c;
	uint64_t fast;

	faults(0x5000, OACC_W);
	c = watch(0);
	assert_int_equal(stats().lpages_eager_split, 513);
	assert_int_equal(stats().pages_4k, SIZE >> 12);
	/* What is left to a fault is to give W back. */
	fast = cpu_stats().pf_fast;
	assert_int_equal(faults(MIB(700), OACC_W), 1);
	assert_int_equal(cpu_stats().pf_fast, fast + 1);
	expect_dirty(c, MIB(700) >> 12, MIB(700) >> 12);
	dirty_client_destroy(c);
}

static void collapse(void **state)
{
	struct dirty_client *c;

	faults(0x5000, OACC_W);
	c = watch(0);
	dirty_client_destroy(c);
	assert_true(stats().lpages_collapsed > 0);
	faults(0x5000, OACC_W);
	faults(MIB(600), OACC_W);
	assert_int_equal(stats().pages_1g, 1);
	assert_int_equal(stats().pages_4k, 0);

	mmu_set_disable(m.vm, MMU_NO_COLLAPSE);
	faults(0x5000, OACC_W);
	c = watch(0);
	dirty_client_destroy(c);
	assert_int_equal(faults(MIB(600), 0), 0);
	assert_int_equal(stats().pages_1g, 0);
}

static void clear_page(struct dirty_client *c, gfn_t gfn)
{
	uint64_t bit = 1;

	assert_int_equal(dirty_clear(c, 0, gfn, 1, &bit), 0);
}

/* Only what is cleared is split. */
static void initially_set(void **state)
{
	struct dirty_client *c;

	faults(0x5000, OACC_W);
	c = watch(DIRTY_INITIALLY_SET);
	assert_int_equal(stats().pages_1g, 1);
	assert_int_equal(dirty_count(c), SIZE >> 12);
	clear_page(c, 5);
	assert_int_equal(stats().lpages_eager_split, 2);
	assert_int_equal(stats().pages_2m, 511);
	assert_int_equal(stats().pages_4k, 512);
	assert_int_equal(faults(0x6000, OACC_W), 0);
	assert_int_equal(faults(MIB(600), OACC_W), 0);
	assert_int_equal(dirty_count(c), (SIZE >> 12) - 1);
	assert_int_equal(faults(0x5000, OACC_W), 1);
	assert_int_equal(dirty_count(c), SIZE >> 12);
	machine_audit(&m);
	dirty_client_destroy(c);
}

/* The processor logs small pages; a large one is split before that. */
static void modification_log(void **state)
{
	struct dirty_client *c;

	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PML), 0);
	faults(0x5000, OACC_W);
	c = watch(DIRTY_INITIALLY_SET);
	clear_page(c, 5);
	clear_page(c, MIB(600) >> 12);
	assert_int_equal(faults(0x5000, OACC_W), 0);
	assert_int_equal(faults(MIB(600), OACC_W), 0);
	assert_int_equal(dirty_count(c), SIZE >> 12);
	dirty_client_destroy(c);
	faults(0x5000, OACC_W);
	assert_int_equal(stats().pages_1g, 1);
	mmu_set_disable(m.vm, MMU_NO_EAGER_SPLIT);
	faults(0x5000, OACC_W);
	c = watch(0);
	assert_int_equal(faults(0x5000, OACC_W), 1);
	assert_int_equal(faults(MIB(600), OACC_W), 1);
	/* Their neighbours need no fault at all any more. */
	assert_int_equal(faults(0x6000, OACC_W), 0);
	assert_int_equal(dirty_count(c), 3);
	dirty_client_destroy(c);
}

/* Few table pages: as much is split as there are, and no write is missed. */
static void eager_without_room(void **state)
{
	struct mmu_config config = tdp(MMU_FORMAT_EPT);
	struct dirty_client *c;

	config.max_table_bytes = 1;
	start(&config);
	faults(0x5000, OACC_W);
	c = watch(0);
	assert_in_range(stats().lpages_eager_split, 1, 63);
	assert_true(stats().pages_2m > 0);
	assert_int_equal(stats().mmu_recycled, 0);
	machine_audit(&m);
	for (gpa_t gpa = 0; gpa < SIZE; gpa += MIB(2))
		faults(gpa, OACC_W);
	assert_int_equal(dirty_count(c), SIZE / MIB(2));
	dirty_client_destroy(c);
}

/* ---- under shadow ---- */

#define PML4 0x1000u
#define PDPT 0x2000u
#define PD   0x3000u

/* A guest's 2-MiB page with G and a protection key, logged: the small entries have them too. */
static void shadow_split(void **state)
{
	struct mmu_regs regs;
	struct dirty_client *c;

	poke(&m, PML4, PDPT | 0x67);
	poke(&m, PDPT, PD | 0x67);
	poke(&m, PD, MIB(4) | 0x1e7 | 5ull << 59);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	regs = m.cpu[0].regs;
	regs.cr4 |= BIT(22);
	cpu_set_regs(&m.cpu[0], &regs);
	assert_int_equal(cpu_access(&m.cpu[0], 0x5000, OACC_W | OACC_U, 1, 8).kind, OUT_OK);
	assert_int_equal(stats().pages_2m, 1);
	c = watch(0);
	assert_int_equal(stats().lpages_eager_split, 1);
	assert_int_equal(stats().pages_4k, 512);
	assert_int_equal(cpu_access(&m.cpu[0], 0x7000, OACC_W | OACC_U, 1, 8).kind, OUT_OK);
	expect_dirty(c, (MIB(4) >> 12) + 7, (MIB(4) >> 12) + 7);
	machine_audit(&m);
	regs.pkru = BIT(10); /* key 5: access disabled */
	cpu_set_regs(&m.cpu[0], &regs);
	assert_int_equal(cpu_access(&m.cpu[0], 0x8000, OACC_U, 0, 8).kind, OUT_FAULT);
	dirty_client_destroy(c);
}

/* ---- deep tables ---- */

/* A slot above 48 bits is reached by five levels only. */
static void five_levels(enum mmu_format format)
{
	struct mmu_config config = tdp(format);
	struct mmu_regs regs;
	struct outcome o;

	start(&config);
	machine_add(&m, 1, BIT(50), MIB(4), MIB(512), 0);
	for (unsigned wide = 0; wide < 2; wide++) {
		poke(&m, PML4, PDPT | 0x67);
		poke(&m, PDPT, PD | 0x67);
		poke(&m, PD, BIT(50) | 0xe7);
		cpu_paging(&m.cpu[0], PAGING_4, PML4);
		regs = m.cpu[0].regs;
		regs.maxphyaddr = wide ? 52 : 48;
		cpu_set_regs(&m.cpu[0], &regs);
		o = cpu_access(&m.cpu[0], 0x5000, OACC_W, 0x1234, 8);
		assert_int_equal(m.cpu[0].root.level, wide ? 5 : 4);
		if (!wide) {
			assert_int_equal(o.kind, OUT_FAULT); /* a reserved bit of the guest's */
			continue;
		}
		assert_int_equal(o.kind, OUT_OK);
		assert_int_equal(o.hpa, (uint64_t)(uintptr_t)machine_ptr(&m, BIT(50) + 0x5000));
		assert_true(stats().pages_2m > 0);
		if (format == MMU_FORMAT_EPT)
			assert_int_equal(m.cpu[0].root.tag >> 3 & 7, 4);
		o = cpu_access(&m.cpu[0], MIB(2) + 0x5000, 0, 0, 8);
		assert_int_equal(o.kind, OUT_FAULT);
		poke(&m, PD + 8, BIT(51) | 0xe7);
		o = cpu_access(&m.cpu[0], MIB(2) + 0x5000, 0, 0, 8);
		assert_int_equal(o.kind, OUT_MMIO);
		assert_int_equal(o.gpa, BIT(51) + 0x5000);
	}
}

static void five_levels_ept(void **state)
{
	five_levels(MMU_FORMAT_EPT);
}

static void five_levels_npt(void **state)
{
	five_levels(MMU_FORMAT_NPT);
}

static void no_flush(void *priv, const struct mmu_flush *flush)
{
}

static void no_kick(void *priv, uint64_t vcpus)
{
}

static void no_notify(void *priv, hva_t hva, uint64_t len)
{
}

static void levels_asked_for(void **state)
{
	static const struct mmu_ops ops = {
		.flush_tlb = no_flush, .kick = no_kick, .notify_write = no_notify};
	struct mmu_config config = tdp(MMU_FORMAT_NPT);
	struct mmu_vm *vm;

	config.tdp_levels = 5;
	start(&config);
	faults(0, OACC_W);
	assert_int_equal(m.cpu[0].root.level, 5);
	assert_int_equal(stats().pages_1g, 1);
	config.tdp_levels = 3;
	assert_int_equal(mmu_vm_create(&config, &ops, NULL, &vm), -EINVAL);
}

/* ---- mechanisms off ---- */

/* More leaf tables than the bound: some are taken back, but not when the bound is lifted. */
static void reclaim(void **state)
{
	struct mmu_config config = tdp(MMU_FORMAT_EPT);

	config.max_table_bytes = 1;
	config.max_page_level = 1;
	start(&config);
	for (unsigned off = 0; off < 2; off++) {
		uint64_t before = stats().mmu_recycled;

		mmu_set_disable(m.vm, off ? MMU_NO_RECLAIM : 0);
		for (gpa_t gpa = 0; gpa < MIB(400); gpa += MIB(2))
			faults(gpa, OACC_W);
		assert_int_equal(stats().mmu_recycled == before, off);
		machine_audit(&m);
	}
	mmu_set_disable(m.vm, 0);
	faults(0, OACC_W);
}

/* Small pages touched one after the other. */
static void prefetch(void **state)
{
	struct mmu_config config = tdp(MMU_FORMAT_EPT);
	unsigned n[2] = {0};

	config.max_page_level = 1;
	start(&config);
	for (unsigned off = 0; off < 2; off++) {
		mmu_set_disable(m.vm, off ? MMU_NO_PREFETCH : 0);
		for (gpa_t gpa = 0; gpa < 64 * PAGE_SIZE; gpa += PAGE_SIZE)
			n[off] += faults(gpa, OACC_W);
		assert_int_equal(cpu_stats().pf_prefetched, 8 * 7);
	}
	assert_int_equal(n[0], 8);
	assert_int_equal(n[1], 64);
}

/* What lies beyond the tables' reach is nothing that lies within. */
static void beyond_reach(void **state)
{
	struct mmu_fault f = {.addr = BIT(48) + 0x5000, .access = MMU_ACC_WRITE};
	struct mmu_fault cached = {.addr = BIT(48) + GIB(2), .flags = MMU_PF_RSVD};

	faults(0x5000, OACC_W);
	assert_int_equal(cpu_access(&m.cpu[0], GIB(2), 0, 0, 8).kind, OUT_MMIO);
	assert_int_equal(mmu_page_fault(m.cpu[0].v, &f), MMU_MMIO);
	assert_int_equal(f.gpa, BIT(48) + 0x5000);
	assert_int_equal(mmu_page_fault(m.cpu[0].v, &cached), MMU_MMIO);
	assert_int_equal(cached.gpa, BIT(48) + GIB(2));
}

#define IN_EACH(test)                                                                              \
	{#test " (ept)", test, start_ept, stop, NULL},                                             \
	{                                                                                          \
#test " (npt)", test, start_npt, stop, NULL                                        \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_EACH(split_in_place),
		IN_EACH(dropped_without_split),
		IN_EACH(eager),
		IN_EACH(collapse),
		IN_EACH(initially_set),
		IN_EACH(beyond_reach),
		cmocka_unit_test_setup_teardown(modification_log, start_ept, stop),
		cmocka_unit_test_setup_teardown(shadow_split, start_shadow, stop),
		cmocka_unit_test_teardown(eager_without_room, stop),
		cmocka_unit_test_teardown(five_levels_ept, stop),
		cmocka_unit_test_teardown(five_levels_npt, stop),
		cmocka_unit_test_teardown(levels_asked_for, stop),
		cmocka_unit_test_teardown(reclaim, stop),
		cmocka_unit_test_teardown(prefetch, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
