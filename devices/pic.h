/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pair of 8259A interrupt controllers, with the edge/level registers. */
#ifndef UMBRA_DEVICES_PIC_H
#define UMBRA_DEVICES_PIC_H

#include <pthread.h>

#include "base/types.h"
#include "devices/bus.h"
#include "devices/state.h"

/* One chip. Fields named as in the datasheet. */
struct pic_chip_state {
	uint8_t irr, isr, imr;
	uint8_t lines;	/* levels of IR0..7 */
	uint8_t elcr;	/* 1: level-triggered */
	uint8_t lowest; /* the IR with the lowest priority; 7 after initialization */
	uint8_t icw2, icw4;
	uint8_t init_step; /* 0: ready; else the ICW (2, 3, 4) that comes next */
	uint8_t need_icw4, single;
	uint8_t read_isr, poll, special_mask, rotate_aeoi;
	uint8_t output; /* INT pin */
};

struct pic_state {
	struct pic_chip_state chip[2]; /* master, slave */
};
extern const struct device_state_desc pic_state_desc;

/* @intr hears the master's INT pin change, with the pair's lock held; it must not call back. */
struct pic {
	pthread_mutex_t lock;
	struct pic_state s;
	void (*intr)(void *opaque, bool level);
	void *opaque;
};

extern const struct bus_ops pic_master_ops; /* 0x20, 0x21; dev: struct pic */
extern const struct bus_ops pic_slave_ops;  /* 0xa0, 0xa1 */
extern const struct bus_ops pic_elcr_ops;   /* 0x4d0, 0x4d1 */

int pic_init(struct pic *p, void (*intr)(void *opaque, bool level), void *opaque);
void pic_finish(struct pic *p);
/*
 * As a PC's firmware leaves it, since none runs here: vectors 0x08 and 0x70, all masked but IRQ 0
 * and the cascade, nothing in service.
 */
void pic_reset(struct pic *p);
/* @irq 0..15; 2 is the cascade and ignored. */
void pic_set_irq(struct pic *p, unsigned irq, bool level);
/* The two INTA cycles: the vector; a spurious IR7's when nothing is pending any more. */
uint8_t pic_ack(struct pic *p);
void pic_save(struct pic *p, struct pic_state *s);
int pic_load(struct pic *p, const struct pic_state *s);

#endif
