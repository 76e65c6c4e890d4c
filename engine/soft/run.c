/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The vCPU loop: requests, interrupts, into guest mode and out, and the flushes that others ask
 * for. */
#include "engine/soft/soft_internal.h"

#include <sched.h>
#include <string.h>

/* ---- requests ---------------------------------------------------------------------------------
 */

void soft_wake(struct engine_vcpu *v)
{
	__atomic_fetch_add(&v->wakes, 1, __ATOMIC_SEQ_CST);
	cpu_kick(v->cpu);
	if (__atomic_load_n(&v->waiting, __ATOMIC_SEQ_CST)) {
		pthread_mutex_lock(&v->wait_lock);
		pthread_cond_signal(&v->wait_cond);
		pthread_mutex_unlock(&v->wait_lock);
	}
}

void soft_request(struct engine_vcpu *v, uint32_t request)
{
	__atomic_fetch_or(&v->requests, request, __ATOMIC_SEQ_CST);
	soft_wake(v);
}

/* The MMU said that it is somebody else's turn: whoever makes room, or brings the page, kicks. */
static void wait_for_others(struct engine_vcpu *v)
{
	v->stats.waits++;
	pthread_mutex_lock(&v->wait_lock);
	__atomic_store_n(&v->waiting, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST) &&
	       __atomic_load_n(&v->wakes, __ATOMIC_SEQ_CST) == v->wakes_seen)
		pthread_cond_wait(&v->wait_cond, &v->wait_lock);
	__atomic_store_n(&v->waiting, 0, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&v->wait_lock);
}

static bool take_request(struct engine_vcpu *v, uint32_t request)
{
	if (!(__atomic_load_n(&v->requests, __ATOMIC_RELAXED) & request))
		return false;
	return __atomic_fetch_and(&v->requests, ~request, __ATOMIC_SEQ_CST) & request;
}

static void flush_frames(struct engine_vcpu *v)
{
	unsigned n;

	pthread_mutex_lock(&v->flush_lock);
	n = v->flush_count;
	for (unsigned k = 0; k < n; k++)
		cpu_tlb_flush_hpa(v->cpu, v->flush[k].hpa, v->flush[k].len);
	v->flush_count = 0;
	pthread_mutex_unlock(&v->flush_lock);
}

static void do_requests(struct engine_vcpu *v)
{
	if (take_request(v, SOFT_REQ_INIT)) {
		cpu_reset(v->cpu, true);
		if (v->id != 0)
			cpu_state(v->cpu)->activity = CPU_WAIT_FOR_SIPI;
		soft_set_controls(v);
		cpu_state_changed(v->cpu);
		soft_sync_mmu(v);
		v->vm->config.host->init(v->vm->config.host_priv, v->id);
	}
	if (take_request(v, SOFT_REQ_SIPI) && cpu_state(v->cpu)->activity == CPU_WAIT_FOR_SIPI) {
		struct cpu_state *s = cpu_state(v->cpu);

		s->seg[X86_CS].sel = (uint16_t)(v->sipi_vector << 8);
		s->seg[X86_CS].base = (uint64_t)v->sipi_vector << 12;
		s->rip = 0;
		s->activity = CPU_ACTIVE;
		cpu_state_changed(v->cpu);
	}
	if (take_request(v, SOFT_REQ_NMI)) {
		const struct cpu_state *s = cpu_state(v->cpu);
		bool one = s->nmi_blocked || (s->event.valid && s->event.type == CPU_EVENT_NMI);
		unsigned most = one ? 1 : 2;

		v->nmi_pending += __atomic_exchange_n(&v->nmis, 0, __ATOMIC_SEQ_CST);
		v->nmi_pending = MIN(v->nmi_pending, most);
	}
	if (take_request(v, SOFT_REQ_FLUSH_ALL)) {
		take_request(v, SOFT_REQ_FLUSH_FRAMES);
		pthread_mutex_lock(&v->flush_lock);
		v->flush_count = 0;
		pthread_mutex_unlock(&v->flush_lock);
		cpu_tlb_flush_all(v->cpu);
	}
	if (take_request(v, SOFT_REQ_FLUSH_FRAMES))
		flush_frames(v);
}

/* ---- the MMU's way out ------------------------------------------------------------------------
 */

static void post_flush(struct engine_vcpu *v, const struct mmu_flush *flush)
{
	uint32_t request = SOFT_REQ_FLUSH_ALL;

	if (flush->kind == MMU_FLUSH_FRAMES) {
		pthread_mutex_lock(&v->flush_lock);
		if (v->flush_count < SOFT_FLUSH_QUEUE) {
			v->flush[v->flush_count].hpa = flush->pfn << PAGE_SHIFT;
			v->flush[v->flush_count++].len = flush->count << PAGE_SHIFT;
			request = SOFT_REQ_FLUSH_FRAMES;
		}
		pthread_mutex_unlock(&v->flush_lock);
	}
	__atomic_fetch_or(&v->requests, request, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&v->stats.tlb_flush_asked, 1, __ATOMIC_RELAXED);
}

static void mmu_op_flush_tlb(void *priv, const struct mmu_flush *flush)
{
	struct engine_vm *vm = priv;

	for (unsigned k = 0; k < vm->count; k++) {
		struct engine_vcpu *v = &vm->vcpus[k];

		if (flush->vcpus & MMU_VCPU_BIT(v->id))
			post_flush(v, flush);
	}
	for (unsigned k = 0; k < vm->count; k++) {
		struct engine_vcpu *v = &vm->vcpus[k];
		uint32_t seq;

		if (!(flush->vcpus & MMU_VCPU_BIT(v->id)))
			continue;
		seq = __atomic_load_n(&v->entries_seq, __ATOMIC_SEQ_CST);
		if (!__atomic_load_n(&v->in_guest, __ATOMIC_SEQ_CST))
			continue;
		__atomic_fetch_add(&v->stats.tlb_flush_ipis, 1, __ATOMIC_RELAXED);
		cpu_kick(v->cpu);
		while (__atomic_load_n(&v->in_guest, __ATOMIC_SEQ_CST) &&
		       __atomic_load_n(&v->entries_seq, __ATOMIC_SEQ_CST) == seq)
			sched_yield();
	}
}

static void mmu_op_kick(void *priv, uint64_t vcpus)
{
	struct engine_vm *vm = priv;

	for (unsigned k = 0; k < vm->count; k++)
		if (vcpus & MMU_VCPU_BIT(vm->vcpus[k].id))
			soft_wake(&vm->vcpus[k]);
}

/* A log that holds something is emptied by its vCPU, once that has left guest mode. */
static void mmu_op_drain_pml(void *priv)
{
	struct engine_vm *vm = priv;

	for (unsigned k = 0; k < vm->count; k++) {
		struct engine_vcpu *v = &vm->vcpus[k];
		uint32_t seq = __atomic_load_n(&v->pml_seq, __ATOMIC_SEQ_CST);

		if (!__atomic_load_n(&v->pml_busy, __ATOMIC_SEQ_CST))
			continue;
		cpu_kick(v->cpu);
		while (__atomic_load_n(&v->pml_busy, __ATOMIC_SEQ_CST) &&
		       __atomic_load_n(&v->pml_seq, __ATOMIC_SEQ_CST) == seq)
			sched_yield();
	}
}

static void mmu_op_notify_write(void *priv, hva_t hva, uint64_t len)
{
	struct engine_vm *vm = priv;

	cpu_domain_notify_write(vm->domain, hva, len);
}

const struct mmu_ops soft_mmu_ops = {
	.flush_tlb = mmu_op_flush_tlb,
	.kick = mmu_op_kick,
	.notify_write = mmu_op_notify_write,
	.drain_pml = mmu_op_drain_pml,
};

/* ---- interrupts -------------------------------------------------------------------------------
 */

/* Put what is to be delivered next into the state, or ask to be told when it can be. */
static void inject(struct engine_vcpu *v)
{
	const struct engine_config *config = &v->vm->config;
	struct cpu_state *s = cpu_state(v->cpu);
	struct cpu_controls *ctl = cpu_controls(v->cpu);
	uint64_t windows = 0;
	int vector;

	if (v->hold_irqs && s->activity == CPU_ACTIVE) {
		ctl->exits &= ~(CPU_CTL_IRQ_WINDOW | CPU_CTL_NMI_WINDOW);
		cpu_state_changed(v->cpu);
		return;
	}
	if (!s->event.valid && v->nmi_pending && cpu_can_nmi(v->cpu)) {
		v->nmi_pending--;
		s->activity = CPU_ACTIVE;
		s->event = (struct cpu_event){
			.valid = true, .type = CPU_EVENT_NMI, .vector = X86_VEC_NMI};
	}
	if (config->host->irq_pending(config->host_priv, v->id) >= 0 && cpu_can_interrupt(v->cpu)) {
		vector = config->host->irq_ack(config->host_priv, v->id);
		if (vector >= 0) {
			v->stats.irqs++;
			s->activity = CPU_ACTIVE;
			s->event = (struct cpu_event){.valid = true,
						      .type = CPU_EVENT_EXT_INTR,
						      .vector = (uint8_t)vector};
		}
	}
	/* What is left waits, be it only for what is being delivered first. */
	if (v->nmi_pending)
		windows |= CPU_CTL_NMI_WINDOW;
	if (config->host->irq_pending(config->host_priv, v->id) >= 0)
		windows |= CPU_CTL_IRQ_WINDOW;
	if (windows != (ctl->exits & (CPU_CTL_IRQ_WINDOW | CPU_CTL_NMI_WINDOW)))
		ctl->exits = (ctl->exits & ~(CPU_CTL_IRQ_WINDOW | CPU_CTL_NMI_WINDOW)) | windows;
	cpu_state_changed(v->cpu);
}

/* ---- guest mode -------------------------------------------------------------------------------
 */

static int load_root(struct engine_vcpu *v)
{
	struct cpu_controls *ctl = cpu_controls(v->cpu);
	struct mmu_root root;
	int ret = mmu_load(v->mmu, &root);

	if (ret)
		return ret;
	if (v->root_valid && root.tag == v->root.tag && root.hpa == v->root.hpa &&
	    root.pml == v->root.pml)
		return 0;
	/* What may be stored to without looking at D hangs on this. */
	if (v->root_valid && root.pml != v->root.pml)
		cpu_tlb_flush_all(v->cpu);
	v->root = root;
	v->root_valid = true;
	ctl->paging = root.format == MMU_FORMAT_X86 ? CPU_PAGING_SHADOW : CPU_PAGING_TDP;
	ctl->tdp_format = root.format == MMU_FORMAT_NPT ? CPU_TDP_NPT : CPU_TDP_EPT;
	ctl->tdp_levels = root.level;
	ctl->root = root.hpa;
	soft_set_controls(v);
	cpu_state_changed(v->cpu);
	return 0;
}

/* The processor counts its index down from the last entry. */
static void drain_pml(struct engine_vcpu *v)
{
	struct cpu_controls *ctl = cpu_controls(v->cpu);
	uint16_t n = (uint16_t)(CPU_PML_ENTRIES - 1 - ctl->pml_index);

	if (n) {
		mmu_pml_write(v->mmu, v->pml + CPU_PML_ENTRIES - n, n);
		v->stats.pml_entries += n;
		ctl->pml_index = CPU_PML_ENTRIES - 1;
	}
	__atomic_fetch_add(&v->pml_seq, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->pml_busy, 0, __ATOMIC_SEQ_CST);
}

/* One stay in guest mode. False: something has to be done first. */
static bool enter(struct engine_vcpu *v)
{
	bool ran = false;

	if (v->root.pml)
		__atomic_store_n(&v->pml_busy, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->in_guest, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST) && !mmu_needs_load(v->mmu)) {
		v->stats.entries++;
		cpu_run(v->cpu);
		ran = true;
	}
	__atomic_fetch_add(&v->entries_seq, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->in_guest, 0, __ATOMIC_SEQ_CST);
	if (v->root.pml)
		drain_pml(v);
	return ran;
}

static bool must_sleep(struct engine_vcpu *v)
{
	const struct engine_config *config = &v->vm->config;
	const struct cpu_state *s = cpu_state(v->cpu);

	if (s->activity == CPU_WAIT_FOR_SIPI)
		return true;
	if (s->activity != CPU_HALTED || s->event.valid || s->pending_dbg || v->nmi_pending)
		return false;
	return !(s->rflags & X86_FLAG_IF) ||
	       config->host->irq_pending(config->host_priv, v->id) < 0;
}

static enum engine_exit leave_with(struct engine_vcpu *v, enum soft_next next)
{
	switch (next) {
	case SOFT_HALT: v->stats.halts++; return ENGINE_EXIT_HALT;
	case SOFT_SHUTDOWN: return ENGINE_EXIT_SHUTDOWN;
	case SOFT_DEBUG: return ENGINE_EXIT_DEBUG;
	default: return ENGINE_EXIT_ERROR;
	}
}

enum engine_exit soft_vcpu_run(struct engine_vcpu *v, uint64_t budget)
{
	uint64_t limit = cpu_icount(v->cpu);

	if (__builtin_add_overflow(limit, budget, &limit))
		limit = ~0ull;
	cpu_set_icount_limit(v->cpu, limit);
	for (;;) {
		enum soft_next next;
		int ret;

		v->wakes_seen = __atomic_load_n(&v->wakes, __ATOMIC_SEQ_CST);
		do_requests(v);
		if (take_request(v, SOFT_REQ_KICK))
			return ENGINE_EXIT_KICK;
		if (must_sleep(v)) {
			v->stats.halts++;
			return ENGINE_EXIT_HALT;
		}
		if (cpu_icount(v->cpu) >= limit)
			return ENGINE_EXIT_BUDGET;
		inject(v);
		if (mmu_needs_load(v->mmu) || !v->root_valid) {
			ret = load_root(v);
			if (ret == MMU_RING_FULL) {
				wait_for_others(v);
				continue;
			}
			if (ret) {
				soft_fail(v, "no page table could be built: %s", strerror(-ret));
				return ENGINE_EXIT_ERROR;
			}
		}
		if (!enter(v))
			continue;
		if (engine_trace_on(&v->vm->trace))
			soft_trace_exit(v, cpu_exit(v->cpu));
		next = soft_handle_exit(v, cpu_exit(v->cpu));
		if (next == SOFT_WAIT)
			wait_for_others(v);
		else if (next != SOFT_RESUME)
			return leave_with(v, next);
	}
}
