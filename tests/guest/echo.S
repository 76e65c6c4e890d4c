/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Echoes the console, one byte for one; "q" powers off, "x" writes 4096 lines. */
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
	cmp $'x', %al
	je flood
	call put
	jmp next

flood:
	mov $4096, %ecx
1:	mov $line, %esi
	call print
	loop 1b
	jmp next

text:	.asciz "ready\r\n"
line:	.asciz "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"
