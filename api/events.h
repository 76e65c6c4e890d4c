/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbered events, kept for a while and told to those who subscribed. */
#ifndef UMBRA_API_EVENTS_H
#define UMBRA_API_EVENTS_H

#include "base/types.h"

struct api_events;
struct api_session;
struct json_object;

#define API_EVENTS_KEPT 4096

/*
 * Numbers only grow, also from one umbrad to the next (the first is made from the time of day), and
 * have gaps only there.
 */
int api_events_create(struct api_events **out);
void api_events_destroy(struct api_events *events);
/* Tell "event" {seq, time, type, machine, …}; @more's members (NULL: none; taken) are added. */
void api_events_emit(struct api_events *events, const char *type, const char *machine,
		     struct json_object *more);
uint64_t api_events_last(const struct api_events *events);
/* Whether an event after number @since is kept no more. */
bool api_events_lost(const struct api_events *events, uint64_t since);
/*
 * Tell @session all events after @since that are kept, and those to come; of @machine only, unless
 * it is NULL. A second subscription replaces the first. 0 or -ENOMEM.
 */
int api_events_subscribe(struct api_events *events, struct api_session *session, uint64_t since,
			 const char *machine);
/* Also when the session has gone; harmless when it is not subscribed. */
void api_events_unsubscribe(struct api_events *events, struct api_session *session);

#endif
