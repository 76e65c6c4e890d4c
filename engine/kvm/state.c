/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* struct cpu_state and the kernel's form of it: what is asked of the kernel, and in which order. */
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "engine/guest_mem.h"
#include "engine/kvm/kvm_internal.h"

/* The last call failed: @ret, with v->error. */
static int failed(struct engine_vcpu *v, int ret, const char *what)
{
	snprintf(v->error, sizeof(v->error), "%s: %s", what, kvm_failure());
	return ret;
}

static int call(struct engine_vcpu *v, unsigned long request, const void *arg)
{
	int ret = kvm_call(v->fd, request, arg);

	return ret < 0 ? failed(v, ret, "registers") : 0;
}

/* ---- once a machine -----------------------------------------------------------------------------
 */

/* Of a component of XSAVE, its offset in the standard form; 0: the host has none. */
static uint32_t component_offset(unsigned component, uint32_t size)
{
	uint32_t a, b, c, d;

	if (!__get_cpuid_count(0xd, component, &a, &b, &c, &d) || a != size)
		return 0;
	return b;
}

int kvm_state_setup(struct engine_vm *vm)
{
	const uint32_t ymm_bytes = sizeof(((struct cpu_state *)0)->ymmh), pkru_bytes = 8;
	struct kvm_xsave_layout *l = &vm->xsave;
	int ret;

	*l = (struct kvm_xsave_layout){
		.size = vm->caps.xsave2_size,
		.ymm = component_offset(2, ymm_bytes),
		.pkru = component_offset(9, pkru_bytes),
	};
	if (l->ymm + ymm_bytes > l->size)
		l->ymm = 0;
	if (l->pkru + pkru_bytes > l->size)
		l->pkru = 0;
	ret = kvm_cpuid_xcr0(vm->config.kvm_fd, &l->components);
	l->components |= X86_XCR0_X87 | X86_XCR0_SSE;
	return ret;
}

/* ---- MSRs ---------------------------------------------------------------------------------------
 */

/* struct kvm_msrs with its entries. */
struct msr_list {
	uint32_t nmsrs, pad;
	struct kvm_msr_entry entry[KVM_MSR_ROWS_MAX];
};
static_assert(offsetof(struct msr_list, entry) == sizeof(struct kvm_msrs), "the same layout");

static bool is_absent(const struct engine_vm *vm, unsigned row)
{
	return __atomic_load_n(&vm->msrs_absent, __ATOMIC_RELAXED) >> row & 1;
}

/* The rows that this kernel has, from @from; @row says which each entry is. */
static void list_rows(const struct engine_vm *vm, unsigned from, struct msr_list *list,
		      uint8_t row[KVM_MSR_ROWS_MAX])
{
	memset(list, 0, sizeof(*list));
	for (unsigned n = from; n < kvm_msr_row_count; n++) {
		if (is_absent(vm, n))
			continue;
		row[list->nmsrs] = (uint8_t)n;
		list->entry[list->nmsrs++].index = kvm_msr_rows[n].index;
	}
}

/* The kernel stops at the first that it does not know: it is left out from then on. */
static int get_msrs(struct engine_vcpu *v, struct cpu_state *s)
{
	uint8_t row[KVM_MSR_ROWS_MAX];
	struct msr_list list;
	unsigned from = 0;
	int done;

	for (;;) {
		list_rows(v->vm, from, &list, row);
		if (!list.nmsrs)
			return 0;
		done = kvm_call(v->fd, KVM_GET_MSRS, &list);
		if (done < 0)
			return failed(v, done, "registers");
		for (int n = 0; n < done; n++)
			*kvm_msr_member(s, &kvm_msr_rows[row[n]]) = list.entry[n].data;
		if ((unsigned)done == list.nmsrs)
			return 0;
		__atomic_fetch_or(&v->vm->msrs_absent, BIT(row[done]), __ATOMIC_RELAXED);
		from = row[done] + 1u;
	}
}

/* What an MSR holds that is not there, as far as somebody could say. */
static uint64_t absent_value(const struct kvm_msr_row *row)
{
	return row->index == X86_MSR_MISC_ENABLE ? BIT(0) | BIT(11) | BIT(12) : 0;
}

static int set_msrs(struct engine_vcpu *v, struct cpu_state *s)
{
	uint8_t row[KVM_MSR_ROWS_MAX];
	struct msr_list list;
	unsigned from = 0;

	for (;;) {
		const struct kvm_msr_row *r;
		int done;

		list_rows(v->vm, from, &list, row);
		for (unsigned n = 0; n < list.nmsrs; n++)
			list.entry[n].data = *kvm_msr_member(s, &kvm_msr_rows[row[n]]);
		done = list.nmsrs ? kvm_call(v->fd, KVM_SET_MSRS, &list) : 0;
		if (done < 0)
			return failed(v, done, "registers");
		if ((unsigned)done == list.nmsrs)
			return 0;
		r = &kvm_msr_rows[row[done]];
		if (list.entry[done].data != absent_value(r)) {
			snprintf(v->error, sizeof(v->error),
				 "registers: the kernel does not take 0x%llx for %s (MSR 0x%x)",
				 (unsigned long long)list.entry[done].data, r->name, r->index);
			return -EOPNOTSUPP;
		}
		from = row[done] + 1u;
	}
}

static void absent_to_state(const struct engine_vm *vm, struct cpu_state *s)
{
	for (unsigned n = 0; n < kvm_msr_row_count; n++)
		if (is_absent(vm, n))
			*kvm_msr_member(s, &kvm_msr_rows[n]) = absent_value(&kvm_msr_rows[n]);
}

/* ---- the parts of the state ---------------------------------------------------------------------
 */

/* Without KVM_GET_SREGS2 the kernel does not tell what its PDPTEs are: they are read again, as it
 * does itself on setting them. */
static void read_pdptrs(struct engine_vcpu *v, struct cpu_state *s)
{
	memset(s->pdptr, 0, sizeof(s->pdptr));
	if (kvm_state_is_pae(s))
		slot_read(v->vm->mmu, s->cr3 & 0xffffffe0u, s->pdptr, sizeof(s->pdptr));
}

static int get_sregs(struct engine_vcpu *v, struct kvm_sregs2 *r, struct cpu_state *s)
{
	struct kvm_sregs old = {0};
	int ret;

	if (v->vm->caps.sregs2) {
		ret = call(v, KVM_GET_SREGS2, r);
		if (!ret)
			kvm_sregs2_to_state(r, s);
		return ret;
	}
	ret = call(v, KVM_GET_SREGS, &old);
	if (ret)
		return ret;
	kvm_sregs_to_sregs2(&old, r);
	kvm_sregs2_to_state(r, s);
	read_pdptrs(v, s);
	return 0;
}

/* What the state does not have (the APIC base) stays as the kernel has it. */
static int set_sregs(struct engine_vcpu *v, const struct cpu_state *s)
{
	struct cpu_state was;
	struct kvm_sregs2 r = {0};
	struct kvm_sregs old;
	int ret = get_sregs(v, &r, &was);

	if (ret)
		return ret;
	kvm_sregs2_from_state(&r, s);
	if (v->vm->caps.sregs2)
		return call(v, KVM_SET_SREGS2, &r);
	kvm_sregs2_to_sregs(&r, &old);
	return call(v, KVM_SET_SREGS, &old);
}

static int get_fpu(struct engine_vcpu *v, struct cpu_state *s)
{
	bool big = v->vm->xsave.size > sizeof(struct kvm_xsave);
	void *area = calloc(1, v->vm->xsave.size);
	struct kvm_xcrs xcrs = {0};
	int ret;

	if (!area) {
		snprintf(v->error, sizeof(v->error), "registers: out of memory");
		return -ENOMEM;
	}
	ret = call(v, big ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area);
	if (!ret)
		kvm_xsave_to_state(area, &v->vm->xsave, s);
	free(area);
	s->xcr0 = X86_XCR0_X87;
	if (!ret && v->vm->caps.xcrs) {
		ret = call(v, KVM_GET_XCRS, &xcrs);
		for (unsigned n = 0; !ret && n < MIN(xcrs.nr_xcrs, (uint32_t)KVM_MAX_XCRS); n++)
			if (!xcrs.xcrs[n].xcr)
				s->xcr0 = xcrs.xcrs[n].value;
	}
	return ret;
}

static int set_fpu(struct engine_vcpu *v, const struct cpu_state *s)
{
	void *area = calloc(1, v->vm->xsave.size);
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = s->xcr0};
	int ret;

	if (!area) {
		snprintf(v->error, sizeof(v->error), "registers: out of memory");
		return -ENOMEM;
	}
	kvm_xsave_from_state(area, &v->vm->xsave, s);
	ret = call(v, KVM_SET_XSAVE, area);
	free(area);
	if (!ret && v->vm->caps.xcrs)
		ret = call(v, KVM_SET_XCRS, &xcrs);
	return ret;
}

static int get_debugregs(struct engine_vcpu *v, struct cpu_state *s)
{
	struct kvm_debugregs r = {0};
	int ret = call(v, KVM_GET_DEBUGREGS, &r);

	if (!ret)
		kvm_debugregs_to_state(&r, s);
	return ret;
}

static int set_debugregs(struct engine_vcpu *v, const struct cpu_state *s)
{
	struct kvm_debugregs r;

	kvm_debugregs_from_state(&r, s);
	return call(v, KVM_SET_DEBUGREGS, &r);
}

static int set_events(struct engine_vcpu *v, const struct kvm_vcpu_events *from, bool shutdown)
{
	struct kvm_vcpu_events e = *from;

	if (v->vm->caps.triple_fault_event) {
		e.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
		e.triple_fault.pending = shutdown;
	}
	if (v->vm->caps.exception_payload)
		e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	return call(v, KVM_SET_VCPU_EVENTS, &e);
}

/* ---- the whole ----------------------------------------------------------------------------------
 */

int kvm_state_get(struct engine_vcpu *v, struct cpu_state *ret_state)
{
	struct cpu_state s = {0};
	struct kvm_mp_state mp = {0};
	struct kvm_vcpu_events events = {0};
	struct kvm_sregs2 sregs = {0};
	struct kvm_regs regs = {0};
	int ret = kvm_complete_io(v);

	/* First: it makes the kernel carry out an INIT or SIPI that waits. */
	if (!ret)
		ret = call(v, KVM_GET_MP_STATE, &mp);
	if (!ret)
		ret = call(v, KVM_GET_REGS, &regs);
	if (!ret)
		ret = get_sregs(v, &sregs, &s);
	if (!ret)
		ret = get_fpu(v, &s);
	if (!ret)
		ret = get_msrs(v, &s);
	if (!ret)
		ret = get_debugregs(v, &s);
	if (!ret)
		ret = call(v, KVM_GET_VCPU_EVENTS, &events);
	if (ret)
		return ret;
	kvm_regs_to_state(&regs, &s);
	absent_to_state(v->vm, &s);
	s.fx.mxcsr_mask = 0xffff;
	s.activity = kvm_mp_to_activity(mp.mp_state);
	kvm_events_to_state(&events, &s);
	*ret_state = s;
	return 0;
}

/* Nothing of the state is lost, or v->error lists what. */
static int check_lost(struct engine_vcpu *v, const struct cpu_state *s)
{
	size_t at = 0;
	const char *name;

	for (unsigned n = 0; (name = kvm_state_lost(s, &v->vm->xsave, n)) != NULL; n++)
		at += (size_t)snprintf(v->error + at, sizeof(v->error) - at, "%s%s",
				       n ? ", " : "registers: this KVM cannot take: ", name);
	return at ? -EOPNOTSUPP : 0;
}

/*
 * KVM_SET_REGS forgets a pending exception, KVM_SET_SREGS may wake the processor from HLT: so both
 * come before the events and the MP state.
 */
int kvm_state_set(struct engine_vcpu *v, const struct cpu_state *state)
{
	struct cpu_state s = *state;
	struct kvm_mp_state mp = {.mp_state = kvm_mp_from_activity(s.activity)};
	struct kvm_vcpu_events events;
	struct kvm_regs regs;
	int ret = kvm_complete_io(v);

	if (!ret)
		ret = check_lost(v, &s);
	if (ret)
		return ret;
	kvm_events_from_state(&events, &s);
	kvm_regs_from_state(&regs, &s);
	ret = set_sregs(v, &s);
	if (!ret)
		ret = call(v, KVM_SET_REGS, &regs);
	if (!ret)
		ret = set_fpu(v, &s);
	if (!ret)
		ret = set_msrs(v, &s);
	if (!ret)
		ret = set_debugregs(v, &s);
	if (!ret)
		ret = call(v, KVM_SET_MP_STATE, &mp);
	if (!ret)
		ret = set_events(v, &events, s.activity == CPU_SHUTDOWN);
	return ret;
}

int kvm_mmu_regs(struct engine_vcpu *v, struct mmu_regs *ret_regs)
{
	struct cpu_state s = {0};
	struct kvm_sregs2 sregs = {0};
	int ret = kvm_complete_io(v);

	if (!ret)
		ret = get_sregs(v, &sregs, &s);
	if (!ret && (s.cr4 & X86_CR4_PKE))
		ret = get_fpu(v, &s);
	if (!ret)
		guest_mmu_regs(&s, v->vm->config.model, ret_regs);
	return ret;
}

/* ---- time ---------------------------------------------------------------------------------------
 */

static int read_msr(struct engine_vcpu *v, uint32_t index, uint64_t *ret_value)
{
	struct msr_list one = {.nmsrs = 1, .entry[0].index = index};
	int ret = kvm_call(v->fd, KVM_GET_MSRS, &one);

	if (ret < 0)
		return failed(v, ret, "TSC");
	*ret_value = ret == 1 ? one.entry[0].data : 0;
	return 0;
}

static int write_tsc(struct engine_vcpu *v, uint64_t tsc)
{
	struct msr_list one = {
		.nmsrs = 1,
		.entry[0] = {.index = X86_MSR_TSC, .data = tsc},
	};
	int ret = kvm_call(v->fd, KVM_SET_MSRS, &one);

	if (ret >= 0 && ret != 1) {
		snprintf(v->error, sizeof(v->error), "TSC: the kernel does not take it");
		return -EOPNOTSUPP;
	}
	return ret < 0 ? failed(v, ret, "TSC") : 0;
}

/*
 * A kernel without KVM_VCPU_TSC_OFFSET takes a value within a second of what it expects for one
 * that was meant to be that: so it is led astray first.
 */
static int set_by_value(struct engine_vcpu *v, uint64_t tsc)
{
	int ret = write_tsc(v, tsc + (1ull << 40));

	return ret ? ret : write_tsc(v, tsc);
}

int kvm_tsc_set(struct engine_vcpu *v, uint64_t tsc)
{
	struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET};
	uint64_t adjust, offset;
	int ret = kvm_complete_io(v);

	if (!ret)
		ret = read_msr(v, X86_MSR_TSC_ADJUST, &adjust);
	if (ret)
		return ret;
	attr.addr = (uint64_t)(uintptr_t)&offset;
	if (!v->vm->caps.vcpu_attributes)
		return set_by_value(v, tsc + adjust);
	offset = tsc + adjust - __rdtsc();
	return call(v, KVM_SET_DEVICE_ATTR, &attr);
}

int kvm_tsc_get(struct engine_vcpu *v, uint64_t *ret_tsc)
{
	return read_msr(v, X86_MSR_TSC, ret_tsc);
}
