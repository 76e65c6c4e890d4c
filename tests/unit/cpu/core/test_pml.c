/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Page-modification logging: what is logged, when, and what happens when the log is full. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/cpu/common/tiny.h"

#define EPT_A	BIT(8)
#define EPT_D	BIT(9)
#define PT	0x40000ull    /* a table for the 2 MiB at FAR_LIN */
#define FAR_LIN 0x40000000ull /* 1 GiB: mapped by the test */
#define LAST	(CPU_PML_ENTRIES - 1)

TINY_TEXT(load, 64, "mov (%rbx), %eax; hlt");
TINY_TEXT(store, 64, "mov %eax, (%rbx); hlt");

static struct tiny *t;
static uint64_t log_page[CPU_PML_ENTRIES];

/* All A bits set, as the MMU makes its entries; D as @dirty says. */
static void flags_everywhere(uint64_t *table, unsigned level, bool dirty)
{
	for (unsigned k = 0; k < 512; k++) {
		bool leaf = level == 1 || table[k] & BIT(7);

		if (!(table[k] & 7))
			continue;
		table[k] |= EPT_A;
		if (leaf)
			table[k] = (table[k] & ~EPT_D) | (dirty ? EPT_D : 0);
		else
			flags_everywhere((uint64_t *)(table[k] & BITS(47, 12)), level - 1, dirty);
	}
}

static void start(unsigned shift)
{
	t = tiny_create(MIB(16), shift);
	tiny_mode(t, TINY_LONG, 0);
	((uint64_t *)(t->mem + TINY_PML4 + 0x3000))[0] = PT | 7;
	*(uint64_t *)(t->mem + PT) = TINY_DATA | 7;
	flags_everywhere(t->tables, 4, false);
	t->c->exits |= CPU_CTL_TDP_AD | CPU_CTL_PML;
	t->c->pml = log_page;
	t->c->pml_index = LAST;
	memset(log_page, 0xff, sizeof(log_page));
	t->s->gpr[X86_RBX] = TINY_DATA;
}

static enum cpu_exit_reason go(const uint8_t *code, const uint8_t *end)
{
	t->s->rip = TINY_CODE;
	tiny_code(t, code, (unsigned)(end - code));
	cpu_state_changed(t->cpu);
	return tiny_run(t, 10);
}
#define go(code) go(code, code##_end)

static bool logged(gpa_t gpa)
{
	for (unsigned k = LAST; k > t->c->pml_index; k--) {
		if (log_page[k] == gpa)
			return true;
	}
	return false;
}

static unsigned count(void)
{
	return LAST - t->c->pml_index;
}

/* With A and D flags in use every table that is read counts as written (SDM 3C 29.3.5). */
static void test_tables(void **state)
{
	start(12);
	assert_int_equal(go(load), CPU_EXIT_HLT);
	assert_true(logged(TINY_PML4));
	assert_true(logged(TINY_PML4 + 0x1000));
	assert_true(logged(TINY_PML4 + 0x2000));
	assert_int_equal(count(), 3);
	assert_int_equal(log_page[LAST], TINY_PML4); /* from the last down */
	assert_false(*tiny_ept(t, TINY_DATA) & EPT_D);
	tiny_destroy(t);
}

static void test_store(void **state)
{
	start(12);
	go(load);
	assert_int_equal(go(store), CPU_EXIT_HLT);
	assert_int_equal(count(), 4);
	assert_int_equal(log_page[LAST - 3], TINY_DATA);
	assert_true(*tiny_ept(t, TINY_DATA) & EPT_D);
	/* Once: it is dirty now. */
	assert_int_equal(go(store), CPU_EXIT_HLT);
	assert_int_equal(count(), 4);
	/* Until L0 takes the flag away and has the TLB forget. */
	*tiny_ept(t, TINY_DATA) &= ~EPT_D;
	cpu_tlb_flush_all(t->cpu);
	assert_int_equal(go(store), CPU_EXIT_HLT);
	assert_int_equal(count(), 5);
	tiny_destroy(t);
}

/* The guest's A and D bits that the walker sets dirty the table's page. */
static void test_walker_writes(void **state)
{
	start(12);
	t->s->gpr[X86_RBX] = FAR_LIN;
	assert_int_equal(go(store), CPU_EXIT_HLT);
	assert_true(logged(PT));
	assert_true(logged(TINY_DATA));
	assert_true(*(uint64_t *)(t->mem + PT) & 0x40);
	tiny_destroy(t);
}

/* The page's address in the guest, also where one entry maps 2 MiB. */
static void test_large(void **state)
{
	start(21);
	t->s->gpr[X86_RBX] = TINY_DATA + 0x5678;
	assert_int_equal(go(store), CPU_EXIT_HLT);
	assert_true(logged(TINY_DATA + 0x5000));
	tiny_destroy(t);
}

static void test_full(void **state)
{
	uint64_t *ept;

	start(12);
	go(load);
	t->c->pml_index = 0xffff;
	t->s->gpr[X86_RAX] = 0x77;
	assert_int_equal(go(store), CPU_EXIT_PML_FULL);
	ept = tiny_ept(t, TINY_DATA);
	assert_int_equal(t->s->rip, TINY_CODE);
	assert_false(*ept & EPT_D);
	assert_int_equal(*(uint32_t *)(t->mem + TINY_DATA), 0);
	/* Emptied: the same instruction again. */
	t->c->pml_index = LAST;
	assert_int_equal(tiny_run(t, 10), CPU_EXIT_HLT);
	assert_int_equal(*(uint32_t *)(t->mem + TINY_DATA), 0x77);
	assert_int_equal(log_page[LAST], TINY_DATA);
	/* The last place can be used; then it is full. */
	t->c->pml_index = 0;
	*ept &= ~EPT_D;
	cpu_tlb_flush_all(t->cpu);
	assert_int_equal(go(store), CPU_EXIT_HLT);
	assert_int_equal(log_page[0], TINY_DATA);
	assert_int_equal(t->c->pml_index, 0xffff);
	/* An accessed flag to be set leaves as well. */
	*ept &= ~EPT_A;
	cpu_tlb_flush_all(t->cpu);
	assert_int_equal(go(load), CPU_EXIT_PML_FULL);
	tiny_destroy(t);
}

/* Without the control nothing is logged, though the flags are set. */
static void test_off(void **state)
{
	start(12);
	t->c->exits &= ~CPU_CTL_PML;
	t->c->pml_index = 0xffff;
	assert_int_equal(go(store), CPU_EXIT_HLT);
	assert_int_equal(t->c->pml_index, 0xffff);
	assert_true(*tiny_ept(t, TINY_DATA) & EPT_D);
	tiny_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),	      cmocka_unit_test(test_store),
		cmocka_unit_test(test_walker_writes), cmocka_unit_test(test_large),
		cmocka_unit_test(test_full),	      cmocka_unit_test(test_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
