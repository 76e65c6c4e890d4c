/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Work to run inside a guest, statically linked: "start NAME", work, "bench NAME NANOSECONDS". */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "compute.h"

static void integer_loop(void)
{
	uint64_t a = 1, b = 2, c = 3;

	for (unsigned k = 0; k < 25000000; k++) {
		a += b ^ k;
		b = (b << 5 | b >> 59) + c;
		c ^= a;
		if (c & 1)
			c += 7;
	}
	sink = a + b + c;
}

/* Dependent loads at random places of 64 MiB. */
static void memory_walk(void)
{
	enum { N = 64 * 1024 * 1024 / 64 };
	struct line {
		struct line *next;
		uint64_t pad[7];
	} *area = mmap(NULL, N * sizeof(*area), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);
	uint64_t at = 0;
	struct line *l;

	if (area == MAP_FAILED)
		return;
	for (uint64_t k = 0; k < N; k++) {
		uint64_t to = (at * 5 + 12345) % N; /* one cycle through all: N is a power of two */

		area[at].next = &area[to];
		at = to;
	}
	l = area;
	for (unsigned k = 0; k < 2000000; k++)
		l = l->next;
	sink = (uint64_t)(uintptr_t)l;
	munmap(area, N * sizeof(*area));
}

/* Two streams 32 MiB apart, which collide in a TLB indexed by low address bits. */
static void streams_32m(void)
{
	size_t apart = 32u << 20;
	uint8_t *area = mmap(NULL, apart + (4u << 20), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t sum = 0;

	if (area == MAP_FAILED)
		return;
	for (unsigned round = 0; round < 8; round++)
		for (size_t k = 0; k < 4u << 20; k += 8) {
			uint64_t v;

			memcpy(&v, area + k, 8);
			sum += v + round;
			memcpy(area + apart + k, &sum, 8);
		}
	sink = sum;
	munmap(area, apart + (4u << 20));
}

static void syscall_loop(void)
{
	for (unsigned k = 0; k < 400000; k++)
		syscall(SYS_getppid);
}

static void sieve_rounds(void)
{
	for (unsigned k = 0; k < 3; k++)
		sieve();
}

static void sha256_rounds(void)
{
	for (unsigned k = 0; k < 40; k++)
		sha256();
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} work[] = {
		{"integer-loop", integer_loop}, {"sieve", sieve_rounds},
		{"sha256", sha256_rounds},	{"memory-walk-64M", memory_walk},
		{"streams-32M", streams_32m},	{"syscall-loop", syscall_loop},
	};

	for (unsigned k = 0; k < sizeof(work) / sizeof(work[0]); k++) {
		uint64_t start;

		printf("start %s\n", work[k].name);
		fflush(stdout);
		start = now();
		work[k].run();
		printf("bench %s %llu\n", work[k].name, (unsigned long long)(now() - start));
		fflush(stdout);
	}
	return 0;
}
