/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Touches pages in a row that nothing maps yet: by tables of their own each time, and fresh memory.
 */
#include "kit/kit.h"

#define SPACES 24
#define PAGES  1024

int payload(const char *cmdline)
{
	uint8_t *memory = kit_pages(PAGES), *fresh = kit_pages(8 * PAGES);
	uint64_t sum = 0;

	for (uint64_t k = 0; k < SPACES; k++) {
		uint64_t *space = kit_space();

		for (uint64_t p = 0; p < PAGES; p++)
			kit_map(space, KIT_WINDOW(1) + p * PAGE, (uint64_t)memory + p * PAGE,
				PT_P | PT_W | PT_A | PT_D);
		kit_cr3(space);
		for (uint64_t p = 0; p < PAGES; p++)
			sum += *kit_at(KIT_WINDOW(1) + p * PAGE) += p + k;
		kit_cr3(kit_pml4);
	}
	for (uint64_t p = 0; p < 8 * PAGES; p++)
		*kit_at((uint64_t)fresh + p * PAGE) = sum += p;
	kit_result("sum", sum);
	return 0;
}
