/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Messages to local APICs: who is meant, and what each makes of it (SDM 3A, 11.6 to 11.12). */
#include "devices/lapic_internal.h"

#define XAPIC_BROADCAST	 0xffu
#define X2APIC_BROADCAST 0xffffffffu

static void kick(struct lapic *l)
{
	l->bus->ops->kick(l->bus->opaque, l->cpu);
}

/* Order matters: the change first, then the event, then the kick. */
void lapic_notice(struct lapic *l)
{
	__atomic_store_n(&l->event, 1, __ATOMIC_SEQ_CST);
	kick(l);
}

void lapic_accept(struct lapic *l, uint8_t vector, bool level)
{
	uint32_t bit = 1u << (vector % 32);

	if (vector < 16) {
		lapic_error(l, ESR_RECEIVE_VECTOR);
		return;
	}
	if (level)
		__atomic_fetch_or(&l->tmr[vector / 32], bit, __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(&l->tmr[vector / 32], ~bit, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&l->irr[vector / 32], bit, __ATOMIC_SEQ_CST);
	lapic_notice(l);
}

/* An error interrupt comes once a bit until ESR is written: so this ends, even for itself. */
void lapic_error(struct lapic *l, uint32_t esr_bit)
{
	if (!(__atomic_fetch_or(&l->esr_pending, esr_bit, __ATOMIC_SEQ_CST) & esr_bit))
		lapic_lvt_deliver(l, LAPIC_LVT_ERROR);
}

void lapic_lvt_deliver(struct lapic *l, enum lapic_lvt which)
{
	const struct lapic_ops *ops = l->bus->ops;
	uint32_t lvt = get32(&l->lvt[which]);
	bool lint = which == LAPIC_LVT_LINT0 || which == LAPIC_LVT_LINT1;

	if (lvt & LVT_MASKED)
		return;
	switch (lvt_mode(lvt)) {
	case MODE_FIXED: lapic_accept(l, lvt & 0xff, lint && (lvt & LVT_LEVEL)); break;
	case MODE_NMI: ops->nmi(l->bus->opaque, l->cpu); break;
	case MODE_INIT: ops->init(l->bus->opaque, l->cpu); break;
	case MODE_EXTINT: /* a level, which lapic_evaluate() looks at */ lapic_notice(l); break;
	default: /* no SMM; the rest is reserved */ break;
	}
}

void lapic_lint(struct lapic *l, unsigned pin, bool level)
{
	uint32_t bit = 1u << pin, old;

	if (level)
		old = __atomic_fetch_or(&l->lint, bit, __ATOMIC_SEQ_CST);
	else
		old = __atomic_fetch_and(&l->lint, ~bit, __ATOMIC_SEQ_CST);
	if (!!(old & bit) == level)
		return;
	if (!level) /* nobody is to be woken for what is no longer there */
		__atomic_store_n(&l->event, 1, __ATOMIC_SEQ_CST);
	else if (lapic_enabled(l))
		lapic_lvt_deliver(l, pin ? LAPIC_LVT_LINT1 : LAPIC_LVT_LINT0);
	else if (pin) /* the pins are the processor's own INTR and NMI then */
		l->bus->ops->nmi(l->bus->opaque, l->cpu);
	else
		lapic_notice(l);
}

/* A level-triggered local pin that is still high interrupts again. */
void lapic_lint_eoi(struct lapic *l, uint8_t vector)
{
	for (unsigned pin = 0; pin < 2; pin++) {
		uint32_t lvt = get32(&l->lvt[LAPIC_LVT_LINT0 + pin]);

		if ((get32(&l->lint) & 1u << pin) && (lvt & LVT_LEVEL) && (lvt & 0xff) == vector &&
		    lvt_mode(lvt) == MODE_FIXED)
			lapic_lvt_deliver(l, LAPIC_LVT_LINT0 + pin);
	}
}

void lapic_perf_interrupt(struct lapic *l)
{
	lapic_lvt_deliver(l, LAPIC_LVT_PERF);
	/* Processors mask the entry with the interrupt; the handler unmasks it. Owner's thread. */
	set32(&l->lvt[LAPIC_LVT_PERF], get32(&l->lvt[LAPIC_LVT_PERF]) | LVT_MASKED);
}

static bool matches_logical(const struct lapic *l, uint32_t dest)
{
	uint32_t ldr = get32(&l->ldr);

	if (lapic_in_x2apic(l))
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	ldr >>= 24;
	if (get32(&l->dfr) == DFR_FLAT)
		return ldr & dest & 0xff;
	return ldr >> 4 == (dest >> 4 & 0xf) && (ldr & dest & 0xf);
}

static bool matches(const struct lapic *l, const struct lapic_msg *m)
{
	if (!lapic_enabled(l))
		return false;
	if (m->broadcast)
		return true;
	return m->logical ? matches_logical(l, m->dest) : get32(&l->id) == m->dest;
}

static bool software_enabled(const struct lapic *l)
{
	return get32(&l->svr) & SVR_ENABLE;
}

/* Returns whether @l took it. */
static bool deliver_one(struct lapic *l, const struct lapic_msg *m)
{
	const struct lapic_ops *ops = l->bus->ops;
	void *opaque = l->bus->opaque;

	switch ((enum lapic_mode)m->mode) {
	case MODE_FIXED:
	case MODE_LOWEST:
		if (!software_enabled(l))
			return false;
		lapic_accept(l, m->vector, m->level);
		return true;
	case MODE_NMI: ops->nmi(opaque, l->cpu); return true;
	case MODE_INIT: ops->init(opaque, l->cpu); return true;
	case MODE_SIPI: ops->sipi(opaque, l->cpu, m->vector); return true;
	default: /* SMI: there is no SMM. ExtINT: the 8259 has its own wire to LINT0 */
		return false;
	}
}

/* The candidate with the lowest processor priority; equal ones take turns. */
static int deliver_lowest(struct lapic_bus *b, const struct lapic_msg *m)
{
	uint32_t first = __atomic_fetch_add(&b->next, 1, __ATOMIC_RELAXED) % b->count;
	struct lapic *best = NULL;

	for (unsigned i = 0; i < b->count; i++) {
		struct lapic *l = &b->lapic[(first + i) % b->count];

		if (matches(l, m) && software_enabled(l) &&
		    (!best || get32(&l->ppr) >> 4 < get32(&best->ppr) >> 4))
			best = l;
	}
	return best ? deliver_one(best, m) : 0;
}

/* To all that match but @except (NULL: none). Returns how many took it. */
static int deliver(struct lapic_bus *b, const struct lapic_msg *m, const struct lapic *except)
{
	int taken = 0;

	if (m->mode == MODE_LOWEST)
		return deliver_lowest(b, m);
	for (unsigned i = 0; i < b->count; i++) {
		struct lapic *l = &b->lapic[i];

		if (l != except && matches(l, m))
			taken += deliver_one(l, m);
	}
	return taken;
}

int lapic_bus_msi(struct lapic_bus *b, uint64_t addr, uint32_t data)
{
	struct lapic_msg m = {
		.dest = addr >> 12 & 0xff,
		.logical = addr >> 2 & 1,
		.vector = data & 0xff,
		.mode = data >> 8 & 7,
		.level = data >> 15 & 1,
	};

	m.broadcast = m.dest == XAPIC_BROADCAST;
	return deliver(b, &m, NULL);
}

void lapic_send_icr(struct lapic *l)
{
	uint32_t low = (uint32_t)l->icr, shorthand = low >> 18 & 3;
	bool x2apic = lapic_in_x2apic(l);
	struct lapic_msg m = {
		.dest = x2apic ? (uint32_t)(l->icr >> 32) : (uint32_t)(l->icr >> 56),
		.logical = low & ICR_LOGICAL,
		.vector = low & 0xff,
		.mode = low >> 8 & 7,
		/* Of IPIs only INIT knows a level, and takes it for the bus, not for TMR. */
		.level = false,
	};

	if (m.mode <= MODE_LOWEST && m.vector < 16) {
		lapic_error(l, ESR_SEND_VECTOR);
		return;
	}
	/* INIT level de-assert: a synchronization of arbitration ids long ago, nothing since. */
	if (m.mode == MODE_INIT && (low & ICR_LEVEL) && !(low & ICR_ASSERT))
		return;
	m.broadcast = shorthand >= 2 || m.dest == (x2apic ? X2APIC_BROADCAST : XAPIC_BROADCAST);
	if (shorthand == 1)
		deliver_one(l, &m);
	else
		deliver(l->bus, &m, shorthand == 3 ? l : NULL);
}
