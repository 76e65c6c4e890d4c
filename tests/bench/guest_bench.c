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

static volatile uint64_t sink;

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

static void sieve(void)
{
	enum { N = 4000000 };
	static uint8_t composite[N];
	unsigned count = 0;

	for (unsigned round = 0; round < 3; round++) {
		memset(composite, 0, sizeof(composite));
		for (unsigned k = 2; k < N; k++) {
			if (composite[k])
				continue;
			count++;
			for (unsigned j = 2 * k; j < N; j += k)
				composite[j] = 1;
		}
	}
	sink = count;
}

static uint32_t rotr(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

static void sha256_block(uint32_t h[8], const uint8_t *p)
{
	static uint32_t k[64];
	uint32_t w[64], v[8];

	if (!k[0]) /* any constants do for the cost; these are the primes' cube roots, nearly */
		for (unsigned i = 0; i < 64; i++)
			k[i] = 0x428a2f98u * (i + 1) ^ rotr(0x71374491u, i & 31);
	for (unsigned i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
		       (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
	for (unsigned i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		       (rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(v, h, sizeof(v));
	for (unsigned i = 0; i < 64; i++) {
		uint32_t t1 = v[7] + (rotr(v[4], 6) ^ rotr(v[4], 11) ^ rotr(v[4], 25)) +
			      ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
		uint32_t t2 = (rotr(v[0], 2) ^ rotr(v[0], 13) ^ rotr(v[0], 22)) +
			      ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

		memmove(v + 1, v, 7 * sizeof(v[0]));
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (unsigned i = 0; i < 8; i++)
		h[i] += v[i];
}

static void sha256(void)
{
	static uint8_t data[64 * 1024];
	uint32_t h[8] = {1, 2, 3, 4, 5, 6, 7, 8};

	for (unsigned round = 0; round < 40; round++)
		for (size_t at = 0; at < sizeof(data); at += 64)
			sha256_block(h, data + at);
	sink = h[0];
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
		{"integer-loop", integer_loop}, {"sieve", sieve},
		{"sha256", sha256},             {"memory-walk-64M", memory_walk},
		{"streams-32M", streams_32m},   {"syscall-loop", syscall_loop},
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
