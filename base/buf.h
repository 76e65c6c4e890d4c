/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A byte buffer that grows. */
#ifndef UMBRA_BASE_BUF_H
#define UMBRA_BASE_BUF_H

#include "base/types.h"

/*
 * All zero is an empty buffer. @data is NUL-terminated whenever it is not NULL, the NUL not counted
 * in @len. After a failed append (-ENOMEM) the contents are as before it and @failed stays set, so
 * that a run of appends can be checked once at its end.
 */
struct buf {
	char *data;
	size_t len, cap;
	bool failed;
};

void buf_finish(struct buf *b);
int buf_reserve(struct buf *b, size_t more);
int buf_append(struct buf *b, const void *data, size_t len);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Keep the first @len bytes only. */
void buf_truncate(struct buf *b, size_t len);
/* Drop the first @len bytes. */
void buf_consume(struct buf *b, size_t len);

#endif
