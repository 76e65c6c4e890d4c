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
	void (*lost)(void *data, int error);
	void *data;
};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void bus_loop_rearm(struct bus_loop *loop)
{
	uint64_t when = UINT64_MAX, now = now_us();
	int events = sd_bus_get_events(loop->bus);

	if (events > 0 && events & POLLOUT)
		event_add(loop->out, NULL);
	else
		event_del(loop->out);
	/* 0: something has been read already. */
	if (sd_bus_get_timeout(loop->bus, &when) >= 0 && when != UINT64_MAX) {
		uint64_t left = when > now ? when - now : 0;
		const struct timeval tv = {.tv_sec = (time_t)(left / 1000000),
					   .tv_usec = (suseconds_t)(left % 1000000)};

		event_add(loop->timer, &tv);
	} else {
		event_del(loop->timer);
	}
}

static void on_bus(evutil_socket_t fd, short what, void *arg)
{
	struct bus_loop *loop = arg;
	int ret = 1;

	for (unsigned i = 0; ret > 0 && i < MESSAGES_MAX; i++)
		ret = sd_bus_process(loop->bus, NULL);
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
	*loop = (struct bus_loop){.bus = bus, .lost = lost, .data = data};
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
