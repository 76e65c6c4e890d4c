/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exits of both policies, one by one, on tiny code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/cpu/common/tiny.h"
#include "engine/soft/soft_internal.h"
#include "tests/unit/engine/machine.h"

static struct machine *m;

static int setup_shadow(void **state)
{
	m = m_create(&(struct m_options){.policy = MMU_POLICY_SHADOW});
	return 0;
}

static int setup_tdp(void **state)
{
	m = m_create(&(struct m_options){.policy = MMU_POLICY_TDP});
	return 0;
}

static int teardown(void **state)
{
	m_destroy(m);
	return 0;
}

#define start(name) (m_start(m, 0, M_LONG, 0), m_text(m, 0, name), m_state(m, 0))

static enum engine_exit run(void)
{
	return m->ops->vcpu_run(m_vcpu(m, 0), 10000);
}

static void stands_behind(const uint8_t *code, const uint8_t *end)
{
	assert_int_equal(m_state(m, 0)->rip, M_CODE + (uint64_t)(end - code));
}
#define expect_done(name)                                                                          \
	(assert_int_equal(run(), ENGINE_EXIT_HALT), stands_behind(name, name##_end))

static void expect_vector(unsigned vector)
{
	assert_int_equal(run(), ENGINE_EXIT_HALT);
	assert_int_equal(m_state(m, 0)->rip, M_HANDLERS + 16 * vector + 1);
}

TINY_TEXT(port_out, 64, "mov $0x1234abcd, %eax; mov $0x3f8, %edx; out %ax, %dx; hlt");
TINY_TEXT(port_in, 64, "mov $-1, %rax; mov $0x3f8, %edx; in %dx, %al; hlt");
TINY_TEXT(port_outs, 64, "mov %rbx, %rsi; mov $3, %ecx; mov $0x3f8, %edx; rep outsb; hlt");
TINY_TEXT(port_ins, 64, "lea 4094(%rbx), %rdi; mov $4, %ecx; mov $0x3f8, %edx; rep insb; hlt");

static void test_ports(void **state)
{
	struct cpu_state *s = start(port_out);

	expect_done(port_out);
	assert_int_equal(m->pio.port, 0x3f8);
	assert_int_equal(m->pio.size, 2);
	assert_int_equal(m->pio.data & 0xffff, 0xabcd);
	m->read_value = 0x77;
	start(port_in);
	expect_done(port_in);
	assert_int_equal(s->gpr[X86_RAX], 0xffffffffffffff77);
	m->pio_count = 0;
	memcpy(m->ram + M_DATA, "abc", 3);
	start(port_outs);
	expect_done(port_outs);
	assert_int_equal(m->pio_count, 3);
	assert_int_equal(m->pio.data & 0xff, 'c');
	/* Over a page's border. */
	start(port_ins);
	expect_done(port_ins);
	assert_memory_equal(m->ram + M_DATA + 4094, "\x77\x77\x77\x77", 4);
}

TINY_TEXT(mmio_write, 64, "mov $0x10000000, %ebx; movl $0x1234, 8(%rbx); hlt");
TINY_TEXT(mmio_read, 64, "mov $0x10000000, %ebx; mov 16(%rbx), %rax; hlt");
TINY_TEXT(mmio_rmw, 64, "mov $0x10000000, %ebx; lock orl $0x100, (%rbx); hlt");

static void test_mmio(void **state)
{
	struct cpu_state *s = start(mmio_write);

	expect_done(mmio_write);
	assert_true(m->mmio.write);
	assert_int_equal(m->mmio.gpa, M_MMIO + 8);
	assert_int_equal(m->mmio.size, 4);
	assert_int_equal(m->mmio.data, 0x1234);
	m->read_value = 0x1122334455667788;
	start(mmio_read);
	expect_done(mmio_read);
	assert_int_equal(s->gpr[X86_RAX], 0x1122334455667788);
	start(mmio_rmw);
	expect_done(mmio_rmw);
	assert_int_equal(m->mmio.data, 0x55667788 | 0x100);
}

TINY_TEXT(msr, 64, "mov $0x4b564d00, %ecx; rdmsr; mov %eax, %esi; wrmsr; hlt");
TINY_TEXT(msr_bad, 64, "mov $0x12345678, %ecx; rdmsr");
TINY_TEXT(efer, 64, "mov $0xc0000080, %ecx; rdmsr; and $~0x800, %eax; wrmsr; rdmsr; hlt");

static void test_msr(void **state)
{
	struct cpu_state *s = start(msr);

	m->read_value = 0x55;
	expect_done(msr);
	assert_int_equal(m->msr_count, 2);
	assert_int_equal(s->gpr[X86_RSI], 0x55);
	start(msr_bad);
	expect_vector(X86_VEC_GP);
	start(efer);
	expect_done(efer);
	assert_int_equal(s->gpr[X86_RAX] & X86_EFER_NXE, 0);
}

TINY_TEXT(cr, 64,
	  "mov %cr0, %rax; and $~0x10000, %rax; mov %rax, %cr0; mov %cr4, %rcx;"
	  "or $0x80, %rcx; mov %rcx, %cr4; mov %cr3, %rdx; mov %rdx, %cr3; mov %cr0, %rsi;"
	  "mov %cr4, %rdi; hlt");
TINY_TEXT(cr_bad, 64, "mov %cr0, %rax; btr $0, %rax; mov %rax, %cr0");

static void test_cr(void **state)
{
	struct cpu_state *s = start(cr);

	expect_done(cr);
	assert_int_equal(s->cr0 & X86_CR0_WP, 0);
	assert_int_equal(s->gpr[X86_RSI], s->cr0);
	assert_int_equal(s->gpr[X86_RDI], s->cr4);
	assert_true(s->cr4 & X86_CR4_PGE);
	assert_int_equal(s->gpr[X86_RDX], M_TABLES);
	start(cr_bad);
	expect_vector(X86_VEC_GP);
}

TINY_TEXT(touch_far, 64, "mov $0x20000000, %ebx; mov 8(%rbx), %eax; hlt");
TINY_TEXT(store_far, 64, "mov $0x20000000, %ebx; movl $5, 8(%rbx); hlt");

static void test_guest_fault(void **state)
{
	struct cpu_state *s = start(touch_far);

	expect_vector(X86_VEC_PF);
	assert_int_equal(s->cr2, M_FAR + 8);
	assert_int_equal(*m_word(m, s->gpr[X86_RSP]), 0); /* the error code */
	s = start(store_far);
	m_map(m, 0, (M_DATA + 0x1000) | 1);
	expect_vector(X86_VEC_PF);
	assert_int_equal(*m_word(m, s->gpr[X86_RSP]), X86_PF_P | X86_PF_W);
}

/* The guest maps a page, uses it, maps another there, and uses that: its tables are shadowed then.
 */
TINY_TEXT(remap, 64,
	  "mov $0x20000000, %ebx; mov $0x40000, %edi; mov $4, %ecx; mov $0x201007, %eax;"
	  "1: mov %rax, (%rdi); invlpg (%rbx); mov %ecx, (%rbx); add $0x1000, %eax;"
	  "dec %ecx; jnz 1b; hlt");

static void test_remap(void **state)
{
	start(remap);
	expect_done(remap);
	for (unsigned k = 0; k < 4; k++)
		assert_int_equal(*m_word(m, M_DATA + 0x1000 * (k + 1)), 4 - k);
	assert_int_equal(*m_word(m, M_PT) & 0x60, 0x60); /* A, D */
}

TINY_TEXT(misc, 64, "wbinvd; xor %eax, %eax; cpuid; pause; hlt");
TINY_TEXT(vmcall, 64, "vmcall");
TINY_TEXT(spin, 64, "1: inc %rax; jmp 1b");
TINY_TEXT(bad, 64, "ud2");

static void test_misc(void **state)
{
	struct cpu_state *s;

	start(misc);
	expect_done(misc);
	start(vmcall);
	expect_vector(X86_VEC_UD);
	s = start(spin);
	s->gpr[X86_RAX] = 0;
	assert_int_equal(run(), ENGINE_EXIT_BUDGET);
	assert_int_equal(s->gpr[X86_RAX], 5000);
	m->ops->vcpu_kick(m_vcpu(m, 0));
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	s = start(bad);
	s->idtr.limit = 0;
	assert_int_equal(run(), ENGINE_EXIT_SHUTDOWN);
}

TINY_TEXT(sti, 64, "sti; hlt; jmp .");

static void test_interrupts(void **state)
{
	struct engine_vcpu *v = m_vcpu(m, 0);

	start(sti);
	assert_int_equal(run(), ENGINE_EXIT_HALT);
	assert_false(m->ops->vcpu_runnable(v));
	m->irq = 0x55;
	assert_true(m->ops->vcpu_runnable(v));
	expect_vector(0x55);
	assert_int_equal(m->irq, -1);
	m->ops->vcpu_nmi(v);
	assert_true(m->ops->vcpu_runnable(v));
	expect_vector(X86_VEC_NMI);
	/* A wish to stop wakes nobody. */
	m->ops->vcpu_kick(v);
	assert_false(m->ops->vcpu_runnable(v));
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	m->ops->vcpu_init(v);
	assert_int_equal(run(), ENGINE_EXIT_BUDGET);
}

/*
 * MMU and processor do not agree: the processor walks an empty table while the MMU finds its own in
 * order. The guard ends it after 1,000 faults in vain.
 */
static void test_no_progress(void **state)
{
	struct engine_vcpu *v = m_vcpu(m, 0);
	struct engine_vcpu_stats before, after;
	uint64_t *empty = aligned_alloc(PAGE_SIZE, PAGE_SIZE);

	start(spin);
	assert_int_equal(run(), ENGINE_EXIT_BUDGET);
	assert_non_null(empty);
	memset(empty, 0, PAGE_SIZE);
	cpu_controls(v->cpu)->root = (uint64_t)empty;
	cpu_state_changed(v->cpu);
	m->ops->vcpu_stats(v, &before);
	assert_int_equal(run(), ENGINE_EXIT_ERROR);
	assert_non_null(strstr(m->ops->vcpu_error(v), "no progress at 0x100000"));
	m->ops->vcpu_stats(v, &after);
	assert_int_equal(after.cpu.exits - before.cpu.exits, 1000);
	free(empty);
}

/* A long repeated instruction meets many pages: that is progress though nothing retires. */
TINY_TEXT(fill, 64, "mov $0x400000, %edi; mov $0x1000000, %ecx; rep stosb; hlt");

static void test_long_rep(void **state)
{
	start(fill);
	expect_done(fill);
	assert_int_equal(m->ram[0x400000 + 0xffffff], 0);
}

/* CR3 with bit 63: a page that went out of step is left so; without it, it is brought back. */
TINY_TEXT(pcid_keep, 64,
	  "mov $0x20000000, %ebx; mov $0x40000, %edi; mov (%rbx), %eax;"
	  "movl $0, 8(%rdi); mov %cr3, %rax; bts $63, %rax; mov %rax, %cr3; hlt");
TINY_TEXT(pcid_flush, 64,
	  "mov $0x20000000, %ebx; mov $0x40000, %edi; mov (%rbx), %eax;"
	  "movl $0, 8(%rdi); mov %cr3, %rax; mov %rax, %cr3; hlt");

static uint64_t synced(void)
{
	struct mmu_vm_stats st;

	mmu_vm_read_stats(m->mmu, &st);
	return st.mmu_synced;
}

static void test_noflush(void **state)
{
	struct cpu_state *s = start(pcid_keep);

	s->cr4 |= X86_CR4_PCIDE;
	m->ops->vcpu_set_state(m_vcpu(m, 0), s);
	m_map(m, 0, M_DATA | 7);
	expect_done(pcid_keep);
	assert_int_equal(synced(), 0);
	s = start(pcid_flush);
	s->cr4 |= X86_CR4_PCIDE;
	m->ops->vcpu_set_state(m_vcpu(m, 0), s);
	m_map(m, 0, M_DATA | 7);
	mmu_zap_all(m->mmu);
	expect_done(pcid_flush);
	if (mmu_get_policy(m->mmu) == MMU_POLICY_SHADOW)
		assert_int_equal(synced(), 1);
}

struct seen {
	unsigned n, mmio;
	struct engine_trace_event last;
};

static void on_trace(void *arg, const struct engine_trace_event *e)
{
	struct seen *seen = arg;

	seen->n++;
	seen->last = *e;
	seen->mmio += e->gva == M_MMIO + 8;
}

static void test_trace(void **state)
{
	struct engine_vcpu *v = m_vcpu(m, 0);
	struct engine_vcpu_stats before, after;
	struct seen seen = {0};

	start(mmio_write);
	m->ops->vcpu_stats(v, &before);
	m->ops->set_trace(m->vm, on_trace, &seen);
	expect_done(mmio_write);
	m->ops->vcpu_stats(v, &after);
	assert_int_equal(seen.n, after.cpu.exits - before.cpu.exits);
	assert_int_equal(seen.mmio, 1);
	assert_string_equal(seen.last.reason, "hlt");
	assert_int_equal(seen.last.icount, cpu_icount(v->cpu));
	m->ops->set_trace(m->vm, NULL, NULL);
	start(mmio_write);
	expect_done(mmio_write);
	assert_int_equal(seen.n, after.cpu.exits - before.cpu.exits);
}

#define TEST(name)                                                                                 \
	cmocka_unit_test_setup_teardown(name, setup_shadow, teardown),                             \
		cmocka_unit_test_setup_teardown(name, setup_tdp, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ports),    TEST(test_mmio),	     TEST(test_msr),
		TEST(test_cr),	     TEST(test_guest_fault), TEST(test_remap),
		TEST(test_misc),     TEST(test_interrupts),  TEST(test_no_progress),
		TEST(test_long_rep), TEST(test_noflush),     TEST(test_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
