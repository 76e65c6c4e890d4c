/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty log: which guest pages were written, told to named clients that do not disturb one
 * another. */
#ifndef UMBRA_MMU_DIRTY_H
#define UMBRA_MMU_DIRTY_H

#include <sys/types.h>

#include "mmu/types.h"

/* How a guest's write is noticed. PML needs TDP by EPT and a processor that logs; else -EOPNOTSUPP.
 */
enum dirty_notice {
	DIRTY_NOTICE_PROTECT, /* sptes lose their W bit; the first write faults */
	DIRTY_NOTICE_PML, /* sptes lose their D bit; the processor logs the gpa when it sets it */
};

/*
 * Under MMU_POLICY_KERNEL the kernel notices what vCPUs write, and its log is collected wherever a
 * client asks; dirty_set_notice() is -EOPNOTSUPP. What the kernel returns when it cannot be asked
 * (-errno) is returned by all functions here but dirty_count() and dirty_clients(), which tell what
 * could be learnt. A slot that comes while all slots are watched, or changes, is dirty as a whole
 * then.
 *
 * A client from dirty_client_create(). Its log covers the slots that dirty_client_watch() named.
 * All functions lock for themselves and may be called by any thread that is not inside mmu_ops; for
 * one client by one thread at a time.
 */
struct dirty_client;

/* All watched pages are dirty at first, and nothing is protected until the client clears. */
#define DIRTY_INITIALLY_SET BIT(0)

#define DIRTY_NAME_MAX 31

/* -EEXIST when the name is taken, -EINVAL when it is empty or longer than that, -ENOMEM. */
int dirty_client_create(struct mmu_vm *vm, const char *name, uint32_t flags,
			struct dirty_client **ret_client);
void dirty_client_destroy(struct dirty_client *c);
const char *dirty_client_name(const struct dirty_client *c);

#define DIRTY_ALL_SLOTS UINT32_MAX /* those of now and those that come */
/* Begin, or stop, to log a slot for this client. 0, -ENOENT, -ENOMEM. */
int dirty_client_watch(struct dirty_client *c, uint32_t slot_id);
int dirty_client_unwatch(struct dirty_client *c, uint32_t slot_id);

/* For a list of who logs, whoever made them. */
struct dirty_client_info {
	char name[DIRTY_NAME_MAX + 1];
	uint32_t flags;
	uint32_t ring;	/* entries of a vCPU's ring; 0: none */
	uint64_t dirty; /* pages */
};
/* Fills up to @max of @info in the order of creation; returns how many clients there are. */
size_t dirty_clients(struct mmu_vm *vm, struct dirty_client_info *info, size_t max);

/*
 * Step one: what is dirty. Copies the client's bits of @npages pages from page @first of the slot
 * to @bits (bit 0 is page @first; bits behind @npages in the last word are zeroed). Nothing is
 * cleared or protected. 0, -ENOENT, -EINVAL.
 */
int dirty_get(struct dirty_client *c, uint32_t slot_id, uint64_t first, uint64_t npages,
	      uint64_t *bits);
/*
 * The first page at or after *@page of the slot that is dirty, to *@page: so that what is clean
 * costs nothing. 0; -ENODATA when there is none; -ENOENT.
 */
int dirty_find(struct dirty_client *c, uint32_t slot_id, uint64_t *page);
/*
 * Step two: take these pages off the client's log. When it returns, a write made later by anyone is
 * noticed again: so read the page's contents after this call, not before. Pages that were not dirty
 * for this client stay as they are. 0, -ENOENT, -EINVAL; -ENOENT also when the slot went amid it.
 */
int dirty_clear(struct dirty_client *c, uint32_t slot_id, uint64_t first, uint64_t npages,
		const uint64_t *bits);

/*
 * Both steps for up to @max pages at a time, at a cost of the dirty pages, not of the memory: the
 * frames taken are in @gfns, slot by slot and rising within each as long as nobody writes, and off
 * the log. Returns their count; 0 when clean; -errno with none taken. What rings tell is among
 * them, see below. It begins with the lowest page at every call: who takes little at a time while a
 * guest writes, and wants each page once a round, sweeps by dirty_find(), dirty_get() and
 * dirty_clear() instead.
 */
ssize_t dirty_take(struct dirty_client *c, gfn_t *gfns, size_t max);
/* How many pages are dirty for this client; also folds in what was noticed. */
uint64_t dirty_count(struct dirty_client *c);

/* L0 wrote @len bytes by a way of its own (a slot's window, a mapping handed out). */
void dirty_note(struct mmu_vm *vm, gpa_t gpa, uint64_t len);

/*
 * A writer outside the process sets bits (atomically, one a page of the slot) in @map that it
 * shares; they are collected wherever clients ask. With @summary it then sets bit n of that for
 * word n of the map, and collecting costs by the bits set. NULL: the map is looked through, that is
 * 32 KiB for a GiB of guest: in dirty_get() and dirty_find() what the call is about, in
 * dirty_count() and in dirty_take() all, but in the latter only once what was known before has been
 * taken.
 * @map NULL ends it, and what is in the old map is collected. Maps are the caller's. 0, -ENOENT.
 */
int dirty_share_bitmap(struct mmu_vm *vm, uint32_t slot_id, uint64_t *map, uint64_t *summary);

/* May be changed at any time, logs on or not. All clients are told of what was noticed either way.
 */
int dirty_set_notice(struct mmu_vm *vm, enum dirty_notice how);
enum dirty_notice dirty_get_notice(struct mmu_vm *vm);

/*
 * Telling by a ring a vCPU (one producer, the vCPU; one consumer, the client that asked for it).
 * What a vCPU writes is told in its ring whether noticed by a fault, by the processor's log or in
 * an emulated instruction. The truth is the client's bitmap beside it, as everywhere: it also has
 * what L0 and devices wrote, who have no ring (they could not wait for room), and what found no
 * room.
 *
 * The consumer has two ways, and may mix them:
 * - dirty_take(), the one call that gets everything: rings and the rest, each page once;
 * - read the entries from tail to head without a lock, advance @tail, and dirty_ring_reset(): their
 *   pages are protected again and off the log, and only then is there room. Read the pages after
 *   that. What is in no ring is left for dirty_take() or dirty_get().
 *
 * When a ring has room for less than what one exit of the vCPU may tell (32 entries, with PML 544,
 * at most half the ring), mmu_page_fault() and mmu_load() return MMU_RING_FULL, and the vCPU waits
 * until the consumer caught up: that is the back-pressure. mmu_ops.kick tells of the room. A
 * consumer that goes away ends it by dirty_client_destroy(), by whoever finds that it did.
 *
 * Under MMU_POLICY_KERNEL the kernel's own rings feed these, when a client asks for anything and
 * when one of the kernel's is full; without them (its log is a bitmap, which does not say who
 * wrote) there is no telling by rings: -EOPNOTSUPP.
 */
struct dirty_ring_entry {
	uint32_t slot_id;
	uint32_t flags;
	uint64_t page; /* in the slot */
};
struct dirty_ring {
	struct dirty_ring_entry *entries;
	uint32_t size;	  /* a power of two */
	uint32_t head;	  /* written by the vCPU, atomically */
	uint32_t tail;	  /* written by the consumer, atomically */
	uint32_t reset;	  /* up to here pages are protected again, and entries free; atomic */
	uint32_t dropped; /* writes that found no room: they are in the bitmap only */
};
/* @size entries (a power of two, 64..65536) for every vCPU; 0 ends it. 0, -EINVAL, -EBUSY (another
 * client has the rings), -ENOMEM, -EOPNOTSUPP (see above). */
int dirty_ring_enable(struct dirty_client *c, uint32_t size);
/* NULL when there is none. Stays until the client's dirty_ring_enable() or _destroy(). */
struct dirty_ring *dirty_ring_get(struct mmu_vcpu *vcpu);
/* Protect again the pages of all entries before each ring's @tail. 0, -EINVAL: no rings. */
int dirty_ring_reset(struct dirty_client *c);
/* Does a vCPU wait for room? */
bool dirty_ring_blocks(struct dirty_client *c);

#endif
