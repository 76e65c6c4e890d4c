/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/cpu/sys/sys.h"

uint64_t sys_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
	       (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)flags << 52 |
	       (uint64_t)(base >> 24) << 56;
}

uint64_t sys_gate(uint16_t sel, uint32_t off, unsigned access, unsigned count)
{
	return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)count << 32 |
	       (uint64_t)access << 40 | (uint64_t)(off >> 16) << 48;
}

uint64_t sys_get(const struct tiny *t, uint64_t at, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, t->mem + at, size);
	return v;
}

void sys_put(struct tiny *t, uint64_t at, uint64_t v, unsigned size)
{
	memcpy(t->mem + at, &v, size);
}

void sys_put_desc(struct tiny *t, unsigned sel, uint64_t d)
{
	sys_put(t, TINY_GDT + (sel & ~7u), d, 8);
	if (t->s->gdtr.limit < (sel | 7))
		t->s->gdtr.limit = (uint16_t)(sel | 7);
}

uint64_t sys_get_desc(const struct tiny *t, unsigned sel)
{
	return sys_get(t, TINY_GDT + (sel & ~7u), 8);
}

static bool long_mode(const struct tiny *t)
{
	return t->s->efer & X86_EFER_LMA;
}

void sys_put_gate(struct tiny *t, unsigned vector, uint64_t gate)
{
	unsigned width = long_mode(t) ? 16 : 8;

	sys_put(t, TINY_IDT + vector * width, gate, 8);
	if (width == 16)
		sys_put(t, TINY_IDT + vector * width + 8, 0, 8);
}

void sys_mode(struct tiny *t, enum tiny_mode mode, unsigned cpl)
{
	tiny_mode(t, mode, cpl);
	t->c->pf_error_mask = t->c->pf_error_match = 0;
	for (unsigned n = 0; n < 256; n++) {
		t->mem[SYS_HANDLERS + n * 16] = 0xf4;
		if (mode == TINY_REAL) {
			/* The handlers' page is above 64 KiB: IVT handlers are at 0x5000. */
			t->mem[0x5000 + n * 16] = 0xf4;
			sys_put(t, n * 4, 0x5000 + n * 16, 4);
			continue;
		}
		sys_put_gate(t, n,
			     sys_gate(long_mode(t) ? TINY_CS64 : TINY_CS32,
				      (uint32_t)SYS_HANDLERS + n * 16, 0x8e, 0));
	}
	if (mode != TINY_REAL && !long_mode(t)) {
		sys_put(t, TINY_TSS + 4, TINY_STACK0, 4);
		sys_put(t, TINY_TSS + 8, TINY_DS, 2);
	}
	cpu_domain_notify_write(t->domain, (hpa_t)(t->mem + SYS_HANDLERS), 4096);
	cpu_tlb_flush_all(t->cpu);
	cpu_state_changed(t->cpu);
}

void sys_load(struct tiny *t, unsigned seg, uint16_t sel)
{
	uint64_t d = sys_get_desc(t, sel);
	struct cpu_seg *s = &t->s->seg[seg];

	s->sel = sel;
	s->attr = (uint32_t)(d >> 40 & 0xf0ff);
	s->limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));
	if (s->attr & X86_ATTR_G)
		s->limit = s->limit << 12 | 0xfff;
	s->base = (d >> 16 & 0xffffff) | (d >> 56) << 24;
	cpu_state_changed(t->cpu);
}

uint64_t sys_word(const struct tiny *t, unsigned n, unsigned size)
{
	uint64_t sp = t->s->gpr[X86_RSP];

	if (!long_mode(t))
		sp = t->s->seg[X86_SS].base +
		     (t->s->seg[X86_SS].attr & X86_ATTR_DB ? (uint32_t)sp : (uint16_t)sp);
	return sys_get(t, sp + (uint64_t)n * size, size);
}

static bool has_error(int vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

int sys_one(struct tiny *t)
{
	enum cpu_exit_reason reason;
	uint64_t base = t->s->cr0 & X86_CR0_PE ? SYS_HANDLERS : 0x5000;
	bool real = !(t->s->cr0 & X86_CR0_PE);
	int vector;

	cpu_state_changed(t->cpu);
	reason = tiny_run(t, 1);
	/* An INT whose delivery faulted has been counted. */
	if (reason == CPU_EXIT_ICOUNT && t->s->rip >= base && t->s->rip < base + 0x1000)
		reason = tiny_run(t, 1);
	if (reason == CPU_EXIT_ICOUNT)
		return SYS_DONE;
	if (reason != CPU_EXIT_HLT || t->s->rip < base || t->s->rip > base + 0x1000)
		return SYS_EXIT(reason);
	t->s->activity = CPU_ACTIVE;
	vector = (int)(t->s->rip - 1 - base) / 16;
	return SYS_FAULT(vector, !real && has_error(vector) ? sys_word(t, 0, 4) : 0);
}

int sys_code(struct tiny *t, const void *bytes, unsigned len)
{
	uint64_t at = t->s->seg[X86_CS].base + t->s->rip;

	memcpy(t->mem + at, bytes, len);
	cpu_domain_notify_write(t->domain, (hpa_t)(t->mem + at), len);
	return sys_one(t);
}
