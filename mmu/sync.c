/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leaf tables out of step with the guest's, and how they come back into step. */
#include "mmu/mmu_internal.h"

/*
 * A table at level 1 may be written by the guest unseen ("unsync") until the guest flushes: until
 * then the architecture allows the old translations. Each table above knows by a bitmap which entry
 * leads to an unsynced page or to one with unsynced pages below. Invariant: if a page is unsync or
 * has unsync_children, every parent has the bit; a bit may be set in vain, and is cleared when it
 * is looked at.
 */

void sync_mark_parents(struct mmu_vm *vm, struct shadow_page *sp)
{
	uint32_t id, next;

	rmap_for_each(vm, &sp->parents, id, next)
	{
		struct shadow_page *parent = sp_of_id(vm, id);
		unsigned i = (id - 1) % PT_ENTRIES;

		if (bitmap_test(parent->unsync_bitmap, i))
			continue;
		bitmap_set(parent->unsync_bitmap, i);
		if (parent->unsync_children++ == 0)
			sync_mark_parents(vm, parent);
	}
}

void sync_forget(struct mmu_vm *vm, struct shadow_page *sp)
{
	sp->unsync = false;
	STAT_N(vm, mmu_unsync, -1);
}

bool sync_allow_write(struct mmu_vm *vm, struct memslot *slot, gfn_t gfn, bool may_unsync)
{
	uint32_t shadowed = slot_shadows(slot, gfn);
	struct shadow_page *sp;

	if (likely(!shadowed))
		return true;
	if (shadowed >= SHADOWED_HIGHER)
		return false;
	for_each_shadow(vm, sp, gfn)
	{
		if (sp->unsync)
			continue;
		if (!may_unsync || vm->disable & MMU_NO_UNSYNC)
			return false;
		sp->unsync = true;
		STAT(vm, mmu_unsynced);
		STAT_N(vm, mmu_unsync, 1);
		sync_mark_parents(vm, sp);
	}
	return true;
}

/* ---- one entry ---- */

hva_t sp_gpte_hva(struct mmu_vm *vm, const struct shadow_page *sp, unsigned i)
{
	struct memslot *slot = slot_of(vm, sp->gfn);
	unsigned at;

	if (!slot)
		return 0;
	if (sp->role.mode != MODE_32)
		at = i * 8;
	else if (sp->role.level == 1)
		at = (sp->role.quadrant * PT_ENTRIES + i) * 4;
	else
		at = (sp->role.quadrant * PT_ENTRIES + i) / 2 * 4;
	return slot_hva(slot, sp->gfn) + at;
}

/* May the guest entry be in a TLB at all? Of EPT's not if it and those above grant nothing in
 * common: an entry of ours would be none. */
static bool gpte_usable(struct mmu_vm *vm, const struct shadow_page *sp, uint64_t gpte)
{
	return gpte_present(sp->role, gpte) && gpte_accessed(sp->role, gpte) &&
	       !gpte_reserved(vm, sp->role, 1, gpte) &&
	       (sp->role.mode != MODE_EPT || gpte_access(sp->role, gpte));
}

static gfn_t gpte_gfn(const struct shadow_page *sp, uint64_t gpte)
{
	return (gpte & (sp->role.mode == MODE_32 ? BITS(31, 12) : BITS(51, 12))) >> PAGE_SHIFT;
}

void sync_entry(struct mmu_vm *vm, struct shadow_page *sp, unsigned i)
{
	uint64_t old = spte_read(&sp_table(vm, sp)[i]), gpte;
	struct spte_want want = {.flags = SPTE_PREFETCH, .vcpu = vm->self};

	if (!old)
		return;
	gpte = gpte_load(sp->role, sp_gpte_hva(vm, sp, i));
	if (!gpte_usable(vm, sp, gpte) || spte_is_mmio(old) ||
	    gpte_gfn(sp, gpte) != sp_gfn(vm, sp, i)) {
		spte_zap(vm, sp, i);
		return;
	}
	want.gfn = gpte_gfn(sp, gpte);
	want.slot = slot_of(vm, want.gfn);
	want.access = sp->role.access & gpte_access(sp->role, gpte);
	want.extra = gpte_extra_spte_bits(sp->role, gpte);
	/* A supervisor entry made writable for a WP = 0 guest: not to be told from the guest's own.
	 */
	spte_set(vm, sp, i, &want);
}

void sync_entries(struct mmu_vm *vm, struct shadow_page *sp)
{
	STAT(vm, mmu_synced);
	for (unsigned i = 0; sp->present && i < PT_ENTRIES; i++)
		sync_entry(vm, sp, i);
}

bool sync_prefetch(struct mmu_vm *vm, struct shadow_page *sp, unsigned i)
{
	struct spte_want want = {.flags = SPTE_PREFETCH, .vcpu = vm->self};
	uint64_t gpte = gpte_load(sp->role, sp_gpte_hva(vm, sp, i));

	if (!gpte_usable(vm, sp, gpte))
		return false;
	want.gfn = gpte_gfn(sp, gpte);
	want.slot = slot_of(vm, want.gfn);
	if (!want.slot || slot_is_missing(want.slot, want.gfn))
		return false;
	want.access = sp->role.access & gpte_access(sp->role, gpte);
	want.extra = gpte_extra_spte_bits(sp->role, gpte);
	spte_set(vm, sp, i, &want);
	return true;
}

/* ---- all below a root ---- */

#define SYNC_BATCH 16

struct sync_list {
	unsigned n;
	struct shadow_page *sp[SYNC_BATCH];
};

/* Collect unsynced pages below @sp and clear bits that are set in vain. Whether any is left there.
 */
static bool collect(struct mmu_vm *vm, struct shadow_page *sp, struct sync_list *list)
{
	uint64_t i;

	bitmap_for_each (i, sp->unsync_bitmap, (uint64_t)PT_ENTRIES) {
		struct shadow_page *child;

		if (list->n == SYNC_BATCH)
			return true;
		child = sp_of_hpa(vm, spte_read(&sp_table(vm, sp)[i]) & SPTE_FRAME);
		if (child->unsync) {
			list->sp[list->n++] = child;
			/* Cleared now; it is in step before anything else happens. */
		} else if (child->unsync_children && collect(vm, child, list)) {
			return true;
		}
		bitmap_clear(sp->unsync_bitmap, i);
		sp->unsync_children--;
	}
	return false;
}

void sync_below(struct mmu_vm *vm, struct shadow_page *sp)
{
	while (sp->unsync_children) {
		struct sync_list list = {0};

		collect(vm, sp, &list);
		for (unsigned i = 0; i < list.n; i++) {
			gfn_t gfn = list.sp[i]->gfn;

			rmap_write_protect(vm, slot_of(vm, gfn), gfn);
		}
		/* No write may slip in between what we read and the protection. */
		batch_commit(vm);
		/* First all are in step by name: an entry synced below gives no page of the list
		 * back W. */
		for (unsigned i = 0; i < list.n; i++) {
			if (list.sp[i]->unsync)
				sync_forget(vm, list.sp[i]);
		}
		for (unsigned i = 0; i < list.n; i++)
			sync_entries(vm, list.sp[i]);
	}
}

void sync_root(struct mmu_vm *vm, const struct vcpu_root *root)
{
	if (!root->valid)
		return;
	if (!root->frame) {
		if (root->sp)
			sync_below(vm, root->sp);
	} else {
		for (unsigned i = 0; i < 4; i++) {
			if (root->pd[i])
				sync_below(vm, root->pd[i]);
		}
	}
	batch_commit(vm);
}
