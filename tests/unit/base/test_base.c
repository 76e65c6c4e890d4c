/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Buffers, files, bitmaps, lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/list.h"

static void test_buf(void **state)
{
	char big[1000];
	struct buf b = {0};

	memset(big, 'x', sizeof(big));
	assert_int_equal(buf_append(&b, "", 0), 0);
	assert_string_equal(b.data, "");
	for (unsigned k = 0; k < 100; k++)
		assert_int_equal(buf_printf(&b, "%u,", k), 0);
	assert_int_equal(b.len, 290);
	assert_int_equal(strncmp(b.data, "0,1,2,", 6), 0);
	buf_consume(&b, 286);
	assert_string_equal(b.data, ",99,");
	assert_int_equal(buf_append(&b, big, sizeof(big)), 0);
	assert_int_equal(b.data[b.len], 0);
	buf_truncate(&b, 2);
	assert_string_equal(b.data, ",9");
	/* What cannot be had leaves the contents, and is remembered. */
	assert_int_equal(buf_reserve(&b, SIZE_MAX), -ENOMEM);
	assert_int_equal(buf_reserve(&b, SIZE_MAX / 2), -ENOMEM);
	assert_true(b.failed);
	assert_string_equal(b.data, ",9");
	buf_finish(&b);
	assert_null(b.data);
	assert_false(b.failed);
	buf_truncate(&b, 0);
	buf_consume(&b, 0);
}

static int make_folder(void **state)
{
	static char name[64];

	strcpy(name, "/tmp/umbra-test-base-XXXXXX");
	*state = mkdtemp(name);
	return !*state;
}

static int remove_folder(void **state)
{
	return rmdir(*state);
}

static void test_file(void **state)
{
	_cleanup_close_ int folder = open(*state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct buf b = {0};
	struct stat st;
	char text[10000];

	memset(text, 'a', sizeof(text));
	assert_int_equal(fd_write_file_atomic(folder, "f", "old", 3, 0600), 0);
	assert_int_equal(fd_write_file_atomic(folder, "f", text, sizeof(text), 0600), 0);
	assert_int_equal(fstatat(folder, "f", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	buf_append(&b, "before", 6);
	assert_int_equal(fd_read_file(folder, "f", sizeof(text), &b), 0);
	assert_int_equal(b.len, 6 + sizeof(text));
	buf_truncate(&b, 6);
	/* Outputs are untouched on failure. */
	assert_int_equal(fd_read_file(folder, "f", sizeof(text) - 1, &b), -EFBIG);
	assert_int_equal(fd_read_file(folder, "none", 1, &b), -ENOENT);
	assert_int_equal(fd_read_file(folder, ".", 1, &b), -EISDIR);
	assert_string_equal(b.data, "before");
	/* No temporary file is left, whatever happens. */
	assert_int_equal(mkdirat(folder, "d", 0700), 0);
	assert_int_equal(fd_write_file_atomic(folder, "d", "x", 1, 0600), -EISDIR);
	assert_int_equal(unlinkat(folder, "d", AT_REMOVEDIR), 0);
	assert_int_equal(unlinkat(folder, "f", 0), 0);
	buf_finish(&b);
}

static void test_pipes(void **state)
{
	char text[8] = "";
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(fd_write_full(p[1], "abc", 3), 0);
	close(p[1]);
	assert_int_equal(fd_read_full(p[0], text, sizeof(text)), 3);
	assert_string_equal(text, "abc");
	assert_int_equal(fd_read_full(-1, text, 1), -EBADF);
	assert_int_equal(fd_write_full(-1, text, 1), -EBADF);
	assert_int_equal(fd_set_nonblock(p[0], true), 0);
	assert_true(fcntl(p[0], F_GETFL) & O_NONBLOCK);
	assert_int_equal(fd_set_nonblock(p[0], false), 0);
	assert_false(fcntl(p[0], F_GETFL) & O_NONBLOCK);
	assert_int_equal(fd_set_nonblock(-1, true), -EBADF);
	close(p[0]);
}

static void test_send(void **state)
{
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	char text[8] = "";
	struct iovec iov = {.iov_base = text, .iov_len = sizeof(text)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control.space)};
	int pair[2], got;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(fd_send(pair[0], "abc", 3, pair[0]), 3);
	assert_int_equal(recvmsg(pair[1], &msg, MSG_CMSG_CLOEXEC), 3);
	assert_string_equal(text, "abc");
	assert_int_equal(control.hdr.cmsg_type, SCM_RIGHTS);
	memcpy(&got, CMSG_DATA(&control.hdr), sizeof(got));
	assert_true(fcntl(got, F_GETFD) >= 0);
	close(got);
	assert_int_equal(fd_send(pair[0], "de", 2, -1), 2);
	msg.msg_controllen = sizeof(control.space);
	assert_int_equal(recvmsg(pair[1], &msg, 0), 2);
	assert_int_equal(msg.msg_controllen, 0);
	close(pair[1]);
	assert_int_equal(fd_send(pair[0], "x", 1, -1), -EPIPE); /* and no signal */
	close(pair[0]);
}

static void test_bitmap(void **state)
{
	static const unsigned set[] = {0, 63, 64, 129};
	uint64_t map[BITMAP_WORDS(130)] = {0}, bit;
	unsigned n = 0;

	assert_int_equal(ARRAY_SIZE(map), 3);
	assert_int_equal(bitmap_next(map, 130, 0), 130);
	for (unsigned k = 0; k < ARRAY_SIZE(set); k++)
		bitmap_set(map, set[k]);
	bitmap_for_each (bit, map, 130)
		assert_int_equal(bit, set[n++]);
	assert_int_equal(n, 4);
	assert_int_equal(bitmap_next(map, 129, 65), 129); /* set, but beyond the end */
	bitmap_clear(map, 63);
	assert_false(bitmap_test(map, 63));
	assert_true(bitmap_test(map, 64));
	assert_int_equal(bitmap_take_word_atomic(map, 1), 1);
	assert_int_equal(bitmap_next(map, 130, 1), 129);
}

struct member {
	struct list link;
	int n;
};

static void test_list(void **state)
{
	struct member m[4], *p, *tmp;
	struct list head;
	int sum = 0;

	list_init(&head);
	assert_true(list_empty(&head));
	for (int k = 0; k < 4; k++) {
		m[k].n = k;
		list_add_tail(&head, &m[k].link);
	}
	assert_int_equal(list_first(&head, struct member, link)->n, 0);
	list_for_each_entry_safe (p, tmp, &head, link)
		if (p->n % 2)
			list_del(&p->link);
	list_for_each_entry (p, &head, link)
		sum = sum * 10 + p->n;
	assert_int_equal(sum, 2);
	list_del(&m[1].link); /* again: harmless */
	list_add(&head, &m[3].link);
	assert_int_equal(list_first(&head, struct member, link)->n, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf),
		cmocka_unit_test_setup_teardown(test_file, make_folder, remove_folder),
		cmocka_unit_test(test_pipes),
		cmocka_unit_test(test_send),
		cmocka_unit_test(test_bitmap),
		cmocka_unit_test(test_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
