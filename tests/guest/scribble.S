/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes to memory as the console asks: a digit N writes page 0x800 + 16 * N and answers "N"; "l"
 * writes pages 0x1000 to 0x17ff round and round until the next byte; "q" powers off.
 */
#include "payload.inc"

	.set LSR, COM1 + 5

main:
	mov $text, %esi
	call print
next:
	mov $LSR, %dx
	in %dx, %al
	test $1, %al
	jz next
	mov $COM1, %dx
	in %dx, %al
	cmp $'q', %al
	je poweroff
	cmp $'l', %al
	je around
	movzbl %al, %ebx
	sub $'0', %ebx
	cmp $9, %ebx
	ja next
	shl $16, %ebx
	incl 0x800000(%ebx)
	call put
	jmp next

around:
	call put
1:	mov $0x1000000, %edi
	mov $0x800, %ecx
2:	incl (%edi)
	add $0x1000, %edi
	loop 2b
	mov $LSR, %dx
	in %dx, %al
	test $1, %al
	jz 1b
	jmp next

text:	.asciz "ready\r\n"
