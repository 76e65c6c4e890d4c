/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bits: BT BTS BTR BTC, BSF BSR LZCNT TZCNT POPCNT, BMI1 and BMI2, CRC32. */
#include "cpu/op_int.h"

/* ---- BT and its kin -----------------------------------------------------------------------------
 */

/*
 * All six flags go through the host: only CF is defined to change. Names:
 * {bt,bts,btr,btc}{16,32,64}, each _r (arg 1: by imm, else by r2), _m (arg 1: by imm, else by r1, a
 * bit string) and _lock.
 */
/* The bit's number, as wide as the register that holds it. */
OP_INLINE int64_t bit_number(const struct cpu *c, const struct cpu_insn *i, unsigned size)
{
	if (i->arg)
		return (int64_t)(i->imm & (size * 8 - 1));
	return size == 8   ? (int64_t)CPU_REG64(c, i->r1)
	       : size == 4 ? (int32_t)CPU_REG32(c, i->r1)
			   : (int16_t)CPU_REG16(c, i->r1);
}

/* Where the operand is that holds bit @n. */
static uint64_t bit_lin(struct cpu *c, const struct cpu_insn *i, int64_t n, unsigned size,
			bool write)
{
	uint64_t ea = cpu_ea(c, i), lin;

	if (i->arg)
		return cpu_lin(c, i);
	ea = (ea + (uint64_t)(n >> (3 + op_size_log(size))) * size) & op_mask(i->asize);
	lin = op_seg_lin(c, i, i->seg, ea, size, write);
	if (op_long(c) &&
	    unlikely(!cpu_lin_canonical(c, lin) || !cpu_lin_canonical(c, lin + size - 1))) {
		bool stack = i->seg == CPU_SEG_NONE && (i->base == X86_RSP || i->base == X86_RBP);

		cpu_fault_err(c, i, stack ? X86_VEC_SS : X86_VEC_GP, 0);
	}
	return lin;
}

#define DEFINE_BT(name, insn, bits, write)                                                         \
	OP_INLINE uint##bits##_t name##bits(struct cpu *c, uint##bits##_t a, uint##bits##_t bit)   \
	{                                                                                          \
		uint16_t fl = c->fl;                                                               \
		__asm__(OP_ASM_IN insn " %[bit],%[a]" OP_ASM_OUT                                   \
			: [a] "+r"(a), "+a"(fl)                                                    \
			: [bit] "r"(bit)                                                           \
			: "cc");                                                                   \
		c->fl = fl;                                                                        \
		return a;                                                                          \
	}                                                                                          \
	static void name##bits##_r(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		uint##bits##_t bit = i->arg ? (uint##bits##_t)i->imm : CPU_REG##bits(c, i->r2);    \
		uint##bits##_t v = name##bits(c, CPU_REG##bits(c, i->r1), bit);                    \
		if (write)                                                                         \
			op_put##bits(c, i->r1, v);                                                 \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void name##bits##_m(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		int64_t bit = bit_number(c, i, (bits) / 8);                                        \
		uint64_t lin = bit_lin(c, i, bit, (bits) / 8, write);                              \
		void *p = write ? cpu_mem_rw(c, i, lin, (bits) / 8)                                \
				: cpu_mem_r(c, i, lin, (bits) / 8);                                \
		uint16_t fl = c->fl;                                                               \
		uint##bits##_t v = name##bits(c, cpu_raw_ld##bits(p), (uint##bits##_t)bit);        \
		if (write) {                                                                       \
			cpu_raw_st##bits(p, v);                                                    \
			op_mem_done(c, i, p, fl);                                                  \
		}                                                                                  \
		CPU_NEXT(c, i);                                                                    \
	}
#define DEFINE_BT_LOCK(name, insn, bits)                                                           \
	static void name##bits##_lock(struct cpu *c, const struct cpu_insn *i)                     \
	{                                                                                          \
		int64_t bit = bit_number(c, i, (bits) / 8);                                        \
		uint64_t lin = bit_lin(c, i, bit, (bits) / 8, true);                               \
		uint##bits##_t *p = cpu_mem_rw(c, i, lin, (bits) / 8);                             \
		uint16_t fl = c->fl;                                                               \
		if (likely((void *)p != c->bounce)) {                                              \
			__asm__ volatile(OP_ASM_IN "lock " insn " %[bit],%[p]" OP_ASM_OUT          \
					 : [p] "+m"(*p), "+a"(fl)                                  \
					 : [bit] "r"((uint##bits##_t)(bit & (bits - 1)))           \
					 : "cc", "memory");                                        \
			c->fl = fl;                                                                \
			CPU_NEXT(c, i);                                                            \
		}                                                                                  \
		for (;;) {                                                                         \
			uint##bits##_t old = *p, want;                                             \
			uint16_t old_fl = c->fl;                                                   \
			want = name##bits(c, old, (uint##bits##_t)bit);                            \
			fl = c->fl;                                                                \
			c->fl = old_fl;                                                            \
			if (cpu_mem_cmpxchg(c, i, &old, &want))                                    \
				break;                                                             \
		}                                                                                  \
		c->fl = fl;                                                                        \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_BT(bt, "btw", 16, false)
DEFINE_BT(bt, "btl", 32, false)
DEFINE_BT(bt, "btq", 64, false)
DEFINE_BT(bts, "btsw", 16, true)
DEFINE_BT(bts, "btsl", 32, true)
DEFINE_BT(bts, "btsq", 64, true)
DEFINE_BT(btr, "btrw", 16, true)
DEFINE_BT(btr, "btrl", 32, true)
DEFINE_BT(btr, "btrq", 64, true)
DEFINE_BT(btc, "btcw", 16, true)
DEFINE_BT(btc, "btcl", 32, true)
DEFINE_BT(btc, "btcq", 64, true)
DEFINE_BT_LOCK(bts, "btsw", 16)
DEFINE_BT_LOCK(bts, "btsl", 32)
DEFINE_BT_LOCK(bts, "btsq", 64)
DEFINE_BT_LOCK(btr, "btrw", 16)
DEFINE_BT_LOCK(btr, "btrl", 32)
DEFINE_BT_LOCK(btr, "btrq", 64)
DEFINE_BT_LOCK(btc, "btcw", 16)
DEFINE_BT_LOCK(btc, "btcl", 32)
DEFINE_BT_LOCK(btc, "btcq", 64)

enum { BIT_BT, BIT_BTS, BIT_BTR, BIT_BTC };
#define WIDE_SIZES(name, form)                                                                     \
	{                                                                                          \
		NULL, name##16_##form, name##32_##form, name##64_##form                            \
	}
static bool pick_bt(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn r[][4] = {WIDE_SIZES(bt, r), WIDE_SIZES(bts, r), WIDE_SIZES(btr, r),
					 WIDE_SIZES(btc, r)};
	static const cpu_op_fn m[][4] = {WIDE_SIZES(bt, m), WIDE_SIZES(bts, m), WIDE_SIZES(btr, m),
					 WIDE_SIZES(btc, m)};
	static const cpu_op_fn lock[][4] = {
		{NULL}, WIDE_SIZES(bts, lock), WIDE_SIZES(btr, lock), WIDE_SIZES(btc, lock)};
	unsigned log = op_size_log(op_bytes(d, 0));

	i->arg = op_is_imm(d, 1);
	if (op_is_mem(d, 0))
		i->fn = (op_locked(i) ? lock : m)[arg][log];
	else
		i->fn = op_locked(i) ? NULL : r[arg][log];
	return i->fn;
}

/* ---- one source, one destination
 * ------------------------------------------------------------------ */

/*
 * The host's instruction on whole registers, so that what silicon leaves in a destination it does
 * not write (BSF of zero) is left here too. Names: {bsf,bsr,lzcnt,tzcnt,popcnt}{16,32,64},
 * {blsi,blsmsk,blsr}{32,64}.
 */
#define DEFINE_SCAN(name, bits, mod)                                                               \
	static void name##bits(struct cpu *c, const struct cpu_insn *i)                            \
	{                                                                                          \
		uint64_t s = i->flags & CPU_INSN_MEM ? cpu_ld##bits(c, i, cpu_lin(c, i))           \
						     : CPU_REG64(c, i->r2);                        \
		uint64_t d = CPU_REG64(c, i->r1);                                                  \
		uint16_t fl = c->fl;                                                               \
		__asm__(OP_ASM_IN #name " %" mod "[s],%" mod "[d]" OP_ASM_OUT                      \
			: [d] "+r"(d), "+a"(fl)                                                    \
			: [s] "r"(s)                                                               \
			: "cc");                                                                   \
		c->fl = fl;                                                                        \
		CPU_REG64(c, i->r1) = d;                                                           \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_SCAN(bsf, 16, "w")
DEFINE_SCAN(bsf, 32, "k")
DEFINE_SCAN(bsf, 64, "q")
DEFINE_SCAN(bsr, 16, "w")
DEFINE_SCAN(bsr, 32, "k")
DEFINE_SCAN(bsr, 64, "q")
DEFINE_SCAN(lzcnt, 16, "w")
DEFINE_SCAN(lzcnt, 32, "k")
DEFINE_SCAN(lzcnt, 64, "q")
DEFINE_SCAN(tzcnt, 16, "w")
DEFINE_SCAN(tzcnt, 32, "k")
DEFINE_SCAN(tzcnt, 64, "q")
DEFINE_SCAN(popcnt, 16, "w")
DEFINE_SCAN(popcnt, 32, "k")
DEFINE_SCAN(popcnt, 64, "q")
DEFINE_SCAN(blsi, 32, "k")
DEFINE_SCAN(blsi, 64, "q")
DEFINE_SCAN(blsmsk, 32, "k")
DEFINE_SCAN(blsmsk, 64, "q")
DEFINE_SCAN(blsr, 32, "k")
DEFINE_SCAN(blsr, 64, "q")

enum { SCAN_BSF, SCAN_BSR, SCAN_LZCNT, SCAN_TZCNT, SCAN_POPCNT, SCAN_BLSI, SCAN_BLSMSK, SCAN_BLSR };
static bool pick_scan(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[][4] = {
		[SCAN_BSF] = {NULL, bsf16, bsf32, bsf64},
		[SCAN_BSR] = {NULL, bsr16, bsr32, bsr64},
		[SCAN_LZCNT] = {NULL, lzcnt16, lzcnt32, lzcnt64},
		[SCAN_TZCNT] = {NULL, tzcnt16, tzcnt32, tzcnt64},
		[SCAN_POPCNT] = {NULL, popcnt16, popcnt32, popcnt64},
		[SCAN_BLSI] = {NULL, NULL, blsi32, blsi64},
		[SCAN_BLSMSK] = {NULL, NULL, blsmsk32, blsmsk64},
		[SCAN_BLSR] = {NULL, NULL, blsr32, blsr64},
	};

	/* Before these existed, their encodings were BSR and BSF with a prefix that did nothing. */
	if (arg == SCAN_LZCNT && !cpu_has(d->c, CPU_FEAT_ABM))
		arg = SCAN_BSR;
	if (arg == SCAN_TZCNT && !cpu_has(d->c, CPU_FEAT_BMI1))
		arg = SCAN_BSF;
	i->fn = fn[arg][op_size_log(op_bytes(d, 0))];
	return i->fn && op_vex_allowed(d) && !op_locked(i);
}

/* ---- two sources, one destination
 * ----------------------------------------------------------------- */

/* The second and third operand; arg says which of them (1, 2) is in memory, 0: none. */
OP_INLINE void load_two(struct cpu *c, const struct cpu_insn *i, uint64_t *a, uint64_t *b)
{
	if (likely(!i->arg)) {
		*a = CPU_REG64(c, i->r2);
		*b = CPU_REG64(c, i->r3);
	} else {
		uint64_t m = cpu_ld(c, i, cpu_lin(c, i), i->size);

		*a = i->arg == 1 ? m : CPU_REG64(c, i->r2);
		*b = i->arg == 1 ? CPU_REG64(c, i->r2) : m;
	}
}

/*
 * a is the second operand as the manual writes it, b the third. Names:
 * {andn,bextr,bzhi,pdep,pext}{32,64}.
 */
#define DEFINE_TWO(name, bits, operands)                                                           \
	static void name##bits(struct cpu *c, const struct cpu_insn *i)                            \
	{                                                                                          \
		uint64_t a, b, d;                                                                  \
		uint16_t fl;                                                                       \
		load_two(c, i, &a, &b);                                                            \
		fl = c->fl;                                                                        \
		__asm__(OP_ASM_IN #name " " operands OP_ASM_OUT                                    \
			: [d] "=&r"(d), "+a"(fl)                                                   \
			: [a] "r"(a), [b] "r"(b)                                                   \
			: "cc");                                                                   \
		c->fl = fl;                                                                        \
		CPU_REG64(c, i->r1) = d;                                                           \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_TWO(andn, 32, "%k[b],%k[a],%k[d]")
DEFINE_TWO(andn, 64, "%q[b],%q[a],%q[d]")
DEFINE_TWO(bextr, 32, "%k[b],%k[a],%k[d]")
DEFINE_TWO(bextr, 64, "%q[b],%q[a],%q[d]")
DEFINE_TWO(bzhi, 32, "%k[b],%k[a],%k[d]")
DEFINE_TWO(bzhi, 64, "%q[b],%q[a],%q[d]")
DEFINE_TWO(pdep, 32, "%k[b],%k[a],%k[d]")
DEFINE_TWO(pdep, 64, "%q[b],%q[a],%q[d]")
DEFINE_TWO(pext, 32, "%k[b],%k[a],%k[d]")
DEFINE_TWO(pext, 64, "%q[b],%q[a],%q[d]")

/* MULX: r1 the high half, r2 the low; when they are the same register the high half stays. */
static void mulx(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t s = i->flags & CPU_INSN_MEM ? cpu_ld(c, i, cpu_lin(c, i), i->size)
					     : op_get(c, i->r3, i->size);

	if (i->size == 8) {
		unsigned __int128 v = (unsigned __int128)s * c->s.gpr[X86_RDX];

		CPU_REG64(c, i->r2) = (uint64_t)v;
		CPU_REG64(c, i->r1) = (uint64_t)(v >> 64);
	} else {
		uint64_t v = s * (uint32_t)c->s.gpr[X86_RDX];

		CPU_REG64(c, i->r2) = (uint32_t)v;
		CPU_REG64(c, i->r1) = v >> 32;
	}
	CPU_NEXT(c, i);
}

enum { TWO_ANDN, TWO_BEXTR, TWO_BZHI, TWO_PDEP, TWO_PEXT, TWO_MULX };
static bool pick_two(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[][2] = {
		[TWO_ANDN] = {andn32, andn64}, [TWO_BEXTR] = {bextr32, bextr64},
		[TWO_BZHI] = {bzhi32, bzhi64}, [TWO_PDEP] = {pdep32, pdep64},
		[TWO_PEXT] = {pext32, pext64}, [TWO_MULX] = {mulx, mulx},
	};

	i->size = (uint8_t)op_bytes(d, 0);
	i->arg = op_is_mem(d, 1) ? 1 : op_is_mem(d, 2) ? 2 : 0;
	i->fn = fn[arg][i->size == 8];
	return op_vex_allowed(d) && !op_locked(i);
}

/* ---- CRC32
 * ---------------------------------------------------------------------------------------- */

/* Names: crc32_{8,16,32,64}, by the source's size. The result is 32 bits wide, the top cleared. */
#define DEFINE_CRC32(bits, insn, mod)                                                              \
	static void crc32_##bits(struct cpu *c, const struct cpu_insn *i)                          \
	{                                                                                          \
		uint##bits##_t s = i->flags & CPU_INSN_MEM ? cpu_ld##bits(c, i, cpu_lin(c, i))     \
							   : CPU_REG##bits(c, i->r2);              \
		uint64_t d = CPU_REG32(c, i->r1);                                                  \
		__asm__(insn " %[s],%" mod "[d]" : [d] "+r"(d) : [s] "r"(s));                      \
		CPU_REG64(c, i->r1) = d;                                                           \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_CRC32(8, "crc32b", "k")
DEFINE_CRC32(16, "crc32w", "k")
DEFINE_CRC32(32, "crc32l", "k")
DEFINE_CRC32(64, "crc32q", "q")

static bool pick_crc32(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[4] = {crc32_8, crc32_16, crc32_32, crc32_64};

	i->fn = fn[op_size_log(op_bytes(d, 1))];
	return !op_locked(i);
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_BT, BIT_BT, pick_bt},
	{ZYDIS_MNEMONIC_BTS, BIT_BTS, pick_bt},
	{ZYDIS_MNEMONIC_BTR, BIT_BTR, pick_bt},
	{ZYDIS_MNEMONIC_BTC, BIT_BTC, pick_bt},
	{ZYDIS_MNEMONIC_BSF, SCAN_BSF, pick_scan},
	{ZYDIS_MNEMONIC_BSR, SCAN_BSR, pick_scan},
	{ZYDIS_MNEMONIC_LZCNT, SCAN_LZCNT, pick_scan},
	{ZYDIS_MNEMONIC_TZCNT, SCAN_TZCNT, pick_scan},
	{ZYDIS_MNEMONIC_POPCNT, SCAN_POPCNT, pick_scan},
	{ZYDIS_MNEMONIC_BLSI, SCAN_BLSI, pick_scan},
	{ZYDIS_MNEMONIC_BLSMSK, SCAN_BLSMSK, pick_scan},
	{ZYDIS_MNEMONIC_BLSR, SCAN_BLSR, pick_scan},
	{ZYDIS_MNEMONIC_ANDN, TWO_ANDN, pick_two},
	{ZYDIS_MNEMONIC_BEXTR, TWO_BEXTR, pick_two},
	{ZYDIS_MNEMONIC_BZHI, TWO_BZHI, pick_two},
	{ZYDIS_MNEMONIC_PDEP, TWO_PDEP, pick_two},
	{ZYDIS_MNEMONIC_PEXT, TWO_PEXT, pick_two},
	{ZYDIS_MNEMONIC_MULX, TWO_MULX, pick_two},
	{ZYDIS_MNEMONIC_CRC32, 0, pick_crc32},
};
const struct cpu_op_table cpu_ops_bits = {ops, ARRAY_SIZE(ops)};
