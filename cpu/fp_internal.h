/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What x87, MMX and SSE share: thunks, and the gates that every such instruction passes. */
#ifndef UMBRA_CPU_FP_INTERNAL_H
#define UMBRA_CPU_FP_INTERNAL_H

#include <immintrin.h>

#include "cpu/cpu_internal.h"

/*
 * A thunk is a handler made at decode time around the guest's own instruction, which is encoded
 * anew with fixed registers: XMM and MMX operands are 1 (ModRM.reg) and 2 (ModRM.rm), a GPR is
 * RCX, memory is what RDX points to. It loads the operands from the state, executes, and stores the
 * results, so what the instruction computes is the silicon's. RDI and RSI are a handler's
 * arguments.
 *
 * In the instruction r1 belongs to ModRM.reg, r2 to ModRM.rm: 16 times the number of an XMM or MMX
 * register, or the GPR's offset. Equal thunks are made once a process. Their number is bounded by
 * the forms there are (some hundreds) times 256 immediates: prefixes without effect are left out.
 */
typedef void (*cpu_thunk_fn)(struct cpu *c, const struct cpu_insn *i, void *mem);

#define THUNK_TAIL	BIT(0) /* continue with the next instruction, otherwise return */
#define THUNK_FLAGS_OUT BIT(1) /* take OF SF ZF AF PF CF from it */
#define THUNK_XMM0_IN	BIT(2)
#define THUNK_XMM0_OUT	BIT(3)
#define THUNK_AX_DX_IN	BIT(4) /* explicit string lengths */
#define THUNK_CX_OUT	BIT(5)

/* Sets i->r1, r2 and i->arg (THUNK_DEST_*). NULL when the arena is full (decoding then fails: #UD).
 */
cpu_thunk_fn cpu_thunk_simd(const struct cpu_dec *d, struct cpu_insn *i, unsigned how);
/* The same for VEX: r3 belongs to VEX.vvvv, i->arg to a fourth register, or has THUNK_DEST_GPR. */
cpu_thunk_fn cpu_thunk_avx(const struct cpu_dec *d, struct cpu_insn *i, unsigned how);
#define THUNK_DEST_XMM BIT(0) /* r1 (or r2) names what is written */
#define THUNK_DEST_GPR BIT(1)
#define THUNK_DEST_MMX BIT(2)
#define THUNK_DEST_FL  BIT(3)
#define THUNK_DEST_RM  BIT(4) /* r2, not r1 */
#define THUNK_USES_MMX BIT(5)

/*
 * For x87: load the FXSAVE image, execute, store it, leave the host's x87 as a function expects it.
 * The first argument is the flags word (in and out), the others the image and the memory operand.
 */
typedef void (*cpu_thunk_x87_fn)(uint16_t *fl, void *image, void *mem);
#define THUNK_X87_FLAGS_IN  BIT(0)
#define THUNK_X87_FLAGS_OUT BIT(1)
cpu_thunk_x87_fn cpu_thunk_x87(const struct cpu_dec *d, unsigned how);

/* SSE, MMX and x87 instructions that may not execute now: #UD or #NM by CR0 and CR4. */
void cpu_op_no_sse(struct cpu *c, const struct cpu_insn *i);
void cpu_op_no_mmx(struct cpu *c, const struct cpu_insn *i);

/* An x87 exception that waits for the next waiting instruction to report it. */
static inline bool cpu_x87_pending(const struct cpu *c)
{
	return c->s.fx.fsw & ~c->s.fx.fcw & 0x3f;
}

/* Turn the register stack so that its top is @top; what the registers hold stays. */
void cpu_x87_set_top(struct cpu_fx *fx, unsigned top);
/* Make FCW, FSW, .. what the silicon makes of them when it loads the image. */
void cpu_x87_normalise(struct cpu_fx *fx);
void cpu_x87_init(struct cpu_fx *fx);

/* What an MMX instruction does to the x87 state: top 0, all registers in use. */
static inline void cpu_mmx_enter(struct cpu *c)
{
	if (unlikely(c->s.fx.fsw & 0x3800))
		cpu_x87_set_top(&c->s.fx, 0);
	c->s.fx.ftw = 0xff;
}

/* MXCSR bits that may be set: the host's, as its instructions compute. */
uint32_t cpu_mxcsr_mask(void);
#define MXCSR_RESET   0x1f80u
#define MXCSR_FLAGS   0x3fu
#define MXCSR_CONTROL 0xffc0u /* all that a host can be asked for */
#define MXCSR_OM      0x400u
#define MXCSR_UM      0x800u
#define MXCSR_FZ      0x8000u

#define CPU_XMM(c, off) (*(__m128i_u *)((char *)(c)->s.fx.xmm + (off)))

/*
 * The linear address of a memory operand whose preludes were left out (cpu_dec.bare), because
 * something comes before its segment and alignment checks: a pending #MF, or what silicon changes
 * even on a fault.
 */
static inline uint64_t cpu_fp_lin(struct cpu *c, const struct cpu_insn *i, unsigned size,
				  bool write)
{
	/* An 80-bit number is aligned as its 64 bits are; for 16 bytes the caller has #GP. */
	const unsigned align = size == 10 ? 8 : size >= 16 ? 1 : size;
	uint64_t lin = cpu_ea(c, i);

	if ((c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		lin += c->lbase[i->seg];
	else if ((c->mode & CPU_MODE_FLAT) && i->seg <= X86_DS && (i->seg != X86_CS || !write))
		lin = (uint32_t)lin;
	else
		lin = cpu_seg_check(c, i, i->seg, lin, size, write);
	if (unlikely(c->mode & CPU_MODE_AC) && (lin & (align - 1)) && cpu_lin_canonical(c, lin))
		cpu_fault_err(c, i, X86_VEC_AC, 0);
	return lin;
}

/*
 * A handler whose locals have their address taken would call the next handler instead of jumping to
 * it, and the stack would grow with the block: what it does is a function of its own.
 */
#define CPU_BODY static __attribute__((noinline)) void
#define CPU_BODY_HANDLER(name)                                                                     \
	static void name(struct cpu *c, const struct cpu_insn *i)                                  \
	{                                                                                          \
		name##_body(c, i);                                                                 \
		CPU_NEXT(c, i);                                                                    \
	}

/* Guest memory, 16 bytes in one access as silicon does it; not for a race detector to see. */
static inline __m128i cpu_raw_ld128(const void *p)
{
	__m128i v;

	__asm__ volatile("movdqu %1,%0" : "=x"(v) : "m"(*(const uint8_t(*)[16])p));
	return v;
}

static inline void cpu_raw_st128(void *p, __m128i v)
{
	__asm__ volatile("movdqu %1,%0" : "=m"(*(uint8_t(*)[16])p) : "x"(v));
}

#endif
