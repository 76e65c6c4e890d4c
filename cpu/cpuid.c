/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CPUID: the table that L0 gave, the bits that follow the registers, and features from it. */
#include "cpu/cpu_internal.h"

enum { EAX, EBX, ECX, EDX };

static const struct cpu_cpuid *find_leaf(const struct cpu *c, uint32_t leaf)
{
	for (unsigned n = 0; n < c->cpuid_count; n++) {
		if (c->cpuid[n].leaf == leaf)
			return &c->cpuid[n];
	}
	return NULL;
}

static const struct cpu_cpuid *find_subleaf(const struct cpu *c, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned n = 0; n < c->cpuid_count; n++) {
		const struct cpu_cpuid *e = &c->cpuid[n];

		if (e->leaf == leaf && (e->subleaf == subleaf || e->subleaf == CPU_CPUID_ANY))
			return e;
	}
	return NULL;
}

/* Leaves come in ranges, each headed by the one that holds its end. */
static uint32_t range_of(uint32_t leaf)
{
	if (leaf >= 0x40000000u && leaf < 0x50000000u)
		return 0x40000000u;
	return leaf & 0x80000000u;
}

/* Beyond the end of its range a leaf reads as the last basic one (SDM 2A, CPUID). */
static uint32_t clamp_leaf(const struct cpu *c, uint32_t leaf)
{
	const struct cpu_cpuid *head = find_leaf(c, range_of(leaf)), *basic = find_leaf(c, 0);

	if (head && leaf <= head->eax)
		return leaf;
	return basic ? basic->eax : 0;
}

static void dynamic_bits(struct cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	bool code64 = (c->s.efer & X86_EFER_LMA) && (c->s.seg[X86_CS].attr & X86_ATTR_L);

	switch (leaf) {
	case 1:
		out[ECX] &= ~(uint32_t)BIT(27);
		if (c->ctl.exits & CPU_CTL_NO_APIC)
			out[EDX] &= ~(uint32_t)BIT(9);
		if (c->s.cr4 & X86_CR4_OSXSAVE)
			out[ECX] |= BIT(27);
		break;
	case 7:
		if (subleaf != 0)
			break;
		out[ECX] &= ~(uint32_t)BIT(4);
		if (c->s.cr4 & X86_CR4_PKE)
			out[ECX] |= BIT(4);
		break;
	case 0xd:
		if (subleaf == 0)
			out[EBX] = cpu_xsave_size(c, c->s.xcr0, false);
		if (subleaf == 1 && (out[EAX] & (BIT(1) | BIT(3))))
			out[EBX] = cpu_xsave_size(c, c->s.xcr0 | c->s.xss, true);
		break;
	case 0x80000001u:
		if (!code64 && !c->feat->amd)
			out[EDX] &= ~(uint32_t)BIT(11); /* SYSCALL is 64-bit mode's */
		break;
	}
}

void cpu_cpuid(struct cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	const struct cpu_cpuid *e, *any;

	leaf = clamp_leaf(c, leaf);
	e = find_subleaf(c, leaf, subleaf);
	out[EAX] = out[EBX] = out[ECX] = out[EDX] = 0;
	if (!e) {
		/* Invalid levels of the topology leaves still tell the level and the APIC id. */
		any = leaf == 0xb || leaf == 0x1f ? find_leaf(c, leaf) : NULL;
		if (any) {
			out[ECX] = subleaf & 0xff;
			out[EDX] = any->edx;
		}
		return;
	}
	out[EAX] = e->eax;
	out[EBX] = e->ebx;
	out[ECX] = e->ecx;
	out[EDX] = e->edx;
	dynamic_bits(c, leaf, subleaf, out);
}

/* ---- features -----------------------------------------------------------------------------------
 */

static const struct {
	uint32_t leaf, subleaf;
	uint8_t reg, bit;
} feature_rows[CPU_FEATURE_COUNT] = {
#define FEATURE_ROW(name, l, s, r, b) [CPU_FEAT_##name] = {l, s, r, b},
	CPU_FEATURES(FEATURE_ROW)
#undef FEATURE_ROW
};

static uint32_t raw_reg(const struct cpu *c, uint32_t leaf, uint32_t subleaf, unsigned reg)
{
	const struct cpu_cpuid *e = find_subleaf(c, leaf, subleaf);

	if (!e)
		return 0;
	return reg == EAX ? e->eax : reg == EBX ? e->ebx : reg == ECX ? e->ecx : e->edx;
}

void cpu_features_init(struct cpu *c)
{
	uint32_t widths = raw_reg(c, 0x80000008u, 0, EAX);
	uint32_t vendor = raw_reg(c, 0, 0, EBX);

	for (unsigned n = 0; n < CPU_FEATURE_COUNT; n++) {
		uint32_t v = raw_reg(c, feature_rows[n].leaf, feature_rows[n].subleaf,
				     feature_rows[n].reg);

		c->feat->has[n] = v >> feature_rows[n].bit & 1;
	}
	c->feat->amd = vendor == 0x68747541; /* "Auth" */
	c->maxphyaddr = widths & 0xff ? widths & 0xff : 36;
	c->maxlinaddr_bits = widths >> 8 & 0xff	       ? widths >> 8 & 0xff
			     : cpu_has(c, CPU_FEAT_LM) ? 48
						       : 32;
	if (c->maxphyaddr > 52)
		c->maxphyaddr = 52;
}
