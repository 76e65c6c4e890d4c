/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs one instruction on the host with all integer, x87, MMX, SSE and AVX registers as told. */
#ifndef UMBRA_TESTS_CPU_FP_NATIVE_H
#define UMBRA_TESTS_CPU_FP_NATIVE_H

#include "cpu/cpu.h"

/* At these addresses, in the host's process as in the tiny machine's memory. */
#define NATIVE_CODE	 0x100000ull
#define NATIVE_DATA	 0x200000ull
#define NATIVE_DATA_SIZE (2 * PAGE_SIZE) /* the pages around are not there */

struct native {
	uint64_t gpr[16]; /* RSP is the host's own */
	uint64_t rflags;
	uint64_t host_rsp;
	uint64_t pad[6];
	struct cpu_fx fx;
	uint64_t ymmh[16][2]; /* where the host has AVX */
	int vector; /* -1: none */
};

extern bool native_has_avx;
void native_init(void);
/* Take the signals that faults become; at the start of each test, as cmocka takes them then. */
void native_catch(void);
void native_run(struct native *n, const uint8_t *code, unsigned len);

#endif
