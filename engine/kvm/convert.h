/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* struct cpu_state to and from the kernel's structures: pure functions, no call to the kernel. */
#ifndef UMBRA_ENGINE_KVM_CONVERT_H
#define UMBRA_ENGINE_KVM_CONVERT_H

#include <linux/kvm.h>

#include "cpu/cpu.h"

/*
 * All of *_to_state() fill the members of the state that the structure holds and leave the others;
 * all of *_from_state() fill those of the structure and leave what the state does not have (the
 * APIC base, flags that say what is valid).
 */
void kvm_regs_to_state(const struct kvm_regs *r, struct cpu_state *s);
void kvm_regs_from_state(struct kvm_regs *r, const struct cpu_state *s);

/* struct kvm_sregs2 is the one form; for a kernel that has only KVM_GET_SREGS: */
void kvm_sregs_to_sregs2(const struct kvm_sregs *old, struct kvm_sregs2 *r);
/* No interrupt is in it: those go with the events. */
void kvm_sregs2_to_sregs(const struct kvm_sregs2 *r, struct kvm_sregs *old);
/* PDPTEs only where the flags say that they are valid, else zero. */
void kvm_sregs2_to_state(const struct kvm_sregs2 *r, struct cpu_state *s);
void kvm_sregs2_from_state(struct kvm_sregs2 *r, const struct cpu_state *s);
/* Does the state page by PAE's rules, so that the PDPTEs count? */
bool kvm_state_is_pae(const struct cpu_state *s);

void kvm_debugregs_to_state(const struct kvm_debugregs *r, struct cpu_state *s);
void kvm_debugregs_from_state(struct kvm_debugregs *r, const struct cpu_state *s);

/*
 * The XSAVE area in the standard form, and where the components are in it that we know: by CPUID
 * leaf 0xd of the host. An offset of 0: the host has no such component.
 */
struct kvm_xsave_layout {
	uint32_t size; /* bytes of the area */
	uint32_t ymm, pkru;
	uint64_t components; /* XCR0 bits that the kernel takes */
};
void kvm_xsave_to_state(const void *area, const struct kvm_xsave_layout *layout,
			struct cpu_state *s);
/* @area is zeroed before by the caller. */
void kvm_xsave_from_state(void *area, const struct kvm_xsave_layout *layout,
			  const struct cpu_state *s);

/*
 * Pending and injected events, shadows, NMIs. What was being delivered for an INT instruction is
 * dropped both ways: rip still stands at the instruction, which is then carried out again. A
 * payload (CR2, DR6) goes into the registers here, so before those are used or after they are read.
 */
void kvm_events_to_state(const struct kvm_vcpu_events *e, struct cpu_state *s);
/* A #DB that is still to come comes now, where nothing is before it. */
void kvm_take_pending_db(struct cpu_state *s);
/* Changes @s: see above. @e's flags say all that is set but the triple fault. */
void kvm_events_from_state(struct kvm_vcpu_events *e, struct cpu_state *s);

enum cpu_activity kvm_mp_to_activity(uint32_t mp_state);
uint32_t kvm_mp_from_activity(enum cpu_activity activity);

/* The MSRs that are a member of the state; one row each. */
struct kvm_msr_row {
	uint32_t index;
	uint32_t offset; /* in struct cpu_state */
	const char *name;
};
#define KVM_MSR_ROWS_MAX 64
extern const struct kvm_msr_row kvm_msr_rows[];
extern const unsigned kvm_msr_row_count;
static inline uint64_t *kvm_msr_member(struct cpu_state *s, const struct kvm_msr_row *row)
{
	return (uint64_t *)((char *)s + row->offset);
}

/*
 * What @s has that cannot be told to the kernel, by name ("ymm", "pending debug exception"); NULL:
 * nothing. @n counts from 0. To be asked with the state as it was before kvm_events_from_state().
 */
const char *kvm_state_lost(const struct cpu_state *s, const struct kvm_xsave_layout *layout,
			   unsigned n);

#endif
