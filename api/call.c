/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One dispatcher for every transport: finds the row, checks who calls and with what, runs it. */
#include "api/call.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <json-c/json.h>

#include "base/cleanup.h"
#include "base/fault.h"

const char *const api_transport_names[API_T_JOB + 2] = {"rpc", "rest", "dbus", "job", NULL};

/* What happened to a call while its handler ran. */
struct watch {
	bool answered; /* its transport */
	bool freed;
};

struct api_call {
	struct list link;
	struct api_dispatcher *d;
	const struct api_method *method;
	struct api_caller caller;
	struct json_object *params;
	int fd;
	char machine[64];
	double began;
	const struct api_reply_ops *ops; /* NULL: the transport was answered, or has gone */
	void *priv;
	const struct api_job_ops *job_ops; /* NULL: no job */
	void *job;
	struct watch *watch; /* while api_dispatch() is still running */
	void (*gone)(struct api_call *call, void *data);
	void *gone_data;
};

double api_dispatch_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

bool api_caller_lost(const struct api_caller *now, const struct api_caller *was)
{
	return now->level < was->level || now->sees_all < was->sees_all ||
	       strcmp(now->name, was->name);
}

bool api_caller_sees(const struct api_caller *caller, const char *owner)
{
	return caller->sees_all || (*owner && !strcmp(caller->name, owner));
}

void api_dispatcher_init(struct api_dispatcher *d)
{
	list_init(&d->calls);
	list_init(&d->connections);
	d->n_calls = d->n_connections = 0;
}

static size_t or_default(size_t limit, size_t dflt)
{
	return limit ? limit : dflt;
}

static int check_caller(const struct api_dispatcher *d, const struct api_caller *caller,
			struct api_error *err)
{
	const size_t max =
		or_default(d->limits.connections_per_caller, API_CONNECTIONS_CALLER_DEFAULT);
	const struct api_connection *other;
	size_t n = 0;

	if (caller->level >= API_ADMIN || d->n_connections < max)
		return 0;
	list_for_each_entry (other, &d->connections, link)
		n += !strcmp(other->name, caller->name);
	if (n >= max)
		return api_error_set(err, API_KIND_LIMIT, "\"%s\" has %zu connections",
				     caller->name, n);
	return 0;
}

int api_connection_enter(struct api_connection *c, struct api_dispatcher *d,
			 const struct api_caller *caller, struct api_error *err)
{
	int ret;

	if (d->n_connections >= or_default(d->limits.connections, API_CONNECTIONS_DEFAULT))
		return api_error_set(err, API_KIND_LIMIT, "there are %zu connections",
				     d->n_connections);
	ret = check_caller(d, caller, err);
	if (ret)
		return ret;
	c->d = d;
	snprintf(c->name, sizeof(c->name), "%s", caller->name);
	list_add_tail(&d->connections, &c->link);
	d->n_connections++;
	return 0;
}

int api_connection_rename(struct api_connection *c, const struct api_caller *caller,
			  struct api_error *err)
{
	int ret = strcmp(c->name, caller->name) ? check_caller(c->d, caller, err) : 0;

	if (!ret)
		snprintf(c->name, sizeof(c->name), "%s", caller->name);
	return ret;
}

void api_connection_leave(struct api_connection *c)
{
	list_del(&c->link);
	c->d->n_connections--;
}

static void audit(const struct api_call *call, const struct api_error *err)
{
	const struct api_audit a = {
		.caller = &call->caller,
		.method = call->method,
		.machine = call->machine,
		.err = err,
		.seconds = api_dispatch_clock() - call->began,
	};

	if (call->d->audit)
		call->d->audit(call->d->data, &a);
}

void api_dispatch_count(struct api_dispatcher *d, const struct api_method *method,
			const struct api_caller *caller, const char *machine, double began)
{
	const struct api_audit a = {
		.caller = caller,
		.method = method,
		.machine = machine,
		.seconds = api_dispatch_clock() - began,
	};

	if (d->audit)
		d->audit(d->data, &a);
}

static void call_free(struct api_call *call)
{
	if (call->watch)
		call->watch->freed = true;
	list_del(&call->link);
	call->d->n_calls--;
	json_object_put(call->params);
	cleanup_close(&call->fd);
	free(call);
}

/* The transport's ops, once: nobody answers it again. */
static const struct api_reply_ops *take_ops(struct api_call *call)
{
	call->caller.session = NULL;
	if (call->watch)
		call->watch->answered = true;
	return TAKE_PTR(call->ops);
}

static const struct api_job_ops *take_job_ops(struct api_call *call)
{
	return TAKE_PTR(call->job_ops);
}

int api_dispatch_find(const struct api_dispatcher *d, const char *method,
		      const struct api_method **out, struct api_error *err)
{
	const char *near;

	*out = api_method_find(d->table, method);
	if (*out)
		return 0;
	near = api_method_nearest(d->table, method);
	return api_error_set(err, API_KIND_METHOD_NOT_FOUND, "there is no method \"%.64s\"%s%s%s",
			     method, near ? "; did you mean \"" : "", near ? near : "",
			     near ? "\"?" : "");
}

static int check_room(const struct api_dispatcher *d, const struct api_caller *caller,
		      struct api_error *err)
{
	const struct api_call *call;
	size_t n = 0;

	if (d->n_calls >= API_CALLS_TOTAL)
		return api_error_set(err, API_KIND_LIMIT, "%d calls are in flight",
				     API_CALLS_TOTAL);
	if (caller->level >= API_ADMIN || d->n_calls < API_CALLS_NAMED)
		return 0;
	list_for_each_entry (call, &d->calls, link)
		n += !strcmp(call->caller.name, caller->name);
	if (n >= API_CALLS_NAMED)
		return api_error_set(err, API_KIND_LIMIT, "%d calls of \"%s\" are in flight",
				     API_CALLS_NAMED, caller->name);
	return 0;
}

/* Whether @call may be served with its parameters. 0, or -errno with *err. */
static int check_call(const struct api_call *call, struct api_error *err)
{
	const struct api_method *m = call->method;
	const struct api_caller *caller = &call->caller;

	if (m->access > caller->level)
		return api_error_set(err, API_KIND_DENIED,
				     "%s needs the access level \"%s\", and %s has \"%s\" here",
				     m->name, api_access_name(m->access),
				     caller->name[0] ? caller->name : "who calls",
				     api_access_name(caller->level));
	if ((m->flags & API_M_FD_IN) && call->fd < 0)
		return api_error_set(err, API_KIND_INVALID_PARAMS, "%s must come with a descriptor",
				     m->name);
	return api_fields_check(&m->params, call->params, "", err);
}

static void run_handler(struct api_call *call)
{
	const struct api_dispatcher *d = call->d;
	const struct api_method *method = call->method;
	const void *ops = d->ops;
	api_handler handler = NULL;

	if (method->flags & API_M_MACHINE) {
		handler = d->forward;
		ops = d->machine_ops;
	}
	if (!handler && ops)
		handler = *(const api_handler *)((const char *)ops + method->handler);
	if (handler)
		handler(call);
	else
		api_call_fail(call, API_KIND_NOT_SUPPORTED, "%s is not served here", method->name);
}

/* The machine that the parameters name. */
static void find_machine(struct api_call *call)
{
	const struct api_field *f = api_field_find(&call->method->params, "name");

	if (f && f->type == API_NAME)
		api_call_set_machine(call, api_call_string(call, "name"));
}

static struct api_call *call_create(struct api_dispatcher *d, struct json_object *params, int fd,
				    const struct api_caller *caller)
{
	struct api_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->d = d;
	call->caller = *caller;
	call->params = params ? json_object_get(params) : json_object_new_object();
	call->fd = fd;
	call->began = api_dispatch_clock();
	list_add_tail(&d->calls, &call->link);
	d->n_calls++;
	return call;
}

struct api_call *api_dispatch(struct api_dispatcher *d, const char *method,
			      struct json_object *params, int fd, const struct api_caller *caller,
			      const struct api_reply_ops *ops, void *priv)
{
	struct watch watch = {false};
	struct api_call *call;
	struct api_error err;
	int ret = check_room(d, caller, &err);

	call = ret ? NULL : call_create(d, params, fd, caller);
	if (!call) {
		cleanup_close(&fd);
		if (!ret)
			api_error_set(&err, API_KIND_INTERNAL, "out of memory");
		ops->fail(priv, &err);
		return NULL;
	}
	call->ops = ops;
	call->priv = priv;
	call->watch = &watch;
	ret = api_dispatch_find(d, method, &call->method, &err);
	if (!ret)
		ret = check_call(call, &err);
	if (!ret) {
		find_machine(call);
		if (call->method->flags & API_M_LONG && d->begin_job)
			ret = d->begin_job(d->data, call, &err);
	}
	if (ret)
		api_call_error(call, &err);
	else
		run_handler(call);
	if (!watch.freed && call->job_ops && call->job_ops->running)
		call->job_ops->running(call->job);
	if (watch.freed)
		return NULL;
	call->watch = NULL;
	return watch.answered ? NULL : call;
}

/* The handler lets go of the call, for @err; who still listens is told, and the call freed. */
static void call_stop(struct api_call *call, const struct api_error *err)
{
	const struct api_reply_ops *ops = take_ops(call);
	const struct api_job_ops *job_ops = take_job_ops(call);

	call->gone(call, call->gone_data);
	if (job_ops)
		job_ops->ended(call->job, NULL, err);
	if (ops)
		ops->fail(call->priv, err);
	audit(call, err);
	call_free(call);
}

static const struct api_error cancelled = {.kind = API_KIND_CANCELLED,
					   .text = "the call was cancelled"};

void api_call_gone(struct api_call *call)
{
	take_ops(call);
	if (call->job_ops && call->job_ops->stays(call->job))
		return;
	if (call->gone)
		call_stop(call, &cancelled);
}

int api_call_cancel(struct api_call *call)
{
	if (!call->gone)
		return -EBUSY;
	call_stop(call, &cancelled);
	return 0;
}

void api_dispatcher_finish(struct api_dispatcher *d)
{
	while (!list_empty(&d->calls)) {
		struct api_call *call = list_first(&d->calls, struct api_call, link);

		take_ops(call);
		take_job_ops(call);
		if (call->gone)
			call->gone(call, call->gone_data);
		call_free(call);
	}
}

struct json_object *api_call_params(const struct api_call *call)
{
	return call->params;
}

const struct api_method *api_call_method(const struct api_call *call)
{
	return call->method;
}

void *api_call_data(const struct api_call *call)
{
	const struct api_dispatcher *d = call->d;

	return call->method->flags & API_M_MACHINE && !d->forward ? d->machine_data : d->data;
}

struct api_dispatcher *api_call_dispatcher(const struct api_call *call)
{
	return call->d;
}

const struct api_caller *api_call_caller(const struct api_call *call)
{
	return &call->caller;
}

struct api_session *api_call_session(const struct api_call *call)
{
	return call->caller.session;
}

bool api_call_passes_fds(const struct api_call *call)
{
	return call->ops && call->caller.passes_fds;
}

int api_call_take_fd(struct api_call *call)
{
	return TAKE_FD(call->fd);
}

void api_call_on_gone(struct api_call *call, void (*gone)(struct api_call *call, void *data),
		      void *data)
{
	call->gone = gone;
	call->gone_data = data;
}

void api_call_set_machine(struct api_call *call, const char *name)
{
	snprintf(call->machine, sizeof(call->machine), "%s", name ? name : "");
}

void api_call_set_job(struct api_call *call, const struct api_job_ops *ops, void *job)
{
	call->job_ops = ops;
	call->job = job;
}

void api_call_answer_early(struct api_call *call, struct json_object *result)
{
	const struct api_reply_ops *ops = take_ops(call);

	if (ops)
		ops->reply(call->priv, result, -1);
	else
		json_object_put(result);
}

void api_call_progress(struct api_call *call, double fraction, const char *what)
{
	if (call->job_ops)
		call->job_ops->progress(call->job, fraction, what);
	if (call->ops && call->ops->progress)
		call->ops->progress(call->priv, fraction, what);
}

void api_call_reply(struct api_call *call, struct json_object *result, int fd)
{
	const struct api_reply_ops *ops = take_ops(call);
	const struct api_job_ops *job_ops = take_job_ops(call);
	struct json_object *instead;
	bool changes;

	if (!result)
		result = json_object_new_object();
	instead = job_ops ? job_ops->ended(call->job, result, NULL) : NULL;
	if (instead) {
		json_object_put(result);
		result = instead;
	}
	if (!call->caller.passes_fds)
		cleanup_close(&fd), fd = -1;
	if (fd >= 0)
		json_object_object_add(result, "fds", json_object_new_int(1));
	changes = call->method && call->method->access >= API_OPERATE;
	if (changes)
		fault_point(FAULT_REPLY);
	if (ops) {
		ops->reply(call->priv, result, fd);
	} else {
		json_object_put(result);
		cleanup_close(&fd);
	}
	if (changes)
		fault_point(FAULT_REPLY_DONE);
	audit(call, NULL);
	call_free(call);
}

void api_call_error(struct api_call *call, const struct api_error *err)
{
	const struct api_reply_ops *ops = take_ops(call);
	const struct api_job_ops *job_ops = take_job_ops(call);
	struct api_error e = *err;

	if (!e.machine[0])
		snprintf(e.machine, sizeof(e.machine), "%s", call->machine);
	if (job_ops)
		job_ops->ended(call->job, NULL, &e);
	if (ops)
		ops->fail(call->priv, &e);
	audit(call, &e);
	call_free(call);
}

void api_call_fail(struct api_call *call, enum api_kind kind, const char *fmt, ...)
{
	struct api_error err = {.kind = kind};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err.text, sizeof(err.text), fmt, ap);
	va_end(ap);
	api_call_error(call, &err);
}

static struct json_object *param(const struct api_call *call, const char *name)
{
	struct json_object *v;

	return json_object_object_get_ex(call->params, name, &v) ? v : NULL;
}

const char *api_call_string(const struct api_call *call, const char *name)
{
	struct json_object *v = param(call, name);

	return v ? json_object_get_string(v) : NULL;
}

bool api_call_bool(const struct api_call *call, const char *name, bool dflt)
{
	struct json_object *v = param(call, name);

	return v ? json_object_get_boolean(v) : dflt;
}

int64_t api_call_int(const struct api_call *call, const char *name, int64_t dflt)
{
	struct json_object *v = param(call, name);

	return v ? json_object_get_int64(v) : dflt;
}

uint64_t api_call_addr(const struct api_call *call, const char *name, uint64_t dflt)
{
	struct json_object *v = param(call, name);

	return v ? api_addr_get(v) : dflt;
}

double api_call_number(const struct api_call *call, const char *name, double dflt)
{
	struct json_object *v = param(call, name);

	return v ? json_object_get_double(v) : dflt;
}
