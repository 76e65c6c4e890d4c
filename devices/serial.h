/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A 16550A UART. */
#ifndef UMBRA_DEVICES_SERIAL_H
#define UMBRA_DEVICES_SERIAL_H

#include <pthread.h>

#include "base/types.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"
#include "devices/state.h"

#define SERIAL_PORTS	 8
#define SERIAL_FIFO	 16
#define SERIAL_OUT_BATCH 1024
#define SERIAL_FLUSH_NS	 2000000ull /* how long a written byte may wait for company */

struct serial_state {
	uint8_t ier, iir_thre, fcr, lcr, mcr, msr_delta, scr, lsr_error;
	uint16_t divisor;
	uint8_t rx[SERIAL_FIFO];
	uint8_t rx_len;
	uint8_t rx_timeout; /* character-timeout indication is up */
	uint32_t reserved;
};
extern const struct device_state_desc serial_state_desc;

/*
 * @output (mandatory) takes bytes that the guest wrote, in order; called with the device's lock
 * held on a vCPU's or the clock's thread; it must not call back and should not block.
 * @input_ready (may be NULL) says that serial_input() has room again after it took less than all;
 * called without the lock, maybe spuriously.
 */
struct serial_config {
	void (*output)(void *opaque, const uint8_t *data, size_t len);
	void (*input_ready)(void *opaque);
	void *opaque;
	struct clock *clock;
	struct irq_line irq; /* copied */
};

struct serial {
	pthread_mutex_t lock;
	struct serial_config cfg;
	struct irq_line irq;
	struct serial_state s;
	struct clock_timer flush_timer, rx_timer;
	uint64_t rx_deadline; /* CLOCK_NEVER: no timeout running */
	uint8_t out[SERIAL_OUT_BATCH];
	size_t out_len;
	bool input_refused;
};

extern const struct bus_ops serial_ops; /* 8 ports; dev: struct serial */

int serial_init(struct serial *s, const struct serial_config *cfg);
void serial_finish(struct serial *s);
/* Output on its way is flushed, input in the FIFO is lost. */
void serial_reset(struct serial *s);
/* Bytes for the guest. Returns how many there was room for: at most SERIAL_FIFO. Any thread. */
size_t serial_input(struct serial *s, const uint8_t *data, size_t len);
/* A break condition arrives. */
void serial_break(struct serial *s);
/* Hand over what is still gathered (before the machine ends). */
void serial_flush(struct serial *s);
void serial_save(struct serial *s, struct serial_state *st);
int serial_load(struct serial *s, const struct serial_state *st);

#endif
