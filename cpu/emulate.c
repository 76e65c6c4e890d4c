/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One instruction through L0's own memory accesses: the same handlers, a TLB that never hits. */
#include <string.h>

#include "cpu/core.h"

/* Up to 15 bytes; the second page only when the instruction reaches into it. */
static bool fetch_and_decode(struct cpu *c, uint8_t bytes[15], struct cpu_decoder *d,
			     struct cpu_fault *fault, enum cpu_mem_result *r)
{
	uint64_t lin = cpu_lin_wrap(c, c->s.rip + c->lbase[X86_CS]);
	unsigned access = CPU_ACCESS_FETCH | (cpu_cpl(c) == 3 ? CPU_ACCESS_USER : 0);
	unsigned room = (unsigned)MIN(15ull, PAGE_SIZE - (lin & ~PAGE_MASK));

	d->c = c;
	d->bytes = bytes;
	d->page_off = (unsigned)(lin & ~PAGE_MASK);
	d->max = 1;
	d->len = room;
	*r = c->mem_ops->read(c->mem_ctx, lin, bytes, room, access, fault);
	if (*r != CPU_MEM_OK)
		return false;
	if (cpu_decode(d))
		return true;
	*r = c->mem_ops->read(c->mem_ctx, cpu_lin_wrap(c, lin + room), bytes + room, 15 - room,
			      access, fault);
	if (*r != CPU_MEM_OK)
		return false;
	d->len = 15;
	return cpu_decode(d);
}

static bool fetch_checks(struct cpu *c)
{
	uint64_t rip = c->s.rip;

	if ((c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		return cpu_lin_canonical(c, rip);
	return c->mode & CPU_MODE_FLAT || rip <= c->s.seg[X86_CS].limit;
}

static void emulate(struct cpu *c)
{
	struct cpu_decoder *d = cpu_block_decoder(c);
	enum cpu_mem_result r = CPU_MEM_OK;
	struct cpu_fault fault = {0};
	struct cpu_block *b;
	uint8_t bytes[16];

	if (c->s.event.valid) {
		cpu_deliver(c);
		cpu_host_step(c);
		return;
	}
	c->cur_len = 0;
	if (!fetch_checks(c))
		cpu_fault_err(c, NULL, X86_VEC_GP, 0);
	if (!fetch_and_decode(c, bytes, d, &fault, &r)) {
		c->landed = fault;
		longjmp(c->out, r == CPU_MEM_STOP ? CPU_LAND_STOP : CPU_LAND_FAULT);
	}
	b = cpu_block_scratch(c, d);
	cpu_one_begin(c);
	c->icount++;
	c->blk = b;
	c->bip = c->s.rip;
	b->insn[0].fn(c, b->insn);
	cpu_one_end(c, true, c->one_tf);
	cpu_host_step(c);
}

static enum cpu_emulate_result emulate_landed(struct cpu *c, int how)
{
	cpu_flags_sync(c);
	if (c->in_one) {
		bool done = how == CPU_LAND_EVENT ||
			    (how == CPU_LAND_LEAVE && c->s.activity != CPU_ACTIVE);

		cpu_one_end(c, done, c->one_tf && how != CPU_LAND_EVENT);
	}
	switch (how) {
	case CPU_LAND_FAULT:
		cpu_land_fault(c, false);
		return c->exit.reason == CPU_EXIT_NONE ? CPU_EMULATE_DONE : CPU_EMULATE_EXIT;
	case CPU_LAND_LEAVE: return CPU_EMULATE_EXIT;
	case CPU_LAND_STOP: return CPU_EMULATE_STOP;
	default: return CPU_EMULATE_DONE;
	}
}

enum cpu_emulate_result cpu_emulate(struct cpu *c, const struct cpu_mem_ops *ops, void *ctx)
{
	enum cpu_emulate_result ret_result = CPU_EMULATE_DONE;
	int how;

	c->mem_ops = ops;
	c->mem_ctx = ctx;
	c->enough = false;
	c->exit.reason = CPU_EXIT_NONE;
	c->blk = NULL;
	c->chain_from = NULL;
	c->bounced.pending = false;
	cpu_flags_set_arith(c, c->s.rflags);
	cpu_update_mode(c);
	/* No block follows, and a string instruction stops after what it did at once. */
	cpu_recheck(c);
	how = _setjmp(c->out);
	if (how)
		ret_result = emulate_landed(c, how);
	else
		emulate(c);
	cpu_flags_sync(c);
	c->mem_ops = NULL;
	c->mem_ctx = NULL;
	c->blk = NULL;
	c->chain_from = NULL;
	c->bounced.pending = false;
	cpu_update_mode(c);
	c->stats.insns = c->icount;
	return ret_result;
}

void cpu_emulate_enough(struct cpu *c)
{
	c->enough = true;
}
