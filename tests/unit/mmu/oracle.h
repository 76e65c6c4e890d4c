/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What x86 paging says, written from the manual for tests alone; shares no code with mmu/. */
#ifndef UMBRA_TESTS_ORACLE_H
#define UMBRA_TESTS_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

struct oracle_regs {
	uint64_t cr0, cr3, cr4, efer;
	uint64_t pdptr[4];
	uint32_t pkru;
	unsigned width; /* MAXPHYADDR */
	bool gbpages;
};

/* How the oracle reads guest-physical memory: false when nothing is there. */
struct oracle_mem {
	bool (*read)(void *priv, uint64_t gpa, unsigned size, uint64_t *value);
	void *priv;
};

enum oracle_kind { ORACLE_OK, ORACLE_NOT_PRESENT, ORACLE_RESERVED };

struct oracle_entry {
	uint64_t gpa, value;
	unsigned size;
};

/* A translation, before anything is asked of an access. */
struct oracle_xlat {
	enum oracle_kind kind;
	uint64_t frame; /* gpa of the 4-KiB frame */
	bool w, u, x, g;
	bool a, d; /* A is set in all entries, D in the leaf */
	unsigned key;
	unsigned n; /* entries read from memory, the last one the leaf */
	struct oracle_entry entry[5];
};

/* Implicit: to a descriptor table or the like, the supervisor's whatever the privilege. */
enum { OACC_W = 1, OACC_U = 2, OACC_X = 4, OACC_AC = 8, OACC_IMPLICIT = 16 };
/* A walk's own access to a table, where EPT's A and D bits are in use: with OACC_W. */
enum { OACC_TABLE_AD = 32 };

void oracle_translate(const struct oracle_regs *regs, const struct oracle_mem *mem, uint64_t la,
		      struct oracle_xlat *out);
/* 0: the access is allowed; else the #PF error code plus bit 31. */
uint32_t oracle_judge(const struct oracle_regs *regs, const struct oracle_xlat *x, unsigned access);
#define ORACLE_FAULT 0x80000000u

bool oracle_same(const struct oracle_xlat *a, const struct oracle_xlat *b);

/* ---- an L1's EPT: from L2's physical addresses to L1's ---- */

struct oracle_ept_regs {
	uint64_t eptp;
	bool exec_only; /* L1 was told that there are execute-only entries */
	unsigned width;
};

enum oracle_ept_kind { ORACLE_EPT_OK, ORACLE_EPT_VIOLATION, ORACLE_EPT_MISCONFIG };

struct oracle_ept {
	enum oracle_ept_kind kind; /* violation: an entry was not present */
	uint64_t frame;
	bool r, w, x;
	bool a, d; /* set, or not in use */
	unsigned n;
	struct oracle_entry entry[4];
};

void oracle_ept_translate(const struct oracle_ept_regs *regs, const struct oracle_mem *mem,
			  uint64_t ngpa, struct oracle_ept *out);
bool oracle_ept_allows(const struct oracle_ept *x, unsigned access);
/* The exit qualification's bits 5:0 of a violation. */
uint32_t oracle_ept_qualification(const struct oracle_ept *x, unsigned access);
bool oracle_ept_same(const struct oracle_ept *a, const struct oracle_ept *b);

#endif
