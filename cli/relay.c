/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between our terminal and a machine's console. */
#include "cli/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define ESCAPE 0x1d /* Ctrl-] */

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

struct relay {
	int fd;
	const struct relay_ops *ops;
	void *data;
	struct event *output, *input, *space, *sig[ARRAY_SIZE(signals)];
	bool raw;
	struct termios before;
	char pending[4096]; /* read from stdin, not yet taken by the console */
	size_t n_pending;
};

struct event_base *relay_base(void)
{
	struct event_config *cfg = event_config_new();
	struct event_base *base = NULL;

	if (cfg && !event_config_require_features(cfg, EV_FEATURE_FDS))
		base = event_base_new_with_config(cfg);
	if (cfg)
		event_config_free(cfg);
	return base;
}

/* stdout may have been made non-blocking by whoever shares it. */
static int write_stdout(const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(STDOUT_FILENO, data, len);
		struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};

		if (n < 0 && errno == EAGAIN) {
			poll(&p, 1, -1);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static void on_output(evutil_socket_t fd, short what, void *arg)
{
	struct relay *r = arg;
	char data[65536];
	ssize_t n = read(r->fd, data, sizeof(data));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* An output that nobody takes any more is no reason to end the machine. */
	if (n > 0) {
		write_stdout(data, (size_t)n);
		return;
	}
	event_del(r->output);
	if (r->input)
		event_del(r->input);
	event_del(r->space);
	r->ops->closed(r->data);
}

static void push_input(struct relay *r)
{
	ssize_t n = r->n_pending
			    ? send(r->fd, r->pending, r->n_pending, MSG_NOSIGNAL | MSG_DONTWAIT)
			    : 0;

	if (n > 0) {
		memmove(r->pending, r->pending + n, r->n_pending - (size_t)n);
		r->n_pending -= (size_t)n;
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		r->n_pending = 0; /* on_output() will see the end */
	}
	if (r->n_pending)
		event_add(r->space, NULL);
	/* A terminal is read on, so that Ctrl-] works when the guest takes no input. */
	if (r->n_pending < sizeof(r->pending) || r->raw)
		event_add(r->input, NULL);
	else
		event_del(r->input);
}

static void on_space(evutil_socket_t fd, short what, void *arg)
{
	push_input(arg);
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
	struct relay *r = arg;
	char data[1024];
	ssize_t n = read(STDIN_FILENO, data,
			 MIN(sizeof(data), MAX(sizeof(r->pending) - r->n_pending, (size_t)1)));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		event_del(r->input);
		return;
	}
	if (r->raw && memchr(data, ESCAPE, (size_t)n)) {
		r->ops->escaped(r->data);
		return;
	}
	n = MIN(n, (ssize_t)(sizeof(r->pending) - r->n_pending));
	memcpy(r->pending + r->n_pending, data, (size_t)n);
	r->n_pending += (size_t)n;
	push_input(r);
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
	struct relay *r = arg;

	r->ops->interrupted(r->data, (int)sig);
}

/* Raw, but for the line ends of output: bare-metal guests write bare newlines. */
static void make_raw(struct relay *r)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &r->before) < 0)
		return;
	raw = r->before;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST | ONLCR;
	r->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

static int set_up_input(struct relay *r, struct event_base *base)
{
	if (fcntl(STDIN_FILENO, F_GETFL) < 0)
		return 0; /* closed */
	if (isatty(STDIN_FILENO)) {
		/* In the background a read would stop us. */
		if (tcgetpgrp(STDIN_FILENO) != getpgrp())
			return 0;
		make_raw(r);
	}
	r->input = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, r);
	return r->input && !event_add(r->input, NULL) ? 0 : -ENOMEM;
}

int relay_create(struct relay **out, struct event_base *base, int fd, const struct relay_ops *ops,
		 void *data)
{
	struct relay *r = calloc(1, sizeof(*r));
	int ret = r ? fd_set_nonblock(fd, true) : -ENOMEM;

	if (!r)
		return ret;
	r->fd = -1;
	r->ops = ops;
	r->data = data;
	r->output = event_new(base, fd, EV_READ | EV_PERSIST, on_output, r);
	r->space = event_new(base, fd, EV_WRITE, on_space, r);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		r->sig[i] = evsignal_new(base, signals[i], on_signal, r);
		if (!r->sig[i] || event_add(r->sig[i], NULL))
			ret = -ENOMEM;
	}
	if (!r->output || !r->space || event_add(r->output, NULL))
		ret = -ENOMEM;
	if (!ret)
		ret = set_up_input(r, base);
	if (ret) {
		relay_destroy(r);
		return ret;
	}
	r->fd = fd;
	*out = r;
	return 0;
}

void relay_destroy(struct relay *r)
{
	if (!r)
		return;
	if (r->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &r->before);
	if (r->output)
		event_free(r->output);
	if (r->space)
		event_free(r->space);
	if (r->input)
		event_free(r->input);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		if (r->sig[i])
			event_free(r->sig[i]);
	cleanup_close(&r->fd);
	free(r);
}
