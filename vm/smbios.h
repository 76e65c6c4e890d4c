/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SMBIOS 2.8 and 3.0 entry points with one minimal structure table. */
#ifndef UMBRA_VM_SMBIOS_H
#define UMBRA_VM_SMBIOS_H

#include "base/buf.h"

struct smbios_config {
	unsigned cpus;
	uint64_t ram_below_4g, ram_above_4g;
};

/* Append both entry points and the structures for guest address @base (16-byte aligned). -ENOMEM.
 */
int smbios_build(const struct smbios_config *cfg, gpa_t base, struct buf *out);

#endif
