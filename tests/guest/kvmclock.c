/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* KVM's paravirtual clock (Documentation/virt/kvm/x86/msr.rst), where the machine has it: it goes
 * on. */
#include "kit/kit.h"

#define LEAF_SIGNATURE	0x40000000
#define LEAF_FEATURES	0x40000001
#define NEW_CLOCK	(1u << 3)
#define MSR_SYSTEM_TIME 0x4b564d01

struct time_info {
	uint32_t version, pad0;
	uint64_t tsc, ns;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad[2];
} __attribute__((packed, aligned(4096)));

static volatile struct time_info info;

static uint64_t now(void)
{
	uint32_t version, low, high;
	uint64_t ticks, ns;

	do {
		version = info.version;
		asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high));
		ticks = ((uint64_t)high << 32 | low) - info.tsc;
		ticks = info.shift < 0 ? ticks >> -info.shift : ticks << info.shift;
		ns = info.ns + (uint64_t)((unsigned __int128)ticks * info.mul >> 32);
	} while (version & 1 || version != info.version);
	return ns;
}

static uint32_t cpuid(uint32_t eax, uint32_t *ret_ebx)
{
	uint32_t ecx = 0, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(*ret_ebx), "+c"(ecx), "=d"(edx));
	return eax;
}

/* A leaf that is not there reads as the highest one that is: hence the look at the signature. */
static bool has_clock(void)
{
	uint32_t signature, ebx;

	cpuid(LEAF_SIGNATURE, &signature);
	return signature == 0x4b4d564b /* "KVMK" */ && (cpuid(LEAF_FEATURES, &ebx) & NEW_CLOCK);
}

int payload(const char *cmdline)
{
	uint64_t first;

	kit_result("has a kvmclock:", has_clock());
	if (!has_clock())
		return 0;
	asm volatile("wrmsr" ::"c"(MSR_SYSTEM_TIME), "a"((uint32_t)(uint64_t)&info | 1), "d"(0));
	kit_in(0xed); /* the kernel fills it in on its way into the guest */
	kit_check(info.version && !(info.version & 1), "there is a time");
	/* The machine's own, from its start: not the host's. */
	first = now();
	kit_check(first < 60000000000ull, "it began with the machine");
	while (now() < first + 10000000)
		kit_pause();
	kit_text("10 ms later\n");
	return 0;
}
