/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between the table of SIMD mnemonics (simd_table.c) and what carries them out (op_sse.c). */
#ifndef UMBRA_CPU_FP_SIMD_H
#define UMBRA_CPU_FP_SIMD_H

#include "cpu/fp_internal.h"
#include "cpu/op_int.h"

#define SIMD_FP	       BIT(0) /* reads and writes MXCSR */
#define SIMD_FLAGS     BIT(1) /* writes the arithmetic flags */
#define SIMD_XMM0      BIT(2) /* XMM0 is an implicit source */
#define SIMD_STR_E     BIT(3) /* explicit lengths in RAX and RDX */
#define SIMD_STR_I     BIT(4) /* an index into ECX */
#define SIMD_STR_M     BIT(5) /* a mask into XMM0 */
#define SIMD_UNALIGNED BIT(6) /* 16 bytes of memory need not be aligned */
#define SIMD_PS	       BIT(7) /* may overflow or underflow; results are float .. */
#define SIMD_PD	       BIT(8) /* .. or double */
#define SIMD_SCALAR    BIT(9)
#define SIMD_HIGH      BIT(10) /* moves: the upper 8 bytes of the register */
#define SIMD_MERGE     BIT(11) /* moves: a load leaves the rest of the register */
/* With SIMD_PS or SIMD_PD: what is computed, in bits 15:12. */
enum simd_arith {
	SIMD_ARITH_ADD,
	SIMD_ARITH_SUB,
	SIMD_ARITH_MUL,
	SIMD_ARITH_DIV,
	SIMD_ARITH_ADDSUB,
	SIMD_ARITH_HADD,
	SIMD_ARITH_HSUB,
	SIMD_ARITH_DP,
	SIMD_ARITH_CVT,
	SIMD_ARITH_FMADD, /* a * b + c, .. */
	SIMD_ARITH_FMSUB,
	SIMD_ARITH_FNMADD,
	SIMD_ARITH_FNMSUB,
	SIMD_ARITH_FMADDSUB,
	SIMD_ARITH_FMSUBADD,
	SIMD_ARITH_CVT_HALF,
};
#define SIMD_ARITH(op)	   ((op) << 12)
#define SIMD_ARITH_OF(how) ((enum simd_arith)((how) >> 12 & 15))

/* In cpu_insn.arg, beside THUNK_DEST_* and SIMD_HOW_MASK, the bits that only tables use mean: */
#define SIMD_VEX   BIT(6)  /* ModRM.reg is not a source, r3 (VEX.vvvv) is */
#define SIMD_256   BIT(10) /* YMM registers */
#define SIMD_STORE BIT(11) /* memory is written, not read */
/* What cpu_simd_exceptions() wants to know; without PS and PD: it cannot overflow. */
#define SIMD_HOW_MASK (SIMD_PS | SIMD_PD | SIMD_SCALAR | SIMD_ARITH(15))

bool cpu_pick_simd(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_simd_move(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_simd_part(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_simd_extract(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_maskmov(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_emms(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);

bool cpu_pick_avx(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_avx_move(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_vzero(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_avx_maskmov(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_gather(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_vmaskmovdqu(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
/* True when the VEX instruction must fault for the mode, and fn says how. */
bool cpu_avx_gated(struct cpu_dec *d, struct cpu_insn *i);

/*
 * The exceptions (as MXCSR's flags) of an operation with SIMD_PS or SIMD_PD in @how on operands of
 * 16 or 32 bytes, where @mxcsr leaves overflow or underflow unmasked. Only those that the silicon
 * would set. With FMA imm says which are the factors: 0 c * b + a, 1 a * c + b, 2 a * b + c.
 */
struct simd_operands {
	const void *a, *b, *c;
	uint8_t imm;
};
uint32_t cpu_simd_exceptions(uint32_t mxcsr, unsigned how, const struct simd_operands *v);

/* ---- running a thunk ------------------------------------------------------------------------- */

#define THUNK_OF(i) ((cpu_thunk_fn)(uintptr_t)(i)->imm)
#define GO_THUNK                                                                                   \
	do {                                                                                       \
		THUNK_OF(i)(c, i, p);                                                              \
		return;                                                                            \
	} while (0)

/* With unmasked exceptions, or rounding of the guest's own. */
void cpu_fp_slow(struct cpu *c, const struct cpu_insn *i, void *mem);

/*
 * The host's own MXCSR stays at its default but for the flags, which are let lie as long as the
 * guest has them too: so neither needs to be loaded here.
 */
static inline void cpu_fp_run(struct cpu *c, const struct cpu_insn *i, void *mem)
{
	const uint32_t guest = c->s.fx.mxcsr;

	if (unlikely((guest & ~MXCSR_FLAGS) != MXCSR_RESET)) {
		cpu_fp_slow(c, i, mem);
		return;
	}
	if (unlikely(_mm_getcsr() & ~guest))
		_mm_setcsr(guest);
	THUNK_OF(i)(c, i, mem);
	c->s.fx.mxcsr = guest | _mm_getcsr();
}

/* ---- memory operands ------------------------------------------------------------------------- */

static inline uint64_t cpu_lin_aligned(struct cpu *c, const struct cpu_insn *i, unsigned align)
{
	uint64_t lin = cpu_lin(c, i);

	if (unlikely(lin & (align - 1)))
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	return lin;
}

/*
 * Handlers with a memory operand come in one form for each way to compute its address (enum op_ea).
 * What misses the TLB, or is not aligned (1: need not be), jumps to the slow twin. @body has the
 * host address p.
 */
#define DEFINE_MEM(name, bytes, write, align, body)                                                \
	OP_SLOW name##_slow(struct cpu *c, const struct cpu_insn *i)                               \
	{                                                                                          \
		uint64_t lin = cpu_lin_aligned(c, i, align);                                       \
		void *p = (write) ? cpu_mem_w(c, i, lin, bytes) : cpu_mem_r(c, i, lin, bytes);     \
		body;                                                                              \
		if (write)                                                                         \
			cpu_mem_done(c, i, p);                                                     \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	DEFINE_MEM_KIND(name, base, OP_EA_BASE, bytes, write, align, body)                         \
	DEFINE_MEM_KIND(name, index, OP_EA_INDEX, bytes, write, align, body)                       \
	DEFINE_MEM_KIND(name, any, OP_EA_ANY, bytes, write, align, body)                           \
	static const cpu_op_fn name[OP_EA_KINDS] = {name##_base, name##_index, name##_any};
#define DEFINE_MEM_KIND(name, suffix, kind, bytes, write, align, body)                             \
	static void name##_##suffix(struct cpu *c, const struct cpu_insn *i)                       \
	{                                                                                          \
		uint64_t lin = op_lin(c, i, kind);                                                 \
		void *p = op_try(c, lin, bytes, write);                                            \
                                                                                                   \
		if (unlikely(!p || (lin & ((align) - 1)))) {                                       \
			name##_slow(c, i);                                                         \
			return;                                                                    \
		}                                                                                  \
		body;                                                                              \
		CPU_NEXT(c, i);                                                                    \
	}

#endif
