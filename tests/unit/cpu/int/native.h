/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs one 64-bit instruction on the host, with every register as told, and says what became of it. */
#ifndef UMBRA_TESTS_CPU_INT_NATIVE_H
#define UMBRA_TESTS_CPU_INT_NATIVE_H

#include "base/types.h"

struct native_regs {
	uint64_t gpr[16]; /* encoding order */
	uint64_t rflags;
	/* 0, or 1 + the vector of the exception it raised, with error code and CR2. */
	uint64_t fault, error, cr2;
};

void native_init(void);
/* Bytes of @code go to where the instruction runs; returns their address. */
uint64_t native_place(const uint8_t *code, unsigned len);
void native_run(struct native_regs *r);

#endif
