/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest memory and registers for whoever looks from outside: the API and the debugger. */
#ifndef UMBRA_VM_PEEK_H
#define UMBRA_VM_PEEK_H

#include "base/buf.h"
#include "base/types.h"

struct vcpu;
struct vm;
struct json_object;

/*
 * Memory at a linear address as the vCPU sees it, by the MMU's own walk but whatever the privilege,
 * and without a trace in the guest (no A or D bit). The vCPU is held; the loop's thread. Returns
 * how many bytes, from the first on; fewer than @len: @why says what is in the way (appended).
 * A write is noted as any write of ours: dirty logs, shadowed tables, decoded code.
 */
size_t vm_peek(struct vcpu *v, gva_t gva, void *data, size_t len, struct buf *why);
size_t vm_poke(struct vcpu *v, gva_t gva, const void *data, size_t len, struct buf *why);
/* The same at a guest-physical address. */
size_t vm_peek_gpa(struct vm *vm, gpa_t gpa, void *data, size_t len, struct buf *why);

/* The way of a linear address through all tables, as the vCPU is now; it is held. 0 or -EINVAL. */
struct mmu_inspect_walk;
int vm_walk(struct vcpu *v, gva_t gva, struct mmu_inspect_walk *ret_walk);

/* A vCPU's registers in groups, decoded; the vCPU is held. NULL: no memory, or the engine's
 * vcpu_error(). */
struct json_object *vm_registers(struct vcpu *v, bool fpu);

#endif
