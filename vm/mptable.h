/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of the MultiProcessor Specification 1.4, for guests without ACPI. */
#ifndef UMBRA_VM_MPTABLE_H
#define UMBRA_VM_MPTABLE_H

#include "base/buf.h"

/* Processors that the table can name; ids of one byte, 0xff is the broadcast. */
#define MPTABLE_CPUS_MAX 254

/*
 * Append the floating pointer and the configuration table for guest address @base (16-byte aligned,
 * below 1 MiB, where guests search). More than MPTABLE_CPUS_MAX processors are not shown. -ENOMEM.
 */
int mptable_build(unsigned cpus, gpa_t base, struct buf *out);

#endif
