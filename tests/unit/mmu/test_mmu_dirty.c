/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty log: nothing missing for any client, however it is noticed and told. */
#include "machine.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/bitmap.h"

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

/* For a slot that is too large to be audited. */
static int finish(void **state)
{
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

/* A write between get and clear, two clients, a page cleared by one: PML as protection. */
static void pml_two_clients(void **state)
{
	struct dirty_client *a, *b;
	uint64_t bits[PAGES / 64];

	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PML), 0);
	assert_int_equal(dirty_get_notice(m.vm), DIRTY_NOTICE_PML);
	a = client("a", 0);
	b = client("b", DIRTY_INITIALLY_SET);
	assert_int_equal(dirty_count(b), PAGES + 70000);
	write_page(0x3000);
	assert_int_equal(dirty_get(a, 0, 0, PAGES, bits), 0);
	assert_int_equal(bits[0], 1 << 3);
	write_page(0x3000);
	write_page(0x4000); /* in the processor's log only, amid the two steps */
	assert_int_equal(dirty_clear(a, 0, 0, PAGES, bits), 0);
	expect(a, 4, -1);
	clear(b, 3);
	clear(b, 4);
	write_page(0x3000);
	expect(a, 3, 4, -1);
	assert_int_equal(dirty_count(b), PAGES + 70000 - 1);
	dirty_client_destroy(a);
	write_page(0x4000);
	assert_int_equal(dirty_count(b), PAGES + 70000);
	dirty_client_destroy(b);
}

/* A large leaf that tells nothing by D loses W, and is in the log once it is written. */
static void pml_large(void **state)
{
	struct mmu_vm_stats s;
	struct dirty_client *c;

	write_page(0);
	mmu_vm_read_stats(m.vm, &s);
	assert_int_equal(s.pages_2m, 1);
	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PML), 0);
	c = client("large", DIRTY_INITIALLY_SET);
	mmu_vm_read_stats(m.vm, &s);
	assert_int_equal(s.pages_2m, 1); /* not split before it must be */
	clear(c, 5);
	clear(c, 6);
	write_page(0x5000);
	assert_int_equal(dirty_count(c), PAGES + 70000 - 1);
	write_page(0x6000);
	assert_int_equal(dirty_count(c), PAGES + 70000);
	dirty_client_destroy(c);
}

/* Logs on, pages clean and dirty, the way changes to and fro: nothing is missed on the way. */
static void toggle(void **state)
{
	struct dirty_client *c = client("t", 0);
	struct mmu_root root;

	for (unsigned i = 0; i < 40; i++) {
		gpa_t clean = 0x10000 + (i % 7 << 12), dirty = 0x20000 + (i % 5 << 12);

		write_page(clean);
		write_page(dirty);
		expect(c, (int)(clean >> 12), (int)(dirty >> 12), -1);
		clear(c, (unsigned)(clean >> 12));
		assert_int_equal(
			dirty_set_notice(m.vm, i % 2 ? DIRTY_NOTICE_PROTECT : DIRTY_NOTICE_PML), 0);
		assert_true(mmu_needs_load(m.cpu[0].v));
		assert_int_equal(mmu_load(m.cpu[0].v, &root), 0);
		assert_int_equal(root.pml, i % 2 == 0);
		m.cpu[0].root = root;
		machine_audit(&m);
		expect(c, (int)(dirty >> 12), -1);
		write_page(clean);
		write_page(dirty);
		expect(c, (int)(clean >> 12), (int)(dirty >> 12), -1);
		clear(c, (unsigned)(clean >> 12));
		clear(c, (unsigned)(dirty >> 12));
		expect(c, -1);
	}
	dirty_client_destroy(c);
}

/* Bytes of it in use. */
static uint64_t address_space(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long long pages;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu", &pages), 1);
	fclose(f);
	return pages << 12;
}

static int fault_write(gpa_t gpa)
{
	struct mmu_fault f = {.addr = gpa, .access = MMU_ACC_WRITE};

	return mmu_page_fault(m.cpu[0].v, &f);
}

static struct dirty_ring *fill_ring(struct dirty_client *c, uint32_t size)
{
	struct dirty_ring *r;

	assert_int_equal(dirty_ring_enable(c, size), 0);
	r = dirty_ring_get(m.cpu[0].v);
	assert_non_null(r);
	assert_int_equal(mmu_load(m.cpu[0].v, &m.cpu[0].root), 0);
	for (unsigned n = 0; fault_write(0x10000 + 0x1000 * n) == MMU_RETRY; n++)
		assert_true(n < size);
	return r;
}

static void ring(void **state)
{
	struct dirty_client *c = client("r", 0), *other = client("o", 0);
	struct dirty_ring *r;
	struct mmu_root root;
	uint64_t kicks;

	assert_int_equal(dirty_ring_enable(c, 100), -EINVAL);
	assert_int_equal(dirty_ring_enable(c, 32), -EINVAL);
	assert_int_equal(dirty_ring_reset(c), -EINVAL);
	assert_int_equal(dirty_ring_enable(c, 64), 0);
	assert_int_equal(dirty_ring_enable(other, 64), -EBUSY);
	assert_int_equal(dirty_ring_enable(other, 0), 0);
	r = dirty_ring_get(m.cpu[0].v);
	write_page(0x3000);
	assert_int_equal(r->head, 1);
	assert_int_equal(r->entries[0].page, 3);
	assert_int_equal(fault_write(0x3000), MMU_RETRY); /* it is written already: told once */
	assert_int_equal(r->head, 1);
	assert_false(dirty_ring_blocks(c));
	r = fill_ring(c, 64);
	assert_true(dirty_ring_blocks(c));
	assert_int_equal(mmu_load(m.cpu[0].v, &root), MMU_RING_FULL);
	assert_true(mmu_needs_load(m.cpu[0].v));
	/* The consumer reads without a lock, then resets. */
	r->tail = r->head;
	kicks = m.kicks;
	assert_int_equal(dirty_ring_reset(c), 0);
	assert_true(m.kicks > kicks);	     /* whoever waits is told */
	assert_int_equal(dirty_count(c), 1); /* 3, from before: its ring went unread */
	assert_int_equal(fault_write(0x300000), MMU_RETRY);
	assert_int_equal(mmu_load(m.cpu[0].v, &m.cpu[0].root), 0);
	write_page(0x10000);
	assert_int_equal(r->entries[(r->head - 1) & 63].page, 16);
	assert_int_equal(dirty_ring_enable(c, 0), 0);
	assert_null(dirty_ring_get(m.cpu[0].v));
	dirty_client_destroy(c);
	dirty_client_destroy(other);
}

/* Between the consumer's look and its reset nobody may write over what it has seen. */
static void ring_between(void **state)
{
	struct dirty_client *c = client("r", 0);
	struct dirty_ring *r;

	assert_int_equal(dirty_ring_enable(c, 64), 0);
	r = dirty_ring_get(m.cpu[0].v);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(mmu_guest_write(m.cpu[0].v, 0x210000 + 0x1000 * i, "b", 1), 0);
	assert_int_equal(r->head - r->tail, 64);
	r->tail = r->head;
	assert_true(dirty_ring_blocks(c));
	assert_int_equal(mmu_guest_write(m.cpu[0].v, 0x10000, "b", 1), 0);
	assert_int_equal(r->entries[0].page, 0x210);
	assert_int_equal(dirty_ring_reset(c), 0);
	assert_false(dirty_ring_blocks(c));
	assert_int_equal(dirty_count(c), 1);
	expect(c, 16, -1);
	dirty_client_destroy(c);
}

/* dirty_take() is the one call: rings, L0's writes, what found no room; each page once. */
static void ring_take(void **state)
{
	struct dirty_client *c = client("r", 0);
	struct dirty_ring *r = fill_ring(c, 64);
	uint32_t told = r->head - r->tail;
	uint64_t kicks = m.kicks;
	gfn_t gfns[256];
	ssize_t n;

	assert_int_equal(slot_write(m.vm, 0x200000, "a", 1), 0);
	/* Emulated instructions are told in the ring too, and wait for nobody. */
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(mmu_guest_write(m.cpu[0].v, 0x210000 + 0x1000 * i, "b", 1), 0);
	assert_int_equal(r->head - r->tail, 64);
	assert_int_equal(r->dropped, told);
	assert_int_equal(mmu_guest_write(m.cpu[0].v, 0x10000, "b", 1), 0); /* twice */
	n = dirty_take(c, gfns, 10);
	assert_int_equal(n, 10);
	n += dirty_take(c, gfns + n, 246);
	assert_int_equal(n, told + 1 + 64);
	for (ssize_t i = 1; i < n; i++)
		assert_true(gfns[i] > gfns[i - 1]);
	assert_int_equal(r->head, r->tail);
	assert_true(m.kicks > kicks);
	assert_int_equal(dirty_take(c, gfns, 256), 0);
	assert_int_equal(mmu_load(m.cpu[0].v, &m.cpu[0].root), 0);
	/* A client that vanishes: whoever ends it frees the vCPUs. */
	fill_ring(c, 128);
	dirty_client_destroy(c);
	assert_int_equal(fault_write(0x10000), MMU_RETRY);
}

static void ring_pml(void **state)
{
	struct dirty_client *c;
	struct dirty_ring *r;
	gfn_t gfns[2048];
	gpa_t gpas[64];
	unsigned n = 0;

	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PML), 0);
	c = client("r", 0);
	assert_int_equal(dirty_ring_enable(c, 2048), 0);
	r = dirty_ring_get(m.cpu[0].v);
	assert_int_equal(mmu_load(m.cpu[0].v, &m.cpu[0].root), 0);
	/* As many as the processor hands over: the log of one exit always finds room. */
	while (!mmu_needs_load(m.cpu[0].v)) {
		for (unsigned i = 0; i < 64; i++)
			gpas[i] = BIG + ((uint64_t)n++ << 12);
		mmu_pml_write(m.cpu[0].v, gpas, 64);
		assert_true(n < 4096);
	}
	assert_int_equal(mmu_load(m.cpu[0].v, &m.cpu[0].root), MMU_RING_FULL);
	assert_true(r->head + 512 <= 2048);
	assert_true(r->head + 544 + 64 >= 2048);
	assert_int_equal(dirty_take(c, gfns, 2048), n);
	assert_int_equal(mmu_load(m.cpu[0].v, &m.cpu[0].root), 0);
	dirty_client_destroy(c);
}

/* A ring's entries outlive their slot; a vCPU that comes later has a ring, too. */
static void ring_changes(void **state)
{
	struct dirty_client *c = client("r", 0);
	struct mmu_vcpu *late;
	struct dirty_ring *r;

	assert_int_equal(dirty_ring_enable(c, 64), 0);
	r = dirty_ring_get(m.cpu[0].v);
	write_page(BIG + 0x5000);
	write_page(0x5000);
	assert_int_equal(slot_delete(m.vm, 1), 0);
	r->tail = r->head;
	assert_int_equal(dirty_ring_reset(c), 0);
	assert_int_equal(dirty_count(c), 0);
	assert_int_equal(mmu_vcpu_create(m.vm, 9, &late), 0);
	r = dirty_ring_get(late);
	assert_non_null(r);
	assert_int_equal(mmu_guest_write(late, 0x7000, "c", 1), 0);
	assert_int_equal(r->head, 1);
	mmu_vcpu_destroy(late);
	expect(c, 7, -1);
	/* A slot that this client does not watch is not in its rings. */
	assert_int_equal(dirty_client_unwatch(c, DIRTY_ALL_SLOTS), 0);
	r = dirty_ring_get(m.cpu[0].v);
	assert_int_equal(mmu_guest_write(m.cpu[0].v, 0x7000, "c", 1), 0);
	assert_int_equal(r->head, r->tail);
	dirty_client_destroy(c);
}

static void shared_bitmap(void **state)
{
	static uint64_t outside[PAGES / 64], summary;
	struct dirty_client *c = client("v", 0);
	uint64_t page = 3;
	gfn_t gfns[8];

	memset(outside, 0, sizeof(outside));
	assert_int_equal(dirty_share_bitmap(m.vm, 0, outside, NULL), 0);
	outside[1] = 5;
	expect(c, 64, 66, -1);
	assert_int_equal(outside[1], 0);
	outside[0] = 2;
	assert_int_equal(dirty_share_bitmap(m.vm, 0, NULL, NULL), 0);
	expect(c, 1, 64, 66, -1); /* the last of it is not lost */
	assert_int_equal(dirty_share_bitmap(m.vm, 40, NULL, NULL), -ENOENT);
	/* Found though a later page is known already; taken once those are. */
	assert_int_equal(dirty_share_bitmap(m.vm, 0, outside, NULL), 0);
	outside[0] = 1 << 5;
	assert_int_equal(dirty_find(c, 0, &page), 0);
	assert_int_equal(page, 5);
	outside[0] = 1 << 7;
	assert_int_equal(dirty_take(c, gfns, 8), 4);
	assert_int_equal(dirty_take(c, gfns, 8), 1);
	assert_int_equal(gfns[0], 7);
	assert_int_equal(dirty_take(c, gfns, 8), 0);
	/* With a summary only what it names is looked at. */
	assert_int_equal(dirty_share_bitmap(m.vm, 0, outside, &summary), 0);
	outside[2] = 1;
	outside[3] = 2;
	summary = 1 << 3;
	expect(c, 193, -1);
	assert_int_equal(summary, 0);
	summary = ~0ull; /* hostile: bits behind the map */
	expect(c, 128, 193, -1);
	assert_int_equal(dirty_share_bitmap(m.vm, 0, NULL, NULL), 0);
	dirty_client_destroy(c);
}

static void find_and_list(void **state)
{
	struct dirty_client *c = client("one", 0), *d = client("two", DIRTY_INITIALLY_SET);
	struct dirty_client_info info[2];
	uint64_t page = 0;

	assert_int_equal(dirty_find(c, 1, &page), -ENODATA);
	assert_int_equal(dirty_find(c, 40, &page), -ENOENT);
	write_page(BIG + (69999ull << 12));
	write_page(BIG + (4096ull << 12));
	assert_int_equal(dirty_find(c, 1, &page), 0);
	assert_int_equal(page, 4096);
	page++;
	assert_int_equal(dirty_find(c, 1, &page), 0);
	assert_int_equal(page, 69999);
	page++;
	assert_int_equal(dirty_find(c, 1, &page), -ENODATA);
	page = ~0ull;
	assert_int_equal(dirty_find(c, 1, &page), -ENODATA);
	assert_int_equal(dirty_ring_enable(d, 64), 0);
	write_page(BIG + (5ull << 12)); /* collected by this call, if by none before */
	assert_int_equal(dirty_clients(m.vm, info, 1), 2);
	assert_int_equal(dirty_clients(m.vm, info, 2), 2);
	assert_string_equal(info[0].name, "one");
	assert_int_equal(info[0].dirty, 3);
	assert_int_equal(info[0].ring, 0);
	assert_string_equal(info[1].name, "two");
	assert_int_equal(info[1].dirty, PAGES + 70000);
	assert_int_equal(info[1].flags, DIRTY_INITIALLY_SET);
	assert_int_equal(info[1].ring, 64);
	dirty_client_destroy(c);
	dirty_client_destroy(d);
}

/* A ring's entries are off by the two steps too, and the vCPU has room. */
static void ring_in_two_steps(void **state)
{
	struct dirty_client *c = client("r", 0);
	struct dirty_ring *r = fill_ring(c, 64);
	uint64_t bits[PAGES / 64];
	struct mmu_root root;

	assert_int_equal(mmu_load(m.cpu[0].v, &root), MMU_RING_FULL);
	m.kicked = 0;
	assert_int_equal(dirty_get(c, 0, 0, PAGES, bits), 0);
	assert_int_equal(dirty_clear(c, 0, 0, PAGES, bits), 0);
	assert_int_equal(r->head, r->tail);
	assert_int_equal(m.kicked, MMU_VCPU_BIT(0));
	assert_int_equal(mmu_load(m.cpu[0].v, &m.cpu[0].root), 0);
	dirty_client_destroy(c);
}

/* The log by the processors begins: nobody writes by a new entry before his own is on. */
static void pml_begins(void **state)
{
	struct dirty_client *c = client("p", 0);

	assert_int_equal(cpu_access(&m.cpu[1], 0x3000, 0, 0, 8).kind, OUT_OK);
	assert_false(m.cpu[1].root.pml);
	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PML), 0);
	assert_int_equal(cpu_access(&m.cpu[0], 0x15000, 0, 0, 8).kind, OUT_OK);
	assert_true(m.cpu[0].root.pml);
	/* A writable entry of which only D would tell. */
	assert_int_equal(cpu_access(&m.cpu[1], 0x15000, OACC_W, 1, 8).faults, 0);
	expect(c, 0x15, -1);
	dirty_client_destroy(c);
}

/* And it ends: what a processor still holds is told, and none goes on logging. */
static void pml_ends(void **state)
{
	struct dirty_client *c = client("p", 0);

	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PML), 0);
	assert_int_equal(cpu_access(&m.cpu[0], 0x3000, 0, 0, 8).kind, OUT_OK);
	write_page(0x3000);
	assert_true(m.cpu[0].root.pml);
	assert_int_equal(m.cpu[0].pml_n, 1);
	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PROTECT), 0);
	expect(c, 3, -1);
	assert_int_equal(cpu_access(&m.cpu[0], 0x3000, OACC_W, 1, 8).faults, 0);
	assert_false(m.cpu[0].root.pml);
	/* The same where nothing is held. */
	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PML), 0);
	write_page(0x3000);
	assert_true(m.cpu[0].root.pml);
	assert_int_equal(m.cpu[0].pml_n, 0);
	assert_int_equal(dirty_set_notice(m.vm, DIRTY_NOTICE_PROTECT), 0);
	write_page(0x3000);
	assert_false(m.cpu[0].root.pml);
	dirty_client_destroy(c);
}

/* Memory for the map of one client, none for the next one's: no slot, and nothing left of it. */
static void no_memory_for_slot(void **state)
{
	struct slot_desc d = {
		.id = 9, .gpa = BIT(50), .size = BIT(45), .host = (void *)(uintptr_t)BIT(44)};
	struct dirty_client *a, *b;
	uint64_t none, slot, map, bits;
	struct rlimit before, low;

	assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
	none = address_space();
	assert_int_equal(slot_add(m.vm, &d), 0);
	slot = address_space() - none;
	assert_int_equal(slot_delete(m.vm, 9), 0);
	a = client("a", 0);
	none = address_space();
	assert_int_equal(slot_add(m.vm, &d), 0);
	map = address_space() - none - slot;
	assert_int_equal(slot_delete(m.vm, 9), 0);
	b = client("b", 0);
	low = before;
	low.rlim_cur = address_space() + slot + map + map / 2;
	assert_int_equal(setrlimit(RLIMIT_AS, &low), 0);
	assert_int_equal(slot_add(m.vm, &d), -ENOMEM);
	assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
	assert_int_equal(dirty_client_unwatch(a, DIRTY_ALL_SLOTS), 0);
	assert_int_equal(slot_add(m.vm, &d), 0);
	assert_int_equal(dirty_get(a, 9, 0, 64, &bits), -ENOENT);
	assert_int_equal(dirty_get(b, 9, 0, 64, &bits), 0);
	assert_int_equal(slot_delete(m.vm, 9), 0);
	dirty_client_destroy(a);
	dirty_client_destroy(b);
}

/* Much at once: a flush a batch, not one a page. */
static void batches(void **state)
{
	static uint64_t bits[BITMAP_WORDS(70000)];
	static gfn_t gfns[70000];
	struct dirty_client *c = client("b", 0);
	struct mmu_vm_stats before, after;

	assert_int_equal(mmu_load(m.cpu[0].v, &m.cpu[0].root), 0);
	for (unsigned way = 0; way < 2; way++) {
		uint64_t flushes;

		for (uint64_t i = 0; i < 70000; i++)
			assert_int_equal(fault_write(BIG + (i << 12)), MMU_RETRY);
		mmu_vm_read_stats(m.vm, &before);
		flushes = m.flushes;
		if (way == 0) {
			assert_int_equal(dirty_get(c, 1, 0, 70000, bits), 0);
			assert_int_equal(dirty_clear(c, 1, 0, 70000, bits), 0);
		} else {
			assert_int_equal(dirty_take(c, gfns, 70000), 70000);
		}
		mmu_vm_read_stats(m.vm, &after);
		assert_int_equal(after.dirty_protected - before.dirty_protected, 70000);
		assert_in_range(m.flushes - flushes, 1, 70000 / 4096 + 2);
		assert_int_equal(dirty_count(c), 0);
	}
	dirty_client_destroy(c);
}

/* ---- against a model: three clients, odd sizes, odd ranges ---- */

#define MODEL_MAX 300000u

struct model {
	uint32_t npages;
	bool dirty[3][MODEL_MAX];
	struct dirty_client *c[3];
	void *host;
};

static uint64_t model_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return *seed >> 33;
}

static void model_note(struct model *w, uint64_t *seed)
{
	uint64_t page = model_random(seed) % w->npages;
	uint64_t n =
		MIN(model_random(seed) % 3 ? 1 : 1 + model_random(seed) % 200, w->npages - page);

	dirty_note(m.vm, BIG + (page << 12), n << 12);
	for (unsigned k = 0; k < 3; k++)
		memset(&w->dirty[k][page], 1, n);
}

static void model_get_clear(struct model *w, unsigned k, uint64_t *seed)
{
	static uint64_t bits[BITMAP_WORDS(MODEL_MAX)];
	uint64_t first = model_random(seed) % w->npages;
	uint64_t n = model_random(seed) % (w->npages - first + 1);
	bool keep = model_random(seed) % 2;

	memset(bits, 0x5a, sizeof(bits));
	assert_int_equal(dirty_get(w->c[k], 2, first, n, bits), 0);
	for (uint64_t i = 0; i < n; i++)
		assert_int_equal(bitmap_test(bits, i), w->dirty[k][first + i]);
	for (uint64_t i = n; i % 64; i++)
		assert_false(bitmap_test(bits, i));
	/* Some of them, and some that are clean. */
	for (uint64_t i = 0; i < n; i++) {
		if (model_random(seed) % 4 == 0)
			bits[i / 64] ^= BIT(i % 64);
	}
	if (keep)
		return;
	assert_int_equal(dirty_clear(w->c[k], 2, first, n, bits), 0);
	for (uint64_t i = 0; i < n; i++)
		w->dirty[k][first + i] &= !bitmap_test(bits, i);
}

static void model_take(struct model *w, unsigned k, uint64_t *seed)
{
	gfn_t gfns[500];
	size_t max = 1 + model_random(seed) % 500;
	ssize_t n = dirty_take(w->c[k], gfns, max);
	uint64_t page = 0;

	for (ssize_t i = 0; i < n; i++, page++) {
		while (!w->dirty[k][page])
			page++;
		assert_int_equal(gfns[i], (BIG >> 12) + page);
		w->dirty[k][page] = false;
	}
	if ((size_t)n == max)
		return;
	for (; page < w->npages; page++)
		assert_false(w->dirty[k][page]);
}

static void model_check(struct model *w, unsigned k)
{
	uint64_t count = 0, page = 0;

	for (uint64_t i = 0; i < w->npages; i++) {
		if (!w->dirty[k][i])
			continue;
		count++;
		if (count > 64)
			continue;
		assert_int_equal(dirty_find(w->c[k], 2, &page), 0);
		assert_int_equal(page++, i);
	}
	assert_int_equal(dirty_count(w->c[k]), count);
	if (count <= 64)
		assert_int_equal(dirty_find(w->c[k], 2, &page), -ENODATA);
}

static void model_size(struct model *w, uint32_t npages, uint64_t seed)
{
	static const char *const names[] = {"x", "y", "z"};

	struct slot_desc d = {.id = 2, .gpa = BIG, .size = (uint64_t)npages << 12, .host = w->host};

	w->npages = npages;
	assert_int_equal(slot_add(m.vm, &d), 0);
	for (unsigned k = 0; k < 3; k++) {
		w->c[k] = client(names[k], k == 1 ? DIRTY_INITIALLY_SET : 0);
		assert_int_equal(dirty_client_unwatch(w->c[k], 0), 0);
		memset(w->dirty[k], k == 1, npages);
	}
	for (unsigned i = 0; i < 120; i++) {
		unsigned k = model_random(&seed) % 3;

		switch (model_random(&seed) % 8) {
		case 0: model_get_clear(w, k, &seed); break;
		case 1: model_take(w, k, &seed); break;
		case 2: model_check(w, k); break;
		default: model_note(w, &seed); break;
		}
	}
	for (unsigned k = 0; k < 3; k++) {
		model_check(w, k);
		dirty_client_destroy(w->c[k]);
	}
	assert_int_equal(slot_delete(m.vm, 2), 0);
}

static void model(void **state)
{
	static const uint32_t sizes[] = {1,    2,    63,   64,	  65,	  127,	  128,	  4095,
					 4096, 4097, 8191, 70001, 262143, 262144, 262145, 299999};
	struct model *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->host = mmap(NULL, (size_t)MODEL_MAX << 12, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(w->host, MAP_FAILED);
	assert_int_equal(slot_delete(m.vm, 1), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
		model_size(w, sizes[i], i + 1);
	munmap(w->host, (size_t)MODEL_MAX << 12);
	free(w);
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

/* A write that the guest's tables forbid is no write, though only the log took W. */
static void forbidden_write(void **state)
{
	struct dirty_client *c;

	poke(&m, 0x1000, 0x2067);
	poke(&m, 0x2000, 0x3067);
	poke(&m, 0x3000, 0x4067);
	poke(&m, 0x4000, 0x9063);
	cpu_paging(&m.cpu[0], PAGING_4, 0x1000);
	write_page(0);
	c = client("w", 0);
	assert_int_equal(cpu_access(&m.cpu[0], 0, OACC_W | OACC_U, 0, 8).kind, OUT_FAULT);
	expect(c, -1);
	write_page(0);
	expect(c, 9, -1);
	dirty_client_destroy(c);
}

/* ---- the truth, with threads: two vCPUs write, three clients read at their own pace ---- */

#define ROUNDS 400
#define HOT    256u

struct reader {
	struct dirty_client *c;
	void (*collect)(struct reader *r);
	uint64_t seen[HOT]; /* what the page held when it was last told */
	bool *stop;
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

static uint64_t content(uint64_t page)
{
	uint64_t v[2];

	slot_read(m.vm, page << 12, &v[0], 8);
	slot_read(m.vm, (page << 12) + 8, &v[1], 8);
	return v[0] * 31 + v[1];
}

static void collect_by_take(struct reader *r)
{
	gfn_t gfns[32];
	ssize_t n;

	while ((n = dirty_take(r->c, gfns, 32)) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (gfns[i] < HOT)
				r->seen[gfns[i]] = content(gfns[i]);
		}
	}
}

static void collect_in_two_steps(struct reader *r)
{
	uint64_t bits[2], page = 0, i;

	for (; !dirty_find(r->c, 0, &page) && page < HOT; page += 100) {
		uint64_t n = MIN(100u, HOT - page);

		assert_int_equal(dirty_get(r->c, 0, page, n, bits), 0);
		assert_int_equal(dirty_clear(r->c, 0, page, n, bits), 0);
		bitmap_for_each (i, bits, n)
			r->seen[page + i] = content(page + i);
	}
}

static void *reader(void *arg)
{
	struct reader *r = arg;

	while (!__atomic_load_n(r->stop, __ATOMIC_ACQUIRE))
		r->collect(r);
	return NULL;
}

/* Changes what can be changed while logs are on. */
static void *changer(void *arg)
{
	const bool *stop = arg;

	for (unsigned i = 0; !__atomic_load_n(stop, __ATOMIC_ACQUIRE); i++) {
		struct dirty_client *c;

		dirty_set_notice(m.vm, i % 2 ? DIRTY_NOTICE_PROTECT : DIRTY_NOTICE_PML);
		if (dirty_client_create(m.vm, "passing", i & DIRTY_INITIALLY_SET, &c))
			continue;
		dirty_client_watch(c, DIRTY_ALL_SLOTS);
		dirty_count(c);
		dirty_client_destroy(c);
	}
	return NULL;
}

static void truth_of(bool rings)
{
	struct reader readers[3] = {{.collect = collect_by_take},
				    {.collect = collect_in_two_steps},
				    {.collect = collect_by_take}};
	pthread_t w[2], t[4];
	bool stop = false;

	readers[0].c = client("one", 0);
	readers[1].c = client("two", DIRTY_INITIALLY_SET);
	readers[2].c = client("three", 0);
	if (rings)
		assert_int_equal(dirty_ring_enable(readers[2].c, 64), 0);
	for (unsigned i = 0; i < 3; i++) {
		readers[i].stop = &stop;
		pthread_create(&t[i], NULL, reader, &readers[i]);
	}
	pthread_create(&t[3], NULL, changer, &stop);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&w[i], NULL, writer, &m.cpu[i]);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(w[i], NULL);
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	for (unsigned i = 0; i < 3; i++) {
		readers[i].collect(&readers[i]);
		for (unsigned p = 0; p < HOT; p++)
			assert_int_equal(readers[i].seen[p], content(p));
		dirty_client_destroy(readers[i].c);
	}
}

static void truth(void **state)
{
	truth_of(false);
}

static void truth_rings(void **state)
{
	truth_of(true);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define S(f) cmocka_unit_test_setup_teardown(f, setup_shadow, teardown)
	const struct CMUnitTest tests[] = {
		T(clients),
		S(clients),
		T(ranges),
		T(take),
		S(take),
		T(pml),
		T(pml_two_clients),
		T(pml_large),
		T(toggle),
		S(no_pml_under_shadow),
		T(ring),
		S(ring),
		T(ring_between),
		S(ring_between),
		T(ring_take),
		S(ring_take),
		T(ring_pml),
		T(ring_changes),
		T(ring_in_two_steps),
		S(ring_in_two_steps),
		T(pml_begins),
		T(pml_ends),
		cmocka_unit_test_setup_teardown(no_memory_for_slot, setup, finish),
		T(shared_bitmap),
		T(find_and_list),
		T(batches),
		S(batches),
		T(model),
		T(truth),
		S(truth),
		T(truth_rings),
		S(truth_rings),
		T(split_and_collapse),
		S(walker_writes),
		S(forbidden_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
