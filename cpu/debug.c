/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Breakpoints: the guest's debug registers (SDM 3B 18.2) and L0's own. */
#include <errno.h>

#include "cpu/core.h"

enum { BP_EXEC, BP_WRITE, BP_IO, BP_ACCESS };

static bool bp_enabled(const struct cpu_state *s, unsigned n)
{
	return s->dr7 >> (2 * n) & 3;
}

static unsigned bp_type(const struct cpu_state *s, unsigned n)
{
	return (unsigned)(s->dr7 >> (16 + 4 * n)) & 3;
}

static unsigned bp_len(const struct cpu_state *s, unsigned n)
{
	static const uint8_t len[4] = {1, 2, 8, 4};

	return len[s->dr7 >> (18 + 4 * n) & 3];
}

/* Breakpoints are aligned to their length. */
static bool bp_meets(const struct cpu_state *s, unsigned n, uint64_t at, unsigned len)
{
	uint64_t base = s->dr[n] & ~((uint64_t)bp_len(s, n) - 1);

	return at < base + bp_len(s, n) && base < at + len;
}

/* What else meets is reported in DR6 even when it is not enabled (SDM 3B 18.2.3). */
static uint64_t bits_of(const struct cpu_state *s, uint64_t at, unsigned len, unsigned types)
{
	uint64_t met = 0;
	bool any = false;

	for (unsigned n = 0; n < 4; n++) {
		if (!(types & 1u << bp_type(s, n)) || !bp_meets(s, n, at, len))
			continue;
		met |= BIT(n);
		any |= bp_enabled(s, n);
	}
	return any ? met : 0;
}

bool cpu_debug_watching(const struct cpu *c)
{
	for (unsigned n = 0; n < 4 && c->s.dr7 & 0xff; n++) {
		if (bp_enabled(&c->s, n) && (bp_type(&c->s, n) & 1))
			return true;
	}
	return c->host_debug.watches != 0;
}

void cpu_debug_host_data(struct cpu *c, uint64_t lin, unsigned len, unsigned how)
{
	const struct cpu_host_debug *h = &c->host_debug;

	for (unsigned n = 0; n < h->watches; n++) {
		/* Either begins inside the other; right also at the top of the address space. */
		if ((lin - h->watch[n].gva >= h->watch[n].len && h->watch[n].gva - lin >= len) ||
		    !(how & h->watch[n].access))
			continue;
		c->watch_how = (uint8_t)((c->watch_hit == (int)n ? c->watch_how : 0) | how);
		c->watch_hit = (int)n;
	}
}

void cpu_debug_data(struct cpu *c, uint64_t lin, unsigned len, unsigned how)
{
	if (c->s.dr7 & 0xff)
		c->dbg_hits |=
			bits_of(&c->s, lin, len,
				1u << BP_ACCESS | (how & CPU_WATCH_WRITE ? 1u << BP_WRITE : 0));
	cpu_debug_host_data(c, lin, len, how);
}

void cpu_debug_io(struct cpu *c, uint16_t port, unsigned size)
{
	if (c->s.cr4 & X86_CR4_DE && c->s.dr7 & 0xff)
		c->dbg_hits |= bits_of(&c->s, port, size, 1u << BP_IO);
}

uint64_t cpu_debug_insn(const struct cpu *c, uint64_t lin)
{
	return c->s.dr7 & 0xff ? bits_of(&c->s, lin, 1, 1u << BP_EXEC) : 0;
}

bool cpu_debug_host_insn(const struct cpu *c, uint64_t lin)
{
	for (unsigned n = 0; n < c->host_debug.breakpoints; n++) {
		if (c->host_debug.breakpoint[n] == lin)
			return true;
	}
	return false;
}

bool cpu_debug_host_page(const struct cpu *c, uint64_t lin)
{
	for (unsigned n = 0; n < c->host_debug.breakpoints; n++) {
		if (((c->host_debug.breakpoint[n] ^ lin) & PAGE_MASK) == 0)
			return true;
	}
	return false;
}

int cpu_set_host_debug(struct cpu *c, const struct cpu_host_debug *d)
{
	static const struct cpu_host_debug none;

	d = d ? d : &none;
	if (d->breakpoints > ARRAY_SIZE(d->breakpoint) || d->watches > ARRAY_SIZE(d->watch))
		return -E2BIG;
	c->host_debug = *d;
	c->host_stepped = false;
	cpu_tlb_drop_fetch(c);
	cpu_update_mode(c);
	cpu_recheck(c);
	return 0;
}
