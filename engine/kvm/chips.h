/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's interrupt controllers and PIT in devices/' form of saved state, and back. */
#ifndef UMBRA_ENGINE_KVM_CHIPS_H
#define UMBRA_ENGINE_KVM_CHIPS_H

#include <linux/kvm.h>

#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "devices/pic.h"
#include "devices/pit.h"

/*
 * Pure conversions: no calls, no locks. What comes from the kernel is brought into what devices/
 * accepts; what goes to it was accepted by devices/. What each cannot carry:
 * - LAPIC: pending errors (ESR before it is written), LINT levels; an expired one-shot timer's
 *   initial count (the kernel would fire it again); the suppression of EOI broadcasts, which only
 *   the kernel's has.
 * - PIC: the cascade's level (worked out anew), ICW4 bit 0, single mode.
 * - PIT: where in its period a counter is, as the kernel starts each anew when it is loaded and
 * does not tell counter 0's; a count that waits for the period's end is in use at once. An
 * interrupt of counter 0 comes late, or once more, rather than never.
 */

/* Registers of a local APIC's page (SDM 3A, table 11-1) that are asked for by themselves, too. */
#define KVM_LAPIC_LVT	  0x320 /* the timer's */
#define KVM_LAPIC_INITIAL 0x380
#define KVM_LAPIC_CURRENT 0x390

uint32_t kvm_lapic_reg(const struct kvm_lapic_state *s, unsigned offset);

/* A local APIC's MSRs that KVM_GET_LAPIC leaves out. */
struct kvm_lapic_msrs {
	uint64_t base;	     /* IA32_APIC_BASE */
	uint64_t tsc_adjust; /* IA32_TSC_ADJUST */
	uint64_t tsc_deadline;
};

/* @now_ns: the machine's clock. */
void kvm_lapic_from(const struct kvm_lapic_state *from, const struct kvm_lapic_msrs *msrs,
		    uint64_t now_ns, struct lapic_state *ret);
void kvm_lapic_to(const struct lapic_state *s, uint64_t now_ns, struct kvm_lapic_state *ret);

/* @which: 0 master, 1 slave. */
void kvm_pic_from(const struct kvm_pic_state *from, unsigned which, struct pic_chip_state *ret);
void kvm_pic_to(const struct pic_chip_state *s, unsigned which, struct kvm_pic_state *ret);

/* @lines: the GSIs that are high, as the kernel does not tell them. */
void kvm_ioapic_from(const struct kvm_ioapic_state *from, uint32_t lines, struct ioapic_state *ret);
void kvm_ioapic_to(const struct ioapic_state *s, struct kvm_ioapic_state *ret);

/* @host_ns: CLOCK_MONOTONIC when @from was read. */
void kvm_pit_from(const struct kvm_pit_state2 *from, uint64_t now_ns, uint64_t host_ns,
		  struct pit_state *ret);
void kvm_pit_to(const struct pit_state *s, uint64_t now_ns, struct kvm_pit_state2 *ret);

#endif
