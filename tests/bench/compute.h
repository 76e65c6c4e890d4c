/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Work for the processor alone, part of the programs that run inside a guest. */
#ifndef UMBRA_TESTS_BENCH_COMPUTE_H
#define UMBRA_TESTS_BENCH_COMPUTE_H

#include <stdint.h>
#include <string.h>

/* What keeps the compiler from leaving the work out. */
static volatile uint64_t sink;

/* Of 4 million numbers. */
static void sieve(void)
{
	enum { N = 4000000 };
	static uint8_t composite[N];
	unsigned count = 0;

	memset(composite, 0, sizeof(composite));
	for (unsigned k = 2; k < N; k++) {
		if (composite[k])
			continue;
		count++;
		for (unsigned j = 2 * k; j < N; j += k)
			composite[j] = 1;
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

/* Of 64 KiB. */
static void sha256(void)
{
	static uint8_t data[64 * 1024];
	uint32_t h[8] = {1, 2, 3, 4, 5, 6, 7, 8};

	for (size_t at = 0; at < sizeof(data); at += 64)
		sha256_block(h, data + at);
	sink = h[0];
}

#endif
