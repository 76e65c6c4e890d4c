/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the boot protocols share: a load in progress, and the places already taken. */
#ifndef UMBRA_VM_BOOT_INTERNAL_H
#define UMBRA_VM_BOOT_INTERNAL_H

#include "vm/boot.h"
#include <string.h>

#include "vm/image.h"

/* Little-endian fields at any alignment; the host is x86. The caller checked the bounds. */
static inline uint16_t get_u16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t get_u32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t get_u64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* Whether [@start, @start + @len) lies within @size bytes. */
static inline bool range_fits(uint64_t start, uint64_t len, uint64_t size)
{
	return start <= size && len <= size - start;
}

struct boot_range {
	gpa_t start, end;
};

#define BOOT_RANGES_MAX (IMAGE_SEGMENTS_MAX + BOOT_MODULES_MAX + 16)

struct boot_load {
	const struct boot_config *cfg;
	const struct boot_mem *mem;
	struct boot_result *result;
	struct boot_error *err;
	const char *cmdline; /* never NULL */
	gpa_t rsdp;	     /* 0 without ACPI */
	struct boot_range used[BOOT_RANGES_MAX];
	unsigned nused;
};

/* Fill in @err and return -EINVAL. @err->text is cut to its size; names from outside are cut to 80.
 */
int boot_fail(struct boot_error *err, enum boot_error_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Guest memory; on failure @err is filled in. */
int boot_write(struct boot_load *b, gpa_t gpa, const void *data, uint64_t len);
int boot_zero(struct boot_load *b, gpa_t gpa, uint64_t len);
bool boot_in_ram(const struct boot_mem *mem, gpa_t start, uint64_t len);

/* Note a range as taken; @what names it in the message when it overlaps another. */
int boot_claim(struct boot_load *b, gpa_t start, uint64_t len, const char *what);
/* The highest free place of @len bytes, aligned, within [@min, @max). 0 when there is none. */
gpa_t boot_find_top(const struct boot_load *b, gpa_t min, gpa_t max, uint64_t len, uint64_t align);

/* Write segments of @file with their BSS, claim them and note the load range. */
int boot_load_segments(struct boot_load *b, const struct boot_blob *file,
		       const struct image_segment *segs, unsigned n);
/* Place module @i as high as possible below @max. */
int boot_load_module(struct boot_load *b, unsigned i, gpa_t max, struct boot_range *where);
/* The command line at MEMMAP_CMDLINE; @max counts without the NUL. */
int boot_load_cmdline(struct boot_load *b, const char *cmdline, uint64_t max);

/* An ELF's entry as a physical address within a segment; false when it lies in none. */
bool boot_elf_entry(const struct image_elf *elf, uint64_t *entry);

/* States: flat segments, our GDT written to guest memory. */
int boot_cpu_prot32(struct boot_load *b, uint32_t entry);
int boot_cpu_long64(struct boot_load *b, uint64_t entry);

/* One a protocol. @elf is what was parsed from @file. */
int boot_linux_bzimage(struct boot_load *b, const struct image_bzimage *bz, bool entry64);
int boot_linux_elf(struct boot_load *b, const struct boot_blob *file, const struct image_elf *elf,
		   const struct image_bzimage *bz);
int boot_pvh(struct boot_load *b, const struct boot_blob *file, const struct image_elf *elf);
int boot_multiboot(struct boot_load *b, const struct image_multiboot *mb);

/* Indices into boot_cpu_state.gpr. */
enum {
	BOOT_RAX,
	BOOT_RCX,
	BOOT_RDX,
	BOOT_RBX,
	BOOT_RSP,
	BOOT_RBP,
	BOOT_RSI,
	BOOT_RDI,
};

#endif
