/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The processor model that a machine shows through CPUID. */
#ifndef UMBRA_ENGINE_CPU_MODEL_H
#define UMBRA_ENGINE_CPU_MODEL_H

#include "cpu/cpu.h"

#define ENGINE_CPUID_MAX 64

/*
 * What leaf 0x15 calls the crystal, and Linux takes for the local APIC timer's input: so it must be
 * the rate at which the machine's local APIC counts (devices/lapic.h).
 */
#define ENGINE_CRYSTAL_HZ 1000000000ull

struct engine_cpu_model {
	unsigned vcpus; /* 1..255 */
	uint64_t tsc_hz;
	uint64_t crystal_hz; /* ENGINE_CRYSTAL_HZ */
	uint8_t maxphyaddr;  /* 32..52; 46 */
	bool amd;	     /* AuthenticAMD instead of GenuineIntel */
	uint64_t off[2];     /* features that are masked, by row */
	bool common;	     /* asked for: only what every engine of this host can show */
	bool kvm;	     /* KVM answers: its paravirtual leaves can be shown */
};

/* Every feature that our processor implements and the host can execute, LA57 apart. */
void engine_cpu_model_init(struct engine_cpu_model *m, unsigned vcpus, uint64_t tsc_hz);
/*
 * "-pcid,-sha,+la57,vendor=AuthenticAMD,maxphyaddr=36,common": mask features, or show them again
 * (+kvmclock: KVM's clock, on that engine only); the vendor (GenuineIntel, AuthenticAMD), the width
 * of physical addresses (32 to 52); and @common, which others have to act on. 0, or -EINVAL
 * with nothing changed when a word is unknown (then *ret_bad, if not NULL, points at it in @text).
 */
int engine_cpu_model_mask(struct engine_cpu_model *m, const char *text, const char **ret_bad);
/* Is the feature of this name to be seen (as far as the host can)? */
bool engine_cpu_model_shows(const struct engine_cpu_model *m, const char *name);
/*
 * Mask what is not in @leaves, an engine's of @n entries: features, and bits of physical addresses.
 * (Entries are found by leaf and subleaf; CPU_CPUID_ANY is every subleaf.)
 */
void engine_cpu_model_limit(struct engine_cpu_model *m, const struct cpu_cpuid *leaves, unsigned n);
/* What @a shows and @b does not, by name: "sse3 xsave maxphyaddr=46". Cut to @size; how many. */
unsigned engine_cpu_model_missing(const struct engine_cpu_model *a,
				  const struct engine_cpu_model *b, char *names, size_t size);
/* The features whose bits are set in @leaves, by name; bits without one are counted: "avx, 12
 * others". How many in all. */
unsigned engine_cpu_feature_names(const struct cpu_cpuid *leaves, unsigned n, char *names,
				  size_t size);
/* The leaves for vCPU @id, whose APIC id is @id. Returns how many. */
unsigned engine_cpu_model_cpuid(const struct engine_cpu_model *m, unsigned id,
				struct cpu_cpuid out[ENGINE_CPUID_MAX]);

#endif
