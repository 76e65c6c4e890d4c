/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest wrote to one of its tables: the entries made from it are dropped or made anew. */
#include "mmu/mmu_internal.h"

#define FLOOD_LIMIT 3 /* writes to a higher table without a walk through it in between */

static unsigned gpte_size(const struct shadow_page *sp)
{
	return sp->role.mode == MODE_32 ? 4 : 8;
}

/* Nobody writes a table entry like this. */
static bool is_misaligned(const struct shadow_page *sp, gpa_t gpa, uint64_t len)
{
	unsigned size = gpte_size(sp), offset = gpa & (size - 1);

	if (len > 8)
		return true;
	if (len == 1 && !offset)
		return false; /* a bit of flags, set or cleared by a byte access */
	return len < 4 || len & (len - 1) || gpa & (len - 1);
}

/* A leaf can go out of sync instead, which ends a flood. */
static bool is_flooded(struct mmu_vm *vm, struct shadow_page *sp)
{
	if (sp->role.level == 1 || vm->disable & MMU_NO_FLOOD)
		return false;
	return ++sp->flood >= FLOOD_LIMIT;
}

static void entry_written(struct mmu_vm *vm, struct shadow_page *sp, unsigned i, bool renew)
{
	uint64_t old = spte_read(&sp_table(vm, sp)[i]);

	if (old) {
		if (!spte_is_leaf(old, sp->role.level) && !spte_is_mmio(old))
			STAT(vm, mmu_pde_zapped);
		spte_zap(vm, sp, i);
	}
	/* Saves a fault: the guest is likely to use what it has just mapped. */
	if (renew && sp->role.level == 1)
		sync_prefetch(vm, sp, i);
}

static void page_written(struct mmu_vm *vm, struct shadow_page *sp, gpa_t gpa, uint64_t len,
			 bool renew)
{
	unsigned size = gpte_size(sp);
	unsigned first = (gpa & ~PAGE_MASK) / size, last = ((gpa & ~PAGE_MASK) + len - 1) / size;

	for (unsigned g = first; g <= last; g++) {
		unsigned i = g;

		if (sp->role.mode == MODE_32 && sp->role.level == 1) {
			if (g / PT_ENTRIES != sp->role.quadrant)
				continue;
			i = g % PT_ENTRIES;
		} else if (sp->role.mode == MODE_32) {
			/* A PDE's 4 MiB are two entries of ours. */
			if (g / (PT_ENTRIES / 2) != sp->role.quadrant)
				continue;
			i = g % (PT_ENTRIES / 2) * 2;
			entry_written(vm, sp, i + 1, renew);
		}
		entry_written(vm, sp, i, renew);
	}
}

/* @len bytes within one frame. */
static void frame_written(struct mmu_vm *vm, struct mmu_vcpu *vcpu, gpa_t gpa, uint64_t len)
{
	gfn_t gfn = gpa >> PAGE_SHIFT;
	struct shadow_page *sp, *tmp;

	STAT(vm, mmu_pte_write);
	for_each_shadow_safe(vm, sp, tmp, gfn)
	{
		if (is_misaligned(sp, gpa, len) || is_flooded(vm, sp)) {
			sp_zap(vm, sp);
			STAT(vm, mmu_flooded);
			continue;
		}
		page_written(vm, sp, gpa, len, vcpu != NULL && !(vm->disable & MMU_NO_PREFETCH));
	}
}

void track_write(struct mmu_vm *vm, struct mmu_vcpu *vcpu, gpa_t gpa, uint64_t len)
{
	mmu_lock(vm);
	while (len) {
		uint64_t n = MIN(len, PAGE_SIZE - (gpa & ~PAGE_MASK));
		struct memslot *slot = slot_of(vm, gpa >> PAGE_SHIFT);

		if (slot && slot_shadows(slot, gpa >> PAGE_SHIFT))
			frame_written(vm, vcpu, gpa, n);
		gpa += n;
		len -= n;
	}
	batch_commit(vm);
	mmu_unlock(vm);
}

static bool same_form(unsigned a, unsigned b)
{
	return (a == MODE_32) == (b == MODE_32) && (a == MODE_EPT) == (b == MODE_EPT);
}

void track_walk(struct mmu_vm *vm, const struct mmu_context *c, const struct walker *w)
{
	unsigned mode = c->cpu_role.mode;

	for (unsigned l = 1; l <= MMU_MAX_LEVEL; l++) {
		gpa_t gpa = w->pte_gpa[l - 1];
		struct shadow_page *sp, *tmp;
		struct memslot *slot;

		if (!(w->updated >> (l - 1) & 1))
			continue;
		/* Without the lock in between the slot may have gone. */
		slot = slot_of(vm, gpa >> PAGE_SHIFT);
		if (!slot || !slot_shadows(slot, gpa >> PAGE_SHIFT))
			continue;
		for_each_shadow_safe(vm, sp, tmp, gpa >> PAGE_SHIFT)
		{
			if (!same_form(sp->role.mode, mode))
				page_written(vm, sp, gpa, mode == MODE_32 ? 4 : 8, false);
		}
	}
}

void mmu_track_write(struct mmu_vm *vm, gpa_t gpa, uint64_t len)
{
	track_write(vm, NULL, gpa, len);
}

bool mmu_is_tracked(struct mmu_vm *vm, gpa_t gpa)
{
	struct memslot *slot;
	bool tracked = false;

	pthread_rwlock_rdlock(&vm->slots_lock);
	slot = slot_of(vm, gpa >> PAGE_SHIFT);
	if (slot)
		tracked = __atomic_load_n(slot_shadowed(slot, gpa >> PAGE_SHIFT), __ATOMIC_RELAXED);
	pthread_rwlock_unlock(&vm->slots_lock);
	return tracked;
}

void mmu_unprotect(struct mmu_vm *vm, gfn_t gfn)
{
	mmu_lock(vm);
	if (slot_of(vm, gfn))
		sp_unshadow(vm, gfn);
	batch_commit(vm);
	mmu_unlock(vm);
}
