/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The MSRs that the processor keeps itself (SDM 4). What is not here is L0's: it leaves. */
#include "cpu/segment.h"

#define GP	 ((int)X86_VEC_GP)
#define NOT_OURS (-1)

#define MTRR_CAP       (8u | BIT(8) | BIT(10))	  /* eight ranges, fixed ones, write combining */
#define SPEC_CTRL_OK   (BIT(0) | BIT(1) | BIT(2)) /* IBRS, STIBP, SSBD */
#define DEBUGCTL_OK    (BIT(0) | BIT(1))	  /* LBR, BTF */
#define MISC_ENABLE_RO (BIT(11) | BIT(12))

/* L0's wish: SDM 3C 25.6.9. Without a bitmap only what is not ours leaves. */
bool cpu_msr_intercepted(const struct cpu *c, uint32_t index, bool write)
{
	const uint8_t *map = c->ctl.msr_bitmap;
	unsigned at = write ? 2048 : 0;

	if (!map)
		return false;
	if (index >= 0xc0000000u && index <= 0xc0001fffu)
		at += 1024;
	else if (index > 0x1fff)
		return true;
	index &= 0x1fff;
	return map[at + index / 8] >> (index & 7) & 1;
}

/* ---- memory types -------------------------------------------------------------------------------
 */

static bool mtrr_type_ok(uint64_t type)
{
	return type == 0 || type == 1 || (type >= 4 && type <= 6);
}

static bool bytes_ok(uint64_t value, bool (*ok)(uint64_t))
{
	for (unsigned n = 0; n < 8; n++) {
		if (!ok(value >> n * 8 & 0xff))
			return false;
	}
	return true;
}

static bool pat_type_ok(uint64_t type)
{
	return mtrr_type_ok(type) || type == 7;
}

/* The slot of a fixed-range MTRR, or NULL. */
static uint64_t *mtrr_fix(struct cpu *c, uint32_t index)
{
	if (index == X86_MSR_MTRR_FIX64K)
		return &c->s.mtrr_fix[0];
	if (index == X86_MSR_MTRR_FIX16K_0 || index == X86_MSR_MTRR_FIX16K_0 + 1)
		return &c->s.mtrr_fix[1 + index - X86_MSR_MTRR_FIX16K_0];
	if (index >= X86_MSR_MTRR_FIX4K_0 && index < X86_MSR_MTRR_FIX4K_0 + 8)
		return &c->s.mtrr_fix[3 + index - X86_MSR_MTRR_FIX4K_0];
	return NULL;
}

static uint64_t *mtrr_var(struct cpu *c, uint32_t index)
{
	if (index >= X86_MSR_MTRR_PHYSBASE0 && index < X86_MSR_MTRR_PHYSBASE0 + 16)
		return &c->s.mtrr_var[index - X86_MSR_MTRR_PHYSBASE0];
	return NULL;
}

static bool mtrr_var_ok(const struct cpu *c, uint32_t index, uint64_t value)
{
	uint64_t addr = BITS(c->maxphyaddr - 1, 12);

	if (index & 1) /* PHYSMASK: V in bit 11 */
		return !(value & ~(addr | BIT(11)));
	return !(value & ~(addr | 0xff)) && mtrr_type_ok(value & 0xff);
}

/* ---- reading ------------------------------------------------------------------------------------
 */

/* MSRs that are a field of the state: where, which feature shows them, what a write must satisfy.
 */
enum rule { ANY, CANONICAL, LOW32, PAT };
static const struct {
	uint32_t index;
	uint32_t field; /* offset in struct cpu_state */
	uint8_t feature;
	uint8_t rule;
} plain[] = {
	{X86_MSR_STAR, offsetof(struct cpu_state, star), CPU_FEAT_SYSCALL, ANY},
	{X86_MSR_LSTAR, offsetof(struct cpu_state, lstar), CPU_FEAT_LM, CANONICAL},
	{X86_MSR_CSTAR, offsetof(struct cpu_state, cstar), CPU_FEAT_LM, CANONICAL},
	{X86_MSR_FMASK, offsetof(struct cpu_state, fmask), CPU_FEAT_LM, LOW32},
	{X86_MSR_FS_BASE, offsetof(struct cpu_state, seg[X86_FS].base), CPU_FEAT_LM, CANONICAL},
	{X86_MSR_GS_BASE, offsetof(struct cpu_state, seg[X86_GS].base), CPU_FEAT_LM, CANONICAL},
	{X86_MSR_KERNEL_GS_BASE, offsetof(struct cpu_state, kernel_gs_base), CPU_FEAT_LM,
	 CANONICAL},
	{X86_MSR_SYSENTER_CS, offsetof(struct cpu_state, sysenter_cs), CPU_FEAT_SEP, ANY},
	{X86_MSR_SYSENTER_ESP, offsetof(struct cpu_state, sysenter_esp), CPU_FEAT_SEP, CANONICAL},
	{X86_MSR_SYSENTER_EIP, offsetof(struct cpu_state, sysenter_eip), CPU_FEAT_SEP, CANONICAL},
	{X86_MSR_PAT, offsetof(struct cpu_state, pat), CPU_FEAT_PAT, PAT},
};

static uint64_t *plain_field(struct cpu *c, unsigned n)
{
	return (uint64_t *)((char *)&c->s + plain[n].field);
}

/* 0, GP, or NOT_OURS. */
static int read_plain(struct cpu *c, uint32_t index, uint64_t *value)
{
	for (unsigned n = 0; n < ARRAY_SIZE(plain); n++) {
		if (plain[n].index != index)
			continue;
		if (!cpu_has(c, plain[n].feature))
			return GP;
		*value = *plain_field(c, n);
		return 0;
	}
	return NOT_OURS;
}

static int read_mtrr(struct cpu *c, uint32_t index, uint64_t *value)
{
	const uint64_t *slot = mtrr_fix(c, index) ?: mtrr_var(c, index);

	if (!cpu_has(c, CPU_FEAT_MTRR))
		return NOT_OURS;
	if (index == X86_MSR_MTRRCAP)
		*value = MTRR_CAP;
	else if (index == X86_MSR_MTRR_DEF_TYPE)
		*value = c->s.mtrr_def_type;
	else if (slot)
		*value = *slot;
	else
		return NOT_OURS;
	return 0;
}

/*
 * What every AMD processor has and guests touch without asking: the four old performance counters,
 * SYSCFG, HWCR (the TSC runs at P0's frequency), NB_CFG, VM_CR (SVM is off), DE_CFG (LFENCE
 * serializes). Writes are without effect.
 */
static int read_amd(const struct cpu *c, uint32_t index, uint64_t *value)
{
	static const struct {
		uint32_t first, last;
		uint64_t value;
	} rows[] = {
		{0xc0010000u, 0xc0010007u, 0},	     {0xc0010010u, 0xc0010010u, 0},
		{0xc0010015u, 0xc0010015u, BIT(24)}, {0xc001001fu, 0xc001001fu, 0},
		{0xc0010114u, 0xc0010114u, BIT(4)},  {0xc0011029u, 0xc0011029u, BIT(1)},
	};

	for (unsigned n = 0; c->feat->amd && n < ARRAY_SIZE(rows); n++) {
		if (index < rows[n].first || index > rows[n].last)
			continue;
		*value = rows[n].value;
		return 0;
	}
	return NOT_OURS;
}

static int give(bool shown, uint64_t v, uint64_t *value)
{
	if (!shown)
		return GP;
	*value = v;
	return 0;
}

int cpu_rdmsr(struct cpu *c, uint32_t index, uint64_t *value)
{
	int ret = read_plain(c, index, value);

	if (ret == NOT_OURS)
		ret = read_mtrr(c, index, value);
	if (ret == NOT_OURS)
		ret = read_amd(c, index, value);
	if (ret != NOT_OURS)
		return ret;
	switch (index) {
	case X86_MSR_TSC: return give(true, cpu_tsc(c), value);
	case X86_MSR_EFER:
		return give(cpu_has(c, CPU_FEAT_LM) || cpu_has(c, CPU_FEAT_NX), c->s.efer, value);
	case X86_MSR_TSC_ADJUST:
		return give(cpu_has(c, CPU_FEAT_TSC_ADJUST), c->s.tsc_adjust, value);
	case X86_MSR_TSC_AUX:
		return give(cpu_has(c, CPU_FEAT_RDTSCP) || cpu_has(c, CPU_FEAT_RDPID), c->s.tsc_aux,
			    value);
	case X86_MSR_SPEC_CTRL: return give(cpu_has(c, CPU_FEAT_SPEC_CTRL), c->s.spec_ctrl, value);
	case X86_MSR_PRED_CMD: return GP; /* write-only */
	case X86_MSR_ARCH_CAPABILITIES:
		return give(cpu_has(c, CPU_FEAT_ARCH_CAP), CPU_ARCH_CAPABILITIES, value);
	case X86_MSR_XSS: return give(cpu_has(c, CPU_FEAT_XSAVES), c->s.xss, value);
	case X86_MSR_MISC_ENABLE: return give(true, c->s.misc_enable, value);
	case X86_MSR_DEBUGCTL: return give(true, c->s.debugctl, value);
	case X86_MSR_PLATFORM_ID: return give(true, 0, value);
	case X86_MSR_BIOS_SIGN_ID: return give(true, CPU_MICROCODE, value);
	case X86_MSR_FEATURE_CONTROL: return give(true, 1, value); /* locked, VMX off */
	case X86_MSR_MCG_CAP:
	case X86_MSR_MCG_STATUS: return give(cpu_has(c, CPU_FEAT_MCA), 0, value);
	default: return NOT_OURS;
	}
}

/* ---- writing ------------------------------------------------------------------------------------
 */

static int write_plain(struct cpu *c, uint32_t index, uint64_t value)
{
	for (unsigned n = 0; n < ARRAY_SIZE(plain); n++) {
		if (plain[n].index != index)
			continue;
		if (!cpu_has(c, plain[n].feature) ||
		    (plain[n].rule == CANONICAL && !cpu_base_canonical(c, value)) ||
		    (plain[n].rule == LOW32 && value >> 32) ||
		    (plain[n].rule == PAT && !bytes_ok(value, pat_type_ok)))
			return GP;
		*plain_field(c, n) = value;
		if (index == X86_MSR_FS_BASE || index == X86_MSR_GS_BASE)
			cpu_update_mode(c);
		return 0;
	}
	return NOT_OURS;
}

static int write_mtrr(struct cpu *c, uint32_t index, uint64_t value)
{
	uint64_t *fix = mtrr_fix(c, index), *var = mtrr_var(c, index);

	if (!cpu_has(c, CPU_FEAT_MTRR))
		return NOT_OURS;
	if (index == X86_MSR_MTRRCAP)
		return GP;
	if (index == X86_MSR_MTRR_DEF_TYPE) {
		if ((value & ~(0xffull | BIT(10) | BIT(11))) || !mtrr_type_ok(value & 0xff))
			return GP;
		c->s.mtrr_def_type = value;
	} else if (fix) {
		if (!bytes_ok(value, mtrr_type_ok))
			return GP;
		*fix = value;
	} else if (var) {
		if (!mtrr_var_ok(c, index, value))
			return GP;
		*var = value;
	} else {
		return NOT_OURS;
	}
	return 0;
}

static int write_efer(struct cpu *c, uint64_t value)
{
	uint64_t ok = X86_EFER_LMA, changed;

	if (!cpu_has(c, CPU_FEAT_LM) && !cpu_has(c, CPU_FEAT_NX))
		return GP;
	if (cpu_has(c, CPU_FEAT_LM))
		ok |= X86_EFER_LME | X86_EFER_SCE;
	if (cpu_has(c, CPU_FEAT_NX))
		ok |= X86_EFER_NXE;
	if (value & ~ok)
		return GP;
	value = (value & ~X86_EFER_LMA) | (c->s.efer & X86_EFER_LMA);
	changed = value ^ c->s.efer;
	if ((changed & X86_EFER_LME) && (c->s.cr0 & X86_CR0_PG))
		return GP;
	c->s.efer = value;
	if (changed & X86_EFER_NXE) {
		cpu_update_asid(c);
		cpu_tlb_flush_all(c);
	}
	cpu_update_mode(c);
	return 0;
}

/* IA32_TSC and IA32_TSC_ADJUST move together (SDM 3B 18.17.3). */
static int shift_tsc(struct cpu *c, uint64_t by)
{
	c->ctl.tsc_offset += by;
	c->s.tsc_adjust += by;
	return 0;
}

/* Accept @value into @field when it has no bit outside @ok. */
static int take(bool shown, uint64_t *field, uint64_t value, uint64_t ok)
{
	if (!shown || (value & ~ok))
		return GP;
	*field = value;
	return 0;
}

int cpu_wrmsr(struct cpu *c, uint32_t index, uint64_t value)
{
	int ret = write_plain(c, index, value);
	uint64_t none;

	if (ret == NOT_OURS)
		ret = write_mtrr(c, index, value);
	if (ret == NOT_OURS)
		ret = read_amd(c, index, &none);
	if (ret != NOT_OURS)
		return ret;
	switch (index) {
	case X86_MSR_EFER: return write_efer(c, value);
	case X86_MSR_TSC: return shift_tsc(c, value - cpu_tsc(c));
	case X86_MSR_TSC_ADJUST:
		return cpu_has(c, CPU_FEAT_TSC_ADJUST) ? shift_tsc(c, value - c->s.tsc_adjust) : GP;
	case X86_MSR_TSC_AUX:
		return take(cpu_has(c, CPU_FEAT_RDTSCP) || cpu_has(c, CPU_FEAT_RDPID),
			    &c->s.tsc_aux, value, 0xffffffffull);
	case X86_MSR_SPEC_CTRL:
		return take(cpu_has(c, CPU_FEAT_SPEC_CTRL), &c->s.spec_ctrl, value, SPEC_CTRL_OK);
	case X86_MSR_PRED_CMD: return take(cpu_has(c, CPU_FEAT_SPEC_CTRL), &none, value, BIT(0));
	case X86_MSR_XSS: return take(cpu_has(c, CPU_FEAT_XSAVES), &c->s.xss, value, 0);
	case X86_MSR_DEBUGCTL: return take(true, &c->s.debugctl, value, DEBUGCTL_OK);
	case X86_MSR_MISC_ENABLE:
		c->s.misc_enable = (value & ~MISC_ENABLE_RO) | MISC_ENABLE_RO;
		return 0;
	case X86_MSR_BIOS_SIGN_ID:
		return 0; /* software writes 0, then CPUID puts the revision there */
	case X86_MSR_MCG_STATUS: return take(cpu_has(c, CPU_FEAT_MCA), &none, value, 0);
	case X86_MSR_ARCH_CAPABILITIES:
	case X86_MSR_FEATURE_CONTROL:
	case X86_MSR_PLATFORM_ID:
	case X86_MSR_MCG_CAP: return GP;
	default: return NOT_OURS;
	}
}
