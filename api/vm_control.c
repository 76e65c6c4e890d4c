/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbra-vm's side of the control socket: thin handlers over struct vm_control_ops. */
#include "api/vm_control.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <json-c/json.h>

#include "api/server.h"
#include "api/vm_handlers.h"

#define BACKLOG 16

static const struct api_listen umbrad_only = {.cap = API_ADMIN};

struct vm_control {
	struct api_dispatcher dispatcher;
	struct api_server *server;
	const struct vm_control_ops *ops;
	void *data;
};

/* Answer a call whose op returned @ret. */
static void answer(struct api_call *call, int ret, struct api_error *err)
{
	if (!ret) {
		api_call_reply(call, NULL, -1);
		return;
	}
	if (!err->kind)
		api_error_set(err, api_kind_from_errno(ret), "it failed, errno %d", -ret);
	api_call_error(call, err);
}

static void handle_start(struct api_call *call)
{
	struct vm_control *c = api_call_data(call);
	struct api_error err = {0};

	answer(call, c->ops->start(c->data, &err), &err);
}

static void handle_stop(struct api_call *call)
{
	struct vm_control *c = api_call_data(call);
	const char *reason = api_call_string(call, "reason");
	struct api_error err = {0};
	int ret;

	if (api_call_bool(call, "force", false))
		ret = c->ops->end(
			c->data, reason && reason[0] == 't' ? VM_REASON_TIMEOUT : VM_REASON_STOPPED,
			&err);
	else
		ret = c->ops->powerdown(c->data, &err);
	answer(call, ret, &err);
}

static void handle_query(struct api_call *call)
{
	struct vm_control *c = api_call_data(call);
	struct vm_report report = {0};
	struct json_object *obj;

	c->ops->query(c->data, &report);
	obj = vm_report_to_json(&report);
	vm_report_finish(&report);
	json_object_object_add(obj, "pid", json_object_new_int(getpid()));
	if (c->ops->sandbox)
		json_object_object_add(obj, "sandbox", c->ops->sandbox(c->data));
	api_call_reply(call, obj, -1);
}

static void handle_attach_console(struct api_call *call)
{
	struct vm_control *c = api_call_data(call);
	struct api_error err = {0};

	answer(call, c->ops->attach_console(c->data, api_call_take_fd(call), &err), &err);
}

static void handle_quit(struct api_call *call)
{
	struct vm_control *c = api_call_data(call);
	struct api_error err = {0};

	answer(call, c->ops->end(c->data, VM_REASON_STOPPED, &err), &err);
}

/* That the loop turns is all that is asked. */
static void handle_ping(struct api_call *call)
{
	api_call_reply(call, NULL, -1);
}

static const struct vm_handlers handlers = {
	.ping = handle_ping,
	.start = handle_start,
	.stop = handle_stop,
	.query = handle_query,
	.attach_console = handle_attach_console,
	.quit = handle_quit,
};

int vm_control_create(struct vm_control **out, struct event_base *base, int listen_fd,
		      const struct vm_control_ops *ops, void *data)
{
	/* Nobody but umbrad can connect: there is nobody to tell apart. */
	struct api_server_config config = {0};
	struct vm_control *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return -ENOMEM;
	c->ops = ops;
	c->data = data;
	c->dispatcher = (struct api_dispatcher){
		.table = &vm_methods,
		.ops = &handlers,
		.data = c,
		.machine_ops = ops->machine,
		.machine_data = ops->machine_data ? ops->machine_data(data) : data,
	};
	api_dispatcher_init(&c->dispatcher);
	config.dispatcher = &c->dispatcher;
	ret = api_server_create(&c->server, base, &config);
	if (!ret && listen_fd >= 0) {
		ret = listen(listen_fd, BACKLOG) < 0 ? -errno : 0;
		if (!ret)
			ret = api_server_listen(c->server, listen_fd, &umbrad_only);
	}
	if (ret) {
		vm_control_destroy(c);
		return ret;
	}
	*out = c;
	return 0;
}

void vm_control_destroy(struct vm_control *control)
{
	if (!control)
		return;
	api_server_destroy(control->server);
	api_dispatcher_finish(&control->dispatcher);
	free(control);
}

int vm_control_add(struct vm_control *control, int fd)
{
	return api_server_add(control->server, fd, &umbrad_only);
}

void vm_control_tell(struct vm_control *control, const struct vm_report *report)
{
	struct json_object *obj = vm_report_to_json(report);

	if (obj)
		api_server_notify_all(control->server, "vm.state", obj);
	json_object_put(obj);
}

void vm_control_flush(struct vm_control *control, int ms)
{
	api_server_flush(control->server, ms);
}
