/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which MSRs the guest finds: the same as on the soft engine (cpu/msr.c and the local APIC's). */
#include "engine/kvm/kvm_internal.h"

#include <string.h>

/*
 * The kernel's own are let through. Constants are answered here, so that they are the model's and
 * not the host's; writes to them do what cpu_wrmsr() does. All others are #GP, as on the soft
 * engine. The x2APIC's are the kernel's always: no filter reaches them (api.rst,
 * KVM_X86_SET_MSR_FILTER).
 */
enum { KERNEL, CONSTANT, AMD_CONSTANT };
enum { GP, ZERO, ANY }; /* a constant: which writes are let pass, without effect */
static const struct {
	uint32_t first, last;
	uint8_t whose, write;
	uint64_t value;
} rows[] = {
	{X86_MSR_TSC, X86_MSR_TSC, KERNEL},
	{X86_MSR_PLATFORM_ID, X86_MSR_PLATFORM_ID, CONSTANT, GP, 0},
	{X86_MSR_APIC_BASE, X86_MSR_APIC_BASE, KERNEL},
	{X86_MSR_FEATURE_CONTROL, X86_MSR_FEATURE_CONTROL, CONSTANT, GP, 1},
	{X86_MSR_TSC_ADJUST, X86_MSR_TSC_ADJUST, KERNEL},
	{X86_MSR_SPEC_CTRL, X86_MSR_PRED_CMD, KERNEL},
	{X86_MSR_BIOS_SIGN_ID, X86_MSR_BIOS_SIGN_ID, CONSTANT, ANY, CPU_MICROCODE},
	{X86_MSR_MTRRCAP, X86_MSR_MTRRCAP, KERNEL},
	{X86_MSR_ARCH_CAPABILITIES, X86_MSR_ARCH_CAPABILITIES, KERNEL},
	{X86_MSR_SYSENTER_CS, X86_MSR_SYSENTER_EIP, KERNEL},
	{X86_MSR_MCG_CAP, X86_MSR_MCG_CAP, CONSTANT, GP, 0}, /* no banks */
	{X86_MSR_MCG_STATUS, X86_MSR_MCG_STATUS, CONSTANT, ZERO, 0},
	{X86_MSR_MISC_ENABLE, X86_MSR_MISC_ENABLE, KERNEL},
	{X86_MSR_DEBUGCTL, X86_MSR_DEBUGCTL, KERNEL},
	{X86_MSR_MTRR_PHYSBASE0, X86_MSR_MTRR_PHYSBASE0 + 15, KERNEL},
	{X86_MSR_MTRR_FIX64K, X86_MSR_MTRR_FIX64K, KERNEL},
	{X86_MSR_MTRR_FIX16K_0, X86_MSR_MTRR_FIX16K_0 + 1, KERNEL},
	{X86_MSR_MTRR_FIX4K_0, X86_MSR_MTRR_FIX4K_0 + 7, KERNEL},
	{X86_MSR_PAT, X86_MSR_PAT, KERNEL},
	{X86_MSR_MTRR_DEF_TYPE, X86_MSR_MTRR_DEF_TYPE, KERNEL},
	{X86_MSR_TSC_DEADLINE, X86_MSR_TSC_DEADLINE, KERNEL},
	{X86_MSR_XSS, X86_MSR_XSS, KERNEL},
	{X86_MSR_EFER, X86_MSR_FMASK, KERNEL},
	{X86_MSR_FS_BASE, X86_MSR_TSC_AUX, KERNEL},
	/* What every AMD processor has and guests touch without asking. */
	{0xc0010000u, 0xc0010007u, AMD_CONSTANT, ANY, 0},
	{0xc0010010u, 0xc0010010u, AMD_CONSTANT, ANY, 0},
	{0xc0010015u, 0xc0010015u, AMD_CONSTANT, ANY, BIT(24)},
	{0xc001001fu, 0xc001001fu, AMD_CONSTANT, ANY, 0},
	{0xc0010114u, 0xc0010114u, AMD_CONSTANT, ANY, BIT(4)},
	{0xc0011029u, 0xc0011029u, AMD_CONSTANT, ANY, BIT(1)},
};

/* KVM's clock: MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW
 * (Documentation/virt/kvm/x86/msr.rst).
 */
#define MSR_KVMCLOCK_FIRST 0x4b564d00u
#define MSR_KVMCLOCK_LAST  0x4b564d01u

/* -1: unknown; else the row. */
static int row_of(const struct engine_cpu_model *model, uint32_t index)
{
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++)
		if (index >= rows[n].first && index <= rows[n].last)
			return rows[n].whose == AMD_CONSTANT && !model->amd ? -1 : (int)n;
	return -1;
}

bool kvm_msr_known(const struct engine_cpu_model *model, uint32_t index)
{
	if (index >= MSR_KVMCLOCK_FIRST && index <= MSR_KVMCLOCK_LAST)
		return engine_cpu_model_shows(model, "kvmclock");
	return (index >= X86_MSR_X2APIC_FIRST && index <= X86_MSR_X2APIC_LAST) ||
	       row_of(model, index) >= 0;
}

/* ---- the filter ---------------------------------------------------------------------------- */

/* The ranges that hold what is let through, a bit each; everything else is denied. */
#define LOW_COUNT  0x1000u
#define HIGH_FIRST 0xc0000000u
#define HIGH_COUNT 0x1000u

static void allow(uint8_t *map, uint32_t base, uint32_t count, const struct engine_cpu_model *model)
{
	for (uint32_t k = 0; k < count; k++) {
		int row = row_of(model, base + k);

		if (row >= 0 && rows[row].whose == KERNEL)
			map[k / 8] |= (uint8_t)(1u << k % 8);
	}
}

int kvm_msr_filter_set(struct engine_vm *vm)
{
	static const uint32_t rw = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
	const struct engine_cpu_model *model = &vm->model;
	uint8_t low[LOW_COUNT / 8] = {0}, high[HIGH_COUNT / 8] = {0}, clock = 0;
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_DENY,
		.ranges = {{rw, LOW_COUNT, 0, low},
			   {rw, HIGH_COUNT, HIGH_FIRST, high},
			   {rw, 2, MSR_KVMCLOCK_FIRST, &clock}},
	};
	int ret;

	/* Without them the guest sees the kernel's choice. */
	if (!vm->caps.msr_filter || !vm->caps.user_space_msr)
		return 0;
	allow(low, 0, LOW_COUNT, model);
	allow(high, HIGH_FIRST, HIGH_COUNT, model);
	if (engine_cpu_model_shows(model, "kvmclock"))
		clock = 3;
	ret = kvm_enable_cap(vm->fd, KVM_CAP_X86_USER_SPACE_MSR,
			     KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER);
	return ret ? ret : kvm_call(vm->fd, KVM_X86_SET_MSR_FILTER, &filter);
}

/* ---- what comes to us ---------------------------------------------------------------------- */

/* Of the host's, what the model would show; without it, no immunity is promised. */
int kvm_msr_init(struct engine_vcpu *v)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = {.head.nmsrs = 1, .entry.index = X86_MSR_ARCH_CAPABILITIES};
	int ret;

	if (!engine_cpu_model_shows(&v->vm->model, "arch-capabilities"))
		return 0;
	ret = kvm_call(v->vm->config.kvm_fd, KVM_GET_MSRS, &m);
	if (ret <= 0)
		return ret;
	m.entry.data &= CPU_ARCH_CAPABILITIES;
	ret = kvm_call(v->fd, KVM_SET_MSRS, &m);
	return ret < 0 ? ret : 0;
}

int kvm_msr_read(struct engine_vcpu *v, uint32_t index, uint64_t *value)
{
	const struct engine_config *config = &v->vm->config;
	int row = row_of(&v->vm->model, index);

	if (row < 0 || rows[row].whose == KERNEL)
		return config->host->msr_read(config->host_priv, v->id, index, value);
	*value = rows[row].value;
	return 0;
}

int kvm_msr_write(struct engine_vcpu *v, uint32_t index, uint64_t value)
{
	const struct engine_config *config = &v->vm->config;
	int row = row_of(&v->vm->model, index);

	if (row < 0 || rows[row].whose == KERNEL)
		return config->host->msr_write(config->host_priv, v->id, index, value);
	return rows[row].write == GP || (rows[row].write == ZERO && value);
}
