/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between dirty.c, dirty_bits.c and dirty_ring.c: bitmaps of several levels, clients. */
#ifndef UMBRA_MMU_DIRTY_INTERNAL_H
#define UMBRA_MMU_DIRTY_INTERNAL_H

#include "mmu/mmu_internal.h"

/* ---- dirty_bits.c ---- */

/*
 * A bitmap is used in one of two ways: slot->noticed by many threads at once (ml_set_atomic,
 * ml_take, and nothing else), a client's with vm->lock held for writing (the rest). Either way the
 * cost is that of the bits that are set.
 */

/* Whether it was clear. A full barrier at least. */
bool ml_set_atomic(struct ml_bitmap *m, uint64_t bit);

typedef void (*ml_taken)(void *arg, uint64_t word_index, uint64_t word);
/* Take all bits, word by word in rising order, atomically towards setters. */
void ml_take(struct ml_bitmap *m, ml_taken fn, void *arg);

/* All bits set, at a cost of one word for 2^18 bits; the words themselves are written when touched.
 */
void ml_set_all(struct ml_bitmap *m);
/* The word as it is, without making it so. */
uint64_t ml_word(const struct ml_bitmap *m, uint64_t word_index);
/* Set or clear the bits of @mask in one word; how many changed. Bits behind the end are ignored. */
unsigned ml_or(struct ml_bitmap *m, uint64_t word_index, uint64_t mask);
unsigned ml_clear(struct ml_bitmap *m, uint64_t word_index, uint64_t mask);
/* The first word at or after @word_index that is not zero, or BITMAP_WORDS(m->bits). */
uint64_t ml_next_word(const struct ml_bitmap *m, uint64_t word_index);

/* ---- dirty.c ---- */

/* Pages cleared in one hold of the lock: faults wait no longer than for that. */
#define DIRTY_BATCH 4096u

struct client_slot {
	struct ml_bitmap bits;
	uint64_t count; /* of bits set */
};

struct dirty_client {
	struct mmu_vm *vm;
	struct list link;
	char name[32];
	uint32_t flags;
	bool all;			    /* watches what comes, too */
	struct client_slot *slot[NR_SLOTS]; /* NULL: not watched; changes under both locks */
	gfn_t batch[DIRTY_BATCH];	    /* dirty_clear() at work */
};

/* What the processors logged is in; vm->lock is held for writing. And the end: with the flush due.
 */
void dirty_lock(struct mmu_vm *vm);
void dirty_unlock(struct mmu_vm *vm);
/* What was noticed goes to every client. */
void dirty_fold_slot(struct mmu_vm *vm, struct memslot *slot);
/* The next write by a vCPU to each of these frames of the slot is noticed, once flushed. 0, or
 * (MMU_POLICY_KERNEL) -errno. */
int dirty_protect_frames(struct mmu_vm *vm, struct memslot *slot, const gfn_t *gfns, size_t n);

/* ---- dirty_ring.c ---- */

/* With vm->lock or slots_lock held. */
void dirty_ring_push(struct mmu_vcpu *vcpu, const struct memslot *slot, gfn_t gfn);
/* What stands first in the rings and was taken by other means needs no telling any more. */
void dirty_rings_retire(struct dirty_client *c);

#endif
