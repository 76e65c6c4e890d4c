/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty log told by a ring a vCPU, with back-pressure; the client's bitmap has all of it too.
 */
#include <errno.h>
#include <stdlib.h>

#include "mmu/dirty_internal.h"

#define RING_MIN 64
#define RING_MAX 65536
/* What one exit may tell: a fault's page and the tables that its walk marked; the processor's log.
 */
#define EXIT_ENTRIES 32u
#define PML_ENTRIES  512u

/* Producers are the vCPU itself and whoever hands over what its processor logged. */
struct ring {
	struct dirty_ring pub;
	pthread_mutex_t produce;
};

static struct dirty_ring *ring_new(uint32_t size)
{
	struct ring *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->pub.size = size;
	r->pub.entries = calloc(size, sizeof(*r->pub.entries));
	if (!r->pub.entries) {
		free(r);
		return NULL;
	}
	pthread_mutex_init(&r->produce, NULL);
	return &r->pub;
}

static void ring_free(struct dirty_ring *ring)
{
	struct ring *r = (struct ring *)ring;

	if (!r)
		return;
	pthread_mutex_destroy(&r->produce);
	free(r->pub.entries);
	free(r);
}

/*
 * Entries in use. What the consumer has read but not reset is: dirty_ring_reset() takes the pages
 * off the log that it finds there, and those had better be the ones that were read.
 */
static uint32_t ring_used(const struct dirty_ring *ring)
{
	uint32_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);

	return head - __atomic_load_n(&ring->reset, __ATOMIC_ACQUIRE);
}

static bool ring_is_full(const struct mmu_vm *vm, const struct dirty_ring *ring)
{
	bool pml = __atomic_load_n(&vm->pml, __ATOMIC_RELAXED);
	uint32_t reserve = EXIT_ENTRIES + (pml ? PML_ENTRIES : 0);

	return ring_used(ring) > ring->size - MIN(reserve, ring->size / 2);
}

bool dirty_ring_is_full(const struct mmu_vcpu *vcpu)
{
	return vcpu->ring && ring_is_full(vcpu->vm, vcpu->ring);
}

void dirty_ring_push(struct mmu_vcpu *vcpu, const struct memslot *slot, gfn_t gfn)
{
	struct dirty_ring *ring = vcpu->ring;
	pthread_mutex_t *produce = &((struct ring *)ring)->produce;
	uint32_t head;

	if (!vcpu->vm->ring_client->slot[slot->id])
		return;
	pthread_mutex_lock(produce);
	head = ring->head;
	if (ring_used(ring) == ring->size) {
		ring->dropped++;
	} else {
		ring->entries[head & (ring->size - 1)] = (struct dirty_ring_entry){
			.slot_id = slot->id,
			.page = gfn - slot->base,
		};
		__atomic_store_n(&ring->head, head + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(produce);
	/* What was not told by a fault (which looks itself) makes the vCPU look before it enters.
	 */
	if (ring_is_full(vcpu->vm, ring))
		__atomic_store_n(&vcpu->need_load, true, __ATOMIC_SEQ_CST);
}

/* ---- who has them ---- */

/* The vCPUs of full rings; kicked once there is room. */
static uint64_t rings_full(const struct mmu_vm *vm)
{
	struct mmu_vcpu *vcpu;
	uint64_t full = 0;

	list_for_each_entry (vcpu, &vm->vcpus, link) {
		if (dirty_ring_is_full(vcpu))
			full |= vcpu->bit;
	}
	return full;
}

static void rings_freed(struct mmu_vm *vm, uint64_t were_full)
{
	uint64_t room = were_full & ~rings_full(vm);

	if (room)
		vm->ops->kick(vm->priv, room);
}

static void rings_remove(struct mmu_vm *vm)
{
	uint64_t full = rings_full(vm);
	struct mmu_vcpu *vcpu;

	pthread_rwlock_wrlock(&vm->slots_lock);
	vm->ring_client = NULL;
	vm->ring_size = 0;
	list_for_each_entry (vcpu, &vm->vcpus, link) {
		ring_free(vcpu->ring);
		vcpu->ring = NULL;
	}
	pthread_rwlock_unlock(&vm->slots_lock);
	rings_freed(vm, full);
}

static int rings_make(struct dirty_client *c, uint32_t size)
{
	struct mmu_vm *vm = c->vm;
	struct mmu_vcpu *vcpu;
	int r = 0;

	pthread_rwlock_wrlock(&vm->slots_lock);
	vm->ring_client = c;
	vm->ring_size = size;
	list_for_each_entry (vcpu, &vm->vcpus, link) {
		vcpu->ring = ring_new(size);
		if (!vcpu->ring)
			r = -ENOMEM;
	}
	pthread_rwlock_unlock(&vm->slots_lock);
	if (r)
		rings_remove(vm);
	return r;
}

int dirty_vcpu_added(struct mmu_vcpu *vcpu)
{
	if (!vcpu->vm->ring_size)
		return 0;
	vcpu->ring = ring_new(vcpu->vm->ring_size);
	return vcpu->ring ? 0 : -ENOMEM;
}

/* What is left in its ring is in the bitmap, too. */
void dirty_vcpu_removed(struct mmu_vcpu *vcpu)
{
	ring_free(vcpu->ring);
	vcpu->ring = NULL;
}

int dirty_ring_enable(struct dirty_client *c, uint32_t size)
{
	struct mmu_vm *vm = c->vm;
	int r = 0;

	if (size && (size < RING_MIN || size > RING_MAX || size & (size - 1)))
		return -EINVAL;
	dirty_lock(vm);
	if (size && mmu_is_kernels(vm) && !vm->ops->drain_pml) {
		r = -EOPNOTSUPP;
	} else if (vm->ring_client && vm->ring_client != c) {
		r = size ? -EBUSY : 0;
	} else {
		if (vm->ring_client)
			rings_remove(vm);
		if (size)
			r = rings_make(c, size);
	}
	dirty_unlock(vm);
	return r;
}

struct dirty_ring *dirty_ring_get(struct mmu_vcpu *vcpu)
{
	return vcpu->ring;
}

bool dirty_ring_blocks(struct dirty_client *c)
{
	struct mmu_vm *vm = c->vm;
	bool blocks;

	mmu_lock(vm);
	blocks = vm->ring_client == c && rings_full(vm);
	mmu_unlock(vm);
	return blocks;
}

/* ---- the consumer ---- */

/* The client's log of the slot that an entry names; NULL when the slot went meanwhile. */
static struct client_slot *entry_slot(const struct mmu_vm *vm, const struct dirty_ring_entry *e)
{
	const struct memslot *slot = e->slot_id <= SLOT_MAX_ID ? vm->by_id[e->slot_id] : NULL;

	return slot && e->page < slot->npages ? vm->ring_client->slot[e->slot_id] : NULL;
}

static struct dirty_ring_entry *ring_entry(const struct dirty_ring *ring, uint32_t n)
{
	return &ring->entries[n & (ring->size - 1)];
}

static void ring_retire(struct mmu_vm *vm, struct dirty_ring *ring)
{
	uint32_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
	uint32_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);

	for (uint32_t n = ring->reset; n != head; n++) {
		const struct dirty_ring_entry *e = ring_entry(ring, n);
		const struct client_slot *cs = entry_slot(vm, e);

		if (cs && ml_word(&cs->bits, e->page / 64) >> (e->page % 64) & 1)
			break;
		if (n == tail)
			__atomic_store_n(&ring->tail, ++tail, __ATOMIC_RELEASE);
		__atomic_store_n(&ring->reset, n + 1, __ATOMIC_RELEASE);
	}
}

void dirty_rings_retire(struct dirty_client *c)
{
	struct mmu_vm *vm = c->vm;
	struct mmu_vcpu *vcpu;
	uint64_t full;

	if (vm->ring_client != c)
		return;
	full = rings_full(vm);
	list_for_each_entry (vcpu, &vm->vcpus, link) {
		if (vcpu->ring)
			ring_retire(vm, vcpu->ring);
	}
	rings_freed(vm, full);
}

static void ring_protect(struct mmu_vm *vm, const struct dirty_ring *ring, uint32_t tail)
{
	for (uint32_t n = ring->reset; n != tail; n++) {
		const struct dirty_ring_entry *e = ring_entry(ring, n);

		if (entry_slot(vm, e)) {
			struct memslot *slot = vm->by_id[e->slot_id];
			gfn_t gfn = slot->base + e->page;

			dirty_protect_frames(vm, slot, &gfn, 1);
		}
	}
}

static void ring_forget(struct mmu_vm *vm, struct dirty_ring *ring, uint32_t tail)
{
	for (uint32_t n = ring->reset; n != tail; n++) {
		const struct dirty_ring_entry *e = ring_entry(ring, n);
		struct client_slot *cs = entry_slot(vm, e);

		if (cs)
			cs->count -= ml_clear(&cs->bits, e->page / 64, BIT(e->page % 64));
	}
	__atomic_store_n(&ring->reset, tail, __ATOMIC_RELEASE);
}

int dirty_ring_reset(struct dirty_client *c)
{
	struct mmu_vm *vm = c->vm;
	struct mmu_vcpu *vcpu;
	uint64_t room = 0;

	dirty_lock(vm);
	if (vm->ring_client != c) {
		dirty_unlock(vm);
		return -EINVAL;
	}
	for (uint32_t s = 0; s < vm->nr_slots; s++)
		dirty_fold_slot(vm, vm->sorted[s]);
	list_for_each_entry (vcpu, &vm->vcpus, link) {
		struct dirty_ring *ring = vcpu->ring;
		uint32_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
		uint32_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);

		/* The consumer is trusted with its own account, not with the ring's bounds. */
		tail = tail - ring->reset > head - ring->reset ? head : tail;
		if (tail != ring->reset)
			room |= vcpu->bit;
		/* Flushed before the consumer can read a page. */
		ring_protect(vm, ring, tail);
		ring_forget(vm, ring, tail);
	}
	/* There is room: who waits is to look again. */
	if (room)
		vm->ops->kick(vm->priv, room);
	dirty_unlock(vm);
	return 0;
}
