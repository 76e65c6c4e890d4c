/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The methods of a machine's dirty log, served by its umbra-vm as those of machine_methods.c. */
#include "api/machine_ops.h"

#include "api/api.h"
#include "api/rows.h"

#define CLIENT_MAX 31 /* bytes of its name: DIRTY_NAME_MAX */

#define FIELD_CLIENT                                                                               \
	{                                                                                          \
		.name = "client", .type = API_STRING, .max = CLIENT_MAX, .dflt = "api",            \
		.help = "whose log: a name of its own for each who asks"                           \
	}
#define RESULT_COUNT(name_, help_)                                                                 \
	{                                                                                          \
		.name = (name_), .type = API_INT, .min = 0, .max = INT64_MAX, .required = true,    \
		.help = (help_)                                                                    \
	}

static const char *const start_notices[] = {"keep", "auto", "protect", "pml", NULL};
static const char *const notices[] = {"protect", "pml", "kernel", NULL};
static const char *const formats[] = {"ranges", "bitmap", NULL};

static const struct api_field start_params[] = {
	FIELD_NAME,
	FIELD_CLIENT,
	{.name = "notice",
	 .type = API_ENUM,
	 .choices = start_notices,
	 .dflt = "keep",
	 .help = "how the machine's writes are noticed from now on, for all clients: by write "
		 "protection, or by the processor's page-modification log (EPT only; auto: if it "
		 "can)"},
	{.name = "ring",
	 .type = API_INT,
	 .min = 0,
	 .max = 65536,
	 .dflt = "0",
	 .help = "entries of a ring for each vCPU, which waits when its ring is full until the "
		 "client "
		 "has cleared; a power of two from 64; one client a machine"},
	{.name = "patience",
	 .type = API_INT,
	 .min = 1,
	 .max = 3600,
	 .dflt = "10",
	 .help = "seconds that vCPUs wait for a client that does nothing, before it loses the "
		 "rings"},
	{.name = "initially_set",
	 .type = API_BOOL,
	 .dflt = "false",
	 .help = "all pages are dirty at first, and nothing is protected until it is cleared"},
};

static const struct api_field start_result[] = {
	{.name = "client", .type = API_STRING, .required = true, .help = "whose log it is"},
	{.name = "notice",
	 .type = API_ENUM,
	 .choices = notices,
	 .required = true,
	 .help = "how writes are noticed; kernel: with engine kvm"},
	RESULT_COUNT("pages", "how many are watched"),
};

static const struct api_field client_params[] = {FIELD_NAME, FIELD_CLIENT};
static const struct api_field one_name[] = {FIELD_NAME};

static const struct api_field list_result[] = {
	{.name = "notice",
	 .type = API_ENUM,
	 .choices = notices,
	 .required = true,
	 .help = "how writes are noticed"},
	{.name = "clients",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array of {client, dirty, initially_set, ring, ring_lost, own: made over the "
		 "API}"},
};

static const struct api_field get_params[] = {
	FIELD_NAME,
	FIELD_CLIENT,
	{.name = "from",
	 .type = API_ADDR,
	 .dflt = "0x0",
	 .help = "the first guest-physical address: \"next\" of the answer before"},
	{.name = "limit",
	 .type = API_INT,
	 .min = 1,
	 .max = 4096,
	 .dflt = "1024",
	 .help = "at most so many ranges at once"},
	{.name = "format",
	 .type = API_ENUM,
	 .choices = formats,
	 .dflt = "ranges",
	 .help = "ranges, or a bitmap from the first dirty page on"},
	{.name = "pages",
	 .type = API_INT,
	 .min = 64,
	 .max = 262144,
	 .dflt = "65536",
	 .help = "the most pages of one bitmap"},
};

static const struct api_field get_result[] = {
	RESULT_COUNT("dirty", "how many pages are dirty in all"),
	{.name = "ranges", .type = API_ANY, .help = "an array of {gpa, pages}"},
	{.name = "gpa", .type = API_ADDR, .help = "of the bitmap's first page"},
	{.name = "pages", .type = API_INT, .min = 0, .max = 262144, .help = "the bitmap's"},
	{.name = "bitmap",
	 .type = API_STRING,
	 .help = "in base64, the first page in bit 0 of byte 0"},
	{.name = "next", .type = API_ADDR, .help = "the next call's \"from\"; absent at the end"},
};

static const struct api_field clear_params[] = {
	FIELD_NAME,
	FIELD_CLIENT,
	{.name = "from",
	 .type = API_ADDR,
	 .dflt = "0x0",
	 .help = "the first guest-physical address"},
	{.name = "pages",
	 .type = API_INT,
	 .min = 1,
	 .max = INT64_MAX / 4096,
	 .help = "how many from there on; absent: to the end"},
	{.name = "bitmap",
	 .type = API_STRING,
	 .max = 65536,
	 .help = "only those of them that are set here, as dirty.get gave it; absent: whatever is "
		 "dirty by now"},
};

static const struct api_field clear_result[] = {
	RESULT_COUNT("cleared", "how many pages were dirty and are not now"),
};

static const struct api_field rate_result[] = {
	RESULT_COUNT("pages", "how many were dirtied since the call before, or the start"),
	{.name = "seconds",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "since then"},
	{.name = "pages_per_second",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "the rate"},
	{.name = "mib_per_second",
	 .type = API_NUMBER,
	 .min = 0,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "the same in MiB"},
	{.name = "vcpus",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array: pages that each vCPU was the first to write to; the rest is devices', "
		 "or was noticed for several, as all is by the bitmap of engine kvm"},
};

static const struct api_field heat_params[] = {
	FIELD_NAME,
	FIELD_CLIENT,
	{.name = "buckets",
	 .type = API_INT,
	 .min = 1,
	 .max = 65536,
	 .dflt = "1024",
	 .help = "parts of equal size that guest-physical memory is counted by; another number "
		 "than "
		 "before begins anew"},
};

static const struct api_field heat_result[] = {
	RESULT_COUNT("rounds", "calls that the counts are of"),
	RESULT_COUNT("pages", "dirtied in this round"),
	{.name = "bucket_bytes",
	 .type = API_INT,
	 .min = 4096,
	 .max = INT64_MAX,
	 .required = true,
	 .help = "the size of one, from address 0 on"},
	{.name = "counts",
	 .type = API_ANY,
	 .required = true,
	 .help = "an array: pages dirtied in each bucket, over all rounds; null where no memory "
		 "is"},
};

#define HANDLER(op)                                                                                \
	.handler = offsetof(struct api_machine_ops, op), .flags = API_M_MACHINE, .since = "0.1"

static const struct api_method rows[] = {
	{.name = "dirty.start",
	 .summary =
		 "Begin to log, for a client of that name, which pages of a machine are written.",
	 P(start_params),
	 R(start_result),
	 .access = API_OPERATE,
	 HANDLER(dirty_start)},
	{.name = "dirty.stop",
	 .summary = "End a client's log, whoever began it.",
	 P(client_params),
	 NO_RESULT,
	 .access = API_OPERATE,
	 HANDLER(dirty_stop)},
	{.name = "dirty.list",
	 .summary = "List who logs which pages of a machine are written.",
	 P(one_name),
	 R(list_result),
	 .access = API_READ,
	 HANDLER(dirty_list)},
	{.name = "dirty.get",
	 .summary = "Tell which pages are dirty, and change nothing.",
	 P(get_params),
	 R(get_result),
	 .access = API_READ,
	 HANDLER(dirty_get)},
	{.name = "dirty.clear",
	 .summary = "Take pages off a client's log; what is written later is logged again.",
	 P(clear_params),
	 R(clear_result),
	 .access = API_OPERATE,
	 HANDLER(dirty_clear)},
	{.name = "dirty.rate",
	 .summary = "Tell how fast pages are dirtied, since the last such call; clears the "
		    "client's log.",
	 P(client_params),
	 R(rate_result),
	 .access = API_OPERATE,
	 HANDLER(dirty_rate)},
	{.name = "dirty.heat",
	 .summary = "Count by address which pages were dirtied since the last such call, a round "
		    "more; "
		    "clears the client's log.",
	 P(heat_params),
	 R(heat_result),
	 .access = API_OPERATE,
	 HANDLER(dirty_heat)},
};

const struct api_table api_dirty_methods = {.m = rows, .n = ARRAY_SIZE(rows)};
