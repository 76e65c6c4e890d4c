/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty log: nothing missing for any client, however it is noticed and told. */
#include "machine.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct machine m;

#define PAGES 1024u /* of slot 0; slot 1 has 70000, so that the bitmap has three levels */
#define BIG   MIB(64)

static int start(enum mmu_policy policy)
{
	struct mmu_config config = {.policy = policy};

	machine_init(&m, &config, 2);
	machine_add(&m, 0, 0, PAGES << 12, 0, 0);
	machine_add(&m, 1, BIG, 70000ull << 12, BIG, 0);
	return 0;
}

static int setup(void **state)
{
	return start(MMU_POLICY_TDP);
}

static int setup_shadow(void **state)
{
	return start(MMU_POLICY_SHADOW);
}

static int teardown(void **state)
{
	machine_audit(&m);
	machine_finish(&m);
	return 0;
}

static void write_page(gpa_t gpa)
{
	assert_int_equal(cpu_access(&m.cpu[0], gpa, OACC_W, 1, 8).kind, OUT_OK);
}

static struct dirty_client *client(const char *name, uint32_t flags)
{
	struct dirty_client *c;

	assert_int_equal(dirty_client_create(m.vm, name, flags, &c), 0);
	assert_int_equal(dirty_client_watch(c, DIRTY_ALL_SLOTS), 0);
	return c;
}

/* Exactly these pages of slot 0, in rising order, ended by -1. */
static void expect(struct dirty_client *c, ...)
{
	uint64_t bits[PAGES / 64], want[PAGES / 64] = {0};
	va_list ap;

	va_start(ap, c);
	for (int n = va_arg(ap, int); n >= 0; n = va_arg(ap, int))
		want[n / 64] |= BIT(n % 64);
	va_end(ap);
	assert_int_equal(dirty_get(c, 0, 0, PAGES, bits), 0);
	assert_memory_equal(bits, want, sizeof(bits));
	machine_audit(&m);
}

static void clear(struct dirty_client *c, unsigned page)
{
	uint64_t one = 1;

	assert_int_equal(dirty_clear(c, 0, page, 1, &one), 0);
	machine_audit(&m);
}

static void clients(void **state)
{
	struct dirty_client *a, *b, *all, *none;
	struct slot_window win;

	write_page(0x1000);
	a = client("a", 0);
	expect(a, -1);
	write_page(0x1000);
	write_page(0x5000);
	b = client("b", 0);
	write_page(0x5008);
	expect(a, 1, 5, -1);
	expect(b, 5, -1);
	clear(a, 5);
	expect(a, 1, -1);
	expect(b, 5, -1);
	write_page(0x5000);
	clear(b, 5);
	expect(a, 1, 5, -1);
	expect(b, -1);
	/* L0 and devices. */
	assert_int_equal(slot_write(m.vm, 0x6ffe, "abcd", 4), 0);
	assert_int_equal(slot_map(m.vm, 0x9000, 0x3000, MMU_ACC_WRITE, &win), 0);
	slot_unmap(m.vm, &win, 0x1001);
	dirty_note(m.vm, 0xf000, 1);
	expect(b, 6, 7, 9, 10, 15, -1);
	assert_int_equal(dirty_count(b), 5);
	assert_int_equal(dirty_count(a), 7);
	/* All set at first, and told as such; not protected, and yet nothing is lost. */
	all = client("all", DIRTY_INITIALLY_SET);
	assert_int_equal(dirty_count(all), PAGES + 70000);
	clear(all, 5);
	assert_int_equal(dirty_count(all), PAGES + 70000 - 1);
	write_page(0x5000);
	assert_int_equal(dirty_count(all), PAGES + 70000);
	assert_int_equal(dirty_client_create(m.vm, "all", 0, &none), -EEXIST);
	assert_int_equal(dirty_client_create(m.vm, "", 0, &none), -EINVAL);
	dirty_client_destroy(a);
	dirty_client_destroy(b);
	dirty_client_destroy(all);
}

static void ranges(void **state)
{
	struct dirty_client *c;
	uint64_t bits[2];

	assert_int_equal(dirty_client_create(m.vm, "x", 0, &c), 0);
	assert_int_equal(dirty_get(c, 0, 0, 1, bits), -ENOENT);
	assert_int_equal(dirty_client_watch(c, 5), -ENOENT);
	assert_int_equal(dirty_client_watch(c, 0), 0);
	assert_int_equal(dirty_get(c, 1, 0, 1, bits), -ENOENT);
	assert_int_equal(dirty_get(c, 0, PAGES, 1, bits), -EINVAL);
	assert_int_equal(dirty_get(c, 0, ~0ull, 2, bits), -EINVAL);
	assert_int_equal(dirty_get(c, 77777, 0, 1, bits), -ENOENT);
	write_page(0x41000);
	write_page(0x83000);
	assert_int_equal(dirty_get(c, 0, 0x41, 67, bits), 0);
	assert_int_equal(bits[0], 1);
	assert_int_equal(bits[1], 1ull << 2);
	assert_int_equal(dirty_client_unwatch(c, 0), 0);
	assert_int_equal(dirty_get(c, 0, 0, 1, bits), -ENOENT);
	dirty_client_destroy(c);
}

static void take(void **state)
{
	struct dirty_client *c = client("t", 0);
	gfn_t got[64];

	for (unsigned i = 0; i < 100; i++)
		write_page(BIG + ((i * 691ull % 70000) << 12));
	write_page(0x7000);
	assert_int_equal(dirty_take(c, got, 64), 64);
	assert_int_equal(got[0], 7);
	for (unsigned i = 1; i < 64; i++)
		assert_true(got[i] > got[i - 1]);
	assert_int_equal(dirty_count(c), 37);
	assert_int_equal(dirty_take(c, got, 64), 37);
	assert_int_equal(dirty_take(c, got, 64), 0);
	write_page(0x7000);
	assert_int_equal(dirty_take(c, got, 64), 1);
	assert_int_equal(got[0], 7);
	dirty_client_destroy(c);
}

/* Large pages are split while logged, and come back. */
static void split_and_collapse(void **state)
{
	struct mmu_vm_stats s;
	struct dirty_client *c;

	write_page(0);
	mmu_vm_read_stats(m.vm, &s);
	assert_int_equal(s.pages_2m, 1);
	c = client("s", 0);
	write_page(0x3000);
	expect(c, 3, -1);
	mmu_vm_read_stats(m.vm, &s);
	assert_int_equal(s.pages_2m, 0);
	assert_true(s.lpages_split > 0);
	dirty_client_destroy(c);
	write_page(0x3000);
	mmu_vm_read_stats(m.vm, &s);
	assert_int_equal(s.pages_2m, 1);
	assert_true(s.lpages_collapsed > 0);
}

static void pml(void **state)
{
	struct dirty_client *c = client("p", 0);
	uint64_t faults;

	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PML), 0);
	assert_int_equal(cpu_access(&m.cpu[0], 0x3000, 0, 0, 8).kind, OUT_OK);
	expect(c, -1);
	faults = cpu_access(&m.cpu[0], 0x3000, OACC_W, 0, 8).faults;
	assert_int_equal(faults, 0); /* the processor logged it */
	expect(c, 3, -1);
	clear(c, 3);
	expect(c, -1);
	assert_int_equal(cpu_access(&m.cpu[0], 0x3000, OACC_W, 0, 8).faults, 0);
	expect(c, 3, -1);
	/* Back: pages that the processor would log must fault from now on. */
	assert_int_equal(cpu_access(&m.cpu[0], 0x5000, 0, 0, 8).kind, OUT_OK);
	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PROTECT), 0);
	assert_int_equal(cpu_access(&m.cpu[0], 0x5000, OACC_W, 0, 8).faults, 1);
	expect(c, 3, 5, -1);
	dirty_client_destroy(c);
}

static void no_pml_under_shadow(void **state)
{
	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PML), -EOPNOTSUPP);
}

static void ring(void **state)
{
	struct dirty_client *c = client("r", 0);
	struct dirty_ring *r;
	struct mmu_fault f = {.addr = 0x300000, .access = MMU_ACC_WRITE};
	unsigned n = 0;

	assert_int_equal(dirty_ring_enable(c, 100), -EINVAL);
	assert_int_equal(dirty_ring_enable(c, 64), 0);
	r = dirty_ring_get(m.cpu[0].v);
	assert_non_null(r);
	write_page(0x3000);
	assert_int_equal(r->head, 1);
	assert_int_equal(r->entries[0].page, 3);
	for (; n < 100 && r->head - r->tail <= r->size - 32; n++)
		write_page(0x10000 + 0x1000 * n);
	assert_int_equal(mmu_page_fault(m.cpu[0].v, &f), MMU_RING_FULL);
	r->tail = r->head;
	assert_int_equal(dirty_ring_reset(c), 0);
	assert_int_equal(dirty_count(c), 0);
	assert_int_equal(mmu_page_fault(m.cpu[0].v, &f), MMU_RETRY);
	write_page(0x3000);
	assert_int_equal(r->entries[(r->head - 1) & 63].page, 3);
	assert_int_equal(dirty_ring_enable(c, 0), 0);
	assert_null(dirty_ring_get(m.cpu[0].v));
	dirty_client_destroy(c);
}

static void shared_bitmap(void **state)
{
	static uint64_t outside[PAGES / 64];
	struct dirty_client *c = client("v", 0);

	assert_int_equal(dirty_share_bitmap(m.vm, 0, outside), 0);
	outside[1] = 5;
	expect(c, 64, 66, -1);
	assert_int_equal(outside[1], 0);
	outside[0] = 2;
	assert_int_equal(dirty_share_bitmap(m.vm, 0, NULL), 0);
	expect(c, 1, 64, 66, -1); /* the last of it is not lost */
	assert_int_equal(dirty_share_bitmap(m.vm, 40, NULL), -ENOENT);
	dirty_client_destroy(c);
}

/* Under shadow: the guest's own tables change too, by its walker's A and D bits. */
static void walker_writes(void **state)
{
	struct dirty_client *c;

	poke(&m, 0x1000, 0x2007);
	poke(&m, 0x2000, 0x3007);
	poke(&m, 0x3000, 0x4007);
	poke(&m, 0x4000, 0x9007);
	cpu_paging(&m.cpu[0], PAGING_4, 0x1000);
	c = client("w", 0);
	assert_int_equal(cpu_access(&m.cpu[0], 0, 0, 0, 8).kind, OUT_OK);
	expect(c, 1, 2, 3, 4, -1);
	clear(c, 4);
	write_page(0);
	expect(c, 1, 2, 3, 4, 9, -1);
	clear(c, 9);
	write_page(0);
	expect(c, 1, 2, 3, 4, 9, -1);
	dirty_client_destroy(c);
}

/* ---- the truth, with threads: two vCPUs write, three clients take at their own pace ---- */

#define ROUNDS 400
#define HOT    256u

struct reader {
	struct dirty_client *c;
	uint64_t seen[HOT]; /* what the page held when it was last taken */
	bool stop;
};

static void *writer(void *arg)
{
	struct cpu *c = arg;
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (unsigned i = 1; i < ROUNDS * 20; i++) {
		gpa_t gpa = (rand_r(&seed) % HOT) << 12;
		uint64_t v = (uint64_t)i << 8 | (uint64_t)(c - m.cpu);

		if (i % 7 == 0)
			slot_write(m.vm, gpa + 8 * (uint64_t)(c - m.cpu), &v, 8);
		else
			mmu_guest_write(c->v, gpa + 8 * (uint64_t)(c - m.cpu), &v, 8);
	}
	return NULL;
}

static uint64_t content(unsigned page)
{
	uint64_t v[2];

	slot_read(m.vm, (gpa_t)page << 12, &v[0], 8);
	slot_read(m.vm, ((gpa_t)page << 12) + 8, &v[1], 8);
	return v[0] * 31 + v[1];
}

static void collect(struct reader *r)
{
	gfn_t gfns[32];
	ssize_t n;

	while ((n = dirty_take(r->c, gfns, 32)) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (gfns[i] < HOT)
				r->seen[gfns[i]] = content((unsigned)gfns[i]);
		}
	}
}

static void *reader(void *arg)
{
	struct reader *r = arg;

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE))
		collect(r);
	return NULL;
}

static void truth(void **state)
{
	struct reader readers[3] = {0};
	pthread_t w[2], t[3];

	readers[0].c = client("one", 0);
	readers[1].c = client("two", DIRTY_INITIALLY_SET);
	readers[2].c = client("three", 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, reader, &readers[i]);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&w[i], NULL, writer, &m.cpu[i]);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(w[i], NULL);
	for (unsigned i = 0; i < 3; i++) {
		__atomic_store_n(&readers[i].stop, true, __ATOMIC_RELEASE);
		pthread_join(t[i], NULL);
		collect(&readers[i]);
		for (unsigned p = 0; p < HOT; p++)
			assert_int_equal(readers[i].seen[p], content(p));
		dirty_client_destroy(readers[i].c);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define S(f) cmocka_unit_test_setup_teardown(f, setup_shadow, teardown)
	const struct CMUnitTest tests[] = {
		T(clients),	  S(clients),
		T(ranges),	  T(take),
		S(take),	  T(pml),
		T(ring),	  S(ring),
		T(truth),	  T(split_and_collapse),
		S(truth),	  T(shared_bitmap),
		S(walker_writes), S(no_pml_under_shadow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
