/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/cpu/fp/native.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

extern struct native native_now;
extern struct cpu_fx native_host_fx;
extern void native_go(void), native_back(void), native_out(void);

bool native_has_avx;
struct native native_now;
struct cpu_fx native_host_fx;

static_assert(offsetof(struct native, rflags) == 128 && offsetof(struct native, host_rsp) == 136 &&
		      offsetof(struct native, fx) == 192 && offsetof(struct native, ymmh) == 704,
	      "the assembly below");

/* For all sixteen YMM registers. */
#define YMM_IN(n, at)  "vinsertf128 $1," #at "(%rax),%ymm" #n ",%ymm" #n "\n"
#define YMM_OUT(n, at) "vextractf128 $1,%ymm" #n "," #at "(%rax)\n"
#define ALL_YMM(F)                                                                                 \
	F(0, 704) F(1, 720) F(2, 736) F(3, 752) F(4, 768) F(5, 784) F(6, 800) F(7, 816)            \
	F(8, 832) F(9, 848) F(10, 864) F(11, 880) F(12, 896) F(13, 912) F(14, 928) F(15, 944)

/* The instruction's registers in, a jump to it; it is followed by a jump to native_back. */
__asm__(".text\n"
	".globl native_go, native_back, native_out\n"
	"native_go:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"lea native_host_fx(%rip),%rax; fxsave64 (%rax)\n"
	"lea native_now(%rip),%rax; mov %rsp,136(%rax); fxrstor64 192(%rax)\n"
	"cmpb $0,native_has_avx(%rip); je 1f\n"
	ALL_YMM(YMM_IN)
	"1:\n"
	"push 128(%rax); popfq\n"
	"mov 8(%rax),%rcx; mov 16(%rax),%rdx; mov 24(%rax),%rbx; mov 40(%rax),%rbp\n"
	"mov 48(%rax),%rsi; mov 56(%rax),%rdi; mov 64(%rax),%r8; mov 72(%rax),%r9\n"
	"mov 80(%rax),%r10; mov 88(%rax),%r11; mov 96(%rax),%r12; mov 104(%rax),%r13\n"
	"mov 112(%rax),%r14; mov 120(%rax),%r15; mov (%rax),%rax\n"
	"jmp *native_code(%rip)\n"
	"native_back:\n"
	"mov %rax,native_now(%rip); lea native_now(%rip),%rax; mov 136(%rax),%rsp\n"
	"pushfq; pop 128(%rax); push $0x202; popfq\n"
	"mov %rcx,8(%rax); mov %rdx,16(%rax); mov %rbx,24(%rax); mov %rbp,40(%rax)\n"
	"mov %rsi,48(%rax); mov %rdi,56(%rax); mov %r8,64(%rax); mov %r9,72(%rax)\n"
	"mov %r10,80(%rax); mov %r11,88(%rax); mov %r12,96(%rax); mov %r13,104(%rax)\n"
	"mov %r14,112(%rax); mov %r15,120(%rax); fxsave64 192(%rax)\n"
	"cmpb $0,native_has_avx(%rip); je 1f\n"
	ALL_YMM(YMM_OUT)
	"1:\n"
	"native_out:\n"
	"cmpb $0,native_has_avx(%rip); je 1f\n"
	"vzeroupper\n"
	"1:\n"
	"lea native_host_fx(%rip),%rax; fxrstor64 (%rax)\n"
	"pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"
	".data\n.balign 8\n"
	"native_code: .quad 0x100000\n"
	".text\n");

static void on_signal(int sig, siginfo_t *info, void *ctx)
{
	static const int order[16] = {
		REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
		REG_R8,	 REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
	};
	mcontext_t *m;

	/* The instruction may have run with alignment checks on; nothing of ours is to. */
	__asm__ volatile("push $0x202; popfq" : : : "memory", "cc");
	m = &((ucontext_t *)ctx)->uc_mcontext;
	if (m->gregs[REG_RIP] != (greg_t)NATIVE_CODE) {
		signal(sig, SIG_DFL); /* a fault of the test's own */
		return;
	}
	native_now.vector = (int)m->gregs[REG_TRAPNO];
	for (unsigned n = 0; n < 16; n++)
		native_now.gpr[n] = (uint64_t)m->gregs[order[n]];
	native_now.rflags = (uint64_t)m->gregs[REG_EFL];
	memcpy(&native_now.fx, m->fpregs, sizeof(native_now.fx));
	/* The signal frame has an XSAVE area: XSTATE_BV at 512, YMM's upper halves at 576. */
	memset(native_now.ymmh, 0, sizeof(native_now.ymmh));
	if (native_has_avx && ((const uint8_t *)m->fpregs)[512] & X86_XCR0_AVX)
		memcpy(native_now.ymmh, (const uint8_t *)m->fpregs + 576, sizeof(native_now.ymmh));
	m->gregs[REG_RIP] = (greg_t)(uintptr_t)native_out;
	m->gregs[REG_RSP] = (greg_t)native_now.host_rsp;
	m->gregs[REG_EFL] = 0x202;
}

static void map_at(uint64_t at, uint64_t size, int prot)
{
	void *p = mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		       -1, 0);

	if (p != (void *)at)
		abort();
}

void native_init(void)
{
	native_has_avx = __builtin_cpu_supports("avx2");
	map_at(NATIVE_CODE, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
	map_at(NATIVE_DATA - PAGE_SIZE, PAGE_SIZE, PROT_NONE);
	map_at(NATIVE_DATA, NATIVE_DATA_SIZE, PROT_READ | PROT_WRITE);
	map_at(NATIVE_DATA + NATIVE_DATA_SIZE, 16 * PAGE_SIZE, PROT_NONE);
}

void native_catch(void)
{
	static const int sig[] = {SIGSEGV, SIGILL, SIGFPE, SIGBUS};
	static uint8_t stack[KIB(128)];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction sa = {
		.sa_sigaction = on_signal,
		.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER,
	};

	sigaltstack(&ss, NULL);
	for (unsigned n = 0; n < ARRAY_SIZE(sig); n++)
		sigaction(sig[n], &sa, NULL);
}

void native_run(struct native *n, const uint8_t *code, unsigned len)
{
	uint8_t *at = (uint8_t *)NATIVE_CODE;
	uint64_t back = (uint64_t)(uintptr_t)native_back;
	int32_t rel = 64 - (int32_t)(len + 6);

	/* jmp *64(start): the slot is aligned, as alignment checks may be on. */
	memcpy(at, code, len);
	at[len] = 0xff;
	at[len + 1] = 0x25;
	memcpy(at + len + 2, &rel, 4);
	memcpy(at + 64, &back, 8);
	native_now = *n;
	native_now.vector = -1;
	native_go();
	*n = native_now;
}
