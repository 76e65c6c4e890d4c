/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* AVX, AVX2, FMA and F16C: by thunks as SSE; moves by hand. Masked moves: op_avx_mem.c. */
#include <string.h>

#include "cpu/fp_simd.h"

/* ---- gates ----------------------------------------------------------------------------------- */

/* CR0.EM and CR4.OSFXSR do not matter to VEX; real and virtual 8086 mode have none. */
static void no_avx(struct cpu *c, const struct cpu_insn *i)
{
	if ((c->mode & CPU_MODE_PROT) && (c->s.cr4 & X86_CR4_OSXSAVE) && (c->s.xcr0 & X86_XCR0_AVX))
		cpu_fault(c, i, X86_VEC_NM);
	cpu_fault(c, i, X86_VEC_UD);
}

bool cpu_avx_gated(struct cpu_dec *d, struct cpu_insn *i)
{
	if (d->mode & CPU_MODE_AVX)
		return false;
	i->fn = no_avx;
	i->flags |= CPU_INSN_END;
	d->bare = true;
	return true;
}

/* ---- by thunk -------------------------------------------------------------------------------- */

/* Without a memory operand the thunk of an integer operation is the handler. */
DEFINE_MEM(int_32, 32, false, 1, GO_THUNK)
DEFINE_MEM(int_16, 16, false, 1, GO_THUNK)
DEFINE_MEM(int_8, 8, false, 1, GO_THUNK)
DEFINE_MEM(int_4, 4, false, 1, GO_THUNK)

static void int_any(struct cpu *c, const struct cpu_insn *i)
{
	THUNK_OF(i)(c, i, cpu_mem_r(c, i, cpu_lin(c, i), i->size));
}

DEFINE_MEM(fp_32, 32, false, 1, cpu_fp_run(c, i, p))
DEFINE_MEM(fp_16, 16, false, 1, cpu_fp_run(c, i, p))
DEFINE_MEM(fp_8, 8, false, 1, cpu_fp_run(c, i, p))
DEFINE_MEM(fp_4, 4, false, 1, cpu_fp_run(c, i, p))

static void fp_none(struct cpu *c, const struct cpu_insn *i)
{
	cpu_fp_run(c, i, NULL);
	CPU_NEXT(c, i);
}

static void int_store(struct cpu *c, const struct cpu_insn *i)
{
	void *p = cpu_mem_w(c, i, cpu_lin(c, i), i->size);

	THUNK_OF(i)(c, i, p);
	cpu_mem_done(c, i, p);
	CPU_NEXT(c, i);
}

/* VCVTPS2PH: its exceptions come before those of the store, and MXCSR has its flags then. */
CPU_BODY fp_store_body(struct cpu *c, const struct cpu_insn *i)
{
	uint8_t result[16];
	uint64_t lin;
	void *p;

	cpu_fp_run(c, i, result);
	lin = (c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64
		      ? cpu_lin(c, i)
		      : cpu_seg_check(c, i, i->seg, cpu_ea(c, i), i->size, true);
	p = cpu_mem_w(c, i, lin, i->size);
	if (i->size == 16)
		cpu_raw_st128(p, cpu_raw_ld128(result));
	else
		cpu_raw_st64(p, cpu_raw_ld64(result));
	cpu_mem_done(c, i, p);
}
CPU_BODY_HANDLER(fp_store)

/* ---- moves ----------------------------------------------------------------------------------- */

#define CPU_YMMH(c, off) (*(__m128i_u *)((char *)(c)->s.ymmh + (off)))

/* 32 bytes go in two halves, each of which is as atomic as silicon promises. */
static inline void load_ymm(struct cpu *c, const struct cpu_insn *i, const char *p)
{
	const __m128i lo = cpu_raw_ld128(p), hi = cpu_raw_ld128(p + 16);

	CPU_XMM(c, i->r1) = lo;
	CPU_YMMH(c, i->r1) = hi;
}

static inline void store_ymm(struct cpu *c, const struct cpu_insn *i, char *p)
{
	cpu_raw_st128(p, CPU_XMM(c, i->r1));
	cpu_raw_st128(p + 16, CPU_YMMH(c, i->r1));
}

static inline void load_xmm(struct cpu *c, const struct cpu_insn *i, const char *p)
{
	CPU_XMM(c, i->r1) = cpu_raw_ld128(p);
	CPU_YMMH(c, i->r1) = _mm_setzero_si128();
}

DEFINE_MEM(load_16a, 16, false, 16, load_xmm(c, i, p))
DEFINE_MEM(load_16u, 16, false, 1, load_xmm(c, i, p))
DEFINE_MEM(load_32a, 32, false, 32, load_ymm(c, i, p))
DEFINE_MEM(load_32u, 32, false, 1, load_ymm(c, i, p))
DEFINE_MEM(store_16a, 16, true, 16, cpu_raw_st128(p, CPU_XMM(c, i->r1)))
DEFINE_MEM(store_16u, 16, true, 1, cpu_raw_st128(p, CPU_XMM(c, i->r1)))
DEFINE_MEM(store_32a, 32, true, 32, store_ymm(c, i, p))
DEFINE_MEM(store_32u, 32, true, 1, store_ymm(c, i, p))

static void mov_xmm(struct cpu *c, const struct cpu_insn *i)
{
	CPU_XMM(c, i->r1) = CPU_XMM(c, i->r2);
	CPU_YMMH(c, i->r1) = _mm_setzero_si128();
	CPU_NEXT(c, i);
}

static void mov_ymm(struct cpu *c, const struct cpu_insn *i)
{
	CPU_XMM(c, i->r1) = CPU_XMM(c, i->r2);
	CPU_YMMH(c, i->r1) = CPU_YMMH(c, i->r2);
	CPU_NEXT(c, i);
}

/* Outside 64-bit mode the upper eight registers stay as they are. */
static void vzeroupper(struct cpu *c, const struct cpu_insn *i)
{
	memset(c->s.ymmh, 0, i->size);
	CPU_NEXT(c, i);
}

static void vzeroall(struct cpu *c, const struct cpu_insn *i)
{
	memset(c->s.ymmh, 0, i->arg);
	memset(c->s.fx.xmm, 0, i->arg);
	CPU_NEXT(c, i);
}

static void vzeroupper_16(struct cpu *c, const struct cpu_insn *i)
{
	memset(c->s.ymmh, 0, sizeof(c->s.ymmh));
	CPU_NEXT(c, i);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static const ZydisDecodedOperand *rm_operand(const struct cpu_dec *d)
{
	for (unsigned n = 0; n < d->zi.operand_count_visible; n++)
		if (d->op[n].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
			return &d->op[n];
	return NULL;
}

static cpu_op_fn choose_int(const struct cpu_insn *i)
{
	enum op_ea kind = op_ea_kind(i);

	switch (i->size) {
	case 32: return int_32[kind];
	case 16: return int_16[kind];
	case 8: return int_8[kind];
	case 4: return int_4[kind];
	default: return int_any;
	}
}

static cpu_op_fn choose_fp(const struct cpu_insn *i)
{
	enum op_ea kind = op_ea_kind(i);

	switch (i->size) {
	case 32: return fp_32[kind];
	case 16: return fp_16[kind];
	case 8: return fp_8[kind];
	default: return fp_4[kind];
	}
}

/* What cpu_fp_slow() wants to know. @extra: the immediate, or of FMA which operands are factors. */
static void describe_fp(const struct cpu_dec *d, struct cpu_insn *i, uint16_t arg, uint8_t imm)
{
	const bool fma = (arg & (SIMD_PS | SIMD_PD)) && SIMD_ARITH_OF(arg) >= SIMD_ARITH_FMADD &&
			 SIMD_ARITH_OF(arg) <= SIMD_ARITH_FMSUBADD;
	const uint8_t extra = fma ? (uint8_t)((d->zi.opcode >> 4) - 9) : imm;

	i->arg |= SIMD_VEX;
	if (d->zi.raw.vex.L)
		i->arg |= SIMD_256;
	if (arg & (SIMD_PS | SIMD_PD))
		i->arg |= arg & SIMD_HOW_MASK;
	if (i->flags & CPU_INSN_MEM)
		i->r2 = extra;
	else
		i->disp = extra;
}

bool cpu_pick_avx(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	const ZydisDecodedOperand *rm = rm_operand(d);
	const bool mem = d->zi.raw.modrm.mod != 3;
	const bool store = mem && rm && (rm->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
	const uint8_t imm = (uint8_t)i->imm;
	cpu_thunk_fn thunk;
	unsigned how = 0;

	if (d->zi.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false;
	if (cpu_avx_gated(d, i))
		return true;
	if (mem)
		i->size = (uint8_t)(rm->size / 8);
	how |= arg & SIMD_FLAGS ? THUNK_FLAGS_OUT : 0;
	how |= arg & SIMD_STR_E ? THUNK_AX_DX_IN : 0;
	how |= arg & SIMD_STR_I ? THUNK_CX_OUT : 0;
	how |= arg & SIMD_STR_M ? THUNK_XMM0_OUT : 0;
	how |= store || (arg & SIMD_FP) ? 0 : THUNK_TAIL;
	i->arg = 0;
	thunk = cpu_thunk_avx(d, i, how);
	if (!thunk)
		return false;
	i->imm = (uintptr_t)thunk;
	if (arg & SIMD_FP)
		describe_fp(d, i, arg, imm);
	if (store) {
		i->fn = arg & SIMD_FP ? fp_store : int_store;
		d->bare = arg & SIMD_FP;
		i->arg |= arg & SIMD_FP ? SIMD_STORE : 0;
	} else if (arg & SIMD_FP) {
		i->fn = mem ? choose_fp(i) : fp_none;
	} else {
		i->fn = mem ? choose_int(i) : (cpu_op_fn)(uintptr_t)thunk;
	}
	return true;
}

static uint8_t vector_slot(const ZydisDecodedOperand *o)
{
	return (uint8_t)(ZydisRegisterGetId(o->reg.value) * 16);
}

/* 16- and 32-byte moves. */
bool cpu_pick_avx_move(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	const bool wide = d->zi.raw.vex.L, unaligned = arg & SIMD_UNALIGNED;
	const enum op_ea kind = op_ea_kind(i);

	if (d->zi.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false;
	if (cpu_avx_gated(d, i))
		return true;
	if (d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
		i->r1 = vector_slot(&d->op[1]);
		i->fn = wide ? (unaligned ? store_32u : store_32a)[kind]
			     : (unaligned ? store_16u : store_16a)[kind];
		return true;
	}
	i->r1 = vector_slot(&d->op[0]);
	if (d->op[1].type == ZYDIS_OPERAND_TYPE_MEMORY) {
		i->fn = wide ? (unaligned ? load_32u : load_32a)[kind]
			     : (unaligned ? load_16u : load_16a)[kind];
		return true;
	}
	i->r2 = vector_slot(&d->op[1]);
	i->fn = wide ? mov_ymm : mov_xmm;
	return true;
}

bool cpu_pick_vzero(struct cpu_dec *d, struct cpu_insn *i, uint16_t all)
{
	const bool code64 = (d->mode & CPU_MODE_CODE) == CPU_MODE_CODE64;

	if (cpu_avx_gated(d, i))
		return true;
	i->size = 128;
	i->arg = code64 ? 256 : 128;
	i->fn = all ? vzeroall : code64 ? vzeroupper_16 : vzeroupper;
	return true;
}

bool cpu_pick_vmaskmovdqu(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	return cpu_avx_gated(d, i) || cpu_pick_maskmov(d, i, arg);
}
