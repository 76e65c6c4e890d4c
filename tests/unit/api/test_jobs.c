/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs: long calls through the dispatcher, waited for or not, cancelled, asked about. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/jobs.h"
#include "base/cleanup.h"

struct test_ops {
	api_handler hold, stubborn, now, fail, list, show, wait, cancel;
};

static const struct api_field long_params[] = {
	{.name = "wait", .type = API_BOOL, .help = "wait"},
};
static const struct api_field id_params[] = {
	{.name = "id", .type = API_INT, .min = 1, .max = INT64_MAX, .required = true, .help = "id"},
};
static const struct api_field wait_params[] = {
	{.name = "id", .type = API_INT, .min = 1, .max = INT64_MAX, .required = true, .help = "id"},
	{.name = "timeout", .type = API_NUMBER, .min = 0, .max = 100, .help = "seconds"},
};

#define ROW(method, op, params_, access_, flags_)                                                  \
	{                                                                                          \
		.name = (method), .summary = "A test.", .since = "0.1", .access = (access_),       \
		.flags = (flags_), .params = API_FIELDS("the parameters", params_),                \
		.handler = offsetof(struct test_ops, op)                                           \
	}
static const struct api_method rows[] = {
	ROW("t.hold", hold, long_params, API_OPERATE, API_M_LONG),
	ROW("t.look", hold, long_params, API_READ, API_M_LONG),
	ROW("t.stubborn", stubborn, long_params, API_OPERATE, API_M_LONG),
	ROW("t.now", now, long_params, API_OPERATE, API_M_LONG),
	ROW("t.fail", fail, long_params, API_OPERATE, API_M_LONG),
	{.name = "job.list",
	 .summary = "List.",
	 .params = {.what = "the parameters"},
	 .handler = offsetof(struct test_ops, list)},
	ROW("job.show", show, id_params, API_READ, 0),
	ROW("job.wait", wait, wait_params, API_READ, 0),
	ROW("job.cancel", cancel, id_params, API_OPERATE, 0),
};
static const struct api_table table = {.m = rows, .n = ARRAY_SIZE(rows)};

struct world {
	struct event_base *base;
	struct api_events *events;
	struct api_jobs *jobs;
	struct api_dispatcher d;
	struct api_call *held; /* the newest one that waits for us */
	int gone;
	char told[512]; /* events: "job:running progress " */
};

/* What came back to a caller. */
struct answer {
	bool came, failed;
	struct json_object *result; /* owned */
	struct api_error err;
};

static void on_gone(struct api_call *call, void *data)
{
	struct world *w = data;

	w->held = NULL;
	w->gone++;
}

static void handle_hold(struct api_call *call)
{
	struct world *w = api_call_data(call);

	w->held = call;
	api_call_on_gone(call, on_gone, w);
}

static void handle_stubborn(struct api_call *call)
{
	struct world *w = api_call_data(call);

	w->held = call;
}

static void handle_now(struct api_call *call)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "n", json_object_new_int(7));
	api_call_reply(call, obj, -1);
}

static void handle_fail(struct api_call *call)
{
	api_call_fail(call, API_KIND_NOT_FOUND, "there is none");
}

static void handle_list(struct api_call *call)
{
	struct world *w = api_call_data(call);

	api_jobs_list(w->jobs, call);
}

static void handle_show(struct api_call *call)
{
	struct world *w = api_call_data(call);

	api_jobs_show(w->jobs, call);
}

static void handle_wait(struct api_call *call)
{
	struct world *w = api_call_data(call);

	api_jobs_wait(w->jobs, call);
}

static void handle_cancel(struct api_call *call)
{
	struct world *w = api_call_data(call);

	api_jobs_cancel(w->jobs, call);
}

static const struct test_ops test_ops = {
	.hold = handle_hold,
	.stubborn = handle_stubborn,
	.now = handle_now,
	.fail = handle_fail,
	.list = handle_list,
	.show = handle_show,
	.wait = handle_wait,
	.cancel = handle_cancel,
};

static int begin_job(void *data, struct api_call *call, struct api_error *err)
{
	struct world *w = data;

	return api_jobs_begin(w->jobs, call, err);
}

static void on_event(void *data, const struct api_event *ev)
{
	struct world *w = data;
	size_t len = strlen(w->told);
	struct json_object *v = NULL;

	json_object_object_get_ex(ev->obj, "state", &v);
	snprintf(w->told + len, sizeof(w->told) - len, "%s%s%s ", ev->type, v ? ":" : "",
		 v ? json_object_get_string(v) : "");
}

static int set_up(void **state)
{
	static struct world w;
	struct api_listener *l;
	struct api_error err;

	memset(&w, 0, sizeof(w));
	w.base = event_base_new();
	w.d = (struct api_dispatcher){
		.table = &table, .ops = &test_ops, .data = &w, .begin_job = begin_job};
	api_dispatcher_init(&w.d);
	*state = &w;
	return api_events_create(&w.events, w.base) ||
	       api_events_listen(w.events, &(struct api_events_filter){0}, on_event, &w, &l,
				 &err) ||
	       api_jobs_create(&w.jobs, w.base, w.events);
}

static int tear_down(void **state)
{
	struct world *w = *state;

	api_dispatcher_finish(&w->d);
	api_jobs_destroy(w->jobs);
	api_events_destroy(w->events);
	event_base_free(w->base);
	return 0;
}

static void on_reply(void *priv, struct json_object *result, int fd)
{
	struct answer *a = priv;

	cleanup_close(&fd);
	assert_false(a->came);
	a->came = true;
	a->result = result;
}

static void on_fail(void *priv, const struct api_error *err)
{
	struct answer *a = priv;

	assert_false(a->came);
	a->came = a->failed = true;
	a->err = *err;
}

static const struct api_reply_ops reply_ops = {.reply = on_reply, .fail = on_fail};

static void finish(struct answer *a)
{
	json_object_put(a->result);
	memset(a, 0, sizeof(*a));
}

/* @more is a member and its number, or NULL. */
static struct api_call *call_as(struct world *w, const char *who, const char *method,
				const char *more, int64_t n, struct answer *a)
{
	struct api_caller caller = {.level = API_OPERATE, .transport = API_T_REST};
	struct json_object *params = json_object_new_object();
	struct api_call *call;

	finish(a);
	snprintf(caller.name, sizeof(caller.name), "%s", who);
	if (more && !strcmp(more, "wait"))
		json_object_object_add(params, more, json_object_new_boolean((int)n));
	else if (more)
		json_object_object_add(params, more, json_object_new_int64(n));
	call = api_dispatch(&w->d, method, params, -1, &caller, &reply_ops, a);
	json_object_put(params);
	return call;
}

static struct json_object *member(const struct answer *a, const char *name)
{
	struct json_object *v = NULL;

	json_object_object_get_ex(a->result, name, &v);
	return v;
}

static int64_t id_of(const struct answer *a)
{
	return json_object_get_int64(member(a, "id"));
}

static void expect_state(struct world *w, int64_t id, const char *state)
{
	struct answer a = {0};

	call_as(w, "ann", "job.show", "id", id, &a);
	assert_true(a.came && !a.failed);
	assert_string_equal(json_object_get_string(member(&a, "state")), state);
	finish(&a);
}

static size_t count_jobs(struct world *w, const char *who)
{
	struct answer a = {0};
	size_t n;

	call_as(w, who, "job.list", NULL, 0, &a);
	n = json_object_array_length(member(&a, "jobs"));
	finish(&a);
	return n;
}

static void test_not_waited_for(void **state)
{
	struct world *w = *state;
	struct answer a = {0}, b = {0};
	struct json_object *v;
	int64_t id;

	assert_null(call_as(w, "ann", "t.hold", NULL, 0, &a)); /* answered with the job */
	id = id_of(&a);
	assert_true(id > 0);
	assert_string_equal(json_object_get_string(member(&a, "state")), "running");
	assert_string_equal(json_object_get_string(member(&a, "owner")), "ann");
	api_call_progress(w->held, 0.5, "half");
	call_as(w, "ann", "job.show", "id", id, &b);
	assert_true(json_object_get_double(member(&b, "progress")) == 0.5);
	assert_string_equal(json_object_get_string(member(&b, "what")), "half");
	v = json_object_new_object();
	json_object_object_add(v, "n", json_object_new_int(3));
	api_call_reply(w->held, v, -1);
	call_as(w, "ann", "job.show", "id", id, &b);
	assert_string_equal(json_object_get_string(member(&b, "state")), "done");
	assert_true(json_object_object_get_ex(member(&b, "result"), "n", &v));
	assert_int_equal(json_object_get_int(v), 3);
	assert_string_equal(w->told, "job:running progress job:done ");
	finish(&a);
	finish(&b);
}

static void test_at_once(void **state)
{
	struct world *w = *state;
	struct answer a = {0};

	/* Fails before anybody could know of a job: it is a plain error, and there is none. */
	assert_null(call_as(w, "ann", "t.fail", NULL, 0, &a));
	assert_true(a.failed);
	assert_int_equal(a.err.kind, API_KIND_NOT_FOUND);
	assert_int_equal(count_jobs(w, "ann"), 0);
	/* Who does not wait always gets a job. */
	assert_null(call_as(w, "ann", "t.now", NULL, 0, &a));
	assert_string_equal(json_object_get_string(member(&a, "state")), "done");
	expect_state(w, id_of(&a), "done");
	/* Who waits gets the result. */
	assert_null(call_as(w, "ann", "t.now", "wait", 1, &a));
	assert_int_equal(json_object_get_int(member(&a, "n")), 7);
	assert_int_equal(count_jobs(w, "ann"), 1);
	assert_string_equal(w->told, "job:done ");
	finish(&a);
}

static void test_waited_for(void **state)
{
	struct world *w = *state;
	struct answer a = {0};

	call_as(w, "ann", "t.hold", "wait", 1, &a);
	assert_false(a.came);
	assert_int_equal(count_jobs(w, "ann"), 1);
	api_call_fail(w->held, API_KIND_VM_FAILED, "it broke");
	assert_true(a.failed);
	assert_int_equal(a.err.kind, API_KIND_VM_FAILED);
	assert_string_equal(w->told, "job:running job:failed ");
}

static void test_gone(void **state)
{
	struct world *w = *state;
	struct answer a = {0};
	struct api_call *call;

	/* What changes something goes on when nobody waits any more. */
	call = call_as(w, "ann", "t.hold", "wait", 1, &a);
	api_call_gone(call);
	assert_int_equal(w->gone, 0);
	api_call_reply(w->held, NULL, -1);
	assert_false(a.came);
	/* What only looks does not. */
	call = call_as(w, "ann", "t.look", "wait", 1, &a);
	api_call_gone(call);
	assert_int_equal(w->gone, 1);
	assert_string_equal(w->told, "job:running job:done job:running job:cancelled ");
}

static void test_cancel(void **state)
{
	struct world *w = *state;
	struct answer a = {0}, b = {0};
	int64_t id;

	call_as(w, "ann", "t.hold", NULL, 0, &a);
	id = id_of(&a);
	call_as(w, "bob", "job.cancel", "id", id, &b);
	assert_int_equal(b.err.kind, API_KIND_NOT_FOUND);
	call_as(w, "ann", "job.cancel", "id", id, &b);
	assert_true(b.came && !b.failed);
	assert_int_equal(w->gone, 1);
	expect_state(w, id, "cancelled");
	call_as(w, "ann", "job.cancel", "id", id, &b);
	assert_int_equal(b.err.kind, API_KIND_INVALID_STATE);
	/* Who waits for one that is cancelled is told. */
	call_as(w, "ann", "t.hold", "wait", 1, &a);
	call_as(w, "ann", "job.cancel", "id", id + 1, &b);
	assert_false(b.failed);
	assert_int_equal(a.err.kind, API_KIND_CANCELLED);
	call_as(w, "ann", "t.stubborn", NULL, 0, &a);
	call_as(w, "ann", "job.cancel", "id", id_of(&a), &b);
	assert_int_equal(b.err.kind, API_KIND_INVALID_STATE);
	expect_state(w, id_of(&a), "running");
	api_call_reply(w->held, NULL, -1);
	finish(&a);
	finish(&b);
}

static void test_job_wait(void **state)
{
	struct world *w = *state;
	struct answer a = {0}, first = {0}, left = {0}, late = {0};
	struct api_call *call;
	int64_t id;

	call_as(w, "ann", "t.hold", NULL, 0, &a);
	id = id_of(&a);
	call_as(w, "ann", "job.wait", "id", id, &first);
	call = call_as(w, "ann", "job.wait", "id", id, &left);
	assert_false(first.came || left.came);
	api_call_gone(call);
	api_call_reply(w->held, NULL, -1);
	assert_true(first.came && !left.came);
	assert_string_equal(json_object_get_string(member(&first, "state")), "done");
	call_as(w, "ann", "job.wait", "id", id, &late);
	assert_string_equal(json_object_get_string(member(&late, "state")), "done");
	call_as(w, "ann", "job.wait", "id", id + 1, &late);
	assert_int_equal(late.err.kind, API_KIND_NOT_FOUND);
	finish(&a);
	finish(&first);
	finish(&late);
}

static void test_wait_times_out(void **state)
{
	struct world *w = *state;
	struct answer a = {0}, b = {0};
	struct json_object *params = json_object_new_object();
	const struct api_caller ann = {.level = API_OPERATE, .name = "ann"};

	call_as(w, "ann", "t.hold", NULL, 0, &a);
	json_object_object_add(params, "id", json_object_new_int64(id_of(&a)));
	json_object_object_add(params, "timeout", json_object_new_double(0.01));
	api_dispatch(&w->d, "job.wait", params, -1, &ann, &reply_ops, &b);
	while (!b.came)
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_int_equal(b.err.kind, API_KIND_TIMEOUT);
	json_object_put(params);
	finish(&a);
}

static void test_owners(void **state)
{
	struct world *w = *state;
	struct answer a = {0}, b = {0};

	call_as(w, "ann", "t.hold", NULL, 0, &a);
	assert_int_equal(count_jobs(w, "ann"), 1);
	assert_int_equal(count_jobs(w, "bob"), 0);
	call_as(w, "bob", "job.show", "id", id_of(&a), &b);
	assert_int_equal(b.err.kind, API_KIND_NOT_FOUND);
	call_as(w, "bob", "job.wait", "id", id_of(&a), &b);
	assert_int_equal(b.err.kind, API_KIND_NOT_FOUND);
	finish(&a);
}

static void test_few_are_kept(void **state)
{
	struct world *w = *state;
	struct answer a = {0}, first = {0};
	size_t count[API_JOB_STATES];

	call_as(w, "ann", "t.now", NULL, 0, &first);
	for (int i = 0; i < API_JOBS_KEPT; i++)
		call_as(w, "ann", "t.now", NULL, 0, &a);
	assert_int_equal(count_jobs(w, "ann"), API_JOBS_KEPT);
	api_jobs_count(w->jobs, count);
	assert_int_equal(count[API_JOB_DONE], API_JOBS_KEPT);
	assert_int_equal(count[API_JOB_RUNNING], 0);
	expect_state(w, id_of(&a), "done");
	call_as(w, "ann", "job.show", "id", id_of(&first), &a);
	assert_int_equal(a.err.kind, API_KIND_NOT_FOUND);
	finish(&first);
	finish(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_not_waited_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_at_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_waited_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_cancel, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_job_wait, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wait_times_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_owners, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_few_are_kept, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
