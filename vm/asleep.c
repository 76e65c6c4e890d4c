/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine that sleeps in the kernel for ever, found from outside. */
#include "vm/vm_internal.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>

/*
 * A vCPU that has halted in the kernel tells nobody. So the loop looks now and then, cheaply: are
 * all asleep, and has none executed another HLT since the last look? Then they are stopped for a
 * moment and their registers tell whether anything can wake them; and not again before some vCPU
 * has executed another HLT.
 */
#define LOOK_MS 100
#define LOOK_AGAIN_MS                                                                              \
	1000 /* nothing new since that stop; or the kernel does not say who sleeps                 \
	      */

static bool stuck(struct vcpu *v)
{
	struct cpu_state s;

	if (v->frozen || v->vm->engine->vcpu_get_state(v->engine, &s))
		return false;
	if (s.activity == CPU_WAIT_FOR_SIPI)
		return true;
	return s.activity == CPU_HALTED && !(s.rflags & X86_FLAG_IF) && !s.nmi_pending;
}

static bool all_stuck(struct vm *vm)
{
	bool all = true;

	vcpus_hold(vm);
	for (unsigned k = 0; all && k < vm->cpus; k++)
		all = stuck(&vm->vcpus[k]);
	vcpus_release(vm);
	return all;
}

/* Have all slept since the last look, and was that not looked into? */
static bool suspicious(struct vm *vm)
{
	bool same = true, blind = false;

	for (unsigned k = 0; k < vm->cpus; k++) {
		int64_t halts = vm->engine->vcpu_asleep(vm->vcpus[k].engine);

		blind |= halts == -EOPNOTSUPP;
		same &= halts >= 0 && vm->slept[k] == halts;
		vm->slept[k] = halts;
	}
	if (blind)
		return true;
	vm->slept_told &= same;
	return same && !vm->slept_told;
}

static void rearm(struct vm *vm)
{
	unsigned ms = vm->slept_told ? LOOK_AGAIN_MS : LOOK_MS;
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	evtimer_add(vm->sleep_timer, &tv);
}

static void on_look(evutil_socket_t fd, short what, void *data)
{
	struct vm *vm = data;

	if (suspicious(vm)) {
		vm->slept_told = true;
		if (all_stuck(vm)) {
			vm_request_end(vm, VM_REASON_HALTED, 0, 0,
				       "every vCPU has halted with interrupts off");
			return;
		}
	}
	rearm(vm);
}

int vm_asleep_create(struct vm *vm)
{
	vm->sleep_timer = evtimer_new(vm->base, on_look, vm);
	vm->slept = calloc(vm->cpus, sizeof(*vm->slept));
	return vm->sleep_timer && vm->slept ? 0 : -ENOMEM;
}

void vm_asleep_destroy(struct vm *vm)
{
	if (vm->sleep_timer)
		event_free(vm->sleep_timer);
	free(vm->slept);
}

void vm_asleep_watch(struct vm *vm, bool on)
{
	evtimer_del(vm->sleep_timer);
	for (unsigned k = 0; k < vm->cpus; k++)
		vm->slept[k] = -EAGAIN;
	vm->slept_told = false;
	if (on && vm->engine->vcpu_asleep)
		rearm(vm);
}
