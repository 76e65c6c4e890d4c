/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl x: a machine's memory, as bytes, words, strings or instructions. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "api/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "cli/vmctl.h"

#define PIECE	     65536 /* of one call */
#define COUNT_MAX    GIB(1)
#define STRING_BYTES 4096 /* of one string that are shown */

enum form { BYTES, WORDS, STRING, INSTRUCTIONS };

static const char *const forms[] = {"bytes", "words", "string", "instructions", NULL};
/* How many, where nothing is said. */
static const uint64_t usual[] = {64, 8, 1, 10};

static const struct api_field x_fields[] = {
	{.name = "addr",
	 .type = API_STRING,
	 .max = 64,
	 .required = true,
	 .help = "the address, and how many"},
	{.name = "format",
	 .type = API_ENUM,
	 .choices = forms,
	 .dflt = "bytes",
	 .help = "what N counts, and how it is shown"},
	{.name = "raw",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "the bytes themselves on stdout"},
};
const struct api_fields x_options = API_FIELDS("the options", x_fields);

struct x {
	struct args *args;
	struct api_client *client;
	enum form form;
	bool raw;
	uint64_t addr, count;
	struct json_object *json; /* the answers' members, with --json */
	bool cut;		  /* a fault was told: it ends there */
};

/* "ADDR[/N]" */
static int parse_what(struct x *x, struct api_error *err)
{
	const char *text = string_of(x->args->cli, "addr", "");
	const char *form = string_of(x->args->cli, "format", "bytes");
	_cleanup_free_ char *addr = strdup(text);
	char *slash = addr ? strchr(addr, '/') : NULL, *end;

	while (strcmp(forms[x->form], form) != 0)
		x->form++;
	x->count = usual[x->form];
	if (slash) {
		*slash = 0;
		errno = 0;
		x->count = strtoull(slash + 1, &end, 0);
		if (errno || *end || !isdigit((unsigned char)slash[1]) || !x->count ||
		    x->count > COUNT_MAX)
			return api_error_field(err, "addr",
					       "\"%.32s\" is no count: from 1 to 1 Gi, after \"/\"",
					       slash + 1);
	}
	if (!addr || api_addr_parse(addr, &x->addr))
		return api_error_field(err, "addr", "\"%.32s\" is no address, such as 0x1f00",
				       text);
	x->raw = json_object_get_boolean(object_of(x->args->cli, "raw"));
	if (x->raw && x->form != BYTES)
		return api_error_field(err, "raw", "--raw goes with --format bytes only");
	return 0;
}

/* One call at x->addr. 0 or the exit status, told. */
static int ask(struct x *x, const char *method, const char *what, uint64_t n,
	       struct api_reply *reply)
{
	struct json_object *params = NULL;

	json_object_deep_copy(x->args->params, &params, NULL);
	json_object_object_add(params, "addr", api_addr_new(x->addr));
	json_object_object_add(params, what, json_object_new_int64((int64_t)n));
	if (api_client_call(x->client, method, params, 0, reply))
		return fail(x->args, &reply->err);
	return 0;
}

/* What is in the way of the rest; in JSON it is part of the answer. */
static void tell_fault(struct x *x, struct json_object *result)
{
	struct json_object *fault = object_of(result, "fault");

	if (!fault)
		return;
	x->cut = true;
	fflush(stdout);
	fprintf(stderr, "vmctl: %s\n", string_of(fault, "why", "it cannot be read"));
	if (x->json)
		json_object_object_add(x->json, "fault", json_object_get(fault));
}

/* ---- bytes and words ---------------------------------------------------------------------------
 */

static void print_line(uint64_t addr, const uint8_t *p, size_t n)
{
	printf("%016" PRIx64 " ", addr);
	for (size_t k = 0; k < 16; k++) {
		if (k < n)
			printf("%s%02x", k == 8 ? "  " : " ", p[k]);
		else
			printf("%s  ", k == 8 ? "  " : " ");
	}
	printf("  |");
	for (size_t k = 0; k < n; k++)
		putchar(p[k] >= 0x20 && p[k] < 0x7f ? p[k] : '.');
	puts("|");
}

static void print_words(uint64_t addr, const uint8_t *p, size_t n)
{
	printf("%016" PRIx64 " ", addr);
	for (size_t k = 0; k + 8 <= n; k += 8) {
		uint64_t word;

		memcpy(&word, p + k, 8);
		printf(" 0x%016" PRIx64, word);
	}
	putchar('\n');
}

static void show(struct x *x, const uint8_t *data, size_t n)
{
	if (x->raw) {
		fwrite(data, 1, n, stdout);
		return;
	}
	for (size_t at = 0; at < n; at += 16)
		(x->form == WORDS ? print_words : print_line)(x->addr + at, data + at,
							      MIN(n - at, (size_t)16));
}

/* The pieces' data in a row; each but the last is a multiple of three bytes, so base64 joins. */
static int read_bytes(struct x *x)
{
	uint64_t left = x->form == WORDS ? 8 * x->count : x->count;
	_cleanup_(buf_finish) struct buf base64 = {0};
	uint64_t first = x->addr;
	int status = 0;

	while (left && !status && !x->cut) {
		struct api_reply reply;
		size_t n = 0;

		/* A multiple of 16 for whole lines, and of 3. */
		status = ask(x, "machine.read", "length", MIN(left, (uint64_t)PIECE / 48 * 48),
			     &reply);
		if (!status) {
			const char *text = string_of(reply.result, "data", "");
			_cleanup_free_ uint8_t *data = base64_decode(text, &n);

			if (x->json)
				buf_printf(&base64, "%s", text);
			else
				show(x, data, n);
			tell_fault(x, reply.result);
			x->addr += n;
			left -= MIN(left, (uint64_t)n);
			if (!n)
				x->cut = true;
		}
		api_reply_finish(&reply);
	}
	if (x->json) {
		json_object_object_add(x->json, "addr", api_addr_new(first));
		json_object_object_add(x->json, "length",
				       json_object_new_int64((int64_t)(x->addr - first)));
		json_object_object_add(x->json, "data",
				       json_object_new_string(base64.data ? base64.data : ""));
	}
	return status;
}

/* ---- strings -----------------------------------------------------------------------------------
 */

/* Whatever the bytes, it is text for a terminal and for JSON. */
static void escape(struct buf *out, const uint8_t *p, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		if (p[k] == '\n')
			buf_printf(out, "\\n");
		else if (p[k] == '\t')
			buf_printf(out, "\\t");
		else if (p[k] == '"' || p[k] == '\\')
			buf_printf(out, "\\%c", p[k]);
		else if (p[k] >= 0x20 && p[k] < 0x7f)
			buf_append(out, p + k, 1);
		else
			buf_printf(out, "\\x%02x", p[k]);
	}
}

static void show_string(struct x *x, struct json_object *list, const uint8_t *data, size_t len)
{
	_cleanup_(buf_finish) struct buf text = {0};
	struct json_object *o;

	escape(&text, data, len);
	if (!list) {
		printf("%016" PRIx64 "  \"%s\"\n", x->addr, text.data ? text.data : "");
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "addr", api_addr_new(x->addr));
	json_object_object_add(o, "text", json_object_new_string(text.data ? text.data : ""));
	json_object_array_add(list, o);
}

static int read_strings(struct x *x)
{
	struct json_object *list = x->json ? json_object_new_array() : NULL;
	int status = 0;

	for (; x->count && !status && !x->cut; x->count--) {
		struct api_reply reply;
		size_t n = 0, len;

		status = ask(x, "machine.read", "length", STRING_BYTES, &reply);
		if (!status) {
			_cleanup_free_ uint8_t *data =
				base64_decode(string_of(reply.result, "data", ""), &n);

			len = strnlen((const char *)data, n);
			if (n)
				show_string(x, list, data, len);
			/* Only what the string itself runs into is a fault of it. */
			if (len == n)
				tell_fault(x, reply.result);
			x->addr += len + 1;
		}
		api_reply_finish(&reply);
	}
	if (x->json)
		json_object_object_add(x->json, "strings", list);
	return status;
}

/* ---- instructions ------------------------------------------------------------------------------
 */

/* Returns where the next one is. */
static uint64_t show_instruction(struct json_object *list, struct json_object *insn)
{
	const char *bytes = string_of(insn, "bytes", "");
	uint64_t addr = 0;

	api_addr_parse(string_of(insn, "addr", "0"), &addr);
	if (list)
		json_object_array_add(list, json_object_get(insn));
	else
		printf("%016" PRIx64 "  %-22s  %s\n", addr, bytes, string_of(insn, "text", ""));
	return addr + strlen(bytes) / 2;
}

static int read_instructions(struct x *x)
{
	struct json_object *list = x->json ? json_object_new_array() : NULL;
	int status = 0;

	while (x->count && !status && !x->cut) {
		struct api_reply reply;
		uint64_t n = MIN(x->count, 256ull);

		status = ask(x, "machine.disassemble", "count", n, &reply);
		if (!status) {
			struct json_object *all = object_of(reply.result, "instructions");

			for (size_t k = 0; k < json_object_array_length(all); k++)
				x->addr = show_instruction(list, json_object_array_get_idx(all, k));
			tell_fault(x, reply.result);
			x->count -= n;
		}
		api_reply_finish(&reply);
	}
	if (x->json)
		json_object_object_add(x->json, "instructions", list);
	return status;
}

int verb_x(struct args *args)
{
	static int (*const readers[])(struct x *) = {read_bytes, read_bytes, read_strings,
						     read_instructions};
	struct x x = {.args = args};
	struct api_error err;
	int status;

	if (parse_what(&x, &err) || connect_umbrad(&x.client, NULL, true, &err))
		return fail(args, &err);
	if (args->json)
		x.json = json_object_new_object();
	status = readers[x.form](&x);
	if (x.json && !status)
		print_json(x.json);
	json_object_put(x.json);
	api_client_destroy(x.client);
	return status ? status : x.cut ? STATUS_FAILED : 0;
}
