/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kvm engine's loop: every mode, ports, MMIO, kicks, ends. Without vm/. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "devices/irq.h"
#include "engine/kvm/kvm_internal.h"
#include "tests/unit/cpu/common/tiny.h"
#include "tests/unit/engine/machine.h"

static struct machine *m;
static struct engine_vcpu *v;
static struct cpu_state s;

static int setup(void **state)
{
	if (m_kvm_missing())
		return 0;
	m = m_create(&(struct m_options){.kvm = true});
	v = m_vcpu(m, 0);
	return 0;
}

static int teardown(void **state)
{
	if (m)
		m_destroy(m);
	m = NULL;
	return 0;
}

static enum engine_exit run(void)
{
	enum engine_exit exit = m->ops->vcpu_run(v, ~0ull);

	if (exit == ENGINE_EXIT_ERROR)
		print_message("%s\n", m->ops->vcpu_error(v));
	return exit;
}

static void start(enum m_mode mode, const uint8_t *code, const uint8_t *end)
{
	m_start(m, 0, mode, 0);
	m_code(m, 0, code, end);
}

static void get(void)
{
	int ret = m->ops->vcpu_get_state(v, &s);

	if (ret)
		print_message("%s\n", m->ops->vcpu_error(v));
	assert_int_equal(ret, 0);
}

/* The same bytes in all modes. */
TINY_TEXT(hello, 32,
	  "mov $0x48, %al; out %al, $0xe9; mov $0x69, %al; out %al, $0xe9; mov $0x10000000, %esi;"
	  "mov $0x12345678, %eax; mov %eax, (%esi); mov 4(%esi), %eax; out %eax, $0x80;"
	  "out %al, $0xf4; hlt");

static void says_hello(enum m_mode mode)
{
	NEEDS_KVM;
	m->read_value = 0xfeedbeef;
	start(mode, hello, hello_end);
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	assert_string_equal(m->text, "Hi");
	assert_int_equal(m->mmio_count, 2);
	assert_int_equal(m->mmio.gpa, M_MMIO + 4);
	get();
	assert_int_equal(s.gpr[X86_RAX], 0xfeedbeef);
	assert_int_equal(s.rip, M_CODE + (uint64_t)(hello_end - hello) - 1);
}

static void test_32(void **state)
{
	says_hello(M_32);
}

static void test_pae(void **state)
{
	says_hello(M_PAE);
}

TINY_TEXT(hello64, 64,
	  "mov $0x48, %al; out %al, $0xe9; mov $0x69, %al; out %al, $0xe9; mov $0x10000000, %esi;"
	  "mov $0x12345678, %eax; mov %rax, (%rsi); out %al, $0xf4; hlt");

static void test_long(void **state)
{
	NEEDS_KVM;
	start(M_LONG, hello64, hello64_end);
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	assert_string_equal(m->text, "Hi");
	assert_int_equal(m->mmio.size, 8);
	assert_int_equal(m->mmio.data, 0x12345678);
}

/* Real mode from the state that reset leaves, but for where: CS:IP = 0:8000h. */
TINY_TEXT(real, 16,
	  "mov $0x5a, %al; mov $0xe9, %dx; out %al, %dx; mov $0xf4, %dx; out %al, %dx; hlt");

static void test_real(void **state)
{
	NEEDS_KVM;
	assert_int_equal(m->ops->vcpu_reset(v), 0);
	get();
	assert_int_equal(s.rip, 0xfff0);
	assert_int_equal(s.seg[X86_CS].base, 0xffff0000u);
	s.seg[X86_CS].sel = 0;
	s.seg[X86_CS].base = 0;
	s.rip = 0x8000;
	memcpy(m->ram + 0x8000, real, (size_t)(real_end - real));
	assert_int_equal(m->ops->vcpu_set_state(v, &s), 0);
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	assert_string_equal(m->text, "Z");
}

/* ---- accesses ------------------------------------------------------------------------------ */

TINY_TEXT(strings, 64,
	  "mov $0x200000, %esi; mov $26, %ecx; mov $0xe9, %edx; cld; rep outsb;"
	  "mov $0x210000, %edi; mov $5, %ecx; mov $0x80, %edx; rep insl; out %al, $0xf4; hlt");

static void test_strings(void **state)
{
	static const char text[] = "every element of a string.";

	NEEDS_KVM;
	memcpy(m->ram + M_DATA, text, sizeof(text));
	m->read_value = 0x11223344;
	start(M_LONG, strings, strings_end);
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	assert_string_equal(m->text, text);
	for (unsigned n = 0; n < 5; n++)
		assert_int_equal(m_word(m, M_DATA + 0x10000)[n], 0x11223344);
	assert_int_equal(m_word(m, M_DATA + 0x10000)[5], 0);
	get();
	assert_int_equal(s.gpr[X86_RCX], 0);
	assert_int_equal(s.gpr[X86_RDI], M_DATA + 0x10000 + 20);
}

/* A kick amid an access: the state is of after it, whole. */
TINY_TEXT(in_stop, 64, "mov $0, %eax; in $0xf4, %eax; hlt");
TINY_TEXT(mmio_stop, 64, "mov $0x10000ffc, %esi; mov (%rsi), %rax; nop; hlt");

static void test_pending_in(void **state)
{
	NEEDS_KVM;
	m->read_value = 0xabcdef01;
	start(M_LONG, in_stop, in_stop_end);
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	get();
	assert_int_equal(s.gpr[X86_RAX], 0xabcdef01);
	assert_int_equal(s.rip, M_CODE + 7);
}

/* Eight bytes over a page's end are two accesses, the first of which stops the machine. */
static void test_pending_mmio(void **state)
{
	NEEDS_KVM;
	m->read_value = 0x55667788;
	m->stop_on_mmio = true;
	start(M_LONG, mmio_stop, mmio_stop_end);
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	assert_int_equal(m->mmio_count, 2);
	get();
	assert_int_equal(s.gpr[X86_RAX], 0x5566778855667788);
	assert_int_equal(s.rip, M_CODE + 8);
}

/* ---- ends ---------------------------------------------------------------------------------- */

TINY_TEXT(triple, 64, "lidt 0f(%rip); mov 0x40000000, %eax; 0: .word 0; .quad 0");

static void test_shutdown(void **state)
{
	NEEDS_KVM;
	start(M_LONG, triple, triple_end);
	assert_int_equal(run(), ENGINE_EXIT_SHUTDOWN);
	get();
	assert_int_equal(s.idtr.limit, 0);
}

/* No KVM emulates PADDB, and none can let hardware do it where there is no memory. */
TINY_TEXT(paddb, 64, "mov $0x10000000, %esi; paddb (%rsi), %xmm0; hlt");

static void test_internal_error(void **state)
{
	uint8_t bytes[4];

	NEEDS_KVM;
	start(M_LONG, paddb, paddb_end);
	get();
	s.cr4 |= X86_CR4_OSFXSR;
	assert_int_equal(m->ops->vcpu_set_state(v, &s), 0);
	assert_int_equal(m->ops->vcpu_run(v, ~0ull), ENGINE_EXIT_ERROR);
	assert_non_null(strstr(m->ops->vcpu_error(v),
			       "at 0x100005: an instruction that it cannot "
			       "emulate (internal error 1), code 66 0f fc 06"));
	get();
	assert_int_equal(s.rip, M_CODE + 5);
	assert_int_equal(m->ops->vcpu_peek(v, s.rip, bytes, 4), 4);
	assert_memory_equal(bytes, paddb + 5, 4);
}

/* ---- kicks --------------------------------------------------------------------------------- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned returns, wanted;
	bool quit;
} k = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

/* vcpu_run() again each time that one more return is wanted. */
static void *runner(void *arg)
{
	pthread_mutex_lock(&k.lock);
	for (;;) {
		while (k.returns == k.wanted && !k.quit)
			pthread_cond_wait(&k.cond, &k.lock);
		if (k.quit)
			break;
		pthread_mutex_unlock(&k.lock);
		if (run() != ENGINE_EXIT_KICK)
			abort();
		pthread_mutex_lock(&k.lock);
		k.returns++;
		pthread_cond_broadcast(&k.cond);
	}
	pthread_mutex_unlock(&k.lock);
	return NULL;
}

TINY_TEXT(spin, 64, "0: inc %rax; jmp 0b");
TINY_TEXT(sleeps, 64, "0: cli; hlt; jmp 0b");

/* At whatever moment it comes, amid the guest or before it, a kick makes vcpu_run() return. */
static void kick_often(const uint8_t *code, const uint8_t *end)
{
	pthread_t t;

	start(M_LONG, code, end);
	k.returns = k.wanted = 0;
	k.quit = false;
	assert_int_equal(pthread_create(&t, NULL, runner, NULL), 0);
	for (unsigned n = 1; n <= 1000; n++) {
		pthread_mutex_lock(&k.lock);
		k.wanted = n;
		pthread_cond_broadcast(&k.cond);
		pthread_mutex_unlock(&k.lock);
		for (volatile unsigned wait = 0; wait < n % 16 * 500; wait++)
			;
		m->ops->vcpu_notify(v); /* does not count as one */
		m->ops->vcpu_kick(v);
		pthread_mutex_lock(&k.lock);
		while (k.returns < n)
			pthread_cond_wait(&k.cond, &k.lock);
		pthread_mutex_unlock(&k.lock);
	}
	pthread_mutex_lock(&k.lock);
	k.quit = true;
	pthread_cond_broadcast(&k.cond);
	pthread_mutex_unlock(&k.lock);
	pthread_join(t, NULL);
}

static void test_kick_spin(void **state)
{
	NEEDS_KVM;
	kick_often(spin, spin_end);
}

static void test_kick_sleep(void **state)
{
	NEEDS_KVM;
	kick_often(sleeps, sleeps_end);
}

/* ---- slots --------------------------------------------------------------------------------- */

/* Adds up what lies at 1 GiB and 1 GiB + 4 KiB for ever; [0x200000] counts the rounds. */
TINY_TEXT(adds, 64,
	  "mov $0x200000, %ebx; mov $0x30000000, %esi;"
	  "0: mov (%rsi), %eax; cmp $0x600d, %eax; jne 1f; incl (%rbx); jmp 0b;"
	  "1: out %eax, $0x81; incl 4(%rbx); jmp 0b");

#define SPARE 0x30000000ull

static void wait_rounds(unsigned n)
{
	uint32_t *count = m_word(m, M_DATA), from = __atomic_load_n(count, __ATOMIC_SEQ_CST);

	while (__atomic_load_n(count, __ATOMIC_SEQ_CST) - from < n)
		sched_yield();
}

/*
 * A slot in use is made read-only and writable again, is logged and not: the guest that reads it
 * all the time meets it in no other state than there.
 */
static void test_slot_changes(void **state)
{
	uint8_t *other;
	struct slot_desc slot = {.id = 3, .gpa = SPARE, .size = MIB(2)};
	pthread_t t;

	NEEDS_KVM;
	other = mmap(NULL, MIB(2), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	slot.host = other;
	*(uint32_t *)other = 0x600d;
	assert_int_equal(slot_add(m->mmu, &slot), 0);
	start(M_LONG, adds, adds_end);
	k.returns = 0;
	k.wanted = 1;
	k.quit = false;
	assert_int_equal(pthread_create(&t, NULL, runner, NULL), 0);
	for (unsigned n = 0; n < 200; n++) {
		wait_rounds(1);
		assert_int_equal(slot_set_flags(m->mmu, 3, n & 1 ? 0 : SLOT_READONLY), 0);
	}
	m->ops->vcpu_kick(v);
	pthread_mutex_lock(&k.lock);
	while (!k.returns)
		pthread_cond_wait(&k.cond, &k.lock);
	k.quit = true;
	pthread_cond_broadcast(&k.cond);
	pthread_mutex_unlock(&k.lock);
	pthread_join(t, NULL);
	assert_int_equal(m_word(m, M_DATA)[1], 0);
	assert_int_equal(slot_delete(m->mmu, 3), 0);
	munmap(other, MIB(2));
}

TINY_TEXT(writes, 64,
	  "mov $0x30000000, %esi; movl $7, (%rsi); mov (%rsi), %eax; out %al, $0xf4; hlt");

static void test_readonly(void **state)
{
	struct slot_desc slot = {.id = 3, .gpa = SPARE, .size = PAGE_SIZE, .flags = SLOT_READONLY};

	NEEDS_KVM;
	slot.host = m->ram + MIB(16);
	assert_int_equal(slot_add(m->mmu, &slot), 0);
	start(M_LONG, writes, writes_end);
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	assert_int_equal(m->mmio_count, 1);
	assert_true(m->mmio.write);
	get();
	assert_int_equal(s.gpr[X86_RAX], 0);
	/* Moved away there is nothing, but its memory is elsewhere now. */
	assert_int_equal(slot_move(m->mmu, 3, SPARE + MIB(2)), 0);
	m->read_value = 0x99;
	start(M_LONG, writes, writes_end);
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	assert_int_equal(m->mmio_count, 3);
	get();
	assert_int_equal(s.gpr[X86_RAX], 0x99);
}

/* What the kernel refuses is not there, and the request is named. */
static void test_slot_refused(void **state)
{
	struct slot_desc slot = {
		.id = 3,
		.gpa = SPARE,
		.size = PAGE_SIZE,
	};

	NEEDS_KVM;
	slot.host = m->ram;
	setenv("UMBRA_KVM_FAIL", "1:ENOSPC", 1);
	assert_int_equal(kvm_fault_setup(), 0);
	assert_int_equal(slot_add(m->mmu, &slot), -ENOSPC);
	unsetenv("UMBRA_KVM_FAIL");
	assert_int_equal(kvm_fault_setup(), 0);
	assert_string_equal(m->ops->error(m->vm),
			    "KVM_SET_USER_MEMORY_REGION: No space left on device");
	assert_int_equal(slot_get(m->mmu, 3, &slot), -ENOENT);
	assert_int_equal(slot_add(m->mmu, &slot), 0);
}

/* ---- more than one ------------------------------------------------------------------------- */

TINY_TEXT(ap, 16,
	  "mov $0x41, %al; mov $0xe9, %dx; out %al, %dx; mov $0xf4, %dx; out %al, %dx; hlt");

/* INIT and a start-up IPI begin a processor that waits. */
static void test_sipi(void **state)
{
	struct engine_vcpu *second;

	NEEDS_KVM;
	m_destroy(m);
	m = m_create(&(struct m_options){.kvm = true, .vcpus = 2});
	second = m_vcpu(m, 1);
	memcpy(m->ram + 0x9000, ap, (size_t)(ap_end - ap));
	assert_int_equal(m->ops->vcpu_get_state(second, &s), 0);
	assert_int_equal(s.activity, CPU_WAIT_FOR_SIPI);
	m->ops->vcpu_init(second);
	m->ops->vcpu_sipi(second, 9);
	assert_int_equal(m->ops->vcpu_run(second, ~0ull), ENGINE_EXIT_KICK);
	assert_string_equal(m->text, "A");
	assert_int_equal(m->ops->vcpu_get_state(second, &s), 0);
	assert_int_equal(s.seg[X86_CS].sel, 0x900);
}

/* ---- tracing ------------------------------------------------------------------------------- */

static unsigned traced_io, traced_mmio;

static void on_trace(void *arg, const struct engine_trace_event *e)
{
	if (!strcmp(e->reason, "io") && e->addr == M_PORT_TEXT && e->info == 0)
		traced_io++;
	if (!strcmp(e->reason, "mmio") && e->addr == M_MMIO && e->info == BIT(1))
		traced_mmio++;
}

static void test_trace(void **state)
{
	struct engine_vcpu_stats stats;

	NEEDS_KVM;
	traced_io = traced_mmio = 0;
	m->ops->set_trace(m->vm, on_trace, NULL);
	start(M_LONG, hello64, hello64_end);
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	assert_int_equal(traced_io, 2);
	assert_int_equal(traced_mmio, 1);
	m->ops->set_trace(m->vm, NULL, NULL);
	start(M_LONG, hello64, hello64_end);
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	assert_int_equal(traced_io, 2);
	m->ops->vcpu_stats(v, &stats);
	assert_int_equal(stats.kvm_exits[KVM_EXIT_MMIO], 2);
	assert_int_equal(stats.mmio, 2);
	assert_string_equal(engine_kvm_exit_name(KVM_EXIT_MMIO), "mmio");
	assert_null(engine_kvm_exit_name(ENGINE_KVM_EXITS));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* ---- eventfds ------------------------------------------------------------------------------ */

static uint64_t count_of(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

TINY_TEXT(doorbell, 64,
	  "mov $0x300, %edx; mov $1, %eax; out %ax, %dx; mov $7, %eax; out %ax, %dx;"
	  "mov $0x10000000, %esi; movl $5, (%rsi); movl $6, 4(%rsi); out %al, $0xf4; hlt");

/* A write that rings leaves no more; one of other data, or elsewhere, does. */
static void test_ioeventfd(void **state)
{
	struct engine_doorbell bell = {.addr = 0x300, .pio = true, .match = true, .size = 2};
	struct engine_doorbell mmio = {.addr = M_MMIO, .size = 4};
	unsigned before;

	NEEDS_KVM;
	bell.data = 7;
	bell.fd = eventfd(0, EFD_NONBLOCK);
	mmio.fd = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(m->ops->ioeventfd(m->vm, &bell, true), 0);
	assert_int_equal(m->ops->ioeventfd(m->vm, &bell, true), -EEXIST);
	assert_int_equal(m->ops->ioeventfd(m->vm, &mmio, true), 0);
	for (unsigned round = 0; round < 2; round++) {
		before = m->pio_count;
		m->mmio_count = 0;
		start(M_LONG, doorbell, doorbell_end);
		assert_int_equal(run(), ENGINE_EXIT_KICK);
		/* The stop's port, what did not match, and in the second round all. */
		assert_int_equal(m->pio_count - before, round ? 3 : 2);
		assert_int_equal(m->mmio_count, round ? 2 : 1);
		assert_int_equal(m->mmio.gpa, M_MMIO + 4);
		assert_int_equal(count_of(bell.fd), round ? 0 : 1);
		assert_int_equal(count_of(mmio.fd), round ? 0 : 1);
		if (!round) {
			assert_int_equal(m->ops->ioeventfd(m->vm, &bell, false), 0);
			assert_int_equal(m->ops->ioeventfd(m->vm, &mmio, false), 0);
		}
	}
	close(bell.fd);
	close(mmio.fd);
}

/* The 8259's request of IRQ 4, however long the kernel's worker takes. */
static void await_irq4(void)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_PIC_MASTER};

	do {
		sched_yield();
		assert_int_equal(kvm_call(m->vm->fd, KVM_GET_IRQCHIP, &chip), 0);
	} while (!(chip.chip.pic.irr & BIT(4)));
}

static void test_irqfd(void **state)
{
	uint64_t one = 1;
	int fd;

	NEEDS_KVM;
	fd = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(m->ops->irqfd(m->vm, IRQ_GSI_COUNT, fd, -1, true), -EINVAL);
	assert_int_equal(m->ops->irqfd(m->vm, 4, fd, -1, true), 0);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	await_irq4();
	assert_int_equal(m->ops->irqfd(m->vm, 4, fd, -1, false), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_32),		 TEST(test_pae),	  TEST(test_long),
		TEST(test_real),	 TEST(test_strings),	  TEST(test_pending_in),
		TEST(test_pending_mmio), TEST(test_shutdown),	  TEST(test_internal_error),
		TEST(test_kick_spin),	 TEST(test_kick_sleep),	  TEST(test_slot_changes),
		TEST(test_readonly),	 TEST(test_slot_refused), TEST(test_sipi),
		TEST(test_trace),	 TEST(test_ioeventfd),	  TEST(test_irqfd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
