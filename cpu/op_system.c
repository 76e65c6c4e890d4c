/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* System instructions: control and debug registers, MSRs, ports, tables, TLB, time, HLT. */
#include <sys/random.h>
#include <x86intrin.h>

#include "cpu/segment.h"

static bool pick_fn(struct cpu_insn *i, cpu_op_fn fn)
{
	if (i->flags & CPU_INSN_LOCK)
		return false;
	i->fn = fn;
	return true;
}

static bool pick_end(struct cpu_insn *i, cpu_op_fn fn)
{
	i->flags |= CPU_INSN_END;
	return pick_fn(i, fn);
}

_Noreturn static __attribute__((noinline, cold)) void gp0(struct cpu *c, const struct cpu_insn *i)
{
	cpu_fault_err(c, i, X86_VEC_GP, 0);
}

static void require_cpl0(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely(cpu_cpl(c) != 0))
		gp0(c, i);
}

static void leave_if(struct cpu *c, const struct cpu_insn *i, uint64_t control,
		     enum cpu_exit_reason reason)
{
	if (c->ctl.exits & control)
		cpu_leave(c, i, reason);
}

static bool mode64(const struct cpu *c)
{
	return (c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64;
}

/* A whole register as MOV to CR and DR sees it. */
static uint64_t wide_reg(const struct cpu *c, uint8_t off)
{
	return mode64(c) ? CPU_REG64(c, off) : CPU_REG32(c, off);
}

static void put_wide(struct cpu *c, uint8_t off, uint64_t v)
{
	CPU_REG64(c, off) = mode64(c) ? v : (uint32_t)v;
}

static uint64_t edx_eax(const struct cpu *c)
{
	return c->s.gpr[X86_RDX] << 32 | (uint32_t)c->s.gpr[X86_RAX];
}

static void put_edx_eax(struct cpu *c, uint64_t v)
{
	c->s.gpr[X86_RAX] = (uint32_t)v;
	c->s.gpr[X86_RDX] = v >> 32;
}

/* After cpu_begin(): a vector that a write gave, or 0. */
static void fault_if(struct cpu *c, int vector)
{
	if (vector)
		cpu_fault_err(c, NULL, (uint8_t)vector, 0);
}

/* ---- control registers --------------------------------------------------------------------------
 */

_Noreturn static void leave_cr(struct cpu *c, const struct cpu_insn *i, unsigned num, bool write,
			       uint64_t value)
{
	c->exit.cr.num = (uint8_t)num;
	c->exit.cr.write = write;
	c->exit.cr.gpr = i->r1 / 8;
	c->exit.cr.value = value;
	cpu_leave(c, i, CPU_EXIT_CR_ACCESS);
}

/* Does L0 want to see this write? */
static bool cr_write_leaves(const struct cpu *c, unsigned num, uint64_t value)
{
	const struct cpu_controls *ctl = &c->ctl;

	switch (num) {
	case 0: return (value ^ ctl->cr0_shadow) & ctl->cr0_mask;
	case 3: return ctl->exits & CPU_CTL_CR3_LOAD;
	case 4: return (value ^ ctl->cr4_shadow) & ctl->cr4_mask;
	case 8: return ctl->exits & CPU_CTL_CR8_LOAD;
	default: return false;
	}
}

/* Inside a run: what L0 owns stays as it is. */
static int write_cr(struct cpu *c, unsigned num, uint64_t value)
{
	struct cpu_cr3 cr3;
	int vector;

	switch (num) {
	case 0:
		value = (value & ~c->ctl.cr0_mask) | (c->s.cr0 & c->ctl.cr0_mask);
		return cpu_write_cr0(c, value, true);
	case 2: c->s.cr2 = value; return 0;
	case 3:
		vector = cpu_cr3_check(c, value, &cr3, true);
		if (!vector)
			cpu_cr3_commit(c, &cr3);
		return vector;
	case 4:
		value = (value & ~c->ctl.cr4_mask) | (c->s.cr4 & c->ctl.cr4_mask);
		return cpu_write_cr4(c, value, true);
	default: return cpu_set_cr8(c, value);
	}
}

static bool tpr_below(const struct cpu *c)
{
	return (c->ctl.exits & CPU_CTL_TPR_SHADOW) && c->s.cr8 < c->ctl.tpr_threshold;
}

/* r1: the general register, r2: the control register's number */
static void op_mov_to_cr(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t value = wide_reg(c, i->r1);

	require_cpl0(c, i);
	if (cr_write_leaves(c, i->r2, value))
		leave_cr(c, i, i->r2, true, value);
	cpu_begin(c, i);
	fault_if(c, write_cr(c, i->r2, value));
	cpu_retire(c, i, false);
	if (i->r2 == 8 && tpr_below(c))
		cpu_leave(c, NULL, CPU_EXIT_TPR_BELOW);
}

static void op_mov_from_cr(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t value = 0;

	require_cpl0(c, i);
	if ((i->r2 == 3 && (c->ctl.exits & CPU_CTL_CR3_STORE)) ||
	    (i->r2 == 8 && (c->ctl.exits & CPU_CTL_CR8_STORE)))
		leave_cr(c, i, i->r2, false, 0);
	switch (i->r2) {
	case 0: value = cpu_read_cr0(c); break;
	case 2: value = c->s.cr2; break;
	case 3: value = c->s.cr3; break;
	case 4: value = cpu_read_cr4(c); break;
	case 8: value = c->s.cr8; break;
	}
	put_wide(c, i->r1, value);
	CPU_NEXT(c, i);
}

/* MP, EM, TS by L0's mask; PE can be set but not cleared. */
static void op_lmsw(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t value, old, mask = c->ctl.cr0_mask & 0xf;

	require_cpl0(c, i);
	value = i->flags & CPU_INSN_MEM ? cpu_ld16(c, i, cpu_operand_lin(c, i, 2, false))
					: CPU_REG16(c, i->r3);
	value &= 0xf;
	old = cpu_read_cr0(c);
	value = (old & ~0xeull) | value;
	if ((value ^ c->ctl.cr0_shadow) & mask) {
		c->exit.cr.num = 0;
		c->exit.cr.write = true;
		c->exit.cr.gpr = 0xff;
		c->exit.cr.value = value;
		cpu_leave(c, i, CPU_EXIT_CR_ACCESS);
	}
	cpu_begin(c, i);
	old = c->s.cr0;
	mask = 0xf & ~c->ctl.cr0_mask;
	fault_if(c, cpu_write_cr0(c, (old & ~mask) | (value & mask), true));
	cpu_retire(c, i, false);
}

static void op_clts(struct cpu *c, const struct cpu_insn *i)
{
	require_cpl0(c, i);
	if (c->ctl.cr0_mask & X86_CR0_TS) {
		if (c->ctl.cr0_shadow & X86_CR0_TS) {
			c->exit.cr.num = 0;
			c->exit.cr.write = true;
			c->exit.cr.gpr = 0xff;
			c->exit.cr.value = cpu_read_cr0(c) & ~X86_CR0_TS;
			cpu_leave(c, i, CPU_EXIT_CR_ACCESS);
		}
		cpu_begin(c, i);
	} else {
		cpu_begin(c, i);
		c->s.cr0 &= ~X86_CR0_TS;
	}
	cpu_retire(c, i, false);
}

static void check_umip(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely((c->s.cr4 & X86_CR4_UMIP) && cpu_cpl(c) != 0))
		gp0(c, i);
}

static void op_smsw(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t value = cpu_read_cr0(c);

	check_umip(c, i);
	if (i->flags & CPU_INSN_MEM)
		cpu_st16(c, i, cpu_lin(c, i), (uint16_t)value);
	else if (i->size == 2)
		CPU_REG16(c, i->r3) = (uint16_t)value;
	else
		CPU_REG64(c, i->r3) = value;
	CPU_NEXT(c, i);
}

/* arg: 0 SMSW, 1 LMSW */
static bool pick_msw(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (!(i->flags & CPU_INSN_MEM)) {
		i->r3 = cpu_reg_offset(d->op[0].reg.value);
		i->size = d->op[0].size / 8;
	}
	return arg ? pick_end(i, op_lmsw) : pick_fn(i, op_smsw);
}

/* ---- debug registers (SDM 3B 18.2) ---------------------------------------------------------- */

/* DR4 and DR5 are DR6 and DR7, or nothing with CR4.DE. */
static unsigned dr_number(struct cpu *c, const struct cpu_insn *i)
{
	unsigned num = i->r2;

	if (num == 4 || num == 5) {
		if (c->s.cr4 & X86_CR4_DE)
			cpu_fault(c, i, X86_VEC_UD);
		num += 2;
	}
	return num;
}

static void check_dr(struct cpu *c, const struct cpu_insn *i, unsigned num, bool write,
		     uint64_t value)
{
	require_cpl0(c, i);
	if (c->ctl.exits & CPU_CTL_MOV_DR) {
		c->exit.cr.num = (uint8_t)num;
		c->exit.cr.write = write;
		c->exit.cr.gpr = i->r1 / 8;
		c->exit.cr.value = value;
		cpu_leave(c, i, CPU_EXIT_DR_ACCESS);
	}
	if (c->s.dr7 & X86_DR7_GD) {
		cpu_begin(c, i);
		cpu_fault_db(c, NULL, X86_DR6_BD);
	}
}

static void op_mov_to_dr(struct cpu *c, const struct cpu_insn *i)
{
	unsigned num = dr_number(c, i);
	uint64_t value = wide_reg(c, i->r1);

	check_dr(c, i, num, true, value);
	if (num >= 6 && value >> 32)
		gp0(c, i);
	cpu_begin(c, i);
	if (num < 4)
		c->s.dr[num] = value;
	else if (num == 6)
		c->s.dr6 = (value & 0xe00f) | X86_DR6_FIXED;
	else
		c->s.dr7 = (value & 0xffff23ff) | X86_DR7_FIXED;
	cpu_recheck(c);
	cpu_retire(c, i, false);
}

static void op_mov_from_dr(struct cpu *c, const struct cpu_insn *i)
{
	unsigned num = dr_number(c, i);

	check_dr(c, i, num, false, 0);
	put_wide(c, i->r1, num < 4 ? c->s.dr[num] : num == 6 ? c->s.dr6 : c->s.dr7);
	CPU_NEXT(c, i);
}

static bool reg_in(const ZydisDecodedOperand *op, ZydisRegister first, ZydisRegister last)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value >= first &&
	       op->reg.value <= last;
}

/* MOV to and from CR and DR; other forms of MOV are not ours. */
static bool pick_mov_sys(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	bool to = !reg_in(&d->op[0], ZYDIS_REGISTER_RAX, ZYDIS_REGISTER_R15) &&
		  !reg_in(&d->op[0], ZYDIS_REGISTER_EAX, ZYDIS_REGISTER_R15D);
	const ZydisDecodedOperand *sys = &d->op[to ? 0 : 1], *gpr = &d->op[to ? 1 : 0];

	if (reg_in(sys, ZYDIS_REGISTER_CR0, ZYDIS_REGISTER_CR15)) {
		i->r2 = (uint8_t)(sys->reg.value - ZYDIS_REGISTER_CR0);
		if (!(0x11d >> i->r2 & 1)) /* 0 2 3 4 8 */
			return false;
		i->r1 = cpu_reg_offset(gpr->reg.value);
		return to ? pick_end(i, op_mov_to_cr) : pick_fn(i, op_mov_from_cr);
	}
	if (reg_in(sys, ZYDIS_REGISTER_DR0, ZYDIS_REGISTER_DR15)) {
		i->r2 = (uint8_t)(sys->reg.value - ZYDIS_REGISTER_DR0);
		if (i->r2 > 7)
			return false;
		i->r1 = cpu_reg_offset(gpr->reg.value);
		return to ? pick_end(i, op_mov_to_dr) : pick_fn(i, op_mov_from_dr);
	}
	return false;
}

/* ---- XCR0, PKRU ---------------------------------------------------------------------------------
 */

static void op_xgetbv(struct cpu *c, const struct cpu_insn *i)
{
	uint32_t index = (uint32_t)c->s.gpr[X86_RCX];
	uint64_t in_use = X86_XCR0_X87 | X86_XCR0_SSE | cpu_xsave_in_use(c);

	if (!(c->s.cr4 & X86_CR4_OSXSAVE))
		cpu_fault(c, i, X86_VEC_UD);
	if (index == 0)
		put_edx_eax(c, c->s.xcr0);
	else if (index == 1 && cpu_has(c, CPU_FEAT_XGETBV1))
		put_edx_eax(c, c->s.xcr0 & in_use);
	else
		gp0(c, i);
	CPU_NEXT(c, i);
}

static void op_xsetbv(struct cpu *c, const struct cpu_insn *i)
{
	if (!(c->s.cr4 & X86_CR4_OSXSAVE))
		cpu_fault(c, i, X86_VEC_UD);
	require_cpl0(c, i);
	leave_if(c, i, CPU_CTL_XSETBV, CPU_EXIT_XSETBV);
	if ((uint32_t)c->s.gpr[X86_RCX] != 0)
		gp0(c, i);
	cpu_begin(c, i);
	fault_if(c, cpu_set_xcr0(c, edx_eax(c)));
	cpu_retire(c, i, false);
}

static void op_rdpkru(struct cpu *c, const struct cpu_insn *i)
{
	if (!(c->s.cr4 & X86_CR4_PKE))
		cpu_fault(c, i, X86_VEC_UD);
	if ((uint32_t)c->s.gpr[X86_RCX] != 0)
		gp0(c, i);
	put_edx_eax(c, c->s.pkru);
	CPU_NEXT(c, i);
}

static void op_wrpkru(struct cpu *c, const struct cpu_insn *i)
{
	if (!(c->s.cr4 & X86_CR4_PKE))
		cpu_fault(c, i, X86_VEC_UD);
	if ((uint32_t)c->s.gpr[X86_RCX] != 0 || (uint32_t)c->s.gpr[X86_RDX] != 0)
		gp0(c, i);
	cpu_begin(c, i);
	c->s.pkru = (uint32_t)c->s.gpr[X86_RAX];
	cpu_update_asid(c);
	cpu_retire(c, i, false);
}

/* ---- MSRs, CPUID, time, random numbers ------------------------------------------------------ */

static void op_rdmsr(struct cpu *c, const struct cpu_insn *i)
{
	uint32_t index = (uint32_t)c->s.gpr[X86_RCX];
	uint64_t value = 0;
	int ret = -1;

	require_cpl0(c, i);
	cpu_begin(c, i);
	if (!cpu_msr_intercepted(c, index, false))
		ret = cpu_rdmsr(c, index, &value);
	if (ret < 0) {
		c->exit.msr.index = index;
		c->exit.msr.value = 0;
		cpu_leave(c, NULL, CPU_EXIT_MSR_READ);
	}
	fault_if(c, ret);
	put_edx_eax(c, value);
	cpu_retire(c, i, false);
}

static void op_wrmsr(struct cpu *c, const struct cpu_insn *i)
{
	uint32_t index = (uint32_t)c->s.gpr[X86_RCX];
	int ret = -1;

	require_cpl0(c, i);
	cpu_begin(c, i);
	if (!cpu_msr_intercepted(c, index, true))
		ret = cpu_wrmsr(c, index, edx_eax(c));
	if (ret < 0) {
		c->exit.msr.index = index;
		c->exit.msr.value = edx_eax(c);
		cpu_leave(c, NULL, CPU_EXIT_MSR_WRITE);
	}
	fault_if(c, ret);
	cpu_retire(c, i, false);
}

/* A function of its own: a handler with a local whose address escapes would not end in a jump. */
static __attribute__((noinline)) void cpuid(struct cpu *c, const struct cpu_insn *i)
{
	uint32_t out[4];

	leave_if(c, i, CPU_CTL_CPUID, CPU_EXIT_CPUID);
	cpu_cpuid(c, (uint32_t)c->s.gpr[X86_RAX], (uint32_t)c->s.gpr[X86_RCX], out);
	c->s.gpr[X86_RAX] = out[0];
	c->s.gpr[X86_RBX] = out[1];
	c->s.gpr[X86_RCX] = out[2];
	c->s.gpr[X86_RDX] = out[3];
}

static void op_cpuid(struct cpu *c, const struct cpu_insn *i)
{
	cpuid(c, i);
	CPU_NEXT(c, i);
}

static uint64_t tsc_at(const struct cpu *c, uint64_t icount)
{
	return (c->ctl.exits & CPU_CTL_TSC_ICOUNT ? icount : __rdtsc()) + c->ctl.tsc_offset;
}

uint64_t cpu_tsc(struct cpu *c)
{
	return tsc_at(c, c->icount);
}

/* Inside a block icount is already past all of it. */
static uint64_t insn_icount(const struct cpu *c, const struct cpu_insn *i)
{
	return c->blk ? c->icount - c->blk->n + i->idx : c->icount;
}

static void check_tsd(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely((c->s.cr4 & X86_CR4_TSD) && cpu_cpl(c) != 0))
		gp0(c, i);
}

static void op_rdtsc(struct cpu *c, const struct cpu_insn *i)
{
	check_tsd(c, i);
	leave_if(c, i, CPU_CTL_RDTSC, CPU_EXIT_RDTSC);
	put_edx_eax(c, tsc_at(c, insn_icount(c, i)));
	CPU_NEXT(c, i);
}

static void op_rdtscp(struct cpu *c, const struct cpu_insn *i)
{
	check_tsd(c, i);
	leave_if(c, i, CPU_CTL_RDTSC, CPU_EXIT_RDTSCP);
	put_edx_eax(c, tsc_at(c, insn_icount(c, i)));
	c->s.gpr[X86_RCX] = (uint32_t)c->s.tsc_aux;
	CPU_NEXT(c, i);
}

static void op_rdpid(struct cpu *c, const struct cpu_insn *i)
{
	CPU_REG64(c, i->r1) = (uint32_t)c->s.tsc_aux;
	CPU_NEXT(c, i);
}

/* There are no counters to read. */
static void op_rdpmc(struct cpu *c, const struct cpu_insn *i)
{
	if (!(c->s.cr4 & X86_CR4_PCE) && cpu_cpl(c) != 0)
		gp0(c, i);
	leave_if(c, i, CPU_CTL_RDPMC, CPU_EXIT_RDPMC);
	gp0(c, i);
}

/* splitmix64, or the host's own. */
static uint64_t random_word(struct cpu *c)
{
	uint64_t z;

	if (!c->ctl.rand_seed) {
		while (getrandom(&z, sizeof(z), 0) != sizeof(z))
			;
		return z;
	}
	if (!c->rand_state)
		c->rand_state = c->ctl.rand_seed;
	z = c->rand_state += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void op_rdrand(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t v;

	if (i->arg)
		leave_if(c, i, CPU_CTL_RDSEED, CPU_EXIT_RDSEED);
	else
		leave_if(c, i, CPU_CTL_RDRAND, CPU_EXIT_RDRAND);
	v = random_word(c);
	if (i->size == 2)
		CPU_REG16(c, i->r1) = (uint16_t)v;
	else
		CPU_REG64(c, i->r1) = i->size == 4 ? (uint32_t)v : v;
	cpu_flags_set_arith(c, X86_FLAG_CF);
	CPU_NEXT(c, i);
}

/* arg: 0 RDRAND, 1 RDSEED */
static bool pick_rdrand(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->size = d->op[0].size / 8;
	i->arg = arg;
	return pick_fn(i, op_rdrand);
}

/* ---- TLB and caches ------------------------------------------------------------------------- */

static void op_invlpg(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t lin = cpu_lin(c, i);

	require_cpl0(c, i);
	c->exit.gva = lin;
	leave_if(c, i, CPU_CTL_INVLPG, CPU_EXIT_INVLPG);
	cpu_begin(c, i);
	if (cpu_lin_canonical(c, lin))
		cpu_tlb_flush_gva(c, lin);
	cpu_retire(c, i, false);
}

/* One PCID that may not be the current one: the flush works on the current. */
static void flush_pcid(struct cpu *c, uint64_t pcid)
{
	uint64_t cr3 = c->s.cr3;

	c->s.cr3 = (cr3 & ~X86_CR3_PCID_MASK) | pcid;
	if (c->s.cr4 & X86_CR4_PCIDE)
		cpu_update_asid(c);
	cpu_tlb_flush_guest(c, false);
	c->s.cr3 = cr3;
	if (c->s.cr4 & X86_CR4_PCIDE)
		cpu_update_asid(c);
}

static void op_invpcid(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t type = wide_reg(c, i->r1), lin, pcid, gva;

	require_cpl0(c, i);
	lin = cpu_operand_lin(c, i, 16, false);
	pcid = cpu_ld64(c, i, lin);
	gva = cpu_ld64(c, i, cpu_lin_wrap(c, lin + 8));
	c->exit.invpcid.type = type;
	c->exit.invpcid.pcid = pcid;
	c->exit.invpcid.gva = gva;
	leave_if(c, i, CPU_CTL_INVPCID, CPU_EXIT_INVPCID);
	if (type > 3 || pcid >> 12 || (type == 0 && !cpu_base_canonical(c, gva)) ||
	    (type < 2 && pcid && !(c->s.cr4 & X86_CR4_PCIDE)))
		gp0(c, i);
	cpu_begin(c, i);
	if (type == 0)
		cpu_tlb_flush_gva(c, gva);
	else if (type == 1)
		flush_pcid(c, pcid);
	else
		cpu_tlb_flush_all(c);
	cpu_retire(c, i, false);
}

static bool pick_invpcid(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->r1 = cpu_reg_offset(d->op[0].reg.value);
	return i->flags & CPU_INSN_MEM && pick_end(i, op_invpcid);
}

/* Caches are the host's matter. */
static void op_wbinvd(struct cpu *c, const struct cpu_insn *i)
{
	require_cpl0(c, i);
	leave_if(c, i, CPU_CTL_WBINVD, CPU_EXIT_WBINVD);
	CPU_NEXT(c, i);
}

/* ---- interrupt flag, HLT, MONITOR ----------------------------------------------------------- */

/* Which flag CLI and STI may change here: IF, VIF, or none (SDM 2A, CLI). */
static uint64_t interrupt_flag(const struct cpu *c)
{
	if (!(c->s.cr0 & X86_CR0_PE) || cpu_cpl(c) <= cpu_iopl(c))
		return X86_FLAG_IF;
	if (cpu_vm86(c) ? c->s.cr4 & X86_CR4_VME : cpu_cpl(c) == 3 && (c->s.cr4 & X86_CR4_PVI))
		return X86_FLAG_VIF;
	return 0;
}

static void op_cli(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t flag = interrupt_flag(c);

	if (!flag)
		gp0(c, i);
	c->s.rflags &= ~flag;
	CPU_NEXT(c, i);
}

/* Somebody waits for the window, or looks at every instruction: to the dispatcher. */
static __attribute__((noinline)) void sti_slow(struct cpu *c, const struct cpu_insn *i)
{
	cpu_begin(c, i);
	c->s.rflags |= X86_FLAG_IF;
	c->s.int_shadow_sti = true;
	c->sti_at = c->icount + 1;
	cpu_recheck(c);
	cpu_retire(c, i, false);
}

/* Kernels do it all the time: it does not end the block. The shadow is settled when someone asks.
 */
static void op_sti(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t flag = interrupt_flag(c);

	if (!flag || (flag == X86_FLAG_VIF && (c->s.rflags & X86_FLAG_VIP)))
		gp0(c, i);
	if (flag == X86_FLAG_IF && !(c->s.rflags & X86_FLAG_IF)) {
		if (c->single || (c->ctl.exits & CPU_CTL_IRQ_WINDOW)) {
			sti_slow(c, i);
			return;
		}
		c->s.int_shadow_sti = true;
		c->sti_at = insn_icount(c, i) + 1;
	}
	c->s.rflags |= flag;
	CPU_NEXT(c, i);
}

static void op_hlt(struct cpu *c, const struct cpu_insn *i)
{
	require_cpl0(c, i);
	cpu_begin(c, i);
	cpu_retire(c, i, false);
	c->s.activity = CPU_HALTED;
	cpu_leave(c, NULL, CPU_EXIT_HLT);
}

static void op_monitor(struct cpu *c, const struct cpu_insn *i)
{
	if (cpu_cpl(c) != 0)
		cpu_fault(c, i, X86_VEC_UD);
	if ((uint32_t)c->s.gpr[X86_RCX] != 0)
		gp0(c, i);
	leave_if(c, i, CPU_CTL_MONITOR, CPU_EXIT_MONITOR);
	CPU_NEXT(c, i);
}

static void op_mwait(struct cpu *c, const struct cpu_insn *i)
{
	if (cpu_cpl(c) != 0)
		cpu_fault(c, i, X86_VEC_UD);
	leave_if(c, i, CPU_CTL_MWAIT, CPU_EXIT_MWAIT);
	CPU_NEXT(c, i);
}

/* ---- GDTR and IDTR -------------------------------------------------------------------------- */

static void op_load_table(struct cpu *c, const struct cpu_insn *i)
{
	struct cpu_table t;
	uint64_t lin;

	require_cpl0(c, i);
	leave_if(c, i, CPU_CTL_DESC_TABLE, CPU_EXIT_DESC_TABLE);
	lin = cpu_operand_lin(c, i, mode64(c) ? 10 : 6, false);
	t.limit = cpu_ld16(c, i, lin);
	lin = cpu_lin_wrap(c, lin + 2);
	t.base = mode64(c) ? cpu_ld64(c, i, lin) : cpu_ld32(c, i, lin);
	if (!mode64(c) && i->size == 2)
		t.base &= 0xffffff;
	if (mode64(c) && !cpu_base_canonical(c, t.base))
		gp0(c, i);
	if (i->arg)
		c->s.idtr = t;
	else
		c->s.gdtr = t;
	CPU_NEXT(c, i);
}

static __attribute__((noinline)) void store_table(struct cpu *c, const struct cpu_insn *i)
{
	const struct cpu_table *t = i->arg ? &c->s.idtr : &c->s.gdtr;
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) image = {t->limit, t->base};

	check_umip(c, i);
	leave_if(c, i, CPU_CTL_DESC_TABLE, CPU_EXIT_DESC_TABLE);
	cpu_copy_out(c, i, cpu_lin(c, i), &image, mode64(c) ? 10 : 6);
}

static void op_store_table(struct cpu *c, const struct cpu_insn *i)
{
	store_table(c, i);
	CPU_NEXT(c, i);
}

/* arg: 0 GDT, 1 IDT; 2 added: store */
static bool pick_table(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (!(i->flags & CPU_INSN_MEM))
		return false;
	i->arg = arg & 1;
	return pick_fn(i, arg & 2 ? op_store_table : op_load_table);
}

/* ---- GS, FS, AC ----------------------------------------------------------------------------- */

static void op_swapgs(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t base = c->s.seg[X86_GS].base;

	require_cpl0(c, i);
	c->lbase[X86_GS] = c->s.seg[X86_GS].base = c->s.kernel_gs_base;
	c->s.kernel_gs_base = base;
	CPU_NEXT(c, i);
}

/* arg: the segment register; r1: the general one */
static void op_rdbase(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t base = c->s.seg[i->arg].base;

	if (!(c->s.cr4 & X86_CR4_FSGSBASE))
		cpu_fault(c, i, X86_VEC_UD);
	CPU_REG64(c, i->r1) = i->size == 8 ? base : (uint32_t)base;
	CPU_NEXT(c, i);
}

static void op_wrbase(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t base = i->size == 8 ? CPU_REG64(c, i->r1) : CPU_REG32(c, i->r1);

	if (!(c->s.cr4 & X86_CR4_FSGSBASE))
		cpu_fault(c, i, X86_VEC_UD);
	if (!cpu_base_canonical(c, base))
		gp0(c, i);
	c->lbase[i->arg] = c->s.seg[i->arg].base = base;
	CPU_NEXT(c, i);
}

/* arg: the segment register; 8 added: write */
static bool pick_base(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if ((d->mode & CPU_MODE_CODE) != CPU_MODE_CODE64)
		return false;
	i->arg = arg & 7;
	i->size = d->op[0].size / 8;
	return pick_fn(i, arg & 8 ? op_wrbase : op_rdbase);
}

static void op_stac(struct cpu *c, const struct cpu_insn *i)
{
	if (unlikely(cpu_cpl(c) != 0))
		cpu_fault(c, i, X86_VEC_UD);
	if (i->arg)
		c->s.rflags |= X86_FLAG_AC;
	else
		c->s.rflags &= ~X86_FLAG_AC;
	cpu_update_tlb_ctx(c);
	CPU_NEXT(c, i);
}

/* arg: 1 STAC, 0 CLAC */
static bool pick_stac(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->arg = arg;
	return pick_fn(i, op_stac);
}

/* ---- ports ---------------------------------------------------------------------------------- */

void cpu_io_check(struct cpu *c, const struct cpu_insn *i, uint16_t port, unsigned size)
{
	const struct cpu_seg *tr = &c->s.tr;
	uint64_t lin = tr->base + 0x66;
	unsigned at, bits;

	if (!(c->s.cr0 & X86_CR0_PE) || (!cpu_vm86(c) && cpu_cpl(c) <= cpu_iopl(c)))
		return;
	if (!(tr->attr & 8) || tr->limit < 0x67)
		gp0(c, i);
	cpu_probe(c, i, lin, 2, CPU_ACCESS_IMPLICIT);
	at = (unsigned)cpu_ld_sys(c, lin, 2) + port / 8u;
	/* Two bytes are always read (SDM 1 19.5.2). */
	if (at + 1 > tr->limit)
		gp0(c, i);
	lin = tr->base + at;
	cpu_probe(c, i, lin, 2, CPU_ACCESS_IMPLICIT);
	bits = (unsigned)cpu_ld_sys(c, lin, 2) >> (port & 7);
	if (bits & ((1u << size) - 1))
		gp0(c, i);
}

static bool port_leaves(const struct cpu *c, uint16_t port, unsigned size)
{
	if (!c->ctl.io_bitmap)
		return true;
	for (unsigned n = 0; n < size; n++) {
		unsigned p = port + n;

		if (p > 0xffff || c->ctl.io_bitmap[p / 8] >> (p & 7) & 1)
			return true;
	}
	return false;
}

static void op_port(struct cpu *c, const struct cpu_insn *i, bool in)
{
	uint16_t port = i->r3 ? (uint16_t)c->s.gpr[X86_RDX] : (uint8_t)i->imm;

	cpu_io_check(c, i, port, i->size);
	cpu_debug_io(c, port, i->size);
	if (port_leaves(c, port, i->size)) {
		c->exit.io.port = port;
		c->exit.io.size = i->size;
		c->exit.io.in = in;
		c->exit.io.string = c->exit.io.rep = false;
		cpu_leave(c, i, CPU_EXIT_IO);
	}
}

/* A port that L0 does not want to hear of has nothing behind it. */
static void op_in(struct cpu *c, const struct cpu_insn *i)
{
	op_port(c, i, true);
	if (i->size == 1)
		CPU_REG8(c, 0) = 0xff;
	else if (i->size == 2)
		CPU_REG16(c, 0) = 0xffff;
	else
		c->s.gpr[X86_RAX] = 0xffffffffu;
	CPU_NEXT(c, i);
}

static void op_out(struct cpu *c, const struct cpu_insn *i)
{
	op_port(c, i, false);
	CPU_NEXT(c, i);
}

/* arg: 1 OUT. r3: the port is in DX, else in imm. */
static bool pick_port(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	const ZydisDecodedOperand *port = &d->op[arg ? 0 : 1], *data = &d->op[arg ? 1 : 0];

	i->r3 = port->type == ZYDIS_OPERAND_TYPE_REGISTER;
	if (!i->r3)
		i->imm = port->imm.value.u & 0xff;
	i->size = data->size / 8;
	return pick_fn(i, arg ? op_out : op_in);
}

/* ---- VMX ------------------------------------------------------------------------------------ */

/* arg: the order in the table, for L0 */
static void op_vmx(struct cpu *c, const struct cpu_insn *i)
{
	if (!(c->s.cr4 & X86_CR4_VMXE) && i->arg != 0)
		cpu_fault(c, i, X86_VEC_UD);
	c->exit.insn_info = i->arg;
	cpu_leave(c, i, i->arg == 0 ? CPU_EXIT_VMCALL : CPU_EXIT_VMX_INSN);
}

static bool pick_vmx(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	if (!cpu_has(d->c, CPU_FEAT_VMX))
		return false;
	i->arg = arg;
	return pick_end(i, op_vmx);
}

/* ---- the table ------------------------------------------------------------------------------ */

/* Forms that need nothing but their handler, in the order of arg. */
static bool pick_plain(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const struct {
		cpu_op_fn fn;
		bool end;
	} plain[] = {
		{op_clts, true},   {op_xgetbv, false},	{op_xsetbv, true}, {op_rdpkru, false},
		{op_wrpkru, true}, {op_rdmsr, true},	{op_wrmsr, true},  {op_cpuid, false},
		{op_rdtsc, false}, {op_rdtscp, false},	{op_rdpid, false}, {op_rdpmc, true},
		{op_invlpg, true}, {op_wbinvd, false},	{op_cli, false},   {op_sti, false},
		{op_hlt, true},	   {op_monitor, false}, {op_mwait, false}, {op_swapgs, false},
	};

	return plain[arg].end ? pick_end(i, plain[arg].fn) : pick_fn(i, plain[arg].fn);
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_MOV, 0, pick_mov_sys},
	{ZYDIS_MNEMONIC_SMSW, 0, pick_msw},
	{ZYDIS_MNEMONIC_LMSW, 1, pick_msw},
	{ZYDIS_MNEMONIC_CLTS, 0, pick_plain},
	{ZYDIS_MNEMONIC_XGETBV, 1, pick_plain},
	{ZYDIS_MNEMONIC_XSETBV, 2, pick_plain},
	{ZYDIS_MNEMONIC_RDPKRU, 3, pick_plain},
	{ZYDIS_MNEMONIC_WRPKRU, 4, pick_plain},
	{ZYDIS_MNEMONIC_RDMSR, 5, pick_plain},
	{ZYDIS_MNEMONIC_WRMSR, 6, pick_plain},
	{ZYDIS_MNEMONIC_CPUID, 7, pick_plain},
	{ZYDIS_MNEMONIC_RDTSC, 8, pick_plain},
	{ZYDIS_MNEMONIC_RDTSCP, 9, pick_plain},
	{ZYDIS_MNEMONIC_RDPID, 10, pick_plain},
	{ZYDIS_MNEMONIC_RDPMC, 11, pick_plain},
	{ZYDIS_MNEMONIC_INVLPG, 12, pick_plain},
	{ZYDIS_MNEMONIC_WBINVD, 13, pick_plain},
	{ZYDIS_MNEMONIC_INVD, 13, pick_plain},
	{ZYDIS_MNEMONIC_CLI, 14, pick_plain},
	{ZYDIS_MNEMONIC_STI, 15, pick_plain},
	{ZYDIS_MNEMONIC_HLT, 16, pick_plain},
	{ZYDIS_MNEMONIC_MONITOR, 17, pick_plain},
	{ZYDIS_MNEMONIC_MWAIT, 18, pick_plain},
	{ZYDIS_MNEMONIC_SWAPGS, 19, pick_plain},
	{ZYDIS_MNEMONIC_RDRAND, 0, pick_rdrand},
	{ZYDIS_MNEMONIC_RDSEED, 1, pick_rdrand},
	{ZYDIS_MNEMONIC_INVPCID, 0, pick_invpcid},
	{ZYDIS_MNEMONIC_LGDT, 0, pick_table},
	{ZYDIS_MNEMONIC_LIDT, 1, pick_table},
	{ZYDIS_MNEMONIC_SGDT, 2, pick_table},
	{ZYDIS_MNEMONIC_SIDT, 3, pick_table},
	{ZYDIS_MNEMONIC_RDFSBASE, X86_FS, pick_base},
	{ZYDIS_MNEMONIC_RDGSBASE, X86_GS, pick_base},
	{ZYDIS_MNEMONIC_WRFSBASE, X86_FS + 8, pick_base},
	{ZYDIS_MNEMONIC_WRGSBASE, X86_GS + 8, pick_base},
	{ZYDIS_MNEMONIC_CLAC, 0, pick_stac},
	{ZYDIS_MNEMONIC_STAC, 1, pick_stac},
	{ZYDIS_MNEMONIC_IN, 0, pick_port},
	{ZYDIS_MNEMONIC_OUT, 1, pick_port},
	{ZYDIS_MNEMONIC_VMCALL, 0, pick_vmx},
	{ZYDIS_MNEMONIC_VMLAUNCH, 1, pick_vmx},
	{ZYDIS_MNEMONIC_VMRESUME, 2, pick_vmx},
	{ZYDIS_MNEMONIC_VMXOFF, 3, pick_vmx},
	{ZYDIS_MNEMONIC_VMXON, 4, pick_vmx},
	{ZYDIS_MNEMONIC_VMPTRLD, 5, pick_vmx},
	{ZYDIS_MNEMONIC_VMPTRST, 6, pick_vmx},
	{ZYDIS_MNEMONIC_VMCLEAR, 7, pick_vmx},
	{ZYDIS_MNEMONIC_VMREAD, 8, pick_vmx},
	{ZYDIS_MNEMONIC_VMWRITE, 9, pick_vmx},
	{ZYDIS_MNEMONIC_INVEPT, 10, pick_vmx},
	{ZYDIS_MNEMONIC_INVVPID, 11, pick_vmx},
};

const struct cpu_op_table cpu_ops_system = {ops, ARRAY_SIZE(ops)};
