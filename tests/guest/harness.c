/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine inside this process. */
#include "tests/guest/harness.h"

#include <event2/event.h>
#include <event2/thread.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

static void on_output(void *data, const uint8_t *bytes, size_t len)
{
	fwrite(bytes, 1, len, stdout);
}

static void on_ready(void *data)
{
}

static void on_state(void *data)
{
	struct harness *h = data;

	if (h->vm && vm_state(h->vm) == VM_ENDED)
		event_base_loopbreak(h->base);
}

static const struct vm_ops vm_ops = {
	.console_output = on_output,
	.console_ready = on_ready,
	.state_changed = on_state,
};

static uint64_t device_read(void *dev, uint64_t offset, unsigned size)
{
	struct harness *h = dev;

	/* Each read differs, so that a byte that was not written is seen. */
	return offset < KIT_DEVICE_BYTES - KIT_DEVICE_COMMAND
		       ? 0
		       : __atomic_add_fetch(&h->bytes, 1, __ATOMIC_RELAXED);
}

static void device_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct harness *h = dev;

	if (offset == KIT_DEVICE_ARGUMENT - KIT_DEVICE_COMMAND)
		__atomic_store_n(&h->argument, (uint32_t)value, __ATOMIC_RELAXED);
	else if (offset == 0)
		h->ops->command(h, (uint32_t)value,
				__atomic_load_n(&h->argument, __ATOMIC_RELAXED));
}

static const struct bus_ops device_ops = {
	.read = device_read,
	.write = device_write,
	.sizes = 1 | 2 | 4,
};

void harness_create(struct harness *h, const char *json, const struct harness_ops *ops, void *priv)
{
	struct bus_range range = {
		.base = KIT_DEVICE_COMMAND, .len = 12, .ops = &device_ops, .dev = h};
	struct json_object *obj = json_tokener_parse(json);
	struct api_error err = {0};

	memset(h, 0, sizeof(*h));
	h->ops = ops;
	h->priv = priv;
	evthread_use_pthreads();
	h->base = event_base_new();
	machine_files_init(&h->files);
	if (!obj || !h->base || machine_def_parse(&h->def, obj, "payload", "", &err) ||
	    machine_files_open(&h->files, &h->def, &err) ||
	    vm_create(&h->vm, h->base, &h->def, &h->files, &vm_ops, h, &err))
		die("no machine: %s", obj ? err.text : "not JSON");
	h->mmu = h->vm->mmu;
	if (bus_register(&h->vm->board->bus, BUS_PIO, &range))
		die("the harness's ports are taken");
	json_object_put(obj);
}

int harness_run(struct harness *h)
{
	struct vm_report report = {0};
	struct api_error err = {0};
	int status;

	if (vm_start(h->vm, &err))
		die("no start: %s", err.text);
	if (vm_state(h->vm) != VM_ENDED)
		event_base_dispatch(h->base);
	fflush(stdout);
	vm_query(h->vm, &report);
	status = vm_report_status(&report);
	if (report.reason != VM_REASON_DEBUG_EXIT)
		fprintf(stderr, "%s: %s\n", vm_reason_names[report.reason], report.message);
	vm_report_finish(&report);
	return status;
}

struct json_object *harness_stats(struct harness *h)
{
	struct json_object *stats = json_object_new_object();
	struct api_error err;

	if (!stats || vm_stats(h->vm, stats, &err))
		die("no counters");
	return stats;
}

void harness_destroy(struct harness *h)
{
	vm_destroy(h->vm);
	machine_files_finish(&h->files);
	machine_def_finish(&h->def);
	event_base_free(h->base);
	libevent_global_shutdown();
}
