/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbrad.conf: what is accepted, what is refused with which words, drop-ins, reload; the journal's
 * numbers. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "daemon/config.h"
#include "daemon/journal.h"

/* All that was told, a line each. */
static void say(void *data, const char *text)
{
	buf_printf(data, "%s\n", text);
}

static unsigned parse(struct umbrad_config *config, const char *text, struct buf *said)
{
	assert_int_equal(umbrad_config_init(config), 0);
	return umbrad_config_parse(config, "f", text, strlen(text), say, said);
}

static void test_defaults(void **state)
{
	struct umbrad_config config;

	assert_int_equal(umbrad_config_init(&config), 0);
	assert_null(config.listen.tls);
	assert_true(config.listen.read_only);
	assert_string_equal(config.access.operate_groups, "umbra");
	assert_int_equal(config.access.other_users, CONFIG_NONE);
	assert_int_equal(config.machines.units, CONFIG_UNITS_AUTO);
	assert_true(config.machines.restart_delay_max == 60);
	assert_int_equal(config.limits.jobs, 256);
	assert_int_equal(config.log.level, CONFIG_LOG_INFO);
	umbrad_config_finish(&config);
}

static void test_values(void **state)
{
	_cleanup_(buf_finish) struct buf said = {0};
	struct umbrad_config config;

	assert_int_equal(parse(&config,
			       "# a comment\n; another\n\n[listen]\r\n  read_only = no \n"
			       "tls=*:16800, [::1]:2 10.0.0.1:3\n[tls]\ncert = /a b=c\nkey=/k\n"
			       "tokens=/t\n[access]\noperate_groups =\n[log]\nlevel=debug\n"
			       "[machines]\nwatchdog = 2.5\nsandbox = strict\n[limits]\njobs=\n",
			       &said),
			 0);
	assert_false(config.listen.read_only);
	assert_string_equal(config.listen.tls, "*:16800, [::1]:2 10.0.0.1:3");
	assert_string_equal(config.tls.cert, "/a b=c");
	assert_null(config.access.operate_groups);
	assert_int_equal(config.log.level, CONFIG_LOG_DEBUG);
	assert_true(config.machines.watchdog == 2.5);
	assert_int_equal(config.machines.sandbox, MACHINE_SANDBOX_STRICT);
	assert_int_equal(config.limits.jobs, 256);
	umbrad_config_finish(&config);
}

/* Each wrong text, and a piece of what is said about it. */
static void test_refused(void **state)
{
	static const struct {
		const char *text, *said;
	} cases[] = {
		{"[tls]\ncer = x\n", "f:2: unknown field \"cer\" in [tls]; did you mean \"cert\"?"},
		{"\n[limit]\ncalls=1\n", "f:2: unknown field \"limit\" in the configuration; did "
					 "you mean \"limits\"?"},
		{"calls = 1\n", "f:1: \"calls\" stands before any section"},
		{"[limits]\ncalls = many\n", "f:2: [limits] field \"calls\" must be an integer"},
		{"[limits]\ncalls = 1025\n", "from 1 to 1024"},
		{"[limits]\ncalls = 5\ncalls = 5\n", "f:3: [limits] calls: given in line 2"},
		{"[limits]\nidle_timeout = nan\n", "f:2: [limits] field \"idle_timeout\""},
		{"[log]\nlevel = inof\n", "did you mean \"info\"?"},
		{"[log\n", "f:1: a section is \"[NAME]\""},
		{"[log] x\n", "f:1: a section is \"[NAME]\""},
		{"[log]\ngarbage\n", "f:2: neither"},
		{"[listen]\nhttp = perhaps\n",
		 "f:2: [listen] field \"http\" must be true or false"},
		{"[listen]\nhttps = a:1\n[tls]\ncert=/c\nkey=/k\nca=/a\n", "f:2: [listen] https"},
		{"[listen]\ntls = *:0\n[tls]\ncert=/c\nkey=/k\nca=/a\n", "\"*:0\" is no ADDRESS"},
		{"[listen]\ntls = *:1\n", "f: [tls] cert: is needed"},
		{"[listen]\ntls = *:1\n[tls]\ncert=/c\nkey=/k\n", "f: [tls] ca: is needed"},
		{"[tls]\ncrl = /c\n", "f:2: [tls] crl: means nothing without ca"},
		{"[machines]\nrestart_delay = 61\n", "f:2: [machines] restart_delay: is longer"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(buf_finish) struct buf said = {0};
		struct umbrad_config config;

		if (!parse(&config, cases[i].text, &said) || !strstr(said.data, cases[i].said))
			fail_msg("%s: %s", cases[i].text, said.data ? said.data : "accepted");
		umbrad_config_finish(&config);
	}
}

static void test_no_text(void **state)
{
	_cleanup_(buf_finish) struct buf said = {0};
	struct umbrad_config config;

	assert_int_equal(umbrad_config_init(&config), 0);
	assert_int_equal(umbrad_config_parse(&config, "f", "[log]\0", 6, say, &said), 1);
	assert_int_equal(umbrad_config_parse(&config, "f", "", 0, say, &said), 0);
	umbrad_config_finish(&config);
}

struct folder {
	char path[64], file[96];
};

static void put(const struct folder *f, const char *name, const char *text)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", f->path, name);
	assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600), 0);
}

static int set_up(void **state)
{
	struct folder *f = calloc(1, sizeof(*f));
	char sub[128];

	strcpy(f->path, "/tmp/umbra-test-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	snprintf(f->file, sizeof(f->file), "%s/umbrad.conf", f->path);
	snprintf(sub, sizeof(sub), "%s.d", f->file);
	assert_int_equal(mkdir(sub, 0700), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct folder *f = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", f->path);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static void test_drop_ins(void **state)
{
	_cleanup_(buf_finish) struct buf said = {0};
	struct folder *f = *state;
	struct umbrad_config config;

	put(f, "umbrad.conf", "[limits]\ncalls = 1\njobs = 2\n");
	put(f, "umbrad.conf.d/20-b.conf", "[limits]\ncalls = 20\n");
	put(f, "umbrad.conf.d/10-a.conf", "[limits]\ncalls = 10\njob_keep = 3\n");
	put(f, "umbrad.conf.d/30-c.conf.old", "garbage\n");
	assert_int_equal(umbrad_config_load(&config, f->file, false, say, &said), 0);
	assert_int_equal(config.limits.calls, 20);
	assert_int_equal(config.limits.jobs, 2);
	assert_true(config.limits.job_keep == 3);
	umbrad_config_finish(&config);

	/* One wrong line anywhere, and none is in effect. */
	put(f, "umbrad.conf.d/20-b.conf", "[limits]\ncalls = 20\n[lgo]\n");
	assert_int_equal(umbrad_config_load(&config, f->file, false, say, &said), -EINVAL);
	assert_non_null(strstr(said.data, "umbrad.conf.d/20-b.conf:3: unknown field \"lgo\""));
	assert_int_equal(config.limits.calls, 64);
	umbrad_config_finish(&config);
}

static void test_where(void **state)
{
	_cleanup_(buf_finish) struct buf said = {0};
	struct folder *f = *state;
	struct umbrad_config config;

	unsetenv("UMBRA_CONFIG");
	setenv("XDG_CONFIG_HOME", f->path, 1);
	assert_int_equal(umbrad_config_load(&config, NULL, false, say, &said), 0);
	umbrad_config_finish(&config);
	assert_int_equal(umbrad_config_load(&config, f->file, false, say, &said), -EINVAL);
	assert_non_null(strstr(said.data, "umbrad.conf: cannot be read: No such file"));
	umbrad_config_finish(&config);
	put(f, "umbrad.conf", "[limits]\ncalls = 7\n");
	setenv("UMBRA_CONFIG", f->file, 1);
	assert_int_equal(umbrad_config_load(&config, NULL, true, say, &said), 0);
	assert_int_equal(config.limits.calls, 7);
	umbrad_config_finish(&config);
	unsetenv("UMBRA_CONFIG");
}

static void test_replace(void **state)
{
	_cleanup_(buf_finish) struct buf said = {0};
	struct umbrad_config config, next;

	assert_int_equal(parse(&config, "[limits]\ncalls=2\n", &said), 0);
	assert_int_equal(parse(&next, "[tls]\ntokens=/t\n", &said), 0);
	assert_false(umbrad_config_replace(&config, &next));
	assert_int_equal(config.limits.calls, 64);
	assert_string_equal(config.tls.tokens, "/t");
	assert_int_equal(parse(&next, "[listen]\nbacklog = 5\n", &said), 0);
	assert_true(umbrad_config_replace(&config, &next));
	assert_int_equal(config.listen.backlog, 1024);
	assert_null(config.tls.tokens);
	umbrad_config_finish(&config);
}

static void test_words(void **state)
{
	const char *list = " a,, bc\t,", *none = NULL, *word;

	assert_int_equal(config_word(&list, &word), 1);
	assert_memory_equal(word, "a", 1);
	assert_int_equal(config_word(&list, &word), 2);
	assert_memory_equal(word, "bc", 2);
	assert_int_equal(config_word(&list, &word), 0);
	assert_int_equal(config_word(&none, &word), 0);
}

static void test_addresses(void **state)
{
	struct sockaddr_storage addr;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&addr;

	assert_int_equal(config_address("*:16800,x", 7, &addr), 0);
	assert_int_equal(addr.ss_family, AF_INET6);
	assert_int_equal(ntohs(v6->sin6_port), 16800);
	assert_memory_equal(&v6->sin6_addr, &in6addr_any, 16);
	assert_int_equal(config_address("127.0.0.1:1", 11, &addr), 0);
	assert_int_equal(addr.ss_family, AF_INET);
	assert_int_equal(config_address("[::1]:1", 7, &addr), 0);
	assert_int_equal(config_address("127.0.0.1", 9, &addr), -EINVAL);
	assert_int_equal(config_address("[::1]:70000", 11, &addr), -EINVAL);
	assert_int_equal(config_address(":", 1, &addr), -EINVAL);
}

static void read_source(const char *name, struct buf *b)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", UMBRA_SOURCE, name);
	assert_int_equal(fd_read_file(AT_FDCWD, path, MIB(1), b), 0);
}

/* The example that is installed is what the table says. */
static void test_example(void **state)
{
	_cleanup_(buf_finish) struct buf file = {0}, man = {0};
	_cleanup_free_ char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	umbrad_config_print(out);
	fclose(out);
	read_source("configs/umbrad.conf", &file);
	assert_string_equal(text, file.data);
	read_source("daemon/man/umbrad.conf.5", &man);
	for (size_t s = 0; s < umbrad_config_fields.n; s++) {
		const struct api_fields *fields = umbrad_config_fields.f[s].object;

		for (size_t i = 0; i < fields->n; i++) {
			char entry[80];

			snprintf(entry, sizeof(entry), "\n.B %s\n", fields->f[i].name);
			if (!strstr(man.data, entry))
				fail_msg("umbrad.conf(5) lacks %s", fields->f[i].name);
		}
	}
}

/* Every number is of 32 digits, unlike all others, and explained. */
static void test_catalog(void **state)
{
	_cleanup_(buf_finish) struct buf catalog = {0};

	read_source("systemd/umbra.catalog", &catalog);
	for (int i = 0; i < JOURNAL_EVENT_COUNT; i++) {
		const char *id = journal_message_id((enum journal_event)i);
		char entry[48];

		assert_non_null(id);
		assert_int_equal(strspn(id, "0123456789abcdef"), 32);
		snprintf(entry, sizeof(entry), "\n-- %s\nSubject: ", id);
		if (!strstr(catalog.data, entry))
			fail_msg("umbra.catalog lacks %s", id);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(id, journal_message_id((enum journal_event)j));
	}
}

/* Without a journal an entry is a line on stderr, if its level is wanted. */
static void test_journal(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	int saved = dup(STDERR_FILENO), file = memfd_create("stderr", MFD_CLOEXEC);

	assert_true(saved >= 0 && file >= 0);
	fflush(stderr);
	dup2(file, STDERR_FILENO);
	log_setup("t", LOG_LEVEL_INFO, false);
	journal_setup("t", false);
	journal_write(&(struct journal_entry){.event = JOURNAL_CHANGE, .who = "unix:0"},
		      "%d\n\033[2J", 42);
	journal_write(&(struct journal_entry){.event = JOURNAL_CHANGE, .level = LOG_LEVEL_DEBUG},
		      "unseen");
	log_set_max(LOG_LEVEL_ERR);
	journal_write(&(struct journal_entry){.event = JOURNAL_CHANGE}, "unseen too");
	dup2(saved, STDERR_FILENO);
	close(saved);
	lseek(file, 0, SEEK_SET);
	assert_int_equal(buf_reserve(&b, 128), 0);
	b.data[fd_read_full(file, b.data, 127)] = 0;
	close(file);
	assert_string_equal(b.data, "t: 42??[2J\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_no_text),
		cmocka_unit_test_setup_teardown(test_drop_ins, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_where, set_up, tear_down),
		cmocka_unit_test(test_replace),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_example),
		cmocka_unit_test(test_catalog),
		cmocka_unit_test(test_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
