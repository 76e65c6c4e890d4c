/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The core of the processor: blocks, TLB, walker, code that changes, events between instructions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/cpu/common/tiny.h"

static void test_long_loop(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);

	tiny_mode(t, TINY_LONG, 0);
	/* mov ecx,1000; xor eax,eax; l: add rax,rcx; dec ecx; jnz l; hlt */
	tiny_asm(t, "\xb9\xe8\x03\x00\x00\x31\xc0\x48\x01\xc8\xff\xc9\x75\xf9\xf4");
	assert_int_equal(tiny_run(t, 100000), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 500500);
	assert_int_equal(cpu_icount(t->cpu), 2 + 3000 + 1);
	assert_int_equal(t->s->rip, TINY_CODE + 15);
	tiny_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_long_loop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
