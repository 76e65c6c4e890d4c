/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reach umbrad: ours, which is started when there is none, or another by its address. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/remote.h"
#include "cli/vmctl.h"

#define START_MS   20000
#define IDLE_EXIT  "300"
#define LOG_MAX	   MIB(1)
#define READY_FD   3
#define BUSY_MS	   20
#define BUSY_TRIES 250

/* In the child: only the standard descriptors and READY_FD, a session of its own, our log. */
static void __attribute__((noreturn)) exec_umbrad(const char *program, const char *log, int ready)
{
	char fd[8];
	int null = open("/dev/null", O_RDWR), out;
	struct stat st;

	setsid();
	out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
	if (out >= 0 && fstat(out, &st) == 0 && (uint64_t)st.st_size > LOG_MAX &&
	    ftruncate(out, 0) < 0)
		_exit(127);
	ready = fcntl(ready, F_DUPFD, 10);
	if (null < 0 || ready < 0 || dup2(null, 0) < 0 || dup2(out >= 0 ? out : null, 1) < 0 ||
	    dup2(out >= 0 ? out : null, 2) < 0 || dup2(ready, READY_FD) < 0)
		_exit(127);
	close_range(READY_FD + 1, ~0u, 0);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	snprintf(fd, sizeof(fd), "%d", READY_FD);
	execl(program, "umbrad", "--idle-exit", IDLE_EXIT, "--ready-fd", fd, (char *)NULL);
	_exit(127);
}

static int start_umbrad(const struct api_paths *paths, struct api_error *err)
{
	_cleanup_free_ char *program = api_find_program("umbrad", "daemon", "UMBRAD"), *log = NULL;
	_cleanup_close_ int ready = -1;
	struct pollfd p = {.events = POLLIN};
	int fds[2], ret;
	char byte;
	pid_t pid;

	if (!program)
		return api_error_set(err, API_KIND_UNAVAILABLE,
				     "no umbrad runs, and the program was not found");
	if (asprintf(&log, "%s/umbrad.log", paths->state) < 0) {
		log = NULL;
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	}
	ret = api_make_folder(paths->state, 0700, err);
	if (ret)
		return ret;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return api_error_set(err, API_KIND_IO, "no pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0)
		exec_umbrad(program, log, fds[1]);
	close(fds[1]);
	ready = p.fd = fds[0];
	if (pid < 0)
		return api_error_set(err, API_KIND_IO, "cannot fork: %s", strerror(errno));
	if (poll(&p, 1, START_MS) > 0 && read(ready, &byte, 1) == 1)
		return 0;
	return api_error_set(err, API_KIND_UNAVAILABLE, "umbrad did not start; see %.200s", log);
}

/* A umbrad that is there and behind with accepting is waited for, a while. */
static int try_connect(int dirfd, const char *name)
{
	int fd = api_unix_connect(dirfd, name);

	for (int i = 0; fd == -EAGAIN && i < BUSY_TRIES; i++) {
		usleep(BUSY_MS * 1000);
		fd = api_unix_connect(dirfd, name);
	}
	return fd;
}

/* Start one, unless somebody else who held the lock before us has done so. */
static int start_and_connect(const struct api_paths *paths, int dirfd, struct api_error *err)
{
	_cleanup_close_ int lock =
		openat(dirfd, "start.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int fd, ret;

	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return api_error_set(err, api_kind_from_errno(errno), "cannot lock %.200s: %s",
				     paths->runtime, strerror(errno));
	fd = try_connect(dirfd, UMBRAD_SOCKET);
	if (fd >= 0)
		return fd;
	ret = start_umbrad(paths, err);
	if (ret)
		return ret;
	fd = try_connect(dirfd, UMBRAD_SOCKET);
	if (fd < 0)
		api_error_set(err, API_KIND_UNAVAILABLE, "umbrad started and does not listen: %s",
			      strerror(-fd));
	return fd;
}

static int connect_fd(const struct api_paths *paths, bool start, struct api_error *err)
{
	_cleanup_close_ int dirfd = -1;
	int fd = -ENOENT, ret;

	if (start) {
		ret = api_make_folder(paths->runtime, paths->system ? 0755 : 0700, err);
		/* The system's folder is not ours, and its umbrad may let us in all the same. */
		if (ret && access(paths->runtime, X_OK) < 0)
			return ret;
	}
	dirfd = open(paths->runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd >= 0)
		fd = try_connect(dirfd, UMBRAD_SOCKET);
	if (fd >= 0 || (fd != -ENOENT && fd != -ECONNREFUSED)) {
		if (fd < 0)
			return api_error_set(err, api_kind_from_errno(fd),
					     "cannot reach umbrad in %.200s: %s", paths->runtime,
					     strerror(-fd));
		return fd;
	}
	if (!start || dirfd < 0)
		return api_error_set(err, API_KIND_UNAVAILABLE, "no umbrad serves %.200s",
				     paths->runtime);
	return start_and_connect(paths, dirfd, err);
}

/* By the path of its socket. The descriptor, or -errno with *err. */
static int connect_path(const char *path, struct api_error *err)
{
	_cleanup_free_ char *folder = strdup(path);
	_cleanup_close_ int dirfd = -1;
	char *slash = folder ? strrchr(folder, '/') : NULL;
	int fd = -ENOENT;

	if (slash) {
		slash[slash == folder] = 0;
		dirfd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	if (!slash || dirfd >= 0)
		fd = try_connect(slash ? dirfd : AT_FDCWD, slash ? strrchr(path, '/') + 1 : path);
	if (fd < 0)
		api_error_set(err, API_KIND_UNAVAILABLE, "cannot reach umbrad at %.200s: %s", path,
			      strerror(-fd));
	return fd;
}

int connect_socket(bool start, struct api_error *err)
{
	const struct remote *remote = remote_chosen();
	struct api_paths paths;
	int ret;

	if (remote->kind == REMOTE_SSH)
		return remote_connect_ssh(err);
	if (remote->kind == REMOTE_UNIX)
		return connect_path(remote->path, err);
	if (remote->kind != REMOTE_NONE)
		return api_error_set(err, API_KIND_NOT_SUPPORTED, "that is no plain socket");
	ret = api_paths_init(&paths, err);
	if (!ret) {
		ret = connect_fd(&paths, start, err);
		api_paths_finish(&paths);
	}
	return ret;
}

static struct api_client *kept;

void connect_keep(struct api_client *client)
{
	api_client_destroy(kept);
	kept = client;
}

int connect_to(struct api_client **out, const struct connection *c, struct api_error *err)
{
	int fd, ret;

	if (kept && !c->base && !c->ops && !api_client_closed(kept)) {
		*out = TAKE_PTR(kept);
		return 0;
	}
	if (remote_chosen()->kind == REMOTE_TLS)
		return remote_connect_tls(out, c, err);
	fd = connect_socket(c->start, err);
	if (fd < 0)
		return fd;
	ret = api_client_create(out, c->base, fd, c->ops, c->data);
	if (ret) {
		close(fd);
		return api_error_set(err, API_KIND_INTERNAL, "cannot set up the connection: %s",
				     strerror(-ret));
	}
	return 0;
}

int connect_umbrad(struct api_client **out, struct event_base *base, bool start,
		   struct api_error *err)
{
	return connect_to(out, &(struct connection){.base = base, .start = start}, err);
}
