/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A processor's life, and what is derived from its registers. */
#include <stdlib.h>
#include <string.h>

#include "cpu/core.h"

/* ---- derived from the registers -----------------------------------------------------------------
 */

static bool flat_data(const struct cpu_seg *s)
{
	return s->base == 0 && s->limit == 0xffffffffu &&
	       (s->attr & (X86_ATTR_UNUSABLE | X86_ATTR_P | X86_ATTR_S | X86_ATTR_CODE |
			   X86_ATTR_EC | X86_ATTR_RW)) == (X86_ATTR_P | X86_ATTR_S | X86_ATTR_RW);
}

static bool flat_code(const struct cpu_seg *s)
{
	return s->base == 0 && s->limit == 0xffffffffu &&
	       (s->attr & (X86_ATTR_UNUSABLE | X86_ATTR_P | X86_ATTR_S | X86_ATTR_CODE |
			   X86_ATTR_RW)) == (X86_ATTR_P | X86_ATTR_S | X86_ATTR_CODE | X86_ATTR_RW);
}

static uint32_t mode_word(const struct cpu *c)
{
	const struct cpu_state *s = &c->s;
	const struct cpu_seg *cs = &s->seg[X86_CS];
	bool prot = s->cr0 & X86_CR0_PE && !(s->rflags & X86_FLAG_VM);
	uint32_t mode = 0;

	if (prot)
		mode |= CPU_MODE_PROT;
	if (s->efer & X86_EFER_LMA)
		mode |= CPU_MODE_LMA;
	if (s->efer & X86_EFER_LMA && cs->attr & X86_ATTR_L) {
		mode |= CPU_MODE_CODE64 | CPU_MODE_FLAT;
	} else {
		if (cs->attr & X86_ATTR_DB)
			mode |= CPU_MODE_CODE32;
		if (s->seg[X86_SS].attr & X86_ATTR_DB)
			mode |= CPU_MODE_SS32;
		if (prot && flat_code(cs) && flat_data(&s->seg[X86_SS]) &&
		    flat_data(&s->seg[X86_DS]) && flat_data(&s->seg[X86_ES]))
			mode |= CPU_MODE_FLAT;
	}
	if (s->rflags & X86_FLAG_AC && s->cr0 & X86_CR0_AM && cpu_cpl(c) == 3)
		mode |= CPU_MODE_AC;
	if (s->cr0 & (X86_CR0_EM | X86_CR0_TS))
		mode |= CPU_MODE_NO_X87 | CPU_MODE_NO_SSE;
	if (!(s->cr4 & X86_CR4_OSFXSR))
		mode |= CPU_MODE_NO_SSE;
	if (prot && s->cr4 & X86_CR4_OSXSAVE && s->xcr0 & X86_XCR0_AVX && !(s->cr0 & X86_CR0_TS))
		mode |= CPU_MODE_AVX;
	return mode;
}

void cpu_update_mode(struct cpu *c)
{
	const struct cpu_state *s = &c->s;
	bool code64;

	c->mode = mode_word(c);
	code64 = (c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64;
	for (unsigned n = 0; n < 6; n++)
		c->lbase[n] = code64 && n < X86_FS ? 0 : s->seg[n].base;
	c->lbase[CPU_SEG_NONE] = 0;
	c->watching = cpu_debug_watching(c);
	c->single = s->rflags & (X86_FLAG_TF | X86_FLAG_RF) || s->dr7 & 0xff ||
		    c->host_debug.single_step || c->watching;
	cpu_update_tlb_ctx(c);
	if (c->single || s->int_shadow_sti || s->int_shadow_movss)
		cpu_recheck(c);
}

void cpu_state_changed(struct cpu *c)
{
	cpu_update_asid(c);
	cpu_update_mode(c);
	cpu_recheck(c);
}

void cpu_set_sp(struct cpu *c, uint64_t value)
{
	switch (cpu_stack_size(c)) {
	case 8: c->s.gpr[X86_RSP] = value; break;
	case 4: c->s.gpr[X86_RSP] = (uint32_t)value; break;
	default: CPU_REG16(c, X86_RSP * 8) = (uint16_t)value; break;
	}
}

/* ---- life ---------------------------------------------------------------------------------------
 */

static int copy_cpuid(struct cpu *c, const struct cpu_cpuid *cpuid, unsigned count)
{
	c->cpuid = calloc(count ? count : 1, sizeof(*cpuid));
	c->feat = calloc(1, sizeof(*c->feat));
	if (!c->cpuid || !c->feat)
		return -1;
	if (count)
		memcpy(c->cpuid, cpuid, count * sizeof(*cpuid));
	c->cpuid_count = count;
	cpu_features_init(c);
	return 0;
}

struct cpu *cpu_create(struct cpu_domain *d, const struct cpu_cpuid *cpuid, unsigned count)
{
	struct cpu *c = aligned_alloc(64, ALIGN_UP(sizeof(*c), (size_t)64));

	if (!c)
		return NULL;
	memset(c, 0, sizeof(*c));
	c->domain = d;
	c->icount_limit = c->step_limit = ~0ull;
	c->watch_hit = -1;
	c->resume_icount = ~0ull;
	list_init(&c->domain_link);
	cpu_decode_init(c);
	if (copy_cpuid(c, cpuid, count) || cpu_cache_init(c) || cpu_tlb_init(c) ||
	    cpu_thunks_init(c) || cpu_peer_init(c)) {
		cpu_destroy(c);
		return NULL;
	}
	cpu_reset(c, false);
	return c;
}

void cpu_destroy(struct cpu *c)
{
	if (!c)
		return;
	cpu_peer_finish(c);
	cpu_tlb_finish(c);
	cpu_cache_finish(c);
	free(c->feat);
	free(c->cpuid);
	free(c);
}

/* ---- looking at it ------------------------------------------------------------------------------
 */

struct cpu_state *cpu_state(struct cpu *c)
{
	return &c->s;
}

struct cpu_controls *cpu_controls(struct cpu *c)
{
	return &c->ctl;
}

const struct cpu_exit *cpu_exit(const struct cpu *c)
{
	return &c->exit;
}

const struct cpu_stats *cpu_stats(const struct cpu *c)
{
	return &c->stats;
}

uint64_t cpu_icount(const struct cpu *c)
{
	return c->icount;
}

void cpu_set_icount_limit(struct cpu *c, uint64_t limit)
{
	c->icount_limit = limit;
	cpu_recheck(c);
}

const char *cpu_exit_name(enum cpu_exit_reason reason)
{
	static const char *const name[CPU_EXIT_REASONS] = {
		[CPU_EXIT_NONE] = "none",
		[CPU_EXIT_KICK] = "kick",
		[CPU_EXIT_ICOUNT] = "icount",
		[CPU_EXIT_HLT] = "hlt",
		[CPU_EXIT_IRQ_WINDOW] = "irq_window",
		[CPU_EXIT_NMI_WINDOW] = "nmi_window",
		[CPU_EXIT_TRIPLE_FAULT] = "triple_fault",
		[CPU_EXIT_EXCEPTION] = "exception",
		[CPU_EXIT_TDP_VIOLATION] = "tdp_violation",
		[CPU_EXIT_TDP_MISCONFIG] = "tdp_misconfig",
		[CPU_EXIT_NPF] = "npf",
		[CPU_EXIT_IO] = "io",
		[CPU_EXIT_MSR_READ] = "msr_read",
		[CPU_EXIT_MSR_WRITE] = "msr_write",
		[CPU_EXIT_CR_ACCESS] = "cr_access",
		[CPU_EXIT_DR_ACCESS] = "dr_access",
		[CPU_EXIT_INVLPG] = "invlpg",
		[CPU_EXIT_INVPCID] = "invpcid",
		[CPU_EXIT_CPUID] = "cpuid",
		[CPU_EXIT_RDTSC] = "rdtsc",
		[CPU_EXIT_RDTSCP] = "rdtscp",
		[CPU_EXIT_RDPMC] = "rdpmc",
		[CPU_EXIT_RDRAND] = "rdrand",
		[CPU_EXIT_RDSEED] = "rdseed",
		[CPU_EXIT_PAUSE] = "pause",
		[CPU_EXIT_MONITOR] = "monitor",
		[CPU_EXIT_MWAIT] = "mwait",
		[CPU_EXIT_WBINVD] = "wbinvd",
		[CPU_EXIT_XSETBV] = "xsetbv",
		[CPU_EXIT_TASK_SWITCH] = "task_switch",
		[CPU_EXIT_DESC_TABLE] = "desc_table",
		[CPU_EXIT_TPR_BELOW] = "tpr_below",
		[CPU_EXIT_VMCALL] = "vmcall",
		[CPU_EXIT_VMX_INSN] = "vmx_insn",
		[CPU_EXIT_DEBUG] = "debug",
		[CPU_EXIT_PML_FULL] = "pml_full",
	};

	return (unsigned)reason < CPU_EXIT_REASONS && name[reason] ? name[reason] : "?";
}

unsigned cpu_history(const struct cpu *c, uint64_t *rip, unsigned max)
{
	unsigned size = ARRAY_SIZE(c->history), n = MIN(c->history_at, size);

	n = MIN(n, max);
	for (unsigned k = 0; k < n; k++)
		rip[k] = c->history[(c->history_at - n + k) % size];
	return n;
}
