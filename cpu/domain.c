/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Code that is written: which host frames hold code, who must drop what, and when that is proved.
 */
#include <pthread.h>
#include <stdlib.h>

#include "cpu/core.h"

/*
 * A frame's mark is a bit a 64-byte line from which some processor decoded. While a frame has a
 * mark no processor keeps a write entry for it: its stores go through cpu_mem_done_slow(), which
 * stores first, then looks at the mark (with a fence between), while a decoder marks first, then
 * reads. So one of the two sees the other. What is left are the write entries that others had when
 * the first mark was made: the request to drop them carries a number, blocks decoded meanwhile are
 * "unproved" until everybody who runs has passed it, and an unproved block is compared with memory
 * at each entry.
 *
 * Frames are never forgotten before the domain ends, so they are found without a lock.
 */
#define BUCKETS (1u << 14)
#define INBOX	32u

struct code_frame {
	uint64_t pfn;
	struct code_frame *next;
	uint64_t lines; /* atomic */
	uint64_t seq;	/* of the request that its first mark made */
	uint32_t near;	/* slow writes beside the code since it was marked */
	uint32_t patience;
};

/* After so many writes beside its code a frame gives its code up; each time it takes twice as many.
 */
#define PATIENCE     64u
#define PATIENCE_MAX (1u << 20)

struct cpu_domain {
	pthread_mutex_t lock; /* marks being made and taken away, inboxes, the list */
	pthread_mutex_t split;
	struct list cpus;
	uint64_t seq; /* the last request's number */
	struct code_frame *bucket[BUCKETS];
};

/* In assembler: the race detector knows no fences. */
static void full_fence(void)
{
	__asm__ volatile("mfence" : : : "memory");
}

struct cpu_peer {
	bool running;	 /* atomic */
	uint64_t passed; /* atomic: requests up to this one are carried out */
	bool all_code, all_writes;
	unsigned codes, writes;
	uint64_t code[INBOX], write[INBOX];
};

struct cpu_domain *cpu_domain_create(void)
{
	struct cpu_domain *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	pthread_mutex_init(&d->lock, NULL);
	pthread_mutex_init(&d->split, NULL);
	list_init(&d->cpus);
	return d;
}

void cpu_domain_destroy(struct cpu_domain *d)
{
	if (!d)
		return;
	for (unsigned b = 0; b < BUCKETS; b++) {
		for (struct code_frame *f = d->bucket[b], *next; f; f = next) {
			next = f->next;
			free(f);
		}
	}
	pthread_mutex_destroy(&d->lock);
	pthread_mutex_destroy(&d->split);
	free(d);
}

void cpu_domain_split_lock(struct cpu_domain *d)
{
	pthread_mutex_lock(&d->split);
}

void cpu_domain_split_unlock(struct cpu_domain *d)
{
	pthread_mutex_unlock(&d->split);
}

/* ---- frames -----------------------------------------------------------------------------------
 */

static unsigned bucket_of(uint64_t pfn)
{
	return (unsigned)(pfn ^ pfn >> 14) & (BUCKETS - 1);
}

static struct code_frame *find_frame(const struct cpu_domain *d, uint64_t pfn)
{
	struct code_frame *f = __atomic_load_n(&d->bucket[bucket_of(pfn)], __ATOMIC_ACQUIRE);

	while (f && f->pfn != pfn)
		f = f->next;
	return f;
}

static struct code_frame *make_frame(struct cpu_domain *d, uint64_t pfn)
{
	struct code_frame **head = &d->bucket[bucket_of(pfn)], *f = find_frame(d, pfn);

	if (f)
		return f;
	f = calloc(1, sizeof(*f));
	if (!f)
		abort(); /* a few bytes: the process is lost anyway */
	f->pfn = pfn;
	f->next = *head;
	f->patience = PATIENCE;
	__atomic_store_n(head, f, __ATOMIC_RELEASE);
	return f;
}

/* The lines of a frame that bytes [hpa, hpa + len) touch; len is at least 1 and stays in the frame.
 */
static uint64_t lines_of(hpa_t hpa, uint64_t len)
{
	unsigned lo = (unsigned)(hpa >> 6 & 63), hi = (unsigned)((hpa + len - 1) >> 6 & 63);

	return BITS(hi, lo);
}

bool cpu_domain_has_code(const struct cpu_domain *d, hpa_t page)
{
	const struct code_frame *f = find_frame(d, page >> PAGE_SHIFT);

	return f && __atomic_load_n(&f->lines, __ATOMIC_SEQ_CST);
}

/* Not by entries: the head is in no struct cpu, whose alignment it would have to have. */
#define for_each_cpu(link, d)                                                                      \
	for (struct list *link = (d)->cpus.next; link != &(d)->cpus; link = link->next)

/* ---- asking others ----------------------------------------------------------------------------
 */

static void post(uint64_t *box, unsigned *n, bool *all, uint64_t pfn)
{
	if (*n < INBOX)
		box[(*n)++] = pfn;
	else
		*all = true;
}

/* All but @self; the lock is held. */
static void post_drop_code(struct cpu_domain *d, uint64_t pfn, const struct cpu *self)
{
	for_each_cpu(l, d)
	{
		struct cpu *c = list_entry(l, struct cpu, domain_link);

		if (c == self)
			continue;
		post(c->peer->code, &c->peer->codes, &c->peer->all_code, pfn);
		cpu_attend(c, CPU_ATTN_CODE);
	}
}

static void post_drop_writes(struct cpu_domain *d, uint64_t pfn, const struct cpu *self)
{
	__atomic_store_n(&d->seq, d->seq + 1, __ATOMIC_SEQ_CST);
	for_each_cpu(l, d)
	{
		struct cpu *c = list_entry(l, struct cpu, domain_link);

		if (c == self) {
			/* The caller drops its own now. Older requests still wait: then it is not
			 * past them. */
			if (!c->peer->writes && !c->peer->all_writes)
				__atomic_store_n(&c->peer->passed, d->seq, __ATOMIC_SEQ_CST);
			continue;
		}
		post(c->peer->write, &c->peer->writes, &c->peer->all_writes, pfn);
		cpu_attend(c, CPU_ATTN_CODE);
	}
}

bool cpu_domain_proved(struct cpu_domain *d, uint64_t seq)
{
	bool ret_proved = true;

	pthread_mutex_lock(&d->lock);
	for_each_cpu(l, d)
	{
		const struct cpu *c = list_entry(l, struct cpu, domain_link);

		/* One that does not run looks into its inbox before it does. */
		if (__atomic_load_n(&c->peer->running, __ATOMIC_SEQ_CST) &&
		    __atomic_load_n(&c->peer->passed, __ATOMIC_SEQ_CST) < seq)
			ret_proved = false;
	}
	pthread_mutex_unlock(&d->lock);
	return ret_proved;
}

uint64_t cpu_domain_mark(struct cpu *c, hpa_t hpa, unsigned len)
{
	struct cpu_domain *d = c->domain;
	uint64_t pfn = hpa >> PAGE_SHIFT, lines = lines_of(hpa, len), seq;
	struct code_frame *f = find_frame(d, pfn);
	bool alone;

	if (f && !(lines & ~__atomic_load_n(&f->lines, __ATOMIC_SEQ_CST))) {
		seq = __atomic_load_n(&f->seq, __ATOMIC_SEQ_CST);
		return seq && !cpu_domain_proved(d, seq) ? seq : 0;
	}
	pthread_mutex_lock(&d->lock);
	f = make_frame(d, pfn);
	alone = d->cpus.next == d->cpus.prev;
	if (!__atomic_fetch_or(&f->lines, lines, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(&f->near, 0, __ATOMIC_RELAXED);
		if (!alone) {
			post_drop_writes(d, pfn, c);
			__atomic_store_n(&f->seq, d->seq, __ATOMIC_SEQ_CST);
		}
		cpu_tlb_drop_write(c, &pfn, 1);
	}
	seq = f->seq;
	pthread_mutex_unlock(&d->lock);
	return seq && !cpu_domain_proved(d, seq) ? seq : 0;
}

/* ---- writes -----------------------------------------------------------------------------------
 */

static void drop_frame(struct cpu_domain *d, struct code_frame *f, struct cpu *self)
{
	pthread_mutex_lock(&d->lock);
	__atomic_store_n(&f->lines, 0, __ATOMIC_SEQ_CST);
	post_drop_code(d, f->pfn, self);
	pthread_mutex_unlock(&d->lock);
	if (self) {
		cpu_cache_drop(self, f->pfn);
		self->stats.smc_invalidations++;
	}
}

void cpu_code_written(struct cpu *c, hpa_t hpa, unsigned len)
{
	struct code_frame *f = find_frame(c->domain, hpa >> PAGE_SHIFT);
	uint64_t lines;

	if (!f)
		return;
	full_fence();
	lines = __atomic_load_n(&f->lines, __ATOMIC_SEQ_CST);
	if (!lines)
		return;
	if (!(lines & lines_of(hpa, len))) {
		uint32_t near = __atomic_add_fetch(&f->near, 1, __ATOMIC_RELAXED);
		uint32_t patience = __atomic_load_n(&f->patience, __ATOMIC_RELAXED);

		if (near < patience)
			return;
		if (patience < PATIENCE_MAX)
			__atomic_store_n(&f->patience, patience * 2, __ATOMIC_RELAXED);
	}
	drop_frame(c->domain, f, c);
}

/* A write that touches very many frames is cheaper by what is marked. */
static void notify_all_in(struct cpu_domain *d, hpa_t hpa, uint64_t len)
{
	for (unsigned b = 0; b < BUCKETS; b++) {
		struct code_frame *f = __atomic_load_n(&d->bucket[b], __ATOMIC_ACQUIRE);

		for (; f; f = f->next) {
			if ((f->pfn << PAGE_SHIFT) - (hpa & PAGE_MASK) < len + PAGE_SIZE &&
			    __atomic_load_n(&f->lines, __ATOMIC_SEQ_CST))
				drop_frame(d, f, NULL);
		}
	}
}

void cpu_domain_notify_write(struct cpu_domain *d, hpa_t hpa, uint64_t len)
{
	full_fence();
	if (len >= GIB(1)) {
		notify_all_in(d, hpa, len);
		return;
	}
	while (len) {
		uint64_t part = MIN(len, PAGE_SIZE - (hpa & ~PAGE_MASK));
		struct code_frame *f = find_frame(d, hpa >> PAGE_SHIFT);

		if (f && __atomic_load_n(&f->lines, __ATOMIC_SEQ_CST) & lines_of(hpa, part))
			drop_frame(d, f, NULL);
		hpa += part;
		len -= part;
	}
}

/* ---- a processor's side -----------------------------------------------------------------------
 */

int cpu_peer_init(struct cpu *c)
{
	c->peer = calloc(1, sizeof(*c->peer));
	if (!c->peer)
		return -1;
	pthread_mutex_lock(&c->domain->lock);
	list_add_tail(&c->domain->cpus, &c->domain_link);
	pthread_mutex_unlock(&c->domain->lock);
	return 0;
}

void cpu_peer_finish(struct cpu *c)
{
	if (!c->peer)
		return;
	pthread_mutex_lock(&c->domain->lock);
	list_del(&c->domain_link);
	pthread_mutex_unlock(&c->domain->lock);
	free(c->peer);
	c->peer = NULL;
}

void cpu_peer_drain(struct cpu *c)
{
	struct cpu_peer *p = c->peer;

	pthread_mutex_lock(&c->domain->lock);
	if (p->all_writes)
		cpu_tlb_drop_write_all(c);
	else if (p->writes)
		cpu_tlb_drop_write(c, p->write, p->writes);
	if (p->all_code)
		cpu_cache_drop_all(c);
	for (unsigned k = 0; k < p->codes && !p->all_code; k++)
		cpu_cache_drop(c, p->code[k]);
	p->codes = p->writes = 0;
	p->all_code = p->all_writes = false;
	__atomic_store_n(&p->passed, c->domain->seq, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&c->domain->lock);
}

void cpu_peer_enter(struct cpu *c)
{
	__atomic_store_n(&c->peer->running, true, __ATOMIC_SEQ_CST);
	cpu_peer_drain(c);
}

void cpu_peer_leave(struct cpu *c)
{
	__atomic_store_n(&c->peer->running, false, __ATOMIC_SEQ_CST);
}
