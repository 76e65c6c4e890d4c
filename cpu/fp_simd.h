/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between the table of SIMD mnemonics (simd_table.c) and what carries them out (op_sse.c). */
#ifndef UMBRA_CPU_FP_SIMD_H
#define UMBRA_CPU_FP_SIMD_H

#include "cpu/cpu_internal.h"

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
};
#define SIMD_ARITH(op)	   ((op) << 12)
#define SIMD_ARITH_OF(how) ((enum simd_arith)((how) >> 12 & 15))

bool cpu_pick_simd(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_simd_move(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_simd_part(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_simd_extract(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_maskmov(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
bool cpu_pick_emms(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);

/*
 * The exceptions (as MXCSR's flags) of an operation with SIMD_PS or SIMD_PD in @how on 16-byte
 * operands
 * @a and @b, where @mxcsr leaves overflow or underflow unmasked. Only those that the silicon would
 * set.
 */
uint32_t cpu_simd_exceptions(uint32_t mxcsr, unsigned how, const void *a, const void *b,
			     uint8_t imm);

#endif
