/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl regs: a vCPU's registers in groups. */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "cli/vmctl.h"

#define WIDTH 96

/* "0x1f" as sixteen digits, where they line up; what is longer stays as it is. */
static void print_value(const char *text)
{
	size_t len = strlen(text);

	if (strncmp(text, "0x", 2) != 0 || len > 18)
		printf("%s", text);
	else
		printf("%.*s%s", (int)(18 - len), "0000000000000000", text + 2);
}

static bool is_wide(const char *text)
{
	return strlen(text) > 18;
}

/* Values side by side; one that has flags takes a line, with their names. */
static void print_values(struct json_object *group)
{
	int column = 0;

	json_object_object_foreach(group, name, value)
	{
		char key[32];
		const char *bits, *text = json_object_get_string(value);
		size_t len = strlen(name);

		if (len > 5 && !strcmp(name + len - 5, "_bits"))
			continue;
		snprintf(key, sizeof(key), "%s_bits", name);
		bits = string_of(group, key, NULL);
		if ((bits || is_wide(text)) && column) {
			putchar('\n');
			column = 0;
		}
		printf("  %-6s ", name);
		print_value(text);
		if (bits)
			printf("  %s", bits);
		column += MAX(24, (int)len + 20);
		if (bits || is_wide(text) || column + 24 > WIDTH) {
			putchar('\n');
			column = 0;
		}
	}
	if (column)
		putchar('\n');
}

static void print_segments(struct json_object *group)
{
	json_object_object_foreach(group, name, seg)
	{
		printf("  %-6s %-6s base ", name, string_of(seg, "selector", ""));
		print_value(string_of(seg, "base", ""));
		printf("  limit %-10s  %s\n", string_of(seg, "limit", ""),
		       string_of(seg, "type", ""));
	}
}

static void print_vcpu(struct json_object *regs)
{
	printf("vCPU %lld: %s, CPL %lld, paging %s, %s\n", (long long)int_of(regs, "vcpu", 0),
	       string_of(regs, "mode", "?"), (long long)int_of(regs, "cpl", 0),
	       string_of(regs, "paging", "?"), string_of(regs, "activity", "?"));
	json_object_object_foreach(regs, name, group)
	{
		if (!json_object_is_type(group, json_type_object))
			continue;
		printf("%s\n", name);
		if (!strcmp(name, "segments"))
			print_segments(group);
		else
			print_values(group);
	}
}

static void show_vcpus(struct json_object *result)
{
	struct json_object *all = object_of(result, "vcpus");

	for (size_t k = 0; k < json_object_array_length(all); k++) {
		if (k)
			putchar('\n');
		print_vcpu(json_object_array_get_idx(all, k));
	}
}

int verb_regs(struct args *args)
{
	return call_and_show(args, show_vcpus);
}
