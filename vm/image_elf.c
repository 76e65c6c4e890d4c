/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ELF executables for i386 and x86-64: load segments, and the note with which a kernel offers PVH
 * entry. */
#include "vm/image.h"

#include <elf.h>

#include "vm/boot_internal.h"

/* The note's name and type (Xen's public/elfnote.h). */
#define NOTE_PVH_NAME "Xen"
#define NOTE_PVH_TYPE 18

/* Bounds on the work that a file can ask for; kernels have a handful of headers and half a KiB of
 * notes. */
#define PHDRS_MAX 256
#define NOTES_MAX MIB(1)

/* A program header of either class. */
struct phdr {
	uint32_t type;
	uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

struct elf_header {
	uint64_t entry, phoff;
	unsigned phnum, phentsize;
};

bool image_is_elf(const struct boot_blob *file)
{
	return file->len >= EI_NIDENT && !memcmp(file->data, ELFMAG, SELFMAG);
}

static void read_phdr(const uint8_t *p, bool is64, struct phdr *ph)
{
	if (is64) {
		Elf64_Phdr e;

		memcpy(&e, p, sizeof(e));
		*ph = (struct phdr){e.p_type,	e.p_offset, e.p_vaddr, e.p_paddr,
				    e.p_filesz, e.p_memsz,  e.p_align};
	} else {
		Elf32_Phdr e;

		memcpy(&e, p, sizeof(e));
		*ph = (struct phdr){e.p_type,	e.p_offset, e.p_vaddr, e.p_paddr,
				    e.p_filesz, e.p_memsz,  e.p_align};
	}
}

static int read_header(const struct boot_blob *file, struct image_elf *elf, struct elf_header *h,
		       struct boot_error *err)
{
	const uint8_t *p = file->data;
	unsigned machine, type;

	if (p[EI_CLASS] != ELFCLASS32 && p[EI_CLASS] != ELFCLASS64)
		return boot_fail(err, BOOT_ERR_MALFORMED,
				 "%.80s: ELF class %u at offset 4 is unknown", file->name,
				 p[EI_CLASS]);
	elf->is64 = p[EI_CLASS] == ELFCLASS64;
	if (file->len < (elf->is64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
		return boot_fail(err, BOOT_ERR_TRUNCATED,
				 "%.80s: truncated ELF: the file's %zu bytes end in the header",
				 file->name, file->len);
	if (elf->is64) {
		Elf64_Ehdr e;

		memcpy(&e, p, sizeof(e));
		*h = (struct elf_header){e.e_entry, e.e_phoff, e.e_phnum, e.e_phentsize};
		machine = e.e_machine;
		type = e.e_type;
	} else {
		Elf32_Ehdr e;

		memcpy(&e, p, sizeof(e));
		*h = (struct elf_header){e.e_entry, e.e_phoff, e.e_phnum, e.e_phentsize};
		machine = e.e_machine;
		type = e.e_type;
	}
	if (p[EI_DATA] != ELFDATA2LSB || (machine != EM_386 && machine != EM_X86_64))
		return boot_fail(err, BOOT_ERR_UNSUPPORTED,
				 "%.80s: ELF for another machine (e_machine %u at offset 18)",
				 file->name, machine);
	if (type != ET_EXEC && type != ET_DYN)
		return boot_fail(err, BOOT_ERR_UNSUPPORTED,
				 "%.80s: ELF type %u at offset 16 is not an executable", file->name,
				 type);
	elf->entry = h->entry;
	return 0;
}

/* Notes are hostile too: each name and descriptor must lie within the segment. */
static void find_pvh(const uint8_t *p, uint64_t len, uint64_t align, struct image_elf *elf)
{
	uint64_t pos = 0;

	align = align == 8 ? 8 : 4;
	len = MIN(len, NOTES_MAX);
	while (range_fits(pos, 12, len)) {
		uint64_t namesz = get_u32(p + pos), descsz = get_u32(p + pos + 4);
		uint64_t name = pos + 12, desc = ALIGN_UP(name + namesz, align);

		if (!range_fits(name, namesz, len) || !range_fits(desc, descsz, len))
			return;
		if (get_u32(p + pos + 8) == NOTE_PVH_TYPE && namesz == sizeof(NOTE_PVH_NAME) &&
		    !memcmp(p + name, NOTE_PVH_NAME, namesz) && descsz >= 4) {
			elf->has_pvh = true;
			elf->pvh_entry = get_u32(p + desc);
			return;
		}
		pos = ALIGN_UP(desc + descsz, align);
	}
}

static int add_segment(const struct boot_blob *file, struct image_elf *elf, const struct phdr *ph,
		       struct boot_error *err)
{
	uint64_t end;

	if (!ph->memsz)
		return 0;
	if (ph->memsz < ph->filesz || __builtin_add_overflow(ph->paddr, ph->memsz, &end))
		return boot_fail(err, BOOT_ERR_MALFORMED,
				 "%.80s: ELF segment at physical 0x%llx has sizes that make no "
				 "sense (0x%llx "
				 "in the file, 0x%llx in memory)",
				 file->name, (unsigned long long)ph->paddr,
				 (unsigned long long)ph->filesz, (unsigned long long)ph->memsz);
	if (elf->nsegments == IMAGE_SEGMENTS_MAX)
		return boot_fail(err, BOOT_ERR_UNSUPPORTED, "%.80s: more than %u ELF load segments",
				 file->name, IMAGE_SEGMENTS_MAX);
	if (!elf->nsegments || ph->paddr < elf->start)
		elf->start = ph->paddr;
	elf->end = MAX(elf->end, end);
	elf->segments[elf->nsegments++] = (struct image_segment){
		.offset = ph->offset,
		.filesz = ph->filesz,
		.vaddr = ph->vaddr,
		.paddr = ph->paddr,
		.memsz = ph->memsz,
	};
	return 0;
}

int image_elf_parse(const struct boot_blob *file, struct image_elf *out, struct boot_error *err)
{
	struct image_elf elf = {0};
	struct elf_header h = {0};
	unsigned want, i;
	int ret;

	if (!image_is_elf(file))
		return boot_fail(err, BOOT_ERR_NOT_A_KERNEL, "%.80s: not an ELF file", file->name);
	ret = read_header(file, &elf, &h, err);
	if (ret)
		return ret;
	want = elf.is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	if (h.phnum && h.phentsize != want)
		return boot_fail(err, BOOT_ERR_MALFORMED,
				 "%.80s: ELF program headers of %u bytes, %u are right", file->name,
				 h.phentsize, want);
	if (h.phnum > PHDRS_MAX)
		return boot_fail(err, BOOT_ERR_UNSUPPORTED,
				 "%.80s: %u ELF program headers, %u are the most that are taken",
				 file->name, h.phnum, PHDRS_MAX);
	if (!range_fits(h.phoff, (uint64_t)h.phnum * want, file->len))
		return boot_fail(
			err, BOOT_ERR_TRUNCATED,
			"%.80s: truncated ELF: program headers at offset 0x%llx, the file has %zu "
			"bytes",
			file->name, (unsigned long long)h.phoff, file->len);
	for (i = 0; i < h.phnum; i++) {
		struct phdr ph;

		read_phdr((const uint8_t *)file->data + h.phoff + (uint64_t)i * want, elf.is64,
			  &ph);
		if (ph.type != PT_LOAD && ph.type != PT_NOTE)
			continue;
		if (!range_fits(ph.offset, ph.filesz, file->len))
			return boot_fail(err, BOOT_ERR_TRUNCATED,
					 "%.80s: truncated ELF: program header %u wants 0x%llx "
					 "bytes at offset "
					 "0x%llx, the file has %zu",
					 file->name, i, (unsigned long long)ph.filesz,
					 (unsigned long long)ph.offset, file->len);
		if (ph.type == PT_LOAD)
			ret = add_segment(file, &elf, &ph, err);
		else if (!elf.has_pvh)
			find_pvh((const uint8_t *)file->data + ph.offset, ph.filesz, ph.align,
				 &elf);
		if (ret)
			return ret;
	}
	if (!elf.nsegments)
		return boot_fail(err, BOOT_ERR_MALFORMED, "%.80s: ELF without anything to load",
				 file->name);
	*out = elf;
	return 0;
}
