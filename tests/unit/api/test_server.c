/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Connection, server and client against one another over a socket pair, in one loop. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/client.h"
#include "api/server.h"

struct test_ops {
	api_handler echo, later, give, take, forbidden;
};

static const struct api_field echo_params[] = {
	{.name = "n", .type = API_INT, .min = 0, .max = 100, .required = true, .help = "a number"},
};

#define OP(op) .since = "0.1", .handler = offsetof(struct test_ops, op)

static const struct api_method rows[] = {
	{.name = "t.echo",
	 .summary = "Echo.",
	 .params = API_FIELDS("the parameters", echo_params),
	 OP(echo)},
	{.name = "t.later",
	 .summary = "Answer later.",
	 .params = {.what = "the parameters"},
	 OP(later)},
	{.name = "t.give",
	 .summary = "Give.",
	 .params = {.what = "the parameters"},
	 .flags = API_M_FD_OUT,
	 OP(give)},
	{.name = "t.take",
	 .summary = "Take.",
	 .params = {.what = "the parameters"},
	 .flags = API_M_FD_IN,
	 OP(take)},
	{.name = "t.forbidden",
	 .summary = "No.",
	 .params = {.what = "the parameters"},
	 .access = API_ADMIN,
	 OP(forbidden)},
};
static const struct api_table table = {.m = rows, .n = ARRAY_SIZE(rows)};

struct world {
	struct event_base *base;
	struct api_dispatcher dispatcher;
	struct api_server *server;
	struct api_client *client;
	struct api_call *held;
	int gone;
	int peer;		  /* the raw end of another connection */
	struct api_session *last; /* that came */
};

static void handle_echo(struct api_call *call)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "n", json_object_new_int64(api_call_int(call, "n", -1)));
	api_call_reply(call, obj, -1);
}

static void on_gone(struct api_call *call, void *data)
{
	struct world *w = data;

	w->held = NULL;
	w->gone++;
}

static void handle_later(struct api_call *call)
{
	struct world *w = api_call_data(call);

	w->held = call;
	api_call_on_gone(call, on_gone, w);
}

static void handle_give(struct api_call *call)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], "gift", 4), 4);
	close(fds[1]);
	api_call_reply(call, NULL, fds[0]);
}

static void handle_take(struct api_call *call)
{
	int fd = api_call_take_fd(call);

	assert_int_equal(write(fd, "taken", 5), 5);
	close(fd);
	api_call_reply(call, NULL, -1);
}

static void handle_forbidden(struct api_call *call)
{
	fail_msg("access is not checked");
}

static const struct test_ops ops = {handle_echo, handle_later, handle_give, handle_take,
				    handle_forbidden};

static void on_session(void *data, struct api_session *session, int change)
{
	struct world *w = data;

	if (change > 0 && api_session_caller(session)->level > API_NOBODY)
		w->last = session;
}

static const struct api_listen operators = {.cap = API_OPERATE};

/* One more connection; our end of it. */
static int add_peer(struct world *w)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(fcntl(pair[1], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(api_server_add(w->server, pair[0], &operators), 0);
	return pair[1];
}

static int set_up(void **state)
{
	static struct world w;
	const struct api_server_config config = {
		.dispatcher = &w.dispatcher, .session_changed = on_session, .data = &w};
	int pair[2];

	w = (struct world){.base = event_base_new(),
			   .dispatcher = {.table = &table, .ops = &ops, .data = &w}};
	api_dispatcher_init(&w.dispatcher);
	assert_int_equal(api_server_create(&w.server, w.base, &config), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(api_server_add(w.server, pair[0], &operators), 0);
	assert_int_equal(api_client_create(&w.client, w.base, pair[1], NULL, NULL), 0);
	w.peer = add_peer(&w);
	*state = &w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	api_client_destroy(w->client);
	api_server_destroy(w->server);
	api_dispatcher_finish(&w->dispatcher);
	if (w->peer >= 0)
		close(w->peer);
	event_base_free(w->base);
	return 0;
}

static struct json_object *number(int n)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "n", json_object_new_int(n));
	return obj;
}

static void turn(struct world *w)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(w->base, EVLOOP_NONBLOCK);
}

static void test_call(void **state)
{
	struct world *w = *state;
	struct json_object *v;
	struct api_reply reply;

	assert_int_equal(api_client_call(w->client, "t.echo", number(7), 5000, &reply), 0);
	assert_true(json_object_object_get_ex(reply.result, "n", &v));
	assert_int_equal(json_object_get_int(v), 7);
	api_reply_finish(&reply);
	assert_int_not_equal(api_client_call(w->client, "t.echo", number(101), 5000, &reply), 0);
	assert_int_equal(reply.err.kind, API_KIND_INVALID_PARAMS);
	assert_string_equal(reply.err.field, "n");
	assert_int_not_equal(api_client_call(w->client, "t.ehco", NULL, 5000, &reply), 0);
	assert_int_equal(reply.err.kind, API_KIND_METHOD_NOT_FOUND);
	assert_non_null(strstr(reply.err.text, "t.echo"));
	assert_int_not_equal(api_client_call(w->client, "t.forbidden", NULL, 5000, &reply), 0);
	assert_int_equal(reply.err.kind, API_KIND_DENIED);
}

static void test_descriptors(void **state)
{
	struct world *w = *state;
	struct api_reply reply;
	char text[8] = "";

	assert_int_equal(api_client_call(w->client, "t.give", NULL, 5000, &reply), 0);
	assert_int_equal(read(reply.fd, text, sizeof(text)), 4);
	assert_string_equal(text, "gift");
	api_reply_finish(&reply);
	/* No descriptor came with it. */
	assert_int_not_equal(api_client_call(w->client, "t.take", NULL, 5000, &reply), 0);
	assert_int_equal(reply.err.kind, API_KIND_INVALID_PARAMS);
}

static void on_taken(void *data, struct json_object *result, int fd, const struct api_error *err)
{
	assert_null(err);
	*(bool *)data = true;
}

static void test_take(void **state)
{
	struct world *w = *state;
	bool done = false;
	char text[8] = "";
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(api_client_send(w->client, "t.take", NULL, fds[1], 0, on_taken, &done), 0);
	turn(w);
	assert_true(done);
	assert_int_equal(read(fds[0], text, sizeof(text)), 5);
	assert_string_equal(text, "taken");
	close(fds[0]);
}

static void test_timeout_and_gone(void **state)
{
	static const char later[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"t.later\"}";
	struct world *w = *state;
	struct api_reply reply;

	assert_int_not_equal(api_client_call(w->client, "t.later", NULL, 50, &reply), 0);
	assert_int_equal(reply.err.kind, API_KIND_TIMEOUT);
	assert_non_null(w->held);
	/* An answer that nobody waits for any more is dropped. */
	api_call_reply(w->held, NULL, -1);
	w->held = NULL;
	turn(w);
	assert_int_equal(api_client_call(w->client, "t.echo", number(1), 5000, &reply), 0);
	api_reply_finish(&reply);
	assert_int_equal(write(w->peer, later, strlen(later)), strlen(later));
	turn(w);
	assert_non_null(w->held);
	close(w->peer);
	w->peer = -1;
	turn(w);
	assert_int_equal(w->gone, 1);
	assert_int_equal(api_server_sessions(w->server), 1);
}

static void test_server_gone(void **state)
{
	struct world *w = *state;
	struct api_reply reply;

	api_server_destroy(w->server);
	w->server = NULL;
	assert_int_not_equal(api_client_call(w->client, "t.echo", number(1), 5000, &reply), 0);
	assert_int_equal(reply.err.kind, API_KIND_UNAVAILABLE);
	turn(w);
	assert_true(api_client_closed(w->client));
}

/* Any cut of a stream of messages gives the same answers. */
static void test_every_cut(void **state)
{
	static const char one[] =
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"t.echo\",\"params\":{\"n\":3}}";
	char two[2 * sizeof(one)], answer[512];
	struct world *w = *state;
	size_t len;

	snprintf(two, sizeof(two), "%s %s", one, one);
	len = strlen(two);
	for (size_t cut = 0; cut <= len; cut++) {
		ssize_t n;

		assert_int_equal(write(w->peer, two, cut), cut);
		turn(w);
		assert_int_equal(write(w->peer, two + cut, len - cut), len - cut);
		turn(w);
		n = read(w->peer, answer, sizeof(answer) - 1);
		assert_true(n > 0);
		answer[n] = 0;
		assert_string_equal(answer,
				    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"n\":3}}\n"
				    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"n\":3}}\n");
	}
}

static void test_batch_with_a_late_one(void **state)
{
	static const char text[] =
		"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"t.later\"},"
		"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"t.echo\",\"params\":{\"n\":3}},"
		"{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"t.give\"}]";
	struct world *w = *state;
	char answer[512];
	ssize_t n;

	assert_int_equal(write(w->peer, text, strlen(text)), strlen(text));
	turn(w);
	assert_int_equal(read(w->peer, answer, sizeof(answer)), -1);
	api_call_reply(w->held, NULL, -1);
	w->held = NULL;
	turn(w);
	n = read(w->peer, answer, sizeof(answer) - 1);
	assert_true(n > 0);
	answer[n] = 0;
	assert_non_null(strstr(answer, "\"id\":1,\"result\":{}"));
	assert_non_null(strstr(answer, "\"id\":2,\"result\":{\"n\":3}"));
	assert_non_null(strstr(answer, "cannot be in a batch"));
	/* Gone before the late one answers. */
	assert_int_equal(write(w->peer, text, strlen(text)), strlen(text));
	turn(w);
	close(w->peer);
	w->peer = -1;
	turn(w);
	assert_int_equal(w->gone, 1);
}

/* A peer that begins a message and never ends it is told, and let go. */
static void test_slow_message(void **state)
{
	static const char begun[] = "{\"jsonrpc\":\"2.0\",";
	struct world *w = *state;
	char answer[512];
	ssize_t n;

	w->dispatcher.limits.message_s = 0.02;
	close(w->peer);
	w->peer = add_peer(w);
	assert_int_equal(write(w->peer, begun, strlen(begun)), strlen(begun));
	while (api_server_sessions(w->server) > 1)
		event_base_loop(w->base, EVLOOP_ONCE);
	n = read(w->peer, answer, sizeof(answer) - 1);
	assert_true(n > 0);
	answer[n] = 0;
	assert_non_null(strstr(answer, "\"timeout\""));
	assert_int_equal(read(w->peer, answer, sizeof(answer)), 0);
}

/* A connection that must say who it is has a bound for it, which no call prolongs. */
static size_t answers(int fd)
{
	static char data[1 << 20];
	ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
	size_t count = 0;

	for (ssize_t i = 0; i < n; i++)
		count += data[i] == '\n';
	return count;
}

/* Whoever sends much makes others wait for a little of it only; and all of it is served, in the
 * end without another byte coming. */
static void test_flood(void **state)
{
	static const char one[] =
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"t.echo\",\"params\":{\"n\":5}} ";
	struct world *w = *state;
	int other = add_peer(w);
	size_t many = 0, few = 0;
	unsigned turns = 0;

	for (int i = 0; i < 200; i++)
		assert_int_equal(write(w->peer, one, sizeof(one) - 1), sizeof(one) - 1);
	/* The flood has been read, and its first turn served, when the other one comes. */
	event_base_loop(w->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
	many += answers(w->peer);
	assert_in_range(many, 1, 20);
	assert_int_equal(write(other, one, sizeof(one) - 1), sizeof(one) - 1);
	while (!few) {
		event_base_loop(w->base, EVLOOP_ONCE);
		few = answers(other);
		many += answers(w->peer);
		assert_true(++turns < 4);
	}
	assert_true(many < 60);
	while (many < 200) {
		event_base_loop(w->base, EVLOOP_ONCE);
		many += answers(w->peer);
	}
	/* What was sent before leaving is served too. */
	for (int i = 0; i < 50; i++)
		assert_int_equal(write(other, one, sizeof(one) - 1), sizeof(one) - 1);
	shutdown(other, SHUT_WR);
	for (few = 0; few < 50; few += answers(other))
		event_base_loop(w->base, EVLOOP_ONCE);
	close(other);
}

static enum api_access given = API_OPERATE;

static int identify_as_given(void *data, const struct api_peer *peer, struct api_caller *caller)
{
	caller->level = given;
	caller->sees_all = given == API_ADMIN;
	snprintf(caller->name, sizeof(caller->name), "unix:1");
	return given == API_NOBODY ? -EACCES : 0;
}

/* Rights change: more is had at once, less ends the connection. */
static void test_recheck(void **state)
{
	const struct api_listen everybody = {.cap = API_ADMIN};
	struct world *w = *state;
	const struct api_server_config config = {.dispatcher = &w->dispatcher,
						 .identify = identify_as_given,
						 .session_changed = on_session,
						 .data = w};
	struct api_server *server;
	int pair[2];
	char c;

	given = API_OPERATE;
	assert_int_equal(api_server_create(&server, w->base, &config), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(api_server_add(server, pair[0], &everybody), 0);
	assert_int_equal(api_server_recheck(server), 0);
	given = API_ADMIN;
	assert_int_equal(api_server_recheck(server), 0);
	assert_int_equal(api_session_caller(w->last)->level, API_ADMIN);
	assert_true(api_session_caller(w->last)->sees_all);
	given = API_READ;
	assert_int_equal(api_server_recheck(server), 1);
	assert_int_equal(api_server_sessions(server), 0);
	assert_int_equal(recv(pair[1], &c, 1, MSG_DONTWAIT), 0);
	close(pair[1]);
	api_server_destroy(server);
}

static void test_stranger(void **state)
{
	struct world *w = *state;
	const struct api_listen how = {.cap = API_NOBODY};
	struct api_caller caller = {.level = API_ADMIN, .name = "token:x"};
	struct api_error err;
	int pair[2];

	w->dispatcher.limits.handshake_s = 0.02;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(api_server_add(w->server, pair[0], &how), 0);
	assert_int_equal(api_server_sessions(w->server), 3);
	while (api_server_sessions(w->server) > 2)
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_int_equal(read(pair[1], &(char){0}, 1), 0);
	close(pair[1]);
	/* The socket's cap stays, whoever it turns out to be. */
	assert_int_equal(api_session_authenticate(w->last, &caller, &err), 0);
	assert_int_equal(api_session_caller(w->last)->level, API_OPERATE);
	assert_string_equal(api_session_caller(w->last)->name, "token:x");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_call, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_descriptors, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_take, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_timeout_and_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_server_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_every_cut, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_batch_with_a_late_one, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_slow_message, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stranger, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_flood, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_recheck, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
