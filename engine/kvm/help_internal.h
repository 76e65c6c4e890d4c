/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What help.c and quirks.c share. */
#ifndef UMBRA_ENGINE_KVM_HELP_INTERNAL_H
#define UMBRA_ENGINE_KVM_HELP_INTERNAL_H

#include "engine/guest_mem.h"
#include "engine/kvm/kvm_internal.h"

/* Distinct mnemonics that are counted by name. */
#define NAMES_MAX 96

struct kvm_help {
	struct guest_mem mem;
	unsigned run;
	uint64_t end_rip, end_cr3; /* where the last run ended */
	bool partly;		   /* the state at hand is but a part: take_part() */
	struct kvm_sregs2 sregs;   /* with @partly, as the kernel had them */
	uint64_t dr6, dr7;
	uint64_t entries; /* v->stats.entries at the last help */
	bool stale;	  /* what the kernel made of a guest table may differ from that table now */
	uint8_t msr_bitmap[PAGE_SIZE];
	/* Written by the vCPU's thread, read by any: @name last (release) when it is new. */
	struct engine_helped named[NAMES_MAX];
};

/* Of this vCPU, made at first need; NULL: no memory. */
struct kvm_help *help_of(struct engine_vcpu *v);
/* The state is with our processor from here on, whole or what the instruction at rip needs of it; 0
 * or -errno. */
int help_take(struct engine_vcpu *v);
/* @ret when the state is the kernel's again, or was lost (@ret < 0); else -errno. */
int help_give(struct engine_vcpu *v, int ret);
void help_tell_mmu(struct engine_vcpu *v);
/* Of the instruction that is next; lives for ever. @ret_general: see cpu_mnemonic(). */
const char *help_name(struct engine_vcpu *v, bool *ret_general);
void help_count(struct engine_vcpu *v, struct kvm_help *h, const char *name);
/* @first: of a run; the following ones leave for whatever the kernel has to see. */
void help_controls(struct engine_vcpu *v, bool first);
/* One instruction or event; *ret_exit: cpu_exit() says why it left. 0 or -errno. */
int help_emulate(struct engine_vcpu *v, struct kvm_help *h, bool *ret_exit);
/* The first one left; and: what was raised is delivered. As kvm_help(). */
int help_finish_exit(struct engine_vcpu *v, struct kvm_help *h, enum engine_exit *ret_exit);
int help_deliver(struct engine_vcpu *v, struct kvm_help *h, enum engine_exit *ret_exit);
/* An MSR that the kernel keeps. 0 or -errno. */
int help_msr(struct engine_vcpu *v, uint32_t index, uint64_t *ret_value);

#endif
