/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the payload of the dirty log's truth and its checker agree on. */
#ifndef DIRTY_TRUTH_H
#define DIRTY_TRUTH_H

#include <stdint.h>

#define TRUTH_CPUS  2
#define TRUTH_RAM   (8u << 20)
#define TRUTH_PAGES (TRUTH_RAM >> 12)
#define TRUTH_COLD  512 /* pages of which some are written each round */
/* Words of a cold page, by who writes them. */
#define TRUTH_WORD_PLAIN 0  /* + cpu */
#define TRUTH_WORD_ALIAS 2  /* + cpu: by the 4-KiB mapping */
#define TRUTH_WORD_TABLE 4  /* + cpu: by the mappings whose tables are written, too */
#define TRUTH_WORD_DMA	 64 /* ..127 */

/*
 * The processor that ends the round by spinning in guest mode, or TRUTH_CPUS: none does. Not in
 * every round, since each flush then waits for a thread that may not be running.
 */
#define TRUTH_SPINNER(round) ((round) % 4 ? TRUTH_CPUS : (round) / 4 % TRUTH_CPUS)

/* At KIT_HEAP. */
struct truth {
	uint32_t round; /* the host's: the round that begins */
	uint32_t stop;	/* the host's */
	uint32_t done;	/* the last round of the processor that waits without leaving guest mode */
	uint32_t cold;	/* the first cold page's frame */
	uint32_t
		stamped[TRUTH_PAGES]; /* the guest's record: the last round it wrote the frame in */
};

#endif
