/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target over what a client may send: the framing of JSON-RPC, the methods' parameters,
 * and the machine definition. The first byte chooses: 0 is the definition; below 128 umbra-vm's
 * side, from there umbrad's whole table, in pieces of the lower seven bits' number of bytes.
 */
#include <event2/event.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/api.h"
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

/* Say it piece by piece, and hang up. */
static void feed(struct event_base *base, int fd, size_t piece, const uint8_t *data, size_t size)
{
	char sink[4096];
	size_t n;

	for (; size; data += n, size -= n) {
		n = MIN(piece, size);
		if (send(fd, data, n, MSG_NOSIGNAL) < 0)
			break;
		turn(base);
		while (recv(fd, sink, sizeof(sink), 0) > 0)
			;
	}
	close(fd);
	turn(base);
}

static void converse(size_t piece, const uint8_t *data, size_t size)
{
	struct event_base *base = event_base_new();
	struct vm_control *control = NULL;
	int pair[2];

	if (!base || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) ||
	    vm_control_create(&control, base, -1, &ops, NULL) || vm_control_add(control, pair[0]))
		abort();
	feed(base, pair[1], piece, data, size);
	vm_control_destroy(control);
	event_base_free(base);
}

/* What umbrad's handlers may do: answer now, later, fail, or make it a job that outlives all. */
struct desk {
	struct api_dispatcher dispatcher;
	struct api_call *held;
	unsigned n;
};

static void on_gone(struct api_call *call, void *data)
{
	struct desk *desk = data;

	desk->held = NULL;
}

static void serve(struct api_call *call)
{
	struct desk *desk = api_call_data(call);
	const char *name = api_call_string(call, "name");

	/* What was checked can be read as what it was declared. */
	if (name && !api_name_valid(name))
		abort();
	api_call_progress(call, 0.5, "half");
	switch (desk->n++ % 4) {
	case 0: api_call_reply(call, NULL, -1); return;
	case 1: api_call_fail(call, API_KIND_IO, "no"); return;
	case 2:
		if (desk->held)
			api_call_cancel(desk->held);
		desk->held = call;
		api_call_on_gone(call, on_gone, desk);
		return;
	default: api_call_reply(call, json_object_get(api_call_params(call)), -1);
	}
}

static struct json_object *job_ended(void *job, struct json_object *result,
				     const struct api_error *err)
{
	return NULL;
}

static void job_progress(void *job, double fraction, const char *what)
{
}

static bool job_stays(void *job)
{
	return false;
}

static const struct api_job_ops job_ops = {
	.ended = job_ended, .progress = job_progress, .stays = job_stays};

static int begin_job(void *data, struct api_call *call, struct api_error *err)
{
	struct desk *desk = data;

	api_call_set_job(call, &job_ops, desk);
	if (!api_call_bool(call, "wait", true))
		api_call_answer_early(call, json_object_new_object());
	return 0;
}

static void converse_umbrad(size_t piece, const uint8_t *data, size_t size)
{
	static api_handler handlers[sizeof(struct api_ops) / sizeof(api_handler)];
	const struct api_listen how = {.cap = piece % 2 ? API_ADMIN : API_OPERATE};
	struct event_base *base = event_base_new();
	struct desk desk = {.dispatcher = {.table = &api_umbrad_methods,
					   .ops = handlers,
					   .data = &desk,
					   .forward = serve,
					   .begin_job = begin_job}};
	const struct api_server_config config = {.dispatcher = &desk.dispatcher};
	struct api_server *server;
	int pair[2];

	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++)
		handlers[i] = serve;
	api_dispatcher_init(&desk.dispatcher);
	if (!base || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) ||
	    api_server_create(&server, base, &config) || api_server_add(server, pair[0], &how))
		abort();
	feed(base, pair[1], piece ? piece : 1, data, size);
	api_server_destroy(server);
	api_dispatcher_finish(&desk.dispatcher);
	if (desk.dispatcher.n_calls || desk.dispatcher.n_connections)
		abort();
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
	if (data[0] >= 128)
		converse_umbrad(data[0] & 127, data + 1, size - 1);
	else if (data[0])
		converse(data[0], data + 1, size - 1);
	else
		define(data + 1, size - 1);
	return 0;
}
