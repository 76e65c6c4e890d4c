/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbered events, kept for a while and told to those who listen, on whatever transport. */
#include "api/events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "api/call.h"
#include "api/event_log.h"
#include "api/schema.h"
#include "api/server.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/list.h"

const struct api_event_type api_event_types[] = {
	{"created", "a machine was defined", false},
	{"deleted", "a machine is no more", false},
	{"state", "a machine's state has changed: state, and at its end reason, code and status",
	 false},
	{"restart", "a machine is to be started again by its policy: at, delay, restarts", false},
	{"hung", "a machine's umbra-vm does not answer in time, or does again: hung", false},
	{"job", "a job has begun or ended: job, method, state (lost: with its umbrad)", false},
	{"progress", "a job has come further: job, method, fraction, what", true},
	{NULL, NULL, false},
};
_Static_assert(ARRAY_SIZE(api_event_types) <= 33, "a listener's types are bits of a word");

/* A listener that ends while it is told something is freed afterwards. */
struct api_listener {
	struct list link;
	struct api_events *events;
	api_event_fn fn;
	void *data;
	uint32_t types;
	char *machine; /* NULL: all */
	bool all;      /* sees whatever there is; else what @caller may */
	bool dead;
	struct api_caller caller;
};

/* As text, which is a tenth of what json-c's objects take; for the few that are told again. */
struct kept {
	uint64_t seq;
	char *text;
	unsigned type;
	char machine[64], owner[API_CALLER_NAME];
};

/* A kind that can flood, of one machine and job: what is told when its second is over. */
struct pause {
	struct list link;
	unsigned type;
	char machine[64], owner[API_CALLER_NAME];
	int64_t job;
	struct event *timer;
	struct json_object *more; /* what waits; NULL: nothing */
	int64_t left_out;
	struct api_events *events;
};

/* One connection's subscription. */
struct subscription {
	struct list link;
	struct api_session *session;
	struct api_listener *listener;
};

struct api_events {
	struct event_base *base;
	struct kept ring[API_EVENTS_KEPT]; /* event n in place n % API_EVENTS_KEPT */
	uint64_t first, next;		   /* the oldest that is kept; the next to come */
	struct event_log *log;		   /* NULL: none */
	struct list listeners, pauses, subscriptions;
	unsigned depth; /* tellings that we are inside of */
};

int api_events_create(struct api_events **out, struct event_base *base)
{
	struct api_events *e = calloc(1, sizeof(*e));
	struct timespec ts;

	if (!e)
		return -ENOMEM;
	e->base = base;
	/* Microseconds: nobody tells an event in one, so that one without a file begins above us.
	 */
	clock_gettime(CLOCK_REALTIME, &ts);
	e->first = e->next = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
	list_init(&e->listeners);
	list_init(&e->pauses);
	list_init(&e->subscriptions);
	*out = e;
	return 0;
}

/* ---- what an earlier one told ---- */

static int type_of(const char *name)
{
	int t = 0;

	while (api_event_types[t].name && strcmp(api_event_types[t].name, name))
		t++;
	return api_event_types[t].name ? t : -1;
}

/* A string member that fits; "" when there is none. NULL: it is none. */
static const char *text_in(struct json_object *obj, const char *name, size_t max)
{
	struct json_object *v;

	if (!json_object_object_get_ex(obj, name, &v))
		return "";
	if (!json_object_is_type(v, json_type_string) ||
	    (size_t)json_object_get_string_len(v) >= max)
		return NULL;
	return json_object_get_string(v);
}

static void forget_all(struct api_events *events)
{
	for (size_t i = 0; i < API_EVENTS_KEPT; i++) {
		free(events->ring[i].text);
		events->ring[i].text = NULL;
	}
}

/* Keep @obj as the next event. Without memory its place is empty. */
static const struct kept *keep(struct api_events *events, unsigned type, const char *machine,
			       const char *owner, struct json_object *obj)
{
	struct kept *k = &events->ring[events->next % API_EVENTS_KEPT];
	const char *text = json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN);

	free(k->text);
	k->text = text ? strdup(text) : NULL;
	k->seq = events->next;
	k->type = type;
	snprintf(k->machine, sizeof(k->machine), "%s", machine);
	snprintf(k->owner, sizeof(k->owner), "%s", owner);
	if (++events->next - events->first > API_EVENTS_KEPT)
		events->first++;
	return k;
}

/* @obj: of it, where that is there still. */
static struct api_event event_of(const struct kept *k, struct json_object *obj)
{
	return (struct api_event){
		.seq = k->seq,
		.type = api_event_types[k->type].name,
		.machine = k->machine,
		.owner = k->owner,
		.obj = obj,
	};
}

/* Behind a gap everything begins anew: what is kept has none. */
static bool on_line(void *data, const char *owner, struct json_object *obj)
{
	struct api_events *events = data;
	const char *type = text_in(obj, "type", 64), *machine = text_in(obj, "machine", 64);
	int t = type ? type_of(type) : -1;
	struct json_object *v;
	int64_t seq;

	if (t < 0 || !machine || strlen(owner) >= API_CALLER_NAME ||
	    !json_object_object_get_ex(obj, "seq", &v) || !json_object_is_type(v, json_type_int))
		return false;
	seq = json_object_get_int64(v);
	if (seq <= 0 || seq > INT64_MAX / 2)
		return false;
	if ((uint64_t)seq != events->next || events->first == events->next) {
		forget_all(events);
		events->first = events->next = (uint64_t)seq;
	}
	keep(events, (unsigned)t, machine, owner, obj);
	return true;
}

/* The file has what is kept; without one nobody who comes after us can tell what we told. */
static void rewrite_log(struct api_events *events)
{
	_cleanup_(buf_finish) struct buf text = {0};

	for (uint64_t n = events->first; n < events->next; n++) {
		const struct kept *k = &events->ring[n % API_EVENTS_KEPT];

		if (k->text)
			event_log_line(&text, k->owner, k->text);
	}
	if (!event_log_replace(events->log, &text, events->next - events->first))
		return;
	event_log_close(events->log);
	events->log = NULL;
}

int api_events_keep(struct api_events *events, int dirfd, const char *name)
{
	int ret = event_log_open(&events->log, dirfd, name, API_EVENTS_KEPT, on_line, events);

	if (!ret && event_log_stale(events->log))
		rewrite_log(events);
	return ret;
}

void api_events_each(const struct api_events *events,
		     void (*fn)(void *data, const struct api_event *ev), void *data)
{
	for (uint64_t n = events->first; n < events->next; n++) {
		const struct kept *k = &events->ring[n % API_EVENTS_KEPT];
		struct json_object *obj = k->text ? json_tokener_parse(k->text) : NULL;
		const struct api_event ev = event_of(k, obj);

		if (obj)
			fn(data, &ev);
		json_object_put(obj);
	}
}

static void listener_free(struct api_listener *l)
{
	list_del(&l->link);
	free(l->machine);
	free(l);
}

void api_events_unlisten(struct api_listener *listener)
{
	if (!listener)
		return;
	if (listener->events->depth)
		listener->dead = true;
	else
		listener_free(listener);
}

static void pause_destroy(struct pause *p)
{
	list_del(&p->link);
	if (p->timer)
		event_free(p->timer);
	json_object_put(p->more);
	free(p);
}

static void subscription_destroy(struct subscription *s)
{
	list_del(&s->link);
	api_events_unlisten(s->listener);
	free(s);
}

void api_events_destroy(struct api_events *events)
{
	if (!events)
		return;
	while (!list_empty(&events->pauses))
		pause_destroy(list_first(&events->pauses, struct pause, link));
	while (!list_empty(&events->subscriptions))
		subscription_destroy(list_first(&events->subscriptions, struct subscription, link));
	while (!list_empty(&events->listeners))
		listener_free(list_first(&events->listeners, struct api_listener, link));
	forget_all(events);
	event_log_close(events->log);
	free(events);
}

/* ---- telling ---- */

static bool wants(const struct api_listener *l, const struct kept *k)
{
	return !l->dead && l->types >> k->type & 1 &&
	       (!l->machine || !strcmp(l->machine, k->machine)) &&
	       (l->all || api_caller_sees(&l->caller, k->owner));
}

static void tell(struct api_listener *l, const struct kept *k, struct json_object *obj)
{
	const struct api_event ev = event_of(k, obj);

	if (wants(l, k))
		l->fn(l->data, &ev);
}

/* One that was told before. */
static void tell_again(struct api_listener *l, const struct kept *k)
{
	struct json_object *obj = wants(l, k) && k->text ? json_tokener_parse(k->text) : NULL;

	if (obj)
		tell(l, k, obj);
	json_object_put(obj);
}

static void leave(struct api_events *events)
{
	struct api_listener *l, *tmp;

	if (--events->depth)
		return;
	list_for_each_entry_safe (l, tmp, &events->listeners, link)
		if (l->dead)
			listener_free(l);
}

static struct json_object *make_object(uint64_t seq, const char *type, const char *machine,
				       struct json_object *more)
{
	struct json_object *obj = json_object_new_object();
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	json_object_object_add(obj, "seq", json_object_new_int64((int64_t)seq));
	json_object_object_add(
		obj, "time", json_object_new_double((double)ts.tv_sec + (double)ts.tv_nsec / 1e9));
	json_object_object_add(obj, "type", json_object_new_string(type));
	if (*machine)
		json_object_object_add(obj, "machine", json_object_new_string(machine));
	if (more) {
		json_object_object_foreach(more, key, value)
			json_object_object_add(obj, key, json_object_get(value));
		json_object_put(more);
	}
	return obj;
}

/* Takes @more. */
static void tell_all(struct api_events *events, unsigned type, const char *machine,
		     const char *owner, struct json_object *more)
{
	struct json_object *obj =
		make_object(events->next, api_event_types[type].name, machine, more);
	const struct kept *k = keep(events, type, machine, owner, obj);
	struct api_listener *l, *tmp;

	if (events->log && k->text) {
		event_log_append(events->log, k->owner, k->text);
		if (event_log_stale(events->log))
			rewrite_log(events);
	}
	events->depth++;
	list_for_each_entry_safe (l, tmp, &events->listeners, link)
		tell(l, k, obj);
	leave(events);
	json_object_put(obj);
}

/* ---- kinds that can flood ---- */

static const struct timeval pause_time = {
	.tv_sec = API_EVENTS_PAUSE_MS / 1000,
	.tv_usec = API_EVENTS_PAUSE_MS % 1000 * 1000,
};

static void pause_tell(struct pause *p)
{
	struct json_object *more = p->more;

	p->more = NULL;
	if (p->left_out)
		json_object_object_add(more, "coalesced", json_object_new_int64(p->left_out));
	p->left_out = 0;
	tell_all(p->events, p->type, p->machine, p->owner, more);
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	struct pause *p = arg;

	if (!p->more) {
		pause_destroy(p);
		return;
	}
	evtimer_add(p->timer, &pause_time);
	pause_tell(p);
}

static struct pause *pause_find(struct api_events *events, unsigned type, const char *machine,
				int64_t job)
{
	struct pause *p;

	list_for_each_entry (p, &events->pauses, link)
		if (p->type == type && p->job == job && !strcmp(p->machine, machine))
			return p;
	return NULL;
}

/* A second begins in which no other of this kind is told. Without memory it is left out. */
static void pause_begin(struct api_events *events, unsigned type, const char *machine,
			const char *owner, int64_t job)
{
	struct pause *p = calloc(1, sizeof(*p));

	if (!p)
		return;
	p->events = events;
	p->type = type;
	p->job = job;
	snprintf(p->machine, sizeof(p->machine), "%s", machine);
	snprintf(p->owner, sizeof(p->owner), "%s", owner);
	list_add_tail(&events->pauses, &p->link);
	p->timer = evtimer_new(events->base, on_pause_over, p);
	if (!p->timer || evtimer_add(p->timer, &pause_time))
		pause_destroy(p);
}

/* What waits about @machine; NULL: about any. */
static void flush(struct api_events *events, const char *machine)
{
	struct pause *p, *tmp;

	list_for_each_entry_safe (p, tmp, &events->pauses, link)
		if (p->more && (!machine || !strcmp(p->machine, machine)))
			pause_tell(p);
}

void api_events_flush(struct api_events *events)
{
	flush(events, NULL);
}

void api_events_emit(struct api_events *events, const char *type, const char *machine,
		     const char *owner, struct json_object *more)
{
	struct json_object *v = NULL;
	struct pause *p;
	int t = type_of(type);
	int64_t job;

	machine = machine ? machine : "";
	owner = owner ? owner : "";
	if (t < 0) {
		json_object_put(more);
		assert(!"an event of no kind in the table");
		return;
	}
	if (!api_event_types[t].floods) {
		flush(events, machine);
		tell_all(events, (unsigned)t, machine, owner, more);
		return;
	}
	if (more)
		json_object_object_get_ex(more, "job", &v);
	job = json_object_get_int64(v);
	p = pause_find(events, (unsigned)t, machine, job);
	if (!p) {
		pause_begin(events, (unsigned)t, machine, owner, job);
		tell_all(events, (unsigned)t, machine, owner, more);
		return;
	}
	p->left_out += p->more != NULL;
	json_object_put(p->more);
	p->more = more ? more : json_object_new_object();
}

uint64_t api_events_last(const struct api_events *events)
{
	return events->next - 1;
}

bool api_events_lost(const struct api_events *events, uint64_t since)
{
	return since + 1 < events->first;
}

/* ---- listening ---- */

static const char *type_at(const void *data, size_t i)
{
	return api_event_types[i].name;
}

/* "state,job" as bits. 0, or -errno with *err. */
static int parse_types(const char *text, uint32_t *bits, struct api_error *err)
{
	size_t n = ARRAY_SIZE(api_event_types) - 1, len;
	const char *near;
	char word[64];

	*bits = text && *text ? 0 : ~0u;
	for (; text && *text; text += len + (text[len] == ',')) {
		size_t t = 0;

		len = strcspn(text, ",");
		snprintf(word, sizeof(word), "%.*s", (int)MIN(len, sizeof(word)), text);
		while (t < n && strcmp(api_event_types[t].name, word))
			t++;
		if (t < n) {
			*bits |= 1u << t;
			continue;
		}
		near = api_nearest(word, type_at, n, NULL);
		return api_error_field(err, "types", "there are no events \"%s\"%s%s%s", word,
				       near ? "; did you mean \"" : "", near ? near : "",
				       near ? "\"?" : "");
	}
	return 0;
}

int api_events_listen(struct api_events *events, const struct api_events_filter *filter,
		      api_event_fn fn, void *data, struct api_listener **out, struct api_error *err)
{
	struct api_listener *l;
	uint32_t types;
	int ret = parse_types(filter->types, &types, err);

	if (ret)
		return ret;
	l = calloc(1, sizeof(*l));
	if (!l || (filter->machine && !(l->machine = strdup(filter->machine)))) {
		free(l);
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	}
	l->events = events;
	l->fn = fn;
	l->data = data;
	l->types = types;
	l->all = !filter->caller;
	if (filter->caller)
		l->caller = *filter->caller;
	*out = l;
	events->depth++;
	for (uint64_t n = MAX(filter->since + 1, events->first); filter->replay && n < events->next;
	     n++)
		tell_again(l, &events->ring[n % API_EVENTS_KEPT]);
	list_add_tail(&events->listeners, &l->link);
	leave(events);
	return 0;
}

/* ---- the methods ---- */

static void notify(void *data, const struct api_event *ev)
{
	const struct subscription *s = data;

	api_session_notify(s->session, "event", ev->obj);
}

void api_events_session_gone(struct api_events *events, struct api_session *session)
{
	struct subscription *s, *tmp;

	list_for_each_entry_safe (s, tmp, &events->subscriptions, link)
		if (s->session == session)
			subscription_destroy(s);
}

/* 0, or -errno with *err. */
static int subscribe(struct api_events *events, struct api_session *session,
		     const struct api_events_filter *filter, struct api_error *err)
{
	struct subscription *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	s->session = session;
	list_init(&s->link);
	ret = api_events_listen(events, filter, notify, s, &s->listener, err);
	if (ret) {
		free(s);
		return ret;
	}
	api_events_session_gone(events, session); /* an earlier one is replaced */
	list_add_tail(&events->subscriptions, &s->link);
	return 0;
}

void api_events_subscribe(struct api_events *events, struct api_call *call)
{
	uint64_t last = api_events_last(events);
	const struct api_events_filter filter = {
		.replay = true,
		.since = (uint64_t)api_call_int(call, "since", (int64_t)last),
		.types = api_call_string(call, "types"),
		.machine = api_call_string(call, "machine"),
		.caller = api_call_caller(call),
	};
	struct api_session *session = api_call_session(call);
	struct json_object *obj;
	struct api_error err;

	if (session && subscribe(events, session, &filter, &err)) {
		api_call_error(call, &err);
		return;
	}
	obj = json_object_new_object();
	json_object_object_add(obj, "last", json_object_new_int64((int64_t)last));
	json_object_object_add(obj, "lost",
			       json_object_new_boolean(api_events_lost(events, filter.since)));
	api_call_reply(call, obj, -1);
}

void api_events_unsubscribe(struct api_events *events, struct api_call *call)
{
	api_events_session_gone(events, api_call_session(call));
	api_call_reply(call, NULL, -1);
}
