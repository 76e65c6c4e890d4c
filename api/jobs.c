/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs: every call of an API_M_LONG row, with its progress, its end and its result for a while. */
#include "api/jobs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/event.h>
#include <json-c/json.h>

#include "base/list.h"

/* Ids begin at the milliseconds since then: nobody makes a job in one, so that a later umbrad's are
 * above ours. */
#define ID_EPOCH 1767225600

const char *const api_job_state_names[API_JOB_STATES + 1] = {
	[API_JOB_RUNNING] = "running",	   [API_JOB_DONE] = "done", [API_JOB_FAILED] = "failed",
	[API_JOB_CANCELLED] = "cancelled", [API_JOB_STATES] = NULL,
};

struct job {
	struct list link; /* in running or ended */
	struct api_jobs *jobs;
	uint64_t id;
	const struct api_method *method;
	char machine[64], owner[API_CALLER_NAME], what[128];
	enum api_job_state state;
	double fraction, started, ended;
	struct json_object *result, *error;
	struct api_call *call; /* while it runs */
	bool waits;	       /* its caller does */
	bool announced;	       /* its handler has returned; before, nobody knows of it */
	struct list waiters;
};

/* A job.wait that is not answered yet. */
struct waiter {
	struct list link;
	struct api_call *call;
	struct event *timer; /* or NULL */
	struct job *job;
};

struct api_jobs {
	struct event_base *base;
	struct api_events *events;
	struct list running, ended;
	size_t count[API_JOB_STATES];
	uint64_t last_id;
	struct event *expiry; /* of the oldest ended one */
	size_t kept;
	double kept_s;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static size_t n_ended(const struct api_jobs *jobs)
{
	return jobs->count[API_JOB_DONE] + jobs->count[API_JOB_FAILED] +
	       jobs->count[API_JOB_CANCELLED];
}

static void waiter_free(struct waiter *w)
{
	list_del(&w->link);
	if (w->timer)
		event_free(w->timer);
	free(w);
}

static void job_free(struct job *job)
{
	list_del(&job->link);
	if (job->announced)
		job->jobs->count[job->state]--;
	while (!list_empty(&job->waiters))
		waiter_free(list_first(&job->waiters, struct waiter, link));
	json_object_put(job->result);
	json_object_put(job->error);
	free(job);
}

static void on_expiry(evutil_socket_t fd, short what, void *arg);

int api_jobs_create(struct api_jobs **out, struct event_base *base, struct api_events *events)
{
	struct api_jobs *jobs = calloc(1, sizeof(*jobs));

	if (!jobs)
		return -ENOMEM;
	jobs->expiry = evtimer_new(base, on_expiry, jobs);
	if (!jobs->expiry) {
		free(jobs);
		return -ENOMEM;
	}
	jobs->kept = API_JOBS_KEPT;
	jobs->kept_s = API_JOBS_KEPT_S;
	jobs->base = base;
	jobs->events = events;
	jobs->last_id = (uint64_t)(MAX(now() - ID_EPOCH, 0.0) * 1000);
	list_init(&jobs->running);
	list_init(&jobs->ended);
	*out = jobs;
	return 0;
}

void api_jobs_destroy(struct api_jobs *jobs)
{
	if (!jobs)
		return;
	while (!list_empty(&jobs->running))
		job_free(list_first(&jobs->running, struct job, link));
	while (!list_empty(&jobs->ended))
		job_free(list_first(&jobs->ended, struct job, link));
	event_free(jobs->expiry);
	free(jobs);
}

static void add_string(struct json_object *obj, const char *name, const char *value)
{
	if (*value)
		json_object_object_add(obj, name, json_object_new_string(value));
}

static struct json_object *to_json(const struct job *job)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "id", json_object_new_int64((int64_t)job->id));
	add_string(obj, "method", job->method->name);
	add_string(obj, "machine", job->machine);
	json_object_object_add(obj, "owner", json_object_new_string(job->owner));
	add_string(obj, "state", api_job_state_names[job->state]);
	json_object_object_add(obj, "progress", json_object_new_double(job->fraction));
	add_string(obj, "what", job->what);
	json_object_object_add(obj, "started", json_object_new_double(job->started));
	if (job->state != API_JOB_RUNNING)
		json_object_object_add(obj, "ended", json_object_new_double(job->ended));
	if (job->result)
		json_object_object_add(obj, "result", json_object_get(job->result));
	if (job->error)
		json_object_object_add(obj, "error", json_object_get(job->error));
	return obj;
}

/* What every event about a job has. */
static struct json_object *event_of(const struct job *job)
{
	struct json_object *more = json_object_new_object();

	json_object_object_add(more, "job", json_object_new_int64((int64_t)job->id));
	add_string(more, "method", job->method->name);
	return more;
}

static void emit_state(const struct job *job)
{
	struct json_object *more;

	if (!job->jobs->events)
		return;
	more = event_of(job);
	add_string(more, "state", api_job_state_names[job->state]);
	api_events_emit(job->jobs->events, "job", job->machine, job->owner, more);
}

/* ---- old ones are forgotten ---- */

static void plan_expiry(struct api_jobs *jobs)
{
	struct timeval tv = {0};
	double left;

	if (list_empty(&jobs->ended)) {
		evtimer_del(jobs->expiry);
		return;
	}
	left = list_first(&jobs->ended, struct job, link)->ended + jobs->kept_s - now();
	/* The time of day may be set back: nothing is kept longer for it. */
	left = MIN(MAX(left, 0.0), jobs->kept_s);
	tv.tv_sec = (time_t)left + 1;
	evtimer_add(jobs->expiry, &tv);
}

static void forget_old(struct api_jobs *jobs)
{
	struct job *job, *tmp;

	while (n_ended(jobs) > jobs->kept)
		job_free(list_first(&jobs->ended, struct job, link));
	list_for_each_entry_safe (job, tmp, &jobs->ended, link)
		if (now() - job->ended >= jobs->kept_s)
			job_free(job);
	plan_expiry(jobs);
}

static void on_expiry(evutil_socket_t fd, short what, void *arg)
{
	forget_old(arg);
}

static void keep_ended(struct job *job)
{
	struct api_jobs *jobs = job->jobs;

	list_del(&job->link);
	list_add_tail(&jobs->ended, &job->link);
	forget_old(jobs);
}

void api_jobs_set_limits(struct api_jobs *jobs, size_t kept, double seconds)
{
	jobs->kept = kept;
	jobs->kept_s = seconds;
	forget_old(jobs);
}

/* ---- a job's life ---- */

/* Its caller may know of it from here on. */
static void announce(struct job *job)
{
	job->announced = true;
	job->jobs->count[job->state]++;
}

static void on_running(void *data)
{
	struct job *job = data;

	announce(job);
	emit_state(job);
	if (!job->waits)
		api_call_answer_early(job->call, to_json(job));
}

static void answer_waiters(struct job *job)
{
	while (!list_empty(&job->waiters)) {
		struct waiter *w = list_first(&job->waiters, struct waiter, link);
		struct api_call *call = w->call;

		waiter_free(w);
		api_call_reply(call, to_json(job), -1);
	}
}

static struct json_object *copy(struct json_object *obj)
{
	struct json_object *ret = NULL;

	return json_object_deep_copy(obj, &ret, NULL) ? NULL : ret;
}

static void set_end(struct job *job, struct json_object *result, const struct api_error *err)
{
	job->call = NULL;
	job->ended = now();
	if (!err) {
		job->state = API_JOB_DONE;
		job->fraction = 1;
		/* The one that goes out will be told of its descriptor. */
		job->result =
			job->method->flags & API_M_FD_OUT ? copy(result) : json_object_get(result);
		return;
	}
	job->state = err->kind == API_KIND_CANCELLED ? API_JOB_CANCELLED : API_JOB_FAILED;
	job->error = api_error_to_json(err);
}

static struct json_object *on_ended(void *data, struct json_object *result,
				    const struct api_error *err)
{
	struct job *job = data;
	bool early = !job->announced && !job->waits;

	if (!job->announced && (err || job->waits)) {
		job_free(job); /* it took no time: nobody knows of it, or need to */
		return NULL;
	}
	if (job->announced)
		job->jobs->count[API_JOB_RUNNING]--;
	set_end(job, result, err);
	if (early)
		announce(job);
	else
		job->jobs->count[job->state]++;
	emit_state(job);
	result = early ? to_json(job) : NULL;
	answer_waiters(job);
	keep_ended(job);
	return result;
}

static void on_progress(void *data, double fraction, const char *what)
{
	struct job *job = data;
	struct json_object *more;

	job->fraction = MIN(MAX(fraction, 0.0), 1.0);
	snprintf(job->what, sizeof(job->what), "%s", what ? what : "");
	if (!job->announced || !job->jobs->events)
		return;
	more = event_of(job);
	json_object_object_add(more, "fraction", json_object_new_double(job->fraction));
	add_string(more, "what", job->what);
	api_events_emit(job->jobs->events, "progress", job->machine, job->owner, more);
}

/* Nobody misses the answer of one that changes nothing. */
static bool stays(void *data)
{
	const struct job *job = data;

	return job->method->access > API_READ;
}

static const struct api_job_ops call_ops = {
	.running = on_running,
	.ended = on_ended,
	.progress = on_progress,
	.stays = stays,
};

int api_jobs_begin(struct api_jobs *jobs, struct api_call *call, struct api_error *err)
{
	const struct api_caller *caller = api_call_caller(call);
	const char *machine = api_call_string(call, "name");
	struct job *job;

	if (jobs->count[API_JOB_RUNNING] >= API_JOBS_RUNNING_MAX)
		return api_error_set(err, API_KIND_LIMIT, "%d jobs are running",
				     API_JOBS_RUNNING_MAX);
	job = calloc(1, sizeof(*job));
	if (!job)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	job->jobs = jobs;
	job->id = ++jobs->last_id;
	job->method = api_call_method(call);
	job->call = call;
	job->waits = api_call_bool(call, "wait", caller->transport == API_T_RPC);
	job->started = now();
	snprintf(job->machine, sizeof(job->machine), "%s", machine ? machine : "");
	snprintf(job->owner, sizeof(job->owner), "%s", caller->name);
	list_init(&job->waiters);
	list_add_tail(&jobs->running, &job->link);
	api_call_set_job(call, &call_ops, job);
	return 0;
}

/* ---- asking ---- */

void api_jobs_count(const struct api_jobs *jobs, size_t count[API_JOB_STATES])
{
	memcpy(count, jobs->count, sizeof(jobs->count));
}

static bool visible(const struct job *job, const struct api_caller *caller)
{
	return job->announced && (!caller || api_caller_sees(caller, job->owner));
}

static void each(struct list *list, const struct api_caller *caller,
		 void (*fn)(void *data, struct json_object *obj), void *data)
{
	struct job *job;

	list_for_each_entry (job, list, link) {
		struct json_object *obj;

		if (!visible(job, caller))
			continue;
		obj = to_json(job);
		fn(data, obj);
		json_object_put(obj);
	}
}

void api_jobs_each(struct api_jobs *jobs, const struct api_caller *caller,
		   void (*fn)(void *data, struct json_object *obj), void *data)
{
	each(&jobs->ended, caller, fn, data);
	each(&jobs->running, caller, fn, data);
}

static struct job *find(struct api_jobs *jobs, uint64_t id, const struct api_caller *caller)
{
	struct list *const lists[] = {&jobs->running, &jobs->ended};
	struct job *job;

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		list_for_each_entry (job, lists[i], link)
			if (job->id == id && visible(job, caller))
				return job;
	return NULL;
}

struct json_object *api_job_to_json(struct api_jobs *jobs, uint64_t id,
				    const struct api_caller *caller)
{
	struct job *job = find(jobs, id, caller);

	return job ? to_json(job) : NULL;
}

/* The job that the call names; NULL: the call has been answered. */
static struct job *find_for(struct api_jobs *jobs, struct api_call *call)
{
	uint64_t id = (uint64_t)api_call_int(call, "id", 0);
	struct job *job = find(jobs, id, api_call_caller(call));

	if (!job)
		api_call_fail(call, API_KIND_NOT_FOUND,
			      "there is no job %llu, or it ended too long ago",
			      (unsigned long long)id);
	return job;
}

static void add_to(void *data, struct json_object *obj)
{
	json_object_array_add(data, json_object_get(obj));
}

void api_jobs_list(struct api_jobs *jobs, struct api_call *call)
{
	struct json_object *obj = json_object_new_object(), *all = json_object_new_array();

	api_jobs_each(jobs, api_call_caller(call), add_to, all);
	json_object_object_add(obj, "jobs", all);
	api_call_reply(call, obj, -1);
}

void api_jobs_show(struct api_jobs *jobs, struct api_call *call)
{
	struct job *job = find_for(jobs, call);

	if (job)
		api_call_reply(call, to_json(job), -1);
}

static void on_waiter_gone(struct api_call *call, void *data)
{
	waiter_free(data);
}

static void on_waiter_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct waiter *w = arg;
	struct api_call *call = w->call;
	uint64_t id = w->job->id;

	waiter_free(w);
	api_call_fail(call, API_KIND_TIMEOUT, "job %llu has not ended in the time allowed",
		      (unsigned long long)id);
}

void api_jobs_wait(struct api_jobs *jobs, struct api_call *call)
{
	double timeout = api_call_number(call, "timeout", 0);
	struct job *job = find_for(jobs, call);
	struct timeval tv = {.tv_sec = (time_t)timeout};
	struct waiter *w;

	if (!job)
		return;
	if (job->state != API_JOB_RUNNING) {
		api_call_reply(call, to_json(job), -1);
		return;
	}
	w = calloc(1, sizeof(*w));
	if (w && timeout > 0)
		w->timer = evtimer_new(jobs->base, on_waiter_timeout, w);
	if (!w || (timeout > 0 && !w->timer)) {
		free(w);
		api_call_fail(call, API_KIND_INTERNAL, "out of memory");
		return;
	}
	w->call = call;
	w->job = job;
	list_add_tail(&job->waiters, &w->link);
	api_call_on_gone(call, on_waiter_gone, w);
	tv.tv_usec = (suseconds_t)((timeout - (double)tv.tv_sec) * 1e6);
	if (w->timer)
		evtimer_add(w->timer, &tv);
}

void api_jobs_cancel(struct api_jobs *jobs, struct api_call *call)
{
	struct job *job = find_for(jobs, call);

	if (!job)
		return;
	if (job->state != API_JOB_RUNNING)
		api_call_fail(call, API_KIND_INVALID_STATE, "job %llu has ended already",
			      (unsigned long long)job->id);
	else if (api_call_cancel(job->call))
		api_call_fail(call, API_KIND_INVALID_STATE, "%s cannot be stopped half-way",
			      job->method->name);
	else
		api_call_reply(call, NULL, -1);
}
