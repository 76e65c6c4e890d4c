/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a machine is: its definition, one checker for vmctl, umbrad and umbra-vm. */
#include "api/machine_def.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define DEF_FILE_MAX MIB(1)
#define DEF_MEMORY   MIB(256)

const char *const machine_engine_names[] = {"auto", "soft", "kvm", NULL};
const char *const machine_irqchip_names[] = {"auto", "kernel", "split", NULL};
const char *const machine_kvm_use_names[] = {"hardware", "always", "never", NULL};
const char *const machine_mmu_names[] = {"auto", "shadow", "tdp", NULL};
const char *const machine_tdp_format_names[] = {"ept", "npt", NULL};
const char *const machine_clock_names[] = {"host", "instructions", NULL};
const char *const machine_boot_names[] = {"auto", "payload", "bzimage", "pvh", "multiboot", NULL};
const char *const machine_sandbox_names[] = {"auto", "strict", "off", NULL};
const char *const machine_mmu_page_names[] = {"1G", "2M", "4K", NULL};
static const char *const on_reset_names[] = {"end", "restart", NULL};
static const char *const restart_names[] = {"never", "on-failure", "always", NULL};
static const char *const on_hang_names[] = {"report", "kill", NULL};

#define AT(member) .offset = offsetof(struct machine_def, member)

static const struct api_field def_fields[] = {
	{.name = "name", .type = API_NAME, AT(name), .help = "the machine's name"},
	{.name = "kernel",
	 .type = API_PATH,
	 .required = true,
	 AT(kernel),
	 .help = "the kernel or payload to boot: bzImage, ELF (PVH), multiboot"},
	{.name = "initrd", .type = API_PATH, AT(initrd), .help = "the initial RAM disk"},
	{.name = "cmdline",
	 .type = API_STRING,
	 .max = MACHINE_CMDLINE_MAX,
	 AT(cmdline),
	 .help = "the kernel's command line"},
	{.name = "module",
	 .type = API_PATHS,
	 .max = MACHINE_MODULES_MAX,
	 AT(modules),
	 .help = "a multiboot or PVH module; may be given repeatedly"},
	{.name = "memory",
	 .type = API_SIZE,
	 .min = (int64_t)MACHINE_MEMORY_MIN,
	 .max = (int64_t)MACHINE_MEMORY_MAX,
	 AT(memory),
	 .dflt = "256M",
	 .help = "the size of the RAM"},
	{.name = "cpus",
	 .type = API_INT,
	 .min = 1,
	 .max = MACHINE_CPUS_MAX,
	 AT(cpus),
	 .dflt = "1",
	 .help = "the number of virtual CPUs"},
	{.name = "cpu",
	 .type = API_STRING,
	 .max = MACHINE_CPU_MAX,
	 AT(cpu),
	 .help = "changes of the processor model, such as -pcid,+la57,vendor=AuthenticAMD"},
	{.name = "engine",
	 .type = API_ENUM,
	 .choices = machine_engine_names,
	 AT(engine),
	 .dflt = "auto",
	 .help = "what runs the virtual CPUs; auto: kvm where it has hardware and can run this "
		 "machine, else soft"},
	{.name = "irqchip",
	 .type = API_ENUM,
	 .choices = machine_irqchip_names,
	 AT(irqchip),
	 .dflt = "auto",
	 .help = "under kvm, whose the I/O APIC, 8259s and PIT are: the kernel's (auto), or ours "
		 "(split)"},
	{.name = "dirty_ring",
	 .type = API_INT,
	 .min = 0,
	 .max = MACHINE_RING_MAX,
	 AT(dirty_ring),
	 .dflt = "0",
	 .help = "under kvm, dirty pages come by rings of so many entries, a power of two; 0: by a "
		 "bitmap"},
	{.name = "kvm_help",
	 .type = API_BOOL,
	 AT(kvm_help),
	 .dflt = "true",
	 .help = "under kvm, an instruction that the kernel cannot emulate is carried out by our "
		 "own "
		 "processor"},
	{.name = "mmu",
	 .type = API_ENUM,
	 .choices = machine_mmu_names,
	 AT(mmu),
	 .dflt = "auto",
	 .help = "the memory virtualization policy"},
	{.name = "mmu_disable",
	 .type = API_STRING,
	 .max = MACHINE_CPU_MAX,
	 AT(mmu_disable),
	 .help = "mechanisms of the MMU to do without, such as unsync,prefetch, to measure them"},
	{.name = "mmu_max_page",
	 .type = API_ENUM,
	 .choices = machine_mmu_page_names,
	 AT(mmu_max_page),
	 .dflt = "1G",
	 .help = "the largest page in the tables that the MMU builds"},
	{.name = "mmu_tables",
	 .type = API_SIZE,
	 .max = (int64_t)MACHINE_MEMORY_MAX,
	 AT(mmu_tables),
	 .dflt = "0",
	 .help = "a bound on the memory of those tables; 0 follows from the size of the RAM"},
	{.name = "tdp_format",
	 .type = API_ENUM,
	 .choices = machine_tdp_format_names,
	 AT(tdp_format),
	 .dflt = "ept",
	 .help = "under tdp, whose form our tables have: Intel's or AMD's"},
	{.name = "clock",
	 .type = API_ENUM,
	 .choices = machine_clock_names,
	 AT(clock),
	 .dflt = "host",
	 .help = "what the machine's time follows"},
	{.name = "boot",
	 .type = API_ENUM,
	 .choices = machine_boot_names,
	 AT(boot),
	 .dflt = "auto",
	 .help = "the boot protocol"},
	{.name = "on_reset",
	 .type = API_ENUM,
	 .choices = on_reset_names,
	 AT(on_reset),
	 .dflt = "end",
	 .help = "what a guest's reset does"},
	{.name = "timeout",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = 31536000,
	 AT(timeout),
	 .dflt = "0",
	 .help = "seconds after which the machine is ended; 0 is never"},
	{.name = "restart",
	 .type = API_ENUM,
	 .choices = restart_names,
	 AT(restart),
	 .dflt = "never",
	 .help = "whether an end that nobody asked for is followed by a new start"},
	{.name = "on_hang",
	 .type = API_ENUM,
	 .choices = on_hang_names,
	 AT(on_hang),
	 .dflt = "report",
	 .help = "what is done when umbra-vm does not answer in time"},
	{.name = "autostart",
	 .type = API_BOOL,
	 AT(autostart),
	 .dflt = "false",
	 .help = "start it when the host starts"},
	{.name = "start_order",
	 .type = API_INT,
	 .min = 0,
	 .max = 1000000,
	 AT(start_order),
	 .dflt = "0",
	 .help = "lower ones start earlier and are stopped later at the host's shutdown"},
	{.name = "sandbox",
	 .type = API_ENUM,
	 .choices = machine_sandbox_names,
	 AT(sandbox),
	 .dflt = "auto",
	 .help = "what its process gives up: all that the host allows, all or no start, nothing"},
	{.name = "core",
	 .type = API_BOOL,
	 AT(core),
	 .dflt = "false",
	 .help = "a crash of its process may leave a core file, without the RAM"},
	{.name = "limit_memory",
	 .type = API_SIZE,
	 .max = (int64_t)MACHINE_MEMORY_MAX * 2,
	 AT(limit_memory),
	 .dflt = "0",
	 .help = "a bound on all memory of its process; 0 is none"},
	{.name = "limit_cpus",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = 1024,
	 AT(limit_cpus),
	 .dflt = "0",
	 .help = "a bound on its processor time, in processors, such as 1.5; 0 is none"},
	{.name = "limit_io",
	 .type = API_INT,
	 .min = 0,
	 .max = 10000,
	 AT(limit_io),
	 .dflt = "0",
	 .help = "its weight in disk access beside others' 100; 0 is as they have"},
	{.name = "limit_pids",
	 .type = API_INT,
	 .min = 0,
	 .max = 65536,
	 AT(limit_pids),
	 .dflt = "0",
	 .help = "a bound on its process's threads; 0 is none"},
};

const struct api_fields machine_def_fields = API_FIELDS("the machine definition", def_fields);

void machine_def_init(struct machine_def *def)
{
	*def = (struct machine_def){.memory = DEF_MEMORY, .cpus = 1, .kvm_help = true};
}

void machine_def_finish(struct machine_def *def)
{
	api_fields_free(&machine_def_fields, def);
}

int machine_def_parse(struct machine_def *def, struct json_object *obj, const char *dflt_name,
		      const char *path, struct api_error *err)
{
	int ret = api_fields_check(&machine_def_fields, obj, path, err);

	machine_def_init(def);
	if (ret)
		return ret;
	if (api_fields_load(&machine_def_fields, obj, def))
		goto no_memory;
	if (!def->name && !dflt_name) {
		machine_def_finish(def);
		return api_error_field(err, "name", "field \"name\" is missing in %s",
				       machine_def_fields.what);
	}
	if (!def->name)
		def->name = strdup(dflt_name);
	if (!def->name)
		goto no_memory;
	return 0;
no_memory:
	machine_def_finish(def);
	return api_error_set(err, API_KIND_INTERNAL, "out of memory");
}

/* One JSON text, nothing behind it but white space. NULL with *err. */
static struct json_object *parse_text(const char *text, size_t len, const char *file,
				      struct api_error *err)
{
	struct json_tokener *tok = json_tokener_new();
	struct json_object *obj = NULL;
	enum json_tokener_error e;

	if (!tok) {
		api_error_set(err, API_KIND_INTERNAL, "out of memory");
		return NULL;
	}
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	obj = json_tokener_parse_ex(tok, text, (int)len);
	e = json_tokener_get_error(tok);
	if (e != json_tokener_success) {
		size_t line = 1, at = json_tokener_get_parse_end(tok);

		for (size_t i = 0; i < at && i < len; i++)
			line += text[i] == '\n';
		api_error_set(err, API_KIND_INVALID_PARAMS, "%s is not JSON: line %zu: %s", file,
			      line,
			      e == json_tokener_continue ? "it ends too early"
							 : json_tokener_error_desc(e));
		json_object_put(obj);
		obj = NULL;
	}
	json_tokener_free(tok);
	return obj;
}

struct json_object *machine_def_read(const char *file, struct api_error *err)
{
	_cleanup_(buf_finish) struct buf b = {0};
	int ret = fd_read_file(AT_FDCWD, file, DEF_FILE_MAX, &b);

	if (ret) {
		api_error_set(err, api_kind_from_errno(ret), "cannot read %s: %s", file,
			      strerror(-ret));
		return NULL;
	}
	return parse_text(b.data ? b.data : "", b.len, file, err);
}

int machine_def_load(struct machine_def *def, const char *file, const char *dflt_name,
		     struct api_error *err)
{
	struct json_object *obj = machine_def_read(file, err);
	int ret;

	machine_def_init(def);
	if (!obj)
		return -EINVAL;
	ret = machine_def_parse(def, obj, dflt_name, "", err);
	json_object_put(obj);
	return ret;
}

struct json_object *machine_def_to_json(const struct machine_def *def)
{
	return api_fields_save(&machine_def_fields, def);
}

void machine_files_init(struct machine_files *files)
{
	files->kernel = files->initrd = -1;
	for (size_t i = 0; i < MACHINE_MODULES_MAX; i++)
		files->modules[i] = -1;
	files->kvm = -1;
	files->kvm_error = 0;
	files->kvm_use = MACHINE_KVM_HARDWARE;
}

void machine_files_finish(struct machine_files *files)
{
	cleanup_close(&files->kernel);
	cleanup_close(&files->initrd);
	for (size_t i = 0; i < MACHINE_MODULES_MAX; i++)
		cleanup_close(&files->modules[i]);
	cleanup_close(&files->kvm);
	machine_files_init(files);
}

static int open_file(int *out, const char *path, const char *field, struct api_error *err)
{
	/* Not to hang in opening a fifo: what is no regular file is refused below. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int ret;

	if (fd < 0) {
		int e = errno;

		ret = api_error_set(err, api_kind_from_errno(e), "cannot open the %s %.200s: %s",
				    field, path, strerror(e));
	} else if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		ret = api_error_set(err, API_KIND_BAD_IMAGE, "the %s %.200s is no regular file",
				    field, path);
	} else {
		*out = fd;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	if (err)
		snprintf(err->field, sizeof(err->field), "%s", field);
	return ret;
}

static void open_kvm(struct machine_files *files, const struct machine_def *def)
{
	const char *device = getenv("UMBRA_KVM_DEVICE");
	struct stat st;

	if (def->engine == MACHINE_ENGINE_SOFT || files->kvm_use == MACHINE_KVM_NEVER)
		return;
	files->kvm = open(device ? device : "/dev/kvm", O_RDWR | O_CLOEXEC | O_NOCTTY);
	files->kvm_error = files->kvm < 0 ? errno : 0;
	if (files->kvm >= 0 && (fstat(files->kvm, &st) < 0 || !S_ISCHR(st.st_mode))) {
		close(TAKE_FD(files->kvm));
		files->kvm_error = ENODEV;
	}
}

int machine_files_open(struct machine_files *files, const struct machine_def *def,
		       struct api_error *err)
{
	int ret = open_file(&files->kernel, def->kernel, "kernel", err);

	if (!ret && def->initrd)
		ret = open_file(&files->initrd, def->initrd, "initrd", err);
	for (size_t i = 0; !ret && i < def->modules.n; i++)
		ret = open_file(&files->modules[i], def->modules.v[i], "module", err);
	if (!ret)
		open_kvm(files, def);
	if (ret)
		machine_files_finish(files);
	return ret;
}
