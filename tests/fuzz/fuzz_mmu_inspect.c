/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target over a whole MMU that is looked at: a guest of any tables faults, writes, loads
 * CR3, while slots, policy and the log change and every inspection function is asked with any
 * argument. The audit must find nothing, and to have looked must have changed nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "mmu/inspect.h"
#include "mmu/stats.h"
#include "mmu_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As an engine does on a fault of the processor's; the bound is the test's own. */
static void touch(struct guest *g, unsigned vcpu, struct input *in)
{
	uint64_t addr = guest_address(in);
	uint8_t how = input_u8(in);
	struct mmu_root root;

	if (mmu_get_policy(g->vm) == MMU_POLICY_TDP)
		addr &= BIT(40) - 1;
	else if (!(g->regs[vcpu].efer & BIT(10)))
		addr = (uint32_t)addr;
	for (unsigned i = 0; i < 8; i++) {
		struct mmu_fault f = {
			.addr = addr,
			.gva = addr,
			.access = how & (MMU_ACC_WRITE | MMU_ACC_USER),
			.flags = MMU_PF_GVA_VALID | (how & 8 ? MMU_PF_PRESENT : 0) |
				 (how & 16 ? MMU_PF_RSVD : 0),
		};

		if (mmu_needs_load(g->vcpu[vcpu]) && mmu_load(g->vcpu[vcpu], &root))
			return;
		if (mmu_page_fault(g->vcpu[vcpu], &f) != MMU_RETRY)
			return;
	}
}

static void flush(struct guest *g, unsigned vcpu, struct input *in)
{
	uint8_t how = input_u8(in);
	struct mmu_regs *r = &g->regs[vcpu];

	switch (how % 5) {
	case 0: mmu_invlpg(g->vcpu[vcpu], guest_address(in)); break;
	case 1: mmu_invpcid(g->vcpu[vcpu], how >> 6, how >> 3 & 7, guest_address(in)); break;
	case 2: mmu_flush_guest_tlb(g->vcpu[vcpu]); break;
	case 3: mmu_zap_all(g->vm); break;
	default:
		if ((r->cr4 & BIT(5)) && !(r->efer & BIT(10)))
			return; /* PAE: by guest_set_regs() */
		r->cr3 = (uint64_t)(how >> 4) << PAGE_SHIFT;
		mmu_new_cr3(g->vcpu[vcpu], r->cr3 | (r->cr4 & BIT(17) && how & 8 ? BIT(63) : 0),
			    NULL);
		mmu_set_regs(g->vcpu[vcpu], r);
	}
}

static void change(struct guest *g, struct input *in)
{
	uint8_t how = input_u8(in);
	gfn_t gfns[8];

	switch (how % 8) {
	case 0: mmu_set_policy(g->vm, how & 8 ? MMU_POLICY_TDP : MMU_POLICY_SHADOW); break;
	case 1: slot_set_flags(g->vm, 1, how & 8 ? SLOT_READONLY : 0); break;
	case 2: slot_move(g->vm, 1, how & 8 ? GUEST_ROM_GPA : GUEST_PAGES * PAGE_SIZE); break;
	case 3:
		if (!g->client && !dirty_client_create(g->vm, "fuzz", how >> 7, &g->client))
			dirty_client_watch(g->client, DIRTY_ALL_SLOTS);
		break;
	case 4:
		dirty_client_destroy(g->client);
		g->client = NULL;
		break;
	case 5:
		if (g->client)
			dirty_take(g->client, gfns, ARRAY_SIZE(gfns));
		break;
	case 6: mmu_unprotect(g->vm, how >> 4); break;
	default: mmu_set_disable(g->vm, input_u8(in)); break;
	}
}

static void look_at_vm(struct guest *g, uint64_t arg)
{
	struct mmu_page_info pages[4];
	struct mmu_rmap_info rmaps[4];
	struct mmu_slot_info slot;
	struct mmu_vm_stats stats;
	char text[64];

	if (mmu_inspect_pages(g->vm, (uint32_t)arg % 64, pages, ARRAY_SIZE(pages)) >
	    ARRAY_SIZE(pages))
		abort();
	mmu_inspect_slot(g->vm, (uint32_t)arg, &slot);
	mmu_inspect_slot(g->vm, arg & 1, &slot);
	mmu_inspect_rmap(g->vm, arg, 0, rmaps, ARRAY_SIZE(rmaps));
	mmu_inspect_rmap(g->vm, arg % GUEST_PAGES, arg >> 60, rmaps, ARRAY_SIZE(rmaps));
	mmu_vm_read_stats(g->vm, &stats);
	mmu_audit(g->vm, text, sizeof(text));
}

static void look_at_vcpu(struct guest *g, unsigned vcpu, uint64_t arg)
{
	struct mmu_inspect_walk walk;
	struct mmu_context_info context;
	struct mmu_root_info roots[3];
	const struct mmu_regs *regs = arg & 1 ? &g->regs[vcpu] : NULL;

	if (!mmu_inspect_walk(g->vcpu[vcpu], regs, arg, &walk)) {
		char text[256];

		if (walk.nsteps > MMU_MAX_LEVEL || walk.guest.nsteps > MMU_MAX_LEVEL)
			abort();
		for (unsigned i = 0; i < walk.guest.nsteps; i++)
			mmu_format_guest_entry(walk.paging, walk.guest.steps[i].level,
					       walk.guest.steps[i].raw, text, sizeof(text));
		for (unsigned i = 0; i < walk.nsteps; i++)
			mmu_format_spte(walk.format, walk.steps[i].level, walk.steps[i].raw, text,
					sizeof(text));
	}
	mmu_inspect_roots(g->vcpu[vcpu], roots, ARRAY_SIZE(roots));
	mmu_inspect_context(g->vcpu[vcpu], (enum mmu_which)(arg % (MMU_WHICH_NESTED + 1)),
			    &context);
}

/* The counters are what would tell of a change. */
static void look(struct guest *g, unsigned vcpu, struct input *in)
{
	struct mmu_vm_stats before, after;
	uint64_t arg = input_u8(in) & 1 ? input_u64(in) : guest_address(in);

	mmu_vm_read_stats(g->vm, &before);
	look_at_vm(g, arg);
	look_at_vcpu(g, vcpu, arg);
	mmu_vm_read_stats(g->vm, &after);
	if (memcmp(&before, &after, sizeof(before)))
		abort();
}

static void map(struct guest *g, unsigned vcpu, struct input *in)
{
	struct mmu_map_range ranges[8];
	struct mmu_map_list list = {.v = ranges, .max = ARRAY_SIZE(ranges)};
	gva_t from = guest_address(in);

	if (mmu_inspect_map(g->vcpu[vcpu], &g->regs[vcpu], from, &list))
		abort();
	if (list.more && list.next < (from & PAGE_MASK))
		abort();
	for (size_t i = 0; i < list.n; i++) {
		if (ranges[i].end < ranges[i].start || (i && ranges[i].start <= ranges[i - 1].end))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	struct guest g;

	guest_create(&g, &in);
	while (in.at < in.end) {
		uint8_t op = input_u8(&in);
		unsigned vcpu = op >> 7;

		switch (op % 8) {
		case 0: guest_set_regs(&g, vcpu, &in); break;
		case 1:
		case 2: guest_write_entry(&g, &in); break;
		case 3: touch(&g, vcpu, &in); break;
		case 4: flush(&g, vcpu, &in); break;
		case 5: change(&g, &in); break;
		case 6: look(&g, vcpu, &in); break;
		default: map(&g, vcpu, &in); break;
		}
	}
	guest_audit(&g);
	guest_destroy(&g);
	return 0;
}
