/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of org.umbra.Vmm1 share. All belongs to the loop's thread. */
#ifndef UMBRA_DAEMON_DBUS_INTERNAL_H
#define UMBRA_DAEMON_DBUS_INTERNAL_H

#include <systemd/sd-bus.h>

#include "api/call.h"
#include "api/events.h"
#include "daemon/bus_loop.h"
#include "daemon/dbus.h"
#include "daemon/dbus_table.h"

#define DBUS_PEERS_MAX 4096
#define DBUS_CALLS_MAX 64 /* in flight, of one peer */

struct dbus {
	struct umbrad *d;
	struct dbus_table table;
	const struct api_method *show_machine; /* what a machine's properties are counted as */
	/* While connected: */
	sd_bus *bus;
	struct bus_loop *loop;
	struct list peers;
	size_t n_peers;
	struct api_listener *listener; /* as long as the name is ours */

	struct event *retry;
	bool told;	    /* why there is no bus */
	bool told_machined; /* why machines are not registered */
};

/* A bus connection that has called us. */
struct dbus_peer {
	struct list link;
	struct dbus *b;
	char *name;			/* ":1.42" */
	sd_bus_slot *vanished, *asking; /* a match; the question who it is */
	bool known;			/* @caller is filled */
	bool reads;			/* it may: signals are sent to it */
	uid_t uid;			/* as the bus says */
	gid_t *gids;
	size_t n_gids;
	struct api_caller caller; /* what umbrad.conf makes of that */
	struct list requests;	  /* in flight */
	size_t n_requests;
};

enum dbus_what { DBUS_CALL, DBUS_GET, DBUS_GET_ALL, DBUS_OBJECTS, DBUS_INTROSPECT };

/* A message that is being answered. */
struct dbus_request {
	struct list link;
	struct dbus_peer *peer;
	sd_bus_message *m;
	enum dbus_what what;
	enum dbus_kind_id kind;
	char *id;			      /* of the object; NULL: the manager, or a folder */
	const struct dbus_method *method;     /* DBUS_CALL */
	bool options;			      /* … with the a{sv} at the end */
	const struct dbus_property *property; /* DBUS_GET */
	bool props;			      /* DBUS_GET_ALL: of an interface that has any */
	bool waits;			      /* for a long call's end */
	enum dbus_kind_id listing;	      /* DBUS_OBJECTS: whose turn it is */
	sd_bus_message *reply;		      /* DBUS_OBJECTS: so far */
	sd_bus_slot *asking;		      /* polkit */
	enum api_access level;		      /* what polkit has allowed, or nobody */
	struct api_call *call;
};

/* dbus.c: send and take @m; what fails is told to nobody, as when the peer had gone. */
void dbus_send(struct dbus *b, sd_bus_message *m);

/* dbus_peer.c */
/* The peer that @m came from, perhaps new; NULL: no memory, or there are too many. */
struct dbus_peer *dbus_peer_get(struct dbus *b, sd_bus_message *m);
/* Its requests go with it. */
void dbus_peer_destroy(struct dbus_peer *peer);
/* What its user and groups may do, by the configuration that there is now. */
void dbus_peer_identify(struct dbus_peer *peer);
/* Let the request begin once it is known who asks and whether it may. */
void dbus_authorize(struct dbus_request *r);

/* dbus_call.c */
/* A filter: takes every method call at or below DBUS_ROOT, and lets pass what else comes. */
int dbus_on_message(sd_bus_message *m, void *bus, sd_bus_error *ret_error);
/* Who asks is known, and what it may do: begin. */
void dbus_request_begin(struct dbus_request *r);
void dbus_request_fail(struct dbus_request *r, const struct api_error *err);
/* Without an answer. */
void dbus_request_destroy(struct dbus_request *r);

/* dbus_object.c */
/* The path of an object; owned, NULL: no memory. */
char *dbus_path(enum dbus_kind_id kind, const char *id);
/* The id of a member of a list, or of what shows an object; "" when it has none. */
const char *dbus_id_of(enum dbus_kind_id kind, struct json_object *shown);
/* "v": one property; @shown as dbus_kinds[].show gives it. */
int dbus_append_property(sd_bus_message *m, const struct dbus_property *p,
			 struct json_object *shown);
/* The same of the value itself; NULL: it is absent. */
int dbus_append_value(sd_bus_message *m, const struct dbus_property *p, struct json_object *v);
/* "a{sv}": all, or (@state) those only that do not come from the definition. */
int dbus_append_properties(sd_bus_message *m, const struct dbus_table *t, enum dbus_kind_id kind,
			   struct json_object *shown, bool state);
/* "a{sa{sv}}": all interfaces of an object with their properties. */
int dbus_append_interfaces(sd_bus_message *m, const struct dbus_table *t, enum dbus_kind_id kind,
			   struct json_object *shown);
/* An introspection document; @list: the members of the folder, or NULL. Owned; NULL: no memory. */
char *dbus_document(const struct dbus_table *t, enum dbus_kind_id kind, bool object,
		    struct json_object *list);

/* dbus_signal.c */
int dbus_signals_begin(struct dbus *b);
void dbus_signals_end(struct dbus *b);

/* dbus_machined.c: only the system's umbrad. */
void dbus_machined_begin(struct dbus *b);
void dbus_machined_event(struct dbus *b, const struct api_event *ev);

#endif
