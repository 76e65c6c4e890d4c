/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes random cases of integer instructions, in 64- or 32-bit code. */
#ifndef UMBRA_TESTS_CPU_INT_FORMS_H
#define UMBRA_TESTS_CPU_INT_FORMS_H

#include "tests/unit/cpu/int/native.h"

/* Guest memory: two pages with room, before and after them nothing. */
#define FORMS_DATA_PAGES 2u

struct form_case {
	const char *name;
	uint8_t code[16];
	unsigned len;
	uint64_t undefined; /* flags the manual leaves open and that we do not take from the host */
	struct native_regs regs;
};

struct form_place {
	unsigned bits; /* 64, 32 */
	uint64_t data;
};

unsigned forms_count(void);
/* False when the form is not one of @bits. */
bool forms_has(unsigned n, unsigned bits);
/* A case of form @n; pointers lead into or near the data pages. */
void forms_make(unsigned n, const struct form_place *p, uint64_t *seed, struct form_case *f);
uint64_t forms_random(uint64_t *seed);

#endif
