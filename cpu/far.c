/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Far JMP, CALL, RET and IRET in every mode, call gates included (SDM 2A, 2B; 3A 5.8). */
#include "cpu/segment.h"

_Noreturn static void gp0(struct cpu *c)
{
	cpu_fault_err(c, NULL, X86_VEC_GP, 0);
}

_Noreturn static void gp_sel(struct cpu *c, uint16_t sel)
{
	cpu_fault_sel(c, X86_VEC_GP, sel, false);
}

static uint64_t size_mask(unsigned size)
{
	return size == 8 ? ~0ull : size == 4 ? 0xffffffffull : 0xffffull;
}

/* Will @cs run as 64-bit code? */
static bool is_code64(const struct cpu *c, const struct cpu_desc *cs)
{
	return cpu_long_mode(c) && cpu_desc_code64(cs);
}

/* #GP(0) unless @rip can be jumped to in @seg. */
static void check_target(struct cpu *c, const struct cpu_seg *seg, bool code64, uint64_t rip)
{
	if (code64 ? !cpu_lin_canonical(c, rip) : rip > seg->limit)
		gp0(c);
}

static void set_code(struct cpu *c, const struct cpu_seg *cs, unsigned cpl, uint64_t rip)
{
	c->s.seg[X86_CS] = *cs;
	c->s.seg[X86_CS].sel = (cs->sel & 0xfffcu) | cpl;
	c->s.rip = rip;
}

/* ---- JMP and CALL -----------------------------------------------------------------------------
 */

/* Real and virtual-8086 mode. */
static void far_real(struct cpu *c, const struct cpu_far *f, bool call)
{
	uint64_t off = f->off & size_mask(f->size);
	struct cpu_stack st = cpu_stack_now(c);

	if (call)
		cpu_stack_room(c, &st, 2, f->size);
	if (off > c->s.seg[X86_CS].limit)
		gp0(c);
	if (call) {
		cpu_stack_push(c, &st, (uint64_t[]){c->s.seg[X86_CS].sel, f->return_rip}, 2,
			       f->size);
		cpu_stack_commit(c, st.sp, st.mask);
	}
	cpu_load_seg_real(c, X86_CS, f->sel);
	c->s.rip = off;
}

/* Straight to a code segment at the same level. */
static void far_code(struct cpu *c, const struct cpu_far *f, struct cpu_desc *d, bool call)
{
	unsigned cpl = cpu_cpl(c);
	uint64_t off = f->off & size_mask(f->size);
	struct cpu_stack st = cpu_stack_now(c);
	struct cpu_seg cs;

	if (cpu_desc_conforming(d) ? cpu_desc_dpl(d) > cpl
				   : (f->sel & 3u) > cpl || cpu_desc_dpl(d) != cpl)
		gp_sel(c, f->sel);
	if (cpu_long_mode(c) && cpu_desc_l_and_d(d))
		gp_sel(c, f->sel);
	if (!cpu_desc_present(d))
		cpu_fault_sel(c, X86_VEC_NP, f->sel, false);
	cpu_desc_unpack(d, f->sel, &cs);
	if (call)
		cpu_stack_room(c, &st, 2, f->size);
	check_target(c, &cs, is_code64(c, d), off);
	cpu_desc_set_accessed(c, d);
	cs.attr |= X86_ATTR_A;
	if (call) {
		cpu_stack_push(c, &st, (uint64_t[]){c->s.seg[X86_CS].sel, f->return_rip}, 2,
			       f->size);
		cpu_stack_commit(c, st.sp, st.mask);
	}
	set_code(c, &cs, cpl, off);
}

/* A call gate to an inner level: the TSS has the stack, the gate says how many words to copy. */
static void gate_inner(struct cpu *c, const struct cpu_far *f, const struct cpu_desc *gate,
		       struct cpu_desc *code, uint64_t off)
{
	unsigned cpl = cpu_desc_dpl(code), n = 0;
	unsigned size = cpu_long_mode(c) ? 8 : cpu_desc_type(gate) & 8 ? 4 : 2;
	unsigned params = size == 8 ? 0 : gate->hi & 0x1f;
	struct cpu_inner_stack in = cpu_tss_stack(c, cpl, 0, false);
	struct cpu_stack old = cpu_stack_now(c), st = {.sp = in.sp, .sys = true};
	uint64_t v[4 + 31];
	struct cpu_seg ss, cs;

	if (size == 8) {
		cpu_seg_set_null(&ss, cpl, cpl);
	} else {
		if (cpu_sel_null(in.sel))
			cpu_fault_sel(c, X86_VEC_TS, in.sel, false);
		cpu_ss_check(c, in.sel, cpl, X86_VEC_TS, false, &ss);
		st.error = in.sel & 0xfffcu;
	}
	st.ss = &ss;
	st.mask = cpu_stack_mask(&ss, size == 8);
	cpu_desc_unpack(code, (uint16_t)(gate->lo >> 16), &cs);
	cpu_stack_room(c, &st, params + 4, size);
	check_target(c, &cs, size == 8, off);
	v[n++] = c->s.seg[X86_SS].sel;
	v[n++] = c->s.gpr[X86_RSP] & size_mask(size);
	for (unsigned k = params; k-- > 0;)
		v[n++] = cpu_stack_peek(c, &old, k * size, size);
	v[n++] = c->s.seg[X86_CS].sel;
	v[n++] = f->return_rip;
	cpu_desc_set_accessed(c, code);
	cs.attr |= X86_ATTR_A;
	cpu_stack_push(c, &st, v, n, size);
	c->s.seg[X86_SS] = ss;
	cpu_stack_commit(c, st.sp, st.mask);
	set_code(c, &cs, cpl, off);
}

static void far_gate(struct cpu *c, const struct cpu_far *f, struct cpu_desc *gate, bool call)
{
	unsigned cpl = cpu_cpl(c), size = cpu_long_mode(c) ? 8 : cpu_desc_type(gate) & 8 ? 4 : 2;
	uint16_t sel = gate->lo >> 16;
	uint64_t off = ((gate->lo & 0xffff) | (gate->hi & 0xffff0000u)) & size_mask(size);
	struct cpu_desc code;
	struct cpu_stack st;
	struct cpu_seg cs;

	if (cpu_desc_dpl(gate) < cpl || (f->sel & 3u) > cpu_desc_dpl(gate))
		gp_sel(c, f->sel);
	if (size == 8) {
		if (!cpu_desc_read_high(c, f->sel, gate))
			gp_sel(c, f->sel);
		off |= gate->base_hi;
	}
	if (!cpu_desc_present(gate))
		cpu_fault_sel(c, X86_VEC_NP, f->sel, false);
	if (cpu_sel_null(sel))
		gp0(c);
	if (!cpu_desc_read(c, sel, &code) || !cpu_desc_is_code(&code) || cpu_desc_dpl(&code) > cpl)
		gp_sel(c, sel);
	if (size == 8 && !cpu_desc_code64(&code))
		gp_sel(c, sel);
	if (!call && !cpu_desc_conforming(&code) && cpu_desc_dpl(&code) != cpl)
		gp_sel(c, sel);
	if (!cpu_desc_present(&code))
		cpu_fault_sel(c, X86_VEC_NP, sel, false);
	if (call && !cpu_desc_conforming(&code) && cpu_desc_dpl(&code) < cpl) {
		gate_inner(c, f, gate, &code, off);
		return;
	}
	cpu_desc_unpack(&code, sel, &cs);
	st = cpu_stack_now(c);
	st.mask = cpu_stack_mask(st.ss, size == 8);
	if (call)
		cpu_stack_room(c, &st, 2, size);
	check_target(c, &cs, size == 8, off);
	cpu_desc_set_accessed(c, &code);
	cs.attr |= X86_ATTR_A;
	if (call) {
		cpu_stack_push(c, &st, (uint64_t[]){c->s.seg[X86_CS].sel, f->return_rip}, 2, size);
		cpu_stack_commit(c, st.sp, st.mask);
	}
	set_code(c, &cs, cpl, off);
}

static void far_task(struct cpu *c, const struct cpu_far *f, const struct cpu_desc *d, bool call)
{
	struct cpu_task_switch t = {
		.sel = f->sel,
		.source = call ? CPU_TASK_CALL : CPU_TASK_JMP,
		.return_rip = f->return_rip,
		.rflags = c->s.rflags,
	};

	if (cpu_desc_dpl(d) < cpu_cpl(c) || (f->sel & 3u) > cpu_desc_dpl(d))
		gp_sel(c, f->sel);
	if (cpu_desc_type(d) == CPU_SYS_TASK) {
		if (!cpu_desc_present(d))
			cpu_fault_sel(c, X86_VEC_NP, f->sel, false);
		t.sel = d->lo >> 16;
	}
	cpu_task_switch(c, &t);
}

static void far_protected(struct cpu *c, const struct cpu_far *f, bool call)
{
	struct cpu_desc d;

	if (cpu_sel_null(f->sel))
		gp0(c);
	if (!cpu_desc_read(c, f->sel, &d))
		gp_sel(c, f->sel);
	if (cpu_desc_is_code(&d)) {
		far_code(c, f, &d, call);
		return;
	}
	switch (cpu_desc_type(&d)) {
	case CPU_SYS_CALL: far_gate(c, f, &d, call); return;
	case CPU_SYS_CALL16:
		if (cpu_long_mode(c))
			break;
		far_gate(c, f, &d, call);
		return;
	case CPU_SYS_TASK:
	case CPU_SYS_TSS16:
	case CPU_SYS_TSS:
		if (cpu_long_mode(c))
			break;
		far_task(c, f, &d, call);
		return;
	default: break;
	}
	gp_sel(c, f->sel);
}

void cpu_far_jump(struct cpu *c, const struct cpu_far *f)
{
	if (cpu_protected(c))
		far_protected(c, f, false);
	else
		far_real(c, f, false);
}

void cpu_far_call(struct cpu *c, const struct cpu_far *f)
{
	if (cpu_protected(c))
		far_protected(c, f, true);
	else
		far_real(c, f, true);
}

/* ---- RET and IRET -----------------------------------------------------------------------------
 */

/* Where a return goes: the checks that RET and IRET share. */
struct far_back {
	uint16_t sel;
	uint64_t rip;
	struct cpu_desc desc;
	struct cpu_seg cs;
	bool code64;
};

static void back_check(struct cpu *c, struct far_back *b)
{
	unsigned rpl = b->sel & 3, dpl;

	if (cpu_sel_null(b->sel))
		gp0(c);
	if (!cpu_desc_read(c, b->sel, &b->desc))
		gp_sel(c, b->sel);
	dpl = cpu_desc_dpl(&b->desc);
	if (!cpu_desc_is_code(&b->desc) || rpl < cpu_cpl(c))
		gp_sel(c, b->sel);
	if (cpu_desc_conforming(&b->desc) ? dpl > rpl : dpl != rpl)
		gp_sel(c, b->sel);
	if (cpu_long_mode(c) && cpu_desc_l_and_d(&b->desc))
		gp_sel(c, b->sel);
	if (!cpu_desc_present(&b->desc))
		cpu_fault_sel(c, X86_VEC_NP, b->sel, false);
	b->code64 = is_code64(c, &b->desc);
	cpu_desc_unpack(&b->desc, b->sel, &b->cs);
	b->cs.attr |= X86_ATTR_A;
}

/* The stack segment that a return loads, for level @cpl. */
static void back_stack(struct cpu *c, const struct far_back *b, uint16_t sel, struct cpu_seg *ss)
{
	unsigned cpl = b->sel & 3;

	if (cpu_sel_null(sel)) {
		if (!b->code64 || cpl == 3)
			gp0(c);
		cpu_seg_set_null(ss, sel, cpl);
		return;
	}
	cpu_ss_check(c, sel, cpl, X86_VEC_GP, false, ss);
}

static void return_real(struct cpu *c, unsigned size, uint16_t release)
{
	struct cpu_stack st = cpu_stack_now(c);
	uint64_t rip = cpu_stack_peek(c, &st, 0, size);
	uint16_t sel = (uint16_t)cpu_stack_peek(c, &st, size, size);

	if (rip > c->s.seg[X86_CS].limit)
		gp0(c);
	cpu_stack_commit(c, st.sp + 2 * size + release, st.mask);
	cpu_load_seg_real(c, X86_CS, sel);
	c->s.rip = rip;
}

void cpu_far_return(struct cpu *c, unsigned size, uint16_t release)
{
	struct cpu_stack st = cpu_stack_now(c);
	struct far_back b = {0};
	struct cpu_seg ss;
	uint64_t sp, mask;

	if (!cpu_protected(c)) {
		return_real(c, size, release);
		return;
	}
	b.rip = cpu_stack_peek(c, &st, 0, size);
	b.sel = (uint16_t)cpu_stack_peek(c, &st, size, size);
	back_check(c, &b);
	if ((b.sel & 3u) == cpu_cpl(c)) {
		check_target(c, &b.cs, b.code64, b.rip);
		cpu_desc_set_accessed(c, &b.desc);
		cpu_stack_commit(c, st.sp + 2 * size + release, st.mask);
		set_code(c, &b.cs, b.sel & 3, b.rip);
		return;
	}
	sp = cpu_stack_peek(c, &st, 2 * size + release, size);
	back_stack(c, &b, (uint16_t)cpu_stack_peek(c, &st, 3 * size + release, size), &ss);
	check_target(c, &b.cs, b.code64, b.rip);
	cpu_desc_set_accessed(c, &b.desc);
	mask = cpu_stack_mask(&ss, b.code64);
	c->s.seg[X86_SS] = ss;
	set_code(c, &b.cs, b.sel & 3, b.rip);
	cpu_stack_commit(c, sp + release, mask);
	cpu_drop_inner_segs(c, b.sel & 3);
}

/* ---- IRET -------------------------------------------------------------------------------------
 */

#define FLAGS_ANY16 (X86_FLAGS_ARITH | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT)
#define FLAGS_ANY32 (FLAGS_ANY16 | X86_FLAG_RF | X86_FLAG_AC | X86_FLAG_ID)

static void set_flags(struct cpu *c, uint64_t image, uint64_t change)
{
	c->s.rflags = (c->s.rflags & ~change) | (image & change) | X86_FLAG_ONE;
}

/* Which flags IRET takes from its image at this level (SDM 2A, IRET). */
static uint64_t iret_flags(const struct cpu *c, unsigned cpl, unsigned size)
{
	uint64_t change = size == 2 ? FLAGS_ANY16 : FLAGS_ANY32;

	if (cpl <= cpu_iopl(c))
		change |= X86_FLAG_IF;
	if (cpl == 0)
		change |= X86_FLAG_IOPL | (size == 2 ? 0 : X86_FLAG_VIF | X86_FLAG_VIP);
	return change;
}

static void iret_real(struct cpu *c, unsigned size)
{
	struct cpu_stack st = cpu_stack_now(c);
	uint64_t rip = cpu_stack_peek(c, &st, 0, size);
	uint16_t sel = (uint16_t)cpu_stack_peek(c, &st, size, size);
	uint64_t image = cpu_stack_peek(c, &st, 2 * size, size);
	uint64_t change = (size == 2 ? FLAGS_ANY16 : FLAGS_ANY32) | X86_FLAG_IF;

	if (rip > c->s.seg[X86_CS].limit)
		gp0(c);
	if (!cpu_vm86(c))
		change |= X86_FLAG_IOPL;
	cpu_stack_commit(c, st.sp + 3 * size, st.mask);
	cpu_load_seg_real(c, X86_CS, sel);
	c->s.rip = rip;
	set_flags(c, image, change);
}

/* In virtual-8086 mode below IOPL 3: only with VME, and then IF stands for VIF (SDM 3B 21.3.1). */
static void iret_vme(struct cpu *c, unsigned size)
{
	struct cpu_stack st = cpu_stack_now(c);
	uint64_t rip, image;
	uint16_t sel;

	if (!(c->s.cr4 & X86_CR4_VME) || size != 2)
		gp0(c);
	rip = cpu_stack_peek(c, &st, 0, 2);
	sel = (uint16_t)cpu_stack_peek(c, &st, 2, 2);
	image = cpu_stack_peek(c, &st, 4, 2);
	if ((image & X86_FLAG_TF) || ((image & X86_FLAG_IF) && (c->s.rflags & X86_FLAG_VIP)))
		gp0(c);
	if (rip > c->s.seg[X86_CS].limit)
		gp0(c);
	cpu_stack_commit(c, st.sp + 6, st.mask);
	cpu_load_seg_real(c, X86_CS, sel);
	c->s.rip = rip;
	set_flags(c, image, FLAGS_ANY16);
	c->s.rflags = (c->s.rflags & ~X86_FLAG_VIF) | (image & X86_FLAG_IF ? X86_FLAG_VIF : 0);
}

static void iret_to_vm86(struct cpu *c, const struct cpu_stack *st, uint64_t image)
{
	static const uint8_t order[] = {X86_SS, X86_ES, X86_DS, X86_FS, X86_GS};
	uint64_t rip = cpu_stack_peek(c, st, 0, 4);
	uint16_t cs = (uint16_t)cpu_stack_peek(c, st, 4, 4);
	uint32_t esp = (uint32_t)cpu_stack_peek(c, st, 12, 4);
	uint16_t sel[5];

	for (unsigned k = 0; k < 5; k++)
		sel[k] = (uint16_t)cpu_stack_peek(c, st, 16 + 4 * k, 4);
	if (rip > 0xffff)
		gp0(c);
	set_flags(c, image,
		  FLAGS_ANY32 | X86_FLAG_IF | X86_FLAG_IOPL | X86_FLAG_VM | X86_FLAG_VIF |
			  X86_FLAG_VIP);
	c->s.gpr[X86_RSP] = esp;
	for (unsigned k = 0; k < 5; k++)
		cpu_load_seg_real(c, order[k], sel[k]);
	cpu_load_seg_real(c, X86_CS, cs);
	c->s.rip = rip;
}

static void iret_task(struct cpu *c, uint64_t return_rip)
{
	struct cpu_task_switch t = {
		.sel = (uint16_t)cpu_ld_sys(c, (uint32_t)c->s.tr.base, 2),
		.source = CPU_TASK_IRET,
		.return_rip = return_rip,
		.rflags = c->s.rflags & ~X86_FLAG_NT,
	};

	cpu_task_switch(c, &t);
}

static void iret_protected(struct cpu *c, unsigned size)
{
	unsigned cpl = cpu_cpl(c);
	struct cpu_stack st = cpu_stack_now(c);
	bool from64 = cpu_code64(c), outer;
	uint64_t image, change, sp, mask;
	struct far_back b = {.rip = cpu_stack_peek(c, &st, 0, size)};
	struct cpu_seg ss;

	b.sel = (uint16_t)cpu_stack_peek(c, &st, size, size);
	image = cpu_stack_peek(c, &st, 2 * size, size);
	if (size == 4 && (image & X86_FLAG_VM) && cpl == 0 && !cpu_long_mode(c)) {
		iret_to_vm86(c, &st, image);
		return;
	}
	back_check(c, &b);
	outer = (b.sel & 3u) > cpl;
	change = iret_flags(c, cpl, size);
	if (outer || from64) {
		sp = cpu_stack_peek(c, &st, 3 * size, size);
		back_stack(c, &b, (uint16_t)cpu_stack_peek(c, &st, 4 * size, size), &ss);
		mask = cpu_stack_mask(&ss, b.code64);
	} else {
		sp = st.sp + 3 * size;
		ss = c->s.seg[X86_SS];
		mask = cpu_stack_mask(&ss, b.code64);
	}
	check_target(c, &b.cs, b.code64, b.rip);
	cpu_desc_set_accessed(c, &b.desc);
	c->s.seg[X86_SS] = ss;
	set_code(c, &b.cs, b.sel & 3, b.rip);
	cpu_stack_commit(c, sp, mask);
	set_flags(c, image, change);
	if (outer)
		cpu_drop_inner_segs(c, b.sel & 3);
}

void cpu_iret(struct cpu *c, unsigned size, uint64_t return_rip)
{
	if (!(c->s.cr0 & X86_CR0_PE))
		iret_real(c, size);
	else if (cpu_vm86(c) && cpu_iopl(c) == 3)
		iret_real(c, size);
	else if (cpu_vm86(c))
		iret_vme(c, size);
	else if (!(c->s.rflags & X86_FLAG_NT))
		iret_protected(c, size);
	else if (cpu_long_mode(c))
		gp0(c);
	else
		iret_task(c, return_rip);
	c->s.nmi_blocked = false;
}
