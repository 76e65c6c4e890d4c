/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest's console: output to a bounded log and to whoever is attached, input from them. */
#include "api/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/list.h"

struct reader {
	struct list link;
	struct console *con;
	int in_fd, out_fd;
	int in_flags, out_flags; /* as they were */
	struct event *readable, *writable;
	bool polled; /* out_fd can be polled; else it is a file and never blocks */
	bool doomed; /* detach at the next turn of the loop */
	struct buf out;
	size_t sent;	   /* of @out */
	uint64_t progress; /* bytes ever sent */
	char in[4096];	   /* read, and not yet taken by the guest */
	size_t in_len;
};

/* @lock guards the readers' queues and lists, the log's buffer and the flags. */
struct console {
	struct event_base *base;
	const struct console_ops *ops;
	void *data;
	pthread_t loop;
	pthread_mutex_t lock;
	pthread_cond_t moved; /* a queue got shorter */
	int wake_fd;
	struct event *wake;
	bool woken, input_ready, unblocked;
	struct list readers;
	size_t n_readers;
	int log_fd;
	uint64_t log_len;
	struct buf log;
};

static void wake_loop(struct console *con)
{
	const uint64_t one = 1;

	if (con->woken)
		return;
	con->woken = true;
	/* Only a full counter could refuse, and then the loop is awake already. */
	if (write(con->wake_fd, &one, sizeof(one)) < 0)
		return;
}

static void reader_detach(struct reader *r)
{
	list_del(&r->link);
	r->con->n_readers--;
	if (r->readable)
		event_free(r->readable);
	if (r->writable)
		event_free(r->writable);
	if (r->in_fd >= 0)
		fcntl(r->in_fd, F_SETFL, r->in_flags);
	if (r->out_fd >= 0 && r->out_fd != r->in_fd)
		fcntl(r->out_fd, F_SETFL, r->out_flags);
	if (r->out_fd == r->in_fd)
		r->out_fd = -1;
	cleanup_close(&r->in_fd);
	cleanup_close(&r->out_fd);
	pthread_cond_broadcast(&r->con->moved);
	buf_finish(&r->out);
	free(r);
}

/* Keep the log's later half when it is full. A failing disk costs the log, not the guest. */
static void log_shrink(struct console *con)
{
	size_t keep = CONSOLE_LOG_MAX / 2;
	char *half = malloc(keep);
	ssize_t n = half ? pread(con->log_fd, half, keep, (off_t)(con->log_len - keep)) : -1;

	con->log_len = 0;
	if (n > 0 && pwrite(con->log_fd, half, (size_t)n, 0) == n)
		con->log_len = (uint64_t)n;
	if (ftruncate(con->log_fd, (off_t)con->log_len) < 0)
		con->log_len = 0;
	free(half);
}

static void log_push(struct console *con)
{
	size_t done = 0;

	while (con->log_fd >= 0 && done < con->log.len) {
		size_t room = CONSOLE_LOG_MAX - con->log_len;
		ssize_t n = pwrite(con->log_fd, con->log.data + done,
				   MIN(con->log.len - done, room), (off_t)con->log_len);

		if (n <= 0)
			break;
		done += (size_t)n;
		con->log_len += (uint64_t)n;
		if (con->log_len >= CONSOLE_LOG_MAX)
			log_shrink(con);
	}
	buf_consume(&con->log, con->log.len);
}

/* Send what the reader takes now. The lock is held. 0 or -errno: the reader has gone. */
static int reader_push(struct reader *r)
{
	while (r->sent < r->out.len) {
		ssize_t n = send(r->out_fd, r->out.data + r->sent, r->out.len - r->sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == ENOTSOCK)
			n = write(r->out_fd, r->out.data + r->sent, r->out.len - r->sent);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return -errno;
		r->sent += (size_t)n;
		r->progress += (uint64_t)n;
	}
	if (r->sent && (r->sent == r->out.len || r->sent > r->out.len / 2)) {
		buf_consume(&r->out, r->sent);
		r->sent = 0;
		pthread_cond_broadcast(&r->con->moved);
	}
	if (r->out.len && r->polled)
		event_add(r->writable, NULL);
	return 0;
}

/* Give the guest what it takes, and read on only when it took all. */
static void reader_offer(struct reader *r)
{
	const struct console *con = r->con;
	size_t n = r->in_len;

	if (con->ops && con->ops->input)
		n = con->ops->input(con->data, r->in, r->in_len);
	n = MIN(n, r->in_len);
	memmove(r->in, r->in + n, r->in_len - n);
	r->in_len -= n;
	if (r->in_len)
		event_del(r->readable);
	else
		event_add(r->readable, NULL);
}

static void push_all(struct console *con)
{
	struct reader *r, *tmp;

	log_push(con);
	list_for_each_entry_safe (r, tmp, &con->readers, link)
		if (r->doomed || (r->out_fd >= 0 && reader_push(r)))
			reader_detach(r);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct console *con = arg;
	struct reader *r, *tmp;
	bool ready;
	uint64_t n;

	if (read(con->wake_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		return;
	pthread_mutex_lock(&con->lock);
	con->woken = false;
	ready = con->input_ready;
	con->input_ready = false;
	push_all(con);
	pthread_mutex_unlock(&con->lock);
	/* The list is changed on this thread only. */
	list_for_each_entry_safe (r, tmp, &con->readers, link)
		if (ready && r->in_len)
			reader_offer(r);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct reader *r = arg;
	struct console *con = r->con;
	ssize_t n = read(r->in_fd, r->in + r->in_len, sizeof(r->in) - r->in_len);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		r->in_len += (size_t)n;
		reader_offer(r);
		return;
	}
	event_del(r->readable);
	if (r->out_fd >= 0 && r->out_fd != r->in_fd)
		return;
	pthread_mutex_lock(&con->lock);
	reader_detach(r);
	pthread_mutex_unlock(&con->lock);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct reader *r = arg;
	struct console *con = r->con;

	pthread_mutex_lock(&con->lock);
	if (reader_push(r))
		reader_detach(r);
	pthread_mutex_unlock(&con->lock);
}

int console_create(struct console **out, struct event_base *base, int log_fd,
		   const struct console_ops *ops, void *data)
{
	struct console *con = calloc(1, sizeof(*con));
	pthread_condattr_t attr;
	struct stat st;

	if (!con)
		return -ENOMEM;
	con->base = base;
	con->ops = ops;
	con->data = data;
	con->loop = pthread_self();
	list_init(&con->readers);
	pthread_mutex_init(&con->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&con->moved, &attr);
	pthread_condattr_destroy(&attr);
	con->log_fd = -1;
	con->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (con->wake_fd >= 0)
		con->wake = event_new(base, con->wake_fd, EV_READ | EV_PERSIST, on_wake, con);
	if (!con->wake || event_add(con->wake, NULL)) {
		console_destroy(con);
		return -ENOMEM;
	}
	if (log_fd >= 0 && fstat(log_fd, &st) == 0 && S_ISREG(st.st_mode)) {
		con->log_fd = log_fd;
		con->log_len = (uint64_t)st.st_size;
		if (con->log_len >= CONSOLE_LOG_MAX)
			log_shrink(con);
	}
	*out = con;
	return 0;
}

void console_destroy(struct console *con)
{
	if (!con)
		return;
	while (!list_empty(&con->readers))
		reader_detach(list_first(&con->readers, struct reader, link));
	log_push(con);
	if (con->wake)
		event_free(con->wake);
	cleanup_close(&con->wake_fd);
	cleanup_close(&con->log_fd);
	buf_finish(&con->log);
	pthread_cond_destroy(&con->moved);
	pthread_mutex_destroy(&con->lock);
	free(con);
}

/* Files and /dev/null cannot be polled: epoll says so, and libevent would print it as a warning. */
static bool can_poll(int fd)
{
	struct epoll_event ev = {.events = EPOLLIN};
	_cleanup_close_ int ep = epoll_create1(EPOLL_CLOEXEC);

	return ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0 || errno != EPERM;
}

static int reader_open(struct reader *r)
{
	struct event_base *base = r->con->base;

	if (r->out_fd >= 0) {
		r->out_flags = fcntl(r->out_fd, F_GETFL);
		r->writable = event_new(base, r->out_fd, EV_WRITE, on_writable, r);
		if (!r->writable)
			return -ENOMEM;
		/* What cannot be polled takes all at once. */
		r->polled = can_poll(r->out_fd);
		if (r->polled && (event_add(r->writable, NULL) || fd_set_nonblock(r->out_fd, true)))
			return -EBADF;
	}
	if (r->in_fd < 0)
		return 0;
	r->in_flags = r->in_fd == r->out_fd ? r->out_flags : fcntl(r->in_fd, F_GETFL);
	r->readable = event_new(base, r->in_fd, EV_READ | EV_PERSIST, on_readable, r);
	if (!r->readable)
		return -ENOMEM;
	/* Input that cannot be polled is none. */
	if (!can_poll(r->in_fd))
		return 0;
	return event_add(r->readable, NULL) ? -EBADF : fd_set_nonblock(r->in_fd, true);
}

int console_attach(struct console *con, int in_fd, int out_fd)
{
	struct reader *r;
	int ret;

	if (con->n_readers >= CONSOLE_READERS)
		return -EBUSY;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->con = con;
	r->in_fd = in_fd;
	r->out_fd = out_fd;
	ret = reader_open(r);
	if (ret) {
		if (r->readable)
			event_free(r->readable);
		if (r->writable)
			event_free(r->writable);
		free(r);
		return ret;
	}
	pthread_mutex_lock(&con->lock);
	list_add_tail(&con->readers, &r->link);
	con->n_readers++;
	pthread_mutex_unlock(&con->lock);
	return 0;
}

static struct timespec in_ms(int ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_nsec += ms % 1000 * 1000000l;
	ts.tv_sec += ms / 1000 + ts.tv_nsec / 1000000000;
	ts.tv_nsec %= 1000000000;
	return ts;
}

static struct reader *find_full(struct console *con)
{
	struct reader *r;

	list_for_each_entry (r, &con->readers, link)
		if (!r->doomed && r->out.len - r->sent > CONSOLE_QUEUE_MAX)
			return r;
	return NULL;
}

/* Write until the readers' queues are empty, or none has moved for @ms. The lock is held. */
static void drain(struct console *con, int ms)
{
	struct reader *r, *tmp;

	list_for_each_entry_safe (r, tmp, &con->readers, link) {
		while (r->out_fd >= 0 && !r->doomed) {
			struct pollfd p = {.fd = r->out_fd, .events = POLLOUT};

			if (reader_push(r)) {
				r->doomed = true;
				break;
			}
			if (!r->out.len || poll(&p, 1, ms) <= 0)
				break;
		}
	}
}

/* The lock is held. Wait while a queue is full; whoever takes nothing for too long is detached. */
static void wait_for_room(struct console *con)
{
	struct reader *r = find_full(con), *again;
	struct timespec end = in_ms(CONSOLE_STALL_MS);
	uint64_t before = r ? r->progress : 0;

	if (r && pthread_equal(pthread_self(), con->loop)) {
		drain(con, CONSOLE_STALL_MS);
		r = find_full(con);
		if (r)
			r->doomed = true;
		return;
	}
	while (r && !con->unblocked) {
		int ret = pthread_cond_timedwait(&con->moved, &con->lock, &end);

		/* While we waited it may have been detached, so that only what is found counts. */
		again = find_full(con);
		if (again != r || !again || again->progress != before) {
			r = again;
			before = r ? r->progress : 0;
			end = in_ms(CONSOLE_STALL_MS);
		} else if (ret == ETIMEDOUT) {
			r->doomed = true;
			r = find_full(con);
			before = r ? r->progress : 0;
		}
	}
}

void console_write(struct console *con, const void *bytes, size_t len)
{
	struct reader *r;

	pthread_mutex_lock(&con->lock);
	wait_for_room(con);
	buf_append(&con->log, bytes, len);
	if (con->log.len > MIB(1)) /* a loop that does not turn must not cost memory */
		log_push(con);
	list_for_each_entry (r, &con->readers, link)
		if (!r->doomed && r->out_fd >= 0 &&
		    (r->out.len - r->sent <= CONSOLE_QUEUE_MAX || !con->unblocked) &&
		    buf_append(&r->out, bytes, len))
			r->doomed = true;
	wake_loop(con);
	pthread_mutex_unlock(&con->lock);
}

void console_input_ready(struct console *con)
{
	pthread_mutex_lock(&con->lock);
	con->input_ready = true;
	wake_loop(con);
	pthread_mutex_unlock(&con->lock);
}

void console_unblock(struct console *con)
{
	pthread_mutex_lock(&con->lock);
	con->unblocked = true;
	pthread_cond_broadcast(&con->moved);
	pthread_mutex_unlock(&con->lock);
}

void console_flush(struct console *con, int ms)
{
	pthread_mutex_lock(&con->lock);
	log_push(con);
	drain(con, ms);
	while (!list_empty(&con->readers))
		reader_detach(list_first(&con->readers, struct reader, link));
	pthread_mutex_unlock(&con->lock);
}
