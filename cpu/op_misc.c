/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Multiplication and division, decimal adjustment, flag instructions, fences, hints and
 * no-operations. */
#include "cpu/op_int.h"

/* ---- MUL, IMUL
 * ------------------------------------------------------------------------------------ */

/* The operand of the one-operand forms. */
OP_INLINE uint64_t load_operand(struct cpu *c, const struct cpu_insn *i)
{
	return i->flags & CPU_INSN_MEM ? cpu_ld(c, i, cpu_lin(c, i), i->size)
				       : op_get(c, i->r1, i->size);
}

/* Widening, rDX:rAX. Names: {mul,imul}{16,32,64}_wide; the 8-bit ones put AX. */
#define DEFINE_MUL(name, insn, bits)                                                               \
	static void name##bits##_wide(struct cpu *c, const struct cpu_insn *i)                     \
	{                                                                                          \
		uint##bits##_t s = (uint##bits##_t)load_operand(c, i), lo, hi;                     \
		uint64_t a = CPU_REG##bits(c, X86_RAX * 8);                                        \
		__asm__(insn " %[s]\n\tmov %%rax,%q[lo]" OP_ASM_OUT                                \
			: [lo] "=&r"(lo), "=&d"(hi), "+a"(a)                                       \
			: [s] "r"(s)                                                               \
			: "cc");                                                                   \
		c->fl = (uint16_t)a;                                                               \
		op_put##bits(c, X86_RAX * 8, lo);                                                  \
		op_put##bits(c, X86_RDX * 8, hi);                                                  \
		CPU_NEXT(c, i);                                                                    \
	}
#define DEFINE_MUL8(name, insn)                                                                    \
	static void name##8_wide(struct cpu * c, const struct cpu_insn *i)                         \
	{                                                                                          \
		uint8_t s = (uint8_t)load_operand(c, i);                                           \
		uint64_t a = CPU_REG8(c, 0), lo;                                                   \
		__asm__(insn " %[s]\n\tmov %%rax,%[lo]" OP_ASM_OUT                                 \
			: [lo] "=&r"(lo), "+a"(a)                                                  \
			: [s] "r"(s)                                                               \
			: "cc");                                                                   \
		c->fl = (uint16_t)a;                                                               \
		CPU_REG16(c, 0) = (uint16_t)lo;                                                    \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_MUL8(mul, "mulb")
DEFINE_MUL(mul, "mulw", 16)
DEFINE_MUL(mul, "mull", 32)
DEFINE_MUL(mul, "mulq", 64)
DEFINE_MUL8(imul, "imulb")
DEFINE_MUL(imul, "imulw", 16)
DEFINE_MUL(imul, "imull", 32)
DEFINE_MUL(imul, "imulq", 64)

/* r1 = r1 * source, r1 = source * imm. Names: imul{16,32,64}_rr, _rm, _rri, _rmi. */
#define DEFINE_IMUL(insn, bits)                                                                    \
	OP_INLINE void imul##bits(struct cpu *c, const struct cpu_insn *i, uint##bits##_t a,       \
				  uint##bits##_t b)                                                \
	{                                                                                          \
		uint16_t fl;                                                                       \
		__asm__(insn " %[b],%[a]" OP_ASM_OUT : [a] "+r"(a), "=a"(fl) : [b] "r"(b) : "cc"); \
		c->fl = fl;                                                                        \
		op_put##bits(c, i->r1, a);                                                         \
	}                                                                                          \
	static void imul##bits##_rr(struct cpu *c, const struct cpu_insn *i)                       \
	{                                                                                          \
		imul##bits(c, i, CPU_REG##bits(c, i->r1), CPU_REG##bits(c, i->r2));                \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void imul##bits##_rri(struct cpu *c, const struct cpu_insn *i)                      \
	{                                                                                          \
		imul##bits(c, i, CPU_REG##bits(c, i->r2), (uint##bits##_t)i->imm);                 \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void imul##bits##_rm(struct cpu *c, const struct cpu_insn *i)                       \
	{                                                                                          \
		uint##bits##_t b = cpu_ld##bits(c, i, cpu_lin(c, i));                              \
		imul##bits(c, i, CPU_REG##bits(c, i->r1), b);                                      \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void imul##bits##_rmi(struct cpu *c, const struct cpu_insn *i)                      \
	{                                                                                          \
		imul##bits(c, i, cpu_ld##bits(c, i, cpu_lin(c, i)), (uint##bits##_t)i->imm);       \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_IMUL("imulw", 16)
DEFINE_IMUL("imull", 32)
DEFINE_IMUL("imulq", 64)

/* arg 1: signed. */
static bool pick_mul(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn wide[2][4] = {{mul8_wide, mul16_wide, mul32_wide, mul64_wide},
					     {imul8_wide, imul16_wide, imul32_wide, imul64_wide}};
	static const cpu_op_fn rr[4] = {NULL, imul16_rr, imul32_rr, imul64_rr};
	static const cpu_op_fn rm[4] = {NULL, imul16_rm, imul32_rm, imul64_rm};
	static const cpu_op_fn rri[4] = {NULL, imul16_rri, imul32_rri, imul64_rri};
	static const cpu_op_fn rmi[4] = {NULL, imul16_rmi, imul32_rmi, imul64_rmi};
	unsigned log = op_size_log(op_bytes(d, 0));
	bool mem = op_is_mem(d, 1);

	i->size = (uint8_t)op_bytes(d, 0);
	if (d->zi.operand_count_visible == 1)
		i->fn = wide[arg][log];
	else if (d->zi.operand_count_visible == 2)
		i->fn = (mem ? rm : rr)[log];
	else
		i->fn = (mem ? rmi : rri)[log];
	return i->fn && !op_locked(i);
}

/* ---- DIV, IDIV
 * ------------------------------------------------------------------------------------ */

/* #DE when the divisor is zero or the quotient does not fit. The flags, undefined, stay. */
static void div64(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t d = load_operand(c, i), lo = c->s.gpr[X86_RAX], hi = c->s.gpr[X86_RDX];

	if (unlikely(hi >= d))
		cpu_fault(c, i, X86_VEC_DE);
	__asm__("divq %2" : "+a"(lo), "+d"(hi) : "r"(d) : "cc");
	c->s.gpr[X86_RAX] = lo;
	c->s.gpr[X86_RDX] = hi;
	CPU_NEXT(c, i);
}

static void idiv64(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t s = load_operand(c, i), d = (int64_t)s < 0 ? -s : s;
	unsigned __int128 n = (unsigned __int128)c->s.gpr[X86_RDX] << 64 | c->s.gpr[X86_RAX];
	bool minus = (int64_t)c->s.gpr[X86_RDX] < 0, quotient_minus = minus != ((int64_t)s < 0);
	uint64_t lo, hi;

	if (minus)
		n = -n;
	lo = (uint64_t)n;
	hi = (uint64_t)(n >> 64);
	if (unlikely(hi >= d))
		cpu_fault(c, i, X86_VEC_DE);
	__asm__("divq %2" : "+a"(lo), "+d"(hi) : "r"(d) : "cc");
	if (unlikely(lo > BIT(63) - !quotient_minus))
		cpu_fault(c, i, X86_VEC_DE);
	c->s.gpr[X86_RAX] = quotient_minus ? -lo : lo;
	c->s.gpr[X86_RDX] = minus ? -hi : hi;
	CPU_NEXT(c, i);
}

static void put_quotient(struct cpu *c, const struct cpu_insn *i, uint64_t q, uint64_t r)
{
	if (i->size == 1) {
		CPU_REG16(c, 0) = (uint16_t)((uint8_t)q | (uint8_t)r << 8);
		return;
	}
	op_put(c, X86_RAX * 8, q, i->size);
	op_put(c, X86_RDX * 8, r, i->size);
}

/* rDX:rAX, or AX, of at most 64 bits. */
static uint64_t dividend(const struct cpu *c, unsigned size)
{
	if (size == 1)
		return CPU_REG16(c, 0);
	return op_get(c, 0, size) | op_get(c, X86_RDX * 8, size) << (8 * size);
}

static void div_small(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t d = load_operand(c, i), n = dividend(c, i->size);

	if (unlikely(n >> (8 * i->size) >= d))
		cpu_fault(c, i, X86_VEC_DE);
	put_quotient(c, i, n / d, n % d);
	CPU_NEXT(c, i);
}

static int64_t sign_extend(uint64_t v, unsigned bits)
{
	return (int64_t)(v << (64 - bits)) >> (64 - bits);
}

static void idiv_small(struct cpu *c, const struct cpu_insn *i)
{
	unsigned bits = 8 * i->size;
	int64_t d = sign_extend(load_operand(c, i), bits);
	int64_t n = sign_extend(dividend(c, i->size), 2 * bits), q;

	if (unlikely(d == 0 || (d == -1 && n == INT64_MIN)))
		cpu_fault(c, i, X86_VEC_DE);
	q = n / d;
	if (unlikely(q != sign_extend((uint64_t)q, bits)))
		cpu_fault(c, i, X86_VEC_DE);
	put_quotient(c, i, (uint64_t)q, (uint64_t)(n % d));
	CPU_NEXT(c, i);
}

static bool pick_div(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->size = (uint8_t)op_bytes(d, 0);
	if (i->size == 8)
		i->fn = arg ? idiv64 : div64;
	else
		i->fn = arg ? idiv_small : div_small;
	return !op_locked(i);
}

/* ---- decimal adjustment (SDM 2A, AAA .. DAS)
 * -------------------------------------------------------- */

/* SF, ZF and PF of a byte, with CF and AF as told. */
static void set_decimal_flags(struct cpu *c, uint8_t v, bool cf, bool af)
{
	uint16_t fl;

	__asm__("testb %[v],%[v]" OP_ASM_OUT : "=a"(fl) : [v] "r"(v) : "cc");
	c->fl = (uint16_t)((fl & ~(CPU_FL_CF | CPU_FL_AF)) | (cf ? CPU_FL_CF : 0) |
			   (af ? CPU_FL_AF : 0));
}

static void daa_das(struct cpu *c, const struct cpu_insn *i)
{
	uint8_t old = CPU_REG8(c, 0), al = old;
	bool cf = c->fl & CPU_FL_CF, low = (old & 15) > 9 || (c->fl & CPU_FL_AF);
	bool high = old > 0x99 || cf;
	uint8_t by = (uint8_t)((low ? 0x06 : 0) + (high ? 0x60 : 0));

	al = (uint8_t)(i->arg ? old - by : old + by);
	/* DAS: the borrow of the low correction counts too. */
	if (i->arg && low && old < 6)
		high = true;
	CPU_REG8(c, 0) = al;
	set_decimal_flags(c, al, high, low);
	CPU_NEXT(c, i);
}

static void aaa_aas(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t ax = CPU_REG16(c, 0);
	bool adjust = (ax & 15) > 9 || (c->fl & CPU_FL_AF);

	if (adjust)
		ax = (uint16_t)(i->arg ? ax - 0x106 : ax + 0x106);
	ax &= 0xff0f;
	CPU_REG16(c, 0) = ax;
	set_decimal_flags(c, (uint8_t)ax, adjust, adjust);
	CPU_NEXT(c, i);
}

static void aam(struct cpu *c, const struct cpu_insn *i)
{
	uint8_t al = CPU_REG8(c, 0), base = (uint8_t)i->imm;

	if (!base)
		cpu_fault(c, i, X86_VEC_DE);
	CPU_REG16(c, 0) = (uint16_t)(al / base << 8 | al % base);
	set_decimal_flags(c, al % base, false, false);
	CPU_NEXT(c, i);
}

static void aad(struct cpu *c, const struct cpu_insn *i)
{
	uint8_t al = (uint8_t)(CPU_REG8(c, 0) + CPU_REG8(c, 1) * (uint8_t)i->imm);

	CPU_REG16(c, 0) = al;
	set_decimal_flags(c, al, false, false);
	CPU_NEXT(c, i);
}

enum { DECIMAL_DAA, DECIMAL_DAS, DECIMAL_AAA, DECIMAL_AAS, DECIMAL_AAM, DECIMAL_AAD };
static bool pick_decimal(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[] = {daa_das, daa_das, aaa_aas, aaa_aas, aam, aad};

	i->fn = fn[arg];
	i->arg = arg == DECIMAL_DAS || arg == DECIMAL_AAS;
	return !op_locked(i);
}

/* ---- flags
 * ------------------------------------------------------------------------------------------ */

static void lahf(struct cpu *c, const struct cpu_insn *i)
{
	CPU_REG8(c, 1) = (uint8_t)(c->fl >> 8);
	CPU_NEXT(c, i);
}

static void sahf(struct cpu *c, const struct cpu_insn *i)
{
	c->fl = (uint16_t)((c->fl & CPU_FL_OF) | 0x200 | (CPU_REG8(c, 1) & 0xd5) << 8);
	CPU_NEXT(c, i);
}

static void clc(struct cpu *c, const struct cpu_insn *i)
{
	c->fl &= (uint16_t)~CPU_FL_CF;
	CPU_NEXT(c, i);
}

static void stc(struct cpu *c, const struct cpu_insn *i)
{
	c->fl |= CPU_FL_CF;
	CPU_NEXT(c, i);
}

static void cmc(struct cpu *c, const struct cpu_insn *i)
{
	c->fl ^= CPU_FL_CF;
	CPU_NEXT(c, i);
}

static void cld(struct cpu *c, const struct cpu_insn *i)
{
	c->s.rflags &= ~X86_FLAG_DF;
	CPU_NEXT(c, i);
}

static void std(struct cpu *c, const struct cpu_insn *i)
{
	c->s.rflags |= X86_FLAG_DF;
	CPU_NEXT(c, i);
}

static void salc(struct cpu *c, const struct cpu_insn *i)
{
	CPU_REG8(c, 0) = c->fl & CPU_FL_CF ? 0xff : 0;
	CPU_NEXT(c, i);
}

enum { FLAG_LAHF, FLAG_SAHF, FLAG_CLC, FLAG_STC, FLAG_CMC, FLAG_CLD, FLAG_STD, FLAG_SALC };
static bool pick_flag(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[] = {lahf, sahf, clc, stc, cmc, cld, std, salc};

	i->fn = fn[arg];
	return !op_locked(i);
}

/* ---- hints, fences
 * ---------------------------------------------------------------------------------- */

static void nop(struct cpu *c, const struct cpu_insn *i)
{
	CPU_NEXT(c, i);
}

static void pause_hint(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely(c->ctl.exits & CPU_CTL_PAUSE))
		cpu_leave(c, i, CPU_EXIT_PAUSE);
	__builtin_ia32_pause();
	CPU_NEXT(c, i);
}

/* Guest stores are host stores, so the host's fence orders them. LFENCE and SFENCE have nothing to
 * do. */
static void fence(struct cpu *c, const struct cpu_insn *i)
{
	__asm__ volatile("mfence" : : : "memory");
	CPU_NEXT(c, i);
}

/* CLFLUSH and its kin fault as a load of a byte would. */
static void flush_line(struct cpu *c, const struct cpu_insn *i)
{
	cpu_mem_r(c, i, cpu_lin(c, i), 1);
	CPU_NEXT(c, i);
}

enum { HINT_NOP, HINT_PAUSE, HINT_FENCE, HINT_FLUSH };
static bool pick_hint(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[] = {nop, pause_hint, fence, flush_line};

	i->fn = fn[arg];
	return !op_locked(i);
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_MUL, 0, pick_mul},
	{ZYDIS_MNEMONIC_IMUL, 1, pick_mul},
	{ZYDIS_MNEMONIC_DIV, 0, pick_div},
	{ZYDIS_MNEMONIC_IDIV, 1, pick_div},
	{ZYDIS_MNEMONIC_DAA, DECIMAL_DAA, pick_decimal},
	{ZYDIS_MNEMONIC_DAS, DECIMAL_DAS, pick_decimal},
	{ZYDIS_MNEMONIC_AAA, DECIMAL_AAA, pick_decimal},
	{ZYDIS_MNEMONIC_AAS, DECIMAL_AAS, pick_decimal},
	{ZYDIS_MNEMONIC_AAM, DECIMAL_AAM, pick_decimal},
	{ZYDIS_MNEMONIC_AAD, DECIMAL_AAD, pick_decimal},
	{ZYDIS_MNEMONIC_LAHF, FLAG_LAHF, pick_flag},
	{ZYDIS_MNEMONIC_SAHF, FLAG_SAHF, pick_flag},
	{ZYDIS_MNEMONIC_CLC, FLAG_CLC, pick_flag},
	{ZYDIS_MNEMONIC_STC, FLAG_STC, pick_flag},
	{ZYDIS_MNEMONIC_CMC, FLAG_CMC, pick_flag},
	{ZYDIS_MNEMONIC_CLD, FLAG_CLD, pick_flag},
	{ZYDIS_MNEMONIC_STD, FLAG_STD, pick_flag},
	{ZYDIS_MNEMONIC_SALC, FLAG_SALC, pick_flag},
	{ZYDIS_MNEMONIC_NOP, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_ENDBR32, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_ENDBR64, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_PREFETCH, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_PREFETCHNTA, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_PREFETCHT0, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_PREFETCHT1, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_PREFETCHT2, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_PREFETCHW, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_PREFETCHWT1, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_SERIALIZE, HINT_FENCE, pick_hint},
	{ZYDIS_MNEMONIC_PAUSE, HINT_PAUSE, pick_hint},
	{ZYDIS_MNEMONIC_LFENCE, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_SFENCE, HINT_NOP, pick_hint},
	{ZYDIS_MNEMONIC_MFENCE, HINT_FENCE, pick_hint},
	{ZYDIS_MNEMONIC_CLFLUSH, HINT_FLUSH, pick_hint},
	{ZYDIS_MNEMONIC_CLFLUSHOPT, HINT_FLUSH, pick_hint},
	{ZYDIS_MNEMONIC_CLWB, HINT_FLUSH, pick_hint},
};
const struct cpu_op_table cpu_ops_misc = {ops, ARRAY_SIZE(ops)};
