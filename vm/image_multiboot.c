/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The header of the Multiboot Specification 0.6.96, section 3.1. */
#include "vm/image.h"

#include <errno.h>

#include "vm/boot_internal.h"

#define HEADER_MAGIC  0x1badb002u
#define HEADER_SEARCH 8192

/* The header's position, or -1. Its three first words sum up to zero. */
static int64_t find_header(const struct boot_blob *file)
{
	const uint8_t *p = file->data;
	uint64_t end = MIN(file->len, (uint64_t)HEADER_SEARCH), off;

	for (off = 0; range_fits(off, 12, end); off += 4)
		if (get_u32(p + off) == HEADER_MAGIC &&
		    !(uint32_t)(get_u32(p + off) + get_u32(p + off + 4) + get_u32(p + off + 8)))
			return (int64_t)off;
	return -1;
}

/* The address fields of a flat image: where header and text belong, and how much there is. */
static int parse_addrs(const struct boot_blob *file, struct image_multiboot *mb,
		       struct boot_error *err)
{
	const uint8_t *p = (const uint8_t *)file->data + mb->offset;
	uint32_t header_addr, load_addr, load_end, bss_end;
	uint64_t skip;

	if (!range_fits(mb->offset, 32, file->len))
		return boot_fail(
			err, BOOT_ERR_TRUNCATED,
			"%.80s: the file ends within the multiboot header at offset 0x%llx",
			file->name, (unsigned long long)mb->offset);
	header_addr = get_u32(p + 12);
	load_addr = get_u32(p + 16);
	load_end = get_u32(p + 20);
	bss_end = get_u32(p + 24);
	mb->entry = get_u32(p + 28);
	skip = (uint64_t)header_addr - load_addr;
	if (load_addr > header_addr || skip > mb->offset)
		return boot_fail(err, BOOT_ERR_MALFORMED,
				 "%.80s: multiboot header_addr 0x%x and load_addr 0x%x do not fit "
				 "its offset "
				 "0x%llx",
				 file->name, header_addr, load_addr,
				 (unsigned long long)mb->offset);
	mb->segment.offset = mb->offset - skip;
	mb->segment.paddr = mb->segment.vaddr = load_addr;
	/* A load_end of zero means the rest of the file, a bss_end of zero no BSS. */
	mb->segment.filesz =
		load_end ? (uint64_t)load_end - load_addr : file->len - mb->segment.offset;
	if ((load_end && load_end < load_addr) ||
	    !range_fits(mb->segment.offset, mb->segment.filesz, file->len))
		return boot_fail(
			err, BOOT_ERR_TRUNCATED,
			"%.80s: multiboot load_end_addr 0x%x lies beyond the file's %zu bytes",
			file->name, load_end, file->len);
	mb->segment.memsz = mb->segment.filesz;
	if (bss_end && bss_end < load_addr + mb->segment.filesz)
		return boot_fail(
			err, BOOT_ERR_MALFORMED,
			"%.80s: multiboot bss_end_addr 0x%x lies before the end of what is loaded",
			file->name, bss_end);
	if (bss_end)
		mb->segment.memsz = (uint64_t)bss_end - load_addr;
	return 0;
}

int image_multiboot_parse(const struct boot_blob *file, struct image_multiboot *out,
			  struct boot_error *err)
{
	struct image_multiboot mb = {0};
	int64_t off = find_header(file);
	int ret;

	if (off < 0)
		return -ENOENT;
	mb.offset = (uint64_t)off;
	mb.flags = get_u32((const uint8_t *)file->data + off + 4);
	if (mb.flags & IMAGE_MULTIBOOT_ADDRS) {
		ret = parse_addrs(file, &mb, err);
		if (ret)
			return ret;
	}
	*out = mb;
	return 0;
}
