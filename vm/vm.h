/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One machine: memory, devices, vCPU threads, and the states it goes through. */
#ifndef UMBRA_VM_VM_H
#define UMBRA_VM_VM_H

#include "api/vm_proto.h"
#include "base/types.h"
#include "vm/boot.h"

/*
 * Threads. One loop (vm_create()'s caller) for devices' timers, console and control; with
 * clock "host" one thread a vCPU, with "instructions" one thread for all of them, in turns. The
 * calls below belong to the loop's thread unless marked.
 */
struct vm;
struct event_base;

struct vm_ops {
	/* Guest console output; any thread; may wait. */
	void (*console_output)(void *data, const uint8_t *bytes, size_t len);
	/* serial_input() has room again; any thread. */
	void (*console_ready)(void *data);
	/* The machine has reached another state. The loop's thread. */
	void (*state_changed)(void *data);
	/* First thing on each vCPU thread; optional. 0, or -errno: then there is no machine. */
	int (*vcpu_thread)(void *data);
};

/*
 * Make a machine of @def; its files are open in @files. Both, @ops and @data outlive it. Nothing
 * runs. 0, or -errno with *err.
 */
int vm_create(struct vm **out, struct event_base *base, const struct machine_def *def,
	      const struct machine_files *files, const struct vm_ops *ops, void *data,
	      struct api_error *err);
void vm_destroy(struct vm *vm);

/* Make the vCPU threads, held: from here on the machine makes no thread, and opens nothing. Once;
 * 0, or -errno with *err. */
int vm_make_threads(struct vm *vm, struct api_error *err);
/* Load the image and run, with threads made now unless they are there. A bad image ends the machine
 * (VM_REASON_BAD_IMAGE) and returns -errno. */
int vm_start(struct vm *vm, struct api_error *err);
int vm_pause(struct vm *vm, struct api_error *err);
int vm_resume(struct vm *vm, struct api_error *err);
/* Reset as by the button, whatever on_reset says. */
int vm_reset(struct vm *vm, struct api_error *err);
int vm_powerdown(struct vm *vm, struct api_error *err);
int vm_end(struct vm *vm, enum vm_reason reason, struct api_error *err);
/* @report is zeroed before; with the detail and, once ended, the statistics. */
void vm_query(struct vm *vm, struct vm_report *report);
int vm_stats(struct vm *vm, struct json_object *stats, struct api_error *err);
/* Input for the console; how much was taken. */
size_t vm_console_input(struct vm *vm, const void *bytes, size_t len);
enum vm_state vm_state(const struct vm *vm);
/* Does it run on /dev/kvm, or may it later (vm/choose_engine.h)? */
bool vm_may_kvm(const struct vm *vm);

#endif
