/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* System instructions: control registers, MSRs, descriptor tests, ports, flags, limits (SDM 2, 3A,
 * 4). */
#include "tests/unit/cpu/sys/sys.h"

static struct tiny *t;

static int setup(void **state)
{
	t = tiny_create(MIB(16), 21);
	return 0;
}

static int teardown(void **state)
{
	tiny_destroy(t);
	return 0;
}

/* ---- control registers --------------------------------------------------------------------------
 */

static void test_cr0_rules(void **state)
{
	static const struct {
		enum tiny_mode mode;
		uint64_t clear, set;
		int ret;
	} rows[] = {
		{TINY_PROT32, 0, X86_CR0_NW, 13},
		{TINY_PROT32, 0, X86_CR0_NW | X86_CR0_CD, 0},
		{TINY_PROT32, X86_CR0_PE, X86_CR0_PG, 13},
		{TINY_PROT32, 0, 1ull << 32, 13},
		{TINY_PROT32, 0, BIT(10), 0}, /* reserved: stays 0 */
		{TINY_PROT32, X86_CR0_ET, 0, 0},
		{TINY_LONG, X86_CR0_PG, 0, 13}, /* in 64-bit code */
		{TINY_COMPAT32, X86_CR0_PG, 0, 0},
		{TINY_PROT32_PAGED, X86_CR0_PG, 0, 0},
		{TINY_PROT32_PAGED, X86_CR0_PE, 0, 13},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		uint64_t want;

		sys_mode(t, rows[n].mode, 0);
		want = (t->s->cr0 & ~rows[n].clear) | rows[n].set;
		assert_int_equal(cpu_set_cr0(t->cpu, want), rows[n].ret);
		if (!rows[n].ret)
			assert_int_equal(t->s->cr0, (want & ~BIT(10)) | X86_CR0_ET);
	}
	sys_mode(t, TINY_COMPAT32, 0);
	assert_int_equal(cpu_set_cr0(t->cpu, t->s->cr0 & ~X86_CR0_PG), 0);
	assert_int_equal(t->s->efer & X86_EFER_LMA, 0);
}

static void test_enter_long(void **state)
{
	sys_mode(t, TINY_PROT32, 0);
	assert_int_equal(cpu_wrmsr(t->cpu, X86_MSR_EFER, X86_EFER_LME), 0);
	assert_int_equal(cpu_set_cr0(t->cpu, t->s->cr0 | X86_CR0_PG), 13); /* no PAE */
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 | X86_CR4_PAE), 0);
	t->s->seg[X86_CS].attr |= X86_ATTR_L;
	assert_int_equal(cpu_set_cr0(t->cpu, t->s->cr0 | X86_CR0_PG), 13);
	t->s->seg[X86_CS].attr &= ~X86_ATTR_L;
	assert_int_equal(cpu_set_cr0(t->cpu, t->s->cr0 | X86_CR0_PG), 0);
	assert_int_equal(t->s->efer, X86_EFER_LME | X86_EFER_LMA);
	assert_int_equal(cpu_wrmsr(t->cpu, X86_MSR_EFER, 0), 13); /* LME with paging on */
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 & ~X86_CR4_PAE), 13);
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 | X86_CR4_LA57), 13);
}

static void test_cr4_rules(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 | X86_CR4_VMXE), 13);
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 | X86_CR4_SMXE), 13);
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 | BIT(31)), 13);
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 | BIT(40)), 13);
	t->s->cr3 |= 1;
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 | X86_CR4_PCIDE), 13);
	t->s->cr3 &= ~1ull;
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 | X86_CR4_PCIDE), 0);
	assert_int_equal(cpu_set_cr3(t->cpu, t->s->cr3 | 5 | BIT(63)), 0);
	assert_int_equal(t->s->cr3, TINY_PML4 | 5);
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 & ~X86_CR4_PCIDE), 0);
	assert_int_equal(cpu_set_cr3(t->cpu, t->s->cr3 | BIT(63)), 13);
	assert_int_equal(cpu_set_cr3(t->cpu, BIT(46)), 13); /* MAXPHYADDR is 46 */
	sys_mode(t, TINY_PROT32, 0);
	assert_int_equal(cpu_set_cr4(t->cpu, t->s->cr4 | X86_CR4_PCIDE), 13);
	assert_int_equal(cpu_set_cr8(t->cpu, 16), 13);
	assert_int_equal(cpu_set_xcr0(t->cpu, 2), 13);
	assert_int_equal(cpu_set_xcr0(t->cpu, 5), 13); /* AVX without SSE */
	assert_int_equal(cpu_set_xcr0(t->cpu, 0xf), 13);
	assert_int_equal(cpu_set_xcr0(t->cpu, 7), 0);
	assert_int_equal(cpu_set_xcr0(t->cpu, 0x203), 0);
}

/* MOV to CR3 under PAE loads four entries, whose reserved bits fault. */
static void test_pae_pdptr(void **state)
{
	uint64_t cr3;

	sys_mode(t, TINY_PAE, 0);
	cr3 = t->s->cr3;
	memset(t->s->pdptr, 0, sizeof(t->s->pdptr));
	t->s->gpr[X86_RAX] = cr3;
	/* Still translated by the TLB or not at all: go through the entries again. */
	memcpy(t->s->pdptr, t->mem + cr3, 32);
	sys_put(t, cr3 + 24, sys_get(t, cr3 + 24, 8) | 2, 8);
	assert_int_equal(sys_asm(t, "\x0f\x22\xd8"), SYS_FAULT(13, 0));
	sys_mode(t, TINY_PAE, 0);
	t->s->gpr[X86_RAX] = cr3;
	sys_put(t, cr3 + 24, 0, 8);
	assert_int_equal(sys_asm(t, "\x0f\x22\xd8"), SYS_DONE);
	assert_int_equal(t->s->pdptr[3], 0);
	assert_int_equal(t->s->pdptr[0], sys_get(t, cr3, 8));
}

static void test_cr_masks(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	t->c->cr0_mask = X86_CR0_TS | X86_CR0_PG;
	t->c->cr0_shadow = X86_CR0_PG;
	t->s->cr0 |= X86_CR0_TS;
	assert_int_equal(sys_asm(t, "\x0f\x20\xc0"), SYS_DONE); /* mov rax,cr0 */
	assert_int_equal(t->s->gpr[X86_RAX], t->s->cr0 & ~X86_CR0_TS);
	t->s->gpr[X86_RAX] |= X86_CR0_AM;
	assert_int_equal(sys_asm(t, "\x0f\x22\xc0"), SYS_DONE); /* mov cr0,rax */
	assert_true(t->s->cr0 & X86_CR0_AM);
	assert_true(t->s->cr0 & X86_CR0_TS);
	t->s->gpr[X86_RAX] |= X86_CR0_TS;
	assert_int_equal(sys_asm(t, "\x0f\x22\xc0"), SYS_EXIT(CPU_EXIT_CR_ACCESS));
	assert_int_equal(cpu_exit(t->cpu)->cr.num, 0);
	assert_int_equal(cpu_exit(t->cpu)->cr.gpr, 0);
	assert_int_equal(cpu_exit(t->cpu)->cr.value, t->s->gpr[X86_RAX]);
	t->c->cr0_mask = t->c->cr0_shadow = 0;
	assert_int_equal(sys_asm(t, "\x0f\x06"), SYS_DONE); /* clts */
	assert_false(t->s->cr0 & X86_CR0_TS);
	/* LMSW sets PE but cannot clear it; SMSW */
	t->s->gpr[X86_RAX] = 0xe;
	assert_int_equal(sys_asm(t, "\x0f\x01\xf0"), SYS_DONE);
	assert_int_equal(t->s->cr0 & 0xf, 0xf);
	t->s->cr0 &= ~0xeull;
	sys_mode(t, TINY_LONG, 3);
	t->s->cr4 |= X86_CR4_UMIP;
	assert_int_equal(sys_asm(t, "\x0f\x01\xe0"), SYS_FAULT(13, 0)); /* smsw eax */
	sys_mode(t, TINY_LONG, 3);
	assert_int_equal(sys_asm(t, "\x0f\x20\xc0"), SYS_FAULT(13, 0));
}

static void test_debug_registers(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	t->s->gpr[X86_RAX] = 0xffffffff;
	assert_int_equal(sys_asm(t, "\x0f\x23\xf0"), SYS_DONE); /* mov dr6,rax */
	assert_int_equal(t->s->dr6, 0xffffefff);
	t->s->gpr[X86_RAX] = 0;
	assert_int_equal(sys_asm(t, "\x0f\x23\xe8"), SYS_DONE); /* mov dr5,rax */
	assert_int_equal(t->s->dr7, 0x400);
	t->s->gpr[X86_RAX] = BIT(32);
	assert_int_equal(sys_asm(t, "\x0f\x23\xf8"), SYS_FAULT(13, 0));
	sys_mode(t, TINY_LONG, 0);
	t->s->cr4 |= X86_CR4_DE;
	assert_int_equal(sys_asm(t, "\x0f\x21\xe0"), SYS_FAULT(6, 0)); /* mov rax,dr4 */
}

/* ---- MSRs ---------------------------------------------------------------------------------------
 */

static void test_msrs(void **state)
{
	static const struct {
		uint32_t index;
		uint64_t value;
		int ret;
	} rows[] = {
		{X86_MSR_LSTAR, 0xffff800000000000, 0},
		{X86_MSR_LSTAR, 0x0100000000000000, 13},
		{X86_MSR_CSTAR, 0x00007fffffffffff, 0},
		{X86_MSR_FS_BASE, 0x8000000000000000, 13},
		{X86_MSR_GS_BASE, 0xffffffffffffffff, 0},
		{X86_MSR_KERNEL_GS_BASE, 0x0100000000000000, 13},
		{X86_MSR_SYSENTER_EIP, 0x1000000000000000, 13},
		{X86_MSR_STAR, ~0ull, 0},
		{X86_MSR_FMASK, BIT(32), 13},
		{X86_MSR_PAT, 0x0007040600070406, 0},
		{X86_MSR_PAT, 0x0002040600070406, 13},
		{X86_MSR_PAT, 0x0803040600070406, 13},
		{X86_MSR_EFER, X86_EFER_LME | X86_EFER_SCE | X86_EFER_NXE, 0},
		{X86_MSR_EFER, X86_EFER_LME | BIT(1), 13},
		{X86_MSR_EFER, X86_EFER_SCE, 13},
		{X86_MSR_MTRR_DEF_TYPE, 0xc06, 0},
		{X86_MSR_MTRR_DEF_TYPE, 0xc02, 13},
		{X86_MSR_MTRR_PHYSBASE0, 0x3ffffffff006, 0},
		{X86_MSR_MTRR_PHYSBASE0, 0x400000000006, 13},
		{X86_MSR_MTRR_FIX64K, 0x0606060606060606, 0},
		{X86_MSR_MTRR_FIX64K, 0x0606060606060306, 13},
		{X86_MSR_MTRRCAP, 0, 13},
		{X86_MSR_TSC_AUX, BIT(32), 13},
		{X86_MSR_TSC_AUX, 7, 0},
		{X86_MSR_XSS, 1, 13},
		{X86_MSR_APIC_BASE, 0xfee00900, -1},
		{0x12345, 0, -1},
	};

	sys_mode(t, TINY_LONG, 0);
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		uint64_t v = ~0ull;

		assert_int_equal(cpu_wrmsr(t->cpu, rows[n].index, rows[n].value), rows[n].ret);
		if (rows[n].ret)
			continue;
		assert_int_equal(cpu_rdmsr(t->cpu, rows[n].index, &v), 0);
		if (rows[n].index != X86_MSR_EFER)
			assert_int_equal(v, rows[n].value);
	}
	assert_true(t->s->efer & X86_EFER_LMA);
	t->s->gpr[X86_RCX] = 0x12345;
	assert_int_equal(sys_asm(t, "\x0f\x32"), SYS_EXIT(CPU_EXIT_MSR_READ));
	assert_int_equal(cpu_exit(t->cpu)->msr.index, 0x12345);
	assert_int_equal(cpu_exit(t->cpu)->insn_len, 2);
	sys_mode(t, TINY_LONG, 3);
	assert_int_equal(sys_asm(t, "\x0f\x32"), SYS_FAULT(13, 0));
}

static void test_tsc(void **state)
{
	uint64_t v;

	sys_mode(t, TINY_LONG, 0);
	t->c->exits |= CPU_CTL_TSC_ICOUNT;
	t->c->tsc_offset = 1000000;
	/* rdtsc; mov ebx,eax; nop; rdtsc; hlt */
	tiny_asm(t, "\x0f\x31\x89\xc3\x90\x0f\x31\xf4");
	assert_int_equal(tiny_run(t, 100), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX] - t->s->gpr[X86_RBX], 3);
	assert_int_equal(cpu_wrmsr(t->cpu, X86_MSR_TSC, 5), 0);
	assert_int_equal(cpu_tsc(t->cpu), 5);
	assert_int_equal(cpu_rdmsr(t->cpu, X86_MSR_TSC_ADJUST, &v), 0);
	assert_int_equal(cpu_wrmsr(t->cpu, X86_MSR_TSC_ADJUST, v + 10), 0);
	assert_int_equal(cpu_tsc(t->cpu), 15);
	t->c->exits &= ~CPU_CTL_TSC_ICOUNT;
	t->c->tsc_offset = 0;
	sys_mode(t, TINY_LONG, 3);
	t->s->cr4 |= X86_CR4_TSD;
	assert_int_equal(sys_asm(t, "\x0f\x31"), SYS_FAULT(13, 0));
}

/* ---- descriptors --------------------------------------------------------------------------------
 */

static void test_lar_lsl(void **state)
{
	static const struct {
		unsigned access, rpl, cpl;
		bool lar, lsl, verr, verw;
	} rows[] = {
		{0x93, 0, 0, true, true, true, true},
		{0x91, 0, 0, true, true, true, false},
		{0x9b, 0, 0, true, true, true, false},
		{0x99, 0, 0, true, true, false, false},
		{0x93, 0, 3, false, false, false, false},
		{0x93, 3, 0, false, false, false, false},
		{0x9f, 3, 3, true, true, true, false}, /* conforming */
		{0xf3, 3, 3, true, true, true, true},
		{0x13, 0, 0, true, true, true, true}, /* present or not */
		{0x82, 0, 0, true, true, false, false},
		{0x89, 0, 0, true, true, false, false},
		{0x8c, 0, 0, true, false, false, false},
		{0x85, 0, 0, true, false, false, false},
		{0x8e, 0, 0, false, false, false, false},
		{0x80, 0, 0, false, false, false, false},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		sys_mode(t, TINY_PROT32, rows[n].cpl);
		sys_put_desc(t, SYS_FREE_SEL, sys_desc(0x123456, 0x5abcd, rows[n].access, 0xc));
		t->s->gpr[X86_RAX] = SYS_FREE_SEL | rows[n].rpl;
		t->s->gpr[X86_RBX] = 0x11111111;
		assert_int_equal(sys_asm(t, "\x0f\x02\xd8"), SYS_DONE); /* lar ebx,eax */
		assert_int_equal(!!(t->s->rflags & X86_FLAG_ZF), rows[n].lar);
		assert_int_equal(t->s->gpr[X86_RBX],
				 rows[n].lar ? 0xc50000u | rows[n].access << 8 : 0x11111111);
		assert_int_equal(sys_asm(t, "\x0f\x03\xd8"), SYS_DONE); /* lsl ebx,eax */
		assert_int_equal(!!(t->s->rflags & X86_FLAG_ZF), rows[n].lsl);
		if (rows[n].lsl)
			assert_int_equal(t->s->gpr[X86_RBX], 0x5abcdfff);
		assert_int_equal(sys_asm(t, "\x0f\x00\xe0"), SYS_DONE); /* verr ax */
		assert_int_equal(!!(t->s->rflags & X86_FLAG_ZF), rows[n].verr);
		assert_int_equal(sys_asm(t, "\x0f\x00\xe8"), SYS_DONE); /* verw ax */
		assert_int_equal(!!(t->s->rflags & X86_FLAG_ZF), rows[n].verw);
	}
	sys_mode(t, TINY_REAL, 0);
	assert_int_equal(sys_asm(t, "\x0f\x00\xe0"), SYS_FAULT(6, 0));
}

static int mov_seg(unsigned seg, unsigned sel)
{
	uint8_t code[] = {0x8e, (uint8_t)(0xc0 | seg << 3)};

	t->s->gpr[X86_RAX] = sel;
	return sys_code(t, code, 2);
}

static void test_load_segments(void **state)
{
	static const struct {
		unsigned seg, access, rpl, cpl;
		int fault;
	} rows[] = {
		{X86_DS, 0x93, 0, 0, 0},  {X86_DS, 0x93, 3, 0, 13}, {X86_DS, 0x93, 0, 3, 13},
		{X86_DS, 0xf3, 3, 3, 0},  {X86_DS, 0x9b, 0, 0, 0},  {X86_DS, 0x99, 0, 0, 13},
		{X86_DS, 0x9f, 3, 3, 0},  {X86_DS, 0x13, 0, 0, 11}, {X86_DS, 0x89, 0, 0, 13},
		{X86_SS, 0x93, 0, 0, 0},  {X86_SS, 0x91, 0, 0, 13}, {X86_SS, 0x93, 1, 0, 13},
		{X86_SS, 0xf3, 0, 0, 13}, {X86_SS, 0x9b, 0, 0, 13}, {X86_SS, 0x13, 0, 0, 12},
		{X86_SS, 0xf3, 3, 3, 0},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		unsigned access = rows[n].access & 0x10 ? rows[n].access & ~1u : rows[n].access;

		sys_mode(t, TINY_PROT32, rows[n].cpl);
		sys_put_desc(t, SYS_FREE_SEL, sys_desc(0x1000, 0xfffff, access, 0xc));
		assert_int_equal(mov_seg(rows[n].seg, SYS_FREE_SEL | rows[n].rpl),
				 rows[n].fault ? SYS_FAULT(rows[n].fault, SYS_FREE_SEL) : SYS_DONE);
		if (rows[n].fault)
			continue;
		assert_int_equal(t->s->seg[rows[n].seg].base, 0x1000);
		assert_int_equal(t->s->seg[rows[n].seg].sel, SYS_FREE_SEL | rows[n].rpl);
		assert_true(sys_get_desc(t, SYS_FREE_SEL) >> 40 & 1);
		assert_int_equal(t->s->int_shadow_movss, rows[n].seg == X86_SS);
	}
	sys_mode(t, TINY_PROT32, 0);
	assert_int_equal(mov_seg(X86_SS, 0), SYS_FAULT(13, 0));
	sys_mode(t, TINY_PROT32, 0);
	assert_int_equal(mov_seg(X86_DS, 3), SYS_DONE);
	assert_int_equal(sys_asm(t, "\xa1\x00\x00\x00\x00"), SYS_FAULT(13, 0));
	sys_mode(t, TINY_LONG, 0);
	assert_int_equal(mov_seg(X86_SS, 0), SYS_DONE);
	sys_mode(t, TINY_LONG, 3);
	assert_int_equal(mov_seg(X86_SS, 3), SYS_FAULT(13, 0));
}

static void test_limits(void **state)
{
	static const struct {
		unsigned access, limit, flags;
		uint32_t ea;
		bool ok;
	} rows[] = {
		{0x93, 0xfff, 4, 0xffc, true},	     {0x93, 0xfff, 4, 0xffd, false},
		{0x93, 0x0, 0xc, 0xffc, true},	     {0x93, 0xfffff, 0xc, 0x100000, true},
		{0x97, 0xfff, 4, 0x1000, true},	     {0x97, 0xfff, 4, 0xfff, false},
		{0x97, 0xfff, 4, 0xfffffffd, false}, {0x97, 0xfff, 0, 0xfffc, true},
		{0x97, 0xfff, 0, 0xfffd, false},     {0x91, 0xfff, 4, 0, true},
		{0x9b, 0xfff, 4, 0, true},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		uint8_t code[] = {0xa1, 0, 0, 0, 0};

		sys_mode(t, TINY_PROT32, 0);
		sys_put_desc(t, SYS_FREE_SEL,
			     sys_desc(0, rows[n].limit, rows[n].access, rows[n].flags));
		sys_load(t, X86_DS, SYS_FREE_SEL);
		memcpy(code + 1, &rows[n].ea, 4);
		assert_int_equal(sys_code(t, code, 5), rows[n].ok ? SYS_DONE : SYS_FAULT(13, 0));
	}
	sys_mode(t, TINY_PROT32, 0);
	sys_put_desc(t, SYS_FREE_SEL, sys_desc(0, 0xfff, 0x91, 4));
	sys_load(t, X86_DS, SYS_FREE_SEL);
	assert_int_equal(sys_asm(t, "\xa3\x00\x00\x00\x00"), SYS_FAULT(13, 0)); /* read-only */
	/* The stack's are #SS. */
	sys_mode(t, TINY_PROT32, 0);
	t->s->idtr.limit = 0;
	sys_put_desc(t, SYS_FREE_SEL, sys_desc(0, 0xfffff, 0x93, 0xc));
	sys_mode(t, TINY_LONG, 0);
	t->s->gpr[X86_RBP] = 0x800000000000;
	assert_int_equal(sys_asm(t, "\x8b\x45\x00"), SYS_FAULT(12, 0)); /* mov eax,[rbp] */
}

static void test_tables(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	t->s->gpr[X86_RAX] = TINY_DATA;
	assert_int_equal(sys_asm(t, "\x0f\x01\x00"), SYS_DONE); /* sgdt [rax] */
	assert_int_equal(sys_get(t, TINY_DATA, 2), t->s->gdtr.limit);
	assert_int_equal(sys_get(t, TINY_DATA + 2, 8), TINY_GDT);
	sys_put(t, TINY_DATA + 2, 0x0100000000000000, 8);		/* LA57 could be on */
	assert_int_equal(sys_asm(t, "\x0f\x01\x18"), SYS_FAULT(13, 0)); /* lidt [rax] */
	/* LTR: not busy, and marks it. */
	sys_mode(t, TINY_LONG, 0);
	t->s->gpr[X86_RAX] = TINY_TR;
	assert_int_equal(sys_asm(t, "\x0f\x00\xd8"), SYS_FAULT(13, TINY_TR));
	sys_mode(t, TINY_LONG, 0);
	sys_put_desc(t, SYS_FREE_SEL, sys_desc(0x1000, 0x67, 0x89, 0));
	sys_put_desc(t, SYS_FREE_SEL + 8, 0x5);
	t->s->gpr[X86_RAX] = SYS_FREE_SEL;
	assert_int_equal(sys_asm(t, "\x0f\x00\xd8"), SYS_DONE);
	assert_int_equal(t->s->tr.base, 0x500001000);
	assert_int_equal(sys_get_desc(t, SYS_FREE_SEL) >> 40 & 0xf, 11);
	t->s->gpr[X86_RAX] = 0;
	assert_int_equal(sys_asm(t, "\x0f\x00\xd0"), SYS_DONE); /* lldt: null */
	assert_true(t->s->ldtr.attr & X86_ATTR_UNUSABLE);
	sys_mode(t, TINY_PROT32, 0);
	sys_put_desc(t, SYS_FREE_SEL, sys_desc(0x4000, 0xf, 0x82, 0));
	sys_put(t, 0x4008, sys_desc(0, 0xfffff, 0x92, 0xc), 8);
	t->s->gpr[X86_RAX] = SYS_FREE_SEL;
	assert_int_equal(sys_asm(t, "\x0f\x00\xd0"), SYS_DONE);
	assert_int_equal(mov_seg(X86_DS, 0xc), SYS_DONE);
	assert_int_equal(mov_seg(X86_DS, 0x14), SYS_FAULT(13, 0x14));
}

/* ---- flags, ports, the rest ----------------------------------------------------------------- */

static void test_cli_sti(void **state)
{
	sys_mode(t, TINY_PROT32, 3);
	t->s->rflags |= X86_FLAG_IOPL;
	assert_int_equal(sys_asm(t, "\xfb"), SYS_DONE);
	assert_true(t->s->rflags & X86_FLAG_IF);
	assert_true(t->s->int_shadow_sti);
	assert_false(cpu_can_interrupt(t->cpu));
	assert_int_equal(sys_asm(t, "\x90"), SYS_DONE);
	assert_true(cpu_can_interrupt(t->cpu));
	/* PVI: level 3 below IOPL changes VIF. */
	sys_mode(t, TINY_PROT32, 3);
	t->s->cr4 |= X86_CR4_PVI;
	assert_int_equal(sys_asm(t, "\xfb"), SYS_DONE);
	assert_true(t->s->rflags & X86_FLAG_VIF);
	assert_false(t->s->rflags & X86_FLAG_IF);
	assert_int_equal(sys_asm(t, "\xfa"), SYS_DONE);
	assert_false(t->s->rflags & X86_FLAG_VIF);
}

/* The shadow inside a block: exact at an exit, exact when L0 waits for the window. */
static void test_sti_shadow(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	tiny_asm(t, "\x90\xfb\xe4\x80"); /* nop; sti; in al,80h */
	assert_int_equal(tiny_run(t, 10), CPU_EXIT_IO);
	assert_true(t->s->int_shadow_sti);
	assert_false(cpu_can_interrupt(t->cpu));
	cpu_skip(t->cpu);
	assert_true(cpu_can_interrupt(t->cpu));
	sys_mode(t, TINY_LONG, 0);
	tiny_asm(t, "\xfb\x90\xe4\x80");
	assert_int_equal(tiny_run(t, 10), CPU_EXIT_IO);
	assert_true(cpu_can_interrupt(t->cpu));
	sys_mode(t, TINY_LONG, 0);
	t->c->exits |= CPU_CTL_IRQ_WINDOW;
	tiny_asm(t, "\x90\xfb\x90\xfa\xf4"); /* nop; sti; nop; cli; hlt */
	assert_int_equal(tiny_run(t, 10), CPU_EXIT_IRQ_WINDOW);
	assert_int_equal(t->s->rip, TINY_CODE + 3);
	sys_mode(t, TINY_LONG, 0);
	tiny_asm(t, "\xfb\xfa\xf4"); /* sti; cli: no window */
	assert_int_equal(tiny_run(t, 10), CPU_EXIT_HLT);
	t->c->exits &= ~CPU_CTL_IRQ_WINDOW;
	/* Right after STI by count. */
	sys_mode(t, TINY_LONG, 0);
	tiny_asm(t, "\xfb\x90\xf4");
	assert_int_equal(tiny_run(t, 1), CPU_EXIT_ICOUNT);
	assert_false(cpu_can_interrupt(t->cpu));
	assert_int_equal(tiny_run(t, 1), CPU_EXIT_ICOUNT);
	assert_true(cpu_can_interrupt(t->cpu));
}

static void test_ports(void **state)
{
	sys_mode(t, TINY_PROT32, 0);
	assert_int_equal(sys_asm(t, "\xe6\x80"), SYS_EXIT(CPU_EXIT_IO)); /* out 80h,al */
	assert_int_equal(cpu_exit(t->cpu)->io.port, 0x80);
	assert_int_equal(cpu_exit(t->cpu)->io.size, 1);
	assert_false(cpu_exit(t->cpu)->io.in);
	t->s->gpr[X86_RDX] = 0x1234;
	t->s->gpr[X86_RAX] = 0xffffffff;
	assert_int_equal(sys_asm(t, "\x66\xed"), SYS_EXIT(CPU_EXIT_IO)); /* in ax,dx */
	assert_int_equal(cpu_exit(t->cpu)->io.port, 0x1234);
	assert_int_equal(cpu_exit(t->cpu)->io.size, 2);
	cpu_complete_in(t->cpu, 0xabcd);
	cpu_skip(t->cpu);
	assert_int_equal(t->s->gpr[X86_RAX], 0xffffabcd);
	assert_int_equal(t->s->rip, TINY_CODE + 2);
	/* Level 3: the bitmap of the TSS. */
	sys_mode(t, TINY_PROT32, 3);
	sys_put(t, TINY_TSS + 0x66, 0x68, 2); /* beyond the limit: none */
	assert_int_equal(sys_asm(t, "\xe6\x80"), SYS_FAULT(13, 0));
	for (unsigned n = 0; n < 3; n++) {
		sys_mode(t, TINY_PROT32, 3);
		t->s->tr.limit = 0x67 + 0x12;
		sys_put(t, TINY_TSS + 0x66, 0x68, 2);
		memset(t->mem + TINY_TSS + 0x68, 0, 0x20);
		if (n == 1)
			t->mem[TINY_TSS + 0x68 + 0x10] = 1;
		if (n == 2)
			t->s->tr.limit--;
		assert_int_equal(sys_asm(t, "\xe6\x80"),
				 n ? SYS_FAULT(13, 0) : SYS_EXIT(CPU_EXIT_IO));
	}
}

static void test_bases(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	t->s->kernel_gs_base = 0x1000;
	t->s->seg[X86_GS].base = 0x2000;
	assert_int_equal(sys_asm(t, "\x0f\x01\xf8"), SYS_DONE); /* swapgs */
	assert_int_equal(t->s->seg[X86_GS].base, 0x1000);
	assert_int_equal(t->s->kernel_gs_base, 0x2000);
	assert_int_equal(sys_asm(t, "\xf3\x48\x0f\xae\xc8"), SYS_FAULT(6, 0)); /* rdgsbase rax */
	sys_mode(t, TINY_LONG, 3);
	t->s->cr4 |= X86_CR4_FSGSBASE;
	t->s->gpr[X86_RAX] = TINY_DATA;
	sys_put(t, TINY_DATA + 8, 0x1122334455667788, 8);
	assert_int_equal(sys_asm(t, "\xf3\x48\x0f\xae\xd0"), SYS_DONE); /* wrfsbase rax */
	assert_int_equal(sys_asm(t, "\x64\x48\x8b\x1c\x25\x08\x00\x00\x00"), SYS_DONE);
	assert_int_equal(t->s->gpr[X86_RBX], 0x1122334455667788);
	t->s->gpr[X86_RAX] = 0x0100000000000000;
	assert_int_equal(sys_asm(t, "\xf3\x48\x0f\xae\xd0"), SYS_FAULT(13, 0));
}

static void test_invpcid(void **state)
{
	static const struct {
		uint64_t type, pcid, gva;
		bool ok;
	} rows[] = {
		{0, 0, 0x1000, true},	      {0, 0, 0x0100000000000000, false},
		{0, 1, 0x1000, false},	      {1, 0, 0, true},
		{1, 0x1000, 0, false},	      {2, 0, 0, true},
		{3, 0, 0x800000000000, true}, {4, 0, 0, false},
		{BIT(32), 0, 0, false},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		sys_mode(t, TINY_LONG, 0);
		t->s->gpr[X86_RAX] = rows[n].type;
		t->s->gpr[X86_RBX] = TINY_DATA;
		sys_put(t, TINY_DATA, rows[n].pcid, 8);
		sys_put(t, TINY_DATA + 8, rows[n].gva, 8);
		assert_int_equal(sys_asm(t, "\x66\x0f\x38\x82\x03"),
				 rows[n].ok ? SYS_DONE : SYS_FAULT(13, 0));
	}
}

static void test_cpuid(void **state)
{
	uint32_t out[4], basic[4];

	sys_mode(t, TINY_LONG, 0);
	cpu_cpuid(t->cpu, 1, 0, out);
	assert_int_equal(out[2] & BIT(27), 0);
	t->s->cr4 |= X86_CR4_OSXSAVE | X86_CR4_PKE;
	cpu_cpuid(t->cpu, 1, 0, out);
	assert_int_equal(out[2] >> 27 & 1, 1);
	cpu_cpuid(t->cpu, 7, 0, out);
	assert_int_equal(out[2] >> 4 & 1, 1);
	cpu_cpuid(t->cpu, 0x16, 0, basic);
	cpu_cpuid(t->cpu, 0x12345, 0, out);
	assert_memory_equal(out, basic, sizeof(out));
	cpu_cpuid(t->cpu, 0x80001234, 0, out);
	assert_memory_equal(out, basic, sizeof(out));
	cpu_cpuid(t->cpu, 0x80000001, 0, out);
	assert_int_equal(out[3] >> 11 & 1, 1);
	sys_mode(t, TINY_COMPAT32, 0);
	cpu_cpuid(t->cpu, 0x80000001, 0, out);
	assert_int_equal(out[3] >> 11 & 1, 0);
}

static void test_reset(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	t->s->mtrr_def_type = 0xc06;
	t->s->cr0 = X86_CR0_CD;
	t->s->lstar = 0x1234;
	cpu_reset(t->cpu, true);
	assert_int_equal(t->s->rip, 0xfff0);
	assert_int_equal(t->s->seg[X86_CS].base, 0xffff0000);
	assert_int_equal(t->s->cr0, X86_CR0_CD | X86_CR0_ET);
	assert_int_equal(t->s->mtrr_def_type, 0xc06);
	assert_int_equal(t->s->lstar, 0x1234);
	assert_int_equal(t->s->gpr[X86_RDX], 0x50654);
	cpu_reset(t->cpu, false);
	assert_int_equal(t->s->cr0, 0x60000010);
	assert_int_equal(t->s->mtrr_def_type, 0);
	assert_int_equal(t->s->pat, X86_PAT_RESET);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cr0_rules), cmocka_unit_test(test_enter_long),
		cmocka_unit_test(test_cr4_rules), cmocka_unit_test(test_pae_pdptr),
		cmocka_unit_test(test_cr_masks),  cmocka_unit_test(test_debug_registers),
		cmocka_unit_test(test_msrs),	  cmocka_unit_test(test_tsc),
		cmocka_unit_test(test_lar_lsl),	  cmocka_unit_test(test_load_segments),
		cmocka_unit_test(test_limits),	  cmocka_unit_test(test_tables),
		cmocka_unit_test(test_cli_sti),	  cmocka_unit_test(test_sti_shadow),
		cmocka_unit_test(test_ports),	  cmocka_unit_test(test_bases),
		cmocka_unit_test(test_invpcid),	  cmocka_unit_test(test_cpuid),
		cmocka_unit_test(test_reset),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
