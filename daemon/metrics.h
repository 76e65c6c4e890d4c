/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbrad and its machines count, in the OpenMetrics text format. */
#ifndef UMBRA_DAEMON_METRICS_H
#define UMBRA_DAEMON_METRICS_H

#include "api/call.h"
#include "api/rest.h"

struct metrics;
struct umbrad;

/* 0 or -ENOMEM. */
int metrics_create(struct metrics **out, struct umbrad *d);
/* While machines can still be told that nobody waits for their counters. NULL-safe. */
void metrics_destroy(struct metrics *metrics);
/* A call has ended. NULL-safe. */
void metrics_count(struct metrics *metrics, const struct api_audit *a);
/*
 * api_rest_config.metrics; @umbrad is struct umbrad. Asks every machine that @caller may see and
 * that runs; one that does not answer in time is told without its counters.
 */
void metrics_gather(void *umbrad, const struct api_caller *caller, api_rest_text_fn done,
		    void *arg);

#endif
