/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows of a method table, found by name. */
#include "api/method.h"

#include <string.h>

const char *const api_access_names[API_ADMIN + 2] = {"read", "operate", "admin", NULL};

const char *api_access_name(enum api_access access)
{
	return access >= API_READ && access <= API_ADMIN ? api_access_names[access] : "none";
}

const struct api_method *api_method_find(const struct api_table *table, const char *name)
{
	for (; table; table = table->more)
		for (size_t i = 0; i < table->n; i++)
			if (!strcmp(table->m[i].name, name))
				return &table->m[i];
	return NULL;
}

const struct api_method *api_method_at(const struct api_table *table, size_t i)
{
	for (; table && i >= table->n; table = table->more)
		i -= table->n;
	return table ? &table->m[i] : NULL;
}

size_t api_method_count(const struct api_table *table)
{
	size_t n = 0;

	for (; table; table = table->more)
		n += table->n;
	return n;
}

static const char *method_name_at(const void *table, size_t i)
{
	return api_method_at(table, i)->name;
}

const char *api_method_nearest(const struct api_table *table, const char *name)
{
	return api_nearest(name, method_name_at, api_method_count(table), table);
}
