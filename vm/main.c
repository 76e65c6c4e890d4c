/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbra-vm: one machine, for umbrad (--control ...) or alone (--config FILE). */
#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <fcntl.h>
#include <getopt.h>
#include <json-c/json.h>
#include <openssl/crypto.h>
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
#include "vm/sandbox.h"
#include "vm/vm.h"
#include "vm/vm_api.h"

#define FLUSH_MS  2000
#define REFUSAL_S 10 /* for the start to be asked for */
/* For umbrad: logs and report are far smaller, and umbrad trims the log that has no bound. */
#define FILE_MAX MIB(64)

struct app {
	struct event_base *base;
	struct vm *vm;
	struct console *console;
	struct vm_control *control; /* NULL when alone */
	struct vm_config config;
	int report_fd;
	int stats_fd; /* opened before the sandbox; -1: none */
	struct sandbox_config sandbox;
	struct api_error refusal; /* why no machine came to be, for who asks for its start */
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
	int ret;

	if (app->stats_fd < 0 || !report->stats)
		return;
	text = json_object_to_json_string_ext(report->stats, JSON_C_TO_STRING_PRETTY);
	ret = fd_write_full(app->stats_fd, text, strlen(text));
	if (!ret)
		ret = fd_write_full(app->stats_fd, "\n", 1);
	if (ret)
		log_error("the statistics: %s", strerror(-ret));
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

static int on_vcpu_thread(void *data)
{
	return sandbox_thread(SANDBOX_VCPU);
}

static const struct vm_ops vm_ops = {
	.console_output = on_output,
	.console_ready = on_ready,
	.state_changed = on_state,
	.vcpu_thread = on_vcpu_thread,
};

/* ---- control
 * -------------------------------------------------------------------------------------- */

/* There is no machine: who asks for its start is told why, and that is all. */
static int do_refuse(void *data, struct api_error *err)
{
	struct app *app = data;

	*err = app->refusal;
	event_base_loopexit(app->base, NULL);
	return -EOPNOTSUPP;
}

static int do_refuse_end(void *data, enum vm_reason reason, struct api_error *err)
{
	event_base_loopexit(((struct app *)data)->base, NULL);
	return 0;
}

static int do_refuse_console(void *data, int fd, struct api_error *err)
{
	close(fd);
	*err = ((struct app *)data)->refusal;
	return -EOPNOTSUPP;
}

static void do_query_none(void *data, struct vm_report *report)
{
}

static const struct vm_control_ops refusing_ops = {
	.start = do_refuse,
	.powerdown = do_refuse,
	.end = do_refuse_end,
	.query = do_query_none,
	.attach_console = do_refuse_console,
};

static int do_start(void *data, struct api_error *err)
{
	struct app *app = data;

	if (!app->refusal.kind)
		return vm_start(app->vm, err);
	return do_refuse(data, err);
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

static struct json_object *do_sandbox(void *data)
{
	return sandbox_to_json();
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
	.sandbox = do_sandbox,
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
	const char *config, *stats, *probe;
	int kvm_use; /* enum machine_kvm_use; alone only: umbrad tells it with the files */
	int control, config_fd, console_log, report;
	int sandbox; /* enum machine_sandbox in place of the definition's; -1: its own */
	bool list_calls, do_probe;
};

static void usage(FILE *out)
{
	fputs("umbra-vm --config FILE [--stats FILE|-]\n"
	      "umbra-vm --control FD --config-fd FD [--console-log FD] [--report FD] [--name "
	      "NAME]\n"
	      "Run one machine: alone with its console on stdin and stdout, or for umbrad. Both\n"
	      "with [--sandbox auto|strict|off] and, for root, [--uid N --gid N]. Alone with\n"
	      "[--kvm hardware|always|never], as in umbrad.conf.\n"
	      "umbra-vm --sandbox-list     the system calls that it may make, and why\n"
	      "umbra-vm --sandbox-probe[=ATTEMPT]     try those that it may not\n"
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

static int parse_word(const char *text, const char *const *names, int *word)
{
	for (int k = 0; names[k]; k++) {
		if (!strcmp(names[k], text)) {
			*word = k;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_id(const char *text, unsigned *id)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || end == text || !n || n >= UINT32_MAX)
		return -EINVAL;
	*id = (unsigned)n;
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
		{"sandbox", required_argument, NULL, 'b'},
		{"kvm", required_argument, NULL, 'k'},
		{"uid", required_argument, NULL, 'u'},
		{"gid", required_argument, NULL, 'g'},
		{"sandbox-list", no_argument, NULL, 'L'},
		{"sandbox-probe", optional_argument, NULL, 'P'},
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
		case 'S': o->stats = optarg; break;
		case 'b': bad |= parse_word(optarg, machine_sandbox_names, &o->sandbox); break;
		case 'k': bad |= parse_word(optarg, machine_kvm_use_names, &o->kvm_use); break;
		case 'u': bad |= parse_id(optarg, &app->sandbox.uid); break;
		case 'g': bad |= parse_id(optarg, &app->sandbox.gid); break;
		case 'L': o->list_calls = true; break;
		case 'P':
			o->do_probe = true;
			o->probe = optarg;
			break;
		case 'h': usage(stdout); return 1;
		case 'V': printf("umbra-vm %s\n", UMBRA_VERSION); return 1;
		default: bad = 1;
		}
	}
	if (!bad && optind == argc && (o->list_calls || o->do_probe))
		return 0;
	if (bad || optind != argc || !o->config == (o->config_fd < 0) ||
	    (o->config_fd >= 0 && o->control < 0) || (o->kvm_use && !o->config) ||
	    (app->sandbox.uid == (uid_t)-1) != (app->sandbox.gid == (gid_t)-1)) {
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
	app->config.files.kvm_use = o->kvm_use;
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

/* What is written at the end is opened now. 0 or -errno. */
static int open_stats(struct app *app, const char *path)
{
	if (!path)
		return 0;
	app->stats_fd = !strcmp(path, "-")
				? dup(STDOUT_FILENO)
				: open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (app->stats_fd >= 0)
		return 0;
	log_error("%s: %s", path, strerror(errno));
	return -errno;
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

/*
 * From here on nothing is opened, and no thread is made. Nothing of a client's or of the guest's
 * has been read, but the definition, which its owner wrote.
 */
static int lock_up(struct app *app, struct api_error *err)
{
	struct machine_files *files = &app->config.files;
	char text[512];
	int ret;

	app->sandbox.kvm = vm_may_kvm(app->vm);
	if (!app->sandbox.kvm && files->kvm >= 0)
		close(TAKE_FD(files->kvm));
	/* The loop, a thread a vCPU, and what the kernel makes for a VM (sandbox.h). */
	app->sandbox.tasks = (unsigned)app->config.def.cpus + 3;
	ret = sandbox_enter(&app->sandbox, err);
	if (ret)
		return ret;
	/* Alone, stderr is for what the user must hear; umbrad keeps a log. */
	if (sandbox_missing(text, sizeof(text)))
		log_msg(app->control ? LOG_LEVEL_WARNING : LOG_LEVEL_DEBUG,
			"not in the sandbox: %s", text);
	ret = vm_make_threads(app->vm, err);
	if (ret)
		return ret;
	ret = sandbox_thread(SANDBOX_LOOP);
	return ret ? api_error_set(err, API_KIND_INTERNAL, "sandbox: %s", strerror(-ret)) : 0;
}

/* Alone it starts at once; a start that fails has ended the machine, and finish() told why. Else
 * whoever asks for the start is told why there is none. */
static int begin(struct app *app, const struct options *o, struct api_error *err)
{
	int ret;

	app->status = VM_STATUS_INTERNAL;
	if (!o->config) {
		ret = vm_control_create(&app->control, app->base, o->control, &control_ops, app);
		if (ret)
			return api_error_set(err, API_KIND_INTERNAL, "control socket: %s",
					     strerror(-ret));
	}
	ret = lock_up(app, o->config ? err : &app->refusal);
	if (o->config)
		return ret ? ret : (vm_start(app->vm, err), 0);
	if (ret)
		app->status = refuse(app, &app->refusal);
	return 0;
}

static void free_event(struct event *ev)
{
	if (ev)
		event_free(ev);
}

/*
 * No machine came to be. Whoever asks for its start hears the error itself, with kind and field;
 * when nobody does, the report has its text.
 */
static int run_refused(struct app *app, const struct options *o, const struct api_error *err)
{
	int status = refuse(app, err);

	app->refusal = *err;
	if (o->config ||
	    vm_control_create(&app->control, app->base, o->control, &refusing_ops, app))
		return status;
	event_base_loopexit(app->base, &(struct timeval){.tv_sec = REFUSAL_S});
	event_base_dispatch(app->base);
	vm_control_flush(app->control, FLUSH_MS);
	vm_control_destroy(app->control);
	return status;
}

static int run(struct app *app, const struct options *o)
{
	struct api_error err = {0};
	struct event *term = NULL, *intr = NULL;
	int ret;

	if (vm_create(&app->vm, app->base, &app->config.def, &app->config.files, &vm_ops, app,
		      &err))
		return run_refused(app, o, &err);
	term = evsignal_new(app->base, SIGTERM, on_signal, app);
	intr = evsignal_new(app->base, SIGINT, on_signal, app);
	if (!term || !intr || event_add(term, NULL) || (o->config && event_add(intr, NULL)))
		ret = api_error_set(&err, API_KIND_INTERNAL, "signals cannot be watched");
	else
		ret = begin(app, o, &err);
	if (ret)
		app->status = refuse(app, &err);
	else if (vm_state(app->vm) != VM_ENDED)
		event_base_dispatch(app->base);
	if (app->refusal.kind)
		vm_control_flush(app->control, FLUSH_MS);
	if (sandbox_violations())
		log_warn("the sandbox refused %llu calls",
			 (unsigned long long)sandbox_violations());
	console_unblock(app->console);
	vm_control_destroy(app->control);
	vm_destroy(app->vm);
	app->vm = NULL;
	free_event(term);
	free_event(intr);
	return app->status;
}

static int probe(struct app *app, const struct options *o)
{
	app->sandbox.mode =
		o->sandbox == MACHINE_SANDBOX_STRICT ? o->sandbox : MACHINE_SANDBOX_AUTO;
	return sandbox_probe(&app->sandbox, o->probe, stdout) ? 1 : 0;
}

static void set_sandbox(struct app *app, const struct options *o)
{
	app->sandbox.mode = o->sandbox >= 0 ? o->sandbox : app->config.def.sandbox;
	app->sandbox.core = app->config.def.core;
	app->sandbox.file_bytes = o->config ? 0 : FILE_MAX;
	/* It would look for its configuration file when it is first used. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
}

int main(int argc, char **argv)
{
	struct options o = {
		.control = -1, .config_fd = -1, .console_log = -1, .report = -1, .sandbox = -1};
	struct app app = {.report_fd = -1, .stats_fd = -1, .sandbox = {.uid = -1u, .gid = -1u}};
	struct api_error err = {0};
	int ret = parse(&app, &o, argc, argv);

	if (ret)
		return ret - 1;
	log_setup("umbra-vm", LOG_LEVEL_INFO, false);
	if (o.list_calls) {
		sandbox_list(stdout);
		return 0;
	}
	if (o.do_probe)
		return probe(&app, &o);
	signal(SIGPIPE, SIG_IGN);
	app.report_fd = o.report;
	if (read_config(&app, &o, &err))
		return refuse(&app, &err);
	set_sandbox(&app, &o);
	evthread_use_pthreads();
	app.base = event_base_new();
	ret = app.base ? open_stats(&app, o.stats) : -ENOMEM;
	if (ret || (ret = console_start(&app, &o))) {
		log_error("console: %s", strerror(-ret));
		ret = VM_STATUS_INTERNAL;
	} else {
		ret = run(&app, &o);
	}
	console_destroy(app.console);
	if (app.tty_saved)
		tcsetattr(STDIN_FILENO, TCSANOW, &app.saved_tty);
	if (app.base)
		event_base_free(app.base);
	cleanup_close(&app.stats_fd);
	vm_config_finish(&app.config);
	libevent_global_shutdown();
	return ret;
}
