/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the MMU's callers and the devices share: kinds of access, faults as data, translations. */
#ifndef UMBRA_MMU_TYPES_H
#define UMBRA_MMU_TYPES_H

#include "base/types.h"

struct mmu_vm;
struct mmu_vcpu;

/* An access, as any of these or'ed; none is an explicit supervisor read. */
#define MMU_ACC_WRITE	 BIT(0)
#define MMU_ACC_USER	 BIT(1) /* CPL 3, or an access that counts as one */
#define MMU_ACC_FETCH	 BIT(2)
#define MMU_ACC_AC	 BIT(3) /* EFLAGS.AC: SMAP lets an explicit access pass */
#define MMU_ACC_IMPLICIT BIT(4) /* GDT, LDT, IDT, TSS: a supervisor access whatever the CPL */
#define MMU_ACC_PEEK	 BIT(5) /* for inspection: no permission checked, no A or D bit set */

/* The error code of a #PF (SDM volume 3, "Page-Fault Exceptions"). */
#define PF_P	 BIT(0)
#define PF_W	 BIT(1)
#define PF_U	 BIT(2)
#define PF_RSVD	 BIT(3)
#define PF_FETCH BIT(4)
#define PF_PK	 BIT(5)

/* A fault that belongs to the guest; -errno never means this. */
struct guest_fault {
	uint8_t vector;	     /* 14 (#PF); with @nested, unused */
	uint32_t error_code; /* PF_*; with @nested the EPT violation's exit qualification */
	uint64_t cr2;	     /* the linear address; with @nested the ngpa that faulted */
	bool nested;	     /* L1 gets an EPT violation or misconfiguration, no #PF */
	bool misconfig;	     /* with @nested */
};

/* The form of the tables a root leads to. */
enum mmu_format {
	MMU_FORMAT_X86, /* 4 or 5 levels of 64-bit entries, one-dimensional: shadow */
	MMU_FORMAT_EPT,
	MMU_FORMAT_NPT,
};

enum mmu_policy {
	MMU_POLICY_SHADOW,
	MMU_POLICY_TDP,
	/*
	 * Somebody else (/dev/kvm) runs the guest by tables of its own: we build none. Slots, the
	 * walker of the guest's tables and the dirty log work as ever.
	 */
	MMU_POLICY_KERNEL,
};

#define MMU_MAX_LEVEL 5

/* One guest table entry that a walk read. */
struct mmu_walk_step {
	uint8_t level; /* 5..1; a PDPTE of PAE paging is level 3, and then @gpa is the register's
			  number */
	gpa_t gpa;     /* where the entry lies */
	uint64_t raw;
};

/* The result of a walk of the guest's tables. */
struct mmu_walk_result {
	gpa_t gpa;	    /* on success: of the byte asked for */
	uint8_t page_shift; /* of the guest's page: 12, 21, 22, 30; 12 without paging */
	uint8_t access;	    /* MMU_MAP_* that the tables grant, over all levels */
	uint8_t nsteps;
	struct mmu_walk_step steps[MMU_MAX_LEVEL]; /* from the root down */
	struct guest_fault fault;		   /* when the walk ended in one */
};

/* What a table entry, or all those on the way to a page, allow. */
#define MMU_MAP_EXEC  BIT(0)
#define MMU_MAP_WRITE BIT(1)
#define MMU_MAP_USER  BIT(2)
#define MMU_MAP_ALL   (MMU_MAP_EXEC | MMU_MAP_WRITE | MMU_MAP_USER)

#endif
