/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Boot protocols: a kernel image becomes guest memory and the first processor's state. */
#ifndef UMBRA_VM_BOOT_H
#define UMBRA_VM_BOOT_H

#include "base/types.h"

/*
 * Guest memory as the loader sees it (see memmap.h for where the two parts lie). Every call returns
 * 0 or -errno; a range that is not all RAM is -EFAULT. The loader asks only for ranges that it
 * checked.
 */
struct boot_mem {
	uint64_t ram_below_4g, ram_above_4g;
	void *ctx;
	int (*write)(void *ctx, gpa_t gpa, const void *data, uint64_t len);
	int (*read)(void *ctx, gpa_t gpa, void *data, uint64_t len);
	int (*zero)(void *ctx, gpa_t gpa, uint64_t len);
};

enum boot_protocol {
	BOOT_AUTO, /* a bzImage as PAYLOAD where it can be unpacked; an ELF by PVH, then multiboot
		    */
	BOOT_PAYLOAD,	/* a bzImage's vmlinux, unpacked by us and entered as its decompressor would
			 */
	BOOT_BZIMAGE64, /* a bzImage by its 64-bit entry: it decompresses itself */
	BOOT_BZIMAGE32, /* the same by its 32-bit entry */
	BOOT_PVH,	/* an ELF, or what a bzImage unpacks to, by XEN_ELFNOTE_PHYS32_ENTRY */
	BOOT_MULTIBOOT, /* multiboot 1: ELF, or flat with addresses in its header */
	BOOT_VMLINUX,	/* a Linux ELF at its own entry, with boot_params */
	BOOT_PROTOCOLS,
};

/* "auto", "payload", "bzimage64", "bzimage32", "pvh", "multiboot", "vmlinux". */
const char *boot_protocol_name(enum boot_protocol p);
/* -EINVAL for a name that is none of these. */
int boot_protocol_parse(const char *name, enum boot_protocol *p);

enum boot_error_kind {
	BOOT_ERR_NONE,
	BOOT_ERR_NOT_A_KERNEL,	 /* no known format */
	BOOT_ERR_TRUNCATED,	 /* the file ends before what it announces */
	BOOT_ERR_MALFORMED,	 /* a field contradicts another or the format */
	BOOT_ERR_UNSUPPORTED,	 /* right, but this loader or this protocol cannot */
	BOOT_ERR_COMPRESSION,	 /* the payload does not unpack */
	BOOT_ERR_OUTSIDE_MEMORY, /* a segment lies outside the guest's RAM */
	BOOT_ERR_MEMORY_TOO_SMALL,
	BOOT_ERR_INITRD,  /* does not fit */
	BOOT_ERR_CMDLINE, /* too long */
	BOOT_ERR_CONFIG,  /* the caller's request makes no sense */
	BOOT_ERR_SYSTEM,  /* we failed: no memory, guest memory not writable */
};

/* @text is one sentence without a full stop; it names the file, and offset or field where there is
 * one. */
struct boot_error {
	enum boot_error_kind kind;
	char text[256];
};

/* "not_a_kernel", "truncated", …: for machines to read, never to change. */
const char *boot_error_kind_name(enum boot_error_kind kind);

/* A file's bytes; the caller owns them. @name is what messages call it. @args: a module's command
 * line. */
struct boot_blob {
	const void *data;
	size_t len;
	const char *name, *args;
};

#define BOOT_MODULES_MAX 16
#define BOOT_CPUS_MAX	 1024

struct boot_config {
	enum boot_protocol protocol;
	struct boot_blob kernel;
	/* Linux takes one at most, the initrd; multiboot and PVH take BOOT_MODULES_MAX. */
	const struct boot_blob *modules;
	unsigned nmodules;
	const char *cmdline; /* NULL is empty */
	unsigned cpus;	     /* 1 to BOOT_CPUS_MAX */
	bool no_acpi;	     /* only MP table and SMBIOS */
};

/* Selector, base, limit in bytes, and access rights in the form of VMX (SDM 3C, 25.4.1). */
struct boot_seg {
	uint16_t sel;
	uint32_t limit, ar;
	uint64_t base;
};

#define BOOT_AR_UNUSABLE 0x10000u

enum boot_mode { BOOT_MODE_REAL, BOOT_MODE_PROT32, BOOT_MODE_LONG64 };
enum { BOOT_ES, BOOT_CS, BOOT_SS, BOOT_DS, BOOT_FS, BOOT_GS, BOOT_SEGS };

/* The first processor's whole state; what is not here is as after reset. */
struct boot_cpu_state {
	enum boot_mode mode;
	uint64_t gpr[16]; /* in the encoding's order: rax rcx rdx rbx rsp rbp rsi rdi r8 … r15 */
	uint64_t rip, rflags;
	struct boot_seg seg[BOOT_SEGS], tr, ldtr;
	uint64_t gdt_base, idt_base;
	uint16_t gdt_limit, idt_limit;
	uint64_t cr0, cr3, cr4, efer;
};

struct boot_result {
	enum boot_protocol protocol; /* what was used; never BOOT_AUTO */
	const char *compression;     /* "gzip", …; NULL when nothing was unpacked */
	gpa_t load_start, load_end;  /* the kernel in memory, BSS included */
	gpa_t initrd;		     /* the first module, 0 for none */
	uint64_t initrd_len;
	struct boot_cpu_state cpu;
};

/*
 * Load everything: firmware tables, kernel, modules, command line. Memory is taken to be zero
 * beforehand (what must be zero is zeroed nevertheless). Returns 0, or -errno with @err filled in
 * (-EINVAL for bad input); memory may then be half written and @result is untouched.
 */
int boot_load(const struct boot_config *cfg, const struct boot_mem *mem, struct boot_result *result,
	      struct boot_error *err);

/* The state in which a start-up IPI with @vector leaves a processor (SDM 3A, 9.4.3). */
void boot_cpu_sipi(struct boot_cpu_state *cpu, uint8_t vector);

#endif
