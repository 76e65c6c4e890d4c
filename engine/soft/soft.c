/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The soft engine: our processor over our MMU. Creation, state, and the table of operations. */
#include "engine/soft/soft_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

static int soft_probe(char *why, size_t size)
{
	return 0;
}

static void vcpu_finish(struct engine_vcpu *v)
{
	mmu_vcpu_destroy(v->mmu);
	cpu_destroy(v->cpu);
	free(v->msr_bitmap);
	if (v->vm)
		pthread_mutex_destroy(&v->flush_lock);
}

static void soft_destroy(struct engine_vm *vm)
{
	if (!vm)
		return;
	for (unsigned k = 0; k < vm->count; k++)
		vcpu_finish(&vm->vcpus[k]);
	free(vm->vcpus);
	mmu_vm_destroy(vm->mmu);
	cpu_domain_destroy(vm->domain);
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
	ctl->paging = v->vm->config.policy == MMU_POLICY_TDP ? CPU_PAGING_TDP : CPU_PAGING_SHADOW;
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
	v->msr_bitmap = calloc(1, PAGE_SIZE);
	v->cpu = cpu_create(vm->domain, leaves, n);
	if (!v->msr_bitmap || !v->cpu)
		return -ENOMEM;
	ret = mmu_vcpu_create(vm->mmu, id, &v->mmu);
	if (ret)
		return ret;
	vcpu_power_on(v);
	return 0;
}

static int soft_create(const struct engine_config *config, struct engine_vm **ret_vm)
{
	struct mmu_config mmu = {
		.policy = config->policy,
		.tdp_format = config->tdp_format,
		.ram_bytes = config->ram_bytes,
		.disable = config->mmu_disable,
	};
	struct engine_vm *vm = calloc(1, sizeof(*vm));
	int ret = -ENOMEM;

	if (!vm)
		return -ENOMEM;
	vm->config = *config;
	vm->policy = config->policy;
	vm->domain = cpu_domain_create();
	vm->vcpus = calloc(config->vcpus, sizeof(*vm->vcpus));
	if (!vm->domain || !vm->vcpus)
		goto fail;
	ret = mmu_vm_create(&mmu, &soft_mmu_ops, vm, &vm->mmu);
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
	return ret;
}

static struct mmu_vm *soft_mmu(struct engine_vm *vm)
{
	return vm->mmu;
}

static struct engine_vcpu *soft_vcpu(struct engine_vm *vm, unsigned index)
{
	return index < vm->count ? &vm->vcpus[index] : NULL;
}

static void soft_vcpu_kick(struct engine_vcpu *v)
{
	soft_request(v, SOFT_REQ_KICK);
}

static void soft_vcpu_notify(struct engine_vcpu *v)
{
	cpu_kick(v->cpu);
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
	    ~(SOFT_REQ_FLUSH_ALL | SOFT_REQ_FLUSH_FRAMES))
		return true;
	if (s->activity != CPU_HALTED)
		return s->activity == CPU_ACTIVE;
	return s->event.valid || s->pending_dbg || v->nmi_pending ||
	       ((s->rflags & X86_FLAG_IF) &&
		config->host->irq_pending(config->host_priv, v->id) >= 0);
}

static void soft_vcpu_reset(struct engine_vcpu *v)
{
	vcpu_power_on(v);
}

static void soft_vcpu_get_state(struct engine_vcpu *v, struct cpu_state *ret_state)
{
	*ret_state = *cpu_state(v->cpu);
}

static int soft_vcpu_set_state(struct engine_vcpu *v, const struct cpu_state *state)
{
	*cpu_state(v->cpu) = *state;
	soft_set_controls(v);
	cpu_state_changed(v->cpu);
	cpu_tlb_flush_all(v->cpu);
	soft_sync_mmu(v);
	return 0;
}

static uint64_t soft_vcpu_icount(struct engine_vcpu *v)
{
	return cpu_icount(v->cpu);
}

static void soft_vcpu_set_tsc(struct engine_vcpu *v, uint64_t tsc)
{
	bool counts = v->vm->config.clock == ENGINE_CLOCK_INSTRUCTIONS;

	cpu_controls(v->cpu)->tsc_offset =
		tsc + cpu_state(v->cpu)->tsc_adjust - (counts ? cpu_icount(v->cpu) : __rdtsc());
}

static uint64_t soft_vcpu_get_tsc(struct engine_vcpu *v)
{
	return cpu_tsc(v->cpu);
}

static void soft_vcpu_stats(struct engine_vcpu *v, struct engine_vcpu_stats *ret_stats)
{
	*ret_stats = v->stats;
	ret_stats->cpu = *cpu_stats(v->cpu);
}

static void soft_vcpu_mmu_stats(struct engine_vcpu *v, struct mmu_vcpu_stats *ret_stats)
{
	mmu_vcpu_read_stats(v->mmu, ret_stats);
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
	unsigned done = 0;

	soft_sync_mmu(v);
	while (done < len) {
		unsigned n = MIN(len - done, (unsigned)(PAGE_SIZE - ((gva + done) & ~PAGE_MASK)));
		struct mmu_walk_result walk;

		if (mmu_gva_to_gpa(v->mmu, gva + done, MMU_ACC_PEEK, &walk) ||
		    slot_read(v->vm->mmu, walk.gpa, (char *)data + done, n) < 0)
			break;
		done += n;
	}
	return done;
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
	.vcpu_icount = soft_vcpu_icount,
	.vcpu_set_tsc = soft_vcpu_set_tsc,
	.vcpu_get_tsc = soft_vcpu_get_tsc,
	.vcpu_stats = soft_vcpu_stats,
	.vcpu_mmu_stats = soft_vcpu_mmu_stats,
	.vcpu_error = soft_vcpu_error,
	.vcpu_history = soft_vcpu_history,
	.vcpu_peek = soft_vcpu_peek,
	.vcpu_disassemble = soft_vcpu_disassemble,
};
