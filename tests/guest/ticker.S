/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Its own clock, the interval timer at 100 Hz, counts; every tenth tick it writes the count and a
 * line's end. The power button is not looked at; "q" powers off. */
#include "payload.inc"

	.set LSR, COM1 + 5
	.set DIVISOR, 11932

main:
	mov $text, %esi
	call print
	/* A flat code segment of our own, for the gates. */
	lgdt gdt_pointer
	ljmp $8, $1f
1:	mov $16, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	/* The gate of vector 32. */
	mov $tick, %eax
	mov %ax, idt + 32 * 8
	shr $16, %eax
	mov %ax, idt + 32 * 8 + 6
	movw $8, idt + 32 * 8 + 2
	movw $0x8e00, idt + 32 * 8 + 4
	lidt idt_pointer
	/* The 8259s: vectors from 32, only the timer. */
	mov $0x11, %al
	out %al, $0x20
	mov $32, %al
	out %al, $0x21
	mov $4, %al
	out %al, $0x21
	mov $1, %al
	out %al, $0x21
	mov $0xfe, %al
	out %al, $0x21
	/* Channel 0, a rate generator. */
	mov $0x34, %al
	out %al, $0x43
	mov $DIVISOR & 255, %al
	out %al, $0x40
	mov $DIVISOR >> 8, %al
	out %al, $0x40
	sti
2:	hlt
	mov $LSR, %dx
	in %dx, %al
	test $1, %al
	jz 2b
	mov $COM1, %dx
	in %dx, %al
	cmp $'q', %al
	jne 2b
	cli
	jmp poweroff

tick:
	pusha
	mov $0x20, %al
	out %al, $0x20
	incl count
	decl tenth
	jnz 1f
	movl $10, tenth
	mov count, %eax
	call write_hex
1:	popa
	iret

	.data
	.align 8
gdt:	.quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
	.word . - gdt - 1
	.long gdt
idt_pointer:
	.word 33 * 8 - 1
	.long idt
count:	.long 0
tenth:	.long 10
text:	.asciz "ticking\n"
	.bss
	.align 8
idt:	.skip 33 * 8
