/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tests' machine. Its processors do what silicon does with the tables that mmu/ built. */
#include "machine.h"

#include <string.h>
#include <stdio.h>
#include <sys/mman.h>

/* ---- the engine's side ---- */

void cpu_leave(struct cpu *c)
{
	__atomic_store_n(&c->in_guest, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->kicked, false, __ATOMIC_SEQ_CST);
}

void machine_leave(struct machine *m)
{
	for (unsigned n = 0; n < m->nr_cpus; n++)
		cpu_leave(&m->cpu[n]);
}

static void tlb_drop(struct cpu *c, uint64_t pfn, uint64_t count)
{
	for (unsigned i = 0; i < NR_TLB; i++) {
		if ((c->tlb[i].hpa >> 12) - pfn < count)
			c->tlb[i].valid = false;
	}
}

static void op_flush(void *priv, const struct mmu_flush *f)
{
	struct machine *m = priv;

	m->flushes++;
	if (m->before_flush)
		m->before_flush(m, f);
	for (unsigned n = 0; n < m->nr_cpus; n++) {
		if (!(f->vcpus & MMU_VCPU_BIT(n)))
			continue;
		cpu_leave(&m->cpu[n]);
		if (f->kind == MMU_FLUSH_ALL) {
			memset(m->cpu[n].tlb, 0, sizeof(m->cpu[n].tlb));
			memset(m->cpu[n].psc, 0, sizeof(m->cpu[n].psc));
		} else {
			tlb_drop(&m->cpu[n], f->pfn, f->count);
		}
	}
}

static void op_kick(void *priv, uint64_t vcpus)
{
	struct machine *m = priv;

	m->kicks++;
	m->kicked |= vcpus;
	for (unsigned n = 0; n < m->nr_cpus; n++) {
		if (vcpus & MMU_VCPU_BIT(n))
			__atomic_store_n(&m->cpu[n].kicked, true, __ATOMIC_SEQ_CST);
	}
}

static void op_notify(void *priv, hva_t hva, uint64_t len)
{
	struct machine *m = priv;

	__atomic_fetch_add(&m->notified, 1, __ATOMIC_RELAXED);
	if (m->wrote)
		m->wrote(m, hva, len);
}

/* A processor's store. */
static void store(struct cpu *c, uint64_t hpa, const void *data, unsigned size)
{
	if (c->m->storing)
		c->m->storing(c->m);
	memcpy((void *)hpa, data, size);
	if (c->m->wrote)
		c->m->wrote(c->m, hpa, size);
}

void machine_drain(struct machine *m)
{
	for (unsigned n = 0; n < m->nr_cpus; n++) {
		if (m->cpu[n].root.pml)
			cpu_leave(&m->cpu[n]);
		if (!m->cpu[n].pml_n)
			continue; /* threads may drain what has never been filled */
		mmu_pml_write(m->cpu[n].v, m->cpu[n].pml, m->cpu[n].pml_n);
		m->cpu[n].pml_n = 0;
	}
}

static void op_drain(void *priv)
{
	machine_drain(priv);
}

static const struct mmu_ops ops = {
	.flush_tlb = op_flush,
	.kick = op_kick,
	.notify_write = op_notify,
	.drain_pml = op_drain,
};

#define MAP_SIZE (1ull << 30)

void machine_init(struct machine *m, const struct mmu_config *config, unsigned nr_cpus)
{
	uint8_t *raw;

	memset(m, 0, sizeof(*m));
	raw = mmap(NULL, 2 * MAP_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(raw, MAP_FAILED);
	m->map = (uint8_t *)(((uintptr_t)raw + MAP_SIZE - 1) & ~(MAP_SIZE - 1));
	if (m->map != raw)
		munmap(raw, (size_t)(m->map - raw));
	munmap(m->map + MAP_SIZE, (size_t)(raw + MAP_SIZE - m->map));
	m->map_size = MAP_SIZE;
	assert_int_equal(mmu_vm_create(config, &ops, m, &m->vm), 0);
	m->nr_cpus = nr_cpus;
	for (unsigned i = 0; i < nr_cpus; i++) {
		m->cpu[i].m = m;
		assert_int_equal(mmu_vcpu_create(m->vm, i, &m->cpu[i].v), 0);
		cpu_paging(&m->cpu[i], PAGING_NONE, 0);
	}
}

void machine_finish(struct machine *m)
{
	for (unsigned i = 0; i < m->nr_cpus; i++)
		mmu_vcpu_destroy(m->cpu[i].v);
	mmu_vm_destroy(m->vm);
	munmap(m->map, m->map_size);
}

void machine_add(struct machine *m, uint32_t id, gpa_t gpa, uint64_t size, uint64_t offset,
		 uint32_t flags)
{
	struct slot_desc d = {
		.id = id, .flags = flags, .gpa = gpa, .size = size, .host = m->map + offset};
	unsigned i = 0;

	while (m->region[i].used)
		i++;
	assert_true(i < NR_REGIONS);
	m->region[i] = (struct region){true, id, gpa, size, m->map + offset, flags & SLOT_READONLY};
	assert_int_equal(slot_add(m->vm, &d), 0);
}

void *machine_ptr(struct machine *m, gpa_t gpa)
{
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		const struct region *r = &m->region[i];

		if (r->used && gpa - r->gpa < r->size)
			return r->host + (gpa - r->gpa);
	}
	return NULL;
}

void machine_audit(struct machine *m)
{
	char text[256];

	if (mmu_audit(m->vm, text, sizeof(text)))
		fail_msg("audit: %s", text);
}

/* ---- registers ---- */

unsigned cpu_pcid(const struct cpu *c)
{
	return c->regs.cr4 & BIT(17) ? c->regs.cr3 & 0xfff : 0;
}

static bool is_global(const struct cpu *c, const struct tlb_entry *e)
{
	return e->g && c->regs.cr4 & BIT(7);
}

void cpu_flush(struct cpu *c, bool globals)
{
	for (unsigned i = 0; i < NR_TLB; i++) {
		if (globals || (!is_global(c, &c->tlb[i]) && c->tlb[i].pcid == cpu_pcid(c)))
			c->tlb[i].valid = false;
	}
}

void cpu_set_regs(struct cpu *c, const struct mmu_regs *regs)
{
	cpu_leave(c);
	c->regs = *regs;
	mmu_set_regs(c->v, regs);
	mmu_flush_guest_tlb(c->v);
	if (mmu_get_policy(c->m->vm) == MMU_POLICY_SHADOW)
		cpu_flush(c, true);
}

void cpu_paging(struct cpu *c, enum paging kind, uint64_t cr3)
{
	struct mmu_regs r = {
		.cr0 = 1 | (kind ? BIT(31) | BIT(16) : 0),
		.cr3 = cr3,
		.cr4 = BIT(4) | BIT(7) | (kind >= PAGING_PAE ? BIT(5) : 0) |
		       (kind == PAGING_5 ? BIT(12) : 0),
		.efer = (kind >= PAGING_4 ? BIT(8) | BIT(10) : 0) |
			(kind >= PAGING_PAE ? BIT(11) : 0),
		.maxphyaddr = 40,
		.gbpages = true,
	};

	if (kind == PAGING_PAE)
		assert_int_equal(mmu_read_pdptrs(c->v, &r, cr3, r.pdptr), 0);
	cpu_set_regs(c, &r);
}

void cpu_load_cr3(struct cpu *c, uint64_t cr3)
{
	cpu_leave(c);
	c->regs.cr3 = cr3 & ~BIT(63);
	mmu_new_cr3(c->v, cr3, c->regs.pdptr);
	if (mmu_get_policy(c->m->vm) == MMU_POLICY_SHADOW && !(cr3 >> 63))
		cpu_flush(c, false);
}

static void tlb_invalidate(struct cpu *c, unsigned pcid, uint64_t la, bool globals)
{
	if (mmu_get_policy(c->m->vm) == MMU_POLICY_TDP)
		return;
	if (!(c->regs.efer & BIT(10)))
		la = (uint32_t)la;
	for (unsigned i = 0; i < NR_TLB; i++) {
		struct tlb_entry *e = &c->tlb[i];

		if (e->page == la >> 12 && (e->pcid == pcid || (globals && is_global(c, e))))
			e->valid = false;
	}
}

void cpu_invlpg(struct cpu *c, uint64_t la)
{
	cpu_leave(c);
	mmu_invlpg(c->v, la);
	tlb_invalidate(c, cpu_pcid(c), la, true);
}

void cpu_invpcid(struct cpu *c, enum mmu_invpcid type, unsigned pcid, uint64_t la)
{
	cpu_leave(c);
	mmu_invpcid(c->v, type, pcid, la);
	if (type == MMU_INVPCID_ADDRESS) {
		tlb_invalidate(c, pcid, la, false);
		return;
	}
	if (mmu_get_policy(c->m->vm) == MMU_POLICY_TDP)
		return;
	for (unsigned i = 0; i < NR_TLB; i++) {
		struct tlb_entry *e = &c->tlb[i];

		if (type == MMU_INVPCID_ALL_GLOBAL ||
		    (!is_global(c, e) && (type == MMU_INVPCID_ALL || e->pcid == pcid)))
			e->valid = false;
	}
}

int cpu_enter_nested(struct cpu *c, const struct mmu_nested_regs *regs, unsigned ept)
{
	int r;

	cpu_leave(c);
	r = mmu_enter_nested(c->v, regs);
	if (r)
		return r;
	c->l1 = c->regs;
	c->regs = regs->guest;
	c->nregs = *regs;
	c->ept = ept;
	c->nested = true;
	return 0;
}

void cpu_leave_nested(struct cpu *c)
{
	cpu_leave(c);
	c->nested = false;
	mmu_leave_nested(c->v);
	cpu_set_regs(c, &c->l1);
}

void cpu_invept(struct cpu *c, uint64_t eptp, unsigned ept)
{
	cpu_leave(c);
	mmu_invept(c->v, eptp);
	for (unsigned i = 0; i < NR_TLB; i++) {
		if (c->tlb[i].space && (!eptp || c->tlb[i].space == 1 + ept))
			c->tlb[i].valid = false;
	}
	for (unsigned i = 0; i < NR_PSC; i++) {
		if (c->psc[i].space && (!eptp || c->psc[i].space == 1 + ept))
			c->psc[i].valid = false;
	}
}

/* ---- the page walker of the processor ---- */

enum { WALK_OK, WALK_MISS, WALK_RSVD };

static unsigned space_of(const struct cpu *c)
{
	return c->nested ? 1 + c->ept : 0;
}

static unsigned level_shift(unsigned level)
{
	return 12 + 9 * (level - 1);
}

/* The lowest table remembered for @addr, or NULL. */
static const struct tlb_entry *psc_find(const struct cpu *c, uint64_t addr)
{
	const struct tlb_entry *found = NULL;

	for (unsigned i = 0; i < NR_PSC; i++) {
		const struct tlb_entry *p = &c->psc[i];

		if (p->valid && p->tag == c->root.tag && p->space == space_of(c) &&
		    p->page == addr >> level_shift(p->level + 1) &&
		    (!found || p->level < found->level))
			found = p;
	}
	return found;
}

static void psc_insert(struct cpu *c, uint64_t addr, const struct tlb_entry *e, uint64_t table,
		       unsigned level)
{
	struct tlb_entry *p = &c->psc[c->next_psc++ % NR_PSC];

	*p = *e;
	p->level = level;
	p->page = addr >> level_shift(level + 1);
	p->tag = c->root.tag;
	p->space = space_of(c);
	p->hpa = table;
}

/* The last entry's place is left in *@leaf. */
static int hw_walk(struct cpu *c, uint64_t addr, struct tlb_entry *e, uint64_t **leaf)
{
	bool ept = c->root.format == MMU_FORMAT_EPT;
	const struct tlb_entry *known = psc_find(c, addr);
	uint64_t table = c->root.hpa, v;
	unsigned level = c->root.level;

	*e = (struct tlb_entry){.valid = true, .w = true, .u = true, .x = true};
	if (known) {
		*e = *known;
		table = known->hpa;
		level = known->level;
	}
	for (;; level--) {
		unsigned shift = level_shift(level);

		*leaf = (uint64_t *)table + (addr >> shift & 511);
		v = __atomic_load_n(*leaf, __ATOMIC_ACQUIRE);
		if (!(v & (ept ? 7 : 1)))
			return WALK_MISS;
		if (v & BITS(51, 48) || (ept && (v & 3) == 2))
			return WALK_RSVD;
		e->w &= v >> 1 & 1;
		e->u &= ept ? v & 1 : v >> 2 & 1;
		e->x &= ept ? v >> 2 & 1 : !(v >> 63);
		table = v & BITS(47, 12);
		if (level == 1 || v & BIT(7)) {
			if (table & (BIT(shift) - 1))
				return WALK_RSVD;
			e->hpa = (table | (addr & (BIT(shift) - 1))) & ~0xfffull;
			e->g = !ept && v >> 8 & 1;
			e->key = v >> 59 & 15;
			e->d = ept ? v >> 9 & 1 : v >> 6 & 1;
			return WALK_OK;
		}
		psc_insert(c, addr, e, table, level - 1);
	}
}

/* Under TDP the entries are of gpas. */
static unsigned tlb_pcid(const struct cpu *c)
{
	return mmu_get_policy(c->m->vm) == MMU_POLICY_SHADOW ? cpu_pcid(c) : 0;
}

static struct tlb_entry *tlb_find(struct cpu *c, uint64_t addr)
{
	for (unsigned i = 0; i < NR_TLB; i++) {
		struct tlb_entry *e = &c->tlb[i];

		if (e->valid && e->page == addr >> 12 && e->space == space_of(c) &&
		    (is_global(c, e) || (e->tag == c->root.tag && e->pcid == tlb_pcid(c))))
			return e;
	}
	return NULL;
}

static struct tlb_entry *tlb_insert(struct cpu *c, uint64_t addr, const struct tlb_entry *e)
{
	struct tlb_entry *t = &c->tlb[c->next_tlb++ % NR_TLB];

	*t = *e;
	t->page = addr >> 12;
	t->tag = c->root.tag;
	t->pcid = tlb_pcid(c);
	t->space = space_of(c);
	return t;
}

/* What the processor checks under shadow: WP and NX always, the rest as the guest has it. */
static bool shadow_allows(const struct cpu *c, const struct tlb_entry *e, unsigned access)
{
	bool pg = c->regs.cr0 >> 31 & 1, implicit = access & OACC_IMPLICIT;
	bool user = access & OACC_U && !implicit;

	if (access & OACC_X && (!e->x || (!user && e->u && pg && c->regs.cr4 & BIT(20))))
		return false;
	if (user && !e->u)
		return false;
	if (access & OACC_W && !e->w)
		return false;
	if (access & OACC_X)
		return true;
	if (!user && e->u && pg && c->regs.cr4 & BIT(21) && (implicit || !(access & OACC_AC)))
		return false;
	if (e->u && pg && c->regs.cr4 & BIT(22) && c->regs.efer & BIT(10)) {
		unsigned rights = c->regs.pkru >> (2 * e->key) & 3;

		if (rights & 1 || (rights & 2 && access & OACC_W))
			return false;
	}
	return true;
}

static bool tdp_allows(const struct tlb_entry *e, unsigned access)
{
	return access & OACC_W ? e->w : access & OACC_X ? e->x : e->u;
}

static void enter(struct cpu *c)
{
	if (__atomic_load_n(&c->in_guest, __ATOMIC_SEQ_CST)) {
		if (__atomic_load_n(&c->kicked, __ATOMIC_SEQ_CST))
			cpu_leave(c);
		return;
	}
	cpu_leave(c);
	__atomic_store_n(&c->in_guest, true, __ATOMIC_SEQ_CST);
	while (mmu_needs_load(c->v)) {
		int r = mmu_load(c->v, &c->root);

		if (r == MMU_RING_FULL && c->m->ring_full)
			c->m->ring_full(c);
		else
			assert_int_equal(r, 0);
	}
}

static uint32_t to_mmu_access(unsigned access)
{
	return (access & OACC_W ? MMU_ACC_WRITE : 0) | (access & OACC_U ? MMU_ACC_USER : 0) |
	       (access & OACC_X ? MMU_ACC_FETCH : 0) | (access & OACC_AC ? MMU_ACC_AC : 0) |
	       (access & OACC_IMPLICIT ? MMU_ACC_IMPLICIT : 0);
}

/* The processor writes through an entry whose D is clear: the modification log. */
static void log_dirty(struct cpu *c, uint64_t addr, struct tlb_entry *e, uint64_t *leaf)
{
	e->d = true;
	__atomic_fetch_or(leaf, BIT(9), __ATOMIC_SEQ_CST);
	c->pml[c->pml_n++] = addr & ~0xfffull;
	if (c->pml_n == ARRAY_SIZE(c->pml)) {
		cpu_leave(c);
		mmu_pml_write(c->v, c->pml, c->pml_n);
		c->pml_n = 0;
	}
}

/* A TLB entry that allows the access, or NULL and what the processor says in *@pf. */
static struct tlb_entry *translate(struct cpu *c, uint64_t addr, unsigned access, uint32_t *pf)
{
	bool shadow = mmu_get_policy(c->m->vm) == MMU_POLICY_SHADOW;
	struct tlb_entry fresh, *e = tlb_find(c, addr);
	uint64_t *leaf;
	int r;

	/* A fault drops the entry; and D is set by a walk. */
	if (e && (!(shadow ? shadow_allows(c, e, access) : tdp_allows(e, access)) ||
		  (access & OACC_W && c->root.pml && !e->d))) {
		e->valid = false;
		e = NULL;
	}
	if (e)
		return e;
	r = hw_walk(c, addr, &fresh, &leaf);
	if (r == WALK_OK &&
	    (shadow ? shadow_allows(c, &fresh, access) : tdp_allows(&fresh, access))) {
		if (access & OACC_W && c->root.pml && !fresh.d)
			log_dirty(c, addr, &fresh, leaf);
		return tlb_insert(c, addr, &fresh);
	}
	/* The fault drops what is remembered of tables for the address, too. */
	for (unsigned i = 0; i < NR_PSC; i++) {
		if (c->psc[i].page == addr >> level_shift(c->psc[i].level + 1))
			c->psc[i].valid = false;
	}
	*pf |= r == WALK_RSVD ? MMU_PF_RSVD | MMU_PF_PRESENT : r == WALK_OK ? MMU_PF_PRESENT : 0;
	return NULL;
}

/* L0 handles the fault. Whether the access ends by it. */
static bool handle_fault(struct cpu *c, struct mmu_fault *f, struct outcome *o)
{
	int r;

	cpu_leave(c);
	r = mmu_page_fault(c->v, f);
	o->faults++;
	switch (r) {
	case MMU_RETRY: return false;
	case MMU_INJECT:
		o->kind = OUT_FAULT;
		o->code = f->guest.error_code;
		o->cr2 = f->guest.cr2;
		return true;
	case MMU_NESTED_EXIT:
		o->kind = OUT_NESTED;
		o->code = f->guest.error_code;
		o->misconfig = f->guest.misconfig;
		o->cr2 = f->guest.cr2;
		return true;
	case MMU_MMIO:
		o->kind = OUT_MMIO;
		o->gpa = f->gpa;
		return true;
	case MMU_EMULATE: o->emulated = true; return true;
	case MMU_RING_FULL:
		if (c->m->ring_full) {
			c->m->ring_full(c);
			return false;
		}
	}
	fail_msg("page fault: result %d", r);
	return true;
}

/* One address through our tables: o->hpa, or an outcome that ends the access (true). */
static bool resolve(struct cpu *c, uint64_t addr, uint64_t la, unsigned access, uint32_t flags,
		    struct outcome *o)
{
	bool shadow = mmu_get_policy(c->m->vm) == MMU_POLICY_SHADOW, ended = false;

	o->kind = OUT_OK;
	for (unsigned tries = 0; tries < 100; tries++) {
		uint32_t pf = flags | MMU_PF_GVA_VALID;
		struct tlb_entry *e;

		enter(c);
		e = translate(c, addr, access, &pf);
		if (e) {
			o->hpa = e->hpa | (addr & 0xfff);
		} else {
			struct mmu_fault f = {.addr = addr,
					      .gva = la,
					      .access = to_mmu_access(access),
					      .flags = pf,
					      .walk_access = to_mmu_access(o->access)};

			ended = handle_fault(c, &f, o);
			if (!ended)
				continue;
		}
		if (!shadow && !o->emulated && c->m->resolved)
			c->m->resolved(c, addr, access, o);
		return ended;
	}
	fail_msg("no end of faults at %llx", (unsigned long long)addr);
	return true;
}

static void emulate(struct cpu *c, uint64_t la, unsigned access, uint64_t value, unsigned size,
		    struct outcome *o)
{
	struct mmu_walk_result w;
	int r;

	cpu_leave(c);
	r = mmu_gva_to_gpa(c->v, la, to_mmu_access(access), &w);
	assert_in_range(r, 0, 1);
	if (r) {
		o->kind = w.fault.nested ? OUT_NESTED : OUT_FAULT;
		o->code = w.fault.error_code;
		o->misconfig = w.fault.misconfig;
		o->cr2 = w.fault.cr2;
		return;
	}
	o->kind = OUT_OK;
	o->gpa = w.gpa;
	if (access & OACC_W && c->m->storing)
		c->m->storing(c->m);
	if (access & OACC_W && mmu_guest_write(c->v, w.gpa, &value, size))
		o->kind = OUT_MMIO;
	else if (!machine_ptr(c->m, w.gpa))
		o->kind = OUT_MMIO;
	o->hpa = (uint64_t)(uintptr_t)machine_ptr(c->m, w.gpa);
}

/* ---- TDP: the guest's own walk, each step through our tables ---- */

struct guest_read {
	struct cpu *c;
	uint64_t la;
	unsigned access;
	struct outcome *o;
	bool ended;
};

/* With EPT's A and D bits in use what a walk reads counts as written. */
static unsigned table_access(const struct cpu *c)
{
	bool ad = c->nested ? c->nregs.eptp & BIT(6) : c->root.pml;

	return ad ? OACC_W | OACC_TABLE_AD : 0;
}

static bool guest_read(void *priv, uint64_t gpa, unsigned size, uint64_t *value)
{
	struct guest_read *g = priv;

	if (resolve(g->c, gpa, g->la, table_access(g->c), MMU_PF_TABLE, g->o)) {
		g->ended = true;
		return false;
	}
	*value = size == 4 ? __atomic_load_n((uint32_t *)g->o->hpa, __ATOMIC_RELAXED)
			   : __atomic_load_n((uint64_t *)g->o->hpa, __ATOMIC_RELAXED);
	return true;
}

static struct oracle_regs to_oracle(const struct mmu_regs *r)
{
	struct oracle_regs o = {.cr0 = r->cr0,
				.cr3 = r->cr3,
				.cr4 = r->cr4,
				.efer = r->efer,
				.pkru = r->pkru,
				.width = r->maxphyaddr,
				.gbpages = r->gbpages};

	memcpy(o.pdptr, r->pdptr, sizeof(o.pdptr));
	return o;
}

/* A and D bits, as silicon sets them. False: the access ended. */
static bool set_ad(struct guest_read *g, const struct oracle_xlat *x)
{
	for (unsigned i = 0; i < x->n; i++) {
		const struct oracle_entry *e = &x->entry[i];
		uint64_t want =
			e->value | BIT(5) | (i == x->n - 1 && g->access & OACC_W ? BIT(6) : 0);

		if (want == e->value)
			continue;
		if (resolve(g->c, e->gpa, g->la, OACC_W | table_access(g->c), MMU_PF_TABLE, g->o))
			return false;
		store(g->c, g->o->hpa, &want, e->size);
	}
	return true;
}

static struct outcome tdp_access(struct cpu *c, uint64_t la, unsigned access, uint64_t value,
				 unsigned size)
{
	struct outcome o = {.access = access};
	struct guest_read g = {.c = c, .la = la, .access = access, .o = &o};
	struct oracle_mem mem = {.read = guest_read, .priv = &g};
	struct oracle_regs regs = to_oracle(&c->regs);
	struct oracle_xlat x;
	uint32_t code = 0;
	bool ended;

	oracle_translate(&regs, &mem, la, &x);
	ended = g.ended;
	if (!ended)
		code = oracle_judge(&regs, &x, access);
	if (code) {
		o.kind = OUT_FAULT;
		o.code = code & ~ORACLE_FAULT;
		o.cr2 = regs.efer & BIT(10) ? la : (uint32_t)la;
		return o;
	}
	if (!ended && regs.cr0 >> 31)
		ended = !set_ad(&g, &x);
	if (!ended)
		ended = resolve(c, x.frame | (la & 0xfff), la, access, 0, &o);
	/* Also when a table was tracked: the walk is the emulator's then. */
	if (ended && o.emulated)
		emulate(c, la, access, value, size, &o);
	if (!ended && access & OACC_W)
		store(c, o.hpa, &value, size);
	return o;
}

struct outcome cpu_access(struct cpu *c, uint64_t la, unsigned access, uint64_t value,
			  unsigned size)
{
	struct outcome o = {.access = access};

	if (!(c->regs.efer & BIT(10)))
		la = (uint32_t)la;
	if (mmu_get_policy(c->m->vm) == MMU_POLICY_TDP)
		return tdp_access(c, la, access, value, size);
	if (resolve(c, la, la, access, 0, &o)) {
		if (o.emulated)
			emulate(c, la, access, value, size, &o);
		return o;
	}
	if (access & OACC_W)
		store(c, o.hpa, &value, size);
	return o;
}
