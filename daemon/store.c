/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbrad keeps on disk. */
#include "daemon/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fd.h"
#include "base/log.h"
#include "daemon/cgroup.h"
#include "daemon/machine_internal.h"
#include "daemon/unit.h"

#define FILE_MAX    MIB(4)
#define VM_LOG_MAX  MIB(1)
#define VM_LOG_KEEP KIB(512)

void store_name(char out[128], const char *name, const char *suffix)
{
	snprintf(out, 128, "%s%s", name, suffix);
}

static int open_folder(const char *path, const char *sub, unsigned mode, int *fd,
		       struct api_error *err)
{
	_cleanup_free_ char *full = NULL;
	int ret;

	if (asprintf(&full, "%s%s%s", path, *sub ? "/" : "", sub) < 0) {
		full = NULL;
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	}
	ret = api_make_folder(full, mode, err);
	if (ret)
		return ret;
	*fd = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd < 0)
		return api_error_set(err, API_KIND_IO, "cannot open %.200s: %s", full,
				     strerror(errno));
	return 0;
}

int store_open(struct umbrad *d, struct api_error *err)
{
	int ret = open_folder(d->paths.runtime, "", d->paths.system ? 0755 : 0700, &d->run_fd, err);

	if (!ret)
		ret = open_folder(d->paths.runtime, "vm", 0700, &d->vm_fd, err);
	if (!ret)
		ret = open_folder(d->paths.state, "machines", 0700, &d->store_fd, err);
	if (!ret)
		ret = open_folder(d->paths.state, "logs", 0700, &d->logs_fd, err);
	return ret;
}

void store_close(struct umbrad *d)
{
	cleanup_close(&d->run_fd);
	cleanup_close(&d->vm_fd);
	cleanup_close(&d->store_fd);
	cleanup_close(&d->logs_fd);
}

/* Takes @obj. */
static int save_json(int dirfd, const char *name, const char *suffix, struct json_object *obj)
{
	char file[128];
	const char *text;
	size_t len;
	int ret = -ENOMEM;

	store_name(file, name, suffix);
	text = obj ? json_object_to_json_string_length(obj, JSON_C_TO_STRING_PRETTY, &len) : NULL;
	if (text)
		ret = fd_write_file_atomic(dirfd, file, text, len, 0600);
	json_object_put(obj);
	return ret;
}

static struct json_object *load_json(int dirfd, const char *name, const char *suffix)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct json_object *obj;
	char file[128];

	store_name(file, name, suffix);
	if (fd_read_file(dirfd, file, FILE_MAX, &b) || !b.data)
		return NULL;
	obj = json_tokener_parse(b.data);
	if (json_object_is_type(obj, json_type_object))
		return obj;
	json_object_put(obj);
	return NULL;
}

int store_save_definition(const struct machine *m)
{
	struct json_object *obj = json_object_new_object();
	int ret;

	json_object_object_add(obj, "definition", machine_def_to_json(&m->def));
	json_object_object_add(obj, "transient", json_object_new_boolean(m->transient));
	if (m->owner)
		json_object_object_add(obj, "owner", json_object_new_string(m->owner));
	fault_point(FAULT_DEFINITION);
	ret = save_json(m->d->store_fd, m->def.name, ".json", obj);
	fault_point(FAULT_DEFINITION_DONE);
	return ret;
}

int store_save_exit(const struct machine *m)
{
	int ret;

	fault_point(FAULT_EXIT);
	ret = save_json(m->d->store_fd, m->def.name, ".exit", vm_report_to_json(&m->exit));
	fault_point(FAULT_EXIT_DONE);
	return ret;
}

/* The record's members, as enum machine_intent and struct machine have them. */
struct record {
	int64_t pid;
	double started;
	char *unit;
	int intent;
	double force_at;
	bool automatic;
	int64_t restarts;
	double restart_delay, restart_at;
	struct json_object *cgroups;
};

static const char *const intent_names[] = {"keep", "stop", "forget", NULL};

#define AT(member) .offset = offsetof(struct record, member)
#define TIME_MAX   INT64_C(9007199254740992)

static const struct api_field record_rows[] = {
	{.name = "pid", .type = API_INT, .max = INT32_MAX, AT(pid)},
	{.name = "started", .type = API_NUMBER, .max = TIME_MAX, AT(started)},
	{.name = "unit", .type = API_STRING, .max = 127, AT(unit)},
	{.name = "intent", .type = API_ENUM, .choices = intent_names, AT(intent)},
	{.name = "force_at", .type = API_NUMBER, .max = TIME_MAX, AT(force_at)},
	{.name = "automatic", .type = API_BOOL, AT(automatic)},
	{.name = "restarts", .type = API_INT, .max = INT32_MAX, AT(restarts)},
	{.name = "restart_delay", .type = API_NUMBER, .max = TIME_MAX, AT(restart_delay)},
	{.name = "restart_at", .type = API_NUMBER, .max = TIME_MAX, AT(restart_at)},
	{.name = "cgroups", .type = API_ANY, AT(cgroups)},
};

static const struct api_fields record_fields = API_FIELDS("the record of a run", record_rows);

int store_save_run(const struct machine *m)
{
	struct json_object *cgroups = m->cgroup ? cgroup_to_json(m->cgroup) : NULL;
	const struct record r = {
		.pid = m->pid,
		.started = m->started,
		.unit = m->unit,
		.intent = (int)m->intent,
		.force_at = m->force_at,
		.automatic = m->automatic,
		.restarts = m->restarts,
		.restart_delay = m->restart_delay,
		.restart_at = m->restart_at,
		.cgroups = cgroups,
	};
	struct json_object *obj = api_fields_save(&record_fields, &r);
	int ret;

	json_object_put(cgroups);
	fault_point(FAULT_RUN);
	ret = save_json(m->d->vm_fd, m->def.name, ".json", obj);
	fault_point(FAULT_RUN_DONE);
	return ret;
}

void store_load_run(struct machine *m)
{
	struct json_object *obj = load_json(m->d->vm_fd, m->def.name, ".json");
	struct record r = {0};

	m->started = machine_now();
	if (obj && (api_fields_check(&record_fields, obj, "", NULL) ||
		    api_fields_load(&record_fields, obj, &r))) {
		log_warn("the record of the run of \"%s\" cannot be read", m->def.name);
	} else if (obj) {
		m->pid = (pid_t)r.pid;
		m->started = r.started;
		m->unit = TAKE_PTR(r.unit);
		m->intent = (enum machine_intent)r.intent;
		m->force_at = r.force_at;
		m->automatic = r.automatic;
		m->restarts = (unsigned)r.restarts;
		m->restart_delay = r.restart_delay;
		m->restart_at = r.restart_at;
		m->cgroup = cgroup_from_json(r.cgroups);
	}
	api_fields_free(&record_fields, &r);
	json_object_put(obj);
}

static bool has(int dirfd, const char *name, const char *suffix)
{
	char file[128];

	store_name(file, name, suffix);
	return faccessat(dirfd, file, F_OK, 0) == 0;
}

double store_defined(const struct machine *m)
{
	struct stat st;
	char file[128];

	store_name(file, m->def.name, ".json");
	if (fstatat(m->d->store_fd, file, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9;
}

bool store_has_run(const struct machine *m)
{
	return has(m->d->vm_fd, m->def.name, ".json") || has(m->d->vm_fd, m->def.name, ".sock") ||
	       has(m->d->vm_fd, m->def.name, ".report");
}

bool store_has_report(const struct machine *m)
{
	struct vm_report report;

	if (store_read_report(m, &report))
		return false;
	vm_report_finish(&report);
	return true;
}

int store_read_report(const struct machine *m, struct vm_report *report)
{
	struct json_object *obj = load_json(m->d->vm_fd, m->def.name, ".report");
	int ret = obj ? vm_report_from_json(report, obj) : -ENOENT;

	json_object_put(obj);
	if (!ret && report->state != VM_ENDED) {
		vm_report_finish(report);
		ret = -EINVAL;
	}
	return ret;
}

static void remove_all(int dirfd, const char *name, const char *const *suffixes)
{
	char file[128];

	for (; *suffixes; suffixes++) {
		store_name(file, name, *suffixes);
		unlinkat(dirfd, file, 0);
	}
}

void store_remove_run(const struct machine *m, bool keep_record)
{
	/* The record last: what is left without it could not be told from a start cut short. */
	static const char *const run[] = {".sock", ".report", NULL};
	static const char *const record[] = {".json", NULL};

	fault_point(FAULT_FORGET_RUN);
	remove_all(m->d->vm_fd, m->def.name, run);
	if (!keep_record) {
		fault_point(FAULT_FORGET_RUN_DONE);
		remove_all(m->d->vm_fd, m->def.name, record);
	}
	fault_point(FAULT_FORGET_RUN_DONE);
}

void store_remove(const struct machine *m)
{
	static const char *const definition[] = {".json", NULL};
	static const char *const exit[] = {".exit", NULL};
	static const char *const logs[] = {".console.log", ".vm.log", NULL};

	fault_point(FAULT_FORGET);
	remove_all(m->d->store_fd, m->def.name, definition);
	fsync(m->d->store_fd);
	fault_point(FAULT_FORGET_DONE);
	remove_all(m->d->store_fd, m->def.name, exit);
	remove_all(m->d->logs_fd, m->def.name, logs);
	fault_point(FAULT_FORGET_DONE);
}

int store_open_log(const struct machine *m, bool vm, int flags)
{
	char file[128];
	int fd;

	store_name(file, m->def.name, vm ? ".vm.log" : ".console.log");
	fd = openat(m->d->logs_fd, file, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

/*
 * umbra-vm appends to its log by itself and cannot cut it. A line written between our read and our
 * truncation is lost: a price for a bound.
 */
static void trim_log(const struct machine *m)
{
	_cleanup_close_ int fd = store_open_log(m, true, O_RDWR | O_APPEND);
	_cleanup_free_ char *tail = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_size <= VM_LOG_MAX)
		return;
	tail = malloc(VM_LOG_KEEP);
	n = tail ? pread(fd, tail, VM_LOG_KEEP, st.st_size - (off_t)VM_LOG_KEEP) : -1;
	if (ftruncate(fd, 0) == 0 && n > 0)
		fd_write_full(fd, tail, (size_t)n);
}

void store_trim_logs(struct umbrad *d)
{
	struct machine *m;

	list_for_each_entry (m, &d->machines, link)
		if (m->pid)
			trim_log(m);
}

static void load_exit(struct machine *m)
{
	struct json_object *obj = load_json(m->d->store_fd, m->def.name, ".exit");

	if (obj && vm_report_from_json(&m->exit, obj) == 0)
		m->has_exit = true;
	json_object_put(obj);
}

static void load_one(struct umbrad *d, const char *name)
{
	struct json_object *obj = load_json(d->store_fd, name, ".json"), *def = NULL, *v = NULL;
	struct machine_new what = {.stored = true};
	struct api_error err = {0};
	struct machine *m;

	if (obj) {
		json_object_object_get_ex(obj, "definition", &def);
		if (json_object_object_get_ex(obj, "transient", &v))
			what.transient = json_object_get_boolean(v);
		if (json_object_object_get_ex(obj, "owner", &v))
			what.owner = json_object_get_string(v);
	}
	if (!def) {
		log_warn("the definition of \"%s\" cannot be read: left alone", name);
	} else if (machine_def_parse(&what.def, def, name, "definition", &err) ||
		   machine_create(&m, d, &what, &err)) {
		log_warn("the definition of \"%s\" is not accepted: %s", name, err.text);
	} else {
		load_exit(m);
		machine_adopt(m);
	}
	json_object_put(obj);
}

/*
 * What is left of a machine whose definition is gone: a delete was cut short, or somebody removed
 * the file. It is finished.
 */
static void end_stray(struct umbrad *d, const char *name)
{
	static const char *const suffixes[] = {".sock", ".report", ".json", NULL};
	struct json_object *record = load_json(d->vm_fd, name, ".json"), *v;
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	struct cgroup *cg = NULL;
	char file[128];
	int fd;

	store_name(file, name, ".sock");
	fd = api_unix_connect(d->vm_fd, file);
	/* The peer may be the dead umbrad, whose number somebody else may have by now. */
	if (fd >= 0 && !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) && cred.pid > 1 &&
	    json_object_object_get_ex(record, "pid", &v) && json_object_get_int(v) == cred.pid) {
		log_warn("umbra-vm %d of the deleted machine \"%s\" is ended", cred.pid, name);
		kill(cred.pid, SIGKILL);
	}
	cleanup_close(&fd);
	if (json_object_object_get_ex(record, "unit", &v) && d->units)
		unit_kill(d->units, json_object_get_string(v));
	if (json_object_object_get_ex(record, "cgroups", &v))
		cg = cgroup_from_json(v);
	cgroup_destroy(cg);
	json_object_put(record);
	remove_all(d->vm_fd, name, suffixes);
}

/* Call @fn with each NAME of a file NAME@suffix. */
static int for_each_name(struct umbrad *d, int dirfd, const char *suffix,
			 void (*fn)(struct umbrad *d, const char *name))
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	if (!dir) {
		cleanup_close(&fd);
		return -errno;
	}
	while ((e = readdir(dir))) {
		size_t len = strlen(e->d_name), slen = strlen(suffix);
		char name[128];

		if (len <= slen || len >= sizeof(name) || strcmp(e->d_name + len - slen, suffix))
			continue;
		memcpy(name, e->d_name, len - slen);
		name[len - slen] = 0;
		if (api_name_valid(name))
			fn(d, name);
	}
	closedir(dir);
	return 0;
}

static void check_stray(struct umbrad *d, const char *name)
{
	/* A definition that could not be read still owns its process. */
	if (!machine_find(d, name) && !has(d->store_fd, name, ".json"))
		end_stray(d, name);
}

/* The last end and the logs of a machine that was being deleted. */
static void check_remains(struct umbrad *d, const char *name)
{
	static const char *const exit[] = {".exit", NULL};
	static const char *const logs[] = {".console.log", ".vm.log", NULL};

	if (has(d->store_fd, name, ".json"))
		return;
	remove_all(d->store_fd, name, exit);
	remove_all(d->logs_fd, name, logs);
}

/* Half-written files of a umbrad that was killed. Nobody else writes here: we hold the lock. */
static void sweep(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *e;

	if (!dir) {
		cleanup_close(&fd);
		return;
	}
	while ((e = readdir(dir))) {
		size_t len = strlen(e->d_name);

		if (len > 4 && !strcmp(e->d_name + len - 4, ".tmp"))
			unlinkat(dirfd, e->d_name, 0);
	}
	closedir(dir);
}

int store_load(struct umbrad *d)
{
	static const char *const stray[] = {".sock", ".report", ".json"};
	int ret;

	sweep(d->store_fd);
	sweep(d->vm_fd);
	ret = for_each_name(d, d->store_fd, ".json", load_one);
	for (size_t i = 0; !ret && i < ARRAY_SIZE(stray); i++)
		ret = for_each_name(d, d->vm_fd, stray[i], check_stray);
	if (!ret)
		ret = for_each_name(d, d->store_fd, ".exit", check_remains);
	if (!ret)
		ret = for_each_name(d, d->logs_fd, ".vm.log", check_remains);
	return ret;
}
