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
#include <sys/socket.h>
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
	AT_END = AT_FILES + 3 + MACHINE_MODULES_MAX,
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
	at->kvm_use = files->kvm_use;
	at->kvm_error = files->kvm_error;
	if (!ret && files->kvm >= 0) {
		ret = plan_add(p, n, files->kvm);
		at->kvm = n++;
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

/* The command line, in its own memory. */
struct command {
	char name[80], control[8], config[8], log[8], report[8];
	char *argv[12];
};

static void command_init(struct command *c, const struct machine_def *def)
{
	char *const argv[] = {
		(char *)"umbra-vm", (char *)"--control",     c->control, (char *)"--config-fd",
		c->config,	    (char *)"--console-log", c->log,	 (char *)"--report",
		c->report,	    (char *)"--name",	     c->name,	 NULL};

	_Static_assert(sizeof(argv) == sizeof(c->argv), "the command line");
	memcpy(c->argv, argv, sizeof(argv));
	snprintf(c->name, sizeof(c->name), "%s", def->name);
	snprintf(c->control, sizeof(c->control), "%d", AT_CONTROL);
	snprintf(c->config, sizeof(c->config), "%d", AT_CONFIG);
	snprintf(c->log, sizeof(c->log), "%d", AT_CONSOLE_LOG);
	snprintf(c->report, sizeof(c->report), "%d", AT_REPORT);
}

/* In the child, between fork and exec: system calls only. */
static void __attribute__((noreturn))
child(const struct plan *p, const struct spawn_what *what, char *const argv[])
{
	sigset_t none;
	int e;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	/* A group that cannot be joined is told by its absence: the machine is worth more. */
	for (size_t i = 0; i < what->n_joins; i++)
		if (write(what->joins[i], "0", 1) < 0)
			continue;
	for (int i = 0; i < p->end; i++)
		if (p->at[i] >= 0 && dup2(p->at[i], i) < 0)
			goto fail;
	/* What somebody left open in umbrad without close-on-exec is not the machine's. */
	close_range((unsigned)p->end, ~0u, CLOSE_RANGE_CLOEXEC);
	if (chdir("/") == 0)
		execv(what->program, argv);
fail:
	e = errno;
	if (write(p->exec_fd, &e, sizeof(e)) < 0)
		_exit(126);
	_exit(127);
}

int spawn_vm(const struct spawn_what *what, pid_t *pid, int *pidfd)
{
	_cleanup_close_ int exec_read = -1, exec_write = -1;
	_cleanup_(plan_finish) struct plan p;
	struct command command;
	int pipefd[2], ret, e = 0;
	pid_t child_pid;

	memset(p.at, 0xff, sizeof(p.at));
	p.end = 0;
	command_init(&command, what->def);
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	exec_read = pipefd[0];
	exec_write = pipefd[1];
	p.exec_fd = fcntl(exec_write, F_DUPFD_CLOEXEC, AT_END);
	ret = p.exec_fd < 0 ? -errno : plan_all(&p, what->def, &what->fds);
	if (ret) {
		cleanup_close(&p.exec_fd);
		return ret;
	}
	child_pid = fork();
	if (child_pid == 0)
		child(&p, what, command.argv);
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

/* The program's path and the arguments behind one another. Their length, or -E2BIG. */
static int join_texts(char out[SPAWN_TEXT_MAX], const char *program, char *const argv[])
{
	size_t len = strlen(program) + 1;

	if (len > SPAWN_TEXT_MAX)
		return -E2BIG;
	memcpy(out, program, len);
	for (; *argv; argv++) {
		size_t n = strlen(*argv) + 1;

		if (len + n > SPAWN_TEXT_MAX)
			return -E2BIG;
		memcpy(out + len, *argv, n);
		len += n;
	}
	return (int)len;
}

int spawn_send(const struct spawn_what *what, int sock)
{
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(SPAWN_FDS_MAX * sizeof(int))];
	} control = {0};
	_cleanup_(plan_finish) struct plan p;
	struct spawn_order order = {0};
	char text[SPAWN_TEXT_MAX];
	struct iovec iov[] = {{.iov_base = &order, .iov_len = sizeof(order)}, {.iov_base = text}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control};
	struct command command;
	int ret, fds[SPAWN_FDS_MAX];

	_Static_assert(AT_END <= SPAWN_FDS_MAX, "all descriptors fit in a message");
	memset(p.at, 0xff, sizeof(p.at));
	p.end = 0;
	command_init(&command, what->def);
	ret = join_texts(text, what->program, command.argv);
	if (ret < 0)
		return ret;
	iov[1].iov_len = (size_t)ret;
	ret = plan_all(&p, what->def, &what->fds);
	if (ret)
		return ret;
	for (int i = 0; i < p.end; i++) {
		if (p.at[i] < 0)
			continue;
		fds[order.n_fds] = p.at[i];
		order.at[order.n_fds++] = (uint32_t)i;
	}
	msg.msg_controllen = CMSG_SPACE(order.n_fds * sizeof(int));
	control.hdr.cmsg_level = SOL_SOCKET;
	control.hdr.cmsg_type = SCM_RIGHTS;
	control.hdr.cmsg_len = CMSG_LEN(order.n_fds * sizeof(int));
	memcpy(CMSG_DATA(&control.hdr), fds, order.n_fds * sizeof(int));
	return sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}
