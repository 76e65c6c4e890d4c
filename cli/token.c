/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl token: the bearer tokens of this host's umbrad, in the file that it reads. */
#include "api/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "base/cleanup.h"
#include "cli/term.h"
#include "cli/vmctl.h"

static const char *const levels[] = {"read", "operate", "admin", NULL};

#define FIELD_WHO                                                                                  \
	{                                                                                          \
		.name = "who", .type = API_STRING, .max = API_TOKEN_NAME - 1, .required = true,    \
		.help = "whose token it is"                                                        \
	}
#define FIELD_FILE                                                                                 \
	{                                                                                          \
		.name = "file", .type = API_PATH,                                                  \
		.help = "tls.tokens of umbrad.conf; else \"tokens\" beside umbrad.conf"            \
	}

static const struct api_field new_fields[] = {
	FIELD_WHO,
	{.name = "level",
	 .type = API_ENUM,
	 .choices = levels,
	 .dflt = "read",
	 .help = "what it may do at most"},
	FIELD_FILE,
};
const struct api_fields token_new_options = API_FIELDS("the options", new_fields);

static const struct api_field fields[] = {FIELD_WHO, FIELD_FILE};
const struct api_fields token_options = API_FIELDS("the options", fields);

static const struct api_field list_fields[] = {FIELD_FILE};
const struct api_fields token_list_options = API_FIELDS("the options", list_fields);

/* A path to free; NULL: told. */
static char *find_file(const struct args *args)
{
	const char *file = string_of(args->cli, "file", NULL), *home = getenv("HOME");
	const char *config = getenv("XDG_CONFIG_HOME");
	char *path = NULL;
	int n;

	if (file)
		n = asprintf(&path, "%s", file);
	else if (geteuid() == 0)
		n = asprintf(&path, "/etc/umbra/tokens");
	else if (config && *config)
		n = asprintf(&path, "%s/umbra/tokens", config);
	else
		n = asprintf(&path, "%s/.config/umbra/tokens", home ? home : "");
	if (n < 0) {
		fputs("vmctl: out of memory\n", stderr);
		return NULL;
	}
	return path;
}

int verb_token_new(struct args *args)
{
	const char *who = string_of(args->cli, "who", ""),
		   *word = string_of(args->cli, "level", "");
	_cleanup_free_ char *file = find_file(args);
	enum api_access level = API_READ;
	char secret[API_TOKEN_TEXT];
	struct api_error err;

	if (!file)
		return VM_STATUS_INTERNAL;
	for (size_t i = 0; levels[i]; i++)
		if (!strcmp(levels[i], word))
			level = (enum api_access)i;
	if (api_token_new(file, who, level, secret, &err))
		return fail(args, &err);
	if (args->json) {
		struct json_object *obj = json_object_new_object();

		json_object_object_add(obj, "name", json_object_new_string(who));
		json_object_object_add(obj, "level", json_object_new_string(levels[level]));
		json_object_object_add(obj, "token", json_object_new_string(secret));
		print_json(obj);
		json_object_put(obj);
	} else {
		puts(secret);
		fprintf(stderr, "vmctl: it is told this once; umbrad knows it after a reload\n");
	}
	explicit_bzero(secret, sizeof(secret));
	return 0;
}

int verb_token_revoke(struct args *args)
{
	_cleanup_free_ char *file = find_file(args);
	struct api_error err;

	if (!file)
		return VM_STATUS_INTERNAL;
	return api_token_revoke(file, string_of(args->cli, "who", ""), &err) ? fail(args, &err) : 0;
}

static const struct column columns[] = {{.title = "NAME", .shrinks = true}, {.title = "LEVEL"}};

static void print_tokens(const struct args *args, const struct api_tokens *tokens)
{
	struct json_object *all = json_object_new_array();
	struct table t;

	table_init(&t, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < api_tokens_count(tokens); i++) {
		const struct api_token *token = api_tokens_at(tokens, i);
		struct json_object *obj = json_object_new_object();

		json_object_object_add(obj, "name", json_object_new_string(token->name));
		json_object_object_add(obj, "level",
				       json_object_new_string(api_access_name(token->level)));
		json_object_array_add(all, obj);
		table_add(&t, "%s", token->name);
		table_add(&t, "%s", api_access_name(token->level));
	}
	if (args->json)
		print_json(all);
	else
		table_print(&t, stdout, 0);
	table_finish(&t);
	json_object_put(all);
}

int verb_token_list(struct args *args)
{
	_cleanup_free_ char *file = find_file(args);
	struct api_tokens *tokens;
	struct api_error err;

	if (!file)
		return VM_STATUS_INTERNAL;
	if (api_tokens_load(&tokens, file, &err))
		return fail(args, &err);
	print_tokens(args, tokens);
	api_tokens_free(tokens);
	return 0;
}
