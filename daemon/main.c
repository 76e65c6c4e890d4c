/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbrad: the daemon that owns the machines. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>
#include <systemd/sd-daemon.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "daemon/machine.h"
#include "daemon/store.h"

#define TICK_S 5

struct options {
	int ready_fd, idle_exit_s;
	const char *vm;
	bool verbose;
};

static const char usage[] =
	"Usage: umbrad [OPTION]...\n"
	"Own and watch virtual machines, and serve vmctl.\n\n"
	"      --idle-exit SECONDS  end when nobody is connected and nothing runs for so long\n"
	"      --ready-fd FD        write a byte there when the socket listens\n"
	"      --vm PROGRAM         the umbra-vm to start machines with\n"
	"  -v, --verbose            log more\n"
	"  -h, --help               show this help\n"
	"      --version            show the version\n\n"
	"See umbrad(8).\n";

/* Returns -1 to go on, else an exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"idle-exit", required_argument, NULL, 'i'},
		{"ready-fd", required_argument, NULL, 'r'},
		{"vm", required_argument, NULL, 'm'},
		{"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	int c;

	*o = (struct options){.ready_fd = -1};
	while ((c = getopt_long(argc, argv, "vh", longs, NULL)) != -1) {
		switch (c) {
		case 'i': o->idle_exit_s = MAX(atoi(optarg), 0); break;
		case 'r': o->ready_fd = atoi(optarg); break;
		case 'm': o->vm = optarg; break;
		case 'v': o->verbose = true; break;
		case 'h': fputs(usage, stdout); return 0;
		case 'V': puts("umbrad " UMBRA_VERSION); return 0;
		default: fputs("Try \"umbrad --help\".\n", stderr); return 64;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "umbrad: what is \"%s\"?\n", argv[optind]);
		return 64;
	}
	return -1;
}

/* One umbrad a runtime folder. The lock is held while we live. */
static int take_lock(struct umbrad *d)
{
	d->lock_fd =
		openat(d->run_fd, "umbrad.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (d->lock_fd < 0)
		return -errno;
	return flock(d->lock_fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

/* From systemd, or by ourselves. */
static int listen_all(struct umbrad *d)
{
	int n = sd_listen_fds(1), fd, ret = 0;
	const struct group *group;

	if (n > 0) {
		for (int i = 0; !ret && i < n; i++)
			ret = api_server_listen(d->server, SD_LISTEN_FDS_START + i);
		return ret;
	}
	fd = api_unix_listen(d->run_fd, UMBRAD_SOCKET, d->paths.system ? 0660 : 0600);
	if (fd < 0)
		return fd;
	/* Members of the group may drive the system's umbrad, where the group exists. */
	if (d->paths.system && (group = getgrnam("umbra")) &&
	    fchownat(d->run_fd, UMBRAD_SOCKET, (uid_t)-1, group->gr_gid, AT_SYMLINK_NOFOLLOW) < 0)
		log_warn("the socket could not be given to the group umbra: %s", strerror(errno));
	ret = api_server_listen(d->server, fd);
	if (ret)
		close(fd);
	return ret;
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
	struct umbrad *d = arg;

	log_info("ending on signal %d; machines run on", (int)sig);
	event_base_loopbreak(d->base);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct umbrad *d = arg;

	store_trim_logs(d);
	d->idle_s = d->n_running || api_server_sessions(d->server) ? 0 : d->idle_s + TICK_S;
	if (d->idle_exit_s && d->idle_s >= d->idle_exit_s) {
		log_info("ending: idle for %d s", d->idle_s);
		event_base_loopbreak(d->base);
	}
}

/* As many descriptors as we may have: each machine needs a few. */
static void raise_limits(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
		lim.rlim_cur = MIN(lim.rlim_max, (rlim_t)65536);
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

static int set_up(struct umbrad *d, const struct options *o)
{
	struct api_server_config config = {
		.table = &api_umbrad_methods,
		.forward = umbrad_forward,
		.ops = &umbrad_ops,
		.data = d,
		.access = API_ADMIN,
		.session_changed = umbrad_session_changed,
	};
	struct api_error err = {0};
	int ret = api_paths_init(&d->paths, &err);

	if (!ret)
		ret = store_open(d, &err);
	if (ret) {
		log_error("%s", err.text);
		return ret;
	}
	ret = take_lock(d);
	if (ret) {
		log_error("another umbrad serves %s, or its lock cannot be taken: %s",
			  d->paths.runtime, strerror(-ret));
		return ret;
	}
	d->vm_program = o->vm ? strdup(o->vm) : api_find_program("umbra-vm", "vm", "UMBRA_VM");
	if (!d->vm_program)
		log_warn("umbra-vm was not found: no machine can be started");
	d->base = event_base_new();
	if (!d->base || api_events_create(&d->events) ||
	    api_server_create(&d->server, d->base, &config))
		return -ENOMEM;
	ret = store_load(d);
	if (!ret)
		ret = listen_all(d);
	if (ret)
		log_error("cannot listen in %s: %s", d->paths.runtime, strerror(-ret));
	return ret;
}

static void tear_down(struct umbrad *d)
{
	d->quitting = true;
	api_server_destroy(d->server);
	d->server = NULL;
	while (!list_empty(&d->machines))
		machine_destroy(list_first(&d->machines, struct machine, link), false);
	api_events_destroy(d->events);
	store_close(d);
	cleanup_close(&d->lock_fd);
	free(d->vm_program);
	api_paths_finish(&d->paths);
}

static int run(struct umbrad *d, const struct options *o)
{
	const struct timeval tick = {.tv_sec = TICK_S};
	struct event *term, *intr;
	int ret;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	raise_limits();
	ret = set_up(d, o);
	if (ret)
		return EXIT_FAILURE;
	d->idle_exit_s = o->idle_exit_s;
	d->tick = event_new(d->base, -1, EV_PERSIST, on_tick, d);
	term = evsignal_new(d->base, SIGTERM, on_signal, d);
	intr = evsignal_new(d->base, SIGINT, on_signal, d);
	event_add(d->tick, &tick);
	event_add(term, NULL);
	event_add(intr, NULL);
	sd_notify(0, "READY=1");
	if (o->ready_fd >= 0) {
		if (write(o->ready_fd, "1", 1) < 0)
			log_warn("nobody reads --ready-fd");
		close(o->ready_fd);
	}
	log_info("umbrad " UMBRA_VERSION " serves %s with %zu machines", d->paths.runtime,
		 d->n_machines);
	event_base_dispatch(d->base);
	sd_notify(0, "STOPPING=1");
	event_free(term);
	event_free(intr);
	event_free(d->tick);
	return EXIT_SUCCESS;
}

/* Whether stderr is the journal: the variable alone is also seen by what a service started. */
static bool logs_to_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

int main(int argc, char **argv)
{
	struct umbrad d = {.run_fd = -1, .vm_fd = -1, .store_fd = -1, .logs_fd = -1, .lock_fd = -1};
	struct options o;
	int status = parse_options(argc, argv, &o);

	if (status >= 0)
		return status;
	list_init(&d.machines);
	log_setup("umbrad", o.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, logs_to_journal());
	if (o.ready_fd >= 0)
		fcntl(o.ready_fd, F_SETFD, FD_CLOEXEC);
	status = run(&d, &o);
	tear_down(&d);
	if (d.base)
		event_base_free(d.base);
	return status;
}
