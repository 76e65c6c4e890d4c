/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* GDB's remote serial protocol, served for anything that has vCPUs: bytes in, bytes out. */
#ifndef UMBRA_VM_GDB_STUB_H
#define UMBRA_VM_GDB_STUB_H

#include "base/buf.h"
#include "engine/engine.h"
#include "vm/gdb_regs.h"

/*
 * The stub does no I/O and has no thread: the owner feeds it with what the debugger sends and sends
 * what it puts into gdb_stub_output(). All-stop: either every vCPU stands still, and packets are
 * answered at once, or the debugger waits for gdb_stub_stopped(). Thread N is vCPU N - 1.
 */
struct gdb_stub;

#define GDB_PACKET_MAX	 16384	/* of a packet, both ways, as qSupported tells */
#define GDB_OUTPUT_MAX	 MIB(1) /* a debugger that asks on and on and reads nothing is cut off */
#define GDB_MONITOR_MAX	 MIB(1) /* what a monitor command may print */
#define GDB_STOP_SIGINT	 2
#define GDB_STOP_SIGTRAP 5

/* What a vCPU is to do. */
enum gdb_action { GDB_HOLD, GDB_STEP, GDB_CONTINUE };

struct gdb_resume {
	unsigned vcpus;
	const enum gdb_action *action; /* by vCPU; at least one goes on */
	const struct cpu_host_debug *debug;
};

enum gdb_stop_reason {
	GDB_STOPPED_OTHERWISE,	/* .signal says how */
	GDB_STOPPED_BREAKPOINT, /* .gva */
	GDB_STOPPED_WATCH,	/* .gva: where the watched range begins */
};

struct gdb_stop {
	unsigned vcpu;
	int signal;
	enum gdb_stop_reason reason;
	gva_t gva;
};

/*
 * What is debugged. Called from within gdb_stub_input() only, with every vCPU standing still but
 * for stop(). All are mandatory.
 */
struct gdb_target_ops {
	void (*get_state)(void *target, unsigned vcpu, struct cpu_state *ret_state);
	/* 0 or -errno: the state cannot be. */
	int (*set_state)(void *target, unsigned vcpu, const struct cpu_state *state);
	/*
	 * Guest memory at a linear address as @vcpu sees it, whatever its privilege. How many bytes
	 * could be read or written, from the first on; 0 with a sentence in @why.
	 */
	size_t (*read)(void *target, unsigned vcpu, gva_t gva, void *data, size_t len,
		       struct buf *why);
	size_t (*write)(void *target, unsigned vcpu, gva_t gva, const void *data, size_t len,
			struct buf *why);
	/* Could these stop the vCPUs? 0 or -errno. What counts is what resume() has. */
	int (*can_stop)(void *target, const struct cpu_host_debug *debug);
	/* Let the vCPUs go; may call gdb_stub_stopped() at once. */
	void (*resume)(void *target, const struct gdb_resume *resume);
	/* Hold them all; returns when they stand. */
	void (*stop)(void *target);
	/* End the machine, as by force. */
	void (*kill)(void *target);
	/* A command of the user's (qRcmd); what to print goes into @out. */
	void (*monitor)(void *target, unsigned vcpu, const char *command, struct buf *out);
};

/* 1 to GDB_VCPUS_MAX vCPUs, all standing still. NULL: no memory. */
#define GDB_VCPUS_MAX 256
struct gdb_stub *gdb_stub_create(const struct gdb_target_ops *ops, void *target, unsigned vcpus,
				 enum gdb_arch arch);
void gdb_stub_destroy(struct gdb_stub *stub);

/*
 * Bytes from the debugger. 0, or 1: it is done (detached, or killed the machine), so send the
 * output and close; -EPROTO (a packet beyond GDB_PACKET_MAX), -ENOBUFS (GDB_OUTPUT_MAX), -ENOMEM.
 * The vCPUs are left as they are.
 */
int gdb_stub_input(struct gdb_stub *stub, const void *data, size_t len);
/* What is to be sent; the owner consumes it. */
struct buf *gdb_stub_output(struct gdb_stub *stub);

/* After resume(): every vCPU stands still again, for this reason. */
void gdb_stub_stopped(struct gdb_stub *stub, const struct gdb_stop *stop);
/* A message for the user, while the debugger waits for a stop; else dropped. */
void gdb_stub_print(struct gdb_stub *stub, const char *text);
/* The machine has ended; @status as vmctl's exit status, @crashed when by a fault of the guest's.
 */
void gdb_stub_ended(struct gdb_stub *stub, bool crashed, int status);
/* Whether the debugger has let the vCPUs go and waits for a stop. */
bool gdb_stub_running(const struct gdb_stub *stub);

#endif
