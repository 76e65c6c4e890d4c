/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Multiboot 1 (specification 0.6.96): machine state of section 3.2, information of 3.3. */
#include "vm/boot_internal.h"

#include <errno.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "vm/memmap.h"

#define BOOTLOADER_MAGIC 0x2badb002u

#define INFO_MEM     BIT(0)
#define INFO_CMDLINE BIT(2)
#define INFO_MODS    BIT(3)
#define INFO_MMAP    BIT(6)
#define INFO_LOADER  BIT(9)

struct mb_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
	uint32_t mods_count, mods_addr, syms[4], mmap_length, mmap_addr;
	uint32_t drives_length, drives_addr, config_table, loader_name, apm_table;
	uint32_t vbe[4], framebuffer[7];
};

struct mb_module {
	uint32_t start, end, string, reserved;
};

/* @size counts the bytes after itself. */
struct mb_mmap {
	uint32_t size;
	uint64_t addr, len;
	uint32_t type;
} __attribute__((packed));

static_assert(sizeof(struct mb_info) == 116 && sizeof(struct mb_mmap) == 24, "the specification's");

/* The fixed parts of the block; the strings follow. */
struct mb_block {
	struct mb_info info;
	struct mb_module mods[BOOT_MODULES_MAX];
	struct mb_mmap map[MEMMAP_ENTRIES_MAX];
};

/* Append a string (two parts, joined by a blank when the second is not empty) and note its address.
 */
static void add_string(struct buf *strings, gpa_t base, uint32_t *field, const char *a,
		       const char *b)
{
	*field = (uint32_t)(base + strings->len);
	buf_printf(strings, "%s%s%s", a, *b ? " " : "", b);
	buf_append(strings, "", 1);
}

static int load_modules(struct boot_load *b, struct mb_block *blk)
{
	unsigned i;

	for (i = 0; i < b->cfg->nmodules; i++) {
		struct boot_range r;
		int ret = boot_load_module(b, i, MEMMAP_HOLE_START, &r);

		if (ret)
			return ret;
		blk->mods[i].start = (uint32_t)r.start;
		blk->mods[i].end = (uint32_t)r.end;
	}
	return 0;
}

static void add_strings(const struct boot_load *b, struct mb_block *blk, gpa_t base,
			struct buf *strings)
{
	unsigned i;

	strings->len = 0;
	add_string(strings, base, &blk->info.loader_name, "Umbra", "");
	add_string(strings, base, &blk->info.cmdline, b->cfg->kernel.name, b->cmdline);
	for (i = 0; i < b->cfg->nmodules; i++)
		add_string(strings, base, &blk->mods[i].string, b->cfg->modules[i].name,
			   b->cfg->modules[i].args ? b->cfg->modules[i].args : "");
}

static void fill_info(const struct boot_load *b, struct mb_block *blk, gpa_t at)
{
	struct memmap_entry map[MEMMAP_ENTRIES_MAX];
	unsigned i, n = memmap_e820(b->mem->ram_below_4g, b->mem->ram_above_4g, map);

	for (i = 0; i < n; i++)
		blk->map[i] = (struct mb_mmap){20, map[i].addr, map[i].len, map[i].type};
	blk->info.flags = INFO_MEM | INFO_CMDLINE | INFO_MODS | INFO_MMAP | INFO_LOADER;
	blk->info.mem_lower = MEMMAP_LOW_END >> 10;
	blk->info.mem_upper = (uint32_t)((b->mem->ram_below_4g - MEMMAP_HIMEM) >> 10);
	blk->info.mods_count = b->cfg->nmodules;
	blk->info.mods_addr = (uint32_t)(at + offsetof(struct mb_block, mods));
	blk->info.mmap_length = n * sizeof(struct mb_mmap);
	blk->info.mmap_addr = (uint32_t)(at + offsetof(struct mb_block, map));
}

/* The information goes to the top of low memory, where the image leaves room. */
static int write_info(struct boot_load *b, struct mb_block *blk, gpa_t *where)
{
	_cleanup_(buf_finish) struct buf strings = {0};
	uint64_t len;
	gpa_t at;
	int ret;

	/* Once for the length, once more when the address is known. */
	add_strings(b, blk, 0, &strings);
	if (strings.failed)
		goto no_memory;
	len = sizeof(*blk) + strings.len;
	at = boot_find_top(b, PAGE_SIZE, MEMMAP_LOW_END, len, 16);
	if (!at)
		return boot_fail(
			b->err, BOOT_ERR_CMDLINE,
			"%.80s: no room below 640 KiB for %llu bytes of multiboot information",
			b->cfg->kernel.name, (unsigned long long)len);
	add_strings(b, blk, at + sizeof(*blk), &strings);
	if (strings.failed)
		goto no_memory;
	fill_info(b, blk, at);
	ret = boot_claim(b, at, len, "multiboot information");
	if (!ret)
		ret = boot_write(b, at, blk, sizeof(*blk));
	if (!ret)
		ret = boot_write(b, at + sizeof(*blk), strings.data, strings.len);
	*where = at;
	return ret;
no_memory:
	boot_fail(b->err, BOOT_ERR_SYSTEM, "no memory for the multiboot information");
	return -ENOMEM;
}

static int load_image(struct boot_load *b, const struct image_multiboot *mb, uint64_t *entry)
{
	const struct boot_blob *file = &b->cfg->kernel;
	struct image_elf elf;
	int ret;

	if (mb->flags & IMAGE_MULTIBOOT_ADDRS) {
		*entry = mb->entry;
		return boot_load_segments(b, file, &mb->segment, 1);
	}
	if (!image_is_elf(file))
		return boot_fail(b->err, BOOT_ERR_MALFORMED,
				 "%.80s: the multiboot header at offset 0x%llx has no addresses "
				 "(flag 16), and "
				 "the file is no ELF",
				 file->name, (unsigned long long)mb->offset);
	ret = image_elf_parse(file, &elf, b->err);
	if (ret)
		return ret;
	if (!boot_elf_entry(&elf, entry) || *entry >= MEMMAP_HIGH_START)
		return boot_fail(b->err, BOOT_ERR_MALFORMED,
				 "%.80s: the ELF entry 0x%llx lies in no segment below 4 GiB",
				 file->name, (unsigned long long)elf.entry);
	return boot_load_segments(b, file, elf.segments, elf.nsegments);
}

int boot_multiboot(struct boot_load *b, const struct image_multiboot *mb)
{
	/* The low half are demands. We have no video, which the information then says. */
	uint32_t unknown = mb->flags & 0xffff &
			   ~(uint32_t)(IMAGE_MULTIBOOT_PAGE_ALIGN | IMAGE_MULTIBOOT_MEMINFO |
				       IMAGE_MULTIBOOT_VIDEO);
	struct mb_block blk = {0};
	uint64_t entry;
	gpa_t info = 0;
	int ret;

	if (unknown)
		return boot_fail(
			b->err, BOOT_ERR_UNSUPPORTED,
			"%.80s: the multiboot header at offset 0x%llx demands what is not known "
			"(flags 0x%x)",
			b->cfg->kernel.name, (unsigned long long)mb->offset, unknown);
	ret = boot_claim(b, MEMMAP_BOOT_GDT, 0x100, "descriptor table");
	if (!ret)
		ret = load_image(b, mb, &entry);
	if (!ret)
		ret = load_modules(b, &blk);
	if (!ret)
		ret = write_info(b, &blk, &info);
	if (!ret)
		ret = boot_cpu_prot32(b, (uint32_t)entry);
	if (ret)
		return ret;
	b->result->cpu.gpr[BOOT_RAX] = BOOTLOADER_MAGIC;
	b->result->cpu.gpr[BOOT_RBX] = info;
	return 0;
}
