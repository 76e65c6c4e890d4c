/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bitmaps that are searched through at a cost of the bits set: level n + 1 has a bit for each word
 * of level n. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "mmu/dirty_internal.h"

int ml_init(struct ml_bitmap *m, uint64_t bits)
{
	uint64_t n = bits, words = 0, chunks = BITMAP_WORDS(BITMAP_WORDS(bits));
	uint64_t *at;

	memset(m, 0, sizeof(*m));
	m->bits = bits;
	do {
		n = BITMAP_WORDS(n);
		words += n;
		m->levels++;
	} while (n > 1 && m->levels < ML_LEVELS);
	m->size = (words + BITMAP_WORDS(chunks)) * 8;
	at = mmap(NULL, m->size, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED) {
		memset(m, 0, sizeof(*m));
		return -ENOMEM;
	}
	n = bits;
	for (unsigned l = 0; l < m->levels; l++) {
		m->map[l] = at;
		n = BITMAP_WORDS(n);
		at += n;
	}
	m->lazy = at;
	return 0;
}

void ml_finish(struct ml_bitmap *m)
{
	if (m->map[0])
		munmap(m->map[0], m->size);
	memset(m, 0, sizeof(*m));
}

static uint64_t ml_level_bits(const struct ml_bitmap *m, unsigned level)
{
	uint64_t n = m->bits;

	while (level--)
		n = BITMAP_WORDS(n);
	return n;
}

/* All bits of a word that there are. */
static uint64_t ml_full(const struct ml_bitmap *m, unsigned level, uint64_t word_index)
{
	uint64_t left = ml_level_bits(m, level) - word_index * 64;

	return left >= 64 ? ~0ull : BIT(left) - 1;
}

/* ---- by many threads at once ---- */

/*
 * From the bottom up, and every level each time: a bit at the top may be set in vain, but never is
 * one missing above a set bit once its setter has returned. At the bottom always by a locked
 * access, though the bit be set: what the setter stored to the page must not be seen later than
 * that the bit was still there for whoever takes it now.
 */
bool ml_set_atomic(struct ml_bitmap *m, uint64_t bit)
{
	uint64_t mask = BIT(bit % 64);
	bool fresh = !(__atomic_fetch_or(&m->map[0][bit / 64], mask, __ATOMIC_SEQ_CST) & mask);

	for (unsigned l = 1; l < m->levels; l++) {
		uint64_t *word;

		bit /= 64;
		word = &m->map[l][bit / 64];
		mask = BIT(bit % 64);
		if (!(__atomic_load_n(word, __ATOMIC_SEQ_CST) & mask))
			__atomic_fetch_or(word, mask, __ATOMIC_SEQ_CST);
	}
	return fresh;
}

static void ml_take_level(struct ml_bitmap *m, unsigned level, uint64_t word_index, ml_taken fn,
			  void *arg)
{
	uint64_t word;

	if (!__atomic_load_n(&m->map[level][word_index], __ATOMIC_SEQ_CST))
		return;
	word = bitmap_take_word_atomic(m->map[level], word_index);
	if (level == 0) {
		fn(arg, word_index, word);
		return;
	}
	for (; word; word &= word - 1)
		ml_take_level(m, level - 1, word_index * 64 + (uint64_t)__builtin_ctzll(word), fn,
			      arg);
}

void ml_take(struct ml_bitmap *m, ml_taken fn, void *arg)
{
	uint64_t top = BITMAP_WORDS(ml_level_bits(m, m->levels - 1));

	for (uint64_t i = 0; i < top; i++)
		ml_take_level(m, m->levels - 1, i, fn, arg);
}

/* ---- with the lock held ---- */

/* A chunk is what one word of level 1 stands for: 64 words, 4096 bits. */
static bool ml_is_lazy(const struct ml_bitmap *m, uint64_t chunk)
{
	return bitmap_test(m->lazy, chunk);
}

/* Write what a lazy chunk stands for, before a part of it changes. */
static void ml_write_out(struct ml_bitmap *m, uint64_t chunk)
{
	uint64_t end = MIN((chunk + 1) * 64, BITMAP_WORDS(m->bits));

	if (!ml_is_lazy(m, chunk))
		return;
	bitmap_clear(m->lazy, chunk);
	for (uint64_t i = chunk * 64; i < end; i++)
		m->map[0][i] = ml_full(m, 0, i);
	if (m->levels > 1)
		m->map[1][chunk] = ml_full(m, 1, chunk);
}

void ml_set_all(struct ml_bitmap *m)
{
	uint64_t chunks = BITMAP_WORDS(BITMAP_WORDS(m->bits));

	for (uint64_t i = 0; i < BITMAP_WORDS(chunks); i++)
		m->lazy[i] = chunks - i * 64 >= 64 ? ~0ull : BIT(chunks - i * 64) - 1;
	for (unsigned l = 2; l < m->levels; l++) {
		for (uint64_t i = 0; i < BITMAP_WORDS(ml_level_bits(m, l)); i++)
			m->map[l][i] = ml_full(m, l, i);
	}
}

/* A word of any level. */
static uint64_t ml_level_word(const struct ml_bitmap *m, unsigned level, uint64_t i)
{
	if (level < 2 && ml_is_lazy(m, level ? i : i / 64))
		return ml_full(m, level, i);
	return m->map[level][i];
}

uint64_t ml_word(const struct ml_bitmap *m, uint64_t word_index)
{
	return ml_level_word(m, 0, word_index);
}

unsigned ml_or(struct ml_bitmap *m, uint64_t word_index, uint64_t mask)
{
	uint64_t old, bit = word_index;

	mask &= ml_full(m, 0, word_index);
	if (ml_is_lazy(m, word_index / 64))
		return 0;
	old = m->map[0][word_index];
	m->map[0][word_index] |= mask;
	for (unsigned l = 1; l < m->levels && !old && mask; l++) {
		if (bitmap_test(m->map[l], bit))
			break;
		bitmap_set(m->map[l], bit);
		bit /= 64;
	}
	return (unsigned)__builtin_popcountll(mask & ~old);
}

unsigned ml_clear(struct ml_bitmap *m, uint64_t word_index, uint64_t mask)
{
	uint64_t old, bit = word_index;

	ml_write_out(m, word_index / 64);
	old = m->map[0][word_index];
	m->map[0][word_index] &= ~mask;
	for (unsigned l = 1; l < m->levels && old && !(old & ~mask); l++) {
		bitmap_clear(m->map[l], bit);
		if (m->map[l][bit / 64])
			break;
		bit /= 64;
	}
	return (unsigned)__builtin_popcountll(mask & old);
}

uint64_t ml_next_word(const struct ml_bitmap *m, uint64_t word_index)
{
	uint64_t from = word_index; /* a bit of level @l: a word of the level below */
	unsigned l = 1;

	if (m->levels == 1)
		return from == 0 && ml_word(m, 0) ? 0 : 1;
	/* Up while the rest of the word is empty, down to the first set bit otherwise. */
	while (from < ml_level_bits(m, l)) {
		uint64_t word = ml_level_word(m, l, from / 64) >> (from % 64);

		if (word) {
			from += (uint64_t)__builtin_ctzll(word);
			if (l == 1)
				return from;
			l--;
			from *= 64;
		} else if (l + 1 < m->levels) {
			l++;
			from = from / 64 + 1;
		} else {
			from = (from | 63) + 1;
		}
	}
	return BITMAP_WORDS(m->bits);
}
