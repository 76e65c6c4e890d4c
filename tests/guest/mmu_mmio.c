/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads device registers, while memory comes and goes where there was none. */
#include "kit/kit.h"

#define APIC_VERSION 0xfee00030ull
#define HOLE	     0xd0000000ull
#define READS	     20000
#define CHANGES	     40

/* Without the harness both reads are all ones. */
static bool has_harness(void)
{
	return kit_in(KIT_DEVICE_BYTES) != kit_in(KIT_DEVICE_BYTES);
}

int payload(const char *cmdline)
{
	uint64_t sum = 0;

	for (unsigned n = 0; n < READS; n++)
		sum += *(volatile uint32_t *)APIC_VERSION;
	for (unsigned n = 0; n < CHANGES && has_harness(); n++) {
		kit_check(*kit_at(HOLE + n * PAGE) == ~0ull, "no memory there yet");
		kit_device(KIT_SLOT_ADD, HOLE >> 12);
		kit_check(*kit_at(HOLE + n * PAGE) == 0x5a5a5a5a5a5a5a5a, "memory there now");
		*kit_at(HOLE + n * PAGE) = n;
		sum += *kit_at(HOLE + n * PAGE) + *(volatile uint32_t *)APIC_VERSION;
		kit_device(KIT_SLOT_DELETE, 0);
		kit_check(*kit_at(HOLE + n * PAGE) == ~0ull, "memory gone");
	}
	kit_result("sum", sum);
	return 0;
}
