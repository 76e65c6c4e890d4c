/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One frame in several roles, and contexts side by side: shared tables, renewed entries, nested. */
#include "machine.h"

static struct machine m;

#define PML4 0x1000ull
#define PDPT 0x2000ull
#define PD   0x3000ull
#define PT   0x4000ull
#define DATA 0x10000ull

static int start(enum mmu_policy policy)
{
	struct mmu_config config = {.policy = policy};

	machine_init(&m, &config, 2);
	machine_add(&m, 0, 0, MIB(4), 0, 0);
	poke(&m, PML4, PDPT | 0x67);
	poke(&m, PDPT, PD | 0x67);
	poke(&m, PD, PT | 0x67);
	poke(&m, PT, DATA | 0x67);
	return 0;
}

static int setup(void **state)
{
	return start(MMU_POLICY_SHADOW);
}

static int setup_tdp(void **state)
{
	return start(MMU_POLICY_TDP);
}

static int teardown(void **state)
{
	machine_audit(&m);
	machine_finish(&m);
	return 0;
}

static uint64_t made(void)
{
	struct mmu_vm_stats s;

	mmu_vm_read_stats(m.vm, &s);
	return s.mmu_cache_miss;
}

static struct mmu_vcpu_stats cpu_stats(void)
{
	struct mmu_vcpu_stats s;

	mmu_vcpu_read_stats(m.cpu[0].v, &s);
	return s;
}

static unsigned at(unsigned n, uint64_t la, unsigned access, gpa_t gpa)
{
	struct outcome o = cpu_access(&m.cpu[n], la, access, 0x77, 8);

	assert_int_equal(o.kind, OUT_OK);
	assert_ptr_equal((void *)o.hpa, machine_ptr(&m, gpa));
	return o.faults;
}

/* A 5-level guest's tables from the fourth level down are those of a 4-level guest: nothing is
 * built twice, and a change by one reaches the other. */
static void four_and_five_levels(void **state)
{
	uint64_t before;

	poke(&m, 0x8000, PML4 | 0x67);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	cpu_paging(&m.cpu[1], PAGING_5, 0x8000);
	at(0, 0, OACC_W, DATA);
	before = made();
	at(1, 0, OACC_W, DATA);
	assert_int_equal(made() - before, 1);
	machine_audit(&m);
	poke(&m, 0x9000, (DATA + 0x3000) | 0x67);
	assert_int_equal(mmu_guest_write(m.cpu[1].v, PD, &(uint64_t){0x9067}, 8), 0);
	at(0, 0, OACC_W, DATA + 0x3000);
	at(1, 0, OACC_W, DATA + 0x3000);
}

/* One frame as the last table and, elsewhere, as data and as the directory. */
static void frame_at_two_levels(void **state)
{
	poke(&m, PDPT + 8, PT | 0x67);		  /* PT as a directory at 1 GiB */
	poke(&m, PT, PD | 0x67);		  /* 0 is PD itself; at 1 GiB it leads on to PD */
	poke(&m, PD + 8, (DATA + 0x1000) | 0x67); /* 2 MiB on: a table; at 1 GiB + 4 KiB: data */
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	at(0, 0, 0, PD);
	at(0, GIB(1) + 0x1000, OACC_W, DATA + 0x1000);
	machine_audit(&m);
	/* A store by the guest to that entry changes what both ways see. */
	assert_int_equal(cpu_access(&m.cpu[0], 8, OACC_W, (DATA + 0x2000) | 0x67, 8).kind, OUT_OK);
	cpu_flush(&m.cpu[0], true);
	machine_audit(&m);
	at(0, GIB(1) + 0x1000, OACC_W, DATA + 0x2000);
}

/* An emulated write to a last table: the entry is made anew at once, which saves the next exit. */
static void renewed(void **state)
{
	for (unsigned off = 0; off < 2; off++) {
		mmu_set_disable(m.vm, MMU_NO_UNSYNC | (off ? MMU_NO_PREFETCH : 0));
		cpu_paging(&m.cpu[0], PAGING_4, PML4);
		poke(&m, PT, DATA | 0x67);
		at(0, 0, 0, DATA);
		assert_int_equal(
			mmu_guest_write(m.cpu[0].v, PT, &(uint64_t){(DATA + 0x5000) | 0x67}, 8), 0);
		cpu_invlpg(&m.cpu[0], 0);
		machine_audit(&m);
		assert_int_equal(at(0, 0, OACC_W, DATA + 0x5000), off);
	}
}

/* L2 comes and goes: counted, and told apart from L1. */
static void nested_counters(void **state)
{
	struct mmu_nested_regs n = {.eptp = 0x20000 | 6 | 3 << 3,
				    .guest = {.cr0 = 1, .maxphyaddr = 40, .gbpages = true}};

	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(cpu_enter_nested(&m.cpu[0], &n, 0), 0);
		assert_int_equal(cpu_stats().nested_run, i);
		assert_int_equal(cpu_stats().guest_mode, 1);
		cpu_leave_nested(&m.cpu[0]);
		assert_int_equal(cpu_stats().guest_mode, 0);
	}
}

/* Under KVM's names: what is fixed, what only seemed to need it, what goes to the emulator. */
static void fault_counters(void **state)
{
	struct mmu_fault again = {.addr = 0x5000, .access = MMU_ACC_WRITE};
	struct mmu_vcpu_stats s;

	at(0, 0x5000, OACC_W, 0x5000);
	assert_int_equal(mmu_page_fault(m.cpu[0].v, &again), MMU_RETRY);
	assert_false(again.fixed);
	assert_int_equal(cpu_access(&m.cpu[0], GIB(1), 0, 0, 8).kind, OUT_MMIO);
	assert_int_equal(cpu_access(&m.cpu[0], GIB(1), 0, 0, 8).kind, OUT_MMIO);
	s = cpu_stats();
	assert_int_equal(s.pf_taken, 4);
	assert_int_equal(s.pf_fixed, 1);
	assert_int_equal(s.pf_spurious, 1);
	assert_int_equal(s.pf_emulate, 1);
	assert_int_equal(s.pf_mmio_spte_created, 1);
	assert_int_equal(s.pf_mmio_cached, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(four_and_five_levels, setup, teardown),
		cmocka_unit_test_setup_teardown(frame_at_two_levels, setup, teardown),
		cmocka_unit_test_setup_teardown(renewed, setup, teardown),
		cmocka_unit_test_setup_teardown(nested_counters, setup_tdp, teardown),
		cmocka_unit_test_setup_teardown(fault_counters, setup_tdp, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
