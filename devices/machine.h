/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What devices ask of the machine as a whole. */
#ifndef UMBRA_DEVICES_MACHINE_H
#define UMBRA_DEVICES_MACHINE_H

#include "base/types.h"

/*
 * All slots are mandatory. They are called on the vCPU thread that made the access, with no device
 * lock held: they only note the request and make that vCPU leave its loop, and may return before
 * anything happened.
 */
struct machine_ops {
	void (*poweroff)(void *opaque);		    /* ACPI S5 */
	void (*reset)(void *opaque);		    /* 0xcf9, 0x92, i8042 0xfe, FADT reset */
	void (*exit)(void *opaque, uint32_t value); /* 0xf4; the status is value << 1 | 1 */
	void (*shutdown)(void *opaque);		    /* "Shutdown" written to 0x8900 */
};

#endif
