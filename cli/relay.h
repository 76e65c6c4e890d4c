/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between our terminal and a machine's console. */
#ifndef UMBRA_CLI_RELAY_H
#define UMBRA_CLI_RELAY_H

#include "base/types.h"

struct event_base;
struct relay;

struct relay_ops {
	void (*closed)(void *data);  /* the console's end: all its output is out */
	void (*escaped)(void *data); /* Ctrl-] on a terminal */
	/* SIGINT, SIGTERM or SIGHUP. */
	void (*interrupted)(void *data, int sig);
};

/*
 * A loop whose method takes every kind of descriptor, files too (stdin may be one). NULL: no
 * memory.
 */
struct event_base *relay_base(void);
/*
 * Console output goes to stdout, byte for byte; stdin goes to the console until its end. A terminal
 * that we are in the foreground of is made raw until relay_destroy(). Takes @fd on success.
 */
int relay_create(struct relay **out, struct event_base *base, int fd, const struct relay_ops *ops,
		 void *data);
/* NULL-safe. Puts the terminal back. */
void relay_destroy(struct relay *relay);

#endif
