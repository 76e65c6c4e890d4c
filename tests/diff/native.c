/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One instruction on the host's own processor, by way of signal frames. */
#include "tests/diff/diff.h"

#include <asm/ldt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/*
 * SIGUSR1's handler keeps the frame it was given (home) and returns into the test's registers instead,
 * with the trap flag set. The instruction ends in a trap or a fault; that signal's handler takes the
 * registers out of its frame and returns home.
 */
static struct {
	const struct diff_case *c;
	struct diff_result *r;
	gregset_t home;
	uint8_t home_fx[416];
} now;

static uint8_t alt_stack[65536] __attribute__((aligned(64)));

enum { LDT_CODE32 = 0, LDT_CODE16, LDT_DATA32, LDT_DATA16 };
#define LDT_SEL(n) ((uint16_t)((n) << 3 | 7))

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

uint16_t diff_native_selector(enum diff_mode mode, unsigned seg)
{
	uint16_t ss = 0;

	if (seg == X86_CS)
		return mode == DIFF_64 ? 0x33 : LDT_SEL(mode == DIFF_32 ? LDT_CODE32 : LDT_CODE16);
	if (seg == X86_FS || seg == X86_GS)
		return 0;
	if (mode != DIFF_64)
		return LDT_SEL(mode == DIFF_32 ? LDT_DATA32 : LDT_DATA16);
	__asm__("mov %%ss,%0" : "=r"(ss));
	return seg == X86_SS ? ss : 0;
}

static void set_ldt(unsigned entry, uint32_t base, uint32_t limit_pages, bool is_code, bool is32)
{
	struct user_desc d = {
		.entry_number = entry,
		.base_addr = base,
		.limit = limit_pages ? limit_pages : 0xffff,
		.limit_in_pages = limit_pages != 0,
		.seg_32bit = is32,
		.contents = is_code ? MODIFY_LDT_CONTENTS_CODE : MODIFY_LDT_CONTENTS_DATA,
		.read_exec_only = 0,
	};

	if (syscall(SYS_modify_ldt, 0x11, &d, sizeof(d))) {
		perror("modify_ldt");
		exit(77);
	}
}

static void clear_ac(void)
{
	__asm__ volatile("pushfq; andq $~0x40000,(%%rsp); popfq; cld" ::: "memory", "cc");
}

static void on_start(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
	const struct diff_regs *regs = &now.c->regs;
	uint64_t cs = diff_native_selector(now.c->mode, X86_CS);
	uint64_t ss = diff_native_selector(now.c->mode, X86_SS);

	memcpy(now.home, g, sizeof(now.home));
	memcpy(now.home_fx, fx, sizeof(now.home_fx));
	for (unsigned k = 0; k < 16; k++)
		g[greg_of[k]] = (greg_t)regs->gpr[k];
	g[REG_RIP] = (greg_t)regs->rip;
	g[REG_EFL] = (greg_t)(regs->rflags | X86_FLAG_TF);
	g[REG_CSGSFS] = (greg_t)(((uint64_t)g[REG_CSGSFS] & 0x0000ffffffff0000) | cs | ss << 48);
	memcpy(fx, &regs->fx, sizeof(now.home_fx));
	*(uint64_t *)(fx + 512) |= 3; /* XSTATE_BV: x87 and SSE are given */
}

static void on_end(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
	struct diff_regs *regs;

	clear_ac();
	if (!now.r) {
		signal(sig, SIG_DFL);
		return;
	}
	regs = &now.r->regs;
	for (unsigned k = 0; k < 16; k++)
		regs->gpr[k] = (uint64_t)g[greg_of[k]];
	regs->rip = (uint64_t)g[REG_RIP];
	regs->rflags = (uint64_t)g[REG_EFL];
	memset(&regs->fx, 0, sizeof(regs->fx));
	memcpy(&regs->fx, fx, sizeof(now.home_fx));
	now.r->vector = (uint8_t)g[REG_TRAPNO];
	now.r->error = (uint32_t)g[REG_ERR];
	now.r->cr2 = (uint64_t)g[REG_CR2];
	memcpy(g, now.home, sizeof(now.home));
	memcpy(fx, now.home_fx, sizeof(now.home_fx));
	*(uint64_t *)(fx + 512) |= 3;
	now.r = NULL;
}

static void *map_at(uint32_t addr, size_t len)
{
	void *p = mmap((void *)(uintptr_t)addr, len, PROT_READ | PROT_WRITE | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(77);
	}
	return p;
}

void diff_native_init(void)
{
	static const int ends[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
	stack_t ss = {.ss_sp = alt_stack, .ss_size = sizeof(alt_stack)};
	struct sigaction sa = {.sa_sigaction = on_start, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	map_at(DIFF_CODE, DIFF_CODE_PAGES * 4096);
	map_at(DIFF_DATA, DIFF_DATA_PAGES * 4096);
	mprotect((void *)(uintptr_t)DIFF_DATA, DIFF_DATA_PAGES * 4096, PROT_READ | PROT_WRITE);
	sigaltstack(&ss, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_sigaction = on_end;
	for (unsigned k = 0; k < ARRAY_SIZE(ends); k++)
		sigaction(ends[k], &sa, NULL);
	set_ldt(LDT_CODE32, 0, 0xfffff, true, true);
	set_ldt(LDT_CODE16, DIFF_CODE, 0, true, false);
	set_ldt(LDT_DATA32, 0, 0xfffff, false, true);
	set_ldt(LDT_DATA16, DIFF_DATA, 0, false, false);
}

void diff_native_run(const struct diff_case *c, struct diff_result *r)
{
	uint8_t *data = (uint8_t *)(uintptr_t)DIFF_DATA;
	uint64_t base = c->mode == DIFF_16 ? DIFF_CODE : 0;
	void *ro = data + DIFF_DATA_RW * 4096;
	size_t ro_len = (DIFF_DATA_PAGES - DIFF_DATA_RW) * 4096;
	uint16_t ds = diff_native_selector(c->mode, X86_DS);

	mprotect(ro, ro_len, PROT_READ | PROT_WRITE);
	memcpy(data, c->data, sizeof(c->data));
	mprotect(ro, ro_len, PROT_READ);
	memcpy((void *)(uintptr_t)(c->regs.rip + base), c->bytes, c->len);
	now.c = c;
	now.r = r;
	__asm__ volatile("mov %0,%%ds; mov %0,%%es" ::"r"((uint32_t)ds));
	raise(SIGUSR1);
	__asm__ volatile("mov %0,%%ds; mov %0,%%es" ::"r"(0));
	memcpy(r->data, data, sizeof(r->data));
}
