/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What every verb tells in the same way: errors, JSON, a machine's end. */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "cli/term.h"
#include "cli/vmctl.h"

int status_of(enum api_kind kind)
{
	switch (kind) {
	case API_KIND_NONE: return 0;
	case API_KIND_PARSE:
	case API_KIND_INVALID_REQUEST:
	case API_KIND_METHOD_NOT_FOUND:
	case API_KIND_INVALID_PARAMS: return VM_STATUS_USAGE;
	case API_KIND_BAD_IMAGE: return VM_STATUS_BAD_IMAGE;
	case API_KIND_UNAVAILABLE: return VM_STATUS_UNAVAILABLE;
	case API_KIND_TIMEOUT: return VM_STATUS_TIMEOUT;
	case API_KIND_INTERNAL:
	case API_KIND_VM_FAILED:
	case API_KIND_IO: return VM_STATUS_INTERNAL;
	default: return STATUS_FAILED;
	}
}

static bool is_image_field(const char *field)
{
	return !strcmp(field, "kernel") || !strcmp(field, "initrd") || !strcmp(field, "module");
}

int fail(const struct args *args, const struct api_error *err)
{
	if (args->json) {
		struct json_object *obj = json_object_new_object();

		json_object_object_add(obj, "error", api_error_to_json(err));
		fprintf(stderr, "%s\n",
			json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN));
		json_object_put(obj);
	} else {
		fprintf(stderr, "vmctl: %s\n", err->text);
	}
	/* A file of the guest's that cannot be opened is as bad as one that is no kernel. */
	if (err->kind != API_KIND_INVALID_PARAMS && is_image_field(err->field))
		return VM_STATUS_BAD_IMAGE;
	return status_of(err->kind);
}

void print_json(struct json_object *obj)
{
	puts(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PRETTY |
							 JSON_C_TO_STRING_NOSLASHESCAPE));
}

struct json_object *object_of(struct json_object *obj, const char *name)
{
	struct json_object *v;

	if (!json_object_is_type(obj, json_type_object) ||
	    !json_object_object_get_ex(obj, name, &v))
		return NULL;
	return v;
}

const char *string_of(struct json_object *obj, const char *name, const char *dflt)
{
	struct json_object *v = object_of(obj, name);

	return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : dflt;
}

int64_t int_of(struct json_object *obj, const char *name, int64_t dflt)
{
	struct json_object *v = object_of(obj, name);

	return json_object_is_type(v, json_type_int) ? json_object_get_int64(v) : dflt;
}

double number_of(struct json_object *obj, const char *name, double dflt)
{
	struct json_object *v = object_of(obj, name);

	return json_object_is_type(v, json_type_double) || json_object_is_type(v, json_type_int)
		       ? json_object_get_double(v)
		       : dflt;
}

/* What a crash left: registers four a line, then the last instructions. */
static void tell_detail(struct json_object *detail)
{
	struct json_object *regs = object_of(detail, "registers");
	struct json_object *code = object_of(detail, "instructions");
	int column = 0;

	if (json_object_is_type(regs, json_type_object)) {
		json_object_object_foreach(regs, name, value)
		{
			const char *text = json_object_get_string(value);
			bool wide = strlen(text) > 18;

			if (wide && column)
				fputc('\n', stderr);
			fprintf(stderr, "  %6s %-18s", name, text);
			column = wide ? 4 : column + 1;
			if (column == 4)
				fputc('\n', stderr);
			column %= 4;
		}
		if (column)
			fputc('\n', stderr);
	}
	if (!json_object_is_type(code, json_type_array))
		return;
	fputs("  the last instructions:\n", stderr);
	for (size_t i = 0; i < json_object_array_length(code); i++)
		fprintf(stderr, "    %s\n",
			json_object_get_string(json_object_array_get_idx(code, i)));
}

static void tell_end_json(const struct args *args, struct json_object *machine)
{
	struct json_object *end = object_of(machine, "exit");
	FILE *to = args->verb->run == verb_run ? stderr : stdout; /* run's stdout is the guest's */

	json_object_object_add(end, "name", json_object_new_string(string_of(machine, "name", "")));
	fprintf(to, "%s\n",
		json_object_to_json_string_ext(end, JSON_C_TO_STRING_PLAIN |
							    JSON_C_TO_STRING_NOSLASHESCAPE));
}

int tell_end(const struct args *args, struct json_object *machine)
{
	struct json_object *end = object_of(machine, "exit");
	const char *reason = string_of(end, "reason", NULL), *message;
	const char *name = string_of(machine, "name", "?");

	if (!reason) {
		fprintf(stderr, "vmctl: \"%s\" has not run\n", name);
		return STATUS_FAILED;
	}
	if (args->json) {
		tell_end_json(args, machine);
	} else if (!strcmp(reason, "debug-exit")) {
		fprintf(stderr, "vmctl: \"%s\" ended: debug-exit with status %lld\n", name,
			(long long)int_of(end, "code", 0));
	} else if (strcmp(reason, "poweroff")) {
		message = string_of(end, "message", "");
		fprintf(stderr, "vmctl: \"%s\" ended: %s%s%s\n", name, reason, *message ? ": " : "",
			message);
		tell_detail(object_of(end, "detail"));
	}
	return (int)int_of(end, "status", VM_STATUS_INTERNAL);
}

int call_method(struct args *args, struct api_reply *reply)
{
	return call_with_progress(args, reply) ? fail(args, &reply->err) : 0;
}

int call_and_show(struct args *args, void (*show)(struct json_object *result))
{
	struct api_reply reply;
	int status = call_method(args, &reply);

	if (!status && args->json)
		print_json(reply.result);
	else if (!status)
		show(reply.result);
	api_reply_finish(&reply);
	return status;
}

int call_and_list(struct args *args, const char *member, const struct column *columns, size_t n,
		  void (*add_row)(struct table *t, struct json_object *item))
{
	struct api_reply reply;
	int status = call_method(args, &reply);
	struct json_object *all = object_of(reply.result, member);
	struct table t;

	if (!status && args->json) {
		print_json(all);
	} else if (!status) {
		table_init(&t, columns, n);
		for (size_t i = 0; all && i < json_object_array_length(all); i++)
			add_row(&t, json_object_array_get_idx(all, i));
		table_print(&t, stdout, 0);
		table_finish(&t);
	}
	api_reply_finish(&reply);
	return status;
}
