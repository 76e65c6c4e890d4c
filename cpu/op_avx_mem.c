/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Masked loads and stores, and gathers: only elements that the mask names are touched. */
#include <string.h>

#include "cpu/fp_simd.h"

/* In cpu_insn.arg */
#define ARG_BYTES(arg) ((arg)&0xff) /* of the operands */
#define ARG_WIDE       BIT(8)	    /* elements are 8 bytes, not 4 */
#define ARG_QINDEX     BIT(9)	    /* indices are 8 bytes */

/* Element @n of @size bytes of the register at @slot. */
static void *element(struct cpu *c, unsigned slot, unsigned n, unsigned size)
{
	unsigned at = n * size;

	return at < 16 ? (char *)c->s.fx.xmm + slot + at : (char *)c->s.ymmh + slot + at - 16;
}

static bool is_masked(struct cpu *c, const struct cpu_insn *i, unsigned n, unsigned size)
{
	return ((uint8_t *)element(c, i->r3, n, size))[size - 1] >> 7;
}

static uint64_t element_lin(struct cpu *c, const struct cpu_insn *i, uint64_t ea, unsigned size,
			    bool write)
{
	if ((c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		return ea + c->lbase[i->seg];
	return cpu_seg_check(c, i, i->seg, ea, size, write);
}

static unsigned element_size(const struct cpu_insn *i)
{
	return i->arg & ARG_WIDE ? 8 : 4;
}

/* ---- VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ -------------------------------------------
 */

/* Over the 4-GiB end of a segment. */
static bool straddles(const struct cpu *c, uint64_t ea, unsigned size)
{
	return (c->mode & CPU_MODE_CODE) != CPU_MODE_CODE64 && (uint32_t)(ea + size - 1) < size - 1;
}

/* The segment before any element's pages; but what straddles its end has its turn in a load. */
static void check_segment(struct cpu *c, const struct cpu_insn *i, bool write)
{
	const unsigned size = element_size(i), count = ARG_BYTES(i->arg) / size;
	const uint64_t ea = cpu_ea(c, i);

	if (c->mode & CPU_MODE_FLAT && i->seg < X86_FS)
		return;
	for (unsigned n = 0; n < count; n++)
		if (is_masked(c, i, n, size) && (write || !straddles(c, ea + n * size, size)))
			element_lin(c, i, ea + n * size, size, write);
}

CPU_BODY masked_load_body(struct cpu *c, const struct cpu_insn *i)
{
	const unsigned size = element_size(i), count = ARG_BYTES(i->arg) / size;
	const uint64_t ea = cpu_ea(c, i);
	uint8_t result[32] = {0};

	check_segment(c, i, false);
	for (unsigned n = 0; n < count; n++) {
		uint64_t v;

		if (!is_masked(c, i, n, size))
			continue;
		v = cpu_ld(c, i, element_lin(c, i, ea + n * size, size, false), size);
		memcpy(result + n * size, &v, size);
	}
	memcpy(element(c, i->r1, 0, 16), result, 16);
	memcpy(element(c, i->r1, 1, 16), result + 16, 16);
}
CPU_BODY_HANDLER(masked_load)

CPU_BODY masked_store_body(struct cpu *c, const struct cpu_insn *i)
{
	const unsigned size = element_size(i), count = ARG_BYTES(i->arg) / size;
	const uint64_t ea = cpu_ea(c, i);
	const unsigned access = CPU_ACCESS_WRITE | (cpu_cpl(c) == 3 ? CPU_ACCESS_USER : 0);

	/* But an element over the 4-GiB end of its segment: the page comes first. */
	for (unsigned n = 0; n < count; n++)
		if (is_masked(c, i, n, size) && straddles(c, ea + n * size, size))
			cpu_probe(c, i,
				  cpu_lin_wrap(c,
					       cpu_seg_check(c, i, i->seg, ea + n * size, 1, true)),
				  size, access);
	check_segment(c, i, true);
	for (unsigned n = 0; n < count; n++)
		if (is_masked(c, i, n, size))
			cpu_probe(c, i, element_lin(c, i, ea + n * size, size, true), size, access);
	for (unsigned n = 0; n < count; n++) {
		uint64_t v = 0;

		if (!is_masked(c, i, n, size))
			continue;
		memcpy(&v, element(c, i->r1, n, size), size);
		cpu_st(c, i, element_lin(c, i, ea + n * size, size, true), v, size);
	}
}
CPU_BODY_HANDLER(masked_store)

/* ---- gathers --------------------------------------------------------------------------------- */

/* Also when the first element faults: the mask is spread over its register. */
static void spread_mask(struct cpu *c, const struct cpu_insn *i, unsigned size, unsigned bytes)
{
	for (unsigned n = 0; n < 32 / size; n++) {
		bool set = n * size < bytes && is_masked(c, i, n, size);

		memset(element(c, i->r3, n, size), set ? 0xff : 0, size);
	}
}

/* The register beyond @bytes becomes zero: beyond VEX.L with the first element that is loaded. */
static void clear_rest(struct cpu *c, unsigned slot, unsigned bytes)
{
	for (unsigned n = bytes / 4; n < 8; n++)
		memset(element(c, slot, n, 4), 0, 4);
}

/*
 * r1 is loaded, r2 holds indices, r3 the mask. An element that was loaded is there, and out of the
 * mask, when a later one faults, so that the instruction can go on from there.
 */
CPU_BODY gather_body(struct cpu *c, const struct cpu_insn *i)
{
	const unsigned size = element_size(i), isize = i->arg & ARG_QINDEX ? 8 : 4;
	const unsigned count = ARG_BYTES(i->arg) / MAX(size, isize);
	const uint64_t base = cpu_ea(c, i);

	spread_mask(c, i, size, ARG_BYTES(i->arg));
	for (unsigned n = 0; n < count; n++) {
		int64_t index = 0;
		uint64_t ea, v;

		if (is_masked(c, i, n, size)) {
			memcpy(&index, element(c, i->r2, n, isize), isize);
			if (isize == 4)
				index = (int32_t)index;
			ea = base + ((uint64_t)index << i->scale);
			if (i->asize != 8)
				ea = (uint32_t)ea;
			v = cpu_ld(c, i, element_lin(c, i, ea, size, false), size);
			memcpy(element(c, i->r1, n, size), &v, size);
			clear_rest(c, i->r1, ARG_BYTES(i->arg));
		}
		memset(element(c, i->r3, n, size), 0, size);
	}
	clear_rest(c, i->r1, count * size);
	clear_rest(c, i->r3, 0);
}
CPU_BODY_HANDLER(gather)

/* ---- choosing -------------------------------------------------------------------------------- */

static uint8_t vector_slot(ZydisRegister r)
{
	return (uint8_t)(ZydisRegisterGetId(r) * 16);
}

static const ZydisDecodedOperand *mask_operand(const struct cpu_dec *d)
{
	for (unsigned n = 0; n < d->zi.operand_count_visible; n++)
		if (d->op[n].encoding == ZYDIS_OPERAND_ENCODING_NDSNDD)
			return &d->op[n];
	return NULL;
}

/* The bytes of memory that may be touched are checked one element at a time. */
static bool begin(struct cpu_dec *d, struct cpu_insn *i, uint16_t wide)
{
	const ZydisDecodedOperand *mask = mask_operand(d);

	if (!mask || d->zi.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false;
	d->bare = true;
	i->arg = (uint16_t)((d->zi.raw.vex.L ? 32 : 16) | (wide ? ARG_WIDE : 0));
	i->r3 = vector_slot(mask->reg.value);
	return true;
}

bool cpu_pick_avx_maskmov(struct cpu_dec *d, struct cpu_insn *i, uint16_t wide)
{
	const bool store = d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY;

	if (cpu_avx_gated(d, i))
		return true;
	if (!begin(d, i, wide))
		return false;
	i->r1 = vector_slot(d->op[store ? 2 : 0].reg.value);
	i->fn = store ? masked_store : masked_load;
	return true;
}

bool cpu_pick_gather(struct cpu_dec *d, struct cpu_insn *i, uint16_t wide)
{
	const ZydisDecodedOperand *mem = &d->op[1];

	if (cpu_avx_gated(d, i))
		return true;
	if (mem->type != ZYDIS_OPERAND_TYPE_MEMORY || i->asize == 2 || !begin(d, i, wide))
		return false;
	i->r1 = vector_slot(d->op[0].reg.value);
	i->r2 = vector_slot(mem->mem.index);
	if (i->r1 == i->r2 || i->r1 == i->r3 || i->r2 == i->r3)
		return false;
	i->index = CPU_SLOT_ZERO;
	if (d->zi.opcode & 1)
		i->arg |= ARG_QINDEX;
	/* For whose elements a non-canonical address is #SS: see not_canonical() in mem.c. */
	i->flags &= (uint8_t)~CPU_INSN_MEM;
	if (i->seg == CPU_SEG_NONE && (i->base == X86_RSP || i->base == X86_RBP))
		i->seg = X86_SS;
	i->fn = gather;
	return true;
}
