/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptors, far transfers and multi-word stack frames: what the system files of cpu/ share. */
#ifndef UMBRA_CPU_SEGMENT_H
#define UMBRA_CPU_SEGMENT_H

#include "cpu/cpu_internal.h"

/* All of this runs after cpu_begin() or between instructions: faults leave with i == NULL. */

static inline bool cpu_long_mode(const struct cpu *c)
{
	return c->s.efer & X86_EFER_LMA;
}

static inline bool cpu_code64(const struct cpu *c)
{
	return cpu_long_mode(c) && (c->s.seg[X86_CS].attr & X86_ATTR_L);
}

static inline bool cpu_vm86(const struct cpu *c)
{
	return c->s.rflags & X86_FLAG_VM;
}

/* Protected mode with descriptors: CR0.PE and not virtual-8086. */
static inline bool cpu_protected(const struct cpu *c)
{
	return (c->s.cr0 & X86_CR0_PE) && !cpu_vm86(c);
}

static inline unsigned cpu_iopl(const struct cpu *c)
{
	return c->s.rflags >> 12 & 3;
}

static inline bool cpu_sel_null(uint16_t sel)
{
	return (sel & ~3u) == 0;
}

/* Selector faults: error code is the selector without RPL, plus EXT. */
_Noreturn static inline void cpu_fault_sel(struct cpu *c, uint8_t vector, uint16_t sel, bool ext)
{
	cpu_fault_err(c, NULL, vector, (sel & 0xfffcu) | ext);
}

/*
 * What base registers may hold (WRMSR, LGDT, LTR, WRFSBASE, INVPCID): canonical for the widest
 * paging that the processor has, whatever CR4.LA57 says.
 */
static inline bool cpu_base_canonical(const struct cpu *c, uint64_t base)
{
	unsigned shift = cpu_has(c, CPU_FEAT_LA57) ? 64 - 57 : 64 - 48;

	return (uint64_t)((int64_t)(base << shift) >> shift) == base;
}

/* A descriptor as it lies in memory. */
struct cpu_desc {
	uint64_t lin; /* where */
	uint32_t lo, hi;
	uint64_t base_hi; /* bits 63:32 of the base of a 16-byte one, in place; else 0 */
};

static inline unsigned cpu_desc_dpl(const struct cpu_desc *d)
{
	return d->hi >> 13 & 3;
}

/* Type and S: 0x10 | type for code and data. */
static inline unsigned cpu_desc_type(const struct cpu_desc *d)
{
	return d->hi >> 8 & 0x1f;
}

static inline bool cpu_desc_present(const struct cpu_desc *d)
{
	return d->hi & BIT(15);
}

static inline bool cpu_desc_is_code(const struct cpu_desc *d)
{
	return (cpu_desc_type(d) & 0x18) == 0x18;
}

static inline bool cpu_desc_conforming(const struct cpu_desc *d)
{
	return (cpu_desc_type(d) & 0x1c) == 0x1c;
}

static inline bool cpu_desc_writable_data(const struct cpu_desc *d)
{
	return (cpu_desc_type(d) & 0x1a) == 0x12;
}

/* Code for 64-bit mode: L set, D clear. With both set no descriptor can be loaded into CS in long
 * mode. */
static inline bool cpu_desc_code64(const struct cpu_desc *d)
{
	return (d->hi & (BIT(21) | BIT(22))) == BIT(21);
}

static inline bool cpu_desc_l_and_d(const struct cpu_desc *d)
{
	return (d->hi & (BIT(21) | BIT(22))) == (BIT(21) | BIT(22));
}

/* System types (SDM 3A 3.5). */
enum {
	CPU_SYS_TSS16 = 1,
	CPU_SYS_LDT = 2,
	CPU_SYS_TSS16_BUSY = 3,
	CPU_SYS_CALL16 = 4,
	CPU_SYS_TASK = 5,
	CPU_SYS_INT16 = 6,
	CPU_SYS_TRAP16 = 7,
	CPU_SYS_TSS = 9,
	CPU_SYS_TSS_BUSY = 11,
	CPU_SYS_CALL = 12,
	CPU_SYS_INT = 14,
	CPU_SYS_TRAP = 15,
};

/* False: beyond the table's limit, or in an LDT that is not there. @sel is not null. */
bool cpu_desc_read(struct cpu *c, uint16_t sel, struct cpu_desc *d);
/* The second half of a 16-byte descriptor; false: beyond the limit, or its type field is not 0. */
bool cpu_desc_read_high(struct cpu *c, uint16_t sel, struct cpu_desc *d);
/* Set the accessed bit in memory and in @d. */
void cpu_desc_set_accessed(struct cpu *c, struct cpu_desc *d);
/* Set or clear the busy bit of a TSS descriptor in memory. */
void cpu_desc_set_busy(struct cpu *c, const struct cpu_desc *d, bool busy);
void cpu_desc_unpack(const struct cpu_desc *d, uint16_t sel, struct cpu_seg *seg);
void cpu_seg_set_null(struct cpu_seg *seg, uint16_t sel, unsigned dpl);
/*
 * Check @sel as a stack segment for CPL @cpl, and read it into @out. Faults: @vector(sel), or
 * #SS(sel) when not present. Null is the caller's matter.
 */
void cpu_ss_check(struct cpu *c, uint16_t sel, unsigned cpl, uint8_t vector, bool ext,
		  struct cpu_seg *out);
/* After a return to an outer level: data segments that it may not see become null. */
void cpu_drop_inner_segs(struct cpu *c, unsigned cpl);

/* A stack on which several words are pushed or read, all checked before the first is written. */
struct cpu_stack {
	const struct cpu_seg *ss;
	uint64_t sp;
	uint64_t mask;	/* the stack pointer's width; ~0: 64-bit mode, no segment */
	bool sys;	/* accesses are supervisor's, whatever the CPL is now */
	uint32_t error; /* of the #SS */
};
uint64_t cpu_stack_mask(const struct cpu_seg *ss, bool long64);
/* The current stack. */
struct cpu_stack cpu_stack_now(struct cpu *c);
/* Push v[0], v[1], ..; sp follows. Leaves with a fault before anything is written. */
void cpu_stack_push(struct cpu *c, struct cpu_stack *st, const uint64_t *v, unsigned n,
		    unsigned size);
/* Would @bytes fit, and may they be written? */
void cpu_stack_room(struct cpu *c, const struct cpu_stack *st, unsigned n, unsigned size);
/* Read the word @at bytes above sp. */
uint64_t cpu_stack_peek(struct cpu *c, const struct cpu_stack *st, unsigned at, unsigned size);
/* Put st->sp (plus nothing) into RSP by the width in @mask. */
void cpu_stack_commit(struct cpu *c, uint64_t sp, uint64_t mask);

/*
 * The stack that the TSS holds for @cpl (1..3: 0..2 too), or with @ist its interrupt stack. In long
 * mode only sp is filled.
 */
struct cpu_inner_stack {
	uint16_t sel;
	uint64_t sp;
};
struct cpu_inner_stack cpu_tss_stack(struct cpu *c, unsigned cpl, unsigned ist, bool ext);

/* far.c: as the instructions; registers of c->s change only when nothing can fault any more. */
struct cpu_far {
	uint16_t sel;
	uint64_t off;
	unsigned size; /* operand size: 2, 4, 8 */
	uint64_t return_rip;
};
void cpu_far_jump(struct cpu *c, const struct cpu_far *f);
void cpu_far_call(struct cpu *c, const struct cpu_far *f);
void cpu_far_return(struct cpu *c, unsigned size, uint16_t release);
void cpu_iret(struct cpu *c, unsigned size, uint64_t return_rip);

/*
 * cr.c: as cpu_set_cr0() and so on, from inside a run (@run): PAE's four entries are read, which
 * may leave. Out of a run L0 gives them in the state.
 */
int cpu_write_cr0(struct cpu *c, uint64_t value, bool run);
int cpu_write_cr4(struct cpu *c, uint64_t value, bool run);
/* A value for CR3 that was checked, and what comes with it. */
struct cpu_cr3 {
	uint64_t value;
	uint64_t pdptr[4];
	bool has_pdptr;
};
int cpu_cr3_check(struct cpu *c, uint64_t value, struct cpu_cr3 *cr3, bool run);
void cpu_cr3_commit(struct cpu *c, const struct cpu_cr3 *cr3);
uint64_t cpu_read_cr0(const struct cpu *c); /* as the guest sees it */
uint64_t cpu_read_cr4(const struct cpu *c);

/* IF may have been set, or NMIs unblocked: does L0 wait for that? */
static inline void cpu_window_opened(struct cpu *c)
{
	if (c->ctl.exits & (CPU_CTL_IRQ_WINDOW | CPU_CTL_NMI_WINDOW))
		cpu_recheck(c);
}

#endif
