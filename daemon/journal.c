/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What umbrad does, in the journal: one MESSAGE_ID a kind of event, the facts as fields. */
#include "daemon/journal.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/uio.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#define FIELDS_MAX 10

/* Explained in systemd/umbra.catalog; a number is never used for something else. */
static const char *const message_ids[JOURNAL_EVENT_COUNT] = {
	[JOURNAL_READY] = "763de4113fde4308b1fd5306947b066e",
	[JOURNAL_ENDING] = "38074354c90147a78e7600e67a90f17a",
	[JOURNAL_RELOADED] = "858fd3bde1454a30873639606fdeecde",
	[JOURNAL_CONFIG_REFUSED] = "20e28f7cd4944f69bedf5dd6bfe86a87",
	[JOURNAL_CHANGE] = "43d699ebde954c68800c1ec657c0af01",
	[JOURNAL_DENIED] = "5227e24ef7b349048da75b087071528a",
	[JOURNAL_MACHINE_STARTED] = "af21865d4a2f4b5ebd4597e4cdfd6d56",
	[JOURNAL_MACHINE_ENDED] = "3765d6407dd04e13b87e146ef124f837",
	[JOURNAL_MACHINE_FAILED] = "8d1717bc1e8741c7830ae54f110b48c4",
	[JOURNAL_MACHINE_ADOPTED] = "3d88811b76f44db6ae700edb4fcfde60",
	[JOURNAL_MACHINE_HUNG] = "6466b2c1be2f432db2038cf7f7408d30",
	[JOURNAL_MACHINE_RESTARTED] = "353ad6887fc94e9b948d90a93f6ddf6f",
	[JOURNAL_SANDBOX_PARTIAL] = "74ba4c8f5e364a6b85273b8f2d99ddd8",
};

static const char *journal_ident;

void journal_setup(const char *ident, bool journal)
{
	journal_ident = journal ? ident : NULL;
}

const char *journal_message_id(enum journal_event event)
{
	return message_ids[event];
}

struct fields {
	char text[FIELDS_MAX][600];
	struct iovec v[FIELDS_MAX];
	size_t n;
};

static void add(struct fields *fields, const char *name, const char *value)
{
	char *text = fields->text[fields->n];
	int len;

	if (!value)
		return;
	len = snprintf(text, sizeof(fields->text[0]), "%s=%s", name, value);
	if (len < 0)
		return;
	fields->v[fields->n++] = (struct iovec){
		.iov_base = text,
		.iov_len = MIN((size_t)len, sizeof(fields->text[0]) - 1),
	};
}

void journal_write(const struct journal_entry *entry, const char *fmt, ...)
{
	enum log_level level = entry->level ? entry->level : LOG_LEVEL_INFO;
	struct fields fields = {.n = 0};
	char text[560], priority[4];
	va_list ap;
	int len;

	if (!log_wants(level))
		return;
	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len < 0)
		return;
	log_clean(text);
	if (journal_ident) {
		snprintf(priority, sizeof(priority), "%d", level);
		add(&fields, "MESSAGE", text);
		add(&fields, "MESSAGE_ID", message_ids[entry->event]);
		add(&fields, "PRIORITY", priority);
		add(&fields, "SYSLOG_IDENTIFIER", journal_ident);
		add(&fields, "UMBRA_MACHINE", entry->machine);
		add(&fields, "UMBRA_WHO", entry->who);
		add(&fields, "UMBRA_TRANSPORT", entry->transport);
		add(&fields, "UMBRA_METHOD", entry->method);
		add(&fields, "UMBRA_OUTCOME", entry->outcome);
		add(&fields, "UMBRA_REASON", entry->reason);
		if (sd_journal_sendv(fields.v, (int)fields.n) == 0)
			return;
	}
	log_msg(level, "%s", text);
}
