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
struct column;
struct event_base;
struct table;
struct verb;

#define ARGS_WORDS_MAX 64 /* __complete gets a whole command line */

/* A parsed command line: options are put where their field belongs. */
struct args {
	const struct verb *verb;
	struct json_object *params; /* of the verb's method; "name" is the argument NAME */
	struct json_object *def;    /* of a machine definition */
	struct json_object *cli;    /* vmctl's own */
	const char *words[ARGS_WORDS_MAX + 1]; /* the operands, in order; NULL ends them */
	size_t n_words;
	bool json, help;
};

struct verb {
	const char *name;    /* "start"; or two words, "mmu walk" */
	const char *method;  /* whose summary and parameters are the verb's; NULL: none */
	const char *summary; /* instead of the method's */
	const char *more;    /* a paragraph for its help; or NULL */
	/*
	 * "NAME", "NAME ADDR", "NAME [POLICY]", "[WORD]..."; or NULL. A word that is the capital
	 * name of one of the fields is put there, checked; "NAME" is the machine.
	 */
	const char *operand;
	const char *hidden;	       /* fields, parted by blanks, that are no options; or NULL */
	bool definition;	       /* takes the fields of a definition, and --config */
	const struct api_fields *own;  /* vmctl's own options; or NULL */
	int (*run)(struct args *args); /* returns the exit status */
};

extern const struct verb verbs[];
extern const size_t n_verbs;
/* The verb that the @n words begin with, and how many are its name; NULL: none. */
const struct verb *verb_find(const char *const *words, size_t n, size_t *used);

/* The first word of verbs of two. */
struct verb_group {
	const char *name, *summary;
};
extern const struct verb_group verb_groups[];
extern const size_t n_verb_groups;
const struct verb_group *verb_group_find(const char *name);
/* The second word of a verb of @group; NULL: it is none. */
const char *verb_in_group(const struct verb *verb, const struct verb_group *group);
/* How many of @words (NULL ends them) stand before the verb: the options that every verb has. */
int count_leading(const char *const *words);
/* There is no such verb: tells so on stderr, with the nearest; the exit status. */
int unknown_verb(const char *const *words, size_t n);
const char *verb_summary(const struct verb *verb);
/* The rows that an option of the verb may be in. "name" is left to the caller. */
#define VERB_FIELDS_MAX 5
size_t verb_fields(const struct verb *verb, const struct api_fields *out[VERB_FIELDS_MAX]);

int verb_call(struct args *args);
int verb_call_any(struct args *args);
int verb_complete(struct args *args);
int verb_console(struct args *args);
int verb_create(struct args *args);
int verb_dirty_clear(struct args *args);
int verb_dirty_get(struct args *args);
int verb_dirty_heat(struct args *args);
int verb_dirty_list(struct args *args);
int verb_dirty_rate(struct args *args);
int verb_dirty_start(struct args *args);
int verb_events(struct args *args);
int verb_gdb(struct args *args);
int verb_help(struct args *args);
int verb_job_show(struct args *args);
int verb_jobs(struct args *args);
int verb_list(struct args *args);
int verb_logs(struct args *args);
int verb_mmu_audit(struct args *args);
int verb_mmu_context(struct args *args);
int verb_mmu_map(struct args *args);
int verb_mmu_pages(struct args *args);
int verb_engine(struct args *args);
int verb_mmu_policy(struct args *args);
int verb_mmu_rmap(struct args *args);
int verb_mmu_roots(struct args *args);
int verb_mmu_slots(struct args *args);
int verb_mmu_stat(struct args *args);
int verb_mmu_trace(struct args *args);
int verb_mmu_walk(struct args *args);
int verb_regs(struct args *args);
int verb_relay(struct args *args);
int verb_run(struct args *args);
int verb_show(struct args *args);
int verb_stats(struct args *args);
int verb_stop_all(struct args *args);
int verb_token_list(struct args *args);
int verb_token_new(struct args *args);
int verb_token_revoke(struct args *args);
int verb_top(struct args *args);
int verb_version(struct args *args);
int verb_wait(struct args *args);
int verb_x(struct args *args);

extern const struct api_fields dirty_get_options, dirty_rate_options, dirty_heat_options;
extern const struct api_fields run_options, gdb_options, x_options;
extern const struct api_fields events_options, logs_options, top_options;
extern const struct api_fields token_new_options, token_list_options, token_options;
extern const struct api_fields mmu_map_options, mmu_stat_options, mmu_trace_options;

/* args.c: 0, or -errno with *err. */
int args_parse(struct args *args, const struct verb *verb, char **argv, struct api_error *err);
void args_finish(struct args *args);
/* Whether the option "--" @option of @len bytes is that of the field. */
bool option_is(const char *option, size_t len, const char *field);
void print_verb_help(const struct verb *verb);
void print_help(void);
void print_group_help(const struct verb_group *group);

/* connect.c: with @start, a umbrad is started when there is none and --connect names no other. */
struct connection {
	struct event_base *base; /* NULL: a loop of its own */
	bool start;
	const struct api_client_ops *ops; /* or NULL */
	void *data;
};
int connect_to(struct api_client **out, const struct connection *c, struct api_error *err);
/* The next connect_to() that wants no loop of its own gets @client, taken, instead of another. */
void connect_keep(struct api_client *client);
int connect_umbrad(struct api_client **out, struct event_base *base, bool start,
		   struct api_error *err);
/* The bare socket, blocking; or -errno with *err. */
int connect_socket(bool start, struct api_error *err);

/* output.c */
int fail(const struct args *args,
	 const struct api_error *err); /* tells it; returns the exit status */
void print_json(struct json_object *obj);
int status_of(enum api_kind kind);
const char *string_of(struct json_object *obj, const char *name, const char *dflt);
int64_t int_of(struct json_object *obj, const char *name, int64_t dflt);
/* An integer or not. */
double number_of(struct json_object *obj, const char *name, double dflt);
struct json_object *object_of(struct json_object *obj, const char *name);
/* A line a fact; objects in objects become "outer.inner: value". */
void print_facts(struct json_object *obj);
/* Tell the end of a run on stderr; @machine is what machine.wait gave. Returns the exit status. */
int tell_end(const struct args *args, struct json_object *machine);
/* Connect, call the verb's method with its parameters. 0 or the exit status; the error is told. */
int call_method(struct args *args, struct api_reply *reply);
/* The same, then show the result with @show unless --json is asked for. The exit status. */
int call_and_show(struct args *args, void (*show)(struct json_object *result));
/* The same with the array @member of the result, as a table of its items; --json: the array. */
int call_and_list(struct args *args, const char *member, const struct column *columns, size_t n,
		  void (*add_row)(struct table *t, struct json_object *item));

/* name.c: make the machine's name whole where it is the beginning of one only; or the exit status,
 * told. */
int complete_name(struct args *args);

/* progress.c: the same as api_client_call(), with a bar on stderr where that is a terminal. */
int call_with_progress(struct args *args, struct api_reply *reply);

/* create.c: the definition of the command line, checked, its paths absolute. NULL with *err. */
struct json_object *make_definition(struct args *args, struct api_error *err);

/* mmu.c: a role of the API's in one line. */
void mmu_role_text(struct json_object *role, char *out, size_t len);
/* Print an answer's "unknown", what only the kernel knows; false when it has none. */
bool mmu_unknown(struct json_object *r);

#endif
