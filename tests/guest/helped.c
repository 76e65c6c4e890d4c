/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* In kernel mode, instructions that a KVM which emulates may not know; prints what they gave. */
#include "kit/kit.h"

static uint64_t popcnt(uint64_t v)
{
	uint64_t n;

	asm("popcnt %1, %0" : "=r"(n) : "r"(v) : "cc");
	return n;
}

/* The pair that it finds, with the other in its place when that was what it wanted. */
static bool swap_pair(uint64_t pair[2], uint64_t want[2], uint64_t lo, uint64_t hi)
{
	bool done;

	asm volatile("lock cmpxchg16b %1"
		     : "=@ccz"(done), "+m"(*(uint64_t(*)[2])pair), "+a"(want[0]), "+d"(want[1])
		     : "b"(lo), "c"(hi));
	return done;
}

static void swaps(void)
{
	static uint64_t pair[2] __attribute__((aligned(16))) = {1, 2};
	uint64_t want[2] = {1, 2};
	bool first = swap_pair(pair, want, 3, 4), second = swap_pair(pair, want, 5, 6);

	kit_result("pair 1", first);
	kit_result("pair 2", second);
	kit_result("pair low", pair[0] << 8 | want[0]);
	kit_result("pair high", pair[1] << 8 | want[1]);
}

/* Floating point as a kernel may use it: x87, then a row of vector instructions in a loop. */
static void numbers(void)
{
	static uint32_t words[64] __attribute__((aligned(16)));
	static uint32_t mxcsr = 0x1fa0, back;
	uint64_t cr4, sum = 0;
	static uint64_t pi;

	asm volatile("mov %%cr4, %0" : "=r"(cr4));
	asm volatile("mov %0, %%cr4" ::"r"(cr4 | 3 << 9));
	asm volatile("fninit; fldpi; fstpl %0; fwait" : "=m"(pi));
	kit_result("pi", pi);
	asm volatile("ldmxcsr %1; stmxcsr %0" : "=m"(back) : "m"(mxcsr));
	kit_result("mxcsr", back);
	for (uint32_t k = 0; k < 64; k++)
		words[k] = k * 0x9e3779b9;
	asm volatile(
		"pxor %%xmm0, %%xmm0; mov $16, %%ecx; mov %0, %%rsi\n"
		"1: movdqa (%%rsi), %%xmm1; pshufd $0x1b, %%xmm1, %%xmm1; paddd %%xmm1, %%xmm0\n"
		"pxor %%xmm0, %%xmm1; movdqa %%xmm1, (%%rsi); add $16, %%rsi; dec %%ecx; jnz 1b" ::
			"r"(words)
		: "rcx", "rsi", "memory", "cc");
	for (unsigned k = 0; k < 64; k++)
		sum = sum * 31 + words[k];
	kit_result("vectors", sum);
}

int payload(const char *cmdline)
{
	uint64_t n = 0;

	for (uint64_t k = 0; k < 500; k++)
		n = n * 31 + popcnt(k * 0x9e3779b97f4a7c15);
	kit_result("popcnt", n);
	swaps();
	numbers();
	return 0;
}
