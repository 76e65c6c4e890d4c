/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty log: noticed once, told to every client, cleared in two steps. */
#include "mmu/dirty.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mmu/mmu_internal.h"

/* ---- a bitmap that is found through ---- */

int ml_init(struct ml_bitmap *m, uint64_t bits)
{
	uint64_t n = bits, words = 0;
	uint64_t *at;

	memset(m, 0, sizeof(*m));
	m->bits = bits;
	do {
		n = BITMAP_WORDS(n);
		words += n;
		m->levels++;
	} while (n > 1 && m->levels < ML_LEVELS);
	m->size = words * 8;
	at = mmap(NULL, m->size, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED) {
		memset(m, 0, sizeof(*m));
		return -ENOMEM;
	}
	n = bits;
	for (unsigned l = 0; l < m->levels; l++) {
		m->map[l] = at;
		n = BITMAP_WORDS(n);
		at += n;
	}
	return 0;
}

void ml_finish(struct ml_bitmap *m)
{
	if (m->map[0])
		munmap(m->map[0], m->size);
	memset(m, 0, sizeof(*m));
}

/*
 * From the bottom up, and every level each time: a bit at the top may be set in vain, but never is
 * one missing above a set bit once its setter has returned.
 */
void ml_set_atomic(struct ml_bitmap *m, uint64_t bit)
{
	for (unsigned l = 0; l < m->levels; l++) {
		uint64_t *word = &m->map[l][bit / 64], mask = BIT(bit % 64);

		if (!(__atomic_load_n(word, __ATOMIC_SEQ_CST) & mask))
			__atomic_fetch_or(word, mask, __ATOMIC_SEQ_CST);
		bit /= 64;
	}
}

/* Not atomic: the lock is held. Returns whether it was clear. */
static bool ml_set(struct ml_bitmap *m, uint64_t bit)
{
	if (bitmap_test(m->map[0], bit))
		return false;
	for (unsigned l = 0; l < m->levels; l++) {
		bitmap_set(m->map[l], bit);
		bit /= 64;
	}
	return true;
}

static bool ml_clear(struct ml_bitmap *m, uint64_t bit)
{
	if (!bitmap_test(m->map[0], bit))
		return false;
	for (unsigned l = 0; l < m->levels; l++) {
		bitmap_clear(m->map[l], bit);
		if (m->map[l][bit / 64])
			break;
		bit /= 64;
	}
	return true;
}

static uint64_t ml_level_bits(const struct ml_bitmap *m, unsigned level)
{
	uint64_t n = m->bits;

	while (level--)
		n = BITMAP_WORDS(n);
	return n;
}

/* The first set bit at or after @from, or m->bits. */
static uint64_t ml_next(const struct ml_bitmap *m, uint64_t from)
{
	unsigned l = 0;

	/* Up while the rest of the word is empty, down to the first set bit otherwise. */
	while (from < ml_level_bits(m, l)) {
		uint64_t word = m->map[l][from / 64] >> (from % 64);

		if (word) {
			from += (uint64_t)__builtin_ctzll(word);
			if (l == 0)
				return from;
			l--;
			from *= 64;
		} else if (l + 1 < m->levels) {
			l++;
			from = from / 64 + 1;
		} else {
			from = (from | 63) + 1;
		}
	}
	return m->bits;
}

typedef void (*ml_taken)(void *arg, uint64_t word_index, uint64_t word);

static void ml_take_level(struct ml_bitmap *m, unsigned level, uint64_t word_index, ml_taken fn,
			  void *arg)
{
	uint64_t word;

	if (!__atomic_load_n(&m->map[level][word_index], __ATOMIC_SEQ_CST))
		return;
	word = bitmap_take_word_atomic(m->map[level], word_index);
	if (level == 0) {
		fn(arg, word_index, word);
		return;
	}
	for (; word; word &= word - 1)
		ml_take_level(m, level - 1, word_index * 64 + (uint64_t)__builtin_ctzll(word), fn,
			      arg);
}

/* Take all bits, atomically towards setters. */
static void ml_take(struct ml_bitmap *m, ml_taken fn, void *arg)
{
	uint64_t top = BITMAP_WORDS(ml_level_bits(m, m->levels - 1));

	for (uint64_t i = 0; i < top; i++)
		ml_take_level(m, m->levels - 1, i, fn, arg);
}

/* ---- clients ---- */

struct client_slot {
	struct ml_bitmap bits;
	uint64_t count;
};

struct dirty_client {
	struct mmu_vm *vm;
	struct list link;
	char name[32];
	uint32_t flags;
	bool all;			    /* watches what comes, too */
	bool ring;			    /* the vCPUs' rings are its */
	struct client_slot *slot[NR_SLOTS]; /* NULL: not watched */
};

static void lock(struct mmu_vm *vm)
{
	if (__atomic_load_n(&vm->notice, __ATOMIC_RELAXED) == DIRTY_NOTICE_PML &&
	    vm->ops->drain_pml)
		vm->ops->drain_pml(vm->priv);
	pthread_mutex_lock(&vm->lock);
}

static void unlock(struct mmu_vm *vm)
{
	batch_commit(vm);
	pthread_mutex_unlock(&vm->lock);
}

static void client_slot_free(struct client_slot *cs)
{
	if (!cs)
		return;
	ml_finish(&cs->bits);
	free(cs);
}

static struct client_slot *client_slot_new(struct dirty_client *c, const struct memslot *slot)
{
	struct client_slot *cs = calloc(1, sizeof(*cs));

	if (!cs)
		return NULL;
	if (ml_init(&cs->bits, slot->npages)) {
		free(cs);
		return NULL;
	}
	for (uint64_t i = 0; c->flags & DIRTY_INITIALLY_SET && i < slot->npages; i++)
		cs->count += ml_set(&cs->bits, i);
	return cs;
}

/* ---- noticing ---- */

static void ring_push(struct mmu_vcpu *vcpu, const struct memslot *slot, gfn_t gfn)
{
	struct dirty_ring *ring = vcpu->ring;
	uint32_t head = ring->head;

	if (head - __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) == ring->size)
		return; /* cannot be: the vCPU stopped before; the bitmap has it in any case */
	ring->entries[head & (ring->size - 1)] = (struct dirty_ring_entry){
		.slot_id = slot->id,
		.page = gfn - slot->base,
	};
	__atomic_store_n(&ring->head, head + 1, __ATOMIC_RELEASE);
}

void dirty_notice_slow(struct memslot *slot, gfn_t gfn)
{
	ml_set_atomic(&slot->noticed, gfn - slot->base);
}

/* A vCPU made a page writable (the lock is held). */
void dirty_notice_vcpu(struct mmu_vm *vm, struct memslot *slot, gfn_t gfn)
{
	struct mmu_vcpu *vcpu = vm->self;

	dirty_notice_slow(slot, gfn);
	if (vcpu && vcpu->ring)
		ring_push(vcpu, slot, gfn);
}

void dirty_note(struct mmu_vm *vm, gpa_t gpa, uint64_t len)
{
	gfn_t gfn = gpa >> PAGE_SHIFT, last = (gpa + len - 1) >> PAGE_SHIFT;

	if (!len || gpa + len - 1 < gpa)
		return;
	pthread_rwlock_rdlock(&vm->slots_lock);
	for (; gfn <= last; gfn++) {
		struct memslot *slot = slot_of(vm, gfn);

		if (slot)
			dirty_mark(slot, gfn);
	}
	pthread_rwlock_unlock(&vm->slots_lock);
}

void mmu_pml_write(struct mmu_vcpu *vcpu, const gpa_t *gpas, size_t n)
{
	for (size_t i = 0; i < n; i++)
		dirty_note(vcpu->vm, gpas[i], 1);
}

/* ---- collecting ---- */

struct fold {
	struct mmu_vm *vm;
	struct memslot *slot;
};

static void fold_word(void *arg, uint64_t index, uint64_t word)
{
	const struct fold *f = arg;
	struct dirty_client *c;

	list_for_each_entry (c, &f->vm->clients, link) {
		struct client_slot *cs = c->slot[f->slot->id];

		if (!cs)
			continue;
		for (uint64_t w = word; w; w &= w - 1) {
			uint64_t bit = index * 64 + (uint64_t)__builtin_ctzll(w);

			if (bit < f->slot->npages)
				cs->count += ml_set(&cs->bits, bit);
		}
	}
}

/* What was noticed goes to every client. */
static void fold_slot(struct mmu_vm *vm, struct memslot *slot)
{
	struct fold f = {.vm = vm, .slot = slot};

	ml_take(&slot->noticed, fold_word, &f);
	for (uint64_t i = 0; slot->shared && i < BITMAP_WORDS(slot->npages); i++) {
		if (__atomic_load_n(&slot->shared[i], __ATOMIC_RELAXED))
			fold_word(&f, i, bitmap_take_word_atomic(slot->shared, i));
	}
}

/* Is the page dirty for every client that watches it (audit)? */
bool dirty_is_known(const struct mmu_vm *vm, const struct memslot *slot, gfn_t gfn)
{
	const struct dirty_client *c;

	if (bitmap_test(slot->noticed.map[0], gfn - slot->base))
		return true;
	list_for_each_entry (c, &vm->clients, link) {
		const struct client_slot *cs = c->slot[slot->id];

		if (cs && !bitmap_test(cs->bits.map[0], gfn - slot->base))
			return false;
	}
	return true;
}

/* ---- protecting ---- */

/* What a write through @spte must first be seen by; whether it changed. */
static bool spte_protect(struct mmu_vm *vm, struct shadow_page *sp, uint64_t *spte)
{
	uint64_t old = spte_read(spte), gone = SPTE_W;

	if (vm->notice == DIRTY_NOTICE_PML && sp->role.format == MMU_FORMAT_EPT &&
	    sp->role.level == 1)
		gone = EPT_D;
	if (!(old & SPTE_W) || !(old & gone))
		return false;
	/* The processor may be setting D. */
	__atomic_fetch_and(spte, ~gone, __ATOMIC_SEQ_CST);
	batch_frames(vm, sp->users, spte_pfn(old), level_pages(sp->role.level));
	return true;
}

static void protect_page(struct mmu_vm *vm, struct memslot *slot, gfn_t gfn)
{
	for (unsigned level = 1; level <= NR_LEVELS; level++) {
		struct rmap_head *head = slot_rmap(slot, gfn, level);
		uint32_t id, next;

		rmap_for_each(vm, head, id, next)
		{
			if (spte_protect(vm, sp_of_id(vm, id), spte_of_id(vm, id)))
				STAT(vm, dirty_protected);
		}
	}
}

/* All of a slot: by our tables, which are bounded, not by its size. */
static void protect_slot(struct mmu_vm *vm, const struct memslot *slot)
{
	struct shadow_page *sp;

	list_for_each_entry (sp, &vm->active, lru) {
		for (unsigned i = 0; sp->present && i < PT_ENTRIES; i++) {
			uint64_t *spte = &sp_table(vm, sp)[i], v = spte_read(spte);

			if (spte_is_present(v, sp->role.format) &&
			    spte_is_leaf(v, sp->role.level) &&
			    sp_gfn(vm, sp, i) - slot->base < slot->npages)
				spte_protect(vm, sp, spte);
		}
	}
}

/* Small pages that only the log kept small go; larger ones come by the next faults. */
static void collapse_slot(struct mmu_vm *vm, const struct memslot *slot)
{
	struct shadow_page *sp, *tmp;

	if (vm->disable & MMU_NO_COLLAPSE)
		return;
	list_for_each_entry_safe (sp, tmp, &vm->active, lru) {
		if (!sp->role.direct || sp->role.level != 1 || sp->root_count ||
		    sp->gfn - slot->base >= slot->npages || slot_max_level(vm, slot, sp->gfn) == 1)
			continue;
		STAT(vm, lpages_collapsed);
		sp_zap(vm, sp);
	}
}

/* ---- watching ---- */

static int watch_slot(struct dirty_client *c, struct memslot *slot)
{
	struct mmu_vm *vm = c->vm;
	struct client_slot *cs;

	if (c->slot[slot->id])
		return 0;
	cs = client_slot_new(c, slot);
	if (!cs)
		return -ENOMEM;
	fold_slot(vm, slot); /* what happened before is not this client's */
	__atomic_fetch_add(&slot->watchers, 1, __ATOMIC_SEQ_CST);
	if (!(c->flags & DIRTY_INITIALLY_SET))
		protect_slot(vm, slot);
	c->slot[slot->id] = cs;
	return 0;
}

static void unwatch_slot(struct dirty_client *c, struct memslot *slot)
{
	struct mmu_vm *vm = c->vm;

	if (!c->slot[slot->id])
		return;
	client_slot_free(c->slot[slot->id]);
	c->slot[slot->id] = NULL;
	if (__atomic_sub_fetch(&slot->watchers, 1, __ATOMIC_SEQ_CST) == 0)
		collapse_slot(vm, slot);
}

int dirty_slot_added(struct mmu_vm *vm, struct memslot *slot)
{
	struct dirty_client *c;
	int r = 0;

	list_for_each_entry (c, &vm->clients, link) {
		if (c->all && !r)
			r = watch_slot(c, slot);
	}
	if (r)
		dirty_slot_removed(vm, slot);
	return r;
}

void dirty_slot_removed(struct mmu_vm *vm, struct memslot *slot)
{
	struct dirty_client *c;

	list_for_each_entry (c, &vm->clients, link) {
		client_slot_free(c->slot[slot->id]);
		c->slot[slot->id] = NULL;
	}
}

static int watch(struct dirty_client *c, uint32_t slot_id, bool on)
{
	struct mmu_vm *vm = c->vm;
	int r = 0;

	if (slot_id != DIRTY_ALL_SLOTS && (slot_id > SLOT_MAX_ID || !vm->by_id[slot_id]))
		return -ENOENT;
	if (slot_id == DIRTY_ALL_SLOTS)
		c->all = on;
	for (uint32_t i = 0; i < vm->nr_slots && !r; i++) {
		struct memslot *slot = vm->sorted[i];

		if (slot_id != DIRTY_ALL_SLOTS && slot->id != slot_id)
			continue;
		if (on)
			r = watch_slot(c, slot);
		else
			unwatch_slot(c, slot);
	}
	return r;
}

int dirty_client_watch(struct dirty_client *c, uint32_t slot_id)
{
	int r;

	lock(c->vm);
	r = watch(c, slot_id, true);
	unlock(c->vm);
	return r;
}

int dirty_client_unwatch(struct dirty_client *c, uint32_t slot_id)
{
	int r;

	lock(c->vm);
	r = watch(c, slot_id, false);
	unlock(c->vm);
	return r;
}

int dirty_client_create(struct mmu_vm *vm, const char *name, uint32_t flags,
			struct dirty_client **ret_client)
{
	struct dirty_client *c, *other;
	bool taken = false;

	if (!*name || strlen(name) >= sizeof(c->name) || flags & ~(uint32_t)DIRTY_INITIALLY_SET)
		return -EINVAL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->vm = vm;
	c->flags = flags;
	strcpy(c->name, name);
	pthread_mutex_lock(&vm->lock);
	list_for_each_entry (other, &vm->clients, link)
		taken |= !strcmp(other->name, name);
	if (!taken)
		list_add_tail(&vm->clients, &c->link);
	pthread_mutex_unlock(&vm->lock);
	if (taken) {
		free(c);
		return -EEXIST;
	}
	*ret_client = c;
	return 0;
}

void dirty_client_destroy(struct dirty_client *c)
{
	struct mmu_vm *vm;

	if (!c)
		return;
	vm = c->vm;
	if (c->ring)
		dirty_ring_enable(c, 0);
	lock(vm);
	watch(c, DIRTY_ALL_SLOTS, false);
	list_del(&c->link);
	unlock(vm);
	free(c);
}

const char *dirty_client_name(const struct dirty_client *c)
{
	return c->name;
}

/* ---- the two steps ---- */

/* The watched slot, or NULL and *@ret. */
static struct memslot *client_range(struct dirty_client *c, uint32_t slot_id, uint64_t first,
				    uint64_t npages, int *ret)
{
	struct memslot *slot = slot_id <= SLOT_MAX_ID ? c->vm->by_id[slot_id] : NULL;

	*ret = 0;
	if (!slot || !c->slot[slot_id])
		*ret = -ENOENT;
	else if (first > slot->npages || npages > slot->npages - first)
		*ret = -EINVAL;
	return *ret ? NULL : slot;
}

int dirty_get(struct dirty_client *c, uint32_t slot_id, uint64_t first, uint64_t npages,
	      uint64_t *bits)
{
	struct memslot *slot;
	int r;

	lock(c->vm);
	slot = client_range(c, slot_id, first, npages, &r);
	if (slot) {
		const struct ml_bitmap *m = &c->slot[slot_id]->bits;

		fold_slot(c->vm, slot);
		memset(bits, 0, BITMAP_WORDS(npages) * 8);
		for (uint64_t i = ml_next(m, first); i < first + npages; i = ml_next(m, i + 1))
			bitmap_set(bits, i - first);
	}
	unlock(c->vm);
	return r;
}

/* Protect first, and flush; only then collect and forget: so no write falls between. */
int dirty_clear(struct dirty_client *c, uint32_t slot_id, uint64_t first, uint64_t npages,
		const uint64_t *bits)
{
	struct mmu_vm *vm = c->vm;
	struct memslot *slot;
	uint64_t i;
	int r;

	lock(vm);
	slot = client_range(c, slot_id, first, npages, &r);
	if (slot) {
		struct client_slot *cs = c->slot[slot_id];

		bitmap_for_each (i, bits, npages)
			protect_page(vm, slot, slot->base + first + i);
		batch_commit(vm);
		fold_slot(vm, slot);
		bitmap_for_each (i, bits, npages)
			cs->count -= ml_clear(&cs->bits, first + i);
	}
	unlock(vm);
	return r;
}

ssize_t dirty_take(struct dirty_client *c, gfn_t *gfns, size_t max)
{
	struct mmu_vm *vm = c->vm;
	size_t n = 0;

	lock(vm);
	for (uint32_t s = 0; s < vm->nr_slots; s++) {
		struct memslot *slot = vm->sorted[s];
		struct client_slot *cs = c->slot[slot->id];
		size_t from = n;

		if (!cs)
			continue;
		fold_slot(vm, slot);
		for (uint64_t i = ml_next(&cs->bits, 0); i < slot->npages && n < max;
		     i = ml_next(&cs->bits, i + 1)) {
			gfns[n++] = slot->base + i;
			protect_page(vm, slot, slot->base + i);
		}
		batch_commit(vm);
		for (size_t i = from; i < n; i++)
			cs->count -= ml_clear(&cs->bits, gfns[i] - slot->base);
	}
	unlock(vm);
	return (ssize_t)n;
}

uint64_t dirty_count(struct dirty_client *c)
{
	struct mmu_vm *vm = c->vm;
	uint64_t count = 0;

	lock(vm);
	for (uint32_t s = 0; s < vm->nr_slots; s++) {
		if (!c->slot[vm->sorted[s]->id])
			continue;
		fold_slot(vm, vm->sorted[s]);
		count += c->slot[vm->sorted[s]->id]->count;
	}
	unlock(vm);
	return count;
}

int dirty_share_bitmap(struct mmu_vm *vm, uint32_t slot_id, uint64_t *map)
{
	int r = 0;

	lock(vm);
	if (slot_id > SLOT_MAX_ID || !vm->by_id[slot_id]) {
		r = -ENOENT;
	} else {
		fold_slot(vm, vm->by_id[slot_id]);
		vm->by_id[slot_id]->shared = map;
	}
	unlock(vm);
	return r;
}

int dirty_set_notice(struct mmu_vm *vm, enum dirty_notice how)
{
	int r = 0;

	if (how > DIRTY_NOTICE_PML)
		return -EINVAL;
	lock(vm);
	if (how == DIRTY_NOTICE_PML && (vm->policy != MMU_POLICY_TDP ||
					vm->tdp_format != MMU_FORMAT_EPT || !vm->ops->drain_pml)) {
		r = -EOPNOTSUPP;
	} else if (vm->notice != how) {
		__atomic_store_n(&vm->notice, how, __ATOMIC_RELAXED);
		/* Logged pages that are clean are to be noticed by the new way. */
		for (uint32_t i = 0; i < vm->nr_slots; i++) {
			if (slot_is_logged(vm->sorted[i]))
				protect_slot(vm, vm->sorted[i]);
		}
	}
	unlock(vm);
	return r;
}

/* ---- rings ---- */

void dirty_ring_free(struct dirty_ring *ring)
{
	if (!ring)
		return;
	free(ring->entries);
	free(ring);
}

static struct dirty_ring *ring_new(uint32_t size)
{
	struct dirty_ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return NULL;
	ring->size = size;
	ring->entries = calloc(size, sizeof(*ring->entries));
	if (!ring->entries) {
		free(ring);
		return NULL;
	}
	return ring;
}

static void rings_remove(struct mmu_vm *vm)
{
	struct mmu_vcpu *vcpu;

	list_for_each_entry (vcpu, &vm->vcpus, link) {
		dirty_ring_free(vcpu->ring);
		vcpu->ring = NULL;
	}
}

int dirty_ring_enable(struct dirty_client *c, uint32_t size)
{
	struct mmu_vm *vm = c->vm;
	struct mmu_vcpu *vcpu;
	struct dirty_client *o;
	int r = 0;

	if (size && (size < 64 || size > 65536 || size & (size - 1)))
		return -EINVAL;
	lock(vm);
	list_for_each_entry (o, &vm->clients, link) {
		if (o->ring && o != c)
			r = -EBUSY;
	}
	if (r || (!size && !c->ring))
		goto out;
	rings_remove(vm);
	c->ring = size;
	if (!size)
		goto out;
	list_for_each_entry (vcpu, &vm->vcpus, link) {
		vcpu->ring = ring_new(size);
		if (!vcpu->ring)
			r = -ENOMEM;
	}
	if (r) {
		rings_remove(vm);
		c->ring = false;
	}
out:
	unlock(vm);
	return r;
}

struct dirty_ring *dirty_ring_get(struct mmu_vcpu *vcpu)
{
	return vcpu->ring;
}

bool dirty_ring_is_full(const struct mmu_vcpu *vcpu)
{
	const struct dirty_ring *ring = vcpu->ring;

	/* One fault notes its page and at most a few tables' pages. */
	return ring &&
	       ring->head - __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) > ring->size - 32;
}

static void ring_reset(struct dirty_client *c, struct dirty_ring *ring)
{
	struct mmu_vm *vm = c->vm;
	uint32_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);

	for (; ring->reset != tail; ring->reset++) {
		const struct dirty_ring_entry *e = &ring->entries[ring->reset & (ring->size - 1)];
		struct memslot *slot = e->slot_id <= SLOT_MAX_ID ? vm->by_id[e->slot_id] : NULL;

		if (!slot || e->page >= slot->npages)
			continue; /* the slot went meanwhile */
		protect_page(vm, slot, slot->base + e->page);
		if (c->slot[e->slot_id])
			c->slot[e->slot_id]->count -= ml_clear(&c->slot[e->slot_id]->bits, e->page);
	}
}

int dirty_ring_reset(struct dirty_client *c)
{
	struct mmu_vm *vm = c->vm;
	struct mmu_vcpu *vcpu;

	if (!c->ring)
		return -EINVAL;
	lock(vm);
	for (uint32_t s = 0; s < vm->nr_slots; s++)
		fold_slot(vm, vm->sorted[s]);
	list_for_each_entry (vcpu, &vm->vcpus, link) {
		if (vcpu->ring)
			ring_reset(c, vcpu->ring);
	}
	unlock(vm);
	return 0;
}
