/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* HLT in a loop with interrupts off, which nothing can end. */
#include "payload.inc"

main:
	mov $text, %esi
	call print
1:	cli
	hlt
	jmp 1b

text:	.asciz "halting\r\n"
