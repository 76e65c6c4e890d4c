/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The core of the processor: blocks, code that changes, what happens between instructions, emulation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <pthread.h>

#include <cmocka.h>

#include "cpu/cpu_internal.h"
#include "tests/unit/cpu/common/tiny.h"

/* All exceptions leave, so that tests see them without an IDT. */
static void catch_all(struct tiny *t)
{
	t->c->exception_bitmap = ~0u;
	t->c->pf_error_mask = t->c->pf_error_match = 0;
}

static void expect_fault(struct tiny *t, uint8_t vector, uint32_t error)
{
	const struct cpu_exit *x = cpu_exit(t->cpu);

	assert_int_equal(x->reason, CPU_EXIT_EXCEPTION);
	assert_int_equal(x->exception.vector, vector);
	assert_int_equal(x->exception.error, error);
}

TINY_TEXT(sum_loop, 64, "mov $1000, %ecx; xor %eax, %eax; 1: add %rcx, %rax; dec %ecx; jnz 1b; hlt");

static void test_loop(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);

	tiny_mode(t, TINY_LONG, 0);
	tiny_text(t, sum_loop);
	assert_int_equal(tiny_run(t, 100000), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 500500);
	assert_int_equal(cpu_icount(t->cpu), 2 + 3000 + 1);
	assert_int_equal(t->s->rip, TINY_CODE + (uint64_t)(sum_loop_end - sum_loop));
	tiny_destroy(t);
}

TINY_TEXT(mode16, 16, "mov $0x1234, %ax; mov %ax, 0x200(%bx); addw $1, 0x200(%bx); hlt");
TINY_TEXT(mode32, 32, "mov $0x1234, %ax; mov %ax, 0x200(%ebx); addw $1, 0x200(%ebx); hlt");
TINY_TEXT(mode64, 64, "mov $0x1234, %ax; mov %ax, 0x200(%rbx); addw $1, 0x200(%rbx); hlt");

static void test_modes(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 12);

	for (enum tiny_mode m = TINY_REAL; m <= TINY_LONG; m++) {
		bool is16 = m == TINY_REAL || m == TINY_PROT16 || m == TINY_COMPAT16;

		tiny_mode(t, m, 0);
		memset(t->mem + 0x9200, 0, 2);
		t->s->gpr[X86_RBX] = 0x9000;
		if (is16)
			tiny_text(t, mode16);
		else if (m == TINY_LONG)
			tiny_text(t, mode64);
		else
			tiny_text(t, mode32);
		assert_int_equal(tiny_run(t, 100), CPU_EXIT_HLT);
		assert_memory_equal(t->mem + 0x9200, "\x35\x12", 2);
	}
	tiny_destroy(t);
}

static void test_icount_limit(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);

	tiny_mode(t, TINY_LONG, 0);
	tiny_text(t, sum_loop);
	for (uint64_t n = 1; n < 1000; n += n % 7 + 1) {
		uint64_t before = cpu_icount(t->cpu);

		assert_int_equal(tiny_run(t, n % 13), CPU_EXIT_ICOUNT);
		assert_int_equal(cpu_icount(t->cpu), before + n % 13);
	}
	assert_int_equal(tiny_run(t, 10000), CPU_EXIT_HLT);
	assert_int_equal(cpu_icount(t->cpu), 3003);
	assert_int_equal(t->s->gpr[X86_RAX], 500500);
	tiny_destroy(t);
}

/* ---- fetching ----------------------------------------------------------------------------------- */

TINY_TEXT(cross_insn, 64, "movabs $0x1122334455667788, %rax; hlt");

/* Make linear 4 KiB pages of the 2 MiB at TINY_CODE's region, table at 0x40000. */
static uint64_t *split_2m(struct tiny *t, uint64_t lin)
{
	uint64_t *pd = (uint64_t *)(t->mem + TINY_PML4 + 0x2000), *pt = (uint64_t *)(t->mem + 0x40000);

	for (uint64_t n = 0; n < 512; n++)
		pt[n] = (lin & ~(MIB(2) - 1)) | n << 12 | 7;
	pd[lin >> 21] = 0x40000 | 7;
	cpu_tlb_flush_all(t->cpu);
	return pt;
}

static void test_cross_page(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 12);
	uint64_t *pt;

	tiny_mode(t, TINY_LONG, 0);
	catch_all(t);
	t->s->rip = TINY_CODE + 0xffb;
	tiny_text(t, cross_insn);
	assert_int_equal(tiny_run(t, 100), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 0x1122334455667788);

	/* The second page is absent: the fault is at this instruction, CR2 at the page, and not before. */
	pt = split_2m(t, TINY_CODE);
	pt[(TINY_CODE >> 12 & 511) + 1] = 0;
	t->mem[TINY_CODE + 0xffa] = 0x90;
	cpu_domain_notify_write(t->domain, (hpa_t)(t->mem + TINY_CODE), 4096);
	t->s->rip = TINY_CODE + 0xffa;
	t->s->gpr[X86_RAX] = 0;
	tiny_run(t, 100);
	expect_fault(t, X86_VEC_PF, X86_PF_I);
	assert_int_equal(t->s->rip, TINY_CODE + 0xffb);
	assert_int_equal(cpu_exit(t->cpu)->exception.payload, TINY_CODE + 0x1000);
	/* The second page somewhere else: other bytes. */
	memcpy(t->mem + 0x50000, t->mem + TINY_CODE + 0x1000, 64);
	t->mem[0x50000] = 0x99;
	pt[(TINY_CODE >> 12 & 511) + 1] = 0x50000 | 7;
	assert_int_equal(tiny_run(t, 100), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RAX], 0x1122334499667788);
	tiny_destroy(t);
}

static void test_bad_code(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 12);

	tiny_mode(t, TINY_LONG, 0);
	catch_all(t);
	tiny_asm(t, "\x90\x0f\xff");
	tiny_run(t, 100);
	expect_fault(t, X86_VEC_UD, 0);
	assert_int_equal(t->s->rip, TINY_CODE + 1);
	/* AVX is not shown; LOCK on a register; too long. */
	tiny_asm(t, "\xc5\xf8\x77");
	tiny_run(t, 100);
	expect_fault(t, X86_VEC_UD, 0);
	tiny_asm(t, "\xf0\x01\xc0");
	tiny_run(t, 100);
	expect_fault(t, X86_VEC_UD, 0);
	tiny_asm(t, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90");
	tiny_run(t, 100);
	expect_fault(t, X86_VEC_GP, 0);
	t->s->rip = 0x0000800000000000;
	tiny_run(t, 100);
	expect_fault(t, X86_VEC_GP, 0);
	tiny_destroy(t);
}

/* ---- code that changes --------------------------------------------------------------------------- */

/* The store changes the immediate of the instruction right after it, in the same block. */
TINY_TEXT(patch_self, 64,
	  "movb $42, 1f+1(%rip); 1: mov $1, %eax; mov %eax, %ebx; incl %ecx; cmp $3, %ecx; jne patch_self; hlt");

static void test_own_code(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);

	tiny_mode(t, TINY_LONG, 0);
	tiny_text(t, patch_self);
	assert_int_equal(tiny_run(t, 100), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RBX], 42);
	assert_int_equal(t->s->gpr[X86_RCX], 3);
	assert_true(cpu_stats(t->cpu)->smc_invalidations >= 1);
	tiny_destroy(t);
}

/* A counter in the code's page, another line: it works, and the page comes to be writable. */
TINY_TEXT(near_code, 64, "1: incq 0x200(%rdx); dec %ecx; jnz 1b; hlt");

static void test_near_code(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);

	tiny_mode(t, TINY_LONG, 0);
	tiny_text(t, near_code);
	t->s->gpr[X86_RDX] = TINY_CODE;
	t->s->gpr[X86_RCX] = 10000;
	assert_int_equal(tiny_run(t, 100000), CPU_EXIT_HLT);
	assert_int_equal(*(uint64_t *)(t->mem + TINY_CODE + 0x200), 10000);
	tiny_destroy(t);
}

static void test_foreign_code(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);

	tiny_mode(t, TINY_LONG, 0);
	for (unsigned n = 1; n < 5; n++) {
		t->s->rip = TINY_CODE;
		tiny_text(t, cross_insn);
		t->mem[TINY_CODE + 2] = (uint8_t)n;
		cpu_domain_notify_write(t->domain, (hpa_t)(t->mem + TINY_CODE + 2), 1);
		assert_int_equal(tiny_run(t, 100), CPU_EXIT_HLT);
		assert_int_equal(t->s->gpr[X86_RAX] & 0xff, n);
	}
	tiny_destroy(t);
}

/*
 * Two processors: one patches the immediate and then sets a flag with a serializing handshake, the other
 * waits for the flag, serializes, and must see the new immediate.
 */
TINY_TEXT(smc_writer, 64,
	  "1: inc %ecx; mov %cl, (%rbx); mov %ecx, (%rsi);"
	  "2: pause; cmp %ecx, 4(%rsi); jne 2b; cmp %edx, %ecx; jne 1b; hlt");
TINY_TEXT(smc_reader, 64,
	  "1: inc %ecx; 2: pause; cmp %ecx, (%rsi); jne 2b; mov %ecx, %r8d; xor %eax, %eax; cpuid; mov %r8d, %ecx;"
	  "call *%rdi; cmp %cl, %al; jne 3f; mov %ecx, 4(%rsi); cmp %ebp, %ecx; jne 1b; hlt; 3: ud2");

static void *run_cpu(void *cpu)
{
	return (void *)(uintptr_t)cpu_run(cpu);
}

static void test_two_cpus(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);
	struct cpu *other = tiny_add_cpu(t);
	struct cpu_state *s = cpu_state(other);
	pthread_t thread;
	void *reason;

	tiny_mode(t, TINY_LONG, 0);
	catch_all(t);
	tiny_text(t, smc_writer);
	memcpy(t->mem + TINY_DATA + 0x1000, "\xb0\x00\xc3", 3); /* mov $0, %al; ret */
	t->s->gpr[X86_RBX] = TINY_DATA + 0x1001;
	t->s->gpr[X86_RSI] = TINY_DATA;
	t->s->gpr[X86_RDX] = 2000;
	tiny_mode_of(t, other, TINY_LONG, 0);
	cpu_controls(other)->exception_bitmap = ~0u;
	memcpy(t->mem + TINY_CODE + 0x1000, smc_reader, (size_t)(smc_reader_end - smc_reader));
	s->rip = TINY_CODE + 0x1000;
	s->gpr[X86_RSP] = TINY_STACK - 0x1000;
	s->gpr[X86_RSI] = TINY_DATA;
	s->gpr[X86_RDI] = TINY_DATA + 0x1000;
	s->gpr[X86_RBP] = 2000;
	cpu_state_changed(t->cpu);
	cpu_state_changed(other);
	assert_int_equal(pthread_create(&thread, NULL, run_cpu, other), 0);
	assert_int_equal(cpu_run(t->cpu), CPU_EXIT_HLT);
	pthread_join(thread, &reason);
	assert_int_equal((uintptr_t)reason, CPU_EXIT_HLT);
	cpu_destroy(other);
	tiny_destroy(t);
}

/* ---- between instructions ------------------------------------------------------------------------ */

TINY_TEXT(step_code, 64, "nop; mov $7, %eax; jmp 1f; ud2; 1: inc %eax; hlt");

static void test_single_step(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);
	static const uint64_t after[] = {1, 6, 10, 12};

	tiny_mode(t, TINY_LONG, 0);
	catch_all(t);
	tiny_text(t, step_code);
	t->s->rflags |= X86_FLAG_TF;
	cpu_state_changed(t->cpu);
	for (unsigned n = 0; n < ARRAY_SIZE(after); n++) {
		tiny_run(t, 100);
		expect_fault(t, X86_VEC_DB, 0);
		assert_int_equal(cpu_exit(t->cpu)->exception.payload, X86_DR6_BS);
		assert_int_equal(t->s->rip, TINY_CODE + after[n]);
		cpu_state_changed(t->cpu);
	}
	tiny_destroy(t);
}

static void test_step(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);
	static const uint64_t after[] = {1, 6, 10, 12};

	tiny_mode(t, TINY_LONG, 0);
	tiny_text(t, step_code);
	for (unsigned n = 0; n < ARRAY_SIZE(after); n++) {
		assert_int_equal(cpu_step(t->cpu), CPU_EXIT_ICOUNT);
		assert_int_equal(t->s->rip, TINY_CODE + after[n]);
	}
	assert_int_equal(cpu_step(t->cpu), CPU_EXIT_HLT);
	tiny_destroy(t);
}

static void test_breakpoints(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);

	tiny_mode(t, TINY_LONG, 0);
	catch_all(t);
	tiny_text(t, step_code);
	t->s->dr[1] = TINY_CODE + 10;
	t->s->dr7 |= 1 << 2;
	cpu_state_changed(t->cpu);
	tiny_run(t, 100);
	expect_fault(t, X86_VEC_DB, 0);
	assert_int_equal(cpu_exit(t->cpu)->exception.payload, 2);
	assert_int_equal(t->s->rip, TINY_CODE + 10);
	t->s->rflags |= X86_FLAG_RF;
	cpu_state_changed(t->cpu);
	assert_int_equal(tiny_run(t, 100), CPU_EXIT_HLT);
	assert_int_equal(t->s->rflags & X86_FLAG_RF, 0);
	assert_int_equal(t->s->gpr[X86_RAX], 8);
	tiny_destroy(t);
}

TINY_TEXT(watch_code, 64, "mov (%rbx), %eax; mov %eax, 4(%rbx); mov %eax, (%rbx); hlt");

static void test_watch(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);

	tiny_mode(t, TINY_LONG, 0);
	catch_all(t);
	tiny_text(t, watch_code);
	t->s->gpr[X86_RBX] = TINY_DATA;
	t->s->dr[3] = TINY_DATA;
	t->s->dr7 |= 1 << 6 | 1u << 28 | 3u << 30; /* write, 4 bytes */
	cpu_state_changed(t->cpu);
	tiny_run(t, 100);
	expect_fault(t, X86_VEC_DB, 0);
	assert_int_equal(cpu_exit(t->cpu)->exception.payload, 8);
	assert_int_equal(t->s->rip, TINY_CODE + (uint64_t)(watch_code_end - watch_code) - 1);
	tiny_destroy(t);
}

TINY_TEXT(sti_code, 64, "sti; nop; nop; cli; 1: jmp 1b");

static void test_windows(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);

	tiny_mode(t, TINY_LONG, 0);
	tiny_text(t, sti_code);
	assert_false(cpu_can_interrupt(t->cpu));
	t->c->exits |= CPU_CTL_IRQ_WINDOW;
	cpu_state_changed(t->cpu);
	/* One instruction later than STI. */
	assert_int_equal(tiny_run(t, 100), CPU_EXIT_IRQ_WINDOW);
	assert_int_equal(t->s->rip, TINY_CODE + 2);
	assert_true(cpu_can_interrupt(t->cpu));
	t->c->exits &= ~CPU_CTL_IRQ_WINDOW;
	t->c->exits |= CPU_CTL_NMI_WINDOW;
	cpu_state_changed(t->cpu);
	assert_int_equal(tiny_run(t, 100), CPU_EXIT_NMI_WINDOW);
	assert_int_equal(t->s->rip, TINY_CODE + 2);
	tiny_destroy(t);
}

static void *kick_it(void *cpu)
{
	for (volatile unsigned n = 0; n < 1000000; n++)
		;
	cpu_kick(cpu);
	return NULL;
}

static void test_kick(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);
	pthread_t thread;

	tiny_mode(t, TINY_LONG, 0);
	tiny_asm(t, "\xeb\xfe");
	cpu_kick(t->cpu);
	assert_int_equal(cpu_run(t->cpu), CPU_EXIT_KICK);
	assert_int_equal(cpu_icount(t->cpu), 0);
	assert_int_equal(pthread_create(&thread, NULL, kick_it, t->cpu), 0);
	assert_int_equal(cpu_run(t->cpu), CPU_EXIT_KICK);
	pthread_join(thread, NULL);
	tiny_destroy(t);
}

/* ---- cpu_emulate() -------------------------------------------------------------------------------- */

struct emu {
	struct tiny *t;
	unsigned reads, writes, swaps;
	gva_t fault_at, stop_at;
};

static enum cpu_mem_result emu_check(struct emu *e, gva_t gva, struct cpu_fault *fault)
{
	if (gva == e->stop_at)
		return CPU_MEM_STOP;
	if (gva != e->fault_at)
		return CPU_MEM_OK;
	*fault = (struct cpu_fault){.vector = X86_VEC_PF, .has_error = true, .error = 2, .addr = gva};
	return CPU_MEM_FAULT;
}

static enum cpu_mem_result emu_read(void *ctx, gva_t gva, void *data, unsigned len, unsigned access,
				    struct cpu_fault *fault)
{
	struct emu *e = ctx;
	enum cpu_mem_result r = emu_check(e, gva, fault);

	assert_true((gva & 4095) + len <= 4096);
	if (r == CPU_MEM_OK)
		memcpy(data, e->t->mem + gva, len);
	e->reads += !(access & CPU_ACCESS_FETCH);
	return r;
}

static enum cpu_mem_result emu_write(void *ctx, gva_t gva, const void *data, unsigned len, unsigned access,
				     struct cpu_fault *fault)
{
	struct emu *e = ctx;

	memcpy(e->t->mem + gva, data, len);
	e->writes++;
	return CPU_MEM_OK;
}

static enum cpu_mem_result emu_probe(void *ctx, gva_t gva, unsigned len, unsigned access,
				     struct cpu_fault *fault)
{
	return emu_check(ctx, gva, fault);
}

static enum cpu_mem_result emu_cmpxchg(void *ctx, gva_t gva, void *old, const void *want, unsigned len,
				       struct cpu_fault *fault)
{
	struct emu *e = ctx;

	e->swaps++;
	if (!memcmp(e->t->mem + gva, old, len))
		memcpy(e->t->mem + gva, want, len);
	else
		memcpy(old, e->t->mem + gva, len);
	return CPU_MEM_OK;
}

static const struct cpu_mem_ops emu_ops = {emu_read, emu_write, emu_probe, emu_cmpxchg, NULL};

TINY_TEXT(emu_code, 64,
	  "mov (%rbx), %eax; mov %eax, 8(%rbx); lock incl 8(%rbx); addl $5, 8(%rbx); rep stosb; push %rax");

static void test_emulate(void **state)
{
	struct tiny *t = tiny_create(MIB(64), 21);
	struct emu e = {.t = t, .fault_at = ~0ull, .stop_at = ~0ull};

	tiny_mode(t, TINY_LONG, 0);
	tiny_text(t, emu_code);
	t->s->gpr[X86_RBX] = TINY_DATA;
	*(uint32_t *)(t->mem + TINY_DATA) = 77;
	assert_int_equal(cpu_emulate(t->cpu, &emu_ops, &e), CPU_EMULATE_DONE);
	assert_int_equal(t->s->gpr[X86_RAX], 77);
	assert_int_equal(e.reads, 1);
	/* A stop, then a fault, leave it undone. */
	e.stop_at = TINY_DATA + 8;
	assert_int_equal(cpu_emulate(t->cpu, &emu_ops, &e), CPU_EMULATE_STOP);
	assert_int_equal(t->s->rip, TINY_CODE + 2);
	e.stop_at = ~0ull;
	e.fault_at = TINY_DATA + 8;
	assert_int_equal(cpu_emulate(t->cpu, &emu_ops, &e), CPU_EMULATE_DONE);
	assert_true(t->s->event.valid);
	assert_int_equal(t->s->event.vector, X86_VEC_PF);
	assert_int_equal(t->s->rip, TINY_CODE + 2);
	t->s->event.valid = false;
	e.fault_at = ~0ull;
	assert_int_equal(cpu_emulate(t->cpu, &emu_ops, &e), CPU_EMULATE_DONE);
	assert_int_equal(e.writes, 1);
	assert_int_equal(cpu_emulate(t->cpu, &emu_ops, &e), CPU_EMULATE_DONE);
	assert_int_equal(e.swaps, 1);
	assert_int_equal(*(uint32_t *)(t->mem + TINY_DATA + 8), 78);
	assert_int_equal(cpu_emulate(t->cpu, &emu_ops, &e), CPU_EMULATE_DONE);
	assert_int_equal(*(uint32_t *)(t->mem + TINY_DATA + 8), 83);
	/* A string goes on over several calls. */
	t->s->gpr[X86_RDI] = TINY_DATA + 0x100;
	t->s->gpr[X86_RCX] = 5;
	for (unsigned n = 0; n < 6 && t->s->gpr[X86_RCX]; n++)
		assert_int_equal(cpu_emulate(t->cpu, &emu_ops, &e), CPU_EMULATE_DONE);
	assert_int_equal(t->s->gpr[X86_RCX], 0);
	assert_memory_equal(t->mem + TINY_DATA + 0x100, "MMMMM\0", 6);
	assert_int_equal(cpu_icount(t->cpu), 5);
	tiny_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loop),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_icount_limit),
		cmocka_unit_test(test_cross_page),
		cmocka_unit_test(test_bad_code),
		cmocka_unit_test(test_own_code),
		cmocka_unit_test(test_near_code),
		cmocka_unit_test(test_foreign_code),
		cmocka_unit_test(test_two_cpus),
		cmocka_unit_test(test_single_step),
		cmocka_unit_test(test_step),
		cmocka_unit_test(test_breakpoints),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_windows),
		cmocka_unit_test(test_kick),
		cmocka_unit_test(test_emulate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
