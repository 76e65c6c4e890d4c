/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Segmentation: descriptors, segment register loads, limit and type checks (SDM 3A 3, 5). */
#include "cpu/segment.h"

unsigned cpu_cpl(const struct cpu *c)
{
	if (!(c->s.cr0 & X86_CR0_PE))
		return 0;
	if (cpu_vm86(c))
		return 3;
	return c->s.seg[X86_SS].attr >> X86_ATTR_DPL_SHIFT & 3;
}

bool cpu_lin_canonical(const struct cpu *c, uint64_t lin)
{
	unsigned shift = c->s.cr4 & X86_CR4_LA57 ? 64 - 57 : 64 - 48;

	return (uint64_t)((int64_t)(lin << shift) >> shift) == lin;
}

/* ---- descriptors ------------------------------------------------------------------------------
 */

static uint64_t table_lin(const struct cpu *c, uint64_t lin)
{
	return cpu_long_mode(c) ? lin : (uint32_t)lin;
}

/* The linear address of bytes [at, at + len) of @sel's table, or false. */
static bool table_addr(struct cpu *c, uint16_t sel, unsigned at, unsigned len, uint64_t *lin)
{
	uint64_t off = (sel & 0xfff8u) + at;

	if (sel & 4) {
		if ((c->s.ldtr.attr & X86_ATTR_UNUSABLE) || off + len - 1 > c->s.ldtr.limit)
			return false;
		*lin = table_lin(c, c->s.ldtr.base + off);
	} else {
		if (off + len - 1 > c->s.gdtr.limit)
			return false;
		*lin = table_lin(c, c->s.gdtr.base + off);
	}
	return true;
}

bool cpu_desc_read(struct cpu *c, uint16_t sel, struct cpu_desc *d)
{
	uint64_t raw;

	if (!table_addr(c, sel, 0, 8, &d->lin))
		return false;
	raw = cpu_ld_sys(c, d->lin, 8);
	d->lo = (uint32_t)raw;
	d->hi = (uint32_t)(raw >> 32);
	d->base_hi = 0;
	return true;
}

bool cpu_desc_read_high(struct cpu *c, uint16_t sel, struct cpu_desc *d)
{
	uint64_t lin, raw;

	if (!table_addr(c, sel, 8, 8, &lin))
		return false;
	raw = cpu_ld_sys(c, lin, 8);
	if (raw >> 40 & 0x1f)
		return false;
	d->base_hi = raw << 32;
	return true;
}

void cpu_desc_set_accessed(struct cpu *c, struct cpu_desc *d)
{
	if (d->hi & BIT(8))
		return;
	d->hi |= BIT(8);
	cpu_st_sys(c, d->lin + 5, d->hi >> 8 & 0xff, 1);
}

void cpu_desc_set_busy(struct cpu *c, const struct cpu_desc *d, bool busy)
{
	uint8_t type = d->hi >> 8 & 0xff;

	cpu_st_sys(c, d->lin + 5, busy ? type | 2 : type & ~2u, 1);
}

void cpu_desc_unpack(const struct cpu_desc *d, uint16_t sel, struct cpu_seg *seg)
{
	uint32_t limit = (d->lo & 0xffff) | (d->hi & 0xf0000);

	*seg = (struct cpu_seg){
		.base = d->lo >> 16 | (d->hi & 0xff) << 16 | (d->hi & 0xff000000) | d->base_hi,
		.limit = d->hi & BIT(23) ? limit << 12 | 0xfff : limit,
		.sel = sel,
		.attr = d->hi >> 8 & 0xf0ff,
	};
}

void cpu_seg_set_null(struct cpu_seg *seg, uint16_t sel, unsigned dpl)
{
	*seg = (struct cpu_seg){
		.sel = sel,
		.attr = X86_ATTR_UNUSABLE | dpl << X86_ATTR_DPL_SHIFT,
	};
}

/* ---- loading segment registers ----------------------------------------------------------------
 */

/* Real mode leaves limit and rights alone ("big real mode"); virtual-8086 mode fixes them. */
void cpu_load_seg_real(struct cpu *c, unsigned seg, uint16_t sel)
{
	struct cpu_seg *s = &c->s.seg[seg];

	s->sel = sel;
	s->base = (uint64_t)sel << 4;
	if (cpu_vm86(c)) {
		s->limit = 0xffff;
		s->attr = 0xf3;
	} else if (s->attr & X86_ATTR_UNUSABLE) {
		s->limit = 0xffff;
		s->attr = 0x93;
	}
}

void cpu_ss_check(struct cpu *c, uint16_t sel, unsigned cpl, uint8_t vector, bool ext,
		  struct cpu_seg *out)
{
	struct cpu_desc d;

	if (!cpu_desc_read(c, sel, &d))
		cpu_fault_sel(c, vector, sel, ext);
	if ((sel & 3) != cpl || !cpu_desc_writable_data(&d) || cpu_desc_dpl(&d) != cpl)
		cpu_fault_sel(c, vector, sel, ext);
	if (!cpu_desc_present(&d))
		cpu_fault_sel(c, X86_VEC_SS, sel, ext);
	cpu_desc_set_accessed(c, &d);
	cpu_desc_unpack(&d, sel, out);
}

static void load_ss(struct cpu *c, uint16_t sel)
{
	unsigned cpl = cpu_cpl(c);

	if (cpu_sel_null(sel)) {
		/* 64-bit code below CPL 3 may have none (SDM 2B, MOV). */
		if (!cpu_code64(c) || cpl == 3 || (sel & 3) != cpl)
			cpu_fault_err(c, NULL, X86_VEC_GP, 0);
		cpu_seg_set_null(&c->s.seg[X86_SS], sel, cpl);
		return;
	}
	cpu_ss_check(c, sel, cpl, X86_VEC_GP, false, &c->s.seg[X86_SS]);
}

static void load_data_seg(struct cpu *c, unsigned seg, uint16_t sel)
{
	struct cpu_desc d;
	unsigned type;

	if (cpu_sel_null(sel)) {
		cpu_seg_set_null(&c->s.seg[seg], sel, 0);
		return;
	}
	if (!cpu_desc_read(c, sel, &d))
		cpu_fault_sel(c, X86_VEC_GP, sel, false);
	type = cpu_desc_type(&d);
	if (!(type & 0x10) || (type & 0xa) == 8)
		cpu_fault_sel(c, X86_VEC_GP, sel, false);
	if ((type & 0xc) != 0xc && MAX(sel & 3u, cpu_cpl(c)) > cpu_desc_dpl(&d))
		cpu_fault_sel(c, X86_VEC_GP, sel, false);
	if (!cpu_desc_present(&d))
		cpu_fault_sel(c, X86_VEC_NP, sel, false);
	cpu_desc_set_accessed(c, &d);
	cpu_desc_unpack(&d, sel, &c->s.seg[seg]);
}

void cpu_load_seg(struct cpu *c, unsigned seg, uint16_t sel)
{
	if (!cpu_protected(c))
		cpu_load_seg_real(c, seg, sel);
	else if (seg == X86_SS)
		load_ss(c, sel);
	else
		load_data_seg(c, seg, sel);
}

void cpu_drop_inner_segs(struct cpu *c, unsigned cpl)
{
	static const uint8_t data_segs[] = {X86_ES, X86_DS, X86_FS, X86_GS};

	for (unsigned n = 0; n < ARRAY_SIZE(data_segs); n++) {
		struct cpu_seg *s = &c->s.seg[data_segs[n]];
		bool conforming =
			(s->attr & (X86_ATTR_CODE | X86_ATTR_EC)) == (X86_ATTR_CODE | X86_ATTR_EC);

		if (s->attr & X86_ATTR_UNUSABLE || conforming)
			continue;
		/* Only selector and usability go; the base stays, as 64-bit code sees through FS
		 * and GS. */
		if ((s->attr >> X86_ATTR_DPL_SHIFT & 3) < cpl) {
			s->sel = 0;
			s->attr = X86_ATTR_UNUSABLE;
		}
	}
}

/* ---- access checks ----------------------------------------------------------------------------
 */

/* Do @size bytes at @off lie within the limit? (SDM 3A 5.3) */
static bool within_limit(const struct cpu_seg *s, uint32_t off, unsigned size)
{
	uint32_t last = off + size - 1;
	bool down = (s->attr & (X86_ATTR_S | X86_ATTR_CODE | X86_ATTR_EC)) ==
		    (X86_ATTR_S | X86_ATTR_EC);

	if (down)
		return off > s->limit && last >= off &&
		       last <= (s->attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu);
	if (s->limit == 0xffffffffu && !s->base)
		return true; /* a flat segment: accesses wrap (SDM 3A 5.3 leaves it open; silicon
				does) */
	return last >= off && last <= s->limit;
}

/* May the segment be read, or written? (SDM 3A 5.4; real and virtual-8086 mode know no types.) */
static bool type_allows(const struct cpu *c, const struct cpu_seg *s, bool write)
{
	if (s->attr & X86_ATTR_UNUSABLE)
		return false;
	if (!cpu_protected(c))
		return true;
	if (s->attr & X86_ATTR_CODE)
		return !write && (s->attr & X86_ATTR_RW);
	return !write || (s->attr & X86_ATTR_RW);
}

static __attribute__((noinline, cold)) void seg_fault(struct cpu *c, const struct cpu_insn *i,
						      unsigned seg)
{
	cpu_fault_err(c, i, seg == X86_SS ? X86_VEC_SS : X86_VEC_GP, 0);
}

uint64_t cpu_operand_lin(struct cpu *c, const struct cpu_insn *i, unsigned size, bool write)
{
	uint64_t lin;

	if ((c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		return cpu_lin(c, i);
	lin = cpu_seg_check(c, i, i->seg, cpu_ea(c, i), size, write);
	if (c->mode & CPU_MODE_AC && lin & (size - 1))
		cpu_fault_err(c, i, X86_VEC_AC, 0);
	return lin;
}

uint64_t cpu_seg_check(struct cpu *c, const struct cpu_insn *i, unsigned seg, uint64_t ea,
		       unsigned size, bool write)
{
	const struct cpu_seg *s;
	uint64_t lin;

	if ((c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64) {
		lin = seg == X86_FS || seg == X86_GS ? ea + c->s.seg[seg].base : ea;
		if (!cpu_lin_canonical(c, lin) || !cpu_lin_canonical(c, lin + size - 1))
			seg_fault(c, i, seg);
		return lin;
	}
	if (seg == CPU_SEG_NONE)
		seg = X86_DS;
	s = &c->s.seg[seg];
	if (!type_allows(c, s, write) || !within_limit(s, (uint32_t)ea, size))
		seg_fault(c, i, seg);
	return (uint32_t)(s->base + ea);
}

/* ---- stack frames -----------------------------------------------------------------------------
 */

uint64_t cpu_stack_mask(const struct cpu_seg *ss, bool long64)
{
	if (long64)
		return ~0ull;
	return ss->attr & X86_ATTR_DB ? 0xffffffffull : 0xffffull;
}

struct cpu_stack cpu_stack_now(struct cpu *c)
{
	return (struct cpu_stack){
		.ss = &c->s.seg[X86_SS],
		.sp = c->s.gpr[X86_RSP],
		.mask = cpu_stack_mask(&c->s.seg[X86_SS], cpu_code64(c)),
	};
}

void cpu_stack_commit(struct cpu *c, uint64_t sp, uint64_t mask)
{
	if (mask == 0xffff)
		c->s.gpr[X86_RSP] = (c->s.gpr[X86_RSP] & ~0xffffull) | (sp & 0xffff);
	else
		c->s.gpr[X86_RSP] = sp & mask;
}

/* The linear address of @size bytes at @sp, or #SS. */
static uint64_t stack_lin(struct cpu *c, const struct cpu_stack *st, uint64_t sp, unsigned size,
			  bool write)
{
	sp &= st->mask;
	if (st->mask == ~0ull) {
		if (!cpu_lin_canonical(c, sp) || !cpu_lin_canonical(c, sp + size - 1))
			cpu_fault_err(c, NULL, X86_VEC_SS, st->error);
		return sp;
	}
	if (!type_allows(c, st->ss, write) || !within_limit(st->ss, (uint32_t)sp, size))
		cpu_fault_err(c, NULL, X86_VEC_SS, st->error);
	return (uint32_t)(st->ss->base + sp);
}

static unsigned stack_access(const struct cpu *c, const struct cpu_stack *st)
{
	return !st->sys && cpu_cpl(c) == 3 ? CPU_ACCESS_USER : 0;
}

/* From the top down, as the words will be written: so CR2 is what silicon's would be. */
void cpu_stack_room(struct cpu *c, const struct cpu_stack *st, unsigned n, unsigned size)
{
	unsigned access = stack_access(c, st) | CPU_ACCESS_WRITE;
	uint64_t page = ~0ull, lin;

	for (unsigned k = 1; k <= n; k++) {
		lin = stack_lin(c, st, st->sp - (uint64_t)k * size, size, true);
		if ((lin & PAGE_MASK) == page && ((lin + size - 1) & PAGE_MASK) == page)
			continue;
		cpu_probe(c, NULL, lin, size, access);
		page = lin & PAGE_MASK;
	}
}

void cpu_stack_push(struct cpu *c, struct cpu_stack *st, const uint64_t *v, unsigned n,
		    unsigned size)
{
	bool user = stack_access(c, st);

	cpu_stack_room(c, st, n, size);
	for (unsigned k = 0; k < n; k++) {
		uint64_t lin;

		st->sp = (st->sp - size) & st->mask;
		lin = st->mask == ~0ull ? st->sp : (uint32_t)(st->ss->base + st->sp);
		if (user)
			cpu_st(c, NULL, lin, v[k], size);
		else
			cpu_st_sys(c, lin, v[k], size);
	}
}

uint64_t cpu_stack_peek(struct cpu *c, const struct cpu_stack *st, unsigned at, unsigned size)
{
	return cpu_ld(c, NULL, stack_lin(c, st, st->sp + at, size, false), size);
}

/* ---- stacks in the TSS ------------------------------------------------------------------------
 */

struct cpu_inner_stack cpu_tss_stack(struct cpu *c, unsigned cpl, unsigned ist, bool ext)
{
	const struct cpu_seg *tr = &c->s.tr;
	unsigned type = tr->attr & X86_ATTR_TYPE;
	struct cpu_inner_stack st = {0};
	unsigned at, len;

	if (cpu_long_mode(c)) {
		at = ist ? 0x1c + ist * 8 : cpl * 8 + 4;
		len = 8;
	} else if (type & 8) {
		at = cpl * 8 + 4;
		len = 6;
	} else {
		at = cpl * 4 + 2;
		len = 4;
	}
	if (at + len - 1 > tr->limit)
		cpu_fault_sel(c, X86_VEC_TS, tr->sel, ext);
	st.sp = cpu_ld_sys(c, table_lin(c, tr->base + at), len == 6 ? 4 : len == 4 ? 2 : 8);
	if (len != 8)
		st.sel = (uint16_t)cpu_ld_sys(c, table_lin(c, tr->base + at + (len - 2)), 2);
	return st;
}
