/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbrad's state: one event loop, many machines. */
#ifndef UMBRA_DAEMON_UMBRAD_H
#define UMBRA_DAEMON_UMBRAD_H

#include "api/api.h"
#include "api/events.h"
#include "api/jobs.h"
#include "api/paths.h"
#include "base/list.h"
#include "daemon/config.h"

struct auth;
struct dbus;
struct event;
struct event_base;

struct umbrad {
	struct event_base *base;
	struct api_paths paths;
	struct umbrad_config config; /* a reload changes it, in apply_config() */
	const char *config_file;     /* NULL: where it is by default */
	bool verbose;
	int run_fd;   /* RUNTIME */
	int vm_fd;    /* RUNTIME/vm: sockets, reports and run records of running machines */
	int store_fd; /* STATE/machines: definitions and last ends */
	int logs_fd;  /* STATE/logs */
	int lock_fd;
	char *vm_program;
	struct api_dispatcher dispatcher; /* of every transport */
	struct auth *auth;
	struct dbus *dbus; /* NULL: not wanted */
	struct api_server *server;
	struct api_rest *rest;
	struct metrics *metrics;
	struct api_events *events;
	struct api_jobs *jobs;
	struct units *units; /* NULL: no service manager, processes are our children */
	struct supervise *supervise;
	struct list machines;
	size_t n_machines, n_running;
	uint64_t last_name; /* of the names that we make up */
	int idle_exit_s;    /* 0: never */
	int idle_s;
	bool quitting; /* connections that close now end no machine */
	struct event *tick;
};

extern const struct api_ops umbrad_ops;
/* Serves every API_M_MACHINE row. */
void umbrad_forward(struct api_call *call);
/* The dispatcher's begin_job. */
int umbrad_begin_job(void *data, struct api_call *call, struct api_error *err);

/* A connection has come or gone: bound machines end with theirs. */
void umbrad_session_changed(void *data, struct api_session *session, int change);

#endif
