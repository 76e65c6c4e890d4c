/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One instruction outside the TLB: writes to guest tables, MMIO, string I/O, what KVM gives up on.
 */
#include "engine/guest_mem.h"

#include <string.h>

void guest_mmu_regs(const struct cpu_state *s, const struct engine_cpu_model *model,
		    struct mmu_regs *ret_regs)
{
	*ret_regs = (struct mmu_regs){
		.cr0 = s->cr0,
		.cr3 = s->cr3 & ~X86_CR3_NOFLUSH,
		.cr4 = s->cr4,
		.efer = s->efer,
		.pkru = s->pkru,
		.maxphyaddr = model->maxphyaddr,
		.gbpages = true,
	};
	memcpy(ret_regs->pdptr, s->pdptr, sizeof(ret_regs->pdptr));
}

uint32_t guest_mmu_access(const struct cpu_state *s, unsigned access)
{
	uint32_t a = 0;

	if (access & CPU_ACCESS_WRITE)
		a |= MMU_ACC_WRITE;
	if (access & CPU_ACCESS_FETCH)
		a |= MMU_ACC_FETCH;
	if (access & CPU_ACCESS_IMPLICIT)
		a |= MMU_ACC_IMPLICIT;
	else if (access & CPU_ACCESS_USER)
		a |= MMU_ACC_USER;
	else if (s->rflags & X86_FLAG_AC)
		a |= MMU_ACC_AC;
	return a;
}

static enum cpu_mem_result translate(struct guest_mem *m, gva_t gva, unsigned access, gpa_t *gpa,
				     struct cpu_fault *fault)
{
	const struct cpu_state *s = cpu_state(m->cpu);
	struct mmu_walk_result walk;
	int ret;

	/* A task switch loads CR3 before it reads the new task's descriptors. */
	if (unlikely(s->cr3 != m->cr3)) {
		m->cr3 = s->cr3;
		m->new_cr3(m);
	}
	ret = mmu_gva_to_gpa(m->mmu, gva, guest_mmu_access(s, access), &walk);
	if (ret < 0) {
		m->err = ret;
		m->err_gva = gva;
		return CPU_MEM_STOP;
	}
	if (ret) {
		*fault = (struct cpu_fault){.vector = walk.fault.vector,
					    .has_error = true,
					    .error = walk.fault.error_code,
					    .addr = walk.fault.cr2};
		return CPU_MEM_FAULT;
	}
	*gpa = walk.gpa;
	return CPU_MEM_OK;
}

/* Towards the bus in pieces of at most 8 bytes. */
static void mmio(struct guest_mem *m, gpa_t gpa, bool write, uint8_t *data, unsigned len)
{
	const struct engine_config *config = m->config;

	m->stats->mmio++;
	while (len) {
		unsigned n = len > 8 ? 8 : len;

		config->host->mmio(config->host_priv, m->id, gpa, write, n, data);
		gpa += n;
		data += n;
		len -= n;
	}
}

static enum cpu_mem_result mem_read(void *ctx, gva_t gva, void *data, unsigned len, unsigned access,
				    struct cpu_fault *fault)
{
	struct guest_mem *m = ctx;
	enum cpu_mem_result ret;
	gpa_t gpa;

	if (m->insn && access & CPU_ACCESS_FETCH && gva - m->insn_gva + len <= 15) {
		memcpy(data, m->insn + (gva - m->insn_gva), len);
		return CPU_MEM_OK;
	}
	ret = translate(m, gva, access, &gpa, fault);
	if (ret != CPU_MEM_OK)
		return ret;
	if (slot_read(m->vm, gpa, data, len) < 0)
		mmio(m, gpa, false, data, len);
	return CPU_MEM_OK;
}

/* To memory, or to the bus where there is none. */
static void store(struct guest_mem *m, gpa_t gpa, const void *data, unsigned len)
{
	uint8_t copy[64];

	if (m->before_write)
		m->before_write(m, gpa, data, len);
	if (mmu_guest_write(m->mmu, gpa, data, len) < 0 && len <= sizeof(copy)) {
		memcpy(copy, data, len);
		mmio(m, gpa, true, copy, len);
	}
}

static enum cpu_mem_result mem_write(void *ctx, gva_t gva, const void *data, unsigned len,
				     unsigned access, struct cpu_fault *fault)
{
	struct guest_mem *m = ctx;
	bool tracked;
	gpa_t gpa;
	enum cpu_mem_result ret = translate(m, gva, access | CPU_ACCESS_WRITE, &gpa, fault);

	if (ret != CPU_MEM_OK)
		return ret;
	tracked = mmu_is_tracked(m->vm, gpa);
	store(m, gpa, data, len);
	/* Not a table any more: the page that a kernel clears for its next use is given back. */
	if (tracked && !mmu_is_tracked(m->vm, gpa))
		cpu_emulate_enough(m->cpu);
	return CPU_MEM_OK;
}

static enum cpu_mem_result mem_probe(void *ctx, gva_t gva, unsigned len, unsigned access,
				     struct cpu_fault *fault)
{
	gpa_t gpa;

	return translate(ctx, gva, access, &gpa, fault);
}

/* 0 swapped, 1 memory held something else, -errno; *@old is then what it held. */
static int cmpxchg(struct guest_mem *m, gpa_t gpa, void *old, const void *want, unsigned len)
{
	uint64_t expected[2] = {0}, desired[2] = {0};
	int ret;

	memcpy(expected, old, len);
	memcpy(desired, want, len);
	if (m->before_write)
		m->before_write(m, gpa, want, len);
	if (len == 16)
		ret = mmu_guest_cmpxchg16(m->mmu, gpa, expected, desired);
	else
		ret = mmu_guest_cmpxchg(m->mmu, gpa, expected, desired[0], len);
	if (ret == 1)
		memcpy(old, expected, len);
	return ret;
}

static enum cpu_mem_result mem_cmpxchg(void *ctx, gva_t gva, void *old, const void *want,
				       unsigned len, struct cpu_fault *fault)
{
	struct guest_mem *m = ctx;
	unsigned access = CPU_ACCESS_WRITE | (cpu_cpl(m->cpu) == 3 ? CPU_ACCESS_USER : 0);
	gpa_t gpa;
	enum cpu_mem_result result = translate(m, gva, access, &gpa, fault);

	if (result != CPU_MEM_OK)
		return result;
	/* No memory there, or none that compares and swaps (a split access): not atomic. */
	if (cmpxchg(m, gpa, old, want, len) < 0)
		store(m, gpa, want, len);
	return CPU_MEM_OK;
}

void guest_pio(struct guest_mem *m, uint16_t port, bool in, unsigned size, uint32_t *data)
{
	const struct engine_config *config = m->config;

	m->stats->pio++;
	config->host->pio(config->host_priv, m->id, port, in, size, data);
}

static enum cpu_mem_result mem_port(void *ctx, uint16_t port, bool in, void *data, unsigned size)
{
	uint32_t value = ~0u;

	if (!in) {
		value = 0;
		memcpy(&value, data, size);
	}
	guest_pio(ctx, port, in, size, &value);
	if (in)
		memcpy(data, &value, size);
	return CPU_MEM_OK;
}

static const struct cpu_mem_ops ops = {
	.read = mem_read,
	.write = mem_write,
	.probe = mem_probe,
	.cmpxchg = mem_cmpxchg,
	.port = mem_port,
};

enum cpu_emulate_result guest_emulate(struct guest_mem *m)
{
	enum cpu_emulate_result result;

	m->stats->emulated++;
	m->err = 0;
	m->cr3 = cpu_state(m->cpu)->cr3;
	result = cpu_emulate(m->cpu, &ops, m);
	if (cpu_state(m->cpu)->cr3 != m->cr3)
		m->new_cr3(m);
	return result;
}

bool guest_invpcid_ok(struct cpu *c, const struct cpu_exit *e)
{
	const struct cpu_state *s = cpu_state(c);
	uint64_t pcid = e->invpcid.pcid;
	gva_t gva = e->invpcid.gva;
	uint32_t widths[4];
	unsigned unused;

	/* As a base, the address may be as wide as the processor's, whatever CR4.LA57. */
	cpu_cpuid(c, 0x80000008u, 0, widths);
	unused = 64 - (widths[0] >> 8 & 0xff);
	switch (e->invpcid.type) {
	case MMU_INVPCID_ADDRESS:
		if ((uint64_t)((int64_t)(gva << unused) >> unused) != gva)
			return false;
		/* fall through */
	case MMU_INVPCID_SINGLE: return !(pcid >> 12) && (!pcid || s->cr4 & X86_CR4_PCIDE);
	case MMU_INVPCID_ALL_GLOBAL:
	case MMU_INVPCID_ALL: return !(pcid >> 12);
	default: return false;
	}
}
