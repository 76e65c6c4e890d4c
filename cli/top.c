/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl top: what the machines are doing, looked at again and again. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/conn.h"
#include "base/cleanup.h"
#include "cli/term.h"
#include "cli/vmctl.h"

#define ASKED_MAX 32   /* at once: a connection may not have more than some calls in flight */
#define ANSWER_MS 5000 /* a machine that answers later is shown without numbers */

enum sort { BY_NAME, BY_CPU, BY_MIPS, BY_EXITS, BY_FAULTS, BY_DIRTY, BY_RSS, SORTS };
static const char *const sort_names[SORTS + 1] = {"name",   "cpu",   "mips", "exits",
						  "faults", "dirty", "rss",  NULL};

static const struct api_field fields[] = {
	{.name = "interval",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = 3600,
	 .dflt = "1",
	 .help = "seconds between two looks"},
	{.name = "once", .type = API_BOOL, .help = "look twice, show what changed, and end"},
	{.name = "sort",
	 .type = API_ENUM,
	 .choices = sort_names,
	 .dflt = "cpu",
	 .help = "the column that they are sorted by"},
};
const struct api_fields top_options = API_FIELDS("the options", fields);

/* What is counted up, of one machine at one time. */
enum counter { CPU, INSTRUCTIONS, EXITS, FAULTS, DIRTIED, COUNTERS };

struct sample {
	char name[64], state[16], policy[16];
	int64_t pid;
	double rss, at, count[COUNTERS], rate[COUNTERS]; /* negative: not known */
	bool answered;
};

struct samples {
	struct sample *v;
	size_t n, waiting;
	double at;
};

struct top {
	struct args *args;
	struct api_client *client;
	struct samples now, before;
	enum sort sort;
	bool paused, live;
	struct termios old;
	bool raw;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

static double clock_s(void)
{
	return (double)api_now_ms() / 1e3;
}

/* ---- looking ---- */

struct asked {
	struct sample *s;
	struct samples *all;
};

static void on_stats(void *data, struct json_object *r, int fd, const struct api_error *err)
{
	struct asked *a = data;
	struct json_object *mmu = object_of(r, "mmu");
	struct sample *s = a->s;

	cleanup_close(&fd);
	a->all->waiting--;
	if (!err && r) {
		s->answered = true;
		s->at = clock_s();
		snprintf(s->policy, sizeof(s->policy), "%s", string_of(r, "policy", "-"));
		s->count[INSTRUCTIONS] = number_of(r, "instructions", 0);
		s->count[EXITS] = number_of(r, "exits_total", 0);
		/* Under shadow every page fault of the guest's, under tdp what ours do not map. */
		s->count[FAULTS] = number_of(mmu, "pf_taken", 0);
		s->count[DIRTIED] = number_of(mmu, "dirty_noticed", 0);
	}
	free(a);
}

static void ask_stats(struct top *t, struct sample *s)
{
	struct asked *a = calloc(1, sizeof(*a));
	struct json_object *params;

	if (!a)
		return;
	*a = (struct asked){.s = s, .all = &t->now};
	params = json_object_new_object();
	json_object_object_add(params, "name", json_object_new_string(s->name));
	t->now.waiting++;
	if (api_client_send(t->client, "machine.stats", params, -1, ANSWER_MS, on_stats, a)) {
		t->now.waiting--;
		free(a);
	}
}

static void take_machine(struct sample *s, struct json_object *m)
{
	struct json_object *usage = object_of(m, "usage");

	snprintf(s->name, sizeof(s->name), "%s", string_of(m, "name", "?"));
	snprintf(s->state, sizeof(s->state), "%s", string_of(m, "state", "?"));
	strcpy(s->policy, "-");
	s->pid = int_of(m, "pid", 0);
	s->rss = number_of(usage, "rss", -1);
	s->count[CPU] = number_of(usage, "cpu_seconds", 0);
}

static void wait_until_left(struct top *t, size_t n)
{
	while (t->now.waiting > n)
		if (event_base_loop(api_client_base(t->client), EVLOOP_ONCE))
			api_client_abort(t->client);
}

static const struct sample *find_before(const struct top *t, const struct sample *s)
{
	for (size_t i = 0; i < t->before.n; i++)
		if (!strcmp(t->before.v[i].name, s->name) && t->before.v[i].pid == s->pid)
			return &t->before.v[i];
	return NULL;
}

static void make_rates(struct top *t)
{
	for (size_t i = 0; i < t->now.n; i++) {
		struct sample *s = &t->now.v[i];
		const struct sample *b = find_before(t, s);

		for (size_t k = 0; k < COUNTERS; k++) {
			bool own = k != CPU;
			double dt = b ? own ? s->at - b->at : t->now.at - t->before.at : 0;

			s->rate[k] = -1;
			if (b && s->pid && dt > 0 && (!own || (s->answered && b->answered)))
				s->rate[k] = MAX(s->count[k] - b->count[k], 0.0) / dt;
		}
	}
}

/* One look at all machines. 0, or the exit status, told. */
static int look(struct top *t)
{
	struct json_object *params = json_object_new_object(), *all;
	struct api_reply reply;
	int status = 0;

	free(t->before.v);
	t->before = t->now;
	t->now = (struct samples){0};
	json_object_object_add(params, "usage", json_object_new_boolean(true));
	if (api_client_call(t->client, "machine.list", params, 0, &reply)) {
		status = fail(t->args, &reply.err);
		api_reply_finish(&reply);
		return status;
	}
	t->now.at = clock_s();
	all = object_of(reply.result, "machines");
	t->now.n = all ? json_object_array_length(all) : 0;
	t->now.v = calloc(t->now.n + 1, sizeof(*t->now.v));
	if (!t->now.v)
		t->now.n = 0;
	for (size_t i = 0; i < t->now.n; i++) {
		take_machine(&t->now.v[i], json_object_array_get_idx(all, i));
		if (!t->now.v[i].pid)
			continue;
		wait_until_left(t, ASKED_MAX - 1);
		ask_stats(t, &t->now.v[i]);
	}
	api_reply_finish(&reply);
	wait_until_left(t, 0);
	make_rates(t);
	return 0;
}

/* ---- showing ---- */

static double key_of(const struct sample *s, enum sort sort)
{
	static const enum counter counters[SORTS] = {
		[BY_CPU] = CPU,	      [BY_MIPS] = INSTRUCTIONS, [BY_EXITS] = EXITS,
		[BY_FAULTS] = FAULTS, [BY_DIRTY] = DIRTIED,
	};

	return sort == BY_RSS ? s->rss : s->rate[counters[sort]];
}

static int compare(const void *a, const void *b, void *arg)
{
	enum sort sort = *(const enum sort *)arg;
	const struct sample *x = a, *y = b;
	double kx = sort == BY_NAME ? 0 : key_of(x, sort),
	       ky = sort == BY_NAME ? 0 : key_of(y, sort);

	return kx != ky ? (kx < ky ? 1 : -1) : strcmp(x->name, y->name);
}

static const struct column columns[] = {
	{.title = "NAME", .shrinks = true},   {.title = "STATE", .style = style_of_state},
	{.title = "%CPU", .right = true},     {.title = "MIPS", .right = true},
	{.title = "EXITS/s", .right = true},  {.title = "POLICY"},
	{.title = "FAULTS/s", .right = true}, {.title = "DIRTY/s", .right = true},
	{.title = "RSS", .right = true},      {.title = "PID", .right = true},
};

static void add_number(struct table *t, double rate, double factor)
{
	if (rate < 0)
		table_add(t, "-");
	else
		table_add(t, "%.1f", rate * factor);
}

static void add_sample(struct table *t, const struct sample *s)
{
	char exits[16], faults[16], dirty[16], rss[16];

	text_of_rate(s->rate[EXITS], exits, sizeof(exits));
	text_of_rate(s->rate[FAULTS], faults, sizeof(faults));
	text_of_rate(s->rate[DIRTIED], dirty, sizeof(dirty));
	text_of_bytes(s->rss, rss, sizeof(rss));
	table_add(t, "%s", s->name);
	table_add(t, "%s", s->state);
	add_number(t, s->rate[CPU], 100);
	add_number(t, s->rate[INSTRUCTIONS], 1e-6);
	table_add(t, "%s", exits);
	table_add(t, "%s", s->policy);
	table_add(t, "%s", faults);
	table_add(t, "%s", dirty);
	table_add(t, "%s", rss);
	if (s->pid)
		table_add(t, "%lld", (long long)s->pid);
	else
		table_add(t, "-");
}

static void show_table(struct top *t)
{
	unsigned lines = t->live ? term_lines() : 0;
	size_t running = 0;
	struct table table;

	qsort_r(t->now.v, t->now.n, sizeof(*t->now.v), compare, &t->sort);
	table_init(&table, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < t->now.n; i++) {
		add_sample(&table, &t->now.v[i]);
		running += t->now.v[i].pid != 0;
	}
	if (t->live)
		printf("\033[H\033[2J%zu machines, %zu with a process; by %s%s  (q quit, s sort, p "
		       "pause)\n",
		       t->now.n, running, sort_names[t->sort], t->paused ? ", paused" : "");
	table_print(&table, stdout, lines > 2 ? lines - 2 : 0);
	table_finish(&table);
	fflush(stdout);
}

static void add_rate(struct json_object *obj, const char *name, double rate)
{
	json_object_object_add(obj, name, rate < 0 ? NULL : json_object_new_double(rate));
}

static void show_json(struct top *t)
{
	struct json_object *all = json_object_new_array();

	qsort_r(t->now.v, t->now.n, sizeof(*t->now.v), compare, &t->sort);
	for (size_t i = 0; i < t->now.n; i++) {
		const struct sample *s = &t->now.v[i];
		struct json_object *obj = json_object_new_object();

		json_object_object_add(obj, "name", json_object_new_string(s->name));
		json_object_object_add(obj, "state", json_object_new_string(s->state));
		if (s->pid)
			json_object_object_add(obj, "pid", json_object_new_int64(s->pid));
		if (s->answered)
			json_object_object_add(obj, "policy", json_object_new_string(s->policy));
		add_rate(obj, "cpu_percent", s->rate[CPU] < 0 ? -1 : s->rate[CPU] * 100);
		add_rate(obj, "mips", s->rate[INSTRUCTIONS] < 0 ? -1 : s->rate[INSTRUCTIONS] / 1e6);
		add_rate(obj, "exits_per_second", s->rate[EXITS]);
		add_rate(obj, "faults_per_second", s->rate[FAULTS]);
		add_rate(obj, "dirtied_per_second", s->rate[DIRTIED]);
		add_rate(obj, "rss", s->rss);
		json_object_array_add(all, obj);
	}
	if (t->live)
		puts(json_object_to_json_string_ext(all, JSON_C_TO_STRING_PLAIN));
	else
		print_json(all);
	fflush(stdout);
	json_object_put(all);
}

static void show(struct top *t)
{
	if (t->args->json)
		show_json(t);
	else
		show_table(t);
}

/* ---- the keys ---- */

static void make_raw(struct top *t)
{
	struct termios raw;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &t->old))
		return;
	raw = t->old;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	t->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

/* false: it is to end. */
static bool obey(struct top *t, char key)
{
	if (key == 'q' || key == 'Q')
		return false;
	if (key == 's')
		t->sort = (t->sort + 1) % SORTS;
	else if (key == 'p')
		t->paused = !t->paused;
	else
		return true;
	if (!t->args->json)
		show(t);
	return true;
}

/* Until the next look is due; keys are obeyed meanwhile. false: it is to end. */
static bool nap(struct top *t, double seconds)
{
	struct pollfd p = {.fd = t->raw ? STDIN_FILENO : -1, .events = POLLIN};
	double until = clock_s() + seconds, left;
	char key;

	while (!interrupted && (left = until - clock_s()) > 0) {
		if (poll(&p, 1, (int)(left * 1000) + 1) <= 0)
			continue;
		if (read(STDIN_FILENO, &key, 1) != 1 || !obey(t, key))
			return false;
	}
	return !interrupted;
}

static int watch(struct top *t)
{
	double interval = number_of(t->args->cli, "interval", 1);
	int status = look(t);

	if (!status && !t->live) {
		nap(t, interval);
		status = look(t);
		if (!status)
			show(t);
		return status;
	}
	while (!status) {
		if (!t->paused)
			show(t);
		if (!nap(t, MAX(interval, 0.1)))
			break;
		if (!t->paused)
			status = look(t);
	}
	return status;
}

int verb_top(struct args *args)
{
	struct top t = {.args = args};
	struct sigaction act = {.sa_handler = on_signal};
	struct api_error err;
	int status;

	t.live = !json_object_get_boolean(object_of(args->cli, "once"));
	while (strcmp(sort_names[t.sort], string_of(args->cli, "sort", sort_names[BY_CPU])) != 0)
		t.sort++;
	if (connect_umbrad(&t.client, NULL, true, &err))
		return fail(args, &err);
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	if (t.live)
		make_raw(&t);
	status = watch(&t);
	if (t.raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &t.old);
	api_client_destroy(t.client);
	free(t.now.v);
	free(t.before.v);
	return status;
}
