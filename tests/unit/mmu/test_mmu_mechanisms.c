/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* No mechanism in name only: each has a workload in which its counter leaves zero, and with the
 * mechanism off the same workload ends in the same memory, with the counter at zero. */
#include "machine.h"

static struct machine m;

#define RAM  MIB(64)
#define PML4 0x1000ull
#define PDPT 0x2000ull
#define PD   0x3000ull
#define PT   0x4000ull
#define DATA MIB(32)

static void touch(unsigned n, uint64_t la, unsigned access, uint64_t value)
{
	assert_int_equal(cpu_access(&m.cpu[n], la, access, value, 8).kind, OUT_OK);
}

static void guest_store(gpa_t gpa, uint64_t value)
{
	assert_int_equal(mmu_guest_write(m.cpu[0].v, gpa, &value, 8), 0);
}

/* ---- workloads; all begin with 4-level paging, 512 pages of DATA at 0, PT itself at 2 MiB ---- */

/* The guest changes an entry of its last table and flushes. */
static void change_leaf(void)
{
	for (unsigned i = 0; i < 4; i++) {
		touch(0, 0, OACC_W, i);
		touch(0, MIB(2), OACC_W, (DATA + 0x1000 * i) | 0x67);
		cpu_invlpg(&m.cpu[0], 0);
	}
}

static void touch_in_order(void)
{
	for (unsigned i = 0; i < 32; i++)
		touch(0, (uint64_t)i << PAGE_SHIFT, OACC_W, i);
}

static void switch_spaces(void)
{
	poke(&m, 0x8000, PDPT | 0x67);
	for (unsigned i = 0; i < 6; i++) {
		cpu_load_cr3(&m.cpu[0], i & 1 ? 0x8000 : PML4);
		touch(0, 0, OACC_W, i);
	}
}

/* Many entries of a higher table, and nobody walks through it in between. */
static void fill_table(void)
{
	touch(0, 0, OACC_W, 1);
	for (unsigned i = 0; i < 16; i++)
		guest_store(PD + 0x800 + 8 * i, 0);
}

static void use_device(void)
{
	poke(&m, PD + 16, 0x9000 | 0x67);
	poke(&m, 0x9000, GIB(2) | 0x67);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(cpu_access(&m.cpu[0], MIB(4), 0, 0, 8).kind, OUT_MMIO);
}

/* What only vCPU 0 used goes; vCPU 1 has tables of its own. */
static void drop_own_table(void)
{
	poke(&m, 0x8000, 0x9000 | 0x67);
	poke(&m, 0x9000, 0xa000 | 0x67);
	poke(&m, 0xa000, 0xb000 | 0x67);
	poke(&m, 0xb000, (DATA + 0x100000) | 0x67);
	cpu_paging(&m.cpu[1], PAGING_4, 0x8000);
	touch(0, 0, OACC_W, 1);
	touch(1, 0, OACC_W, 2);
	mmu_unprotect(m.vm, 0xb);
}

/* Logged, written, no longer logged, written: large entries go and come back. */
static void log_and_stop(void)
{
	struct dirty_client *c;

	touch(0, 0, OACC_W, 1);
	assert_int_equal(dirty_client_create(m.vm, "log", 0, &c), 0);
	assert_int_equal(dirty_client_watch(c, DIRTY_ALL_SLOTS), 0);
	touch(0, 0x1000, OACC_W, 2);
	touch(0, 0x2000, OACC_W, 3);
	dirty_client_destroy(c);
	touch(0, 0x3000, OACC_W, 4);
}

/* Through tables of the guest that lie apart: more of ours than the bound allows. */
static void many_tables(void)
{
	for (unsigned i = 0; i < 200; i++) {
		poke(&m, PD + 16 + 8 * i, MIB(8) + 0x1000 * i + 0x67);
		poke(&m, MIB(8) + 0x1000 * i, (DATA + 0x1000 * i) | 0x67);
	}
	for (unsigned i = 0; i < 200; i++)
		touch(0, MIB(4) + MIB(2) * i, OACC_W, i);
}

/* ---- the table ---- */

#define VM(name)   offsetof(struct mmu_vm_stats, name), false
#define VCPU(name) offsetof(struct mmu_vcpu_stats, name), true

static const struct mechanism {
	const char *name;
	uint32_t off, beside; /* @beside: off in both runs, so that there is work for this one */
	enum mmu_policy policy;
	void (*work)(void);
	size_t counter;
	bool of_vcpu;
	uint64_t table_bytes;
} mechanisms[] = {
	{"unsync", MMU_NO_UNSYNC, 0, MMU_POLICY_SHADOW, change_leaf, VM(mmu_unsynced)},
	{"prefetch", MMU_NO_PREFETCH, 0, MMU_POLICY_SHADOW, touch_in_order, VCPU(pf_prefetched)},
	{"prefetch", MMU_NO_PREFETCH, MMU_NO_LARGE, MMU_POLICY_TDP, touch_in_order,
	 VCPU(pf_prefetched)},
	{"root cache", MMU_NO_ROOT_CACHE, 0, MMU_POLICY_SHADOW, switch_spaces,
	 VCPU(root_cache_hit)},
	{"flood", MMU_NO_FLOOD, 0, MMU_POLICY_SHADOW, fill_table, VM(mmu_flooded)},
	{"MMIO entries", MMU_NO_MMIO_CACHE, 0, MMU_POLICY_SHADOW, use_device, VCPU(pf_mmio_cached)},
	{"MMIO entries", MMU_NO_MMIO_CACHE, 0, MMU_POLICY_TDP, use_device, VCPU(pf_mmio_cached)},
	{"targeted flush", MMU_NO_TARGETED, 0, MMU_POLICY_SHADOW, drop_own_table,
	 VM(targeted_tlb_flush)},
	{"large pages", MMU_NO_LARGE, 0, MMU_POLICY_TDP, touch_in_order, VM(pages_2m)},
	{"split", MMU_NO_SPLIT, MMU_NO_EAGER_SPLIT, MMU_POLICY_TDP, log_and_stop, VM(lpages_split)},
	{"eager split", MMU_NO_EAGER_SPLIT, 0, MMU_POLICY_TDP, log_and_stop,
	 VM(lpages_eager_split)},
	{"collapse", MMU_NO_COLLAPSE, 0, MMU_POLICY_TDP, log_and_stop, VM(lpages_collapsed)},
	{"parallel faults", MMU_NO_PARALLEL, 0, MMU_POLICY_TDP, touch_in_order, VCPU(pf_parallel)},
	{"reclaim", MMU_NO_RECLAIM, 0, MMU_POLICY_SHADOW, many_tables, VM(mmu_recycled), 1},
};

static uint64_t counter(const struct mechanism *x)
{
	struct mmu_vm_stats vm;
	struct mmu_vcpu_stats vcpu;

	mmu_vm_read_stats(m.vm, &vm);
	mmu_vcpu_read_stats(m.cpu[0].v, &vcpu);
	return *(const uint64_t *)((x->of_vcpu ? (const char *)&vcpu : (const char *)&vm) +
				   x->counter);
}

/* The counter, and a sum of the guest's data. */
static uint64_t run(const struct mechanism *x, uint32_t disable, uint64_t *ret_sum)
{
	struct mmu_config config = {
		.policy = x->policy, .max_table_bytes = x->table_bytes, .disable = disable};
	uint64_t count;

	machine_init(&m, &config, 2);
	machine_add(&m, 0, 0, RAM, 0, 0);
	poke(&m, PML4, PDPT | 0x67);
	poke(&m, PDPT, PD | 0x67);
	poke(&m, PD, PT | 0x67);
	poke(&m, PD + 8, 0x5000 | 0x67);
	poke(&m, 0x5000, PT | 0x67);
	for (unsigned i = 0; i < 512; i++)
		poke(&m, PT + 8 * i, (DATA + 0x1000 * i) | 0x67);
	cpu_paging(&m.cpu[0], PAGING_4, PML4);
	x->work();
	count = counter(x);
	*ret_sum = 0;
	for (gpa_t gpa = DATA; gpa < DATA + MIB(2); gpa += PAGE_SIZE)
		*ret_sum = *ret_sum * 31 + peek(&m, gpa);
	machine_audit(&m);
	machine_finish(&m);
	return count;
}

static void each(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(mechanisms); i++) {
		const struct mechanism *x = &mechanisms[i];
		uint64_t with, without, sum_with, sum_without;

		with = run(x, x->beside, &sum_with);
		without = run(x, x->beside | x->off, &sum_without);
		print_message("%s: %llu, off %llu\n", x->name, (unsigned long long)with,
			      (unsigned long long)without);
		assert_true(with > 0);
		assert_int_equal(without, 0);
		assert_int_equal(sum_with, sum_without);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(each)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
