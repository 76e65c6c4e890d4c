/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbered events, kept for a while and told to those who subscribed. */
#include "api/events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <json-c/json.h>

#include "api/server.h"
#include "base/list.h"

struct subscriber {
	struct list link;
	struct api_session *session;
	char *machine; /* or NULL: all */
};

struct event {
	struct json_object *obj;
	char machine[64];
};

struct api_events {
	struct event ring[API_EVENTS_KEPT]; /* event n in place n % API_EVENTS_KEPT */
	uint64_t first, next;		    /* the oldest that is kept; the next to come */
	struct list subscribers;
};

int api_events_create(struct api_events **out)
{
	struct api_events *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	/* Under a thousand events a second on average, a later umbrad begins above this one. */
	e->first = e->next = (uint64_t)time(NULL) * 1000;
	list_init(&e->subscribers);
	*out = e;
	return 0;
}

static void subscriber_destroy(struct subscriber *s)
{
	list_del(&s->link);
	free(s->machine);
	free(s);
}

void api_events_destroy(struct api_events *events)
{
	if (!events)
		return;
	while (!list_empty(&events->subscribers))
		subscriber_destroy(list_first(&events->subscribers, struct subscriber, link));
	for (size_t i = 0; i < API_EVENTS_KEPT; i++)
		json_object_put(events->ring[i].obj);
	free(events);
}

static void tell(const struct subscriber *s, const struct event *ev)
{
	if (!s->machine || !strcmp(s->machine, ev->machine))
		api_session_notify(s->session, "event", ev->obj);
}

void api_events_emit(struct api_events *events, const char *type, const char *machine,
		     struct json_object *more)
{
	struct event *ev = &events->ring[events->next % API_EVENTS_KEPT];
	struct json_object *obj = json_object_new_object();
	struct subscriber *s, *tmp;
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	json_object_object_add(obj, "seq", json_object_new_int64((int64_t)events->next));
	json_object_object_add(
		obj, "time", json_object_new_double((double)ts.tv_sec + (double)ts.tv_nsec / 1e9));
	json_object_object_add(obj, "type", json_object_new_string(type));
	json_object_object_add(obj, "machine", json_object_new_string(machine));
	if (more) {
		json_object_object_foreach(more, key, value)
			json_object_object_add(obj, key, json_object_get(value));
		json_object_put(more);
	}
	json_object_put(ev->obj);
	ev->obj = obj;
	strncpy(ev->machine, machine, sizeof(ev->machine) - 1);
	if (++events->next - events->first > API_EVENTS_KEPT)
		events->first++;
	list_for_each_entry_safe (s, tmp, &events->subscribers, link)
		tell(s, ev);
}

uint64_t api_events_last(const struct api_events *events)
{
	return events->next - 1;
}

bool api_events_lost(const struct api_events *events, uint64_t since)
{
	return since + 1 < events->first;
}

int api_events_subscribe(struct api_events *events, struct api_session *session, uint64_t since,
			 const char *machine)
{
	struct subscriber *s = calloc(1, sizeof(*s));

	if (!s || (machine && !(s->machine = strdup(machine)))) {
		free(s);
		return -ENOMEM;
	}
	api_events_unsubscribe(events, session);
	s->session = session;
	for (uint64_t n = MAX(since + 1, events->first); n < events->next; n++)
		tell(s, &events->ring[n % API_EVENTS_KEPT]);
	list_add_tail(&events->subscribers, &s->link);
	return 0;
}

void api_events_unsubscribe(struct api_events *events, struct api_session *session)
{
	struct subscriber *s, *tmp;

	list_for_each_entry_safe (s, tmp, &events->subscribers, link)
		if (s->session == session)
			subscriber_destroy(s);
}
