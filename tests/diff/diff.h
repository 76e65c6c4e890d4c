/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The processor against the silicon it runs on: the same instruction, natively and on ours. */
#ifndef UMBRA_TESTS_DIFF_H
#define UMBRA_TESTS_DIFF_H

#include <Zydis/Zydis.h>

#include "cpu/cpu.h"

/*
 * Where both sides see code and data. Below 4 GiB, so that 32- and 16-bit code reaches it; in 16-bit code
 * the segments' bases are these. DATA: two pages to read and write, one to read, then nothing.
 */
#define DIFF_CODE       0x10000000u
#define DIFF_CODE_PAGES 2u
#define DIFF_DATA       0x20000000u
#define DIFF_DATA_PAGES 3u
#define DIFF_DATA_RW    2u

enum diff_mode { DIFF_64, DIFF_32, DIFF_16, DIFF_MODES };

/* The local descriptor table of both sides: what modify_ldt() can make. */
struct diff_ldt {
	uint32_t base, limit;
	uint8_t contents; /* 0 data, 1 expand-down, 2 code, 3 conforming code */
	bool is32, pages, read_only, absent;
};
enum {
	DIFF_LDT_CODE32,
	DIFF_LDT_CODE16,
	DIFF_LDT_DATA32,
	DIFF_LDT_DATA16,
	DIFF_LDT_DATA32_LOW, /* a 16-bit stack, for 32-bit code */
	DIFF_LDT_DATA16_BIG, /* a 32-bit stack, for 16-bit code */
	DIFF_LDT_MORE,       /* from here on: for DS, ES, FS, GS */
	DIFF_LDT_ENTRIES = 16,
};
extern const struct diff_ldt diff_ldt[DIFF_LDT_ENTRIES];
#define DIFF_LDT_SEL(n) ((uint16_t)((n) << 3 | 7))
#define DIFF_USER_CS    0x33 /* Linux' */
#define DIFF_USER_SS    0x2b
/* The descriptor's eight bytes, as Linux fills them. */
uint64_t diff_ldt_descriptor(const struct diff_ldt *e);
struct cpu_seg diff_ldt_segment(unsigned entry);

/* A form of an instruction: one example of its encoding, and what all examples of it share. */
struct diff_form {
	uint8_t bytes[16];
	uint8_t len;
	uint64_t key;
	char text[64];
	const char *excluded; /* why it cannot be compared, or NULL */
	bool privileged;      /* by CPL or IOPL: natively it is only refused */
	unsigned mnemonic;
	/* vectors.c: what the unit tests ran of it, and which did. */
	unsigned long vectors;
	char tests[96];
};

struct diff_forms {
	struct diff_form *form;
	size_t count, cap;
};

struct diff_regs {
	uint64_t gpr[16], rip, rflags;
	struct cpu_fx fx;
	uint64_t ymmh[16][2]; /* where the host has AVX */
};

/* What an instruction did. */
struct diff_result {
	struct diff_regs regs;
	uint16_t sel[6];
	uint64_t fs_base, gs_base;
	uint8_t vector; /* X86_VEC_DB when it completed */
	uint32_t error;
	uint64_t cr2;   /* for #PF */
	uint8_t data[DIFF_DATA_PAGES * 4096];
};

struct diff_case {
	enum diff_mode mode;
	uint8_t bytes[16];
	uint8_t len;
	bool traced;           /* with TF; else it runs into an INT3, which counts as its end */
	struct diff_regs regs; /* rip: as an offset in CS */
	struct cpu_seg seg[6];
	uint8_t data[DIFF_DATA_PAGES * 4096];
};

/* forms.c: all forms of a mode within the CPUID that we show. */
void diff_forms_find(enum diff_mode mode, struct diff_forms *out);
/* Decode and make the key that examples of one form share; false when undefined. */
bool diff_decode(enum diff_mode mode, const uint8_t *bytes, ZydisDecodedInstruction *zi,
		 ZydisDecodedOperand *op, uint64_t *key);

/*
 * vectors.c: print which privileged and system forms the unit tests ran, from the lines that they wrote to
 * $UMBRA_VECTORS. 0 when no mnemonic is left out.
 */
int diff_vectors_tell(const char *path);

/* native.c */
void diff_native_init(void);
void diff_native_run(const struct diff_case *c, struct diff_result *r);

/* soft.c */
void diff_soft_init(void);
void diff_soft_run(const struct diff_case *c, struct diff_result *r);
bool diff_soft_shows(ZydisISASet set);

#endif
