/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ports by table, MMIO by binary search; accesses cut to what a device takes. */
#include "devices/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int bus_init(struct bus *b)
{
	memset(b, 0, sizeof(*b));
	return -pthread_rwlock_init(&b->lock, NULL);
}

void bus_finish(struct bus *b)
{
	free(b->mmio);
	b->mmio = NULL;
	pthread_rwlock_destroy(&b->lock);
}

static int register_pio(struct bus *b, const struct bus_range *r)
{
	unsigned slot = 0;

	if (r->base >= BUS_PIO_PORTS || r->len > BUS_PIO_PORTS - r->base)
		return -EINVAL;
	for (uint64_t port = r->base; port < r->base + r->len; port++)
		if (b->port_range[port])
			return -EEXIST;
	while (slot < BUS_PIO_RANGES_MAX && b->pio[slot].len)
		slot++;
	if (slot == BUS_PIO_RANGES_MAX)
		return -ENOSPC;
	b->pio[slot] = *r;
	memset(&b->port_range[r->base], (int)slot + 1, r->len);
	return 0;
}

/* The first MMIO range that ends after @addr, or mmio_count. */
static size_t mmio_after(const struct bus *b, uint64_t addr)
{
	size_t lo = 0, hi = b->mmio_count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (b->mmio[mid].base + (b->mmio[mid].len - 1) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int register_mmio(struct bus *b, const struct bus_range *r)
{
	size_t at;

	if (r->base + (r->len - 1) < r->base)
		return -EINVAL;
	at = mmio_after(b, r->base);
	if (at < b->mmio_count && b->mmio[at].base <= r->base + (r->len - 1))
		return -EEXIST;
	if (b->mmio_count == b->mmio_cap) {
		size_t cap = b->mmio_cap ? b->mmio_cap * 2 : 8;
		struct bus_range *mmio = realloc(b->mmio, cap * sizeof(*mmio));

		if (!mmio)
			return -ENOMEM;
		b->mmio = mmio;
		b->mmio_cap = cap;
	}
	memmove(&b->mmio[at + 1], &b->mmio[at], (b->mmio_count - at) * sizeof(*b->mmio));
	b->mmio[at] = *r;
	b->mmio_count++;
	return 0;
}

int bus_register(struct bus *b, enum bus_space space, const struct bus_range *r)
{
	int ret;

	if (!r->len || !r->ops)
		return -EINVAL;
	pthread_rwlock_wrlock(&b->lock);
	ret = space == BUS_PIO ? register_pio(b, r) : register_mmio(b, r);
	pthread_rwlock_unlock(&b->lock);
	return ret;
}

static int unregister_pio(struct bus *b, uint64_t base)
{
	struct bus_range *r;

	if (base >= BUS_PIO_PORTS || !b->port_range[base])
		return -ENOENT;
	r = &b->pio[b->port_range[base] - 1];
	if (r->base != base)
		return -ENOENT;
	memset(&b->port_range[base], 0, r->len);
	memset(r, 0, sizeof(*r));
	return 0;
}

static int unregister_mmio(struct bus *b, uint64_t base)
{
	size_t at = mmio_after(b, base);

	if (at == b->mmio_count || b->mmio[at].base != base)
		return -ENOENT;
	b->mmio_count--;
	memmove(&b->mmio[at], &b->mmio[at + 1], (b->mmio_count - at) * sizeof(*b->mmio));
	return 0;
}

int bus_unregister(struct bus *b, enum bus_space space, uint64_t base)
{
	int ret;

	pthread_rwlock_wrlock(&b->lock);
	ret = space == BUS_PIO ? unregister_pio(b, base) : unregister_mmio(b, base);
	pthread_rwlock_unlock(&b->lock);
	return ret;
}

/* Whose an access is. */
enum owner {
	OWNER_FIRST, /* the first byte is somebody's */
	OWNER_LATER, /* a later byte is, the first is not */
	OWNER_NONE,
};

static enum owner find_pio(const struct bus *b, uint64_t port, unsigned size,
			   struct bus_range *ret_range)
{
	if (port >= BUS_PIO_PORTS)
		return OWNER_NONE;
	if (b->port_range[port]) {
		*ret_range = b->pio[b->port_range[port] - 1];
		return OWNER_FIRST;
	}
	for (unsigned n = 1; n < size && port + n < BUS_PIO_PORTS; n++)
		if (b->port_range[port + n])
			return OWNER_LATER;
	return OWNER_NONE;
}

static enum owner find_mmio(const struct bus *b, uint64_t addr, unsigned size,
			    struct bus_range *ret_range)
{
	size_t at = mmio_after(b, addr);

	if (at == b->mmio_count)
		return OWNER_NONE;
	if (b->mmio[at].base <= addr) {
		*ret_range = b->mmio[at];
		return OWNER_FIRST;
	}
	return b->mmio[at].base - addr < size ? OWNER_LATER : OWNER_NONE;
}

/* *ret_range is a copy, so that the lock is not held while the device works. */
static enum owner lookup(struct bus *b, enum bus_space space, uint64_t addr, unsigned size,
			 struct bus_range *ret_range)
{
	enum owner owner;

	pthread_rwlock_rdlock(&b->lock);
	owner = space == BUS_PIO ? find_pio(b, addr, size, ret_range)
				 : find_mmio(b, addr, size, ret_range);
	pthread_rwlock_unlock(&b->lock);
	return owner;
}

/* Does the whole access lie in the range, in a size that its device takes? */
static bool taken_whole(const struct bus_range *r, uint64_t addr, unsigned size)
{
	return (r->ops->sizes & size) && r->len - (addr - r->base) >= size;
}

static void count_absent(struct bus *b, unsigned size)
{
	__atomic_fetch_add(&b->absent, size, __ATOMIC_RELAXED);
}

uint64_t bus_read(struct bus *b, enum bus_space space, uint64_t addr, unsigned size)
{
	struct bus_range r;
	enum owner owner = lookup(b, space, addr, size, &r);
	uint64_t lo, hi;

	/* The first byte's owner decides, but the rest may be another's: then pieces find it. */
	if (owner == OWNER_FIRST && taken_whole(&r, addr, size) && r.ops->read)
		return r.ops->read(r.dev, addr - r.base, size) & bus_ones(size);
	if (owner == OWNER_NONE || size == 1) {
		count_absent(b, size);
		return bus_ones(size);
	}
	lo = bus_read(b, space, addr, size / 2);
	hi = bus_read(b, space, addr + size / 2, size / 2);
	return hi << (size / 2 * 8) | lo;
}

void bus_write(struct bus *b, enum bus_space space, uint64_t addr, unsigned size, uint64_t value)
{
	struct bus_range r;
	enum owner owner = lookup(b, space, addr, size, &r);
	unsigned half = size / 2;

	value &= bus_ones(size);
	if (owner == OWNER_FIRST && taken_whole(&r, addr, size) && r.ops->write) {
		r.ops->write(r.dev, addr - r.base, size, value);
		return;
	}
	if (owner == OWNER_NONE || size == 1) {
		count_absent(b, size);
		return;
	}
	bus_write(b, space, addr, half, value & bus_ones(half));
	bus_write(b, space, addr + half, half, value >> (half * 8));
}
