/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The processor after RESET and after INIT (SDM 3A table 10-1). */
#include <string.h>

#include "cpu/cpu_internal.h"

static void reset_segments(struct cpu_state *s)
{
	for (unsigned n = 0; n < 6; n++)
		s->seg[n] = (struct cpu_seg){.limit = 0xffff, .attr = 0x93};
	s->seg[X86_CS].sel = 0xf000;
	s->seg[X86_CS].base = 0xffff0000u;
	s->ldtr = (struct cpu_seg){.limit = 0xffff, .attr = 0x82};
	s->tr = (struct cpu_seg){.limit = 0xffff, .attr = 0x8b};
	s->gdtr = s->idtr = (struct cpu_table){.limit = 0xffff};
}

/* What INIT leaves as it is: x87 and SSE, XCR0, MTRRs, PAT, most MSRs. */
static void reset_rest(struct cpu_state *s)
{
	uint32_t mask = s->fx.mxcsr_mask;

	memset(&s->fx, 0, sizeof(s->fx));
	memset(s->ymmh, 0, sizeof(s->ymmh));
	s->fx.mxcsr_mask = mask;
	s->fx.fcw = 0x40;
	s->fx.ftw = 0xff; /* 5555h: every register holds zero */
	s->fx.mxcsr = 0x1f80;
	s->xcr0 = X86_XCR0_X87;
	s->pkru = 0;
	s->star = s->lstar = s->cstar = s->fmask = s->kernel_gs_base = 0;
	s->sysenter_cs = s->sysenter_esp = s->sysenter_eip = 0;
	s->pat = X86_PAT_RESET;
	s->tsc_aux = s->spec_ctrl = s->xss = s->debugctl = s->tsc_adjust = 0;
	s->misc_enable = BIT(0) | BIT(11) | BIT(12);
	s->mtrr_def_type = 0;
	memset(s->mtrr_fix, 0, sizeof(s->mtrr_fix));
	memset(s->mtrr_var, 0, sizeof(s->mtrr_var));
	s->cr0 = X86_CR0_CD | X86_CR0_NW;
}

void cpu_state_reset(struct cpu_state *s, bool init, uint32_t signature)
{
	if (!init)
		reset_rest(s);
	memset(s->gpr, 0, sizeof(s->gpr));
	s->rip = 0xfff0;
	s->rflags = X86_FLAG_ONE;
	reset_segments(s);
	s->cr0 = (s->cr0 & (X86_CR0_CD | X86_CR0_NW)) | X86_CR0_ET;
	s->cr2 = s->cr3 = s->cr4 = s->cr8 = s->efer = 0;
	memset(s->pdptr, 0, sizeof(s->pdptr));
	memset(s->dr, 0, sizeof(s->dr));
	s->dr6 = X86_DR6_FIXED;
	s->dr7 = X86_DR7_FIXED;
	s->activity = CPU_ACTIVE;
	s->int_shadow_sti = s->int_shadow_movss = s->nmi_blocked = false;
	s->pending_dbg = 0;
	s->event.valid = false;
	s->gpr[X86_RDX] = signature;
}

void cpu_reset(struct cpu *c, bool init)
{
	uint32_t leaf1[4];

	cpu_cpuid(c, 1, 0, leaf1);
	cpu_state_reset(&c->s, init, leaf1[0]);
	c->resume_icount = ~0ull; /* another first instruction, be it there again */
	cpu_tlb_flush_all(c);
	cpu_state_changed(c);
}
