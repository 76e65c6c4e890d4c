/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host's side of the comparison: a trampoline that loads all registers, and a signal handler.
 */
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
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	"
	"push %r15\n"
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
	"	push $0x202\n	popf\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	"
	"pop %rbx\n"
	"	ret\n");

/*
 * 32-bit code runs in Linux's own segment 0x23, so all of it lies low: at LOW the frame, then a
 * copy of what follows, then the instruction's page.
 */
#define LOW	 0x1a340000ull
#define LOW_STUB (LOW + PAGE_SIZE)

extern const uint8_t native_stub32[], native_exit32[], native_back64[], native_stub32_end[];
void native_enter32(void);

__asm__(".text\n"
	".globl native_enter32, native_stub32, native_exit32, native_back64, native_stub32_end\n"
	".hidden native_enter32, native_stub32, native_exit32, native_back64, native_stub32_end\n"
	"native_enter32:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	"
	"push %r15\n"
	"	mov %rsp,0x1a340088\n"
	"	ljmp *0x1a3400a0\n"
	".code32\n"
	"native_stub32:\n"
	"	mov $0x2b,%eax\n	mov %eax,%ds\n	mov %eax,%es\n	mov %eax,%ss\n"
	"	mov $0x1a340fc0,%esp\n"
	"	pushl 0x1a340080\n	popfl\n"
	"	mov 0x1a340000,%eax\n	mov 0x1a340008,%ecx\n"
	"	mov 0x1a340010,%edx\n	mov 0x1a340018,%ebx\n"
	"	mov 0x1a340020,%esp\n	mov 0x1a340028,%ebp\n"
	"	mov 0x1a340030,%esi\n	mov 0x1a340038,%edi\n"
	"	jmp *0x1a340090\n"
	"native_exit32:\n"
	"	mov %eax,0x1a340000\n	mov %ecx,0x1a340008\n"
	"	mov %edx,0x1a340010\n	mov %ebx,0x1a340018\n"
	"	mov %esp,0x1a340020\n	mov %ebp,0x1a340028\n"
	"	mov %esi,0x1a340030\n	mov %edi,0x1a340038\n"
	"	mov $0x1a340fc0,%esp\n"
	"	pushfl\n	popl 0x1a340080\n"
	"	ljmp *0x1a3400a8\n"
	".code64\n"
	"native_back64:\n"
	"	mov 0x1a340088,%rsp\n"
	"	push $0x202\n	popf\n"
	"	xor %eax,%eax\n	mov %eax,%ds\n	mov %eax,%es\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	"
	"pop %rbx\n"
	"	ret\n"
	"native_stub32_end:\n");

static struct native_regs *running;
static uint8_t *code_page;
static unsigned mode_bits;
static struct native_frame *frame; /* native_frame, or the one at LOW */

static void on_signal(int sig, siginfo_t *info, void *ctx)
{
	static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				      REG_RSI, REG_RDI, REG_R8,	 REG_R9,  REG_R10, REG_R11,
				      REG_R12, REG_R13, REG_R14, REG_R15};
	greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;

	if (!running)
		abort();
	for (unsigned k = 0; k < mode_bits / 4; k++)
		frame->gpr[k] = (uint64_t)g[order[k]];
	frame->rflags = (uint64_t)g[REG_EFL];
	running->fault = 1 + (uint64_t)g[REG_TRAPNO];
	running->error = (uint64_t)g[REG_ERR];
	running->cr2 = (uint64_t)g[REG_CR2];
	g[REG_RIP] = (greg_t)native_abort;
	if (mode_bits == 32) {
		g[REG_RIP] = (greg_t)(LOW_STUB + (uint64_t)(native_back64 - native_stub32));
		g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffl) | 0x33;
	}
	g[REG_EFL] &= ~0x40500l; /* AC, TF, DF */
}

/* Far pointers into the stub lie behind the frame's code: at 0xa0 the way in, at 0xa8 the way out.
 */
static void init32(void)
{
	uint8_t *low = mmap((void *)LOW, 3 * PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	uint32_t in[2] = {LOW_STUB, 0x23};
	uint32_t out[2] = {(uint32_t)(LOW_STUB + (uint64_t)(native_back64 - native_stub32)), 0x33};

	if (low != (uint8_t *)LOW)
		abort();
	memcpy(low + PAGE_SIZE, native_stub32, (size_t)(native_stub32_end - native_stub32));
	memcpy(low + 0xa0, in, sizeof(in));
	memcpy(low + 0xa8, out, 6);
	frame = (struct native_frame *)low;
	code_page = low + 2 * PAGE_SIZE;
}

void native_init(unsigned bits)
{
	static const int signals[] = {SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGBUS};
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	static uint8_t stack[65536];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};

	sigaltstack(&ss, NULL);
	for (unsigned k = 0; k < ARRAY_SIZE(signals); k++)
		sigaction(signals[k], &sa, NULL);
	mode_bits = bits;
	if (bits == 32) {
		init32();
		return;
	}
	frame = &native_frame;
	code_page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code_page == MAP_FAILED)
		abort();
}

uint64_t native_end(void)
{
	return mode_bits == 32 ? LOW_STUB + (uint64_t)(native_exit32 - native_stub32)
			       : (uint64_t)native_exit;
}

/* Behind the instruction a jump through memory, by RIP or absolute; the pointer is aligned for
 * EFLAGS.AC. */
uint64_t native_place(const uint8_t *code, unsigned len)
{
	uint8_t jump[6] = {0xff, 0x25};
	uint32_t at = 64 - (len + 6);
	uint64_t out = native_end();

	if (mode_bits == 32)
		at = (uint32_t)(uint64_t)code_page + 64;
	memcpy(jump + 2, &at, 4);
	memcpy(code_page, code, len);
	memcpy(code_page + len, jump, sizeof(jump));
	memcpy(code_page + 64, &out, sizeof(out));
	return (uint64_t)code_page;
}

void native_run(struct native_regs *r)
{
	memcpy(frame->gpr, r->gpr, sizeof(r->gpr));
	frame->rflags = r->rflags;
	frame->code = (uint64_t)code_page;
	r->fault = r->error = r->cr2 = 0;
	running = r;
	if (mode_bits == 32)
		native_enter32();
	else
		native_enter();
	running = NULL;
	memcpy(r->gpr, frame->gpr, sizeof(r->gpr));
	r->rflags = frame->rflags;
}
