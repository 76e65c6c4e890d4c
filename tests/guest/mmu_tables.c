/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Builds and rewrites page tables in ring 0 and uses them in ring 3, phase by phase, each told to
 * the harness (KIT_PHASE): so that the MMUs of two engines can be held side by side. In ring 3,
 * since a KVM without hardware behind it emulates ring 0 and fills no shadow page for that.
 */
#include "kit/kit.h"

#define PAGES	  256		/* that one table maps */
#define ROUNDS	  8		/* of each phase */
#define USER	  KIT_WINDOW(1) /* the pages; the code behind them */
#define CODE	  (USER + PT_SPAN)
#define PT_SPAN	  (PAGE * 512)
#define USER_BITS (PT_P | PT_W | PT_U)

#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define EFER_SCE 1ull

/*
 * enter_user(rip, at, count, add): ring 3 adds @add to a word of each page and gives the sum. It
 * has no stack; there by SYSRET, back by UD2, which any processor, or emulator of one, can do.
 */
uint64_t enter_user(uint64_t rip, uint64_t at, uint64_t count, uint64_t add);
void back_from_user(void);
extern const char user_code[], user_code_end[];
asm("	.text\n"
    "enter_user:\n"
    "	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "	mov %rsp, kernel_rsp(%rip)\n"
    "	mov %rcx, %r8\n"
    "	mov %rdi, %rcx\n"
    "	mov $2, %r11\n"
    "	sysretq\n"
    "back_from_user:\n"
    "	mov kernel_rsp(%rip), %rsp\n"
    "	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "	ret\n"
    "user_code:\n"
    "	xor %eax, %eax\n"
    "1:	add %r8, (%rsi)\n"
    "	add (%rsi), %rax\n"
    "	add $4096, %rsi\n"
    "	dec %rdx\n"
    "	jnz 1b\n"
    "	ud2\n"
    "user_code_end:\n");
/* enter_user() finds it without a register. */
uint64_t kernel_rsp;

static uint8_t *memory;
static uint64_t *space, *other, *table, *pd, sum;

static void wrmsr(uint32_t index, uint64_t value)
{
	asm volatile("wrmsr" ::"c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static uint64_t rdmsr(uint32_t index)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
	return (uint64_t)high << 32 | low;
}

static void touch(uint64_t count, uint64_t add)
{
	sum = sum * 31 + enter_user(CODE, USER, count, add);
}

/* #UD leads to back_from_user(), on a stack that the task state names. */
static void catch_ud(void)
{
	static uint64_t gdt[10], stack[64];
	static uint32_t tss[26];
	static struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer;
	uint64_t at = (uint64_t)tss, to = (uint64_t)back_from_user;
	uint64_t *gate;

	asm volatile("sgdt %0" : "=m"(pointer));
	for (unsigned k = 0; k < 4; k++)
		gdt[k] = ((uint64_t *)pointer.base)[k];
	tss[1] = (uint32_t)(uint64_t)(stack + 64); /* RSP0, below 4 GiB */
	gdt[8] =
		(sizeof(tss) - 1) | (at & 0xffffff) << 16 | 0x89ull << 40 | (at >> 24 & 0xff) << 56;
	gdt[9] = at >> 32;
	pointer.limit = sizeof(gdt) - 1;
	pointer.base = (uint64_t)gdt;
	asm volatile("lgdt %0; ltr %w1" ::"m"(pointer), "r"(0x40) : "memory");
	asm volatile("sidt %0" : "=m"(pointer));
	gate = (uint64_t *)(pointer.base + 6 * 16);
	gate[0] = (to & 0xffff) | 8ull << 16 | 0x8e00ull << 32 | (to >> 16 & 0xffff) << 48;
	gate[1] = to >> 32;
}

static void map_user_code(uint64_t *pml4, uint64_t page)
{
	kit_map(pml4, CODE, page, USER_BITS);
}

static void setup(void)
{
	uint8_t *code = kit_page();

	memory = kit_pages(2 * PAGES);
	for (uint64_t p = 0; p < 2 * PAGES; p++)
		*(uint64_t *)(memory + p * PAGE) = p;
	for (const char *c = user_code; c < user_code_end; c++)
		code[c - user_code] = (uint8_t)*c;
	space = kit_space();
	other = kit_space();
	map_user_code(space, (uint64_t)code);
	map_user_code(other, (uint64_t)code);
	/* SYSRET: SS 0x2b, CS 0x33, which no table needs to have. */
	wrmsr(MSR_STAR, 0x23ull << 48);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	catch_ud();
}

static uint64_t frame(uint64_t n)
{
	return (uint64_t)memory + n % (2 * PAGES) * PAGE;
}

/* ---- phases ---- */

/* A table is filled before anybody has used it, and used. */
static void build(void)
{
	for (uint64_t p = 0; p < PAGES; p++) {
		kit_map(space, USER + p * PAGE, frame(p), USER_BITS);
		kit_map(other, USER + p * PAGE, frame(p), USER_BITS);
	}
	table = (uint64_t *)((uint64_t)kit_entry_of(space, USER, 1) & PT_FRAME);
	pd = (uint64_t *)((uint64_t)kit_entry_of(space, USER, 2) & PT_FRAME);
	kit_cr3(space);
	touch(PAGES, 1);
}

/* Few entries change, each is flushed by itself. */
static void rewrite_invlpg(void)
{
	for (uint64_t n = 0; n < ROUNDS; n++) {
		for (uint64_t p = 0; p < PAGES; p += 16) {
			table[p] = frame(p + n + 1) | USER_BITS;
			kit_invlpg(USER + p * PAGE);
		}
		touch(PAGES, 1);
	}
}

/* All entries change, and one flush makes them good. */
static void rewrite_cr3(void)
{
	for (uint64_t n = 0; n < ROUNDS; n++) {
		for (uint64_t p = 0; p < PAGES; p++)
			table[p] = frame(p + n) | USER_BITS;
		kit_cr3(space);
		touch(PAGES, 1);
	}
}

/* Ring 0 clears A and D, ring 3 makes the processor set them. */
static void age(void)
{
	for (uint64_t n = 0; n < ROUNDS; n++) {
		for (uint64_t p = 0; p < PAGES; p++)
			table[p] &= ~(PT_A | PT_D);
		kit_cr3(space);
		touch(PAGES, 1);
	}
}

/* Two address spaces in turns, neither of which changes. */
static void switch_spaces(void)
{
	for (uint64_t n = 0; n < 4 * ROUNDS; n++) {
		kit_cr3(n & 1 ? space : other);
		touch(PAGES, 1);
	}
	kit_cr3(space);
}

/* Entries of a page directory: two tables in turns. */
static void rewrite_pd(void)
{
	uint64_t *spare = kit_page(), old = *pd;

	for (uint64_t p = 0; p < PAGES; p++)
		spare[p] = frame(p + 7) | USER_BITS;
	for (uint64_t n = 0; n < ROUNDS; n++) {
		pd[0] = n & 1 ? old : (uint64_t)spare | USER_BITS;
		kit_cr3(space);
		touch(PAGES, 1);
	}
	pd[0] = old;
	kit_cr3(space);
}

/* A table is taken out of use and filled as plain memory, then is a table again. */
static void reuse(void)
{
	uint64_t old = *pd;

	for (uint64_t n = 0; n < ROUNDS; n++) {
		pd[0] = 0;
		kit_cr3(space);
		for (uint64_t k = 0; k < 512; k++)
			((volatile uint64_t *)table)[k] = (k * n) << 1;
		for (uint64_t k = 0; k < 512; k++)
			sum = sum * 31 + table[k];
		for (uint64_t k = 0; k < 512; k++)
			table[k] = k < PAGES ? frame(k) | USER_BITS : 0;
		pd[0] = old;
		kit_cr3(space);
		touch(PAGES, 1);
	}
}

/* All goes. */
static void unmap(void)
{
	for (uint64_t p = 0; p < PAGES; p++)
		table[p] = 0;
	pd[0] = 0;
	kit_cr3(other);
	touch(1, 1);
}

int payload(const char *cmdline)
{
	static void (*const phases[])(void) = {build,	      rewrite_invlpg, rewrite_cr3, age,
					       switch_spaces, rewrite_pd,     reuse,	   unmap};

	setup();
	kit_device(KIT_PHASE, 0);
	for (unsigned k = 0; k < sizeof(phases) / sizeof(phases[0]); k++) {
		phases[k]();
		kit_device(KIT_PHASE, k + 1);
	}
	kit_result("sum", sum);
	return 0;
}
