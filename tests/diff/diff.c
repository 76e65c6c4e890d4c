/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random cases of every form, natively and on ours, and every difference told. */
#include "tests/diff/diff.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng_state = 1;

static uint64_t rnd(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state * 0x2545f4914f6cdd1dull;
}

static unsigned below(unsigned n)
{
	return (unsigned)((rnd() >> 33) % n);
}

/* Values that find borders more often than chance does. */
static uint64_t value(void)
{
	static const uint64_t edge[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff,
					0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
					0x7fffffffffffffff, 0x8000000000000000, ~0ull};

	switch (below(4)) {
	case 0: return edge[below(ARRAY_SIZE(edge))];
	case 1: return rnd() & 0xff;
	case 2: return rnd() >> below(64);
	default: return rnd();
	}
}

/* ---- the instruction's bytes ------------------------------------------------------------------------ */

static unsigned modrm_at(const ZydisDecodedInstruction *zi)
{
	return zi->raw.modrm.offset;
}

/* Address size and segments do not make another form. */
static unsigned more_prefixes(uint8_t *b)
{
	static const uint8_t segments[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
	unsigned n = 0;

	if (!below(5))
		b[n++] = 0x67;
	if (!below(3))
		b[n++] = segments[below(ARRAY_SIZE(segments))];
	return n;
}

/* Other registers, addressing modes, displacements and immediates, as long as the form stays the same. */
static void vary(const struct diff_form *f, enum diff_mode mode, uint8_t bytes[16], uint8_t *len)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t key;

	for (unsigned try = 0; try < 20; try++) {
		uint8_t b[16] = {0};
		unsigned n;

		n = more_prefixes(b);
		memcpy(b + n, f->bytes, MIN(f->len, 15 - n));
		diff_decode(mode, b, &zi, op, &key);
		if (mode == DIFF_64 && (zi.attributes & ZYDIS_ATTRIB_HAS_REX))
			b[zi.raw.rex.offset] |= (uint8_t)(rnd() & 7);
		if (zi.attributes & ZYDIS_ATTRIB_HAS_VEX)
			b[zi.raw.vex.offset + 2] ^= (uint8_t)((rnd() & 15) << 3);
		if (zi.attributes & ZYDIS_ATTRIB_HAS_MODRM) {
			n = modrm_at(&zi);
			b[n] ^= (uint8_t)(rnd() & 0x3f);
			if (zi.raw.modrm.mod != 3)
				b[n] = (uint8_t)((b[n] & 0x3f) | below(3) << 6);
			for (unsigned k = n + 1; k < 16; k++)
				b[k] = (uint8_t)rnd();
			/* Small displacements reach the data. */
			if (below(2) && n + 5 < 16)
				memset(b + n + 2, 0, 4);
		} else {
			if (op[0].encoding == ZYDIS_OPERAND_ENCODING_OPCODE)
				b[zi.length - 1 - (zi.raw.imm[0].size / 8)] ^= (uint8_t)(rnd() & 7);
			if (zi.raw.imm[0].size)
				for (unsigned k = zi.raw.imm[0].offset; k < 16; k++)
					b[k] = (uint8_t)value();
		}
		if (diff_decode(mode, b, &zi, op, &key) && key == f->key) {
			memcpy(bytes, b, 16);
			*len = zi.length;
			return;
		}
	}
	memcpy(bytes, f->bytes, 16);
	*len = f->len;
}

/* ---- its registers ----------------------------------------------------------------------------------- */

static uint64_t target(unsigned size)
{
	unsigned end = DIFF_DATA_RW * 4096;

	switch (below(20)) {
	case 0: return 4096 - below(size + 1);              /* from page to page */
	case 1: return end - below(size + 1);               /* into the read-only one */
	case 2: return end + below(4096 - size);            /* in it */
	case 3: return DIFF_DATA_PAGES * 4096 - below(size + 1); /* into nothing */
	case 4: return DIFF_DATA_PAGES * 4096 + below(4096); /* nothing */
	case 5:
	case 6: return below(end - size);
	default: return below((end - size) / 16) * 16;
	}
}

static int gpr_of(ZydisRegister reg)
{
	ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

	if (reg == ZYDIS_REGISTER_NONE || full < ZYDIS_REGISTER_RAX || full > ZYDIS_REGISTER_R15)
		return -1;
	return (int)(full - ZYDIS_REGISTER_RAX);
}

static void put(uint64_t *reg, uint64_t v, unsigned width, enum diff_mode mode)
{
	if (width == 16)
		*reg = (*reg & ~0xffffull) | (v & 0xffff);
	else if (width == 32 && mode == DIFF_64 && below(2))
		*reg = (*reg & ~0xffffffffull) | (v & 0xffffffff); /* its top half must not matter */
	else
		*reg = width == 32 ? v & 0xffffffff : v;
}

/* Give the registers of a memory operand values, or its displacement, so that it points at @to. */
static void aim(struct diff_case *c, const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *o,
		uint64_t to)
{
	int base = gpr_of(o->mem.base), index = gpr_of(o->mem.index);
	uint64_t disp = (uint64_t)o->mem.disp.value, rest = 0;
	unsigned width = zi->address_width;

	if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
		uint32_t d = (uint32_t)(to - (c->regs.rip + zi->length));

		memcpy(c->bytes + zi->raw.disp.offset, &d, 4);
		return;
	}
	if (index >= 0 && index != base) {
		put(&c->regs.gpr[index], below(4) ? below(64) : value(), width, c->mode);
		rest = c->regs.gpr[index];
		if (width == 32)
			rest &= 0xffffffff;
		else if (width == 16)
			rest &= 0xffff;
		rest *= o->mem.scale ? o->mem.scale : 1;
	}
	if (base >= 0 && base != index)
		put(&c->regs.gpr[base], to - disp - rest, width, c->mode);
	else if (base < 0 && zi->raw.disp.size == width && index < 0) {
		uint64_t d = to;

		memcpy(c->bytes + zi->raw.disp.offset, &d, zi->raw.disp.size / 8);
	}
	if (base >= 0 && c->mode == DIFF_64 && width == 64 && !below(40))
		c->regs.gpr[base] = rnd() | BIT(62); /* hardly canonical */
}

static void random_fx(struct cpu_fx *fx)
{
	static const uint16_t exp[] = {0, 1, 0x3fff, 0x7ffe, 0x7fff, 0xbfff, 0xffff, 0x8000};

	memset(fx, 0, sizeof(*fx));
	fx->fcw = (uint16_t)(0x37f | (rnd() & 0xf00));
	if (!below(8))
		fx->fcw &= (uint16_t)~(rnd() & 0x3f);
	fx->fsw = (uint16_t)(rnd() & 0x7f00);
	fx->ftw = (uint8_t)(below(2) ? 0xff : rnd());
	fx->mxcsr = 0x1f80 | (uint32_t)(rnd() & 0xe040);
	if (!below(8))
		fx->mxcsr &= (uint32_t) ~(rnd() & 0x1f80);
	fx->mxcsr_mask = 0xffff;
	for (unsigned k = 0; k < 8; k++) {
		fx->st[k].lo = value();
		if (below(3))
			fx->st[k].lo |= BIT(63);
		fx->st[k].hi = below(2) ? exp[below(ARRAY_SIZE(exp))] : (0x3fc0 + below(128));
	}
	for (unsigned k = 0; k < 16; k++) {
		static const uint32_t f32[] = {0, 0x3f800000, 0x7f800000, 0xff800000, 0x7fc00000,
					       0x7f800001, 0x00000001, 0x80000000, 0x4f000000};

		for (unsigned i = 0; i < 2; i++)
			fx->xmm[k].q[i] = value();
		if (!below(3))
			for (unsigned i = 0; i < 4; i++)
				fx->xmm[k].d[i] = f32[below(ARRAY_SIZE(f32))];
		if (!below(4))
			fx->xmm[k].q[0] = (uint64_t)(0x3f0 + below(48)) << 52 | rnd() >> 12;
	}
}

/* ---- its segments ------------------------------------------------------------------------------------ */

const struct diff_ldt diff_ldt[DIFF_LDT_ENTRIES] = {
	[DIFF_LDT_CODE32] = {.limit = 0xfffff, .pages = true, .contents = 2, .is32 = true},
	[DIFF_LDT_CODE16] = {.base = DIFF_CODE, .limit = 0xffff, .contents = 2},
	[DIFF_LDT_DATA32] = {.limit = 0xfffff, .pages = true, .is32 = true},
	[DIFF_LDT_DATA16] = {.base = DIFF_DATA, .limit = 0xffff},
	[DIFF_LDT_DATA32_LOW] = {.base = DIFF_DATA, .limit = 0xfffff, .pages = true},
	[DIFF_LDT_DATA16_BIG] = {.base = DIFF_DATA, .limit = 0xfffff, .pages = true, .is32 = true},
	[DIFF_LDT_MORE] = {.base = DIFF_DATA + 17, .limit = 0xfffff, .pages = true, .is32 = true},
	{.base = DIFF_DATA, .limit = 0x1fff, .is32 = true},
	{.base = DIFF_DATA, .limit = 0x7ff, .contents = 1, .is32 = true}, /* expand-down */
	{.base = DIFF_DATA, .limit = 0x7ff, .contents = 1},
	{.base = DIFF_DATA + 4096, .limit = 0xffff, .read_only = true},
	{.base = DIFF_DATA - 0x10000, .limit = 0xfffff, .is32 = true},
	{.base = DIFF_DATA, .limit = 0x1, .pages = true, .contents = 2, .is32 = true},
	{.base = DIFF_DATA, .limit = 0xffff, .contents = 2, .read_only = true}, /* not readable */
	{.base = DIFF_CODE, .limit = 0xffff, .contents = 3, .absent = true}, /* conforming */
	{.base = DIFF_DATA, .limit = 0xffff, .absent = true},
};

static uint32_t ldt_attr(const struct diff_ldt *e)
{
	uint32_t type = (uint32_t)e->contents << 2 | (e->read_only ? 0 : 2) | 1;

	return type | X86_ATTR_S | X86_ATTR_DPL | (e->absent ? 0 : X86_ATTR_P) |
	       (e->is32 ? X86_ATTR_DB : 0) | (e->pages ? X86_ATTR_G : 0);
}

uint64_t diff_ldt_descriptor(const struct diff_ldt *e)
{
	return (e->limit & 0xffff) | (uint64_t)(e->base & 0xffffff) << 16 |
	       (uint64_t)ldt_attr(e) << 40 | (uint64_t)(e->limit >> 16) << 48 |
	       (uint64_t)(e->base >> 24) << 56;
}

struct cpu_seg diff_ldt_segment(unsigned entry)
{
	const struct diff_ldt *e = &diff_ldt[entry];

	return (struct cpu_seg){
		.sel = DIFF_LDT_SEL(entry),
		.base = e->base,
		.limit = e->pages ? e->limit << 12 | 0xfff : e->limit,
		.attr = ldt_attr(e),
	};
}

static struct cpu_seg null_segment(uint64_t base)
{
	return (struct cpu_seg){.base = base, .attr = X86_ATTR_UNUSABLE};
}

static uint64_t some_base(void)
{
	static const uint64_t bases[] = {0, DIFF_DATA, DIFF_DATA + 17, 0x7fff00000000, 0xffff800000000000,
					 0xfffffffff0000000};

	return below(2) ? 0 : bases[below(ARRAY_SIZE(bases))];
}

static bool loadable(unsigned entry)
{
	const struct diff_ldt *e = &diff_ldt[entry];

	return !e->absent && (e->contents < 2 || !e->read_only);
}

static void make_segments(struct diff_case *c)
{
	static const unsigned data[] = {X86_DS, X86_ES, X86_FS, X86_GS};
	unsigned usual = c->mode == DIFF_32 ? DIFF_LDT_DATA32 : DIFF_LDT_DATA16, other;

	if (c->mode == DIFF_64) {
		for (unsigned k = 0; k < 6; k++)
			c->seg[k] = null_segment(k == X86_FS || k == X86_GS ? some_base() : 0);
		c->seg[X86_CS] = (struct cpu_seg){
			.sel = DIFF_USER_CS, .limit = ~0u, .attr = 0xb | X86_ATTR_S | X86_ATTR_DPL |
			X86_ATTR_P | X86_ATTR_L | X86_ATTR_G};
		c->seg[X86_SS] = (struct cpu_seg){
			.sel = DIFF_USER_SS, .limit = ~0u, .attr = 0x3 | X86_ATTR_S | X86_ATTR_DPL |
			X86_ATTR_P | X86_ATTR_DB | X86_ATTR_G};
		return;
	}
	other = c->mode == DIFF_32 ? DIFF_LDT_DATA32_LOW : DIFF_LDT_DATA16_BIG;
	c->seg[X86_CS] = diff_ldt_segment(c->mode == DIFF_32 ? DIFF_LDT_CODE32 : DIFF_LDT_CODE16);
	c->seg[X86_SS] = diff_ldt_segment(below(4) ? usual : other);
	for (unsigned k = 0; k < ARRAY_SIZE(data); k++) {
		unsigned n = usual;

		if (!below(data[k] == X86_DS || data[k] == X86_ES ? 4 : 2))
			n = below(DIFF_LDT_ENTRIES);
		c->seg[data[k]] = loadable(n) ? diff_ldt_segment(n) : null_segment(0);
	}
}

static uint64_t segment_base(const struct diff_case *c, ZydisRegister seg)
{
	switch (seg) {
	case ZYDIS_REGISTER_ES: return c->seg[X86_ES].base;
	case ZYDIS_REGISTER_CS: return c->seg[X86_CS].base;
	case ZYDIS_REGISTER_SS: return c->seg[X86_SS].base;
	case ZYDIS_REGISTER_DS: return c->seg[X86_DS].base;
	case ZYDIS_REGISTER_FS: return c->seg[X86_FS].base;
	case ZYDIS_REGISTER_GS: return c->seg[X86_GS].base;
	default: return 0;
	}
}

static void make_case(const struct diff_form *f, enum diff_mode mode, struct diff_case *c)
{
	static const unsigned pointers[] = {X86_RSP, X86_RBP, X86_RSI, X86_RDI, X86_RBX};
	uint64_t base = mode == DIFF_16 ? 0 : DIFF_DATA;
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t key;

	memset(&c->regs, 0, sizeof(c->regs));
	c->mode = mode;
	make_segments(c);
	vary(f, mode, c->bytes, &c->len);
	c->regs.rip = (mode == DIFF_16 ? 0 : DIFF_CODE) +
		      (below(8) ? 64 * below(60) : 4096 - below(c->len));
	for (unsigned k = 0; k < 16; k++)
		c->regs.gpr[k] = value();
	for (unsigned k = 0; k < ARRAY_SIZE(pointers); k++)
		if (below(10))
			c->regs.gpr[pointers[k]] = base + target(16);
	if (below(4))
		c->regs.gpr[X86_RCX] = below(40);
	if (mode != DIFF_64)
		for (unsigned k = 0; k < 16; k++)
			c->regs.gpr[k] = k < 8 ? (uint32_t)c->regs.gpr[k] : 0;
	c->regs.rflags = X86_FLAG_ONE | X86_FLAG_IF |
			 (rnd() & (X86_FLAGS_ARITH | X86_FLAG_DF | X86_FLAG_ID | X86_FLAG_NT));
	if (!below(16))
		c->regs.rflags |= X86_FLAG_AC;
	random_fx(&c->regs.fx);
	memset(c->regs.ymmh, 0, sizeof(c->regs.ymmh));
	for (unsigned k = 0; k < (mode == DIFF_64 ? 32 : 16) && diff_soft_shows(ZYDIS_ISA_SET_AVX); k++)
		c->regs.ymmh[k / 2][k % 2] = value();
	if (mode != DIFF_64)
		memset(&c->regs.fx.xmm[8], 0, 8 * 16);
	for (size_t k = 0; k < sizeof(c->data) / 8; k++)
		((uint64_t *)c->data)[k] = value();

	diff_decode(mode, c->bytes, &zi, op, &key);
	c->traced = zi.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE || below(3);
	/* A gather that faults after some elements traps instead; ours faults (cpu/DESIGN.md). */
	if (zi.meta.isa_set == ZYDIS_ISA_SET_AVX2GATHER)
		c->traced = false;
	for (unsigned k = 0; k < zi.operand_count; k++) {
		uint64_t to = DIFF_DATA - segment_base(c, op[k].mem.segment);

		if (op[k].type != ZYDIS_OPERAND_TYPE_MEMORY || op[k].mem.base == ZYDIS_REGISTER_RSP ||
		    op[k].mem.base == ZYDIS_REGISTER_ESP || op[k].mem.base == ZYDIS_REGISTER_SP) {
			if (op[k].type != ZYDIS_OPERAND_TYPE_MEMORY ||
			    op[k].encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
				continue;
		}
		to += target(op[k].size / 8);
		if (mode != DIFF_64 && !below(64))
			to = 0 - (uint64_t)below(op[k].size / 8 + 1); /* over the segment's end */
		if (op[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM || below(16))
			aim(c, &zi, &op[k], to);
	}
	/* Absolute addresses of the A0..A3 moves. */
	if (zi.opcode >= 0xa0 && zi.opcode <= 0xa3 && zi.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) {
		uint64_t to = DIFF_DATA + target(8) - segment_base(c, op[zi.opcode & 2 ? 0 : 1].mem.segment);

		memcpy(c->bytes + zi.raw.disp.offset, &to, zi.raw.disp.size / 8);
	}
	if (mode != DIFF_64)
		for (unsigned k = 0; k < 8; k++)
			c->regs.gpr[k] = (uint32_t)c->regs.gpr[k];
	/* Branches stay where an address can be. */
	if (zi.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
		c->regs.gpr[X86_RSP] = base + 64 + below(4000) / 8 * 8;
}

/* ---- comparing ----------------------------------------------------------------------------------------- */

static uint64_t undefined_flags(const struct diff_case *c)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t key;

	diff_decode(c->mode, c->bytes, &zi, op, &key);
	return zi.cpu_flags ? zi.cpu_flags->undefined : 0;
}

/* Which byte of a page it was that a masked store across two pages may not write: silicon varies. */
static uint64_t cr2_slack(const struct diff_case *c)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t key;

	diff_decode(c->mode, c->bytes, &zi, op, &key);
	switch (zi.mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ: return op[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? 31 : 0;
	default: return 0;
	}
}

static bool differs(const struct diff_case *c, const struct diff_result *n, const struct diff_result *s,
		    char *what, size_t size)
{
	uint64_t flags = (X86_FLAGS_ARITH | X86_FLAG_DF | X86_FLAG_AC | X86_FLAG_ID | X86_FLAG_NT |
			  X86_FLAG_TF) &
			 ~undefined_flags(c);

	if (n->vector != s->vector)
		return snprintf(what, size, "exception %u, ours %u (error %#x)", n->vector,
				s->vector, s->error);
	if (n->vector != X86_VEC_DB && n->error != s->error)
		return snprintf(what, size, "vector %u error %#x, ours %#x", n->vector, n->error,
				s->error);
	if (n->vector == X86_VEC_PF && (n->cr2 ^ s->cr2) & ~cr2_slack(c))
		return snprintf(what, size, "cr2 %#" PRIx64 ", ours %#" PRIx64, n->cr2, s->cr2);
	if (n->regs.rip != s->regs.rip)
		return snprintf(what, size, "rip %#" PRIx64 ", ours %#" PRIx64, n->regs.rip,
				s->regs.rip);
	for (unsigned k = 0; k < (c->mode == DIFF_64 ? 16 : 8); k++)
		if (n->regs.gpr[k] != s->regs.gpr[k])
			return snprintf(what, size, "register %u %#" PRIx64 ", ours %#" PRIx64, k,
					n->regs.gpr[k], s->regs.gpr[k]);
	if ((n->regs.rflags ^ s->regs.rflags) & flags)
		return snprintf(what, size, "flags %#" PRIx64 ", ours %#" PRIx64,
				n->regs.rflags & flags, s->regs.rflags & flags);
	for (unsigned k = 0; k < 6; k++)
		if (n->sel[k] != s->sel[k])
			return snprintf(what, size, "segment %u %#x, ours %#x", k, n->sel[k], s->sel[k]);
	if (c->mode == DIFF_64 && (n->fs_base != s->fs_base || n->gs_base != s->gs_base))
		return snprintf(what, size, "FS, GS at %#" PRIx64 " %#" PRIx64 ", ours %#" PRIx64 " %#" PRIx64,
				n->fs_base, n->gs_base, s->fs_base, s->gs_base);
	for (unsigned k = 0; k < 16; k++)
		if (memcmp(&n->regs.fx.xmm[k], &s->regs.fx.xmm[k], 16))
			return snprintf(what, size,
					"xmm%u %016" PRIx64 "%016" PRIx64 ", ours %016" PRIx64
					"%016" PRIx64,
					k, n->regs.fx.xmm[k].q[1], n->regs.fx.xmm[k].q[0],
					s->regs.fx.xmm[k].q[1], s->regs.fx.xmm[k].q[0]);
	for (unsigned k = 0; k < 16; k++)
		if (memcmp(n->regs.ymmh[k], s->regs.ymmh[k], 16))
			return snprintf(what, size,
					"ymm%u upper %016" PRIx64 "%016" PRIx64 ", ours %016" PRIx64
					"%016" PRIx64,
					k, n->regs.ymmh[k][1], n->regs.ymmh[k][0], s->regs.ymmh[k][1],
					s->regs.ymmh[k][0]);
	for (unsigned k = 0; k < 8; k++)
		if (n->regs.fx.st[k].lo != s->regs.fx.st[k].lo ||
		    (uint16_t)n->regs.fx.st[k].hi != (uint16_t)s->regs.fx.st[k].hi)
			return snprintf(what, size, "st%u %04x:%016" PRIx64 ", ours %04x:%016" PRIx64, k,
					(uint16_t)n->regs.fx.st[k].hi, n->regs.fx.st[k].lo,
					(uint16_t)s->regs.fx.st[k].hi, s->regs.fx.st[k].lo);
	if (n->regs.fx.fcw != s->regs.fx.fcw || n->regs.fx.fsw != s->regs.fx.fsw ||
	    n->regs.fx.ftw != s->regs.fx.ftw || n->regs.fx.mxcsr != s->regs.fx.mxcsr)
		return snprintf(what, size, "fcw/fsw/ftw/mxcsr %x/%x/%x/%x, ours %x/%x/%x/%x",
				n->regs.fx.fcw, n->regs.fx.fsw, n->regs.fx.ftw, n->regs.fx.mxcsr,
				s->regs.fx.fcw, s->regs.fx.fsw, s->regs.fx.ftw, s->regs.fx.mxcsr);
	if (n->regs.fx.fip != s->regs.fx.fip || n->regs.fx.fdp != s->regs.fx.fdp ||
	    n->regs.fx.fop != s->regs.fx.fop)
		return snprintf(what, size,
				"fip/fdp/fop %#" PRIx64 "/%#" PRIx64 "/%#x, ours %#" PRIx64
				"/%#" PRIx64 "/%#x",
				n->regs.fx.fip, n->regs.fx.fdp, n->regs.fx.fop, s->regs.fx.fip,
				s->regs.fx.fdp, s->regs.fx.fop);
	for (size_t k = 0; k < sizeof(n->data); k++)
		if (n->data[k] != s->data[k])
			return snprintf(what, size, "memory at %#zx: %02x, ours %02x", k, n->data[k],
					s->data[k]);
	return false;
}

static void tell(const struct diff_form *f, const struct diff_case *c, const char *what)
{
	static const char *const modes[] = {"64", "32", "16"};

	printf("DIFFERS %s-bit %-32s [", modes[c->mode], f->text);
	for (unsigned k = 0; k < c->len; k++)
		printf("%02x", c->bytes[k]);
	printf("] %s\n", what);
	if (getenv("DIFF_VERBOSE")) {
		for (unsigned k = 0; k < 16; k++)
			printf("    r%u=%#" PRIx64, k, c->regs.gpr[k]);
		printf("\n    rip=%#" PRIx64 " rflags=%#" PRIx64 " traced=%d\n", c->regs.rip,
		       c->regs.rflags, c->traced);
		for (unsigned k = 0; k < 6; k++)
			printf("    %x: %#" PRIx64 " %#x %#x", c->seg[k].sel, c->seg[k].base,
			       c->seg[k].limit, c->seg[k].attr);
		printf("\n");
	}
	fflush(stdout);
}

struct totals {
	unsigned long forms, forms_bad, cases, excluded, faults;
};

static void run_form(const struct diff_form *f, enum diff_mode mode, unsigned cases, struct totals *t)
{
	static struct diff_case c;
	static struct diff_result native, ours;
	unsigned bad = 0;
	char what[256];

	for (unsigned k = 0; k < cases; k++) {
		make_case(f, mode, &c);
		memset(&native, 0, sizeof(native));
		memset(&ours, 0, sizeof(ours));
		if (getenv("DIFF_TRACE")) {
			printf("%s:", f->text);
			for (unsigned i = 0; i < c.len; i++)
				printf("%02x", c.bytes[i]);
			printf("\n");
			fflush(stdout);
		}
		diff_native_run(&c, &native);
		diff_soft_run(&c, &ours);
		t->cases++;
		t->faults += native.vector != X86_VEC_DB;
		if (differs(&c, &native, &ours, what, sizeof(what))) {
			if (++bad <= 2)
				tell(f, &c, what);
		}
	}
	t->forms++;
	t->forms_bad += bad != 0;
}

/* ---- what is no instruction -------------------------------------------------------------------------- */

/* Random bytes that Zydis does not decode: opcode maps, prefixes and VEX in all mixtures. */
static void random_bytes(uint8_t b[16])
{
	static const uint8_t starts[][3] = {{0},    {0x0f},	  {0x0f, 0x38}, {0x0f, 0x3a},
					    {0x66}, {0x66, 0x0f}, {0xf3, 0x0f}, {0xf2, 0x0f},
					    {0xf0}, {0xc4},	  {0xc5},	{0xf0, 0x0f}};
	const uint8_t *start = starts[below(ARRAY_SIZE(starts))];

	for (unsigned k = 0; k < 16; k++)
		b[k] = (uint8_t)rnd();
	for (unsigned k = 0; k < 3 && start[k]; k++)
		b[k] = start[k];
}

static void run_undefined(enum diff_mode mode, unsigned cases, struct totals *t)
{
	static const char *const names[] = {"64", "32", "16"};
	static const struct diff_form nop = {.bytes = {0x90}, .len = 1, .text = "no instruction"};
	static struct diff_case c;
	static struct diff_result native, ours;
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	unsigned long bad = 0;
	uint8_t b[16];
	uint64_t key;

	for (unsigned k = 0; k < cases; k++) {
		do
			random_bytes(b);
		while (diff_decode(mode, b, &zi, op, &key));
		make_case(&nop, mode, &c);
		memcpy(c.bytes, b, 15);
		c.len = 15;
		c.traced = true;
		memset(&native, 0, sizeof(native));
		memset(&ours, 0, sizeof(ours));
		diff_native_run(&c, &native);
		diff_soft_run(&c, &ours);
		if (native.vector == ours.vector && native.regs.rip == ours.regs.rip)
			continue;
		if (++bad <= 20) {
			char what[64];

			snprintf(what, sizeof(what), "exception %u, ours %u", native.vector, ours.vector);
			tell(&nop, &c, what);
		}
	}
	printf("%s-bit: %u encodings of no instruction, %lu differ\n", names[mode], cases, bad);
	t->forms_bad += bad != 0;
}

static void list_excluded(const struct diff_forms *forms, struct totals *t, bool list)
{
	for (size_t k = 0; k < forms->count; k++) {
		if (!forms->form[k].excluded)
			continue;
		t->excluded++;
		if (list)
			printf("excluded %-32s %s\n", forms->form[k].text, forms->form[k].excluded);
	}
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"64", "32", "16"};
	unsigned cases = 200, only = ~0u;
	const char *match = NULL;
	bool list = false;
	struct totals all = {0};
	int opt;

	while ((opt = getopt(argc, argv, "n:m:f:s:lp:")) != -1) {
		switch (opt) {
		case 'n': cases = (unsigned)atoi(optarg); break;
		case 'm': only = !strcmp(optarg, "64") ? 0 : !strcmp(optarg, "32") ? 1 : 2; break;
		case 'f': match = optarg; break;
		case 's': rng_state = strtoull(optarg, NULL, 0) | 1; break;
		case 'l': list = true; break;
		case 'p': diff_soft_init(); return diff_vectors_tell(optarg);
		default:
			fprintf(stderr, "usage: %s [-n CASES] [-m 64|32|16] [-f TEXT] [-s SEED] [-l]\n"
				"       %s -p VECTORS\n",
				argv[0],
				argv[0]);
			return 64;
		}
	}
	diff_soft_init();
	diff_native_init();
	for (unsigned mode = 0; mode < DIFF_MODES; mode++) {
		struct diff_forms forms = {0};
		struct totals t = {0};

		if (only != ~0u && mode != only)
			continue;
		diff_forms_find(mode, &forms);
		for (size_t k = 0; k < forms.count; k++)
			if (!forms.form[k].excluded &&
			    (!match || strstr(forms.form[k].text, match)))
				run_form(&forms.form[k], mode, cases, &t);
		if (!match)
			run_undefined(mode, cases * 20, &t);
		list_excluded(&forms, &t, list);
		printf("%s-bit: %lu forms, %lu cases (%lu faulted), %lu forms not compared, %lu forms differ\n",
		       names[mode], t.forms, t.cases, t.faults, t.excluded, t.forms_bad);
		all.forms += t.forms;
		all.cases += t.cases;
		all.excluded += t.excluded;
		all.forms_bad += t.forms_bad;
		free(forms.form);
	}
	printf("all: %lu forms, %lu cases, %lu forms not compared, %lu forms differ\n", all.forms,
	       all.cases, all.excluded, all.forms_bad);
	return all.forms_bad ? 1 : 0;
}
