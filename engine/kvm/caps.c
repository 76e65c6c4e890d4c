/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What this kernel's KVM can do, asked once. */
#include "engine/kvm/kvm_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The API is stable since Linux 2.6.22 (Documentation/virt/kvm/api.rst, KVM_GET_API_VERSION). */
#define API_VERSION 12

/* A capability, and where its answer goes: whether it is there at all, or a number. */
enum { REQUIRED, FLAG, NUMBER };
static const struct {
	unsigned cap;
	const char *name;
	uint16_t at; /* in struct kvm_caps */
	uint8_t kind;
} rows[] = {
#define ROW(cap, member, kind)                                                                     \
	{                                                                                          \
		cap, #cap, offsetof(struct kvm_caps, member), kind                                 \
	}
	ROW(KVM_CAP_USER_MEMORY, user_memory, REQUIRED),
	ROW(KVM_CAP_DESTROY_MEMORY_REGION_WORKS, user_memory, REQUIRED),
	ROW(KVM_CAP_EXT_CPUID, ext_cpuid, REQUIRED),
	ROW(KVM_CAP_IRQCHIP, irqchip, REQUIRED),
	ROW(KVM_CAP_IMMEDIATE_EXIT, immediate_exit, REQUIRED),
	ROW(KVM_CAP_MP_STATE, mp_state, REQUIRED),
	ROW(KVM_CAP_VCPU_EVENTS, vcpu_events, REQUIRED),
	ROW(KVM_CAP_DEBUGREGS, debugregs, REQUIRED),
	ROW(KVM_CAP_XSAVE, xsave, REQUIRED),
	ROW(KVM_CAP_SIGNAL_MSI, signal_msi, REQUIRED),
	ROW(KVM_CAP_GET_TSC_KHZ, get_tsc_khz, REQUIRED),
	ROW(KVM_CAP_XCRS, xcrs, FLAG),
	ROW(KVM_CAP_SPLIT_IRQCHIP, split_irqchip, FLAG),
	ROW(KVM_CAP_PIT2, pit2, FLAG),
	ROW(KVM_CAP_IRQFD, irqfd, FLAG),
	ROW(KVM_CAP_IRQFD_RESAMPLE, irqfd_resample, FLAG),
	ROW(KVM_CAP_IOEVENTFD, ioeventfd, FLAG),
	ROW(KVM_CAP_COALESCED_PIO, coalesced_pio, FLAG),
	ROW(KVM_CAP_SREGS2, sregs2, FLAG),
	ROW(KVM_CAP_EXCEPTION_PAYLOAD, exception_payload, FLAG),
	ROW(KVM_CAP_X86_TRIPLE_FAULT_EVENT, triple_fault_event, FLAG),
	ROW(KVM_CAP_X86_ROBUST_SINGLESTEP, robust_singlestep, FLAG),
	ROW(KVM_CAP_X86_USER_SPACE_MSR, user_space_msr, FLAG),
	ROW(KVM_CAP_X86_MSR_FILTER, msr_filter, FLAG),
	ROW(KVM_CAP_TSC_DEADLINE_TIMER, tsc_deadline, FLAG),
	ROW(KVM_CAP_TSC_CONTROL, tsc_control, FLAG),
	ROW(KVM_CAP_READONLY_MEM, readonly_mem, FLAG),
	ROW(KVM_CAP_EXIT_ON_EMULATION_FAILURE, exit_on_emulation_failure, FLAG),
	ROW(KVM_CAP_INTERNAL_ERROR_DATA, internal_error_data, FLAG),
	ROW(KVM_CAP_BINARY_STATS_FD, binary_stats, FLAG),
	ROW(KVM_CAP_ADJUST_CLOCK, adjust_clock, FLAG),
	ROW(KVM_CAP_KVMCLOCK_CTRL, kvmclock_ctrl, FLAG),
	ROW(KVM_CAP_VCPU_ATTRIBUTES, vcpu_attributes, FLAG),
	ROW(KVM_CAP_XSAVE2, xsave2_size, NUMBER),
	ROW(KVM_CAP_NESTED_STATE, nested_state, NUMBER),
	ROW(KVM_CAP_X2APIC_API, x2apic_api, NUMBER),
	ROW(KVM_CAP_SET_GUEST_DEBUG2, guest_debug, NUMBER),
	ROW(KVM_CAP_X86_DISABLE_EXITS, disable_exits, NUMBER),
	ROW(KVM_CAP_SYNC_REGS, sync_regs, NUMBER),
	ROW(KVM_CAP_NR_MEMSLOTS, memslots, NUMBER),
	ROW(KVM_CAP_MAX_VCPUS, max_vcpus, NUMBER),
	ROW(KVM_CAP_NR_VCPUS, nr_vcpus, NUMBER),
	ROW(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, manual_protect, NUMBER),
	ROW(KVM_CAP_DIRTY_LOG_RING_ACQ_REL, dirty_ring, NUMBER),
	ROW(KVM_CAP_DIRTY_LOG_RING, dirty_ring_old, NUMBER),
	ROW(KVM_CAP_COALESCED_MMIO, coalesced_page, NUMBER),
#undef ROW
};
static bool hidden[ARRAY_SIZE(rows)]; /* kvm_caps_hide() */

const char *kvm_caps_name(unsigned n, bool *ret_required)
{
	if (n >= ARRAY_SIZE(rows))
		return NULL;
	*ret_required = rows[n].kind == REQUIRED;
	return rows[n].name;
}

int kvm_caps_hide(const char *names)
{
	memset(hidden, 0, sizeof(hidden));
	while (*names) {
		size_t len = strcspn(names, ",");
		unsigned n = 0;

		while (n < ARRAY_SIZE(rows) &&
		       (strlen(rows[n].name) != len || memcmp(rows[n].name, names, len)))
			n++;
		if (n == ARRAY_SIZE(rows))
			return -EINVAL;
		hidden[n] = true;
		names += len + (names[len] == ',');
	}
	return 0;
}

int kvm_error(struct engine_error *err, int ret, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return ret;
}

int kvm_check(int fd, unsigned cap)
{
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++)
		if (rows[n].cap == cap && hidden[n])
			return 0;
	return kvm_call_n(fd, KVM_CHECK_EXTENSION, cap);
}

int kvm_enable_cap(int fd, unsigned cap, uint64_t arg)
{
	struct kvm_enable_cap c = {.cap = cap, .args = {arg}};

	return kvm_call(fd, KVM_ENABLE_CAP, &c);
}

static int failed(int ret, struct engine_error *err)
{
	return kvm_error(err, ret, "/dev/kvm: %s", kvm_failure());
}

static int read_rows(int kvm_fd, struct kvm_caps *c, struct engine_error *err)
{
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		char *at = (char *)c + rows[n].at;
		int ret = kvm_check(kvm_fd, rows[n].cap);

		if (ret < 0)
			return failed(ret, err);
		if (!ret && rows[n].kind == REQUIRED)
			return kvm_error(err, -EOPNOTSUPP, "this KVM has no %s", rows[n].name);
		if (rows[n].kind == NUMBER)
			*(unsigned *)at = (unsigned)ret;
		else
			*(bool *)at = ret > 0;
	}
	return 0;
}

static int read_rest(int kvm_fd, struct kvm_caps *c, struct engine_error *err)
{
	int size;

	/* What older kernels mean without the capability (Documentation/virt/kvm/api.rst). */
	c->xsave2_size = MAX(c->xsave2_size, (unsigned)sizeof(struct kvm_xsave));
	if (!c->max_vcpus)
		c->max_vcpus = MAX(c->nr_vcpus, 4u);
	if (!c->memslots)
		c->memslots = 32;
	c->dirty_ring_cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL;
	if (!c->dirty_ring) {
		c->dirty_ring_cap = KVM_CAP_DIRTY_LOG_RING;
		c->dirty_ring = c->dirty_ring_old;
	}
	size = kvm_call_n(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < 0)
		return failed(size, err);
	if (size < (int)sizeof(struct kvm_run))
		return kvm_error(err, -EOPNOTSUPP,
				 "KVM_GET_VCPU_MMAP_SIZE: less than struct kvm_run");
	c->run_size = (unsigned)size;
	return 0;
}

int kvm_caps_read(int kvm_fd, struct kvm_caps *ret_caps, struct engine_error *err)
{
	struct kvm_caps c = {0};
	int ret = kvm_call_n(kvm_fd, KVM_GET_API_VERSION, 0);

	if (ret == -ENOTTY || ret == -EBADF)
		return kvm_error(err, -ENODEV, "/dev/kvm is no KVM: %s", kvm_failure());
	if (ret < 0)
		return failed(ret, err);
	if (ret != API_VERSION)
		return kvm_error(err, -EOPNOTSUPP, "/dev/kvm has version %d of the API, not %d",
				 ret, API_VERSION);
	ret = read_rows(kvm_fd, &c, err);
	if (!ret)
		ret = read_rest(kvm_fd, &c, err);
	if (!ret)
		*ret_caps = c;
	return ret;
}

bool engine_kvm_has_hardware(struct engine_error *err)
{
	static const char *const hardware[] = {"kvm_intel", "kvm_amd"};
	static const char *const others[] = {"kvm_pvm"};
	char path[64];

	for (unsigned n = 0; n < ARRAY_SIZE(hardware); n++) {
		snprintf(path, sizeof(path), "/sys/module/%s", hardware[n]);
		if (!access(path, F_OK))
			return true;
	}
	for (unsigned n = 0; n < ARRAY_SIZE(others); n++) {
		snprintf(path, sizeof(path), "/sys/module/%s", others[n]);
		if (!access(path, F_OK)) {
			kvm_error(err, 0,
				  "KVM here has no hardware virtualization behind it (module %s)",
				  others[n]);
			return false;
		}
	}
	kvm_error(err, 0, "no module of KVM for this processor is loaded (kvm_intel, kvm_amd)");
	return false;
}
