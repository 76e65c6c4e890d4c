/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bearer tokens: made, found, revoked; files that are wrong are refused with the line. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/token.h"
#include "base/cleanup.h"
#include "base/fd.h"

struct world {
	char folder[64], path[128];
};

static int set_up(void **state)
{
	static struct world w;

	strcpy(w.folder, "/tmp/umbra-token-XXXXXX");
	assert_non_null(mkdtemp(w.folder));
	snprintf(w.path, sizeof(w.path), "%s/tokens", w.folder);
	*state = &w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char lock[140];

	snprintf(lock, sizeof(lock), "%s.lock", w->path);
	unlink(lock);
	unlink(w->path);
	assert_int_equal(rmdir(w->folder), 0);
	return 0;
}

static struct api_tokens *load(struct world *w)
{
	struct api_tokens *tokens = NULL;
	struct api_error err;

	assert_int_equal(api_tokens_load(&tokens, w->path, &err), 0);
	return tokens;
}

static void test_life(void **state)
{
	char a[API_TOKEN_TEXT], b[API_TOKEN_TEXT];
	_cleanup_(buf_finish) struct buf text = {0};
	uint64_t id;
	const struct api_token *t;
	struct world *w = *state;
	struct api_tokens *tokens;
	struct api_error err;
	struct stat st;

	assert_int_equal(api_token_new(w->path, "grafana", API_READ, a, &err), 0);
	assert_int_equal(api_token_new(w->path, "ci", API_ADMIN, b, &err), 0);
	assert_int_equal(api_token_new(w->path, "ci", API_READ, b, &err), -EEXIST);
	assert_int_equal(api_token_new(w->path, "c:i", API_READ, b, &err), -EINVAL);
	assert_string_not_equal(a, b);
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* Who reads the file has no token. */
	assert_int_equal(fd_read_file(AT_FDCWD, w->path, KIB(64), &text), 0);
	assert_null(strstr(text.data, strchr(a, '_') + 1));

	tokens = load(w);
	assert_int_equal(api_tokens_count(tokens), 2);
	t = api_tokens_find(tokens, a);
	assert_string_equal(t->name, "grafana");
	assert_int_equal(t->level, API_READ);
	t = api_tokens_find(tokens, b);
	assert_string_equal(t->name, "ci");
	assert_int_equal(t->level, API_ADMIN);
	id = t->id;
	assert_int_not_equal(id, api_tokens_find(tokens, a)->id);
	assert_ptr_equal(api_tokens_by_id(tokens, id), t);
	assert_null(api_tokens_by_id(tokens, 0));
	a[strlen(a) - 1] ^= 1;
	assert_null(api_tokens_find(tokens, a));
	assert_null(api_tokens_find(tokens, ""));
	assert_null(api_tokens_find(NULL, b));
	api_tokens_free(tokens);

	assert_int_equal(api_token_revoke(w->path, "grafan", &err), -ENOENT);
	assert_int_equal(api_token_revoke(w->path, "ci", &err), 0);
	tokens = load(w);
	assert_int_equal(api_tokens_count(tokens), 1);
	assert_null(api_tokens_find(tokens, b));
	assert_null(api_tokens_by_id(tokens, id));
	api_tokens_free(tokens);
	/* Another one of the same name. */
	assert_int_equal(api_token_new(w->path, "ci", API_ADMIN, b, &err), 0);
	tokens = load(w);
	assert_int_not_equal(api_tokens_find(tokens, b)->id, id);
	api_tokens_free(tokens);
}

#define SALT "00112233445566778899aabbccddeeff"
#define SUM  SALT SALT

static void test_bad_files(void **state)
{
	static const char *const bad[] = {
		"name\n",
		"name:read\n",
		"na me:read:sha256$" SALT "$" SUM "\n",
		":read:sha256$" SALT "$" SUM "\n",
		"name:root:sha256$" SALT "$" SUM "\n",
		"name::sha256$" SALT "$" SUM "\n",
		"name:read:md5$" SALT "$" SUM "\n",
		"name:read:sha256$" SALT "$" SUM "0\n",
		"name:read:sha256$" SALT "$" SALT "\n",
		"name:read:sha256$x" SALT "$" SUM "\n",
		"name:read:sha256$" SALT "\n",
	};
	struct world *w = *state;
	struct api_tokens *tokens = NULL;
	struct api_error err;
	char text[600];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(text, sizeof(text), "# a comment\n\nok:admin:sha256$" SALT "$" SUM "\n%s",
			 bad[i]);
		assert_int_equal(fd_write_file_atomic(AT_FDCWD, w->path, text, strlen(text), 0600),
				 0);
		assert_int_not_equal(api_tokens_load(&tokens, w->path, &err), 0);
		assert_non_null(strstr(err.text, "tokens:4: "));
		assert_null(tokens);
		/* Nor is it made worse. */
		assert_int_not_equal(api_token_new(w->path, "new", API_READ, text, &err), 0);
	}
	/* The same name twice; and a file that others can write. */
	snprintf(text, sizeof(text), "a:read:sha256$%s$%s\na:admin:sha256$%s$%s", SALT, SUM, SALT,
		 SUM);
	assert_int_equal(fd_write_file_atomic(AT_FDCWD, w->path, text, strlen(text), 0600), 0);
	assert_int_not_equal(api_tokens_load(&tokens, w->path, &err), 0);
	assert_int_equal(fd_write_file_atomic(AT_FDCWD, w->path, "", 0, 0600), 0);
	assert_int_equal(chmod(w->path, 0620), 0);
	assert_int_equal(api_tokens_load(&tokens, w->path, &err), -EACCES);
	assert_int_equal(chmod(w->path, 0600), 0);
	tokens = load(w);
	assert_int_equal(api_tokens_count(tokens), 0);
	api_tokens_free(tokens);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad_files, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
