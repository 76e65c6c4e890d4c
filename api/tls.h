/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* TLS for listeners and clients: keys and trust from files, peers' names, reload. */
#ifndef UMBRA_API_TLS_H
#define UMBRA_API_TLS_H

#include "api/error.h"

struct bufferevent;
struct event_base;
struct api_tls;

/* Paths; NULL: none. */
struct api_tls_config {
	const char *cert, *key; /* PEM, the chain behind the certificate; a server needs both */
	const char *ca;		/* whom to trust; a client without one trusts the system's store */
	const char *crl;	/* revoked certificates; every CA of a chain must then have one */
	bool server;
	bool cert_optional; /* a client may come without a certificate (it has a token) */
	const char *alpn;   /* "http/1.1", …; may be NULL */
};

/* Load and check all files. 0, or -errno with *err that names the file. */
int api_tls_create(struct api_tls **out, const struct api_tls_config *config,
		   struct api_error *err);
/* Connections live on with what they have. NULL-safe. */
void api_tls_destroy(struct api_tls *tls);
/* Each has what the other had: a listener that borrows one gets new keys and trust. */
void api_tls_swap(struct api_tls *a, struct api_tls *b);
/*
 * A listening TCP socket's options, which what it accepts inherits: answers go out at once, and a
 * peer that has vanished or takes nothing more is noticed.
 */
void api_tls_tune(int fd);
/*
 * A connected socket as a TLS bufferevent (closed with it; on failure too; -1: it comes later). The
 * handshake goes on in the loop: BEV_EVENT_CONNECTED tells its end. @host (clients only) is whom
 * the certificate must name. NULL: no memory.
 */
struct bufferevent *api_tls_bufferevent(struct api_tls *tls, struct event_base *base, int fd,
					const char *host);
/*
 * The common name of the peer's verified certificate, after the handshake; "" when it has none. 0,
 * or -errno: the name is no text of at most @len - 1 printable bytes; or -EACCES: trust or the list
 * of revoked certificates has been read again since (api_tls_swap()), and it is not good any more.
 */
int api_tls_peer_name(struct bufferevent *bev, char *out, size_t len);
/* Why the handshake failed, a sentence for the log. */
void api_tls_why(struct bufferevent *bev, char *out, size_t len);

#endif
