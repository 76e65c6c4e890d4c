/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One instruction on the host's own processor, by way of signal frames. */
#include "tests/diff/diff.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/*
 * SIGUSR1's handler keeps the frame it was given (home) and returns into the test's registers instead,
 * with the trap flag set or an INT3 behind the instruction. The instruction ends in a trap or a fault;
 * that signal's handler takes the registers out of its frame and returns home. Signal frames hold no
 * DS, ES, FS, GS, nor FS' base, which is the program's own too: from the end of the first handler to
 * the start of the second they are the test's.
 */
static struct {
	const struct diff_case *c;
	struct diff_result *r;
	gregset_t home;
	uint8_t home_fx[416];
	uint64_t home_fs;
	uint8_t *code, *data; /* the same frames, writable */
} now;

static uint8_t alt_stack[65536] __attribute__((aligned(64)));

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static void set_ldt(unsigned entry, const struct diff_ldt *e)
{
	struct user_desc d = {
		.entry_number = entry,
		.base_addr = e->base,
		.limit = e->limit,
		.limit_in_pages = e->pages,
		.seg_32bit = e->is32,
		.contents = e->contents,
		.read_exec_only = e->read_only,
		.seg_not_present = e->absent,
	};

	if (syscall(SYS_modify_ldt, 0x11, &d, sizeof(d))) {
		perror("modify_ldt");
		exit(77);
	}
}

static void clear_flags(void)
{
	__asm__ volatile("pushfq; andq $~0x244000,(%%rsp); popfq; cld" ::: "memory", "cc");
}

static uint64_t rdfsbase(void)
{
	uint64_t v;

	__asm__ volatile("rdfsbase %0" : "=r"(v));
	return v;
}

static uint64_t rdgsbase(void)
{
	uint64_t v;

	__asm__ volatile("rdgsbase %0" : "=r"(v));
	return v;
}

#define YMM_AT 576 /* of the upper halves in the signal frame's XSAVE area */

static void on_start(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
	const struct diff_regs *regs = &now.c->regs;
	uint64_t cs = now.c->seg[X86_CS].sel, ss = now.c->seg[X86_SS].sel;

	memcpy(now.home, g, sizeof(now.home));
	memcpy(now.home_fx, fx, sizeof(now.home_fx));
	for (unsigned k = 0; k < 16; k++)
		g[greg_of[k]] = (greg_t)regs->gpr[k];
	g[REG_RIP] = (greg_t)regs->rip;
	g[REG_EFL] = (greg_t)(regs->rflags | (now.c->traced ? X86_FLAG_TF : 0));
	g[REG_CSGSFS] = (greg_t)(((uint64_t)g[REG_CSGSFS] & 0x0000ffffffff0000) | cs | ss << 48);
	memcpy(fx, &regs->fx, sizeof(now.home_fx));
	*(uint64_t *)(fx + 512) |= 3; /* XSTATE_BV: x87 and SSE are given */
	if (diff_soft_shows(ZYDIS_ISA_SET_AVX)) {
		*(uint64_t *)(fx + 512) |= X86_XCR0_AVX;
		memcpy(fx + YMM_AT, regs->ymmh, sizeof(regs->ymmh));
	}
	now.home_fs = rdfsbase();
	__asm__ volatile("mov %0,%%ds; mov %1,%%es; mov %2,%%fs; mov %3,%%gs" ::"r"(
				 (uint32_t)now.c->seg[X86_DS].sel),
			 "r"((uint32_t)now.c->seg[X86_ES].sel), "r"((uint32_t)now.c->seg[X86_FS].sel),
			 "r"((uint32_t)now.c->seg[X86_GS].sel));
	if (now.c->mode == DIFF_64)
		__asm__ volatile("wrfsbase %0; wrgsbase %1" ::"r"(now.c->seg[X86_FS].base),
				 "r"(now.c->seg[X86_GS].base));
}

static void take_segments(struct diff_result *r, const greg_t *g)
{
	uint32_t sel[6] = {0};

	__asm__ volatile("mov %%ds,%0; mov %%es,%1; mov %%fs,%2; mov %%gs,%3"
			 : "=r"(sel[X86_DS]), "=r"(sel[X86_ES]), "=r"(sel[X86_FS]), "=r"(sel[X86_GS]));
	sel[X86_CS] = (uint16_t)g[REG_CSGSFS];
	sel[X86_SS] = (uint16_t)((uint64_t)g[REG_CSGSFS] >> 48);
	for (unsigned k = 0; k < 6; k++)
		r->sel[k] = (uint16_t)sel[k];
	r->fs_base = rdfsbase();
	r->gs_base = rdgsbase();
}

static void on_end(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
	struct diff_regs *regs;

	clear_flags();
	if (!now.r) {
		signal(sig, SIG_DFL);
		return;
	}
	take_segments(now.r, g);
	__asm__ volatile("mov %0,%%ds; mov %0,%%es; mov %0,%%fs; mov %0,%%gs; wrfsbase %1" ::"r"(0),
			 "r"(now.home_fs));
	regs = &now.r->regs;
	for (unsigned k = 0; k < 16; k++)
		regs->gpr[k] = (uint64_t)g[greg_of[k]];
	regs->rip = (uint64_t)g[REG_RIP];
	regs->rflags = (uint64_t)g[REG_EFL];
	memset(&regs->fx, 0, sizeof(regs->fx));
	memcpy(&regs->fx, fx, sizeof(now.home_fx));
	memset(regs->ymmh, 0, sizeof(regs->ymmh));
	if (diff_soft_shows(ZYDIS_ISA_SET_AVX) && *(uint64_t *)(fx + 512) & X86_XCR0_AVX)
		memcpy(regs->ymmh, fx + YMM_AT, sizeof(regs->ymmh));
	now.r->vector = (uint8_t)g[REG_TRAPNO];
	now.r->error = (uint32_t)g[REG_ERR];
	now.r->cr2 = (uint64_t)g[REG_CR2];
	memcpy(g, now.home, sizeof(now.home));
	memcpy(fx, now.home_fx, sizeof(now.home_fx));
	*(uint64_t *)(fx + 512) |= 3;
	now.r = NULL;
}

/* At @addr with @prot, and where the result says to write. Present and dirty for good. */
static uint8_t *map_twice(uint32_t addr, unsigned pages, unsigned writable, int prot)
{
	size_t len = pages * 4096;
	int fd = memfd_create("diff", 0);
	void *at = (void *)(uintptr_t)addr, *p, *w;

	if (fd < 0 || ftruncate(fd, (off_t)len))
		goto bad;
	p = mmap(at, len, PROT_READ | PROT_WRITE | prot, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE,
		 fd, 0);
	w = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	close(fd);
	if (p != at || w == MAP_FAILED)
		goto bad;
	memset(p, 0, len);
	if (writable < pages)
		mprotect((uint8_t *)p + writable * 4096, len - writable * 4096, prot | PROT_READ);
	mlock(p, len);
	for (unsigned k = 0; k < pages; k++)
		(void)*((volatile uint8_t *)p + k * 4096);
	return w;
bad:
	perror("mmap");
	exit(77);
}

void diff_native_init(void)
{
	static const int ends[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
	stack_t ss = {.ss_sp = alt_stack, .ss_size = sizeof(alt_stack)};
	struct sigaction sa = {.sa_sigaction = on_start, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	if (!(getauxval(AT_HWCAP2) & BIT(1))) {
		fprintf(stderr, "the host's kernel has no FSGSBASE\n");
		exit(77);
	}
	now.code = map_twice(DIFF_CODE, DIFF_CODE_PAGES, 0, PROT_EXEC);
	now.data = map_twice(DIFF_DATA, DIFF_DATA_PAGES, DIFF_DATA_RW, 0);
	sigaltstack(&ss, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_sigaction = on_end;
	for (unsigned k = 0; k < ARRAY_SIZE(ends); k++)
		sigaction(ends[k], &sa, NULL);
	for (unsigned k = 0; k < DIFF_LDT_ENTRIES; k++)
		set_ldt(k, &diff_ldt[k]);
}

void diff_native_run(const struct diff_case *c, struct diff_result *r)
{
	uint64_t lin = c->regs.rip + (c->mode == DIFF_64 ? 0 : c->seg[X86_CS].base);

	memcpy(now.data, c->data, sizeof(c->data));
	memcpy(now.code + (lin - DIFF_CODE), c->bytes, c->len);
	if (!c->traced)
		now.code[lin - DIFF_CODE + c->len] = 0xcc;
	now.c = c;
	now.r = r;
	/* What sigreturn does not give back. */
	__asm__ volatile("pushfq; orq %0,(%%rsp); popfq" ::"r"(c->regs.rflags & (X86_FLAG_NT | X86_FLAG_ID))
			 : "memory", "cc");
	raise(SIGUSR1);
	memcpy(r->data, now.data, sizeof(r->data));
	if (!c->traced && r->vector == X86_VEC_BP && r->regs.rip == c->regs.rip + c->len + 1) {
		r->vector = X86_VEC_DB;
		r->regs.rip--;
	}
}
