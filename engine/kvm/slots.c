/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's memslots follow the machine's. */
#include "engine/kvm/kvm_internal.h"

#include <errno.h>

int kvm_slot_set(struct engine_vm *vm, const struct slot_desc *s, bool there)
{
	struct kvm_userspace_memory_region r = {
		.slot = s->id,
		.guest_phys_addr = s->gpa,
		.memory_size = there ? s->size : 0,
		.userspace_addr = (uintptr_t)s->host,
	};

	if (there && s->flags & SLOT_READONLY)
		r.flags |= KVM_MEM_READONLY;
	if (there && s->flags & SLOT_LOGGED)
		r.flags |= KVM_MEM_LOG_DIRTY_PAGES;
	return kvm_call(vm->fd, KVM_SET_USER_MEMORY_REGION, &r);
}

/* The kernel moves a slot, and changes whether it is logged, as it is; but a slot is read-only or
 * not for life. */
static bool can_change(const struct slot_desc *from, const struct slot_desc *to)
{
	return from->size == to->size && from->host == to->host &&
	       !((from->flags ^ to->flags) & SLOT_READONLY) &&
	       (from->gpa == to->gpa || from->flags == to->flags);
}

/* No vCPU may meet the machine without it. */
static int replace(struct engine_vm *vm, const struct slot_desc *from, const struct slot_desc *to)
{
	int ret;

	kvm_gate_close(vm);
	ret = kvm_slot_set(vm, from, false);
	if (!ret) {
		ret = kvm_slot_set(vm, to, true);
		if (ret)
			kvm_slot_set(vm, from, true);
	}
	kvm_gate_open(vm);
	return ret;
}

static int mmu_op_slot_changed(void *priv, const struct slot_desc *from, const struct slot_desc *to)
{
	struct engine_vm *vm = priv;
	int ret;

	if (to && to->id >= vm->caps.memslots - 1) /* the last is help.c's */
		return kvm_refuse(-ENOSPC,
				  "this KVM has %u memory slots, the last of which Umbra needs",
				  vm->caps.memslots);
	if (to && to->flags & SLOT_READONLY && !vm->caps.readonly_mem)
		return kvm_refuse(-EOPNOTSUPP, "this KVM has no KVM_CAP_READONLY_MEM");
	ret = kvm_dirty_slot(vm, from, to);
	if (ret)
		return ret;
	if (!to)
		return kvm_slot_set(vm, from, false);
	if (from && !can_change(from, to))
		return replace(vm, from, to);
	return kvm_slot_set(vm, to, true);
}

/* We build no tables. */
static void mmu_op_flush_tlb(void *priv, const struct mmu_flush *flush)
{
}

static void mmu_op_kick(void *priv, uint64_t vcpus)
{
	struct engine_vm *vm = priv;

	for (unsigned k = 0; k < vm->count; k++)
		if (vcpus & MMU_VCPU_BIT(k))
			kvm_request(&vm->vcpus[k], KVM_REQ_LOOK);
}

/* Code that our helping processors have decoded. */
static void mmu_op_notify_write(void *priv, hva_t hva, uint64_t len)
{
	struct engine_vm *vm = priv;
	struct cpu_domain *d = __atomic_load_n(&vm->domain, __ATOMIC_ACQUIRE);

	if (d)
		cpu_domain_notify_write(d, hva, len);
}

static const struct mmu_ops ops_with_bitmap = {
	.flush_tlb = mmu_op_flush_tlb,
	.kick = mmu_op_kick,
	.notify_write = mmu_op_notify_write,
	.slot_changed = mmu_op_slot_changed,
	.dirty_collect = kvm_dirty_collect,
	.dirty_protect = kvm_dirty_protect,
};

static const struct mmu_ops ops_with_rings = {
	.flush_tlb = mmu_op_flush_tlb,
	.kick = mmu_op_kick,
	.notify_write = mmu_op_notify_write,
	.slot_changed = mmu_op_slot_changed,
	.drain_pml = kvm_dirty_drain,
	.dirty_collect = kvm_dirty_collect_lost,
	.dirty_protect = kvm_dirty_protect,
};

const struct mmu_ops *kvm_mmu_ops(const struct engine_vm *vm)
{
	return kvm_dirty_ring_on(vm) ? &ops_with_rings : &ops_with_bitmap;
}
