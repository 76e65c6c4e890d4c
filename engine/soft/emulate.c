/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One instruction outside the TLB: writes to guest tables, MMIO, string I/O. */
#include "engine/soft/soft_internal.h"

#include <string.h>

static void new_cr3(struct guest_mem *m)
{
	soft_new_cr3(m->priv);
}

void soft_emulate_init(struct engine_vcpu *v)
{
	v->mem = (struct guest_mem){
		.vm = v->vm->mmu,
		.mmu = v->mmu,
		.cpu = v->cpu,
		.config = &v->vm->config,
		.stats = &v->stats,
		.id = v->id,
		.new_cr3 = new_cr3,
		.priv = v,
	};
}

enum soft_next soft_emulate(struct engine_vcpu *v)
{
	soft_sync_mmu(v);
	switch (guest_emulate(&v->mem)) {
	case CPU_EMULATE_DONE:
		/* MOV to CR and the like left instead; but an emulated write may have been to a
		 * table. */
		return SOFT_RESUME;
	case CPU_EMULATE_EXIT: return soft_handle_exit(v, cpu_exit(v->cpu));
	case CPU_EMULATE_STOP: break;
	}
	if (!v->mem.err)
		return SOFT_RESUME;
	return soft_fail(v, "translating %#llx: %s", (unsigned long long)v->mem.err_gva,
			 strerror(-v->mem.err));
}
