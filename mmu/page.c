/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shadow pages: their arena, hash, links, reverse map, reclaim, and the flushes that changes need.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mmu/mmu_internal.h"

/* ---- arena ---- */

#define BLOCK_BYTES (3 * PAGE_SIZE + sizeof(struct shadow_page) + sizeof(uint32_t))
#define MIN_BLOCKS  64u
#define MAX_BLOCKS  (1u << 22) /* so that every spte's id fits 32 bits */

static uint32_t hash_size(uint32_t blocks)
{
	uint32_t size = 256;

	while (size < blocks)
		size *= 2;
	return size;
}

int arena_init(struct mmu_vm *vm, uint64_t bytes)
{
	struct arena *a = &vm->arena;
	uint64_t n = bytes / BLOCK_BYTES, at;

	n = MAX(n, (uint64_t)MIN_BLOCKS);
	n = MIN(n, (uint64_t)MAX_BLOCKS);
	a->bound = (uint32_t)n;
	/* Only address space: pages that are never used are never there. */
	n = MIN(n * MMU_RECLAIM_LIFT, (uint64_t)MAX_BLOCKS);
	a->nr_blocks = (uint32_t)n;
	at = 3 * n * PAGE_SIZE;
	a->map_size = at + n * sizeof(struct shadow_page) + n * sizeof(uint32_t);
	a->map = mmap(NULL, a->map_size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (a->map == MAP_FAILED) {
		a->map = NULL;
		return -ENOMEM;
	}
	a->tables = a->map;
	a->gfns = (void *)((char *)a->map + n * PAGE_SIZE);
	a->links = (void *)((char *)a->map + 2 * n * PAGE_SIZE);
	a->pages = (void *)((char *)a->map + at);
	a->free_stack = (void *)(a->pages + n);

	vm->hash_mask = hash_size(a->bound) - 1;
	vm->hash = malloc((vm->hash_mask + 1) * sizeof(*vm->hash));
	if (!vm->hash)
		return -ENOMEM;
	for (uint32_t i = 0; i <= vm->hash_mask; i++)
		list_init(&vm->hash[i]);
	return 0;
}

void arena_finish(struct mmu_vm *vm)
{
	free(vm->hash);
	if (vm->arena.map)
		munmap(vm->arena.map, vm->arena.map_size);
}

uint32_t arena_free_blocks(const struct mmu_vm *vm)
{
	const struct arena *a = &vm->arena;
	uint32_t bound = vm->disable & MMU_NO_RECLAIM ? a->nr_blocks : a->bound;

	return bound > a->nr_used ? bound - a->nr_used : 0;
}

static struct shadow_page *block_alloc(struct mmu_vm *vm)
{
	struct arena *a = &vm->arena;
	struct shadow_page *sp;
	uint32_t n;

	assert(arena_free_blocks(vm));
	n = a->free_count ? a->free_stack[--a->free_count] : a->nr_touched++;
	a->nr_used++;
	sp = &a->pages[n];
	memset(sp, 0, sizeof(*sp));
	sp->used = true;
	list_init(&sp->lru);
	list_init(&sp->hash);
	STAT_N(vm, mmu_table_pages, 1);
	return sp;
}

/* Its table must be empty and out of every TLB. */
static void block_free(struct mmu_vm *vm, struct shadow_page *sp)
{
	struct arena *a = &vm->arena;

	sp->used = false;
	a->free_stack[a->free_count++] = sp_block(vm, sp);
	a->nr_used--;
	STAT_N(vm, mmu_table_pages, -1);
}

/* ---- flushes ---- */

void batch_frames(struct mmu_vm *vm, uint64_t users, pfn_t pfn, uint64_t count)
{
	struct flush_batch *b = &vm->batch;

	assert(vm->exclusive);
	b->vcpus |= users;
	if (b->all)
		return;
	for (unsigned i = 0; i < b->n; i++) {
		if (pfn - b->frame[i].pfn < b->frame[i].count)
			return;
	}
	if (b->n == BATCH_FRAMES) {
		b->all = true;
		return;
	}
	b->frame[b->n].pfn = pfn;
	b->frame[b->n++].count = count;
}

void batch_all(struct mmu_vm *vm, uint64_t users)
{
	vm->batch.vcpus |= users;
	vm->batch.all = true;
}

static void batch_flush(struct mmu_vm *vm)
{
	struct flush_batch b = vm->batch;
	struct mmu_flush f = {.kind = MMU_FLUSH_ALL, .vcpus = b.vcpus};

	memset(&vm->batch, 0, sizeof(vm->batch));
	if (!b.vcpus)
		return;
	STAT(vm, remote_tlb_flush_requests);
	if (vm->disable & MMU_NO_TARGETED)
		f.vcpus = MMU_VCPUS_ALL;
	else
		STAT(vm, targeted_tlb_flush);
	if (b.all) {
		STAT(vm, remote_tlb_flush);
		vm->ops->flush_tlb(vm->priv, &f);
		return;
	}
	f.kind = MMU_FLUSH_FRAMES;
	for (unsigned i = 0; i < b.n; i++) {
		f.pfn = b.frame[i].pfn;
		f.count = b.frame[i].count;
		STAT(vm, remote_tlb_flush);
		vm->ops->flush_tlb(vm->priv, &f);
	}
}

void batch_commit(struct mmu_vm *vm)
{
	struct shadow_page *sp, *tmp;

	if (vm->batch.vcpus)
		batch_flush(vm);
	else if (vm->batch.all || vm->batch.n)
		memset(&vm->batch, 0, sizeof(vm->batch));
	list_for_each_entry_safe (sp, tmp, &vm->pending, lru) {
		list_del(&sp->lru);
		block_free(vm, sp);
	}
}

/* ---- reverse map ---- */

void rmap_add(struct mmu_vm *vm, struct rmap_head *head, uint32_t id)
{
	struct rmap_link *link = link_of_id(vm, id);

	link->prev = 0;
	link->next = head->first;
	if (head->first)
		link_of_id(vm, head->first)->prev = id;
	head->first = id;
	head->count++;
	if (head->count > vm->stats.max_mmu_rmap_size)
		stat_peak(&vm->stats.max_mmu_rmap_size, head->count);
}

void rmap_remove(struct mmu_vm *vm, struct rmap_head *head, uint32_t id)
{
	struct rmap_link *link = link_of_id(vm, id);

	if (link->prev)
		link_of_id(vm, link->prev)->next = link->next;
	else
		head->first = link->next;
	if (link->next)
		link_of_id(vm, link->next)->prev = link->prev;
	head->count--;
}

static uint64_t *stat_pages(struct mmu_vm *vm, unsigned level)
{
	return level == 1   ? &vm->stats.pages_4k
	       : level == 2 ? &vm->stats.pages_2m
			    : &vm->stats.pages_1g;
}

void sp_account_leaves(struct mmu_vm *vm, struct shadow_page *sp, const struct memslot *slot,
		       unsigned n)
{
	uint64_t slot_bit = BIT(slot->id % 64);

	if (!(__atomic_load_n(&sp->slots, __ATOMIC_RELAXED) & slot_bit))
		__atomic_fetch_or(&sp->slots, slot_bit, __ATOMIC_RELAXED);
	__atomic_fetch_add(&sp->present, n, __ATOMIC_RELAXED);
	stat_add_shared(stat_pages(vm, sp->role.level), n);
}

void spte_account_leaf(struct mmu_vm *vm, struct shadow_page *sp, unsigned i,
		       const struct spte_want *want)
{
	if (!sp->role.direct)
		vm->arena.gfns[sp_block(vm, sp)][i] = want->gfn;
	sp_account_leaves(vm, sp, want->slot, 1);
	/*
	 * Faults that share the lock need none here: they map a frame in one place only (direct
	 * pages of one role), which one of them filled.
	 */
	rmap_add(vm, slot_rmap(want->slot, want->gfn, sp->role.level), spte_id(vm, sp, i));
}

/* Entry @i is no leaf any more. */
static void leaf_forget(struct mmu_vm *vm, struct shadow_page *sp, unsigned i, uint64_t old)
{
	gfn_t gfn = sp_gfn(vm, sp, i);

	rmap_remove(vm, slot_rmap(slot_of(vm, gfn), gfn, sp->role.level), spte_id(vm, sp, i));
	stat_add(stat_pages(vm, sp->role.level), -1);
	batch_frames(vm, sp->users, spte_pfn(old), level_pages(sp->role.level));
}

void spte_zap(struct mmu_vm *vm, struct shadow_page *sp, unsigned i)
{
	uint64_t *spte = &sp_table(vm, sp)[i];
	uint64_t old = spte_read(spte);

	if (!old)
		return;
	assert(vm->exclusive);
	spte_write(spte, 0);
	sp->present--;
	if (spte_is_mmio(old))
		return;
	if (spte_is_leaf(old, sp->role.level)) {
		leaf_forget(vm, sp, i, old);
		return;
	}
	/* A child that nobody leads to any more stays in the hash for the next who asks. */
	rmap_remove(vm, &sp_of_hpa(vm, old & SPTE_FRAME)->parents, spte_id(vm, sp, i));
	if (bitmap_test(sp->unsync_bitmap, i)) {
		bitmap_clear(sp->unsync_bitmap, i);
		sp->unsync_children--;
	}
	batch_all(vm, sp->users);
}

void rmap_zap(struct mmu_vm *vm, struct rmap_head *head)
{
	while (head->first)
		spte_zap(vm, sp_of_id(vm, head->first), (head->first - 1) % PT_ENTRIES);
}

static bool rmap_protect_level(struct mmu_vm *vm, struct memslot *slot, gfn_t gfn, unsigned level)
{
	struct rmap_head *head = slot_rmap(slot, gfn, level);
	uint32_t id, next;
	bool found = false;

	rmap_for_each(vm, head, id, next)
	{
		uint64_t *spte = spte_of_id(vm, id);
		uint64_t old = spte_read(spte);

		if (!(old & SPTE_W))
			continue;
		spte_write(spte, old & ~SPTE_W);
		batch_frames(vm, sp_of_id(vm, id)->users, spte_pfn(old), level_pages(level));
		found = true;
	}
	return found;
}

bool rmap_write_protect(struct mmu_vm *vm, struct memslot *slot, gfn_t gfn)
{
	bool found = false;

	for (unsigned level = 1; level <= NR_LEVELS; level++)
		found |= rmap_protect_level(vm, slot, gfn, level);
	return found;
}

/* ---- shadow pages ---- */

struct list *sp_hash_head(struct mmu_vm *vm, gfn_t gfn)
{
	return &vm->hash[(gfn * 0x9e3779b97f4a7c15ull >> 32) & vm->hash_mask];
}

void sp_add_users(struct mmu_vm *vm, struct shadow_page *sp, uint64_t users)
{
	if (!(users & ~sp->users))
		return;
	/* Set first: a page that leads to itself ends the descent. */
	sp->users |= users;
	if (sp->role.level == 1 || !__atomic_load_n(&sp->present, __ATOMIC_RELAXED))
		return;
	for (unsigned i = 0; i < PT_ENTRIES; i++) {
		uint64_t spte = spte_read(&sp_table(vm, sp)[i]);

		if (spte_is_present(spte, sp->role.format) && !spte_is_leaf(spte, sp->role.level))
			sp_add_users(vm, sp_of_hpa(vm, spte & SPTE_FRAME), users);
	}
}

static struct shadow_page *sp_find(struct mmu_vm *vm, gfn_t gfn, union page_role role)
{
	struct shadow_page *sp, *tmp, *found = NULL;
	unsigned collisions = 0;

	list_for_each_entry_safe (sp, tmp, sp_hash_head(vm, gfn), hash) {
		if (sp->gfn != gfn) {
			collisions++;
			continue;
		}
		if (sp->role.word == role.word) {
			found = sp;
			continue;
		}
		/* The frame is about to be a higher table: what let it be written unseen must go.
		 */
		if (!role.direct && role.level > 1 && !sp->role.direct && sp->unsync)
			sp_zap(vm, sp);
	}
	stat_peak(&vm->stats.max_mmu_page_hash_collisions, collisions);
	return found;
}

static struct shadow_page *sp_create(struct mmu_vm *vm, gfn_t gfn, union page_role role)
{
	struct shadow_page *sp = block_alloc(vm);

	memset(sp_table(vm, sp), 0, PAGE_SIZE);
	sp->gfn = gfn;
	sp->role = role;
	list_add(&vm->active, &sp->lru);
	list_add(sp_hash_head(vm, gfn), &sp->hash);
	STAT(vm, mmu_cache_miss);
	STAT_N(vm, mmu_pages, 1);
	if (!role.direct) {
		struct memslot *slot = slot_of(vm, gfn);

		slot_account_shadow(slot, gfn, role.level, 1);
		rmap_write_protect(vm, slot, gfn);
		/* Also for entries that let it be written and were zapped in this batch. */
		batch_commit(vm);
	}
	return sp;
}

struct shadow_page *sp_get(struct mmu_vm *vm, gfn_t gfn, union page_role role)
{
	struct shadow_page *sp = sp_find(vm, gfn, role);

	if (!sp)
		return sp_create(vm, gfn, role);
	list_del(&sp->lru);
	list_add(&vm->active, &sp->lru);
	sp->flood = 0;
	/*
	 * A new way leads to an unsynced page: no processor could have its stale entries by that
	 * way. They are made right, but the page stays writable. The same for pages below.
	 */
	if (sp->unsync)
		sync_entries(vm, sp);
	else if (sp->unsync_children)
		sync_below(vm, sp);
	return sp;
}

static void link_child(struct mmu_vm *vm, struct shadow_page *parent, unsigned i,
		       struct shadow_page *child)
{
	rmap_add(vm, &child->parents, spte_id(vm, parent, i));
	sp_add_users(vm, child, parent->users);
	spte_write(&sp_table(vm, parent)[i],
		   spte_make_table(parent->role.format, sp_hpa(vm, child)));
	if (child->unsync || child->unsync_children)
		sync_mark_parents(vm, child);
}

void sp_link(struct mmu_vm *vm, struct shadow_page *parent, unsigned i, struct shadow_page *child)
{
	assert(!spte_read(&sp_table(vm, parent)[i]));
	__atomic_fetch_add(&parent->present, 1, __ATOMIC_RELAXED);
	link_child(vm, parent, i, child);
}

void sp_replace_leaf(struct mmu_vm *vm, struct shadow_page *parent, unsigned i,
		     struct shadow_page *child)
{
	leaf_forget(vm, parent, i, spte_read(&sp_table(vm, parent)[i]));
	link_child(vm, parent, i, child);
}

/*
 * The vCPUs whose current root this is must ask for another one. The page is empty, and flushed
 * before the lock is dropped: the next access by it faults, so nobody has to be kicked.
 */
static void sp_expel(struct mmu_vm *vm, struct shadow_page *sp)
{
	struct mmu_vcpu *vcpu;

	list_for_each_entry (vcpu, &vm->vcpus, link) {
		const struct vcpu_root *r = &vcpu->mmu->root;
		bool hit = r->sp == sp;

		for (unsigned i = 0; r->frame && i < 4; i++)
			hit |= r->pd[i] == sp;
		if (r->valid && hit)
			__atomic_store_n(&vcpu->need_load, true, __ATOMIC_SEQ_CST);
	}
}

void sp_zap(struct mmu_vm *vm, struct shadow_page *sp)
{
	if (sp->invalid)
		return;
	STAT(vm, mmu_shadow_zapped);
	STAT_N(vm, mmu_pages, -1);
	for (unsigned i = 0; sp->present && i < PT_ENTRIES; i++)
		spte_zap(vm, sp, i);
	rmap_zap(vm, &sp->parents);
	if (sp->unsync)
		sync_forget(vm, sp);
	if (!sp->role.direct)
		slot_account_shadow(slot_of(vm, sp->gfn), sp->gfn, sp->role.level, -1);
	list_del(&sp->hash);
	list_del(&sp->lru);
	/* A processor that remembers the table itself came by an entry that was just zapped. */
	if (sp->root_count) {
		sp->invalid = true;
		list_add(&vm->zombies, &sp->lru);
		sp_expel(vm, sp);
	} else {
		list_add(&vm->pending, &sp->lru);
	}
}

void sp_put_root(struct mmu_vm *vm, struct shadow_page *sp)
{
	assert(sp->root_count);
	if (--sp->root_count || !sp->invalid)
		return;
	list_del(&sp->lru);
	/* Empty, and out of every TLB, since it was zapped. */
	list_add(&vm->pending, &sp->lru);
}

unsigned sp_unshadow(struct mmu_vm *vm, gfn_t gfn)
{
	struct shadow_page *sp, *tmp;
	unsigned n = 0;

	for_each_shadow_safe(vm, sp, tmp, gfn)
	{
		sp_zap(vm, sp);
		n++;
	}
	return n;
}

/* ---- room ---- */

#define RECLAIM_BATCH 32u

/* Zap pages from the oldest on, roots in use spared; how many. */
static unsigned reclaim(struct mmu_vm *vm, unsigned want)
{
	struct list *at = vm->active.prev;
	unsigned n = 0;

	while (at != &vm->active && n < want) {
		struct shadow_page *sp = list_entry(at, struct shadow_page, lru);

		at = at->prev;
		if (sp->root_count)
			continue;
		sp_zap(vm, sp);
		n++;
	}
	STAT_N(vm, mmu_recycled, n);
	batch_commit(vm);
	return n;
}

int arena_make_room(struct mmu_vm *vm, unsigned blocks)
{
	struct mmu_vcpu *vcpu;

	if (likely(arena_free_blocks(vm) >= blocks))
		return 0;
	reclaim(vm, MAX(blocks, RECLAIM_BATCH));
	if (arena_free_blocks(vm) >= blocks)
		return 0;
	/* What is left are roots: those that are only cached can go. */
	list_for_each_entry (vcpu, &vm->vcpus, link) {
		roots_drop(vcpu, &vcpu->root_mmu, true);
		roots_drop(vcpu, &vcpu->guest_mmu, true);
	}
	reclaim(vm, MAX(blocks, RECLAIM_BATCH));
	return arena_free_blocks(vm) >= blocks ? 0 : -ENOMEM;
}

struct shadow_page *frame_alloc(struct mmu_vm *vm)
{
	struct shadow_page *sp = block_alloc(vm);

	memset(sp_table(vm, sp), 0, PAGE_SIZE);
	sp->frame = true;
	return sp;
}

void frame_free(struct mmu_vm *vm, struct shadow_page *sp)
{
	/* Its entries are no business of the reverse map; the vCPU may remember the table. */
	batch_all(vm, sp->users);
	list_add(&vm->pending, &sp->lru);
}
