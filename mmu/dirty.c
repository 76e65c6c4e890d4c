/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty log: noticed once, told to every client, cleared in two steps. */
#include "mmu/dirty.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/dirty_internal.h"

/* Words looked through for one hold of the lock: faults wait no longer than for that. */
#define BATCH_WORDS 16384u

static void drain(struct mmu_vm *vm)
{
	if ((__atomic_load_n(&vm->pml, __ATOMIC_RELAXED) ||
	     mmu_get_policy(vm) == MMU_POLICY_KERNEL) &&
	    vm->ops->drain_pml)
		vm->ops->drain_pml(vm->priv);
}

void dirty_lock(struct mmu_vm *vm)
{
	drain(vm);
	mmu_lock(vm);
}

void dirty_unlock(struct mmu_vm *vm)
{
	batch_commit(vm);
	mmu_unlock(vm);
}

/* ---- noticing ---- */

void dirty_notice_slow(struct mmu_vcpu *by, struct memslot *slot, gfn_t gfn)
{
	bool fresh = ml_set_atomic(&slot->noticed, gfn - slot->base);

	if (!by)
		return;
	if (fresh)
		stat_add_shared(&by->stats.dirty_noticed, 1);
	if (unlikely(by->ring))
		dirty_ring_push(by, slot, gfn);
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
			dirty_mark(NULL, slot, gfn);
	}
	pthread_rwlock_unlock(&vm->slots_lock);
}

void mmu_pml_write(struct mmu_vcpu *vcpu, const gpa_t *gpas, size_t n)
{
	struct mmu_vm *vm = vcpu->vm;

	pthread_rwlock_rdlock(&vm->slots_lock);
	for (size_t i = 0; i < n; i++) {
		struct memslot *slot = slot_of(vm, gpas[i] >> PAGE_SHIFT);

		if (slot)
			dirty_mark(vcpu, slot, gpas[i] >> PAGE_SHIFT);
	}
	pthread_rwlock_unlock(&vm->slots_lock);
}

void mmu_kernel_log(struct mmu_vcpu *vcpu, const struct dirty_ring_entry *pages, size_t n)
{
	struct mmu_vm *vm = vcpu->vm;

	pthread_rwlock_rdlock(&vm->slots_lock);
	for (size_t i = 0; i < n; i++) {
		uint32_t id = pages[i].slot_id;
		struct memslot *slot = id <= SLOT_MAX_ID ? vm->by_id[id] : NULL;

		if (slot && pages[i].page < slot->npages)
			dirty_mark(vcpu, slot, slot->base + pages[i].page);
	}
	pthread_rwlock_unlock(&vm->slots_lock);
}

/* ---- collecting ---- */

struct fold {
	struct mmu_vm *vm;
	const struct memslot *slot;
};

static void fold_word(void *arg, uint64_t index, uint64_t word)
{
	const struct fold *f = arg;
	struct dirty_client *c;

	list_for_each_entry (c, &f->vm->clients, link) {
		struct client_slot *cs = c->slot[f->slot->id];

		if (cs)
			cs->count += ml_or(&cs->bits, index, word);
	}
}

/* What is in the words [@from, @to) of a map shared with a writer outside. */
static void fold_shared(struct mmu_vm *vm, const struct memslot *slot, uint64_t from, uint64_t to)
{
	struct fold f = {.vm = vm, .slot = slot};

	for (uint64_t i = from; slot->shared && i < to; i++) {
		if (__atomic_load_n(&slot->shared[i], __ATOMIC_RELAXED))
			fold_word(&f, i, bitmap_take_word_atomic(slot->shared, i));
	}
}

static uint64_t slot_words(const struct memslot *slot)
{
	return BITMAP_WORDS(slot->npages);
}

/* The summary is taken first: its writer set the map before it. */
static void fold_summary(struct mmu_vm *vm, const struct memslot *slot)
{
	uint64_t words = slot_words(slot);

	for (uint64_t i = 0; slot->shared_summary && i < BITMAP_WORDS(words); i++) {
		uint64_t word = __atomic_load_n(&slot->shared_summary[i], __ATOMIC_RELAXED);

		if (word)
			word = bitmap_take_word_atomic(slot->shared_summary, i);
		for (; word; word &= word - 1) {
			uint64_t at = i * 64 + (uint64_t)__builtin_ctzll(word);

			if (at < words)
				fold_shared(vm, slot, at, at + 1);
		}
	}
}

void dirty_fold_slot(struct mmu_vm *vm, struct memslot *slot)
{
	struct fold f = {.vm = vm, .slot = slot};

	ml_take(&slot->noticed, fold_word, &f);
	fold_summary(vm, slot);
}

/*
 * The same with these pages of a shared map that has no summary, by looking at each word; and with
 * the kernel's log of the slot, which is had as a whole. 0, or (of the latter) -errno.
 */
static int fold_range(struct mmu_vm *vm, struct memslot *slot, uint64_t first, uint64_t npages)
{
	struct fold f = {.vm = vm, .slot = slot};
	struct slot_desc desc;

	dirty_fold_slot(vm, slot);
	if (slot->shared && !slot->shared_summary && npages)
		fold_shared(vm, slot, first / 64, BITMAP_WORDS(first + npages));
	if (!slot->kernel_logs || !vm->ops->dirty_collect)
		return 0;
	slot_describe(slot, &desc);
	return vm->ops->dirty_collect(vm->priv, &desc, fold_word, &f);
}

/* Is the page dirty for every client that watches it (audit)? */
bool dirty_is_known(const struct mmu_vm *vm, const struct memslot *slot, gfn_t gfn)
{
	const struct dirty_client *c;
	uint64_t page = gfn - slot->base;

	if (bitmap_test(slot->noticed.map[0], page))
		return true;
	list_for_each_entry (c, &vm->clients, link) {
		const struct client_slot *cs = c->slot[slot->id];

		if (cs && !(ml_word(&cs->bits, page / 64) >> (page % 64) & 1))
			return false;
	}
	return true;
}

/* ---- protecting ---- */

/* What a write through @spte must first be seen by goes; whoever has it in a TLB is flushed. */
static void spte_protect(struct mmu_vm *vm, struct shadow_page *sp, uint64_t *spte)
{
	uint64_t old = spte_read(spte), gone = dirty_by_d(vm, sp) ? EPT_D : SPTE_W;

	if (!(old & SPTE_W) || !(old & gone))
		return;
	/* The processor may be setting D. */
	__atomic_fetch_and(spte, ~gone, __ATOMIC_SEQ_CST);
	batch_frames(vm, sp->users, spte_pfn(old), level_pages(sp->role.level));
	STAT(vm, dirty_protected);
}

static void protect_rmap(struct mmu_vm *vm, const struct rmap_head *head)
{
	uint32_t id = head->first, next;

	/* Nearly always: one less look at memory that is in no cache. */
	if (head->count == 1) {
		spte_protect(vm, sp_of_id(vm, id), spte_of_id(vm, id));
		return;
	}
	rmap_for_each(vm, head, id, next)
	{
		spte_protect(vm, sp_of_id(vm, id), spte_of_id(vm, id));
	}
}

/* Leaves over more than the frame. */
static void protect_large(struct mmu_vm *vm, struct memslot *slot, gfn_t gfn)
{
	for (unsigned level = 2; level <= NR_LEVELS; level++)
		protect_rmap(vm, slot_rmap(slot, gfn, level));
}

/* Before the first fault asks, so that what is still dirty beside these frames needs none. */
static void split_frames(struct mmu_vm *vm, struct memslot *slot, const gfn_t *gfns, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (i && gfns[i] >> 9 == gfns[i - 1] >> 9)
			continue;
		if (slot_rmap(slot, gfns[i], 2)->count || slot_rmap(slot, gfns[i], 3)->count)
			split_frame(vm, slot, gfns[i]);
	}
}

/* Frames far apart share no cache line on the way to their sptes: ask for those ahead of time. */
#define AHEAD 8u

static void prefetch_frames(struct mmu_vm *vm, const struct memslot *slot, const gfn_t *gfns,
			    size_t left)
{
	const struct rmap_head *head;

	if (left > 2 * AHEAD)
		__builtin_prefetch(slot_rmap(slot, gfns[2 * AHEAD], 1));
	if (left <= AHEAD)
		return;
	head = slot_rmap(slot, gfns[AHEAD], 1);
	if (head->first) {
		__builtin_prefetch(spte_of_id(vm, head->first), 1);
		__builtin_prefetch(&sp_of_id(vm, head->first)->role);
		__builtin_prefetch(&sp_of_id(vm, head->first)->users);
	}
}

static int kernel_protect(struct mmu_vm *vm, const struct memslot *slot, const gfn_t *gfns,
			  size_t n)
{
	struct slot_desc desc;

	slot_describe(slot, &desc);
	return vm->ops->dirty_protect(vm->priv, &desc, gfns, n);
}

int dirty_protect_frames(struct mmu_vm *vm, struct memslot *slot, const gfn_t *gfns, size_t n)
{
	if (slot->kernel_logs)
		return n ? kernel_protect(vm, slot, gfns, n) : 0;
	for (size_t i = 0; i < n; i++) {
		prefetch_frames(vm, slot, &gfns[i], n - i);
		if (!i || gfns[i] >> 9 != gfns[i - 1] >> 9)
			protect_large(vm, slot, gfns[i]);
		protect_rmap(vm, slot_rmap(slot, gfns[i], 1));
	}
	return 0;
}

typedef bool (*spte_filter)(const struct shadow_page *sp, uint64_t spte);

static bool spte_is_any(const struct shadow_page *sp, uint64_t spte)
{
	return true;
}

/* Only the processor would tell of a write: as dirty_by_d(), and D is clear. */
static bool spte_awaits_d(const struct shadow_page *sp, uint64_t spte)
{
	return sp->role.format == MMU_FORMAT_EPT && sp->role.level == 1 && !(spte & EPT_D);
}

/* All leaves in a slot, by our tables. */
static void protect_tables(struct mmu_vm *vm, const struct memslot *slot, spte_filter filter)
{
	struct shadow_page *sp;

	list_for_each_entry (sp, &vm->active, lru) {
		if (!sp_maps_slot(sp, slot))
			continue;
		for (unsigned i = 0; sp->present && i < PT_ENTRIES; i++) {
			uint64_t *spte = &sp_table(vm, sp)[i], v = spte_read(spte);

			if (spte_is_present(v, sp->role.format) &&
			    spte_is_leaf(v, sp->role.level) &&
			    sp_gfn(vm, sp, i) - slot->base < slot->npages && filter(sp, v))
				spte_protect(vm, sp, spte);
		}
	}
}

/* By what is less: our tables, which are bounded, or the slot. 0, or the kernel's -errno. */
static int protect_slot(struct mmu_vm *vm, struct memslot *slot)
{
	if (slot->kernel_logs)
		return kernel_protect(vm, slot, NULL, 0);
	if (vm->stats.mmu_pages * PT_ENTRIES < slot->npages) {
		protect_tables(vm, slot, spte_is_any);
		return 0;
	}
	for (uint64_t page = 0; page < slot->npages;) {
		gfn_t gfns[PT_ENTRIES];
		size_t n = 0;

		for (; n < PT_ENTRIES && page < slot->npages; page++)
			gfns[n++] = slot->base + page;
		dirty_protect_frames(vm, slot, gfns, n);
	}
	return 0;
}

/* Pages of small leaves that only the log kept small go; larger ones come by the next faults. */
static void collapse_slot(struct mmu_vm *vm, const struct memslot *slot)
{
	struct shadow_page *sp, *tmp;

	if (vm->disable & MMU_NO_COLLAPSE)
		return;
	list_for_each_entry_safe (sp, tmp, &vm->active, lru) {
		if (!sp_maps_slot(sp, slot) || !sp->role.direct || sp->role.level > 2 ||
		    sp->root_count || sp->gfn - slot->base >= slot->npages ||
		    slot_max_level(vm, slot, sp->gfn) <= sp->role.level)
			continue;
		STAT(vm, lpages_collapsed);
		sp_zap(vm, sp);
	}
}

/* ---- watching ---- */

static struct client_slot *client_slot_new(const struct dirty_client *c, const struct memslot *slot)
{
	struct client_slot *cs = calloc(1, sizeof(*cs));

	if (!cs)
		return NULL;
	if (ml_init(&cs->bits, slot->npages)) {
		free(cs);
		return NULL;
	}
	if (c->flags & DIRTY_INITIALLY_SET) {
		ml_set_all(&cs->bits);
		cs->count = slot->npages;
	}
	return cs;
}

static void client_slot_free(struct client_slot *cs)
{
	if (!cs)
		return;
	ml_finish(&cs->bits);
	free(cs);
}

/* Both locks are held. What was written before is not this client's. */
static int watch_slot(struct dirty_client *c, struct memslot *slot)
{
	struct client_slot *cs = client_slot_new(c, slot);
	int r;

	if (!cs)
		return -ENOMEM;
	r = fold_range(c->vm, slot, 0, slot->npages);
	if (r) {
		client_slot_free(cs);
		return r;
	}
	__atomic_fetch_add(&slot->watchers, 1, __ATOMIC_SEQ_CST);
	c->slot[slot->id] = cs;
	return 0;
}

/* The kernel begins, or stops, to log the slot. Both locks are held. */
static int kernel_log(struct mmu_vm *vm, struct memslot *slot, bool on)
{
	struct slot_desc from, to;
	int r;

	if (!mmu_is_kernels(vm) || slot->kernel_logs == on)
		return 0;
	slot_describe(slot, &from);
	to = from;
	*(on ? &to.flags : &from.flags) |= SLOT_LOGGED;
	r = vm->ops->slot_changed(vm->priv, &from, &to);
	if (!r)
		slot->kernel_logs = on;
	return r;
}

static void unwatch_slot(struct dirty_client *c, struct memslot *slot)
{
	client_slot_free(c->slot[slot->id]);
	c->slot[slot->id] = NULL;
	if (__atomic_sub_fetch(&slot->watchers, 1, __ATOMIC_SEQ_CST))
		return;
	collapse_slot(c->vm, slot);
	kernel_log(c->vm, slot, false);
}

/* All of the slot is dirty for whoever watches it. */
static void slot_all_dirty(struct mmu_vm *vm, struct memslot *slot)
{
	struct dirty_client *c;

	list_for_each_entry (c, &vm->clients, link) {
		struct client_slot *cs = c->slot[slot->id];

		if (!cs)
			continue;
		ml_set_all(&cs->bits);
		cs->count = slot->npages;
	}
}

int dirty_slot_tell(struct mmu_vm *vm, struct memslot *slot, const struct slot_desc *from,
		    const struct slot_desc *to)
{
	struct slot_desc was = {0}, is = {0};
	int r;

	if (!mmu_is_kernels(vm))
		return 0;
	if (from) {
		was = *from;
		was.flags |= slot->kernel_logs ? SLOT_LOGGED : 0;
	}
	if (to) {
		is = *to;
		is.flags |= slot_is_logged(slot) ? SLOT_LOGGED : 0;
	}
	r = vm->ops->slot_changed(vm->priv, from ? &was : NULL, to ? &is : NULL);
	if (r)
		return r;
	slot->kernel_logs = to && is.flags & SLOT_LOGGED;
	if (slot->kernel_logs)
		slot_all_dirty(vm, slot);
	return 0;
}

/* Is there a page that some watching client knows as clean? */
static bool slot_has_clean(const struct mmu_vm *vm, const struct memslot *slot)
{
	const struct dirty_client *c;

	list_for_each_entry (c, &vm->clients, link) {
		const struct client_slot *cs = c->slot[slot->id];

		if (cs && cs->count < slot->npages)
			return true;
	}
	return false;
}

/* No vCPU runs yet, so what the kernel may hold to be dirty at first is not so. */
int dirty_attached(struct mmu_vm *vm)
{
	int r = 0;

	if (!mmu_is_kernels(vm))
		return 0;
	if (vm->ring_client && !vm->ops->drain_pml)
		return -EOPNOTSUPP;
	for (uint32_t i = 0; i < vm->nr_slots && !r; i++) {
		struct memslot *slot = vm->sorted[i];
		struct slot_desc to;

		slot_describe(slot, &to);
		to.flags |= slot_is_logged(slot) ? SLOT_LOGGED : 0;
		r = vm->ops->slot_changed(vm->priv, NULL, &to);
		if (r)
			break;
		slot->kernel_logs = slot_is_logged(slot);
		if (slot->kernel_logs && slot_has_clean(vm, slot))
			r = protect_slot(vm, slot);
	}
	return r;
}

void dirty_detached(struct mmu_vm *vm)
{
	for (uint32_t i = 0; i < vm->nr_slots; i++)
		vm->sorted[i]->kernel_logs = false;
}

int dirty_collect_all(struct mmu_vm *vm)
{
	int ret = 0;

	for (uint32_t i = 0; i < vm->nr_slots; i++) {
		struct memslot *slot = vm->sorted[i];
		int r = fold_range(vm, slot, 0, slot->npages);

		if (r)
			slot_all_dirty(vm, slot);
		ret = ret ? ret : r;
	}
	return ret;
}

int dirty_slot_added(struct mmu_vm *vm, struct memslot *slot)
{
	struct dirty_client *c;
	int r = 0;

	/* Nothing maps it yet: there is nothing to protect. */
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

static bool slot_is_meant(const struct memslot *slot, uint32_t slot_id)
{
	return slot_id == DIRTY_ALL_SLOTS || slot->id == slot_id;
}

static int watch(struct dirty_client *c, uint32_t slot_id)
{
	struct mmu_vm *vm = c->vm;
	bool fresh[NR_SLOTS] = {false};
	int r = 0;

	/*
	 * Writers of L0 hold slots_lock from their store to their look at the watchers: those that
	 * did not see us have stored before the client reads anything.
	 */
	pthread_rwlock_wrlock(&vm->slots_lock);
	for (uint32_t i = 0; i < vm->nr_slots && !r; i++) {
		struct memslot *slot = vm->sorted[i];

		if (!slot_is_meant(slot, slot_id) || c->slot[slot->id])
			continue;
		r = watch_slot(c, slot);
		if (r)
			break;
		r = kernel_log(vm, slot, true);
		if (r)
			unwatch_slot(c, slot);
		fresh[slot->id] = !r;
	}
	pthread_rwlock_unlock(&vm->slots_lock);
	for (uint32_t i = 0; i < vm->nr_slots && !r; i++) {
		if (fresh[vm->sorted[i]->id] && !(c->flags & DIRTY_INITIALLY_SET))
			r = protect_slot(vm, vm->sorted[i]);
	}
	return r;
}

static void unwatch(struct dirty_client *c, uint32_t slot_id)
{
	struct mmu_vm *vm = c->vm;

	pthread_rwlock_wrlock(&vm->slots_lock);
	for (uint32_t i = 0; i < vm->nr_slots; i++) {
		struct memslot *slot = vm->sorted[i];

		if (slot_is_meant(slot, slot_id) && c->slot[slot->id])
			unwatch_slot(c, slot);
	}
	pthread_rwlock_unlock(&vm->slots_lock);
}

static bool slot_exists(const struct mmu_vm *vm, uint32_t slot_id)
{
	return slot_id == DIRTY_ALL_SLOTS || (slot_id <= SLOT_MAX_ID && vm->by_id[slot_id]);
}

int dirty_client_watch(struct dirty_client *c, uint32_t slot_id)
{
	int r = -ENOENT;

	dirty_lock(c->vm);
	if (slot_exists(c->vm, slot_id)) {
		c->all |= slot_id == DIRTY_ALL_SLOTS;
		r = watch(c, slot_id);
	}
	dirty_unlock(c->vm);
	/* What is large has lost W by now; the rest only spares faults, so it need not be at once.
	 */
	if (!r && !(c->flags & DIRTY_INITIALLY_SET))
		split_logged(c->vm);
	return r;
}

int dirty_client_unwatch(struct dirty_client *c, uint32_t slot_id)
{
	int r = -ENOENT;

	dirty_lock(c->vm);
	if (slot_exists(c->vm, slot_id)) {
		c->all &= slot_id != DIRTY_ALL_SLOTS;
		unwatch(c, slot_id);
		r = 0;
	}
	dirty_unlock(c->vm);
	return r;
}

/* ---- clients ---- */

int dirty_client_create(struct mmu_vm *vm, const char *name, uint32_t flags,
			struct dirty_client **ret_client)
{
	struct dirty_client *c, *other;
	bool taken = false;

	if (!*name || strlen(name) > DIRTY_NAME_MAX || flags & ~(uint32_t)DIRTY_INITIALLY_SET)
		return -EINVAL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->vm = vm;
	c->flags = flags;
	strcpy(c->name, name);
	mmu_lock(vm);
	list_for_each_entry (other, &vm->clients, link)
		taken |= !strcmp(other->name, name);
	if (!taken)
		list_add_tail(&vm->clients, &c->link);
	mmu_unlock(vm);
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
	dirty_ring_enable(c, 0);
	dirty_lock(vm);
	unwatch(c, DIRTY_ALL_SLOTS);
	list_del(&c->link);
	dirty_unlock(vm);
	free(c);
}

const char *dirty_client_name(const struct dirty_client *c)
{
	return c->name;
}

static void fold_all(struct mmu_vm *vm)
{
	for (uint32_t s = 0; s < vm->nr_slots; s++)
		fold_range(vm, vm->sorted[s], 0, vm->sorted[s]->npages);
}

static uint64_t client_count(const struct dirty_client *c)
{
	uint64_t count = 0;

	for (uint32_t s = 0; s < c->vm->nr_slots; s++) {
		const struct client_slot *cs = c->slot[c->vm->sorted[s]->id];

		count += cs ? cs->count : 0;
	}
	return count;
}

size_t dirty_clients(struct mmu_vm *vm, struct dirty_client_info *info, size_t max)
{
	const struct dirty_client *c;
	size_t n = 0;

	dirty_lock(vm);
	fold_all(vm);
	list_for_each_entry (c, &vm->clients, link) {
		if (n++ >= max)
			continue;
		info[n - 1] = (struct dirty_client_info){
			.flags = c->flags,
			.ring = vm->ring_client == c ? vm->ring_size : 0,
			.dirty = client_count(c),
		};
		strcpy(info[n - 1].name, c->name);
	}
	dirty_unlock(vm);
	return n;
}

uint64_t dirty_count(struct dirty_client *c)
{
	uint64_t count;

	dirty_lock(c->vm);
	fold_all(c->vm);
	count = client_count(c);
	dirty_unlock(c->vm);
	return count;
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

/* The bits of word @i of a map that lie in pages [@first, @first + @npages). */
static uint64_t range_mask(uint64_t i, uint64_t first, uint64_t npages)
{
	uint64_t end = first + npages, mask = ~0ull;

	if (i == first / 64)
		mask <<= first % 64;
	if (i == end / 64)
		mask &= BIT(end % 64) - 1;
	return mask;
}

/* Or @word, whose bit 0 is page @at (which may lie before 0), into @bits. */
static void put_word(uint64_t *bits, int64_t at, uint64_t word)
{
	if (at < 0) {
		bits[0] |= word >> -at;
		return;
	}
	bits[at / 64] |= word << (at % 64);
	if (at % 64 && word >> (64 - at % 64))
		bits[at / 64 + 1] |= word >> (64 - at % 64);
}

/* 64 bits from bit @at on (which may lie before 0), of @nbits there are. */
static uint64_t get_word(const uint64_t *bits, uint64_t nbits, int64_t at)
{
	uint64_t word, words = BITMAP_WORDS(nbits), i = (uint64_t)at / 64;

	if (at < 0)
		return bits[0] << -at;
	word = i < words ? bits[i] >> (at % 64) : 0;
	if (at % 64 && i + 1 < words)
		word |= bits[i + 1] << (64 - at % 64);
	return word;
}

/* What a caller's bitmap says of pages of a slot. */
struct asked {
	uint64_t first, npages;
	const uint64_t *bits; /* bit 0 is page @first */
};

/* For word @i of the slot's bitmap. */
static uint64_t asked_word(const struct asked *a, uint64_t i)
{
	return get_word(a->bits, a->npages, (int64_t)(i * 64 - a->first)) &
	       range_mask(i, a->first, a->npages);
}

int dirty_get(struct dirty_client *c, uint32_t slot_id, uint64_t first, uint64_t npages,
	      uint64_t *bits)
{
	struct memslot *slot;
	int r;

	dirty_lock(c->vm);
	slot = client_range(c, slot_id, first, npages, &r);
	if (slot && npages)
		r = fold_range(c->vm, slot, first, npages);
	if (!r && npages) {
		const struct ml_bitmap *m = &c->slot[slot_id]->bits;
		uint64_t end = BITMAP_WORDS(first + npages);

		memset(bits, 0, BITMAP_WORDS(npages) * 8);
		for (uint64_t i = ml_next_word(m, first / 64); i < end; i = ml_next_word(m, i + 1))
			put_word(bits, (int64_t)(i * 64 - first),
				 ml_word(m, i) & range_mask(i, first, npages));
	}
	dirty_unlock(c->vm);
	return r;
}

static uint64_t next_page(const struct ml_bitmap *m, uint64_t page)
{
	uint64_t i = page / 64, word;

	if (page >= m->bits)
		return m->bits;
	word = ml_word(m, i) & ~0ull << (page % 64);
	if (!word) {
		i = ml_next_word(m, i + 1);
		if (i == BITMAP_WORDS(m->bits))
			return m->bits;
		word = ml_word(m, i);
	}
	return i * 64 + (uint64_t)__builtin_ctzll(word);
}

int dirty_find(struct dirty_client *c, uint32_t slot_id, uint64_t *page)
{
	struct memslot *slot;
	int r;

	dirty_lock(c->vm);
	slot = client_range(c, slot_id, 0, 0, &r);
	if (slot) {
		const struct ml_bitmap *m = &c->slot[slot_id]->bits;
		uint64_t found;

		found = next_page(m, *page);
		/* An earlier one may not have been collected yet. */
		if (*page < found)
			r = fold_range(c->vm, slot, *page, found - *page);
		found = next_page(m, *page);
		if (!r && found < slot->npages)
			*page = found;
		else if (!r)
			r = -ENODATA;
	}
	dirty_unlock(c->vm);
	return r;
}

/* The frames of the bits in @word, which is word @i of the slot's bitmap, to @gfns; how many. */
static size_t put_frames(const struct memslot *slot, uint64_t i, uint64_t word, gfn_t *gfns)
{
	size_t n = 0;

	for (; word; word &= word - 1)
		gfns[n++] = slot->base + i * 64 + (uint64_t)__builtin_ctzll(word);
	return n;
}

/*
 * Off the client's log, in rising order. The flush comes before the lock is dropped, and so before
 * the client reads a page: what is written until then it sees. 0, or -errno: they are still dirty.
 */
static int forget_frames(struct dirty_client *c, struct memslot *slot, const gfn_t *gfns, size_t n)
{
	struct client_slot *cs = c->slot[slot->id];
	int r;

	split_frames(c->vm, slot, gfns, n);
	r = dirty_protect_frames(c->vm, slot, gfns, n);
	if (r)
		return r;
	for (size_t i = 0; i < n;) {
		uint64_t at = (gfns[i] - slot->base) / 64, word = 0;

		for (; i < n && (gfns[i] - slot->base) / 64 == at; i++)
			word |= BIT((gfns[i] - slot->base) % 64);
		cs->count -= ml_clear(&cs->bits, at, word);
	}
	return 0;
}

/* What is asked for in the words from *@word on, as much as one hold of the lock is worth. */
static int clear_batch(struct dirty_client *c, struct memslot *slot, const struct asked *a,
		       uint64_t *word)
{
	const struct ml_bitmap *m = &c->slot[slot->id]->bits;
	uint64_t end = BITMAP_WORDS(a->first + a->npages), i;
	uint64_t stop = MIN(end, *word + BATCH_WORDS);
	size_t n = 0;

	dirty_fold_slot(c->vm, slot);
	for (i = ml_next_word(m, *word); i < stop && n <= DIRTY_BATCH - 64;
	     i = ml_next_word(m, i + 1))
		n += put_frames(slot, i, ml_word(m, i) & asked_word(a, i), c->batch + n);
	*word = MIN(end, i);
	return forget_frames(c, slot, c->batch, n);
}

int dirty_clear(struct dirty_client *c, uint32_t slot_id, uint64_t first, uint64_t npages,
		const uint64_t *bits)
{
	struct asked a = {.first = first, .npages = npages, .bits = bits};
	uint64_t word = first / 64;
	struct memslot *slot;
	int r;

	do {
		/* What the processors hold in their logs need not be known: it is told later. */
		mmu_lock(c->vm);
		slot = client_range(c, slot_id, first, npages, &r);
		if (slot && npages)
			r = clear_batch(c, slot, &a, &word);
		if (slot)
			dirty_rings_retire(c);
		dirty_unlock(c->vm);
	} while (!r && npages && word < BITMAP_WORDS(first + npages));
	return r;
}

/* The lowest @n bits that are set. */
static uint64_t lowest_bits(uint64_t word, size_t n)
{
	while ((size_t)__builtin_popcountll(word) > n)
		word &= ~(1ull << (63 - __builtin_clzll(word)));
	return word;
}

/* Up to @max pages of one slot. How many, or -errno. */
static ssize_t take_slot(struct dirty_client *c, struct memslot *slot, gfn_t *gfns, size_t max)
{
	const struct client_slot *cs = c->slot[slot->id];
	uint64_t words = slot_words(slot);
	size_t n = 0;
	int r = 0;

	dirty_fold_slot(c->vm, slot);
	if (!cs->count)
		r = fold_range(c->vm, slot, 0, slot->npages);
	if (r)
		return r;
	for (uint64_t i = ml_next_word(&cs->bits, 0); i < words && n < max;
	     i = ml_next_word(&cs->bits, i + 1))
		n += put_frames(slot, i, lowest_bits(ml_word(&cs->bits, i), max - n), gfns + n);
	r = forget_frames(c, slot, gfns, n);
	return r ? r : (ssize_t)n;
}

/* Once a call, not once a batch. */
static int collect_kernel(struct mmu_vm *vm)
{
	int r = 0;

	if (mmu_get_policy(vm) != MMU_POLICY_KERNEL)
		return 0;
	mmu_lock(vm);
	for (uint32_t s = 0; s < vm->nr_slots && !r; s++)
		r = fold_range(vm, vm->sorted[s], 0, vm->sorted[s]->npages);
	dirty_unlock(vm);
	return r;
}

/* As much as one hold of the lock is worth. What was taken before an error is taken. */
static ssize_t take_batch(struct dirty_client *c, gfn_t *gfns, size_t max)
{
	struct mmu_vm *vm = c->vm;
	ssize_t got = 0;
	size_t n = 0;

	mmu_lock(vm);
	for (uint32_t s = 0; s < vm->nr_slots && n < max && got >= 0; s++) {
		got = 0;
		if (c->slot[vm->sorted[s]->id])
			got = take_slot(c, vm->sorted[s], gfns + n, max - n);
		n += got > 0 ? (size_t)got : 0;
	}
	dirty_rings_retire(c);
	dirty_unlock(vm);
	return n || got >= 0 ? (ssize_t)n : got;
}

ssize_t dirty_take(struct dirty_client *c, gfn_t *gfns, size_t max)
{
	ssize_t got;
	size_t n = 0, want;
	int r;

	drain(c->vm);
	r = collect_kernel(c->vm);
	if (r)
		return r;
	do {
		want = MIN(max - n, (size_t)DIRTY_BATCH);
		got = take_batch(c, gfns + n, want);
		n += got > 0 ? (size_t)got : 0;
	} while (got == (ssize_t)want && n < max);
	return n || got >= 0 ? (ssize_t)n : got;
}

int dirty_share_bitmap(struct mmu_vm *vm, uint32_t slot_id, uint64_t *map, uint64_t *summary)
{
	struct memslot *slot;
	int r = -ENOENT;

	dirty_lock(vm);
	if (slot_id <= SLOT_MAX_ID && vm->by_id[slot_id]) {
		slot = vm->by_id[slot_id];
		fold_shared(vm, slot, 0, slot_words(slot));
		slot->shared = map;
		slot->shared_summary = map ? summary : NULL;
		r = 0;
	}
	dirty_unlock(vm);
	return r;
}

/* ---- how writes are noticed ---- */

/* Roots lead to other processor controls from now on; the caller sees to it that all leave guest
 * mode. */
static void set_pml(struct mmu_vm *vm, bool on)
{
	struct mmu_vcpu *vcpu;

	__atomic_store_n(&vm->pml, on, __ATOMIC_RELAXED);
	list_for_each_entry (vcpu, &vm->vcpus, link)
		__atomic_store_n(&vcpu->need_load, true, __ATOMIC_SEQ_CST);
}

/*
 * No leaf may lose D before every processor logs: the flush, which comes before the lock is
 * dropped, sends them out of guest mode, and they ask for the root before they come back. Leaves
 * without W stay so; with W they are dirty for all.
 */
static void notice_by_pml(struct mmu_vm *vm)
{
	set_pml(vm, true);
	batch_all(vm, MMU_VCPUS_ALL);
	__atomic_store_n(&vm->notice, DIRTY_NOTICE_PML, __ATOMIC_RELAXED);
}

/*
 * And the other way round: processors log until no leaf is left that only they would tell of. None
 * gets a root without the log before the lock is dropped, and all are flushed by then.
 */
static void notice_by_protection(struct mmu_vm *vm)
{
	__atomic_store_n(&vm->notice, DIRTY_NOTICE_PROTECT, __ATOMIC_RELAXED);
	for (uint32_t i = 0; i < vm->nr_slots; i++) {
		if (slot_is_logged(vm->sorted[i]))
			protect_tables(vm, vm->sorted[i], spte_awaits_d);
	}
	set_pml(vm, false);
}

int dirty_set_notice(struct mmu_vm *vm, enum dirty_notice how)
{
	int r = 0;

	if (how > DIRTY_NOTICE_PML)
		return -EINVAL;
	mmu_lock(vm);
	if (how == DIRTY_NOTICE_PML && (vm->policy != MMU_POLICY_TDP ||
					vm->tdp_format != MMU_FORMAT_EPT || !vm->ops->drain_pml))
		r = -EOPNOTSUPP;
	else if (vm->notice != how && how == DIRTY_NOTICE_PML)
		notice_by_pml(vm);
	else if (vm->notice != how)
		notice_by_protection(vm);
	dirty_unlock(vm);
	/* What was logged until the end; whoever still logs leaves guest mode for that. */
	if (!r && how == DIRTY_NOTICE_PROTECT && vm->ops->drain_pml)
		vm->ops->drain_pml(vm->priv);
	return r;
}

enum dirty_notice dirty_get_notice(struct mmu_vm *vm)
{
	return __atomic_load_n(&vm->notice, __ATOMIC_RELAXED);
}
