/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an exit costs: each piece of work is done in rounds of COUNT, and each round writes a line
 * to COM1, its name and TSC ticks: "scratch-out 00000000003d0900". 32-bit, flat, ring 0. "end" is
 * the last line.
 */
#include "../guest/payload.inc"

	.set ROUNDS, 100
	.set COUNT, 100
	.set WARM, 20			/* before each round: the line of the last one is being written */
	.set SCRATCH, COM1 + 7		/* a byte that the 16550 only keeps */
	.set NOBODY_PORT, 0xed
	.set NOBODY_MEMORY, 0xd0000000
	.set IOAPIC, 0xfec00000		/* its index register */

main:
	mov $pieces, %ebp
next_piece:
	mov (%ebp), %esi
	test %esi, %esi
	jz end
	mov $ROUNDS, %edi
round:
	mov $WARM, %ecx
1:	call *4(%ebp)
	loop 1b
	mov $COUNT, %ecx
	call ticks
	mov %eax, begin
	mov %edx, begin + 4
1:	call *4(%ebp)
	loop 1b
	call ticks
	sub begin, %eax
	sbb begin + 4, %edx
	push %eax
	push %edx
	mov (%ebp), %esi
	call print
	pop %eax
	call hex
	pop %eax
	call hex
	mov $'\n', %al
	call put
	dec %edi
	jnz round
	add $8, %ebp
	jmp next_piece

end:	mov $last, %esi
	call print
	jmp poweroff

/* %edx:%eax; not before all that stands before is done. */
ticks:
	lfence
	rdtsc
	ret

/* Eight digits of %eax. */
hex:
	mov %eax, %ebx
	mov $8, %ecx
1:	rol $4, %ebx
	mov %bl, %al
	and $15, %al
	cmp $10, %al
	jb 2f
	add $39, %al
2:	add $48, %al
	call put
	loop 1b
	ret

nothing:
	ret

scratch_out:
	mov $SCRATCH, %dx
	out %al, %dx
	ret

scratch_in:
	mov $SCRATCH, %dx
	in %dx, %al
	ret

nobody_out:
	out %al, $NOBODY_PORT
	ret

nobody_in:
	in $NOBODY_PORT, %al
	ret

memory_read:
	mov NOBODY_MEMORY, %eax
	ret

memory_write:
	mov %eax, NOBODY_MEMORY
	ret

ioapic_read:
	mov IOAPIC, %eax
	ret

ioapic_write:
	movl $0, IOAPIC
	ret

	.data
	.align 4
pieces:	.long 1f, nothing, 2f, scratch_out, 3f, scratch_in, 4f, nobody_out, 5f, nobody_in
	.long 6f, memory_read, 7f, memory_write, 8f, ioapic_read, 9f, ioapic_write, 0, 0
1:	.asciz "nothing "
2:	.asciz "scratch-out "
3:	.asciz "scratch-in "
4:	.asciz "nobody-out "
5:	.asciz "nobody-in "
6:	.asciz "memory-read "
7:	.asciz "memory-write "
8:	.asciz "ioapic-read "
9:	.asciz "ioapic-write "
last:	.asciz "end\n"
	.bss
	.align 8
begin:	.skip 8
