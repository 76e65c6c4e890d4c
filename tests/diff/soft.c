/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The same instruction on our processor, at CPL 3 under a hand-made table. */
#include "tests/diff/diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/cpu_model.h"

#define SOFT_USER_END 0x7ffffffff000ull /* Linux' TASK_SIZE_MAX */
#define SOFT_LDT 0xffffa00000000000ull /* a page of the supervisor's */
#define SOFT_TSS (SOFT_LDT + 0x800)

static struct {
	struct cpu_domain *domain;
	struct cpu *cpu;
	uint8_t *code, *data;
	uint64_t *table; /* where the LDT is */
	uint64_t ldt[DIFF_LDT_ENTRIES];
	struct engine_cpu_model model;
	struct cpu_cpuid leaf[ENGINE_CPUID_MAX];
	unsigned leaves;
} soft;

static void *pages(unsigned n)
{
	void *p = mmap(NULL, n * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

#define PTE_P  BIT(0)
#define PTE_RW BIT(1)
#define PTE_US BIT(2)
#define PTE_AD (BIT(5) | BIT(6))
#define PTE_NX BIT(63)

static uint64_t *next(uint64_t *table, unsigned index)
{
	if (!table[index])
		table[index] = (uint64_t)(uintptr_t)pages(1) | PTE_P | PTE_RW | PTE_US | PTE_AD;
	return (uint64_t *)(uintptr_t)(table[index] & 0x0000fffffffff000);
}

static void map(uint64_t *root, uint64_t va, void *host, uint64_t bits)
{
	uint64_t *pt = next(next(next(root, va >> 39 & 511), va >> 30 & 511), va >> 21 & 511);

	pt[va >> 12 & 511] = (uint64_t)(uintptr_t)host | PTE_P | PTE_AD | bits;
}

static uint32_t cpuid_bit(uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit)
{
	for (unsigned k = 0; k < soft.leaves; k++) {
		const struct cpu_cpuid *l = &soft.leaf[k];
		const uint32_t r[4] = {l->eax, l->ebx, l->ecx, l->edx};

		if (l->leaf == leaf && (l->subleaf == subleaf || l->subleaf == CPU_CPUID_ANY))
			return r[reg] >> bit & 1;
	}
	return 0;
}

bool diff_soft_shows(ZydisISASet set)
{
	enum { EAX, EBX, ECX, EDX };

	switch (set) {
	case ZYDIS_ISA_SET_I86:
	case ZYDIS_ISA_SET_I186:
	case ZYDIS_ISA_SET_I286PROTECTED:
	case ZYDIS_ISA_SET_I286REAL:
	case ZYDIS_ISA_SET_I386:
	case ZYDIS_ISA_SET_I486:
	case ZYDIS_ISA_SET_I486REAL:
	case ZYDIS_ISA_SET_PENTIUMREAL:
	case ZYDIS_ISA_SET_PPRO:
	case ZYDIS_ISA_SET_FAT_NOP:
	case ZYDIS_ISA_SET_PREFETCH_NOP:
	case ZYDIS_ISA_SET_PAUSE:
	case ZYDIS_ISA_SET_LONGMODE:
	case ZYDIS_ISA_SET_CMOV:
	case ZYDIS_ISA_SET_X87:
	case ZYDIS_ISA_SET_FCMOV:
	case ZYDIS_ISA_SET_PENTIUMMMX:
	case ZYDIS_ISA_SET_FXSAVE:
	case ZYDIS_ISA_SET_FXSAVE64:
	case ZYDIS_ISA_SET_SSE:
	case ZYDIS_ISA_SET_SSE2:
	case ZYDIS_ISA_SET_SSE2MMX:
	case ZYDIS_ISA_SET_SSEMXCSR:
	case ZYDIS_ISA_SET_SSE_PREFETCH:
	case ZYDIS_ISA_SET_RDPMC:
	case ZYDIS_ISA_SET_CLFSH: return true;
	case ZYDIS_ISA_SET_LAHF: return cpuid_bit(0x80000001, 0, ECX, 0);
	case ZYDIS_ISA_SET_SSE3:
	case ZYDIS_ISA_SET_SSE3X87: return cpuid_bit(1, 0, ECX, 0);
	case ZYDIS_ISA_SET_SSSE3:
	case ZYDIS_ISA_SET_SSSE3MMX: return cpuid_bit(1, 0, ECX, 9);
	case ZYDIS_ISA_SET_SSE4: return cpuid_bit(1, 0, ECX, 19);
	case ZYDIS_ISA_SET_SSE42: return cpuid_bit(1, 0, ECX, 20);
	case ZYDIS_ISA_SET_AES: return cpuid_bit(1, 0, ECX, 25);
	case ZYDIS_ISA_SET_PCLMULQDQ: return cpuid_bit(1, 0, ECX, 1);
	case ZYDIS_ISA_SET_AVX:
	case ZYDIS_ISA_SET_AVXAES: return cpuid_bit(1, 0, ECX, 28);
	case ZYDIS_ISA_SET_AVX2:
	case ZYDIS_ISA_SET_AVX2GATHER: return cpuid_bit(7, 0, EBX, 5);
	case ZYDIS_ISA_SET_FMA: return cpuid_bit(1, 0, ECX, 12);
	case ZYDIS_ISA_SET_F16C: return cpuid_bit(1, 0, ECX, 29);
	case ZYDIS_ISA_SET_POPCNT: return cpuid_bit(1, 0, ECX, 23);
	case ZYDIS_ISA_SET_MOVBE: return cpuid_bit(1, 0, ECX, 22);
	case ZYDIS_ISA_SET_CMPXCHG16B: return cpuid_bit(1, 0, ECX, 13);
	case ZYDIS_ISA_SET_RDRAND: return cpuid_bit(1, 0, ECX, 30);
	case ZYDIS_ISA_SET_XSAVE: return cpuid_bit(1, 0, ECX, 26);
	case ZYDIS_ISA_SET_XSAVEC: return cpuid_bit(0xd, 1, EAX, 1);
	case ZYDIS_ISA_SET_XSAVEOPT: return cpuid_bit(0xd, 1, EAX, 0);
	case ZYDIS_ISA_SET_XSAVES: return cpuid_bit(0xd, 1, EAX, 3);
	case ZYDIS_ISA_SET_RDWRFSGS: return cpuid_bit(7, 0, EBX, 0);
	case ZYDIS_ISA_SET_BMI1: return cpuid_bit(7, 0, EBX, 3);
	case ZYDIS_ISA_SET_BMI2: return cpuid_bit(7, 0, EBX, 8);
	case ZYDIS_ISA_SET_INVPCID: return cpuid_bit(7, 0, EBX, 10);
	case ZYDIS_ISA_SET_RDSEED: return cpuid_bit(7, 0, EBX, 18);
	case ZYDIS_ISA_SET_ADOX_ADCX: return cpuid_bit(7, 0, EBX, 19);
	case ZYDIS_ISA_SET_SMAP: return cpuid_bit(7, 0, EBX, 20);
	case ZYDIS_ISA_SET_CLFLUSHOPT: return cpuid_bit(7, 0, EBX, 23);
	case ZYDIS_ISA_SET_CLWB: return cpuid_bit(7, 0, EBX, 24);
	case ZYDIS_ISA_SET_SHA: return cpuid_bit(7, 0, EBX, 29);
	case ZYDIS_ISA_SET_PKU: return cpuid_bit(7, 0, ECX, 3);
	case ZYDIS_ISA_SET_RDPID: return cpuid_bit(7, 0, ECX, 22);
	case ZYDIS_ISA_SET_SERIALIZE: return cpuid_bit(7, 0, EDX, 14);
	case ZYDIS_ISA_SET_LZCNT: return cpuid_bit(0x80000001, 0, ECX, 5);
	case ZYDIS_ISA_SET_RDTSCP: return cpuid_bit(0x80000001, 0, EDX, 27);
	default: return false;
	}
}

void diff_soft_init(void)
{
	uint64_t *root = pages(1);
	struct cpu_controls *ctl;

	engine_cpu_model_init(&soft.model, 1, 1000000000);
	soft.leaves = engine_cpu_model_cpuid(&soft.model, 0, soft.leaf);
	soft.domain = cpu_domain_create();
	soft.cpu = cpu_create(soft.domain, soft.leaf, soft.leaves);
	if (!soft.cpu)
		abort();
	soft.code = pages(DIFF_CODE_PAGES);
	soft.data = pages(DIFF_DATA_PAGES);
	for (unsigned k = 0; k < DIFF_CODE_PAGES; k++)
		map(root, DIFF_CODE + k * 4096, soft.code + k * 4096, PTE_US);
	for (unsigned k = 0; k < DIFF_DATA_PAGES; k++)
		map(root, DIFF_DATA + k * 4096, soft.data + k * 4096,
		    PTE_US | PTE_NX | (k < DIFF_DATA_RW ? PTE_RW : 0));
	soft.table = pages(1);
	for (unsigned k = 0; k < DIFF_LDT_ENTRIES; k++)
		soft.ldt[k] = diff_ldt_descriptor(&diff_ldt[k]);
	memcpy(soft.table, soft.ldt, sizeof(soft.ldt));
	memset((uint8_t *)soft.table + 0x866, 0xff, 2); /* no I/O bitmap */
	map(root, SOFT_LDT, soft.table, PTE_RW | PTE_NX);
	cpu_reset(soft.cpu, false);
	ctl = cpu_controls(soft.cpu);
	ctl->paging = CPU_PAGING_SHADOW;
	ctl->root = (uint64_t)(uintptr_t)root;
	ctl->exception_bitmap = ~0u;
	ctl->vpid = 1;
}

static void set_state(const struct diff_case *c)
{
	struct cpu_state *s = cpu_state(soft.cpu);

	memcpy(s->gpr, c->regs.gpr, sizeof(s->gpr));
	s->rip = c->regs.rip;
	s->rflags = c->regs.rflags | X86_FLAG_ONE | X86_FLAG_IF | (c->traced ? X86_FLAG_TF : 0);
	s->fx = c->regs.fx;
	memcpy(s->ymmh, c->regs.ymmh, sizeof(s->ymmh));
	memcpy(s->seg, c->seg, sizeof(s->seg));
	s->tr = (struct cpu_seg){.base = SOFT_TSS, .limit = 0x67, .attr = 0x8b};
	s->ldtr = (struct cpu_seg){
		.sel = 0x50, .base = SOFT_LDT, .limit = sizeof(soft.ldt) - 1, .attr = 0x82};
	s->gdtr = s->idtr = (struct cpu_table){0};
	s->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_MP | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM |
		 X86_CR0_ET;
	s->cr4 = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT |
		 X86_CR4_OSXSAVE | X86_CR4_FSGSBASE | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_UMIP;
	s->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_SCE;
	s->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE;
	if (diff_soft_shows(ZYDIS_ISA_SET_AVX))
		s->xcr0 |= X86_XCR0_AVX;
	s->dr6 = X86_DR6_FIXED;
	s->dr7 = X86_DR7_FIXED;
	s->activity = CPU_ACTIVE;
	s->event.valid = false;
	s->int_shadow_sti = s->int_shadow_movss = false;
	s->pending_dbg = 0;
	cpu_state_changed(soft.cpu);
}

/* What the host's kernel would say of this exit. */
static void take_exit(const struct cpu_exit *e, struct diff_result *r)
{
	if (e->reason != CPU_EXIT_EXCEPTION) {
		r->vector = 0xff;
		r->error = e->reason;
		return;
	}
	r->vector = e->exception.vector;
	r->error = e->exception.has_error ? e->exception.error : 0;
	r->cr2 = e->exception.payload;
	/* It does not tell whether its own half of the addresses is mapped. */
	if (r->vector == X86_VEC_PF && r->cr2 >= SOFT_USER_END)
		r->error |= X86_PF_P;
}

/* To the end of the instruction, whatever the number of its steps; true when it got there. */
static bool run_untraced(const struct diff_case *c)
{
	const struct cpu_state *s = cpu_state(soft.cpu);

	for (unsigned k = 0; k < 100000; k++) {
		if (cpu_step(soft.cpu) != CPU_EXIT_ICOUNT)
			return false;
		if (s->rip != c->regs.rip)
			return true;
	}
	return false;
}

void diff_soft_run(const struct diff_case *c, struct diff_result *r)
{
	uint64_t at = c->regs.rip - (c->mode == DIFF_16 ? 0 : DIFF_CODE);
	const struct cpu_state *s = cpu_state(soft.cpu);
	bool ended = false;

	memcpy(soft.data, c->data, sizeof(c->data));
	memcpy(soft.code + at, c->bytes, c->len);
	if (!c->traced)
		soft.code[at + c->len] = 0xcc;
	cpu_domain_notify_write(soft.domain, (hpa_t)(uintptr_t)soft.code + at, c->len + 1u);
	set_state(c);
	if (c->traced) {
		cpu_step(soft.cpu);
		if (cpu_exit(soft.cpu)->reason == CPU_EXIT_ICOUNT)
			cpu_step(soft.cpu); /* the single-step trap is due */
	} else {
		ended = run_untraced(c);
	}
	if (ended)
		r->vector = X86_VEC_DB;
	else
		take_exit(cpu_exit(soft.cpu), r);
	memcpy(r->regs.gpr, s->gpr, sizeof(s->gpr));
	r->regs.rip = s->rip;
	r->regs.rflags = s->rflags;
	r->regs.fx = s->fx;
	memcpy(r->regs.ymmh, s->ymmh, sizeof(r->regs.ymmh));
	for (unsigned k = 0; k < 6; k++)
		r->sel[k] = s->seg[k].sel;
	r->fs_base = s->seg[X86_FS].base;
	r->gs_base = s->seg[X86_GS].base;
	memcpy(r->data, soft.data, sizeof(r->data));
}
