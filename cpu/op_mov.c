/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Moves: MOV, MOVZX, MOVSX, LEA, XCHG, CMOVcc, SETcc, MOVBE, BSWAP, CBW and its kin, MOVNTI, XLAT.
 */
#include "cpu/op_int.h"

/* ---- MOV ----------------------------------------------------------------------------------------
 */

/*
 * A load, or a store, by address kind: fast path or jump to the slow twin.
 * Names: mov64_load_OP_EA_BASE, mov64_store_OP_EA_ANY, movzx8_wide_load_OP_EA_INDEX and so on.
 */
#define DEFINE_LOAD_KIND(name, bits, put, kind)                                                    \
	static void name##_##kind(struct cpu *c, const struct cpu_insn *i)                         \
	{                                                                                          \
		const void *p = op_try(c, op_lin(c, i, kind), (bits) / 8, false);                  \
		if (unlikely(!p)) {                                                                \
			name##_slow(c, i);                                                         \
			return;                                                                    \
		}                                                                                  \
		put(c, i->r1, cpu_raw_ld##bits(p));                                                \
		CPU_NEXT(c, i);                                                                    \
	}
#define DEFINE_LOAD(name, bits, put)                                                               \
	OP_SLOW name##_slow(struct cpu *c, const struct cpu_insn *i)                               \
	{                                                                                          \
		put(c, i->r1, cpu_ld##bits(c, i, cpu_lin(c, i)));                                  \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	DEFINE_LOAD_KIND(name, bits, put, OP_EA_BASE)                                              \
	DEFINE_LOAD_KIND(name, bits, put, OP_EA_INDEX)                                             \
	DEFINE_LOAD_KIND(name, bits, put, OP_EA_ANY)

#define DEFINE_STORE_KIND(name, bits, value, kind)                                                 \
	static void name##_##kind(struct cpu *c, const struct cpu_insn *i)                         \
	{                                                                                          \
		void *p = op_try(c, op_lin(c, i, kind), (bits) / 8, true);                         \
		if (unlikely(!p)) {                                                                \
			name##_slow(c, i);                                                         \
			return;                                                                    \
		}                                                                                  \
		cpu_raw_st##bits(p, value);                                                        \
		CPU_NEXT(c, i);                                                                    \
	}
#define DEFINE_STORE(name, bits, value)                                                            \
	OP_SLOW name##_slow(struct cpu *c, const struct cpu_insn *i)                               \
	{                                                                                          \
		cpu_st##bits(c, i, cpu_lin(c, i), value);                                          \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	DEFINE_STORE_KIND(name, bits, value, OP_EA_BASE)                                           \
	DEFINE_STORE_KIND(name, bits, value, OP_EA_INDEX)                                          \
	DEFINE_STORE_KIND(name, bits, value, OP_EA_ANY)

/* Names: mov{8,16,32,64}_rr, _ri, _load_*, _store_*, _storei_*. */
#define DEFINE_MOV(bits)                                                                           \
	static void mov##bits##_rr(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		op_put##bits(c, i->r1, CPU_REG##bits(c, i->r2));                                   \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void mov##bits##_ri(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		op_put##bits(c, i->r1, (uint##bits##_t)i->imm);                                    \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	DEFINE_LOAD(mov##bits##_load, bits, op_put##bits)                                          \
	DEFINE_STORE(mov##bits##_store, bits, CPU_REG##bits(c, i->r1))                             \
	DEFINE_STORE(mov##bits##_storei, bits, (uint##bits##_t)i->imm)
DEFINE_MOV(8)
DEFINE_MOV(16)
DEFINE_MOV(32)
DEFINE_MOV(64)

#define KINDS(form)                                                                                \
	{                                                                                          \
		form##_OP_EA_BASE, form##_OP_EA_INDEX, form##_OP_EA_ANY                            \
	}
#define ALL_SIZES(form)                                                                            \
	{                                                                                          \
		mov8_##form, mov16_##form, mov32_##form, mov64_##form                              \
	}
#define ALL_KINDS(form)                                                                            \
	{                                                                                          \
		KINDS(mov8_##form), KINDS(mov16_##form), KINDS(mov32_##form), KINDS(mov64_##form)  \
	}

static bool pick_mov(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn rr[4] = ALL_SIZES(rr), ri[4] = ALL_SIZES(ri);
	static const cpu_op_fn load[4][OP_EA_KINDS] = ALL_KINDS(load);
	static const cpu_op_fn store[4][OP_EA_KINDS] = ALL_KINDS(store);
	static const cpu_op_fn storei[4][OP_EA_KINDS] = ALL_KINDS(storei);
	unsigned log = op_size_log(op_bytes(d, 0));

	if (op_locked(i))
		return false;
	if (op_is_mem(d, 0)) {
		if (op_is_imm(d, 1))
			i->fn = storei[log][op_ea_kind(i)];
		else if (op_is_gpr(d, 1))
			i->fn = store[log][op_ea_kind(i)];
		return i->fn;
	}
	if (!op_is_gpr(d, 0))
		return false;
	if (op_is_mem(d, 1))
		i->fn = load[log][op_ea_kind(i)];
	else if (op_is_imm(d, 1))
		i->fn = ri[log];
	else if (op_is_gpr(d, 1))
		i->fn = rr[log];
	return i->fn;
}

static bool pick_movnti(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->fn = op_bytes(d, 0) == 8 ? mov64_store_OP_EA_ANY : mov32_store_OP_EA_ANY;
	return op_is_mem(d, 0) && !op_locked(i);
}

/* ---- MOVZX, MOVSX, MOVSXD -----------------------------------------------------------------------
 */

OP_INLINE void put_sx8_16(struct cpu *c, uint8_t off, uint8_t v)
{
	op_put16(c, off, (uint16_t)(int8_t)v);
}

OP_INLINE void put_sx8_32(struct cpu *c, uint8_t off, uint8_t v)
{
	op_put32(c, off, (uint32_t)(int8_t)v);
}

OP_INLINE void put_sx8_64(struct cpu *c, uint8_t off, uint8_t v)
{
	op_put64(c, off, (uint64_t)(int8_t)v);
}

OP_INLINE void put_sx16_32(struct cpu *c, uint8_t off, uint16_t v)
{
	op_put32(c, off, (uint32_t)(int16_t)v);
}

OP_INLINE void put_sx16_64(struct cpu *c, uint8_t off, uint16_t v)
{
	op_put64(c, off, (uint64_t)(int16_t)v);
}

OP_INLINE void put_sx32_64(struct cpu *c, uint8_t off, uint32_t v)
{
	op_put64(c, off, (uint64_t)(int32_t)v);
}

/*
 * Names: movzx8_16, movzx8_wide (32 and 64 alike), movzx16_wide, movsx8_16, movsx8_32, movsx8_64,
 * movsx16_32, movsx16_64, movsx32_64, each _rr and _load_*. movsx to the source's own size is a
 * move.
 */
#define DEFINE_EXTEND(name, bits, put)                                                             \
	static void name##_rr(struct cpu *c, const struct cpu_insn *i)                             \
	{                                                                                          \
		put(c, i->r1, CPU_REG##bits(c, i->r2));                                            \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	DEFINE_LOAD(name##_load, bits, put)
DEFINE_EXTEND(movzx8_16, 8, op_put16)
DEFINE_EXTEND(movzx8_wide, 8, op_put64)
DEFINE_EXTEND(movzx16_wide, 16, op_put64)
DEFINE_EXTEND(movsx8_16, 8, put_sx8_16)
DEFINE_EXTEND(movsx8_32, 8, put_sx8_32)
DEFINE_EXTEND(movsx8_64, 8, put_sx8_64)
DEFINE_EXTEND(movsx16_32, 16, put_sx16_32)
DEFINE_EXTEND(movsx16_64, 16, put_sx16_64)
DEFINE_EXTEND(movsx32_64, 32, put_sx32_64)

struct extend {
	cpu_op_fn rr, load[OP_EA_KINDS];
};

/* arg: 1 to extend the sign. */
static bool pick_extend(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
#define EXTEND(name)                                                                               \
	{                                                                                          \
		name##_rr, KINDS(name##_load)                                                      \
	}
	/* by sign, source and destination size (log2) */
	static const struct extend table[2][3][4] = {
		{
			{[1] = EXTEND(movzx8_16),
			 [2] = EXTEND(movzx8_wide),
			 [3] = EXTEND(movzx8_wide)},
			{[1] = EXTEND(mov16),
			 [2] = EXTEND(movzx16_wide),
			 [3] = EXTEND(movzx16_wide)},
			{[2] = EXTEND(mov32)},
		},
		{
			{[1] = EXTEND(movsx8_16), [2] = EXTEND(movsx8_32), [3] = EXTEND(movsx8_64)},
			{[1] = EXTEND(mov16), [2] = EXTEND(movsx16_32), [3] = EXTEND(movsx16_64)},
			{[1] = EXTEND(mov16), [2] = EXTEND(mov32), [3] = EXTEND(movsx32_64)},
		},
	};
	const struct extend *e =
		&table[arg][op_size_log(op_bytes(d, 1))][op_size_log(op_bytes(d, 0))];

	i->fn = op_is_mem(d, 1) ? e->load[op_ea_kind(i)] : e->rr;
	return i->fn;
}

/* ---- LEA ----------------------------------------------------------------------------------------
 */

static void lea64_base(struct cpu *c, const struct cpu_insn *i)
{
	op_put64(c, i->r1, op_lin(c, i, OP_EA_BASE));
	CPU_NEXT(c, i);
}

static void lea64_index(struct cpu *c, const struct cpu_insn *i)
{
	op_put64(c, i->r1, op_lin(c, i, OP_EA_INDEX));
	CPU_NEXT(c, i);
}

/* Also with a 32-bit address size: what is cut off is the same. */
static void lea32(struct cpu *c, const struct cpu_insn *i)
{
	op_put32(c, i->r1, (uint32_t)op_lin(c, i, OP_EA_INDEX));
	CPU_NEXT(c, i);
}

static void lea_any(struct cpu *c, const struct cpu_insn *i)
{
	op_put(c, i->r1, cpu_ea(c, i), i->size);
	CPU_NEXT(c, i);
}

static bool pick_lea(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->size = (uint8_t)op_bytes(d, 0);
	if (i->size == 8 && i->asize == 8)
		i->fn = i->index == CPU_SLOT_ZERO ? lea64_base : lea64_index;
	else if (i->size == 4 && i->asize >= 4)
		i->fn = lea32;
	else
		i->fn = lea_any;
	return op_is_mem(d, 1) && !op_locked(i);
}

/* ---- XCHG, MOVBE, BSWAP, XLAT
 * --------------------------------------------------------------------- */

/* Names: xchg{8,..64}_r and _m; with memory it is always locked. */
#define DEFINE_XCHG(bits, insn)                                                                    \
	static void xchg##bits##_r(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		uint##bits##_t a = CPU_REG##bits(c, i->r1), b = CPU_REG##bits(c, i->r2);           \
		op_put##bits(c, i->r1, b);                                                         \
		op_put##bits(c, i->r2, a);                                                         \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	OP_SLOW xchg##bits##_m_slow(struct cpu *c, const struct cpu_insn *i)                       \
	{                                                                                          \
		uint##bits##_t *p = cpu_mem_rw(c, i, cpu_lin(c, i), (bits) / 8);                   \
		uint##bits##_t old = CPU_REG##bits(c, i->r1);                                      \
		if ((void *)p != c->bounce) {                                                      \
			__asm__ volatile(insn " %0,%1" : "+r"(old), "+m"(*p) : : "memory");        \
		} else {                                                                           \
			uint##bits##_t found, want = old;                                          \
			do                                                                         \
				found = *p;                                                        \
			while (!cpu_mem_cmpxchg(c, i, &found, &want));                             \
			old = found;                                                               \
		}                                                                                  \
		op_put##bits(c, i->r1, old);                                                       \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void xchg##bits##_m(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		uint##bits##_t *p = op_try(c, cpu_lin(c, i), (bits) / 8, true);                    \
		uint##bits##_t v = CPU_REG##bits(c, i->r1);                                        \
		if (unlikely(!p)) {                                                                \
			xchg##bits##_m_slow(c, i);                                                 \
			return;                                                                    \
		}                                                                                  \
		__asm__ volatile(insn " %0,%1" : "+r"(v), "+m"(*p) : : "memory");                  \
		op_put##bits(c, i->r1, v);                                                         \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_XCHG(8, "xchgb")
DEFINE_XCHG(16, "xchgw")
DEFINE_XCHG(32, "xchgl")
DEFINE_XCHG(64, "xchgq")

static bool pick_xchg(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn r[4] = {xchg8_r, xchg16_r, xchg32_r, xchg64_r};
	static const cpu_op_fn m[4] = {xchg8_m, xchg16_m, xchg32_m, xchg64_m};
	bool mem = op_is_mem(d, 0) || op_is_mem(d, 1);

	i->fn = (mem ? m : r)[op_size_log(op_bytes(d, 0))];
	return mem || !op_locked(i);
}

static uint64_t swap_bytes(uint64_t v, unsigned size)
{
	return __builtin_bswap64(v) >> (64 - 8 * size);
}

static void movbe_load(struct cpu *c, const struct cpu_insn *i)
{
	op_put(c, i->r1, swap_bytes(cpu_ld(c, i, cpu_lin(c, i), i->size), i->size), i->size);
	CPU_NEXT(c, i);
}

static void movbe_store(struct cpu *c, const struct cpu_insn *i)
{
	cpu_st(c, i, cpu_lin(c, i), swap_bytes(op_get(c, i->r1, i->size), i->size), i->size);
	CPU_NEXT(c, i);
}

static bool pick_movbe(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->size = (uint8_t)op_bytes(d, 0);
	i->fn = op_is_mem(d, 0) ? movbe_store : movbe_load;
	return true;
}

static void bswap32(struct cpu *c, const struct cpu_insn *i)
{
	op_put32(c, i->r1, __builtin_bswap32(CPU_REG32(c, i->r1)));
	CPU_NEXT(c, i);
}

static void bswap64(struct cpu *c, const struct cpu_insn *i)
{
	op_put64(c, i->r1, __builtin_bswap64(CPU_REG64(c, i->r1)));
	CPU_NEXT(c, i);
}

/* With a 16-bit operand, undefined by the manual: silicon leaves zero. */
static void bswap16(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t v = CPU_REG16(c, i->r1);

	__asm__ volatile(".byte 0x66, 0x0f, 0xc8" : "+a"(v)); /* bswap %ax */
	op_put16(c, i->r1, v);
	CPU_NEXT(c, i);
}

static bool pick_bswap(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	unsigned size = op_bytes(d, 0);

	i->fn = size == 8 ? bswap64 : size == 4 ? bswap32 : bswap16;
	return !op_locked(i);
}

/* XLAT's address is (E/R)BX + AL; its memory operand, if the decoder makes one, is not used. */
static void xlat(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t ea = (c->s.gpr[X86_RBX] + CPU_REG8(c, 0)) & op_mask(i->asize);

	CPU_REG8(c, 0) = cpu_ld8(c, i, op_seg_lin(c, i, i->seg, ea, 1, false));
	CPU_NEXT(c, i);
}

static bool pick_xlat(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->fn = xlat;
	i->seg = op_string_seg(d);
	i->asize = (uint8_t)(d->zi.address_width / 8);
	return !op_locked(i);
}

/* ---- CMOVcc, SETcc
 * -------------------------------------------------------------------------------- */

/* r2 when @cond, else r1, without a branch: guests use CMOV where a condition cannot be predicted.
 */
static inline uint8_t select_reg(const struct cpu_insn *i, bool cond)
{
	unsigned mask = -(unsigned)cond;

	__asm__("" : "+r"(mask)); /* or the compiler finds the branch again */
	return (uint8_t)(i->r1 ^ ((i->r1 ^ i->r2) & mask));
}

/* Names: cmov32_rr_OP_CC_O .. and the like for each form and condition. A 32-bit one always clears
 * the top. */
#define DEFINE_CONDITIONAL(cc)                                                                     \
	static void cmov32_rr_##cc(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		op_put32(c, i->r1, CPU_REG32(c, select_reg(i, op_cond(c, cc))));                   \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void cmov64_rr_##cc(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		op_put64(c, i->r1, CPU_REG64(c, select_reg(i, op_cond(c, cc))));                   \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void cmov_any_##cc(struct cpu *c, const struct cpu_insn *i)                         \
	{                                                                                          \
		uint64_t v = i->flags & CPU_INSN_MEM ? cpu_ld(c, i, cpu_lin(c, i), i->size)        \
						     : op_get(c, i->r2, i->size);                  \
		op_put(c, i->r1, op_cond(c, cc) ? v : op_get(c, i->r1, i->size), i->size);         \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void set_r_##cc(struct cpu *c, const struct cpu_insn *i)                            \
	{                                                                                          \
		CPU_REG8(c, i->r1) = op_cond(c, cc);                                               \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void set_m_##cc(struct cpu *c, const struct cpu_insn *i)                            \
	{                                                                                          \
		cpu_st8(c, i, cpu_lin(c, i), op_cond(c, cc));                                      \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_CONDITIONAL(OP_CC_O)
DEFINE_CONDITIONAL(OP_CC_NO)
DEFINE_CONDITIONAL(OP_CC_B)
DEFINE_CONDITIONAL(OP_CC_NB)
DEFINE_CONDITIONAL(OP_CC_Z)
DEFINE_CONDITIONAL(OP_CC_NZ)
DEFINE_CONDITIONAL(OP_CC_BE)
DEFINE_CONDITIONAL(OP_CC_NBE)
DEFINE_CONDITIONAL(OP_CC_S)
DEFINE_CONDITIONAL(OP_CC_NS)
DEFINE_CONDITIONAL(OP_CC_P)
DEFINE_CONDITIONAL(OP_CC_NP)
DEFINE_CONDITIONAL(OP_CC_L)
DEFINE_CONDITIONAL(OP_CC_NL)
DEFINE_CONDITIONAL(OP_CC_LE)
DEFINE_CONDITIONAL(OP_CC_NLE)

static const struct {
	cpu_op_fn cmov32, cmov64, cmov, set_r, set_m;
} conditional[16] = {
#define CONDITIONAL(cc)                                                                            \
	[cc] = {cmov32_rr_##cc, cmov64_rr_##cc, cmov_any_##cc, set_r_##cc, set_m_##cc}
	CONDITIONAL(OP_CC_O), CONDITIONAL(OP_CC_NO), CONDITIONAL(OP_CC_B),  CONDITIONAL(OP_CC_NB),
	CONDITIONAL(OP_CC_Z), CONDITIONAL(OP_CC_NZ), CONDITIONAL(OP_CC_BE), CONDITIONAL(OP_CC_NBE),
	CONDITIONAL(OP_CC_S), CONDITIONAL(OP_CC_NS), CONDITIONAL(OP_CC_P),  CONDITIONAL(OP_CC_NP),
	CONDITIONAL(OP_CC_L), CONDITIONAL(OP_CC_NL), CONDITIONAL(OP_CC_LE), CONDITIONAL(OP_CC_NLE),
};

static bool pick_cmov(struct cpu_dec *d, struct cpu_insn *i, uint16_t cc)
{
	i->size = (uint8_t)op_bytes(d, 0);
	if (op_is_mem(d, 1) || i->size == 2)
		i->fn = conditional[cc].cmov;
	else
		i->fn = i->size == 8 ? conditional[cc].cmov64 : conditional[cc].cmov32;
	return !op_locked(i);
}

static bool pick_set(struct cpu_dec *d, struct cpu_insn *i, uint16_t cc)
{
	i->fn = op_is_mem(d, 0) ? conditional[cc].set_m : conditional[cc].set_r;
	return !op_locked(i);
}

/* ---- CBW and its kin
 * ------------------------------------------------------------------------------ */

static void cbw(struct cpu *c, const struct cpu_insn *i)
{
	CPU_REG16(c, 0) = (uint16_t)(int8_t)CPU_REG8(c, 0);
	CPU_NEXT(c, i);
}

static void cwde(struct cpu *c, const struct cpu_insn *i)
{
	op_put32(c, 0, (uint32_t)(int16_t)CPU_REG16(c, 0));
	CPU_NEXT(c, i);
}

static void cdqe(struct cpu *c, const struct cpu_insn *i)
{
	op_put64(c, 0, (uint64_t)(int32_t)CPU_REG32(c, 0));
	CPU_NEXT(c, i);
}

static void cwd(struct cpu *c, const struct cpu_insn *i)
{
	CPU_REG16(c, X86_RDX * 8) = (uint16_t)((int16_t)CPU_REG16(c, 0) >> 15);
	CPU_NEXT(c, i);
}

static void cdq(struct cpu *c, const struct cpu_insn *i)
{
	op_put32(c, X86_RDX * 8, (uint32_t)((int32_t)CPU_REG32(c, 0) >> 31));
	CPU_NEXT(c, i);
}

static void cqo(struct cpu *c, const struct cpu_insn *i)
{
	c->s.gpr[X86_RDX] = (uint64_t)((int64_t)c->s.gpr[X86_RAX] >> 63);
	CPU_NEXT(c, i);
}

static bool pick_convert(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[] = {cbw, cwde, cdqe, cwd, cdq, cqo};

	i->fn = fn[arg];
	return !op_locked(i);
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_MOV, 0, pick_mov},
	{ZYDIS_MNEMONIC_MOVNTI, 0, pick_movnti},
	{ZYDIS_MNEMONIC_MOVZX, 0, pick_extend},
	{ZYDIS_MNEMONIC_MOVSX, 1, pick_extend},
	{ZYDIS_MNEMONIC_MOVSXD, 1, pick_extend},
	{ZYDIS_MNEMONIC_LEA, 0, pick_lea},
	{ZYDIS_MNEMONIC_XCHG, 0, pick_xchg},
	{ZYDIS_MNEMONIC_MOVBE, 0, pick_movbe},
	{ZYDIS_MNEMONIC_BSWAP, 0, pick_bswap},
	{ZYDIS_MNEMONIC_XLAT, 0, pick_xlat},
	{ZYDIS_MNEMONIC_CBW, 0, pick_convert},
	{ZYDIS_MNEMONIC_CWDE, 1, pick_convert},
	{ZYDIS_MNEMONIC_CDQE, 2, pick_convert},
	{ZYDIS_MNEMONIC_CWD, 3, pick_convert},
	{ZYDIS_MNEMONIC_CDQ, 4, pick_convert},
	{ZYDIS_MNEMONIC_CQO, 5, pick_convert},
	{ZYDIS_MNEMONIC_CMOVO, OP_CC_O, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVNO, OP_CC_NO, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVB, OP_CC_B, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVNB, OP_CC_NB, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVZ, OP_CC_Z, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVNZ, OP_CC_NZ, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVBE, OP_CC_BE, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVNBE, OP_CC_NBE, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVS, OP_CC_S, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVNS, OP_CC_NS, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVP, OP_CC_P, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVNP, OP_CC_NP, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVL, OP_CC_L, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVNL, OP_CC_NL, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVLE, OP_CC_LE, pick_cmov},
	{ZYDIS_MNEMONIC_CMOVNLE, OP_CC_NLE, pick_cmov},
	{ZYDIS_MNEMONIC_SETO, OP_CC_O, pick_set},
	{ZYDIS_MNEMONIC_SETNO, OP_CC_NO, pick_set},
	{ZYDIS_MNEMONIC_SETB, OP_CC_B, pick_set},
	{ZYDIS_MNEMONIC_SETNB, OP_CC_NB, pick_set},
	{ZYDIS_MNEMONIC_SETZ, OP_CC_Z, pick_set},
	{ZYDIS_MNEMONIC_SETNZ, OP_CC_NZ, pick_set},
	{ZYDIS_MNEMONIC_SETBE, OP_CC_BE, pick_set},
	{ZYDIS_MNEMONIC_SETNBE, OP_CC_NBE, pick_set},
	{ZYDIS_MNEMONIC_SETS, OP_CC_S, pick_set},
	{ZYDIS_MNEMONIC_SETNS, OP_CC_NS, pick_set},
	{ZYDIS_MNEMONIC_SETP, OP_CC_P, pick_set},
	{ZYDIS_MNEMONIC_SETNP, OP_CC_NP, pick_set},
	{ZYDIS_MNEMONIC_SETL, OP_CC_L, pick_set},
	{ZYDIS_MNEMONIC_SETNL, OP_CC_NL, pick_set},
	{ZYDIS_MNEMONIC_SETLE, OP_CC_LE, pick_set},
	{ZYDIS_MNEMONIC_SETNLE, OP_CC_NLE, pick_set},
};
const struct cpu_op_table cpu_ops_mov = {ops, ARRAY_SIZE(ops)};
