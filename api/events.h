/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbered events, kept for a while and told to those who listen, on whatever transport. */
#ifndef UMBRA_API_EVENTS_H
#define UMBRA_API_EVENTS_H

#include "api/error.h"
#include "base/types.h"

struct api_call;
struct api_caller;
struct api_events;
struct api_listener;
struct api_session;
struct event_base;
struct json_object;

#define API_EVENTS_KEPT	    4096
#define API_EVENTS_PAUSE_MS 1000 /* between two events of a kind that can flood, of one machine */

/* The kinds. Names may be added at the end, none changed. */
struct api_event_type {
	const char *name;
	const char *help; /* half a sentence, with the members that it has */
	/*
	 * At most one a second and machine (and job): the first is told at once; of those that
	 * follow within the second the last, at its end, with "coalesced": how many were left out.
	 */
	bool floods;
};
extern const struct api_event_type api_event_types[]; /* ends with a NULL name */

/* What is told: @obj is {seq, time, type, machine?, …}; the others are members of it for C. */
struct api_event {
	uint64_t seq;
	const char *type;
	const char *machine; /* "": about none */
	const char *owner;   /* who may see it; "": admins only */
	struct json_object *obj;
};

/* All zero: everything, nothing replayed. */
struct api_events_filter {
	bool replay; /* first those kept after @since */
	uint64_t since;
	const char *types;		 /* names parted by commas; NULL: all */
	const char *machine;		 /* only this one's; NULL: all */
	const struct api_caller *caller; /* only what it may see; copied. NULL: all */
};

/* Borrowed for the call. It may end any listener, its own too; it must not emit. */
typedef void (*api_event_fn)(void *data, const struct api_event *ev);

/* The first number is made from the time of day: numbers only grow, whatever came before. */
int api_events_create(struct api_events **out, struct event_base *base);
/*
 * Take up what an earlier process told, from the file @name in the folder @dirfd: its events are
 * kept as our own, numbers go on without a gap, and ours are written there before they are told.
 * Before the first event. 0; or -errno: nothing is kept for who comes after us.
 */
int api_events_keep(struct api_events *events, int dirfd, const char *name);
/* All that are kept, in order. @fn must not emit. */
void api_events_each(const struct api_events *events,
		     void (*fn)(void *data, const struct api_event *ev), void *data);
/* Listeners that are left are ended. NULL-safe. */
void api_events_destroy(struct api_events *events);
/*
 * Tell an event of the kind @type, which must be in the table. @machine and @owner: NULL is "".
 * @more's members (NULL: none; taken) are added. One that does not flood is told at once, after all
 * that waits about its machine.
 */
void api_events_emit(struct api_events *events, const char *type, const char *machine,
		     const char *owner, struct json_object *more);
/* Tell now all that waits for its second to be over. */
void api_events_flush(struct api_events *events);
uint64_t api_events_last(const struct api_events *events);
/* Whether an event after number @since is kept no more. */
bool api_events_lost(const struct api_events *events, uint64_t since);
/*
 * Listen. *@out is set before the kept events are told, which is before this returns.
 * 0, or -errno with *@err: a type that is none is told with the nearest.
 */
int api_events_listen(struct api_events *events, const struct api_events_filter *filter,
		      api_event_fn fn, void *data, struct api_listener **out,
		      struct api_error *err);
/* NULL-safe. */
void api_events_unlisten(struct api_listener *listener);

/*
 * The handlers of events.subscribe and events.unsubscribe: "event" notifications to the call's
 * connection. A second subscription replaces the first. A call without a connection (REST and D-Bus
 * have their own ways to listen) is only told {last, lost}.
 */
void api_events_subscribe(struct api_events *events, struct api_call *call);
void api_events_unsubscribe(struct api_events *events, struct api_call *call);
/* The session has gone; harmless when it is not subscribed. */
void api_events_session_gone(struct api_events *events, struct api_session *session);

#endif
