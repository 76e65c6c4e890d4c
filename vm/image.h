/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Kernel image formats: bounds-checked views of a file's bytes. They touch no guest. */
#ifndef UMBRA_VM_IMAGE_H
#define UMBRA_VM_IMAGE_H

#include "vm/boot.h"

/* What a bzImage's setup header says, once checked against the file (Documentation/x86/boot.rst).
 */
struct image_bzimage {
	uint16_t version;	       /* 0x20f is 2.15 */
	uint64_t setup_len;	       /* bytes of real-mode code before the protected-mode part */
	uint64_t prot_len;	       /* bytes of that */
	uint64_t header_end;	       /* the setup header is [0x1f1, header_end) */
	uint64_t payload, payload_len; /* file offset and length; length 0 before 2.08 */
	uint64_t pref_address, init_size, initrd_addr_max;
	uint32_t alignment, cmdline_max; /* without the NUL */
	uint16_t xloadflags;
	bool relocatable;
};

#define IMAGE_SEGMENTS_MAX 32

struct image_segment {
	uint64_t offset, filesz;      /* in the file, checked */
	uint64_t vaddr, paddr, memsz; /* memsz ≥ filesz, paddr + memsz does not wrap */
};

struct image_elf {
	bool is64;
	uint64_t entry;
	unsigned nsegments;
	struct image_segment segments[IMAGE_SEGMENTS_MAX]; /* the PT_LOADs with memsz > 0 */
	uint64_t start, end;				   /* all of them, physical */
	bool has_pvh;
	uint32_t pvh_entry;
};

#define IMAGE_MULTIBOOT_PAGE_ALIGN BIT(0)
#define IMAGE_MULTIBOOT_MEMINFO	   BIT(1)
#define IMAGE_MULTIBOOT_VIDEO	   BIT(2)
#define IMAGE_MULTIBOOT_ADDRS	   BIT(16)

struct image_multiboot {
	uint32_t flags;
	uint64_t offset; /* of the header in the file */
	/* With IMAGE_MULTIBOOT_ADDRS: what to load whence, checked; memsz covers the BSS. */
	struct image_segment segment;
	uint32_t entry;
};

/* Cheap looks at the magic numbers. */
bool image_is_bzimage(const struct boot_blob *file);
bool image_is_elf(const struct boot_blob *file);

/* Each: 0, or -EINVAL with @err filled in and the output untouched. */
int image_bzimage_parse(const struct boot_blob *file, struct image_bzimage *out,
			struct boot_error *err);
int image_elf_parse(const struct boot_blob *file, struct image_elf *out, struct boot_error *err);
/* -ENOENT, with @err untouched, when there is no multiboot header at all. */
int image_multiboot_parse(const struct boot_blob *file, struct image_multiboot *out,
			  struct boot_error *err);

/* "gzip", "xz", "lzma", "zstd", "lz4", "bzip2", "lzo", or NULL; the last two we know but cannot
 * unpack. */
const char *image_compression(const struct boot_blob *file, const struct image_bzimage *bz);
bool image_can_unpack(const struct boot_blob *file, const struct image_bzimage *bz);

/* No kernel unpacks to more; what does is a bomb. */
#define IMAGE_UNPACK_MAX MIB(384)

/*
 * Unpack the payload that @bz found in @file; its last four bytes state the unpacked size. *@out is
 * malloced and the caller's, of *@out_len bytes, at most @max.
 */
int image_unpack(const struct boot_blob *file, const struct image_bzimage *bz, size_t max,
		 void **out, size_t *out_len, struct boot_error *err);

#endif
