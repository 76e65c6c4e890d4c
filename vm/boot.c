/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Booting: which protocol, where things go, and the checks that all protocols share. */
#include "vm/boot.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "vm/acpi.h"
#include "vm/boot_internal.h"
#include "vm/memmap.h"
#include "vm/mptable.h"
#include "vm/smbios.h"

static const char *const protocol_names[BOOT_PROTOCOLS] = {
	[BOOT_AUTO] = "auto",		[BOOT_PAYLOAD] = "payload", [BOOT_BZIMAGE64] = "bzimage64",
	[BOOT_BZIMAGE32] = "bzimage32", [BOOT_PVH] = "pvh",	    [BOOT_MULTIBOOT] = "multiboot",
	[BOOT_VMLINUX] = "vmlinux",
};

static const char *const kind_names[] = {
	[BOOT_ERR_NONE] = "none",
	[BOOT_ERR_NOT_A_KERNEL] = "not_a_kernel",
	[BOOT_ERR_TRUNCATED] = "truncated",
	[BOOT_ERR_MALFORMED] = "malformed",
	[BOOT_ERR_UNSUPPORTED] = "unsupported",
	[BOOT_ERR_COMPRESSION] = "compression",
	[BOOT_ERR_OUTSIDE_MEMORY] = "outside_memory",
	[BOOT_ERR_MEMORY_TOO_SMALL] = "memory_too_small",
	[BOOT_ERR_INITRD] = "initrd",
	[BOOT_ERR_CMDLINE] = "cmdline",
	[BOOT_ERR_CONFIG] = "config",
	[BOOT_ERR_SYSTEM] = "system",
};

const char *boot_protocol_name(enum boot_protocol p)
{
	return p < BOOT_PROTOCOLS ? protocol_names[p] : "unknown";
}

int boot_protocol_parse(const char *name, enum boot_protocol *p)
{
	unsigned i;

	for (i = 0; i < BOOT_PROTOCOLS; i++)
		if (!strcmp(name, protocol_names[i])) {
			*p = (enum boot_protocol)i;
			return 0;
		}
	return -EINVAL;
}

const char *boot_error_kind_name(enum boot_error_kind kind)
{
	return kind < ARRAY_SIZE(kind_names) ? kind_names[kind] : "unknown";
}

int boot_fail(struct boot_error *err, enum boot_error_kind kind, const char *fmt, ...)
{
	va_list ap;

	err->kind = kind;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int memory_failed(struct boot_load *b, gpa_t gpa, uint64_t len, int ret)
{
	boot_fail(b->err, BOOT_ERR_SYSTEM,
		  "guest memory at 0x%llx (0x%llx bytes) cannot be written: %s",
		  (unsigned long long)gpa, (unsigned long long)len, strerror(-ret));
	return ret;
}

int boot_write(struct boot_load *b, gpa_t gpa, const void *data, uint64_t len)
{
	int ret = len ? b->mem->write(b->mem->ctx, gpa, data, len) : 0;

	return ret ? memory_failed(b, gpa, len, ret) : 0;
}

int boot_zero(struct boot_load *b, gpa_t gpa, uint64_t len)
{
	int ret = len ? b->mem->zero(b->mem->ctx, gpa, len) : 0;

	return ret ? memory_failed(b, gpa, len, ret) : 0;
}

bool boot_in_ram(const struct boot_mem *mem, gpa_t start, uint64_t len)
{
	return range_fits(start, len, mem->ram_below_4g) ||
	       (start >= MEMMAP_HIGH_START &&
		range_fits(start - MEMMAP_HIGH_START, len, mem->ram_above_4g));
}

static const struct boot_range *find_overlap(const struct boot_load *b, gpa_t start, gpa_t end)
{
	unsigned i;

	for (i = 0; i < b->nused; i++)
		if (start < b->used[i].end && b->used[i].start < end)
			return &b->used[i];
	return NULL;
}

int boot_claim(struct boot_load *b, gpa_t start, uint64_t len, const char *what)
{
	const struct boot_range *r = find_overlap(b, start, start + len);

	if (r)
		return boot_fail(
			b->err, BOOT_ERR_MALFORMED,
			"%.80s: the %s at 0x%llx to 0x%llx overlaps what is at 0x%llx to 0x%llx",
			b->cfg->kernel.name, what, (unsigned long long)start,
			(unsigned long long)(start + len), (unsigned long long)r->start,
			(unsigned long long)r->end);
	assert(b->nused < BOOT_RANGES_MAX);
	b->used[b->nused++] = (struct boot_range){start, start + len};
	return 0;
}

gpa_t boot_find_top(const struct boot_load *b, gpa_t min, gpa_t max, uint64_t len, uint64_t align)
{
	while (max > len && max - len >= min) {
		gpa_t start = ALIGN_DOWN(max - len, align);
		const struct boot_range *r = find_overlap(b, start, start + len);

		if (start < min)
			break;
		if (!r)
			return start;
		max = r->start;
	}
	return 0;
}

int boot_load_segments(struct boot_load *b, const struct boot_blob *file,
		       const struct image_segment *segs, unsigned n)
{
	unsigned i;
	int ret;

	for (i = 0; i < n; i++) {
		const struct image_segment *s = &segs[i];

		if (!boot_in_ram(b->mem, s->paddr, s->memsz))
			return boot_fail(b->err, BOOT_ERR_OUTSIDE_MEMORY,
					 "%.80s: segment %u at physical 0x%llx, 0x%llx bytes, lies "
					 "outside the "
					 "machine's memory (%llu MiB)",
					 b->cfg->kernel.name, i, (unsigned long long)s->paddr,
					 (unsigned long long)s->memsz,
					 (unsigned long long)((b->mem->ram_below_4g +
							       b->mem->ram_above_4g) >>
							      20));
		ret = boot_claim(b, s->paddr, s->memsz, "kernel segment");
		if (ret)
			return ret;
	}
	for (i = 0; i < n; i++) {
		const struct image_segment *s = &segs[i];

		ret = boot_write(b, s->paddr, (const uint8_t *)file->data + s->offset, s->filesz);
		if (!ret)
			ret = boot_zero(b, s->paddr + s->filesz, s->memsz - s->filesz);
		if (ret)
			return ret;
		if (!i || s->paddr < b->result->load_start)
			b->result->load_start = s->paddr;
		b->result->load_end = MAX(b->result->load_end, s->paddr + s->memsz);
	}
	return 0;
}

bool boot_elf_entry(const struct image_elf *elf, uint64_t *entry)
{
	unsigned i;

	/* Kernels state it physical already; others may be linked high. */
	for (i = 0; i < elf->nsegments; i++)
		if (elf->entry - elf->segments[i].paddr < elf->segments[i].memsz) {
			*entry = elf->entry;
			return true;
		}
	for (i = 0; i < elf->nsegments; i++)
		if (elf->entry - elf->segments[i].vaddr < elf->segments[i].memsz) {
			*entry = elf->entry - elf->segments[i].vaddr + elf->segments[i].paddr;
			return true;
		}
	return false;
}

int boot_load_module(struct boot_load *b, unsigned i, gpa_t max, struct boot_range *where)
{
	const struct boot_blob *m = &b->cfg->modules[i];
	gpa_t start;
	int ret;

	max = MIN(max, b->mem->ram_below_4g);
	start = boot_find_top(b, MEMMAP_HIMEM, max, MAX(m->len, (size_t)1), PAGE_SIZE);
	if (!start)
		return boot_fail(
			b->err, BOOT_ERR_INITRD,
			"%.80s: %zu bytes do not fit beside the kernel into memory below %llu MiB",
			m->name, m->len, (unsigned long long)(max >> 20));
	ret = boot_claim(b, start, m->len, "module");
	if (!ret)
		ret = boot_write(b, start, m->data, m->len);
	if (ret)
		return ret;
	*where = (struct boot_range){start, start + m->len};
	if (!i) {
		b->result->initrd = start;
		b->result->initrd_len = m->len;
	}
	return 0;
}

int boot_load_cmdline(struct boot_load *b, const char *cmdline, uint64_t max)
{
	uint64_t len = strlen(cmdline);

	max = MIN(max, MEMMAP_CMDLINE_MAX - 1);
	if (len > max)
		return boot_fail(b->err, BOOT_ERR_CMDLINE,
				 "the command line has %llu characters, %.80s takes %llu",
				 (unsigned long long)len, b->cfg->kernel.name,
				 (unsigned long long)max);
	return boot_write(b, MEMMAP_CMDLINE, cmdline, len + 1);
}

static int write_table(struct boot_load *b, int built, const struct buf *t, struct boot_range where)
{
	if (built) {
		boot_fail(b->err, BOOT_ERR_SYSTEM, "no memory for the firmware tables");
		return built;
	}
	if (t->len > where.end - where.start)
		return boot_fail(
			b->err, BOOT_ERR_CONFIG,
			"the firmware tables for %u processors have %zu bytes, more than fit",
			b->cfg->cpus, t->len);
	return boot_write(b, where.start, t->data, t->len);
}

/*
 * A PC's 8259s and timer run when its firmware hands over, so real-mode code that enables
 * interrupts counts on handlers: they acknowledge and return. Code that brings its own table of
 * vectors never sees them.
 */
static int write_ivt(struct boot_load *b)
{
	static const struct {
		uint8_t first, last, code[16];
	} stubs[] = {
		{0x00, 0xff, {0xcf}}, /* iret */
		/* push ax; mov al, 0x20; out 0x20, al; pop ax; iret */
		{0x08, 0x0f, {0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf}},
		/* the same, with out 0xa0, al before: the second 8259 */
		{0x70, 0x77, {0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf}},
	};
	uint32_t ivt[256];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(stubs); i++) {
		gpa_t at = MEMMAP_STUBS + i * sizeof(stubs[i].code);
		unsigned v;
		int ret = boot_write(b, at, stubs[i].code, sizeof(stubs[i].code));

		if (ret)
			return ret;
		for (v = stubs[i].first; v <= stubs[i].last; v++)
			ivt[v] = 0xf0000000 | (uint32_t)(at & 0xffff);
	}
	return boot_write(b, 0, ivt, sizeof(ivt));
}

/* The tables that guests search for below 1 MiB, and the two words of BIOS data that they look at.
 */
static int write_firmware(struct boot_load *b)
{
	struct acpi_config acpi = {.cpus = b->cfg->cpus};
	struct smbios_config smbios = {b->cfg->cpus, b->mem->ram_below_4g, b->mem->ram_above_4g};
	_cleanup_(buf_finish) struct buf at = {0}, st = {0}, mt = {0};
	uint16_t ebda = MEMMAP_LOW_END >> 4, low_kib = MEMMAP_LOW_END >> 10;
	int ret = 0;

	if (!b->cfg->no_acpi) {
		ret = write_table(b, acpi_build(&acpi, MEMMAP_ACPI, &at), &at,
				  (struct boot_range){MEMMAP_ACPI, MEMMAP_ACPI_END});
		b->rsdp = MEMMAP_ACPI;
	}
	if (!ret)
		ret = write_table(b, smbios_build(&smbios, MEMMAP_SMBIOS, &st), &st,
				  (struct boot_range){MEMMAP_SMBIOS, MEMMAP_SMBIOS_END});
	if (!ret)
		ret = write_table(b, mptable_build(b->cfg->cpus, MEMMAP_MPTABLE, &mt), &mt,
				  (struct boot_range){MEMMAP_MPTABLE, MEMMAP_MPTABLE_END});
	if (!ret)
		ret = write_ivt(b);
	if (!ret)
		ret = boot_write(b, 0x40e, &ebda, sizeof(ebda));
	if (!ret)
		ret = boot_write(b, 0x413, &low_kib, sizeof(low_kib));
	if (!ret)
		ret = boot_claim(b, MEMMAP_LOW_END, MEMMAP_HIMEM - MEMMAP_LOW_END, "firmware");
	return ret;
}

static int check_config(const struct boot_config *cfg, const struct boot_mem *mem,
			struct boot_error *err)
{
	uint64_t below, above, total;

	if (!cfg->cpus || cfg->cpus > BOOT_CPUS_MAX)
		return boot_fail(err, BOOT_ERR_CONFIG, "%u processors; 1 to %u are possible",
				 cfg->cpus, BOOT_CPUS_MAX);
	if (cfg->nmodules > BOOT_MODULES_MAX)
		return boot_fail(err, BOOT_ERR_CONFIG, "%u modules; %u are possible", cfg->nmodules,
				 BOOT_MODULES_MAX);
	if (__builtin_add_overflow(mem->ram_below_4g, mem->ram_above_4g, &total))
		return boot_fail(err, BOOT_ERR_CONFIG, "the memory size overflows");
	if (total < MEMMAP_RAM_MIN)
		return boot_fail(
			err, BOOT_ERR_MEMORY_TOO_SMALL,
			"%llu KiB of memory are too little to boot anything, %llu are the least",
			(unsigned long long)(total >> 10),
			(unsigned long long)(MEMMAP_RAM_MIN >> 10));
	if (memmap_split(total, &below, &above) || below != mem->ram_below_4g)
		return boot_fail(err, BOOT_ERR_CONFIG, "memory of %llu bytes cannot be laid out",
				 (unsigned long long)total);
	if (!cfg->kernel.len)
		return boot_fail(err, BOOT_ERR_NOT_A_KERNEL,
				 "%.80s: not a kernel: the file is empty", cfg->kernel.name);
	return 0;
}

static int load_elf(struct boot_load *b, const struct boot_blob *file, enum boot_protocol protocol,
		    const struct image_bzimage *bz)
{
	struct image_elf elf;
	int ret = image_elf_parse(file, &elf, b->err);

	if (ret)
		return ret;
	b->result->protocol = protocol;
	if (protocol == BOOT_PVH)
		return boot_pvh(b, file, &elf);
	return boot_linux_elf(b, file, &elf, bz);
}

static int load_payload(struct boot_load *b, const struct image_bzimage *bz,
			enum boot_protocol protocol)
{
	_cleanup_free_ void *data = NULL;
	struct boot_blob vmlinux = {.name = b->cfg->kernel.name};
	int ret = image_unpack(&b->cfg->kernel, bz, IMAGE_UNPACK_MAX, &data, &vmlinux.len, b->err);

	if (ret)
		return ret;
	vmlinux.data = data;
	b->result->compression = image_compression(&b->cfg->kernel, bz);
	return load_elf(b, &vmlinux, protocol, bz);
}

static int load_bzimage(struct boot_load *b, enum boot_protocol protocol)
{
	struct image_bzimage bz;
	int ret = image_bzimage_parse(&b->cfg->kernel, &bz, b->err);

	if (ret)
		return ret;
	if (protocol == BOOT_AUTO)
		protocol = image_can_unpack(&b->cfg->kernel, &bz) ? BOOT_PAYLOAD
			   : bz.xloadflags & 1			  ? BOOT_BZIMAGE64
								  : BOOT_BZIMAGE32;
	b->result->protocol = protocol;
	switch (protocol) {
	case BOOT_PAYLOAD:
	case BOOT_PVH: return load_payload(b, &bz, protocol);
	case BOOT_BZIMAGE64:
	case BOOT_BZIMAGE32: return boot_linux_bzimage(b, &bz, protocol == BOOT_BZIMAGE64);
	default:
		return boot_fail(b->err, BOOT_ERR_UNSUPPORTED,
				 "%.80s: a bzImage cannot be booted by the protocol %s",
				 b->cfg->kernel.name, boot_protocol_name(protocol));
	}
}

/* Not a bzImage: an ELF, or flat multiboot. */
static int load_other(struct boot_load *b, enum boot_protocol protocol)
{
	const struct boot_blob *file = &b->cfg->kernel;
	bool is_elf = image_is_elf(file);
	struct image_multiboot mb;
	struct image_elf elf;
	int ret;

	if (protocol == BOOT_AUTO && is_elf) {
		ret = image_elf_parse(file, &elf, b->err);
		if (ret)
			return ret;
		if (elf.has_pvh)
			protocol = BOOT_PVH;
	}
	if (protocol == BOOT_AUTO || protocol == BOOT_MULTIBOOT) {
		ret = image_multiboot_parse(file, &mb, b->err);
		b->result->protocol = BOOT_MULTIBOOT;
		if (ret != -ENOENT)
			return ret ? ret : boot_multiboot(b, &mb);
		if (protocol == BOOT_MULTIBOOT)
			return boot_fail(b->err, BOOT_ERR_NOT_A_KERNEL,
					 "%.80s: no multiboot header in the first 8 KiB",
					 file->name);
	}
	if (!is_elf)
		return boot_fail(b->err, BOOT_ERR_NOT_A_KERNEL,
				 "%.80s: not a kernel: neither bzImage (\"HdrS\" at offset 0x202) "
				 "nor ELF nor "
				 "multiboot",
				 file->name);
	if (protocol == BOOT_PAYLOAD || protocol == BOOT_BZIMAGE64 || protocol == BOOT_BZIMAGE32)
		return boot_fail(b->err, BOOT_ERR_UNSUPPORTED,
				 "%.80s: an ELF cannot be booted by the protocol %s", file->name,
				 boot_protocol_name(protocol));
	return load_elf(b, file, protocol == BOOT_AUTO ? BOOT_VMLINUX : protocol, NULL);
}

int boot_load(const struct boot_config *cfg, const struct boot_mem *mem, struct boot_result *result,
	      struct boot_error *err)
{
	struct boot_result res = {0};
	struct boot_load b = {
		.cfg = cfg,
		.mem = mem,
		.result = &res,
		.err = err,
		.cmdline = cfg->cmdline ? cfg->cmdline : "",
	};
	int ret;

	*err = (struct boot_error){0};
	ret = check_config(cfg, mem, err);
	if (!ret)
		ret = write_firmware(&b);
	if (ret)
		return ret;
	ret = image_is_bzimage(&cfg->kernel) && cfg->protocol != BOOT_MULTIBOOT
		      ? load_bzimage(&b, cfg->protocol)
		      : load_other(&b, cfg->protocol);
	if (!ret)
		*result = res;
	return ret;
}
