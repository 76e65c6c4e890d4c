/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The choice of an engine, on hosts that are made up: what each lacks, and what is then told. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/choose_engine.h"

/* A definition, its host, and the answer. */
struct world {
	struct machine_def def;
	struct machine_files files;
	struct engine_config config;
	struct engine_choice choice;
	struct api_error err;
};

static void world_init(struct world *w, int engine)
{
	*w = (struct world){.config = {.vcpus = 1, .kvm_fd = -1}};
	machine_def_init(&w->def);
	machine_files_init(&w->files);
	w->def.engine = engine;
}

static int choose(struct world *w)
{
	return vm_choose_engine(&w->choice, &w->def, &w->files, &w->config, &w->err);
}

static void expect_soft(struct world *w, const char *why)
{
	assert_int_equal(choose(w), 0);
	assert_ptr_equal(w->choice.ops, &engine_soft);
	assert_false(w->choice.may_fall_back);
	if (!strstr(w->choice.why, why))
		fail_msg("\"%s\" is not in \"%s\"", why, w->choice.why);
}

static void expect_refusal(struct world *w, enum api_kind kind, const char *field, const char *why)
{
	assert_int_not_equal(choose(w), 0);
	assert_string_equal(api_kind_name(w->err.kind), api_kind_name(kind));
	assert_string_equal(w->err.field, field);
	if (!strstr(w->err.text, why))
		fail_msg("\"%s\" is not in \"%s\"", why, w->err.text);
}

static void soft_asks_nobody(void **state)
{
	struct world w;

	world_init(&w, MACHINE_ENGINE_SOFT);
	w.files.kvm_use = MACHINE_KVM_ALWAYS;
	expect_soft(&w, "the definition says so");
	assert_false(w.choice.may_kvm);
	/* Nor is there a way later. */
	assert_int_not_equal(vm_engine_allowed(&engine_kvm, &w.def, &w.files, &w.config, &w.err),
			     0);
	assert_string_equal(api_kind_name(w.err.kind), "denied");
	assert_int_equal(vm_engine_allowed(&engine_soft, &w.def, &w.files, &w.config, &w.err), 0);
}

/* Why the device could not be opened: the error's kind, and auto's reason. */
static void no_device(void **state)
{
	static const struct {
		int error;
		enum api_kind kind;
	} rows[] = {
		{ENOENT, API_KIND_NOT_SUPPORTED},
		{ENODEV, API_KIND_NOT_SUPPORTED},
		{EACCES, API_KIND_DENIED},
		{EPERM, API_KIND_DENIED},
	};
	struct world w;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		world_init(&w, MACHINE_ENGINE_KVM);
		w.files.kvm_error = rows[i].error;
		expect_refusal(&w, rows[i].kind, "engine", strerror(rows[i].error));
		w.def.engine = MACHINE_ENGINE_AUTO;
		expect_soft(&w, strerror(rows[i].error));
		assert_false(w.choice.may_kvm);
	}
}

static void host_says_never(void **state)
{
	struct world w;

	world_init(&w, MACHINE_ENGINE_KVM);
	w.files.kvm_use = MACHINE_KVM_NEVER;
	expect_refusal(&w, API_KIND_DENIED, "engine", "kvm = never");
	w.def.engine = MACHINE_ENGINE_AUTO;
	expect_soft(&w, "kvm = never");
}

/* A device that is open and answers no request of KVM's. */
static void no_kvm_behind_it(void **state)
{
	struct world w;

	world_init(&w, MACHINE_ENGINE_KVM);
	w.files.kvm = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_true(w.files.kvm >= 0);
	expect_refusal(&w, API_KIND_NOT_SUPPORTED, "engine", "is no KVM");
	w.def.engine = MACHINE_ENGINE_AUTO;
	w.files.kvm_use = MACHINE_KVM_ALWAYS;
	expect_soft(&w, "is no KVM");
	machine_files_finish(&w.files);
	assert_int_equal(w.files.kvm, -1);
}

/* What only our own MMU and clock have; the definition's field is named, before the device is. */
static void what_only_soft_can(void **state)
{
	static char mechanism[] = "unsync";
	struct world w;

	for (int k = 0; k < 6; k++) {
		static const char *const fields[] = {"clock",	   "mmu_disable", "mmu_max_page",
						     "mmu_tables", "tdp_format",  "dirty_ring"};

		world_init(&w, MACHINE_ENGINE_KVM);
		w.files.kvm_error = ENOENT;
		w.def.clock = k == 0 ? MACHINE_CLOCK_INSTRUCTIONS : MACHINE_CLOCK_HOST;
		w.def.mmu_disable = k == 1 ? mechanism : NULL;
		w.def.mmu_max_page = k == 2 ? MACHINE_MMU_PAGE_4K : MACHINE_MMU_PAGE_1G;
		w.def.mmu_tables = k == 3 ? MIB(1) : 0;
		w.def.tdp_format = k == 4 ? MACHINE_TDP_NPT : MACHINE_TDP_EPT;
		w.def.dirty_ring = k == 5 ? 1000 : 0;
		expect_refusal(&w, k == 5 ? API_KIND_INVALID_PARAMS : API_KIND_NOT_SUPPORTED,
			       fields[k], "");
		w.def.engine = MACHINE_ENGINE_AUTO;
		expect_soft(&w, w.err.text);
	}
}

static void options(void **state)
{
	struct world w;

	world_init(&w, MACHINE_ENGINE_KVM);
	w.files.kvm = 77;
	w.def.irqchip = MACHINE_IRQCHIP_SPLIT;
	w.def.dirty_ring = 4096;
	w.def.kvm_help = false;
	assert_int_equal(vm_engine_options(&engine_kvm, &w.def, &w.files, &w.config, &w.err), 0);
	assert_int_equal(w.config.kvm_fd, 77);
	assert_int_equal(w.config.policy, MMU_POLICY_KERNEL);
	assert_int_equal(w.config.irqchip, ENGINE_IRQCHIP_SPLIT);
	assert_int_equal(w.config.dirty_ring, 4096);
	assert_false(w.config.help);
	/* What is insisted on is for the engine to judge. */
	w.def.mmu = MACHINE_MMU_TDP;
	assert_int_equal(vm_engine_options(&engine_kvm, &w.def, &w.files, &w.config, &w.err), 0);
	assert_int_equal(w.config.policy, MMU_POLICY_TDP);
	w.def.mmu = MACHINE_MMU_SHADOW;
	assert_int_equal(vm_engine_options(&engine_soft, &w.def, &w.files, &w.config, &w.err), 0);
	assert_int_equal(w.config.policy, MMU_POLICY_SHADOW);
}

static void fall_back(void **state)
{
	struct engine_choice c = {.ops = &engine_kvm, .may_fall_back = true, .may_kvm = true};
	struct engine_error why = {"KVM_CREATE_VM: Device or resource busy"};
	struct api_error err = {0};

	assert_int_not_equal(vm_engine_error(&err, &engine_kvm, -EBUSY, &why), 0);
	assert_string_equal(api_kind_name(err.kind), "limit");
	assert_true(vm_engine_fall_back(&c, &err));
	assert_ptr_equal(c.ops, &engine_soft);
	assert_int_equal(err.kind, API_KIND_NONE);
	assert_non_null(strstr(c.why, "kvm failed: "));
	assert_non_null(strstr(c.why, why.text));
	/* Once. */
	vm_engine_error(&err, &engine_soft, -ENOMEM, &why);
	assert_false(vm_engine_fall_back(&c, &err));
	assert_string_equal(api_kind_name(err.kind), "internal");
}

/* This host's, where there is one: auto obeys the host's word; soft is said with the reason. */
static void this_host(void **state)
{
	struct engine_cpu_model model;
	struct engine_error why = {""};
	bool hardware = engine_kvm_has_hardware(&why);
	struct world w;

	world_init(&w, MACHINE_ENGINE_AUTO);
	engine_cpu_model_init(&model, 1, 1000000000);
	w.config.model = &model;
	w.files.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (w.files.kvm < 0) {
		print_message("SKIP: /dev/kvm: %s\n", strerror(errno));
		skip();
	}
	w.files.kvm_use = MACHINE_KVM_ALWAYS;
	assert_int_equal(choose(&w), 0);
	assert_ptr_equal(w.choice.ops, &engine_kvm);
	assert_true(w.choice.may_fall_back && w.choice.may_kvm);
	w.files.kvm_use = MACHINE_KVM_HARDWARE;
	assert_int_equal(choose(&w), 0);
	assert_ptr_equal(w.choice.ops, hardware ? &engine_kvm : &engine_soft);
	assert_true(w.choice.may_kvm);
	if (!hardware)
		assert_non_null(strstr(w.choice.why, why.text));
	machine_files_finish(&w.files);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(soft_asks_nobody),   cmocka_unit_test(no_device),
		cmocka_unit_test(host_says_never),    cmocka_unit_test(no_kvm_behind_it),
		cmocka_unit_test(what_only_soft_can), cmocka_unit_test(options),
		cmocka_unit_test(fall_back),	      cmocka_unit_test(this_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
