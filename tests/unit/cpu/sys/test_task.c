/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hardware task switches against SDM 3A chapter 8. */
#include "tests/unit/cpu/sys/sys.h"

#define NEW_TSS	 0x4000ull
#define NEW_SEL	 SYS_FREE_SEL
#define GATE_SEL (SYS_FREE_SEL + 8)
#define OLD_SEL	 TINY_TR

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

/* A 32-bit task that starts at 0x110000, at level 0, with recognizable registers. */
static void make_task(unsigned access)
{
	static const uint16_t seg[] = {TINY_DS, TINY_CS32, TINY_DS, TINY_DS, TINY_DS, 0};

	sys_mode(t, TINY_PROT32, 0);
	sys_put_desc(t, NEW_SEL, sys_desc(NEW_TSS, 0x67, access, 0));
	memset(t->mem + NEW_TSS, 0, 0x68);
	sys_put(t, NEW_TSS + 0x1c, 0x555000, 4);
	sys_put(t, NEW_TSS + 0x20, 0x110000, 4);
	sys_put(t, NEW_TSS + 0x24, 0x202, 4);
	for (unsigned n = 0; n < 8; n++)
		sys_put(t, NEW_TSS + 0x28 + 4 * n, 0x1000 + n, 4);
	sys_put(t, NEW_TSS + 0x28 + 16, 0x70000, 4);
	for (unsigned n = 0; n < 6; n++)
		sys_put(t, NEW_TSS + 0x48 + 4 * n, seg[n], 2);
	for (unsigned n = 0; n < 8; n++) {
		if (n != X86_RSP)
			t->s->gpr[n] = 0xa0000 + n;
	}
	t->s->dr7 = 0x755;
}

static int jmp_far(unsigned sel)
{
	uint8_t code[] = {0xea, 0, 0, 0, 0, (uint8_t)sel, (uint8_t)(sel >> 8)};

	return sys_code(t, code, sizeof(code));
}

static int call_far(unsigned sel)
{
	uint8_t code[] = {0x9a, 0, 0, 0, 0, (uint8_t)sel, (uint8_t)(sel >> 8)};

	return sys_code(t, code, sizeof(code));
}

static void expect_new_task(void)
{
	assert_int_equal(t->s->rip, 0x110000);
	assert_int_equal(t->s->gpr[X86_RAX], 0x1000);
	assert_int_equal(t->s->gpr[X86_RDI], 0x1007);
	assert_int_equal(t->s->gpr[X86_RSP], 0x70000);
	assert_int_equal(t->s->seg[X86_SS].sel, TINY_DS);
	assert_int_equal(t->s->seg[X86_GS].sel, 0);
	assert_int_equal(t->s->tr.sel, NEW_SEL);
	assert_int_equal(t->s->tr.base, NEW_TSS);
	assert_int_equal(t->s->tr.attr & 0xf, 11);
	assert_true(t->s->cr0 & X86_CR0_TS);
	assert_int_equal(t->s->dr7 & 0x155, 0);
	assert_int_equal(t->s->cr3, 0); /* paging is off: CR3 stays */
	assert_int_equal(sys_get_desc(t, NEW_SEL) >> 40 & 0xf, 11);
}

static void test_jmp(void **state)
{
	make_task(0x89);
	assert_int_equal(jmp_far(NEW_SEL), SYS_DONE);
	expect_new_task();
	assert_int_equal(t->s->rflags, 0x202);
	assert_int_equal(sys_get_desc(t, OLD_SEL) >> 40 & 0xf, 9);
	assert_int_equal(sys_get(t, NEW_TSS, 2), 0);
	assert_int_equal(sys_get(t, TINY_TSS + 0x20, 4), TINY_CODE + 7);
	assert_int_equal(sys_get(t, TINY_TSS + 0x28, 4), 0xa0000);
	assert_int_equal(sys_get(t, TINY_TSS + 0x44, 4), 0xa0007);
	assert_int_equal(sys_get(t, TINY_TSS + 0x4c, 2), TINY_CS32);
	/* And back to it. */
	t->s->cr0 &= ~X86_CR0_TS;
	assert_int_equal(jmp_far(OLD_SEL), SYS_DONE);
	assert_int_equal(t->s->rip, TINY_CODE + 7);
	assert_int_equal(t->s->gpr[X86_RDI], 0xa0007);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK);
}

static void test_call_and_iret(void **state)
{
	make_task(0x89);
	assert_int_equal(call_far(NEW_SEL), SYS_DONE);
	expect_new_task();
	assert_int_equal(t->s->rflags, 0x4202);
	assert_int_equal(sys_get(t, NEW_TSS, 2), OLD_SEL);
	assert_int_equal(sys_get_desc(t, OLD_SEL) >> 40 & 0xf, 11);
	assert_int_equal(sys_asm(t, "\xcf"), SYS_DONE);
	assert_int_equal(t->s->rip, TINY_CODE + 7);
	assert_int_equal(t->s->tr.sel, OLD_SEL);
	assert_false(t->s->rflags & X86_FLAG_NT);
	assert_int_equal(sys_get_desc(t, NEW_SEL) >> 40 & 0xf, 9);
	assert_int_equal(sys_get_desc(t, OLD_SEL) >> 40 & 0xf, 11);
	assert_int_equal(sys_get(t, NEW_TSS + 0x20, 4), 0x110001);
	assert_int_equal(sys_get(t, NEW_TSS + 0x24, 4) & X86_FLAG_NT, 0);
}

static void test_refused(void **state)
{
	make_task(0x8b); /* busy */
	assert_int_equal(jmp_far(NEW_SEL), SYS_FAULT(13, NEW_SEL));
	make_task(0x09); /* not present */
	assert_int_equal(jmp_far(NEW_SEL), SYS_FAULT(11, NEW_SEL));
	make_task(0x89);
	sys_put_desc(t, NEW_SEL, sys_desc(NEW_TSS, 0x66, 0x89, 0));
	assert_int_equal(jmp_far(NEW_SEL), SYS_FAULT(10, NEW_SEL));
	assert_int_equal(sys_word(t, 1, 4), TINY_CODE);
	assert_int_equal(t->s->tr.sel, OLD_SEL);
	/* IRET to a task that is not busy */
	make_task(0x89);
	sys_put(t, TINY_TSS, NEW_SEL, 2);
	t->s->rflags |= X86_FLAG_NT;
	assert_int_equal(sys_asm(t, "\xcf"), SYS_FAULT(10, NEW_SEL));
	/* In long mode there are none. */
	sys_mode(t, TINY_COMPAT32, 0);
	sys_put_desc(t, NEW_SEL, sys_desc(NEW_TSS, 0x67, 0x89, 0));
	assert_int_equal(jmp_far(NEW_SEL), SYS_FAULT(13, NEW_SEL));
}

/* Faults of the new task's segments come in the new task. */
static void test_faults_inside(void **state)
{
	make_task(0x89);
	sys_put(t, NEW_TSS + 0x54, 0x1230, 2); /* DS */
	assert_int_equal(jmp_far(NEW_SEL), SYS_FAULT(10, 0x1230));
	assert_int_equal(t->s->tr.sel, NEW_SEL);
	assert_int_equal(sys_word(t, 1, 4), 0x110000);
	make_task(0x89);
	sys_put(t, NEW_TSS + 0x60, TINY_DS, 2); /* LDT */
	assert_int_equal(t->s->tr.sel, OLD_SEL);
	assert_int_equal(t->s->activity, CPU_ACTIVE);
}

static void test_task16(void **state)
{
	make_task(0x89);
	sys_put_desc(t, NEW_SEL, sys_desc(NEW_TSS, 0x2b, 0x81, 0));
	memset(t->mem + NEW_TSS, 0, 0x2c);
	sys_put(t, NEW_TSS + 0x0e, 0x9000, 2);
	sys_put(t, NEW_TSS + 0x10, 0x202, 2);
	sys_put(t, NEW_TSS + 0x12, 0x1234, 2);
	sys_put(t, NEW_TSS + 0x1a, 0x7000, 2);
	sys_put(t, NEW_TSS + 0x22, TINY_DS, 2);
	sys_put(t, NEW_TSS + 0x24, TINY_CS16, 2);
	sys_put(t, NEW_TSS + 0x26, TINY_DS16, 2);
	sys_put(t, NEW_TSS + 0x28, TINY_DS, 2);
	assert_int_equal(call_far(NEW_SEL), SYS_DONE);
	assert_int_equal(t->s->rip, 0x9000);
	assert_int_equal(t->s->gpr[X86_RAX] & 0xffff, 0x1234);
	assert_int_equal(t->s->gpr[X86_RSP] & 0xffff, 0x7000);
	assert_int_equal(t->s->seg[X86_CS].sel, TINY_CS16);
	assert_int_equal(t->s->seg[X86_FS].sel, 0);
	assert_int_equal(t->s->tr.attr & 0xf, 3);
	assert_int_equal(sys_get(t, NEW_TSS, 2), OLD_SEL);
}

/* An exception through a task gate: its error code is on the new task's stack. */
static void test_task_gate(void **state)
{
	make_task(0x89);
	sys_put_gate(t, 13, sys_gate(NEW_SEL, 0, 0x85, 0));
	t->mem[0x110000] = 0x90;
	cpu_domain_notify_write(t->domain, (hpa_t)(t->mem + 0x110000), 1);
	assert_int_equal(jmp_far(0x1230), SYS_DONE); /* #GP, and the NOP there */
	assert_int_equal(t->s->rip, 0x110001);
	assert_int_equal(t->s->gpr[X86_RSP], 0x70000 - 4);
	assert_int_equal(sys_word(t, 0, 4), 0x1230);
	assert_int_equal(sys_get(t, TINY_TSS + 0x20, 4), TINY_CODE);
	assert_true(sys_get(t, TINY_TSS + 0x24, 4) & X86_FLAG_RF);
	assert_true(t->s->rflags & X86_FLAG_NT);
	/* JMP through a gate */
	make_task(0x89);
	sys_put_desc(t, GATE_SEL, sys_gate(NEW_SEL, 0, 0x85, 0));
	assert_int_equal(jmp_far(GATE_SEL), SYS_DONE);
	expect_new_task();
}

static void test_trap_bit(void **state)
{
	make_task(0x89);
	sys_put(t, NEW_TSS + 0x64, 1, 2);
	assert_int_equal(jmp_far(NEW_SEL), SYS_DONE);
	assert_int_equal(sys_one(t), SYS_FAULT(1, 0));
	assert_true(t->s->dr6 & X86_DR6_BT);
	assert_int_equal(sys_word(t, 0, 4), 0x110000);
}

static void test_exit(void **state)
{
	make_task(0x89);
	t->c->exits |= CPU_CTL_TASK_SWITCH;
	assert_int_equal(call_far(NEW_SEL), SYS_EXIT(CPU_EXIT_TASK_SWITCH));
	assert_int_equal(cpu_exit(t->cpu)->task.sel, NEW_SEL);
	assert_int_equal(cpu_exit(t->cpu)->task.source, 0);
	assert_int_equal(cpu_exit(t->cpu)->insn_len, 7);
	assert_int_equal(t->s->rip, TINY_CODE);
	t->c->exits &= ~CPU_CTL_TASK_SWITCH;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_jmp),	 cmocka_unit_test(test_call_and_iret),
		cmocka_unit_test(test_refused),	 cmocka_unit_test(test_faults_inside),
		cmocka_unit_test(test_task16),	 cmocka_unit_test(test_task_gate),
		cmocka_unit_test(test_trap_bit), cmocka_unit_test(test_exit),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
