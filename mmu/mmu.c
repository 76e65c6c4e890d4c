/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine's MMU and its vCPUs: made, torn down, switched between policies, counted. */
#include "mmu/mmu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/dirty_internal.h"

static void locks_init(struct mmu_vm *vm)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	/* Faults of many vCPUs shall not keep out what must change something. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&vm->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_rwlock_init(&vm->slots_lock, NULL);
	pthread_mutex_init(&vm->pages_lock, NULL);
}

static void locks_finish(struct mmu_vm *vm)
{
	pthread_mutex_destroy(&vm->pages_lock);
	pthread_rwlock_destroy(&vm->slots_lock);
	pthread_rwlock_destroy(&vm->lock);
}

/* ---- detached: nothing runs the guest, so nobody has to hear of anything ---- */

static void nobody_flushes(void *priv, const struct mmu_flush *flush)
{
}

static void nobody_is_kicked(void *priv, uint64_t vcpus)
{
}

static void nobody_is_told(void *priv, hva_t hva, uint64_t len)
{
}

static const struct mmu_ops detached_ops = {
	.flush_tlb = nobody_flushes,
	.kick = nobody_is_kicked,
	.notify_write = nobody_is_told,
};

static bool is_attached(const struct mmu_vm *vm)
{
	return vm->ops != &detached_ops;
}

static bool ops_suffice(const struct mmu_ops *ops, enum mmu_policy policy)
{
	if (!ops->flush_tlb || !ops->kick || !ops->notify_write)
		return false;
	if (policy != MMU_POLICY_KERNEL)
		return true;
	return ops->slot_changed && ops->dirty_protect && (ops->dirty_collect || ops->drain_pml);
}

static bool config_is_valid(const struct mmu_config *config)
{
	return config->policy <= MMU_POLICY_KERNEL && config->tdp_format <= MMU_FORMAT_NPT &&
	       config->max_page_level <= NR_LEVELS && !(config->disable & ~(uint32_t)MMU_NO_ALL) &&
	       (!config->tdp_levels || config->tdp_levels == 4 || config->tdp_levels == 5);
}

static void take_config(struct mmu_vm *vm, const struct mmu_config *config)
{
	__atomic_store_n(&vm->policy, config->policy, __ATOMIC_RELAXED);
	vm->tdp_format = config->tdp_format == MMU_FORMAT_NPT ? MMU_FORMAT_NPT : MMU_FORMAT_EPT;
	vm->tdp_levels = config->tdp_levels;
	__atomic_store_n(&vm->disable, config->disable, __ATOMIC_RELAXED);
	vm->max_page_level = config->max_page_level ? config->max_page_level : NR_LEVELS;
}

static int vm_init(struct mmu_vm *vm, const struct mmu_config *config)
{
	uint64_t bytes = config->max_table_bytes;

	vm->ops = &detached_ops;
	take_config(vm, config);
	vm->maxphyaddr = 40;
	vm->gbpages = true;
	list_init(&vm->active);
	list_init(&vm->zombies);
	list_init(&vm->pending);
	list_init(&vm->vcpus);
	list_init(&vm->clients);
	rsvd_compute(vm);
	return arena_init(vm, bytes ? bytes : MIB(32) + config->ram_bytes / 64);
}

int mmu_vm_create(const struct mmu_config *config, const struct mmu_ops *ops, void *priv,
		  struct mmu_vm **ret_vm)
{
	struct mmu_vm *vm;
	int r;

	if (!config_is_valid(config))
		return -EINVAL;
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return -ENOMEM;
	locks_init(vm);
	r = vm_init(vm, config);
	if (!r && ops)
		r = mmu_attach(vm, config, ops, priv);
	if (r) {
		mmu_vm_destroy(vm);
		return r;
	}
	*ret_vm = vm;
	return 0;
}

void mmu_vm_destroy(struct mmu_vm *vm)
{
	if (!vm)
		return;
	assert(list_empty(&vm->vcpus) && list_empty(&vm->clients));
	arena_finish(vm);
	slots_finish(vm);
	locks_finish(vm);
	free(vm);
}

int mmu_vcpu_create(struct mmu_vm *vm, uint32_t id, struct mmu_vcpu **ret_vcpu)
{
	struct mmu_vcpu *vcpu = calloc(1, sizeof(*vcpu));
	int r;

	if (!vcpu)
		return -ENOMEM;
	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->bit = MMU_VCPU_BIT(id);
	vcpu->mmu = vcpu->walk_mmu = &vcpu->root_mmu;
	vcpu->need_load = true;
	mmu_lock(vm);
	r = dirty_vcpu_added(vcpu);
	if (!r) {
		list_add_tail(&vm->vcpus, &vcpu->link);
		vm->nr_vcpus++;
	}
	mmu_unlock(vm);
	if (r) {
		free(vcpu);
		return r;
	}
	*ret_vcpu = vcpu;
	return 0;
}

void mmu_vcpu_destroy(struct mmu_vcpu *vcpu)
{
	struct mmu_vm *vm;

	if (!vcpu)
		return;
	vm = vcpu->vm;
	mmu_unload(vcpu);
	mmu_lock(vm);
	list_del(&vcpu->link);
	vm->nr_vcpus--;
	dirty_vcpu_removed(vcpu);
	mmu_unlock(vm);
	free(vcpu);
}

struct mmu_vm *mmu_vcpu_vm(struct mmu_vcpu *vcpu)
{
	return vcpu->vm;
}

/* ---- policy ---- */

static void zap_all(struct mmu_vm *vm)
{
	struct shadow_page *sp, *tmp;

	list_for_each_entry_safe (sp, tmp, &vm->active, lru)
		sp_zap(vm, sp);
	batch_commit(vm);
}

void mmu_zap_all(struct mmu_vm *vm)
{
	mmu_lock(vm);
	zap_all(vm);
	mmu_unlock(vm);
}

/* Every vCPU begins anew with its registers under the policy of now. */
static void restart_vcpus(struct mmu_vm *vm)
{
	struct mmu_vcpu *vcpu;

	list_for_each_entry (vcpu, &vm->vcpus, link) {
		roots_drop(vcpu, &vcpu->root_mmu, false);
		roots_drop(vcpu, &vcpu->guest_mmu, false);
		if (vcpu->have_regs && vcpu->walk_mmu == &vcpu->root_mmu)
			context_set(vcpu, &vcpu->root_mmu, &vcpu->regs);
		__atomic_store_n(&vcpu->need_load, true, __ATOMIC_SEQ_CST);
	}
	zap_all(vm);
}

int mmu_set_policy(struct mmu_vm *vm, enum mmu_policy policy)
{
	struct mmu_vcpu *vcpu;
	int r = 0;

	mmu_lock(vm);
	/* Whose tables the guest runs by is decided by mmu_attach(). */
	if (policy > MMU_POLICY_TDP || vm->policy == MMU_POLICY_KERNEL)
		r = -EINVAL;
	list_for_each_entry (vcpu, &vm->vcpus, link) {
		if (vcpu->mmu != &vcpu->root_mmu)
			r = -EBUSY; /* amid a nested guest, whose policy hangs on ours */
	}
	if (!r && vm->policy != policy) {
		__atomic_store_n(&vm->policy, policy, __ATOMIC_RELAXED);
		restart_vcpus(vm);
	}
	mmu_unlock(vm);
	return r;
}

enum mmu_policy mmu_get_policy(struct mmu_vm *vm)
{
	return __atomic_load_n(&vm->policy, __ATOMIC_RELAXED);
}

void mmu_set_disable(struct mmu_vm *vm, uint32_t disable)
{
	mmu_lock(vm);
	__atomic_store_n(&vm->disable, disable & (uint32_t)MMU_NO_ALL, __ATOMIC_RELAXED);
	restart_vcpus(vm);
	mmu_unlock(vm);
}

/* ---- engines come and go ---- */

int mmu_attach(struct mmu_vm *vm, const struct mmu_config *config, const struct mmu_ops *ops,
	       void *priv)
{
	int r = -EINVAL;

	if (!config_is_valid(config) || !ops_suffice(ops, config->policy))
		return -EINVAL;
	mmu_lock(vm);
	pthread_rwlock_wrlock(&vm->slots_lock);
	if (!is_attached(vm) && list_empty(&vm->vcpus)) {
		take_config(vm, config);
		vm->ops = ops;
		vm->priv = priv;
		r = dirty_attached(vm);
		if (r) {
			vm->ops = &detached_ops;
			dirty_detached(vm);
		}
	}
	pthread_rwlock_unlock(&vm->slots_lock);
	mmu_unlock(vm);
	return r;
}

int mmu_detach(struct mmu_vm *vm)
{
	int r;

	if (!is_attached(vm))
		return 0;
	/* What processors have logged is handed over while there still is somebody to ask. */
	dirty_set_notice(vm, DIRTY_NOTICE_PROTECT);
	dirty_lock(vm);
	r = dirty_collect_all(vm);
	restart_vcpus(vm);
	pthread_rwlock_wrlock(&vm->slots_lock);
	vm->ops = &detached_ops;
	vm->priv = NULL;
	dirty_detached(vm);
	pthread_rwlock_unlock(&vm->slots_lock);
	mmu_unlock(vm);
	return r;
}

/* ---- counters ---- */

#define DESC(name_, type_, unit_) {#name_, MMU_STAT_##type_, MMU_UNIT_##unit_},

static const struct mmu_stat_desc vm_schema[] = {MMU_VM_STATS(DESC)};
static const struct mmu_stat_desc vcpu_schema[] = {MMU_VCPU_STATS(DESC)};

_Static_assert(sizeof(struct mmu_vm_stats) == ARRAY_SIZE(vm_schema) * 8, "one value an entry");
_Static_assert(sizeof(struct mmu_vcpu_stats) == ARRAY_SIZE(vcpu_schema) * 8, "one value an entry");

const struct mmu_stat_desc *mmu_vm_stats_schema(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(vm_schema);
	return vm_schema;
}

const struct mmu_stat_desc *mmu_vcpu_stats_schema(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(vcpu_schema);
	return vcpu_schema;
}

static void read_values(uint64_t *to, const uint64_t *from, size_t bytes)
{
	for (size_t i = 0; i < bytes / 8; i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

void mmu_vm_read_stats(struct mmu_vm *vm, struct mmu_vm_stats *ret)
{
	read_values((uint64_t *)ret, (const uint64_t *)&vm->stats, sizeof(*ret));
}

void mmu_vcpu_read_stats(struct mmu_vcpu *vcpu, struct mmu_vcpu_stats *ret)
{
	read_values((uint64_t *)ret, (const uint64_t *)&vcpu->stats, sizeof(*ret));
}
