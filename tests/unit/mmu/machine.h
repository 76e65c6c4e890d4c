/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A small machine for tests: memory, an engine's calls, and processors that walk our tables and
 * keep a TLB. */
#ifndef UMBRA_TESTS_MACHINE_H
#define UMBRA_TESTS_MACHINE_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mmu/mmu.h"
#include "mmu/stats.h"
#include "oracle.h"

#define NR_CPUS	   4
#define NR_TLB	   64
#define NR_PSC	   16
#define NR_REGIONS 8

struct tlb_entry {
	bool valid;
	uint64_t tag, page; /* root and 4-KiB page of the address; under TDP of the gpa */
	uint64_t hpa;	    /* of the 4-KiB page */
	bool w, u, x, g, d;
	unsigned key, pcid;
	unsigned level; /* (psc) of the table */
	unsigned space; /* 0, or 1 + the number of the L1's EPT that it came by */
};

struct machine;
struct outcome;

struct cpu {
	struct machine *m;
	struct mmu_vcpu *v;
	struct mmu_regs regs;
	struct mmu_root root;
	/*
	 * In guest mode it runs by the root it has, and asks for none, until it faults, calls into
	 * mmu/ or is flushed; a kick only makes it leave after one access more. Both atomic.
	 */
	bool in_guest, kicked;
	struct tlb_entry tlb[NR_TLB];
	/* Tables remembered: @page is the part of the address that led there, @hpa the table. */
	struct tlb_entry psc[NR_PSC];
	unsigned next_tlb, next_psc;
	uint64_t pml[64];
	unsigned pml_n;
	/* In L2: @regs are its, L1's wait here. */
	bool nested;
	unsigned ept; /* a number that the test gives to each EPTP */
	struct mmu_nested_regs nregs;
	struct mmu_regs l1;
};

struct region {
	bool used;
	uint32_t id;
	gpa_t gpa;
	uint64_t size;
	uint8_t *host;
	bool readonly;
};

struct machine {
	struct mmu_vm *vm;
	unsigned nr_cpus;
	struct cpu cpu[NR_CPUS];
	struct region region[NR_REGIONS];
	uint8_t *map; /* all host memory, 1-GiB aligned */
	size_t map_size;
	uint64_t flushes, kicks, notified;
	uint64_t kicked; /* the vCPUs that a kick has named */
	/* All below are optional. */
	/* Called before TLBs are flushed: a processor's last chance to use what it has. */
	void (*before_flush)(struct machine *m, const struct mmu_flush *f);
	/* A processor or the emulator is about to store data. */
	void (*storing)(struct machine *m);
	/* Host memory was written, by a processor or by L0. */
	void (*wrote)(struct machine *m, uint64_t hpa, uint64_t len);
	/* TDP: an address went through our tables, to o->hpa or to what ended the access. */
	void (*resolved)(struct cpu *c, uint64_t gpa, unsigned access, const struct outcome *o);
	/* A vCPU's ring is full: make room. */
	void (*ring_full)(struct cpu *c);
};

enum outcome_kind { OUT_OK, OUT_FAULT, OUT_MMIO, OUT_NESTED };
struct outcome {
	enum outcome_kind kind;
	uint64_t hpa;  /* OUT_OK: of the byte */
	gpa_t gpa;     /* OUT_MMIO */
	uint32_t code; /* OUT_FAULT; OUT_NESTED: the qualification */
	uint64_t cr2;  /* OUT_NESTED: the ngpa */
	bool misconfig;
	unsigned faults; /* how many L0 handled */
	bool emulated;
	unsigned access; /* what was asked for */
};

void machine_init(struct machine *m, const struct mmu_config *config, unsigned nr_cpus);
void machine_finish(struct machine *m);
/* A slot of fresh zeroed memory at @offset of the machine's map. */
void machine_add(struct machine *m, uint32_t id, gpa_t gpa, uint64_t size, uint64_t offset,
		 uint32_t flags);
/* Where a guest byte lies by the test's own account, or NULL. */
void *machine_ptr(struct machine *m, gpa_t gpa);
/* The processors hand over what their modification logs hold. */
void machine_drain(struct machine *m);
void machine_audit(struct machine *m);
/* Out of guest mode, as before anything else that calls into mmu/ for that vCPU (for all). */
void cpu_leave(struct cpu *c);
void machine_leave(struct machine *m);

/* Paging on, by kind; and the registers handed to the MMU. */
enum paging { PAGING_NONE, PAGING_32, PAGING_PAE, PAGING_4, PAGING_5 };
void cpu_paging(struct cpu *c, enum paging kind, uint64_t cr3);
void cpu_set_regs(struct cpu *c, const struct mmu_regs *regs);
void cpu_flush(struct cpu *c, bool globals);
void cpu_invlpg(struct cpu *c, uint64_t la);
/* Bit 63 of @cr3 (with CR4.PCIDE): nothing is flushed. */
void cpu_load_cr3(struct cpu *c, uint64_t cr3);
void cpu_invpcid(struct cpu *c, enum mmu_invpcid type, unsigned pcid, uint64_t la);
/* Run an L2 by this EPT, whose number is @ept; and go back to L1. -EINVAL as from the MMU. */
int cpu_enter_nested(struct cpu *c, const struct mmu_nested_regs *regs, unsigned ept);
void cpu_leave_nested(struct cpu *c);
/* INVEPT: of this EPT, or (@eptp 0) of all. */
void cpu_invept(struct cpu *c, uint64_t eptp, unsigned ept);
/* 0 without CR4.PCIDE. */
unsigned cpu_pcid(const struct cpu *c);

/* One data access of 8 bytes (a fetch or read moves nothing). @access: OACC_*. */
struct outcome cpu_access(struct cpu *c, uint64_t la, unsigned access, uint64_t value,
			  unsigned size);

/* Write a table entry as the guest's own store through physical memory would, with no tracking. */
static inline void poke(struct machine *m, gpa_t gpa, uint64_t value)
{
	*(uint64_t *)machine_ptr(m, gpa) = value;
}
static inline void poke32(struct machine *m, gpa_t gpa, uint32_t value)
{
	*(uint32_t *)machine_ptr(m, gpa) = value;
}
static inline uint64_t peek(struct machine *m, gpa_t gpa)
{
	return *(uint64_t *)machine_ptr(m, gpa);
}
static inline uint32_t peek32(struct machine *m, gpa_t gpa)
{
	return *(uint32_t *)machine_ptr(m, gpa);
}

#endif
