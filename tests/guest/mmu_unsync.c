/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rewrites most of a last-level table, flushes, uses it; again and again, as fork and exec do. */
#include "kit/kit.h"

#define ENTRIES 384
#define ROUNDS	150

int payload(const char *cmdline)
{
	uint8_t *memory = kit_pages(2 * ENTRIES);
	uint64_t *space = kit_space(), *table, sum = 0;

	for (uint64_t p = 0; p < 2 * ENTRIES; p++)
		*kit_at((uint64_t)memory + p * PAGE) = p;
	table = (uint64_t *)((uint64_t)kit_entry_of(space, KIT_WINDOW(1), 1) & PT_FRAME);
	kit_entry_of(space, KIT_WINDOW(1), 1);
	kit_cr3(space);
	for (uint64_t n = 0; n < ROUNDS; n++) {
		for (uint64_t p = 0; p < ENTRIES; p++)
			table[p] = ((uint64_t)memory + (p + n % ENTRIES) * PAGE) | PT_P | PT_W;
		kit_cr3(space);
		for (uint64_t p = 0; p < ENTRIES; p += 16)
			sum = sum * 31 + *kit_at(KIT_WINDOW(1) + p * PAGE);
	}
	kit_result("sum", sum);
	return 0;
}
