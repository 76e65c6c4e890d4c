/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The processor that a guest of the kvm engine's sees: CPUID and MSRs beside the soft engine's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/kvm/kvm_internal.h"
#include "tests/unit/cpu/common/tiny.h"
#include "tests/unit/engine/machine.h"

/* ---- the table of MSRs (needs no /dev/kvm) -------------------------------------------------- */

static struct cpu *cpu_of(const struct engine_cpu_model *model, struct cpu_domain *d)
{
	struct cpu_cpuid leaves[ENGINE_CPUID_MAX];

	return cpu_create(d, leaves, engine_cpu_model_cpuid(model, 0, leaves));
}

static bool lapics(uint32_t index)
{
	return index == X86_MSR_APIC_BASE || index == X86_MSR_TSC_DEADLINE ||
	       (index >= X86_MSR_X2APIC_FIRST && index <= X86_MSR_X2APIC_LAST);
}

static void compare_msrs(bool amd)
{
	static const uint32_t from[] = {0, 0x4b564d00, 0xc0000000, 0xc0010000, 0xc0011000};
	struct cpu_domain *d = cpu_domain_create();
	struct engine_cpu_model model;
	unsigned known = 0;
	struct cpu *c;
	uint64_t value;

	engine_cpu_model_init(&model, 1, 1000000000);
	if (amd)
		assert_int_equal(engine_cpu_model_mask(&model, "vendor=AuthenticAMD", NULL), 0);
	c = cpu_of(&model, d);
	for (unsigned n = 0; n < ARRAY_SIZE(from); n++) {
		for (uint32_t k = from[n]; k < from[n] + 0x2000; k++) {
			bool soft = lapics(k) || cpu_rdmsr(c, k, &value) >= 0;

			if (soft != kvm_msr_known(&model, k))
				fail_msg("MSR %#x: soft %d", k, soft);
			known += soft;
		}
	}
	assert_true(known > 300);
	cpu_destroy(c);
	cpu_domain_destroy(d);
}

static void test_msr_set(void **state)
{
	compare_msrs(false);
	compare_msrs(true);
}

/* ---- limits -------------------------------------------------------------------------------- */

static void test_limit(void **state)
{
	struct cpu_cpuid leaves[ENGINE_CPUID_MAX];
	struct engine_cpu_model full, limited;
	char names[128], tiny[8];
	unsigned n;

	engine_cpu_model_init(&full, 1, 1000000000);
	limited = full;
	n = engine_cpu_model_cpuid(&full, 0, leaves);
	engine_cpu_model_limit(&limited, leaves, n);
	assert_int_equal(engine_cpu_model_missing(&full, &limited, names, sizeof(names)), 0);
	assert_string_equal(names, "");
	for (unsigned k = 0; k < n; k++) {
		if (leaves[k].leaf == 1)
			leaves[k].ecx &= ~(uint32_t)(BIT(17) | BIT(22)); /* pcid, movbe */
		if (leaves[k].leaf == 0x80000008u)
			leaves[k].eax = (leaves[k].eax & ~0xffu) | 39;
	}
	engine_cpu_model_limit(&limited, leaves, n);
	assert_int_equal(engine_cpu_model_missing(&full, &limited, names, sizeof(names)), 3);
	assert_string_equal(names, "pcid movbe maxphyaddr=46");
	assert_int_equal(engine_cpu_model_missing(&full, &limited, tiny, sizeof(tiny)), 3);
	assert_string_equal(tiny, "pcid mo");
	assert_int_equal(limited.maxphyaddr, 39);
	assert_int_equal(engine_cpu_model_missing(&limited, &full, names, sizeof(names)), 0);
}

static void test_kvmclock_word(void **state)
{
	struct cpu_cpuid leaves[ENGINE_CPUID_MAX];
	struct engine_cpu_model m;
	unsigned n;

	engine_cpu_model_init(&m, 1, 1000000000);
	m.kvm = true;
	assert_false(engine_cpu_model_shows(&m, "kvmclock"));
	assert_int_equal(engine_cpu_model_mask(&m, "+kvmclock", NULL), 0);
	assert_true(engine_cpu_model_shows(&m, "kvmclock"));
	n = engine_cpu_model_cpuid(&m, 0, leaves);
	for (unsigned k = 0; k < n; k++) {
		if (leaves[k].leaf == 0x40000000u)
			assert_memory_equal(&leaves[k].ebx, "KVMKVMKVM\0\0", 12);
		if (leaves[k].leaf == 0x40000001u)
			assert_int_equal(leaves[k].eax, BIT(3) | BIT(24));
	}
	m.kvm = false; /* the soft engine's */
	assert_false(engine_cpu_model_shows(&m, "kvmclock"));
	m.kvm = true;
	assert_int_equal(engine_cpu_model_mask(&m, "common", NULL), 0);
	assert_true(m.common);
	assert_false(engine_cpu_model_shows(&m, "kvmclock"));
}

/* ---- what the guest finds -------------------------------------------------------------------- */

static struct machine *m;

static enum engine_exit run(void)
{
	enum engine_exit exit = m->ops->vcpu_run(m_vcpu(m, 0), ~0ull);

	if (exit == ENGINE_EXIT_ERROR)
		print_message("%s\n", m->ops->vcpu_error(m_vcpu(m, 0)));
	return exit;
}

static struct cpu_state state_of(void)
{
	struct cpu_state s;

	assert_int_equal(m->ops->vcpu_get_state(m_vcpu(m, 0), &s), 0);
	return s;
}

/* CPUID(EAX, ECX) again and again: the leaf goes in by a port, the answer is the state. */
TINY_TEXT(cpuid, 64, "in $0x80, %eax; xor %ecx, %ecx; cpuid; out %al, $0xf4; jmp cpuid");

/* Every leaf is the model's, as far as the kernel can, and what the kernel adds is known. */
static void test_cpuid(void **state)
{
	struct cpu_cpuid leaves[ENGINE_CPUID_MAX];
	struct engine_cpu_model model;
	char names[512];
	unsigned n, extra;

	NEEDS_KVM;
	m = m_create(&(struct m_options){.kvm = true});
	model = m->model;
	assert_int_equal(engine_kvm_cpu_limit(m->kvm_fd, &model), 0);
	assert_memory_equal(model.off, m_vcpu(m, 0)->vm->model.off, sizeof(model.off));
	n = kvm_cpuid_leaves(m_vcpu(m, 0), leaves);
	extra = engine_kvm_cpu_extra(m->vm, names, sizeof(names));
	print_message("this KVM shows %u bits of its own: %s\n", extra, names);
	m_start(m, 0, M_LONG, 0);
	m_text(m, 0, cpuid);
	for (unsigned k = 0; k < n; k++) {
		struct cpu_state s;

		if (leaves[k].subleaf != 0 && leaves[k].subleaf != CPU_CPUID_ANY)
			continue;
		m->read_value = leaves[k].leaf;
		assert_int_equal(run(), ENGINE_EXIT_KICK);
		s = state_of();
		if (leaves[k].leaf == 1) /* OSXSAVE follows CR4 */
			s.gpr[X86_RCX] &= ~BIT(27);
		if (leaves[k].leaf == 0xd) /* XCR0's size, not the model's greatest */
			s.gpr[X86_RBX] = leaves[k].ebx;
		if (s.gpr[X86_RAX] != leaves[k].eax || s.gpr[X86_RBX] != leaves[k].ebx ||
		    s.gpr[X86_RCX] != leaves[k].ecx || s.gpr[X86_RDX] != leaves[k].edx)
			fail_msg("leaf %#x: %#llx %#llx %#llx %#llx, not %#x %#x %#x %#x",
				 leaves[k].leaf, (unsigned long long)s.gpr[X86_RAX],
				 (unsigned long long)s.gpr[X86_RBX],
				 (unsigned long long)s.gpr[X86_RCX],
				 (unsigned long long)s.gpr[X86_RDX], leaves[k].eax, leaves[k].ebx,
				 leaves[k].ecx, leaves[k].edx);
	}
	m_destroy(m);
}

/* RDMSR of what comes in by the port; #GP ends at the handler, which sleeps: so it stops there. */
TINY_TEXT(rdmsr, 64, "in $0x80, %eax; mov %eax, %ecx; rdmsr; out %al, $0xf4; jmp rdmsr");
TINY_TEXT(gp_handler, 64, "out %al, $0xf4; hlt");

static int guest_rdmsr(uint32_t index, uint64_t *value)
{
	struct cpu_state s;

	m_start(m, 0, M_LONG, 0);
	m->read_value = index;
	m->msr_count = 0;
	assert_int_equal(run(), ENGINE_EXIT_KICK);
	s = state_of();
	if (s.rip < M_CODE || s.rip > M_CODE + 0x1000)
		return 1;
	*value = (uint32_t)s.gpr[X86_RAX] | s.gpr[X86_RDX] << 32;
	return 0;
}

/* What the soft engine refuses, this one refuses; constants are the model's. */
static void test_msrs(void **state)
{
	static const uint32_t absent[] = {0x12345678, 0x34,  0x140, 0x17b,	0x345,
					  0xce,	      0x1fc, 0x11,  0x4b564d00, 0xc0010117};
	uint64_t value;

	NEEDS_KVM;
	m = m_create(&(struct m_options){.kvm = true});
	m_text(m, 0, rdmsr);
	memcpy(m->ram + M_HANDLERS + 16 * X86_VEC_GP, gp_handler,
	       (size_t)(gp_handler_end - gp_handler));
	for (unsigned n = 0; n < ARRAY_SIZE(absent); n++) {
		m->msr_gp = true;
		if (!guest_rdmsr(absent[n], &value))
			fail_msg("MSR %#x is there", absent[n]);
	}
	assert_int_equal(guest_rdmsr(X86_MSR_BIOS_SIGN_ID, &value), 0);
	assert_int_equal(value, CPU_MICROCODE);
	assert_int_equal(guest_rdmsr(X86_MSR_FEATURE_CONTROL, &value), 0);
	assert_int_equal(value, 1);
	assert_int_equal(guest_rdmsr(X86_MSR_MCG_CAP, &value), 0);
	assert_int_equal(value, 0);
	assert_int_equal(guest_rdmsr(X86_MSR_MTRRCAP, &value), 0);
	assert_int_equal(value, 0x508);
	assert_int_equal(guest_rdmsr(X86_MSR_ARCH_CAPABILITIES, &value), 0);
	assert_int_equal(value & ~CPU_ARCH_CAPABILITIES, 0);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_msr_set),	      cmocka_unit_test(test_limit),
		cmocka_unit_test(test_kvmclock_word), cmocka_unit_test(test_cpuid),
		cmocka_unit_test(test_msrs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
