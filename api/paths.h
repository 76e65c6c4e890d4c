/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where things are, for vmctl and umbrad alike; and Unix sockets by name. */
#ifndef UMBRA_API_PATHS_H
#define UMBRA_API_PATHS_H

#include "api/error.h"

/* In the runtime folder. */
#define UMBRAD_SOCKET	   "umbrad.sock"
#define UMBRAD_SOCKET_READ "umbrad-ro.sock"
#define UMBRAD_SOCKET_HTTP "umbrad-http.sock"

/*
 * User mode: $XDG_RUNTIME_DIR/umbra (else /tmp/umbra-UID) and $XDG_STATE_HOME/umbra (else
 * ~/.local/state/umbra). Root: /run/umbra and /var/lib/umbra. $UMBRA_RUNTIME_DIR and
 * $UMBRA_STATE_DIR come before all.
 */
struct api_paths {
	char *runtime, *state;
	bool system; /* root's */
};

int api_paths_init(struct api_paths *paths, struct api_error *err);
void api_paths_finish(struct api_paths *paths);
/* Make @path with its parents, @mode for the last; it must be ours and not writable by others. */
int api_make_folder(const char *path, unsigned mode, struct api_error *err);

/*
 * A listening (non-blocking) or connected (blocking) stream socket at @name in the folder @dirfd;
 * the folder's path may be longer than a socket's address. A dead socket of that name is replaced.
 * The descriptor or -errno.
 */
int api_unix_listen(int dirfd, const char *name, unsigned mode);
int api_unix_connect(int dirfd, const char *name);

/*
 * A program of ours: $@env, else beside the running one, in ../@folder (a build tree) or in
 * ../libexec/umbra (installed), else in PATH. A path to free, or NULL.
 */
char *api_find_program(const char *name, const char *folder, const char *env);

#endif
