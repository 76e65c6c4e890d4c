/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vCPU threads, and what engine and local APICs ask of the machine. */
#include "vm/vm_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- waking -----------------------------------------------------------------------------------
 */

void vcpu_notify(struct vcpu *v)
{
	__atomic_store_n(&v->notified, true, __ATOMIC_SEQ_CST);
	v->vm->engine->vcpu_notify(v->engine);
	if (__atomic_load_n(&v->sleeping, __ATOMIC_SEQ_CST)) {
		pthread_mutex_lock(&v->lock);
		pthread_cond_signal(&v->cond);
		pthread_mutex_unlock(&v->lock);
	}
}

/* HLT, or waiting for a start-up IPI: until something is to be looked at. */
static void vcpu_sleep(struct vcpu *v)
{
	struct cpu_state s = {.rflags = X86_FLAG_IF};

	v->vm->engine->vcpu_get_state(v->engine, &s);
	__atomic_store_n(&v->stuck, !(s.rflags & X86_FLAG_IF) || s.activity == CPU_WAIT_FOR_SIPI,
			 __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&v->lock);
	__atomic_store_n(&v->sleeping, true, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&v->notified, __ATOMIC_SEQ_CST) && vm_all_stuck(v->vm))
		vm_request_end(v->vm, VM_REASON_HALTED, 0, v->index,
			       "every vCPU has halted with interrupts off");
	while (!__atomic_load_n(&v->notified, __ATOMIC_SEQ_CST) && v->wish == VCPU_RUN)
		pthread_cond_wait(&v->cond, &v->lock);
	__atomic_store_n(&v->sleeping, false, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&v->lock);
	__atomic_store_n(&v->notified, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->stuck, false, __ATOMIC_SEQ_CST);
}

bool vm_all_stuck(struct vm *vm)
{
	for (unsigned k = 0; k < vm->cpus; k++) {
		struct vcpu *v = &vm->vcpus[k];

		if (!__atomic_load_n(&v->stuck, __ATOMIC_SEQ_CST) ||
		    __atomic_load_n(&v->notified, __ATOMIC_SEQ_CST) ||
		    !__atomic_load_n(&v->sleeping, __ATOMIC_SEQ_CST))
			return false;
	}
	return true;
}

/* ---- the thread -------------------------------------------------------------------------------
 */

bool vcpu_obey(struct vcpu *v)
{
	bool own = !v->vm->counts; /* else v stands for all, and turns.c leaves out the frozen */
	bool go_on;

	pthread_mutex_lock(&v->lock);
	while (v->wish == VCPU_HOLD || (v->wish == VCPU_RUN && v->frozen && own)) {
		v->held = true;
		pthread_cond_broadcast(&v->cond);
		pthread_cond_wait(&v->cond, &v->lock);
	}
	v->held = false;
	go_on = v->wish == VCPU_RUN;
	pthread_mutex_unlock(&v->lock);
	return go_on;
}

void vcpu_await_wish(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	while (v->wish == VCPU_RUN)
		pthread_cond_wait(&v->cond, &v->lock);
	pthread_mutex_unlock(&v->lock);
}

void vcpu_debug_stop(struct vcpu *v)
{
	v->vm->engine->vcpu_debug_hit(v->engine, &v->hit);
	__atomic_store_n(&v->has_hit, true, __ATOMIC_SEQ_CST);
	vm_request_debug(v->vm);
	/* With one thread for all, the first vCPU's wish stands for all. */
	vcpu_await_wish(v->vm->counts ? &v->vm->vcpus[0] : v);
}

static void vcpu_ended(struct vcpu *v, enum engine_exit exit)
{
	struct vm *vm = v->vm;

	if (exit == ENGINE_EXIT_SHUTDOWN)
		vm_request_end(vm, VM_REASON_CRASH, 0, v->index, "triple fault on vCPU %u",
			       v->index);
	else if (exit == ENGINE_EXIT_ERROR)
		vm_request_end(vm, VM_REASON_ENGINE, 0, v->index, "vCPU %u: %s", v->index,
			       vm->engine->vcpu_error(v->engine));
	vcpu_await_wish(v);
}

bool vcpu_enter(struct vcpu *v)
{
	const struct vm_ops *ops = v->vm->ops;
	int ret = ops->vcpu_thread ? ops->vcpu_thread(v->vm->data) : 0;

	pthread_mutex_lock(&v->lock);
	v->entered = true;
	v->enter_error = ret;
	pthread_cond_broadcast(&v->cond);
	pthread_mutex_unlock(&v->lock);
	return !ret;
}

int vcpu_await_enter(struct vcpu *v)
{
	int ret;

	pthread_mutex_lock(&v->lock);
	while (!v->entered)
		pthread_cond_wait(&v->cond, &v->lock);
	ret = v->enter_error;
	pthread_mutex_unlock(&v->lock);
	return ret;
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;

	if (!vcpu_enter(v))
		return NULL;
	while (vcpu_obey(v)) {
		enum engine_exit exit;

		if (vm_stop_requested(v->vm)) {
			vcpu_await_wish(v);
			continue;
		}
		exit = v->vm->engine->vcpu_run(v->engine, ~0ull);
		if (exit == ENGINE_EXIT_SHUTDOWN || exit == ENGINE_EXIT_ERROR)
			vcpu_ended(v, exit);
		else if (exit == ENGINE_EXIT_HALT && !vm_stop_requested(v->vm))
			vcpu_sleep(v);
		else if (exit == ENGINE_EXIT_DEBUG)
			vcpu_debug_stop(v);
	}
	return NULL;
}

static void set_wish(struct vcpu *v, enum vcpu_wish wish)
{
	pthread_mutex_lock(&v->lock);
	v->wish = wish;
	pthread_cond_broadcast(&v->cond);
	pthread_mutex_unlock(&v->lock);
	if (wish != VCPU_RUN && v->engine)
		v->vm->engine->vcpu_kick(v->engine);
}

int vcpus_create(struct vm *vm)
{
	vm->vcpus = calloc(vm->cpus, sizeof(*vm->vcpus));
	if (!vm->vcpus)
		return -ENOMEM;
	vm->holds = 1;
	for (unsigned k = 0; k < vm->cpus; k++) {
		struct vcpu *v = &vm->vcpus[k];

		v->vm = vm;
		v->index = k;
		v->wish = VCPU_HOLD;
		pthread_mutex_init(&v->lock, NULL);
		pthread_cond_init(&v->cond, NULL);
	}
	return 0;
}

int vcpus_start(struct vm *vm)
{
	sigset_t all, old;
	int ret = 0;

	if (vm->counts)
		return turns_start(vm);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (unsigned k = 0; k < vm->cpus && !ret; k++) {
		struct vcpu *v = &vm->vcpus[k];
		char name[16];

		ret = -pthread_create(&v->thread, NULL, vcpu_thread, v);
		v->started = !ret;
		snprintf(name, sizeof(name), "vcpu%u", k);
		if (!ret)
			pthread_setname_np(v->thread, name);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	for (unsigned k = 0; k < vm->cpus && !ret; k++)
		ret = vcpu_await_enter(&vm->vcpus[k]);
	return ret;
}

void vcpus_hold(struct vm *vm)
{
	if (vm->holds++)
		return;
	for (unsigned k = 0; k < vm->cpus; k++)
		set_wish(&vm->vcpus[k], VCPU_HOLD);
	/* With one thread for all, the first vCPU is the one that holds. */
	for (unsigned k = 0; k < (vm->counts ? 1 : vm->cpus); k++) {
		struct vcpu *v = &vm->vcpus[k];

		pthread_mutex_lock(&v->lock);
		while ((v->started || vm->turns_started) && !v->held)
			pthread_cond_wait(&v->cond, &v->lock);
		pthread_mutex_unlock(&v->lock);
	}
}

void vcpus_release(struct vm *vm)
{
	if (--vm->holds)
		return;
	for (unsigned k = 0; k < vm->cpus; k++) {
		__atomic_store_n(&vm->vcpus[k].notified, true, __ATOMIC_SEQ_CST);
		set_wish(&vm->vcpus[k], VCPU_RUN);
	}
}

void vcpus_destroy(struct vm *vm)
{
	if (!vm->vcpus)
		return;
	for (unsigned k = 0; k < vm->cpus; k++)
		set_wish(&vm->vcpus[k], VCPU_QUIT);
	if (vm->turns_started)
		turns_stop(vm);
	for (unsigned k = 0; k < vm->cpus; k++) {
		struct vcpu *v = &vm->vcpus[k];

		if (v->started)
			pthread_join(v->thread, NULL);
		pthread_cond_destroy(&v->cond);
		pthread_mutex_destroy(&v->lock);
	}
	free(vm->vcpus);
	vm->vcpus = NULL;
}

/* ---- what the engine asks ----------------------------------------------------------------------
 */

static struct lapic *lapic_of(struct vm *vm, unsigned vcpu)
{
	return board_lapic(vm->board, vcpu);
}

static void host_pio(void *priv, unsigned vcpu, uint16_t port, bool in, unsigned size,
		     uint32_t *data)
{
	struct vm *vm = priv;

	turns_sync(vm);
	if (in)
		*data = (uint32_t)board_pio_read(vm->board, port, size);
	else
		board_pio_write(vm->board, port, size, *data);
}

/* The devices take powers of two; the processor may ask for 3 bytes of a split access. */
static unsigned piece(unsigned size)
{
	return size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
}

static void host_mmio(void *priv, unsigned vcpu, gpa_t gpa, bool write, unsigned size, void *data)
{
	struct vm *vm = priv;
	uint8_t *bytes = data;

	turns_sync(vm);
	while (size) {
		unsigned n = piece(size);
		uint64_t value = 0;

		if (write) {
			__builtin_memcpy(&value, bytes, n);
			board_mmio_write(vm->board, vcpu, gpa, n, value);
		} else {
			value = board_mmio_read(vm->board, vcpu, gpa, n);
			__builtin_memcpy(bytes, &value, n);
		}
		bytes += n;
		gpa += n;
		size -= n;
	}
}

static int host_irq_pending(void *priv, unsigned vcpu)
{
	return lapic_pending(lapic_of(priv, vcpu));
}

static int host_irq_ack(void *priv, unsigned vcpu)
{
	return lapic_ack(lapic_of(priv, vcpu));
}

static int host_msr_read(void *priv, unsigned vcpu, uint32_t index, uint64_t *value)
{
	turns_sync(priv);
	return lapic_owns_msr(index) ? lapic_msr_read(lapic_of(priv, vcpu), index, value) : 1;
}

static int host_msr_write(void *priv, unsigned vcpu, uint32_t index, uint64_t value)
{
	turns_sync(priv);
	return lapic_owns_msr(index) ? lapic_msr_write(lapic_of(priv, vcpu), index, value) : 1;
}

static void host_tsc_offset(void *priv, unsigned vcpu, uint64_t offset)
{
	turns_sync(priv);
	lapic_set_tsc_offset(lapic_of(priv, vcpu), offset);
}

static void host_init(void *priv, unsigned vcpu)
{
	lapic_reset(lapic_of(priv, vcpu), LAPIC_RESET_INIT);
}

static uint64_t host_cr8_read(void *priv, unsigned vcpu)
{
	return lapic_get_cr8(lapic_of(priv, vcpu));
}

static void host_cr8_write(void *priv, unsigned vcpu, uint64_t value)
{
	lapic_set_cr8(lapic_of(priv, vcpu), (uint8_t)value);
}

static void host_eoi(void *priv, uint8_t vector)
{
	struct vm *vm = priv;

	board_eoi(vm->board, vector);
}

static bool host_pic_pending(void *priv)
{
	struct vm *vm = priv;

	return board_pic_pending(vm->board);
}

static int host_pic_ack(void *priv)
{
	struct vm *vm = priv;

	return board_pic_pending(vm->board) ? pic_ack(&vm->board->pic) : -1;
}

const struct engine_host vm_engine_host = {
	.pio = host_pio,
	.mmio = host_mmio,
	.irq_pending = host_irq_pending,
	.irq_ack = host_irq_ack,
	.msr_read = host_msr_read,
	.msr_write = host_msr_write,
	.tsc_offset = host_tsc_offset,
	.init = host_init,
	.cr8_read = host_cr8_read,
	.cr8_write = host_cr8_write,
	.eoi = host_eoi,
	.pic_pending = host_pic_pending,
	.pic_ack = host_pic_ack,
};

/* ---- what the local APICs ask
 * -------------------------------------------------------------------- */

static void apic_kick(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;

	vcpu_notify(&vm->vcpus[cpu]);
}

static void apic_nmi(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;

	vm->engine->vcpu_nmi(vm->vcpus[cpu].engine);
	vcpu_notify(&vm->vcpus[cpu]);
}

static void apic_init(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;

	vm->engine->vcpu_init(vm->vcpus[cpu].engine);
	vcpu_notify(&vm->vcpus[cpu]);
}

static void apic_sipi(void *opaque, unsigned cpu, uint8_t vector)
{
	struct vm *vm = opaque;

	vm->engine->vcpu_sipi(vm->vcpus[cpu].engine, vector);
	vcpu_notify(&vm->vcpus[cpu]);
}

const struct lapic_ops vm_lapic_ops = {
	.kick = apic_kick,
	.nmi = apic_nmi,
	.init = apic_init,
	.sipi = apic_sipi,
};
