/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tests memory by patterns, through tables that it changes all the time; prints a hash of what it wrote. */
#include "kit/kit.h"

#define PAGES  1024
#define ROUNDS 12000 /* with the argument "long" 15 times that */
#define WINDOW KIT_WINDOW(1)

int payload(const char *cmdline)
{
	uint64_t rounds = *cmdline == 'l' ? 15 * ROUNDS : ROUNDS;
	uint64_t *memory = kit_pages(PAGES), *space[2], seed = 0x9e3779b97f4a7c15, hash = 0;

	for (unsigned k = 0; k < 2; k++)
		space[k] = kit_space();
	for (uint64_t k = 0; k < PAGES * 512; k++)
		memory[k] = k;
	for (uint64_t n = 0; n < rounds; n++) {
		uint64_t *to = space[n % 2];

		for (uint64_t p = 0; p < 64; p++) {
			uint64_t page = kit_random(&seed) % PAGES;
			volatile uint64_t *at = kit_at(WINDOW + p * PAGE);

			kit_map(to, WINDOW + p * PAGE, (uint64_t)memory + page * PAGE, PT_P | PT_W);
			if (!p)
				kit_cr3(to);
			kit_invlpg(WINDOW + p * PAGE);
			for (unsigned w = 0; w < 512; w += 32)
				at[w] = at[w] * 31 + n + w;
			kit_check(at[0] == memory[page * 512], "both mappings agree");
		}
	}
	for (uint64_t k = 0; k < PAGES * 512; k++)
		hash = (hash ^ memory[k]) * 0x100000001b3;
	kit_result("hash", hash);
	return 0;
}
