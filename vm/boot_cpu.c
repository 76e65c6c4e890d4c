/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Initial processor states. */
#include "vm/boot.h"

#include "vm/boot_internal.h"
#include "vm/memmap.h"

#define CR0_PE	 BIT(0)
#define CR0_ET	 BIT(4)
#define CR0_NW	 BIT(29)
#define CR0_CD	 BIT(30)
#define CR0_PG	 BIT(31)
#define CR4_PAE	 BIT(5)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)

/* Access rights: type, S, P, and from bit 12 AVL, L, D/B, G. */
#define AR_CODE32 0xc09bu
#define AR_CODE64 0xa09bu
#define AR_DATA	  0xc093u
#define AR_TSS	  0x8bu

/* Linux wants its code at 0x10 and its data at 0x18 (boot.rst: __BOOT_CS, __BOOT_DS). */
#define SEL_CODE 0x10
#define SEL_DATA 0x18
#define SEL_TSS	 0x20

#define TSS_LIMIT 0x67

#define PTE_TABLE 0x3ull  /* present, writable */
#define PTE_2M	  0x83ull /* and large */

/* A descriptor (SDM 3A, 3.4.5) for base 0. */
static uint64_t descriptor(uint32_t limit, uint32_t ar)
{
	uint64_t units = ar & 0x8000 ? limit >> 12 : limit;

	return (units & 0xffff) | (uint64_t)(ar & 0xff) << 40 | (units >> 16 & 0xf) << 48 |
	       (uint64_t)(ar >> 12 & 0xf) << 52;
}

/* Flat segments in registers and the same in a table, for what reloads them before it has its own.
 */
static int set_flat(struct boot_load *b, uint32_t code_ar)
{
	struct boot_cpu_state *cpu = &b->result->cpu;
	/* The task state's upper half is the sixth entry: zero, its base is. */
	uint64_t gdt[6] = {0};
	int i;

	gdt[SEL_CODE / 8] = descriptor(~0u, code_ar);
	gdt[SEL_DATA / 8] = descriptor(~0u, AR_DATA);
	gdt[SEL_TSS / 8] = descriptor(TSS_LIMIT, AR_TSS);
	*cpu = (struct boot_cpu_state){
		.rflags = 2,
		.gdt_base = MEMMAP_BOOT_GDT,
		.gdt_limit = sizeof(gdt) - 1,
		.tr = {.sel = SEL_TSS, .limit = TSS_LIMIT, .ar = AR_TSS},
		.ldtr = {.ar = BOOT_AR_UNUSABLE},
		.cr0 = CR0_PE | CR0_ET,
	};
	for (i = 0; i < BOOT_SEGS; i++)
		cpu->seg[i] = (struct boot_seg){.sel = SEL_DATA, .limit = ~0u, .ar = AR_DATA};
	cpu->seg[BOOT_CS] = (struct boot_seg){.sel = SEL_CODE, .limit = ~0u, .ar = code_ar};
	return boot_write(b, MEMMAP_BOOT_GDT, gdt, sizeof(gdt));
}

int boot_cpu_prot32(struct boot_load *b, uint32_t entry)
{
	int ret = set_flat(b, AR_CODE32);

	b->result->cpu.mode = BOOT_MODE_PROT32;
	b->result->cpu.rip = entry;
	return ret;
}

int boot_cpu_long64(struct boot_load *b, uint64_t entry)
{
	struct boot_cpu_state *cpu = &b->result->cpu;
	uint64_t table[6 * 512] = {0};
	unsigned i;
	int ret = set_flat(b, AR_CODE64);

	if (ret)
		return ret;
	table[0] = (MEMMAP_BOOT_PGTABLE + PAGE_SIZE) | PTE_TABLE;
	for (i = 0; i < 4; i++)
		table[512 + i] = (MEMMAP_BOOT_PGTABLE + (2 + i) * PAGE_SIZE) | PTE_TABLE;
	for (i = 0; i < 4 * 512; i++)
		table[1024 + i] = MIB(2) * i | PTE_2M;
	cpu->mode = BOOT_MODE_LONG64;
	cpu->rip = entry;
	cpu->gpr[BOOT_RSP] = MEMMAP_BOOT_STACK;
	cpu->cr0 |= CR0_PG;
	cpu->cr3 = MEMMAP_BOOT_PGTABLE;
	cpu->cr4 = CR4_PAE;
	cpu->efer = EFER_LME | EFER_LMA;
	return boot_write(b, MEMMAP_BOOT_PGTABLE, table, sizeof(table));
}

void boot_cpu_sipi(struct boot_cpu_state *cpu, uint8_t vector)
{
	int i;

	*cpu = (struct boot_cpu_state){
		.mode = BOOT_MODE_REAL,
		.rflags = 2,
		.gdt_limit = 0xffff,
		.idt_limit = 0xffff,
		.tr = {.limit = 0xffff, .ar = AR_TSS},
		.ldtr = {.limit = 0xffff, .ar = 0x82},
		.cr0 = CR0_CD | CR0_NW | CR0_ET,
	};
	for (i = 0; i < BOOT_SEGS; i++)
		cpu->seg[i] = (struct boot_seg){.limit = 0xffff, .ar = 0x93};
	cpu->seg[BOOT_CS].sel = (uint16_t)(vector << 8);
	cpu->seg[BOOT_CS].base = (uint64_t)vector << 12;
	cpu->seg[BOOT_CS].ar = 0x9b;
}
