/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The setup header of a bzImage. Offsets are those of Documentation/x86/boot.rst, in the file. */
#include "vm/image.h"

#include <asm/bootparam.h>

#include "vm/boot_internal.h"

#define OFF_SETUP_SECTS	  0x1f1
#define OFF_SYSSIZE	  0x1f4
#define OFF_BOOT_FLAG	  0x1fe
#define OFF_JUMP_LEN	  0x201
#define OFF_MAGIC	  0x202
#define OFF_VERSION	  0x206
#define OFF_LOADFLAGS	  0x211
#define OFF_INITRD_MAX	  0x22c
#define OFF_ALIGNMENT	  0x230
#define OFF_RELOCATABLE	  0x234
#define OFF_XLOADFLAGS	  0x236
#define OFF_CMDLINE_SIZE  0x238
#define OFF_PAYLOAD	  0x248
#define OFF_PAYLOAD_LEN	  0x24c
#define OFF_PREF_ADDRESS  0x258
#define OFF_INIT_SIZE	  0x260
#define OFF_INIT_SIZE_END 0x264

#define VERSION_MIN	0x206 /* the first that states the command line's size */
#define VERSION_PAYLOAD 0x208
#define VERSION_INIT	0x20a
#define VERSION_XLOAD	0x20c

bool image_is_bzimage(const struct boot_blob *file)
{
	const char *p = file->data;

	return file->len >= OFF_VERSION && !memcmp(p + OFF_MAGIC, "HdrS", 4) &&
	       get_u16(p + OFF_BOOT_FLAG) == 0xaa55;
}

/* The fixed part: that the file is whole, and where its two halves are. */
static int parse_layout(const struct boot_blob *file, struct image_bzimage *bz,
			struct boot_error *err)
{
	const uint8_t *p = file->data;
	uint64_t sects;

	bz->version = get_u16(p + OFF_VERSION);
	if (bz->version < VERSION_MIN)
		return boot_fail(
			err, BOOT_ERR_UNSUPPORTED,
			"%.80s: boot protocol %u.%02u at offset 0x206 is too old, 2.06 is needed",
			file->name, bz->version >> 8, bz->version & 0xff);
	if (!(p[OFF_LOADFLAGS] & LOADED_HIGH))
		return boot_fail(
			err, BOOT_ERR_UNSUPPORTED,
			"%.80s: loadflags at offset 0x211 say zImage (loaded low), which is not "
			"supported",
			file->name);
	bz->header_end = MIN(OFF_MAGIC + (uint64_t)p[OFF_JUMP_LEN], sizeof(struct boot_params));
	if (bz->header_end < OFF_CMDLINE_SIZE + 4)
		return boot_fail(
			err, BOOT_ERR_MALFORMED,
			"%.80s: the setup header ends at 0x%llx by the byte at offset 0x201, too "
			"early for its version",
			file->name, (unsigned long long)bz->header_end);
	sects = p[OFF_SETUP_SECTS] ? p[OFF_SETUP_SECTS] : 4;
	bz->setup_len = (sects + 1) * 512;
	bz->prot_len = (uint64_t)get_u32(p + OFF_SYSSIZE) * 16;
	if (!bz->prot_len || bz->header_end > bz->setup_len)
		return boot_fail(err, BOOT_ERR_MALFORMED,
				 "%.80s: setup_sects %llu at offset 0x1f1 and syssize at 0x1f4 "
				 "leave no kernel",
				 file->name, (unsigned long long)sects);
	/* syssize is rounded up to paragraphs; the file need not be. */
	if (bz->setup_len + bz->prot_len > file->len + 15)
		return boot_fail(err, BOOT_ERR_TRUNCATED,
				 "%.80s: truncated bzImage: its header announces %llu bytes, the "
				 "file has %zu",
				 file->name, (unsigned long long)(bz->setup_len + bz->prot_len),
				 file->len);
	bz->prot_len = MIN(bz->prot_len, file->len - bz->setup_len);
	return 0;
}

static int parse_payload(const struct boot_blob *file, struct image_bzimage *bz,
			 struct boot_error *err)
{
	const uint8_t *p = file->data;
	uint64_t off, len;

	if (bz->version < VERSION_PAYLOAD || bz->header_end < OFF_PAYLOAD_LEN + 4)
		return 0;
	off = get_u32(p + OFF_PAYLOAD);
	len = get_u32(p + OFF_PAYLOAD_LEN);
	if (!range_fits(off, len, bz->prot_len))
		return boot_fail(
			err, BOOT_ERR_MALFORMED,
			"%.80s: payload_offset 0x%llx and payload_length 0x%llx at offset 0x248 "
			"leave the kernel's 0x%llx bytes",
			file->name, (unsigned long long)off, (unsigned long long)len,
			(unsigned long long)bz->prot_len);
	bz->payload = bz->setup_len + off;
	bz->payload_len = len;
	return 0;
}

int image_bzimage_parse(const struct boot_blob *file, struct image_bzimage *out,
			struct boot_error *err)
{
	const uint8_t *p = file->data;
	struct image_bzimage bz = {0};
	int ret;

	if (!image_is_bzimage(file))
		return boot_fail(err, BOOT_ERR_NOT_A_KERNEL,
				 "%.80s: not a bzImage: no \"HdrS\" at offset 0x202", file->name);
	if (file->len < OFF_INIT_SIZE_END)
		return boot_fail(
			err, BOOT_ERR_TRUNCATED,
			"%.80s: truncated bzImage: the file's %zu bytes end in the setup header",
			file->name, file->len);
	ret = parse_layout(file, &bz, err);
	if (ret)
		return ret;
	ret = parse_payload(file, &bz, err);
	if (ret)
		return ret;
	bz.initrd_addr_max = get_u32(p + OFF_INITRD_MAX);
	bz.alignment = get_u32(p + OFF_ALIGNMENT);
	bz.relocatable = p[OFF_RELOCATABLE];
	bz.cmdline_max = get_u32(p + OFF_CMDLINE_SIZE);
	bz.xloadflags = bz.version >= VERSION_XLOAD ? get_u16(p + OFF_XLOADFLAGS) : 0;
	if (bz.version >= VERSION_INIT && bz.header_end >= OFF_INIT_SIZE_END) {
		bz.pref_address = get_u64(p + OFF_PREF_ADDRESS);
		bz.init_size = get_u32(p + OFF_INIT_SIZE);
	} else {
		/* Before 2.10 the kernel starts at 1 MiB; how much it needs, it does not say. */
		bz.pref_address = MIB(1);
		bz.init_size = 0;
	}
	if (bz.relocatable && (!bz.alignment || bz.alignment & (bz.alignment - 1)))
		return boot_fail(err, BOOT_ERR_MALFORMED,
				 "%.80s: kernel_alignment 0x%x at offset 0x230 is no power of two",
				 file->name, bz.alignment);
	*out = bz;
	return 0;
}
