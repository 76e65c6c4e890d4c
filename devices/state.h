/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a device's saved state is called, and how big and how old its form is. */
#ifndef UMBRA_DEVICES_STATE_H
#define UMBRA_DEVICES_STATE_H

#include "base/types.h"

/*
 * Every device has a plain `struct NAME_state` of fixed-width fields without implicit padding, and
 *	void NAME_save(dev, struct NAME_state *)	fills every byte of it
 *	int NAME_load(dev, const struct NAME_state *)	0, or -EINVAL with the device unchanged
 * Both want the vCPUs and the clock's loop stopped. A loaded state is hostile input and is checked.
 * Times in it are of the machine's clock, which is to be loaded first. A load re-arms the device's
 * timers and drives its own interrupt line; it never touches guest memory.
 */
struct device_state_desc {
	const char *name; /* a frozen word */
	uint32_t version; /* grows whenever the struct changes */
	uint32_t size;	  /* sizeof(struct NAME_state) */
};

#endif
