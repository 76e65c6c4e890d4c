/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dispatcher: access, bounds, audit, jobs, and clients that go away; and the real table's
 * rules.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "api/api.h"
#include "api/call.h"
#include "api/vm_proto.h"

struct test_ops {
	api_handler quick, held;
};

static const struct api_field params[] = {
	{.name = "name", .type = API_NAME, .help = "the machine"},
	{.name = "wait", .type = API_BOOL, .help = "wait"},
};

#define ROW(n, op, ...)                                                                            \
	{                                                                                          \
		.name = n, .summary = "Do.", .since = "0.1",                                       \
		.params = API_FIELDS("the parameters", params),                                    \
		.handler = offsetof(struct test_ops, op), __VA_ARGS__                              \
	}

static const struct api_method rows[] = {
	ROW("t.nobody", quick, .access = API_NOBODY),
	ROW("t.read", quick, .access = API_READ),
	ROW("t.operate", quick, .access = API_OPERATE),
	ROW("t.admin", quick, .access = API_ADMIN),
	ROW("t.held", held, .access = API_READ),
	ROW("t.job", held, .access = API_OPERATE, .flags = API_M_LONG),
	ROW("t.quick-job", quick, .access = API_OPERATE, .flags = API_M_LONG),
	ROW("t.fd", quick, .access = API_READ, .flags = API_M_FD_IN),
};
static const struct api_table table = {.m = rows, .n = ARRAY_SIZE(rows)};

struct world {
	struct api_dispatcher d;
	struct api_call *held;
	int ran, gone, replies, fails, audits, ended, running, early;
	bool early_wanted, stays, stoppable;
	struct api_error last; /* of a fail */
	enum api_kind audited; /* the last one's */
	char audited_machine[64];
	struct api_call *job_call;
};

static void handle_quick(struct api_call *call)
{
	struct world *w = api_call_data(call);

	w->ran++;
	api_call_reply(call, NULL, -1);
}

static void on_gone(struct api_call *call, void *data)
{
	struct world *w = data;

	w->gone++;
	w->held = NULL;
}

static void handle_held(struct api_call *call)
{
	struct world *w = api_call_data(call);

	w->ran++;
	w->held = call;
	if (w->stoppable)
		api_call_on_gone(call, on_gone, w);
}

static void on_reply(void *priv, struct json_object *result, int fd)
{
	struct world *w = priv;

	w->replies++;
	assert_int_equal(fd, -1);
	json_object_put(result);
}

static void on_fail(void *priv, const struct api_error *err)
{
	struct world *w = priv;

	w->fails++;
	w->last = *err;
}

static const struct api_reply_ops reply_ops = {.reply = on_reply, .fail = on_fail};

static void audit(void *data, const struct api_audit *a)
{
	struct world *w = data;

	w->audits++;
	w->audited = a->err ? a->err->kind : API_KIND_NONE;
	snprintf(w->audited_machine, sizeof(w->audited_machine), "%s", a->machine);
	assert_true(a->seconds >= 0);
	assert_string_equal(a->caller->name, "unix:7");
}

static struct json_object *job_ended(void *job, struct json_object *result,
				     const struct api_error *err)
{
	struct world *w = job;

	w->ended++;
	w->job_call = NULL;
	assert_true(!result != !err);
	return NULL;
}

static void job_progress(void *job, double fraction, const char *what)
{
}

static bool job_stays(void *job)
{
	struct world *w = job;

	return w->stays;
}

static void job_running(void *job)
{
	struct world *w = job;

	w->running++;
	if (w->early_wanted) {
		w->early++;
		api_call_answer_early(w->job_call, json_object_new_object());
	}
}

static const struct api_job_ops job_ops = {
	.ended = job_ended,
	.progress = job_progress,
	.stays = job_stays,
	.running = job_running,
};

static int begin_job(void *data, struct api_call *call, struct api_error *err)
{
	struct world *w = data;

	w->job_call = call;
	api_call_set_job(call, &job_ops, w);
	return 0;
}

static const struct test_ops ops = {handle_quick, handle_held};

static int set_up(void **state)
{
	static struct world w;

	w = (struct world){.d = {.table = &table,
				 .ops = &ops,
				 .data = &w,
				 .audit = audit,
				 .begin_job = begin_job},
			   .stoppable = true};
	api_dispatcher_init(&w.d);
	*state = &w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	api_dispatcher_finish(&w->d);
	assert_int_equal(w->d.n_calls, 0);
	return 0;
}

static struct api_call *call_as(struct world *w, enum api_access level, const char *method)
{
	const struct api_caller caller = {.level = level, .uid = 7, .name = "unix:7"};

	return api_dispatch(&w->d, method, NULL, -1, &caller, &reply_ops, w);
}

static void test_access(void **state)
{
	static const char *const names[] = {"t.nobody", "t.read", "t.operate", "t.admin"};
	struct world *w = *state;
	int ran = 0, calls = 0;

	for (int level = API_NOBODY; level <= API_ADMIN; level++)
		for (int access = API_NOBODY; access <= API_ADMIN; access++) {
			const bool may = access <= level;

			assert_null(call_as(w, level, names[access - API_NOBODY]));
			assert_int_equal(w->ran, ran += may);
			assert_int_equal(w->replies, ran);
			assert_int_equal(w->audits, ++calls);
			assert_int_equal(w->audited, may ? API_KIND_NONE : API_KIND_DENIED);
		}
	assert_null(call_as(w, API_ADMIN, "t.reed"));
	assert_int_equal(w->last.kind, API_KIND_METHOD_NOT_FOUND);
	assert_non_null(strstr(w->last.text, "t.read"));
	assert_int_equal(w->audits, calls + 1);
}

/* Access comes first: who may not call learns nothing of the parameters. */
static void test_order(void **state)
{
	const struct api_caller caller = {.level = API_READ, .name = "unix:7"};
	struct json_object *bad = json_object_new_object();
	struct world *w = *state;
	int fds[2];

	json_object_object_add(bad, "nmae", json_object_new_string("x"));
	api_dispatch(&w->d, "t.operate", bad, -1, &caller, &reply_ops, w);
	assert_int_equal(w->last.kind, API_KIND_DENIED);
	api_dispatch(&w->d, "t.read", bad, -1, &caller, &reply_ops, w);
	assert_int_equal(w->last.kind, API_KIND_INVALID_PARAMS);
	json_object_put(bad);
	assert_int_equal(w->ran, 0);
	call_as(w, API_READ, "t.fd");
	assert_int_equal(w->last.kind, API_KIND_INVALID_PARAMS);
	/* A descriptor that nobody takes is closed. */
	assert_int_equal(pipe(fds), 0);
	api_dispatch(&w->d, "t.fd", NULL, fds[1], &caller, &reply_ops, w);
	assert_int_equal(w->ran, 1);
	assert_int_equal(read(fds[0], &(char){0}, 1), 0);
	close(fds[0]);
}

static void test_machine_is_told(void **state)
{
	const struct api_caller caller = {.level = API_READ, .name = "unix:7"};
	struct json_object *p = json_object_new_object();
	struct world *w = *state;

	json_object_object_add(p, "name", json_object_new_string("web"));
	api_dispatch(&w->d, "t.held", p, -1, &caller, &reply_ops, w);
	json_object_put(p);
	api_call_fail(w->held, API_KIND_IO, "no");
	assert_string_equal(w->last.machine, "web");
	assert_string_equal(w->audited_machine, "web");
}

static void test_gone(void **state)
{
	struct world *w = *state;
	struct api_call *call = call_as(w, API_READ, "t.held");

	assert_ptr_equal(call, w->held);
	api_call_gone(call);
	assert_int_equal(w->gone, 1);
	assert_int_equal(w->replies + w->fails, 0);
	assert_int_equal(w->audited, API_KIND_CANCELLED);
	/* One that cannot be stopped goes on, and its answer goes nowhere. */
	w->stoppable = false;
	call = call_as(w, API_READ, "t.held");
	assert_int_equal(api_call_cancel(call), -EBUSY);
	api_call_gone(call);
	assert_int_equal(w->d.n_calls, 1);
	api_call_reply(w->held, NULL, -1);
	assert_int_equal(w->replies + w->fails, 0);
	assert_int_equal(w->audited, API_KIND_NONE);
}

static void test_job_waited_for(void **state)
{
	struct world *w = *state;
	struct api_call *call = call_as(w, API_OPERATE, "t.job");

	assert_non_null(call);
	assert_int_equal(w->running, 1);
	api_call_reply(w->held, NULL, -1);
	assert_int_equal(w->ended, 1);
	assert_int_equal(w->replies, 1);
	/* A handler that answers at once was never running. */
	assert_null(call_as(w, API_OPERATE, "t.quick-job"));
	assert_int_equal(w->running, 1);
	assert_int_equal(w->ended, 2);
	assert_int_equal(w->replies, 2);
}

static void test_job_not_waited_for(void **state)
{
	struct world *w = *state;

	w->early_wanted = true;
	assert_null(call_as(w, API_OPERATE, "t.job"));
	assert_int_equal(w->replies, 1);
	api_call_reply(w->held, NULL, -1);
	assert_int_equal(w->ended, 1);
	assert_int_equal(w->replies, 1);
	assert_null(call_as(w, API_OPERATE, "t.job"));
	assert_int_equal(api_call_cancel(w->job_call), 0);
	assert_int_equal(w->ended, 2);
	assert_int_equal(w->gone, 1);
	assert_int_equal(w->audited, API_KIND_CANCELLED);
}

static void test_job_client_gone(void **state)
{
	struct world *w = *state;
	struct api_call *call = call_as(w, API_OPERATE, "t.job");

	w->stays = true;
	api_call_gone(call);
	assert_int_equal(w->gone, 0);
	api_call_reply(w->held, NULL, -1);
	assert_int_equal(w->ended, 1);
	w->stays = false;
	call = call_as(w, API_OPERATE, "t.job");
	api_call_gone(call);
	assert_int_equal(w->gone, 1);
	assert_int_equal(w->ended, 2);
	assert_int_equal(w->replies + w->fails, 0);
}

static void test_calls_are_bounded(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < API_CALLS_NAMED; i++)
		assert_non_null(call_as(w, API_READ, "t.held"));
	assert_null(call_as(w, API_READ, "t.held"));
	assert_int_equal(w->last.kind, API_KIND_LIMIT);
	/* What frees room, or looks at it, is not in the queue; nor is an admin. */
	assert_non_null(call_as(w, API_ADMIN, "t.held"));
	assert_int_equal(w->d.n_calls, API_CALLS_NAMED + 1);
	w->stoppable = false;
}

static void test_connections_are_bounded(void **state)
{
	const struct api_caller admin = {.level = API_ADMIN, .name = "unix:0"};
	const struct api_caller one = {.level = API_READ, .name = "unix:7"};
	const struct api_caller two = {.level = API_READ, .name = "unix:8"};
	struct world *w = *state;
	struct api_connection c[5];
	struct api_error err;

	w->d.limits.connections = 4;
	w->d.limits.connections_per_caller = 2;
	assert_int_equal(api_connection_enter(&c[0], &w->d, &one, &err), 0);
	assert_int_equal(api_connection_enter(&c[1], &w->d, &one, &err), 0);
	assert_int_not_equal(api_connection_enter(&c[2], &w->d, &one, &err), 0);
	assert_int_equal(err.kind, API_KIND_LIMIT);
	assert_int_equal(api_connection_enter(&c[2], &w->d, &two, &err), 0);
	assert_int_not_equal(api_connection_rename(&c[2], &one, &err), 0);
	assert_int_equal(api_connection_enter(&c[3], &w->d, &admin, &err), 0);
	assert_int_not_equal(api_connection_enter(&c[4], &w->d, &admin, &err), 0);
	api_connection_leave(&c[0]);
	assert_int_equal(api_connection_rename(&c[2], &one, &err), 0);
	for (int i = 1; i < 4; i++)
		api_connection_leave(&c[i]);
	assert_int_equal(w->d.n_connections, 0);
}

/* Rules that every row of the real tables must keep, so that all documents can rely on them. */
static void test_rows(void **state)
{
	const struct api_table *tables[] = {&api_umbrad_methods, &vm_methods};

	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (size_t i = 0; i < api_method_count(tables[t]); i++) {
			const struct api_method *m = api_method_at(tables[t], i);
			const struct api_field *wait = api_field_find(&m->params, "wait");
			const struct api_field *name = api_field_find(&m->params, "name");

			assert_non_null(m->since);
			assert_ptr_equal(api_method_find(tables[t], m->name), m);
			if (t == 0 && m->flags & API_M_LONG)
				assert_true(wait && wait->type == API_BOOL && !wait->required);
			else
				assert_true(!wait || m->flags & API_M_LONG);
			if (m->flags & API_M_MACHINE)
				assert_true(name && name->type == API_NAME && name->required);
			/* Only these two are for strangers. */
			if (m->access == API_NOBODY)
				assert_true(!strcmp(m->name, "system.hello") ||
					    !strcmp(m->name, "system.authenticate"));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_access, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_machine_is_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_job_waited_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_job_not_waited_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_job_client_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_calls_are_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_connections_are_bounded, set_up, tear_down),
		cmocka_unit_test(test_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
