/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The local APIC's registers, priorities and state (SDM 3A, chapter 11). */
#include "devices/lapic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/lapic_internal.h"

/* Integrated APIC, version 0x14, six LVT entries, no suppression of EOI broadcasts. */
#define VERSION (0x14u | (LAPIC_LVT_COUNT - 1) << 16)

#define SVR_BITS    LAPIC_SVR_BITS
#define DIVIDE_BITS 0xbu
/* Bit 12 (delivery status) of ICR reads as idle and ignores writes. */
#define ICR_BITS (LAPIC_ICR_BITS | ICR_PENDING)

const struct device_state_desc lapic_state_desc = {"lapic", 1, sizeof(struct lapic_state)};

/* Bits of an LVT entry that a guest may write as read, to no effect. */
#define LVT_READ_ONLY 0x5000u

int lapic_highest(const uint32_t *bits)
{
	for (int i = 7; i >= 0; i--) {
		uint32_t word = get32(&bits[i]);

		if (word)
			return i * 32 + 31 - __builtin_clz(word);
	}
	return -1;
}

static uint32_t x2apic_ldr(unsigned id)
{
	return id >> 4 << 16 | 1u << (id & 15);
}

/* The processor priority: the task's, or that of what is in service. */
static uint32_t work_out_ppr(const struct lapic *l)
{
	int isr = lapic_highest(l->isr);
	uint32_t service = isr < 0 ? 0 : (uint32_t)isr & 0xf0;

	return (l->tpr & 0xf0) >= service ? l->tpr : service;
}

static bool extint_pending(const struct lapic *l)
{
	uint32_t lvt = get32(&l->lvt[LAPIC_LVT_LINT0]);

	if (!(get32(&l->lint) & 1))
		return false;
	/* With the APIC off the pin is INTR, which the board brings to the bootstrap processor. */
	if (!lapic_enabled(l))
		return l->base & LAPIC_BASE_BSP;
	return !(lvt & LVT_MASKED) && lvt_mode(lvt) == MODE_EXTINT;
}

int lapic_evaluate(struct lapic *l)
{
	int irr;

	/* First the flag: whatever changes after the look sets it again. */
	__atomic_exchange_n(&l->event, 0, __ATOMIC_SEQ_CST);
	set32(&l->ppr, work_out_ppr(l));
	l->deliverable = -1;
	if (extint_pending(l)) {
		l->deliverable = LAPIC_EXTINT;
	} else if (lapic_enabled(l)) {
		irr = lapic_highest(l->irr);
		if (irr >= 0 && ((uint32_t)irr & 0xf0) > (get32(&l->ppr) & 0xf0))
			l->deliverable = irr;
	}
	return l->deliverable;
}

/* The owner changed its priority or its gates: does something come through now? */
static void reconsider(struct lapic *l)
{
	if (lapic_evaluate(l) >= 0)
		lapic_notice(l);
}

int lapic_ack(struct lapic *l)
{
	int vector = lapic_pending(l);
	uint32_t bit = 1u << (vector & 31);

	if (vector < 0)
		return -1;
	if (vector == LAPIC_EXTINT) {
		vector = l->bus->ops->extint_ack(l->bus->opaque);
	} else {
		__atomic_fetch_and(&l->irr[vector / 32], ~bit, __ATOMIC_SEQ_CST);
		set32(&l->isr[vector / 32], l->isr[vector / 32] | bit);
	}
	lapic_evaluate(l);
	return vector;
}

static void end_of_interrupt(struct lapic *l)
{
	int vector = lapic_highest(l->isr);
	uint32_t bit = 1u << (vector & 31);

	if (vector < 0)
		return;
	set32(&l->isr[vector / 32], l->isr[vector / 32] & ~bit);
	if (get32(&l->tmr[vector / 32]) & bit) {
		lapic_lint_eoi(l, (uint8_t)vector);
		l->bus->ops->eoi(l->bus->opaque, (uint8_t)vector);
	}
	reconsider(l);
}

static void set_lvt(struct lapic *l, unsigned which, uint32_t value)
{
	value &= lapic_lvt_bits(which);
	if (!(get32(&l->svr) & SVR_ENABLE))
		value |= LVT_MASKED;
	if (which == LAPIC_LVT_TIMER)
		lapic_timer_set_lvt(l, value);
	else
		set32(&l->lvt[which], value);
	if (which == LAPIC_LVT_LINT0)
		reconsider(l);
}

static void set_svr(struct lapic *l, uint32_t value)
{
	set32(&l->svr, value & SVR_BITS);
	if (value & SVR_ENABLE)
		return;
	for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
		set_lvt(l, i, get32(&l->lvt[i]));
}

/* Returns false where there is no such register to read in this mode. */
static bool reg_read(struct lapic *l, unsigned reg, uint64_t *value)
{
	bool x2apic = lapic_in_x2apic(l);

	switch (reg) {
	case REG_ID: *value = x2apic ? l->id : l->id << 24; return true;
	case REG_VERSION: *value = VERSION; return true;
	case REG_TPR: *value = l->tpr; return true;
	case REG_APR:
	case REG_RRR: *value = 0; return !x2apic;
	case REG_PPR: *value = work_out_ppr(l); return true;
	case REG_LDR: *value = l->ldr; return true;
	case REG_DFR: *value = l->dfr; return !x2apic;
	case REG_SVR: *value = l->svr; return true;
	case REG_ISR ... REG_ISR + 7: *value = l->isr[reg - REG_ISR]; return true;
	case REG_TMR ... REG_TMR + 7: *value = get32(&l->tmr[reg - REG_TMR]); return true;
	case REG_IRR ... REG_IRR + 7: *value = get32(&l->irr[reg - REG_IRR]); return true;
	case REG_ESR: *value = l->esr; return true;
	case REG_ICR: *value = x2apic ? l->icr : (uint32_t)l->icr; return true;
	case REG_ICR_HIGH: *value = l->icr >> 32; return !x2apic;
	case REG_LVT ... REG_LVT + LAPIC_LVT_COUNT - 1:
		*value = get32(&l->lvt[reg - REG_LVT]);
		return true;
	case REG_INITIAL_COUNT: *value = l->initial_count; return true;
	case REG_CURRENT_COUNT: *value = lapic_timer_current(l); return true;
	case REG_DIVIDE: *value = l->divide; return true;
	default: return false;
	}
}

/* The registers that both modes write alike. Returns false where there is none. */
static bool reg_write(struct lapic *l, unsigned reg, uint32_t value)
{
	switch (reg) {
	case REG_TPR:
		l->tpr = value & 0xff;
		reconsider(l);
		return true;
	case REG_EOI: end_of_interrupt(l); return true;
	case REG_SVR: set_svr(l, value); return true;
	case REG_ESR:
		l->esr = __atomic_exchange_n(&l->esr_pending, 0, __ATOMIC_SEQ_CST);
		return true;
	case REG_LVT ... REG_LVT + LAPIC_LVT_COUNT - 1:
		set_lvt(l, reg - REG_LVT, value);
		return true;
	case REG_INITIAL_COUNT: lapic_timer_set_initial(l, value); return true;
	case REG_DIVIDE: lapic_timer_set_divide(l, value & DIVIDE_BITS); return true;
	default: return false;
	}
}

static bool xapic_write(struct lapic *l, unsigned reg, uint32_t value)
{
	switch (reg) {
	case REG_ID: set32(&l->id, value >> 24); return true;
	case REG_LDR: set32(&l->ldr, value & 0xff000000); return true;
	case REG_DFR: set32(&l->dfr, value | 0x0fffffff); return true;
	case REG_ICR:
		l->icr = (l->icr & ~0xffffffffull) | (value & ICR_BITS & ~ICR_PENDING);
		lapic_send_icr(l);
		return true;
	case REG_ICR_HIGH:
		l->icr = (uint32_t)l->icr | (uint64_t)(value & 0xff000000) << 32;
		return true;
	case REG_SELF_IPI: return false;
	default: return reg_write(l, reg, value);
	}
}

/* Each register is 4 bytes at a multiple of 16; anything else of the page is undefined. */
uint64_t lapic_mmio_read(struct lapic *l, gpa_t gpa, unsigned size)
{
	unsigned offset = gpa & 0xf;
	uint64_t value = 0;

	if (offset + MIN(size, 4u) > 4)
		return 0;
	if (!reg_read(l, (gpa & 0xfff) >> 4, &value))
		lapic_error(l, ESR_REGISTER);
	return value >> (offset * 8) & (size >= 8 ? ~0ull : BIT(size * 8) - 1);
}

void lapic_mmio_write(struct lapic *l, gpa_t gpa, unsigned size, uint64_t value)
{
	if ((gpa & 0xf) || size < 4)
		return;
	if (!xapic_write(l, (gpa & 0xfff) >> 4, (uint32_t)value))
		lapic_error(l, ESR_REGISTER);
}

/* Bits of an x2APIC register that may be written without #GP. */
static uint64_t x2apic_bits(unsigned reg)
{
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI: return 0xff;
	case REG_SVR: return SVR_BITS;
	case REG_EOI:
	case REG_ESR: return 0;
	case REG_ICR: return 0xffffffff00000000 | ICR_BITS;
	case REG_LVT ... REG_LVT + LAPIC_LVT_COUNT - 1:
		return lapic_lvt_bits(reg - REG_LVT) | LVT_READ_ONLY;
	case REG_DIVIDE: return DIVIDE_BITS;
	default: return 0xffffffff;
	}
}

static int x2apic_write(struct lapic *l, unsigned reg, uint64_t value)
{
	if (value & ~x2apic_bits(reg))
		return 1;
	switch (reg) {
	case REG_ICR:
		l->icr = value & ~(uint64_t)ICR_PENDING;
		lapic_send_icr(l);
		return 0;
	case REG_SELF_IPI:
		if (value < 16)
			lapic_error(l, ESR_SEND_VECTOR);
		else if (l->svr & SVR_ENABLE)
			lapic_accept(l, (uint8_t)value, false);
		return 0;
	default: return !reg_write(l, reg, (uint32_t)value);
	}
}

/* What an APIC has after a reset or having been off; the id, the base and the pins stay. */
static void reset_registers(struct lapic *l)
{
	bool x2apic = lapic_in_x2apic(l);

	set32(&l->ldr, x2apic ? x2apic_ldr(l->cpu) : 0);
	set32(&l->dfr, DFR_FLAT);
	set32(&l->svr, 0xff);
	l->tpr = 0;
	l->icr = 0;
	l->esr = 0;
	set32(&l->esr_pending, 0);
	for (unsigned i = 0; i < 8; i++) {
		set32(&l->irr[i], 0);
		set32(&l->isr[i], 0);
		set32(&l->tmr[i], 0);
	}
	for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
		set32(&l->lvt[i], LVT_MASKED);
	lapic_timer_stop(l);
}

void lapic_reset(struct lapic *l, enum lapic_reset kind)
{
	if (kind == LAPIC_RESET_POWER_ON) {
		__atomic_store_n(&l->base,
				 LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE |
					 (l->cpu ? 0 : LAPIC_BASE_BSP),
				 __ATOMIC_RELAXED);
		set32(&l->id, l->cpu);
	}
	reset_registers(l);
	if (kind == LAPIC_RESET_POWER_ON && !l->cpu)
		set32(&l->lvt[LAPIC_LVT_LINT0], MODE_EXTINT << 8);
	reconsider(l);
}

static uint64_t base_bits(const struct lapic *l)
{
	uint64_t bits = BITS(l->bus->phys_bits - 1, 12) | LAPIC_BASE_BSP | LAPIC_BASE_ENABLE;

	return l->bus->x2apic ? bits | LAPIC_BASE_X2APIC : bits;
}

static bool base_valid(const struct lapic *l, uint64_t base)
{
	return !(base & ~base_bits(l)) &&
	       (base & (LAPIC_BASE_X2APIC | LAPIC_BASE_ENABLE)) != LAPIC_BASE_X2APIC;
}

/* SDM 3A, 11.12.5: x2APIC is entered from xAPIC and left by switching off. */
static int set_base(struct lapic *l, uint64_t base)
{
	const uint64_t mode_bits = LAPIC_BASE_X2APIC | LAPIC_BASE_ENABLE;
	uint64_t from = l->base & mode_bits, to = base & mode_bits;

	if (!base_valid(l, base) || (from == 0 && to == mode_bits) ||
	    (from == mode_bits && to == LAPIC_BASE_ENABLE))
		return 1;
	__atomic_store_n(&l->base, base, __ATOMIC_RELAXED);
	if (from == to)
		return 0;
	set32(&l->id, l->cpu);
	if (to == mode_bits) {
		set32(&l->ldr, x2apic_ldr(l->cpu));
		l->icr &= 0xffffffff;
	} else {
		reset_registers(l);
	}
	reconsider(l);
	return 0;
}

int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value)
{
	uint64_t v;

	if (msr == LAPIC_MSR_BASE) {
		*value = l->base;
		return 0;
	}
	if (msr == LAPIC_MSR_TSC_DEADLINE) {
		*value = lapic_timer_deadline(l);
		return 0;
	}
	if (!lapic_in_x2apic(l) || msr < LAPIC_MSR_X2APIC || msr > LAPIC_MSR_X2APIC + 0xff)
		return 1;
	if (!reg_read(l, msr - LAPIC_MSR_X2APIC, &v))
		return 1;
	*value = v;
	return 0;
}

int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value)
{
	if (msr == LAPIC_MSR_BASE)
		return set_base(l, value);
	if (msr == LAPIC_MSR_TSC_DEADLINE) {
		lapic_timer_set_deadline(l, value);
		return 0;
	}
	if (!lapic_in_x2apic(l) || msr < LAPIC_MSR_X2APIC || msr > LAPIC_MSR_X2APIC + 0xff)
		return 1;
	return x2apic_write(l, msr - LAPIC_MSR_X2APIC, value);
}

uint8_t lapic_get_cr8(const struct lapic *l)
{
	return (uint8_t)(l->tpr >> 4);
}

void lapic_set_cr8(struct lapic *l, uint8_t value)
{
	l->tpr = (uint32_t)(value & 0xf) << 4;
	reconsider(l);
}

int lapic_bus_init(struct lapic_bus *b, const struct lapic_config *cfg)
{
	int ret = 0;

	memset(b, 0, sizeof(*b));
	if (!cfg->count || cfg->count > LAPIC_MAX || cfg->phys_bits < 32 || cfg->phys_bits > 52)
		return -EINVAL;
	assert(cfg->ops->kick && cfg->ops->nmi && cfg->ops->init && cfg->ops->sipi &&
	       cfg->ops->extint_ack && cfg->ops->eoi);
	b->ops = cfg->ops;
	b->opaque = cfg->opaque;
	b->clock = cfg->clock;
	b->phys_bits = cfg->phys_bits;
	b->x2apic = cfg->x2apic;
	b->lapic = calloc(cfg->count, sizeof(*b->lapic));
	if (!b->lapic)
		return -ENOMEM;
	while (!ret && b->count < cfg->count) {
		struct lapic *l = &b->lapic[b->count];

		l->cpu = b->count++;
		l->bus = b;
		l->deliverable = -1;
		ret = -pthread_mutex_init(&l->lock, NULL);
		if (!ret)
			ret = lapic_timer_init(l);
	}
	if (ret) {
		lapic_bus_finish(b);
		return ret;
	}
	for (unsigned i = 0; i < b->count; i++)
		lapic_reset(&b->lapic[i], LAPIC_RESET_POWER_ON);
	return 0;
}

void lapic_bus_finish(struct lapic_bus *b)
{
	for (unsigned i = 0; i < b->count; i++) {
		clock_timer_finish(&b->lapic[i].timer);
		pthread_mutex_destroy(&b->lapic[i].lock);
	}
	free(b->lapic);
	b->lapic = NULL;
	b->count = 0;
}

void lapic_bus_set_passive(struct lapic_bus *b, bool passive)
{
	b->passive = passive;
	for (unsigned i = 0; i < b->count; i++)
		lapic_timer_rearm(&b->lapic[i]);
}

void lapic_save(struct lapic *l, struct lapic_state *s)
{
	memset(s, 0, sizeof(*s));
	s->base = l->base;
	s->tsc_deadline = l->tsc_deadline;
	s->expire_ns = l->expire_ns;
	s->icr = l->icr;
	s->tsc_offset = l->tsc_offset;
	s->id = l->id;
	s->ldr = l->ldr;
	s->dfr = l->dfr;
	s->svr = l->svr;
	s->tpr = l->tpr;
	s->esr = l->esr;
	s->esr_pending = get32(&l->esr_pending);
	memcpy(s->lvt, l->lvt, sizeof(s->lvt));
	s->initial_count = l->initial_count;
	s->divide = l->divide;
	memcpy(s->irr, l->irr, sizeof(s->irr));
	memcpy(s->isr, l->isr, sizeof(s->isr));
	memcpy(s->tmr, l->tmr, sizeof(s->tmr));
	s->lint = get32(&l->lint);
}

static bool state_valid(const struct lapic *l, const struct lapic_state *s)
{
	bool x2apic = s->base & LAPIC_BASE_X2APIC;

	if (!base_valid(l, s->base) || s->id > 0xff || (x2apic && s->id != l->cpu))
		return false;
	if ((s->irr[0] | s->isr[0]) & 0xffff)
		return false;
	for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
		if (s->lvt[i] & ~lapic_lvt_bits(i))
			return false;
	return !(s->svr & ~SVR_BITS) && s->tpr <= 0xff && !(s->divide & ~DIVIDE_BITS) &&
	       s->lint <= 3 && s->ldr == (x2apic ? x2apic_ldr(l->cpu) : s->ldr & 0xff000000) &&
	       (s->dfr | 0xf0000000) == DFR_FLAT &&
	       !(s->icr & ~(0xffffffff00000000 | (ICR_BITS & ~ICR_PENDING)));
}

int lapic_load(struct lapic *l, const struct lapic_state *s)
{
	if (!state_valid(l, s))
		return -EINVAL;
	__atomic_store_n(&l->base, s->base, __ATOMIC_RELAXED);
	set32(&l->id, s->id);
	set32(&l->ldr, s->ldr);
	set32(&l->dfr, s->dfr);
	set32(&l->svr, s->svr);
	l->icr = s->icr;
	l->tpr = s->tpr;
	l->esr = s->esr;
	set32(&l->esr_pending, s->esr_pending);
	for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
		set32(&l->lvt[i], s->lvt[i]);
	for (unsigned i = 0; i < 8; i++) {
		set32(&l->irr[i], s->irr[i]);
		set32(&l->isr[i], s->isr[i]);
		set32(&l->tmr[i], s->tmr[i]);
	}
	set32(&l->lint, s->lint);
	pthread_mutex_lock(&l->lock);
	l->tsc_offset = s->tsc_offset;
	l->initial_count = s->initial_count;
	l->divide = s->divide;
	l->expire_ns = s->expire_ns;
	l->tsc_deadline = s->tsc_deadline;
	pthread_mutex_unlock(&l->lock);
	lapic_timer_rearm(l);
	lapic_notice(l);
	return 0;
}
