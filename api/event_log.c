/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file behind the events: a line each, so that who comes after us can tell them again. */
#include "api/event_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fd.h"

#define FILE_MAX MIB(64)

struct event_log {
	int dirfd, fd;
	char name[64], temp[72];
	size_t max, lines;
	bool broken; /* what is in the file is not what has been told */
};

/* {"owner": …, "event": {…}} */
static bool take_line(const char *text, size_t len, event_log_fn line, void *data)
{
	struct json_tokener *tok = json_tokener_new();
	struct json_object *obj, *owner, *event;
	bool ok;

	if (!tok)
		return false;
	obj = json_tokener_parse_ex(tok, text, (int)len);
	ok = obj && json_tokener_get_parse_end(tok) == len &&
	     json_object_is_type(obj, json_type_object) &&
	     json_object_object_get_ex(obj, "owner", &owner) &&
	     json_object_is_type(owner, json_type_string) &&
	     json_object_object_get_ex(obj, "event", &event) &&
	     json_object_is_type(event, json_type_object) &&
	     line(data, json_object_get_string(owner), event);
	json_object_put(obj);
	json_tokener_free(tok);
	return ok;
}

/* Where the last @max lines begin. */
static size_t last_lines(const struct buf *text, size_t max)
{
	size_t at = text->len;

	for (size_t n = 0; at; n++) {
		const char *before = memrchr(text->data, '\n', at - 1);

		if (n == max)
			break;
		at = before ? (size_t)(before - text->data) + 1 : 0;
	}
	return at;
}

static int read_lines(struct event_log *log, event_log_fn line, void *data)
{
	_cleanup_(buf_finish) struct buf text = {0};
	int ret = fd_read_file(log->dirfd, log->name, FILE_MAX, &text);
	size_t len;

	for (size_t at = ret ? 0 : last_lines(&text, log->max); !ret && at < text.len;
	     at += len + 1) {
		const char *end = memchr(text.data + at, '\n', text.len - at);

		len = end ? (size_t)(end - text.data) - at : text.len - at;
		if (!end || !take_line(text.data + at, len, line, data))
			log->broken = true;
		log->lines++;
	}
	if (ret == -EFBIG)
		log->broken = true;
	return ret == -EFBIG ? 0 : ret;
}

int event_log_open(struct event_log **out, int dirfd, const char *name, size_t max,
		   event_log_fn line, void *data)
{
	struct event_log *log = calloc(1, sizeof(*log));
	int ret = 0;

	if (!log)
		return -ENOMEM;
	snprintf(log->name, sizeof(log->name), "%s", name);
	snprintf(log->temp, sizeof(log->temp), "%s.tmp", log->name);
	log->max = max;
	log->fd = -1;
	log->dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
	if (log->dirfd >= 0)
		log->fd = openat(log->dirfd, log->name,
				 O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	ret = log->fd < 0 ? -errno : read_lines(log, line, data);
	if (ret)
		event_log_close(log);
	else
		*out = log;
	return ret;
}

void event_log_close(struct event_log *log)
{
	if (!log)
		return;
	cleanup_close(&log->fd);
	cleanup_close(&log->dirfd);
	free(log);
}

void event_log_line(struct buf *text, const char *owner, const char *event)
{
	struct json_object *obj = json_object_new_string(owner);
	const char *quoted = json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN);

	if (quoted)
		buf_printf(text, "{\"owner\":%s,\"event\":%s}\n", quoted, event);
	else
		text->failed = true;
	json_object_put(obj);
}

void event_log_append(struct event_log *log, const char *owner, const char *event)
{
	_cleanup_(buf_finish) struct buf line = {0};

	event_log_line(&line, owner, event);
	fault_point(FAULT_EVENT);
	if (line.failed || write(log->fd, line.data, line.len) != (ssize_t)line.len)
		log->broken = true;
	fault_point(FAULT_EVENT_DONE);
	log->lines++;
}

bool event_log_stale(const struct event_log *log)
{
	return log->broken || log->lines > 2 * log->max;
}

int event_log_replace(struct event_log *log, const struct buf *text, size_t lines)
{
	int fd = openat(log->dirfd, log->temp,
			O_WRONLY | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int ret = fd < 0 ? -errno : text->failed ? -ENOMEM : 0;

	if (!ret)
		ret = fd_write_full(fd, text->data, text->len);
	if (!ret && renameat(log->dirfd, log->temp, log->dirfd, log->name) < 0)
		ret = -errno;
	if (ret) {
		cleanup_close(&fd);
		unlinkat(log->dirfd, log->temp, 0);
		unlinkat(log->dirfd, log->name, 0);
		return ret;
	}
	cleanup_close(&log->fd);
	log->fd = fd;
	log->lines = lines;
	log->broken = false;
	return 0;
}
