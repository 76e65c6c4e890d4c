/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* String instructions: MOVS STOS LODS CMPS SCAS INS OUTS, with REP. */
#include "cpu/op_int.h"

/*
 * A repeated one goes in chunks that stay in a page: the host's own repeated instruction where the
 * TLB knows the pages, which is right also when source and destination overlap, else one element.
 * RSI, RDI and RCX are true after each chunk, so a fault needs no undoing; the flags are set at the
 * end (SDM 2B, REP: a fault leaves them as before the instruction).
 */
struct run {
	uint64_t count; /* elements to go, at least 1 */
	uint64_t mask;	/* of RSI, RDI, RCX */
	uint8_t size;
	bool down; /* EFLAGS.DF */
};

enum { REP_NONE, REP_PLAIN, REP_EQUAL, REP_NOT_EQUAL }; /* cpu_insn.arg */

/* Elements of a chunk at linear address @lin, offset @ea, without leaving the page or wrapping. */
static uint64_t reach(const struct run *r, uint64_t lin, uint64_t ea)
{
	uint64_t in_page = r->down ? (lin & ~PAGE_MASK) : PAGE_SIZE - (lin & ~PAGE_MASK);
	uint64_t no_wrap = r->down ? ea : r->mask - ea;

	if (r->down)
		return MIN(in_page / r->size + 1, no_wrap / r->size + 1);
	return MIN(in_page / r->size, MAX(no_wrap / r->size, 1ull));
}

/* Whether whole chunks may be taken: nothing to check for each element. */
static bool chunks_allowed(const struct cpu *c, unsigned seg)
{
	return !c->single && (op_long(c) || ((c->mode & CPU_MODE_FLAT) && seg <= X86_DS));
}

/* Registers go on by @n elements. */
static void advance(struct cpu *c, const struct cpu_insn *i, const struct run *r, unsigned reg,
		    uint64_t n)
{
	uint64_t by = n * r->size;
	uint64_t v = op_get(c, (uint8_t)(reg * 8), i->asize);

	op_put(c, (uint8_t)(reg * 8), r->down ? v - by : v + by, i->asize);
}

static uint64_t source_lin(struct cpu *c, const struct cpu_insn *i, const struct run *r)
{
	return op_seg_lin(c, i, i->seg, c->s.gpr[X86_RSI] & r->mask, r->size, false);
}

static uint64_t dest_lin(struct cpu *c, const struct cpu_insn *i, const struct run *r, bool write)
{
	return op_seg_lin(c, i, op_long(c) ? CPU_SEG_NONE : X86_ES, c->s.gpr[X86_RDI] & r->mask,
			  r->size, write);
}

/* The host's repeated instruction, by size and with DF as the guest's; then @after. */
#define HOST_STRING(r, insn, after, ...)                                                           \
	do {                                                                                       \
		if ((r)->down)                                                                     \
			__asm__ volatile("std\n\t" insn "\n\tcld" after __VA_ARGS__);              \
		else                                                                               \
			__asm__ volatile(insn after __VA_ARGS__);                                  \
	} while (0)
#define HOST_STRING_SIZES(r, insn, after, ...)                                                     \
	do {                                                                                       \
		switch ((r)->size) {                                                               \
		case 1: HOST_STRING(r, insn "b", after, __VA_ARGS__); break;                       \
		case 2: HOST_STRING(r, insn "w", after, __VA_ARGS__); break;                       \
		case 4: HOST_STRING(r, insn "l", after, __VA_ARGS__); break;                       \
		default: HOST_STRING(r, insn "q", after, __VA_ARGS__); break;                      \
		}                                                                                  \
	} while (0)

static void rep_movs(const struct run *r, void *dst, const void *src, uint64_t n)
{
	HOST_STRING_SIZES(r, "rep movs", "", : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

static void rep_stos(const struct run *r, void *dst, uint64_t v, uint64_t n)
{
	HOST_STRING_SIZES(r, "rep stos", "", : "+D"(dst), "+c"(n) : "a"(v) : "memory");
}

/* ---- one chunk of each
 * ------------------------------------------------------------------------------ */

/* All faults of the source come before those of the destination. */
static uint64_t movs_chunk(struct cpu *c, const struct cpu_insn *i, const struct run *r,
			   uint16_t *fl)
{
	uint64_t src = source_lin(c, i, r), dst, n = 1, v = 0;
	const void *from = op_try(c, src, r->size, false);
	void *to;

	if (!from)
		v = cpu_ld(c, i, src, r->size);
	dst = dest_lin(c, i, r, true);
	to = op_try(c, dst, r->size, true);
	if (from && to && r->count > 1 && chunks_allowed(c, i->seg)) {
		n = MIN(reach(r, src, c->s.gpr[X86_RSI] & r->mask),
			reach(r, dst, c->s.gpr[X86_RDI] & r->mask));
		n = MIN(n, r->count);
		rep_movs(r, to, from, n);
	} else {
		cpu_st(c, i, dst, from ? op_raw_ld(from, r->size) : v, r->size);
	}
	advance(c, i, r, X86_RSI, n);
	advance(c, i, r, X86_RDI, n);
	return n;
}

static uint64_t stos_chunk(struct cpu *c, const struct cpu_insn *i, const struct run *r,
			   uint16_t *fl)
{
	uint64_t dst = dest_lin(c, i, r, true), n = 1;
	void *to = op_try(c, dst, r->size, true);

	if (to && r->count > 1 && chunks_allowed(c, X86_ES)) {
		n = MIN(reach(r, dst, c->s.gpr[X86_RDI] & r->mask), r->count);
		rep_stos(r, to, c->s.gpr[X86_RAX], n);
	} else {
		cpu_st(c, i, dst, c->s.gpr[X86_RAX], r->size);
	}
	advance(c, i, r, X86_RDI, n);
	return n;
}

/* Only the last element of a repeated LODS can be seen; the others must still be readable. */
static uint64_t lods_chunk(struct cpu *c, const struct cpu_insn *i, const struct run *r,
			   uint16_t *fl)
{
	uint64_t src = source_lin(c, i, r), n = 1, v;

	if (r->count > 1 && op_try(c, src, r->size, false) && chunks_allowed(c, i->seg)) {
		n = MIN(reach(r, src, c->s.gpr[X86_RSI] & r->mask), r->count);
		src = r->down ? src - (n - 1) * r->size : src + (n - 1) * r->size;
	}
	v = cpu_ld(c, i, src, r->size);
	op_put(c, X86_RAX * 8, v, r->size);
	advance(c, i, r, X86_RSI, n);
	return n;
}

/* Flags of a - b as the guest's operand size has them. */
static uint16_t compare(uint64_t a, uint64_t b, unsigned size)
{
	uint16_t fl;

	switch (size) {
	case 1: __asm__("cmpb %b2,%b1" OP_ASM_OUT : "=a"(fl) : "r"(a), "r"(b) : "cc"); break;
	case 2: __asm__("cmpw %w2,%w1" OP_ASM_OUT : "=a"(fl) : "r"(a), "r"(b) : "cc"); break;
	case 4: __asm__("cmpl %k2,%k1" OP_ASM_OUT : "=a"(fl) : "r"(a), "r"(b) : "cc"); break;
	default: __asm__("cmpq %2,%1" OP_ASM_OUT : "=a"(fl) : "r"(a), "r"(b) : "cc"); break;
	}
	return fl;
}

/* The host's REPE or REPNE over at least one element; @n is left with how many it took. */
static uint16_t rep_cmps(const struct run *r, bool equal, const void *a, const void *b, uint64_t *n)
{
	uint64_t left = *n, fl = 0;

	if (equal)
		HOST_STRING_SIZES(r, "repe cmps", OP_ASM_OUT,
				  : "+S"(a), "+D"(b), "+c"(left), "+a"(fl)
				  :
				  : "cc", "memory");
	else
		HOST_STRING_SIZES(r, "repne cmps", OP_ASM_OUT,
				  : "+S"(a), "+D"(b), "+c"(left), "+a"(fl)
				  :
				  : "cc", "memory");
	*n -= left;
	return (uint16_t)fl;
}

static uint16_t rep_scas(const struct run *r, bool equal, uint64_t v, const void *b, uint64_t *n)
{
	uint64_t left = *n;

	if (equal)
		HOST_STRING_SIZES(r, "repe scas", OP_ASM_OUT,
				  : "+D"(b), "+c"(left), "+a"(v)
				  :
				  : "cc", "memory");
	else
		HOST_STRING_SIZES(r, "repne scas", OP_ASM_OUT,
				  : "+D"(b), "+c"(left), "+a"(v)
				  :
				  : "cc", "memory");
	*n -= left;
	return (uint16_t)v;
}

/* Here it is the destination, at RDI, whose faults silicon finds first. */
static uint64_t cmps_chunk(struct cpu *c, const struct cpu_insn *i, const struct run *r,
			   uint16_t *fl)
{
	uint64_t dst = dest_lin(c, i, r, false), src, n = 1, v = 0;
	const void *b = op_try(c, dst, r->size, false), *a;

	if (!b)
		v = cpu_ld(c, i, dst, r->size);
	src = source_lin(c, i, r);
	a = op_try(c, src, r->size, false);
	if (a && b && r->count > 1 && chunks_allowed(c, i->seg)) {
		n = MIN(reach(r, src, c->s.gpr[X86_RSI] & r->mask),
			reach(r, dst, c->s.gpr[X86_RDI] & r->mask));
		n = MIN(n, r->count);
		*fl = rep_cmps(r, i->arg == REP_EQUAL, a, b, &n);
	} else {
		if (b)
			v = op_raw_ld(b, r->size);
		*fl = compare(cpu_ld(c, i, src, r->size), v, r->size);
	}
	advance(c, i, r, X86_RSI, n);
	advance(c, i, r, X86_RDI, n);
	return n;
}

static uint64_t scas_chunk(struct cpu *c, const struct cpu_insn *i, const struct run *r,
			   uint16_t *fl)
{
	uint64_t dst = dest_lin(c, i, r, false), n = 1;
	const void *b = op_try(c, dst, r->size, false);

	if (b && r->count > 1 && chunks_allowed(c, X86_ES)) {
		n = MIN(reach(r, dst, c->s.gpr[X86_RDI] & r->mask), r->count);
		*fl = rep_scas(r, i->arg == REP_EQUAL, c->s.gpr[X86_RAX], b, &n);
	} else {
		*fl = compare(c->s.gpr[X86_RAX], cpu_ld(c, i, dst, r->size), r->size);
	}
	advance(c, i, r, X86_RDI, n);
	return n;
}

/* ---- the loop
 * --------------------------------------------------------------------------------------- */

static void movs(struct cpu *c, const struct cpu_insn *i);
static void stos(struct cpu *c, const struct cpu_insn *i);

/* In cpu_emulate() a repeated instruction does so much at a time. */
#define EMULATE_ELEMENTS 4096u

/*
 * Between chunks: someone wants the processor, or it goes step by step. Then the instruction is as
 * not executed, with its registers ahead, and will go on from there.
 */
static bool interrupted(struct cpu *c, const struct cpu_insn *i, uint64_t done)
{
	if (c->mem_ops ? done < EMULATE_ELEMENTS && !c->enough && !c->single
		       : likely(c->icount <= __atomic_load_n(&c->run_limit, __ATOMIC_RELAXED) &&
				!c->single))
		return false;
	cpu_begin(c, i);
	c->chain_from = NULL;
	return true;
}

/*
 * With a 32-bit address size silicon clears the upper halves of RCX, and of the pointers of MOVS
 * and STOS, before the first element (seen on the host; the manual does not say).
 */
static void clear_tops(struct cpu *c, const struct cpu_insn *i)
{
	c->s.gpr[X86_RCX] = (uint32_t)c->s.gpr[X86_RCX];
	if (i->fn == movs)
		c->s.gpr[X86_RSI] = (uint32_t)c->s.gpr[X86_RSI];
	if (i->fn == movs || i->fn == stos)
		c->s.gpr[X86_RDI] = (uint32_t)c->s.gpr[X86_RDI];
}

/* Returns whether the instruction is complete. */
OP_INLINE bool repeat(struct cpu *c, const struct cpu_insn *i,
		      uint64_t (*chunk)(struct cpu *, const struct cpu_insn *, const struct run *,
					uint16_t *))
{
	struct run r = {
		.count = 1,
		.mask = op_mask(i->asize),
		.size = i->size,
		.down = c->s.rflags & X86_FLAG_DF,
	};
	uint16_t fl = c->fl;
	uint64_t done = 0;

	if (i->arg == REP_NONE) {
		chunk(c, i, &r, &fl);
		c->fl = fl;
		return true;
	}
	if (i->asize == 4)
		clear_tops(c, i);
	for (;;) {
		uint64_t n;

		r.count = c->s.gpr[X86_RCX] & r.mask;
		if (!r.count)
			break;
		n = chunk(c, i, &r, &fl);
		op_put(c, X86_RCX * 8, r.count - n, i->asize);
		if (n == r.count || (i->arg == REP_EQUAL && !(fl & CPU_FL_ZF)) ||
		    (i->arg == REP_NOT_EQUAL && (fl & CPU_FL_ZF)))
			break;
		done += n;
		if (interrupted(c, i, done))
			return false;
	}
	c->fl = fl;
	return true;
}

/* Names: movs, stos, lods, cmps, scas. */
#define DEFINE_STRING(name)                                                                        \
	static void name(struct cpu *c, const struct cpu_insn *i)                                  \
	{                                                                                          \
		if (repeat(c, i, name##_chunk))                                                    \
			CPU_NEXT(c, i);                                                            \
	}
DEFINE_STRING(movs)
DEFINE_STRING(stos)
DEFINE_STRING(lods)
DEFINE_STRING(cmps)
DEFINE_STRING(scas)

/* ---- INS, OUTS
 * -------------------------------------------------------------------------------------- */

/* Outside cpu_emulate() they leave, and L0 comes back through it. */
static void leave_for_io(struct cpu *c, const struct cpu_insn *i, bool in)
{
	c->exit.io.port = CPU_REG16(c, X86_RDX * 8);
	c->exit.io.size = i->size;
	c->exit.io.in = in;
	c->exit.io.string = true;
	c->exit.io.rep = i->arg != REP_NONE;
	cpu_leave(c, i, CPU_EXIT_IO);
}

static uint64_t ins_chunk(struct cpu *c, const struct cpu_insn *i, const struct run *r,
			  uint16_t *fl)
{
	uint16_t port = CPU_REG16(c, X86_RDX * 8);
	uint64_t dst, v = 0;
	void *p;

	if (!c->mem_ops)
		leave_for_io(c, i, true);
	dst = dest_lin(c, i, r, true);
	p = cpu_mem_w(c, i, dst, r->size);
	cpu_emulate_port(c, i, &(struct cpu_port_access){port, true, r->size, &v});
	cpu_debug_io(c, port, r->size);
	op_raw_st(p, v, r->size);
	cpu_mem_done(c, i, p);
	advance(c, i, r, X86_RDI, 1);
	return 1;
}

static uint64_t outs_chunk(struct cpu *c, const struct cpu_insn *i, const struct run *r,
			   uint16_t *fl)
{
	uint16_t port = CPU_REG16(c, X86_RDX * 8);
	uint64_t v;

	if (!c->mem_ops)
		leave_for_io(c, i, false);
	v = cpu_ld(c, i, source_lin(c, i, r), r->size);
	cpu_emulate_port(c, i, &(struct cpu_port_access){port, false, r->size, &v});
	cpu_debug_io(c, port, r->size);
	advance(c, i, r, X86_RSI, 1);
	return 1;
}

/* The port is checked even when the count is zero, and before any register changes. */
#define DEFINE_PORT_STRING(name)                                                                   \
	static void name(struct cpu *c, const struct cpu_insn *i)                                  \
	{                                                                                          \
		cpu_io_check(c, i, CPU_REG16(c, X86_RDX * 8), i->size);                            \
		if (repeat(c, i, name##_chunk))                                                    \
			CPU_NEXT(c, i);                                                            \
	}
DEFINE_PORT_STRING(ins)
DEFINE_PORT_STRING(outs)

/* ---- picking
 * ---------------------------------------------------------------------------------------- */

/* What F3 or F2 means for this instruction; the later of the two counts. */
static uint16_t rep_kind(const struct cpu_dec *d, bool compares)
{
	uint8_t last = 0;

	for (unsigned k = 0; k < d->zi.raw.prefix_count; k++) {
		uint8_t p = d->zi.raw.prefixes[k].value;

		if (p == 0xf3 || p == 0xf2)
			last = p;
	}
	if (!last)
		return REP_NONE;
	if (!compares)
		return REP_PLAIN;
	return last == 0xf3 ? REP_EQUAL : REP_NOT_EQUAL;
}

enum { STR_MOVS, STR_STOS, STR_LODS, STR_CMPS, STR_SCAS, STR_INS, STR_OUTS };
#define STR_ARG(op, size) ((uint16_t)((op) << 8 | (size)))

static bool pick_string(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[] = {movs, stos, lods, cmps, scas, ins, outs};
	unsigned op = arg >> 8;

	/* MOVSD and CMPSD are also names of SSE instructions. */
	if (d->zi.meta.category != ZYDIS_CATEGORY_STRINGOP &&
	    d->zi.meta.category != ZYDIS_CATEGORY_IOSTRINGOP)
		return false;
	i->size = arg & 0xff;
	i->asize = (uint8_t)(d->zi.address_width / 8);
	i->seg = op_string_seg(d);
	i->arg = rep_kind(d, op == STR_CMPS || op == STR_SCAS);
	i->fn = fn[op];
	return !op_locked(i);
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_MOVSB, STR_ARG(STR_MOVS, 1), pick_string},
	{ZYDIS_MNEMONIC_MOVSW, STR_ARG(STR_MOVS, 2), pick_string},
	{ZYDIS_MNEMONIC_MOVSD, STR_ARG(STR_MOVS, 4), pick_string},
	{ZYDIS_MNEMONIC_MOVSQ, STR_ARG(STR_MOVS, 8), pick_string},
	{ZYDIS_MNEMONIC_STOSB, STR_ARG(STR_STOS, 1), pick_string},
	{ZYDIS_MNEMONIC_STOSW, STR_ARG(STR_STOS, 2), pick_string},
	{ZYDIS_MNEMONIC_STOSD, STR_ARG(STR_STOS, 4), pick_string},
	{ZYDIS_MNEMONIC_STOSQ, STR_ARG(STR_STOS, 8), pick_string},
	{ZYDIS_MNEMONIC_LODSB, STR_ARG(STR_LODS, 1), pick_string},
	{ZYDIS_MNEMONIC_LODSW, STR_ARG(STR_LODS, 2), pick_string},
	{ZYDIS_MNEMONIC_LODSD, STR_ARG(STR_LODS, 4), pick_string},
	{ZYDIS_MNEMONIC_LODSQ, STR_ARG(STR_LODS, 8), pick_string},
	{ZYDIS_MNEMONIC_CMPSB, STR_ARG(STR_CMPS, 1), pick_string},
	{ZYDIS_MNEMONIC_CMPSW, STR_ARG(STR_CMPS, 2), pick_string},
	{ZYDIS_MNEMONIC_CMPSD, STR_ARG(STR_CMPS, 4), pick_string},
	{ZYDIS_MNEMONIC_CMPSQ, STR_ARG(STR_CMPS, 8), pick_string},
	{ZYDIS_MNEMONIC_SCASB, STR_ARG(STR_SCAS, 1), pick_string},
	{ZYDIS_MNEMONIC_SCASW, STR_ARG(STR_SCAS, 2), pick_string},
	{ZYDIS_MNEMONIC_SCASD, STR_ARG(STR_SCAS, 4), pick_string},
	{ZYDIS_MNEMONIC_SCASQ, STR_ARG(STR_SCAS, 8), pick_string},
	{ZYDIS_MNEMONIC_INSB, STR_ARG(STR_INS, 1), pick_string},
	{ZYDIS_MNEMONIC_INSW, STR_ARG(STR_INS, 2), pick_string},
	{ZYDIS_MNEMONIC_INSD, STR_ARG(STR_INS, 4), pick_string},
	{ZYDIS_MNEMONIC_OUTSB, STR_ARG(STR_OUTS, 1), pick_string},
	{ZYDIS_MNEMONIC_OUTSW, STR_ARG(STR_OUTS, 2), pick_string},
	{ZYDIS_MNEMONIC_OUTSD, STR_ARG(STR_OUTS, 4), pick_string},
};
const struct cpu_op_table cpu_ops_string = {ops, ARRAY_SIZE(ops)};
