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

/* A form of an instruction: one example of its encoding, and what all examples of it share. */
struct diff_form {
	uint8_t bytes[16];
	uint8_t len;
	uint64_t key;
	char text[64];
	const char *excluded; /* why it cannot be compared, or NULL */
};

struct diff_forms {
	struct diff_form *form;
	size_t count, cap;
};

struct diff_regs {
	uint64_t gpr[16], rip, rflags;
	struct cpu_fx fx;
};

/* What an instruction did. */
struct diff_result {
	struct diff_regs regs;
	uint8_t vector; /* X86_VEC_DB when it completed */
	uint32_t error;
	uint64_t cr2;   /* for #PF */
	uint8_t data[DIFF_DATA_PAGES * 4096];
};

struct diff_case {
	enum diff_mode mode;
	uint8_t bytes[16];
	uint8_t len;
	struct diff_regs regs; /* rip: as an offset in CS */
	uint8_t data[DIFF_DATA_PAGES * 4096];
};

/* forms.c: all forms of a mode within the CPUID that we show. */
void diff_forms_find(enum diff_mode mode, struct diff_forms *out);
/* Decode and make the key that examples of one form share; false when undefined. */
bool diff_decode(enum diff_mode mode, const uint8_t *bytes, ZydisDecodedInstruction *zi,
		 ZydisDecodedOperand *op, uint64_t *key);

/* native.c */
void diff_native_init(void);
void diff_native_run(const struct diff_case *c, struct diff_result *r);
uint16_t diff_native_selector(enum diff_mode mode, unsigned seg);

/* soft.c */
void diff_soft_init(void);
void diff_soft_run(const struct diff_case *c, struct diff_result *r);
bool diff_soft_shows(ZydisISASet set);

#endif
