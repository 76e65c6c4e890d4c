/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every socket that umbrad listens on: from systemd by name, or made by itself. */
#include "daemon/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"

#define UMBRA_GROUP "umbra"

const char *const listen_kind_names[LISTEN_KIND_COUNT] = {
	[LISTEN_RPC] = "rpc",	      [LISTEN_RPC_READ] = "rpc-read", [LISTEN_HTTP] = "http",
	[LISTEN_RPC_TLS] = "rpc-tls", [LISTEN_HTTPS] = "https",
};

struct listener {
	const struct umbrad_config *config;
	const struct api_paths *paths;
	int run_fd;
	int (*take)(void *data, enum listen_kind kind, int fd);
	void *data;
	bool passed[LISTEN_KIND_COUNT];
	struct api_error *err;
};

static int hand_over(struct listener *l, enum listen_kind kind, int fd)
{
	int ret = l->take(l->data, kind, fd);

	if (!ret)
		return 0;
	close(fd);
	return api_error_set(l->err, api_kind_from_errno(-ret),
			     "cannot serve the socket \"%s\": %s", listen_kind_names[kind],
			     strerror(-ret));
}

/* -1: not one of ours. A manager that gives no names means the main socket. */
static int kind_of(const char *name)
{
	for (int kind = 0; kind < LISTEN_KIND_COUNT; kind++)
		if (!strcmp(name, listen_kind_names[kind]))
			return kind;
	return strcmp(name, "unknown") ? -1 : LISTEN_RPC;
}

static int from_systemd(struct listener *l)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names), ret = 0;

	for (int i = 0; i < n; i++) {
		int fd = SD_LISTEN_FDS_START + i, kind = kind_of(names[i]);

		if (ret || kind < 0 || sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0) {
			if (!ret)
				log_warn("a passed socket is of no use: \"%s\"", names[i]);
			close(fd);
		} else {
			fd_set_nonblock(fd, true);
			l->passed[kind] = true;
			ret = hand_over(l, kind, fd);
		}
		free(names[i]);
	}
	free(names);
	return ret;
}

/* Who may connect: the owner; in system mode also the group umbra, where it exists, or all. */
static int listen_unix(struct listener *l, enum listen_kind kind, const char *name, bool all)
{
	const struct group *group = l->paths->system ? getgrnam(UMBRA_GROUP) : NULL;
	unsigned mode = !l->paths->system ? 0600 : all ? 0666 : 0660;
	int fd;

	if (l->passed[kind])
		return 0;
	fd = api_unix_listen(l->run_fd, name, mode);
	if (fd < 0)
		return api_error_set(l->err, api_kind_from_errno(-fd), "cannot listen on %s/%s: %s",
				     l->paths->runtime, name, strerror(-fd));
	if (group && fchownat(l->run_fd, name, (uid_t)-1, group->gr_gid, AT_SYMLINK_NOFOLLOW) < 0)
		log_warn("%s could not be given to the group " UMBRA_GROUP ": %s", name,
			 strerror(errno));
	return hand_over(l, kind, fd);
}

static int bind_tcp(const struct sockaddr_storage *addr, int backlog)
{
	bool v6 = addr->ss_family == AF_INET6;
	int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), ret;
	const int on = 1, off = 0;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (v6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (const struct sockaddr *)addr,
		 v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)) < 0 ||
	    listen(fd, backlog) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

/* "[::]" without IPv6 in the kernel is "0.0.0.0". */
static int listen_tcp(const struct sockaddr_storage *addr, int backlog)
{
	const struct sockaddr_in6 *any6 = (const struct sockaddr_in6 *)addr;
	struct sockaddr_storage any4 = {0};
	int fd = bind_tcp(addr, backlog);

	if (fd != -EAFNOSUPPORT || addr->ss_family != AF_INET6 ||
	    memcmp(&any6->sin6_addr, &in6addr_any, sizeof(in6addr_any)))
		return fd;
	*(struct sockaddr_in *)&any4 =
		(struct sockaddr_in){.sin_family = AF_INET, .sin_port = any6->sin6_port};
	return bind_tcp(&any4, backlog);
}

static int listen_addresses(struct listener *l, enum listen_kind kind, const char *list)
{
	struct sockaddr_storage addr;
	const char *word;
	size_t len;
	int ret = 0;

	if (l->passed[kind])
		return 0;
	while (!ret && (len = config_word(&list, &word))) {
		int fd = config_address(word, len, &addr);

		if (!fd)
			fd = listen_tcp(&addr, (int)l->config->listen.backlog);
		ret = fd < 0 ? api_error_set(l->err, api_kind_from_errno(-fd),
					     "cannot listen on %.*s: %s",
					     (int)MIN(len, (size_t)128), word, strerror(-fd))
			     : hand_over(l, kind, fd);
	}
	return ret;
}

int listen_all(const struct umbrad_config *config, const struct api_paths *paths, int run_fd,
	       int (*take)(void *data, enum listen_kind kind, int fd), void *data,
	       struct api_error *err)
{
	struct listener l = {.config = config,
			     .paths = paths,
			     .run_fd = run_fd,
			     .take = take,
			     .data = data,
			     .err = err};
	int ret = from_systemd(&l);

	if (!ret)
		ret = listen_unix(&l, LISTEN_RPC, UMBRAD_SOCKET, false);
	if (!ret && config->listen.read_only)
		ret = listen_unix(&l, LISTEN_RPC_READ, UMBRAD_SOCKET_READ, true);
	if (!ret && config->listen.http)
		ret = listen_unix(&l, LISTEN_HTTP, UMBRAD_SOCKET_HTTP, false);
	if (!ret)
		ret = listen_addresses(&l, LISTEN_RPC_TLS, config->listen.tls);
	if (!ret)
		ret = listen_addresses(&l, LISTEN_HTTPS, config->listen.https);
	return ret;
}
