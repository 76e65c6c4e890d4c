/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Paging as 32-bit systems have it: 4-MiB pages, and PAE. */
#include "payload.inc"

	.set ALIAS, 0x40000000	/* shows the first memory here too */
	.set CR0_PG, 1 << 31
	.set CR4_PSE, 1 << 4
	.set CR4_PAE, 1 << 5

main:
	lgdt gdt_pointer
	ljmp $8, $1f
1:	mov $16, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss

	/* 32-bit paging with 4-MiB pages: itself, and the alias. */
	mov $tables, %edi
	call clear
	movl $0x83, tables
	movl $0x83, tables + (ALIAS >> 22) * 4
	mov %cr4, %eax
	or $CR4_PSE, %eax
	mov %eax, %cr4
	call paging_on
	mov $ppse, %esi
	call look
	call paging_off

	/* PAE: the pointers, a directory each for the first and second GiB. */
	mov $tables, %edi
	call clear
	movl $tables + 0x1001, tables
	movl $tables + 0x2001, tables + 8
	movl $0x83, tables + 0x1000
	movl $0x83, tables + 0x2000
	mov %cr4, %eax
	and $~CR4_PSE, %eax
	or $CR4_PAE, %eax
	mov %eax, %cr4
	call paging_on
	mov $ppae, %esi
	call look
	call paging_off

	jmp poweroff

paging_on:
	mov $tables, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $CR0_PG, %eax
	mov %eax, %cr0
	ret
paging_off:
	mov %cr0, %eax
	and $~CR0_PG, %eax
	mov %eax, %cr0
	ret

/* Four tables. */
clear:
	xor %eax, %eax
	mov $4096, %ecx
	rep stosl
	ret

/* What is written at an address is read at its alias. */
look:
	call print
	movl $0, probe
	movl $0x5eed, ALIAS + probe
	mov probe, %eax
	mov $50, %ecx
	steps
	mov %eax, probe
	mov ALIAS + probe, %eax
	jmp write_hex

	.data
	.align 8
gdt:	.quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
	.word . - gdt - 1
	.long gdt
probe:	.long 0
ppse:	.asciz "paging, 4-MiB pages: "
ppae:	.asciz "PAE: "
	.bss
	.align 4096
tables:	.skip 4 * 4096
