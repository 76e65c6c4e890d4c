/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The registers as GDB numbers them, and the target description that tells it so. */
#ifndef UMBRA_VM_GDB_REGS_H
#define UMBRA_VM_GDB_REGS_H

#include "base/buf.h"
#include "engine/engine.h"

/* What GDB takes the guest for. It cannot be changed once it is connected. */
enum gdb_arch { GDB_ARCH_AMD64, GDB_ARCH_I386 };

#define GDB_REG_BYTES 16 /* of the largest register */

unsigned gdb_reg_count(enum gdb_arch arch);
/* The register's size in bytes, or 0: there is no such register. */
unsigned gdb_reg_size(enum gdb_arch arch, unsigned regnum);
/* Its bytes, little-endian, as they go over the wire; the size. @regnum is one there is. */
unsigned gdb_reg_get(enum gdb_arch arch, unsigned regnum, const struct cpu_state *s,
		     uint8_t value[GDB_REG_BYTES]);
/*
 * 0; -EROFS: it is not for a debugger to write and @value is another; -EINVAL: a value that the
 * processor would refuse. Nothing was changed then.
 */
int gdb_reg_set(enum gdb_arch arch, unsigned regnum, struct cpu_state *s,
		const uint8_t value[GDB_REG_BYTES]);

/* The target description, as XML. Appended; check @out->failed. */
void gdb_describe(enum gdb_arch arch, struct buf *out);

#endif
