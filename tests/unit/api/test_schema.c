/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The field checker, machine definitions, names and sizes, and the method tables' consistency. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "api/api.h"
#include "api/machine_ops.h"
#include "api/base64.h"
#include "api/vm_handlers.h"
#include "api/vm_proto.h"

static int parse(struct machine_def *def, const char *text, struct api_error *err)
{
	struct json_object *obj = json_tokener_parse(text);
	int ret = machine_def_parse(def, obj, "dflt", "", err);

	json_object_put(obj);
	return ret;
}

static void test_defaults(void **state)
{
	struct machine_def def;
	struct api_error err;

	assert_int_equal(parse(&def, "{\"kernel\": \"/k\"}", &err), 0);
	assert_string_equal(def.name, "dflt");
	assert_string_equal(def.kernel, "/k");
	assert_null(def.initrd);
	assert_int_equal(def.memory, MIB(256));
	assert_int_equal(def.cpus, 1);
	assert_int_equal(def.engine, MACHINE_ENGINE_AUTO);
	assert_true(def.timeout == 0);
	machine_def_finish(&def);
}

static void test_round_trip(void **state)
{
	static const char text[] =
		"{\"name\": \"a.b-c_d\", \"kernel\": \"/k\", \"initrd\": \"/i\", \"cmdline\": "
		"\"x=\\\"y\\\"\","
		"\"module\": [\"/m\", \"/n\"], \"memory\": \"2560K\", \"cpus\": 64, \"engine\": "
		"\"kvm\","
		"\"mmu\": \"tdp\", \"tdp_format\": \"npt\", \"clock\": \"instructions\","
		"\"boot\": \"multiboot\","
		"\"cpu\": \"-pcid\", \"on_reset\": \"restart\", \"timeout\": 1.5}";
	struct machine_def def, again;
	struct json_object *obj;
	struct api_error err;

	assert_int_equal(parse(&def, text, &err), 0);
	assert_int_equal(def.memory, KIB(2560));
	assert_int_equal(def.boot, MACHINE_BOOT_MULTIBOOT);
	assert_int_equal(def.tdp_format, MACHINE_TDP_NPT);
	assert_int_equal(def.on_reset, MACHINE_RESET_RESTART);
	assert_int_equal(def.modules.n, 2);
	obj = machine_def_to_json(&def);
	assert_int_equal(machine_def_parse(&again, obj, NULL, "", &err), 0);
	assert_string_equal(again.modules.v[1], "/n");
	assert_string_equal(again.cmdline, "x=\"y\"");
	assert_string_equal(again.cpu, "-pcid");
	assert_int_equal(again.memory, def.memory);
	assert_true(again.timeout == 1.5);
	json_object_put(obj);
	machine_def_finish(&def);
	machine_def_finish(&again);
}

static void test_refusals(void **state)
{
	static const struct {
		const char *text, *field, *says;
	} cases[] = {
		{"{}", "kernel", "missing"},
		{"{\"kernel\": \"\"}", "kernel", "path"},
		{"{\"kernel\": 1}", "kernel", "not 1"},
		{"{\"kernel\": \"k\", \"kernle\": 1}", "kernle", "\"kernel\""},
		{"{\"kernel\": \"k\", \"zzzzzzzz\": 1}", "zzzzzzzz", "unknown"},
		{"{\"kernel\": \"k\", \"cpus\": 0}", "cpus", "1 to 64"},
		{"{\"kernel\": \"k\", \"cpus\": 99999999999999999999}", "cpus", "1 to 64"},
		{"{\"kernel\": \"k\", \"cpus\": -99999999999999999999}", "cpus", "1 to 64"},
		{"{\"kernel\": \"k\", \"cpus\": true}", "cpus", "integer"},
		{"{\"kernel\": \"k\", \"memory\": 0}", "memory", "2M"},
		{"{\"kernel\": \"k\", \"memory\": -1}", "memory", "2M"},
		{"{\"kernel\": \"k\", \"memory\": 9223372036854775807}", "memory", "2M"},
		{"{\"kernel\": \"k\", \"memory\": \"1025K\"}", "memory", "pages"},
		{"{\"kernel\": \"k\", \"memory\": \"18446744073709551616\"}", "memory", "size"},
		{"{\"kernel\": \"k\", \"engine\": \"sotf\"}", "engine", "\"soft\""},
		{"{\"kernel\": \"k\", \"timeout\": 1e400}", "timeout", "number"},
		{"{\"kernel\": \"k\", \"timeout\": NaN}", "timeout", "number"},
		{"{\"kernel\": \"k\", \"name\": \".a\"}", "name", "letter"},
		{"{\"kernel\": \"k\", \"cmdline\": \"a\\u0000b\"}", "cmdline", "NUL"},
		{"{\"kernel\": \"k\", \"module\": \"m\"}", "module", "array"},
		{"[]", "", "object"},
		{"5", "", "object"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct machine_def def;
		struct api_error err = {0};

		assert_int_not_equal(parse(&def, cases[i].text, &err), 0);
		assert_int_equal(err.kind, API_KIND_INVALID_PARAMS);
		assert_string_equal(err.field, cases[i].field);
		assert_non_null(strstr(err.text, cases[i].says));
	}
}

static void test_sizes(void **state)
{
	uint64_t n;

	assert_int_equal(api_size_parse("5", &n), 0);
	assert_int_equal(n, MIB(5));
	assert_int_equal(api_size_parse("5k", &n), 0);
	assert_int_equal(n, KIB(5));
	assert_int_equal(api_size_parse("2GiB", &n), 0);
	assert_int_equal(n, GIB(2));
	assert_int_equal(api_size_parse("1T", &n), 0);
	assert_int_equal(n, GIB(1024));
	assert_int_equal(api_size_parse("512MB", &n), 0);
	assert_int_equal(api_size_parse("", &n), -EINVAL);
	assert_int_equal(api_size_parse("-5", &n), -EINVAL);
	assert_int_equal(api_size_parse("5X", &n), -EINVAL);
	assert_int_equal(api_size_parse("5MM", &n), -EINVAL);
	assert_int_equal(api_size_parse("99999999999999999999", &n), -ERANGE);
	assert_int_equal(api_size_parse("18446744073709551615T", &n), -ERANGE);
}

static void test_names(void **state)
{
	char longest[70];

	memset(longest, 'a', sizeof(longest));
	longest[63] = 0;
	assert_true(api_name_valid(longest));
	longest[63] = 'a';
	longest[64] = 0;
	assert_false(api_name_valid(longest));
	assert_true(api_name_valid("0"));
	assert_false(api_name_valid(""));
	assert_false(api_name_valid(".."));
	assert_false(api_name_valid("a/b"));
	assert_false(api_name_valid("a b"));
	assert_false(api_name_valid("-f"));
}

static void test_text_values(void **state)
{
	const struct api_field *module = api_field_find(&machine_def_fields, "module");
	const struct api_field *cpus = api_field_find(&machine_def_fields, "cpus");
	struct json_object *v = NULL;
	struct api_error err;

	assert_int_equal(api_field_from_text(module, "/a", &v, &err), 0);
	assert_int_equal(api_field_from_text(module, "/b", &v, &err), 0);
	assert_int_equal(json_object_array_length(v), 2);
	json_object_put(v);
	v = NULL;
	assert_int_equal(api_field_from_text(cpus, "7", &v, &err), 0);
	assert_int_equal(json_object_get_int(v), 7);
	assert_int_not_equal(api_field_from_text(cpus, "7x", &v, &err), 0);
	assert_int_not_equal(api_field_from_text(cpus, "", &v, &err), 0);
	json_object_put(v);
}

static void check_fields(const struct api_fields *fields)
{
	assert_non_null(fields->what);
	for (size_t i = 0; i < fields->n; i++) {
		const struct api_field *f = &fields->f[i];

		assert_non_null(f->name);
		assert_non_null(f->help);
		assert_ptr_equal(api_field_find(fields, f->name), f);
		if (f->type == API_ENUM)
			assert_non_null(f->choices);
		if (f->type == API_INT || f->type == API_NUMBER || f->type == API_SIZE)
			assert_true(f->min < f->max || (f->min == f->max && f->min == 1));
		if (f->object)
			check_fields(f->object);
	}
}

/* Each of the first @handlers rows is whole, and has a handler of the ops struct for itself. */
static void check_table(const struct api_table *table, size_t handlers)
{
	assert_true(api_method_count(table) >= handlers);
	for (size_t i = 0; i < handlers; i++) {
		const struct api_method *m = api_method_at(table, i);
		size_t len = strlen(m->summary);

		assert_ptr_equal(api_method_find(table, m->name), m);
		assert_non_null(strchr(m->name, '.'));
		assert_true(len && m->summary[len - 1] == '.');
		assert_non_null(m->since);
		assert_int_equal(m->handler % sizeof(api_handler), 0);
		assert_true(m->handler < handlers * sizeof(api_handler));
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(m->handler, api_method_at(table, j)->handler);
		check_fields(&m->params);
		check_fields(&m->result);
	}
}

static void test_addresses(void **state)
{
	static const struct {
		const char *text;
		int ret;
		uint64_t addr;
	} cases[] = {
		{"0", 0, 0},
		{"0x0", 0, 0},
		{"4096", 0, 4096},
		{"0Xfee00000", 0, 0xfee00000},
		{"0xffffffffffffffff", 0, ~0ull},
		{"18446744073709551615", 0, ~0ull},
		{"18446744073709551616", -ERANGE, 0},
		{"0x10000000000000000", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"0x", -EINVAL, 0},
		{"0x-1", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{"1f", -EINVAL, 0},
	};
	const struct api_field field = {.name = "addr", .type = API_ADDR, .help = "an address"};
	const struct api_fields fields = {.what = "the parameters", .f = &field, .n = 1};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct json_object *v = NULL, *obj = json_object_new_object();
		uint64_t addr = 42, loaded = 42;
		struct api_error err;

		assert_int_equal(api_addr_parse(cases[i].text, &addr), cases[i].ret);
		assert_int_equal(addr, cases[i].ret ? 42 : cases[i].addr);
		assert_int_equal(!api_field_from_text(&field, cases[i].text, &v, &err),
				 !cases[i].ret);
		if (v) {
			json_object_object_add(obj, "addr", v);
			assert_int_equal(api_fields_check(&fields, obj, "", &err), 0);
			assert_int_equal(api_fields_load(&fields, obj, &loaded), 0);
			assert_int_equal(loaded, cases[i].addr);
			v = api_addr_new(loaded);
			assert_int_equal(api_addr_get(v), loaded);
			json_object_put(v);
		}
		json_object_put(obj);
	}
}

static void test_tables(void **state)
{
	const size_t n = sizeof(struct api_machine_ops) / sizeof(api_handler);
	struct json_object *doc;

	check_table(&api_umbrad_methods, sizeof(struct api_ops) / sizeof(api_handler));
	assert_int_equal(api_umbrad_methods.n, sizeof(struct api_ops) / sizeof(api_handler));
	check_table(&api_machine_methods, n);
	assert_int_equal(api_method_count(&api_machine_methods), n);
	assert_ptr_equal(api_umbrad_methods.more, &api_machine_methods);
	assert_ptr_equal(vm_methods.more, &api_machine_methods);
	assert_null(api_method_at(&api_machine_methods, n));
	for (size_t i = 0; i < n; i++) {
		const struct api_method *m = api_method_at(&api_machine_methods, i);

		assert_true(m->flags & API_M_MACHINE);
		assert_true(m->params.n && m->params.f[0].required &&
			    !strcmp(m->params.f[0].name, "name"));
		assert_ptr_equal(api_method_find(&api_umbrad_methods, m->name), m);
		assert_ptr_equal(api_method_find(&vm_methods, m->name), m);
	}
	assert_int_equal(vm_methods.n, sizeof(struct vm_handlers) / sizeof(api_handler));
	check_table(&vm_methods, sizeof(struct vm_handlers) / sizeof(api_handler));
	assert_string_equal(api_method_nearest(&api_umbrad_methods, "machine.strat"),
			    "machine.start");
	assert_null(api_method_nearest(&api_umbrad_methods, "entirely.different"));
	doc = api_openrpc(&api_umbrad_methods, "Umbra");
	assert_non_null(doc);
	json_object_put(doc);
}

static void test_kinds(void **state)
{
	for (int i = 1; i < API_KIND_COUNT; i++) {
		enum api_kind kind = (enum api_kind)i;
		struct api_error err, back;
		struct json_object *obj;

		assert_int_equal(api_kind_from_name(api_kind_name(kind)), kind);
		assert_true(api_kind_errno(kind) < 0);
		/* The specification's own codes, or outside its reserved range. */
		assert_true(api_kind_code(kind) > 0 || i <= API_KIND_INTERNAL);
		api_error_set(&err, kind, "text \xff\xc3 cut");
		strcpy(err.machine, "m");
		strcpy(err.field, "a.b");
		obj = api_error_to_json(&err);
		api_error_from_json(obj, &back);
		json_object_put(obj);
		assert_int_equal(back.kind, kind);
		assert_string_equal(back.text, "text ?? cut");
		assert_string_equal(back.machine, "m");
		assert_string_equal(back.field, "a.b");
	}
	assert_int_equal(api_kind_from_name("unheard-of"), API_KIND_INTERNAL);
}

static void test_base64(void **state)
{
	uint8_t bytes[256];
	size_t len;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 37);
	for (size_t n = 0; n < sizeof(bytes); n++) {
		char *text = base64_encode(bytes, n);
		void *back = base64_decode(text, &len);

		assert_non_null(back);
		assert_int_equal(len, n);
		assert_memory_equal(back, bytes, n);
		free(text);
		free(back);
	}
	assert_null(base64_decode("abc", &len));
	assert_null(base64_decode("ab!=", &len));
	assert_null(base64_decode("=abc", &len));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults), cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_names),	 cmocka_unit_test(test_text_values),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_tables),	 cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
