/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A picture of where a guest writes: in the terminal, and as a PNG. */
#ifndef UMBRA_CLI_HEAT_H
#define UMBRA_CLI_HEAT_H

#include "api/error.h"

#define HEAT_BUCKETS 16384 /* asked for unless the user says otherwise */

/* All zero is empty. */
struct heat {
	int64_t *count; /* by bucket, from address 0 on; -1: no memory there */
	size_t n;	/* up to the last with memory */
	uint64_t bucket_bytes;
	uint64_t rounds, pages; /* pages: in all rounds */
};

/* What dirty.heat answered. 0 or -ENOMEM. */
int heat_load(struct heat *h, struct json_object *result);
void heat_finish(struct heat *h);

/* HEAT_MORE: another one will take its place, on a terminal; elsewhere nothing is printed. */
enum heat_when { HEAT_MORE, HEAT_LAST };
/* Colours and blocks where stdout is a terminal, letters otherwise; as wide as fits. */
void heat_print(const struct heat *h, enum heat_when when);
/* 0, or -errno with *err. */
int heat_write_png(const struct heat *h, const char *path, struct api_error *err);

#endif
