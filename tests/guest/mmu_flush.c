/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One processor changes its own tables; the others are busy in address spaces of their own. */
#include "kit/kit.h"

#define PAGES	16
#define CHANGES 150

static uint64_t *space[KIT_CPUS], *table[2];
static uint64_t sum, finished;

static void change(void)
{
	uint64_t *entry = kit_entry_of(space[0], KIT_WINDOW(1), 2);

	for (uint64_t n = 0; n < CHANGES; n++) {
		*entry = (uint64_t)table[n % 2] | PT_P | PT_W;
		kit_invlpg(KIT_WINDOW(1) + n % PAGES * PAGE);
		sum += *kit_at(KIT_WINDOW(1) + n % PAGES * PAGE) += n;
	}
	__atomic_store_n(&finished, 1, __ATOMIC_SEQ_CST);
}

static void work(unsigned cpu)
{
	kit_cr3(space[cpu]);
	kit_barrier(kit_cpus());
	if (!cpu)
		change();
	for (uint64_t n = 0; !__atomic_load_n(&finished, __ATOMIC_SEQ_CST); n++)
		*kit_at(KIT_WINDOW(1) + n % PAGES * PAGE) += n;
	kit_cr3(kit_pml4);
}

int payload(const char *cmdline)
{
	for (unsigned cpu = 0; cpu < kit_cpus(); cpu++) {
		space[cpu] = kit_space();
		for (uint64_t p = 0; p < PAGES; p++)
			kit_map(space[cpu], KIT_WINDOW(1) + p * PAGE, (uint64_t)kit_page(),
				PT_P | PT_W);
	}
	for (unsigned k = 0; k < 2; k++) {
		table[k] = kit_page();
		for (uint64_t p = 0; p < PAGES; p++)
			table[k][p] = (uint64_t)kit_page() | PT_P | PT_W;
	}
	kit_on_cpus(kit_cpus(), work);
	kit_result("sum", sum);
	return 0;
}
