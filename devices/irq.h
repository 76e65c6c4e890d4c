/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Interrupts as devices see them: a line that is raised and lowered, or a message. */
#ifndef UMBRA_DEVICES_IRQ_H
#define UMBRA_DEVICES_IRQ_H

#include <pthread.h>

#include "base/types.h"

/* A global system interrupt (ACPI's word) is an I/O APIC pin. ISA's IRQ 0 is GSI 2, others n. */
#define IRQ_GSI_COUNT 24

/* Where lines and messages go: our interrupt controllers, or a kernel's. */
struct irq_router_ops {
	/* Called once a change, in order, with the router's lock held. */
	void (*set_gsi)(void *opaque, unsigned gsi, bool level);
	/* Returns how many local APICs took it. No lock held. */
	int (*msi)(void *opaque, uint64_t addr, uint32_t data);
};

/* A GSI is high while at least one of the lines routed to it is. */
struct irq_router {
	const struct irq_router_ops *ops;
	void *opaque;
	pthread_mutex_t lock;
	uint16_t raised[IRQ_GSI_COUNT]; /* how many lines hold it high */
};

/* One source. Lives in its device; starts low. */
struct irq_line {
	struct irq_router *router; /* NULL: not connected */
	unsigned gsi;
	bool level; /* under the router's lock */
};

int irq_router_init(struct irq_router *r, const struct irq_router_ops *ops, void *opaque);
void irq_router_finish(struct irq_router *r);
/* @gsi < IRQ_GSI_COUNT. */
void irq_line_init(struct irq_line *line, struct irq_router *r, unsigned gsi);
/* Set the level; a no-op where it does not change. Any thread; device locks may be held. */
void irq_set(struct irq_line *line, bool level);
/* Low, then high: an edge whatever the level was. */
void irq_pulse(struct irq_line *line);
/* Returns how many local APICs took the message; 0 for an address outside 0xfeexxxxx. */
int irq_msi(struct irq_router *r, uint64_t addr, uint32_t data);

static inline void irq_raise(struct irq_line *line)
{
	irq_set(line, true);
}

static inline void irq_lower(struct irq_line *line)
{
	irq_set(line, false);
}

#endif
