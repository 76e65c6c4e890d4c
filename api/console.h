/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest's console: output to a bounded log and to whoever is attached, input from them. */
#ifndef UMBRA_API_CONSOLE_H
#define UMBRA_API_CONSOLE_H

#include "base/types.h"

struct event_base;
struct console;

#define CONSOLE_LOG_MAX	  MIB(1) /* beyond it, the log keeps its later half */
#define CONSOLE_QUEUE_MAX MIB(8) /* beyond it, for one reader, the guest waits */
#define CONSOLE_STALL_MS  10000	 /* a reader that takes nothing for so long is detached */
#define CONSOLE_READERS	  8

struct console_ops {
	/* Offer input, on the loop's thread. Returns how many bytes were taken; what was not is
	 * offered again after console_input_ready(). */
	size_t (*input)(void *data, const void *bytes, size_t len);
};

/*
 * @log_fd (taken; -1: none) is a regular file open for reading and writing. @ops may be NULL. The
 * calling thread must be the loop's; console_write() may be called from any.
 */
int console_create(struct console **out, struct event_base *base, int log_fd,
		   const struct console_ops *ops, void *data);
void console_destroy(struct console *con);
/*
 * Attach a stream: socket, pty, pipe or file. @in_fd and @out_fd may be the same (a socket), either
 * may be -1. Taken on success; non-blocking while attached, where they can be polled. Loop's
 * thread. At end of file a reader with one descriptor is detached, one with two stays for output. 0
 * or -errno
 * (-EBUSY: CONSOLE_READERS are there).
 */
int console_attach(struct console *con, int in_fd, int out_fd);
/* Output, from any thread, byte-exact to all readers. May wait, see above. */
void console_write(struct console *con, const void *bytes, size_t len);
/* From any thread: the guest can take input again. */
void console_input_ready(struct console *con);
/* Write out what is queued, for at most @ms without progress, then detach all. Loop's thread. */
void console_flush(struct console *con, int ms);
/* From any thread: nobody waits in console_write() any more (what does not fit is dropped). */
void console_unblock(struct console *con);

#endif
