/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every call to the kernel in a small guest's life fails once: what comes is an error that names
 * it, or the machine copes; nothing leaks. And no KVM, or none that will do.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/kvm/kvm_internal.h"
#include "tests/unit/cpu/common/tiny.h"
#include "tests/unit/engine/machine.h"

TINY_TEXT(
	guest, 64,
	"mov $0x48, %al; out %al, $0xe9; mov $0x10000000, %esi; mov (%rsi), %eax; mov %eax, (%rsi);"
	"in $0x80, %al; out %al, $0xf4; mov $0x69, %al; out %al, $0xe9; out %al, $0xf4; hlt");

/* Shared with the child that lives the life. */
struct outcome {
	char text[1024]; /* the error; "": none */
	unsigned fds_before, fds_after;
};
static struct outcome *outcome;

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	closedir(d);
	return n;
}

static void tell(const char *text)
{
	if (!outcome->text[0])
		snprintf(outcome->text, sizeof(outcome->text), "%s", text[0] ? text : "no words");
}

static bool runs(struct machine *m, const char *text)
{
	struct engine_vcpu *v = m_vcpu(m, 0);

	if (m->ops->vcpu_run(v, ~0ull) != ENGINE_EXIT_KICK) {
		tell(m->ops->vcpu_error(v));
		return false;
	}
	if (strcmp(m->text, text))
		abort();
	return true;
}

static bool slots_change(struct machine *m)
{
	struct slot_desc slot = {.id = 5, .gpa = GIB(1), .size = MIB(1), .host = m->ram};
	int ret = slot_add(m->mmu, &slot);

	if (!ret)
		ret = slot_move(m->mmu, 5, GIB(1) + MIB(2));
	if (!ret)
		ret = slot_set_flags(m->mmu, 5, SLOT_READONLY);
	if (!ret)
		ret = slot_delete(m->mmu, 5);
	if (ret)
		tell(m->ops->error(m->vm));
	return !ret;
}

static bool state_moves(struct machine *m)
{
	struct engine_vcpu *v = m_vcpu(m, 0);
	struct cpu_state s;
	struct mmu_regs regs;
	uint64_t tsc;

	if (m->ops->vcpu_get_state(v, &s) || m->ops->vcpu_set_state(v, &s) ||
	    m->ops->vcpu_get_tsc(v, &tsc) || m->ops->vcpu_set_tsc(v, tsc) ||
	    m->ops->vcpu_mmu_regs(v, &regs)) {
		tell(m->ops->vcpu_error(v));
		return false;
	}
	return true;
}

static bool starts(struct machine *m)
{
	m_text(m, 0, guest);
	return m_try_start(m, 0, M_LONG, outcome->text, sizeof(outcome->text));
}

/* True: as if nothing had happened. */
static bool live(const struct m_options *o)
{
	struct engine_error err = {""};
	struct machine *m = m_try_create(o, &err);
	bool ok;

	if (!m) {
		tell(err.text);
		return false;
	}
	ok = starts(m) && runs(m, "H") && state_moves(m) && slots_change(m) && runs(m, "Hi");
	m_destroy(m);
	return ok;
}

/* In a child: 0 it went well, 1 an error was told. What it leaks, LeakSanitizer says by 23. */
static int child(const struct m_options *o, const char *fail, const char *log)
{
	int status;
	pid_t pid;

	memset(outcome, 0, sizeof(*outcome));
	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		bool ok;

		setenv("UMBRA_KVM_FAIL", fail, 1);
		setenv("UMBRA_KVM_LOG", log, 1);
		if (kvm_fault_setup())
			abort();
		outcome->fds_before = open_fds();
		ok = live(o);
		outcome->fds_after = open_fds();
		exit(ok ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
		fail_msg("failing call %s: status %#x, \"%s\"", fail, status, outcome->text);
	assert_int_equal(outcome->fds_before, outcome->fds_after);
	return WEXITSTATUS(status);
}

/* The names of the calls, in their order. */
static unsigned read_log(const char *path, char names[][48], unsigned max)
{
	FILE *f = fopen(path, "re");
	unsigned n = 0;

	assert_non_null(f);
	while (n < max && fgets(names[n], sizeof(names[n]), f)) {
		names[n][strcspn(names[n], "\n")] = 0;
		n++;
	}
	fclose(f);
	return n;
}

#define CALLS_MAX 1024

static void fail_each(const struct m_options *o)
{
	static const char *const errors[] = {"EBUSY", "ENOMEM", "EINVAL", "EFAULT"};
	static char names[CALLS_MAX][48];
	bool all = getenv("UMBRA_TEST_LONG") != NULL;
	char log[] = "/tmp/umbra-kvm-XXXXXX", text[64];
	unsigned count, told = 0, coped = 0;

	NEEDS_KVM;
	close(mkstemp(log));
	if (child(o, "", log))
		fail_msg("%s", outcome->text);
	count = read_log(log, names, CALLS_MAX);
	unlink(log);
	assert_true(count > 50 && count < CALLS_MAX);
	for (unsigned n = 0; n < count; n++) {
		for (unsigned e = 0; e < ARRAY_SIZE(errors); e++) {
			if (!all && e != n % ARRAY_SIZE(errors))
				continue;
			snprintf(text, sizeof(text), "%u:%s", n + 1, errors[e]);
			if (!child(o, text, "")) {
				coped++;
				continue;
			}
			told++;
			if (!strstr(outcome->text, names[n]))
				fail_msg("%s (%s) failed: the error is \"%s\"", names[n], text,
					 outcome->text);
		}
	}
	print_message("%u calls; %u failures told, %u coped with\n", count, told, coped);
	assert_true(told > coped / 2);
}

static void test_each_kernel(void **state)
{
	fail_each(&(struct m_options){.kvm = true});
}

static void test_each_split(void **state)
{
	fail_each(&(struct m_options){
		.kvm = true, .irqchip = ENGINE_IRQCHIP_SPLIT, .vcpus = 2, .help = true});
}

/* ---- older kernels ------------------------------------------------------------------------- */

static int live_without(const struct m_options *o, const char *caps)
{
	int ret;

	setenv("UMBRA_KVM_WITHOUT", caps, 1);
	ret = child(o, "", "");
	unsetenv("UMBRA_KVM_WITHOUT");
	return ret;
}

/*
 * Without each capability in turn: the same life, or an error that names it. Those two are asked
 * for by the machine: a PIT of the kernel's, a read-only slot.
 */
static void test_without_each(void **state)
{
	bool required;
	const char *name;

	NEEDS_KVM;
	for (unsigned n = 0; (name = kvm_caps_name(n, &required)); n++) {
		bool told = live_without(&(struct m_options){.kvm = true}, name);

		required |= !strcmp(name, "KVM_CAP_PIT2") || !strcmp(name, "KVM_CAP_READONLY_MEM");
		if (told != required || (told && !strstr(outcome->text, name)))
			fail_msg("without %s: \"%s\"", name, outcome->text);
	}
}

/* What Linux 5.10 has not (include/uapi/linux/kvm.h of then): all of it at once. */
static void test_linux_5_10(void **state)
{
	static const char without[] =
		"KVM_CAP_DIRTY_LOG_RING,KVM_CAP_DIRTY_LOG_RING_ACQ_REL,KVM_CAP_SET_GUEST_DEBUG2,"
		"KVM_CAP_SREGS2,KVM_CAP_BINARY_STATS_FD,KVM_CAP_EXIT_ON_EMULATION_FAILURE,"
		"KVM_CAP_XSAVE2,KVM_CAP_VCPU_ATTRIBUTES,KVM_CAP_X86_TRIPLE_FAULT_EVENT";

	NEEDS_KVM;
	if (live_without(&(struct m_options){.kvm = true, .help = true}, without) ||
	    live_without(&(struct m_options){.kvm = true, .irqchip = ENGINE_IRQCHIP_SPLIT},
			 without))
		fail_msg("%s", outcome->text);
	setenv("UMBRA_KVM_WITHOUT", "KVM_CAP_SREGS2,KVM_CAP_NONSENSE", 1);
	assert_int_equal(kvm_fault_setup(), -EINVAL);
	unsetenv("UMBRA_KVM_WITHOUT");
	assert_int_equal(kvm_fault_setup(), 0);
}

/* ---- none, or none that will do ---------------------------------------------------------------
 */

static void refused(int fd, int error, const char *words)
{
	struct engine_config config = {.vcpus = 1, .policy = MMU_POLICY_KERNEL, .kvm_fd = fd};
	struct engine_error err = {""};
	struct engine_vm *vm = NULL;
	int ret = engine_kvm.probe(&config, &err);

	assert_int_equal(ret, error);
	if (!strstr(err.text, words))
		fail_msg("\"%s\" does not say \"%s\"", err.text, words);
	assert_int_equal(engine_kvm.create(&config, &vm, &err), error);
	assert_null(vm);
	assert_int_equal(engine_kvm.probe(&config, NULL), error);
}

static void test_no_kvm(void **state)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	refused(-1, -ENODEV, "no KVM");
	refused(fd, -ENODEV, "no KVM");
	close(fd);
}

static void test_bad_config(void **state)
{
	struct engine_config config = {.vcpus = 1, .policy = MMU_POLICY_KERNEL};
	struct engine_error err;

	NEEDS_KVM;
	config.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	assert_int_equal(engine_kvm.probe(&config, &err), 0);
	config.clock = ENGINE_CLOCK_INSTRUCTIONS;
	assert_int_equal(engine_kvm.probe(&config, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "count instructions"));
	config.clock = ENGINE_CLOCK_HOST;
	config.vcpus = 1u << 20;
	assert_int_equal(engine_kvm.probe(&config, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "vCPUs"));
	config.vcpus = 1;
	config.dirty_ring = 1000;
	assert_int_equal(engine_kvm.probe(&config, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "ring"));
	close(config.kvm_fd);
}

static void test_bad_variable(void **state)
{
	static const char *const bad[] = {"x", "0", "1:", "1:ENOSUCH", "1:99999", "1x"};

	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		setenv("UMBRA_KVM_FAIL", bad[n], 1);
		assert_int_equal(kvm_fault_setup(), -EINVAL);
	}
	unsetenv("UMBRA_KVM_FAIL");
	assert_int_equal(kvm_fault_setup(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_kvm),	     cmocka_unit_test(test_bad_config),
		cmocka_unit_test(test_bad_variable), cmocka_unit_test(test_each_kernel),
		cmocka_unit_test(test_each_split),   cmocka_unit_test(test_without_each),
		cmocka_unit_test(test_linux_5_10),
	};

	outcome = mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
