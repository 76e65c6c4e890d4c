/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target over the files that umbrad reads at start: umbrad.conf, and, when the first byte
 * is '{', a stored definition.
 */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "api/machine_def.h"
#include "daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is told is told in whole: a file, and text without a line's end. */
static void say(void *data, const char *text)
{
	if (strncmp(text, "f:", 2) != 0 || strchr(text, '\n'))
		abort();
	++*(unsigned *)data;
}

static void configuration(const char *text, size_t len)
{
	struct umbrad_config config, next;
	unsigned said = 0, errors;

	if (umbrad_config_init(&config) || umbrad_config_init(&next))
		abort();
	errors = umbrad_config_parse(&config, "f", text, len, say, &said);
	if (!errors != !said || said > errors)
		abort();
	umbrad_config_replace(&next, &config);
	umbrad_config_finish(&next);
}

/* A definition that is accepted is the same when it is written and read again. */
static void definition(const char *text, size_t len)
{
	struct json_tokener *tok = json_tokener_new_ex(32);
	struct json_object *obj = json_tokener_parse_ex(tok, text, (int)len), *saved, *again;
	struct machine_def def, copy;
	struct api_error err;

	if (obj && !machine_def_parse(&def, obj, NULL, "definition", &err)) {
		saved = machine_def_to_json(&def);
		if (!saved || machine_def_parse(&copy, saved, NULL, "definition", &err))
			abort();
		again = machine_def_to_json(&copy);
		if (!json_object_equal(saved, again))
			abort();
		json_object_put(again);
		json_object_put(saved);
		machine_def_finish(&copy);
		machine_def_finish(&def);
	}
	json_object_put(obj);
	json_tokener_free(tok);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size && data[0] == '{')
		definition((const char *)data, size);
	else
		configuration((const char *)data, size);
	return 0;
}
