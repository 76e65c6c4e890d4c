/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Try from inside the sandbox what must not be possible there. */
#include "vm/sandbox_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/kvm.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/machine_def.h"
#include "base/cleanup.h"
#include "base/fd.h"

/* ---- the attempts: what the call returned, or -1 with errno. What would harm the host if it were
 * allowed after all has arguments that the kernel refuses: the filter comes before it looks.
 * -------------------------------------------------------------------------------------- */

static char scratch[4096] __attribute__((aligned(4096)));
static int a_socket = -1, a_file = -1; /* open before the sandbox */
static pid_t a_parent;

static long at_connect_abstract(void)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "\0umbra-probe"};
	long fd = syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);

	return fd < 0 ? fd : syscall(SYS_connect, fd, &sun, sizeof(sa_family_t) + 12);
}

static long at_connect_out(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(22)};
	long fd = syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return fd < 0 ? fd : syscall(SYS_connect, fd, &sin, sizeof(sin));
}

static long at_connect_passed(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(22)};

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return syscall(SYS_connect, a_socket, &sin, sizeof(sin));
}

static long at_sendto_address(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(22)};

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return syscall(SYS_sendto, a_socket, "x", 1, MSG_FASTOPEN, &sin, sizeof(sin));
}

static long at_exec(void)
{
	char *const argv[] = {(char *)"true", NULL}, *const envp[] = {NULL};

	return syscall(SYS_execve, "/bin/true", argv, envp);
}

static long at_exec_fd(void)
{
	char *const argv[] = {(char *)"true", NULL}, *const envp[] = {NULL};

	return syscall(SYS_execveat, a_file, "", argv, envp, AT_EMPTY_PATH);
}

/* The child of a fork that was allowed ends at once. */
static long at_fork(void)
{
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	return pid;
}

static long at_clone3(void)
{
	static uint64_t args[11]; /* struct clone_args: all zero is a fork */
	long pid = syscall(SYS_clone3, args, sizeof(args));

	if (pid == 0)
		_exit(0);
	return pid;
}

/* A thread without CLONE_SIGHAND is refused by the kernel itself (EINVAL), if by nobody before. */
static long at_thread(void)
{
	return syscall(SYS_clone, CLONE_VM | CLONE_THREAD, scratch + sizeof(scratch), 0, 0, 0);
}

static long at_bpf(void)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4};

	attr.max_entries = 1;
	return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}

static long at_raise_limit(void)
{
	struct rlimit r = {RLIM_INFINITY, RLIM_INFINITY};

	return syscall(SYS_prlimit64, 0, RLIMIT_NPROC, &r, NULL);
}

/* getpid by the 32-bit table, where 20 is its number: a filter for 64 bits alone would see writev.
 */
static long at_int80(void)
{
	long ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	errno = ret < 0 ? (int)-ret : 0;
	return ret < 0 ? -1 : ret;
}

#define X32_BIT 0x40000000

#define TRY(name, call)                                                                            \
	static long at_##name(void)                                                                \
	{                                                                                          \
		return call;                                                                       \
	}

TRY(open, syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY))
TRY(open_old, syscall(SYS_open, "/proc/self/status", O_RDONLY))
TRY(open2, syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", scratch, 24))
TRY(create, syscall(SYS_creat, "/umbra-probe", 0600))
TRY(open_handle, syscall(SYS_open_by_handle_at, AT_FDCWD, scratch, O_RDONLY))
TRY(stat, syscall(SYS_stat, "/proc", scratch))
TRY(statat, syscall(SYS_newfstatat, AT_FDCWD, "/", scratch, 0))
TRY(readlink, syscall(SYS_readlink, "/proc/self/exe", scratch, sizeof(scratch)))
TRY(list, syscall(SYS_getdents64, a_file, scratch, sizeof(scratch)))
TRY(unlink, syscall(SYS_unlink, "/umbra-probe"))
TRY(mkdir, syscall(SYS_mkdir, "/umbra-probe", 0700))
TRY(mknod, syscall(SYS_mknod, "/umbra-probe", 0600 | S_IFIFO, 0))
TRY(chdir, syscall(SYS_chdir, "/"))
TRY(chroot, syscall(SYS_chroot, "/"))
TRY(mount, syscall(SYS_mount, "none", "/", "tmpfs", 0, NULL))
TRY(umount, syscall(SYS_umount2, "/", MNT_DETACH))
TRY(fsopen, syscall(SYS_fsopen, "tmpfs", 0))
TRY(open_tree, syscall(SYS_open_tree, AT_FDCWD, "/", 1))
TRY(pivot_root, syscall(SYS_pivot_root, ".", "."))
TRY(unshare_user, syscall(SYS_unshare, CLONE_NEWUSER))
TRY(unshare_mounts, syscall(SYS_unshare, CLONE_NEWNS))
TRY(setns, syscall(SYS_setns, a_file, 0))
TRY(setuid, syscall(SYS_setuid, 0))
TRY(setgid, syscall(SYS_setgid, 0))
TRY(setresuid, syscall(SYS_setresuid, 0, 0, 0))
TRY(capset, syscall(SYS_capset, scratch, scratch))
TRY(socket_unix, syscall(SYS_socket, AF_UNIX, SOCK_DGRAM, 0))
TRY(socket_netlink, syscall(SYS_socket, AF_NETLINK, SOCK_RAW, 0))
TRY(socket_packet, syscall(SYS_socket, AF_PACKET, SOCK_RAW, 0))
TRY(socket_vsock, syscall(SYS_socket, AF_VSOCK, SOCK_STREAM, 0))
TRY(socketpair_inet, syscall(SYS_socketpair, AF_INET, SOCK_STREAM, 0, scratch))
TRY(bind, syscall(SYS_bind, a_socket, scratch, sizeof(struct sockaddr_in)))
TRY(listen, syscall(SYS_listen, a_socket, 1))
TRY(setsockopt, syscall(SYS_setsockopt, a_socket, SOL_SOCKET, SO_KEEPALIVE, scratch, 4))
TRY(ptrace, syscall(SYS_ptrace, PTRACE_SEIZE, a_parent, 0, 0))
TRY(traceme, syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0))
TRY(read_process, syscall(SYS_process_vm_readv, a_parent, scratch, 1, scratch, 1, 0))
TRY(write_process, syscall(SYS_process_vm_writev, a_parent, scratch, 1, scratch, 1, 0))
TRY(kill, syscall(SYS_kill, a_parent, 0))
TRY(tgkill_other, syscall(SYS_tgkill, 1, 1, 0))
TRY(pidfd_open, syscall(SYS_pidfd_open, 1, 0))
TRY(pidfd_getfd, syscall(SYS_pidfd_getfd, a_file, 0, 0))
TRY(mmap_exec,
    syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
TRY(mprotect_exec, syscall(SYS_mprotect, scratch, 4096, PROT_READ | PROT_WRITE | PROT_EXEC))
TRY(pkey_mprotect, syscall(SYS_pkey_mprotect, scratch, 4096, PROT_READ | PROT_EXEC, -1))
TRY(memfd, syscall(SYS_memfd_create, "probe", 0))
TRY(madvise_other, syscall(SYS_madvise, scratch, 4096, MADV_MERGEABLE))
TRY(mlock, syscall(SYS_mlock, scratch, 4096))
TRY(shmget, syscall(SYS_shmget, IPC_PRIVATE, 4096, 0600))
TRY(ioctl_unknown, syscall(SYS_ioctl, a_socket, 0xdead, scratch))
TRY(ioctl_push, syscall(SYS_ioctl, 0, TIOCSTI, "x"))
TRY(ioctl_kvm, syscall(SYS_ioctl, a_file, KVM_CREATE_VM, 0))
TRY(ioctl_kvm_run, syscall(SYS_ioctl, a_file, KVM_RUN, 0))
TRY(ioctl_kvm_device, syscall(SYS_ioctl, a_file, KVM_CREATE_DEVICE, scratch))
TRY(ioctl_kvm_encrypt, syscall(SYS_ioctl, a_file, KVM_MEMORY_ENCRYPT_OP, scratch))
TRY(fcntl_dup, syscall(SYS_fcntl, 1, F_DUPFD, 100))
TRY(fcntl_owner, syscall(SYS_fcntl, a_socket, F_SETOWN, a_parent))
TRY(fcntl_lease, syscall(SYS_fcntl, a_file, F_SETLEASE, F_RDLCK))
TRY(io_uring, syscall(SYS_io_uring_setup, 4, scratch))
TRY(keyctl, syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1))
TRY(add_key, syscall(SYS_add_key, "user", "probe", "x", 1, KEY_SPEC_PROCESS_KEYRING))
TRY(userfaultfd, syscall(SYS_userfaultfd, 1))
TRY(perf, syscall(SYS_perf_event_open, scratch, 0, -1, -1, 0))
TRY(prctl_dumpable, syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0))
TRY(prctl_name, syscall(SYS_prctl, PR_SET_NAME, "probe", 0, 0, 0))
TRY(arch_prctl, syscall(SYS_arch_prctl, 0x1004, scratch))
TRY(seccomp, syscall(SYS_seccomp, 2, 0, scratch))
TRY(personality, syscall(SYS_personality, 0x0400000))
TRY(affinity, syscall(SYS_sched_setaffinity, 0, sizeof(scratch), scratch))
TRY(priority, syscall(SYS_setpriority, PRIO_PROCESS, 0, 1))
TRY(timer, syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, scratch))
TRY(inotify, syscall(SYS_inotify_init1, 0))
TRY(splice, syscall(SYS_splice, a_file, NULL, a_socket, NULL, 1, 0))
TRY(settime, syscall(SYS_clock_settime, CLOCK_REALTIME, NULL))
TRY(hostname, syscall(SYS_sethostname, "probe", -1L))
TRY(module, syscall(SYS_init_module, scratch, 1, ""))
TRY(reboot, syscall(SYS_reboot, 0, 0, 0, 0))
TRY(iopl, syscall(SYS_iopl, 3))
TRY(modify_ldt, syscall(SYS_modify_ldt, 0, scratch, 16))
TRY(x32, syscall(X32_BIT | SYS_getpid))
TRY(no_such_call, syscall(1000))

/* Not allowed to either class. */
static const struct attempt {
	const char *name;
	long (*make)(void);
	const char *what;
	bool quiet; /* refused without being counted */
	bool kvm;   /* tried in the sandbox of a machine that may use /dev/kvm */
} attempts[] = {
	{"open", at_open, "open a path", .quiet = true},
	{"open-old", at_open_old, "open a path, by another call"},
	{"open2", at_open2, "open a path, by a third"},
	{"open-handle", at_open_handle, "open a file by its handle"},
	{"create", at_create, "create a file"},
	{"stat", at_stat, "look at a path"},
	{"statat", at_statat, "look at a path, by the call behind fstat"},
	{"readlink", at_readlink, "read a link"},
	{"list", at_list, "list a folder"},
	{"unlink", at_unlink, "remove a file"},
	{"mkdir", at_mkdir, "make a folder"},
	{"mknod", at_mknod, "make a fifo"},
	{"chdir", at_chdir, "change the folder"},
	{"chroot", at_chroot, "change the root"},
	{"mount", at_mount, "mount"},
	{"umount", at_umount, "unmount"},
	{"fsopen", at_fsopen, "mount, by the new calls"},
	{"open-tree", at_open_tree, "copy a mount"},
	{"pivot-root", at_pivot_root, "swap the root"},
	{"unshare-user", at_unshare_user, "make a user namespace"},
	{"unshare-mounts", at_unshare_mounts, "make a mount namespace"},
	{"setns", at_setns, "enter a namespace"},
	{"setuid", at_setuid, "become root"},
	{"setgid", at_setgid, "join root's group"},
	{"setresuid", at_setresuid, "become root, by another call"},
	{"capset", at_capset, "take capabilities"},
	{"connect-out", at_connect_out, "connect to a TCP port"},
	{"connect-abstract", at_connect_abstract, "connect to an abstract Unix socket"},
	{"connect-passed", at_connect_passed, "connect a socket that was open before"},
	{"sendto-address", at_sendto_address, "connect it by sending"},
	{"socket-unix", at_socket_unix, "make a Unix socket"},
	{"socket-netlink", at_socket_netlink, "make a netlink socket"},
	{"socket-packet", at_socket_packet, "make a packet socket"},
	{"socket-vsock", at_socket_vsock, "make a vsock socket"},
	{"socketpair-inet", at_socketpair_inet, "make a pair of another family"},
	{"bind", at_bind, "bind a socket"},
	{"listen", at_listen, "listen on a socket"},
	{"setsockopt", at_setsockopt, "set a socket's option"},
	{"exec", at_exec, "run a program"},
	{"exec-fd", at_exec_fd, "run a program by its descriptor"},
	{"fork", at_fork, "make a process"},
	{"clone3", at_clone3, "make a process, by another call"},
	{"thread", at_thread, "make a thread"},
	{"ptrace", at_ptrace, "trace the parent"},
	{"traceme", at_traceme, "be traced"},
	{"read-process", at_read_process, "read another's memory"},
	{"write-process", at_write_process, "write another's memory"},
	{"kill", at_kill, "signal another process"},
	{"tgkill-other", at_tgkill_other, "signal another's thread"},
	{"pidfd-open", at_pidfd_open, "get hold of a process"},
	{"pidfd-getfd", at_pidfd_getfd, "take another's descriptor"},
	{"mmap-exec", at_mmap_exec, "map executable memory"},
	{"mprotect-exec", at_mprotect_exec, "make memory executable"},
	{"pkey-mprotect", at_pkey_mprotect, "make memory executable, by another call"},
	{"memfd", at_memfd, "make a file in memory"},
	{"madvise-other", at_madvise_other, "give other advice on memory"},
	{"mlock", at_mlock, "lock memory"},
	{"shmget", at_shmget, "make System V memory"},
	{"ioctl-unknown", at_ioctl_unknown, "an ioctl that nobody knows"},
	{"ioctl-push", at_ioctl_push, "push input into a terminal"},
	{"ioctl-kvm", at_ioctl_kvm, "make a KVM machine, where that is not allowed"},
	{"ioctl-kvm-run", at_ioctl_kvm_run, "run one"},
	{"ioctl-kvm-device", at_ioctl_kvm_device, "make a device of KVM's, where KVM is allowed",
	 .kvm = true},
	{"ioctl-kvm-encrypt", at_ioctl_kvm_encrypt,
	 "call the secure processor, where KVM is allowed", .kvm = true},
	{"fcntl-dup", at_fcntl_dup, "copy a descriptor"},
	{"fcntl-owner", at_fcntl_owner, "send somebody signals"},
	{"fcntl-lease", at_fcntl_lease, "hold up a file's readers"},
	{"io-uring", at_io_uring, "make calls by a ring"},
	{"keyctl", at_keyctl, "look for keys"},
	{"add-key", at_add_key, "add a key"},
	{"bpf", at_bpf, "load into the kernel's machine"},
	{"userfaultfd", at_userfaultfd, "hold up the kernel at a page"},
	{"perf", at_perf, "count events"},
	{"prctl-dumpable", at_prctl_dumpable, "become traceable"},
	{"prctl-name", at_prctl_name, "take another name"},
	{"arch-prctl", at_arch_prctl, "set a segment's base"},
	{"seccomp", at_seccomp, "ask for filters"},
	{"personality", at_personality, "make all memory executable"},
	{"raise-limit", at_raise_limit, "raise a limit"},
	{"affinity", at_affinity, "choose processors"},
	{"priority", at_priority, "change the priority"},
	{"timer", at_timer, "make a timer"},
	{"inotify", at_inotify, "watch files"},
	{"splice", at_splice, "move pages between files"},
	{"settime", at_settime, "set the host's clock"},
	{"hostname", at_hostname, "set the host's name"},
	{"module", at_module, "load a module"},
	{"reboot", at_reboot, "reboot"},
	{"iopl", at_iopl, "reach the host's ports"},
	{"modify-ldt", at_modify_ldt, "make a segment"},
	{"int80", at_int80, "a call by the 32-bit table"},
	{"x32", at_x32, "a call by the x32 table"},
	{"no-such-call", at_no_such_call, "a call that is to come"},
};

/* ---- making them
 * -------------------------------------------------------------------------------------- */

/* What one attempt came to, over a pipe. */
struct outcome {
	bool entered; /* the sandbox was entered at all */
	bool whole;   /* …with nothing missing */
	long ret;
	int error;
	uint64_t violations;
};

struct job {
	const struct attempt *attempt;
	enum sandbox_class class;
	bool filtered; /* with the filter; without, only what else there is stands in the way */
	int fd;
};

static void make_attempt(const struct job *job)
{
	struct outcome o = {.entered = true};
	uint64_t before = sandbox_violations();
	char missing[512];

	o.whole = !sandbox_missing(missing, sizeof(missing));
	errno = job->filtered ? 0 : ENOTSUP;
	/* Where something is missing, nothing might stand in the way of the call. */
	o.ret = job->filtered || o.whole ? job->attempt->make() : -1;
	o.error = errno;
	o.violations = sandbox_violations() - before;
	if (write(job->fd, &o, sizeof(o)) != sizeof(o))
		_exit(3);
}

static void *vcpu(void *arg)
{
	struct job *job = arg;

	if (job->filtered && sandbox_thread(SANDBOX_VCPU))
		_exit(2);
	if (job->class == SANDBOX_VCPU)
		make_attempt(job);
	return NULL;
}

/* As umbra-vm does it: enter, make the threads, close the door behind the last. */
static void __attribute__((noreturn)) child(const struct sandbox_config *config, struct job *job)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct sandbox_config own = *config;
	pthread_t thread;

	dup2(null, STDERR_FILENO);
	a_file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	a_parent = getppid();
	a_socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	own.kvm = job->attempt->kvm;
	if (sandbox_enter(&own, NULL) || pthread_create(&thread, NULL, vcpu, job))
		_exit(2);
	if (job->class == SANDBOX_VCPU) {
		pthread_join(thread, NULL);
		_exit(0);
	}
	pthread_join(thread, NULL);
	if (job->filtered && sandbox_thread(SANDBOX_LOOP))
		_exit(2);
	make_attempt(job);
	_exit(0);
}

/* Whether the filter refused it, with words. */
static bool judge(const struct job *job, const struct outcome *o, int status, char *text,
		  size_t size)
{
	if (WIFSIGNALED(status)) {
		snprintf(text, size, "%s", strsignal(WTERMSIG(status)));
		return WTERMSIG(status) == SIGSYS;
	}
	if (!o->entered) {
		snprintf(text, size, "no sandbox (status %d)", WEXITSTATUS(status));
		return false;
	}
	if (o->ret >= 0) {
		snprintf(text, size, "ALLOWED");
		return false;
	}
	snprintf(text, size, "%s%s", strerror(o->error), o->violations ? ", counted" : "");
	return o->error == EPERM && (o->violations == 1 || job->attempt->quiet);
}

static bool run(const struct sandbox_config *config, struct job *job, char *text, size_t size)
{
	_cleanup_close_ int from = -1, to = -1;
	struct outcome o = {0};
	int pair[2], status = 0;
	pid_t pid;

	if (pipe2(pair, O_CLOEXEC)) {
		snprintf(text, size, "FAILED: %s", strerror(errno));
		return false;
	}
	from = pair[0];
	job->fd = to = pair[1];
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		child(config, job);
	close(TAKE_FD(to));
	if (fd_read_full(from, &o, sizeof(o)) != sizeof(o))
		o = (struct outcome){0};
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		snprintf(text, size, "FAILED: %s", strerror(errno));
		return false;
	}
	return judge(job, &o, status, text, size);
}

unsigned sandbox_probe(const struct sandbox_config *config, const char *only, FILE *out)
{
	unsigned bad = 0, made = 0;

	for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
		const struct attempt *a = &attempts[i];
		struct job job = {.attempt = a, .filtered = true};
		char text[SANDBOX_CLASSES][80], bare[80];
		unsigned failures = 0;

		if (only && strcmp(only, a->name))
			continue;
		for (unsigned k = 0; k < SANDBOX_CLASSES; k++) {
			job.class = (enum sandbox_class)k;
			failures += !run(config, &job, text[k], sizeof(text[k]));
		}
		job.class = SANDBOX_LOOP;
		job.filtered = false;
		run(config, &job, bare, sizeof(bare));
		fprintf(out, "%s %s: %s; loop: %s; vcpu: %s; without the filter: %s\n",
			failures ? "ALLOWED" : "refused", a->name, a->what, text[SANDBOX_LOOP],
			text[SANDBOX_VCPU], bare);
		bad += failures;
		made++;
	}
	fprintf(out, "%u attempts in %u classes of thread, %u not refused\n", made, SANDBOX_CLASSES,
		bad);
	return made ? bad : 1;
}
