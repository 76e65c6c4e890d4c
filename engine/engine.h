/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What runs virtual CPUs: one table of operations, the same above it for every engine. */
#ifndef UMBRA_ENGINE_H
#define UMBRA_ENGINE_H

#include "cpu/cpu.h"
#include "engine/cpu_model.h"
#include "mmu/mmu.h"
#include "mmu/stats.h"

/*
 * An engine's machine and its vCPUs. The machine's memslots live in its mmu_vm, whatever the
 * engine; vm/ adds them there (slot_add) before the first run. struct cpu_state is the neutral form
 * of a vCPU's registers for every engine.
 */
struct engine_vm;
struct engine_vcpu;

enum engine_clock {
	ENGINE_CLOCK_HOST,	   /* the TSC is the host's, from zero at engine_vm creation */
	ENGINE_CLOCK_INSTRUCTIONS, /* the TSC is what vm/ sets, plus instructions retired */
};

/*
 * Why vcpu_run() returned. Everything else (ports, MMIO, MSRs, faults) is dealt with inside,
 * through struct engine_host.
 */
enum engine_exit {
	ENGINE_EXIT_KICK,     /* vcpu_kick(): look at what is asked of the vCPU, then run again */
	ENGINE_EXIT_HALT,     /* HLT and nothing to wake it; run again after a kick */
	ENGINE_EXIT_BUDGET,   /* the instruction budget is used up */
	ENGINE_EXIT_SHUTDOWN, /* triple fault */
	ENGINE_EXIT_DEBUG,    /* a debugger's breakpoint or step */
	ENGINE_EXIT_ERROR,    /* the engine itself failed: vcpu_error() says how */
};

/*
 * The machine around the vCPUs, filled by vm/: const, all mandatory. Called on the vCPU's own
 * thread, outside guest mode, with no lock of the engine's held.
 */
struct engine_host {
	/* @size 1, 2, 4. Out: the low bytes of *@data; in: fill it. */
	void (*pio)(void *priv, unsigned vcpu, uint16_t port, bool in, unsigned size,
		    uint32_t *data);
	/* @size 1..8 and gpa + size within a page. */
	void (*mmio)(void *priv, unsigned vcpu, gpa_t gpa, bool write, unsigned size, void *data);
	/* The vector that could be delivered now (above the processor priority), or -1; cheap. */
	int (*irq_pending)(void *priv, unsigned vcpu);
	/* Take it: the vector, or -1 when it is gone again. */
	int (*irq_ack)(void *priv, unsigned vcpu);
	/* An MSR that the processor does not keep. 0, or 1 for #GP. */
	int (*msr_read)(void *priv, unsigned vcpu, uint32_t index, uint64_t *value);
	int (*msr_write)(void *priv, unsigned vcpu, uint32_t index, uint64_t value);
	/*
	 * The guest set its TSC: from now on it is what vcpu_set_tsc() set plus @offset. Also on
	 * the way back to 0. What is armed by the TSC has to follow.
	 */
	void (*tsc_offset)(void *priv, unsigned vcpu, uint64_t offset);
	/* The vCPU has just been reset by INIT. */
	void (*init)(void *priv, unsigned vcpu);
	uint64_t (*cr8_read)(void *priv, unsigned vcpu);
	void (*cr8_write)(void *priv, unsigned vcpu, uint64_t value);
};

struct engine_config {
	unsigned vcpus;
	enum mmu_policy policy;
	enum mmu_format tdp_format;
	enum engine_clock clock;
	uint64_t ram_bytes;
	uint64_t rand_seed;	  /* with ENGINE_CLOCK_INSTRUCTIONS: what RDRAND follows from */
	uint32_t mmu_disable;	  /* MMU_NO_* */
	uint64_t mmu_table_bytes; /* struct mmu_config's max_table_bytes */
	uint8_t mmu_max_level;	  /* …and its max_page_level */
	const struct engine_cpu_model *model;
	const struct engine_host *host;
	void *host_priv;
};

/* A vCPU's counters: exits by reason and the processor's own. */
struct engine_vcpu_stats {
	struct cpu_stats cpu;
	uint64_t emulated; /* instructions carried out by cpu_emulate() */
	uint64_t mmio, pio, irqs, halts, entries;
	/* Flushes of translations that others asked of it, and how many found it in guest mode, so
	 * that it was interrupted and waited for. */
	uint64_t tlb_flush_asked, tlb_flush_ipis;
	uint64_t pml_full,
		pml_entries; /* exits because the modification log is full; pages logged */
	uint64_t waits;	     /* stays outside guest mode until somebody else is done (MMU_RING_FULL,
				_WAIT) */
};

/* Why a vCPU returned with ENGINE_EXIT_DEBUG. */
enum engine_debug_kind {
	ENGINE_DEBUG_STEP,	 /* one instruction was carried out (cpu_host_debug.single_step) */
	ENGINE_DEBUG_BREAKPOINT, /* the instruction at gva is next; nothing of it is done */
	ENGINE_DEBUG_WATCH,	 /* the last instruction, or event delivery, accessed gva */
};
struct engine_debug_hit {
	enum engine_debug_kind kind;
	gva_t gva; /* rip's linear address; WATCH: where the watched range that was met begins */
	uint8_t access; /* WATCH: CPU_WATCH_*, how it was accessed */
};

/* An exit, as the processor left, before it is dealt with. */
struct engine_trace_event {
	unsigned vcpu;
	const char *reason; /* cpu_exit_name()'s, lives for ever */
	uint64_t rip;
	uint64_t addr; /* #PF: the address; TDP: the gpa; else port, MSR, CR number, address, .. */
	uint64_t gva;  /* faults: the linear address where one is known, else 0 */
	/*
	 * #PF and #NPF: the error code; EPT: as the exit qualification; writes of an MSR or CR: the
	 * value; ports: size - 1, bit 3 in, 4 string, 5 REP.
	 */
	uint64_t info;
	uint64_t icount;
};
typedef void (*engine_trace_fn)(void *arg, const struct engine_trace_event *e);

struct engine_ops {
	const char *name;
	/* Could it run a machine here? 0, or -errno with a sentence in @why. */
	int (*probe)(char *why, size_t size);
	/* 0, -EINVAL, -ENOMEM. The config's pointers must outlive the machine. */
	int (*create)(const struct engine_config *config, struct engine_vm **ret_vm);
	void (*destroy)(struct engine_vm *vm);
	struct mmu_vm *(*mmu)(struct engine_vm *vm);
	/*
	 * Switch the machine's policy while every vCPU is outside vcpu_run(); the guest does not
	 * notice. 0, -EINVAL, -EBUSY (a vCPU is amid a nested guest).
	 */
	int (*set_policy)(struct engine_vm *vm, enum mmu_policy policy);
	/*
	 * Tell @fn of every exit, on the vCPU's thread and outside guest mode; NULL ends it. When
	 * it returns, the function of before is no longer called. Any thread; not from inside @fn.
	 */
	void (*set_trace)(struct engine_vm *vm, engine_trace_fn fn, void *arg);
	/* vCPUs 0..config.vcpus-1 exist from create() on. */
	struct engine_vcpu *(*vcpu)(struct engine_vm *vm, unsigned index);

	/*
	 * Run on the calling thread until there is a reason to return; at most @budget instructions
	 * (exactly, when the engine can count; ~0: no bound).
	 */
	enum engine_exit (*vcpu_run)(struct engine_vcpu *v, uint64_t budget);
	/* Make vcpu_run() return soon, or look at interrupts again. Any thread. */
	void (*vcpu_kick)(struct engine_vcpu *v);
	/* Only look at interrupts (and NMI, INIT, SIPI) again: vcpu_run() need not return. Any
	 * thread. */
	void (*vcpu_notify)(struct engine_vcpu *v);
	void (*vcpu_nmi)(struct engine_vcpu *v);
	/* Any thread; INIT resets and leaves a processor other than 0 waiting for SIPI. */
	void (*vcpu_init)(struct engine_vcpu *v);
	void (*vcpu_sipi)(struct engine_vcpu *v, uint8_t vector);
	/* Is there something that wakes it from HLT? Any thread. */
	bool (*vcpu_runnable)(struct engine_vcpu *v);
	/* The rest while the vCPU does not run. */
	void (*vcpu_reset)(struct engine_vcpu *v); /* as power-on */
	void (*vcpu_get_state)(struct engine_vcpu *v, struct cpu_state *ret_state);
	int (*vcpu_set_state)(struct engine_vcpu *v, const struct cpu_state *state);
	uint64_t (*vcpu_icount)(struct engine_vcpu *v);
	/*
	 * The machine's TSC as of now, from where it goes on; the vCPU's own differs by what the
	 * guest made of it (IA32_TSC_ADJUST).
	 */
	void (*vcpu_set_tsc)(struct engine_vcpu *v, uint64_t tsc);
	uint64_t (*vcpu_get_tsc)(struct engine_vcpu *v);
	void (*vcpu_stats)(struct engine_vcpu *v, struct engine_vcpu_stats *ret_stats);
	void (*vcpu_mmu_stats)(struct engine_vcpu *v, struct mmu_vcpu_stats *ret_stats);
	/* The vCPU's MMU, for inspection; and the registers of now as the MMU wants them (which the
	 * MMU itself hears of only at the next exit that needs it: tell it by mmu_set_regs()). */
	struct mmu_vcpu *(*vcpu_mmu)(struct engine_vcpu *v);
	void (*vcpu_mmu_regs)(struct engine_vcpu *v, struct mmu_regs *ret_regs);
	/*
	 * A debugger's breakpoints, watchpoints and steps (struct cpu_host_debug says what each
	 * means); NULL ends them. vcpu_run() then returns ENGINE_EXIT_DEBUG, and vcpu_debug_hit()
	 * says why. 0, or -E2BIG.
	 */
	int (*vcpu_set_debug)(struct engine_vcpu *v, const struct cpu_host_debug *debug);
	void (*vcpu_debug_hit)(struct engine_vcpu *v, struct engine_debug_hit *ret_hit);
	/* After ENGINE_EXIT_ERROR: what failed, as a sentence. */
	const char *(*vcpu_error)(struct engine_vcpu *v);
	/* The last instructions' addresses, newest last. */
	unsigned (*vcpu_history)(struct engine_vcpu *v, uint64_t *rip, unsigned max);
	/* Bytes at a guest linear address, as the vCPU sees it; how many could be read. */
	unsigned (*vcpu_peek)(struct engine_vcpu *v, gva_t gva, void *data, unsigned len);
	unsigned (*vcpu_disassemble)(struct engine_vcpu *v, const uint8_t *bytes, unsigned len,
				     uint64_t rip, char *text, size_t text_len);
};

extern const struct engine_ops engine_soft;

#endif
