/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the local APIC's files share: register numbers, atomics, delivery. */
#ifndef UMBRA_DEVICES_LAPIC_INTERNAL_H
#define UMBRA_DEVICES_LAPIC_INTERNAL_H

#include "devices/lapic.h"

/* Registers by their offset in the page / 16, which is their x2APIC MSR - 0x800. */
enum lapic_reg {
	REG_ID = 0x02,
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_APR = 0x09,
	REG_PPR = 0x0a,
	REG_EOI = 0x0b,
	REG_RRR = 0x0c,
	REG_LDR = 0x0d,
	REG_DFR = 0x0e,
	REG_SVR = 0x0f,
	REG_ISR = 0x10,
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_ICR = 0x30,
	REG_ICR_HIGH = 0x31,
	REG_LVT = 0x32, /* .. 0x37, in the order of enum lapic_lvt */
	REG_INITIAL_COUNT = 0x38,
	REG_CURRENT_COUNT = 0x39,
	REG_DIVIDE = 0x3e,
	REG_SELF_IPI = 0x3f, /* x2APIC only */
};

#define SVR_ENABLE  0x100u
#define LVT_MASKED  0x10000u
#define LVT_LEVEL   0x8000u
#define ICR_PENDING 0x1000u
#define ICR_ASSERT  0x4000u
#define ICR_LEVEL   0x8000u
#define ICR_LOGICAL 0x800u
#define DFR_FLAT    0xffffffffu

#define ESR_SEND_VECTOR	   0x20u
#define ESR_RECEIVE_VECTOR 0x40u
#define ESR_REGISTER	   0x80u

enum lapic_mode {
	MODE_FIXED,
	MODE_LOWEST,
	MODE_SMI,
	MODE_NMI = 4,
	MODE_INIT,
	MODE_SIPI,
	MODE_EXTINT,
};
enum lapic_timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

/* A message on the APIC bus. */
struct lapic_msg {
	uint32_t dest;
	uint8_t vector;
	uint8_t mode; /* enum lapic_mode */
	bool logical, level, broadcast;
};

static inline uint32_t get32(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline void set32(uint32_t *p, uint32_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELAXED);
}

static inline enum lapic_mode lvt_mode(uint32_t lvt)
{
	return (enum lapic_mode)(lvt >> 8 & 7);
}

static inline enum lapic_timer_mode lvt_timer_mode(uint32_t lvt)
{
	return (enum lapic_timer_mode)(lvt >> 17 & 3);
}

/* The highest bit set of 256, or -1. */
int lapic_highest(const uint32_t *bits);

/* lapic_msg.c; all from any thread */
void lapic_notice(struct lapic *l); /* the owner is to look again */
void lapic_accept(struct lapic *l, uint8_t vector, bool level);
void lapic_error(struct lapic *l, uint32_t esr_bit);
void lapic_lvt_deliver(struct lapic *l, enum lapic_lvt which);
void lapic_lint_eoi(struct lapic *l, uint8_t vector);
/* What a write of ICR sends. Owner. */
void lapic_send_icr(struct lapic *l);

/* lapic_timer.c; each takes the lock */
int lapic_timer_init(struct lapic *l);
void lapic_timer_stop(struct lapic *l); /* and clear its registers */
/* The LVT entry's mode is about to change, or has been masked or unmasked. */
void lapic_timer_set_lvt(struct lapic *l, uint32_t lvt);
void lapic_timer_set_initial(struct lapic *l, uint32_t count);
void lapic_timer_set_divide(struct lapic *l, uint32_t divide);
uint32_t lapic_timer_current(struct lapic *l);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
uint64_t lapic_timer_deadline(struct lapic *l);
/* After a load put the fields in place. */
void lapic_timer_rearm(struct lapic *l);

#endif
