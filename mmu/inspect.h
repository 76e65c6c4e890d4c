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

/* Why a walk of the guest's tables ends before a page. */
enum mmu_why {
	MMU_WHY_NONE, /* it does not */
	MMU_WHY_NOT_CANONICAL,
	MMU_WHY_NOT_PRESENT,
	MMU_WHY_RESERVED,   /* a reserved bit is set; EPT: a misconfiguration */
	MMU_WHY_NO_MEMORY,  /* the table lies in no memslot */
	MMU_WHY_MISSING,    /* the table's page is still on its way (slot_set_missing) */
	MMU_WHY_NESTED_EPT, /* L1's EPT does not map what L2's walk needs: guest.fault */
	MMU_WHY_COUNT,
};
const char *mmu_why_name(enum mmu_why why); /* a sentence's end */

/* Kinds of access that a page allows, all things considered (WP, SMEP, SMAP with AC clear, PKRU).
 */
#define MMU_MAY_READ	   BIT(0)
#define MMU_MAY_WRITE	   BIT(1)
#define MMU_MAY_FETCH	   BIT(2)
#define MMU_MAY_USER_READ  BIT(3)
#define MMU_MAY_USER_WRITE BIT(4)
#define MMU_MAY_USER_FETCH BIT(5)

/* The way from an address to the host, and the way through our tables. */
struct mmu_inspect_walk {
	enum mmu_paging paging;
	bool five_levels; /* with MMU_PAGING_LONG */
	uint64_t cr3;
	int guest_result; /* 0; 1: guest.fault and @why say why not */
	enum mmu_why why;
	uint64_t rsvd;		      /* MMU_WHY_RESERVED: the bits that must not be set there */
	struct mmu_walk_result guest; /* steps from the guest's memory; no A or D bit was set */
	uint8_t allowed;	      /* MMU_MAY_* */
	bool nested;		      /* the vCPU runs an L2, whose tables these are; then: */
	gpa_t ngpa;		      /* what they end in, if they do, */
	uint8_t nsteps_ept;	      /* and the way through L1's EPT from there */
	struct mmu_walk_step ept[MMU_MAX_LEVEL];
	bool in_slot;
	struct slot_desc slot;
	hva_t hva; /* when in_slot */
	/* Under shadow for the gva, under TDP for the gpa, where there is one; no step without a
	 * root. */
	bool has_root;
	bool by_gva; /* our tables map linear addresses: there is no way in by a gpa */
	hpa_t root;
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
/* The same for a guest-physical address: slot, host and our tables only. */
void mmu_inspect_gpa(struct mmu_vcpu *vcpu, gpa_t gpa, struct mmu_inspect_walk *ret);

/* What a table of ours stands for. */
struct mmu_role_info {
	uint32_t word;
	uint8_t level;
	enum mmu_paging paging; /* how the guest table behind it is read */
	enum mmu_format format;
	uint8_t quadrant, access, key; /* access: MMU_MAP_* that the tables above grant */
	bool direct, nx, pse, wp, smep_andnot_wp, smap_andnot_wp, guest_mode, ad_disabled,
		exec_only, global;
};
void mmu_role_decode(uint32_t word, struct mmu_role_info *ret);

/* A shadow page. */
struct mmu_page_info {
	uint32_t index; /* of its block: for the next call's @from, plus 1 */
	gfn_t gfn;
	hpa_t hpa;
	struct mmu_role_info role;
	bool invalid, unsync, frame;
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
	struct mmu_role_info role;
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
	struct mmu_role_info root_role;
	uint32_t cpu_role;
	uint64_t cr3, pdptr[4];
	hpa_t pae_root[4]; /* 32-bit and PAE guests under shadow: the level-2 tables */
	uint64_t rsvd_bits[2][MMU_MAX_LEVEL];
	/* Of the processor's role: */
	bool pse, nx, wp, smep, smap, pke, la57, ad_disabled, exec_only, guest_mode;
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
	struct mmu_role_info table_role;
	uint16_t index;
};
/* Up to @max of them after the first @skip; returns how many, or -ENOENT: the frame is in no slot.
 */
ssize_t mmu_inspect_rmap(struct mmu_vm *vm, gfn_t gfn, size_t skip, struct mmu_rmap_info *out,
			 size_t max);

/* A run of the guest's linear addresses with like permissions and frames that follow one another.
 */
struct mmu_map_range {
	gva_t start, end;   /* the last byte */
	gpa_t gpa;	    /* of an L2: the ngpa, and @memory says nothing */
	uint8_t access;	    /* MMU_MAP_* */
	uint8_t page_shift; /* of the guest's pages */
	bool memory;	    /* in a slot */
};
struct mmu_map_list {
	struct mmu_map_range *v; /* the caller's, room for @max */
	size_t max, n;
	gva_t next; /* where to go on, when @more */
	bool more;
};
/*
 * Ranges from @from on, as the guest's tables say. One call looks at a bounded number of entries
 * (a hostile guest's tables may take hours), so it may return with few, even no ranges and @more;
 * what the last range maps may then go on in the next call's first. 0, or -EINVAL (no registers).
 */
int mmu_inspect_map(struct mmu_vcpu *vcpu, const struct mmu_regs *regs, gva_t from,
		    struct mmu_map_list *list);

/* Entries in words: "P RW US A D XD 4K frame 0x…". Returns as snprintf() does. */
int mmu_format_guest_entry(enum mmu_paging paging, unsigned level, uint64_t raw, char *buf,
			   size_t size);
int mmu_format_spte(enum mmu_format format, unsigned level, uint64_t raw, char *buf, size_t size);
/* "PDE", as the manuals call an entry of that level. */
const char *mmu_level_name(enum mmu_paging paging, unsigned level);

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
