/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* struct cpu_state as a section of the saved state: its layout, and what it may hold. */
#include <string.h>

#include "vm/state.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the form's order is the host's");

/* ---- the layout ---------------------------------------------------------------------------------
 */

/* A member, or the elements of an array; the rows' order is the layout's. */
struct row {
	const char *name;
	uint16_t offset; /* in struct cpu_state */
	uint8_t size, count, stride;
};

#define SIZE_OF(member) sizeof(((struct cpu_state *)0)->member)
#define ONE(name, member)                                                                          \
	{                                                                                          \
		name, offsetof(struct cpu_state, member), SIZE_OF(member), 1, 0                    \
	}
#define EACH(name, member, n, of)                                                                  \
	{                                                                                          \
		name, offsetof(struct cpu_state, member), of, n, of                                \
	}
#define GPR(name, n) ONE(name, gpr[n])
#define SEG(name, member)                                                                          \
	ONE(name ".sel", member.sel), ONE(name ".base", member.base),                              \
		ONE(name ".limit", member.limit), ONE(name ".attr", member.attr)

static const struct row rows[] = {
	GPR("rax", X86_RAX),
	GPR("rcx", X86_RCX),
	GPR("rdx", X86_RDX),
	GPR("rbx", X86_RBX),
	GPR("rsp", X86_RSP),
	GPR("rbp", X86_RBP),
	GPR("rsi", X86_RSI),
	GPR("rdi", X86_RDI),
	GPR("r8", 8),
	GPR("r9", 9),
	GPR("r10", 10),
	GPR("r11", 11),
	GPR("r12", 12),
	GPR("r13", 13),
	GPR("r14", 14),
	GPR("r15", 15),
	ONE("rip", rip),
	ONE("rflags", rflags),
	SEG("es", seg[X86_ES]),
	SEG("cs", seg[X86_CS]),
	SEG("ss", seg[X86_SS]),
	SEG("ds", seg[X86_DS]),
	SEG("fs", seg[X86_FS]),
	SEG("gs", seg[X86_GS]),
	SEG("ldtr", ldtr),
	SEG("tr", tr),
	ONE("gdtr.base", gdtr.base),
	ONE("gdtr.limit", gdtr.limit),
	ONE("idtr.base", idtr.base),
	ONE("idtr.limit", idtr.limit),
	ONE("cr0", cr0),
	ONE("cr2", cr2),
	ONE("cr3", cr3),
	ONE("cr4", cr4),
	ONE("efer", efer),
	ONE("xcr0", xcr0),
	EACH("pdptr", pdptr, 4, 8),
	ONE("pkru", pkru),
	EACH("dr", dr, 4, 8),
	ONE("dr6", dr6),
	ONE("dr7", dr7),
	ONE("star", star),
	ONE("lstar", lstar),
	ONE("cstar", cstar),
	ONE("fmask", fmask),
	ONE("kernel_gs_base", kernel_gs_base),
	ONE("sysenter_cs", sysenter_cs),
	ONE("sysenter_esp", sysenter_esp),
	ONE("sysenter_eip", sysenter_eip),
	ONE("pat", pat),
	ONE("tsc_aux", tsc_aux),
	ONE("misc_enable", misc_enable),
	ONE("spec_ctrl", spec_ctrl),
	ONE("xss", xss),
	ONE("debugctl", debugctl),
	ONE("tsc_adjust", tsc_adjust),
	ONE("mtrr_def_type", mtrr_def_type),
	EACH("mtrr_fix", mtrr_fix, 11, 8),
	EACH("mtrr_var", mtrr_var, 16, 8),
	ONE("fcw", fx.fcw),
	ONE("fsw", fx.fsw),
	ONE("ftw", fx.ftw),
	ONE("fop", fx.fop),
	ONE("fip", fx.fip),
	ONE("fdp", fx.fdp),
	ONE("mxcsr", fx.mxcsr),
	EACH("st", fx.st, 16, 8), /* low and high word of each */
	EACH("xmm", fx.xmm, 32, 8),
	EACH("ymmh", ymmh, 32, 8),
	ONE("activity", activity),
	ONE("int_shadow_sti", int_shadow_sti),
	ONE("int_shadow_movss", int_shadow_movss),
	ONE("nmi_blocked", nmi_blocked),
	ONE("nmi_pending", nmi_pending),
	ONE("pending_dbg", pending_dbg),
	ONE("event.valid", event.valid),
	ONE("event.type", event.type),
	ONE("event.vector", event.vector),
	ONE("event.has_error", event.has_error),
	ONE("event.insn_len", event.insn_len),
	ONE("event.error", event.error),
	ONE("event.payload", event.payload),
	ONE("event.has_payload", event.has_payload),
};
static_assert(SIZE_OF(fx.st) == 128 && SIZE_OF(fx.xmm) == 256 && SIZE_OF(ymmh) == 256 &&
		      SIZE_OF(mtrr_fix) == 88 && SIZE_OF(mtrr_var) == 128 &&
		      SIZE_OF(activity) == 4 && SIZE_OF(int_shadow_sti) == 1,
	      "the rows' numbers");

static_assert(ARRAY_SIZE(rows) <= STATE_FIELDS_MAX, "room for all");

size_t state_cpu_size(void)
{
	size_t size = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++)
		size += (size_t)rows[n].size * rows[n].count;
	return size;
}

unsigned state_cpu_fields(struct state_field out[STATE_FIELDS_MAX])
{
	size_t at = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		out[n] = (struct state_field){.name = rows[n].name,
					      .offset = (uint16_t)at,
					      .size = rows[n].size,
					      .count = rows[n].count,
					      .stride = rows[n].size};
		at += (size_t)rows[n].size * rows[n].count;
	}
	return ARRAY_SIZE(rows);
}

void state_cpu_encode(const struct cpu_state *s, void *out)
{
	struct cpu_state clean = *s;
	uint8_t *to = out;

	if (!s->event.valid)
		memset(&clean.event, 0, sizeof(clean.event));
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++)
		for (unsigned k = 0; k < rows[n].count; k++) {
			memcpy(to,
			       (const char *)&clean + rows[n].offset + (size_t)k * rows[n].stride,
			       rows[n].size);
			to += rows[n].size;
		}
}

/* ---- what it may hold ---------------------------------------------------------------------------
 */

/* A bool that is neither 0 nor 1 must not come into being. */
static const char *check_bools(const uint8_t *data)
{
	static const char *const bools[] = {"int_shadow_sti",  "int_shadow_movss",
					    "nmi_blocked",     "event.valid",
					    "event.has_error", "event.has_payload"};
	struct state_field f[STATE_FIELDS_MAX];
	unsigned count = state_cpu_fields(f);

	for (unsigned n = 0; n < count; n++)
		for (unsigned k = 0; k < ARRAY_SIZE(bools); k++)
			if (!strcmp(f[n].name, bools[k]) && data[f[n].offset] > 1)
				return bools[k];
	return NULL;
}

struct shown {
	const struct cpu_cpuid *leaves;
	unsigned count;
};

enum { EAX, EBX, ECX, EDX };

static uint32_t shown(const struct shown *c, uint32_t leaf, uint32_t subleaf, unsigned reg)
{
	for (unsigned n = 0; n < c->count; n++) {
		const struct cpu_cpuid *l = &c->leaves[n];

		if (l->leaf == leaf && (l->subleaf == subleaf || l->subleaf == CPU_CPUID_ANY))
			return reg == EAX   ? l->eax
			       : reg == EBX ? l->ebx
			       : reg == ECX ? l->ecx
					    : l->edx;
	}
	return 0;
}

static bool has(const struct shown *c, uint32_t leaf, unsigned reg, unsigned bit)
{
	return shown(c, leaf, 0, reg) >> bit & 1;
}

/* As the widest linear address that this processor may ever have: what LA57 allowed stays in the
 * registers when it is turned off. */
static bool canonical(const struct shown *c, uint64_t va)
{
	unsigned shift = has(c, 7, ECX, 16) ? 64 - 57 : 64 - 48;

	return (uint64_t)((int64_t)(va << shift) >> shift) == va;
}

/* CR4's bits and where CPUID shows them (SDM 3A 2.5). */
static uint64_t cr4_allowed(const struct shown *c)
{
	static const struct {
		uint64_t bits;
		uint32_t leaf;
		uint8_t reg, bit;
	} bits[] = {
		{X86_CR4_VME | X86_CR4_PVI, 1, EDX, 1},
		{X86_CR4_TSD, 1, EDX, 4},
		{X86_CR4_DE, 1, EDX, 2},
		{X86_CR4_PSE, 1, EDX, 3},
		{X86_CR4_PAE, 1, EDX, 6},
		{X86_CR4_MCE, 1, EDX, 7},
		{X86_CR4_PGE, 1, EDX, 13},
		{X86_CR4_OSFXSR, 1, EDX, 24},
		{X86_CR4_OSXMMEXCPT, 1, EDX, 25},
		{X86_CR4_UMIP, 7, ECX, 2},
		{X86_CR4_LA57, 7, ECX, 16},
		{X86_CR4_FSGSBASE, 7, EBX, 0},
		{X86_CR4_PCIDE, 1, ECX, 17},
		{X86_CR4_OSXSAVE, 1, ECX, 26},
		{X86_CR4_SMEP, 7, EBX, 7},
		{X86_CR4_SMAP, 7, EBX, 20},
		{X86_CR4_PKE, 7, ECX, 3},
	};
	uint64_t ok = X86_CR4_PCE;

	for (unsigned n = 0; n < ARRAY_SIZE(bits); n++)
		if (has(c, bits[n].leaf, bits[n].reg, bits[n].bit))
			ok |= bits[n].bits;
	return ok;
}

#define CR0_BITS                                                                                   \
	(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE |             \
	 X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)

/* As the checks on entering a VMX guest (SDM 3C 27.3.1.1), by CPUID. */
static const char *check_control(const struct cpu_state *s, const struct shown *c)
{
	uint64_t phys = BITS((shown(c, 0x80000008u, 0, EAX) & 0xff) - 1, 0);
	uint64_t efer =
		(has(c, 0x80000001u, EDX, 29) ? X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA : 0) |
		(has(c, 0x80000001u, EDX, 20) ? X86_EFER_NXE : 0);
	bool pg = s->cr0 & X86_CR0_PG, lma = s->efer & X86_EFER_LMA;

	if (s->cr0 & ~CR0_BITS || (pg && !(s->cr0 & X86_CR0_PE)) ||
	    (s->cr0 & X86_CR0_NW && !(s->cr0 & X86_CR0_CD)))
		return "cr0";
	if (s->cr4 & ~cr4_allowed(c) || (lma && !(s->cr4 & X86_CR4_PAE)) ||
	    (s->cr4 & X86_CR4_PCIDE && !lma))
		return "cr4";
	if (s->efer & ~efer || lma != (pg && s->efer & X86_EFER_LME))
		return "efer";
	if (s->cr3 & ~phys)
		return "cr3";
	for (unsigned n = 0; n < 4; n++)
		if (pg && s->cr4 & X86_CR4_PAE && !lma && (s->pdptr[n] & 1) &&
		    (s->pdptr[n] & (~phys | BITS(8, 5) | BITS(2, 1))))
			return "pdptr";
	return NULL;
}

#define RFLAGS_BITS                                                                                \
	(X86_FLAGS_ARITH | X86_FLAG_ONE | X86_FLAG_TF | X86_FLAG_IF | X86_FLAG_DF |                \
	 X86_FLAG_IOPL | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_VM | X86_FLAG_AC | X86_FLAG_VIF |    \
	 X86_FLAG_VIP | X86_FLAG_ID)
#define ATTR_BITS 0x1f0ffu

/* A limit with pages counts whole ones, one without has 20 bits (SDM 3C 27.3.1.2). */
static bool limit_ok(const struct cpu_seg *seg)
{
	if (seg->attr & X86_ATTR_UNUSABLE)
		return true;
	return seg->attr & X86_ATTR_G ? (seg->limit & 0xfff) == 0xfff : seg->limit <= 0xfffff;
}

static const char *check_segments(const struct cpu_state *s, const struct shown *c)
{
	static const struct {
		const char *name;
		uint16_t offset;
		bool long_base; /* may lie above 4 GiB */
	} segs[] = {
		{"es", offsetof(struct cpu_state, seg[X86_ES]), false},
		{"cs", offsetof(struct cpu_state, seg[X86_CS]), false},
		{"ss", offsetof(struct cpu_state, seg[X86_SS]), false},
		{"ds", offsetof(struct cpu_state, seg[X86_DS]), false},
		{"fs", offsetof(struct cpu_state, seg[X86_FS]), true},
		{"gs", offsetof(struct cpu_state, seg[X86_GS]), true},
		{"ldtr", offsetof(struct cpu_state, ldtr), true},
		{"tr", offsetof(struct cpu_state, tr), true},
	};
	const struct cpu_seg *cs = &s->seg[X86_CS];

	for (unsigned n = 0; n < ARRAY_SIZE(segs); n++) {
		const struct cpu_seg *seg =
			(const struct cpu_seg *)((const char *)s + segs[n].offset);

		if (seg->attr & ~ATTR_BITS || !limit_ok(seg) || !canonical(c, seg->base) ||
		    (!segs[n].long_base && seg->base >> 32))
			return segs[n].name;
	}
	if (s->efer & X86_EFER_LMA) {
		if (cs->attr & X86_ATTR_L && cs->attr & X86_ATTR_DB)
			return "cs";
	} else if (cs->attr & X86_ATTR_L) {
		return "cs";
	}
	if (!canonical(c, s->gdtr.base))
		return "gdtr.base";
	return canonical(c, s->idtr.base) ? NULL : "idtr.base";
}

static const char *check_flags(const struct cpu_state *s)
{
	if (s->rflags & ~RFLAGS_BITS || !(s->rflags & X86_FLAG_ONE) ||
	    (s->rflags & X86_FLAG_VM && (s->efer & X86_EFER_LMA || !(s->cr0 & X86_CR0_PE))))
		return "rflags";
	if (!(s->efer & X86_EFER_LMA && s->seg[X86_CS].attr & X86_ATTR_L) && s->rip >> 32)
		return "rip";
	if (s->dr6 >> 32)
		return "dr6";
	return s->dr7 >> 32 ? "dr7" : NULL;
}

static bool types_ok(uint64_t value, uint8_t allowed)
{
	for (unsigned n = 0; n < 8; n++, value >>= 8)
		if ((value & 0xff) > 7 || !(allowed >> (value & 7) & 1))
			return false;
	return true;
}

/* Memory types: MTRRs have 0, 1, 4, 5, 6; PAT has 7 too (SDM 3A 12.11, 12.12). */
#define MTRR_TYPES 0x73
#define PAT_TYPES  0xf3

static const char *check_memory_types(const struct cpu_state *s, const struct shown *c)
{
	uint64_t phys = BITS((shown(c, 0x80000008u, 0, EAX) & 0xff) - 1, 12);

	if (!types_ok(s->pat, PAT_TYPES))
		return "pat";
	if (s->mtrr_def_type & ~(0xffull | BIT(10) | BIT(11)) ||
	    !types_ok(s->mtrr_def_type & 0xff, MTRR_TYPES))
		return "mtrr_def_type";
	for (unsigned n = 0; n < ARRAY_SIZE(s->mtrr_fix); n++)
		if (!types_ok(s->mtrr_fix[n], MTRR_TYPES))
			return "mtrr_fix";
	for (unsigned n = 0; n < ARRAY_SIZE(s->mtrr_var); n++)
		if (n & 1 ? s->mtrr_var[n] & ~(phys | BIT(11))
			  : s->mtrr_var[n] & ~(phys | 0xff) ||
				    !types_ok(s->mtrr_var[n] & 0xff, MTRR_TYPES))
			return "mtrr_var";
	return NULL;
}

static const char *check_msrs(const struct cpu_state *s, const struct shown *c)
{
	const struct {
		const char *name;
		uint64_t value;
	} addresses[] = {
		{"lstar", s->lstar},
		{"cstar", s->cstar},
		{"kernel_gs_base", s->kernel_gs_base},
		{"sysenter_esp", s->sysenter_esp},
		{"sysenter_eip", s->sysenter_eip},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(addresses); n++)
		if (!canonical(c, addresses[n].value))
			return addresses[n].name;
	if (s->fmask >> 32)
		return "fmask";
	if (s->tsc_aux >> 32)
		return "tsc_aux";
	if (s->spec_ctrl & ~(has(c, 7, EDX, 26) ? BITS(2, 0) : 0))
		return "spec_ctrl";
	if (s->xss)
		return "xss";
	if (s->debugctl & ~BITS(1, 0))
		return "debugctl";
	return check_memory_types(s, c);
}

/* The host's processor carries out the guest's SIMD instructions with this MXCSR. */
#define MXCSR_BITS 0xffffu

static const char *check_fpu(const struct cpu_state *s, const struct shown *c)
{
	uint64_t components = (uint64_t)shown(c, 0xd, 0, EDX) << 32 | shown(c, 0xd, 0, EAX);

	if (s->fx.mxcsr & ~MXCSR_BITS)
		return "mxcsr";
	for (unsigned n = 0; n < 8; n++)
		if (s->fx.st[n].hi >> 16)
			return "st";
	if (!(s->xcr0 & X86_XCR0_X87) || s->xcr0 & ~(components | X86_XCR0_X87) ||
	    (s->xcr0 & X86_XCR0_AVX && !(s->xcr0 & X86_XCR0_SSE)))
		return "xcr0";
	return NULL;
}

static const char *check_event(const struct cpu_state *s)
{
	const struct cpu_event *ev = &s->event;

	if (ev->valid && (ev->type == 1 || ev->type > CPU_EVENT_SW_EXCEPTION))
		return "event.type";
	if (ev->valid && ((ev->type == CPU_EVENT_HW_EXCEPTION && ev->vector > 31) ||
			  (ev->type == CPU_EVENT_NMI && ev->vector != X86_VEC_NMI)))
		return "event.vector";
	if (ev->insn_len > 15)
		return "event.insn_len";
	if ((uint32_t)s->activity > CPU_WAIT_FOR_SIPI)
		return "activity";
	if (s->nmi_pending > 2)
		return "nmi_pending";
	if (s->pending_dbg & ~(0xfull | X86_DR6_BS | X86_DR6_BT | X86_DR6_BD))
		return "pending_dbg";
	return NULL;
}

const char *state_cpu_decode(const void *data, const struct cpu_cpuid *leaves, unsigned count,
			     struct cpu_state *ret_state)
{
	const struct shown c = {leaves, count};
	const char *bad = check_bools(data);
	const uint8_t *from = data;
	struct cpu_state s = {0};

	if (bad)
		return bad;
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++)
		for (unsigned k = 0; k < rows[n].count; k++) {
			memcpy((char *)&s + rows[n].offset + (size_t)k * rows[n].stride, from,
			       rows[n].size);
			from += rows[n].size;
		}
	bad = check_control(&s, &c);
	if (!bad)
		bad = check_segments(&s, &c);
	if (!bad)
		bad = check_flags(&s);
	if (!bad)
		bad = check_msrs(&s, &c);
	if (!bad)
		bad = check_fpu(&s, &c);
	if (!bad)
		bad = check_event(&s);
	if (!bad)
		*ret_state = s;
	return bad;
}

/* ---- what the guest sees of it ------------------------------------------------------------------
 */

static uint32_t attr_of(const void *data, const char *segment)
{
	struct state_field f[STATE_FIELDS_MAX];
	unsigned count = state_cpu_fields(f);
	size_t len = strlen(segment);
	uint32_t attr = 0;

	for (unsigned n = 0; n < count; n++)
		if (!strncmp(f[n].name, segment, len) && !strcmp(f[n].name + len, ".attr"))
			memcpy(&attr, (const char *)data + f[n].offset, sizeof(attr));
	return attr;
}

/*
 * Of an unusable segment only the selector is there, but for the bases of FS and GS and the DPL of
 * SS, which is the CPL.
 */
static bool segment_visible(const void *a, const void *b, const char *name, const char *part)
{
	char segment[8] = "";
	uint32_t attr_a, attr_b;

	memcpy(segment, name, MIN((size_t)(part - name), sizeof(segment) - 1));
	attr_a = attr_of(a, segment);
	attr_b = attr_of(b, segment);
	if (!(attr_a & attr_b & X86_ATTR_UNUSABLE) || !strcmp(part, ".sel"))
		return true;
	if (!strcmp(part, ".base"))
		return !strcmp(segment, "fs") || !strcmp(segment, "gs");
	return !strcmp(part, ".attr") && !strcmp(segment, "ss") &&
	       ((attr_a ^ attr_b) & X86_ATTR_DPL);
}

bool state_cpu_visible(const void *a, const void *b, const struct state_field *f)
{
	const char *part = strchr(f->name, '.');

	if (!part)
		return true;
	if (!strcmp(part, ".sel") || !strcmp(part, ".base") || !strcmp(part, ".limit") ||
	    !strcmp(part, ".attr"))
		return segment_visible(a, b, f->name, part);
	return true;
}
