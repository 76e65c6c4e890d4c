/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The property test's form for threads, made for TSan. Four vCPUs, of three kinds of paging, walk,
 * fault and write to the same tables at once; one more thread changes slots, logs, the way of
 * noticing, mechanisms and the policy. Now and then all stand still: then the audit runs, each vCPU
 * flushes, and every access must come to what the oracle says; and a client that copied each page
 * behind each dirty_take() must have the guest's memory, byte by byte.
 */
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "mmu/mmu.h"
#include "oracle.h"

#define NR     4u
#define PAGES  64u /* the first slot: tables in 0..15, levels 1..4 in turn; the rest is data */
#define EXTRA  16u /* the second slot: comes and goes at page PAGES or MOVED */
#define MOVED  128u
#define TABLES 16u
#define NR_LA  12u
#define NR_TLB 16u
#define NR_PML 32u

struct entry {
	bool valid, w, u, x;
	uint64_t page, hpa;
};

struct vcpu {
	struct vm *vm;
	struct mmu_vcpu *v;
	struct mmu_regs regs;
	struct mmu_root root;
	unsigned id, seed;
	uint32_t in_guest, seq, flush; /* atomic */
	struct entry tlb[NR_TLB];
	pthread_mutex_t pml_lock;
	uint64_t pml[NR_PML];
	unsigned pml_n;
};

struct vm {
	struct mmu_vm *mmu;
	struct vcpu cpu[NR];
	uint8_t *ram, *extra, *copy;
	uint64_t la[NR_LA];
	/* Held for reading by a vCPU's operation: whoever changes the policy holds it. */
	pthread_rwlock_t running;
	pthread_barrier_t quiet;
	struct dirty_client *copier, *other;
	gpa_t extra_at; /* 0: not there */
	bool stop;
	unsigned rounds, operations;
	uint64_t checked, faults, told;
};

/* ---- the engine's side ---- */

/* Until a vCPU has left the guest mode that it is in. */
static void wait_for(struct vm *vm, uint64_t vcpus)
{
	for (unsigned i = 0; i < NR; i++) {
		struct vcpu *c = &vm->cpu[i];
		uint32_t seq = __atomic_load_n(&c->seq, __ATOMIC_SEQ_CST);

		while (vcpus & MMU_VCPU_BIT(i) && __atomic_load_n(&c->in_guest, __ATOMIC_SEQ_CST) &&
		       __atomic_load_n(&c->seq, __ATOMIC_SEQ_CST) == seq)
			sched_yield();
	}
}

static void op_flush(void *priv, const struct mmu_flush *f)
{
	struct vm *vm = priv;

	for (unsigned i = 0; i < NR; i++) {
		if (f->vcpus & MMU_VCPU_BIT(i))
			__atomic_store_n(&vm->cpu[i].flush, 1, __ATOMIC_SEQ_CST);
	}
	wait_for(vm, f->vcpus);
}

static void op_kick(void *priv, uint64_t vcpus)
{
}

static void op_notify(void *priv, hva_t hva, uint64_t len)
{
}

static void drain(struct vcpu *c)
{
	uint64_t gpas[NR_PML];
	unsigned n;

	pthread_mutex_lock(&c->pml_lock);
	n = c->pml_n;
	memcpy(gpas, c->pml, n * sizeof(*gpas));
	__atomic_store_n(&c->pml_n, 0, __ATOMIC_RELAXED); /* leave() looks without the lock */
	pthread_mutex_unlock(&c->pml_lock);
	mmu_pml_write(c->v, gpas, n);
}

static void op_drain(void *priv)
{
	struct vm *vm = priv;

	wait_for(vm, MMU_VCPUS_ALL);
	for (unsigned i = 0; i < NR; i++)
		drain(&vm->cpu[i]);
}

static const struct mmu_ops ops = {
	.flush_tlb = op_flush, .kick = op_kick, .notify_write = op_notify, .drain_pml = op_drain};

/* ---- a processor ---- */

/* False: nothing there, or a reserved bit (*flags). */
static bool hw_walk(struct vcpu *c, uint64_t addr, bool write, struct entry *e, uint32_t *flags)
{
	bool ept = c->root.format == MMU_FORMAT_EPT;
	uint64_t table = c->root.hpa, *at, v;

	*e = (struct entry){.valid = true, .w = true, .u = true, .x = true, .page = addr >> 12};
	for (unsigned level = c->root.level;; level--) {
		unsigned shift = 12 + 9 * (level - 1);

		at = (uint64_t *)table + (addr >> shift & 511);
		v = __atomic_load_n(at, __ATOMIC_ACQUIRE);
		if (!(v & (ept ? 7 : 1)))
			return false;
		if (v & BITS(51, 48)) {
			*flags |= MMU_PF_RSVD | MMU_PF_PRESENT;
			return false;
		}
		e->w &= v >> 1 & 1;
		e->u &= ept ? v & 1 : v >> 2 & 1;
		e->x &= ept ? v >> 2 & 1 : !(v >> 63);
		table = v & BITS(47, 12);
		if (level == 1 || v & BIT(7)) {
			e->hpa =
				(table & ~(BIT(shift) - 1)) | (addr & (BIT(shift) - 1) & ~0xfffull);
			break;
		}
	}
	if (write && e->w && c->root.pml && !(v & BIT(9))) {
		/* As silicon: D is set in the entry that was read, or the walk begins again. */
		if (!__atomic_compare_exchange_n(at, &v, v | BIT(9), false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			return hw_walk(c, addr, write, e, flags);
		pthread_mutex_lock(&c->pml_lock);
		assert_true(c->pml_n < NR_PML);
		c->pml[c->pml_n++] = addr & ~0xfffull;
		pthread_mutex_unlock(&c->pml_lock);
	}
	return true;
}

static bool allows(const struct vcpu *c, const struct entry *e, unsigned access)
{
	if (c->root.format != MMU_FORMAT_X86)
		return access & OACC_W ? e->w : access & OACC_X ? e->x : e->u;
	return !(access & OACC_W && !e->w) && !(access & OACC_U && !e->u) &&
	       !(access & OACC_X && !e->x);
}

/* Into guest mode with a root that holds, and a TLB as clean as it was asked for. */
static void enter(struct vcpu *c)
{
	for (;;) {
		while (mmu_needs_load(c->v)) {
			int r = mmu_load(c->v, &c->root);

			assert_int_equal(r, 0);
		}
		__atomic_store_n(&c->in_guest, 1, __ATOMIC_SEQ_CST);
		if (__atomic_exchange_n(&c->flush, 0, __ATOMIC_SEQ_CST))
			memset(c->tlb, 0, sizeof(c->tlb));
		if (!mmu_needs_load(c->v))
			return;
		__atomic_store_n(&c->in_guest, 0, __ATOMIC_SEQ_CST);
	}
}

static void leave(struct vcpu *c)
{
	__atomic_fetch_add(&c->seq, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->in_guest, 0, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&c->pml_n, __ATOMIC_RELAXED) > NR_PML / 2)
		drain(c);
}

enum result { DONE, FAULT, MMIO, EMULATE };

struct touch {
	uint64_t la;
	unsigned access, size;
	uint64_t value;	   /* written; or read */
	uint64_t expected; /* @compare: written only if this is there */
	bool compare;
	uint64_t hpa;
	uint32_t code;
};

static void data_access(struct touch *t)
{
	void *p = (void *)t->hpa;

	if (t->compare && t->size == 4) {
		uint32_t old = (uint32_t)t->expected;

		__atomic_compare_exchange_n((uint32_t *)p, &old, (uint32_t)t->value, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	} else if (t->compare) {
		__atomic_compare_exchange_n((uint64_t *)p, &t->expected, t->value, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	} else if (t->access & OACC_W && t->size == 4) {
		__atomic_store_n((uint32_t *)p, (uint32_t)t->value, __ATOMIC_RELAXED);
	} else if (t->access & OACC_W) {
		__atomic_store_n((uint64_t *)p, t->value, __ATOMIC_RELAXED);
	} else {
		t->value = t->size == 4 ? __atomic_load_n((uint32_t *)p, __ATOMIC_RELAXED)
					: __atomic_load_n((uint64_t *)p, __ATOMIC_RELAXED);
	}
}

static uint32_t mmu_access(unsigned access)
{
	return (access & OACC_W ? MMU_ACC_WRITE : 0) | (access & OACC_U ? MMU_ACC_USER : 0) |
	       (access & OACC_X ? MMU_ACC_FETCH : 0);
}

/* One access through our tables, at @addr: a gva, or under TDP a gpa. */
static enum result touch(struct vcpu *c, uint64_t addr, unsigned access, uint32_t flags,
			 struct touch *t)
{
	for (;;) {
		struct entry *e = &c->tlb[addr >> 12 & (NR_TLB - 1)], fresh;
		uint32_t pf = flags | MMU_PF_GVA_VALID;
		bool ok;
		int r;

		enter(c);
		ok = e->valid && e->page == addr >> 12 && allows(c, e, access) &&
		     !(access & OACC_W && c->root.pml);
		if (!ok && hw_walk(c, addr, access & OACC_W, &fresh, &pf)) {
			*e = fresh;
			ok = allows(c, e, access);
			pf |= MMU_PF_PRESENT;
		}
		if (ok) {
			t->hpa = e->hpa | (addr & 0xfff);
			data_access(t);
			leave(c);
			return DONE;
		}
		e->valid = false;
		leave(c);
		struct mmu_fault f = {.addr = addr,
				      .gva = t->la,
				      .access = mmu_access(access),
				      .flags = pf,
				      .walk_access = mmu_access(t->access)};

		r = mmu_page_fault(c->v, &f);
		__atomic_fetch_add(&c->vm->faults, 1, __ATOMIC_RELAXED);
		if (r == MMU_RETRY)
			continue;
		t->code = f.guest.error_code;
		assert_true(r == MMU_INJECT || r == MMU_MMIO || r == MMU_EMULATE);
		return r == MMU_INJECT ? FAULT : r == MMU_MMIO ? MMIO : EMULATE;
	}
}

/* ---- under TDP the processor walks the guest's tables itself ---- */

struct guest_walk {
	struct vcpu *c;
	struct touch *t;
	enum result ended;
};

static bool read_entry(void *priv, uint64_t gpa, unsigned size, uint64_t *value)
{
	struct guest_walk *g = priv;
	struct touch t = {.la = g->t->la, .access = g->t->access, .size = size};
	unsigned access = g->c->root.pml ? OACC_W : 0;

	/* Only counts as a write: the entry stays as it is. */
	t.access &= ~(unsigned)OACC_W;
	g->ended = touch(g->c, gpa, access, MMU_PF_TABLE, &t);
	g->t->code = t.code;
	*value = t.value;
	return g->ended == DONE;
}

static struct oracle_regs oracle_regs_of(const struct vcpu *c)
{
	struct oracle_regs o = {.cr0 = c->regs.cr0,
				.cr3 = c->regs.cr3,
				.cr4 = c->regs.cr4,
				.efer = c->regs.efer,
				.width = 40,
				.gbpages = true};

	memcpy(o.pdptr, c->regs.pdptr, sizeof(o.pdptr));
	return o;
}

static enum result set_bits(struct guest_walk *g, const struct oracle_xlat *x)
{
	for (unsigned i = 0; i < x->n; i++) {
		const struct oracle_entry *e = &x->entry[i];
		uint64_t bits = 0x20 | (g->t->access & OACC_W && i == x->n - 1 ? 0x40 : 0);
		struct touch t = {.la = g->t->la,
				  .access = g->t->access | OACC_W,
				  .size = e->size,
				  .value = e->value | bits,
				  .expected = e->value,
				  .compare = true};
		enum result r;

		if ((e->value & bits) == bits)
			continue;
		r = touch(g->c, e->gpa, OACC_W, MMU_PF_TABLE, &t);
		if (r != DONE)
			return r;
	}
	return DONE;
}

static enum result tdp_access(struct vcpu *c, struct touch *t)
{
	struct guest_walk g = {.c = c, .t = t};
	struct oracle_mem mem = {.read = read_entry, .priv = &g};
	struct oracle_regs regs = oracle_regs_of(c);
	struct oracle_xlat x;
	uint32_t code;

	oracle_translate(&regs, &mem, t->la, &x);
	if (g.ended != DONE)
		return g.ended;
	code = oracle_judge(&regs, &x, t->access);
	t->code = code & ~ORACLE_FAULT;
	if (code)
		return FAULT;
	g.ended = set_bits(&g, &x);
	if (g.ended != DONE)
		return g.ended;
	return touch(c, x.frame | (t->la & 0xfff), t->access, 0, t);
}

static enum result emulate(struct vcpu *c, struct touch *t)
{
	struct mmu_walk_result w;
	int r = mmu_gva_to_gpa(c->v, t->la, mmu_access(t->access), &w);

	assert_in_range(r, 0, 1);
	t->code = w.fault.error_code;
	if (r)
		return FAULT;
	if (t->access & OACC_W)
		r = mmu_guest_write(c->v, w.gpa, &t->value, t->size);
	t->hpa = slot_gpa_to_hva(c->vm->mmu, w.gpa);
	return r || !t->hpa ? MMIO : DONE;
}

static enum result vcpu_access(struct vcpu *c, struct touch *t)
{
	enum result r;

	if (!(c->regs.efer & BIT(10)))
		t->la = (uint32_t)t->la;
	r = mmu_get_policy(c->vm->mmu) == MMU_POLICY_TDP ? tdp_access(c, t)
							 : touch(c, t->la, t->access, 0, t);
	return r == EMULATE ? emulate(c, t) : r;
}

/* ---- what the vCPUs do ---- */

static uint64_t any_entry(unsigned *seed, unsigned level)
{
	static const uint64_t flags[] = {0x67, 0x67, 0x67, 0x67, 0x27, 0x07, 0x65, 0x63, 0x66};
	uint64_t e = flags[(unsigned)rand_r(seed) % ARRAY_SIZE(flags)];
	unsigned frame = (unsigned)rand_r(seed);

	if (level > 1 && rand_r(seed) % 20)
		return 0x67 | (uint64_t)(frame % (TABLES / 4) * 4 + level - 2) << 12;
	if (level > 1)
		return (e | 0x80) & ~BITS(31, 12); /* all of the first slot, and what is behind */
	return e | (uint64_t)(frame % 4 ? frame % TABLES : frame % (PAGES + EXTRA)) << 12;
}

static bool in(const uint8_t *base, unsigned pages, uint64_t hpa)
{
	return hpa - (uint64_t)(uintptr_t)base < (uint64_t)pages << 12;
}

static void random_access(struct vcpu *c)
{
	struct touch t = {.la = c->vm->la[(unsigned)rand_r(&c->seed) % NR_LA]};
	unsigned pick = (unsigned)rand_r(&c->seed);

	t.size = c->regs.cr4 & BIT(5) ? 8 : 4;
	t.access = (pick & 3 ? OACC_W : pick & 4 ? OACC_X : 0) | (pick & 8 ? OACC_U : 0);
	t.la += (uint64_t)(pick >> 4 & 1) * t.size;
	/* What a table holds at any level is as good as data. */
	t.value = any_entry(&c->seed, 1 + (pick >> 8) % 4);
	if (vcpu_access(c, &t) == DONE)
		assert_true(in(c->vm->ram, PAGES, t.hpa) || in(c->vm->extra, EXTRA, t.hpa));
}

static gpa_t root_for(struct vcpu *c)
{
	unsigned level = c->regs.efer & BIT(10) ? 4 : 2;

	return (gpa_t)((unsigned)rand_r(&c->seed) % (TABLES / 4) * 4 + level - 1) << 12;
}

static void load_cr3(struct vcpu *c)
{
	c->regs.cr3 = root_for(c);
	for (unsigned i = 0; i < 4; i++)
		c->regs.pdptr[i] = root_for(c) | 1;
	mmu_new_cr3(c->v, c->regs.cr3, c->regs.pdptr);
	memset(c->tlb, 0, sizeof(c->tlb));
}

static void one_operation(struct vcpu *c)
{
	uint64_t la = c->vm->la[(unsigned)rand_r(&c->seed) % NR_LA], value;
	gpa_t gpa;

	switch (rand_r(&c->seed) % 16) {
	case 0:
		mmu_invlpg(c->v, la);
		for (unsigned i = 0; i < NR_TLB; i++)
			c->tlb[i].valid = false;
		break;
	case 1: load_cr3(c); break;
	case 2:
	case 3:
		gpa = (gpa_t)((unsigned)rand_r(&c->seed) % TABLES) << 12 |
		      (rand_r(&c->seed) & 1) * 8;
		value = any_entry(&c->seed, 1 + (gpa >> 12) % 4);
		assert_int_equal(mmu_guest_write(c->v, gpa, &value, 8), 0);
		break;
	default: random_access(c);
	}
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *c = arg;
	struct vm *vm = c->vm;

	for (unsigned round = 0; round < vm->rounds; round++) {
		for (unsigned i = 0; i < vm->operations; i++) {
			pthread_rwlock_rdlock(&vm->running);
			one_operation(c);
			pthread_rwlock_unlock(&vm->running);
		}
		pthread_barrier_wait(&vm->quiet);
		pthread_barrier_wait(&vm->quiet);
	}
	return NULL;
}

/* ---- who meddles ---- */

/* Takes what is dirty and copies it: as migration does. */
static void copy_dirty(struct vm *vm)
{
	gfn_t gfns[32];
	ssize_t n;

	do {
		n = dirty_take(vm->copier, gfns, ARRAY_SIZE(gfns));
		assert_true(n >= 0);
		for (ssize_t i = 0; i < n; i++) {
			if (gfns[i] < PAGES)
				assert_int_equal(slot_read(vm->mmu, gfns[i] << 12,
							   vm->copy + (gfns[i] << 12), 4096),
						 0);
		}
		vm->told += (uint64_t)n;
	} while (n == ARRAY_SIZE(gfns));
}

static void clear_some(struct vm *vm, unsigned pick)
{
	uint64_t bits[1];

	assert_int_equal(dirty_get(vm->other, 0, 0, PAGES, bits), 0);
	bits[0] &= ~(uint64_t)pick * pick;
	assert_int_equal(dirty_clear(vm->other, 0, 0, PAGES, bits), 0);
}

static void change_extra(struct vm *vm, unsigned pick)
{
	struct slot_desc d = {.id = 1,
			      .gpa = PAGES << 12,
			      .size = EXTRA << 12,
			      .host = vm->extra,
			      .flags = pick & 1 ? SLOT_READONLY : 0};

	if (!vm->extra_at) {
		assert_int_equal(slot_add(vm->mmu, &d), 0);
		vm->extra_at = d.gpa;
	} else if (pick % 3 == 0) {
		vm->extra_at = vm->extra_at == d.gpa ? MOVED << 12 : d.gpa;
		assert_int_equal(slot_move(vm->mmu, 1, vm->extra_at), 0);
	} else if (pick % 3 == 1) {
		assert_int_equal(slot_set_flags(vm->mmu, 1, d.flags), 0);
	} else {
		assert_int_equal(slot_delete(vm->mmu, 1), 0);
		vm->extra_at = 0;
	}
}

/* With all vCPUs out of guest mode. */
static void change_policy(struct vm *vm, unsigned pick)
{
	pthread_rwlock_wrlock(&vm->running);
	if (pick % 3 == 0) {
		mmu_set_disable(vm->mmu, pick & 4 ? 0 : pick >> 3 & MMU_NO_ALL);
	} else {
		assert_int_equal(dirty_set_notice(vm->mmu, DIRTY_NOTICE_PROTECT), 0);
		assert_int_equal(
			mmu_set_policy(vm->mmu, pick & 1 ? MMU_POLICY_TDP : MMU_POLICY_SHADOW), 0);
	}
	/* No address of the one policy is one of the other. */
	for (unsigned i = 0; i < NR; i++)
		__atomic_store_n(&vm->cpu[i].flush, 1, __ATOMIC_SEQ_CST);
	pthread_rwlock_unlock(&vm->running);
}

static void *meddler(void *arg)
{
	struct vm *vm = arg;
	unsigned seed = 7;

	while (!__atomic_load_n(&vm->stop, __ATOMIC_ACQUIRE)) {
		unsigned pick = (unsigned)rand_r(&seed) / 32;

		switch (rand_r(&seed) % 32) {
		case 0: mmu_zap_all(vm->mmu); break;
		case 1:
		case 2: change_extra(vm, pick); break;
		case 3: change_policy(vm, pick); break;
		case 4:
			dirty_set_notice(vm->mmu,
					 pick & 1 ? DIRTY_NOTICE_PML : DIRTY_NOTICE_PROTECT);
			break;
		case 5: mmu_unprotect(vm->mmu, pick % TABLES); break;
		case 6:
			assert_int_equal(dirty_client_unwatch(vm->other, 0), 0);
			assert_int_equal(dirty_client_watch(vm->other, 0), 0);
			break;
		case 7:
		case 8:
		case 9: clear_some(vm, pick); break;
		default: copy_dirty(vm);
		}
		sched_yield();
	}
	return NULL;
}

/* ---- standing still ---- */

static bool model_read(void *priv, uint64_t gpa, unsigned size, uint64_t *value)
{
	struct vm *vm = priv;
	const uint8_t *p = NULL;

	if (gpa < PAGES << 12)
		p = vm->ram + gpa;
	else if (vm->extra_at && gpa - vm->extra_at < EXTRA << 12)
		p = vm->extra + (gpa - vm->extra_at);
	if (!p)
		return false;
	*value = 0;
	memcpy(value, p, size);
	return true;
}

static void check_access(struct vcpu *c, uint64_t la, unsigned access)
{
	struct oracle_mem mem = {.read = model_read, .priv = c->vm};
	struct oracle_regs regs = oracle_regs_of(c);
	struct touch t = {.la = la, .access = access, .size = 8};
	struct oracle_xlat x;
	enum result r;
	uint32_t want;
	uint64_t byte;

	oracle_translate(&regs, &mem, la, &x);
	want = oracle_judge(&regs, &x, access);
	r = vcpu_access(c, &t);
	c->vm->checked++;
	if (want) {
		assert_int_equal(r, FAULT);
		assert_int_equal(t.code | ORACLE_FAULT, want);
		return;
	}
	if (!model_read(c->vm, x.frame, 1, &byte)) {
		assert_int_equal(r, MMIO);
		return;
	}
	assert_int_equal(r, DONE);
	assert_int_equal(t.hpa, x.frame < PAGES << 12 ? (uint64_t)(uintptr_t)c->vm->ram + x.frame
						      : (uint64_t)(uintptr_t)c->vm->extra +
								x.frame - c->vm->extra_at);
}

static void audit(struct vm *vm)
{
	char text[256];

	op_drain(vm);
	if (mmu_audit(vm->mmu, text, sizeof(text)))
		fail_msg("audit: %s", text);
}

static void check_all(struct vm *vm)
{
	audit(vm);
	for (unsigned i = 0; i < NR; i++) {
		struct vcpu *c = &vm->cpu[i];

		mmu_flush_guest_tlb(c->v);
		memset(c->tlb, 0, sizeof(c->tlb));
		for (unsigned n = 0; n < NR_LA; n++) {
			check_access(c, vm->la[n], 0);
			check_access(c, vm->la[n], OACC_U);
			check_access(c, vm->la[n], OACC_U | OACC_X);
		}
	}
	audit(vm);
	copy_dirty(vm);
	assert_memory_equal(vm->copy, vm->ram, PAGES << 12);
}

/* The meddler ends at each stand-still, and another one begins. */
static void rounds(struct vm *vm)
{
	for (unsigned round = 0; round < vm->rounds; round++) {
		pthread_t t;

		vm->stop = false;
		assert_int_equal(pthread_create(&t, NULL, meddler, vm), 0);
		pthread_barrier_wait(&vm->quiet);
		__atomic_store_n(&vm->stop, true, __ATOMIC_RELEASE);
		pthread_join(t, NULL);
		check_all(vm);
		pthread_barrier_wait(&vm->quiet);
	}
}

/* ---- the run ---- */

static void start_vcpu(struct vm *vm, unsigned n)
{
	struct vcpu *c = &vm->cpu[n];

	c->vm = vm;
	c->id = n;
	c->seed = n + 1;
	pthread_mutex_init(&c->pml_lock, NULL);
	assert_int_equal(mmu_vcpu_create(vm->mmu, n, &c->v), 0);
	c->regs = (struct mmu_regs){.cr0 = BIT(31) | BIT(16) | 1,
				    .cr4 = n == 1 ? BIT(4) : BIT(5),
				    .efer = n == 2   ? BIT(11)
					    : n == 1 ? 0
						     : BIT(8) | BIT(10) | BIT(11),
				    .maxphyaddr = 40,
				    .gbpages = true};
	c->regs.cr3 = root_for(c);
	for (unsigned i = 0; i < 4; i++)
		c->regs.pdptr[i] = root_for(c) | 1;
	mmu_set_regs(c->v, &c->regs);
}

static void start(struct vm *vm, const struct mmu_config *config)
{
	struct slot_desc ram = {.size = PAGES << 12};
	size_t size = (2 * PAGES + EXTRA) << 12;
	unsigned seed = 3;

	vm->ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(vm->ram, MAP_FAILED);
	vm->extra = vm->ram + (PAGES << 12);
	vm->copy = vm->extra + (EXTRA << 12);
	ram.host = vm->ram;
	pthread_rwlock_init(&vm->running, NULL);
	pthread_barrier_init(&vm->quiet, NULL, NR + 1);
	assert_int_equal(mmu_vm_create(config, &ops, vm, &vm->mmu), 0);
	assert_int_equal(slot_add(vm->mmu, &ram), 0);
	for (unsigned i = 0; i < TABLES * 512; i++)
		((uint64_t *)vm->ram)[i] = any_entry(&seed, 1 + i / 512 % 4);
	memcpy(vm->copy, vm->ram, PAGES << 12);
	for (unsigned i = 0; i < NR_LA; i++)
		vm->la[i] = (uint64_t)(rand_r(&seed) & 1) << 39 | (rand_r(&seed) & 1) << 30 |
			    (rand_r(&seed) & 1) << 21 | (rand_r(&seed) & 1) << 12;
	assert_int_equal(dirty_client_create(vm->mmu, "copier", 0, &vm->copier), 0);
	assert_int_equal(dirty_client_create(vm->mmu, "other", 0, &vm->other), 0);
	assert_int_equal(dirty_client_watch(vm->copier, DIRTY_ALL_SLOTS), 0);
	assert_int_equal(dirty_client_watch(vm->other, 0), 0);
	for (unsigned n = 0; n < NR; n++)
		start_vcpu(vm, n);
}

static void run(enum mmu_policy policy, uint64_t table_bytes)
{
	struct mmu_config config = {.policy = policy, .max_table_bytes = table_bytes};
	const char *is_long = getenv("UMBRA_TEST_LONG");
	static struct vm vm;
	pthread_t t[NR];

	memset(&vm, 0, sizeof(vm));
	vm.rounds = is_long && *is_long == '1' ? 200 : 12;
	vm.operations = 1500;
	start(&vm, &config);
	for (unsigned n = 0; n < NR; n++)
		assert_int_equal(pthread_create(&t[n], NULL, vcpu_thread, &vm.cpu[n]), 0);
	rounds(&vm);
	for (unsigned n = 0; n < NR; n++)
		pthread_join(t[n], NULL);
	assert_true(vm.faults && vm.told);
	print_message("%u x %u operations of %u vCPUs, %llu faults, %llu pages told dirty, %llu "
		      "accesses checked\n",
		      vm.rounds, vm.operations, NR, (unsigned long long)vm.faults,
		      (unsigned long long)vm.told, (unsigned long long)vm.checked);
	dirty_client_destroy(vm.copier);
	dirty_client_destroy(vm.other);
	for (unsigned n = 0; n < NR; n++)
		mmu_vcpu_destroy(vm.cpu[n].v);
	mmu_vm_destroy(vm.mmu);
	pthread_barrier_destroy(&vm.quiet);
	pthread_rwlock_destroy(&vm.running);
	munmap(vm.ram, (2 * PAGES + EXTRA) << 12);
}

static void shadow(void **state)
{
	run(MMU_POLICY_SHADOW, 0);
}

static void tdp(void **state)
{
	run(MMU_POLICY_TDP, 0);
}

static void few_tables(void **state)
{
	run(MMU_POLICY_SHADOW, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(shadow), cmocka_unit_test(tdp),
					   cmocka_unit_test(few_tables)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
