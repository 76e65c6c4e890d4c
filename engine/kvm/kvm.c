/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kvm engine: the kernel's hypervisor behind engine_ops. Creation, and the table. */
#include "engine/kvm/kvm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * Intel's processors without unrestricted guests need four pages of guest-physical space below 4
 * GiB that are no memory: three for a TSS, one for an identity map (api.rst, KVM_SET_TSS_ADDR). No
 * device and no RAM lies there (vm/memmap.h, devices/board.h).
 */
#define IDENTITY_MAP_ADDR 0xfeffc000ull
#define TSS_ADDR	  0xfeffd000ull

/* ---- could it? ----------------------------------------------------------------------------- */

static int check_config(const struct engine_config *config, const struct kvm_caps *caps,
			struct engine_error *err)
{
	bool split = config->irqchip == ENGINE_IRQCHIP_SPLIT;

	if (config->clock != ENGINE_CLOCK_HOST)
		return kvm_error(err, -EOPNOTSUPP,
				 "KVM cannot count instructions: the clock must "
				 "be the host's");
	if (config->vcpus > caps->max_vcpus)
		return kvm_error(err, -EOPNOTSUPP, "this KVM runs at most %u vCPUs, not %u",
				 caps->max_vcpus, config->vcpus);
	if (split ? !caps->split_irqchip : !caps->pit2)
		return kvm_error(err, -EOPNOTSUPP, "this KVM has no %s",
				 split ? "KVM_CAP_SPLIT_IRQCHIP" : "KVM_CAP_PIT2");
	if (config->dirty_ring && !caps->dirty_ring)
		return kvm_error(err, -EOPNOTSUPP, "this KVM has no KVM_CAP_DIRTY_LOG_RING");
	if (config->dirty_ring & (config->dirty_ring - 1) ||
	    config->dirty_ring > caps->dirty_ring / sizeof(struct kvm_dirty_gfn))
		return kvm_error(err, -EOPNOTSUPP,
				 "a dirty ring has a power of two of entries, here at most %zu",
				 caps->dirty_ring / sizeof(struct kvm_dirty_gfn));
	return kvm_policy_check(config, err);
}

/* The first probe() of a process, before its sandbox. */
static int environment;

static void read_environment(void)
{
	environment = kvm_fault_setup();
}

static int op_probe(const struct engine_config *config, struct engine_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct kvm_caps caps;
	int ret;

	pthread_once(&once, read_environment);
	ret = environment;
	if (ret)
		return kvm_error(err, ret, "UMBRA_KVM_FAIL or UMBRA_KVM_LOG: %s", strerror(-ret));
	ret = kvm_caps_read(config->kvm_fd, &caps, err);
	return ret ? ret : check_config(config, &caps, err);
}

/* ---- making -------------------------------------------------------------------------------- */

static void vcpu_finish(struct engine_vcpu *v)
{
	if (!v->vm)
		return;
	kvm_dirty_vcpu_finish(v);
	if (v->run)
		munmap(v->run, v->vm->caps.run_size);
	if (v->fd >= 0)
		close(v->fd);
	mmu_vcpu_destroy(v->mmu);
	kvm_help_finish(v);
	cpu_destroy(v->cpu);
	pthread_mutex_destroy(&v->thread_lock);
}

static void op_destroy(struct engine_vm *vm)
{
	if (!vm)
		return;
	if (vm->mmu && !vm->owns_mmu)
		mmu_detach(vm->mmu);
	if (vm->fd >= 0) {
		kvm_stats_close(vm);
		kvm_irqchip_destroy(vm);
	}
	for (unsigned k = 0; k < vm->count; k++)
		vcpu_finish(&vm->vcpus[k]);
	if (vm->owns_mmu)
		mmu_vm_destroy(vm->mmu);
	kvm_dirty_finish(vm);
	if (vm->fd >= 0)
		close(vm->fd);
	free(vm->vcpus);
	cpu_domain_destroy(vm->domain);
	engine_trace_finish(&vm->trace);
	pthread_mutex_destroy(&vm->domain_lock);
	pthread_mutex_destroy(&vm->passing_lock);
	pthread_mutex_destroy(&vm->gate_lock);
	pthread_cond_destroy(&vm->gate_cond);
	free(vm);
}

static int op_vcpu_reset(struct engine_vcpu *v)
{
	struct cpu_state s = {.fx.mxcsr_mask = 0xffff};
	struct cpu_cpuid leaves[ENGINE_CPUID_MAX];
	unsigned n = engine_cpu_model_cpuid(v->vm->config.model, v->id, leaves);
	uint32_t signature = 0;

	for (unsigned k = 0; k < n; k++)
		if (leaves[k].leaf == 1)
			signature = leaves[k].eax;
	cpu_state_reset(&s, false, signature);
	s.activity = v->id ? CPU_WAIT_FOR_SIPI : CPU_ACTIVE;
	__atomic_store_n(&v->requests, 0, __ATOMIC_SEQ_CST);
	v->pending_io = v->exit_waits = false;
	return kvm_state_set(v, &s);
}

static int vcpu_init(struct engine_vcpu *v, struct engine_vm *vm, unsigned id)
{
	int ret;

	v->vm = vm;
	v->id = id;
	v->stats_fd = -1;
	pthread_mutex_init(&v->thread_lock, NULL);
	v->fd = kvm_call_n(vm->fd, KVM_CREATE_VCPU, id);
	if (v->fd < 0)
		return v->fd;
	v->run = kvm_map(v->fd, vm->caps.run_size, 0, &ret);
	if (!v->run)
		return ret;
	ret = mmu_vcpu_create(vm->mmu, id, &v->mmu);
	if (!ret)
		ret = kvm_cpuid_set(v);
	if (!ret)
		ret = kvm_msr_init(v);
	if (!ret)
		ret = kvm_dirty_vcpu(v);
	return ret ? ret : op_vcpu_reset(v);
}

static int create_vm(struct engine_vm *vm)
{
	uint64_t identity = IDENTITY_MAP_ADDR;
	int ret;

	vm->fd = kvm_call_n(vm->config.kvm_fd, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		return vm->fd;
	kvm_quirks_setup(vm);
	ret = kvm_cpuid_setup(vm);
	if (!ret)
		ret = kvm_call(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (!ret)
		ret = kvm_call_n(vm->fd, KVM_SET_TSS_ADDR, TSS_ADDR);
	if (!ret && vm->caps.exit_on_emulation_failure)
		ret = kvm_enable_cap(vm->fd, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	if (!ret && vm->caps.exception_payload)
		ret = kvm_enable_cap(vm->fd, KVM_CAP_EXCEPTION_PAYLOAD, 1);
	if (!ret && vm->caps.triple_fault_event)
		ret = kvm_enable_cap(vm->fd, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1);
	if (!ret)
		ret = kvm_msr_filter_set(vm);
	return ret ? ret : kvm_dirty_setup(vm);
}

/* The machine's slots come, at once or when they are added, by slot_changed(). */
static int attach_mmu(struct engine_vm *vm)
{
	struct mmu_config config = {.policy = MMU_POLICY_KERNEL, .ram_bytes = vm->config.ram_bytes};
	int ret;

	if (vm->config.mmu) {
		ret = mmu_attach(vm->config.mmu, &config, kvm_mmu_ops(vm), vm);
		if (!ret)
			vm->mmu = vm->config.mmu;
		return ret;
	}
	vm->owns_mmu = true;
	return mmu_vm_create(&config, kvm_mmu_ops(vm), vm, &vm->mmu);
}

/*
 * A vCPU's local APIC is on the kernel's map of destinations only after some APIC has been written
 * to since that vCPU was added.
 */
static int map_apics(struct engine_vm *vm)
{
	struct kvm_lapic_state lapic = {0};
	int ret = kvm_call(vm->vcpus[0].fd, KVM_GET_LAPIC, &lapic);

	return ret ? ret : kvm_call(vm->vcpus[0].fd, KVM_SET_LAPIC, &lapic);
}

static int make_parts(struct engine_vm *vm)
{
	int ret = create_vm(vm);

	if (!ret)
		ret = kvm_state_setup(vm);
	if (!ret)
		ret = attach_mmu(vm);
	/* After the slots: a new one waits some milliseconds for what these leave to SRCU. */
	if (!ret)
		ret = kvm_irqchip_create(vm);
	for (unsigned k = 0; k < vm->config.vcpus && !ret; k++) {
		vm->count = k + 1;
		vm->vcpus[k].fd = -1;
		ret = vcpu_init(&vm->vcpus[k], vm, k);
	}
	if (!ret && vm->count > 1)
		ret = map_apics(vm);
	return ret ? ret : kvm_stats_open(vm);
}

static int op_create(const struct engine_config *config, struct engine_vm **ret_vm,
		     struct engine_error *err)
{
	struct engine_vm *vm;
	struct kvm_caps caps;
	int ret = kvm_kick_setup();

	if (!ret)
		ret = kvm_caps_read(config->kvm_fd, &caps, err);
	if (!ret)
		ret = check_config(config, &caps, err);
	if (ret)
		return ret;
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return kvm_error(err, -ENOMEM, "out of memory");
	vm->config = *config;
	vm->caps = caps;
	vm->fd = vm->stats_fd = -1;
	engine_trace_init(&vm->trace);
	pthread_mutex_init(&vm->domain_lock, NULL);
	pthread_mutex_init(&vm->passing_lock, NULL);
	pthread_mutex_init(&vm->gate_lock, NULL);
	pthread_cond_init(&vm->gate_cond, NULL);
	vm->vcpus = calloc(config->vcpus, sizeof(*vm->vcpus));
	kvm_forget_failure();
	ret = vm->vcpus ? make_parts(vm) : -ENOMEM;
	if (ret) {
		kvm_error(err, ret, "%s", kvm_failed() ? kvm_failure() : strerror(-ret));
		op_destroy(vm);
		return ret;
	}
	*ret_vm = vm;
	return 0;
}

/* ---- our processor ------------------------------------------------------------------------- */

static struct cpu_domain *domain_of(struct engine_vm *vm)
{
	struct cpu_domain *d;

	pthread_mutex_lock(&vm->domain_lock);
	if (!vm->domain)
		__atomic_store_n(&vm->domain, cpu_domain_create(), __ATOMIC_RELEASE);
	d = vm->domain;
	pthread_mutex_unlock(&vm->domain_lock);
	return d;
}

struct cpu *kvm_cpu(struct engine_vcpu *v)
{
	struct cpu_cpuid leaves[ENGINE_CPUID_MAX];
	struct cpu_domain *domain;

	if (!v->cpu) {
		domain = domain_of(v->vm);
		if (domain)
			v->cpu = cpu_create(domain, leaves, kvm_cpuid_leaves(v, leaves));
	}
	return v->cpu;
}

/* ---- the table ----------------------------------------------------------------------------- */

static struct mmu_vm *op_mmu(struct engine_vm *vm)
{
	return vm->mmu;
}

static const char *op_error(struct engine_vm *vm)
{
	return kvm_failed() ? kvm_failure() : "";
}

static struct engine_vcpu *op_vcpu(struct engine_vm *vm, unsigned index)
{
	return index < vm->count ? &vm->vcpus[index] : NULL;
}

static int op_set_policy(struct engine_vm *vm, enum mmu_policy policy)
{
	struct engine_config config = vm->config;

	config.policy = policy;
	return kvm_policy_check(&config, NULL) ? -EINVAL : 0;
}

static void op_set_trace(struct engine_vm *vm, engine_trace_fn fn, void *arg)
{
	engine_trace_set(&vm->trace, fn, arg);
}

static void op_vcpu_kick(struct engine_vcpu *v)
{
	kvm_request(v, KVM_REQ_KICK);
}

static void op_vcpu_notify(struct engine_vcpu *v)
{
	kvm_request(v, KVM_REQ_LOOK);
}

/* What goes over the local APICs' bus: delivery mode in bits 10:8 (SDM 3A "Message Data Register
 * Format"). */
#define MSI_ADDR(id)   (0xfee00000ull | ((uint64_t)((id)&0xff) << 12))
#define MSI_NMI	       (4u << 8)
#define MSI_INIT       (5u << 8 | BIT(14))
#define MSI_STARTUP(v) (6u << 8 | BIT(14) | (v))

static void send(struct engine_vcpu *v, uint32_t data)
{
	struct kvm_msi msi = {.address_lo = (uint32_t)MSI_ADDR(v->id), .data = data};

	kvm_call(v->vm->fd, KVM_SIGNAL_MSI, &msi);
}

static void op_vcpu_nmi(struct engine_vcpu *v)
{
	send(v, MSI_NMI);
}

static void op_vcpu_init(struct engine_vcpu *v)
{
	send(v, MSI_INIT);
}

static void op_vcpu_sipi(struct engine_vcpu *v, uint8_t vector)
{
	send(v, MSI_STARTUP(vector));
}

/* It sleeps in the kernel, which knows what wakes it. */
static bool op_vcpu_runnable(struct engine_vcpu *v)
{
	return true;
}

static uint64_t op_vcpu_icount(struct engine_vcpu *v)
{
	return 0;
}

static void op_vcpu_stats(struct engine_vcpu *v, struct engine_vcpu_stats *ret_stats)
{
	*ret_stats = v->stats;
	ret_stats->kvm_kicks = __atomic_load_n(&v->stats.kvm_kicks, __ATOMIC_RELAXED);
	if (v->cpu)
		ret_stats->cpu = *cpu_stats(v->cpu);
}

static void op_vcpu_mmu_stats(struct engine_vcpu *v, struct mmu_vcpu_stats *ret_stats)
{
	mmu_vcpu_read_stats(v->mmu, ret_stats);
}

static struct mmu_vcpu *op_vcpu_mmu(struct engine_vcpu *v)
{
	return v->mmu;
}

static void op_vcpu_debug_hit(struct engine_vcpu *v, struct engine_debug_hit *ret_hit)
{
	*ret_hit = v->hit;
}

static const char *op_vcpu_error(struct engine_vcpu *v)
{
	return v->error;
}

/* The kernel keeps none. */
static unsigned op_vcpu_history(struct engine_vcpu *v, uint64_t *rip, unsigned max)
{
	return 0;
}

static unsigned op_vcpu_peek(struct engine_vcpu *v, gva_t gva, void *data, unsigned len)
{
	struct mmu_regs regs;

	if (kvm_mmu_regs(v, &regs))
		return 0;
	mmu_set_regs(v->mmu, &regs);
	return engine_peek(v->mmu, gva, data, len);
}

unsigned kvm_peek_code(struct engine_vcpu *v, uint8_t *code, unsigned max)
{
	struct kvm_regs regs = {0};
	struct kvm_sregs sregs = {0};

	if (kvm_call(v->fd, KVM_GET_REGS, &regs) || kvm_call(v->fd, KVM_GET_SREGS, &sregs))
		return 0;
	return op_vcpu_peek(v, sregs.cs.base + regs.rip, code, max);
}

static unsigned op_vcpu_disassemble(struct engine_vcpu *v, const uint8_t *bytes, unsigned len,
				    uint64_t rip, char *text, size_t text_len)
{
	struct cpu *cpu = kvm_cpu(v);

	if (!cpu || kvm_state_get(v, cpu_state(cpu)))
		return 0;
	cpu_state_changed(cpu);
	return cpu_disassemble(cpu, bytes, len, rip, text, text_len);
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.probe = op_probe,
	.create = op_create,
	.destroy = op_destroy,
	.mmu = op_mmu,
	.error = op_error,
	.set_policy = op_set_policy,
	.set_trace = op_set_trace,
	.vcpu = op_vcpu,
	.vcpu_run = kvm_vcpu_run,
	.vcpu_kick = op_vcpu_kick,
	.vcpu_notify = op_vcpu_notify,
	.vcpu_nmi = op_vcpu_nmi,
	.vcpu_init = op_vcpu_init,
	.vcpu_sipi = op_vcpu_sipi,
	.vcpu_runnable = op_vcpu_runnable,
	.vcpu_reset = op_vcpu_reset,
	.vcpu_get_state = kvm_state_get,
	.vcpu_set_state = kvm_state_set,
	.vcpu_cpuid = kvm_cpuid_leaves,
	.vcpu_icount = op_vcpu_icount,
	.vcpu_helped = kvm_helped,
	.vcpu_set_tsc = kvm_tsc_set,
	.vcpu_get_tsc = kvm_tsc_get,
	.vcpu_stats = op_vcpu_stats,
	.vcpu_mmu_stats = op_vcpu_mmu_stats,
	.stats = kvm_stats,
	.vcpu_mmu = op_vcpu_mmu,
	.vcpu_mmu_regs = kvm_mmu_regs,
	.vcpu_set_debug = kvm_set_debug,
	.vcpu_debug_hit = op_vcpu_debug_hit,
	.vcpu_error = op_vcpu_error,
	.vcpu_history = op_vcpu_history,
	.vcpu_peek = op_vcpu_peek,
	.vcpu_disassemble = op_vcpu_disassemble,
	.set_gsi = kvm_set_gsi,
	.msi = kvm_msi,
	.ioeventfd = kvm_ioeventfd,
	.irqfd = kvm_irqfd,
	.pic_intr = kvm_pic_intr,
	.chips_save = kvm_chips_save,
	.chips_load = kvm_chips_load,
	.vcpu_asleep = kvm_vcpu_asleep,
	.clock_save = kvm_clock_save,
	.clock_load = kvm_clock_load,
};
