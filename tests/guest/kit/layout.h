/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What assembly and C of the payload kit agree on. */
#ifndef KIT_LAYOUT_H
#define KIT_LAYOUT_H

#define KIT_CPUS	8
#define KIT_STACK_SHIFT 14
#define KIT_STACK	(1 << KIT_STACK_SHIFT)
#define KIT_TRAMPOLINE	0x8000
/* kit_page() takes pages from here up to the end of RAM (below 3 GiB). */
#define KIT_HEAP 0x400000

#endif
