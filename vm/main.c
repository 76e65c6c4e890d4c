/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbra-vm: one machine, for umbrad (--control ...) or alone (--config FILE). */
#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <fcntl.h>
#include <getopt.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "api/console.h"
#include "api/vm_control.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "vm/vm.h"
#include "vm/vm_api.h"

#define FLUSH_MS 2000

struct app {
	struct event_base *base;
	struct vm *vm;
	struct console *console;
	struct vm_control *control; /* NULL when alone */
	struct vm_config config;
	int report_fd;
	const char *stats_file;
	int status;
	struct termios saved_tty;
	bool tty_saved;
};

/* ---- the machine's way out
 * ------------------------------------------------------------------------ */

static void on_output(void *data, const uint8_t *bytes, size_t len)
{
	struct app *app = data;

	console_write(app->console, bytes, len);
}

static void on_ready(void *data)
{
	struct app *app = data;

	console_input_ready(app->console);
}

static void print_detail(const struct vm_report *report)
{
	struct json_object *regs, *insns;

	if (!report->detail)
		return;
	if (json_object_object_get_ex(report->detail, "registers", &regs)) {
		json_object_object_foreach(regs, name, value)
			fprintf(stderr, "  %-8s %s\n", name, json_object_get_string(value));
	}
	if (json_object_object_get_ex(report->detail, "instructions", &insns))
		for (size_t k = 0; k < json_object_array_length(insns); k++)
			fprintf(stderr, "  %s\n",
				json_object_get_string(json_object_array_get_idx(insns, k)));
}

static void write_stats(const struct app *app, const struct vm_report *report)
{
	const char *text;

	if (!app->stats_file || !report->stats)
		return;
	text = json_object_to_json_string_ext(report->stats, JSON_C_TO_STRING_PRETTY);
	if (!strcmp(app->stats_file, "-")) {
		printf("%s\n", text);
	} else {
		int ret = fd_write_file_atomic(AT_FDCWD, app->stats_file, text, strlen(text), 0644);

		if (ret)
			log_error("%s: %s", app->stats_file, strerror(-ret));
	}
}

/* The end: console first, so that whoever hears of the end has seen all output. */
static void finish(struct app *app)
{
	struct vm_report report = {0};

	vm_query(app->vm, &report);
	console_flush(app->console, FLUSH_MS);
	if (app->report_fd >= 0)
		vm_report_write(app->report_fd, &report);
	if (app->control) {
		vm_control_tell(app->control, &report);
		vm_control_flush(app->control, FLUSH_MS);
	} else if (report.reason != VM_REASON_POWEROFF) {
		log_error("%s: %s", vm_reason_names[report.reason], report.message);
		print_detail(&report);
	}
	write_stats(app, &report);
	app->status = vm_report_status(&report);
	vm_report_finish(&report);
	event_base_loopbreak(app->base);
}

static void on_state(void *data)
{
	struct app *app = data;
	struct vm_report report = {0};

	if (!app->vm)
		return;
	if (vm_state(app->vm) == VM_ENDED) {
		finish(app);
	} else if (app->control) {
		vm_query(app->vm, &report);
		vm_control_tell(app->control, &report);
		vm_report_finish(&report);
	}
}

static const struct vm_ops vm_ops = {
	.console_output = on_output,
	.console_ready = on_ready,
	.state_changed = on_state,
};

/* ---- control
 * -------------------------------------------------------------------------------------- */

static int do_start(void *data, struct api_error *err)
{
	return vm_start(((struct app *)data)->vm, err);
}

static int do_powerdown(void *data, struct api_error *err)
{
	return vm_powerdown(((struct app *)data)->vm, err);
}

/* A vCPU that waits for a reader of the console must not hold up the end. */
static int end_machine(struct app *app, enum vm_reason reason, struct api_error *err)
{
	console_unblock(app->console);
	return vm_end(app->vm, reason, err);
}

static int do_end(void *data, enum vm_reason reason, struct api_error *err)
{
	return end_machine(data, reason, err);
}

static void do_query(void *data, struct vm_report *report)
{
	vm_query(((struct app *)data)->vm, report);
}

static int do_attach_console(void *data, int fd, struct api_error *err)
{
	struct app *app = data;
	int ret = console_attach(app->console, fd, fd);

	if (ret) {
		close(fd);
		return api_error_set(err, ret == -EBUSY ? API_KIND_LIMIT : API_KIND_IO,
				     "console: %s", strerror(-ret));
	}
	return 0;
}

static void *machine_of(void *data)
{
	return ((struct app *)data)->vm;
}

static const struct vm_control_ops control_ops = {
	.start = do_start,
	.powerdown = do_powerdown,
	.end = do_end,
	.query = do_query,
	.attach_console = do_attach_console,
	.machine = &vm_machine_ops,
	.machine_data = machine_of,
};

static size_t on_input(void *data, const void *bytes, size_t len)
{
	struct app *app = data;

	return app->vm ? vm_console_input(app->vm, bytes, len) : len;
}

static const struct console_ops console_ops = {
	.input = on_input,
};

/* ---- start
 * ------------------------------------------------------------------------------------------ */

struct options {
	const char *config;
	int control, config_fd, console_log, report;
};

static void usage(FILE *out)
{
	fputs("umbra-vm --config FILE [--stats FILE|-]\n"
	      "umbra-vm --control FD --config-fd FD [--console-log FD] [--report FD] [--name "
	      "NAME]\n"
	      "Run one machine: alone with its console on stdin and stdout, or for umbrad.\n"
	      "See umbra-vm(8) for the exit statuses.\n",
	      out);
}

static int parse_fd(const char *text, int *fd)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || end == text || n < 0 || n > 1 << 20 || fcntl((int)n, F_GETFD) < 0)
		return -EINVAL;
	*fd = (int)n;
	return 0;
}

/* 0: go on; otherwise the exit status + 1. */
static int parse(struct app *app, struct options *o, int argc, char **argv)
{
	static const struct option longopts[] = {
		{"config", required_argument, NULL, 'c'},
		{"control", required_argument, NULL, 's'},
		{"config-fd", required_argument, NULL, 'f'},
		{"console-log", required_argument, NULL, 'l'},
		{"report", required_argument, NULL, 'r'},
		{"name", required_argument, NULL, 'n'},
		{"stats", required_argument, NULL, 'S'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	int opt, bad = 0;

	while ((opt = getopt_long(argc, argv, "c:hV", longopts, NULL)) != -1) {
		switch (opt) {
		case 'c': o->config = optarg; break;
		case 's': bad |= parse_fd(optarg, &o->control); break;
		case 'f': bad |= parse_fd(optarg, &o->config_fd); break;
		case 'l': bad |= parse_fd(optarg, &o->console_log); break;
		case 'r': bad |= parse_fd(optarg, &o->report); break;
		case 'n': break; /* for ps to show */
		case 'S': app->stats_file = optarg; break;
		case 'h': usage(stdout); return 1;
		case 'V': printf("umbra-vm %s\n", UMBRA_VERSION); return 1;
		default: bad = 1;
		}
	}
	if (bad || optind != argc || !o->config == (o->config_fd < 0) ||
	    (o->config_fd >= 0 && o->control < 0)) {
		usage(stderr);
		return VM_STATUS_USAGE + 1;
	}
	return 0;
}

static int read_config(struct app *app, const struct options *o, struct api_error *err)
{
	int ret;

	if (!o->config)
		return vm_config_read(&app->config, o->config_fd, err);
	machine_files_init(&app->config.files);
	ret = machine_def_load(&app->config.def, o->config, "machine", err);
	if (ret)
		return ret;
	ret = machine_files_open(&app->config.files, &app->config.def, err);
	if (ret)
		machine_def_finish(&app->config.def);
	return ret;
}

static int console_start(struct app *app, const struct options *o)
{
	int ret = console_create(&app->console, app->base, o->console_log, &console_ops, app);
	struct termios raw;

	if (ret || !o->config)
		return ret;
	if (isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &app->saved_tty)) {
		app->tty_saved = true;
		raw = app->saved_tty;
		cfmakeraw(&raw);
		raw.c_oflag |= OPOST;
		raw.c_lflag |= ISIG;
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	return console_attach(app->console, dup(STDIN_FILENO), dup(STDOUT_FILENO));
}

static void on_signal(evutil_socket_t sig, short what, void *data)
{
	struct api_error err;

	end_machine(data, VM_REASON_STOPPED, &err);
}

/* No machine came to be: say so where umbrad looks, and on stderr. Returns the exit status. */
static int refuse(const struct app *app, const struct api_error *err)
{
	struct vm_report report = {.state = VM_ENDED, .reason = VM_REASON_ENGINE};

	snprintf(report.message, sizeof(report.message), "%.255s", err->text);
	log_error("%s", report.message);
	/* A file of the guest's that cannot be opened is as bad as one that is no kernel. */
	if (err->kind == API_KIND_BAD_IMAGE ||
	    (err->kind != API_KIND_INVALID_PARAMS &&
	     (!strcmp(err->field, "kernel") || !strcmp(err->field, "initrd") ||
	      !strcmp(err->field, "module"))))
		report.reason = VM_REASON_BAD_IMAGE;
	if (app->report_fd >= 0)
		vm_report_write(app->report_fd, &report);
	switch (err->kind) {
	case API_KIND_INVALID_PARAMS:
	case API_KIND_PARSE: return VM_STATUS_USAGE;
	case API_KIND_NOT_FOUND:
	case API_KIND_DENIED:
	case API_KIND_IO: return *err->field ? vm_report_status(&report) : VM_STATUS_USAGE;
	default: return vm_report_status(&report);
	}
}

/* Alone it starts at once; a start that fails has ended the machine, and finish() told why. */
static int begin(struct app *app, const struct options *o, struct api_error *err)
{
	int ret;

	app->status = VM_STATUS_INTERNAL;
	if (o->config) {
		vm_start(app->vm, err);
		return 0;
	}
	ret = vm_control_create(&app->control, app->base, o->control, &control_ops, app);
	return ret ? api_error_set(err, API_KIND_INTERNAL, "control socket: %s", strerror(-ret))
		   : 0;
}

static void free_event(struct event *ev)
{
	if (ev)
		event_free(ev);
}

static int run(struct app *app, const struct options *o)
{
	struct api_error err = {0};
	struct event *term = NULL, *intr = NULL;

	if (vm_create(&app->vm, app->base, &app->config.def, &app->config.files, &vm_ops, app,
		      &err))
		return refuse(app, &err);
	term = evsignal_new(app->base, SIGTERM, on_signal, app);
	intr = evsignal_new(app->base, SIGINT, on_signal, app);
	if (!term || !intr || event_add(term, NULL) || (o->config && event_add(intr, NULL)))
		api_error_set(&err, API_KIND_INTERNAL, "signals cannot be watched");
	else
		begin(app, o, &err);
	if (vm_state(app->vm) != VM_ENDED) {
		if (err.kind)
			app->status = refuse(app, &err);
		else
			event_base_dispatch(app->base);
	}
	console_unblock(app->console);
	vm_control_destroy(app->control);
	vm_destroy(app->vm);
	app->vm = NULL;
	free_event(term);
	free_event(intr);
	return app->status;
}

int main(int argc, char **argv)
{
	struct options o = {.control = -1, .config_fd = -1, .console_log = -1, .report = -1};
	struct app app = {.report_fd = -1};
	struct api_error err = {0};
	int ret = parse(&app, &o, argc, argv);

	if (ret)
		return ret - 1;
	log_setup("umbra-vm", LOG_LEVEL_INFO, false);
	signal(SIGPIPE, SIG_IGN);
	app.report_fd = o.report;
	if (read_config(&app, &o, &err))
		return refuse(&app, &err);
	evthread_use_pthreads();
	app.base = event_base_new();
	if (!app.base || (ret = console_start(&app, &o))) {
		log_error("console: %s", strerror(app.base ? -ret : ENOMEM));
		ret = VM_STATUS_INTERNAL;
	} else {
		ret = run(&app, &o);
	}
	console_destroy(app.console);
	if (app.tty_saved)
		tcsetattr(STDIN_FILENO, TCSANOW, &app.saved_tty);
	if (app.base)
		event_base_free(app.base);
	vm_config_finish(&app.config);
	libevent_global_shutdown();
	return ret;
}
