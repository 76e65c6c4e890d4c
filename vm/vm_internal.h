/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of a machine, for the files of vm/. */
#ifndef UMBRA_VM_INTERNAL_H
#define UMBRA_VM_INTERNAL_H

#include <pthread.h>

#include "base/buf.h"
#include "devices/board.h"
#include "engine/engine.h"
#include "vm/choose_engine.h"
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

	struct engine_choice choice; /* at creation; @engine is what runs it now */
	bool chips_stored; /* atomic: the engine's interrupt controllers count, not the board's */
	uint64_t kvmclock_ns; /* while stopped: what kvm's paravirtual clock showed */
	const struct engine_ops *engine;
	struct engine_vm *engine_vm;
	struct mmu_vm *mmu;
	struct engine_cpu_model model;	    /* what the guest sees, as far as the engine lets it */
	struct engine_cpu_model full_model; /* by the definition alone */
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

	struct event *sleep_timer; /* asleep.c */
	int64_t *slept;		   /* a vCPU: what vcpu_asleep() said at the last look */
	bool slept_told;	   /* nothing has changed since it was looked into */

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

/*
 * chips.c: interrupt controllers that are the engine's are so while the machine runs; while it is
 * stopped the board's form of them counts. Nothing to do for an engine that has none. 0 or -errno,
 * told in *err.
 */
enum board_chips vm_board_chips(const struct vm *vm);
int vm_chips_fetch(struct vm *vm, struct api_error *err);
int vm_chips_store(struct vm *vm, struct api_error *err);
extern const struct irq_router_ops vm_irq_ops;
void vm_pic_intr(void *opaque);

/*
 * asleep.c: a machine whose every vCPU has halted for ever ends. The vCPU threads find that by
 * themselves where they sleep here (vcpu.c); where they sleep in the kernel, the loop looks.
 */
int vm_asleep_create(struct vm *vm);
void vm_asleep_destroy(struct vm *vm);
/* The vCPUs are about to run, or have been stopped. */
void vm_asleep_watch(struct vm *vm, bool on);

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

/*
 * vm.c; the loop's thread. Start and stop vCPUs and time. In between the board's objects and the
 * vCPUs' states are the machine's whole state, to be saved, loaded or moved to another engine:
 * vm_engine_unmake(), vm_engine_make() (which takes what is in vm->mmu), board_set_chips(), load.
 */
void vm_go(struct vm *vm);
void vm_halt(struct vm *vm);
/* For an engine @ops of this machine; NULL: whatever the engine. 0, or -errno with *err. */
int vm_engine_config(struct vm *vm, const struct engine_ops *ops, struct engine_config *ret_config,
		     struct api_error *err);
/* There is no engine now. With its vCPUs fresh from reset, into vm->engine, vm->engine_vm and
 * vm->vcpus[].engine. 0, or -errno with *err, and none. */
int vm_engine_make(struct vm *vm, const struct engine_ops *ops, struct api_error *err);
void vm_engine_unmake(struct vm *vm);

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
/* The machine has another engine. */
void vm_trace_again(struct vm *vm);

/* engine_switch.c: the machine goes on with another engine. */
struct vm_move {
	const struct engine_ops *to;
	bool anyway; /* whatever its guest sees of it in CPUID and the TSC */
	/* What came of it; the caller's to finish. The state on either side, for
	 * vm_state_compare(); nothing when @to runs the machine already. */
	struct buf before, after;
	char cpuid[512]; /* what CPUID shows differently, a sentence; "": nothing */
	uint64_t tsc[2]; /* vCPU 0's on either side, where the new engine cannot go on from it */
};
/* 0, or -errno with *err, and the machine goes on where it was. The loop's thread. */
int vm_set_engine(struct vm *vm, struct vm_move *move, struct api_error *err);
/* What the leaves @now show differently from @was, as a sentence cut to @size. Whether there is
 * anything. */
bool vm_cpuid_differences(const struct cpu_cpuid *was, unsigned n_was, const struct cpu_cpuid *now,
			  unsigned n_now, char *text, size_t size);

/* load.c */
int vm_load(struct vm *vm, struct api_error *err);

/* stats.c */
int vm_stats_add(struct vm *vm, struct json_object *stats);
/* "shadow", "tdp"; "unknown" where only the host's kernel knows. */
const char *vm_policy_name(const struct vm *vm);
/* Under kvm the tables below the guest's are the kernel's, and it shows them to nobody. */
static inline bool vm_mmu_is_kernels(const struct vm *vm)
{
	return mmu_get_policy(vm->mmu) == MMU_POLICY_KERNEL;
}
/* What is known of the kernel's MMU (engine kvm). */
struct json_object *vm_kernel_mmu_json(void);
struct json_object *vm_crash_detail(struct vm *vm, unsigned vcpu);

#endif
