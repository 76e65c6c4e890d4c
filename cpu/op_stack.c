/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stack: PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE. */
#include "cpu/op_int.h"

/* ---- by the rules -------------------------------------------------------------------------------
 */

uint64_t op_stack_lin(struct cpu *c, const struct cpu_insn *i, uint64_t sp, unsigned size,
		      bool write)
{
	if (op_long(c)) {
		if (unlikely(!cpu_lin_canonical(c, sp) || !cpu_lin_canonical(c, sp + size - 1)))
			cpu_fault_err(c, i, X86_VEC_SS, 0);
	} else {
		sp &= op_mask(cpu_stack_size(c));
	}
	return op_seg_lin(c, i, X86_SS, sp, size, write);
}

void op_push(struct cpu *c, const struct cpu_insn *i, uint64_t v, unsigned size)
{
	uint64_t sp = c->s.gpr[X86_RSP] - size;

	cpu_st(c, i, op_stack_lin(c, i, sp, size, true), v, size);
	cpu_set_sp(c, sp);
}

uint64_t op_peek(struct cpu *c, const struct cpu_insn *i, unsigned offset, unsigned size)
{
	return cpu_ld(c, i, op_stack_lin(c, i, c->s.gpr[X86_RSP] + offset, size, false), size);
}

void op_drop(struct cpu *c, unsigned bytes)
{
	cpu_set_sp(c, c->s.gpr[X86_RSP] + bytes);
}

/* ---- PUSH, POP
 * ------------------------------------------------------------------------------------ */

static void push_r(struct cpu *c, const struct cpu_insn *i)
{
	op_push(c, i, op_get(c, i->r1, i->size), i->size);
	CPU_NEXT(c, i);
}

static void push_i(struct cpu *c, const struct cpu_insn *i)
{
	op_push(c, i, i->imm, i->size);
	CPU_NEXT(c, i);
}

static void push_m(struct cpu *c, const struct cpu_insn *i)
{
	op_push(c, i, cpu_ld(c, i, cpu_lin(c, i), i->size), i->size);
	CPU_NEXT(c, i);
}

/*
 * A 32-bit push of a segment register writes only 16 bits: what lies above on the stack stays, as
 * on silicon since the Pentium 4 (SDM 2B, PUSH). A 64-bit one writes zeros.
 */
static void push_seg(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t sp = c->s.gpr[X86_RSP] - i->size;
	uint16_t sel = c->s.seg[i->r1].sel;
	unsigned size = i->size == 4 ? 2 : i->size;

	cpu_st(c, i, op_stack_lin(c, i, sp, size, true), sel, size);
	cpu_set_sp(c, sp);
	CPU_NEXT(c, i);
}

static void push_r64(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely(!op_push64(c, CPU_REG64(c, i->r1)))) {
		push_r(c, i);
		return;
	}
	CPU_NEXT(c, i);
}

static void push_i64(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely(!op_push64(c, i->imm))) {
		push_i(c, i);
		return;
	}
	CPU_NEXT(c, i);
}

static bool pick_push(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	bool quick = i->size == 8 && op_plain64(d);

	if (op_locked(i))
		return false;
	if (op_is_imm(d, 0))
		i->fn = quick ? push_i64 : push_i;
	else if (op_is_mem(d, 0))
		i->fn = push_m;
	else if (op_is_gpr(d, 0))
		i->fn = quick ? push_r64 : push_r;
	else
		i->fn = push_seg;
	return true;
}

static void pop_r(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t v = op_peek(c, i, 0, i->size);

	op_drop(c, i->size);
	op_put(c, i->r1, v, i->size); /* last: POP RSP gets what was popped */
	CPU_NEXT(c, i);
}

static void pop_r64(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t sp = c->s.gpr[X86_RSP];
	const void *p = op_try(c, sp, 8, false);
	uint64_t v;

	if (unlikely(!p)) {
		pop_r(c, i);
		return;
	}
	v = cpu_raw_ld64(p);
	c->s.gpr[X86_RSP] = sp + 8;
	CPU_REG64(c, i->r1) = v;
	CPU_NEXT(c, i);
}

/*
 * The picker has moved disp so that an address by RSP counts from after the pop. The operand has no
 * prelude: what is wrong with it comes to light after what is wrong with the stack.
 */
static void pop_m(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t v = op_peek(c, i, 0, i->size);

	cpu_st(c, i, op_seg_lin(c, i, i->seg, cpu_ea(c, i), i->size, true), v, i->size);
	op_drop(c, i->size);
	CPU_NEXT(c, i);
}

static bool pick_pop(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (op_locked(i))
		return false;
	if (op_is_mem(d, 0)) {
		if (i->base == X86_RSP)
			i->disp += i->size;
		i->fn = pop_m;
		d->bare = true;
		return true;
	}
	i->fn = i->size == 8 && op_plain64(d) ? pop_r64 : pop_r;
	return op_is_gpr(d, 0);
}

/* ---- PUSHA, POPA
 * ---------------------------------------------------------------------------------- */

/* As on silicon, what was pushed before a fault stays in memory; ESP does not move. */
static void pusha(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t sp = c->s.gpr[X86_RSP];

	for (unsigned k = 0; k < 8; k++)
		cpu_st(c, i, op_stack_lin(c, i, sp - (k + 1) * i->size, i->size, true),
		       op_get(c, (uint8_t)(k * 8), i->size), i->size);
	cpu_set_sp(c, sp - 8u * i->size);
	CPU_NEXT(c, i);
}

/* A fault half-way leaves the registers that were popped before it, but not RSP: as silicon does.
 */
static void popa(struct cpu *c, const struct cpu_insn *i)
{
	for (unsigned k = 0; k < 8; k++) {
		uint64_t v = op_peek(c, i, k * i->size, i->size);

		if (7 - k != X86_RSP)
			op_put(c, (uint8_t)((7 - k) * 8), v, i->size);
	}
	op_drop(c, 8u * i->size);
	CPU_NEXT(c, i);
}

/* ---- PUSHF, POPF
 * ---------------------------------------------------------------------------------- */

static bool vm86(const struct cpu *c)
{
	return c->s.rflags & X86_FLAG_VM;
}

static unsigned iopl(const struct cpu *c)
{
	return (c->s.rflags & X86_FLAG_IOPL) >> 12;
}

/* rflags as a program sees it: without RF and VM. */
static uint64_t seen_flags(const struct cpu *c)
{
	return (c->s.rflags & ~(X86_FLAGS_ARITH | X86_FLAG_RF | X86_FLAG_VM)) | cpu_flags_arith(c) |
	       X86_FLAG_ONE;
}

static void pushf_any(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t v = seen_flags(c);

	if (unlikely(vm86(c)) && iopl(c) < 3) {
		if (!(c->s.cr4 & X86_CR4_VME) || i->size != 2)
			cpu_fault_err(c, i, X86_VEC_GP, 0);
		/* VME: IF is VIF, and IOPL looks as 3 (SDM 3B 21.3). */
		v = (v & ~X86_FLAG_IF) | X86_FLAG_IOPL | (v & X86_FLAG_VIF ? X86_FLAG_IF : 0);
	}
	op_push(c, i, v, i->size);
	CPU_NEXT(c, i);
}

static void pushf64(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely(!op_push64(c, seen_flags(c)))) {
		pushf_any(c, i);
		return;
	}
	CPU_NEXT(c, i);
}

static bool pick_pushf(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->fn = i->size == 8 && op_plain64(d) ? pushf64 : pushf_any;
	return !op_locked(i);
}

/* Which flags POPF may change here, VME apart (SDM 2B, POPF). */
static uint64_t popf_mask(const struct cpu *c, unsigned size)
{
	uint64_t mask = X86_FLAGS_ARITH | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT;
	unsigned cpl = (c->s.seg[X86_SS].attr & X86_ATTR_DPL) >> X86_ATTR_DPL_SHIFT;

	if (size > 2)
		mask |= X86_FLAG_AC | X86_FLAG_ID;
	if (cpl == 0)
		mask |= X86_FLAG_IOPL;
	if (cpl <= iopl(c))
		mask |= X86_FLAG_IF;
	return mask;
}

/* The rare half: flags other than the arithmetic ones change, or an odd mode. */
static void popf_any(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t v = op_peek(c, i, 0, i->size), mask = popf_mask(c, i->size), rflags;

	if (unlikely(vm86(c)) && iopl(c) < 3) {
		if (!(c->s.cr4 & X86_CR4_VME) || i->size != 2 || (v & X86_FLAG_TF) ||
		    ((v & X86_FLAG_IF) && (c->s.rflags & X86_FLAG_VIP)))
			cpu_fault_err(c, i, X86_VEC_GP, 0);
		v = (v & ~X86_FLAG_VIF) | (v & X86_FLAG_IF ? X86_FLAG_VIF : 0);
		mask |= X86_FLAG_VIF;
	}
	cpu_begin(c, i);
	rflags = c->s.rflags;
	c->s.rflags = (rflags & ~(mask | X86_FLAG_RF)) | (v & mask);
	op_drop(c, i->size);
	if ((rflags ^ c->s.rflags) & (X86_FLAG_IF | X86_FLAG_TF))
		cpu_recheck(c);
	cpu_retire(c, i, false);
}

static void popf64(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t sp = c->s.gpr[X86_RSP], v;
	const void *p = op_try(c, sp, 8, false);

	if (unlikely(!p)) {
		popf_any(c, i);
		return;
	}
	v = cpu_raw_ld64(p);
	if (unlikely((c->s.rflags ^ v) & popf_mask(c, 8) & ~X86_FLAGS_ARITH)) {
		popf_any(c, i);
		return;
	}
	c->s.gpr[X86_RSP] = sp + 8;
	cpu_flags_set_arith(c, v);
	CPU_GOTO(c, 0, cpu_next_rip(c, i));
}

static bool pick_popf(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->flags |= CPU_INSN_END;
	i->fn = i->size == 8 && op_plain64(d) ? popf64 : popf_any;
	return !op_locked(i);
}

/* ---- ENTER, LEAVE
 * --------------------------------------------------------------------------------- */

/*
 * imm: the frame's size; arg: the nesting level. In the order of SDM 2A, ENTER: on a fault half-way
 * what was stored stays, as on silicon, but RSP and RBP are as before.
 */
static void enter(struct cpu *c, const struct cpu_insn *i)
{
	unsigned size = i->size, level = i->arg & 31;
	uint64_t mask = op_mask(cpu_stack_size(c));
	uint64_t rsp = c->s.gpr[X86_RSP], frame = (rsp & ~mask) | ((rsp - size) & mask), sp = frame;
	uint64_t bp = c->s.gpr[X86_RBP];
	unsigned access = CPU_ACCESS_WRITE | (cpu_cpl(c) == 3 ? CPU_ACCESS_USER : 0);

	cpu_st(c, i, op_stack_lin(c, i, frame, size, true), bp, size);
	for (unsigned k = 1; k < level; k++) {
		uint64_t v =
			cpu_ld(c, i, op_stack_lin(c, i, (bp - k * size) & mask, size, false), size);

		sp -= size;
		cpu_st(c, i, op_stack_lin(c, i, sp, size, true), v, size);
	}
	if (level) {
		sp -= size;
		cpu_st(c, i, op_stack_lin(c, i, sp, size, true), frame, size);
	}
	sp = (sp - i->imm) & mask;
	/* The final top of the stack must be writable. */
	cpu_probe(c, i, op_stack_lin(c, i, sp, size, true), size, access);
	op_put(c, X86_RBP * 8, frame, size); /* a 16-bit stack leaves ESP's top half in EBP */
	cpu_set_sp(c, sp);
	CPU_NEXT(c, i);
}

static bool pick_enter(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->imm = (uint16_t)d->op[0].imm.value.u;
	i->arg = (uint16_t)d->op[1].imm.value.u;
	i->fn = enter;
	return !op_locked(i);
}

static void leave_any(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t bp = c->s.gpr[X86_RBP];
	uint64_t v = cpu_ld(c, i, op_stack_lin(c, i, bp, i->size, false), i->size);

	cpu_set_sp(c, bp + i->size);
	op_put(c, X86_RBP * 8, v, i->size);
	CPU_NEXT(c, i);
}

static void leave64(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t bp = c->s.gpr[X86_RBP];
	const void *p = op_try(c, bp, 8, false);

	if (unlikely(!p)) {
		leave_any(c, i);
		return;
	}
	c->s.gpr[X86_RBP] = cpu_raw_ld64(p);
	c->s.gpr[X86_RSP] = bp + 8;
	CPU_NEXT(c, i);
}

static bool pick_leave(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->fn = i->size == 8 && op_plain64(d) ? leave64 : leave_any;
	return !op_locked(i);
}

/* PUSHA and POPA. */
static bool pick_all(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->fn = arg ? popa : pusha;
	return !op_locked(i);
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_PUSH, 0, pick_push},	{ZYDIS_MNEMONIC_POP, 0, pick_pop},
	{ZYDIS_MNEMONIC_PUSHA, 0, pick_all},	{ZYDIS_MNEMONIC_PUSHAD, 0, pick_all},
	{ZYDIS_MNEMONIC_POPA, 1, pick_all},	{ZYDIS_MNEMONIC_POPAD, 1, pick_all},
	{ZYDIS_MNEMONIC_PUSHF, 0, pick_pushf},	{ZYDIS_MNEMONIC_PUSHFD, 0, pick_pushf},
	{ZYDIS_MNEMONIC_PUSHFQ, 0, pick_pushf}, {ZYDIS_MNEMONIC_POPF, 0, pick_popf},
	{ZYDIS_MNEMONIC_POPFD, 0, pick_popf},	{ZYDIS_MNEMONIC_POPFQ, 0, pick_popf},
	{ZYDIS_MNEMONIC_ENTER, 0, pick_enter},	{ZYDIS_MNEMONIC_LEAVE, 0, pick_leave},
};
const struct cpu_op_table cpu_ops_stack = {ops, ARRAY_SIZE(ops)};
