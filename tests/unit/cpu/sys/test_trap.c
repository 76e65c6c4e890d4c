/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Debug traps and shadows, AMD's SYSCALL, delivery by cpu_emulate(): what bare-metal suites found. */
#include "cpu/cpu_internal.h"
#include "tests/unit/cpu/sys/sys.h"

static struct tiny *t;

static int setup(void **state)
{
	t = tiny_create(MIB(16), 12);
	return 0;
}

static int teardown(void **state)
{
	tiny_destroy(t);
	return 0;
}

/* A kernel's start, with SS loadable and #DB seen by us. */
static void start(uint64_t flags)
{
	sys_mode(t, TINY_LONG, 0);
	t->s->gpr[X86_RAX] = TINY_DS;
	t->s->rflags |= flags;
	t->c->exception_bitmap = BIT(X86_VEC_DB);
}

static void run_to_db(uint64_t rip, uint64_t payload)
{
	cpu_state_changed(t->cpu);
	assert_int_equal(tiny_run(t, 10), CPU_EXIT_EXCEPTION);
	assert_int_equal(cpu_exit(t->cpu)->exception.vector, X86_VEC_DB);
	assert_int_equal(cpu_exit(t->cpu)->exception.payload, payload);
	assert_int_equal(t->s->rip, rip);
}

/* What loads SS is not single-stepped; the instruction after it is. */
static void test_mov_ss_step(void **state)
{
	start(X86_FLAG_TF);
	tiny_asm(t, "\x8e\xd0\x90\xf4"); /* mov ss,ax; nop; hlt */
	run_to_db(TINY_CODE + 3, X86_DR6_BS);
}

/* INT1 after it is one #DB, without BS. */
static void test_mov_ss_int1(void **state)
{
	start(X86_FLAG_TF);
	t->c->exception_bitmap = 0;
	t->s->dr6 = X86_DR6_FIXED;
	tiny_asm(t, "\x8e\xd0\xf1\xf4");
	cpu_state_changed(t->cpu);
	assert_int_equal(tiny_run(t, 10), CPU_EXIT_HLT);
	assert_int_equal(t->s->rip, SYS_HANDLERS + 16 + 1);
	assert_int_equal(t->s->dr6, X86_DR6_FIXED);
	assert_int_equal(sys_word(t, 0, 8), TINY_CODE + 3);
}

/* Nor does an instruction breakpoint hit there. */
static void test_mov_ss_breakpoint(void **state)
{
	start(0);
	tiny_asm(t, "\x8e\xd0\x90\x90\xf4");
	t->s->dr[0] = TINY_CODE + 2;
	t->s->dr[1] = TINY_CODE + 3;
	t->s->dr7 |= 1 | 1 << 2;
	run_to_db(TINY_CODE + 3, 2);
}

/* HLT that is stepped over traps at once, before any interrupt. */
static void test_hlt_step(void **state)
{
	start(X86_FLAG_TF | X86_FLAG_IF);
	tiny_asm(t, "\xf4\x90");
	cpu_state_changed(t->cpu);
	assert_int_equal(tiny_run(t, 10), CPU_EXIT_HLT);
	assert_false(cpu_can_interrupt(t->cpu));
	run_to_db(TINY_CODE + 1, X86_DR6_BS);
}

static void test_sti_nmi(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	assert_int_equal(sys_asm(t, "\xfb"), SYS_DONE); /* sti */
	assert_false(cpu_can_nmi(t->cpu));
	assert_int_equal(sys_asm(t, "\x90"), SYS_DONE);
	assert_true(cpu_can_nmi(t->cpu));
}

/* SYSRET that sets TF traps before the next instruction. */
static void test_sysret_step(void **state)
{
	start(0);
	t->s->star = (uint64_t)0x1b << 48 | (uint64_t)0x08 << 32;
	t->s->gpr[X86_RCX] = 0x110000;
	t->s->gpr[X86_R11] = X86_FLAG_TF | X86_FLAG_ONE;
	tiny_asm(t, "\x48\x0f\x07");
	run_to_db(0x110000, X86_DR6_BS);
}

/* IRET to an outer level takes away the selector of an inner segment, not its base. */
static void test_iret_base(void **state)
{
	const uint64_t frame[] = {0x110000, TINY_CS64_3 | 3, 2, 0x70000, TINY_DS_3 | 3};

	sys_mode(t, TINY_LONG, 0);
	sys_load(t, X86_GS, TINY_DS);
	t->s->seg[X86_GS].base = 0x12345678;
	t->s->gpr[X86_RSP] -= sizeof(frame);
	memcpy(t->mem + t->s->gpr[X86_RSP], frame, sizeof(frame));
	assert_int_equal(sys_asm(t, "\x48\xcf"), SYS_DONE);
	assert_int_equal(t->s->seg[X86_GS].sel, 0);
	assert_true(t->s->seg[X86_GS].attr & X86_ATTR_UNUSABLE);
	assert_int_equal(t->s->seg[X86_GS].base, 0x12345678);
}

static void test_amd_syscall(void **state)
{
	sys_mode(t, TINY_COMPAT32, 3);
	t->cpu->feat->amd = true;
	t->s->star = (uint64_t)0x1b << 48 | (uint64_t)0x08 << 32 | 0x130000;
	t->s->cstar = 0x110000;
	t->s->efer |= X86_EFER_SCE;
	t->s->fmask = X86_FLAG_IF;
	t->s->rflags |= X86_FLAG_IF;
	assert_int_equal(sys_asm(t, "\x0f\x05"), SYS_DONE);
	assert_int_equal(t->s->rip, 0x110000);
	assert_int_equal(t->s->gpr[X86_RCX], TINY_CODE + 2);
	assert_int_equal(t->s->gpr[X86_R11], X86_FLAG_IF | X86_FLAG_ONE);
	assert_int_equal(t->s->seg[X86_CS].attr, 0xa09b);
	assert_int_equal(cpu_cpl(t->cpu), 0);
	/* SYSENTER is not long mode's. */
	t->s->sysenter_cs = 8;
	assert_int_equal(sys_asm(t, "\x0f\x34"), SYS_FAULT(6, 0));
	/* Outside long mode the target is in STAR. */
	sys_mode(t, TINY_PROT32, 3);
	t->s->star = (uint64_t)0x3b << 48 | (uint64_t)TINY_CS32 << 32 | 0x130000;
	t->s->efer |= X86_EFER_SCE;
	assert_int_equal(sys_asm(t, "\x0f\x05"), SYS_DONE);
	assert_int_equal(t->s->rip, 0x130000);
	assert_int_equal(t->s->rflags & X86_FLAG_IF, 0);
	assert_int_equal(sys_asm(t, "\x0f\x07"), SYS_DONE);
	assert_int_equal(t->s->rip, TINY_CODE + 2);
	assert_int_equal(cpu_cpl(t->cpu), 3);
	assert_true(t->s->rflags & X86_FLAG_IF);
}

/* A #PF by the load of a descriptor says so. */
static void test_implicit(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	t->c->exception_bitmap = BIT(X86_VEC_PF);
	t->s->gdtr.base = 0x7f0000000000;
	t->s->gpr[X86_RAX] = TINY_DS;
	assert_int_equal(sys_asm(t, "\x8e\xd8"), SYS_EXIT(CPU_EXIT_EXCEPTION));
	assert_true(cpu_exit(t->cpu)->exception.implicit);
	t->s->gpr[X86_RBX] = 0x7f0000000000;
	assert_int_equal(sys_asm(t, "\x8b\x03"), SYS_EXIT(CPU_EXIT_EXCEPTION));
	assert_false(cpu_exit(t->cpu)->exception.implicit);
}

static enum cpu_mem_result mem_read(void *ctx, gva_t gva, void *data, unsigned len, unsigned access,
				    struct cpu_fault *fault)
{
	memcpy(data, t->mem + gva, len);
	return CPU_MEM_OK;
}

static enum cpu_mem_result mem_write(void *ctx, gva_t gva, const void *data, unsigned len,
				     unsigned access, struct cpu_fault *fault)
{
	memcpy(t->mem + gva, data, len);
	return CPU_MEM_OK;
}

static enum cpu_mem_result mem_probe(void *ctx, gva_t gva, unsigned len, unsigned access,
				     struct cpu_fault *fault)
{
	return CPU_MEM_OK;
}

/* An event that was cut short (its stack is a guest table, say) is carried out, not the INT again. */
static void test_emulate_event(void **state)
{
	static const struct cpu_mem_ops ops = {
		.read = mem_read, .write = mem_write, .probe = mem_probe};

	sys_mode(t, TINY_LONG, 0);
	tiny_asm(t, "\xcd\x21");
	t->s->event = (struct cpu_event){
		.valid = true, .type = CPU_EVENT_SOFT_INTR, .vector = 0x21, .insn_len = 2};
	cpu_state_changed(t->cpu);
	assert_int_equal(cpu_emulate(t->cpu, &ops, NULL), CPU_EMULATE_DONE);
	assert_false(t->s->event.valid);
	assert_int_equal(t->s->rip, SYS_HANDLERS + 0x21 * 16);
	assert_int_equal(sys_word(t, 0, 8), TINY_CODE + 2);
}

/* A shadow root may have five levels. */
static void test_shadow_five(void **state)
{
	static uint64_t table[5][512] __attribute__((aligned(4096)));

	sys_mode(t, TINY_LONG, 0);
	tiny_asm(t, "\x90\xf4");
	for (unsigned n = 0; n < 4; n++)
		table[n][n == 3 ? TINY_CODE >> 21 : 0] = (uint64_t)table[n + 1] | 7;
	table[4][TINY_CODE >> 12 & 511] = (uint64_t)(t->mem + TINY_CODE) | 0x67;
	t->c->paging = CPU_PAGING_SHADOW;
	t->c->root = (uint64_t)table[0];
	t->c->tdp_levels = 5;
	t->c->exception_bitmap = BIT(X86_VEC_PF);
	cpu_state_changed(t->cpu);
	assert_int_equal(tiny_run(t, 10), CPU_EXIT_HLT);
}

static void test_no_apic(void **state)
{
	uint32_t r[4];

	cpu_cpuid(t->cpu, 1, 0, r);
	assert_true(r[3] & BIT(9));
	t->c->exits |= CPU_CTL_NO_APIC;
	cpu_cpuid(t->cpu, 1, 0, r);
	assert_false(r[3] & BIT(9));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_mov_ss_step),	      TEST(test_mov_ss_int1), TEST(test_mov_ss_breakpoint),
		TEST(test_hlt_step),	      TEST(test_sti_nmi),     TEST(test_sysret_step),
		TEST(test_iret_base),	      TEST(test_amd_syscall), TEST(test_implicit),
		TEST(test_emulate_event),     TEST(test_shadow_five), TEST(test_no_apic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
