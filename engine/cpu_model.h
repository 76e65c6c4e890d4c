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
};

/* Every feature that our processor implements and the host can execute, LA57 apart. */
void engine_cpu_model_init(struct engine_cpu_model *m, unsigned vcpus, uint64_t tsc_hz);
/*
 * "-pcid,-sha,+la57,vendor=AuthenticAMD,maxphyaddr=36": mask features, or show them again; the
 * vendor (GenuineIntel, AuthenticAMD), the width of physical addresses (32 to 52). 0, or -EINVAL
 * with nothing changed when a word is unknown (then *ret_bad, if not NULL, points at it in @text).
 */
int engine_cpu_model_mask(struct engine_cpu_model *m, const char *text, const char **ret_bad);
/* Is the feature of this name to be seen (as far as the host can)? */
bool engine_cpu_model_shows(const struct engine_cpu_model *m, const char *name);
/* The leaves for vCPU @id, whose APIC id is @id. Returns how many. */
unsigned engine_cpu_model_cpuid(const struct engine_cpu_model *m, unsigned id,
				struct cpu_cpuid out[ENGINE_CPUID_MAX]);

#endif
