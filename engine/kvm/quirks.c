/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a KVM without hardware behind it gets wrong outside kernel mode, put right on the guest's
 * way into its kernel. See DESIGN.md. */
#include <string.h>

#include "engine/kvm/help_internal.h"

/*
 * kvm_pvm runs what is outside kernel mode natively, and what it cannot reflect from there comes to
 * the guest as a fault, of which nobody is told:
 *
 * INT n is #UD. Where the guest lets ring 3 use a gate, or has been helped, a breakpoint of ours
 * lies on the first instruction of its #UD handler. When it hits, an IRETQ by our processor undoes
 * what was done on the way there, and our processor has a try at the instruction. Should that, too,
 * say #UD, it is the guest's.
 *
 * SYSCALL goes to LSTAR, but stays in ring 3: a page fault at LSTAR. So while SYSCALL is enabled a
 * breakpoint lies on the guest's #PF handler: such a fault is undone and the kernel's segments are
 * loaded.
 *
 * In every other case the handler goes on, after its first instruction, which is ours as the
 * breakpoint lies there. Long mode only; not while the guest uses breakpoints of its own, or a
 * debugger does. The guest may load another IDT: it is looked at now and then, and whenever help
 * has had the whole state.
 */

enum { UD, PF };

static const uint8_t iretq[15] = {0x48, 0xcf};

/* ---- where to wait -----------------------------------------------------------------------------
 */

/* A gate that ring 3 may use by INT n, beside INT3 and INTO, which are answered rightly. */
static bool has_open_gate(const uint8_t *idt, unsigned size)
{
	for (unsigned n = 0; n < 256 && n * 16 + 16 <= size; n++)
		if (n != X86_VEC_BP && n != X86_VEC_OF && (idt[n * 16 + 5] & 0xe0) == 0xe0)
			return true;
	return false;
}

static uint64_t handler_of(const uint8_t *idt, unsigned size, unsigned vector)
{
	const uint8_t *gate = idt + vector * 16ull;
	uint16_t low, middle;
	uint32_t high;

	if (vector * 16 + 16 > size || !(gate[5] & 0x80))
		return 0;
	memcpy(&low, gate, sizeof(low));
	memcpy(&middle, gate + 6, sizeof(middle));
	memcpy(&high, gate + 8, sizeof(high));
	return low | (uint64_t)middle << 16 | (uint64_t)high << 32;
}

/* 0: not known, or not needed. The MMU knows the registers. */
static void find_handlers(struct engine_vcpu *v, const struct cpu_state *s, uint64_t ret[2])
{
	uint8_t idt[PAGE_SIZE];
	unsigned size;

	ret[UD] = ret[PF] = 0;
	if (!(s->efer & X86_EFER_LMA) || s->dr7 & 0xff)
		return;
	size = engine_peek(v->mmu, s->idtr.base, idt,
			   MIN(s->idtr.limit + 1u, (unsigned)sizeof(idt)));
	if (v->help || has_open_gate(idt, size))
		ret[UD] = handler_of(idt, size, X86_VEC_UD);
	if (s->efer & X86_EFER_SCE && s->lstar)
		ret[PF] = handler_of(idt, size, X86_VEC_PF);
}

void kvm_quirks_watch(struct engine_vcpu *v, const struct cpu_state *s)
{
	struct kvm_guest_debug debug = {0};
	uint64_t at[2];

	if (!v->vm->has_quirks || v->debugging)
		return;
	v->syscall.star = s->star;
	v->syscall.lstar = s->lstar;
	v->syscall.fmask = s->fmask;
	find_handlers(v, s, at);
	if (!memcmp(at, v->watched, sizeof(at)))
		return;
	for (unsigned n = 0; n < ARRAY_SIZE(at); n++) {
		if (!at[n])
			continue;
		debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
		debug.arch.debugreg[n] = at[n];
		debug.arch.debugreg[7] |= BIT(1 + 2 * n) | BIT(9) | BIT(10);
	}
	if (kvm_call(v->fd, KVM_SET_GUEST_DEBUG, &debug))
		memset(at, 0, sizeof(at));
	memcpy(v->watched, at, sizeof(at));
}

void kvm_quirks_look(struct engine_vcpu *v)
{
	struct cpu_state s = {0};
	struct kvm_sregs2 sregs = {0};
	struct kvm_debugregs debug = {0};
	struct kvm_sregs old = {0};
	struct mmu_regs regs;

	if (!v->vm->has_quirks || v->debugging || kvm_call(v->fd, KVM_GET_SREGS, &old) ||
	    kvm_call(v->fd, KVM_GET_DEBUGREGS, &debug) || help_msr(v, X86_MSR_STAR, &s.star) ||
	    help_msr(v, X86_MSR_LSTAR, &s.lstar) || help_msr(v, X86_MSR_FMASK, &s.fmask))
		return;
	kvm_sregs_to_sregs2(&old, &sregs);
	kvm_sregs2_to_state(&sregs, &s);
	kvm_debugregs_to_state(&debug, &s);
	guest_mmu_regs(&s, v->vm->config.model, &regs);
	mmu_set_regs(v->mmu, &regs);
	kvm_quirks_watch(v, &s);
}

void kvm_quirks_setup(struct engine_vm *vm)
{
	const char *module = engine_kvm_mmu()->module;

	vm->has_quirks =
		vm->config.help && strcmp(module, "kvm_intel") && strcmp(module, "kvm_amd");
}

bool kvm_quirks_hit(const struct engine_vcpu *v)
{
	uint64_t pc = v->run->debug.arch.pc;

	return v->run->debug.arch.exception == X86_VEC_DB && pc &&
	       (pc == v->watched[UD] || pc == v->watched[PF]);
}

/* ---- INT n -------------------------------------------------------------------------------------
 */

/* Back to the instruction. False: it cannot be. */
static bool undo_delivery(struct engine_vcpu *v, struct kvm_help *h)
{
	struct cpu_state *s = cpu_state(v->cpu);
	bool nmi_blocked = s->nmi_blocked, exit;
	int ret;

	help_controls(v, true);
	h->mem.insn = iretq;
	h->mem.insn_gva = s->rip;
	ret = help_emulate(v, h, &exit);
	h->mem.insn = NULL;
	s->nmi_blocked = nmi_blocked;
	return !ret && !exit && !s->event.valid;
}

/* The instruction again, by our processor. False: it says #UD as well. */
static bool try_again(struct engine_vcpu *v, struct kvm_help *h, int *ret,
		      enum engine_exit *ret_exit)
{
	const struct cpu_event *event = &cpu_state(v->cpu)->event;
	bool exit, general;
	const char *name = help_name(v, &general);

	help_controls(v, true);
	*ret = help_emulate(v, h, &exit);
	if (*ret)
		return true;
	if (event->valid && event->vector == X86_VEC_UD)
		return false;
	help_count(v, h, name);
	if (exit)
		*ret = help_finish_exit(v, h, ret_exit);
	if (!*ret)
		*ret = help_deliver(v, h, ret_exit);
	return true;
}

static int wrong_ud(struct engine_vcpu *v, struct kvm_help *h, enum engine_exit *ret_exit)
{
	const struct cpu_state was = *cpu_state(v->cpu);
	uint64_t at[2];
	int ret = 0;

	help_tell_mmu(v);
	find_handlers(v, &was, at);
	v->stats.help_runs++;
	if (at[UD] == was.rip && undo_delivery(v, h) && try_again(v, h, &ret, ret_exit))
		return ret;
	*cpu_state(v->cpu) = was;
	cpu_state_changed(v->cpu);
	return kvm_help_state(v, ret_exit);
}

/* ---- SYSCALL ------------------------------------------------------------------------------------
 */

struct frame {
	uint64_t error, rip, cs, rflags, rsp, ss;
};

/*
 * The fault that a SYSCALL ends in: ring 3 fetches from where it must not. A jump there looks the
 * same but for RFLAGS: SYSCALL has cleared what FMASK names, and ring 3 cannot clear IF. So where
 * FMASK leaves IF alone nothing is done: R11 would be what the jump made it, and the guest's kernel
 * would load its flags from there.
 */
static bool is_syscall(const struct engine_vcpu *v, const struct frame *f, uint64_t cr2)
{
	return f->rip == v->syscall.lstar && cr2 == f->rip && (f->cs & 3) == 3 &&
	       (f->error & X86_PF_U) && !(f->error & (X86_PF_W | X86_PF_RSVD)) &&
	       (v->syscall.fmask & X86_FLAG_IF) && !(f->rflags & v->syscall.fmask & ~X86_FLAG_RF);
}

/* What SYSCALL was yet to do (SDM 2B, SYSCALL): RCX, R11 and RFLAGS are right. */
static void finish_syscall(struct engine_vcpu *v, const struct frame *f)
{
	struct cpu_state *s = cpu_state(v->cpu);
	uint16_t sel = v->syscall.star >> 32 & 0xfffc;

	s->rip = f->rip;
	s->rflags = f->rflags & ~X86_FLAG_RF;
	s->gpr[X86_RSP] = f->rsp;
	s->seg[X86_CS] = (struct cpu_seg){.limit = ~0u, .sel = sel, .attr = 0xa09b};
	s->seg[X86_SS] = (struct cpu_seg){.limit = ~0u, .sel = (uint16_t)(sel + 8), .attr = 0xc093};
	cpu_state_changed(v->cpu);
}

static int page_fault(struct engine_vcpu *v, struct kvm_help *h, enum engine_exit *ret_exit)
{
	const struct cpu_state *s = cpu_state(v->cpu);
	struct frame f;

	help_tell_mmu(v);
	if (engine_peek(v->mmu, s->gpr[X86_RSP], &f, sizeof(f)) != sizeof(f) ||
	    !is_syscall(v, &f, s->cr2))
		return kvm_help_state(v, ret_exit);
	v->stats.help_runs++;
	finish_syscall(v, &f);
	help_count(v, h, "syscall");
	return 0;
}

int kvm_quirks_help(struct engine_vcpu *v, enum engine_exit *ret_exit)
{
	bool ud = v->run->debug.arch.pc == v->watched[UD];
	struct kvm_help *h;
	int ret;

	/* All of it: the instruction may be any. */
	if (ud)
		v->run->kvm_valid_regs = 0;
	ret = help_take(v);
	if (ret)
		return ret;
	h = help_of(v);
	return help_give(v, ud ? wrong_ud(v, h, ret_exit) : page_fault(v, h, ret_exit));
}
