/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A control group for a umbra-vm that no systemd looks after: in both of the kernel's layouts. */
#ifndef UMBRA_DAEMON_CGROUP_H
#define UMBRA_DAEMON_CGROUP_H

#include "api/machine_def.h"

struct json_object;
struct cgroup;

/*
 * Where group @name would be, below our own one, in every hierarchy that @def's limits need
 * (version 2, and of version 1: memory, cpu, pids, blkio). Nothing is made yet, so that it can be
 * recorded first. NULL: no memory.
 */
struct cgroup *cgroup_create(const char *name, const struct machine_def *def);
/* Make it, with @def's limits; what the host does not let us have is in cgroup_missing(). */
void cgroup_make(struct cgroup *cg, const struct machine_def *def);
/* One that a umbrad made before, from cgroup_to_json(); NULL when @obj is none. */
struct cgroup *cgroup_from_json(struct json_object *obj);
/* Its folders, as an array. */
struct json_object *cgroup_to_json(const struct cgroup *cg);
/* Half a sentence a limit that is not kept, parted by "; ", or "". */
const char *cgroup_missing(const struct cgroup *cg);

/* Descriptors of the files that a process joins by writing "0" to; at most @max. The number. */
#define CGROUP_JOINS_MAX 5
size_t cgroup_joins(const struct cgroup *cg, int fds[CGROUP_JOINS_MAX]);
/* SIGKILL to all that is in it. */
void cgroup_kill(const struct cgroup *cg);
/* Kill what is left in it, and remove it. NULL-safe; frees @cg too. */
void cgroup_destroy(struct cgroup *cg);
/* Free @cg only: the group stays. NULL-safe. */
void cgroup_forget(struct cgroup *cg);

#endif
