/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A umbra-vm without a machine in it, for the tests of the control plane. What it plays is told by
 * words in the definition's command line:
 *
 *	fake=echo      (default) say hello, echo the console's input; "quit" ends it
 *	fake=REASON    say hello, end with that vm_reason (debug-exit with code=N)
 *	fake=die       say hello, abort
 *	fake=spin      say hello, never look at the control socket again
 *	fake=refuse    refuse vm.start as a bad image
 *	fake=never     never answer vm.start
 *	flood=N        N bytes of console output first
 *	deaf           the power button does nothing
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/console.h"
#include "api/server.h"
#include "api/vm_control.h"

struct fake {
	struct event_base *base;
	struct vm_control *control;
	struct console *console;
	struct vm_config config;
	struct vm_report report;
	int report_fd;
	uint64_t in_bytes;
	pthread_t guest;
	bool guest_started;
	int end_fd;	   /* an eventfd: libevent's own calls are for the loop's thread */
	struct event *end; /* it is readable */
};

static const char *word(const struct fake *f, const char *key)
{
	static char value[64];
	const char *s = f->config.def.cmdline ? strstr(f->config.def.cmdline, key) : NULL;

	if (!s)
		return NULL;
	snprintf(value, sizeof(value), "%.*s", (int)strcspn(s + strlen(key), " "), s + strlen(key));
	return value;
}

static void ended(struct fake *f)
{
	if (f->guest_started) {
		console_unblock(f->console);
		pthread_join(f->guest, NULL);
	}
	f->report.state = VM_ENDED;
	if (f->report.reason == VM_REASON_CRASH) {
		struct json_object *regs = json_object_new_object(),
				   *code = json_object_new_array();

		f->report.detail = json_object_new_object();
		json_object_object_add(regs, "rip", json_object_new_string("0x0000000000100000"));
		json_object_array_add(code, json_object_new_string("0x100000: ud2"));
		json_object_object_add(f->report.detail, "registers", regs);
		json_object_object_add(f->report.detail, "instructions", code);
		snprintf(f->report.message, sizeof(f->report.message), "triple fault");
	}
	f->report.stats = json_object_new_object();
	json_object_object_add(f->report.stats, "console_in",
			       json_object_new_int64((int64_t)f->in_bytes));
	console_flush(f->console, 5000);
	vm_report_write(f->report_fd, &f->report);
	vm_control_tell(f->control, &f->report);
	vm_control_flush(f->control, 1000);
	exit(vm_report_status(&f->report));
}

static void request_end(struct fake *f)
{
	const uint64_t one = 1;

	if (write(f->end_fd, &one, sizeof(one)) < 0)
		abort();
}

static void on_end(evutil_socket_t fd, short what, void *arg)
{
	ended(arg);
}

/* Plays the vCPU: what it says comes from another thread than the loop's. */
static void *guest(void *arg)
{
	static const char hello[] = "fake: hello\r\n";
	struct fake *f = arg;
	const char *flood = word(f, "flood="), *play;
	char block[4096];

	if (flood) {
		long long n = atoll(flood);

		for (size_t i = 0; i < sizeof(block); i++)
			block[i] = (char)(i & 255);
		for (; n > 0; n -= (long long)sizeof(block))
			console_write(f->console, block, (size_t)MIN(n, (long long)sizeof(block)));
	}
	console_write(f->console, hello, sizeof(hello) - 1);
	play = word(f, "fake=");
	if (!play || !strcmp(play, "echo") || !strcmp(play, "spin"))
		return NULL;
	if (!strcmp(play, "die"))
		abort();
	for (int i = 0; vm_reason_names[i]; i++)
		if (!strcmp(play, vm_reason_names[i]))
			f->report.reason = (enum vm_reason)i;
	if (f->report.reason == VM_REASON_DEBUG_EXIT)
		f->report.code = atoi(word(f, "code="));
	request_end(f);
	return NULL;
}

static void tell(struct fake *f, enum vm_state state)
{
	f->report.state = state;
	vm_control_tell(f->control, &f->report);
}

static void on_spin(evutil_socket_t fd, short what, void *arg)
{
	for (;;)
		pause();
}

static int fake_start(void *data, struct api_error *err)
{
	const struct timeval soon = {.tv_usec = 50000};
	struct fake *f = data;
	const char *play = word(f, "fake=");

	if (play && !strcmp(play, "refuse"))
		return api_error_set(err, API_KIND_BAD_IMAGE, "%s is not a kernel",
				     f->config.def.kernel);
	if (play && !strcmp(play, "never"))
		on_spin(-1, 0, NULL);
	tell(f, VM_RUNNING);
	if (play && !strcmp(play, "spin"))
		event_base_once(f->base, -1, EV_TIMEOUT, on_spin, f, &soon);
	f->guest_started = pthread_create(&f->guest, NULL, guest, f) == 0;
	return f->guest_started ? 0 : -EAGAIN;
}

static void fake_pause(struct api_call *call)
{
	tell(api_call_data(call), VM_PAUSED);
	api_call_reply(call, NULL, -1);
}

static void fake_resume(struct api_call *call)
{
	tell(api_call_data(call), VM_RUNNING);
	api_call_reply(call, NULL, -1);
}

static void fake_reset(struct api_call *call)
{
	struct fake *f = api_call_data(call);

	console_write(f->console, "fake: reset\r\n", 13);
	api_call_reply(call, NULL, -1);
}

static int fake_powerdown(void *data, struct api_error *err)
{
	const struct timeval soon = {.tv_usec = 100000};
	struct fake *f = data;

	if (f->config.def.cmdline && strstr(f->config.def.cmdline, "deaf"))
		return 0;
	tell(f, VM_STOPPING);
	f->report.reason = VM_REASON_POWEROFF;
	event_base_once(f->base, -1, EV_TIMEOUT, on_end, f, &soon);
	return 0;
}

static int fake_end(void *data, enum vm_reason reason, struct api_error *err)
{
	struct fake *f = data;

	console_unblock(f->console);
	f->report.reason = reason;
	request_end(f);
	return 0;
}

static void fake_query(void *data, struct vm_report *report)
{
	const struct fake *f = data;

	*report = f->report;
	report->detail = json_object_get(f->report.detail);
	report->stats = json_object_get(f->report.stats);
}

/* Counters as a guest that has taken over its process might tell them. */
static void fake_mmu_stat(struct api_call *call)
{
	static const char text[] =
		"{\"policy\":\"tdp\",\"time\":1,\"schema\":["
		"{\"name\":\"pf_taken\",\"type\":\"cumulative\",\"unit\":\"none\",\"of\":\"vcpu\"},"
		"{\"name\":\"mmu_pages\",\"type\":\"instant\",\"unit\":\"none\",\"of\":\"vm\"},"
		"{\"name\":\"mmu_pages\",\"type\":\"instant\",\"unit\":\"none\",\"of\":\"vm\"},"
		"{\"name\":\"machines\",\"type\":\"instant\",\"of\":\"vm\"},"
		"{\"name\":\"y_total\",\"type\":\"instant\",\"of\":\"vm\"},"
		"{\"name\":\"x 1\\n# EOF\",\"type\":\"instant\",\"of\":\"vm\"},7],"
		"\"vm\":{\"mmu_pages\":7,\"x 1\\n# "
		"EOF\":1,\"machines\":9,\"y_total\":9},\"vcpus\":["
		"{\"pf_taken\":5,\"exits\":{\"ept \\\"violation\\\"\\\\\\n\":3}},[]]}";

	api_call_reply(call, json_tokener_parse(text), -1);
}

static void fake_stats(struct api_call *call)
{
	struct fake *f = api_call_data(call);
	struct json_object *stats = json_object_new_object();

	json_object_object_add(stats, "console_in", json_object_new_int64((int64_t)f->in_bytes));
	api_call_reply(call, stats, -1);
}

static int fake_attach(void *data, int fd, struct api_error *err)
{
	struct fake *f = data;
	int ret = console_attach(f->console, fd, fd);

	if (ret)
		close(fd);
	return ret;
}

static const struct api_machine_ops machine_ops = {
	.machine_pause = fake_pause,
	.machine_resume = fake_resume,
	.machine_reset = fake_reset,
	.machine_stats = fake_stats,
	.mmu_stat = fake_mmu_stat,
};

static const struct vm_control_ops ops = {
	.start = fake_start,
	.powerdown = fake_powerdown,
	.end = fake_end,
	.query = fake_query,
	.attach_console = fake_attach,
	.machine = &machine_ops,
};

static size_t on_input(void *data, const void *bytes, size_t len)
{
	struct fake *f = data;

	f->in_bytes += len;
	console_write(f->console, bytes, len);
	if (memmem(bytes, len, "quit", 4)) {
		f->report.reason = VM_REASON_POWEROFF;
		request_end(f);
	}
	return len;
}

static const struct console_ops console_ops = {.input = on_input};

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"control", required_argument, NULL, 'c'},
		{"config-fd", required_argument, NULL, 'f'},
		{"console-log", required_argument, NULL, 'l'},
		{"report", required_argument, NULL, 'r'},
		{"name", required_argument, NULL, 'n'},
		{0},
	};
	int c, control = -1, config = -1, log = -1;
	struct fake f = {.report_fd = -1};
	struct api_error err;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'c': control = atoi(optarg); break;
		case 'f': config = atoi(optarg); break;
		case 'l': log = atoi(optarg); break;
		case 'r': f.report_fd = atoi(optarg); break;
		case 'n': break;
		default: return 64;
		}
	}
	if (vm_config_read(&f.config, config, &err)) {
		fprintf(stderr, "fake-vm: %s\n", err.text);
		return VM_STATUS_USAGE;
	}
	fprintf(stderr, "fake-vm: %s, kernel fd %d\n", f.config.def.name, f.config.files.kernel);
	f.base = event_base_new();
	f.end_fd = eventfd(0, EFD_CLOEXEC);
	f.end = f.base ? event_new(f.base, f.end_fd, EV_READ, on_end, &f) : NULL;
	if (!f.end || event_add(f.end, NULL) ||
	    console_create(&f.console, f.base, log, &console_ops, &f) ||
	    vm_control_create(&f.control, f.base, control, &ops, &f))
		return VM_STATUS_INTERNAL;
	event_base_dispatch(f.base);
	return VM_STATUS_INTERNAL;
}
