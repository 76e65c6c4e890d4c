/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lines joined into GSIs by counting who holds each one high. */
#include "devices/irq.h"

#include <errno.h>
#include <string.h>

int irq_router_init(struct irq_router *r, const struct irq_router_ops *ops, void *opaque)
{
	memset(r, 0, sizeof(*r));
	r->ops = ops;
	r->opaque = opaque;
	return -pthread_mutex_init(&r->lock, NULL);
}

void irq_router_finish(struct irq_router *r)
{
	pthread_mutex_destroy(&r->lock);
}

void irq_line_init(struct irq_line *line, struct irq_router *r, unsigned gsi)
{
	assert(gsi < IRQ_GSI_COUNT);
	*line = (struct irq_line){.router = r, .gsi = gsi};
}

static void set_locked(struct irq_line *line, bool level)
{
	struct irq_router *r = line->router;
	uint16_t *raised = &r->raised[line->gsi];

	if (line->level == level)
		return;
	line->level = level;
	if (level ? (*raised)++ == 0 : --*raised == 0)
		r->ops->set_gsi(r->opaque, line->gsi, level);
}

void irq_set(struct irq_line *line, bool level)
{
	if (!line->router)
		return;
	pthread_mutex_lock(&line->router->lock);
	set_locked(line, level);
	pthread_mutex_unlock(&line->router->lock);
}

void irq_pulse(struct irq_line *line)
{
	if (!line->router)
		return;
	pthread_mutex_lock(&line->router->lock);
	set_locked(line, false);
	set_locked(line, true);
	pthread_mutex_unlock(&line->router->lock);
}

int irq_msi(struct irq_router *r, uint64_t addr, uint32_t data)
{
	if (addr >> 20 != 0xfee)
		return 0;
	return r->ops->msi(r->opaque, addr, data);
}
