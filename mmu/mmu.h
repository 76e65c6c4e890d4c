/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The face of mmu/: machines, vCPUs, registers, faults, guest table writes, flushes. See DESIGN.md.
 */
#ifndef UMBRA_MMU_MMU_H
#define UMBRA_MMU_MMU_H

#include "mmu/dirty.h"
#include "mmu/slot.h"
#include "mmu/types.h"

/* Our physical width: table entries with a higher address bit set are reserved to the processor. */
#define MMU_HOST_WIDTH 48

/* vCPUs as a mask: bit (id % 64) stands for every vCPU with that remainder. */
#define MMU_VCPU_BIT(id) BIT((id) % 64)
#define MMU_VCPUS_ALL	 (~0ull)

enum mmu_flush_kind {
	MMU_FLUSH_ALL,	  /* every translation and everything remembered of table pages */
	MMU_FLUSH_FRAMES, /* translations to the host frames [pfn, pfn + count), globals too */
};

struct mmu_flush {
	enum mmu_flush_kind kind;
	uint64_t vcpus;
	pfn_t pfn;
	uint64_t count;
};

/*
 * The way out, filled by the engine, const, all mandatory but those marked. They are called with
 * the MMU's lock held unless said otherwise: they must not call back into mmu/, and must not wait
 * for a vCPU that is not in guest mode. "Guest mode": the vCPU may use a TLB entry or read one of
 * our tables. A thread leaves guest mode before it calls into mmu/.
 */
typedef void (*mmu_dirty_fn)(void *arg, uint64_t word_index, uint64_t word);

struct mmu_ops {
	/*
	 * Returns once none of these vCPUs uses a translation (or is amid a walk of our tables)
	 * from before the call: those in guest mode have left it, and flush, like the others,
	 * before they enter again, having asked mmu_needs_load().
	 */
	void (*flush_tlb)(void *priv, const struct mmu_flush *flush);
	/* Make these vCPUs leave guest mode soon and ask mmu_load() before they enter. Does not
	 * wait. */
	void (*kick)(void *priv, uint64_t vcpus);
	/*
	 * L0 or a device has written to guest memory: decoded code of these bytes is stale. Called
	 * without the lock from slot_*(), with it when a walker set A or D bits.
	 */
	void (*notify_write)(void *priv, hva_t hva, uint64_t len);
	/*
	 * Optional: wait until a missing page is here (slot_set_missing); @hva may be 0. Without
	 * the lock. 0 or -errno.
	 */
	int (*fetch_page)(void *priv, gpa_t gpa, hva_t hva);
	/*
	 * Optional: every vCPU hands what its modification log holds to mmu_pml_write(); those in
	 * guest mode with the log on leave it for that. Without the lock.
	 */
	void (*drain_pml)(void *priv);

	/* ---- MMU_POLICY_KERNEL only, where the first is mandatory ---- */

	/*
	 * A slot comes (@from NULL), goes (@to NULL), moves, or gets other flags: SLOT_READONLY,
	 * SLOT_LOGGED. 0, or -errno: then the kernel has it as before, and the change is refused
	 * (but that SLOT_LOGGED goes, which is only a pity). Its memory stays mapped until this has
	 * returned. With both of the MMU's locks held.
	 */
	int (*slot_changed)(void *priv, const struct slot_desc *from, const struct slot_desc *to);
	/*
	 * Tell by @fn which pages of the slot were written since it was logged: 64 a word, word 0
	 * begins with its first page. What was told need not be told again before it was in
	 * dirty_protect(). 0, or -errno: some may not have been told.
	 */
	int (*dirty_collect)(void *priv, const struct slot_desc *slot, mmu_dirty_fn fn, void *arg);
	/*
	 * Writes from now on to these frames of the slot (rising; @gfns NULL: to all of it) are
	 * noticed; of what dirty_collect() has not told yet nothing may be lost. 0 or -errno.
	 */
	int (*dirty_protect)(void *priv, const struct slot_desc *slot, const gfn_t *gfns, size_t n);
};

/* Seen in slot_changed() only: writes to the slot are noticed. */
#define SLOT_LOGGED BIT(1)

struct mmu_config {
	enum mmu_policy policy;
	enum mmu_format tdp_format; /* MMU_FORMAT_EPT (also when zero) or MMU_FORMAT_NPT */
	uint8_t tdp_levels; /* 4, 5; 0: 5 if the guest's physical addresses have over 48 bits */
	uint64_t
		max_table_bytes; /* bound on table pages; 0: 32 MiB + 1/64 of what is named here: */
	uint64_t ram_bytes;
	uint8_t max_page_level; /* 1, 2 or 3: the largest pages that we build; 0: 3 */
	uint32_t disable;	/* MMU_NO_*, to measure what a mechanism brings */
};

/* Each names the counter that stays zero (split and targeted flushes: as it would be) without it.
 */
#define MMU_NO_UNSYNC	   BIT(0)  /* mmu_unsynced */
#define MMU_NO_PREFETCH	   BIT(1)  /* pf_prefetched */
#define MMU_NO_ROOT_CACHE  BIT(2)  /* root_cache_hit */
#define MMU_NO_FLOOD	   BIT(3)  /* mmu_flooded, but for misaligned writes */
#define MMU_NO_MMIO_CACHE  BIT(4)  /* pf_mmio_spte_created, pf_mmio_cached */
#define MMU_NO_TARGETED	   BIT(5)  /* targeted_tlb_flush: all vCPUs, not those that used the page */
#define MMU_NO_COLLAPSE	   BIT(6)  /* lpages_collapsed */
#define MMU_NO_LARGE	   BIT(7)  /* pages_2m, pages_1g: all entries map 4 KiB */
#define MMU_NO_SPLIT	   BIT(8)  /* lpages_split: a large entry that is in the way is dropped */
#define MMU_NO_EAGER_SPLIT BIT(9)  /* lpages_eager_split: when the log starts, by no fault */
#define MMU_NO_PARALLEL	   BIT(10) /* pf_parallel: direct faults one at a time, as all others */
#define MMU_NO_RECLAIM	   BIT(11) /* mmu_recycled: the bound is MMU_RECLAIM_LIFT times as high */
#define MMU_NO_ALL	   BITS(11, 0)

#define MMU_RECLAIM_LIFT 16

/*
 * 0, -EINVAL, -ENOMEM. @ops and @priv must outlive the machine, or mmu_detach(). @ops NULL: as
 * after that.
 */
int mmu_vm_create(const struct mmu_config *config, const struct mmu_ops *ops, void *priv,
		  struct mmu_vm **ret_vm);
/* After all its vCPUs and dirty clients; NULL is fine. */
void mmu_vm_destroy(struct mmu_vm *vm);

/*
 * The machine changes its engine. Between the two calls slots, L0's access to memory and dirty
 * clients go on; nothing runs the guest.
 *
 * mmu_detach(): all vCPUs are outside guest mode and stay there; afterwards no op is called any
 * more. The engine calls it before it destroys its mmu_vcpus. What was written until then is told
 * to the clients, our tables are dropped. 0, or -errno: the log of the engine could not be had, so
 * that everything counts as dirty.
 * mmu_attach(): with no mmu_vcpu left. Of @config all but the bound on table pages is taken. Under
 * MMU_POLICY_KERNEL every slot is told by slot_changed(). 0, -EINVAL (attached already, or
 * mmu_vm_create()'s reasons), or an op's error, then detached as before.
 */
int mmu_attach(struct mmu_vm *vm, const struct mmu_config *config, const struct mmu_ops *ops,
	       void *priv);
int mmu_detach(struct mmu_vm *vm);

/* @id: 0.., each once. May come and go while others run. */
int mmu_vcpu_create(struct mmu_vm *vm, uint32_t id, struct mmu_vcpu **ret_vcpu);
void mmu_vcpu_destroy(struct mmu_vcpu *vcpu);
struct mmu_vm *mmu_vcpu_vm(struct mmu_vcpu *vcpu);

/* With all vCPUs out of guest mode; each asks mmu_load() before it enters again. -EINVAL also from
 * or to MMU_POLICY_KERNEL. */
int mmu_set_policy(struct mmu_vm *vm, enum mmu_policy policy);
enum mmu_policy mmu_get_policy(struct mmu_vm *vm);
/* Which mechanisms are off, of MMU_NO_*; as mmu_set_policy(), all tables are dropped. */
void mmu_set_disable(struct mmu_vm *vm, uint32_t disable);

/* ---- A vCPU's paging state. These are called by the vCPU's own thread only. ---- */

/* What the guest's registers say. The only place where mmu/ sees them. */
struct mmu_regs {
	uint64_t cr0, cr3, cr4, efer;
	uint64_t pdptr[4]; /* PAE paging: what the last load of CR3 put into the registers */
	uint32_t pkru;
	uint8_t maxphyaddr; /* the guest's, 32..52; the same for all vCPUs of a machine */
	bool gbpages;	    /* CPUID 0x80000001 EDX[26]: 1-GiB pages in long mode */
};

/*
 * Take the registers over and compute the role; cheap when nothing changed, so call it whenever
 * something may have. When the role or CR3 changed under shadow, mmu_load() is due, and the engine
 * drops the TLB entries that the change of control register drops by the manual.
 */
void mmu_set_regs(struct mmu_vcpu *vcpu, const struct mmu_regs *regs);
void mmu_set_pkru(struct mmu_vcpu *vcpu, uint32_t pkru);
/*
 * MOV to CR3, before mmu_set_regs() hears of it; @pdptr for PAE paging, else NULL. Brings unsynced
 * tables into step, unless bit 63 is set (CR4.PCIDE: nothing is flushed). The engine drops TLB
 * entries by the manual.
 */
void mmu_new_cr3(struct mmu_vcpu *vcpu, uint64_t cr3, const uint64_t pdptr[4]);
/*
 * Read and check the four PDPTEs at @cr3. 0; 1: a reserved bit is set, so #GP(0); absent memory
 * reads as ones. @maxphyaddr and paging come from @regs, nothing from the vCPU.
 */
int mmu_read_pdptrs(struct mmu_vcpu *vcpu, const struct mmu_regs *regs, uint64_t cr3,
		    uint64_t ret_pdptr[4]);

/* INVLPG at @gva: tables in step for it. The engine then drops the vCPU's TLB entries. */
void mmu_invlpg(struct mmu_vcpu *vcpu, gva_t gva);

enum mmu_invpcid {
	MMU_INVPCID_ADDRESS,
	MMU_INVPCID_SINGLE,
	MMU_INVPCID_ALL_GLOBAL,
	MMU_INVPCID_ALL,
};
void mmu_invpcid(struct mmu_vcpu *vcpu, enum mmu_invpcid type, uint32_t pcid, gva_t gva);
/* The guest flushed its TLB by other means (CR4.PGE, CR0.PG, task switch, …). */
void mmu_flush_guest_tlb(struct mmu_vcpu *vcpu);

/* Results of mmu_load() and mmu_page_fault() that are not -errno. */
enum mmu_result {
	MMU_RETRY,   /* run the guest (again) */
	MMU_EMULATE, /* one instruction through mmu_gva_to_gpa() and slot_*(); a write to a table */
	MMU_INJECT,  /* deliver fault.guest */
	MMU_MMIO,    /* fault.gpa is no memory (or ROM, written to): emulate towards the bus */
	MMU_WAIT,    /* fault.gpa's page is on its way (slot_set_missing) */
	MMU_NESTED_EXIT, /* fault.guest goes to L1 as an exit */
	MMU_RING_FULL,	 /* leave the vCPU loop until its dirty ring has room */
};

struct mmu_root {
	hpa_t hpa;    /* of the topmost table */
	uint64_t tag; /* EPTP for EPT; otherwise == hpa. Differs whenever the root does */
	enum mmu_format format;
	uint8_t level; /* 4 or 5 */
	bool pml;      /* run with the page-modification log on (EPT) */
};

/* Is mmu_load() due? An atomic read; ask before every entry to guest mode, after in-guest-mode is
 * set. */
bool mmu_needs_load(struct mmu_vcpu *vcpu);
/*
 * The root to enter with; builds it where there is none. MMU_RETRY (0), MMU_RING_FULL or -errno.
 * Under MMU_POLICY_KERNEL there is no root, and only the ring is looked at.
 */
int mmu_load(struct mmu_vcpu *vcpu, struct mmu_root *ret_root);
/* Let go of all roots (the vCPU is reset or goes away). */
void mmu_unload(struct mmu_vcpu *vcpu);

/* What the processor said beside the access. */
#define MMU_PF_PRESENT                                                                             \
	BIT(0) /* #PF error code P; EPT violation: an entry was readable… (any of 5:3) */
#define MMU_PF_RSVD	 BIT(1) /* #PF error code RSVD; EPT misconfiguration; #NPF RSVD */
#define MMU_PF_GVA_VALID BIT(2) /* @gva is right */
#define MMU_PF_TABLE	 BIT(3) /* TDP: the access was the walk's own, to a guest table */

struct mmu_fault {
	const uint64_t addr;   /* shadow: the gva; TDP: the gpa; TDP of L2: the ngpa */
	const gva_t gva;       /* the linear address, when known */
	const uint32_t access; /* MMU_ACC_*; with MMU_PF_TABLE the access to the table: write to set
				  A or D */
	const uint32_t flags;  /* MMU_PF_* */
	const uint32_t walk_access; /* with MMU_PF_TABLE: the access that the walk was made for */

	gpa_t gpa; /* what the address is in the guest's memory, where that was found out */
	struct guest_fault guest; /* with MMU_INJECT and MMU_NESTED_EXIT */
	bool fixed;		  /* an spte was made or changed */
	bool write_tracked;	  /* with MMU_EMULATE: the page is a guest table */
};

/*
 * The processor's #PF under shadow; EPT violation, EPT misconfiguration or #NPF under TDP. Called
 * out of guest mode, never under MMU_POLICY_KERNEL. Returns enum mmu_result or -errno (-ENOMEM: no
 * table page could be had).
 */
int mmu_page_fault(struct mmu_vcpu *vcpu, struct mmu_fault *fault);

/*
 * Translate for emulation, descriptor loads, inspection. Sets guest A and D bits as the processor
 * would, unless MMU_ACC_PEEK. 0; 1: ret->fault holds the guest's fault (MMU_ACC_PEEK: only for
 * entries not present or reserved); -errno.
 */
int mmu_gva_to_gpa(struct mmu_vcpu *vcpu, gva_t gva, uint32_t access, struct mmu_walk_result *ret);

/*
 * @len bytes at @gpa were just written, by an instruction that was emulated or by L0: entries made
 * from them are made anew or dropped. Not needed after slot_write(), slot_cmpxchg() and
 * slot_unmap(), which call it themselves. Any thread.
 */
void mmu_track_write(struct mmu_vm *vm, gpa_t gpa, uint64_t len);
/*
 * As slot_write() and slot_cmpxchg(), by @vcpu's emulated instruction: knows who writes (flood
 * detection, entries made anew in the vCPU's role).
 */
int mmu_guest_write(struct mmu_vcpu *vcpu, gpa_t gpa, const void *data, uint64_t len);
int mmu_guest_cmpxchg(struct mmu_vcpu *vcpu, gpa_t gpa, uint64_t *expected, uint64_t desired,
		      unsigned size);
/* A 16-byte aligned pair, for CMPXCHG16B; else as above. */
int mmu_guest_cmpxchg16(struct mmu_vcpu *vcpu, gpa_t gpa, uint64_t expected[2],
			const uint64_t desired[2]);

/* Is the frame a guest table that we shadow, write-protected or unsynced? A hint, without the lock.
 */
bool mmu_is_tracked(struct mmu_vm *vm, gpa_t gpa);
/* Drop the shadows of a frame, so that it can be written without emulation. */
void mmu_unprotect(struct mmu_vm *vm, gfn_t gfn);

/* Frames that the processor's modification log holds (DIRTY_NOTICE_PML). Any thread, not inside
 * mmu_ops. */
void mmu_pml_write(struct mmu_vcpu *vcpu, const gpa_t *gpas, size_t n);
/* Pages that the kernel's ring of that vCPU holds (MMU_POLICY_KERNEL); what names none is passed
 * over. Any thread, not inside mmu_ops but drain_pml. */
void mmu_kernel_log(struct mmu_vcpu *vcpu, const struct dirty_ring_entry *pages, size_t n);

/* ---- Nested: L1 runs L2 with EPT of its own (guest_mmu), or shadows it (root_mmu serves). ---- */

struct mmu_nested_regs {
	uint64_t eptp;	       /* L1's */
	bool ept_execute_only; /* what L1 was told of EPT's capabilities */
	struct mmu_regs guest; /* L2's */
};
/* From now on faults are L2's: mmu is guest_mmu, walk_mmu is nested_mmu. -EINVAL: a bad EPTP. */
int mmu_enter_nested(struct mmu_vcpu *vcpu, const struct mmu_nested_regs *regs);
void mmu_leave_nested(struct mmu_vcpu *vcpu);
/* L1's INVEPT; @eptp 0: all. */
void mmu_invept(struct mmu_vcpu *vcpu, uint64_t eptp);

/* Drop every table of the machine; they are built anew on demand. */
void mmu_zap_all(struct mmu_vm *vm);

/* Checks every invariant (DESIGN.md); the count of violations, the first told in @text. Any time.
 */
unsigned mmu_audit(struct mmu_vm *vm, char *text, size_t size);

#endif
