/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What to do after an exit: one handler a reason, from a table. */
#include "engine/soft/soft_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum soft_next soft_fail(struct engine_vcpu *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(v->error, sizeof(v->error), fmt, ap);
	va_end(ap);
	return SOFT_ERROR;
}

/* ---- what the processor and the MMU must know of each other -------------------------------------
 */

void soft_mmu_regs(struct engine_vcpu *v, struct mmu_regs *ret_regs)
{
	guest_mmu_regs(cpu_state(v->cpu), v->vm->config.model, ret_regs);
}

void soft_sync_mmu(struct engine_vcpu *v)
{
	struct mmu_regs regs;

	soft_mmu_regs(v, &regs);
	mmu_set_regs(v->mmu, &regs);
}

/*
 * Under shadow every control bit that says how the guest's tables are to be read is L0's to see;
 * under TDP the processor reads them itself, and nothing of it leaves.
 */
#define SHADOW_CR0 (X86_CR0_PE | X86_CR0_PG | X86_CR0_WP)
#define SHADOW_CR4                                                                                 \
	(X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_LA57 | X86_CR4_PCIDE | X86_CR4_SMEP |   \
	 X86_CR4_SMAP | X86_CR4_PKE)

#define EPTP_AD BIT(6) /* accessed and dirty flags are in use */

void soft_set_controls(struct engine_vcpu *v)
{
	struct cpu_controls *ctl = cpu_controls(v->cpu);
	const struct cpu_state *s = cpu_state(v->cpu);
	uint64_t windows = ctl->exits & (CPU_CTL_IRQ_WINDOW | CPU_CTL_NMI_WINDOW | CPU_CTL_NO_APIC);

	ctl->exits = windows | CPU_CTL_HLT | CPU_CTL_CR8_LOAD | CPU_CTL_CR8_STORE;
	if (v->vm->config.clock == ENGINE_CLOCK_INSTRUCTIONS)
		ctl->exits |= CPU_CTL_TSC_ICOUNT;
	ctl->vpid = 1;
	ctl->msr_bitmap = v->msr_bitmap;
	memset(v->msr_bitmap, 0, PAGE_SIZE);
	/* Writes that move the TSC: the local APIC's deadline goes with it. */
	v->msr_bitmap[2048 + X86_MSR_TSC / 8] |= 1u << X86_MSR_TSC % 8;
	v->msr_bitmap[2048 + X86_MSR_TSC_ADJUST / 8] |= 1u << X86_MSR_TSC_ADJUST % 8;
	if (ctl->paging == CPU_PAGING_TDP && ctl->tdp_format == CPU_TDP_EPT && v->root_valid &&
	    v->root.tag & EPTP_AD)
		ctl->exits |= CPU_CTL_TDP_AD | (v->root.pml ? CPU_CTL_PML : 0);
	if (ctl->paging == CPU_PAGING_SHADOW) {
		uint32_t efer = X86_MSR_EFER & 0x1fff;

		ctl->exits |= CPU_CTL_CR3_LOAD | CPU_CTL_INVLPG | CPU_CTL_INVPCID;
		ctl->exception_bitmap = BIT(X86_VEC_PF);
		ctl->cr0_mask = SHADOW_CR0;
		ctl->cr4_mask = SHADOW_CR4;
		v->msr_bitmap[3072 + efer / 8] |= (uint8_t)(1u << efer % 8);
	} else {
		ctl->exception_bitmap = 0;
		ctl->cr0_mask = 0;
		ctl->cr4_mask = 0;
	}
	ctl->cr0_shadow = s->cr0;
	ctl->cr4_shadow = s->cr4;
}

/* A control register changed under L0's hands. */
static void registers_changed(struct engine_vcpu *v)
{
	struct cpu_controls *ctl = cpu_controls(v->cpu);
	const struct cpu_state *s = cpu_state(v->cpu);

	ctl->cr0_shadow = s->cr0;
	ctl->cr4_shadow = s->cr4;
	soft_sync_mmu(v);
	cpu_state_changed(v->cpu);
}

static enum soft_next finish(struct engine_vcpu *v, int vector)
{
	if (vector > 0)
		cpu_inject_exception(v->cpu, (uint8_t)vector, true, 0);
	else
		cpu_skip(v->cpu);
	return SOFT_RESUME;
}

/* ---- memory ------------------------------------------------------------------------------------
 */

/*
 * The instruction is to be tried again. Should the same fault come over and over though nothing was
 * wrong, or what was made is gone at once each time, MMU and processor do not agree: an error of
 * ours, which must not look like a guest that hangs. An instruction has several pages, so two
 * addresses are remembered: a long REP MOVS goes on to others.
 */
#define AGAIN_SPURIOUS 100
#define AGAIN_MAX      100000

static enum soft_next retry(struct engine_vcpu *v, const struct mmu_fault *f)
{
	const struct cpu_state *s = cpu_state(v->cpu);
	uint64_t icount = cpu_icount(v->cpu);

	if (v->again.icount != icount || v->again.rip != s->rip ||
	    (v->again.addr[0] != f->addr && v->again.addr[1] != f->addr)) {
		v->again.icount = icount;
		v->again.rip = s->rip;
		v->again.weight = 0;
	}
	if (v->again.addr[0] != f->addr) {
		v->again.addr[1] = v->again.addr[0];
		v->again.addr[0] = f->addr;
	}
	v->again.weight += f->fixed ? 1 : AGAIN_SPURIOUS;
	if (v->again.weight < AGAIN_MAX)
		return SOFT_RESUME;
	return soft_fail(
		v, "no progress at %#llx: the fault at %#llx (access %#x) comes again and again",
		(unsigned long long)s->rip, (unsigned long long)f->addr, f->access);
}

static enum soft_next mmu_result(struct engine_vcpu *v, const struct mmu_fault *f, int ret)
{
	switch (ret) {
	case MMU_RETRY: return retry(v, f);
	case MMU_WAIT:
	case MMU_RING_FULL: return SOFT_WAIT;
	case MMU_EMULATE:
	case MMU_MMIO: return soft_emulate(v);
	case MMU_INJECT:
		if (f->guest.vector == X86_VEC_PF)
			cpu_inject_page_fault(v->cpu, f->guest.error_code, f->guest.cr2);
		else
			cpu_inject_exception(v->cpu, f->guest.vector, true, f->guest.error_code);
		return SOFT_RESUME;
	default: break;
	}
	if (ret < 0)
		return soft_fail(v, "page fault at %#llx: %s", (unsigned long long)f->addr,
				 strerror(-ret));
	return soft_fail(v, "page fault at %#llx: unexpected result %d",
			 (unsigned long long)f->addr, ret);
}

static unsigned access_of_error(const struct cpu_exit *e)
{
	uint32_t error = e->exception.error;

	return (error & X86_PF_W ? CPU_ACCESS_WRITE : 0) |
	       (error & X86_PF_I ? CPU_ACCESS_FETCH : 0) |
	       (error & X86_PF_U ? CPU_ACCESS_USER : 0) |
	       (e->exception.implicit ? CPU_ACCESS_IMPLICIT : 0);
}

static enum soft_next exit_exception(struct engine_vcpu *v, const struct cpu_exit *e)
{
	uint32_t error = e->exception.error;
	struct mmu_fault f = {
		.addr = e->exception.payload,
		.gva = e->exception.payload,
		.access = guest_mmu_access(cpu_state(v->cpu), access_of_error(e)),
		.flags = MMU_PF_GVA_VALID | (error & X86_PF_P ? MMU_PF_PRESENT : 0) |
			 (error & X86_PF_RSVD ? MMU_PF_RSVD : 0),
	};

	if (e->exception.vector != X86_VEC_PF)
		return soft_fail(v, "exception %u left though nobody asked", e->exception.vector);
	soft_sync_mmu(v);
	return mmu_result(v, &f, mmu_page_fault(v->mmu, &f));
}

static enum soft_next exit_tdp(struct engine_vcpu *v, const struct cpu_exit *e)
{
	uint32_t access = 0, flags = 0;

	if (e->mem.write)
		access |= MMU_ACC_WRITE;
	if (e->mem.fetch)
		access |= MMU_ACC_FETCH;
	if (e->mem.user)
		access |= MMU_ACC_USER;
	if (e->mem.gva_valid)
		flags |= MMU_PF_GVA_VALID;
	if (e->mem.walk)
		flags |= MMU_PF_TABLE;
	if (e->mem.present_perms || (e->reason == CPU_EXIT_NPF && (e->mem.error & X86_PF_P)))
		flags |= MMU_PF_PRESENT;
	if (e->reason == CPU_EXIT_TDP_MISCONFIG ||
	    (e->reason == CPU_EXIT_NPF && (e->mem.error & X86_PF_RSVD)))
		flags |= MMU_PF_RSVD;

	struct mmu_fault f = {
		.addr = e->mem.gpa,
		.gva = e->mem.gva,
		.access = access,
		.flags = flags,
		.walk_access =
			e->mem.walk ? guest_mmu_access(cpu_state(v->cpu), e->mem.walk_access) : 0,
	};

	soft_sync_mmu(v);
	return mmu_result(v, &f, mmu_page_fault(v->mmu, &f));
}

/* ---- instructions ------------------------------------------------------------------------------
 */

static enum soft_next exit_io(struct engine_vcpu *v, const struct cpu_exit *e)
{
	uint32_t data;

	if (e->io.string)
		return soft_emulate(v);
	if (e->io.in) {
		data = ~0u;
		guest_pio(&v->mem, e->io.port, true, e->io.size, &data);
		cpu_complete_in(v->cpu, data);
		cpu_skip(v->cpu);
		return SOFT_RESUME;
	}
	data = (uint32_t)cpu_state(v->cpu)->gpr[X86_RAX];
	/* Before the device sees it: it may end the machine, and a saved state must be after. */
	cpu_skip(v->cpu);
	guest_pio(&v->mem, e->io.port, false, e->io.size, &data);
	return SOFT_RESUME;
}

static enum soft_next exit_msr_read(struct engine_vcpu *v, const struct cpu_exit *e)
{
	const struct engine_config *config = &v->vm->config;
	struct cpu_state *s = cpu_state(v->cpu);
	uint64_t value = 0;
	int ret = cpu_rdmsr(v->cpu, e->msr.index, &value);

	if (ret < 0)
		ret = config->host->msr_read(config->host_priv, v->id, e->msr.index, &value)
			      ? X86_VEC_GP
			      : 0;
	if (ret == 0) {
		s->gpr[X86_RAX] = (uint32_t)value;
		s->gpr[X86_RDX] = value >> 32;
	}
	return finish(v, ret);
}

/* CPUID.1:EDX.APIC follows the enable bit. */
static void note_apic_base(struct engine_vcpu *v, uint64_t base)
{
	struct cpu_controls *ctl = cpu_controls(v->cpu);

	ctl->exits = base & BIT(11) ? ctl->exits & ~CPU_CTL_NO_APIC : ctl->exits | CPU_CTL_NO_APIC;
	cpu_state_changed(v->cpu);
}

static enum soft_next exit_msr_write(struct engine_vcpu *v, const struct cpu_exit *e)
{
	const struct engine_config *config = &v->vm->config;
	int ret = cpu_wrmsr(v->cpu, e->msr.index, e->msr.value);

	if (ret < 0) {
		ret = config->host->msr_write(config->host_priv, v->id, e->msr.index, e->msr.value)
			      ? X86_VEC_GP
			      : 0;
		if (!ret && e->msr.index == X86_MSR_APIC_BASE)
			note_apic_base(v, e->msr.value);
	} else if (ret == 0 && e->msr.index == X86_MSR_EFER) {
		registers_changed(v);
	} else if (ret == 0 &&
		   (e->msr.index == X86_MSR_TSC || e->msr.index == X86_MSR_TSC_ADJUST)) {
		config->host->tsc_offset(config->host_priv, v->id, cpu_state(v->cpu)->tsc_adjust);
	}
	return finish(v, ret);
}

/*
 * PAE paging: the four PDPTEs are read when CR3 is loaded, or paging comes on. Under shadow the
 * processor leaves that to us.
 */
static int load_pdptrs(struct engine_vcpu *v, uint64_t cr0, uint64_t cr3, uint64_t cr4,
		       uint64_t pdptr[4])
{
	const struct cpu_state *s = cpu_state(v->cpu);
	struct mmu_regs regs = {.cr0 = cr0,
				.cr3 = cr3,
				.cr4 = cr4,
				.efer = s->efer,
				.maxphyaddr = v->vm->config.model->maxphyaddr};

	memmove(pdptr, s->pdptr, sizeof(s->pdptr));
	if (!(cr0 & X86_CR0_PG) || !(cr4 & X86_CR4_PAE) || (s->efer & X86_EFER_LME))
		return 0;
	return mmu_read_pdptrs(v->mmu, &regs, cr3, pdptr) ? X86_VEC_GP : 0;
}

static int write_cr3(struct engine_vcpu *v, uint64_t value)
{
	struct cpu_state *s = cpu_state(v->cpu);
	uint64_t pdptr[4];
	int ret = load_pdptrs(v, s->cr0, value & ~X86_CR3_NOFLUSH, s->cr4, pdptr);

	if (!ret)
		ret = cpu_set_cr3(v->cpu, value);
	if (ret)
		return ret;
	memcpy(s->pdptr, pdptr, sizeof(s->pdptr));
	mmu_new_cr3(v->mmu, s->cr3 | (value & X86_CR3_NOFLUSH), s->pdptr);
	soft_sync_mmu(v);
	cpu_state_changed(v->cpu);
	return 0;
}

/* A task switch that is being emulated loaded CR3; its PDPTEs are still to be read. */
void soft_new_cr3(struct engine_vcpu *v)
{
	struct cpu_state *s = cpu_state(v->cpu);

	if (load_pdptrs(v, s->cr0, s->cr3, s->cr4, s->pdptr))
		memset(s->pdptr, 0, sizeof(s->pdptr));
	mmu_new_cr3(v->mmu, s->cr3, s->pdptr);
	soft_sync_mmu(v);
}

#define CR0_PDPTR_BITS (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW)
#define CR4_PDPTR_BITS (X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PSE | X86_CR4_SMEP)
/* A change of these drops the guest's TLB (SDM 3A 4.10.4.1). */
#define CR4_FLUSH_BITS                                                                             \
	(X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_PAE | X86_CR4_PSE | X86_CR4_LA57)

static enum soft_next write_cr(struct engine_vcpu *v, const struct cpu_exit *e)
{
	const struct engine_config *config = &v->vm->config;
	struct cpu_state *s = cpu_state(v->cpu);
	uint64_t pdptr[4], changed, value = e->cr.value;
	bool flush = false;
	int ret;

	switch (e->cr.num) {
	case 0:
		changed = s->cr0 ^ value;
		ret = changed & CR0_PDPTR_BITS ? load_pdptrs(v, value, s->cr3, s->cr4, pdptr) : 0;
		if (!ret)
			ret = cpu_set_cr0(v->cpu, value);
		if (!ret && changed & CR0_PDPTR_BITS)
			memcpy(s->pdptr, pdptr, sizeof(pdptr));
		flush = changed & X86_CR0_PG;
		break;
	case 3: return finish(v, write_cr3(v, value));
	case 4:
		changed = s->cr4 ^ value;
		ret = changed & CR4_PDPTR_BITS ? load_pdptrs(v, s->cr0, s->cr3, value, pdptr) : 0;
		if (!ret)
			ret = cpu_set_cr4(v->cpu, value);
		if (!ret && changed & CR4_PDPTR_BITS)
			memcpy(s->pdptr, pdptr, sizeof(pdptr));
		flush = changed & CR4_FLUSH_BITS;
		break;
	case 8:
		ret = cpu_set_cr8(v->cpu, value);
		if (!ret)
			config->host->cr8_write(config->host_priv, v->id, value);
		return finish(v, ret);
	default: return soft_fail(v, "write to CR%u left", e->cr.num);
	}
	if (!ret) {
		registers_changed(v);
		if (flush)
			mmu_flush_guest_tlb(v->mmu);
	}
	return finish(v, ret);
}

static enum soft_next exit_cr(struct engine_vcpu *v, const struct cpu_exit *e)
{
	const struct engine_config *config = &v->vm->config;
	struct cpu_state *s = cpu_state(v->cpu);

	if (e->cr.write)
		return write_cr(v, e);
	if (e->cr.gpr > 15)
		return soft_fail(v, "read of CR%u without a register", e->cr.num);
	if (e->cr.num == 8) {
		s->cr8 = config->host->cr8_read(config->host_priv, v->id);
		s->gpr[e->cr.gpr] = s->cr8;
	} else {
		s->gpr[e->cr.gpr] = s->cr3;
	}
	cpu_skip(v->cpu);
	return SOFT_RESUME;
}

static enum soft_next exit_invlpg(struct engine_vcpu *v, const struct cpu_exit *e)
{
	soft_sync_mmu(v);
	mmu_invlpg(v->mmu, e->gva);
	cpu_tlb_flush_gva(v->cpu, e->gva);
	cpu_skip(v->cpu);
	return SOFT_RESUME;
}

static enum soft_next exit_invpcid(struct engine_vcpu *v, const struct cpu_exit *e)
{
	if (!guest_invpcid_ok(v->cpu, e))
		return finish(v, X86_VEC_GP);
	soft_sync_mmu(v);
	mmu_invpcid(v->mmu, (enum mmu_invpcid)e->invpcid.type, (uint32_t)e->invpcid.pcid,
		    e->invpcid.gva);
	if (e->invpcid.type == MMU_INVPCID_ADDRESS)
		cpu_tlb_flush_gva(v->cpu, e->invpcid.gva);
	else
		cpu_tlb_flush_all(v->cpu);
	cpu_skip(v->cpu);
	return SOFT_RESUME;
}

/* Under shadow, a switch that loads CR3: carried out as one instruction, or event. */
static enum soft_next exit_task_switch(struct engine_vcpu *v, const struct cpu_exit *e)
{
	return soft_emulate(v);
}

static enum soft_next exit_hlt(struct engine_vcpu *v, const struct cpu_exit *e)
{
	/* The loop decides whether there is something to wake it. */
	return SOFT_RESUME;
}

static enum soft_next exit_skip(struct engine_vcpu *v, const struct cpu_exit *e)
{
	cpu_skip(v->cpu);
	return SOFT_RESUME;
}

static enum soft_next exit_resume(struct engine_vcpu *v, const struct cpu_exit *e)
{
	return SOFT_RESUME;
}

static enum soft_next exit_triple(struct engine_vcpu *v, const struct cpu_exit *e)
{
	return SOFT_SHUTDOWN;
}

static enum soft_next exit_debug(struct engine_vcpu *v, const struct cpu_exit *e)
{
	return SOFT_DEBUG;
}

/* The loop has emptied the log, as after every exit. */
static enum soft_next exit_pml_full(struct engine_vcpu *v, const struct cpu_exit *e)
{
	v->stats.pml_full++;
	return SOFT_RESUME;
}

static enum soft_next exit_ud(struct engine_vcpu *v, const struct cpu_exit *e)
{
	cpu_inject_exception(v->cpu, X86_VEC_UD, false, 0);
	return SOFT_RESUME;
}

typedef enum soft_next (*exit_fn)(struct engine_vcpu *v, const struct cpu_exit *e);

static const exit_fn handlers[CPU_EXIT_REASONS] = {
	[CPU_EXIT_KICK] = exit_resume,
	[CPU_EXIT_ICOUNT] = exit_resume,
	[CPU_EXIT_HLT] = exit_hlt,
	[CPU_EXIT_IRQ_WINDOW] = exit_resume,
	[CPU_EXIT_NMI_WINDOW] = exit_resume,
	[CPU_EXIT_TRIPLE_FAULT] = exit_triple,
	[CPU_EXIT_EXCEPTION] = exit_exception,
	[CPU_EXIT_TDP_VIOLATION] = exit_tdp,
	[CPU_EXIT_TDP_MISCONFIG] = exit_tdp,
	[CPU_EXIT_NPF] = exit_tdp,
	[CPU_EXIT_IO] = exit_io,
	[CPU_EXIT_MSR_READ] = exit_msr_read,
	[CPU_EXIT_MSR_WRITE] = exit_msr_write,
	[CPU_EXIT_CR_ACCESS] = exit_cr,
	[CPU_EXIT_INVLPG] = exit_invlpg,
	[CPU_EXIT_INVPCID] = exit_invpcid,
	[CPU_EXIT_TASK_SWITCH] = exit_task_switch,
	[CPU_EXIT_WBINVD] = exit_skip,
	[CPU_EXIT_PAUSE] = exit_skip,
	[CPU_EXIT_VMCALL] = exit_ud,
	[CPU_EXIT_VMX_INSN] = exit_ud,
	[CPU_EXIT_DEBUG] = exit_debug,
	[CPU_EXIT_PML_FULL] = exit_pml_full,
};

enum soft_next soft_handle_exit(struct engine_vcpu *v, const struct cpu_exit *exit)
{
	struct cpu_exit e = *exit;

	if (!handlers[e.reason])
		return soft_fail(v, "exit %s has no handler", cpu_exit_name(e.reason));
	return handlers[e.reason](v, &e);
}
