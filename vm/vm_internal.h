/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of a machine, for the files of vm/. */
#ifndef UMBRA_VM_INTERNAL_H
#define UMBRA_VM_INTERNAL_H

#include <pthread.h>

#include "devices/board.h"
#include "engine/engine.h"
#include "vm/vm.h"

struct event;

/* What a vCPU thread is asked, beside running. */
enum vcpu_wish { VCPU_RUN, VCPU_HOLD, VCPU_QUIT };

struct vcpu {
	struct vm *vm;
	unsigned index;
	struct engine_vcpu *engine;
	pthread_t thread;
	bool started;
	bool entered;	 /* under lock: ops->vcpu_thread() has been called, */
	int enter_error; /* and returned this */

	pthread_mutex_t lock;
	pthread_cond_t cond; /* for the vCPU thread: notified or wish changed */
	enum vcpu_wish wish; /* under lock */
	bool held;	     /* under lock: it has stopped because of VCPU_HOLD */
	bool notified;	     /* atomic: look at interrupts again */
	bool sleeping;	     /* atomic: waits on cond */
	bool stuck; /* atomic: nothing of its own can wake it (HLT with IF clear, or waits for SIPI)
		     */

	/* A debugger's; changed while the vCPUs are held only, but for has_hit. */
	bool frozen;  /* it stays held when the others are let go */
	bool has_hit; /* atomic: it has left with ENGINE_EXIT_DEBUG, untold: */
	struct engine_debug_hit hit;
};

struct vm {
	const struct machine_def *def;
	const struct machine_files *files;
	const struct vm_ops *ops;
	void *data;
	struct event_base *base;

	/* Memory: one memfd, mapped once, two slots. */
	int ram_fd;
	uint8_t *ram;
	uint64_t ram_size, ram_below_4g, ram_above_4g;
	bool ram_fresh; /* nothing was ever written: it is all zero */

	const struct engine_ops *engine;
	struct engine_vm *engine_vm;
	struct mmu_vm *mmu;
	struct engine_cpu_model model;
	struct board *board;
	struct clock clock;
	bool clock_ready;
	unsigned cpus;
	struct vcpu *vcpus;
	bool has_threads;
	unsigned holds; /* vcpus_hold() without its vcpus_release(); they begin held once */

	/* With clock "instructions": the turn-taking thread's. */
	bool counts;
	pthread_t turns_thread;
	bool turns_started;
	uint64_t virt_ns;  /* atomic: the machine's time, also amid a turn */
	struct vcpu *turn; /* whose turn it is */
	uint64_t turn_start_ns, turn_start_icount;
	uint64_t turn_end_ns; /* atomic */
	bool turn_cut;	      /* atomic: an earlier deadline ends the turn here */

	struct vm_trace *trace; /* trace.c; NULL until somebody traces */

	struct event *timer; /* clock "host": the earliest device deadline */
	int timer_fd;
	struct event *wake; /* an end or reset was requested */
	int wake_fd;
	int pagemap_fd; /* /proc/self/pagemap; -1: there is none */
	struct event *timeout;

	/*
	 * A debugger's hold is apart from @state, which is the operator's: the vCPUs run when both
	 * let them (vm_runs()).
	 */
	struct vm_gdb *gdb;
	struct vm_dirty *dirty; /* clients over the API; NULL before the first */
	bool debug_stopped;
	bool debug_hit; /* atomic: some vCPU's has_hit was set, for the loop to see */

	enum vm_state state;
	uint64_t started_ns, ran_ns; /* host time */
	pthread_mutex_t end_lock;
	/* Under end_lock, where the first request counts; atomic for who only asks. */
	bool end_requested, reset_requested;
	enum vm_reason reason;
	int code;
	char message[256];
	unsigned end_vcpu;
	struct json_object *detail;
	struct boot_result boot;
};

/* vcpu.c */
int vcpus_create(struct vm *vm);
void vcpus_destroy(struct vm *vm);
int vcpus_start(struct vm *vm);
/* Wait until none is running, or let them go on. They nest: who stops the machine for a moment lets
 * it go on only when nobody else has stopped it. The loop's thread. */
void vcpus_hold(struct vm *vm);
void vcpus_release(struct vm *vm);
void vcpu_notify(struct vcpu *v);
/* On the vCPU's thread: hold while asked to; false when the thread is to end. */
bool vcpu_obey(struct vcpu *v);
/* On a new thread: ops->vcpu_thread(); false when the thread is to end. And its creator waits. */
bool vcpu_enter(struct vcpu *v);
int vcpu_await_enter(struct vcpu *v);
/* On the vCPU's thread: until it is asked for something else than running. */
void vcpu_await_wish(struct vcpu *v);
/* On the vCPU's thread, after ENGINE_EXIT_DEBUG: tell the debugger and wait to be held. */
void vcpu_debug_stop(struct vcpu *v);
extern const struct engine_host vm_engine_host;
extern const struct lapic_ops vm_lapic_ops;

/* turns.c: clock "instructions" */
int turns_start(struct vm *vm);
void turns_stop(struct vm *vm);
/* Bring virt_ns up to the instruction that is being carried out. */
void turns_sync(struct vm *vm);
extern const struct clock_ops turns_clock_ops;

/* vm.c; any thread */
void vm_request_end(struct vm *vm, enum vm_reason reason, int code, unsigned vcpu, const char *fmt,
		    ...) __attribute__((format(printf, 5, 6)));
void vm_request_reset(struct vm *vm);
/* The loop is to call vm_gdb_hit(). */
void vm_request_debug(struct vm *vm);
/* An end or a reset was requested: no instruction of the guest's is to follow. */
bool vm_stop_requested(struct vm *vm);
bool vm_all_stuck(struct vm *vm);

/* mmu_options.c: policy, format, bounds and mechanisms of @def into @config. 0, or -EINVAL. */
int vm_mmu_options(const struct machine_def *def, struct engine_config *config,
		   struct api_error *err);

/* vm.c; the loop's thread: are the vCPUs let run, by the operator and by a debugger? */
bool vm_runs(const struct vm *vm);
/* A debugger's hold, clock included. */
void vm_debug_hold(struct vm *vm);
void vm_debug_release(struct vm *vm);

/* gdb.c; the loop's thread */
/* vm->debug_hit was set. */
void vm_gdb_hit(struct vm *vm);
/* The machine has ended: tell the debugger and close. */
void vm_gdb_ended(struct vm *vm);
/* NULL-safe. The vCPUs stay as they are. */
void vm_gdb_destroy(struct vm_gdb *gdb);

/* dirty_api.c: end the clients' logs. NULL-safe; the loop's thread. */
void vm_dirty_destroy(struct vm_dirty *d);

/* trace.c */
void vm_trace_destroy(struct vm *vm);

/* load.c */
int vm_load(struct vm *vm, struct api_error *err);

/* stats.c */
int vm_stats_add(struct vm *vm, struct json_object *stats);
struct json_object *vm_crash_detail(struct vm *vm, unsigned vcpu);

#endif
