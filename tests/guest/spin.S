/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A loop that never leaves guest mode by itself. */
#include "payload.inc"

main:
	mov $text, %esi
	call print
1:	inc %eax
	jmp 1b

text:	.asciz "spinning\r\n"
