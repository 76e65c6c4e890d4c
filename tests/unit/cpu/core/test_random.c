/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random bytes as code, in every mode: whatever a guest executes, the processor stays whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpu_internal.h"
#include "tests/unit/cpu/common/tiny.h"

static uint64_t log_page[CPU_PML_ENTRIES];

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Opcodes that random bytes seldom begin with. */
static void garnish(uint8_t *code, unsigned len)
{
	static const uint8_t first[] = {0x0f, 0x66, 0xf3, 0xf2, 0x48, 0x67, 0xf0, 0xc7, 0xff, 0xd9, 0xdd};

	for (unsigned n = 0; n < len; n++) {
		code[n] = (uint8_t)rnd();
		if (rnd() % 4 == 0)
			code[n] = first[rnd() % sizeof(first)];
	}
}

static uint64_t random_value(void)
{
	switch (rnd() % 4) {
	case 0: return rnd();
	case 1: return rnd() % MIB(64);
	case 2: return TINY_DATA + rnd() % 8192;
	default: return rnd() % 256;
	}
}

static void random_state(struct tiny *t, enum tiny_mode mode)
{
	uint64_t rsp = t->s->gpr[X86_RSP];

	for (unsigned r = 0; r < 16; r++)
		t->s->gpr[r] = mode == TINY_LONG ? random_value() : (uint32_t)random_value();
	if (rnd() % 4)
		t->s->gpr[X86_RSP] = rsp;
	t->s->rflags = (rnd() & (X86_FLAGS_ARITH | X86_FLAG_DF | X86_FLAG_AC | X86_FLAG_IF)) | X86_FLAG_ONE;
	if (rnd() % 16 == 0)
		t->s->rflags |= X86_FLAG_TF;
	if (rnd() % 16 == 0)
		t->s->rflags |= X86_FLAG_IOPL | X86_FLAG_NT;
	if (rnd() % 8 == 0)
		t->s->cr0 |= X86_CR0_AM;
	if (rnd() % 16 == 0) {
		t->s->dr7 |= rnd() & 0xffff00ff;
		t->s->dr[rnd() % 4] = TINY_DATA + rnd() % 64;
	}
	t->c->exception_bitmap = rnd() % 2 ? ~0u : 0;
	t->c->pf_error_mask = 0;
	t->c->pf_error_match = rnd() % 2;
	t->c->exits = rnd() & rnd();
	t->c->pml = log_page;
	t->c->pml_index = (uint16_t)(rnd() % (CPU_PML_ENTRIES + 2) - 2); /* full: beyond the end */
	cpu_state_changed(t->cpu);
}

/* What L0 would do, roughly. */
static void after_exit(struct tiny *t, enum cpu_exit_reason reason)
{
	switch (reason) {
	case CPU_EXIT_IO: cpu_complete_in(t->cpu, (uint32_t)rnd()); cpu_skip(t->cpu); break;
	case CPU_EXIT_EXCEPTION:
	case CPU_EXIT_TDP_VIOLATION:
	case CPU_EXIT_TDP_MISCONFIG:
	case CPU_EXIT_PML_FULL:
		cpu_inject_exception(t->cpu, (uint8_t)(rnd() % 20), false, 0);
		break;
	default: cpu_skip(t->cpu); break;
	}
	t->s->activity = CPU_ACTIVE;
	t->s->event.valid = t->s->event.valid && rnd() % 2;
}

static void one_case(struct tiny *t)
{
	enum tiny_mode mode = (enum tiny_mode)(rnd() % (TINY_LONG + 1));
	uint8_t code[256];

	tiny_mode(t, mode, mode == TINY_REAL ? 0 : rnd() % 2 * 3);
	random_state(t, mode);
	garnish(code, sizeof(code));
	if (rnd() % 4 == 0)
		t->s->rip += 0x1000 - 5; /* across the page's end */
	tiny_code(t, code, sizeof(code));
	/* An IDT of noise. */
	for (unsigned n = 0; n < 512; n++)
		((uint64_t *)(t->mem + TINY_IDT))[n] = rnd() % 2 ? rnd() : 0x00108e0000080000 | (rnd() & 0xffff);
	for (unsigned n = 0; n < 6; n++)
		after_exit(t, tiny_run(t, 40));
}

static void test_random(void **state)
{
	const char *more = getenv("UMBRA_RANDOM_CASES");
	unsigned cases = more ? (unsigned)atoi(more) : 20000;
	struct tiny *t = tiny_create(MIB(64), 21);

	for (unsigned n = 0; n < cases; n++)
		one_case(t);
	assert_true(cpu_stats(t->cpu)->blocks_decoded > 0);
	tiny_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
