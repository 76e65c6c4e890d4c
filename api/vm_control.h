/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umbra-vm's side of the control socket: fill an ops struct, get a served socket. */
#ifndef UMBRA_API_VM_CONTROL_H
#define UMBRA_API_VM_CONTROL_H

#include "api/machine_ops.h"
#include "api/vm_proto.h"

struct event_base;

/*
 * What umbra-vm does when told to. Each is called on the loop's thread, must not block for long,
 * and returns 0, or a -errno with *err filled (api_error_set). All are mandatory but those
 * marked. That something
 * happened is told apart from the call, with vm_control_tell(), when it has happened.
 */
struct vm_control_ops {
	int (*start)(void *data, struct api_error *err);
	/* Press the power button. */
	int (*powerdown)(void *data, struct api_error *err);
	/* End now with @reason (VM_REASON_STOPPED or VM_REASON_TIMEOUT); also from VM_CREATED. */
	int (*end)(void *data, enum vm_reason reason, struct api_error *err);
	/* Fill @report (zeroed); the caller finishes it. */
	void (*query)(void *data, struct vm_report *report);
	/* Take @fd (also on failure): console_attach(). */
	int (*attach_console)(void *data, int fd, struct api_error *err);
	/* How it is locked up, for vm.query's "sandbox"; optional. A new object. */
	struct json_object *(*sandbox)(void *data);
	/* The handlers of api_machine_methods, and what is their api_call_data(); optional. */
	const struct api_machine_ops *machine;
	void *(*machine_data)(void *data); /* asked once; NULL: @data itself */
};

struct vm_control;

/*
 * Serve @listen_fd (taken on success; listen() is called on it again, so that SO_PEERCRED at the
 * other end names this process). 0 or -errno.
 */
int vm_control_create(struct vm_control **out, struct event_base *base, int listen_fd,
		      const struct vm_control_ops *ops, void *data);
void vm_control_destroy(struct vm_control *control);
/* Serve a connected socket too, taken in any case. */
int vm_control_add(struct vm_control *control, int fd);
/* Tell every connection vm.state. On the loop's thread only. */
void vm_control_tell(struct vm_control *control, const struct vm_report *report);
/* Send what is queued, for at most @ms; for use right before the process ends. */
void vm_control_flush(struct vm_control *control, int ms);

#endif
