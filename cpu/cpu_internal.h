/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of cpu/ share: the processor's inside, decoded instructions, the memory fast path.
 */
#ifndef UMBRA_CPU_INTERNAL_H
#define UMBRA_CPU_INTERNAL_H

#include <setjmp.h>
#include <Zydis/Zydis.h>

#include "base/list.h"
#include "cpu/cpu.h"

struct cpu_insn;
struct cpu_block;
typedef void (*cpu_op_fn)(struct cpu *c, const struct cpu_insn *i);

/*
 * A decoded instruction: 40 bytes. It holds nothing that depends on the linear address it was
 * decoded at, only on (host frame, offset in it, mode word).
 *
 * Registers are byte offsets into struct cpu (r1, r2, r3: the low byte of the register, or AH..BH,
 * so one form serves every size; XMM and x87 operands are plain numbers 0..15) and 8-byte slots
 * into it (base, index: X86_RAX.., CPU_SLOT_ZERO when absent, CPU_SLOT_BIP for RIP-relative, whose
 * disp then counts from the block's start).
 */
struct cpu_insn {
	cpu_op_fn fn;
	union {
		uint64_t imm;	 /* sign-extended; branches: the target's distance from the block's
				    start */
		const void *aux; /* what the family wants (a thunk's descriptor, ..) */
	};
	int64_t disp;
	uint8_t base, index, scale,
		seg; /* seg: X86_ES.. or CPU_SEG_NONE; already resolved for the mode */
	uint8_t r1, r2, r3;
	uint8_t size;  /* operand size in bytes */
	uint8_t asize; /* address size in bytes: 2, 4, 8 */
	uint8_t len;   /* the instruction's length */
	uint8_t idx;   /* instructions of the block before this one */
	uint8_t flags; /* CPU_INSN_* */
	uint16_t off;  /* distance from the block's start */
	uint16_t arg;  /* what the family wants */
};
static_assert(sizeof(struct cpu_insn) == 40, "blocks are walked in cache lines");

#define CPU_INSN_END   0x01 /* the block ends here: the handler sets rip */
#define CPU_INSN_LOCK  0x02
#define CPU_INSN_REP   0x04 /* F3 */
#define CPU_INSN_REPNE 0x08 /* F2 */
#define CPU_INSN_MEM   0x10 /* base, index, .. are valid */
#define CPU_INSN_REX   0x20

/*
 * The mode word: everything but the bytes that decoding depends on. Part of a block's key; kept in
 * struct cpu.mode by cpu_update_mode().
 */
#define CPU_MODE_CODE	0x03u /* 0: 16-bit, 1: 32-bit, 2: 64-bit */
#define CPU_MODE_CODE16 0x00u
#define CPU_MODE_CODE32 0x01u
#define CPU_MODE_CODE64 0x02u
#define CPU_MODE_SS32	0x04u /* SS.B: stack pointer is ESP (64-bit mode: RSP, bit clear) */
#define CPU_MODE_FLAT	0x08u /* CS SS DS ES: base 0, limit 4 GiB, ordinary; or 64-bit mode */
#define CPU_MODE_AC	0x10u /* alignment checks are on (CR0.AM, EFLAGS.AC, CPL 3) */
#define CPU_MODE_NO_X87 0x20u /* x87 must fault: CR0.EM or CR0.TS */
#define CPU_MODE_NO_SSE 0x40u /* SSE must fault: CR0.EM, CR0.TS or no CR4.OSFXSR */
#define CPU_MODE_PROT	0x80u /* CR0.PE and not VM86 */
#define CPU_MODE_LMA	0x100u
#define CPU_MODE_AVX	0x200u /* AVX executes: CR4.OSXSAVE, XCR0 shows it, no CR0.TS */

#define CPU_BLOCK_MAX 32 /* instructions */

/* A run of instructions in one page, private to one processor. */
struct cpu_block {
	uint64_t key_hpa; /* host address of the first byte */
	uint32_t mode;
	uint8_t n;    /* architectural instructions */
	bool crosses; /* its only instruction reaches into the next page, whose host page is hpa2 */
	bool dead;
	uint16_t bytes; /* length of the code */
	uint16_t parts; /* entries of insn[] */
	uint64_t hpa2;
	uint64_t unproved;   /* not 0: compare the bytes at each entry, see domain.c */
	const uint8_t *copy; /* of the bytes, after the instructions */
	struct cpu_block *hash_next;
	struct cpu_block *page_next;  /* blocks of the same host frame */
	struct cpu_block *cross_next; /* when it crosses: blocks with the same second frame */
	struct cpu_block *next[2];    /* chained: [0] fall through, [1] taken; same page only */
	struct cpu_insn insn[];
};

/*
 * TLB entries: layout fixed, a translator will check them inline. A hit is
 *     ((tag ^ key) & mask) == 0, key = ((linear + size - 1) & PAGE_MASK) | tlb_ctx
 * so an access that crosses the page misses. In the low 12 bits of a tag and of tlb_ctx:
 *   bit 0     key: CPL 3.                                entry: 0; masked in when the page is
 * supervisor's bit 1     key: supervisor, SMAP on, AC clear.        entry: 0; masked in when the
 * page is user's bits 11:2 the address space number (vpid, root, pcid). masked out when the page is
 * global (A global page's number is that of its (vpid, root) modulo nothing: a flush of globals
 * sweeps.)
 */
struct cpu_tlb_entry {
	uint64_t tag_r, tag_w; /* tag_w differs from tag_r until a write was checked; ~0: invalid */
	uint64_t mask;
	uint64_t addend; /* host address minus linear address */
};
static_assert(sizeof(struct cpu_tlb_entry) == 32, "see above");
#define CPU_TLB_BITS	   12
#define CPU_TLB_ENTRIES	   (1u << CPU_TLB_BITS)
#define CPU_TLB_CTX_USER   BIT(0)
#define CPU_TLB_CTX_SMAP   BIT(1)
#define CPU_TLB_ASID_SHIFT 2
#define CPU_TLB_ASIDS	   1023u /* 0 is never used: see cpu_emulate() */
#define CPU_ITLB_ENTRIES   1024u

struct cpu_itlb_entry {
	uint64_t tag,
		mask; /* as above; bit 1 unused; SMEP is checked when filled, by separate ctx */
	uint64_t hpa; /* of the page */
};

/* Per processor: the lead part is what handlers touch. */
struct cpu {
	struct cpu_state s; /* first: register operands are offsets into it */
	uint64_t zero;	    /* CPU_SLOT_ZERO */
	uint64_t bip;	    /* CPU_SLOT_BIP: rip at the start of the current block */
	uint64_t lbase[7];  /* what to add to an effective address, by cpu_insn.seg */

	/*
	 * Arithmetic flags inside a run, as LAHF and SETO leave them in AX: low byte OF (0 or 1),
	 * high byte SF ZF - AF - PF 1 CF. The others stay in s.rflags.
	 * cpu_flags_sync()/cpu_flags_load().
	 */
	uint16_t fl;
	uint32_t mode;
	struct cpu_block *blk; /* being executed */
	uint64_t icount;       /* retired, including all of blk while inside it */
	uint64_t run_limit;    /* enter no block that would take icount past it; 0: attention */
	uint64_t tlb_ctx;
	struct cpu_block **chain_from; /* who wants to know the next block */

	/* A page-crossing, emulated or code-page access goes through here. See cpu_mem_w(). */
	uint8_t bounce[64] __attribute__((aligned(64)));
	struct {
		uint64_t lin;
		uint8_t size, first; /* first: bytes in the first page */
		bool pending;	     /* a write that cpu_mem_done() must carry out */
		uint8_t *host[2];    /* where the parts are; NULL inside cpu_emulate() */
	} bounced;

	/* The rest is for cpu-core's files; handlers go through functions. */
	struct cpu_controls ctl;
	struct cpu_exit exit;
	struct cpu_domain *domain;
	struct cpu_tlb_entry *tlb;
	struct cpu_itlb_entry *itlb;
	const struct cpu_mem_ops *mem_ops; /* not NULL inside cpu_emulate() */
	bool enough;			   /* cpu_emulate_enough() */
	void *mem_ctx;
	jmp_buf out; /* cpu_leave() and faults land here */
	uint64_t icount_limit;
	uint32_t attention;    /* atomic: CPU_ATTN_* */
	bool single;	       /* go one instruction at a time (TF, breakpoints, cpu_step) */
	unsigned nested_fault; /* depth of exceptions during delivery */
	struct cpu_stats stats;
	struct cpu_cpuid *cpuid;
	unsigned cpuid_count;
	struct cpu_features *feat; /* what CPUID shows, as bits, see cpuid.c */
	uint8_t maxphyaddr, maxlinaddr_bits;
	struct cpu_host_debug host_debug;
	uint64_t history[64];
	unsigned history_at;
	uint64_t rand_state;
	/* Owned by the named file, allocated in its _init(). */
	struct cpu_cache *cache;     /* block.c */
	struct cpu_mmu_cache *walkc; /* tlb.c, walk.c: asids, paging-structure and gpa caches */
	struct cpu_thunks *thunks;   /* thunk.c */
	struct list domain_link;
	/* Owned by core. */
	uint64_t asid_bits;    /* the address space's number, in place; tlb_ctx may hide it */
	uint64_t fetch_ctx;    /* what tlb_ctx is for the instruction TLB: bit 1 is SMEP */
	uint64_t sys_ctx;      /* what tlb_ctx is for implicit supervisor accesses */
	struct cpu_peer *peer; /* domain.c: its inbox */
	uint8_t cur_len;       /* length of the instruction that cpu_begin() began */
	bool stepping;	       /* cpu_step() */
	bool watching;	       /* data breakpoints: every access takes the slow path */
	uint64_t sti_at; /* s.int_shadow_sti counts only while icount is this: STI ends no block */
	bool was_rf, was_sti, was_movss; /* taken out of the state while one instruction runs */
	uint64_t dbg_hits;		 /* DR6 bits of the data breakpoints that it met */
	int watch_hit;			 /* L0's watchpoint that it met, or -1 */
	uint8_t watch_how;		 /* CPU_WATCH_* */
	struct cpu_fault landed;	 /* what cpu_fault() carries to the landing */
	bool landed_implicit;		 /* a #PF of the walk's: by an implicit supervisor access */
	bool in_one, one_tf;		 /* one instruction runs by itself; TF was set before it */
	uint8_t one_cpl;
	bool kicked;	     /* cpu_kick() is to be answered */
	uint64_t step_limit; /* cpu_step(): ~0 otherwise */
	/* L0's breakpoint there, before the instruction of this number, was reported already. */
	gva_t resume_at;
	uint64_t resume_icount;
	bool host_stepped; /* L0's single step is done and to be reported */
};
static_assert(offsetof(struct cpu, s.gpr) == 0, "register operands are offsets from the start");
#define CPU_SLOT_ZERO (offsetof(struct cpu, zero) / 8)
#define CPU_SLOT_BIP  (offsetof(struct cpu, bip) / 8)
static_assert(CPU_SLOT_BIP < 256 && offsetof(struct cpu, zero) % 8 == 0, "slots are bytes");
#define CPU_SEG_NONE 6

#define CPU_ATTN_KICK	 0x1u
#define CPU_ATTN_CODE	 0x2u /* the domain has code to drop for us */
#define CPU_ATTN_RECHECK 0x4u /* interrupt window, TF, ..: go through the slow path once */

/* ---- flags ------------------------------------------------------------------------------------
 */

#define CPU_FL_OF 0x0001u
#define CPU_FL_CF 0x0100u
#define CPU_FL_PF 0x0400u
#define CPU_FL_AF 0x1000u
#define CPU_FL_ZF 0x4000u
#define CPU_FL_SF 0x8000u

/* The arithmetic flags in rflags' layout, and back. */
static inline uint64_t cpu_flags_arith(const struct cpu *c)
{
	return (c->fl >> 8 & 0xd5) | (uint64_t)(c->fl & 1) << 11;
}

static inline void cpu_flags_set_arith(struct cpu *c, uint64_t rflags)
{
	c->fl = (uint16_t)((rflags & 0xd5) << 8 | 0x200 | (rflags >> 11 & 1));
}

/* Make s.rflags whole; take the arithmetic flags out of it again. */
static inline uint64_t cpu_flags_sync(struct cpu *c)
{
	c->s.rflags = (c->s.rflags & ~X86_FLAGS_ARITH) | cpu_flags_arith(c) | X86_FLAG_ONE;
	return c->s.rflags;
}

/* ---- leaving ----------------------------------------------------------------------------------
 */

/*
 * Faults and exits leave the handler by longjmp, so a handler changes nothing architectural before
 * its last access that may fault. @i is the instruction (rip, flags and icount are made precise
 * from it), or NULL when s.rip is right already and blk is done (event delivery, fetch).
 */
_Noreturn void cpu_fault(struct cpu *c, const struct cpu_insn *i, uint8_t vector);
_Noreturn void cpu_fault_err(struct cpu *c, const struct cpu_insn *i, uint8_t vector,
			     uint32_t error);
_Noreturn void cpu_fault_pf(struct cpu *c, const struct cpu_insn *i, uint32_t error, uint64_t cr2);
/* #DB as a fault (general detect); @dr6: the bits that DR6 gets, the event's payload. run.c. */
_Noreturn void cpu_fault_db(struct cpu *c, const struct cpu_insn *i, uint64_t dr6);
/* c->exit is filled but for reason and insn_len. Nothing of the instruction is done. */
_Noreturn void cpu_leave(struct cpu *c, const struct cpu_insn *i, enum cpu_exit_reason reason);
/*
 * INT n, INT3, INTO, INT1: make s.event the event of @type (CPU_EVENT_SOFT_INTR, ..), or leave when
 * its vector is intercepted. The instruction counts as retired. After cpu_begin() @i is NULL.
 */
_Noreturn void cpu_soft_event(struct cpu *c, const struct cpu_insn *i, uint8_t type,
			      uint8_t vector);
/*
 * The dispatcher must look again before it enters a block: an event, IF, TF, a shadow or a debug
 * register changed. cpu_update_mode() does it for TF and the debug registers. Cheap.
 */
void cpu_recheck(struct cpu *c);
/* Set CPU_ATTN_* and stop the chain of blocks at its next link. Any thread. */
void cpu_attend(struct cpu *c, uint32_t bits);
/* A port access of @size bytes, for I/O breakpoints (CR4.DE). */
void cpu_debug_io(struct cpu *c, uint16_t port, unsigned size);

/*
 * For handlers of rare, complicated instructions. begin: s.rip is at the instruction, s.rflags
 * whole, icount as before it, blk NULL. The handler then works on c->s in plain C (helpers get i ==
 * NULL), and ends with cpu_retire(), which sets rip to the next instruction unless @jumped, counts
 * it, takes the flags from s.rflags, calls cpu_update_mode(), and returns to the dispatcher through
 * a plain return. Such instructions carry CPU_INSN_END.
 */
void cpu_begin(struct cpu *c, const struct cpu_insn *i);
void cpu_retire(struct cpu *c, const struct cpu_insn *i, bool jumped);

/* Recompute mode, lbase, tlb_ctx, single from the state. Cheap enough for every segment load. */
void cpu_update_mode(struct cpu *c);
/* Only tlb_ctx, after CPL, AC or SMAP changed. */
void cpu_update_tlb_ctx(struct cpu *c);
/* CR3, CR4, EFER, .. changed what translations mean: choose the address space number anew. */
void cpu_update_asid(struct cpu *c);

/* ---- going on ---------------------------------------------------------------------------------
 */

/*
 * Handlers end with one of these. With optimization the calls are jumps; without, or under a
 * sanitizer, a chain would grow the stack, so blocks end in the dispatcher.
 *
 * A call stays a call, and the chain eats the stack, when a local's address has escaped (was passed
 * on) and the local is still in scope: keep such locals in an inner block or in a function of their
 * own.
 */
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) &&    \
	!defined(UMBRA_DEBUG)
#define CPU_CHAINING 1
#else
#define CPU_CHAINING 0
#endif

#define CPU_NEXT(c, i)                                                                             \
	do {                                                                                       \
		(i)[1].fn((c), (i) + 1);                                                           \
		return;                                                                            \
	} while (0)

/* Enter @b, whose rip is in s.rip; false when the dispatcher must look first. */
static inline bool cpu_enter(struct cpu *c, struct cpu_block *b)
{
	uint64_t icount = c->icount + b->n;

	if (unlikely(icount > __atomic_load_n(&c->run_limit, __ATOMIC_RELAXED)))
		return false;
	c->icount = icount;
	c->blk = b;
	c->bip = c->s.rip;
	return true;
}

/*
 * End of a block by a direct branch (which 1) or its fall-through (which 0). The dispatcher links
 * the slot only when the next block starts in the page of this one; a branch known to leave it uses
 * CPU_JUMP.
 */
#define CPU_GOTO(c, which, target)                                                                 \
	do {                                                                                       \
		struct cpu_block **goto_slot_ = &(c)->blk->next[which];                            \
		struct cpu_block *goto_ = *goto_slot_;                                             \
		(c)->s.rip = (target);                                                             \
		if (CPU_CHAINING && likely(goto_ != NULL) && cpu_enter((c), goto_)) {              \
			goto_->insn[0].fn((c), goto_->insn);                                       \
			return;                                                                    \
		}                                                                                  \
		(c)->chain_from = goto_slot_;                                                      \
		return;                                                                            \
	} while (0)

/* The dispatcher's quick way from rip to a block; NULL when it is not in the jump cache. */
struct cpu_block *cpu_jump_lookup(struct cpu *c);
/* Goes on at s.rip when its block is in the jump cache, else returns: CPU_JUMP's tail call. */
void cpu_jump(struct cpu *c);

/* End of a block by an indirect branch. */
#define CPU_JUMP(c, target)                                                                        \
	do {                                                                                       \
		(c)->s.rip = (target);                                                             \
		(c)->chain_from = NULL;                                                            \
		if (CPU_CHAINING)                                                                  \
			cpu_jump(c);                                                               \
		return;                                                                            \
	} while (0)

/* ---- memory -----------------------------------------------------------------------------------
 */

static inline uint64_t cpu_slot(const struct cpu *c, uint8_t slot)
{
	return ((const uint64_t *)c)[slot];
}

/* The memory operand's effective address, without segment. */
static inline uint64_t cpu_ea(const struct cpu *c, const struct cpu_insn *i)
{
	uint64_t ea =
		cpu_slot(c, i->base) + (cpu_slot(c, i->index) << i->scale) + (uint64_t)i->disp;

	if (unlikely(i->asize != 8))
		ea = i->asize == 4 ? (uint32_t)ea : (uint16_t)ea;
	return ea;
}

/* Outside 64-bit mode linear addresses wrap at 4 GiB. */
static inline uint64_t cpu_lin_wrap(const struct cpu *c, uint64_t lin)
{
	return (c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 ? lin : (uint32_t)lin;
}

/* The linear address; outside 64-bit mode it wraps at 4 GiB. Segment checks were a prelude of their
 * own. */
static inline uint64_t cpu_lin(const struct cpu *c, const struct cpu_insn *i)
{
	uint64_t lin = cpu_ea(c, i) + c->lbase[i->seg];

	return likely(i->asize == 8) ? lin : cpu_lin_wrap(c, lin);
}

static inline struct cpu_tlb_entry *cpu_tlb_slot(const struct cpu *c, uint64_t lin)
{
	uint64_t vpn = lin >> PAGE_SHIFT;

	/* A sum: neighbours never share a slot, as an access that crosses a page relies on. */
	return &c->tlb[(vpn + (vpn >> CPU_TLB_BITS)) & (CPU_TLB_ENTRIES - 1)];
}

/*
 * Host pointers for @size bytes (a power of two up to 64) of linear memory, or leave with the
 * fault. cpu_mem_r: to read; good until the next cpu_mem call. cpu_mem_w: to write; may be the
 * bounce buffer (contents undefined), so cpu_mem_done() must follow once the bytes are there; no
 * other cpu_mem call between. cpu_mem_rw: the same with the old contents there. After cpu_mem_w/rw
 * nothing can fault: write permission was checked for every byte. @lin has been wrapped and
 * segment-checked.
 */
void *cpu_mem_r_slow(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned size);
void *cpu_mem_w_slow(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned size,
		     bool read);
void cpu_mem_done_slow(struct cpu *c, const struct cpu_insn *i);

static inline void *cpu_mem_r(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned size)
{
	const struct cpu_tlb_entry *e = cpu_tlb_slot(c, lin);
	uint64_t key = ((lin + size - 1) & PAGE_MASK) | c->tlb_ctx;

	if (likely(((e->tag_r ^ key) & e->mask) == 0))
		return (void *)(lin + e->addend);
	return cpu_mem_r_slow(c, i, lin, size);
}

static inline void *cpu_mem_w(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned size)
{
	const struct cpu_tlb_entry *e = cpu_tlb_slot(c, lin);
	uint64_t key = ((lin + size - 1) & PAGE_MASK) | c->tlb_ctx;

	if (likely(((e->tag_w ^ key) & e->mask) == 0))
		return (void *)(lin + e->addend);
	return cpu_mem_w_slow(c, i, lin, size, false);
}

static inline void *cpu_mem_rw(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned size)
{
	const struct cpu_tlb_entry *e = cpu_tlb_slot(c, lin);
	uint64_t key = ((lin + size - 1) & PAGE_MASK) | c->tlb_ctx;

	if (likely(((e->tag_w ^ key) & e->mask) == 0))
		return (void *)(lin + e->addend);
	return cpu_mem_w_slow(c, i, lin, size, true);
}

static inline void cpu_mem_done(struct cpu *c, const struct cpu_insn *i, const void *p)
{
	if (unlikely(p == c->bounce))
		cpu_mem_done_slow(c, i);
}

/*
 * For LOCK when cpu_mem_rw() gave the bounce buffer: put @want (size bytes) where @old still is.
 * False: something else is there now, which is copied to the bounce buffer; compute again. When
 * cpu_mem_rw() gave a real pointer, use the host's own locked instruction on it.
 */
bool cpu_mem_cmpxchg(struct cpu *c, const struct cpu_insn *i, const void *old, const void *want);

/*
 * Guest memory is shared with other processors: one host instruction an access, no tearing where
 * the host does not tear, and nothing for a race detector to see.
 */
#define CPU_DEFINE_RAW(bits, suffix, reg)                                                          \
	static inline uint##bits##_t cpu_raw_ld##bits(const void *p)                               \
	{                                                                                          \
		uint##bits##_t v;                                                                  \
		__asm__ volatile("mov" suffix " %1,%0"                                             \
				 : "=" reg(v)                                                      \
				 : "m"(*(const uint##bits##_t *)p));                               \
		return v;                                                                          \
	}                                                                                          \
	static inline void cpu_raw_st##bits(void *p, uint##bits##_t v)                             \
	{                                                                                          \
		__asm__ volatile("mov" suffix " %1,%0" : "=m"(*(uint##bits##_t *)p) : reg(v));     \
	}
CPU_DEFINE_RAW(8, "b", "q")
CPU_DEFINE_RAW(16, "w", "r")
CPU_DEFINE_RAW(32, "l", "r")
CPU_DEFINE_RAW(64, "q", "r")

/* Loads and stores of the guest's, by linear address: cpu_ld8..64, cpu_st8..64. May leave. */
#define CPU_DEFINE_MEM(bits)                                                                       \
	static inline uint##bits##_t cpu_ld##bits(struct cpu *c, const struct cpu_insn *i,         \
						  uint64_t lin)                                    \
	{                                                                                          \
		return cpu_raw_ld##bits(cpu_mem_r(c, i, lin, bits / 8));                           \
	}                                                                                          \
	static inline void cpu_st##bits(struct cpu *c, const struct cpu_insn *i, uint64_t lin,     \
					uint##bits##_t v)                                          \
	{                                                                                          \
		void *p = cpu_mem_w(c, i, lin, bits / 8);                                          \
		cpu_raw_st##bits(p, v);                                                            \
		cpu_mem_done(c, i, p);                                                             \
	}
CPU_DEFINE_MEM(8)
CPU_DEFINE_MEM(16)
CPU_DEFINE_MEM(32)
CPU_DEFINE_MEM(64)

/* The same for 1, 2, 4 or 8 bytes known at run time; ld zero-extends. */
uint64_t cpu_ld(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned size);
void cpu_st(struct cpu *c, const struct cpu_insn *i, uint64_t lin, uint64_t v, unsigned size);
/* As supervisor whatever the CPL (descriptor tables, TSS, IDT); the access must not cross 4 KiB
 * twice. */
uint64_t cpu_ld_sys(struct cpu *c, uint64_t lin, unsigned size);
void cpu_st_sys(struct cpu *c, uint64_t lin, uint64_t v, unsigned size);
/* Leave with the fault that an access would have, if any; @access is CPU_ACCESS_*. Any length. */
void cpu_probe(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned len,
	       unsigned access);
/* Any length, byte order kept; for FXSAVE and the like. */
void cpu_copy_in(struct cpu *c, const struct cpu_insn *i, void *dst, uint64_t lin, unsigned len);
void cpu_copy_out(struct cpu *c, const struct cpu_insn *i, uint64_t lin, const void *src,
		  unsigned len);

/*
 * Segment checks (SDM 3A 5.3, 5.4) of an access at offset @ea in segment @seg: limit, type,
 * canonical form; leaves with #GP or #SS. Returns the linear address. For handlers that form
 * addresses themselves (stack, strings); a memory operand is checked by a prelude when the mode is
 * not flat.
 */
uint64_t cpu_seg_check(struct cpu *c, const struct cpu_insn *i, unsigned seg, uint64_t ea,
		       unsigned size, bool write);

/*
 * The same of the memory operand, for a handler in decode.c's checks_itself(), which has another
 * fault to find first. In 64-bit mode there is nothing to check before the access; such handlers
 * run at CPL 0 there.
 */
uint64_t cpu_operand_lin(struct cpu *c, const struct cpu_insn *i, unsigned size, bool write);

/* ---- the stack --------------------------------------------------------------------------------
 */

/* The stack pointer's width in bytes in this mode. */
static inline unsigned cpu_stack_size(const struct cpu *c)
{
	if ((c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		return 8;
	return c->mode & CPU_MODE_SS32 ? 4 : 2;
}
void cpu_set_sp(struct cpu *c, uint64_t value); /* only its low part on a 16-bit stack */

/* ---- registers --------------------------------------------------------------------------------
 */

#define CPU_REG8(c, off)  (*(uint8_t *)((char *)(c) + (off)))
#define CPU_REG16(c, off) (*(uint16_t *)((char *)(c) + (off)))
#define CPU_REG32(c, off)                                                                          \
	(*(uint32_t *)((char *)(c) + (off))) /* to read; a write must clear the top */
#define CPU_REG64(c, off) (*(uint64_t *)((char *)(c) + (off)))

/* ---- decoding ---------------------------------------------------------------------------------
 */

/* What a picker sees. zi.operand_count_visible operands come first in op[]. */
struct cpu_dec {
	struct cpu *c;
	uint32_t mode;
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	const uint8_t *bytes;
	struct cpu_insn *end; /* one past *i: room for further parts of the instruction */
	unsigned n_extra;     /* parts that the picker put there */
	bool bare;	      /* pick() sets it: faults before it looks at memory, so no preludes */
	bool chain; /* direct branch: its target lies in the block's own page, flat mode */
};

/*
 * One row a mnemonic. Before pick() the decoder has filled len, idx, off, flags, size (operand
 * width), asize, the memory operand (base, index, scale, seg, disp), r1 r2 r3 (the first, second,
 * third visible register operand) and imm (the first immediate). pick() chooses fn, adjusts, and
 * returns true, or false for #UD. LOCK: pick() must refuse (false) where the manual says #UD.
 *
 * A mnemonic may have rows in several tables (MOV: general in mov, segment registers in segment,
 * control and debug registers in system; PUSH, POP, CALL, JMP, RET: near and general forms in stack
 * and control, the rest in segment). The decoder asks them in turn; the first that returns true has
 * it.
 */
struct cpu_op {
	uint16_t mnemonic; /* ZydisMnemonic */
	uint16_t arg;
	bool (*pick)(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg);
};
struct cpu_op_table {
	const struct cpu_op *op;
	unsigned count;
};
/* One table a family's file; decode.c lists them all. */
extern const struct cpu_op_table cpu_ops_alu, cpu_ops_mov, cpu_ops_shift, cpu_ops_bits,
	cpu_ops_string, cpu_ops_control, cpu_ops_stack, cpu_ops_misc, cpu_ops_system,
	cpu_ops_segment, cpu_ops_fpu, cpu_ops_sse, cpu_ops_avx, cpu_ops_xsave;

/* Byte offset of a GPR in struct cpu (AH..BH and all sizes), 8-byte slot of an address register. */
uint8_t cpu_reg_offset(ZydisRegister reg);
uint8_t cpu_reg_slot(ZydisRegister reg);
/* Shared handlers. */
void cpu_op_ud(struct cpu *c, const struct cpu_insn *i);
void cpu_op_nm(struct cpu *c, const struct cpu_insn *i);

/* ---- features ---------------------------------------------------------------------------------
 */

/* CPUID feature bits by word: enum in cpuid.c's order; tests like cpu_has(c, CPU_FEAT_SMEP). */
/* clang-format off */
#define CPU_FEATURES(F)                                                                            \
	F(FPU, 1, 0, EDX, 0) F(TSC, 1, 0, EDX, 4) F(MSR, 1, 0, EDX, 5) F(PAE, 1, 0, EDX, 6)        \
	F(CX8, 1, 0, EDX, 8) F(APIC, 1, 0, EDX, 9) F(SEP, 1, 0, EDX, 11) F(PGE, 1, 0, EDX, 13)     \
	F(CMOV, 1, 0, EDX, 15) F(PSE36, 1, 0, EDX, 17) F(CLFSH, 1, 0, EDX, 19)                     \
	F(MMX, 1, 0, EDX, 23) F(FXSR, 1, 0, EDX, 24) F(SSE, 1, 0, EDX, 25) F(SSE2, 1, 0, EDX, 26)  \
	F(SSE3, 1, 0, ECX, 0) F(PCLMUL, 1, 0, ECX, 1) F(MONITOR, 1, 0, ECX, 3) F(VMX, 1, 0, ECX, 5)\
	F(SSSE3, 1, 0, ECX, 9) F(CX16, 1, 0, ECX, 13) F(PCID, 1, 0, ECX, 17)                       \
	F(FMA, 1, 0, ECX, 12)   \
	F(AVX, 1, 0, ECX, 28) F(F16C, 1, 0, ECX, 29) F(AVX2, 7, 0, EBX, 5)                         \
	F(SSE41, 1, 0, ECX, 19) F(SSE42, 1, 0, ECX, 20) F(X2APIC, 1, 0, ECX, 21)                   \
	F(MOVBE, 1, 0, ECX, 22) F(POPCNT, 1, 0, ECX, 23) F(TSC_DEADLINE, 1, 0, ECX, 24)            \
	F(AES, 1, 0, ECX, 25) F(XSAVE, 1, 0, ECX, 26) F(RDRAND, 1, 0, ECX, 30)                     \
	F(VME, 1, 0, EDX, 1) F(DE, 1, 0, EDX, 2) F(PSE, 1, 0, EDX, 3) F(MCE, 1, 0, EDX, 7)         \
	F(MTRR, 1, 0, EDX, 12) F(MCA, 1, 0, EDX, 14) F(PAT, 1, 0, EDX, 16)                         \
	F(FSGSBASE, 7, 0, EBX, 0) F(TSC_ADJUST, 7, 0, EBX, 1) F(BMI1, 7, 0, EBX, 3)                \
	F(SMEP, 7, 0, EBX, 7) F(BMI2, 7, 0, EBX, 8) F(ERMS, 7, 0, EBX, 9)                          \
	F(INVPCID, 7, 0, EBX, 10) F(RDSEED, 7, 0, EBX, 18) F(ADX, 7, 0, EBX, 19)                   \
	F(SMAP, 7, 0, EBX, 20) F(CLFLUSHOPT, 7, 0, EBX, 23) F(CLWB, 7, 0, EBX, 24)                 \
	F(SHA, 7, 0, EBX, 29) F(UMIP, 7, 0, ECX, 2) F(PKU, 7, 0, ECX, 3) F(LA57, 7, 0, ECX, 16)    \
	F(RDPID, 7, 0, ECX, 22) F(FSRM, 7, 0, EDX, 4) F(SERIALIZE, 7, 0, EDX, 14)                  \
	F(ARCH_CAP, 7, 0, EDX, 29) F(SPEC_CTRL, 7, 0, EDX, 26)                                     \
	F(XSAVEOPT, 0xd, 1, EAX, 0) F(XSAVEC, 0xd, 1, EAX, 1) F(XGETBV1, 0xd, 1, EAX, 2)           \
	F(XSAVES, 0xd, 1, EAX, 3)                                                                  \
	F(LAHF_LM, 0x80000001, 0, ECX, 0) F(ABM, 0x80000001, 0, ECX, 5)                            \
	F(PREFETCHW, 0x80000001, 0, ECX, 8) F(SYSCALL, 0x80000001, 0, EDX, 11)                     \
	F(NX, 0x80000001, 0, EDX, 20) F(GBPAGES, 0x80000001, 0, EDX, 26)                           \
	F(RDTSCP, 0x80000001, 0, EDX, 27) F(LM, 0x80000001, 0, EDX, 29)
/* clang-format on */
enum cpu_feature {
#define CPU_FEATURE_ENUM(name, leaf, subleaf, reg, bit) CPU_FEAT_##name,
	CPU_FEATURES(CPU_FEATURE_ENUM)
#undef CPU_FEATURE_ENUM
		CPU_FEATURE_COUNT
};
struct cpu_features {
	bool has[CPU_FEATURE_COUNT];
	bool amd; /* the vendor: SYSCALL outside 64-bit mode, no SYSENTER in long mode */
};
static inline bool cpu_has(const struct cpu *c, enum cpu_feature f)
{
	return c->feat->has[f];
}

/* ---- what one file of cpu/ asks of another ------------------------------------------------------
 */

/* event.c: deliver s.event through the IDT or IVT; leaves by cpu_fault() or cpu_leave() on trouble.
 */
void cpu_deliver_event(struct cpu *c);
/* event.c: a fault arose, maybe during a delivery: s.event becomes it, #DF, or triple fault.
 * Returns false for a triple fault. */
bool cpu_raise_event(struct cpu *c, const struct cpu_event *ev);
/* segment.c: descriptor loads and checks, used by events, far transfers and task switches. */
void cpu_load_seg_real(struct cpu *c, unsigned seg, uint16_t sel);
void cpu_load_seg(struct cpu *c, unsigned seg,
		  uint16_t sel); /* MOV Sreg semantics in any mode; may fault */
bool cpu_lin_canonical(const struct cpu *c, uint64_t lin); /* 48 bits, 57 with CR4.LA57 */
/* task.c: switch to the TSS @sel; does not return on a fault. */
enum { CPU_TASK_CALL, CPU_TASK_IRET, CPU_TASK_JMP, CPU_TASK_GATE };
struct cpu_task_switch {
	uint16_t sel;
	uint8_t source; /* as cpu_exit.task.source */
	bool ext;	/* for an event that is not a software interrupt: error codes have bit 0 */
	bool has_error; /* the event's error code is pushed on the new stack */
	uint32_t error;
	uint64_t return_rip, rflags; /* go into the old TSS */
};
void cpu_task_switch(struct cpu *c, const struct cpu_task_switch *t);
/* thunk.c */
int cpu_thunks_init(struct cpu *c);
/* xsave.c: what CPUID leaf 0xd must say for XCR0 as it is now (EBX of subleaf 0 and 1). */
uint32_t cpu_xsave_size(const struct cpu *c, uint64_t features, bool compacted);
/* XINUSE: the components that are not in their initial configuration. */
uint64_t cpu_xsave_in_use(const struct cpu *c);
/* mem.c: one element of INS or OUTS by mem_ops->port; leaves when that does not say CPU_MEM_OK. */
struct cpu_port_access {
	uint16_t port;
	bool in;
	uint8_t size;
	void *data;
};
void cpu_emulate_port(struct cpu *c, const struct cpu_insn *i, const struct cpu_port_access *a);
/* op_system.c: leave with #GP unless the guest may use @size ports at @port (IOPL, TSS I/O bitmap).
 */
void cpu_io_check(struct cpu *c, const struct cpu_insn *i, uint16_t port, unsigned size);
/* system.c */
bool cpu_msr_intercepted(const struct cpu *c, uint32_t index, bool write);
/* cpuid.c: fill feat (zeroed, allocated), maxphyaddr and maxlinaddr_bits from c->cpuid. */
void cpu_features_init(struct cpu *c);
/* features.c: whether CPUID shows what an instruction of Zydis' isa_set needs. */
bool cpu_isa_shown(const struct cpu *c, unsigned isa_set, unsigned mnemonic);
/*
 * walk.c: read @len bytes of guest physical memory, in one page, through the TDP root. May leave
 * with a violation. False, nothing done, in shadow mode: there L0 intercepts CR3 and fills pdptr
 * itself.
 */
bool cpu_gpa_read(struct cpu *c, const struct cpu_insn *i, gpa_t gpa, void *dst, unsigned len);
/* walk.c: flush what the paging-structure caches hold; tlb.c calls it. */
void cpu_walk_flush(struct cpu *c);
/* Code was written at hpa by this processor: drop it here and tell the others. tlb/mem.c calls it.
 */
void cpu_code_written(struct cpu *c, hpa_t hpa, unsigned len);
bool cpu_domain_has_code(const struct cpu_domain *d, hpa_t page);

static inline uint64_t cpu_next_rip(const struct cpu *c, const struct cpu_insn *i)
{
	return c->bip + i->off + i->len;
}

#endif
