/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One instruction outside the TLB: writes to guest tables, MMIO, string I/O. */
#include "engine/soft/soft_internal.h"

#include <errno.h>
#include <string.h>

static enum cpu_mem_result translate(struct engine_vcpu *v, gva_t gva, unsigned access, gpa_t *gpa,
				     struct cpu_fault *fault)
{
	struct mmu_walk_result walk;
	int ret;

	/* A task switch loads CR3 before it reads the new task's descriptors. */
	if (unlikely(cpu_state(v->cpu)->cr3 != v->mmu_cr3)) {
		v->mmu_cr3 = cpu_state(v->cpu)->cr3;
		soft_new_cr3(v);
	}
	ret = mmu_gva_to_gpa(v->mmu, gva, soft_mmu_access(v, access), &walk);
	if (ret < 0) {
		soft_fail(v, "translating %#llx: %s", (unsigned long long)gva, strerror(-ret));
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
static void mmio(struct engine_vcpu *v, gpa_t gpa, bool write, uint8_t *data, unsigned len)
{
	const struct engine_config *config = &v->vm->config;

	v->stats.mmio++;
	while (len) {
		unsigned n = len > 8 ? 8 : len;

		config->host->mmio(config->host_priv, v->id, gpa, write, n, data);
		gpa += n;
		data += n;
		len -= n;
	}
}

static enum cpu_mem_result mem_read(void *ctx, gva_t gva, void *data, unsigned len, unsigned access,
				    struct cpu_fault *fault)
{
	struct engine_vcpu *v = ctx;
	gpa_t gpa;
	enum cpu_mem_result ret = translate(v, gva, access, &gpa, fault);

	if (ret != CPU_MEM_OK)
		return ret;
	if (slot_read(v->vm->mmu, gpa, data, len) < 0)
		mmio(v, gpa, false, data, len);
	return CPU_MEM_OK;
}

static enum cpu_mem_result mem_write(void *ctx, gva_t gva, const void *data, unsigned len,
				     unsigned access, struct cpu_fault *fault)
{
	struct engine_vcpu *v = ctx;
	uint8_t copy[64];
	bool tracked;
	gpa_t gpa;
	enum cpu_mem_result ret = translate(v, gva, access | CPU_ACCESS_WRITE, &gpa, fault);

	if (ret != CPU_MEM_OK)
		return ret;
	tracked = mmu_is_tracked(v->vm->mmu, gpa);
	if (mmu_guest_write(v->mmu, gpa, data, len) < 0 && len <= sizeof(copy)) {
		memcpy(copy, data, len);
		mmio(v, gpa, true, copy, len);
	}
	/* Not a table any more: the page that a kernel clears for its next use is given back. */
	if (tracked && !mmu_is_tracked(v->vm->mmu, gpa))
		cpu_emulate_enough(v->cpu);
	return CPU_MEM_OK;
}

static enum cpu_mem_result mem_probe(void *ctx, gva_t gva, unsigned len, unsigned access,
				     struct cpu_fault *fault)
{
	gpa_t gpa;

	return translate(ctx, gva, access, &gpa, fault);
}

static enum cpu_mem_result mem_cmpxchg(void *ctx, gva_t gva, void *old, const void *want,
				       unsigned len, struct cpu_fault *fault)
{
	struct engine_vcpu *v = ctx;
	unsigned access = CPU_ACCESS_WRITE | (cpu_cpl(v->cpu) == 3 ? CPU_ACCESS_USER : 0);
	gpa_t gpa;
	enum cpu_mem_result result = translate(v, gva, access, &gpa, fault);
	uint64_t expected = 0, desired = 0;
	int ret;

	if (result != CPU_MEM_OK)
		return result;
	if (len == 16) {
		uint64_t e[2], w[2];

		memcpy(e, old, 16);
		memcpy(w, want, 16);
		ret = mmu_guest_cmpxchg16(v->mmu, gpa, e, w);
		if (ret == 1)
			memcpy(old, e, 16);
	} else {
		memcpy(&expected, old, len);
		memcpy(&desired, want, len);
		ret = mmu_guest_cmpxchg(v->mmu, gpa, &expected, desired, len);
		if (ret == 1)
			memcpy(old, &expected, len);
	}
	if (ret < 0) {
		/* No memory there, or none that compares and swaps (a split access): not atomic. */
		uint8_t copy[16];

		memcpy(copy, want, len);
		if (mmu_guest_write(v->mmu, gpa, copy, len) < 0)
			mmio(v, gpa, true, copy, len);
	}
	return CPU_MEM_OK;
}

static enum cpu_mem_result mem_port(void *ctx, uint16_t port, bool in, void *data, unsigned size)
{
	struct engine_vcpu *v = ctx;
	const struct engine_config *config = &v->vm->config;
	uint32_t value = ~0u;

	v->stats.pio++;
	if (!in) {
		value = 0;
		memcpy(&value, data, size);
	}
	config->host->pio(config->host_priv, v->id, port, in, size, &value);
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

enum soft_next soft_emulate(struct engine_vcpu *v)
{
	enum cpu_emulate_result result;

	v->stats.emulated++;
	v->error[0] = 0;
	soft_sync_mmu(v);
	v->mmu_cr3 = cpu_state(v->cpu)->cr3;
	result = cpu_emulate(v->cpu, &ops, v);
	if (cpu_state(v->cpu)->cr3 != v->mmu_cr3)
		soft_new_cr3(v);
	switch (result) {
	case CPU_EMULATE_DONE:
		/* MOV to CR and the like left instead; but an emulated write may have been to a
		 * table. */
		return SOFT_RESUME;
	case CPU_EMULATE_EXIT: return soft_handle_exit(v, cpu_exit(v->cpu));
	case CPU_EMULATE_STOP: break;
	}
	return v->error[0] ? SOFT_ERROR : SOFT_RESUME;
}
