/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target over the guest walkers: any tables, any registers, any access. What the walker
 * says must be what the oracle of tests/unit/mmu says, which shares no code with it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mmu_guest.h"
#include "tests/unit/mmu/oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool read_memory(void *priv, uint64_t gpa, unsigned size, uint64_t *value)
{
	struct guest *g = priv;

	*value = 0;
	if (gpa < GUEST_PAGES * PAGE_SIZE)
		memcpy(value, g->ram + gpa, size);
	else if (gpa - GUEST_ROM_GPA < GUEST_ROM_SIZE)
		memcpy(value, g->ram + GUEST_PAGES * PAGE_SIZE + (gpa - GUEST_ROM_GPA), size);
	else
		return false;
	return true;
}

static void disagree(const char *what, uint64_t la, uint64_t ours, uint64_t oracles)
{
	fprintf(stderr, "%s at %#llx: %#llx, and by the oracle %#llx\n", what,
		(unsigned long long)la, (unsigned long long)ours, (unsigned long long)oracles);
	abort();
}

static void check_walk(struct guest *g, unsigned vcpu, uint64_t la, uint8_t how)
{
	const struct mmu_regs *r = &g->regs[vcpu];
	const struct oracle_regs regs = {
		.cr0 = r->cr0,
		.cr3 = r->cr3,
		.cr4 = r->cr4,
		.efer = r->efer,
		.pdptr = {r->pdptr[0], r->pdptr[1], r->pdptr[2], r->pdptr[3]},
		.pkru = r->pkru,
		.width = r->maxphyaddr,
		.gbpages = r->gbpages,
	};
	const struct oracle_mem mem = {.read = read_memory, .priv = g};
	unsigned oacc = how & (OACC_W | OACC_U | OACC_AC);
	uint32_t access = (how & OACC_W ? MMU_ACC_WRITE : 0) | (how & OACC_U ? MMU_ACC_USER : 0) |
			  (how & OACC_AC ? MMU_ACC_AC : 0),
		 verdict;
	struct mmu_walk_result ret;
	struct oracle_xlat x;
	int result;

	if (how & OACC_X) {
		access = (access & MMU_ACC_USER) | MMU_ACC_FETCH;
		oacc = (oacc & OACC_U) | OACC_X;
	}
	if (!(r->efer & BIT(10)))
		la = (uint32_t)la;
	oracle_translate(&regs, &mem, la, &x);
	verdict = oracle_judge(&regs, &x, oacc);
	result = mmu_gva_to_gpa(g->vcpu[vcpu], la, access, &ret);
	if (result < 0)
		disagree("an error of ours", la, (uint64_t)result, verdict);
	if (result != (verdict != 0))
		disagree("outcome", la, (uint64_t)result, verdict);
	if (result && ret.fault.error_code != (verdict & ~ORACLE_FAULT))
		disagree("error code", la, ret.fault.error_code, verdict & ~ORACLE_FAULT);
	if (result && ret.fault.cr2 != la)
		disagree("CR2", la, ret.fault.cr2, la);
	if (!result && ret.gpa != x.frame + (la & ~PAGE_MASK))
		disagree("gpa", la, ret.gpa, x.frame + (la & ~PAGE_MASK));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	struct guest g;

	guest_create(&g, &in);
	while (in.at < in.end) {
		uint8_t op = input_u8(&in);
		unsigned vcpu = op >> 7;

		if (op % 4 == 0)
			guest_set_regs(&g, vcpu, &in);
		else if (op % 4 < 3)
			guest_write_entry(&g, &in);
		else
			check_walk(&g, vcpu, guest_address(&in), op >> 2 & 15);
	}
	guest_audit(&g);
	guest_destroy(&g);
	return 0;
}
