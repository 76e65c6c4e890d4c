/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine's parts put together, and the states it goes through. */
#include "vm/vm_internal.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/cleanup.h"
#include "vm/memmap.h"

#define SLOT_LOW  0
#define SLOT_HIGH 1
/* With clock "instructions" one is a nanosecond, so the TSC runs at this. */
#define COUNTED_TSC_HZ 1000000000ull
/* 2020-01-01, where a counted machine's wall clock starts. */
#define COUNTED_EPOCH_NS (1577836800ll * 1000000000ll)

/* ---- requests from any thread
 * -------------------------------------------------------------------- */

static void wake_loop(struct vm *vm)
{
	uint64_t one = 1;

	if (write(vm->wake_fd, &one, sizeof(one)) < 0)
		return; /* it is full: the loop will wake anyhow */
}

static void stop_guest(struct vm *vm)
{
	for (unsigned k = 0; vm->vcpus && k < vm->cpus; k++)
		vm->engine->vcpu_kick(vm->vcpus[k].engine);
	wake_loop(vm);
}

bool vm_stop_requested(struct vm *vm)
{
	return __atomic_load_n(&vm->end_requested, __ATOMIC_SEQ_CST) ||
	       __atomic_load_n(&vm->reset_requested, __ATOMIC_SEQ_CST);
}

void vm_request_end(struct vm *vm, enum vm_reason reason, int code, unsigned vcpu, const char *fmt,
		    ...)
{
	va_list ap;

	pthread_mutex_lock(&vm->end_lock);
	/* Amid a reset, what the vCPUs come to does not count any more. */
	if (!vm->end_requested &&
	    !(vm->reset_requested && (reason == VM_REASON_HALTED || reason == VM_REASON_CRASH))) {
		vm->reason = reason;
		vm->code = code;
		vm->end_vcpu = vcpu;
		va_start(ap, fmt);
		vsnprintf(vm->message, sizeof(vm->message), fmt, ap);
		va_end(ap);
		__atomic_store_n(&vm->end_requested, true, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&vm->end_lock);
	stop_guest(vm);
}

void vm_request_reset(struct vm *vm)
{
	if (vm->def->on_reset == MACHINE_RESET_END) {
		vm_request_end(vm, VM_REASON_RESET, 0, 0, "the guest asked for a reset");
		return;
	}
	pthread_mutex_lock(&vm->end_lock);
	__atomic_store_n(&vm->reset_requested, true, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&vm->end_lock);
	stop_guest(vm);
}

void vm_request_debug(struct vm *vm)
{
	__atomic_store_n(&vm->debug_hit, true, __ATOMIC_SEQ_CST);
	wake_loop(vm);
}

static void machine_poweroff(void *opaque)
{
	vm_request_end(opaque, VM_REASON_POWEROFF, 0, 0, "the guest powered off");
}

static void machine_reset(void *opaque)
{
	vm_request_reset(opaque);
}

static void machine_exit(void *opaque, uint32_t value)
{
	int code = (int)((value << 1 | 1) & 0xff);

	vm_request_end(opaque, VM_REASON_DEBUG_EXIT, code, 0,
		       "the guest wrote %u to isa-debug-exit", value);
}

static const struct machine_ops machine_ops = {
	.poweroff = machine_poweroff,
	.reset = machine_reset,
	.exit = machine_exit,
	.shutdown = machine_poweroff,
};

/* ---- time
 * ---------------------------------------------------------------------------------------- */

static uint64_t host_ns(void)
{
	return clock_host_ns(NULL);
}

static void host_rearm(void *opaque, uint64_t deadline)
{
	struct vm *vm = opaque;
	uint64_t ns = clock_source_ns(&vm->clock, deadline);
	struct itimerspec spec = {0};

	if (ns != CLOCK_NEVER) {
		spec.it_value.tv_sec = (time_t)(ns / 1000000000);
		spec.it_value.tv_nsec = (long)(ns % 1000000000);
		if (!ns)
			spec.it_value.tv_nsec = 1;
	}
	timerfd_settime(vm->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static const struct clock_ops host_clock_ops = {
	.now_ns = clock_host_ns,
	.rearm = host_rearm,
};

static void on_timer(evutil_socket_t fd, short what, void *data)
{
	struct vm *vm = data;
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		return;
	clock_run(&vm->clock);
}

/* A moment by the TSC and by the monotonic clock: of several tries, the one least disturbed. */
struct moment {
	uint64_t tsc, ns;
};

static struct moment host_moment(void)
{
	struct moment best = {0};
	uint64_t least = UINT64_MAX;

	for (unsigned k = 0; k < 16; k++) {
		uint64_t before = __rdtsc(), ns = host_ns(), took = __rdtsc() - before;

		if (took < least) {
			least = took;
			best = (struct moment){.tsc = before + took / 2, .ns = ns};
		}
	}
	return best;
}

/* Good to some parts in a million: each moment is known to some ten nanoseconds. */
static uint64_t host_tsc_hz(void)
{
	struct moment from = host_moment(), to;
	struct timespec nap = {.tv_nsec = 500000};

	nanosleep(&nap, NULL);
	to = host_moment();
	return (uint64_t)((__uint128_t)(to.tsc - from.tsc) * 1000000000 / (to.ns - from.ns));
}

/* ---- making
 * -------------------------------------------------------------------------------------- */

/* Guest memory starts at a host address that agrees with gpa 0 in its low 30 bits: large pages. */
static int ram_create(struct vm *vm)
{
	uint64_t size = vm->ram_size, room = size + GIB(1);
	uint8_t *area, *at;

	vm->ram_fd = memfd_create("guest-memory", MFD_CLOEXEC);
	if (vm->ram_fd < 0 || ftruncate(vm->ram_fd, (off_t)size) < 0)
		return -errno;
	area = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		return -errno;
	at = (uint8_t *)ALIGN_UP((uintptr_t)area, GIB(1));
	if (at != area)
		munmap(area, (size_t)(at - area));
	if (at + size != area + room)
		munmap(at + size, (size_t)(area + room - (at + size)));
	if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, vm->ram_fd, 0) ==
	    MAP_FAILED)
		return -errno;
	vm->ram = at;
	vm->ram_fresh = true;
	madvise(at, size, MADV_HUGEPAGE);
	madvise(at, size, MADV_DONTDUMP);
	return 0;
}

static int slots_add(struct vm *vm)
{
	struct slot_desc low = {.id = SLOT_LOW, .size = vm->ram_below_4g, .host = vm->ram};
	struct slot_desc high = {.id = SLOT_HIGH,
				 .gpa = MEMMAP_HIGH_START,
				 .size = vm->ram_above_4g,
				 .host = vm->ram + vm->ram_below_4g};
	int ret = slot_add(vm->mmu, &low);

	if (!ret && high.size)
		ret = slot_add(vm->mmu, &high);
	return ret;
}

/* No more than kvm can: the guest is to see the same processor when another engine takes over. */
static int model_limit(struct vm *vm, struct api_error *err)
{
	int ret = vm->files->kvm < 0 ? 0 : engine_kvm_cpu_limit(vm->files->kvm, &vm->model);

	return ret ? api_error_set(err, API_KIND_INTERNAL,
				   "engine kvm: features of the processor: %s", strerror(-ret))
		   : 0;
}

/* What the processor shows: the model, less what the definition and this host's kvm leave out. */
static int model_make(struct vm *vm, uint64_t tsc_hz, struct api_error *err)
{
	const char *bad;

	engine_cpu_model_init(&vm->model, vm->cpus, tsc_hz);
	if (vm->def->cpu && engine_cpu_model_mask(&vm->model, vm->def->cpu, &bad))
		return api_error_field(err, "cpu", "unknown processor feature \"%.*s\"",
				       (int)MIN(strcspn(bad, ","), (size_t)64), bad);
	vm->full_model = vm->model;
	/* "common": what every engine of this host can show. */
	return vm->model.common ? model_limit(vm, err) : 0;
}

int vm_engine_config(struct vm *vm, const struct engine_ops *ops, struct engine_config *ret_config,
		     struct api_error *err)
{
	*ret_config = (struct engine_config){
		.vcpus = vm->cpus,
		.clock = vm->counts ? ENGINE_CLOCK_INSTRUCTIONS : ENGINE_CLOCK_HOST,
		.ram_bytes = vm->ram_size,
		.rand_seed = vm->counts ? 0x756d627261ull : 0,
		.model = &vm->model,
		.host = &vm_engine_host,
		.host_priv = vm,
		.mmu = vm->mmu,
		.kvm_fd = -1,
		.gathered_port = BOARD_PORT_POST,
	};
	return ops ? vm_engine_options(ops, vm->def, vm->files, ret_config, err) : 0;
}

int vm_engine_make(struct vm *vm, const struct engine_ops *ops, struct api_error *err)
{
	struct engine_error why = {""};
	struct engine_config config;
	int ret;

	vm->model.kvm = ops == &engine_kvm;
	ret = vm_engine_config(vm, ops, &config, err);
	if (ret)
		return ret;
	ret = ops->create(&config, &vm->engine_vm, &why);
	if (ret)
		return vm_engine_error(err, ops, ret, &why);
	vm->engine = ops;
	for (unsigned k = 0; k < vm->cpus; k++)
		vm->vcpus[k].engine = ops->vcpu(vm->engine_vm, k);
	return 0;
}

void vm_engine_unmake(struct vm *vm)
{
	if (!vm->engine)
		return;
	for (unsigned k = 0; vm->vcpus && k < vm->cpus; k++)
		vm->vcpus[k].engine = NULL;
	vm->engine->destroy(vm->engine_vm);
	vm->engine = NULL;
	vm->engine_vm = NULL;
}

/* Slots and dirty clients are the machine's, whatever the engine. */
static int memory_create(struct vm *vm)
{
	struct mmu_config config = {
		.policy = MMU_POLICY_KERNEL,
		.ram_bytes = vm->ram_size,
		.max_table_bytes = vm->def->mmu_tables,
	};
	int ret = mmu_vm_create(&config, NULL, NULL, &vm->mmu);

	return ret ? ret : slots_add(vm);
}

static int engine_create(struct vm *vm, uint64_t tsc_hz, struct api_error *err)
{
	struct engine_config config;
	int ret = model_make(vm, tsc_hz, err);

	if (!ret)
		ret = vm_engine_config(vm, NULL, &config, err);
	if (!ret)
		ret = vm_choose_engine(&vm->choice, vm->def, vm->files, &config, err);
	if (!ret && vm->choice.ops == &engine_kvm)
		ret = model_limit(vm, err);
	if (!ret)
		ret = vm_engine_make(vm, vm->choice.ops, err);
	if (!ret || !vm_engine_fall_back(&vm->choice, err))
		return ret;
	ret = model_make(vm, tsc_hz, err);
	return ret ? ret : vm_engine_make(vm, vm->choice.ops, err);
}

static int machine_create(struct vm *vm, uint64_t tsc_hz, struct api_error *err)
{
	/* Of our processor, which may come to run or help under any engine. */
	int ret = cpu_prepare();

	if (!ret)
		ret = memory_create(vm);
	if (!ret)
		ret = vcpus_create(vm);
	if (ret)
		return api_error_set(err, API_KIND_INTERNAL, "guest memory: %s", strerror(-ret));
	return engine_create(vm, tsc_hz, err);
}

static void serial_out(void *opaque, const uint8_t *data, size_t len)
{
	struct vm *vm = opaque;

	vm->ops->console_output(vm->data, data, len);
}

static void serial_ready(void *opaque)
{
	struct vm *vm = opaque;

	vm->ops->console_ready(vm->data);
}

static int board_make(struct vm *vm, uint64_t tsc_hz, struct api_error *err)
{
	struct clock_config clock = {
		.ops = vm->counts ? &turns_clock_ops : &host_clock_ops,
		.opaque = vm,
		.tsc_hz = tsc_hz,
	};
	struct timespec now;
	int ret;

	clock_gettime(CLOCK_REALTIME, &now);
	ret = clock_init(&vm->clock, &clock);
	if (ret)
		return api_error_set(err, API_KIND_INTERNAL, "clock: %s", strerror(-ret));
	vm->clock_ready = true;

	struct board_config board = {
		.clock = &vm->clock,
		.cpus = vm->cpus,
		.phys_bits = vm->model.maxphyaddr,
		.x2apic = engine_cpu_model_shows(&vm->model, "x2apic"),
		.test_devices = true,
		.ram_below_4g = vm->ram_below_4g,
		.ram_above_4g = vm->ram_above_4g,
		.epoch_ns = vm->counts ? COUNTED_EPOCH_NS
				       : (int64_t)now.tv_sec * 1000000000 + now.tv_nsec,
		.machine_ops = &machine_ops,
		.lapic_ops = &vm_lapic_ops,
		.chips = vm_board_chips(vm),
		.irq_ops = &vm_irq_ops,
		.pic_intr = vm_pic_intr,
		.opaque = vm,
		.serial_output = serial_out,
		.serial_input_ready = serial_ready,
		.debugcon_output = serial_out,
		.console_opaque = vm,
	};

	ret = board_create(&board, &vm->board);
	return ret ? api_error_set(err, API_KIND_INTERNAL, "devices: %s", strerror(-ret)) : 0;
}

static void on_wake(evutil_socket_t fd, short what, void *data);
static void on_timeout(evutil_socket_t fd, short what, void *data);

static int loop_create(struct vm *vm)
{
	vm->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	vm->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (vm->timer_fd < 0 || vm->wake_fd < 0)
		return -errno;
	vm->timer = event_new(vm->base, vm->timer_fd, EV_READ | EV_PERSIST, on_timer, vm);
	vm->wake = event_new(vm->base, vm->wake_fd, EV_READ | EV_PERSIST, on_wake, vm);
	vm->timeout = evtimer_new(vm->base, on_timeout, vm);
	if (!vm->timer || !vm->wake || !vm->timeout || event_add(vm->timer, NULL) ||
	    event_add(vm->wake, NULL) || vm_asleep_create(vm))
		return -ENOMEM;
	/* It shows what its opener may see, so before privileges are given up. May be missing. */
	vm->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return 0;
}

static int make_parts(struct vm *vm, struct api_error *err)
{
	uint64_t tsc_hz = vm->counts ? COUNTED_TSC_HZ : host_tsc_hz();
	int ret = memmap_split(vm->ram_size, &vm->ram_below_4g, &vm->ram_above_4g);

	if (ret)
		return api_error_field(err, "memory",
				       "memory of %llu bytes: a machine needs at least %llu KiB",
				       (unsigned long long)vm->ram_size,
				       (unsigned long long)(MEMMAP_RAM_MIN >> 10));
	ret = loop_create(vm);
	if (ret)
		return api_error_set(err, API_KIND_INTERNAL, "event loop: %s", strerror(-ret));
	ret = ram_create(vm);
	if (ret)
		return api_error_set(err, API_KIND_LIMIT, "%llu MiB of guest memory: %s",
				     (unsigned long long)(vm->ram_size >> 20), strerror(-ret));
	ret = machine_create(vm, tsc_hz, err);
	return ret ? ret : board_make(vm, tsc_hz, err);
}

int vm_create(struct vm **out, struct event_base *base, const struct machine_def *def,
	      const struct machine_files *files, const struct vm_ops *ops, void *data,
	      struct api_error *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int ret;

	if (!vm)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	vm->def = def;
	vm->files = files;
	vm->ops = ops;
	vm->data = data;
	vm->base = base;
	vm->ram_fd = vm->timer_fd = vm->wake_fd = vm->pagemap_fd = -1;
	vm->ram_size = def->memory;
	vm->cpus = (unsigned)def->cpus;
	vm->counts = def->clock == MACHINE_CLOCK_INSTRUCTIONS;
	pthread_mutex_init(&vm->end_lock, NULL);
	ret = make_parts(vm, err);
	if (ret) {
		vm_destroy(vm);
		return ret;
	}
	*out = vm;
	return 0;
}

static void free_event(struct event *ev)
{
	if (ev)
		event_free(ev);
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	vm_gdb_destroy(vm->gdb);
	vm_dirty_destroy(vm->dirty);
	vm_asleep_destroy(vm);
	vcpus_destroy(vm);
	free_event(vm->timer);
	free_event(vm->wake);
	free_event(vm->timeout);
	board_destroy(vm->board);
	vm_trace_destroy(vm);
	vm_engine_unmake(vm);
	mmu_vm_destroy(vm->mmu);
	if (vm->clock_ready)
		clock_finish(&vm->clock);
	if (vm->ram)
		munmap(vm->ram, vm->ram_size);
	cleanup_close(&vm->ram_fd);
	cleanup_close(&vm->timer_fd);
	cleanup_close(&vm->wake_fd);
	cleanup_close(&vm->pagemap_fd);
	json_object_put(vm->detail);
	pthread_mutex_destroy(&vm->end_lock);
	free(vm);
}

/* ---- states
 * -------------------------------------------------------------------------------------- */

static void set_state(struct vm *vm, enum vm_state state)
{
	vm->state = state;
	vm->ops->state_changed(vm->data);
}

static int wrong_state(const struct vm *vm, struct api_error *err, const char *what)
{
	return api_error_set(err, API_KIND_INVALID_STATE, "the machine is %s: it cannot be %s",
			     vm_state_names[vm->state], what);
}

void vm_go(struct vm *vm)
{
	struct api_error err;

	vm->started_ns = host_ns();
	clock_resume(&vm->clock);
	for (unsigned k = 0; !vm->counts && k < vm->cpus; k++) {
		struct engine_vcpu *v = vm->vcpus[k].engine;

		if (vm->engine->vcpu_set_tsc(v, clock_tsc(&vm->clock)))
			vm_request_end(vm, VM_REASON_ENGINE, 0, k, "vCPU %u: %s", k,
				       vm->engine->vcpu_error(v));
	}
	if (vm_chips_store(vm, &err))
		vm_request_end(vm, VM_REASON_ENGINE, 0, 0, "%s", err.text);
	vm_asleep_watch(vm, true);
	vcpus_release(vm);
}

void vm_halt(struct vm *vm)
{
	struct api_error err;

	vm_asleep_watch(vm, false);
	vcpus_hold(vm);
	clock_pause(&vm->clock);
	if (vm_chips_fetch(vm, &err))
		vm_request_end(vm, VM_REASON_ENGINE, 0, 0, "%s", err.text);
	vm->ran_ns += host_ns() - vm->started_ns;
}

bool vm_runs(const struct vm *vm)
{
	return (vm->state == VM_RUNNING || vm->state == VM_STOPPING) && !vm->debug_stopped;
}

void vm_debug_hold(struct vm *vm)
{
	if (vm_runs(vm))
		vm_halt(vm);
	vm->debug_stopped = true;
}

void vm_debug_release(struct vm *vm)
{
	vm->debug_stopped = false;
	if (vm_runs(vm))
		vm_go(vm);
}

/* All that must be known of a machine that has ended is gathered here, once. */
static void end(struct vm *vm)
{
	if (vm->state == VM_ENDED)
		return;
	evtimer_del(vm->timeout);
	if (vm_runs(vm))
		vm_halt(vm);
	board_flush(vm->board);
	if (vm->reason == VM_REASON_CRASH || vm->reason == VM_REASON_HALTED ||
	    vm->reason == VM_REASON_ENGINE || vm->reason == VM_REASON_TIMEOUT)
		vm->detail = vm_crash_detail(vm, vm->end_vcpu);
	vm_gdb_ended(vm);
	set_state(vm, VM_ENDED);
}

static int vcpus_reset(struct vm *vm, struct api_error *err)
{
	int ret = 0;

	for (unsigned k = 0; !ret && k < vm->cpus; k++) {
		ret = vm->engine->vcpu_reset(vm->vcpus[k].engine);
		vm->vcpus[k].has_hit = false;
		if (ret)
			api_error_set(err, API_KIND_INTERNAL, "vCPU %u: %s", k,
				      vm->engine->vcpu_error(vm->vcpus[k].engine));
	}
	if (ret)
		vm_request_end(vm, VM_REASON_ENGINE, 0, 0, "%s", err->text);
	return ret;
}

/* It is the image, unless we or the engine failed. */
static void load_failed(struct vm *vm, const struct api_error *err)
{
	vm_request_end(vm, err->kind == API_KIND_INTERNAL ? VM_REASON_ENGINE : VM_REASON_BAD_IMAGE,
		       0, 0, "%s", err->text);
}

/* The vCPUs are held. */
static int restart(struct vm *vm, struct api_error *err)
{
	int ret;

	pthread_mutex_lock(&vm->end_lock);
	__atomic_store_n(&vm->reset_requested, false, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&vm->end_lock);
	board_reset(vm->board);
	ret = vcpus_reset(vm, err);
	if (!ret) {
		ret = vm_load(vm, err);
		if (ret)
			load_failed(vm, err);
	}
	return ret;
}

static void on_wake(evutil_socket_t fd, short what, void *data)
{
	struct vm *vm = data;
	struct api_error err;
	bool ended, reset;
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&vm->end_lock);
	ended = vm->end_requested;
	reset = vm->reset_requested;
	pthread_mutex_unlock(&vm->end_lock);
	if (ended)
		end(vm);
	else if (reset && vm->state != VM_CREATED)
		vm_reset(vm, &err);
	if (__atomic_exchange_n(&vm->debug_hit, false, __ATOMIC_SEQ_CST) && !ended)
		vm_gdb_hit(vm);
}

static void on_timeout(evutil_socket_t fd, short what, void *data)
{
	struct api_error err;

	vm_end(data, VM_REASON_TIMEOUT, &err);
}

int vm_make_threads(struct vm *vm, struct api_error *err)
{
	int ret = vcpus_start(vm);

	vm->has_threads = true;
	return ret ? api_error_set(err, API_KIND_INTERNAL, "vCPU thread: %s", strerror(-ret)) : 0;
}

/* When kvm was made, but does not even take the guest's first state, soft may take over still. The
 * processor stays the one that kvm can show: the board was made for it. */
static int load_or_fall_back(struct vm *vm, struct api_error *err)
{
	int ret = vm_load(vm, err);

	if (!ret || err->kind != API_KIND_INTERNAL || !vm_engine_fall_back(&vm->choice, err))
		return ret;
	vm_engine_unmake(vm);
	if (vm_engine_make(vm, vm->choice.ops, err))
		abort(); /* no memory: there is nothing to end on */
	board_set_chips(vm->board, vm_board_chips(vm));
	return vm_load(vm, err);
}

int vm_start(struct vm *vm, struct api_error *err)
{
	int ret;

	if (vm->state != VM_CREATED)
		return wrong_state(vm, err, "started");
	if (!vm->has_threads && vm_make_threads(vm, err)) {
		vm_request_end(vm, VM_REASON_ENGINE, 0, 0, "%s", err->text);
		end(vm);
		return -EAGAIN;
	}
	ret = load_or_fall_back(vm, err);
	if (ret) {
		load_failed(vm, err);
		end(vm);
		return ret;
	}
	if (vm->def->timeout > 0) {
		struct timeval tv = {.tv_sec = (time_t)vm->def->timeout};

		tv.tv_usec = (suseconds_t)((vm->def->timeout - (double)tv.tv_sec) * 1e6);
		evtimer_add(vm->timeout, &tv);
	}
	vm_go(vm);
	set_state(vm, VM_RUNNING);
	return 0;
}

int vm_pause(struct vm *vm, struct api_error *err)
{
	if (vm->state != VM_RUNNING && vm->state != VM_STOPPING)
		return wrong_state(vm, err, "paused");
	if (vm_runs(vm))
		vm_halt(vm);
	set_state(vm, VM_PAUSED);
	return 0;
}

int vm_resume(struct vm *vm, struct api_error *err)
{
	if (vm->state != VM_PAUSED)
		return wrong_state(vm, err, "resumed");
	if (!vm->debug_stopped)
		vm_go(vm);
	set_state(vm, VM_RUNNING);
	return 0;
}

int vm_reset(struct vm *vm, struct api_error *err)
{
	bool running = vm->state == VM_RUNNING || vm->state == VM_STOPPING;
	bool ran = vm_runs(vm);
	int ret;

	if (!running && vm->state != VM_PAUSED)
		return wrong_state(vm, err, "reset");
	if (ran)
		vm_halt(vm);
	ret = restart(vm, err);
	if (!ret && ran)
		vm_go(vm);
	if (!ret && running)
		set_state(vm, VM_RUNNING);
	return ret;
}

int vm_powerdown(struct vm *vm, struct api_error *err)
{
	if (vm->state != VM_RUNNING && vm->state != VM_STOPPING)
		return wrong_state(vm, err, "stopped by its power button");
	acpi_pm_power_button(&vm->board->acpi_pm);
	set_state(vm, VM_STOPPING);
	return 0;
}

int vm_end(struct vm *vm, enum vm_reason reason, struct api_error *err)
{
	if (vm->state == VM_ENDED)
		return wrong_state(vm, err, "stopped");
	if (reason == VM_REASON_TIMEOUT)
		vm_request_end(vm, reason, 0, 0, "still running after %g s", vm->def->timeout);
	else
		vm_request_end(vm, reason, 0, 0, "stopped on request");
	return 0;
}

void vm_query(struct vm *vm, struct vm_report *report)
{
	report->state = vm->state;
	snprintf(report->engine, sizeof(report->engine), "%s", vm->engine->name);
	snprintf(report->engine_why, sizeof(report->engine_why), "%s", vm->choice.why);
	if (vm->state != VM_ENDED)
		return;
	report->reason = vm->reason;
	report->code = vm->code;
	snprintf(report->message, sizeof(report->message), "%s", vm->message);
	if (vm->detail)
		report->detail = json_object_get(vm->detail);
	report->stats = json_object_new_object();
	if (report->stats)
		vm_stats_add(vm, report->stats);
}

bool vm_may_kvm(const struct vm *vm)
{
	return vm->choice.may_kvm;
}

int vm_stats(struct vm *vm, struct json_object *stats, struct api_error *err)
{
	bool running = vm->state == VM_RUNNING || vm->state == VM_STOPPING;
	int ret;

	/* The counters are the vCPU threads' own. */
	if (running)
		vcpus_hold(vm);
	ret = vm_stats_add(vm, stats);
	if (running)
		vcpus_release(vm);
	return ret ? api_error_set(err, API_KIND_INTERNAL, "out of memory") : 0;
}

size_t vm_console_input(struct vm *vm, const void *bytes, size_t len)
{
	return serial_input(&vm->board->com1, bytes, len);
}

enum vm_state vm_state(const struct vm *vm)
{
	return vm->state;
}
