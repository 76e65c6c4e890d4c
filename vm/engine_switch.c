/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine goes on with another engine: what its guest sees stays the same. */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/server.h"
#include "vm/state.h"
#include "vm/vm_api.h"
#include "vm/vm_internal.h"

/*
 * Memory, slots and dirty clients are the machine's and stay. The rest goes through the saved
 * state: so what is checked there is checked here, and an engine that cannot carry something says
 * so before the guest runs again. The old engine must be gone before the new one is made, as both
 * would have the machine's mmu_vm; when the new one fails, the old one is made again and gets its
 * state back.
 */

static const struct engine_ops *const engines[] = {&engine_soft, &engine_kvm};

/* ---- what the guest sees of CPUID ---------------------------------------------------------------
 */

static const struct cpu_cpuid *leaf_in(const struct cpu_cpuid *leaves, unsigned n,
				       const struct cpu_cpuid *like)
{
	for (unsigned k = 0; k < n; k++)
		if (leaves[k].leaf == like->leaf && leaves[k].subleaf == like->subleaf)
			return &leaves[k];
	return NULL;
}

/* Bits that follow CR4, wherever CPUID is asked: OSXSAVE and OSPKE. */
static void drop_live_bits(struct cpu_cpuid *e)
{
	if (e->leaf == 1)
		e->ecx &= ~(uint32_t)BIT(27);
	if (e->leaf == 7)
		e->ecx &= ~(uint32_t)BIT(4);
}

/* Into @ret what each leaf of @a has and @b has not. How many leaves have something. */
static unsigned only_in(const struct cpu_cpuid *a, unsigned n_a, const struct cpu_cpuid *b,
			unsigned n_b, struct cpu_cpuid ret[ENGINE_CPUID_MAX])
{
	unsigned count = 0;

	for (unsigned k = 0; k < MIN(n_a, (unsigned)ENGINE_CPUID_MAX); k++) {
		const struct cpu_cpuid *other = leaf_in(b, n_b, &a[k]);
		struct cpu_cpuid e = a[k];

		if (other) {
			e.eax &= ~other->eax;
			e.ebx &= ~other->ebx;
			e.ecx &= ~other->ecx;
			e.edx &= ~other->edx;
		}
		drop_live_bits(&e);
		if (e.eax | e.ebx | e.ecx | e.edx)
			ret[count++] = e;
	}
	return count;
}

bool vm_cpuid_differences(const struct cpu_cpuid *was, unsigned n_was, const struct cpu_cpuid *now,
			  unsigned n_now, char *text, size_t size)
{
	struct cpu_cpuid lost[ENGINE_CPUID_MAX], new[ENGINE_CPUID_MAX];
	unsigned n_lost = only_in(was, n_was, now, n_now, lost);
	unsigned n_new = only_in(now, n_now, was, n_was, new);
	char names[2][220];

	if (size)
		*text = 0;
	if (!n_lost && !n_new)
		return false;
	engine_cpu_feature_names(lost, n_lost, names[0], sizeof(names[0]));
	engine_cpu_feature_names(new, n_new, names[1], sizeof(names[1]));
	snprintf(text, size, "CPUID shows other bits: %s%s%s%s", n_lost ? "less " : "",
		 n_lost ? names[0] : "", n_new ? (n_lost ? "; more " : "more ") : "",
		 n_new ? names[1] : "");
	return true;
}

/* The guest goes on with our processor as it knows its own, as far as that can. */
static void model_as_seen(struct vm *vm, const struct cpu_cpuid *seen, unsigned n)
{
	vm->model = vm->full_model;
	engine_cpu_model_limit(&vm->model, seen, n);
}

static int check_cpuid(struct vm *vm, struct vm_move *move, const struct cpu_cpuid *seen,
		       unsigned n, struct api_error *err)
{
	struct cpu_cpuid now[ENGINE_CPUID_MAX];
	unsigned n_now = vm->engine->vcpu_cpuid(vm->vcpus[0].engine, now);

	if (!vm_cpuid_differences(seen, n, now, n_now, move->cpuid, sizeof(move->cpuid)) ||
	    move->anyway)
		return 0;
	return api_error_set(err, API_KIND_NOT_SUPPORTED,
			     "the guest would see another processor under engine \"%s\": %s",
			     move->to->name, move->cpuid);
}

/* Does the TSC go on from where it was? kvm_pvm shows the host's, whatever it is told. */
static int check_tsc(struct vm *vm, struct vm_move *move, struct api_error *err)
{
	struct engine_vcpu *v = vm->vcpus[0].engine;
	struct lapic_state lapic;
	uint64_t want, now;

	if (vm->counts)
		return 0;
	lapic_save(board_lapic(vm->board, 0), &lapic);
	want = clock_tsc(&vm->clock) + lapic.tsc_offset;
	if (vm->engine->vcpu_set_tsc(v, clock_tsc(&vm->clock)) || vm->engine->vcpu_get_tsc(v, &now))
		return api_error_set(err, API_KIND_NOT_SUPPORTED, "the TSC: %s",
				     vm->engine->vcpu_error(v));
	if (now - want < vm->clock.tsc_hz) /* it went on since */
		return 0;
	move->tsc[0] = want;
	move->tsc[1] = now;
	return move->anyway
		       ? 0
		       : api_error_set(err, API_KIND_NOT_SUPPORTED,
				       "the guest's TSC would leap under engine \"%s\": 0x%llx, "
				       "then 0x%llx",
				       move->to->name, (unsigned long long)want,
				       (unsigned long long)now);
}

/* ---- the move -----------------------------------------------------------------------------------
 */

static int check_allowed(struct vm *vm, const struct engine_ops *to, struct api_error *err)
{
	struct engine_config config;
	int ret;

	if (vm->gdb)
		return api_error_set(err, API_KIND_INVALID_STATE,
				     "a debugger is attached: its breakpoints are the engine's");
	ret = vm_engine_config(vm, NULL, &config, err);
	return ret ? ret : vm_engine_allowed(to, vm->def, vm->files, &config, err);
}

static int load(struct vm *vm, const struct buf *state, struct api_error *err)
{
	int ret;

	board_set_chips(vm->board, vm_board_chips(vm));
	ret = vm_state_load(vm, state->data, state->len, VM_STATE_OTHER_CPUID, err);
	return ret ? ret : vm_chips_store(vm, err);
}

/* The new engine could not be had, @why says how: the old one goes on. */
static void go_back(struct vm *vm, const struct engine_ops *old, const struct buf *state,
		    const struct api_error *why)
{
	struct api_error err;

	vm_engine_unmake(vm);
	if (!vm_engine_make(vm, old, &err) && !load(vm, state, &err))
		return;
	/* Something must be there for the machine to end on. */
	if (!vm->engine && vm_engine_make(vm, &engine_soft, &err))
		abort();
	board_set_chips(vm->board, vm_board_chips(vm));
	vm_request_end(vm, VM_REASON_ENGINE, 0, 0,
		       "%s; and the way back to engine \"%s\" failed: %s", why->text, old->name,
		       err.text);
}

/* What has become of the state on the way, seen from the new engine. */
static int look_back(struct vm *vm, struct buf *after, struct api_error *err)
{
	int ret = vm_chips_fetch(vm, err);

	return ret ? ret : vm_state_save(vm, after, err);
}

static int carry_over(struct vm *vm, struct vm_move *move, struct api_error *err)
{
	const struct engine_cpu_model model = vm->model;
	const struct engine_ops *old = vm->engine;
	struct cpu_cpuid seen[ENGINE_CPUID_MAX];
	unsigned n = old->vcpu_cpuid(vm->vcpus[0].engine, seen);
	int ret = vm_state_save(vm, &move->before, err);

	if (ret)
		return ret;
	vm_engine_unmake(vm);
	if (move->to == &engine_soft)
		model_as_seen(vm, seen, n);
	ret = vm_engine_make(vm, move->to, err);
	if (!ret)
		ret = check_cpuid(vm, move, seen, n, err);
	if (!ret)
		ret = load(vm, &move->before, err);
	if (!ret)
		ret = check_tsc(vm, move, err);
	if (!ret)
		ret = look_back(vm, &move->after, err);
	if (!ret)
		return 0;
	vm->model = model;
	go_back(vm, old, &move->before, err);
	return ret;
}

int vm_set_engine(struct vm *vm, struct vm_move *move, struct api_error *err)
{
	const struct engine_ops *old = vm->engine;
	bool ran = vm_runs(vm);
	int ret;

	if (move->to == old)
		return 0;
	ret = check_allowed(vm, move->to, err);
	if (ret)
		return ret;
	if (ran)
		vm_halt(vm);
	if (vm_stop_requested(vm))
		ret = api_error_set(err, API_KIND_INVALID_STATE, "the machine is about to end");
	else
		ret = carry_over(vm, move, err);
	if (!ret) {
		vm->choice.ops = move->to;
		snprintf(vm->choice.why, sizeof(vm->choice.why), "machine.set_engine, from %s",
			 old->name);
	}
	vm_trace_again(vm);
	if (ran)
		vm_go(vm);
	if (!ret)
		vm->ops->state_changed(vm->data);
	return ret;
}

/* ---- the method ---------------------------------------------------------------------------------
 */

static const struct engine_ops *engine_named(const char *name)
{
	for (size_t n = 0; n < ARRAY_SIZE(engines); n++)
		if (!strcmp(engines[n]->name, name))
			return engines[n];
	return NULL;
}

static void add_difference(void *arg, const struct vm_state_diff *diff)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "what", json_object_new_string(diff->what));
	json_object_object_add(o, "was", json_object_new_string(diff->a));
	json_object_object_add(o, "is", json_object_new_string(diff->b));
	json_object_array_add(arg, o);
}

static double now_s(void)
{
	return (double)clock_host_ns(NULL) / 1e9;
}

static struct json_object *move_to_json(const struct vm *vm, const char *was,
					const struct vm_move *move, double seconds)
{
	struct json_object *r = json_object_new_object(), *list = json_object_new_array();

	if (move->after.len)
		vm_state_compare(&move->before, &move->after, add_difference, list);
	if (move->tsc[1]) {
		char text[2][24];

		for (unsigned k = 0; k < 2; k++)
			snprintf(text[k], sizeof(text[k]), "0x%llx",
				 (unsigned long long)move->tsc[k]);
		add_difference(list, &(struct vm_state_diff){"tsc", text[0], text[1]});
	}
	json_object_object_add(r, "engine", json_object_new_string(vm->engine->name));
	json_object_object_add(r, "was", json_object_new_string(was));
	json_object_object_add(r, "cpuid", json_object_new_string(move->cpuid));
	json_object_object_add(r, "differences", list);
	json_object_object_add(r, "seconds", json_object_new_double(seconds));
	return r;
}

void handle_machine_set_engine(struct api_call *call)
{
	const char *name = api_call_string(call, "engine");
	struct vm_move move = {.anyway = api_call_bool(call, "anyway", false)};
	struct vm *vm = vm_of_call(call);
	struct api_error err = {0};
	double start = now_s();
	const char *was;

	if (!vm)
		return;
	was = vm->engine->name;
	move.to = name ? engine_named(name) : vm->engine;
	if (vm_set_engine(vm, &move, &err))
		api_call_error(call, &err);
	else
		api_call_reply(call, move_to_json(vm, was, &move, now_s() - start), -1);
	buf_finish(&move.before);
	buf_finish(&move.after);
}
