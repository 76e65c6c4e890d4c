/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The methods about one machine as umbra-vm serves them, and what their handlers share. */
#ifndef UMBRA_VM_API_H
#define UMBRA_VM_API_H

#include "api/machine_ops.h"

struct vm;
struct vcpu;

/* Every handler, from the files below; api_call_data() is the struct vm. */
extern const struct api_machine_ops vm_machine_ops;

/*
 * For handlers, all on the loop's thread. The machine, when it has been started and has not ended;
 * NULL: the call has been answered, and is gone: read the parameters before.
 */
struct vm *vm_of_call(struct api_call *call);
/* The vCPU that the parameter "vcpu" names (0 without); NULL: the call has been answered. */
struct vcpu *vcpu_of_call(struct api_call *call, struct vm *vm);

/* inspect.c */
void handle_mmu_walk(struct api_call *call);
void handle_mmu_stat(struct api_call *call);
void handle_mmu_context(struct api_call *call);
void handle_mmu_slots(struct api_call *call);
void handle_mmu_roots(struct api_call *call);
void handle_mmu_pages(struct api_call *call);
void handle_mmu_rmap(struct api_call *call);
void handle_mmu_map(struct api_call *call);
void handle_mmu_audit(struct api_call *call);
void handle_mmu_policy(struct api_call *call);

/* peek.c */
void handle_machine_read(struct api_call *call);
void handle_machine_disassemble(struct api_call *call);
void handle_machine_registers(struct api_call *call);

/* gdb.c */
void handle_machine_gdb(struct api_call *call);

/* engine_switch.c */
void handle_machine_set_engine(struct api_call *call);

/* trace.c */
void handle_mmu_trace(struct api_call *call);

/* dirty_api.c */
void handle_dirty_start(struct api_call *call);
void handle_dirty_stop(struct api_call *call);
void handle_dirty_list(struct api_call *call);
void handle_dirty_get(struct api_call *call);
void handle_dirty_clear(struct api_call *call);
void handle_dirty_rate(struct api_call *call);
void handle_dirty_heat(struct api_call *call);

#endif
