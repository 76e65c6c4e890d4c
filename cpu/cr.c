/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Control registers: what may be written, what follows (SDM 3A 2.5, 4.1 to 4.10; XCR0: 2.6). */
#include <string.h>

#include "cpu/segment.h"

#define GP ((int)X86_VEC_GP)

uint64_t cpu_read_cr0(const struct cpu *c)
{
	return (c->s.cr0 & ~c->ctl.cr0_mask) | (c->ctl.cr0_shadow & c->ctl.cr0_mask);
}

uint64_t cpu_read_cr4(const struct cpu *c)
{
	return (c->s.cr4 & ~c->ctl.cr4_mask) | (c->ctl.cr4_shadow & c->ctl.cr4_mask);
}

/* ---- CR3 and PAE's four entries -----------------------------------------------------------------
 */

static bool uses_pdptr(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return (cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && !(efer & X86_EFER_LMA);
}

/* False: a present entry has reserved bits set. */
static bool read_pdptr(struct cpu *c, uint64_t cr3, uint64_t pdptr[4])
{
	uint64_t rsvd = BITS(63, 0) & ~(BITS(51, 12) | BIT(0) | BIT(3) | BIT(4) | BITS(11, 9));

	rsvd |= BITS(51, 0) & ~BITS(c->maxphyaddr - 1, 0);
	for (unsigned n = 0; n < 4; n++) {
		cpu_gpa_read(c, NULL, (cr3 & 0xffffffe0u) + n * 8, &pdptr[n], 8);
		if ((pdptr[n] & 1) && (pdptr[n] & rsvd))
			return false;
	}
	return true;
}

/* The CPU reads them in a run under TDP; under shadow paging they are L0's matter. */
static bool reads_pdptr(const struct cpu *c, bool run)
{
	return run && c->ctl.paging == CPU_PAGING_TDP && !c->mem_ops;
}

int cpu_cr3_check(struct cpu *c, uint64_t value, struct cpu_cr3 *cr3, bool run)
{
	bool pcide = c->s.cr4 & X86_CR4_PCIDE;

	*cr3 = (struct cpu_cr3){.value = value};
	if (cpu_long_mode(c)) {
		uint64_t rsvd = BITS(62, 0) & ~BITS(c->maxphyaddr - 1, 0);

		if (value & rsvd || (!pcide && (value & X86_CR3_NOFLUSH)))
			return GP;
	} else {
		cr3->value = (uint32_t)value;
	}
	if (reads_pdptr(c, run) && uses_pdptr(c->s.cr0, c->s.cr4, c->s.efer)) {
		if (!read_pdptr(c, cr3->value, cr3->pdptr))
			return GP;
		cr3->has_pdptr = true;
	}
	return 0;
}

void cpu_cr3_commit(struct cpu *c, const struct cpu_cr3 *cr3)
{
	bool keep = (c->s.cr4 & X86_CR4_PCIDE) && (cr3->value & X86_CR3_NOFLUSH);

	c->s.cr3 = cr3->value & ~X86_CR3_NOFLUSH;
	if (cr3->has_pdptr)
		memcpy(c->s.pdptr, cr3->pdptr, sizeof(c->s.pdptr));
	cpu_update_asid(c);
	if (!keep)
		cpu_tlb_flush_guest(c, false);
}

int cpu_set_cr3(struct cpu *c, uint64_t value)
{
	struct cpu_cr3 cr3;
	int vector = cpu_cr3_check(c, value, &cr3, false);

	if (!vector)
		cpu_cr3_commit(c, &cr3);
	return vector;
}

/* ---- CR0 ----------------------------------------------------------------------------------------
 */

#define CR0_KNOWN                                                                                  \
	(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE |             \
	 X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)

/* Paging goes on or off: what long mode and PCIDs demand. Gives the new EFER. */
static bool check_pg(const struct cpu *c, uint64_t value, uint64_t *efer)
{
	bool was = c->s.cr0 & X86_CR0_PG, is = value & X86_CR0_PG;

	*efer = c->s.efer;
	if (is && !was && (c->s.efer & X86_EFER_LME)) {
		/* A 16-bit TSS cannot serve long mode (SDM 3A 9.8.5). */
		if (!(c->s.cr4 & X86_CR4_PAE) || (c->s.seg[X86_CS].attr & X86_ATTR_L) ||
		    (c->s.tr.attr & X86_ATTR_TYPE) == CPU_SYS_TSS16_BUSY)
			return false;
		*efer |= X86_EFER_LMA;
	}
	if (!is && was) {
		if ((c->s.cr4 & X86_CR4_PCIDE) || cpu_code64(c))
			return false;
		*efer &= ~X86_EFER_LMA;
	}
	return true;
}

int cpu_write_cr0(struct cpu *c, uint64_t value, bool run)
{
	uint64_t changed, efer, pdptr[4];
	bool reload;

	if (value >> 32 || ((value & X86_CR0_PG) && !(value & X86_CR0_PE)) ||
	    ((value & X86_CR0_NW) && !(value & X86_CR0_CD)))
		return GP;
	value = (value & CR0_KNOWN) | X86_CR0_ET;
	changed = value ^ c->s.cr0;
	if (!check_pg(c, value, &efer))
		return GP;
	reload = reads_pdptr(c, run) && uses_pdptr(value, c->s.cr4, efer) &&
		 (changed & (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW));
	if (reload && !read_pdptr(c, c->s.cr3, pdptr))
		return GP;
	if (reload)
		memcpy(c->s.pdptr, pdptr, sizeof(pdptr));
	c->s.cr0 = value;
	c->s.efer = efer;
	if (changed & (X86_CR0_PG | X86_CR0_WP | X86_CR0_PE)) {
		cpu_update_asid(c);
		if (changed & X86_CR0_PG)
			cpu_tlb_flush_all(c);
	}
	cpu_update_mode(c);
	return 0;
}

int cpu_set_cr0(struct cpu *c, uint64_t value)
{
	return cpu_write_cr0(c, value, false);
}

/* ---- CR4 ----------------------------------------------------------------------------------------
 */

/* The bits that CPUID lets the guest set. */
static uint64_t cr4_allowed(const struct cpu *c)
{
	static const struct {
		uint8_t feature;
		uint64_t bits;
	} rows[] = {
		{CPU_FEAT_VME, X86_CR4_VME | X86_CR4_PVI},
		{CPU_FEAT_TSC, X86_CR4_TSD},
		{CPU_FEAT_DE, X86_CR4_DE},
		{CPU_FEAT_PSE, X86_CR4_PSE},
		{CPU_FEAT_PAE, X86_CR4_PAE},
		{CPU_FEAT_PGE, X86_CR4_PGE},
		{CPU_FEAT_FXSR, X86_CR4_OSFXSR},
		{CPU_FEAT_SSE, X86_CR4_OSXMMEXCPT},
		{CPU_FEAT_UMIP, X86_CR4_UMIP},
		{CPU_FEAT_LA57, X86_CR4_LA57},
		{CPU_FEAT_VMX, X86_CR4_VMXE},
		{CPU_FEAT_FSGSBASE, X86_CR4_FSGSBASE},
		{CPU_FEAT_PCID, X86_CR4_PCIDE},
		{CPU_FEAT_XSAVE, X86_CR4_OSXSAVE},
		{CPU_FEAT_SMEP, X86_CR4_SMEP},
		{CPU_FEAT_SMAP, X86_CR4_SMAP},
		{CPU_FEAT_PKU, X86_CR4_PKE},
	};
	uint64_t bits = X86_CR4_MCE | X86_CR4_PCE;

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		if (cpu_has(c, rows[n].feature))
			bits |= rows[n].bits;
	}
	return bits;
}

int cpu_write_cr4(struct cpu *c, uint64_t value, bool run)
{
	uint64_t changed = value ^ c->s.cr4, pdptr[4];
	bool reload;

	if (value & ~cr4_allowed(c))
		return GP;
	if (cpu_long_mode(c) && (!(value & X86_CR4_PAE) || (changed & X86_CR4_LA57)))
		return GP;
	if ((changed & value & X86_CR4_PCIDE) &&
	    (!cpu_long_mode(c) || (c->s.cr3 & X86_CR3_PCID_MASK)))
		return GP;
	reload = reads_pdptr(c, run) && uses_pdptr(c->s.cr0, value, c->s.efer) &&
		 (changed & (X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_SMEP));
	if (reload && !read_pdptr(c, c->s.cr3, pdptr))
		return GP;
	if (reload)
		memcpy(c->s.pdptr, pdptr, sizeof(pdptr));
	c->s.cr4 = value;
	if (changed & (X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP |
		       X86_CR4_SMAP | X86_CR4_PKE | X86_CR4_LA57))
		cpu_update_asid(c);
	/* SDM 3A 4.10.4.1 */
	if ((changed & (X86_CR4_PGE | X86_CR4_PAE | X86_CR4_PSE | X86_CR4_LA57)) ||
	    (changed & ~value & X86_CR4_PCIDE) || (changed & value & X86_CR4_SMEP))
		cpu_tlb_flush_all(c);
	cpu_update_mode(c);
	return 0;
}

int cpu_set_cr4(struct cpu *c, uint64_t value)
{
	return cpu_write_cr4(c, value, false);
}

/* ---- CR8, XCR0 ----------------------------------------------------------------------------------
 */

int cpu_set_cr8(struct cpu *c, uint64_t value)
{
	if (value >> 4)
		return GP;
	c->s.cr8 = value;
	cpu_recheck(c);
	return 0;
}

int cpu_set_xcr0(struct cpu *c, uint64_t value)
{
	uint64_t known = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_PKRU;
	uint32_t leaf[4];

	cpu_cpuid(c, 0xd, 0, leaf);
	known &= leaf[0] | (uint64_t)leaf[3] << 32;
	if (!(value & X86_XCR0_X87) || (value & ~known))
		return GP;
	if ((value & X86_XCR0_AVX) && !(value & X86_XCR0_SSE))
		return GP;
	c->s.xcr0 = value;
	cpu_update_mode(c);
	return 0;
}
