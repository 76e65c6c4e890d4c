/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The walk of a guest's tables, once for each format. Included by walk.c only, with:
 *   WALK_NAME       the function's name: walk_32, walk_pae, walk_64, walk_ept
 *   WALK_PTE        the type of an entry: uint32_t or uint64_t
 *   WALK_MODE       MODE_32, MODE_PAE, MODE_64, MODE_EPT
 *   WALK_INDEX_BITS 10 or 9
 * Every branch below is compiled in all four.
 */

#define WALK_IS_EPT (WALK_MODE == MODE_EPT)
#define WALK_IS_32  (WALK_MODE == MODE_32)

static int WALK_NAME(struct mmu_vcpu *vcpu, struct mmu_context *c, struct walker *w)
{
	unsigned level, access, pkey = 0;
	bool nx = c->cpu_role.nx, peek = w->access & MMU_ACC_PEEK;
	const uint64_t address_mask = WALK_IS_32 ? BITS(31, 12) : BITS(51, 12);
	uint32_t denied;
	uint64_t pte;

retry:
	level = c->cpu_role.levels;
	pte = c->cr3 & (WALK_MODE == MODE_PAE || WALK_IS_32 ? BITS(31, 12) : BITS(51, 12));
	access = MMU_MAP_ALL;
	if (WALK_MODE == MODE_PAE) {
		pte = c->pdptr[w->addr >> 30 & 3];
		w->level = 3;
		if (!(pte & 1))
			return walk_fail(c, w, 0);
		level = 2;
	}
	w->max_level = (uint8_t)level;

	for (;; level--) {
		unsigned shift = 12 + WALK_INDEX_BITS * (level - 1);
		unsigned index = w->addr >> shift & ((1u << WALK_INDEX_BITS) - 1);
		struct memslot *slot;
		bool large;
		gpa_t gpa;

		w->level = (uint8_t)level;
		w->pte_addr[level - 1] = (pte & address_mask) + index * sizeof(WALK_PTE);
		if (!c->translate_gpa(vcpu, w->pte_addr[level - 1], w, &gpa))
			return 0;
		w->table_gfn[level - 1] = gpa >> PAGE_SHIFT;
		w->table_access[level - 1] = access;
		w->pte_gpa[level - 1] = gpa;
		slot = slot_of(vcpu->vm, gpa >> PAGE_SHIFT);
		if (!slot) {
			w->ptes[level - 1] = ~0ull;
			return walk_fail(c, w, PF_P | PF_RSVD);
		}
		if (slot_is_missing(slot, gpa >> PAGE_SHIFT)) {
			w->missing = true;
			w->missing_gfn = gpa >> PAGE_SHIFT;
			return 0;
		}
		w->pte_hva[level - 1] = slot_hva(slot, gpa >> PAGE_SHIFT) + (gpa & ~PAGE_MASK);
		w->pte_readonly[level - 1] = slot->flags & SLOT_READONLY;
		pte = __atomic_load_n((WALK_PTE *)(uintptr_t)w->pte_hva[level - 1],
				      __ATOMIC_RELAXED);
		w->ptes[level - 1] = pte;

		if (!(pte & (WALK_IS_EPT ? EPT_RWX : 1)))
			return walk_fail(c, w, 0);
		large = level > 1 && (pte & SPTE_PS) &&
			(WALK_IS_EPT || !WALK_IS_32 || c->cpu_role.pse);
		if (pte & c->rsvd->mask[level > 1 && (pte & SPTE_PS)][level - 1])
			return walk_fail(c, w, PF_P | PF_RSVD);
		if (WALK_IS_EPT &&
		    ept_misconfigured(pte, level == 1 || large, c->cpu_role.exec_only))
			return walk_fail(c, w, PF_P | PF_RSVD);

		access &= WALK_IS_EPT
				  ? ept_access(pte)
				  : (pte & SPTE_W ? MMU_MAP_WRITE : 0) |
					    (pte & SPTE_U ? MMU_MAP_USER : 0) |
					    (nx && pte & SPTE_XD && !WALK_IS_32 ? 0 : MMU_MAP_EXEC);
		if (level == 1 || large)
			break;
	}

	w->page_shift = (uint8_t)(12 + WALK_INDEX_BITS * (level - 1));
	w->gfn = (pte & address_mask & ~(BIT(w->page_shift) - 1)) >> PAGE_SHIFT;
	w->gfn += (w->addr & (BIT(w->page_shift) - 1)) >> PAGE_SHIFT;
	if (WALK_IS_32 && level == 2)
		w->gfn += (pte & BITS(20, 13)) >> 13 << 20; /* PSE-36 */
	w->pte_access = w->granted = access;
	if (peek)
		return 1;
	if (WALK_MODE == MODE_64)
		pkey = (unsigned)(pte >> 59) & 15;
	if (access_denied(c, w->access, access, pkey, &denied))
		return walk_fail(c, w, PF_P | denied);

	if (!c->cpu_role.ad_disabled) {
		const uint64_t a = WALK_IS_EPT ? EPT_A : SPTE_A, d = WALK_IS_EPT ? EPT_D : SPTE_D;

		for (unsigned l = w->max_level; l >= level; l--) {
			uint64_t want = w->ptes[l - 1] | a |
					(l == level && w->access & MMU_ACC_WRITE ? d : 0);

			if (want == w->ptes[l - 1] || w->pte_readonly[l - 1])
				continue;
			if (c == &vcpu->nested_mmu && !nested_may_update(vcpu, w, l))
				return 0;
			if (!pte_update(vcpu, w, l, want, sizeof(WALK_PTE)))
				goto retry;
		}
		/* A clean page is mapped read-only, so that the first write is seen. */
		if (!(w->ptes[level - 1] & d))
			w->pte_access &= ~(unsigned)MMU_MAP_WRITE;
	}
	return 1;
}

#undef WALK_NAME
#undef WALK_PTE
#undef WALK_MODE
#undef WALK_INDEX_BITS
#undef WALK_IS_EPT
#undef WALK_IS_32
