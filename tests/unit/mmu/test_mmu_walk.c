/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each walker against what the manual says, by tables written by hand. */
#include "machine.h"

#include <string.h>

static struct machine m;

#define CR4_PSE	 BIT(4)
#define CR4_PAE	 BIT(5)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define CR4_PKE	 BIT(22)
#define CR0_WP	 BIT(16)
#define EFER_NX	 BIT(11)

static int setup(void **state)
{
	static const struct mmu_config config = {.policy = MMU_POLICY_TDP};

	machine_init(&m, &config, 2);
	machine_add(&m, 0, 0, MIB(4), 0, 0);
	return 0;
}

static int teardown(void **state)
{
	machine_finish(&m);
	return 0;
}

static struct cpu *cpu(void)
{
	return &m.cpu[0];
}

/* The gpa, or ~error code. */
static uint64_t walk(uint64_t la, uint32_t access)
{
	struct mmu_walk_result r;

	if (!mmu_gva_to_gpa(cpu()->v, la, access, &r))
		return r.gpa;
	assert_int_equal(r.fault.vector, 14);
	return ~(uint64_t)r.fault.error_code;
}

#define FAULTS(la, access, code) assert_int_equal(walk(la, access), ~(uint64_t)(code))
#define YIELDS(la, access, gpa)	 assert_int_equal(walk(la, access), gpa)

static void change(uint64_t cr0_set, uint64_t cr0_clear, uint64_t cr4_set, uint64_t cr4_clear)
{
	struct mmu_regs r = cpu()->regs;

	r.cr0 = (r.cr0 | cr0_set) & ~cr0_clear;
	r.cr4 = (r.cr4 | cr4_set) & ~cr4_clear;
	cpu_set_regs(cpu(), &r);
}

static void unpaged(void **state)
{
	YIELDS(0x12345, MMU_ACC_WRITE | MMU_ACC_USER, 0x12345);
	YIELDS(0x1ffffffffull, 0, 0xffffffff); /* 32 bits of it */
}

/* PD at 0x1000, PT at 0x2000. */
static void two_levels(void **state)
{
	cpu_paging(cpu(), PAGING_32, 0x1000);
	poke32(&m, 0x1000 + 4 * 0x300, 0x2007); /* 0xc0000000.. */
	poke32(&m, 0x2000 + 4 * 0x123, 0x5005); /* user, read-only */
	poke32(&m, 0x2000 + 4 * 0x124, 0x6003); /* supervisor, writable */
	YIELDS(0xc0123456, MMU_ACC_USER, 0x5456);
	assert_int_equal(peek32(&m, 0x1000 + 4 * 0x300), 0x2027);
	assert_int_equal(peek32(&m, 0x2000 + 4 * 0x123), 0x5025);
	FAULTS(0xc0123456, MMU_ACC_USER | MMU_ACC_WRITE, PF_P | PF_U | PF_W);
	FAULTS(0xc0123456, MMU_ACC_WRITE, PF_P | PF_W);
	assert_int_equal(peek32(&m, 0x2000 + 4 * 0x123), 0x5025);
	FAULTS(0xc0124000, MMU_ACC_USER, PF_P | PF_U);
	YIELDS(0xc0124fff, MMU_ACC_WRITE, 0x6fff);
	assert_int_equal(peek32(&m, 0x2000 + 4 * 0x124), 0x6063);
	FAULTS(0xc0125000, 0, 0);
	FAULTS(0xc0125000, MMU_ACC_FETCH | MMU_ACC_USER, PF_U); /* no NX, no SMEP: no fetch bit */
	FAULTS(0x1000, MMU_ACC_WRITE, PF_W);
	/* CR0.WP = 0. */
	change(0, CR0_WP, 0, 0);
	YIELDS(0xc0123000, MMU_ACC_WRITE, 0x5000);
	FAULTS(0xc0123000, MMU_ACC_WRITE | MMU_ACC_USER, PF_P | PF_W | PF_U);
	/* A directory entry that grants less. */
	poke32(&m, 0x1000 + 4 * 0x300, 0x2001);
	FAULTS(0xc0123000, MMU_ACC_USER, PF_P | PF_U);
}

static void four_mib_pages(void **state)
{
	cpu_paging(cpu(), PAGING_32, 0x1000);
	poke32(&m, 0x1004, 0x00800087); /* 0x400000.. to 0x800000 */
	YIELDS(0x412345, MMU_ACC_WRITE, 0x812345);
	assert_int_equal(peek32(&m, 0x1004), 0x008000e7);
	/* PSE-36: bits 20:13 are address bits 39:32 (the guest has 40 bits); 21 is reserved. */
	poke32(&m, 0x1004, 0x00800087 | 1 << 20 | 1 << 13);
	YIELDS(0x412345, 0, 0x8100812345ull);
	poke32(&m, 0x1004, 0x00800087 | 1 << 21);
	FAULTS(0x412345, MMU_ACC_USER, PF_P | PF_RSVD | PF_U);
	/* 36 bits: 20:17 are reserved too. */
	struct mmu_regs r = cpu()->regs;
	r.maxphyaddr = 36;
	cpu_set_regs(cpu(), &r);
	poke32(&m, 0x1004, 0x00800087 | 1 << 16);
	YIELDS(0x412345, 0, 0x800812345ull);
	poke32(&m, 0x1004, 0x00800087 | 1 << 17);
	FAULTS(0x412345, 0, PF_P | PF_RSVD);
	/* Without PSE bit 7 is ignored: a table. */
	change(0, 0, 0, CR4_PSE);
	poke32(&m, 0x1004, 0x3087);
	poke32(&m, 0x3000, 0x9007);
	YIELDS(0x400123, 0, 0x9123);
}

static void pae(void **state)
{
	uint64_t pdptr[4];

	poke(&m, 0x1020, 0x2001);
	poke(&m, 0x1028, 0);
	poke(&m, 0x1030, 0x3001);
	poke(&m, 0x1038, 0x4001 | BITS(11, 9)); /* ignored bits */
	cpu_paging(cpu(), PAGING_PAE, 0x1020);
	poke(&m, 0x3000 + 8 * 5, 0x5007);
	poke(&m, 0x5000 + 8 * 7, 0x8007 | BIT(63));
	YIELDS(0x80a07abc, MMU_ACC_WRITE, 0x8abc);
	FAULTS(0x80a07abc, MMU_ACC_FETCH, PF_P | PF_FETCH);
	FAULTS(0x40000000, 0, 0);
	/* The registers count, not memory. */
	poke(&m, 0x1030, 0);
	YIELDS(0x80a07abc, 0, 0x8abc);
	/* Reserved: 62:52 and above the width; 20:13 in a large page. */
	poke(&m, 0x5000 + 8 * 7, 0x8007 | BIT(52));
	FAULTS(0x80a07abc, 0, PF_P | PF_RSVD);
	poke(&m, 0x5000 + 8 * 7, 0x8007 | BIT(40));
	FAULTS(0x80a07abc, MMU_ACC_WRITE, PF_P | PF_RSVD | PF_W);
	poke(&m, 0x3000 + 8 * 5, 0x200087);
	YIELDS(0x80a07abc, 0, 0x207abc);
	poke(&m, 0x3000 + 8 * 5, 0x202087);
	FAULTS(0x80a07abc, 0, PF_P | PF_RSVD);
	/* NXE = 0: bit 63 is reserved. */
	struct mmu_regs r = cpu()->regs;
	r.efer = 0;
	cpu_set_regs(cpu(), &r);
	poke(&m, 0x3000 + 8 * 5, 0x200087 | BIT(63));
	FAULTS(0x80a07abc, MMU_ACC_FETCH, PF_P | PF_RSVD);
	/* MOV to CR3 checks the entries. */
	assert_int_equal(mmu_read_pdptrs(cpu()->v, &r, 0x1020, pdptr), 0);
	poke(&m, 0x1038, 0x4003);
	assert_int_equal(mmu_read_pdptrs(cpu()->v, &r, 0x1020, pdptr), 1);
	poke(&m, 0x1038, 0x4002); /* not present: anything goes */
	assert_int_equal(mmu_read_pdptrs(cpu()->v, &r, 0x1020, pdptr), 0);
	poke(&m, 0x1038, 0x4001 | BIT(63));
	assert_int_equal(mmu_read_pdptrs(cpu()->v, &r, 0x1020, pdptr), 1);
}

/* PML4 0x1000, PDPT 0x2000, PD 0x3000, PT 0x4000: the address 0xffff_8880_0020_3xxx. */
static void build4(uint64_t flags)
{
	poke(&m, 0x1000 + 8 * 273, 0x2000 | flags);
	poke(&m, 0x2000 + 8 * 0, 0x3000 | flags);
	poke(&m, 0x3000 + 8 * 1, 0x4000 | flags);
	poke(&m, 0x4000 + 8 * 3, 0x7000 | flags);
}
#define LA 0xffff888000203123ull

static void four_levels(void **state)
{
	struct mmu_walk_result r;

	cpu_paging(cpu(), PAGING_4, 0x1000);
	build4(7);
	assert_int_equal(mmu_gva_to_gpa(cpu()->v, LA, MMU_ACC_WRITE | MMU_ACC_USER, &r), 0);
	assert_int_equal(r.gpa, 0x7123);
	assert_int_equal(r.page_shift, 12);
	assert_int_equal(r.access, MMU_MAP_ALL);
	assert_int_equal(r.nsteps, 4);
	assert_int_equal(r.steps[0].gpa, 0x1000 + 8 * 273);
	assert_int_equal(r.steps[0].level, 4);
	assert_int_equal(r.steps[0].raw, 0x2027);
	assert_int_equal(r.steps[3].raw, 0x7067);
	/* The rights of all levels and'ed. */
	poke(&m, 0x2000, 0x3005);
	FAULTS(LA, MMU_ACC_WRITE, PF_P | PF_W);
	poke(&m, 0x2000, 0x3003);
	FAULTS(LA, MMU_ACC_USER, PF_P | PF_U);
	poke(&m, 0x2000, 0x3007 | BIT(63));
	FAULTS(LA, MMU_ACC_FETCH, PF_P | PF_FETCH);
	YIELDS(LA, MMU_ACC_WRITE, 0x7123);
	/* No A and no D bit from a walk that faults, nor from a look. */
	build4(7);
	poke(&m, 0x4000 + 8 * 3, 0x7005);
	FAULTS(LA, MMU_ACC_WRITE, PF_P | PF_W);
	assert_int_equal(peek(&m, 0x1000 + 8 * 273), 0x2007);
	YIELDS(LA, MMU_ACC_PEEK, 0x7123);
	assert_int_equal(peek(&m, 0x1000 + 8 * 273), 0x2007);
	/* Reserved bits of each level; present comes first. */
	build4(7);
	poke(&m, 0x1000 + 8 * 273, 0x2087);
	FAULTS(LA, 0, PF_P | PF_RSVD);
	poke(&m, 0x1000 + 8 * 273, 0x2086);
	FAULTS(LA, 0, 0);
	build4(7);
	poke(&m, 0x3000 + 8, 0x4007 | BIT(51));
	FAULTS(LA, MMU_ACC_USER, PF_P | PF_RSVD | PF_U);
	poke(&m, 0x3000 + 8, 0x4007 | BITS(62, 52)); /* ignored */
	YIELDS(LA, 0, 0x7123);
	/* Large pages. */
	poke(&m, 0x3000 + 8, 0x200087);
	YIELDS(LA, 0, 0x203123);
	poke(&m, 0x3000 + 8, 0x200087 | BIT(12)); /* PAT */
	YIELDS(LA, 0, 0x203123);
	poke(&m, 0x3000 + 8, 0x200087 | BIT(13));
	FAULTS(LA, 0, PF_P | PF_RSVD);
	poke(&m, 0x2000, GIB(5) | 0x87);
	YIELDS(LA, 0, GIB(5) + 0x203123);
	poke(&m, 0x2000, GIB(5) | 0x87 | BIT(29));
	FAULTS(LA, 0, PF_P | PF_RSVD);
	struct mmu_regs regs = cpu()->regs;
	regs.gbpages = false;
	cpu_set_regs(cpu(), &regs);
	poke(&m, 0x2000, 0x87);
	FAULTS(LA, 0, PF_P | PF_RSVD);
	/* A table where no memory is reads as ones. */
	build4(7);
	poke(&m, 0x3000 + 8, GIB(7) | 7);
	FAULTS(LA, MMU_ACC_WRITE, PF_P | PF_RSVD | PF_W);
}

static void five_levels(void **state)
{
	cpu_paging(cpu(), PAGING_5, 0x9000);
	build4(7);
	poke(&m, 0x9000 + 8 * 511, 0x1007);
	YIELDS(LA, 0, 0x7123); /* bits 56:48 are ones */
	poke(&m, 0x9000 + 8 * 511, 0x1087);
	FAULTS(LA, 0, PF_P | PF_RSVD);
	poke(&m, 0x9000 + 8 * 1, 0x1007);
	YIELDS((LA & BITS(47, 0)) | BIT(48), MMU_ACC_WRITE, 0x7123);
	FAULTS(LA & BITS(47, 0), 0, 0);
}

static void smep_smap(void **state)
{
	cpu_paging(cpu(), PAGING_4, 0x1000);
	build4(7);
	YIELDS(LA, MMU_ACC_FETCH, 0x7123);
	change(0, 0, CR4_SMEP, 0);
	FAULTS(LA, MMU_ACC_FETCH, PF_P | PF_FETCH);
	YIELDS(LA, MMU_ACC_FETCH | MMU_ACC_USER, 0x7123);
	YIELDS(LA, 0, 0x7123);
	change(0, 0, CR4_SMAP, CR4_SMEP);
	YIELDS(LA, MMU_ACC_FETCH, 0x7123);
	FAULTS(LA, 0, PF_P);
	FAULTS(LA, MMU_ACC_WRITE, PF_P | PF_W);
	YIELDS(LA, MMU_ACC_WRITE | MMU_ACC_AC, 0x7123);
	FAULTS(LA, MMU_ACC_AC | MMU_ACC_IMPLICIT, PF_P);
	YIELDS(LA, MMU_ACC_USER, 0x7123);
	/* Implicit: a supervisor access from CPL 3. */
	FAULTS(LA, MMU_ACC_USER | MMU_ACC_IMPLICIT, PF_P);
	poke(&m, 0x3000 + 8, 0x4003); /* a supervisor page by one level: all is well */
	YIELDS(LA, MMU_ACC_WRITE, 0x7123);
	YIELDS(LA, MMU_ACC_IMPLICIT | MMU_ACC_USER, 0x7123);
}

static void keys(void **state)
{
	cpu_paging(cpu(), PAGING_4, 0x1000);
	build4(7);
	poke(&m, 0x4000 + 8 * 3, 0x7007 | 5ull << 59);
	change(0, 0, CR4_PKE, 0);
	mmu_set_pkru(cpu()->v, 1u << 10); /* AD of key 5 */
	FAULTS(LA, 0, PF_P | PF_PK);
	FAULTS(LA, MMU_ACC_USER | MMU_ACC_WRITE, PF_P | PF_PK | PF_U | PF_W);
	YIELDS(LA, MMU_ACC_FETCH | MMU_ACC_USER, 0x7123);
	mmu_set_pkru(cpu()->v, 2u << 10); /* WD */
	YIELDS(LA, MMU_ACC_USER, 0x7123);
	FAULTS(LA, MMU_ACC_USER | MMU_ACC_WRITE, PF_P | PF_PK | PF_U | PF_W);
	FAULTS(LA, MMU_ACC_WRITE, PF_P | PF_PK | PF_W);
	change(0, CR0_WP, 0, 0);
	mmu_set_pkru(cpu()->v, 2u << 10);
	YIELDS(LA, MMU_ACC_WRITE, 0x7123);
	FAULTS(LA, MMU_ACC_USER | MMU_ACC_WRITE, PF_P | PF_PK | PF_U | PF_W);
	mmu_set_pkru(cpu()->v, ~(3u << 10)); /* the others' rights are nothing to it */
	YIELDS(LA, MMU_ACC_USER | MMU_ACC_WRITE, 0x7123);
	poke(&m, 0x3000 + 8, 0x4003); /* a supervisor page */
	mmu_set_pkru(cpu()->v, 3u << 10);
	YIELDS(LA, 0, 0x7123);
	change(0, 0, 0, CR4_PKE);
	build4(7);
	poke(&m, 0x4000 + 8 * 3, 0x7007 | 5ull << 59);
	YIELDS(LA, MMU_ACC_USER, 0x7123);
}

/* L1's EPT at 0x20000.. maps ngpa n to gpa 0x100000 + n; L2's own tables lie in ngpa. */
static void nested(void **state)
{
	struct mmu_nested_regs n = {
		.eptp = 0x20000 | 6 | 3 << 3 | BIT(6),
		.guest = {.cr0 = BIT(31) | BIT(16) | 1,
			  .cr3 = 0x1000,
			  .cr4 = CR4_PAE,
			  .efer = BIT(8) | BIT(10) | EFER_NX,
			  .maxphyaddr = 40,
			  .gbpages = true},
	};
	struct mmu_walk_result r;
	struct mmu_root root;

	poke(&m, 0x20000, 0x21007);
	poke(&m, 0x21000, 0x22007);
	poke(&m, 0x22000, 0x23007);
	for (unsigned i = 0; i < 16; i++)
		poke(&m, 0x23000 + 8 * i, 0x100000 + 0x1000 * i + (6 << 3) + 7);
	poke(&m, 0x101000 + 8 * 273, 0x2007);
	poke(&m, 0x102000, 0x3007);
	poke(&m, 0x103008, 0x4007);
	poke(&m, 0x104018, 0x7007);
	assert_int_equal(mmu_enter_nested(cpu()->v, &n), 0);
	assert_int_equal(mmu_load(cpu()->v, &root), 0);
	assert_int_equal(root.format, MMU_FORMAT_EPT);
	assert_int_equal(mmu_gva_to_gpa(cpu()->v, LA, MMU_ACC_WRITE, &r), 0);
	assert_int_equal(r.gpa, 0x107123);
	assert_int_equal(peek(&m, 0x104018), 0x7067);
	assert_int_equal(peek(&m, 0x23000 + 8 * 4) >> 8 & 3, 3); /* A and D of L1's EPT */
	/* L2's fault is L2's; one in L1's EPT is L1's. */
	assert_int_equal(mmu_gva_to_gpa(cpu()->v, LA + 0x1000, 0, &r), 1);
	assert_false(r.fault.nested);
	poke(&m, 0x23000 + 8 * 4, 0);
	assert_int_equal(mmu_gva_to_gpa(cpu()->v, LA, 0, &r), 1);
	assert_true(r.fault.nested);
	assert_int_equal(r.fault.cr2, 0x4018);
	/* The shadow of it. */
	struct mmu_fault f = {.addr = 0x7010, .access = MMU_ACC_WRITE};
	assert_int_equal(mmu_page_fault(cpu()->v, &f), MMU_RETRY);
	assert_int_equal(f.gpa, 0x107010);
	struct mmu_fault g = {.addr = 0x4010, .access = 0};
	assert_int_equal(mmu_page_fault(cpu()->v, &g), MMU_NESTED_EXIT);
	assert_int_equal(g.guest.error_code, 1);
	poke(&m, 0x23000 + 8 * 5, 0x105000 + 2); /* writable, not readable */
	struct mmu_fault h = {.addr = 0x5010, .access = 0};
	assert_int_equal(mmu_page_fault(cpu()->v, &h), MMU_NESTED_EXIT);
	assert_true(h.guest.misconfig);
	machine_audit(&m);
	/* L1 changes its EPT, unseen at first; INVEPT brings our shadow into step. */
	mmu_leave_nested(cpu()->v);
	cpu_paging(cpu(), PAGING_NONE, 0);
	struct mmu_vm_stats stats;
	assert_int_equal(
		cpu_access(cpu(), 0x23000 + 8 * 7, OACC_W, 0x109000 + (6 << 3) + 7, 8).kind,
		OUT_OK);
	machine_audit(&m);
	mmu_vm_read_stats(m.vm, &stats);
	assert_int_equal(stats.mmu_unsync, 1);
	assert_int_equal(mmu_enter_nested(cpu()->v, &n), 0);
	mmu_vm_read_stats(m.vm, &stats);
	assert_int_equal(stats.mmu_unsync, 0);
	assert_int_equal(mmu_load(cpu()->v, &root), 0);
	struct mmu_fault again = {.addr = 0x7010, .access = MMU_ACC_WRITE};
	assert_int_equal(mmu_page_fault(cpu()->v, &again), MMU_RETRY);
	assert_int_equal(again.gpa, 0x109010);
	/* The same while L2 runs, by another vCPU's L1. */
	for (unsigned all = 0; all < 2; all++) {
		uint64_t entry = 0x10a000 + 0x1000 * all + (6 << 3) + 7;

		assert_int_equal(cpu_access(&m.cpu[1], 0x23000 + 8 * 7, OACC_W, entry, 8).kind,
				 OUT_OK);
		mmu_vm_read_stats(m.vm, &stats);
		assert_int_equal(stats.mmu_unsync, 1);
		mmu_invept(cpu()->v, all ? 0 : n.eptp);
		mmu_vm_read_stats(m.vm, &stats);
		assert_int_equal(stats.mmu_unsync, 0);
	}
	machine_audit(&m);
	mmu_leave_nested(cpu()->v);
	/* Nothing holds on to L1's EPT after this. */
	mmu_unload(cpu()->v);
	mmu_unload(m.cpu[1].v);
	mmu_zap_all(m.vm);
	mmu_vm_read_stats(m.vm, &stats);
	assert_int_equal(stats.mmu_table_pages, 0);
	n.eptp |= BIT(7);
	cpu_paging(cpu(), PAGING_NONE, 0);
	assert_int_equal(mmu_enter_nested(cpu()->v, &n), -22);
}

/*
 * What a walk of L2's tables does where L1's EPT allows no write. With EPT's A and D bits in use to
 * read a table is a write, reported as both; without them only to set A or D is one.
 */
static void nested_tables_read_only(void **state)
{
	struct mmu_nested_regs n = {
		.eptp = 0x20000 | 6 | 3 << 3,
		.guest = {.cr0 = BIT(31) | BIT(16) | 1,
			  .cr3 = 0x1000,
			  .cr4 = CR4_PAE,
			  .efer = BIT(8) | BIT(10) | EFER_NX,
			  .maxphyaddr = 40,
			  .gbpages = true},
	};
	struct mmu_fault f = {.addr = 0x4018, .access = MMU_ACC_WRITE, .flags = MMU_PF_TABLE};
	struct mmu_walk_result r;
	struct mmu_root root;

	poke(&m, 0x20000, 0x21007);
	poke(&m, 0x21000, 0x22007);
	poke(&m, 0x22000, 0x23007);
	for (unsigned i = 0; i < 16; i++)
		poke(&m, 0x23000 + 8 * i, 0x100000 + 0x1000 * i + (6 << 3) + (i == 4 ? 5 : 7));
	poke(&m, 0x101000 + 8 * 273, 0x2067);
	poke(&m, 0x102000, 0x3067);
	poke(&m, 0x103008, 0x4067);
	poke(&m, 0x104018, 0x7027);
	assert_int_equal(mmu_enter_nested(cpu()->v, &n), 0);
	assert_int_equal(mmu_gva_to_gpa(cpu()->v, LA, 0, &r), 0);
	assert_int_equal(r.gpa, 0x107123);
	for (unsigned entry = 0x7007; entry <= 0x7027; entry += 0x20) {
		poke(&m, 0x104018, entry);
		assert_int_equal(mmu_gva_to_gpa(cpu()->v, LA, MMU_ACC_WRITE, &r), 1);
		assert_true(r.fault.nested && !r.fault.misconfig);
		assert_int_equal(r.fault.cr2, 0x4018);
		assert_int_equal(r.fault.error_code, 2 | 8 | 32);
		assert_int_equal(peek(&m, 0x104018), entry);
	}
	mmu_leave_nested(cpu()->v);
	cpu_paging(cpu(), PAGING_NONE, 0);
	n.eptp |= BIT(6);
	poke(&m, 0x104018, 0x7067);
	assert_int_equal(mmu_enter_nested(cpu()->v, &n), 0);
	assert_int_equal(mmu_gva_to_gpa(cpu()->v, LA, 0, &r), 1);
	assert_true(r.fault.nested && !r.fault.misconfig);
	assert_int_equal(r.fault.cr2, 0x4018);
	assert_int_equal(r.fault.error_code, 1 | 2 | 8 | 32);
	/* As told by a processor that walked through our tables. */
	assert_int_equal(mmu_load(cpu()->v, &root), 0);
	assert_int_equal(mmu_page_fault(cpu()->v, &f), MMU_NESTED_EXIT);
	assert_int_equal(f.guest.error_code, 1 | 2 | 8 | 32);
	mmu_leave_nested(cpu()->v);
	cpu_paging(cpu(), PAGING_NONE, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(unpaged),	   T(two_levels),
		T(four_mib_pages), T(pae),
		T(four_levels),	   T(five_levels),
		T(smep_smap),	   T(keys),
		T(nested),	   T(nested_tables_read_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
