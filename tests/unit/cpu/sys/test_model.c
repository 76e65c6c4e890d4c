/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The processor model: leaves that guests rely on, masks, frequencies. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/cpu_model.h"

static struct cpu_cpuid leaves[ENGINE_CPUID_MAX];
static unsigned count;

static const struct cpu_cpuid *leaf(uint32_t n, uint32_t sub)
{
	for (unsigned k = 0; k < count; k++) {
		if (leaves[k].leaf == n &&
		    (leaves[k].subleaf == sub || leaves[k].subleaf == CPU_CPUID_ANY))
			return &leaves[k];
	}
	return NULL;
}

static void test_leaves(void **state)
{
	struct engine_cpu_model m;

	engine_cpu_model_init(&m, 3, 2100000000);
	count = engine_cpu_model_cpuid(&m, 2, leaves);
	assert_in_range(count, 20, ENGINE_CPUID_MAX);
	assert_memory_equal(&leaf(0, 0)->ebx, "Genu", 4);
	assert_memory_equal(&leaf(0, 0)->edx, "ineI", 4);
	assert_int_equal(leaf(1, 0)->ebx >> 24, 2);
	assert_int_equal(leaf(1, 0)->ebx >> 16 & 0xff, 4);
	assert_int_equal(leaf(0xb, 1)->eax, 2);
	assert_int_equal(leaf(0xb, 1)->ebx, 3);
	assert_int_equal(leaf(0xb, 0)->edx, 2);
	assert_int_equal(leaf(1, 0)->ecx & (BIT(5) | BIT(3)), 0); /* VMX, MONITOR */
	assert_int_equal(leaf(1, 0)->ecx >> 31, 1);
	assert_int_equal(leaf(0xa, 0)->eax, 0);
	assert_int_equal(leaf(7, 0)->ecx >> 16 & 1, 0);
	assert_int_equal(leaf(0x80000008, 0)->eax, 46 | 48 << 8);
	assert_memory_equal(&leaf(0x40000000, 0)->ebx, "UmbraUmbraUm", 12);
	assert_null(leaf(0x40000001, 0));
}

static void test_masks(void **state)
{
	struct engine_cpu_model m, before;
	const char *bad = NULL;

	engine_cpu_model_init(&m, 1, 2000000000);
	assert_int_equal(engine_cpu_model_mask(&m, "-pcid,+la57,-pku", NULL), 0);
	count = engine_cpu_model_cpuid(&m, 0, leaves);
	assert_int_equal(leaf(1, 0)->ecx >> 17 & 1, 0);
	assert_int_equal(leaf(7, 0)->ecx >> 16 & 1, 1);
	assert_int_equal(leaf(0x80000008, 0)->eax >> 8, 57);
	assert_int_equal(leaf(0xd, 0)->eax & X86_XCR0_PKRU, 0);
	assert_null(leaf(0xd, 9));
	before = m;
	assert_true(engine_cpu_model_mask(&m, "-smep,-nonsense", &bad) < 0);
	assert_string_equal(bad, "-nonsense");
	assert_true(engine_cpu_model_mask(&m, "smep", &bad) < 0);
	assert_memory_equal(&m, &before, sizeof(m));
}

static void test_words(void **state)
{
	static const char *const bad[] = {"vendor=", "vendor=Other", "maxphyaddr=31", "maxphyaddr=53",
					  "maxphyaddr=4x", "maxphyaddr=036", "-", ",", "vendor"};
	struct engine_cpu_model m;

	engine_cpu_model_init(&m, 2, 2000000000);
	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++)
		assert_int_equal(engine_cpu_model_mask(&m, bad[n], NULL), -EINVAL);
	assert_int_equal(engine_cpu_model_mask(&m, "vendor=AuthenticAMD,maxphyaddr=36,-sha", NULL), 0);
	count = engine_cpu_model_cpuid(&m, 1, leaves);
	assert_memory_equal(&leaf(0, 0)->ebx, "Auth", 4);
	assert_memory_equal(&leaf(0, 0)->edx, "enti", 4);
	assert_memory_equal(&leaf(0, 0)->ecx, "cAMD", 4);
	assert_int_equal(leaf(0x80000000u, 0)->ebx, leaf(0, 0)->ebx);
	assert_int_equal(leaf(0x80000008u, 0)->eax & 0xff, 36);
	assert_true(leaf(0x80000001u, 0)->edx & BIT(0));   /* the FPU, once more */
	assert_false(leaf(7, 0)->edx & (BIT(26) | BIT(29))); /* Intel's own */
	assert_int_equal(engine_cpu_model_mask(&m, "vendor=GenuineIntel", NULL), 0);
	count = engine_cpu_model_cpuid(&m, 1, leaves);
	assert_memory_equal(&leaf(0, 0)->ebx, "Genu", 4);
}

/* FMA, F16C, AVX2 and the XSAVE component come and go with AVX. */
static void test_avx(void **state)
{
	struct engine_cpu_model m;
	bool host = __builtin_cpu_supports("avx2");

	engine_cpu_model_init(&m, 1, 2000000000);
	count = engine_cpu_model_cpuid(&m, 0, leaves);
	assert_int_equal(leaf(1, 0)->ecx >> 28 & 1, host);
	assert_int_equal(leaf(7, 0)->ebx >> 5 & 1, host);
	assert_int_equal(leaf(0xd, 0)->eax, host ? 0x207 : 0x203);
	assert_int_equal(leaf(0xd, 0)->ecx, 576 + (host ? 256 : 0) + 8);
	assert_int_equal(leaf(0xd, 9)->ebx, 576 + (host ? 256 : 0));
	if (host) {
		assert_int_equal(leaf(0xd, 2)->eax, 256);
		assert_int_equal(leaf(0xd, 2)->ebx, 576);
	}
	assert_int_equal(engine_cpu_model_mask(&m, "-avx", NULL), 0);
	count = engine_cpu_model_cpuid(&m, 0, leaves);
	assert_int_equal(leaf(1, 0)->ecx & (BIT(12) | BIT(28) | BIT(29)), 0);
	assert_int_equal(leaf(7, 0)->ebx >> 5 & 1, 0);
	assert_int_equal(leaf(0xd, 0)->eax, 0x203);
	assert_null(leaf(0xd, 2));
}

/* Linux: crystal kHz * numerator, in 32 bits, / denominator; within 1 ppm. */
static void test_frequency(void **state)
{
	static const uint64_t hz[] = {1000000000, 2000000000, 2099997000,
				      2595124000, 3700001000, 5123457000};
	struct engine_cpu_model m;

	for (unsigned n = 0; n < ARRAY_SIZE(hz); n++) {
		uint64_t khz, product, off;

		engine_cpu_model_init(&m, 1, hz[n]);
		count = engine_cpu_model_cpuid(&m, 0, leaves);
		product = (uint64_t)leaf(0x15, 0)->ecx / 1000 * leaf(0x15, 0)->ebx;
		assert_true(product <= UINT32_MAX);
		khz = product / leaf(0x15, 0)->eax;
		off = khz > hz[n] / 1000 ? khz - hz[n] / 1000 : hz[n] / 1000 - khz;
		assert_true(off * 1000000 <= hz[n] / 1000 * 1 + 1000000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaves),
		cmocka_unit_test(test_masks),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_avx),
		cmocka_unit_test(test_frequency),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
