/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs: every call of an API_M_LONG row, with its progress, its end and its result for a while. */
#ifndef UMBRA_API_JOBS_H
#define UMBRA_API_JOBS_H

#include "api/call.h"
#include "api/events.h"

struct api_jobs;
struct event_base;

#define API_JOBS_RUNNING_MAX 4096
#define API_JOBS_KEPT	     256 /* ended ones, unless api_jobs_set_limits() says otherwise … */
#define API_JOBS_KEPT_S	     600 /* … and for how many seconds */

enum api_job_state {
	API_JOB_RUNNING,
	API_JOB_DONE,
	API_JOB_FAILED,
	API_JOB_CANCELLED,
	API_JOB_STATES,
};
extern const char *const api_job_state_names[API_JOB_STATES + 1];
/*
 * Ids only grow, also from one umbrad to the next. @events (may be NULL) gets "job" {job, method,
 * state} when one begins and ends, and "progress" {job, fraction, what}.
 */
int api_jobs_create(struct api_jobs **out, struct event_base *base, struct api_events *events);
/* After the dispatcher is finished. NULL-safe. */
void api_jobs_destroy(struct api_jobs *jobs);
/* How many ended ones are kept, and for how many seconds; from now on. */
void api_jobs_set_limits(struct api_jobs *jobs, size_t kept, double seconds);
/*
 * For the dispatcher's begin_job: makes @call a job. Unless its caller waits (parameter "wait", by
 * default true for API_T_RPC, false for the others) it is answered with the job's object now; a
 * call that fails before its handler has returned is answered with its error and is no job.
 * 0, or -errno with *@err.
 */
int api_jobs_begin(struct api_jobs *jobs, struct api_call *call, struct api_error *err);
/* How many jobs there are in each state, of all callers. */
void api_jobs_count(const struct api_jobs *jobs, size_t count[API_JOB_STATES]);
/*
 * Tell every job that @caller (NULL: anybody) may see, oldest first. @obj is borrowed: as job.show
 * gives it.
 */
void api_jobs_each(struct api_jobs *jobs, const struct api_caller *caller,
		   void (*fn)(void *data, struct json_object *obj), void *data);
/* A job as an object, a new reference; NULL: there is none that @caller (NULL: anybody) may see. */
struct json_object *api_job_to_json(struct api_jobs *jobs, uint64_t id,
				    const struct api_caller *caller);

/* The handlers of job.list, job.show, job.wait and job.cancel. */
void api_jobs_list(struct api_jobs *jobs, struct api_call *call);
void api_jobs_show(struct api_jobs *jobs, struct api_call *call);
void api_jobs_wait(struct api_jobs *jobs, struct api_call *call);
void api_jobs_cancel(struct api_jobs *jobs, struct api_call *call);

#endif
