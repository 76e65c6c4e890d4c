/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Delivery of events against SDM 3A chapter 6 and 3B 21.3 (virtual-8086 mode). */
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

static void test_same_level(void **state)
{
	sys_mode(t, TINY_PROT32, 0);
	t->s->rflags |= X86_FLAG_IF | X86_FLAG_NT | X86_FLAG_CF;
	assert_int_equal(sys_asm(t, "\x0f\x0b"), SYS_FAULT(6, 0));
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK - 12);
	assert_int_equal(sys_word(t, 0, 4), TINY_CODE);
	assert_int_equal(sys_word(t, 1, 4), TINY_CS32);
	assert_int_equal(sys_word(t, 2, 4), 0x14203); /* a fault pushes RF */
	assert_int_equal(t->s->rflags, 3);
	/* A trap gate leaves IF. */
	sys_mode(t, TINY_PROT32, 0);
	sys_put_gate(t, 0x30, sys_gate(TINY_CS32, 0x110000, 0x8f, 0));
	t->s->rflags |= X86_FLAG_IF;
	assert_int_equal(sys_asm(t, "\xcd\x30"), SYS_DONE);
	assert_int_equal(t->s->rip, 0x110000);
	assert_int_equal(t->s->rflags, 0x202);
	assert_int_equal(sys_word(t, 0, 4), TINY_CODE + 2);
	assert_int_equal(sys_word(t, 2, 4), 0x202);
	/* A 16-bit gate pushes words. */
	sys_mode(t, TINY_PROT32, 0);
	sys_put_gate(t, 0x30, sys_gate(TINY_CS32, 0x9000, 0x86, 0));
	assert_int_equal(sys_asm(t, "\xcd\x30"), SYS_DONE);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK - 6);
	assert_int_equal(sys_word(t, 1, 2), TINY_CS32);
	assert_int_equal(t->s->rip, 0x9000);
}

static void test_inner_level(void **state)
{
	sys_mode(t, TINY_PROT32, 3);
	t->s->gpr[X86_RSP] = 0x70000;
	assert_int_equal(sys_asm(t, "\xfa"), SYS_FAULT(13, 0)); /* cli */
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK0 - 24);
	assert_int_equal(sys_word(t, 1, 4), TINY_CODE);
	assert_int_equal(sys_word(t, 2, 4), TINY_CS32_3 | 3);
	assert_int_equal(sys_word(t, 4, 4), 0x70000);
	assert_int_equal(sys_word(t, 5, 4), TINY_DS_3 | 3);
	assert_int_equal(t->s->seg[X86_DS].sel, TINY_DS_3 | 3); /* only IRET drops segments */
}

static void test_soft_privilege(void **state)
{
	sys_mode(t, TINY_PROT32, 3);
	assert_int_equal(sys_asm(t, "\xcd\x30"), SYS_FAULT(13, 0x30 * 8 + 2));
	assert_int_equal(sys_word(t, 1, 4), TINY_CODE); /* a fault: at the INT */
	sys_mode(t, TINY_PROT32, 3);
	assert_int_equal(sys_asm(t, "\xcc"), SYS_FAULT(13, 3 * 8 + 2));
	/* INT1 is not checked. */
	sys_mode(t, TINY_PROT32, 3);
	assert_int_equal(sys_asm(t, "\xf1"), SYS_FAULT(1, 0));
	sys_mode(t, TINY_PROT32, 3);
	sys_put_gate(t, 0x30, sys_gate(TINY_CS32, 0x110000, 0xee, 0));
	assert_int_equal(sys_asm(t, "\xcd\x30"), SYS_DONE);
	assert_int_equal(cpu_cpl(t->cpu), 0);
}

/* What is wrong with a gate, with EXT for what the program did not ask for. */
static void test_gate_faults(void **state)
{
	static const struct {
		uint64_t sel;
		unsigned access;
		int fault;
	} rows[] = {
		{TINY_CS32, 0x0e, SYS_FAULT(11, 6 * 8 + 3)}, /* not present */
		{TINY_CS32, 0x8c, SYS_FAULT(13, 6 * 8 + 3)}, /* a call gate */
		{0, 0x8e, SYS_FAULT(13, 1)},
		{TINY_DS, 0x8e, SYS_FAULT(13, TINY_DS | 1)},
		{0x1230, 0x8e, SYS_FAULT(13, 0x1231)},
		{TINY_CS32_3, 0x8e, SYS_FAULT(13, TINY_CS32_3 | 1)}, /* outer code */
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		sys_mode(t, TINY_PROT32, 0);
		sys_put_gate(t, 6,
			     sys_gate((uint16_t)rows[n].sel, SYS_HANDLERS, rows[n].access, 0));
		assert_int_equal(sys_asm(t, "\x0f\x0b"), rows[n].fault);
		assert_int_equal(sys_word(t, 1, 4), TINY_CODE);
	}
	sys_mode(t, TINY_PROT32, 0);
	t->s->idtr.limit = 15 * 8 - 1;
	assert_int_equal(sys_asm(t, "\xcd\x30"), SYS_FAULT(13, 0x30 * 8 + 2));
}

static void test_double_and_triple(void **state)
{
	/* #GP whose gate is not present: #NP on top of it makes #DF, error 0. */
	sys_mode(t, TINY_PROT32, 0);
	sys_put_gate(t, 13, 0);
	assert_int_equal(sys_asm(t, "\xea\x00\x00\x00\x00\x00\x00"), SYS_FAULT(8, 0));
	assert_int_equal(sys_word(t, 0, 4), 0);
	/* #UD is benign: then #NP is itself. */
	sys_mode(t, TINY_PROT32, 0);
	sys_put_gate(t, 6, sys_gate(TINY_CS32, SYS_HANDLERS, 0x0e, 0));
	assert_int_equal(sys_asm(t, "\x0f\x0b"), SYS_FAULT(11, 6 * 8 + 3));
	/* Nothing left to deliver to. */
	sys_mode(t, TINY_PROT32, 0);
	t->s->idtr.limit = 0;
	assert_int_equal(sys_asm(t, "\x0f\x0b"), SYS_EXIT(CPU_EXIT_TRIPLE_FAULT));
	assert_int_equal(t->s->activity, CPU_SHUTDOWN);
	t->s->activity = CPU_ACTIVE;
	/* #PF while #PF is being delivered: #DF, CR2 of the second. */
	sys_mode(t, TINY_LONG, 0);
	t->s->gpr[X86_RSP] = 0x7000000000; /* not mapped: the frame faults */
	sys_put_gate(t, 8, sys_gate(TINY_CS64, SYS_HANDLERS + 8 * 16, 0x8e, 1));
	sys_put(t, TINY_TSS + 0x24, TINY_STACK0, 8);
	assert_int_equal(sys_asm(t, "\x48\xa1\x00\x00\x00\x00\x60\x00\x00\x00"), SYS_FAULT(8, 0));
	assert_int_equal(t->s->cr2, 0x7000000000 - 8);
}

static void test_long(void **state)
{
	sys_mode(t, TINY_LONG, 3);
	t->s->gpr[X86_RSP] = 0x70005;
	t->s->rflags |= X86_FLAG_IF;
	assert_int_equal(sys_asm(t, "\xfa"), SYS_FAULT(13, 0));
	assert_int_equal(cpu_cpl(t->cpu), 0);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK0 - 48);
	assert_int_equal(sys_word(t, 1, 8), TINY_CODE);
	assert_int_equal(sys_word(t, 2, 8), TINY_CS64_3 | 3);
	assert_int_equal(sys_word(t, 3, 8), 0x10202);
	assert_int_equal(sys_word(t, 4, 8), 0x70005);
	assert_int_equal(sys_word(t, 5, 8), TINY_DS_3 | 3);
	assert_int_equal(t->s->seg[X86_SS].sel, 0);
	/* Same level: aligned, SS kept. */
	sys_mode(t, TINY_LONG, 0);
	t->s->gpr[X86_RSP] = 0x70005;
	assert_int_equal(sys_asm(t, "\x0f\x0b"), SYS_FAULT(6, 0));
	assert_int_equal(t->s->gpr[X86_RSP], 0x70000 - 40);
	assert_int_equal(sys_word(t, 3, 8), 0x70005);
	assert_int_equal(t->s->seg[X86_SS].sel, TINY_DS);
	/* IST */
	sys_mode(t, TINY_LONG, 0);
	sys_put_gate(t, 6, sys_gate(TINY_CS64, SYS_HANDLERS + 6 * 16, 0x8e, 3));
	sys_put(t, TINY_TSS + 0x1c + 3 * 8, 0xa000f, 8);
	assert_int_equal(sys_asm(t, "\x0f\x0b"), SYS_FAULT(6, 0));
	assert_int_equal(t->s->gpr[X86_RSP], 0xa0000 - 40);
	/* 32-bit code cannot be the handler; nor can a 16-bit gate. */
	sys_mode(t, TINY_LONG, 0);
	sys_put_gate(t, 6, sys_gate(TINY_CS32, SYS_HANDLERS, 0x8e, 0));
	assert_int_equal(sys_asm(t, "\x0f\x0b"), SYS_FAULT(13, TINY_CS32 | 1));
	sys_mode(t, TINY_LONG, 0);
	sys_put_gate(t, 6, sys_gate(TINY_CS64, SYS_HANDLERS, 0x86, 0));
	assert_int_equal(sys_asm(t, "\x0f\x0b"), SYS_FAULT(13, 6 * 8 + 3));
	/* From compatibility mode the frame is 64-bit all the same. */
	sys_mode(t, TINY_COMPAT32, 3);
	assert_int_equal(sys_asm(t, "\x0f\x0b"), SYS_FAULT(6, 0));
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK0 - 40);
	assert_true(t->s->seg[X86_CS].attr & X86_ATTR_L);
}

static void test_page_fault(void **state)
{
	sys_mode(t, TINY_LONG, 3);
	assert_int_equal(sys_asm(t, "\x48\xa1\x00\x00\x00\x00\x70\x00\x00\x00"), SYS_FAULT(14, 4));
	assert_int_equal(t->s->cr2, 0x7000000000);
	assert_int_equal(sys_word(t, 1, 8), TINY_CODE);
}

/* An EPT violation on the stack leaves the event to be delivered again, and everything else as it
 * was. */
static void test_all_or_nothing(void **state)
{
	uint64_t *ept = tiny_ept(t, TINY_STACK0 - PAGE_SIZE), was = *ept;

	sys_mode(t, TINY_LONG, 3);
	*ept = 0;
	cpu_tlb_flush_all(t->cpu);
	assert_int_equal(sys_asm(t, "\x48\xa1\x00\x00\x00\x00\x70\x00\x00\x00"),
			 SYS_EXIT(CPU_EXIT_TDP_VIOLATION));
	assert_true(t->s->event.valid);
	assert_int_equal(t->s->event.vector, 14);
	assert_int_equal(t->s->event.error, 4);
	assert_int_equal(cpu_exit(t->cpu)->mem.gpa & PAGE_MASK, TINY_STACK0 - PAGE_SIZE);
	assert_int_equal(t->s->rip, TINY_CODE);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK);
	assert_int_equal(cpu_cpl(t->cpu), 3);
	*ept = was;
	assert_int_equal(sys_one(t), SYS_FAULT(14, 4));
	assert_int_equal(t->s->cr2, 0x7000000000);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK0 - 48);
}

static void test_injected(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	t->s->event = (struct cpu_event){.valid = true, .type = CPU_EVENT_NMI, .vector = 2};
	assert_int_equal(sys_asm(t, "\x90"), SYS_FAULT(2, 0));
	assert_true(t->s->nmi_blocked);
	assert_int_equal(sys_word(t, 2, 8), 2); /* no RF */
	sys_mode(t, TINY_LONG, 0);
	cpu_inject_page_fault(t->cpu, 2, 0x1234);
	cpu_inject_page_fault(t->cpu, 2, 0x5678);
	assert_int_equal(t->s->event.vector, 8);
	assert_int_equal(t->s->cr2, 0x5678);
	cpu_inject_exception(t->cpu, 13, true, 0);
	assert_int_equal(t->s->activity, CPU_SHUTDOWN);
}

static void vm86_mode(unsigned iopl)
{
	sys_mode(t, TINY_PROT32, 0);
	t->s->tr.limit = 0x67 + 32 + 8;
	sys_put(t, TINY_TSS + 0x66, 0x68 + 32, 2);
	memset(t->mem + TINY_TSS + 0x68, 0xff, 48);
	sys_put(t, 0x21 * 4, 0x12345678, 4); /* IVT */
	for (unsigned n = 0; n < 6; n++)
		t->s->seg[n] = (struct cpu_seg){.limit = 0xffff, .attr = 0xf3};
	t->s->rflags = 2 | X86_FLAG_VM | (uint64_t)iopl << 12;
	t->s->rip = 0x8000;
	t->s->gpr[X86_RSP] = 0x7000;
	t->s->idtr.limit = 0x7ff;
	cpu_state_changed(t->cpu);
}

static void test_vm86(void **state)
{
	vm86_mode(0);
	assert_int_equal(sys_asm(t, "\xcd\x21"), SYS_FAULT(13, 0));
	/* IOPL 3: through the IDT, whose gate needs DPL 3. */
	vm86_mode(3);
	assert_int_equal(sys_asm(t, "\xcd\x21"), SYS_FAULT(13, 0x21 * 8 + 2));
	vm86_mode(3);
	sys_put_gate(t, 0x21, sys_gate(TINY_CS32, 0x110000, 0xee, 0));
	assert_int_equal(sys_asm(t, "\xcd\x21"), SYS_DONE);
	assert_int_equal(t->s->rip, 0x110000);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK0 - 36);
	/* The handler must be at level 0. */
	vm86_mode(3);
	sys_put_desc(t, SYS_FREE_SEL, sys_desc(0, 0xfffff, 0xbb, 0xc));
	sys_put_gate(t, 0x21, sys_gate(SYS_FREE_SEL, SYS_HANDLERS, 0xee, 0));
	assert_int_equal(sys_asm(t, "\xcd\x21"), SYS_FAULT(13, SYS_FREE_SEL));
}

static void test_vme(void **state)
{
	/* Redirected to the program's own table, IF stands for VIF. */
	vm86_mode(0);
	t->s->cr4 |= X86_CR4_VME;
	t->mem[TINY_TSS + 0x68 + 0x21 / 8] = (uint8_t) ~(1u << (0x21 & 7));
	t->s->rflags |= X86_FLAG_VIF | X86_FLAG_IF;
	assert_int_equal(sys_asm(t, "\xcd\x21"), SYS_DONE);
	assert_int_equal(t->s->rip, 0x5678);
	assert_int_equal(t->s->seg[X86_CS].sel, 0x1234);
	assert_int_equal(sys_get(t, 0x7000 - 2, 2), 0x3202); /* IOPL 3, IF from VIF */
	assert_false(t->s->rflags & X86_FLAG_VIF);
	assert_true(t->s->rflags & X86_FLAG_IF);
	/* IRET gives VIF back. */
	t->s->rip = 0x8000;
	t->s->seg[X86_CS] = (struct cpu_seg){.limit = 0xffff, .attr = 0xf3};
	assert_int_equal(sys_asm(t, "\xcf"), SYS_DONE);
	assert_true(t->s->rflags & X86_FLAG_VIF);
	assert_int_equal(t->s->rflags & X86_FLAG_IOPL, 0);
	/* CLI and STI work on VIF; with VIP pending STI faults. */
	assert_int_equal(sys_asm(t, "\xfa"), SYS_DONE);
	assert_false(t->s->rflags & X86_FLAG_VIF);
	t->s->rflags |= X86_FLAG_VIP;
	assert_int_equal(sys_asm(t, "\xfb"), SYS_FAULT(13, 0));
	/* Not redirected. */
	vm86_mode(0);
	t->s->cr4 |= X86_CR4_VME;
	assert_int_equal(sys_asm(t, "\xcd\x21"), SYS_FAULT(13, 0));
}

static void test_debug(void **state)
{
	/* Single step: a trap, after the instruction. */
	sys_mode(t, TINY_LONG, 0);
	t->s->rflags |= X86_FLAG_TF;
	assert_int_equal(sys_asm(t, "\x90\x90"), SYS_DONE);
	assert_int_equal(sys_one(t), SYS_FAULT(1, 0));
	assert_int_equal(sys_word(t, 0, 8), TINY_CODE + 1);
	assert_int_equal(t->s->dr6, X86_DR6_FIXED | X86_DR6_BS);
	/* General detect: a fault, GD goes. */
	sys_mode(t, TINY_LONG, 0);
	t->s->dr7 |= X86_DR7_GD;
	assert_int_equal(sys_asm(t, "\x0f\x21\xc0"), SYS_FAULT(1, 0)); /* mov rax,dr0 */
	assert_int_equal(sys_word(t, 0, 8), TINY_CODE);
	assert_int_equal(t->s->dr6, X86_DR6_FIXED | X86_DR6_BD);
	assert_false(t->s->dr7 & X86_DR7_GD);
	/* Instruction breakpoint: a fault without RF. */
	sys_mode(t, TINY_LONG, 0);
	t->s->dr[1] = TINY_CODE;
	t->s->dr7 = X86_DR7_FIXED | 4;
	assert_int_equal(sys_asm(t, "\x90"), SYS_FAULT(1, 0));
	assert_int_equal(t->s->dr6, X86_DR6_FIXED | 2);
	assert_int_equal(sys_word(t, 2, 8), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_level),
		cmocka_unit_test(test_inner_level),
		cmocka_unit_test(test_soft_privilege),
		cmocka_unit_test(test_gate_faults),
		cmocka_unit_test(test_double_and_triple),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_page_fault),
		cmocka_unit_test(test_all_or_nothing),
		cmocka_unit_test(test_injected),
		cmocka_unit_test(test_vm86),
		cmocka_unit_test(test_vme),
		cmocka_unit_test(test_debug),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
