/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options and help, both from the API's own tables of fields. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <json-c/json.h>

#include "cli/remote.h"
#include "cli/vmctl.h"

static const struct api_field config_fields[] = {
	{.name = "config",
	 .type = API_PATH,
	 .help = "a JSON file of these fields; options given beside it come first"},
};
static const struct api_fields config_option = API_FIELDS("the options", config_fields);

size_t verb_fields(const struct verb *verb, const struct api_fields *out[VERB_FIELDS_MAX])
{
	const struct api_method *m = NULL;
	size_t n = 0;

	if (verb->method)
		m = api_method_find(&api_umbrad_methods, verb->method);
	if (verb->own)
		out[n++] = verb->own;
	if (m && m->params.n)
		out[n++] = &m->params;
	if (verb->definition) {
		out[n++] = &machine_def_fields;
		out[n++] = &config_option;
	}
	out[n++] = &remote_options;
	return n;
}

const char *verb_summary(const struct verb *verb)
{
	const struct api_method *m;

	if (verb->summary)
		return verb->summary;
	m = verb->method ? api_method_find(&api_umbrad_methods, verb->method) : NULL;
	return m ? m->summary : "";
}

/* Whether @list, words parted by blanks, has @word; the case of letters aside. */
static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word), n;

	for (; list && *list; list += n + strspn(list + n, " []./")) {
		n = strcspn(list, " []./");
		if (n == len && !strncasecmp(list, word, len))
			return true;
	}
	return false;
}

/* What is an operand or has no meaning on a command line is no option. */
static bool is_option(const struct verb *verb, const struct api_fields *fields,
		      const struct api_field *f)
{
	if (f->type == API_OBJECT || f->type == API_ANY)
		return false;
	if (fields == &machine_def_fields)
		return true;
	return strcmp(f->name, "name") && !has_word(verb->hidden, f->name) &&
	       !has_word(verb->operand, f->name);
}

/* "--on-reset" is the field on_reset. */
static void option_to_field(const char *option, size_t len, char *out, size_t out_len)
{
	snprintf(out, out_len, "%.*s", (int)MIN(len, out_len - 1), option);
	for (; *out; out++)
		if (*out == '-')
			*out = '_';
}

bool option_is(const char *option, size_t len, const char *field)
{
	char name[64];

	option_to_field(option, len, name, sizeof(name));
	return !strcmp(name, field);
}

/* What is on unless it is turned off is spelled as what turns it off: "--no-kvm-help". */
static bool turns_off(const struct api_field *f)
{
	return f->type == API_BOOL && f->dflt && !strcmp(f->dflt, "true");
}

static void print_option(const struct api_field *f)
{
	if (turns_off(f))
		fputs("no-", stdout);
	for (const char *s = f->name; *s; s++)
		putchar(*s == '_' ? '-' : *s);
}

/* The names of all options, for the nearest one. */
struct names {
	const char *v[128];
	size_t n;
};

static const char *name_at(const void *data, size_t i)
{
	return ((const struct names *)data)->v[i];
}

static const struct api_field *find_option(const struct verb *verb, const char *name,
					   const struct api_fields **where, struct names *all)
{
	const struct api_fields *sets[VERB_FIELDS_MAX];
	size_t n = verb_fields(verb, sets);

	all->n = 2;
	all->v[0] = "json";
	all->v[1] = "help";
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < sets[i]->n; j++) {
			const struct api_field *f = &sets[i]->f[j];

			if (!is_option(verb, sets[i], f))
				continue;
			*where = sets[i];
			if (!strcmp(f->name, name))
				return f;
			if (all->n < ARRAY_SIZE(all->v))
				all->v[all->n++] = f->name;
		}
	}
	return NULL;
}

static struct json_object *target(struct args *args, const struct api_fields *where)
{
	if (where == &machine_def_fields)
		return args->def;
	return where == args->verb->own || where == &config_option || where == &remote_options
		       ? args->cli
		       : args->params;
}

static int set_option(struct args *args, const struct api_fields *where, const struct api_field *f,
		      const char *text, struct api_error *err)
{
	struct json_object *obj = target(args, where), *v = NULL;
	int ret;

	if (f->type == API_PATHS && json_object_object_get_ex(obj, f->name, &v))
		v = json_object_get(v);
	ret = api_field_from_text(f, text, &v, err);
	if (ret) {
		json_object_put(v);
		return ret;
	}
	json_object_object_add(obj, f->name, v);
	return 0;
}

static int unknown_option(const struct args *args, const char *arg, const char *name,
			  const struct names *all, struct api_error *err)
{
	const char *near = api_nearest(name, name_at, all->n, all);
	char text[64] = "";

	for (size_t i = 0; near && near[i] && i < sizeof(text) - 1; i++)
		text[i] = near[i] == '_' ? '-' : near[i];
	return api_error_field(err, name, "\"vmctl %s\" has no option \"%.64s\"%s%s%s",
			       args->verb->name, arg, near ? "; did you mean \"--" : "", text,
			       near ? "\"?" : "");
}

/* One "--option", "--option VALUE" or "--option=VALUE"; *@argv is left at the last word used. */
static int parse_option(struct args *args, char ***argv, struct api_error *err)
{
	const char *arg = **argv, *eq = strchr(arg, '=');
	const struct api_fields *where = NULL;
	const struct api_field *f;
	struct names all;
	char name[64];

	if (!strcmp(arg, "--json")) {
		args->json = true;
		return 0;
	}
	if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
		args->help = true;
		return 0;
	}
	if (!strcmp(arg, "-f"))
		snprintf(name, sizeof(name), "force");
	else
		option_to_field(arg + 2, eq ? (size_t)(eq - arg - 2) : strlen(arg + 2), name,
				sizeof(name));
	f = (arg[1] == '-' || !strcmp(arg, "-f")) ? find_option(args->verb, name, &where, &all)
						  : NULL;
	/* "--no-FIELD" is "--FIELD=false". */
	if (!f && !strncmp(name, "no_", 3) && !eq) {
		struct names others;

		f = find_option(args->verb, name + 3, &where, &others);
		if (f && f->type == API_BOOL)
			return set_option(args, where, f, "false", err);
		f = NULL;
	}
	if (!f) {
		if (arg[1] != '-')
			find_option(args->verb, "", &where, &all);
		return unknown_option(args, arg, name, &all, err);
	}
	if (f->type == API_BOOL && !eq)
		return set_option(args, where, f, "true", err);
	if (!eq && !*++*argv)
		return api_error_field(err, name, "\"%s\" wants a value", arg);
	return set_option(args, where, f, eq ? eq + 1 : **argv, err);
}

/*
 * The operand at @i of the verb's, as it is written there; NULL: there are fewer. One that ends in
 * dots stands for all that follow.
 */
static const char *operand_at(const struct verb *verb, size_t i, size_t *len)
{
	const char *s = verb->operand;

	for (; s && *s; s += *len + strspn(s + *len, " ")) {
		*len = strcspn(s, " ");
		if (!i || s[*len - 1] == '.')
			return s;
		i--;
	}
	return NULL;
}

/* The field that the operand is, or NULL; of vmctl's own, or the method's. */
static const struct api_field *operand_field(const struct verb *verb, const char *operand,
					     const struct api_fields **where)
{
	const struct api_fields *sets[VERB_FIELDS_MAX];
	const char *start = operand + (*operand == '[');
	size_t n = verb_fields(verb, sets), len = strcspn(start, " []./");

	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < sets[i]->n; j++) {
			const char *name = sets[i]->f[j].name;

			if (sets[i] == &machine_def_fields || strlen(name) != len ||
			    strncasecmp(name, start, len) != 0)
				continue;
			*where = sets[i];
			return &sets[i]->f[j];
		}
	}
	return NULL;
}

static int parse_operand(struct args *args, const char *word, struct api_error *err)
{
	const struct api_fields *where;
	const struct api_field *f;
	const char *operand;
	size_t len;

	operand = operand_at(args->verb, args->n_words, &len);
	if (!operand || args->n_words == ARGS_WORDS_MAX)
		return api_error_set(err, API_KIND_INVALID_PARAMS,
				     "\"vmctl %s\" does not know what to do with \"%.64s\"",
				     args->verb->name, word);
	args->words[args->n_words++] = word;
	f = operand_field(args->verb, operand, &where);
	if (!f)
		return 0;
	if (f->type == API_NAME && !api_name_valid(word))
		return api_error_field(err, f->name, "\"%.64s\" is no machine's name", word);
	return set_option(args, where, f, word, err);
}

/* An operand that is not given and must be. 0, or -errno with *err. */
static int check_operands(const struct args *args, struct api_error *err)
{
	const struct api_fields *where;
	const struct api_field *f;
	const char *operand;
	size_t len;

	operand = operand_at(args->verb, args->n_words, &len);
	if (!operand || *operand == '[')
		return 0;
	f = operand_field(args->verb, operand, &where);
	return api_error_field(err, f ? f->name : "", "\"vmctl %s\" wants a %.*s", args->verb->name,
			       (int)len, operand);
}

int args_parse(struct args *args, const struct verb *verb, char **argv, struct api_error *err)
{
	bool options = true;
	int ret = 0;

	args->verb = verb;
	args->params = json_object_new_object();
	args->def = json_object_new_object();
	args->cli = json_object_new_object();
	for (; !ret && *argv; argv++) {
		if (options && !strcmp(*argv, "--"))
			options = false;
		else if (options && (*argv)[0] == '-' && (*argv)[1])
			ret = parse_option(args, &argv, err);
		else
			ret = parse_operand(args, *argv, err);
		if (!*argv)
			break;
	}
	return ret || args->help ? ret : check_operands(args, err);
}

void args_finish(struct args *args)
{
	json_object_put(args->params);
	json_object_put(args->def);
	json_object_put(args->cli);
}

static void print_value(const struct api_field *f)
{
	if (f->type == API_ENUM) {
		for (size_t i = 0; f->choices[i]; i++)
			printf("%s%s", i ? "|" : " ", f->choices[i]);
		return;
	}
	printf(" %s", f->type == API_PATH || f->type == API_PATHS ? "FILE"
		      : f->type == API_NUMBER			  ? "SECONDS"
		      : f->type == API_SIZE			  ? "SIZE"
		      : f->type == API_NAME			  ? "NAME"
		      : f->type == API_INT			  ? "N"
		      : f->type == API_ADDR			  ? "ADDR"
								  : "TEXT");
}

static void print_field_help(const struct api_field *f)
{
	printf("  %s--", !strcmp(f->name, "force") ? "-f, " : "");
	print_option(f);
	if (f->type != API_BOOL)
		print_value(f);
	printf("\n          %s%s", turns_off(f) ? "turned off: " : "", f->help);
	if (f->dflt && f->type != API_BOOL)
		printf(" (%s)", f->dflt);
	putchar('\n');
}

void print_verb_help(const struct verb *verb)
{
	const struct api_fields *sets[VERB_FIELDS_MAX];
	size_t n = verb_fields(verb, sets);

	printf("Usage: vmctl %s [OPTION]...%s%s\n%s\n", verb->name, verb->operand ? " " : "",
	       verb->operand ? verb->operand : "", verb_summary(verb));
	if (verb->more)
		printf("\n%s", verb->more);
	puts("\nOptions:");
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < sets[i]->n; j++)
			if (is_option(verb, sets[i], &sets[i]->f[j]))
				print_field_help(&sets[i]->f[j]);
	puts("  --json\n          answer, and tell errors, in JSON");
	puts("  -h, --help\n          show this help");
}

void print_help(void)
{
	puts("Usage: vmctl VERB [OPTION]... [NAME]\nDrive virtual machines.\n\nVerbs:");
	for (size_t i = 0; i < n_verbs; i++)
		if (verbs[i].name[0] != '_' && !strchr(verbs[i].name, ' '))
			printf("  %-9s %s\n", verbs[i].name, verb_summary(&verbs[i]));
	puts("\nVerbs of two words:");
	for (size_t i = 0; i < n_verb_groups; i++)
		printf("  %-9s %s\n", verb_groups[i].name, verb_groups[i].summary);
	puts("\n\"vmctl help VERB\" shows a verb's options; see also vmctl(1).");
}

void print_group_help(const struct verb_group *group)
{
	const char *second;

	printf("Usage: vmctl %s VERB [OPTION]... NAME\n%s\n\nVerbs:\n", group->name,
	       group->summary);
	for (size_t i = 0; i < n_verbs; i++)
		if ((second = verb_in_group(&verbs[i], group)))
			printf("  %-9s %s\n", second, verb_summary(&verbs[i]));
	printf("\n\"vmctl help %s VERB\" shows a verb's options; see also vmctl(1).\n",
	       group->name);
}

int verb_help(struct args *args)
{
	const struct verb_group *group = args->n_words ? verb_group_find(args->words[0]) : NULL;
	const struct verb *verb;
	size_t used;

	if (!args->n_words) {
		print_help();
		return 0;
	}
	if (group && args->n_words == 1) {
		print_group_help(group);
		return 0;
	}
	verb = verb_find(args->words, args->n_words, &used);
	if (!verb)
		return unknown_verb(args->words, args->n_words);
	print_verb_help(verb);
	return 0;
}

/* ---- words for the shell, one a line ---- */

static void complete_verbs(const struct verb_group *group)
{
	for (size_t i = 0; i < n_verbs; i++) {
		const char *name = group ? verb_in_group(&verbs[i], group) : verbs[i].name;

		if (name && name[0] != '_' && !strchr(name, ' '))
			puts(name);
	}
	for (size_t i = 0; !group && i < n_verb_groups; i++)
		puts(verb_groups[i].name);
}

static void complete_options(const struct verb *verb)
{
	const struct api_fields *sets[VERB_FIELDS_MAX];
	size_t n = verb_fields(verb, sets);

	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < sets[i]->n; j++) {
			if (!is_option(verb, sets[i], &sets[i]->f[j]))
				continue;
			printf("--");
			print_option(&sets[i]->f[j]);
			putchar('\n');
		}
	}
	puts("--json\n--help");
}

/* What @method lists as @list, by its @member. A umbrad that is far is not waited for. */
static void complete_list(const char *method, const char *list, const char *member)
{
	struct api_client *client;
	struct api_reply reply;

	if (remote_is_far() || connect_umbrad(&client, NULL, false, NULL))
		return;
	if (!api_client_call(client, method, NULL, 2000, &reply)) {
		struct json_object *all = object_of(reply.result, list), *v;

		for (size_t i = 0; all && i < json_object_array_length(all); i++) {
			v = object_of(json_object_array_get_idx(all, i), member);
			if (v)
				puts(json_object_get_string(v));
		}
	}
	api_reply_finish(&reply);
	api_client_destroy(client);
}

static void complete_methods(void)
{
	const struct api_method *m;

	for (size_t i = 0; (m = api_method_at(&api_umbrad_methods, i)); i++)
		puts(m->name);
}

/*
 * Whether @word is an option of @verb's that wants a value; its choices, if they are known, or that
 * it is a file's name.
 */
static bool complete_value(const struct verb *verb, const char *word)
{
	const struct api_fields *where;
	const struct api_field *f;
	struct names all;
	char name[64];

	if (strncmp(word, "--", 2) != 0)
		return false;
	option_to_field(word + 2, strlen(word + 2), name, sizeof(name));
	f = find_option(verb, name, &where, &all);
	for (size_t i = 0; f && f->type == API_ENUM && f->choices[i]; i++)
		puts(f->choices[i]);
	if (f && (f->type == API_PATH || f->type == API_PATHS))
		puts("@files");
	else if (f && f->type == API_NAME)
		complete_list("machine.list", "machines", "name");
	return f && f->type != API_BOOL;
}

/* What may follow the words: verbs; or the verb's options, and the machines that it may take. */
int verb_complete(struct args *args)
{
	size_t lead = (size_t)count_leading(args->words), n = args->n_words - lead, used;
	const char *const *words = args->words + lead;
	const struct verb_group *group = n ? verb_group_find(words[0]) : NULL;
	const struct verb *verb;

	if (!n || (group && n == 1)) {
		/* Before the verb are only options that every verb has. */
		if (lead && !n && complete_value(args->verb, words[-1]))
			return 0;
		complete_verbs(group);
		return 0;
	}
	verb = verb_find(words, n, &used);
	if (!verb || complete_value(verb, words[n - 1]))
		return 0;
	if (verb->run == verb_help) {
		complete_verbs(n > 1 ? verb_group_find(words[1]) : NULL);
		return 0;
	}
	complete_options(verb);
	if (verb->operand && !strncmp(verb->operand, "NAME", 4))
		complete_list("machine.list", "machines", "name");
	else if (verb->operand && !strncmp(verb->operand, "METHOD", 6))
		complete_methods();
	else if (verb->operand && !strcmp(verb->operand, "ID"))
		complete_list("job.list", "jobs", "id");
	return 0;
}
