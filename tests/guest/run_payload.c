/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * usage: run_payload DEFINITION.json [STATS.json]
 * As umbra-vm --config, but with the device of kit/device.h: the payload starts and stops the dirty
 * log and changes the memory slots.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "tests/guest/harness.h"

#define SLOT	  17
#define SLOT_SIZE MIB(2)

struct outside {
	struct dirty_client *log;
	uint8_t *memory; /* of the slot that comes and goes */
	uint64_t taken;
	struct json_object *phases; /* counters at the end of each, or NULL */
};

static void must(int ret, const char *what)
{
	if (ret < 0)
		die("%s: %s", what, strerror(-ret));
}

static void log_take(struct harness *h, struct outside *o)
{
	gfn_t gfns[512];
	ssize_t n;

	while ((n = dirty_take(o->log, gfns, ARRAY_SIZE(gfns))) > 0)
		o->taken += (uint64_t)n;
	must((int)n, "dirty_take");
}

static void slot_come(struct harness *h, struct outside *o, uint64_t gfn)
{
	struct slot_desc desc = {
		.id = SLOT, .gpa = gfn << PAGE_SHIFT, .size = SLOT_SIZE, .host = o->memory};

	memset(o->memory, 0x5a, SLOT_SIZE);
	must(slot_add(h->mmu, &desc), "slot_add");
}

static void phase_end(struct harness *h, struct outside *o, uint32_t phase)
{
	struct json_object *stats = json_object_new_object();

	if (!o->phases)
		o->phases = json_object_new_array();
	if (!stats || !o->phases || vm_stats_add(h->vm, stats))
		die("no counters");
	json_object_array_put_idx(o->phases, phase, stats);
}

static void command(struct harness *h, uint32_t command, uint32_t argument)
{
	struct outside *o = h->priv;

	switch (command) {
	case KIT_LOG_START:
		must(dirty_client_create(h->mmu, "payload", 0, &o->log), "dirty_client_create");
		must(dirty_client_watch(o->log, DIRTY_ALL_SLOTS), "dirty_client_watch");
		break;
	case KIT_LOG_TAKE: log_take(h, o); break;
	case KIT_LOG_STOP:
		dirty_client_destroy(o->log);
		o->log = NULL;
		break;
	case KIT_SLOT_ADD: slot_come(h, o, argument); break;
	case KIT_PHASE: phase_end(h, o, argument % 64); break;
	case KIT_SLOT_DELETE: must(slot_delete(h->mmu, SLOT), "slot_delete"); break;
	}
}

static const struct harness_ops ops = {.command = command};

static void write_stats(struct harness *h, const char *file, const struct outside *o)
{
	struct json_object *stats = harness_stats(h);
	const char *text;

	json_object_object_add(stats, "log_taken", json_object_new_uint64(o->taken));
	if (o->phases)
		json_object_object_add(stats, "phases", json_object_get(o->phases));
	text = json_object_to_json_string_ext(stats, JSON_C_TO_STRING_PRETTY);
	must(fd_write_file_atomic(AT_FDCWD, file, text, strlen(text), 0644), file);
	json_object_put(stats);
}

int main(int argc, char **argv)
{
	_cleanup_(buf_finish) struct buf json = {0};
	struct outside o = {.memory = aligned_alloc(SLOT_SIZE, SLOT_SIZE)};
	struct harness h;
	int status;

	if (argc < 2 || argc > 3 || !o.memory)
		die("usage: run_payload DEFINITION.json [STATS.json]");
	must(fd_read_file(AT_FDCWD, argv[1], MIB(1), &json), argv[1]);
	harness_create(&h, json.data ? json.data : "", &ops, &o);
	status = harness_run(&h);
	if (argc == 3)
		write_stats(&h, argv[2], &o);
	dirty_client_destroy(o.log);
	harness_destroy(&h);
	json_object_put(o.phases);
	free(o.memory);
	return status;
}
