/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The local APICs of all vCPUs: xAPIC page, x2APIC MSRs, messages between them, timer. */
#ifndef UMBRA_DEVICES_LAPIC_H
#define UMBRA_DEVICES_LAPIC_H

#include <pthread.h>

#include "base/types.h"
#include "devices/clock.h"
#include "devices/state.h"

#define LAPIC_DEFAULT_BASE 0xfee00000ull
#define LAPIC_BUS_HZ	   1000000000ull /* the timer's input; one count a nanosecond at divide 1 */
#define LAPIC_MAX	   254		 /* 8-bit APIC ids, 255 is broadcast */

#define LAPIC_BASE_BSP	  BIT(8)
#define LAPIC_BASE_X2APIC BIT(10)
#define LAPIC_BASE_ENABLE BIT(11)

#define LAPIC_MSR_BASE	       0x1bu
#define LAPIC_MSR_TSC_DEADLINE 0x6e0u
#define LAPIC_MSR_X2APIC       0x800u /* .. 0x8ff */

/* lapic_pending(): the 8259's interrupt, whose vector only lapic_ack() can tell. */
#define LAPIC_EXTINT 256

enum lapic_lvt {
	LAPIC_LVT_TIMER,
	LAPIC_LVT_THERMAL,
	LAPIC_LVT_PERF,
	LAPIC_LVT_LINT0,
	LAPIC_LVT_LINT1,
	LAPIC_LVT_ERROR,
	LAPIC_LVT_COUNT,
};

/* What a guest may write in an LVT entry, SVR and the lower half of ICR. */
static inline uint32_t lapic_lvt_bits(unsigned which)
{
	switch (which) {
	case LAPIC_LVT_TIMER: return 0x700ff;
	case LAPIC_LVT_LINT0:
	case LAPIC_LVT_LINT1: return 0x1a7ff;
	case LAPIC_LVT_ERROR: return 0x100ff;
	default: return 0x107ff;
	}
}
#define LAPIC_SVR_BITS 0x3ffu
#define LAPIC_ICR_BITS 0xccfffu

/*
 * All slots are mandatory. Called from any thread, device locks may be held: they note the event
 * for vCPU @cpu and make it look (leave guest code, wake from HLT), and never call back into a
 * device, but for @extint_ack and @eoi, which run on the vCPU's own thread without a lock of ours.
 */
struct lapic_ops {
	void (*kick)(void *opaque, unsigned cpu); /* lapic_pending() may have changed */
	void (*nmi)(void *opaque, unsigned cpu);
	void (*init)(void *opaque, unsigned cpu); /* the vCPU then calls lapic_reset(INIT) itself */
	void (*sipi)(void *opaque, unsigned cpu, uint8_t vector); /* vm/ drops it unless waiting */
	int (*extint_ack)(void *opaque);	   /* the 8259's INTA cycle: a vector */
	void (*eoi)(void *opaque, uint8_t vector); /* of a level-triggered vector, broadcast */
};

struct lapic_state {
	uint64_t base;
	uint64_t tsc_deadline;
	uint64_t expire_ns; /* when the counter reaches zero; CLOCK_NEVER: stopped */
	uint64_t icr;
	uint64_t tsc_offset;
	uint32_t id; /* 8 bits in xAPIC mode */
	uint32_t ldr, dfr, svr, tpr;
	uint32_t esr, esr_pending;
	uint32_t lvt[LAPIC_LVT_COUNT];
	uint32_t initial_count, divide;
	uint32_t irr[8], isr[8], tmr[8];
	uint32_t lint; /* levels: bit 0 LINT0, bit 1 LINT1 */
};
extern const struct device_state_desc lapic_state_desc;

/*
 * One vCPU's. Threads: whatever the guest does to it (MMIO, MSR, CR8, pending, ack) comes from its
 * vCPU's thread, the owner; messages, LINT levels and the timer come from anywhere.
 * [O] owner only; [A] written by atomics from anywhere; [R] written by the owner, read by all,
 * atomically; [L] under @lock.
 */
struct lapic {
	uint32_t event;	 /* [A] something changed since @deliverable was worked out */
	int deliverable; /* [O] */
	unsigned cpu;
	struct lapic_bus *bus;
	uint64_t base;			 /* [R] IA32_APIC_BASE */
	uint32_t id, ldr, dfr, svr, ppr; /* [R] */
	uint32_t lvt[LAPIC_LVT_COUNT];	 /* [R] */
	uint32_t tpr, esr;		 /* [O] */
	uint64_t icr;			 /* [O] */
	uint32_t esr_pending;		 /* [A] */
	uint32_t irr[8], tmr[8];	 /* [A] */
	uint32_t isr[8];		 /* [O] */
	uint32_t lint;			 /* [A] */

	pthread_mutex_t lock;
	struct clock_timer timer;
	uint32_t initial_count, divide; /* [L] divide: TDCR as written */
	uint64_t expire_ns;		/* [L] of the counter; CLOCK_NEVER: stopped */
	uint64_t tsc_deadline;		/* [L] as written; 0: disarmed */
	uint64_t tsc_offset;		/* [L] the guest's TSC minus clock_tsc() */
};

/* Those of a machine, joined by the APIC bus. */
struct lapic_bus {
	const struct lapic_ops *ops;
	void *opaque;
	struct clock *clock;
	unsigned count;
	uint8_t phys_bits; /* MAXPHYADDR: bounds IA32_APIC_BASE */
	bool x2apic;	   /* CPUID shows it */
	bool passive;	   /* see lapic_bus_set_passive() */
	uint32_t next;	   /* atomic: breaks ties of lowest-priority delivery in turn */
	struct lapic *lapic;
};

struct lapic_config {
	const struct lapic_ops *ops;
	void *opaque;
	struct clock *clock;
	unsigned count; /* 1..LAPIC_MAX; vCPU 0 is the bootstrap processor, APIC ids count from 0 */
	uint8_t phys_bits;
	bool x2apic;
};

/* 0, -EINVAL or -ENOMEM. All are reset to power-on. */
int lapic_bus_init(struct lapic_bus *b, const struct lapic_config *cfg);
void lapic_bus_finish(struct lapic_bus *b);

/* Other local APICs are the machine's: these only keep a state, their timers stand still. vCPUs and
 * the clock stopped; whoever makes them active loads their states next. */
void lapic_bus_set_passive(struct lapic_bus *b, bool passive);

/*
 * POWER_ON: everything; the bootstrap processor's LINT0 is then ExtINT and unmasked, as firmware
 * would leave it (virtual wire), since no firmware runs here. INIT keeps IA32_APIC_BASE and the id.
 */
enum lapic_reset { LAPIC_RESET_POWER_ON, LAPIC_RESET_INIT };
void lapic_reset(struct lapic *l, enum lapic_reset kind);

/* A message as an MSI write. Returns how many local APICs took it. Any thread. */
int lapic_bus_msi(struct lapic_bus *b, uint64_t addr, uint32_t data);
/* The level of pin LINT0 or LINT1 (0, 1). Callers order the changes of one pin. */
void lapic_lint(struct lapic *l, unsigned pin, bool level);

int lapic_evaluate(struct lapic *l);
/*
 * What the processor would take now if it took interrupts: a vector, LAPIC_EXTINT or -1. Owner.
 * The kick comes after a change is visible here.
 */
static inline int lapic_pending(struct lapic *l)
{
	if (likely(!__atomic_load_n(&l->event, __ATOMIC_ACQUIRE)))
		return l->deliverable;
	return lapic_evaluate(l);
}
/* Take it: the vector, now in service; -1 when there was none. Owner. */
int lapic_ack(struct lapic *l);

/* The page that this vCPU sees, while it has one: does an access to @gpa belong to it? Owner. */
static inline bool lapic_decodes(const struct lapic *l, gpa_t gpa)
{
	uint64_t base = __atomic_load_n(&l->base, __ATOMIC_RELAXED);

	return (base & (LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC)) == LAPIC_BASE_ENABLE &&
	       (base & PAGE_MASK) == (gpa & PAGE_MASK);
}
uint64_t lapic_mmio_read(struct lapic *l, gpa_t gpa, unsigned size);
void lapic_mmio_write(struct lapic *l, gpa_t gpa, unsigned size, uint64_t value);

static inline bool lapic_owns_msr(uint32_t msr)
{
	return msr == LAPIC_MSR_BASE || msr == LAPIC_MSR_TSC_DEADLINE ||
	       (msr >= LAPIC_MSR_X2APIC && msr <= LAPIC_MSR_X2APIC + 0xff);
}
/* For those MSRs: 0, or 1 for #GP (@value then untouched). Owner. */
int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value);
int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value);

/* CR8. The caller raises #GP for values over 15. Owner. */
uint8_t lapic_get_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, uint8_t value);

static inline bool lapic_enabled(const struct lapic *l)
{
	return __atomic_load_n(&l->base, __ATOMIC_RELAXED) & LAPIC_BASE_ENABLE;
}
static inline bool lapic_in_x2apic(const struct lapic *l)
{
	return __atomic_load_n(&l->base, __ATOMIC_RELAXED) & LAPIC_BASE_X2APIC;
}
/* The vCPU's TSC is clock_tsc() + @offset from now on; an armed deadline follows. Owner. */
void lapic_set_tsc_offset(struct lapic *l, uint64_t offset);
/* A performance-counter overflow (LVT PC). */
void lapic_perf_interrupt(struct lapic *l);

void lapic_save(struct lapic *l, struct lapic_state *s);
int lapic_load(struct lapic *l, const struct lapic_state *s);

#endif
