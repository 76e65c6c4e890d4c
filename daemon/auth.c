/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who calls, what it may do, which machines exist for it; and the line in the journal that says so.
 */
#include "daemon/auth.h"

#include <errno.h>
#include <fnmatch.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "api/http.h"
#include "api/tls.h"
#include "api/token.h"
#include "base/cleanup.h"
#include "daemon/journal.h"
#include "daemon/metrics.h"

#define GROUPS_MAX	64   /* in one list of umbrad.conf */
#define PEER_GROUPS_MAX 1024 /* that are looked at of a peer's */

struct groups {
	gid_t v[GROUPS_MAX];
	size_t n;
};

/* By level, as everything here: [API_READ] … [API_ADMIN]. */
struct auth {
	bool system;
	struct groups groups[API_ADMIN + 1];
	char *certs[API_ADMIN + 1]; /* lists of patterns */
	enum api_access other_users, other_certs;
	struct api_tls_config tls_config; /* its strings are owned */
	struct api_tls *tls[AUTH_TLS_COUNT];
	char *tokens_file;
	struct api_tokens *tokens;
	struct stat tokens_stat; /* of the file that was read */
	bool tokens_changed;	 /* since auth_changed() was asked */
};

static enum api_access level_of(int config_level)
{
	return (enum api_access)(config_level - CONFIG_READ + API_READ);
}

static char *copy(const char *s)
{
	return s && *s ? strdup(s) : NULL;
}

/* Groups are resolved once: a directory service must not be asked amid the loop. Unknown ones have
 * no members. */
static void resolve_groups(struct groups *out, const char *list)
{
	const char *word;
	size_t len;

	out->n = 0;
	while ((len = config_word(&list, &word)) && out->n < GROUPS_MAX) {
		const struct group *group;
		char name[256];

		snprintf(name, sizeof(name), "%.*s", (int)len, word);
		group = getgrnam(name);
		if (group)
			out->v[out->n++] = group->gr_gid;
	}
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* What the file has now. One that is gone or broken lets nobody in. */
static int read_tokens(struct auth *auth, struct api_error *err)
{
	struct api_tokens *tokens = NULL;
	struct stat st = {0};
	int ret = 0;

	if (!auth->tokens_file)
		return 0;
	if (stat(auth->tokens_file, &st) == 0)
		ret = api_tokens_load(&tokens, auth->tokens_file, err);
	else if (errno != ENOENT)
		ret = api_error_set(err, API_KIND_IO, "%s: %s", auth->tokens_file, strerror(errno));
	api_tokens_free(auth->tokens);
	auth->tokens = tokens;
	auth->tokens_stat = st;
	return ret;
}

/* A token that was revoked a moment ago is none now. */
static void refresh_tokens(struct auth *auth)
{
	struct api_error err = {0};
	struct stat st = {0};

	if (!auth->tokens_file)
		return;
	if (stat(auth->tokens_file, &st) < 0)
		st = (struct stat){0};
	if (same_file(&st, &auth->tokens_stat))
		return;
	auth->tokens_changed = true;
	if (read_tokens(auth, &err))
		journal_write(&(struct journal_entry){.event = JOURNAL_CONFIG_REFUSED,
						      .level = LOG_LEVEL_ERR},
			      "no token is accepted: %s", err.text);
}

static void clear(struct auth *auth)
{
	for (int i = 0; i < AUTH_TLS_COUNT; i++)
		api_tls_destroy(auth->tls[i]);
	for (enum api_access i = API_READ; i <= API_ADMIN; i++)
		free(auth->certs[i]);
	free((char *)auth->tls_config.cert);
	free((char *)auth->tls_config.key);
	free((char *)auth->tls_config.ca);
	free((char *)auth->tls_config.crl);
	free(auth->tokens_file);
	api_tokens_free(auth->tokens);
}

static int make_tls(struct auth *auth, struct api_error *err)
{
	static const char *const alpn[AUTH_TLS_COUNT] = {[AUTH_TLS_HTTPS] = "http/1.1"};
	int ret = 0;

	if (!auth->tls_config.cert && !auth->tls_config.key)
		return 0;
	for (int i = 0; !ret && i < AUTH_TLS_COUNT; i++) {
		auth->tls_config.alpn = alpn[i];
		ret = api_tls_create(&auth->tls[i], &auth->tls_config, err);
	}
	auth->tls_config.alpn = NULL;
	return ret;
}

static int fill(struct auth *auth, const struct umbrad_config *config, bool system,
		struct api_error *err)
{
	const struct config_access *a = &config->access;
	int ret;

	*auth = (struct auth){.system = system};
	/* In user mode there is one user; a group's members are not let in by root's defaults. */
	if (system) {
		resolve_groups(&auth->groups[API_READ], a->read_groups);
		resolve_groups(&auth->groups[API_OPERATE], a->operate_groups);
		resolve_groups(&auth->groups[API_ADMIN], a->admin_groups);
	}
	auth->certs[API_READ] = copy(a->read_certs);
	auth->certs[API_OPERATE] = copy(a->operate_certs);
	auth->certs[API_ADMIN] = copy(a->admin_certs);
	auth->other_users = level_of(a->other_users);
	auth->other_certs = level_of(a->other_certs);
	auth->tokens_file = copy(config->tls.tokens);
	auth->tls_config = (struct api_tls_config){
		.cert = copy(config->tls.cert),
		.key = copy(config->tls.key),
		.ca = copy(config->tls.ca),
		.crl = copy(config->tls.crl),
		.server = true,
		.cert_optional = auth->tokens_file,
	};
	ret = read_tokens(auth, err);
	if (!ret)
		ret = make_tls(auth, err);
	if (ret)
		clear(auth);
	return ret;
}

int auth_create(struct auth **out, const struct umbrad_config *config, bool system,
		struct api_error *err)
{
	struct auth *auth = malloc(sizeof(*auth));
	int ret;

	if (!auth)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	ret = fill(auth, config, system, err);
	if (ret)
		free(auth);
	else
		*out = auth;
	return ret;
}

void auth_destroy(struct auth *auth)
{
	if (!auth)
		return;
	clear(auth);
	free(auth);
}

int auth_reload(struct auth *auth, const struct umbrad_config *config, struct api_error *err)
{
	struct auth next;
	int ret = fill(&next, config, auth->system, err);

	if (ret)
		return ret;
	/* Listeners hold on to the old ones: these take over what the new ones have read. */
	for (int i = 0; i < AUTH_TLS_COUNT; i++) {
		struct api_tls *old = auth->tls[i];

		if (!old)
			continue;
		if (next.tls[i])
			api_tls_swap(old, next.tls[i]);
		auth->tls[i] = next.tls[i];
		next.tls[i] = old;
	}
	clear(auth);
	*auth = next;
	return 0;
}

bool auth_changed(struct auth *auth)
{
	bool changed;

	refresh_tokens(auth);
	changed = auth->tokens_changed;
	auth->tokens_changed = false;
	return changed;
}

struct api_tls *auth_tls(struct auth *auth, enum auth_tls which)
{
	return auth->tls[which];
}

static void set_level(struct api_caller *caller, enum api_access level)
{
	caller->level = level;
	caller->sees_all = level == API_ADMIN;
}

static bool in_groups(const struct groups *groups, const gid_t *gids, size_t n)
{
	for (size_t i = 0; i < groups->n; i++)
		for (size_t j = 0; j < n; j++)
			if (groups->v[i] == gids[j])
				return true;
	return false;
}

void auth_unix(const struct auth *auth, uid_t uid, const gid_t *gids, size_t n,
	       struct api_caller *caller)
{
	enum api_access level = API_ADMIN;

	caller->uid = uid;
	snprintf(caller->name, sizeof(caller->name), "unix:%u", (unsigned)uid);
	if (uid != 0 && uid != geteuid()) {
		while (level >= API_READ && !in_groups(&auth->groups[level], gids, n))
			level--;
		level = MAX(level, auth->other_users);
	}
	set_level(caller, level);
}

static bool in_patterns(const char *list, const char *cn)
{
	const char *word;
	size_t len;

	while ((len = config_word(&list, &word))) {
		char pattern[256];

		snprintf(pattern, sizeof(pattern), "%.*s", (int)len, word);
		if (len < sizeof(pattern) && !fnmatch(pattern, cn, 0))
			return true;
	}
	return false;
}

void auth_cert(const struct auth *auth, const char *cn, struct api_caller *caller)
{
	enum api_access level = API_ADMIN;

	caller->uid = (uid_t)-1;
	snprintf(caller->name, sizeof(caller->name), "tls:%s", cn);
	while (level >= API_READ && !in_patterns(auth->certs[level], cn))
		level--;
	set_level(caller, level >= API_READ ? level : auth->other_certs);
}

static void take_token(struct api_caller *caller, const struct api_token *token)
{
	caller->uid = (uid_t)-1;
	caller->token = token->id;
	snprintf(caller->name, sizeof(caller->name), "token:%s", token->name);
	set_level(caller, token->level);
}

int auth_token(struct auth *auth, const char *secret, struct api_caller *caller,
	       struct api_error *err)
{
	const struct api_token *token;

	refresh_tokens(auth);
	token = api_tokens_find(auth->tokens, secret);
	if (!token)
		return api_error_set(err, API_KIND_DENIED, "the token is not known");
	take_token(caller, token);
	return 0;
}

/* Who came with a token that we know no more by its secret. */
static int token_again(struct auth *auth, uint64_t id, struct api_caller *caller)
{
	const struct api_token *token;

	refresh_tokens(auth);
	token = api_tokens_by_id(auth->tokens, id);
	if (!token)
		return -EACCES;
	take_token(caller, token);
	return 0;
}

/* Who has the other end of a Unix socket. */
static void identify_unix(const struct auth *auth, int fd, struct api_caller *caller)
{
	struct ucred cred = {.uid = (uid_t)-1};
	gid_t gids[PEER_GROUPS_MAX + 1];
	socklen_t len = sizeof(cred), groups_len = sizeof(gids) - sizeof(gids[0]);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0) {
		set_level(caller, API_NOBODY);
		return;
	}
	gids[0] = cred.gid;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, gids + 1, &groups_len) < 0)
		groups_len = 0;
	auth_unix(auth, cred.uid, gids, 1 + groups_len / sizeof(gids[0]), caller);
}

int auth_identify(void *umbrad, const struct api_peer *peer, struct api_caller *caller)
{
	const struct umbrad *d = umbrad;

	if (peer->was && peer->was->token)
		return token_again(d->auth, peer->was->token, caller);
	if (!peer->tls) {
		identify_unix(d->auth, peer->fd, caller);
	} else if (peer->cert) {
		auth_cert(d->auth, peer->cert, caller);
	} else {
		caller->uid = (uid_t)-1;
		snprintf(caller->name, sizeof(caller->name), "tls");
		set_level(caller, API_NOBODY);
	}
	return 0;
}

int auth_identify_http(void *umbrad, const struct api_http_request *req, struct api_caller *caller,
		       struct api_error *err)
{
	static const char scheme[] = "Bearer ";
	const char *header = api_http_header(req, "Authorization");
	struct bufferevent *tls = api_http_tls(req);
	struct umbrad *d = umbrad;
	char cn[API_CALLER_NAME - 8] = "";
	struct api_peer peer = {.fd = tls ? -1 : api_http_fd(req), .tls = tls};
	int ret;

	caller->passes_fds = false;
	caller->session = NULL;
	if (header) {
		if (strncasecmp(header, scheme, strlen(scheme)))
			return api_error_set(err, API_KIND_DENIED,
					     "the only Authorization known is Bearer");
		return auth_token(d->auth, header + strlen(scheme), caller, err);
	}
	if (tls && api_tls_peer_name(tls, cn, sizeof(cn)))
		return api_error_set(err, API_KIND_DENIED, "the certificate names nobody");
	peer.cert = cn[0] ? cn : NULL;
	ret = auth_identify(d, &peer, caller);
	if (!ret && caller->level == API_NOBODY)
		return api_error_set(err, API_KIND_DENIED, "a token is needed");
	return ret;
}

void auth_audit(void *umbrad, const struct api_audit *a)
{
	const enum api_kind kind = a->err ? a->err->kind : API_KIND_NONE;
	const bool denied = kind == API_KIND_DENIED;
	const char *method = a->method ? a->method->name : "";
	const char *transport = api_transport_names[a->caller->transport];
	struct journal_entry entry = {
		.event = denied ? JOURNAL_DENIED : JOURNAL_CHANGE,
		.level = denied ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
		.machine = a->machine[0] ? a->machine : NULL,
		.who = a->caller->name,
		.transport = transport,
		.method = method,
		.outcome = a->err ? api_kind_name(kind) : "ok",
	};

	metrics_count(((struct umbrad *)umbrad)->metrics, a);
	if (!denied && (!a->method || a->method->access < API_OPERATE))
		return;
	journal_write(&entry, "%s by %s over %s%s%s%s: %s%s%s", method, a->caller->name, transport,
		      a->machine[0] ? " for \"" : "", a->machine, a->machine[0] ? "\"" : "",
		      entry.outcome, a->err ? ": " : "", a->err ? a->err->text : "");
}

bool machine_visible(const struct machine *m, const struct api_caller *caller)
{
	return api_caller_sees(caller, m->owner ? m->owner : "");
}
