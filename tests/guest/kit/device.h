/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The harness's device, by which a payload drives what lies outside the guest. Both include this.
 */
#ifndef KIT_DEVICE_H
#define KIT_DEVICE_H

/* Ports, 4 bytes each. A command acts when it is written; the vCPU goes on when it is done. */
#define KIT_DEVICE_COMMAND  0x5c0
#define KIT_DEVICE_ARGUMENT 0x5c4
/* Bytes that differ from one read to the next, for string input. */
#define KIT_DEVICE_BYTES 0x5c8

enum kit_command {
	KIT_LOG_START = 1, /* a client of the dirty log watches all memory */
	KIT_LOG_TAKE,	   /* …and takes what is dirty; one round of a migration */
	KIT_LOG_STOP,
	KIT_SLOT_ADD, /* 2 MiB of memory, filled with 0x5a, at guest frame @argument */
	KIT_SLOT_DELETE,
	KIT_ROUND_PART, /* wait until every client of the log has looked at it once more */
	KIT_ROUND_DONE, /* wait until all has been verified and the next round begins */
	KIT_PHASE,	/* keep the machine's counters as of now, as phase @argument's */
};

#endif
