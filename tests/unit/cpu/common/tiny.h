/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The smallest machine: memory, tables that map it, a processor. For tests of cpu/. */
#ifndef UMBRA_TESTS_CPU_TINY_H
#define UMBRA_TESTS_CPU_TINY_H

#include "cpu/cpu.h"

/* What lies where in its memory; the rest is free. */
#define TINY_IVT   0x0ull
#define TINY_GDT   0x1000ull
#define TINY_IDT   0x2000ull
#define TINY_TSS   0x3000ull
#define TINY_PML4  0x10000ull /* identity map of all memory, writable, user */
#define TINY_STACK 0x80000ull /* RSP at the start; grows down */
#define TINY_STACK0 0x90000ull /* the TSS's stack of level 0 */
#define TINY_CODE  0x100000ull
#define TINY_DATA  0x200000ull

/* Selectors of the GDT that tiny_mode() makes. */
#define TINY_CS64  0x08
#define TINY_CS32  0x10
#define TINY_CS16  0x18
#define TINY_DS    0x20 /* flat, 32-bit, writable */
#define TINY_DS16  0x28 /* base 0, limit 64 KiB */
#define TINY_CS64_3 0x30
#define TINY_CS32_3 0x38
#define TINY_CS16_3 0x40
#define TINY_DS_3  0x48
#define TINY_TR    0x60 /* two slots */

enum tiny_mode {
	TINY_REAL,     /* CS.base 0: rip is the linear address, below 64 KiB */
	TINY_PROT16,   /* 16-bit code and stack, base 0, limit 4 GiB, no paging */
	TINY_PROT32,   /* flat, no paging */
	TINY_PROT32_PAGED, /* 32-bit paging, identity, 4 MiB pages */
	TINY_PAE,      /* flat, PAE paging, identity, 2 MiB pages */
	TINY_COMPAT16, /* long mode's */
	TINY_COMPAT32,
	TINY_LONG,
};

struct tiny {
	uint8_t *mem;
	uint64_t size;
	struct cpu_domain *domain;
	struct cpu *cpu;
	struct cpu_state *s;    /* of cpu */
	struct cpu_controls *c; /* of cpu */
	uint64_t *tables;       /* where L0's tables are made */
	unsigned tables_used;
};

/* @shift: EPT page size, 12, 21 or 30. RAM at 0. Aborts on lack of memory. */
struct tiny *tiny_create(uint64_t size, unsigned shift);
void tiny_destroy(struct tiny *t);
/* Another processor of the same machine, same controls. */
struct cpu *tiny_add_cpu(struct tiny *t);
/* The machine in a mode, at @cpl (real: 0), with rip at TINY_CODE (real, 16-bit: at 0x8000). */
void tiny_mode(struct tiny *t, enum tiny_mode mode, unsigned cpl);
/* The same for a processor that tiny_add_cpu() made. */
void tiny_mode_of(struct tiny *t, struct cpu *cpu, enum tiny_mode mode, unsigned cpl);
/* Copy bytes to where rip points. */
void tiny_code(struct tiny *t, const void *bytes, unsigned len);
/* Run at most @n instructions, also when the last run ended in HLT. */
enum cpu_exit_reason tiny_run(struct tiny *t, uint64_t n);
/* EPT entry of the page that maps @gpa. */
uint64_t *tiny_ept(struct tiny *t, gpa_t gpa);
/* The bytes of a string literal: tiny_asm(t, "\x90\xf4"). */
#define tiny_asm(t, bytes) tiny_code(t, bytes, sizeof(bytes) - 1)

/*
 * Code by the host's assembler: TINY_TEXT(add_two, 64, "add $2, %rax; hlt") defines add_two and
 * add_two_end; tiny_text(t, add_two) copies it to where rip points.
 */
#define TINY_TEXT(name, bits, text)                                                                \
	__asm__(".pushsection .rodata\n.code" #bits "\n" #name ":\n" text "\n" #name               \
		"_end:\n.code64\n.popsection\n");                                                  \
	extern const uint8_t name[], name##_end[]
#define tiny_text(t, name) tiny_code(t, name, (unsigned)(name##_end - name))

#endif
