/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file behind the events: a line each, so that who comes after us can tell them again. */
#ifndef UMBRA_API_EVENT_LOG_H
#define UMBRA_API_EVENT_LOG_H

#include "base/buf.h"
#include "base/types.h"

struct event_log;
struct json_object;

/* A line of the file; all is borrowed. false: it cannot be one of ours. */
typedef bool (*event_log_fn)(void *data, const char *owner, struct json_object *event);

/*
 * The file @name in the folder @dirfd (duplicated), made when there is none. @line gets its last
 * @max lines, in order. What is no line, as the last one when its writer was killed amid it, makes
 * the file stale. 0 or -errno.
 */
int event_log_open(struct event_log **out, int dirfd, const char *name, size_t max,
		   event_log_fn line, void *data);
/* NULL-safe. */
void event_log_close(struct event_log *log);
/* One line, as the file has them; @event is JSON on one line. What fails, @text remembers. */
void event_log_line(struct buf *text, const char *owner, const char *event);
/* In one write: when this process is killed the line is there or not. What fails makes it stale. */
void event_log_append(struct event_log *log, const char *owner, const char *event);
/* Whether it must be written anew: it has not what it should have, or more than 2 * @max lines. */
bool event_log_stale(const struct event_log *log);
/* Write it anew, as these @lines. -errno: there is no such file any more. */
int event_log_replace(struct event_log *log, const struct buf *text, size_t lines);

#endif
