/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A payload's exit code, or its word "Shutdown". */
#include "devices/debugexit.h"

#include <errno.h>

static const char word[] = "Shutdown";

const struct device_state_desc debugexit_state_desc = {"debug-exit", 1,
						       sizeof(struct debugexit_state)};

static uint64_t exit_read(void *dev, uint64_t offset, unsigned size)
{
	return 0;
}

static void exit_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	const struct debugexit *d = dev;

	d->ops->exit(d->opaque, (uint32_t)value);
}

/* Vcpus that write at the same time spoil the word, but nothing else. */
static void shutdown_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct debugexit *d = dev;
	uint32_t at = __atomic_load_n(&d->s.matched, __ATOMIC_RELAXED);

	at = (char)value == word[at] ? at + 1 : (char)value == word[0];
	__atomic_store_n(&d->s.matched, at % (sizeof(word) - 1), __ATOMIC_RELAXED);
	if (at == sizeof(word) - 1)
		d->ops->shutdown(d->opaque);
}

const struct bus_ops debugexit_ops = {exit_read, exit_write, 1 | 2 | 4};
const struct bus_ops shutdown_ops = {NULL, shutdown_write, 1};

void debugexit_init(struct debugexit *d, const struct machine_ops *ops, void *opaque)
{
	*d = (struct debugexit){.ops = ops, .opaque = opaque};
}

void debugexit_reset(struct debugexit *d)
{
	__atomic_store_n(&d->s.matched, 0, __ATOMIC_RELAXED);
}

void debugexit_save(struct debugexit *d, struct debugexit_state *s)
{
	s->matched = __atomic_load_n(&d->s.matched, __ATOMIC_RELAXED);
}

int debugexit_load(struct debugexit *d, const struct debugexit_state *s)
{
	if (s->matched >= sizeof(word) - 1)
		return -EINVAL;
	__atomic_store_n(&d->s.matched, s->matched, __ATOMIC_RELAXED);
	return 0;
}
