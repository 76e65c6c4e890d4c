/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The MC146818 clock with its CMOS memory. */
#ifndef UMBRA_DEVICES_RTC_H
#define UMBRA_DEVICES_RTC_H

#include <pthread.h>

#include "base/types.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"
#include "devices/state.h"

#define RTC_CMOS_SIZE 128

struct rtc_state {
	int64_t epoch_ns; /* the wall clock's time (Unix, ns) when the machine's clock was 0 */
	uint64_t seen_ns; /* flags in register C are worked out up to here */
	uint64_t periodic_base;
	uint8_t cmos[RTC_CMOS_SIZE];
	uint8_t index;
	uint8_t reserved[7];
};
extern const struct device_state_desc rtc_state_desc;

struct rtc {
	pthread_mutex_t lock;
	struct rtc_state s;
	struct clock *clock;
	struct clock_timer timer;
	struct irq_line irq;
};

struct rtc_config {
	struct clock *clock;
	struct irq_line irq;   /* copied */
	int64_t epoch_ns;      /* Unix time at the machine's clock 0; UTC */
	uint64_t ram_below_4g; /* bytes of RAM from 0 */
	uint64_t ram_above_4g;
	unsigned cpus;
};

extern const struct bus_ops rtc_ops; /* 0x70, 0x71; dev: struct rtc */

int rtc_init(struct rtc *r, const struct rtc_config *cfg);
void rtc_finish(struct rtc *r);
/* The time and the memory survive a reset; interrupts are off afterwards. */
void rtc_reset(struct rtc *r);
void rtc_save(struct rtc *r, struct rtc_state *s);
int rtc_load(struct rtc *r, const struct rtc_state *s);

#endif
