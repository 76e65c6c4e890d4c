/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A day in the life of a page fault: walk the guest's tables, build ours, install the entry. */
#include <errno.h>

#include "mmu/mmu_internal.h"

/* ---- installing entries ---- */

uint64_t spte_compose(const struct mmu_vm *vm, const struct shadow_page *sp,
		      const struct spte_want *want, uint64_t old, bool writable)
{
	enum mmu_format format = sp->role.format;
	unsigned level = sp->role.level, access = want->access;
	bool logged = slot_is_logged(want->slot);
	pfn_t pfn = slot_hva(want->slot, want->gfn) >> PAGE_SHIFT;
	uint64_t spte;

	if (!writable)
		access &= ~(unsigned)MMU_MAP_WRITE;
	spte = spte_make_leaf(format, level, pfn, access) | want->extra;
	if (!writable)
		return spte;
	spte |= SPTE_MMU_WRITABLE;
	if (!logged || want->flags & SPTE_FOR_WRITE)
		return spte;
	if (dirty_by_d(vm, sp))
		return spte & ~(old & SPTE_W && old & EPT_D ? 0 : EPT_D);
	/* Logged, and not written as far as we know: the first write shall fault. */
	return old & SPTE_W ? spte : spte & ~SPTE_W;
}

/* Through it the page can be written with nobody noticing. */
static bool is_unseen_writable(uint64_t spte, enum mmu_format format)
{
	return spte & SPTE_W && (format != MMU_FORMAT_EPT || spte & EPT_D);
}

/* Does the vCPU that asks share the lock? Then an entry may gain rights, but lose none. */
static bool is_shared(const struct spte_want *want)
{
	return want->vcpu && want->vcpu->shared;
}

/* An entry that is not zero, and maps what is wanted. */
static bool maps_wanted(const struct mmu_vm *vm, const struct shadow_page *sp, unsigned i,
			uint64_t old, const struct spte_want *want)
{
	return !spte_is_mmio(old) && spte_is_leaf(old, sp->role.level) &&
	       spte_pfn(old) == slot_hva(want->slot, want->gfn) >> PAGE_SHIFT &&
	       sp_gfn(vm, sp, i) == want->gfn;
}

enum spte_result spte_set(struct mmu_vm *vm, struct shadow_page *sp, unsigned i,
			  const struct spte_want *want)
{
	bool prefetch = want->flags & SPTE_PREFETCH, write = want->flags & SPTE_FOR_WRITE;
	bool writable = want->access & MMU_MAP_WRITE && !(want->slot->flags & SLOT_READONLY);
	enum mmu_format format = sp->role.format;
	uint64_t *spte = &sp_table(vm, sp)[i], old, new;
	bool reduced;

	/* What becomes of the shadows of a guest table is no question for a reader. */
	if (is_shared(want) && writable && slot_shadows(want->slot, want->gfn))
		return SPTE_EXCLUSIVE;
	writable = writable && sync_allow_write(vm, want->slot, want->gfn, !prefetch);
	do {
		old = spte_read(spte);
		if (old && !maps_wanted(vm, sp, i, old, want)) {
			if (is_shared(want))
				return SPTE_EXCLUSIVE;
			spte_zap(vm, sp, i);
			old = 0;
		}
		new = spte_compose(vm, sp, want, old, writable);
		/* Never for one that shares the lock: all entries of a direct page grant the same.
		 */
		reduced = old && spte_is_reduced(old, new, format);
		if (is_unseen_writable(new, format) && !is_unseen_writable(old, format))
			dirty_mark(want->vcpu, want->slot, want->gfn);
		/* The processor may set D, and another reader may be as far as we are. */
	} while (new != old && !spte_exchange(spte, old, new));
	if (!old)
		spte_account_leaf(vm, sp, i, want);
	else if (reduced)
		batch_frames(vm, sp->users, spte_pfn(new), level_pages(sp->role.level));
	return writable || !write ? SPTE_DONE : SPTE_TRACKED;
}

/* Remember that @gfn is no memory. False: one that shares the lock cannot. */
static bool spte_set_mmio(struct mmu_vcpu *vcpu, struct shadow_page *sp, unsigned i, gfn_t gfn,
			  unsigned access)
{
	struct mmu_vm *vm = vcpu->vm;
	uint64_t *spte = &sp_table(vm, sp)[i], new;

	if (gfn >= BIT(MMU_HOST_WIDTH - PAGE_SHIFT) || vm->disable & MMU_NO_MMIO_CACHE)
		return true;
	new = spte_make_mmio(sp->role.format, gfn, access, vm->generation);
	if (spte_read(spte) == new)
		return true;
	if (!vcpu->shared)
		spte_zap(vm, sp, i);
	if (!spte_exchange(spte, 0, new))
		return false;
	__atomic_fetch_add(&sp->present, 1, __ATOMIC_RELAXED);
	STAT(vcpu, pf_mmio_spte_created);
	return true;
}

/* ---- our tables ---- */

struct shadow_page *shadow_lookup(struct mmu_vm *vm, const struct mmu_context *c, uint64_t addr,
				  unsigned *ret_index)
{
	struct shadow_page *sp = root_start(c, addr);

	while (sp) {
		unsigned i = level_index(addr, sp->role.level);
		uint64_t spte = spte_read(&sp_table(vm, sp)[i]);

		*ret_index = i;
		if (!spte_is_present(spte, sp->role.format) || spte_is_leaf(spte, sp->role.level))
			return sp;
		sp = sp_of_hpa(vm, spte & SPTE_FRAME);
	}
	return NULL;
}

union page_role direct_role(const struct shadow_page *sp, const struct spte_want *want)
{
	union page_role role = sp->role;

	role.level = sp->role.level - 1;
	role.direct = 1;
	role.access = want->access & MMU_MAP_ALL;
	role.quadrant = 0;
	role.pkey = want->extra >> 59 & 15;
	role.global = want->extra & SPTE_G ? 1 : 0;
	return role;
}

/* By one that shares the lock: NULL when there is no room, or something else is in the place. */
static struct shadow_page *add_direct(struct mmu_vm *vm, struct shadow_page *sp, unsigned i,
				      gfn_t gfn, union page_role role)
{
	struct shadow_page *child = NULL;
	uint64_t spte;

	pthread_mutex_lock(&vm->pages_lock);
	spte = spte_read(&sp_table(vm, sp)[i]);
	if (spte) {
		/* Another was faster; that it can only be this page holds for direct tables. */
		if (!spte_is_leaf(spte, sp->role.level))
			child = sp_of_hpa(vm, spte & SPTE_FRAME);
	} else if (arena_free_blocks(vm)) {
		child = sp_get(vm, gfn, role);
		sp_link(vm, sp, i, child);
	}
	pthread_mutex_unlock(&vm->pages_lock);
	return child;
}

/*
 * Step down to a page without a guest table of its own. A large entry in the way is split. NULL:
 * one that shares the lock cannot.
 */
static struct shadow_page *step_direct(struct mmu_vm *vm, struct shadow_page *sp, uint64_t addr,
				       const struct spte_want *want)
{
	gfn_t gfn = ALIGN_DOWN(want->gfn, level_pages(sp->role.level));
	unsigned i = level_index(addr, sp->role.level);
	uint64_t spte = spte_read(&sp_table(vm, sp)[i]);
	union page_role role = direct_role(sp, want);
	struct shadow_page *child;

	if (spte && !spte_is_leaf(spte, sp->role.level)) {
		child = sp_of_hpa(vm, spte & SPTE_FRAME);
		if (child->gfn == gfn && child->role.word == role.word)
			return child;
	}
	if (is_shared(want))
		return spte ? NULL : add_direct(vm, sp, i, gfn, role);
	/* Of another frame: the guest's entry changed, and track_write() is still to come. */
	if (spte && spte_is_leaf(spte, sp->role.level) && sp_gfn(vm, sp, i) == gfn) {
		child = split_leaf(vm, sp, i, role);
		if (child)
			return child;
	}
	/* Made for other rights, before the guest's entry was seen dirty: not the one. */
	spte_zap(vm, sp, i);
	child = sp_get(vm, gfn, role);
	sp_link(vm, sp, i, child);
	return child;
}

/* ---- faults that need no walk ---- */

static int lookup_mmio(struct mmu_vcpu *vcpu, struct mmu_fault *f)
{
	struct mmu_context *c = vcpu->mmu;
	struct mmu_vm *vm = vcpu->vm;
	struct shadow_page *sp;
	uint32_t ignored;
	uint64_t spte;
	unsigned i;

	sp = shadow_lookup(vm, c, f->addr, &i);
	if (!sp)
		return -1;
	spte = spte_read(&sp_table(vm, sp)[i]);
	if (!spte_is_mmio(spte))
		return -1;
	if (spte_mmio_gen(spte) != vm->generation % MMIO_GEN_MODULO)
		return -1;
	/* L1's EPT may forbid it: in that format an MMIO entry has no room for rights. */
	if (c->cpu_role.mode == MODE_EPT)
		return -1;
	/* The rights are those that the guest's tables gave; with keys ask the tables themselves.
	 */
	if (c->root_role.format == MMU_FORMAT_X86 && c->cpu_role.mode != MODE_NONE &&
	    (c->cpu_role.pke || (f->access & MMU_ACC_WRITE && !(spte & SPTE_W)) ||
	     access_denied(c, f->access, spte_x86_access(spte), 0, &ignored)))
		return -1;
	if (c->root_role.format != MMU_FORMAT_X86 && f->flags & MMU_PF_TABLE)
		return -1;
	f->gpa = spte_mmio_gfn(spte) << PAGE_SHIFT | (f->addr & ~PAGE_MASK);
	STAT(vcpu, pf_mmio_cached);
	return MMU_MMIO;
}

/* A write to a page that only the dirty log keeps from being writable. */
static bool fast_fix(struct mmu_vcpu *vcpu, const struct mmu_fault *f)
{
	const struct mmu_context *c = vcpu->mmu;
	struct mmu_vm *vm = vcpu->vm;
	struct shadow_page *sp;
	struct memslot *slot;
	uint64_t *spte, old;
	uint32_t ignored;
	unsigned i;
	gfn_t gfn;

	if (!(f->flags & MMU_PF_PRESENT) || !(f->access & MMU_ACC_WRITE))
		return false;
	sp = shadow_lookup(vm, c, f->addr, &i);
	if (!sp)
		return false;
	spte = &sp_table(vm, sp)[i];
	old = spte_read(spte);
	if ((old & (SPTE_MMU_WRITABLE | SPTE_W)) != SPTE_MMU_WRITABLE ||
	    !spte_is_present(old, sp->role.format))
		return false;
	if (sp->role.format == MMU_FORMAT_X86 &&
	    (c->cpu_role.pke ||
	     access_denied(c, f->access, spte_x86_access(old) | MMU_MAP_WRITE, 0, &ignored)))
		return false;
	gfn = sp_gfn(vm, sp, i);
	slot = slot_of(vm, gfn);
	/* A large page that is logged is split instead. */
	if (sp->role.level > 1 && slot_max_level(vm, slot, gfn) < sp->role.level)
		return false;
	if (vcpu->shared ? slot_shadows(slot, gfn) : !sync_allow_write(vm, slot, gfn, false))
		return false;
	dirty_mark(vcpu, slot, gfn);
	/* Should another reader be faster, then it did the same. */
	if (spte_exchange(spte, old, old | SPTE_W))
		STAT(vcpu, pf_fast);
	return true;
}

/* ---- neighbours ---- */

#define PREFETCH 8u

static bool prefetch_direct(struct mmu_vcpu *vcpu, struct shadow_page *sp, unsigned i)
{
	struct mmu_vm *vm = vcpu->vm;
	gfn_t gfn = sp_gfn(vm, sp, i);
	struct memslot *slot = slot_of(vm, gfn);
	struct spte_want want = {
		.slot = slot,
		.gfn = gfn,
		.access = sp->role.access,
		.extra = role_extra(sp->role),
		.flags = SPTE_PREFETCH,
		.vcpu = vcpu,
	};

	return slot && gfn - slot->base < slot->npages && !slot_is_missing(slot, gfn) &&
	       spte_set(vm, sp, i, &want) == SPTE_DONE;
}

static void prefetch(struct mmu_vcpu *vcpu, struct shadow_page *sp, unsigned i)
{
	struct mmu_vm *vm = vcpu->vm;

	if (sp->role.level > 1 || vm->disable & MMU_NO_PREFETCH)
		return;
	i &= ~(PREFETCH - 1);
	for (unsigned n = i; n < i + PREFETCH; n++) {
		if (spte_read(&sp_table(vm, sp)[n]))
			continue;
		if (sp->role.direct ? prefetch_direct(vcpu, sp, n) : sync_prefetch(vm, sp, n))
			STAT(vcpu, pf_prefetched);
	}
}

/* The last step of both policies: the page is memory or it is not. */
static int map_page(struct mmu_vcpu *vcpu, struct mmu_fault *f, struct shadow_page *sp,
		    struct spte_want *want)
{
	unsigned i = level_index(f->addr, sp->role.level);
	struct mmu_vm *vm = vcpu->vm;
	uint64_t before = spte_read(&sp_table(vm, sp)[i]);
	enum spte_result result;

	want->flags = f->access & MMU_ACC_WRITE ? SPTE_FOR_WRITE : 0;
	want->gfn = ALIGN_DOWN(want->gfn, level_pages(sp->role.level));
	result = spte_set(vm, sp, i, want);
	if (result == SPTE_EXCLUSIVE)
		return FAULT_EXCLUSIVE;
	f->fixed = spte_read(&sp_table(vm, sp)[i]) != before;
	if (result == SPTE_TRACKED) {
		f->write_tracked = true;
		return MMU_EMULATE;
	}
	if (!f->fixed)
		STAT(vcpu, pf_spurious);
	prefetch(vcpu, sp, i);
	return MMU_RETRY;
}

static int map_mmio(struct mmu_vcpu *vcpu, struct mmu_fault *f, struct shadow_page *sp,
		    unsigned access)
{
	gfn_t gfn = f->gpa >> PAGE_SHIFT;

	if (sp->role.level == 1 && !spte_set_mmio(vcpu, sp, level_index(f->addr, 1), gfn, access))
		return FAULT_EXCLUSIVE;
	return MMU_MMIO;
}

/* ---- the shadow MMU ---- */

/*
 * Drop the shadows of a table that a user writes to. An instruction that writes to a table which
 * its own second page needs would make us do so for ever: after some times in a row, no more.
 */
static bool unshadow_for_user(struct mmu_vcpu *vcpu, gfn_t gfn)
{
	if (vcpu->unprotected != gfn)
		vcpu->unprotected_count = 0;
	vcpu->unprotected = gfn;
	if (vcpu->unprotected_count++ >= 3)
		return false;
	if (!sp_unshadow(vcpu->vm, gfn))
		return false;
	STAT(vcpu, pf_unprotected);
	return true;
}

/* Did the user write to what we take for a guest table? Then it hardly is one any more. */
static int write_tracked(struct mmu_vcpu *vcpu, struct mmu_fault *f, const struct walker *w)
{
	f->write_tracked = true;
	if (!access_is_user(f->access))
		return MMU_EMULATE;
	/* Unless this very walk used it: it would be shadowed again at once, for ever. */
	for (unsigned l = w->level; l && l <= w->max_level; l++) {
		if (w->table_gfn[l - 1] == w->gfn)
			return MMU_EMULATE;
	}
	return unshadow_for_user(vcpu, w->gfn) ? MMU_RETRY : MMU_EMULATE;
}

/* CR0.WP = 0: what the supervisor may do to a page beyond what the tables grant. */
static int relax_for_wp(const struct mmu_context *c, const struct mmu_fault *f, struct walker *w)
{
	bool dirty = w->ptes[w->level - 1] & SPTE_D;

	if (c->cpu_role.wp || c->cpu_role.mode == MODE_EPT)
		return 0;
	if (!(w->pte_access & MMU_MAP_USER)) {
		if (dirty)
			w->pte_access |= MMU_MAP_WRITE;
		return 0;
	}
	if (!(f->access & MMU_ACC_WRITE) || access_is_user(f->access))
		return 0;
	/* The processor itself runs with WP = 1, where a key's write-disable holds for all. */
	if (c->cpu_role.pke && c->pkru >> (w->ptes[w->level - 1] >> 59 & 15) * 2 & 2)
		return MMU_EMULATE;
	if (w->granted & MMU_MAP_WRITE)
		return 0;
	/*
	 * A user page that is read-only, written by the supervisor. As a supervisor's page it can
	 * be mapped writable until the user asks for it; but SMAP and keys would no longer be
	 * checked.
	 */
	if (c->cpu_role.smap || c->cpu_role.pke)
		return MMU_EMULATE;
	w->pte_access |= MMU_MAP_WRITE;
	w->pte_access &= ~(unsigned)MMU_MAP_USER;
	if (c->cpu_role.smep)
		w->pte_access &= ~(unsigned)MMU_MAP_EXEC;
	return 0;
}

/* The page that stands for the guest's table which the walk used at @level. */
static union page_role guest_role(const struct mmu_context *c, const struct walker *w,
				  unsigned level)
{
	union page_role role = c->root_role;

	role.level = level;
	role.access = w->table_access[level - 1] & MMU_MAP_ALL;
	if (role.mode == MODE_32)
		role.quadrant = w->addr >> 21 & 1;
	return role;
}

/* From the root down to the page for the guest's last table. NULL: the guest changed its tables. */
static struct shadow_page *build_guest_levels(struct mmu_vcpu *vcpu, const struct walker *w)
{
	struct mmu_context *c = vcpu->mmu;
	struct shadow_page *sp = root_start(c, w->addr), *child;
	struct mmu_vm *vm = vcpu->vm;

	if (!sp || sp->invalid)
		return NULL;
	sp->flood = 0;
	while (sp->role.level > w->level) {
		unsigned i = level_index(w->addr, sp->role.level), level = sp->role.level - 1;
		uint64_t spte = spte_read(&sp_table(vm, sp)[i]);
		union page_role role = guest_role(c, w, level);
		gfn_t gfn = w->table_gfn[level - 1];

		child = spte && !spte_is_leaf(spte, sp->role.level)
				? sp_of_hpa(vm, spte & SPTE_FRAME)
				: NULL;
		/* A vCPU may have stored a new entry and not have come to tell of it: track_write()
		 * is still to drop what was made of the old one. */
		if (!child || child->gfn != gfn || child->role.word != role.word) {
			spte_zap(vm, sp, i);
			child = sp_get(vm, gfn, role);
			/*
			 * Its table is write-protected from now on: is the entry still what the
			 * walker saw? Those above were looked at when their tables were.
			 */
			if (walk_changed(c, w, level))
				return NULL;
			sp_link(vm, sp, i, child);
		}
		child->flood = 0;
		sp = child;
	}
	/* The last table may have been unsynced, written, and brought into step meanwhile. */
	return walk_changed(c, w, w->level) ? NULL : sp;
}

static int shadow_fix(struct mmu_vcpu *vcpu, struct mmu_fault *f, struct walker *w)
{
	struct mmu_context *c = vcpu->mmu;
	struct mmu_vm *vm = vcpu->vm;
	struct memslot *slot = slot_of(vm, w->gfn);
	bool write = f->access & MMU_ACC_WRITE;
	struct spte_want want = {.slot = slot, .gfn = w->gfn, .vcpu = vcpu};
	struct shadow_page *sp;
	unsigned level;
	int r;

	f->gpa = w->gfn << PAGE_SHIFT | (f->addr & ~PAGE_MASK);
	if (write && slot && slot->flags & SLOT_READONLY)
		return MMU_MMIO;
	if (slot && slot_is_missing(slot, w->gfn))
		return MMU_WAIT;
	if (write && slot && f->flags & MMU_PF_PRESENT &&
	    slot_shadows(slot, w->gfn) >= SHADOWED_HIGHER)
		return write_tracked(vcpu, f, w);
	r = relax_for_wp(c, f, w);
	if (r)
		return r;
	if (arena_make_room(vm, 2 * MMU_MAX_LEVEL))
		return -ENOMEM;
	sp = build_guest_levels(vcpu, w);
	if (!sp)
		return MMU_RETRY;
	level = slot ? MIN(slot_max_level(vm, slot, w->gfn), (unsigned)sp->role.level) : 1;
	want.access = w->pte_access;
	want.extra = gpte_extra_spte_bits(c->root_role, w->ptes[w->level - 1]);
	/* On below, where the guest's page is larger than what we may map. */
	while (sp->role.level > level)
		sp = step_direct(vm, sp, f->addr, &want);
	if (!slot)
		return map_mmio(vcpu, f, sp, w->pte_access);
	r = map_page(vcpu, f, sp, &want);
	return r == MMU_EMULATE ? write_tracked(vcpu, f, w) : r;
}

int shadow_page_fault(struct mmu_vcpu *vcpu, struct mmu_fault *f)
{
	struct mmu_context *c = vcpu->mmu;
	struct walker w = {
		.addr = f->addr,
		.access = f->access & ~MMU_ACC_PEEK,
		.table = f->flags & MMU_PF_TABLE,
	};
	int r;

	if (f->flags & MMU_PF_RSVD) {
		r = lookup_mmio(vcpu, f);
		if (r >= 0)
			return r;
	} else if (fast_fix(vcpu, f)) {
		f->fixed = true;
		return MMU_RETRY;
	}
	r = c->ops->walk(vcpu, c, &w);
	if (w.updated)
		track_walk(vcpu->vm, c, &w);
	if (!r) {
		if (w.missing) {
			f->gpa = w.missing_gfn << PAGE_SHIFT;
			return MMU_WAIT;
		}
		f->guest = w.fault;
		STAT(vcpu, pf_guest);
		return w.fault.nested ? MMU_NESTED_EXIT : MMU_INJECT;
	}
	return shadow_fix(vcpu, f, &w);
}

/* ---- tables without a guest's behind them: TDP, and no paging ---- */

/* The processor walked guest tables that lie where no memory is: it would read all ones. */
static int inject_absent_table(struct mmu_vcpu *vcpu, struct mmu_fault *f)
{
	f->guest = (struct guest_fault){
		.vector = 14,
		.error_code = PF_P | PF_RSVD | access_error_code(vcpu->walk_mmu, f->walk_access),
		.cr2 = f->gva,
	};
	STAT(vcpu, pf_guest);
	return MMU_INJECT;
}

int direct_page_fault(struct mmu_vcpu *vcpu, struct mmu_fault *f)
{
	struct mmu_context *c = vcpu->mmu;
	struct mmu_vm *vm = vcpu->vm;
	struct memslot *slot = slot_of(vm, f->addr >> PAGE_SHIFT);
	struct spte_want want = {
		.slot = slot, .gfn = f->addr >> PAGE_SHIFT, .access = MMU_MAP_ALL, .vcpu = vcpu};
	bool write = f->access & MMU_ACC_WRITE;
	struct shadow_page *sp;
	unsigned level;
	int r;

	f->gpa = f->addr;
	if (f->addr >> (PAGE_SHIFT + 9 * c->root_role.level)) {
		slot = NULL; /* our tables do not reach that far */
	} else if (f->flags & MMU_PF_RSVD) {
		r = lookup_mmio(vcpu, f);
		if (r >= 0)
			return r;
	} else if (fast_fix(vcpu, f)) {
		f->fixed = true;
		return MMU_RETRY;
	}
	if (f->flags & MMU_PF_TABLE && !slot)
		return inject_absent_table(vcpu, f);
	/* Tables in ROM keep their A and D bits: the emulator's walk does without them. */
	if (f->flags & MMU_PF_TABLE && write && slot->flags & SLOT_READONLY)
		return MMU_EMULATE;
	if (slot && write && slot->flags & SLOT_READONLY)
		return MMU_MMIO;
	if (slot && slot_is_missing(slot, want.gfn))
		return MMU_WAIT;
	if (f->addr >> (PAGE_SHIFT + 9 * c->root_role.level))
		return MMU_MMIO;
	if (!vcpu->shared && arena_make_room(vm, 2 * MMU_MAX_LEVEL))
		return -ENOMEM;
	sp = root_start(c, f->addr);
	if (!sp || sp->invalid)
		return MMU_RETRY;
	level = slot ? slot_max_level(vm, slot, want.gfn) : 1;
	while (sp->role.level > level) {
		sp = step_direct(vm, sp, f->addr, &want);
		if (!sp)
			return FAULT_EXCLUSIVE;
	}
	if (!slot)
		return map_mmio(vcpu, f, sp, MMU_MAP_ALL);
	r = map_page(vcpu, f, sp, &want);
	if (r == MMU_EMULATE && access_is_user(f->access) && unshadow_for_user(vcpu, want.gfn))
		return MMU_RETRY;
	return r;
}

/* ---- both ---- */

static int fault_locked(struct mmu_vcpu *vcpu, struct mmu_fault *f)
{
	f->gpa = 0;
	f->fixed = f->write_tracked = false;
	if (unlikely(vcpu->ring) && dirty_ring_is_full(vcpu))
		return MMU_RING_FULL;
	/* Somebody zapped the root meanwhile: mmu_load() first. */
	if (__atomic_load_n(&vcpu->need_load, __ATOMIC_RELAXED))
		return MMU_RETRY;
	return vcpu->mmu->ops->page_fault(vcpu, f);
}

static void fault_count(struct mmu_vcpu *vcpu, const struct mmu_fault *f, int result)
{
	/* As KVM counts: those for no memory too, but for what an MMIO entry tells. */
	if (result == MMU_EMULATE || (result == MMU_MMIO && !(f->flags & MMU_PF_RSVD)))
		STAT(vcpu, pf_emulate);
	else if (result == MMU_RETRY && f->fixed)
		STAT(vcpu, pf_fixed);
}

/* A hint, without the lock: may this vCPU's faults be handled beside those of others? */
static bool may_share(const struct mmu_vcpu *vcpu)
{
	union page_role role = {
		.word = __atomic_load_n(&vcpu->mmu->root_role.word, __ATOMIC_RELAXED)};

	return role.direct &&
	       !(__atomic_load_n(&vcpu->vm->disable, __ATOMIC_RELAXED) & MMU_NO_PARALLEL);
}

/* FAULT_EXCLUSIVE: nothing was done but, maybe, tables were made; the lock is wanted for writing.
 */
static int fault_shared(struct mmu_vcpu *vcpu, struct mmu_fault *f)
{
	struct mmu_vm *vm = vcpu->vm;
	int r = FAULT_EXCLUSIVE;

	mmu_lock_shared(vm);
	if (vcpu->mmu->root_role.direct) {
		vcpu->shared = true;
		r = fault_locked(vcpu, f);
		vcpu->shared = false;
	}
	if (r != FAULT_EXCLUSIVE) {
		fault_count(vcpu, f, r);
		if (f->fixed)
			STAT(vcpu, pf_parallel);
		if (unlikely(vm->trace)) {
			/* Events come one at a time, also here. */
			pthread_mutex_lock(&vm->pages_lock);
			trace_fault(vcpu, f, r);
			pthread_mutex_unlock(&vm->pages_lock);
		}
	}
	mmu_unlock(vm);
	return r;
}

int mmu_page_fault(struct mmu_vcpu *vcpu, struct mmu_fault *f)
{
	struct mmu_vm *vm = vcpu->vm;
	int r = FAULT_EXCLUSIVE;

	if (!vcpu->have_regs)
		return -EINVAL;
	STAT(vcpu, pf_taken);
	if (may_share(vcpu))
		r = fault_shared(vcpu, f);
	if (r != FAULT_EXCLUSIVE)
		return r;
	mmu_lock(vm);
	vm->self = vcpu;
	r = fault_locked(vcpu, f);
	fault_count(vcpu, f, r);
	if (unlikely(vm->trace))
		trace_fault(vcpu, f, r);
	batch_commit(vm);
	vm->self = NULL;
	mmu_unlock(vm);
	return r;
}
