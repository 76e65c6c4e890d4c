/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The I/O APIC (82093AA with the EOI register of version 0x20). */
#ifndef UMBRA_DEVICES_IOAPIC_H
#define UMBRA_DEVICES_IOAPIC_H

#include <pthread.h>

#include "base/types.h"
#include "devices/bus.h"
#include "devices/irq.h"
#include "devices/state.h"

#define IOAPIC_PINS    IRQ_GSI_COUNT
#define IOAPIC_VERSION 0x20

struct ioapic_state {
	uint64_t rte[IOAPIC_PINS];
	uint32_t lines; /* levels */
	uint32_t reserved;
	uint32_t select, id;
};
extern const struct device_state_desc ioapic_state_desc;

/*
 * A raised line is an asserted one: polarity is remembered and otherwise ignored, as the board's
 * lines have one meaning. What leaves is a message through @router.
 */
struct ioapic {
	pthread_mutex_t lock;
	struct ioapic_state s;
	struct irq_router *router;
	uint32_t first_id;
	uint64_t delivered[IOAPIC_PINS]; /* messages taken, for statistics */
};

extern const struct bus_ops ioapic_ops; /* 4 KiB; dev: struct ioapic */

/* @id, of which 4 bits count, is what the id register holds after a reset, as firmware sets it. */
int ioapic_init(struct ioapic *io, struct irq_router *router, unsigned id);
void ioapic_finish(struct ioapic *io);
void ioapic_reset(struct ioapic *io);
void ioapic_set_pin(struct ioapic *io, unsigned pin, bool level);
/* A local APIC's EOI broadcast: pins with this vector may deliver again. */
void ioapic_eoi(struct ioapic *io, uint8_t vector);
void ioapic_save(struct ioapic *io, struct ioapic_state *s);
int ioapic_load(struct ioapic *io, const struct ioapic_state *s);

#endif
