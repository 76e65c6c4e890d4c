/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest whose first instructions write a byte to the debug console, and which then idles. As an
 * ELF for multiboot, and with -DROM as a firmware, at whose end a processor begins.
 */
	.set DEBUGCON, 0xe9
	.set PIC_MASK, 0x21

	.macro first
	mov $'\n', %al		/* a console that keeps whole lines lets it go at once */
	out %al, $DEBUGCON
	mov $0xff, %al		/* there is no gate for an interrupt */
	out %al, $PIC_MASK
1:	sti
	hlt
	jmp 1b
	.endm

#ifdef ROM
	.set SIZE, 0x10000
	.set RESET, 0xfff0

	.code16
	.text
	.globl _start
	.org RESET
_start:
	first
	.org SIZE
#else
	.section .multiboot, "a"
	.align 4
	.long 0x1badb002, 0, -0x1badb002
	.text
	.globl _start
_start:
	first
#endif
