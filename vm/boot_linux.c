/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linux by boot_params: a bzImage that decompresses itself (Documentation/x86/boot.rst, 32-bit and
 * 64-bit boot protocol), or its vmlinux, placed and entered as the decompressor would. No
 * relocation is applied: the kernel goes where it was linked to.
 */
#include "vm/boot_internal.h"

#include <asm/bootparam.h>

#include "vm/memmap.h"

#define HDR_OFFSET	 offsetof(struct boot_params, hdr)
#define LOADER_UNDEFINED 0xff
#define VID_MODE_NORMAL	 0xffff
#define ENTRY64_OFFSET	 0x200

static int claim_low(struct boot_load *b)
{
	int ret = boot_claim(b, MEMMAP_BOOT_GDT, 0x100, "descriptor table");

	if (!ret)
		ret = boot_claim(b, MEMMAP_BOOT_PARAMS, MEMMAP_BOOT_STACK - MEMMAP_BOOT_PARAMS,
				 "boot parameters");
	if (!ret)
		ret = boot_claim(b, MEMMAP_CMDLINE, MEMMAP_CMDLINE_MAX, "command line");
	return ret;
}

static void fill_e820(const struct boot_load *b, struct boot_params *bp)
{
	struct memmap_entry map[MEMMAP_ENTRIES_MAX];
	unsigned i, n = memmap_e820(b->mem->ram_below_4g, b->mem->ram_above_4g, map);

	for (i = 0; i < n; i++) {
		bp->e820_table[i].addr = map[i].addr;
		bp->e820_table[i].size = map[i].len;
		bp->e820_table[i].type = map[i].type;
	}
	bp->e820_entries = (uint8_t)n;
}

/* A header for an ELF that came without one: what the kernel itself reads of it. */
static void make_header(struct boot_params *bp)
{
	bp->hdr.boot_flag = 0xaa55;
	bp->hdr.header = 0x53726448; /* "HdrS" */
	bp->hdr.version = 0x20f;
	bp->hdr.kernel_alignment = (uint32_t)MIB(2);
}

/* The zero page, the command line and the initrd; the kernel's own range is claimed already. */
static int load_params(struct boot_load *b, const struct image_bzimage *bz, gpa_t load,
		       uint64_t initrd_max)
{
	struct boot_params bp = {0};
	struct boot_range initrd = {0};
	int ret;

	if (b->cfg->nmodules > 1)
		return boot_fail(b->err, BOOT_ERR_CONFIG, "%u modules, but Linux takes one initrd",
				 b->cfg->nmodules);
	if (b->cfg->nmodules && b->cfg->modules[0].len) {
		ret = boot_load_module(b, 0, initrd_max, &initrd);
		if (ret)
			return ret;
	}
	ret = boot_load_cmdline(b, b->cmdline, bz ? bz->cmdline_max : 2047);
	if (ret)
		return ret;
	if (bz)
		memcpy((char *)&bp + HDR_OFFSET, (const char *)b->cfg->kernel.data + HDR_OFFSET,
		       bz->header_end - HDR_OFFSET);
	else
		make_header(&bp);
	bp.hdr.type_of_loader = LOADER_UNDEFINED;
	bp.hdr.loadflags |= LOADED_HIGH;
	bp.hdr.vid_mode = VID_MODE_NORMAL;
	bp.hdr.code32_start = (uint32_t)load;
	bp.hdr.cmd_line_ptr = (uint32_t)MEMMAP_CMDLINE;
	bp.hdr.ramdisk_image = (uint32_t)initrd.start;
	bp.hdr.ramdisk_size = (uint32_t)(initrd.end - initrd.start);
	bp.hdr.setup_data = 0;
	bp.acpi_rsdp_addr = b->rsdp;
	bp.alt_mem_k = (uint32_t)MIN((b->mem->ram_below_4g - MEMMAP_HIMEM) >> 10, 0xffffffffull);
	fill_e820(b, &bp);
	return boot_write(b, MEMMAP_BOOT_PARAMS, &bp, sizeof(bp));
}

static int enter(struct boot_load *b, bool long64, uint64_t entry)
{
	int ret = long64 ? boot_cpu_long64(b, entry) : boot_cpu_prot32(b, (uint32_t)entry);

	b->result->cpu.gpr[BOOT_RSI] = MEMMAP_BOOT_PARAMS;
	return ret;
}

/* initrd_addr_max is the last byte's address; the initrd must also be reachable by 32-bit fields.
 */
static uint64_t initrd_limit(const struct image_bzimage *bz)
{
	return bz->initrd_addr_max ? bz->initrd_addr_max + 1 : 0x38000000;
}

int boot_linux_bzimage(struct boot_load *b, const struct image_bzimage *bz, bool entry64)
{
	const char *name = b->cfg->kernel.name;
	gpa_t load = bz->pref_address;
	uint64_t need = MAX(bz->init_size, bz->prot_len);
	const uint8_t *prot = (const uint8_t *)b->cfg->kernel.data + bz->setup_len;
	int ret;

	if (entry64 && (!(bz->xloadflags & XLF_KERNEL_64) || bz->prot_len <= ENTRY64_OFFSET))
		return boot_fail(b->err, BOOT_ERR_UNSUPPORTED,
				 "%.80s: no 64-bit entry (xloadflags 0x%x at offset 0x236)", name,
				 bz->xloadflags);
	if (load < MEMMAP_HIMEM || (bz->relocatable && load & (bz->alignment - 1)))
		return boot_fail(b->err, BOOT_ERR_MALFORMED,
				 "%.80s: pref_address 0x%llx at offset 0x258 is below 1 MiB or not "
				 "aligned to "
				 "0x%x",
				 name, (unsigned long long)load, bz->alignment);
	if (!range_fits(load, need, b->mem->ram_below_4g))
		return boot_fail(b->err, BOOT_ERR_MEMORY_TOO_SMALL,
				 "%.80s needs memory up to %llu MiB to unpack itself, the machine "
				 "has %llu MiB",
				 name, (unsigned long long)((load + need) >> 20),
				 (unsigned long long)(b->mem->ram_below_4g >> 20));
	ret = claim_low(b);
	if (!ret)
		ret = boot_claim(b, load, need, "kernel");
	if (!ret)
		ret = boot_write(b, load, prot, bz->prot_len);
	if (!ret)
		ret = load_params(b, bz, load, initrd_limit(bz));
	if (ret)
		return ret;
	b->result->load_start = load;
	b->result->load_end = load + need;
	return enter(b, entry64, load + (entry64 ? ENTRY64_OFFSET : 0));
}

int boot_linux_elf(struct boot_load *b, const struct boot_blob *file, const struct image_elf *elf,
		   const struct image_bzimage *bz)
{
	uint64_t entry, initrd_max = bz ? initrd_limit(bz) : elf->is64 ? 0x80000000 : 0x38000000;
	int ret;

	/* The page tables that we enter 64-bit code with end at 4 GiB. */
	if (!boot_elf_entry(elf, &entry) || elf->end > MEMMAP_HIGH_START)
		return boot_fail(b->err, BOOT_ERR_MALFORMED,
				 "%.80s: the ELF entry 0x%llx lies in no segment below 4 GiB",
				 b->cfg->kernel.name, (unsigned long long)elf->entry);
	ret = claim_low(b);
	if (!ret)
		ret = boot_load_segments(b, file, elf->segments, elf->nsegments);
	if (!ret)
		ret = load_params(b, bz, elf->start, initrd_max);
	if (ret)
		return ret;
	return enter(b, elf->is64, entry);
}
