/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kvm engine's inside: what its files share. */
#ifndef UMBRA_ENGINE_KVM_INTERNAL_H
#define UMBRA_ENGINE_KVM_INTERNAL_H

#include <linux/kvm.h>
#include <pthread.h>

#include "engine/engine.h"
#include "engine/engine_internal.h"
#include "engine/kvm/convert.h"

/* ---- sys.c ---- */

/*
 * The one way to the kernel. Retries EINTR for all requests but KVM_RUN. What the request returned
 * (0 or more), or -errno. Any thread.
 */
int kvm_call(int fd, unsigned long request, const void *arg);
/* The same for requests whose argument is a number. */
int kvm_call_n(int fd, unsigned long request, unsigned long arg);
/* A shared mapping of @size bytes of a KVM descriptor; NULL: it failed, *@ret_error is -errno.
 * munmap() it. */
void *kvm_map(int fd, size_t size, uint64_t offset, int *ret_error);
/* "KVM_SET_SREGS2"; lives for ever. */
const char *kvm_request_name(unsigned long request);
/*
 * "KVM_SET_SREGS2: Invalid argument": the last call of this thread's that failed. Valid until the
 * thread's next.
 */
const char *kvm_failure(void);
/* What we refuse ourselves, in place of the kernel. Returns @ret. */
int kvm_refuse(int ret, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Was there one since kvm_forget_failure()? */
bool kvm_failed(void);
void kvm_forget_failure(void);
/*
 * Read $UMBRA_KVM_FAIL, "N[:ERRNO]": the N-th call to the kernel from now on fails with that number
 * (EBUSY), undone; $UMBRA_KVM_LOG, a file to which each call's name is appended; and
 * $UMBRA_KVM_WITHOUT, for kvm_caps_hide(). -EINVAL: one means nothing. While no call is under way.
 */
int kvm_fault_setup(void);

/* ---- caps.c ---- */

/* Asked once, of /dev/kvm and of the VM. Code asks these, never a kernel's version. */
struct kvm_caps {
	bool user_memory, ext_cpuid, get_tsc_khz, immediate_exit;
	bool irqchip, split_irqchip, pit2, irqfd, irqfd_resample, ioeventfd, coalesced_pio,
		signal_msi;
	bool mp_state, vcpu_events, debugregs, xsave, xcrs, sregs2;
	bool exception_payload, triple_fault_event, robust_singlestep;
	bool user_space_msr, msr_filter, tsc_deadline, tsc_control, readonly_mem;
	bool exit_on_emulation_failure, internal_error_data, binary_stats;
	bool adjust_clock, kvmclock_ctrl, vcpu_attributes;
	unsigned manual_protect; /* KVM_DIRTY_LOG_MANUAL_PROTECT_*, KVM_DIRTY_LOG_INITIALLY_SET */
	unsigned xsave2_size;	 /* bytes; 4096 without KVM_CAP_XSAVE2 */
	unsigned nested_state;	 /* bytes; 0: none */
	unsigned dirty_ring;	 /* largest ring, bytes; 0: none */
	unsigned dirty_ring_cap; /* the capability that turns it on */
	unsigned x2apic_api;	 /* flags */
	unsigned guest_debug;	 /* KVM_GUESTDBG_* that are valid; 0: not told */
	unsigned disable_exits;	 /* KVM_X86_DISABLE_EXITS_* */
	unsigned sync_regs;	 /* KVM_SYNC_X86_* */
	unsigned dirty_ring_old, nr_vcpus; /* what older kernels told: */
	unsigned max_vcpus, memslots;
	unsigned run_size;	 /* of the mapping of a vCPU */
	unsigned coalesced_page; /* page of that mapping with the ring of coalesced accesses; 0:
				    none */
};

/*
 * Asks all of it; what Umbra cannot do without is -EOPNOTSUPP, a descriptor that is no KVM's is
 * -ENODEV, with a sentence in @err.
 */
int kvm_caps_read(int kvm_fd, struct kvm_caps *ret_caps, struct engine_error *err);
/*
 * "KVM_CAP_SREGS2,KVM_CAP_XSAVE2": these are not there from now on, as with an older kernel. 0, or
 * -EINVAL: Umbra asks for no such capability.
 */
int kvm_caps_hide(const char *names);
/* The @n-th that is asked for, and whether nothing goes without it; NULL past the last. */
const char *kvm_caps_name(unsigned n, bool *ret_required);
/* Of /dev/kvm or the machine's descriptor: 0 where the kernel does not know it; -errno. */
int kvm_check(int fd, unsigned cap);
int kvm_enable_cap(int fd, unsigned cap, uint64_t arg);
/* @err gets the sentence, @ret is returned. */
int kvm_error(struct engine_error *err, int ret, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* vcpu.requests */
#define KVM_REQ_KICK BIT(0) /* vcpu_run() returns */
#define KVM_REQ_LOOK BIT(1) /* out of KVM_RUN and in again */

/* What debug.c has made of a debugger's wishes. */
struct kvm_debug_reg {
	uint64_t gva;
	uint8_t type, len; /* as DR7 has them */
	uint8_t watch;	   /* which one of want.watch */
};
struct kvm_debug {
	struct cpu_host_debug want;
	struct kvm_debug_reg reg[4];
	unsigned used;
	bool by_step;  /* breakpoints that are in no register: rip is looked up after each step */
	bool by_value; /* and watchpoints: their values are */
	bool passing;  /* one step, over the breakpoint at @stands */
	bool stopped;  /* it has left with ENGINE_EXIT_DEBUG at @stands, and has not run since */
	bool waits;    /* vcpu_run() stops at once, by v->hit */
	uint64_t stands, value[CPU_HOST_WATCHES];
};

struct engine_vcpu {
	struct engine_vm *vm;
	unsigned id;
	int fd;
	struct kvm_run *run;
	struct mmu_vcpu *mmu; /* walks the guest's tables for inspection and emulation */
	struct cpu *cpu;      /* our processor, which helps out: kvm_cpu() */

	/*
	 * A kick sets a bit of @requests, then run->immediate_exit, then looks at @in_run. The vCPU
	 * sets @in_run before the kernel looks at immediate_exit. So either the kernel sees that,
	 * or the kicker sees the vCPU inside and sends the signal.
	 */
	uint32_t requests; /* atomic: KVM_REQ_* */
	uint32_t in_run;   /* atomic: around KVM_RUN */
	pthread_mutex_t thread_lock;
	bool has_thread; /* under thread_lock: somebody is in vcpu_run(), namely */
	pthread_t thread;
	bool pending_io; /* an access was answered; the kernel completes it at the next KVM_RUN */
	bool exit_waits; /* @run holds an exit that vcpu_run() has not dealt with yet */

	struct kvm_dirty_gfn *ring; /* dirty.c; NULL: none */
	uint32_t ring_next;
	bool ring_skewed; /* the kernel has overrun it */
	bool ring_stuck;  /* full at @ring_stuck_at with nothing in it */
	uint32_t ring_stuck_at;
	uint32_t ring_waits; /* atomic: for room in a client's */
	int stats_fd;	     /* stats.c; -1: none */

	struct kvm_help *help; /* help.c's; NULL until it is needed */
	/* quirks.c: its breakpoints are there, on #UD's and #PF's handlers; 0: none */
	uint64_t watched[2];
	struct {
		uint64_t star, lstar, fmask;
	} syscall; /* quirks.c: the MSRs */
	/* debug.c: a debugger uses KVM_SET_GUEST_DEBUG, so quirks.c does not; who sets it clears
	 * @watched */
	bool debugging;
	struct kvm_debug debug; /* debug.c */

	struct engine_debug_hit hit;
	char error[1024];
	struct engine_vcpu_stats stats;
};

struct engine_vm {
	struct engine_config config;
	struct engine_cpu_model model; /* what config.model points at */
	/* Bits that the kernel shows beyond the model, whatever KVM_SET_CPUID2 says (kvm_pvm does).
	 */
	struct cpu_cpuid extra[8];
	unsigned extras;
	struct kvm_caps caps;
	int fd;
	int stats_fd;		 /* stats.c; -1: none */
	struct kvm_dirty *dirty; /* dirty.c's */
	struct kvm_stats *stats; /* stats.c's */
	struct mmu_vm *mmu;
	bool owns_mmu;
	struct cpu_domain *domain; /* of the helping processors; NULL until one is made */
	pthread_mutex_t domain_lock;
	pthread_mutex_t passing_lock; /* help.c: around the passing slot */
	bool has_quirks;	      /* quirks.c */
	unsigned gate_closed;	      /* atomic; changed under gate_lock: no vCPU enters KVM_RUN */
	pthread_mutex_t gate_lock;
	pthread_cond_t gate_cond;
	pthread_mutex_t gather_lock; /* of the ring of gathered accesses: who takes from it */
	pthread_mutex_t irq_lock;
	uint32_t lines;		 /* under irq_lock: the GSIs that are high in the kernel */
	uint32_t eoi_vectors[8]; /* atomic, set under irq_lock: whose EOIs the kernel tells */
	struct engine_trace trace;
	struct kvm_xsave_layout xsave; /* state.c */
	uint64_t msrs_absent;	       /* state.c; atomic: rows of kvm_msr_rows[] */
	unsigned count;
	struct engine_vcpu *vcpus;
};

/* ---- kvm.c ---- */

/* Our processor for this vCPU, made at first need; NULL: no memory. The vCPU's thread, or while it
 * does not run. */
struct cpu *kvm_cpu(struct engine_vcpu *v);
/* The bytes at rip, where they can be had: how many. */
unsigned kvm_peek_code(struct engine_vcpu *v, uint8_t *code, unsigned max);

/* ---- run.c ---- */
enum engine_exit kvm_vcpu_run(struct engine_vcpu *v, uint64_t budget);
/* KVM_REQ_*; any thread. */
void kvm_request(struct engine_vcpu *v, uint32_t request);
/* The signal that makes a thread leave KVM_RUN does nothing else. Once a process; 0 or -errno. */
int kvm_kick_setup(void);
/*
 * What the last exit left half done (a port's or MMIO's answer) is done, so that the state is
 * whole. The vCPU is not in vcpu_run(). 0 or -errno.
 */
int kvm_complete_io(struct engine_vcpu *v);
/*
 * A timer of the local APIC that has run out is seen in IRR only when the vCPU has entered the
 * kernel since: do that, without running the guest. The vCPU is not in vcpu_run(). 0 or -errno.
 */
int kvm_settle(struct engine_vcpu *v);
/*
 * Between the two every vCPU is outside KVM_RUN and stays there. They nest. Any thread that is in
 * no KVM_RUN itself, also under the mmu's locks.
 */
void kvm_gate_close(struct engine_vm *vm);
void kvm_gate_open(struct engine_vm *vm);
/* v->error; returns ENGINE_EXIT_ERROR. */
enum engine_exit kvm_fail(struct engine_vcpu *v, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- slots.c ---- */
/* Tell the kernel of the slot as it is, SLOT_LOGGED among its flags, or (@there false) of its end.
 * 0 or -errno. */
int kvm_slot_set(struct engine_vm *vm, const struct slot_desc *s, bool there);
/* After kvm_dirty_setup(), for the machine's life. */
const struct mmu_ops *kvm_mmu_ops(const struct engine_vm *vm);

/* ---- cpuid.c ---- */
/* vm->model: the config's, as far as the kernel can; from then on config.model is that. */
int kvm_cpuid_setup(struct engine_vm *vm);
/* What the guest sees, what the kernel adds included. How many. */
unsigned kvm_cpuid_leaves(const struct engine_vcpu *v, struct cpu_cpuid leaves[ENGINE_CPUID_MAX]);
/* The model's CPUID; before the vCPU has run. 0 or -errno. */
int kvm_cpuid_set(struct engine_vcpu *v);
/* The components of XCR0 that this KVM can. 0 or -errno. */
int kvm_cpuid_xcr0(int kvm_fd, uint64_t *ret_xcr0);

/* ---- msr.c ---- */
/* Which MSRs the guest is refused, and which come to us. Before the first vCPU. */
int kvm_msr_filter_set(struct engine_vm *vm);
/* Those that the kernel keeps, but we choose. After kvm_cpuid_set(). */
int kvm_msr_init(struct engine_vcpu *v);
/* Does a guest of this model find it (features apart)? */
bool kvm_msr_known(const struct engine_cpu_model *model, uint32_t index);
/* An access that came to us. 0, or 1 for #GP. */
int kvm_msr_read(struct engine_vcpu *v, uint32_t index, uint64_t *value);
int kvm_msr_write(struct engine_vcpu *v, uint32_t index, uint64_t value);

/* ---- state.c: the vCPU is not in vcpu_run(); 0 or -errno, with v->error set ---- */
/* What the kernel keeps of XSAVE, and where. After the caps are known. 0 or -errno. */
int kvm_state_setup(struct engine_vm *vm);
/* Begin with kvm_complete_io(). */
int kvm_state_get(struct engine_vcpu *v, struct cpu_state *ret_state);
int kvm_state_set(struct engine_vcpu *v, const struct cpu_state *state);
/* engine_ops.vcpu_set_tsc, .vcpu_get_tsc, .vcpu_mmu_regs */
int kvm_tsc_set(struct engine_vcpu *v, uint64_t tsc);
int kvm_tsc_get(struct engine_vcpu *v, uint64_t *ret_tsc);
int kvm_mmu_regs(struct engine_vcpu *v, struct mmu_regs *ret_regs);

/* ---- debug.c ---- */
int kvm_set_debug(struct engine_vcpu *v, const struct cpu_host_debug *debug);
/*
 * After KVM_EXIT_DEBUG. True: it is ours, v->hit says what, ENGINE_EXIT_DEBUG. False: it is the
 * guest's, and is asked of the kernel again as a #DB or #BP.
 */
bool kvm_debug_exit(struct engine_vcpu *v);
/* help.c has carried out one instruction for the kernel, @pc is next: was it a step? As above. */
bool kvm_debug_helped(struct engine_vcpu *v, gva_t pc);

/* ---- irqchip.c ---- */
/* The chips, PIT and routes; coalesced ports. Before the first vCPU. */
int kvm_irqchip_create(struct engine_vm *vm);
/* Of kvm_irqchip_create() what must be undone before the vCPUs go. */
void kvm_irqchip_destroy(struct engine_vm *vm);
/* Accesses that the kernel has gathered are carried out, in their order. Before an exit is dealt
 * with, and whenever somebody looks at the devices. */
void kvm_coalesced_drain(struct engine_vcpu *v);
/* ENGINE_IRQCHIP_SPLIT, vCPU 0, before KVM_RUN: the 8259s' interrupt, or a window asked for. 0 or
 * -errno. */
int kvm_pic_inject(struct engine_vcpu *v);
/* engine_ops' */
int kvm_set_gsi(struct engine_vm *vm, unsigned gsi, bool level);
int kvm_msi(struct engine_vm *vm, uint64_t addr, uint32_t data);
int kvm_ioeventfd(struct engine_vm *vm, const struct engine_doorbell *bell, bool assign);
int kvm_irqfd(struct engine_vm *vm, unsigned gsi, int fd, int resample_fd, bool assign);
void kvm_pic_intr(struct engine_vm *vm);
int64_t kvm_vcpu_asleep(struct engine_vcpu *v);
int kvm_chips_save(struct engine_vm *vm, const struct engine_chips *ret_chips);
int kvm_chips_load(struct engine_vm *vm, const struct engine_chips *chips);
int kvm_clock_save(struct engine_vm *vm, uint64_t *ret_ns);
int kvm_clock_load(struct engine_vm *vm, uint64_t ns);

/* ---- dirty.c ---- */
int kvm_dirty_setup(struct engine_vm *vm); /* before the first slot and vCPU: 0 or -errno */
void kvm_dirty_finish(struct engine_vm *vm);
int kvm_dirty_vcpu(struct engine_vcpu *v); /* after the vCPU was made: map its ring */
void kvm_dirty_vcpu_finish(struct engine_vcpu *v);
/* KVM_EXIT_DIRTY_RING_FULL: harvest and make room. 0 or -errno. */
int kvm_dirty_ring_full(struct engine_vcpu *v);
/*
 * Before KVM_RUN, when mmu_needs_load(): waits while the ring of a dirty client has no room for
 * what the vCPU may write. False: requests end that.
 */
bool kvm_dirty_enter(struct engine_vcpu *v);
/* v->requests has something new. */
void kvm_dirty_wake(struct engine_vcpu *v);
/* Rings, not a bitmap: after kvm_dirty_setup(). */
bool kvm_dirty_ring_on(const struct engine_vm *vm);
/* In slot_changed(), before the kernel is told. 0 or -ENOMEM. */
int kvm_dirty_slot(struct engine_vm *vm, const struct slot_desc *from, const struct slot_desc *to);
/* mmu_ops' */
int kvm_dirty_collect(void *priv, const struct slot_desc *slot, mmu_dirty_fn fn, void *arg);
int kvm_dirty_protect(void *priv, const struct slot_desc *slot, const gfn_t *gfns, size_t n);
void kvm_dirty_drain(void *priv);
/* With rings: nothing, or everything when the kernel has overrun one since the last time. */
int kvm_dirty_collect_lost(void *priv, const struct slot_desc *slot, mmu_dirty_fn fn, void *arg);

/* ---- stats.c ---- */
int kvm_stats_open(struct engine_vm *vm); /* after the vCPUs: 0 or -errno */
void kvm_stats_close(struct engine_vm *vm);
/*
 * One value of the vCPU's statistics by the kernel's name ("blocking"), or -EOPNOTSUPP: there is
 * no such; -errno. Any thread.
 */
int64_t kvm_stats_read(struct engine_vcpu *v, const char *name);
/* engine_ops.stats */
int kvm_stats(struct engine_vm *vm, struct engine_vcpu *v, engine_stat_fn fn, void *arg);
/* The config's MMU policy and mechanisms: 0, or -EOPNOTSUPP with the reason. Works before a VM is
 * made (kvm_fd only). */
int kvm_policy_check(const struct engine_config *config, struct engine_error *err);

/* ---- help.c ---- */
/*
 * The kernel gave up on the instruction at rip (KVM_EXIT_INTERNAL_ERROR, emulation). 0: it is done,
 * run on; 1: done, with ENGINE_EXIT_* in *@ret_exit to return; -errno: it could not be, v->error
 * says why.
 */
int kvm_help(struct engine_vcpu *v, enum engine_exit *ret_exit);
/* The same from and to cpu_state(v->cpu), whatever the kernel has. */
int kvm_help_state(struct engine_vcpu *v, enum engine_exit *ret_exit);
/* Before KVM_RUN when run->kvm_valid_regs says that help.c wants registers at each exit: still? */
void kvm_help_quiet(struct engine_vcpu *v);
/* Has a guest table been written that the kernel may have shadows of? They are to be dropped. */
bool kvm_help_stale(const struct engine_vcpu *v);
/* engine_ops.helped */
unsigned kvm_helped(struct engine_vcpu *v, struct engine_helped *ret, unsigned max);
void kvm_help_finish(struct engine_vcpu *v);

/* ---- quirks.c ---- */
/* Once a machine, after the config is known. */
void kvm_quirks_setup(struct engine_vm *vm);
/* After KVM_RUN, ever more rarely: has the guest moved its handlers? */
void kvm_quirks_look(struct engine_vcpu *v);
/* The same with the whole state at hand, which the MMU knows. */
void kvm_quirks_watch(struct engine_vcpu *v, const struct cpu_state *s);
/* After KVM_EXIT_DEBUG: is it one of quirks.c's breakpoints? Then kvm_quirks_help(), as kvm_help().
 */
bool kvm_quirks_hit(const struct engine_vcpu *v);
int kvm_quirks_help(struct engine_vcpu *v, enum engine_exit *ret_exit);

#endif
