/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl: drive umbrad from the command line. The verbs are rows. */
#include <stdio.h>
#include <string.h>

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
	{.name = "start", .method = "machine.start", .operand = "NAME", .run = verb_call},
	{.name = "stop", .method = "machine.stop", .operand = "NAME", .run = verb_call},
	{.name = "pause", .method = "machine.pause", .operand = "NAME", .run = verb_call},
	{.name = "resume", .method = "machine.resume", .operand = "NAME", .run = verb_call},
	{.name = "reset", .method = "machine.reset", .operand = "NAME", .run = verb_call},
	{.name = "list", .method = "machine.list", .run = verb_list},
	{.name = "show", .method = "machine.show", .operand = "NAME", .run = verb_show},
	{.name = "stats", .method = "machine.stats", .operand = "NAME", .run = verb_stats},
	{.name = "console",
	 .method = "machine.console",
	 .operand = "NAME",
	 .run = verb_console,
	 .more = "On a terminal Ctrl-] detaches; the machine runs on.\n"},
	{.name = "logs", .method = "machine.logs", .operand = "NAME", .run = verb_logs},
	{.name = "wait",
	 .method = "machine.wait",
	 .operand = "NAME",
	 .run = verb_wait,
	 .more = "The exit status is the one that \"vmctl run\" would have.\n"},
	{.name = "delete", .method = "machine.delete", .operand = "NAME", .run = verb_call},
	{.name = "version",
	 .method = "system.version",
	 .run = verb_version,
	 .summary = "Show the versions of vmctl and of the umbrad that runs."},
	{.name = "help", .operand = "[VERB]", .run = verb_help, .summary = "Show help."},
	{.name = "__complete",
	 .operand = "[VERB]",
	 .run = verb_complete,
	 .summary = "List verbs, or a verb's options and the machines, for shell completion."},
};
const size_t n_verbs = ARRAY_SIZE(verbs);

const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < n_verbs; i++)
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	return NULL;
}

static const char *verb_name_at(const void *data, size_t i)
{
	return verbs[i].name;
}

static int unknown_verb(const char *word)
{
	const char *near = api_nearest(word, verb_name_at, n_verbs, NULL);

	fprintf(stderr, "vmctl: there is no verb \"%s\"%s%s%s\n", word,
		near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
	return VM_STATUS_USAGE;
}

int main(int argc, char **argv)
{
	const struct verb *verb;
	struct api_error err;
	struct args args = {0};
	int status;

	if (argc < 2) {
		print_help();
		return VM_STATUS_USAGE;
	}
	if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))
		argv[1] = (char *)"help";
	else if (!strcmp(argv[1], "--version"))
		argv[1] = (char *)"version";
	verb = verb_find(argv[1]);
	if (!verb)
		return unknown_verb(argv[1]);
	if (args_parse(&args, verb, argv + 2, &err)) {
		status = fail(&args, &err);
		fprintf(stderr, "Try \"vmctl help %s\".\n", verb->name);
	} else if (args.help) {
		print_verb_help(verb);
		status = 0;
	} else {
		status = verb->run(&args);
	}
	args_finish(&args);
	return status;
}
