/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A debugger's breakpoints, steps and watchpoints. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/kvm/kvm_internal.h"

/*
 * Nothing is written into the guest's memory: breakpoints and watchpoints take the four debug
 * registers that the kernel lends (the guest's own are kept apart by it, but do not stop anything
 * meanwhile). With more breakpoints than that the vCPU goes one instruction at a time, and rip is
 * looked up after each. A breakpoint that the vCPU stands at, having stopped there, is passed by
 * one step without it: the kernel's emulator does not look at RFLAGS.RF.
 *
 * A KVM without hardware behind it emulates what the guest's kernel does and looks at no watchpoint
 * there: so those go one instruction at a time too, and stop where the value has changed.
 */

#define DR7_FIXED      BIT(10)
#define DR7_EXACT      BIT(9)
#define DR_TYPE_EXEC   0u
#define DR_TYPE_WRITE  1u
#define DR_TYPE_ACCESS 3u

static bool uses_anything(const struct cpu_host_debug *d)
{
	return d && (d->single_step || d->breakpoints || d->watches);
}

static bool has_data_breakpoints(void)
{
	const char *module = engine_kvm_mmu()->module;

	return !strcmp(module, "kvm_intel") || !strcmp(module, "kvm_amd");
}

/* ---- registers ----------------------------------------------------------------------------------
 */

/* The longest piece of [gva, end) that a register can watch. */
static unsigned piece_len(gva_t gva, gva_t end)
{
	unsigned len = 8;

	while (len > 1 && (gva % len || end - gva < len))
		len /= 2;
	return len;
}

static bool take(struct kvm_debug *d, gva_t gva, unsigned type, unsigned len, unsigned watch)
{
	static const uint8_t code[9] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};

	if (d->used == ARRAY_SIZE(d->reg))
		return false;
	d->reg[d->used++] = (struct kvm_debug_reg){
		.gva = gva, .type = (uint8_t)type, .len = code[len], .watch = (uint8_t)watch};
	return true;
}

static bool take_watches(struct kvm_debug *d)
{
	for (unsigned n = 0; n < d->want.watches; n++) {
		gva_t at = d->want.watch[n].gva, end = at + d->want.watch[n].len;
		unsigned type =
			d->want.watch[n].access == CPU_WATCH_WRITE ? DR_TYPE_WRITE : DR_TYPE_ACCESS;

		while (at < end) {
			unsigned len = piece_len(at, end);

			if (!take(d, at, type, len, n))
				return false;
			at += len;
		}
	}
	return true;
}

/* All into registers, or breakpoints by steps. False: too many watchpoints. */
static bool assign(struct kvm_debug *d)
{
	d->used = 0;
	d->by_step = d->by_value = false;
	if (d->want.watches && !has_data_breakpoints())
		d->by_step = d->by_value = true;
	else if (!take_watches(d))
		return false;
	if (d->want.breakpoints > ARRAY_SIZE(d->reg) - d->used)
		d->by_step = true;
	for (unsigned n = 0; n < d->want.breakpoints && !d->by_step; n++)
		take(d, d->want.breakpoint[n], DR_TYPE_EXEC, 1, 0);
	return true;
}

/* Tell the kernel what is wanted now. */
static int apply(struct engine_vcpu *v)
{
	struct kvm_guest_debug k = {.control = KVM_GUESTDBG_ENABLE};
	const struct kvm_debug *d = &v->debug;
	int ret;

	if (d->want.single_step || d->by_step || d->passing)
		k.control |= KVM_GUESTDBG_SINGLESTEP;
	/* Who steps wants the next instruction, not a handler's first; a kernel since 5.15 can. */
	if ((d->want.single_step || d->passing) && v->vm->caps.guest_debug & KVM_GUESTDBG_BLOCKIRQ)
		k.control |= KVM_GUESTDBG_BLOCKIRQ;
	k.arch.debugreg[7] = DR7_FIXED;
	for (unsigned n = 0; n < d->used; n++) {
		const struct kvm_debug_reg *r = &d->reg[n];

		if (d->passing && r->type == DR_TYPE_EXEC && r->gva == d->stands)
			continue;
		k.control |= KVM_GUESTDBG_USE_HW_BP;
		k.arch.debugreg[n] = r->gva;
		k.arch.debugreg[7] |= DR7_EXACT | BIT(2 * n + 1) |
				      (uint64_t)(r->type | r->len << 2) << (16 + 4 * n);
	}
	if (!v->debugging)
		k = (struct kvm_guest_debug){0};
	memset(v->watched, 0, sizeof(v->watched));
	ret = kvm_call(v->fd, KVM_SET_GUEST_DEBUG, &k);
	if (ret)
		snprintf(v->error, sizeof(v->error), "debugger: %s", kvm_failure());
	return ret;
}

/* ---- where it stands ----------------------------------------------------------------------------
 */

static int linear_rip(struct engine_vcpu *v, gva_t *ret_gva)
{
	struct kvm_sregs sregs = {0};
	struct kvm_regs regs = {0};
	int ret = kvm_complete_io(v);

	if (!ret)
		ret = kvm_call(v->fd, KVM_GET_REGS, &regs);
	if (!ret)
		ret = kvm_call(v->fd, KVM_GET_SREGS, &sregs);
	if (ret)
		return ret;
	*ret_gva = sregs.efer & X86_EFER_LMA && sregs.cs.l ? regs.rip
							   : (uint32_t)(sregs.cs.base + regs.rip);
	return 0;
}

static bool is_breakpoint(const struct kvm_debug *d, gva_t gva)
{
	for (unsigned n = 0; n < d->want.breakpoints; n++)
		if (d->want.breakpoint[n] == gva)
			return true;
	return false;
}

/* What the watched bytes hold; absent ones count as zero. */
static void read_values(struct engine_vcpu *v, uint64_t values[CPU_HOST_WATCHES])
{
	const struct cpu_host_debug *want = &v->debug.want;
	struct mmu_regs regs;

	memset(values, 0, CPU_HOST_WATCHES * sizeof(*values));
	if (kvm_mmu_regs(v, &regs))
		return;
	mmu_set_regs(v->mmu, &regs);
	for (unsigned n = 0; n < want->watches; n++)
		engine_peek(v->mmu, want->watch[n].gva, &values[n],
			    MIN(want->watch[n].len, (uint32_t)sizeof(values[n])));
}

static int check_by_value(struct engine_vcpu *v)
{
	const struct cpu_host_debug *want = &v->debug.want;

	for (unsigned n = 0; v->debug.by_value && n < want->watches; n++) {
		if (want->watch[n].access == CPU_WATCH_WRITE &&
		    want->watch[n].len <= sizeof(v->debug.value[n]))
			continue;
		snprintf(v->error, sizeof(v->error),
			 "debugger: this KVM (module %s) has no watchpoints in the guest's kernel; "
			 "only writes of up to 8 bytes can be watched",
			 engine_kvm_mmu()->module);
		return -EOPNOTSUPP;
	}
	return 0;
}

int kvm_set_debug(struct engine_vcpu *v, const struct cpu_host_debug *debug)
{
	static const struct cpu_host_debug none;
	struct kvm_debug was = v->debug;
	struct kvm_debug *d = &v->debug;
	gva_t rip = 0;
	int ret;

	debug = debug ? debug : &none;
	if (debug->breakpoints > ARRAY_SIZE(debug->breakpoint) ||
	    debug->watches > ARRAY_SIZE(debug->watch))
		return -E2BIG;
	d->want = *debug;
	ret = assign(d) ? check_by_value(v) : -E2BIG;
	if (!ret)
		ret = linear_rip(v, &rip);
	if (ret) {
		*d = was;
		return ret;
	}
	d->passing = d->stopped && d->stands == rip && is_breakpoint(d, rip);
	/* The registers stop before the instruction by themselves, steps only after one. */
	d->waits = d->by_step && !d->passing && is_breakpoint(d, rip);
	if (d->waits)
		v->hit = (struct engine_debug_hit){.kind = ENGINE_DEBUG_BREAKPOINT, .gva = rip};
	d->stands = rip;
	if (d->by_value)
		read_values(v, d->value);
	v->debugging = uses_anything(debug);
	if (!v->debugging)
		d->stopped = false;
	return apply(v);
}

/* ---- it has left --------------------------------------------------------------------------------
 */

static bool stop(struct engine_vcpu *v, enum engine_debug_kind kind, gva_t gva, uint8_t access)
{
	v->hit = (struct engine_debug_hit){.kind = kind, .gva = gva, .access = access};
	v->debug.stopped = true;
	v->debug.stands = v->run->debug.arch.pc;
	return true;
}

static bool stop_at_watch(struct engine_vcpu *v, unsigned n)
{
	const struct cpu_host_debug *want = &v->debug.want;

	return stop(v, ENGINE_DEBUG_WATCH, want->watch[n].gva, want->watch[n].access);
}

static bool value_changed(struct engine_vcpu *v, unsigned *ret_watch)
{
	struct kvm_debug *d = &v->debug;
	uint64_t now[CPU_HOST_WATCHES];

	read_values(v, now);
	for (unsigned n = 0; n < d->want.watches; n++) {
		if (now[n] == d->value[n])
			continue;
		memcpy(d->value, now, sizeof(now));
		*ret_watch = n;
		return true;
	}
	return false;
}

/* One instruction is done. */
static bool stepped(struct engine_vcpu *v)
{
	struct kvm_debug *d = &v->debug;
	gva_t pc = v->run->debug.arch.pc;
	unsigned watch;

	if (d->passing) {
		d->passing = false;
		apply(v);
	}
	if (d->by_value && value_changed(v, &watch))
		return stop_at_watch(v, watch);
	if (d->want.single_step)
		return stop(v, ENGINE_DEBUG_STEP, pc, 0);
	if (d->by_step && is_breakpoint(d, pc))
		return stop(v, ENGINE_DEBUG_BREAKPOINT, pc, 0);
	d->stopped = false;
	return false;
}

/* The guest's own #DB: its debug registers, INT1, or its TF. */
static void give_back(struct engine_vcpu *v)
{
	struct cpu_state s;

	if (kvm_state_get(v, &s))
		return;
	s.event = (struct cpu_event){.valid = true,
				     .type = CPU_EVENT_HW_EXCEPTION,
				     .vector = X86_VEC_DB,
				     .has_payload = true,
				     .payload = v->run->debug.arch.dr6 &
						(0xf | X86_DR6_BD | X86_DR6_BS | X86_DR6_BT)};
	kvm_state_set(v, &s);
}

bool kvm_debug_exit(struct engine_vcpu *v)
{
	const struct kvm_debug_exit_arch *arch = &v->run->debug.arch;
	struct kvm_debug *d = &v->debug;

	for (unsigned n = 0; n < d->used; n++)
		if (arch->dr6 >> n & 1 && d->reg[n].type != DR_TYPE_EXEC)
			return stop_at_watch(v, d->reg[n].watch);
	for (unsigned n = 0; n < d->used; n++)
		if (arch->dr6 >> n & 1 && d->reg[n].gva == arch->pc)
			return stop(v, ENGINE_DEBUG_BREAKPOINT, arch->pc, 0);
	if (arch->dr6 & X86_DR6_BS && (d->want.single_step || d->by_step || d->passing))
		return stepped(v);
	give_back(v);
	return false;
}

bool kvm_debug_helped(struct engine_vcpu *v, gva_t pc)
{
	const struct kvm_debug *d = &v->debug;

	if (!d->want.single_step && !d->by_step && !d->passing)
		return false;
	v->run->debug.arch.pc = pc;
	return stepped(v);
}
