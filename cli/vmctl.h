/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl's verbs as rows, their options, and what they share. */
#ifndef UMBRA_CLI_VMCTL_H
#define UMBRA_CLI_VMCTL_H

#include "api/api.h"
#include "api/client.h"
#include "api/paths.h"
#include "api/vm_proto.h"

/* The exit status of a call that failed for no more special reason. */
#define STATUS_FAILED 1

struct json_object;
struct event_base;
struct verb;

/* A parsed command line: options are put where their field belongs. */
struct args {
	const struct verb *verb;
	struct json_object *params; /* of the verb's method; "name" is the argument NAME */
	struct json_object *def;    /* of a machine definition */
	struct json_object *cli;    /* vmctl's own */
	const char *word;	    /* help's argument */
	bool json, help;
};

struct verb {
	const char *name;
	const char *method;	       /* whose summary and parameters are the verb's; NULL: none */
	const char *summary;	       /* instead of the method's */
	const char *more;	       /* a paragraph for its help; or NULL */
	const char *operand;	       /* "NAME", "[VERB]" or NULL */
	bool definition;	       /* takes the fields of a definition, and --config */
	const struct api_fields *own;  /* vmctl's own options; or NULL */
	int (*run)(struct args *args); /* returns the exit status */
};

extern const struct verb verbs[];
extern const size_t n_verbs;
const struct verb *verb_find(const char *name);
const char *verb_summary(const struct verb *verb);
/* The rows that an option of the verb may be in, NULL-terminated; "name" is left to the caller. */
size_t verb_fields(const struct verb *verb, const struct api_fields *out[3]);

int verb_call(struct args *args);
int verb_complete(struct args *args);
int verb_console(struct args *args);
int verb_create(struct args *args);
int verb_help(struct args *args);
int verb_list(struct args *args);
int verb_logs(struct args *args);
int verb_run(struct args *args);
int verb_show(struct args *args);
int verb_stats(struct args *args);
int verb_version(struct args *args);
int verb_wait(struct args *args);

extern const struct api_fields run_options;

/* args.c: 0, or -errno with *err. */
int args_parse(struct args *args, const struct verb *verb, char **argv, struct api_error *err);
void args_finish(struct args *args);
void print_verb_help(const struct verb *verb);
void print_help(void);

/* connect.c: with @start, a umbrad is started when there is none. The loop may be NULL. */
int connect_umbrad(struct api_client **out, struct event_base *base, bool start,
		   struct api_error *err);

/* output.c */
int fail(const struct args *args,
	 const struct api_error *err); /* tells it; returns the exit status */
void print_json(struct json_object *obj);
int status_of(enum api_kind kind);
const char *string_of(struct json_object *obj, const char *name, const char *dflt);
int64_t int_of(struct json_object *obj, const char *name, int64_t dflt);
struct json_object *object_of(struct json_object *obj, const char *name);
/* Tell the end of a run on stderr; @machine is what machine.wait gave. Returns the exit status. */
int tell_end(const struct args *args, struct json_object *machine);
/* Connect, call the verb's method with its parameters. 0 or the exit status; the error is told. */
int call_method(struct args *args, struct api_reply *reply);

/* create.c: the definition of the command line, checked, its paths absolute. NULL with *err. */
struct json_object *make_definition(struct args *args, struct api_error *err);

#endif
