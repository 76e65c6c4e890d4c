/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All processors touch fresh memory at once, each its own part. */
#include "kit/kit.h"

#define PAGES 4096 /* a processor */

static uint8_t *memory;
static uint64_t sums[KIT_CPUS];

static void touch(unsigned cpu)
{
	kit_barrier(kit_cpus());
	/* Neighbours belong to different processors, so that their faults meet in the same tables.
	 */
	for (uint64_t p = 0; p < PAGES; p++) {
		uint64_t at = (uint64_t)memory + (p * kit_cpus() + cpu) * PAGE;

		*kit_at(at) = p * 3 + cpu;
		sums[cpu] = sums[cpu] * 31 + *kit_at(at);
	}
}

int payload(const char *cmdline)
{
	uint64_t sum = 0;

	memory = kit_pages(PAGES * kit_cpus());
	kit_on_cpus(kit_cpus(), touch);
	for (unsigned cpu = 0; cpu < kit_cpus(); cpu++)
		sum += sums[cpu];
	kit_result("sum", sum);
	return 0;
}
