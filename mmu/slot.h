/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memslots, and the one way by which L0 and devices reach guest memory. */
#ifndef UMBRA_MMU_SLOT_H
#define UMBRA_MMU_SLOT_H

#include "mmu/types.h"

#define SLOT_MAX_ID 511 /* ids are 0..511 */

/* The guest's writes are MMIO (result MMU_MMIO), slot_write() refuses with -EROFS. */
#define SLOT_READONLY BIT(0)

struct slot_desc {
	uint32_t id;
	uint32_t flags;
	gpa_t gpa;
	uint64_t size; /* bytes */
	void *host;    /* stays the caller's; must stay mapped until slot_delete() returned */
};

/*
 * All return 0 or -errno and may be called while vCPUs run; none of the caller's vCPU may be in
 * guest mode. -EINVAL: an address or size that is zero or no multiple of 4 KiB, a wrap-around, an
 * id out of range; -EEXIST: the id is taken, or the range overlaps another slot; -ENOENT: no such
 * slot; -EBUSY: a device holds a slot_map() of it.
 * Large pages need @host and @gpa to agree in their low 21 (30) bits.
 */
int slot_add(struct mmu_vm *vm, const struct slot_desc *desc);
int slot_delete(struct mmu_vm *vm, uint32_t id);
int slot_move(struct mmu_vm *vm, uint32_t id, gpa_t gpa);
int slot_set_flags(struct mmu_vm *vm, uint32_t id, uint32_t flags);

/*
 * Postcopy: while a page's bit in @missing (bit 0 is the slot's first page) is set, guest accesses
 * to it end in MMU_WAIT and slot_*() call mmu_ops.fetch_page first. NULL: all pages are here. The
 * map is the caller's; bits are cleared by it, atomically, after the page has arrived.
 */
int slot_set_missing(struct mmu_vm *vm, uint32_t id, uint64_t *missing);

/* A slot as it is now. Returns -ENOENT when @id is free. */
int slot_get(struct mmu_vm *vm, uint32_t id, struct slot_desc *desc);
/* The slot with the lowest gpa that is >= @from. Walk all with from = desc.gpa + desc.size. */
int slot_next(struct mmu_vm *vm, gpa_t from, struct slot_desc *desc);

/*
 * Copy from or to guest memory, over slot borders where slots adjoin. -EFAULT when a byte is in no
 * slot (nothing or a part was copied), -EROFS for a write to a read-only slot. Aligned 1-, 2-, 4-
 * and 8-byte accesses are single-copy atomic. A write is noted in the dirty log, told to the shadow
 * MMU when the page is a guest table, and to mmu_ops.notify_write.
 * May be called by any thread that is not inside mmu_ops.
 */
int slot_read(struct mmu_vm *vm, gpa_t gpa, void *data, uint64_t len);
int slot_write(struct mmu_vm *vm, gpa_t gpa, const void *data, uint64_t len);

/*
 * As slot_write() of @size (1, 2, 4, 8) bytes at an aligned gpa, if memory holds *@expected; else
 * stores what it holds there. 0 done, 1 differed, -errno. Atomic towards vCPUs.
 */
int slot_cmpxchg(struct mmu_vm *vm, gpa_t gpa, uint64_t *expected, uint64_t desired, unsigned size);

/* Boot images: writes to a read-only slot too (ROM). Otherwise as slot_write(). */
int slot_write_rom(struct mmu_vm *vm, gpa_t gpa, const void *data, uint64_t len);

/*
 * A window on guest memory, for virtqueues and data in place. @len may come back shorter than asked
 * for (the end of the slot). It holds the slot: slot_unmap() soon. What the window was used to
 * write ([0, @written)) is noted at slot_unmap().
 */
struct slot_window {
	void *host;
	uint64_t len;
	gpa_t gpa;
	uint32_t slot_id;
	uint32_t access;
};

/* @access: 0 or MMU_ACC_WRITE. 0, -EFAULT, -EROFS. */
int slot_map(struct mmu_vm *vm, gpa_t gpa, uint64_t len, uint32_t access, struct slot_window *win);
void slot_unmap(struct mmu_vm *vm, struct slot_window *win, uint64_t written);

/* The host address of a guest byte, or 0: for what is dropped at once (statistics, inspection). */
hva_t slot_gpa_to_hva(struct mmu_vm *vm, gpa_t gpa);
/* The guest address of a host byte; false when no slot holds it. */
bool slot_hva_to_gpa(struct mmu_vm *vm, hva_t hva, gpa_t *gpa);

/*
 * What a device calls memory: guest-physical, or what an IOMMU makes of it. Zero but for @vm is
 * guest-physical.
 */
struct dma_space {
	struct mmu_vm *vm;
	/*
	 * Optional. Maps @iova to *@gpa and says how many bytes (at most @len) lie there in one
	 * piece; 0 or -EFAULT.
	 */
	int (*translate)(void *priv, uint64_t iova, uint64_t len, uint32_t access, gpa_t *gpa,
			 uint64_t *piece);
	void *priv;
};

int dma_read(const struct dma_space *space, uint64_t iova, void *data, uint64_t len);
int dma_write(const struct dma_space *space, uint64_t iova, const void *data, uint64_t len);
/* As slot_map(); pair with slot_unmap(space->vm, …). */
int dma_map(const struct dma_space *space, uint64_t iova, uint64_t len, uint32_t access,
	    struct slot_window *win);

#endif
