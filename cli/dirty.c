/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl dirty: which pages a guest writes, how fast, and where. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "api/base64.h"
#include "base/bitmap.h"
#include "cli/heat.h"
#include "cli/vmctl.h"

static const struct api_field get_fields[] = {
	{.name = "clear",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "take what is told off the log"},
};
const struct api_fields dirty_get_options = API_FIELDS("the options", get_fields);

#define FIELD_INTERVAL(dflt_)                                                                      \
	{                                                                                          \
		.name = "interval", .type = API_NUMBER, .min = 0, .max = 86400, .dflt = (dflt_),   \
		.help = "of one measurement"                                                       \
	}

static const struct api_field rate_fields[] = {
	FIELD_INTERVAL("1"),
	{.name = "watch", .type = API_BOOL, .dflt = "false", .help = "go on until interrupted"},
};
const struct api_fields dirty_rate_options = API_FIELDS("the options", rate_fields);

static const struct api_field heat_fields[] = {
	FIELD_INTERVAL("0.5"),
	{.name = "rounds",
	 .type = API_INT,
	 .min = 1,
	 .max = 1000000,
	 .dflt = "10",
	 .help = "measurements; an interrupt ends them early"},
	{.name = "png", .type = API_PATH, .help = "write the picture there, too"},
};
const struct api_fields dirty_heat_options = API_FIELDS("the options", heat_fields);

static uint64_t addr_of(struct json_object *obj, const char *name)
{
	return strtoull(string_of(obj, name, "0"), NULL, 0);
}

/* ---- several calls on one connection ---- */

struct session {
	struct args *args;
	struct api_client *client;
	bool own;      /* the log was begun here, and is ended here */
	char name[32]; /* the log's */
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	interrupted = 1;
}

/* 0, or the exit status; the error is told. @params (NULL: the machine and the log) is taken. */
static int session_call(struct session *s, const char *method, struct json_object *params,
			struct api_reply *reply)
{
	*reply = (struct api_reply){.fd = -1};
	if (!params)
		params = json_object_new_object();
	json_object_object_add(params, "name", json_object_get(object_of(s->args->params, "name")));
	json_object_object_add(params, "client", json_object_new_string(s->name));
	if (!api_client_call(s->client, method, params, 0, reply))
		return 0;
	return fail(s->args, &reply->err);
}

static int session_connect(struct session *s, struct args *args)
{
	struct api_error err;

	*s = (struct session){.args = args};
	snprintf(s->name, sizeof(s->name), "%s", string_of(args->params, "client", "api"));
	return connect_umbrad(&s->client, NULL, true, &err) ? fail(args, &err) : 0;
}

/* With a log of its own, unless one is named. It is ended when we are interrupted, too. */
static int session_begin(struct session *s, struct args *args, const char *prefix)
{
	struct sigaction act = {.sa_handler = on_interrupt};
	struct api_reply reply;
	int status = session_connect(s, args);

	if (status || object_of(args->params, "client"))
		return status;
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	snprintf(s->name, sizeof(s->name), "%s-%d", prefix, (int)getpid());
	status = session_call(s, "dirty.start", NULL, &reply);
	s->own = !status;
	api_reply_finish(&reply);
	return status;
}

static void session_end(struct session *s)
{
	struct api_reply reply = {.fd = -1};
	struct json_object *params;

	if (s->own) {
		/* A machine that has ended took the log with it: nothing to tell. */
		params = json_object_new_object();
		json_object_object_add(params, "name",
				       json_object_get(object_of(s->args->params, "name")));
		json_object_object_add(params, "client", json_object_new_string(s->name));
		api_client_call(s->client, "dirty.stop", params, 0, &reply);
		api_reply_finish(&reply);
	}
	api_client_destroy(s->client);
}

/* The time of one measurement; an interrupt cuts it short. */
static void let_pass(double seconds)
{
	struct timespec t = {.tv_sec = (time_t)seconds};

	t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
	while (!interrupted && nanosleep(&t, &t) && errno == EINTR)
		;
}

/* ---- start, list, clear ---- */

static void show_started(struct json_object *result)
{
	printf("logging %" PRId64 " pages for \"%s\", noticed by %s\n", int_of(result, "pages", 0),
	       string_of(result, "client", "?"),
	       strcmp(string_of(result, "notice", ""), "pml") ? "write protection"
							      : "the processor's log (PML)");
}

int verb_dirty_start(struct args *args)
{
	return call_and_show(args, show_started);
}

static void print_client(struct json_object *c)
{
	const char *note = "";

	if (json_object_get_boolean(object_of(c, "ring_lost")))
		note = "  lost its rings: it let vCPUs wait for too long";
	else if (!json_object_get_boolean(object_of(c, "own")))
		note = "  the machine's own";
	printf("%-31s  %12" PRId64 "  %6" PRId64 "%s\n", string_of(c, "client", "?"),
	       int_of(c, "dirty", 0), int_of(c, "ring", 0), note);
}

static void show_clients(struct json_object *result)
{
	struct json_object *all = object_of(result, "clients");

	printf("writes are noticed by %s\n", string_of(result, "notice", "?"));
	printf("%-31s  %12s  %6s\n", "CLIENT", "DIRTY PAGES", "RING");
	for (size_t i = 0; all && i < json_object_array_length(all); i++)
		print_client(json_object_array_get_idx(all, i));
}

int verb_dirty_list(struct args *args)
{
	return call_and_show(args, show_clients);
}

static void show_cleared(struct json_object *result)
{
	printf("%" PRId64 " pages cleared\n", int_of(result, "cleared", 0));
}

int verb_dirty_clear(struct args *args)
{
	return call_and_show(args, show_cleared);
}

/* ---- get ---- */

static void add_range(struct json_object *all, uint64_t gpa, uint64_t pages)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "gpa", api_addr_new(gpa));
	json_object_object_add(o, "pages", json_object_new_uint64(pages));
	json_object_array_add(all, o);
}

/* What a bitmap says, as ranges. */
static void add_bitmap(struct json_object *all, struct json_object *result)
{
	uint64_t gpa = addr_of(result, "gpa"), *bits, npages;
	size_t len;
	void *bytes = base64_decode(string_of(result, "bitmap", ""), &len);

	if (!bytes)
		return;
	npages = MIN((uint64_t)int_of(result, "pages", 0), 8 * (uint64_t)len);
	bits = calloc(BITMAP_WORDS(npages) + 1, 8);
	if (bits)
		memcpy(bits, bytes, (npages + 7) / 8);
	for (uint64_t i = bits ? bitmap_next(bits, npages, 0) : npages, end; i < npages;
	     i = bitmap_next(bits, npages, end)) {
		for (end = i; end < npages && bitmap_test(bits, end); end++)
			;
		add_range(all, gpa + (i << PAGE_SHIFT), end - i);
	}
	free(bits);
	free(bytes);
}

/* Exactly what was told, and nothing that was written since. */
static int clear_told(struct session *s, struct json_object *result)
{
	struct json_object *params;
	struct api_reply reply;
	int status;

	if (!object_of(result, "bitmap"))
		return 0;
	params = json_object_new_object();
	json_object_object_add(params, "from", json_object_get(object_of(result, "gpa")));
	json_object_object_add(params, "pages", json_object_get(object_of(result, "pages")));
	json_object_object_add(params, "bitmap", json_object_get(object_of(result, "bitmap")));
	status = session_call(s, "dirty.clear", params, &reply);
	api_reply_finish(&reply);
	return status;
}

/* One page of the answer; *@params becomes the next one's, or NULL at the end. */
static int get_some(struct session *s, bool clear, struct json_object **params,
		    struct json_object *all)
{
	struct json_object *list, *next;
	struct api_reply reply;
	int status;

	if (clear)
		json_object_object_add(*params, "format", json_object_new_string("bitmap"));
	status = session_call(s, "dirty.get", *params, &reply);
	*params = NULL;
	if (!status && clear) {
		add_bitmap(all, reply.result);
		status = clear_told(s, reply.result);
	}
	list = object_of(reply.result, "ranges");
	for (size_t i = 0; list && i < json_object_array_length(list); i++)
		json_object_array_add(all, json_object_get(json_object_array_get_idx(list, i)));
	next = object_of(reply.result, "next");
	if (!status && next) {
		*params = json_object_new_object();
		json_object_object_add(*params, "from", json_object_get(next));
	}
	api_reply_finish(&reply);
	return status;
}

static void print_ranges(struct json_object *all)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < json_object_array_length(all); i++) {
		struct json_object *r = json_object_array_get_idx(all, i);
		uint64_t gpa = addr_of(r, "gpa"), n = (uint64_t)int_of(r, "pages", 0);

		printf("0x%012" PRIx64 "  0x%012" PRIx64 "  %8" PRIu64 " %s\n", gpa,
		       gpa + (n << PAGE_SHIFT) - 1, n, n == 1 ? "page" : "pages");
		pages += n;
	}
	printf("%" PRIu64 " pages dirty, %.1f MiB\n", pages, (double)pages / 256);
}

int verb_dirty_get(struct args *args)
{
	bool clear = json_object_get_boolean(object_of(args->cli, "clear"));
	struct json_object *params = json_object_get(args->params), *all, *o;
	struct session s;
	int status = session_connect(&s, args);

	all = json_object_new_array();
	while (!status && params)
		status = get_some(&s, clear, &params, all);
	json_object_put(params);
	if (!status && args->json) {
		o = json_object_new_object();
		json_object_object_add(o, "ranges", json_object_get(all));
		print_json(o);
		json_object_put(o);
	} else if (!status) {
		print_ranges(all);
	}
	json_object_put(all);
	session_end(&s);
	return status;
}

/* ---- rate ---- */

static void print_rate(struct json_object *result)
{
	struct json_object *vcpus = object_of(result, "vcpus");
	double sum = 0;
	size_t n = vcpus ? json_object_array_length(vcpus) : 0;

	printf("%10.0f pages/s  %9.1f MiB/s", number_of(result, "pages_per_second", 0),
	       number_of(result, "mib_per_second", 0));
	for (size_t i = 0; i < n; i++)
		sum += json_object_get_double(json_object_array_get_idx(vcpus, i));
	for (size_t i = 0; i < n && sum > 0; i++)
		printf("  vCPU %zu: %.0f %%", i,
		       100 * json_object_get_double(json_object_array_get_idx(vcpus, i)) / sum);
	putchar('\n');
	fflush(stdout);
}

int verb_dirty_rate(struct args *args)
{
	bool watch = json_object_get_boolean(object_of(args->cli, "watch"));
	double interval = number_of(args->cli, "interval", 1);
	struct session s;
	int status = session_begin(&s, args, "rate");

	while (!status) {
		struct api_reply reply;

		let_pass(interval);
		status = session_call(&s, "dirty.rate", NULL, &reply);
		if (!status && args->json)
			print_json(reply.result);
		else if (!status)
			print_rate(reply.result);
		api_reply_finish(&reply);
		if (!watch || interrupted)
			break;
	}
	session_end(&s);
	return status;
}

/* ---- heat ---- */

static int heat_round(struct session *s, struct heat *heat, struct json_object **last)
{
	struct json_object *params = json_object_new_object();
	struct json_object *buckets = object_of(s->args->params, "buckets");
	struct api_reply reply;
	int status;

	json_object_object_add(params, "buckets",
			       buckets ? json_object_get(buckets)
				       : json_object_new_int(HEAT_BUCKETS));
	status = session_call(s, "dirty.heat", params, &reply);
	if (!status && heat_load(heat, reply.result))
		status = VM_STATUS_INTERNAL;
	if (!status) {
		json_object_put(*last);
		*last = json_object_get(reply.result);
	}
	api_reply_finish(&reply);
	return status;
}

static int heat_finish_verb(const struct args *args, const struct heat *heat,
			    struct json_object *last)
{
	const char *png = string_of(args->cli, "png", NULL);
	struct api_error err;

	if (args->json)
		print_json(last);
	else
		heat_print(heat, HEAT_LAST);
	if (png && heat_write_png(heat, png, &err))
		return fail(args, &err);
	return 0;
}

int verb_dirty_heat(struct args *args)
{
	double interval = number_of(args->cli, "interval", 0.5);
	int64_t rounds = int_of(args->cli, "rounds", 10);
	struct json_object *last = NULL;
	struct heat heat = {0};
	struct session s;
	int status = session_begin(&s, args, "heat");

	for (int64_t i = 0; !status && i < rounds && !interrupted; i++) {
		let_pass(interval);
		status = heat_round(&s, &heat, &last);
		if (!status && !args->json && i + 1 < rounds && !interrupted)
			heat_print(&heat, HEAT_MORE);
	}
	if (!status && last)
		status = heat_finish_verb(args, &heat, last);
	session_end(&s);
	json_object_put(last);
	heat_finish(&heat);
	return status;
}
