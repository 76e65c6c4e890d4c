/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A triple fault: no IDT, and an undefined instruction. */
#include "payload.inc"

main:
	mov $0x12345678, %ebx
	lidt none
	.globl fault
fault:
	ud2

none:	.word 0
	.long 0
