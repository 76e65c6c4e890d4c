/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fields as JSON Schema (draft 7, also valid as 2020-12), for documents. */
#ifndef UMBRA_API_JSON_SCHEMA_H
#define UMBRA_API_JSON_SCHEMA_H

#include "api/schema.h"

struct json_object;

/* An object with these fields; of any members with NULL, or beside a field "*". */
struct json_object *api_json_schema(const struct api_fields *fields);
struct json_object *api_json_schema_field(const struct api_field *field);
void api_json_add_text(struct json_object *obj, const char *name, const char *value);

#endif
