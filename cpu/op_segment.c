/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Instructions on segments: loads, far transfers, descriptor tests, fast system calls. */
#include "cpu/segment.h"

static bool pick_fn(struct cpu_insn *i, cpu_op_fn fn)
{
	if (i->flags & CPU_INSN_LOCK)
		return false;
	i->fn = fn;
	i->flags |= CPU_INSN_END;
	return true;
}

/* The 16-bit operand: memory, or the register at r3. */
static uint16_t source16(struct cpu *c, const struct cpu_insn *i)
{
	return i->flags & CPU_INSN_MEM ? cpu_ld16(c, i, cpu_lin(c, i)) : CPU_REG16(c, i->r3);
}

static void put_reg(struct cpu *c, uint8_t off, unsigned size, uint64_t v)
{
	if (size == 2)
		CPU_REG16(c, off) = (uint16_t)v;
	else
		CPU_REG64(c, off) = size == 4 ? (uint32_t)v : v;
}

/* ---- MOV, PUSH, POP, LDS .. of segment registers -------------------------------------------- */

/* r1: destination, r2: segment register */
static void op_mov_from_seg(struct cpu *c, const struct cpu_insn *i)
{
	put_reg(c, i->r1, i->size, c->s.seg[i->r2].sel);
	CPU_NEXT(c, i);
}

static void op_mov_from_seg_mem(struct cpu *c, const struct cpu_insn *i)
{
	cpu_st16(c, i, cpu_lin(c, i), c->s.seg[i->r2].sel);
	CPU_NEXT(c, i);
}

/* After a load of SS no interrupt and no debug trap comes before the next instruction. */
static void shadow_ss(struct cpu *c, unsigned seg)
{
	if (seg != X86_SS)
		return;
	c->s.int_shadow_movss = true;
	cpu_recheck(c);
}

static void op_mov_to_seg(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = source16(c, i);

	cpu_begin(c, i);
	cpu_load_seg(c, i->r2, sel);
	shadow_ss(c, i->r2);
	cpu_retire(c, i, false);
}

static bool is_seg_reg(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value >= ZYDIS_REGISTER_ES &&
	       op->reg.value <= ZYDIS_REGISTER_GS;
}

static uint8_t seg_reg(const ZydisDecodedOperand *op)
{
	return (uint8_t)(op->reg.value - ZYDIS_REGISTER_ES);
}

static bool pick_mov_seg(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (i->flags & CPU_INSN_LOCK)
		return false;
	if (is_seg_reg(&d->op[1])) {
		i->r2 = seg_reg(&d->op[1]);
		if (i->flags & CPU_INSN_MEM) {
			i->fn = op_mov_from_seg_mem;
			return true;
		}
		i->r1 = cpu_reg_offset(d->op[0].reg.value);
		i->size = d->op[0].size / 8;
		i->fn = op_mov_from_seg;
		return true;
	}
	if (!is_seg_reg(&d->op[0]) || seg_reg(&d->op[0]) == X86_CS)
		return false;
	i->r2 = seg_reg(&d->op[0]);
	if (!(i->flags & CPU_INSN_MEM))
		i->r3 = cpu_reg_offset(d->op[1].reg.value);
	return pick_fn(i, op_mov_to_seg);
}

/* With a 32-bit operand only the low half of the slot is written, as recent processors do (SDM 2B,
 * PUSH). */
static void op_push_seg(struct cpu *c, const struct cpu_insn *i)
{
	unsigned size = i->size == 4 ? 2 : i->size;
	struct cpu_stack st;

	cpu_begin(c, i);
	st = cpu_stack_now(c);
	st.sp -= i->size - size;
	cpu_stack_push(c, &st, (uint64_t[]){c->s.seg[i->r2].sel}, 1, size);
	cpu_stack_commit(c, st.sp, st.mask);
	cpu_retire(c, i, false);
}

static void op_pop_seg(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_stack st;

	cpu_begin(c, i);
	st = cpu_stack_now(c);
	cpu_load_seg(c, i->r2, (uint16_t)cpu_stack_peek(c, &st, 0, 2));
	cpu_stack_commit(c, st.sp + i->size, st.mask);
	shadow_ss(c, i->r2);
	cpu_retire(c, i, false);
}

/* arg: 1 for POP */
static bool pick_stack_seg(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (!is_seg_reg(&d->op[0]))
		return false;
	i->r2 = seg_reg(&d->op[0]);
	return pick_fn(i, arg ? op_pop_seg : op_push_seg);
}

static void op_load_far_pointer(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t lin = cpu_lin(c, i), off = cpu_ld(c, i, lin, i->size);
	uint16_t sel = cpu_ld16(c, i, cpu_lin_wrap(c, lin + i->size));

	cpu_begin(c, i);
	cpu_load_seg(c, i->arg, sel);
	put_reg(c, i->r1, i->size, off);
	cpu_retire(c, i, false);
}

/* arg: the segment register */
static bool pick_load_far_pointer(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (!(i->flags & CPU_INSN_MEM))
		return false;
	i->r1 = cpu_reg_offset(d->op[0].reg.value);
	i->arg = arg;
	return pick_fn(i, op_load_far_pointer);
}

/* ---- far transfers ------------------------------------------------------------------------------
 */

static struct cpu_far far_operand(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_far f = {.size = i->size, .return_rip = cpu_next_rip(c, i)};
	uint64_t lin;

	if (i->flags & CPU_INSN_MEM) {
		lin = cpu_lin(c, i);
		f.off = cpu_ld(c, i, lin, i->size);
		f.sel = cpu_ld16(c, i, cpu_lin_wrap(c, lin + i->size));
	} else {
		f.off = i->imm;
		f.sel = i->arg;
	}
	if ((c->mode & CPU_MODE_CODE) != CPU_MODE_CODE64)
		f.return_rip = (uint32_t)f.return_rip;
	return f;
}

static void op_jmp_far(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_far f = far_operand(c, i);

	cpu_begin(c, i);
	cpu_far_jump(c, &f);
	cpu_retire(c, i, true);
}

static void op_call_far(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_far f = far_operand(c, i);

	cpu_begin(c, i);
	cpu_far_call(c, &f);
	cpu_retire(c, i, true);
}

static void op_ret_far(struct cpu *c, const struct cpu_insn *i)
{
	cpu_begin(c, i);
	cpu_far_return(c, i->size, (uint16_t)i->imm);
	cpu_retire(c, i, true);
}

/* arg: 1 for CALL */
static bool pick_far(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (d->zi.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
		return false;
	if (d->op[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
		i->imm = d->op[0].ptr.offset;
		i->arg = d->op[0].ptr.segment;
	} else if (!(i->flags & CPU_INSN_MEM)) {
		return false;
	}
	return pick_fn(i, arg ? op_call_far : op_jmp_far);
}

static bool pick_ret_far(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	return d->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR && pick_fn(i, op_ret_far);
}

static void op_iret(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t next = cpu_next_rip(c, i);

	cpu_begin(c, i);
	cpu_iret(c, i->size, next);
	cpu_window_opened(c);
	cpu_retire(c, i, true);
}

/* arg: operand size */
static bool pick_iret(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->size = (uint8_t)arg;
	return pick_fn(i, op_iret);
}

/* ---- SYSCALL, SYSENTER and their returns (SDM 2B) ------------------------------------------- */

#define CODE32_ATTR 0xc09bu
#define CODE64_ATTR 0xa09bu
#define DATA_ATTR   0xc093u

static void set_flat(struct cpu *c, unsigned seg, uint16_t sel, uint32_t attr)
{
	c->s.seg[seg] = (struct cpu_seg){
		.limit = 0xffffffffu,
		.sel = sel,
		.attr = attr | (sel & 3u) << X86_ATTR_DPL_SHIFT,
	};
}

static void op_syscall(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = (c->s.star >> 32) & 0xfffc;

	if (!(c->s.efer & X86_EFER_SCE))
		cpu_fault(c, i, X86_VEC_UD);
	cpu_begin(c, i);
	c->s.gpr[X86_RCX] = cpu_next_rip(c, i);
	c->s.gpr[X86_R11] = c->s.rflags & ~X86_FLAG_RF;
	c->s.rflags = (c->s.rflags & ~(c->s.fmask | X86_FLAG_RF)) | X86_FLAG_ONE;
	set_flat(c, X86_CS, sel, CODE64_ATTR);
	set_flat(c, X86_SS, sel + 8, DATA_ATTR);
	c->s.seg[X86_SS].attr = DATA_ATTR;
	c->s.rip = c->s.lstar;
	cpu_retire(c, i, true);
}

/* AMD's outside 64-bit mode (APM 3, SYSCALL): in compatibility mode to CSTAR, else to STAR's low
 * half. */
static void op_syscall_amd(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = (c->s.star >> 32) & 0xfffc;
	bool lm = c->mode & CPU_MODE_LMA;

	if (!(c->s.efer & X86_EFER_SCE))
		cpu_fault(c, i, X86_VEC_UD);
	cpu_begin(c, i);
	c->s.gpr[X86_RCX] = (uint32_t)cpu_next_rip(c, i);
	if (lm) {
		c->s.gpr[X86_R11] = c->s.rflags & ~X86_FLAG_RF;
		c->s.rflags = (c->s.rflags & ~(c->s.fmask | X86_FLAG_RF)) | X86_FLAG_ONE;
	} else {
		c->s.rflags &= ~(X86_FLAG_VM | X86_FLAG_IF | X86_FLAG_RF);
	}
	set_flat(c, X86_CS, sel, lm ? CODE64_ATTR : CODE32_ATTR);
	set_flat(c, X86_SS, sel + 8, DATA_ATTR);
	c->s.seg[X86_SS].attr = DATA_ATTR;
	c->s.rip = lm ? c->s.cstar : (uint32_t)c->s.star;
	cpu_retire(c, i, true);
}

/* Only 64-bit mode has SYSCALL on Intel's. */
static bool pick_syscall(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if ((d->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		return pick_fn(i, op_syscall);
	return d->c->feat->amd && pick_fn(i, op_syscall_amd);
}

/* TF as SYSRET leaves it counts: a trap comes before the next instruction. */
static void sysret_trap(struct cpu *c)
{
	c->one_tf = false;
	if (c->s.rflags & X86_FLAG_TF)
		c->s.pending_dbg |= X86_DR6_BS;
}

static void op_sysret(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = (uint16_t)(c->s.star >> 48) | 3;
	bool wide = i->size == 8;

	if (!(c->s.efer & X86_EFER_SCE))
		cpu_fault(c, i, X86_VEC_UD);
	if (cpu_cpl(c) != 0 || (wide && !cpu_lin_canonical(c, c->s.gpr[X86_RCX])))
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	cpu_begin(c, i);
	c->s.rip = wide ? c->s.gpr[X86_RCX] : (uint32_t)c->s.gpr[X86_RCX];
	c->s.rflags = (c->s.gpr[X86_R11] & 0x3c7fd7) | X86_FLAG_ONE;
	set_flat(c, X86_CS, wide ? (sel + 16) | 3 : sel, wide ? CODE64_ATTR : CODE32_ATTR);
	set_flat(c, X86_SS, (sel + 8) | 3, DATA_ATTR);
	cpu_window_opened(c);
	sysret_trap(c);
	cpu_retire(c, i, true);
}

/* AMD's outside 64-bit mode: RFLAGS stay but for IF. */
static void op_sysret_amd(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = (uint16_t)(c->s.star >> 48) | 3;

	if (!(c->s.efer & X86_EFER_SCE))
		cpu_fault(c, i, X86_VEC_UD);
	if (!(c->s.cr0 & X86_CR0_PE) || cpu_vm86(c) || cpu_cpl(c) != 0)
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	cpu_begin(c, i);
	c->s.rip = (uint32_t)c->s.gpr[X86_RCX];
	c->s.rflags |= X86_FLAG_IF;
	set_flat(c, X86_CS, sel, CODE32_ATTR);
	set_flat(c, X86_SS, (sel + 8) | 3, DATA_ATTR);
	cpu_window_opened(c);
	cpu_retire(c, i, true);
}

static bool pick_sysret(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if ((d->mode & CPU_MODE_CODE) != CPU_MODE_CODE64)
		return d->c->feat->amd && pick_fn(i, op_sysret_amd);
	i->size = d->zi.attributes & ZYDIS_ATTRIB_HAS_REX && d->zi.raw.rex.W ? 8 : 4;
	return pick_fn(i, op_sysret);
}

static void op_sysenter(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = c->s.sysenter_cs & 0xfffc;
	bool lm = cpu_long_mode(c);

	if (!(c->s.cr0 & X86_CR0_PE) || !sel)
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	cpu_begin(c, i);
	c->s.rflags &= ~(X86_FLAG_VM | X86_FLAG_IF | X86_FLAG_RF);
	c->s.gpr[X86_RSP] = lm ? c->s.sysenter_esp : (uint32_t)c->s.sysenter_esp;
	c->s.rip = lm ? c->s.sysenter_eip : (uint32_t)c->s.sysenter_eip;
	set_flat(c, X86_CS, sel, lm ? CODE64_ATTR : CODE32_ATTR);
	set_flat(c, X86_SS, sel + 8, DATA_ATTR);
	cpu_retire(c, i, true);
}

static void op_sysexit(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = c->s.sysenter_cs & 0xfffc;
	uint64_t rsp = c->s.gpr[X86_RCX], rip = c->s.gpr[X86_RDX];
	bool wide = i->size == 8;

	if (!(c->s.cr0 & X86_CR0_PE) || !sel || cpu_cpl(c) != 0)
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	if (wide && (!cpu_lin_canonical(c, rsp) || !cpu_lin_canonical(c, rip)))
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	cpu_begin(c, i);
	c->s.gpr[X86_RSP] = wide ? rsp : (uint32_t)rsp;
	c->s.rip = wide ? rip : (uint32_t)rip;
	sel += wide ? 32 : 16;
	set_flat(c, X86_CS, sel | 3, wide ? CODE64_ATTR : CODE32_ATTR);
	set_flat(c, X86_SS, (sel + 8) | 3, DATA_ATTR);
	cpu_retire(c, i, true);
}

/* arg: 1 for SYSEXIT */
static bool pick_sysenter(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	bool rex_w = d->zi.attributes & ZYDIS_ATTRIB_HAS_REX && d->zi.raw.rex.W;

	i->size = (d->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 && rex_w ? 8 : 4;
	return pick_fn(i, arg ? op_sysexit : op_sysenter);
}

/* ---- LDTR and TR --------------------------------------------------------------------------------
 */

static void desc_table_exit(struct cpu *c, const struct cpu_insn *i)
{
	if (c->ctl.exits & CPU_CTL_DESC_TABLE)
		cpu_leave(c, i, CPU_EXIT_DESC_TABLE);
}

static void require_cpl0(struct cpu *c, const struct cpu_insn *i)
{
	if (cpu_cpl(c) != 0)
		cpu_fault_err(c, i, X86_VEC_GP, 0);
}

static void op_lldt(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_desc d;
	uint16_t sel;

	require_cpl0(c, i);
	desc_table_exit(c, i);
	sel = i->flags & CPU_INSN_MEM ? cpu_ld16(c, i, cpu_operand_lin(c, i, 2, false))
				      : source16(c, i);
	cpu_begin(c, i);
	if (cpu_sel_null(sel)) {
		cpu_seg_set_null(&c->s.ldtr, sel, 0);
		cpu_retire(c, i, false);
		return;
	}
	if ((sel & 4) || !cpu_desc_read(c, sel, &d) || cpu_desc_type(&d) != CPU_SYS_LDT ||
	    (cpu_long_mode(c) && !cpu_desc_read_high(c, sel, &d)))
		cpu_fault_sel(c, X86_VEC_GP, sel, false);
	if (!cpu_desc_present(&d))
		cpu_fault_sel(c, X86_VEC_NP, sel, false);
	if (cpu_long_mode(c) && !cpu_base_canonical(c, d.base_hi))
		cpu_fault_sel(c, X86_VEC_GP, sel, false);
	cpu_desc_unpack(&d, sel, &c->s.ldtr);
	cpu_retire(c, i, false);
}

static void op_ltr(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_desc d;
	unsigned type;
	uint16_t sel;

	require_cpl0(c, i);
	desc_table_exit(c, i);
	sel = i->flags & CPU_INSN_MEM ? cpu_ld16(c, i, cpu_operand_lin(c, i, 2, false))
				      : source16(c, i);
	cpu_begin(c, i);
	if (cpu_sel_null(sel))
		cpu_fault_err(c, NULL, X86_VEC_GP, 0);
	if ((sel & 4) || !cpu_desc_read(c, sel, &d))
		cpu_fault_sel(c, X86_VEC_GP, sel, false);
	type = cpu_desc_type(&d);
	if (type != CPU_SYS_TSS && (cpu_long_mode(c) || type != CPU_SYS_TSS16))
		cpu_fault_sel(c, X86_VEC_GP, sel, false);
	if (cpu_long_mode(c) && !cpu_desc_read_high(c, sel, &d))
		cpu_fault_sel(c, X86_VEC_GP, sel, false);
	if (!cpu_desc_present(&d))
		cpu_fault_sel(c, X86_VEC_NP, sel, false);
	if (cpu_long_mode(c) && !cpu_base_canonical(c, d.base_hi))
		cpu_fault_sel(c, X86_VEC_GP, sel, false);
	cpu_desc_set_busy(c, &d, true);
	cpu_desc_unpack(&d, sel, &c->s.tr);
	c->s.tr.attr |= 2;
	cpu_retire(c, i, false);
}

/* arg: 0 LLDT, 1 LTR */
static bool pick_load_table(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (!(d->mode & CPU_MODE_PROT))
		return false;
	if (!(i->flags & CPU_INSN_MEM))
		i->r3 = cpu_reg_offset(d->op[0].reg.value);
	return pick_fn(i, arg ? op_ltr : op_lldt);
}

static void op_store_table(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = i->arg ? c->s.tr.sel : c->s.ldtr.sel;

	if ((c->s.cr4 & X86_CR4_UMIP) && cpu_cpl(c) != 0)
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	desc_table_exit(c, i);
	if (i->flags & CPU_INSN_MEM)
		cpu_st16(c, i, cpu_lin(c, i), sel);
	else
		put_reg(c, i->r1, i->size, sel);
	CPU_NEXT(c, i);
}

/* arg: 0 SLDT, 1 STR */
static bool pick_store_table(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (!(d->mode & CPU_MODE_PROT) || (i->flags & CPU_INSN_LOCK))
		return false;
	if (!(i->flags & CPU_INSN_MEM)) {
		i->r1 = cpu_reg_offset(d->op[0].reg.value);
		i->size = d->op[0].size / 8;
	}
	i->arg = arg;
	i->fn = op_store_table;
	return true;
}

/* ---- LAR, LSL, VERR, VERW, ARPL ------------------------------------------------------------- */

/* The descriptor of @sel, if the program may see it: @system has a bit for each system type
 * allowed. */
static bool visible_desc(struct cpu *c, uint16_t sel, unsigned system, struct cpu_desc *d)
{
	unsigned type;

	if (cpu_sel_null(sel) || !cpu_desc_read(c, sel, d))
		return false;
	type = cpu_desc_type(d);
	if (!(type & 0x10)) {
		if (!(system >> type & 1))
			return false;
		if (cpu_long_mode(c) && !cpu_desc_read_high(c, sel, d))
			return false;
	}
	return cpu_desc_conforming(d) || MAX(sel & 3u, cpu_cpl(c)) <= cpu_desc_dpl(d);
}

#define LAR_TYPES      0x1a3eu /* 1 2 3 4 5 9 B C */
#define LAR_TYPES_LONG 0x1a04u /* 2 9 B C */
#define LSL_TYPES      0x0a0eu /* 1 2 3 9 B */
#define LSL_TYPES_LONG 0x0a04u /* 2 9 B */

static void set_zf(struct cpu *c, bool zf)
{
	c->s.rflags = (c->s.rflags & ~X86_FLAG_ZF) | (zf ? X86_FLAG_ZF : 0);
}

static void op_lar(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = source16(c, i);
	struct cpu_desc d;
	bool ok;

	cpu_begin(c, i);
	ok = visible_desc(c, sel, cpu_long_mode(c) ? LAR_TYPES_LONG : LAR_TYPES, &d);
	if (ok)
		put_reg(c, i->r1, i->size, d.hi & (i->size == 2 ? 0xff00u : 0xffff00u));
	set_zf(c, ok);
	cpu_retire(c, i, false);
}

static void op_lsl(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = source16(c, i);
	struct cpu_seg seg;
	struct cpu_desc d;
	bool ok;

	cpu_begin(c, i);
	ok = visible_desc(c, sel, cpu_long_mode(c) ? LSL_TYPES_LONG : LSL_TYPES, &d);
	if (ok) {
		cpu_desc_unpack(&d, sel, &seg);
		put_reg(c, i->r1, i->size, seg.limit);
	}
	set_zf(c, ok);
	cpu_retire(c, i, false);
}

static void op_verr(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = source16(c, i);
	struct cpu_desc d;

	cpu_begin(c, i);
	set_zf(c, visible_desc(c, sel, 0, &d) && (cpu_desc_type(&d) & 0xa) != 8);
	cpu_retire(c, i, false);
}

static void op_verw(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t sel = source16(c, i);
	struct cpu_desc d;

	cpu_begin(c, i);
	set_zf(c, visible_desc(c, sel, 0, &d) && cpu_desc_writable_data(&d));
	cpu_retire(c, i, false);
}

/* LAR and LSL have a destination; the selector comes last. */
static bool pick_test(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[] = {op_lar, op_lsl, op_verr, op_verw};
	unsigned last = arg < 2 ? 1 : 0;

	if (!(d->mode & CPU_MODE_PROT))
		return false;
	if (last) {
		i->r1 = cpu_reg_offset(d->op[0].reg.value);
		i->size = d->op[0].size / 8;
	}
	if (!(i->flags & CPU_INSN_MEM))
		i->r3 = cpu_reg_offset(d->op[last].reg.value);
	return pick_fn(i, fn[arg]);
}

/* Memory is written, and its write checked, only when the RPL changes, as silicon does it. */
static void op_arpl(struct cpu *c, const struct cpu_insn *i)
{
	uint16_t rpl = CPU_REG16(c, i->r2) & 3, sel;

	if (i->flags & CPU_INSN_MEM)
		sel = cpu_ld16(c, i, cpu_operand_lin(c, i, 2, false));
	else
		sel = CPU_REG16(c, i->r1);
	if ((sel & 3u) >= rpl) {
		c->fl &= (uint16_t)~CPU_FL_ZF;
		CPU_NEXT(c, i);
	}
	sel = (sel & 0xfffcu) | rpl;
	if (i->flags & CPU_INSN_MEM)
		cpu_st16(c, i, cpu_operand_lin(c, i, 2, true), sel);
	else
		CPU_REG16(c, i->r1) = sel;
	c->fl |= CPU_FL_ZF;
	CPU_NEXT(c, i);
}

static bool pick_arpl(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (!(d->mode & CPU_MODE_PROT) || (i->flags & CPU_INSN_LOCK))
		return false;
	i->r2 = cpu_reg_offset(d->op[1].reg.value);
	if (!(i->flags & CPU_INSN_MEM))
		i->r1 = cpu_reg_offset(d->op[0].reg.value);
	i->fn = op_arpl;
	return true;
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_MOV, 0, pick_mov_seg},
	{ZYDIS_MNEMONIC_PUSH, 0, pick_stack_seg},
	{ZYDIS_MNEMONIC_POP, 1, pick_stack_seg},
	{ZYDIS_MNEMONIC_LES, X86_ES, pick_load_far_pointer},
	{ZYDIS_MNEMONIC_LDS, X86_DS, pick_load_far_pointer},
	{ZYDIS_MNEMONIC_LSS, X86_SS, pick_load_far_pointer},
	{ZYDIS_MNEMONIC_LFS, X86_FS, pick_load_far_pointer},
	{ZYDIS_MNEMONIC_LGS, X86_GS, pick_load_far_pointer},
	{ZYDIS_MNEMONIC_JMP, 0, pick_far},
	{ZYDIS_MNEMONIC_CALL, 1, pick_far},
	{ZYDIS_MNEMONIC_RET, 0, pick_ret_far},
	{ZYDIS_MNEMONIC_IRET, 2, pick_iret},
	{ZYDIS_MNEMONIC_IRETD, 4, pick_iret},
	{ZYDIS_MNEMONIC_IRETQ, 8, pick_iret},
	{ZYDIS_MNEMONIC_SYSCALL, 0, pick_syscall},
	{ZYDIS_MNEMONIC_SYSRET, 0, pick_sysret},
	{ZYDIS_MNEMONIC_SYSENTER, 0, pick_sysenter},
	{ZYDIS_MNEMONIC_SYSEXIT, 1, pick_sysenter},
	{ZYDIS_MNEMONIC_LLDT, 0, pick_load_table},
	{ZYDIS_MNEMONIC_LTR, 1, pick_load_table},
	{ZYDIS_MNEMONIC_SLDT, 0, pick_store_table},
	{ZYDIS_MNEMONIC_STR, 1, pick_store_table},
	{ZYDIS_MNEMONIC_LAR, 0, pick_test},
	{ZYDIS_MNEMONIC_LSL, 1, pick_test},
	{ZYDIS_MNEMONIC_VERR, 2, pick_test},
	{ZYDIS_MNEMONIC_VERW, 3, pick_test},
	{ZYDIS_MNEMONIC_ARPL, 0, pick_arpl},
};

const struct cpu_op_table cpu_ops_segment = {ops, ARRAY_SIZE(ops)};
