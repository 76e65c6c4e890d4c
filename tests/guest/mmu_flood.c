/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A page that was a page directory is given back and filled as plain memory. */
#include "kit/kit.h"

#define ROUNDS 200

int payload(const char *cmdline)
{
	uint64_t *space = kit_space(), *slot = kit_entry_of(space, KIT_WINDOW(1), 3);
	uint64_t *dir = kit_page(), *table = kit_page(), *data = kit_page(), sum = 0;

	for (unsigned p = 0; p < 512; p++)
		table[p] = (uint64_t)data | PT_P | PT_W;
	for (uint64_t n = 0; n < ROUNDS; n++) {
		dir[n % 512] = (uint64_t)table | PT_P | PT_W;
		*slot = (uint64_t)dir | PT_P | PT_W;
		kit_cr3(space);
		sum += *kit_at(KIT_WINDOW(1) + (n % 512 << 21)) += n;
		*slot = 0;
		kit_cr3(space);
		/* Nothing leads to it any more. */
		for (uint64_t k = 0; k < 512; k++)
			((volatile uint64_t *)dir)[k] = k * n << 1;
		for (uint64_t k = 0; k < 512; k++)
			sum = sum * 31 + dir[k];
		for (uint64_t k = 0; k < 512; k++)
			((volatile uint64_t *)dir)[k] = 0;
	}
	kit_result("sum", sum);
	return 0;
}
