/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which forms that cannot run natively at CPL 3 ran against the manual's vectors in tests/unit/cpu. */
#include "tests/diff/diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One instruction that a unit test ran: a line "BITS HEX TEST" of what tiny_run() notes. */
static bool read_vector(FILE *in, enum diff_mode *mode, uint8_t bytes[16], char test[64])
{
	char hex[40];
	unsigned bits;

	if (fscanf(in, "%u %39s %63s", &bits, hex, test) != 3)
		return false;
	*mode = bits == 64 ? DIFF_64 : bits == 32 ? DIFF_32 : DIFF_16;
	memset(bytes, 0, 16);
	for (unsigned k = 0; k < 15 && hex[2 * k] && hex[2 * k + 1]; k++) {
		unsigned byte = 0;

		sscanf(hex + 2 * k, "%2x", &byte);
		bytes[k] = (uint8_t)byte;
	}
	return true;
}

static void count_vector(struct diff_forms *forms, enum diff_mode mode, const uint8_t *bytes,
			 const char *test)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t key;

	if (!diff_decode(mode, bytes, &zi, op, &key))
		return;
	for (size_t k = 0; k < forms[mode].count; k++) {
		struct diff_form *f = &forms[mode].form[k];

		if (f->key != key)
			continue;
		f->vectors++;
		if (!strstr(f->tests, test) && strlen(f->tests) + strlen(test) + 2 < sizeof(f->tests)) {
			strcat(f->tests, " ");
			strcat(f->tests, test);
		}
		return;
	}
}

static bool needs_vectors(const struct diff_form *f)
{
	return f->privileged || f->excluded;
}

/* The handlers are chosen by mnemonic: how many vectors its other forms and modes had. */
static unsigned long of_mnemonic(const struct diff_forms *forms, unsigned mnemonic)
{
	unsigned long n = 0;

	for (unsigned mode = 0; mode < DIFF_MODES; mode++)
		for (size_t k = 0; k < forms[mode].count; k++)
			if (forms[mode].form[k].mnemonic == mnemonic)
				n += forms[mode].form[k].vectors;
	return n;
}

struct vector_totals {
	unsigned long forms, covered, cases, related, none;
};

static void tell_form(const struct diff_forms *forms, const struct diff_form *f, const char *bits,
		      struct vector_totals *t)
{
	unsigned long related = of_mnemonic(forms, f->mnemonic);

	t->forms++;
	t->cases += f->vectors;
	if (f->vectors) {
		t->covered++;
		printf("covered     %s-bit %-36s %4lu cases:%s\n", bits, f->text, f->vectors, f->tests);
	} else if (related) {
		t->related++;
		printf("not covered %s-bit %-36s its mnemonic's other forms had %lu cases\n", bits, f->text,
		       related);
	} else {
		t->none++;
		printf("not covered %s-bit %-36s no vector of its mnemonic%s\n", bits, f->text,
		       f->excluded ? "" : "; natively compared where it faults at CPL 3");
	}
}

int diff_vectors_tell(const char *path)
{
	static const char *const bits[] = {"64", "32", "16"};
	struct diff_forms forms[DIFF_MODES] = {0};
	struct vector_totals t = {0};
	FILE *in = fopen(path, "r");
	uint8_t bytes[16];
	enum diff_mode mode;
	char test[64];

	if (!in) {
		perror(path);
		return 66;
	}
	for (unsigned m = 0; m < DIFF_MODES; m++)
		diff_forms_find(m, &forms[m]);
	while (read_vector(in, &mode, bytes, test))
		count_vector(forms, mode, bytes, test);
	fclose(in);
	for (unsigned m = 0; m < DIFF_MODES; m++)
		for (size_t k = 0; k < forms[m].count; k++)
			if (needs_vectors(&forms[m].form[k]))
				tell_form(forms, &forms[m].form[k], bits[m], &t);
	printf("privileged and system: %lu forms, %lu covered by vectors (%lu cases), %lu by other forms of "
	       "their mnemonic, %lu not\n",
	       t.forms, t.covered, t.cases, t.related, t.none);
	for (unsigned m = 0; m < DIFF_MODES; m++)
		free(forms[m].form);
	return t.none ? 1 : 0;
}
