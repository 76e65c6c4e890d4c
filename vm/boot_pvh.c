/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* PVH entry: Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h. */
#include "vm/boot_internal.h"

#include "base/buf.h"
#include "vm/memmap.h"

#define START_MAGIC 0x336ec578u

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp;
	/* Since version 1. */
	uint64_t memmap;
	uint32_t memmap_entries, reserved;
};

struct modlist_entry {
	uint64_t addr, size, cmdline, reserved;
};

struct memmap_table_entry {
	uint64_t addr, size;
	uint32_t type, reserved;
};

static_assert(sizeof(struct start_info) == 56 && sizeof(struct modlist_entry) == 32 &&
		      sizeof(struct memmap_table_entry) == 24,
	      "the layout is Xen's");

/* All in one piece at MEMMAP_BOOT_PARAMS. */
struct pvh_block {
	struct start_info info;
	struct memmap_table_entry map[MEMMAP_ENTRIES_MAX];
	struct modlist_entry mods[BOOT_MODULES_MAX];
};

#define STRINGS_ADDR (MEMMAP_BOOT_PARAMS + sizeof(struct pvh_block))
#define STRINGS_MAX  (MEMMAP_BOOT_STACK - STRINGS_ADDR)

static int load_modules(struct boot_load *b, struct pvh_block *blk)
{
	gpa_t strings = STRINGS_ADDR;
	unsigned i;

	for (i = 0; i < b->cfg->nmodules; i++) {
		const char *args = b->cfg->modules[i].args ? b->cfg->modules[i].args : "";
		uint64_t len = strlen(args) + 1;
		struct boot_range r;
		int ret = boot_load_module(b, i, MEMMAP_HOLE_START, &r);

		if (ret)
			return ret;
		if (!range_fits(strings - STRINGS_ADDR, len, STRINGS_MAX))
			return boot_fail(
				b->err, BOOT_ERR_CMDLINE,
				"the command lines of the modules are too long, %llu bytes are the "
				"limit",
				(unsigned long long)STRINGS_MAX);
		ret = boot_write(b, strings, args, len);
		if (ret)
			return ret;
		blk->mods[i] = (struct modlist_entry){r.start, r.end - r.start, strings, 0};
		strings += len;
	}
	blk->info.nr_modules = b->cfg->nmodules;
	blk->info.modlist = i ? MEMMAP_BOOT_PARAMS + offsetof(struct pvh_block, mods) : 0;
	return 0;
}

static void fill_info(const struct boot_load *b, struct pvh_block *blk)
{
	struct memmap_entry map[MEMMAP_ENTRIES_MAX];
	unsigned i, n = memmap_e820(b->mem->ram_below_4g, b->mem->ram_above_4g, map);

	for (i = 0; i < n; i++)
		blk->map[i] = (struct memmap_table_entry){map[i].addr, map[i].len, map[i].type, 0};
	blk->info.magic = START_MAGIC;
	blk->info.version = 1;
	blk->info.cmdline = MEMMAP_CMDLINE;
	blk->info.rsdp = b->rsdp;
	blk->info.memmap = MEMMAP_BOOT_PARAMS + offsetof(struct pvh_block, map);
	blk->info.memmap_entries = n;
}

int boot_pvh(struct boot_load *b, const struct boot_blob *file, const struct image_elf *elf)
{
	struct pvh_block blk = {0};
	int ret;

	if (!elf->has_pvh)
		return boot_fail(b->err, BOOT_ERR_UNSUPPORTED,
				 "%.80s: no PVH entry: the ELF has no note \"Xen\" of type 18",
				 b->cfg->kernel.name);
	ret = boot_claim(b, MEMMAP_BOOT_GDT, 0x100, "descriptor table");
	if (!ret)
		ret = boot_claim(b, MEMMAP_BOOT_PARAMS, MEMMAP_BOOT_STACK - MEMMAP_BOOT_PARAMS,
				 "start info");
	if (!ret)
		ret = boot_claim(b, MEMMAP_CMDLINE, MEMMAP_CMDLINE_MAX, "command line");
	if (!ret)
		ret = boot_load_segments(b, file, elf->segments, elf->nsegments);
	if (!ret)
		ret = load_modules(b, &blk);
	if (!ret)
		ret = boot_load_cmdline(b, b->cmdline, MEMMAP_CMDLINE_MAX - 1);
	if (ret)
		return ret;
	if (!boot_in_ram(b->mem, elf->pvh_entry, 1))
		return boot_fail(b->err, BOOT_ERR_OUTSIDE_MEMORY,
				 "%.80s: the PVH entry 0x%x lies outside the machine's memory",
				 b->cfg->kernel.name, elf->pvh_entry);
	fill_info(b, &blk);
	ret = boot_write(b, MEMMAP_BOOT_PARAMS, &blk, sizeof(blk));
	if (!ret)
		ret = boot_cpu_prot32(b, elf->pvh_entry);
	b->result->cpu.gpr[BOOT_RBX] = MEMMAP_BOOT_PARAMS;
	return ret;
}
