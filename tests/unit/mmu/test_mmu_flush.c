/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest's flush must reach: roots that are cached, other PCIDs, globals; and what nobody may
 * go on using: roots that were dropped, entries whose guest entry has changed untold.
 */
#include "machine.h"

static struct machine m;

#define RAM	   MIB(16)
#define PML4	   0x1000ull
#define PDPT	   0x2000ull
#define PD	   0x3000ull
#define PT	   0x4000ull
#define LA(pd, pt) ((uint64_t)(pd) << 21 | (uint64_t)(pt) << 12)
/* Another address space, all its tables its own. */
#define OTHER 0x8000ull
#define KEEP  BIT(63)

static int start(const struct mmu_config *config)
{
	machine_init(&m, config, 2);
	machine_add(&m, 0, 0, RAM, 0, 0);
	poke(&m, PML4, PDPT | 0x67);
	poke(&m, PDPT, PD | 0x67);
	poke(&m, PD, PT | 0x67);
	poke(&m, PT, 0x10067);
	poke(&m, PT + 8, PT | 0x67);
	poke(&m, OTHER, 0x9067);
	poke(&m, 0x9000, 0xa067);
	poke(&m, 0xa000, 0xb067);
	poke(&m, 0xb000 + 8 * 7, 0x18067);
	return 0;
}

static int setup(void **state)
{
	static const struct mmu_config config = {.policy = MMU_POLICY_SHADOW};

	return start(&config);
}

static int setup_tdp(void **state)
{
	static const struct mmu_config config = {.policy = MMU_POLICY_TDP};

	return start(&config);
}

static int setup_tdp_small(void **state)
{
	static const struct mmu_config config = {.policy = MMU_POLICY_TDP, .max_table_bytes = 1};

	return start(&config);
}

static int teardown(void **state)
{
	machine_audit(&m);
	machine_finish(&m);
	return 0;
}

static struct mmu_vm_stats vm_stats(void)
{
	struct mmu_vm_stats s;

	mmu_vm_read_stats(m.vm, &s);
	return s;
}

static void at(unsigned n, uint64_t la, unsigned access, gpa_t gpa)
{
	struct outcome o = cpu_access(&m.cpu[n], la, access, 0x5a, 1);

	assert_int_equal(o.kind, OUT_OK);
	assert_ptr_equal((void *)o.hpa, machine_ptr(&m, gpa));
	machine_audit(&m);
}

/* ---- cached roots ---- */

/* vCPU 0 runs on the first address space with PCID 1, and has used its first page. */
static void begin(uint64_t first_entry)
{
	struct mmu_regs r;

	poke(&m, PT, first_entry);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	r = m.cpu[0].regs;
	r.cr4 |= BIT(17);
	r.cr3 = PML4 | 1;
	cpu_set_regs(&m.cpu[0], &r);
	at(0, 0, OACC_W, first_entry & BITS(51, 12));
}

/* Its last table changes, out of step with ours. */
static void change(uint64_t first_entry)
{
	assert_false(cpu_access(&m.cpu[0], LA(0, 1), OACC_W, first_entry, 8).emulated);
	assert_int_equal(peek(&m, PT), first_entry);
	assert_int_equal(vm_stats().mmu_unsync, 1);
	machine_audit(&m);
}

/* Back by a CR3 load that flushes nothing: what was flushed before must not be there again. */
static void back_to(gpa_t gpa)
{
	struct mmu_vcpu_stats before, after;

	mmu_vcpu_read_stats(m.cpu[0].v, &before);
	cpu_load_cr3(&m.cpu[0], PML4 | 1 | KEEP);
	mmu_vcpu_read_stats(m.cpu[0].v, &after);
	assert_int_equal(after.root_cache_hit, before.root_cache_hit + 1);
	at(0, 0, 0, gpa);
}

/* A flush by CR3 is of the PCID, whatever table it had. */
static void one_pcid(void **state)
{
	begin(0x10067);
	change(0x20067);
	cpu_load_cr3(&m.cpu[0], OTHER | 1);
	at(0, LA(0, 7), 0, 0x18000);
	back_to(0x20000);
}

/* Without that flush the old translation may stay: nothing is synced in vain. */
static void kept(void **state)
{
	begin(0x10067);
	change(0x20067);
	cpu_load_cr3(&m.cpu[0], OTHER | 2 | KEEP);
	at(0, LA(0, 7), 0, 0x18000);
	back_to(0x10000);
	assert_int_equal(vm_stats().mmu_unsync, 1);
}

/* The same table by another PCID, which can have cached nothing of it. */
static void other_pcid(void **state)
{
	begin(0x10067);
	change(0x20067);
	cpu_load_cr3(&m.cpu[0], PML4 | 2 | KEEP);
	at(0, 0, 0, 0x20000);
}

static void cached_root(void **state)
{
	begin(0x10067);
	change(0x20067);
	cpu_load_cr3(&m.cpu[0], OTHER | 2 | KEEP);
	cpu_load_cr3(&m.cpu[0], PML4 | 1);
	at(0, 0, 0, 0x20000);
}

/* INVLPG drops a global translation whose table only another PCID's root leads to. */
static void global_by_invlpg(void **state)
{
	begin(0x10167);
	change(0x20167);
	cpu_load_cr3(&m.cpu[0], OTHER | 2 | KEEP);
	cpu_invlpg(&m.cpu[0], 0);
	back_to(0x20000);
}

/* CR4.PGE toggled, say: all PCIDs. */
static void whole_tlb(void **state)
{
	begin(0x10067);
	change(0x20067);
	cpu_load_cr3(&m.cpu[0], OTHER | 2 | KEEP);
	cpu_leave(&m.cpu[0]);
	mmu_flush_guest_tlb(m.cpu[0].v);
	cpu_flush(&m.cpu[0], true);
	back_to(0x20000);
}

static void invpcid_of_current(void **state)
{
	static const enum mmu_invpcid types[] = {MMU_INVPCID_ADDRESS, MMU_INVPCID_SINGLE,
						 MMU_INVPCID_ALL, MMU_INVPCID_ALL_GLOBAL};

	begin(0x10067);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		gpa_t gpa = 0x20000 + 0x1000 * i;

		change(gpa | 0x67);
		cpu_invpcid(&m.cpu[0], types[i], 1, 0);
		machine_audit(&m);
		at(0, 0, OACC_W, gpa);
		cpu_load_cr3(&m.cpu[0], PML4 | 1);
	}
}

static void invpcid_of_other(void **state)
{
	static const enum mmu_invpcid types[] = {MMU_INVPCID_ADDRESS, MMU_INVPCID_SINGLE,
						 MMU_INVPCID_ALL, MMU_INVPCID_ALL_GLOBAL};

	begin(0x10067);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		gpa_t gpa = 0x20000 + 0x1000 * i;

		change(gpa | 0x67);
		cpu_load_cr3(&m.cpu[0], OTHER | 2 | KEEP);
		cpu_invpcid(&m.cpu[0], types[i], 1, 0);
		back_to(gpa);
		cpu_load_cr3(&m.cpu[0], PML4 | 1);
		at(0, 0, OACC_W, gpa);
	}
}

/* ---- roots that go ---- */

/* Another policy: no table of the old one outlives the call, cached or in use. */
static void dropped_by_policy(void **state)
{
	begin(0x10067);
	cpu_load_cr3(&m.cpu[0], OTHER | 2);
	at(0, LA(0, 7), 0, 0x18000);
	poke(&m, 0xc000, 0xd001);
	cpu_paging(&m.cpu[1], PAGING_PAE, 0xc000);
	assert_int_equal(cpu_access(&m.cpu[1], 0, 0, 0, 1).kind, OUT_FAULT);
	machine_leave(&m);
	assert_int_equal(mmu_set_policy(m.vm, MMU_POLICY_TDP), 0);
	assert_int_equal(vm_stats().mmu_table_pages, 0);
	cpu_flush(&m.cpu[0], true);
	at(0, LA(0, 7), 0, 0x18000);
}

static const struct mmu_nested_regs l2 = {
	.eptp = 0x20000 | 6 | 3 << 3 | BIT(6),
	.guest = {.cr0 = 1, .maxphyaddr = 40, .gbpages = true},
};

/* The same of an L2's, which is not there at that moment. */
static void dropped_by_policy_nested(void **state)
{
	struct mmu_root root;

	assert_int_equal(cpu_enter_nested(&m.cpu[0], &l2, 0), 0);
	assert_int_equal(mmu_load(m.cpu[0].v, &root), 0);
	cpu_leave_nested(&m.cpu[0]);
	at(0, 0x5000, 0, 0x5000);
	machine_leave(&m);
	assert_int_equal(mmu_set_policy(m.vm, MMU_POLICY_SHADOW), 0);
	assert_int_equal(vm_stats().mmu_table_pages, 0);
}

/* 64 table pages, and 64 roots of L1s' EPTs: those that no vCPU is on give way. */
static void nested_roots_give_way(void **state)
{
	struct mmu_vcpu *v[16];
	struct mmu_nested_regs n = l2;
	struct mmu_root root;

	for (unsigned i = 0; i < ARRAY_SIZE(v); i++) {
		assert_int_equal(mmu_vcpu_create(m.vm, 2 + i, &v[i]), 0);
		for (unsigned e = 0; e < 4; e++) {
			n.eptp = (0x100ull + 4 * i + e) << 12 | 6 | 3 << 3;
			assert_int_equal(mmu_enter_nested(v[i], &n), 0);
			mmu_set_regs(v[i], &n.guest);
			assert_int_equal(mmu_load(v[i], &root), 0);
			machine_audit(&m);
		}
	}
	assert_true(vm_stats().mmu_table_pages <= 64);
	for (unsigned i = 0; i < ARRAY_SIZE(v); i++)
		mmu_vcpu_destroy(v[i]);
}

/* CR3 leads nowhere, and still does after memory came elsewhere: the root is made anew, and the old
 * one let go at once. */
static void absent_again(void **state)
{
	struct mmu_root root;
	uint64_t pages;

	cpu_paging(&m.cpu[0], PAGING_4, GIB(2));
	assert_int_equal(cpu_access(&m.cpu[0], 0, 0, 0, 1).kind, OUT_FAULT);
	pages = vm_stats().mmu_table_pages;
	machine_add(&m, 1, GIB(1), 0x1000, MIB(32), 0);
	machine_leave(&m);
	assert_int_equal(mmu_load(m.cpu[0].v, &root), 0);
	machine_audit(&m);
	assert_int_equal(vm_stats().mmu_table_pages, pages);
}

/* The machine's width changes while a vCPU is in L2: what others use goes all the same. */
static void width_amid_nested(void **state)
{
	struct mmu_regs r = l2.guest;

	at(1, 0x5000, OACC_W, 0x5000);
	assert_int_equal(cpu_enter_nested(&m.cpu[0], &l2, 0), 0);
	r.maxphyaddr = 36;
	cpu_leave(&m.cpu[0]);
	mmu_set_regs(m.cpu[0].v, &r);
	machine_audit(&m);
	assert_int_equal(vm_stats().pages_4k + vm_stats().pages_2m, 0);
	for (unsigned i = 0; i < NR_TLB; i++)
		assert_false(m.cpu[1].tlb[i].valid);
	cpu_leave_nested(&m.cpu[0]);
}

/* ---- entries of before ---- */

/* Stored, and not yet told: a fault of another vCPU may find the new entry before track_write(). */
static void untold_table(void **state)
{
	poke(&m, 0x5000, 0x20067);
	poke(&m, 0x5000 + 8 * 100, 0x23067);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	cpu_paging(&m.cpu[1], PAGING_4, PML4);
	at(0, 0, 0, 0x10000);
	poke(&m, PD, 0x5067);
	at(1, LA(0, 100), OACC_W, 0x23000);
	mmu_track_write(m.vm, PD, 8);
	at(0, 0, 0, 0x20000);
}

/* The same table with fewer rights: the page for more of them is not the one. */
static void untold_rights(void **state)
{
	struct outcome o;

	poke(&m, PT + 8 * 100, 0x23067);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	cpu_paging(&m.cpu[1], PAGING_4, PML4);
	at(0, 0, 0, 0x10000);
	poke(&m, PD, PT | 0x65);
	at(1, LA(0, 100), 0, 0x23000);
	o = cpu_access(&m.cpu[1], LA(0, 100), OACC_W, 0, 8);
	assert_int_equal(o.kind, OUT_FAULT);
	assert_int_equal(o.code, PF_P | PF_W);
	mmu_track_write(m.vm, PD, 8);
	machine_audit(&m);
}

/* What a processor whose TLB and walk missed would say: not by what our tables hold of before. */
static void fault(unsigned n, uint64_t la)
{
	struct mmu_fault f = {.addr = la, .gva = la, .flags = MMU_PF_GVA_VALID};

	cpu_leave(&m.cpu[n]);
	while (mmu_needs_load(m.cpu[n].v))
		assert_int_equal(mmu_load(m.cpu[n].v, &m.cpu[n].root), 0);
	assert_int_equal(mmu_page_fault(m.cpu[n].v, &f), MMU_RETRY);
	machine_audit(&m);
}

/* A large entry of before in the way. */
static void untold_large(void **state)
{
	poke(&m, 0x5000 + 8 * 100, 0x23067);
	poke(&m, PD + 8, 0x2000e7);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, LA(1, 0), OACC_W, 0x200000);
	assert_int_equal(vm_stats().pages_2m, 1);
	poke(&m, PD + 8, 0x5067);
	fault(0, LA(1, 100));
	at(0, LA(1, 100), 0, 0x23000);
	mmu_track_write(m.vm, PD + 8, 8);
	at(0, LA(1, 100), 0, 0x23000);
}

/* A large entry for another frame, where the one of now has to be of small ones. */
static void untold_large_frame(void **state)
{
	poke(&m, PD + 8, 0x2000e7);
	poke(&m, PD + 16, 0x400067); /* a table within the frame of then */
	poke(&m, 0x400000, 0x23067);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	cpu_paging(&m.cpu[1], PAGING_4, PML4);
	at(0, LA(2, 0), 0, 0x23000);
	at(0, LA(1, 0), OACC_W, 0x200000);
	assert_int_equal(vm_stats().pages_2m, 1);
	poke(&m, PD + 8, 0x4000e7);
	fault(1, LA(1, 5));
	at(1, LA(1, 5), OACC_W, 0x405000);
	mmu_track_write(m.vm, PD + 8, 8);
	at(0, LA(1, 6), OACC_W, 0x406000);
}

/* The same page with other rights: its parts are not those of the large entry. */
static void untold_large_rights(void **state)
{
	struct outcome o;

	poke(&m, PD + 8, 0x2000e7);
	poke(&m, PD + 16, 0x200067); /* a table within: small pages, once they are asked for */
	poke(&m, 0x200000, 0x23067);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	cpu_paging(&m.cpu[1], PAGING_4, PML4);
	at(0, LA(1, 1), OACC_W, 0x201000);
	at(0, LA(2, 0), 0, 0x23000);
	poke(&m, PD + 8, 0x2000e5);
	fault(1, LA(1, 5));
	o = cpu_access(&m.cpu[1], LA(1, 6), OACC_W, 0, 8);
	assert_int_equal(o.kind, OUT_FAULT);
	assert_int_equal(o.code, PF_P | PF_W);
	mmu_track_write(m.vm, PD + 8, 8);
	machine_audit(&m);
}

/* Memory comes where an MMIO entry is: one that shares the lock must not take that away. */
static void memory_for_mmio(void **state)
{
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(cpu_access(&m.cpu[0], GIB(1), 0, 0, 8).kind, OUT_MMIO);
	machine_add(&m, 1, GIB(1), 0x1000, MIB(32), 0);
	at(0, GIB(1), OACC_W, GIB(1));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define D(f) cmocka_unit_test_setup_teardown(f, setup_tdp, teardown)
	const struct CMUnitTest tests[] = {
		T(one_pcid),
		T(kept),
		T(other_pcid),
		T(cached_root),
		T(global_by_invlpg),
		T(whole_tlb),
		T(invpcid_of_current),
		T(invpcid_of_other),
		T(dropped_by_policy),
		D(dropped_by_policy_nested),
		cmocka_unit_test_setup_teardown(nested_roots_give_way, setup_tdp_small, teardown),
		T(absent_again),
		D(width_amid_nested),
		T(untold_table),
		T(untold_rights),
		T(untold_large),
		T(untold_large_frame),
		T(untold_large_rights),
		D(memory_for_mmio),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
