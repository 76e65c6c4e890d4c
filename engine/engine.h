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
/* Forms of saved state, devices/{lapic,pic,ioapic,pit}.h. */
struct lapic_state;
struct pic_state;
struct ioapic_state;
struct pit_state;

/* Why something cannot be, as a sentence without a full stop. Whoever takes a pointer to one takes
 * NULL too. */
struct engine_error {
	char text[320];
};

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
	/* What only an engine with local APICs of its own calls, with ENGINE_IRQCHIP_SPLIT. */
	/* A local APIC has ended the level-triggered interrupt @vector: the I/O APIC's part. */
	void (*eoi)(void *priv, uint8_t vector);
	/* Do the 8259s ask for an interrupt (vCPU 0's ExtINT)? Cheap. */
	bool (*pic_pending)(void *priv);
	/* Take it: the vector, or -1 when it is gone again. */
	int (*pic_ack)(void *priv);
};

/* Whose the 8259s, I/O APIC and PIT are, where the local APICs are the engine's. */
enum engine_irqchip {
	ENGINE_IRQCHIP_KERNEL, /* the engine's too */
	ENGINE_IRQCHIP_SPLIT,  /* devices/ own; host->eoi, pic_pending and pic_ack serve them */
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
	/*
	 * NULL: the engine makes an mmu_vm of its own. Else it attaches itself to this one
	 * (mmu_attach()) and leaves it on destroy(): the machine's slots and dirty clients outlive
	 * an engine.
	 */
	struct mmu_vm *mmu;
	/* kvm only: */
	/* A port of which bytes written may be told as late as the next exit, as nobody waits for
	 * them; 0: none. */
	uint16_t gathered_port;
	int kvm_fd; /* /dev/kvm, borrowed; the engine opens nothing by itself */
	enum engine_irqchip irqchip;
	uint32_t dirty_ring; /* entries a vCPU, a power of two; 0: the dirty log is a bitmap */
	bool help; /* where the kernel cannot carry out an instruction, our processor does */
};

#define ENGINE_KVM_EXITS 48 /* KVM_EXIT_* from 0; the last one stands for all above */

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
	/* kvm: exits of KVM_RUN to us by KVM_EXIT_*, named by engine_kvm_exit_name(); signals that
	 * made it leave. */
	uint64_t kvm_exits[ENGINE_KVM_EXITS], kvm_kicks;
	/* kvm: instructions carried out for the kernel, and runs of them; how often the kernel's
	 * shadows of guest tables had to be dropped for one. */
	uint64_t helped, help_runs, help_drops;
};

/* kvm: instructions of this name that our processor carried out for the kernel. */
struct engine_helped {
	const char *name; /* Zydis' mnemonic in small letters; lives for ever */
	uint64_t count;
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

/* A counter that describes itself, as KVM's binary statistics do. */
enum engine_stat_type {
	ENGINE_STAT_CUMULATIVE,
	ENGINE_STAT_INSTANT,
	ENGINE_STAT_PEAK,
	ENGINE_STAT_LINEAR_HIST, /* value k counts what lies in [k, k + 1) buckets; the last the
				    rest */
	ENGINE_STAT_LOG_HIST,	 /* value 0 counts 0, value k > 0 what lies in [2^(k-1), 2^k) */
};
enum engine_stat_unit {
	ENGINE_STAT_PLAIN,
	ENGINE_STAT_BYTES,
	ENGINE_STAT_SECONDS,
	ENGINE_STAT_CYCLES,
	ENGINE_STAT_BOOLEAN,
};
struct engine_stat {
	const char *name; /* lives as long as the machine's engine */
	enum engine_stat_type type;
	enum engine_stat_unit unit; /* times @base to the power of @exponent */
	int base, exponent;
	uint32_t bucket_size; /* LINEAR_HIST */
	unsigned n;	      /* values; more than one in histograms */
	const uint64_t *values;
};
typedef void (*engine_stat_fn)(void *arg, const struct engine_stat *s);

struct engine_chips;

/* A port or an address whose writes only say that there is something to do. */
struct engine_doorbell {
	uint64_t addr;
	bool pio, match;
	unsigned size;
	uint64_t data;
	int fd; /* borrowed */
};

struct engine_ops {
	const char *name;
	/*
	 * Could it run this machine here? 0, or -errno with a sentence in @err. Before any sandbox:
	 * what is to be read of /sys or /proc is read now and kept. Of the config's pointers only
	 * the model is looked at, when there is one.
	 */
	int (*probe)(const struct engine_config *config, struct engine_error *err);
	/*
	 * 0, or -errno with a sentence in @err: -EINVAL, -ENOMEM, -EOPNOTSUPP (the config cannot be
	 * honoured here), or what the host's kernel said. The config's pointers must outlive the
	 * machine.
	 */
	int (*create)(const struct engine_config *config, struct engine_vm **ret_vm,
		      struct engine_error *err);
	void (*destroy)(struct engine_vm *vm);
	struct mmu_vm *(*mmu)(struct engine_vm *vm);
	/*
	 * After slot_*(), set_gsi(), msi(), chips_*() or clock_*() gave -errno: the last failure of
	 * the engine's in one of them, as a sentence; "": there was none. The same thread.
	 */
	const char *(*error)(struct engine_vm *vm);
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
	 * (exactly, when the engine can count; ~0: no bound). 0: only what is asked of the vCPU and
	 * not done yet (INIT, SIPI, NMI, the rest of an access) is done, so that it is in its
	 * state.
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
	/*
	 * The rest while the vCPU does not run. What returns int gives 0 or -errno, with the
	 * outputs untouched, when the engine itself failed (never with soft); vcpu_error() then has
	 * the sentence.
	 */
	int (*vcpu_reset)(struct engine_vcpu *v); /* as power-on */
	int (*vcpu_get_state)(struct engine_vcpu *v, struct cpu_state *ret_state);
	int (*vcpu_set_state)(struct engine_vcpu *v, const struct cpu_state *state);
	/* What its guest finds by CPUID. How many. */
	unsigned (*vcpu_cpuid)(const struct engine_vcpu *v,
			       struct cpu_cpuid ret_leaves[ENGINE_CPUID_MAX]);
	uint64_t (*vcpu_icount)(struct engine_vcpu *v);
	/*
	 * The machine's TSC as of now, from where it goes on; the vCPU's own differs by what the
	 * guest made of it (IA32_TSC_ADJUST).
	 */
	int (*vcpu_set_tsc)(struct engine_vcpu *v, uint64_t tsc);
	int (*vcpu_get_tsc)(struct engine_vcpu *v, uint64_t *ret_tsc);
	void (*vcpu_stats)(struct engine_vcpu *v, struct engine_vcpu_stats *ret_stats);
	/* Optional: what was helped, at most @max of it, how many; any thread. */
	unsigned (*vcpu_helped)(struct engine_vcpu *v, struct engine_helped *ret, unsigned max);
	void (*vcpu_mmu_stats)(struct engine_vcpu *v, struct mmu_vcpu_stats *ret_stats);
	/*
	 * NULL: none. Tell @fn of what somebody else (the host's kernel) counts for the machine, or
	 * (@v not NULL) for the vCPU. Any thread. 0; -EOPNOTSUPP: this kernel does not tell;
	 * -errno.
	 */
	int (*stats)(struct engine_vm *vm, struct engine_vcpu *v, engine_stat_fn fn, void *arg);
	/* The vCPU's MMU, for inspection; and the registers of now as the MMU wants them (which the
	 * MMU itself hears of only at the next exit that needs it: tell it by mmu_set_regs()). */
	struct mmu_vcpu *(*vcpu_mmu)(struct engine_vcpu *v);
	int (*vcpu_mmu_regs)(struct engine_vcpu *v, struct mmu_regs *ret_regs);
	/*
	 * A debugger's breakpoints, watchpoints and steps (struct cpu_host_debug says what each
	 * means); NULL ends them. vcpu_run() then returns ENGINE_EXIT_DEBUG, and vcpu_debug_hit()
	 * says why. 0, or -E2BIG.
	 */
	int (*vcpu_set_debug)(struct engine_vcpu *v, const struct cpu_host_debug *debug);
	void (*vcpu_debug_hit)(struct engine_vcpu *v, struct engine_debug_hit *ret_hit);
	/* After ENGINE_EXIT_ERROR or -errno: what failed, as a sentence. */
	const char *(*vcpu_error)(struct engine_vcpu *v);
	/* The last instructions' addresses, newest last. */
	unsigned (*vcpu_history)(struct engine_vcpu *v, uint64_t *rip, unsigned max);
	/* Bytes at a guest linear address, as the vCPU sees it; how many could be read. */
	unsigned (*vcpu_peek)(struct engine_vcpu *v, gva_t gva, void *data, unsigned len);
	unsigned (*vcpu_disassemble)(struct engine_vcpu *v, const uint8_t *bytes, unsigned len,
				     uint64_t rip, char *text, size_t text_len);

	/*
	 * NULL in an engine without interrupt controllers of its own (soft). Any thread, but for
	 * those that save and load: while no vCPU runs.
	 */
	/* ENGINE_IRQCHIP_KERNEL: a line of the I/O APIC, and of the 8259s below 16. */
	int (*set_gsi)(struct engine_vm *vm, unsigned gsi, bool level);
	/* A message, as a write of @data to @addr (0xfee.....) is one. */
	int (*msi)(struct engine_vm *vm, uint64_t addr, uint32_t data);
	/*
	 * For devices with a thread of their own. A guest's write of @size bytes (1, 2, 4, 8; 0: of
	 * any size) to @addr, and of @data only when @match, no longer leaves but counts @fd, an
	 * eventfd, up. 0, -EEXIST (one is there), -EOPNOTSUPP, -errno. @assign false ends it.
	 */
	int (*ioeventfd)(struct engine_vm *vm, const struct engine_doorbell *bell, bool assign);
	/*
	 * Counting @fd up is an edge on the line; with @resample_fd (-1: none) the line stays high
	 * until the guest's EOI, which counts that one up. -EOPNOTSUPP where the chips are not the
	 * engine's. @assign false ends it.
	 */
	int (*irqfd)(struct engine_vm *vm, unsigned gsi, int fd, int resample_fd, bool assign);
	/* ENGINE_IRQCHIP_SPLIT: host->pic_pending() may have changed. */
	void (*pic_intr)(struct engine_vm *vm);
	/* What the engine owns of the chips, into or from devices/' form. */
	int (*chips_save)(struct engine_vm *vm, const struct engine_chips *ret_chips);
	int (*chips_load)(struct engine_vm *vm, const struct engine_chips *chips);
	/*
	 * How often it has executed HLT, when it sleeps in the kernel now (HLT, or waits for SIPI);
	 * -EAGAIN: it does not; -EOPNOTSUPP: this kernel does not say. Any thread; cheap.
	 */
	int64_t (*vcpu_asleep)(struct engine_vcpu *v);
	/* The paravirtual clock, ns since the machine's start. */
	int (*clock_save)(struct engine_vm *vm, uint64_t *ret_ns);
	int (*clock_load)(struct engine_vm *vm, uint64_t ns);
};

/* The chips' states: the caller's memory. NULL: leave that one out. */
struct engine_chips {
	uint64_t now_ns;	   /* the machine's clock, which stands still */
	uint32_t lines;		   /* the GSIs that devices hold high */
	struct lapic_state *lapic; /* one a vCPU */
	struct pic_state *pic;
	struct ioapic_state *ioapic;
	struct pit_state *pit;
};

extern const struct engine_ops engine_soft;
extern const struct engine_ops engine_kvm;

/* "mmio", of KVM_EXIT_MMIO; lives for ever. NULL: no such exit is known. */
const char *engine_kvm_exit_name(unsigned reason);
/*
 * Is there hardware virtualization behind this host's KVM? Else @err says what there is. By the
 * kernel's modules under /sys; before a sandbox.
 */
bool engine_kvm_has_hardware(struct engine_error *err);
/*
 * How this host's KVM virtualizes memory, by its modules' parameters under /sys: read at the first
 * call, which comes before a sandbox, and kept. 1, 0, or -1: not known.
 */
struct engine_kvm_mmu {
	enum mmu_policy policy; /* SHADOW, TDP; KERNEL: not known */
	const char *form;	/* "shadow", "ept", "npt", "unknown" */
	const char *module;	/* "kvm_intel" */
	int8_t nested;		/* a guest may run guests */
	int8_t tdp_mmu;		/* direct tables are built by the newer code, in parallel */
	int8_t ad_bits, pml;	/* EPT's A and D bits, and the log that lives by them, are used */
	int8_t eager_split, mmio_caching, nx_huge_pages;
	int8_t large_pages; /* maps them where the memory behind is in one piece */
};
const struct engine_kvm_mmu *engine_kvm_mmu(void);
/* For the word "common": mask what this KVM cannot show. 0 or -errno. */
int engine_kvm_cpu_limit(int kvm_fd, struct engine_cpu_model *model);
/*
 * What the guest of this engine_kvm's machine sees beyond its model, because the kernel shows it
 * whatever it is told: names, and how many bits there are besides. How many in all.
 */
unsigned engine_kvm_cpu_extra(struct engine_vm *vm, char *names, size_t size);
/*
 * The features that @model shows on the soft engine and this KVM cannot, by name, "sse3 xsave avx",
 * into @names (cut when it is too small). How many, or -errno when the kernel does not say.
 */
int engine_kvm_cpu_check(int kvm_fd, const struct engine_cpu_model *model, char *names,
			 size_t size);

#endif
