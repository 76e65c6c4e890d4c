/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An sd_bus connection on the libevent loop. */
#include "daemon/bus_loop.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include <event2/event.h>

#include "base/types.h"

#define MESSAGES_MAX 64 /* in one turn, for others are to be served too */

struct bus_loop {
	sd_bus *bus;
	struct event *in, *out, *timer;
	bool writing;	 /* @out is pending */
	uint64_t due;	 /* when @timer fires; UINT64_MAX: it is not pending */
	bool processing; /* its end looks after the events */
	void (*lost)(void *data, int error);
	void *data;
};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* When sd-bus wants to be called whatever comes; 0: at once, as something has been read already, or
 * the connection has broken, which the next call says. */
static uint64_t due(struct bus_loop *loop)
{
	uint64_t when = UINT64_MAX;

	return sd_bus_get_timeout(loop->bus, &when) >= 0 ? when : 0;
}

static void rearm_timer(struct bus_loop *loop, uint64_t when)
{
	uint64_t now = now_us(), left = when > now ? when - now : 0;
	const struct timeval tv = {.tv_sec = (time_t)(left / 1000000),
				   .tv_usec = (suseconds_t)(left % 1000000)};

	loop->due = when;
	if (when == UINT64_MAX)
		event_del(loop->timer);
	else
		event_add(loop->timer, &tv);
}

/* Nothing is to be done after most messages, and then nothing is. */
void bus_loop_rearm(struct bus_loop *loop)
{
	int events = loop->processing ? 0 : sd_bus_get_events(loop->bus);
	bool write = events > 0 && events & POLLOUT;
	uint64_t when;

	if (loop->processing)
		return;
	if (write != loop->writing) {
		loop->writing = write;
		if (write)
			event_add(loop->out, NULL);
		else
			event_del(loop->out);
	}
	when = due(loop);
	if (when != loop->due)
		rearm_timer(loop, when);
}

static void on_bus(evutil_socket_t fd, short what, void *arg)
{
	struct bus_loop *loop = arg;
	int ret = 1;

	if (what & EV_WRITE)
		loop->writing = false;
	if (what & EV_TIMEOUT)
		loop->due = UINT64_MAX;
	loop->processing = true;
	/* What has not been read yet, the descriptor tells: looking for it costs a system call. */
	for (unsigned i = 0; ret > 0 && i < MESSAGES_MAX; i++) {
		ret = sd_bus_process(loop->bus, NULL);
		if (due(loop) > 0)
			break;
	}
	loop->processing = false;
	if (ret < 0) {
		event_del(loop->in);
		event_del(loop->out);
		event_del(loop->timer);
		loop->lost(loop->data, ret);
		return;
	}
	bus_loop_rearm(loop);
}

int bus_loop_create(struct bus_loop **out, struct event_base *base, sd_bus *bus,
		    void (*lost)(void *data, int error), void *data)
{
	struct bus_loop *loop = calloc(1, sizeof(*loop));
	int fd = sd_bus_get_fd(bus);

	if (!loop || fd < 0) {
		free(loop);
		return fd < 0 ? fd : -ENOMEM;
	}
	*loop = (struct bus_loop){.bus = bus, .due = UINT64_MAX, .lost = lost, .data = data};
	loop->in = event_new(base, fd, EV_READ | EV_PERSIST, on_bus, loop);
	loop->out = event_new(base, fd, EV_WRITE, on_bus, loop);
	loop->timer = evtimer_new(base, on_bus, loop);
	if (!loop->in || !loop->out || !loop->timer || event_add(loop->in, NULL)) {
		bus_loop_destroy(loop);
		return -ENOMEM;
	}
	bus_loop_rearm(loop);
	*out = loop;
	return 0;
}

void bus_loop_destroy(struct bus_loop *loop)
{
	if (!loop)
		return;
	if (loop->in)
		event_free(loop->in);
	if (loop->out)
		event_free(loop->out);
	if (loop->timer)
		event_free(loop->timer);
	free(loop);
}
