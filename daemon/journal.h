/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbrad does, in the journal: one MESSAGE_ID a kind of event, the facts as fields. */
#ifndef UMBRA_DAEMON_JOURNAL_H
#define UMBRA_DAEMON_JOURNAL_H

#include "base/log.h"

/* Each has a MESSAGE_ID in journal.c and an entry in systemd/umbra.catalog.in; never reused. */
enum journal_event {
	JOURNAL_READY,		/* umbrad serves */
	JOURNAL_ENDING,		/* umbrad ends; machines run on */
	JOURNAL_RELOADED,	/* the configuration was read again */
	JOURNAL_CONFIG_REFUSED, /* … and has errors */
	JOURNAL_CHANGE,		/* somebody changed something: the audit line */
	JOURNAL_DENIED,		/* somebody was refused */
	JOURNAL_MACHINE_STARTED,
	JOURNAL_MACHINE_ENDED,	   /* as it was asked to, or by its guest */
	JOURNAL_MACHINE_FAILED,	   /* umbra-vm died or gave up */
	JOURNAL_MACHINE_ADOPTED,   /* found running by a new umbrad */
	JOURNAL_MACHINE_HUNG,	   /* umbra-vm does not answer */
	JOURNAL_MACHINE_RESTARTED, /* by its restart policy */
	JOURNAL_SANDBOX_PARTIAL,   /* the host lacks a part of the sandbox */
	JOURNAL_EVENT_COUNT,
};

/* Fields of an entry; NULL leaves one out. Values longer than 500 bytes are cut. */
struct journal_entry {
	enum journal_event event;
	enum log_level level;  /* 0: info */
	const char *machine;   /* UMBRA_MACHINE */
	const char *who;       /* UMBRA_WHO: api_caller.name */
	const char *transport; /* UMBRA_TRANSPORT: rpc, rest, dbus, job */
	const char *method;    /* UMBRA_METHOD */
	const char *outcome;   /* UMBRA_OUTCOME: "ok" or the error's kind */
	const char *reason;    /* UMBRA_REASON: why a machine ended, the frozen word */
};

/* After log_setup(): with @journal, entries go to journald with their fields, else to stderr. */
void journal_setup(const char *ident, bool journal);
/* The MESSAGE_ID, 32 hexadecimal digits. */
const char *journal_message_id(enum journal_event event);
/* One entry; the text is a whole sentence that stands alone, since stderr has only that. */
void journal_write(const struct journal_entry *entry, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
