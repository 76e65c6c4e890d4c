/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows of a method table, found by name. */
#include "api/method.h"

#include <string.h>

const struct api_method *api_method_find(const struct api_table *table, const char *name)
{
	for (size_t i = 0; i < table->n; i++)
		if (!strcmp(table->m[i].name, name))
			return &table->m[i];
	return NULL;
}

static const char *method_name_at(const void *data, size_t i)
{
	return ((const struct api_method *)data)[i].name;
}

const char *api_method_nearest(const struct api_table *table, const char *name)
{
	return api_nearest(name, method_name_at, table->n, table->m);
}
