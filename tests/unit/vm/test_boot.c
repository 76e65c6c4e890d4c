/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Boot protocols against images made here: placement, hand-over structures, and every kind of bad
 * input. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <asm/bootparam.h>
#include <elf.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "base/buf.h"
#include "vm/boot.h"
#include "vm/image.h"
#include "vm/memmap.h"

/* Guest memory: everything below 4 GiB in one piece, nothing above. */
struct ram {
	uint8_t *p;
	struct boot_mem mem;
};

static int ram_write(void *ctx, gpa_t gpa, const void *data, uint64_t len)
{
	struct ram *r = ctx;

	assert_true(gpa <= r->mem.ram_below_4g && len <= r->mem.ram_below_4g - gpa);
	memcpy(r->p + gpa, data, len);
	return 0;
}

static int ram_read(void *ctx, gpa_t gpa, void *data, uint64_t len)
{
	struct ram *r = ctx;

	assert_true(gpa <= r->mem.ram_below_4g && len <= r->mem.ram_below_4g - gpa);
	memcpy(data, r->p + gpa, len);
	return 0;
}

static int ram_zero(void *ctx, gpa_t gpa, uint64_t len)
{
	struct ram *r = ctx;

	assert_true(gpa <= r->mem.ram_below_4g && len <= r->mem.ram_below_4g - gpa);
	memset(r->p + gpa, 0, len);
	return 0;
}

static void ram_init(struct ram *r, uint64_t size)
{
	r->p = malloc(size);
	assert_non_null(r->p);
	/* What is not zero beforehand shows whether the BSS is made so. */
	memset(r->p, 0xa5, MIN(size, (uint64_t)MIB(24)));
	r->mem = (struct boot_mem){size, 0, r, ram_write, ram_read, ram_zero};
}

/* Where the ELF that the tests make goes, and what is in it. */
#define LOAD  0x1000000ull
#define TEXT  "this stands for a kernel's text"
#define BSS   0x3000ull
#define ENTRY (LOAD + 0x10)

static void add_pvh_note(struct buf *b)
{
	struct {
		uint32_t namesz, descsz, type;
		char name[4];
		uint64_t desc;
	} n = {4, 8, 18, "Xen", LOAD + 0x20};

	buf_append(b, &n, sizeof(n));
}

static void make_elf64(struct buf *b, bool pvh)
{
	Elf64_Ehdr e = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_entry = ENTRY,
		.e_phoff = sizeof(e),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = pvh ? 2 : 1,
	};
	Elf64_Phdr load = {
		.p_type = PT_LOAD,
		.p_offset = 256,
		.p_vaddr = 0xffffffff80000000 + LOAD,
		.p_paddr = LOAD,
		.p_filesz = sizeof(TEXT),
		.p_memsz = BSS,
	};
	Elf64_Phdr note = {.p_type = PT_NOTE, .p_offset = 192, .p_filesz = 24, .p_align = 4};
	static const uint8_t zeros[256];

	buf_append(b, &e, sizeof(e));
	buf_append(b, &load, sizeof(load));
	if (pvh)
		buf_append(b, &note, sizeof(note));
	buf_append(b, zeros, 192 - b->len);
	add_pvh_note(b);
	buf_append(b, zeros, 256 - b->len);
	buf_append(b, TEXT, sizeof(TEXT));
}

static void make_elf32(struct buf *b, const uint32_t *header, size_t header_len)
{
	Elf32_Ehdr e = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_386,
		.e_entry = ENTRY,
		.e_phoff = sizeof(e),
		.e_phentsize = sizeof(Elf32_Phdr),
		.e_phnum = 1,
	};
	Elf32_Phdr load = {
		.p_type = PT_LOAD,
		.p_offset = 128,
		.p_vaddr = LOAD,
		.p_paddr = LOAD,
		.p_filesz = sizeof(TEXT),
		.p_memsz = BSS,
	};
	static const uint8_t zeros[128];

	buf_append(b, &e, sizeof(e));
	buf_append(b, &load, sizeof(load));
	buf_append(b, header, header_len);
	buf_append(b, zeros, 128 - b->len);
	buf_append(b, TEXT, sizeof(TEXT));
}

static void set_u32(struct buf *b, size_t off, uint32_t v)
{
	memcpy(b->data + off, &v, sizeof(v));
}

static uint32_t u32_at(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* A bzImage of protocol 2.15 around @payload: one setup sector after the boot sector. */
static void make_bzimage(struct buf *b, const struct buf *payload)
{
	struct setup_header h = {
		.setup_sects = 1,
		.syssize = (uint32_t)((0x400 + payload->len + 15) / 16),
		.boot_flag = 0xaa55,
		.jump = 0x66eb,
		.header = 0x53726448,
		.version = 0x20f,
		.loadflags = LOADED_HIGH,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = 0x200000,
		.relocatable_kernel = 1,
		.xloadflags = XLF_KERNEL_64,
		.cmdline_size = 2047,
		.payload_offset = 0x400,
		.payload_length = (uint32_t)payload->len,
		.pref_address = LOAD,
		.init_size = 0x100000,
	};
	static uint8_t zeros[0x400 + 16];

	buf_append(b, zeros, 0x1f1);
	buf_append(b, &h, sizeof(h));
	buf_append(b, zeros, 1024 - b->len);
	memset(zeros, 0x90, 0x400);
	buf_append(b, zeros, 0x400);
	memset(zeros, 0, 0x400);
	buf_append(b, payload->data, payload->len);
	buf_append(b, zeros, -b->len & 15);
	assert_false(b->failed);
}

static void append_size(struct buf *b, size_t size)
{
	uint32_t v = (uint32_t)size;

	buf_append(b, &v, 4);
}

static void pack_gzip(const struct buf *in, struct buf *out)
{
	z_stream z = {.next_in = (uint8_t *)in->data, .avail_in = (uInt)in->len};

	buf_reserve(out, in->len + 1000);
	z.next_out = (uint8_t *)out->data;
	z.avail_out = (uInt)in->len + 1000;
	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	out->len = z.total_out;
	deflateEnd(&z);
}

/* As the kernel's build does: x86 filter, CRC32. */
static void pack_xz(const struct buf *in, struct buf *out)
{
	lzma_options_lzma opt;
	lzma_filter filters[] = {
		{LZMA_FILTER_X86, NULL}, {LZMA_FILTER_LZMA2, &opt}, {LZMA_VLI_UNKNOWN, NULL}};

	lzma_lzma_preset(&opt, 6);
	buf_reserve(out, in->len + 1000);
	assert_int_equal(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL,
						   (uint8_t *)in->data, in->len,
						   (uint8_t *)out->data, &out->len, in->len + 1000),
			 LZMA_OK);
	append_size(out, in->len);
}

static void pack_lzma(const struct buf *in, struct buf *out)
{
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_options_lzma opt;

	lzma_lzma_preset(&opt, 6);
	assert_int_equal(lzma_alone_encoder(&s, &opt), LZMA_OK);
	buf_reserve(out, in->len + 1000);
	s.next_in = (uint8_t *)in->data;
	s.avail_in = in->len;
	s.next_out = (uint8_t *)out->data;
	s.avail_out = in->len + 1000;
	assert_int_equal(lzma_code(&s, LZMA_FINISH), LZMA_STREAM_END);
	out->len = s.total_out;
	lzma_end(&s);
	append_size(out, in->len);
}

static void pack_zstd(const struct buf *in, struct buf *out)
{
	buf_reserve(out, in->len + 1000);
	out->len = ZSTD_compress(out->data, in->len + 1000, in->data, in->len, 19);
	assert_false(ZSTD_isError(out->len));
	append_size(out, in->len);
}

static void pack_lz4(const struct buf *in, struct buf *out)
{
	int n;

	append_size(out, 0x184c2102);
	append_size(out, 0);
	buf_reserve(out, in->len + 1000);
	n = LZ4_compress_default(in->data, out->data + 8, (int)in->len, (int)in->len + 900);
	assert_true(n > 0);
	out->len = 8 + (size_t)n;
	set_u32(out, 4, (uint32_t)n);
	append_size(out, in->len);
}

static const struct {
	const char *name;
	void (*pack)(const struct buf *in, struct buf *out);
} packers[] = {{"gzip", pack_gzip},
	       {"xz", pack_xz},
	       {"lzma", pack_lzma},
	       {"zstd", pack_zstd},
	       {"lz4", pack_lz4}};

static struct boot_config config_for(const struct buf *file, enum boot_protocol p)
{
	return (struct boot_config){
		.protocol = p,
		.kernel = {file->data, file->len, "vmlinuz", NULL},
		.cmdline = "console=ttyS0",
		.cpus = 2,
	};
}

/* Load and insist on the kind of error (BOOT_ERR_NONE: none). */
static void load_expect(const struct boot_config *cfg, uint64_t size, enum boot_error_kind kind,
			struct ram *keep, struct boot_result *res)
{
	struct boot_result dummy, *r = res ? res : &dummy;
	struct boot_error err;
	struct ram ram;
	int ret;

	ram_init(&ram, size);
	ret = boot_load(cfg, &ram.mem, r, &err);
	if (err.kind != kind)
		print_message("%s: %s\n", boot_error_kind_name(err.kind), err.text);
	assert_int_equal(err.kind, kind);
	assert_int_equal(ret, kind == BOOT_ERR_NONE ? 0 : -EINVAL);
	if (kind != BOOT_ERR_NONE)
		assert_true(strlen(err.text) > 10);
	if (keep) {
		*keep = ram;
		keep->mem.ctx = keep;
	} else {
		free(ram.p);
	}
}

static void check_loaded(const struct ram *ram)
{
	uint64_t i;

	assert_string_equal((char *)ram->p + LOAD, TEXT);
	for (i = sizeof(TEXT); i < BSS; i++)
		assert_int_equal(ram->p[LOAD + i], 0);
	assert_int_equal(ram->p[LOAD + BSS], 0xa5);
}

static void payload_formats(void **state)
{
	struct buf elf = {0};
	size_t i;

	make_elf64(&elf, true);
	for (i = 0; i < ARRAY_SIZE(packers); i++) {
		struct buf packed = {0}, bz = {0};
		struct boot_config cfg;
		struct boot_result res;
		struct ram ram;

		packers[i].pack(&elf, &packed);
		make_bzimage(&bz, &packed);
		cfg = config_for(&bz, BOOT_AUTO);
		load_expect(&cfg, MIB(32), BOOT_ERR_NONE, &ram, &res);
		assert_int_equal(res.protocol, BOOT_PAYLOAD);
		assert_string_equal(res.compression, packers[i].name);
		assert_int_equal(res.cpu.mode, BOOT_MODE_LONG64);
		assert_int_equal(res.cpu.rip, ENTRY);
		check_loaded(&ram);
		free(ram.p);

		cfg.protocol = BOOT_PVH;
		load_expect(&cfg, MIB(32), BOOT_ERR_NONE, NULL, &res);
		assert_int_equal(res.cpu.rip, LOAD + 0x20);
		assert_int_equal(res.cpu.mode, BOOT_MODE_PROT32);
		buf_finish(&packed);
		buf_finish(&bz);
	}
	buf_finish(&elf);
}

/* The stated size is the bound: more or less than it is refused, as is rubbish. */
static void payload_bad(void **state)
{
	struct buf elf = {0};
	size_t i, j;

	make_elf64(&elf, false);
	for (i = 0; i < ARRAY_SIZE(packers); i++) {
		struct buf packed = {0};
		uint32_t sizes[] = {(uint32_t)elf.len - 1, (uint32_t)elf.len + 1, 0, 0xffffffff, 1};

		packers[i].pack(&elf, &packed);
		for (j = 0; j < ARRAY_SIZE(sizes) + 1; j++) {
			struct buf bz = {0};
			struct boot_config cfg;

			if (j < ARRAY_SIZE(sizes))
				set_u32(&packed, packed.len - 4, sizes[j]);
			else
				memset(packed.data + 16, 0x55, packed.len - 20);
			make_bzimage(&bz, &packed);
			cfg = config_for(&bz, BOOT_PAYLOAD);
			load_expect(&cfg, MIB(32), BOOT_ERR_COMPRESSION, NULL, NULL);
			buf_finish(&bz);
		}
		buf_finish(&packed);
	}
	buf_finish(&elf);
}

static void payload_unknown(void **state)
{
	struct buf packed = {0}, bz = {0};
	struct boot_config cfg;
	struct boot_result res;

	buf_append(&packed, "BZh91AY&SY and more of it", 26);
	make_bzimage(&bz, &packed);
	cfg = config_for(&bz, BOOT_PAYLOAD);
	load_expect(&cfg, MIB(32), BOOT_ERR_COMPRESSION, NULL, NULL);
	/* Left to itself, the loader lets the kernel do it. */
	cfg.protocol = BOOT_AUTO;
	load_expect(&cfg, MIB(32), BOOT_ERR_NONE, NULL, &res);
	assert_int_equal(res.protocol, BOOT_BZIMAGE64);
	buf_finish(&packed);
	buf_finish(&bz);
}

static void make_gzip_bzimage(struct buf *bz)
{
	struct buf elf = {0}, packed = {0};

	make_elf64(&elf, true);
	pack_gzip(&elf, &packed);
	make_bzimage(bz, &packed);
	buf_finish(&elf);
	buf_finish(&packed);
}

static void bzimage_params(void **state)
{
	struct boot_blob initrd = {"the initrd", 10, "initrd.gz", NULL};
	struct boot_params bp;
	struct boot_config cfg;
	struct boot_result res;
	struct buf bz = {0};
	struct ram ram;

	make_gzip_bzimage(&bz);
	cfg = config_for(&bz, BOOT_BZIMAGE64);
	cfg.modules = &initrd;
	cfg.nmodules = 1;
	load_expect(&cfg, MIB(32), BOOT_ERR_NONE, &ram, &res);
	assert_int_equal(res.cpu.rip, LOAD + 0x200);
	assert_int_equal(res.cpu.gpr[6], MEMMAP_BOOT_PARAMS);
	assert_memory_equal(ram.p + LOAD, bz.data + 1024, bz.len - 1024);

	memcpy(&bp, ram.p + MEMMAP_BOOT_PARAMS, sizeof(bp));
	assert_int_equal(bp.hdr.header, 0x53726448);
	assert_int_equal(bp.hdr.type_of_loader, 0xff);
	assert_string_equal((char *)ram.p + bp.hdr.cmd_line_ptr, "console=ttyS0");
	assert_int_equal(bp.hdr.ramdisk_size, 10);
	assert_int_equal(bp.hdr.ramdisk_image, res.initrd);
	assert_memory_equal(ram.p + bp.hdr.ramdisk_image, "the initrd", 10);
	assert_true(bp.hdr.ramdisk_image >= LOAD + 0x100000);
	assert_int_equal(bp.acpi_rsdp_addr, MEMMAP_ACPI);
	assert_memory_equal(ram.p + MEMMAP_ACPI, "RSD PTR ", 8);
	assert_int_equal(bp.e820_entries, 4);
	assert_int_equal(bp.e820_table[3].addr, MIB(1));
	assert_int_equal(bp.e820_table[3].size, MIB(31));
	free(ram.p);

	cfg.protocol = BOOT_BZIMAGE32;
	load_expect(&cfg, MIB(32), BOOT_ERR_NONE, NULL, &res);
	assert_int_equal(res.cpu.rip, LOAD);
	assert_int_equal(res.cpu.mode, BOOT_MODE_PROT32);
	assert_int_equal(res.cpu.seg[BOOT_CS].sel, 0x10);
	assert_int_equal(res.cpu.seg[BOOT_DS].sel, 0x18);
	buf_finish(&bz);
}

/* The state for 64-bit code: tables that map 4 GiB onto itself, and a GDT that agrees with the
 * segments. */
static void long_mode_state(void **state)
{
	struct boot_config cfg;
	struct boot_result res;
	struct buf bz = {0};
	struct ram ram;
	uint64_t va;

	make_gzip_bzimage(&bz);
	cfg = config_for(&bz, BOOT_AUTO);
	load_expect(&cfg, MIB(32), BOOT_ERR_NONE, &ram, &res);
	assert_int_equal(res.cpu.efer, 0x500);
	assert_int_equal(res.cpu.cr0, 0x80000011);
	assert_int_equal(res.cpu.cr4, 0x20);
	for (va = 0; va < GIB(4); va += MIB(2)) {
		uint64_t e = *(uint64_t *)(ram.p + res.cpu.cr3);
		unsigned i = (unsigned)(va >> 30), j = (unsigned)(va >> 21) & 511;

		e = ((uint64_t *)(ram.p + (e & PAGE_MASK)))[i];
		e = ((uint64_t *)(ram.p + (e & PAGE_MASK)))[j];
		assert_int_equal(e, va | 0x83);
	}
	assert_int_equal(*(uint64_t *)(ram.p + res.cpu.gdt_base + 0x10), 0x00af9b000000ffff);
	assert_int_equal(*(uint64_t *)(ram.p + res.cpu.gdt_base + 0x18), 0x00cf93000000ffff);
	assert_int_equal(*(uint64_t *)(ram.p + res.cpu.gdt_base + 0x20), 0x00008b0000000067);
	assert_int_equal(res.cpu.seg[BOOT_CS].ar, 0xa09b);
	/* Bare-metal payloads own these. */
	assert_int_equal(ram.p[0x1000], 0xa5);
	for (va = 0x8000; va < 0xda30; va++)
		assert_int_equal(ram.p[va], 0xa5);
	free(ram.p);
	buf_finish(&bz);
}

static void bzimage_bad(void **state)
{
	static const struct {
		size_t off;
		uint32_t value;
		enum boot_protocol protocol;
		enum boot_error_kind kind;
	} cases[] = {
		{0x202, 0, BOOT_AUTO, BOOT_ERR_NOT_A_KERNEL},
		{0x206, 0x205, BOOT_AUTO, BOOT_ERR_UNSUPPORTED},
		{0x1f4, 0x10000, BOOT_AUTO, BOOT_ERR_TRUNCATED},
		{0x1f4, 0, BOOT_AUTO, BOOT_ERR_MALFORMED},
		{0x248, 0xfffffff0, BOOT_AUTO, BOOT_ERR_MALFORMED},
		{0x24c, 0x7fffffff, BOOT_AUTO, BOOT_ERR_MALFORMED},
		{0x230, 3, BOOT_AUTO, BOOT_ERR_MALFORMED},
		{0x258, 0x1000, BOOT_BZIMAGE64, BOOT_ERR_MALFORMED},
		{0x25c, 0x1000, BOOT_BZIMAGE64, BOOT_ERR_MEMORY_TOO_SMALL},
		{0x260, 0xffffffff, BOOT_BZIMAGE64, BOOT_ERR_MEMORY_TOO_SMALL},
		{0x234, 0x00000001, BOOT_BZIMAGE64, BOOT_ERR_UNSUPPORTED},
		{0x238, 3, BOOT_AUTO, BOOT_ERR_CMDLINE},
		{0x1f1, 0, BOOT_MULTIBOOT, BOOT_ERR_NOT_A_KERNEL},
		{0x1f1, 1, BOOT_VMLINUX, BOOT_ERR_UNSUPPORTED},
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct boot_config cfg;
		struct buf bz = {0};

		make_gzip_bzimage(&bz);
		if (cases[i].off == 0x206)
			memcpy(bz.data + 0x206, &cases[i].value, 2);
		else if (cases[i].off != 0x1f1)
			set_u32(&bz, cases[i].off, cases[i].value);
		cfg = config_for(&bz, cases[i].protocol);
		load_expect(&cfg, MIB(32), cases[i].kind, NULL, NULL);
		buf_finish(&bz);
	}
}

/* Every prefix of a good image is refused or boots, and never read beyond (the copy is exact for
 * ASan). */
static void truncation(void **state)
{
	struct buf files[3] = {0};
	uint32_t header[] = {0x1badb002, 0, 0u - 0x1badb002};
	struct boot_result res;
	struct boot_error err;
	struct ram ram;
	size_t f, len;

	make_gzip_bzimage(&files[0]);
	make_elf64(&files[1], true);
	make_elf32(&files[2], header, sizeof(header));
	ram_init(&ram, MIB(32));
	for (f = 0; f < ARRAY_SIZE(files); f++)
		for (len = 0; len < files[f].len; len++) {
			struct boot_config cfg = config_for(&files[f], BOOT_AUTO);
			void *copy = malloc(len ? len : 1);

			memcpy(copy, files[f].data, len);
			cfg.kernel.data = copy;
			cfg.kernel.len = len;
			/* The bzImage's padding may be missing. */
			if (f || len + 15 < files[f].len)
				assert_int_equal(boot_load(&cfg, &ram.mem, &res, &err), -EINVAL);
			free(copy);
		}
	for (f = 0; f < ARRAY_SIZE(files); f++)
		buf_finish(&files[f]);
	free(ram.p);
}

static void initrd_limits(void **state)
{
	struct boot_blob initrd = {NULL, MIB(14), "initrd.gz", NULL};
	struct boot_config cfg;
	struct buf bz = {0};

	initrd.data = calloc(1, MIB(40));
	make_gzip_bzimage(&bz);
	cfg = config_for(&bz, BOOT_AUTO);
	cfg.modules = &initrd;
	cfg.nmodules = 1;
	load_expect(&cfg, MIB(32), BOOT_ERR_NONE, NULL, NULL);
	initrd.len = MIB(40);
	load_expect(&cfg, MIB(32), BOOT_ERR_INITRD, NULL, NULL);
	initrd.len = MIB(16);
	load_expect(&cfg, MIB(32), BOOT_ERR_INITRD, NULL, NULL);
	/* initrd_addr_max keeps it low, where there is no room beside the kernel. */
	initrd.len = MIB(14);
	set_u32(&bz, 0x22c, 0x00bfffff);
	load_expect(&cfg, MIB(32), BOOT_ERR_INITRD, NULL, NULL);
	initrd.len = MIB(10);
	load_expect(&cfg, MIB(32), BOOT_ERR_NONE, NULL, NULL);
	cfg.nmodules = 2;
	load_expect(&cfg, MIB(32), BOOT_ERR_CONFIG, NULL, NULL);
	free((void *)initrd.data);
	buf_finish(&bz);
}

static void machine_limits(void **state)
{
	struct boot_config cfg;
	struct buf bz = {0};
	char *cmdline;

	make_gzip_bzimage(&bz);
	cfg = config_for(&bz, BOOT_AUTO);
	load_expect(&cfg, MIB(1), BOOT_ERR_MEMORY_TOO_SMALL, NULL, NULL);
	load_expect(&cfg, MIB(8), BOOT_ERR_OUTSIDE_MEMORY, NULL, NULL);
	cfg.cpus = 0;
	load_expect(&cfg, MIB(32), BOOT_ERR_CONFIG, NULL, NULL);
	cfg.cpus = BOOT_CPUS_MAX + 1;
	load_expect(&cfg, MIB(32), BOOT_ERR_CONFIG, NULL, NULL);
	cfg.cpus = BOOT_CPUS_MAX;
	load_expect(&cfg, MIB(32), BOOT_ERR_NONE, NULL, NULL);
	cmdline = malloc(3000);
	memset(cmdline, 'x', 2999);
	cmdline[2999] = 0;
	cfg.cmdline = cmdline;
	load_expect(&cfg, MIB(32), BOOT_ERR_CMDLINE, NULL, NULL);
	cfg.kernel.len = 0;
	load_expect(&cfg, MIB(32), BOOT_ERR_NOT_A_KERNEL, NULL, NULL);
	cfg.kernel = (struct boot_blob){"#!/bin/sh\nexit 0\n", 17, "script", NULL};
	load_expect(&cfg, MIB(32), BOOT_ERR_NOT_A_KERNEL, NULL, NULL);
	free(cmdline);
	buf_finish(&bz);
}

static void elf_bad(void **state)
{
	static const struct {
		size_t off;
		uint32_t value;
		enum boot_error_kind kind;
	} cases[] = {
		{4, 0x01010103, BOOT_ERR_MALFORMED},		/* class */
		{18, 40, BOOT_ERR_UNSUPPORTED},			/* e_machine: ARM */
		{16, 0x003e0001, BOOT_ERR_UNSUPPORTED},		/* e_type: relocatable */
		{32, 0x7fffffff, BOOT_ERR_TRUNCATED},		/* e_phoff */
		{36, 0xffffffff, BOOT_ERR_TRUNCATED},		/* and its upper half */
		{54, 0x00010037, BOOT_ERR_MALFORMED},		/* e_phentsize */
		{56, 257, BOOT_ERR_UNSUPPORTED},		/* e_phnum */
		{64, 0, BOOT_ERR_MALFORMED},			/* nothing to load */
		{64 + 8, 0x7fffffff, BOOT_ERR_TRUNCATED},	/* p_offset */
		{64 + 24, 0xfff00000, BOOT_ERR_OUTSIDE_MEMORY}, /* p_paddr */
		{64 + 28, 0xffffffff, BOOT_ERR_OUTSIDE_MEMORY}, /* its upper half */
		{64 + 24, 0x10000, BOOT_ERR_MALFORMED},		/* over our parameters */
		{64 + 36, 1, BOOT_ERR_TRUNCATED},		/* p_filesz, upper half */
		{64 + 40, 4, BOOT_ERR_MALFORMED},		/* p_memsz < p_filesz */
		{64 + 44, 0xffffffff, BOOT_ERR_OUTSIDE_MEMORY}, /* p_memsz */
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct boot_config cfg;
		struct buf elf = {0};

		make_elf64(&elf, true);
		if (cases[i].off == 54 || cases[i].off == 56)
			memcpy(elf.data + cases[i].off, &cases[i].value, 2);
		else
			set_u32(&elf, cases[i].off, cases[i].value);
		cfg = config_for(&elf, BOOT_AUTO);
		load_expect(&cfg, MIB(32), cases[i].kind, NULL, NULL);
		buf_finish(&elf);
	}
}

static void pvh_info(void **state)
{
	struct boot_blob mods[] = {{"first", 5, "a", "args of a"}, {"second", 6, "b", NULL}};
	struct boot_config cfg;
	struct boot_result res;
	struct buf elf = {0};
	const uint8_t *info;
	uint64_t modlist, map;
	struct ram ram;

	make_elf64(&elf, true);
	cfg = config_for(&elf, BOOT_AUTO);
	cfg.modules = mods;
	cfg.nmodules = 2;
	load_expect(&cfg, MIB(32), BOOT_ERR_NONE, &ram, &res);
	assert_int_equal(res.protocol, BOOT_PVH);
	assert_int_equal(res.cpu.rip, LOAD + 0x20);
	assert_int_equal(res.cpu.cr0, 0x11);
	check_loaded(&ram);
	info = ram.p + res.cpu.gpr[3];
	assert_int_equal(u32_at(info), 0x336ec578);
	assert_int_equal(u32_at(info + 4), 1);
	assert_int_equal(u32_at(info + 12), 2);
	memcpy(&modlist, info + 16, 8);
	assert_memory_equal(ram.p + *(uint64_t *)(ram.p + modlist), "first", 5);
	assert_int_equal(*(uint64_t *)(ram.p + modlist + 8), 5);
	assert_string_equal((char *)ram.p + *(uint64_t *)(ram.p + modlist + 16), "args of a");
	assert_memory_equal(ram.p + *(uint64_t *)(ram.p + modlist + 32), "second", 6);
	assert_string_equal((char *)ram.p + *(uint64_t *)(info + 24), "console=ttyS0");
	assert_int_equal(*(uint64_t *)(info + 32), MEMMAP_ACPI);
	memcpy(&map, info + 40, 8);
	assert_int_equal(u32_at(info + 48), 4);
	assert_int_equal(*(uint64_t *)(ram.p + map + 3 * 24 + 8), MIB(31));
	free(ram.p);
	buf_finish(&elf);

	/* Without the note it is entered as Linux is, and PVH cannot be asked for. */
	make_elf64(&elf, false);
	cfg = config_for(&elf, BOOT_PVH);
	load_expect(&cfg, MIB(32), BOOT_ERR_UNSUPPORTED, NULL, NULL);
	cfg.protocol = BOOT_AUTO;
	load_expect(&cfg, MIB(32), BOOT_ERR_NONE, NULL, &res);
	assert_int_equal(res.protocol, BOOT_VMLINUX);
	assert_int_equal(res.cpu.mode, BOOT_MODE_LONG64);
	buf_finish(&elf);
}

static void check_multiboot(const struct boot_config *cfg)
{
	struct boot_result res;
	const uint8_t *info, *mods, *map;
	struct ram ram;

	load_expect(cfg, MIB(32), BOOT_ERR_NONE, &ram, &res);
	assert_int_equal(res.protocol, BOOT_MULTIBOOT);
	assert_int_equal(res.cpu.rip, ENTRY);
	assert_int_equal(res.cpu.gpr[0], 0x2badb002);
	check_loaded(&ram);
	info = ram.p + res.cpu.gpr[3];
	assert_int_equal(u32_at(info) & 0x4d, 0x4d);
	assert_int_equal(u32_at(info + 4), 639);
	assert_int_equal(u32_at(info + 8), 31 * 1024);
	assert_string_equal((char *)ram.p + u32_at(info + 16), "vmlinuz console=ttyS0");
	assert_int_equal(u32_at(info + 20), 1);
	mods = ram.p + u32_at(info + 24);
	assert_memory_equal(ram.p + u32_at(mods), "K=V", 3);
	assert_int_equal(u32_at(mods + 4) - u32_at(mods), 3);
	assert_int_equal(u32_at(mods) & 0xfff, 0);
	assert_string_equal((char *)ram.p + u32_at(mods + 8), "env");
	assert_int_equal(u32_at(info + 44), 4 * 24);
	map = ram.p + u32_at(info + 48);
	assert_int_equal(u32_at(map), 20);
	assert_int_equal(*(uint64_t *)(map + 3 * 24 + 4), MIB(1));
	assert_int_equal(u32_at(map + 3 * 24 + 20), 1);
	free(ram.p);
}

static void multiboot(void **state)
{
	struct boot_blob mod = {"K=V", 3, "env", NULL};
	uint32_t header[] = {0x1badb002, 0, 0u - 0x1badb002};
	uint32_t flat[] = {0x1badb002,	BIT(16), 0u - 0x1badb002 - BIT(16),
			   LOAD + 0x40, LOAD,	 LOAD + sizeof(TEXT),
			   LOAD + BSS,	ENTRY};
	struct boot_config cfg;
	struct buf f = {0};
	uint8_t pad[0x40 - sizeof(TEXT)] = {0};

	make_elf32(&f, header, sizeof(header));
	cfg = config_for(&f, BOOT_AUTO);
	cfg.modules = &mod;
	cfg.nmodules = 1;
	check_multiboot(&cfg);
	/* A demand that is not known. */
	set_u32(&f, 84 + 4, BIT(5));
	set_u32(&f, 84 + 8, 0u - 0x1badb002 - BIT(5));
	load_expect(&cfg, MIB(32), BOOT_ERR_UNSUPPORTED, NULL, NULL);
	/* A wrong checksum makes it an ordinary ELF. */
	set_u32(&f, 84 + 8, 0);
	cfg.protocol = BOOT_MULTIBOOT;
	load_expect(&cfg, MIB(32), BOOT_ERR_NOT_A_KERNEL, NULL, NULL);
	buf_finish(&f);

	/* Flat, by the header's addresses: the text before the header, nothing after. */
	buf_append(&f, TEXT, sizeof(TEXT));
	buf_append(&f, pad, sizeof(pad));
	buf_append(&f, flat, sizeof(flat));
	cfg = config_for(&f, BOOT_AUTO);
	cfg.modules = &mod;
	cfg.nmodules = 1;
	check_multiboot(&cfg);
	set_u32(&f, 0x40 + 16, LOAD + 0x41);
	load_expect(&cfg, MIB(32), BOOT_ERR_MALFORMED, NULL, NULL);
	set_u32(&f, 0x40 + 16, LOAD);
	set_u32(&f, 0x40 + 20, LOAD + 0x1000);
	load_expect(&cfg, MIB(32), BOOT_ERR_TRUNCATED, NULL, NULL);
	set_u32(&f, 0x40 + 20, 0);
	set_u32(&f, 0x40 + 24, LOAD + 1);
	load_expect(&cfg, MIB(32), BOOT_ERR_MALFORMED, NULL, NULL);
	buf_finish(&f);
}

static void memory_map(void **state)
{
	struct memmap_entry e[MEMMAP_ENTRIES_MAX];
	uint64_t below = 7, above = 7;
	unsigned n, i;

	assert_int_equal(memmap_split(MIB(1), &below, &above), -EINVAL);
	assert_int_equal(memmap_split(MIB(2) + 1, &below, &above), -EINVAL);
	assert_int_equal(below, 7);
	assert_int_equal(memmap_split(GIB(3), &below, &above), 0);
	assert_int_equal(below, GIB(3));
	assert_int_equal(above, 0);
	assert_int_equal(memmap_split(GIB(5), &below, &above), 0);
	assert_int_equal(below, GIB(3));
	assert_int_equal(above, GIB(2));
	n = memmap_e820(below, above, e);
	assert_int_equal(n, 5);
	for (i = 1; i < n; i++)
		assert_true(e[i].addr >= e[i - 1].addr + e[i - 1].len);
	assert_int_equal(e[4].addr, GIB(4));
	assert_int_equal(e[4].len, GIB(2));
}

/* With RAM on both sides of the hole, everything still goes below it and the guest is told of both.
 */
static void big_memory(void **state)
{
	struct boot_blob initrd = {"the initrd", 10, "initrd.gz", NULL};
	struct boot_config cfg;
	struct boot_result res;
	struct boot_params bp;
	struct boot_error err;
	struct buf bz = {0};
	struct ram ram;

	make_gzip_bzimage(&bz);
	cfg = config_for(&bz, BOOT_AUTO);
	cfg.modules = &initrd;
	cfg.nmodules = 1;
	ram_init(&ram, GIB(3));
	ram.mem.ram_above_4g = GIB(2);
	assert_int_equal(boot_load(&cfg, &ram.mem, &res, &err), 0);
	assert_int_equal(res.initrd, GIB(2) - PAGE_SIZE);
	memcpy(&bp, ram.p + MEMMAP_BOOT_PARAMS, sizeof(bp));
	assert_int_equal(bp.e820_entries, 5);
	assert_int_equal(bp.e820_table[4].addr, GIB(4));
	assert_int_equal(bp.e820_table[4].size, GIB(2));
	/* Memory that does not begin above the hole's start is no layout of ours. */
	ram.mem.ram_below_4g = GIB(2);
	assert_int_equal(boot_load(&cfg, &ram.mem, &res, &err), -EINVAL);
	assert_int_equal(err.kind, BOOT_ERR_CONFIG);
	free(ram.p);
	buf_finish(&bz);
}

/* Real-mode vectors lead to handlers that return; those of the 8259s acknowledge. */
static void real_mode_vectors(void **state)
{
	static const uint8_t master[] = {0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf};
	struct boot_config cfg;
	struct buf bz = {0};
	struct ram ram;
	uint32_t v;

	make_gzip_bzimage(&bz);
	cfg = config_for(&bz, BOOT_AUTO);
	load_expect(&cfg, MIB(32), BOOT_ERR_NONE, &ram, NULL);
	v = u32_at(ram.p + 8 * 4);
	assert_memory_equal(ram.p + (v >> 16) * 16 + (v & 0xffff), master, sizeof(master));
	v = u32_at(ram.p + 0xff * 4);
	assert_int_equal(ram.p[(v >> 16) * 16 + (v & 0xffff)], 0xcf);
	free(ram.p);
	buf_finish(&bz);
}

static void sipi(void **state)
{
	struct boot_cpu_state cpu;

	boot_cpu_sipi(&cpu, 0x9a);
	assert_int_equal(cpu.mode, BOOT_MODE_REAL);
	assert_int_equal(cpu.seg[BOOT_CS].sel, 0x9a00);
	assert_int_equal(cpu.seg[BOOT_CS].base, 0x9a000);
	assert_int_equal(cpu.rip, 0);
}

static void names(void **state)
{
	enum boot_protocol p, q;

	for (p = 0; p < BOOT_PROTOCOLS; p++) {
		assert_int_equal(boot_protocol_parse(boot_protocol_name(p), &q), 0);
		assert_int_equal(p, q);
	}
	assert_int_equal(boot_protocol_parse("bios", &q), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(payload_formats), cmocka_unit_test(payload_bad),
		cmocka_unit_test(payload_unknown), cmocka_unit_test(bzimage_params),
		cmocka_unit_test(long_mode_state), cmocka_unit_test(bzimage_bad),
		cmocka_unit_test(truncation),	   cmocka_unit_test(initrd_limits),
		cmocka_unit_test(machine_limits),  cmocka_unit_test(elf_bad),
		cmocka_unit_test(pvh_info),	   cmocka_unit_test(multiboot),
		cmocka_unit_test(memory_map),	   cmocka_unit_test(sipi),
		cmocka_unit_test(names),	   cmocka_unit_test(real_mode_vectors),
		cmocka_unit_test(big_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
