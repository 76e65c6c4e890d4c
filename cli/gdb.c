/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl gdb: a debugger on a machine's kernel; ours is the relay between it and umbra-vm. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/vmctl.h"

static const struct api_field gdb_fields[] = {
	{.name = "stdio",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "start no gdb: its protocol is on stdin and stdout"},
	{.name = "listen",
	 .type = API_STRING,
	 .max = 107,
	 .help = "start no gdb: wait for one on this port of 127.0.0.1, or on a Unix socket's "
		 "path"},
	{.name = "symbols",
	 .type = API_PATH,
	 .help = "the file with the kernel's symbols (vmlinux), for the gdb that is started"},
};
const struct api_fields gdb_options = API_FIELDS("the options", gdb_fields);

/* ---- between the two ---------------------------------------------------------------------------
 */

/* One direction: what was read and is not written yet. */
struct flow {
	int from, to;
	char data[16384];
	size_t len;
	bool over;
};

static void flow_read(struct flow *f)
{
	ssize_t n = read(f->from, f->data, sizeof(f->data));

	if (n > 0)
		f->len = (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		f->over = true;
}

static void flow_write(struct flow *f)
{
	ssize_t n = write(f->to, f->data, f->len);

	if (n > 0) {
		memmove(f->data, f->data + n, f->len - (size_t)n);
		f->len -= (size_t)n;
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		f->over = true;
	}
}

/* Until either end is over; what the machine still had to say goes out first. */
static void relay(int in, int out, int machine)
{
	struct flow there = {.from = in, .to = machine}, back = {.from = machine, .to = out};
	struct flow *flows[2] = {&there, &back};

	while (!back.over && !(there.over && !there.len)) {
		struct pollfd p[2];

		for (unsigned k = 0; k < 2; k++) {
			struct flow *f = flows[k];

			p[k] = (struct pollfd){.fd = f->len    ? f->to
						     : f->over ? -1
							       : f->from,
					       .events = f->len ? POLLOUT : POLLIN};
		}
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		for (unsigned k = 0; k < 2; k++) {
			if (!p[k].revents)
				continue;
			if (flows[k]->len)
				flow_write(flows[k]);
			else
				flow_read(flows[k]);
		}
	}
}

/* Attach, which stops the machine, and relay. The exit status. */
static int serve(struct args *args, int in, int out)
{
	struct api_reply reply;
	int status = call_method(args, &reply);

	if (!status && reply.fd < 0) {
		fputs("vmctl: no debugger's socket came\n", stderr);
		status = VM_STATUS_INTERNAL;
	}
	if (!status)
		relay(in, out, reply.fd);
	api_reply_finish(&reply);
	return status;
}

/* ---- waiting for a gdb -------------------------------------------------------------------------
 */

static int listen_port(int port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	socklen_t len = sizeof(sa);
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 1) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	fprintf(stderr, "vmctl: gdb may come: target remote 127.0.0.1:%u\n", ntohs(sa.sin_port));
	return fd;
}

/* A socket that nobody listens on any more is replaced, another file is not. */
static void remove_stale(const char *path)
{
	struct stat st;

	if (!lstat(path, &st) && S_ISSOCK(st.st_mode))
		unlink(path);
}

static int listen_path(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	mode_t mask = umask(0077);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	remove_stale(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 1) < 0) {
		int ret = -errno;

		cleanup_close(&fd);
		umask(mask);
		return ret;
	}
	umask(mask);
	fprintf(stderr, "vmctl: gdb may come: target remote %s\n", path);
	return fd;
}

static int listen_and_serve(struct args *args, const char *where)
{
	char *end;
	long port = strtol(where, &end, 10);
	bool is_port = *where && !*end;
	int fd, peer, status;

	if (is_port && (port < 0 || port > 65535)) {
		fprintf(stderr, "vmctl: there is no port %ld\n", port);
		return VM_STATUS_USAGE;
	}
	fd = is_port ? listen_port((int)port) : listen_path(where);
	if (fd < 0) {
		fprintf(stderr, "vmctl: %s: %s\n", where, strerror(-fd));
		return STATUS_FAILED;
	}
	peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	close(fd);
	if (!is_port)
		remove_stale(where);
	if (peer < 0) {
		fprintf(stderr, "vmctl: %s: %s\n", where, strerror(errno));
		return STATUS_FAILED;
	}
	status = serve(args, peer, peer);
	close(peer);
	return status;
}

/* ---- starting one ------------------------------------------------------------------------------
 */

/* In single quotes for gdb's shell. */
static void quote(struct buf *out, const char *text)
{
	buf_append(out, "'", 1);
	for (; *text; text++)
		buf_append(out, *text == '\'' ? "'\\''" : text, *text == '\'' ? 4 : 1);
	buf_append(out, "'", 1);
}

static int start_gdb(struct args *args)
{
	const char *symbols = string_of(args->cli, "symbols", NULL);
	_cleanup_(buf_finish) struct buf target = {0};
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[MAX(n, (ssize_t)0)] = 0;
	buf_printf(&target, "target remote | ");
	quote(&target, n > 0 ? self : "vmctl");
	buf_printf(&target, " gdb --stdio --arch %s %s", string_of(args->params, "arch", "auto"),
		   string_of(args->params, "name", ""));
	if (target.failed)
		return VM_STATUS_INTERNAL;
	execlp("gdb", "gdb", "-q", "-ex", target.data, symbols, (char *)NULL);
	fprintf(stderr,
		"vmctl: gdb cannot be started: %s\n"
		"With --listen one may come from elsewhere.\n",
		strerror(errno));
	return STATUS_FAILED;
}

int verb_gdb(struct args *args)
{
	const char *where = string_of(args->cli, "listen", NULL);

	signal(SIGPIPE, SIG_IGN);
	if (where)
		return listen_and_serve(args, where);
	if (!json_object_get_boolean(object_of(args->cli, "stdio"))) {
		signal(SIGPIPE, SIG_DFL);
		return start_gdb(args);
	}
	/* Ctrl-C is gdb's, which sends it as a byte. */
	signal(SIGINT, SIG_IGN);
	return serve(args, STDIN_FILENO, STDOUT_FILENO);
}
