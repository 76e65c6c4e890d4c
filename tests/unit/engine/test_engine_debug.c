/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A debugger's breakpoints, watchpoints and steps, through the engine and its emulation. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/cpu/common/tiny.h"
#include "engine/soft/soft_internal.h"
#include "tests/unit/engine/machine.h"

static struct machine *m;
static struct engine_vcpu *v;
static struct cpu_host_debug dbg;

static void create(enum mmu_policy policy)
{
	m = m_create(&(struct m_options){.policy = policy});
	v = m_vcpu(m, 0);
	memset(&dbg, 0, sizeof(dbg));
}

static int setup_shadow(void **state)
{
	create(MMU_POLICY_SHADOW);
	return 0;
}

static int setup_tdp(void **state)
{
	create(MMU_POLICY_TDP);
	return 0;
}

static int teardown(void **state)
{
	m_destroy(m);
	return 0;
}

#define start(name) (m_start(m, 0, M_LONG, 0), m_text(m, 0, name), m_state(m, 0))

static void set(void)
{
	assert_int_equal(m->ops->vcpu_set_debug(v, &dbg), 0);
}

static enum engine_exit run(void)
{
	return m->ops->vcpu_run(v, 100000);
}

static void stops(enum engine_debug_kind kind, gva_t gva)
{
	struct engine_debug_hit hit;

	assert_int_equal(run(), ENGINE_EXIT_DEBUG);
	m->ops->vcpu_debug_hit(v, &hit);
	assert_int_equal(hit.kind, kind);
	assert_int_equal(hit.gva, gva);
}

static void steps(uint64_t offset)
{
	stops(ENGINE_DEBUG_STEP, M_CODE + offset);
}

TINY_TEXT(store, 64, "nop; movl $7, (%rbx); hlt"); /* at 0, 1, 7 */

/* Its page is not mapped yet, nor is its data: faults to L0 come in between. */
static void test_breakpoint(void **state)
{
	start(store);
	dbg.breakpoints = 2;
	dbg.breakpoint[0] = M_CODE;
	dbg.breakpoint[1] = M_CODE + 1;
	set();
	stops(ENGINE_DEBUG_BREAKPOINT, M_CODE);
	stops(ENGINE_DEBUG_BREAKPOINT, M_CODE + 1);
	assert_int_equal(*m_word(m, M_DATA), 0);
	assert_int_equal(run(), ENGINE_EXIT_HALT);
	assert_int_equal(*m_word(m, M_DATA), 7);
	assert_int_equal(m->ops->vcpu_set_debug(v, NULL), 0);
	start(store);
	assert_int_equal(run(), ENGINE_EXIT_HALT);
	dbg.breakpoints = 33;
	assert_int_equal(m->ops->vcpu_set_debug(v, &dbg), -E2BIG);
}

/* Every way of carrying out an instruction is one step: the processor, an exit, the emulator. */
TINY_TEXT(mixed, 64,
	  "mov $0x10000000, %ecx; mov (%rcx), %eax; out %al, $0x80; in $0x80, %al;"
	  "mov %cr3, %rax; mov %rax, %cr3; invlpg (%rbx); cpuid; hlt");

static void test_step(void **state)
{
	static const uint8_t at[] = {5, 7, 9, 11, 14, 17, 20, 22, 23};

	start(mixed);
	dbg.single_step = true;
	set();
	for (unsigned k = 0; k < ARRAY_SIZE(at); k++)
		steps(at[k]);
	assert_int_equal(run(), ENGINE_EXIT_HALT);
	assert_int_equal(cpu_icount(v->cpu), ARRAY_SIZE(at));
}

/* Interrupts wait while it is stepped; HLT lets them in. */
TINY_TEXT(irq, 64, "sti; nop; nop; hlt; nop");

static void test_step_interrupts(void **state)
{
	start(irq);
	dbg.single_step = true;
	set();
	m->irq = 0x60;
	m->ops->vcpu_nmi(v);
	steps(1);
	steps(2);
	steps(3);
	steps(4);
	stops(ENGINE_DEBUG_STEP, M_HANDLERS + 16 * X86_VEC_NMI);
	assert_int_equal(m->irq, 0x60);
	/* Without a debugger it comes as soon as it may. */
	start(irq);
	m->ops->vcpu_set_debug(v, NULL);
	assert_int_equal(run(), ENGINE_EXIT_HALT);
	assert_int_equal(m_state(m, 0)->rip, M_HANDLERS + 16 * 0x60 + 1);
	assert_int_equal(*(uint64_t *)(m->ram + m_state(m, 0)->gpr[X86_RSP]), M_CODE + 2);
}

/* A guest table under shadow: the write is carried out by the emulator, and met all the same. */
TINY_TEXT(table, 64,
	  "mov $0x20000000, %ebx; mov $0x40000, %edi; mov (%rbx), %eax;"
	  "mov $0x12000, %eax; mov %rax, 0x2ff8(%rax); hlt");

static void test_watch_table(void **state)
{
	struct engine_debug_hit hit;

	start(table);
	m_map(m, 0, M_DATA | 7);
	/* The last entry of the page directory, a higher level: never out of step. */
	dbg.watches = 1;
	dbg.watch[0].gva = M_TABLES + 0x2000 + 0xff8 + 0x2000;
	dbg.watch[0].len = 8;
	dbg.watch[0].access = CPU_WATCH_WRITE;
	set();
	stops(ENGINE_DEBUG_WATCH, M_TABLES + 0x2000 + 0xff8 + 0x2000);
	m->ops->vcpu_debug_hit(v, &hit);
	assert_int_equal(hit.access, CPU_WATCH_WRITE);
	assert_int_equal(run(), ENGINE_EXIT_HALT);
}

/* MMIO, read. */
TINY_TEXT(mmio, 64, "mov $0x10000000, %ecx; mov (%rcx), %eax; hlt");

static void test_watch_mmio(void **state)
{
	start(mmio);
	dbg.watches = 1;
	dbg.watch[0].gva = M_MMIO;
	dbg.watch[0].len = 1;
	dbg.watch[0].access = CPU_WATCH_READ;
	set();
	stops(ENGINE_DEBUG_WATCH, M_MMIO);
	assert_int_equal(m->mmio_count, 1);
	assert_int_equal(run(), ENGINE_EXIT_HALT);
	assert_int_equal(m->mmio_count, 1);
}

/* The budget ends between an instruction and its report: told by the next run. */
static void test_budget(void **state)
{
	start(store);
	dbg.single_step = true;
	set();
	for (unsigned k = 0; k < 2; k++) {
		enum engine_exit exit = m->ops->vcpu_run(v, 1);

		if (exit == ENGINE_EXIT_BUDGET)
			exit = m->ops->vcpu_run(v, 1);
		assert_int_equal(exit, ENGINE_EXIT_DEBUG);
		assert_int_equal(m_state(m, 0)->rip, M_CODE + (k ? 7 : 1));
	}
}

#define TEST(name)                                                                                 \
	cmocka_unit_test_setup_teardown(name, setup_shadow, teardown),                             \
		cmocka_unit_test_setup_teardown(name, setup_tdp, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_breakpoint),	TEST(test_step),       TEST(test_step_interrupts),
		TEST(test_watch_table), TEST(test_watch_mmio), TEST(test_budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
