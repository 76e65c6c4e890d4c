/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl create, and the definition that a command line or a file gives. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/cleanup.h"
#include "cli/vmctl.h"

/* umbrad has another current folder than we have. NULL: no memory. */
static struct json_object *absolute(struct json_object *path)
{
	const char *text = json_object_get_string(path);
	_cleanup_free_ char *cwd = NULL, *full = NULL;

	if (!json_object_is_type(path, json_type_string) || text[0] == '/' || !text[0])
		return json_object_get(path);
	cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&full, "%s/%s", cwd, text) < 0) {
		full = NULL;
		return NULL;
	}
	return json_object_new_string(full);
}

static void make_paths_absolute(struct json_object *def)
{
	for (size_t i = 0; i < machine_def_fields.n; i++) {
		const struct api_field *f = &machine_def_fields.f[i];
		struct json_object *v, *paths;

		if ((f->type != API_PATH && f->type != API_PATHS) ||
		    !json_object_object_get_ex(def, f->name, &v))
			continue;
		if (f->type == API_PATH) {
			json_object_object_add(def, f->name, absolute(v));
		} else if (json_object_is_type(v, json_type_array)) {
			paths = json_object_new_array();
			for (size_t k = 0; k < json_object_array_length(v); k++)
				json_object_array_add(paths,
						      absolute(json_object_array_get_idx(v, k)));
			json_object_object_add(def, f->name, paths);
		}
	}
}

struct json_object *make_definition(struct args *args, struct api_error *err)
{
	const char *file = string_of(args->cli, "config", NULL);
	struct json_object *def = json_object_new_object();
	struct machine_def checked;

	if (file) {
		json_object_put(def);
		def = machine_def_read(file, err);
		if (!def)
			return NULL;
	}
	if (json_object_is_type(def, json_type_object)) {
		json_object_object_foreach(args->def, key, value)
			json_object_object_add(def, key, json_object_get(value));
		make_paths_absolute(def);
	}
	/* The same check that umbrad makes, before one is started for nothing. */
	if (machine_def_parse(&checked, def, "unnamed", "", err)) {
		json_object_put(def);
		return NULL;
	}
	machine_def_finish(&checked);
	return def;
}

int verb_create(struct args *args)
{
	struct json_object *def;
	struct api_error err;
	struct api_reply reply;
	int status;

	def = make_definition(args, &err);
	if (!def)
		return fail(args, &err);
	json_object_object_add(args->params, "definition", def);
	status = call_method(args, &reply);
	if (!status && args->json)
		print_json(reply.result);
	else if (!status)
		puts(string_of(reply.result, "name", ""));
	api_reply_finish(&reply);
	return status;
}
