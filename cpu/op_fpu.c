/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* x87: arithmetic by thunks on the FXSAVE image; control, environment and state by hand. */
#include <string.h>

#include "cpu/fp_internal.h"

#define FSW_TOP_SHIFT 11
#define FSW_TOP	      (7u << FSW_TOP_SHIFT)
#define FSW_ES	      BIT(7)
#define FSW_IE	      BIT(0)
#define FSW_OE	      BIT(3)
#define FSW_UE	      BIT(4)
#define FSW_FLAGS     0x3fu
#define FCW_RESET     0x37fu

/* The x87 part of an FXSAVE image. */
#define X87_BYTES offsetof(struct cpu_fx, xmm)
static_assert(X87_BYTES == 160, "header and eight registers");

/* Pointers that no thunk leaves behind, canonical, to see whether the silicon wrote its own. */
#define FIP_NONE 0x00006a5a12345678ull
#define FDP_NONE 0x00006b5b87654321ull

/* ---- the state ------------------------------------------------------------------------------- */

static unsigned fx_top(const struct cpu_fx *fx)
{
	return fx->fsw >> FSW_TOP_SHIFT & 7;
}

void cpu_x87_set_top(struct cpu_fx *fx, unsigned top)
{
	unsigned turn = (top - fx_top(fx)) & 7;
	struct cpu_fx old;

	if (turn) {
		memcpy(old.st, fx->st, sizeof(old.st));
		for (unsigned n = 0; n < 8; n++)
			fx->st[n] = old.st[(n + turn) & 7];
	}
	fx->fsw = (uint16_t)((fx->fsw & ~FSW_TOP) | top << FSW_TOP_SHIFT);
}

static inline void image_load(struct cpu_fx *image, const struct cpu_fx *fx)
{
	memcpy(image, fx, X87_BYTES);
	image->mxcsr = MXCSR_RESET;
}

void cpu_x87_normalise(struct cpu_fx *fx)
{
	struct cpu_fx image;

	image_load(&image, fx);
	__asm__ volatile("fxrstor64 %0\n\tfxsave64 %0\n\tfninit"
			 : "+m"(image)
			 :
			 : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	fx->fcw = image.fcw;
	fx->fsw = image.fsw;
	fx->ftw = image.ftw;
	fx->fop = image.fop;
	fx->fip = image.fip;
	fx->fdp = image.fdp;
	fx->pad = 0;
	for (unsigned n = 0; n < 8; n++) {
		fx->st[n].lo = image.st[n].lo;
		fx->st[n].hi = image.st[n].hi & 0xffff;
	}
}

void cpu_x87_init(struct cpu_fx *fx)
{
	cpu_x87_set_top(fx, 0);
	fx->fcw = FCW_RESET;
	fx->fsw = 0;
	fx->ftw = 0;
	fx->fop = 0;
	fx->fip = fx->fdp = 0;
}

static __attribute__((noinline, cold, noreturn)) void fault_mf(struct cpu *c,
							       const struct cpu_insn *i)
{
	/* With CR0.NE clear a PC's chipset would answer FERR# with IRQ 13; nothing here is wired to
	 * it. */
	cpu_fault(c, i, X86_VEC_MF);
}

static inline void wait_check(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely(cpu_x87_pending(c)))
		fault_mf(c, i);
}

/* The instruction's own address, as FIP holds it. */
static uint64_t insn_rip(const struct cpu *c, const struct cpu_insn *i)
{
	uint64_t rip = c->bip + i->off;

	return (c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 ? rip : (uint32_t)rip;
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

/*
 * In the instruction: imm is the thunk, arg the guest's FOP, r3 the ModRM byte that the thunk has.
 */

static uint16_t native_fop(const struct cpu_insn *i)
{
	return (uint16_t)((i->arg & 0x700) | i->r3);
}

/* Execute on the image, and keep what changed but for the thunk's own addresses. */
static void x87_execute(struct cpu *c, const struct cpu_insn *i, struct cpu_fx *image, void *mem)
{
	const uint16_t fop = native_fop(i), no_fop = fop ^ 0x7ff;
	struct cpu_fx *fx = &c->s.fx;

	image_load(image, fx);
	image->fip = FIP_NONE;
	image->fdp = FDP_NONE;
	image->fop = no_fop;
	((cpu_thunk_x87_fn)(uintptr_t)i->imm)(&c->fl, image, mem);
	image->fip = image->fip == FIP_NONE ? fx->fip : insn_rip(c, i);
	image->fop = image->fop == no_fop ? fx->fop : i->arg;
	if (image->fdp == FDP_NONE)
		image->fdp = fx->fdp;
	else
		image->fdp = i->flags & CPU_INSN_MEM ? cpu_ea(c, i) : 0;
}

static inline void x87_commit(struct cpu *c, const struct cpu_fx *image)
{
	struct cpu_fx *fx = &c->s.fx;

	memcpy(fx, image, offsetof(struct cpu_fx, mxcsr));
	memcpy(fx->st, image->st, sizeof(fx->st));
}

CPU_BODY x87_reg_body(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_fx image;

	wait_check(c, i);
	x87_execute(c, i, &image, NULL);
	x87_commit(c, &image);
}
CPU_BODY_HANDLER(x87_reg)

CPU_BODY x87_load_body(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_fx image;
	void *p;

	wait_check(c, i);
	p = cpu_mem_r(c, i, cpu_fp_lin(c, i, i->size, false), i->size);
	x87_execute(c, i, &image, p);
	x87_commit(c, &image);
}
CPU_BODY_HANDLER(x87_load)

/* An 80-bit operand is two accesses, each checked by itself: its last two bytes. */
static uint64_t exponent_lin(struct cpu *c, const struct cpu_insn *i, uint64_t lin, bool write)
{
	if ((c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		return lin + 8;
	return cpu_seg_check(c, i, i->seg, cpu_ea(c, i) + 8, 2, write);
}

static void load_80(struct cpu *c, const struct cpu_insn *i, uint8_t *mem)
{
	uint64_t lin = cpu_fp_lin(c, i, 8, false), lo = cpu_ld64(c, i, lin);
	uint16_t hi;

	hi = cpu_ld16(c, i, exponent_lin(c, i, lin, false));
	memcpy(mem, &lo, 8);
	memcpy(mem + 8, &hi, 2);
}

CPU_BODY x87_load_80_body(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_fx image;
	uint8_t mem[16];

	wait_check(c, i);
	load_80(c, i, mem);
	x87_execute(c, i, &image, mem);
	x87_commit(c, &image);
}
CPU_BODY_HANDLER(x87_load_80)

/* Unmasked, these leave memory and stack as they were; an unmasked #P does not. */
static bool store_suppressed(const struct cpu_fx *image)
{
	return image->fsw & ~image->fcw & (FSW_IE | FSW_OE | FSW_UE);
}

/* In the pieces that silicon stores; nothing of the state changes when one faults. */
static void store_bytes(struct cpu *c, const struct cpu_insn *i, const uint8_t *mem)
{
	uint64_t lin = cpu_fp_lin(c, i, MIN(i->size, 8u), true), lo;

	memcpy(&lo, mem, 8);
	switch (i->size) {
	case 2: cpu_st16(c, i, lin, (uint16_t)lo); break;
	case 4: cpu_st32(c, i, lin, (uint32_t)lo); break;
	default:
		cpu_st64(c, i, lin, lo);
		if (i->size == 10)
			cpu_st16(c, i, exponent_lin(c, i, lin, true),
				 (uint16_t)(mem[8] | mem[9] << 8));
	}
}

CPU_BODY x87_store_body(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_fx image;
	uint8_t mem[16] = {0};

	wait_check(c, i);
	x87_execute(c, i, &image, mem);
	if (!store_suppressed(&image))
		store_bytes(c, i, mem);
	x87_commit(c, &image);
}
CPU_BODY_HANDLER(x87_store)

/* ---- control --------------------------------------------------------------------------------- */

static void fwait(struct cpu *c, const struct cpu_insn *i)
{
	if ((c->s.cr0 & (X86_CR0_MP | X86_CR0_TS)) == (X86_CR0_MP | X86_CR0_TS))
		cpu_fault(c, i, X86_VEC_NM);
	wait_check(c, i);
	CPU_NEXT(c, i);
}

static void fnop_287(struct cpu *c, const struct cpu_insn *i)
{
	CPU_NEXT(c, i);
}

CPU_BODY fninit_body(struct cpu *c, const struct cpu_insn *i)
{
	cpu_x87_init(&c->s.fx);
}
CPU_BODY_HANDLER(fninit)

static void fnclex(struct cpu *c, const struct cpu_insn *i)
{
	c->s.fx.fsw &= 0x7f00;
	CPU_NEXT(c, i);
}

static void fnstsw_ax(struct cpu *c, const struct cpu_insn *i)
{
	CPU_REG16(c, 0) = c->s.fx.fsw;
	CPU_NEXT(c, i);
}

static void fnstsw(struct cpu *c, const struct cpu_insn *i)
{
	cpu_st16(c, i, cpu_lin(c, i), c->s.fx.fsw);
	CPU_NEXT(c, i);
}

static void fnstcw(struct cpu *c, const struct cpu_insn *i)
{
	cpu_st16(c, i, cpu_lin(c, i), c->s.fx.fcw);
	CPU_NEXT(c, i);
}

CPU_BODY fldcw_body(struct cpu *c, const struct cpu_insn *i)
{
	wait_check(c, i);
	c->s.fx.fcw = cpu_ld16(c, i, cpu_fp_lin(c, i, 2, false));
	cpu_x87_normalise(&c->s.fx);
}
CPU_BODY_HANDLER(fldcw)

/* ---- environment ----------------------------------------------------------------------------- */

enum env_format { ENV_PROT16, ENV_PROT32, ENV_REAL16, ENV_REAL32 };

static unsigned env_size(enum env_format f)
{
	return f == ENV_PROT32 || f == ENV_REAL32 ? 28 : 14;
}

/* The two-bit tags, which FXSAVE's image abridges. */
static uint16_t full_tags(const struct cpu_fx *fx)
{
	unsigned top = fx_top(fx), tags = 0;

	for (unsigned r = 0; r < 8; r++) {
		uint64_t man = fx->st[(r - top) & 7].lo;
		unsigned exp = fx->st[(r - top) & 7].hi & 0x7fff, tag;

		if (!(fx->ftw >> r & 1))
			tag = 3;
		else if (exp == 0x7fff || (exp && !(man >> 63)))
			tag = 2;
		else if (exp == 0)
			tag = man ? 2 : 1;
		else
			tag = 0;
		tags |= tag << (r * 2);
	}
	return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t tags)
{
	uint8_t ftw = 0;

	for (unsigned r = 0; r < 8; r++)
		ftw |= (uint8_t)(((tags >> (r * 2) & 3) != 3) << r);
	return ftw;
}

/* SDM 1, figures 8-9 to 8-12. FCS and FDS are deprecated: zero. */
static void env_store(const struct cpu_fx *fx, enum env_format f, uint8_t *out)
{
	uint32_t fip = (uint32_t)fx->fip, fdp = (uint32_t)fx->fdp, e32[7];
	uint16_t e16[7] = {fx->fcw, fx->fsw, full_tags(fx), (uint16_t)fip, 0, (uint16_t)fdp, 0};

	if (f == ENV_REAL16) {
		e16[4] = (uint16_t)((fip >> 4 & 0xf000) | (fx->fop & 0x7ff));
		e16[6] = fdp >> 4 & 0xf000;
	}
	if (env_size(f) == 14) {
		memcpy(out, e16, 14);
		return;
	}
	e32[0] = 0xffff0000 | e16[0];
	e32[1] = 0xffff0000 | e16[1];
	e32[2] = 0xffff0000 | e16[2];
	if (f == ENV_PROT32) {
		e32[3] = fip;
		e32[4] = (uint32_t)(fx->fop & 0x7ff) << 16;
		e32[5] = fdp;
		e32[6] = 0xffff0000;
	} else {
		e32[3] = 0xffff0000 | (fip & 0xffff);
		e32[4] = (fip >> 16) << 12 | (fx->fop & 0x7ff);
		e32[5] = 0xffff0000 | (fdp & 0xffff);
		e32[6] = (fdp >> 16) << 12;
	}
	memcpy(out, e32, 28);
}

/* The top changes without the registers moving. */
static void env_load(struct cpu_fx *fx, enum env_format f, const uint8_t *in)
{
	uint16_t e16[7], fsw;
	uint32_t e32[7];

	if (env_size(f) == 14) {
		memcpy(e16, in, 14);
		for (unsigned n = 0; n < 7; n++)
			e32[n] = e16[n];
		fx->fop = f == ENV_REAL16 ? e16[4] & 0x7ff : 0;
		fx->fip = e16[3] | (f == ENV_REAL16 ? (e16[4] & 0xf000u) << 4 : 0);
		fx->fdp = e16[5] | (f == ENV_REAL16 ? (e16[6] & 0xf000u) << 4 : 0);
	} else {
		memcpy(e32, in, 28);
		if (f == ENV_PROT32) {
			fx->fop = e32[4] >> 16 & 0x7ff;
			fx->fip = e32[3];
			fx->fdp = e32[5];
		} else {
			fx->fop = e32[4] & 0x7ff;
			fx->fip = (e32[3] & 0xffff) | (e32[4] >> 12 & 0xffff) << 16;
			fx->fdp = (e32[5] & 0xffff) | (e32[6] >> 12 & 0xffff) << 16;
		}
	}
	fx->fcw = (uint16_t)e32[0];
	fsw = (uint16_t)e32[1];
	cpu_x87_set_top(fx, fsw >> FSW_TOP_SHIFT & 7);
	fx->fsw = fsw;
	fx->ftw = abridged_tags((uint16_t)e32[2]);
	cpu_x87_normalise(fx);
}

/*
 * The areas of FNSTENV, FNSAVE, FLDENV and FRSTOR. Silicon looks at the control word, then at the
 * last byte, and only then at the rest, piece by piece: segment checks and CR2 show it.
 */
struct env_area {
	uint8_t *bytes;
	unsigned len, word; /* a word of the environment */
	bool write;
};

static uint64_t piece_lin(struct cpu *c, const struct cpu_insn *i, const struct env_area *a,
			  unsigned off, unsigned size)
{
	if ((c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		return cpu_lin(c, i) + off;
	return cpu_seg_check(c, i, i->seg, cpu_ea(c, i) + off, size, a->write);
}

static unsigned piece_size(const struct env_area *a, unsigned off)
{
	if (off < 7 * a->word)
		return a->word;
	return (off - 7 * a->word) % 10 ? 2 : 8;
}

static void area_access(struct cpu *c, const struct cpu_insn *i, const struct env_area *a)
{
	unsigned access =
		(a->write ? CPU_ACCESS_WRITE : 0) | (cpu_cpl(c) == 3 ? CPU_ACCESS_USER : 0);

	cpu_probe(c, i, piece_lin(c, i, a, 0, a->word), a->word, access);
	cpu_probe(c, i, piece_lin(c, i, a, a->len - 1, 1), 1, access);
	for (unsigned off = 0, n; off < a->len; off += n) {
		n = piece_size(a, off);
		cpu_probe(c, i, piece_lin(c, i, a, off, n), n, access);
	}
	for (unsigned off = 0, n; off < a->len; off += n) {
		uint64_t lin;

		n = piece_size(a, off);
		lin = piece_lin(c, i, a, off, n);
		if (a->write)
			cpu_copy_out(c, i, lin, a->bytes + off, n);
		else
			cpu_copy_in(c, i, a->bytes + off, lin, n);
	}
}

static void access_env(struct cpu *c, const struct cpu_insn *i, uint8_t *bytes, unsigned registers,
		       bool write)
{
	unsigned env = env_size(i->arg);
	const struct env_area a = {bytes, env + registers, env / 7, write};

	area_access(c, i, &a);
}

CPU_BODY fnstenv_body(struct cpu *c, const struct cpu_insn *i)
{
	uint8_t env[28];

	env_store(&c->s.fx, i->arg, env);
	access_env(c, i, env, 0, true);
	c->s.fx.fcw |= FSW_FLAGS;
	c->s.fx.fsw &= (uint16_t)~0x8080;
}
CPU_BODY_HANDLER(fnstenv)

CPU_BODY fldenv_body(struct cpu *c, const struct cpu_insn *i)
{
	uint8_t env[28];

	wait_check(c, i);
	access_env(c, i, env, 0, false);
	env_load(&c->s.fx, i->arg, env);
}
CPU_BODY_HANDLER(fldenv)

CPU_BODY fnsave_body(struct cpu *c, const struct cpu_insn *i)
{
	unsigned env = env_size(i->arg);
	uint8_t area[108];

	env_store(&c->s.fx, i->arg, area);
	for (unsigned n = 0; n < 8; n++)
		memcpy(area + env + 10 * n, &c->s.fx.st[n], 10);
	access_env(c, i, area, 80, true);
	cpu_x87_init(&c->s.fx);
}
CPU_BODY_HANDLER(fnsave)

CPU_BODY frstor_body(struct cpu *c, const struct cpu_insn *i)
{
	unsigned env = env_size(i->arg);
	uint8_t area[108];

	wait_check(c, i);
	access_env(c, i, area, 80, false);
	env_load(&c->s.fx, i->arg, area);
	for (unsigned n = 0; n < 8; n++) {
		c->s.fx.st[n].hi = 0;
		memcpy(&c->s.fx.st[n], area + env + 10 * n, 10);
	}
}
CPU_BODY_HANDLER(frstor)

/* ---- choosing -------------------------------------------------------------------------------- */

static bool gated(struct cpu_dec *d, struct cpu_insn *i)
{
	if (!(d->mode & CPU_MODE_NO_X87))
		return false;
	i->fn = cpu_op_nm;
	i->flags |= CPU_INSN_END;
	d->bare = true;
	return true;
}

static bool pick_arith(struct cpu_dec *d, struct cpu_insn *i, uint16_t how)
{
	const uint8_t *op = d->bytes + d->zi.raw.modrm.offset;
	bool mem = d->zi.raw.modrm.mod != 3;

	if (gated(d, i))
		return true;
	i->arg = (uint16_t)((op[-1] & 7) << 8 | op[0]);
	i->r3 = mem ? (op[0] & 0x38) | 2 : op[0];
	i->imm = (uintptr_t)cpu_thunk_x87(d, how);
	if (!i->imm)
		return false;
	i->fn = x87_reg;
	if (mem) {
		const ZydisDecodedOperand *o = &d->op[0];

		d->bare = true;
		i->size = (uint8_t)(o->size / 8);
		if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			i->fn = x87_store;
		else
			i->fn = i->size == 10 ? x87_load_80 : x87_load;
	}
	return true;
}

/* Instructions that look at nothing but the gate. */
enum control { C_NOP, C_INIT, C_CLEX, C_STSW, C_STCW, C_LDCW };

static bool pick_control(struct cpu_dec *d, struct cpu_insn *i, uint16_t which)
{
	static const cpu_op_fn fn[] = {fnop_287, fninit, fnclex, fnstsw, fnstcw, fldcw};

	if (gated(d, i))
		return true;
	i->fn = fn[which];
	d->bare = which == C_LDCW;
	if (which == C_STSW && d->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER)
		i->fn = fnstsw_ax;
	return true;
}

enum env_op { E_STENV, E_LDENV, E_SAVE, E_RSTOR };

static bool pick_env(struct cpu_dec *d, struct cpu_insn *i, uint16_t which)
{
	static const cpu_op_fn fn[] = {fnstenv, fldenv, fnsave, frstor};
	bool wide = d->op[0].size == 28 * 8 || d->op[0].size == 108 * 8;

	if (gated(d, i))
		return true;
	if (d->mode & CPU_MODE_PROT)
		i->arg = wide ? ENV_PROT32 : ENV_PROT16;
	else
		i->arg = wide ? ENV_REAL32 : ENV_REAL16;
	i->fn = fn[which];
	return true;
}

static bool pick_fwait(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->fn = fwait;
	return true;
}

#define ARITH(name)                                                                                \
	{                                                                                          \
		ZYDIS_MNEMONIC_##name, 0, pick_arith                                               \
	}
#define FCMOV(name)                                                                                \
	{                                                                                          \
		ZYDIS_MNEMONIC_##name, THUNK_X87_FLAGS_IN, pick_arith                              \
	}
#define FCOMI(name)                                                                                \
	{                                                                                          \
		ZYDIS_MNEMONIC_##name, THUNK_X87_FLAGS_IN | THUNK_X87_FLAGS_OUT, pick_arith        \
	}

static const struct cpu_op ops[] = {
	ARITH(F2XM1),
	ARITH(FABS),
	ARITH(FADD),
	ARITH(FADDP),
	ARITH(FBLD),
	ARITH(FBSTP),
	ARITH(FCHS),
	ARITH(FCOM),
	ARITH(FCOMP),
	ARITH(FCOMPP),
	ARITH(FCOS),
	ARITH(FDECSTP),
	ARITH(FDIV),
	ARITH(FDIVP),
	ARITH(FDIVR),
	ARITH(FDIVRP),
	ARITH(FFREE),
	ARITH(FFREEP),
	ARITH(FIADD),
	ARITH(FICOM),
	ARITH(FICOMP),
	ARITH(FIDIV),
	ARITH(FIDIVR),
	ARITH(FILD),
	ARITH(FIMUL),
	ARITH(FINCSTP),
	ARITH(FIST),
	ARITH(FISTP),
	ARITH(FISTTP),
	ARITH(FISUB),
	ARITH(FISUBR),
	ARITH(FLD),
	ARITH(FLD1),
	ARITH(FLDL2E),
	ARITH(FLDL2T),
	ARITH(FLDLG2),
	ARITH(FLDLN2),
	ARITH(FLDPI),
	ARITH(FLDZ),
	ARITH(FMUL),
	ARITH(FMULP),
	ARITH(FNOP),
	ARITH(FPATAN),
	ARITH(FPREM),
	ARITH(FPREM1),
	ARITH(FPTAN),
	ARITH(FRNDINT),
	ARITH(FSCALE),
	ARITH(FSIN),
	ARITH(FSINCOS),
	ARITH(FSQRT),
	ARITH(FST),
	ARITH(FSTP),
	ARITH(FSTPNCE),
	ARITH(FSUB),
	ARITH(FSUBP),
	ARITH(FSUBR),
	ARITH(FSUBRP),
	ARITH(FTST),
	ARITH(FUCOM),
	ARITH(FUCOMP),
	ARITH(FUCOMPP),
	ARITH(FXAM),
	ARITH(FXCH),
	ARITH(FXTRACT),
	ARITH(FYL2X),
	ARITH(FYL2XP1),
	FCMOV(FCMOVB),
	FCMOV(FCMOVBE),
	FCMOV(FCMOVE),
	FCMOV(FCMOVNB),
	FCMOV(FCMOVNBE),
	FCMOV(FCMOVNE),
	FCMOV(FCMOVNU),
	FCMOV(FCMOVU),
	FCOMI(FCOMI),
	FCOMI(FCOMIP),
	FCOMI(FUCOMI),
	FCOMI(FUCOMIP),
	{ZYDIS_MNEMONIC_FENI8087_NOP, C_NOP, pick_control},
	{ZYDIS_MNEMONIC_FDISI8087_NOP, C_NOP, pick_control},
	{ZYDIS_MNEMONIC_FSETPM287_NOP, C_NOP, pick_control},
	{ZYDIS_MNEMONIC_FNINIT, C_INIT, pick_control},
	{ZYDIS_MNEMONIC_FNCLEX, C_CLEX, pick_control},
	{ZYDIS_MNEMONIC_FNSTSW, C_STSW, pick_control},
	{ZYDIS_MNEMONIC_FNSTCW, C_STCW, pick_control},
	{ZYDIS_MNEMONIC_FLDCW, C_LDCW, pick_control},
	{ZYDIS_MNEMONIC_FNSTENV, E_STENV, pick_env},
	{ZYDIS_MNEMONIC_FLDENV, E_LDENV, pick_env},
	{ZYDIS_MNEMONIC_FNSAVE, E_SAVE, pick_env},
	{ZYDIS_MNEMONIC_FRSTOR, E_RSTOR, pick_env},
	{ZYDIS_MNEMONIC_FWAIT, 0, pick_fwait},
};
const struct cpu_op_table cpu_ops_fpu = {ops, ARRAY_SIZE(ops)};
