/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ACPI tables of a machine: RSDP, XSDT, RSDT, FADT, FACS, MADT and DSDT. */
#ifndef UMBRA_VM_ACPI_H
#define UMBRA_VM_ACPI_H

#include "base/buf.h"

struct acpi_config {
	unsigned cpus; /* APIC ids 0 to cpus - 1 */
};

/*
 * Append an image that belongs at guest address @base (16-byte aligned): the RSDP comes first, so
 * @base is also the RSDP's address. -ENOMEM, with @out as it was.
 */
int acpi_build(const struct acpi_config *cfg, gpa_t base, struct buf *out);

#endif
