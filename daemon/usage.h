/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a machine's process uses of the host. */
#ifndef UMBRA_DAEMON_USAGE_H
#define UMBRA_DAEMON_USAGE_H

#include <sys/types.h>

struct json_object;

/* {cpu_seconds, rss}, the latter in bytes; NULL: the process has gone. */
struct json_object *usage_to_json(pid_t pid);

#endif
