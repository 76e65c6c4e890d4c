/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The method table as D-Bus interfaces, and values between JSON and messages. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "api/api.h"
#include "api/rows.h"
#include "daemon/dbus.h"
#include "daemon/dbus_table.h"
#include "daemon/dbus_types.h"
#include "tests/unit/daemon/lone_bus.h"

static const char *const colours[] = {"red", "green", NULL};

static const struct api_field params[] = {
	FIELD_NAME,
	{.name = "count", .type = API_INT, .required = true, .max = INT64_MAX, .help = "h"},
	{.name = "where", .type = API_ADDR, .help = "h"},
	{.name = "size", .type = API_SIZE, .max = INT64_MAX, .help = "h"},
	{.name = "paths", .type = API_PATHS, .required = true, .max = 4, .help = "h"},
	{.name = "colour", .type = API_ENUM, .choices = colours, .help = "h"},
};
static const struct api_field one_name[] = {FIELD_NAME};
static const struct api_field id_param[] = {
	{.name = "id", .type = API_INT, .min = 1, .max = INT64_MAX, .required = true, .help = "h"},
};
static const struct api_field result[] = {
	{.name = "gpa", .type = API_ADDR, .required = true, .help = "h"},
	{.name = "note", .type = API_STRING, .help = "a <note> & \"more\""},
	{.name = "list", .type = API_ANY, .required = true, .help = "h"},
};

#define ROW(...)                                                                                   \
	{                                                                                          \
		.summary = "S.", .since = "0.1", __VA_ARGS__                                       \
	}
static const struct api_method rows[] = {
	ROW(.name = "zoo.feed", P(params), R(result)),
	ROW(.name = "zoo.look_at", P(one_name), NO_RESULT),
	ROW(.name = "machine.show", P(one_name), R(result)),
	ROW(.name = "machine.gdb", P(one_name), NO_RESULT, .flags = API_M_FD_OUT),
	ROW(.name = "machine.start", P(one_name), R(result), .flags = API_M_FD_OUT | API_M_LONG),
	ROW(.name = "machine.list", NO_PARAMS, R(one_name)),
	ROW(.name = "job.cancel", P(id_param), NO_RESULT),
	ROW(.name = "other.cancel", P(id_param), NO_RESULT, .flags = API_M_FD_IN),
};
static const struct api_table table = {.m = rows, .n = ARRAY_SIZE(rows)};

static void check_method(const struct dbus_table *t, enum dbus_kind_id kind, const char *iface,
			 const char *member, const char *in, const char *out)
{
	const struct dbus_method *m = dbus_table_find(t, kind, iface, member);

	assert_non_null(m);
	assert_string_equal(m->in, in);
	assert_string_equal(m->out, out);
}

static void test_rules(void **state)
{
	struct dbus_table t;

	assert_int_equal(dbus_table_init(&t, &table), 0);
	check_method(&t, DBUS_MACHINE, "org.umbra.Vmm1.Zoo", "Feed", "xasa{sv}", "tva{sv}");
	check_method(&t, DBUS_MACHINE, "org.umbra.Vmm1.Zoo", "LookAt", "", "");
	check_method(&t, DBUS_MACHINE, "org.umbra.Vmm1.Machine", "Show", "", "tva{sv}");
	check_method(&t, DBUS_MACHINE, "org.umbra.Vmm1.Machine", "Gdb", "", "h");
	check_method(&t, DBUS_MACHINE, "org.umbra.Vmm1.Machine", "Start", "", "oa{sv}");
	check_method(&t, DBUS_MANAGER, "org.umbra.Vmm1.Manager", "MachineList", "", "sa{sv}");
	check_method(&t, DBUS_MANAGER, "org.umbra.Vmm1.Manager", "OtherCancel", "xh", "");
	check_method(&t, DBUS_JOB, "org.umbra.Vmm1.Job", "Cancel", "", "");
	assert_non_null(dbus_table_find(&t, DBUS_MACHINE, NULL, "Feed"));
	assert_null(dbus_table_find(&t, DBUS_MANAGER, NULL, "Feed"));
	assert_true(dbus_table_has(&t, DBUS_MACHINE, "org.umbra.Vmm1.Zoo"));
	assert_false(dbus_table_has(&t, DBUS_JOB, "org.umbra.Vmm1.Zoo"));
	assert_string_equal(dbus_table_interface(&t, DBUS_MACHINE, 1), "org.umbra.Vmm1.Machine");
	assert_null(dbus_table_interface(&t, DBUS_MACHINE, 2));
	assert_non_null(dbus_table_property(&t, DBUS_MACHINE, "Gpa"));
	assert_non_null(dbus_table_property(&t, DBUS_MACHINE, "Memory"));
	assert_null(dbus_table_property(&t, DBUS_MACHINE, "memory"));
	dbus_table_finish(&t);
}

/* Two methods of one object never have the same name; every row is there. */
static void test_real_table(void **state)
{
	struct dbus_table t;

	assert_int_equal(dbus_table_init(&t, &api_umbrad_methods), 0);
	assert_int_equal(t.n_methods, api_method_count(&api_umbrad_methods));
	for (size_t i = 0; i < t.n_methods; i++) {
		const struct dbus_method *m = &t.methods[i];

		assert_ptr_equal(dbus_table_find(&t, m->kind, m->iface, m->member), m);
		assert_true(sd_bus_member_name_is_valid(m->member));
		assert_true(sd_bus_interface_name_is_valid(m->iface));
	}
	dbus_table_finish(&t);
}

static void test_error_names(void **state)
{
	char names[API_KIND_COUNT][DBUS_INTERFACE_MAX];

	for (unsigned i = API_KIND_NONE + 1; i < API_KIND_COUNT; i++) {
		dbus_error_name((enum api_kind)i, names[i]);
		assert_true(sd_bus_interface_name_is_valid(names[i]));
		for (unsigned k = API_KIND_NONE + 1; k < i; k++)
			assert_string_not_equal(names[i], names[k]);
	}
	assert_string_equal(names[API_KIND_INVALID_PARAMS], "org.umbra.Vmm1.Error.InvalidParams");
}

static void test_introspection_is_escaped(void **state)
{
	char *xml = dbus_introspect(&table);

	assert_non_null(xml);
	assert_non_null(strstr(xml, "a &lt;note&gt; &amp; &quot;more&quot;"));
	assert_null(strstr(xml, "<note>"));
	free(xml);
}

/* ---- values ---- */

static struct json_object *parse(const char *text)
{
	struct json_object *v = json_tokener_parse(text);

	assert_true(v || !strcmp(text, "null"));
	return v;
}

/* Through a message and back. */
static struct json_object *carry(const struct api_field *f, struct json_object *v)
{
	sd_bus_message *m = lone_message();
	struct json_object *back = NULL;
	struct api_error err;

	assert_true(dbus_append_variant(m, f, v) >= 0);
	assert_true(lone_message_seal(m) >= 0);
	assert_int_equal(dbus_read(m, f, &back, &err), 0);
	assert_int_equal(sd_bus_message_at_end(m, true), 1);
	sd_bus_message_unref(m);
	return back;
}

static void test_carried(void **state)
{
	static const char *const texts[] = {
		"true",
		"-5",
		"9223372036854775807",
		"18446744073709551615",
		"1.5",
		"\"caf\xc3\xa9\"",
		"[]",
		"[1,2]",
		"[\"a\",\"b\"]",
		"[true,1,\"x\",null,[1.5],{}]",
		"[{\"a\":1},{\"b\":[{\"c\":null}]}]",
		"{}",
		"{\"a\":{\"b\":{\"c\":[1,-1]}}}",
		"null",
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct json_object *v = parse(texts[i]), *back = carry(NULL, v);

		assert_string_equal(json_object_to_json_string_ext(back, JSON_C_TO_STRING_PLAIN),
				    texts[i]);
		json_object_put(v);
		json_object_put(back);
	}
}

static const char *type_of(const struct api_field *f, const char *text)
{
	static char type[32];
	struct json_object *v = parse(text);
	sd_bus_message *m = lone_message();
	const char *contents;

	assert_true(dbus_append_variant(m, f, v) >= 0);
	assert_true(lone_message_seal(m) >= 0);
	assert_true(sd_bus_message_peek_type(m, NULL, &contents) > 0);
	strncpy(type, contents, sizeof(type) - 1);
	sd_bus_message_unref(m);
	json_object_put(v);
	return type;
}

static void test_types(void **state)
{
	assert_string_equal(type_of(NULL, "[1,2]"), "ax");
	assert_string_equal(type_of(NULL, "[{},{}]"), "aa{sv}");
	assert_string_equal(type_of(NULL, "[1,\"a\"]"), "av");
	assert_string_equal(type_of(NULL, "18446744073709551615"), "t");
	assert_string_equal(type_of(&params[2], "\"0x10\""), "t");
	assert_string_equal(type_of(&params[3], "\"4M\""), "t");
	/* What does not fit its field goes as what it is. */
	assert_string_equal(type_of(&params[1], "\"4M\""), "s");
	assert_string_equal(type_of(&params[4], "{}"), "a{sv}");
}

/* One of each field, as its type. */
static void test_sizes_and_addresses(void **state)
{
	sd_bus_message *m = lone_message();
	struct json_object *v = parse("\"0xffffffffffffffff\""), *size = parse("\"3M\"");
	struct json_object *back = NULL;
	struct api_error err;

	assert_true(dbus_append(m, &params[2], v) >= 0);
	assert_true(dbus_append(m, &params[3], size) >= 0);
	assert_true(sd_bus_message_append(m, "t", (uint64_t)4097) >= 0);
	assert_true(dbus_append(m, &params[1], NULL) >= 0);
	assert_true(lone_message_seal(m) >= 0);
	assert_string_equal(sd_bus_message_get_signature(m, true), "tttx");
	assert_int_equal(dbus_read(m, &params[2], &back, &err), 0);
	assert_string_equal(json_object_get_string(back), "0xffffffffffffffff");
	json_object_put(back);
	assert_int_equal(dbus_read(m, &params[3], &back, &err), 0);
	assert_string_equal(json_object_get_string(back), "3072K");
	json_object_put(back);
	assert_int_equal(dbus_read(m, &params[3], &back, &err), 0);
	assert_string_equal(json_object_get_string(back), "4097 bytes"); /* and refused as a size */
	json_object_put(back);
	assert_int_equal(dbus_read(m, &params[1], &back, &err), 0);
	assert_int_equal(json_object_get_int64(back), 0);
	json_object_put(back);
	json_object_put(v);
	json_object_put(size);
	sd_bus_message_unref(m);
}

static enum api_kind refused(sd_bus_message *m)
{
	struct json_object *obj = json_object_new_object();
	struct api_error err = {0};

	assert_true(lone_message_seal(m) >= 0);
	assert_true(dbus_read_dict(m, NULL, obj, &err) < 0);
	assert_true(err.text[0]);
	json_object_put(obj);
	sd_bus_message_unref(m);
	return err.kind;
}

static void test_refused(void **state)
{
	sd_bus_message *m = lone_message();

	assert_true(sd_bus_message_append(m, "a{sv}", 2, "a", "i", 1, "a", "i", 2) >= 0);
	assert_int_equal(refused(m), API_KIND_INVALID_PARAMS);
	m = lone_message();
	assert_true(sd_bus_message_append(m, "a{sv}", 1, "a", "h", STDIN_FILENO) >= 0);
	assert_int_equal(refused(m), API_KIND_INVALID_PARAMS);
	m = lone_message();
	assert_true(sd_bus_message_append(m, "a{sv}", 1, "a", "a{us}", 1, 5, "x") >= 0);
	assert_int_equal(refused(m), API_KIND_INVALID_PARAMS);
	m = lone_message();
	assert_true(sd_bus_message_append(m, "s", "no dictionary") >= 0);
	assert_int_equal(refused(m), API_KIND_INVALID_PARAMS);
}

/* [[..]], or with @dicts [[{"a": [[..]]}]]: @levels in one another. */
static struct json_object *nest(unsigned levels, bool dicts)
{
	struct json_object *v = json_object_new_int(1);

	for (unsigned i = levels; i-- > 0;) {
		struct json_object *outer;

		if (dicts && i % 3 == 2) {
			outer = json_object_new_object();
			json_object_object_add(outer, "a", v);
		} else {
			outer = json_object_new_array();
			json_object_array_add(outer, v);
		}
		v = outer;
	}
	return v;
}

/* What is written can be read, down to the deepest level that is. */
static void test_depth(void **state)
{
	for (unsigned k = 0; k < 4; k++) {
		bool dicts = k & 1, more = k & 2;
		struct json_object *v = nest(DBUS_DEPTH_MAX + more, dicts), *back;

		if (more) {
			sd_bus_message *m = lone_message();

			assert_int_equal(dbus_append_variant(m, NULL, v), -ELOOP);
			sd_bus_message_unref(m);
		} else {
			back = carry(NULL, v);
			assert_string_equal(json_object_to_json_string(back),
					    json_object_to_json_string(v));
			json_object_put(back);
		}
		json_object_put(v);
	}
}

/* The bus throws out who sends what is no UTF-8. */
static void test_text(void **state)
{
	static const char bytes[] = "a\xff\xc0\x80\xed\xa0\x80\xf0\x9f\x98\x80z";
	struct json_object *v = json_object_new_string(bytes), *back = carry(NULL, v);

	assert_string_equal(json_object_get_string(back), "a??????\xf0\x9f\x98\x80z");
	json_object_put(v);
	json_object_put(back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_real_table),
		cmocka_unit_test(test_error_names),
		cmocka_unit_test(test_introspection_is_escaped),
		cmocka_unit_test(test_carried),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_sizes_and_addresses),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
