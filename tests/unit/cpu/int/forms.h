/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes random cases of integer instructions in 64-bit mode. */
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

unsigned forms_count(void);
/* A case of form @n; pointers lead into or near the data pages at @data. */
void forms_make(unsigned n, uint64_t data, uint64_t *seed, struct form_case *f);
uint64_t forms_random(uint64_t *seed);

#endif
