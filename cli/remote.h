/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A umbrad that is not the one of this host and user: --connect and what goes with it. */
#ifndef UMBRA_CLI_REMOTE_H
#define UMBRA_CLI_REMOTE_H

#include "api/schema.h"

struct api_client;
struct args;
struct connection;

#define REMOTE_TLS_PORT "16800"

enum remote_kind { REMOTE_NONE, REMOTE_UNIX, REMOTE_TLS, REMOTE_SSH };

/* The words of the address; NULL: not given. */
struct remote {
	enum remote_kind kind;
	char *path;		  /* unix:PATH */
	char *user, *host, *port; /* tls://host:port, ssh://user@host:port */
	const char *ca, *cert, *key, *token_file;
};

/* The options that every verb has for it. */
extern const struct api_fields remote_options;

/*
 * Choose for this process, by the values of those options, else $UMBRA_CONNECT. @options is kept.
 * 0, or -errno with *err.
 */
int remote_choose(struct json_object *options, struct api_error *err);
const struct remote *remote_chosen(void);
/* Whether files of ours are none of umbrad's, and descriptors cannot come from it. */
bool remote_is_far(void);
void remote_finish(void);
/* Run "vmctl relay" there by ssh, joined to the descriptor that is returned; or -errno, *err. */
int remote_connect_ssh(struct api_error *err);
/*
 * What needs a descriptor of umbrad's runs there as a whole, on a terminal of its own: vmctl with
 * the verb and the machine of @args. Does not return.
 */
void remote_exec_there(const struct args *args) __attribute__((noreturn));
/* 0, or -errno with *err; the handshake is over and who we are has been said. */
int remote_connect_tls(struct api_client **out, const struct connection *c, struct api_error *err);

#endif
