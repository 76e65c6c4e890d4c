/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest made of fuzzer input. No vCPU is ever in guest mode, so that flushes are at once done. */
#include "mmu_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

uint8_t input_u8(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

uint64_t input_u64(struct input *in)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < 8; i++)
		v |= (uint64_t)input_u8(in) << (8 * i);
	return v;
}

static void flush_tlb(void *priv, const struct mmu_flush *flush)
{
}

static void kick(void *priv, uint64_t vcpus)
{
}

static void notify_write(void *priv, hva_t hva, uint64_t len)
{
}

static const struct mmu_ops ops = {
	.flush_tlb = flush_tlb, .kick = kick, .notify_write = notify_write};

static void must(int ret)
{
	if (ret)
		abort();
}

static void add_slot(struct guest *g, uint32_t id, gpa_t gpa, uint64_t size)
{
	struct slot_desc desc = {.id = id,
				 .gpa = gpa,
				 .size = size,
				 .host = g->ram + (id ? GUEST_PAGES * PAGE_SIZE : 0)};

	desc.flags = id ? SLOT_READONLY : 0;
	must(slot_add(g->vm, &desc));
}

void guest_create(struct guest *g, struct input *in)
{
	uint8_t how = input_u8(in);
	struct mmu_config config = {
		.policy = how & 1 ? MMU_POLICY_TDP : MMU_POLICY_SHADOW,
		.tdp_format = how & 2 ? MMU_FORMAT_NPT : MMU_FORMAT_EPT,
		.max_table_bytes = 1, /* the least there is: pages are reclaimed */
		.disable = input_u8(in),
	};

	memset(g, 0, sizeof(*g));
	g->ram = mmap(NULL, GUEST_PAGES * PAGE_SIZE + GUEST_ROM_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (g->ram == MAP_FAILED)
		abort();
	must(mmu_vm_create(&config, &ops, g, &g->vm));
	add_slot(g, 0, 0, GUEST_PAGES * PAGE_SIZE);
	add_slot(g, 1, GUEST_ROM_GPA, GUEST_ROM_SIZE);
	for (unsigned i = 0; i < GUEST_VCPUS; i++) {
		must(mmu_vcpu_create(g->vm, i, &g->vcpu[i]));
		guest_set_regs(g, i, &(struct input){0});
	}
}

void guest_destroy(struct guest *g)
{
	dirty_client_destroy(g->client);
	for (unsigned i = 0; i < GUEST_VCPUS; i++)
		mmu_vcpu_destroy(g->vcpu[i]);
	mmu_vm_destroy(g->vm);
	munmap(g->ram, GUEST_PAGES * PAGE_SIZE + GUEST_ROM_SIZE);
}

uint64_t guest_address(struct input *in)
{
	uint8_t kind = input_u8(in), a = input_u8(in), b = input_u8(in);

	if (kind & 0x80)
		return input_u64(in);
	/* Two bits for each level's index, the page offset, and canonical or not. */
	return (uint64_t)(a & 3) << 12 | (uint64_t)(a >> 2 & 3) << 21 |
	       (uint64_t)(a >> 4 & 3) << 30 | (uint64_t)(a >> 6 & 3) << 39 |
	       (uint64_t)(kind & 3) << 48 | (kind & 4 ? 0xffff800000000000ull : 0) | (b << 4);
}

void guest_write_entry(struct guest *g, struct input *in)
{
	uint8_t page = input_u8(in), index = input_u8(in), flags = input_u8(in);
	uint64_t value = (uint64_t)(page >> 4) << PAGE_SHIFT | flags;
	unsigned slot = index & 7;

	if (index & 8)
		value |= BIT(63);
	if (index & 16)
		value = input_u64(in);
	if (index & 32)
		value += GUEST_ROM_GPA;
	if (index & 64)
		slot = 511 - slot;
	/* By the guest's emulated store, so that shadows hear of it. */
	if (index & 128)
		slot_write(g->vm, (page & 15) * PAGE_SIZE + slot * 4, &value, 4);
	else
		slot_write(g->vm, (page & 15) * PAGE_SIZE + slot * 8, &value, 8);
}

#define CR0_PE	  BIT(0)
#define CR0_WP	  BIT(16)
#define CR0_PG	  BIT(31)
#define CR4_PSE	  BIT(4)
#define CR4_PAE	  BIT(5)
#define CR4_PGE	  BIT(7)
#define CR4_LA57  BIT(12)
#define CR4_PCIDE BIT(17)
#define CR4_SMEP  BIT(20)
#define CR4_SMAP  BIT(21)
#define CR4_PKE	  BIT(22)
#define EFER_LME  BIT(8)
#define EFER_LMA  BIT(10)
#define EFER_NX	  BIT(11)

enum { PAGING_NONE, PAGING_32, PAGING_PAE, PAGING_4, PAGING_5, PAGINGS };

void guest_set_regs(struct guest *g, unsigned vcpu, struct input *in)
{
	uint8_t kind = input_u8(in) % PAGINGS, bits = input_u8(in), cr3 = input_u8(in);
	struct mmu_regs *r = &g->regs[vcpu];

	*r = (struct mmu_regs){
		.cr0 = CR0_PE | (bits & 1 ? CR0_WP : 0) | (kind != PAGING_NONE ? CR0_PG : 0),
		.cr3 = (uint64_t)(cr3 & 15) << PAGE_SHIFT,
		.cr4 = (bits & 2 ? CR4_PSE : 0) | (bits & 4 ? CR4_PGE : 0) |
		       (bits & 8 ? CR4_SMEP : 0) | (bits & 16 ? CR4_SMAP : 0) |
		       (kind >= PAGING_PAE ? CR4_PAE : 0) | (kind == PAGING_5 ? CR4_LA57 : 0),
		.efer = bits & 32 ? EFER_NX : 0,
		.maxphyaddr = 40,
		.gbpages = true,
	};
	if (kind >= PAGING_4) {
		r->efer |= EFER_LME | EFER_LMA;
		r->cr4 |= (bits & 64 ? CR4_PKE : 0) | (bits & 128 ? CR4_PCIDE : 0);
		r->pkru = cr3 & 128 ? (uint32_t)input_u64(in) : 0;
		r->cr3 |= bits & 128 ? cr3 >> 4 & 7 : 0;
	}
	if (kind == PAGING_PAE && mmu_read_pdptrs(g->vcpu[vcpu], r, r->cr3, r->pdptr))
		memset(r->pdptr, 0, sizeof(r->pdptr)); /* the guest would have had #GP */
	mmu_set_regs(g->vcpu[vcpu], r);
}

void guest_audit(struct guest *g)
{
	char text[512];

	if (mmu_audit(g->vm, text, sizeof(text))) {
		fprintf(stderr, "audit: %s\n", text);
		abort();
	}
}
