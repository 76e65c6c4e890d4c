/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bits of the entries that we build, in each format, and why each software bit is free. */
#ifndef UMBRA_MMU_SPTE_H
#define UMBRA_MMU_SPTE_H

#include "mmu/mmu.h"

/* x86 format (shadow and NPT). SDM volume 3, "4-level paging"; APM volume 2, "nested paging". */
#define SPTE_P	BIT(0)
#define SPTE_W	BIT(1) /* the same bit in EPT */
#define SPTE_U	BIT(2)
#define SPTE_A	BIT(5)
#define SPTE_D	BIT(6)
#define SPTE_PS BIT(7) /* the same bit in EPT */
#define SPTE_G	BIT(8)
#define SPTE_XD BIT(63)
#define SPTE_PK                                                                                    \
	BITS(62, 59) /* copied from long-mode guests' leaf entries; ignored while CR4.PKE = 0 */

/* EPT format. */
#define EPT_R	 BIT(0)
#define EPT_W	 BIT(1)
#define EPT_X	 BIT(2)
#define EPT_RWX	 (EPT_R | EPT_W | EPT_X)
#define EPT_WB	 (6ull << 3)
#define EPT_IPAT BIT(6)
#define EPT_A	 BIT(8)
#define EPT_D	 BIT(9)

#define SPTE_FRAME BITS(MMU_HOST_WIDTH - 1, 12)

/*
 * Software bit: but for the dirty log (or a page not written yet) the entry would have W. Lets a
 * write fault be fixed without a walk. Bit 11 is ignored by the processor in leaf and table entries
 * of x86 tables, NPT and EPT alike (EPT uses bit 10 for mode-based execute control, not bit 11).
 */
#define SPTE_MMU_WRITABLE BIT(11)

/*
 * MMIO entry: bit 51 lies above MMU_HOST_WIDTH, so the processor reports a reserved bit (x86, NPT)
 * or a misconfiguration (EPT, which sees W and X without R besides). Only MMIO entries have it. The
 * frame field holds the gfn, bits 62:52 the generation of the memslots (SPTE_MMIO_GEN), W/U/XD the
 * access (x86 format).
 */
#define SPTE_MMIO	BIT(51)
#define SPTE_MMIO_GEN	BITS(62, 52)
#define MMIO_GEN_MODULO BIT(11)

_Static_assert((SPTE_FRAME & (SPTE_MMIO | SPTE_MMIO_GEN)) == 0, "a frame is never an MMIO mark");
_Static_assert((SPTE_MMU_WRITABLE & (SPTE_FRAME | SPTE_PK | SPTE_XD | BITS(10, 0))) == 0,
	       "the software bit is no bit of hardware's");
_Static_assert(SPTE_W == EPT_W && SPTE_P == EPT_R,
	       "write protection is the same bit in all formats");

/* Acquire: what was written before the entry that leads to a table is seen behind it. */
static inline uint64_t spte_read(const uint64_t *spte)
{
	return __atomic_load_n(spte, __ATOMIC_ACQUIRE);
}

/* Release: a table's contents are seen before the entry that leads to it. */
static inline void spte_write(uint64_t *spte, uint64_t value)
{
	__atomic_store_n(spte, value, __ATOMIC_RELEASE);
}

/* False: it is no longer @old; the processor, or one who shares the lock, has changed it. */
static inline bool spte_exchange(uint64_t *spte, uint64_t old, uint64_t value)
{
	return __atomic_compare_exchange_n(spte, &old, value, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_RELAXED);
}

static inline bool spte_is_mmio(uint64_t spte)
{
	return spte & SPTE_MMIO;
}

/* EPT: execute-only entries of a shadowed EPT lack bit 0. */
static inline bool spte_is_present(uint64_t spte, enum mmu_format format)
{
	return (spte & (format == MMU_FORMAT_EPT ? EPT_RWX : SPTE_P)) && !spte_is_mmio(spte);
}

static inline bool spte_is_leaf(uint64_t spte, unsigned level)
{
	return level == 1 || (spte & SPTE_PS);
}

static inline pfn_t spte_pfn(uint64_t spte)
{
	return (spte & SPTE_FRAME) >> PAGE_SHIFT;
}

static inline gfn_t spte_mmio_gfn(uint64_t spte)
{
	return (spte & SPTE_FRAME) >> PAGE_SHIFT;
}

static inline unsigned spte_mmio_gen(uint64_t spte)
{
	return (unsigned)(spte >> 52) & (MMIO_GEN_MODULO - 1);
}

/* What an entry in x86 format grants, as MMU_MAP_*; also for MMIO entries. */
static inline unsigned spte_x86_access(uint64_t spte)
{
	return (spte & SPTE_W ? MMU_MAP_WRITE : 0) | (spte & SPTE_U ? MMU_MAP_USER : 0) |
	       (spte & SPTE_XD ? 0 : MMU_MAP_EXEC);
}

static inline uint64_t spte_make_mmio(enum mmu_format format, gfn_t gfn, unsigned access,
				      unsigned gen)
{
	uint64_t spte = SPTE_MMIO | gfn << PAGE_SHIFT | (uint64_t)(gen % MMIO_GEN_MODULO) << 52;

	if (format == MMU_FORMAT_EPT)
		return spte | EPT_W | EPT_X;
	return spte | SPTE_P | (access & MMU_MAP_WRITE ? SPTE_W : 0) |
	       (access & MMU_MAP_USER ? SPTE_U : 0) | (access & MMU_MAP_EXEC ? 0 : SPTE_XD);
}

/* An entry that leads to a table: it grants everything, the access is in the table's role. */
static inline uint64_t spte_make_table(enum mmu_format format, hpa_t table)
{
	return table |
	       (format == MMU_FORMAT_EPT ? EPT_RWX | EPT_A : SPTE_P | SPTE_W | SPTE_U | SPTE_A);
}

/* A leaf. A and D are set at once, so that the processor need not write to our tables. */
static inline uint64_t spte_make_leaf(enum mmu_format format, unsigned level, pfn_t pfn,
				      unsigned access)
{
	uint64_t spte = pfn << PAGE_SHIFT | (level > 1 ? SPTE_PS : 0);

	if (access & MMU_MAP_WRITE)
		spte |= SPTE_W;
	if (format == MMU_FORMAT_EPT)
		return spte | EPT_WB | EPT_A | EPT_D | (access & MMU_MAP_USER ? EPT_R : 0) |
		       (access & MMU_MAP_EXEC ? EPT_X : 0);
	return spte | SPTE_P | SPTE_A | SPTE_D | (access & MMU_MAP_USER ? SPTE_U : 0) |
	       (access & MMU_MAP_EXEC ? 0 : SPTE_XD);
}

/* Bits whose change from set to clear (XD: clear to set) takes a permission away. */
static inline bool spte_is_reduced(uint64_t old, uint64_t new, enum mmu_format format)
{
	uint64_t grant = format == MMU_FORMAT_EPT ? EPT_RWX : SPTE_P | SPTE_W | SPTE_U;

	if (old & ~new &grant)
		return true;
	if (format == MMU_FORMAT_EPT)
		return (old ^ new) & SPTE_FRAME;
	return (~old & new &SPTE_XD) || ((old ^ new) & (SPTE_FRAME | SPTE_PK)) ||
	       (~old &
		new &SPTE_U); /* a supervisor entry made a user's: SMEP and SMAP forbid more */
}

#endif
