/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/cpu/common/tiny.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/cpu_internal.h"

#define TABLE_PAGES 4096u

/* ---- what CPUID shows ---------------------------------------------------------------------------- */

struct feature_bit {
	uint32_t leaf, subleaf;
	char reg; /* A B C D */
	uint8_t bit;
	bool hidden;
};

#define REG_EAX 'A'
#define REG_EBX 'B'
#define REG_ECX 'C'
#define REG_EDX 'D'
#define FEATURE_BIT(name, leaf, subleaf, reg, bit)                                                 \
	{leaf, subleaf, REG_##reg, bit,                                                            \
	 CPU_FEAT_##name == CPU_FEAT_VMX || CPU_FEAT_##name == CPU_FEAT_MONITOR},
static const struct feature_bit features[] = {CPU_FEATURES(FEATURE_BIT)};

static unsigned make_cpuid(struct cpu_cpuid *leaf)
{
	static const struct cpu_cpuid base[] = {
		{0, CPU_CPUID_ANY, 0x16, 0x756e6547, 0x6c65746e, 0x49656e69},
		{1, CPU_CPUID_ANY, 0x00050654, 0, 0, 0},
		{7, 0, 0, 0, 0, 0},
		{0xd, 0, 0x207, 0, 0xa88, 0},
		{0xd, 1, 0, 0, 0, 0},
		{0xd, 2, 256, 576, 0, 0},
		{0xd, 9, 8, 0xa80, 0, 0},
		{0x80000000, CPU_CPUID_ANY, 0x80000008, 0, 0, 0},
		{0x80000001, CPU_CPUID_ANY, 0, 0, 0, 0},
		{0x80000008, CPU_CPUID_ANY, 0x302e, 0, 0, 0}, /* 46, 48 */
	};
	unsigned n = ARRAY_SIZE(base);

	memcpy(leaf, base, sizeof(base));
	for (unsigned f = 0; f < ARRAY_SIZE(features); f++) {
		for (unsigned k = 0; k < n && !features[f].hidden; k++) {
			uint32_t bit = 1u << features[f].bit;

			if (leaf[k].leaf != features[f].leaf ||
			    (leaf[k].subleaf != CPU_CPUID_ANY && leaf[k].subleaf != features[f].subleaf))
				continue;
			switch (features[f].reg) {
			case 'A': leaf[k].eax |= bit; break;
			case 'B': leaf[k].ebx |= bit; break;
			case 'C': leaf[k].ecx |= bit; break;
			default: leaf[k].edx |= bit; break;
			}
		}
	}
	return n;
}

/* ---- L0's tables ----------------------------------------------------------------------------------- */

static uint64_t *new_table(struct tiny *t)
{
	if (t->tables_used == TABLE_PAGES)
		abort();
	return t->tables + 512u * t->tables_used++;
}

/* The entry at @level (1: 4 KiB) for @gpa, tables made on the way; stops at a leaf. */
static uint64_t *entry_of(struct tiny *t, gpa_t gpa, unsigned level)
{
	uint64_t *table = t->tables;

	for (unsigned l = 4;; l--) {
		uint64_t *e = &table[gpa >> (12 + 9 * (l - 1)) & 511];

		if (l == level || *e & BIT(7))
			return e;
		if (!*e)
			*e = (uint64_t)new_table(t) | 7;
		table = (uint64_t *)(*e & BITS(47, 12));
	}
}

uint64_t *tiny_ept(struct tiny *t, gpa_t gpa)
{
	return entry_of(t, gpa, 1);
}

static void map_all(struct tiny *t, unsigned shift)
{
	unsigned level = (shift - 12) / 9 + 1;

	new_table(t);
	for (gpa_t gpa = 0; gpa < t->size; gpa += BIT(shift))
		*entry_of(t, gpa, level) =
			(uint64_t)(t->mem + gpa) | 7 | 6 << 3 | (level > 1 ? BIT(7) : 0);
}

/* ---- a machine ------------------------------------------------------------------------------------- */

static void set_controls(struct tiny *t, struct cpu *cpu)
{
	struct cpu_controls *c = cpu_controls(cpu);

	c->paging = CPU_PAGING_TDP;
	c->tdp_format = CPU_TDP_EPT;
	c->tdp_levels = 4;
	c->root = (uint64_t)t->tables;
	c->exits = CPU_CTL_HLT;
	c->pf_error_mask = 0;
	c->pf_error_match = 1; /* never: no #PF leaves */
	cpu_state_changed(cpu);
}

struct cpu *tiny_add_cpu(struct tiny *t)
{
	struct cpu_cpuid leaf[16];
	unsigned n = make_cpuid(leaf);
	struct cpu *cpu = cpu_create(t->domain, leaf, n);

	if (!cpu)
		abort();
	set_controls(t, cpu);
	return cpu;
}

struct tiny *tiny_create(uint64_t size, unsigned shift)
{
	struct tiny *t = calloc(1, sizeof(*t));
	uint64_t align = BIT(shift);
	uint8_t *raw;

	if (!t)
		abort();
	t->size = size;
	raw = mmap(NULL, size + align, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	t->tables = mmap(NULL, TABLE_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (raw == MAP_FAILED || t->tables == MAP_FAILED)
		abort();
	t->mem = (uint8_t *)ALIGN_UP((uint64_t)raw, align);
	munmap(raw, (size_t)(t->mem - raw));
	munmap(t->mem + size, (size_t)(raw + align - t->mem));
	madvise(t->mem, size, MADV_HUGEPAGE);
	map_all(t, shift);
	t->domain = cpu_domain_create();
	if (!t->domain)
		abort();
	t->cpu = tiny_add_cpu(t);
	t->s = cpu_state(t->cpu);
	t->c = cpu_controls(t->cpu);
	tiny_mode(t, TINY_REAL, 0);
	return t;
}

void tiny_destroy(struct tiny *t)
{
	cpu_destroy(t->cpu);
	cpu_domain_destroy(t->domain);
	munmap(t->mem, t->size);
	munmap(t->tables, TABLE_PAGES * PAGE_SIZE);
	free(t);
}

/* ---- modes ------------------------------------------------------------------------------------------ */

static void put64(struct tiny *t, uint64_t at, uint64_t v)
{
	memcpy(t->mem + at, &v, 8);
}

static void make_gdt(struct tiny *t)
{
	static const uint64_t gdt[] = {
		0,
		0x00af9b000000ffff, 0x00cf9b000000ffff, 0x008f9b000000ffff, 0x00cf93000000ffff,
		0x000093000000ffff, 0x00affb000000ffff, 0x00cffb000000ffff, 0x008ffb000000ffff,
		0x00cff3000000ffff, 0, 0,
		0x00008b0000000067 | TINY_TSS << 16, 0,
	};

	memcpy(t->mem + TINY_GDT, gdt, sizeof(gdt));
	memset(t->mem + TINY_TSS, 0, 0x68);
	put64(t, TINY_TSS + 4, TINY_STACK0); /* 64-bit: RSP0; 32-bit: ESP0, SS0 */
}

static void make_page_tables(struct tiny *t, enum tiny_mode mode)
{
	uint64_t pd = TINY_PML4 + 0x2000;

	memset(t->mem + TINY_PML4, 0, 0x6000);
	if (mode == TINY_PROT32_PAGED) {
		for (uint32_t n = 0; n < 1024; n++) {
			uint32_t e = n << 22 | 0x87;

			memcpy(t->mem + TINY_PML4 + n * 4, &e, 4);
		}
		return;
	}
	/* 4 GiB in 2 MiB pages. PAE takes the second table as its pointers. */
	put64(t, TINY_PML4, (TINY_PML4 + 0x1000) | 7);
	for (unsigned g = 0; g < 4; g++) {
		put64(t, TINY_PML4 + 0x1000 + g * 8, (pd + g * 0x1000) | (mode == TINY_PAE ? 1 : 7));
		for (uint64_t n = 0; n < 512; n++)
			put64(t, pd + g * 0x1000 + n * 8, (uint64_t)g << 30 | n << 21 | 0x87);
	}
}

static struct cpu_seg seg_of(const struct tiny *t, uint16_t sel)
{
	uint64_t d;
	struct cpu_seg s = {.sel = sel};

	memcpy(&d, t->mem + TINY_GDT + (sel & ~7u), 8);
	s.attr = (uint32_t)(d >> 40 & 0xf0ff);
	s.limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));
	if (s.attr & X86_ATTR_G)
		s.limit = s.limit << 12 | 0xfff;
	s.base = (d >> 16 & 0xffffff) | (d >> 56) << 24;
	return s;
}

static void set_segments(struct tiny *t, struct cpu_state *s, enum tiny_mode mode, unsigned cpl)
{
	static const uint16_t code[][2] = {
		[TINY_PROT16] = {TINY_CS16, TINY_CS16_3},  [TINY_PROT32] = {TINY_CS32, TINY_CS32_3},
		[TINY_PROT32_PAGED] = {TINY_CS32, TINY_CS32_3}, [TINY_PAE] = {TINY_CS32, TINY_CS32_3},
		[TINY_COMPAT16] = {TINY_CS16, TINY_CS16_3}, [TINY_COMPAT32] = {TINY_CS32, TINY_CS32_3},
		[TINY_LONG] = {TINY_CS64, TINY_CS64_3},
	};
	struct cpu_seg data = seg_of(t, TINY_DS);

	if (cpl == 3)
		data = seg_of(t, TINY_DS_3);
	data.sel |= (uint16_t)cpl;
	for (unsigned n = 0; n < 6; n++)
		s->seg[n] = data;
	s->seg[X86_CS] = seg_of(t, code[mode][cpl == 3]);
	s->seg[X86_CS].sel |= (uint16_t)cpl;
	if (mode == TINY_PROT16 || mode == TINY_COMPAT16)
		s->seg[X86_SS].attr &= ~X86_ATTR_DB;
	s->tr = seg_of(t, TINY_TR);
	s->ldtr = (struct cpu_seg){.attr = X86_ATTR_UNUSABLE | 0x82};
	s->gdtr = (struct cpu_table){.base = TINY_GDT, .limit = 14 * 8 - 1};
	s->idtr = (struct cpu_table){.base = TINY_IDT, .limit = 0xfff};
}

static void set_real(struct cpu_state *s)
{
	for (unsigned n = 0; n < 6; n++)
		s->seg[n] = (struct cpu_seg){.limit = 0xffff, .attr = 0x93};
	s->rip = 0x8000;
	s->gpr[X86_RSP] = 0x7000;
	s->idtr = (struct cpu_table){.base = TINY_IVT, .limit = 0x3ff};
}

void tiny_mode_of(struct tiny *t, struct cpu *cpu, enum tiny_mode mode, unsigned cpl)
{
	struct cpu_state *s = cpu_state(cpu);
	bool is16 = mode == TINY_PROT16 || mode == TINY_COMPAT16;

	cpu_reset(cpu, false);
	s->fx.fcw = 0x37f;
	s->fx.ftw = 0;
	if (mode == TINY_REAL) {
		set_real(s);
		cpu_state_changed(cpu);
		return;
	}
	make_gdt(t);
	s->rip = is16 ? 0x8000 : TINY_CODE;
	s->gpr[X86_RSP] = is16 ? 0x7000 : TINY_STACK;
	s->cr0 = X86_CR0_PE | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP;
	s->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
	if (mode == TINY_PROT32_PAGED || mode >= TINY_PAE) {
		make_page_tables(t, mode);
		s->cr0 |= X86_CR0_PG | X86_CR0_WP;
		s->cr3 = TINY_PML4;
		s->cr4 |= mode == TINY_PROT32_PAGED ? X86_CR4_PSE : X86_CR4_PAE;
	}
	if (mode == TINY_PAE) {
		s->cr3 = TINY_PML4 + 0x1000;
		memcpy(s->pdptr, t->mem + TINY_PML4 + 0x1000, 32);
	}
	if (mode > TINY_PAE)
		s->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE | X86_EFER_NXE;
	set_segments(t, s, mode, cpl);
	cpu_state_changed(cpu);
}

void tiny_mode(struct tiny *t, enum tiny_mode mode, unsigned cpl)
{
	tiny_mode_of(t, t->cpu, mode, cpl);
}

void tiny_code(struct tiny *t, const void *bytes, unsigned len)
{
	memcpy(t->mem + t->s->rip, bytes, len);
	cpu_domain_notify_write(t->domain, (hpa_t)(t->mem + t->s->rip), len);
}

/* For diff_cpu -p: the instruction that comes, as a line of the file $UMBRA_VECTORS. */
static void note_vector(const struct tiny *t)
{
	const char *path = getenv("UMBRA_VECTORS");
	const struct cpu_seg *cs = &t->s->seg[X86_CS];
	bool lma = t->s->efer & X86_EFER_LMA;
	uint64_t at = t->s->rip;
	FILE *out;

	if (!(lma && cs->attr & X86_ATTR_L))
		at += cs->base;
	if (!path || t->s->event.valid || at > t->size - 16)
		return;
	out = fopen(path, "a");
	if (!out)
		return;
	fprintf(out, "%u ", lma && cs->attr & X86_ATTR_L ? 64 : cs->attr & X86_ATTR_DB ? 32 : 16);
	for (unsigned k = 0; k < 15; k++)
		fprintf(out, "%02x", t->mem[at + k]);
	fprintf(out, " %s\n", program_invocation_short_name);
	fclose(out);
}

enum cpu_exit_reason tiny_run(struct tiny *t, uint64_t n)
{
	enum cpu_exit_reason ret_reason;

	note_vector(t);
	t->s->activity = CPU_ACTIVE;
	cpu_set_icount_limit(t->cpu, cpu_icount(t->cpu) + n);
	ret_reason = cpu_run(t->cpu);
	cpu_set_icount_limit(t->cpu, ~0ull);
	return ret_reason;
}
