/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hardware task switches (SDM 3A chapter 8). */
#include "cpu/segment.h"

/* Where things lie in a TSS of either width. */
struct tss_layout {
	uint8_t size;  /* of a register */
	uint8_t limit; /* the least that the segment's limit must be */
	uint8_t ip, flags, gpr, seg, segs, ldt;
};
static const struct tss_layout tss16 = {2, 0x2b, 0x0e, 0x10, 0x12, 0x22, 4, 0x2a};
static const struct tss_layout tss32 = {4, 0x67, 0x20, 0x24, 0x28, 0x48, 6, 0x60};
#define TSS_CR3 0x1c
#define TSS_T	0x64

/* What a TSS holds of a task. */
struct task {
	uint64_t cr3;
	uint32_t eip, eflags, gpr[8];
	uint16_t seg[6], ldt;
	bool trap;
};

static uint64_t tss_lin(uint64_t base, unsigned at)
{
	return (uint32_t)(base + at);
}

static const struct tss_layout *layout_of(unsigned type)
{
	return type & 8 ? &tss32 : &tss16;
}

static void read_task(struct cpu *c, const struct tss_layout *l, uint64_t base, struct task *t)
{
	*t = (struct task){
		.eip = (uint32_t)cpu_ld_sys(c, tss_lin(base, l->ip), l->size),
		.eflags = (uint32_t)cpu_ld_sys(c, tss_lin(base, l->flags), l->size),
		.ldt = (uint16_t)cpu_ld_sys(c, tss_lin(base, l->ldt), 2),
	};
	for (unsigned n = 0; n < 8; n++)
		t->gpr[n] = (uint32_t)cpu_ld_sys(c, tss_lin(base, l->gpr + n * l->size), l->size);
	for (unsigned n = 0; n < l->segs; n++)
		t->seg[n] = (uint16_t)cpu_ld_sys(c, tss_lin(base, l->seg + n * l->size), 2);
	if (l->size == 4) {
		t->cr3 = cpu_ld_sys(c, tss_lin(base, TSS_CR3), 4);
		t->trap = cpu_ld_sys(c, tss_lin(base, TSS_T), 2) & 1;
	}
}

static void save_task(struct cpu *c, const struct tss_layout *l, uint64_t rip, uint64_t rflags)
{
	uint64_t base = c->s.tr.base;

	cpu_st_sys(c, tss_lin(base, l->ip), rip, l->size);
	cpu_st_sys(c, tss_lin(base, l->flags), rflags, l->size);
	for (unsigned n = 0; n < 8; n++)
		cpu_st_sys(c, tss_lin(base, l->gpr + n * l->size), c->s.gpr[n], l->size);
	for (unsigned n = 0; n < l->segs; n++)
		cpu_st_sys(c, tss_lin(base, l->seg + n * l->size), c->s.seg[n].sel, 2);
}

/* The new TSS' descriptor, with the checks of step 2 to 5 of SDM 3A 8.3. */
static void check_tss(struct cpu *c, const struct cpu_task_switch *t, struct cpu_desc *d)
{
	bool iret = t->source == CPU_TASK_IRET;
	uint8_t vector = iret ? X86_VEC_TS : X86_VEC_GP;
	struct cpu_seg tr;
	unsigned type;

	if (cpu_sel_null(t->sel) || (t->sel & 4) || !cpu_desc_read(c, t->sel, d))
		cpu_fault_sel(c, vector, t->sel, t->ext);
	type = cpu_desc_type(d);
	if ((type & ~8u) != (iret ? CPU_SYS_TSS16_BUSY : CPU_SYS_TSS16))
		cpu_fault_sel(c, vector, t->sel, t->ext);
	if (!cpu_desc_present(d))
		cpu_fault_sel(c, X86_VEC_NP, t->sel, t->ext);
	cpu_desc_unpack(d, t->sel, &tr);
	if (tr.limit < layout_of(type)->limit)
		cpu_fault_sel(c, X86_VEC_TS, t->sel, t->ext);
}

/* ---- in the new task ----------------------------------------------------------------------------
 */

static void load_ldt(struct cpu *c, uint16_t sel, bool ext)
{
	struct cpu_desc d;

	cpu_seg_set_null(&c->s.ldtr, sel, 0);
	if (cpu_sel_null(sel))
		return;
	if ((sel & 4) || !cpu_desc_read(c, sel, &d) || cpu_desc_type(&d) != CPU_SYS_LDT ||
	    !cpu_desc_present(&d))
		cpu_fault_sel(c, X86_VEC_TS, sel, ext);
	cpu_desc_unpack(&d, sel, &c->s.ldtr);
}

static void load_cs(struct cpu *c, uint16_t sel, bool ext)
{
	struct cpu_desc d;
	unsigned rpl = sel & 3;

	if (cpu_sel_null(sel) || !cpu_desc_read(c, sel, &d) || !cpu_desc_is_code(&d))
		cpu_fault_sel(c, X86_VEC_TS, sel, ext);
	if (cpu_desc_conforming(&d) ? cpu_desc_dpl(&d) > rpl : cpu_desc_dpl(&d) != rpl)
		cpu_fault_sel(c, X86_VEC_TS, sel, ext);
	if (!cpu_desc_present(&d))
		cpu_fault_sel(c, X86_VEC_NP, sel, ext);
	cpu_desc_set_accessed(c, &d);
	cpu_desc_unpack(&d, sel, &c->s.seg[X86_CS]);
}

static void load_data(struct cpu *c, unsigned seg, uint16_t sel, bool ext)
{
	struct cpu_desc d;
	unsigned type;

	if (cpu_sel_null(sel))
		return;
	if (!cpu_desc_read(c, sel, &d))
		cpu_fault_sel(c, X86_VEC_TS, sel, ext);
	type = cpu_desc_type(&d);
	if (!(type & 0x10) || (type & 0xa) == 8)
		cpu_fault_sel(c, X86_VEC_TS, sel, ext);
	if ((type & 0xc) != 0xc && MAX(sel & 3u, cpu_cpl(c)) > cpu_desc_dpl(&d))
		cpu_fault_sel(c, X86_VEC_TS, sel, ext);
	if (!cpu_desc_present(&d))
		cpu_fault_sel(c, X86_VEC_NP, sel, ext);
	cpu_desc_set_accessed(c, &d);
	cpu_desc_unpack(&d, sel, &c->s.seg[seg]);
}

static void load_segs(struct cpu *c, const struct task *in, bool ext)
{
	static const uint8_t data_segs[] = {X86_ES, X86_DS, X86_FS, X86_GS};

	load_ldt(c, in->ldt, ext);
	if (cpu_vm86(c)) {
		for (unsigned n = 0; n < 6; n++)
			cpu_load_seg_real(c, n, in->seg[n]);
		return;
	}
	load_cs(c, in->seg[X86_CS], ext);
	if (cpu_sel_null(in->seg[X86_SS]))
		cpu_fault_sel(c, X86_VEC_TS, in->seg[X86_SS], ext);
	cpu_ss_check(c, in->seg[X86_SS], in->seg[X86_CS] & 3, X86_VEC_TS, ext, &c->s.seg[X86_SS]);
	for (unsigned n = 0; n < ARRAY_SIZE(data_segs); n++)
		load_data(c, data_segs[n], in->seg[data_segs[n]], ext);
}

/* The registers of the new task; its segments are selectors only, until they are checked. */
static void enter_task(struct cpu *c, const struct tss_layout *l, const struct task *in)
{
	uint64_t high = l->size == 2 ? 0xffff0000u : 0;
	unsigned cpl = in->seg[X86_CS] & 3;

	for (unsigned n = 0; n < 8; n++)
		c->s.gpr[n] = in->gpr[n] | high;
	c->s.rip = in->eip;
	c->s.rflags = (in->eflags & (X86_FLAGS_ARITH | X86_FLAG_TF | X86_FLAG_IF | X86_FLAG_DF |
				     X86_FLAG_IOPL | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_VM |
				     X86_FLAG_AC | X86_FLAG_VIF | X86_FLAG_VIP | X86_FLAG_ID)) |
		      X86_FLAG_ONE;
	for (unsigned n = 0; n < 6; n++)
		cpu_seg_set_null(&c->s.seg[n], in->seg[n], n == X86_SS ? cpl : 0);
	c->s.dr7 &= ~0x155ull; /* L0 to L3 and LE end with a task */
	c->s.cr0 |= X86_CR0_TS;
}

static void push_error(struct cpu *c, const struct tss_layout *l, uint32_t error)
{
	struct cpu_stack st = cpu_stack_now(c);

	cpu_stack_push(c, &st, (uint64_t[]){error}, 1, l->size);
	cpu_stack_commit(c, st.sp, st.mask);
}

/* Everything that may fault in the old task, or leave, comes before the first change. */
static void probe_tss(struct cpu *c, const struct tss_layout *out, const struct tss_layout *in,
		      uint64_t base, const struct cpu_task_switch *t, const struct cpu_desc *d)
{
	cpu_probe(c, NULL, tss_lin(c->s.tr.base, 0), out->limit + 1,
		  CPU_ACCESS_WRITE | CPU_ACCESS_IMPLICIT);
	cpu_probe(c, NULL, tss_lin(base, 0), in->limit + 1,
		  CPU_ACCESS_IMPLICIT | (t->source == CPU_TASK_CALL || t->source == CPU_TASK_GATE
						 ? CPU_ACCESS_WRITE
						 : 0));
	cpu_probe(c, NULL, d->lin, 8, CPU_ACCESS_WRITE | CPU_ACCESS_IMPLICIT);
}

static void leave_if_wanted(struct cpu *c, const struct cpu_task_switch *t, bool new_cr3)
{
	if (c->mem_ops)
		return; /* L0 emulates the switch */
	if (!(c->ctl.exits & CPU_CTL_TASK_SWITCH) &&
	    !(new_cr3 && (c->ctl.exits & CPU_CTL_CR3_LOAD)))
		return;
	c->exit.task.sel = t->sel;
	c->exit.task.source = t->source;
	cpu_leave(c, NULL, CPU_EXIT_TASK_SWITCH);
}

/* The descriptor of the task that ends; only JMP and IRET change it. */
static void old_desc(struct cpu *c, const struct cpu_task_switch *t, struct cpu_desc *old)
{
	if (!cpu_desc_read(c, c->s.tr.sel, old))
		cpu_fault_sel(c, X86_VEC_TS, c->s.tr.sel, t->ext);
	cpu_probe(c, NULL, old->lin, 8, CPU_ACCESS_WRITE | CPU_ACCESS_IMPLICIT);
}

/* Past the point of no return: faults are the new task's. */
static void start_task(struct cpu *c, const struct cpu_task_switch *t, const struct tss_layout *in,
		       const struct task *task)
{
	enter_task(c, in, task);
	if (t->source == CPU_TASK_GATE)
		c->s.event.valid = false;
	cpu_flags_set_arith(c, c->s.rflags);
	cpu_update_mode(c);
	load_segs(c, task, t->ext);
	cpu_update_mode(c);
	if (t->has_error)
		push_error(c, in, t->error);
	if (c->s.rip > c->s.seg[X86_CS].limit)
		cpu_fault_err(c, NULL, X86_VEC_GP, t->ext);
	if (task->trap)
		c->s.pending_dbg |= X86_DR6_BT;
	cpu_recheck(c);
}

void cpu_task_switch(struct cpu *c, const struct cpu_task_switch *t)
{
	const struct tss_layout *out = layout_of(c->s.tr.attr), *in;
	bool nests = t->source == CPU_TASK_CALL || t->source == CPU_TASK_GATE, new_cr3;
	struct cpu_cr3 cr3;
	struct cpu_desc d, old;
	struct cpu_seg tr;
	struct task task;
	int vector;

	check_tss(c, t, &d);
	cpu_desc_unpack(&d, t->sel, &tr);
	in = layout_of(tr.attr);
	read_task(c, in, tr.base, &task);
	new_cr3 = in == &tss32 && (c->s.cr0 & X86_CR0_PG);
	leave_if_wanted(c, t, new_cr3 && task.cr3 != c->s.cr3);
	probe_tss(c, out, in, tr.base, t, &d);
	if (!nests)
		old_desc(c, t, &old);
	if (new_cr3) {
		vector = cpu_cr3_check(c, task.cr3, &cr3, true);
		if (vector)
			cpu_fault_err(c, NULL, (uint8_t)vector, 0);
	}
	if (!nests)
		cpu_desc_set_busy(c, &old, false);
	save_task(c, out, t->return_rip, t->rflags);
	if (nests) {
		cpu_st_sys(c, tss_lin(tr.base, 0), c->s.tr.sel, 2);
		task.eflags |= X86_FLAG_NT;
	}
	if (t->source != CPU_TASK_IRET)
		cpu_desc_set_busy(c, &d, true);
	tr.attr |= 2;
	c->s.tr = tr;
	if (new_cr3)
		cpu_cr3_commit(c, &cr3);
	start_task(c, t, in, &task);
}
