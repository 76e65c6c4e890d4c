/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A control group for a umbra-vm that no systemd looks after: in both of the kernel's layouts. */
#include "daemon/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define CPU_PERIOD_US 100000

/* A hierarchy that we look for, and the limits that it can keep. */
enum { HAS_MEMORY = 1, HAS_CPU = 2, HAS_IO = 4, HAS_PIDS = 8, HAS_ALL = 15 };

static const struct hierarchy {
	const char *controller; /* as in /proc/self/cgroup; "": version 2 */
	const char *mount;	/* where every distribution has it; the first that is there */
	const char *mount2;
	unsigned has;
} hierarchies[CGROUP_JOINS_MAX] = {
	{"", "/sys/fs/cgroup", "/sys/fs/cgroup/unified", 0},
	{"memory", "/sys/fs/cgroup/memory", NULL, HAS_MEMORY},
	{"cpu", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct", HAS_CPU},
	{"pids", "/sys/fs/cgroup/pids", NULL, HAS_PIDS},
	{"blkio", "/sys/fs/cgroup/blkio", NULL, HAS_IO},
};

struct cgroup {
	size_t n;
	struct folder {
		char path[512];
		unsigned which; /* in hierarchies[] */
		int join;	/* its cgroup.procs; or -1 */
	} folders[CGROUP_JOINS_MAX];
	unsigned wanted, kept; /* limits, and those that a group of ours keeps */
	char missing[512];
};

static void __attribute__((format(printf, 2, 3))) miss(struct cgroup *cg, const char *fmt, ...)
{
	size_t len = strlen(cg->missing);
	va_list ap;

	va_start(ap, fmt);
	if (len && len < sizeof(cg->missing) - 3) {
		strcat(cg->missing, "; ");
		len += 2;
	}
	vsnprintf(cg->missing + len, sizeof(cg->missing) - len, fmt, ap);
	va_end(ap);
}

/* Our own group in the hierarchy of @controller, from /proc/self/cgroup. */
static int own_group(const char *controller, char *out, size_t size)
{
	_cleanup_(buf_finish) struct buf b = {0};
	char *line, *save = NULL;

	if (fd_read_file(AT_FDCWD, "/proc/self/cgroup", KIB(64), &b) || !b.data)
		return -ENOENT;
	for (line = strtok_r(b.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
		size_t len = strlen(controller);

		if (!path)
			continue;
		*path++ = 0;
		/* "cpu,cpuacct" has "cpu"; "" is alone. */
		for (const char *p = list + 1;; p = strchr(p, ',') + 1) {
			if (strcspn(p, ",") == len && !strncmp(p, controller, len)) {
				snprintf(out, size, "%s", strcmp(path, "/") ? path : "");
				return 0;
			}
			if (!strchr(p, ','))
				break;
		}
	}
	return -ENOENT;
}

static int write_to(const char *folder, const char *file, const char *text)
{
	char path[PATH_MAX];
	_cleanup_close_ int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fd_write_full(fd, text, strlen(text));
}

/* The controllers of version 2 that the parent hands down, after we have asked it to. */
static unsigned v2_controllers(const char *parent, unsigned wanted)
{
	static const struct {
		unsigned has;
		const char *name, *enable;
	} all[] = {
		{HAS_MEMORY, "memory", "+memory"},
		{HAS_CPU, "cpu", "+cpu"},
		{HAS_IO, "io", "+io"},
		{HAS_PIDS, "pids", "+pids"},
	};
	unsigned got = 0;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (wanted & all[i].has &&
		    !write_to(parent, "cgroup.subtree_control", all[i].enable))
			got |= all[i].has;
	return got;
}

static bool is_v2(const char *mount)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/cgroup.controllers", mount);
	return access(path, F_OK) == 0;
}

/* The folder @name in hierarchy @which, should it be there. */
static void plan_folder(struct cgroup *cg, unsigned which, const char *name)
{
	const struct hierarchy *h = &hierarchies[which];
	struct folder *f = &cg->folders[cg->n];
	const char *mount = access(h->mount, F_OK) ? h->mount2 : h->mount;
	char own[256];

	if (!which && !is_v2(h->mount))
		mount = h->mount2;
	if (!mount || access(mount, F_OK) || own_group(h->controller, own, sizeof(own)))
		return;
	if ((size_t)snprintf(f->path, sizeof(f->path), "%s%s/%s", mount, own, name) >=
	    sizeof(f->path))
		return;
	f->which = which;
	f->join = -1;
	cg->n++;
}

static int make_folder(struct cgroup *cg, struct folder *f)
{
	char path[PATH_MAX];

	/* One of that name is left from a crash: nothing of ours runs in it. */
	if (mkdir(f->path, 0755) < 0 && errno != EEXIST)
		return -errno;
	snprintf(path, sizeof(path), "%s/cgroup.procs", f->path);
	f->join = open(path, O_WRONLY | O_CLOEXEC);
	if (f->which) {
		cg->kept |= hierarchies[f->which].has;
	} else {
		snprintf(path, sizeof(path), "%.*s", (int)(strrchr(f->path, '/') - f->path),
			 f->path);
		cg->kept |= v2_controllers(path, cg->wanted);
	}
	return 0;
}

/* Set one limit in the first hierarchy that takes it. */
static void limit(struct cgroup *cg, const char *what, const char *const files[2],
		  const char *const texts[2])
{
	for (size_t i = 0; i < cg->n; i++) {
		int v = cg->folders[i].which ? 1 : 0;

		if (files[v] && !write_to(cg->folders[i].path, files[v], texts[v]))
			return;
	}
	miss(cg, "no control group of ours bounds its %s", what);
}

static void set_limits(struct cgroup *cg, const struct machine_def *def)
{
	char a[64], b[64];
	const char *const texts[2] = {a, b};

	if (def->limit_memory) {
		snprintf(a, sizeof(a), "%llu", (unsigned long long)def->limit_memory);
		snprintf(b, sizeof(b), "%s", a);
		limit(cg, "memory", (const char *const[]){"memory.max", "memory.limit_in_bytes"},
		      texts);
	}
	if (def->limit_cpus > 0) {
		long us = (long)(def->limit_cpus * CPU_PERIOD_US);

		snprintf(a, sizeof(a), "%ld %d", MAX(us, 1000L), CPU_PERIOD_US);
		snprintf(b, sizeof(b), "%ld", MAX(us, 1000L));
		limit(cg, "processor time", (const char *const[]){"cpu.max", "cpu.cfs_quota_us"},
		      texts);
	}
	if (def->limit_io) {
		snprintf(a, sizeof(a), "default %lld", (long long)def->limit_io);
		/* Version 1 knows 10 to 1000. */
		snprintf(b, sizeof(b), "%lld", (long long)MIN(MAX(def->limit_io, 10), 1000));
		limit(cg, "disk's share", (const char *const[]){"io.weight", "blkio.bfq.weight"},
		      texts);
	}
	if (def->limit_pids) {
		snprintf(a, sizeof(a), "%lld", (long long)def->limit_pids);
		snprintf(b, sizeof(b), "%s", a);
		limit(cg, "threads", (const char *const[]){"pids.max", "pids.max"}, texts);
	}
}

struct cgroup *cgroup_create(const char *name, const struct machine_def *def)
{
	struct cgroup *cg = calloc(1, sizeof(*cg));

	if (!cg)
		return NULL;
	cg->wanted |= def->limit_memory ? HAS_MEMORY : 0;
	cg->wanted |= def->limit_cpus > 0 ? HAS_CPU : 0;
	cg->wanted |= def->limit_io ? HAS_IO : 0;
	cg->wanted |= def->limit_pids ? HAS_PIDS : 0;
	/* The group of version 2 is there in any case, to kill by; another only for a limit. */
	for (unsigned i = 0; i < CGROUP_JOINS_MAX; i++)
		if (!i || cg->wanted & hierarchies[i].has)
			plan_folder(cg, i, name);
	return cg;
}

void cgroup_make(struct cgroup *cg, const struct machine_def *def)
{
	size_t n = 0;

	/* Version 2 comes first: what it keeps needs no other. */
	for (size_t i = 0; i < cg->n; i++) {
		struct folder *f = &cg->folders[i];

		if (f->which && !(cg->wanted & hierarchies[f->which].has & ~cg->kept))
			continue;
		if (!make_folder(cg, f))
			cg->folders[n++] = *f;
	}
	cg->n = n;
	if (!n)
		miss(cg, "no control group of its own");
	set_limits(cg, def);
}

struct json_object *cgroup_to_json(const struct cgroup *cg)
{
	struct json_object *all = json_object_new_array();

	for (size_t i = 0; i < cg->n; i++)
		json_object_array_add(all, json_object_new_string(cg->folders[i].path));
	return all;
}

struct cgroup *cgroup_from_json(struct json_object *obj)
{
	struct cgroup *cg;

	if (!json_object_is_type(obj, json_type_array) || !json_object_array_length(obj))
		return NULL;
	cg = calloc(1, sizeof(*cg));
	for (size_t i = 0; cg && i < json_object_array_length(obj) && i < CGROUP_JOINS_MAX; i++) {
		const char *path = json_object_get_string(json_object_array_get_idx(obj, i));
		struct folder *f = &cg->folders[cg->n];

		if (!path || strncmp(path, "/sys/fs/cgroup/", 15) ||
		    strlen(path) >= sizeof(f->path))
			continue;
		strcpy(f->path, path);
		f->join = -1;
		cg->n++;
	}
	return cg;
}

const char *cgroup_missing(const struct cgroup *cg)
{
	return cg->missing;
}

size_t cgroup_joins(const struct cgroup *cg, int fds[CGROUP_JOINS_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < cg->n; i++)
		if (cg->folders[i].join >= 0)
			fds[n++] = cg->folders[i].join;
	return n;
}

static void kill_listed(const char *folder)
{
	_cleanup_(buf_finish) struct buf b = {0};
	char path[PATH_MAX], *save = NULL;

	snprintf(path, sizeof(path), "%s/cgroup.procs", folder);
	if (fd_read_file(AT_FDCWD, path, MIB(1), &b) || !b.data)
		return;
	for (char *p = strtok_r(b.data, "\n", &save); p; p = strtok_r(NULL, "\n", &save)) {
		int pid = atoi(p);

		if (pid > 1 && pid != getpid())
			kill(pid, SIGKILL);
	}
}

void cgroup_kill(const struct cgroup *cg)
{
	for (size_t i = 0; i < cg->n; i++)
		if (write_to(cg->folders[i].path, "cgroup.kill", "1"))
			kill_listed(cg->folders[i].path);
}

/* A process that was killed a moment ago may still be in it. */
static void remove_folder(const struct cgroup *cg, const char *path)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	for (int i = 0; rmdir(path) < 0 && errno == EBUSY && i < 100; i++) {
		cgroup_kill(cg);
		nanosleep(&moment, NULL);
	}
}

void cgroup_destroy(struct cgroup *cg)
{
	if (!cg)
		return;
	for (size_t i = 0; i < cg->n; i++)
		remove_folder(cg, cg->folders[i].path);
	cgroup_forget(cg);
}

void cgroup_forget(struct cgroup *cg)
{
	if (!cg)
		return;
	for (size_t i = 0; i < cg->n; i++)
		cleanup_close(&cg->folders[i].join);
	free(cg);
}
