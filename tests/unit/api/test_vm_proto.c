/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reports and configurations as they go between umbrad and umbra-vm. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <json-c/json.h>

#include "api/vm_proto.h"
#include "base/fd.h"

static void test_report(void **state)
{
	for (int i = 1; i < VM_REASON_COUNT; i++) {
		struct vm_report r = {.state = VM_ENDED, .reason = (enum vm_reason)i, .code = 77};
		struct vm_report back;
		struct json_object *obj;

		strcpy(r.message, "a message");
		r.stats = json_object_new_object();
		obj = vm_report_to_json(&r);
		assert_int_equal(vm_report_from_json(&back, obj), 0);
		assert_int_equal(back.reason, i);
		assert_int_equal(back.code, 77);
		assert_string_equal(back.message, "a message");
		assert_non_null(back.stats);
		json_object_put(obj);
		vm_report_finish(&r);
		vm_report_finish(&back);
	}
}

static void test_report_refusals(void **state)
{
	static const char *const texts[] = {
		"[]",
		"{}",
		"{\"state\": 5}",
		"{\"state\": \"asleep\"}",
		"{\"state\": \"ended\"}",
		"{\"state\": \"ended\", \"reason\": \"boredom\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct json_object *obj = json_tokener_parse(texts[i]);
		struct vm_report r;

		assert_int_equal(vm_report_from_json(&r, obj), -EINVAL);
		json_object_put(obj);
	}
}

static void test_statuses(void **state)
{
	static const struct {
		enum vm_reason reason;
		int code, status;
	} cases[] = {
		{VM_REASON_POWEROFF, 0, 0},   {VM_REASON_RESET, 0, 126},
		{VM_REASON_CRASH, 0, 125},    {VM_REASON_HALTED, 0, 123},
		{VM_REASON_DEBUG_EXIT, 3, 3}, {VM_REASON_TIMEOUT, 0, 124},
		{VM_REASON_STOPPED, 0, 122},  {VM_REASON_BAD_IMAGE, 0, 65},
		{VM_REASON_ENGINE, 0, 127},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vm_report r = {.reason = cases[i].reason, .code = cases[i].code};

		assert_int_equal(vm_report_status(&r), cases[i].status);
	}
}

static void test_report_file(void **state)
{
	struct vm_report r = {.state = VM_ENDED, .reason = VM_REASON_POWEROFF};
	int fd = memfd_create("report", 0);
	char text[256] = "";

	assert_int_equal(write(fd, "what was there before, longer than it", 37), 37);
	assert_int_equal(vm_report_write(fd, &r), 0);
	assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(
		text, "{\"state\":\"ended\",\"reason\":\"poweroff\",\"code\":0,\"status\":0}");
	close(fd);
}

static int config_fd(const char *text)
{
	int fd = memfd_create("config", 0);

	assert_int_equal(fd_write_full(fd, text, strlen(text)), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static void test_config(void **state)
{
	int kernel = memfd_create("kernel", 0), module = memfd_create("module", 0), fd;
	struct vm_config config;
	struct api_error err;
	char text[256];

	snprintf(text, sizeof(text),
		 "{\"definition\": {\"name\": \"a\", \"kernel\": \"/k\", \"module\": [\"/m\"]},"
		 "\"files\": {\"kernel\": %d, \"module\": [%d]}}",
		 kernel, module);
	fd = config_fd(text);
	assert_int_equal(vm_config_read(&config, fd, &err), 0);
	assert_int_equal(config.files.kernel, kernel);
	assert_int_equal(config.files.initrd, -1);
	assert_int_equal(config.files.modules[0], module);
	assert_int_equal(fcntl(kernel, F_GETFD), FD_CLOEXEC);
	vm_config_finish(&config);
	assert_int_equal(fcntl(kernel, F_GETFD), -1);
	close(fd);
}

/* /dev/kvm's descriptor or why there is none, and the host's word, there and back. */
static void test_config_kvm(void **state)
{
	static const int errors[] = {0, EACCES};
	struct machine_def def;
	struct machine_files files;

	machine_def_init(&def);
	machine_files_init(&files);
	def.name = strdup("a");
	def.kernel = strdup("/k");
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		struct vm_config config;
		struct json_object *obj;
		struct api_error err;
		int fd, kvm = errors[i] ? -1 : open("/dev/null", O_RDWR);

		files.kernel = memfd_create("kernel", 0);
		files.kvm = kvm;
		files.kvm_error = errors[i];
		files.kvm_use = MACHINE_KVM_ALWAYS;
		obj = vm_config_to_json(&def, &files);
		fd = config_fd(json_object_to_json_string(obj));
		json_object_put(obj);
		assert_int_equal(vm_config_read(&config, fd, &err), 0);
		assert_int_equal(config.files.kvm, kvm);
		assert_int_equal(config.files.kvm_error, errors[i]);
		assert_int_equal(config.files.kvm_use, MACHINE_KVM_ALWAYS);
		vm_config_finish(&config);
		if (kvm >= 0)
			assert_int_equal(fcntl(kvm, F_GETFD), -1);
		close(fd);
	}
	machine_def_finish(&def);
}

static void test_config_refusals(void **state)
{
	static const char *const texts[] = {
		"",
		"[]",
		"{}",
		"{\"definition\": {}, \"files\": {}}",
		"{\"definition\": {\"name\": \"a\", \"kernel\": \"k\"}, \"files\": {}}",
		"{\"definition\": {\"name\": \"a\", \"kernel\": \"k\"}, \"files\": {\"kernel\": "
		"999}}",
		"{\"definition\": {\"name\": \"a\", \"kernel\": \"k\"}, \"files\": {\"kernel\": "
		"\"3\"}}",
		"{\"definition\": {\"name\": \"a\"}, \"files\": {\"kernel\": 0}}",
		/* 3 is this text: a file, but no device. */
		"{\"definition\": {\"name\": \"a\", \"kernel\": \"k\"}, \"files\": {\"kernel\": 3, "
		"\"kvm\": {\"use\": \"always\", \"fd\": 3}}}",
		"{\"definition\": {\"name\": \"a\", \"kernel\": \"k\"}, \"files\": {\"kernel\": 3, "
		"\"kvm\": {\"use\": \"often\"}}}",
		"{\"definition\": {\"name\": \"a\", \"kernel\": \"k\"}, \"files\": {\"kernel\": 3, "
		"\"kvm\": 3}}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct vm_config config;
		struct api_error err = {0};
		int fd = config_fd(texts[i]);

		assert_int_not_equal(vm_config_read(&config, fd, &err), 0);
		assert_int_not_equal(err.text[0], 0);
		close(fd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_report),	   cmocka_unit_test(test_report_refusals),
		cmocka_unit_test(test_statuses),   cmocka_unit_test(test_report_file),
		cmocka_unit_test(test_config),	   cmocka_unit_test(test_config_refusals),
		cmocka_unit_test(test_config_kvm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
