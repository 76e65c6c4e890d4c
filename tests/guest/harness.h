/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine inside this process, with a device by which its payload drives what is outside. */
#ifndef UMBRA_TESTS_HARNESS_H
#define UMBRA_TESTS_HARNESS_H

#include <pthread.h>

#include "tests/guest/kit/device.h"
#include "vm/vm_internal.h"

struct harness;

struct harness_ops {
	/* A command of kit/device.h, on the vCPU's thread outside guest mode: it may wait. */
	void (*command)(struct harness *h, uint32_t command, uint32_t argument);
};

struct harness {
	struct machine_def def;
	struct machine_files files;
	struct event_base *base;
	struct vm *vm;
	struct mmu_vm *mmu;
	const struct harness_ops *ops;
	void *priv; /* the test's */
	uint32_t argument;
	uint8_t bytes; /* atomic: KIT_DEVICE_BYTES */
};

/* A machine of @json (a machine definition), paused before its first instruction. Exits when that
 * fails. */
void harness_create(struct harness *h, const char *json, const struct harness_ops *ops, void *priv);
/* Run it to its end, the loop on this thread; the exit status as vmctl has it. Its console goes to
 * stdout. */
int harness_run(struct harness *h);
/* The counters after the end: the caller's reference. */
struct json_object *harness_stats(struct harness *h);
void harness_destroy(struct harness *h);

/* Says why and exits with status 2: the test itself is broken. */
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
