/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What state_machine.h promises. */
#include "state_machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct engine_vcpu {
	struct cpu_state s;
	const struct vm *vm;
	unsigned id;
};

struct engine_vm {
	struct engine_vcpu vcpu[STATE_CPUS];
};

static unsigned refusals;

static enum engine_exit run(struct engine_vcpu *v, uint64_t budget)
{
	return ENGINE_EXIT_KICK;
}

static int get_state(struct engine_vcpu *v, struct cpu_state *ret_state)
{
	*ret_state = v->s;
	return 0;
}

static int set_state(struct engine_vcpu *v, const struct cpu_state *state)
{
	if (v->id == STATE_CPUS - 1 && refusals) {
		refusals--;
		return -EOPNOTSUPP;
	}
	v->s = *state;
	return 0;
}

static unsigned cpuid(const struct engine_vcpu *v, struct cpu_cpuid leaves[ENGINE_CPUID_MAX])
{
	return engine_cpu_model_cpuid(&v->vm->model, v->id, leaves);
}

static const char *error(struct engine_vcpu *v)
{
	return "it refuses";
}

static const struct engine_ops ops = {
	.name = "none",
	.vcpu_run = run,
	.vcpu_get_state = get_state,
	.vcpu_set_state = set_state,
	.vcpu_cpuid = cpuid,
	.vcpu_error = error,
};

/* ---- what the board asks of a machine ---- */

static void nothing(void *opaque)
{
}

static void no_exit(void *opaque, uint32_t value)
{
}

static void no_vcpu(void *opaque, unsigned cpu)
{
}

static void no_sipi(void *opaque, unsigned cpu, uint8_t vector)
{
}

static void no_output(void *opaque, const uint8_t *data, size_t len)
{
}

static const struct machine_ops machine_ops = {nothing, nothing, no_exit, nothing};
static const struct lapic_ops lapic_ops = {
	.kick = no_vcpu, .nmi = no_vcpu, .init = no_vcpu, .sipi = no_sipi};

static struct cpu_state first_state(void)
{
	struct cpu_state s = {.fx.mxcsr_mask = 0xffff};

	cpu_state_reset(&s, false, 0x606a6);
	return s;
}

struct vm *state_machine_create(void)
{
	const struct clock_config clock = {.tsc_hz = 1000000000};
	struct vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return NULL;
	pthread_mutex_init(&vm->end_lock, NULL);
	vm->cpus = STATE_CPUS;
	vm->ram_below_4g = vm->ram_size = MIB(16);
	vm->wake_fd = -1;
	vm->engine = &ops;
	engine_cpu_model_init(&vm->model, STATE_CPUS, clock.tsc_hz);
	vm->engine_vm = calloc(1, sizeof(*vm->engine_vm));
	vm->vcpus = calloc(STATE_CPUS, sizeof(*vm->vcpus));
	vm->clock_ready = !clock_init(&vm->clock, &clock);

	const struct board_config board = {
		.clock = &vm->clock,
		.cpus = STATE_CPUS,
		.phys_bits = vm->model.maxphyaddr,
		.x2apic = true,
		.test_devices = true,
		.ram_below_4g = vm->ram_below_4g,
		.machine_ops = &machine_ops,
		.lapic_ops = &lapic_ops,
		.serial_output = no_output,
	};

	if (!vm->engine_vm || !vm->vcpus || !vm->clock_ready || board_create(&board, &vm->board)) {
		state_machine_destroy(vm);
		return NULL;
	}
	for (unsigned k = 0; k < STATE_CPUS; k++) {
		vm->engine_vm->vcpu[k] =
			(struct engine_vcpu){.s = first_state(), .vm = vm, .id = k};
		vm->vcpus[k] =
			(struct vcpu){.vm = vm, .index = k, .engine = &vm->engine_vm->vcpu[k]};
	}
	return vm;
}

void state_machine_destroy(struct vm *vm)
{
	board_destroy(vm->board);
	if (vm->clock_ready)
		clock_finish(&vm->clock);
	pthread_mutex_destroy(&vm->end_lock);
	free(vm->engine_vm);
	free(vm->vcpus);
	free(vm);
}

struct cpu_state *state_machine_cpu(struct vm *vm, unsigned k)
{
	return &vm->engine_vm->vcpu[k].s;
}

void state_machine_refuse(unsigned times)
{
	refusals = times;
}
