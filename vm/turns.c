/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Clock "instructions": vCPUs take turns on one thread, and an instruction is a nanosecond. */
#include "vm/vm_internal.h"

#include <signal.h>

/*
 * A turn is cut at the next device deadline, so timers fire at exact instructions. A device that
 * arms an earlier one amid a turn ends it there and then (turns_rearm), which is at an exact
 * instruction too, because it happens in an access of the guest's. When every vCPU sleeps, time
 * jumps to the deadline. Whatever comes from outside (console input, the power button) makes a run
 * its own; but not who only stops the machine for a while, to look at it or to change what the
 * guest cannot see: the turn goes on afterwards where it was.
 */
#define TURN_NS 20000ull

static uint64_t turns_now(void *opaque)
{
	struct vm *vm = opaque;

	return __atomic_load_n(&vm->virt_ns, __ATOMIC_RELAXED);
}

static void turns_rearm(void *opaque, uint64_t deadline)
{
	struct vm *vm = opaque;
	struct vcpu *v = __atomic_load_n(&vm->turn, __ATOMIC_SEQ_CST);

	if (!v || deadline == CLOCK_NEVER ||
	    clock_source_ns(&vm->clock, deadline) >=
		    __atomic_load_n(&vm->turn_end_ns, __ATOMIC_SEQ_CST))
		return;
	__atomic_store_n(&vm->turn_cut, true, __ATOMIC_SEQ_CST);
	vm->engine->vcpu_kick(v->engine);
}

const struct clock_ops turns_clock_ops = {
	.now_ns = turns_now,
	.rearm = turns_rearm,
};

void turns_sync(struct vm *vm)
{
	struct vcpu *v = vm->turn;

	if (!vm->counts || !v)
		return;
	__atomic_store_n(&vm->virt_ns,
			 vm->turn_start_ns + vm->engine->vcpu_icount(v->engine) -
				 vm->turn_start_icount,
			 __ATOMIC_RELAXED);
}

static uint64_t source_deadline(struct vm *vm)
{
	return clock_source_ns(&vm->clock, clock_next_deadline(&vm->clock));
}

/* The turn's instructions, in one go or with the machine stopped in between. */
static enum engine_exit run_turn(struct vm *vm, struct vcpu *v, uint64_t budget)
{
	uint64_t end = vm->turn_start_icount + budget;
	enum engine_exit exit;

	for (;;) {
		exit = vm->engine->vcpu_run(v->engine, end - vm->engine->vcpu_icount(v->engine));
		turns_sync(vm);
		if (exit == ENGINE_EXIT_DEBUG)
			vcpu_debug_stop(v);
		else if (exit != ENGINE_EXIT_KICK)
			return exit;
		if (__atomic_load_n(&vm->turn_cut, __ATOMIC_SEQ_CST) || vm_stop_requested(vm) ||
		    !vcpu_obey(&vm->vcpus[0]) || v->frozen)
			return exit;
	}
}

/* Returns false when the vCPU could not go on. */
static bool take_turn(struct vm *vm, struct vcpu *v)
{
	uint64_t deadline = source_deadline(vm);
	uint64_t budget = TURN_NS;
	enum engine_exit exit;

	vm->turn_start_ns = vm->virt_ns;
	vm->turn_start_icount = vm->engine->vcpu_icount(v->engine);
	if (deadline <= vm->virt_ns)
		return true;
	budget = MIN(budget, deadline - vm->virt_ns);
	vm->engine->vcpu_set_tsc(v->engine, clock_tsc(&vm->clock));
	__atomic_store_n(&vm->turn_cut, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&vm->turn_end_ns, vm->virt_ns + budget, __ATOMIC_SEQ_CST);
	__atomic_store_n(&vm->turn, v, __ATOMIC_SEQ_CST);
	exit = run_turn(vm, v, budget);
	__atomic_store_n(&vm->turn, NULL, __ATOMIC_SEQ_CST);
	if (exit == ENGINE_EXIT_SHUTDOWN)
		vm_request_end(vm, VM_REASON_CRASH, 0, v->index, "triple fault on vCPU %u",
			       v->index);
	else if (exit == ENGINE_EXIT_ERROR)
		vm_request_end(vm, VM_REASON_ENGINE, 0, v->index, "vCPU %u: %s", v->index,
			       vm->engine->vcpu_error(v->engine));
	return exit != ENGINE_EXIT_SHUTDOWN && exit != ENGINE_EXIT_ERROR;
}

/* Nobody can run: jump to the next deadline, or wait for something from outside. */
static void idle(struct vm *vm)
{
	struct vcpu *first = &vm->vcpus[0];
	uint64_t deadline = source_deadline(vm);

	if (deadline != CLOCK_NEVER) {
		if (deadline > vm->virt_ns)
			__atomic_store_n(&vm->virt_ns, deadline, __ATOMIC_RELAXED);
		return;
	}
	pthread_mutex_lock(&first->lock);
	__atomic_store_n(&first->sleeping, true, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&first->notified, __ATOMIC_SEQ_CST) && first->wish == VCPU_RUN)
		pthread_cond_wait(&first->cond, &first->lock);
	__atomic_store_n(&first->sleeping, false, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&first->lock);
	__atomic_store_n(&first->notified, false, __ATOMIC_SEQ_CST);
}

static bool any_can_wake(struct vm *vm)
{
	for (unsigned k = 0; k < vm->cpus; k++) {
		struct cpu_state s;

		vm->engine->vcpu_get_state(vm->vcpus[k].engine, &s);
		if (vm->vcpus[k].frozen)
			return true;
		if (s.activity == CPU_HALTED && (s.rflags & X86_FLAG_IF))
			return true;
	}
	return false;
}

static void *turns_thread(void *arg)
{
	struct vm *vm = arg;

	if (!vcpu_enter(&vm->vcpus[0]))
		return NULL;
	/* The first vCPU's wish stands for all. */
	while (vcpu_obey(&vm->vcpus[0])) {
		bool ran = false;

		if (vm_stop_requested(vm)) {
			vcpu_await_wish(&vm->vcpus[0]);
			continue;
		}
		for (unsigned k = 0; k < vm->cpus; k++) {
			struct vcpu *v = &vm->vcpus[k];

			if (v->frozen || !vm->engine->vcpu_runnable(v->engine))
				continue;
			ran = true;
			if (!take_turn(vm, v) || vm_stop_requested(vm))
				break;
			if (source_deadline(vm) <= vm->virt_ns)
				clock_run(&vm->clock);
		}
		if (!ran && !any_can_wake(vm))
			vm_request_end(vm, VM_REASON_HALTED, 0, 0,
				       "every vCPU has halted with interrupts off");
		if (!ran && !vm_stop_requested(vm)) {
			idle(vm);
			if (source_deadline(vm) <= vm->virt_ns)
				clock_run(&vm->clock);
		}
	}
	return NULL;
}

int turns_start(struct vm *vm)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&vm->turns_thread, NULL, turns_thread, vm);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	vm->turns_started = !ret;
	if (!ret)
		pthread_setname_np(vm->turns_thread, "vcpus");
	return ret ? ret : vcpu_await_enter(&vm->vcpus[0]);
}

void turns_stop(struct vm *vm)
{
	pthread_join(vm->turns_thread, NULL);
	vm->turns_started = false;
}
