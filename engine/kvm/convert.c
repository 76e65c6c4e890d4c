/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* struct cpu_state to and from the kernel's structures. */
#include "engine/kvm/convert.h"

#include <string.h>

/* ---- general registers --------------------------------------------------------------------------
 */

/* The kernel's order is its own. */
static const uint16_t gpr_at[16] = {
	[X86_RAX] = offsetof(struct kvm_regs, rax), [X86_RCX] = offsetof(struct kvm_regs, rcx),
	[X86_RDX] = offsetof(struct kvm_regs, rdx), [X86_RBX] = offsetof(struct kvm_regs, rbx),
	[X86_RSP] = offsetof(struct kvm_regs, rsp), [X86_RBP] = offsetof(struct kvm_regs, rbp),
	[X86_RSI] = offsetof(struct kvm_regs, rsi), [X86_RDI] = offsetof(struct kvm_regs, rdi),
	[8] = offsetof(struct kvm_regs, r8),	    [9] = offsetof(struct kvm_regs, r9),
	[10] = offsetof(struct kvm_regs, r10),	    [11] = offsetof(struct kvm_regs, r11),
	[12] = offsetof(struct kvm_regs, r12),	    [13] = offsetof(struct kvm_regs, r13),
	[14] = offsetof(struct kvm_regs, r14),	    [15] = offsetof(struct kvm_regs, r15),
};

void kvm_regs_to_state(const struct kvm_regs *r, struct cpu_state *s)
{
	for (unsigned n = 0; n < 16; n++)
		memcpy(&s->gpr[n], (const char *)r + gpr_at[n], sizeof(s->gpr[n]));
	s->rip = r->rip;
	s->rflags = r->rflags;
}

void kvm_regs_from_state(struct kvm_regs *r, const struct cpu_state *s)
{
	for (unsigned n = 0; n < 16; n++)
		memcpy((char *)r + gpr_at[n], &s->gpr[n], sizeof(s->gpr[n]));
	r->rip = s->rip;
	r->rflags = s->rflags;
}

/* ---- segments, tables, control registers --------------------------------------------------------
 */

static void segment_to_state(const struct kvm_segment *k, struct cpu_seg *s)
{
	*s = (struct cpu_seg){
		.base = k->base,
		.limit = k->limit,
		.sel = k->selector,
		.attr = (uint32_t)(k->type & 15) | (k->s & 1u) << 4 | (k->dpl & 3u) << 5 |
			(k->present & 1u) << 7 | (k->avl & 1u) << 12 | (k->l & 1u) << 13 |
			(k->db & 1u) << 14 | (k->g & 1u) << 15 | (k->unusable & 1u) << 16,
	};
}

static void segment_from_state(struct kvm_segment *k, const struct cpu_seg *s)
{
	*k = (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->sel,
		.type = s->attr & 15,
		.s = s->attr >> 4 & 1,
		.dpl = s->attr >> 5 & 3,
		.present = s->attr >> 7 & 1,
		.avl = s->attr >> 12 & 1,
		.l = s->attr >> 13 & 1,
		.db = s->attr >> 14 & 1,
		.g = s->attr >> 15 & 1,
		.unusable = s->attr >> 16 & 1,
	};
}

void kvm_sregs_to_sregs2(const struct kvm_sregs *old, struct kvm_sregs2 *r)
{
	/* Up to apic_base they are the same. */
	static_assert(offsetof(struct kvm_sregs, interrupt_bitmap) ==
			      offsetof(struct kvm_sregs2, flags),
		      "struct kvm_sregs2 begins as struct kvm_sregs");

	memset(r, 0, sizeof(*r));
	memcpy(r, old, offsetof(struct kvm_sregs2, flags));
}

void kvm_sregs2_to_sregs(const struct kvm_sregs2 *r, struct kvm_sregs *old)
{
	memset(old, 0, sizeof(*old));
	memcpy(old, r, offsetof(struct kvm_sregs2, flags));
}

bool kvm_state_is_pae(const struct cpu_state *s)
{
	return (s->cr0 & X86_CR0_PG) && (s->cr4 & X86_CR4_PAE) && !(s->efer & X86_EFER_LMA);
}

void kvm_sregs2_to_state(const struct kvm_sregs2 *r, struct cpu_state *s)
{
	segment_to_state(&r->es, &s->seg[X86_ES]);
	segment_to_state(&r->cs, &s->seg[X86_CS]);
	segment_to_state(&r->ss, &s->seg[X86_SS]);
	segment_to_state(&r->ds, &s->seg[X86_DS]);
	segment_to_state(&r->fs, &s->seg[X86_FS]);
	segment_to_state(&r->gs, &s->seg[X86_GS]);
	segment_to_state(&r->tr, &s->tr);
	segment_to_state(&r->ldt, &s->ldtr);
	s->gdtr = (struct cpu_table){.base = r->gdt.base, .limit = r->gdt.limit};
	s->idtr = (struct cpu_table){.base = r->idt.base, .limit = r->idt.limit};
	s->cr0 = r->cr0;
	s->cr2 = r->cr2;
	s->cr3 = r->cr3;
	s->cr4 = r->cr4;
	s->cr8 = r->cr8;
	s->efer = r->efer;
	for (unsigned n = 0; n < 4; n++)
		s->pdptr[n] = r->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID ? r->pdptrs[n] : 0;
}

void kvm_sregs2_from_state(struct kvm_sregs2 *r, const struct cpu_state *s)
{
	segment_from_state(&r->es, &s->seg[X86_ES]);
	segment_from_state(&r->cs, &s->seg[X86_CS]);
	segment_from_state(&r->ss, &s->seg[X86_SS]);
	segment_from_state(&r->ds, &s->seg[X86_DS]);
	segment_from_state(&r->fs, &s->seg[X86_FS]);
	segment_from_state(&r->gs, &s->seg[X86_GS]);
	segment_from_state(&r->tr, &s->tr);
	segment_from_state(&r->ldt, &s->ldtr);
	r->gdt = (struct kvm_dtable){.base = s->gdtr.base, .limit = s->gdtr.limit};
	r->idt = (struct kvm_dtable){.base = s->idtr.base, .limit = s->idtr.limit};
	r->cr0 = s->cr0;
	r->cr2 = s->cr2;
	r->cr3 = s->cr3;
	r->cr4 = s->cr4;
	r->cr8 = s->cr8;
	r->efer = s->efer;
	r->flags = 0;
	memset(r->pdptrs, 0, sizeof(r->pdptrs));
	if (kvm_state_is_pae(s)) {
		r->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
		memcpy(r->pdptrs, s->pdptr, sizeof(r->pdptrs));
	}
}

void kvm_debugregs_to_state(const struct kvm_debugregs *r, struct cpu_state *s)
{
	memcpy(s->dr, r->db, sizeof(s->dr));
	s->dr6 = r->dr6;
	s->dr7 = r->dr7;
}

void kvm_debugregs_from_state(struct kvm_debugregs *r, const struct cpu_state *s)
{
	*r = (struct kvm_debugregs){.dr6 = s->dr6, .dr7 = s->dr7};
	memcpy(r->db, s->dr, sizeof(r->db));
}

/* ---- x87, SSE, AVX, PKRU (SDM 1 13.4) -----------------------------------------------------------
 */

#define XSTATE_BV 512 /* offset; the header's first word */
#define YMM_BYTES 256

/* Where XSTATE_BV has no bit the component is in its initial form. */
static void x87_to_state(const struct cpu_fx *fx, bool here, struct cpu_state *s)
{
	if (!here) {
		s->fx.fcw = 0x37f;
		s->fx.fsw = s->fx.fop = 0;
		s->fx.ftw = 0;
		s->fx.fip = s->fx.fdp = 0;
		memset(s->fx.st, 0, sizeof(s->fx.st));
		return;
	}
	s->fx.fcw = fx->fcw;
	s->fx.fsw = fx->fsw;
	s->fx.ftw = fx->ftw;
	s->fx.fop = fx->fop;
	s->fx.fip = fx->fip;
	s->fx.fdp = fx->fdp;
	for (unsigned n = 0; n < 8; n++) {
		s->fx.st[n].lo = fx->st[n].lo;
		s->fx.st[n].hi = fx->st[n].hi & 0xffff;
	}
}

void kvm_xsave_to_state(const void *area, const struct kvm_xsave_layout *layout,
			struct cpu_state *s)
{
	const uint8_t *bytes = area;
	struct cpu_fx fx;
	uint64_t bv;

	memcpy(&fx, area, sizeof(fx));
	memcpy(&bv, bytes + XSTATE_BV, sizeof(bv));
	x87_to_state(&fx, bv & X86_XCR0_X87, s);
	/* MXCSR comes with SSE or AVX; the mask is the processor's, not the area's. */
	s->fx.mxcsr = bv & (X86_XCR0_SSE | X86_XCR0_AVX) ? fx.mxcsr & 0xffff : 0x1f80;
	memset(s->fx.xmm, 0, sizeof(s->fx.xmm));
	if (bv & X86_XCR0_SSE)
		memcpy(s->fx.xmm, fx.xmm, sizeof(s->fx.xmm));
	memset(s->ymmh, 0, sizeof(s->ymmh));
	if ((bv & X86_XCR0_AVX) && layout->ymm)
		memcpy(s->ymmh, bytes + layout->ymm, sizeof(s->ymmh));
	s->pkru = 0;
	if ((bv & X86_XCR0_PKRU) && layout->pkru)
		memcpy(&s->pkru, bytes + layout->pkru, sizeof(s->pkru));
}

void kvm_xsave_from_state(void *area, const struct kvm_xsave_layout *layout,
			  const struct cpu_state *s)
{
	static_assert(sizeof(s->ymmh) == YMM_BYTES, "the component's size");
	uint64_t bv = X86_XCR0_X87 | X86_XCR0_SSE;
	uint8_t *bytes = area;
	struct cpu_fx fx = s->fx;

	memset(fx.rest, 0, sizeof(fx.rest));
	fx.pad = 0;
	memcpy(bytes, &fx, sizeof(fx));
	if (layout->ymm && (layout->components & X86_XCR0_AVX)) {
		bv |= X86_XCR0_AVX;
		memcpy(bytes + layout->ymm, s->ymmh, sizeof(s->ymmh));
	}
	/* Without its bit the kernel leaves PKRU as it was, so the bit is set for 0 too. */
	if (layout->pkru && (layout->components & X86_XCR0_PKRU)) {
		bv |= X86_XCR0_PKRU;
		memcpy(bytes + layout->pkru, &s->pkru, sizeof(s->pkru));
	}
	memcpy(bytes + XSTATE_BV, &bv, sizeof(bv));
}

/* ---- events -------------------------------------------------------------------------------------
 */

/* As the delivery would do it (the kernel's payload of a #DB has the bits that are active low
 * turned). */
static void take_payload(struct cpu_state *s, uint8_t vector, uint64_t payload)
{
	if (vector == X86_VEC_PF)
		s->cr2 = payload;
	if (vector == X86_VEC_DB)
		s->dr6 = (s->dr6 & ~0xfull) |
			 (payload & (0xf | X86_DR6_BD | X86_DR6_BS | X86_DR6_BT)) | X86_DR6_FIXED;
}

/* Those that INT3 and INTO raise: done again by doing the instruction again. */
static bool is_software(uint8_t vector)
{
	return vector == X86_VEC_BP || vector == X86_VEC_OF;
}

static void exception_to_state(const struct kvm_vcpu_events *e, struct cpu_state *s)
{
	bool has_payload = e->flags & KVM_VCPUEVENT_VALID_PAYLOAD && e->exception_has_payload;

	if (!e->exception.injected &&
	    !(e->flags & KVM_VCPUEVENT_VALID_PAYLOAD && e->exception.pending))
		return;
	if (is_software(e->exception.nr) && e->exception.injected)
		return;
	/* A fault on the way into a handler comes again when that is entered again. */
	if (!e->exception.injected && e->exception.nr != X86_VEC_DB &&
	    (e->nmi.injected || (e->interrupt.injected && !e->interrupt.soft)))
		return;
	if (has_payload)
		take_payload(s, e->exception.nr, e->exception_payload);
	s->event = (struct cpu_event){
		.valid = true,
		.type = CPU_EVENT_HW_EXCEPTION,
		.vector = e->exception.nr,
		.has_error = e->exception.has_error_code,
		.error = e->exception.has_error_code ? e->exception.error_code : 0,
	};
}

void kvm_events_to_state(const struct kvm_vcpu_events *e, struct cpu_state *s)
{
	s->event = (struct cpu_event){0};
	s->pending_dbg = 0;
	exception_to_state(e, s);
	if (!s->event.valid && e->nmi.injected)
		s->event = (struct cpu_event){
			.valid = true, .type = CPU_EVENT_NMI, .vector = X86_VEC_NMI};
	if (!s->event.valid && e->interrupt.injected && !e->interrupt.soft)
		s->event = (struct cpu_event){
			.valid = true, .type = CPU_EVENT_EXT_INTR, .vector = e->interrupt.nr};
	s->int_shadow_sti = e->interrupt.shadow & KVM_X86_SHADOW_INT_STI;
	s->int_shadow_movss = e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS;
	/* While one is injected, masked only says that it is. */
	s->nmi_blocked = e->nmi.masked && !e->nmi.injected;
	s->nmi_pending = MIN(e->nmi.pending, 2);
	if (e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT && e->triple_fault.pending)
		s->activity = CPU_SHUTDOWN;
}

/* Faults push RF (SDM 3B 18.3.1.1); the kernel sets it when it first makes an exception its own. */
static bool pushes_rf(uint8_t vector)
{
	return vector != X86_VEC_DB && vector != X86_VEC_NMI && vector != X86_VEC_BP &&
	       vector != X86_VEC_OF && vector != X86_VEC_DF && vector != X86_VEC_MC;
}

static void exception_from_state(struct kvm_vcpu_events *e, struct cpu_state *s)
{
	const struct cpu_event *ev = &s->event;

	if (ev->has_payload)
		take_payload(s, ev->vector, ev->payload);
	if (pushes_rf(ev->vector))
		s->rflags |= X86_FLAG_RF;
	if (ev->vector == X86_VEC_DB)
		s->dr7 &= ~X86_DR7_GD;
	e->exception.injected = 1;
	e->exception.nr = ev->vector;
	e->exception.has_error_code = ev->has_error;
	e->exception.error_code = ev->has_error ? ev->error : 0;
}

void kvm_take_pending_db(struct cpu_state *s)
{
	if (!s->pending_dbg || s->event.valid || s->int_shadow_movss)
		return;
	s->event = (struct cpu_event){.valid = true,
				      .type = CPU_EVENT_HW_EXCEPTION,
				      .vector = X86_VEC_DB,
				      .has_payload = true,
				      .payload = s->pending_dbg};
	s->pending_dbg = 0;
}

void kvm_events_from_state(struct kvm_vcpu_events *e, struct cpu_state *s)
{
	memset(e, 0, sizeof(*e));
	e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	/* A #DB that is still to come is due now: it came with the instruction before. */
	kvm_take_pending_db(s);
	s->pending_dbg = 0;
	e->nmi.masked = s->nmi_blocked;
	e->nmi.pending = s->nmi_pending;
	if (s->event.valid) {
		switch (s->event.type) {
		case CPU_EVENT_EXT_INTR:
			e->interrupt.injected = 1;
			e->interrupt.nr = s->event.vector;
			break;
		case CPU_EVENT_NMI:
			e->nmi.injected = 1;
			e->nmi.masked = 1;
			break;
		case CPU_EVENT_HW_EXCEPTION: exception_from_state(e, s); break;
		default: break; /* an INT instruction: it is carried out again */
		}
	}
	s->event.valid = false;
	e->interrupt.shadow = (uint8_t)((s->int_shadow_sti ? KVM_X86_SHADOW_INT_STI : 0) |
					(s->int_shadow_movss ? KVM_X86_SHADOW_INT_MOV_SS : 0));
}

enum cpu_activity kvm_mp_to_activity(uint32_t mp_state)
{
	switch (mp_state) {
	case KVM_MP_STATE_HALTED: return CPU_HALTED;
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED: return CPU_WAIT_FOR_SIPI;
	default: return CPU_ACTIVE;
	}
}

uint32_t kvm_mp_from_activity(enum cpu_activity activity)
{
	switch (activity) {
	case CPU_HALTED: return KVM_MP_STATE_HALTED;
	case CPU_WAIT_FOR_SIPI: return KVM_MP_STATE_INIT_RECEIVED;
	default: return KVM_MP_STATE_RUNNABLE;
	}
}

/* ---- MSRs ---------------------------------------------------------------------------------------
 */

#define ROW(msr, member)                                                                           \
	{                                                                                          \
		msr, offsetof(struct cpu_state, member), #member                                   \
	}
#define FIX(n, msr) ROW(msr, mtrr_fix[n])
#define VAR(n)	    ROW(X86_MSR_MTRR_PHYSBASE0 + n, mtrr_var[n])

/* What is not here: EFER, FS and GS base go with the segments; TSC, APIC base and TSC deadline are
 * somebody else's; the rest never changes (SDM 4). */
const struct kvm_msr_row kvm_msr_rows[] = {
	ROW(X86_MSR_STAR, star),
	ROW(X86_MSR_LSTAR, lstar),
	ROW(X86_MSR_CSTAR, cstar),
	ROW(X86_MSR_FMASK, fmask),
	ROW(X86_MSR_KERNEL_GS_BASE, kernel_gs_base),
	ROW(X86_MSR_SYSENTER_CS, sysenter_cs),
	ROW(X86_MSR_SYSENTER_ESP, sysenter_esp),
	ROW(X86_MSR_SYSENTER_EIP, sysenter_eip),
	ROW(X86_MSR_PAT, pat),
	ROW(X86_MSR_TSC_AUX, tsc_aux),
	ROW(X86_MSR_MISC_ENABLE, misc_enable),
	ROW(X86_MSR_SPEC_CTRL, spec_ctrl),
	ROW(X86_MSR_XSS, xss),
	ROW(X86_MSR_DEBUGCTL, debugctl),
	ROW(X86_MSR_TSC_ADJUST, tsc_adjust),
	ROW(X86_MSR_MTRR_DEF_TYPE, mtrr_def_type),
	FIX(0, X86_MSR_MTRR_FIX64K),
	FIX(1, X86_MSR_MTRR_FIX16K_0),
	FIX(2, X86_MSR_MTRR_FIX16K_0 + 1),
	FIX(3, X86_MSR_MTRR_FIX4K_0),
	FIX(4, X86_MSR_MTRR_FIX4K_0 + 1),
	FIX(5, X86_MSR_MTRR_FIX4K_0 + 2),
	FIX(6, X86_MSR_MTRR_FIX4K_0 + 3),
	FIX(7, X86_MSR_MTRR_FIX4K_0 + 4),
	FIX(8, X86_MSR_MTRR_FIX4K_0 + 5),
	FIX(9, X86_MSR_MTRR_FIX4K_0 + 6),
	FIX(10, X86_MSR_MTRR_FIX4K_0 + 7),
	VAR(0),
	VAR(1),
	VAR(2),
	VAR(3),
	VAR(4),
	VAR(5),
	VAR(6),
	VAR(7),
	VAR(8),
	VAR(9),
	VAR(10),
	VAR(11),
	VAR(12),
	VAR(13),
	VAR(14),
	VAR(15),
};
const unsigned kvm_msr_row_count = ARRAY_SIZE(kvm_msr_rows);
static_assert(ARRAY_SIZE(kvm_msr_rows) <= KVM_MSR_ROWS_MAX, "a bit of a word each");

/* ---- what has no place there --------------------------------------------------------------------
 */

static bool loses_ymm(const struct cpu_state *s, const struct kvm_xsave_layout *layout)
{
	static const uint64_t zero[16][2];

	return !(layout->ymm && (layout->components & X86_XCR0_AVX)) &&
	       memcmp(s->ymmh, zero, sizeof(zero));
}

static bool loses_pkru(const struct cpu_state *s, const struct kvm_xsave_layout *layout)
{
	return s->pkru && !(layout->pkru && (layout->components & X86_XCR0_PKRU));
}

static bool loses_xcr0(const struct cpu_state *s, const struct kvm_xsave_layout *layout)
{
	return s->xcr0 & ~(layout->components | X86_XCR0_X87);
}

static bool loses_pending_dbg(const struct cpu_state *s, const struct kvm_xsave_layout *layout)
{
	return s->pending_dbg && (s->int_shadow_movss || s->event.valid);
}

const char *kvm_state_lost(const struct cpu_state *s, const struct kvm_xsave_layout *layout,
			   unsigned n)
{
	static const struct {
		const char *name;
		bool (*lost)(const struct cpu_state *s, const struct kvm_xsave_layout *layout);
	} rows[] = {
		{"the upper halves of YMM", loses_ymm},
		{"PKRU", loses_pkru},
		{"XCR0", loses_xcr0},
		{"a debug exception that waits behind MOV SS", loses_pending_dbg},
	};

	for (unsigned k = 0; k < ARRAY_SIZE(rows); k++)
		if (rows[k].lost(s, layout) && n-- == 0)
			return rows[k].name;
	return NULL;
}
