/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The soft engine: our processor over our MMU. Creation, state, and the table of operations. */
#include "engine/soft/soft_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

static int soft_probe(const struct engine_config *config, struct engine_error *err)
{
	return 0;
}

static void vcpu_finish(struct engine_vcpu *v)
{
	mmu_vcpu_destroy(v->mmu);
	cpu_destroy(v->cpu);
	free(v->msr_bitmap);
	free(v->pml);
	if (v->vm) {
		pthread_mutex_destroy(&v->flush_lock);
		pthread_mutex_destroy(&v->wait_lock);
		pthread_cond_destroy(&v->wait_cond);
	}
}

static void soft_destroy(struct engine_vm *vm)
{
	if (!vm)
		return;
	if (vm->mmu && vm->config.mmu)
		mmu_detach(vm->mmu);
	for (unsigned k = 0; k < vm->count; k++)
		vcpu_finish(&vm->vcpus[k]);
	free(vm->vcpus);
	if (!vm->config.mmu)
		mmu_vm_destroy(vm->mmu);
	cpu_domain_destroy(vm->domain);
	engine_trace_finish(&vm->trace);
	free(vm);
}

static void vcpu_power_on(struct engine_vcpu *v)
{
	const struct engine_config *config = &v->vm->config;
	struct cpu_controls *ctl = cpu_controls(v->cpu);
	uint64_t adjust = cpu_state(v->cpu)->tsc_adjust;

	/* Not on creation, when there is no machine around yet. */
	if (adjust) {
		ctl->tsc_offset -= adjust;
		config->host->tsc_offset(config->host_priv, v->id, 0);
	}
	cpu_reset(v->cpu, false);
	cpu_state(v->cpu)->activity = v->id ? CPU_WAIT_FOR_SIPI : CPU_ACTIVE;
	v->requests = 0;
	v->nmi_pending = v->nmis = 0;
	v->root_valid = false;
	ctl->exits = 0;
	ctl->paging =
		mmu_get_policy(v->vm->mmu) == MMU_POLICY_TDP ? CPU_PAGING_TDP : CPU_PAGING_SHADOW;
	ctl->rand_seed = v->vm->config.rand_seed ? v->vm->config.rand_seed + v->id : 0;
	soft_set_controls(v);
	cpu_state_changed(v->cpu);
	cpu_tlb_flush_all(v->cpu);
	mmu_unload(v->mmu);
	soft_sync_mmu(v);
}

static int vcpu_init(struct engine_vcpu *v, struct engine_vm *vm, unsigned id)
{
	struct cpu_cpuid leaves[ENGINE_CPUID_MAX];
	unsigned n = engine_cpu_model_cpuid(vm->config.model, id, leaves);
	int ret;

	v->vm = vm;
	v->id = id;
	pthread_mutex_init(&v->flush_lock, NULL);
	pthread_mutex_init(&v->wait_lock, NULL);
	pthread_cond_init(&v->wait_cond, NULL);
	v->msr_bitmap = calloc(1, PAGE_SIZE);
	v->pml = calloc(CPU_PML_ENTRIES, sizeof(*v->pml));
	v->cpu = cpu_create(vm->domain, leaves, n);
	if (!v->msr_bitmap || !v->pml || !v->cpu)
		return -ENOMEM;
	cpu_controls(v->cpu)->pml = v->pml;
	cpu_controls(v->cpu)->pml_index = CPU_PML_ENTRIES - 1;
	ret = mmu_vcpu_create(vm->mmu, id, &v->mmu);
	if (ret)
		return ret;
	soft_emulate_init(v);
	vcpu_power_on(v);
	return 0;
}

/* The machine's MMU, or one of our own. */
static int attach_mmu(struct engine_vm *vm)
{
	const struct engine_config *config = &vm->config;
	struct mmu_config mmu = {
		.policy = config->policy,
		.tdp_format = config->tdp_format,
		.ram_bytes = config->ram_bytes,
		.disable = config->mmu_disable,
		.max_table_bytes = config->mmu_table_bytes,
		.max_page_level = config->mmu_max_level,
	};
	int ret;

	if (!config->mmu)
		return mmu_vm_create(&mmu, &soft_mmu_ops, vm, &vm->mmu);
	ret = mmu_attach(config->mmu, &mmu, &soft_mmu_ops, vm);
	if (!ret)
		vm->mmu = config->mmu;
	return ret;
}

static int soft_create(const struct engine_config *config, struct engine_vm **ret_vm,
		       struct engine_error *err)
{
	struct engine_vm *vm = calloc(1, sizeof(*vm));
	int ret = -ENOMEM;

	if (!vm)
		return -ENOMEM;
	vm->config = *config;
	engine_trace_init(&vm->trace);
	vm->domain = cpu_domain_create();
	vm->vcpus = calloc(config->vcpus, sizeof(*vm->vcpus));
	if (!vm->domain || !vm->vcpus)
		goto fail;
	ret = attach_mmu(vm);
	if (ret)
		goto fail;
	for (unsigned k = 0; k < config->vcpus; k++) {
		vm->count = k + 1;
		ret = vcpu_init(&vm->vcpus[k], vm, k);
		if (ret)
			goto fail;
	}
	*ret_vm = vm;
	return 0;
fail:
	soft_destroy(vm);
	if (err)
		snprintf(err->text, sizeof(err->text), "%s", strerror(-ret));
	return ret;
}

static void soft_set_trace(struct engine_vm *vm, engine_trace_fn fn, void *arg)
{
	engine_trace_set(&vm->trace, fn, arg);
}

static struct mmu_vm *soft_mmu(struct engine_vm *vm)
{
	return vm->mmu;
}

static const char *soft_error(struct engine_vm *vm)
{
	return "";
}

static struct engine_vcpu *soft_vcpu(struct engine_vm *vm, unsigned index)
{
	return index < vm->count ? &vm->vcpus[index] : NULL;
}

static int soft_set_policy(struct engine_vm *vm, enum mmu_policy policy)
{
	int ret;

	if (mmu_get_policy(vm->mmu) == policy)
		return 0;
	ret = mmu_set_policy(vm->mmu, policy);
	for (unsigned k = 0; k < vm->count && !ret; k++) {
		struct engine_vcpu *v = &vm->vcpus[k];

		/*
		 * The guest's registers are true in the state under either policy (CR0 and CR4 are
		 * only shown by the shadows, PDPTEs kept by whoever loaded them); mode and controls
		 * come with the root. The MMU may have missed CR3 loads under TDP.
		 */
		v->root_valid = false;
		memset(&v->again, 0, sizeof(v->again));
		soft_sync_mmu(v);
		cpu_tlb_flush_all(v->cpu);
	}
	return ret;
}

static struct mmu_vcpu *soft_vcpu_mmu(struct engine_vcpu *v)
{
	return v->mmu;
}

static void soft_vcpu_kick(struct engine_vcpu *v)
{
	soft_request(v, SOFT_REQ_KICK);
}

static void soft_vcpu_notify(struct engine_vcpu *v)
{
	soft_wake(v);
}

static void soft_vcpu_nmi(struct engine_vcpu *v)
{
	__atomic_fetch_add(&v->nmis, 1, __ATOMIC_SEQ_CST);
	soft_request(v, SOFT_REQ_NMI);
}

static void soft_vcpu_init(struct engine_vcpu *v)
{
	/* A start-up IPI from before is void; one that follows at once is not. */
	__atomic_fetch_and(&v->requests, (uint32_t)~SOFT_REQ_SIPI, __ATOMIC_SEQ_CST);
	soft_request(v, SOFT_REQ_INIT);
}

static void soft_vcpu_sipi(struct engine_vcpu *v, uint8_t vector)
{
	v->sipi_vector = vector;
	soft_request(v, SOFT_REQ_SIPI);
}

static bool soft_vcpu_runnable(struct engine_vcpu *v)
{
	const struct engine_config *config = &v->vm->config;
	const struct cpu_state *s = cpu_state(v->cpu);

	if (__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST) &
	    (SOFT_REQ_NMI | SOFT_REQ_INIT | SOFT_REQ_SIPI))
		return true;
	if (s->activity != CPU_HALTED)
		return s->activity == CPU_ACTIVE;
	return s->event.valid || s->pending_dbg || v->nmi_pending ||
	       ((s->rflags & X86_FLAG_IF) &&
		config->host->irq_pending(config->host_priv, v->id) >= 0);
}

static int soft_vcpu_reset(struct engine_vcpu *v)
{
	vcpu_power_on(v);
	return 0;
}

static int soft_vcpu_get_state(struct engine_vcpu *v, struct cpu_state *ret_state)
{
	*ret_state = *cpu_state(v->cpu);
	ret_state->nmi_pending =
		(uint8_t)MIN(v->nmi_pending + __atomic_load_n(&v->nmis, __ATOMIC_SEQ_CST), 2u);
	return 0;
}

static int soft_vcpu_set_state(struct engine_vcpu *v, const struct cpu_state *state)
{
	*cpu_state(v->cpu) = *state;
	v->nmi_pending = MIN(state->nmi_pending, 2u);
	__atomic_store_n(&v->nmis, 0, __ATOMIC_SEQ_CST);
	soft_set_controls(v);
	cpu_state_changed(v->cpu);
	cpu_tlb_flush_all(v->cpu);
	soft_sync_mmu(v);
	return 0;
}

static unsigned soft_vcpu_cpuid(const struct engine_vcpu *v,
				struct cpu_cpuid ret_leaves[ENGINE_CPUID_MAX])
{
	return engine_cpu_model_cpuid(v->vm->config.model, v->id, ret_leaves);
}

static uint64_t soft_vcpu_icount(struct engine_vcpu *v)
{
	return cpu_icount(v->cpu);
}

static int soft_vcpu_set_tsc(struct engine_vcpu *v, uint64_t tsc)
{
	bool counts = v->vm->config.clock == ENGINE_CLOCK_INSTRUCTIONS;

	cpu_controls(v->cpu)->tsc_offset =
		tsc + cpu_state(v->cpu)->tsc_adjust - (counts ? cpu_icount(v->cpu) : __rdtsc());
	return 0;
}

static int soft_vcpu_get_tsc(struct engine_vcpu *v, uint64_t *ret_tsc)
{
	*ret_tsc = cpu_tsc(v->cpu);
	return 0;
}

static int soft_vcpu_mmu_regs(struct engine_vcpu *v, struct mmu_regs *ret_regs)
{
	soft_mmu_regs(v, ret_regs);
	return 0;
}

static void soft_vcpu_stats(struct engine_vcpu *v, struct engine_vcpu_stats *ret_stats)
{
	*ret_stats = v->stats;
	ret_stats->tlb_flush_asked = __atomic_load_n(&v->stats.tlb_flush_asked, __ATOMIC_RELAXED);
	ret_stats->tlb_flush_ipis = __atomic_load_n(&v->stats.tlb_flush_ipis, __ATOMIC_RELAXED);
	ret_stats->cpu = *cpu_stats(v->cpu);
}

static void soft_vcpu_mmu_stats(struct engine_vcpu *v, struct mmu_vcpu_stats *ret_stats)
{
	mmu_vcpu_read_stats(v->mmu, ret_stats);
}

static int soft_vcpu_set_debug(struct engine_vcpu *v, const struct cpu_host_debug *debug)
{
	int ret = cpu_set_host_debug(v->cpu, debug);

	if (!ret)
		v->hold_irqs = debug && debug->single_step;
	return ret;
}

static void soft_vcpu_debug_hit(struct engine_vcpu *v, struct engine_debug_hit *ret_hit)
{
	static const enum engine_debug_kind kinds[] = {
		[CPU_DEBUG_STEP] = ENGINE_DEBUG_STEP,
		[CPU_DEBUG_BREAKPOINT] = ENGINE_DEBUG_BREAKPOINT,
		[CPU_DEBUG_WATCH] = ENGINE_DEBUG_WATCH,
	};
	const struct cpu_exit *e = cpu_exit(v->cpu);

	*ret_hit = (struct engine_debug_hit){
		.kind = kinds[e->debug.kind], .gva = e->debug.gva, .access = e->debug.access};
}

static const char *soft_vcpu_error(struct engine_vcpu *v)
{
	return v->error;
}

static unsigned soft_vcpu_history(struct engine_vcpu *v, uint64_t *rip, unsigned max)
{
	return cpu_history(v->cpu, rip, max);
}

static unsigned soft_vcpu_peek(struct engine_vcpu *v, gva_t gva, void *data, unsigned len)
{
	soft_sync_mmu(v);
	return engine_peek(v->mmu, gva, data, len);
}

static unsigned soft_vcpu_disassemble(struct engine_vcpu *v, const uint8_t *bytes, unsigned len,
				      uint64_t rip, char *text, size_t text_len)
{
	return cpu_disassemble(v->cpu, bytes, len, rip, text, text_len);
}

const struct engine_ops engine_soft = {
	.name = "soft",
	.probe = soft_probe,
	.create = soft_create,
	.destroy = soft_destroy,
	.mmu = soft_mmu,
	.error = soft_error,
	.set_policy = soft_set_policy,
	.set_trace = soft_set_trace,
	.vcpu = soft_vcpu,
	.vcpu_run = soft_vcpu_run,
	.vcpu_kick = soft_vcpu_kick,
	.vcpu_notify = soft_vcpu_notify,
	.vcpu_nmi = soft_vcpu_nmi,
	.vcpu_init = soft_vcpu_init,
	.vcpu_sipi = soft_vcpu_sipi,
	.vcpu_runnable = soft_vcpu_runnable,
	.vcpu_reset = soft_vcpu_reset,
	.vcpu_get_state = soft_vcpu_get_state,
	.vcpu_set_state = soft_vcpu_set_state,
	.vcpu_cpuid = soft_vcpu_cpuid,
	.vcpu_icount = soft_vcpu_icount,
	.vcpu_set_tsc = soft_vcpu_set_tsc,
	.vcpu_get_tsc = soft_vcpu_get_tsc,
	.vcpu_stats = soft_vcpu_stats,
	.vcpu_mmu_stats = soft_vcpu_mmu_stats,
	.vcpu_mmu = soft_vcpu_mmu,
	.vcpu_mmu_regs = soft_vcpu_mmu_regs,
	.vcpu_set_debug = soft_vcpu_set_debug,
	.vcpu_debug_hit = soft_vcpu_debug_hit,
	.vcpu_error = soft_vcpu_error,
	.vcpu_history = soft_vcpu_history,
	.vcpu_peek = soft_vcpu_peek,
	.vcpu_disassemble = soft_vcpu_disassemble,
};
