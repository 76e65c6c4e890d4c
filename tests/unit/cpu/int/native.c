/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host's side of the comparison: a trampoline that loads all registers, and a signal handler. */
#include "native.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

/* Offsets are in the assembly below. */
struct native_frame {
	uint64_t gpr[16];
	uint64_t rflags;
	uint64_t host_rsp;
	uint64_t code;
} native_frame __attribute__((visibility("hidden")));

void native_enter(void);
void native_exit(void);
void native_abort(void);

__asm__(".text\n"
	".globl native_enter, native_exit, native_abort\n"
	".hidden native_enter, native_exit, native_abort\n"
	"native_enter:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp,native_frame+136(%rip)\n"
	"	push native_frame+128(%rip)\n	popf\n"
	"	mov native_frame+0(%rip),%rax\n	mov native_frame+8(%rip),%rcx\n"
	"	mov native_frame+16(%rip),%rdx\n	mov native_frame+24(%rip),%rbx\n"
	"	mov native_frame+32(%rip),%rsp\n	mov native_frame+40(%rip),%rbp\n"
	"	mov native_frame+48(%rip),%rsi\n	mov native_frame+56(%rip),%rdi\n"
	"	mov native_frame+64(%rip),%r8\n	mov native_frame+72(%rip),%r9\n"
	"	mov native_frame+80(%rip),%r10\n	mov native_frame+88(%rip),%r11\n"
	"	mov native_frame+96(%rip),%r12\n	mov native_frame+104(%rip),%r13\n"
	"	mov native_frame+112(%rip),%r14\n	mov native_frame+120(%rip),%r15\n"
	"	jmp *native_frame+144(%rip)\n"
	"native_exit:\n"
	"	mov %rax,native_frame+0(%rip)\n	mov %rcx,native_frame+8(%rip)\n"
	"	mov %rdx,native_frame+16(%rip)\n	mov %rbx,native_frame+24(%rip)\n"
	"	mov %rsp,native_frame+32(%rip)\n	mov %rbp,native_frame+40(%rip)\n"
	"	mov %rsi,native_frame+48(%rip)\n	mov %rdi,native_frame+56(%rip)\n"
	"	mov %r8,native_frame+64(%rip)\n	mov %r9,native_frame+72(%rip)\n"
	"	mov %r10,native_frame+80(%rip)\n	mov %r11,native_frame+88(%rip)\n"
	"	mov %r12,native_frame+96(%rip)\n	mov %r13,native_frame+104(%rip)\n"
	"	mov %r14,native_frame+112(%rip)\n	mov %r15,native_frame+120(%rip)\n"
	"	mov native_frame+136(%rip),%rsp\n"
	"	pushf\n	pop native_frame+128(%rip)\n"
	"native_abort:\n"
	"	mov native_frame+136(%rip),%rsp\n"
	"	cld\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n");

static struct native_regs *running;
static uint8_t *code_page;

static void on_signal(int sig, siginfo_t *info, void *ctx)
{
	static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
				       REG_R12, REG_R13, REG_R14, REG_R15 };
	greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;

	if (!running)
		abort();
	for (unsigned k = 0; k < 16; k++)
		native_frame.gpr[k] = (uint64_t)g[order[k]];
	native_frame.rflags = (uint64_t)g[REG_EFL];
	running->fault = 1 + (uint64_t)g[REG_TRAPNO];
	running->error = (uint64_t)g[REG_ERR];
	running->cr2 = (uint64_t)g[REG_CR2];
	g[REG_RIP] = (greg_t)native_abort;
	g[REG_EFL] &= ~0x40500l; /* AC, TF, DF */
}

void native_init(void)
{
	static const int signals[] = { SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGBUS };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t ss = { .ss_size = 65536 };

	ss.ss_sp = malloc(ss.ss_size);
	sigaltstack(&ss, NULL);
	for (unsigned k = 0; k < ARRAY_SIZE(signals); k++)
		sigaction(signals[k], &sa, NULL);
	code_page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	if (code_page == MAP_FAILED)
		abort();
}

/* Behind the instruction: jmp *0(%rip) to native_exit. */
uint64_t native_place(const uint8_t *code, unsigned len)
{
	static const uint8_t jump[] = { 0xff, 0x25, 0, 0, 0, 0 };
	uint64_t out = (uint64_t)native_exit;

	memcpy(code_page, code, len);
	memcpy(code_page + len, jump, sizeof(jump));
	memcpy(code_page + len + sizeof(jump), &out, sizeof(out));
	return (uint64_t)code_page;
}

void native_run(struct native_regs *r)
{
	memcpy(native_frame.gpr, r->gpr, sizeof(r->gpr));
	native_frame.rflags = r->rflags;
	native_frame.code = (uint64_t)code_page;
	r->fault = r->error = r->cr2 = 0;
	running = r;
	native_enter();
	running = NULL;
	memcpy(r->gpr, native_frame.gpr, sizeof(r->gpr));
	r->rflags = native_frame.rflags;
}
