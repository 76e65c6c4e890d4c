/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A vCPU's loop: into KVM_RUN, what it came out for, and how others make it leave. */
#include "engine/kvm/kvm_internal.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Newer than Debian 12's headers (include/uapi/linux/kvm.h). */
#define EXIT_MEMORY_FAULT 39
#define EXIT_LAST	  (ENGINE_KVM_EXITS - 1)

static const char *const exit_names[ENGINE_KVM_EXITS] = {
	[KVM_EXIT_UNKNOWN] = "unknown",
	[KVM_EXIT_EXCEPTION] = "exception",
	[KVM_EXIT_IO] = "io",
	[KVM_EXIT_HYPERCALL] = "hypercall",
	[KVM_EXIT_DEBUG] = "debug",
	[KVM_EXIT_HLT] = "hlt",
	[KVM_EXIT_MMIO] = "mmio",
	[KVM_EXIT_IRQ_WINDOW_OPEN] = "irq_window",
	[KVM_EXIT_SHUTDOWN] = "triple_fault",
	[KVM_EXIT_FAIL_ENTRY] = "fail_entry",
	[KVM_EXIT_INTR] = "kick",
	[KVM_EXIT_SET_TPR] = "set_tpr",
	[KVM_EXIT_TPR_ACCESS] = "tpr_access",
	[KVM_EXIT_NMI] = "nmi",
	[KVM_EXIT_INTERNAL_ERROR] = "internal_error",
	[KVM_EXIT_WATCHDOG] = "watchdog",
	[KVM_EXIT_SYSTEM_EVENT] = "system_event",
	[KVM_EXIT_IOAPIC_EOI] = "ioapic_eoi",
	[KVM_EXIT_HYPERV] = "hyperv",
	[KVM_EXIT_X86_RDMSR] = "msr_read",
	[KVM_EXIT_X86_WRMSR] = "msr_write",
	[KVM_EXIT_DIRTY_RING_FULL] = "dirty_ring_full",
	[KVM_EXIT_AP_RESET_HOLD] = "ap_reset_hold",
	[KVM_EXIT_X86_BUS_LOCK] = "bus_lock",
	[KVM_EXIT_XEN] = "xen",
	[KVM_EXIT_NOTIFY] = "notify",
	[EXIT_MEMORY_FAULT] = "memory_fault",
	[EXIT_LAST] = "other",
};

const char *engine_kvm_exit_name(unsigned reason)
{
	return reason < ENGINE_KVM_EXITS ? exit_names[reason] : NULL;
}

enum engine_exit kvm_fail(struct engine_vcpu *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(v->error, sizeof(v->error), fmt, ap);
	va_end(ap);
	return ENGINE_EXIT_ERROR;
}

/* ---- kicks --------------------------------------------------------------------------------- */

/* One that nothing else uses, the C library's own apart. */
#define KICK_SIGNAL (SIGRTMIN + 3)

/* That the system call was interrupted is all that it is for. */
static void on_kick(int sig)
{
}

int kvm_kick_setup(void)
{
	struct sigaction sa = {.sa_handler = on_kick, .sa_flags = SA_RESTART};

	return sigaction(KICK_SIGNAL, &sa, NULL) ? -errno : 0;
}

void kvm_request(struct engine_vcpu *v, uint32_t request)
{
	__atomic_fetch_or(&v->requests, request, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	kvm_dirty_wake(v);
	if (!__atomic_load_n(&v->in_run, __ATOMIC_SEQ_CST))
		return;
	__atomic_fetch_add(&v->stats.kvm_kicks, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&v->thread_lock);
	if (v->has_thread)
		pthread_kill(v->thread, KICK_SIGNAL);
	pthread_mutex_unlock(&v->thread_lock);
}

/* A request that comes after the look sets immediate_exit again. */
static uint32_t take_requests(struct engine_vcpu *v)
{
	if (likely(!__atomic_load_n(&v->run->immediate_exit, __ATOMIC_RELAXED)))
		return 0;
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	return __atomic_exchange_n(&v->requests, 0, __ATOMIC_SEQ_CST);
}

/* The caller is in vcpu_run() from now on. Threads of umbra-vm have all signals blocked. */
static void thread_enter(struct engine_vcpu *v)
{
	static __thread bool unblocked;
	sigset_t kick;

	if (!unblocked) {
		sigemptyset(&kick);
		sigaddset(&kick, KICK_SIGNAL);
		pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
		unblocked = true;
	}
	pthread_mutex_lock(&v->thread_lock);
	v->thread = pthread_self();
	v->has_thread = true;
	pthread_mutex_unlock(&v->thread_lock);
}

static void thread_leave(struct engine_vcpu *v)
{
	pthread_mutex_lock(&v->thread_lock);
	v->has_thread = false;
	pthread_mutex_unlock(&v->thread_lock);
}

/* ---- the gate ------------------------------------------------------------------------------ */

void kvm_gate_close(struct engine_vm *vm)
{
	pthread_mutex_lock(&vm->gate_lock);
	__atomic_fetch_add(&vm->gate_closed, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&vm->gate_lock);
	for (unsigned k = 0; k < vm->count; k++) {
		struct engine_vcpu *v = &vm->vcpus[k];

		if (!__atomic_load_n(&v->in_run, __ATOMIC_SEQ_CST))
			continue;
		kvm_request(v, KVM_REQ_LOOK);
		while (__atomic_load_n(&v->in_run, __ATOMIC_SEQ_CST))
			sched_yield();
	}
}

void kvm_gate_open(struct engine_vm *vm)
{
	pthread_mutex_lock(&vm->gate_lock);
	__atomic_fetch_sub(&vm->gate_closed, 1, __ATOMIC_SEQ_CST);
	pthread_cond_broadcast(&vm->gate_cond);
	pthread_mutex_unlock(&vm->gate_lock);
}

static void await_gate(struct engine_vm *vm)
{
	pthread_mutex_lock(&vm->gate_lock);
	while (vm->gate_closed)
		pthread_cond_wait(&vm->gate_cond, &vm->gate_lock);
	pthread_mutex_unlock(&vm->gate_lock);
}

/* KVM_RUN, when the gate is open: what it returned. */
static int enter(struct engine_vcpu *v)
{
	int ret;

	for (;;) {
		__atomic_store_n(&v->in_run, 1, __ATOMIC_SEQ_CST);
		if (likely(!__atomic_load_n(&v->vm->gate_closed, __ATOMIC_SEQ_CST)))
			break;
		__atomic_store_n(&v->in_run, 0, __ATOMIC_SEQ_CST);
		await_gate(v->vm);
	}
	v->stats.entries++;
	ret = kvm_call_n(v->fd, KVM_RUN, 0);
	__atomic_store_n(&v->in_run, 0, __ATOMIC_SEQ_CST);
	return ret;
}

/* ---- exits --------------------------------------------------------------------------------- */

/* What to do after an exit. */
enum next {
	RESUME,
	LEAVE, /* *ret_exit says with what */
};

static enum next leave(enum engine_exit *ret_exit, enum engine_exit exit)
{
	*ret_exit = exit;
	return LEAVE;
}

static uint64_t rip_of(struct engine_vcpu *v)
{
	struct kvm_regs regs = {0};

	kvm_call(v->fd, KVM_GET_REGS, &regs);
	return regs.rip;
}

/* String instructions come with many elements at once. */
static enum next exit_io(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	const struct engine_config *config = &v->vm->config;
	struct kvm_run *run = v->run;
	uint8_t *at = (uint8_t *)run + run->io.data_offset;
	bool in = run->io.direction == KVM_EXIT_IO_IN;
	unsigned size = run->io.size;

	v->pending_io = true;
	v->stats.pio += run->io.count;
	for (uint32_t n = 0; n < run->io.count; n++, at += size) {
		uint32_t data = in ? ~0u : 0;

		if (!in)
			memcpy(&data, at, size);
		config->host->pio(config->host_priv, v->id, run->io.port, in, size, &data);
		if (in)
			memcpy(at, &data, size);
	}
	return RESUME;
}

static enum next exit_mmio(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	const struct engine_config *config = &v->vm->config;
	struct kvm_run *run = v->run;

	v->pending_io = true;
	v->stats.mmio++;
	config->host->mmio(config->host_priv, v->id, run->mmio.phys_addr, run->mmio.is_write,
			   MIN(run->mmio.len, (uint32_t)sizeof(run->mmio.data)), run->mmio.data);
	return RESUME;
}

static enum next exit_msr(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	struct kvm_run *run = v->run;
	uint64_t value = run->msr.data;
	int fault;

	v->pending_io = true;
	if (run->exit_reason == KVM_EXIT_X86_WRMSR) {
		fault = kvm_msr_write(v, run->msr.index, value);
	} else {
		value = 0;
		fault = kvm_msr_read(v, run->msr.index, &value);
		run->msr.data = value;
	}
	run->msr.error = fault != 0;
	return RESUME;
}

static enum next exit_shutdown(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	return leave(ret_exit, ENGINE_EXIT_SHUTDOWN);
}

static enum next exit_resume(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	return RESUME;
}

static enum next exit_eoi(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	const struct engine_config *config = &v->vm->config;

	config->host->eoi(config->host_priv, v->run->eoi.vector);
	return RESUME;
}

static enum next exit_debug(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	int ret;

	if (kvm_quirks_hit(v)) {
		ret = kvm_quirks_help(v, ret_exit);
		if (ret < 0)
			return leave(ret_exit, ENGINE_EXIT_ERROR);
		return ret ? LEAVE : RESUME;
	}
	return kvm_debug_exit(v) ? leave(ret_exit, ENGINE_EXIT_DEBUG) : RESUME;
}

static enum next exit_ring_full(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	int ret = kvm_dirty_ring_full(v);

	if (ret)
		return leave(ret_exit,
			     kvm_fail(v, "the dirty ring could not be emptied: %s", kvm_failure()));
	return RESUME;
}

static enum next exit_fail_entry(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	const struct kvm_run *run = v->run;

	return leave(ret_exit,
		     kvm_fail(v,
			      "the processor refused to enter the guest at %#llx: hardware reason "
			      "%#llx on host CPU %u",
			      (unsigned long long)rip_of(v),
			      (unsigned long long)run->fail_entry.hardware_entry_failure_reason,
			      run->fail_entry.cpu));
}

static enum next exit_unknown(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	return leave(ret_exit,
		     kvm_fail(v,
			      "the processor left the guest at %#llx with a reason that KVM does "
			      "not know: %#llx",
			      (unsigned long long)rip_of(v),
			      (unsigned long long)v->run->hw.hardware_exit_reason));
}

static enum next exit_system_event(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	static const char *const names[] = {"?",      "shutdown", "reset",	    "crash",
					    "wakeup", "suspend",  "SEV termination"};
	uint32_t type = v->run->system_event.type;

	return leave(ret_exit, kvm_fail(v, "system event of KVM at %#llx: %s (%u)",
					(unsigned long long)rip_of(v),
					type < ARRAY_SIZE(names) ? names[type] : "?", type));
}

/* ---- internal errors ----------------------------------------------------------------------- */

/* v->error, from @len on. */
static void add_words(struct engine_vcpu *v, size_t len, const __u64 *data, unsigned n)
{
	for (unsigned k = 0; k < n && len < sizeof(v->error); k++)
		len += (size_t)snprintf(v->error + len, sizeof(v->error) - len, "%s%#llx",
					k ? " " : "; data ", (unsigned long long)data[k]);
}

static void add_code(struct engine_vcpu *v, const uint8_t *code, unsigned n)
{
	size_t len = strlen(v->error);

	for (unsigned k = 0; k < n && len < sizeof(v->error); k++)
		len += (size_t)snprintf(v->error + len, sizeof(v->error) - len, "%s%02x",
					k ? " " : ", code ", code[k]);
}

static const char *suberror_name(uint32_t suberror)
{
	static const char *const names[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "an instruction that it cannot emulate",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "simultaneous exceptions",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "an exit amid the delivery of an event",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an unexpected exit reason",
	};

	return suberror < ARRAY_SIZE(names) && names[suberror] ? names[suberror] : "unknown";
}

/* The words that come with it, the instruction's bytes where KVM tells them, else memory's. */
static void describe_internal_error(struct engine_vcpu *v)
{
	const struct kvm_run *run = v->run;
	uint32_t suberror = run->internal.suberror;
	unsigned ndata = MIN(run->internal.ndata, (uint32_t)ARRAY_SIZE(run->internal.data));
	uint64_t rip = rip_of(v);
	uint8_t code[15];

	kvm_fail(v, "KVM gave up at %#llx: %s (internal error %u)", (unsigned long long)rip,
		 suberror_name(suberror), suberror);
	if (suberror == KVM_INTERNAL_ERROR_EMULATION && ndata >= 3 &&
	    run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)
		add_code(v, run->emulation_failure.insn_bytes,
			 MIN(run->emulation_failure.insn_size, (uint8_t)sizeof(code)));
	else
		add_code(v, code, kvm_peek_code(v, code, sizeof(code)));
	add_words(v, strlen(v->error), run->internal.data, ndata);
}

static enum next exit_internal_error(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	int ret;

	if (v->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && v->vm->config.help) {
		ret = kvm_help(v, ret_exit);
		if (ret >= 0)
			return ret ? LEAVE : RESUME;
		if (v->error[0])
			return leave(ret_exit, ENGINE_EXIT_ERROR);
	}
	describe_internal_error(v);
	return leave(ret_exit, ENGINE_EXIT_ERROR);
}

/* ---- which one ----------------------------------------------------------------------------- */

typedef enum next (*exit_fn)(struct engine_vcpu *v, enum engine_exit *ret_exit);

static const exit_fn handlers[ENGINE_KVM_EXITS] = {
	[KVM_EXIT_UNKNOWN] = exit_unknown,
	[KVM_EXIT_IO] = exit_io,
	[KVM_EXIT_DEBUG] = exit_debug,
	[KVM_EXIT_HLT] = exit_resume, /* never, with the kernel's local APICs */
	[KVM_EXIT_MMIO] = exit_mmio,
	[KVM_EXIT_IRQ_WINDOW_OPEN] = exit_resume,
	[KVM_EXIT_SHUTDOWN] = exit_shutdown,
	[KVM_EXIT_FAIL_ENTRY] = exit_fail_entry,
	[KVM_EXIT_INTR] = exit_resume,
	[KVM_EXIT_SET_TPR] = exit_resume,
	[KVM_EXIT_TPR_ACCESS] = exit_resume,
	[KVM_EXIT_INTERNAL_ERROR] = exit_internal_error,
	[KVM_EXIT_SYSTEM_EVENT] = exit_system_event,
	[KVM_EXIT_IOAPIC_EOI] = exit_eoi,
	[KVM_EXIT_X86_RDMSR] = exit_msr,
	[KVM_EXIT_X86_WRMSR] = exit_msr,
	[KVM_EXIT_DIRTY_RING_FULL] = exit_ring_full,
	[KVM_EXIT_X86_BUS_LOCK] = exit_resume,
};

static void trace(struct engine_vcpu *v, unsigned reason)
{
	const struct kvm_run *run = v->run;
	struct engine_trace_event e = {.vcpu = v->id, .reason = exit_names[reason]};

	e.rip = rip_of(v);
	switch (reason) {
	case KVM_EXIT_IO:
		e.addr = run->io.port;
		e.info = (run->io.size - 1u) | (run->io.direction == KVM_EXIT_IO_IN ? BIT(3) : 0) |
			 (run->io.count > 1 ? BIT(4) | BIT(5) : 0);
		break;
	case KVM_EXIT_MMIO:
		e.addr = run->mmio.phys_addr;
		e.info = run->mmio.is_write ? BIT(1) : BIT(0);
		break;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		e.addr = run->msr.index;
		e.info = reason == KVM_EXIT_X86_WRMSR ? run->msr.data : 0;
		break;
	case KVM_EXIT_INTERNAL_ERROR: e.info = run->internal.suberror; break;
	case KVM_EXIT_IOAPIC_EOI: e.addr = run->eoi.vector; break;
	default: break;
	}
	engine_trace_tell(&v->vm->trace, &e);
}

static enum next handle_exit(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	unsigned reason = MIN(v->run->exit_reason, (uint32_t)EXIT_LAST);

	v->stats.kvm_exits[reason]++;
	if (engine_trace_on(&v->vm->trace) && exit_names[reason])
		trace(v, reason);
	if (likely(handlers[reason] != NULL))
		return handlers[reason](v, ret_exit);
	return leave(ret_exit, kvm_fail(v, "exit %u of KVM at %#llx (%s) has no handler",
					v->run->exit_reason, (unsigned long long)rip_of(v),
					exit_names[reason] ? exit_names[reason] : "unknown"));
}

/* KVM_RUN itself failed. */
static enum next run_failed(struct engine_vcpu *v, int error, enum engine_exit *ret_exit)
{
	const struct {
		__u64 flags, gpa, size;
	} *fault = (const void *)&v->run->hw;
	const char *what = kvm_failure();

	if (error == -EFAULT && v->run->exit_reason == EXIT_MEMORY_FAULT)
		return leave(ret_exit, kvm_fail(v, "%s: memory of the guest at %#llx", what,
						(unsigned long long)fault->gpa));
	return leave(ret_exit, kvm_fail(v, "%s", what));
}

static enum next go_on(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	int ret;

	if (unlikely(v->exit_waits)) {
		v->exit_waits = false;
		return handle_exit(v, ret_exit);
	}
	if (take_requests(v) & KVM_REQ_KICK)
		return leave(ret_exit, ENGINE_EXIT_KICK);
	if (unlikely(mmu_needs_load(v->mmu)) && !kvm_dirty_enter(v))
		return RESUME;
	if (v->vm->config.irqchip == ENGINE_IRQCHIP_SPLIT) {
		ret = kvm_pic_inject(v);
		if (ret)
			return leave(ret_exit, kvm_fail(v, "%s", kvm_failure()));
	}
	if (unlikely(v->run->kvm_valid_regs))
		kvm_help_quiet(v);
	ret = enter(v);
	if (unlikely(!(v->stats.entries & (v->stats.entries < 4096 ? 63 : v->stats.entries - 1))))
		kvm_quirks_look(v);
	v->pending_io = false;
	kvm_coalesced_drain(v);
	if (likely(!ret))
		return handle_exit(v, ret_exit);
	/* EAGAIN: a processor that waited for its start-up IPI was woken. */
	if (ret != -EINTR && ret != -EAGAIN)
		return run_failed(v, ret, ret_exit);
	v->stats.kvm_exits[KVM_EXIT_INTR]++;
	if (engine_trace_on(&v->vm->trace))
		trace(v, KVM_EXIT_INTR);
	return RESUME;
}

enum engine_exit kvm_vcpu_run(struct engine_vcpu *v, uint64_t budget)
{
	enum engine_exit exit = ENGINE_EXIT_KICK;

	if (unlikely(v->debug.waits) && budget) {
		v->debug.waits = false;
		v->debug.stopped = true;
		return ENGINE_EXIT_DEBUG;
	}
	thread_enter(v);
	do {
		while ((budget || v->exit_waits) && go_on(v, &exit) == RESUME)
			;
		/* Here rather than when somebody asks for the state: that may be another thread. */
		if (kvm_complete_io(v) && exit != ENGINE_EXIT_ERROR)
			exit = ENGINE_EXIT_ERROR;
	} while (!budget && v->exit_waits && exit != ENGINE_EXIT_ERROR);
	thread_leave(v);
	return exit;
}

/*
 * The kernel looks at immediate_exit after it has taken over what the last exit asked for. An
 * access in several parts leaves for each.
 */
int kvm_complete_io(struct engine_vcpu *v)
{
	enum engine_exit exit;
	int ret;

	while (v->pending_io) {
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		v->pending_io = false;
		ret = kvm_call_n(v->fd, KVM_RUN, 0);
		if (ret == -EINTR || ret == -EAGAIN)
			return 0;
		if (ret) {
			run_failed(v, ret, &exit);
			return ret;
		}
		switch (v->run->exit_reason) {
		case KVM_EXIT_IO:
		case KVM_EXIT_MMIO: handle_exit(v, &exit); break;
		default: v->exit_waits = true; return 0;
		}
	}
	return 0;
}

/* ---- timers -------------------------------------------------------------------------------- */

/* A KVM_RUN that ends before the guest runs, by a signal that waits: immediate_exit would end it
 * before the kernel has looked at its timers. */
static int enter_and_leave(struct engine_vcpu *v)
{
	int ret;

	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	pthread_kill(pthread_self(), KICK_SIGNAL);
	ret = kvm_call_n(v->fd, KVM_RUN, 0);
	if (ret == -EINTR || ret == -EAGAIN)
		return 0;
	v->exit_waits = !ret;
	return ret;
}

/* Twice: the first moves the timer to this processor, where it goes off if it is due. */
int kvm_settle(struct engine_vcpu *v)
{
	/* struct kvm_signal_mask with its set. */
	const struct {
		uint32_t len;
		uint64_t set;
	} __attribute__((packed)) only_kick = {.len = 8, .set = ~BIT(KICK_SIGNAL - 1)};
	enum engine_exit exit = ENGINE_EXIT_KICK;
	sigset_t kick, old;
	int ret;

	if (v->exit_waits)
		exit = kvm_vcpu_run(v, 0);
	sigemptyset(&kick);
	sigaddset(&kick, KICK_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &kick, &old);
	ret = kvm_call(v->fd, KVM_SET_SIGNAL_MASK, &only_kick);
	for (unsigned n = 0; n < 2 && !ret && exit != ENGINE_EXIT_ERROR && !v->exit_waits; n++)
		ret = enter_and_leave(v);
	if (!ret)
		ret = kvm_call(v->fd, KVM_SET_SIGNAL_MASK, NULL);
	/* The handler takes the signal. */
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST))
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (!ret && v->exit_waits)
		exit = kvm_vcpu_run(v, 0);
	return ret ? ret : exit == ENGINE_EXIT_ERROR ? -EIO : 0;
}
