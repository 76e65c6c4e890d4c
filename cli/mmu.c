/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmctl mmu walk, context, roots, slots, rmap, audit, policy: one answer, told as text. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "api/base64.h"
#include "cli/vmctl.h"

static size_t length_of(struct json_object *array)
{
	return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

static uint64_t addr_of(struct json_object *obj, const char *name)
{
	struct json_object *v = object_of(obj, name);

	return v ? api_addr_get(v) : 0;
}

static bool bool_of(struct json_object *obj, const char *name)
{
	return json_object_get_boolean(object_of(obj, name));
}

/* "a b c" of an array of strings. */
static void join_words(struct json_object *array, char *out, size_t len)
{
	size_t at = 0;

	*out = '\0';
	for (size_t i = 0; i < length_of(array) && at < len; i++)
		at += (size_t)snprintf(out + at, len - at, "%s%s", i ? " " : "",
				       json_object_get_string(json_object_array_get_idx(array, i)));
}

void mmu_role_text(struct json_object *role, char *out, size_t len)
{
	struct json_object *quadrant = object_of(role, "quadrant");
	const char *paging = string_of(role, "paging", "?");
	char flags[96], part[24] = "";

	join_words(object_of(role, "flags"), flags, sizeof(flags));
	if (quadrant)
		snprintf(part, sizeof(part), " quadrant %s", json_object_get_string(quadrant));
	/* What has no guest table behind it was often made while the guest had none at all. */
	if (bool_of(role, "direct") && !strcmp(paging, "none"))
		paging = "";
	snprintf(out, len, "level %lld %s%s%s%s%s%s%s", (long long)int_of(role, "level", 0), paging,
		 *paging ? " " : "", string_of(role, "access", "?"), part,
		 bool_of(role, "direct") ? " direct" : "", *flags ? " " : "", flags);
}

/* ---- walk ---- */

#define LINE	  96
#define WALK_ROWS 7 /* the ends, levels 1 to 5, and the heads */

/* Two columns: what the guest's tables say at a level, and what ours do. */
struct walk_row {
	char name[16];
	char left[2][LINE], right[2][LINE];
};

static struct walk_row *row_of(struct walk_row *rows, struct json_object *step)
{
	int64_t level = int_of(step, "level", 1);
	struct walk_row *row = &rows[MIN(MAX(level, 1), WALK_ROWS - 2)];
	const char *name = string_of(step, "name", "?");

	if (!*row->name)
		snprintf(row->name, sizeof(row->name), "%s",
			 strncmp(name, "EPT ", 4) ? name : name + 4);
	return row;
}

static void fill_column(struct walk_row *rows, struct json_object *steps, const char *where,
			bool left)
{
	for (size_t i = 0; i < length_of(steps); i++) {
		struct json_object *s = json_object_array_get_idx(steps, i);
		struct walk_row *row = row_of(rows, s);
		char(*cell)[LINE] = left ? row->left : row->right;

		if (object_of(s, "register"))
			snprintf(cell[0], LINE, "PDPTR%lld => %llx",
				 (long long)int_of(s, "register", 0),
				 (unsigned long long)addr_of(s, "raw"));
		else
			snprintf(cell[0], LINE, "%llx => %llx",
				 (unsigned long long)addr_of(s, where),
				 (unsigned long long)addr_of(s, "raw"));
		snprintf(cell[1], LINE, "  %s", string_of(s, "bits", ""));
	}
}

static void print_rows(const struct walk_row *rows)
{
	int width = 0;

	for (unsigned level = 0; level < WALK_ROWS; level++)
		for (unsigned i = 0; i < 2; i++)
			width = MAX(width, (int)strlen(rows[level].left[i]));
	for (unsigned level = WALK_ROWS; level-- > 0;) {
		const struct walk_row *row = &rows[level];

		for (unsigned i = 0; i < 2; i++)
			if (*row->left[i] || *row->right[i])
				printf("%-6s %-*s%s%s\n", i ? "" : row->name,
				       *row->right[i] ? width : 0, row->left[i],
				       *row->right[i] ? "  | " : "", row->right[i]);
	}
}

static void print_end(struct json_object *r)
{
	struct json_object *guest = object_of(r, "guest"), *slot = object_of(r, "slot");
	struct json_object *fault = object_of(guest, "fault");
	const char *hpa = string_of(r, "hpa", NULL);

	if (fault) {
		printf("fault  %s: %s", string_of(fault, "raises", "?"),
		       string_of(fault, "why", "?"));
		if (object_of(fault, "reserved"))
			printf(" (%s)", string_of(fault, "reserved", ""));
		if (object_of(fault, "error_code"))
			printf(", error code %s for a kernel's read",
			       string_of(fault, "error_code", "?"));
		putchar('\n');
		return;
	}
	printf("gpa    %s", string_of(r, "gpa", "?"));
	if (guest)
		printf("  page %s %s, kernel may %s, user may %s", string_of(guest, "page", "?"),
		       string_of(guest, "access", "?"), string_of(guest, "kernel_may", "?"),
		       string_of(guest, "user_may", "?"));
	putchar('\n');
	if (!slot)
		return;
	printf("slot   %lld: gpa %s, size %s, hva %s%s\n", (long long)int_of(slot, "id", 0),
	       string_of(slot, "gpa", "?"), string_of(slot, "size", "?"),
	       string_of(slot, "hva", "?"), bool_of(slot, "readonly") ? ", read-only" : "");
	printf("hva    %s = %s - %s + %s\n", string_of(r, "hva", "?"), string_of(r, "gpa", "?"),
	       string_of(slot, "gpa", "?"), string_of(slot, "hva", "?"));
	printf("hpa    %s%s\n",
	       hpa ? "" : "unknown: ", hpa ? hpa : string_of(r, "hpa_unknown", "not told"));
}

static void print_bytes(struct json_object *r)
{
	const char *text = string_of(r, "bytes", NULL);
	uint64_t addr = addr_of(r, "addr");
	uint8_t *data;
	size_t len;

	data = text ? base64_decode(text, &len) : NULL;
	if (!data)
		return;
	putchar('\n');
	for (size_t at = 0; at < len; at += 16) {
		printf("%016llx ", (unsigned long long)(addr + at));
		for (size_t i = at; i < at + 16; i++)
			if (i < len)
				printf(" %02x", data[i]);
			else
				printf("   ");
		printf("  ");
		for (size_t i = at; i < at + 16 && i < len; i++)
			putchar(isprint(data[i]) ? data[i] : '.');
		putchar('\n');
	}
	free(data);
}

static void head_columns(struct walk_row *top, struct json_object *guest,
			 struct json_object *tables)
{
	const char *root = string_of(tables, "root", NULL);

	if (guest) {
		snprintf(top->left[0], LINE, "guest's tables, %s", string_of(guest, "paging", "?"));
		snprintf(top->left[1], LINE, "cr3 %s", string_of(guest, "cr3", "?"));
	}
	if (!root)
		return;
	snprintf(top->right[0], LINE, "our tables, %s", string_of(tables, "format", "?"));
	snprintf(top->right[1], LINE, "root %s", root);
}

static void show_walk(struct json_object *r)
{
	struct json_object *guest = object_of(r, "guest"), *tables = object_of(r, "tables");
	struct walk_row rows[WALK_ROWS] = {0}, ept[WALK_ROWS] = {0};

	printf("%s %s, vCPU %lld, %s\n\n", string_of(r, "kind", "?"), string_of(r, "addr", "?"),
	       (long long)int_of(r, "vcpu", 0), string_of(r, "policy", "?"));
	head_columns(&rows[WALK_ROWS - 1], guest, tables);
	fill_column(rows, object_of(guest, "steps"), "gpa", true);
	fill_column(rows, object_of(tables, "steps"), "at", false);
	snprintf(rows[0].name, sizeof(rows[0].name), "end");
	if (string_of(guest, "gpa", NULL))
		snprintf(rows[0].left[0], LINE, "gpa %s", string_of(guest, "gpa", ""));
	if (object_of(tables, "hva"))
		snprintf(rows[0].right[0], LINE, "hva %s", string_of(tables, "hva", "?"));
	else
		snprintf(rows[0].right[0], LINE, "%s", string_of(tables, "state", "?"));
	print_rows(rows);
	if (object_of(guest, "ept")) {
		printf("\nngpa %s through L1's EPT\n", string_of(guest, "ngpa", "?"));
		fill_column(ept, object_of(guest, "ept"), "gpa", true);
		print_rows(ept);
	}
	putchar('\n');
	print_end(r);
	printf("%s\n", string_of(r, "verdict", ""));
	print_bytes(r);
}

int verb_mmu_walk(struct args *args)
{
	return call_and_show(args, show_walk);
}

/* ---- context: as a crash dump shows arch.mmu ---- */

static void print_member(struct json_object *v, const char *name, int depth)
{
	bool inner = json_object_is_type(v, json_type_array) && json_object_array_length(v) &&
		     json_object_is_type(json_object_array_get_idx(v, 0), json_type_array);

	printf("%*s", depth * 4, "");
	if (name)
		printf("%s = ", name);
	if (json_object_is_type(v, json_type_object) || inner) {
		puts("{");
		if (inner) {
			for (size_t i = 0; i < json_object_array_length(v); i++)
				print_member(json_object_array_get_idx(v, i), NULL, depth + 1);
		} else {
			json_object_object_foreach(v, key, member)
				print_member(member, key, depth + 1);
		}
		printf("%*s},\n", depth * 4, "");
	} else if (json_object_is_type(v, json_type_array)) {
		char text[256];

		join_words(v, text, sizeof(text));
		printf("{%s},\n", text);
	} else {
		printf("%s,\n", json_object_get_string(v));
	}
}

static void show_context(struct json_object *r)
{
	const char *which = string_of(r, "which", "current");

	printf("vcpu[%lld].%s = {\n", (long long)int_of(r, "vcpu", 0),
	       !strcmp(which, "current") ? "mmu"
	       : !strcmp(which, "walk")	 ? "walk_mmu"
	       : !strcmp(which, "root")	 ? "root_mmu"
	       : !strcmp(which, "guest") ? "guest_mmu"
					 : "nested_mmu");
	json_object_object_foreach(r, key, v)
	{
		if (strcmp(key, "vcpu") != 0 && strcmp(key, "which") != 0)
			print_member(v, key, 1);
	}
	puts("}");
}

int verb_mmu_context(struct args *args)
{
	return call_and_show(args, show_context);
}

/* ---- roots, slots, rmap ---- */

/* What only the kernel knows is said, not shown as nothing. */
bool mmu_unknown(struct json_object *r)
{
	const char *why = string_of(r, "unknown", NULL);

	if (why)
		printf("unknown: %s\n", why);
	return why;
}

static void show_roots(struct json_object *r)
{
	struct json_object *all = object_of(r, "roots");
	char role[160];

	if (mmu_unknown(r))
		return;

	printf("%4s  %-18s  %-18s  %-8s  %-9s  %s\n", "VCPU", "CR3", "TABLE", "STATE", "OF",
	       "ROLE");
	for (size_t i = 0; i < length_of(all); i++) {
		struct json_object *e = json_object_array_get_idx(all, i);

		mmu_role_text(object_of(e, "role"), role, sizeof(role));
		printf("%4lld  %-18s  %-18s  %-8s  %-9s  %s\n", (long long)int_of(e, "vcpu", 0),
		       string_of(e, "cr3", "-"), string_of(e, "hpa", "?"),
		       bool_of(e, "obsolete")  ? "obsolete"
		       : bool_of(e, "current") ? "in use"
					       : "cached",
		       string_of(e, "of", "?"), role);
	}
}

int verb_mmu_roots(struct args *args)
{
	return call_and_show(args, show_roots);
}

static void show_large(struct json_object *slot, const char *name, const char *title)
{
	struct json_object *o = object_of(slot, name);

	printf("  %s pages: %lld of %lld may be mapped by one entry%s\n", title,
	       (long long)int_of(o, "may", 0), (long long)int_of(o, "all", 0),
	       bool_of(o, "aligned") ? "" : " (host and guest addresses do not agree)");
}

static void show_slots(struct json_object *r)
{
	struct json_object *all = object_of(r, "slots");

	for (size_t i = 0; i < length_of(all); i++) {
		struct json_object *e = json_object_array_get_idx(all, i);
		struct json_object *mapped = object_of(e, "mapped");

		printf("slot %lld: gpa %s, size %s, hva %s%s\n", (long long)int_of(e, "id", 0),
		       string_of(e, "gpa", "?"), string_of(e, "size", "?"),
		       string_of(e, "hva", "?"), bool_of(e, "readonly") ? ", read-only" : "");
		show_large(e, "pages_2m", "2M");
		show_large(e, "pages_1g", "1G");
		if (mapped)
			printf("  mapped now: %lld frames of 4K, %lld of 2M, %lld of 1G\n",
			       (long long)int_of(mapped, "4k", 0),
			       (long long)int_of(mapped, "2m", 0),
			       (long long)int_of(mapped, "1g", 0));
		printf("  dirty log: %lld clients; windows held: %lld\n",
		       (long long)int_of(e, "watchers", 0), (long long)int_of(e, "windows", 0));
	}
	mmu_unknown(r);
}

int verb_mmu_slots(struct args *args)
{
	return call_and_show(args, show_slots);
}

static void show_rmap(struct json_object *r)
{
	struct json_object *all = object_of(r, "sptes");
	char role[160];

	if (object_of(r, "unknown"))
		printf("gfn %s, slot %lld, hva %s\n", string_of(r, "gfn", "?"),
		       (long long)int_of(r, "slot", 0), string_of(r, "hva", "?"));
	if (mmu_unknown(r))
		return;
	printf("gfn %s, slot %lld, hva %s: %zu %s\n", string_of(r, "gfn", "?"),
	       (long long)int_of(r, "slot", 0), string_of(r, "hva", "?"), length_of(all),
	       length_of(all) == 1 ? "entry maps it" : "entries map it");
	for (size_t i = 0; i < length_of(all); i++) {
		struct json_object *e = json_object_array_get_idx(all, i);
		struct json_object *table = object_of(e, "table");

		mmu_role_text(object_of(table, "role"), role, sizeof(role));
		printf("  %s => %s  %s\n    entry %lld of the table for gfn %s: %s\n",
		       string_of(e, "at", "?"), string_of(e, "raw", "?"), string_of(e, "bits", "?"),
		       (long long)int_of(e, "index", 0), string_of(table, "gfn", "?"), role);
	}
	if (object_of(r, "next"))
		printf("  and more: --from %lld\n", (long long)int_of(r, "next", 0));
}

int verb_mmu_rmap(struct args *args)
{
	return call_and_show(args, show_rmap);
}

/* ---- audit, policy ---- */

int verb_mmu_audit(struct args *args)
{
	struct api_reply reply;
	int status = call_method(args, &reply);
	int64_t n = status ? 0 : int_of(reply.result, "violations", 0);

	if (!status && args->json)
		print_json(reply.result);
	else if (!status && mmu_unknown(reply.result))
		;
	else if (!status && !n)
		printf("every invariant holds, in %lld table pages\n",
		       (long long)int_of(reply.result, "pages", 0));
	else if (!status)
		printf("%lld violations; the first: %s\n", (long long)n,
		       string_of(reply.result, "first", "?"));
	api_reply_finish(&reply);
	return status ? status : n ? STATUS_FAILED : 0;
}

static void show_engine(struct json_object *r)
{
	const char *now = string_of(r, "engine", "?"), *was = string_of(r, "was", now);
	struct json_object *list = json_object_object_get(r, "differences");

	if (strcmp(now, was) != 0)
		printf("%s (was %s)\n", now, was);
	else
		puts(now);
	if (*string_of(r, "cpuid", ""))
		puts(string_of(r, "cpuid", ""));
	for (size_t n = 0; n < json_object_array_length(list); n++) {
		struct json_object *d = json_object_array_get_idx(list, n);

		printf("%s: %s, was %s\n", string_of(d, "what", "?"), string_of(d, "is", "?"),
		       string_of(d, "was", "?"));
	}
}

int verb_engine(struct args *args)
{
	return call_and_show(args, show_engine);
}

static void show_policy(struct json_object *r)
{
	const char *now = string_of(r, "policy", "?"), *was = string_of(r, "was", now);

	if (strcmp(now, was) != 0)
		printf("%s (was %s)\n", now, was);
	else
		puts(now);
}

int verb_mmu_policy(struct args *args)
{
	return call_and_show(args, show_policy);
}
