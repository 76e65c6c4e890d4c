/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Four vCPU threads on one MMU, beside threads that clear logs, change slots and zap everything.
 * Shadow: each vCPU owns some page tables (below shared upper ones), remaps pages by stores through
 * its own mapping and INVLPG, and must find behind each address the frame that it put there. TDP:
 * all fault on the same tables at once, and each must find what it last stored. Made for TSan.
 */
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "mmu/mmu.h"
#include "mmu/stats.h"

#define NR     4
#define RAM    MIB(32)
#define FRAMES 64u /* data frames a vCPU */
#define ROUNDS 30000u
#define TAG    0x7a670000u

struct vcpu {
	struct vm *vm;
	struct mmu_vcpu *v;
	struct mmu_root root;
	unsigned id, seed;
	uint32_t in_guest, seq, flush; /* atomic */
	bool done;
};

struct vm {
	struct mmu_vm *mmu;
	struct vcpu cpu[NR];
	uint8_t *ram, *extra;
	bool stop;
	uint64_t accesses;
	uint32_t turn; /* atomic */
};

static void op_flush(void *priv, const struct mmu_flush *f)
{
	struct vm *vm = priv;

	for (unsigned i = 0; i < NR; i++) {
		if (f->vcpus & MMU_VCPU_BIT(i))
			__atomic_store_n(&vm->cpu[i].flush, 1, __ATOMIC_SEQ_CST);
	}
	for (unsigned i = 0; i < NR; i++) {
		struct vcpu *c = &vm->cpu[i];
		uint32_t seq = __atomic_load_n(&c->seq, __ATOMIC_SEQ_CST);

		while (f->vcpus & MMU_VCPU_BIT(i) &&
		       __atomic_load_n(&c->in_guest, __ATOMIC_SEQ_CST) &&
		       __atomic_load_n(&c->seq, __ATOMIC_SEQ_CST) == seq)
			sched_yield();
	}
}

static void op_kick(void *priv, uint64_t vcpus)
{
}

static void op_notify(void *priv, hva_t hva, uint64_t len)
{
}

static const struct mmu_ops ops = {
	.flush_tlb = op_flush, .kick = op_kick, .notify_write = op_notify};

static uint64_t *ram(struct vm *vm, gpa_t gpa)
{
	return (uint64_t *)(vm->ram + gpa);
}

/* Through our tables; 0 or the #PF's P bit, and the leaf's host address. */
static bool walk(struct vcpu *c, uint64_t addr, bool write, uint64_t *hpa, uint32_t *flags)
{
	uint64_t table = c->root.hpa;
	bool ept = c->root.format == MMU_FORMAT_EPT;

	*flags = 0;
	for (unsigned level = c->root.level;; level--) {
		unsigned shift = 12 + 9 * (level - 1);
		uint64_t v = __atomic_load_n((uint64_t *)table + (addr >> shift & 511),
					     __ATOMIC_ACQUIRE);

		if (!(v & (ept ? 7 : 1)))
			return false;
		if (v & BIT(51)) {
			*flags = MMU_PF_RSVD | MMU_PF_PRESENT;
			return false;
		}
		table = v & BITS(47, 12);
		if (level > 1 && !(v & BIT(7)))
			continue;
		if (write && !(v & 2)) {
			*flags = MMU_PF_PRESENT;
			return false;
		}
		*hpa = (table & ~(BIT(shift) - 1)) | (addr & (BIT(shift) - 1));
		return true;
	}
}

/* One aligned 8-byte access; false: it faulted in the guest. */
static bool touch(struct vcpu *c, uint64_t addr, bool write, uint64_t *value)
{
	for (;;) {
		uint32_t flags = 0, access = write ? MMU_ACC_WRITE : 0;
		uint64_t hpa;
		bool ok = false;
		int r;

		while (mmu_needs_load(c->v))
			assert_int_equal(mmu_load(c->v, &c->root), 0);
		__atomic_store_n(&c->in_guest, 1, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&c->flush, __ATOMIC_SEQ_CST) || mmu_needs_load(c->v)) {
			__atomic_store_n(&c->flush, 0, __ATOMIC_SEQ_CST);
			__atomic_store_n(&c->in_guest, 0, __ATOMIC_SEQ_CST);
			continue;
		}
		ok = walk(c, addr, write, &hpa, &flags);
		if (ok && write)
			__atomic_store_n((uint64_t *)hpa, *value, __ATOMIC_RELAXED);
		else if (ok)
			*value = __atomic_load_n((uint64_t *)hpa, __ATOMIC_RELAXED);
		__atomic_fetch_add(&c->seq, 1, __ATOMIC_SEQ_CST);
		__atomic_store_n(&c->in_guest, 0, __ATOMIC_SEQ_CST);
		if (ok)
			return true;
		struct mmu_fault f = {.addr = addr,
				      .gva = addr,
				      .access = access,
				      .flags = flags | MMU_PF_GVA_VALID};
		r = mmu_page_fault(c->v, &f);
		if (r == MMU_EMULATE) {
			struct mmu_walk_result w;

			if (mmu_gva_to_gpa(c->v, addr, access, &w))
				return false;
			if (mmu_guest_write(c->v, w.gpa, value, 8))
				return false;
			return true;
		}
		if (r == MMU_INJECT)
			return false;
		if (r == MMU_MMIO) {
			*value = ~0ull;
			return true;
		}
		assert_int_equal(r, MMU_RETRY);
	}
}

/*
 * vCPU n: top 0x1000 * (n + 1), shared PDPT 0x10000 and PD 0x11000, page tables 0x20000 + n: entry
 * n of the PD. Its table is mapped at its own last page. Frames at 1 MiB + n * FRAMES.
 */
static gpa_t table_of(unsigned n)
{
	return 0x20000 + 0x1000 * n;
}

static gpa_t frame_of(unsigned n, unsigned f)
{
	return MIB(1) + (((gpa_t)n * FRAMES + f) << 12);
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *c = arg;
	uint64_t base = (uint64_t)c->id << 21;
	unsigned mapped[32];

	memset(mapped, 0xff, sizeof(mapped));
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned page = (unsigned)rand_r(&c->seed) % 32,
			 frame = (unsigned)rand_r(&c->seed) % FRAMES;
		uint64_t value = frame_of(c->id, frame) | 0x67;

		switch (rand_r(&c->seed) % 8) {
		case 0:
			/* Remap. */
			assert_true(touch(c, base + (511 << 12) + 8 * page, true, &value));
			mmu_invlpg(c->v, base + ((uint64_t)page << 12));
			mapped[page] = frame;
			break;
		case 1:
			mmu_new_cr3(c->v, 0x1000 * (rand_r(&c->seed) % 2 ? c->id + 1 : 9), NULL);
			break;
		case 2:
			value = round;
			if (mapped[page] != ~0u)
				assert_true(touch(c, base + ((uint64_t)page << 12), true, &value));
			break;
		default:
			if (mapped[page] == ~0u)
				break;
			assert_true(touch(c, base + ((uint64_t)page << 12) + 8, false, &value));
			assert_int_equal(value, TAG | c->id << 8 | mapped[page]);
			break;
		}
		__atomic_fetch_add(&c->vm->accesses, 1, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&c->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/*
 * Word n of every page is vCPU n's; the memory behind RAM comes and goes. Half of the accesses go
 * where the other vCPUs are just now, so that several fault for one page at once.
 */
static void *tdp_thread(void *arg)
{
	struct vcpu *c = arg;
	static const gpa_t hole = GIB(1);
	uint64_t value, stored[RAM >> 12] = {0};

	for (unsigned round = 0; round < ROUNDS; round++) {
		uint32_t turn = __atomic_fetch_add(&c->vm->turn, 1, __ATOMIC_RELAXED);
		unsigned page =
			(rand_r(&c->seed) % 2 ? turn / NR * 67 : (unsigned)rand_r(&c->seed)) %
			(RAM >> 12);
		gpa_t at = ((gpa_t)page << 12) + 8 * (c->id + 8);

		switch (rand_r(&c->seed) % 8) {
		case 0:
			assert_true(touch(c, hole + ((gpa_t)page % 64 << 12), false, &value));
			break;
		case 1:
		case 2:
		case 3:
			stored[page] = round + 1;
			assert_true(touch(c, at, true, &stored[page]));
			break;
		default:
			assert_true(touch(c, at, false, &value));
			assert_int_equal(value, stored[page]);
			break;
		}
	}
	return NULL;
}

static void *meddler(void *arg)
{
	struct vm *vm = arg;
	struct slot_desc extra = {.id = 1, .gpa = GIB(1), .size = 0x4000, .host = vm->extra};
	struct dirty_client *c;
	unsigned n = 0, seed = 7;
	gfn_t gfns[64];

	assert_int_equal(dirty_client_create(vm->mmu, "meddler", 0, &c), 0);
	while (!__atomic_load_n(&vm->stop, __ATOMIC_ACQUIRE)) {
		switch (n++ % 16) {
		case 0: assert_int_equal(dirty_client_watch(c, 0), 0); break;
		case 9: assert_int_equal(dirty_client_unwatch(c, 0), 0); break;
		case 4: mmu_zap_all(vm->mmu); break;
		case 6: assert_int_equal(slot_add(vm->mmu, &extra), 0); break;
		case 12: assert_int_equal(slot_delete(vm->mmu, 1), 0); break;
		case 13: mmu_unprotect(vm->mmu, 0x20 + (unsigned)rand_r(&seed) % NR); break;
		default: dirty_take(c, gfns, 64); break;
		}
		sched_yield();
	}
	dirty_client_destroy(c);
	return NULL;
}

static void run(const struct mmu_config *config)
{
	struct mmu_regs regs = {.cr0 = BIT(31) | BIT(16) | 1,
				.cr4 = BIT(5),
				.efer = BIT(8) | BIT(10),
				.maxphyaddr = 40,
				.gbpages = true};
	struct slot_desc ram_slot = {.size = RAM};
	static struct vm vm;
	pthread_t t[NR], m;
	uint64_t parallel = 0;
	char text[256];
	void *map;

	memset(&vm, 0, sizeof(vm));
	map = mmap(NULL, RAM + 2 * MIB(2), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		   0);
	assert_ptr_not_equal(map, MAP_FAILED);
	vm.ram = (uint8_t *)ALIGN_UP((uintptr_t)map, MIB(2)); /* so that large pages are possible */
	vm.extra = vm.ram + RAM;
	ram_slot.host = vm.ram;
	assert_int_equal(mmu_vm_create(config, &ops, &vm, &vm.mmu), 0);
	assert_int_equal(slot_add(vm.mmu, &ram_slot), 0);
	*ram(&vm, 0x10000) = 0x11000 | 0x67;
	*ram(&vm, 0x9000) = 0x10000 | 0x67;
	for (unsigned n = 0; n < NR; n++) {
		*ram(&vm, 0x1000 * (n + 1)) = 0x10000 | 0x67;
		*ram(&vm, 0x11000 + 8 * n) = table_of(n) | 0x67;
		*ram(&vm, table_of(n) + 8 * 511) = table_of(n) | 0x67;
		for (unsigned f = 0; f < FRAMES; f++)
			*ram(&vm, frame_of(n, f) + 8) = TAG | n << 8 | f;
	}
	for (unsigned n = 0; n < NR; n++) {
		struct vcpu *c = &vm.cpu[n];

		c->vm = &vm;
		c->id = n;
		c->seed = n + 1;
		assert_int_equal(mmu_vcpu_create(vm.mmu, n, &c->v), 0);
		regs.cr3 = 0x1000 * (n + 1);
		mmu_set_regs(c->v, &regs);
	}
	pthread_create(&m, NULL, meddler, &vm);
	for (unsigned n = 0; n < NR; n++)
		pthread_create(&t[n], NULL,
			       config->policy == MMU_POLICY_TDP ? tdp_thread : vcpu_thread,
			       &vm.cpu[n]);
	for (unsigned n = 0; n < NR; n++)
		pthread_join(t[n], NULL);
	__atomic_store_n(&vm.stop, true, __ATOMIC_RELEASE);
	pthread_join(m, NULL);
	if (mmu_audit(vm.mmu, text, sizeof(text)))
		fail_msg("audit: %s", text);
	for (unsigned n = 0; n < NR; n++) {
		struct mmu_vcpu_stats stats;

		mmu_vcpu_read_stats(vm.cpu[n].v, &stats);
		parallel += stats.pf_parallel;
		mmu_vcpu_destroy(vm.cpu[n].v);
	}
	assert_int_equal(parallel != 0,
			 config->policy == MMU_POLICY_TDP && !(config->disable & MMU_NO_PARALLEL));
	mmu_vm_destroy(vm.mmu);
	munmap(map, RAM + 2 * MIB(2));
}

static void shadow(void **state)
{
	run(&(struct mmu_config){.policy = MMU_POLICY_SHADOW});
}

static void shadow_small(void **state)
{
	run(&(struct mmu_config){.policy = MMU_POLICY_SHADOW, .max_table_bytes = 1});
}

static void ept(void **state)
{
	run(&(struct mmu_config){.policy = MMU_POLICY_TDP});
}

static void npt_small_pages(void **state)
{
	run(&(struct mmu_config){
		.policy = MMU_POLICY_TDP, .tdp_format = MMU_FORMAT_NPT, .max_page_level = 1});
}

static void ept_not_parallel(void **state)
{
	run(&(struct mmu_config){.policy = MMU_POLICY_TDP, .disable = MMU_NO_PARALLEL});
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(shadow), cmocka_unit_test(shadow_small),
					   cmocka_unit_test(ept), cmocka_unit_test(npt_small_pages),
					   cmocka_unit_test(ept_not_parallel)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
