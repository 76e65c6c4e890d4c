/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What other threads ask of a vCPU that runs: flushes, modification logs, room in a ring, stops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "tests/unit/cpu/common/tiny.h"
#include "engine/soft/soft_internal.h"
#include "tests/unit/engine/machine.h"

#define EXTRA	  0x8000000ull /* a slot of its own */
#define EXTRA_ID  5
#define EXTRA_LEN MIB(2)

struct runner {
	struct machine *m;
	unsigned vcpu;
	pthread_t thread;
	enum engine_exit exit;
	bool done; /* atomic */
};

static void *runner_main(void *arg)
{
	struct runner *r = arg;

	r->exit = r->m->ops->vcpu_run(m_vcpu(r->m, r->vcpu), ~0ull);
	__atomic_store_n(&r->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void runner_start(struct runner *r, struct machine *m, unsigned vcpu)
{
	*r = (struct runner){.m = m, .vcpu = vcpu};
	assert_int_equal(pthread_create(&r->thread, NULL, runner_main, r), 0);
}

static enum engine_exit runner_join(struct runner *r)
{
	pthread_join(r->thread, NULL);
	return r->exit;
}

static enum engine_exit runner_stop(struct runner *r)
{
	r->m->ops->vcpu_kick(m_vcpu(r->m, r->vcpu));
	return runner_join(r);
}

static uint32_t look(const void *at)
{
	return __atomic_load_n((const uint32_t *)at, __ATOMIC_SEQ_CST);
}

static void until_beyond(const void *at, uint32_t value)
{
	while (look(at) <= value)
		sched_yield();
}

static void stats_of(struct machine *m, unsigned n, struct engine_vcpu_stats *st)
{
	m->ops->vcpu_stats(m_vcpu(m, n), st);
}

TINY_TEXT(count, 64, "1: lock incl (%rbx); jmp 1b");

/* ---- flushes -------------------------------------------------------------------------------- */

static uint8_t *add_extra(struct machine *m)
{
	struct slot_desc slot = {.id = EXTRA_ID, .gpa = EXTRA, .size = EXTRA_LEN};

	slot.host =
		mmap(NULL, EXTRA_LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(slot.host, MAP_FAILED);
	assert_int_equal(slot_add(m->mmu, &slot), 0);
	return slot.host;
}

/*
 * Slots go away under a vCPU that writes to them without cease: once slot_delete() is back not one
 * more write may reach the memory.
 */
static void delete_under(enum mmu_policy policy)
{
	struct machine *m = m_create(&(struct m_options){.policy = policy});
	struct engine_vcpu_stats st;
	struct runner r;

	m_start(m, 0, M_LONG, 0);
	m_state(m, 0)->gpr[X86_RBX] = EXTRA;
	m_text(m, 0, count);
	runner_start(&r, m, 0);
	for (unsigned k = 0; k < 20; k++) {
		uint8_t *host = add_extra(m);
		uint32_t last, mmio;

		until_beyond(host, 100);
		assert_int_equal(slot_delete(m->mmu, EXTRA_ID), 0);
		last = look(host);
		mmio = look(&m->mmio_count);
		until_beyond(&m->mmio_count, mmio + 2);
		assert_int_equal(look(host), last);
		munmap(host, EXTRA_LEN);
	}
	assert_int_equal(runner_stop(&r), ENGINE_EXIT_KICK);
	stats_of(m, 0, &st);
	assert_true(st.tlb_flush_asked >= 20);
	assert_true(st.tlb_flush_ipis <= st.tlb_flush_asked);
	m_destroy(m);
}

static void test_delete_shadow(void **state)
{
	delete_under(MMU_POLICY_SHADOW);
}

static void test_delete_tdp(void **state)
{
	delete_under(MMU_POLICY_TDP);
}

/* Rounds in which a protected page is made writable by vCPU 1 alone; what vCPU 0 was asked. */
static uint64_t asked_of_bystander(uint32_t disable)
{
	struct machine *m = m_create(
		&(struct m_options){.policy = MMU_POLICY_SHADOW, .vcpus = 2, .disable = disable});
	struct engine_vcpu_stats before, after;
	struct dirty_client *c;
	struct runner r;
	gfn_t gfns[16];

	/*
	 * Each in tables of its own: the bystander's are copies. The page comes by a 4-KiB entry:
	 * what we build below a large guest page is shared by all who map it.
	 */
	m_start(m, 0, M_LONG, 0);
	m_text(m, 0, count);
	memcpy(m->ram + 0x50000, m->ram + M_TABLES, 0x3000);
	*(uint64_t *)(m->ram + 0x50000) = 0x51007;
	*(uint64_t *)(m->ram + 0x51000) = 0x52007;
	m_state(m, 0)->cr3 = 0x50000;
	m_state(m, 0)->gpr[X86_RBX] = M_DATA + 0x100000;
	m->ops->vcpu_set_state(m_vcpu(m, 0), m_state(m, 0));
	m_start(m, 1, M_LONG, 0);
	m_state(m, 1)->gpr[X86_RBX] = M_FAR;
	m_map(m, 0, (M_DATA + 0x4000) | 7);
	assert_int_equal(m->ops->vcpu_run(m_vcpu(m, 0), 1000), ENGINE_EXIT_BUDGET);
	assert_int_equal(dirty_client_create(m->mmu, "test", 0, &c), 0);
	assert_int_equal(dirty_client_watch(c, 0), 0);
	runner_start(&r, m, 1);
	until_beyond(m->ram + M_DATA + 0x4000, 100);
	stats_of(m, 0, &before);
	for (unsigned k = 0; k < 20; k++) {
		uint32_t seen;

		dirty_take(c, gfns, ARRAY_SIZE(gfns));
		seen = look(m->ram + M_DATA + 0x4000);
		until_beyond(m->ram + M_DATA + 0x4000, seen + 10);
	}
	stats_of(m, 0, &after);
	runner_stop(&r);
	dirty_client_destroy(c);
	m_destroy(m);
	return after.tlb_flush_asked - before.tlb_flush_asked;
}

static void test_targeted(void **state)
{
	assert_int_equal(asked_of_bystander(0), 0);
	assert_true(asked_of_bystander(MMU_NO_TARGETED) >= 20);
}

/* ---- the modification log ------------------------------------------------------------------- */

TINY_TEXT(touch_pages, 64,
	  "mov $0x400000, %edi; 1: incl (%rdi); add $0x1000, %edi;"
	  "dec %ecx; jnz 1b; hlt");

static struct machine *logged_machine(struct dirty_client **c)
{
	struct machine *m = m_create(&(struct m_options){.policy = MMU_POLICY_TDP});

	m_start(m, 0, M_LONG, 0);
	assert_int_equal(dirty_set_notice(m->mmu, DIRTY_NOTICE_PML), 0);
	assert_int_equal(dirty_client_create(m->mmu, "test", 0, c), 0);
	assert_int_equal(dirty_client_watch(*c, DIRTY_ALL_SLOTS), 0);
	return m;
}

/* More pages than the log has entries; all of them are told, and only logged ones faulted. */
static void test_pml(void **state)
{
	struct dirty_client *c;
	struct machine *m = logged_machine(&c);
	struct engine_vcpu_stats st;
	static gfn_t gfns[4096];
	static bool seen[8192];
	ssize_t n;

	/* Map them first, so that what follows is the processor's doing alone. */
	m_text(m, 0, touch_pages);
	m_state(m, 0)->gpr[X86_RCX] = 2000;
	assert_int_equal(m->ops->vcpu_run(m_vcpu(m, 0), ~0ull), ENGINE_EXIT_HALT);
	while (dirty_take(c, gfns, ARRAY_SIZE(gfns)) > 0)
		;
	stats_of(m, 0, &st);
	uint64_t full = st.pml_full, violations = st.cpu.exit_count[CPU_EXIT_TDP_VIOLATION];
	uint64_t entries = st.pml_entries;

	m_start(m, 0, M_LONG, 0);
	m_state(m, 0)->gpr[X86_RCX] = 2000;
	assert_int_equal(m->ops->vcpu_run(m_vcpu(m, 0), ~0ull), ENGINE_EXIT_HALT);
	stats_of(m, 0, &st);
	assert_true(st.pml_full - full >= 2000 / CPU_PML_ENTRIES);
	assert_true(st.pml_entries - entries >= 2000);
	assert_int_equal(st.cpu.exit_count[CPU_EXIT_TDP_VIOLATION], violations);
	while ((n = dirty_take(c, gfns, ARRAY_SIZE(gfns))) > 0)
		for (ssize_t k = 0; k < n; k++)
			seen[gfns[k]] = true;
	for (unsigned k = 0; k < 2000; k++)
		assert_true(seen[0x400 + k]);
	assert_false(seen[0x400 + 2000]);
	/* Back to protection: faults again, nothing in the log. */
	entries = st.pml_entries;
	assert_int_equal(dirty_set_notice(m->mmu, DIRTY_NOTICE_PROTECT), 0);
	m_start(m, 0, M_LONG, 0);
	m_state(m, 0)->gpr[X86_RCX] = 100;
	assert_int_equal(m->ops->vcpu_run(m_vcpu(m, 0), ~0ull), ENGINE_EXIT_HALT);
	stats_of(m, 0, &st);
	assert_int_equal(st.pml_entries, entries);
	assert_true(st.cpu.exit_count[CPU_EXIT_TDP_VIOLATION] > violations);
	dirty_client_destroy(c);
	m_destroy(m);
}

/*
 * A vCPU that never leaves guest mode by itself: whoever takes the log gets what it holds. The page
 * was written between two takings, so the second has to tell of it.
 */
static void test_pml_drained(void **state)
{
	struct dirty_client *c;
	struct machine *m = logged_machine(&c);
	const uint8_t *counter = m->ram + M_DATA;
	struct runner r;
	gfn_t gfns[64];

	m_text(m, 0, count);
	runner_start(&r, m, 0);
	until_beyond(counter, 100);
	for (unsigned k = 0; k < 200; k++) {
		uint32_t before;
		bool found = false;
		ssize_t n;

		while (dirty_take(c, gfns, ARRAY_SIZE(gfns)) == ARRAY_SIZE(gfns))
			;
		before = look(counter);
		until_beyond(counter, before + 10);
		n = dirty_take(c, gfns, ARRAY_SIZE(gfns));
		for (ssize_t j = 0; j < n; j++)
			found |= gfns[j] == M_DATA >> PAGE_SHIFT;
		assert_true(found);
	}
	assert_int_equal(runner_stop(&r), ENGINE_EXIT_KICK);
	dirty_client_destroy(c);
	m_destroy(m);
}

/* ---- a full ring ---------------------------------------------------------------------------- */

static void until_waiting(struct machine *m)
{
	while (!__atomic_load_n(&m_vcpu(m, 0)->waiting, __ATOMIC_SEQ_CST))
		sched_yield();
}

static void ring(enum mmu_policy policy)
{
	struct machine *m = m_create(&(struct m_options){.policy = policy});
	static gfn_t gfns[4096];
	struct dirty_client *c;
	bool seen[8192] = {false};
	struct runner r;
	ssize_t n;

	m_start(m, 0, M_LONG, 0);
	assert_int_equal(dirty_client_create(m->mmu, "test", 0, &c), 0);
	assert_int_equal(dirty_client_watch(c, DIRTY_ALL_SLOTS), 0);
	assert_int_equal(dirty_ring_enable(c, 64), 0);
	m_text(m, 0, touch_pages);
	m_state(m, 0)->gpr[X86_RCX] = 1000;
	runner_start(&r, m, 0);
	until_waiting(m);
	assert_false(__atomic_load_n(&r.done, __ATOMIC_SEQ_CST));
	/* It can be stopped while it waits, and waits again. */
	assert_int_equal(runner_stop(&r), ENGINE_EXIT_KICK);
	runner_start(&r, m, 0);
	until_waiting(m);
	/* With room it goes on, to its end. */
	while (!__atomic_load_n(&r.done, __ATOMIC_SEQ_CST)) {
		n = dirty_take(c, gfns, ARRAY_SIZE(gfns));
		for (ssize_t k = 0; k < n; k++)
			seen[gfns[k]] = true;
	}
	assert_int_equal(runner_join(&r), ENGINE_EXIT_HALT);
	while ((n = dirty_take(c, gfns, ARRAY_SIZE(gfns))) > 0)
		for (ssize_t k = 0; k < n; k++)
			seen[gfns[k]] = true;
	for (unsigned k = 0; k < 1000; k++)
		assert_true(seen[0x400 + k]);
	dirty_client_destroy(c);
	m_destroy(m);
}

static void test_ring_shadow(void **state)
{
	ring(MMU_POLICY_SHADOW);
}

static void test_ring_tdp(void **state)
{
	ring(MMU_POLICY_TDP);
}

/* The consumer goes away: the vCPU goes on without it. */
static void test_ring_ends(void **state)
{
	struct machine *m = m_create(&(struct m_options){.policy = MMU_POLICY_TDP});
	struct dirty_client *c;
	struct runner r;

	m_start(m, 0, M_LONG, 0);
	assert_int_equal(dirty_client_create(m->mmu, "test", 0, &c), 0);
	assert_int_equal(dirty_client_watch(c, DIRTY_ALL_SLOTS), 0);
	assert_int_equal(dirty_ring_enable(c, 64), 0);
	m_text(m, 0, touch_pages);
	m_state(m, 0)->gpr[X86_RCX] = 1000;
	runner_start(&r, m, 0);
	until_waiting(m);
	dirty_client_destroy(c);
	assert_int_equal(runner_join(&r), ENGINE_EXIT_HALT);
	m_destroy(m);
}

/* ---- a trace that comes and goes ------------------------------------------------------------ */

static void on_trace(void *arg, const struct engine_trace_event *e)
{
	__atomic_fetch_add((uint32_t *)arg, 1, __ATOMIC_SEQ_CST);
}

TINY_TEXT(io_loop, 64, "1: out %al, $0x80; jmp 1b");

static void test_trace_ends(void **state)
{
	struct machine *m = m_create(&(struct m_options){.policy = MMU_POLICY_TDP});
	struct runner r;

	m_start(m, 0, M_LONG, 0);
	m_text(m, 0, io_loop);
	runner_start(&r, m, 0);
	for (unsigned k = 0; k < 50; k++) {
		uint32_t *n = calloc(1, sizeof(*n));

		m->ops->set_trace(m->vm, on_trace, n);
		until_beyond(n, 3);
		m->ops->set_trace(m->vm, NULL, NULL);
		free(n); /* nobody uses it any more */
	}
	assert_int_equal(runner_stop(&r), ENGINE_EXIT_KICK);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_delete_shadow), cmocka_unit_test(test_delete_tdp),
		cmocka_unit_test(test_targeted),      cmocka_unit_test(test_pml),
		cmocka_unit_test(test_pml_drained),   cmocka_unit_test(test_ring_shadow),
		cmocka_unit_test(test_ring_tdp),      cmocka_unit_test(test_ring_ends),
		cmocka_unit_test(test_trace_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
