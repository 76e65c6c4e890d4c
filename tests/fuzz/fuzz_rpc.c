/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target over what a client may send: the framing of JSON-RPC, the methods' parameters,
 * and the machine definition. The first byte chooses; 0 is the definition, others are the
 * connection, in pieces of that many bytes.
 */
#include <event2/event.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/machine_def.h"
#include "api/vm_control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int succeed(void *data, struct api_error *err)
{
	return 0;
}

static int end(void *data, enum vm_reason reason, struct api_error *err)
{
	return api_error_set(err, API_KIND_INVALID_STATE, "no");
}

static void query(void *data, struct vm_report *report)
{
	report->state = VM_RUNNING;
}

static int attach(void *data, int fd, struct api_error *err)
{
	close(fd);
	return 0;
}

static const struct vm_control_ops ops = {
	.start = succeed,
	.powerdown = succeed,
	.end = end,
	.query = query,
	.attach_console = attach,
};

static void turn(struct event_base *base)
{
	for (unsigned k = 0; k < 4; k++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void converse(size_t piece, const uint8_t *data, size_t size)
{
	struct event_base *base = event_base_new();
	struct vm_control *control = NULL;
	char sink[4096];
	int pair[2];
	size_t n;

	if (!base || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) ||
	    vm_control_create(&control, base, -1, &ops, NULL) || vm_control_add(control, pair[0]))
		abort();
	for (; size; data += n, size -= n) {
		n = MIN(piece, size);
		if (send(pair[1], data, n, MSG_NOSIGNAL) < 0)
			break;
		turn(base);
		while (recv(pair[1], sink, sizeof(sink), 0) > 0)
			;
	}
	close(pair[1]);
	turn(base);
	vm_control_destroy(control);
	event_base_free(base);
}

static void define(const uint8_t *data, size_t size)
{
	struct json_tokener *tok = json_tokener_new();
	struct json_object *obj, *back;
	struct machine_def def, again;
	struct api_error err = {0};

	obj = json_tokener_parse_ex(tok, (const char *)data, (int)size);
	if (!machine_def_parse(&def, obj, "name", "", &err)) {
		/* What is accepted is accepted again, and means the same. */
		back = machine_def_to_json(&def);
		if (machine_def_parse(&again, back, NULL, "", &err))
			abort();
		if (def.memory != again.memory || def.cpus != again.cpus ||
		    strcmp(def.name, again.name) || strcmp(def.kernel, again.kernel) ||
		    def.modules.n != again.modules.n)
			abort();
		json_object_put(back);
		machine_def_finish(&def);
		machine_def_finish(&again);
	} else if (!err.kind || !*err.text) {
		abort();
	}
	json_object_put(obj);
	json_tokener_free(tok);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size || size > MIB(1))
		return 0;
	if (data[0])
		converse(data[0], data + 1, size - 1);
	else
		define(data + 1, size - 1);
	return 0;
}
