/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The TLB: address space numbers, filling, and all ways to forget. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bitmap.h"
#include "cpu/core.h"

#define INVALID (~0ull) /* as a tag: space 15 and number 63, which nobody has */

/* ---- address spaces ---------------------------------------------------------------------------
 */

static uint64_t asid_bits(unsigned space, unsigned number)
{
	return (uint64_t)space << CPU_ASID_SPACE_SHIFT | (uint64_t)number << CPU_TLB_ASID_SHIFT;
}

static void invalidate(struct cpu_tlb_entry *e)
{
	e->tag_r = e->tag_w = e->mask = INVALID;
}

static void forget(struct cpu_tlb2_entry *e)
{
	e->id = 0; /* nobody's */
}

static void wipe_first_level(struct cpu *c)
{
	memset(c->tlb, 0xff, CPU_TLB_ENTRIES * sizeof(*c->tlb));
	cpu_tlb_drop_fetch(c);
}

static void wipe(struct cpu *c)
{
	struct cpu_mmu_cache *k = c->walkc;

	wipe_first_level(c);
	memset(k->large, 0, sizeof(k->large));
	memset(k->wfilter, 0, sizeof(k->wfilter));
	memset(k->huge, 0, sizeof(k->huge));
	memset(k->hint, 0, sizeof(k->hint));
	memset(k->space, 0, sizeof(k->space)); /* and with the ids the second level */
	c->stats.tlb_flushes++;
}

/* A space's entries leave the first level, so that its numbers can be given out again. */
static void sweep_space(struct cpu *c, unsigned space)
{
	uint64_t bits = asid_bits(space, 0);

	for (unsigned n = 0; n < CPU_TLB_ENTRIES; n++) {
		if ((c->tlb[n].tag_r & CPU_ASID_SPACE_MASK) == bits)
			invalidate(&c->tlb[n]);
	}
	for (unsigned n = 0; n < CPU_ITLB_ENTRIES; n++) {
		if ((c->itlb[n].tag & CPU_ASID_SPACE_MASK) == bits)
			c->itlb[n].tag = c->itlb[n].mask = INVALID;
	}
	cpu_walk_flush(c);
	c->stats.tlb_flushes++;
}

static unsigned find_space(struct cpu *c, const struct cpu_space *want)
{
	struct cpu_mmu_cache *k = c->walkc;
	unsigned oldest = 1, s;

	for (s = 1; s < CPU_SPACES - 1; s++) {
		const struct cpu_space *e = &k->space[s];

		if (!e->used)
			break;
		if (e->paging == want->paging && e->tdp_format == want->tdp_format &&
		    e->vpid == want->vpid && e->role == want->role && e->root == want->root)
			return s;
		if (e->stamp < k->space[oldest].stamp)
			oldest = s;
	}
	if (s == CPU_SPACES - 1) {
		s = oldest;
		sweep_space(c, s);
	}
	k->space[s] = *want;
	k->space[s].used = true;
	k->space[s].next = 1;
	k->space[s].id = ++k->last_id;
	return s;
}

/* All numbers are given out. Those still good move down, and keep what the second level has of
 * them. */
static unsigned renumber(struct cpu *c, unsigned space)
{
	struct cpu_space *s = &c->walkc->space[space];
	unsigned next = 1;

	sweep_space(c, space);
	for (unsigned k = 0; k < CPU_SLOTS; k++) {
		if (next < CPU_NUMBERS / 2 && s->slot[k].used)
			s->slot[k].n = (uint8_t)next++;
		else
			s->slot[k].used = false;
	}
	return next;
}

static unsigned slot_of(const struct cpu_number *n)
{
	uint64_t key = n->root ^ (uint64_t)n->pkru << 20 ^ n->pcid;

	return (unsigned)(key * 0x9e3779b97f4a7c15ull >> 58);
}

/* One slot a key: who comes to an occupied one takes it, and what was there is forgotten. */
static struct cpu_number *find_number(struct cpu *c, unsigned space, const struct cpu_number *want)
{
	struct cpu_space *s = &c->walkc->space[space];
	struct cpu_number *e = &s->slot[slot_of(want)];

	if (e->used && e->root == want->root && e->pkru == want->pkru && e->pcid == want->pcid)
		return e;
	e->used = false;
	if (s->next == CPU_NUMBERS)
		s->next = (uint8_t)renumber(c, space);
	*e = *want;
	e->used = true;
	e->n = s->next++;
	e->id = ++c->walkc->last_id;
	return e;
}

/* ---- what the registers mean -------------------------------------------------------------------
 */

static void set_reserved(struct cpu_walk_mode *m, unsigned width, bool gbpages)
{
	uint64_t high = width < 52 ? BITS(51, width) : 0;

	m->addr = BITS(51, 12) & ~high;
	if (!m->nxe)
		high |= BIT(63);
	if (m->levels == 3)
		high |= BITS(62, 52);
	for (unsigned l = 1; l <= 5; l++)
		m->rsvd[l] = m->rsvd_large[l] = high;
	m->rsvd[4] |= BIT(7);
	m->rsvd[5] |= BIT(7);
	m->rsvd_large[3] |= gbpages ? BITS(29, 13) : BIT(7);
	m->rsvd_large[2] |= BITS(20, 13);
	if (m->levels == 2) {
		m->pse_bits = (uint8_t)MIN(width, 40u);
		m->rsvd[1] = m->rsvd[2] = 0;
		m->rsvd_large[2] = BITS(21, m->pse_bits - 19);
	}
}

static unsigned guest_levels(const struct cpu_state *s)
{
	if (!(s->cr0 & X86_CR0_PG))
		return 0;
	if (!(s->cr4 & X86_CR4_PAE))
		return 2;
	if (!(s->efer & X86_EFER_LMA))
		return 3;
	return s->cr4 & X86_CR4_LA57 ? 5 : 4;
}

static void compute_mode(const struct cpu *c, struct cpu_walk_mode *m)
{
	const struct cpu_state *s = &c->s;
	bool paging = s->cr0 & X86_CR0_PG;

	memset(m, 0, sizeof(*m));
	m->smep = paging && s->cr4 & X86_CR4_SMEP;
	if (c->ctl.paging == CPU_PAGING_SHADOW) {
		/* L0's own table: CR0.WP and EFER.NXE as L0 needs them. */
		m->levels = c->ctl.tdp_levels == 5 ? 5 : 4;
		m->wp = m->nxe = true;
		m->pke = paging && s->cr4 & X86_CR4_PKE && s->efer & X86_EFER_LMA;
		m->root = c->ctl.root;
		m->fault_i = true;
		set_reserved(m, 48, true);
		return;
	}
	m->tdp = true;
	m->levels = (uint8_t)guest_levels(s);
	m->wp = s->cr0 & X86_CR0_WP;
	m->pse = m->levels > 2 || s->cr4 & X86_CR4_PSE;
	m->nxe = m->levels > 2 && s->efer & X86_EFER_NXE;
	m->pge = paging && s->cr4 & X86_CR4_PGE;
	m->pke = m->levels > 3 && s->cr4 & X86_CR4_PKE;
	m->fault_i = m->nxe || m->smep;
	set_reserved(m, m->levels == 2 && !cpu_has(c, CPU_FEAT_PSE36) ? 32 : c->maxphyaddr,
		     cpu_has(c, CPU_FEAT_GBPAGES));
	if (m->levels == 2)
		m->addr = BITS(31, 12);
	m->root = s->cr3 & (m->levels == 2 ? BITS(31, 12) : m->addr);
}

static uint32_t role_of(const struct cpu_walk_mode *m)
{
	return m->levels | (uint32_t)m->wp << 3 | (uint32_t)m->nxe << 4 | (uint32_t)m->pge << 5 |
	       (uint32_t)m->pke << 6 | (uint32_t)m->pse << 7;
}

void cpu_update_asid(struct cpu *c)
{
	struct cpu_mmu_cache *k = c->walkc;
	struct cpu_walk_mode *m = &k->mode;
	bool tdp = c->ctl.paging == CPU_PAGING_TDP;
	struct cpu_space space = {
		.paging = (uint8_t)c->ctl.paging,
		.tdp_format = tdp ? (uint8_t)c->ctl.tdp_format : 0,
		.vpid = c->ctl.vpid,
		.root = tdp ? c->ctl.root : 0,
	};
	struct cpu_number number = {.root = tdp ? 0 : c->ctl.root};

	compute_mode(c, m);
	space.role = role_of(m);
	number.pkru = m->pke ? c->s.pkru : 0;
	number.pcid = c->s.cr4 & X86_CR4_PCIDE ? c->s.cr3 & X86_CR3_PCID_MASK : 0;
	if (tdp && k->gpa_root != c->ctl.root) {
		k->gpa_root = c->ctl.root;
		cpu_walk_flush(c);
	}
	k->cur_space = find_space(c, &space);
	k->space[k->cur_space].stamp = ++k->stamp;
	k->cur = find_number(c, k->cur_space, &number);
	k->cur_global_id = k->space[k->cur_space].id;
	k->cur_id = k->cur->id;
	c->asid_bits = asid_bits(k->cur_space, k->cur->n);
	cpu_update_tlb_ctx(c);
}

void cpu_update_tlb_ctx(struct cpu *c)
{
	bool paging = c->s.cr0 & X86_CR0_PG, user = cpu_cpl(c) == 3;
	bool smap = paging && c->s.cr4 & X86_CR4_SMAP;
	uint64_t asid = c->mem_ops || c->watching ? 0 : c->asid_bits;

	c->sys_ctx = asid | (smap ? CPU_TLB_CTX_SMAP : 0);
	if (user)
		c->tlb_ctx = asid | CPU_TLB_CTX_USER;
	else
		c->tlb_ctx = asid | (smap && !(c->s.rflags & X86_FLAG_AC) ? CPU_TLB_CTX_SMAP : 0);
	c->fetch_ctx = c->asid_bits | (user ? BIT(0) : c->walkc->mode.smep ? BIT(1) : 0);
}

/* ---- filling ----------------------------------------------------------------------------------
 */

/* The first level has one entry for each set of the second, and they share the index. */
_Static_assert(CPU_TLB2_SETS == CPU_TLB_ENTRIES && CPU_TLB2_SETS % CPU_ITLB_ENTRIES == 0,
	       "indexes");

static unsigned set_of(uint64_t lin)
{
	uint64_t vpn = lin >> PAGE_SHIFT;

	return (unsigned)(vpn + (vpn >> CPU_TLB_BITS)) & (CPU_TLB2_SETS - 1);
}

static struct cpu_itlb_entry *itlb_slot(const struct cpu *c, uint64_t lin)
{
	return &c->itlb[set_of(lin) & (CPU_ITLB_ENTRIES - 1)];
}

/*
 * Where to look for a frame: in some sets (each noted plus 1, 0 ends them), or everywhere. Without
 * this every page that is write-protected, and shadow paging does it often, would cost a look at
 * the whole second level.
 */
#define HINT_MANY  0xffffu
#define HINT_PAGES 64u /* of a flush; beyond, everything is looked at */

static uint16_t *hint_of(struct cpu_mmu_cache *k, uint64_t pfn)
{
	return k->hint[(pfn ^ pfn >> 14) & (CPU_FRAME_HINTS - 1)];
}

static void note_frame(struct cpu_mmu_cache *k, uint64_t pfn, unsigned set)
{
	uint16_t *hint = hint_of(k, pfn);

	for (unsigned n = 0; n < CPU_HINT_SETS; n++) {
		if (!hint[n])
			hint[n] = (uint16_t)(set + 1);
		if (hint[n] == set + 1)
			return;
	}
	hint[0] = HINT_MANY;
}

static unsigned wfilter_bit(uint64_t pfn)
{
	return (unsigned)(pfn ^ pfn >> 16) & (CPU_WFILTER_BITS - 1);
}

static uint64_t mask_of(const struct cpu_xlat *x)
{
	return PAGE_MASK | (x->global ? CPU_ASID_SPACE_MASK : CPU_ASID_MASK) |
	       (x->user ? CPU_TLB_CTX_SMAP : CPU_TLB_CTX_USER);
}

/* Fibonacci hashing: the kernel's direct map must not hide user addresses. */
static unsigned large_bit(uint64_t lin)
{
	return (unsigned)((lin >> 21) * 0x9e3779b97f4a7c15ull >> 50);
}

static unsigned huge_bit(uint64_t lin)
{
	return (unsigned)((lin >> 30) * 0x9e3779b97f4a7c15ull >> 54);
}

static void note_large(struct cpu_mmu_cache *k, uint64_t lin, unsigned shift)
{
	if (shift > 22)
		bitmap_set(k->huge, huge_bit(lin));
	else if (shift > PAGE_SHIFT)
		bitmap_set(k->large, large_bit(lin));
}

/* Into both levels; in the second it takes the place of what it renews, or the set's oldest. */
static void fill(struct cpu *c, uint64_t lin, const struct cpu_xlat *x, bool store)
{
	struct cpu_mmu_cache *k = c->walkc;
	unsigned set = set_of(lin), way;
	struct cpu_tlb_entry e = {
		.tag_r = (lin & PAGE_MASK) | c->asid_bits,
		.tag_w = INVALID,
		.mask = mask_of(x),
		.addend = x->page - (lin & PAGE_MASK),
	};

	if (store) {
		e.tag_w = e.tag_r;
		if (!x->write)
			e.mask |= CPU_TLB_CTX_USER; /* CR0.WP is clear: not for CPL 3 */
		bitmap_set(k->wfilter, wfilter_bit(x->page >> PAGE_SHIFT));
	}
	note_large(k, lin, x->shift);
	note_frame(k, x->page >> PAGE_SHIFT, set);
	*cpu_tlb_slot(c, lin) = e;
	for (way = 0; way < CPU_TLB2_WAYS; way++) {
		if (((k->tlb2[set][way].e.tag_r ^ e.tag_r) & PAGE_MASK) == 0 &&
		    (k->tlb2[set][way].id == k->cur_id || k->tlb2[set][way].id == k->cur_global_id))
			break;
	}
	if (way == CPU_TLB2_WAYS)
		way = k->tlb2_next[set]++ % CPU_TLB2_WAYS;
	k->tlb2[set][way].e = e;
	k->tlb2[set][way].id = x->global ? k->cur_global_id : k->cur_id;
}

static uint64_t key_of(const struct cpu *c, uint64_t lin, unsigned access)
{
	uint64_t key = (lin & PAGE_MASK) | c->asid_bits;

	if (access & CPU_ACCESS_USER)
		return key | CPU_TLB_CTX_USER;
	if (c->s.cr0 & X86_CR0_PG && c->s.cr4 & X86_CR4_SMAP &&
	    (access & CPU_ACCESS_IMPLICIT || !(c->s.rflags & X86_FLAG_AC)))
		return key | CPU_TLB_CTX_SMAP;
	return key;
}

static bool from_second(struct cpu *c, uint64_t lin, uint64_t key, bool write)
{
	const struct cpu_mmu_cache *k = c->walkc;
	const struct cpu_tlb2_entry *set = k->tlb2[set_of(lin)];

	for (unsigned way = 0; way < CPU_TLB2_WAYS; way++) {
		struct cpu_tlb_entry e = set[way].e;

		if (((e.tag_r ^ lin) & PAGE_MASK) ||
		    (set[way].id != k->cur_id && set[way].id != k->cur_global_id))
			continue;
		e.tag_r = (lin & PAGE_MASK) | c->asid_bits;
		if (e.tag_w != INVALID)
			e.tag_w = e.tag_r;
		if (((write ? e.tag_w : e.tag_r) ^ key) & e.mask)
			return false;
		*cpu_tlb_slot(c, lin) = e;
		return true;
	}
	return false;
}

void *cpu_translate(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned access,
		    bool *code)
{
	const struct cpu_tlb_entry *e = cpu_tlb_slot(c, lin);
	bool write = access & CPU_ACCESS_WRITE, has_code;
	uint64_t key = key_of(c, lin, access);
	struct cpu_xlat x;

	*code = false;
	if ((((write ? e->tag_w : e->tag_r) ^ key) & e->mask) == 0 ||
	    from_second(c, lin, key, write))
		return (void *)(lin + e->addend);
	c->stats.tlb_misses++;
	cpu_walk(c, i, lin, access, &x);
	has_code = (x.write || x.write_super) && cpu_domain_has_code(c->domain, x.page);
	if (x.read)
		fill(c, lin, &x, (x.write || (write && x.write_super)) && !has_code);
	*code = write && has_code;
	return (void *)(x.page | (lin & ~PAGE_MASK));
}

hpa_t cpu_fetch(struct cpu *c, uint64_t lin)
{
	struct cpu_itlb_entry *e = itlb_slot(c, lin);
	unsigned access = CPU_ACCESS_FETCH | (cpu_cpl(c) == 3 ? CPU_ACCESS_USER : 0);
	struct cpu_xlat x;

	if ((e->tag ^ ((lin & PAGE_MASK) | c->fetch_ctx)) & e->mask) {
		if ((c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 && !cpu_lin_canonical(c, lin))
			cpu_fault_err(c, NULL, X86_VEC_GP, 0);
		c->stats.tlb_misses++;
		cpu_walk(c, NULL, lin, access, &x);
		if (unlikely(cpu_debug_host_page(c, lin)))
			return x.page | (lin & ~PAGE_MASK);
		note_large(c->walkc, lin, x.shift);
		note_frame(c->walkc, x.page >> PAGE_SHIFT, set_of(lin));
		e->tag = (lin & PAGE_MASK) | c->asid_bits;
		e->mask = mask_of(&x);
		e->hpa = x.page;
	}
	return e->hpa | (lin & ~PAGE_MASK);
}

/* ---- forgetting -------------------------------------------------------------------------------
 */

void cpu_tlb_flush_all(struct cpu *c)
{
	wipe(c);
	cpu_walk_flush(c);
	cpu_update_asid(c);
}

void cpu_tlb_flush_root(struct cpu *c, uint64_t root)
{
	struct cpu_mmu_cache *k = c->walkc;

	cpu_walk_flush(c);
	for (unsigned s = 1; s < CPU_SPACES - 1; s++) {
		struct cpu_space *e = &k->space[s];

		if (!e->used)
			continue;
		if (e->paging == CPU_PAGING_TDP && e->root == root) {
			sweep_space(c, s);
			memset(e, 0, sizeof(*e));
			e->used = true; /* nobody's until it is the oldest: its key fits no space */
			e->paging = 0xff;
			continue;
		}
		for (unsigned n = 0; n < CPU_SLOTS; n++) {
			if (e->paging == CPU_PAGING_SHADOW && e->slot[n].root == root)
				e->slot[n].used = false;
		}
	}
	c->stats.tlb_flushes++;
	cpu_update_asid(c);
}

void cpu_tlb_flush_guest(struct cpu *c, bool global)
{
	struct cpu_mmu_cache *k = c->walkc;
	struct cpu_space *s = &k->space[k->cur_space];

	if (global) {
		/* Its globals leave the first level only by a sweep. */
		sweep_space(c, k->cur_space);
		memset(s->slot, 0, sizeof(s->slot));
		s->next = 1;
		s->id = ++k->last_id;
	} else {
		k->cur->used = false;
		c->stats.tlb_flushes++;
	}
	cpu_update_asid(c);
}

static void flush_page(struct cpu *c, uint64_t lin)
{
	struct cpu_tlb_entry *e = cpu_tlb_slot(c, lin);
	struct cpu_tlb2_entry *set = c->walkc->tlb2[set_of(lin)];
	struct cpu_itlb_entry *f = itlb_slot(c, lin);

	if (((e->tag_r ^ lin) & PAGE_MASK) == 0)
		invalidate(e);
	if (((f->tag ^ lin) & PAGE_MASK) == 0)
		f->tag = f->mask = INVALID;
	for (unsigned way = 0; way < CPU_TLB2_WAYS; way++) {
		if (((set[way].e.tag_r ^ lin) & PAGE_MASK) == 0)
			forget(&set[way]);
	}
}

static void flush_region(struct cpu *c, uint64_t lin, unsigned shift)
{
	struct cpu_mmu_cache *k = c->walkc;

	for (unsigned n = 0; n < CPU_TLB_ENTRIES; n++) {
		if ((c->tlb[n].tag_r ^ lin) >> shift == 0)
			invalidate(&c->tlb[n]);
	}
	for (unsigned n = 0; n < CPU_TLB2_SETS * CPU_TLB2_WAYS; n++) {
		if (((&k->tlb2[0][0] + n)->e.tag_r ^ lin) >> shift == 0)
			forget(&k->tlb2[0][0] + n);
	}
	for (unsigned n = 0; n < CPU_ITLB_ENTRIES; n++) {
		if ((c->itlb[n].tag ^ lin) >> shift == 0)
			c->itlb[n].tag = c->itlb[n].mask = INVALID;
	}
}

void cpu_tlb_flush_gva(struct cpu *c, gva_t gva)
{
	struct cpu_mmu_cache *k = c->walkc;
	uint64_t size = k->mode.levels == 2 ? MIB(4) : MIB(2), base = gva & ~(size - 1);

	c->stats.tlb_flushes++;
	cpu_walk_flush(c);
	if (bitmap_test(k->huge, huge_bit(gva)))
		flush_region(c, gva, 30);
	flush_page(c, gva);
	for (uint64_t half = base; half < base + size; half += MIB(2)) {
		if (!bitmap_test(k->large, large_bit(half)))
			continue;
		for (unsigned n = 0; n < size >> PAGE_SHIFT; n++)
			flush_page(c, base + ((uint64_t)n << PAGE_SHIFT));
		break;
	}
}

static bool holds_host(const struct cpu_tlb_entry *e, hpa_t hpa, uint64_t len)
{
	return e->tag_r != INVALID && (e->tag_r & PAGE_MASK) + e->addend - (hpa & PAGE_MASK) < len;
}

/* A set of the second level, and the only places of the first that hold what it may hold. */
static void flush_set(struct cpu *c, unsigned set, hpa_t hpa, uint64_t len)
{
	struct cpu_itlb_entry *f = &c->itlb[set & (CPU_ITLB_ENTRIES - 1)];
	struct cpu_tlb2_entry *e = c->walkc->tlb2[set];

	if (holds_host(&c->tlb[set], hpa, len))
		invalidate(&c->tlb[set]);
	if (f->hpa - hpa < len)
		f->tag = f->mask = INVALID;
	for (unsigned way = 0; way < CPU_TLB2_WAYS; way++) {
		if (holds_host(&e[way].e, hpa, len))
			forget(&e[way]);
	}
}

static void note_entry(struct cpu *c, const struct cpu_tlb_entry *e, unsigned set)
{
	if (e->tag_r != INVALID)
		note_frame(c->walkc, ((e->tag_r & PAGE_MASK) + e->addend) >> PAGE_SHIFT, set);
}

/* All of them; and what is left is noted anew, so that the hints do not grow old. */
static void flush_sets(struct cpu *c, hpa_t hpa, uint64_t len)
{
	struct cpu_mmu_cache *k = c->walkc;

	memset(k->hint, 0, sizeof(k->hint));
	for (unsigned set = 0; set < CPU_TLB2_SETS; set++) {
		flush_set(c, set, hpa, len);
		note_entry(c, &c->tlb[set], set);
		for (unsigned way = 0; way < CPU_TLB2_WAYS; way++) {
			if (k->tlb2[set][way].id)
				note_entry(c, &k->tlb2[set][way].e, set);
		}
	}
	for (unsigned n = 0; n < CPU_ITLB_ENTRIES; n++) {
		const struct cpu_itlb_entry *f = &c->itlb[n];

		if (f->tag != INVALID)
			note_frame(k, f->hpa >> PAGE_SHIFT, set_of(f->tag));
	}
}

void cpu_tlb_flush_hpa(struct cpu *c, hpa_t hpa, uint64_t len)
{
	struct cpu_mmu_cache *k = c->walkc;
	uint64_t pfn = hpa >> PAGE_SHIFT, end = ((hpa + len - 1) >> PAGE_SHIFT) + 1;

	hpa = pfn << PAGE_SHIFT;
	len = (end - pfn) << PAGE_SHIFT;
	cpu_walk_flush(c);
	c->stats.tlb_flushes++;
	if (end - pfn > HINT_PAGES) {
		flush_sets(c, hpa, len);
		return;
	}
	for (; pfn < end; pfn++) {
		const uint16_t *hint = hint_of(k, pfn);

		if (hint[0] == HINT_MANY) {
			flush_sets(c, hpa, len);
			return;
		}
		for (unsigned n = 0; n < CPU_HINT_SETS && hint[n]; n++)
			flush_set(c, hint[n] - 1u, hpa, len);
	}
}

void cpu_tlb_drop_fetch(struct cpu *c)
{
	memset(c->itlb, 0xff, CPU_ITLB_ENTRIES * sizeof(*c->itlb));
}

static void drop_write(struct cpu_tlb_entry *e, const uint64_t *pfn, unsigned n)
{
	uint64_t host = ((e->tag_w & PAGE_MASK) + e->addend) >> PAGE_SHIFT;

	for (unsigned k = 0; k < n; k++) {
		if (pfn[k] == host)
			e->tag_w = INVALID;
	}
}

void cpu_tlb_drop_write(struct cpu *c, const uint64_t *pfn, unsigned n)
{
	struct cpu_mmu_cache *k = c->walkc;
	bool any = false;

	for (unsigned f = 0; f < n; f++)
		any |= bitmap_test(k->wfilter, wfilter_bit(pfn[f]));
	if (!any)
		return;
	for (unsigned e = 0; e < CPU_TLB_ENTRIES; e++)
		drop_write(&c->tlb[e], pfn, n);
	for (unsigned e = 0; e < CPU_TLB2_SETS * CPU_TLB2_WAYS; e++)
		drop_write(&(&k->tlb2[0][0] + e)->e, pfn, n);
}

void cpu_tlb_drop_write_all(struct cpu *c)
{
	struct cpu_mmu_cache *k = c->walkc;

	for (unsigned e = 0; e < CPU_TLB_ENTRIES; e++)
		c->tlb[e].tag_w = INVALID;
	for (unsigned e = 0; e < CPU_TLB2_SETS * CPU_TLB2_WAYS; e++)
		(&k->tlb2[0][0] + e)->e.tag_w = INVALID;
	memset(k->wfilter, 0, sizeof(k->wfilter));
}

/* ---- life -------------------------------------------------------------------------------------
 */

int cpu_tlb_init(struct cpu *c)
{
	/* Mostly memory that a processor which runs little never touches: zero without a write. */
	c->walkc = mmap(NULL, sizeof(*c->walkc), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->walkc == MAP_FAILED) {
		c->walkc = NULL;
		return -1;
	}
	c->tlb = aligned_alloc(64, CPU_TLB_ENTRIES * sizeof(*c->tlb));
	c->itlb = aligned_alloc(64, ALIGN_UP(CPU_ITLB_ENTRIES * sizeof(*c->itlb), (size_t)64));
	if (!c->tlb || !c->itlb)
		return -1;
	wipe_first_level(c);
	cpu_walk_flush(c);
	return 0;
}

void cpu_tlb_finish(struct cpu *c)
{
	if (c->walkc)
		munmap(c->walkc, sizeof(*c->walkc));
	free(c->tlb);
	free(c->itlb);
}
