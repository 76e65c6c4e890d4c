/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest-physical map. */
#include "vm/memmap.h"

#include <errno.h>

int memmap_split(uint64_t total, uint64_t *below_4g, uint64_t *above_4g)
{
	if (total < MEMMAP_RAM_MIN || total > MEMMAP_RAM_MAX || total & ~PAGE_MASK)
		return -EINVAL;
	*below_4g = MIN(total, MEMMAP_HOLE_START);
	*above_4g = total - *below_4g;
	return 0;
}

unsigned memmap_e820(uint64_t below_4g, uint64_t above_4g,
		     struct memmap_entry out[MEMMAP_ENTRIES_MAX])
{
	unsigned n = 0;

	out[n++] = (struct memmap_entry){0, MEMMAP_LOW_END, MEMMAP_RAM};
	out[n++] = (struct memmap_entry){MEMMAP_LOW_END, 0xa0000 - MEMMAP_LOW_END, MEMMAP_RESERVED};
	out[n++] = (struct memmap_entry){MEMMAP_ROM_START, MEMMAP_HIMEM - MEMMAP_ROM_START,
					 MEMMAP_RESERVED};
	if (below_4g > MEMMAP_HIMEM)
		out[n++] = (struct memmap_entry){MEMMAP_HIMEM, below_4g - MEMMAP_HIMEM, MEMMAP_RAM};
	if (above_4g)
		out[n++] = (struct memmap_entry){MEMMAP_HIGH_START, above_4g, MEMMAP_RAM};
	return n;
}
