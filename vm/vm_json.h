/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Members of the JSON objects that handlers answer with. */
#ifndef UMBRA_VM_JSON_H
#define UMBRA_VM_JSON_H

#include <json-c/json.h>

#include "api/schema.h"

static inline void put(struct json_object *o, const char *name, struct json_object *v)
{
	json_object_object_add(o, name, v);
}

/* "0x1f00": an address, or bits. */
static inline void put_addr(struct json_object *o, const char *name, uint64_t addr)
{
	put(o, name, api_addr_new(addr));
}

static inline void put_u64(struct json_object *o, const char *name, uint64_t n)
{
	put(o, name, json_object_new_uint64(n));
}

static inline void put_bool(struct json_object *o, const char *name, bool value)
{
	put(o, name, json_object_new_boolean(value));
}

static inline void put_string(struct json_object *o, const char *name, const char *text)
{
	put(o, name, json_object_new_string(text));
}

#endif
