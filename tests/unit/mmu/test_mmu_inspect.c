/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inspection tells what the tables hold, without changing anything. */
#include "machine.h"

#include <errno.h>
#include <string.h>

#include "mmu/inspect.h"

static struct machine m;

static int start(enum mmu_policy policy)
{
	struct mmu_config config = {.policy = policy};

	machine_init(&m, &config, 1);
	machine_add(&m, 0, 0, MIB(4), 0, 0);
	poke(&m, 0x1000, 0x2007);
	poke(&m, 0x2000, 0x3007);
	poke(&m, 0x3000, 0x4007);
	poke(&m, 0x3008, 0x200087);
	poke(&m, 0x4008, 0x10005 | BIT(63));
	poke(&m, 0x4010, 0x11005 | BIT(63));
	poke(&m, 0x4018, GIB(3) | 3);
	cpu_paging(&m.cpu[0], PAGING_4, 0x1000);
	return 0;
}

static int setup_tdp(void **state)
{
	return start(MMU_POLICY_TDP);
}

static int setup_shadow(void **state)
{
	return start(MMU_POLICY_SHADOW);
}

static int teardown(void **state)
{
	machine_finish(&m);
	return 0;
}

static void walks(void **state)
{
	struct mmu_inspect_walk w;

	assert_int_equal(mmu_inspect_walk(m.cpu[0].v, NULL, 0x1234, &w), 0);
	assert_int_equal(w.guest_result, 0);
	assert_int_equal(w.guest.gpa, 0x10234);
	assert_int_equal(w.guest.nsteps, 4);
	assert_int_equal(w.guest.steps[3].raw, 0x10005 | BIT(63));
	assert_int_equal(w.guest.access, MMU_MAP_USER);
	assert_true(w.in_slot);
	assert_int_equal(w.hva, (hva_t)(uintptr_t)m.map + 0x10234);
	assert_int_equal(peek(&m, 0x1000), 0x2007); /* nothing was touched */
	assert_false(w.present);
	assert_int_equal(cpu_access(&m.cpu[0], 0x1234, 0, 0, 1).kind, OUT_OK);
	assert_int_equal(mmu_inspect_walk(m.cpu[0].v, NULL, 0x1234, &w), 0);
	assert_true(w.present);
	assert_int_equal(w.hpa, w.hva);
	assert_int_equal(cpu_access(&m.cpu[0], 0x3010, 0, 0, 1).kind, OUT_MMIO);
	assert_int_equal(mmu_inspect_walk(m.cpu[0].v, &m.cpu[0].regs, 0x3010, &w), 0);
	assert_true(w.mmio);
	assert_false(w.in_slot);
	assert_int_equal(mmu_inspect_walk(m.cpu[0].v, NULL, 0x5000, &w), 0);
	assert_int_equal(w.guest_result, 1);
	assert_int_equal(w.guest.nsteps, 4);
}

static void map(void **state)
{
	struct mmu_map_range r[8];
	struct mmu_map_list list = {.v = r, .max = 8};

	assert_int_equal(mmu_inspect_map(m.cpu[0].v, NULL, 0, &list), 0);
	assert_int_equal(list.n, 3);
	assert_false(list.more);
	assert_int_equal(r[0].start, 0x1000);
	assert_int_equal(r[0].end, 0x2fff);
	assert_int_equal(r[0].gpa, 0x10000);
	assert_int_equal(r[1].start, 0x3000);
	assert_false(r[1].memory);
	assert_int_equal(r[2].start, 0x200000);
	assert_int_equal(r[2].end, 0x3fffff);
	assert_int_equal(r[2].page_shift, 21);
	list.max = 1;
	assert_int_equal(mmu_inspect_map(m.cpu[0].v, NULL, 0x3000, &list), 0);
	assert_int_equal(list.n, 1);
	assert_true(list.more);
	assert_int_equal(list.next, 0x200000);
}

/* Upper levels that all lead to one table of holes: 2^36 entries to look at. */
static void map_is_bounded(void **state)
{
	struct mmu_map_range r[4];
	struct mmu_map_list list = {.v = r, .max = 4};

	for (unsigned i = 0; i < 512; i++) {
		poke(&m, 0x1000 + 8 * i, 0x2007);
		poke(&m, 0x2000 + 8 * i, 0x3007);
		poke(&m, 0x3000 + 8 * i, 0x5007);
	}
	assert_int_equal(mmu_inspect_map(m.cpu[0].v, NULL, 0, &list), 0);
	assert_int_equal(list.n, 0);
	assert_true(list.more);
	assert_true(list.next > 0 && list.next < GIB(512));
}

static void pages_and_roots(void **state)
{
	struct mmu_page_info p[16];
	struct mmu_root_info roots[8];
	struct mmu_context_info c;
	struct mmu_slot_info s;
	struct mmu_rmap_info rm[4];
	size_t n;

	assert_int_equal(cpu_access(&m.cpu[0], 0x200000, OACC_W, 0, 8).kind, OUT_OK);
	n = mmu_inspect_pages(m.vm, 0, p, 16);
	assert_true(n >= 3);
	assert_int_equal(p[0].role.level, 4);
	assert_int_equal(mmu_inspect_roots(m.cpu[0].v, roots, 8) >= 1, 1);
	assert_true(roots[0].current);
	mmu_inspect_context(m.cpu[0].v, MMU_WHICH_CURRENT, &c);
	assert_int_equal(c.root_hpa, roots[0].hpa);
	assert_string_equal(c.gva_to_gpa, "walk_64");
	assert_int_equal(mmu_inspect_slot(m.vm, 0, &s), 0);
	assert_true(s.mapped_2m >= 1);
	assert_int_equal(s.large_2m_all, 2);
	assert_int_equal(mmu_inspect_slot(m.vm, 1, &s), -ENOENT);
	assert_true(mmu_inspect_rmap(m.vm, 0x200, 0, rm, 4) >= 1);
	assert_int_equal(mmu_inspect_rmap(m.vm, 0x200, 1, rm, 4), 0);
	assert_int_equal(mmu_inspect_rmap(m.vm, 0x200000, 0, rm, 4), -ENOENT);
}

static void words(void **state)
{
	char buf[128];
	int n;

	n = mmu_format_guest_entry(MMU_PAGING_LONG, 1, 0x10067 | BIT(63) | 3ull << 59, buf,
				   sizeof(buf));
	assert_string_equal(buf, "P RW US A D XD key 3 4K 0x10000");
	assert_int_equal(n, strlen(buf));
	for (size_t size = 0; size <= (size_t)n; size++) {
		memset(buf, '#', sizeof(buf));
		assert_int_equal(mmu_format_guest_entry(MMU_PAGING_LONG, 1,
							0x10067 | BIT(63) | 3ull << 59, buf, size),
				 n);
		assert_int_equal(buf[size], '#');
		if (size)
			assert_true(memchr(buf, 0, size) != NULL);
	}
	mmu_format_guest_entry(MMU_PAGING_32, 2, 0x00802083, buf, sizeof(buf));
	assert_string_equal(buf, "P RW 4M 0x100800000");
	mmu_format_guest_entry(MMU_PAGING_EPT, 2, 0x5007, buf, sizeof(buf));
	assert_string_equal(buf, "R W X table 0x5000");
	mmu_format_guest_entry(MMU_PAGING_PAE, 3, 0x5000, buf, sizeof(buf));
	assert_string_equal(buf, "not present");
	mmu_format_spte(MMU_FORMAT_X86, 1, BIT(51) | 1 | 0x7000 | 9ull << 52, buf, sizeof(buf));
	assert_string_equal(buf, "MMIO gpa 0x7000 generation 9");
}

static enum mmu_why why_of(gva_t gva, struct mmu_inspect_walk *w)
{
	assert_int_equal(mmu_inspect_walk(m.cpu[0].v, NULL, gva, w), 0);
	assert_int_equal(w->guest_result, w->why != MMU_WHY_NONE);
	return w->why;
}

static void whys(void **state)
{
	struct mmu_inspect_walk w;

	poke(&m, 0x3010, 0x6007 | BIT(51));  /* above MAXPHYADDR */
	poke(&m, 0x3018, GIB(2) | 7);	     /* a table that lies nowhere */
	poke(&m, 0x4020, 0x12007 | BIT(63)); /* a user's page, not executable */
	assert_int_equal(why_of(0x1000, &w), MMU_WHY_NONE);
	assert_int_equal(w.allowed, MMU_MAY_READ | MMU_MAY_USER_READ);
	assert_int_equal(why_of(0x4000, &w), MMU_WHY_NONE);
	assert_int_equal(w.allowed,
			 MMU_MAY_READ | MMU_MAY_WRITE | MMU_MAY_USER_READ | MMU_MAY_USER_WRITE);
	assert_int_equal(why_of(BIT(47), &w), MMU_WHY_NOT_CANONICAL);
	assert_int_equal(w.guest.nsteps, 0);
	assert_int_equal(why_of(0x5000, &w), MMU_WHY_NOT_PRESENT);
	assert_int_equal(why_of(0x400000, &w), MMU_WHY_RESERVED);
	assert_int_equal(w.rsvd, BIT(51));
	assert_int_equal(w.guest.steps[w.guest.nsteps - 1].level, 2);
	assert_int_equal(why_of(0x600000, &w), MMU_WHY_NO_MEMORY);
	assert_int_equal(w.guest.nsteps, 4);
	for (unsigned why = 0; why < MMU_WHY_COUNT; why++)
		assert_non_null(mmu_why_name((enum mmu_why)why));
}

static void by_gpa(void **state)
{
	struct mmu_inspect_walk w;
	bool tdp = mmu_get_policy(m.vm) == MMU_POLICY_TDP;

	assert_int_equal(cpu_access(&m.cpu[0], 0x1234, 0, 0, 1).kind, OUT_OK);
	mmu_inspect_gpa(m.cpu[0].v, 0x10234, &w);
	assert_true(w.in_slot && w.has_root);
	assert_int_equal(w.hva, (hva_t)(uintptr_t)m.map + 0x10234);
	assert_int_equal(w.by_gva, !tdp);
	assert_int_equal(w.present, tdp);
	if (tdp)
		assert_int_equal(w.hpa, w.hva);
	mmu_inspect_gpa(m.cpu[0].v, ~0ull, &w);
	assert_false(w.in_slot || w.present);
}

static unsigned events;
static struct mmu_trace_event last;

static void note(void *arg, const struct mmu_trace_event *e)
{
	events++;
	last = *e;
}

static void trace(void **state)
{
	mmu_trace_set(m.vm, note, NULL);
	assert_int_equal(cpu_access(&m.cpu[0], 0x1234, 0, 0, 1).kind, OUT_OK);
	assert_true(events > 0);
	assert_true(last.fixed);
	mmu_trace_set(m.vm, NULL, NULL);
	events = 0;
	assert_int_equal(cpu_access(&m.cpu[0], 0x3010, 0, 0, 1).kind, OUT_MMIO);
	assert_int_equal(events, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup_tdp, teardown)
#define S(f) cmocka_unit_test_setup_teardown(f, setup_shadow, teardown)
	const struct CMUnitTest tests[] = {
		T(walks),	    S(walks), T(map),	S(map), T(map_is_bounded), T(whys), S(whys), T(by_gpa), S(by_gpa),	  T(pages_and_roots),
		S(pages_and_roots), S(words), T(trace), S(trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
