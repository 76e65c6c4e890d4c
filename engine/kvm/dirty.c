/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's dirty log, bitmap or rings, as struct mmu_ops wants it. See DESIGN.md, "Dirty log".
 */
#include "engine/kvm/kvm_internal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bitmap.h"

/* Of one logged slot, with the bitmap. */
struct slot_log {
	uint64_t npages;
	uint64_t *kernel; /* as KVM_GET_DIRTY_LOG gave it last */
	/*
	 * Told to the mmu, and neither cleared in the kernel since: no more than is set there.
	 * Those are all that may be cleared: what came after the look is told by the next one.
	 */
	uint64_t *told;
	uint64_t *mask;	   /* what is being cleared */
	uint64_t overruns; /* (rings) those that were made good */
};

struct kvm_dirty {
	bool ring;	    /* else a bitmap */
	bool clears;	    /* bitmap: by KVM_CLEAR_DIRTY_LOG, not by looking */
	bool initially_set; /* …and all is set in a new log, with nothing protected */
	uint32_t entries;   /* of a ring */
	/* Over entries from being taken until their pages are told. */
	pthread_mutex_t harvest_lock;
	uint64_t overruns; /* atomic: of rings; each time entries may have been lost */
	/* vCPUs that wait for room in a client's ring. */
	pthread_mutex_t wait_lock;
	pthread_cond_t wait_cond;
	struct slot_log log[SLOT_MAX_ID + 1];
};

/* ---- the bitmap ---------------------------------------------------------------------------- */

static void log_free(struct slot_log *log)
{
	free(log->kernel);
	memset(log, 0, sizeof(*log));
}

static int log_make(const struct kvm_dirty *d, struct slot_log *log, const struct slot_desc *slot)
{
	uint64_t npages = slot->size >> PAGE_SHIFT, words = BITMAP_WORDS(npages);
	uint64_t *maps = calloc(3 * words, 8);

	if (!maps)
		return -ENOMEM;
	*log = (struct slot_log){
		.npages = npages,
		.kernel = maps,
		.told = maps + words,
		.mask = maps + 2 * words,
	};
	/* Told it is not, but those who watch either have all of it anyway or clear all of it. */
	if (!d->initially_set)
		return 0;
	memset(log->told, 0xff, words * 8);
	if (npages % 64)
		log->told[words - 1] = BIT(npages % 64) - 1;
	return 0;
}

int kvm_dirty_slot(struct engine_vm *vm, const struct slot_desc *from, const struct slot_desc *to)
{
	struct kvm_dirty *d = vm->dirty;
	struct slot_log *log = &d->log[from ? from->id : to->id];
	bool was = from && from->flags & SLOT_LOGGED, is = to && to->flags & SLOT_LOGGED;

	if (d->ring) {
		log->overruns = __atomic_load_n(&d->overruns, __ATOMIC_SEQ_CST);
		return 0;
	}
	if (was && is) {
		/* Whether the kernel kept its bitmap need not be known: what is set is told again.
		 */
		memset(log->told, 0, BITMAP_WORDS(log->npages) * 8);
		return 0;
	}
	if (!is) {
		/* It may still be asked for, if the kernel then refuses to end the log. */
		if (!to)
			log_free(log);
		return 0;
	}
	log_free(log);
	return log_make(d, log, to);
}

int kvm_dirty_collect(void *priv, const struct slot_desc *slot, mmu_dirty_fn fn, void *arg)
{
	struct engine_vm *vm = priv;
	struct slot_log *log = &vm->dirty->log[slot->id];
	struct kvm_dirty_log get = {.slot = slot->id, .dirty_bitmap = log->kernel};
	int ret = kvm_call(vm->fd, KVM_GET_DIRTY_LOG, &get);

	if (ret < 0)
		return ret;
	for (uint64_t i = 0; i < BITMAP_WORDS(log->npages); i++) {
		uint64_t fresh = log->kernel[i] & ~log->told[i];

		if (!fresh)
			continue;
		fn(arg, i, fresh);
		if (vm->dirty->clears)
			log->told[i] |= fresh;
	}
	return 0;
}

/* Pages [64 * @first, ..] of @words words of log->mask. */
static int clear_words(struct engine_vm *vm, uint32_t slot_id, uint64_t first, uint64_t words)
{
	struct slot_log *log = &vm->dirty->log[slot_id];
	uint64_t end = MIN((first + words) * 64, log->npages), any = 0;
	struct kvm_clear_dirty_log clear = {
		.slot = slot_id,
		.first_page = first * 64,
		.num_pages = (uint32_t)(end - first * 64),
		.dirty_bitmap = log->mask + first,
	};
	int ret;

	for (uint64_t i = first; i < first + words; i++)
		any |= log->mask[i];
	if (!any)
		return 0;
	ret = kvm_call(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear);
	if (ret < 0)
		return ret;
	for (uint64_t i = first; i < first + words; i++)
		log->told[i] &= ~log->mask[i];
	return 0;
}

/* What the kernel takes in one request, and its lock with it: 4 GiB of guest. */
#define CLEAR_WORDS (BIT(20) / 64)

static int clear_all(struct engine_vm *vm, uint32_t slot_id)
{
	struct slot_log *log = &vm->dirty->log[slot_id];
	uint64_t words = BITMAP_WORDS(log->npages);
	int ret = 0;

	memcpy(log->mask, log->told, words * 8);
	for (uint64_t i = 0; i < words && !ret; i += CLEAR_WORDS)
		ret = clear_words(vm, slot_id, i, MIN(words - i, CLEAR_WORDS));
	return ret;
}

static int clear_frames(struct engine_vm *vm, const struct slot_desc *slot, const gfn_t *gfns,
			size_t n)
{
	struct slot_log *log = &vm->dirty->log[slot->id];
	gfn_t base = slot->gpa >> PAGE_SHIFT;
	uint64_t first = (gfns[0] - base) / 64, words = (gfns[n - 1] - base) / 64 + 1 - first;

	memset(log->mask + first, 0, words * 8);
	for (size_t i = 0; i < n; i++) {
		uint64_t page = gfns[i] - base;

		if (bitmap_test(log->told, page))
			bitmap_set(log->mask, page);
	}
	return clear_words(vm, slot->id, first, words);
}

/* ---- rings --------------------------------------------------------------------------------- */

/* Entries taken, given back and told at a time. */
#define HARVEST 128u
/*
 * The kernel says how many entries it has taken: newer ones stop short when a signal is pending,
 * and tell no error.
 */
#define GIVE_BACK_TRIES 1000

static uint32_t flags_at(const struct engine_vcpu *v, uint32_t n)
{
	const struct kvm_dirty_gfn *e = &v->ring[n & (v->vm->dirty->entries - 1)];

	return __atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_MASK;
}

static void hand_back(struct engine_vcpu *v)
{
	struct kvm_dirty_gfn *e = &v->ring[v->ring_next++ & (v->vm->dirty->entries - 1)];

	__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
}

static size_t take_entries(struct engine_vcpu *v, struct dirty_ring_entry *pages)
{
	size_t n = 0;

	for (; n < HARVEST; n++) {
		const struct kvm_dirty_gfn *e =
			&v->ring[v->ring_next & (v->vm->dirty->entries - 1)];
		uint32_t flags = flags_at(v, v->ring_next);

		/* Skewed: what was handed back once is handed back again. */
		if (flags != KVM_DIRTY_GFN_F_DIRTY && !(flags && v->ring_skewed))
			break;
		pages[n] = (struct dirty_ring_entry){.slot_id = e->slot, .page = e->offset};
		hand_back(v);
	}
	return n;
}

/*
 * The kernel protects their pages. 0; -errno; or how many entries it has not taken, since it has
 * written over them.
 */
static int give_back(struct engine_vm *vm, size_t n)
{
	for (unsigned k = 0; n && k < GIVE_BACK_TRIES; k++) {
		int ret = kvm_call_n(vm->fd, KVM_RESET_DIRTY_RINGS, 0);

		if (ret < 0)
			return ret;
		n -= MIN(n, (size_t)ret);
		if (n && !ret)
			sched_yield();
	}
	return (int)n;
}

/*
 * The kernel keeps a reserve for what a vCPU writes before it looks at its ring again; but one that
 * emulates many instructions at a time (kvm_pvm) overruns it. Nobody knows which pages were lost:
 * from now on it is all of them (kvm_dirty_collect_lost()).
 */
static void note_overrun(struct engine_vcpu *v)
{
	v->ring_skewed = true;
	__atomic_fetch_add(&v->vm->dirty->overruns, 1, __ATOMIC_SEQ_CST);
}

/* Full to the brim: then there may have been more. */
static bool is_full(const struct engine_vcpu *v)
{
	return flags_at(v, v->ring_next + v->vm->dirty->entries - 1) == KVM_DIRTY_GFN_F_DIRTY;
}

/*
 * Entries that were written over are taken once, and counted twice by the kernel: so between its
 * two marks lie empty ones, up to the next that it wrote. They are handed back as if they had been
 * full, which protects some page for nothing.
 */
static int skip_holes(struct engine_vcpu *v)
{
	uint32_t entries = v->vm->dirty->entries, n = 0;
	int left;

	while (n < entries && !flags_at(v, n + v->ring_next))
		n++;
	if (n == entries)
		return 0;
	/* The kernel writes in order, and may have begun before that one, behind our back. */
	for (n = 0; !flags_at(v, v->ring_next + n);)
		n++;
	for (uint32_t k = 0; k < n; k++)
		hand_back(v);
	left = give_back(v->vm, n);
	if (left > 0) {
		v->ring_next -= (uint32_t)left;
		note_overrun(v);
	}
	return MIN(left, 0);
}

/* What was taken, or -errno. Told only when it is protected: who clears a page that was told need
 * not ask the kernel. */
static ssize_t harvest(struct engine_vcpu *v)
{
	struct dirty_ring_entry pages[HARVEST];
	ssize_t sum = 0;
	bool full;
	size_t n;
	int left = v->ring_skewed ? skip_holes(v) : 0;

	if (left < 0)
		return left;
	do {
		full = is_full(v);
		n = take_entries(v, pages);
		left = give_back(v->vm, n);
		mmu_kernel_log(v->mmu, pages, n);
		if (left < 0)
			return left;
		if (full || left)
			note_overrun(v);
		v->ring_next -= (uint32_t)left;
		sum += (ssize_t)n;
	} while (n == HARVEST && !left);
	return sum;
}

static ssize_t harvest_locked(struct engine_vcpu *v)
{
	struct kvm_dirty *d = v->vm->dirty;
	ssize_t ret;

	if (!v->ring)
		return 0;
	pthread_mutex_lock(&d->harvest_lock);
	ret = harvest(v);
	/* What is not known to be protected counts as lost. */
	if (ret < 0)
		note_overrun(v);
	pthread_mutex_unlock(&d->harvest_lock);
	return ret;
}

void kvm_dirty_drain(void *priv)
{
	struct engine_vm *vm = priv;

	/* A processor that logs by itself (PML) hands that over when it leaves guest mode. */
	for (unsigned k = 0; k < vm->count; k++)
		harvest_locked(&vm->vcpus[k]);
}

/* The log begins anew, with all protected; what was written until then is told. */
int kvm_dirty_collect_lost(void *priv, const struct slot_desc *slot, mmu_dirty_fn fn, void *arg)
{
	struct engine_vm *vm = priv;
	struct slot_log *log = &vm->dirty->log[slot->id];
	uint64_t overruns = __atomic_load_n(&vm->dirty->overruns, __ATOMIC_SEQ_CST);
	struct slot_desc logged = *slot;
	int ret;

	if (log->overruns == overruns)
		return 0;
	ret = kvm_slot_set(vm, slot, true);
	logged.flags |= SLOT_LOGGED;
	if (!ret)
		ret = kvm_slot_set(vm, &logged, true);
	if (ret)
		return ret;
	for (uint64_t i = 0; i < BITMAP_WORDS(slot->size >> PAGE_SHIFT); i++)
		fn(arg, i, ~0ull);
	log->overruns = overruns;
	return 0;
}

/*
 * The kernel says that it is full, and there is nothing in it: all that it counts are holes. A
 * quarter of the ring is less than its bound in any case.
 */
static int drop_holes(struct engine_vcpu *v)
{
	uint32_t n = v->vm->dirty->entries / 4;
	int left;

	note_overrun(v);
	for (uint32_t k = 0; k < n; k++)
		hand_back(v);
	left = give_back(v->vm, n);
	return left > 0 ? -EIO : left;
}

int kvm_dirty_ring_full(struct engine_vcpu *v)
{
	struct kvm_dirty *d = v->vm->dirty;
	ssize_t n = harvest_locked(v);
	int ret = 0;

	if (n < 0)
		return (int)n;
	pthread_mutex_lock(&d->harvest_lock);
	/* Not when another thread has just emptied it: full again, and nobody has touched it. */
	if (!n && v->ring_stuck && v->ring_stuck_at == v->ring_next)
		ret = drop_holes(v);
	v->ring_stuck = !n;
	v->ring_stuck_at = v->ring_next;
	pthread_mutex_unlock(&d->harvest_lock);
	return ret;
}

/* ---- the rings of a dirty client are full -------------------------------------------------- */

bool kvm_dirty_enter(struct engine_vcpu *v)
{
	struct kvm_dirty *d = v->vm->dirty;
	struct mmu_root none;

	if (mmu_load(v->mmu, &none) != MMU_RING_FULL)
		return true;
	v->stats.waits++;
	pthread_mutex_lock(&d->wait_lock);
	__atomic_store_n(&v->ring_waits, 1, __ATOMIC_SEQ_CST);
	/* Who makes room kicks (mmu_ops.kick). */
	while (!__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST))
		pthread_cond_wait(&d->wait_cond, &d->wait_lock);
	__atomic_store_n(&v->ring_waits, 0, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&d->wait_lock);
	return false;
}

void kvm_dirty_wake(struct engine_vcpu *v)
{
	struct kvm_dirty *d = v->vm->dirty;

	if (likely(!__atomic_load_n(&v->ring_waits, __ATOMIC_SEQ_CST)))
		return;
	pthread_mutex_lock(&d->wait_lock);
	pthread_cond_broadcast(&d->wait_cond);
	pthread_mutex_unlock(&d->wait_lock);
}

/* ---- both ---------------------------------------------------------------------------------- */

int kvm_dirty_protect(void *priv, const struct slot_desc *slot, const gfn_t *gfns, size_t n)
{
	struct engine_vm *vm = priv;

	if (!vm->dirty->clears)
		return 0; /* what was told was protected before that */
	return gfns ? clear_frames(vm, slot, gfns, n) : clear_all(vm, slot->id);
}

/* ---- making -------------------------------------------------------------------------------- */

int kvm_dirty_setup(struct engine_vm *vm)
{
	uint32_t flags = vm->caps.manual_protect;
	struct kvm_dirty *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	pthread_mutex_init(&d->harvest_lock, NULL);
	pthread_mutex_init(&d->wait_lock, NULL);
	pthread_cond_init(&d->wait_cond, NULL);
	vm->dirty = d;
	if (vm->config.dirty_ring) {
		d->ring = true;
		d->entries = vm->config.dirty_ring;
		return kvm_enable_cap(vm->fd, vm->caps.dirty_ring_cap,
				      d->entries * sizeof(struct kvm_dirty_gfn));
	}
	flags &= KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
	if (!(flags & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE))
		return 0;
	d->clears = true;
	d->initially_set = flags & KVM_DIRTY_LOG_INITIALLY_SET;
	return kvm_enable_cap(vm->fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags);
}

void kvm_dirty_finish(struct engine_vm *vm)
{
	struct kvm_dirty *d = vm->dirty;

	if (!d)
		return;
	for (unsigned k = 0; k <= SLOT_MAX_ID; k++)
		log_free(&d->log[k]);
	pthread_mutex_destroy(&d->harvest_lock);
	pthread_mutex_destroy(&d->wait_lock);
	pthread_cond_destroy(&d->wait_cond);
	free(d);
	vm->dirty = NULL;
}

bool kvm_dirty_ring_on(const struct engine_vm *vm)
{
	return vm->dirty->ring;
}

int kvm_dirty_vcpu(struct engine_vcpu *v)
{
	const struct kvm_dirty *d = v->vm->dirty;
	int ret = 0;

	if (!d->ring)
		return 0;
	v->ring = kvm_map(v->fd, d->entries * sizeof(*v->ring),
			  KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_SIZE, &ret);
	return ret;
}

void kvm_dirty_vcpu_finish(struct engine_vcpu *v)
{
	if (v->ring)
		munmap(v->ring, v->vm->dirty->entries * sizeof(*v->ring));
	v->ring = NULL;
}
