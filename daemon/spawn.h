/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Start a umbra-vm with exactly the descriptors it is to have. */
#ifndef UMBRA_DAEMON_SPAWN_H
#define UMBRA_DAEMON_SPAWN_H

#include <sys/types.h>

#include "api/machine_def.h"

/* All borrowed; copies are passed. */
struct spawn_fds {
	int control; /* the listening socket */
	int console_log;
	int report;
	int log; /* becomes stdout and stderr */
	const struct machine_files *files;
};

struct spawn_what {
	const char *program;
	const struct machine_def *def;
	struct spawn_fds fds;
	const int *joins; /* spawn_vm(): it writes "0" to each of these before it executes */
	size_t n_joins;
};

/*
 * In a session of its own, so that nothing that happens to umbrad or its terminal reaches it.
 * 0 with *@pid and *@pidfd, or -errno (also when the program cannot be executed).
 */
int spawn_vm(const struct spawn_what *what, pid_t *pid, int *pidfd);
/*
 * The same for the program umbra-exec, which finds this as the one message of the SOCK_SEQPACKET
 * socket that is its stdin: struct spawn_order, then the strings of argv with the program's path
 * before them, each with its NUL; and the descriptors. 0 or -errno.
 */
int spawn_send(const struct spawn_what *what, int sock);

#define SPAWN_FDS_MAX  64
#define SPAWN_TEXT_MAX 8192

struct spawn_order {
	uint32_t n_fds;
	uint32_t at[SPAWN_FDS_MAX]; /* descriptor i of the message becomes number at[i] */
};

#endif
