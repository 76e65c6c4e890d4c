/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asks for a reset, by the keyboard controller, and halts until it comes; the second time powers off. */
#include "payload.inc"

	.set AGAIN, 0x800000
	.set MAGIC, 0x72657365

main:
	cmpl $MAGIC, AGAIN
	je again
	movl $MAGIC, AGAIN
	mov $first, %esi
	call print
	mov $0xfe, %al
	out %al, $0x64
	cli
	hlt
	ud2
again:
	mov $second, %esi
	call print
	jmp poweroff

first:	.asciz "first\r\n"
second:	.asciz "second\r\n"
