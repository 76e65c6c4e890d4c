/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where REST serves a row of the method table. */
#include "api/route.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct api_field *key_of(const struct api_method *m)
{
	const struct api_field *f = m->params.n ? &m->params.f[0] : NULL;

	if (!f || !f->required)
		return NULL;
	return !strcmp(f->name, "id") || (!strcmp(f->name, "name") && f->type == API_NAME) ? f
											   : NULL;
}

/* Whether a group has a list of what is in it, and so its members addresses of their own. */
static bool is_plural(const struct api_table *table, const char *group)
{
	const struct api_method *list;
	char name[64];

	snprintf(name, sizeof(name), "%s.list", group);
	list = api_method_find(table, name);
	return list && !key_of(list);
}

static enum api_http_method verb_of(const struct api_method *m, const char *verb, bool at_address)
{
	if (at_address && !strcmp(verb, "create"))
		return API_HTTP_POST;
	if (at_address && !strcmp(verb, "delete"))
		return API_HTTP_DELETE;
	return m->access == API_READ ? API_HTTP_GET : API_HTTP_PUT;
}

int api_route_make(const struct api_table *table, const struct api_method *method,
		   struct api_route *out)
{
	static const char *const plain[] = {"list", "show", "create", "delete", "subscribe"};
	const char *dot = strchr(method->name, '.'), *verb = dot ? dot + 1 : "";
	const struct api_field *key = key_of(method);
	bool about_machine = key && !strcmp(key->name, "name"), at_address = false;
	char group[32];
	int n;

	if (!dot || dot == method->name || dot - method->name >= (int)sizeof(group))
		return -EINVAL;
	snprintf(group, sizeof(group), "%.*s", (int)(dot - method->name), method->name);
	about_machine = about_machine && strcmp(group, "machine");
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		at_address |= !about_machine && !strcmp(verb, plain[i]);
	*out = (struct api_route){
		.method = method,
		.key = key,
		.verb = verb_of(method, verb, at_address),
		.creates = at_address && !strcmp(verb, "create"),
		.streams = at_address && !strcmp(verb, "subscribe"),
	};
	if (about_machine)
		n = snprintf(out->path, sizeof(out->path), "/machines/{name}/%s/%s", group, verb);
	else
		n = snprintf(out->path, sizeof(out->path), "/%s%s%s%s%s%s%s", group,
			     is_plural(table, group) ? "s" : "", key ? "/{" : "",
			     key ? key->name : "", key ? "}" : "", at_address ? "" : "/",
			     at_address ? "" : verb);
	return n < (int)sizeof(out->path) ? 0 : -EINVAL;
}
