/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For tests of the system part: descriptors, an IDT whose handlers halt, one instruction at a time.
 */
#ifndef UMBRA_TESTS_CPU_SYS_H
#define UMBRA_TESTS_CPU_SYS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/cpu/common/tiny.h"

#define SYS_HANDLERS 0x120000ull /* HLT, 16 bytes apart, by vector */
#define SYS_FREE_SEL 0x70u	 /* the first selector after the tiny machine's */

/* Descriptors: access is byte 5, flags the upper nibble of byte 6 (G, D, L, AVL). */
uint64_t sys_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags);
uint64_t sys_gate(uint16_t sel, uint32_t off, unsigned access, unsigned count);
/* Put the descriptor for selector @sel; the GDT's limit is made wide enough. */
void sys_put_desc(struct tiny *t, unsigned sel, uint64_t d);
uint64_t sys_get_desc(const struct tiny *t, unsigned sel);

/* A mode with an IDT (or IVT) whose handlers are HLTs; ring 0's stack in the TSS. */
void sys_mode(struct tiny *t, enum tiny_mode mode, unsigned cpl);
/* Change a vector's gate: 8 bytes, or the first 8 of 16. */
void sys_put_gate(struct tiny *t, unsigned vector, uint64_t gate);
/* Load a data segment register from the GDT as MOV would have. */
void sys_load(struct tiny *t, unsigned seg, uint16_t sel);

uint64_t sys_get(const struct tiny *t, uint64_t at, unsigned size);
void sys_put(struct tiny *t, uint64_t at, uint64_t v, unsigned size);
/* The n-th word on the present stack. */
uint64_t sys_word(const struct tiny *t, unsigned n, unsigned size);

/*
 * One instruction at rip. SYS_DONE; or its fault as SYS_FAULT(vector, error), the handler then
 * stands after its HLT and the stack is the handler's; or SYS_EXIT(reason).
 */
#define SYS_DONE		 (-1)
#define SYS_FAULT(vector, error) ((int)(vector) << 16 | (int)(error))
#define SYS_EXIT(reason)	 (-1000 - (int)(reason))
int sys_one(struct tiny *t);
int sys_code(struct tiny *t, const void *bytes, unsigned len);
#define sys_asm(t, bytes) sys_code(t, bytes, sizeof(bytes) - 1)

#endif
