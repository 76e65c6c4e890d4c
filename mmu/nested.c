/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An L2 under an L1's EPT: guest_mmu shadows that EPT, nested_mmu walks L2's own tables through it.
 */
#include <errno.h>
#include <string.h>

#include "mmu/mmu_internal.h"

/* What @n asks for, ngpa to gpa by L1's EPT. 1, or 0 with w->fault. */
static int translate_by_ept(struct mmu_vcpu *vcpu, struct walker n, struct walker *w, gpa_t *gpa)
{
	struct mmu_context *ept = &vcpu->guest_mmu;

	if (!ept->ops->walk(vcpu, ept, &n)) {
		w->fault = n.fault;
		w->missing = n.missing;
		w->missing_gfn = n.missing_gfn;
		return 0;
	}
	*gpa = n.gfn << PAGE_SHIFT | (n.addr & ~PAGE_MASK);
	return 1;
}

/* What a walk of L2's tables reads passes here. */
static int translate_nested(struct mmu_vcpu *vcpu, uint64_t addr, struct walker *w, gpa_t *gpa)
{
	/* With EPT's A and D bits in use the processor's accesses to tables count as writes. */
	uint32_t access = vcpu->guest_mmu.cpu_role.ad_disabled ? 0 : MMU_ACC_WRITE;
	struct walker n = {
		.addr = addr,
		.access = w->access & MMU_ACC_PEEK ? MMU_ACC_PEEK : access,
		.table = true,
	};

	return translate_by_ept(vcpu, n, w, gpa);
}

int nested_may_update(struct mmu_vcpu *vcpu, struct walker *w, unsigned level)
{
	struct walker n = {.addr = w->pte_addr[level - 1], .access = MMU_ACC_WRITE, .table = true};
	gpa_t gpa;

	/* Otherwise reading the entry has counted as a write already. */
	if (!vcpu->guest_mmu.cpu_role.ad_disabled)
		return 1;
	return translate_by_ept(vcpu, n, w, &gpa);
}

int nested_translate_final(struct mmu_vcpu *vcpu, struct walker *w)
{
	struct walker n = {
		.addr = w->gfn << PAGE_SHIFT,
		.access = w->access & (MMU_ACC_WRITE | MMU_ACC_FETCH | MMU_ACC_PEEK),
	};
	gpa_t gpa;

	if (!translate_by_ept(vcpu, n, w, &gpa))
		return 0;
	w->gfn = gpa >> PAGE_SHIFT;
	return 1;
}

void nested_set_guest(struct mmu_vcpu *vcpu, const struct mmu_regs *regs)
{
	struct mmu_context *c = &vcpu->nested_mmu;

	c->translate_gpa = translate_nested;
	context_set(vcpu, c, regs);
}

/* SDM volume 3, "Checks on VMX controls": the EPTP's. */
static bool eptp_valid(const struct mmu_vm *vm, uint64_t eptp)
{
	uint64_t type = eptp & 7;

	if ((type != 0 && type != 6) || (eptp >> 3 & 7) != 3 || eptp & BITS(11, 7))
		return false;
	return !(eptp >> vm->maxphyaddr);
}

int mmu_enter_nested(struct mmu_vcpu *vcpu, const struct mmu_nested_regs *regs)
{
	struct mmu_context *c = &vcpu->guest_mmu;
	union page_role role = {.word = 0};
	struct mmu_vm *vm = vcpu->vm;

	/* L1 is shown EPT only where we run on it ourselves. */
	if (vm->policy != MMU_POLICY_TDP || vm->tdp_format != MMU_FORMAT_EPT ||
	    !eptp_valid(vm, regs->eptp))
		return -EINVAL;
	mmu_lock(vm);
	c->cpu_role.word = 0;
	c->cpu_role.mode = MODE_EPT;
	c->cpu_role.levels = 4;
	c->cpu_role.ad_disabled = !(regs->eptp & BIT(6));
	c->cpu_role.exec_only = regs->ept_execute_only;
	c->cpu_role.guest_mode = 1;
	role.mode = MODE_EPT;
	role.level = 4;
	role.access = MMU_MAP_ALL;
	role.wp = 1;
	role.format = MMU_FORMAT_EPT;
	role.guest_mode = 1;
	role.ad_disabled = c->cpu_role.ad_disabled;
	role.exec_only = c->cpu_role.exec_only;
	__atomic_store_n(&c->root_role.word, role.word, __ATOMIC_RELAXED);
	c->rsvd = &vm->rsvd[MODE_EPT][0][0][role.exec_only];
	c->ops = context_ops_of(c->cpu_role, false);
	c->cr3 = regs->eptp & BITS(51, 12);
	c->translate_gpa = vcpu->root_mmu.translate_gpa;
	vcpu->mmu = c;
	vcpu->walk_mmu = &vcpu->nested_mmu;
	vcpu->regs = regs->guest;
	nested_set_guest(vcpu, &regs->guest);
	root_switch(vcpu, ROOT_SYNC);
	STAT(vcpu, nested_run);
	if (!vcpu->stats.guest_mode)
		STAT(vcpu, guest_mode);
	/* The current root may match, but the processor runs on L1's. */
	__atomic_store_n(&vcpu->need_load, true, __ATOMIC_SEQ_CST);
	mmu_unlock(vm);
	return 0;
}

void mmu_leave_nested(struct mmu_vcpu *vcpu)
{
	struct mmu_vm *vm = vcpu->vm;

	mmu_lock(vm);
	vcpu->mmu = vcpu->walk_mmu = &vcpu->root_mmu;
	/* The next mmu_set_regs() brings L1's registers. */
	vcpu->have_regs = false;
	STAT_N(vcpu, guest_mode, -(int64_t)vcpu->stats.guest_mode);
	__atomic_store_n(&vcpu->need_load, true, __ATOMIC_SEQ_CST);
	mmu_unlock(vm);
}

void mmu_invept(struct mmu_vcpu *vcpu, uint64_t eptp)
{
	struct mmu_context *c = &vcpu->guest_mmu;
	struct mmu_vm *vm = vcpu->vm;

	mmu_lock(vm);
	/* Those cached are synced when they come into use: mmu_enter_nested() spares none. */
	if (!eptp || ((eptp ^ c->cr3) & BITS(51, 12)) == 0)
		sync_root(vm, &c->root);
	mmu_unlock(vm);
}
