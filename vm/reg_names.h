/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of registers and of their bits, for whoever shows them. */
#ifndef UMBRA_VM_REG_NAMES_H
#define UMBRA_VM_REG_NAMES_H

#include "base/types.h"

/* A flag of a register; a table of them ends with a NULL name, lowest bit first. */
struct reg_bit {
	const char *name;
	uint8_t bit;
};

extern const struct reg_bit reg_rflags_bits[];
extern const struct reg_bit reg_cr0_bits[];
extern const struct reg_bit reg_cr4_bits[];
extern const struct reg_bit reg_efer_bits[];
extern const struct reg_bit reg_xcr0_bits[];
extern const struct reg_bit reg_dr6_bits[];
extern const struct reg_bit reg_dr7_bits[];
extern const struct reg_bit reg_mxcsr_bits[];

/* In encoding order, as in struct cpu_state. */
extern const char *const reg_gpr_names[16];
extern const char *const reg_seg_names[6];

#endif
