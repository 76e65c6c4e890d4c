/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The console: byte-exact output from another thread, a bounded log, input with back-pressure. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "api/console.h"
#include "base/fd.h"

struct sink {
	char got[64];
	size_t len, room;
};

static size_t on_input(void *data, const void *bytes, size_t len)
{
	struct sink *s = data;
	size_t n = MIN(len, s->room);

	memcpy(s->got + s->len, bytes, n);
	s->len += n;
	s->room -= n;
	return n;
}

static const struct console_ops ops = {.input = on_input};

static void turn(struct event_base *base)
{
	for (int i = 0; i < 10; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void test_input_waits_for_room(void **state)
{
	struct event_base *base = event_base_new();
	struct sink sink = {.room = 3};
	struct console *con;
	int pair[2];

	assert_int_equal(console_create(&con, base, -1, &ops, &sink), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(console_attach(con, pair[0], pair[0]), 0);
	assert_int_equal(write(pair[1], "abcdefgh", 8), 8);
	turn(base);
	assert_int_equal(sink.len, 3);
	sink.room = 4;
	console_input_ready(con);
	turn(base);
	assert_int_equal(sink.len, 7);
	sink.room = 40;
	console_input_ready(con);
	assert_int_equal(write(pair[1], "ij", 2), 2);
	turn(base);
	assert_memory_equal(sink.got, "abcdefghij", 10);
	console_destroy(con);
	close(pair[1]);
	event_base_free(base);
}

#define FLOOD MIB(12)

static void *flood(void *arg)
{
	uint32_t words[1024];

	for (uint32_t n = 0; n < FLOOD / 4; n += 1024) {
		for (uint32_t i = 0; i < 1024; i++)
			words[i] = n + i;
		console_write(arg, words, sizeof(words));
	}
	return NULL;
}

/* More than a queue holds: the writer waits for the reader, and nothing is lost. */
static void test_output_is_whole(void **state)
{
	struct event_base *base = event_base_new();
	uint32_t words[4096], next = 0;
	struct console *con;
	pthread_t thread;
	struct stat st;
	int pair[2], log = memfd_create("log", 0);

	assert_int_equal(console_create(&con, base, dup(log), NULL, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(console_attach(con, pair[0], pair[0]), 0);
	assert_int_equal(pthread_create(&thread, NULL, flood, con), 0);
	while (next < FLOOD / 4) {
		struct pollfd p = {.fd = pair[1], .events = POLLIN};

		event_base_loop(base, EVLOOP_NONBLOCK);
		if (poll(&p, 1, 1) <= 0)
			continue;
		assert_int_equal(recv(pair[1], words, 4096, MSG_WAITALL), 4096);
		for (int i = 0; i < 1024; i++)
			assert_int_equal(words[i], next++);
	}
	pthread_join(thread, NULL);
	console_flush(con, 100);
	assert_int_equal(fstat(log, &st), 0);
	assert_true((uint64_t)st.st_size <= CONSOLE_LOG_MAX &&
		    (uint64_t)st.st_size >= CONSOLE_LOG_MAX / 2);
	/* The log's end is the output's. */
	assert_int_equal(pread(log, words, 4, st.st_size - 4), 4);
	assert_int_equal(words[0], FLOOD / 4 - 1);
	console_destroy(con);
	close(pair[1]);
	close(log);
	event_base_free(base);
}

static void *unblock_soon(void *arg)
{
	usleep(50000);
	console_unblock(arg);
	return NULL;
}

/* A reader that never reads: the guest's thread is let go when the machine ends. */
static void test_unblock(void **state)
{
	struct event_base *base = event_base_new();
	pthread_t writer, other;
	struct console *con;
	int pair[2];

	assert_int_equal(console_create(&con, base, -1, NULL, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(console_attach(con, pair[0], pair[0]), 0);
	assert_int_equal(pthread_create(&writer, NULL, flood, con), 0);
	assert_int_equal(pthread_create(&other, NULL, unblock_soon, con), 0);
	pthread_join(writer, NULL);
	pthread_join(other, NULL);
	console_destroy(con);
	close(pair[1]);
	event_base_free(base);
}

/* Files and pipes, as `umbra-vm --config` has them on stdio. */
static void test_files(void **state)
{
	struct event_base *base = event_base_new();
	int out = memfd_create("out", 0), in[2];
	struct sink sink = {.room = 60};
	struct console *con;
	char text[8] = "";

	assert_int_equal(pipe(in), 0);
	assert_int_equal(write(in[1], "in", 2), 2);
	close(in[1]);
	assert_int_equal(console_create(&con, base, -1, &ops, &sink), 0);
	assert_int_equal(console_attach(con, in[0], dup(out)), 0);
	assert_int_equal(console_attach(con, open("/dev/null", O_RDONLY), -1), 0);
	console_write(con, "text", 4);
	turn(base);
	assert_int_equal(sink.len, 2);
	assert_int_equal(pread(out, text, sizeof(text), 0), 4);
	/* The end of the input does not end the output. */
	console_write(con, "more", 4);
	console_flush(con, 100);
	assert_int_equal(pread(out, text, sizeof(text), 0), 8);
	assert_memory_equal(text, "textmore", 8);
	console_destroy(con);
	close(out);
	event_base_free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_input_waits_for_room),
		cmocka_unit_test(test_output_is_whole),
		cmocka_unit_test(test_unblock),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
