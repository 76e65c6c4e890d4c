/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bitmaps of 64-bit words, bit n in word n / 64; the atomic form may race with other atomic
 * accesses. */
#ifndef UMBRA_BASE_BITMAP_H
#define UMBRA_BASE_BITMAP_H

#include "base/types.h"

#define BITMAP_WORDS(bits) (((bits) + 63) / 64)

static inline bool bitmap_test(const uint64_t *map, uint64_t bit)
{
	return map[bit / 64] >> (bit % 64) & 1;
}

static inline void bitmap_set(uint64_t *map, uint64_t bit)
{
	map[bit / 64] |= BIT(bit % 64);
}

static inline void bitmap_clear(uint64_t *map, uint64_t bit)
{
	map[bit / 64] &= ~BIT(bit % 64);
}

/* Takes a whole word's bits and leaves zero. */
static inline uint64_t bitmap_take_word_atomic(uint64_t *map, uint64_t word)
{
	return __atomic_exchange_n(&map[word], 0, __ATOMIC_SEQ_CST);
}

/* The first set bit at or after @from, or @bits when there is none. */
static inline uint64_t bitmap_next(const uint64_t *map, uint64_t bits, uint64_t from)
{
	while (from < bits) {
		uint64_t word = map[from / 64] >> (from % 64);

		if (word) {
			from += (uint64_t)__builtin_ctzll(word);
			return from < bits ? from : bits;
		}
		from = (from | 63) + 1;
	}
	return bits;
}

#define bitmap_for_each(bit, map, bits)                                                            \
	for (bit = bitmap_next(map, bits, 0); bit < (bits); bit = bitmap_next(map, bits, bit + 1))

#endif
