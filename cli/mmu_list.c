/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl mmu pages, map, stat, trace: what takes more than one call. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli/vmctl.h"

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

/* From now on SIGINT and SIGTERM only end the loop that looks at @interrupted. */
static void catch_signals(void)
{
	const struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGPIPE, &sa, NULL);
}

/* One more call on a connection. 0, or the exit status; the error is told. */
static int call_again(struct args *args, struct api_client *client, struct api_reply *reply)
{
	*reply = (struct api_reply){.fd = -1};
	if (api_client_call(client, args->verb->method, json_object_get(args->params), 0, reply))
		return fail(args, &reply->err);
	return 0;
}

static int begin(struct args *args, struct api_client **client)
{
	struct api_error err;

	return connect_umbrad(client, NULL, true, &err) ? fail(args, &err) : 0;
}

static void move_members(struct json_object *to, struct json_object *from)
{
	for (size_t i = 0; i < json_object_array_length(from); i++)
		json_object_array_add(to, json_object_get(json_object_array_get_idx(from, i)));
}

static void set_param(struct args *args, const char *name, struct json_object *v)
{
	json_object_object_add(args->params, name, v);
}

/* ---- pages ---- */

static void print_page(struct json_object *p)
{
	char role[160], state[64];
	struct json_object *slots = object_of(p, "slots");

	mmu_role_text(object_of(p, "role"), role, sizeof(role));
	snprintf(state, sizeof(state), "%s%s%s",
		 json_object_get_boolean(object_of(p, "invalid")) ? " invalid" : "",
		 json_object_get_boolean(object_of(p, "unsync")) ? " unsync" : "",
		 json_object_get_boolean(object_of(p, "frame")) ? " frame" : "");
	printf("%-16s %12s %5lld %7lld %7lld  %s%s%s%s\n", string_of(p, "hpa", "?"),
	       string_of(p, "gfn", "?"), (long long)int_of(p, "present", 0),
	       (long long)int_of(p, "parents", 0), (long long)int_of(p, "roots", 0), role, state,
	       json_object_array_length(slots) ? " slots " : "",
	       json_object_array_length(slots)
		       ? json_object_to_json_string_ext(slots, JSON_C_TO_STRING_PLAIN)
		       : "");
}

int verb_mmu_pages(struct args *args)
{
	struct json_object *all = json_object_new_array(), *whole = NULL;
	struct api_client *client = NULL;
	int status = begin(args, &client);
	int64_t next = 0, total = 0;
	bool unknown = false;
	size_t n = 0;

	if (!status && !args->json)
		printf("%-16s %12s %5s %7s %7s  %s\n", "TABLE", "GFN", "USED", "PARENTS", "ROOTS",
		       "ROLE");
	do {
		struct api_reply reply = {.fd = -1};
		struct json_object *pages;

		if (status || (status = call_again(args, client, &reply)))
			break;
		pages = object_of(reply.result, "pages");
		n += json_object_array_length(pages);
		if (args->json)
			move_members(all, pages);
		for (size_t i = 0; !args->json && i < json_object_array_length(pages); i++)
			print_page(json_object_array_get_idx(pages, i));
		next = int_of(reply.result, "next", 0);
		total = int_of(reply.result, "total", 0);
		unknown = !args->json && mmu_unknown(reply.result);
		set_param(args, "from", json_object_new_int64(next));
		api_reply_finish(&reply);
	} while (next);
	if (!status && args->json) {
		whole = json_object_new_object();
		json_object_object_add(whole, "pages", json_object_get(all));
		json_object_object_add(whole, "total", json_object_new_int64(total));
		print_json(whole);
	} else if (!status && !unknown) {
		printf("%zu of %lld table pages\n", n, (long long)total);
	}
	json_object_put(whole);
	json_object_put(all);
	api_client_destroy(client);
	return status;
}

/* ---- map ---- */

static const struct api_field map_fields[] = {
	{.name = "to", .type = API_ADDR, .help = "the last address (the end)"},
	{.name = "pieces",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "a line for each run of frames that follow one another, too"},
};
const struct api_fields mmu_map_options = API_FIELDS("the options", map_fields);

/* A range as far as it is known: the next answer may go on where it ends. */
struct range {
	uint64_t start, end, gpa;
	char access[8], page[8];
	bool memory, valid;
	uint64_t pieces; /* runs of frames that it was joined from */
};

/* What is found, and where it goes. */
struct map_sink {
	struct range last;	   /* not told yet: more may join it */
	struct json_object *array; /* NULL: print it */
	bool pieces;		   /* join only what follows in the gpa as well */
	uint64_t to;
};

static void load_range(struct range *r, struct json_object *o)
{
	*r = (struct range){
		.start = api_addr_get(object_of(o, "start")),
		.end = api_addr_get(object_of(o, "end")),
		.gpa = api_addr_get(object_of(o, "gpa")),
		.memory = json_object_get_boolean(object_of(o, "memory")),
		.valid = true,
		.pieces = 1,
	};
	snprintf(r->access, sizeof(r->access), "%s", string_of(o, "access", "?"));
	snprintf(r->page, sizeof(r->page), "%s", string_of(o, "page", "?"));
}

static bool follows(const struct range *a, const struct range *b)
{
	return a->gpa + (b->start - a->start) == b->gpa;
}

static bool joins(const struct range *a, const struct range *b)
{
	return a->valid && a->end + 1 == b->start && a->memory == b->memory &&
	       !strcmp(a->access, b->access) && !strcmp(a->page, b->page);
}

static void print_range(const struct range *r)
{
	uint64_t size = r->end - r->start + 1;
	unsigned unit = 0;

	while (unit < 3 && !(size & (BIT(10 * unit + 20) - 1)))
		unit++;
	printf("%016" PRIx64 "-%016" PRIx64 " %8" PRIu64 "%c %s %3s  ", r->start, r->end,
	       size >> (10 * unit + 10), "KMGT"[unit], r -> access, r -> page);
	if (r->pieces > 1)
		printf("%" PRIu64 " pieces%s\n", r->pieces, r->memory ? "" : " (no memory)");
	else
		printf("gpa %#" PRIx64 "%s\n", r->gpa, r->memory ? "" : " (no memory)");
}

static struct json_object *range_json(const struct range *r)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "start", api_addr_new(r->start));
	json_object_object_add(o, "end", api_addr_new(r->end));
	json_object_object_add(o, "gpa", api_addr_new(r->gpa));
	json_object_object_add(o, "access", json_object_new_string(r->access));
	json_object_object_add(o, "page", json_object_new_string(r->page));
	json_object_object_add(o, "memory", json_object_new_boolean(r->memory));
	return o;
}

static void put_last(struct map_sink *sink)
{
	if (sink->last.valid && sink->array)
		json_object_array_add(sink->array, range_json(&sink->last));
	else if (sink->last.valid)
		print_range(&sink->last);
	sink->last.valid = false;
}

/* Take an answer's ranges; false when the last address is reached. */
static bool take_ranges(struct map_sink *sink, struct json_object *ranges)
{
	for (size_t i = 0; i < json_object_array_length(ranges); i++) {
		struct range r, *last = &sink->last;

		load_range(&r, json_object_array_get_idx(ranges, i));
		if (r.start > sink->to)
			return false;
		r.end = MIN(r.end, sink->to);
		if (joins(last, &r) && (!sink->pieces || follows(last, &r))) {
			last->pieces += !follows(last, &r);
			last->end = r.end;
		} else {
			put_last(sink);
			*last = r;
		}
	}
	return true;
}

static int map_all(struct args *args, struct api_client *client, struct json_object *whole)
{
	struct json_object *next, *to = object_of(args->cli, "to");
	struct map_sink sink = {
		.to = to ? api_addr_get(to) : ~0ull,
		.pieces = args->json || json_object_get_boolean(object_of(args->cli, "pieces")),
	};
	int status;
	bool more;

	if (args->json) {
		sink.array = json_object_new_array();
		json_object_object_add(whole, "ranges", sink.array);
	}
	do {
		struct api_reply reply;

		status = call_again(args, client, &reply);
		if (status)
			break;
		if (!object_of(whole, "cr3")) {
			json_object_object_add(whole, "cr3",
					       json_object_get(object_of(reply.result, "cr3")));
			json_object_object_add(whole, "paging",
					       json_object_get(object_of(reply.result, "paging")));
			if (!args->json)
				printf("%s paging, cr3 %s\n", string_of(whole, "paging", "?"),
				       string_of(whole, "cr3", "?"));
		}
		next = object_of(reply.result, "next");
		more = take_ranges(&sink, object_of(reply.result, "ranges")) && next &&
		       api_addr_get(next) <= sink.to;
		if (more)
			set_param(args, "from", json_object_get(next));
		api_reply_finish(&reply);
	} while (more && !interrupted);
	put_last(&sink);
	return status;
}

int verb_mmu_map(struct args *args)
{
	struct json_object *whole = json_object_new_object();
	struct api_client *client = NULL;
	int status = begin(args, &client);

	/* A hostile guest's tables can be endless. */
	catch_signals();
	if (!status)
		status = map_all(args, client, whole);
	if (!status && args->json)
		print_json(whole);
	json_object_put(whole);
	api_client_destroy(client);
	return interrupted ? 128 + interrupted : status;
}

/* ---- stat ---- */

static const struct api_field stat_fields[] = {
	{.name = "watch",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "again and again, with what changed in a second"},
	{.name = "interval",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = 3600,
	 .dflt = "1",
	 .help = "between two looks"},
	{.name = "count",
	 .type = API_INT,
	 .min = 1,
	 .max = INT32_MAX,
	 .help = "stop after so many looks"},
	{.name = "all", .type = API_BOOL, .dflt = "false", .help = "counters that are zero, too"},
};
const struct api_fields mmu_stat_options = API_FIELDS("the options", stat_fields);

/* A counter of the machine's; of the vCPUs' the sum, or (vcpu >= 0) one's. */
/* A histogram's is how often there was something to sort in. */
static uint64_t count_of(struct json_object *value)
{
	uint64_t sum = 0;

	if (!json_object_is_type(value, json_type_array))
		return json_object_get_uint64(value);
	for (size_t i = 0; i < json_object_array_length(value); i++)
		sum += json_object_get_uint64(json_object_array_get_idx(value, i));
	return sum;
}

static uint64_t counter(struct json_object *r, struct json_object *desc, int vcpu)
{
	const char *name = string_of(desc, "name", "?");
	struct json_object *vcpus = object_of(r, "vcpus");
	uint64_t sum = 0;

	if (!strcmp(string_of(desc, "of", ""), "vm"))
		return count_of(object_of(object_of(r, "vm"), name));
	for (size_t i = 0; vcpus && i < json_object_array_length(vcpus); i++)
		if (vcpu < 0 || (size_t)vcpu == i)
			sum += count_of(object_of(json_object_array_get_idx(vcpus, i), name));
	return sum;
}

/* The buckets that hold something, of the machine's or the first vCPU's histogram. */
static void print_buckets(struct json_object *r, struct json_object *desc)
{
	const char *name = string_of(desc, "name", "?");
	bool linear = !strcmp(string_of(desc, "type", ""), "linear_hist");
	uint64_t step = (uint64_t)int_of(desc, "bucket_size", 1);
	struct json_object *vcpus = object_of(r, "vcpus"), *v;

	v = !strcmp(string_of(desc, "of", ""), "vm") || !vcpus
		    ? object_of(r, "vm")
		    : json_object_array_get_idx(vcpus, 0);
	v = object_of(v, name);
	if (!json_object_is_type(v, json_type_array))
		return;
	for (size_t i = 0; i < MIN(json_object_array_length(v), (size_t)64); i++) {
		uint64_t n = json_object_get_uint64(json_object_array_get_idx(v, i));
		uint64_t from = linear ? i * step : i ? 1ull << (i - 1) : 0;

		if (n)
			printf("    from %19" PRIu64 " %14" PRIu64 "\n", from, n);
	}
}

static double seconds_between(struct json_object *now, struct json_object *before)
{
	return number_of(now, "time", 0) - number_of(before, "time", 0);
}

/* What has changed: of a counter that only grows in a second, else altogether. */
static void print_change(uint64_t now, uint64_t before, double seconds, bool grows)
{
	double delta = (double)now - (double)before;

	if (grows)
		printf(" %11.0f/s", seconds > 0 ? delta / seconds : 0.0);
	else
		printf(" %+11.0f  ", delta);
}

#define VCPUS_SHOWN 8

static bool print_counter(struct json_object *now, struct json_object *before,
			  struct json_object *desc, bool all)
{
	const char *unit = string_of(desc, "unit", "none"), *type = string_of(desc, "type", "");
	size_t vcpus = json_object_array_length(object_of(now, "vcpus"));
	bool of_vm = !strcmp(string_of(desc, "of", ""), "vm");
	uint64_t value = counter(now, desc, -1);

	if (!all && !value)
		return false;
	printf("%-28s %14" PRIu64, string_of(desc, "name", "?"), value);
	if (before)
		print_change(value, counter(before, desc, -1), seconds_between(now, before),
			     !strcmp(type, "cumulative"));
	printf("  %-10s %-5s", type, strcmp(unit, "none") ? unit : "");
	for (size_t i = 0; !of_vm && vcpus > 1 && i < MIN(vcpus, (size_t)VCPUS_SHOWN); i++)
		printf(" %11" PRIu64, counter(now, desc, (int)i));
	putchar('\n');
	print_buckets(now, desc);
	return true;
}

/* Exits for @reason; vcpu < 0: of all. */
static uint64_t exits_of(struct json_object *r, const char *reason, int vcpu)
{
	struct json_object *vcpus = object_of(r, "vcpus");
	uint64_t sum = 0;

	for (size_t i = 0; vcpus && i < json_object_array_length(vcpus); i++) {
		struct json_object *v = json_object_array_get_idx(vcpus, i);

		if (vcpu < 0 || (size_t)vcpu == i)
			sum += json_object_get_uint64(object_of(object_of(v, "exits"), reason));
	}
	return sum;
}

static void print_exit(struct json_object *now, struct json_object *before, const char *reason)
{
	size_t vcpus = json_object_array_length(object_of(now, "vcpus"));
	uint64_t sum = exits_of(now, reason, -1);
	char name[64];

	snprintf(name, sizeof(name), "exits.%s", reason);
	printf("%-28s %14" PRIu64, name, sum);
	if (before)
		print_change(sum, exits_of(before, reason, -1), seconds_between(now, before), true);
	printf("  %-10s %-5s", "cumulative", "");
	for (size_t i = 0; vcpus > 1 && i < MIN(vcpus, (size_t)VCPUS_SHOWN); i++)
		printf(" %11" PRIu64, exits_of(now, reason, (int)i));
	putchar('\n');
}

/* Each reason once, whichever vCPU had it first. */
static void print_exits(struct json_object *now, struct json_object *before)
{
	struct json_object *vcpus = object_of(now, "vcpus"), *told = json_object_new_object();

	for (size_t i = 0; vcpus && i < json_object_array_length(vcpus); i++) {
		struct json_object *exits = object_of(json_object_array_get_idx(vcpus, i), "exits");

		if (!exits)
			continue;
		json_object_object_foreach(exits, reason, n)
		{
			if (!object_of(told, reason))
				print_exit(now, before, reason);
			json_object_object_add(told, reason, json_object_get(n));
		}
	}
	json_object_put(told);
}

static void print_stat(struct json_object *now, struct json_object *before, bool all)
{
	struct json_object *schema = object_of(now, "schema");
	size_t zero = 0, n = json_object_array_length(schema);
	size_t vcpus = json_object_array_length(object_of(now, "vcpus"));
	char name[16];

	printf("%-28s %14s%s  %-10s %-5s", string_of(now, "policy", "?"), "value",
	       before ? "       change" : "", "kind", "unit");
	for (size_t i = 0; vcpus > 1 && i < MIN(vcpus, (size_t)VCPUS_SHOWN); i++) {
		snprintf(name, sizeof(name), "vCPU %zu", i);
		printf(" %11s", name);
	}
	putchar('\n');
	for (size_t i = 0; i < n; i++)
		zero += !print_counter(now, before, json_object_array_get_idx(schema, i), all);
	print_exits(now, before);
	if (zero)
		printf("%zu more are zero (--all shows them)\n", zero);
}

static void nap(double seconds)
{
	struct timespec ts = {.tv_sec = (time_t)seconds};

	ts.tv_nsec = (long)((seconds - (double)ts.tv_sec) * 1e9);
	nanosleep(&ts, NULL);
}

static int watch(struct args *args, struct api_client *client)
{
	bool watching = json_object_get_boolean(object_of(args->cli, "watch"));
	bool all = json_object_get_boolean(object_of(args->cli, "all"));
	double interval = number_of(args->cli, "interval", 1);
	int64_t looks = int_of(args->cli, "count", watching ? INT64_MAX : 1);
	struct json_object *before = NULL;
	int status = 0;

	for (int64_t i = 0; i < looks && !interrupted; i++) {
		struct api_reply reply;

		if (i)
			nap(interval);
		if (interrupted || (status = call_again(args, client, &reply)))
			break;
		if (args->json && watching)
			puts(json_object_to_json_string_ext(reply.result, JSON_C_TO_STRING_PLAIN));
		else if (args->json)
			print_json(reply.result);
		if (!args->json && watching && isatty(STDOUT_FILENO))
			printf("\033[H\033[2J");
		else if (!args->json && i)
			putchar('\n');
		if (!args->json)
			print_stat(reply.result, before, all);
		fflush(stdout);
		json_object_put(before);
		before = json_object_get(reply.result);
		api_reply_finish(&reply);
	}
	json_object_put(before);
	return status;
}

int verb_mmu_stat(struct args *args)
{
	struct api_client *client = NULL;
	int status = begin(args, &client);

	catch_signals();
	if (!status)
		status = watch(args, client);
	api_client_destroy(client);
	return status;
}

/* ---- trace ---- */

static const struct api_field trace_fields[] = {
	{.name = "count",
	 .type = API_INT,
	 .min = 1,
	 .max = INT32_MAX,
	 .help = "stop after so many events"},
};
const struct api_fields mmu_trace_options = API_FIELDS("the options", trace_fields);

#define POLL_S 0.1

static void print_event(struct json_object *e)
{
	bool exit = !strcmp(string_of(e, "kind", ""), "exit");

	printf("%8lld v%lld ", (long long)int_of(e, "seq", 0), (long long)int_of(e, "vcpu", 0));
	if (exit) {
		printf("exit  %-14s rip %-18s addr %-18s info %s", string_of(e, "reason", "?"),
		       string_of(e, "rip", "?"), string_of(e, "addr", "?"),
		       string_of(e, "info", "?"));
		if (object_of(e, "gva"))
			printf(" gva %s", string_of(e, "gva", "?"));
	} else {
		printf("fault %-14s %s %s%s addr %-18s", string_of(e, "result", "?"),
		       string_of(e, "access", "?"),
		       json_object_get_boolean(object_of(e, "present")) ? "P" : "-",
		       json_object_get_boolean(object_of(e, "table")) ? "T" : "-",
		       string_of(e, "addr", "?"));
		if (object_of(e, "gpa"))
			printf(" gpa %s", string_of(e, "gpa", "?"));
		if (object_of(e, "error_code"))
			printf(" error code %s", string_of(e, "error_code", "?"));
		printf("%s%s", json_object_get_boolean(object_of(e, "fixed")) ? " fixed" : "",
		       json_object_get_boolean(object_of(e, "write_tracked")) ? " guest-table"
									      : "");
	}
	putchar('\n');
}

static int64_t print_events(struct args *args, struct json_object *r, int64_t room)
{
	struct json_object *all = object_of(r, "events");
	int64_t lost = int_of(r, "lost", 0), n = 0;

	if (lost)
		fprintf(stderr, "vmctl: %lld events were lost\n", (long long)lost);
	for (size_t i = 0; i < json_object_array_length(all) && n < room; i++, n++) {
		struct json_object *e = json_object_array_get_idx(all, i);

		if (args->json)
			puts(json_object_to_json_string_ext(e, JSON_C_TO_STRING_PLAIN));
		else
			print_event(e);
	}
	fflush(stdout);
	return n;
}

static int follow(struct args *args, struct api_client *client)
{
	int64_t room = int_of(args->cli, "count", INT64_MAX);
	int status = 0;

	while (!interrupted && room > 0) {
		struct api_reply reply;
		int64_t n;

		status = call_again(args, client, &reply);
		if (status)
			break;
		n = print_events(args, reply.result, room);
		room -= n;
		json_object_object_del(args->params, "what");
		set_param(args, "since", json_object_get(object_of(reply.result, "next")));
		api_reply_finish(&reply);
		if (!n)
			nap(POLL_S);
	}
	return status;
}

int verb_mmu_trace(struct args *args)
{
	const char *what = string_of(args->params, "what", NULL);
	bool off = what && !strcmp(what, "off");
	struct api_client *client = NULL;
	int status = begin(args, &client);
	struct api_reply reply;

	if (!what)
		set_param(args, "what", json_object_new_string("all"));
	catch_signals();
	if (!status && off)
		status = call_again(args, client, &reply);
	else if (!status)
		status = follow(args, client);
	if (!status && !off) {
		set_param(args, "what", json_object_new_string("off"));
		status = call_again(args, client, &reply);
	}
	if (!status)
		api_reply_finish(&reply);
	api_client_destroy(client);
	return status;
}
