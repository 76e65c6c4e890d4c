/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbrad and its machines count, in the OpenMetrics text format: families one after another,
 * each with all its samples. */
#include "daemon/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/jobs.h"
#include "api/server.h"
#include "base/cleanup.h"
#include "daemon/auth.h"
#include "daemon/machine.h"
#include "daemon/umbrad.h"

#define ANSWER_S     2	 /* which a machine has to tell its counters */
#define COUNTERS_MAX 256 /* of one machine: it is not trusted */
#define FAMILIES_MAX 512 /* of all */
#define VCPUS_MAX    64
#define COUNTER_NAME 48

static const double bounds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
				0.025,	0.05,	 0.1,	 0.25,	1,	10};

/* How long the calls of one method took that came by one transport. */
struct latency {
	uint64_t buckets[ARRAY_SIZE(bounds)]; /* each without those before it */
	uint64_t count;
	double sum;
};

struct metrics {
	struct umbrad *d;
	/* By the row's place in the table; one for each transport, where there was a call. */
	struct latency *(*latencies)[API_T_JOB];
	size_t n_methods;
	uint64_t errors[API_KIND_COUNT][API_T_JOB];
	struct list gathers;
};

/* One machine's answer. */
struct sample {
	struct gather *gather;
	char machine[64];
	enum machine_state state;
	struct api_call *call;	   /* awaited */
	struct json_object *stats; /* what mmu.stat gives; NULL: none */
};

struct gather {
	struct list link;
	struct metrics *metrics;
	struct api_caller caller;
	api_rest_text_fn done;
	void *arg;
	struct sample *v;
	size_t n, pending;
	bool asking; /* metrics_gather() is at work */
	struct event *timeout;
};

/* ---- text ---- */

static void put_family(struct buf *b, const char *name, const char *type, const char *help)
{
	buf_printf(b, "# TYPE %s %s\n# HELP %s %s\n", name, type, name, help);
}

/* A label's value: backslash, quote and line feed are escaped, and what is no ASCII is left out. */
static void put_value(struct buf *b, const char *value)
{
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			buf_printf(b, "\\%c", *value);
		else if (*value == '\n')
			buf_printf(b, "\\n");
		else if (*value >= ' ' && *value <= '~')
			buf_append(b, value, 1);
	}
}

static void put_label(struct buf *b, const char *before, const char *name, const char *value)
{
	buf_printf(b, "%s%s=\"", before, name);
	put_value(b, value);
	buf_printf(b, "\"");
}

/* ---- umbrad's own ---- */

static void put_build(struct buf *b)
{
	put_family(b, "umbra_build", "info", "umbrad's version.");
	buf_printf(b, "umbra_build_info{version=\"%s\"} 1\n", UMBRA_VERSION);
}

static void put_machines(struct buf *b, const struct gather *g)
{
	size_t count[MACHINE_STATE_COUNT] = {0};

	put_family(b, "umbra_machines", "gauge", "Machines in each state.");
	for (size_t i = 0; i < g->n; i++)
		count[g->v[i].state]++;
	for (unsigned s = 0; s < MACHINE_STATE_COUNT; s++)
		buf_printf(b, "umbra_machines{state=\"%s\"} %zu\n", machine_state_names[s],
			   count[s]);
	put_family(b, "umbra_machine_state", "stateset", "Each machine's state.");
	for (size_t i = 0; i < g->n; i++)
		for (unsigned s = 0; s < MACHINE_STATE_COUNT; s++) {
			put_label(b, "umbra_machine_state{", "machine", g->v[i].machine);
			put_label(b, ",", "umbra_machine_state", machine_state_names[s]);
			buf_printf(b, "} %d\n", g->v[i].state == (enum machine_state)s);
		}
}

static void count_job(void *data, struct json_object *obj)
{
	size_t *count = data;
	struct json_object *v;

	if (!json_object_object_get_ex(obj, "state", &v))
		return;
	for (unsigned s = 0; s < API_JOB_STATES; s++)
		if (!strcmp(json_object_get_string(v), api_job_state_names[s]))
			count[s]++;
}

static void put_jobs(struct buf *b, const struct gather *g)
{
	size_t count[API_JOB_STATES] = {0};

	put_family(b, "umbra_jobs", "gauge", "Jobs that run, and ended ones that are kept.");
	api_jobs_each(g->metrics->d->jobs, &g->caller, count_job, count);
	for (unsigned s = 0; s < API_JOB_STATES; s++)
		buf_printf(b, "umbra_jobs{state=\"%s\"} %zu\n", api_job_state_names[s], count[s]);
}

static void put_connections(struct buf *b, const struct umbrad *d)
{
	put_family(b, "umbra_connections", "gauge", "Open connections.");
	buf_printf(b, "umbra_connections{transport=\"%s\"} %zu\n", api_transport_names[API_T_RPC],
		   d->server ? api_server_sessions(d->server) : 0);
	buf_printf(b, "umbra_connections{transport=\"%s\"} %zu\n", api_transport_names[API_T_REST],
		   d->rest ? api_rest_connections(d->rest) : 0);
}

static void put_latency(struct buf *b, const char *method, const char *transport,
			const struct latency *l)
{
	static const char name[] = "umbra_api_request_duration_seconds";
	uint64_t sum = 0;

	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
		sum += l->buckets[i];
		buf_printf(b, "%s_bucket{method=\"%s\",transport=\"%s\",le=\"%g\"} %" PRIu64 "\n",
			   name, method, transport, bounds[i], sum);
	}
	buf_printf(b, "%s_bucket{method=\"%s\",transport=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name,
		   method, transport, l->count);
	buf_printf(b, "%s_count{method=\"%s\",transport=\"%s\"} %" PRIu64 "\n", name, method,
		   transport, l->count);
	buf_printf(b, "%s_sum{method=\"%s\",transport=\"%s\"} %.9g\n", name, method, transport,
		   l->sum);
}

static void put_calls(struct buf *b, const struct metrics *m)
{
	put_family(b, "umbra_api_request_duration_seconds", "histogram",
		   "Time from a call to its answer.");
	buf_printf(b, "# UNIT umbra_api_request_duration_seconds seconds\n");
	for (size_t i = 0; i < m->n_methods; i++)
		for (unsigned t = 0; t < API_T_JOB; t++)
			if (m->latencies[i][t])
				put_latency(b, api_method_at(&api_umbrad_methods, i)->name,
					    api_transport_names[t], m->latencies[i][t]);
	put_family(b, "umbra_api_errors", "counter", "Calls that were answered with an error.");
	for (unsigned k = 1; k < API_KIND_COUNT; k++)
		for (unsigned t = 0; t < API_T_JOB; t++)
			if (m->errors[k][t])
				buf_printf(b,
					   "umbra_api_errors_total{kind=\"%s\",transport=\"%s\"} "
					   "%" PRIu64 "\n",
					   api_kind_name(k), api_transport_names[t],
					   m->errors[k][t]);
}

/* ---- the machines' counters ---- */

static const char *text_of(struct json_object *obj, const char *name)
{
	struct json_object *v;

	return json_object_object_get_ex(obj, name, &v) && json_object_is_type(v, json_type_string)
		       ? json_object_get_string(v)
		       : "";
}

static bool ends_with(const char *name, const char *end)
{
	size_t len = strlen(name), n = strlen(end);

	return len >= n && !strcmp(name + len - n, end);
}

/*
 * A machine's process may be in its guest's hands: only what can be a name is taken for one, and
 * none that would be taken for a family of ours or for another's sample.
 */
static bool is_counter_name(const char *name)
{
	static const char *const ours[] = {"api_", "build",   "connections",
					   "jobs", "machine", "vcpu_exits"};
	static const char *const ends[] = {"_total", "_info", "_bucket",
					   "_count", "_sum",  "_created"};
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");

	if (!len || name[len] || len >= COUNTER_NAME || strchr("0123456789_", name[0]))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (!strncmp(name, ours[i], strlen(ours[i])))
			return false;
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (ends_with(name, ends[i]))
			return false;
	return true;
}

/* A label of which nothing is left out, so that no two become one. */
static bool is_label(const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i++)
		if (text[i] != '\n' && (text[i] < ' ' || text[i] > '~'))
			return false;
	return len && len < COUNTER_NAME;
}

static struct json_object *member(struct json_object *obj, const char *name, enum json_type type)
{
	struct json_object *v;

	return json_object_object_get_ex(obj, name, &v) && json_object_is_type(v, type) ? v : NULL;
}

/* @vcpus is an array or NULL. */
static size_t vcpus_in(struct json_object *vcpus)
{
	return vcpus ? MIN(json_object_array_length(vcpus), (size_t)VCPUS_MAX) : 0;
}

static void put_owner(struct buf *b, const char *machine, const char *vcpu)
{
	put_label(b, "{", "machine", machine);
	if (vcpu)
		put_label(b, ",", "vcpu", vcpu);
}

#define BUCKETS_MAX 64

/* One histogram of the kernel's: its buckets by what they hold less than. */
static void put_buckets(struct buf *b, const char *name, const char *machine, const char *vcpu,
			struct json_object *values, uint64_t step)
{
	size_t n = MIN(json_object_array_length(values), (size_t)BUCKETS_MAX);
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		sum += json_object_get_uint64(json_object_array_get_idx(values, i));
		buf_printf(b, "umbra_%s_bucket", name);
		put_owner(b, machine, vcpu);
		/* Whole numbers: less than a bound is at most the one before. */
		if (i + 1 < n)
			buf_printf(b, ",le=\"%" PRIu64 ".0\"} %" PRIu64 "\n",
				   (uint64_t)(step ? (i + 1) * step - 1 : BIT(i) - 1), sum);
		else
			buf_printf(b, ",le=\"+Inf\"} %" PRIu64 "\n", sum);
	}
}

static void put_sample(struct buf *b, const char *name, const char *suffix, const char *machine,
		       const char *vcpu, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_int))
		return;
	buf_printf(b, "umbra_%s%s", name, suffix);
	put_owner(b, machine, vcpu);
	buf_printf(b, "} %" PRIu64 "\n", json_object_get_uint64(value));
}

/* Of the machine or of each vCPU, where that has it. */
static void put_histogram(struct buf *b, const struct sample *s, const char *name, bool of_vcpus,
			  uint64_t step)
{
	struct json_object *of = member(s->stats, "vm", json_type_object), *value;
	char vcpu[24];

	value = of ? member(of, name, json_type_array) : NULL;
	if (!of_vcpus && value)
		put_buckets(b, name, s->machine, NULL, value, step);
	of = of_vcpus ? member(s->stats, "vcpus", json_type_array) : NULL;
	for (size_t i = 0; i < vcpus_in(of); i++) {
		snprintf(vcpu, sizeof(vcpu), "%zu", i);
		value = member(json_object_array_get_idx(of, i), name, json_type_array);
		if (value)
			put_buckets(b, name, s->machine, vcpu, value, step);
	}
}

/* One counter of one machine: its own, or each vCPU's. */
static void put_counter(struct buf *b, const struct sample *s, const char *name, const char *suffix,
			bool of_vcpus)
{
	struct json_object *of = member(s->stats, "vm", json_type_object), *value;
	char vcpu[24];

	if (!of_vcpus) {
		if (of && json_object_object_get_ex(of, name, &value))
			put_sample(b, name, suffix, s->machine, NULL, value);
		return;
	}
	of = member(s->stats, "vcpus", json_type_array);
	for (size_t i = 0; i < vcpus_in(of); i++) {
		snprintf(vcpu, sizeof(vcpu), "%zu", i);
		if (json_object_object_get_ex(json_object_array_get_idx(of, i), name, &value))
			put_sample(b, name, suffix, s->machine, vcpu, value);
	}
}

/* A counter's family: KVM's name for it, its type by the schema, all machines' samples. */
static void put_counters(struct buf *b, const struct gather *g, struct json_object *desc)
{
	bool cumulative = !strcmp(text_of(desc, "type"), "cumulative");
	bool of_vcpus = !strcmp(text_of(desc, "of"), "vcpu");
	const char *name = text_of(desc, "name"), *type = text_of(desc, "type");
	bool hist = ends_with(type, "_hist");
	struct json_object *step = member(desc, "bucket_size", json_type_int);
	char family[COUNTER_NAME + 8], help[96];

	snprintf(family, sizeof(family), "umbra_%s", name);
	snprintf(help, sizeof(help), "KVM's %s of %s (%s).", name,
		 of_vcpus ? "each vCPU" : "each machine",
		 hist			 ? "histogram"
		 : !strcmp(type, "peak") ? "peak"
		 : cumulative		 ? "cumulative"
					 : "instant");
	put_family(b, family, hist ? "histogram" : cumulative ? "counter" : "gauge", help);
	for (size_t i = 0; i < g->n; i++) {
		if (g->v[i].stats && hist)
			put_histogram(b, &g->v[i], name, of_vcpus,
				      !strcmp(type, "linear_hist")
					      ? MAX(json_object_get_uint64(step), 1ull)
					      : 0);
		else if (g->v[i].stats)
			put_counter(b, &g->v[i], name, cumulative ? "_total" : "", of_vcpus);
	}
}

/* Machines may be of several versions of umbra-vm, and so with several schemas: the first to name a
 * counter says what it is. */
static void put_schemas(struct buf *b, const struct gather *g)
{
	struct json_object *seen = json_object_new_object();
	int families = 0;

	for (size_t i = 0; i < g->n; i++) {
		struct json_object *schema =
			g->v[i].stats ? member(g->v[i].stats, "schema", json_type_array) : NULL;
		size_t n = schema ? json_object_array_length(schema) : 0;

		for (size_t k = 0; k < MIN(n, (size_t)COUNTERS_MAX); k++) {
			struct json_object *desc = json_object_array_get_idx(schema, k);
			const char *name = text_of(desc, "name");

			if (!is_counter_name(name) || json_object_object_get_ex(seen, name, NULL) ||
			    ++families > FAMILIES_MAX)
				continue;
			json_object_object_add(seen, name, NULL);
			put_counters(b, g, desc);
		}
	}
	json_object_put(seen);
}

static void put_exits_of(struct buf *b, const struct sample *s, size_t vcpu,
			 struct json_object *exits)
{
	size_t n = 0;

	json_object_object_foreach(exits, reason, count)
	{
		if (n++ >= COUNTERS_MAX || !is_label(reason) ||
		    !json_object_is_type(count, json_type_int))
			continue;
		put_label(b, "umbra_vcpu_exits_total{", "machine", s->machine);
		buf_printf(b, ",vcpu=\"%zu\"", vcpu);
		put_label(b, ",", "reason", reason);
		buf_printf(b, "} %" PRIu64 "\n", json_object_get_uint64(count));
	}
}

static void put_exits(struct buf *b, const struct gather *g)
{
	struct json_object *vcpus, *exits;

	put_family(b, "umbra_vcpu_exits", "counter", "Exits from guest mode, by reason.");
	for (size_t i = 0; i < g->n; i++) {
		vcpus = g->v[i].stats ? member(g->v[i].stats, "vcpus", json_type_array) : NULL;
		for (size_t k = 0; k < vcpus_in(vcpus); k++) {
			exits = member(json_object_array_get_idx(vcpus, k), "exits",
				       json_type_object);
			if (exits)
				put_exits_of(b, &g->v[i], k, exits);
		}
	}
}

static void put_policies(struct buf *b, const struct gather *g)
{
	put_family(b, "umbra_machine", "info", "How a machine's memory is virtualized.");
	for (size_t i = 0; i < g->n; i++) {
		if (!g->v[i].stats)
			continue;
		put_label(b, "umbra_machine_info{", "machine", g->v[i].machine);
		put_label(b, ",", "policy", text_of(g->v[i].stats, "policy"));
		buf_printf(b, "} 1\n");
	}
}

static void put_all(struct buf *b, const struct gather *g)
{
	put_build(b);
	put_machines(b, g);
	put_jobs(b, g);
	/* Of all callers together: for those that may see all of them. */
	if (g->caller.sees_all) {
		put_connections(b, g->metrics->d);
		put_calls(b, g->metrics);
	}
	put_policies(b, g);
	put_exits(b, g);
	put_schemas(b, g);
	buf_printf(b, "# EOF\n");
}

/* ---- gathering ---- */

static void gather_free(struct gather *g)
{
	list_del(&g->link);
	for (size_t i = 0; i < g->n; i++) {
		if (g->v[i].call)
			api_call_gone(g->v[i].call);
		json_object_put(g->v[i].stats);
	}
	if (g->timeout)
		event_free(g->timeout);
	free(g->v);
	free(g);
}

static void gather_finish(struct gather *g, bool tell)
{
	api_rest_text_fn done = g->done;
	struct buf b = {0};
	void *arg = g->arg;

	if (tell)
		put_all(&b, g);
	gather_free(g);
	done(arg, tell && !b.failed ? &b : NULL);
	buf_finish(&b);
}

static void on_answer(struct sample *s, struct json_object *stats)
{
	struct gather *g = s->gather;

	s->call = NULL;
	s->stats = stats;
	if (!--g->pending && !g->asking)
		gather_finish(g, true);
}

static void on_reply(void *priv, struct json_object *result, int fd)
{
	cleanup_close(&fd);
	on_answer(priv, result);
}

/* It has just ended, or does not answer: then it has no counters. */
static void on_fail(void *priv, const struct api_error *err)
{
	on_answer(priv, NULL);
}

static const struct api_reply_ops reply_ops = {.reply = on_reply, .fail = on_fail};

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	gather_finish(arg, true);
}

static void ask(struct gather *g, struct sample *s, const struct machine *m)
{
	struct json_object *params = json_object_new_object();
	struct api_call *call;

	snprintf(s->machine, sizeof(s->machine), "%s", m->def.name);
	s->gather = g;
	s->state = m->state;
	if (m->state != MACHINE_RUNNING && m->state != MACHINE_PAUSED) {
		json_object_put(params);
		return;
	}
	json_object_object_add(params, "name", json_object_new_string(s->machine));
	g->pending++;
	call = api_dispatch(&g->metrics->d->dispatcher, "mmu.stat", params, -1, &g->caller,
			    &reply_ops, s);
	if (call)
		s->call = call;
	json_object_put(params);
}

/* NULL: no memory. */
static struct gather *gather_create(struct metrics *metrics, const struct api_caller *caller,
				    api_rest_text_fn done, void *arg)
{
	const struct timeval wait = {.tv_sec = ANSWER_S};
	struct gather *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->metrics = metrics;
	g->caller = *caller;
	g->caller.transport = API_T_JOB; /* nobody's call, for metrics_count() */
	g->done = done;
	g->arg = arg;
	list_add_tail(&metrics->gathers, &g->link);
	g->v = calloc(metrics->d->n_machines + 1, sizeof(*g->v));
	g->timeout = evtimer_new(metrics->d->base, on_timeout, g);
	if (!g->v || !g->timeout || evtimer_add(g->timeout, &wait)) {
		gather_free(g);
		return NULL;
	}
	return g;
}

void metrics_gather(void *umbrad, const struct api_caller *caller, api_rest_text_fn done, void *arg)
{
	struct umbrad *d = umbrad;
	struct gather *g = gather_create(d->metrics, caller, done, arg);
	struct machine *m;

	if (!g) {
		done(arg, NULL);
		return;
	}
	g->asking = true;
	list_for_each_entry (m, &d->machines, link)
		if (g->n < d->n_machines && machine_visible(m, caller))
			ask(g, &g->v[g->n++], m);
	g->asking = false;
	if (!g->pending)
		gather_finish(g, true);
}

/* ---- counting ---- */

/* The row's place; the table's size: it is none of ours. */
static size_t place_of(const struct api_method *m)
{
	const struct api_table *t = &api_umbrad_methods;
	size_t before = 0;

	for (; t; before += t->n, t = t->more)
		if (m >= t->m && m < t->m + t->n)
			return before + (size_t)(m - t->m);
	return before;
}

void metrics_count(struct metrics *metrics, const struct api_audit *a)
{
	enum api_transport t = a->caller->transport;
	struct latency **l;
	size_t i;

	if (!metrics || t >= API_T_JOB)
		return;
	if (a->err && (unsigned)a->err->kind < API_KIND_COUNT)
		metrics->errors[a->err->kind][t]++;
	i = a->method ? place_of(a->method) : metrics->n_methods;
	if (i >= metrics->n_methods)
		return;
	l = &metrics->latencies[i][t];
	if (!*l)
		*l = calloc(1, sizeof(**l));
	if (!*l)
		return;
	(*l)->count++;
	(*l)->sum += a->seconds;
	for (i = 0; i < ARRAY_SIZE(bounds); i++) {
		if (a->seconds <= bounds[i]) {
			(*l)->buckets[i]++;
			break;
		}
	}
}

int metrics_create(struct metrics **out, struct umbrad *d)
{
	struct metrics *metrics = calloc(1, sizeof(*metrics));

	if (!metrics)
		return -ENOMEM;
	metrics->d = d;
	list_init(&metrics->gathers);
	metrics->n_methods = api_method_count(&api_umbrad_methods);
	metrics->latencies = calloc(metrics->n_methods, sizeof(*metrics->latencies));
	if (!metrics->latencies) {
		free(metrics);
		return -ENOMEM;
	}
	*out = metrics;
	return 0;
}

void metrics_destroy(struct metrics *metrics)
{
	if (!metrics)
		return;
	while (!list_empty(&metrics->gathers))
		gather_finish(list_first(&metrics->gathers, struct gather, link), false);
	for (size_t i = 0; i < metrics->n_methods; i++)
		for (unsigned t = 0; t < API_T_JOB; t++)
			free(metrics->latencies[i][t]);
	free(metrics->latencies);
	free(metrics);
}
