/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Near branches: Jcc JMP CALL RET JCXZ LOOP; INT n and its kin; BOUND. */
#include "cpu/op_int.h"

/* ---- targets ------------------------------------------------------------------------------------
 */

/* The checks of a near branch's target: canonical, or inside CS. Returns it cut to the operand
 * size. */
static uint64_t check_target(struct cpu *c, const struct cpu_insn *i, uint64_t target)
{
	if (op_long(c)) {
		if (!cpu_lin_canonical(c, target))
			cpu_fault_err(c, i, X86_VEC_GP, 0);
		return target;
	}
	target = i->size == 2 ? (uint16_t)target : (uint32_t)target;
	if (target > c->s.seg[X86_CS].limit)
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	return target;
}

/* True for what is canonical with 48 bits, and so with 57. */
OP_INLINE bool surely_canonical(uint64_t target)
{
	return (uint64_t)(((int64_t)target >> 47) + 1) <= 1;
}

/* The next instruction's rip; outside 64-bit mode it wraps. */
static inline uint64_t next_rip(const struct cpu *c, const struct cpu_insn *i)
{
	uint64_t rip = cpu_next_rip(c, i);

	return op_long(c) ? rip : (uint32_t)rip;
}

/*
 * Ways to go on: chain64, chain32 when target and code share a page and nothing can be wrong with
 * it; far64 in 64-bit mode elsewhere; other in any mode.
 */
struct branch {
	cpu_op_fn chain64, chain32, far64, other;
};

static cpu_op_fn pick_branch(const struct cpu_dec *d, const struct branch *b)
{
	if ((d->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		return d->chain ? b->chain64 : b->far64;
	return d->chain && (d->mode & CPU_MODE_CODE) == CPU_MODE_CODE32 ? b->chain32 : b->other;
}

__attribute__((noinline)) static void go_other(struct cpu *c, const struct cpu_insn *i)
{
	CPU_JUMP(c, check_target(c, i, c->bip + i->imm));
}

/* A branch that is not taken, where nothing about rip is known. */
__attribute__((noinline)) static void fall_other(struct cpu *c, const struct cpu_insn *i)
{
	CPU_JUMP(c, next_rip(c, i));
}

__attribute__((noinline)) static void go_far64(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t target = c->bip + i->imm;

	if (unlikely(!surely_canonical(target))) {
		go_other(c, i);
		return;
	}
	CPU_JUMP(c, target);
}

/* ---- Jcc
 * ------------------------------------------------------------------------------------------ */

/* Names: jcc_chain64_OP_CC_O, jcc_chain32_.., jcc_far64_.., jcc_other_.. for the sixteen
 * conditions. */
#define DEFINE_JCC(cc)                                                                             \
	static void jcc_chain64_##cc(struct cpu *c, const struct cpu_insn *i)                      \
	{                                                                                          \
		if (op_cond(c, cc))                                                                \
			CPU_GOTO(c, 1, c->bip + i->imm);                                           \
		CPU_GOTO(c, 0, cpu_next_rip(c, i));                                                \
	}                                                                                          \
	static void jcc_chain32_##cc(struct cpu *c, const struct cpu_insn *i)                      \
	{                                                                                          \
		if (op_cond(c, cc))                                                                \
			CPU_GOTO(c, 1, c->bip + i->imm);                                           \
		CPU_GOTO(c, 0, (uint32_t)cpu_next_rip(c, i));                                      \
	}                                                                                          \
	static void jcc_far64_##cc(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		if (op_cond(c, cc)) {                                                              \
			go_far64(c, i);                                                            \
			return;                                                                    \
		}                                                                                  \
		CPU_GOTO(c, 0, cpu_next_rip(c, i));                                                \
	}                                                                                          \
	static void jcc_other_##cc(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		if (op_cond(c, cc))                                                                \
			go_other(c, i);                                                            \
		else                                                                               \
			fall_other(c, i);                                                          \
	}
DEFINE_JCC(OP_CC_O)
DEFINE_JCC(OP_CC_NO)
DEFINE_JCC(OP_CC_B)
DEFINE_JCC(OP_CC_NB)
DEFINE_JCC(OP_CC_Z)
DEFINE_JCC(OP_CC_NZ)
DEFINE_JCC(OP_CC_BE)
DEFINE_JCC(OP_CC_NBE)
DEFINE_JCC(OP_CC_S)
DEFINE_JCC(OP_CC_NS)
DEFINE_JCC(OP_CC_P)
DEFINE_JCC(OP_CC_NP)
DEFINE_JCC(OP_CC_L)
DEFINE_JCC(OP_CC_NL)
DEFINE_JCC(OP_CC_LE)
DEFINE_JCC(OP_CC_NLE)

static const struct branch jcc[16] = {
#define JCC(cc) [cc] = {jcc_chain64_##cc, jcc_chain32_##cc, jcc_far64_##cc, jcc_other_##cc}
	JCC(OP_CC_O),  JCC(OP_CC_NO),  JCC(OP_CC_B),  JCC(OP_CC_NB),  JCC(OP_CC_Z), JCC(OP_CC_NZ),
	JCC(OP_CC_BE), JCC(OP_CC_NBE), JCC(OP_CC_S),  JCC(OP_CC_NS),  JCC(OP_CC_P), JCC(OP_CC_NP),
	JCC(OP_CC_L),  JCC(OP_CC_NL),  JCC(OP_CC_LE), JCC(OP_CC_NLE),
};

static bool pick_jcc(struct cpu_dec *d, struct cpu_insn *i, uint16_t cc)
{
	i->flags |= CPU_INSN_END;
	i->fn = pick_branch(d, &jcc[cc]);
	return !op_locked(i);
}

/* ---- LOOP, JCXZ ---------------------------------------------------------------------------------
 */

enum { LOOP, LOOPE, LOOPNE, JCXZ };

static void loop(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t count = op_get(c, X86_RCX * 8, i->asize);
	bool taken = count == 0;

	if (i->arg != JCXZ) {
		taken = count != 1;
		if (i->arg == LOOPE)
			taken = taken && (c->fl & CPU_FL_ZF);
		else if (i->arg == LOOPNE)
			taken = taken && !(c->fl & CPU_FL_ZF);
		/* A target outside CS faults with the count as it was. */
		if (taken)
			check_target(c, i, c->bip + i->imm);
		op_put(c, X86_RCX * 8, count - 1, i->asize);
	}
	if (taken)
		go_other(c, i);
	else
		fall_other(c, i);
}

static bool pick_loop(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->flags |= CPU_INSN_END;
	i->arg = arg;
	i->fn = loop;
	return !op_locked(i);
}

/* ---- JMP ----------------------------------------------------------------------------------------
 */

static void jmp_chain(struct cpu *c, const struct cpu_insn *i)
{
	CPU_GOTO(c, 1, c->bip + i->imm);
}

__attribute__((noinline)) static void jmp_to(struct cpu *c, const struct cpu_insn *i,
					     uint64_t target)
{
	CPU_JUMP(c, check_target(c, i, target));
}

static void jmp_r64(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t target = CPU_REG64(c, i->r1);

	if (unlikely(!surely_canonical(target))) {
		jmp_to(c, i, target);
		return;
	}
	CPU_JUMP(c, target);
}

static void jmp_indirect(struct cpu *c, const struct cpu_insn *i)
{
	jmp_to(c, i,
	       i->flags & CPU_INSN_MEM ? cpu_ld(c, i, cpu_lin(c, i), i->size)
				       : op_get(c, i->r1, i->size));
}

static void jmp_m64(struct cpu *c, const struct cpu_insn *i)
{
	const void *p = op_try(c, op_lin(c, i, OP_EA_ANY), 8, false);
	uint64_t target;

	if (unlikely(!p)) {
		jmp_indirect(c, i);
		return;
	}
	target = cpu_raw_ld64(p);
	if (unlikely(!surely_canonical(target))) {
		jmp_to(c, i, target);
		return;
	}
	CPU_JUMP(c, target);
}

static bool pick_jmp(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const struct branch jmp = {jmp_chain, jmp_chain, go_far64, go_other};

	if (d->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || op_locked(i))
		return false;
	i->flags |= CPU_INSN_END;
	if (op_is_imm(d, 0))
		i->fn = pick_branch(d, &jmp);
	else if (i->size == 8)
		i->fn = op_is_mem(d, 0) ? jmp_m64 : jmp_r64;
	else
		i->fn = jmp_indirect;
	return true;
}

/* ---- CALL ---------------------------------------------------------------------------------------
 */

/*
 * RSP moves only once both the store and the target are right. In 64-bit mode silicon stores first,
 * also when the target turns out not to be canonical; else the target comes first (SDM 2A, CALL).
 */
__attribute__((noinline)) static void call_to(struct cpu *c, const struct cpu_insn *i,
					      uint64_t target)
{
	uint64_t sp = c->s.gpr[X86_RSP] - i->size;

	/* As silicon does it: the return address is on the stack when the target is found bad. */
	cpu_st(c, i, op_stack_lin(c, i, sp, i->size, true), next_rip(c, i), i->size);
	target = check_target(c, i, target);
	cpu_set_sp(c, sp);
	CPU_JUMP(c, target);
}

static void call_other(struct cpu *c, const struct cpu_insn *i)
{
	call_to(c, i, c->bip + i->imm);
}

static void call_chain64(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely(!op_push64(c, cpu_next_rip(c, i)))) {
		call_other(c, i);
		return;
	}
	CPU_GOTO(c, 1, c->bip + i->imm);
}

static void call_far64(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t target = c->bip + i->imm;

	if (unlikely(!surely_canonical(target) || !op_push64(c, cpu_next_rip(c, i)))) {
		call_other(c, i);
		return;
	}
	CPU_JUMP(c, target);
}

static void call_r64(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t target = CPU_REG64(c, i->r1);

	if (unlikely(!surely_canonical(target) || !op_push64(c, cpu_next_rip(c, i)))) {
		call_to(c, i, target);
		return;
	}
	CPU_JUMP(c, target);
}

static void call_indirect(struct cpu *c, const struct cpu_insn *i)
{
	call_to(c, i,
		i->flags & CPU_INSN_MEM ? cpu_ld(c, i, cpu_lin(c, i), i->size)
					: op_get(c, i->r1, i->size));
}

static void call_m64(struct cpu *c, const struct cpu_insn *i)
{
	const void *p = op_try(c, op_lin(c, i, OP_EA_ANY), 8, false);
	uint64_t target;

	if (unlikely(!p)) {
		call_indirect(c, i);
		return;
	}
	target = cpu_raw_ld64(p);
	if (unlikely(!surely_canonical(target) || !op_push64(c, cpu_next_rip(c, i)))) {
		call_to(c, i, target);
		return;
	}
	CPU_JUMP(c, target);
}

static bool pick_call(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const struct branch call = {call_chain64, call_other, call_far64, call_other};

	if (d->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || op_locked(i))
		return false;
	i->flags |= CPU_INSN_END;
	if (op_is_imm(d, 0))
		i->fn = op_plain64(d) || i->size != 8 ? pick_branch(d, &call) : call_other;
	else if (i->size == 8 && op_plain64(d))
		i->fn = op_is_mem(d, 0) ? call_m64 : call_r64;
	else
		i->fn = call_indirect;
	return true;
}

/* ---- RET ----------------------------------------------------------------------------------------
 */

/* imm: how much more to drop. The target is checked before RSP moves. */
__attribute__((noinline)) static void ret_other(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t target = check_target(c, i, op_peek(c, i, 0, i->size));

	op_drop(c, i->size + (unsigned)i->imm);
	CPU_JUMP(c, target);
}

static void ret64(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t sp = c->s.gpr[X86_RSP], target;
	const void *p = op_try(c, sp, 8, false);

	if (unlikely(!p)) {
		ret_other(c, i);
		return;
	}
	target = cpu_raw_ld64(p);
	if (unlikely(!surely_canonical(target))) {
		ret_other(c, i);
		return;
	}
	c->s.gpr[X86_RSP] = sp + 8;
	CPU_JUMP(c, target);
}

static bool pick_ret(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (d->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || op_locked(i))
		return false;
	i->flags |= CPU_INSN_END;
	i->imm = op_is_imm(d, 0) ? (uint16_t)d->op[0].imm.value.u : 0;
	i->fn = i->size == 8 && !i->imm && op_plain64(d) ? ret64 : ret_other;
	return true;
}

/* ---- INT n, INT3, INT1, INTO, BOUND
 * --------------------------------------------------------------- */

static void int_n(struct cpu *c, const struct cpu_insn *i)
{
	cpu_soft_event(c, i, CPU_EVENT_SOFT_INTR, (uint8_t)i->imm);
}

static void int3(struct cpu *c, const struct cpu_insn *i)
{
	cpu_soft_event(c, i, CPU_EVENT_SW_EXCEPTION, X86_VEC_BP);
}

static void int1(struct cpu *c, const struct cpu_insn *i)
{
	cpu_soft_event(c, i, CPU_EVENT_PRIV_SW_EXCEPTION, X86_VEC_DB);
}

static void into(struct cpu *c, const struct cpu_insn *i)
{
	if (c->fl & CPU_FL_OF)
		cpu_soft_event(c, i, CPU_EVENT_SW_EXCEPTION, X86_VEC_OF);
	CPU_NEXT(c, i);
}

static bool pick_int(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[] = {int_n, int3, int1, into};

	i->fn = fn[arg];
	if (i->fn != into)
		i->flags |= CPU_INSN_END;
	return !op_locked(i);
}

static int64_t load_signed(struct cpu *c, const struct cpu_insn *i, uint64_t lin)
{
	return i->size == 2 ? (int16_t)cpu_ld16(c, i, lin) : (int32_t)cpu_ld32(c, i, lin);
}

/* The upper bound is not looked at when the lower one is not met. */
static void bound(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t lin = cpu_lin(c, i);
	int64_t n = i->size == 2 ? (int16_t)CPU_REG16(c, i->r1) : (int32_t)CPU_REG32(c, i->r1);

	if (n < load_signed(c, i, lin))
		cpu_fault(c, i, X86_VEC_BR);
	/* The prelude checked the lower bound only. */
	if (n >
	    load_signed(c, i, cpu_seg_check(c, i, i->seg, cpu_ea(c, i) + i->size, i->size, false)))
		cpu_fault(c, i, X86_VEC_BR);
	CPU_NEXT(c, i);
}

static bool pick_bound(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->size = (uint8_t)op_bytes(d, 0);
	i->fn = bound;
	return op_is_mem(d, 1) && !op_locked(i);
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_JO, OP_CC_O, pick_jcc},	    {ZYDIS_MNEMONIC_JNO, OP_CC_NO, pick_jcc},
	{ZYDIS_MNEMONIC_JB, OP_CC_B, pick_jcc},	    {ZYDIS_MNEMONIC_JNB, OP_CC_NB, pick_jcc},
	{ZYDIS_MNEMONIC_JZ, OP_CC_Z, pick_jcc},	    {ZYDIS_MNEMONIC_JNZ, OP_CC_NZ, pick_jcc},
	{ZYDIS_MNEMONIC_JBE, OP_CC_BE, pick_jcc},   {ZYDIS_MNEMONIC_JNBE, OP_CC_NBE, pick_jcc},
	{ZYDIS_MNEMONIC_JS, OP_CC_S, pick_jcc},	    {ZYDIS_MNEMONIC_JNS, OP_CC_NS, pick_jcc},
	{ZYDIS_MNEMONIC_JP, OP_CC_P, pick_jcc},	    {ZYDIS_MNEMONIC_JNP, OP_CC_NP, pick_jcc},
	{ZYDIS_MNEMONIC_JL, OP_CC_L, pick_jcc},	    {ZYDIS_MNEMONIC_JNL, OP_CC_NL, pick_jcc},
	{ZYDIS_MNEMONIC_JLE, OP_CC_LE, pick_jcc},   {ZYDIS_MNEMONIC_JNLE, OP_CC_NLE, pick_jcc},
	{ZYDIS_MNEMONIC_LOOP, LOOP, pick_loop},	    {ZYDIS_MNEMONIC_LOOPE, LOOPE, pick_loop},
	{ZYDIS_MNEMONIC_LOOPNE, LOOPNE, pick_loop}, {ZYDIS_MNEMONIC_JCXZ, JCXZ, pick_loop},
	{ZYDIS_MNEMONIC_JECXZ, JCXZ, pick_loop},    {ZYDIS_MNEMONIC_JRCXZ, JCXZ, pick_loop},
	{ZYDIS_MNEMONIC_JMP, 0, pick_jmp},	    {ZYDIS_MNEMONIC_CALL, 0, pick_call},
	{ZYDIS_MNEMONIC_RET, 0, pick_ret},	    {ZYDIS_MNEMONIC_INT, 0, pick_int},
	{ZYDIS_MNEMONIC_INT3, 1, pick_int},	    {ZYDIS_MNEMONIC_INT1, 2, pick_int},
	{ZYDIS_MNEMONIC_INTO, 3, pick_int},	    {ZYDIS_MNEMONIC_BOUND, 0, pick_bound},
};
const struct cpu_op_table cpu_ops_control = {ops, ARRAY_SIZE(ops)};
