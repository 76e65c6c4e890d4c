/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the umbrad before us did and could not tell, because it was killed in between: found by
 * comparing the events that it wrote down with what there is. Each event is written before it is
 * told and after what it tells has been done, so that no more than the last one of each machine can
 * be missing.
 */
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "api/events.h"
#include "api/jobs.h"
#include "daemon/machine_internal.h"
#include "daemon/store.h"
#include "daemon/supervise.h"

/* A file's time may be that much behind the clock. */
#define FILE_CLOCK_S 0.02

/* What has been told of a machine, or of a job (@job is not 0). */
struct told {
	struct list link;
	char name[64], owner[API_CALLER_NAME], state[32], method[64];
	int64_t job;
	bool gone; /* it was told to be no more */
};

struct past {
	struct list told;
	double last; /* when the last event was */
	bool failed; /* no memory */
};

static struct told *find(struct past *past, const char *name, int64_t job)
{
	struct told *t;

	list_for_each_entry (t, &past->told, link)
		if (t->job == job && !strcmp(t->name, name))
			return t;
	t = calloc(1, sizeof(*t));
	if (!t) {
		past->failed = true;
		return NULL;
	}
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->job = job;
	list_add_tail(&past->told, &t->link);
	return t;
}

static void copy_member(char *out, size_t len, struct json_object *obj, const char *name)
{
	struct json_object *v;

	if (json_object_object_get_ex(obj, name, &v) && json_object_is_type(v, json_type_string))
		snprintf(out, len, "%s", json_object_get_string(v));
}

static void on_past(void *data, const struct api_event *ev)
{
	bool job = !strcmp(ev->type, "job"), created = !strcmp(ev->type, "created");
	struct past *past = data;
	struct json_object *v;
	struct told *t;

	if (json_object_object_get_ex(ev->obj, "time", &v))
		past->last = json_object_get_double(v);
	if (!job && !*ev->machine)
		return;
	v = NULL;
	if (job)
		json_object_object_get_ex(ev->obj, "job", &v);
	t = find(past, ev->machine, json_object_get_int64(v));
	if (!t)
		return;
	snprintf(t->owner, sizeof(t->owner), "%s", ev->owner);
	if (created)
		t->state[0] = 0;
	if (job || !strcmp(ev->type, "state"))
		copy_member(t->state, sizeof(t->state), ev->obj, "state");
	copy_member(t->method, sizeof(t->method), ev->obj, "method");
	t->gone = !strcmp(ev->type, "deleted");
}

/* Jobs end with their umbrad; what became of them shows in their machines. */
static void tell_job(struct umbrad *d, const struct told *t)
{
	struct json_object *more = json_object_new_object();

	json_object_object_add(more, "job", json_object_new_int64(t->job));
	json_object_object_add(more, "method", json_object_new_string(t->method));
	json_object_object_add(more, "state", json_object_new_string("lost"));
	api_events_emit(d->events, "job", t->name, t->owner, more);
}

static void tell_machine(struct umbrad *d, const struct told *t)
{
	struct machine *m = machine_find(d, t->name);

	if (!m && !t->gone)
		api_events_emit(d->events, "deleted", t->name, t->owner, NULL);
	else if (m && t->gone)
		machine_emit(m, "created", NULL);
	/* Where there is a process, or is to be asked how it ended, that is told when it is known.
	 */
	if (m && !t->gone && t->state[0] && m->state == MACHINE_STOPPED &&
	    (m->restart_at > 0 || !store_has_run(m)) &&
	    strcmp(t->state, machine_state_names[MACHINE_STOPPED]))
		machine_emit_state(m);
}

/* Those that have been made after all that was told. */
static void tell_new(struct umbrad *d, struct past *past)
{
	struct machine *m;

	list_for_each_entry (m, &d->machines, link) {
		struct told *t;
		bool known = false;

		list_for_each_entry (t, &past->told, link)
			known |= !t->job && !strcmp(t->name, m->def.name);
		if (!known && store_defined(m) + FILE_CLOCK_S >= past->last)
			machine_emit(m, "created", NULL);
	}
}

void supervise_tell_missed(struct umbrad *d)
{
	struct past past = {0};
	struct told *t, *tmp;

	list_init(&past.told);
	api_events_each(d->events, on_past, &past);
	list_for_each_entry (t, &past.told, link) {
		if (!t->job)
			tell_machine(d, t);
		else if (!strcmp(t->state, api_job_state_names[API_JOB_RUNNING]))
			tell_job(d, t);
	}
	if (!list_empty(&past.told) && !past.failed)
		tell_new(d, &past);
	list_for_each_entry_safe (t, tmp, &past.told, link) {
		list_del(&t->link);
		free(t);
	}
}
