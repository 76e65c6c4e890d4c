/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The MMU's counters under KVM's names, described by a schema as KVM's binary statistics are. */
#ifndef UMBRA_MMU_STATS_H
#define UMBRA_MMU_STATS_H

#include "mmu/types.h"

enum mmu_stat_type { MMU_STAT_CUMULATIVE, MMU_STAT_INSTANT, MMU_STAT_PEAK };
enum mmu_stat_unit { MMU_UNIT_NONE, MMU_UNIT_BYTES, MMU_UNIT_NS, MMU_UNIT_PAGES };

struct mmu_stat_desc {
	const char *name;
	enum mmu_stat_type type;
	enum mmu_stat_unit unit;
};

/*
 * Names that KVM has mean what they mean there. Ours beside them: mmu_unsynced, mmu_synced (pages
 * gone out of step, brought back), mmu_table_pages (frames of roots too, which mmu_pages leaves
 * out), lpages_split (in place, for whatever reason; lpages_eager_split of these before a fault
 * asked), lpages_collapsed (table pages dropped after logging ended, so that one large entry can
 * take each one's place), targeted_tlb_flush (requests that name vCPUs), mmu_lock_contended (takers
 * of the lock that had to wait), dirty_protected (entries).
 *
 * A machine's, X(name, type, unit); in the order of the schema and of the values.
 */
#define MMU_VM_STATS(X)                                                                            \
	X(mmu_shadow_zapped, CUMULATIVE, NONE)                                                     \
	X(mmu_pte_write, CUMULATIVE, NONE)                                                         \
	X(mmu_pde_zapped, CUMULATIVE, NONE)                                                        \
	X(mmu_flooded, CUMULATIVE, NONE)                                                           \
	X(mmu_recycled, CUMULATIVE, NONE)                                                          \
	X(mmu_cache_miss, CUMULATIVE, NONE)                                                        \
	X(mmu_unsync, INSTANT, NONE)                                                               \
	X(mmu_unsynced, CUMULATIVE, NONE)                                                          \
	X(mmu_synced, CUMULATIVE, NONE)                                                            \
	X(mmu_pages, INSTANT, PAGES)                                                               \
	X(mmu_table_pages, INSTANT, PAGES)                                                         \
	X(pages_4k, INSTANT, NONE)                                                                 \
	X(pages_2m, INSTANT, NONE)                                                                 \
	X(pages_1g, INSTANT, NONE)                                                                 \
	X(lpages_split, CUMULATIVE, NONE)                                                          \
	X(lpages_eager_split, CUMULATIVE, NONE)                                                    \
	X(lpages_collapsed, CUMULATIVE, NONE)                                                      \
	X(max_mmu_rmap_size, PEAK, NONE)                                                           \
	X(max_mmu_page_hash_collisions, PEAK, NONE)                                                \
	X(remote_tlb_flush, CUMULATIVE, NONE)                                                      \
	X(remote_tlb_flush_requests, CUMULATIVE, NONE)                                             \
	X(targeted_tlb_flush, CUMULATIVE, NONE)                                                    \
	X(mmu_lock_contended, CUMULATIVE, NONE)                                                    \
	X(mmio_generation, INSTANT, NONE)                                                          \
	X(dirty_protected, CUMULATIVE, PAGES)

/*
 * A vCPU's. pf_fast ones are in pf_fixed as well. Ours: pf_parallel (fixed beside other vCPUs'
 * faults), pf_mmio_cached (told by an MMIO entry), pf_prefetched (entries made beside the one asked
 * for), pf_unprotected (tables dropped because a user wrote to them), root_* and cr3_load,
 * mmu_reset (a role or root anew by registers).
 */
#define MMU_VCPU_STATS(X)                                                                          \
	X(pf_taken, CUMULATIVE, NONE)                                                              \
	X(pf_fixed, CUMULATIVE, NONE)                                                              \
	X(pf_emulate, CUMULATIVE, NONE)                                                            \
	X(pf_spurious, CUMULATIVE, NONE)                                                           \
	X(pf_fast, CUMULATIVE, NONE)                                                               \
	X(pf_parallel, CUMULATIVE, NONE)                                                           \
	X(pf_mmio_spte_created, CUMULATIVE, NONE)                                                  \
	X(pf_mmio_cached, CUMULATIVE, NONE)                                                        \
	X(pf_guest, CUMULATIVE, NONE)                                                              \
	X(pf_prefetched, CUMULATIVE, NONE)                                                         \
	X(pf_unprotected, CUMULATIVE, NONE)                                                        \
	X(tlb_flush, CUMULATIVE, NONE)                                                             \
	X(invlpg, CUMULATIVE, NONE)                                                                \
	X(cr3_load, CUMULATIVE, NONE)                                                              \
	X(root_cache_hit, CUMULATIVE, NONE)                                                        \
	X(root_built, CUMULATIVE, NONE)                                                            \
	X(mmu_reset, CUMULATIVE, NONE)                                                             \
	X(nested_run, CUMULATIVE, NONE)                                                            \
	X(guest_mode, INSTANT, NONE)                                                               \
	X(dirty_noticed, CUMULATIVE, PAGES)

#define MMU_STAT_MEMBER(name, type, unit) uint64_t name;
struct mmu_vm_stats {
	MMU_VM_STATS(MMU_STAT_MEMBER)
};
struct mmu_vcpu_stats {
	MMU_VCPU_STATS(MMU_STAT_MEMBER)
};

/* The schemas; entry n describes the n-th uint64_t of the struct. */
const struct mmu_stat_desc *mmu_vm_stats_schema(size_t *ret_n);
const struct mmu_stat_desc *mmu_vcpu_stats_schema(size_t *ret_n);

/* Without the lock: each value is whole, the set is of about one moment. */
void mmu_vm_read_stats(struct mmu_vm *vm, struct mmu_vm_stats *ret);
void mmu_vcpu_read_stats(struct mmu_vcpu *vcpu, struct mmu_vcpu_stats *ret);

#endif
