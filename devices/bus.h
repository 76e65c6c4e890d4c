/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ports and MMIO: which device answers an access. */
#ifndef UMBRA_DEVICES_BUS_H
#define UMBRA_DEVICES_BUS_H

#include <pthread.h>

#include "base/types.h"

/*
 * How a device is reached. Offsets count from the range's base. Handlers may run on any vCPU's
 * thread and several at once: a device locks for itself. Both slots may be NULL: reads then give
 * all ones and writes are dropped, as where nobody is.
 *
 * @sizes is the sum of the access sizes (1, 2, 4, 8) that the handlers take. Any other access is
 * split in halves, low half first, until the pieces are taken; a single byte that is not taken
 * counts as absent. Handlers may see unaligned offsets, but never run past the range.
 */
struct bus_ops {
	uint64_t (*read)(void *dev, uint64_t offset, unsigned size);
	void (*write)(void *dev, uint64_t offset, unsigned size, uint64_t value);
	uint8_t sizes;
};

enum bus_space { BUS_PIO, BUS_MMIO };

struct bus_range {
	uint64_t base, len;
	const struct bus_ops *ops;
	void *dev;
};

#define BUS_PIO_RANGES_MAX 255
#define BUS_PIO_PORTS	   0x10000

/* Private. @lock covers the tables for the time of a look-up only, never while a handler runs. */
struct bus {
	pthread_rwlock_t lock;
	uint8_t port_range[BUS_PIO_PORTS]; /* index + 1 into @pio; 0: nobody */
	struct bus_range pio[BUS_PIO_RANGES_MAX];
	struct bus_range *mmio; /* sorted by base */
	size_t mmio_count, mmio_cap;
	uint64_t absent; /* bytes that nobody answered; atomic */
};

int bus_init(struct bus *b);
void bus_finish(struct bus *b);
/*
 * Adds a range; @ops and @dev are borrowed until it is taken away. 0, -EINVAL (empty, or past the
 * end of the space), -EEXIST (overlaps another) or -ENOMEM/-ENOSPC. Handlers may call both.
 */
int bus_register(struct bus *b, enum bus_space space, const struct bus_range *r);
/*
 * Takes away the range that starts at @base; -ENOENT when there is none. A handler that another
 * thread already entered may still be running on return: @dev must outlive the vCPUs' accesses.
 */
int bus_unregister(struct bus *b, enum bus_space space, uint64_t base);
/*
 * One access of @size 1, 2, 4 or 8 bytes, in the low bits of the value; upper bits read as zero.
 * Absent bytes read as ones. Ports do not wrap at 0xffff: those past it are absent.
 */
uint64_t bus_read(struct bus *b, enum bus_space space, uint64_t addr, unsigned size);
void bus_write(struct bus *b, enum bus_space space, uint64_t addr, unsigned size, uint64_t value);

/* All ones in @size bytes. */
static inline uint64_t bus_ones(unsigned size)
{
	return size >= 8 ? ~0ull : BIT(size * 8) - 1;
}

#endif
