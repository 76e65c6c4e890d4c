/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A generator of ACPI machine language (ACPI 6.4, chapter 20), as small as our DSDT needs. */
#ifndef UMBRA_VM_ACPI_AML_H
#define UMBRA_VM_ACPI_AML_H

#include "base/buf.h"

/*
 * A term that holds others is begun and ended; in between, terms are appended. Its length is filled
 * in by the end call, to which the value that begin returned goes. Errors stay in @b->failed.
 */
size_t aml_scope_begin(struct buf *b, const char *path);  /* "\\_SB_": a root name of one segment */
size_t aml_device_begin(struct buf *b, const char *name); /* names have exactly four letters */
size_t aml_package_begin(struct buf *b, uint8_t elements);
size_t aml_resources_begin(struct buf *b); /* a buffer of resource descriptors, for _CRS */
void aml_end(struct buf *b, size_t begun);
void aml_resources_end(struct buf *b, size_t begun);

/* Name(@name, …): the value is what comes next. */
void aml_name(struct buf *b, const char *name);
void aml_integer(struct buf *b, uint64_t value);
/* A compressed EISA id such as "PNP0501". */
void aml_eisaid(struct buf *b, const char *id);

/* Small resource descriptors. */
void aml_io(struct buf *b, uint16_t port, uint8_t len);
void aml_irq(struct buf *b, unsigned irq);

#endif
