/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbra-exec: what a machine's service starts as. systemd hands a service three descriptors; this
 * takes the others, which umbrad sent to the socket that is its stdin, puts them where umbra-vm
 * expects them, and becomes umbra-vm. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/spawn.h"

#define STATUS_BAD_ORDER 125
#define STATUS_NO_EXEC	 127
#define ARGS_MAX	 32
#define ABOVE		 (2 * SPAWN_FDS_MAX) /* out of the way of every number in an order */

struct order {
	struct spawn_order head;
	char text[SPAWN_TEXT_MAX + 1];
};

/* The length of the text, or -errno. fds[] are above all numbers that they are to have. */
static int receive(int sock, struct order *order, int fds[SPAWN_FDS_MAX])
{
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(SPAWN_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov[] = {
		{.iov_base = &order->head, .iov_len = sizeof(order->head)},
		{.iov_base = order->text, .iov_len = SPAWN_TEXT_MAX},
	};
	struct msghdr msg = {
		.msg_iov = iov,
		.msg_iovlen = 2,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	int got[SPAWN_FDS_MAX];

	if (n < 0)
		return -errno;
	if ((size_t)n <= sizeof(order->head) || msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ||
	    order->head.n_fds > SPAWN_FDS_MAX || msg.msg_controllen < sizeof(control.hdr) ||
	    control.hdr.cmsg_type != SCM_RIGHTS ||
	    control.hdr.cmsg_len != CMSG_LEN(order->head.n_fds * sizeof(int)))
		return -EBADMSG;
	memcpy(got, CMSG_DATA(&control.hdr), order->head.n_fds * sizeof(int));
	for (uint32_t i = 0; i < order->head.n_fds; i++) {
		if (order->head.at[i] >= SPAWN_FDS_MAX)
			return -EBADMSG;
		fds[i] = fcntl(got[i], F_DUPFD_CLOEXEC, ABOVE);
		if (fds[i] < 0)
			return -errno;
	}
	return (int)((size_t)n - sizeof(order->head));
}

int main(void)
{
	static struct order order;
	int fds[SPAWN_FDS_MAX];
	int len = receive(STDIN_FILENO, &order, fds), n = 0;
	char *argv[ARGS_MAX + 1];

	if (len <= 0 || order.text[len - 1]) {
		fprintf(stderr, "umbra-exec: stdin has no order of umbrad's: %s\n",
			len < 0 ? strerror(-len) : "no text");
		return STATUS_BAD_ORDER;
	}
	for (char *p = order.text; p < order.text + len && n < ARGS_MAX; p += strlen(p) + 1)
		argv[n++] = p;
	argv[n] = NULL;
	for (uint32_t i = 0; i < order.head.n_fds; i++)
		if (dup2(fds[i], (int)order.head.at[i]) < 0)
			return STATUS_BAD_ORDER;
	if (n < 2 || chdir("/") < 0)
		return STATUS_BAD_ORDER;
	execv(argv[0], argv + 1);
	fprintf(stderr, "umbra-exec: %s: %s\n", argv[0], strerror(errno));
	return STATUS_NO_EXEC;
}
