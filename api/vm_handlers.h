/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The handlers of vm_methods: filled by vm_control.c, named by offset in vm_proto.c. */
#ifndef UMBRA_API_VM_HANDLERS_H
#define UMBRA_API_VM_HANDLERS_H

#include "api/method.h"

struct vm_handlers {
	api_handler start, stop, query, attach_console, quit, ping;
};

#endif
