/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Start a umbra-vm with exactly the descriptors it is to have. */
#ifndef UMBRA_DAEMON_SPAWN_H
#define UMBRA_DAEMON_SPAWN_H

#include <sys/types.h>

#include "api/machine_def.h"

/* All borrowed; spawn_vm() passes copies. */
struct spawn_fds {
	int control; /* the listening socket */
	int console_log;
	int report;
	int log; /* becomes stdout and stderr */
	const struct machine_files *files;
};

/*
 * In a session of its own, so that nothing that happens to umbrad or its terminal reaches it.
 * 0 with *@pid and *@pidfd, or -errno (also when the program cannot be executed).
 */
int spawn_vm(const char *program, const struct machine_def *def, const struct spawn_fds *fds,
	     pid_t *pid, int *pidfd);

#endif
