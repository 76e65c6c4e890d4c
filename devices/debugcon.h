/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The debug console at 0xe9: bytes out; reads as 0xe9, which is how guests find it. */
#ifndef UMBRA_DEVICES_DEBUGCON_H
#define UMBRA_DEVICES_DEBUGCON_H

#include <pthread.h>

#include "base/types.h"
#include "devices/bus.h"

/* No guest-visible state. Bytes are gathered up to a line's end or a full batch. */
struct debugcon {
	pthread_mutex_t lock;
	void (*output)(void *opaque, const uint8_t *data, size_t len);
	void *opaque;
	uint8_t out[256];
	size_t out_len;
};

extern const struct bus_ops debugcon_ops;

/* @output as in struct serial_config; NULL drops the bytes. */
int debugcon_init(struct debugcon *d, void (*output)(void *, const uint8_t *, size_t),
		  void *opaque);
void debugcon_finish(struct debugcon *d);
void debugcon_flush(struct debugcon *d);

#endif
