/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* struct cpu_state to the kernel's structures and back: nothing is lost that they have; no /dev/kvm
 * is needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/kvm/convert.h"

static uint64_t seed = 88172645463325252ull;

static uint64_t number(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void fill(void *at, size_t len)
{
	uint8_t *p = at;

	while (len--)
		*p++ = (uint8_t)number();
}

static struct cpu_state any_state(void)
{
	struct cpu_state s;

	fill(&s, sizeof(s));
	s.event = (struct cpu_event){0};
	return s;
}

static void test_registers(void **state)
{
	for (unsigned n = 0; n < 100; n++) {
		struct cpu_state s = any_state(), back = any_state();
		struct kvm_regs r;

		kvm_regs_from_state(&r, &s);
		assert_int_equal(r.rax, s.gpr[X86_RAX]);
		assert_int_equal(r.rsp, s.gpr[X86_RSP]);
		assert_int_equal(r.r15, s.gpr[15]);
		kvm_regs_to_state(&r, &back);
		assert_memory_equal(back.gpr, s.gpr, sizeof(s.gpr));
		assert_int_equal(back.rip, s.rip);
		assert_int_equal(back.rflags, s.rflags);
	}
}

static void same_segment(const struct cpu_seg *a, const struct cpu_seg *b)
{
	assert_int_equal(a->base, b->base);
	assert_int_equal(a->limit, b->limit);
	assert_int_equal(a->sel, b->sel);
	assert_int_equal(a->attr & 0x1f0ff, b->attr & 0x1f0ff);
}

static void test_system_registers(void **state)
{
	for (unsigned n = 0; n < 100; n++) {
		struct cpu_state s = any_state(), back = any_state();
		struct kvm_sregs2 r = {.apic_base = 0xfee00900};
		struct kvm_sregs old;

		/* PAE paging every other time, so that the PDPTEs count. */
		s.cr0 |= X86_CR0_PG;
		s.cr4 |= X86_CR4_PAE;
		s.efer = n & 1 ? s.efer | X86_EFER_LMA : s.efer & ~X86_EFER_LMA;
		kvm_sregs2_from_state(&r, &s);
		assert_int_equal(r.apic_base, 0xfee00900);
		assert_int_equal(r.flags, n & 1 ? 0 : KVM_SREGS2_FLAGS_PDPTRS_VALID);
		/* Through the older form and back, but for the PDPTEs. */
		kvm_sregs2_to_sregs(&r, &old);
		assert_int_equal(old.interrupt_bitmap[0], 0);
		kvm_sregs2_to_state(&r, &back);
		for (unsigned k = 0; k < 6; k++)
			same_segment(&s.seg[k], &back.seg[k]);
		same_segment(&s.tr, &back.tr);
		same_segment(&s.ldtr, &back.ldtr);
		assert_int_equal(back.gdtr.base, s.gdtr.base);
		assert_int_equal(back.idtr.limit, s.idtr.limit);
		assert_int_equal(back.cr0, s.cr0);
		assert_int_equal(back.cr2, s.cr2);
		assert_int_equal(back.cr3, s.cr3);
		assert_int_equal(back.cr4, s.cr4);
		assert_int_equal(back.cr8, s.cr8);
		assert_int_equal(back.efer, s.efer);
		for (unsigned k = 0; k < 4; k++)
			assert_int_equal(back.pdptr[k], n & 1 ? 0 : s.pdptr[k]);
		kvm_sregs_to_sregs2(&old, &r);
		kvm_sregs2_to_state(&r, &back);
		assert_int_equal(back.cr4, s.cr4);
		assert_int_equal(back.pdptr[0], 0);
	}
}

static void test_debug_registers(void **state)
{
	struct cpu_state s = any_state(), back = any_state();
	struct kvm_debugregs r;

	kvm_debugregs_from_state(&r, &s);
	assert_int_equal(r.flags, 0);
	kvm_debugregs_to_state(&r, &back);
	assert_memory_equal(back.dr, s.dr, sizeof(s.dr));
	assert_int_equal(back.dr6, s.dr6);
	assert_int_equal(back.dr7, s.dr7);
}

#define AREA 4096

static void test_xsave(void **state)
{
	const struct kvm_xsave_layout layout = {
		.size = AREA, .ymm = 576, .pkru = 2688, .components = 0x207};
	struct cpu_state s = any_state(), back = any_state();
	uint8_t *area = calloc(1, AREA);
	uint64_t bv;

	s.fx.mxcsr = 0x1fa0;
	for (unsigned n = 0; n < 8; n++)
		s.fx.st[n].hi &= 0xffff;
	kvm_xsave_from_state(area, &layout, &s);
	memcpy(&bv, area + 512, sizeof(bv));
	assert_int_equal(bv, 0x207);
	kvm_xsave_to_state(area, &layout, &back);
	assert_memory_equal(back.fx.st, s.fx.st, sizeof(s.fx.st));
	assert_memory_equal(back.fx.xmm, s.fx.xmm, sizeof(s.fx.xmm));
	assert_memory_equal(back.ymmh, s.ymmh, sizeof(s.ymmh));
	assert_int_equal(back.fx.fcw, s.fx.fcw);
	assert_int_equal(back.fx.fsw, s.fx.fsw);
	assert_int_equal(back.fx.ftw, s.fx.ftw);
	assert_int_equal(back.fx.fip, s.fx.fip);
	assert_int_equal(back.fx.mxcsr, s.fx.mxcsr);
	assert_int_equal(back.pkru, s.pkru);
	/* Without its bit a component is in its first form. */
	memset(area + 512, 0, 8);
	kvm_xsave_to_state(area, &layout, &back);
	assert_int_equal(back.fx.fcw, 0x37f);
	assert_int_equal(back.fx.ftw, 0);
	assert_int_equal(back.fx.mxcsr, 0x1f80);
	assert_int_equal(back.fx.xmm[3].q[0] | back.ymmh[3][0] | back.pkru, 0);
	free(area);
}

/* A kernel that keeps no YMM: it is said, not dropped. */
static void test_lost(void **state)
{
	const struct kvm_xsave_layout all = {.ymm = 576, .pkru = 2688, .components = 0x207};
	const struct kvm_xsave_layout none = {.ymm = 576, .components = 3};
	struct cpu_state s = {.xcr0 = 1};

	assert_null(kvm_state_lost(&s, &none, 0));
	s.ymmh[15][1] = 1;
	s.pkru = 4;
	s.xcr0 = 7;
	assert_string_equal(kvm_state_lost(&s, &none, 0), "the upper halves of YMM");
	assert_string_equal(kvm_state_lost(&s, &none, 1), "PKRU");
	assert_string_equal(kvm_state_lost(&s, &none, 2), "XCR0");
	assert_null(kvm_state_lost(&s, &none, 3));
	assert_null(kvm_state_lost(&s, &all, 0));
	s.pending_dbg = X86_DR6_BS;
	assert_null(kvm_state_lost(&s, &all, 0));
	s.int_shadow_movss = true;
	assert_non_null(kvm_state_lost(&s, &all, 0));
}

static struct cpu_state with_event(enum cpu_event_type type, uint8_t vector)
{
	return (struct cpu_state){
		.rflags = X86_FLAG_ONE,
		.event = {.valid = true, .type = (uint8_t)type, .vector = vector},
	};
}

static void test_events_in(void **state)
{
	struct cpu_state s = with_event(CPU_EVENT_EXT_INTR, 0x31), back = {0};
	struct kvm_vcpu_events e;

	s.int_shadow_sti = true;
	kvm_events_from_state(&e, &s);
	assert_true(e.interrupt.injected && e.interrupt.nr == 0x31 && !e.interrupt.soft);
	assert_int_equal(e.interrupt.shadow, KVM_X86_SHADOW_INT_STI);
	kvm_events_to_state(&e, &back);
	assert_true(back.event.valid && back.event.type == CPU_EVENT_EXT_INTR);
	assert_int_equal(back.event.vector, 0x31);
	assert_true(back.int_shadow_sti && !back.int_shadow_movss);

	s = with_event(CPU_EVENT_NMI, X86_VEC_NMI);
	s.nmi_pending = 1;
	kvm_events_from_state(&e, &s);
	assert_true(e.nmi.injected && e.nmi.pending == 1);
	kvm_events_to_state(&e, &back);
	assert_true(back.event.valid && back.event.type == CPU_EVENT_NMI && !back.nmi_blocked);
	assert_int_equal(back.nmi_pending, 1);

	s = (struct cpu_state){.nmi_blocked = true};
	kvm_events_from_state(&e, &s);
	kvm_events_to_state(&e, &back);
	assert_true(back.nmi_blocked && !back.event.valid);
}

/* A fault's payload goes into the register, and its frame will have RF; INT n is done again. */
static void test_exceptions_in(void **state)
{
	struct cpu_state s = with_event(CPU_EVENT_HW_EXCEPTION, X86_VEC_PF), back = {0};
	struct kvm_vcpu_events e;

	s.event.has_error = true;
	s.event.error = 6;
	s.event.has_payload = true;
	s.event.payload = 0x123000;
	kvm_events_from_state(&e, &s);
	assert_true(e.exception.injected && e.exception.nr == X86_VEC_PF);
	assert_true(e.exception.has_error_code && e.exception.error_code == 6);
	assert_int_equal(s.cr2, 0x123000);
	assert_true(s.rflags & X86_FLAG_RF);
	kvm_events_to_state(&e, &back);
	assert_true(back.event.valid && back.event.has_error && back.event.error == 6);
	assert_false(back.event.has_payload);

	s = with_event(CPU_EVENT_SOFT_INTR, 0x80);
	s.event.insn_len = 2;
	kvm_events_from_state(&e, &s);
	assert_false(e.interrupt.injected || e.exception.injected);

	/* A #DB that is due: delivered now, told in DR6. */
	s = (struct cpu_state){.pending_dbg = X86_DR6_BS, .dr7 = X86_DR7_GD};
	kvm_events_from_state(&e, &s);
	assert_true(e.exception.injected && e.exception.nr == X86_VEC_DB);
	assert_true(s.dr6 & X86_DR6_BS);
	assert_false(s.dr7 & X86_DR7_GD);
}

static void test_events_out(void **state)
{
	struct kvm_vcpu_events e = {.flags = KVM_VCPUEVENT_VALID_PAYLOAD};
	struct cpu_state s = {0};

	/* Pending with its payload. */
	e.exception.pending = 1;
	e.exception.nr = X86_VEC_PF;
	e.exception.has_error_code = 1;
	e.exception.error_code = 2;
	e.exception_has_payload = 1;
	e.exception_payload = 0xabc000;
	kvm_events_to_state(&e, &s);
	assert_true(s.event.valid && s.event.vector == X86_VEC_PF && s.event.error == 2);
	assert_int_equal(s.cr2, 0xabc000);
	/* On the way into a handler: that is entered again, and the fault comes again. */
	s = (struct cpu_state){0};
	e.interrupt.injected = 1;
	e.interrupt.nr = 0x50;
	kvm_events_to_state(&e, &s);
	assert_true(s.event.valid && s.event.type == CPU_EVENT_EXT_INTR);
	assert_int_equal(s.cr2, 0);
	/* INT3's: rip is at it, so it is done again. */
	e = (struct kvm_vcpu_events){0};
	e.exception.injected = 1;
	e.exception.nr = X86_VEC_BP;
	kvm_events_to_state(&e, &s);
	assert_false(s.event.valid);
	/* A pending one without a valid payload flag is none. */
	e = (struct kvm_vcpu_events){0};
	e.exception.pending = 1;
	e.exception.nr = X86_VEC_GP;
	kvm_events_to_state(&e, &s);
	assert_false(s.event.valid);
	e = (struct kvm_vcpu_events){.flags = KVM_VCPUEVENT_VALID_TRIPLE_FAULT};
	e.triple_fault.pending = 1;
	kvm_events_to_state(&e, &s);
	assert_int_equal(s.activity, CPU_SHUTDOWN);
}

static void test_activity(void **state)
{
	for (enum cpu_activity a = CPU_ACTIVE; a <= CPU_WAIT_FOR_SIPI; a++)
		if (a != CPU_SHUTDOWN) /* an event */
			assert_int_equal(kvm_mp_to_activity(kvm_mp_from_activity(a)), a);
	assert_int_equal(kvm_mp_to_activity(KVM_MP_STATE_UNINITIALIZED), CPU_WAIT_FOR_SIPI);
}

/* Each MSR once, each member once, all within the state. */
static void test_msr_rows(void **state)
{
	for (unsigned n = 0; n < kvm_msr_row_count; n++) {
		assert_true(kvm_msr_rows[n].offset + 8 <= sizeof(struct cpu_state));
		for (unsigned k = 0; k < n; k++) {
			assert_int_not_equal(kvm_msr_rows[n].index, kvm_msr_rows[k].index);
			assert_int_not_equal(kvm_msr_rows[n].offset, kvm_msr_rows[k].offset);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_system_registers),
		cmocka_unit_test(test_debug_registers),
		cmocka_unit_test(test_xsave),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_events_in),
		cmocka_unit_test(test_exceptions_in),
		cmocka_unit_test(test_events_out),
		cmocka_unit_test(test_activity),
		cmocka_unit_test(test_msr_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
