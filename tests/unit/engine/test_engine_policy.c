/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The policy switched amid a run: memory and registers are those of an unswitched one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/cpu/common/tiny.h"
#include "engine/soft/soft_internal.h"
#include "tests/unit/engine/machine.h"

/*
 * Maps eight pages at M_FAR in turn, each time another frame, writes and reads through them, loads
 * CR3 now and then, and toggles CR0.WP; sums up what it sees. EBX: linear, EDI: entry.
 */
#define BODY(reg, ptr, entry)                                                                      \
	"mov $0x20000000, %" reg "bx; mov $2000, %ecx; xor %ebp, %ebp;"                            \
	"1: mov %ecx, %eax; and $7, %eax; mov %eax, %edx; shl $12, %edx;"                          \
	"lea (%" reg "bx, %" reg "dx), %" reg "si;"                                                \
	"mov %ecx, %edx; and $63, %edx; shl $12, %edx; add $0x300007, %edx;"                       \
	"mov %" ptr "dx, 0x40000(, %" reg "ax, " entry "); invlpg (%" reg "si);"                   \
	"mov %ecx, 16(%" reg "si); add 16(%" reg "si), %ebp; incl 0x200000;"                       \
	"test $31, %ecx; jnz 2f; mov %cr3, %" reg "ax; mov %" reg "ax, %cr3;"                      \
	"mov %cr0, %" reg "ax; xor $0x10000, %" reg "ax; mov %" reg "ax, %cr0;"                    \
	"2: add %ebp, 24(%" reg "si); dec %ecx; jnz 1b; hlt"
TINY_TEXT(work64, 64, BODY("r", "r", "8"));
TINY_TEXT(work_pae, 32, BODY("e", "e", "8"));
TINY_TEXT(work32, 32, BODY("e", "e", "4"));

struct outcome {
	uint64_t icount;
	struct cpu_state s;
	uint8_t ram[M_RAM];
};

/* @slice instructions between two switches; 0: none. */
static void run(enum m_mode mode, enum mmu_policy policy, uint64_t slice, struct outcome *out)
{
	static const struct {
		const uint8_t *code, *end;
	} work[] = {[M_LONG] = {work64, work64_end},
		    [M_PAE] = {work_pae, work_pae_end},
		    [M_32] = {work32, work32_end}};
	struct machine *m = m_create(&(struct m_options){.policy = policy});
	enum engine_exit exit;

	m_start(m, 0, mode, 0);
	m_code(m, 0, work[mode].code, work[mode].end);
	while ((exit = m->ops->vcpu_run(m_vcpu(m, 0), slice ? slice : ~0ull)) ==
	       ENGINE_EXIT_BUDGET) {
		policy = policy == MMU_POLICY_TDP ? MMU_POLICY_SHADOW : MMU_POLICY_TDP;
		assert_int_equal(m->ops->set_policy(m->vm, policy), 0);
		assert_int_equal(mmu_get_policy(m->mmu), policy);
	}
	assert_int_equal(exit, ENGINE_EXIT_HALT);
	out->icount = cpu_icount(m_vcpu(m, 0)->cpu);
	m->ops->vcpu_get_state(m_vcpu(m, 0), &out->s);
	memcpy(out->ram, m->ram, M_RAM);
	assert_int_equal(mmu_audit(m->mmu, NULL, 0), 0);
	m_destroy(m);
}

static void switched(enum m_mode mode)
{
	struct outcome *plain = malloc(sizeof(*plain)), *other = malloc(sizeof(*other));
	static const uint64_t slices[] = {0, 7, 100, 1013};

	assert_non_null(plain);
	assert_non_null(other);
	run(mode, MMU_POLICY_TDP, 0, plain);
	assert_int_equal(*(uint32_t *)(plain->ram + M_DATA), 2000);
	for (unsigned k = 0; k < 2 * ARRAY_SIZE(slices); k++) {
		run(mode, k & 1 ? MMU_POLICY_TDP : MMU_POLICY_SHADOW, slices[k / 2], other);
		assert_int_equal(other->icount, plain->icount);
		assert_memory_equal(other->s.gpr, plain->s.gpr, sizeof(plain->s.gpr));
		assert_int_equal(other->s.cr0, plain->s.cr0);
		assert_memory_equal(other->ram, plain->ram, M_RAM);
	}
	free(plain);
	free(other);
}

static void test_long(void **state)
{
	switched(M_LONG);
}

static void test_pae(void **state)
{
	switched(M_PAE);
}

static void test_32(void **state)
{
	switched(M_32);
}

TINY_TEXT(spin, 64, "1: incl (%rbx); jmp 1b");

/* A reset machine comes up under the policy of now; a wrong one is refused. */
static void test_reset(void **state)
{
	struct machine *m = m_create(&(struct m_options){.policy = MMU_POLICY_TDP});

	assert_int_equal(m->ops->set_policy(m->vm, (enum mmu_policy)7), -EINVAL);
	for (unsigned k = 0; k < 4; k++) {
		m_start(m, 0, M_LONG, 0);
		m_text(m, 0, spin);
		assert_int_equal(m->ops->vcpu_run(m_vcpu(m, 0), 1000), ENGINE_EXIT_BUDGET);
		assert_int_equal(cpu_controls(m_vcpu(m, 0)->cpu)->paging,
				 k & 1 ? CPU_PAGING_SHADOW : CPU_PAGING_TDP);
		assert_int_equal(
			m->ops->set_policy(m->vm, k & 1 ? MMU_POLICY_TDP : MMU_POLICY_SHADOW), 0);
	}
	m_destroy(m);
}

/* With the processor's log in use: under shadow writes are noticed by protection, and back. */
static void test_logged(void **state)
{
	struct machine *m = m_create(&(struct m_options){.policy = MMU_POLICY_TDP});
	struct dirty_client *c;
	gfn_t gfns[64];

	m_start(m, 0, M_LONG, 0);
	m_text(m, 0, spin);
	assert_int_equal(dirty_set_notice(m->mmu, DIRTY_NOTICE_PML), 0);
	assert_int_equal(dirty_client_create(m->mmu, "test", 0, &c), 0);
	assert_int_equal(dirty_client_watch(c, DIRTY_ALL_SLOTS), 0);
	for (unsigned k = 0; k < 20; k++) {
		bool found = false;
		ssize_t n;

		assert_int_equal(m->ops->vcpu_run(m_vcpu(m, 0), 100), ENGINE_EXIT_BUDGET);
		n = dirty_take(c, gfns, ARRAY_SIZE(gfns));
		for (ssize_t j = 0; j < n; j++)
			found |= gfns[j] == M_DATA >> PAGE_SHIFT;
		assert_true(found);
		assert_int_equal(
			m->ops->set_policy(m->vm, k & 1 ? MMU_POLICY_TDP : MMU_POLICY_SHADOW), 0);
		assert_int_equal(m->ops->vcpu_run(m_vcpu(m, 0), 100), ENGINE_EXIT_BUDGET);
	}
	dirty_client_destroy(c);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_long),   cmocka_unit_test(test_pae),
		cmocka_unit_test(test_32),     cmocka_unit_test(test_reset),
		cmocka_unit_test(test_logged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
