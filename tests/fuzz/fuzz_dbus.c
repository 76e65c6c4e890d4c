/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target over D-Bus arguments. The first byte chooses: an even one, and the rest is JSON
 * as a hostile umbra-vm may answer with, which goes into a message, back, and again, unchanged from
 * the first time on; an odd one, and the rest is a recipe for a message of any types, read as some
 * row's arguments.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "daemon/dbus_table.h"
#include "daemon/dbus_types.h"
#include "tests/unit/daemon/lone_bus.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct recipe {
	const uint8_t *p, *end;
};

static uint8_t next(struct recipe *r)
{
	return r->p < r->end ? *r->p++ : 0;
}

/* Append "type" of a random complete type. */
static void choose_type(struct recipe *r, char *sig, size_t room, unsigned depth)
{
	static const char basic[] = "ybnqiuxtdsoghv";
	uint8_t c = next(r) % (depth < 5 && room > 16 ? 20 : 14);

	if (c < 14) {
		strncat(sig, &basic[c], 1);
	} else if (c < 17) {
		strcat(sig, "a");
		choose_type(r, sig, room - 1, depth + 1);
	} else if (c < 19) {
		strcat(sig, "a{");
		strncat(sig, &"sstg"[next(r) % 4], 1);
		choose_type(r, sig, room - 4, depth + 1);
		strcat(sig, "}");
	} else {
		strcat(sig, "(");
		choose_type(r, sig, room - 3, depth + 1);
		strcat(sig, ")");
	}
}

static size_t type_length(const char *sig)
{
	size_t n = 1, open = 1;

	if (*sig == 'a')
		return 1 + type_length(sig + 1);
	if (*sig != '(' && *sig != '{')
		return 1;
	for (; open; n++)
		open += (sig[n] == '(' || sig[n] == '{') - (sig[n] == ')' || sig[n] == '}');
	return n;
}

static int fill(sd_bus_message *m, struct recipe *r, const char *sig, unsigned depth);

static int fill_text(sd_bus_message *m, struct recipe *r, char type)
{
	static const char *const words[] = {"name", "cpus", "memory", "definition", "wait",
					    "512M", "0x10", "",	      "kernel",	    "/a/b"};
	uint8_t c = next(r);

	if (type == 'g')
		return sd_bus_message_append_basic(m, 'g', c & 1 ? "a{sv}" : "");
	if (type == 'o')
		return sd_bus_message_append_basic(m, 'o', c & 1 ? "/a/b" : "/");
	return sd_bus_message_append_basic(m, 's', words[c % ARRAY_SIZE(words)]);
}

static int fill_basic(sd_bus_message *m, struct recipe *r, char type)
{
	uint64_t bits = 0;
	int value;

	if (strchr("sog", type))
		return fill_text(m, r, type);
	for (unsigned i = 0, n = next(r) % 9; i < n; i++)
		bits = bits << 8 | next(r);
	if (type == 'b' || type == 'h') {
		value = type == 'b' ? (int)(bits & 1) : 0;
		return sd_bus_message_append_basic(m, type, &value);
	}
	return sd_bus_message_append_basic(m, type, &bits); /* little-endian: the low part */
}

static int fill_container(sd_bus_message *m, struct recipe *r, const char *sig, unsigned depth)
{
	char inner[256] = "";
	size_t len = type_length(sig);
	unsigned n = 1;
	int ret;

	if (*sig == 'v') {
		choose_type(r, inner, 200, depth);
	} else if (*sig == 'a') {
		snprintf(inner, sizeof(inner), "%.*s", (int)len - 1, sig + 1);
		n = next(r) % 4;
	} else {
		snprintf(inner, sizeof(inner), "%.*s", (int)len - 2, sig + 1);
	}
	ret = sd_bus_message_open_container(m, *sig == '(' ? 'r' : *sig == '{' ? 'e' : *sig, inner);
	while (ret >= 0 && n--)
		ret = fill(m, r, inner, depth + 1);
	return ret < 0 ? ret : sd_bus_message_close_container(m);
}

/* Values for every type of @sig. */
static int fill(sd_bus_message *m, struct recipe *r, const char *sig, unsigned depth)
{
	int ret = depth > 40 ? -ELOOP : 0;

	for (; ret >= 0 && *sig; sig += type_length(sig))
		ret = strchr("va({", *sig) ? fill_container(m, r, sig, depth)
					   : fill_basic(m, r, *sig);
	return ret;
}

/* All arguments of the row that fit, as read_params() does. */
static void read_as(const struct api_method *row, sd_bus_message *m)
{
	struct json_object *obj = json_object_new_object();
	struct api_error err = {0};
	int ret = 0;

	for (size_t i = 0; !ret && i < row->params.n; i++) {
		struct json_object *v = NULL;

		if (!row->params.f[i].required)
			continue;
		ret = dbus_read(m, &row->params.f[i], &v, &err);
		if (!ret)
			json_object_object_add(obj, row->params.f[i].name, v);
	}
	if (!ret)
		ret = dbus_read_dict(m, &row->params, obj, &err);
	if (!ret)
		ret = api_fields_check(&row->params, obj, "", &err);
	if (ret && (!err.kind || !err.text[0]))
		abort();
	json_object_put(obj);
}

static void cook(const uint8_t *data, size_t size)
{
	struct recipe r = {data, data + size};
	sd_bus_message *m = lone_message();
	char sig[256] = "";
	size_t row = next(&r) % api_method_count(&api_umbrad_methods);

	for (unsigned i = 0, n = next(&r) % 4; i < n; i++)
		choose_type(&r, sig, 200 - strlen(sig), 0);
	if (next(&r) & 1)
		strcat(sig, "a{sv}");
	if (fill(m, &r, sig, 0) >= 0 && lone_message_seal(m) >= 0)
		read_as(api_method_at(&api_umbrad_methods, row), m);
	sd_bus_message_unref(m);
}

/* Through a message and back; NULL with false: it was refused. */
static bool carry(struct json_object *v, struct json_object **back)
{
	sd_bus_message *m = lone_message();
	struct api_error err = {0};
	int ret = dbus_append_variant(m, NULL, v);

	if (ret < 0 && ret != -ELOOP)
		abort();
	if (ret >= 0 && (lone_message_seal(m) < 0 || dbus_read(m, NULL, back, &err)))
		abort();
	sd_bus_message_unref(m);
	return ret >= 0;
}

static void answer(const uint8_t *data, size_t size)
{
	struct json_tokener *tok = json_tokener_new();
	struct json_object *v = json_tokener_parse_ex(tok, (const char *)data, (int)size);
	struct json_object *once = NULL, *twice = NULL;
	sd_bus_message *m;

	if (carry(v, &once)) {
		if (!carry(once, &twice) ||
		    strcmp(json_object_to_json_string(once), json_object_to_json_string(twice)))
			abort();
	}
	/* And as what a row says that it is. */
	m = lone_message();
	if (size) {
		const struct api_field *f = &machine_def_fields.f[data[0] % machine_def_fields.n];

		dbus_append(m, f, v);
		dbus_append_variant(m, f, v);
	}
	sd_bus_message_unref(m);
	json_object_put(v);
	json_object_put(once);
	json_object_put(twice);
	json_tokener_free(tok);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size || size > KIB(64))
		return 0;
	if (data[0] & 1)
		cook(data + 1, size - 1);
	else
		answer(data + 1, size - 1);
	return 0;
}
