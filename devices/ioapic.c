/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The I/O APIC: pins in, messages out. */
#include "devices/ioapic.h"

#include <errno.h>
#include <string.h>

#define REG_SELECT 0x00
#define REG_WINDOW 0x10
#define REG_EOI	   0x40

#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL      BIT(15)
#define RTE_MASKED     BIT(16)
#define RTE_WRITABLE   (0xff0000000001afffull)
#define RTE_VECTOR     0xffull

const struct device_state_desc ioapic_state_desc = {"ioapic", 1, sizeof(struct ioapic_state)};

/* The table's entry in the words of a message. Returns whether a local APIC took it. */
static bool send(struct ioapic *io, unsigned pin)
{
	uint64_t rte = io->s.rte[pin];
	uint64_t addr = 0xfee00000 | (rte >> 56) << 12 | (rte >> 11 & 1) << 2;
	uint32_t data = (uint32_t)(rte & 0x7ff) | (rte & RTE_LEVEL ? 0xc000 : 0);

	if (irq_msi(io->router, addr, data) <= 0)
		return false;
	io->delivered[pin]++;
	return true;
}

/* A level-triggered pin that is high, open and not in service somewhere. */
static void serve_level(struct ioapic *io, unsigned pin)
{
	uint64_t *rte = &io->s.rte[pin];

	if (!(*rte & RTE_LEVEL) || (*rte & (RTE_MASKED | RTE_REMOTE_IRR)) ||
	    !(io->s.lines & 1u << pin))
		return;
	/* Before it is sent: its EOI may come from another thread, and waits for our lock. */
	*rte |= RTE_REMOTE_IRR;
	if (!send(io, pin))
		*rte &= ~RTE_REMOTE_IRR;
}

void ioapic_set_pin(struct ioapic *io, unsigned pin, bool level)
{
	uint32_t bit = 1u << pin;
	bool rising;

	pthread_mutex_lock(&io->lock);
	rising = level && !(io->s.lines & bit);
	io->s.lines = level ? io->s.lines | bit : io->s.lines & ~bit;
	if (io->s.rte[pin] & RTE_LEVEL)
		serve_level(io, pin);
	else if (rising && !(io->s.rte[pin] & RTE_MASKED)) /* masked edges are lost */
		send(io, pin);
	pthread_mutex_unlock(&io->lock);
}

static void eoi_locked(struct ioapic *io, uint8_t vector)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		uint64_t *rte = &io->s.rte[pin];

		if ((*rte & RTE_VECTOR) != vector || !(*rte & RTE_REMOTE_IRR))
			continue;
		*rte &= ~RTE_REMOTE_IRR;
		serve_level(io, pin);
	}
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
	pthread_mutex_lock(&io->lock);
	eoi_locked(io, vector);
	pthread_mutex_unlock(&io->lock);
}

static uint32_t window_read(const struct ioapic *io)
{
	unsigned reg = io->s.select & 0xff;

	switch (reg) {
	case 0:
	case 2: /* arbitration id: follows the id */ return io->s.id;
	case 1: return IOAPIC_VERSION | (IOAPIC_PINS - 1) << 16;
	default:
		if (reg < 0x10 || reg >= 0x10 + IOAPIC_PINS * 2)
			return 0;
		return (uint32_t)(io->s.rte[(reg - 0x10) / 2] >> (reg & 1 ? 32 : 0));
	}
}

static void window_write(struct ioapic *io, uint32_t value)
{
	unsigned reg = io->s.select & 0xff, pin = (reg - 0x10) / 2;
	uint64_t rte;

	if (reg == 0) {
		io->s.id = value & 0x0f000000;
		return;
	}
	if (reg < 0x10 || pin >= IOAPIC_PINS)
		return;
	rte = io->s.rte[pin];
	if (reg & 1)
		rte = (uint32_t)rte | (uint64_t)value << 32;
	else
		rte = (rte & ~0xffffffffull) | value;
	rte = (rte & RTE_WRITABLE) | (io->s.rte[pin] & RTE_REMOTE_IRR);
	/* An edge entry has nothing in service; old kernels end a level interrupt by this. */
	if (!(rte & RTE_LEVEL))
		rte &= ~RTE_REMOTE_IRR;
	io->s.rte[pin] = rte;
	serve_level(io, pin);
}

/* Registers are 32 bits wide; narrower reads see their bytes. */
static uint64_t ioapic_read(void *dev, uint64_t offset, unsigned size)
{
	struct ioapic *io = dev;
	uint32_t value = 0;

	pthread_mutex_lock(&io->lock);
	if ((offset & ~3ull) == REG_SELECT)
		value = io->s.select;
	else if ((offset & ~3ull) == REG_WINDOW)
		value = window_read(io);
	pthread_mutex_unlock(&io->lock);
	return value >> (offset & 3) * 8;
}

static void ioapic_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct ioapic *io = dev;

	pthread_mutex_lock(&io->lock);
	if (offset == REG_SELECT)
		io->s.select = value & 0xff;
	else if (offset == REG_WINDOW && size == 4)
		window_write(io, (uint32_t)value);
	else if (offset == REG_EOI)
		eoi_locked(io, (uint8_t)value);
	pthread_mutex_unlock(&io->lock);
}

const struct bus_ops ioapic_ops = {ioapic_read, ioapic_write, 1 | 2 | 4};

void ioapic_reset(struct ioapic *io)
{
	pthread_mutex_lock(&io->lock);
	io->s = (struct ioapic_state){.lines = io->s.lines, .id = io->first_id};
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		io->s.rte[pin] = RTE_MASKED;
	pthread_mutex_unlock(&io->lock);
}

int ioapic_init(struct ioapic *io, struct irq_router *router, unsigned id)
{
	int ret;

	memset(io, 0, sizeof(*io));
	io->router = router;
	io->first_id = (id & 0xf) << 24;
	ret = -pthread_mutex_init(&io->lock, NULL);
	if (!ret)
		ioapic_reset(io);
	return ret;
}

void ioapic_finish(struct ioapic *io)
{
	pthread_mutex_destroy(&io->lock);
}

void ioapic_save(struct ioapic *io, struct ioapic_state *s)
{
	pthread_mutex_lock(&io->lock);
	*s = io->s;
	pthread_mutex_unlock(&io->lock);
}

int ioapic_load(struct ioapic *io, const struct ioapic_state *s)
{
	if (s->lines >> IOAPIC_PINS || s->select > 0xff || (s->id & ~0x0f000000u))
		return -EINVAL;
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		if (s->rte[pin] & ~(RTE_WRITABLE | RTE_REMOTE_IRR))
			return -EINVAL;
	pthread_mutex_lock(&io->lock);
	io->s = *s;
	pthread_mutex_unlock(&io->lock);
	return 0;
}
