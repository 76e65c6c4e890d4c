/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeps all that a processor and a board can hold alive, and looks again and again whether it is
 * still there: registers, MSRs, devices, memory through changing tables; exceptions, NMIs, timers,
 * IPIs and user code between. What it writes does not depend on time. "ROUNDS [CPUS]"; at the end
 * it waits for a byte on the console, so that its memory can be looked at.
 */
#include "kit/kit.h"

#define COM1	   0x3f8
#define PAGES	   256
#define WINDOW	   KIT_WINDOW(1)
#define USER	   KIT_WINDOW(2)
#define APIC(reg)  (*(volatile uint32_t *)(0xfee00000ull + (reg)))
#define APIC_ID	   0x20
#define APIC_EOI   0xb0
#define APIC_SVR   0xf0
#define APIC_ICR   0x300
#define APIC_ICR2  0x310
#define APIC_TIMER 0x320
#define APIC_LINT1 0x360
#define APIC_COUNT 0x380
#define APIC_DIV   0x3e0
#define IOAPIC(n)  (*(volatile uint32_t *)(0xfec00000ull + (n)))

#define VEC_TIMER 0x40
#define VEC_PIC	  0x50
#define VEC_IPI	  0x60
#define VEC_SOFT  0x80

#define SEL_TSS 0x30

/* Counted by the handlers below. */
uint64_t mover_timer, mover_pic, mover_ipi, mover_nmi, mover_soft, mover_de, mover_ud, mover_pf;
uint64_t mover_kernel_rsp;
uint64_t mover_user(uint64_t rip, uint64_t rsp, uint64_t argument);
extern const char mover_on_de[], mover_on_ud[], mover_on_pf[], mover_on_nmi[], mover_on_timer[],
	mover_on_pic[], mover_on_ipi[], mover_on_soft[], mover_on_back[], mover_user_code[],
	mover_user_end[];

static struct kit_gate idt[256];
static uint64_t gdt[8] = {0,
			  0x00af9a000000ffff,
			  0x00cf92000000ffff,
			  0x00cf9a000000ffff,
			  0x00cff2000000ffff,
			  0x00affa000000ffff};
static uint32_t tss[26];
static uint64_t tss_stack[512];
static unsigned cpus;
static uint64_t rounds;
static volatile bool done;

/* Each handler that goes on behind the instruction that raised it knows its length. */
asm(".text\n"
    "mover_on_de: lock incq mover_de(%rip)\n addq $2, (%rsp)\n iretq\n"
    "mover_on_ud: lock incq mover_ud(%rip)\n addq $2, (%rsp)\n iretq\n"
    "mover_on_pf: lock incq mover_pf(%rip)\n addq $8, %rsp\n addq $3, (%rsp)\n iretq\n"
    "mover_on_nmi: lock incq mover_nmi(%rip)\n iretq\n"
    "mover_on_soft: lock incq mover_soft(%rip)\n iretq\n"
    "mover_on_timer: lock incq mover_timer(%rip)\n jmp 1f\n"
    "mover_on_ipi: lock incq mover_ipi(%rip)\n"
    "1: push %rax\n mov $0xfee000b0, %eax\n movl $0, (%rax)\n pop %rax\n iretq\n"
    "mover_on_pic: lock incq mover_pic(%rip)\n push %rax\n mov $0x20, %al\n out %al, $0x20\n"
    " pop %rax\n iretq\n"
    /* Into user mode, and out of it by #GP, with what it has in rax. */
    "mover_user: push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp, mover_kernel_rsp(%rip)\n"
    " pushq $0x23\n push %rsi\n pushq $0x202\n pushq $0x2b\n push %rdi\n mov %rdx, %rdi\n iretq\n"
    "mover_on_back: mov mover_kernel_rsp(%rip), %rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
    /* The user's: a sum in registers, on its stack and in SSE. */
    "mover_user_code: mov %rdi, %rax\n movq %rdi, %xmm0\n mov $1500, %ecx\n"
    "2: imul $31, %rax, %rax\n add %rcx, %rax\n push %rax\n paddq %xmm0, %xmm0\n pop %rbx\n"
    " rol $7, %rax\n xor %rbx, %rax\n dec %ecx\n jnz 2b\n"
    " movq %xmm0, %rbx\n add %rbx, %rax\n hlt\n"
    "mover_user_end:\n");

static uint64_t rdmsr(uint32_t index)
{
	uint32_t lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(index));
	return lo | (uint64_t)hi << 32;
}

static void wrmsr(uint32_t index, uint64_t value)
{
	asm volatile("wrmsr" ::"a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(index));
}

/* ---- what is kept alive ---- */

/* MSRs that hold an address, whatever it is. */
static const uint32_t msrs[] = {0xc0000082, 0xc0000083, 0xc0000102, 0xc0000100,
				0xc0000101, 0x175,	0x176};
#define MSRS (sizeof(msrs) / sizeof(msrs[0]))

struct fx {
	uint8_t byte[512];
} __attribute__((aligned(16)));

struct kept {
	uint64_t msr[MSRS], star, dr[4];
	struct fx fx;
	uint32_t ioapic;
	uint8_t cmos, scratch, imr, latch, lint;
};

static uint64_t address(uint64_t *seed)
{
	return (uint64_t)((int64_t)(kit_random(seed) << 17) >> 17);
}

#define XMM(n) "movups " #n "*16(%0), %%xmm" #n "\n"

static void keep_fpu(struct kept *k, uint64_t *seed)
{
	uint64_t words[32];

	for (unsigned n = 0; n < 32; n++)
		words[n] = kit_random(seed);
	asm volatile("fninit\n fldpi\n fld1\n fldl2e\n fldlg2\n fchs\n" ::: "memory");
	asm volatile(XMM(0) XMM(1) XMM(2) XMM(3) XMM(4) XMM(5) XMM(6) XMM(7) XMM(8) XMM(9) XMM(10)
			     XMM(11) XMM(12) XMM(13) XMM(14) XMM(15)::"r"(words)
		     : "memory");
	asm volatile("fxsaveq %0" : "=m"(k->fx));
}

static void keep(struct kept *k, unsigned cpu, uint64_t *seed)
{
	for (unsigned n = 0; n < MSRS; n++)
		wrmsr(msrs[n], k->msr[n] = address(seed));
	wrmsr(0xc0000081, k->star = kit_random(seed));
	for (unsigned n = 0; n < 4; n++)
		k->dr[n] = address(seed);
	asm volatile("mov %0, %%dr0" ::"r"(k->dr[0]));
	asm volatile("mov %0, %%dr1" ::"r"(k->dr[1]));
	asm volatile("mov %0, %%dr2" ::"r"(k->dr[2]));
	asm volatile("mov %0, %%dr3" ::"r"(k->dr[3]));
	keep_fpu(k, seed);
	APIC(APIC_LINT1) = k->lint = 0x70 + kit_random(seed) % 8;
	if (cpu)
		return;
	k->cmos = (uint8_t)kit_random(seed);
	kit_outb(0x70, 0x50);
	kit_outb(0x71, k->cmos);
	kit_outb(COM1 + 7, k->scratch = (uint8_t)kit_random(seed));
	kit_outb(0xa1, k->imr = (uint8_t)kit_random(seed));
	kit_outb(0xe0, k->latch = (uint8_t)kit_random(seed));
	IOAPIC(0) = 0x10 + 2 * 20;
	IOAPIC(0x10) = k->ioapic = 0x10000 | (0x70 + (uint32_t)kit_random(seed) % 8);
}

static uint64_t dr(unsigned n)
{
	uint64_t value = 0;

	switch (n) {
	case 0: asm volatile("mov %%dr0, %0" : "=r"(value)); break;
	case 1: asm volatile("mov %%dr1, %0" : "=r"(value)); break;
	case 2: asm volatile("mov %%dr2, %0" : "=r"(value)); break;
	default: asm volatile("mov %%dr3, %0" : "=r"(value)); break;
	}
	return value;
}

/* Control and status words, MXCSR, stack and XMM: not the pointers, which processors differ in. */
static bool same_fpu(const struct fx *a, const struct fx *b)
{
	for (unsigned n = 0; n < 416; n++) {
		bool pointers = n >= 6 && n < 24, mask = n >= 28 && n < 32;
		bool high = n >= 32 && n < 160 && n % 16 >= 10;

		if (!pointers && !mask && !high && a->byte[n] != b->byte[n])
			return false;
	}
	return true;
}

static void look(const struct kept *k, unsigned cpu)
{
	struct fx fx;

	asm volatile("fxsaveq %0" : "=m"(fx));
	kit_check(same_fpu(&k->fx, &fx), "x87 and SSE");
	for (unsigned n = 0; n < MSRS; n++)
		kit_check(rdmsr(msrs[n]) == k->msr[n], "an MSR");
	kit_check(rdmsr(0xc0000081) == k->star, "STAR");
	for (unsigned n = 0; n < 4; n++)
		kit_check(dr(n) == k->dr[n], "a debug register");
	kit_check((APIC(APIC_LINT1) & 0xff) == k->lint, "LINT1");
	if (cpu)
		return;
	kit_outb(0x70, 0x50);
	kit_check(kit_inb(0x71) == k->cmos, "CMOS");
	kit_check(kit_inb(COM1 + 7) == k->scratch, "the UART");
	kit_check(kit_inb(0xa1) == k->imr, "the 8259");
	kit_check(kit_inb(0xe0) == k->latch, "the latch");
	IOAPIC(0) = 0x10 + 2 * 20;
	kit_check(IOAPIC(0x10) == k->ioapic, "the I/O APIC");
}

/* ---- what goes on meanwhile ---- */

static uint64_t *memory, *space[2];

/* Memory through tables that change; @n: the round. Processor 0's. */
static void work(uint64_t n, uint64_t *seed)
{
	uint64_t *to = space[n % 2];

	for (uint64_t p = 0; p < 16; p++) {
		uint64_t page = kit_random(seed) % PAGES;
		volatile uint64_t *at = kit_at(WINDOW + p * PAGE);

		kit_map(to, WINDOW + p * PAGE, (uint64_t)memory + page * PAGE, PT_P | PT_W);
		if (!p)
			kit_cr3(to);
		kit_invlpg(WINDOW + p * PAGE);
		for (unsigned w = 0; w < 512; w += 32)
			at[w] = at[w] * 31 + n + w;
		kit_check(at[0] == memory[page * 512], "both mappings agree");
	}
}

static void raise_exceptions(void)
{
	uint64_t de = mover_de, ud = mover_ud, pf = mover_pf, soft = mover_soft;

	asm volatile("xor %%edx, %%edx\n xor %%ecx, %%ecx\n div %%ecx" ::
			     : "rax", "rcx", "rdx", "memory");
	asm volatile("ud2" ::: "memory");
	asm volatile("mov %%rax, (%0)" ::"r"(KIT_WINDOW(5) + 0x123000) : "memory");
	asm volatile("int $0x80" ::: "memory");
	kit_check(mover_de == de + 1 && mover_ud == ud + 1 && mover_pf == pf + 1 &&
			  mover_soft == soft + 1,
		  "each exception once");
}

static void send(uint32_t to, uint32_t what)
{
	APIC(APIC_ICR2) = to << 24;
	APIC(APIC_ICR) = what;
	while (APIC(APIC_ICR) & 1 << 12)
		kit_pause();
}

static void raise_nmi(void)
{
	uint64_t was = mover_nmi;

	send(0, 0x4400);
	while (__atomic_load_n(&mover_nmi, __ATOMIC_SEQ_CST) == was)
		kit_pause();
	kit_check(mover_nmi == was + 1, "each NMI once");
}

static void call_others(void)
{
	uint64_t was = mover_ipi;

	for (unsigned cpu = 1; cpu < cpus; cpu++)
		send(cpu, 0x4000 | VEC_IPI);
	while (__atomic_load_n(&mover_ipi, __ATOMIC_SEQ_CST) != was + cpus - 1)
		kit_pause();
}

/* Sleep until the timer has come; it may be lost no more than come twice. */
static void sleep(void)
{
	uint64_t was = mover_timer;

	APIC(APIC_DIV) = 0xb;
	APIC(APIC_TIMER) = VEC_TIMER;
	APIC(APIC_COUNT) = 200000;
	while (mover_timer == was)
		asm volatile("sti\n hlt\n cli" ::: "memory");
	for (unsigned n = 0; n < 100; n++)
		asm volatile("sti\n nop\n cli" ::: "memory");
	kit_check(mover_timer == was + 1, "the timer once");
}

/* ---- start and end ---- */

static void set_gate(unsigned vector, const char *handler)
{
	uint64_t at = (uint64_t)handler;

	idt[vector] = (struct kit_gate){
		.low = (uint16_t)at,
		.selector = 8,
		.flags = 0x8e00,
		.middle = (uint16_t)(at >> 16),
		.high = (uint32_t)(at >> 32),
	};
}

extern struct kit_pointer kit_idt_pointer;

static void set_tables(void)
{
	const struct kit_gate *kit = (const struct kit_gate *)kit_idt_pointer.base;

	for (unsigned k = 0; k < 32; k++)
		idt[k] = kit[k];
	set_gate(0, mover_on_de);
	set_gate(2, mover_on_nmi);
	set_gate(6, mover_on_ud);
	set_gate(13, mover_on_back);
	set_gate(14, mover_on_pf);
	set_gate(VEC_TIMER, mover_on_timer);
	for (unsigned k = 0; k < 16; k++)
		set_gate(VEC_PIC + k, mover_on_pic);
	set_gate(VEC_IPI, mover_on_ipi);
	set_gate(VEC_SOFT, mover_on_soft);
	tss[1] = (uint32_t)(uint64_t)&tss_stack[512];
	gdt[6] = 0x0000890000000000 | (sizeof(tss) - 1) | ((uint64_t)tss & 0xffffff) << 16 |
		 ((uint64_t)tss >> 24 & 0xff) << 56;
	gdt[7] = (uint64_t)tss >> 32;
}

static void load_tables(unsigned cpu)
{
	struct kit_pointer g = {sizeof(gdt) - 1, (uint64_t)gdt},
			   i = {sizeof(idt) - 1, (uint64_t)idt};

	asm volatile("lgdt %0\n lidt %1" ::"m"(g), "m"(i));
	if (!cpu)
		asm volatile("ltr %w0" ::"r"(SEL_TSS));
	APIC(APIC_SVR) = 0x1ff;
}

/* The 8259s with vectors of their own, and the interval timer at 200 Hz through them. */
static void start_pic(void)
{
	kit_outb(0x20, 0x11);
	kit_outb(0x21, VEC_PIC);
	kit_outb(0x21, 4);
	kit_outb(0x21, 1);
	kit_outb(0xa0, 0x11);
	kit_outb(0xa1, VEC_PIC + 8);
	kit_outb(0xa1, 2);
	kit_outb(0xa1, 1);
	kit_outb(0x21, 0xfe);
	kit_outb(0xa1, 0xff);
	kit_outb(0x43, 0x34);
	kit_outb(0x40, 5966 & 255);
	kit_outb(0x40, 5966 >> 8);
}

static uint64_t user_stack;

static uint64_t *make_space(uint64_t *page)
{
	uint64_t *s = kit_space();

	kit_map(s, USER, (uint64_t)page, PT_P | PT_U);
	kit_map(s, USER + PAGE, (uint64_t)page + PAGE, PT_P | PT_W | PT_U);
	return s;
}

static void make_memory(void)
{
	uint64_t *page = kit_pages(2);
	char *to = (char *)page;

	memory = kit_pages(PAGES);
	for (uint64_t k = 0; k < PAGES * 512; k++)
		memory[k] = k;
	for (const char *c = mover_user_code; c < mover_user_end; c++)
		*to++ = *c;
	space[0] = make_space(page);
	space[1] = make_space(page);
	user_stack = USER + 2 * PAGE;
}

/* What interrupts have pushed below the stack's end, at moments that differ. */
static inline __attribute__((always_inline)) void forget_stack(void)
{
	asm volatile(
		"lea -4096(%%rsp), %%rdi\n mov $4096 / 8, %%ecx\n xor %%eax, %%eax\n rep stosq" ::
			: "rax", "rcx", "rdi", "memory");
}

static void on_cpu(unsigned cpu)
{
	uint64_t seed = 0x9e3779b97f4a7c15 * (cpu + 1), hash = 0;
	struct kept k;

	load_tables(cpu);
	/* The others: state of their own, and interrupts at any moment. */
	while (cpu && !done) {
		keep(&k, cpu, &seed);
		asm volatile("sti" ::: "memory");
		for (unsigned n = 0; n < 2000; n++)
			kit_pause();
		asm volatile("cli" ::: "memory");
		look(&k, cpu);
	}
	for (uint64_t n = 0; !cpu && n < rounds; n++) {
		keep(&k, cpu, &seed);
		work(n, &seed);
		raise_exceptions();
		asm volatile("sti\n nop\n cli" ::: "memory");
		raise_nmi();
		call_others();
		look(&k, cpu);
		hash = hash * 31 + mover_user(USER, user_stack, kit_random(&seed));
		if (n % 16 == 15)
			sleep();
		if (n % 256 == 255)
			kit_result("round", hash);
	}
	if (!cpu) {
		kit_result("user", hash);
		done = true;
	}
	/* How often the others have gone round depends on time. */
	seed = 0;
	k = (struct kept){0};
	asm volatile("" ::"m"(seed), "m"(k));
	forget_stack();
}

static uint64_t number_in(const char **text)
{
	uint64_t n = 0;

	for (; **text >= '0' && **text <= '9'; (*text)++)
		n = n * 10 + (uint64_t)(**text - '0');
	while (**text == ' ')
		(*text)++;
	return n;
}

int payload(const char *cmdline)
{
	uint64_t hash = 0;

	rounds = number_in(&cmdline);
	cpus = (unsigned)number_in(&cmdline);
	if (!cpus)
		cpus = 1;
	kit_check(cpus <= kit_cpus(), "so many processors");
	set_tables();
	make_memory();
	start_pic();
	kit_on_cpus(cpus, on_cpu);
	for (uint64_t k = 0; k < PAGES * 512; k++)
		hash = (hash ^ memory[k]) * 0x100000001b3;
	kit_result("memory", hash);
	kit_result("exceptions", mover_de + mover_ud + mover_pf + mover_soft);
	kit_result("nmis", mover_nmi);
	kit_result("ipis", mover_ipi);
	kit_outb(0x21, 0xff);
	mover_timer = mover_pic = 0;
	for (unsigned n = 0; n < 512; n++)
		tss_stack[n] = 0;
	kit_text("done\n");
	forget_stack();
	while (!(kit_inb(COM1 + 5) & 1))
		kit_pause();
	return kit_inb(COM1) == 'q' ? 0 : 1;
}
