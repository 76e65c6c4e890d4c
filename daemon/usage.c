/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a machine's process uses of the host. */
#include "daemon/usage.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/types.h"

struct json_object *usage_to_json(pid_t pid)
{
	unsigned long long user, kernel;
	struct json_object *obj = NULL;
	struct buf b = {0};
	char path[32];
	const char *p;
	long pages;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (fd_read_file(AT_FDCWD, path, KIB(4), &b) == 0 && b.data) {
		/* The name, in parentheses, may hold anything; utime is field 14, rss 24. */
		p = strrchr(b.data, ')');
		if (p && sscanf(p + 1,
				" %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d "
				"%*d %*d %*d %*d %*u %*u %ld",
				&user, &kernel, &pages) == 3) {
			obj = json_object_new_object();
			json_object_object_add(
				obj, "cpu_seconds",
				json_object_new_double((double)(user + kernel) /
						       (double)sysconf(_SC_CLK_TCK)));
			json_object_object_add(
				obj, "rss", json_object_new_int64(pages * sysconf(_SC_PAGESIZE)));
		}
	}
	buf_finish(&b);
	return obj;
}
