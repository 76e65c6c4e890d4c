/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Through all modes of the processor and back, with something to work out in each: 32-bit and 16-bit
 * protected, real with a tick of the timer, 64-bit, compatibility. paging32.S has the paged 32-bit
 * ones.
 */
#include "payload.inc"

	.set LOW, 0x7000	/* where 16-bit code runs */
	.set ALIAS, 0x40000000	/* every kind of paging shows the first memory here too */
	.set CR0_PE, 1
	.set CR0_PG, 1 << 31
	.set CR4_PAE, 1 << 5
	.set EFER, 0xc0000080
	.set LME, 1 << 8

	.set CODE32, 8
	.set DATA32, 16
	.set CODE16, 24
	.set DATA16, 32
	.set CODE64, 40

main:
	lgdt gdt_pointer
	ljmp $CODE32, $1f
1:	mov $DATA32, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss

	mov $p32, %esi
	call print
	mov $1, %eax
	mov $100, %ecx
	steps
	call write_hex

	/* 16-bit code and the real mode's vectors. */
	mov $low_start, %esi
	mov $LOW, %edi
	mov $low_end - low_start, %ecx
	rep movsb
	mov %esp, saved_esp
	ljmp $CODE16, $(protected16 - low_start)

back:	mov $DATA32, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov saved_esp, %esp
	mov $p16, %esi
	call print
	mov LOW + result16 - low_start, %eax
	call write_hex
	mov $preal, %esi
	call print
	mov LOW + result_real - low_start, %eax
	call write_hex
	mov $pticks, %esi
	call print
	movzwl LOW + ticks - low_start, %eax
	cmp $2, %eax
	setae %al
	movzbl %al, %eax
	call write_hex
	mov $pint, %esi
	call print
	movzwl LOW + ints - low_start, %eax
	call write_hex

	/* Long mode: one level more. */
	mov $tables, %edi
	call clear
	movl $tables + 0x1003, tables
	movl $tables + 0x2003, tables + 0x1000
	movl $tables + 0x3003, tables + 0x1008
	movl $0x83, tables + 0x2000
	movl $0x83, tables + 0x3000
	mov $EFER, %ecx
	rdmsr
	or $LME, %eax
	wrmsr
	mov $tables, %eax
	mov %eax, %cr3
	mov %cr4, %eax
	or $CR4_PAE, %eax
	mov %eax, %cr4
	call paging_on
	mov $pcompat, %esi
	call look
	ljmp $CODE64, $in64
from64:	call paging_off
	mov $EFER, %ecx
	rdmsr
	and $~LME, %eax
	wrmsr
	mov $pend, %esi
	call print
	mov $3, %eax
	mov $1000, %ecx
	steps
	call write_hex
	jmp poweroff

paging_on:
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

	.code64
in64:
	mov $probe, %esi
	lea ALIAS(%rsi), %rdi
	mov $0x123456789abcdef, %rax
	mov $200, %ecx
1:	imul $0x5851f42d, %rax, %rax
	rol $13, %rax
	lea 77(%rax, %rcx, 8), %rax
	bswap %rax
	mov %rax, %r9
	xor %r9, (%rdi)
	loop 1b
	mov (%rsi), %rax
	mov %rax, %rbx
	shr $32, %rbx
	xor %ebx, %eax
	mov %eax, 8(%rsi)
	push $CODE32
	lea 1f(%rip), %rax
	push %rax
	lretq
	.code32
1:	mov $p64, %esi
	call print
	mov result64, %eax
	call write_hex
	jmp from64

/* ---- 16-bit; copied to LOW, and assembled for there ---- */
	.code16
low_start:
protected16:
	mov $DATA16, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $0xf00, %sp
	mov $2, %eax
	mov $60, %ecx
	steps
	mov %eax, result16 - low_start
	push %ax
	call 1f
1:	pop %bx
	pop %cx
	mov %cr0, %eax
	and $~CR0_PE, %eax
	mov %eax, %cr0
	ljmp $LOW >> 4, $(real - low_start)
real:
	mov $LOW >> 4, %ax
	mov %ax, %ds
	mov %ax, %ss
	mov $0xf00, %sp
	xor %ax, %ax
	mov %ax, %es
	/* The timer's vector as firmware leaves it, and one of our own. */
	movw $tick - low_start, %es:8 * 4
	movw $LOW >> 4, %es:8 * 4 + 2
	movw $service - low_start, %es:0x60 * 4
	movw $LOW >> 4, %es:0x60 * 4 + 2
	lidt real_idt - low_start
	mov $5, %ax
	mov $7, %bx
	int $0x60
	int $0x60
	mov %ax, ints - low_start
	mov $4, %eax
	mov $70, %ecx
	steps
	/* Segments, string instructions, a far call. */
	mov $0x2000, %cx
	mov %cx, %es
	xor %di, %di
	mov $16, %cx
	rep stosl
	add %es:60, %eax
	lcall $LOW >> 4, $(far - low_start)
	mov %eax, result_real - low_start
2:	sti
	hlt
	cli
	cmpw $2, ticks - low_start
	jb 2b
	mov %cr0, %eax
	or $CR0_PE, %eax
	mov %eax, %cr0
	ljmpl $CODE32, $back

far:	aaa
	aam
	xchg %al, %ah
	daa
	lret

tick:	push %ax
	incw %cs:ticks - low_start
	mov $0x20, %al
	out %al, $0x20
	pop %ax
	iret

service:
	xchg %ax, %bx
	shl $4, %ax
	or %bl, %al
	iret

	.align 4
result16:
	.long 0
result_real:
	.long 0
ticks:	.word 0
ints:	.word 0
real_idt:
	.word 0x3ff
	.long 0
low_end:
	.code32

	.data
	.align 8
gdt:	.quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
	.quad 0x00009a000000ffff + (LOW << 16), 0x000092000000ffff + (LOW << 16), 0x00af9a000000ffff
gdt_pointer:
	.word . - gdt - 1
	.long gdt
saved_esp:
	.long 0
probe:	.quad 0
result64: /* behind it */
	.long 0
p32:	.asciz "protected, 32 bits: "
p16:	.asciz "protected, 16 bits: "
preal:	.asciz "real: "
pticks:	.asciz "ticks in real mode: "
pint:	.asciz "software interrupts: "
pcompat:.asciz "compatibility mode: "
p64:	.asciz "64 bits: "
pend:	.asciz "protected again: "
	.bss
	.align 4096
tables:	.skip 4 * 4096
