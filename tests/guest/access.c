/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every form of instruction with which guests touch ports and device memory, and what each reads.
 */
#include "kit/kit.h"

#define MMIO  0xff000000ull /* plain memory, by exits */
#define NONE  0xd0000000ull /* nothing answers */
#define LATCH 0xe0

static uint64_t sum = 0xcbf29ce484222325ull;

static void add(const char *what, uint64_t value)
{
	sum = (sum ^ value) * 0x100000001b3ull;
	kit_text(what);
	kit_text(" ");
	kit_hex(value);
	kit_text("\n");
}

static void moves(void)
{
	uint64_t at = MMIO + 0x100, v;

	asm volatile("movb $0x81, (%0); movw $0x8283, 2(%0); movl $0x84858687, 4(%0)" ::"r"(at)
		     : "memory");
	asm volatile("movq %1, 8(%0)" ::"r"(at), "r"(0x88898a8b8c8d8e8full) : "memory");
	asm volatile("movq (%1), %0" : "=r"(v) : "r"(at));
	add("mov", v);
	asm volatile("xor %0, %0; movb 8(%1), %b0" : "=&q"(v) : "r"(at));
	add("mov byte", v);
	asm volatile("xor %0, %0; movw 10(%1), %w0" : "=&q"(v) : "r"(at));
	add("mov word", v);
	asm volatile("movl 12(%1), %k0" : "=r"(v) : "r"(at));
	add("mov dword", v);
	asm volatile("movzbl 4(%1), %k0" : "=r"(v) : "r"(at));
	add("movzx byte", v);
	asm volatile("movsbq 4(%1), %0" : "=r"(v) : "r"(at));
	add("movsx byte", v);
	asm volatile("movzwl 4(%1), %k0" : "=r"(v) : "r"(at));
	add("movzx word", v);
	asm volatile("movswq 4(%1), %0" : "=r"(v) : "r"(at));
	add("movsx word", v);
	asm volatile("movslq 4(%1), %0" : "=r"(v) : "r"(at));
	add("movsxd", v);
	asm volatile("movabs %1, %%rax; mov %%rax, %0" : "=r"(v) : "i"(MMIO + 0x108) : "rax");
	add("moffs", v);
	asm volatile("movq 5(%1), %0" : "=r"(v) : "r"(at));
	add("misaligned", v);
	asm volatile("movl %k1, 0x3e(%0)" ::"r"(at), "r"(0x11223344) : "memory");
	asm volatile("movq 0x3c(%1), %0" : "=r"(v) : "r"(at));
	add("misaligned write", v);
}

static void arithmetic(void)
{
	uint64_t at = MMIO + 0x200, v = 0, flags;

	asm volatile("movq %1, (%0)" ::"r"(at), "r"(0x0123456789abcdefull) : "memory");
	asm volatile(
		"addl $0x11111111, (%0); orb $0x80, 7(%0); andw $0xff0, 4(%0); xorl %k1, 4(%0)" ::
			"r"(at),
		"r"(0x5a5a5a5a)
		: "memory");
	add("add or and xor", *kit_at(at));
	asm volatile("incb (%0); decl 4(%0); negw 2(%0); notb 6(%0); subq %1, (%0)" ::"r"(at),
		     "r"(0x1000ull)
		     : "memory");
	add("inc dec neg not sub", *kit_at(at));
	asm volatile("shll $3, (%0); sarw $2, 4(%0); rolb $1, 6(%0)" ::"r"(at) : "memory");
	add("shifts", *kit_at(at));
	v = 0x7766554433221100ull;
	asm volatile("xchg %0, (%1)" : "+r"(v) : "r"(at) : "memory");
	add("xchg reads", v);
	asm volatile("lock xaddl %k0, (%1)" : "+r"(v) : "r"(at) : "memory");
	add("xadd reads", (uint32_t)v);
	add("xadd writes", *kit_at(at));
	asm volatile("lock cmpxchgl %k2, (%1)"
		     :
		     : "a"((uint32_t)*kit_at(at)), "r"(at), "r"(0x99999999)
		     : "memory");
	add("cmpxchg, equal", *kit_at(at));
	asm volatile("lock btsl $5, (%1); lock btrl $3, 4(%1); btl $5, (%1); setc %b0"
		     : "+q"(v)
		     : "r"(at)
		     : "memory");
	add("bts btr", *kit_at(at));
	asm volatile("cmpl $0x7fffffff, (%1); pushfq; pop %0" : "=r"(flags) : "r"(at));
	add("cmp's flags", flags & 0x8d5);
	asm volatile("testb $0x81, 7(%1); pushfq; pop %0" : "=r"(flags) : "r"(at));
	add("test's flags", flags & 0x8c5);
	asm volatile("pushq (%1); popq %0" : "=r"(v) : "r"(at));
	add("push", v);
	asm volatile("pushq $0x77; popq 8(%1); movq 8(%1), %0" : "=r"(v) : "r"(at) : "memory");
	add("pop", v);
}

static uint8_t ram[4096] __attribute__((aligned(4096)));

static void strings(void)
{
	uint64_t at = MMIO + 0x300, to, from, n, v = 0;

	for (unsigned k = 0; k < 64; k++)
		ram[k] = (uint8_t)(k * 7 + 1);
	to = at, from = (uint64_t)ram, n = 37;
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
	add("rep movsb to it", *kit_at(at + 29));
	to = (uint64_t)ram + 128, from = at, n = 9;
	asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n)::"memory");
	for (unsigned k = 0; k < 36; k++)
		v = v * 31 + ram[128 + k];
	add("rep movsl from it", v);
	to = at + 0x80, n = 5;
	asm volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(0x1122334455667788ull) : "memory");
	add("rep stosq", *kit_at(at + 0xa0));
	from = at + 0x87;
	n = 3;
	asm volatile("std; lodsb; cld" : "+S"(from), "=a"(v));
	add("lodsb backward", v & 0xff);
	to = at + 0x80, from = (uint64_t)ram, n = 16;
	asm volatile("repe cmpsb" : "+D"(to), "+S"(from), "+c"(n)::"memory", "cc");
	add("repe cmpsb", n);
	to = at, n = 64;
	asm volatile("repne scasb" : "+D"(to), "+c"(n) : "a"(0x6a) : "memory", "cc");
	add("repne scasb", n);
}

static void nothing(void)
{
	uint64_t v;

	asm volatile("movq (%1), %0" : "=r"(v) : "r"(NONE));
	add("nothing reads", v);
	asm volatile("movq %1, (%0)" ::"r"(NONE), "r"(v) : "memory");
	asm volatile("xor %0, %0; inb %w1, %b0" : "=&a"(v) : "Nd"((uint16_t)0x1234));
	add("no port reads", v);
}

static void ports(void)
{
	uint64_t v = 0, at, n;

	asm volatile("outl %0, %1" ::"a"(0x89abcdef), "Nd"((uint16_t)LATCH));
	asm volatile("xor %k0, %k0; inb $0xe1, %b0" : "=&a"(v));
	add("inb", v);
	asm volatile("xor %k0, %k0; inw $0xe2, %w0" : "=&a"(v));
	add("inw", v);
	asm volatile("outb %b0, $0xe3" ::"a"(0x12));
	asm volatile("outw %w0, $0xe0" ::"a"(0x3456));
	asm volatile("inl $0xe0, %k0" : "=a"(v));
	add("inl", v);
	for (unsigned k = 0; k < 64; k++)
		ram[k] = (uint8_t)(k * 5 + 3);
	at = (uint64_t)ram, n = 10;
	asm volatile("rep outsl" : "+S"(at), "+c"(n) : "d"(LATCH) : "memory");
	add("rep outsl leaves", kit_in(LATCH));
	at = (uint64_t)ram + 256, n = 7;
	asm volatile("rep insw" : "+D"(at), "+c"(n) : "d"(LATCH) : "memory");
	add("rep insw", *(uint64_t *)(ram + 256 + 6));
	at = (uint64_t)ram + 300, n = 5;
	asm volatile("std; rep insb; cld" : "+D"(at), "+c"(n) : "d"(LATCH + 1) : "memory");
	add("rep insb backward", *(uint64_t *)(ram + 295));
	at = (uint64_t)ram + 7;
	asm volatile("outsb" : "+S"(at) : "d"(LATCH) : "memory");
	add("outsb leaves", kit_in(LATCH));
	/* Over a page's end, and a count of none. */
	at = (uint64_t)ram + 4090, n = 0;
	asm volatile("rep outsb" : "+S"(at), "+c"(n) : "d"(LATCH) : "memory");
	add("rep outsb of none", kit_in(LATCH));
}

int payload(const char *cmdline)
{
	moves();
	arithmetic();
	strings();
	nothing();
	ports();
	kit_text("all ");
	kit_hex(sum);
	kit_text("\n");
	return 0;
}
