/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The 8254 timer, and port 0x61 with its gate and speaker bits. */
#ifndef UMBRA_DEVICES_PIT_H
#define UMBRA_DEVICES_PIT_H

#include <pthread.h>

#include "base/types.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"
#include "devices/state.h"

#define PIT_HZ	     1193182ull
#define PIT_COUNTERS 3

/*
 * Times are in ticks of PIT_HZ since the machine's clock was 0. Counts are 1..65536 (decimal also
 * in BCD mode, where the highest is 16665); 0 where there is none.
 */
struct pit_counter_state {
	uint64_t start;	     /* tick that counting goes by, while @counting */
	uint64_t held;	     /* ticks counted before that (modes 0 and 4: the gate was closed) */
	uint32_t count;	     /* in use */
	uint32_t next_count; /* taken at the end of the period, or by the next trigger */
	uint16_t latched;
	uint8_t mode, rw, bcd, gate;
	uint8_t running;  /* a count was loaded (modes 1 and 5: triggered) since the control word */
	uint8_t counting; /* and the gate lets it count */
	uint8_t write_lsb;
	uint8_t write_second, read_second;
	uint8_t latched_bytes; /* bit 0, 1: LSB, MSB of @latched not read yet */
	uint8_t status_latched, status;
	uint8_t reserved[2];
};

struct pit_state {
	struct pit_counter_state counter[PIT_COUNTERS];
	uint64_t fired; /* rising edges of OUT0 up to this tick are delivered */
	uint8_t port61; /* bits 0 and 1 as written */
	uint8_t reserved[7];
};
extern const struct device_state_desc pit_state_desc;

struct pit {
	pthread_mutex_t lock;
	struct pit_state s;
	struct clock *clock;
	struct clock_timer timer;
	struct irq_line irq;
	bool passive; /* under @lock; see pit_set_passive() */
};

extern const struct bus_ops pit_ops;	     /* 0x40..0x43; dev: struct pit */
extern const struct bus_ops pit_speaker_ops; /* 0x61 */

/* @irq is copied. 0 or -errno. */
int pit_init(struct pit *p, struct clock *clock, const struct irq_line *irq);
void pit_finish(struct pit *p);
/* As firmware leaves it: counter 0 in mode 3 with the longest period, 18.2 Hz; the others idle. */
void pit_reset(struct pit *p);
/* Level of OUT @n now. */
bool pit_out(struct pit *p, unsigned n);
/* Another PIT is the machine's: this one only keeps a state. Its line is low meanwhile. vCPUs and
 * the clock stopped; whoever makes it active loads its state next. */
void pit_set_passive(struct pit *p, bool passive);
void pit_save(struct pit *p, struct pit_state *s);
int pit_load(struct pit *p, const struct pit_state *s);

#endif
