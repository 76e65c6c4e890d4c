/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs one instruction on the host, in 64- or 32-bit code, with every register as told. */
#ifndef UMBRA_TESTS_CPU_INT_NATIVE_H
#define UMBRA_TESTS_CPU_INT_NATIVE_H

#include "base/types.h"

struct native_regs {
	uint64_t gpr[16]; /* encoding order */
	uint64_t rflags;
	/* 0, or 1 + the vector of the exception it raised, with error code and CR2. */
	uint64_t fault, error, cr2;
};

/* @bits: 64 or 32, for all that follows. */
void native_init(unsigned bits);
/* Bytes of @code go to where the instruction runs; returns their address. */
uint64_t native_place(const uint8_t *code, unsigned len);
/* Where the jump behind the instruction leads. */
uint64_t native_end(void);
void native_run(struct native_regs *r);

#endif
