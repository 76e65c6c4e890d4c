/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every socket that umbrad listens on: from systemd by name, or made by itself. */
#ifndef UMBRA_DAEMON_LISTEN_H
#define UMBRA_DAEMON_LISTEN_H

#include "api/paths.h"
#include "daemon/config.h"

enum listen_kind {
	LISTEN_RPC,	 /* umbrad.sock */
	LISTEN_RPC_READ, /* umbrad-ro.sock */
	LISTEN_HTTP,	 /* umbrad-http.sock */
	LISTEN_RPC_TLS,
	LISTEN_HTTPS,
	LISTEN_KIND_COUNT,
};

/* FileDescriptorName= of the kinds: "rpc", "rpc-read", "http", "rpc-tls", "https". */
extern const char *const listen_kind_names[LISTEN_KIND_COUNT];

/*
 * Hand every listening socket (non-blocking, close-on-exec) to @take, which owns it when it returns
 * 0. A kind that systemd passed is not made here; of the others those that @config asks for are,
 * the Unix ones in the folder @run_fd. 0, or the first -errno, with a sentence in *err.
 */
int listen_all(const struct umbrad_config *config, const struct api_paths *paths, int run_fd,
	       int (*take)(void *data, enum listen_kind kind, int fd), void *data,
	       struct api_error *err);

#endif
