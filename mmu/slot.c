/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memslots: lookup, change while vCPUs run, and copies to and from guest memory. */
#include "mmu/slot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mmu/mmu_internal.h"

/* ---- lookup ---- */

static bool slot_has(const struct memslot *slot, gfn_t gfn)
{
	return gfn - slot->base < slot->npages;
}

/* The index of the first slot that ends behind @gfn. */
static uint32_t slot_search(const struct mmu_vm *vm, gfn_t gfn)
{
	uint32_t lo = 0, hi = vm->nr_slots;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (vm->sorted[mid]->base + vm->sorted[mid]->npages > gfn)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

struct memslot *slot_of(struct mmu_vm *vm, gfn_t gfn)
{
	uint32_t i = __atomic_load_n(&vm->last_slot, __ATOMIC_RELAXED);

	if (likely(i < vm->nr_slots && slot_has(vm->sorted[i], gfn)))
		return vm->sorted[i];
	i = slot_search(vm, gfn);
	if (i == vm->nr_slots || !slot_has(vm->sorted[i], gfn))
		return NULL;
	__atomic_store_n(&vm->last_slot, i, __ATOMIC_RELAXED);
	return vm->sorted[i];
}

/* ---- a slot's arrays ---- */

static uint64_t slot_nr_frames(const struct memslot *slot, unsigned level)
{
	unsigned shift = 9 * (level - 1);

	return ((slot->base + slot->npages - 1) >> shift) - (slot->base >> shift) + 1;
}

static int slot_meta_init(struct memslot *slot)
{
	size_t at = 0, rmap[NR_LEVELS], no_large[NR_LEVELS] = {0}, shadowed;

	for (unsigned l = 1; l <= NR_LEVELS; l++) {
		rmap[l - 1] = at;
		at += slot_nr_frames(slot, l) * sizeof(struct rmap_head);
	}
	for (unsigned l = 2; l <= NR_LEVELS; l++) {
		no_large[l - 1] = at;
		at += slot_nr_frames(slot, l) * sizeof(uint32_t);
	}
	shadowed = at;
	at += slot->npages * sizeof(uint32_t);

	slot->meta = mmap(NULL, at, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (slot->meta == MAP_FAILED) {
		slot->meta = NULL;
		return -ENOMEM;
	}
	slot->meta_size = at;
	for (unsigned l = 1; l <= NR_LEVELS; l++) {
		slot->rmap[l - 1] = (void *)((char *)slot->meta + rmap[l - 1]);
		slot->no_large[l - 1] = (void *)((char *)slot->meta + no_large[l - 1]);
	}
	slot->shadowed = (void *)((char *)slot->meta + shadowed);
	return 0;
}

static void slot_free(struct memslot *slot)
{
	if (!slot)
		return;
	ml_finish(&slot->noticed);
	if (slot->meta)
		munmap(slot->meta, slot->meta_size);
	free(slot);
}

unsigned slot_max_level(const struct mmu_vm *vm, const struct memslot *slot, gfn_t gfn)
{
	unsigned level = vm->max_page_level;

	if (slot_is_logged(slot) || slot->missing || vm->disable & MMU_NO_LARGE)
		return 1;
	for (; level > 1; level--) {
		uint64_t pages = level_pages(level);
		gfn_t start = ALIGN_DOWN(gfn, pages);
		unsigned shift = 9 * (level - 1);

		if (start < slot->base || start + pages > slot->base + slot->npages)
			continue;
		if (((slot->hva >> PAGE_SHIFT) ^ slot->base) & (pages - 1))
			continue;
		if (!slot->no_large[level - 1][(gfn >> shift) - (slot->base >> shift)])
			return level;
	}
	return 1;
}

void slot_account_shadow(struct memslot *slot, gfn_t gfn, unsigned level, int n)
{
	uint32_t unit = level == 1 ? SHADOWED_LEAF : SHADOWED_HIGHER;

	/* Full barrier: pairs with the one between a writer's store and its look at this count. */
	__atomic_fetch_add(slot_shadowed(slot, gfn), n > 0 ? unit : 0 - unit, __ATOMIC_SEQ_CST);
	for (unsigned l = 2; l <= NR_LEVELS; l++) {
		unsigned shift = 9 * (l - 1);

		slot->no_large[l - 1][(gfn >> shift) - (slot->base >> shift)] += (uint32_t)n;
	}
}

/* ---- change ---- */

static void slots_lock(struct mmu_vm *vm)
{
	mmu_lock(vm);
	pthread_rwlock_wrlock(&vm->slots_lock);
}

static void slots_unlock(struct mmu_vm *vm)
{
	batch_commit(vm);
	pthread_rwlock_unlock(&vm->slots_lock);
	mmu_unlock(vm);
}

/* Memory came where none was: MMIO entries of before are void from now on. */
static void slots_new_generation(struct mmu_vm *vm)
{
	struct mmu_vcpu *vcpu;

	vm->generation++;
	stat_add(&vm->stats.mmio_generation, 1);
	/*
	 * A root whose table lay in no slot may be possible now: mmu_load() looks. By the empty one
	 * every access faults, so nobody has to be kicked.
	 */
	list_for_each_entry (vcpu, &vm->vcpus, link)
		__atomic_store_n(&vcpu->need_load, true, __ATOMIC_SEQ_CST);
	if (vm->generation % MMIO_GEN_MODULO == 0) {
		/* The numbers begin again: an old entry could pass for a new one. */
		struct shadow_page *sp, *tmp;

		list_for_each_entry_safe (sp, tmp, &vm->active, lru)
			sp_zap(vm, sp);
	}
}

static int slot_check(const struct mmu_vm *vm, const struct slot_desc *d, const struct memslot *but)
{
	uint64_t host = (uint64_t)(uintptr_t)d->host;
	uint32_t i;

	if (d->id > SLOT_MAX_ID || !d->size || (d->gpa | d->size | host) & ~PAGE_MASK ||
	    d->gpa + d->size < d->gpa || d->gpa + d->size > BIT(52) || !host ||
	    host + d->size > BIT(MMU_HOST_WIDTH) || host + d->size < host ||
	    d->flags & ~(uint64_t)SLOT_READONLY)
		return -EINVAL;
	for (i = 0; i < vm->nr_slots; i++) {
		const struct memslot *s = vm->sorted[i];

		if (s != but && s->base < (d->gpa + d->size) >> PAGE_SHIFT &&
		    d->gpa >> PAGE_SHIFT < s->base + s->npages)
			return -EEXIST;
	}
	return 0;
}

static void slot_insert(struct mmu_vm *vm, struct memslot *slot)
{
	uint32_t i = slot_search(vm, slot->base);

	memmove(&vm->sorted[i + 1], &vm->sorted[i], (vm->nr_slots - i) * sizeof(vm->sorted[0]));
	vm->sorted[i] = slot;
	vm->nr_slots++;
	vm->by_id[slot->id] = slot;
}

static void slot_remove(struct mmu_vm *vm, struct memslot *slot)
{
	uint32_t i = 0;

	while (vm->sorted[i] != slot)
		i++;
	vm->nr_slots--;
	memmove(&vm->sorted[i], &vm->sorted[i + 1], (vm->nr_slots - i) * sizeof(vm->sorted[0]));
	vm->by_id[slot->id] = NULL;
}

/*
 * No spte maps a frame of the slot, and no shadow page stands for one, when it returns;
 * slots_unlock() flushes.
 */
static void slot_zap(struct mmu_vm *vm, const struct memslot *slot)
{
	struct shadow_page *sp, *tmp;

	list_for_each_entry_safe (sp, tmp, &vm->active, lru) {
		if (!sp->role.direct && slot_has(slot, sp->gfn)) {
			sp_zap(vm, sp);
			continue;
		}
		if (!sp_maps_slot(sp, slot))
			continue;
		for (unsigned i = 0; sp->present && i < PT_ENTRIES; i++) {
			uint64_t spte = spte_read(&sp_table(vm, sp)[i]);

			if (spte_is_present(spte, sp->role.format) &&
			    spte_is_leaf(spte, sp->role.level) && slot_has(slot, sp_gfn(vm, sp, i)))
				spte_zap(vm, sp, i);
		}
	}
}

int slot_add(struct mmu_vm *vm, const struct slot_desc *desc)
{
	struct memslot *slot = calloc(1, sizeof(*slot));
	int r;

	if (!slot)
		return -ENOMEM;
	slots_lock(vm);
	r = slot_check(vm, desc, NULL);
	if (!r && vm->by_id[desc->id])
		r = -EEXIST;
	if (r)
		goto out;
	slot->id = desc->id;
	slot->flags = desc->flags;
	slot->base = desc->gpa >> PAGE_SHIFT;
	slot->npages = desc->size >> PAGE_SHIFT;
	slot->hva = (hva_t)(uintptr_t)desc->host;
	r = slot_meta_init(slot);
	if (!r)
		r = ml_init(&slot->noticed, slot->npages);
	if (!r)
		r = dirty_slot_added(vm, slot);
	if (r)
		goto out;
	r = dirty_slot_tell(vm, slot, NULL, desc);
	if (r) {
		dirty_slot_removed(vm, slot);
		goto out;
	}
	slot_insert(vm, slot);
	slots_new_generation(vm);
	slot = NULL;
out:
	slots_unlock(vm);
	slot_free(slot);
	return r;
}

/* The slot with @id if it may be changed now, else NULL and *@ret says why. */
static struct memslot *slot_for_change(struct mmu_vm *vm, uint32_t id, int *ret)
{
	struct memslot *slot = id <= SLOT_MAX_ID ? vm->by_id[id] : NULL;

	*ret = 0;
	if (!slot)
		*ret = -ENOENT;
	else if (__atomic_load_n(&slot->pins, __ATOMIC_ACQUIRE))
		*ret = -EBUSY;
	return *ret ? NULL : slot;
}

int slot_delete(struct mmu_vm *vm, uint32_t id)
{
	struct slot_desc from;
	struct memslot *slot;
	int r;

	slots_lock(vm);
	slot = slot_for_change(vm, id, &r);
	if (slot) {
		slot_describe(slot, &from);
		r = dirty_slot_tell(vm, slot, &from, NULL);
		slot = r ? NULL : slot;
	}
	if (slot) {
		slot_zap(vm, slot);
		dirty_slot_removed(vm, slot);
		slot_remove(vm, slot);
	}
	slots_unlock(vm);
	slot_free(slot);
	return r;
}

int slot_move(struct mmu_vm *vm, uint32_t id, gpa_t gpa)
{
	struct memslot *slot, old;
	struct slot_desc d, from;
	int r;

	slots_lock(vm);
	slot = slot_for_change(vm, id, &r);
	if (!slot)
		goto out;
	slot_describe(slot, &from);
	d = from;
	d.gpa = gpa;
	r = slot_check(vm, &d, slot);
	if (r)
		goto out;
	slot_zap(vm, slot);
	/* The arrays by large frame depend on the base: all are empty now, so make new ones. */
	old = *slot;
	slot->base = gpa >> PAGE_SHIFT;
	r = slot_meta_init(slot);
	if (!r) {
		r = dirty_slot_tell(vm, slot, &from, &d);
		if (r)
			munmap(slot->meta, slot->meta_size);
	}
	if (r) {
		*slot = old;
		goto out;
	}
	munmap(old.meta, old.meta_size);
	slot_remove(vm, slot);
	slot_insert(vm, slot);
	slots_new_generation(vm);
out:
	slots_unlock(vm);
	return r;
}

int slot_set_flags(struct mmu_vm *vm, uint32_t id, uint32_t flags)
{
	struct slot_desc from, to;
	struct memslot *slot;
	int r;

	if (flags & ~(uint32_t)SLOT_READONLY)
		return -EINVAL;
	slots_lock(vm);
	slot = slot_for_change(vm, id, &r);
	if (r == -EBUSY) {
		slot = vm->by_id[id];
		r = 0;
	}
	if (slot && slot->flags != flags) {
		slot_describe(slot, &from);
		to = from;
		to.flags = flags;
		r = dirty_slot_tell(vm, slot, &from, &to);
		if (!r) {
			slot->flags = flags;
			slot_zap(vm, slot);
		}
	}
	slots_unlock(vm);
	return r;
}

int slot_set_missing(struct mmu_vm *vm, uint32_t id, uint64_t *missing)
{
	struct memslot *slot;
	int r = 0;

	slots_lock(vm);
	slot = id <= SLOT_MAX_ID ? vm->by_id[id] : NULL;
	if (slot) {
		slot->missing = missing;
		if (missing)
			slot_zap(vm, slot);
		/* Who waits for a page of the map of before looks again. */
		vm->ops->kick(vm->priv, MMU_VCPUS_ALL);
	} else {
		r = -ENOENT;
	}
	slots_unlock(vm);
	return r;
}

void slots_finish(struct mmu_vm *vm)
{
	for (uint32_t i = 0; i < vm->nr_slots; i++)
		slot_free(vm->sorted[i]);
	vm->nr_slots = 0;
}

void slot_describe(const struct memslot *slot, struct slot_desc *desc)
{
	*desc = (struct slot_desc){
		.id = slot->id,
		.flags = slot->flags,
		.gpa = slot->base << PAGE_SHIFT,
		.size = slot->npages << PAGE_SHIFT,
		.host = (void *)(uintptr_t)slot->hva,
	};
}

int slot_get(struct mmu_vm *vm, uint32_t id, struct slot_desc *desc)
{
	int r = -ENOENT;

	pthread_rwlock_rdlock(&vm->slots_lock);
	if (id <= SLOT_MAX_ID && vm->by_id[id]) {
		slot_describe(vm->by_id[id], desc);
		r = 0;
	}
	pthread_rwlock_unlock(&vm->slots_lock);
	return r;
}

int slot_next(struct mmu_vm *vm, gpa_t from, struct slot_desc *desc)
{
	gfn_t gfn = (from + PAGE_SIZE - 1) >> PAGE_SHIFT;
	uint32_t i;
	int r = -ENOENT;

	pthread_rwlock_rdlock(&vm->slots_lock);
	i = slot_search(vm, gfn);
	if (i < vm->nr_slots && vm->sorted[i]->base < gfn)
		i++;
	if (i < vm->nr_slots) {
		slot_describe(vm->sorted[i], desc);
		r = 0;
	}
	pthread_rwlock_unlock(&vm->slots_lock);
	return r;
}

/* ---- copies ---- */

/*
 * Guest memory is written by vCPUs at the same time. An aligned word is moved in one access; longer
 * runs by string instructions, which no tool takes for a race of ours.
 */
static void guest_copy(void *to, const void *from, uint64_t len, uint64_t guest)
{
	if (len <= 8 && !(len & (len - 1)) && !(guest & (len - 1))) {
		switch (len) {
		case 1:
			asm volatile("movb (%1), %%al; movb %%al, (%0)" ::"r"(to), "r"(from)
				     : "rax", "memory");
			return;
		case 2:
			asm volatile("movw (%1), %%ax; movw %%ax, (%0)" ::"r"(to), "r"(from)
				     : "rax", "memory");
			return;
		case 4:
			asm volatile("movl (%1), %%eax; movl %%eax, (%0)" ::"r"(to), "r"(from)
				     : "rax", "memory");
			return;
		case 8:
			asm volatile("movq (%1), %%rax; movq %%rax, (%0)" ::"r"(to), "r"(from)
				     : "rax", "memory");
			return;
		}
	}
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len)::"memory");
}

/* Is one of the frames a guest table? After a store: a full barrier precedes the look. */
static bool slot_any_shadowed(const struct memslot *slot, gfn_t first, gfn_t last)
{
	for (gfn_t gfn = first; gfn <= last; gfn++) {
		if (__atomic_fetch_or(slot_shadowed(slot, gfn), 0, __ATOMIC_SEQ_CST))
			return true;
	}
	return false;
}

static gfn_t slot_first_missing(const struct memslot *slot, gfn_t first, gfn_t last)
{
	while (first <= last && !slot_is_missing(slot, first))
		first++;
	return first;
}

enum copy_kind { COPY_READ, COPY_WRITE, COPY_ROM };

/* What a piece of a copy leaves to be done once the slots are unlocked. */
struct piece {
	uint64_t len;
	hva_t hva;
	bool tracked;
	bool missing;
	struct mmu_vcpu *by; /* whose instruction writes, or NULL */
};

static int copy_piece(struct mmu_vm *vm, gpa_t gpa, void *data, enum copy_kind kind,
		      struct piece *p)
{
	struct memslot *slot = slot_of(vm, gpa >> PAGE_SHIFT);
	gfn_t first = gpa >> PAGE_SHIFT, last;
	uint64_t left;

	if (!slot)
		return -EFAULT;
	if (kind == COPY_WRITE && slot->flags & SLOT_READONLY)
		return -EROFS;
	left = ((slot->base + slot->npages) << PAGE_SHIFT) - gpa;
	p->len = MIN(p->len, left);
	p->hva = slot_hva(slot, first) + (gpa & ~PAGE_MASK);
	last = (gpa + p->len - 1) >> PAGE_SHIFT;
	if (unlikely(slot->missing)) {
		gfn_t missing = slot_first_missing(slot, first, last);

		if (missing <= last) {
			p->missing = true;
			p->hva = slot_hva(slot, missing);
			return 0;
		}
	}
	if (kind == COPY_READ) {
		guest_copy(data, (void *)(uintptr_t)p->hva, p->len, p->hva);
		return 0;
	}
	guest_copy((void *)(uintptr_t)p->hva, data, p->len, p->hva);
	for (gfn_t gfn = first; gfn <= last; gfn++)
		dirty_mark(p->by, slot, gfn);
	p->tracked = slot_any_shadowed(slot, first, last);
	return 0;
}

static int fetch_missing(struct mmu_vm *vm, gpa_t gpa, hva_t hva)
{
	if (!vm->ops->fetch_page)
		return -EFAULT;
	return vm->ops->fetch_page(vm->priv, gpa, hva);
}

static int slot_copy(struct mmu_vm *vm, struct mmu_vcpu *vcpu, gpa_t gpa, void *data, uint64_t len,
		     enum copy_kind kind)
{
	if (gpa + len < gpa)
		return -EFAULT;
	while (len) {
		struct piece p = {.len = len, .by = vcpu};
		int r;

		pthread_rwlock_rdlock(&vm->slots_lock);
		r = copy_piece(vm, gpa, data, kind, &p);
		pthread_rwlock_unlock(&vm->slots_lock);
		if (r)
			return r;
		if (p.missing) {
			r = fetch_missing(vm, gpa, p.hva);
			if (r)
				return r;
			continue;
		}
		if (p.tracked)
			track_write(vm, vcpu, gpa, p.len);
		if (kind != COPY_READ)
			vm->ops->notify_write(vm->priv, p.hva, p.len);
		gpa += p.len;
		data = (char *)data + p.len;
		len -= p.len;
	}
	return 0;
}

int slot_read(struct mmu_vm *vm, gpa_t gpa, void *data, uint64_t len)
{
	return slot_copy(vm, NULL, gpa, data, len, COPY_READ);
}

int slot_write(struct mmu_vm *vm, gpa_t gpa, const void *data, uint64_t len)
{
	return slot_copy(vm, NULL, gpa, (void *)(uintptr_t)data, len, COPY_WRITE);
}

int slot_write_rom(struct mmu_vm *vm, gpa_t gpa, const void *data, uint64_t len)
{
	return slot_copy(vm, NULL, gpa, (void *)(uintptr_t)data, len, COPY_ROM);
}

int mmu_guest_write(struct mmu_vcpu *vcpu, gpa_t gpa, const void *data, uint64_t len)
{
	return slot_copy(vcpu->vm, vcpu, gpa, (void *)(uintptr_t)data, len, COPY_WRITE);
}

/* Compare and exchange at an aligned host address. Whether it was done. */
static bool host_cmpxchg(hva_t hva, uint64_t *expected, uint64_t desired, unsigned size)
{
	void *p = (void *)(uintptr_t)hva;
	bool done = false;

#define CASE(type)                                                                                 \
	do {                                                                                       \
		type want = (type)*expected;                                                       \
		done = __atomic_compare_exchange_n((type *)p, &want, (type)desired, false,         \
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);            \
		if (!done)                                                                         \
			*expected = want;                                                          \
	} while (0)
	switch (size) {
	case 1: CASE(uint8_t); break;
	case 2: CASE(uint16_t); break;
	case 4: CASE(uint32_t); break;
	case 8: CASE(uint64_t); break;
	}
#undef CASE
	return done;
}

static bool host_cmpxchg16(hva_t hva, uint64_t expected[2], const uint64_t desired[2])
{
	uint64_t *p = (uint64_t *)(uintptr_t)hva;
	bool done;

	asm volatile("lock cmpxchg16b %[mem]"
		     : "=@ccz"(done), [mem] "+m"(*(char(*)[16])p), "+a"(expected[0]),
		       "+d"(expected[1])
		     : "b"(desired[0]), "c"(desired[1])
		     : "memory");
	return done;
}

static int slot_exchange(struct mmu_vm *vm, struct mmu_vcpu *vcpu, gpa_t gpa, uint64_t *expected,
			 const uint64_t *desired, unsigned size)
{
	struct memslot *slot;
	bool done = false, tracked = false, missing = false;
	hva_t hva = 0;
	int r = 0;

	if (!size || size > 16 || size & (size - 1) || gpa & (size - 1))
		return -EINVAL;
again:
	pthread_rwlock_rdlock(&vm->slots_lock);
	slot = slot_of(vm, gpa >> PAGE_SHIFT);
	if (!slot) {
		r = -EFAULT;
	} else if (slot->flags & SLOT_READONLY) {
		r = -EROFS;
	} else {
		gfn_t gfn = gpa >> PAGE_SHIFT;

		hva = slot_hva(slot, gfn) + (gpa & ~PAGE_MASK);
		missing = slot_is_missing(slot, gfn);
		if (!missing) {
			done = size == 16 ? host_cmpxchg16(hva, expected, desired)
					  : host_cmpxchg(hva, expected, *desired, size);
			/* A locked access writes, also when it differed. */
			dirty_mark(vcpu, slot, gfn);
			tracked = done && slot_any_shadowed(slot, gfn, gfn);
		}
	}
	pthread_rwlock_unlock(&vm->slots_lock);
	if (r)
		return r;
	if (missing) {
		r = fetch_missing(vm, gpa, hva);
		if (r)
			return r;
		goto again;
	}
	if (!done)
		return 1;
	if (tracked)
		track_write(vm, vcpu, gpa, size);
	vm->ops->notify_write(vm->priv, hva, size);
	return 0;
}

int slot_cmpxchg(struct mmu_vm *vm, gpa_t gpa, uint64_t *expected, uint64_t desired, unsigned size)
{
	return size == 16 ? -EINVAL : slot_exchange(vm, NULL, gpa, expected, &desired, size);
}

int mmu_guest_cmpxchg(struct mmu_vcpu *vcpu, gpa_t gpa, uint64_t *expected, uint64_t desired,
		      unsigned size)
{
	return size == 16 ? -EINVAL : slot_exchange(vcpu->vm, vcpu, gpa, expected, &desired, size);
}

int mmu_guest_cmpxchg16(struct mmu_vcpu *vcpu, gpa_t gpa, uint64_t expected[2],
			const uint64_t desired[2])
{
	return slot_exchange(vcpu->vm, vcpu, gpa, expected, desired, 16);
}

/* ---- windows ---- */

int slot_map(struct mmu_vm *vm, gpa_t gpa, uint64_t len, uint32_t access, struct slot_window *win)
{
	struct memslot *slot;
	gfn_t gfn = gpa >> PAGE_SHIFT, missing;
	int r;

	if (!len)
		return -EFAULT;
again:
	r = 0;
	missing = ~0ull;
	pthread_rwlock_rdlock(&vm->slots_lock);
	slot = slot_of(vm, gfn);
	if (!slot) {
		r = -EFAULT;
	} else if (access & MMU_ACC_WRITE && slot->flags & SLOT_READONLY) {
		r = -EROFS;
	} else {
		uint64_t left = ((slot->base + slot->npages) << PAGE_SHIFT) - gpa;
		gfn_t last;

		*win = (struct slot_window){
			.host = (void *)(uintptr_t)(slot_hva(slot, gfn) + (gpa & ~PAGE_MASK)),
			.len = MIN(len, left),
			.gpa = gpa,
			.slot_id = slot->id,
			.access = access,
		};
		last = (gpa + win->len - 1) >> PAGE_SHIFT;
		if (slot->missing)
			missing = slot_first_missing(slot, gfn, last);
		if (missing > last)
			__atomic_fetch_add(&slot->pins, 1, __ATOMIC_ACQ_REL);
		else
			r = 1;
	}
	pthread_rwlock_unlock(&vm->slots_lock);
	if (r == 1) {
		r = fetch_missing(vm, missing << PAGE_SHIFT,
				  (hva_t)(uintptr_t)win->host + (missing << PAGE_SHIFT) - gpa);
		if (!r)
			goto again;
	}
	return r;
}

void slot_unmap(struct mmu_vm *vm, struct slot_window *win, uint64_t written)
{
	bool tracked = false;
	struct memslot *slot;

	if (!win->host)
		return;
	pthread_rwlock_rdlock(&vm->slots_lock);
	slot = vm->by_id[win->slot_id];
	if (written && win->access & MMU_ACC_WRITE) {
		gfn_t first = win->gpa >> PAGE_SHIFT;
		gfn_t last = (win->gpa + MIN(written, win->len) - 1) >> PAGE_SHIFT;

		for (gfn_t gfn = first; gfn <= last; gfn++)
			dirty_mark(NULL, slot, gfn);
		tracked = slot_any_shadowed(slot, first, last);
	}
	__atomic_fetch_sub(&slot->pins, 1, __ATOMIC_ACQ_REL);
	pthread_rwlock_unlock(&vm->slots_lock);
	if (written && win->access & MMU_ACC_WRITE) {
		uint64_t len = MIN(written, win->len);

		if (tracked)
			track_write(vm, NULL, win->gpa, len);
		vm->ops->notify_write(vm->priv, (hva_t)(uintptr_t)win->host, len);
	}
	win->host = NULL;
}

hva_t slot_gpa_to_hva(struct mmu_vm *vm, gpa_t gpa)
{
	struct memslot *slot;
	hva_t hva = 0;

	pthread_rwlock_rdlock(&vm->slots_lock);
	slot = slot_of(vm, gpa >> PAGE_SHIFT);
	if (slot)
		hva = slot_hva(slot, gpa >> PAGE_SHIFT) + (gpa & ~PAGE_MASK);
	pthread_rwlock_unlock(&vm->slots_lock);
	return hva;
}

bool slot_hva_to_gpa(struct mmu_vm *vm, hva_t hva, gpa_t *gpa)
{
	bool found = false;

	pthread_rwlock_rdlock(&vm->slots_lock);
	for (uint32_t i = 0; i < vm->nr_slots && !found; i++) {
		const struct memslot *s = vm->sorted[i];

		found = hva - s->hva < s->npages << PAGE_SHIFT;
		if (found)
			*gpa = (s->base << PAGE_SHIFT) + (hva - s->hva);
	}
	pthread_rwlock_unlock(&vm->slots_lock);
	return found;
}

/* ---- DMA ---- */

static int dma_copy(const struct dma_space *space, uint64_t iova, void *data, uint64_t len,
		    enum copy_kind kind)
{
	if (!space->translate)
		return slot_copy(space->vm, NULL, iova, data, len, kind);
	while (len) {
		uint32_t access = kind == COPY_WRITE ? MMU_ACC_WRITE : 0;
		uint64_t piece = 0;
		gpa_t gpa;
		int r = space->translate(space->priv, iova, len, access, &gpa, &piece);

		if (r || !piece || piece > len)
			return r ? r : -EFAULT;
		r = slot_copy(space->vm, NULL, gpa, data, piece, kind);
		if (r)
			return r;
		iova += piece;
		data = (char *)data + piece;
		len -= piece;
	}
	return 0;
}

int dma_read(const struct dma_space *space, uint64_t iova, void *data, uint64_t len)
{
	return dma_copy(space, iova, data, len, COPY_READ);
}

int dma_write(const struct dma_space *space, uint64_t iova, const void *data, uint64_t len)
{
	return dma_copy(space, iova, (void *)(uintptr_t)data, len, COPY_WRITE);
}

int dma_map(const struct dma_space *space, uint64_t iova, uint64_t len, uint32_t access,
	    struct slot_window *win)
{
	uint64_t piece = len;
	gpa_t gpa = iova;

	if (space->translate) {
		int r = space->translate(space->priv, iova, len, access, &gpa, &piece);

		if (r || !piece || piece > len)
			return r ? r : -EFAULT;
	}
	return slot_map(space->vm, gpa, piece, access, win);
}
