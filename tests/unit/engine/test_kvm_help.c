/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where the kernel cannot, our processor does: the instructions by themselves, no kernel needed;
 * then with this host's KVM, whether it can do them itself or not. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/kvm/kvm_internal.h"
#include "tests/unit/cpu/common/tiny.h"
#include "tests/unit/engine/machine.h"

/* ---- without a kernel --------------------------------------------------------------------------
 *
 * A vCPU as the kvm engine has it, but without a descriptor, over the memory of a soft machine.
 */

static struct machine *m;
static struct engine_vm vm;
static struct engine_vcpu v;
static struct cpu_state *s;

static int setup(void **state)
{
	static const struct m_options options = {.policy = MMU_POLICY_TDP};

	m = m_create(&options);
	memset(&vm, 0, sizeof(vm));
	memset(&v, 0, sizeof(v));
	vm.config = (struct engine_config){
		.vcpus = 1, .model = &m->model, .host = &m_host, .host_priv = m, .help = true};
	vm.mmu = m->mmu;
	vm.caps.exit_on_emulation_failure = true;
	pthread_mutex_init(&vm.domain_lock, NULL);
	v.vm = &vm;
	v.fd = -1;
	return mmu_vcpu_create(m->mmu, 1, &v.mmu);
}

static int teardown(void **state)
{
	kvm_help_finish(&v);
	cpu_destroy(v.cpu);
	cpu_domain_destroy(vm.domain);
	mmu_vcpu_destroy(v.mmu);
	pthread_mutex_destroy(&vm.domain_lock);
	m_destroy(m);
	return 0;
}

static void start(enum m_mode mode, const uint8_t *code, const uint8_t *end)
{
	struct cpu_state from;

	m_start(m, 0, mode, 0);
	m_code(m, 0, code, end);
	assert_int_equal(m->ops->vcpu_get_state(m_vcpu(m, 0), &from), 0);
	vm.model = m->model;
	assert_non_null(kvm_cpu(&v));
	s = cpu_state(v.cpu);
	*s = from;
	cpu_state_changed(v.cpu);
}

/* One KVM_EXIT_INTERNAL_ERROR. */
static int help(void)
{
	enum engine_exit exit = ENGINE_EXIT_KICK;

	return kvm_help_state(&v, &exit);
}

static uint64_t counted(const char *name)
{
	struct engine_helped list[32];
	unsigned n = kvm_helped(&v, list, ARRAY_SIZE(list));

	while (n--)
		if (!strcmp(list[n].name, name))
			return list[n].count;
	return 0;
}

static uint64_t stacked(unsigned n)
{
	uint64_t word;

	memcpy(&word, m->ram + s->gpr[X86_RSP] + 8 * n, 8);
	return word;
}

static void is_in_handler(unsigned vector)
{
	assert_int_equal(s->rip, M_HANDLERS + 16 * vector);
	assert_false(s->event.valid);
}

TINY_TEXT(popcnt, 64, "mov $0, %ecx; popcnt %rbx, %rcx; hlt");

static void test_plain(void **state)
{
	start(M_LONG, popcnt, popcnt_end);
	s->rip += 5;
	assert_int_equal(help(), 0);
	assert_int_equal(s->gpr[X86_RCX], __builtin_popcountll(M_DATA));
	assert_int_equal(s->rip, M_CODE + 10);
	assert_int_equal(counted("popcnt"), 1);
	assert_int_equal(v.stats.helped, 1);
	assert_int_equal(v.stats.help_runs, 1);
}

/* The kernel gives up on it though the guest's processor has no such instruction. */
static void test_not_shown(void **state)
{
	assert_int_equal(engine_cpu_model_mask(&m->model, "-popcnt", NULL), 0);
	start(M_LONG, popcnt, popcnt_end);
	s->rip += 5;
	assert_int_equal(help(), 0);
	is_in_handler(X86_VEC_UD);
	assert_int_equal(stacked(0), M_CODE + 5);
	assert_int_equal(s->gpr[X86_RCX], 0);
}

TINY_TEXT(xrstor, 64, "xrstor (%rbx); hlt");

static void test_xrstor_without_osxsave(void **state)
{
	start(M_LONG, xrstor, xrstor_end);
	assert_int_equal(help(), 0);
	is_in_handler(X86_VEC_UD);
}

static void test_xrstor(void **state)
{
	static const uint64_t header = X86_XCR0_SSE;

	start(M_LONG, xrstor, xrstor_end);
	s->cr4 |= X86_CR4_OSXSAVE | X86_CR4_OSFXSR;
	s->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE;
	s->gpr[X86_RAX] = X86_XCR0_SSE;
	s->gpr[X86_RDX] = 0;
	memset(m->ram + M_DATA, 0, 576);
	memcpy(m->ram + M_DATA + 512, &header, 8);
	memset(m->ram + M_DATA + 160, 0x5a, 16);
	*m_word(m, M_DATA + 24) = 0x1f80;
	assert_int_equal(help(), 0);
	assert_int_equal(s->rip, M_CODE + 3);
	assert_int_equal(s->fx.xmm[0].q[1], 0x5a5a5a5a5a5a5a5a);
}

TINY_TEXT(int3, 64, "int3; hlt");

static void test_int3(void **state)
{
	start(M_LONG, int3, int3_end);
	assert_int_equal(help(), 0);
	is_in_handler(X86_VEC_BP);
	assert_int_equal(stacked(0), M_CODE + 1);
	assert_int_equal(counted("int3"), 1);
}

static void test_shutdown(void **state)
{
	enum engine_exit exit = ENGINE_EXIT_KICK;

	start(M_LONG, int3, int3_end);
	s->idtr.limit = 0;
	assert_int_equal(kvm_help_state(&v, &exit), 1);
	assert_int_equal(exit, ENGINE_EXIT_SHUTDOWN);
}

/* In 32-bit code, with tables of the old form. */
TINY_TEXT(fault, 32, "movl $0x20003000, %ebx; fldl (%ebx); hlt");

static void test_page_fault(void **state)
{
	start(M_32, fault, fault_end);
	memcpy(m->ram + M_IDT + X86_VEC_PF * 8, &(uint64_t){0x00128e0000100000}, 8);
	s->rip += 5;
	s->gpr[X86_RBX] = M_FAR + 0x3000;
	assert_int_equal(help(), 0);
	assert_int_equal(s->rip, M_HANDLERS);
	assert_int_equal(s->cr2, M_FAR + 0x3000);
	assert_int_equal(*m_word(m, s->gpr[X86_RSP]), 0);
	assert_int_equal(*m_word(m, s->gpr[X86_RSP] + 4), M_CODE + 5);
}

static void test_single_step(void **state)
{
	start(M_LONG, popcnt, popcnt_end);
	s->rip += 5;
	s->rflags |= X86_FLAG_TF;
	assert_int_equal(help(), 0);
	is_in_handler(X86_VEC_DB);
	assert_int_equal(stacked(0), M_CODE + 10);
	assert_true(s->dr6 & X86_DR6_BS);
}

/* An event that the kernel had still to deliver comes first; the instruction is for another time.
 */
static void test_event_first(void **state)
{
	start(M_LONG, popcnt, popcnt_end);
	s->event = (struct cpu_event){.valid = true, .type = CPU_EVENT_NMI, .vector = X86_VEC_NMI};
	assert_int_equal(help(), 0);
	is_in_handler(X86_VEC_NMI);
	assert_true(s->nmi_blocked);
	assert_int_equal(v.stats.helped, 0);
}

/* ---- runs --------------------------------------------------------------------------------------
 */

TINY_TEXT(row, 64,
	  "popcnt %rbx, %rcx; popcnt %rbx, %rcx; popcnt %rbx, %rcx; popcnt %rbx, %rcx;"
	  "popcnt %rbx, %rcx; popcnt %rbx, %rcx; out %al, $0x80; popcnt %rbx, %rcx; hlt");

static void test_run_grows(void **state)
{
	start(M_LONG, row, row_end);
	assert_int_equal(help(), 0);
	assert_int_equal(s->rip, M_CODE + 5);
	assert_int_equal(help(), 0);
	assert_int_equal(s->rip, M_CODE + 15);
	/* Up to the port, which is the kernel's. */
	assert_int_equal(help(), 0);
	assert_int_equal(s->rip, M_CODE + 30);
	assert_int_equal(m->pio_count, 0);
	assert_int_equal(v.stats.helped, 6);
	assert_int_equal(v.stats.help_runs, 3);
	/* Somewhere else: one by one again. */
	s->rip = M_CODE + 0x1000;
	m_code(m, 0x1000, row, row_end);
	assert_int_equal(help(), 0);
	assert_int_equal(s->rip, M_CODE + 0x1005);
}

/* Whatever the kernel has to see ends a run and is not done. */
TINY_TEXT(leaves, 64,
	  "popcnt %rbx, %rcx; mov %rcx, %cr3; popcnt %rbx, %rcx; mov %rcx, %cr0;"
	  "popcnt %rbx, %rcx; rdmsr; popcnt %rbx, %rcx; invlpg (%rbx); popcnt %rbx, %rcx; rdtsc");

static void test_run_ends(void **state)
{
	static const unsigned lengths[] = {3, 3, 2, 3, 2};
	unsigned at = 0;

	start(M_LONG, leaves, leaves_end);
	for (unsigned n = 0; n < ARRAY_SIZE(lengths); n++) {
		s->rip = M_CODE + at;
		s->gpr[X86_RCX] = 0xc0000080;
		v.stats.helped = 0;
		assert_int_equal(help(), 0);
		at += 5;
		assert_int_equal(s->rip, M_CODE + at);
		assert_int_equal(v.stats.helped, 1);
		assert_int_equal(s->cr3, M_TABLES);
		at += lengths[n];
	}
}

TINY_TEXT(ports, 64, "out %eax, $0x80; in $0x81, %al; rep outsb; hlt");

/* Should it give up on one of these: they are done all the same. */
static void test_first_may_leave(void **state)
{
	start(M_LONG, ports, ports_end);
	s->gpr[X86_RAX] = 0x12345678;
	assert_int_equal(help(), 0);
	assert_int_equal(m->pio.port, 0x80);
	assert_int_equal(m->pio.data, 0x12345678);
	m->read_value = 0xab;
	assert_int_equal(help(), 0);
	assert_int_equal(s->gpr[X86_RAX], 0x123456ab);
	s->gpr[X86_RCX] = 3;
	s->gpr[X86_RDX] = M_PORT_TEXT;
	s->gpr[X86_RSI] = M_DATA;
	memcpy(m->ram + M_DATA, "abc", 3);
	for (unsigned n = 0; n < 4 && s->gpr[X86_RCX]; n++)
		assert_int_equal(help(), 0);
	assert_string_equal(m->text, "abc");
}

/* ---- the kernel's shadows ----------------------------------------------------------------------
 */

TINY_TEXT(pair, 64, "lock cmpxchg16b (%rbx); hlt");

/* cmpxchg16b of @was into @becomes: is the kernel told to drop its tables? */
static bool makes_stale(enum m_mode mode, uint64_t was, uint64_t becomes)
{
	const uint64_t two[2] = {was, 0};

	m_start(m, 0, mode, 0);
	start(mode, pair, pair_end);
	memcpy(m->ram + M_DATA, two, sizeof(two));
	s->gpr[X86_RAX] = was;
	s->gpr[X86_RBX] = becomes;
	s->gpr[X86_RDX] = s->gpr[X86_RCX] = 0;
	s->gpr[X86_RSI] = M_DATA;
	m->ram[M_CODE + 4] = 0x0e; /* (%rsi) */
	kvm_help_finish(&v);
	assert_int_equal(help(), 0);
	assert_memory_equal(m->ram + M_DATA, &becomes, 8);
	return kvm_help_stale(&v);
}

static void test_stale(void **state)
{
	assert_true(makes_stale(M_LONG, 0x1234067, 0));
	assert_true(makes_stale(M_LONG, 0x8000000001234025, 0x1234027));
	assert_false(makes_stale(M_LONG, 0x1234067, 0x1234067)); /* no change */
	assert_false(makes_stale(M_LONG, 0, 0x1234067));	 /* was not present */
	assert_false(makes_stale(M_LONG, 0x1234066, 0));
	assert_false(makes_stale(M_LONG, 0x1234047, 0));	  /* was never used */
	assert_false(makes_stale(M_LONG, 0xffff888001234067, 0)); /* reserved bits: no entry */
}

/* What is written in help is in the machine's dirty log, the accessed flags of the walk as well. */
static void test_logged(void **state)
{
	struct dirty_client *log;
	gfn_t gfns[16], all = 0;
	ssize_t n;

	start(M_LONG, pair, pair_end);
	s->gpr[X86_RAX] = s->gpr[X86_RDX] = s->gpr[X86_RCX] = 0;
	assert_int_equal(dirty_client_create(m->mmu, "test", 0, &log), 0);
	assert_int_equal(dirty_client_watch(log, DIRTY_ALL_SLOTS), 0);
	assert_int_equal(help(), 0);
	n = dirty_take(log, gfns, ARRAY_SIZE(gfns));
	dirty_client_destroy(log);
	assert_in_range(n, 2, ARRAY_SIZE(gfns));
	for (ssize_t k = 0; k < n; k++)
		all |= gfns[k] == M_DATA >> PAGE_SHIFT	   ? 1
		       : gfns[k] == M_TABLES >> PAGE_SHIFT ? 2
							   : 0;
	assert_int_equal(all, 3);
}

/* ---- with the kernel ---------------------------------------------------------------------------
 */

static int kvm_setup(void **state)
{
	if (m_kvm_missing())
		return 0;
	m = m_create(&(struct m_options){.kvm = true, .help = *state == NULL});
	return 0;
}

static int kvm_teardown(void **state)
{
	if (m)
		m_destroy(m);
	m = NULL;
	return 0;
}

static struct cpu_state kvm_run_code(const uint8_t *code, const uint8_t *end)
{
	struct engine_vcpu *kv = m_vcpu(m, 0);
	struct cpu_state ret;

	m_start(m, 0, M_LONG, 0);
	m_code(m, 0, code, end);
	if (m->ops->vcpu_run(kv, ~0ull) != ENGINE_EXIT_KICK)
		fail_msg("%s", m->ops->vcpu_error(kv));
	assert_int_equal(m->ops->vcpu_get_state(kv, &ret), 0);
	return ret;
}

/* In kernel mode: what an emulating KVM lacks. */
TINY_TEXT(mixed, 64,
	  "lea 256(%rbx), %rsi; mov %cr4, %rax; or $0x600, %eax; mov %rax, %cr4; fwait; fninit;"
	  "fld1; fldpi; fstpl (%rsi); fstpl 8(%rsi); movl $0x1fa0, (%rbx); ldmxcsr (%rbx);"
	  "stmxcsr 4(%rbx); mov $0x12345, %eax; movd %eax, %xmm3; pxor %xmm1, %xmm1; paddd %xmm3, "
	  "%xmm1;"
	  "movdqu %xmm1, 16(%rsi); xor %eax, %eax; xor %edx, %edx; xor %ecx, %ecx; mov $7, %rdi;"
	  "push %rbx; mov $9, %ebx; lock cmpxchg16b 32(%rsi); pop %rbx; verw 8(%rbx);"
	  "pushfq; pop %rdi; out %al, $0xf4; hlt");

static void test_kvm_mixed(void **state)
{
	struct cpu_state got;

	NEEDS_KVM;
	got = kvm_run_code(mixed, mixed_end);
	assert_int_equal(*m_word(m, M_DATA + 4), 0x1fa0);
	assert_memory_equal(m->ram + M_DATA + 256, &(double){3.141592653589793}, 8);
	assert_memory_equal(m->ram + M_DATA + 264, &(double){1}, 8);
	assert_int_equal(*m_word(m, M_DATA + 272), 0x12345);
	assert_int_equal(*m_word(m, M_DATA + 288), 9);
	assert_int_equal(got.fx.mxcsr, 0x1fa0);
	assert_int_equal(got.fx.xmm[3].d[0], 0x12345);
	assert_int_equal(got.gpr[X86_RSP], M_STACK);
}

/* A debugger's step is one instruction, whoever carries it out. */
static void test_kvm_step(void **state)
{
	static const struct cpu_host_debug step = {.single_step = true};
	struct engine_vcpu *kv;
	struct cpu_state got;

	NEEDS_KVM;
	kv = m_vcpu(m, 0);
	m_start(m, 0, M_LONG, 0);
	m_text(m, 0, popcnt);
	assert_int_equal(m->ops->vcpu_set_debug(kv, &step), 0);
	for (unsigned n = 0; n < 2; n++) {
		struct engine_debug_hit hit;

		assert_int_equal(m->ops->vcpu_run(kv, ~0ull), ENGINE_EXIT_DEBUG);
		m->ops->vcpu_debug_hit(kv, &hit);
		assert_int_equal(hit.kind, ENGINE_DEBUG_STEP);
		assert_int_equal(hit.gva, M_CODE + 5 * (n + 1));
	}
	assert_int_equal(m->ops->vcpu_get_state(kv, &got), 0);
	assert_int_equal(got.gpr[X86_RCX], __builtin_popcountll(M_DATA));
}

/* Without help the machine ends, and says at what. */
static void test_kvm_refused(void **state)
{
	struct engine_vcpu *kv;
	enum engine_exit exit;

	NEEDS_KVM;
	kv = m_vcpu(m, 0);
	m_start(m, 0, M_LONG, 0);
	m_code(m, 0, mixed, mixed_end);
	exit = m->ops->vcpu_run(kv, ~0ull);
	if (exit == ENGINE_EXIT_KICK)
		skip(); /* this KVM can do all of it */
	assert_int_equal(exit, ENGINE_EXIT_ERROR);
	assert_non_null(strstr(m->ops->vcpu_error(kv), "code 9b"));
}

/*
 * The reader, outside kernel mode, has used an entry of a table. The kernel changes it by an
 * instruction that the KVM of this host may not know, and flushes the TLB as it must: the reader
 * sees the other page.
 */
TINY_TEXT(reader, 64, "mov 0x20000000, %al; out %al, $0xe9; out %al, $0xf4; hlt");
TINY_TEXT(changer, 64, "lock cmpxchg16b (%rsi); invlpg 0x20000000; out %al, $0xf4; hlt");

/* The state of now, but in ring 3 with every port; a TSS has the stack for the way back. */
static void go_outside(struct cpu_state *r)
{
	static const uint64_t stack0 = M_STACK - 0x4000,
			      gdt[] = {0x00affb000000ffff, 0x00cff3000000ffff};

	r->rip = M_CODE;
	r->rflags |= X86_FLAG_IOPL;
	r->seg[X86_CS].sel = 0x2b;
	r->seg[X86_CS].attr |= 3 << 5;
	for (unsigned k = 0; k < 6; k++) {
		if (k == X86_CS)
			continue;
		r->seg[k].sel = 0x33;
		r->seg[k].attr |= 3 << 5;
	}
	r->tr = (struct cpu_seg){.base = M_DATA + 0x8000, .limit = 0x67, .sel = 0x40, .attr = 0x8b};
	memcpy(m->ram + M_DATA + 0x8004, &stack0, 8);
	memcpy(m->ram + M_GDT + 0x28, gdt, sizeof(gdt));
	r->gdtr.limit = 0x37;
}

static void run_state(const struct cpu_state *r)
{
	struct engine_vcpu *kv = m_vcpu(m, 0);

	assert_int_equal(m->ops->vcpu_set_state(kv, r), 0);
	if (m->ops->vcpu_run(kv, ~0ull) != ENGINE_EXIT_KICK)
		fail_msg("%s", m->ops->vcpu_error(kv));
}

static void read_far(const struct cpu_state *from)
{
	struct cpu_state r = *from;

	go_outside(&r);
	run_state(&r);
}

static void test_kvm_table_write(void **state)
{
	struct engine_vcpu *kv;
	struct cpu_state boss, r;
	uint64_t entry;

	NEEDS_KVM;
	kv = m_vcpu(m, 0);
	m_start(m, 0, M_LONG, 0);
	m_code(m, 0, reader, reader_end);
	m_code(m, 0x100, changer, changer_end);
	m->ram[M_DATA] = 'a';
	m->ram[M_DATA + PAGE_SIZE] = 'b';
	m_map(m, 0, M_DATA | 7);
	assert_int_equal(m->ops->vcpu_get_state(kv, &boss), 0);
	read_far(&boss);
	memcpy(&entry, m->ram + M_PT, 8);
	r = boss;
	r.rip = M_CODE + 0x100;
	r.gpr[X86_RSI] = M_PT;
	r.gpr[X86_RAX] = entry;
	r.gpr[X86_RBX] = entry + PAGE_SIZE;
	r.gpr[X86_RDX] = r.gpr[X86_RCX] = 0;
	run_state(&r);
	read_far(&boss);
	assert_string_equal(m->text, "ab");
}

/* Into the kernel by SYSCALL and by INT n, after so many exits that the gates were looked at. */
#define BUSY "mov $80, %ecx; 1: out %al, $0x80; dec %ecx; jnz 1b;"
TINY_TEXT(by_syscall, 64, BUSY "mov $5, %esi; syscall; hlt");
TINY_TEXT(by_int, 64, BUSY "mov $5, %esi; int $0x21; hlt");
TINY_TEXT(inside, 64,
	  "mov %cs, %eax; or $0x30, %al; out %al, $0xe9; mov $0x73, %al; out %al, $0xe9;"
	  "out %al, $0xf4; hlt");

TINY_TEXT(wrong, 64, "mov $0x78, %al; out %al, $0xe9; out %al, $0xf4; hlt");

static void start_outside(const uint8_t *code, const uint8_t *end, struct cpu_state *ret)
{
	m_start(m, 0, M_LONG, 0);
	m_code(m, 0, code, end);
	/* Should it not go where it is to go: an end all the same. */
	for (unsigned n = 0; n < 32; n++)
		memcpy(m->ram + M_HANDLERS + 16 * n, wrong, (size_t)(wrong_end - wrong));
	assert_int_equal(m->ops->vcpu_get_state(m_vcpu(m, 0), ret), 0);
	go_outside(ret);
}

static void test_kvm_syscall(void **state)
{
	struct cpu_state r;

	NEEDS_KVM;
	start_outside(by_syscall, by_syscall_end, &r);
	m_map(m, 0, (M_DATA + 0x1000) | 3); /* not ring 3's */
	memcpy(m->ram + M_DATA + 0x1000, inside, (size_t)(inside_end - inside));
	r.efer |= X86_EFER_SCE;
	r.lstar = M_FAR;
	r.star = 8ull << 32;
	r.fmask = X86_FLAG_IOPL | X86_FLAG_IF;
	r.rflags |= X86_FLAG_IF;
	run_state(&r);
	assert_string_equal(m->text, "8s");
	assert_int_equal(m->ops->vcpu_get_state(m_vcpu(m, 0), &r), 0);
	assert_int_equal(r.gpr[X86_RCX], M_CODE + (uint64_t)(by_syscall_end - by_syscall) - 1);
	assert_int_equal(r.gpr[X86_RSI], 5);
	assert_int_equal(r.rflags & X86_FLAG_IOPL, 0);
}

/* A jump to where SYSCALL goes is a page fault. */
TINY_TEXT(by_jump, 64, BUSY "mov $0x3202, %r11d; mov $0x20000000, %ecx; jmp *%rcx");

static void test_kvm_no_syscall(void **state)
{
	struct cpu_state r;

	NEEDS_KVM;
	start_outside(by_jump, by_jump_end, &r);
	m_map(m, 0, (M_DATA + 0x1000) | 3);
	memcpy(m->ram + M_DATA + 0x1000, inside, (size_t)(inside_end - inside));
	r.efer |= X86_EFER_SCE;
	r.lstar = M_FAR;
	r.star = 8ull << 32;
	r.fmask = X86_FLAG_IOPL | X86_FLAG_IF;
	r.rflags |= X86_FLAG_IF;
	run_state(&r);
	assert_string_equal(m->text, "x");
}

static void test_kvm_int(void **state)
{
	struct cpu_state r;
	uint64_t back;

	NEEDS_KVM;
	start_outside(by_int, by_int_end, &r);
	m->ram[M_IDT + 16 * 0x21 + 5] = 0xee;
	memcpy(m->ram + M_HANDLERS + 16 * 0x21, inside, (size_t)(inside_end - inside));
	run_state(&r);
	assert_string_equal(m->text, "8s");
	assert_int_equal(m->ops->vcpu_get_state(m_vcpu(m, 0), &r), 0);
	memcpy(&back, m->ram + r.gpr[X86_RSP], 8);
	assert_int_equal(back, M_CODE + (uint64_t)(by_int_end - by_int) - 1);
	assert_int_equal(r.gpr[X86_RSI], 5);
}

/* A #UD that is the guest's own goes to its handler. */
TINY_TEXT(bad, 64, BUSY "ud2; hlt");

static void test_kvm_ud(void **state)
{
	struct cpu_state r;

	NEEDS_KVM;
	start_outside(bad, bad_end, &r);
	m->ram[M_IDT + 16 * 0x21 + 5] = 0xee;
	memcpy(m->ram + M_HANDLERS + 16 * X86_VEC_UD, inside, 16);
	run_state(&r);
	assert_string_equal(m->text, "8s");
	assert_int_equal(m->ops->vcpu_get_state(m_vcpu(m, 0), &r), 0);
	memcpy(&r.cr2, m->ram + r.gpr[X86_RSP], 8);
	assert_int_equal(r.cr2, M_CODE + (uint64_t)(bad_end - bad) - 3);
}

int main(void)
{
	static bool no_help = true;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_plain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_shown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xrstor_without_osxsave, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xrstor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_int3, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shutdown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_page_fault, setup, teardown),
		cmocka_unit_test_setup_teardown(test_single_step, setup, teardown),
		cmocka_unit_test_setup_teardown(test_event_first, setup, teardown),
		cmocka_unit_test_setup_teardown(test_run_grows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_run_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_first_may_leave, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale, setup, teardown),
		cmocka_unit_test_setup_teardown(test_logged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kvm_mixed, kvm_setup, kvm_teardown),
		cmocka_unit_test_setup_teardown(test_kvm_step, kvm_setup, kvm_teardown),
		cmocka_unit_test_prestate_setup_teardown(test_kvm_refused, kvm_setup, kvm_teardown,
							 &no_help),
		cmocka_unit_test_setup_teardown(test_kvm_table_write, kvm_setup, kvm_teardown),
		cmocka_unit_test_setup_teardown(test_kvm_syscall, kvm_setup, kvm_teardown),
		cmocka_unit_test_setup_teardown(test_kvm_no_syscall, kvm_setup, kvm_teardown),
		cmocka_unit_test_setup_teardown(test_kvm_int, kvm_setup, kvm_teardown),
		cmocka_unit_test_setup_teardown(test_kvm_ud, kvm_setup, kvm_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
