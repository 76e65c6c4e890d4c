/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The methods about one machine as umbra-vm serves them: the table, and those that only change
 * state. */
#include "vm/vm_api.h"

#include <errno.h>
#include <json-c/json.h>

#include "api/server.h"
#include "vm/sandbox.h"
#include "vm/vm_internal.h"

struct vm *vm_of_call(struct api_call *call)
{
	struct vm *vm = api_call_data(call);

	if (vm->state != VM_CREATED && vm->state != VM_ENDED)
		return vm;
	api_call_fail(call, API_KIND_INVALID_STATE, "the machine is %s: it does not run",
		      vm_state_names[vm->state]);
	return NULL;
}

struct vcpu *vcpu_of_call(struct api_call *call, struct vm *vm)
{
	int64_t index = api_call_int(call, "vcpu", 0);
	struct api_error err;

	if (index >= 0 && index < (int64_t)vm->cpus)
		return &vm->vcpus[index];
	api_error_field(&err, "vcpu", "there is no vCPU %lld: the machine has %u, from 0",
			(long long)index, vm->cpus);
	api_call_error(call, &err);
	return NULL;
}

/* Answer a call that gives nothing but may fail. */
static void answer(struct api_call *call, int ret, const struct api_error *err)
{
	if (ret)
		api_call_error(call, err);
	else
		api_call_reply(call, NULL, -1);
}

static void handle_pause(struct api_call *call)
{
	struct api_error err = {0};

	answer(call, vm_pause(api_call_data(call), &err), &err);
}

static void handle_resume(struct api_call *call)
{
	struct api_error err = {0};

	answer(call, vm_resume(api_call_data(call), &err), &err);
}

static void handle_reset(struct api_call *call)
{
	struct api_error err = {0};

	answer(call, vm_reset(api_call_data(call), &err), &err);
}

static void handle_stats(struct api_call *call)
{
	struct json_object *stats = json_object_new_object();
	struct api_error err = {0};

	if (!stats || vm_stats(api_call_data(call), stats, &err)) {
		json_object_put(stats);
		api_call_fail(call, API_KIND_INTERNAL, "out of memory");
		return;
	}
	api_call_reply(call, stats, -1);
}

static void handle_sandbox(struct api_call *call)
{
	api_call_reply(call, sandbox_to_json(), -1);
}

const struct api_machine_ops vm_machine_ops = {
	.machine_pause = handle_pause,
	.machine_resume = handle_resume,
	.machine_reset = handle_reset,
	.machine_stats = handle_stats,
	.machine_sandbox = handle_sandbox,
	.machine_set_engine = handle_machine_set_engine,
	.mmu_walk = handle_mmu_walk,
	.mmu_stat = handle_mmu_stat,
	.mmu_context = handle_mmu_context,
	.mmu_slots = handle_mmu_slots,
	.mmu_roots = handle_mmu_roots,
	.mmu_pages = handle_mmu_pages,
	.mmu_rmap = handle_mmu_rmap,
	.mmu_map = handle_mmu_map,
	.mmu_trace = handle_mmu_trace,
	.mmu_audit = handle_mmu_audit,
	.mmu_policy = handle_mmu_policy,
	.machine_read = handle_machine_read,
	.machine_disassemble = handle_machine_disassemble,
	.machine_registers = handle_machine_registers,
	.machine_gdb = handle_machine_gdb,
	.dirty_start = handle_dirty_start,
	.dirty_stop = handle_dirty_stop,
	.dirty_list = handle_dirty_list,
	.dirty_get = handle_dirty_get,
	.dirty_clear = handle_dirty_clear,
	.dirty_rate = handle_dirty_rate,
	.dirty_heat = handle_dirty_heat,
};
