/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Switches between a few address spaces, as a scheduler does, and touches a little in each. */
#include "kit/kit.h"

#define SPACES	 4
#define PAGES	 8
#define SWITCHES 20000

int payload(const char *cmdline)
{
	uint64_t *space[SPACES], sum = 0;

	for (unsigned k = 0; k < SPACES; k++) {
		space[k] = kit_space();
		for (uint64_t p = 0; p < PAGES; p++)
			kit_map(space[k], KIT_WINDOW(1) + p * PAGE, (uint64_t)kit_page(),
				PT_P | PT_W);
	}
	for (uint64_t n = 0; n < SWITCHES; n++) {
		kit_cr3(space[n % SPACES]);
		sum += *kit_at(KIT_WINDOW(1) + n / SPACES % PAGES * PAGE) += n;
	}
	kit_result("sum", sum);
	return 0;
}
