/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbrad and umbra-vm say to each other: configuration, methods, reports. */
#include "api/vm_proto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "api/api.h"
#include "api/vm_handlers.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define CONFIG_MAX MIB(2)

const char *const vm_state_names[VM_STATE_COUNT + 1] = {
	[VM_CREATED] = "created",   [VM_RUNNING] = "running", [VM_PAUSED] = "paused",
	[VM_STOPPING] = "stopping", [VM_ENDED] = "ended",     [VM_STATE_COUNT] = NULL,
};

const char *const vm_reason_names[VM_REASON_COUNT + 1] = {
	[VM_REASON_NONE] = "none",
	[VM_REASON_POWEROFF] = "poweroff",
	[VM_REASON_RESET] = "reset",
	[VM_REASON_CRASH] = "crash",
	[VM_REASON_HALTED] = "halted",
	[VM_REASON_DEBUG_EXIT] = "debug-exit",
	[VM_REASON_TIMEOUT] = "timeout",
	[VM_REASON_STOPPED] = "stopped",
	[VM_REASON_BAD_IMAGE] = "bad-image",
	[VM_REASON_ENGINE] = "engine-error",
	[VM_REASON_COUNT] = NULL,
};

static const char *const end_reasons[] = {"stopped", "timeout", NULL};

static const struct api_field stop_params[] = {
	{.name = "force", .type = API_BOOL, .dflt = "false", .help = "end it at once"},
	{.name = "reason",
	 .type = API_ENUM,
	 .choices = end_reasons,
	 .dflt = "stopped",
	 .help = "what the report is to say"},
};

#define BARE(op)                                                                                   \
	.params = {.what = "the parameters"}, .result = {.what = "the result"},                    \
	.access = API_ADMIN, .since = "0.1", .handler = offsetof(struct vm_handlers, op)

static const struct api_method rows[] = {
	{.name = "vm.start", .summary = "Run the machine.", BARE(start)},
	{.name = "vm.stop",
	 .summary = "Press the power button, or end it.",
	 .params = API_FIELDS("the parameters", stop_params),
	 .result = {.what = "the result"},
	 .access = API_ADMIN,
	 .since = "0.1",
	 .handler = offsetof(struct vm_handlers, stop)},
	{.name = "vm.query", .summary = "Tell its state.", BARE(query)},
	{.name = "vm.attach_console",
	 .summary = "Attach a descriptor to its console.",
	 .flags = API_M_FD_IN,
	 BARE(attach_console)},
	{.name = "vm.ping", .summary = "Answer: its loop turns.", BARE(ping)},
	{.name = "vm.quit", .summary = "End the process.", BARE(quit)},
};

const struct api_table vm_methods = {
	.m = rows,
	.n = ARRAY_SIZE(rows),
	.more = &api_machine_methods,
};

void vm_report_finish(struct vm_report *report)
{
	json_object_put(report->detail);
	json_object_put(report->stats);
	report->detail = report->stats = NULL;
}

struct json_object *vm_report_to_json(const struct vm_report *r)
{
	struct json_object *obj = json_object_new_object();

	if (!obj)
		return NULL;
	json_object_object_add(obj, "state", json_object_new_string(vm_state_names[r->state]));
	if (r->state == VM_ENDED) {
		json_object_object_add(obj, "reason",
				       json_object_new_string(vm_reason_names[r->reason]));
		json_object_object_add(obj, "code", json_object_new_int(r->code));
		json_object_object_add(obj, "status", json_object_new_int(vm_report_status(r)));
	}
	if (r->message[0])
		json_object_object_add(obj, "message", json_object_new_string(r->message));
	if (r->engine[0])
		json_object_object_add(obj, "engine", json_object_new_string(r->engine));
	if (r->engine_why[0])
		json_object_object_add(obj, "engine_why", json_object_new_string(r->engine_why));
	if (r->detail)
		json_object_object_add(obj, "detail", json_object_get(r->detail));
	if (r->stats)
		json_object_object_add(obj, "stats", json_object_get(r->stats));
	return obj;
}

static int name_index(const char *const *names, struct json_object *obj, const char *field)
{
	struct json_object *v;

	if (!json_object_object_get_ex(obj, field, &v) || !json_object_is_type(v, json_type_string))
		return -1;
	for (int i = 0; names[i]; i++)
		if (!strcmp(names[i], json_object_get_string(v)))
			return i;
	return -1;
}

static struct json_object *object_in(struct json_object *obj, const char *field)
{
	struct json_object *v;

	if (!json_object_object_get_ex(obj, field, &v) || !json_object_is_type(v, json_type_object))
		return NULL;
	return json_object_get(v);
}

static void copy_text(struct json_object *obj, const char *field, char *out, size_t size)
{
	struct json_object *v;

	if (json_object_object_get_ex(obj, field, &v) && json_object_is_type(v, json_type_string))
		snprintf(out, size, "%s", json_object_get_string(v));
}

int vm_report_from_json(struct vm_report *report, struct json_object *obj)
{
	struct vm_report r = {0};
	struct json_object *v;
	int state, reason;

	if (!json_object_is_type(obj, json_type_object))
		return -EINVAL;
	state = name_index(vm_state_names, obj, "state");
	reason = name_index(vm_reason_names, obj, "reason");
	if (state < 0 || (state == VM_ENDED && reason < 0))
		return -EINVAL;
	r.state = (enum vm_state)state;
	r.reason = reason < 0 ? VM_REASON_NONE : (enum vm_reason)reason;
	if (json_object_object_get_ex(obj, "code", &v))
		r.code = json_object_get_int(v) & 255;
	copy_text(obj, "message", r.message, sizeof(r.message));
	copy_text(obj, "engine", r.engine, sizeof(r.engine));
	copy_text(obj, "engine_why", r.engine_why, sizeof(r.engine_why));
	r.detail = object_in(obj, "detail");
	r.stats = object_in(obj, "stats");
	*report = r;
	return 0;
}

int vm_report_write(int fd, const struct vm_report *report)
{
	struct json_object *obj = vm_report_to_json(report);
	const char *text;
	size_t len;
	int ret = -ENOMEM;

	text = obj ? json_object_to_json_string_length(obj, JSON_C_TO_STRING_PLAIN, &len) : NULL;
	if (text) {
		if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
			ret = -errno;
		else
			ret = fd_write_full(fd, text, len);
		if (!ret && fsync(fd) < 0)
			ret = -errno;
	}
	json_object_put(obj);
	return ret;
}

int vm_report_status(const struct vm_report *report)
{
	switch (report->reason) {
	case VM_REASON_POWEROFF: return 0;
	case VM_REASON_RESET: return VM_STATUS_RESET;
	case VM_REASON_CRASH: return VM_STATUS_CRASH;
	case VM_REASON_HALTED: return VM_STATUS_HALTED;
	case VM_REASON_DEBUG_EXIT: return report->code & 255;
	case VM_REASON_TIMEOUT: return VM_STATUS_TIMEOUT;
	case VM_REASON_STOPPED: return VM_STATUS_STOPPED;
	case VM_REASON_BAD_IMAGE: return VM_STATUS_BAD_IMAGE;
	default: return VM_STATUS_INTERNAL;
	}
}

void vm_config_finish(struct vm_config *config)
{
	machine_def_finish(&config->def);
	machine_files_finish(&config->files);
}

/* A descriptor's number: open, of @type, and from now on not for our children. */
static int adopt(struct json_object *v, mode_t type, int *out)
{
	struct stat st;
	int fd = json_object_get_int(v);

	if (!json_object_is_type(v, json_type_int) || fd < 0 || fstat(fd, &st) < 0 ||
	    (st.st_mode & S_IFMT) != type || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -EBADF;
	*out = fd;
	return 0;
}

static int adopt_fd(struct json_object *v, int *out)
{
	return adopt(v, S_IFREG, out);
}

/* {"use": "hardware", "fd": 7}, or with "error" in place of "fd". */
static int adopt_kvm(struct machine_files *files, struct json_object *obj)
{
	int use = name_index(machine_kvm_use_names, obj, "use");
	struct json_object *v;

	if (use < 0)
		return -EBADF;
	files->kvm_use = use;
	if (json_object_object_get_ex(obj, "error", &v))
		files->kvm_error = json_object_get_int(v);
	return json_object_object_get_ex(obj, "fd", &v) ? adopt(v, S_IFCHR, &files->kvm) : 0;
}

static int adopt_files(struct machine_files *files, struct json_object *obj)
{
	struct json_object *v;
	int ret = 0;

	if (!json_object_object_get_ex(obj, "kernel", &v))
		return -EBADF;
	ret = adopt_fd(v, &files->kernel);
	if (!ret && json_object_object_get_ex(obj, "initrd", &v))
		ret = adopt_fd(v, &files->initrd);
	if (!ret && json_object_object_get_ex(obj, "kvm", &v))
		ret = adopt_kvm(files, v);
	if (ret || !json_object_object_get_ex(obj, "module", &v))
		return ret;
	if (!json_object_is_type(v, json_type_array) ||
	    json_object_array_length(v) > MACHINE_MODULES_MAX)
		return -EBADF;
	for (size_t i = 0; !ret && i < json_object_array_length(v); i++)
		ret = adopt_fd(json_object_array_get_idx(v, i), &files->modules[i]);
	return ret;
}

int vm_config_read(struct vm_config *config, int fd, struct api_error *err)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct json_object *obj = NULL, *def, *files;
	char chunk[4096];
	ssize_t n;
	int ret;

	*config = (struct vm_config){0};
	machine_files_init(&config->files);
	while ((n = fd_read_full(fd, chunk, sizeof(chunk))) > 0 && b.len < CONFIG_MAX)
		buf_append(&b, chunk, (size_t)n);
	if (n < 0)
		return api_error_set(err, API_KIND_IO, "cannot read the configuration: %s",
				     strerror((int)-n));
	obj = b.data && !b.failed ? json_tokener_parse(b.data) : NULL;
	if (!json_object_is_type(obj, json_type_object) ||
	    !json_object_object_get_ex(obj, "definition", &def) ||
	    !json_object_object_get_ex(obj, "files", &files) ||
	    !json_object_is_type(files, json_type_object)) {
		json_object_put(obj);
		return api_error_set(err, API_KIND_INVALID_PARAMS,
				     "the configuration is malformed");
	}
	ret = machine_def_parse(&config->def, def, NULL, "definition", err);
	if (!ret && adopt_files(&config->files, files)) {
		vm_config_finish(config);
		ret = api_error_set(err, API_KIND_INVALID_PARAMS,
				    "the configuration names a descriptor that is not open");
	}
	json_object_put(obj);
	return ret;
}

static struct json_object *kvm_to_json(const struct machine_files *files)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "use",
			       json_object_new_string(machine_kvm_use_names[files->kvm_use]));
	if (files->kvm >= 0)
		json_object_object_add(obj, "fd", json_object_new_int(files->kvm));
	else if (files->kvm_error)
		json_object_object_add(obj, "error", json_object_new_int(files->kvm_error));
	return obj;
}

struct json_object *vm_config_to_json(const struct machine_def *def,
				      const struct machine_files *files)
{
	struct json_object *obj = json_object_new_object(), *f = json_object_new_object();
	struct json_object *mods = json_object_new_array();

	json_object_object_add(obj, "definition", machine_def_to_json(def));
	json_object_object_add(obj, "files", f);
	json_object_object_add(f, "kernel", json_object_new_int(files->kernel));
	if (files->initrd >= 0)
		json_object_object_add(f, "initrd", json_object_new_int(files->initrd));
	json_object_object_add(f, "kvm", kvm_to_json(files));
	for (size_t i = 0; i < def->modules.n; i++)
		json_object_array_add(mods, json_object_new_int(files->modules[i]));
	json_object_object_add(f, "module", mods);
	return obj;
}
