/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* TLS for listeners and clients: keys and trust from files, peers' names, reload. */
#include "api/tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/cleanup.h"

#define KEEPALIVE_S 30 /* a peer that has vanished is noticed in three times that */

struct api_tls {
	SSL_CTX *ctx;
	char *cert, *key, *ca, *crl, *alpn;
	bool server, cert_optional;
};

static void ctx_free(SSL_CTX **ctx)
{
	SSL_CTX_free(*ctx);
}

/* The reason that OpenSSL gives, with nothing left behind in its queue. */
static const char *reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return text ? text : "unknown reason";
}

static int fail(struct api_error *err, const char *what, const char *file)
{
	int e = errno;
	const char *why = reason();

	return api_error_set(err, API_KIND_IO, "the %s %s cannot be used: %s", what, file,
			     e == ENOENT || e == EACCES ? strerror(e) : why);
}

/* A password prompt must not stop the daemon. */
static int no_password(char *buf, int size, int rwflag, void *data)
{
	return 0;
}

static int load_identity(const struct api_tls *tls, SSL_CTX *ctx, struct api_error *err)
{
	if (!tls->cert || !tls->key) {
		if (!tls->server && !tls->cert && !tls->key)
			return 0;
		return api_error_set(err, API_KIND_INVALID_PARAMS,
				     "TLS needs both a certificate and its key");
	}
	SSL_CTX_set_default_passwd_cb(ctx, no_password);
	errno = 0;
	if (SSL_CTX_use_certificate_chain_file(ctx, tls->cert) != 1)
		return fail(err, "certificate", tls->cert);
	errno = 0;
	if (SSL_CTX_use_PrivateKey_file(ctx, tls->key, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(ctx) != 1)
		return fail(err, "key", tls->key);
	return 0;
}

static int load_trust(const struct api_tls *tls, SSL_CTX *ctx, struct api_error *err)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);

	errno = 0;
	if (tls->ca && SSL_CTX_load_verify_file(ctx, tls->ca) != 1)
		return fail(err, "certificate authority", tls->ca);
	if (!tls->ca && !tls->server)
		SSL_CTX_set_default_verify_paths(ctx);
	if (tls->ca && tls->server)
		SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(tls->ca));
	if (!tls->crl)
		return 0;
	errno = 0;
	if (X509_load_crl_file(X509_STORE_add_lookup(store, X509_LOOKUP_file()), tls->crl,
			       X509_FILETYPE_PEM) < 1)
		return fail(err, "revocation list", tls->crl);
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	return 0;
}

/* A server without a CA asks for no certificate: its clients have tokens. */
static int verify_mode(const struct api_tls *tls)
{
	if (!tls->server)
		return SSL_VERIFY_PEER;
	if (!tls->ca)
		return SSL_VERIFY_NONE;
	return tls->cert_optional ? SSL_VERIFY_PEER
				  : SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
}

/* The server's choice: it speaks one protocol only. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
		   const unsigned char *in, unsigned in_len, void *data)
{
	const char *ours = data;
	const size_t len = strlen(ours);

	for (unsigned i = 0; i < in_len; i += in[i] + 1u)
		if (in[i] == len && i + 1 + len <= in_len && !memcmp(in + i + 1, ours, len)) {
			*out = in + i + 1;
			*out_len = in[i];
			return SSL_TLSEXT_ERR_OK;
		}
	return SSL_TLSEXT_ERR_NOACK;
}

static int ctx_create(const struct api_tls *tls, SSL_CTX **out, struct api_error *err)
{
	_cleanup_(ctx_free) SSL_CTX *ctx =
		SSL_CTX_new(tls->server ? TLS_server_method() : TLS_client_method());
	static const unsigned char id[] = "umbra";
	int ret;

	if (!ctx)
		return api_error_set(err, API_KIND_INTERNAL, "TLS cannot be set up: %s", reason());
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_CIPHER_SERVER_PREFERENCE);
	/* A resumed session would not be checked against a revocation list that is newer. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_id_context(ctx, id, sizeof(id) - 1);
	SSL_CTX_set_verify(ctx, verify_mode(tls), NULL);
	SSL_CTX_set_purpose(ctx, tls->server ? X509_PURPOSE_SSL_CLIENT : X509_PURPOSE_SSL_SERVER);
	if (tls->alpn)
		SSL_CTX_set_alpn_select_cb(ctx, on_alpn, tls->alpn);
	ret = load_identity(tls, ctx, err);
	if (!ret)
		ret = load_trust(tls, ctx, err);
	if (!ret)
		*out = TAKE_PTR(ctx);
	return ret;
}

static char *copy(const char *s)
{
	return s && *s ? strdup(s) : NULL;
}

int api_tls_create(struct api_tls **out, const struct api_tls_config *config, struct api_error *err)
{
	struct api_tls *tls = calloc(1, sizeof(*tls));
	int ret;

	if (!tls)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	tls->cert = copy(config->cert);
	tls->key = copy(config->key);
	tls->ca = copy(config->ca);
	tls->crl = copy(config->crl);
	tls->alpn = copy(config->alpn);
	tls->server = config->server;
	tls->cert_optional = config->cert_optional;
	if (tls->server && !tls->ca && !tls->cert_optional)
		ret = api_error_set(err, API_KIND_INVALID_PARAMS,
				    "TLS needs a certificate authority or tokens to know clients");
	else
		ret = ctx_create(tls, &tls->ctx, err);
	if (ret)
		api_tls_destroy(tls);
	else
		*out = tls;
	return ret;
}

void api_tls_destroy(struct api_tls *tls)
{
	if (!tls)
		return;
	SSL_CTX_free(tls->ctx); /* connections hold references */
	free(tls->cert);
	free(tls->key);
	free(tls->ca);
	free(tls->crl);
	free(tls->alpn);
	free(tls);
}

void api_tls_swap(struct api_tls *a, struct api_tls *b)
{
	const struct api_tls t = *a;

	*a = *b;
	*b = t;
}

void api_tls_tune(int fd)
{
	const int on = 1, idle = KEEPALIVE_S, interval = KEEPALIVE_S, count = 2;
	const unsigned ms = 3 * KEEPALIVE_S * 1000;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* The name or address that the server's certificate must be for. */
static bool expect_host(SSL *ssl, const char *host)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	if (X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1)
		return true;
	ERR_clear_error();
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

/* Whether the certificate is good by what is trusted now: the handshake may be long ago. */
static bool still_good(SSL *ssl, X509 *cert)
{
	const struct api_tls *tls = SSL_get_app_data(ssl);
	X509_STORE_CTX *check;
	bool good;

	if (SSL_get_SSL_CTX(ssl) == tls->ctx)
		return SSL_get_verify_result(ssl) == X509_V_OK;
	check = X509_STORE_CTX_new();
	good = check &&
	       X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(tls->ctx), cert,
				   SSL_get_peer_cert_chain(ssl)) == 1 &&
	       X509_STORE_CTX_set_default(check, tls->server ? "ssl_client" : "ssl_server") == 1 &&
	       X509_verify_cert(check) == 1;
	X509_STORE_CTX_free(check);
	ERR_clear_error();
	return good;
}

struct bufferevent *api_tls_bufferevent(struct api_tls *tls, struct event_base *base, int fd,
					const char *host)
{
	SSL *ssl = SSL_new(tls->ctx);
	struct bufferevent *bev;

	if (!ssl || SSL_set_app_data(ssl, tls) != 1 || (host && !expect_host(ssl, host))) {
		SSL_free(ssl);
		ERR_clear_error();
		cleanup_close(&fd);
		return NULL;
	}
	bev = bufferevent_openssl_socket_new(
		base, fd, ssl, tls->server ? BUFFEREVENT_SSL_ACCEPTING : BUFFEREVENT_SSL_CONNECTING,
		BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!bev) {
		SSL_free(ssl);
		cleanup_close(&fd);
		return NULL;
	}
	/* Texts end by themselves: a connection cut off without goodbye hides nothing. */
	bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
	return bev;
}

int api_tls_peer_name(struct bufferevent *bev, char *out, size_t len)
{
	SSL *ssl = bufferevent_openssl_get_ssl(bev);
	X509 *cert = SSL_get0_peer_certificate(ssl);
	X509_NAME *subject;
	unsigned char *text = NULL;
	int at, n, ret = 0;

	*out = 0;
	if (!cert)
		return 0;
	if (!still_good(ssl, cert))
		return -EACCES;
	subject = X509_get_subject_name(cert);
	at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	if (at < 0)
		return -EINVAL;
	n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	if (n <= 0 || (size_t)n >= len)
		ret = -EINVAL;
	/* A log line or an owner must not be forged: nothing but printable ASCII. */
	for (int i = 0; !ret && i < n; i++)
		if (text[i] <= ' ' || text[i] > '~')
			ret = -EINVAL;
	if (!ret) {
		memcpy(out, text, (size_t)n);
		out[n] = 0;
	}
	OPENSSL_free(text);
	return ret;
}

void api_tls_why(struct bufferevent *bev, char *out, size_t len)
{
	SSL *ssl = bufferevent_openssl_get_ssl(bev);
	long verify = SSL_get_verify_result(ssl);
	unsigned long e, last = 0;

	while ((e = bufferevent_get_openssl_error(bev)))
		last = e;
	if (verify != X509_V_OK)
		snprintf(out, len, "the peer's certificate: %s",
			 X509_verify_cert_error_string(verify));
	else if (last && ERR_reason_error_string(last))
		snprintf(out, len, "%s", ERR_reason_error_string(last));
	else
		snprintf(out, len, "the connection was closed");
}
