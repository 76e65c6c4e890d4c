/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where things are, for vmctl and umbrad alike; and Unix sockets by name. */
#include "api/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BACKLOG 4096 /* the kernel's own bound is as much */

/* A variable that holds an absolute path, as the XDG specification wants them; else NULL. */
static const char *env_path(const char *name)
{
	const char *v = getenv(name);

	return v && v[0] == '/' ? v : NULL;
}

static int state_folder(char **out)
{
	const char *xdg = env_path("XDG_STATE_HOME"), *home = env_path("HOME");
	const struct passwd *pw;

	if (xdg)
		return asprintf(out, "%s/umbra", xdg);
	if (!home && (pw = getpwuid(getuid())) && pw->pw_dir[0] == '/')
		home = pw->pw_dir;
	if (home)
		return asprintf(out, "%s/.local/state/umbra", home);
	return asprintf(out, "/tmp/umbra-state-%u", getuid());
}

static int runtime_folder(char **out)
{
	const char *xdg = env_path("XDG_RUNTIME_DIR");

	if (xdg)
		return asprintf(out, "%s/umbra", xdg);
	return asprintf(out, "/tmp/umbra-%u", getuid());
}

int api_paths_init(struct api_paths *paths, struct api_error *err)
{
	const char *runtime = env_path("UMBRA_RUNTIME_DIR"), *state = env_path("UMBRA_STATE_DIR");
	int n;

	*paths = (struct api_paths){.system = geteuid() == 0};
	if (runtime)
		n = (paths->runtime = strdup(runtime)) ? 0 : -1;
	else if (paths->system)
		n = (paths->runtime = strdup("/run/umbra")) ? 0 : -1;
	else
		n = runtime_folder(&paths->runtime);
	if (n < 0) {
		paths->runtime = NULL;
		goto no_memory;
	}
	if (state)
		n = (paths->state = strdup(state)) ? 0 : -1;
	else if (paths->system)
		n = (paths->state = strdup("/var/lib/umbra")) ? 0 : -1;
	else
		n = state_folder(&paths->state);
	if (n >= 0)
		return 0;
	paths->state = NULL;
no_memory:
	api_paths_finish(paths);
	return api_error_set(err, API_KIND_INTERNAL, "out of memory");
}

void api_paths_finish(struct api_paths *paths)
{
	free(paths->runtime);
	free(paths->state);
	*paths = (struct api_paths){0};
}

int api_make_folder(const char *path, unsigned mode, struct api_error *err)
{
	_cleanup_free_ char *copy = strdup(path);
	struct stat st;

	if (!copy)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(copy, 0755) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
			return api_error_set(err, API_KIND_IO, "cannot make the folder %.200s: %s",
					     copy, strerror(errno));
		*p = '/';
	}
	if (mkdir(copy, mode) < 0 && errno != EEXIST)
		return api_error_set(err, api_kind_from_errno(errno),
				     "cannot make the folder %.200s: %s", copy, strerror(errno));
	/* In /tmp, somebody else may have been there first. */
	if (lstat(copy, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
	    (st.st_mode & 022 & ~mode))
		return api_error_set(err, API_KIND_DENIED,
				     "%.200s is not a folder of ours alone: not used", copy);
	return 0;
}

/* A socket's address has room for some 100 bytes: name the folder by its descriptor. */
static int make_address(struct sockaddr_un *sa, int dirfd, const char *name)
{
	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	if ((size_t)snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", dirfd,
			     name) >= sizeof(sa->sun_path))
		return -ENAMETOOLONG;
	return 0;
}

int api_unix_connect(int dirfd, const char *name)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa;
	int ret = make_address(&sa, dirfd, name);

	if (fd < 0)
		return -errno;
	if (ret)
		return ret;
	/* A peer whose backlog is full must not hang us: without O_NONBLOCK this would wait. */
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
	    connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
		return -errno;
	if (fcntl(fd, F_SETFL, 0) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int api_unix_listen(int dirfd, const char *name, unsigned mode)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un sa;
	int ret = make_address(&sa, dirfd, name);
	mode_t old;

	if (fd < 0)
		return -errno;
	if (ret)
		return ret;
	if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
		return -errno;
	old = umask(0777 & ~mode);
	ret = bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0 ? -errno : 0;
	umask(old);
	if (ret)
		return ret;
	if (listen(fd, BACKLOG) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* "DIR/MIDDLE/NAME" when that can be run, else NULL. */
static char *runnable(const char *dir, int dir_len, const char *middle, const char *name)
{
	char *found;

	if (asprintf(&found, "%.*s%s/%s", dir_len, dir, middle, name) < 0)
		return NULL;
	if (access(found, X_OK) == 0)
		return found;
	free(found);
	return NULL;
}

char *api_find_program(const char *name, const char *folder, const char *env)
{
	const char *given = getenv(env), *path = getenv("PATH");
	const char *const places[] = {"", "/..", "/../libexec/umbra"};
	char self[PATH_MAX], middle[64], *found = NULL;
	ssize_t n;

	if (given && *given)
		return strdup(given);
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	while (n > 0 && self[n - 1] != '/')
		n--;
	for (size_t i = 0; !found && n > 1 && i < ARRAY_SIZE(places); i++) {
		snprintf(middle, sizeof(middle), "%s%s%s", places[i], i == 1 ? "/" : "",
			 i == 1 ? folder : "");
		found = runnable(self, (int)n - 1, middle, name);
	}
	for (const char *p = path; !found && p && *p;) {
		int len = (int)strcspn(p, ":");

		if (len)
			found = runnable(p, len, "", name);
		p += len + (p[len] == ':');
	}
	return found;
}
