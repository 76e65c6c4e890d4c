/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Large entries made into tables of smaller ones that say the same. */
#include "mmu/mmu_internal.h"

/* Faults come first: the log leaves them so many table pages. */
#define EAGER_RESERVE 32u

/* Large entries that are split under one hold of the lock. */
#define EAGER_PIECE 64u

/* What a leaf was made to grant: what the log and the tracking of tables took back is in it. */
static unsigned leaf_access(uint64_t spte, enum mmu_format format)
{
	unsigned write = spte & (SPTE_W | SPTE_MMU_WRITABLE) ? MMU_MAP_WRITE : 0;

	if (format != MMU_FORMAT_EPT)
		return write | spte_x86_access(spte);
	return write | (spte & EPT_R ? MMU_MAP_USER : 0) | (spte & EPT_X ? MMU_MAP_EXEC : 0);
}

static uint64_t leaf_extra(uint64_t spte, enum mmu_format format)
{
	return format == MMU_FORMAT_X86 ? spte & (SPTE_G | SPTE_PK) : 0;
}

/* The entry of @child for @want, where @old is the large entry that it replaces a part of. */
static uint64_t part_of(struct mmu_vm *vm, const struct shadow_page *child, uint64_t old,
			const struct spte_want *want)
{
	unsigned level = child->role.level;
	bool writable = want->access & MMU_MAP_WRITE && !(want->slot->flags & SLOT_READONLY);
	uint64_t spte;

	if (level == 1)
		writable = writable && sync_allow_write(vm, want->slot, want->gfn, false);
	spte = spte_compose(vm, child, want, old, writable);
	/* No guest table lies where a large entry has W; but where it lost it one may. */
	if (level > 1 && !(old & SPTE_W) && slot_max_level(vm, want->slot, want->gfn) < level)
		spte &= ~SPTE_W;
	return spte;
}

static void fill(struct mmu_vm *vm, struct shadow_page *child, uint64_t old, struct memslot *slot)
{
	struct spte_want want = {
		.slot = slot,
		.access = child->role.access,
		.extra = role_extra(child->role),
		.flags = SPTE_PREFETCH,
	};
	unsigned n = 0;

	for (unsigned i = 0; i < PT_ENTRIES; i++) {
		uint64_t *spte = &sp_table(vm, child)[i];

		want.gfn = sp_gfn(vm, child, i);
		if (spte_read(spte))
			continue; /* it was in use before */
		spte_write(spte, part_of(vm, child, old, &want));
		rmap_add(vm, slot_rmap(slot, want.gfn, child->role.level), spte_id(vm, child, i));
		n++;
	}
	sp_account_leaves(vm, child, slot, n);
}

struct shadow_page *split_leaf(struct mmu_vm *vm, struct shadow_page *sp, unsigned i,
			       union page_role role)
{
	uint64_t old = spte_read(&sp_table(vm, sp)[i]);
	gfn_t gfn = sp_gfn(vm, sp, i);
	struct shadow_page *child;

	if (vm->disable & MMU_NO_SPLIT || !arena_free_blocks(vm))
		return NULL;
	child = sp_get(vm, gfn, role);
	fill(vm, child, old, slot_of(vm, gfn));
	sp_replace_leaf(vm, sp, i, child);
	STAT(vm, lpages_split);
	return child;
}

/* ---- before the first write ---- */

static struct shadow_page *split_eagerly(struct mmu_vm *vm, struct shadow_page *sp, unsigned i)
{
	uint64_t spte = spte_read(&sp_table(vm, sp)[i]);
	bool direct = sp->role.direct;
	struct spte_want want = {
		.access = direct ? sp->role.access : leaf_access(spte, sp->role.format),
		.extra = direct ? role_extra(sp->role) : leaf_extra(spte, sp->role.format),
	};
	struct shadow_page *child;

	if (arena_free_blocks(vm) <= EAGER_RESERVE)
		return NULL;
	child = split_leaf(vm, sp, i, direct_role(sp, &want));
	if (child)
		STAT(vm, lpages_eager_split);
	return child;
}

static bool is_eager(const struct mmu_vm *vm, const struct memslot *slot)
{
	return !(vm->disable & MMU_NO_EAGER_SPLIT) && !(slot->flags & SLOT_READONLY);
}

void split_frame(struct mmu_vm *vm, const struct memslot *slot, gfn_t gfn)
{
	if (!is_eager(vm, slot))
		return;
	for (unsigned level = NR_LEVELS; level > 1; level--) {
		uint32_t id, next;

		rmap_for_each(vm, slot_rmap(slot, gfn, level), id, next)
			split_eagerly(vm, sp_of_id(vm, id), (id - 1) % PT_ENTRIES);
	}
}

/* A large leaf that the log has taken W from. */
static bool awaits_split(struct mmu_vm *vm, const struct shadow_page *sp, unsigned i)
{
	uint64_t spte = spte_read(&sp_table(vm, sp)[i]);
	const struct memslot *slot;

	if ((spte & (SPTE_PS | SPTE_W | SPTE_MMU_WRITABLE)) != (SPTE_PS | SPTE_MMU_WRITABLE) ||
	    !spte_is_present(spte, sp->role.format))
		return false;
	slot = slot_of(vm, sp_gfn(vm, sp, i));
	return slot_is_logged(slot) && is_eager(vm, slot);
}

/* From table page *@at on; true: there is more to do. */
static bool split_some(struct mmu_vm *vm, uint32_t *at)
{
	unsigned left = EAGER_PIECE;

	for (; *at < vm->arena.nr_touched; (*at)++) {
		struct shadow_page *sp = &vm->arena.pages[*at], *child;

		if (!sp->used || sp->frame || sp->role.level == 1 || sp->role.level > NR_LEVELS)
			continue;
		for (unsigned i = 0; sp->present && i < PT_ENTRIES; i++) {
			if (!awaits_split(vm, sp, i))
				continue;
			if (!left--)
				return true;
			child = split_eagerly(vm, sp, i);
			if (!child)
				return false;
			/* Parts of 1 GiB are split as well; go back to where they lie. */
			if (child->role.level > 1 && sp_block(vm, child) < *at) {
				*at = sp_block(vm, child);
				return true;
			}
		}
	}
	return false;
}

void split_logged(struct mmu_vm *vm)
{
	uint32_t at = 0;
	bool more;

	do {
		mmu_lock(vm);
		more = split_some(vm, &at);
		batch_commit(vm);
		mmu_unlock(vm);
	} while (more);
}
