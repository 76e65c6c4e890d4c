/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One line a message, on stderr. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const char *log_ident = "umbra";
static _Atomic enum log_level log_max = LOG_LEVEL_WARNING;
static bool log_journal;

void log_setup(const char *ident, enum log_level max, bool journal)
{
	log_ident = ident;
	log_max = max;
	log_journal = journal;
}

void log_set_max(enum log_level max)
{
	log_max = max;
}

bool log_wants(enum log_level level)
{
	return level <= log_max;
}

void log_clean(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	char line[1024];
	int start, len;
	va_list ap;

	if (!log_wants(level))
		return;
	if (log_journal)
		start = snprintf(line, sizeof(line), "<%d>", level);
	else
		start = snprintf(line, sizeof(line), "%s: ", log_ident);
	va_start(ap, fmt);
	len = vsnprintf(line + start, sizeof(line) - (size_t)start - 1, fmt, ap);
	va_end(ap);
	if (len < 0)
		return;
	log_clean(line + start);
	len = MIN(start + len, (int)sizeof(line) - 2);
	line[len++] = '\n';
	/* One write, so that lines of several threads do not mix. */
	if (write(STDERR_FILENO, line, (size_t)len) < 0)
		return;
}
