/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who calls over the bus, and what they may do: the bus says which user and groups a connection
 * belongs to, umbrad.conf which level these have, and on the system bus polkit may allow more.
 * Names of connections are never used again, so that the first answer holds for a connection's
 * life.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/auth.h"
#include "daemon/dbus_internal.h"

#define GROUPS_MAX 1024
/* Somebody may have to type a password. */
#define POLKIT_USEC (300 * 1000000ull)

#define BUS_NAME "org.freedesktop.DBus"
#define BUS_PATH "/org/freedesktop/DBus"

static const char *const polkit_actions[] = {
	[API_READ] = "org.umbra.vmm.read",
	[API_OPERATE] = "org.umbra.vmm.operate",
	[API_ADMIN] = "org.umbra.vmm.admin",
};

void dbus_peer_destroy(struct dbus_peer *peer)
{
	while (!list_empty(&peer->requests))
		dbus_request_destroy(list_first(&peer->requests, struct dbus_request, link));
	list_del(&peer->link);
	peer->b->n_peers--;
	sd_bus_slot_unref(peer->vanished);
	sd_bus_slot_unref(peer->asking);
	free(peer->name);
	free(peer->gids);
	free(peer);
}

void dbus_peer_identify(struct dbus_peer *peer)
{
	auth_unix(peer->b->d->auth, peer->uid, peer->gids, peer->n_gids, &peer->caller);
	peer->caller.transport = API_T_DBUS;
	peer->caller.passes_fds = true;
	peer->reads &= peer->caller.level >= API_READ;
}

static int on_vanished(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	dbus_peer_destroy(arg);
	return 1;
}

static int read_groups(struct dbus_peer *peer, sd_bus_message *m)
{
	const void *gids;
	size_t size;
	int ret = sd_bus_message_enter_container(m, 'v', "au");

	if (ret >= 0)
		ret = sd_bus_message_read_array(m, 'u', &gids, &size);
	if (ret < 0)
		return ret;
	peer->n_gids = MIN(size / sizeof(gid_t), (size_t)GROUPS_MAX);
	free(peer->gids);
	peer->gids = calloc(MAX(peer->n_gids, (size_t)1), sizeof(gid_t));
	if (!peer->gids)
		return -ENOMEM;
	if (peer->n_gids)
		memcpy(peer->gids, gids, peer->n_gids * sizeof(gid_t));
	return sd_bus_message_exit_container(m);
}

/* The user and groups in the bus's answer, an a{sv}. */
static int read_credentials(struct dbus_peer *peer, sd_bus_message *m)
{
	const char *key;
	int ret = sd_bus_message_enter_container(m, 'a', "{sv}");

	while (ret >= 0 && (ret = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		uint32_t id;

		ret = sd_bus_message_read_basic(m, 's', &key);
		if (ret >= 0 && !strcmp(key, "UnixUserID")) {
			ret = sd_bus_message_read(m, "v", "u", &id);
			peer->uid = ret >= 0 ? id : (uid_t)-1;
		} else if (ret >= 0 && !strcmp(key, "UnixGroupIDs")) {
			ret = read_groups(peer, m);
		} else if (ret >= 0) {
			ret = sd_bus_message_skip(m, "v");
		}
		if (ret >= 0)
			ret = sd_bus_message_exit_container(m);
	}
	return ret < 0 ? ret : 0;
}

static int on_credentials(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	struct dbus_peer *peer = arg;
	struct dbus_request *r, *tmp;

	/* It has gone before we could ask. */
	if (sd_bus_message_is_method_error(m, NULL)) {
		dbus_peer_destroy(peer);
		return 1;
	}
	/* Whom the bus does not know is nobody. */
	if (read_credentials(peer, m)) {
		peer->uid = (uid_t)-1;
		peer->n_gids = 0;
	}
	dbus_peer_identify(peer);
	peer->known = true;
	list_for_each_entry_safe (r, tmp, &peer->requests, link)
		dbus_authorize(r);
	return 1;
}

static int ask(struct dbus_peer *peer)
{
	_cleanup_free_ char *rule = NULL;
	int ret;

	if (asprintf(&rule,
		     "type='signal',sender='" BUS_NAME "',member='NameOwnerChanged',arg0='%s',"
		     "arg2=''",
		     peer->name) < 0) {
		rule = NULL;
		return -ENOMEM;
	}
	/* In this order: who is gone by the second question will be told by its answer. */
	ret = sd_bus_add_match_async(peer->b->bus, &peer->vanished, rule, on_vanished, NULL, peer);
	if (ret < 0)
		return ret;
	return sd_bus_call_method_async(peer->b->bus, &peer->asking, BUS_NAME, BUS_PATH, BUS_NAME,
					"GetConnectionCredentials", on_credentials, peer, "s",
					peer->name);
}

struct dbus_peer *dbus_peer_get(struct dbus *b, sd_bus_message *m)
{
	const char *name = sd_bus_message_get_sender(m);
	struct dbus_peer *peer;

	if (!name)
		return NULL;
	list_for_each_entry (peer, &b->peers, link) {
		if (strcmp(peer->name, name))
			continue;
		/* Who has called will call again: it is found first then. */
		list_del(&peer->link);
		list_add(&b->peers, &peer->link);
		return peer;
	}
	peer = b->n_peers < DBUS_PEERS_MAX ? calloc(1, sizeof(*peer)) : NULL;
	if (!peer)
		return NULL;
	peer->b = b;
	peer->uid = (uid_t)-1;
	list_init(&peer->requests);
	list_add(&b->peers, &peer->link);
	b->n_peers++;
	peer->name = strdup(name);
	if (!peer->name || ask(peer) < 0) {
		dbus_peer_destroy(peer);
		return NULL;
	}
	return peer;
}

/* ---- polkit ---- */

static void begin(struct dbus_request *r)
{
	enum api_access level = MAX(r->peer->caller.level, r->level);

	if (level >= API_READ)
		r->peer->reads = true;
	dbus_request_begin(r);
}

static int on_polkit(sd_bus_message *m, void *arg, sd_bus_error *ret_error)
{
	const sd_bus_error *e = sd_bus_message_get_error(m);
	struct dbus_request *r = arg;
	int allowed = 0, challenge;

	r->asking = sd_bus_slot_unref(r->asking);
	if (e)
		log_debug("polkit does not answer: %s", e->message ? e->message : e->name);
	else if (sd_bus_message_read(m, "(bba{ss})", &allowed, &challenge, 0) < 0)
		allowed = 0;
	if (allowed)
		r->level = r->method ? r->method->row->access : API_READ;
	/* What is not allowed, the dispatcher refuses. */
	begin(r);
	return 1;
}

/* 0: on_polkit() comes. */
static int ask_polkit(struct dbus_request *r, enum api_access level)
{
	sd_bus *bus = r->peer->b->bus;
	sd_bus_message *m = NULL;
	uint32_t interactive = sd_bus_message_get_allow_interactive_authorization(r->m) > 0;
	int ret = sd_bus_message_new_method_call(
		bus, &m, "org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority",
		"org.freedesktop.PolicyKit1.Authority", "CheckAuthorization");

	if (ret >= 0)
		ret = sd_bus_message_append(m, "(sa{sv})sa{ss}us", "system-bus-name", 1, "name",
					    "s", r->peer->name, polkit_actions[level], 0,
					    interactive, "");
	if (ret >= 0)
		ret = sd_bus_call_async(bus, &r->asking, m, on_polkit, r, POLKIT_USEC);
	sd_bus_message_unref(m);
	return ret < 0 ? ret : 0;
}

void dbus_authorize(struct dbus_request *r)
{
	enum api_access wanted = r->method ? r->method->row->access : API_READ;

	if (!r->peer->known)
		return; /* again when it is */
	if (r->peer->caller.level < wanted && r->peer->b->d->paths.system && !ask_polkit(r, wanted))
		return;
	begin(r);
}
