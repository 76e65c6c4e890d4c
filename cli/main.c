/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl: drive umbrad from the command line. The verbs are rows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/remote.h"
#include "cli/vmctl.h"

static const struct api_field run_fields[] = {
	{.name = "stats",
	 .type = API_PATH,
	 .help = "write the final counters there as JSON; - is stdout"},
};
const struct api_fields run_options = API_FIELDS("the options", run_fields);

const struct verb verbs[] = {
	{.name = "run",
	 .definition = true,
	 .own = &run_options,
	 .run = verb_run,
	 .summary = "Make a machine, start it, attach to its console, and remove it at its end.",
	 .more = "The guest's console is stdout, byte for byte, and stdin is sent to it. On a "
		 "terminal\n"
		 "Ctrl-] ends the machine. The exit status tells how it ended, see vmctl(1).\n"},
	{.name = "create", .method = "machine.create", .definition = true, .run = verb_create},
	{.name = "start",
	 .method = "machine.start",
	 .operand = "NAME",
	 .hidden = "console bound",
	 .run = verb_call},
	{.name = "stop", .method = "machine.stop", .operand = "NAME", .run = verb_call},
	{.name = "stop-all", .method = "system.stop_machines", .run = verb_stop_all},
	{.name = "pause", .method = "machine.pause", .operand = "NAME", .run = verb_call},
	{.name = "resume", .method = "machine.resume", .operand = "NAME", .run = verb_call},
	{.name = "reset", .method = "machine.reset", .operand = "NAME", .run = verb_call},
	{.name = "list", .method = "machine.list", .hidden = "usage brief", .run = verb_list},
	{.name = "show", .method = "machine.show", .operand = "NAME", .run = verb_show},
	{.name = "top",
	 .own = &top_options,
	 .run = verb_top,
	 .summary = "Show what the machines are doing, again and again.",
	 .more = "Keys: q quits, s sorts by the next column, p pauses the display.\n"},
	{.name = "events",
	 .method = "events.subscribe",
	 .own = &events_options,
	 .hidden = "types",
	 .run = verb_events,
	 .summary = "Show what has happened, and with --follow what happens.",
	 .more = "With --json a line is an event.\n"},
	{.name = "jobs", .method = "job.list", .run = verb_jobs},
	{.name = "job show", .method = "job.show", .operand = "ID", .run = verb_job_show},
	{.name = "job wait",
	 .method = "job.wait",
	 .operand = "ID",
	 .run = verb_job_show,
	 .more = "The exit status is the one that the call itself would have had.\n"},
	{.name = "job cancel", .method = "job.cancel", .operand = "ID", .run = verb_call},
	{.name = "stats", .method = "machine.stats", .operand = "NAME", .run = verb_stats},
	{.name = "sandbox", .method = "machine.sandbox", .operand = "NAME", .run = verb_stats},
	{.name = "console",
	 .method = "machine.console",
	 .operand = "NAME",
	 .run = verb_console,
	 .more = "On a terminal Ctrl-] detaches; the machine runs on.\n"},
	{.name = "logs",
	 .method = "machine.logs",
	 .operand = "NAME",
	 .hidden = "offset",
	 .own = &logs_options,
	 .run = verb_logs},
	{.name = "wait",
	 .method = "machine.wait",
	 .operand = "NAME",
	 .hidden = "wait",
	 .run = verb_wait,
	 .more = "The exit status is the one that \"vmctl run\" would have.\n"},
	{.name = "x",
	 .method = "machine.read",
	 .operand = "NAME ADDR[/N]",
	 .own = &x_options,
	 .hidden = "length",
	 .run = verb_x,
	 .summary = "Show guest memory at an address: N bytes, words, strings or instructions.",
	 .more = "The address is linear, as the vCPU sees it, whatever its privilege.\n"},
	{.name = "regs", .method = "machine.registers", .operand = "NAME", .run = verb_regs},
	{.name = "gdb",
	 .method = "machine.gdb",
	 .operand = "NAME",
	 .own = &gdb_options,
	 .run = verb_gdb,
	 .summary = "Start gdb on a machine's kernel, or let one attach.",
	 .more = "The machine stops while gdb looks at it, and goes on when gdb detaches.\n"},
	{.name = "delete", .method = "machine.delete", .operand = "NAME", .run = verb_call},
	{.name = "dirty start",
	 .method = "dirty.start",
	 .operand = "NAME",
	 .run = verb_dirty_start,
	 .more = "The log goes on until \"vmctl dirty stop\", or the machine's end; see\n"
		 "\"vmctl dirty list\".\n"},
	{.name = "dirty stop", .method = "dirty.stop", .operand = "NAME", .run = verb_call},
	{.name = "dirty list", .method = "dirty.list", .operand = "NAME", .run = verb_dirty_list},
	{.name = "dirty get",
	 .method = "dirty.get",
	 .operand = "NAME",
	 .hidden = "limit format pages",
	 .own = &dirty_get_options,
	 .run = verb_dirty_get},
	{.name = "dirty clear",
	 .method = "dirty.clear",
	 .operand = "NAME",
	 .hidden = "bitmap",
	 .run = verb_dirty_clear},
	{.name = "dirty rate",
	 .method = "dirty.rate",
	 .operand = "NAME",
	 .own = &dirty_rate_options,
	 .run = verb_dirty_rate,
	 .summary = "Tell how fast a machine dirties its memory.",
	 .more = "With --client that client's log is read and cleared, else one that is made\n"
		 "for it.\n"},
	{.name = "dirty heat",
	 .method = "dirty.heat",
	 .operand = "NAME",
	 .own = &dirty_heat_options,
	 .run = verb_dirty_heat,
	 .summary = "Draw where in its memory a machine writes.",
	 .more = "With --client that client's log is read and cleared, else one that is made\n"
		 "for it.\n"},
	{.name = "version",
	 .method = "system.version",
	 .run = verb_version,
	 .summary = "Show the versions of vmctl and of the umbrad that runs."},
	{.name = "mmu walk",
	 .method = "mmu.walk",
	 .operand = "NAME ADDR",
	 .run = verb_mmu_walk,
	 .more = "The address is one of the guest's kernel or of the process that the vCPU runs\n"
		 "now. Nothing is changed: no accessed or dirty bit is set, no entry is made.\n"},
	{.name = "mmu stat",
	 .method = "mmu.stat",
	 .operand = "NAME",
	 .own = &mmu_stat_options,
	 .run = verb_mmu_stat},
	{.name = "mmu context",
	 .method = "mmu.context",
	 .operand = "NAME",
	 .run = verb_mmu_context},
	{.name = "mmu slots", .method = "mmu.slots", .operand = "NAME", .run = verb_mmu_slots},
	{.name = "mmu roots", .method = "mmu.roots", .operand = "NAME", .run = verb_mmu_roots},
	{.name = "mmu pages",
	 .method = "mmu.pages",
	 .operand = "NAME",
	 .hidden = "from limit",
	 .run = verb_mmu_pages},
	{.name = "mmu rmap", .method = "mmu.rmap", .operand = "NAME GFN", .run = verb_mmu_rmap},
	{.name = "mmu map",
	 .method = "mmu.map",
	 .operand = "NAME",
	 .hidden = "limit",
	 .own = &mmu_map_options,
	 .run = verb_mmu_map,
	 .more = "Lines are \"first-last size access page gpa\"; access is read, write,\n"
		 "execute, and user or supervisor.\n"},
	{.name = "mmu trace",
	 .method = "mmu.trace",
	 .operand = "NAME",
	 .hidden = "since max",
	 .own = &mmu_trace_options,
	 .run = verb_mmu_trace,
	 .more = "Traces all unless --what says otherwise, until Ctrl-C; then tracing is off\n"
		 "again. It is the machine's, so one at a time. With --json a line is an event.\n"},
	{.name = "mmu audit",
	 .method = "mmu.audit",
	 .operand = "NAME",
	 .hidden = "wait",
	 .run = verb_mmu_audit,
	 .more = "The exit status is 1 when one does not hold.\n"},
	{.name = "mmu policy",
	 .method = "mmu.policy",
	 .operand = "NAME [POLICY]",
	 .run = verb_mmu_policy},
	{.name = "engine",
	 .method = "machine.set_engine",
	 .operand = "NAME [ENGINE]",
	 .hidden = "wait",
	 .run = verb_engine,
	 .more = "The guest does not notice: the machine goes on where it was, or is refused with\n"
		 "what its guest would see of the change.\n"},
	{.name = "token new",
	 .own = &token_new_options,
	 .operand = "WHO",
	 .run = verb_token_new,
	 .summary = "Make a bearer token for umbrad on this host, and write it to stdout.",
	 .more = "Only its hash is kept. umbrad knows it after a reload.\n"},
	{.name = "token list",
	 .own = &token_list_options,
	 .run = verb_token_list,
	 .summary = "List the bearer tokens of umbrad on this host."},
	{.name = "token revoke",
	 .own = &token_options,
	 .operand = "WHO",
	 .run = verb_token_revoke,
	 .summary = "Take a bearer token back, of umbrad on this host."},
	{.name = "call",
	 .operand = "METHOD [PARAMS]",
	 .run = verb_call_any,
	 .summary = "Call any method of the API, with parameters as a JSON object.",
	 .more = "The answer is in JSON, whether --json is given or not.\n"},
	{.name = "relay",
	 .run = verb_relay,
	 .summary = "Join stdin and stdout to umbrad's socket: the far end of ssh://."},
	{.name = "help", .operand = "[VERB]...", .run = verb_help, .summary = "Show help."},
	{.name = "__complete",
	 .operand = "[WORD]...",
	 .run = verb_complete,
	 .summary = "List what may follow these words, for shell completion."},
};
const size_t n_verbs = ARRAY_SIZE(verbs);

const struct verb_group verb_groups[] = {
	{"mmu", "Look into a machine's memory virtualization, and switch it."},
	{"job", "Look after a long call."},
	{"token", "Manage the bearer tokens of umbrad on this host."},
	{"dirty", "Log which pages of a machine's memory are written."},
};
const size_t n_verb_groups = ARRAY_SIZE(verb_groups);

const struct verb_group *verb_group_find(const char *name)
{
	for (size_t i = 0; i < n_verb_groups; i++)
		if (!strcmp(verb_groups[i].name, name))
			return &verb_groups[i];
	return NULL;
}

const char *verb_in_group(const struct verb *verb, const struct verb_group *group)
{
	size_t len = strlen(group->name);

	return !strncmp(verb->name, group->name, len) && verb->name[len] == ' '
		       ? verb->name + len + 1
		       : NULL;
}

const struct verb *verb_find(const char *const *words, size_t n, size_t *used)
{
	const struct verb_group *group = n ? verb_group_find(words[0]) : NULL;

	*used = group ? 2 : 1;
	for (size_t i = 0; i < n_verbs && n >= *used; i++) {
		const char *name = group ? verb_in_group(&verbs[i], group) : verbs[i].name;

		if (name && !strcmp(name, words[*used - 1]))
			return &verbs[i];
	}
	return NULL;
}

/* What the word at the place of an unknown one may have been meant to be. */
struct candidates {
	const char *v[64];
	size_t n;
};

static const char *candidate_at(const void *data, size_t i)
{
	return ((const struct candidates *)data)->v[i];
}

static void find_candidates(struct candidates *c, const struct verb_group *group)
{
	c->n = 0;
	for (size_t i = 0; i < n_verbs && c->n < ARRAY_SIZE(c->v); i++) {
		const char *name = group ? verb_in_group(&verbs[i], group) : verbs[i].name;

		if (name && !strchr(name, ' ') && name[0] != '_')
			c->v[c->n++] = name;
	}
	for (size_t i = 0; !group && i < n_verb_groups && c->n < ARRAY_SIZE(c->v); i++)
		c->v[c->n++] = verb_groups[i].name;
}

int unknown_verb(const char *const *words, size_t n)
{
	const struct verb_group *group = verb_group_find(words[0]);
	const char *word = words[group && n > 1], *near;
	struct candidates c;

	find_candidates(&c, group);
	near = api_nearest(word, candidate_at, c.n, &c);
	fprintf(stderr, "vmctl: there is no verb \"%s%s%s\"%s%s%s%s%s\n", group ? group->name : "",
		group ? " " : "", word, near ? "; did you mean \"" : "",
		near && group ? group->name : "", near && group ? " " : "", near ? near : "",
		near ? "\"?" : "");
	return VM_STATUS_USAGE;
}

/*
 * Options that stand before the verb are every verb's own: --connect and what goes with it, --json.
 * How many words they are.
 */
int count_leading(const char *const *words)
{
	int n = 0;

	while (words[n] && !strncmp(words[n], "--", 2) && words[n][2]) {
		const struct api_field *f = NULL;
		size_t len = strcspn(words[n] + 2, "=");

		for (size_t i = 0; i < remote_options.n; i++)
			if (option_is(words[n] + 2, len, remote_options.f[i].name))
				f = &remote_options.f[i];
		if (!f && strcmp(words[n], "--json") != 0)
			break;
		n += f && !words[n][2 + len] && words[n + 1] ? 2 : 1;
	}
	return n;
}

/* No descriptor crosses a network; console has a way round it. */
static bool needs_descriptor(const struct verb *verb)
{
	return verb->run == verb_run || verb->run == verb_gdb;
}

static int run_verb(const struct verb *verb, char **words)
{
	struct args args = {0};
	struct api_error err;
	int status;

	if (args_parse(&args, verb, words, &err) || remote_choose(args.cli, &err)) {
		status = fail(&args, &err);
		fprintf(stderr, "Try \"vmctl help %s\".\n", verb->name);
	} else if (args.help) {
		print_verb_help(verb);
		status = 0;
	} else if (needs_descriptor(verb) && remote_is_far()) {
		api_error_set(&err, API_KIND_NOT_SUPPORTED,
			      "\"vmctl %s\" needs a umbrad on this host: run it there", verb->name);
		status = fail(&args, &err);
	} else {
		status = complete_name(&args);
		if (!status)
			status = verb->run(&args);
	}
	connect_keep(NULL);
	remote_finish();
	args_finish(&args);
	return status;
}

/* The words behind the verb's name, then those of @lead before it. NULL: no memory. */
static char **order_words(char **lead, int n_lead, char **rest)
{
	size_t n = 0;
	char **all;

	while (rest[n])
		n++;
	all = calloc(n + (size_t)n_lead + 1, sizeof(*all));
	if (!all)
		return NULL;
	memcpy(all, lead, (size_t)n_lead * sizeof(*all));
	memcpy(all + n_lead, rest, n * sizeof(*all));
	return all;
}

int main(int argc, char **argv)
{
	int lead = argc > 1 ? count_leading((const char *const *)argv + 1) : 0, n = argc - 1 - lead,
	    status;
	char **words = argv + 1 + lead, **all;
	const struct verb_group *group;
	const struct verb *verb;
	size_t used;

	if (n < 1) {
		print_help();
		return VM_STATUS_USAGE;
	}
	if (!strcmp(words[0], "-h") || !strcmp(words[0], "--help"))
		words[0] = (char *)"help";
	else if (!strcmp(words[0], "--version"))
		words[0] = (char *)"version";
	group = verb_group_find(words[0]);
	if (group && (n == 1 || !strcmp(words[1], "-h") || !strcmp(words[1], "--help"))) {
		print_group_help(group);
		return n == 1 ? VM_STATUS_USAGE : 0;
	}
	verb = verb_find((const char *const *)words, (size_t)n, &used);
	if (!verb)
		return unknown_verb((const char *const *)words, (size_t)n);
	all = order_words(argv + 1, lead, words + used);
	if (!all)
		return VM_STATUS_INTERNAL;
	status = run_verb(verb, all);
	free(all);
	return status;
}
