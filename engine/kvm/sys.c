/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one way to the kernel: ioctls and mappings, named, logged, and made to fail on demand. */
#include "engine/kvm/kvm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Stands for mmap() among the requests; KVM's own have the type 0xae. */
#define REQUEST_MMAP 0ul

static const struct {
	unsigned long request;
	const char *name;
} requests[] = {
#define ROW(name)                                                                                  \
	{                                                                                          \
		name, #name                                                                        \
	}
	{REQUEST_MMAP, "mmap"},
	ROW(KVM_GET_API_VERSION),
	ROW(KVM_CREATE_VM),
	ROW(KVM_GET_MSR_INDEX_LIST),
	ROW(KVM_GET_MSR_FEATURE_INDEX_LIST),
	ROW(KVM_CHECK_EXTENSION),
	ROW(KVM_GET_VCPU_MMAP_SIZE),
	ROW(KVM_GET_SUPPORTED_CPUID),
	ROW(KVM_GET_EMULATED_CPUID),
	ROW(KVM_CREATE_VCPU),
	ROW(KVM_GET_DIRTY_LOG),
	ROW(KVM_CLEAR_DIRTY_LOG),
	ROW(KVM_SET_USER_MEMORY_REGION),
	ROW(KVM_SET_TSS_ADDR),
	ROW(KVM_SET_IDENTITY_MAP_ADDR),
	ROW(KVM_CREATE_IRQCHIP),
	ROW(KVM_IRQ_LINE),
	ROW(KVM_GET_IRQCHIP),
	ROW(KVM_SET_IRQCHIP),
	ROW(KVM_CREATE_PIT2),
	ROW(KVM_GET_PIT2),
	ROW(KVM_SET_PIT2),
	ROW(KVM_REINJECT_CONTROL),
	ROW(KVM_REGISTER_COALESCED_MMIO),
	ROW(KVM_UNREGISTER_COALESCED_MMIO),
	ROW(KVM_SET_GSI_ROUTING),
	ROW(KVM_IRQFD),
	ROW(KVM_IOEVENTFD),
	ROW(KVM_SIGNAL_MSI),
	ROW(KVM_SET_CLOCK),
	ROW(KVM_GET_CLOCK),
	ROW(KVM_KVMCLOCK_CTRL),
	ROW(KVM_ENABLE_CAP),
	ROW(KVM_X86_SET_MSR_FILTER),
	ROW(KVM_RESET_DIRTY_RINGS),
	ROW(KVM_GET_STATS_FD),
	ROW(KVM_RUN),
	ROW(KVM_GET_REGS),
	ROW(KVM_SET_REGS),
	ROW(KVM_GET_SREGS),
	ROW(KVM_SET_SREGS),
	ROW(KVM_GET_SREGS2),
	ROW(KVM_SET_SREGS2),
	ROW(KVM_TRANSLATE),
	ROW(KVM_INTERRUPT),
	ROW(KVM_GET_MSRS),
	ROW(KVM_SET_MSRS),
	ROW(KVM_SET_CPUID2),
	ROW(KVM_GET_CPUID2),
	ROW(KVM_GET_FPU),
	ROW(KVM_SET_FPU),
	ROW(KVM_GET_LAPIC),
	ROW(KVM_SET_LAPIC),
	ROW(KVM_SET_SIGNAL_MASK),
	ROW(KVM_NMI),
	ROW(KVM_GET_MP_STATE),
	ROW(KVM_SET_MP_STATE),
	ROW(KVM_SET_GUEST_DEBUG),
	ROW(KVM_GET_VCPU_EVENTS),
	ROW(KVM_SET_VCPU_EVENTS),
	ROW(KVM_GET_DEBUGREGS),
	ROW(KVM_SET_DEBUGREGS),
	ROW(KVM_GET_TSC_KHZ),
	ROW(KVM_SET_TSC_KHZ),
	ROW(KVM_GET_XSAVE),
	ROW(KVM_GET_XSAVE2),
	ROW(KVM_SET_XSAVE),
	ROW(KVM_GET_XCRS),
	ROW(KVM_SET_XCRS),
	ROW(KVM_GET_NESTED_STATE),
	ROW(KVM_SET_NESTED_STATE),
	ROW(KVM_GET_DEVICE_ATTR),
	ROW(KVM_SET_DEVICE_ATTR),
	ROW(KVM_HAS_DEVICE_ATTR),
#undef ROW
};

/* What to fail; changed by kvm_fault_setup() only. */
static bool armed;
static uint64_t fail_at; /* the count at which to fail; 0: never */
static int fail_errno;
static int log_fd = -1;
static uint64_t count; /* atomic */

static __thread struct {
	unsigned long request;
	int error;
	bool ours; /* text has the words already */
	char text[128];
} failed;

const char *kvm_request_name(unsigned long request)
{
	for (unsigned n = 0; n < ARRAY_SIZE(requests); n++)
		if (requests[n].request == request)
			return requests[n].name;
	return "unknown request";
}

int kvm_refuse(int ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(failed.text, sizeof(failed.text), fmt, ap);
	va_end(ap);
	failed.error = -ret;
	failed.ours = true;
	return ret;
}

const char *kvm_failure(void)
{
	if (failed.ours)
		return failed.text;
	snprintf(failed.text, sizeof(failed.text), "%s: %s", kvm_request_name(failed.request),
		 strerror(failed.error));
	return failed.text;
}

bool kvm_failed(void)
{
	return failed.error;
}

void kvm_forget_failure(void)
{
	failed.error = 0;
}

static int parse_errno(const char *text)
{
	char *end;
	unsigned long n;

	for (int e = 1; e < 134; e++) {
		const char *name = strerrorname_np(e);

		if (name && !strcmp(name, text))
			return e;
	}
	n = strtoul(text, &end, 10);
	return *text && !*end && n < 134 ? (int)n : 0;
}

int kvm_fault_setup(void)
{
	const char *text = getenv("UMBRA_KVM_FAIL"), *log = getenv("UMBRA_KVM_LOG");
	const char *without = getenv("UMBRA_KVM_WITHOUT");
	char *end;

	fail_at = 0;
	fail_errno = EBUSY;
	if (text && *text) {
		fail_at = strtoull(text, &end, 10);
		if (*end == ':')
			fail_errno = parse_errno(end + 1);
		if (!fail_at || (*end && *end != ':') || !fail_errno)
			return -EINVAL;
	}
	if (log_fd >= 0)
		close(log_fd);
	log_fd = -1;
	if (log && *log) {
		log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (log_fd < 0)
			return -errno;
	}
	if (kvm_caps_hide(without ? without : ""))
		return -EINVAL;
	count = 0;
	armed = fail_at || log_fd >= 0;
	return 0;
}

/* Log the call; is it the one that is to fail? */
static bool rehearse(unsigned long request)
{
	char line[64];
	int len = snprintf(line, sizeof(line), "%s\n", kvm_request_name(request));

	if (log_fd >= 0 && write(log_fd, line, (size_t)len) < 0)
		abort(); /* a rehearsal whose log is not whole proves nothing */
	return __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED) == fail_at;
}

static int fail(unsigned long request, int error)
{
	failed.request = request;
	failed.error = error;
	failed.ours = false;
	return -error;
}

int kvm_call_n(int fd, unsigned long request, unsigned long arg)
{
	int ret;

	if (unlikely(armed) && rehearse(request))
		return fail(request, fail_errno);
	do
		ret = ioctl(fd, request, arg);
	while (ret < 0 && errno == EINTR && request != KVM_RUN);
	return likely(ret >= 0) ? ret : fail(request, errno);
}

int kvm_call(int fd, unsigned long request, const void *arg)
{
	return kvm_call_n(fd, request, (unsigned long)arg);
}

void *kvm_map(int fd, size_t size, uint64_t offset, int *ret_error)
{
	void *p;

	if (unlikely(armed) && rehearse(REQUEST_MMAP)) {
		*ret_error = fail(REQUEST_MMAP, fail_errno);
		return NULL;
	}
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (p != MAP_FAILED)
		return p;
	*ret_error = fail(REQUEST_MMAP, errno);
	return NULL;
}
