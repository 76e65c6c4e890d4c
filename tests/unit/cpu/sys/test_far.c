/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Far transfers against SDM 2A/2B (CALL, JMP, RET, IRET) and 3A 5.8. */
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

/* jmp far @sel:0x00110000 (32-bit code) */
static int jmp_far(unsigned sel)
{
	uint8_t code[] = {0xea, 0, 0, 0x11, 0, (uint8_t)sel, (uint8_t)(sel >> 8)};

	return sys_code(t, code, sizeof(code));
}

static int call_far(unsigned sel)
{
	uint8_t code[] = {0x9a, 0, 0, 0x11, 0, (uint8_t)sel, (uint8_t)(sel >> 8)};

	return sys_code(t, code, sizeof(code));
}

static void test_jmp_checks(void **state)
{
	static const struct {
		unsigned access, flags, cpl, rpl;
		int fault; /* vector, 0: none; error code is the selector */
	} rows[] = {
		{0x9b, 0xc, 0, 0, 0},			      /* same level */
		{0xfb, 0xc, 0, 0, 13},			      /* outer code */
		{0xfb, 0xc, 3, 3, 0},  {0x9b, 0xc, 3, 3, 13}, /* inner code */
		{0x9f, 0xc, 3, 3, 0},			      /* inner, conforming */
		{0xff, 0xc, 0, 0, 13},			      /* outer, conforming */
		{0x9b, 0xc, 0, 1, 13},			      /* RPL > CPL, non-conforming */
		{0x1b, 0xc, 0, 0, 11},			      /* not present */
		{0x93, 0xc, 0, 0, 13},			      /* data */
		{0x82, 0x0, 0, 0, 13},			      /* LDT */
		{0x8b, 0x0, 0, 0, 13},			      /* busy TSS */
		{0x8e, 0x0, 0, 0, 13},			      /* interrupt gate */
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		unsigned sel = SYS_FREE_SEL | rows[n].rpl;
		int ret;

		sys_mode(t, TINY_PROT32, rows[n].cpl);
		sys_put_desc(t, sel, sys_desc(0, 0xfffff, rows[n].access & ~1u, rows[n].flags));
		if ((rows[n].access & 0x10) == 0)
			sys_put_desc(t, sel, sys_desc(0, 0xfffff, rows[n].access, rows[n].flags));
		ret = jmp_far(sel);
		if (rows[n].fault) {
			assert_int_equal(ret, SYS_FAULT(rows[n].fault, sel & ~3u));
			continue;
		}
		assert_int_equal(ret, SYS_DONE);
		assert_int_equal(t->s->rip, 0x110000);
		assert_int_equal(t->s->seg[X86_CS].sel, (sel & ~3u) | rows[n].cpl);
		assert_int_equal(cpu_cpl(t->cpu), rows[n].cpl);
		assert_true(sys_get_desc(t, sel) >> 40 & 1); /* accessed */
	}
}

static void test_jmp_null_and_limits(void **state)
{
	sys_mode(t, TINY_PROT32, 0);
	assert_int_equal(jmp_far(0), SYS_FAULT(13, 0));
	sys_mode(t, TINY_PROT32, 0);
	assert_int_equal(jmp_far(3), SYS_FAULT(13, 0));
	sys_mode(t, TINY_PROT32, 0);
	assert_int_equal(jmp_far(0x1000), SYS_FAULT(13, 0x1000));
	sys_mode(t, TINY_PROT32, 0);
	assert_int_equal(jmp_far(0x14), SYS_FAULT(13, 0x14)); /* no LDT */
	sys_mode(t, TINY_PROT32, 0);
	sys_put_desc(t, SYS_FREE_SEL, sys_desc(0, 0xffff, 0x9b, 4));
	assert_int_equal(jmp_far(SYS_FREE_SEL), SYS_FAULT(13, 0)); /* beyond the new limit */
	assert_int_equal(sys_word(t, 1, 4), TINY_CODE);
	assert_int_equal(sys_word(t, 2, 4), TINY_CS32);
}

static void test_call_and_ret_same(void **state)
{
	sys_mode(t, TINY_PROT32, 0);
	sys_put_desc(t, SYS_FREE_SEL, sys_desc(0, 0xfffff, 0x9a, 0xc));
	assert_int_equal(call_far(SYS_FREE_SEL), SYS_DONE);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK - 8);
	assert_int_equal(sys_word(t, 0, 4), TINY_CODE + 7);
	assert_int_equal(sys_word(t, 1, 4), TINY_CS32);
	assert_int_equal(sys_asm(t, "\xca\x10\x00"), SYS_DONE); /* retf 16 */
	assert_int_equal(t->s->rip, TINY_CODE + 7);
	assert_int_equal(t->s->seg[X86_CS].sel, TINY_CS32);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK + 16);
}

/* A 32-bit gate with two parameters from level 3 to 0, and back. */
static void test_call_gate(void **state)
{
	unsigned gate = SYS_FREE_SEL;

	sys_mode(t, TINY_PROT32, 3);
	sys_put_desc(t, gate, sys_gate(TINY_CS32, 0x110000, 0xec, 2));
	sys_put(t, TINY_STACK, 0x11111111, 4);
	sys_put(t, TINY_STACK + 4, 0x22222222, 4);
	sys_load(t, X86_FS, TINY_DS); /* level 0's; it is to become null on the way out */
	assert_int_equal(call_far(gate | 3), SYS_DONE);
	assert_int_equal(cpu_cpl(t->cpu), 0);
	assert_int_equal(t->s->rip, 0x110000);
	assert_int_equal(t->s->seg[X86_CS].sel, TINY_CS32);
	assert_int_equal(t->s->seg[X86_SS].sel, TINY_DS);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK0 - 24);
	assert_int_equal(sys_word(t, 0, 4), TINY_CODE + 7);
	assert_int_equal(sys_word(t, 1, 4), TINY_CS32_3 | 3);
	assert_int_equal(sys_word(t, 2, 4), 0x11111111);
	assert_int_equal(sys_word(t, 3, 4), 0x22222222);
	assert_int_equal(sys_word(t, 4, 4), TINY_STACK);
	assert_int_equal(sys_word(t, 5, 4), TINY_DS_3 | 3);
	assert_int_equal(sys_asm(t, "\xca\x08\x00"), SYS_DONE); /* retf 8 */
	assert_int_equal(cpu_cpl(t->cpu), 3);
	assert_int_equal(t->s->rip, TINY_CODE + 7);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK + 8);
	assert_int_equal(t->s->seg[X86_SS].sel, TINY_DS_3 | 3);
	assert_int_equal(t->s->seg[X86_FS].sel, 0);
	assert_true(t->s->seg[X86_FS].attr & X86_ATTR_UNUSABLE);
	assert_int_equal(t->s->seg[X86_ES].sel, TINY_DS_3 | 3);
}

static void test_call_gate_faults(void **state)
{
	unsigned gate = SYS_FREE_SEL;

	sys_mode(t, TINY_PROT32, 3);
	sys_put_desc(t, gate, sys_gate(TINY_CS32, 0x110000, 0x8c, 0)); /* DPL 0 */
	assert_int_equal(call_far(gate), SYS_FAULT(13, gate));
	sys_mode(t, TINY_PROT32, 3);
	sys_put_desc(t, gate, sys_gate(TINY_CS32, 0x110000, 0x6c, 0)); /* not present */
	assert_int_equal(call_far(gate), SYS_FAULT(11, gate));
	sys_mode(t, TINY_PROT32, 3);
	sys_put_desc(t, gate, sys_gate(0, 0x110000, 0xec, 0));
	assert_int_equal(call_far(gate), SYS_FAULT(13, 0));
	sys_mode(t, TINY_PROT32, 3);
	sys_put_desc(t, gate, sys_gate(TINY_DS, 0x110000, 0xec, 0));
	assert_int_equal(call_far(gate), SYS_FAULT(13, TINY_DS));
	/* JMP may not change the level. */
	sys_mode(t, TINY_PROT32, 3);
	sys_put_desc(t, gate, sys_gate(TINY_CS32, 0x110000, 0xec, 0));
	assert_int_equal(jmp_far(gate), SYS_FAULT(13, TINY_CS32));
}

/* Trouble with the inner stack. Level 1's is used, so that level 0's can take the fault. */
static void test_call_gate_stack(void **state)
{
	unsigned gate = SYS_FREE_SEL, code1 = gate + 8, ss1 = gate + 16;
	static const struct {
		unsigned sel, access, limit;
		int fault;
		bool zero;
	} rows[] = {
		{0x80 | 1, 0xb3, 0xfffff, 0, false},  {1, 0xb3, 0xfffff, 10, true}, /* null */
		{0x80, 0xb3, 0xfffff, 10, false},				    /* RPL */
		{0x80 | 1, 0x93, 0xfffff, 10, false},				    /* DPL */
		{0x80 | 1, 0xb1, 0xfffff, 10, false}, /* not writable */
		{0x80 | 1, 0x33, 0xfffff, 12, false}, /* not present */
		{0x80 | 1, 0xb3, 0x7, 12, false},     /* ESP beyond the limit */
	};

	assert_int_equal(ss1, 0x80);
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		int ret;

		sys_mode(t, TINY_PROT32, 3);
		sys_put_desc(t, gate, sys_gate((uint16_t)(code1 | 1), 0x110000, 0xec, 0));
		sys_put_desc(t, code1, sys_desc(0, 0xfffff, 0xbb, 0xc));
		sys_put_desc(t, ss1, sys_desc(0, rows[n].limit, rows[n].access, 0xc));
		sys_put(t, TINY_TSS + 12, rows[n].limit == 7 ? 0x9000 : 0xa0000, 4);
		sys_put(t, TINY_TSS + 16, rows[n].sel, 2);
		ret = call_far(gate);
		if (!rows[n].fault) {
			assert_int_equal(ret, SYS_DONE);
			assert_int_equal(cpu_cpl(t->cpu), 1);
			assert_int_equal(t->s->gpr[X86_RSP], 0xa0000 - 16);
			continue;
		}
		assert_int_equal(ret,
				 SYS_FAULT(rows[n].fault, rows[n].zero ? 0 : rows[n].sel & ~3u));
		assert_int_equal(sys_word(t, 1, 4), TINY_CODE);
		assert_int_equal(sys_word(t, 4, 4), TINY_STACK);
	}
}

static void test_long_call_gate(void **state)
{
	unsigned gate = SYS_FREE_SEL;

	sys_mode(t, TINY_LONG, 3);
	sys_put_desc(t, gate, sys_gate(TINY_CS64, 0x110000, 0xec, 0));
	sys_put_desc(t, gate + 8, 0);
	t->s->gpr[X86_RAX] = TINY_DATA;
	sys_put(t, TINY_DATA, 0, 4);
	sys_put(t, TINY_DATA + 4, gate, 2);
	assert_int_equal(sys_asm(t, "\xff\x18"), SYS_DONE); /* call far [rax] */
	assert_int_equal(cpu_cpl(t->cpu), 0);
	assert_int_equal(t->s->seg[X86_SS].sel, 0);
	assert_true(t->s->seg[X86_SS].attr & X86_ATTR_UNUSABLE);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK0 - 32);
	assert_int_equal(sys_word(t, 0, 8), TINY_CODE + 2);
	assert_int_equal(sys_word(t, 1, 8), TINY_CS64_3 | 3);
	assert_int_equal(sys_word(t, 2, 8), TINY_STACK);
	assert_int_equal(sys_word(t, 3, 8), TINY_DS_3 | 3);
	assert_int_equal(sys_asm(t, "\x48\xcb"), SYS_DONE); /* retfq */
	assert_int_equal(cpu_cpl(t->cpu), 3);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK);
	/* Its target must be 64-bit code, and its upper type field 0. */
	sys_mode(t, TINY_LONG, 3);
	sys_put_desc(t, gate, sys_gate(TINY_CS32, 0x110000, 0xec, 0));
	sys_put_desc(t, gate + 8, 0);
	t->s->gpr[X86_RAX] = TINY_DATA;
	assert_int_equal(sys_asm(t, "\xff\x18"), SYS_FAULT(13, TINY_CS32));
	sys_mode(t, TINY_LONG, 3);
	sys_put_desc(t, gate, sys_gate(TINY_CS64, 0x110000, 0xec, 0));
	sys_put_desc(t, gate + 8, 1ull << 40);
	t->s->gpr[X86_RAX] = TINY_DATA;
	assert_int_equal(sys_asm(t, "\xff\x18"), SYS_FAULT(13, gate));
}

/* Between 64-bit and compatibility code. */
static void test_jmp_compat(void **state)
{
	sys_mode(t, TINY_LONG, 0);
	t->s->gpr[X86_RAX] = TINY_DATA;
	sys_put(t, TINY_DATA, 0x110000, 4);
	sys_put(t, TINY_DATA + 4, TINY_CS32, 2);
	assert_int_equal(sys_asm(t, "\xff\x28"), SYS_DONE); /* jmp far [rax] */
	assert_int_equal(t->s->rip, 0x110000);
	assert_int_equal(jmp_far(TINY_CS64), SYS_DONE);
	assert_int_equal(t->s->seg[X86_CS].sel, TINY_CS64);
	/* L and D together cannot be loaded. */
	sys_mode(t, TINY_COMPAT32, 0);
	sys_put_desc(t, SYS_FREE_SEL, sys_desc(0, 0xfffff, 0x9a, 0xe));
	assert_int_equal(jmp_far(SYS_FREE_SEL), SYS_FAULT(13, SYS_FREE_SEL));
}

static void push_frame(const uint64_t *v, unsigned n, unsigned size)
{
	t->s->gpr[X86_RSP] = TINY_STACK - n * size;
	for (unsigned k = 0; k < n; k++)
		sys_put(t, TINY_STACK - (n - k) * size, v[k], size);
}

static void test_iret_outer(void **state)
{
	uint64_t frame[] = {0x110000, TINY_CS32_3 | 3, 0x3202, 0x70000, TINY_DS_3 | 3};

	sys_mode(t, TINY_PROT32, 0);
	push_frame(frame, 5, 4);
	assert_int_equal(sys_asm(t, "\xcf"), SYS_DONE);
	assert_int_equal(cpu_cpl(t->cpu), 3);
	assert_int_equal(t->s->rip, 0x110000);
	assert_int_equal(t->s->gpr[X86_RSP], 0x70000);
	assert_int_equal(t->s->rflags, 0x3202);
	assert_int_equal(t->s->seg[X86_DS].sel, 0);
	/* Level 3 with IOPL 0 may change neither IF nor IOPL. */
	sys_mode(t, TINY_PROT32, 3);
	frame[2] = 0x3ad7;
	push_frame(frame, 3, 4);
	assert_int_equal(sys_asm(t, "\xcf"), SYS_DONE);
	assert_int_equal(t->s->rflags, 0x08d7);
}

static void test_iret_faults(void **state)
{
	static const struct {
		uint64_t frame[5];
		int fault;
	} rows[] = {
		{{0x110000, 0, 2, 0x70000, TINY_DS_3 | 3}, SYS_FAULT(13, 0)},
		{{0x110000, TINY_DS, 2, 0, 0}, SYS_FAULT(13, TINY_DS)},
		{{0x110000, TINY_CS32 | 3, 2, 0x70000, TINY_DS_3 | 3}, SYS_FAULT(13, TINY_CS32)},
		{{0x110000, TINY_CS32_3 | 3, 2, 0x70000, 0}, SYS_FAULT(13, 0)},
		{{0x110000, TINY_CS32_3 | 3, 2, 0x70000, TINY_DS | 3}, SYS_FAULT(13, TINY_DS)},
		{{0x110000, TINY_CS32_3 | 3, 2, 0x70000, TINY_DS_3}, SYS_FAULT(13, TINY_DS_3)},
		{{0x110000, 0x1230, 2, 0, 0}, SYS_FAULT(13, 0x1230)},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		sys_mode(t, TINY_PROT32, 0);
		push_frame(rows[n].frame, 5, 4);
		assert_int_equal(sys_asm(t, "\xcf"), rows[n].fault);
		assert_int_equal(sys_word(t, 1, 4), TINY_CODE);
	}
}

static void test_iretq(void **state)
{
	uint64_t frame[] = {0x110000, TINY_CS64, 0x202, 0x70008, 0};

	/* Same level: the stack is popped too, and may be null. */
	sys_mode(t, TINY_LONG, 0);
	t->s->nmi_blocked = true;
	push_frame(frame, 5, 8);
	assert_int_equal(sys_asm(t, "\x48\xcf"), SYS_DONE);
	assert_int_equal(t->s->gpr[X86_RSP], 0x70008);
	assert_int_equal(t->s->rflags, 0x202);
	assert_true(t->s->seg[X86_SS].attr & X86_ATTR_UNUSABLE);
	assert_int_equal(cpu_cpl(t->cpu), 0);
	assert_false(t->s->nmi_blocked);
	/* To compatibility mode at level 3. */
	sys_mode(t, TINY_LONG, 0);
	frame[1] = TINY_CS32_3 | 3;
	frame[4] = TINY_DS_3 | 3;
	push_frame(frame, 5, 8);
	assert_int_equal(sys_asm(t, "\x48\xcf"), SYS_DONE);
	assert_int_equal(cpu_cpl(t->cpu), 3);
	assert_false(t->s->seg[X86_CS].attr & X86_ATTR_L);
	/* A null stack at level 3, a RIP that is not canonical, NT. */
	sys_mode(t, TINY_LONG, 0);
	frame[1] = TINY_CS64_3 | 3;
	frame[4] = 3;
	push_frame(frame, 5, 8);
	assert_int_equal(sys_asm(t, "\x48\xcf"), SYS_FAULT(13, 0));
	sys_mode(t, TINY_LONG, 0);
	frame[0] = 0x800000000000;
	frame[4] = TINY_DS_3 | 3;
	push_frame(frame, 5, 8);
	assert_int_equal(sys_asm(t, "\x48\xcf"), SYS_FAULT(13, 0));
	assert_int_equal(sys_word(t, 1, 8), TINY_CODE);
	sys_mode(t, TINY_LONG, 0);
	frame[0] = 0x110000;
	push_frame(frame, 5, 8);
	t->s->rflags |= X86_FLAG_NT;
	assert_int_equal(sys_asm(t, "\x48\xcf"), SYS_FAULT(13, 0));
}

static void test_vm86(void **state)
{
	uint64_t frame[] = {0x100, 0x1100, 0x23202, 0x2000, 0x1200, 0x1300, 0x1400, 0x1500, 0x1600};
	static const uint8_t popped[] = {X86_SS, X86_ES, X86_DS, X86_FS, X86_GS};

	sys_mode(t, TINY_PROT32, 0);
	push_frame(frame, 9, 4);
	assert_int_equal(sys_asm(t, "\xcf"), SYS_DONE);
	assert_true(t->s->rflags & X86_FLAG_VM);
	assert_int_equal(cpu_cpl(t->cpu), 3);
	assert_int_equal(t->s->rip, 0x100);
	assert_int_equal(t->s->seg[X86_CS].base, 0x11000);
	for (unsigned n = 0; n < 5; n++) {
		assert_int_equal(t->s->seg[popped[n]].sel, frame[4 + n]);
		assert_int_equal(t->s->seg[popped[n]].base, frame[4 + n] << 4);
		assert_int_equal(t->s->seg[popped[n]].attr, 0xf3);
		assert_int_equal(t->s->seg[popped[n]].limit, 0xffff);
	}
	/* #UD: out through the gate, everything on level 0's stack. */
	assert_int_equal(sys_asm(t, "\x0f\x0b"), SYS_FAULT(6, 0));
	assert_false(t->s->rflags & X86_FLAG_VM);
	assert_int_equal(t->s->gpr[X86_RSP], TINY_STACK0 - 36);
	assert_int_equal(sys_word(t, 0, 4), 0x100);
	assert_int_equal(sys_word(t, 1, 4), 0x1100);
	assert_int_equal(sys_word(t, 2, 4), 0x33202); /* with RF */
	for (unsigned n = 3; n < 9; n++)
		assert_int_equal(sys_word(t, n, 4), frame[n]);
	assert_int_equal(t->s->seg[X86_DS].sel, 0);
	assert_int_equal(t->s->seg[X86_GS].sel, 0);
}

static void test_real(void **state)
{
	sys_mode(t, TINY_REAL, 0);
	/* call 0900:0010 */
	assert_int_equal(sys_asm(t, "\x9a\x10\x00\x00\x09"), SYS_DONE);
	assert_int_equal(t->s->seg[X86_CS].base, 0x9000);
	assert_int_equal(t->s->rip, 0x10);
	assert_int_equal(sys_word(t, 0, 2), 0x8005);
	assert_int_equal(sys_word(t, 1, 2), 0);
	assert_int_equal(sys_asm(t, "\xcb"), SYS_DONE);
	assert_int_equal(t->s->rip, 0x8005);
	assert_int_equal(t->s->gpr[X86_RSP], 0x7000);
	/* INT 21h, IRET */
	t->s->rflags |= X86_FLAG_IF;
	sys_put(t, 0x21 * 4, 0x6210, 4);
	assert_int_equal(sys_asm(t, "\xcd\x21"), SYS_DONE);
	assert_int_equal(t->s->rip, 0x6210);
	assert_false(t->s->rflags & X86_FLAG_IF);
	assert_int_equal(sys_word(t, 0, 2), 0x8007);
	assert_int_equal(sys_word(t, 2, 2), 0x202);
	assert_int_equal(sys_asm(t, "\xcf"), SYS_DONE);
	assert_int_equal(t->s->rip, 0x8007);
	assert_true(t->s->rflags & X86_FLAG_IF);
	/* Segment loads keep the limit: big real mode. */
	t->s->seg[X86_DS].limit = 0xffffffff;
	t->s->gpr[X86_RAX] = 0x1234;
	assert_int_equal(sys_asm(t, "\x8e\xd8"), SYS_DONE); /* mov ds,ax */
	assert_int_equal(t->s->seg[X86_DS].base, 0x12340);
	assert_int_equal(t->s->seg[X86_DS].limit, 0xffffffff);
	/* 32-bit offset beyond the limit */
	assert_int_equal(sys_asm(t, "\x66\xea\x00\x00\x01\x00\x00\x00"), SYS_FAULT(13, 0));
}

static void test_syscall(void **state)
{
	sys_mode(t, TINY_LONG, 3);
	t->s->star = (uint64_t)0x1b << 48 | (uint64_t)0x08 << 32;
	t->s->lstar = 0x110000;
	t->s->fmask = X86_FLAG_IF | X86_FLAG_DF;
	t->s->rflags = 0x602 | X86_FLAG_CF;
	assert_int_equal(sys_asm(t, "\x0f\x05"), SYS_DONE);
	assert_int_equal(t->s->rip, 0x110000);
	assert_int_equal(t->s->gpr[X86_RCX], TINY_CODE + 2);
	assert_int_equal(t->s->gpr[X86_R11], 0x603);
	assert_int_equal(t->s->rflags, 0x003);
	assert_int_equal(cpu_cpl(t->cpu), 0);
	assert_int_equal(t->s->seg[X86_CS].sel, 8);
	assert_int_equal(t->s->seg[X86_CS].attr, 0xa09b);
	assert_int_equal(t->s->seg[X86_SS].sel, 0x10);
	assert_int_equal(t->s->seg[X86_SS].attr, 0xc093);
	assert_int_equal(sys_asm(t, "\x48\x0f\x07"), SYS_DONE); /* sysretq */
	assert_int_equal(t->s->rip, TINY_CODE + 2);
	assert_int_equal(t->s->rflags, 0x603);
	assert_int_equal(t->s->seg[X86_CS].sel, 0x2b);
	assert_int_equal(t->s->seg[X86_CS].attr, 0xa0fb);
	assert_int_equal(t->s->seg[X86_SS].sel, 0x23);
	assert_int_equal(t->s->seg[X86_SS].attr, 0xc0f3);
	assert_int_equal(cpu_cpl(t->cpu), 3);
	/* Level 0 only; RCX canonical; SCE. */
	assert_int_equal(sys_asm(t, "\x48\x0f\x07"), SYS_FAULT(13, 0));
	sys_mode(t, TINY_LONG, 0);
	t->s->gpr[X86_RCX] = 0x800000000000;
	assert_int_equal(sys_asm(t, "\x48\x0f\x07"), SYS_FAULT(13, 0));
	sys_mode(t, TINY_LONG, 3);
	t->s->efer &= ~X86_EFER_SCE;
	assert_int_equal(sys_asm(t, "\x0f\x05"), SYS_FAULT(6, 0));
	sys_mode(t, TINY_COMPAT32, 3);
	assert_int_equal(sys_asm(t, "\x0f\x05"), SYS_FAULT(6, 0));
}

static void test_sysenter(void **state)
{
	sys_mode(t, TINY_PROT32, 3);
	t->s->sysenter_cs = TINY_CS32;
	t->s->sysenter_eip = 0x110000;
	t->s->sysenter_esp = 0x70000;
	t->s->rflags |= X86_FLAG_IF;
	assert_int_equal(sys_asm(t, "\x0f\x34"), SYS_DONE);
	assert_int_equal(cpu_cpl(t->cpu), 0);
	assert_int_equal(t->s->rip, 0x110000);
	assert_int_equal(t->s->gpr[X86_RSP], 0x70000);
	assert_int_equal(t->s->rflags, 2);
	assert_int_equal(t->s->seg[X86_SS].sel, TINY_CS32 + 8);
	t->s->gpr[X86_RCX] = 0x60000;
	t->s->gpr[X86_RDX] = 0x111000;
	assert_int_equal(sys_asm(t, "\x0f\x35"), SYS_DONE);
	assert_int_equal(cpu_cpl(t->cpu), 3);
	assert_int_equal(t->s->rip, 0x111000);
	assert_int_equal(t->s->gpr[X86_RSP], 0x60000);
	assert_int_equal(t->s->seg[X86_CS].sel, TINY_CS32 + 16 + 3);
	sys_mode(t, TINY_PROT32, 3);
	assert_int_equal(sys_asm(t, "\x0f\x34"), SYS_FAULT(13, 0)); /* no SYSENTER_CS */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_jmp_checks),
		cmocka_unit_test(test_jmp_null_and_limits),
		cmocka_unit_test(test_call_and_ret_same),
		cmocka_unit_test(test_call_gate),
		cmocka_unit_test(test_call_gate_faults),
		cmocka_unit_test(test_call_gate_stack),
		cmocka_unit_test(test_long_call_gate),
		cmocka_unit_test(test_jmp_compat),
		cmocka_unit_test(test_iret_outer),
		cmocka_unit_test(test_iret_faults),
		cmocka_unit_test(test_iretq),
		cmocka_unit_test(test_vm86),
		cmocka_unit_test(test_real),
		cmocka_unit_test(test_syscall),
		cmocka_unit_test(test_sysenter),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
