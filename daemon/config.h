/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbrad.conf: what the operator says about all machines and connections. See umbrad.conf(5). */
#ifndef UMBRA_DAEMON_CONFIG_H
#define UMBRA_DAEMON_CONFIG_H

#include <stdio.h>

#include "api/machine_def.h"

struct sockaddr_storage;

/* The choices of access levels in the file; their numbers are not those of enum api_access. */
enum config_level { CONFIG_NONE, CONFIG_READ, CONFIG_OPERATE, CONFIG_ADMIN };
enum config_units { CONFIG_UNITS_AUTO, CONFIG_UNITS_NEVER, CONFIG_UNITS_ALWAYS };
enum config_log_target { CONFIG_LOG_AUTO, CONFIG_LOG_JOURNAL, CONFIG_LOG_STDERR };
enum config_log_level {
	CONFIG_LOG_ERROR,
	CONFIG_LOG_WARNING,
	CONFIG_LOG_INFO,
	CONFIG_LOG_DEBUG,
};

/*
 * One member a field, a nested struct a section; enums are int, as the schema loads them. Lists are
 * strings of words parted by blanks or commas: config_word(). Strings are owned; NULL: not given.
 * Times are seconds.
 */
struct umbrad_config {
	/* Only read when umbrad starts: a reload tells that a change waits for a restart. */
	struct config_listen {
		char *tls;	/* list of "ADDRESS:PORT", "[V6]:PORT", "*:PORT": JSON-RPC, TLS */
		char *https;	/* the same: REST, TLS */
		bool read_only; /* umbrad-ro.sock */
		bool http;	/* umbrad-http.sock: REST without TLS on a Unix socket */
		bool dbus;	/* org.umbra.Vmm1 on the bus, where there is one */
		int64_t backlog;
	} listen;
	struct config_tls {
		char *cert, *key; /* PEM, our own; both are needed by listen.tls and listen.https */
		char *ca;	  /* PEM, who signs clients; needed unless tokens are enough */
		char *crl;	  /* PEM, revoked clients */
		char *tokens;	  /* NAME:LEVEL:HASH a line; NULL: no bearer tokens */
	} tls;
	struct config_access {
		char *admin_groups, *operate_groups, *read_groups; /* Unix groups */
		char *admin_certs, *operate_certs, *read_certs;	   /* common names, fnmatch(3) */
		int other_certs; /* enum config_level: of a valid certificate that no list names */
		int other_users; /* enum config_level: of a local user who is in no such group */
	} access;
	struct config_machines {
		int units;	 /* enum config_units: each machine a systemd service */
		int sandbox;	 /* index in machine_sandbox_names: where a definition is silent */
		int kvm;	 /* enum machine_kvm_use */
		double watchdog; /* no answer of umbra-vm for so long: hung; 0: never */
		double start_timeout; /* from the process to the first instruction */
		double stop_timeout;  /* from the power button to force */
		double restart_delay; /* the first back-off, doubled each time … */
		double restart_delay_max;
		double restart_reset;	 /* … and forgotten after running for so long */
		double shutdown_timeout; /* of all machines together, at the host's shutdown */
		int64_t max;		 /* defined machines */
		int64_t max_per_owner;
	} machines;
	struct config_limits {
		int64_t connections; /* all transports together */
		int64_t connections_per_caller;
		int64_t calls;		  /* in flight, a connection */
		double handshake_timeout; /* TLS and the first whole request */
		double idle_timeout;	  /* a connection without calls and events; 0: never */
		int64_t jobs;		  /* finished ones that are kept … */
		double job_keep;	  /* … and for how long */
	} limits;
	struct config_log {
		int level;  /* enum config_log_level */
		int target; /* enum config_log_target */
	} log;
};

/* The sections as API_OBJECT fields, each with its own fields (help, default, range): for
 * documents. */
extern const struct api_fields umbrad_config_fields;

/* One error, as "FILE:LINE: [SECTION] …"; without ":LINE" when it is the file's as a whole. */
typedef void (*config_say)(void *data, const char *text);

/* The defaults; never fails, but for memory (-ENOMEM). */
int umbrad_config_init(struct umbrad_config *config);
void umbrad_config_finish(struct umbrad_config *config);
/*
 * The defaults, then @file, then @file.d/ *.conf in the order of their names: later ones win. With
 * @file NULL it is $UMBRA_CONFIG, else /etc/umbra/umbrad.conf (@system) or
 * $XDG_CONFIG_HOME/umbra/umbrad.conf (else ~/.config/…); then its absence is no error. All that is
 * wrong is told to @say. 0; or -errno, and @config is as umbrad_config_init() makes it.
 */
int umbrad_config_load(struct umbrad_config *config, const char *file, bool system, config_say say,
		       void *data);
/* One file's text, over what @config has; the number of errors told. */
unsigned umbrad_config_parse(struct umbrad_config *config, const char *file, const char *text,
			     size_t len, config_say say, void *data);
/* A file with every field, its help and default, all of it commented out. */
void umbrad_config_print(FILE *out);
/*
 * What a reload does: @next takes the place of @config, but for the section "listen", which stays.
 * Whether that one differs (a restart is needed for it). @next is finished.
 */
bool umbrad_config_replace(struct umbrad_config *config, struct umbrad_config *next);

/*
 * The next word of a list: *@list is moved behind it. Its length, with *@word at its start; 0: no
 * more. *@list may be NULL.
 */
size_t config_word(const char **list, const char **word);
/* A word of listen.tls or listen.https as an address to bind to; "*" is both families. 0, -EINVAL.
 */
int config_address(const char *word, size_t len, struct sockaddr_storage *addr);

#endif
