/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest made of fuzzer input: registers, page tables in a small memory, and what it does. */
#ifndef UMBRA_TESTS_FUZZ_MMU_GUEST_H
#define UMBRA_TESTS_FUZZ_MMU_GUEST_H

#include "mmu/mmu.h"

/* Memory: slot 0, which the tables are in, and slot 1, read-only and not where it would be handy.
 */
#define GUEST_PAGES    16u
#define GUEST_ROM_GPA  (1ull << 32)
#define GUEST_ROM_SIZE (4 * PAGE_SIZE)
#define GUEST_VCPUS    2u

/* The input, read byte by byte; what is not there is zero. */
struct input {
	const uint8_t *at, *end;
};

uint8_t input_u8(struct input *in);
uint64_t input_u64(struct input *in);

struct guest {
	struct mmu_vm *vm;
	struct mmu_vcpu *vcpu[GUEST_VCPUS];
	struct mmu_regs regs[GUEST_VCPUS];
	uint8_t *ram; /* GUEST_PAGES pages, then the ROM's */
	struct dirty_client *client;
};

/* The first two bytes of @in choose policy, format, mechanisms. Aborts on lack of memory. */
void guest_create(struct guest *g, struct input *in);
void guest_destroy(struct guest *g);

/* An address made of few bits: indexes into tables are mostly small, the hole is met too. */
uint64_t guest_address(struct input *in);
/* One entry somewhere in memory: mostly one that leads somewhere, sometimes any bits. */
void guest_write_entry(struct guest *g, struct input *in);
/* New registers for a vCPU: one of all kinds of paging, and what decides on rights. */
void guest_set_regs(struct guest *g, unsigned vcpu, struct input *in);

/* Abort unless the audit finds nothing. */
void guest_audit(struct guest *g);

#endif
