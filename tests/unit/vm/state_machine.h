/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine with all that is saved of one, and an engine that only keeps states. */
#ifndef TESTS_STATE_MACHINE_H
#define TESTS_STATE_MACHINE_H

#include "vm/state.h"
#include "vm/vm_internal.h"

#define STATE_CPUS 2

/* NULL: no memory. */
struct vm *state_machine_create(void);
void state_machine_destroy(struct vm *vm);
/* The state that vCPU @k has. */
struct cpu_state *state_machine_cpu(struct vm *vm, unsigned k);
/* vcpu_set_state() of the last vCPU fails so often. */
void state_machine_refuse(unsigned times);

#endif
