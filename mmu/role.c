/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From the guest's registers to a role, reserved-bit masks and the operations of a context. */
#include <string.h>

#include "mmu/mmu_internal.h"

#define CR0_WP	  BIT(16)
#define CR0_PG	  BIT(31)
#define CR4_PSE	  BIT(4)
#define CR4_PAE	  BIT(5)
#define CR4_LA57  BIT(12)
#define CR4_PCIDE BIT(17)
#define CR4_SMEP  BIT(20)
#define CR4_SMAP  BIT(21)
#define CR4_PKE	  BIT(22)
#define EFER_LMA  BIT(10)
#define EFER_NX	  BIT(11)

/* ---- reserved bits (SDM volume 3, tables of chapter 4; EPT: chapter 29) ---- */

static void rsvd_32(struct rsvd_masks *r, bool pse, uint8_t maxphyaddr)
{
	if (!pse)
		return; /* bit 7 of a PDE is ignored then, and nothing is reserved */
	/* PSE-36: bits 20:13 hold address bits 39:32, as many as there are. */
	unsigned width = MIN(maxphyaddr, (uint8_t)40);

	r->mask[1][1] = BITS(21, width - 32 + 13);
}

static void rsvd_long(struct rsvd_masks *r, uint64_t high, bool gbpages)
{
	for (unsigned level = 0; level < MMU_MAX_LEVEL; level++)
		r->mask[0][level] = r->mask[1][level] = high;
	r->mask[1][1] |= BITS(20, 13);
	r->mask[1][2] |= gbpages ? BITS(29, 13) : BIT(7);
	r->mask[1][3] |= BIT(7);
	r->mask[1][4] |= BIT(7);
}

static void rsvd_ept(struct rsvd_masks *r, uint64_t high)
{
	for (unsigned level = 0; level < MMU_MAX_LEVEL; level++)
		r->mask[0][level] = r->mask[1][level] = high | (level ? BITS(6, 3) : 0);
	r->mask[0][0] = r->mask[1][0] = high;
	r->mask[1][1] = high | BITS(20, 12);
	r->mask[1][2] = high | BITS(29, 12);
	r->mask[1][3] = r->mask[1][4] = high | BITS(7, 3);
}

void rsvd_compute(struct mmu_vm *vm)
{
	uint64_t high = vm->maxphyaddr < 52 ? BITS(51, vm->maxphyaddr) : 0;

	memset(vm->rsvd, 0, sizeof(vm->rsvd));
	for (unsigned i = 0; i < 8; i++) {
		bool nx = i & 1, pse = i & 2, xo = i & 4;
		uint64_t xd = nx ? 0 : BIT(63);
		struct rsvd_masks *r;

		rsvd_32(&vm->rsvd[MODE_32][nx][pse][xo], pse, vm->maxphyaddr);
		r = &vm->rsvd[MODE_PAE][nx][pse][xo];
		for (unsigned level = 0; level < 2; level++)
			r->mask[0][level] = r->mask[1][level] = high | BITS(62, 52) | xd;
		r->mask[1][1] |= BITS(20, 13);
		rsvd_long(&vm->rsvd[MODE_64][nx][pse][xo], high | xd, vm->gbpages);
		rsvd_ept(&vm->rsvd[MODE_EPT][nx][pse][xo], high);
	}
}

/* ---- roles ---- */

static union cpu_role cpu_role_of(const struct mmu_regs *regs)
{
	union cpu_role role = {.word = 0};

	if (!(regs->cr0 & CR0_PG)) {
		role.mode = MODE_NONE;
		return role;
	}
	role.wp = !!(regs->cr0 & CR0_WP);
	role.smep = !!(regs->cr4 & CR4_SMEP);
	role.smap = !!(regs->cr4 & CR4_SMAP);
	if (!(regs->cr4 & CR4_PAE)) {
		role.mode = MODE_32;
		role.levels = 2;
		role.pse = !!(regs->cr4 & CR4_PSE);
		return role;
	}
	role.nx = !!(regs->efer & EFER_NX);
	if (!(regs->efer & EFER_LMA)) {
		role.mode = MODE_PAE;
		role.levels = 3;
		return role;
	}
	role.mode = MODE_64;
	role.levels = regs->cr4 & CR4_LA57 ? 5 : 4;
	role.pke = !!(regs->cr4 & CR4_PKE);
	return role;
}

static union page_role shadow_role_of(union cpu_role cpu)
{
	union page_role role = {.word = 0};

	role.mode = cpu.mode;
	role.access = MMU_MAP_ALL;
	role.format = MMU_FORMAT_X86;
	role.guest_mode = cpu.guest_mode;
	if (cpu.mode == MODE_NONE) {
		role.direct = 1;
		role.level = 4;
		return role;
	}
	/* PAE and 32-bit guests get level-2 pages under a frame of the vCPU's own. */
	role.level = cpu.levels < 4 ? 2 : cpu.levels;
	role.nx = cpu.nx;
	role.pse = cpu.pse;
	role.wp = cpu.wp;
	role.smep_andnot_wp = cpu.smep && !cpu.wp;
	role.smap_andnot_wp = cpu.smap && !cpu.wp;
	return role;
}

static union page_role tdp_role_of(const struct mmu_vm *vm)
{
	union page_role role = {.word = 0};

	role.mode = MODE_NONE;
	role.direct = 1;
	role.level = vm->tdp_levels ? vm->tdp_levels : vm->maxphyaddr > PAGE_SHIFT + 9 * 4 ? 5 : 4;
	role.access = MMU_MAP_ALL;
	role.format = vm->tdp_format;
	return role;
}

static int translate_identity(struct mmu_vcpu *vcpu, uint64_t addr, struct walker *w, gpa_t *gpa)
{
	*gpa = addr;
	return 1;
}

void context_set(struct mmu_vcpu *vcpu, struct mmu_context *c, const struct mmu_regs *regs)
{
	struct mmu_vm *vm = vcpu->vm;
	bool direct = vm->policy != MMU_POLICY_SHADOW;
	union cpu_role role = cpu_role_of(regs);
	union page_role page_role;

	c->cpu_role = role;
	page_role = direct ? tdp_role_of(vm) : shadow_role_of(role);
	/* The vCPU's thread looks at it without the lock. */
	__atomic_store_n(&c->root_role.word, page_role.word, __ATOMIC_RELAXED);
	c->rsvd = &vm->rsvd[role.mode][role.nx][role.pse][0];
	c->ops = context_ops_of(role, direct || role.mode == MODE_NONE);
	c->cr3 = regs->cr3;
	c->pcid_mask = regs->cr4 & CR4_PCIDE ? BITS(11, 0) : 0;
	memcpy(c->pdptr, regs->pdptr, sizeof(c->pdptr));
	c->pkru = regs->pkru;
	if (!c->translate_gpa)
		c->translate_gpa = translate_identity;
}

static bool regs_equal(const struct mmu_regs *a, const struct mmu_regs *b)
{
	return a->cr0 == b->cr0 && a->cr3 == b->cr3 && a->cr4 == b->cr4 && a->efer == b->efer &&
	       !memcmp(a->pdptr, b->pdptr, sizeof(a->pdptr)) && a->maxphyaddr == b->maxphyaddr &&
	       a->gbpages == b->gbpages;
}

void mmu_set_pkru(struct mmu_vcpu *vcpu, uint32_t pkru)
{
	vcpu->regs.pkru = pkru;
	vcpu->walk_mmu->pkru = pkru;
}

/* The machine's width changed: all that was built by the old one goes. */
static void width_set(struct mmu_vm *vm, const struct mmu_regs *regs)
{
	struct shadow_page *sp, *tmp;

	vm->maxphyaddr = regs->maxphyaddr;
	vm->gbpages = regs->gbpages;
	rsvd_compute(vm);
	list_for_each_entry_safe (sp, tmp, &vm->active, lru)
		sp_zap(vm, sp);
	batch_commit(vm);
}

void mmu_set_regs(struct mmu_vcpu *vcpu, const struct mmu_regs *regs)
{
	struct mmu_vm *vm = vcpu->vm;
	struct mmu_context *c = vcpu->mmu;

	if (vcpu->have_regs && regs_equal(&vcpu->regs, regs)) {
		if (vcpu->regs.pkru != regs->pkru)
			mmu_set_pkru(vcpu, regs->pkru);
		return;
	}
	mmu_lock(vm);
	if (regs->maxphyaddr != vm->maxphyaddr || regs->gbpages != vm->gbpages)
		width_set(vm, regs);
	vcpu->regs = *regs;
	vcpu->have_regs = true;
	if (vcpu->walk_mmu == &vcpu->nested_mmu) {
		nested_set_guest(vcpu, regs);
	} else {
		context_set(vcpu, c, regs);
		root_switch(vcpu, ROOT_SYNC);
		STAT(vcpu, mmu_reset);
	}
	mmu_unlock(vm);
}
