/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by the core only: block cache, code frames, TLB and walker. No instruction family looks
 * here. */
#ifndef UMBRA_CPU_CORE_H
#define UMBRA_CPU_CORE_H

#include "cpu/cpu_internal.h"

/* ---- decode.c ---------------------------------------------------------------------------------
 */

/* A block key's mode: one instruction and no way on. Never in struct cpu.mode. */
#define CPU_MODE_ONE 0x80000000u

#define CPU_PARTS_MAX	8 /* of an instruction: preludes, itself, what its picker added */
#define CPU_BLOCK_PARTS (CPU_BLOCK_MAX * CPU_PARTS_MAX + 1)

/* What decoding works on: bytes in, instructions out. */
struct cpu_decoder {
	struct cpu *c;
	const uint8_t *bytes; /* of the block, up to the page's end or the second page's */
	unsigned len;	      /* how many there are */
	unsigned page_off;    /* where in its page the block starts */
	unsigned max;	      /* instructions */
	unsigned n, parts;    /* results: instructions, entries of insn[] with the block's end */
	unsigned used;	      /* bytes */
	struct cpu_insn insn[CPU_BLOCK_PARTS];
};

/*
 * Decode a block. False when not even one instruction is complete within @len: the rest is in the
 * next page. Undecodable bytes become an instruction that raises the right fault.
 */
bool cpu_decode(struct cpu_decoder *d);
void cpu_decode_init(struct cpu *c);

/* ---- block.c ----------------------------------------------------------------------------------
 */

#define CPU_JUMP_BITS 13

struct cpu_cache;
int cpu_cache_init(struct cpu *c);
void cpu_cache_finish(struct cpu *c);
/* The block at s.rip, decoded now if need be. May leave with a fetch fault. @one: CPU_MODE_ONE. */
struct cpu_block *cpu_block_get(struct cpu *c, bool one);
/* Drop what was decoded from a host frame; safe while one of them executes. */
void cpu_cache_drop(struct cpu *c, uint64_t pfn);
void cpu_cache_drop_all(struct cpu *c);
/* The block that cpu_emulate() executes from @d's result. */
struct cpu_block *cpu_block_scratch(struct cpu *c, const struct cpu_decoder *d);
struct cpu_decoder *cpu_block_decoder(struct cpu *c);

/* ---- domain.c ---------------------------------------------------------------------------------
 */

int cpu_peer_init(struct cpu *c);
void cpu_peer_finish(struct cpu *c);
/* This processor begins, or ends, to execute. */
void cpu_peer_enter(struct cpu *c);
void cpu_peer_leave(struct cpu *c);
/* Carry out what others asked for: the answer to CPU_ATTN_CODE. */
void cpu_peer_drain(struct cpu *c);
/*
 * Bytes [hpa, hpa + len), in one frame, are about to be executed. 0: from now on no store to them
 * goes unnoticed. Otherwise a number for cpu_domain_proved(): until that is true, compare.
 */
uint64_t cpu_domain_mark(struct cpu *c, hpa_t hpa, unsigned len);
bool cpu_domain_proved(struct cpu_domain *d, uint64_t seq);
void cpu_domain_split_lock(struct cpu_domain *d);
void cpu_domain_split_unlock(struct cpu_domain *d);

/* ---- tlb.c, walk.c ----------------------------------------------------------------------------
 */

#define CPU_SPACES	     16u /* number 0 is nobody's */
#define CPU_NUMBERS	     64u /* of a space; 0 is nobody's */
#define CPU_SLOTS	     64u /* address spaces that a space remembers */
#define CPU_ASID_SPACE_SHIFT 8u
#define CPU_ASID_SPACE_MASK  0xf00ull
#define CPU_ASID_MASK	     0xffcull

#define CPU_PSC_ENTRIES	 1024u
#define CPU_GPA_ENTRIES	 4096u
#define CPU_LARGE_BITS	 16384u
#define CPU_HUGE_BITS	 1024u
#define CPU_WFILTER_BITS 65536u
#define CPU_TLB2_SETS	 4096u
#define CPU_FRAME_HINTS	 16384u
#define CPU_HINT_SETS	 4u
#define CPU_TLB2_WAYS	 4u

/* What the walker needs to know of the registers; fixed when they change (cpu_update_asid()). */
struct cpu_walk_mode {
	uint8_t levels; /* 0: no paging; 2: 32-bit; 3: PAE; 4; 5 */
	bool tdp, wp, nxe, pge, pke, pse, smep;
	bool fault_i;	  /* error codes tell fetches */
	uint8_t pse_bits; /* physical width that a 4 MiB entry of 32-bit paging can name */
	uint64_t root;
	uint64_t addr;			 /* the address bits of an entry */
	uint64_t rsvd[6], rsvd_large[6]; /* by level */
};

/* Translations of a space share everything but the number. Globals are the space's. */
struct cpu_space {
	bool used;
	uint8_t paging, tdp_format;
	uint16_t vpid;
	uint32_t role;
	uint64_t root; /* TDP */
	uint64_t stamp;
	uint64_t id;  /* of its globals in the second level */
	uint8_t next; /* the first number not yet given out */
	struct cpu_number {
		uint64_t id;   /* in the second level, where numbers need no recycling */
		uint64_t root; /* shadow */
		uint32_t pkru;
		uint16_t pcid;
		uint8_t n; /* the number */
		bool used;
	} slot[CPU_SLOTS];
};

/* From a linear 2 MiB region to its last-level table. */
struct cpu_psc_entry {
	uint64_t tag;	/* region | generation | asid bits */
	uint64_t table; /* host address | CPU_PSC_* */
};
#define CPU_PSC_W     BIT(0)
#define CPU_PSC_U     BIT(1)
#define CPU_PSC_NX    BIT(2)
#define CPU_PSC_STORE BIT(3) /* the table may be written: TDP allows it */

/* From a guest frame to the host's. */
struct cpu_gpa_entry {
	uint64_t tag;  /* gpa of the page | generation */
	uint64_t host; /* hpa | CPU_TDP_* */
};
#define CPU_PSC_GEN_SHIFT 12
#define CPU_PSC_GENS	  512u
#define CPU_TDP_R	  BIT(0)
#define CPU_TDP_W	  BIT(1)
#define CPU_TDP_X	  BIT(2)
#define CPU_TDP_STORE	  BIT(3) /* may be written as it stands: its dirty flag needs nothing */

/* Second level: found by page and @id, moved to the first with the number of now. */
struct cpu_tlb2_entry {
	struct cpu_tlb_entry e;
	uint64_t id;
};

struct cpu_mmu_cache {
	struct cpu_walk_mode mode;
	unsigned cur_space;
	struct cpu_number *cur;		/* in cur_space */
	uint64_t cur_id, cur_global_id; /* of the current number and space */
	uint64_t last_id;
	uint64_t stamp;
	uint32_t psc_gen;
	uint64_t gpa_root; /* whose the gpa cache is */
	uint32_t gpa_gen;  /* 1..4095 */
	struct cpu_space space[CPU_SPACES];
	struct cpu_psc_entry psc[CPU_PSC_ENTRIES];
	struct cpu_gpa_entry gpa[CPU_GPA_ENTRIES];
	/* Regions of 2 MiB, of 1 GiB, of linear memory that had a fragment of a larger page;
	 * hashed. */
	uint64_t large[CPU_LARGE_BITS / 64];
	uint64_t huge[CPU_HUGE_BITS / 64];
	/* Host frames that had a write entry. */
	uint64_t wfilter[CPU_WFILTER_BITS / 64];
	/* By host frame, hashed: in which sets translations to it may be; see note_frame(). */
	uint16_t hint[CPU_FRAME_HINTS][CPU_HINT_SETS];
	struct cpu_tlb2_entry tlb2[CPU_TLB2_SETS][CPU_TLB2_WAYS];
	uint8_t tlb2_next[CPU_TLB2_SETS];
};

/* A translation, as the walker found it. */
struct cpu_xlat {
	hpa_t page;
	bool user, global;
	bool read;	  /* false: executable only */
	bool write;	  /* by anyone who may read */
	bool write_super; /* by the supervisor only: CR0.WP is clear */
	uint8_t shift;	  /* of the guest's page */
};

int cpu_tlb_init(struct cpu *c);
void cpu_tlb_finish(struct cpu *c);
/* Translate for @access (CPU_ACCESS_*) or leave. */
void cpu_walk(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned access,
	      struct cpu_xlat *x);
/* The same through the TLB; the host address of @lin. For writes: *code tells whether the frame has
 * code. */
void *cpu_translate(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned access,
		    bool *code);
/* Host address of an instruction's byte. */
hpa_t cpu_fetch(struct cpu *c, uint64_t lin);
/* Forget all translations for fetches. */
void cpu_tlb_drop_fetch(struct cpu *c);
/* Take away the write entries of @n host frames. */
void cpu_tlb_drop_write(struct cpu *c, const uint64_t *pfn, unsigned n);
void cpu_tlb_drop_write_all(struct cpu *c);

/* ---- debug.c ----------------------------------------------------------------------------------
 */

/* Note the data breakpoints that an access meets; @how: CPU_WATCH_*. */
void cpu_debug_data(struct cpu *c, uint64_t lin, unsigned len, unsigned how);
/* Only L0's. */
void cpu_debug_host_data(struct cpu *c, uint64_t lin, unsigned len, unsigned how);
/* DR6 bits of the instruction breakpoints at @lin. */
uint64_t cpu_debug_insn(const struct cpu *c, uint64_t lin);
bool cpu_debug_host_insn(const struct cpu *c, uint64_t lin);
/* Has L0 a breakpoint in the page of @lin? Then the fetch TLB does not keep it, so that every
 * instruction there comes by the dispatcher's careful way. */
bool cpu_debug_host_page(const struct cpu *c, uint64_t lin);
bool cpu_debug_watching(const struct cpu *c);

/* ---- run.c, emulate.c -------------------------------------------------------------------------
 */

/* What longjmp() to struct cpu.out says. */
enum { CPU_LAND_FAULT = 1, CPU_LAND_LEAVE, CPU_LAND_EVENT, CPU_LAND_STOP };

/* s.rip, icount and rflags as before instruction @i; blk is done. */
void cpu_make_precise(struct cpu *c, const struct cpu_insn *i);
/* Before and after one instruction by itself: RF, shadows, TF, data breakpoints. */
void cpu_one_begin(struct cpu *c);
void cpu_one_end(struct cpu *c, bool done, bool tf);
/* run.c: an instruction is done, or an event delivered: L0's single step, if it wants one. */
void cpu_host_step(struct cpu *c);
/* run.c: deliver s.event; leaves on trouble. */
void cpu_deliver(struct cpu *c);
/* Make c->landed the event to deliver, or an exit. */
void cpu_land_fault(struct cpu *c, bool intercept);
/* In 16- and 32-bit code rip wraps at 4 GiB. */
static inline uint64_t cpu_rip_wrap(const struct cpu *c, uint64_t rip)
{
	return (c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 ? rip : (uint32_t)rip;
}

/* Copies that no race detector watches: guest memory is shared. */
static inline void cpu_raw_copy(void *dst, const void *src, size_t len)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(len) : : "memory");
}

#endif
