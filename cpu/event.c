/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Delivery of interrupts and exceptions through IVT and IDT (SDM 3A 6; 3B 21). */
#include <string.h>

#include "cpu/segment.h"

/* ---- faults on top of faults (SDM 3A 6.15, table 6-5) --------------------------------------- */

enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT };

static enum fault_class class_of(const struct cpu_event *ev)
{
	if (!ev->valid || ev->type != CPU_EVENT_HW_EXCEPTION)
		return BENIGN;
	switch (ev->vector) {
	case X86_VEC_DE:
	case X86_VEC_TS:
	case X86_VEC_NP:
	case X86_VEC_SS:
	case X86_VEC_GP: return CONTRIBUTORY;
	case X86_VEC_PF: return PAGE_FAULT;
	default: return BENIGN;
	}
}

/* The registers that tell the handler more: CR2, DR6. Once only; a re-injected event has done it.
 */
static void apply_payload(struct cpu *c, struct cpu_event *ev)
{
	if (!ev->valid || !ev->has_payload)
		return;
	ev->has_payload = false;
	if (ev->type != CPU_EVENT_HW_EXCEPTION)
		return;
	if (ev->vector == X86_VEC_PF)
		c->s.cr2 = ev->payload;
	if (ev->vector == X86_VEC_DB)
		c->s.dr6 = (c->s.dr6 & ~0xfull) | ev->payload | X86_DR6_FIXED;
}

bool cpu_raise_event(struct cpu *c, const struct cpu_event *ev)
{
	struct cpu_event *old = &c->s.event, new = *ev;
	enum fault_class first = class_of(old), second = class_of(&new);

	if (old->valid && old->type == CPU_EVENT_HW_EXCEPTION && old->vector == X86_VEC_DF &&
	    second != BENIGN) {
		apply_payload(c, &new);
		old->valid = false;
		return false;
	}
	if ((first == CONTRIBUTORY && second == CONTRIBUTORY) ||
	    (first == PAGE_FAULT && second != BENIGN)) {
		apply_payload(c, old);
		apply_payload(c, &new);
		*old = (struct cpu_event){
			.valid = true,
			.type = CPU_EVENT_HW_EXCEPTION,
			.vector = X86_VEC_DF,
			.has_error = true,
		};
		return true;
	}
	apply_payload(c, old);
	*old = new;
	return true;
}

/* ---- one delivery -------------------------------------------------------------------------------
 */

struct delivery {
	struct cpu_event ev;
	uint64_t return_rip, flags; /* as they are pushed */
	bool ext;		    /* error codes tell that the event was not the program's */
	bool checked;		    /* INT n, INT3, INTO: the gate's DPL counts */
	struct cpu_desc gate;
	unsigned size; /* of what the gate pushes */
	uint16_t sel;
	uint64_t rip;
	struct cpu_desc code;
};

_Noreturn static void idt_fault(struct cpu *c, const struct delivery *d, uint8_t vector)
{
	cpu_fault_err(c, NULL, vector, d->ev.vector * 8u + 2 + d->ext);
}

/* Faults push RF, so that the instruction breakpoint they came after does not hit again (SDM
 * 3B 18.3.1.1). */
static bool pushes_rf(const struct cpu_event *ev)
{
	if (ev->type != CPU_EVENT_HW_EXCEPTION)
		return false;
	switch (ev->vector) {
	case X86_VEC_DB: return ev->has_payload && (ev->payload & X86_DR6_BD);
	case X86_VEC_NMI:
	case X86_VEC_BP:
	case X86_VEC_OF:
	case X86_VEC_DF:
	case X86_VEC_MC: return false;
	default: return true;
	}
}

static void begin_delivery(struct cpu *c, struct delivery *d)
{
	unsigned type = c->s.event.type;
	bool soft = type == CPU_EVENT_SOFT_INTR || type == CPU_EVENT_SW_EXCEPTION;

	memset(d, 0, sizeof(*d));
	d->ev = c->s.event;
	d->checked = soft;
	d->ext = !soft;
	d->return_rip = c->s.rip;
	if (soft || type == CPU_EVENT_PRIV_SW_EXCEPTION) {
		d->return_rip += d->ev.insn_len;
		if (!cpu_code64(c))
			d->return_rip = (uint32_t)d->return_rip;
	}
	d->flags = cpu_flags_sync(c);
	if (pushes_rf(&d->ev))
		d->flags |= X86_FLAG_RF;
}

/* The handler is entered: what remains is the same for every mode. */
static void end_delivery(struct cpu *c, struct delivery *d)
{
	apply_payload(c, &c->s.event);
	if (d->ev.type == CPU_EVENT_HW_EXCEPTION && d->ev.vector == X86_VEC_DB) {
		c->s.dr7 &= ~X86_DR7_GD;
		c->s.debugctl &= ~3ull; /* LBR, BTF */
	}
	if (d->ev.type == CPU_EVENT_NMI)
		c->s.nmi_blocked = true;
	c->s.event.valid = false;
	c->s.int_shadow_sti = c->s.int_shadow_movss = false;
	c->s.activity = CPU_ACTIVE;
	c->stats.events_delivered++;
	cpu_flags_set_arith(c, c->s.rflags);
	cpu_update_mode(c);
}

/* ---- real mode, and virtual-8086 mode's redirected interrupts ------------------------------- */

/* @table: linear address of the interrupt vector table; @clear: flags that the handler starts
 * without. */
static void deliver_ivt(struct cpu *c, struct delivery *d, uint64_t table, uint64_t clear)
{
	struct cpu_stack st = cpu_stack_now(c);
	uint32_t entry = (uint32_t)cpu_ld_sys(c, (uint32_t)(table + d->ev.vector * 4u), 4);

	cpu_stack_room(c, &st, 3, 2);
	if ((entry & 0xffff) > c->s.seg[X86_CS].limit)
		cpu_fault_err(c, NULL, X86_VEC_GP, 0);
	cpu_stack_push(c, &st, (uint64_t[]){d->flags, c->s.seg[X86_CS].sel, d->return_rip}, 3, 2);
	cpu_stack_commit(c, st.sp, st.mask);
	cpu_load_seg_real(c, X86_CS, entry >> 16);
	c->s.rip = entry & 0xffff;
	c->s.rflags &= ~clear;
}

static void deliver_real(struct cpu *c, struct delivery *d)
{
	if (d->ev.vector * 4u + 3 > c->s.idtr.limit)
		idt_fault(c, d, X86_VEC_GP);
	deliver_ivt(c, d, c->s.idtr.base, X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_AC | X86_FLAG_RF);
}

/* Does the redirection bitmap send INT n to the 8086 program's own handler? (SDM 3B 21.3.1) */
static bool redirected(struct cpu *c, uint8_t vector)
{
	const struct cpu_seg *tr = &c->s.tr;
	unsigned io, byte;

	if ((tr->attr & X86_ATTR_TYPE) != CPU_SYS_TSS_BUSY || tr->limit < 0x67)
		return false;
	io = (unsigned)cpu_ld_sys(c, (uint32_t)(tr->base + 0x66), 2);
	byte = io - 32 + vector / 8;
	if (io < 32 || byte > tr->limit)
		return false;
	return !(cpu_ld_sys(c, (uint32_t)(tr->base + byte), 1) >> (vector & 7) & 1);
}

/* INT n in virtual-8086 mode. True: done. */
static bool deliver_vm86_int(struct cpu *c, struct delivery *d)
{
	if ((c->s.cr4 & X86_CR4_VME) && redirected(c, d->ev.vector)) {
		if (cpu_iopl(c) == 3) {
			deliver_ivt(c, d, 0, X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_NT);
			return true;
		}
		d->flags &= ~X86_FLAG_IF;
		d->flags |= X86_FLAG_IOPL | (c->s.rflags & X86_FLAG_VIF ? X86_FLAG_IF : 0);
		deliver_ivt(c, d, 0, X86_FLAG_VIF | X86_FLAG_TF | X86_FLAG_NT);
		return true;
	}
	if (cpu_iopl(c) < 3)
		cpu_fault_err(c, NULL, X86_VEC_GP, 0);
	return false;
}

/* ---- gates --------------------------------------------------------------------------------------
 */

static void read_gate(struct cpu *c, struct delivery *d)
{
	bool lm = cpu_long_mode(c);
	unsigned width = lm ? 16 : 8, type;
	uint64_t off = (uint64_t)d->ev.vector * width, raw;

	if (off + width - 1 > c->s.idtr.limit)
		idt_fault(c, d, X86_VEC_GP);
	d->gate.lin = lm ? c->s.idtr.base + off : (uint32_t)(c->s.idtr.base + off);
	raw = cpu_ld_sys(c, d->gate.lin, 8);
	d->gate.lo = (uint32_t)raw;
	d->gate.hi = (uint32_t)(raw >> 32);
	type = cpu_desc_type(&d->gate);
	if (lm ? type != CPU_SYS_INT && type != CPU_SYS_TRAP
	       : type != CPU_SYS_INT && type != CPU_SYS_TRAP && type != CPU_SYS_INT16 &&
			    type != CPU_SYS_TRAP16 && type != CPU_SYS_TASK)
		idt_fault(c, d, X86_VEC_GP);
	if (d->checked && cpu_desc_dpl(&d->gate) < cpu_cpl(c))
		idt_fault(c, d, X86_VEC_GP);
	if (!cpu_desc_present(&d->gate))
		idt_fault(c, d, X86_VEC_NP);
	d->sel = d->gate.lo >> 16;
	d->size = lm ? 8 : type & 8 ? 4 : 2;
	d->rip = d->gate.lo & 0xffff;
	if (d->size > 2)
		d->rip |= d->gate.hi & 0xffff0000u;
	if (lm)
		d->rip |= (cpu_ld_sys(c, d->gate.lin + 8, 8) & 0xffffffffull) << 32;
}

/* The handler's code segment. Returns its CPL. */
static unsigned check_code(struct cpu *c, struct delivery *d)
{
	unsigned cpl = cpu_cpl(c), dpl;

	if (cpu_sel_null(d->sel))
		cpu_fault_err(c, NULL, X86_VEC_GP, d->ext);
	if (!cpu_desc_read(c, d->sel, &d->code) || !cpu_desc_is_code(&d->code))
		cpu_fault_sel(c, X86_VEC_GP, d->sel, d->ext);
	dpl = cpu_desc_dpl(&d->code);
	if (dpl > cpl || (cpu_long_mode(c) && !cpu_desc_code64(&d->code)))
		cpu_fault_sel(c, X86_VEC_GP, d->sel, d->ext);
	if (!cpu_desc_present(&d->code))
		cpu_fault_sel(c, X86_VEC_NP, d->sel, d->ext);
	if (cpu_desc_conforming(&d->code))
		dpl = cpl;
	if (cpu_vm86(c) && dpl != 0)
		cpu_fault_sel(c, X86_VEC_GP, d->sel, d->ext);
	return dpl;
}

static void enter_handler(struct cpu *c, struct delivery *d, unsigned cpl)
{
	uint64_t clear = X86_FLAG_TF | X86_FLAG_VM | X86_FLAG_RF | X86_FLAG_NT;

	cpu_desc_unpack(&d->code, (d->sel & 0xfffcu) | cpl, &c->s.seg[X86_CS]);
	c->s.seg[X86_CS].attr |= X86_ATTR_A;
	c->s.rip = d->rip;
	if (!(d->gate.hi & BIT(8)))
		clear |= X86_FLAG_IF;
	c->s.rflags &= ~clear;
}

/* Through a 64-bit gate: SS:RSP is always pushed, on a stack aligned to 16 bytes. */
static void deliver_long(struct cpu *c, struct delivery *d)
{
	unsigned cpl = check_code(c, d), old = cpu_cpl(c), ist = d->gate.hi & 7, n = 5;
	struct cpu_stack st = {.ss = &c->s.seg[X86_SS], .mask = ~0ull, .error = d->ext};
	uint64_t v[6];

	st.sp = c->s.gpr[X86_RSP];
	if (ist || cpl != old)
		st.sp = cpu_tss_stack(c, cpl, ist, d->ext).sp;
	st.sys = cpl < 3 && old == 3;
	if (!cpu_lin_canonical(c, st.sp))
		cpu_fault_err(c, NULL, X86_VEC_SS, d->ext);
	st.sp &= ~0xfull;
	cpu_stack_room(c, &st, 5 + d->ev.has_error, 8);
	if (!cpu_lin_canonical(c, d->rip))
		cpu_fault_err(c, NULL, X86_VEC_GP, d->ext);
	cpu_desc_set_accessed(c, &d->code);
	v[0] = c->s.seg[X86_SS].sel;
	v[1] = c->s.gpr[X86_RSP];
	v[2] = d->flags;
	v[3] = c->s.seg[X86_CS].sel;
	v[4] = d->return_rip;
	if (d->ev.has_error)
		v[n++] = d->ev.error;
	cpu_stack_push(c, &st, v, n, 8);
	if (cpl != old)
		cpu_seg_set_null(&c->s.seg[X86_SS], cpl, cpl);
	c->s.gpr[X86_RSP] = st.sp;
	enter_handler(c, d, cpl);
}

/* To an inner level, or out of virtual-8086 mode. */
static void deliver_inner(struct cpu *c, struct delivery *d, unsigned cpl)
{
	static const uint8_t vm86_segs[] = {X86_GS, X86_FS, X86_DS, X86_ES};
	struct cpu_inner_stack in = cpu_tss_stack(c, cpl, 0, d->ext);
	bool vm86 = cpu_vm86(c);
	struct cpu_stack st;
	struct cpu_seg ss, cs;
	uint64_t v[10];
	unsigned n = 0;

	if (cpu_sel_null(in.sel))
		cpu_fault_err(c, NULL, X86_VEC_TS, d->ext);
	cpu_ss_check(c, in.sel, cpl, X86_VEC_TS, d->ext, &ss);
	st = (struct cpu_stack){
		.ss = &ss,
		.sp = in.sp,
		.mask = cpu_stack_mask(&ss, false),
		.sys = true,
		.error = (in.sel & 0xfffcu) | d->ext,
	};
	if (vm86) {
		for (unsigned k = 0; k < ARRAY_SIZE(vm86_segs); k++)
			v[n++] = c->s.seg[vm86_segs[k]].sel;
	}
	v[n++] = c->s.seg[X86_SS].sel;
	v[n++] = c->s.gpr[X86_RSP];
	v[n++] = d->flags;
	v[n++] = c->s.seg[X86_CS].sel;
	v[n++] = d->return_rip;
	if (d->ev.has_error)
		v[n++] = d->ev.error;
	cpu_stack_room(c, &st, n, d->size);
	cpu_desc_unpack(&d->code, d->sel, &cs);
	if (d->rip > cs.limit)
		cpu_fault_err(c, NULL, X86_VEC_GP, d->ext);
	cpu_desc_set_accessed(c, &d->code);
	cpu_stack_push(c, &st, v, n, d->size);
	if (vm86) {
		for (unsigned k = 0; k < ARRAY_SIZE(vm86_segs); k++)
			cpu_seg_set_null(&c->s.seg[vm86_segs[k]], 0, 0);
	}
	c->s.seg[X86_SS] = ss;
	cpu_stack_commit(c, st.sp, st.mask);
	enter_handler(c, d, cpl);
}

static void deliver_same(struct cpu *c, struct delivery *d, unsigned cpl)
{
	struct cpu_stack st = cpu_stack_now(c);
	uint64_t v[4] = {d->flags, c->s.seg[X86_CS].sel, d->return_rip, d->ev.error};
	unsigned n = 3 + d->ev.has_error;
	struct cpu_seg cs;

	st.error = d->ext;
	cpu_stack_room(c, &st, n, d->size);
	cpu_desc_unpack(&d->code, d->sel, &cs);
	if (d->rip > cs.limit)
		cpu_fault_err(c, NULL, X86_VEC_GP, d->ext);
	cpu_desc_set_accessed(c, &d->code);
	cpu_stack_push(c, &st, v, n, d->size);
	cpu_stack_commit(c, st.sp, st.mask);
	enter_handler(c, d, cpl);
}

static void deliver_task(struct cpu *c, struct delivery *d)
{
	struct cpu_task_switch t = {
		.sel = d->sel,
		.source = CPU_TASK_GATE,
		.ext = d->ext,
		.has_error = d->ev.has_error,
		.error = d->ev.error,
		.return_rip = d->return_rip,
		.rflags = d->flags,
	};

	apply_payload(c, &c->s.event);
	cpu_task_switch(c, &t);
}

static void deliver_protected(struct cpu *c, struct delivery *d)
{
	unsigned cpl;

	read_gate(c, d);
	if (cpu_desc_type(&d->gate) == CPU_SYS_TASK) {
		deliver_task(c, d);
		return;
	}
	if (cpu_long_mode(c)) {
		deliver_long(c, d);
		return;
	}
	cpl = check_code(c, d);
	if (cpl < cpu_cpl(c))
		deliver_inner(c, d, cpl);
	else
		deliver_same(c, d, cpl);
}

/*
 * All or nothing: whatever may fault or leave is tried before the first word is written, so that
 * s.event is still what it was when L0 sees an exit from here.
 */
void cpu_deliver_event(struct cpu *c)
{
	struct delivery d;

	begin_delivery(c, &d);
	if (!(c->s.cr0 & X86_CR0_PE))
		deliver_real(c, &d);
	else if (!(cpu_vm86(c) && d.ev.type == CPU_EVENT_SOFT_INTR && deliver_vm86_int(c, &d)))
		deliver_protected(c, &d);
	end_delivery(c, &d);
}
