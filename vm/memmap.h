/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest-physical map: where RAM lies, what the boot loader and the firmware tables occupy. */
#ifndef UMBRA_VM_MEMMAP_H
#define UMBRA_VM_MEMMAP_H

#include "base/types.h"

/*
 * RAM runs from 0 to at most 3 GiB, and goes on at 4 GiB; between is the hole for MMIO. All of RAM
 * is backed, also 0xa0000 to 0xfffff: the tables below live there, and there is neither VGA nor a
 * ROM.
 */
#define MEMMAP_HOLE_START 0xc0000000ull
#define MEMMAP_HIGH_START 0x100000000ull
/* Less than this cannot hold the low structures and anything to run. */
#define MEMMAP_RAM_MIN MIB(2)
#define MEMMAP_RAM_MAX (BIT(46) - GIB(1))

#define MEMMAP_LOW_END	   0x9fc00ull /* usable RAM below 640 KiB ends, the (empty) EBDA starts */
#define MEMMAP_ROM_START   0xe0000ull /* firmware tables, reserved in the e820 map */
#define MEMMAP_ACPI	   0xe0000ull /* RSDP first, then the other tables */
#define MEMMAP_ACPI_END	   0xf0000ull
#define MEMMAP_SMBIOS	   0xf0000ull
#define MEMMAP_SMBIOS_END  0xf8000ull
#define MEMMAP_MPTABLE	   0xf8000ull
#define MEMMAP_MPTABLE_END 0xff000ull
#define MEMMAP_STUBS	   0xff000ull /* real-mode interrupt handlers, in one segment 0xf000 */
#define MEMMAP_HIMEM	   0x100000ull

/*
 * What the boot loader writes below 640 KiB. Page 1 and 0x8000 to 0xda30 stay free: bare-metal
 * payloads load or start processors there.
 */
#define MEMMAP_BOOT_GDT	    0x600ull
#define MEMMAP_BOOT_PARAMS  0x10000ull /* the zero page, or the start info of PVH and multiboot */
#define MEMMAP_BOOT_PGTABLE 0x12000ull /* six pages: 4 GiB, identity, 2-MiB pages */
#define MEMMAP_BOOT_STACK   0x1f000ull /* initial stack pointer; what enters sets its own at once */
#define MEMMAP_CMDLINE	    0x20000ull
#define MEMMAP_CMDLINE_MAX  0x10000ull /* with the NUL */

#define MEMMAP_IOAPIC 0xfec00000ull
#define MEMMAP_LAPIC  0xfee00000ull

/* The e820 types that a map of ours uses; multiboot and PVH have the same numbers. */
enum memmap_type { MEMMAP_RAM = 1, MEMMAP_RESERVED = 2 };

struct memmap_entry {
	uint64_t addr, len;
	enum memmap_type type;
};

#define MEMMAP_ENTRIES_MAX 8

/* Split @total bytes of RAM at the hole. -EINVAL unless whole pages between the two limits. */
int memmap_split(uint64_t total, uint64_t *below_4g, uint64_t *above_4g);
/* The map as a guest is to be told it, ascending. Returns the number of entries. */
unsigned memmap_e820(uint64_t below_4g, uint64_t above_4g,
		     struct memmap_entry out[MEMMAP_ENTRIES_MAX]);

#endif
