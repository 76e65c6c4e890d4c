/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the integer instructions' files share: flags by the host's own, quick memory access,
 * registers. */
#ifndef UMBRA_CPU_OP_INT_H
#define UMBRA_CPU_OP_INT_H

#include "cpu/cpu_internal.h"

/*
 * A handler is a fast path that calls nothing but jumps, so it needs no stack frame; what misses
 * the TLB jumps to a slow twin that does the whole instruction with calls.
 */
#define OP_SLOW	  static __attribute__((noinline, cold)) void
#define OP_INLINE static inline __attribute__((always_inline))

/* ---- flags ------------------------------------------------------------------------------------
 */

/*
 * In inline assembly AX is struct cpu.fl. OUT takes all six flags from the host's; IN loads all six
 * (0x7f + 1 overflows, 0x7f + 0 does not); CARRY_IN only CF.
 */
#define OP_ASM_IN	"addb $0x7f,%%al\n\tsahf\n\t"
#define OP_ASM_OUT	"\n\tlahf\n\tseto %%al"
#define OP_ASM_CARRY_IN "btw $8,%[old]\n\t"

/* The sixteen conditions, in encoding order. */
enum {
	OP_CC_O,
	OP_CC_NO,
	OP_CC_B,
	OP_CC_NB,
	OP_CC_Z,
	OP_CC_NZ,
	OP_CC_BE,
	OP_CC_NBE,
	OP_CC_S,
	OP_CC_NS,
	OP_CC_P,
	OP_CC_NP,
	OP_CC_L,
	OP_CC_NL,
	OP_CC_LE,
	OP_CC_NLE,
};

OP_INLINE bool op_cond(const struct cpu *c, unsigned cc)
{
	unsigned fl = c->fl;
	bool yes;

	switch (cc >> 1) {
	case 0: yes = fl & CPU_FL_OF; break;
	case 1: yes = fl & CPU_FL_CF; break;
	case 2: yes = fl & CPU_FL_ZF; break;
	case 3: yes = fl & (CPU_FL_CF | CPU_FL_ZF); break;
	case 4: yes = fl & CPU_FL_SF; break;
	case 5: yes = fl & CPU_FL_PF; break;
	case 6: yes = (fl >> 15 ^ fl) & 1; break;
	default: yes = ((fl >> 15 ^ fl) & 1) | (fl >> 14 & 1); break;
	}
	return yes ^ (cc & 1);
}

/* ---- registers --------------------------------------------------------------------------------
 */

OP_INLINE void op_put8(struct cpu *c, uint8_t off, uint8_t v)
{
	CPU_REG8(c, off) = v;
}

OP_INLINE void op_put16(struct cpu *c, uint8_t off, uint16_t v)
{
	CPU_REG16(c, off) = v;
}

OP_INLINE void op_put32(struct cpu *c, uint8_t off, uint32_t v)
{
	CPU_REG64(c, off) = v;
}

OP_INLINE void op_put64(struct cpu *c, uint8_t off, uint64_t v)
{
	CPU_REG64(c, off) = v;
}

static inline uint64_t op_get(const struct cpu *c, uint8_t off, unsigned size)
{
	switch (size) {
	case 1: return CPU_REG8(c, off);
	case 2: return CPU_REG16(c, off);
	case 4: return CPU_REG32(c, off);
	default: return CPU_REG64(c, off);
	}
}

static inline void op_put(struct cpu *c, uint8_t off, uint64_t v, unsigned size)
{
	switch (size) {
	case 1: CPU_REG8(c, off) = (uint8_t)v; break;
	case 2: CPU_REG16(c, off) = (uint16_t)v; break;
	case 4: CPU_REG64(c, off) = (uint32_t)v; break;
	default: CPU_REG64(c, off) = v; break;
	}
}

/* RSI, RDI, RCX and the like under an address size of @size bytes. */
static inline uint64_t op_mask(unsigned size)
{
	return ~0ull >> (64 - 8 * size);
}

/* 0 1 2 3 for 1 2 4 8 bytes. */
static inline unsigned op_size_log(unsigned size)
{
	return (unsigned)__builtin_ctz(size);
}

static inline bool op_long(const struct cpu *c)
{
	return (c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64;
}

/* ---- memory -----------------------------------------------------------------------------------
 */

/* How an operand's address is formed: what is known when decoding need not be asked when executing.
 */
enum op_ea {
	OP_EA_BASE,  /* 64-bit, no segment base, base + disp */
	OP_EA_INDEX, /* .. base + index * scale + disp */
	OP_EA_ANY,
	OP_EA_KINDS
};

static inline enum op_ea op_ea_kind(const struct cpu_insn *i)
{
	if (i->asize != 8 || i->seg != CPU_SEG_NONE)
		return OP_EA_ANY;
	return i->index == CPU_SLOT_ZERO ? OP_EA_BASE : OP_EA_INDEX;
}

OP_INLINE uint64_t op_lin(const struct cpu *c, const struct cpu_insn *i, enum op_ea kind)
{
	switch (kind) {
	case OP_EA_BASE: return cpu_slot(c, i->base) + (uint64_t)i->disp;
	case OP_EA_INDEX:
		return cpu_slot(c, i->base) + (cpu_slot(c, i->index) << i->scale) +
		       (uint64_t)i->disp;
	default: return cpu_lin(c, i);
	}
}

/*
 * The linear address of an offset that a handler formed itself, with its segment and alignment
 * checks. CPU_SEG_NONE is segment base 0 in 64-bit mode.
 */
static inline uint64_t op_seg_lin(struct cpu *c, const struct cpu_insn *i, unsigned seg,
				  uint64_t ea, unsigned size, bool write)
{
	uint64_t lin;

	if (op_long(c))
		lin = ea + c->lbase[seg];
	else if ((c->mode & CPU_MODE_FLAT) && seg <= X86_DS && (seg != X86_CS || !write))
		lin = (uint32_t)ea;
	else
		lin = cpu_seg_check(c, i, seg, ea, size, write);
	if (unlikely(c->mode & CPU_MODE_AC) && (lin & (size - 1)) && cpu_lin_canonical(c, lin))
		cpu_fault_err(c, i, X86_VEC_AC, 0);
	return lin;
}

/* The host address when the TLB knows it, else NULL. */
OP_INLINE void *op_try(const struct cpu *c, uint64_t lin, unsigned size, bool write)
{
	const struct cpu_tlb_entry *e = cpu_tlb_slot(c, lin);
	uint64_t key = ((lin + size - 1) & PAGE_MASK) | c->tlb_ctx;
	uint64_t tag = write ? e->tag_w : e->tag_r;

	return likely(((tag ^ key) & e->mask) == 0) ? (void *)(lin + e->addend) : NULL;
}

/* The slow half of the same. */
static inline void *op_mem(struct cpu *c, const struct cpu_insn *i, unsigned size, bool write)
{
	return write ? cpu_mem_rw(c, i, cpu_lin(c, i), size) : cpu_mem_r(c, i, cpu_lin(c, i), size);
}

/*
 * The end of a read and write in a slow twin: should storing leave after all (cpu_emulate), the
 * flags are to be as they were.
 */
static inline void op_mem_done(struct cpu *c, const struct cpu_insn *i, const void *p,
			       uint16_t old_fl)
{
	uint16_t fl = c->fl;

	c->fl = old_fl;
	cpu_mem_done(c, i, p);
	c->fl = fl;
}

/* By size known at run time; any pointer of cpu_mem_*(). */
static inline uint64_t op_raw_ld(const void *p, unsigned size)
{
	switch (size) {
	case 1: return cpu_raw_ld8(p);
	case 2: return cpu_raw_ld16(p);
	case 4: return cpu_raw_ld32(p);
	default: return cpu_raw_ld64(p);
	}
}

static inline void op_raw_st(void *p, uint64_t v, unsigned size)
{
	switch (size) {
	case 1: cpu_raw_st8(p, (uint8_t)v); break;
	case 2: cpu_raw_st16(p, (uint16_t)v); break;
	case 4: cpu_raw_st32(p, (uint32_t)v); break;
	default: cpu_raw_st64(p, v); break;
	}
}

/* ---- the stack and branches ---------------------------------------------------------------------
 */

/* op_stack.c: by the mode's rules, limits, #SS and alignment checks included. RSP changes last. */
void op_push(struct cpu *c, const struct cpu_insn *i, uint64_t v, unsigned size);
/* What lies @offset bytes above the top; RSP stays. */
uint64_t op_peek(struct cpu *c, const struct cpu_insn *i, unsigned offset, unsigned size);
void op_drop(struct cpu *c, unsigned bytes);
/* The linear address of stack offset @sp. */
uint64_t op_stack_lin(struct cpu *c, const struct cpu_insn *i, uint64_t sp, unsigned size,
		      bool write);

/* In 64-bit mode without alignment checks: false when the TLB does not know the page. */
OP_INLINE bool op_push64(struct cpu *c, uint64_t v)
{
	uint64_t sp = c->s.gpr[X86_RSP] - 8;
	void *p = op_try(c, sp, 8, true);

	if (unlikely(!p))
		return false;
	cpu_raw_st64(p, v);
	c->s.gpr[X86_RSP] = sp;
	return true;
}

/* Whether the quick 64-bit forms serve. */
static inline bool op_plain64(const struct cpu_dec *d)
{
	return (d->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 && !(d->mode & CPU_MODE_AC);
}

/* ---- picking ----------------------------------------------------------------------------------
 */

static inline bool op_is(const struct cpu_dec *d, unsigned n, ZydisOperandType type)
{
	return n < d->zi.operand_count_visible && d->op[n].type == type;
}

static inline bool op_is_reg(const struct cpu_dec *d, unsigned n)
{
	return op_is(d, n, ZYDIS_OPERAND_TYPE_REGISTER);
}

static inline bool op_is_mem(const struct cpu_dec *d, unsigned n)
{
	return op_is(d, n, ZYDIS_OPERAND_TYPE_MEMORY);
}

static inline bool op_is_imm(const struct cpu_dec *d, unsigned n)
{
	return op_is(d, n, ZYDIS_OPERAND_TYPE_IMMEDIATE);
}

/* A general register, not a segment, control or debug one. */
static inline bool op_is_gpr(const struct cpu_dec *d, unsigned n)
{
	return op_is_reg(d, n) && d->op[n].reg.value >= ZYDIS_REGISTER_AL &&
	       d->op[n].reg.value <= ZYDIS_REGISTER_R15;
}

/* Size of operand @n in bytes. */
static inline unsigned op_bytes(const struct cpu_dec *d, unsigned n)
{
	return d->op[n].size / 8;
}

/*
 * The source segment of a string instruction or XLAT as the guest wrote it: DS or the override,
 * even where the mode makes it base 0 (CPU_SEG_NONE: 64-bit mode, not FS or GS).
 */
static inline uint8_t op_string_seg(const struct cpu_dec *d)
{
	static const struct {
		ZydisInstructionAttributes attr;
		uint8_t seg;
	} overrides[] = {
		{ZYDIS_ATTRIB_HAS_SEGMENT_CS, X86_CS}, {ZYDIS_ATTRIB_HAS_SEGMENT_SS, X86_SS},
		{ZYDIS_ATTRIB_HAS_SEGMENT_DS, X86_DS}, {ZYDIS_ATTRIB_HAS_SEGMENT_ES, X86_ES},
		{ZYDIS_ATTRIB_HAS_SEGMENT_FS, X86_FS}, {ZYDIS_ATTRIB_HAS_SEGMENT_GS, X86_GS},
	};
	uint8_t seg = X86_DS;

	for (unsigned n = 0; n < ARRAY_SIZE(overrides); n++)
		if (d->zi.attributes & overrides[n].attr)
			seg = overrides[n].seg;
	if ((d->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 && seg != X86_FS && seg != X86_GS)
		return CPU_SEG_NONE;
	return seg;
}

/* A VEX prefix is #UD in real and virtual-8086 mode. */
static inline bool op_vex_allowed(const struct cpu_dec *d)
{
	return d->zi.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || (d->mode & CPU_MODE_PROT);
}

static inline bool op_locked(const struct cpu_insn *i)
{
	return i->flags & CPU_INSN_LOCK;
}

#endif
