/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Values between D-Bus messages and JSON, typed by the rows' fields.
 *
 *	field                        D-Bus           JSON
 *	API_BOOL                     b               true, false
 *	API_INT                      x               an integer
 *	API_NUMBER                   d               a number
 *	API_STRING NAME PATH ENUM    s               a string
 *	API_SIZE                     t, bytes        "512M"
 *	API_ADDR                     t               "0x1f00"
 *	API_PATHS                    as              an array of strings
 *	API_OBJECT                   a{sv}           an object
 *	API_ANY                      v               anything
 *
 * What no field types goes by what it is: an integer is x (t above its range), an array of like
 * things as, ax, ad, ab or aa{sv}, any other av, and null the signature "" (g), since D-Bus has
 * none. The other way, every D-Bus type is understood but descriptors.
 */
#ifndef UMBRA_DAEMON_DBUS_TYPES_H
#define UMBRA_DAEMON_DBUS_TYPES_H

#include <systemd/sd-bus.h>

#include "api/schema.h"

struct json_object;

/* Objects and arrays in one another; D-Bus itself allows 64 containers, of which each takes 3. */
#define DBUS_DEPTH_MAX 16

/* The signature of a value of @field; NULL: of one that no field types, "v". */
const char *dbus_signature(const struct api_field *field);

/*
 * Append. What does not fit its field (umbra-vm may be anybody) becomes what json-c makes of it, or
 * zero. -ELOOP: too deep; else what sd-bus has to say. @value may be NULL.
 */
int dbus_append(sd_bus_message *m, const struct api_field *field, struct json_object *value);
int dbus_append_variant(sd_bus_message *m, const struct api_field *field,
			struct json_object *value);
/* One entry of an a{sv} that is open. */
int dbus_append_entry(sd_bus_message *m, const char *key, const struct api_field *field,
		      struct json_object *value);
/* An entry for each member of @obj (NULL: none) that @skip (may be NULL) does not name; NULL ends
 * it. */
int dbus_append_entries(sd_bus_message *m, const struct api_fields *fields, struct json_object *obj,
			const char *const *skip);

/*
 * Read. The caller owns *@out. 0, or -errno with *@err. Whether a value fits its field is not
 * checked: the dispatcher does.
 */
int dbus_read(sd_bus_message *m, const struct api_field *field, struct json_object **out,
	      struct api_error *err);
/* Add the members of an a{sv} to @obj; one that it has already is refused. */
int dbus_read_dict(sd_bus_message *m, const struct api_fields *fields, struct json_object *obj,
		   struct api_error *err);

#endif
