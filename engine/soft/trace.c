/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What set_trace()'s function is told of an exit. */
#include "engine/soft/soft_internal.h"

/* As the exit qualification of an EPT violation (SDM volume 3, "Basic VM-Exit Information"). */
static uint64_t tdp_info(const struct cpu_exit *e)
{
	uint64_t info = (uint64_t)e->mem.present_perms << 3;

	if (e->reason == CPU_EXIT_NPF)
		return e->mem.error;
	if (e->mem.read)
		info |= BIT(0);
	if (e->mem.write)
		info |= BIT(1);
	if (e->mem.fetch)
		info |= BIT(2);
	if (e->mem.gva_valid)
		info |= BIT(7) | (e->mem.walk ? 0 : BIT(8));
	return info;
}

static void describe(const struct cpu_exit *e, struct engine_trace_event *t)
{
	switch (e->reason) {
	case CPU_EXIT_EXCEPTION:
		t->addr = t->gva = e->exception.payload;
		t->info = e->exception.error;
		break;
	case CPU_EXIT_TDP_VIOLATION:
	case CPU_EXIT_TDP_MISCONFIG:
	case CPU_EXIT_NPF:
	case CPU_EXIT_PML_FULL:
		t->addr = e->mem.gpa;
		t->gva = e->mem.gva_valid ? e->mem.gva : 0;
		t->info = tdp_info(e);
		break;
	case CPU_EXIT_IO:
		t->addr = e->io.port;
		t->info = (e->io.size - 1u) | (e->io.in ? BIT(3) : 0) |
			  (e->io.string ? BIT(4) : 0) | (e->io.rep ? BIT(5) : 0);
		break;
	case CPU_EXIT_MSR_READ:
	case CPU_EXIT_MSR_WRITE:
		t->addr = e->msr.index;
		t->info = e->reason == CPU_EXIT_MSR_WRITE ? e->msr.value : 0;
		break;
	case CPU_EXIT_CR_ACCESS:
		t->addr = e->cr.num;
		t->info = e->cr.write ? e->cr.value : 0;
		break;
	case CPU_EXIT_INVLPG: t->addr = t->gva = e->gva; break;
	case CPU_EXIT_INVPCID:
		t->addr = t->gva = e->invpcid.gva;
		t->info = e->invpcid.type | e->invpcid.pcid << 16;
		break;
	case CPU_EXIT_TASK_SWITCH:
		t->addr = e->task.sel;
		t->info = e->task.source;
		break;
	case CPU_EXIT_DEBUG:
		t->addr = t->gva = e->debug.gva;
		t->info = e->debug.kind;
		break;
	default: break;
	}
}

void soft_trace_exit(struct engine_vcpu *v, const struct cpu_exit *e)
{
	struct engine_trace_event t = {
		.vcpu = v->id,
		.reason = cpu_exit_name(e->reason),
		.rip = cpu_state(v->cpu)->rip,
		.icount = cpu_icount(v->cpu),
	};

	describe(e, &t);
	engine_trace_tell(&v->vm->trace, &t);
}
