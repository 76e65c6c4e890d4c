/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One instruction over the machine itself: cpu_emulate() with the memslots and the bus behind it.
 */
#ifndef UMBRA_ENGINE_GUEST_MEM_H
#define UMBRA_ENGINE_GUEST_MEM_H

#include "engine/engine.h"

/*
 * A vCPU as guest_emulate() needs it; every engine's vCPU has one. What has no comment is set once
 * and outlives it. Only the vCPU's own thread uses it.
 */
struct guest_mem {
	struct mmu_vm *vm;
	struct mmu_vcpu
		*mmu; /* knows the registers (mmu_set_regs) when guest_emulate() is called */
	struct cpu *cpu;
	const struct engine_config *config;
	struct engine_vcpu_stats *stats; /* mmio, pio and emulated are counted here */
	unsigned id;
	/* The instruction has loaded CR3: PDPTEs are to be read, the MMU is to be told. */
	void (*new_cr3)(struct guest_mem *m);
	/* Optional: @len bytes of memory at @gpa are about to become @data. */
	void (*before_write)(struct guest_mem *m, gpa_t gpa, const void *data, unsigned len);
	void *priv; /* the hooks' */

	/* Not NULL: what is read as the 15 bytes at insn_gva instead of memory, when it is fetched.
	 */
	const uint8_t *insn;
	gva_t insn_gva;

	uint64_t cr3; /* the one that the MMU was told of */
	/* After CPU_EMULATE_STOP, an address that could not be translated and why; 0: none. */
	int err;
	gva_t err_gva;
};

/*
 * One instruction of m->cpu, or the delivery of its state.event. As cpu_emulate(); which of the
 * exits there are depends on cpu_controls(). A frame that was a guest table that we shadow and is
 * one no longer ends a repeated string instruction early (cpu_emulate_enough).
 */
enum cpu_emulate_result guest_emulate(struct guest_mem *m);
/* Towards the host's port, counted. @size 1, 2, 4; *@data as engine_host.pio has it. */
void guest_pio(struct guest_mem *m, uint16_t port, bool in, unsigned size, uint32_t *data);

/* CPU_EXIT_INVPCID: is the descriptor one that does not fault (SDM 2A, INVPCID)? */
bool guest_invpcid_ok(struct cpu *c, const struct cpu_exit *e);

/* MMU_ACC_* of an access by the processor (CPU_ACCESS_*) in this state. */
uint32_t guest_mmu_access(const struct cpu_state *s, unsigned access);
/* The registers as the MMU wants them. */
void guest_mmu_regs(const struct cpu_state *s, const struct engine_cpu_model *model,
		    struct mmu_regs *ret_regs);

#endif
