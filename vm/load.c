/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The definition's files into guest memory, and the first vCPU's state. */
#include "vm/vm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "vm/memmap.h"

/* ---- guest memory as the loader wants it -------------------------------------------------------
 */

static uint8_t *ram_at(struct vm *vm, gpa_t gpa, uint64_t len)
{
	if (gpa < vm->ram_below_4g && len <= vm->ram_below_4g - gpa)
		return vm->ram + gpa;
	if (gpa >= MEMMAP_HIGH_START && gpa - MEMMAP_HIGH_START < vm->ram_above_4g &&
	    len <= vm->ram_above_4g - (gpa - MEMMAP_HIGH_START))
		return vm->ram + vm->ram_below_4g + (gpa - MEMMAP_HIGH_START);
	return NULL;
}

static int mem_write(void *ctx, gpa_t gpa, const void *data, uint64_t len)
{
	struct vm *vm = ctx;

	return ram_at(vm, gpa, len) ? slot_write(vm->mmu, gpa, data, len) : -EFAULT;
}

static int mem_read(void *ctx, gpa_t gpa, void *data, uint64_t len)
{
	struct vm *vm = ctx;

	return ram_at(vm, gpa, len) ? slot_read(vm->mmu, gpa, data, len) : -EFAULT;
}

static int mem_zero(void *ctx, gpa_t gpa, uint64_t len)
{
	struct vm *vm = ctx;
	static const uint8_t zeros[4096];

	if (!ram_at(vm, gpa, len))
		return -EFAULT;
	/* Untouched pages are zero, and should stay untouched: they cost nothing. */
	if (vm->ram_fresh)
		return 0;
	while (len) {
		uint64_t n = MIN(len, sizeof(zeros));
		int ret = slot_write(vm->mmu, gpa, zeros, n);

		if (ret)
			return ret;
		gpa += n;
		len -= n;
	}
	return 0;
}

/* ---- files -------------------------------------------------------------------------------------
 */

static int map_file(int fd, const char *name, struct boot_blob *blob, struct api_error *err)
{
	struct stat st;
	void *data;

	blob->name = name;
	if (fstat(fd, &st) < 0)
		return api_error_set(err, API_KIND_IO, "%s: %s", name, strerror(errno));
	blob->len = (size_t)st.st_size;
	if (!blob->len) {
		blob->data = "";
		return 0;
	}
	data = mmap(NULL, blob->len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return api_error_set(err, API_KIND_IO, "%s: %s", name, strerror(errno));
	blob->data = data;
	return 0;
}

static void unmap_file(struct boot_blob *blob)
{
	if (blob->data && blob->len)
		munmap((void *)blob->data, blob->len);
}

/* ---- the first vCPU
 * ------------------------------------------------------------------------------ */

static struct cpu_seg to_seg(const struct boot_seg *s)
{
	return (struct cpu_seg){.base = s->base, .limit = s->limit, .sel = s->sel, .attr = s->ar};
}

static int set_first_vcpu(struct vm *vm, const struct boot_cpu_state *b)
{
	struct cpu_state s;
	int ret = vm->engine->vcpu_get_state(vm->vcpus[0].engine, &s);

	if (ret)
		return ret;
	memcpy(s.gpr, b->gpr, sizeof(s.gpr));
	s.rip = b->rip;
	s.rflags = b->rflags | X86_FLAG_ONE;
	for (unsigned k = 0; k < BOOT_SEGS; k++)
		s.seg[k] = to_seg(&b->seg[k]);
	s.tr = to_seg(&b->tr);
	s.ldtr = to_seg(&b->ldtr);
	s.gdtr = (struct cpu_table){b->gdt_base, b->gdt_limit};
	s.idtr = (struct cpu_table){b->idt_base, b->idt_limit};
	s.cr0 = b->cr0;
	s.cr3 = b->cr3;
	s.cr4 = b->cr4;
	s.efer = b->efer;
	s.activity = CPU_ACTIVE;
	return vm->engine->vcpu_set_state(vm->vcpus[0].engine, &s);
}

/* ---- all of it
 * ----------------------------------------------------------------------------------- */

static enum boot_protocol protocol_of(const struct vm *vm)
{
	switch (vm->def->boot) {
	case MACHINE_BOOT_PAYLOAD: return BOOT_PAYLOAD;
	case MACHINE_BOOT_BZIMAGE: return BOOT_BZIMAGE64;
	case MACHINE_BOOT_PVH: return BOOT_PVH;
	case MACHINE_BOOT_MULTIBOOT: return BOOT_MULTIBOOT;
	default: return BOOT_AUTO;
	}
}

static int map_files(struct vm *vm, struct boot_config *cfg, struct boot_blob *modules,
		     struct api_error *err)
{
	const struct machine_def *def = vm->def;
	int ret = map_file(vm->files->kernel, def->kernel, &cfg->kernel, err);

	if (!ret && def->initrd)
		ret = map_file(vm->files->initrd, def->initrd, &modules[cfg->nmodules++], err);
	for (size_t k = 0; !ret && k < def->modules.n; k++) {
		if (cfg->nmodules == BOOT_MODULES_MAX)
			return api_error_field(err, "module", "more than %d modules",
					       BOOT_MODULES_MAX);
		ret = map_file(vm->files->modules[k], def->modules.v[k], &modules[cfg->nmodules++],
			       err);
	}
	cfg->modules = modules;
	return ret;
}

static int load(struct vm *vm, const struct boot_config *cfg, struct api_error *err)
{
	struct boot_mem mem = {
		.ram_below_4g = vm->ram_below_4g,
		.ram_above_4g = vm->ram_above_4g,
		.ctx = vm,
		.write = mem_write,
		.read = mem_read,
		.zero = mem_zero,
	};
	struct boot_error boot_err = {0};
	int ret = boot_load(cfg, &mem, &vm->boot, &boot_err);

	if (ret)
		return api_error_set(err,
				     boot_err.kind == BOOT_ERR_SYSTEM ? API_KIND_INTERNAL
								      : API_KIND_BAD_IMAGE,
				     "%s", boot_err.text);
	vm->ram_fresh = false;
	ret = set_first_vcpu(vm, &vm->boot.cpu);
	return ret ? api_error_set(err, API_KIND_INTERNAL, "engine \"%s\", vCPU 0: %s",
				   vm->engine->name, vm->engine->vcpu_error(vm->vcpus[0].engine))
		   : 0;
}

int vm_load(struct vm *vm, struct api_error *err)
{
	struct boot_blob modules[BOOT_MODULES_MAX] = {0};
	struct boot_config cfg = {
		.protocol = protocol_of(vm),
		.cmdline = vm->def->cmdline,
		.cpus = vm->cpus,
	};
	int ret = map_files(vm, &cfg, modules, err);

	if (!ret)
		ret = load(vm, &cfg, err);
	unmap_file(&cfg.kernel);
	for (unsigned k = 0; k < BOOT_MODULES_MAX; k++)
		unmap_file(&modules[k]);
	return ret;
}
