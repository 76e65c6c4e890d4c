/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cache of decoded blocks of one processor: by host address and mode, dropped by host frame. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/core.h"

#define HASH_BITS   16
#define FRAME_BITS  13
#define ARENA_BYTES MIB(64)
#define WINDOW	    512u /* bytes of code that one block may take */

struct cpu_cache {
	struct cpu_block *jump[1u << CPU_JUMP_BITS];
	struct cpu_block *hash[1u << HASH_BITS];
	struct cpu_block *frame[1u << FRAME_BITS];
	struct cpu_block *cross[1u << FRAME_BITS];
	uint8_t *arena;
	size_t used;
	struct cpu_decoder decoder;
	uint8_t window[WINDOW + 16];
	_Alignas(64) uint8_t
		scratch[sizeof(struct cpu_block) + (CPU_PARTS_MAX + 1) * sizeof(struct cpu_insn)];
};

static unsigned jump_slot(hpa_t hpa)
{
	return (unsigned)(hpa ^ hpa >> 12) & ((1u << CPU_JUMP_BITS) - 1);
}

static unsigned hash_slot(hpa_t hpa, uint32_t mode)
{
	return (unsigned)((hpa ^ hpa >> 16 ^ mode * 0x9e5u) & ((1u << HASH_BITS) - 1));
}

static unsigned frame_slot(uint64_t pfn)
{
	return (unsigned)(pfn ^ pfn >> FRAME_BITS) & ((1u << FRAME_BITS) - 1);
}

int cpu_cache_init(struct cpu *c)
{
	struct cpu_cache *k = calloc(1, sizeof(*k));

	if (!k)
		return -1;
	k->arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (k->arena == MAP_FAILED) {
		free(k);
		return -1;
	}
	c->cache = k;
	return 0;
}

void cpu_cache_finish(struct cpu *c)
{
	if (!c->cache)
		return;
	munmap(c->cache->arena, ARENA_BYTES);
	free(c->cache);
	c->cache = NULL;
}

/* ---- dropping ---------------------------------------------------------------------------------
 */

/* A dropped block that is still executing, or linked to: leave before the next instruction. */
static void op_stale(struct cpu *c, const struct cpu_insn *i)
{
	cpu_make_precise(c, i);
}

/*
 * Predecessors that are linked to it lie in the same frame, so they go with it, or their links lead
 * to op_stale. Only an instruction's first part is replaced: one that has begun ends.
 */
static void kill_block(struct cpu *c, struct cpu_block *b)
{
	struct cpu_cache *k = c->cache;
	struct cpu_block **p = &k->hash[hash_slot(b->key_hpa, b->mode)];

	while (*p && *p != b)
		p = &(*p)->hash_next;
	if (*p)
		*p = b->hash_next;
	if (k->jump[jump_slot(b->key_hpa)] == b)
		k->jump[jump_slot(b->key_hpa)] = NULL;
	for (unsigned n = 0; n < b->parts; n++) {
		if (!n || b->insn[n].off != b->insn[n - 1].off)
			b->insn[n].fn = op_stale;
	}
	b->dead = true;
	b->key_hpa = ~0ull;
	c->stats.blocks_dropped++;
}

void cpu_cache_drop(struct cpu *c, uint64_t pfn)
{
	struct cpu_cache *k = c->cache;
	struct cpu_block **p = &k->frame[frame_slot(pfn)], *b;

	while ((b = *p)) {
		if (b->dead || b->key_hpa >> PAGE_SHIFT == pfn) {
			*p = b->page_next;
			if (!b->dead)
				kill_block(c, b);
		} else {
			p = &b->page_next;
		}
	}
	p = &k->cross[frame_slot(pfn)];
	while ((b = *p)) {
		if (b->dead || b->hpa2 >> PAGE_SHIFT == pfn) {
			*p = b->cross_next;
			if (!b->dead)
				kill_block(c, b);
		} else {
			p = &b->cross_next;
		}
	}
}

void cpu_cache_drop_all(struct cpu *c)
{
	struct cpu_cache *k = c->cache;

	memset(k->jump, 0, sizeof(k->jump));
	memset(k->hash, 0, sizeof(k->hash));
	memset(k->frame, 0, sizeof(k->frame));
	memset(k->cross, 0, sizeof(k->cross));
	k->used = 0;
	c->blk = NULL;
	c->chain_from = NULL;
}

/* ---- making -----------------------------------------------------------------------------------
 */

static struct cpu_block *alloc_block(struct cpu *c, const struct cpu_decoder *d)
{
	struct cpu_cache *k = c->cache;
	size_t size = sizeof(struct cpu_block) + d->parts * sizeof(struct cpu_insn) + d->used;
	struct cpu_block *b;
	uint8_t *copy;

	size = ALIGN_UP(size, 32);
	if (k->used + size > ARENA_BYTES)
		cpu_cache_drop_all(c);
	b = (struct cpu_block *)(k->arena + k->used);
	k->used += size;
	memset(b, 0, sizeof(*b));
	memcpy(b->insn, d->insn, d->parts * sizeof(struct cpu_insn));
	copy = (uint8_t *)&b->insn[d->parts];
	memcpy(copy, d->bytes, d->used);
	b->copy = copy;
	b->n = (uint8_t)d->n;
	b->bytes = (uint16_t)d->used;
	b->parts = (uint16_t)d->parts;
	return b;
}

static bool same_bytes(const struct cpu_block *b, hpa_t hpa)
{
	uint8_t now[WINDOW + 16];
	unsigned first = b->crosses ? (unsigned)(PAGE_SIZE - (hpa & ~PAGE_MASK)) : b->bytes;

	first = MIN(first, b->bytes);
	cpu_raw_copy(now, (const void *)hpa, first);
	if (first < b->bytes)
		cpu_raw_copy(now + first, (const void *)b->hpa2, b->bytes - first);
	return !memcmp(now, b->copy, b->bytes);
}

static uint64_t mark_block(struct cpu *c, const struct cpu_block *b, hpa_t hpa)
{
	unsigned first = b->crosses ? (unsigned)(PAGE_SIZE - (hpa & ~PAGE_MASK)) : b->bytes;
	uint64_t seq, seq2 = 0;

	first = MIN(first, b->bytes);
	seq = cpu_domain_mark(c, hpa, first);
	if (first < b->bytes)
		seq2 = cpu_domain_mark(c, b->hpa2, b->bytes - first);
	return MAX(seq, seq2);
}

static void insert_block(struct cpu *c, struct cpu_block *b)
{
	struct cpu_cache *k = c->cache;
	unsigned h = hash_slot(b->key_hpa, b->mode), f = frame_slot(b->key_hpa >> PAGE_SHIFT);

	b->hash_next = k->hash[h];
	k->hash[h] = b;
	b->page_next = k->frame[f];
	k->frame[f] = b;
	if (b->crosses) {
		f = frame_slot(b->hpa2 >> PAGE_SHIFT);
		b->cross_next = k->cross[f];
		k->cross[f] = b;
	}
}

static uint64_t next_page(const struct cpu *c, uint64_t lin)
{
	return cpu_lin_wrap(c, (lin & PAGE_MASK) + PAGE_SIZE);
}

/*
 * The bytes are copied, decoded, marked as code and compared again: a store in between is seen by
 * the comparison, one after the mark by the one who stores (domain.c says how, and what "unproved"
 * is).
 */
static struct cpu_block *make_block(struct cpu *c, uint64_t lin, hpa_t hpa, bool one)
{
	struct cpu_cache *k = c->cache;
	struct cpu_decoder *d = &k->decoder;
	unsigned room = (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK));
	struct cpu_block *b;
	hpa_t hpa2;

	do {
		hpa2 = 0;
		d->c = c;
		d->bytes = k->window;
		d->len = MIN(room, WINDOW);
		d->page_off = (unsigned)(lin & ~PAGE_MASK);
		d->max = one ? 1 : CPU_BLOCK_MAX;
		cpu_raw_copy(k->window, (const void *)hpa, d->len);
		if (!cpu_decode(d)) {
			hpa2 = cpu_fetch(c, next_page(c, lin));
			cpu_raw_copy(k->window + room, (const void *)hpa2, 15);
			d->len = room + 15;
			d->max = 1;
			cpu_decode(d);
		}
		b = alloc_block(c, d);
		b->key_hpa = hpa;
		b->hpa2 = hpa2;
		b->crosses = hpa2 != 0;
		b->mode = c->mode | (one ? CPU_MODE_ONE : 0);
		b->unproved = mark_block(c, b, hpa);
	} while (!same_bytes(b, hpa));
	insert_block(c, b);
	c->stats.blocks_decoded++;
	return b;
}

/* ---- finding ----------------------------------------------------------------------------------
 */

/* Whether @b may still run: its second page is where it was, its bytes are what they were. */
static bool still_good(struct cpu *c, struct cpu_block *b, uint64_t lin, hpa_t hpa)
{
	bool proved;

	if (b->crosses && cpu_fetch(c, next_page(c, lin)) != b->hpa2)
		return false;
	if (!b->unproved)
		return true;
	proved = cpu_domain_proved(c->domain, b->unproved);
	if (!same_bytes(b, hpa))
		return false;
	if (proved)
		b->unproved = 0;
	return true;
}

static struct cpu_block *find_block(struct cpu *c, uint64_t lin, hpa_t hpa, bool one)
{
	uint32_t mode = c->mode | (one ? CPU_MODE_ONE : 0);
	struct cpu_block *b = c->cache->hash[hash_slot(hpa, mode)];

	while (b && (b->key_hpa != hpa || b->mode != mode))
		b = b->hash_next;
	if (b && !still_good(c, b, lin, hpa)) {
		kill_block(c, b);
		b = NULL;
	}
	return b ? b : make_block(c, lin, hpa, one);
}

struct cpu_block *cpu_block_get(struct cpu *c, bool one)
{
	uint64_t lin = cpu_lin_wrap(c, c->s.rip + c->lbase[X86_CS]);
	bool flat = (c->mode & CPU_MODE_FLAT) != 0;
	uint32_t limit = c->s.seg[X86_CS].limit;
	struct cpu_block *b;
	hpa_t hpa;

	if (!flat && c->s.rip > limit)
		cpu_fault_err(c, NULL, X86_VEC_GP, 0);
	hpa = cpu_fetch(c, lin);
	b = find_block(c, lin, hpa, one);
	if (!flat && c->s.rip + b->bytes - 1 > limit) {
		if (!one)
			return cpu_block_get(c, true);
		cpu_fault_err(c, NULL, X86_VEC_GP, 0);
	}
	if (!one && !b->crosses && !b->unproved)
		c->cache->jump[jump_slot(hpa)] = b;
	return b;
}

/* In the instruction TLB and the jump cache; @lin is rip in a flat mode. */
static inline struct cpu_block *quick_lookup(const struct cpu *c, uint64_t lin)
{
	uint64_t vpn = lin >> PAGE_SHIFT;
	uint64_t way = (vpn + (vpn >> CPU_TLB_BITS)) & (CPU_ITLB_ENTRIES - 1);
	const struct cpu_itlb_entry *e = &c->itlb[way];
	struct cpu_block *b;
	hpa_t hpa;

	if (unlikely((e->tag ^ ((lin & PAGE_MASK) | c->fetch_ctx)) & e->mask))
		return NULL;
	hpa = e->hpa | (lin & ~PAGE_MASK);
	b = c->cache->jump[jump_slot(hpa)];
	if (unlikely(!b) || unlikely(b->key_hpa != hpa) || unlikely(b->mode != c->mode))
		return NULL;
	return b;
}

/* Outside flat modes CS has a base and a limit. */
static __attribute__((noinline)) struct cpu_block *segment_lookup(const struct cpu *c)
{
	struct cpu_block *b = quick_lookup(c, (uint32_t)(c->s.rip + c->lbase[X86_CS]));

	return b && c->s.rip + b->bytes - 1 <= c->s.seg[X86_CS].limit ? b : NULL;
}

struct cpu_block *cpu_jump_lookup(struct cpu *c)
{
	return likely(c->mode & CPU_MODE_FLAT) ? quick_lookup(c, c->s.rip) : segment_lookup(c);
}

void cpu_jump(struct cpu *c)
{
	struct cpu_block *b;

	if (unlikely(!(c->mode & CPU_MODE_FLAT)))
		return; /* the dispatcher finds it */
	b = quick_lookup(c, c->s.rip);
	if (likely(b != NULL) && cpu_enter(c, b))
		b->insn[0].fn(c, b->insn);
}

/* ---- for cpu_emulate() ------------------------------------------------------------------------
 */

struct cpu_decoder *cpu_block_decoder(struct cpu *c)
{
	return &c->cache->decoder;
}

struct cpu_block *cpu_block_scratch(struct cpu *c, const struct cpu_decoder *d)
{
	struct cpu_block *b = (struct cpu_block *)c->cache->scratch;

	memset(b, 0, sizeof(*b));
	memcpy(b->insn, d->insn, d->parts * sizeof(struct cpu_insn));
	b->mode = c->mode | CPU_MODE_ONE;
	b->key_hpa = ~0ull;
	b->n = 1;
	b->parts = (uint16_t)d->parts;
	b->bytes = (uint16_t)d->used;
	return b;
}
