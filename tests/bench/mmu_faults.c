/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What it brings that direct faults of several vCPUs are handled at once: 4-KiB faults a second on
 * fresh tables, by 1 to 4 threads, with MMU_NO_PARALLEL and without. No processor, no memory used.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "mmu/mmu.h"
#include "mmu/stats.h"

#define MAX_CPUS 4
#define PAGES	 (1u << 18)

struct vcpu {
	struct mmu_vcpu *v;
	unsigned id, of;
};

static void flush(void *priv, const struct mmu_flush *f)
{
}

static void kick(void *priv, uint64_t vcpus)
{
}

static void notify(void *priv, hva_t hva, uint64_t len)
{
}

static const struct mmu_ops ops = {.flush_tlb = flush, .kick = kick, .notify_write = notify};

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

/* Every @of-th run of eight pages is this vCPU's: all work on the same tables. */
static void *touch(void *arg)
{
	struct vcpu *c = arg;
	struct mmu_root root;

	if (mmu_load(c->v, &root))
		die("mmu_load");
	for (unsigned page = c->id * 8; page < PAGES; page += page % 8 == 7 ? c->of * 8 - 7 : 1) {
		struct mmu_fault f = {.addr = (uint64_t)page << PAGE_SHIFT,
				      .access = MMU_ACC_WRITE};

		if (mmu_page_fault(c->v, &f) != MMU_RETRY || !f.fixed)
			die("mmu_page_fault");
	}
	return NULL;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void measure(struct mmu_vm *vm, struct vcpu *cpus, unsigned n, uint32_t disable)
{
	struct mmu_vm_stats before, after;
	pthread_t threads[MAX_CPUS];
	double start;

	mmu_set_disable(vm, disable);
	mmu_vm_read_stats(vm, &before);
	start = now();
	for (unsigned i = 0; i < n; i++) {
		cpus[i].of = n;
		pthread_create(&threads[i], NULL, touch, &cpus[i]);
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	start = now() - start;
	mmu_vm_read_stats(vm, &after);
	printf("%u vCPUs  %-10s  %6.0f ns a fault  %8llu waits for the lock\n", n,
	       disable & MMU_NO_PARALLEL ? "one by one" : "parallel", start * 1e9 / PAGES,
	       (unsigned long long)(after.mmu_lock_contended - before.mmu_lock_contended));
}

int main(void)
{
	struct mmu_config config = {.policy = MMU_POLICY_TDP, .max_page_level = 1};
	struct slot_desc slot = {.size = (uint64_t)PAGES << PAGE_SHIFT};
	struct mmu_regs regs = {.cr0 = 1, .maxphyaddr = 40};
	struct vcpu cpus[MAX_CPUS];
	struct mmu_vm *vm;

	slot.host = mmap(NULL, slot.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			 -1, 0);
	if (slot.host == MAP_FAILED || mmu_vm_create(&config, &ops, NULL, &vm) ||
	    slot_add(vm, &slot))
		die("no machine");
	for (unsigned i = 0; i < MAX_CPUS; i++) {
		cpus[i] = (struct vcpu){.id = i};
		if (mmu_vcpu_create(vm, i, &cpus[i].v))
			die("no vCPU");
		mmu_set_regs(cpus[i].v, &regs);
	}
	measure(vm, cpus, 1, MMU_NO_PREFETCH); /* warms the arena up */
	for (unsigned n = 1; n <= MAX_CPUS; n *= 2) {
		measure(vm, cpus, n, MMU_NO_PREFETCH | MMU_NO_PARALLEL);
		measure(vm, cpus, n, MMU_NO_PREFETCH);
	}
	for (unsigned i = 0; i < MAX_CPUS; i++)
		mmu_vcpu_destroy(cpus[i].v);
	mmu_vm_destroy(vm);
	return 0;
}
