/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The property tests' world: what may be cached, what was written, what tables are made of. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- chance ---- */

uint64_t rnd(struct world *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return w->rng * 0x2545f4914f6cdd1dull >> 8;
}

uint64_t below(struct world *w, uint64_t n)
{
	return rnd(w) % n;
}

bool chance(struct world *w, unsigned percent)
{
	return below(w, 100) < percent;
}

struct cpu *any_cpu(struct world *w)
{
	return &w->m.cpu[chance(w, 50) ? w->hot_cpu : below(w, w->m.nr_cpus)];
}

unsigned any_gva(struct world *w)
{
	return chance(w, 60) ? w->hot : (unsigned)below(w, NR_GVAS);
}

/* ---- telling ---- */

void say(struct world *w, const char *fmt, ...)
{
	char *text = w->said[w->op % NR_SAID];
	size_t n = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(w->said[0]) - n, fmt, ap);
	va_end(ap);
}

void world_tell(const struct world *w)
{
	print_error("seed %llu, operation %llu (%s); the last ones:\n", LL(w->seed), LL(w->op),
		    w->what);
	for (uint64_t i = w->op < NR_SAID ? 0 : w->op + 1 - NR_SAID; i <= w->op; i++) {
		if (*w->said[i % NR_SAID])
			print_error("  %s\n", w->said[i % NR_SAID]);
	}
}

/* ---- memory ---- */

unsigned cpu_number(const struct cpu *c)
{
	return (unsigned)(c - c->m->cpu);
}

struct region *region_of(struct world *w, uint64_t hpa)
{
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		struct region *r = &w->m.region[i];

		if (r->used && hpa - (uint64_t)(uintptr_t)r->host < r->size)
			return r;
	}
	return NULL;
}

struct region *region_by_id(struct world *w, uint32_t id)
{
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		if (w->m.region[i].used && w->m.region[i].id == id)
			return &w->m.region[i];
	}
	return NULL;
}

bool region_refuses(struct world *w, gpa_t gpa)
{
	uint8_t *p = machine_ptr(&w->m, gpa);

	return !p || region_of(w, (uint64_t)(uintptr_t)p)->readonly;
}

bool model_read(void *priv, uint64_t gpa, unsigned size, uint64_t *value)
{
	void *p = machine_ptr(&((struct world *)priv)->m, gpa);

	if (!p)
		return false;
	*value = size == 4 ? *(uint32_t *)p : *(uint64_t *)p;
	return true;
}

/* By our own account, page by page, for all who watch. */
static void written(struct world *w, uint64_t hpa, uint64_t len)
{
	uint64_t last = hpa + len - 1;

	for (hpa &= ~0xfffull; hpa <= last; hpa += 4096) {
		const struct region *r = region_of(w, hpa);

		for (unsigned c = 0; r && c < NR_CLIENTS; c++) {
			uint64_t page = (hpa - (uint64_t)(uintptr_t)r->host) >> 12;

			w->dirty[c][r->id][page] |= w->watching[c][r->id];
		}
	}
}

static void world_wrote(struct machine *m, uint64_t hpa, uint64_t len)
{
	struct world *w = container_of(m, struct world, m);

	w->changed = true;
	written(w, hpa, len);
}

static void world_storing(struct machine *m)
{
	snapshot(container_of(m, struct world, m));
}

/* The first slot is compared with what it was: nobody has to tell of a write to it. */
static void compare_low(struct world *w)
{
	const uint8_t *now = w->m.map;

	for (unsigned page = 0; page < LOW_PAGES; page++) {
		if (!memcmp(&w->low[page * 512], now + page * 4096, 4096))
			continue;
		memcpy(&w->low[page * 512], now + page * 4096, 4096);
		w->changed = true;
		written(w, (uint64_t)(uintptr_t)now + page * 4096, 1);
	}
}

/* ---- translations of now ---- */

struct oracle_regs oracle_regs_of(const struct cpu *c)
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

/* A and D of these entries are set, or cannot be: the table lies in ROM. */
static bool bits_set(struct world *w, const struct oracle_entry *e, unsigned n, uint64_t bits)
{
	for (unsigned i = 0; i < n; i++) {
		if ((e[i].value & bits) != bits && !region_refuses(w, e[i].gpa))
			return false;
	}
	return true;
}

void translate_now(struct world *w, unsigned cpu, uint64_t gva, struct oracle_xlat *x)
{
	struct oracle_regs regs = oracle_regs_of(&w->m.cpu[cpu]);
	struct oracle_mem mem = {.read = model_read, .priv = w};

	oracle_translate(&regs, &mem, gva, x);
	if (x->kind == ORACLE_OK && x->n) {
		x->a = bits_set(w, x->entry, x->n, 0x20);
		x->d = bits_set(w, &x->entry[x->n - 1], 1, 0x40);
	}
}

void ept_now(struct world *w, unsigned ept, uint64_t ngpa, struct oracle_ept *x)
{
	struct oracle_ept_regs regs = {.eptp = w->eptp[ept],
				       .exec_only = w->exec_only,
				       .width = w->m.cpu[0].regs.maxphyaddr};
	struct oracle_mem mem = {.read = model_read, .priv = w};

	oracle_ept_translate(&regs, &mem, ngpa, x);
	if (x->kind == ORACLE_EPT_OK && regs.eptp & BIT(6)) {
		x->a = bits_set(w, x->entry, x->n, 0x100);
		x->d = bits_set(w, &x->entry[x->n - 1], 1, 0x200);
	}
}

struct composing {
	struct world *w;
	const struct cpu *c;
	struct composed *out;
};

static void exit_to_l1(struct composed *out, const struct oracle_ept *e, uint64_t ngpa,
		       unsigned access)
{
	out->nested_exit = true;
	out->misconfig = e->kind == ORACLE_EPT_MISCONFIG;
	out->ngpa = ngpa;
	out->code = oracle_ept_qualification(e, access);
}

static bool composed_read(void *priv, uint64_t ngpa, unsigned size, uint64_t *value)
{
	struct composing *p = priv;
	unsigned access = p->w->eptp[p->c->ept] & BIT(6) ? OACC_W | OACC_TABLE_AD : 0;
	struct oracle_ept e;

	ept_now(p->w, p->c->ept, ngpa, &e);
	if (!oracle_ept_allows(&e, access)) {
		exit_to_l1(p->out, &e, ngpa, access);
		return false;
	}
	return model_read(p->w, e.frame | (ngpa & 0xfff), size, value);
}

void compose(struct world *w, const struct cpu *c, uint64_t la, unsigned access,
	     struct composed *out)
{
	struct composing p = {.w = w, .c = c, .out = out};
	struct oracle_mem mem = {.read = composed_read, .priv = &p};
	struct oracle_regs regs = oracle_regs_of(c);
	struct oracle_ept e;
	uint64_t ngpa;

	memset(out, 0, sizeof(*out));
	oracle_translate(&regs, &mem, la, &out->x);
	if (out->nested_exit)
		return;
	out->code = oracle_judge(&regs, &out->x, access);
	if (out->code)
		return;
	/* Bits of L2's tables are set by a write, whether EPT has such bits or not. */
	for (unsigned i = 0; i < out->x.n; i++) {
		uint64_t bits = 0x20 | (access & OACC_W && i == out->x.n - 1 ? 0x40 : 0);

		ept_now(w, c->ept, out->x.entry[i].gpa, &e);
		if ((out->x.entry[i].value & bits) == bits || oracle_ept_allows(&e, OACC_W) ||
		    region_refuses(w, e.frame))
			continue;
		exit_to_l1(out, &e, out->x.entry[i].gpa, OACC_W);
		return;
	}
	ngpa = out->x.frame | (la & 0xfff);
	ept_now(w, c->ept, ngpa, &e);
	if (!oracle_ept_allows(&e, access)) {
		exit_to_l1(out, &e, ngpa, access);
		return;
	}
	out->gpa = e.frame | (la & 0xfff);
}

/* ---- what may be cached ---- */

static struct seen seen_of(const struct oracle_xlat *x)
{
	return (struct seen){.frame = x->frame,
			     .key = x->key,
			     .w = x->w,
			     .u = x->u,
			     .x = x->x,
			     .g = x->g,
			     .a = x->a,
			     .d = x->d};
}

static bool seen_same(const struct seen *a, const struct seen *b)
{
	return a->frame == b->frame && a->key == b->key && a->w == b->w && a->u == b->u &&
	       a->x == b->x && a->g == b->g && a->a == b->a && a->d == b->d;
}

static void remember(struct history *h, const struct seen *x)
{
	for (unsigned i = h->n; i--;) {
		if (seen_same(&h->x[i], x))
			return;
	}
	if (h->n == HISTORY)
		h->any = true;
	else
		h->x[h->n++] = *x;
}

static void remember_ept(struct ept_history *h, const struct oracle_ept *x)
{
	if (x->kind != ORACLE_EPT_OK)
		return;
	for (unsigned i = h->n; i--;) {
		if (oracle_ept_same(&h->x[i], x))
			return;
	}
	if (h->n == ARRAY_SIZE(h->x))
		h->any = true;
	else
		h->x[h->n++] = *x;
}

static bool uses_ept(const struct world *w)
{
	for (unsigned c = 0; c < w->m.nr_cpus; c++) {
		if (w->m.cpu[c].nested)
			return true;
	}
	return false;
}

static void snapshot_ept(struct world *w)
{
	for (unsigned e = 0; e < NR_EPTS; e++) {
		for (unsigned i = 0; i < NR_NGPAS; i++) {
			struct oracle_ept x;

			ept_now(w, e, w->ngpa[i], &x);
			for (unsigned c = 0; c < w->m.nr_cpus; c++)
				remember_ept(&w->ept_past[c][e][i], &x);
		}
		for (unsigned c = 0; c < w->m.nr_cpus; c++)
			w->ept_stale[c][e] = true;
	}
}

void snapshot(struct world *w)
{
	compare_low(w);
	if (!w->changed)
		return;
	w->changed = false;
	for (unsigned c = 0; c < w->m.nr_cpus; c++) {
		/* In L2 every walk is made anew by the model's processor, through EPT. */
		for (unsigned i = 0; i < NR_GVAS && !w->m.cpu[c].nested; i++) {
			struct oracle_xlat x;
			struct seen s;

			translate_now(w, c, w->gva[i], &x);
			if (x.kind != ORACLE_OK)
				continue;
			s = seen_of(&x);
			remember(&w->past[c][cpu_pcid(&w->m.cpu[c])][i], &s);
		}
	}
	if (uses_ept(w))
		snapshot_ept(w);
}

void forget(struct world *w, unsigned cpu, unsigned pcid, unsigned gva, enum keep keep)
{
	struct history *h = &w->past[cpu][pcid][gva];
	bool pge = w->m.cpu[cpu].regs.cr4 & BIT(7);
	unsigned n = h->n;

	w->changed = true;
	if (keep == KEEP_NOTHING || (keep == KEEP_GLOBALS && !pge))
		h->any = false;
	h->n = 0;
	for (unsigned i = 0; keep != KEEP_NOTHING && i < n; i++) {
		if ((h->x[i].g && pge) == (keep == KEEP_GLOBALS))
			h->x[h->n++] = h->x[i];
	}
}

void forget_pcid(struct world *w, unsigned cpu, unsigned pcid, enum keep keep)
{
	for (unsigned i = 0; i < NR_GVAS; i++)
		forget(w, cpu, pcid, i, keep);
}

void forget_all(struct world *w, unsigned cpu)
{
	for (unsigned pcid = 0; pcid < NR_PCIDS; pcid++)
		forget_pcid(w, cpu, pcid, KEEP_NOTHING);
}

void forget_ept(struct world *w, unsigned cpu, unsigned ept)
{
	w->changed = true;
	memset(w->ept_past[cpu][ept], 0, sizeof(w->ept_past[cpu][ept]));
	w->ept_stale[cpu][ept] = false;
}

/* Entries cached as global serve every PCID. */
void share_globals(struct world *w, unsigned cpu)
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

/* ---- is an outcome allowed? ---- */

/* Does an access to this gpa come to this? */
static bool lands(struct world *w, gpa_t gpa, unsigned access, const struct outcome *o)
{
	uint8_t *p = machine_ptr(&w->m, gpa);

	if (o->kind == OUT_OK)
		return p && (uint64_t)(uintptr_t)p == o->hpa &&
		       !(access & OACC_W && region_refuses(w, gpa));
	return o->kind == OUT_MMIO && o->gpa == gpa &&
	       (!p || (access & OACC_W && region_refuses(w, gpa)));
}

static bool explains(struct world *w, const struct cpu *c, const struct seen *s, uint64_t la,
		     unsigned access, const struct outcome *o)
{
	struct oracle_xlat x = {.kind = ORACLE_OK, .w = s->w, .u = s->u, .x = s->x, .key = s->key};
	struct oracle_regs regs = oracle_regs_of(c);

	/* No processor caches what has A clear, or writes by what has D clear. */
	if (!s->a || (access & OACC_W && !s->d))
		return false;
	return !oracle_judge(&regs, &x, access) && lands(w, s->frame | (la & 0xfff), access, o);
}

void check_outcome(struct world *w, struct cpu *c, unsigned g, uint64_t la, unsigned access,
		   const struct outcome *o)
{
	unsigned cpu = cpu_number(c);
	const struct history *h = &w->past[cpu][cpu_pcid(c)][g];
	struct oracle_xlat x;
	struct seen s;

	translate_now(w, cpu, la, &x);
	s = seen_of(&x);
	if (x.kind == ORACLE_OK && explains(w, c, &s, la, access, o))
		return;
	for (unsigned i = 0; i < h->n; i++) {
		if (explains(w, c, &h->x[i], la, access, o)) {
			HIT(w, by_stale);
			return;
		}
	}
	if (h->any) {
		w->forgotten++;
		return;
	}
	WRONG(w,
	      "cpu %u la %llx access %x: outcome %d at %llx (gpa %llx) is not allowed; now kind "
	      "%d frame %llx w%d u%d x%d a%d d%d",
	      cpu, LL(la), access, o->kind, LL(o->hpa - (uint64_t)(uintptr_t)w->m.map), LL(o->gpa),
	      x.kind, LL(x.frame), x.w, x.u, x.x, x.a, x.d);
}

static bool ept_explains(struct world *w, const struct oracle_ept *x, uint64_t ngpa,
			 unsigned access, const struct outcome *o)
{
	if (!x->a || (access & OACC_W && !x->d) || !oracle_ept_allows(x, access))
		return false;
	return lands(w, x->frame | (ngpa & 0xfff), access, o);
}

static bool ept_stale_explains(struct world *w, struct cpu *c, uint64_t ngpa, unsigned access,
			       const struct outcome *o)
{
	unsigned cpu = cpu_number(c);

	for (unsigned i = 0; i < NR_NGPAS; i++) {
		const struct ept_history *h = &w->ept_past[cpu][c->ept][i];

		if (w->ngpa[i] >> 12 != ngpa >> 12)
			continue;
		for (unsigned n = 0; n < h->n; n++) {
			if (ept_explains(w, &h->x[n], ngpa, access, o))
				return true;
		}
		return h->any;
	}
	return w->ept_stale[cpu][c->ept];
}

/* TDP: what our tables made of a gpa, or of an L2's. */
static void world_resolved(struct cpu *c, uint64_t gpa, unsigned access, const struct outcome *o)
{
	struct world *w = container_of(c->m, struct world, m);
	struct oracle_ept x;

	if (!c->nested) {
		if (o->kind == OUT_FAULT ? machine_ptr(&w->m, gpa) != NULL
					 : !lands(w, gpa, access, o))
			WRONG(w, "gpa %llx access %x: outcome %d at %llx", LL(gpa), access, o->kind,
			      LL(o->hpa - (uint64_t)(uintptr_t)w->m.map));
		return;
	}
	ept_now(w, c->ept, gpa, &x);
	if (o->kind == OUT_NESTED) {
		bool misconfig = x.kind == ORACLE_EPT_MISCONFIG;

		if (oracle_ept_allows(&x, access) || o->misconfig != misconfig ||
		    (o->cr2 ^ gpa) >> 12 ||
		    (!misconfig && o->code != oracle_ept_qualification(&x, access)))
			WRONG(w,
			      "ngpa %llx access %x: exit %x misconfig %d, not kind %d rwx %d%d%d",
			      LL(gpa), access, o->code, o->misconfig, x.kind, x.r, x.w, x.x);
		return;
	}
	if (ept_explains(w, &x, gpa, access, o))
		return;
	if (!ept_stale_explains(w, c, gpa, access, o))
		WRONG(w,
		      "ngpa %llx access %x: outcome %d at %llx (gpa %llx); now kind %d frame %llx "
		      "rwx %d%d%d a%d d%d",
		      LL(gpa), access, o->kind, LL(o->hpa - (uint64_t)(uintptr_t)w->m.map),
		      LL(o->gpa), x.kind, LL(x.frame), x.r, x.w, x.x, x.a, x.d);
	HIT(w, nested_stale);
}

/* ---- what tables are made of ---- */

unsigned level_of(gpa_t gpa)
{
	uint64_t frame = gpa >> 12;

	if (frame < 16)
		return 1 + (unsigned)frame % 4;
	return is_ept_table(gpa) ? 1 + (unsigned)(frame - EPT_FRAME) % 4 : 5;
}

bool is_ept_table(gpa_t gpa)
{
	return (gpa >> 12) - EPT_FRAME < EPT_TABLES;
}

gpa_t table_of_level(struct world *w, unsigned level)
{
	if (level == 5)
		return (16 + below(w, 4)) << 12;
	return (below(w, 4) * 4 + level - 1) << 12;
}

gpa_t ept_of_level(struct world *w, unsigned level)
{
	return (EPT_FRAME + below(w, EPT_TABLES / 4) * 4 + level - 1) << 12;
}

unsigned any_index(struct world *w)
{
	static const unsigned common[] = {0,   1,   2,	 3,   8,   255, 256,
					  257, 511, 512, 513, 767, 768, 1023};

	return common[below(w, chance(w, 60) ? 4 : ARRAY_SIZE(common))];
}

/* A frame of any kind: data, large, ROM, what comes and goes, above 4 GiB, tables. */
static uint64_t any_frame(struct world *w)
{
	switch (below(w, 12)) {
	case 0:
	case 1: return BIG_GPA + (below(w, BIG_PAGES) << 12);
	case 2:
	case 3: return (40 + below(w, LOW_PAGES - 40)) << 12;
	case 4:
	case 5: return GUEST_GPA + (below(w, 7) << 12);
	case 6: return ROM_GPA + (below(w, ROM_PAGES + 1) << 12);
	case 7: return HIGH_GPA + (below(w, HIGH_PAGES) << 12);
	case 8: return below(w, LOW_PAGES) << 12;
	default: return below(w, NR_TABLES) << 12;
	}
}

static uint64_t wild_entry(struct world *w)
{
	uint64_t e;

	if (chance(w, 15))
		return chance(w, 70) ? 0 : rnd(w) << 32 ^ rnd(w);
	e = chance(w, 80) ? any_frame(w) : BIG_GPA + (below(w, 2) << 21);
	e |= chance(w, 92) ? 1 : 0;
	e |= chance(w, 75) ? 2 : 0;
	e |= chance(w, 75) ? 4 : 0;
	e |= chance(w, 60) ? 0x20 : 0;
	e |= chance(w, 50) ? 0x40 : 0;
	e |= chance(w, 12) ? 0x80 : 0;
	e |= chance(w, 15) ? 0x100 : 0;
	e |= chance(w, 10) ? BIT(63) : 0;
	e |= chance(w, 10) ? below(w, 4) << 59 : 0;
	e |= chance(w, 4) ? BIT(36 + below(w, 16)) : 0;
	return e;
}

static uint64_t ept_entry(struct world *w, unsigned level, unsigned index)
{
	static const uint64_t rights[] = {7, 7, 7, 7, 7, 7, 5, 3, 1, 4, 0, 6};
	uint64_t e = rights[below(w, ARRAY_SIZE(rights))];

	e |= chance(w, 40) ? 0x100 : 0;
	e |= chance(w, 30) ? 0x200 : 0;
	if (level > 1 && chance(w, 93))
		return ept_of_level(w, level - 1) | (chance(w, 90) ? 7 : e & 0x107) |
		       (chance(w, 3) ? BIT(3 + below(w, 4)) : 0);
	e |= chance(w, 95) ? 6 << 3 : below(w, 8) << 3;
	if (level == 4)
		return e & ~0x38ull;
	if (level > 1)
		return e | 0x80 | (level == 3 ? 0 : BIG_GPA + (below(w, 3) << 21)) |
		       (chance(w, 3) ? BIT(12 + below(w, 9)) : 0);
	/* A table where L2 looks for one of its level, mostly its own. */
	if (index < LOW_PAGES && chance(w, 55))
		return e | (uint64_t)index << 12;
	if (index < 16 && chance(w, 80))
		return e | (index % 4 + below(w, 4) * 4) << 12;
	return e | any_frame(w);
}

uint64_t any_entry(struct world *w, gpa_t gpa, unsigned index)
{
	static const uint64_t flags[] = {0x67, 0x67,  0x67,  0x07, 0x67, 0x63, 0x65,
					 0x27, 0x167, 0x167, 0x66, 0x05, 0x67, 0x67};
	uint64_t e = flags[below(w, ARRAY_SIZE(flags))];
	unsigned level = level_of(gpa);

	if (chance(w, 2))
		return wild_entry(w);
	if (is_ept_table(gpa))
		return ept_entry(w, level, index);
	if (level > 1 && chance(w, 92))
		return table_of_level(w, level - 1) | (chance(w, 94) ? 0x67 : e);
	if (level == 2 && chance(w, 40))
		return e | 0x80 | BIT(13); /* PSE-36: at 4 GiB; elsewhere reserved */
	if (level == 2 || level == 3)
		return (chance(w, 70) ? BIG_GPA : chance(w, 50) ? HIGH_GPA : 0) | e | 0x80;
	if (chance(w, 5))
		e |= BIT(63);
	if (chance(w, 5))
		e |= below(w, 4) << 59;
	return e | any_frame(w);
}

uint64_t good_entry(struct world *w, gpa_t gpa, unsigned index)
{
	unsigned level = level_of(gpa);
	bool ept = is_ept_table(gpa);

	if (level > 1)
		return ept ? ept_of_level(w, level - 1) | 0x107
			   : table_of_level(w, level - 1) | 0x67;
	if (!ept)
		return any_frame(w) | 0x67;
	return 0x337 | (index < EPT_FRAME ? (uint64_t)index << 12 : any_frame(w));
}

uint64_t any_cr3(struct world *w, const struct mmu_regs *r)
{
	unsigned level = r->efer & BIT(10) ? (r->cr4 & BIT(12) ? 5 : 4) : 2;
	gpa_t gpa = (PDPT_FRAME + below(w, 2)) << 12 | below(w, 3) << 5;

	if (chance(w, 2))
		return rnd(w) & BITS(r->maxphyaddr - 1, 12);
	if (chance(w, 5))
		return below(w, NR_TABLES) << 12;
	if (r->efer & BIT(10) || !(r->cr4 & BIT(5)))
		return table_of_level(w, level);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t pdpte = table_of_level(w, 2) | (chance(w, 90) ? 1 : 0);

		if (chance(w, 2))
			pdpte |= BIT(below(w, 64));
		slot_write(w->m.vm, gpa + i * 8, &pdpte, 8);
	}
	return gpa;
}

/* ---- making one ---- */

static void choose_addresses(struct world *w)
{
	static const unsigned idx[] = {0, 1, 2, 3, 511};

	for (unsigned i = 0; i < NR_GVAS; i++) {
		uint64_t a = 0;

		for (unsigned l = 0; l < 5; l++)
			a |= (uint64_t)idx[below(w, chance(w, 70) ? 2 : 5)] << (12 + 9 * l);
		/* Canonical by four levels or by five, it is all the same to the tables. */
		w->gva[i] = (uint64_t)((int64_t)(a << 7) >> 7);
	}
	for (unsigned i = 0; i < NR_NGPAS; i++)
		w->ngpa[i] = i < EPT_FRAME ? (uint64_t)i << 12 : any_frame(w);
	for (unsigned e = 0; e < NR_EPTS; e++)
		w->eptp[e] = (EPT_FRAME + 4 * e + 3) << 12 | 3 << 3 | 6 | (e & 1 ? 0 : BIT(6));
}

static void fill_tables(struct world *w)
{
	for (unsigned frame = 0; frame < EPT_FRAME + EPT_TABLES; frame++) {
		gpa_t gpa = (gpa_t)frame << 12;

		for (unsigned i = 0; i < 512 && (frame < NR_TABLES || frame >= EPT_FRAME); i++) {
			if (!is_ept_table(gpa) && chance(w, 10))
				continue;
			poke(&w->m, gpa + i * 8, any_entry(w, gpa, i));
		}
		/* The way to where L2's tables are. */
		if (is_ept_table(gpa) && level_of(gpa) > 1)
			poke(&w->m, gpa, ept_of_level(w, level_of(gpa) - 1) | 0x107);
	}
}

static void world_before_flush(struct machine *m, const struct mmu_flush *f);

void world_init(struct world *w, uint64_t seed)
{
	struct mmu_config config = {
		.policy = seed % 5 < 2 ? MMU_POLICY_TDP : MMU_POLICY_SHADOW,
		.tdp_format = seed % 3 ? MMU_FORMAT_EPT : MMU_FORMAT_NPT,
		.max_table_bytes = seed % 2 ? KIB(1200) : MIB(16),
	};

	memset(w, 0, sizeof(*w));
	w->seed = seed;
	w->rng = (seed + 1) * 0x9e3779b97f4a7c15ull;
	w->what = "setup";
	w->ring_client = -1;
	w->exec_only = seed % 4 < 2;
	machine_init(&w->m, &config, 1 + seed % NR_CPUS);
	w->m.before_flush = world_before_flush;
	w->m.wrote = world_wrote;
	w->m.storing = world_storing;
	w->m.resolved = world_resolved;
	machine_add(&w->m, SLOT_LOW, 0, LOW_PAGES << 12, 0, 0);
	machine_add(&w->m, SLOT_BIG, BIG_GPA, BIG_PAGES << 12, MIB(4), 0);
	machine_add(&w->m, SLOT_ROM, ROM_GPA, ROM_PAGES << 12, MIB(12), SLOT_READONLY);
	machine_add(&w->m, SLOT_HIGH, HIGH_GPA, HIGH_PAGES << 12, MIB(20), 0);
	choose_addresses(w);
	fill_tables(w);
	w->changed = true;
	snapshot(w);
}

void world_finish(struct world *w)
{
	for (unsigned i = 0; i < NR_CLIENTS; i++)
		dirty_client_destroy(w->client[i]);
	machine_finish(&w->m);
}

/*
 * Until it answers a flush a processor may still store by an entry that is to go: into what is
 * about to become a table, say, while L0 reads it.
 */
static void world_before_flush(struct machine *m, const struct mmu_flush *f)
{
	struct world *w = container_of(m, struct world, m);
	unsigned n = (unsigned)below(w, m->nr_cpus), size = chance(w, 20) ? 4 : 8, index;
	struct tlb_entry *e = &m->cpu[n].tlb[below(w, NR_TLB)];
	uint64_t value;
	gpa_t gpa;

	if (!w->actor || w->actor == &m->cpu[n] || w->intruded || !(f->vcpus & MMU_VCPU_BIT(n)) ||
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
	snapshot(w);
	index = any_index(w) % (4096 / size);
	value = any_entry(w, gpa, index);
	memcpy(m->map + gpa + index * size, &value, size);
	world_wrote(m, (uint64_t)(uintptr_t)m->map + gpa + index * size, size);
	snapshot(w);
	say(w, " [cpu %u stores %llx/%u at %llx, flush of %llx+%llx]", n, LL(value), size,
	    LL(gpa + index * size), LL(f->pfn - ((uint64_t)(uintptr_t)m->map >> 12)),
	    f->kind == MMU_FLUSH_ALL ? 0 : LL(f->count));
	w->intruded = true;
	HIT(w, intrusion);
}
