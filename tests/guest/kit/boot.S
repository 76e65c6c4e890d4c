/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From multiboot's 32-bit state, or a start-up IPI's 16-bit one, to C in long mode. */
#include "kit/layout.h"

	.set CR0_PE, 1
	.set CR0_WP, 1 << 16
	.set CR0_PG, 1 << 31
	.set CR4_PAE, 1 << 5
	.set CR4_OSFXSR, 1 << 9
	.set EFER, 0xc0000080
	.set EFER_LME_NXE, 1 << 8 | 1 << 11

	.section .multiboot, "ax"
	.align 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.code32
	.globl _start
_start:
	mov %ebx, boot_info
	mov $kit_stacks + KIT_STACK, %esp
	call fill_tables
	xor %edi, %edi
	jmp to_long_mode

/* PML4[0] → four page directories: 4 GiB, identity, in 2-MiB pages. */
fill_tables:
	movl $pdpt + 3, kit_pml4
	mov $pds + 3, %eax
	mov $pdpt, %edi
	mov $4, %ecx
1:	mov %eax, (%edi)
	add $4096, %eax
	add $8, %edi
	loop 1b
	mov $0x83, %eax
	mov $pds, %edi
	mov $2048, %ecx
1:	mov %eax, (%edi)
	add $0x200000, %eax
	add $8, %edi
	loop 1b
	ret

/* %edi: the processor's number, %esp: its stack. */
to_long_mode:
	mov $CR4_PAE | CR4_OSFXSR, %eax
	mov %eax, %cr4
	mov $kit_pml4, %eax
	mov %eax, %cr3
	mov $EFER, %ecx
	rdmsr
	or $EFER_LME_NXE, %eax
	wrmsr
	mov $CR0_PG | CR0_WP | CR0_PE, %eax
	mov %eax, %cr0
	lgdt gdt_pointer
	ljmp $8, $long_mode

	.code64
long_mode:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	lidt kit_idt_pointer
	mov boot_info, %esi
	call kit_entry
	ud2

/* Copied to KIT_TRAMPOLINE, where a start-up IPI sends the others. */
	.code16
	.globl kit_trampoline, kit_trampoline_end
kit_trampoline:
	cli
	xor %ax, %ax
	mov %ax, %ds
	lgdtl KIT_TRAMPOLINE + (gdt_low - kit_trampoline)
	mov $CR0_PE, %eax
	mov %eax, %cr0
	ljmpl $24, $started
gdt_low:
	.word gdt_end - gdt - 1
	.long gdt
kit_trampoline_end:

	.code32
started:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $1, %edi
	lock xadd %edi, kit_started
	mov %edi, %esp
	inc %esp
	shl $KIT_STACK_SHIFT, %esp
	add $kit_stacks, %esp
	jmp to_long_mode

/* ---- exceptions: vector and error code on the stack, then C ---- */
	.code64
	.altmacro
	.macro stub n
stub_\n:
	.if \n == 8 || (\n >= 10 && \n <= 14) || \n == 17
	.else
	push $0
	.endif
	push $\n
	jmp exception
	.endm
	.set n, 0
	.rept 32
	stub %n
	.set n, n + 1
	.endr

exception:
	mov (%rsp), %edi
	mov 8(%rsp), %rsi
	mov 16(%rsp), %rdx
	mov %cr2, %rcx
	and $-16, %rsp
	call kit_exception
	ud2

	.section .rodata
	.globl kit_stubs
kit_stubs:
	.macro stub_address n
	.quad stub_\n
	.endm
	.set n, 0
	.rept 32
	stub_address %n
	.set n, n + 1
	.endr

	.data
	.align 8
gdt:	.quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.quad gdt
	.globl kit_started
kit_started:
	.long 1
boot_info:
	.long 0

	.bss
	.align 4096
	.globl kit_pml4
kit_pml4:
	.skip 4096
pdpt:	.skip 4096
pds:	.skip 4 * 4096
kit_stacks:
	.skip KIT_CPUS * KIT_STACK
