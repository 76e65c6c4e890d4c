/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The structures of mmu/ and the calls between its files. Never included from elsewhere. */
#ifndef UMBRA_MMU_INTERNAL_H
#define UMBRA_MMU_INTERNAL_H

#include <pthread.h>

#include "base/bitmap.h"
#include "base/list.h"
#include "mmu/mmu.h"
#include "mmu/spte.h"
#include "mmu/stats.h"

#define PT_ENTRIES 512u
#define NR_SLOTS   (SLOT_MAX_ID + 1)
#define NR_PREV	   3 /* cached roots beside the one in use */
#define NR_LEVELS  3 /* page sizes: 4 KiB, 2 MiB, 1 GiB */

/* Frames of a page at @level (1: 4 KiB). */
static inline uint64_t level_pages(unsigned level)
{
	return BIT(9 * (level - 1));
}

static inline unsigned level_index(uint64_t addr, unsigned level)
{
	return addr >> (12 + 9 * (level - 1)) & 511;
}

/* ---- roles ---- */

/* The guest's paging, as far as its tables' form goes. */
enum guest_mode {
	MODE_NONE, /* no paging: linear is physical */
	MODE_32,
	MODE_PAE,
	MODE_64, /* 4 or 5 levels; a table means the same in both */
	MODE_EPT,
	NR_MODES,
};

/* What a shadow page stands for. Pages with the same gfn and role are the same page. */
union page_role {
	uint32_t word;
	struct {
		uint32_t level : 3;
		uint32_t mode : 3;     /* enum guest_mode: how the guest table is read */
		uint32_t quadrant : 2; /* MODE_32: which part of the guest table */
		uint32_t direct : 1;   /* no guest table behind it: gfn is the first mapped */
		uint32_t access : 3;   /* MMU_MAP_* that the tables above grant */
		uint32_t nx : 1;
		uint32_t pse : 1; /* MODE_32: bit 7 of a PDE means a large page */
		uint32_t wp : 1;
		uint32_t smep_andnot_wp : 1; /* pages of a WP = 0 guest that were made supervisor
						pages */
		uint32_t smap_andnot_wp : 1;
		uint32_t guest_mode : 1;  /* an L2's */
		uint32_t ad_disabled : 1; /* MODE_EPT without A and D bits */
		uint32_t exec_only : 1;	  /* MODE_EPT with execute-only entries allowed */
		uint32_t format : 2;	  /* enum mmu_format */
		uint32_t pkey : 4;	  /* direct pages for a large page of the guest: its */
		uint32_t global : 1;	  /* key and G bit, which all entries share */
	};
};
_Static_assert(sizeof(union page_role) == 4, "a role is one word");

/* What decides on an access beside the tables: of the registers, all that mmu/ keeps. */
union cpu_role {
	uint32_t word;
	struct {
		uint32_t mode : 3;
		uint32_t levels : 3; /* of the guest's walk: 0 (no paging), 2, 3, 4, 5 */
		uint32_t pse : 1;
		uint32_t nx : 1;
		uint32_t wp : 1;
		uint32_t smep : 1;
		uint32_t smap : 1;
		uint32_t pke : 1;
		uint32_t ad_disabled : 1;
		uint32_t exec_only : 1;
		uint32_t guest_mode : 1;
	};
};

/* Reserved bits of a guest entry by [bit 7][level - 1]. */
struct rsvd_masks {
	uint64_t mask[2][MMU_MAX_LEVEL];
};

/* ---- memslots ---- */

/* Rises to the first set bit at a cost of the set bits: level n + 1 has a bit for each word of n.
 */
#define ML_LEVELS 4
struct ml_bitmap {
	uint64_t bits; /* how many at the bottom */
	unsigned levels;
	uint64_t *map[ML_LEVELS];
	uint64_t
		*lazy; /* a bit for each word of level 1: all below is set, though not written so */
	size_t size;   /* of the mapping that map[0] begins */
};

/* All sptes that map a frame, or lead to a table: first spte's id, and how many. */
struct rmap_head {
	uint32_t first;
	uint32_t count;
};

struct memslot {
	uint32_t id, flags;
	gfn_t base;
	uint64_t npages;
	hva_t hva;
	int pins; /* slot_map() windows, atomic */
	struct rmap_head *rmap[NR_LEVELS];
	uint32_t *shadowed; /* by frame: guest tables' shadows: leaf in 15:0, higher in 31:16 */
	uint32_t *no_large[NR_LEVELS]; /* by large frame (levels 2, 3): why not, a count */
	void *meta;		       /* the one mapping with all these arrays */
	size_t meta_size;
	uint32_t watchers;	  /* dirty clients; atomic, > 0: writes are noticed */
	bool kernel_logs;	  /* slot_changed() was told SLOT_LOGGED */
	struct ml_bitmap noticed; /* atomic */
	uint64_t *missing;
	uint64_t *shared, *shared_summary; /* dirty_share_bitmap() */
};

/* ---- shadow pages ---- */

struct shadow_page {
	struct list lru;  /* vm->active, vm->zombies or vm->pending */
	struct list hash; /* vm->hash[] */
	gfn_t gfn;
	union page_role role;
	uint32_t root_count; /* roots of vCPUs, cached ones too */
	uint32_t present;    /* sptes that are not zero */
	uint32_t flood;	     /* writes to the guest table since it was last walked through */
	bool used;	     /* not free */
	bool frame;   /* upper tables of a PAE or 32-bit root: belongs to a vCPU, not in the hash */
	bool invalid; /* zapped, and still some vCPU's root */
	bool unsync;
	uint32_t unsync_children;
	uint64_t unsync_bitmap[PT_ENTRIES / 64];
	uint64_t users;		  /* vCPUs that may have used it: MMU_VCPU_BIT */
	uint64_t slots;		  /* slots that leaves of it may map: bit id % 64; atomic */
	struct rmap_head parents; /* sptes that lead here */
};

/* Doubly linked by spte id; 0 ends it. The first one's prev is 0. */
struct rmap_link {
	uint32_t next, prev;
};

/*
 * Block n of the arena: table page n, its gfns, its links and its descriptor. spte id - 1 is
 * n * 512 + index, so everything is found from an spte's address and the other way round.
 */
struct arena {
	uint32_t nr_blocks; /* there is address space for */
	uint32_t bound;	    /* that may be in use, but for MMU_NO_RECLAIM */
	uint32_t nr_used;
	uint32_t nr_touched; /* blocks from here on were never used */
	uint32_t free_count;
	uint32_t *free_stack;
	struct shadow_page *pages;
	uint64_t (*tables)[PT_ENTRIES];
	gfn_t (*gfns)[PT_ENTRIES];
	struct rmap_link (*links)[PT_ENTRIES];
	void *map;
	size_t map_size;
};

/* TLB flushes that are due before the lock is dropped or a page is reused. */
#define BATCH_FRAMES 8
struct flush_batch {
	uint64_t vcpus;
	bool all;
	unsigned n;
	struct {
		pfn_t pfn;
		uint64_t count;
	} frame[BATCH_FRAMES];
};

/* ---- contexts ---- */

struct walker;
struct mmu_context;
struct spte_want;

struct context_ops {
	int (*page_fault)(struct mmu_vcpu *vcpu, struct mmu_fault *f);
	/* 1: translated; 0: w->fault; needs vm->lock or the slots' read lock. */
	int (*walk)(struct mmu_vcpu *vcpu, struct mmu_context *c, struct walker *w);
};

struct vcpu_root {
	bool valid;
	uint64_t cr3;
	union page_role role;
	uint64_t pdptr[4];
	uint32_t generation;	   /* of the memslots when it was built */
	bool flushed;		   /* (cached) flushed since it was in use: sync before use */
	bool absent;		   /* a table of the guest's lay in no slot then */
	struct shadow_page *sp;	   /* the root, or the level-4 frame page */
	struct shadow_page *frame; /* the level-3 frame page under it, or NULL */
	struct shadow_page *pd[4]; /* level-2 pages under that */
};

struct mmu_context {
	const struct context_ops *ops;
	union cpu_role cpu_role;
	union page_role root_role;
	const struct rsvd_masks *rsvd;
	uint64_t cr3;
	uint64_t pcid_mask; /* of @cr3: without CR4.PCIDE the PCID is 0 */
	uint64_t pdptr[4];
	uint32_t pkru;
	/* An address in a guest table to a gpa: identity but for L2. 1, or 0 with w->fault. */
	int (*translate_gpa)(struct mmu_vcpu *vcpu, uint64_t addr, struct walker *w, gpa_t *gpa);
	struct vcpu_root root, prev[NR_PREV];
};

struct mmu_vcpu {
	struct mmu_vm *vm;
	uint32_t id;
	uint64_t bit;
	struct list link;
	struct mmu_context root_mmu, guest_mmu, nested_mmu;
	struct mmu_context *mmu, *walk_mmu;
	struct mmu_regs regs;
	bool have_regs;
	bool need_load;	   /* atomic */
	bool shared;	   /* handles a fault with the lock held for reading only */
	gfn_t unprotected; /* the last frame unshadowed for a user's write, and how often in a row
			    */
	unsigned unprotected_count;
	struct mmu_vcpu_stats stats;
	struct dirty_ring *ring; /* changes under both locks */
};

/* A walk of guest tables: inputs first. Index of arrays: level - 1. */
struct walker {
	uint64_t addr;
	uint32_t access;
	bool table; /* (EPT) a processor's own walk reads or marks a table at @addr */

	uint8_t level, max_level; /* of the entry that ended it; of the first read from memory */
	unsigned pte_access;	  /* granted by all levels */
	unsigned table_access[MMU_MAX_LEVEL]; /* granted by the levels above the table at [level -
						 1] */
	gfn_t table_gfn[MMU_MAX_LEVEL];
	uint64_t ptes[MMU_MAX_LEVEL];
	uint64_t pte_addr[MMU_MAX_LEVEL]; /* before translate_gpa(): of L2 a ngpa */
	gpa_t pte_gpa[MMU_MAX_LEVEL];
	hva_t pte_hva[MMU_MAX_LEVEL];
	bool pte_readonly[MMU_MAX_LEVEL];
	gfn_t gfn; /* of the 4-KiB frame that @addr lies in */
	uint8_t page_shift;
	unsigned updated; /* levels (bit level - 1) whose entry got A or D from this walk */
	unsigned granted; /* @pte_access before clean pages lose MMU_MAP_WRITE */
	bool missing;	  /* a table's page is not here yet: @missing_gfn */
	gfn_t missing_gfn;
	struct guest_fault fault;
};

struct dirty_client;
struct mmu_trace_event;

struct mmu_vm {
	/*
	 * Everything but what is said to be atomic: held for writing (mmu_lock()) to change
	 * anything at all; for reading (mmu_lock_shared()) by direct faults, which only add.
	 */
	pthread_rwlock_t lock;
	bool exclusive; /* it is held for writing */
	/* Between those: arena, hash, lists of pages, parents, users, tracing. */
	pthread_mutex_t pages_lock;
	/* Slots: changed with both locks held, read with either. Taken after @lock, never before.
	 */
	pthread_rwlock_t slots_lock;
	const struct mmu_ops *ops;
	void *priv;
	enum mmu_policy policy; /* atomic */
	enum mmu_format tdp_format;
	unsigned tdp_levels; /* 0: as the guest's width needs */
	uint32_t disable;    /* atomic */
	unsigned max_page_level;
	uint8_t maxphyaddr;
	bool gbpages;
	struct rsvd_masks rsvd[NR_MODES][2][2][2]; /* by mode, nx, pse, exec_only */

	struct memslot *by_id[NR_SLOTS];
	struct memslot *sorted[NR_SLOTS];
	uint32_t nr_slots;
	uint32_t last_slot; /* a hint, atomic */
	uint32_t generation;

	struct arena arena;
	struct list *hash;
	uint32_t hash_mask;
	struct list active;  /* by use: the oldest last */
	struct list zombies; /* invalid, still roots */
	struct list pending; /* zapped, to be freed after a flush */
	struct flush_batch batch;
	struct mmu_vcpu *self; /* whose fault is being handled, or NULL */
	struct mmu_vm_stats stats;

	struct list vcpus;
	uint32_t nr_vcpus;
	struct list clients;
	struct dirty_client *ring_client; /* whose the vCPUs' rings are; changes under both locks */
	uint32_t ring_size;
	uint32_t nr_watchers; /* atomic: any client at all */
	enum dirty_notice notice;
	bool pml; /* roots say that the processor is to log; on before @notice is, off after */
	void (*trace)(void *arg, const struct mmu_trace_event *e);
	void *trace_arg;
};

/* ---- counters: written by one thread at a time, read by any ---- */

static inline void stat_add(uint64_t *stat, int64_t n)
{
	__atomic_store_n(stat, __atomic_load_n(stat, __ATOMIC_RELAXED) + (uint64_t)n,
			 __ATOMIC_RELAXED);
}

static inline void stat_peak(uint64_t *stat, uint64_t value)
{
	uint64_t old = __atomic_load_n(stat, __ATOMIC_RELAXED);

	while (value > old && !__atomic_compare_exchange_n(stat, &old, value, false,
							   __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/* The same for one that several threads may count at once. */
static inline void stat_add_shared(uint64_t *stat, int64_t n)
{
	__atomic_fetch_add(stat, (uint64_t)n, __ATOMIC_RELAXED);
}

#define STAT(obj, name)	     stat_add(&(obj)->stats.name, 1)
#define STAT_N(obj, name, n) stat_add(&(obj)->stats.name, n)

/* ---- vm->lock ---- */

static inline void mmu_lock(struct mmu_vm *vm)
{
	bool free = !pthread_rwlock_trywrlock(&vm->lock);

	if (unlikely(!free)) {
		pthread_rwlock_wrlock(&vm->lock);
		STAT(vm, mmu_lock_contended);
	}
	vm->exclusive = true;
}

/* For reading: nothing is taken away meanwhile. */
static inline void mmu_lock_shared(struct mmu_vm *vm)
{
	if (likely(!pthread_rwlock_tryrdlock(&vm->lock)))
		return;
	pthread_rwlock_rdlock(&vm->lock);
	stat_add_shared(&vm->stats.mmu_lock_contended, 1);
}

static inline void mmu_unlock(struct mmu_vm *vm)
{
	/* Readers only look: there may be several. */
	if (vm->exclusive)
		vm->exclusive = false;
	pthread_rwlock_unlock(&vm->lock);
}

/* Does a kernel run the guest, and want to hear of slots? Either lock is held. */
static inline bool mmu_is_kernels(const struct mmu_vm *vm)
{
	return vm->policy == MMU_POLICY_KERNEL && vm->ops->slot_changed;
}

/* ---- slot.c ---- */

struct memslot *slot_of(struct mmu_vm *vm, gfn_t gfn);
void slot_describe(const struct memslot *slot, struct slot_desc *desc);
void slots_finish(struct mmu_vm *vm);

static inline hva_t slot_hva(const struct memslot *slot, gfn_t gfn)
{
	return slot->hva + ((gfn - slot->base) << PAGE_SHIFT);
}

static inline struct rmap_head *slot_rmap(const struct memslot *slot, gfn_t gfn, unsigned level)
{
	unsigned shift = 9 * (level - 1);

	return &slot->rmap[level - 1][(gfn >> shift) - (slot->base >> shift)];
}

static inline uint32_t *slot_shadowed(const struct memslot *slot, gfn_t gfn)
{
	return &slot->shadowed[gfn - slot->base];
}

/* Its value: L0's writers look at it, by a locked access, without the lock. */
static inline uint32_t slot_shadows(const struct memslot *slot, gfn_t gfn)
{
	return __atomic_load_n(slot_shadowed(slot, gfn), __ATOMIC_RELAXED);
}

#define SHADOWED_LEAF	1u
#define SHADOWED_HIGHER (1u << 16)

static inline bool slot_is_logged(const struct memslot *slot)
{
	return __atomic_load_n(&slot->watchers, __ATOMIC_RELAXED);
}

static inline bool slot_is_missing(const struct memslot *slot, gfn_t gfn)
{
	uint64_t rel = gfn - slot->base;

	return unlikely(slot->missing) &&
	       (__atomic_load_n(&slot->missing[rel / 64], __ATOMIC_ACQUIRE) >> (rel % 64) & 1);
}

/* The largest page that may map @gfn. */
unsigned slot_max_level(const struct mmu_vm *vm, const struct memslot *slot, gfn_t gfn);
/* A guest table at @gfn gains (1) or loses (-1) a shadow at @level. */
void slot_account_shadow(struct memslot *slot, gfn_t gfn, unsigned level, int n);

/* ---- dirty.c, dirty_bits.c, dirty_ring.c ---- */

int ml_init(struct ml_bitmap *m, uint64_t bits);
void ml_finish(struct ml_bitmap *m);
void dirty_notice_slow(struct mmu_vcpu *by, struct memslot *slot, gfn_t gfn);
bool dirty_is_known(const struct mmu_vm *vm, const struct memslot *slot, gfn_t gfn);
bool dirty_ring_is_full(const struct mmu_vcpu *vcpu);
/* A vCPU came (0 or -ENOMEM), or goes; the lock is held. */
int dirty_vcpu_added(struct mmu_vcpu *vcpu);
void dirty_vcpu_removed(struct mmu_vcpu *vcpu);
int dirty_slot_added(struct mmu_vm *vm, struct memslot *slot);
void dirty_slot_removed(struct mmu_vm *vm, struct memslot *slot);
/*
 * MMU_POLICY_KERNEL, else nothing: the slot comes (@from NULL), goes (@to NULL), or changes; what
 * the kernel logged of it before may be gone, so all of it is dirty for who watches. 0, or the op's
 * error and nothing done. Both locks are held.
 */
int dirty_slot_tell(struct mmu_vm *vm, struct memslot *slot, const struct slot_desc *from,
		    const struct slot_desc *to);
/* The ops are others now, both locks held: every slot is told (0 or -errno); what was told is void.
 */
int dirty_attached(struct mmu_vm *vm);
void dirty_detached(struct mmu_vm *vm);
/* All that was noticed goes to the clients; -errno: of some slots everything. */
int dirty_collect_all(struct mmu_vm *vm);

/*
 * The page was, or may from now on be, written: by that vCPU, whose ring hears of it too, or (NULL)
 * by L0. With vm->lock or slots_lock held; after the store where there was one.
 */
static inline void dirty_mark(struct mmu_vcpu *by, struct memslot *slot, gfn_t gfn)
{
	if (unlikely(slot_is_logged(slot)))
		dirty_notice_slow(by, slot, gfn);
}

/*
 * Do leaves of @sp tell of a write by their D bit? Larger ones are split by the first write, so
 * that it is known which 4 KiB; what a nested guest's processor logs would be its own physical
 * addresses.
 */
static inline bool dirty_by_d(const struct mmu_vm *vm, const struct shadow_page *sp)
{
	return vm->notice == DIRTY_NOTICE_PML && sp->role.format == MMU_FORMAT_EPT &&
	       sp->role.level == 1 && !sp->role.guest_mode;
}

/* ---- page.c: arena, shadow pages, reverse map, flushes ---- */

int arena_init(struct mmu_vm *vm, uint64_t bytes);
void arena_finish(struct mmu_vm *vm);

static inline uint32_t sp_block(const struct mmu_vm *vm, const struct shadow_page *sp)
{
	return (uint32_t)(sp - vm->arena.pages);
}

static inline uint64_t *sp_table(const struct mmu_vm *vm, const struct shadow_page *sp)
{
	return vm->arena.tables[sp_block(vm, sp)];
}

static inline hpa_t sp_hpa(const struct mmu_vm *vm, const struct shadow_page *sp)
{
	return (hpa_t)(uintptr_t)sp_table(vm, sp);
}

/* The shadow page at a table's address. */
static inline struct shadow_page *sp_of_hpa(const struct mmu_vm *vm, hpa_t hpa)
{
	return &vm->arena.pages[(hpa - (hpa_t)(uintptr_t)vm->arena.tables) >> PAGE_SHIFT];
}

static inline uint32_t spte_id(const struct mmu_vm *vm, const struct shadow_page *sp, unsigned i)
{
	return sp_block(vm, sp) * PT_ENTRIES + i + 1;
}

static inline struct shadow_page *sp_of_id(const struct mmu_vm *vm, uint32_t id)
{
	return &vm->arena.pages[(id - 1) / PT_ENTRIES];
}

static inline uint64_t *spte_of_id(const struct mmu_vm *vm, uint32_t id)
{
	return &vm->arena.tables[(id - 1) / PT_ENTRIES][(id - 1) % PT_ENTRIES];
}

static inline struct rmap_link *link_of_id(const struct mmu_vm *vm, uint32_t id)
{
	return &vm->arena.links[(id - 1) / PT_ENTRIES][(id - 1) % PT_ENTRIES];
}

/* Iterate over a reverse map; the body may remove @id (and only it). */
#define rmap_for_each(vm, head, id, next_)                                                         \
	for (id = (head)->first, next_ = id ? link_of_id(vm, id)->next : 0; id;                    \
	     id = next_, next_ = id ? link_of_id(vm, id)->next : 0)

/* The guest frame that entry @i maps (a leaf). */
static inline gfn_t sp_gfn(const struct mmu_vm *vm, const struct shadow_page *sp, unsigned i)
{
	if (sp->role.direct)
		return sp->gfn + ((uint64_t)i << (9 * (sp->role.level - 1)));
	return vm->arena.gfns[sp_block(vm, sp)][i];
}

/* The bits beside access that all entries of a direct page share (struct spte_want.extra). */
static inline uint64_t role_extra(union page_role role)
{
	return (uint64_t)role.pkey << 59 | (role.global ? SPTE_G : 0);
}

/* @n entries of @sp became leaves in @slot; they are in the reverse map. */
void sp_account_leaves(struct mmu_vm *vm, struct shadow_page *sp, const struct memslot *slot,
		       unsigned n);
/* Entry @i, zero until now, became a leaf as wanted. */
void spte_account_leaf(struct mmu_vm *vm, struct shadow_page *sp, unsigned i,
		       const struct spte_want *want);
void rmap_add(struct mmu_vm *vm, struct rmap_head *head, uint32_t id);
void rmap_remove(struct mmu_vm *vm, struct rmap_head *head, uint32_t id);

void batch_frames(struct mmu_vm *vm, uint64_t users, pfn_t pfn, uint64_t count);
void batch_all(struct mmu_vm *vm, uint64_t users);
/* Flush what is due and free pages that were zapped. Call before the lock is dropped. */
void batch_commit(struct mmu_vm *vm);

uint32_t arena_free_blocks(const struct mmu_vm *vm);
/* -ENOMEM when @blocks table pages are not to be had even by reclaim. May zap pages. */
int arena_make_room(struct mmu_vm *vm, unsigned blocks);
struct shadow_page *frame_alloc(struct mmu_vm *vm);
void frame_free(struct mmu_vm *vm, struct shadow_page *sp);

/* Find or make; never fails after arena_make_room(). It and what is below come back in step. */
struct shadow_page *sp_get(struct mmu_vm *vm, gfn_t gfn, union page_role role);
void sp_link(struct mmu_vm *vm, struct shadow_page *parent, unsigned i, struct shadow_page *child);
/* The same in place of a leaf, with no moment in which there is nothing. */
void sp_replace_leaf(struct mmu_vm *vm, struct shadow_page *parent, unsigned i,
		     struct shadow_page *child);
void sp_zap(struct mmu_vm *vm, struct shadow_page *sp);
/* A root reference is dropped. */
void sp_put_root(struct mmu_vm *vm, struct shadow_page *sp);
void sp_add_users(struct mmu_vm *vm, struct shadow_page *sp, uint64_t users);
/* Make entry @i zero, whatever it is. */
void spte_zap(struct mmu_vm *vm, struct shadow_page *sp, unsigned i);
/* Zap every spte in a reverse map. */
void rmap_zap(struct mmu_vm *vm, struct rmap_head *head);
/* Remove W from all sptes that map @gfn, at all page sizes; whether there was one. */
bool rmap_write_protect(struct mmu_vm *vm, struct memslot *slot, gfn_t gfn);
/* Zap the shadows of a guest table; how many. */
unsigned sp_unshadow(struct mmu_vm *vm, gfn_t gfn);

struct list *sp_hash_head(struct mmu_vm *vm, gfn_t gfn);
#define for_each_shadow(vm, sp, gfn_)                                                              \
	list_for_each_entry (sp, sp_hash_head(vm, gfn_), hash)                                     \
		if (sp->gfn == (gfn_) && !sp->role.direct)
#define for_each_shadow_safe(vm, sp, tmp, gfn_)                                                    \
	list_for_each_entry_safe (sp, tmp, sp_hash_head(vm, gfn_), hash)                           \
		if (sp->gfn == (gfn_) && !sp->role.direct)

/* Unsynced pages (sync.c). */
/* May @gfn be mapped writable? Lets its shadows go out of step if @may_unsync; false: it is
 * tracked. */
bool sync_allow_write(struct mmu_vm *vm, struct memslot *slot, gfn_t gfn, bool may_unsync);
void sync_mark_parents(struct mmu_vm *vm, struct shadow_page *sp);
void sync_forget(struct mmu_vm *vm, struct shadow_page *sp);
/* Bring a leaf page's entries in step with the guest table, not its protection. */
void sync_entries(struct mmu_vm *vm, struct shadow_page *sp);
void sync_entry(struct mmu_vm *vm, struct shadow_page *sp, unsigned i);
/* All leaf pages below are synced and write-protected again. */
void sync_below(struct mmu_vm *vm, struct shadow_page *sp);
/* All that is reachable from a root is synced and write-protected again. */
void sync_root(struct mmu_vm *vm, const struct vcpu_root *root);
/* Where entry @i's guest entry lies: 0 when its frame is in no slot. */
hva_t sp_gpte_hva(struct mmu_vm *vm, const struct shadow_page *sp, unsigned i);
/* Make entry @i from the guest's, if that is present, accessed and no write is needed; else
 * nothing. */
bool sync_prefetch(struct mmu_vm *vm, struct shadow_page *sp, unsigned i);

/* False: no leaf of @sp maps a frame of @slot. */
static inline bool sp_maps_slot(const struct shadow_page *sp, const struct memslot *slot)
{
	return sp->slots >> (slot->id % 64) & 1;
}

/* ---- walk.c ---- */

const struct context_ops *context_ops_of(union cpu_role role, bool direct);
/* Bits of a guest entry, by the role of the table that holds it. */
uint64_t gpte_load(const union page_role role, hva_t hva);
bool gpte_present(const union page_role role, uint64_t gpte);
bool gpte_accessed(const union page_role role, uint64_t gpte);
bool gpte_reserved(struct mmu_vm *vm, const union page_role role, unsigned level, uint64_t gpte);
/* MMU_MAP_* that a leaf in a table of @role ends up with: WRITE only if it is dirty. */
unsigned gpte_access(const union page_role role, uint64_t gpte);
uint64_t gpte_extra_spte_bits(const union page_role role, uint64_t gpte);
void walk_record(const struct mmu_context *c, const struct walker *w, uint64_t addr,
		 struct mmu_walk_result *ret);
bool walk_changed(const struct mmu_context *c, const struct walker *w, unsigned level);
/* When true, *@error_code has what is to be reported beside P and the access: PF_PK or nothing. */
bool access_denied(const struct mmu_context *c, uint32_t access, unsigned pte_access, unsigned pkey,
		   uint32_t *error_code);
uint32_t access_error_code(const struct mmu_context *c, uint32_t access);

/* At CPL 3 the processor's own accesses to its tables are still a supervisor's. */
static inline bool access_is_user(uint32_t access)
{
	return access & MMU_ACC_USER && !(access & MMU_ACC_IMPLICIT);
}

/* ---- role.c ---- */

/* Fill a context from registers; the lock is held. */
void context_set(struct mmu_vcpu *vcpu, struct mmu_context *c, const struct mmu_regs *regs);
void rsvd_compute(struct mmu_vm *vm);

/* ---- root.c ---- */

/* Does the guest expect what is cached of a root to be flushed when it comes into use? */
enum root_sync { ROOT_SYNC, ROOT_KEEP };
/* The context's role or CR3 may have changed: find its root among those cached, or leave none. */
void root_switch(struct mmu_vcpu *vcpu, enum root_sync sync);
/* The guest flushed more than the root in use: those cached are synced before they are used. */
void roots_flushed(struct mmu_context *c);
void roots_drop(struct mmu_vcpu *vcpu, struct mmu_context *c, bool cached_only);
/* The page where our walk for @addr begins, or NULL. */
struct shadow_page *root_start(const struct mmu_context *c, uint64_t addr);

/* ---- nested.c ---- */

/* May the walk set A and D in its entry at @level? 1, or 0 with w->fault: L1's EPT forbids it. */
int nested_may_update(struct mmu_vcpu *vcpu, struct walker *w, unsigned level);
/* The frame that a walk of L2's tables ended at, from ngpa to gpa. 1, or 0 with w->fault. */
int nested_translate_final(struct mmu_vcpu *vcpu, struct walker *w);
void nested_set_guest(struct mmu_vcpu *vcpu, const struct mmu_regs *regs);

/* ---- track.c ---- */

/* mmu_track_write(), by @vcpu or (NULL) by L0. */
void track_write(struct mmu_vm *vm, struct mmu_vcpu *vcpu, gpa_t gpa, uint64_t len);

/*
 * A walk by @c set A or D bits. For tables shadowed in a mode that has other bits in those places
 * this is a write like any other. The lock is held.
 */
void track_walk(struct mmu_vm *vm, const struct mmu_context *c, const struct walker *w);

/* ---- fault.c ---- */

/* The entry that our walk for @addr ends at: a leaf, an MMIO entry or an empty one. */
struct shadow_page *shadow_lookup(struct mmu_vm *vm, const struct mmu_context *c, uint64_t addr,
				  unsigned *ret_index);

enum spte_flags {
	SPTE_FOR_WRITE = 1, /* the access that faulted is a write */
	SPTE_PREFETCH = 2,  /* nobody asked yet: never unsync, never note dirty */
};
/* What mapping a page takes. */
struct spte_want {
	struct memslot *slot;
	gfn_t gfn;
	unsigned access; /* MMU_MAP_* */
	uint64_t extra;	 /* G and protection key */
	unsigned flags;
	struct mmu_vcpu *vcpu; /* whose fault it is, or NULL; with ->shared nothing is taken away */
};
enum spte_result {
	SPTE_DONE,
	SPTE_TRACKED,	/* a write was wanted and the page is tracked, so W is not set */
	SPTE_EXCLUSIVE, /* nothing was done: the lock is held for reading, which is not enough */
};
/* Install a leaf. */
enum spte_result spte_set(struct mmu_vm *vm, struct shadow_page *sp, unsigned i,
			  const struct spte_want *want);
/* The leaf that @want asks for, beside an @old one of the same page; W only if @writable. */
uint64_t spte_compose(const struct mmu_vm *vm, const struct shadow_page *sp,
		      const struct spte_want *want, uint64_t old, bool writable);

/* The role of the page below @sp's, if that has no guest table and all its entries are @want's. */
union page_role direct_role(const struct shadow_page *sp, const struct spte_want *want);

/* Of a fault, beside enum mmu_result: it has to begin again with the lock held for writing. */
#define FAULT_EXCLUSIVE (MMU_RING_FULL + 1)

/* ---- split.c: the lock is held for writing, but where it says otherwise ---- */

/*
 * A large leaf becomes a table of the same translations with the rights of @role, which is that of
 * the page with them, so that no other page of it faults. NULL, and nothing done, when there is no
 * table page, or by MMU_NO_SPLIT.
 */
struct shadow_page *split_leaf(struct mmu_vm *vm, struct shadow_page *sp, unsigned i,
			       union page_role role);
/*
 * For the log: what maps a large frame becomes 4-KiB entries, as far as there are free table pages
 * (none is taken from others for this). One frame; or, without the lock, which is taken for a piece
 * of the work at a time, all that logging has taken W from.
 */
void split_logged(struct mmu_vm *vm);
void split_frame(struct mmu_vm *vm, const struct memslot *slot, gfn_t gfn);

/* inspect.c */
void trace_fault(const struct mmu_vcpu *vcpu, const struct mmu_fault *f, int result);

int shadow_page_fault(struct mmu_vcpu *vcpu, struct mmu_fault *f);
int direct_page_fault(struct mmu_vcpu *vcpu, struct mmu_fault *f);

#endif
