/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Start a umbra-vm with exactly the descriptors it is to have. */
#include "daemon/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "api/vm_proto.h"
#include "base/cleanup.h"
#include "base/fd.h"

/* Where the descriptors are in the child. The files follow. */
enum {
	AT_CONTROL = 3,
	AT_CONFIG,
	AT_CONSOLE_LOG,
	AT_REPORT,
	AT_FILES,
	AT_END = AT_FILES + 2 + MACHINE_MODULES_MAX,
};

/* What dup2() is to do in the child: at[n] becomes descriptor n. */
struct plan {
	int at[AT_END];
	int end;     /* first number that is not used */
	int exec_fd; /* tells the parent that exec failed */
};

/* Copy @fd to above all the places, so that no dup2() in the child hits one that is still wanted.
 */
static int plan_add(struct plan *p, int n, int fd)
{
	p->at[n] = fcntl(fd, F_DUPFD_CLOEXEC, AT_END);
	if (p->at[n] < 0)
		return -errno;
	p->end = MAX(p->end, n + 1);
	return 0;
}

static void plan_finish(struct plan *p)
{
	for (int i = 0; i < AT_END; i++)
		cleanup_close(&p->at[i]);
}

/* The configuration as a file in memory, with the descriptors' numbers in the child. */
static int make_config(const struct machine_def *def, const struct machine_files *at)
{
	_cleanup_close_ int fd = memfd_create("umbra-config", MFD_CLOEXEC);
	struct json_object *obj;
	const char *text;
	size_t len;
	int ret;

	if (fd < 0)
		return -errno;
	obj = vm_config_to_json(def, at);
	text = json_object_to_json_string_length(obj, JSON_C_TO_STRING_PLAIN, &len);
	ret = text ? fd_write_full(fd, text, len) : -ENOMEM;
	json_object_put(obj);
	if (!ret && lseek(fd, 0, SEEK_SET) < 0)
		ret = -errno;
	return ret ? ret : TAKE_FD(fd);
}

static int plan_files(struct plan *p, const struct machine_def *def,
		      const struct machine_files *files, struct machine_files *at)
{
	int n = AT_FILES;
	int ret = plan_add(p, n, files->kernel);

	machine_files_init(at);
	at->kernel = n++;
	if (!ret && files->initrd >= 0) {
		ret = plan_add(p, n, files->initrd);
		at->initrd = n++;
	}
	for (size_t i = 0; !ret && i < def->modules.n; i++) {
		ret = plan_add(p, n, files->modules[i]);
		at->modules[i] = n++;
	}
	return ret;
}

static int plan_all(struct plan *p, const struct machine_def *def, const struct spawn_fds *fds)
{
	_cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC), config = -1;
	struct machine_files at;
	int ret = null < 0 ? -errno : plan_files(p, def, fds->files, &at);

	if (!ret) {
		config = make_config(def, &at);
		ret = config < 0 ? config : plan_add(p, AT_CONFIG, config);
	}
	if (!ret)
		ret = plan_add(p, STDIN_FILENO, null);
	if (!ret)
		ret = plan_add(p, STDOUT_FILENO, fds->log);
	if (!ret)
		ret = plan_add(p, STDERR_FILENO, fds->log);
	if (!ret)
		ret = plan_add(p, AT_CONTROL, fds->control);
	if (!ret)
		ret = plan_add(p, AT_CONSOLE_LOG, fds->console_log);
	if (!ret)
		ret = plan_add(p, AT_REPORT, fds->report);
	return ret;
}

/* In the child, between fork and exec: system calls only. */
static void __attribute__((noreturn))
child(const struct plan *p, const char *program, char *const argv[])
{
	sigset_t none;
	int e;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	for (int i = 0; i < p->end; i++)
		if (p->at[i] >= 0 && dup2(p->at[i], i) < 0)
			goto fail;
	/* What somebody left open in umbrad without close-on-exec is not the machine's. */
	close_range((unsigned)p->end, ~0u, CLOSE_RANGE_CLOEXEC);
	if (chdir("/") == 0)
		execv(program, argv);
fail:
	e = errno;
	if (write(p->exec_fd, &e, sizeof(e)) < 0)
		_exit(126);
	_exit(127);
}

int spawn_vm(const char *program, const struct machine_def *def, const struct spawn_fds *fds,
	     pid_t *pid, int *pidfd)
{
	char name[80], control[8], config[8], log[8], report[8];
	char *const argv[] = {(char *)"umbra-vm",
			      (char *)"--control",
			      control,
			      (char *)"--config-fd",
			      config,
			      (char *)"--console-log",
			      log,
			      (char *)"--report",
			      report,
			      (char *)"--name",
			      name,
			      NULL};
	_cleanup_close_ int exec_read = -1, exec_write = -1;
	_cleanup_(plan_finish) struct plan p;
	int pipefd[2], ret, e = 0;
	pid_t child_pid;

	memset(p.at, 0xff, sizeof(p.at));
	p.end = 0;
	snprintf(name, sizeof(name), "%s", def->name);
	snprintf(control, sizeof(control), "%d", AT_CONTROL);
	snprintf(config, sizeof(config), "%d", AT_CONFIG);
	snprintf(log, sizeof(log), "%d", AT_CONSOLE_LOG);
	snprintf(report, sizeof(report), "%d", AT_REPORT);
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	exec_read = pipefd[0];
	exec_write = pipefd[1];
	p.exec_fd = fcntl(exec_write, F_DUPFD_CLOEXEC, AT_END);
	ret = p.exec_fd < 0 ? -errno : plan_all(&p, def, fds);
	if (ret) {
		cleanup_close(&p.exec_fd);
		return ret;
	}
	child_pid = fork();
	if (child_pid == 0)
		child(&p, program, argv);
	ret = child_pid < 0 ? -errno : 0;
	close(p.exec_fd);
	close(TAKE_FD(exec_write));
	if (ret)
		return ret;
	if (fd_read_full(exec_read, &e, sizeof(e)) == sizeof(e)) {
		waitpid(child_pid, NULL, 0);
		return -e;
	}
	*pidfd = pidfd_open(child_pid, 0);
	if (*pidfd < 0) {
		ret = -errno;
		kill(child_pid, SIGKILL);
		waitpid(child_pid, NULL, 0);
		return ret;
	}
	*pid = child_pid;
	return 0;
}
