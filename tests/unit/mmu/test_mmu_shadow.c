/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The shadow MMU and TDP by scenario: each mechanism at work, and what it must not get wrong. */
#include "machine.h"

#include <string.h>

static struct machine m;

#define RAM	   MIB(16)
#define PML4	   0x1000ull
#define PDPT	   0x2000ull
#define PD	   0x3000ull
#define PT	   0x4000ull
#define LA(pd, pt) ((uint64_t)(pd) << 21 | (uint64_t)(pt) << 12)

static struct mmu_vm_stats vm_stats(void)
{
	struct mmu_vm_stats s;

	mmu_vm_read_stats(m.vm, &s);
	return s;
}

static struct mmu_vcpu_stats cpu_stats(unsigned n)
{
	struct mmu_vcpu_stats s;

	mmu_vcpu_read_stats(m.cpu[n].v, &s);
	return s;
}

static int start(const struct mmu_config *config)
{
	machine_init(&m, config, 2);
	machine_add(&m, 0, 0, RAM, 0, 0);
	poke(&m, PML4, PDPT | 7);
	poke(&m, PDPT, PD | 7);
	poke(&m, PD, PT | 7);
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

static int setup_npt(void **state)
{
	static const struct mmu_config config = {.policy = MMU_POLICY_TDP,
						 .tdp_format = MMU_FORMAT_NPT};

	return start(&config);
}

static int setup_small(void **state)
{
	static const struct mmu_config config = {.policy = MMU_POLICY_SHADOW, .max_table_bytes = 1};

	return start(&config);
}

static int teardown(void **state)
{
	machine_audit(&m);
	machine_finish(&m);
	return 0;
}

static void at(unsigned n, uint64_t la, unsigned access, gpa_t gpa)
{
	struct outcome o = cpu_access(&m.cpu[n], la, access, 0x5a, 1);

	assert_int_equal(o.kind, OUT_OK);
	assert_ptr_equal((void *)o.hpa, machine_ptr(&m, gpa));
	machine_audit(&m);
}

static void faults(unsigned n, uint64_t la, unsigned access, uint32_t code)
{
	struct outcome o = cpu_access(&m.cpu[n], la, access, 0x5a, 1);

	assert_int_equal(o.kind, OUT_FAULT);
	assert_int_equal(o.code, code);
	machine_audit(&m);
}

/* The guest stores to its own table through a mapping; whether L0 had to emulate. */
static bool store(unsigned n, uint64_t la, uint64_t value)
{
	struct outcome o = cpu_access(&m.cpu[n], la, OACC_W, value, 8);

	assert_int_equal(o.kind, OUT_OK);
	machine_audit(&m);
	return o.emulated;
}

/* A table of level 2 written: the entry is zapped at once. */
static void table_write(void **state)
{
	struct mmu_vm_stats s;

	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	poke(&m, PT, 0x10007);
	poke(&m, PT + 8, PD | 7);
	poke(&m, 0x5000, 0x20007);
	at(0, LA(0, 0), 0, 0x10000);
	s = vm_stats();
	assert_true(store(0, LA(0, 1), 0x5007)); /* the first entry of PD, at its own address */
	assert_int_equal(peek(&m, PD), 0x5007);
	assert_true(vm_stats().mmu_pte_write > s.mmu_pte_write);
	assert_true(vm_stats().mmu_pde_zapped > s.mmu_pde_zapped);
	at(0, LA(0, 0), 0, 0x20000);
	faults(0, LA(0, 1), 0, 0);
}

/* A last-level table goes out of sync: no emulation, and INVLPG or CR3 loads bring it back. */
static void unsync(void **state)
{
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	poke(&m, PT, 0x10007);
	poke(&m, PT + 8, PT | 7);
	at(0, LA(0, 0), OACC_W, 0x10000);
	assert_false(store(0, LA(0, 1), 0x20067));
	assert_int_equal(vm_stats().mmu_unsync, 1);
	cpu_invlpg(&m.cpu[0], LA(0, 0));
	machine_audit(&m);
	at(0, LA(0, 0), OACC_W, 0x20000);
	assert_false(store(0, LA(0, 1), 0x30067));
	assert_int_equal(vm_stats().mmu_unsync, 1);
	cpu_load_cr3(&m.cpu[0], PML4);
	assert_int_equal(vm_stats().mmu_unsync, 0);
	at(0, LA(0, 0), 0, 0x30000);
	/* Write-protected again: out of sync once more. */
	assert_false(store(0, LA(0, 1), 0x40065));
	cpu_load_cr3(&m.cpu[0], PML4);
	at(0, LA(0, 0), 0, 0x40000);
	faults(0, LA(0, 0), OACC_W, PF_P | PF_W);
	/* A cleared dirty bit is seen after the flush. */
	poke(&m, PT, 0);
	assert_false(store(0, LA(0, 1), 0x40027));
	cpu_load_cr3(&m.cpu[0], PML4);
	at(0, LA(0, 0), 0, 0x40000);
	assert_int_equal(peek(&m, PT), 0x40027);
	at(0, LA(0, 0), OACC_W, 0x40000);
	assert_int_equal(peek(&m, PT), 0x40067);
	/* A new way to an unsynced table knows no old entries. */
	assert_false(store(0, LA(0, 1), 0x50067));
	poke(&m, PT + 16, PD | 7);
	store(0, LA(0, 2) + 8, PT | 7);
	at(0, LA(1, 0), 0, 0x50000);
}

static void no_unsync(void **state)
{
	mmu_set_disable(m.vm, MMU_NO_UNSYNC);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	poke(&m, PT, 0x10007);
	poke(&m, PT + 8, PT | 7);
	at(0, LA(0, 0), 0, 0x10000);
	assert_true(store(0, LA(0, 1), 0x20067));
	at(0, LA(0, 0), 0, 0x20000);
}

/* The top table maps itself: one page at four levels at once. */
static void self_map(void **state)
{
	uint64_t self = 511ull << 39 | 511ull << 30 | 511ull << 21 | 511ull << 12;

	self |= 0xffffull << 48;
	poke(&m, PML4 + 8 * 511, PML4 | 7);
	poke(&m, PT, 0x10007);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, self, 0, PML4);
	at(0, LA(0, 0), 0, 0x10000);
	/* The page table by the recursive mapping: pt entry 0 of the low address. */
	at(0, 0xffffff8000000000ull, 0, PT);
	store(0, 0xffffff8000000000ull, 0x20067);
	cpu_invlpg(&m.cpu[0], 0);
	machine_audit(&m);
	at(0, LA(0, 0), 0, 0x20000);
	/* And the top table through itself, as supervisor and as user. */
	assert_true(store(0, self + 8, PDPT | 7));
	at(0, 1ull << 39, 0, 0x20000);
	struct outcome o = cpu_access(&m.cpu[0], self + 16, OACC_W | OACC_U, PDPT | 7, 8);
	assert_int_equal(o.kind, OUT_OK);
	at(0, 2ull << 39, 0, 0x20000);
}

/* Two address spaces share tables; a change reaches both. */
static void shared_tables(void **state)
{
	poke(&m, 0x8000, PDPT | 7);
	poke(&m, PT, 0x10007);
	poke(&m, PT + 8, PD | 7);
	poke(&m, 0x5000, 0x20007);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	cpu_paging(&m.cpu[1], PAGING_4, 0x8000);
	at(0, 0, 0, 0x10000);
	at(1, 0, 0, 0x10000);
	assert_true(store(0, LA(0, 1), 0x5007));
	at(1, 0, 0, 0x20000);
	at(0, 0, 0, 0x20000);
}

/* Same table, other rights above: two shadows. */
static void inherited_access(void **state)
{
	poke(&m, PD + 8, PT | 5);
	poke(&m, PT, 0x10007);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, LA(0, 0), OACC_W, 0x10000);
	at(0, LA(1, 0), 0, 0x10000);
	faults(0, LA(1, 0), OACC_W, PF_P | PF_W);
	at(0, LA(0, 0), OACC_W | OACC_U, 0x10000);
}

/* 32 bits: four and two shadows for one table. */
static void quadrants(void **state)
{
	uint64_t pages;

	for (unsigned q = 0; q < 4; q++)
		poke32(&m, 0x8000 + 4 * (q * 256 + 3), 0x9007);
	for (unsigned i = 0; i < 1024; i++)
		poke32(&m, 0x9000 + 4 * i, (0x100 + i) << 12 | 7);
	cpu_paging(&m.cpu[0], PAGING_32, 0x8000);
	for (unsigned q = 0; q < 4; q++) {
		uint64_t base = (uint64_t)(q * 256 + 3) << 22;

		at(0, base, OACC_W, 0x100000);
		at(0, base + (1023 << 12), 0, 0x4ff000);
		at(0, base + (512 << 12), 0, 0x300000);
	}
	pages = vm_stats().mmu_pages;
	assert_int_equal(pages, 4 + 2); /* four quadrants of the directory, two of the table */
	/* One PDE is two of our entries. */
	poke32(&m, 0x9000 + 4, 0x8007);
	cpu_load_cr3(&m.cpu[0], 0x8000);
	struct outcome o = cpu_access(&m.cpu[0], (3ull << 22) + 0x1000 + 4 * 3, OACC_W, 0, 4);
	assert_int_equal(o.kind, OUT_OK);
	faults(0, 3ull << 22, 0, 0);
	faults(0, (3ull << 22) + (600 << 12), 0, 0);
	at(0, (259ull << 22) + (600 << 12), 0, 0x358000);
	/* A page of 4 MiB is two of 2 MiB. */
	poke32(&m, 0x8000 + 4 * 700, 0x00400087 | 0x300000 * 0);
	at(0, (700ull << 22) + 0x234567, OACC_W, 0x634567);
	at(0, (700ull << 22) + 0x034567, OACC_W, 0x434567);
	assert_int_equal(vm_stats().pages_2m, 2);
}

static void pae_roots(void **state)
{
	poke(&m, 0x8000, PD | 1);
	poke(&m, 0x8018, 0x9001);
	poke(&m, 0x9000, PT | 7);
	poke(&m, PT, 0x10007);
	cpu_paging(&m.cpu[0], PAGING_PAE, 0x8000);
	at(0, 0, 0, 0x10000);
	at(0, 0xc0000000, OACC_W, 0x10000);
	faults(0, 0x40000000, 0, 0);
	/* Changed in memory: nothing until CR3 is loaded. */
	poke(&m, 0x8008, 0x9001);
	faults(0, 0x40000000, 0, 0);
	assert_int_equal(mmu_read_pdptrs(m.cpu[0].v, &m.cpu[0].regs, 0x8000, m.cpu[0].regs.pdptr),
			 0);
	cpu_load_cr3(&m.cpu[0], 0x8000);
	at(0, 0x40000000, 0, 0x10000);
}

static void root_cache(void **state)
{
	struct mmu_vcpu_stats before, after;

	poke(&m, 0x8000, PDPT | 7);
	poke(&m, PT, 0x10007);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, 0, 0, 0x10000);
	cpu_load_cr3(&m.cpu[0], 0x8000);
	at(0, 0, 0, 0x10000);
	before = cpu_stats(0);
	for (unsigned i = 0; i < 10; i++) {
		cpu_load_cr3(&m.cpu[0], i & 1 ? 0x8000 : PML4);
		at(0, 0, 0, 0x10000);
	}
	after = cpu_stats(0);
	assert_int_equal(after.root_cache_hit - before.root_cache_hit, 10);
	assert_int_equal(after.root_built, before.root_built);
	assert_int_equal(after.pf_taken, before.pf_taken);
	mmu_set_disable(m.vm, MMU_NO_ROOT_CACHE);
	for (unsigned i = 0; i < 4; i++) {
		cpu_load_cr3(&m.cpu[0], i & 1 ? 0x8000 : PML4);
		at(0, 0, 0, 0x10000);
	}
	assert_int_equal(cpu_stats(0).root_cache_hit, after.root_cache_hit);
}

static void large_pages(void **state)
{
	poke(&m, PD + 8, 0x200000 | 0x87);
	poke(&m, PT, PD | 7);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, LA(1, 5), OACC_W, 0x205000);
	assert_int_equal(vm_stats().pages_2m, 1);
	assert_int_equal(vm_stats().pages_4k, 0);
	/* A table within: split, and only the table's page is protected. */
	poke(&m, PD + 16, 0x204000 | 7);
	poke(&m, 0x204000, 0x300007);
	at(0, LA(2, 0), OACC_W, 0x300000);
	at(0, LA(1, 5), OACC_W, 0x205000);
	assert_int_equal(vm_stats().pages_2m, 0);
	assert_true(vm_stats().lpages_split > 0);
	assert_false(store(0, LA(1, 4), 0x400007));
	cpu_load_cr3(&m.cpu[0], PML4);
	at(0, LA(2, 0), 0, 0x400000);
}

static void prefetch(void **state)
{
	for (unsigned i = 0; i < 8; i++)
		poke(&m, PT + 8 * i, 0x10000 + 0x1000 * i + 0x67);
	poke(&m, PT + 24, 0x13047); /* not accessed: it is no business of ours */
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, LA(0, 1), 0, 0x11000);
	assert_int_equal(cpu_stats(0).pf_prefetched, 6);
	assert_int_equal(peek(&m, PT + 24), 0x13047);
	assert_int_equal(cpu_access(&m.cpu[0], LA(0, 7), OACC_W, 0, 8).faults, 0);
	assert_int_equal(cpu_access(&m.cpu[0], LA(0, 3), 0, 0, 8).faults, 1);
}

static void flood(void **state)
{
	poke(&m, PT, PD | 7);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, LA(0, 0), 0, PD);
	for (unsigned i = 0; i < 100; i++) {
		uint64_t v = 0;

		assert_int_equal(mmu_guest_write(m.cpu[0].v, PD + 0x800 + 8 * i, &v, 8), 0);
	}
	assert_int_equal(vm_stats().mmu_flooded, 1);
	assert_int_equal(vm_stats().mmu_pte_write, 3);
	/* Misaligned: no table's write. */
	at(0, LA(0, 0), 0, PD);
	uint32_t v = 0;
	assert_int_equal(mmu_guest_write(m.cpu[0].v, PD + 0x802, &v, 2), 0);
	assert_int_equal(vm_stats().mmu_flooded, 2);
	assert_false(mmu_is_tracked(m.vm, PD));
	/* The user writes: not a table any more. */
	poke(&m, PT + 8, 0x8007);
	at(0, LA(0, 0), 0, PD);
	poke(&m, PML4 + 8, 0x8007);
	poke(&m, 0x8000, 0x9007);
	poke(&m, 0x9000, 0xa007);
	poke(&m, 0xa000, 0x10007);
	cpu_load_cr3(&m.cpu[0], 0x100000);
	cpu_load_cr3(&m.cpu[0], PML4);
	at(0, 1ull << 39, 0, 0x10000);
	assert_true(mmu_is_tracked(m.vm, 0x8000));
	at(0, LA(0, 1) + 0x100, OACC_W | OACC_U, 0x8100);
	assert_int_equal(cpu_stats(0).pf_unprotected, 1);
	assert_false(mmu_is_tracked(m.vm, 0x8000));
}

static void reclaim(void **state)
{
	/* 200 tables do not fit; nothing may go wrong but the time. */
	for (unsigned i = 0; i < 200; i++) {
		poke(&m, PD + 8 * i, 0x100000 + 0x1000 * i + 7);
		poke(&m, 0x100000 + 0x1000 * i, 0x400000 + 0x1000 * i + 7);
	}
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 200; i++)
			at(0, LA(i, 0), OACC_W, 0x400000 + 0x1000 * i);
	}
	assert_true(vm_stats().mmu_recycled > 200);
	assert_true(vm_stats().mmu_table_pages <= 64);
	mmu_zap_all(m.vm);
	assert_int_equal(vm_stats().mmu_pages, 0);
}

static void mmio(void **state)
{
	struct outcome o;

	poke(&m, PT, GIB(3) | 3);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	for (unsigned i = 0; i < 3; i++) {
		o = cpu_access(&m.cpu[0], 0x123, 0, 0, 1);
		assert_int_equal(o.kind, OUT_MMIO);
		assert_int_equal(o.gpa, GIB(3) + 0x123);
	}
	assert_int_equal(cpu_stats(0).pf_mmio_spte_created, 1);
	assert_int_equal(cpu_stats(0).pf_mmio_cached, 2);
	faults(0, 0, OACC_U, PF_P | PF_U); /* the cached entry has the guest's rights */
	/* A page of memory becomes MMIO unseen (no flush), then is written. */
	poke(&m, PT + 8, 0x10065);
	poke(&m, PT + 16, PT | 3);
	at(0, LA(0, 1), 0, 0x10000);
	store(0, LA(0, 2) + 8, GIB(3) | 0x63);
	assert_int_equal(cpu_access(&m.cpu[0], LA(0, 1), OACC_W, 0, 1).kind, OUT_MMIO);
	machine_audit(&m);
	/* Memory comes where none was. */
	machine_add(&m, 1, GIB(3), 0x1000, MIB(32), 0);
	at(0, 0x123, 0, GIB(3) + 0x123);
	assert_int_equal(slot_delete(m.vm, 1), 0);
	m.region[1].used = false;
	assert_int_equal(cpu_access(&m.cpu[0], 0x123, 0, 0, 1).kind, OUT_MMIO);
}

/* CR0.WP = 0, alone and with SMEP and SMAP. */
static void write_protect_off(void **state)
{
	struct mmu_regs r;

	poke(&m, PT, 0x10005);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	r = m.cpu[0].regs;
	faults(0, 0, OACC_W, PF_P | PF_W);
	r.cr0 &= ~BIT(16);
	cpu_set_regs(&m.cpu[0], &r);
	assert_false(cpu_access(&m.cpu[0], 0, OACC_W, 0, 1).emulated);
	at(0, 0, OACC_W, 0x10000);
	at(0, 0, OACC_U, 0x10000);
	faults(0, 0, OACC_W | OACC_U, PF_P | PF_W | PF_U);
	at(0, 0, OACC_W, 0x10000);
	r.cr4 |= BIT(20);
	cpu_set_regs(&m.cpu[0], &r);
	at(0, 0, OACC_W, 0x10000);
	faults(0, 0, OACC_X, PF_P | PF_FETCH);
	at(0, 0, OACC_X | OACC_U, 0x10000);
	r.cr4 |= BIT(21);
	cpu_set_regs(&m.cpu[0], &r);
	at(0, 0, OACC_W | OACC_AC, 0x10000);
	faults(0, 0, OACC_W, PF_P | PF_W);
	r.cr0 |= BIT(16);
	cpu_set_regs(&m.cpu[0], &r);
	faults(0, 0, OACC_W | OACC_AC, PF_P | PF_W);
}

/* Only those that used a page are interrupted. */
static void targeted_flush(void **state)
{
	uint64_t flushes;

	poke(&m, 0x8000, 0x9007);
	poke(&m, 0x9000, 0xa007);
	poke(&m, 0xa000, 0xb007);
	poke(&m, 0xb000, 0x20067);
	poke(&m, PT, 0x10067);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	cpu_paging(&m.cpu[1], PAGING_4, 0x8000);
	at(0, 0, OACC_W, 0x10000);
	at(1, 0, OACC_W, 0x20000);
	struct tlb_entry kept = m.cpu[0].tlb[0];
	flushes = m.flushes;
	mmu_unprotect(m.vm, 0xb);
	assert_true(m.flushes > flushes);
	assert_memory_equal(&kept, &m.cpu[0].tlb[0], sizeof(kept));
	for (unsigned i = 0; i < NR_TLB; i++)
		assert_false(m.cpu[1].tlb[i].valid);
}

/* An entry loses W by a sync: nobody may go on writing by an old one, for none would know. */
static void reduced_by_sync(void **state)
{
	struct dirty_client *c;
	uint64_t bits[RAM / PAGE_SIZE / 64];

	poke(&m, PT, 0x10067);
	poke(&m, PT + 8, PT | 0x67);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	cpu_paging(&m.cpu[1], PAGING_4, PML4);
	at(1, 0, OACC_W, 0x10000);
	assert_false(store(0, LA(0, 1), 0x10065));
	cpu_invlpg(&m.cpu[0], 0);
	machine_audit(&m);
	assert_int_equal(dirty_client_create(m.vm, "c", 0, &c), 0);
	assert_int_equal(dirty_client_watch(c, 0), 0);
	/* vCPU 1 has not flushed: a write may still pass, but then the log has it. */
	if (cpu_access(&m.cpu[1], 0, OACC_W, 7, 8).kind == OUT_OK) {
		assert_int_equal(dirty_get(c, 0, 0, RAM / PAGE_SIZE, bits), 0);
		assert_true(bits[0] >> 16 & 1);
	}
	dirty_client_destroy(c);
}

/* A frame is a directory of 64-bit entries here and of 32-bit ones there: whose A bits are address
 * bits. */
static void two_forms(void **state)
{
	machine_add(&m, 1, GIB(4), 0x10000, MIB(32), 0);
	poke(&m, 0x9000, PDPT | 7);
	poke(&m, PDPT, 0xa007);
	poke(&m, 0xa000, (GIB(4) + 0x5000) | 0x67);
	poke(&m, GIB(4) + 0x5000, 0x20067);
	poke32(&m, 0,
	       0x30067); /* by 32 bits the upper half of that entry leads to the table at 0 */
	cpu_paging(&m.cpu[0], PAGING_4, 0x9000);
	cpu_paging(&m.cpu[1], PAGING_32, 0xa000);
	at(0, 0, 0, 0x20000);
	at(1, 0x400000, 0, 0x30000);
	assert_int_equal(peek32(&m, 0xa004), 0x21); /* the walker set A */
	faults(0, 0, 0, PF_P | PF_RSVD);	    /* and there is no table any more */
}

/* The same by the emulation's walk. */
static void two_forms_emulated(void **state)
{
	struct mmu_walk_result r;

	machine_add(&m, 1, GIB(4), 0x10000, MIB(32), 0);
	poke(&m, 0x9000, PDPT | 7);
	poke(&m, PDPT, 0xa007);
	poke(&m, 0xa000, (GIB(4) + 0x5000) | 0x67);
	poke(&m, GIB(4) + 0x5000, 0x20067);
	poke32(&m, 0, 0x30067);
	cpu_paging(&m.cpu[0], PAGING_4, 0x9000);
	cpu_paging(&m.cpu[1], PAGING_32, 0xa000);
	at(0, 0, 0, 0x20000);
	assert_int_equal(mmu_gva_to_gpa(m.cpu[1].v, 0x400000, 0, &r), 0);
	machine_audit(&m);
	faults(0, 0, 0, PF_P | PF_RSVD);
}

/* Tables written by L0: through a window, and by a way of its own. */
static void written_by_l0(void **state)
{
	struct slot_window win;

	poke(&m, PT, 0x10007);
	poke(&m, 0x5000, 0x20007);
	poke(&m, 0x6000, 0x30007);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, 0, 0, 0x10000);
	assert_int_equal(slot_map(m.vm, PD, 8, MMU_ACC_WRITE, &win), 0);
	*(uint64_t *)win.host = 0x5007;
	slot_unmap(m.vm, &win, 8);
	at(0, 0, 0, 0x20000);
	poke(&m, PD, 0x6007);
	mmu_track_write(m.vm, PD, 8);
	at(0, 0, 0, 0x30000);
	mmu_unload(m.cpu[0].v);
	mmu_zap_all(m.vm);
	mmu_unload(m.cpu[1].v);
	assert_int_equal(vm_stats().mmu_table_pages, 0);
}

/* Unsynced tables of 32-bit and PAE guests, and a flush by other means than CR3. */
static void unsync_framed(void **state)
{
	poke32(&m, 0x8000, 0x9007);
	poke32(&m, 0x9000, 0x10067);
	poke32(&m, 0x9004, 0x9067);
	cpu_paging(&m.cpu[0], PAGING_32, 0x8000);
	at(0, 0, 0, 0x10000);
	assert_false(cpu_access(&m.cpu[0], 0x1000, OACC_W, 0x20067, 4).emulated);
	cpu_load_cr3(&m.cpu[0], 0x8000);
	at(0, 0, 0, 0x20000);
	assert_false(cpu_access(&m.cpu[0], 0x1000, OACC_W, 0x30067, 4).emulated);
	mmu_flush_guest_tlb(m.cpu[0].v);
	machine_audit(&m);
	cpu_flush(&m.cpu[0], true);
	at(0, 0, 0, 0x30000);
}

/* A frame's own page table is linked at a second place while it is out of step. */
static void new_way(void **state)
{
	poke(&m, PT, 0x10067);
	poke(&m, PT + 8, PT | 0x67);
	poke(&m, PT + 16, PD | 0x67);
	poke(&m, PT + 32, 0x60067);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, LA(0, 0), OACC_W, 0x10000);
	assert_false(store(0, LA(0, 1), 0x20067));
	assert_true(store(0, LA(0, 2) + 8, PT | 0x67));
	at(0, LA(1, 4), 0, 0x60000); /* this faults and links, the next finds what is there */
	at(0, LA(1, 0), OACC_W, 0x20000);
	/* And with a table in between. */
	assert_false(store(0, LA(0, 1), 0x30067));
	poke(&m, PT + 24, PDPT | 0x67);
	assert_true(store(0, LA(0, 3) + 8, PD | 0x67));
	at(0, GIB(1) + LA(0, 4), 0, 0x60000);
	at(0, GIB(1), OACC_W, 0x30000);
}

/* A last table that is out of step becomes a directory too: it hardly is the former any more. */
static void unsynced_directory(void **state)
{
	poke(&m, PT, 0x10067);
	poke(&m, PT + 8, PT | 0x67);
	poke(&m, PDPT + 8, PT | 0x67);
	poke(&m, 0x20000, 0x30067);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, 0, 0, 0x10000);
	assert_false(store(0, LA(0, 1), 0x20067));
	assert_int_equal(vm_stats().mmu_unsync, 1);
	at(0, GIB(1), 0, 0x30000);
	assert_int_equal(vm_stats().mmu_unsync, 0);
	assert_true(store(0, LA(0, 1) + 16, 0x20067));
}

/* What is to become a directory is still written, up to the moment of its protection. */
static void store_amid_fault(struct machine *mm, const struct mmu_flush *f)
{
	for (unsigned i = 0; i < NR_TLB; i++) {
		if (mm->cpu[1].tlb[i].valid && mm->cpu[1].tlb[i].w &&
		    mm->cpu[1].tlb[i].hpa == (uint64_t)(uintptr_t)machine_ptr(mm, 0x50000))
			poke(mm, 0x50000, 0x9000 | 7);
	}
}

static void changed_amid_fault(void **state)
{
	poke(&m, PT, 0x50067);
	cpu_paging(&m.cpu[1], PAGING_4, PML4);
	at(1, 0, OACC_W, 0x50000);
	poke(&m, 0x50000, 0x8007);
	poke(&m, 0x8000, 0x20007);
	poke(&m, 0x9000, 0x30007);
	poke(&m, PDPT + 8, 0x50007);
	m.before_flush = store_amid_fault;
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, GIB(1), 0, 0x30000);
	m.before_flush = NULL;
}

/* The guest's width shrinks: what was an address is a reserved bit. */
static void width(void **state)
{
	struct mmu_regs r;

	poke(&m, PT, BIT(37) | 7);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	assert_int_equal(cpu_access(&m.cpu[0], 0, 0, 0, 8).kind, OUT_MMIO);
	r = m.cpu[0].regs;
	r.maxphyaddr = 36;
	cpu_set_regs(&m.cpu[0], &r);
	faults(0, 0, 0, PF_P | PF_RSVD);
}

/* Only cached roots are left to give way. */
static void roots_give_way(void **state)
{
	static const struct mmu_config config = {.policy = MMU_POLICY_SHADOW, .max_table_bytes = 1};

	machine_init(&m, &config, 4);
	machine_add(&m, 0, 0, RAM, 0, 0);
	for (unsigned i = 0; i < 16; i++) {
		poke32(&m, 0x100000 + 0x1000 * i, 0x200007);
		poke32(&m, 0x200000, 0x300007);
	}
	for (unsigned i = 0; i < 16; i++) {
		cpu_paging(&m.cpu[i % 4], PAGING_32, 0x100000 + 0x1000 * i);
		at(i % 4, 0, 0, 0x300000);
	}
}

static void tdp_pages(void **state)
{
	cpu_paging(&m.cpu[0], PAGING_NONE, 0);
	at(0, 0x345678, OACC_W, 0x345678);
	assert_int_equal(vm_stats().pages_2m, 1);
	assert_int_equal(cpu_access(&m.cpu[0], 0x3ff000, 0, 0, 8).faults, 0);
	/* Where the host's memory is not aligned to the guest's: small pages. */
	machine_add(&m, 1, MIB(64), MIB(4), MIB(64) + 0x1000, 0);
	at(0, MIB(64), 0, MIB(64));
	assert_true(vm_stats().pages_4k > 0);
	machine_add(&m, 2, MIB(96), MIB(4), MIB(96), SLOT_READONLY);
	at(0, MIB(96), 0, MIB(96));
	assert_int_equal(cpu_access(&m.cpu[0], MIB(96), OACC_W, 0, 8).kind, OUT_MMIO);
	assert_int_equal(cpu_access(&m.cpu[0], MIB(200), OACC_W, 0, 8).kind, OUT_MMIO);
	assert_int_equal(cpu_access(&m.cpu[0], MIB(200), 0, 0, 8).gpa, MIB(200));
	machine_audit(&m);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	poke(&m, PT, 0x10007);
	at(0, 0, OACC_W | OACC_U, 0x10000);
	faults(0, 0x1000, 0, 0);
	/* A guest table where no memory is. */
	poke(&m, PD, MIB(200) | 7);
	faults(0, 0, OACC_W, PF_P | PF_RSVD | PF_W);
}

static void policy_switch(void **state)
{
	poke(&m, PT, 0x10007);
	poke(&m, PT + 8, PT | 7);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	for (unsigned i = 0; i < 50; i++) {
		enum mmu_policy p = i & 1 ? MMU_POLICY_SHADOW : MMU_POLICY_TDP;
		gpa_t gpa = 0x10000 + 0x1000 * i;

		store(0, LA(0, 1), gpa | 7);
		assert_int_equal(mmu_set_policy(m.vm, p), 0);
		cpu_flush(&m.cpu[0], true);
		at(0, 0, OACC_W, gpa);
	}
}

/* CR3 points where nothing is, then memory comes. */
static void absent_root(void **state)
{
	cpu_paging(&m.cpu[0], PAGING_4, GIB(2));
	faults(0, 0, 0, PF_P | PF_RSVD);
	machine_add(&m, 1, GIB(2), 0x1000, MIB(32), 0);
	poke(&m, GIB(2), PDPT | 7);
	poke(&m, PT, 0x10007);
	at(0, 0, 0, 0x10000);
	assert_int_equal(slot_delete(m.vm, 1), 0);
	m.region[1].used = false;
	faults(0, 0, 0, PF_P | PF_RSVD);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(table_write),
		T(unsync),
		T(no_unsync),
		T(self_map),
		T(shared_tables),
		T(inherited_access),
		T(quadrants),
		T(pae_roots),
		T(root_cache),
		T(large_pages),
		T(prefetch),
		T(flood),
		cmocka_unit_test_setup_teardown(reclaim, setup_small, teardown),
		T(mmio),
		T(write_protect_off),
		T(targeted_flush),
		T(reduced_by_sync),
		T(two_forms),
		T(two_forms_emulated),
		T(written_by_l0),
		T(unsync_framed),
		T(new_way),
		T(width),
		T(changed_amid_fault),
		T(unsynced_directory),
		cmocka_unit_test_teardown(roots_give_way, teardown),
		cmocka_unit_test_setup_teardown(tdp_pages, setup_tdp, teardown),
		cmocka_unit_test_setup_teardown(tdp_pages, setup_npt, teardown),
		T(policy_switch),
		T(absent_root),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
