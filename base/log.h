/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One line a message, on stderr. Only daemon/, vm/main.c and cli/ log above debug. */
#ifndef UMBRA_BASE_LOG_H
#define UMBRA_BASE_LOG_H

#include "base/types.h"

/* syslog's numbers, so that systemd's "<N>" prefixes are right. */
enum log_level {
	LOG_LEVEL_ERR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7
};

/*
 * @ident names the program. With @journal, lines carry "<N>" for journald instead of the name.
 * Before the first call, messages up to warning go out without a name. Call before any thread
 * starts.
 */
void log_setup(const char *ident, enum log_level max, bool journal);
/* Another @max, at any time. */
void log_set_max(enum log_level max);
/* Whether messages of @level go out. */
bool log_wants(enum log_level level);
/* Control characters become '?': what clients send can make up no line and drive no terminal. */
void log_clean(char *text);
/* One line; log_clean() is applied. */
void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_msg(LOG_LEVEL_ERR, __VA_ARGS__)
#define log_warn(...)  log_msg(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)  log_msg(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
