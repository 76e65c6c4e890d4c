/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What harvesting the dirty log costs, by slot size and by pages dirtied: taking (dirty_take),
 * getting and clearing window by window (dirty_find, dirty_get, dirty_clear), with either way of
 * noticing; and beside it, in the same run, what the mere scan of a flat bitmap of that size costs,
 * which protects nothing. The guest's writes are faults, or entries of the processor's log; no
 * guest memory is used. One JSON object a line.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bitmap.h"
#include "mmu/mmu.h"
#include "mmu/stats.h"

#define SLOT	 0
#define WINDOW	 4096u
#define TAKE	 4096u
#define RUNS_MAX 9

struct guest {
	struct mmu_vm *vm;
	struct mmu_vcpu *vcpu;
	struct mmu_root root;
	struct dirty_client *log;
	uint64_t npages;
	uint64_t *pages, count; /* to be dirtied, in rising order */
	void *host;
	enum dirty_notice notice;
	uint64_t *flat;
	gfn_t found[TAKE];
};

static void die(const char *what)
{
	fprintf(stderr, "dirty_harvest: %s\n", what);
	exit(1);
}

static void flush(void *priv, const struct mmu_flush *f)
{
}

static void kick(void *priv, uint64_t vcpus)
{
}

static void notify(void *priv, hva_t hva, uint64_t len)
{
}

static void drain(void *priv)
{
}

static const struct mmu_ops ops = {
	.flush_tlb = flush, .kick = kick, .notify_write = notify, .drain_pml = drain};

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ---- the guest ---- */

static void load(struct guest *g)
{
	while (mmu_needs_load(g->vcpu))
		if (mmu_load(g->vcpu, &g->root))
			die("mmu_load");
}

static void guest_make(struct guest *g, uint64_t bytes, enum dirty_notice notice)
{
	struct mmu_config config = {.policy = MMU_POLICY_TDP, .ram_bytes = bytes};
	struct mmu_regs regs = {.cr0 = 1, .maxphyaddr = 40};
	struct slot_desc slot = {.id = SLOT, .size = bytes};

	memset(g, 0, sizeof(*g));
	g->npages = bytes >> PAGE_SHIFT;
	g->notice = notice;
	g->host = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	g->pages = malloc(g->npages * sizeof(*g->pages));
	g->flat = calloc(BITMAP_WORDS(g->npages), 8);
	slot.host = g->host;
	if (g->host == MAP_FAILED || !g->pages || !g->flat ||
	    mmu_vm_create(&config, &ops, NULL, &g->vm) || slot_add(g->vm, &slot) ||
	    mmu_vcpu_create(g->vm, 0, &g->vcpu))
		die("no machine");
	mmu_set_regs(g->vcpu, &regs);
	load(g);
	if (dirty_set_notice(g->vm, notice) || dirty_client_create(g->vm, "bench", 0, &g->log) ||
	    dirty_client_watch(g->log, DIRTY_ALL_SLOTS))
		die("no log");
	load(g);
}

static void guest_end(struct guest *g)
{
	dirty_client_destroy(g->log);
	mmu_vcpu_destroy(g->vcpu);
	mmu_vm_destroy(g->vm);
	munmap(g->host, g->npages << PAGE_SHIFT);
	free(g->pages);
	free(g->flat);
}

/* One page somewhere in each of @count equal parts. */
static void choose(struct guest *g, uint64_t count)
{
	uint64_t seed = 1;

	g->count = count;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t from = i * g->npages / count, to = (i + 1) * g->npages / count;

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		g->pages[i] = from + (seed >> 33) % (to - from);
	}
}

static void write_fault(struct guest *g, uint64_t page, uint32_t flags)
{
	struct mmu_fault f = {.addr = page << PAGE_SHIFT, .access = MMU_ACC_WRITE, .flags = flags};

	if (mmu_page_fault(g->vcpu, &f) != MMU_RETRY)
		die("mmu_page_fault");
}

static uint64_t *leaf(const struct guest *g, uint64_t page)
{
	uint64_t *table = (uint64_t *)(uintptr_t)g->root.hpa;

	for (unsigned level = g->root.level;; level--) {
		uint64_t *e = &table[page >> (9 * (level - 1)) & 511];

		if (level == 1)
			return *e & BIT(1) ? e : NULL;
		if (!(*e & 7) || *e & BIT(7))
			return NULL;
		table = (uint64_t *)(uintptr_t)(*e & 0xfffffffff000ull);
	}
}

/* As the processor's log does it: D set in the leaf, the address noted. False: it faults. */
static bool write_logged(struct guest *g, uint64_t page)
{
	uint64_t *e = leaf(g, page);
	gpa_t gpa = page << PAGE_SHIFT;

	if (!e)
		return false;
	if (!(*e & BIT(9))) {
		*e |= BIT(9);
		mmu_pml_write(g->vcpu, &gpa, 1);
	}
	return true;
}

static void dirty_pages(struct guest *g)
{
	for (uint64_t i = 0; i < g->count; i++) {
		bitmap_set(g->flat, g->pages[i]);
		if (g->notice == DIRTY_NOTICE_PML && write_logged(g, g->pages[i]))
			continue;
		write_fault(g, g->pages[i], MMU_PF_PRESENT);
	}
}

/* ---- the harvest ---- */

static uint64_t by_take(struct guest *g)
{
	uint64_t n = 0;
	ssize_t got;

	while ((got = dirty_take(g->log, g->found, TAKE)) > 0)
		n += (uint64_t)got;
	return n;
}

static uint64_t by_get_clear(struct guest *g)
{
	uint64_t bits[WINDOW / 64], n = 0, page = 0;

	for (; !dirty_find(g->log, SLOT, &page); page += WINDOW) {
		uint64_t len = MIN((uint64_t)WINDOW, g->npages - page);

		if (dirty_get(g->log, SLOT, page, len, bits) ||
		    dirty_clear(g->log, SLOT, page, len, bits))
			die("get and clear");
		for (uint64_t i = 0; i < BITMAP_WORDS(len); i++)
			n += (uint64_t)__builtin_popcountll(bits[i]);
	}
	return n;
}

/* Every word of a flat bitmap, as a reader of KVM's log does: page numbers out, bits cleared. */
static uint64_t by_flat_scan(struct guest *g)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < BITMAP_WORDS(g->npages); i++) {
		uint64_t word = __atomic_load_n(&g->flat[i], __ATOMIC_RELAXED);

		if (!word)
			continue;
		g->flat[i] = 0;
		for (; word; word &= word - 1)
			g->found[n++ % TAKE] = i * 64 + (uint64_t)__builtin_ctzll(word);
	}
	return n;
}

/* ---- measuring ---- */

typedef uint64_t (*harvest)(struct guest *g);

static int compare(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return (d > 0) - (d < 0);
}

/* Median nanoseconds of a harvest of what was dirtied before each. */
static double measure(struct guest *g, harvest how, unsigned runs)
{
	double ns[RUNS_MAX];

	for (unsigned i = 0; i < runs; i++) {
		uint64_t n;

		dirty_pages(g);
		if (how == by_flat_scan)
			by_take(g); /* the log is not what is measured */
		else
			by_flat_scan(g);
		ns[i] = now_ns();
		n = how(g);
		ns[i] = now_ns() - ns[i];
		if (n != g->count)
			die("a page is missing or told twice");
	}
	qsort(ns, runs, sizeof(ns[0]), compare);
	return ns[runs / 2];
}

static void row(struct guest *g, unsigned gib, double percent)
{
	unsigned runs = g->count > 200000 ? 3 : RUNS_MAX;
	double take, get, flat;

	/* Faults in what is allocated when it is first used; not measured. */
	dirty_pages(g);
	by_take(g);
	by_flat_scan(g);
	take = measure(g, by_take, runs);
	get = measure(g, by_get_clear, runs);
	flat = measure(g, by_flat_scan, runs);
	printf("{\"gib\": %u, \"percent\": %g, \"pages\": %llu, \"notice\": \"%s\", \"take_ns\": "
	       "%.0f, "
	       "\"get_clear_ns\": %.0f, \"flat_scan_ns\": %.0f}\n",
	       gib, percent, (unsigned long long)g->count,
	       g->notice == DIRTY_NOTICE_PML ? "pml" : "protect", take, get, flat);
	fflush(stdout);
}

int main(void)
{
	static const unsigned sizes[] = {1, 4, 16};
	static const double percents[] = {0, 0.1, 1, 10, 100};
	struct guest g;

	for (unsigned notice = 0; notice < 2; notice++) {
		for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++) {
			guest_make(&g, GIB(sizes[s]), (enum dirty_notice)notice);
			for (unsigned p = 0; p < ARRAY_SIZE(percents); p++) {
				choose(&g, (uint64_t)((double)g.npages * percents[p] / 100));
				row(&g, sizes[s], percents[p]);
			}
			/* The same pages dirtied, whatever the size. */
			choose(&g, 4096);
			row(&g, sizes[s], -1);
			guest_end(&g);
		}
	}
	return 0;
}
