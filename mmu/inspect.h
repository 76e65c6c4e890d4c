/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the MMU holds, told as data: on a running machine, at a cost only when asked. */
#ifndef UMBRA_MMU_INSPECT_H
#define UMBRA_MMU_INSPECT_H

#include <sys/types.h>

#include "mmu/mmu.h"

/* All lock for themselves; any thread that is not inside mmu_ops. Nothing is changed by asking. */

/* How a guest's tables are read. */
enum mmu_paging {
	MMU_PAGING_NONE,
	MMU_PAGING_32,
	MMU_PAGING_PAE,
	MMU_PAGING_LONG, /* 4 or 5 levels */
	MMU_PAGING_EPT,
};

/* One entry of ours. */
struct mmu_host_step {
	uint8_t level;
	hpa_t hpa; /* where the entry lies */
	uint64_t raw;
};

/* The way from a linear address to the host, and the way through our tables. */
struct mmu_inspect_walk {
	enum mmu_paging paging;
	uint64_t cr3;
	int guest_result;	      /* 0; 1: guest.fault says why not */
	struct mmu_walk_result guest; /* steps from the guest's memory; no A or D bit was set */
	bool in_slot;
	struct slot_desc slot;
	hva_t hva; /* when in_slot */
	/* Under shadow for the gva, under TDP for the gpa; none without a root. */
	bool has_root;
	enum mmu_format format;
	uint8_t nsteps;
	struct mmu_host_step steps[MMU_MAX_LEVEL];
	bool present; /* the last step is a leaf: */
	bool mmio;    /* …or an MMIO entry */
	hpa_t hpa;    /* of the byte, when present */
};

/*
 * @regs: the vCPU's registers of now (under TDP the MMU does not see each change); NULL: those that
 * it last saw. 0 or -EINVAL (no registers yet).
 */
int mmu_inspect_walk(struct mmu_vcpu *vcpu, const struct mmu_regs *regs, gva_t gva,
		     struct mmu_inspect_walk *ret);

/* A shadow page. */
struct mmu_page_info {
	uint32_t index; /* of its block: for the next call's @from, plus 1 */
	gfn_t gfn;
	hpa_t hpa;
	uint8_t level;
	enum mmu_paging paging;
	enum mmu_format format;
	uint8_t quadrant, access, key;
	bool direct, nx, pse, wp, smep_andnot_wp, smap_andnot_wp, guest_mode, ad_disabled, invalid,
		unsync, frame;
	uint32_t root_count, parents, present, unsync_children, flood;
	uint64_t users;
	uint64_t slots[(SLOT_MAX_ID + 1) / 64]; /* that its leaves map */
};
/* Up to @max pages from block @from on; returns how many. */
size_t mmu_inspect_pages(struct mmu_vm *vm, uint32_t from, struct mmu_page_info *out, size_t max);

/* A root of a vCPU: the one in use first, then those cached. */
struct mmu_root_info {
	bool current, valid, obsolete;
	bool guest_mode; /* of guest_mmu */
	uint64_t cr3;
	hpa_t hpa;
	uint32_t role;
	uint8_t level;
};
size_t mmu_inspect_roots(struct mmu_vcpu *vcpu, struct mmu_root_info *out, size_t max);

/* A context, as `arch.mmu` shows in a crash dump. */
struct mmu_context_info {
	const char *page_fault, *gva_to_gpa; /* names of the operations in use */
	enum mmu_paging paging;
	enum mmu_format format;
	bool direct;
	hpa_t root_hpa;
	uint8_t root_level, shadow_root_level;
	uint32_t root_role, cpu_role;
	uint64_t cr3, pdptr[4];
	hpa_t pae_root[4]; /* 32-bit and PAE guests under shadow: the level-2 tables */
	uint64_t rsvd_bits[2][MMU_MAX_LEVEL];
	bool nx, wp, smep, smap, pke, la57;
	bool needs_load;
};
enum mmu_which {
	MMU_WHICH_CURRENT,
	MMU_WHICH_WALK,
	MMU_WHICH_ROOT,
	MMU_WHICH_GUEST,
	MMU_WHICH_NESTED
};
void mmu_inspect_context(struct mmu_vcpu *vcpu, enum mmu_which which, struct mmu_context_info *ret);

struct mmu_slot_info {
	struct slot_desc desc;
	uint32_t watchers, windows;
	uint64_t large_2m, large_1g;	     /* frames that a large page may map now */
	uint64_t large_2m_all, large_1g_all; /* frames wholly within the slot */
	bool host_aligned_2m, host_aligned_1g;
	uint64_t mapped_4k, mapped_2m, mapped_1g; /* frames with at least one spte */
};
int mmu_inspect_slot(struct mmu_vm *vm, uint32_t id, struct mmu_slot_info *ret);

/* An spte that maps a frame. */
struct mmu_rmap_info {
	hpa_t hpa; /* where it lies */
	uint64_t raw;
	uint8_t level;
	enum mmu_format format;
	gfn_t table_gfn; /* of the shadow page that holds it */
	uint32_t table_role;
	uint16_t index;
};
/* Up to @max of them after the first @skip; returns how many, or -ENOENT: the frame is in no slot.
 */
ssize_t mmu_inspect_rmap(struct mmu_vm *vm, gfn_t gfn, size_t skip, struct mmu_rmap_info *out,
			 size_t max);

/* A run of the guest's linear addresses with like permissions and frames that follow one another.
 */
struct mmu_map_range {
	gva_t start, end; /* the last byte */
	gpa_t gpa;
	uint8_t access;	    /* MMU_MAP_* */
	uint8_t page_shift; /* of the guest's pages */
	bool memory;	    /* in a slot */
};
/* Ranges from @from on, as the guest's tables say; returns how many (fewer than @max: the end). */
ssize_t mmu_inspect_map(struct mmu_vcpu *vcpu, const struct mmu_regs *regs, gva_t from,
			struct mmu_map_range *out, size_t max);

/* Entries in words: "P RW US A D XD 4K frame 0x…". Returns as snprintf() does. */
int mmu_format_guest_entry(enum mmu_paging paging, unsigned level, uint64_t raw, char *buf,
			   size_t size);
int mmu_format_spte(enum mmu_format format, unsigned level, uint64_t raw, char *buf, size_t size);

/* ---- faults as a stream ---- */

struct mmu_trace_event {
	uint32_t vcpu;
	uint64_t addr;
	uint32_t access, flags;
	int result; /* enum mmu_result or -errno */
	gpa_t gpa;
	uint32_t error_code; /* MMU_INJECT */
	bool fixed, write_tracked;
};
/*
 * @fn is called under the lock after each fault, by the vCPU's thread: it may only take a note.
 * NULL ends it; when that returns @fn is called no more. When off it costs one test a fault.
 */
void mmu_trace_set(struct mmu_vm *vm, void (*fn)(void *arg, const struct mmu_trace_event *e),
		   void *arg);

#endif
