/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The page walker: guest tables of every mode, each access through EPT or NPT; or L0's shadow
 * table. */
#include <string.h>

#include "cpu/core.h"

#define PTE_P	    BIT(0)
#define PTE_W	    BIT(1)
#define PTE_U	    BIT(2)
#define PTE_A	    BIT(5)
#define PTE_D	    BIT(6)
#define PTE_PS	    BIT(7)
#define PTE_G	    BIT(8)
#define PTE_NX	    BIT(63)
#define PTE_PKEY(e) ((unsigned)((e) >> 59) & 15)

#define EPT_RWX	  7ull
#define EPT_PS	  BIT(7)
#define EPT_A	  BIT(8)
#define EPT_D	  BIT(9)
#define HOST_ADDR BITS(47, 12)
#define HOST_RSVD BITS(51, 48)

/* One translation being made. */
struct walk {
	struct cpu *c;
	const struct cpu_insn *i;
	const struct cpu_walk_mode *m;
	uint64_t lin;
	unsigned access;
	bool gva_valid;
	bool quick; /* it began in the paging-structure cache: trouble means to begin again at the
		       top */
	/* What the levels so far allow. */
	bool w, u, nx;
};

void cpu_walk_flush(struct cpu *c)
{
	struct cpu_mmu_cache *k = c->walkc;

	if (++k->psc_gen == CPU_PSC_GENS) {
		memset(k->psc, 0, sizeof(k->psc));
		k->psc_gen = 0;
	}
	if (++k->gpa_gen > 0xfff) {
		memset(k->gpa, 0, sizeof(k->gpa));
		k->gpa_gen = 1;
	}
}

static uint64_t load64(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/* ---- guest physical to host -------------------------------------------------------------------
 */

struct ept_access {
	gpa_t gpa;
	unsigned need; /* CPU_TDP_R, .. */
	bool table;
};

_Noreturn static void tdp_leave(struct walk *w, gpa_t gpa, unsigned need, bool table,
				enum cpu_exit_reason reason)
{
	struct cpu_exit *x = &w->c->exit;

	x->mem.gpa = gpa;
	x->mem.gva = w->lin;
	x->mem.gva_valid = w->gva_valid;
	x->mem.walk = table;
	x->mem.walk_access = (uint8_t)w->access;
	x->mem.read = need & CPU_TDP_R;
	x->mem.write = need & CPU_TDP_W;
	x->mem.fetch = need & CPU_TDP_X;
	x->mem.user = w->access & CPU_ACCESS_USER;
	cpu_leave(w->c, w->i, reason);
}

_Noreturn static void ept_violation(struct walk *w, gpa_t gpa, unsigned need, bool table,
				    uint64_t perms)
{
	w->c->exit.mem.present_perms = (uint8_t)perms;
	w->c->exit.mem.error = 0;
	tdp_leave(w, gpa, need, table, CPU_EXIT_TDP_VIOLATION);
}

/* SDM 3C 29.3.3.1. */
static bool ept_misconfigured(uint64_t e, unsigned level, bool leaf)
{
	unsigned type = (unsigned)(e >> 3) & 7;

	if ((e & 3) == 2 || e & HOST_RSVD)
		return true;
	if (!leaf)
		return e & (level >= 4 ? BITS(7, 3) : BITS(6, 3));
	if (type == 2 || type == 3 || type == 7)
		return true;
	return (level == 3 && e & BITS(29, 12)) || (level == 2 && e & BITS(20, 12));
}

/*
 * Accessed flags of the whole path, and the dirty flag of a page that is written; that is logged
 * where there is a log. False: an entry changed meanwhile.
 */
static bool ept_set_ad(struct walk *w, uint64_t *const *path, unsigned n,
		       const struct ept_access *a)
{
	struct cpu_controls *ctl = &w->c->ctl;

	for (unsigned k = 0; k < n; k++) {
		uint64_t old = load64(path[k]);
		uint64_t want = old | EPT_A | (a->need & CPU_TDP_W && k == n - 1 ? EPT_D : 0);

		if (old == want)
			continue;
		if (ctl->exits & CPU_CTL_PML && ctl->pml_index >= CPU_PML_ENTRIES)
			tdp_leave(w, a->gpa, a->need, a->table, CPU_EXIT_PML_FULL);
		if (!(old & EPT_RWX) ||
		    !__atomic_compare_exchange_n(path[k], &old, want, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			return false;
		if (ctl->exits & CPU_CTL_PML && (want ^ old) & EPT_D)
			ctl->pml[ctl->pml_index--] = a->gpa & PAGE_MASK;
	}
	return true;
}

static uint64_t ept_walk(struct walk *w, gpa_t gpa, unsigned need, bool table)
{
	const struct cpu_controls *ctl = &w->c->ctl;
	bool ad = ctl->exits & CPU_CTL_TDP_AD, leaf;
	uint64_t base, perms, e, *path[5];
	unsigned level, n;

	if (gpa >> (12 + 9 * ctl->tdp_levels))
		ept_violation(w, gpa, need, table, 0);
again:
	base = ctl->root & HOST_ADDR;
	perms = EPT_RWX;
	n = 0;
	for (level = ctl->tdp_levels;; level--) {
		path[n] = (uint64_t *)(base + (gpa >> (12 + 9 * (level - 1)) & 511) * 8);
		e = load64(path[n++]);
		if (!(e & EPT_RWX))
			ept_violation(w, gpa, need, table, 0);
		leaf = level == 1 || (level <= 3 && e & EPT_PS);
		if (ept_misconfigured(e, level, leaf))
			tdp_leave(w, gpa, need, table, CPU_EXIT_TDP_MISCONFIG);
		perms &= e;
		base = e & HOST_ADDR;
		if (leaf)
			break;
	}
	if (need & ~perms)
		ept_violation(w, gpa, need, table, perms);
	if (ad && !ept_set_ad(w, path, n, &(struct ept_access){gpa, need, table}))
		goto again;
	if (perms & CPU_TDP_W && (!ad || need & CPU_TDP_W || e & EPT_D))
		perms |= CPU_TDP_STORE;
	return base | (gpa & (BIT(12 + 9 * (level - 1)) - 1) & PAGE_MASK) | perms;
}

_Noreturn static void npt_fault(struct walk *w, gpa_t gpa, unsigned need, bool table,
				uint32_t error)
{
	if (need & CPU_TDP_W)
		error |= X86_PF_W;
	if (need & CPU_TDP_X)
		error |= X86_PF_I;
	/* Every access of a guest is a user's to the nested table (APM 2, 15.25.6). */
	w->c->exit.mem.error = error | X86_PF_U;
	w->c->exit.mem.present_perms = 0;
	tdp_leave(w, gpa, need, table, CPU_EXIT_NPF);
}

static bool npt_reserved(uint64_t e, unsigned level, bool leaf)
{
	if (e & HOST_RSVD || (level >= 4 && e & PTE_PS))
		return true;
	return leaf && ((level == 3 && e & BITS(29, 13)) || (level == 2 && e & BITS(20, 13)));
}

static uint64_t npt_walk(struct walk *w, gpa_t gpa, unsigned need, bool table)
{
	uint64_t base, e, *p, want, perms;
	unsigned level;
	bool leaf;

	if (gpa >> (12 + 9 * w->c->ctl.tdp_levels))
		npt_fault(w, gpa, need, table, 0);
again:
	base = w->c->ctl.root & HOST_ADDR;
	perms = CPU_TDP_R | CPU_TDP_W | CPU_TDP_X;
	for (level = w->c->ctl.tdp_levels;; level--) {
		p = (uint64_t *)(base + (gpa >> (12 + 9 * (level - 1)) & 511) * 8);
		e = load64(p);
		if (!(e & PTE_P))
			npt_fault(w, gpa, need, table, 0);
		leaf = level == 1 || (level <= 3 && e & PTE_PS);
		if (npt_reserved(e, level, leaf))
			npt_fault(w, gpa, need, table, X86_PF_P | X86_PF_RSVD);
		perms &= (e & PTE_U ? CPU_TDP_R : 0) | (e & PTE_W ? CPU_TDP_W : 0) |
			 (e & PTE_NX ? 0 : CPU_TDP_X);
		base = e & HOST_ADDR;
		if (leaf)
			break;
		if (!(e & PTE_A) &&
		    !__atomic_compare_exchange_n(p, &e, e | PTE_A, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			goto again;
	}
	if (!(perms & CPU_TDP_R) || need & ~perms)
		npt_fault(w, gpa, need, table, X86_PF_P);
	want = e | PTE_A | (need & CPU_TDP_W ? PTE_D : 0);
	if (want != e &&
	    !__atomic_compare_exchange_n(p, &e, want, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		goto again;
	if (perms & CPU_TDP_W && want & PTE_D)
		perms |= CPU_TDP_STORE;
	return base | (gpa & (BIT(12 + 9 * (level - 1)) - 1) & PAGE_MASK) | perms;
}

/*
 * The host page of @gpa with CPU_TDP_*, or leave. @table: the access is to a guest table. In shadow
 * mode "guest physical" is the host's already.
 */
static uint64_t tdp_page(struct walk *w, gpa_t gpa, unsigned need, bool table)
{
	struct cpu_mmu_cache *k = w->c->walkc;
	struct cpu_gpa_entry *g;
	uint64_t tag, host;

	if (!w->m->tdp)
		return (gpa & PAGE_MASK) | EPT_RWX | CPU_TDP_STORE;
	if (table && w->c->ctl.exits & CPU_CTL_TDP_AD)
		need |= CPU_TDP_W;
	g = &k->gpa[((gpa >> 12) + (gpa >> 24)) & (CPU_GPA_ENTRIES - 1)];
	tag = (gpa & PAGE_MASK) | k->gpa_gen;
	host = g->host;
	if (g->tag == tag && !(need & ~host) && (!(need & CPU_TDP_W) || host & CPU_TDP_STORE))
		return host;
	w->c->stats.walks++;
	if (w->c->ctl.tdp_format == CPU_TDP_EPT)
		host = ept_walk(w, gpa, need, table);
	else
		host = npt_walk(w, gpa, need, table);
	g->tag = tag;
	g->host = host;
	return host;
}

/* ---- linear to guest physical ------------------------------------------------------------------
 */

static uint32_t fault_code(const struct walk *w, uint32_t error)
{
	if (w->access & CPU_ACCESS_WRITE)
		error |= X86_PF_W;
	if (w->access & CPU_ACCESS_USER)
		error |= X86_PF_U;
	if (w->access & CPU_ACCESS_FETCH && w->m->fault_i)
		error |= X86_PF_I;
	return error;
}

/* Whether the page's key allows it; @write_super comes back false when it allows no supervisor's
 * write. */
static bool key_allows(const struct walk *w, unsigned pkey, struct cpu_xlat *x)
{
	unsigned bits = w->c->s.pkru >> (2 * pkey) & 3;

	if (!w->m->pke || !x->user || w->access & CPU_ACCESS_FETCH || !bits)
		return true;
	if (bits & 1)
		return false;
	x->write = false;
	if (w->m->wp)
		x->write_super = false;
	return !(w->access & CPU_ACCESS_WRITE) || (!(w->access & CPU_ACCESS_USER) && !w->m->wp);
}

/*
 * The rights of SDM 3A 4.6, from the levels' sum in @w. Fills x's; returns the error code's bits, 0
 * when allowed.
 */
static uint32_t check_rights(struct walk *w, unsigned pkey, struct cpu_xlat *x)
{
	const struct cpu_state *s = &w->c->s;
	bool by_user = w->access & CPU_ACCESS_USER, ok;
	bool key_ok;

	x->user = w->u;
	x->read = true;
	x->write = w->w;
	x->write_super = w->w || !w->m->wp;
	key_ok = key_allows(w, pkey, x);
	if (by_user && !x->user) {
		ok = false;
	} else if (w->access & CPU_ACCESS_FETCH) {
		ok = !w->nx && (by_user || !x->user || !w->m->smep);
	} else {
		bool smap = !by_user && x->user && s->cr4 & X86_CR4_SMAP && s->cr0 & X86_CR0_PG &&
			    (w->access & CPU_ACCESS_IMPLICIT || !(s->rflags & X86_FLAG_AC));

		ok = !smap && (!(w->access & CPU_ACCESS_WRITE) || w->w || (!by_user && !w->m->wp));
	}
	if (ok && key_ok)
		return 0;
	return X86_PF_P | (key_ok ? 0 : X86_PF_PK);
}

/* A failed walk: begin again at the top when it was quick, else it is the guest's fault. */
static bool walk_fault(struct walk *w, uint32_t error)
{
	if (w->quick)
		return false;
	w->c->landed_implicit = w->access & CPU_ACCESS_IMPLICIT;
	cpu_fault_pf(w->c, w->i, fault_code(w, error), w->lin);
}

/* The access itself, at guest physical @gpa. @dirty: the guest's own flag needs nothing more. */
static bool finish(struct walk *w, gpa_t gpa, bool dirty, struct cpu_xlat *x)
{
	unsigned need = w->access & CPU_ACCESS_FETCH   ? CPU_TDP_X
			: w->access & CPU_ACCESS_WRITE ? CPU_TDP_R | CPU_TDP_W
						       : CPU_TDP_R;
	uint64_t host = tdp_page(w, gpa, need, false);

	x->page = host & HOST_ADDR;
	x->read = host & CPU_TDP_R;
	if (!dirty || !(host & CPU_TDP_STORE))
		x->write = x->write_super = false;
	return true;
}

/* Set flags in an entry; false: it changed meanwhile. */
static bool set_flags64(struct walk *w, uint64_t *p, gpa_t gpa, bool may_store, uint64_t e,
			uint64_t want)
{
	if (want == e)
		return true;
	if (!may_store)
		tdp_page(w, gpa, CPU_TDP_R | CPU_TDP_W, true);
	return __atomic_compare_exchange_n(p, &e, want, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static struct cpu_psc_entry *psc_slot(const struct walk *w, unsigned shift)
{
	uint64_t region = w->lin >> shift;

	return &w->c->walkc->psc[(region + (region >> 10)) & (CPU_PSC_ENTRIES - 1)];
}

static uint64_t psc_tag(const struct walk *w, unsigned shift)
{
	return (w->lin >> shift << shift) | (uint64_t)w->c->walkc->psc_gen << CPU_PSC_GEN_SHIFT |
	       w->c->asid_bits;
}

static bool psc_find(struct walk *w, unsigned shift, uint64_t *table)
{
	const struct cpu_psc_entry *e = psc_slot(w, shift);

	w->quick = false;
	w->w = w->u = true;
	w->nx = false;
	if (e->tag != psc_tag(w, shift))
		return false;
	w->quick = true;
	w->w = e->table & CPU_PSC_W;
	w->u = e->table & CPU_PSC_U;
	w->nx = e->table & CPU_PSC_NX;
	*table = e->table;
	return true;
}

static void psc_put(const struct walk *w, unsigned shift, uint64_t host)
{
	struct cpu_psc_entry *e = psc_slot(w, shift);

	e->tag = psc_tag(w, shift);
	e->table = (host & HOST_ADDR) | (w->w ? CPU_PSC_W : 0) | (w->u ? CPU_PSC_U : 0) |
		   (w->nx ? CPU_PSC_NX : 0) | (host & CPU_TDP_STORE ? CPU_PSC_STORE : 0);
}

/* A leaf of @level: rights, flags, the page. False: begin again. */
static bool leaf64(struct walk *w, uint64_t *p, gpa_t entry, bool may_store, unsigned level,
		   uint64_t e, struct cpu_xlat *x)
{
	uint64_t want = e | PTE_A | (w->access & CPU_ACCESS_WRITE ? PTE_D : 0);
	unsigned shift = 12 + 9 * (level - 1);
	uint64_t size = BIT(shift);
	uint32_t error = check_rights(w, PTE_PKEY(e), x);

	if (error)
		return walk_fault(w, error);
	if (want != e && w->quick && !may_store)
		return false;
	if (!set_flags64(w, p, entry, may_store, e, want))
		return false;
	x->shift = (uint8_t)shift;
	x->global = w->m->pge && e & PTE_G && !(w->m->pke && x->user);
	return finish(w, (e & w->m->addr & ~(size - 1)) | (w->lin & (size - 1)), want & PTE_D, x);
}

/* PAE's first step is in registers; its four entries were checked when they were loaded. */
static bool pae_root(struct walk *w, gpa_t *table)
{
	uint64_t e = w->c->s.pdptr[w->lin >> 30 & 3];

	*table = e & w->m->addr;
	return e & PTE_P;
}

/* PAE, 4-level and 5-level paging, and the shadow table. */
static bool walk64(struct walk *w, bool try_quick, struct cpu_xlat *x)
{
	const struct cpu_walk_mode *m = w->m;
	unsigned level = m->levels;
	gpa_t table = m->root, entry = 0;
	uint64_t host, e, *p;
	bool leaf;

	if (psc_find(w, 21, &host) && try_quick) {
		bool may_store = host & CPU_PSC_STORE;

		p = (uint64_t *)((host & HOST_ADDR) + (w->lin >> 12 & 511) * 8);
		e = load64(p);
		if (!(e & PTE_P) || e & m->rsvd[1])
			return false;
		w->w &= (e & PTE_W) != 0;
		w->u &= (e & PTE_U) != 0;
		w->nx |= (e & PTE_NX) != 0;
		return leaf64(w, p, 0, may_store, 1, e, x);
	}
	w->quick = false;
	w->w = w->u = true;
	w->nx = false;
	if (level == 3) {
		if (!pae_root(w, &table))
			return walk_fault(w, 0);
		level = 2;
	}
	for (;; level--) {
		entry = table + (w->lin >> (12 + 9 * (level - 1)) & 511) * 8;
		host = tdp_page(w, entry, CPU_TDP_R, true);
		if (level == 1)
			psc_put(w, 21, host);
		p = (uint64_t *)((host & HOST_ADDR) | (entry & ~PAGE_MASK));
		e = load64(p);
		leaf = level == 1 || (level <= 3 && e & PTE_PS);
		if (!(e & PTE_P))
			return walk_fault(w, 0);
		if (e & (leaf && level > 1 ? m->rsvd_large[level] : m->rsvd[level]))
			return walk_fault(w, X86_PF_P | X86_PF_RSVD);
		w->w &= (e & PTE_W) != 0;
		w->u &= (e & PTE_U) != 0;
		w->nx |= (e & PTE_NX) != 0;
		if (leaf)
			return leaf64(w, p, entry, host & CPU_TDP_STORE, level, e, x);
		if (!set_flags64(w, p, entry, host & CPU_TDP_STORE, e, e | PTE_A))
			return false;
		table = e & m->addr;
	}
}

static bool set_flags32(struct walk *w, uint32_t *p, gpa_t gpa, bool may_store, uint32_t e,
			uint32_t want)
{
	if (want == e)
		return true;
	if (!may_store)
		tdp_page(w, gpa, CPU_TDP_R | CPU_TDP_W, true);
	return __atomic_compare_exchange_n(p, &e, want, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static bool leaf32(struct walk *w, uint32_t *p, gpa_t entry, bool may_store, unsigned level,
		   uint32_t e, struct cpu_xlat *x)
{
	uint32_t want = e | PTE_A | (w->access & CPU_ACCESS_WRITE ? PTE_D : 0);
	uint32_t error = check_rights(w, 0, x);
	gpa_t gpa;

	if (error)
		return walk_fault(w, error);
	if (!set_flags32(w, p, entry, may_store, e, want))
		return false;
	x->shift = level == 1 ? 12 : 22;
	x->global = w->m->pge && e & PTE_G;
	if (level == 1)
		gpa = (e & BITS(31, 12)) | (w->lin & ~PAGE_MASK);
	else
		gpa = (e & BITS(31, 22)) |
		      ((uint64_t)e >> 13 & BITS(w->m->pse_bits - 32, 0) >> 1) << 32 |
		      (w->lin & BITS(21, 0));
	return finish(w, gpa, want & PTE_D, x);
}

/* 32-bit paging: the page-directory entry is read each time. */
static bool walk32(struct walk *w, struct cpu_xlat *x)
{
	const struct cpu_walk_mode *m = w->m;
	gpa_t table = m->root, entry;
	uint64_t host;
	uint32_t e, *p;

	w->w = w->u = true;
	w->nx = false;
	for (unsigned level = 2;; level--) {
		bool leaf;

		entry = table + (w->lin >> (12 + 10 * (level - 1)) & 1023) * 4;
		host = tdp_page(w, entry, CPU_TDP_R, true);
		p = (uint32_t *)((host & HOST_ADDR) | (entry & ~PAGE_MASK));
		e = __atomic_load_n(p, __ATOMIC_RELAXED);
		leaf = level == 1 || (e & PTE_PS && m->pse);
		if (!(e & PTE_P))
			return walk_fault(w, 0);
		if (e & (leaf && level > 1 ? m->rsvd_large[2] : 0))
			return walk_fault(w, X86_PF_P | X86_PF_RSVD);
		w->w &= (e & PTE_W) != 0;
		w->u &= (e & PTE_U) != 0;
		if (leaf)
			return leaf32(w, p, entry, host & CPU_TDP_STORE, level, e, x);
		if (!set_flags32(w, p, entry, host & CPU_TDP_STORE, e, e | PTE_A))
			return false;
		table = e & BITS(31, 12);
	}
}

void cpu_walk(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned access,
	      struct cpu_xlat *x)
{
	struct walk w = {
		.c = c,
		.i = i,
		.m = &c->walkc->mode,
		.lin = lin,
		.access = access,
		.gva_valid = true,
	};
	bool quick = true;

	memset(x, 0, sizeof(*x));
	switch (w.m->levels) {
	case 0:
		x->user = x->write = x->write_super = true;
		x->shift = PAGE_SHIFT;
		finish(&w, lin, true, x);
		return;
	case 2:
		while (!walk32(&w, x))
			;
		return;
	default:
		while (!walk64(&w, quick, x))
			quick = false;
		return;
	}
}

bool cpu_gpa_read(struct cpu *c, const struct cpu_insn *i, gpa_t gpa, void *dst, unsigned len)
{
	struct walk w = {.c = c, .i = i, .m = &c->walkc->mode};
	uint64_t host;

	if (c->ctl.paging != CPU_PAGING_TDP)
		return false;
	host = tdp_page(&w, gpa, CPU_TDP_R, true);
	cpu_raw_copy(dst, (const void *)((host & HOST_ADDR) | (gpa & ~PAGE_MASK)), len);
	return true;
}
