/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A umbra-vm gets the descriptors that it is to have, and no other. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/spawn.h"

/* Says its arguments and descriptors on stdout. */
static const char script[] = "#!/bin/sh\necho \"$*\"\ncd /proc/$$/fd && echo *\n";

struct setting {
	char program[64];
	struct machine_def def;
	struct machine_files files;
	struct spawn_what what;
};

static void set_up(struct setting *s)
{
	int fd;

	*s = (struct setting){0};
	strcpy(s->program, "/tmp/umbra-test-XXXXXX");
	fd = mkstemp(s->program);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, script, sizeof(script) - 1), sizeof(script) - 1);
	assert_int_equal(fchmod(fd, 0700), 0);
	close(fd);
	machine_def_init(&s->def);
	s->def.name = strdup("a");
	s->def.kernel = strdup("/k");
	machine_files_init(&s->files);
	s->files.kernel = open("/dev/null", O_RDONLY | O_CLOEXEC);
	s->what = (struct spawn_what){
		.program = s->program,
		.def = &s->def,
		.fds = {.control = s->files.kernel,
			.console_log = s->files.kernel,
			.report = s->files.kernel,
			.log = memfd_create("log", MFD_CLOEXEC),
			.files = &s->files},
	};
}

static void tear_down(struct setting *s)
{
	unlink(s->program);
	close(s->what.fds.log);
	machine_files_finish(&s->files);
	machine_def_finish(&s->def);
}

static void test_descriptors(void **state)
{
	struct setting s;
	char text[256] = "";
	int pidfd, stray;
	pid_t pid;

	set_up(&s);
	stray = fcntl(s.files.kernel, F_DUPFD, 50); /* not close-on-exec */
	assert_int_equal(spawn_vm(&s.what, &pid, &pidfd), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_true(pread(s.what.fds.log, text, sizeof(text) - 1, 0) > 0);
	/* 3 to 6 are the arguments', 7 is the kernel; 8 is the shell's folder, 10 its script. */
	assert_string_equal(text, "--control 3 --config-fd 4 --console-log 5 --report 6 --name a\n"
				  "0 1 10 2 3 4 5 6 7 8\n");
	close(stray);
	close(pidfd);
	tear_down(&s);
}

static void test_no_program(void **state)
{
	struct setting s;
	int pidfd;
	pid_t pid;

	set_up(&s);
	s.what.program = "/nonexistent";
	assert_int_equal(spawn_vm(&s.what, &pid, &pidfd), -ENOENT);
	s.what.program = "/tmp";
	assert_int_equal(spawn_vm(&s.what, &pid, &pidfd), -EACCES);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left behind */
	tear_down(&s);
}

/* umbra-exec with @sock as its stdin; its status as wait's. */
static int run_exec(int sock, int err)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		dup2(sock, STDIN_FILENO);
		dup2(err, STDERR_FILENO);
		closefrom(3);
		execl(UMBRA_EXEC, "umbra-exec", NULL);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void pair(int sock[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
}

static void test_exec(void **state)
{
	struct setting s;
	char text[256] = "";
	int sock[2];

	set_up(&s);
	pair(sock);
	assert_int_equal(spawn_send(&s.what, sock[0]), 0);
	assert_int_equal(run_exec(sock[1], s.what.fds.log), 0);
	assert_true(pread(s.what.fds.log, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text, "--control 3 --config-fd 4 --console-log 5 --report 6 --name a\n"
				  "0 1 10 2 3 4 5 6 7 8\n");
	close(sock[0]);
	close(sock[1]);
	tear_down(&s);
}

/* Orders that no umbrad gives. */
static void test_bad_orders(void **state)
{
	struct spawn_order order = {.n_fds = SPAWN_FDS_MAX + 1};
	int log = memfd_create("log", MFD_CLOEXEC), sock[2];

	pair(sock);
	close(sock[0]);
	assert_int_equal(WEXITSTATUS(run_exec(sock[1], log)), 125); /* nothing */
	close(sock[1]);
	pair(sock);
	assert_true(send(sock[0], "x", 1, 0) == 1);
	assert_int_equal(WEXITSTATUS(run_exec(sock[1], log)), 125); /* too short */
	close(sock[0]);
	close(sock[1]);
	pair(sock);
	assert_true(send(sock[0], &order, sizeof(order), 0) > 0);
	assert_int_equal(WEXITSTATUS(run_exec(sock[1], log)), 125); /* no program, no descriptors */
	close(sock[0]);
	close(sock[1]);
	close(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_no_program),
		cmocka_unit_test(test_exec),
		cmocka_unit_test(test_bad_orders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
