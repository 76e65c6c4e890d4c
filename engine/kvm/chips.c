/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's interrupt controllers and PIT in devices/' form of saved state, and back. */
#include "engine/kvm/chips.h"

#include <string.h>

/* ---- local APIC: registers by their offset in the page (SDM 3A, table 11-1) ----------------- */

#define REG_ID	   0x20
#define REG_TPR	   0x80
#define REG_LDR	   0xd0
#define REG_DFR	   0xe0
#define REG_SVR	   0xf0
#define REG_ISR	   0x100
#define REG_TMR	   0x180
#define REG_IRR	   0x200
#define REG_ESR	   0x280
#define REG_ICR	   0x300
#define REG_ICR2   0x310
#define REG_DIVIDE 0x3e0

#define DIVIDE_BITS   0xbu
#define TIMER_MODE(l) ((l) >> 17 & 3)
#define ONE_SHOT      0
#define TSC_DEADLINE  2

uint32_t kvm_lapic_reg(const struct kvm_lapic_state *s, unsigned offset)
{
	uint32_t value;

	memcpy(&value, s->regs + offset, sizeof(value));
	return value;
}

static void set_reg(struct kvm_lapic_state *s, unsigned offset, uint32_t value)
{
	memcpy(s->regs + offset, &value, sizeof(value));
}

/* One count takes 1 << shift ns: LAPIC_BUS_HZ is the kernel's own (KVM_X86_APIC_BUS_FREQUENCY). */
static unsigned divide_shift(uint32_t divide)
{
	return (((divide & 3) | (divide >> 1 & 4)) + 1) & 7;
}

void kvm_lapic_from(const struct kvm_lapic_state *from, const struct kvm_lapic_msrs *msrs,
		    uint64_t now_ns, struct lapic_state *ret)
{
	bool x2apic = msrs->base & LAPIC_BASE_X2APIC;
	uint64_t icr_high = x2apic ? 0xffffffff : 0xff000000;
	uint32_t mode, current;

	memset(ret, 0, sizeof(*ret));
	ret->base = msrs->base;
	ret->tsc_offset = msrs->tsc_adjust;
	ret->id =
		kvm_lapic_reg(from, REG_ID) >> 24; /* in x2APIC mode too, unless asked otherwise */
	ret->ldr = kvm_lapic_reg(from, REG_LDR) & (x2apic ? ~0u : 0xff000000);
	ret->dfr = kvm_lapic_reg(from, REG_DFR) | 0x0fffffff;
	ret->svr = kvm_lapic_reg(from, REG_SVR) & LAPIC_SVR_BITS;
	ret->tpr = kvm_lapic_reg(from, REG_TPR) & 0xff;
	ret->esr = kvm_lapic_reg(from, REG_ESR);
	ret->icr = (kvm_lapic_reg(from, REG_ICR) & LAPIC_ICR_BITS) |
		   (kvm_lapic_reg(from, REG_ICR2) & icr_high) << 32;
	for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
		ret->lvt[i] = kvm_lapic_reg(from, KVM_LAPIC_LVT + i * 16) & lapic_lvt_bits(i);
	for (unsigned i = 0; i < 8; i++) {
		ret->irr[i] = kvm_lapic_reg(from, REG_IRR + i * 16);
		ret->isr[i] = kvm_lapic_reg(from, REG_ISR + i * 16);
		ret->tmr[i] = kvm_lapic_reg(from, REG_TMR + i * 16);
	}
	ret->irr[0] &= 0xffff0000;
	ret->isr[0] &= 0xffff0000;
	ret->initial_count = kvm_lapic_reg(from, KVM_LAPIC_INITIAL);
	ret->divide = kvm_lapic_reg(from, REG_DIVIDE) & DIVIDE_BITS;
	mode = TIMER_MODE(ret->lvt[LAPIC_LVT_TIMER]);
	current = kvm_lapic_reg(from, KVM_LAPIC_CURRENT);
	ret->expire_ns = CLOCK_NEVER;
	if (mode != TSC_DEADLINE && ret->initial_count && current)
		ret->expire_ns = clock_add(now_ns, (uint64_t)current << divide_shift(ret->divide));
	if (mode == TSC_DEADLINE)
		ret->tsc_deadline = msrs->tsc_deadline;
}

void kvm_lapic_to(const struct lapic_state *s, uint64_t now_ns, struct kvm_lapic_state *ret)
{
	bool running = s->expire_ns != CLOCK_NEVER;
	unsigned shift = divide_shift(s->divide);
	uint64_t left = 0;

	memset(ret, 0, sizeof(*ret));
	set_reg(ret, REG_ID, s->id << 24);
	set_reg(ret, REG_TPR, s->tpr);
	set_reg(ret, REG_LDR, s->ldr);
	set_reg(ret, REG_DFR, s->dfr);
	set_reg(ret, REG_SVR, s->svr);
	set_reg(ret, REG_ESR, s->esr);
	set_reg(ret, REG_ICR, (uint32_t)s->icr);
	set_reg(ret, REG_ICR2, (uint32_t)(s->icr >> 32));
	for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
		set_reg(ret, KVM_LAPIC_LVT + i * 16, s->lvt[i]);
	for (unsigned i = 0; i < 8; i++) {
		set_reg(ret, REG_IRR + i * 16, s->irr[i]);
		set_reg(ret, REG_ISR + i * 16, s->isr[i]);
		set_reg(ret, REG_TMR + i * 16, s->tmr[i]);
	}
	set_reg(ret, REG_DIVIDE, s->divide);
	if (running) /* at least one count, so that what is due now comes at once */
		left = s->expire_ns > now_ns ? (s->expire_ns - now_ns + BIT(shift) - 1) >> shift
					     : 1;
	set_reg(ret, KVM_LAPIC_CURRENT, (uint32_t)MAX(MIN(left, s->initial_count), running));
	/* A one-shot count that is over would begin, and so end, anew. */
	if (running || TIMER_MODE(s->lvt[LAPIC_LVT_TIMER]) != ONE_SHOT)
		set_reg(ret, KVM_LAPIC_INITIAL, s->initial_count);
}

/* ---- 8259 ---------------------------------------------------------------------------------- */

#define CASCADE	    2
#define ICW4_8086   0x01
#define ICW4_AEOI   0x02
#define ICW4_SFNM   0x10
#define CHIP_MASTER 0

static const uint8_t elcr_mask[2] = {0xf8, 0xde};

void kvm_pic_from(const struct kvm_pic_state *from, unsigned which, struct pic_chip_state *ret)
{
	*ret = (struct pic_chip_state){
		.irr = from->irr,
		.isr = from->isr,
		.imr = from->imr,
		.lines = from->last_irr,
		.elcr = from->elcr & elcr_mask[which],
		.lowest = (from->priority_add + 7) & 7,
		.icw2 = from->irq_base & 0xf8,
		.icw4 = ICW4_8086,
		/* Which ICW is next: theirs counts them from 1, ours by their names. */
		.init_step = from->init_state ? (from->init_state & 3) + 1 : 0,
		.need_icw4 = !!from->init4,
		.read_isr = !!from->read_reg_select,
		.poll = !!from->poll,
		.special_mask = !!from->special_mask,
		.rotate_aeoi = !!from->rotate_on_auto_eoi,
	};
	if (from->auto_eoi)
		ret->icw4 |= ICW4_AEOI;
	if (from->special_fully_nested_mode)
		ret->icw4 |= ICW4_SFNM;
	/* Theirs is an edge that was latched, ours follows the slave's INT. */
	if (which == CHIP_MASTER)
		ret->lines = (ret->lines & ~(1u << CASCADE)) | (ret->irr & 1u << CASCADE);
}

void kvm_pic_to(const struct pic_chip_state *s, unsigned which, struct kvm_pic_state *ret)
{
	*ret = (struct kvm_pic_state){
		.last_irr = s->lines,
		.irr = s->irr,
		.imr = s->imr,
		.isr = s->isr,
		.priority_add = (s->lowest + 1) & 7,
		.irq_base = s->icw2,
		.read_reg_select = s->read_isr,
		.poll = s->poll,
		.special_mask = s->special_mask,
		.init_state = s->init_step ? s->init_step - 1 : 0,
		.auto_eoi = !!(s->icw4 & ICW4_AEOI),
		.rotate_on_auto_eoi = s->rotate_aeoi,
		.special_fully_nested_mode = !!(s->icw4 & ICW4_SFNM),
		.init4 = s->need_icw4,
		.elcr = s->elcr,
		.elcr_mask = elcr_mask[which],
	};
	if (which == CHIP_MASTER)
		ret->last_irr &= ~(1u << CASCADE);
}

/* ---- I/O APIC ------------------------------------------------------------------------------ */

#define IOAPIC_BASE 0xfec00000ull
#define RTE_BITS    0xff0000000001efffull /* all but the delivery status */
#define RTE_LEVEL   BIT(15)

void kvm_ioapic_from(const struct kvm_ioapic_state *from, uint32_t lines, struct ioapic_state *ret)
{
	*ret = (struct ioapic_state){
		.lines = lines & (BIT(IOAPIC_PINS) - 1),
		.select = from->ioregsel & 0xff,
		.id = (from->id & 0xf) << 24,
	};
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		ret->rte[pin] = from->redirtbl[pin].bits & RTE_BITS;
}

void kvm_ioapic_to(const struct ioapic_state *s, struct kvm_ioapic_state *ret)
{
	*ret = (struct kvm_ioapic_state){
		.base_address = IOAPIC_BASE,
		.ioregsel = s->select,
		.id = s->id >> 24 & 0xf,
	};
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		ret->redirtbl[pin].bits = s->rte[pin];
		/* An edge that was there has been sent, or was masked and is lost. */
		if ((s->lines & 1u << pin) && (s->rte[pin] & RTE_LEVEL))
			ret->irr |= 1u << pin;
	}
}

/* ---- PIT ----------------------------------------------------------------------------------- */

#define PORT61_GATE	1
#define PORT61_SPEAKER	2
#define STATE_WORD_LOW	3 /* of two bytes the first is next, */
#define STATE_WORD_HIGH 4 /* or the second */
#define LONGEST		65536

/* As clock_ns_to_ticks(). */
static uint64_t ticks(uint64_t ns)
{
	return (uint64_t)((__uint128_t)ns * PIT_HZ / 1000000000);
}

static bool periodic(unsigned mode)
{
	return mode == 2 || mode == 3;
}

static void counter_from(const struct kvm_pit_channel_state *from, uint64_t start,
			 struct pit_counter_state *ret)
{
	uint32_t count = from->count && from->count <= LONGEST ? from->count : LONGEST;

	*ret = (struct pit_counter_state){
		.start = start,
		.count = count,
		.latched = from->latched_count,
		.mode = from->mode <= 5 ? from->mode : 3,
		.rw = from->rw_mode >= 1 && from->rw_mode <= 3 ? from->rw_mode : 3,
		.bcd = !!from->bcd,
		.gate = !!from->gate,
		.running = 1,
		.write_lsb = from->write_latch,
		.write_second = from->write_state == STATE_WORD_HIGH,
		.read_second = from->read_state == STATE_WORD_HIGH,
		.latched_bytes = from->count_latched & 3,
		.status_latched = !!from->status_latched,
		.status = from->status,
	};
	if (periodic(ret->mode) && count < 2)
		ret->count = 2;
	/* A trigger, which is a rising gate, starts modes 1 and 5, and nothing stops them. */
	ret->counting = ret->gate || ret->mode == 1 || ret->mode == 5;
}

void kvm_pit_from(const struct kvm_pit_state2 *from, uint64_t now_ns, uint64_t host_ns,
		  struct pit_state *ret)
{
	uint64_t now = ticks(now_ns);

	memset(ret, 0, sizeof(*ret));
	for (unsigned i = 0; i < PIT_COUNTERS; i++) {
		const struct kvm_pit_channel_state *c = &from->channels[i];
		uint64_t age = 0;

		if (i && c->count_load_time >= 0 && (uint64_t)c->count_load_time < host_ns)
			age = ticks(host_ns - (uint64_t)c->count_load_time);
		counter_from(c, age < now ? now - age : 0, &ret->counter[i]);
	}
	ret->fired = now;
	ret->port61 = (from->flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON ? PORT61_SPEAKER : 0) |
		      (from->channels[2].gate ? PORT61_GATE : 0);
}

/* What is left of a count that ends once: its terminal count is one tick after zero. */
static uint32_t count_left(const struct pit_counter_state *c, uint64_t now)
{
	uint64_t gone = c->held + (c->counting && now > c->start ? now - c->start : 0);

	return gone <= c->count ? (uint32_t)MIN(c->count + 1 - gone, (uint64_t)LONGEST) : 0;
}

static void counter_to(const struct pit_counter_state *c, bool first, uint64_t now,
		       struct kvm_pit_channel_state *ret)
{
	uint32_t count = c->next_count ? c->next_count : c->count;

	if (c->running && !periodic(c->mode) && !c->next_count) {
		count = count_left(c, now);
		/* It is over. Counter 0's comes once more, as its mode must stay; OUT is high at
		 * once with the others. */
		if (!count)
			count = first ? c->count : 1;
	}
	*ret = (struct kvm_pit_channel_state){
		.count = c->running && count ? count : LONGEST,
		.latched_count = c->latched,
		.count_latched = c->latched_bytes,
		.status_latched = c->status_latched,
		.status = c->status,
		.read_state = c->rw == 3 && c->read_second ? STATE_WORD_HIGH : c->rw,
		.write_state = c->rw == 3 && c->write_second ? STATE_WORD_HIGH : c->rw,
		.write_latch = c->write_lsb,
		.rw_mode = c->rw,
		.mode = c->mode,
		.bcd = c->bcd,
		.gate = c->gate,
	};
}

void kvm_pit_to(const struct pit_state *s, uint64_t now_ns, struct kvm_pit_state2 *ret)
{
	uint64_t now = ticks(now_ns);

	memset(ret, 0, sizeof(*ret));
	for (unsigned i = 0; i < PIT_COUNTERS; i++)
		counter_to(&s->counter[i], !i, now, &ret->channels[i]);
	if (s->port61 & PORT61_SPEAKER)
		ret->flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
}
