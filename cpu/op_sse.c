/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SSE to SSE4.2, AES, PCLMULQDQ, SHA and all of MMX: by thunks; moves by hand. */
#include <string.h>

#include "cpu/fp_simd.h"

/* ---- gates ----------------------------------------------------------------------------------- */

void cpu_op_no_sse(struct cpu *c, const struct cpu_insn *i)
{
	if ((c->s.cr0 & X86_CR0_EM) || !(c->s.cr4 & X86_CR4_OSFXSR))
		cpu_fault(c, i, X86_VEC_UD);
	cpu_fault(c, i, X86_VEC_NM);
}

void cpu_op_no_mmx(struct cpu *c, const struct cpu_insn *i)
{
	cpu_fault(c, i, c->s.cr0 & X86_CR0_EM ? X86_VEC_UD : X86_VEC_NM);
}

uint32_t cpu_mxcsr_mask(void)
{
	static uint32_t mask;
	uint32_t m = __atomic_load_n(&mask, __ATOMIC_RELAXED);

	if (!m) {
		struct cpu_fx fx = {0};

		__asm__ volatile("fxsave64 %0" : "=m"(fx));
		m = fx.mxcsr_mask ? fx.mxcsr_mask : 0xffbf;
		__atomic_store_n(&mask, m, __ATOMIC_RELAXED);
	}
	return m;
}

/* ---- memory operands ------------------------------------------------------------------------- */

static inline void *mem_16a(struct cpu *c, const struct cpu_insn *i)
{
	/* Before the segment's limit, which may be #SS. */
	if (unlikely(cpu_lin(c, i) & 15))
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	return cpu_mem_r(c, i, cpu_fp_lin(c, i, 16, false), 16);
}

static inline void *mem_8(struct cpu *c, const struct cpu_insn *i)
{
	return cpu_mem_r(c, i, cpu_fp_lin(c, i, 8, false), 8);
}

static inline void *mem_4(struct cpu *c, const struct cpu_insn *i)
{
	return cpu_mem_r(c, i, cpu_fp_lin(c, i, 4, false), 4);
}

static inline void *mem_any(struct cpu *c, const struct cpu_insn *i)
{
	return cpu_mem_r(c, i, cpu_fp_lin(c, i, i->size, false), i->size);
}

static inline void *mem_none(struct cpu *c, const struct cpu_insn *i)
{
	return NULL;
}

/* ---- integer operations: the thunk goes on by itself ----------------------------------------- */

DEFINE_MEM(int_16a, 16, false, 16, GO_THUNK)
DEFINE_MEM(int_16u, 16, false, 1, GO_THUNK)
DEFINE_MEM(int_8, 8, false, 1, GO_THUNK)
DEFINE_MEM(int_4, 4, false, 1, GO_THUNK)

static void int_any(struct cpu *c, const struct cpu_insn *i)
{
	void *p = mem_any(c, i);

	THUNK_OF(i)(c, i, p);
}

/* ---- floating point: MXCSR in and out -------------------------------------------------------- */

/* Must the exceptions be found element by element, as the masked operation's flags do not tell? */
static bool flags_mislead(const struct cpu_insn *i, uint32_t guest)
{
	if (!(i->arg & (SIMD_PS | SIMD_PD)))
		return false;
	if (SIMD_ARITH_OF(i->arg) == SIMD_ARITH_DP)
		return ~guest & MXCSR_RESET;
	return ~guest & (MXCSR_OM | MXCSR_UM);
}

/* What an instruction may change. */
struct saved {
	struct cpu_fx fx;
	uint64_t ymmh[16][2];
	uint64_t gpr;
	uint16_t fl;
};

static void get_operand(const struct saved *s, unsigned slot, uint8_t out[32])
{
	memcpy(out, (const uint8_t *)s->fx.xmm + (slot & 0xf0), 16);
	memcpy(out + 16, (const uint8_t *)s->ymmh + (slot & 0xf0), 16);
}

static void copy_operand(void *to, const void *mem, unsigned size)
{
	uint8_t *out = to;

	switch (size) {
	case 32:
		cpu_raw_st128(out + 16,
			      cpu_raw_ld128((const uint8_t *)mem + 16)); /* fall through */
	case 16: cpu_raw_st128(out, cpu_raw_ld128(mem)); break;
	case 8: cpu_raw_st64(out, cpu_raw_ld64(mem)); break;
	default: cpu_raw_st32(out, cpu_raw_ld32(mem));
	}
}

/* The exceptions of what flags_mislead() is about; @s: before it ran. */
static uint32_t exceptions(const struct saved *s, const struct cpu_insn *i, const void *mem)
{
	const bool vex = i->arg & SIMD_VEX, store = vex && (i->arg & SIMD_STORE);
	uint8_t a[32], b[32], c[32];
	struct simd_operands v = {a, mem && !store ? mem : b, c, i->r3};

	get_operand(s, vex && SIMD_ARITH_OF(i->arg) != SIMD_ARITH_CVT_HALF ? i->r3 : i->r1, a);
	get_operand(s, i->r2, b);
	get_operand(s, i->r1, c);
	if (vex)
		v.imm = mem ? i->r2 : (uint8_t)i->disp;
	return cpu_simd_exceptions(s->fx.mxcsr, i->arg & (SIMD_HOW_MASK | SIMD_256), &v);
}

/*
 * The host runs with all masked; what the guest does not mask is found afterwards, and the results
 * taken back (SDM 1 11.5.2, 11.5.3).
 */
__attribute__((noinline, cold)) void cpu_fp_slow(struct cpu *c, const struct cpu_insn *i, void *mem)
{
	const uint32_t guest = c->s.fx.mxcsr;
	struct saved before = {.fx = c->s.fx, .gpr = CPU_REG64(c, i->r1 & 0x78), .fl = c->fl};
	uint32_t flags, unmasked;
	uint8_t copy[32] __attribute__((aligned(32)));

	memcpy(before.ymmh, c->s.ymmh, sizeof(before.ymmh));
	/* It is looked at twice, and others may write there. */
	if (mem && !((i->arg & SIMD_VEX) && (i->arg & SIMD_STORE))) {
		copy_operand(copy, mem, i->size);
		mem = copy;
	}
	_mm_setcsr((guest & MXCSR_CONTROL) | MXCSR_RESET);
	THUNK_OF(i)(c, i, mem);
	flags = _mm_getcsr() & MXCSR_FLAGS;
	_mm_setcsr(MXCSR_RESET);
	unmasked = flags & ~(guest >> 7);
	if (unmasked & 7)
		flags &= 7; /* found before computing: the others were never looked for */
	if (flags_mislead(i, guest)) {
		flags = exceptions(&before, i, mem);
		unmasked = flags & ~(guest >> 7);
	}
	if (unmasked) {
		c->s.fx = before.fx;
		memcpy(c->s.ymmh, before.ymmh, sizeof(before.ymmh));
		c->fl = before.fl;
		if (i->arg & THUNK_DEST_GPR)
			CPU_REG64(c, i->r1) = before.gpr;
		c->s.fx.mxcsr = guest | flags;
		cpu_fault(c, i, c->s.cr4 & X86_CR4_OSXMMEXCPT ? X86_VEC_XM : X86_VEC_UD);
	}
	c->s.fx.mxcsr = guest | flags;
}

#define DEFINE_FP(name)                                                                            \
	static void fp_##name(struct cpu *c, const struct cpu_insn *i)                             \
	{                                                                                          \
		cpu_fp_run(c, i, mem_##name(c, i));                                                \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_FP(16a)
DEFINE_FP(8)
DEFINE_FP(4)
DEFINE_FP(none)

/* ---- MMX ------------------------------------------------------------------------------------- */

static inline void mmx_begin(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely(cpu_x87_pending(c)))
		cpu_fault(c, i, X86_VEC_MF);
}

#define DEFINE_MMX(name)                                                                           \
	static void mmx_##name(struct cpu *c, const struct cpu_insn *i)                            \
	{                                                                                          \
		void *p;                                                                           \
                                                                                                   \
		mmx_begin(c, i);                                                                   \
		p = mem_##name(c, i);                                                              \
		cpu_mmx_enter(c);                                                                  \
		THUNK_OF(i)(c, i, p);                                                              \
	}
DEFINE_MMX(none)
DEFINE_MMX(8)
DEFINE_MMX(any)

/* Conversions between MMX and XMM registers. */
#define DEFINE_MMX_FP(name)                                                                        \
	static void mmx_fp_##name(struct cpu *c, const struct cpu_insn *i)                         \
	{                                                                                          \
		void *p;                                                                           \
                                                                                                   \
		mmx_begin(c, i);                                                                   \
		p = mem_##name(c, i);                                                              \
		cpu_mmx_enter(c);                                                                  \
		cpu_fp_run(c, i, p);                                                               \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_MMX_FP(none)
DEFINE_MMX_FP(8)
DEFINE_MMX_FP(16a)

static void emms(struct cpu *c, const struct cpu_insn *i)
{
	mmx_begin(c, i);
	cpu_mmx_enter(c);
	c->s.fx.ftw = 0;
	CPU_NEXT(c, i);
}

/* ---- moves ----------------------------------------------------------------------------------- */

static void mov_rr(struct cpu *c, const struct cpu_insn *i)
{
	CPU_XMM(c, i->r1) = CPU_XMM(c, i->r2);
	CPU_NEXT(c, i);
}

DEFINE_MEM(load_a, 16, false, 16, CPU_XMM(c, i->r1) = cpu_raw_ld128(p))
DEFINE_MEM(load_u, 16, false, 1, CPU_XMM(c, i->r1) = cpu_raw_ld128(p))
DEFINE_MEM(store_a, 16, true, 16, cpu_raw_st128(p, CPU_XMM(c, i->r1)))
DEFINE_MEM(store_u, 16, true, 1, cpu_raw_st128(p, CPU_XMM(c, i->r1)))

/* To the low part of the register, the rest of it zero. */
DEFINE_MEM(load_32z, 4, false, 1, CPU_XMM(c, i->r1) = _mm_cvtsi32_si128((int)cpu_raw_ld32(p)))
DEFINE_MEM(load_64z, 8, false, 1, CPU_XMM(c, i->r1) = _mm_cvtsi64_si128((long long)cpu_raw_ld64(p)))

/* A part of an XMM register: i->arg is its place, in bytes from the first register's. */
#define XMM_PART(c, i, type) (*(type *)((char *)(c)->s.fx.xmm + (i)->arg))

DEFINE_MEM(load_64, 8, false, 1, XMM_PART(c, i, uint64_t) = cpu_raw_ld64(p))
DEFINE_MEM(store_8, 1, true, 1, cpu_raw_st8(p, XMM_PART(c, i, uint8_t)))
DEFINE_MEM(store_16, 2, true, 1, cpu_raw_st16(p, XMM_PART(c, i, uint16_t)))
DEFINE_MEM(store_32, 4, true, 1, cpu_raw_st32(p, XMM_PART(c, i, uint32_t)))
DEFINE_MEM(store_64, 8, true, 1, cpu_raw_st64(p, XMM_PART(c, i, uint64_t)))

/* Silicon (Sapphire Rapids) has set the top when a store faults, not the tags. */
static inline void mmx_begin_store(struct cpu *c, const struct cpu_insn *i)
{
	mmx_begin(c, i);
	cpu_x87_set_top(&c->s.fx, 0);
}

static void mmx_store_64(struct cpu *c, const struct cpu_insn *i)
{
	mmx_begin_store(c, i);
	cpu_st64(c, i, cpu_fp_lin(c, i, 8, true), c->s.fx.st[i->r1 / 16].lo);
	cpu_mmx_enter(c);
	CPU_NEXT(c, i);
}

static void mmx_store_32(struct cpu *c, const struct cpu_insn *i)
{
	mmx_begin_store(c, i);
	cpu_st32(c, i, cpu_fp_lin(c, i, 4, true), (uint32_t)c->s.fx.st[i->r1 / 16].lo);
	cpu_mmx_enter(c);
	CPU_NEXT(c, i);
}

/* Where the bytes from @n on go, segment checked; offsets wrap as the address size has it. */
static uint64_t half_lin(struct cpu *c, const struct cpu_insn *i, unsigned n)
{
	uint64_t ea = cpu_ea(c, i) + n;

	if (i->asize != 8)
		ea = i->asize == 2 ? (uint16_t)ea : (uint32_t)ea;
	if ((c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		return ea + c->lbase[i->seg];
	return cpu_seg_check(c, i, i->seg, ea, 8, true);
}

/*
 * MASKMOVQ, MASKMOVDQU: byte by byte, as bytes that are masked off must not be touched. The access
 * is checked as a whole before: silicon faults for bytes that are masked off, too.
 */
static void masked_store(struct cpu *c, const struct cpu_insn *i, const uint8_t *data,
			 const uint8_t *mask, unsigned size)
{
	uint64_t lin[2] = {0};

	/* The upper half first, each by itself: faults and CR2 show it. */
	for (unsigned n = size; n; n -= 8) {
		uint64_t at = lin[n / 8 - 1] = half_lin(c, i, n - 8);

		if (unlikely(c->mode & CPU_MODE_AC) && (at & 7) && cpu_lin_canonical(c, at) &&
		    cpu_lin_canonical(c, at + 7))
			cpu_fault_err(c, i, X86_VEC_AC, 0);
		cpu_probe(c, i, at, 8, CPU_ACCESS_WRITE | (cpu_cpl(c) == 3 ? CPU_ACCESS_USER : 0));
	}
	for (unsigned n = 0; n < size; n++)
		if (mask[n] >> 7)
			cpu_st8(c, i, cpu_lin_wrap(c, lin[n / 8] + n % 8), data[n]);
}

static void maskmovdqu(struct cpu *c, const struct cpu_insn *i)
{
	masked_store(c, i, (uint8_t *)c->s.fx.xmm + i->r1, (uint8_t *)c->s.fx.xmm + i->r2, 16);
	CPU_NEXT(c, i);
}

static void maskmovq(struct cpu *c, const struct cpu_insn *i)
{
	const uint8_t *st = (const uint8_t *)c->s.fx.st;

	mmx_begin(c, i);
	cpu_mmx_enter(c); /* also when it faults */
	masked_store(c, i, st + i->r1, st + i->r2, 8);
	CPU_NEXT(c, i);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static const ZydisDecodedOperand *operand(const struct cpu_dec *d, ZydisOperandEncoding encoding)
{
	for (unsigned n = 0; n < d->zi.operand_count_visible; n++)
		if (d->op[n].encoding == encoding)
			return &d->op[n];
	return NULL;
}

static bool is_mem(const struct cpu_dec *d)
{
	return d->zi.raw.modrm.mod != 3;
}

/* The number of the register in ModRM.reg, times 16. */
static uint8_t reg_slot(const struct cpu_dec *d)
{
	const ZydisDecodedOperand *o = operand(d, ZYDIS_OPERAND_ENCODING_MODRM_REG);

	return (uint8_t)(o ? ZydisRegisterGetId(o->reg.value) * 16 : 0);
}

static uint8_t rm_slot(const struct cpu_dec *d)
{
	const ZydisDecodedOperand *o = operand(d, ZYDIS_OPERAND_ENCODING_MODRM_RM);

	return (uint8_t)(o ? ZydisRegisterGetId(o->reg.value) * 16 : 0);
}

static bool has_class(const struct cpu_dec *d, ZydisRegisterClass cls)
{
	for (unsigned n = 0; n < d->zi.operand_count_visible; n++)
		if (d->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(d->op[n].reg.value) == cls)
			return true;
	return false;
}

/* True when the instruction must fault for the mode, and fn says how. */
static bool gated(struct cpu_dec *d, struct cpu_insn *i)
{
	bool xmm = has_class(d, ZYDIS_REGCLASS_XMM);

	if (xmm && (d->mode & CPU_MODE_NO_SSE))
		i->fn = cpu_op_no_sse;
	else if (!xmm && (d->mode & CPU_MODE_NO_X87))
		i->fn = cpu_op_no_mmx;
	else
		return false;
	i->flags |= CPU_INSN_END;
	d->bare = true;
	return true;
}

static cpu_op_fn choose_int(const struct cpu_insn *i, bool unaligned)
{
	enum op_ea kind = op_ea_kind(i);

	switch (i->size) {
	case 16: return unaligned ? int_16u[kind] : int_16a[kind];
	case 8: return int_8[kind];
	case 4: return int_4[kind];
	default: return int_any;
	}
}

static cpu_op_fn choose_fp(const struct cpu_insn *i)
{
	return i->size == 16 ? fp_16a : i->size == 8 ? fp_8 : fp_4;
}

static cpu_op_fn choose_mmx_fp(const struct cpu_insn *i)
{
	return i->size == 16 ? mmx_fp_16a : mmx_fp_8;
}

bool cpu_pick_simd(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	bool mem = is_mem(d), mmx = has_class(d, ZYDIS_REGCLASS_MMX);
	cpu_thunk_fn thunk;
	unsigned how = 0;

	if (gated(d, i))
		return true;
	i->arg = 0;
	if (mem) {
		const ZydisDecodedOperand *o = operand(d, ZYDIS_OPERAND_ENCODING_MODRM_RM);

		if (!o || (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			return false;
		i->size = (uint8_t)(o->size / 8);
	}
	how |= arg & SIMD_FLAGS ? THUNK_FLAGS_OUT : 0;
	how |= arg & SIMD_XMM0 ? THUNK_XMM0_IN : 0;
	how |= arg & SIMD_STR_E ? THUNK_AX_DX_IN : 0;
	how |= arg & SIMD_STR_I ? THUNK_CX_OUT : 0;
	how |= arg & SIMD_STR_M ? THUNK_XMM0_OUT : 0;
	how |= arg & SIMD_FP ? 0 : THUNK_TAIL;
	thunk = cpu_thunk_simd(d, i, how);
	if (!thunk)
		return false;
	i->arg |= arg & (SIMD_PS | SIMD_PD) ? arg & SIMD_HOW_MASK : 0;
	i->r3 = (uint8_t)i->imm;
	i->imm = (uintptr_t)thunk;
	d->bare = mem && (mmx || (arg & SIMD_FP));
	if (mmx && (arg & SIMD_FP))
		i->fn = mem ? choose_mmx_fp(i) : mmx_fp_none;
	else if (mmx && mem)
		i->fn = i->size == 8 ? mmx_8 : mmx_any;
	else if (mmx)
		i->fn = mmx_none;
	else if (arg & SIMD_FP)
		i->fn = mem ? choose_fp(i) : fp_none;
	else
		i->fn = mem ? choose_int(i, arg & SIMD_UNALIGNED) : (cpu_op_fn)(uintptr_t)i->imm;
	return true;
}

/* 16-byte moves; MMX's MOVQ is not here. */
bool cpu_pick_simd_move(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	bool store = is_mem(d) && d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
	bool to_rm = d->op[0].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;

	if (gated(d, i))
		return true;
	i->r1 = reg_slot(d);
	if (store) {
		i->fn = (arg & SIMD_UNALIGNED ? store_u : store_a)[op_ea_kind(i)];
	} else if (is_mem(d)) {
		i->fn = (arg & SIMD_UNALIGNED ? load_u : load_a)[op_ea_kind(i)];
	} else {
		i->r2 = rm_slot(d);
		if (to_rm) {
			i->r2 = i->r1;
			i->r1 = rm_slot(d);
		}
		i->fn = mov_rr;
	}
	return true;
}

/* Stores of a part of a register: the low 4 or 8 bytes, the high 8, or the one an immediate names.
 */
static bool pick_store_part(struct cpu_dec *d, struct cpu_insn *i, unsigned part)
{
	const unsigned size = d->op[0].size / 8;

	i->arg = (uint16_t)(reg_slot(d) + part);
	switch (size) {
	case 1: i->fn = store_8[op_ea_kind(i)]; break;
	case 2: i->fn = store_16[op_ea_kind(i)]; break;
	case 4: i->fn = store_32[op_ea_kind(i)]; break;
	default: i->fn = store_64[op_ea_kind(i)];
	}
	return true;
}

/* MOVD, MOVQ, MOVSS, MOVSD, MOVLPx, MOVHPx, MOVNTQ: with memory by hand, else as any other. */
bool cpu_pick_simd_part(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	bool store = is_mem(d) && d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY;

	if (!is_mem(d))
		return cpu_pick_simd(d, i, 0);
	if (gated(d, i))
		return true;
	if (has_class(d, ZYDIS_REGCLASS_MMX)) {
		if (!store)
			return cpu_pick_simd(d, i, 0);
		d->bare = true;
		i->r1 = reg_slot(d);
		i->fn = d->op[0].size == 64 ? mmx_store_64 : mmx_store_32;
		return true;
	}
	if (store)
		return pick_store_part(d, i, arg & SIMD_HIGH ? 8 : 0);
	i->r1 = reg_slot(d);
	i->arg = (uint16_t)(i->r1 + (arg & SIMD_HIGH ? 8 : 0));
	if (arg & SIMD_MERGE)
		i->fn = load_64[op_ea_kind(i)];
	else
		i->fn = (d->op[1].size == 64 ? load_64z : load_32z)[op_ea_kind(i)];
	return true;
}

/* PEXTRx and EXTRACTPS. */
bool cpu_pick_simd_extract(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	unsigned size = d->op[0].size / 8;

	if (!is_mem(d))
		return cpu_pick_simd(d, i, 0);
	if (gated(d, i))
		return true;
	return pick_store_part(d, i, (d->op[2].imm.value.u & (16 / size - 1)) * size);
}

bool cpu_pick_maskmov(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (gated(d, i))
		return true;
	i->r1 = reg_slot(d);
	i->r2 = rm_slot(d);
	i->base = X86_RDI;
	i->seg = X86_DS;
	for (unsigned n = d->zi.operand_count_visible; n < d->zi.operand_count; n++)
		if (d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
			i->seg = (uint8_t)(d->op[n].mem.segment - ZYDIS_REGISTER_ES);
	if ((d->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 && i->seg < X86_FS)
		i->seg = CPU_SEG_NONE;
	i->fn = has_class(d, ZYDIS_REGCLASS_MMX) ? maskmovq : maskmovdqu;
	return true;
}

bool cpu_pick_emms(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (!gated(d, i))
		i->fn = emms;
	return true;
}
