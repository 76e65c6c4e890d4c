/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The system calls that a thread may make, each with its reason. */
#include "vm/sandbox_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define L  BIT(SANDBOX_LOOP)
#define V  BIT(SANDBOX_VCPU)
#define LV (L | V)

/* What an argument must be. @text is for sandbox_list(). */
struct condition {
	enum { ANY, EQUAL, NONE_OF, SELF } op; /* SELF: the process's own number */
	unsigned arg;
	uint64_t value;
	const char *text;
};

#define IS(arg_, name, value_)                                                                     \
	{                                                                                          \
		EQUAL, (arg_), (value_), name " = " #value_                                        \
	}
#define HAS_NO(arg_, name, bits)                                                                   \
	{                                                                                          \
		NONE_OF, (arg_), (bits), name " without " #bits                                    \
	}
#define IS_SELF(arg_, name)                                                                        \
	{                                                                                          \
		SELF, (arg_), 0, name " = its own"                                                 \
	}

/*
 * A call may have several rows: one that fits is enough. With @refuse it fails with EPERM and is
 * no violation: a library asks, and takes no for an answer.
 */
struct rule {
	const char *name;
	int nr;
	unsigned classes;
	struct condition when;
	bool refuse;
	bool kvm; /* only where the definition and the host allow /dev/kvm */
	const char *why;
};

#define CALL(name) #name, __NR_##name

#define KVM(request, classes, why_)                                                                \
	{                                                                                          \
		CALL(ioctl), classes, {EQUAL, 1, request, "request = " #request}, .kvm = true,     \
										  .why = (why_)    \
	}

static const struct rule rules[] = {
	/* Memory. Executable memory is mapped before: no call can make more of it. */
	{CALL(brk), LV, .why = "malloc"},
	{CALL(mmap), LV, HAS_NO(2, "prot", PROT_EXEC), .why = "malloc; images, read-only"},
	{CALL(mprotect), LV, HAS_NO(2, "prot", PROT_EXEC), .why = "malloc grows an arena"},
	{CALL(mremap), LV, .why = "realloc; it keeps the protection"},
	{CALL(munmap), LV, .why = "free; the end"},
	{CALL(madvise), LV, IS(2, "advice", MADV_DONTNEED), .why = "free; a thread's stack"},

	/* Waiting and waking. */
	{CALL(futex), LV, .why = "locks and conditions"},
	{CALL(sched_yield), LV, .why = "waiting for a vCPU to leave the guest"},
	{CALL(restart_syscall), LV, .why = "a wait goes on after a stop of the process"},
	{CALL(epoll_wait), L, .why = "the loop"},
	{CALL(epoll_ctl), L, .why = "the loop watches descriptors"},
	{CALL(epoll_create1), L, .why = "libevent asks whether a descriptor can be watched"},
	{CALL(poll), L, .why = "the last output waits for its reader"},
	{CALL(timerfd_settime), LV, .why = "device timers"},
	{CALL(clock_gettime), LV, .why = "time, where the vDSO has none"},
	{CALL(gettimeofday), LV, .why = "the same"},

	/* Descriptors that are open already, or come over the control socket. */
	{CALL(read), L, .why = "events, timers, console input, images"},
	{CALL(write), LV, .why = "wakes the loop; log lines, console output, the report"},
	{CALL(writev), LV, .why = "the C library's last words"},
	{CALL(pread64), L, .why = "/proc/self/pagemap and KVM's statistics, opened before"},
	{CALL(pwrite64), L, .why = "the console's log"},
	{CALL(lseek), L, .why = "the report; which RAM was touched"},
	{CALL(ftruncate), L, .why = "the console's log, the report"},
	{CALL(fsync), L, .why = "the report"},
	{CALL(newfstatat), L, IS(3, "flags", AT_EMPTY_PATH), .why = "an image's size (fstat)"},
	{CALL(fstat), L, .why = "the same, in other C libraries"},
	{CALL(close), L, .why = "connections, consoles"},
	{CALL(fcntl), L, IS(1, "cmd", F_GETFL), .why = "consoles do not block"},
	{CALL(fcntl), L, IS(1, "cmd", F_SETFL), .why = "the same"},
	{CALL(ioctl), L, IS(1, "request", TCGETS), .why = "is stdout a terminal (stdio)"},
	{CALL(ioctl), L, IS(1, "request", TCSETS), .why = "gives the terminal back"},

	/* Sockets: none can be made, bound or connected, but for pairs. */
	{CALL(accept4), L, .why = "umbrad's connections"},
	{CALL(recvmsg), L, .why = "calls and their descriptors"},
	{CALL(sendmsg), L, .why = "answers and their descriptors"},
	{CALL(recvfrom), L, .why = "consoles, the debugger"},
	{CALL(sendto), L, IS(4, "address", 0), .why = "consoles, the debugger"},
	{CALL(shutdown), L, .why = "a peer that sends too much"},
	{CALL(socketpair), L, IS(0, "family", AF_UNIX), .why = "a debugger's connection"},

	/* The process itself. */
	{CALL(getrandom), LV, .why = "RDRAND and RDSEED; hash seeds"},
	{CALL(getpid), LV, .why = "vm.query; abort"},
	{CALL(gettid), LV, .why = "abort"},
	{CALL(tgkill), LV, IS_SELF(0, "process"), .why = "abort; kicks a vCPU out of KVM_RUN"},
	{CALL(rt_sigaction), LV, .why = "the loop stops watching signals; abort"},
	{CALL(rt_sigprocmask), LV, .why = "the end of a thread; abort"},
	{CALL(rt_sigreturn), LV, .why = "after a signal"},
	{CALL(exit), V, .why = "a vCPU's thread ends"},
	{CALL(exit_group), LV, .why = "the end"},

	/*
	 * /dev/kvm, where the machine may use it: what engine/kvm/ asks for while a guest runs, and
	 * when the machine changes its engine. Its descriptors are the machine's own, and what was
	 * made of them dies with it.
	 */
	KVM(KVM_RUN, LV, "runs the guest"),
	KVM(KVM_GET_REGS, LV, "a vCPU's state, and help"),
	KVM(KVM_SET_REGS, LV, "a vCPU's state"),
	KVM(KVM_GET_SREGS, LV, "a vCPU's state"),
	KVM(KVM_SET_SREGS, LV, "a vCPU's state"),
	KVM(KVM_GET_SREGS2, LV, "a vCPU's state, on newer kernels"),
	KVM(KVM_SET_SREGS2, LV, "a vCPU's state"),
	KVM(KVM_GET_MSRS, LV, "a vCPU's state"),
	KVM(KVM_SET_MSRS, LV, "a vCPU's state; the TSC"),
	KVM(KVM_GET_XSAVE, LV, "a vCPU's state"),
	KVM(KVM_GET_XSAVE2, LV, "a vCPU's state, on newer kernels"),
	KVM(KVM_SET_XSAVE, LV, "a vCPU's state"),
	KVM(KVM_GET_XCRS, LV, "a vCPU's state"),
	KVM(KVM_SET_XCRS, LV, "a vCPU's state"),
	KVM(KVM_GET_VCPU_EVENTS, LV, "a vCPU's state"),
	KVM(KVM_SET_VCPU_EVENTS, LV, "a vCPU's state; an exception that help found"),
	KVM(KVM_GET_DEBUGREGS, LV, "a vCPU's state"),
	KVM(KVM_SET_DEBUGREGS, LV, "a vCPU's state"),
	KVM(KVM_GET_MP_STATE, LV, "a vCPU's state; does it sleep"),
	KVM(KVM_SET_MP_STATE, LV, "a vCPU's state; INIT and SIPI"),
	KVM(KVM_GET_LAPIC, LV, "a vCPU's state; does it sleep"),
	KVM(KVM_SET_LAPIC, LV, "a vCPU's state"),
	KVM(KVM_SET_SIGNAL_MASK, L, "a timer that has run out while a vCPU stood still"),
	KVM(KVM_IRQ_LINE, LV, "devices' lines"),
	KVM(KVM_SIGNAL_MSI, LV, "devices' messages"),
	KVM(KVM_IOEVENTFD, L, "doorbells of devices with a thread of their own"),
	KVM(KVM_IRQFD, L, "their lines"),
	KVM(KVM_SET_GSI_ROUTING, LV, "split: vectors whose EOIs are to be told"),
	KVM(KVM_RESET_DIRTY_RINGS, LV, "a dirty ring is full, or was read"),
	KVM(KVM_GET_DIRTY_LOG, LV, "the dirty bitmap"),
	KVM(KVM_CLEAR_DIRTY_LOG, LV, "the dirty bitmap, in two steps"),
	KVM(KVM_SET_USER_MEMORY_REGION, LV, "slots; help makes the kernel forget its tables"),
	KVM(KVM_SET_GUEST_DEBUG, LV, "a debugger's breakpoints and steps"),
	KVM(KVM_CREATE_VM, L, "a change of the engine"),
	KVM(KVM_CHECK_EXTENSION, L, "a change of the engine"),
	KVM(KVM_GET_API_VERSION, L, "a change of the engine"),
	KVM(KVM_GET_VCPU_MMAP_SIZE, L, "a change of the engine"),
	KVM(KVM_GET_SUPPORTED_CPUID, L, "a change of the engine"),
	KVM(KVM_ENABLE_CAP, L, "a change of the engine"),
	KVM(KVM_SET_TSS_ADDR, L, "a change of the engine"),
	KVM(KVM_SET_IDENTITY_MAP_ADDR, L, "a change of the engine"),
	KVM(KVM_CREATE_IRQCHIP, L, "a change of the engine"),
	KVM(KVM_CREATE_PIT2, L, "a change of the engine"),
	KVM(KVM_REINJECT_CONTROL, L, "a change of the engine"),
	KVM(KVM_REGISTER_COALESCED_MMIO, L, "a change of the engine"),
	KVM(KVM_X86_SET_MSR_FILTER, L, "a change of the engine"),
	KVM(KVM_CREATE_VCPU, L, "a change of the engine"),
	KVM(KVM_SET_CPUID2, L, "a change of the engine"),
	KVM(KVM_GET_CPUID2, L, "a change of the engine"),
	KVM(KVM_GET_STATS_FD, L, "a change of the engine"),
	KVM(KVM_SET_DEVICE_ATTR, L, "the TSC's offset"),
	KVM(KVM_GET_IRQCHIP, L, "the state of the kernel's chips"),
	KVM(KVM_SET_IRQCHIP, L, "the state of the kernel's chips"),
	KVM(KVM_GET_PIT2, L, "the state of the kernel's chips"),
	KVM(KVM_SET_PIT2, L, "the state of the kernel's chips"),
	KVM(KVM_GET_CLOCK, L, "the paravirtual clock"),
	KVM(KVM_SET_CLOCK, L, "the paravirtual clock"),
	KVM(KVM_KVMCLOCK_CTRL, L, "the paravirtual clock: it was held"),

#if !SANDBOX_SANITIZED
	/* Asked for by libraries, refused without further ado. */
	{CALL(openat), LV, .refuse = true,
	 .why = "free looks for /proc/sys/vm/overcommit_memory; there is nothing to open"},
#else
	/* A sanitizer's runtime, in its builds only. */
	{CALL(openat), LV, .why = "sanitizer: it reads /proc"},
	{CALL(mmap), LV, .why = "sanitizer: shadow memory"},
	{CALL(mprotect), LV, .why = "sanitizer: shadow memory"},
	{CALL(madvise), LV, .why = "sanitizer: shadow memory"},
	{CALL(newfstatat), LV, .why = "sanitizer: reports, leaks"},
	{CALL(readlink), LV, .why = "sanitizer: reports"},
	{CALL(read), V, .why = "sanitizer: reports"},
	{CALL(close), V, .why = "sanitizer: reports"},
	{CALL(fstat), V, .why = "sanitizer: reports"},
	{CALL(lseek), V, .why = "sanitizer: reports"},
	{CALL(ioctl), LV, .why = "sanitizer: reports"},
	{CALL(getdents64), LV, .why = "sanitizer: its list of threads"},
	{CALL(getdents), LV, .why = "sanitizer: the same"},
	{CALL(open), LV, .why = "sanitizer: the same"},
	{CALL(clone), LV, .why = "sanitizer: leaks are looked for by a clone"},
	{CALL(clone3), LV, .why = "sanitizer: the same"},
	{CALL(exit), L, .why = "sanitizer: the same"},
	{CALL(ptrace), LV, .why = "sanitizer: which stops the threads"},
	{CALL(wait4), LV, .why = "sanitizer: the same"},
	{CALL(prctl), LV, .why = "sanitizer: the same"},
	{CALL(getppid), LV, .why = "sanitizer: the same"},
	{CALL(sigaltstack), LV, .why = "sanitizer: its own stack for signals"},
	{CALL(pipe2), LV, .why = "sanitizer: is an address readable"},
	{CALL(prlimit64), LV, .why = "sanitizer: the stack's bounds"},
	{CALL(sched_getaffinity), LV, .why = "sanitizer: the stack's bounds"},
	{CALL(clock_nanosleep), LV, .why = "sanitizer: its own waits"},
	{CALL(nanosleep), LV, .why = "sanitizer: its own waits"},
	{CALL(mincore), LV, .why = "sanitizer: is an address mapped"},
	{CALL(sysinfo), LV, .why = "sanitizer: memory limits"},
	{CALL(getrusage), LV, .why = "sanitizer: memory limits"},
	{CALL(set_robust_list), LV, .why = "sanitizer: its clone"},
	{CALL(rseq), LV, .why = "sanitizer: its clone"},
#endif
};

static int add_rule(scmp_filter_ctx ctx, const struct rule *r)
{
	uint32_t action = r->refuse ? SCMP_ACT_ERRNO(EPERM) : SCMP_ACT_ALLOW;
	const struct condition *c = &r->when;
	struct scmp_arg_cmp cmp = {.arg = c->arg, .op = SCMP_CMP_EQ, .datum_a = c->value};

	if (c->op == ANY)
		return seccomp_rule_add_array(ctx, action, r->nr, 0, NULL);
	if (c->op == SELF)
		cmp.datum_a = (scmp_datum_t)getpid();
	if (c->op == NONE_OF)
		cmp.op = SCMP_CMP_MASKED_EQ; /* datum_a: the mask; datum_b: 0 */
	return seccomp_rule_add_array(ctx, action, r->nr, 1, &cmp);
}

static int add_rules(scmp_filter_ctx ctx, enum sandbox_class class, bool kvm)
{
	int ret = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rules) && !ret; i++)
		if (rules[i].classes & BIT(class) && (kvm || !rules[i].kvm))
			ret = add_rule(ctx, &rules[i]);
	return ret;
}

/* A program as the kernel takes it, made before there is a filter: loading it is one call. */
static struct sock_fprog programs[SANDBOX_CLASSES];

static int export(scmp_filter_ctx ctx, struct sock_fprog *prog)
{
	_cleanup_close_ int fd = memfd_create("umbra-filter", MFD_CLOEXEC);
	struct stat st;
	int ret;

	if (fd < 0)
		return -errno;
	ret = seccomp_export_bpf(ctx, fd);
	if (ret)
		return ret;
	if (fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	free(prog->filter);
	prog->len = (unsigned short)((size_t)st.st_size / sizeof(*prog->filter));
	prog->filter = malloc((size_t)st.st_size);
	if (!prog->filter)
		return -ENOMEM;
	return fd_read_full(fd, prog->filter, (size_t)st.st_size) == st.st_size ? 0 : -EIO;
}

static int build(enum sandbox_class class, bool strict, bool kvm)
{
	scmp_filter_ctx ctx = seccomp_init(strict ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_TRAP);
	int ret;

	if (!ctx)
		return -ENOMEM;
	/* Calls by the 32-bit or the x32 table have other numbers: nobody here makes them. */
	ret = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!ret)
		ret = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree */
	if (!ret)
		ret = add_rules(ctx, class, kvm);
	if (!ret)
		ret = export(ctx, &programs[class]);
	seccomp_release(ctx);
	return ret;
}

int sandbox_filter_build(bool strict, bool kvm)
{
	int ret = 0;

	for (unsigned k = 0; k < SANDBOX_CLASSES && !ret; k++)
		ret = build((enum sandbox_class)k, strict, kvm);
	return ret;
}

int sandbox_filter_install(enum sandbox_class class)
{
	/* SECCOMP_SET_MODE_FILTER of linux/seccomp.h is 1. */
	return syscall(__NR_seccomp, 1, 0, &programs[class]) < 0 ? -errno : 0;
}

static const char *classes_name(unsigned classes)
{
	return classes == LV ? "loop vcpu" : classes == L ? "loop" : "vcpu";
}

void sandbox_list(FILE *out)
{
	fprintf(out, "%-16s %-9s %-40s %s\n", "CALL", "THREADS", "ONLY WITH", "FOR");
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		const struct rule *r = &rules[i];

		fprintf(out, "%-16s %-9s %-40s %s%s\n", r->name, classes_name(r->classes),
			r->refuse	    ? "EPERM"
			: r->when.op == ANY ? "-"
					    : r->when.text,
			r->kvm ? "kvm: " : "", r->why);
	}
}
