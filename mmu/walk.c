/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest walkers from one template, permissions, and what guest entries say. */
#include <errno.h>
#include <string.h>

#include "mmu/mmu_internal.h"

/* ---- permissions ---- */

/* What a #PF's error code says of the access itself. */
uint32_t access_error_code(const struct mmu_context *c, uint32_t access)
{
	uint32_t code = 0;

	if (access & MMU_ACC_WRITE)
		code |= PF_W;
	if (access_is_user(access))
		code |= PF_U;
	if (access & MMU_ACC_FETCH && (c->cpu_role.nx || c->cpu_role.smep))
		code |= PF_FETCH;
	return code;
}

static bool ept_denied(uint32_t access, unsigned pte_access)
{
	unsigned need = access & MMU_ACC_WRITE	 ? MMU_MAP_WRITE
			: access & MMU_ACC_FETCH ? MMU_MAP_EXEC
						 : MMU_MAP_USER;

	return !(pte_access & need);
}

/* SDM volume 3, "Protection keys": only for data accesses to user pages. */
static bool pkey_denied(const struct mmu_context *c, uint32_t access, unsigned pte_access,
			unsigned pkey)
{
	uint32_t rights = c->pkru >> (2 * pkey);
	bool user = access_is_user(access);

	if (!c->cpu_role.pke || !(pte_access & MMU_MAP_USER) || access & MMU_ACC_FETCH)
		return false;
	if (rights & 1)
		return true;
	return rights & 2 && access & MMU_ACC_WRITE && (user || c->cpu_role.wp);
}

/* SDM volume 3, "Determination of access rights". */
static bool x86_denied(const struct mmu_context *c, uint32_t access, unsigned pte_access)
{
	bool user = access_is_user(access);
	bool user_page = pte_access & MMU_MAP_USER;

	if (access & MMU_ACC_FETCH && !(pte_access & MMU_MAP_EXEC))
		return true;
	if (user)
		return !user_page || (access & MMU_ACC_WRITE && !(pte_access & MMU_MAP_WRITE));
	if (access & MMU_ACC_FETCH)
		return user_page && c->cpu_role.smep;
	if (user_page && c->cpu_role.smap && (access & MMU_ACC_IMPLICIT || !(access & MMU_ACC_AC)))
		return true;
	return access & MMU_ACC_WRITE && c->cpu_role.wp && !(pte_access & MMU_MAP_WRITE);
}

bool access_denied(const struct mmu_context *c, uint32_t access, unsigned pte_access, unsigned pkey,
		   uint32_t *error_code)
{
	*error_code = 0;
	if (c->cpu_role.mode == MODE_EPT)
		return ept_denied(access, pte_access);
	if (unlikely(c->cpu_role.pke) && pkey_denied(c, access, pte_access, pkey)) {
		*error_code = PF_PK;
		return true;
	}
	return x86_denied(c, access, pte_access);
}

/* ---- pieces of the template ---- */

/*
 * The EPT violation's exit qualification (SDM volume 3, table "Exit Qualification for EPT
 * Violations"). Its first note: with EPT's A and D bits in use what touches a guest's table counts
 * as a write, and is reported as a read and a write.
 */
static uint32_t ept_qualification(const struct mmu_context *c, const struct walker *w,
				  uint32_t code)
{
	uint32_t q = w->access & MMU_ACC_WRITE ? 2 : w->access & MMU_ACC_FETCH ? 4 : 1;

	if (w->table && !c->cpu_role.ad_disabled)
		q = 3;
	if (code & PF_P)
		q |= (w->pte_access & MMU_MAP_USER ? 8 : 0) |
		     (w->pte_access & MMU_MAP_WRITE ? 16 : 0) |
		     (w->pte_access & MMU_MAP_EXEC ? 32 : 0);
	return q;
}

static int walk_fail(const struct mmu_context *c, struct walker *w, uint32_t code)
{
	w->fault = (struct guest_fault){.vector = 14, .cr2 = w->addr};
	if (c->cpu_role.mode == MODE_EPT) {
		w->fault.nested = true;
		w->fault.misconfig = code & PF_RSVD;
		w->fault.error_code = ept_qualification(c, w, code);
		return 0;
	}
	w->fault.error_code = code | access_error_code(c, w->access);
	return 0;
}

static unsigned ept_access(uint64_t pte)
{
	return (pte & EPT_R ? MMU_MAP_USER : 0) | (pte & EPT_W ? MMU_MAP_WRITE : 0) |
	       (pte & EPT_X ? MMU_MAP_EXEC : 0);
}

/* SDM volume 3, "EPT Misconfigurations"; reserved bits are looked at elsewhere. */
static bool ept_misconfigured(uint64_t pte, bool leaf, bool exec_only)
{
	unsigned type = pte >> 3 & 7;

	if ((pte & EPT_RWX) == EPT_W || (pte & EPT_RWX) == (EPT_W | EPT_X))
		return true;
	if ((pte & EPT_RWX) == EPT_X && !exec_only)
		return true;
	return leaf && (type == 2 || type == 3 || type == 7);
}

/* Set A and D in a guest entry unless it changed since it was read. */
static bool pte_update(struct mmu_vcpu *vcpu, struct walker *w, unsigned level, uint64_t want,
		       unsigned size)
{
	void *p = (void *)(uintptr_t)w->pte_hva[level - 1];
	gfn_t gfn = w->pte_gpa[level - 1] >> PAGE_SHIFT;
	uint64_t old = w->ptes[level - 1];
	bool done;

	if (size == 4) {
		uint32_t old32 = (uint32_t)old;

		done = __atomic_compare_exchange_n((uint32_t *)p, &old32, (uint32_t)want, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	} else {
		done = __atomic_compare_exchange_n((uint64_t *)p, &old, want, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	if (!done)
		return false;
	w->ptes[level - 1] = want;
	w->updated |= 1u << (level - 1);
	dirty_mark(vcpu, slot_of(vcpu->vm, gfn), gfn);
	vcpu->vm->ops->notify_write(vcpu->vm->priv, w->pte_hva[level - 1], size);
	return true;
}

/* ---- the four walks ---- */

#define WALK_NAME	walk_32
#define WALK_PTE	uint32_t
#define WALK_MODE	MODE_32
#define WALK_INDEX_BITS 10
#include "mmu/walk_tmpl.h"

#define WALK_NAME	walk_pae
#define WALK_PTE	uint64_t
#define WALK_MODE	MODE_PAE
#define WALK_INDEX_BITS 9
#include "mmu/walk_tmpl.h"

#define WALK_NAME	walk_64
#define WALK_PTE	uint64_t
#define WALK_MODE	MODE_64
#define WALK_INDEX_BITS 9
#include "mmu/walk_tmpl.h"

#define WALK_NAME	walk_ept
#define WALK_PTE	uint64_t
#define WALK_MODE	MODE_EPT
#define WALK_INDEX_BITS 9
#include "mmu/walk_tmpl.h"

static int walk_none(struct mmu_vcpu *vcpu, struct mmu_context *c, struct walker *w)
{
	w->level = w->max_level = 0;
	w->page_shift = PAGE_SHIFT;
	w->pte_access = w->granted = MMU_MAP_ALL;
	w->gfn = w->addr >> PAGE_SHIFT;
	return 1;
}

static const struct context_ops shadow_ops[NR_MODES] = {
	[MODE_NONE] = {.page_fault = direct_page_fault, .walk = walk_none},
	[MODE_32] = {.page_fault = shadow_page_fault, .walk = walk_32},
	[MODE_PAE] = {.page_fault = shadow_page_fault, .walk = walk_pae},
	[MODE_64] = {.page_fault = shadow_page_fault, .walk = walk_64},
	[MODE_EPT] = {.page_fault = shadow_page_fault, .walk = walk_ept},
};

/* The guest's tables are still walked for emulation and inspection. */
static const struct context_ops direct_ops[NR_MODES] = {
	[MODE_NONE] = {.page_fault = direct_page_fault, .walk = walk_none},
	[MODE_32] = {.page_fault = direct_page_fault, .walk = walk_32},
	[MODE_PAE] = {.page_fault = direct_page_fault, .walk = walk_pae},
	[MODE_64] = {.page_fault = direct_page_fault, .walk = walk_64},
};

const struct context_ops *context_ops_of(union cpu_role role, bool direct)
{
	return direct ? &direct_ops[role.mode] : &shadow_ops[role.mode];
}

/* ---- guest entries, by the role of their table ---- */

uint64_t gpte_load(const union page_role role, hva_t hva)
{
	if (role.mode == MODE_32)
		return __atomic_load_n((uint32_t *)(uintptr_t)hva, __ATOMIC_RELAXED);
	return __atomic_load_n((uint64_t *)(uintptr_t)hva, __ATOMIC_RELAXED);
}

bool gpte_present(const union page_role role, uint64_t gpte)
{
	return gpte & (role.mode == MODE_EPT ? EPT_RWX : 1);
}

bool gpte_accessed(const union page_role role, uint64_t gpte)
{
	return role.ad_disabled || gpte & (role.mode == MODE_EPT ? EPT_A : SPTE_A);
}

bool gpte_reserved(struct mmu_vm *vm, const union page_role role, unsigned level, uint64_t gpte)
{
	const struct rsvd_masks *r = &vm->rsvd[role.mode][role.nx][role.pse][role.exec_only];
	bool large = level > 1 && gpte & SPTE_PS;

	if (gpte & r->mask[large][level - 1])
		return true;
	return role.mode == MODE_EPT &&
	       ept_misconfigured(gpte, large || level == 1, role.exec_only);
}

unsigned gpte_access(const union page_role role, uint64_t gpte)
{
	unsigned access;

	if (role.mode == MODE_EPT) {
		access = role.access & ept_access(gpte);
		if (!role.ad_disabled && !(gpte & EPT_D))
			access &= ~(unsigned)MMU_MAP_WRITE;
		return access;
	}
	access = gpte & SPTE_U ? MMU_MAP_USER : 0;
	if (gpte & SPTE_W)
		access |= MMU_MAP_WRITE;
	if (!(role.nx && gpte & SPTE_XD))
		access |= MMU_MAP_EXEC;
	access &= role.access;
	/* WP = 0: a supervisor page is writable to all who may touch it. */
	if (!role.wp && !(access & MMU_MAP_USER))
		access |= MMU_MAP_WRITE;
	if (!(gpte & SPTE_D))
		access &= ~(unsigned)MMU_MAP_WRITE;
	return access;
}

uint64_t gpte_extra_spte_bits(const union page_role role, uint64_t gpte)
{
	if (role.mode == MODE_EPT)
		return 0;
	return (gpte & SPTE_G) | (role.mode == MODE_64 ? gpte & SPTE_PK : 0);
}

bool walk_changed(const struct mmu_context *c, const struct walker *w, unsigned level)
{
	union page_role role = {.mode = c->cpu_role.mode};

	return gpte_load(role, w->pte_hva[level - 1]) != w->ptes[level - 1];
}

/* ---- for emulation and inspection ---- */

void walk_record(const struct mmu_context *c, const struct walker *w, uint64_t addr,
		 struct mmu_walk_result *ret)
{
	ret->nsteps = 0;
	if (c->cpu_role.mode == MODE_NONE)
		return;
	if (c->cpu_role.mode == MODE_PAE) {
		unsigned n = addr >> 30 & 3;

		ret->steps[ret->nsteps++] =
			(struct mmu_walk_step){.level = 3, .gpa = n, .raw = c->pdptr[n]};
		if (w->level == 3)
			return;
	}
	for (unsigned l = w->max_level; l >= w->level && l; l--) {
		ret->steps[ret->nsteps++] = (struct mmu_walk_step){
			.level = (uint8_t)l, .gpa = w->pte_gpa[l - 1], .raw = w->ptes[l - 1]};
	}
}

int mmu_gva_to_gpa(struct mmu_vcpu *vcpu, gva_t gva, uint32_t access, struct mmu_walk_result *ret)
{
	struct mmu_context *c = vcpu->walk_mmu;
	struct walker w = {.addr = gva, .access = access};
	struct mmu_vm *vm = vcpu->vm;
	int r;

	if (!vcpu->have_regs)
		return -EINVAL;
	/* In protected mode without long mode a linear address has 32 bits. */
	if (c->cpu_role.mode < MODE_64)
		w.addr = (uint32_t)gva;
again:
	w.missing = false;
	pthread_rwlock_rdlock(&vm->slots_lock);
	r = c->ops->walk(vcpu, c, &w);
	if (r && c == &vcpu->nested_mmu)
		r = nested_translate_final(vcpu, &w);
	pthread_rwlock_unlock(&vm->slots_lock);
	if (w.updated && __atomic_load_n(&vm->stats.mmu_pages, __ATOMIC_RELAXED)) {
		mmu_lock(vm);
		track_walk(vm, c, &w);
		batch_commit(vm);
		mmu_unlock(vm);
	}
	if (unlikely(w.missing)) {
		r = vm->ops->fetch_page
			    ? vm->ops->fetch_page(vm->priv, w.missing_gfn << PAGE_SHIFT, 0)
			    : -EFAULT;
		if (r)
			return r;
		goto again;
	}
	walk_record(c, &w, w.addr, ret);
	if (!r) {
		ret->fault = w.fault;
		return 1;
	}
	ret->gpa = w.gfn << PAGE_SHIFT | (w.addr & ~PAGE_MASK);
	ret->page_shift = w.page_shift;
	ret->access = (uint8_t)w.granted;
	return 0;
}
