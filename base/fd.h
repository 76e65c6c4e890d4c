/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whole reads and writes, files replaced atomically, and a descriptor sent over a Unix socket. */
#ifndef UMBRA_BASE_FD_H
#define UMBRA_BASE_FD_H

#include <sys/types.h>

#include "base/buf.h"

/* Read up to @len bytes, stopping early only at end of file. Returns the count or -errno. */
ssize_t fd_read_full(int fd, void *data, size_t len);
/* Write all of @len bytes. 0 or -errno. */
int fd_write_full(int fd, const void *data, size_t len);
/* Append a file's contents to @b, or nothing; -EFBIG when it has more than @max bytes. */
int fd_read_file(int dirfd, const char *path, size_t max, struct buf *b);
/*
 * Replace a file's contents so that a crash leaves the old or the new, never a mixture: temporary
 * file, fsync, rename, fsync of the folder. 0 or -errno.
 */
int fd_write_file_atomic(int dirfd, const char *path, const void *data, size_t len, mode_t mode);
int fd_set_nonblock(int fd, bool on);
/* Send @len bytes (at least one) with descriptor @fd (or -1). Returns bytes sent or -errno. */
ssize_t fd_send(int sock, const void *data, size_t len, int fd);

#endif
