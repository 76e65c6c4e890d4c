/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The software x86-64 processor: "silicon". It knows nothing of L0. */
#ifndef UMBRA_CPU_H
#define UMBRA_CPU_H

#include "base/types.h"
#include "cpu/x86.h"

/*
 * How it is used. A machine has one cpu_domain (what its processors share: the frames that hold
 * decoded code, the lock for split locked accesses) and one cpu a virtual processor. L0 fills
 * cpu_state() and cpu_controls(), then calls cpu_run(), which executes until there is a reason to
 * leave and says which in cpu_exit(). One thread runs a cpu at a time; only the calls marked "any
 * thread" may come from others meanwhile.
 *
 * Host addresses. Tables that L0 gives (controls.root) and the frames in their entries are host
 * virtual addresses of this process, at most 48 bits wide. The processor dereferences them: L0
 * vouches for every one it installs.
 */
struct cpu_domain;
struct cpu;

/* A segment register with its hidden part. attr is in the VMX access-rights form (SDM 3C 25.4.1).
 */
struct cpu_seg {
	uint64_t base;
	uint32_t limit; /* in bytes, scaled */
	uint16_t sel;
	uint16_t pad;
	uint32_t attr;
	uint32_t pad2;
};

struct cpu_table {
	uint64_t base;
	uint16_t limit;
};

enum cpu_activity {
	CPU_ACTIVE,
	CPU_HALTED,
	CPU_SHUTDOWN,	   /* triple fault */
	CPU_WAIT_FOR_SIPI, /* L0 does not run such a processor */
};

/* VMX interruption types (SDM 3C 25.8.3). */
enum cpu_event_type {
	CPU_EVENT_EXT_INTR = 0,
	CPU_EVENT_NMI = 2,
	CPU_EVENT_HW_EXCEPTION = 3,
	CPU_EVENT_SOFT_INTR = 4,	 /* INT n */
	CPU_EVENT_PRIV_SW_EXCEPTION = 5, /* INT1 */
	CPU_EVENT_SW_EXCEPTION = 6,	 /* INT3, INTO */
};

/* An event to deliver through the IDT, or one whose delivery was cut short by an exit. */
struct cpu_event {
	bool valid;
	uint8_t type; /* enum cpu_event_type */
	uint8_t vector;
	bool has_error;
	uint8_t insn_len; /* of the INT instruction, for software events: return address is rip +
			     this */
	uint32_t error;
	uint64_t payload; /* CR2 for #PF, DR6 bits for #DB; already in the state when re-injected */
	bool has_payload;
};

/* The FXSAVE image (SDM 2A, FXSAVE64 with REX.W=0 pointers kept as 64-bit), canonical x87/SSE
 * state. */
struct cpu_fx {
	uint16_t fcw, fsw;
	uint8_t ftw; /* abridged: 1 = not empty */
	uint8_t pad;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	struct {
		uint64_t lo;
		uint64_t hi; /* sign and exponent in 15:0 */
	} st[8];	     /* by stack position: st[0] is ST(0) */
	union {
		uint64_t q[2];
		uint32_t d[4];
		uint16_t w[8];
		uint8_t b[16];
	} xmm[16];
	uint8_t rest[96];
} __attribute__((aligned(64)));
static_assert(sizeof(struct cpu_fx) == 512, "an FXSAVE area");

/*
 * Everything architectural, apart from what makes the processor leave (cpu_controls). Between runs
 * L0 reads and writes it freely through cpu_state(), then tells the processor with
 * cpu_state_changed(). rflags is whole between runs (inside a run the arithmetic flags live
 * elsewhere).
 */
struct cpu_state {
	uint64_t gpr[16]; /* in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8.. */
	uint64_t rip, rflags;
	struct cpu_seg seg[6]; /* ES CS SS DS FS GS, in encoding order */
	struct cpu_seg ldtr, tr;
	struct cpu_table gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
	uint64_t pdptr[4]; /* PAE paging's four, loaded with CR3 */
	uint32_t pkru;
	uint64_t dr[4], dr6, dr7;
	/* MSRs that the processor itself keeps. */
	uint64_t star, lstar, cstar, fmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, tsc_aux, misc_enable, spec_ctrl, xss, debugctl, tsc_adjust;
	uint64_t mtrr_def_type, mtrr_fix[11], mtrr_var[16]; /* kept, without effect */
	struct cpu_fx fx;
	uint64_t ymmh[16][2]; /* bits 255:128 of YMM0 to YMM15 */

	enum cpu_activity activity;
	bool int_shadow_sti, int_shadow_movss;
	bool nmi_blocked;
	uint8_t nmi_pending;  /* NMIs that wait, 0..2: L0's, the processor does not look at it */
	uint64_t pending_dbg; /* DR6 bits of a #DB that is still to come (MOV SS, TF after HLT, ..)
			       */
	/* To be delivered at the next cpu_run(); after an exit, what was being delivered then. */
	struct cpu_event event;
};

/* A leaf of CPUID. A leaf without subleaves has subleaf CPU_CPUID_ANY. */
#define CPU_CPUID_ANY (~0u)
struct cpu_cpuid {
	uint32_t leaf, subleaf;
	uint32_t eax, ebx, ecx, edx;
};

enum cpu_paging {
	CPU_PAGING_SHADOW, /* one walk, from controls.root, of a 64-bit table, whatever CR0.PG */
	CPU_PAGING_TDP, /* the guest's own tables, each access translated through controls.root */
};

enum cpu_tdp_format { CPU_TDP_EPT, CPU_TDP_NPT };

/* controls.exits */
#define CPU_CTL_HLT	    BIT(0)
#define CPU_CTL_INVLPG	    BIT(1)
#define CPU_CTL_INVPCID	    BIT(2)
#define CPU_CTL_CR3_LOAD    BIT(3)
#define CPU_CTL_CR3_STORE   BIT(4)
#define CPU_CTL_CR8_LOAD    BIT(5)
#define CPU_CTL_CR8_STORE   BIT(6)
#define CPU_CTL_MOV_DR	    BIT(7)
#define CPU_CTL_RDTSC	    BIT(8)
#define CPU_CTL_RDPMC	    BIT(9)
#define CPU_CTL_PAUSE	    BIT(10)
#define CPU_CTL_MONITOR	    BIT(11)
#define CPU_CTL_MWAIT	    BIT(12)
#define CPU_CTL_CPUID	    BIT(13)
#define CPU_CTL_WBINVD	    BIT(14)
#define CPU_CTL_XSETBV	    BIT(15)
#define CPU_CTL_IRQ_WINDOW  BIT(16) /* leave as soon as an external interrupt could be delivered */
#define CPU_CTL_NMI_WINDOW  BIT(17)
#define CPU_CTL_TASK_SWITCH BIT(18)
#define CPU_CTL_DESC_TABLE  BIT(19) /* LGDT, SIDT, LTR, .. */
#define CPU_CTL_RDRAND	    BIT(20)
#define CPU_CTL_RDSEED	    BIT(21)
#define CPU_CTL_TSC_ICOUNT  BIT(22) /* the TSC counts instructions: tsc_offset + those retired */
#define CPU_CTL_WBNOINVD    BIT(23)
#define CPU_CTL_TDP_AD	    BIT(24) /* EPTP bit 6: accessed and dirty flags in the EPT */
#define CPU_CTL_NO_APIC	    BIT(26) /* CPUID shows no local APIC: its IA32_APIC_BASE disables it */
#define CPU_CTL_PML                                                                                \
	BIT(27) /* with CPU_CTL_TDP_AD: log the pages that become dirty, SDM 3C 29.3.6 */
#define CPU_CTL_TPR_SHADOW                                                                         \
	BIT(25) /* leave with CPU_EXIT_TPR_BELOW when CR8 drops below tpr_threshold */

/* What makes the processor leave. Data, so that a nested guest's are only other values. */
struct cpu_controls {
	uint64_t exits; /* CPU_CTL_* */
	uint32_t exception_bitmap;
	/* A #PF leaves when (bit 14 of exception_bitmap) == ((error & mask) == match); SDM 3C 26.2.
	 */
	uint32_t pf_error_mask, pf_error_match;
	/* A bit set in the mask is L0's: the guest reads the shadow, and leaves on changing it. */
	uint64_t cr0_mask, cr0_shadow, cr4_mask, cr4_shadow;
	const uint8_t *msr_bitmap; /* 4 KiB, SDM 3C 25.6.9; NULL: only MSRs unknown to us leave */
	const uint8_t *io_bitmap;  /* 8 KiB, one bit a port; NULL: every port leaves */
	enum cpu_paging paging;
	enum cpu_tdp_format tdp_format;
	uint8_t tdp_levels; /* 4 or 5; of a shadow root too (0: 4) */
	uint8_t tpr_threshold;
	uint16_t vpid;
	uint64_t root;	     /* host address of the root table */
	uint64_t tsc_offset; /* added to the host's TSC, or to the instruction count */
	uint64_t rand_seed;  /* RDRAND and RDSEED follow from it; 0: the host's */
	/*
	 * CPU_CTL_PML: 512 entries, filled from the last down with the guest physical page
	 * addresses; the processor counts pml_index (of the next free one) down, and leaves when it
	 * would have to log, or to set an accessed flag, with the index outside 0..511.
	 */
	uint64_t *pml;
	uint16_t pml_index;
};

#define CPU_PML_ENTRIES 512

enum cpu_exit_reason {
	CPU_EXIT_NONE,
	CPU_EXIT_KICK,	 /* cpu_kick() */
	CPU_EXIT_ICOUNT, /* the instruction limit was reached */
	CPU_EXIT_HLT,	 /* rip is after it; activity is CPU_HALTED */
	CPU_EXIT_IRQ_WINDOW,
	CPU_EXIT_NMI_WINDOW,
	CPU_EXIT_TRIPLE_FAULT,
	CPU_EXIT_EXCEPTION,	/* intercepted: .exception */
	CPU_EXIT_TDP_VIOLATION, /* EPT violation: .mem */
	CPU_EXIT_TDP_MISCONFIG, /* EPT misconfiguration: .mem */
	CPU_EXIT_NPF,		/* nested page fault (NPT): .mem, .mem.error as #PF's */
	CPU_EXIT_IO,	   /* .io; IN and OUT without string: L0 completes with cpu_complete_in() */
	CPU_EXIT_MSR_READ, /* .msr; L0 sets RAX:RDX and skips, or injects #GP */
	CPU_EXIT_MSR_WRITE,
	CPU_EXIT_CR_ACCESS, /* .cr */
	CPU_EXIT_DR_ACCESS, /* .cr with .cr.num the debug register */
	CPU_EXIT_INVLPG,    /* .gva */
	CPU_EXIT_INVPCID,   /* .invpcid */
	CPU_EXIT_CPUID,
	CPU_EXIT_RDTSC,
	CPU_EXIT_RDTSCP,
	CPU_EXIT_RDPMC,
	CPU_EXIT_RDRAND,
	CPU_EXIT_RDSEED,
	CPU_EXIT_PAUSE,
	CPU_EXIT_MONITOR,
	CPU_EXIT_MWAIT,
	CPU_EXIT_WBINVD,
	CPU_EXIT_XSETBV,
	CPU_EXIT_TASK_SWITCH, /* .task */
	CPU_EXIT_DESC_TABLE,
	CPU_EXIT_TPR_BELOW,
	CPU_EXIT_VMCALL, /* and the other VMX instructions: .insn_info holds the mnemonic's order */
	CPU_EXIT_VMX_INSN,
	CPU_EXIT_DEBUG,	   /* a breakpoint of L0's (cpu_set_host_debug): .debug */
	CPU_EXIT_PML_FULL, /* the modification log has no room; the access is not done */
	CPU_EXIT_REASONS
};

/*
 * Why cpu_run() returned. Unless said otherwise rip is at the instruction that left, nothing of it
 * done, and insn_len is its length: L0 either carries it out and calls cpu_skip(), or changes what
 * was in its way and runs again. An event that was being delivered is in state.event (valid).
 */
struct cpu_exit {
	enum cpu_exit_reason reason;
	uint8_t insn_len;
	uint32_t insn_info;
	union {
		struct {
			uint8_t vector;
			bool has_error;
			bool implicit; /* #PF: by an access to a descriptor table or TSS (SDM
					  3A 4.6.1) */
			uint32_t error;
			uint64_t payload; /* #PF: the address that would go into CR2; #DB: DR6 bits
					   */
		} exception;
		struct {
			uint64_t gpa; /* TDP: guest physical */
			uint64_t gva; /* guest linear, when gva_valid */
			bool gva_valid;
			bool walk;	     /* a guest table on the way to translate gva */
			uint8_t walk_access; /* CPU_ACCESS_* of the access that needed gva */
			bool read, write, fetch, user;
			uint8_t present_perms; /* EPT: what the walk allowed, R W X in bits 0 1 2 */
			uint32_t error;	       /* NPT: #PF-style */
		} mem;
		struct {
			uint16_t port;
			uint8_t size;
			bool in, string, rep;
		} io;
		struct {
			uint32_t index;
			uint64_t value;
		} msr;
		struct {
			uint8_t num;
			bool write;	/* MOV to CR; also LMSW and CLTS (num 0) */
			uint8_t gpr;	/* the operand; 0xff for LMSW and CLTS */
			uint64_t value; /* write: the value the guest wants the register to have */
		} cr;
		struct {
			uint64_t type, pcid, gva;
		} invpcid;
		struct {
			uint16_t sel;
			uint8_t source; /* 0 CALL, 1 IRET, 2 JMP, 3 gate */
		} task;
		struct {
			enum { CPU_DEBUG_STEP, CPU_DEBUG_BREAKPOINT, CPU_DEBUG_WATCH } kind;
			uint8_t access; /* CPU_DEBUG_WATCH: CPU_WATCH_* */
			gva_t gva;	/* of the instruction; CPU_DEBUG_WATCH: of the watchpoint */
		} debug;
		uint64_t gva;
	};
};

/*
 * One instruction, or the delivery of state.event, outside the TLB (cpu_emulate). Addresses are
 * guest linear. A handler returns CPU_MEM_OK, or CPU_MEM_FAULT with *fault filled (the guest's own
 * fault), or CPU_MEM_STOP: leave the instruction undone, cpu_emulate() returns CPU_EMULATE_STOP.
 * Accesses never cross a page.
 */
enum cpu_mem_result { CPU_MEM_OK, CPU_MEM_FAULT, CPU_MEM_STOP };
#define CPU_ACCESS_READ	 0u
#define CPU_ACCESS_WRITE BIT(0)
#define CPU_ACCESS_FETCH BIT(1)
#define CPU_ACCESS_USER	 BIT(2)
#define CPU_ACCESS_IMPLICIT                                                                        \
	BIT(3) /* descriptor tables, TSS: supervisor whatever the CPL; SMAP ignores AC */

struct cpu_fault {
	uint8_t vector;
	bool has_error;
	uint32_t error;
	uint64_t addr;
};

struct cpu_mem_ops {
	enum cpu_mem_result (*read)(void *ctx, gva_t gva, void *data, unsigned len, unsigned access,
				    struct cpu_fault *fault);
	enum cpu_mem_result (*write)(void *ctx, gva_t gva, const void *data, unsigned len,
				     unsigned access, struct cpu_fault *fault);
	/* Would this access be allowed? Changes nothing but accessed and dirty bits. */
	enum cpu_mem_result (*probe)(void *ctx, gva_t gva, unsigned len, unsigned access,
				     struct cpu_fault *fault);
	/* Atomic; *old is what was expected and becomes what was found. OK whether or not it
	 * swapped. */
	enum cpu_mem_result (*cmpxchg)(void *ctx, gva_t gva, void *old, const void *want,
				       unsigned len, struct cpu_fault *fault);
	/* Ports, for string I/O; data is size bytes. */
	enum cpu_mem_result (*port)(void *ctx, uint16_t port, bool in, void *data, unsigned size);
};

enum cpu_emulate_result {
	CPU_EMULATE_DONE, /* executed, or its fault is now in state.event */
	CPU_EMULATE_EXIT, /* it left for another reason: see cpu_exit() */
	CPU_EMULATE_STOP, /* a mem_ops handler said so */
};

struct cpu_domain *cpu_domain_create(void);
void cpu_domain_destroy(struct cpu_domain *d);
/*
 * L0 or a device has just changed guest memory at host address @hpa; also when other memory took
 * its place there. (A call before the change would not do: another processor could decode in
 * between.) Any thread. Code decoded from there is dropped on every processor before it next enters
 * a block.
 */
void cpu_domain_notify_write(struct cpu_domain *d, hpa_t hpa, uint64_t len);

/*
 * Map what every processor of this process needs and a sandbox may forbid to be mapped later:
 * executable memory. cpu_create() does so, too. 0 or -errno.
 */
int cpu_prepare(void);
/* @cpuid is copied. NULL on lack of memory. */
struct cpu *cpu_create(struct cpu_domain *d, const struct cpu_cpuid *cpuid, unsigned count);
void cpu_destroy(struct cpu *c);
/* RESET or INIT (SDM 3A 10.1.1); INIT leaves what the manual says it leaves. */
void cpu_reset(struct cpu *c, bool init);
/* The same for a state without a processor; @signature is CPUID leaf 1's EAX. */
void cpu_state_reset(struct cpu_state *s, bool init, uint32_t signature);

struct cpu_state *cpu_state(struct cpu *c);
struct cpu_controls *cpu_controls(struct cpu *c);
const struct cpu_exit *cpu_exit(const struct cpu *c);
/* After any change of the state or the controls from outside a run, before the next one. */
void cpu_state_changed(struct cpu *c);

/* Execute until there is a reason to leave; also returned by cpu_exit(). */
enum cpu_exit_reason cpu_run(struct cpu *c);
/* Execute exactly one instruction (or deliver one event), then leave with CPU_EXIT_ICOUNT. */
enum cpu_exit_reason cpu_step(struct cpu *c);
enum cpu_emulate_result cpu_emulate(struct cpu *c, const struct cpu_mem_ops *ops, void *ctx);
/*
 * From a mem_ops handler: what follows needs no emulation. A repeated string instruction ends after
 * the element at hand, its registers ahead, and goes on by itself.
 */
void cpu_emulate_enough(struct cpu *c);
/* Leave soon, with CPU_EXIT_KICK; also the next cpu_run() when none is going on. Any thread. */
void cpu_kick(struct cpu *c);

/* Instructions retired since creation, REP iterations counted as one. Exact between runs. */
uint64_t cpu_icount(const struct cpu *c);
/* Leave with CPU_EXIT_ICOUNT when cpu_icount() reaches @limit, exactly. ~0 for none. */
void cpu_set_icount_limit(struct cpu *c, uint64_t limit);

/* Advance rip over the exiting instruction: shadow and RF end, TF may trap. */
void cpu_skip(struct cpu *c);
/* Finish an IN that left: the data goes into AL, AX or EAX; then cpu_skip(). */
void cpu_complete_in(struct cpu *c, uint32_t data);
/* Ask for an exception at the next run. A second one becomes #DF, or a triple fault, by SDM
 * 3A 6.15. */
void cpu_inject_exception(struct cpu *c, uint8_t vector, bool has_error, uint32_t error);
void cpu_inject_page_fault(struct cpu *c, uint32_t error, gva_t cr2);
/* Whether an external interrupt, or an NMI, could be delivered at the next instruction boundary. */
bool cpu_can_interrupt(const struct cpu *c);
bool cpu_can_nmi(const struct cpu *c);

/*
 * The architectural effect of MOV to CR, XSETBV, WRMSR and so on, checks included, for L0 when it
 * intercepted one. 0, or the vector of the fault (error code 0) with nothing changed.
 */
int cpu_set_cr0(struct cpu *c, uint64_t value);
int cpu_set_cr3(struct cpu *c, uint64_t value); /* value includes bit 63 of the operand */
int cpu_set_cr4(struct cpu *c, uint64_t value);
int cpu_set_cr8(struct cpu *c, uint64_t value);
int cpu_set_xcr0(struct cpu *c, uint64_t value);
/*
 * IA32_ARCH_CAPABILITIES. Nothing of the host's speculation shows in an interpreter: RDCL_NO,
 * IBRS_ALL, SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO,
 * BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
 */
#define CPU_ARCH_CAPABILITIES                                                                      \
	(BIT(0) | BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) |        \
	 BIT(15) | BIT(20) | BIT(24) | BIT(26) | BIT(27) | BIT(62))
#define CPU_MICROCODE (1ull << 32) /* IA32_BIOS_SIGN_ID */
/* -1: not an MSR of ours. */
int cpu_rdmsr(struct cpu *c, uint32_t index, uint64_t *value);
int cpu_wrmsr(struct cpu *c, uint32_t index, uint64_t value);
void cpu_cpuid(struct cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
uint64_t cpu_tsc(struct cpu *c);
unsigned cpu_cpl(const struct cpu *c);

/*
 * What the TLB must forget. Each also empties the paging-structure caches as far as it reaches.
 * From the running thread, or while the cpu does not run.
 */
void cpu_tlb_flush_all(struct cpu *c);
/* Every entry made under this TDP or shadow root. */
void cpu_tlb_flush_root(struct cpu *c, uint64_t root);
/* Linear address @gva in the current vpid, all pcids and roots, globals too. */
void cpu_tlb_flush_gva(struct cpu *c, gva_t gva);
/* The current address space: with @global also global entries. Roots of shadow mode: only the
 * current. */
void cpu_tlb_flush_guest(struct cpu *c, bool global);
/* Every entry whose host page is in [hpa, hpa + len). */
void cpu_tlb_flush_hpa(struct cpu *c, hpa_t hpa, uint64_t len);

/*
 * L0's breakpoints, a debugger's, by guest linear address. Each makes cpu_run() return
 * CPU_EXIT_DEBUG:
 *  - a breakpoint before the instruction at its address is begun; but not for the instruction at
 *    which the processor already stands when cpu_run() is called after such an exit, so that
 *    running on passes it. An instruction that an event is delivered in place of hits when the
 *    handler returns to it;
 *  - a watchpoint after the instruction or the delivery of an event that accessed a byte of it, by
 *    whatever form of access (string, vector, stack, descriptor table; not the page walker's);
 *  - single_step after one instruction, or after an event was delivered (the handler's first
 *    instruction is next; an event that waits comes before the instruction). One iteration of a REP
 *    is one step. HLT is a step; the processor then sleeps and the next step is the delivery of
 *    what wakes it. An instruction that faults steps into its handler.
 * Breakpoints cost only in the pages that hold one; the others make execution go one instruction
 * at a time.
 */
#define CPU_HOST_BREAKPOINTS 32
#define CPU_HOST_WATCHES     4
#define CPU_WATCH_READ	     BIT(0)
#define CPU_WATCH_WRITE	     BIT(1)
struct cpu_host_debug {
	bool single_step;
	unsigned breakpoints; /* at most CPU_HOST_BREAKPOINTS */
	gva_t breakpoint[CPU_HOST_BREAKPOINTS];
	struct {
		gva_t gva;
		uint32_t len;
		uint8_t access; /* CPU_WATCH_*: which it stops at */
	} watch[CPU_HOST_WATCHES];
	unsigned watches;
};
/* NULL: none. While the processor does not run. 0, or -E2BIG with nothing changed. */
int cpu_set_host_debug(struct cpu *c, const struct cpu_host_debug *d);

/* What the processor counted of itself. */
struct cpu_stats {
	uint64_t insns, blocks_decoded, blocks_dropped, tlb_misses, tlb_flushes, walks, exits;
	uint64_t exit_count[CPU_EXIT_REASONS];
	uint64_t events_delivered, smc_invalidations;
};
const struct cpu_stats *cpu_stats(const struct cpu *c);
const char *cpu_exit_name(enum cpu_exit_reason reason);

/* The last instructions' addresses, newest last, for a crash report. Returns how many (at most
 * max). */
unsigned cpu_history(const struct cpu *c, uint64_t *rip, unsigned max);
/* Disassemble @len bytes at @rip under the current mode into @text. Returns the length, 0 if bad.
 */
unsigned cpu_disassemble(const struct cpu *c, const uint8_t *bytes, unsigned len, uint64_t rip,
			 char *text, size_t text_len);
/*
 * Its name alone, "(bad)" if it is none; lives for ever. @ret_general: it touches nothing but
 * general registers, RFLAGS, segments and memory, unless it faults; where that is not sure, false.
 */
const char *cpu_mnemonic(const struct cpu *c, const uint8_t *bytes, unsigned len,
			 bool *ret_general);

#endif
