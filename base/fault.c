/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Places where a crash is rehearsed. */
#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const fault_names[FAULT_COUNT + 1] = {
	[FAULT_FILE_TEMP] = "file-temp",
	[FAULT_FILE_RENAME] = "file-rename",
	[FAULT_DEFINITION] = "definition",
	[FAULT_DEFINITION_DONE] = "definition-done",
	[FAULT_EXIT] = "exit",
	[FAULT_EXIT_DONE] = "exit-done",
	[FAULT_RUN] = "run",
	[FAULT_RUN_DONE] = "run-done",
	[FAULT_SOCKET] = "socket",
	[FAULT_SOCKET_DONE] = "socket-done",
	[FAULT_REPORT] = "report",
	[FAULT_REPORT_DONE] = "report-done",
	[FAULT_LOGS] = "logs",
	[FAULT_LOGS_DONE] = "logs-done",
	[FAULT_SPAWN] = "spawn",
	[FAULT_SPAWN_DONE] = "spawn-done",
	[FAULT_TELL] = "tell",
	[FAULT_TELL_DONE] = "tell-done",
	[FAULT_KILL] = "kill",
	[FAULT_KILL_DONE] = "kill-done",
	[FAULT_ENDED] = "ended",
	[FAULT_FORGET_RUN] = "forget-run",
	[FAULT_FORGET_RUN_DONE] = "forget-run-done",
	[FAULT_FORGET] = "forget",
	[FAULT_FORGET_DONE] = "forget-done",
	[FAULT_EVENT] = "event",
	[FAULT_EVENT_DONE] = "event-done",
	[FAULT_REPLY] = "reply",
	[FAULT_REPLY_DONE] = "reply-done",
	[FAULT_COUNT] = NULL,
};

bool fault_armed;
static enum fault_point deadly = FAULT_COUNT;
static unsigned long left; /* times to pass it, the deadly one included */
static int log_fd = -1;

static int set_deadly(const char *text)
{
	size_t len = strcspn(text, ":");
	char *end;

	left = 1;
	if (text[len]) {
		left = strtoul(text + len + 1, &end, 10);
		if (*end || !left)
			return -EINVAL;
	}
	for (int i = 0; i < FAULT_COUNT; i++)
		if (strlen(fault_names[i]) == len && !strncmp(fault_names[i], text, len))
			deadly = (enum fault_point)i;
	return deadly == FAULT_COUNT ? -EINVAL : 0;
}

int fault_setup(void)
{
	const char *text = getenv("UMBRA_FAULT"), *log = getenv("UMBRA_FAULT_LOG");

	if (text && *text && set_deadly(text))
		return -EINVAL;
	if (log && *log)
		log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	fault_armed = deadly != FAULT_COUNT || log_fd >= 0;
	return 0;
}

void fault_passed(enum fault_point point)
{
	if (log_fd >= 0) {
		char line[64];
		size_t len = strlen(fault_names[point]);

		memcpy(line, fault_names[point], len);
		line[len++] = '\n';
		if (write(log_fd, line, len) < 0)
			abort(); /* a rehearsal whose log is not whole proves nothing */
	}
	if (point == deadly && !--left)
		kill(getpid(), SIGKILL);
}
