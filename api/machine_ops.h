/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbra-vm fills: one handler for each row of api_machine_methods, which name them by offset.
 */
#ifndef UMBRA_API_MACHINE_OPS_H
#define UMBRA_API_MACHINE_OPS_H

#include "api/method.h"

struct api_machine_ops {
	api_handler machine_pause, machine_resume, machine_reset, machine_stats, machine_sandbox,
		machine_set_engine;
	api_handler machine_read, machine_disassemble, machine_registers, machine_gdb;
	api_handler mmu_walk, mmu_stat, mmu_context, mmu_slots, mmu_roots, mmu_pages, mmu_rmap,
		mmu_map, mmu_trace, mmu_audit, mmu_policy;
	api_handler dirty_start, dirty_stop, dirty_list, dirty_get, dirty_clear, dirty_rate,
		dirty_heat;
};

#endif
