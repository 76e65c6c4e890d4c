/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks through much memory before, amid and after a migration's logging. */
#include "kit/kit.h"

#define PAGES (48u << 8) /* 48 MiB */
#define STEPS 200000

static uint64_t walk(uint8_t *memory, uint64_t steps, bool write)
{
	uint64_t seed = 0x9e3779b97f4a7c15, sum = 0;

	for (uint64_t n = 0; n < steps; n++) {
		volatile uint64_t *at = kit_at((uint64_t)memory + kit_random(&seed) % PAGES * PAGE);

		sum = sum * 31 + *at;
		if (write)
			*at = sum + n;
	}
	return sum;
}

int payload(const char *cmdline)
{
	uint8_t *memory = (uint8_t *)(((uint64_t)kit_pages(PAGES + 512) + 0x1fffff) & ~0x1fffffull);
	uint64_t sum = 0;

	for (uint64_t p = 0; p < PAGES; p++)
		*kit_at((uint64_t)memory + p * PAGE) = p;
	sum += walk(memory, STEPS, true);
	kit_device(KIT_LOG_START, 0);
	for (unsigned round = 0; round < 4; round++) {
		sum += walk(memory, STEPS / 40, true);
		kit_device(KIT_LOG_TAKE, 0);
	}
	kit_device(KIT_LOG_STOP, 0);
	for (unsigned round = 0; round < 4; round++)
		sum += walk(memory, STEPS, true);
	kit_result("sum", sum);
	return 0;
}
