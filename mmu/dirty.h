/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty log: which guest pages were written, told to named clients that do not disturb one
 * another. */
#ifndef UMBRA_MMU_DIRTY_H
#define UMBRA_MMU_DIRTY_H

#include <sys/types.h>

#include "mmu/types.h"

/* How a guest's write is noticed. PML needs TDP and a processor that logs; else -EOPNOTSUPP. */
enum dirty_notice {
	DIRTY_NOTICE_PROTECT, /* sptes lose their W bit; the first write faults */
	DIRTY_NOTICE_PML, /* sptes lose their D bit; the processor logs the gpa when it sets it */
};

/*
 * A client from dirty_client_create(). Its log covers the slots that dirty_client_watch() named.
 * All functions lock for themselves and may be called by any thread that is not inside mmu_ops.
 */
struct dirty_client;

/* All watched pages are dirty at first, and nothing is protected until the client clears. */
#define DIRTY_INITIALLY_SET BIT(0)

/* -EEXIST when the name is taken, -EINVAL when it is empty or longer than 31 bytes, -ENOMEM. */
int dirty_client_create(struct mmu_vm *vm, const char *name, uint32_t flags,
			struct dirty_client **ret_client);
void dirty_client_destroy(struct dirty_client *c);
const char *dirty_client_name(const struct dirty_client *c);

#define DIRTY_ALL_SLOTS UINT32_MAX /* those of now and those that come */
/* Begin, or stop, to log a slot for this client. 0, -ENOENT, -ENOMEM. */
int dirty_client_watch(struct dirty_client *c, uint32_t slot_id);
int dirty_client_unwatch(struct dirty_client *c, uint32_t slot_id);

/*
 * Step one: what is dirty. Copies the client's bits of @npages pages from page @first of the slot
 * to @bits (bit 0 is page @first; bits behind @npages in the last word are zeroed). Nothing is
 * cleared or protected. 0, -ENOENT, -EINVAL.
 */
int dirty_get(struct dirty_client *c, uint32_t slot_id, uint64_t first, uint64_t npages,
	      uint64_t *bits);
/*
 * Step two: take these pages off the client's log. When it returns, a write made later by anyone is
 * noticed again: so read the page's contents after this call, not before.
 */
int dirty_clear(struct dirty_client *c, uint32_t slot_id, uint64_t first, uint64_t npages,
		const uint64_t *bits);

/*
 * Both steps for up to @max pages at a time, at a cost of the dirty pages, not of the memory: the
 * frames taken are in @gfns, in rising order, and off the log. Returns their count; 0 when clean.
 */
ssize_t dirty_take(struct dirty_client *c, gfn_t *gfns, size_t max);
/* How many pages are dirty for this client; also folds in what was noticed. */
uint64_t dirty_count(struct dirty_client *c);

/* L0 wrote @len bytes by a way of its own (a slot's window, a mapping handed out). */
void dirty_note(struct mmu_vm *vm, gpa_t gpa, uint64_t len);

/*
 * A writer outside the process sets bits (atomically, one a page of the slot) in a map that it
 * shares; they are collected wherever clients ask. NULL ends it. The map is the caller's.
 */
int dirty_share_bitmap(struct mmu_vm *vm, uint32_t slot_id, uint64_t *map);

int dirty_set_notice(struct mmu_vm *vm, enum dirty_notice how);

/*
 * Telling by a ring a vCPU (one producer, the vCPU; one consumer, the client that asked for it).
 * The consumer advances @tail by reading; pages it took are protected again by dirty_ring_reset().
 * When fewer than @reserve entries are free mmu_page_fault() and mmu_load() return MMU_RING_FULL,
 * and the vCPU waits until the consumer caught up: that is the back-pressure.
 */
struct dirty_ring_entry {
	uint32_t slot_id;
	uint32_t flags;
	uint64_t page; /* in the slot */
};
struct dirty_ring {
	struct dirty_ring_entry *entries;
	uint32_t size;	/* a power of two */
	uint32_t head;	/* written by the vCPU, atomically */
	uint32_t tail;	/* written by the consumer, atomically */
	uint32_t reset; /* up to here pages are protected again */
};
/* @size entries (a power of two, 64..65536) for every vCPU; 0 ends it. 0, -EINVAL, -EBUSY, -ENOMEM.
 */
int dirty_ring_enable(struct dirty_client *c, uint32_t size);
/* NULL when there is none. */
struct dirty_ring *dirty_ring_get(struct mmu_vcpu *vcpu);
/* Protect again the pages of all entries before each ring's @tail. */
int dirty_ring_reset(struct dirty_client *c);

#endif
