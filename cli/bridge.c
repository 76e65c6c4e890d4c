/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl relay: join stdin and stdout to umbrad's socket; the far end of ssh://. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/vmctl.h"

/* What has come on @from to @to. false: the end of it, or of the one that takes it. */
static bool pass(int from, int to)
{
	char data[65536];
	ssize_t n = read(from, data, sizeof(data));

	if (n < 0 && errno == EINTR)
		return true;
	return n > 0 && fd_write_full(to, data, (size_t)n) == 0;
}

int verb_relay(struct args *args)
{
	struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.events = POLLIN}};
	_cleanup_close_ int fd = -1;
	struct api_error err;

	fd = connect_socket(true, &err);
	if (fd < 0)
		return fail(args, &err);
	p[1].fd = fd;
	for (;;) {
		if (poll(p, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return VM_STATUS_INTERNAL;
		}
		if (p[1].revents && !pass(fd, STDOUT_FILENO))
			return 0;
		/* What is still on its way back comes before the end. */
		if (p[0].revents && !pass(STDIN_FILENO, fd)) {
			shutdown(fd, SHUT_WR);
			p[0].fd = -1;
		}
	}
}
