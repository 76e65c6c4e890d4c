/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random operations of several vCPUs, interleaved by one thread; after each access the result must
 * be one that the architecture allows by the oracle, after each operation the audit runs.
 * test_mmu_property [OPERATIONS [SEED]] runs one long sequence instead of the short ones.
 */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NR_TABLES  20
#define NR_GVAS	   40
#define HISTORY	   12
#define NR_PCIDS   3
#define LOW_PAGES  64
#define BIG_GPA	   0x400000ull
#define BIG_PAGES  1024
#define ROM_GPA	   0x1000000ull
#define ROM_PAGES  4
#define NR_PAGES   (LOW_PAGES + BIG_PAGES + ROM_PAGES)
#define NR_CLIENTS 3

struct history {
	unsigned n;
	bool any; /* overflown: anything goes */
	struct oracle_xlat x[HISTORY];
};

struct world {
	struct machine m;
	uint64_t rng, seed;
	uint64_t op;
	const char *what;
	uint64_t gva[NR_GVAS];
	struct history past[NR_CPUS][NR_PCIDS][NR_GVAS]; /* what may be cached, by PCID */
	struct dirty_client *client[NR_CLIENTS];
	bool dirty[NR_CLIENTS][NR_PAGES];
	bool watching[NR_CLIENTS];
	bool may_intrude, intruded; /* another vCPU's store amid an operation */
	uint64_t intrusions, accesses, faults, mmio, emulated, stale, truly_dirty, told_dirty;
	bool aside;
};

static uint64_t rnd(struct world *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return w->rng * 0x2545f4914f6cdd1dull >> 8;
}

static uint64_t below(struct world *w, uint64_t n)
{
	return rnd(w) % n;
}

static bool chance(struct world *w, unsigned percent)
{
	return below(w, 100) < percent;
}

#define WRONG(w, ...)                                                                              \
	do {                                                                                       \
		print_error("seed %llu, operation %llu (%s): ", (unsigned long long)(w)->seed,     \
			    (unsigned long long)(w)->op, (w)->what);                               \
		fail_msg(__VA_ARGS__);                                                             \
	} while (0)

/* ---- the model ---- */

static bool model_read(void *priv, uint64_t gpa, unsigned size, uint64_t *value)
{
	void *p = machine_ptr(&((struct world *)priv)->m, gpa);

	if (!p)
		return false;
	*value = size == 4 ? *(uint32_t *)p : *(uint64_t *)p;
	return true;
}

static struct oracle_regs oracle_regs_of(const struct cpu *c)
{
	struct oracle_regs o = {.cr0 = c->regs.cr0,
				.cr3 = c->regs.cr3,
				.cr4 = c->regs.cr4,
				.efer = c->regs.efer,
				.pkru = c->regs.pkru,
				.width = c->regs.maxphyaddr,
				.gbpages = c->regs.gbpages};

	memcpy(o.pdptr, c->regs.pdptr, sizeof(o.pdptr));
	return o;
}

static void now(struct world *w, unsigned cpu, uint64_t gva, struct oracle_xlat *x)
{
	struct oracle_regs regs = oracle_regs_of(&w->m.cpu[cpu]);
	struct oracle_mem mem = {.read = model_read, .priv = w};

	oracle_translate(&regs, &mem, gva, x);
}

static void remember(struct history *h, const struct oracle_xlat *x)
{
	if (x->kind != ORACLE_OK)
		return;
	for (unsigned i = 0; i < h->n; i++) {
		if (oracle_same(&h->x[i], x))
			return;
	}
	if (h->n == HISTORY)
		h->any = true;
	else
		h->x[h->n++] = *x;
}

/* Memory or a register has changed: what translates now may be cached from now on. */
static void snapshot(struct world *w)
{
	for (unsigned c = 0; c < w->m.nr_cpus; c++) {
		for (unsigned i = 0; i < NR_GVAS; i++) {
			struct oracle_xlat x;

			now(w, c, w->gva[i], &x);
			remember(&w->past[c][cpu_pcid(&w->m.cpu[c])][i], &x);
		}
	}
}

enum keep { KEEP_GLOBALS, KEEP_NOTHING, KEEP_OTHERS /* only globals go */ };

static void forget(struct world *w, unsigned cpu, unsigned pcid, unsigned gva, enum keep keep)
{
	struct history *h = &w->past[cpu][pcid][gva], old = *h;
	bool pge = w->m.cpu[cpu].regs.cr4 & BIT(7);

	if (keep == KEEP_NOTHING || (keep == KEEP_GLOBALS && !pge))
		h->any = false;
	h->n = 0;
	for (unsigned i = 0; keep != KEEP_NOTHING && i < old.n; i++) {
		if ((old.x[i].g && pge) == (keep == KEEP_GLOBALS))
			h->x[h->n++] = old.x[i];
	}
}

static void forget_pcid(struct world *w, unsigned cpu, unsigned pcid, enum keep keep)
{
	for (unsigned i = 0; i < NR_GVAS; i++)
		forget(w, cpu, pcid, i, keep);
}

static void forget_all(struct world *w, unsigned cpu)
{
	for (unsigned pcid = 0; pcid < NR_PCIDS; pcid++)
		forget_pcid(w, cpu, pcid, KEEP_NOTHING);
	snapshot(w);
}

/* Entries cached as global serve every PCID. */
static void share_globals(struct world *w, unsigned cpu)
{
	if (!(w->m.cpu[cpu].regs.cr4 & BIT(7)))
		return;
	for (unsigned p = 0; p < NR_PCIDS; p++) {
		for (unsigned g = 0; g < NR_GVAS; g++) {
			const struct history *h = &w->past[cpu][p][g];

			for (unsigned i = 0; i < h->n; i++) {
				for (unsigned q = 0; h->x[i].g && q < NR_PCIDS; q++)
					remember(&w->past[cpu][q][g], &h->x[i]);
			}
		}
	}
}

/* ---- dirty pages by our own account ---- */

static int page_number(gpa_t gpa)
{
	uint64_t gfn = gpa >> 12;

	if (gfn < LOW_PAGES)
		return (int)gfn;
	if (gfn - (BIG_GPA >> 12) < BIG_PAGES)
		return (int)(LOW_PAGES + gfn - (BIG_GPA >> 12));
	if (gfn - (ROM_GPA >> 12) < ROM_PAGES)
		return (int)(LOW_PAGES + BIG_PAGES + gfn - (ROM_GPA >> 12));
	return -1;
}

static void written(struct world *w, gpa_t gpa)
{
	int n = page_number(gpa);

	for (unsigned c = 0; c < NR_CLIENTS && n >= 0; c++)
		w->dirty[c][n] |= w->watching[c];
}

/* ---- operations ---- */

static struct cpu *any_cpu(struct world *w)
{
	return &w->m.cpu[below(w, w->m.nr_cpus)];
}

static gpa_t any_table(struct world *w)
{
	return below(w, NR_TABLES) << 12;
}

/* Frames 0..15 are meant for levels 1..4 in turn, 16..19 for level 5. */
static unsigned level_of(gpa_t gpa)
{
	uint64_t frame = gpa >> 12;

	return frame < 16 ? 1 + (unsigned)frame % 4 : 5;
}

static gpa_t table_of_level(struct world *w, unsigned level)
{
	if (level == 5)
		return (16 + below(w, 4)) << 12;
	return (below(w, 4) * 4 + level - 1) << 12;
}

static uint64_t wild_entry(struct world *w)
{
	uint64_t e = 0;

	if (chance(w, 15))
		return chance(w, 70) ? 0 : rnd(w) << 32 ^ rnd(w);
	switch (below(w, 10)) {
	case 0: e = BIG_GPA + (below(w, BIG_PAGES) << 12); break;
	case 1: e = BIG_GPA + (below(w, 2) << 21); break;
	case 2: e = (LOW_PAGES - 2 + below(w, 4)) << 12; break;
	case 3: e = ROM_GPA + (below(w, ROM_PAGES + 1) << 12); break;
	case 4: e = below(w, LOW_PAGES) << 12; break;
	case 5: e = 0; break;
	default: e = any_table(w); break;
	}
	e |= chance(w, 92) ? 1 : 0;
	e |= chance(w, 75) ? 2 : 0;
	e |= chance(w, 75) ? 4 : 0;
	e |= chance(w, 60) ? 0x20 : 0;
	e |= chance(w, 50) ? 0x40 : 0;
	e |= chance(w, 12) ? 0x80 : 0;
	e |= chance(w, 15) ? 0x100 : 0;
	e |= chance(w, 10) ? BIT(63) : 0;
	e |= chance(w, 10) ? below(w, 4) << 59 : 0;
	e |= chance(w, 2) ? BIT(40 + below(w, 12)) : 0;
	return e;
}

/* What a sane guest would put into a table at this level; now and then something else. */
static uint64_t any_entry(struct world *w, unsigned level)
{
	static const uint64_t flags[] = {0x67, 0x67,  0x67,  0x07, 0x67, 0x63, 0x65,
					 0x27, 0x167, 0x167, 0x66, 0x05, 0x67, 0x67};
	uint64_t e = flags[below(w, ARRAY_SIZE(flags))];

	if (chance(w, 2))
		return wild_entry(w);
	if (level > 1 && chance(w, 94))
		return table_of_level(w, level - 1) | (chance(w, 94) ? 0x67 : e);
	if (level == 2 || level == 3)
		return (chance(w, 70) ? BIG_GPA : 0) | e | 0x80;
	if (chance(w, 5))
		e |= BIT(63);
	if (chance(w, 5))
		e |= below(w, 4) << 59;
	switch (below(w, 6)) {
	case 0: return e | (BIG_GPA + (below(w, BIG_PAGES) << 12));
	case 1: return e | below(w, LOW_PAGES) << 12;
	case 2: return e | (LOW_PAGES + below(w, 4)) << 12;
	case 3: return e | (ROM_GPA + (below(w, ROM_PAGES) << 12));
	default: return e | any_table(w);
	}
}

static unsigned any_index(struct world *w)
{
	static const unsigned common[] = {0, 1, 2, 3, 8, 511, 512, 513, 1022, 1023};

	return common[below(w, ARRAY_SIZE(common))];
}

static gpa_t any_entry_gpa(struct world *w, unsigned *size)
{
	*size = chance(w, 20) ? 4 : 8;
	return any_table(w) + any_index(w) * *size % 4096;
}

/* What changes A and D bits shows in the entries that the translation read. */
static void note_ad_writes(struct world *w, const struct oracle_xlat *x)
{
	for (unsigned i = 0; i < x->n; i++) {
		uint64_t v = 0;

		if (model_read(w, x->entry[i].gpa, x->entry[i].size, &v) &&
		    v != x->entry[i].value) {
			uint64_t changed = v ^ x->entry[i].value;

			if (changed & ~0x60ull || v & changed ? (changed & ~v) : true)
				WRONG(w, "entry %llx became %llx",
				      (unsigned long long)x->entry[i].value, (unsigned long long)v);
			written(w, x->entry[i].gpa);
		}
	}
}

/*
 * Until it answers a flush a processor may still store by an entry that is to go: into what is
 * about to become a table, say, while L0 reads it.
 */
static void intrude(struct machine *m, const struct mmu_flush *f)
{
	struct world *w = container_of(m, struct world, m);
	unsigned n = (unsigned)below(w, m->nr_cpus), size = chance(w, 20) ? 4 : 8;
	struct tlb_entry *e = &m->cpu[n].tlb[below(w, NR_TLB)];
	uint64_t value;
	gpa_t gpa;

	if (!w->may_intrude || w->intruded || !(f->vcpus & MMU_VCPU_BIT(n)) ||
	    mmu_get_policy(m->vm) != MMU_POLICY_SHADOW)
		return;
	for (unsigned i = 0; i < NR_TLB && !(e->valid && e->w && e->d); i++)
		e = &m->cpu[n].tlb[i];
	if (!e->valid || !e->w || !e->d ||
	    (f->kind == MMU_FLUSH_FRAMES && (e->hpa >> 12) - f->pfn >= f->count))
		return;
	gpa = e->hpa - (uint64_t)(uintptr_t)m->map;
	if (gpa >= LOW_PAGES << 12)
		return;
	value = any_entry(w, level_of(gpa));
	gpa += any_index(w) * size % 4096;
	memcpy(machine_ptr(m, gpa), &value, size);
	written(w, gpa);
	w->intruded = true;
	w->intrusions++;
}

static bool is_rom(gpa_t gpa)
{
	return gpa - ROM_GPA < ROM_PAGES << 12;
}

/* Could this outcome come from this translation? */
static bool explains(struct world *w, const struct cpu *c, const struct oracle_xlat *x, uint64_t la,
		     unsigned access, const struct outcome *o)
{
	struct oracle_regs regs = oracle_regs_of(c);
	gpa_t gpa = x->frame | (la & 0xfff);
	uint8_t *p = machine_ptr(&w->m, gpa);

	if (oracle_judge(&regs, x, access))
		return false;
	if (o->kind == OUT_OK)
		return p && (uint64_t)(uintptr_t)p == o->hpa && !(access & OACC_W && is_rom(gpa));
	return o->gpa == gpa && (!p || (access & OACC_W && is_rom(gpa)));
}

static void do_access(struct world *w)
{
	struct cpu *c = any_cpu(w);
	unsigned cpu = (unsigned)(c - w->m.cpu), g = (unsigned)below(w, NR_GVAS), size;
	unsigned access = chance(w, 45) ? OACC_W : chance(w, 15) ? OACC_X : 0;
	struct oracle_regs regs = oracle_regs_of(c);
	struct history *h = &w->past[cpu][cpu_pcid(c)][g];
	uint64_t la = w->gva[g], value;
	struct oracle_xlat fresh;
	struct outcome o;
	bool ok;

	size = !(regs.cr4 & BIT(5)) || chance(w, 5) ? 4 : 8;
	la += any_index(w) * size % 4096;
	access |= chance(w, 45) ? OACC_U : chance(w, 50) ? OACC_AC : 0;
	now(w, cpu, la, &fresh);
	value = any_entry(w, level_of(fresh.frame));
	o = cpu_access(c, la, access, value, size);
	w->accesses++;
	if (o.kind == OUT_FAULT) {
		uint32_t want = oracle_judge(&regs, &fresh, access);

		w->faults++;
		if (w->intruded && want != (o.code | ORACLE_FAULT)) {
			now(w, cpu, la, &fresh);
			want = oracle_judge(&regs, &fresh, access);
		}
		if (!want || (want & ~ORACLE_FAULT) != o.code)
			WRONG(w, "cpu %u la %llx access %x: fault %x, not %x", cpu,
			      (unsigned long long)la, access, o.code, want);
		if (o.cr2 != (regs.efer & BIT(10) ? la : (uint32_t)la))
			WRONG(w, "cr2 %llx", (unsigned long long)o.cr2);
		if (!w->intruded)
			note_ad_writes(w, &fresh);
		snapshot(w);
		return;
	}
	w->mmio += o.kind == OUT_MMIO;
	w->emulated += o.emulated;
	ok = explains(w, c, &fresh, la, access, &o);
	if (!ok && w->intruded) {
		struct oracle_xlat later;

		now(w, cpu, la, &later);
		ok = explains(w, c, &later, la, access, &o);
	}
	if (!ok) {
		w->stale++;
		ok = h->any;
		for (unsigned i = 0; i < h->n && !ok; i++)
			ok = explains(w, c, &h->x[i], la, access, &o);
	}
	if (!ok)
		WRONG(w,
		      "cpu %u la %llx access %x: outcome %d hpa %llx gpa %llx is not allowed; now "
		      "%d "
		      "frame %llx w%d u%d x%d d%d, judged %x",
		      cpu, (unsigned long long)la, access, o.kind,
		      (unsigned long long)(o.hpa - (uint64_t)(uintptr_t)w->m.map),
		      (unsigned long long)o.gpa, fresh.kind, (unsigned long long)fresh.frame,
		      fresh.w, fresh.u, fresh.x, fresh.d, oracle_judge(&regs, &fresh, access));
	if (o.kind == OUT_OK && access & OACC_W) {
		gpa_t gpa;

		if (!slot_hva_to_gpa(w->m.vm, o.hpa, &gpa))
			WRONG(w, "written where no memory is");
		written(w, gpa);
		/* The data may lie on the entries themselves: then they say nothing of A and D. */
		for (unsigned i = 0; i < fresh.n; i++) {
			if ((fresh.entry[i].gpa ^ gpa) < 8)
				fresh.n = i;
		}
	}
	if (regs.cr0 >> 31 && !w->intruded)
		note_ad_writes(w, &fresh);
	snapshot(w);
}

static void do_table_write(struct world *w)
{
	unsigned size;
	gpa_t gpa = any_entry_gpa(w, &size);
	uint64_t value = any_entry(w, level_of(gpa)), old = 0;

	switch (below(w, 4)) {
	case 0: assert_int_equal(slot_write(w->m.vm, gpa, &value, size), 0); break;
	case 1:
		model_read(w, gpa, size, &old);
		assert_int_equal(mmu_guest_cmpxchg(any_cpu(w)->v, gpa, &old, value, size), 0);
		break;
	default: assert_int_equal(mmu_guest_write(any_cpu(w)->v, gpa, &value, size), 0); break;
	}
	written(w, gpa);
	snapshot(w);
}

static void do_dma(struct world *w)
{
	uint8_t data[300];
	gpa_t gpa = chance(w, 10) ? below(w, (LOW_PAGES << 12) - sizeof(data))
				  : (NR_TABLES << 12) + below(w, 0x8000);
	struct slot_window win;

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(chance(w, 50) ? 0 : rnd(w));
	if (chance(w, 50)) {
		assert_int_equal(slot_write(w->m.vm, gpa, data, sizeof(data)), 0);
	} else {
		assert_int_equal(slot_map(w->m.vm, gpa, sizeof(data), MMU_ACC_WRITE, &win), 0);
		memcpy(win.host, data, sizeof(data));
		slot_unmap(w->m.vm, &win, sizeof(data));
	}
	written(w, gpa);
	written(w, gpa + sizeof(data) - 1);
	snapshot(w);
}

static void do_invlpg(struct world *w)
{
	struct cpu *c = any_cpu(w);
	unsigned g = (unsigned)below(w, NR_GVAS), cpu = (unsigned)(c - w->m.cpu);

	cpu_invlpg(c, w->gva[g]);
	for (unsigned i = 0; i < NR_GVAS; i++) {
		for (unsigned p = 0; w->gva[i] == w->gva[g] && p < NR_PCIDS; p++)
			forget(w, cpu, p, i, p == cpu_pcid(c) ? KEEP_NOTHING : KEEP_OTHERS);
	}
	snapshot(w);
}

static void do_invpcid(struct world *w)
{
	struct cpu *c = any_cpu(w);
	unsigned g = (unsigned)below(w, NR_GVAS), cpu = (unsigned)(c - w->m.cpu);
	unsigned pcid = c->regs.cr4 & BIT(17) ? (unsigned)below(w, NR_PCIDS) : 0;
	enum mmu_invpcid type = (enum mmu_invpcid)below(w, 4);

	cpu_invpcid(c, type, pcid, w->gva[g]);
	for (unsigned p = 0; p < NR_PCIDS; p++) {
		if (type == MMU_INVPCID_ALL_GLOBAL)
			forget_pcid(w, cpu, p, KEEP_NOTHING);
		else if (type == MMU_INVPCID_ALL || (type == MMU_INVPCID_SINGLE && p == pcid))
			forget_pcid(w, cpu, p, KEEP_GLOBALS);
	}
	for (unsigned i = 0; type == MMU_INVPCID_ADDRESS && i < NR_GVAS; i++) {
		if (w->gva[i] == w->gva[g])
			forget(w, cpu, pcid, i, KEEP_GLOBALS);
	}
	snapshot(w);
}

/* A value for CR3, of the kind that the registers ask for. */
static uint64_t any_root(struct world *w, const struct mmu_regs *r)
{
	unsigned level = r->efer & BIT(10) ? (r->cr4 & BIT(12) ? 5 : 4) : 2;
	gpa_t gpa = (NR_TABLES + below(w, 2)) << 12 | below(w, 3) << 5;

	if (chance(w, 2))
		return rnd(w) & BITS(39, 12);
	if (chance(w, 5))
		return any_table(w);
	if (r->efer & BIT(10) || !(r->cr4 & BIT(5)))
		return table_of_level(w, level);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t pdpte = table_of_level(w, 2) | (chance(w, 90) ? 1 : 0);

		if (chance(w, 2))
			pdpte |= BIT(below(w, 64));
		assert_int_equal(slot_write(w->m.vm, gpa + i * 8, &pdpte, 8), 0);
		written(w, gpa);
	}
	return gpa;
}

static void do_cr3(struct world *w)
{
	struct cpu *c = any_cpu(w);
	uint64_t cr3 = any_root(w, &c->regs);

	if (c->regs.cr0 >> 31 && !(c->regs.efer & BIT(10)) && c->regs.cr4 & BIT(5)) {
		uint64_t pdptr[4];

		if (mmu_read_pdptrs(c->v, &c->regs, cr3, pdptr))
			return;
		memcpy(c->regs.pdptr, pdptr, sizeof(pdptr));
	}
	share_globals(w, (unsigned)(c - w->m.cpu));
	if (c->regs.cr4 & BIT(17)) {
		if (chance(w, 40))
			cr3 = c->regs.cr3; /* the tables of now, or of some time ago */
		cr3 = (cr3 & ~0xfffull) | below(w, NR_PCIDS) | (chance(w, 60) ? BIT(63) : 0);
	}
	cpu_load_cr3(c, cr3);
	if (!(cr3 >> 63))
		forget_pcid(w, (unsigned)(c - w->m.cpu), cpu_pcid(c), KEEP_GLOBALS);
	snapshot(w);
}

static void do_regs(struct world *w)
{
	struct cpu *c = any_cpu(w);
	struct mmu_regs r = c->regs;
	unsigned mode = (unsigned)below(w, 12);

	if (chance(w, 40)) {
		r.cr0 = 1 | (mode ? BIT(31) : 0);
		r.cr4 = mode > 3 ? BIT(5) : 0;
		r.efer = mode > 5 ? BIT(8) | BIT(10) : 0;
		if (mode > 9)
			r.cr4 |= BIT(12);
		r.cr3 = any_root(w, &r);
	}
	r.cr0 = (r.cr0 & ~BIT(16)) | (chance(w, 70) ? BIT(16) : 0);
	r.cr4 &= ~(BIT(4) | BIT(7) | BIT(20) | BIT(21) | BIT(22));
	r.cr4 |= (chance(w, 70) ? BIT(4) : 0) | (chance(w, 70) ? BIT(7) : 0) |
		 (chance(w, 20) ? BIT(20) : 0) | (chance(w, 20) ? BIT(21) : 0);
	if (r.efer & BIT(10))
		r.cr4 |= chance(w, 30) ? BIT(22) : 0;
	r.cr4 &= ~BIT(17);
	if (r.efer & BIT(10) && chance(w, 60))
		r.cr4 |= BIT(17);
	else if (r.efer & BIT(10))
		r.cr3 &= ~0xfffull;
	r.efer = (r.efer & ~BIT(11)) | (chance(w, 80) ? BIT(11) : 0);
	r.pkru = (uint32_t)rnd(w) & (uint32_t)rnd(w) & ~3u;
	if (r.cr0 >> 31 && r.cr4 & BIT(5) && !(r.efer & BIT(10)) &&
	    mmu_read_pdptrs(c->v, &r, r.cr3, r.pdptr))
		return;
	cpu_set_regs(c, &r);
	forget_all(w, (unsigned)(c - w->m.cpu));
}

/* ---- the log ---- */

static uint32_t slot_range(unsigned slot, unsigned *first, unsigned *pages)
{
	static const unsigned at[] = {0, LOW_PAGES, LOW_PAGES + BIG_PAGES};
	static const unsigned n[] = {LOW_PAGES, BIG_PAGES, ROM_PAGES};

	*first = at[slot];
	*pages = n[slot];
	return slot;
}

static void check_log(struct world *w, unsigned n, bool clear)
{
	uint64_t bits[BIG_PAGES / 64];

	for (unsigned s = 0; s < 3; s++) {
		unsigned first, pages;
		uint32_t id = slot_range(s, &first, &pages);

		assert_int_equal(dirty_get(w->client[n], id, 0, pages, bits), 0);
		for (unsigned i = 0; i < pages; i++) {
			bool told = bits[i / 64] >> (i % 64) & 1;

			if (w->dirty[n][first + i] && !told)
				WRONG(w, "client %u: slot %u page %u is missing", n, id, i);
			w->truly_dirty += w->dirty[n][first + i];
			w->told_dirty += told;
			if (clear && told && chance(w, 30))
				bits[i / 64] &= ~BIT(i % 64);
			else if (clear && told)
				w->dirty[n][first + i] = false;
		}
		if (clear)
			assert_int_equal(dirty_clear(w->client[n], id, 0, pages, bits), 0);
	}
}

static void do_dirty(struct world *w)
{
	unsigned n = (unsigned)below(w, NR_CLIENTS);
	char name[8] = {'c', (char)('0' + n), 0};

	if (!w->client[n]) {
		uint32_t flags = chance(w, 30) ? DIRTY_INITIALLY_SET : 0;

		assert_int_equal(dirty_client_create(w->m.vm, name, flags, &w->client[n]), 0);
		assert_int_equal(dirty_client_watch(w->client[n], DIRTY_ALL_SLOTS), 0);
		w->watching[n] = true;
	} else if (chance(w, 10)) {
		check_log(w, n, false);
		dirty_client_destroy(w->client[n]);
		w->client[n] = NULL;
		w->watching[n] = false;
		memset(w->dirty[n], 0, sizeof(w->dirty[n]));
	} else {
		check_log(w, n, true);
	}
}

static void do_slots(struct world *w)
{
	struct region *r = &w->m.region[3];
	struct slot_desc d;

	/* A fourth slot comes, moves and goes over what is else MMIO. */
	if (!r->used) {
		machine_add(&w->m, 3, LOW_PAGES << 12, 4 << 12, 16 << 20, 0);
	} else if (chance(w, 50)) {
		gpa_t to = (LOW_PAGES + (w->aside ? 0 : 2)) << 12;

		assert_int_equal(slot_move(w->m.vm, 3, to), 0);
		w->aside = !w->aside;
		r->gpa = to;
	} else {
		assert_int_equal(slot_get(w->m.vm, 3, &d), 0);
		assert_int_equal(slot_delete(w->m.vm, 3), 0);
		r->used = false;
		w->aside = false;
	}
	/* Tables and data may be there or not from one moment to the next: no history holds. */
	for (unsigned c = 0; c < w->m.nr_cpus; c++)
		snapshot(w);
}

static void do_rare(struct world *w)
{
	static const uint32_t off[] = {0,
				       0,
				       MMU_NO_UNSYNC,
				       MMU_NO_PREFETCH,
				       MMU_NO_ROOT_CACHE,
				       MMU_NO_FLOOD,
				       MMU_NO_MMIO_CACHE,
				       MMU_NO_TARGETED};
	enum mmu_policy policy;

	switch (below(w, 4)) {
	case 0: mmu_zap_all(w->m.vm); break;
	case 1:
		policy = mmu_get_policy(w->m.vm) == MMU_POLICY_SHADOW ? MMU_POLICY_TDP
								      : MMU_POLICY_SHADOW;
		dirty_set_notice(w->m.vm, DIRTY_NOTICE_PROTECT);
		assert_int_equal(mmu_set_policy(w->m.vm, policy), 0);
		for (unsigned c = 0; c < w->m.nr_cpus; c++) {
			cpu_flush(&w->m.cpu[c], true);
			forget_all(w, c);
		}
		break;
	case 2: mmu_set_disable(w->m.vm, off[below(w, ARRAY_SIZE(off))]); break;
	case 3:
		if (dirty_set_notice(w->m.vm,
				     chance(w, 50) ? DIRTY_NOTICE_PML : DIRTY_NOTICE_PROTECT))
			mmu_unprotect(w->m.vm, below(w, NR_TABLES));
		break;
	}
}

static const struct {
	const char *name;
	unsigned weight;
	void (*run)(struct world *w);
} operations[] = {
	{"access", 560, do_access},  {"table write", 220, do_table_write},
	{"invlpg", 70, do_invlpg},   {"cr3", 70, do_cr3},
	{"invpcid", 15, do_invpcid}, {"registers", 30, do_regs},
	{"dirty", 25, do_dirty},     {"dma", 4, do_dma},
	{"slots", 3, do_slots},	     {"rare", 3, do_rare},
};

static void choose_gvas(struct world *w)
{
	static const unsigned idx[] = {0, 1, 2, 3, 511};

	for (unsigned i = 0; i < NR_GVAS; i++) {
		uint64_t a = 0;

		for (unsigned l = 0; l < 5; l++)
			a |= (uint64_t)idx[below(w, chance(w, 70) ? 2 : 5)] << (12 + 9 * l);
		/* Canonical by four levels or by five, it is all the same to the tables. */
		w->gva[i] = (uint64_t)((int64_t)(a << 7) >> 7);
	}
}

static struct world *world_new(uint64_t seed, unsigned nr_cpus, uint64_t table_bytes)
{
	struct mmu_config config = {
		.policy = seed % 5 == 0 ? MMU_POLICY_TDP : MMU_POLICY_SHADOW,
		.tdp_format = seed % 3 ? MMU_FORMAT_EPT : MMU_FORMAT_NPT,
		.max_table_bytes = table_bytes,
	};
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->seed = seed;
	w->rng = seed * 0x9e3779b97f4a7c15ull + 1;
	w->what = "setup";
	choose_gvas(w);
	machine_init(&w->m, &config, nr_cpus);
	w->m.before_flush = intrude;
	machine_add(&w->m, 0, 0, LOW_PAGES << 12, 0, 0);
	machine_add(&w->m, 1, BIG_GPA, BIG_PAGES << 12, 4 << 20, 0);
	machine_add(&w->m, 2, ROM_GPA, ROM_PAGES << 12, 12 << 20, SLOT_READONLY);
	for (unsigned i = 0; i < NR_TABLES * 512; i++) {
		if (chance(w, 90))
			poke(&w->m, i * 8, any_entry(w, level_of(i * 8)));
	}
	return w;
}

static void world_free(struct world *w)
{
	for (unsigned i = 0; i < NR_CLIENTS; i++)
		dirty_client_destroy(w->client[i]);
	machine_finish(&w->m);
	free(w);
}

static void run(uint64_t seed, uint64_t ops)
{
	struct world *w = world_new(seed, 1 + seed % NR_CPUS, seed % 2 ? KIB(1200) : MIB(16));
	unsigned total = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(operations); i++)
		total += operations[i].weight;
	snapshot(w);
	for (w->op = 0; w->op < ops; w->op++) {
		uint64_t pick = below(w, total);
		unsigned i = 0;
		char text[256];

		while (pick >= operations[i].weight)
			pick -= operations[i++].weight;
		w->what = operations[i].name;
		w->intruded = false;
		w->may_intrude = operations[i].run == do_access || operations[i].run == do_invlpg ||
				 operations[i].run == do_cr3;
		operations[i].run(w);
		machine_drain(&w->m);
		if (mmu_audit(w->m.vm, text, sizeof(text)))
			WRONG(w, "audit: %s", text);
	}
	print_message(
		"seed %llu: %llu operations, %llu accesses: %llu faults, %llu mmio, %llu emulated, "
		"%llu by stale entries, %llu intrusions; %llu dirty told, %llu true\n",
		(unsigned long long)seed, (unsigned long long)ops, (unsigned long long)w->accesses,
		(unsigned long long)w->faults, (unsigned long long)w->mmio,
		(unsigned long long)w->emulated, (unsigned long long)w->stale,
		(unsigned long long)w->intrusions, (unsigned long long)w->told_dirty,
		(unsigned long long)w->truly_dirty);
	world_free(w);
}

static void property(void **state)
{
	for (uint64_t seed = 1; seed <= 20; seed++)
		run(seed, 2000);
}

static uint64_t long_ops, long_seed;

static void property_long(void **state)
{
	run(long_seed, long_ops);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(property)};
	const struct CMUnitTest one[] = {cmocka_unit_test(property_long)};

	if (argc < 2)
		return cmocka_run_group_tests(tests, NULL, NULL);
	long_ops = strtoull(argv[1], NULL, 0);
	long_seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	return cmocka_run_group_tests(one, NULL, NULL);
}
