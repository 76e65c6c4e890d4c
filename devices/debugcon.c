/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The debug console's bytes, gathered by lines. */
#include "devices/debugcon.h"

#include <string.h>

#define SIGNATURE 0xe9

static void flush_locked(struct debugcon *d)
{
	if (d->out_len && d->output)
		d->output(d->opaque, d->out, d->out_len);
	d->out_len = 0;
}

static uint64_t debugcon_read(void *dev, uint64_t offset, unsigned size)
{
	return SIGNATURE;
}

static void debugcon_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct debugcon *d = dev;

	pthread_mutex_lock(&d->lock);
	d->out[d->out_len++] = (uint8_t)value;
	if (value == '\n' || d->out_len == sizeof(d->out))
		flush_locked(d);
	pthread_mutex_unlock(&d->lock);
}

const struct bus_ops debugcon_ops = {debugcon_read, debugcon_write, 1};

int debugcon_init(struct debugcon *d, void (*output)(void *, const uint8_t *, size_t), void *opaque)
{
	memset(d, 0, sizeof(*d));
	d->output = output;
	d->opaque = opaque;
	return -pthread_mutex_init(&d->lock, NULL);
}

void debugcon_finish(struct debugcon *d)
{
	pthread_mutex_destroy(&d->lock);
}

void debugcon_flush(struct debugcon *d)
{
	pthread_mutex_lock(&d->lock);
	flush_locked(d);
	pthread_mutex_unlock(&d->lock);
}
