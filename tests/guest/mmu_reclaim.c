/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* More address spaces than there is room for the tables of. */
#include "kit/kit.h"

#define SPACES 48
#define SPREAD 12 /* last-level tables a space */
#define ROUNDS 6

int payload(const char *cmdline)
{
	uint8_t *memory = kit_pages(SPREAD);
	uint64_t *space[SPACES], sum = 0;

	for (uint64_t k = 0; k < SPACES; k++) {
		space[k] = kit_space();
		for (uint64_t p = 0; p < SPREAD; p++)
			kit_map(space[k], KIT_WINDOW(1) + (p << 21), (uint64_t)memory + p * PAGE,
				PT_P | PT_W);
	}
	for (uint64_t n = 0; n < ROUNDS * SPACES; n++) {
		kit_cr3(space[n * 7 % SPACES]);
		for (uint64_t p = 0; p < SPREAD; p++)
			sum = sum * 31 + (*kit_at(KIT_WINDOW(1) + (p << 21)) += n);
	}
	kit_result("sum", sum);
	return 0;
}
