/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who calls, what it may do, which machines exist for it; and the line in the journal that says so.
 */
#ifndef UMBRA_DAEMON_AUTH_H
#define UMBRA_DAEMON_AUTH_H

#include "daemon/machine.h"

struct api_http_request;
struct api_peer;
struct api_tls;
struct auth;

enum auth_tls { AUTH_TLS_RPC, AUTH_TLS_HTTPS, AUTH_TLS_COUNT };

/*
 * From umbrad.conf, which it keeps a copy of what it needs from. Certificates and tokens are read
 * when there is something configured. 0, or -errno with *err that names the file.
 */
int auth_create(struct auth **out, const struct umbrad_config *config, bool system,
		struct api_error *err);
void auth_destroy(struct auth *auth); /* NULL-safe */
/*
 * The configuration has changed, or the files that it names; on failure (-errno with *err) all
 * stays as it was. Connections that there are must be looked at again, as after auth_changed().
 */
int auth_reload(struct auth *auth, const struct umbrad_config *config, struct api_error *err);
/* Whether the file of tokens has changed since this was asked last. */
bool auth_changed(struct auth *auth);
/* NULL: no certificate is configured, nobody can be served. Borrowed. */
struct api_tls *auth_tls(struct auth *auth, enum auth_tls which);

/*
 * Each fills level, uid, name and sees_all of @caller and leaves the rest alone. API_NOBODY is a
 * level too. A local user's @gids are all of its groups, the first one included.
 */
void auth_unix(const struct auth *auth, uid_t uid, const gid_t *gids, size_t n,
	       struct api_caller *caller);
void auth_cert(const struct auth *auth, const char *cn, struct api_caller *caller);
/* 0, or -errno with *err (kind "denied"): it is nobody's. */
int auth_token(struct auth *auth, const char *secret, struct api_caller *caller,
	       struct api_error *err);

/* api_server_config.identify; @umbrad is struct umbrad. */
int auth_identify(void *umbrad, const struct api_peer *peer, struct api_caller *caller);
/* api_rest_config.identify: the connection, or better the token in its header. */
int auth_identify_http(void *umbrad, const struct api_http_request *req, struct api_caller *caller,
		       struct api_error *err);
/* The dispatcher's audit: every change and every refusal goes to the journal. */
void auth_audit(void *umbrad, const struct api_audit *a);

/* Whether the machine exists for @caller; the only place that decides it. */
bool machine_visible(const struct machine *m, const struct api_caller *caller);

#endif
