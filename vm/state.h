/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine's saved state, memory apart: one neutral form for engines, snapshots and migration. */
#ifndef UMBRA_VM_STATE_H
#define UMBRA_VM_STATE_H

#include "api/error.h"
#include "base/buf.h"
#include "engine/engine.h"

struct vm;

/*
 * The form. Numbers are little-endian; nothing of it depends on host, engine or process.
 *
 *	header	"UMBRA-VM", u32 version of the form (1), u32 zero
 *	section	char name[24] (zero-padded), u32 instance, u32 version of the section, u32 flags
 *		(bit 0: mandatory), u32 CRC-32 of these 48 bytes (itself zero) and of the data, u64
 *		length of the data; the data, padded with zeroes to 8 bytes
 *	…	and at the end the section "end", without data
 *
 * A reader refuses a mandatory section that it does not know, or whose version it does not know,
 * and skips an optional one. Each (name, instance) comes once, in any order. The sections:
 *
 *	machine	what must be the same where it is loaded: vCPUs, memory, CPUID
 *	vcpu n	struct cpu_state, member by member (state_cpu.c); without CR8, which is the local
 *		APIC's, and MXCSR_MASK, which is the host's
 *	clock, pit, rtc, … lapic n	board_state_row()s as they are
 *	kvm-clock	optional: the paravirtual clock, u64 ns
 *
 * The machine stands still (vm_halt()), here as there. The loop's thread.
 */
#define VM_STATE_MANDATORY BIT(0)

/* Append it to @out. 0, or -errno with *err (and @out as it was). */
int vm_state_save(struct vm *vm, struct buf *out, struct api_error *err);
/*
 * Make the machine what @data says. It is hostile: all of it is checked before anything is changed,
 * but for what only a device can check; if one refuses, or the engine does, the machine becomes
 * what it was. 0, or -errno with *err, which names the section.
 */
int vm_state_load(struct vm *vm, const void *data, size_t len, unsigned flags,
		  struct api_error *err);
/* Of vm_state_load(): CPUID may be another than where it was saved. */
#define VM_STATE_OTHER_CPUID BIT(0)

/*
 * What differs between two states, as a guest could see it: "vcpu0.cr4", "lapic1.irr[3]", with both
 * values in hexadecimal ("absent": only the other has such a section). Returns how many, or -EINVAL
 * when one of the two is no state; @fn may be NULL.
 */
struct vm_state_diff {
	const char *what, *a, *b;
};
int vm_state_compare(const struct buf *a, const struct buf *b,
		     void (*fn)(void *arg, const struct vm_state_diff *diff), void *arg);

/* ---- state_cpu.c: struct cpu_state in that form ---- */

#define STATE_CPU_VERSION 1u
size_t state_cpu_size(void);
/* @out has state_cpu_size() bytes. */
void state_cpu_encode(const struct cpu_state *s, void *out);
/*
 * The reverse, checked: NULL, or the name of the member that no processor with these CPUID leaves
 * could have. What the form does not have is zero.
 */
const char *state_cpu_decode(const void *data, const struct cpu_cpuid *leaves, unsigned count,
			     struct cpu_state *ret_state);

/* A number in a section, by name: "irr[3]". */
struct state_field {
	const char *name;
	uint16_t offset; /* in the section's data */
	uint8_t size;	 /* of one: 1, 2, 4, 8 */
	uint8_t stride;	 /* from one to the next */
	uint32_t count;	 /* more than 1: an array */
};
#define STATE_FIELDS_MAX 128
/* Those of a vCPU's section, and those of a device's (0: it is not known). Returns how many. */
unsigned state_cpu_fields(struct state_field out[STATE_FIELDS_MAX]);
unsigned state_device_fields(const char *name, struct state_field out[STATE_FIELDS_MAX]);
/* Do the two sections of a vCPU differ for the guest where they differ in this field? (Not in what
 * an unusable segment hides.) */
bool state_cpu_visible(const void *a, const void *b, const struct state_field *f);

#endif
