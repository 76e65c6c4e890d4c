/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbrad: the daemon that owns the machines. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>
#include <systemd/sd-daemon.h>

#include "api/tls.h"
#include "api/token.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fd.h"
#include "base/log.h"
#include "daemon/auth.h"
#include "daemon/dbus.h"
#include "daemon/journal.h"
#include "daemon/listen.h"
#include "daemon/machine.h"
#include "daemon/metrics.h"
#include "daemon/store.h"
#include "daemon/supervise.h"
#include "daemon/unit.h"

#define TICK_S 5

struct options {
	int ready_fd, idle_exit_s;
	const char *vm, *config;
	bool verbose, check, shutdown_machines;
};

static const char usage[] =
	"Usage: umbrad [OPTION]...\n"
	"  or:  umbrad --check [FILE]\n"
	"Own and watch virtual machines, and serve vmctl.\n\n"
	"      --check              tell what is wrong in the configuration, with file and line\n"
	"      --config FILE        read it instead of umbrad.conf\n"
	"      --introspect         write the D-Bus interfaces as XML, and end\n"
	"      --idle-exit SECONDS  end when nobody is connected and nothing runs for so long\n"
	"      --ready-fd FD        write a byte there when the socket listens\n"
	"      --vm PROGRAM         the umbra-vm to start machines with\n"
	"      --shutdown-machines  ask the umbrad that runs to stop all machines, in order, and "
	"wait\n"
	"      --fault-points       list the places where $UMBRA_FAULT can kill it, and end\n"
	"      --print-config       write a configuration file with all defaults, and end\n"
	"  -v, --verbose            log more\n"
	"  -h, --help               show this help\n"
	"      --version            show the version\n\n"
	"See umbrad(8).\n";

static int print_introspection(void)
{
	_cleanup_free_ char *xml = dbus_introspect(&api_umbrad_methods);

	return xml && fputs(xml, stdout) >= 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int print_fault_points(void)
{
	for (int i = 0; i < FAULT_COUNT; i++)
		puts(fault_names[i]);
	return EXIT_SUCCESS;
}

/* Returns -1 to go on, else an exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"check", no_argument, NULL, 'k'},
		{"fault-points", no_argument, NULL, 'f'},
		{"introspect", no_argument, NULL, 'x'},
		{"shutdown-machines", no_argument, NULL, 's'},
		{"config", required_argument, NULL, 'c'},
		{"print-config", no_argument, NULL, 'p'},
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
		case 'k': o->check = true; break;
		case 'c': o->config = optarg; break;
		case 'p': umbrad_config_print(stdout); return 0;
		case 'f': return print_fault_points();
		case 'x': return print_introspection();
		case 's': o->shutdown_machines = true; break;
		case 'i': o->idle_exit_s = MAX(atoi(optarg), 0); break;
		case 'r': o->ready_fd = atoi(optarg); break;
		case 'm': o->vm = optarg; break;
		case 'v': o->verbose = true; break;
		case 'h': fputs(usage, stdout); return 0;
		case 'V': puts("umbrad " UMBRA_VERSION); return 0;
		default: fputs("Try \"umbrad --help\".\n", stderr); return 64;
		}
	}
	if (o->check && optind + 1 == argc)
		o->config = argv[optind++];
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

/* Who serves what comes on a socket. */
static int take_socket(void *data, enum listen_kind kind, int fd)
{
	struct umbrad *d = data;

	switch (kind) {
	case LISTEN_RPC:
		return api_server_listen(d->server, fd, &(struct api_listen){.cap = API_ADMIN});
	case LISTEN_RPC_READ:
		return api_server_listen(d->server, fd, &(struct api_listen){.cap = API_READ});
	case LISTEN_RPC_TLS:
		if (!auth_tls(d->auth, AUTH_TLS_RPC)) {
			log_error(
				"JSON-RPC over TLS is not served: [tls] cert and key are not set");
			return -ENOENT;
		}
		return api_server_listen(
			d->server, fd,
			&(struct api_listen){.cap = API_ADMIN,
					     .tls = auth_tls(d->auth, AUTH_TLS_RPC)});
	case LISTEN_HTTP: return api_rest_listen(d->rest, fd, NULL);
	case LISTEN_HTTPS:
		if (!auth_tls(d->auth, AUTH_TLS_HTTPS)) {
			log_error("HTTPS is not served: [tls] cert and key are not set");
			return -ENOENT;
		}
		return api_rest_listen(d->rest, fd, auth_tls(d->auth, AUTH_TLS_HTTPS));
	default: close(fd); return 0;
	}
}

static void say_config(void *data, const char *text)
{
	journal_write(
		&(struct journal_entry){.event = JOURNAL_CONFIG_REFUSED, .level = LOG_LEVEL_ERR},
		"%s", text);
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

static void limit_jobs(struct umbrad *d)
{
	if (d->jobs)
		api_jobs_set_limits(d->jobs, (size_t)d->config.limits.jobs,
				    d->config.limits.job_keep);
}

/* What of the configuration needs an action to take effect, at start and after a reload. */
static void apply_config(struct umbrad *d)
{
	static const enum log_level levels[] = {
		[CONFIG_LOG_ERROR] = LOG_LEVEL_ERR,
		[CONFIG_LOG_WARNING] = LOG_LEVEL_WARNING,
		[CONFIG_LOG_INFO] = LOG_LEVEL_INFO,
		[CONFIG_LOG_DEBUG] = LOG_LEVEL_DEBUG,
	};

	journal_setup("umbrad",
		      d->config.log.target == CONFIG_LOG_JOURNAL ||
			      (d->config.log.target == CONFIG_LOG_AUTO && logs_to_journal()));
	log_set_max(d->verbose ? LOG_LEVEL_DEBUG : levels[d->config.log.level]);
	d->dispatcher.limits = (struct api_limits){
		.connections = (size_t)d->config.limits.connections,
		.connections_per_caller = (size_t)d->config.limits.connections_per_caller,
		.calls = (size_t)d->config.limits.calls,
		.handshake_s = d->config.limits.handshake_timeout,
		.idle_s = d->config.limits.idle_timeout,
	};
	limit_jobs(d);
}

/* Who may do less than before, or was let in by what has been taken back, is cut off. */
static void recheck(struct umbrad *d)
{
	size_t n = api_server_recheck(d->server) + api_rest_recheck(d->rest);

	dbus_recheck(d->dbus);
	if (n)
		journal_write(&(struct journal_entry){.event = JOURNAL_DENIED,
						      .level = LOG_LEVEL_WARNING},
			      "%zu connections are closed, whose rights have been taken back", n);
}

static void reload(struct umbrad *d)
{
	struct umbrad_config next;
	struct api_error err = {0};

	if (umbrad_config_load(&next, d->config_file, d->paths.system, say_config, NULL)) {
		umbrad_config_finish(&next);
		log_error("the configuration is not read again: all stays as it was");
		return;
	}
	if (auth_reload(d->auth, &next, &err)) {
		say_config(NULL, err.text);
		umbrad_config_finish(&next);
		log_error("the configuration is not read again: all stays as it was");
		return;
	}
	if (umbrad_config_replace(&d->config, &next))
		log_warn("[listen] has changed: that takes effect when umbrad is restarted");
	apply_config(d);
	recheck(d);
	journal_write(&(struct journal_entry){.event = JOURNAL_RELOADED},
		      "the configuration has been read again");
}

static void on_hangup(evutil_socket_t sig, short what, void *arg)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
		   now.tv_sec * 1000000ull + (unsigned long long)now.tv_nsec / 1000);
	reload(arg);
	sd_notify(0, "READY=1");
}

/* systemd restarts an umbrad whose loop stands still. */
static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
	sd_notify(0, "WATCHDOG=1");
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
	struct umbrad *d = arg;

	journal_write(&(struct journal_entry){.event = JOURNAL_ENDING},
		      "ending on signal %d; machines run on", (int)sig);
	event_base_loopbreak(d->base);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct umbrad *d = arg;

	store_trim_logs(d);
	if (auth_changed(d->auth))
		recheck(d);
	d->idle_s = d->n_running || supervise_waits(d->supervise) ||
				    api_server_sessions(d->server) || dbus_peers(d->dbus)
			    ? 0
			    : d->idle_s + TICK_S;
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

static int serve_rest(struct umbrad *d)
{
	const struct api_rest_config config = {
		.dispatcher = &d->dispatcher,
		.events = d->events,
		.identify = auth_identify_http,
		.metrics = metrics_gather,
		.data = d,
	};

	return api_rest_create(&d->rest, d->base, &config);
}

/* Who is to be the machines' parent: systemd, where it runs, or we. */
static int find_units(struct umbrad *d)
{
	int ret;

	if (d->config.machines.units == CONFIG_UNITS_NEVER)
		return 0;
	ret = units_create(&d->units, d->base, d->paths.system);
	if (!ret)
		return 0;
	log_info("no service manager (%s): machines are processes of umbrad's own", strerror(-ret));
	if (d->config.machines.units != CONFIG_UNITS_ALWAYS)
		return 0;
	log_error("the configuration asks for one: [machines] units = always");
	return ret;
}

static int set_up(struct umbrad *d, const struct options *o)
{
	const struct api_server_config config = {
		.dispatcher = &d->dispatcher,
		.identify = auth_identify,
		.session_changed = umbrad_session_changed,
		.data = d,
	};
	struct api_error err = {0};
	int ret = api_paths_init(&d->paths, &err);

	if (!ret &&
	    umbrad_config_load(&d->config, d->config_file, d->paths.system, say_config, NULL))
		ret = api_error_set(&err, API_KIND_INVALID_PARAMS,
				    "the configuration is not accepted: see umbrad --check");
	apply_config(d);
	if (!ret)
		ret = auth_create(&d->auth, &d->config, d->paths.system, &err);
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
	if (!d->base || api_events_create(&d->events, d->base) ||
	    api_jobs_create(&d->jobs, d->base, d->events) ||
	    api_server_create(&d->server, d->base, &config) || metrics_create(&d->metrics, d) ||
	    serve_rest(d))
		return -ENOMEM;
	ret = api_events_keep(d->events, d->run_fd, "events");
	if (ret)
		log_warn("events are not kept for a later umbrad: %s", strerror(-ret));
	limit_jobs(d);
	ret = find_units(d);
	if (ret)
		return ret;
	ret = store_load(d);
	if (ret) {
		log_error("the definitions cannot be read: %s", strerror(-ret));
		return ret;
	}
	if (d->units)
		units_sweep(d->units, machine_claims_unit, d);
	supervise_tell_missed(d);
	if (supervise_create(&d->supervise, d))
		return -ENOMEM;
	ret = listen_all(&d->config, &d->paths, d->run_fd, take_socket, d, &err);
	if (ret)
		log_error("%s", err.text);
	if (!ret && d->config.listen.dbus)
		ret = dbus_create(&d->dbus, d);
	return ret;
}

static void tear_down(struct umbrad *d)
{
	d->quitting = true;
	api_server_destroy(d->server);
	d->server = NULL;
	api_rest_destroy(d->rest);
	d->rest = NULL;
	metrics_destroy(d->metrics);
	d->metrics = NULL;
	dbus_destroy(d->dbus);
	api_dispatcher_finish(&d->dispatcher);
	while (!list_empty(&d->machines))
		machine_destroy(list_first(&d->machines, struct machine, link), false);
	supervise_destroy(d->supervise);
	units_destroy(d->units);
	api_jobs_destroy(d->jobs);
	api_events_destroy(d->events);
	store_close(d);
	cleanup_close(&d->lock_fd);
	free(d->vm_program);
	auth_destroy(d->auth);
	api_paths_finish(&d->paths);
	umbrad_config_finish(&d->config);
}

static int run(struct umbrad *d, const struct options *o)
{
	const struct timeval tick = {.tv_sec = TICK_S};
	struct event *term, *intr, *hangup, *watchdog = NULL;
	uint64_t watchdog_us;
	int ret;

	signal(SIGPIPE, SIG_IGN);
	raise_limits();
	d->config_file = o->config;
	d->verbose = o->verbose;
	ret = set_up(d, o);
	if (ret)
		return EXIT_FAILURE;
	d->idle_exit_s = o->idle_exit_s;
	d->tick = event_new(d->base, -1, EV_PERSIST, on_tick, d);
	term = evsignal_new(d->base, SIGTERM, on_signal, d);
	intr = evsignal_new(d->base, SIGINT, on_signal, d);
	event_add(d->tick, &tick);
	hangup = evsignal_new(d->base, SIGHUP, on_hangup, d);
	event_add(term, NULL);
	event_add(intr, NULL);
	event_add(hangup, NULL);
	if (sd_watchdog_enabled(0, &watchdog_us) > 0) {
		const struct timeval beat = {.tv_sec = (time_t)(watchdog_us / 3000000),
					     .tv_usec = (suseconds_t)(watchdog_us / 3 % 1000000)};

		watchdog = event_new(d->base, -1, EV_PERSIST, on_watchdog, d);
		event_add(watchdog, &beat);
	}
	sd_notify(0, "READY=1");
	if (o->ready_fd >= 0) {
		if (write(o->ready_fd, "1", 1) < 0)
			log_warn("nobody reads --ready-fd");
		close(o->ready_fd);
	}
	journal_write(&(struct journal_entry){.event = JOURNAL_READY},
		      "umbrad " UMBRA_VERSION " serves %s with %zu machines", d->paths.runtime,
		      d->n_machines);
	event_base_dispatch(d->base);
	sd_notify(0, "STOPPING=1");
	if (watchdog)
		event_free(watchdog);
	event_free(hangup);
	event_free(term);
	event_free(intr);
	event_free(d->tick);
	return EXIT_SUCCESS;
}

static void print_config(void *data, const char *text)
{
	fprintf(stderr, "%s\n", text);
}

/* The files that the configuration names, as a start would read them. */
static int check_files(const struct umbrad_config *config)
{
	const struct api_tls_config tls_config = {
		.cert = config->tls.cert,
		.key = config->tls.key,
		.ca = config->tls.ca,
		.crl = config->tls.crl,
		.server = true,
		.cert_optional = config->tls.tokens,
	};
	struct api_tokens *tokens = NULL;
	struct api_tls *tls = NULL;
	struct api_error err;
	int ret = 0;

	if (config->tls.cert && config->tls.key) {
		ret = api_tls_create(&tls, &tls_config, &err);
		if (ret)
			fprintf(stderr, "[tls] %s\n", err.text);
		api_tls_destroy(tls);
	}
	if (config->tls.tokens && api_tokens_load(&tokens, config->tls.tokens, &err)) {
		fprintf(stderr, "[tls] tokens: %s\n", err.text);
		ret = -EINVAL;
	}
	api_tokens_free(tokens);
	return ret;
}

/* umbrad --check: an exit status. */
static int check(const struct options *o)
{
	struct umbrad_config config;
	int ret = umbrad_config_load(&config, o->config, geteuid() == 0, print_config, NULL);

	if (!ret)
		ret = check_files(&config);
	umbrad_config_finish(&config);
	if (!ret)
		puts("The configuration is accepted.");
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct umbrad d = {.run_fd = -1,
			   .vm_fd = -1,
			   .store_fd = -1,
			   .logs_fd = -1,
			   .lock_fd = -1,
			   .dispatcher = {
				   .table = &api_umbrad_methods,
				   .ops = &umbrad_ops,
				   .data = &d,
				   .forward = umbrad_forward,
				   .audit = auth_audit,
				   .begin_job = umbrad_begin_job,
			   }};
	struct options o;
	int status = parse_options(argc, argv, &o);

	if (status >= 0)
		return status;
	if (o.check)
		return check(&o);
	list_init(&d.machines);
	api_dispatcher_init(&d.dispatcher);
	log_setup("umbrad", LOG_LEVEL_INFO, logs_to_journal());
	if (o.shutdown_machines)
		return supervise_ask_stop_all() ? EXIT_FAILURE : EXIT_SUCCESS;
	if (fault_setup()) {
		log_error("$UMBRA_FAULT names no point; see umbrad --fault-points");
		return 64;
	}
	if (o.ready_fd >= 0)
		fcntl(o.ready_fd, F_SETFD, FD_CLOEXEC);
	status = run(&d, &o);
	tear_down(&d);
	if (d.base)
		event_base_free(d.base);
	return status;
}
