/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where REST serves the rows: by rule, each at an address of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/api.h"
#include "api/route.h"

static void rule(void **state)
{
	static const struct {
		const char *name;
		enum api_http_method verb;
		const char *path, *key;
	} rows[] = {
		{"machine.list", API_HTTP_GET, "/machines", NULL},
		{"machine.create", API_HTTP_POST, "/machines", NULL},
		{"machine.show", API_HTTP_GET, "/machines/{name}", "name"},
		{"machine.delete", API_HTTP_DELETE, "/machines/{name}", "name"},
		{"machine.start", API_HTTP_PUT, "/machines/{name}/start", "name"},
		{"machine.logs", API_HTTP_GET, "/machines/{name}/logs", "name"},
		{"mmu.walk", API_HTTP_GET, "/machines/{name}/mmu/walk", "name"},
		{"dirty.list", API_HTTP_GET, "/machines/{name}/dirty/list", "name"},
		{"dirty.start", API_HTTP_PUT, "/machines/{name}/dirty/start", "name"},
		{"job.list", API_HTTP_GET, "/jobs", NULL},
		{"job.show", API_HTTP_GET, "/jobs/{id}", "id"},
		{"job.cancel", API_HTTP_PUT, "/jobs/{id}/cancel", "id"},
		{"events.subscribe", API_HTTP_GET, "/events", NULL},
		{"system.version", API_HTTP_GET, "/system/version", NULL},
		{"rpc.discover", API_HTTP_GET, "/rpc/discover", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct api_method *m = api_method_find(&api_umbrad_methods, rows[i].name);
		struct api_route r;

		assert_non_null(m);
		assert_int_equal(api_route_make(&api_umbrad_methods, m, &r), 0);
		assert_string_equal(r.path, rows[i].path);
		assert_int_equal(r.verb, rows[i].verb);
		assert_int_equal(r.creates, r.verb == API_HTTP_POST);
		assert_int_equal(r.streams, !strcmp(r.path, "/events"));
		if (rows[i].key)
			assert_string_equal(r.key->name, rows[i].key);
		else
			assert_null(r.key);
	}
}

/* No row is left out, and none hides another. */
static void whole_table(void **state)
{
	static struct api_route routes[256];
	size_t n = api_method_count(&api_umbrad_methods);

	assert_in_range(n, 1, ARRAY_SIZE(routes));
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(api_route_make(&api_umbrad_methods,
						api_method_at(&api_umbrad_methods, i), &routes[i]),
				 0);
		for (size_t k = 0; k < i; k++)
			assert_false(routes[k].verb == routes[i].verb &&
				     !strcmp(routes[k].path, routes[i].path));
	}
}

static void names_without_the_form(void **state)
{
	static const char *const names[] = {"noverb", ".verb", "",
					    "a-group-with-a-name-of-more-than-thirty-bytes.x"};
	struct api_route r;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const struct api_method m = {.name = names[i]};

		assert_int_not_equal(api_route_make(&api_umbrad_methods, &m, &r), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rule),
		cmocka_unit_test(whole_table),
		cmocka_unit_test(names_without_the_form),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
