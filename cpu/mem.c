/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory accesses off the quick path: TLB misses, pages crossed, code written, cpu_emulate()'s. */
#include <string.h>

#include "cpu/core.h"

static unsigned data_access(const struct cpu *c)
{
	return cpu_cpl(c) == 3 ? CPU_ACCESS_USER : 0;
}

/* ---- addresses that are none -------------------------------------------------------------------
 */

/* #SS for what RSP or RBP addresses, and for the stack's own accesses; else #GP (SDM 1 3.3.7.1). */
_Noreturn static void not_canonical(struct cpu *c, const struct cpu_insn *i, uint64_t lin)
{
	uint8_t vector = X86_VEC_GP;

	if (i && i->flags & CPU_INSN_MEM && lin - cpu_lin(c, i) < 4096) {
		if (i->seg == CPU_SEG_NONE && (i->base == X86_RSP || i->base == X86_RBP))
			vector = X86_VEC_SS;
	} else if (i && (i->seg == X86_SS || i->flags & CPU_INSN_MEM)) {
		vector = X86_VEC_SS;
	}
	cpu_fault_err(c, i, vector, 0);
}

static void check_canonical(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned len)
{
	if ((c->mode & CPU_MODE_CODE) != CPU_MODE_CODE64)
		return;
	if (unlikely(!cpu_lin_canonical(c, lin) || !cpu_lin_canonical(c, lin + len - 1)))
		not_canonical(c, i, lin);
}

/* ---- cpu_emulate()'s memory ---------------------------------------------------------------------
 */

static void emu_result(struct cpu *c, const struct cpu_insn *i, enum cpu_mem_result r,
		       const struct cpu_fault *fault)
{
	if (r == CPU_MEM_OK)
		return;
	cpu_make_precise(c, i);
	c->landed = *fault;
	longjmp(c->out, r == CPU_MEM_FAULT ? CPU_LAND_FAULT : CPU_LAND_STOP);
}

void cpu_emulate_port(struct cpu *c, const struct cpu_insn *i, const struct cpu_port_access *a)
{
	struct cpu_fault fault = {0};

	emu_result(c, i, c->mem_ops->port(c->mem_ctx, a->port, a->in, a->data, a->size), &fault);
}

static uint64_t next_part(const struct cpu *c, uint64_t lin, unsigned *part, unsigned len)
{
	*part = (unsigned)MIN((uint64_t)len, PAGE_SIZE - (lin & ~PAGE_MASK));
	return cpu_lin_wrap(c, lin + *part);
}

static void emu_read(struct cpu *c, const struct cpu_insn *i, uint64_t lin, void *dst, unsigned len,
		     unsigned access)
{
	while (len) {
		struct cpu_fault fault = {0};
		unsigned part;
		uint64_t next = next_part(c, lin, &part, len);

		emu_result(c, i, c->mem_ops->read(c->mem_ctx, lin, dst, part, access, &fault),
			   &fault);
		dst = (uint8_t *)dst + part;
		len -= part;
		lin = next;
	}
}

static void emu_write(struct cpu *c, const struct cpu_insn *i, uint64_t lin, const void *src,
		      unsigned len, unsigned access)
{
	while (len) {
		struct cpu_fault fault = {0};
		unsigned part;
		uint64_t next = next_part(c, lin, &part, len);

		emu_result(c, i, c->mem_ops->write(c->mem_ctx, lin, src, part, access, &fault),
			   &fault);
		src = (const uint8_t *)src + part;
		len -= part;
		lin = next;
	}
}

static void emu_probe(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned len,
		      unsigned access)
{
	while (len) {
		struct cpu_fault fault = {0};
		unsigned part;
		uint64_t next = next_part(c, lin, &part, len);

		emu_result(c, i, c->mem_ops->probe(c->mem_ctx, lin, part, access, &fault), &fault);
		len -= part;
		lin = next;
	}
}

static void note_data(struct cpu *c, uint64_t lin, unsigned size, unsigned how)
{
	if (unlikely(c->watching))
		cpu_debug_data(c, lin, size, how);
}

static void *emu_bounce(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned size,
			bool write, bool read)
{
	unsigned access = data_access(c);

	if (write)
		emu_probe(c, i, lin, size, access | CPU_ACCESS_WRITE);
	if (read)
		emu_read(c, i, lin, c->bounce, size, access);
	note_data(c, lin, size, (read ? CPU_WATCH_READ : 0) | (write ? CPU_WATCH_WRITE : 0));
	c->bounced.lin = lin;
	c->bounced.size = (uint8_t)size;
	c->bounced.host[0] = c->bounced.host[1] = NULL;
	c->bounced.pending = write;
	return c->bounce;
}

/* ---- parts of host memory -----------------------------------------------------------------------
 */

/* One host instruction where the size has one. */
static void store_part(uint8_t *to, const uint8_t *from, unsigned len)
{
	switch (len) {
	case 1: cpu_raw_st8(to, *from); break;
	case 2: cpu_raw_st16(to, cpu_raw_ld16(from)); break;
	case 4: cpu_raw_st32(to, cpu_raw_ld32(from)); break;
	case 8: cpu_raw_st64(to, cpu_raw_ld64(from)); break;
	case 16:
		__asm__ volatile("movups (%1),%%xmm0; movups %%xmm0,(%0)"
				 :
				 : "r"(to), "r"(from)
				 : "xmm0", "memory");
		break;
	default: cpu_raw_copy(to, from, len);
	}
}

void *cpu_mem_r_slow(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned size)
{
	unsigned access = data_access(c), first;
	uint8_t *a, *b;
	uint64_t next;
	bool code;

	check_canonical(c, i, lin, size);
	if (c->mem_ops)
		return emu_bounce(c, i, lin, size, false, true);
	next = next_part(c, lin, &first, size);
	a = cpu_translate(c, i, lin, access, &code);
	if (first == size) {
		note_data(c, lin, size, CPU_WATCH_READ);
		return a;
	}
	b = cpu_translate(c, i, next, access, &code);
	note_data(c, lin, size, CPU_WATCH_READ);
	if (b == a + first)
		return a;
	cpu_raw_copy(c->bounce, a, first);
	cpu_raw_copy(c->bounce + first, b, size - first);
	return c->bounce;
}

void *cpu_mem_w_slow(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned size,
		     bool read)
{
	unsigned access = data_access(c) | CPU_ACCESS_WRITE, first;
	bool code, code2 = false;
	uint8_t *a, *b = NULL;
	uint64_t next;

	check_canonical(c, i, lin, size);
	if (c->mem_ops)
		return emu_bounce(c, i, lin, size, true, read);
	next = next_part(c, lin, &first, size);
	a = cpu_translate(c, i, lin, access, &code);
	if (first < size)
		b = cpu_translate(c, i, next, access, &code2);
	note_data(c, lin, size, CPU_WATCH_WRITE | (read ? CPU_WATCH_READ : 0));
	if (!code && !code2 && (first == size || b == a + first))
		return a;
	c->bounced.lin = lin;
	c->bounced.size = (uint8_t)size;
	c->bounced.first = (uint8_t)first;
	c->bounced.host[0] = a;
	c->bounced.host[1] = b;
	c->bounced.pending = true;
	if (read) {
		cpu_raw_copy(c->bounce, a, first);
		if (b)
			cpu_raw_copy(c->bounce + first, b, size - first);
	}
	return c->bounce;
}

/* Stores first, then asks whether that was code: see domain.c. */
static void bounced_written(struct cpu *c)
{
	unsigned rest = c->bounced.size - c->bounced.first;

	cpu_code_written(c, (hpa_t)c->bounced.host[0], c->bounced.first);
	if (rest)
		cpu_code_written(c, (hpa_t)c->bounced.host[1], rest);
}

void cpu_mem_done_slow(struct cpu *c, const struct cpu_insn *i)
{
	unsigned first = c->bounced.first, size = c->bounced.size;

	if (!c->bounced.pending)
		return;
	c->bounced.pending = false;
	if (c->mem_ops) {
		emu_write(c, i, c->bounced.lin, c->bounce, size, data_access(c));
		return;
	}
	store_part(c->bounced.host[0], c->bounce, first);
	if (first < size)
		store_part(c->bounced.host[1], c->bounce + first, size - first);
	bounced_written(c);
}

/* ---- LOCK ---------------------------------------------------------------------------------------
 */

static bool cmpxchg16(void *p, void *old, const void *want)
{
	uint64_t lo = cpu_raw_ld64(old), hi = cpu_raw_ld64((uint8_t *)old + 8);
	bool ret_swapped;

	__asm__ volatile("lock cmpxchg16b %1"
			 : "=@ccz"(ret_swapped), "+m"(*(uint8_t(*)[16])p), "+a"(lo), "+d"(hi)
			 : "b"(cpu_raw_ld64(want)), "c"(cpu_raw_ld64((const uint8_t *)want + 8))
			 : "memory");
	cpu_raw_st64(old, lo);
	cpu_raw_st64((uint8_t *)old + 8, hi);
	return ret_swapped;
}

#define CMPXCHG(bits, suffix)                                                                      \
	case (bits) / 8: {                                                                         \
		uint##bits##_t expect = cpu_raw_ld##bits(old);                                     \
		bool swapped;                                                                      \
		__asm__ volatile("lock cmpxchg" suffix " %3,%1"                                    \
				 : "=@ccz"(swapped), "+m"(*(uint##bits##_t *)p), "+a"(expect)      \
				 : "q"(cpu_raw_ld##bits(want))                                     \
				 : "memory");                                                      \
		cpu_raw_st##bits(old, expect);                                                     \
		return swapped;                                                                    \
	}

/* @old becomes what was found. */
static bool host_cmpxchg(void *p, void *old, const void *want, unsigned size)
{
	switch (size) {
		CMPXCHG(8, "b")
		CMPXCHG(16, "w")
		CMPXCHG(32, "l")
		CMPXCHG(64, "q")
	default: return cmpxchg16(p, old, want);
	}
}

/* Two pages that are no neighbours in the host: atomic among such accesses. */
static bool split_cmpxchg(struct cpu *c, uint8_t *old, const void *want)
{
	unsigned first = c->bounced.first, size = c->bounced.size;
	uint8_t now[64];
	bool same;

	cpu_domain_split_lock(c->domain);
	cpu_raw_copy(now, c->bounced.host[0], first);
	cpu_raw_copy(now + first, c->bounced.host[1], size - first);
	same = !memcmp(now, old, size);
	if (same) {
		store_part(c->bounced.host[0], want, first);
		store_part(c->bounced.host[1], (const uint8_t *)want + first, size - first);
	}
	cpu_domain_split_unlock(c->domain);
	memcpy(old, now, size);
	return same;
}

static bool emu_cmpxchg(struct cpu *c, const struct cpu_insn *i, uint8_t *old, const void *want)
{
	uint64_t lin = c->bounced.lin;
	unsigned size = c->bounced.size;
	struct cpu_fault fault = {0};
	uint8_t before[64];

	memcpy(before, old, size);
	if ((lin & ~PAGE_MASK) + size <= PAGE_SIZE) {
		emu_result(c, i, c->mem_ops->cmpxchg(c->mem_ctx, lin, old, want, size, &fault),
			   &fault);
		return !memcmp(before, old, size);
	}
	/* Across pages L0 gives no atomic access: it is read, compared and written. */
	emu_read(c, i, lin, old, size, data_access(c));
	if (memcmp(before, old, size))
		return false;
	emu_write(c, i, lin, want, size, data_access(c));
	return true;
}

bool cpu_mem_cmpxchg(struct cpu *c, const struct cpu_insn *i, const void *old, const void *want)
{
	unsigned size = c->bounced.size;
	uint8_t found[64], wanted[64];
	bool swapped;

	memcpy(found, old, size);
	memcpy(wanted, want, size);
	if (c->mem_ops)
		swapped = emu_cmpxchg(c, i, found, wanted);
	else if (c->bounced.first < size)
		swapped = split_cmpxchg(c, found, wanted);
	else
		swapped = host_cmpxchg(c->bounced.host[0], found, wanted, size);
	if (!swapped) {
		memcpy(c->bounce, found, size);
		return false;
	}
	c->bounced.pending = false;
	if (!c->mem_ops)
		bounced_written(c);
	return true;
}

/* ---- by size ------------------------------------------------------------------------------------
 */

uint64_t cpu_ld(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned size)
{
	switch (size) {
	case 1: return cpu_ld8(c, i, lin);
	case 2: return cpu_ld16(c, i, lin);
	case 4: return cpu_ld32(c, i, lin);
	default: return cpu_ld64(c, i, lin);
	}
}

void cpu_st(struct cpu *c, const struct cpu_insn *i, uint64_t lin, uint64_t v, unsigned size)
{
	switch (size) {
	case 1: cpu_st8(c, i, lin, (uint8_t)v); break;
	case 2: cpu_st16(c, i, lin, (uint16_t)v); break;
	case 4: cpu_st32(c, i, lin, (uint32_t)v); break;
	default: cpu_st64(c, i, lin, v); break;
	}
}

/* ---- any length ---------------------------------------------------------------------------------
 */

void cpu_probe(struct cpu *c, const struct cpu_insn *i, uint64_t lin, unsigned len, unsigned access)
{
	if (!len)
		return;
	if (!(access & CPU_ACCESS_IMPLICIT))
		check_canonical(c, i, lin, len);
	if (c->mem_ops) {
		emu_probe(c, i, lin, len, access);
		return;
	}
	while (len) {
		unsigned part;
		uint64_t next = next_part(c, lin, &part, len);
		bool code;

		cpu_translate(c, i, lin, access, &code);
		len -= part;
		lin = next;
	}
}

static void copy_in(struct cpu *c, const struct cpu_insn *i, void *dst, uint64_t lin, unsigned len,
		    unsigned access)
{
	if (c->mem_ops) {
		emu_read(c, i, lin, dst, len, access);
		return;
	}
	while (len) {
		unsigned part;
		uint64_t next = next_part(c, lin, &part, len);
		bool code;

		store_part(dst, cpu_translate(c, i, lin, access, &code), part);
		dst = (uint8_t *)dst + part;
		len -= part;
		lin = next;
	}
}

/* The whole range was probed when it spans pages. */
static void copy_out(struct cpu *c, const struct cpu_insn *i, uint64_t lin, const void *src,
		     unsigned len, unsigned access)
{
	if (c->mem_ops) {
		emu_write(c, i, lin, src, len, access);
		return;
	}
	while (len) {
		unsigned part;
		uint64_t next = next_part(c, lin, &part, len);
		bool code;
		uint8_t *p = cpu_translate(c, i, lin, access | CPU_ACCESS_WRITE, &code);

		store_part(p, src, part);
		if (code)
			cpu_code_written(c, (hpa_t)p, part);
		src = (const uint8_t *)src + part;
		len -= part;
		lin = next;
	}
}

void cpu_copy_in(struct cpu *c, const struct cpu_insn *i, void *dst, uint64_t lin, unsigned len)
{
	check_canonical(c, i, lin, len);
	copy_in(c, i, dst, lin, len, data_access(c));
	note_data(c, lin, len, CPU_WATCH_READ);
}

void cpu_copy_out(struct cpu *c, const struct cpu_insn *i, uint64_t lin, const void *src,
		  unsigned len)
{
	unsigned access = data_access(c);

	cpu_probe(c, i, lin, len, access | CPU_ACCESS_WRITE);
	copy_out(c, i, lin, src, len, access);
	note_data(c, lin, len, CPU_WATCH_WRITE);
}

/* ---- as supervisor ------------------------------------------------------------------------------
 */

/* Descriptor tables and the TSS lie at canonical addresses, or the access is #GP. */
static void check_sys(struct cpu *c, uint64_t lin, unsigned size)
{
	if (c->mode & CPU_MODE_LMA &&
	    (!cpu_lin_canonical(c, lin) || !cpu_lin_canonical(c, lin + size - 1)))
		cpu_fault_err(c, NULL, X86_VEC_GP, 0);
}

uint64_t cpu_ld_sys(struct cpu *c, uint64_t lin, unsigned size)
{
	const struct cpu_tlb_entry *e = cpu_tlb_slot(c, lin);
	uint64_t key = ((lin + size - 1) & PAGE_MASK) | c->sys_ctx, v = 0;

	if (likely(((e->tag_r ^ key) & e->mask) == 0)) {
		store_part((uint8_t *)&v, (const uint8_t *)(lin + e->addend), size);
		return v;
	}
	check_sys(c, lin, size);
	copy_in(c, NULL, &v, lin, size, CPU_ACCESS_IMPLICIT);
	cpu_debug_host_data(c, lin, size, CPU_WATCH_READ);
	return v;
}

void cpu_st_sys(struct cpu *c, uint64_t lin, uint64_t v, unsigned size)
{
	const struct cpu_tlb_entry *e = cpu_tlb_slot(c, lin);
	uint64_t key = ((lin + size - 1) & PAGE_MASK) | c->sys_ctx;

	if (likely(((e->tag_w ^ key) & e->mask) == 0)) {
		store_part((uint8_t *)(lin + e->addend), (const uint8_t *)&v, size);
		return;
	}
	check_sys(c, lin, size);
	if ((lin & ~PAGE_MASK) + size > PAGE_SIZE)
		cpu_probe(c, NULL, lin, size, CPU_ACCESS_WRITE | CPU_ACCESS_IMPLICIT);
	copy_out(c, NULL, lin, &v, size, CPU_ACCESS_IMPLICIT);
	cpu_debug_host_data(c, lin, size, CPU_WATCH_WRITE);
}
