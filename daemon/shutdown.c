/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbrad --shutdown-machines: what the host's shutdown calls before it stops umbrad. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "api/paths.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/supervise.h"

int supervise_ask_stop_all(void)
{
	struct api_client *client = NULL;
	struct api_error err = {0};
	struct api_paths paths;
	struct api_reply reply;
	int dir, fd, ret = api_paths_init(&paths, &err);

	if (ret) {
		log_error("%s", err.text);
		return ret;
	}
	dir = open(paths.runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = dir < 0 ? -errno : api_unix_connect(dir, UMBRAD_SOCKET);
	cleanup_close(&dir);
	api_paths_finish(&paths);
	if (fd < 0) {
		log_info("no umbrad runs (%s): nothing to stop", strerror(-fd));
		return 0;
	}
	ret = api_client_create(&client, NULL, fd, NULL, NULL);
	if (ret) {
		close(fd);
		return ret;
	}
	ret = api_client_call(client, "system.stop_machines", NULL, 0, &reply);
	if (ret)
		log_error("the machines are not all stopped: %s", reply.err.text);
	api_reply_finish(&reply);
	api_client_destroy(client);
	return ret;
}
