/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target over kernel images: whatever the file says, the loader reads within it, writes
 * within guest memory, and returns. The first byte chooses the protocol and how the rest is
 * dressed.
 */
#include <asm/bootparam.h>
#include <stdlib.h>
#include <string.h>

#include "vm/boot.h"

#define RAM (64ull << 20)

/* Above these the image is given what chance would hardly find. */
enum dress { DRESS_NONE, DRESS_BZIMAGE, DRESS_PAYLOAD, DRESS_MULTIBOOT, DRESSES };

#define SETUP_LEN   1024
#define PAYLOAD_OFF 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(gpa_t gpa, uint64_t len)
{
	if (gpa > RAM || len > RAM - gpa)
		abort();
}

/* Guest memory is not kept: reading every byte of the source is what a sanitizer needs. */
static int mem_write(void *ctx, gpa_t gpa, const void *data, uint64_t len)
{
	uint8_t chunk[4096];
	uint64_t done, n;

	check(gpa, len);
	for (done = 0; done < len; done += n) {
		n = MIN(len - done, (uint64_t)sizeof(chunk));
		memcpy(chunk, (const uint8_t *)data + done, n);
		__asm__ volatile("" : : "r"(chunk) : "memory");
	}
	return 0;
}

static int mem_read(void *ctx, gpa_t gpa, void *data, uint64_t len)
{
	check(gpa, len);
	memset(data, 0, len);
	return 0;
}

static int mem_zero(void *ctx, gpa_t gpa, uint64_t len)
{
	check(gpa, len);
	return 0;
}

/* A setup header that is right, for a protected-mode part of @prot_len bytes that ends in the
 * payload. */
static void put_header(uint8_t *image, size_t prot_len, size_t payload_len)
{
	struct setup_header h = {
		.setup_sects = 1,
		.syssize = (uint32_t)((prot_len + 15) / 16),
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
		.payload_offset = PAYLOAD_OFF,
		.payload_length = (uint32_t)payload_len,
		.pref_address = 0x1000000,
		.init_size = 0x100000,
	};

	memcpy(image + 0x1f1, &h, sizeof(h));
}

/* The image in a buffer of exactly its size, so that one byte too far is seen. */
static uint8_t *dress(enum dress how, const uint8_t *data, size_t size, size_t *len)
{
	static const uint32_t multiboot[] = {0x1badb002, 1 << 16, 0u - 0x1badb002 - (1 << 16)};
	size_t lead = how == DRESS_PAYLOAD     ? SETUP_LEN + PAYLOAD_OFF
		      : how == DRESS_MULTIBOOT ? sizeof(multiboot)
					       : 0;
	uint8_t *image = calloc(1, lead + size + !size);

	if (!image)
		abort();
	*len = lead + size;
	memcpy(image + lead, data, size);
	if (how == DRESS_PAYLOAD) {
		put_header(image, PAYLOAD_OFF + size, size);
	} else if (how == DRESS_BZIMAGE && size > SETUP_LEN) {
		/* Only what makes it a candidate; all else is the input's. */
		memcpy(image + 0x1fe, "\x55\xaa", 2);
		memcpy(image + 0x202, "HdrS", 4);
	} else if (how == DRESS_MULTIBOOT) {
		memcpy(image, multiboot, sizeof(multiboot));
	}
	return image;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct boot_mem mem = {RAM, 0, NULL, mem_write, mem_read, mem_zero};
	struct boot_blob initrd = {"initrd", 6, "initrd", "args"};
	struct boot_config cfg = {.cmdline = "console=ttyS0", .cpus = 2};
	struct boot_result res;
	struct boot_error err;
	uint8_t *image;

	if (!size)
		return 0;
	cfg.protocol = (enum boot_protocol)(data[0] % BOOT_PROTOCOLS);
	image = dress((enum dress)(data[0] / BOOT_PROTOCOLS % DRESSES), data + 1, size - 1,
		      &cfg.kernel.len);
	cfg.kernel.data = image;
	cfg.kernel.name = "image";
	cfg.modules = &initrd;
	cfg.nmodules = data[0] >> 7;
	if (boot_load(&cfg, &mem, &res, &err) && err.kind == BOOT_ERR_NONE)
		abort();
	free(image);
	return 0;
}
