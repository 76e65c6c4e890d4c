/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbra-vm gives up before the guest's first instruction. */
#ifndef UMBRA_VM_SANDBOX_H
#define UMBRA_VM_SANDBOX_H

#include <stdio.h>
#include <sys/types.h>

#include "api/error.h"
#include "base/types.h"

struct json_object;

/*
 * In this order, by one thread for the whole process but for the filters:
 *	every descriptor is open, nothing of the guest's or of a client's has been read
 *	sandbox_enter()                   the process gives up all that a process can
 *	the vCPU threads are made         they inherit it; each calls sandbox_thread() first thing
 *	sandbox_thread(SANDBOX_LOOP)      the loop's own filter: from here on no thread can be made
 *	images are parsed, clients are served, the guest runs
 */
enum sandbox_class {
	SANDBOX_LOOP, /* devices' timers, console, control, debugger, image loading */
	SANDBOX_VCPU, /* the guest's code, and what its accesses do in devices */
	SANDBOX_CLASSES,
};

/* What a sandbox is made of; what a host does not allow is missing, and reported. Frozen names. */
enum sandbox_part {
	SANDBOX_NO_NEW_PRIVS, /* no program that is started later gains anything */
	SANDBOX_USER,	      /* a uid of its own, or a user namespace */
	SANDBOX_MOUNTS,	      /* an empty read-only root, nothing else mounted */
	SANDBOX_NETWORK,      /* a network namespace without interfaces */
	SANDBOX_IPC,	      /* System V and POSIX IPC, and the host's name, of its own */
	SANDBOX_CAPABILITIES, /* none, and none to be had: bounding and ambient sets empty */
	SANDBOX_LANDLOCK,     /* no path, no port, no abstract socket, no signal */
	SANDBOX_RLIMITS,      /* processes, files, file size, locked memory, core */
	SANDBOX_DUMPABLE,     /* nobody of the same uid may trace it or read its memory */
	SANDBOX_SECCOMP,      /* the calls of sandbox_filter.c, a list a thread class */
	SANDBOX_PARTS,
};

extern const char *const sandbox_part_names[];	/* NULL ends them */
extern const char *const sandbox_class_names[]; /* "loop", "vcpu" */

struct sandbox_config {
	int mode;  /* enum machine_sandbox */
	bool core; /* a crash may leave a core file: dumpable, RLIMIT_CORE as it was */
	/* As root only, what to become; (uid_t)-1: a uid of its own, made of the process's number,
	 * which no other living process has. */
	uid_t uid;
	gid_t gid;
	uint64_t file_bytes; /* no file may grow beyond; 0: as it was */
	/*
	 * The machine may run on /dev/kvm, now or after a change of its engine: the filter has rows
	 * for that, and RLIMIT_NPROC is @tasks instead of 0. Some kernels make a thread for a VM in
	 * the name of who creates or first runs it (kvm-nx-lpage-recovery), and count it as its
	 * own.
	 */
	bool kvm;
	unsigned tasks;
};

/*
 * The process has one thread. With mode "auto", what the host does not allow is left out and noted;
 * with "strict" the first such part is an error (API_KIND_NOT_SUPPORTED, naming it), and the caller
 * is to end. With "off" nothing is done. 0, or -errno with *err.
 */
int sandbox_enter(const struct sandbox_config *config, struct api_error *err);
/* The calling thread's filter, for good; after sandbox_enter(). 0, or -errno. */
int sandbox_thread(enum sandbox_class class);
/*
 * {"mode": "auto", "uid": 1879048292, "parts": ["no-new-privs", …], "missing": [{"part": …, "why":
 * …}], "violations": n, "last_violation": "openat"}. Any thread. NULL: no memory.
 */
struct json_object *sandbox_to_json(void);
/* One line for the log: what is missing and why; false when nothing is. */
bool sandbox_missing(char *text, size_t size);
/* Calls that a filter has refused so far (mode "auto": "strict" kills). Any thread. */
uint64_t sandbox_violations(void);

/* The allowed calls, each with class, condition and reason; for people. */
void sandbox_list(FILE *out);
/*
 * Enter the sandbox as a machine does and try what must not be, in each class of thread, in a
 * process each; one line each on @out. @only: NULL, or one attempt's name. The number that were not
 * refused.
 */
unsigned sandbox_probe(const struct sandbox_config *config, const char *only, FILE *out);

#endif
