/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random operations of several vCPUs, interleaved by one thread. After each access the result must
 * be one that the architecture allows by the oracle, after each operation the audit runs, and what
 * a client of the dirty log is told must hold every page that was written.
 *
 * test_mmu_property [-s SEED[-SEED]] [-o OPERATIONS] [-x] [-v]
 *   -s  these seeds only    -o  so many operations of each
 *   -x  a run that fails is shrunk to the operations that it takes, by running it again and again
 *   -v  tell each operation
 * Without options 200,000 operations, with UMBRA_TEST_LONG=1 ten million. Every operation draws
 * from a stream of its own, so that a run without some of them is still nearly the same run.
 */
#include "world.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- accesses ---- */

static void count_kinds(struct world *w, const struct cpu *c, const struct oracle_xlat *x,
			unsigned access, const struct outcome *o)
{
	static const enum world_kind shadow[5][3] = {
		{K_shadow_none_ok, K_shadow_none_ok, K_shadow_none_ok},
		{K_shadow_32_ok, K_shadow_32_fault, K_shadow_32_mmio},
		{K_shadow_pae_ok, K_shadow_pae_fault, K_shadow_pae_mmio},
		{K_shadow_4_ok, K_shadow_4_fault, K_shadow_4_mmio},
		{K_shadow_5_ok, K_shadow_5_fault, K_shadow_5_mmio}};
	static const enum world_kind nested[] = {K_nested_ok, K_nested_fault, K_nested_mmio,
						 K_nested_violation};
	bool lma = c->regs.efer & BIT(10), pae = c->regs.cr4 & BIT(5), pg = c->regs.cr0 >> 31;
	enum world_kind tdp = c->root.format == MMU_FORMAT_EPT ? K_ept_ok : K_npt_ok;

	if (c->nested)
		w->count[o->kind == OUT_NESTED && o->misconfig ? K_nested_misconfig
							       : nested[o->kind]]++;
	else if (mmu_get_policy(w->m.vm) == MMU_POLICY_TDP)
		w->count[tdp + o->kind]++;
	else
		w->count[shadow[!pg			? 0
				: !pae			? 1
				: !lma			? 2
				: c->regs.cr4 & BIT(12) ? 4
							: 3][o->kind]]++;
	HIT(w, access_read);
	w->count[K_access_write] += !!(access & OACC_W);
	w->count[K_access_fetch] += !!(access & OACC_X);
	w->count[K_access_user] += !!(access & OACC_U);
	w->count[K_access_ac] += !!(access & OACC_AC);
	w->count[K_access_implicit] += !!(access & OACC_IMPLICIT);
	w->count[K_by_emulation] += o->emulated && !c->nested;
	w->count[K_by_nested_emulation] += o->emulated && c->nested;
	if (o->kind == OUT_FAULT) {
		w->count[K_fault_reserved] += !!(o->code & 8);
		w->count[K_fault_not_present] += !(o->code & 1);
		w->count[K_fault_rights] += (o->code & 41) == 1;
		w->count[K_fault_key] += !!(o->code & 32);
		w->count[K_fault_fetch] += !!(o->code & 16);
	} else if (o->kind == OUT_OK && pg && x->kind == ORACLE_OK) {
		w->count[K_page_large] += x->n < (lma ? 4 : 2);
		w->count[K_page_pse36] += !pae && x->frame >> 32;
		w->count[K_page_high] += pae && x->frame >> 32;
	}
}

/* Of the entries that a walk read only A and D may have changed. */
static void check_entries(struct world *w, const struct oracle_xlat *x)
{
	for (unsigned i = 0; i < x->n; i++) {
		const struct oracle_entry *e = &x->entry[i];
		uint64_t v = 0;

		if (model_read(w, e->gpa, e->size, &v) && v != e->value &&
		    ((v ^ e->value) & ~0x60ull || e->value & ~v))
			WRONG(w, "entry %llx became %llx", LL(e->value), LL(v));
	}
}

static void check_fault(struct world *w, struct cpu *c, const struct oracle_xlat *pre, uint64_t la,
			unsigned access, const struct outcome *o)
{
	struct oracle_regs regs = oracle_regs_of(c);
	uint32_t want = oracle_judge(&regs, pre, access);

	if (w->intruded && want != (o->code | ORACLE_FAULT)) {
		struct oracle_xlat later;

		translate_now(w, cpu_number(c), la, &later);
		want = oracle_judge(&regs, &later, access);
	}
	if (!want || (want & ~ORACLE_FAULT) != o->code)
		WRONG(w, "cpu %u la %llx access %x: fault %x, not %x", cpu_number(c), LL(la),
		      access, o->code, want);
	if (o->cr2 != (regs.efer & BIT(10) ? la : (uint32_t)la))
		WRONG(w, "cr2 %llx", LL(o->cr2));
}

static bool is_composed(const struct composed *want, const struct outcome *o)
{
	if (want->nested_exit)
		return o->kind == OUT_NESTED && o->misconfig == want->misconfig &&
		       !((o->cr2 ^ want->ngpa) >> 12) && (want->misconfig || o->code == want->code);
	if (want->code)
		return o->kind == OUT_FAULT && (o->code | ORACLE_FAULT) == want->code;
	return (o->kind == OUT_OK || o->kind == OUT_MMIO) && o->gpa == want->gpa;
}

/* The emulator's, or a walk for it; the rest is checked address by address. */
static void check_nested(struct world *w, struct cpu *c, uint64_t la, unsigned access,
			 const struct composed *want, const struct outcome *o)
{
	struct composed later;

	if (!o->emulated || is_composed(want, o))
		return;
	/* An A bit of L2's table may be any bit of L1's EPT. */
	compose(w, c, la, access, &later);
	if (later.nested_exit && o->kind == OUT_NESTED)
		return; /* and may have become so amid the walk */
	if (!is_composed(&later, o))
		WRONG(w,
		      "emulated: outcome %d code %x cr2 %llx gpa %llx, not exit %d code %x ngpa "
		      "%llx gpa %llx",
		      o->kind, o->code, LL(o->cr2), LL(o->gpa), want->nested_exit, want->code,
		      LL(want->ngpa), LL(want->gpa));
}

/* One access at gva number @g, plus what is in @la. */
static void access_at(struct world *w, struct cpu *c, unsigned g, uint64_t la, unsigned access,
		      uint64_t value, unsigned size)
{
	struct composed nested;
	struct oracle_xlat pre;
	struct outcome o;

	if (c->nested)
		compose(w, c, la, access, &nested);
	else
		translate_now(w, cpu_number(c), la, &pre);
	say(w, " cpu %u la %llx access %x value %llx/%u", cpu_number(c), LL(la), access, LL(value),
	    size);
	w->actor = c;
	o = cpu_access(c, la, access, value, size);
	w->actor = NULL;
	say(w, " -> %d %llx%s%s", o.kind,
	    o.kind == OUT_OK ? LL(o.hpa - (uint64_t)(uintptr_t)w->m.map) : LL(o.code),
	    o.emulated ? " emulated" : "", w->intruded ? " intruded" : "");
	snapshot(w);
	count_kinds(w, c, c->nested ? &nested.x : &pre, access, &o);
	if (o.kind == OUT_OK && access & OACC_W &&
	    o.hpa - (uint64_t)(uintptr_t)w->m.map < NR_TABLES << 12)
		HIT(w, write_to_table);
	if (c->nested) {
		check_nested(w, c, la, access, &nested, &o);
		return;
	}
	if (o.kind == OUT_FAULT)
		check_fault(w, c, &pre, la, access, &o);
	else if (o.kind != OUT_OK && o.kind != OUT_MMIO)
		WRONG(w, "outcome %d", o.kind);
	else
		check_outcome(w, c, g, la, access, &o);
	/* The data may lie on the entries themselves: then they say nothing of A and D. */
	for (unsigned i = 0; o.kind == OUT_OK && access & OACC_W && i < pre.n; i++) {
		uint8_t *p = machine_ptr(&w->m, pre.entry[i].gpa);

		if (p &&
		    ((uint64_t)(uintptr_t)p - o.hpa < size || o.hpa - (uint64_t)(uintptr_t)p < 8))
			pre.n = i;
	}
	if (c->regs.cr0 >> 31 && !w->intruded)
		check_entries(w, &pre);
}

static unsigned any_access(struct world *w)
{
	unsigned access = chance(w, 45) ? OACC_W : chance(w, 15) ? OACC_X : 0;

	access |= chance(w, 45) ? OACC_U : chance(w, 50) ? OACC_AC : 0;
	if (!(access & OACC_X) && chance(w, 8))
		access |= OACC_IMPLICIT;
	return access;
}

static void do_access(struct world *w)
{
	struct cpu *c = any_cpu(w);
	unsigned g = any_gva(w), access = any_access(w), size, index;
	struct oracle_xlat x;
	uint64_t value;

	size = chance(w, 6) ? 1u << below(w, 3) : c->regs.cr4 & BIT(5) ? 8 : 4;
	index = any_index(w) % (4096 / size);
	translate_now(w, cpu_number(c), w->gva[g], &x);
	value = any_entry(w, x.frame, index);
	if (chance(w, 2) && index * size + size + 3 < 4096)
		access_at(w, c, g, w->gva[g] + index * size + 1 + below(w, 3), access, value, size);
	else
		access_at(w, c, g, w->gva[g] + index * size, access, value, size);
}

/* Another version of an entry: mapped elsewhere, other rights, gone. */
static uint64_t variant(struct world *w, gpa_t gpa, unsigned index, uint64_t old)
{
	static const uint64_t bits[] = {1,    2,     4,	      0x20,    0x40,
					0x80, 0x100, BIT(63), BIT(59), BIT(60)};
	uint64_t fresh = any_entry(w, gpa, index);

	if (chance(w, 50))
		return old ^ bits[below(w, chance(w, 70) ? 5 : ARRAY_SIZE(bits))];
	if (chance(w, 50))
		return (old & ~BITS(51, 12)) | (fresh & BITS(51, 12));
	return chance(w, 10) ? 0 : fresh;
}

/*
 * The entries that @c uses for gva number @g, or in L2 for an ngpa: where they lie, and their
 * number. *@good: they lead somewhere.
 */
static unsigned used_entries(struct world *w, struct cpu *c, unsigned g, struct oracle_entry *e,
			     bool *good)
{
	struct oracle_ept ept;
	struct oracle_xlat x;

	if (c->nested) {
		ept_now(w, c->ept, w->ngpa[below(w, NR_NGPAS)], &ept);
		memcpy(e, ept.entry, ept.n * sizeof(*e));
		*good = ept.kind == ORACLE_EPT_OK && ept.r;
		return ept.n;
	}
	translate_now(w, cpu_number(c), w->gva[g], &x);
	memcpy(e, x.entry, x.n * sizeof(*e));
	*good = x.kind == ORACLE_OK;
	return x.n;
}

/* By which gva can this vCPU reach the frame? NR_GVAS: by none. */
static unsigned gva_of_frame(struct world *w, const struct cpu *c, gpa_t gpa)
{
	for (unsigned i = 0, from = (unsigned)below(w, NR_GVAS); i < NR_GVAS; i++) {
		unsigned g = (from + i) % NR_GVAS;
		struct oracle_xlat x;

		translate_now(w, cpu_number(c), w->gva[g], &x);
		if (x.kind == ORACLE_OK && x.frame == (gpa & ~0xfffull) && x.w)
			return g;
	}
	return NR_GVAS;
}

/* Store to guest memory as L0 or the emulator does; the model's word on whether that is refused. */
static void store_behind(struct world *w, gpa_t gpa, uint64_t value, unsigned size)
{
	int want = !machine_ptr(&w->m, gpa) ? -EFAULT : region_refuses(w, gpa) ? -EROFS : 0, r;
	uint64_t old[2] = {0, 0}, pair[2] = {value, value};
	struct cpu *c = any_cpu(w);

	cpu_leave(c);
	switch (below(w, 5)) {
	case 0:
		HIT(w, table_by_l0);
		r = slot_write(w->m.vm, gpa, &value, size);
		break;
	case 1:
		HIT(w, table_by_cmpxchg);
		model_read(w, gpa, size, old);
		old[0] ^= chance(w, 5); /* then nothing happens, but the page is written */
		r = mmu_guest_cmpxchg(c->v, gpa, old, value, size);
		r = r == 1 ? 0 : r;
		break;
	case 2:
		if (gpa & 15 || size != 8)
			gpa = (size = 8, gpa & ~15ull);
		HIT(w, table_by_cmpxchg16);
		model_read(w, gpa, 8, &old[0]);
		model_read(w, gpa + 8, 8, &old[1]);
		pair[1] = old[1];
		r = mmu_guest_cmpxchg16(c->v, gpa, old, pair);
		r = r == 1 ? 0 : r;
		break;
	default: HIT(w, table_by_emulator); r = mmu_guest_write(c->v, gpa, &value, size);
	}
	if (r != want)
		WRONG(w, "a write to %llx: %d, not %d", LL(gpa), r, want);
	w->count[K_table_refused] += r != 0;
}

/* Change an entry that is in use, by the guest's own store where it has a mapping of the table. */
static void do_rewrite(struct world *w)
{
	struct cpu *c = any_cpu(w);
	struct oracle_entry used[5];
	bool good;
	unsigned n = used_entries(w, c, any_gva(w), used, &good), h, index;
	const struct oracle_entry *e;
	uint64_t value;

	if (!n)
		return;
	HIT(w, rewrite_used);
	e = &used[chance(w, 70) || !good ? n - 1 : below(w, n)];
	index = (unsigned)((e->gpa & 0xfff) / e->size);
	value = good || chance(w, 20) ? variant(w, e->gpa, index, e->value)
				      : good_entry(w, e->gpa, index);
	for (unsigned i = 0; i < 8 && (i == 0 || c->nested); i++)
		c = any_cpu(w);
	say(w, " gpa %llx: %llx", LL(e->gpa), LL(e->value));
	if (!c->nested && !(c->regs.cr0 >> 31) && chance(w, 75)) {
		HIT(w, table_unpaged);
		access_at(w, c, 0, e->gpa, OACC_W, value, e->size);
		return;
	}
	h = c->nested ? NR_GVAS : gva_of_frame(w, c, e->gpa);
	if (h < NR_GVAS && chance(w, 75)) {
		unsigned access = OACC_W | (chance(w, 30) ? OACC_U : OACC_AC);

		HIT(w, table_by_guest);
		access_at(w, c, h, w->gva[h] + (e->gpa & 0xfff), access, value, e->size);
		return;
	}
	say(w, " becomes %llx", LL(value));
	store_behind(w, e->gpa, value, e->size);
}

static void do_table_write(struct world *w)
{
	unsigned size = chance(w, 25) ? 4 : 8, index = any_index(w) % (4096 / size);
	gpa_t gpa = (chance(w, 75) ? below(w, NR_TABLES) : EPT_FRAME + below(w, EPT_TABLES)) << 12;
	uint64_t value = any_entry(w, gpa, index);

	gpa += index * size;
	say(w, " gpa %llx value %llx/%u", LL(gpa), LL(value), size);
	store_behind(w, gpa, value, size);
}

static void do_dma(struct world *w)
{
	uint8_t data[300];
	gpa_t gpa = chance(w, 10) ? below(w, (LOW_PAGES << 12) - sizeof(data))
				  : (40u << 12) + below(w, 0x8000);
	struct slot_window win;
	int want = !machine_ptr(&w->m, gpa) ? -EFAULT : region_refuses(w, gpa) ? -EROFS : 0, r;

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(chance(w, 50) ? 0 : rnd(w));
	say(w, " gpa %llx", LL(gpa));
	if (chance(w, 50)) {
		HIT(w, dma_copy);
		r = slot_write(w->m.vm, gpa, data, sizeof(data));
	} else {
		HIT(w, dma_window);
		r = slot_map(w->m.vm, gpa, sizeof(data), MMU_ACC_WRITE, &win);
		if (!r) {
			memcpy(win.host, data, sizeof(data));
			slot_unmap(w->m.vm, &win, sizeof(data));
		}
	}
	if (r != want)
		WRONG(w, "DMA to %llx: %d, not %d", LL(gpa), r, want);
}

/* ---- translation for the emulator ---- */

static void check_steps(struct world *w, const struct oracle_xlat *x,
			const struct mmu_walk_result *got)
{
	unsigned skip = got->nsteps && got->steps[0].level == 3 && got->steps[0].gpa < 4;

	for (unsigned i = 0; i + skip < got->nsteps && i < x->n; i++) {
		const struct mmu_walk_step *s = &got->steps[i + skip];

		if (s->gpa != x->entry[i].gpa || (s->raw ^ x->entry[i].value) & ~0x60ull)
			WRONG(w, "step %u: %llx at %llx, not %llx at %llx", i, LL(s->raw),
			      LL(s->gpa), LL(x->entry[i].value), LL(x->entry[i].gpa));
	}
}

static void translate_l1(struct world *w, struct cpu *c, uint64_t la, unsigned access, bool peek)
{
	struct oracle_regs regs = oracle_regs_of(c);
	struct mmu_walk_result got;
	struct oracle_xlat x;
	uint32_t code;
	int r;

	translate_now(w, cpu_number(c), la, &x);
	code = peek && x.kind == ORACLE_OK ? 0 : oracle_judge(&regs, &x, access);
	cpu_leave(c);
	r = mmu_gva_to_gpa(
		c->v, la,
		(access & OACC_W ? MMU_ACC_WRITE : 0) | (access & OACC_U ? MMU_ACC_USER : 0) |
			(access & OACC_X ? MMU_ACC_FETCH : 0) |
			(access & OACC_AC ? MMU_ACC_AC : 0) |
			(access & OACC_IMPLICIT ? MMU_ACC_IMPLICIT : 0) | (peek ? MMU_ACC_PEEK : 0),
		&got);
	if (r != !!code || (r && !peek && (got.fault.error_code | ORACLE_FAULT) != code))
		WRONG(w, "translated %llx access %x: %d code %x, not %x", LL(la), access, r,
		      got.fault.error_code, code);
	if (!r && got.gpa != (x.frame | (la & 0xfff)))
		WRONG(w, "translated %llx: %llx, not %llx", LL(la), LL(got.gpa), LL(x.frame));
	if (!r && c->regs.cr0 >> 31 &&
	    (x.w != !!(got.access & MMU_MAP_WRITE) || x.u != !!(got.access & MMU_MAP_USER) ||
	     x.x != !!(got.access & MMU_MAP_EXEC)))
		WRONG(w, "translated %llx: rights %x", LL(la), got.access);
	check_steps(w, &x, &got);
	check_entries(w, &x);
	translate_now(w, cpu_number(c), la, &x);
	if (!r && !peek && (!x.a || (access & OACC_W && !x.d)))
		WRONG(w, "translated %llx access %x: A %d D %d", LL(la), access, x.a, x.d);
}

static void translate_l2(struct world *w, struct cpu *c, uint64_t la, unsigned access)
{
	struct outcome o = {.emulated = true};
	struct mmu_walk_result got;
	struct composed want;

	HIT(w, translate_nested);
	compose(w, c, la, access, &want);
	cpu_leave(c);
	if (mmu_gva_to_gpa(c->v, la,
			   (access & OACC_W ? MMU_ACC_WRITE : 0) |
				   (access & OACC_U ? MMU_ACC_USER : 0) |
				   (access & OACC_X ? MMU_ACC_FETCH : 0) |
				   (access & OACC_AC ? MMU_ACC_AC : 0) |
				   (access & OACC_IMPLICIT ? MMU_ACC_IMPLICIT : 0),
			   &got)) {
		o.kind = got.fault.nested ? OUT_NESTED : OUT_FAULT;
		o.code = got.fault.error_code;
		o.misconfig = got.fault.misconfig;
		o.cr2 = got.fault.cr2;
	} else {
		o.gpa = got.gpa;
	}
	check_nested(w, c, la, access, &want, &o);
}

static void do_translate(struct world *w)
{
	struct cpu *c = any_cpu(w);
	uint64_t la = w->gva[any_gva(w)] + below(w, 512) * 8;
	unsigned access = any_access(w);
	bool peek = chance(w, 30) && !c->nested;

	if (!(c->regs.efer & BIT(10)))
		la = (uint32_t)la;
	say(w, " cpu %u la %llx access %x%s", cpu_number(c), LL(la), access, peek ? " peek" : "");
	if (c->nested) {
		translate_l2(w, c, la, access);
		return;
	}
	w->count[peek ? K_translate_peek : K_translate]++;
	translate_l1(w, c, la, access, peek);
}

/* ---- flushes ---- */

static void do_invlpg(struct world *w)
{
	struct cpu *c = any_cpu(w);
	unsigned g = any_gva(w), cpu = cpu_number(c);

	if (c->nested)
		return;
	HIT(w, invlpg);
	say(w, " cpu %u la %llx", cpu, LL(w->gva[g]));
	w->actor = c;
	cpu_invlpg(c, w->gva[g]);
	w->actor = NULL;
	for (unsigned i = 0; i < NR_GVAS; i++) {
		for (unsigned p = 0; w->gva[i] == w->gva[g] && p < NR_PCIDS; p++)
			forget(w, cpu, p, i, p == cpu_pcid(c) ? KEEP_NOTHING : KEEP_OTHERS);
	}
}

static void do_invpcid(struct world *w)
{
	struct cpu *c = any_cpu(w);
	unsigned g = any_gva(w), cpu = cpu_number(c);
	unsigned pcid = c->regs.cr4 & BIT(17) ? (unsigned)below(w, NR_PCIDS) : 0;
	enum mmu_invpcid type = (enum mmu_invpcid)below(w, 4);

	if (c->nested)
		return;
	HIT(w, invpcid);
	say(w, " cpu %u type %d pcid %u la %llx", cpu, type, pcid, LL(w->gva[g]));
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
}

static bool is_pae(const struct mmu_regs *r)
{
	return r->cr0 >> 31 && !(r->efer & BIT(10)) && r->cr4 & BIT(5);
}

/* What L1 puts into the fields for L2's PDPTEs. */
static void any_pdptrs(struct world *w, uint64_t pdptr[4])
{
	for (unsigned i = 0; i < 4; i++)
		pdptr[i] = table_of_level(w, 2) | chance(w, 90);
}

static void do_cr3(struct world *w)
{
	struct cpu *c = any_cpu(w);
	uint64_t cr3 = any_cr3(w, &c->regs);

	if (is_pae(&c->regs)) {
		uint64_t pdptr[4];

		if (c->nested) {
			any_pdptrs(w, pdptr);
		} else if (mmu_read_pdptrs(c->v, &c->regs, cr3, pdptr)) {
			HIT(w, cr3_pdptr_refused);
			return;
		}
		memcpy(c->regs.pdptr, pdptr, sizeof(pdptr));
	}
	share_globals(w, cpu_number(c));
	if (c->regs.cr4 & BIT(17)) {
		if (chance(w, 40))
			cr3 = c->regs.cr3; /* the tables of now, or of some time ago */
		cr3 = (cr3 & ~0xfffull) | below(w, NR_PCIDS) | (chance(w, 60) ? BIT(63) : 0);
	}
	say(w, " cpu %u cr3 %llx", cpu_number(c), LL(cr3));
	w->count[cr3 >> 63 ? K_cr3_keep : K_cr3_flush]++;
	w->actor = c;
	cpu_load_cr3(c, cr3);
	w->actor = NULL;
	if (!(cr3 >> 63))
		forget_pcid(w, cpu_number(c), cpu_pcid(c), KEEP_GLOBALS);
	w->changed = true;
}

/* ---- registers ---- */

static void any_mode(struct world *w, struct mmu_regs *r)
{
	unsigned mode = (unsigned)below(w, 12);

	if (mmu_get_policy(w->m.vm) == MMU_POLICY_TDP && chance(w, 25))
		mode = 0; /* who writes an L1's EPT */
	r->cr0 = 1 | (mode ? BIT(31) : 0);
	r->cr4 = mode > 3 ? BIT(5) : 0;
	r->efer = mode > 5 ? BIT(8) | BIT(10) : 0;
	if (mode > 9)
		r->cr4 |= BIT(12);
	r->cr3 = any_cr3(w, r);
}

static void any_flags(struct world *w, struct mmu_regs *r)
{
	r->cr0 = (r->cr0 & ~BIT(16)) | (chance(w, 70) ? BIT(16) : 0);
	r->cr4 &= ~(BIT(4) | BIT(7) | BIT(20) | BIT(21) | BIT(22));
	r->cr4 |= (chance(w, 70) ? BIT(4) : 0) | (chance(w, 70) ? BIT(7) : 0) |
		  (chance(w, 20) ? BIT(20) : 0) | (chance(w, 20) ? BIT(21) : 0);
	if (r->efer & BIT(10))
		r->cr4 |= chance(w, 30) ? BIT(22) : 0;
	r->cr4 &= ~BIT(17);
	if (r->efer & BIT(10) && chance(w, 60))
		r->cr4 |= BIT(17);
	else if (r->efer & BIT(10))
		r->cr3 &= ~0xfffull;
	r->efer = (r->efer & ~BIT(11)) | (chance(w, 80) ? BIT(11) : 0);
	r->pkru = (uint32_t)rnd(w) & (uint32_t)rnd(w) & ~3u;
}

static void do_regs(struct world *w)
{
	struct cpu *c = any_cpu(w);
	struct mmu_regs r = c->regs;

	if (chance(w, 40))
		any_mode(w, &r);
	any_flags(w, &r);
	if (is_pae(&r) && c->nested)
		any_pdptrs(w, r.pdptr);
	else if (is_pae(&r) && mmu_read_pdptrs(c->v, &r, r.cr3, r.pdptr))
		return;
	HIT(w, registers);
	say(w, " cpu %u cr0 %llx cr3 %llx cr4 %llx efer %llx", cpu_number(c), LL(r.cr0), LL(r.cr3),
	    LL(r.cr4), LL(r.efer));
	cpu_set_regs(c, &r);
	forget_all(w, cpu_number(c));
}

/* WRPKRU flushes nothing. */
static void do_pkru(struct world *w)
{
	struct cpu *c = any_cpu(w);

	HIT(w, pkru);
	c->regs.pkru = (uint32_t)rnd(w) & (uint32_t)rnd(w) & ~3u;
	say(w, " cpu %u %x", cpu_number(c), c->regs.pkru);
	cpu_leave(c);
	mmu_set_pkru(c->v, c->regs.pkru);
}

static void leave_all(struct world *w)
{
	for (unsigned i = 0; i < w->m.nr_cpus; i++) {
		if (!w->m.cpu[i].nested)
			continue;
		cpu_leave_nested(&w->m.cpu[i]);
		forget_all(w, i);
	}
}

/* The machine's physical width: of all vCPUs at once. */
static void do_width(struct world *w)
{
	uint8_t width = (uint8_t)(36 + below(w, 17));
	bool gbpages = chance(w, 70);

	HIT(w, width);
	say(w, " %u %d", width, gbpages);
	if (chance(w, 50))
		leave_all(w);
	for (unsigned i = 0; i < w->m.nr_cpus; i++) {
		struct mmu_regs r = w->m.cpu[i].regs, *l1 = &w->m.cpu[i].l1;

		l1->maxphyaddr = width;
		l1->gbpages = gbpages;
		l1->cr3 &= BITS(width - 1, 0);

		r.maxphyaddr = width;
		r.gbpages = gbpages;
		r.cr3 &= BITS(width - 1, 0);
		if (is_pae(&r))
			any_pdptrs(w, r.pdptr);
		cpu_set_regs(&w->m.cpu[i], &r);
		forget_all(w, i);
	}
}

/* ---- nested ---- */

static void do_nested(struct world *w)
{
	struct cpu *c = any_cpu(w);
	unsigned cpu = cpu_number(c), ept = (unsigned)below(w, NR_EPTS);
	struct mmu_nested_regs n = {.ept_execute_only = w->exec_only, .guest = c->regs};
	int want = 0, r;

	if (c->nested && chance(w, 70)) {
		bool all = chance(w, 30);

		w->count[all ? K_invept_all : K_invept_one]++;
		say(w, " cpu %u invept %d", cpu, all ? -1 : (int)ept);
		cpu_invept(c, all ? 0 : w->eptp[ept], ept);
		for (unsigned e = 0; e < NR_EPTS; e++) {
			if (all || e == ept)
				forget_ept(w, cpu, e);
		}
		return;
	}
	if (c->nested) {
		HIT(w, leave_nested);
		say(w, " cpu %u leaves", cpu);
		cpu_leave_nested(c);
		forget_all(w, cpu);
		return;
	}
	n.eptp = w->eptp[ept] | (chance(w, 3) ? BIT(7 + below(w, 5)) : 0);
	if (mmu_get_policy(w->m.vm) != MMU_POLICY_TDP || w->seed % 3 == 0 || n.eptp != w->eptp[ept])
		want = -EINVAL;
	any_mode(w, &n.guest);
	any_flags(w, &n.guest);
	any_pdptrs(w, n.guest.pdptr);
	say(w, " cpu %u enters %u", cpu, ept);
	r = cpu_enter_nested(c, &n, ept);
	if (r != want)
		WRONG(w, "mmu_enter_nested: %d, not %d", r, want);
	w->count[r ? K_enter_refused : K_enter_nested]++;
	/* What it cached of this EPT before may be of before anything that was not noted. */
	for (unsigned e = 0; e < NR_EPTS && !r; e++)
		w->ept_stale[cpu][e] = true;
	for (unsigned e = 0; e < NR_EPTS && !r; e++) {
		for (unsigned i = 0; i < NR_NGPAS; i++)
			w->ept_past[cpu][e][i].any |= w->ept_past[cpu][e][i].n > 0;
	}
	w->changed = true;
}

/* ---- the log ---- */

/* Forget what the model says of a page: told now, or the slot went. */
static void told(struct world *w, unsigned n, unsigned slot, uint64_t page)
{
	w->told_dirty++;
	w->truly_dirty += w->dirty[n][slot][page];
	w->dirty[n][slot][page] = false;
}

static void check_log(struct world *w, unsigned n, bool clear)
{
	for (unsigned s = 0; s < NR_WSLOTS; s++) {
		const struct region *r = region_by_id(w, s);
		uint64_t bits[BIG_PAGES / 64], pages = r ? r->size >> 12 : 0;
		uint64_t first = chance(w, 80) ? 0 : below(w, pages + 1), count = pages - first;

		if (!r || !w->watching[n][s]) {
			assert_int_equal(dirty_get(w->client[n], s, 0, 1, bits), -ENOENT);
			continue;
		}
		assert_int_equal(dirty_get(w->client[n], s, first, count, bits), 0);
		for (uint64_t i = 0; i < count; i++) {
			bool is_told = bits[i / 64] >> (i % 64) & 1;

			if (w->dirty[n][s][first + i] && !is_told)
				WRONG(w, "client %u: slot %u page %llu is missing", n, s,
				      LL(first + i));
			if (clear && is_told && chance(w, 30))
				bits[i / 64] &= ~BIT(i % 64);
			else if (clear && is_told)
				told(w, n, s, first + i);
		}
		if (clear)
			assert_int_equal(dirty_clear(w->client[n], s, first, count, bits), 0);
	}
}

static void take_log(struct world *w, unsigned n)
{
	size_t max = chance(w, 50) ? 4096 : 1 + below(w, 40);
	uint64_t count = dirty_count(w->client[n]);
	gfn_t gfns[4096], last = 0;
	ssize_t got = dirty_take(w->client[n], gfns, max);

	if (got != (ssize_t)MIN(count, (uint64_t)max))
		WRONG(w, "client %u: took %zd of %llu", n, got, LL(count));
	for (ssize_t i = 0; i < got; i++) {
		uint8_t *p = machine_ptr(&w->m, gfns[i] << 12);
		const struct region *r = p ? region_of(w, (uint64_t)(uintptr_t)p) : NULL;

		if (!r || (i && gfns[i] <= last))
			WRONG(w, "client %u: gfn %llx is told behind %llx", n, LL(gfns[i]),
			      LL(last));
		last = gfns[i];
		told(w, n, r->id, (uint64_t)(p - r->host) >> 12);
	}
	for (unsigned s = 0; s < NR_WSLOTS && (uint64_t)got == count; s++) {
		for (uint64_t i = 0; i < BIG_PAGES; i++) {
			if (w->dirty[n][s][i])
				WRONG(w, "client %u: slot %u page %llu is missing", n, s, LL(i));
		}
	}
}

static void watch_slot(struct world *w, unsigned n, unsigned s, bool on)
{
	memset(w->dirty[n][s], 0, sizeof(w->dirty[n][s]));
	w->watching[n][s] = on;
	for (uint64_t i = 0; on && w->initially[n] && i < region_by_id(w, s)->size >> 12; i++)
		w->dirty[n][s][i] = true;
}

static void client_create(struct world *w, unsigned n)
{
	char name[8] = {'c', (char)('0' + n), 0};

	w->initially[n] = chance(w, 30);
	w->all[n] = chance(w, 70);
	HIT(w, client_create);
	w->count[K_client_initially_set] += w->initially[n];
	say(w, " creates %u%s%s", n, w->initially[n] ? " initially set" : "",
	    w->all[n] ? " all" : "");
	assert_int_equal(dirty_client_create(w->m.vm, name,
					     w->initially[n] ? DIRTY_INITIALLY_SET : 0,
					     &w->client[n]),
			 0);
	if (w->all[n])
		assert_int_equal(dirty_client_watch(w->client[n], DIRTY_ALL_SLOTS), 0);
	for (unsigned s = 0; s < NR_WSLOTS && w->all[n]; s++) {
		if (region_by_id(w, s))
			watch_slot(w, n, s, true);
	}
}

static void client_destroy(struct world *w, unsigned n)
{
	HIT(w, client_destroy);
	say(w, " destroys %u", n);
	check_log(w, n, false);
	dirty_client_destroy(w->client[n]);
	w->client[n] = NULL;
	w->all[n] = false;
	if (w->ring_client == (int)n)
		w->ring_client = -1;
	for (unsigned s = 0; s < NR_WSLOTS; s++)
		watch_slot(w, n, s, false);
}

/* One slot more or less. */
static void client_watch(struct world *w, unsigned n)
{
	unsigned s = (unsigned)below(w, NR_WSLOTS);
	bool on = !w->watching[n][s];
	int r;

	w->count[on ? K_client_watch : K_client_unwatch]++;
	say(w, " %u %swatches %u", n, on ? "" : "un", s);
	r = on ? dirty_client_watch(w->client[n], s) : dirty_client_unwatch(w->client[n], s);
	assert_int_equal(r, region_by_id(w, s) ? 0 : -ENOENT);
	if (!r)
		watch_slot(w, n, s, on);
}

/* The ring's client takes what the rings hold. */
static void harvest(struct world *w)
{
	unsigned n = (unsigned)w->ring_client;
	struct {
		unsigned slot;
		uint64_t page;
	} e[256 * NR_CPUS];
	unsigned total = 0;

	snapshot(w);
	HIT(w, ring_harvest);
	for (unsigned c = 0; c < w->m.nr_cpus; c++) {
		struct dirty_ring *ring = dirty_ring_get(w->m.cpu[c].v);

		for (; ring && ring->tail != ring->head; ring->tail++) {
			const struct dirty_ring_entry *at =
				&ring->entries[ring->tail & (ring->size - 1)];

			e[total].slot = at->slot_id;
			e[total++].page = at->page;
		}
	}
	assert_int_equal(dirty_ring_reset(w->client[n]), 0);
	for (unsigned i = 0; i < total; i++) {
		if (e[i].slot >= NR_WSLOTS || e[i].page >= BIG_PAGES)
			WRONG(w, "a ring tells of slot %u page %llu", e[i].slot, LL(e[i].page));
		told(w, n, e[i].slot, e[i].page);
	}
}

static void world_ring_full(struct cpu *c)
{
	struct world *w = container_of(c->m, struct world, m);

	HIT(w, ring_full);
	if (w->ring_client < 0)
		WRONG(w, "a ring is full that nobody asked for");
	harvest(w);
}

static void ring_toggle(struct world *w, unsigned n)
{
	bool on = w->ring_client != (int)n;
	int want = on && w->ring_client >= 0 ? -EBUSY : 0;

	say(w, " %u ring %s", n, on ? "on" : "off");
	if (!on)
		harvest(w);
	assert_int_equal(dirty_ring_enable(w->client[n], on ? 64u << below(w, 2) : 0), want);
	if (want)
		return;
	w->count[on ? K_ring_on : K_ring_off]++;
	w->ring_client = on ? (int)n : -1;
}

/* A writer outside the process. */
static void write_outside(struct world *w)
{
	const struct region *r = region_by_id(w, SLOT_BIG);

	if (!r)
		return;
	HIT(w, log_shared);
	if (!w->is_shared)
		assert_int_equal(dirty_share_bitmap(w->m.vm, SLOT_BIG, w->shared,
						    w->seed & 1 ? w->summary : NULL),
				 0);
	w->is_shared = true;
	for (unsigned i = 0; i < 3; i++) {
		uint64_t page = below(w, BIG_PAGES);

		/* Of a guest table nobody could tell the MMU. */
		if (mmu_is_tracked(w->m.vm, r->gpa + (page << 12)))
			continue;
		r->host[page << 12] = (uint8_t)rnd(w);
		w->shared[page / 64] |= BIT(page % 64);
		w->summary[page / 64 / 64] |= BIT(page / 64 % 64);
		w->m.wrote(&w->m, (uint64_t)(uintptr_t)r->host + (page << 12), 1);
	}
}

static void write_and_note(struct world *w)
{
	gpa_t gpa = (40u << 12) + below(w, 0x10000);
	uint64_t len = 1 + below(w, 0x3000);

	if (region_by_id(w, SLOT_LOW)->gpa)
		return; /* elsewhere for now */
	HIT(w, log_note);
	say(w, " notes %llx+%llx", LL(gpa), LL(len));
	w->m.map[gpa] ^= 1;
	w->m.map[gpa + len - 1] ^= 2;
	dirty_note(w->m.vm, gpa, len);
	mmu_track_write(w->m.vm, gpa, len);
	w->m.wrote(&w->m, (uint64_t)(uintptr_t)w->m.map + gpa, len);
}

static void do_dirty(struct world *w)
{
	unsigned n = (unsigned)below(w, NR_CLIENTS);

	if (!w->client[n]) {
		client_create(w, n);
		return;
	}
	switch (below(w, 12)) {
	case 0:
		if (chance(w, 40))
			client_destroy(w, n);
		break;
	case 1: client_watch(w, n); break;
	case 2:
		HIT(w, log_get);
		check_log(w, n, false);
		break;
	case 3:
	case 4:
		HIT(w, log_take);
		say(w, " %u takes", n);
		take_log(w, n);
		break;
	case 5: ring_toggle(w, n); break;
	case 6:
	case 7:
		if (w->ring_client >= 0)
			harvest(w);
		break;
	case 8: write_outside(w); break;
	case 9: write_and_note(w); break;
	default:
		HIT(w, log_clear);
		say(w, " %u clears", n);
		check_log(w, n, true);
	}
}

static void do_notice(struct world *w)
{
	bool pml = chance(w, 60);
	bool can = mmu_get_policy(w->m.vm) == MMU_POLICY_TDP && w->seed % 3;

	w->count[pml && can ? K_log_pml : K_log_protect]++;
	say(w, " %s", pml ? "pml" : "protect");
	assert_int_equal(dirty_set_notice(w->m.vm, pml ? DIRTY_NOTICE_PML : DIRTY_NOTICE_PROTECT),
			 pml && !can ? -EOPNOTSUPP : 0);
}

/* ---- slots ---- */

static const struct {
	gpa_t gpa[2];
	uint64_t size, offset;
	uint32_t flags;
} homes[NR_WSLOTS] = {
	[SLOT_LOW] = {{0, 0x2000000}, LOW_PAGES << 12, 0, 0},
	[SLOT_BIG] = {{BIG_GPA, BIG_GPA + 0x403000}, BIG_PAGES << 12, MIB(4), 0},
	[SLOT_ROM] = {{ROM_GPA, ROM_GPA + 0x1000}, ROM_PAGES << 12, MIB(12), SLOT_READONLY},
	[SLOT_GUEST] = {{GUEST_GPA, GUEST_GPA + 0x2000}, 4 << 12, MIB(16), 0},
	[SLOT_HIGH] = {{HIGH_GPA, HIGH_GPA + 0x200000}, HIGH_PAGES << 12, MIB(20), 0},
};

static void slot_comes(struct world *w, unsigned s)
{
	HIT(w, slot_add);
	machine_add(&w->m, s, homes[s].gpa[0], homes[s].size, homes[s].offset, homes[s].flags);
	for (unsigned n = 0; n < NR_CLIENTS; n++) {
		if (w->client[n] && w->all[n])
			watch_slot(w, n, s, true);
	}
}

static void slot_goes(struct world *w, unsigned s)
{
	struct region *r = region_by_id(w, s);

	HIT(w, slot_delete);
	assert_int_equal(slot_delete(w->m.vm, s), 0);
	r->used = false;
	if (s == SLOT_BIG)
		w->is_shared = false;
	for (unsigned n = 0; n < NR_CLIENTS; n++)
		watch_slot(w, n, s, false);
}

static void slot_moves(struct world *w, unsigned s)
{
	struct region *r = region_by_id(w, s);
	gpa_t to = homes[s].gpa[r->gpa == homes[s].gpa[0]];

	HIT(w, slot_move);
	assert_int_equal(slot_move(w->m.vm, s, to), 0);
	r->gpa = to;
}

static void slot_flips(struct world *w, unsigned s)
{
	struct region *r = region_by_id(w, s);

	w->count[r->readonly ? K_slot_writable : K_slot_readonly]++;
	r->readonly = !r->readonly;
	assert_int_equal(slot_set_flags(w->m.vm, s, r->readonly ? SLOT_READONLY : 0), 0);
}

/* The first slot holds all tables: what it is changed to lasts for a few operations only. */
static void low_returns(struct world *w)
{
	struct region *r = region_by_id(w, SLOT_LOW);

	if (r->gpa && chance(w, 30))
		slot_moves(w, SLOT_LOW);
	if (r->readonly && chance(w, 30))
		slot_flips(w, SLOT_LOW);
}

static void do_slots(struct world *w)
{
	static const unsigned which[] = {SLOT_GUEST, SLOT_GUEST, SLOT_BIG,
					 SLOT_HIGH,  SLOT_ROM,	 SLOT_LOW};
	unsigned s = which[below(w, ARRAY_SIZE(which))];

	say(w, " %u", s);
	if (!region_by_id(w, s))
		slot_comes(w, s);
	else if (chance(w, 40))
		slot_moves(w, s);
	else if (chance(w, 50) || s == SLOT_LOW)
		slot_flips(w, s);
	else
		slot_goes(w, s);
	w->changed = true;
}

/* ---- what is rare ---- */

static void policy_switch(struct world *w)
{
	bool shadow = mmu_get_policy(w->m.vm) == MMU_POLICY_SHADOW, busy = false;
	enum mmu_policy policy = shadow ? MMU_POLICY_TDP : MMU_POLICY_SHADOW;

	for (unsigned i = 0; i < w->m.nr_cpus; i++)
		busy |= w->m.cpu[i].nested;
	if (busy) {
		HIT(w, policy_busy);
		assert_int_equal(mmu_set_policy(w->m.vm, policy), -EBUSY);
		leave_all(w);
	}
	w->count[shadow ? K_policy_to_tdp : K_policy_to_shadow]++;
	assert_int_equal(dirty_set_notice(w->m.vm, DIRTY_NOTICE_PROTECT), 0);
	machine_leave(&w->m);
	assert_int_equal(mmu_set_policy(w->m.vm, policy), 0);
	for (unsigned i = 0; i < w->m.nr_cpus; i++) {
		cpu_flush(&w->m.cpu[i], true);
		forget_all(w, i);
	}
}

/* A vCPU is unplugged, and another one plugged in its place. */
static void replace_vcpu(struct world *w, struct cpu *c)
{
	struct mmu_regs r = c->nested ? c->l1 : c->regs;

	if (w->ring_client >= 0)
		return; /* a ring is made for the vCPUs of that moment */
	HIT(w, vcpu_replaced);
	machine_drain(&w->m);
	cpu_leave(c);
	mmu_vcpu_destroy(c->v);
	memset(c->tlb, 0, sizeof(c->tlb));
	memset(c->psc, 0, sizeof(c->psc));
	c->nested = false;
	assert_int_equal(mmu_vcpu_create(w->m.vm, cpu_number(c), &c->v), 0);
	cpu_set_regs(c, &r);
	forget_all(w, cpu_number(c));
	for (unsigned e = 0; e < NR_EPTS; e++)
		forget_ept(w, cpu_number(c), e);
}

static void do_rare(struct world *w)
{
	struct cpu *c = any_cpu(w);
	uint32_t off;

	switch (below(w, 8)) {
	case 0:
		HIT(w, zap_all);
		say(w, " zap all");
		mmu_zap_all(w->m.vm);
		break;
	case 1:
	case 2:
		say(w, " policy");
		policy_switch(w);
		break;
	case 3:
		HIT(w, mechanisms);
		off = chance(w, 50) ? 0 : (uint32_t)rnd(w) & (uint32_t)rnd(w) & MMU_NO_ALL;
		say(w, " without %x", off);
		machine_leave(&w->m);
		mmu_set_disable(w->m.vm, off);
		break;
	case 4:
		HIT(w, unprotect);
		say(w, " unprotect");
		mmu_unprotect(w->m.vm, below(w, LOW_PAGES));
		break;
	case 5:
		HIT(w, unload);
		say(w, " unload %u", cpu_number(c));
		cpu_leave(c);
		mmu_unload(c->v);
		break;
	case 6:
		say(w, " replaces %u", cpu_number(c));
		replace_vcpu(w, c);
		break;
	default: do_width(w);
	}
}

/* ---- the run ---- */

static const struct {
	const char *name;
	unsigned weight;
	void (*run)(struct world *w);
} operations[] = {
	{"access", 480, do_access},
	{"rewrite", 170, do_rewrite},
	{"table write", 60, do_table_write},
	{"invlpg", 70, do_invlpg},
	{"cr3", 60, do_cr3},
	{"invpcid", 15, do_invpcid},
	{"registers", 25, do_regs},
	{"pkru", 8, do_pkru},
	{"translate", 40, do_translate},
	{"nested", 30, do_nested},
	{"dirty", 30, do_dirty},
	{"notice", 2, do_notice},
	{"dma", 4, do_dma},
	{"slots", 5, do_slots},
	{"rare", 5, do_rare},
};

static struct world *the_world;
static bool verbose, chosen; /* not the run by default */

static void one_operation(struct world *w)
{
	char text[256];
	uint64_t pick;
	unsigned i = 0;

	w->rng = (w->seed * 0x9e3779b97f4a7c15ull + w->op + 1) * 0xbf58476d1ce4e5b9ull | 1;
	for (unsigned n = 0; n < 3; n++)
		rnd(w);
	for (pick = below(w, 1004); pick >= operations[i].weight;)
		pick -= operations[i++].weight;
	w->what = operations[i].name;
	w->intruded = false;
	snprintf(w->said[w->op % NR_SAID], sizeof(w->said[0]), "%llu %s:", LL(w->op), w->what);
	if (chance(w, 8))
		w->hot = (unsigned)below(w, NR_GVAS);
	if (chance(w, 8))
		w->hot_cpu = (unsigned)below(w, w->m.nr_cpus);
	operations[i].run(w);
	low_returns(w);
	snapshot(w);
	if (verbose)
		print_message("%s\n", w->said[w->op % NR_SAID]);
	/* What the modification log holds may wait for what comes next, unaudited. */
	if (operations[i].run == do_access && w->m.cpu[0].pml_n && chance(w, 30)) {
		HIT(w, pml_undrained);
		return;
	}
	machine_drain(&w->m);
	if (mmu_audit(w->m.vm, text, sizeof(text)))
		WRONG(w, "audit: %s", text);
}

static uint64_t totals[NR_KINDS], total_ops, told_dirty, truly_dirty;

static void run(uint64_t seed, uint64_t ops, const uint8_t *skip)
{
	struct world *w = malloc(sizeof(*w));

	assert_non_null(w);
	world_init(w, seed);
	w->m.ring_full = world_ring_full;
	the_world = w;
	for (w->op = 0; w->op < ops; w->op++) {
		if (!skip || !skip[w->op])
			one_operation(w);
	}
	w->what = "the end";
	machine_drain(&w->m);
	for (unsigned n = 0; n < NR_CLIENTS; n++) {
		if (w->client[n])
			check_log(w, n, false);
	}
	the_world = NULL;
	for (unsigned i = 0; i < NR_KINDS; i++)
		totals[i] += w->count[i];
	total_ops += ops;
	told_dirty += w->told_dirty;
	truly_dirty += w->truly_dirty;
	world_finish(w);
	free(w);
}

/* ---- what came of it ---- */

static const char *const kind_names[NR_KINDS] = {
#define X(name) #name,
	WORLD_KINDS(X)
#undef X
};

static void print_table(void)
{
	unsigned none = 0;

	print_message("%llu operations; pages told dirty %llu, truly dirty %llu\n", LL(total_ops),
		      LL(told_dirty), LL(truly_dirty));
	for (unsigned i = 0; i < NR_KINDS; i++) {
		print_message("  %-24s %10llu%s", kind_names[i], LL(totals[i]),
			      i % 3 == 2 || i + 1 == NR_KINDS ? "\n" : "");
		none += !totals[i];
	}
	for (unsigned i = 0; i < NR_KINDS && none; i++) {
		if (!totals[i])
			print_error("never happened: %s\n", kind_names[i]);
	}
	if (!chosen)
		assert_int_equal(none, 0);
}

static void tell(int sig)
{
	if (the_world)
		world_tell(the_world);
	signal(SIGABRT, SIG_DFL);
	abort();
}

/* ---- shrinking ---- */

static bool fails(uint64_t seed, uint64_t ops, const uint8_t *skip)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		/* cmocka leaves a check that fails outside of a test by exit(). */
		if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout))
			_exit(2);
		alarm(120);
		run(seed, ops, skip);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		abort();
	return status != 0;
}

static void shrink(uint64_t seed, uint64_t ops)
{
	uint8_t *skip = calloc(ops, 1), *tried = malloc(ops);
	uint64_t left = 0;

	for (uint64_t lo = 0; lo + 1 < ops;) {
		uint64_t mid = (lo + ops) / 2;

		if (fails(seed, mid, skip))
			ops = mid;
		else
			lo = mid;
	}
	for (uint64_t chunk = ops / 2; chunk; chunk /= 2) {
		for (uint64_t at = 0; at + 1 < ops; at += chunk) {
			memcpy(tried, skip, ops);
			memset(tried + at, 1, MIN(chunk, ops - 1 - at));
			if (memcmp(tried, skip, ops) && fails(seed, ops, tried))
				memcpy(skip, tried, ops);
		}
	}
	for (uint64_t i = 0; i < ops; i++)
		left += !skip[i];
	print_error("seed %llu: %llu operations, of which %llu matter:\n", LL(seed), LL(ops),
		    LL(left));
	verbose = true;
	run(seed, ops, skip);
}

/* ---- the forms ---- */

static uint64_t first_seed = 1, last_seed = 20, ops_each = 10000;
static bool shrinks;

static void property(void **state)
{
	struct timespec from, to;

	clock_gettime(CLOCK_MONOTONIC, &from);
	for (uint64_t seed = first_seed; seed <= last_seed; seed++) {
		if (shrinks && fails(seed, ops_each, NULL))
			shrink(seed, ops_each);
		run(seed, ops_each, NULL);
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	print_message("seeds %llu to %llu, %llu operations each: %.0f s\n", LL(first_seed),
		      LL(last_seed), LL(ops_each),
		      (double)(to.tv_sec - from.tv_sec) +
			      (double)(to.tv_nsec - from.tv_nsec) * 1e-9);
	print_table();
}

static int teardown(void **state)
{
	if (the_world)
		world_tell(the_world);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(property, teardown)};
	const char *is_long = getenv("UMBRA_TEST_LONG");
	char *end;
	int opt;

	if (is_long && *is_long == '1') {
		last_seed = 100;
		ops_each = 100000;
	}
	while ((opt = getopt(argc, argv, "s:o:xv")) != -1) {
		switch (opt) {
		case 's':
			first_seed = last_seed = strtoull(optarg, &end, 0);
			if (*end == '-')
				last_seed = strtoull(end + 1, NULL, 0);
			break;
		case 'o': ops_each = strtoull(optarg, NULL, 0); break;
		case 'x': shrinks = true; break;
		case 'v': verbose = true; break;
		default: return 64;
		}
		chosen = true;
	}
	signal(SIGABRT, tell);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
