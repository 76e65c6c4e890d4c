/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shifts and rotates: ROL ROR RCL RCR SHL SHR SAR SHLD SHRD, and BMI2's RORX SARX SHLX SHRX. */
#include "cpu/op_int.h"

/*
 * The host masks the count, and leaves the flags alone when nothing is shifted, as the guest's
 * must. So all six flags go through it. Names: {rol,ror,rcl,rcr,shl,shr,sar}{8,16,32,64}, each with
 * _rc (by CL), _ri, _m (arg 1: by imm).
 */
#define DEFINE_SHIFT(name, insn, bits)                                                             \
	OP_INLINE uint##bits##_t name##bits(struct cpu *c, uint##bits##_t a, uint8_t count)        \
	{                                                                                          \
		uint16_t fl = c->fl;                                                               \
		__asm__(OP_ASM_IN insn " %%cl,%[a]" OP_ASM_OUT                                     \
			: [a] "+r"(a), "+a"(fl)                                                    \
			: "c"(count)                                                               \
			: "cc");                                                                   \
		c->fl = fl;                                                                        \
		return a;                                                                          \
	}                                                                                          \
	static void name##bits##_rc(struct cpu *c, const struct cpu_insn *i)                       \
	{                                                                                          \
		uint8_t count = CPU_REG8(c, X86_RCX * 8);                                          \
		op_put##bits(c, i->r1, name##bits(c, CPU_REG##bits(c, i->r1), count));             \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void name##bits##_ri(struct cpu *c, const struct cpu_insn *i)                       \
	{                                                                                          \
		op_put##bits(c, i->r1, name##bits(c, CPU_REG##bits(c, i->r1), (uint8_t)i->imm));   \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void name##bits##_m(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		void *p = cpu_mem_rw(c, i, cpu_lin(c, i), (bits) / 8);                             \
		uint8_t count = i->arg ? (uint8_t)i->imm : CPU_REG8(c, X86_RCX * 8);               \
		uint16_t fl = c->fl;                                                               \
		cpu_raw_st##bits(p, name##bits(c, cpu_raw_ld##bits(p), count));                    \
		op_mem_done(c, i, p, fl);                                                          \
		CPU_NEXT(c, i);                                                                    \
	}

#define SIZES(name)                                                                                \
	DEFINE_SHIFT(name, #name "b", 8)                                                           \
	DEFINE_SHIFT(name, #name "w", 16)                                                          \
	DEFINE_SHIFT(name, #name "l", 32)                                                          \
	DEFINE_SHIFT(name, #name "q", 64)
SIZES(rol)
SIZES(ror)
SIZES(rcl)
SIZES(rcr)
SIZES(shl)
SIZES(shr)
SIZES(sar)

/*
 * A shift by a constant that is not zero replaces every flag. Names: {shl,shr,sar}{32,64}_quick,
 * and _one for the count 1, which sets OF otherwise.
 */
#define DEFINE_QUICK(name, insn, bits)                                                             \
	static void name##bits##_quick(struct cpu *c, const struct cpu_insn *i)                    \
	{                                                                                          \
		uint##bits##_t a = CPU_REG##bits(c, i->r1);                                        \
		uint16_t fl;                                                                       \
		__asm__(insn " %%cl,%[a]" OP_ASM_OUT                                               \
			: [a] "+r"(a), "=a"(fl)                                                    \
			: "c"((uint8_t)i->imm)                                                     \
			: "cc");                                                                   \
		c->fl = fl;                                                                        \
		op_put##bits(c, i->r1, a);                                                         \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void name##bits##_one(struct cpu *c, const struct cpu_insn *i)                      \
	{                                                                                          \
		uint##bits##_t a = CPU_REG##bits(c, i->r1);                                        \
		uint16_t fl;                                                                       \
		__asm__(insn " %[a]" OP_ASM_OUT : [a] "+r"(a), "=a"(fl) : : "cc");                 \
		c->fl = fl;                                                                        \
		op_put##bits(c, i->r1, a);                                                         \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_QUICK(shl, "shll", 32)
DEFINE_QUICK(shl, "shlq", 64)
DEFINE_QUICK(shr, "shrl", 32)
DEFINE_QUICK(shr, "shrq", 64)
DEFINE_QUICK(sar, "sarl", 32)
DEFINE_QUICK(sar, "sarq", 64)

enum { SHIFT_ROL, SHIFT_ROR, SHIFT_RCL, SHIFT_RCR, SHIFT_SHL, SHIFT_SHR, SHIFT_SAR };
struct shift_forms {
	cpu_op_fn rc[4], ri[4], m[4];
	cpu_op_fn quick[2], one[2]; /* 32, 64 */
};
#define ALL_SIZES(name, form)                                                                      \
	{                                                                                          \
		name##8_##form, name##16_##form, name##32_##form, name##64_##form                  \
	}
#define ROW(name)   .rc = ALL_SIZES(name, rc), .ri = ALL_SIZES(name, ri), .m = ALL_SIZES(name, m)
#define QUICK(name) .quick = {name##32_quick, name##64_quick}, .one = {name##32_one, name##64_one}
static const struct shift_forms shift_forms[] = {
	[SHIFT_ROL] = {ROW(rol)},
	[SHIFT_ROR] = {ROW(ror)},
	[SHIFT_RCL] = {ROW(rcl)},
	[SHIFT_RCR] = {ROW(rcr)},
	[SHIFT_SHL] = {ROW(shl), QUICK(shl)},
	[SHIFT_SHR] = {ROW(shr), QUICK(shr)},
	[SHIFT_SAR] = {ROW(sar), QUICK(sar)},
};

static bool pick_shift(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	const struct shift_forms *f = &shift_forms[arg];
	unsigned log = op_size_log(op_bytes(d, 0));
	bool by_imm = op_is_imm(d, 1);

	if (op_locked(i))
		return false;
	if (by_imm)
		i->imm = d->op[1].imm.value.u & (log == 3 ? 63 : 31);
	if (op_is_mem(d, 0)) {
		i->arg = by_imm;
		i->fn = f->m[log];
	} else if (!by_imm) {
		i->fn = f->rc[log];
	} else if (log >= 2 && i->imm == 1 && f->one[log - 2]) {
		i->fn = f->one[log - 2];
	} else if (log >= 2 && i->imm && f->quick[log - 2]) {
		i->fn = f->quick[log - 2];
	} else {
		i->fn = f->ri[log];
	}
	return true;
}

/*
 * SHLD and SHRD: names {shld,shrd}{16,32,64}, _r (registers r1, r2) and _m (memory, r1); arg 1: by
 * imm.
 */
#define DEFINE_DOUBLE(name, insn, bits)                                                            \
	OP_INLINE uint##bits##_t name##bits(struct cpu *c, const struct cpu_insn *i,               \
					    uint##bits##_t a, uint##bits##_t b)                    \
	{                                                                                          \
		uint8_t count = i->arg ? (uint8_t)i->imm : CPU_REG8(c, X86_RCX * 8);               \
		uint16_t fl = c->fl;                                                               \
		__asm__(OP_ASM_IN insn " %%cl,%[b],%[a]" OP_ASM_OUT                                \
			: [a] "+r"(a), "+a"(fl)                                                    \
			: [b] "r"(b), "c"(count)                                                   \
			: "cc");                                                                   \
		c->fl = fl;                                                                        \
		return a;                                                                          \
	}                                                                                          \
	static void name##bits##_r(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		op_put##bits(c, i->r1,                                                             \
			     name##bits(c, i, CPU_REG##bits(c, i->r1), CPU_REG##bits(c, i->r2)));  \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void name##bits##_m(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		void *p = cpu_mem_rw(c, i, cpu_lin(c, i), (bits) / 8);                             \
		uint16_t fl = c->fl;                                                               \
		cpu_raw_st##bits(p,                                                                \
				 name##bits(c, i, cpu_raw_ld##bits(p), CPU_REG##bits(c, i->r1)));  \
		op_mem_done(c, i, p, fl);                                                          \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_DOUBLE(shld, "shldw", 16)
DEFINE_DOUBLE(shld, "shldl", 32)
DEFINE_DOUBLE(shld, "shldq", 64)
DEFINE_DOUBLE(shrd, "shrdw", 16)
DEFINE_DOUBLE(shrd, "shrdl", 32)
DEFINE_DOUBLE(shrd, "shrdq", 64)

static bool pick_double(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	/* by operation, memory, size (log2) */
	static const cpu_op_fn fn[2][2][4] = {
		{{NULL, shld16_r, shld32_r, shld64_r}, {NULL, shld16_m, shld32_m, shld64_m}},
		{{NULL, shrd16_r, shrd32_r, shrd64_r}, {NULL, shrd16_m, shrd32_m, shrd64_m}},
	};

	i->arg = op_is_imm(d, 2);
	if (i->arg)
		i->imm = d->op[2].imm.value.u;
	i->fn = fn[arg][op_is_mem(d, 0)][op_size_log(op_bytes(d, 0))];
	return !op_locked(i);
}

/* ---- BMI2: no flags ---------------------------------------------------------------------------
 */

enum { X_ROR, X_SAR, X_SHL, X_SHR };

OP_INLINE uint64_t shift_x(uint64_t a, unsigned count, unsigned size, unsigned op)
{
	unsigned mask = size * 8 - 1;

	count &= mask;
	switch (op) {
	case X_ROR:
		if (size == 4)
			return (uint32_t)a >> count | (uint32_t)a << (-count & mask);
		return a >> count | a << (-count & mask);
	case X_SAR:
		return size == 4 ? (uint32_t)((int32_t)a >> count)
				 : (uint64_t)((int64_t)a >> count);
	case X_SHL: return size == 4 ? (uint32_t)a << count : a << count;
	default: return size == 4 ? (uint32_t)a >> count : a >> count;
	}
}

/* SARX, SHLX, SHRX: the count is the last register. Names: shift_x_X_SAR, shift_x_X_SHL,
 * shift_x_X_SHR. */
#define DEFINE_SHIFT_X(op)                                                                         \
	static void shift_x_##op(struct cpu *c, const struct cpu_insn *i)                          \
	{                                                                                          \
		bool mem = i->flags & CPU_INSN_MEM;                                                \
		uint64_t a = mem ? cpu_ld(c, i, cpu_lin(c, i), i->size) : CPU_REG64(c, i->r2);     \
		unsigned count = CPU_REG8(c, mem ? i->r2 : i->r3);                                 \
		CPU_REG64(c, i->r1) = shift_x(a, count, i->size, op);                              \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_SHIFT_X(X_SAR)
DEFINE_SHIFT_X(X_SHL)
DEFINE_SHIFT_X(X_SHR)

static void rorx(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t a = i->flags & CPU_INSN_MEM ? cpu_ld(c, i, cpu_lin(c, i), i->size)
					     : CPU_REG64(c, i->r2);

	CPU_REG64(c, i->r1) = shift_x(a, (unsigned)i->imm, i->size, X_ROR);
	CPU_NEXT(c, i);
}

static bool pick_shift_x(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[] = {
		[X_ROR] = rorx,
		[X_SAR] = shift_x_X_SAR,
		[X_SHL] = shift_x_X_SHL,
		[X_SHR] = shift_x_X_SHR,
	};

	i->size = (uint8_t)op_bytes(d, 0);
	i->fn = fn[arg];
	return op_vex_allowed(d) && !op_locked(i);
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_ROL, SHIFT_ROL, pick_shift}, {ZYDIS_MNEMONIC_ROR, SHIFT_ROR, pick_shift},
	{ZYDIS_MNEMONIC_RCL, SHIFT_RCL, pick_shift}, {ZYDIS_MNEMONIC_RCR, SHIFT_RCR, pick_shift},
	{ZYDIS_MNEMONIC_SHL, SHIFT_SHL, pick_shift}, {ZYDIS_MNEMONIC_SHR, SHIFT_SHR, pick_shift},
	{ZYDIS_MNEMONIC_SAR, SHIFT_SAR, pick_shift}, {ZYDIS_MNEMONIC_SHLD, 0, pick_double},
	{ZYDIS_MNEMONIC_SHRD, 1, pick_double},	     {ZYDIS_MNEMONIC_RORX, X_ROR, pick_shift_x},
	{ZYDIS_MNEMONIC_SARX, X_SAR, pick_shift_x},  {ZYDIS_MNEMONIC_SHLX, X_SHL, pick_shift_x},
	{ZYDIS_MNEMONIC_SHRX, X_SHR, pick_shift_x},
};
const struct cpu_op_table cpu_ops_shift = {ops, ARRAY_SIZE(ops)};
