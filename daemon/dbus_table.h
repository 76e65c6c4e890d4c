/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The method table as D-Bus interfaces, by rule.
 *
 * Objects: DBUS_ROOT (the manager), DBUS_ROOT/machine/NAME and DBUS_ROOT/job/ID, escaped as sd-bus
 * does. A row with a required parameter "name" of a machine is a method of the machine's object, on
 * the interface by its first word: "mmu.walk" is org.umbra.Vmm1.Mmu.Walk; a row "job.*" with a
 * required "id" likewise of the job's. The object stands for that parameter. All other rows are
 * methods of org.umbra.Vmm1.Manager by their whole name: "machine.list" is MachineList.
 *
 * Arguments in: the required parameters in the row's order; a descriptor (API_M_FD_IN); the
 * optional ones as an a{sv}, when the row has any: it may be left out, so that a row's first
 * optional parameter breaks nobody. Arguments out: the required members of the result likewise, and
 * an a{sv} of the others, which is there whenever the row has a result at all; a descriptor, where
 * the row has API_M_FD_OUT and no result (else "fd" in that a{sv}). API_M_LONG rows answer with the
 * job's path ("/" when it is over) and the whole result as a{sv} (empty as long as it is not).
 *
 * Properties: the result of the row that shows the object (struct dbus_kind's @show), typed
 * likewise, and the members of a machine's definition. What is absent is zero or empty.
 *
 * Errors: "not-found" is org.umbra.Vmm1.Error.NotFound, with the sentence and an a{sv} of what else
 * there is to say: retryable, machine, field.
 */
#ifndef UMBRA_DAEMON_DBUS_TABLE_H
#define UMBRA_DAEMON_DBUS_TABLE_H

#include "api/method.h"
#include "base/buf.h"

#define DBUS_INTERFACE_MAX 64
#define DBUS_MEMBER_MAX	   64
#define DBUS_SIGNATURE_MAX 64
#define DBUS_ERROR_PREFIX  "org.umbra.Vmm1.Error."

enum dbus_kind_id { DBUS_MANAGER, DBUS_MACHINE, DBUS_JOB, DBUS_KINDS };

/* A kind of objects. */
struct dbus_kind {
	const char *folder; /* path of them all; of the manager itself */
	const char *id;	    /* the parameter that an object stands for; NULL: the manager */
	const char *iface;  /* that has the properties */
	const char *show;   /* the method whose result they are */
	const char *list;   /* the method that lists all objects … */
	const char *array;  /* … in this member of its result */
};
extern const struct dbus_kind dbus_kinds[DBUS_KINDS];

struct dbus_method {
	const struct api_method *row;
	enum dbus_kind_id kind;
	bool has_options, has_rest; /* the a{sv} at the end of what goes in and comes out */
	char iface[DBUS_INTERFACE_MAX];
	char member[DBUS_MEMBER_MAX];
	char in[DBUS_SIGNATURE_MAX], out[DBUS_SIGNATURE_MAX];
};

struct dbus_property {
	const struct api_field *field;
	bool of_definition; /* in the member "definition" of what shows the object */
	char name[DBUS_MEMBER_MAX];
};

struct dbus_table {
	struct dbus_method *methods;
	size_t n_methods;
	struct {
		struct dbus_property *p;
		size_t n;
	} properties[DBUS_KINDS];
};

/* 0, -ENOMEM, or -ENAMETOOLONG for a row that no name of ours holds. */
int dbus_table_init(struct dbus_table *t, const struct api_table *rows);
void dbus_table_finish(struct dbus_table *t);

/* @iface may be NULL: any that has the member. NULL: none. */
const struct dbus_method *dbus_table_find(const struct dbus_table *t, enum dbus_kind_id kind,
					  const char *iface, const char *member);
/* Whether objects of @kind have the interface. */
bool dbus_table_has(const struct dbus_table *t, enum dbus_kind_id kind, const char *iface);
/* The i-th interface of @kind's objects, each once, in the rows' order; NULL: no more. */
const char *dbus_table_interface(const struct dbus_table *t, enum dbus_kind_id kind, size_t i);
const struct dbus_property *dbus_table_property(const struct dbus_table *t, enum dbus_kind_id kind,
						const char *name);

/* Whether a field of a row goes in or comes out by position. */
bool dbus_positional(const struct dbus_kind *kind, const struct api_field *field);
/* The same, of a row's result. */
bool dbus_result_positional(const struct dbus_method *m, const struct api_field *field);

/* The XML of one kind's interfaces, without the document around it. */
void dbus_table_describe(const struct dbus_table *t, enum dbus_kind_id kind, struct buf *xml);

/* "invalid-params" to "org.umbra.Vmm1.Error.InvalidParams". */
void dbus_error_name(enum api_kind kind, char out[DBUS_INTERFACE_MAX]);
/* "foo-bar_baz.quux" to "FooBarBazQuux". -ENAMETOOLONG. */
int dbus_camel(const char *words, char *out, size_t len);

#endif
