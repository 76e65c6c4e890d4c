/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbra-vm gives up before the guest's first instruction. */
#include "vm/sandbox_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <json-c/json.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "api/machine_def.h"
#include "base/cleanup.h"
#include "base/fd.h"

/* uids from 0x70000000 on are nobody's (systemd's list of uid ranges); a process's number has at
 * most 22 bits. */
#define OWN_UID_BASE 0x70000000u
#define NOBODY	     65534u

#define FILES_MAX 256

const char *const sandbox_part_names[] = {
	[SANDBOX_NO_NEW_PRIVS] = "no-new-privs",
	[SANDBOX_USER] = "user",
	[SANDBOX_MOUNTS] = "mounts",
	[SANDBOX_NETWORK] = "network",
	[SANDBOX_IPC] = "ipc",
	[SANDBOX_CAPABILITIES] = "capabilities",
	[SANDBOX_LANDLOCK] = "landlock",
	[SANDBOX_RLIMITS] = "rlimits",
	[SANDBOX_DUMPABLE] = "dumpable",
	[SANDBOX_SECCOMP] = "seccomp",
	[SANDBOX_PARTS] = NULL,
};

const char *const sandbox_class_names[] = {"loop", "vcpu", NULL};

/* The process's; written by sandbox_enter() only, but for the counts. */
static struct {
	int mode;
	bool entered;
	uid_t uid;
	unsigned tasks; /* RLIMIT_NPROC once all threads are there; ~0: as it was */
	int landlock_abi;
	char why[SANDBOX_PARTS][120]; /* why it is missing; "": it is not */
	uint64_t violations;	      /* atomic */
	int last_call;		      /* atomic: a system call's number, or -1 */
} box = {.mode = MACHINE_SANDBOX_OFF, .last_call = -1};

/* ---- one step each: 0, or -errno with the reason in @why
 * -------------------------------------------------------------------------------------- */

struct step {
	enum sandbox_part part;
	int (*take)(const struct sandbox_config *config, char *why);
};

#define WHY_SIZE sizeof(box.why[0])

static int failed(char *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* errno, told after the words. */
static int failed(char *why, const char *fmt, ...)
{
	int e = errno;
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(why, WHY_SIZE, fmt, ap);
	va_end(ap);
	if (len >= 0 && (size_t)len < WHY_SIZE)
		snprintf(why + len, WHY_SIZE - (size_t)len, ": %s", strerror(e));
	return e ? -e : -EINVAL;
}

static int left_out(char *why, const char *text)
{
	snprintf(why, WHY_SIZE, "%s", text);
	return -EOPNOTSUPP;
}

static int no_new_privs(const struct sandbox_config *config, char *why)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? failed(why, "no_new_privs") : 0;
}

static int write_file(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd_write_full(fd, text, strlen(text));
}

static int map_id(const char *path, unsigned id)
{
	char text[64];

	snprintf(text, sizeof(text), "%u %u 1", id, id);
	return write_file(path, text);
}

/* Who is not root becomes nobody special in a namespace where only its own id exists. */
static int user_namespace(const struct sandbox_config *config, char *why)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int ret;

	if (uid == 0)
		return 0; /* own_uid() does it */
	if (unshare(CLONE_NEWUSER))
		return failed(why, "user namespace");
	ret = map_id("/proc/self/uid_map", uid);
	if (!ret)
		ret = write_file("/proc/self/setgroups", "deny");
	if (!ret)
		ret = map_id("/proc/self/gid_map", gid);
	errno = -ret;
	return ret ? failed(why, "the user namespace's map of ids") : 0;
}

/*
 * An empty file system in place of all others. Any folder does to mount it on, since nobody else
 * sees that; pivot_root() from a folder to itself puts the old root on top of the new one
 * (pivot_root(2), notes), where it is taken off.
 */
static int empty_root(char *why)
{
	static const char *const places[] = {"/tmp", "/var", "/usr", "/etc", "/"};
	struct stat st;
	size_t k = 0;

	if (unshare(CLONE_NEWNS))
		return failed(why, "mount namespace");
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return failed(why, "private mounts");
	while (k + 1 < ARRAY_SIZE(places) && (stat(places[k], &st) || !S_ISDIR(st.st_mode)))
		k++;
	if (mount("tmpfs", places[k], "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "size=4k,nr_inodes=2,mode=0"))
		return failed(why, "tmpfs on %s", places[k]);
	if (chdir(places[k]) || syscall(SYS_pivot_root, ".", "."))
		return failed(why, "pivot_root");
	if (umount2(".", MNT_DETACH) || chdir("/"))
		return failed(why, "the old root");
	if (mount(NULL, "/", NULL,
		  MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		return failed(why, "read-only root");
	return 0;
}

/* Where no mount namespace is to be had: a folder that is deleted while we are in it. */
static int deleted_root(void)
{
	char path[] = "/tmp/umbra-vm-XXXXXX";
	_cleanup_close_ int tmp = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (tmp < 0 || !mkdtemp(path))
		return -errno;
	if (chroot(path) || chdir("/")) {
		int e = errno;

		rmdir(path);
		return -e;
	}
	return unlinkat(tmp, path + strlen("/tmp/"), AT_REMOVEDIR) ? -errno : 0;
}

static int mounts(const struct sandbox_config *config, char *why)
{
	int ret;

	if (SANDBOX_SANITIZED)
		return left_out(why, "a sanitizer's build reads /proc");
	ret = empty_root(why);
	if (ret && !deleted_root()) {
		size_t len = strlen(why);

		snprintf(why + len, WHY_SIZE - len, "; in an empty folder (chroot) instead");
	}
	return ret;
}

static int network(const struct sandbox_config *config, char *why)
{
	return unshare(CLONE_NEWNET) ? failed(why, "network namespace") : 0;
}

static int ipc(const struct sandbox_config *config, char *why)
{
	return unshare(CLONE_NEWIPC | CLONE_NEWUTS) ? failed(why, "IPC and UTS namespaces") : 0;
}

static int set_limit(int what, rlim_t max)
{
	struct rlimit r;

	if (getrlimit((__rlimit_resource_t)what, &r))
		return -1;
	r.rlim_max = MIN(r.rlim_max, max);
	r.rlim_cur = MIN(r.rlim_cur, r.rlim_max);
	return setrlimit((__rlimit_resource_t)what, &r);
}

/* The bound on processes comes with the loop's filter, when all threads are there. */
static int rlimits(const struct sandbox_config *config, char *why)
{
	signal(SIGXFSZ, SIG_IGN); /* EFBIG instead */
	if (!config->core && set_limit(RLIMIT_CORE, 0))
		return failed(why, "RLIMIT_CORE");
	if (config->file_bytes && set_limit(RLIMIT_FSIZE, config->file_bytes))
		return failed(why, "RLIMIT_FSIZE");
	if (set_limit(RLIMIT_NOFILE, FILES_MAX))
		return failed(why, "RLIMIT_NOFILE");
	if (set_limit(RLIMIT_MEMLOCK, 0) || set_limit(RLIMIT_MSGQUEUE, 0))
		return failed(why, "RLIMIT_MEMLOCK");
	if (set_limit(RLIMIT_RTPRIO, 0) || set_limit(RLIMIT_NICE, 0))
		return failed(why, "RLIMIT_RTPRIO");
	return 0;
}

/* While we still may: what is left out of the bounding set no program can ever regain. */
static int bounding_set(const struct sandbox_config *config, char *why)
{
	for (int cap = 0; cap < 64; cap++) {
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
			continue;
		if (errno == EINVAL)
			return 0; /* behind the last */
		return failed(why, "the bounding set");
	}
	return 0;
}

static int become(uid_t uid, gid_t gid)
{
	return setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid) ? -errno
											  : 0;
}

static int own_uid(const struct sandbox_config *config, char *why)
{
	unsigned own = OWN_UID_BASE + (unsigned)getpid();
	bool given = config->uid != (uid_t)-1;
	int ret;

	if (geteuid() != 0)
		return 0; /* user_namespace() did it */
	ret = become(given ? config->uid : own, given ? config->gid : own);
	if (!ret)
		return 0;
	errno = -ret;
	failed(why, "uid %u", given ? config->uid : own);
	/* In a container whose map has few ids. Shared with others, but better than root. */
	if (!become(NOBODY, NOBODY)) {
		size_t len = strlen(why);

		snprintf(why + len, WHY_SIZE - len, "; nobody's instead");
	}
	return ret;
}

static int capabilities(const struct sandbox_config *config, char *why)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		return failed(why, "the ambient set");
	return syscall(SYS_capset, &head, none) ? failed(why, "capset") : 0;
}

/*
 * Landlock (the kernel's userspace-api/landlock): what is handled and allowed by no rule is denied.
 * The rights to truncate and to ioctl a device are a descriptor's from its opening on: /dev/kvm,
 * which is open by now, keeps them. The header may be older than the kernel, so the numbers stand
 * here.
 */
#define LANDLOCK_VERSION      1u
#define LANDLOCK_FS_ABI1      BITS(12, 0)
#define LANDLOCK_FS_REFER     BIT(13)	 /* ABI 2 */
#define LANDLOCK_FS_TRUNCATE  BIT(14)	 /* ABI 3 */
#define LANDLOCK_NET_TCP      BITS(1, 0) /* ABI 4: bind, connect */
#define LANDLOCK_FS_IOCTL_DEV BIT(15)	 /* ABI 5 */
#define LANDLOCK_SCOPE_ALL    BITS(1, 0) /* ABI 6: abstract sockets, signals */

struct landlock_rules {
	uint64_t fs, net, scoped;
};

static int landlock(const struct sandbox_config *config, char *why)
{
	struct landlock_rules rules = {.fs = LANDLOCK_FS_ABI1};
	_cleanup_close_ int fd = -1;
	long abi;

	if (SANDBOX_SANITIZED)
		return left_out(why, "a sanitizer's build reads /proc");
	abi = syscall(__NR_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION);
	if (abi < 1)
		return failed(why, "Landlock");
	if (abi >= 2)
		rules.fs |= LANDLOCK_FS_REFER;
	if (abi >= 3)
		rules.fs |= LANDLOCK_FS_TRUNCATE;
	if (abi >= 4)
		rules.net = LANDLOCK_NET_TCP;
	if (abi >= 5)
		rules.fs |= LANDLOCK_FS_IOCTL_DEV;
	if (abi >= 6)
		rules.scoped = LANDLOCK_SCOPE_ALL;
	/* A kernel that knows less takes the longer struct while the rest is zero. */
	fd = (int)syscall(__NR_landlock_create_ruleset, &rules, sizeof(rules), 0);
	if (fd < 0 || syscall(__NR_landlock_restrict_self, fd, 0))
		return failed(why, "Landlock");
	box.landlock_abi = (int)abi;
	return 0;
}

static int dumpable(const struct sandbox_config *config, char *why)
{
	if (SANDBOX_SANITIZED)
		return left_out(why, "a sanitizer's build traces itself for leaks");
	/* Becoming another user has cleared it. */
	if (config->core)
		return prctl(PR_SET_DUMPABLE, 1) ? failed(why, "dumpable")
						 : left_out(why, "a core file is asked for");
	return prctl(PR_SET_DUMPABLE, 0) ? failed(why, "dumpable") : 0;
}

/*
 * A call that the filter does not know: it fails with EPERM, is counted and told. Only with mode
 * "auto", where a library that nobody has tested with may make another call, and the machine is
 * worth more than the suspicion: the call is not made in any case. With "strict" the kernel kills.
 */
static void on_refused(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	int e = errno;

	if (__atomic_fetch_add(&box.violations, 1, __ATOMIC_RELAXED) < 10) {
		char line[80];
		int len = snprintf(line, sizeof(line),
				   "umbra-vm: the sandbox refused system call %d\n",
				   info->si_syscall);

		if (len > 0 && write(STDERR_FILENO, line, (size_t)len) < 0)
			len = 0;
	}
	__atomic_store_n(&box.last_call, info->si_syscall, __ATOMIC_RELAXED);
	u->uc_mcontext.gregs[REG_RAX] = -EPERM;
	errno = e;
}

static int filters(const struct sandbox_config *config, char *why)
{
	struct sigaction action = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_RESTART};
	int ret = sandbox_filter_build(config->mode == MACHINE_SANDBOX_STRICT, config->kvm);

	if (!ret && sigaction(SIGSYS, &action, NULL))
		ret = -errno;
	/* Is it there at all? The program is looked at only after the arguments. */
	if (!ret && syscall(__NR_seccomp, 2 /* SECCOMP_GET_ACTION_AVAIL */, 0,
			    &(uint32_t){SCMP_ACT_KILL_PROCESS}))
		ret = -errno;
	errno = -ret;
	return ret ? failed(why, "seccomp") : 0;
}

/* ---- all of it
 * -------------------------------------------------------------------------------------- */

/* In this order: mounting needs what is given up later; Landlock forbids to mount; who cannot be
 * dumped cannot write its map of ids. */
static const struct step steps[] = {
	{SANDBOX_NO_NEW_PRIVS, no_new_privs},
	{SANDBOX_USER, user_namespace},
	{SANDBOX_MOUNTS, mounts},
	{SANDBOX_NETWORK, network},
	{SANDBOX_IPC, ipc},
	{SANDBOX_RLIMITS, rlimits},
	{SANDBOX_CAPABILITIES, bounding_set},
	{SANDBOX_USER, own_uid},
	{SANDBOX_CAPABILITIES, capabilities},
	{SANDBOX_LANDLOCK, landlock},
	{SANDBOX_DUMPABLE, dumpable},
	{SANDBOX_SECCOMP, filters},
};

int sandbox_enter(const struct sandbox_config *config, struct api_error *err)
{
	box.mode = config->mode;
	if (config->mode == MACHINE_SANDBOX_OFF)
		return 0;
	for (size_t k = 0; k < ARRAY_SIZE(steps); k++) {
		char *why = box.why[steps[k].part];
		int ret = steps[k].take(config, why);

		if (ret && config->mode == MACHINE_SANDBOX_STRICT)
			return api_error_set(err, API_KIND_NOT_SUPPORTED,
					     "sandbox \"strict\" needs \"%s\", which this host "
					     "does not give: %s",
					     sandbox_part_names[steps[k].part], why);
	}
	/* Where the uid is shared, so is the count, and no number above 0 is right. */
	box.tasks = !config->kvm ? 0 : *box.why[SANDBOX_USER] ? ~0u : config->tasks;
	box.uid = geteuid();
	box.entered = true;
	return 0;
}

int sandbox_thread(enum sandbox_class class)
{
	sigset_t set;

	if (!box.entered || *box.why[SANDBOX_SECCOMP])
		return 0;
	/* All threads are there. As root without a uid of its own it bounds nothing. */
	if (class == SANDBOX_LOOP && !SANDBOX_SANITIZED && box.tasks != ~0u &&
	    set_limit(RLIMIT_NPROC, box.tasks))
		return -errno;
	/* A blocked SIGSYS would kill. */
	sigemptyset(&set);
	sigaddset(&set, SIGSYS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	return sandbox_filter_install(class);
}

/* ---- telling
 * -------------------------------------------------------------------------------------- */

uint64_t sandbox_violations(void)
{
	return __atomic_load_n(&box.violations, __ATOMIC_RELAXED);
}

bool sandbox_missing(char *text, size_t size)
{
	size_t len = 0;

	if (!box.entered)
		return false;
	*text = '\0';
	for (unsigned k = 0; k < SANDBOX_PARTS && len < size; k++)
		if (*box.why[k])
			len += (size_t)snprintf(text + len, size - len, "%s%s (%s)",
						len ? ", " : "", sandbox_part_names[k], box.why[k]);
	return len > 0;
}

static void add(struct json_object *o, const char *name, struct json_object *value)
{
	json_object_object_add(o, name, value);
}

static void add_violations(struct json_object *o)
{
	int call = __atomic_load_n(&box.last_call, __ATOMIC_RELAXED);
	char *name = call < 0 ? NULL : seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, call);

	add(o, "violations", json_object_new_int64((int64_t)sandbox_violations()));
	if (name)
		add(o, "last_violation", json_object_new_string(name));
	free(name);
}

struct json_object *sandbox_to_json(void)
{
	struct json_object *o = json_object_new_object();
	struct json_object *parts = json_object_new_array(), *missing = json_object_new_array();

	add(o, "mode", json_object_new_string(machine_sandbox_names[box.mode]));
	for (unsigned k = 0; box.entered && k < SANDBOX_PARTS; k++) {
		struct json_object *one;

		if (!*box.why[k]) {
			json_object_array_add(parts, json_object_new_string(sandbox_part_names[k]));
			continue;
		}
		one = json_object_new_object();
		add(one, "part", json_object_new_string(sandbox_part_names[k]));
		add(one, "why", json_object_new_string(box.why[k]));
		json_object_array_add(missing, one);
	}
	if (box.entered)
		add(o, "uid", json_object_new_int64(box.uid));
	if (box.landlock_abi)
		add(o, "landlock_abi", json_object_new_int(box.landlock_abi));
	add(o, "parts", parts);
	add(o, "missing", missing);
	add_violations(o);
	return o;
}
