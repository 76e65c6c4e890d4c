/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Micro benchmark of the processor: guest instructions a second, nanoseconds a memory access. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cpu/cpu_internal.h"
#include "tests/unit/cpu/common/tiny.h"

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* One payload. accesses: memory accesses a loop turn that the table is about, 0 for none. */
struct bench {
	const char *name;
	const char *code;
	unsigned len;
	uint64_t rbx, r8;    /* what the code wants */
	unsigned turn;       /* instructions a turn */
	unsigned accesses;
	unsigned ept_shift;
	bool small_pages;    /* guest 4 KiB pages */
	bool user;           /* at CPL 3, with SYSCALL going to a SWAPGS; SWAPGS; SYSRET */
	bool alias;          /* that all map to a few: what a TLB miss costs without the host's */
};

#define CODE(s) s, sizeof(s) - 1

static const struct bench benches[] = {
	/* l: add rax,rbx; xor rdx,rax; lea rsi,[rax+rdx]; shl rsi,3; sub rdi,rsi; dec rcx; jnz l */
	{"integer loop", CODE("\x48\x01\xd8\x48\x31\xc2\x48\x8d\x34\x10\x48\xc1\xe6\x03\x48\x29\xf7\x48\xff\xc9\x75\xea\xf4"),
	 1, 0, 7, 0, 21, false},
	/* l: dec rcx; jnz l */
	{"dec/jnz", CODE("\x48\xff\xc9\x75\xfb\xf4"), 0, 0, 2, 0, 21, false},
	/* l: add rax,[rbx]; add rbx,8; and rbx,0x2fffff; or rbx,0x200000; dec rcx; jnz l */
	{"memory walk 1 MiB", CODE("\x48\x03\x03\x48\x83\xc3\x08\x81\xe3\xff\xff\x2f\x00\x81\xcb\x00\x00\x20\x00\x48\xff\xc9\x75\xe8\xf4"),
	 TINY_DATA, 0, 6, 1, 21, false},
	/* l: mov [rbx],rax; mov rdx,[rbx]; add rdx,rax; mov [rbx+8],rdx; dec rcx; jnz l */
	{"load/store", CODE("\x48\x89\x03\x48\x8b\x13\x48\x01\xc2\x48\x89\x53\x08\x48\xff\xc9\x75\xee\xf4"), TINY_DATA, 0, 6,
	 3, 21, false},
	/* l: call f; dec rcx; jnz l; hlt; f: inc rax; ret */
	{"call/ret", CODE("\xe8\x06\x00\x00\x00\x48\xff\xc9\x75\xf6\xf4\x48\xff\xc0\xc3"), 0, 0, 5, 0, 21, false},
	/* l: lea rdx,[rip+2]; jmp rdx; dec rcx; jnz l (the jmp goes to the next instruction) */
	{"indirect jump", CODE("\x48\x8d\x15\x02\x00\x00\x00\xff\xe2\x48\xff\xc9\x75\xf2\xf4"), 0, 0, 4, 0, 21, false},
	/* push rax; pop rdx; pushes */
	{"push/pop", CODE("\x50\x53\x5a\x5e\x48\xff\xc9\x75\xf7\xf4"), 0, 0, 6, 4, 21, false},
	/* two streams 32 MiB apart: l: mov rax,[rbx]; add [rbx+0x2000000],rax; add rbx,64; and ebx,0x1ffffff; or ebx,0x2000000; dec; jnz */
	{"streams 32 MiB apart", CODE("\x48\x8b\x03\x48\x01\x83\x00\x00\x00\x02\x48\x83\xc3\x40\x81\xe3\xff\xff\xff\x03\x81\xcb\x00\x00\x00\x02\x48\xff\xc9\x75\xe1\xf4"),
	 MIB(32), 0, 7, 2, 12, true},
	/* random: l: imul r8,r8,1103515245 ; add r8,12345; mov eax,r8d; and eax,0x3ffffff; mov rdx,[rax+rbx]; dec rcx; jnz l */
	{"random 64 MiB, 4K/4K", CODE("\x4d\x69\xc0\x6d\x4e\xc6\x41\x49\x81\xc0\x39\x30\x00\x00\x44\x89\xc0\xc1\xe8\x04\x25\xf8\xff\xff\x03\x48\x8b\x14\x18\x48\xff\xc9\x75\xde\xf4"),
	 MIB(64), 1, 8, 1, 12, true},
	{"random 64 MiB, 2M/2M", CODE("\x4d\x69\xc0\x6d\x4e\xc6\x41\x49\x81\xc0\x39\x30\x00\x00\x44\x89\xc0\xc1\xe8\x04\x25\xf8\xff\xff\x03\x48\x8b\x14\x18\x48\xff\xc9\x75\xde\xf4"),
	 MIB(64), 1, 8, 1, 21, false},
	/* l: syscall; dec rbx; jnz l; then CPL 3's HLT is #GP */
	{"syscall/sysret", CODE("\x0f\x05\x48\xff\xcb\x75\xf9\xf4"), 0, 0, 6, 0, 21, false, true},
	/* l: cli; sti; nop; dec rcx; jnz l */
	{"cli/sti", CODE("\xfa\xfb\x90\x48\xff\xc9\x75\xf8\xf4"), 0, 0, 5, 0, 21},
	/* l: mov cr3, rax; mov (rbx), rdx; dec rcx; jnz l, no PCIDs */
	{"mov cr3 + load", CODE("\x0f\x20\xd8\x0f\x22\xd8\x48\x8b\x13\x48\xff\xc9\x75\xf2\xf4"), TINY_DATA, 0, 5, 1, 12},
	/* l: invlpg (rbx); mov (rbx), rdx; dec rcx; jnz l */
	{"invlpg + load", CODE("\x0f\x01\x3b\x48\x8b\x13\x48\xff\xc9\x75\xf5\xf4"), TINY_DATA, 0, 4, 1, 12},
	{"random 64 MiB, aliased", CODE("\x4d\x69\xc0\x6d\x4e\xc6\x41\x49\x81\xc0\x39\x30\x00\x00\x44\x89\xc0\xc1\xe8\x04\x25\xf8\xff\xff\x03\x48\x8b\x14\x18\x48\xff\xc9\x75\xde\xf4"),
	 MIB(64), 1, 8, 1, 12, true, false, true},
	{"random 16 MiB, aliased", CODE("\x4d\x69\xc0\x6d\x4e\xc6\x41\x49\x81\xc0\x39\x30\x00\x00\x44\x89\xc0\xc1\xe8\x04\x25\xf8\xff\xff\x00\x48\x8b\x14\x18\x48\xff\xc9\x75\xde\xf4"),
	 MIB(64), 1, 8, 1, 12, true, false, true},
	{"random 512 KiB, aliased", CODE("\x4d\x69\xc0\x6d\x4e\xc6\x41\x49\x81\xc0\x39\x30\x00\x00\x44\x89\xc0\xc1\xe8\x04\x25\xf8\xff\x07\x00\x48\x8b\x14\x18\x48\xff\xc9\x75\xde\xf4"),
	 MIB(64), 1, 8, 1, 12, true, false, true},
};

/* Split the identity map's large pages, tables at 144 MiB. */
static void split_pages(struct tiny *t, bool alias)
{
	uint64_t pt = MIB(144);

	for (uint64_t n = 0; n < 72; n++, pt += 4096) {
		uint64_t e = pt | 7;

		memcpy(t->mem + TINY_PML4 + 0x2000 + n * 8, &e, 8);
		for (uint64_t k = 0; k < 512; k++) {
			e = (n << 21 | k << 12) | 7;
			if (alias && n >= 16)
				e = (MIB(32) + (k & 15) * 4096) | 7;
			memcpy(t->mem + pt + k * 8, &e, 8);
		}
	}
}

static double measure(const struct bench *b, uint64_t turns)
{
	struct tiny *t = tiny_create(MIB(160), b->ept_shift);
	double start, ret_seconds;

	tiny_mode(t, TINY_LONG, b->user ? 3 : 0);
	if (b->user) {
		memcpy(t->mem + TINY_CODE + 0x800, "\x0f\x01\xf8\x0f\x01\xf8\x48\x0f\x07", 9);
		t->s->lstar = TINY_CODE + 0x800;
		t->s->star = (uint64_t)(TINY_CS64_3 - 16 + 3) << 48 | (uint64_t)TINY_CS64 << 32;
		t->s->gpr[X86_RBX] = turns;
		t->c->exception_bitmap = ~0u;
		cpu_state_changed(t->cpu);
	}
	if (b->small_pages)
		split_pages(t, b->alias);
	memset(t->mem + MIB(32), 1, MIB(96));
	tiny_code(t, b->code, b->len);
	if (b->rbx)
		t->s->gpr[X86_RBX] = b->rbx;
	t->s->gpr[X86_R8] = b->r8;
	t->s->gpr[X86_RCX] = turns;
	start = now();
	if (tiny_run(t, ~0ull >> 1) != (b->user ? CPU_EXIT_EXCEPTION : CPU_EXIT_HLT))
		printf("%s: left with %s\n", b->name, cpu_exit_name(cpu_exit(t->cpu)->reason));
	ret_seconds = now() - start;
	tiny_destroy(t);
	return ret_seconds;
}

int main(void)
{
	for (unsigned n = 0; n < ARRAY_SIZE(benches); n++) {
		const struct bench *b = &benches[n];
		uint64_t turns = b->user || b->turn == 5 || b->turn == 4 ? 5000000 : 20000000;
		double s = measure(b, turns);

		printf("%-24s %8.1f Minsn/s", b->name, (double)turns * b->turn / s / 1e6);
		if (b->accesses)
			printf("  %6.2f ns/turn, %u access(es)", s / (double)turns * 1e9, b->accesses);
		printf("\n");
	}
	return 0;
}
