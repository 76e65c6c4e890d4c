/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dispatcher: blocks one after another, what happens between instructions, faults and exits. */
#include "cpu/core.h"

/* ---- asking for attention -----------------------------------------------------------------------
 */

/*
 * The flag first, then the limit that stops the chain; the dispatcher restores the limit first,
 * then takes the flags. So whichever comes last, either the flag is taken or the limit stays 0.
 */
void cpu_attend(struct cpu *c, uint32_t bits)
{
	__atomic_fetch_or(&c->attention, bits, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->run_limit, 0, __ATOMIC_SEQ_CST);
}

/* From its own thread no flag is needed: the dispatcher looks at everything when the limit stops
 * it. */
void cpu_recheck(struct cpu *c)
{
	__atomic_store_n(&c->run_limit, 0, __ATOMIC_RELAXED);
}

void cpu_kick(struct cpu *c)
{
	cpu_attend(c, CPU_ATTN_KICK);
}

static uint64_t limit_of(const struct cpu *c)
{
	return MIN(c->icount_limit, c->step_limit);
}

/* ---- leaving an instruction ---------------------------------------------------------------------
 */

void cpu_make_precise(struct cpu *c, const struct cpu_insn *i)
{
	if (i && c->blk) {
		c->s.rip = cpu_rip_wrap(c, c->bip + i->off);
		c->icount -= c->blk->n - i->idx;
		c->cur_len = i->len;
	}
	c->blk = NULL;
	c->chain_from = NULL;
	c->bounced.pending = false;
}

void cpu_fault(struct cpu *c, const struct cpu_insn *i, uint8_t vector)
{
	cpu_make_precise(c, i);
	c->landed = (struct cpu_fault){.vector = vector};
	longjmp(c->out, CPU_LAND_FAULT);
}

void cpu_fault_err(struct cpu *c, const struct cpu_insn *i, uint8_t vector, uint32_t error)
{
	cpu_make_precise(c, i);
	c->landed = (struct cpu_fault){.vector = vector, .has_error = true, .error = error};
	longjmp(c->out, CPU_LAND_FAULT);
}

void cpu_fault_pf(struct cpu *c, const struct cpu_insn *i, uint32_t error, uint64_t cr2)
{
	cpu_make_precise(c, i);
	c->landed = (struct cpu_fault){
		.vector = X86_VEC_PF, .has_error = true, .error = error, .addr = cr2};
	longjmp(c->out, CPU_LAND_FAULT);
}

void cpu_fault_db(struct cpu *c, const struct cpu_insn *i, uint64_t dr6)
{
	cpu_make_precise(c, i);
	c->landed = (struct cpu_fault){.vector = X86_VEC_DB, .addr = dr6};
	longjmp(c->out, CPU_LAND_FAULT);
}

void cpu_leave(struct cpu *c, const struct cpu_insn *i, enum cpu_exit_reason reason)
{
	cpu_make_precise(c, i);
	c->exit.reason = reason;
	c->exit.insn_len = c->cur_len;
	longjmp(c->out, CPU_LAND_LEAVE);
}

void cpu_soft_event(struct cpu *c, const struct cpu_insn *i, uint8_t type, uint8_t vector)
{
	cpu_make_precise(c, i);
	if (type != CPU_EVENT_SOFT_INTR && c->ctl.exception_bitmap >> vector & 1) {
		c->exit.exception.vector = vector;
		c->exit.exception.has_error = false;
		c->exit.exception.error = 0;
		c->exit.exception.payload = 0;
		cpu_leave(c, NULL, CPU_EXIT_EXCEPTION);
	}
	c->icount++;
	/* INT1 is a #DB itself: data breakpoints that MOV SS held back come with it. */
	if (type == CPU_EVENT_PRIV_SW_EXCEPTION) {
		c->s.dr6 |= c->s.pending_dbg & 0xf;
		c->s.pending_dbg = 0;
	}
	c->s.event = (struct cpu_event){
		.valid = true, .type = type, .vector = vector, .insn_len = c->cur_len};
	longjmp(c->out, CPU_LAND_EVENT);
}

void cpu_begin(struct cpu *c, const struct cpu_insn *i)
{
	cpu_make_precise(c, i);
	cpu_flags_sync(c);
}

void cpu_retire(struct cpu *c, const struct cpu_insn *i, bool jumped)
{
	if (!jumped)
		c->s.rip = cpu_rip_wrap(c, c->s.rip + i->len);
	c->icount++;
	cpu_flags_set_arith(c, c->s.rflags);
	cpu_update_mode(c);
}

/* ---- exceptions ---------------------------------------------------------------------------------
 */

static bool intercepted(const struct cpu *c, uint8_t vector, uint32_t error)
{
	bool bit = c->ctl.exception_bitmap >> (vector & 31) & 1;

	if (vector != X86_VEC_PF)
		return bit;
	return bit == ((error & c->ctl.pf_error_mask) == c->ctl.pf_error_match);
}

static void exit_exception(struct cpu *c, const struct cpu_event *ev)
{
	c->exit.reason = CPU_EXIT_EXCEPTION;
	c->exit.insn_len = c->cur_len;
	c->exit.exception.vector = ev->vector;
	c->exit.exception.has_error = ev->has_error;
	c->exit.exception.error = ev->error;
	c->exit.exception.implicit = ev->vector == X86_VEC_PF && c->landed_implicit;
	c->exit.exception.payload = ev->payload;
}

/* @ev arises while s.event, when valid, is being delivered. */
static void raise(struct cpu *c, const struct cpu_event *ev, bool intercept)
{
	struct cpu_event before = c->s.event;

	if (intercept && intercepted(c, ev->vector, ev->error)) {
		exit_exception(c, ev);
		return;
	}
	if (!cpu_raise_event(c, ev)) {
		c->s.activity = CPU_SHUTDOWN;
		c->exit.reason = CPU_EXIT_TRIPLE_FAULT;
		c->exit.insn_len = 0;
		return;
	}
	if (intercept && c->s.event.vector == X86_VEC_DF && ev->vector != X86_VEC_DF &&
	    intercepted(c, X86_VEC_DF, 0)) {
		exit_exception(c, &c->s.event);
		c->s.event = before;
	}
}

void cpu_land_fault(struct cpu *c, bool intercept)
{
	struct cpu_event ev = {
		.valid = true,
		.type = CPU_EVENT_HW_EXCEPTION,
		.vector = c->landed.vector,
		.has_error = c->landed.has_error,
		.error = c->landed.error,
	};

	if (ev.vector == X86_VEC_PF || ev.vector == X86_VEC_DB) {
		ev.has_payload = true;
		ev.payload = c->landed.addr;
	}
	raise(c, &ev, intercept);
}

void cpu_inject_exception(struct cpu *c, uint8_t vector, bool has_error, uint32_t error)
{
	c->landed = (struct cpu_fault){.vector = vector, .has_error = has_error, .error = error};
	cpu_land_fault(c, false);
	cpu_recheck(c);
}

void cpu_inject_page_fault(struct cpu *c, uint32_t error, gva_t cr2)
{
	c->landed = (struct cpu_fault){
		.vector = X86_VEC_PF, .has_error = true, .error = error, .addr = cr2};
	cpu_land_fault(c, false);
	cpu_recheck(c);
}

/* ---- one instruction by itself ------------------------------------------------------------------
 */

void cpu_one_begin(struct cpu *c)
{
	struct cpu_state *s = &c->s;

	c->was_rf = s->rflags & X86_FLAG_RF;
	c->was_sti = s->int_shadow_sti;
	c->was_movss = s->int_shadow_movss;
	s->rflags &= ~X86_FLAG_RF;
	s->int_shadow_sti = s->int_shadow_movss = false;
	c->one_tf = s->rflags & X86_FLAG_TF;
	c->one_cpl = (uint8_t)cpu_cpl(c);
	c->dbg_hits = 0;
	c->watch_hit = -1;
	c->in_one = true;
}

void cpu_one_end(struct cpu *c, bool done, bool tf)
{
	struct cpu_state *s = &c->s;

	c->in_one = false;
	if (!done) {
		c->watch_hit = -1;
		if (c->was_rf)
			s->rflags |= X86_FLAG_RF;
		s->int_shadow_sti = c->was_sti;
		s->int_shadow_movss = c->was_movss;
		return;
	}
	/*
	 * SYSCALL and SYSENTER with TF cleared on the way in do not trap; nor does what loads SS,
	 * whose data breakpoints only wait.
	 */
	if (tf && !s->int_shadow_movss && !(cpu_cpl(c) < c->one_cpl && !(s->rflags & X86_FLAG_TF)))
		s->pending_dbg |= X86_DR6_BS;
	s->pending_dbg |= c->dbg_hits;
	if (c->was_rf)
		cpu_update_mode(c);
}

/* ---- L0's debugger ------------------------------------------------------------------------------
 */

/*
 * What it waits for is only noted where it comes to pass, and told before the next thing happens:
 * an instruction may end in cpu_emulate() or cpu_skip() as well as here.
 */
void cpu_host_step(struct cpu *c)
{
	c->host_stepped = c->host_debug.single_step;
}

static void leave_debug(struct cpu *c, unsigned kind, gva_t gva)
{
	c->exit.reason = CPU_EXIT_DEBUG;
	c->exit.insn_len = 0;
	c->exit.debug.kind = kind;
	c->exit.debug.access = kind == CPU_DEBUG_WATCH ? c->watch_how : 0;
	c->exit.debug.gva = gva;
}

static uint64_t lin_of_rip(const struct cpu *c)
{
	return cpu_lin_wrap(c, c->s.rip + c->lbase[X86_CS]);
}

static bool tell_debugger(struct cpu *c)
{
	if (likely(c->watch_hit < 0 && !c->host_stepped))
		return false;
	if (c->watch_hit >= 0)
		leave_debug(c, CPU_DEBUG_WATCH, c->host_debug.watch[c->watch_hit].gva);
	else
		leave_debug(c, CPU_DEBUG_STEP, lin_of_rip(c));
	c->watch_hit = -1;
	c->host_stepped = false;
	return true;
}

/* Breakpoints on the next instruction. True: it is not to be executed now. */
static bool stop_before(struct cpu *c)
{
	uint64_t lin = lin_of_rip(c), hits;

	/* Told once an instruction, which may leave for L0 and come again. */
	if (cpu_debug_host_insn(c, lin) && (lin != c->resume_at || c->icount != c->resume_icount)) {
		c->resume_at = lin;
		c->resume_icount = c->icount;
		leave_debug(c, CPU_DEBUG_BREAKPOINT, lin);
		return true;
	}
	/* After MOV SS there is none (SDM 3A 6.8.3), AMD's apart. */
	if (c->s.rflags & X86_FLAG_RF || (c->s.int_shadow_movss && !c->feat->amd))
		return false;
	hits = cpu_debug_insn(c, lin);
	if (!hits)
		return false;
	c->landed = (struct cpu_fault){.vector = X86_VEC_DB, .addr = hits};
	c->cur_len = 0;
	cpu_land_fault(c, true);
	return true;
}

static void run_one(struct cpu *c)
{
	struct cpu_block *b;

	if (stop_before(c))
		return;
	b = cpu_block_get(c, true);
	cpu_one_begin(c);
	/* No block may follow this one. */
	__atomic_store_n(&c->run_limit, c->icount + 1, __ATOMIC_RELAXED);
	if (!cpu_enter(c, b)) {
		cpu_one_end(c, false, false);
		return;
	}
	c->chain_from = NULL;
	b->insn[0].fn(c, b->insn);
	c->chain_from = NULL;
	cpu_one_end(c, true, c->one_tf);
	cpu_host_step(c);
}

/* ---- between instructions
 * ------------------------------------------------------------------------ */

bool cpu_can_interrupt(const struct cpu *c)
{
	const struct cpu_state *s = &c->s;

	/* A debug trap comes first. */
	return s->rflags & X86_FLAG_IF && !s->int_shadow_sti && !s->int_shadow_movss &&
	       !s->event.valid && !s->pending_dbg &&
	       (s->activity == CPU_ACTIVE || s->activity == CPU_HALTED);
}

bool cpu_can_nmi(const struct cpu *c)
{
	const struct cpu_state *s = &c->s;

	return !s->nmi_blocked && !s->int_shadow_sti && !s->int_shadow_movss && !s->event.valid &&
	       !s->pending_dbg && (s->activity == CPU_ACTIVE || s->activity == CPU_HALTED);
}

static bool leave_plainly(struct cpu *c, enum cpu_exit_reason reason)
{
	c->exit.reason = reason;
	c->exit.insn_len = 0;
	return false;
}

static void take_attention(struct cpu *c)
{
	uint32_t bits;

	/* The exchange keeps them in order. */
	__atomic_store_n(&c->run_limit, limit_of(c), __ATOMIC_RELEASE);
	bits = __atomic_exchange_n(&c->attention, 0, __ATOMIC_SEQ_CST);
	if (bits & CPU_ATTN_CODE)
		cpu_peer_drain(c);
	if (bits & CPU_ATTN_KICK)
		c->kicked = true;
}

void cpu_deliver(struct cpu *c)
{
	c->cur_len = c->s.event.insn_len;
	c->s.activity = CPU_ACTIVE;
	c->watch_hit = -1;
	cpu_deliver_event(c);
	c->s.event.valid = false;
	if (c->stepping)
		c->step_limit = c->icount;
}

/* STI's shadow ends with the instruction after it, which may have come and gone inside a block. */
static void settle_sti(struct cpu *c)
{
	if (c->icount != c->sti_at)
		c->s.int_shadow_sti = false;
}

/*
 * What comes before the next instruction, by SDM 3A 6.9. False: exit.reason says why to leave.
 * (Traps of the last instruction stay pending in the state over an exit.)
 */
static bool between(struct cpu *c)
{
	struct cpu_state *s = &c->s;

	take_attention(c);
	settle_sti(c);
	if (s->activity == CPU_SHUTDOWN)
		return leave_plainly(c, CPU_EXIT_TRIPLE_FAULT);
	if (tell_debugger(c))
		return false;
	if (s->event.valid) {
		cpu_deliver(c);
		cpu_host_step(c);
		if (tell_debugger(c))
			return false;
	}
	if (c->kicked) {
		c->kicked = false;
		return leave_plainly(c, CPU_EXIT_KICK);
	}
	if (c->icount >= limit_of(c))
		return leave_plainly(c, CPU_EXIT_ICOUNT);
	if (s->pending_dbg && !s->int_shadow_movss) {
		c->landed = (struct cpu_fault){.vector = X86_VEC_DB, .addr = s->pending_dbg};
		s->pending_dbg = 0;
		c->cur_len = 0;
		cpu_land_fault(c, true);
		cpu_recheck(c);
		return c->exit.reason == CPU_EXIT_NONE;
	}
	if (c->ctl.exits & CPU_CTL_NMI_WINDOW && cpu_can_nmi(c))
		return leave_plainly(c, CPU_EXIT_NMI_WINDOW);
	if (c->ctl.exits & CPU_CTL_IRQ_WINDOW && cpu_can_interrupt(c))
		return leave_plainly(c, CPU_EXIT_IRQ_WINDOW);
	if (s->activity != CPU_ACTIVE)
		return leave_plainly(c, CPU_EXIT_HLT);
	return true;
}

/* ---- going --------------------------------------------------------------------------------------
 */

/* The last block ended by a direct branch, and this is where it led: link them, if both are in one
 * page. */
static void link_block(struct cpu *c, struct cpu_block *b)
{
	const struct cpu_block *from = c->blk;

	if (from && c->chain_from && !from->dead && !b->crosses && !b->unproved &&
	    ((c->bip ^ c->s.rip) & PAGE_MASK) == 0 &&
	    ((from->key_hpa ^ b->key_hpa) & PAGE_MASK) == 0 && from->mode == b->mode &&
	    b->mode & CPU_MODE_FLAT && !(b->mode & CPU_MODE_ONE))
		*c->chain_from = b;
	c->chain_from = NULL;
}

static void enter_block(struct cpu *c, struct cpu_block *b)
{
	c->history[c->history_at++ % ARRAY_SIZE(c->history)] = c->s.rip;
	b->insn[0].fn(c, b->insn);
}

/* The way that looks at everything. */
static void go_carefully(struct cpu *c)
{
	struct cpu_block *b = NULL;
	bool one;

	c->cur_len = 0;
	one = c->single || c->s.int_shadow_sti || c->s.int_shadow_movss ||
	      cpu_debug_host_page(c, lin_of_rip(c));
	if (!one) {
		b = cpu_block_get(c, false);
		one = b->mode & CPU_MODE_ONE || c->icount + b->n > limit_of(c);
	}
	if (one) {
		c->history[c->history_at++ % ARRAY_SIZE(c->history)] = c->s.rip;
		run_one(c);
		cpu_recheck(c);
		return;
	}
	link_block(c, b);
	if (cpu_enter(c, b))
		enter_block(c, b);
}

static void dispatch(struct cpu *c)
{
	struct cpu_block *b;

	while (c->exit.reason == CPU_EXIT_NONE) {
		b = cpu_jump_lookup(c);
		if (likely(b && !c->s.event.valid && !c->s.pending_dbg)) {
			link_block(c, b);
			if (likely(cpu_enter(c, b))) {
				enter_block(c, b);
				continue;
			}
		}
		if (!between(c))
			return;
		if (!c->s.event.valid)
			go_carefully(c);
	}
}

static void land(struct cpu *c, int how)
{
	cpu_flags_sync(c);
	if (c->in_one) {
		/* HLT has been carried out when it leaves. */
		bool done = how == CPU_LAND_EVENT ||
			    (how == CPU_LAND_LEAVE && c->s.activity != CPU_ACTIVE);

		cpu_one_end(c, done, c->one_tf && how != CPU_LAND_EVENT);
		if (how == CPU_LAND_LEAVE && done && c->host_debug.single_step)
			leave_debug(c, CPU_DEBUG_STEP, lin_of_rip(c));
	} else {
		c->watch_hit = -1; /* of a delivery that did not come to its end */
	}
	c->blk = NULL;
	c->chain_from = NULL;
	if (how == CPU_LAND_FAULT) {
		c->history[c->history_at++ % ARRAY_SIZE(c->history)] = c->s.rip;
		cpu_land_fault(c, true);
	}
	cpu_recheck(c);
}

enum cpu_exit_reason cpu_run(struct cpu *c)
{
	int how;

	c->exit.reason = CPU_EXIT_NONE;
	c->blk = NULL;
	c->chain_from = NULL;
	c->bounced.pending = false;
	c->sti_at = c->icount;
	cpu_flags_set_arith(c, c->s.rflags);
	cpu_peer_enter(c);
	cpu_recheck(c);
	how = _setjmp(c->out);
	if (how)
		land(c, how);
	dispatch(c);
	cpu_flags_sync(c);
	settle_sti(c);
	cpu_peer_leave(c);
	c->blk = NULL;
	c->stats.exits++;
	c->stats.exit_count[c->exit.reason]++;
	c->stats.insns = c->icount;
	return c->exit.reason;
}

enum cpu_exit_reason cpu_step(struct cpu *c)
{
	enum cpu_exit_reason ret_reason;

	c->stepping = true;
	c->step_limit = c->icount + 1;
	ret_reason = cpu_run(c);
	c->stepping = false;
	c->step_limit = ~0ull;
	return ret_reason;
}

/* ---- finishing what L0 did
 * ----------------------------------------------------------------------- */

void cpu_skip(struct cpu *c)
{
	struct cpu_state *s = &c->s;

	s->rip = cpu_rip_wrap(c, s->rip + c->exit.insn_len);
	c->exit.insn_len = 0;
	c->icount++;
	if (s->rflags & X86_FLAG_TF)
		s->pending_dbg |= X86_DR6_BS;
	s->rflags &= ~X86_FLAG_RF;
	s->int_shadow_sti = s->int_shadow_movss = false;
	cpu_host_step(c);
	cpu_update_mode(c);
	cpu_recheck(c);
}

void cpu_complete_in(struct cpu *c, uint32_t data)
{
	uint64_t *rax = &c->s.gpr[X86_RAX];

	switch (c->exit.io.size) {
	case 1: *rax = (*rax & ~0xffull) | (data & 0xff); break;
	case 2: *rax = (*rax & ~0xffffull) | (data & 0xffff); break;
	default: *rax = data; break;
	}
}
