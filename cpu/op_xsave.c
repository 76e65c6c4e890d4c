/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* FXSAVE, FXRSTOR, the XSAVE family, LDMXCSR and STMXCSR (SDM 1, chapter 13; 2A, FXSAVE). */
#include <string.h>

#include "cpu/fp_simd.h"

#define LEGACY_SIZE  512u
#define HEADER_SIZE  64u
#define AREA_MIN     (LEGACY_SIZE + HEADER_SIZE)
#define YMM_OFFSET   AREA_MIN /* standard format */
#define YMM_SIZE     256u
#define PKRU_SIZE    8u
#define XCOMP_FORMAT BIT(63)

#define OFF_MXCSR offsetof(struct cpu_fx, mxcsr)
#define OFF_ST	  offsetof(struct cpu_fx, st)
#define OFF_XMM	  offsetof(struct cpu_fx, xmm)
static_assert(OFF_MXCSR == 24 && OFF_ST == 32 && OFF_XMM == 160,
	      "the legacy region (SDM 1, table 13-1)");

struct header {
	uint64_t xstate_bv, xcomp_bv, reserved[6];
};
static_assert(sizeof(struct header) == HEADER_SIZE, "XSAVE header");

/* ---- layout ---------------------------------------------------------------------------------- */

/* Where PKRU stands in the standard format: what CPUID says. */
static uint32_t pkru_offset(const struct cpu *c)
{
	for (unsigned n = 0; n < c->cpuid_count; n++)
		if (c->cpuid[n].leaf == 0xd && c->cpuid[n].subleaf == 9 && c->cpuid[n].ebx)
			return c->cpuid[n].ebx;
	return AREA_MIN;
}

/* In the compacted format components follow each other. */
static uint32_t pkru_compact_offset(uint64_t features)
{
	return AREA_MIN + (features & X86_XCR0_AVX ? YMM_SIZE : 0);
}

uint32_t cpu_xsave_size(const struct cpu *c, uint64_t features, bool compacted)
{
	if (!(features & X86_XCR0_PKRU))
		return pkru_compact_offset(features);
	return (compacted ? pkru_compact_offset(features) : pkru_offset(c)) + PKRU_SIZE;
}

/* Outside 64-bit mode only XMM0 to XMM7 take part, and of YMM the same. */
static unsigned xmm_bytes(const struct cpu *c)
{
	return (c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 ? 256 : 128;
}

static bool is_zero(const void *p, size_t len)
{
	const uint8_t *b = p;

	return len == 0 || (b[0] == 0 && memcmp(b, b + 1, len - 1) == 0);
}

uint64_t cpu_xsave_in_use(const struct cpu *c)
{
	const struct cpu_fx *fx = &c->s.fx;
	uint64_t bv = 0;

	if (fx->fcw != 0x37f || fx->fsw || fx->ftw || fx->fop || fx->fip || fx->fdp ||
	    !is_zero(fx->st, sizeof(fx->st)))
		bv |= X86_XCR0_X87;
	if (!is_zero(fx->xmm, xmm_bytes(c)))
		bv |= X86_XCR0_SSE;
	if (!is_zero(c->s.ymmh, xmm_bytes(c)))
		bv |= X86_XCR0_AVX;
	if (c->s.pkru)
		bv |= X86_XCR0_PKRU;
	return bv;
}

/* ---- the legacy region ----------------------------------------------------------------------- */

/* As it goes to memory. Without REX.W pointers are 32 bits, and FCS and FDS, deprecated, are zero.
 */
static void legacy_image(const struct cpu *c, struct cpu_fx *out, bool wide)
{
	*out = c->s.fx;
	out->pad = 0;
	out->mxcsr_mask = cpu_mxcsr_mask();
	if (!wide) {
		out->fip = (uint32_t)out->fip;
		out->fdp = (uint32_t)out->fdp;
	}
}

static void load_x87(struct cpu *c, const struct cpu_fx *in, bool wide)
{
	struct cpu_fx *fx = &c->s.fx;

	memcpy(fx, in, OFF_MXCSR);
	memcpy(fx->st, in->st, sizeof(fx->st));
	if (!wide) {
		fx->fip = (uint32_t)fx->fip;
		fx->fdp = (uint32_t)fx->fdp;
	}
	cpu_x87_normalise(fx);
}

static void clear_x87(struct cpu *c)
{
	cpu_x87_init(&c->s.fx);
	memset(c->s.fx.st, 0, sizeof(c->s.fx.st));
}

/* ---- addresses ------------------------------------------------------------------------------- */

/*
 * The memory operand's linear address; segment checks were left to us. FXSAVE and FXRSTOR look at
 * the last byte (segment, alignment, right to write, page), then at the first ones.
 */
static uint64_t area_lin(struct cpu *c, const struct cpu_insn *i, unsigned size, bool write)
{
	unsigned access = (write ? CPU_ACCESS_WRITE : 0) | (cpu_cpl(c) == 3 ? CPU_ACCESS_USER : 0);
	bool legacy = size == LEGACY_SIZE, ac = legacy && c->mode & CPU_MODE_AC;
	bool long_mode = (c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64;
	uint64_t lin = cpu_lin(c, i), ea = cpu_ea(c, i), last = ea + size - 1;

	if (i->asize != 8)
		last = i->asize == 2 ? (uint16_t)last : (uint32_t)last;
	if (!long_mode && legacy)
		cpu_seg_check(c, i, i->seg, last, 1, false);
	if (lin & (legacy ? 15 : 63) && cpu_lin_canonical(c, lin))
		cpu_fault_err(c, i, ac && lin & 3 ? X86_VEC_AC : X86_VEC_GP, 0);
	last = long_mode ? last + lin - ea
			 : cpu_seg_check(c, i, i->seg, legacy ? last : ea, 1, write);
	if (legacy)
		cpu_probe(c, i, last, 1, access);
	if (long_mode)
		return lin;
	if (legacy)
		cpu_probe(c, i, cpu_seg_check(c, i, i->seg, ea, 16, write), 16, access);
	return cpu_seg_check(c, i, i->seg, ea, size, write);
}

/* What an instruction writes: all of it is checked before any of it is stored. */
struct pieces {
	struct {
		uint32_t off, len;
		const void *src;
	} p[8];
	unsigned n;
};

static void add_piece(struct pieces *ps, uint32_t off, uint32_t len, const void *src)
{
	ps->p[ps->n].off = off;
	ps->p[ps->n].len = len;
	ps->p[ps->n++].src = src;
}

static void store_pieces(struct cpu *c, const struct cpu_insn *i, uint64_t lin,
			 const struct pieces *ps)
{
	for (unsigned n = 0; n < ps->n; n++)
		cpu_probe(c, i, cpu_lin_wrap(c, lin + ps->p[n].off), ps->p[n].len,
			  CPU_ACCESS_WRITE | (cpu_cpl(c) == 3 ? CPU_ACCESS_USER : 0));
	for (unsigned n = 0; n < ps->n; n++)
		cpu_copy_out(c, i, cpu_lin_wrap(c, lin + ps->p[n].off), ps->p[n].src, ps->p[n].len);
}

/* ---- FXSAVE, FXRSTOR ------------------------------------------------------------------------- */

CPU_BODY fxsave_body(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t lin = area_lin(c, i, LEGACY_SIZE, true);
	struct pieces ps = {.n = 0};
	struct cpu_fx image;

	legacy_image(c, &image, i->arg);
	add_piece(&ps, 0, (uint32_t)OFF_XMM + xmm_bytes(c), &image);
	store_pieces(c, i, lin, &ps);
}
CPU_BODY_HANDLER(fxsave)

CPU_BODY fxrstor_body(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t lin = area_lin(c, i, LEGACY_SIZE, false);
	struct cpu_fx in;

	cpu_copy_in(c, i, &in, lin, LEGACY_SIZE);
	if (in.mxcsr & ~cpu_mxcsr_mask())
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	load_x87(c, &in, i->arg);
	c->s.fx.mxcsr = in.mxcsr;
	memcpy(c->s.fx.xmm, in.xmm, xmm_bytes(c));
}
CPU_BODY_HANDLER(fxrstor)

/* ---- XSAVE and its kin ----------------------------------------------------------------------- */

enum { XS_XSAVE, XS_OPT, XS_C, XS_S, XS_RSTOR, XS_RSTORS };
#define XS_WIDE 0x100u /* in i->arg, with REX.W */

static void xsave_gate(struct cpu *c, const struct cpu_insn *i)
{
	if (!(c->s.cr4 & X86_CR4_OSXSAVE))
		cpu_fault(c, i, X86_VEC_UD);
	if (c->s.cr0 & X86_CR0_TS)
		cpu_fault(c, i, X86_VEC_NM);
	if (((i->arg & 0xff) == XS_S || (i->arg & 0xff) == XS_RSTORS) && cpu_cpl(c) != 0)
		cpu_fault_err(c, i, X86_VEC_GP, 0);
}

static uint64_t edx_eax(const struct cpu *c)
{
	return c->s.gpr[X86_RDX] << 32 | (uint32_t)c->s.gpr[X86_RAX];
}

/* Add what the components in @bv occupy. @mxcsr: MXCSR and its mask are written. */
static void add_components(const struct cpu *c, struct pieces *ps, const struct cpu_fx *image,
			   uint64_t bv, bool mxcsr)
{
	if (bv & X86_XCR0_X87) {
		add_piece(ps, 0, OFF_MXCSR, image);
		add_piece(ps, OFF_ST, sizeof(image->st), image->st);
	}
	if (mxcsr)
		add_piece(ps, OFF_MXCSR, 8, &image->mxcsr);
	if (bv & X86_XCR0_SSE)
		add_piece(ps, OFF_XMM, xmm_bytes(c), image->xmm);
	if (bv & X86_XCR0_AVX)
		add_piece(ps, YMM_OFFSET, xmm_bytes(c), c->s.ymmh);
}

CPU_BODY xsave_standard_body(struct cpu *c, const struct cpu_insn *i)
{
	bool opt = (i->arg & 0xff) == XS_OPT;
	uint64_t rfbm, use, bv, lin;
	struct pieces ps = {.n = 0};
	uint64_t pkru = c->s.pkru;
	struct cpu_fx image;

	xsave_gate(c, i);
	lin = area_lin(c, i, AREA_MIN, true);
	rfbm = edx_eax(c) & c->s.xcr0;
	use = cpu_xsave_in_use(c);
	bv = cpu_ld64(c, i, cpu_lin_wrap(c, lin + LEGACY_SIZE));
	bv = (bv & ~rfbm) | (use & rfbm);
	legacy_image(c, &image, i->arg & XS_WIDE);
	add_components(c, &ps, &image, opt ? rfbm & use : rfbm,
		       rfbm & (X86_XCR0_SSE | X86_XCR0_AVX));
	if (rfbm & X86_XCR0_PKRU && (!opt || (use & X86_XCR0_PKRU)))
		add_piece(&ps, pkru_offset(c), PKRU_SIZE, &pkru);
	add_piece(&ps, LEGACY_SIZE, 8, &bv);
	store_pieces(c, i, lin, &ps);
}
CPU_BODY_HANDLER(xsave_standard)

/* XSAVEC and XSAVES: compacted, with the init optimization; nothing of the old header is kept. */
CPU_BODY xsave_compact_body(struct cpu *c, const struct cpu_insn *i)
{
	struct pieces ps = {.n = 0};
	uint64_t pkru = c->s.pkru, header[2], rfbm, use, lin;
	struct cpu_fx image;

	xsave_gate(c, i);
	lin = area_lin(c, i, AREA_MIN, true);
	rfbm = edx_eax(c) & c->s.xcr0; /* IA32_XSS has no component */
	use = cpu_xsave_in_use(c);
	if (c->s.fx.mxcsr != MXCSR_RESET)
		use |= X86_XCR0_SSE;
	header[0] = use & rfbm;
	header[1] = rfbm | XCOMP_FORMAT;
	legacy_image(c, &image, i->arg & XS_WIDE);
	add_components(c, &ps, &image, header[0], header[0] & X86_XCR0_SSE);
	if (header[0] & X86_XCR0_PKRU)
		add_piece(&ps, pkru_compact_offset(rfbm), PKRU_SIZE, &pkru);
	add_piece(&ps, LEGACY_SIZE, sizeof(header), header);
	store_pieces(c, i, lin, &ps);
}
CPU_BODY_HANDLER(xsave_compact)

/* SDM 1, 13.8 and 13.12. */
static bool header_ok(const struct cpu *c, const struct header *h, bool only_compact)
{
	bool compact = h->xcomp_bv & XCOMP_FORMAT;

	if (!compact)
		return !only_compact && !(h->xstate_bv & ~c->s.xcr0) && !h->xcomp_bv &&
		       !h->reserved[0];
	return cpu_has(c, CPU_FEAT_XSAVEC) && !(h->xcomp_bv & ~XCOMP_FORMAT & ~c->s.xcr0) &&
	       !(h->xstate_bv & ~(h->xcomp_bv & ~XCOMP_FORMAT)) &&
	       is_zero(h->reserved, sizeof(h->reserved));
}

static void set_pkru(struct cpu *c, uint32_t pkru)
{
	if (c->s.pkru == pkru)
		return;
	c->s.pkru = pkru;
	cpu_update_asid(c);
}

CPU_BODY xrstor_body(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t rfbm, lin, load, pkru = 0, ymmh[16][2];
	struct cpu_fx in;
	struct header h;
	bool compact, mxcsr;

	xsave_gate(c, i);
	lin = area_lin(c, i, AREA_MIN, false);
	cpu_copy_in(c, i, &h, cpu_lin_wrap(c, lin + LEGACY_SIZE), HEADER_SIZE);
	if (!header_ok(c, &h, (i->arg & 0xff) == XS_RSTORS))
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	compact = h.xcomp_bv & XCOMP_FORMAT;
	rfbm = edx_eax(c) & c->s.xcr0;
	load = rfbm & h.xstate_bv;
	/* In the standard format MXCSR is there whether or not XMM registers are. */
	mxcsr = compact ? load & X86_XCR0_SSE : rfbm & (X86_XCR0_SSE | X86_XCR0_AVX);
	if (load & (X86_XCR0_X87 | X86_XCR0_SSE) || mxcsr)
		cpu_copy_in(c, i, &in, lin,
			    (unsigned)OFF_XMM + (load & X86_XCR0_SSE ? xmm_bytes(c) : 0));
	if (load & X86_XCR0_AVX)
		cpu_copy_in(c, i, ymmh, cpu_lin_wrap(c, lin + YMM_OFFSET), xmm_bytes(c));
	if (load & X86_XCR0_PKRU)
		pkru = cpu_ld64(c, i,
				cpu_lin_wrap(c, lin + (compact ? pkru_compact_offset(h.xcomp_bv)
							       : pkru_offset(c))));
	if (mxcsr && (in.mxcsr & ~cpu_mxcsr_mask()))
		cpu_fault_err(c, i, X86_VEC_GP, 0);

	if (load & X86_XCR0_X87)
		load_x87(c, &in, i->arg & XS_WIDE);
	else if (rfbm & X86_XCR0_X87)
		clear_x87(c);
	if (mxcsr)
		c->s.fx.mxcsr = in.mxcsr;
	else if (rfbm & X86_XCR0_SSE)
		c->s.fx.mxcsr = MXCSR_RESET;
	if (load & X86_XCR0_SSE)
		memcpy(c->s.fx.xmm, in.xmm, xmm_bytes(c));
	else if (rfbm & X86_XCR0_SSE)
		memset(c->s.fx.xmm, 0, xmm_bytes(c));
	if (load & X86_XCR0_AVX)
		memcpy(c->s.ymmh, ymmh, xmm_bytes(c));
	else if (rfbm & X86_XCR0_AVX)
		memset(c->s.ymmh, 0, xmm_bytes(c));
	if (rfbm & X86_XCR0_PKRU)
		set_pkru(c, (uint32_t)pkru);
}
CPU_BODY_HANDLER(xrstor)

/* ---- MXCSR ----------------------------------------------------------------------------------- */

static void ldmxcsr(struct cpu *c, const struct cpu_insn *i)
{
	uint32_t v = cpu_ld32(c, i, cpu_lin(c, i));

	if (v & ~cpu_mxcsr_mask())
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	c->s.fx.mxcsr = v;
	CPU_NEXT(c, i);
}

static void stmxcsr(struct cpu *c, const struct cpu_insn *i)
{
	cpu_st32(c, i, cpu_lin(c, i), c->s.fx.mxcsr);
	CPU_NEXT(c, i);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static bool pick_fxsave(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->fn = arg ? fxrstor : fxsave;
	i->arg = d->zi.raw.rex.W;
	d->bare = true;
	if (d->mode & CPU_MODE_NO_X87)
		i->fn = cpu_op_nm;
	return true;
}

static bool pick_xsave(struct cpu_dec *d, struct cpu_insn *i, uint16_t which)
{
	i->arg = (uint16_t)(which | (d->zi.raw.rex.W ? XS_WIDE : 0));
	d->bare = true;
	if (which == XS_RSTOR || which == XS_RSTORS)
		i->fn = xrstor;
	else
		i->fn = which == XS_C || which == XS_S ? xsave_compact : xsave_standard;
	return true;
}

static bool pick_mxcsr(struct cpu_dec *d, struct cpu_insn *i, uint16_t load)
{
	i->fn = load ? ldmxcsr : stmxcsr;
	if (d->mode & CPU_MODE_NO_SSE) {
		i->fn = cpu_op_no_sse;
		d->bare = true;
	}
	return true;
}

static bool pick_avx_mxcsr(struct cpu_dec *d, struct cpu_insn *i, uint16_t load)
{
	if (!cpu_avx_gated(d, i))
		i->fn = load ? ldmxcsr : stmxcsr;
	return true;
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_FXSAVE, 0, pick_fxsave},
	{ZYDIS_MNEMONIC_FXSAVE64, 0, pick_fxsave},
	{ZYDIS_MNEMONIC_FXRSTOR, 1, pick_fxsave},
	{ZYDIS_MNEMONIC_FXRSTOR64, 1, pick_fxsave},
	{ZYDIS_MNEMONIC_XSAVE, XS_XSAVE, pick_xsave},
	{ZYDIS_MNEMONIC_XSAVE64, XS_XSAVE, pick_xsave},
	{ZYDIS_MNEMONIC_XSAVEOPT, XS_OPT, pick_xsave},
	{ZYDIS_MNEMONIC_XSAVEOPT64, XS_OPT, pick_xsave},
	{ZYDIS_MNEMONIC_XSAVEC, XS_C, pick_xsave},
	{ZYDIS_MNEMONIC_XSAVEC64, XS_C, pick_xsave},
	{ZYDIS_MNEMONIC_XSAVES, XS_S, pick_xsave},
	{ZYDIS_MNEMONIC_XSAVES64, XS_S, pick_xsave},
	{ZYDIS_MNEMONIC_XRSTOR, XS_RSTOR, pick_xsave},
	{ZYDIS_MNEMONIC_XRSTOR64, XS_RSTOR, pick_xsave},
	{ZYDIS_MNEMONIC_XRSTORS, XS_RSTORS, pick_xsave},
	{ZYDIS_MNEMONIC_XRSTORS64, XS_RSTORS, pick_xsave},
	{ZYDIS_MNEMONIC_LDMXCSR, 1, pick_mxcsr},
	{ZYDIS_MNEMONIC_STMXCSR, 0, pick_mxcsr},
	{ZYDIS_MNEMONIC_VLDMXCSR, 1, pick_avx_mxcsr},
	{ZYDIS_MNEMONIC_VSTMXCSR, 0, pick_avx_mxcsr},
};
const struct cpu_op_table cpu_ops_xsave = {ops, ARRAY_SIZE(ops)};
