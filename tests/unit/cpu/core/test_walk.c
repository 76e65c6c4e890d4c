/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The walker and the TLB: guest paging of every mode, EPT, NPT, shadow; what is cached and forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpu_internal.h"
#include "tests/unit/cpu/common/tiny.h"

#define PT	  0x40000ull /* a 4 KiB table for the 2 MiB at FAR_LIN */
#define FAR_LIN	  0x40000000ull /* 1 GiB: beyond memory, mapped by the test */
#define P  1ull
#define W  2ull
#define U  4ull
#define A  0x20ull
#define D  0x40ull
#define PS 0x80ull
#define G  0x100ull
#define NX (1ull << 63)

TINY_TEXT(load, 64, "mov (%rbx), %eax; hlt");
TINY_TEXT(store, 64, "mov %eax, (%rbx); hlt");
TINY_TEXT(jump, 64, "jmp *%rbx");
TINY_TEXT(load3, 64, "mov (%rbx), %eax; ud2");
TINY_TEXT(store3, 64, "mov %eax, (%rbx); ud2");
TINY_TEXT(load32, 32, "mov (%ebx), %eax; hlt");
TINY_TEXT(store32, 32, "mov %eax, (%ebx); hlt");

static void catch_all(struct tiny *t)
{
	t->c->exception_bitmap = ~0u;
	t->c->pf_error_mask = t->c->pf_error_match = 0;
}

/* A machine in long mode with FAR_LIN's 2 MiB mapped by 4 KiB entries at PT, none present. */
static struct tiny *paged(unsigned shift, unsigned cpl)
{
	struct tiny *t = tiny_create(MIB(64), shift);
	uint64_t *pd = (uint64_t *)(t->mem + TINY_PML4 + 0x2000 + (FAR_LIN >> 30) * 0x1000);

	tiny_mode(t, TINY_LONG, cpl);
	catch_all(t);
	pd[FAR_LIN >> 21 & 511] = PT | P | W | U;
	t->s->gpr[X86_RBX] = FAR_LIN;
	*(uint32_t *)(t->mem + TINY_DATA) = 0xabcd;
	return t;
}

static uint64_t *pte(struct tiny *t)
{
	return (uint64_t *)(t->mem + PT);
}

static uint64_t *pde(struct tiny *t)
{
	return (uint64_t *)(t->mem + TINY_PML4 + 0x2000 + (FAR_LIN >> 30) * 0x1000) + (FAR_LIN >> 21 & 511);
}

#define go(t, code) (cpu_tlb_flush_all((t)->cpu), again(t, code))
#define again(t, code)                                                                             \
	((t)->s->rip = TINY_CODE, tiny_text(t, code), (t)->s->gpr[X86_RAX] = 0x99, cpu_state_changed((t)->cpu), \
	 tiny_run(t, 10))

static void expect_pf(struct tiny *t, uint32_t error)
{
	const struct cpu_exit *x = cpu_exit(t->cpu);

	assert_int_equal(x->reason, CPU_EXIT_EXCEPTION);
	assert_int_equal(x->exception.vector, X86_VEC_PF);
	assert_int_equal(x->exception.error, error);
	assert_int_equal(x->exception.payload, FAR_LIN);
}

static void expect_ud(struct tiny *t)
{
	assert_int_equal(cpu_exit(t->cpu)->reason, CPU_EXIT_EXCEPTION);
	assert_int_equal(cpu_exit(t->cpu)->exception.vector, X86_VEC_UD);
}

static void test_rights(void **state)
{
	struct tiny *t = paged(12, 0);

	go(t, load);
	expect_pf(t, 0);
	go(t, store);
	expect_pf(t, X86_PF_W);
	*pte(t) = TINY_DATA | P;
	assert_int_equal(go(t, load), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 0xabcd);
	assert_int_equal(*pte(t), TINY_DATA | P | A);
	assert_int_equal(*pde(t) & (A | D), A);
	go(t, store);
	expect_pf(t, X86_PF_W | X86_PF_P);
	assert_int_equal(*pte(t), TINY_DATA | P | A);
	/* CR0.WP clear: the supervisor writes, and the flags say so. */
	t->s->cr0 &= ~X86_CR0_WP;
	assert_int_equal(go(t, store), CPU_EXIT_HLT);
	assert_int_equal(*pte(t), TINY_DATA | P | A | D);
	t->s->cr0 |= X86_CR0_WP;
	*pte(t) = TINY_DATA | P | W;
	assert_int_equal(go(t, load), CPU_EXIT_HLT);
	assert_int_equal(*pte(t), TINY_DATA | P | W | A);
	/* The first write through an entry that a read made. */
	assert_int_equal(again(t, store), CPU_EXIT_HLT);
	assert_int_equal(*pte(t), TINY_DATA | P | W | A | D);
	/* Reserved bits; no execution. */
	*pte(t) = TINY_DATA | P | W | BIT(50);
	go(t, load);
	expect_pf(t, X86_PF_P | X86_PF_RSVD);
	*pte(t) = TINY_DATA | P | W | NX;
	go(t, jump);
	expect_pf(t, X86_PF_P | X86_PF_I);
	t->s->efer &= ~X86_EFER_NXE;
	go(t, load);
	expect_pf(t, X86_PF_P | X86_PF_RSVD);
	tiny_destroy(t);
}

static void test_user(void **state)
{
	struct tiny *t = paged(12, 3);

	*pte(t) = TINY_DATA | P | W;
	go(t, load3);
	expect_pf(t, X86_PF_P | X86_PF_U);
	*pte(t) |= U;
	go(t, load3);
	expect_ud(t);
	*pte(t) = TINY_DATA | P | U;
	/* With CR0.WP clear the supervisor's entry must not serve the user. */
	t->s->cr0 &= ~X86_CR0_WP;
	go(t, store3);
	expect_pf(t, X86_PF_P | X86_PF_U | X86_PF_W);
	t->s->cr0 |= X86_CR0_WP;
	/* Protection keys. */
	t->s->cr4 |= X86_CR4_PKE;
	*pte(t) = TINY_DATA | P | U | W | 5ull << 59;
	t->s->pkru = 2u << 10;
	go(t, load3);
	expect_ud(t);
	again(t, store3);
	expect_pf(t, X86_PF_P | X86_PF_U | X86_PF_W | X86_PF_PK);
	t->s->pkru = 1u << 10;
	again(t, load3);
	expect_pf(t, X86_PF_P | X86_PF_U | X86_PF_PK);
	tiny_destroy(t);
}

static void test_smep_smap(void **state)
{
	struct tiny *t = paged(21, 0);

	/* The code itself must be the supervisor's. */
	for (unsigned n = 0; n < 4; n++)
		((uint64_t *)(t->mem + TINY_PML4 + 0x2000))[n] &= ~U;
	*pte(t) = TINY_DATA | P | W | U;
	t->s->cr4 |= X86_CR4_SMAP | X86_CR4_SMEP;
	go(t, load);
	expect_pf(t, X86_PF_P);
	t->s->rflags |= X86_FLAG_AC;
	assert_int_equal(again(t, load), CPU_EXIT_HLT);
	t->s->rflags &= ~X86_FLAG_AC;
	again(t, load);
	expect_pf(t, X86_PF_P);
	again(t, jump);
	expect_pf(t, X86_PF_P | X86_PF_I);
	t->s->cr4 &= ~X86_CR4_SMEP;
	memcpy(t->mem + TINY_DATA, "\xf4", 1);
	assert_int_equal(again(t, jump), CPU_EXIT_HLT);
	tiny_destroy(t);
}

static void test_32bit(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 12);
	uint32_t *pd = (uint32_t *)(t->mem + TINY_PML4), *pt = (uint32_t *)(t->mem + PT);

	tiny_mode(t, TINY_PROT32_PAGED, 0);
	catch_all(t);
	t->s->gpr[X86_RBX] = FAR_LIN;
	*(uint32_t *)(t->mem + TINY_DATA) = 0xabcd;
	pd[FAR_LIN >> 22] = PT | P | W;
	pt[0] = TINY_DATA | P;
	assert_int_equal(go(t, load32), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 0xabcd);
	assert_int_equal(pt[0], TINY_DATA | P | A);
	go(t, store32);
	expect_pf(t, X86_PF_P | X86_PF_W);
	/* 4 MiB pages: reserved bit 21; bits 20:13 are the address above 4 GiB, where nothing is. */
	pd[FAR_LIN >> 22] = P | W | PS | BIT(21);
	go(t, load32);
	expect_pf(t, X86_PF_P | X86_PF_RSVD);
	pd[FAR_LIN >> 22] = P | W | PS | BIT(14);
	assert_int_equal(go(t, load32), CPU_EXIT_TDP_VIOLATION);
	assert_int_equal(cpu_exit(t->cpu)->mem.gpa, 2ull << 32);
	/* Without CR4.PSE the bit means nothing. */
	t->s->cr4 &= ~X86_CR4_PSE;
	for (unsigned n = 0; n < 1024; n++)
		pt[n] = n << 12 | P | W;
	pd[0] = PT | P | W | PS; /* TINY_CODE and TINY_DATA */
	t->s->gpr[X86_RBX] = TINY_DATA;
	assert_int_equal(go(t, load32), CPU_EXIT_HLT);
	tiny_destroy(t);
}

static void test_pae(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 12);
	uint64_t *pd = (uint64_t *)(t->mem + TINY_PML4 + 0x2000 + 0x1000);

	tiny_mode(t, TINY_PAE, 0);
	catch_all(t);
	t->s->gpr[X86_RBX] = FAR_LIN;
	pd[0] = PT | P | W;
	*pte(t) = TINY_DATA | P | W;
	*(uint32_t *)(t->mem + TINY_DATA) = 0xabcd;
	assert_int_equal(go(t, load32), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 0xabcd);
	*pte(t) = TINY_DATA | P | W | BIT(62);
	go(t, load32);
	expect_pf(t, X86_PF_P | X86_PF_RSVD);
	t->s->pdptr[1] = 0;
	go(t, load32);
	expect_pf(t, 0);
	tiny_destroy(t);
}

static void test_5level(void **state)
{
	struct tiny *t = paged(12, 0);
	uint64_t *pml5 = (uint64_t *)(t->mem + 0x41000);

	pml5[0] = TINY_PML4 | P | W | U;
	pml5[511] = TINY_PML4 | P | W | U;
	t->s->cr4 |= X86_CR4_LA57;
	t->s->cr3 = 0x41000;
	*pte(t) = TINY_DATA | P | W;
	t->s->gpr[X86_RBX] = 0xffff000000000000ull + FAR_LIN; /* canonical with 57 bits only */
	assert_int_equal(go(t, load), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 0xabcd);
	assert_true(pml5[511] & A);
	t->s->gpr[X86_RBX] = 0x0200000000000000ull;
	go(t, load);
	assert_int_equal(cpu_exit(t->cpu)->exception.vector, X86_VEC_GP);
	tiny_destroy(t);
}

/* ---- EPT, NPT -------------------------------------------------------------------------------------- */

static void test_ept(void **state)
{
	struct tiny *t = paged(12, 0);
	const struct cpu_exit *x = cpu_exit(t->cpu);
	uint64_t *e = tiny_ept(t, TINY_DATA), *table = tiny_ept(t, PT), whole = *e;

	*pte(t) = TINY_DATA | P | W;
	*e = 0;
	t->s->gpr[X86_RBX] = FAR_LIN + 8;
	assert_int_equal(go(t, load), CPU_EXIT_TDP_VIOLATION);
	assert_int_equal(x->mem.gpa, TINY_DATA + 8);
	assert_int_equal(x->mem.gva, FAR_LIN + 8);
	assert_true(x->mem.gva_valid && x->mem.read && !x->mem.write && !x->mem.fetch && !x->mem.walk);
	assert_int_equal(x->mem.present_perms, 0);
	assert_int_equal(x->insn_len, 2);
	assert_int_equal(t->s->rip, TINY_CODE);
	/* Read-only: a read is served, a write leaves; then it is writable without a flush. */
	*e = whole & ~2ull;
	assert_int_equal(again(t, load), CPU_EXIT_HLT);
	assert_int_equal(again(t, store), CPU_EXIT_TDP_VIOLATION);
	assert_true(x->mem.write && x->mem.read);
	assert_int_equal(x->mem.present_perms, 5);
	*e = whole;
	assert_int_equal(again(t, store), CPU_EXIT_HLT);
	/* Misconfigured: writable, not readable; reserved memory type; address beyond the host's. */
	*e = (whole & ~7ull) | 2;
	assert_int_equal(go(t, load), CPU_EXIT_TDP_MISCONFIG);
	assert_int_equal(x->mem.gpa, TINY_DATA + 8);
	*e = (whole & ~0x38ull) | 2 << 3;
	assert_int_equal(go(t, load), CPU_EXIT_TDP_MISCONFIG);
	*e = whole | BIT(49);
	assert_int_equal(go(t, load), CPU_EXIT_TDP_MISCONFIG);
	/* On the way: the guest's table. A read-only one matters when a flag is to be set. */
	*e = whole;
	whole = *table;
	*table = 0;
	assert_int_equal(go(t, load), CPU_EXIT_TDP_VIOLATION);
	assert_true(x->mem.walk && x->mem.gva_valid && !x->mem.write);
	assert_int_equal(x->mem.gpa, PT);
	*table = whole & ~2ull;
	assert_int_equal(go(t, load), CPU_EXIT_HLT);
	*pte(t) = TINY_DATA | P | W;
	assert_int_equal(go(t, load), CPU_EXIT_TDP_VIOLATION);
	assert_true(x->mem.walk && x->mem.write);
	tiny_destroy(t);
}

static void test_ept_ad(void **state)
{
	struct tiny *t = paged(12, 0);
	uint64_t *e = tiny_ept(t, TINY_DATA), *table = tiny_ept(t, PT);

	*pte(t) = TINY_DATA | P | W;
	t->c->exits |= CPU_CTL_TDP_AD;
	assert_int_equal(go(t, load), CPU_EXIT_HLT);
	assert_int_equal(*e & 0x300, 0x100);
	assert_int_equal(*table & 0x300, 0x300); /* walks count as writes */
	assert_int_equal(again(t, store), CPU_EXIT_HLT);
	assert_int_equal(*e & 0x300, 0x300);
	/* Cleared and flushed: noticed again. */
	*e &= ~0x300ull;
	cpu_tlb_flush_root(t->cpu, t->c->root);
	assert_int_equal(again(t, load), CPU_EXIT_HLT);
	assert_int_equal(*e & 0x300, 0x100);
	assert_int_equal(again(t, store), CPU_EXIT_HLT);
	assert_int_equal(*e & 0x300, 0x300);
	tiny_destroy(t);
}

static void test_npt(void **state)
{
	struct tiny *t = paged(12, 0);
	const struct cpu_exit *x = cpu_exit(t->cpu);
	uint64_t *e = tiny_ept(t, TINY_DATA), whole;

	for (unsigned n = 0; n < t->tables_used * 512; n++)
		t->tables[n] = t->tables[n] ? (t->tables[n] & BITS(47, 12)) | P | W | U : 0;
	whole = *e;
	t->c->tdp_format = CPU_TDP_NPT;
	*pte(t) = TINY_DATA | P | W;
	assert_int_equal(go(t, store), CPU_EXIT_HLT);
	assert_int_equal(*e, whole | A | D);
	*e = whole & ~W;
	assert_int_equal(go(t, store), CPU_EXIT_NPF);
	assert_int_equal(x->mem.error, X86_PF_P | X86_PF_W | X86_PF_U);
	assert_int_equal(x->mem.gpa, TINY_DATA);
	*e = 0;
	assert_int_equal(go(t, load), CPU_EXIT_NPF);
	assert_int_equal(x->mem.error, X86_PF_U);
	tiny_destroy(t);
}

/* Without paging of its own: real mode on the tables. */
static void test_no_paging(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 12);

	tiny_mode(t, TINY_REAL, 0);
	*tiny_ept(t, 0x9000) = 0;
	t->s->gpr[X86_RBX] = 0x9004;
	tiny_asm(t, "\x8b\x07\x90\xf4"); /* mov ax, [bx] */
	assert_int_equal(tiny_run(t, 10), CPU_EXIT_TDP_VIOLATION);
	assert_int_equal(cpu_exit(t->cpu)->mem.gpa, 0x9004);
	tiny_destroy(t);
}

/* ---- shadow ------------------------------------------------------------------------------------------ */

static void test_shadow(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 12);
	uint64_t *e = tiny_ept(t, TINY_DATA), whole;
	const struct cpu_exit *x = cpu_exit(t->cpu);

	for (unsigned n = 0; n < t->tables_used * 512; n++)
		t->tables[n] = t->tables[n] ? (t->tables[n] & BITS(47, 12)) | P | W | U : 0;
	whole = *e;
	for (enum tiny_mode m = TINY_PROT32; m <= TINY_LONG; m++) {
		if (m == TINY_COMPAT16)
			continue;
		tiny_mode(t, m, 0);
		t->c->paging = CPU_PAGING_SHADOW;
		catch_all(t);
		t->s->gpr[X86_RBX] = TINY_DATA;
		*e = whole;
		assert_int_equal(m == TINY_LONG ? go(t, store) : go(t, store32), CPU_EXIT_HLT);
		assert_int_equal(*e, whole | A | D);
		assert_int_equal(*(uint32_t *)(t->mem + TINY_DATA), 0x99);
		*e = (whole | BIT(51)) & ~W;
		assert_int_equal(m == TINY_LONG ? go(t, store) : go(t, store32), CPU_EXIT_EXCEPTION);
		assert_int_equal(x->exception.error, X86_PF_P | X86_PF_W | X86_PF_RSVD);
		*e = whole & ~W;
		assert_int_equal(m == TINY_LONG ? go(t, store) : go(t, store32), CPU_EXIT_EXCEPTION);
		assert_int_equal(x->exception.error, X86_PF_P | X86_PF_W);
		assert_int_equal(x->exception.payload, TINY_DATA);
	}
	tiny_destroy(t);
}

/* ---- forgetting ----------------------------------------------------------------------------------------- */

static void test_flushes(void **state)
{
	struct tiny *t = paged(12, 0);

	t->s->cr4 |= X86_CR4_PGE;
	*pte(t) = TINY_DATA | P | W;
	assert_int_equal(go(t, load), CPU_EXIT_HLT);
	*pte(t) = (TINY_DATA + 0x1000) | P | W;
	/* Not yet. */
	assert_int_equal(again(t, load), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 0xabcd);
	cpu_tlb_flush_gva(t->cpu, FAR_LIN + 0x800);
	assert_int_equal(again(t, load), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 0);
	/* Globals outlive a flush of the guest's, not one with globals. */
	*pte(t) = TINY_DATA | P | W | G;
	cpu_tlb_flush_guest(t->cpu, false);
	assert_int_equal(again(t, load), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 0xabcd);
	*pte(t) = 0;
	cpu_tlb_flush_guest(t->cpu, false);
	assert_int_equal(again(t, load), CPU_EXIT_HLT);
	cpu_tlb_flush_guest(t->cpu, true);
	again(t, load);
	expect_pf(t, 0);
	/* By host page. */
	*pte(t) = TINY_DATA | P | W;
	assert_int_equal(again(t, load), CPU_EXIT_HLT);
	*pte(t) = 0;
	cpu_tlb_flush_hpa(t->cpu, (hpa_t)(t->mem + TINY_DATA), 1);
	again(t, load);
	expect_pf(t, 0);
	tiny_destroy(t);
}

/* PCIDs keep translations apart, and keep them. */
static void test_pcid(void **state)
{
	struct tiny *t = paged(12, 0);

	t->s->cr4 |= X86_CR4_PCIDE;
	*pte(t) = TINY_DATA | P | W;
	for (unsigned pcid = 1; pcid < 200; pcid++) {
		t->s->cr3 = TINY_PML4 | pcid;
		*pte(t) = (TINY_DATA + (pcid & 1) * 0x1000) | P | W;
		cpu_tlb_flush_gva(t->cpu, 0x12345000);
		assert_int_equal(again(t, load), CPU_EXIT_HLT);
		assert_int_equal(t->s->gpr[X86_RAX], pcid & 1 ? 0 : 0xabcd);
	}
	*pte(t) = 0;
	for (unsigned pcid = 199; pcid > 195; pcid--) {
		t->s->cr3 = TINY_PML4 | pcid;
		assert_int_equal(again(t, load), CPU_EXIT_HLT);
		assert_int_equal(t->s->gpr[X86_RAX], pcid & 1 ? 0 : 0xabcd);
	}
	tiny_destroy(t);
}

/* A large page is forgotten whole, by any address in it. */
static void test_large(void **state)
{
	struct tiny *t = paged(12, 0);
	uint64_t *pdpt = (uint64_t *)(t->mem + TINY_PML4 + 0x1000);

	*pde(t) = P | W | PS;
	t->s->gpr[X86_RBX] = FAR_LIN + TINY_CODE + 0x3000;
	t->mem[TINY_CODE + 0x3000] = 1;
	assert_int_equal(go(t, load), CPU_EXIT_HLT);
	*pde(t) = 0;
	assert_int_equal(again(t, load), CPU_EXIT_HLT);
	cpu_tlb_flush_gva(t->cpu, FAR_LIN);
	assert_int_equal(again(t, load), CPU_EXIT_EXCEPTION);
	pdpt[1] = P | W | PS; /* 1 GiB, to address 0 */
	assert_int_equal(again(t, load), CPU_EXIT_HLT);
	pdpt[1] = 0;
	cpu_tlb_flush_gva(t->cpu, FAR_LIN + MIB(700));
	assert_int_equal(again(t, load), CPU_EXIT_EXCEPTION);
	tiny_destroy(t);
}

/* ---- accesses that cross pages ---------------------------------------------------------------------------- */

TINY_TEXT(cross, 64, "mov (%rbx), %rax; add %rdx, (%rbx); lock add %rdx, (%rbx); mov (%rbx), %rcx; hlt");

static void test_crossing(void **state)
{
	struct tiny *t = paged(12, 0);
	uint64_t v = 0x1122334455667788, w;

	pte(t)[0] = (TINY_DATA + 0x5000) | P | W;
	pte(t)[1] = TINY_DATA | P | W; /* not the next one */
	memcpy(t->mem + TINY_DATA + 0x5ffd, &v, 3);
	memcpy(t->mem + TINY_DATA, (uint8_t *)&v + 3, 5);
	t->s->gpr[X86_RBX] = FAR_LIN + 0xffd;
	t->s->gpr[X86_RDX] = 0x0101010101010101;
	assert_int_equal(go(t, cross), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], v);
	assert_int_equal(t->s->gpr[X86_RCX], v + 2 * 0x0101010101010101);
	memcpy(&w, t->mem + TINY_DATA + 0x5ffd, 3);
	memcpy((uint8_t *)&w + 3, t->mem + TINY_DATA, 5);
	assert_int_equal(w, v + 2 * 0x0101010101010101);
	/* The second page is read-only: nothing is written. */
	pte(t)[1] = TINY_DATA | P;
	go(t, cross);
	assert_int_equal(cpu_exit(t->cpu)->exception.error, X86_PF_P | X86_PF_W);
	assert_int_equal(cpu_exit(t->cpu)->exception.payload, FAR_LIN + 0x1000);
	memcpy(&w, t->mem + TINY_DATA + 0x5ffd, 3);
	assert_int_equal(w, v + 2 * 0x0101010101010101);
	tiny_destroy(t);
}

/* Where the slot of a page holds the next page's entry, a crossing access must still miss. */
static void test_hash(void **state)
{
	struct tiny *t = paged(12, 0);

	for (uint64_t vpn = 0; vpn < 1 << 20; vpn += 0x3ff) {
		const struct cpu *c = t->cpu;

		assert_ptr_not_equal(cpu_tlb_slot(c, vpn << 12), cpu_tlb_slot(c, (vpn + 1) << 12));
	}
	assert_ptr_not_equal(cpu_tlb_slot(t->cpu, 0x7ffffffffull), cpu_tlb_slot(t->cpu, 0x800000000ull));
	tiny_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rights),	   cmocka_unit_test(test_user),
		cmocka_unit_test(test_smep_smap),  cmocka_unit_test(test_32bit),
		cmocka_unit_test(test_pae),	   cmocka_unit_test(test_5level),
		cmocka_unit_test(test_ept),	   cmocka_unit_test(test_ept_ad),
		cmocka_unit_test(test_npt),	   cmocka_unit_test(test_no_paging),
		cmocka_unit_test(test_shadow),	   cmocka_unit_test(test_flushes),
		cmocka_unit_test(test_pcid),	   cmocka_unit_test(test_large),
		cmocka_unit_test(test_crossing),   cmocka_unit_test(test_hash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
