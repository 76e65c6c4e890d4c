/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A debugger attached to the machine: the stub between a socket and the vCPUs. */
#include "vm/gdb_stub.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/server.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "mmu/inspect.h"
#include "vm/peek.h"
#include "vm/vm_api.h"
#include "vm/vm_internal.h"

/*
 * While the debugger holds the machine, vm->debug_stopped. What a vCPU met waits in has_hit until
 * it is told, one at a time; a second one that met a breakpoint at the same moment is told when the
 * machine would go on, if the breakpoint is still there.
 */
struct vm_gdb {
	struct vm *vm;
	struct gdb_stub *stub;
	int fd;
	struct event *readable, *writable;
};

/* ---- the way out -------------------------------------------------------------------------------
 */

/* The debugger goes: its breakpoints end, and its hold. */
static void detach(struct vm_gdb *g)
{
	struct vm *vm = g->vm;

	vm_debug_hold(vm);
	for (unsigned k = 0; k < vm->cpus; k++) {
		struct vcpu *v = &vm->vcpus[k];

		vm->engine->vcpu_set_debug(v->engine, NULL);
		v->frozen = false;
		__atomic_store_n(&v->has_hit, false, __ATOMIC_SEQ_CST);
	}
	vm->gdb = NULL;
	vm_gdb_destroy(g);
	vm_debug_release(vm);
}

/* Send what there is. False: the peer has gone. Nothing more is read until all is sent. */
static bool flush(struct vm_gdb *g)
{
	struct buf *out = gdb_stub_output(g->stub);

	while (out->len) {
		ssize_t n = send(g->fd, out->data, out->len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			event_del(g->readable);
			event_add(g->writable, NULL);
			return true;
		}
		if (n < 0)
			return false;
		buf_consume(out, (size_t)n);
	}
	event_add(g->readable, NULL);
	return true;
}

static void on_writable(evutil_socket_t fd, short what, void *data)
{
	struct vm_gdb *g = data;

	if (!flush(g))
		detach(g);
}

static void on_readable(evutil_socket_t fd, short what, void *data)
{
	struct vm_gdb *g = data;
	uint8_t bytes[4096];
	ssize_t n = recv(g->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* What answers the last packet goes out even if it is the last. */
	if (n <= 0 || gdb_stub_input(g->stub, bytes, (size_t)n)) {
		flush(g);
		detach(g);
	} else if (!flush(g)) {
		detach(g);
	}
}

/* ---- the way in --------------------------------------------------------------------------------
 */

static bool is_at(struct vcpu *v, gva_t gva)
{
	struct cpu_state s;
	uint64_t lin;

	if (v->vm->engine->vcpu_get_state(v->engine, &s))
		return false;
	lin = s.rip + s.seg[X86_CS].base;
	return (s.efer & X86_EFER_LMA ? lin : (uint32_t)lin) == gva;
}

/* What the vCPU met may be long gone: the debugger has taken it away, or moved the vCPU. */
static bool still_holds(struct vcpu *v, const struct cpu_host_debug *d)
{
	const struct engine_debug_hit *hit = &v->hit;

	if (hit->kind == ENGINE_DEBUG_BREAKPOINT)
		for (unsigned n = 0; n < d->breakpoints; n++)
			if (d->breakpoint[n] == hit->gva)
				return is_at(v, hit->gva);
	if (hit->kind == ENGINE_DEBUG_WATCH)
		for (unsigned n = 0; n < d->watches; n++)
			if (d->watch[n].gva == hit->gva)
				return true;
	return false;
}

static void tell_hit(struct vm_gdb *g, struct vcpu *v)
{
	static const enum gdb_stop_reason reasons[] = {
		[ENGINE_DEBUG_STEP] = GDB_STOPPED_OTHERWISE,
		[ENGINE_DEBUG_BREAKPOINT] = GDB_STOPPED_BREAKPOINT,
		[ENGINE_DEBUG_WATCH] = GDB_STOPPED_WATCH,
	};
	const struct gdb_stop stop = {
		.vcpu = v->index,
		.signal = GDB_STOP_SIGTRAP,
		.reason = reasons[v->hit.kind],
		.gva = v->hit.gva,
	};

	__atomic_store_n(&v->has_hit, false, __ATOMIC_SEQ_CST);
	gdb_stub_stopped(g->stub, &stop);
}

static bool has_hit(const struct vcpu *v)
{
	return __atomic_load_n(&v->has_hit, __ATOMIC_SEQ_CST);
}

void vm_gdb_hit(struct vm *vm)
{
	struct vm_gdb *g = vm->gdb;

	if (!g || !gdb_stub_running(g->stub))
		return; /* detach() has seen to it; or it is told when the machine goes on */
	vm_debug_hold(vm);
	for (unsigned k = 0; k < vm->cpus; k++)
		if (has_hit(&vm->vcpus[k])) {
			tell_hit(g, &vm->vcpus[k]);
			break;
		}
	/* A reset has taken it away. */
	if (gdb_stub_running(g->stub))
		vm_debug_release(vm);
	if (!flush(g))
		detach(g);
}

void vm_gdb_ended(struct vm *vm)
{
	struct vm_gdb *g = vm->gdb;
	struct vm_report report = {.state = VM_ENDED, .reason = vm->reason, .code = vm->code};

	if (!g)
		return;
	gdb_stub_ended(g->stub, vm->reason == VM_REASON_CRASH, vm_report_status(&report));
	flush(g);
	vm->gdb = NULL;
	vm_gdb_destroy(g);
}

void vm_gdb_destroy(struct vm_gdb *g)
{
	if (!g)
		return;
	if (g->readable)
		event_free(g->readable);
	if (g->writable)
		event_free(g->writable);
	gdb_stub_destroy(g->stub);
	cleanup_close(&g->fd);
	free(g);
}

/* ---- what the stub asks ------------------------------------------------------------------------
 */

static struct vcpu *vcpu_at(void *target, unsigned vcpu)
{
	return &((struct vm_gdb *)target)->vm->vcpus[vcpu];
}

static void target_get_state(void *target, unsigned vcpu, struct cpu_state *ret_state)
{
	struct vcpu *v = vcpu_at(target, vcpu);

	/* An engine that fails here has its machine end; until then the debugger sees zeros. */
	if (v->vm->engine->vcpu_get_state(v->engine, ret_state))
		memset(ret_state, 0, sizeof(*ret_state));
}

static int target_set_state(void *target, unsigned vcpu, const struct cpu_state *state)
{
	struct vcpu *v = vcpu_at(target, vcpu);

	return v->vm->engine->vcpu_set_state(v->engine, state);
}

static size_t target_read(void *target, unsigned vcpu, gva_t gva, void *data, size_t len,
			  struct buf *why)
{
	return vm_peek(vcpu_at(target, vcpu), gva, data, len, why);
}

static size_t target_write(void *target, unsigned vcpu, gva_t gva, const void *data, size_t len,
			   struct buf *why)
{
	return vm_poke(vcpu_at(target, vcpu), gva, data, len, why);
}

static int target_can_stop(void *target, const struct cpu_host_debug *debug)
{
	struct vcpu *v = vcpu_at(target, 0);

	return v->vm->engine->vcpu_set_debug(v->engine, debug);
}

static void target_resume(void *target, const struct gdb_resume *resume)
{
	struct vm_gdb *g = target;
	struct vm *vm = g->vm;
	struct vcpu *hit = NULL;

	for (unsigned k = 0; k < vm->cpus; k++) {
		struct cpu_host_debug debug = *resume->debug;
		struct vcpu *v = &vm->vcpus[k];

		debug.single_step = resume->action[k] == GDB_STEP;
		vm->engine->vcpu_set_debug(v->engine, &debug);
		v->frozen = resume->action[k] == GDB_HOLD;
		if (v->frozen || !has_hit(v))
			continue;
		if (!still_holds(v, &debug))
			__atomic_store_n(&v->has_hit, false, __ATOMIC_SEQ_CST);
		else if (!hit)
			hit = v;
	}
	if (hit) {
		tell_hit(g, hit);
		return;
	}
	vm_debug_release(vm);
	if (!vm_runs(vm))
		gdb_stub_print(g->stub, "The machine is paused: \"vmctl resume\" lets it go on.\n");
}

static void target_stop(void *target)
{
	vm_debug_hold(((struct vm_gdb *)target)->vm);
}

static void target_kill(void *target)
{
	struct api_error err;

	vm_end(((struct vm_gdb *)target)->vm, VM_REASON_STOPPED, &err);
}

/* ---- the user's commands -----------------------------------------------------------------------
 */

static void monitor_reset(struct vcpu *v, const char *rest, struct buf *out)
{
	struct api_error err = {0};

	if (vm_reset(v->vm, &err))
		buf_printf(out, "%s\n", err.text);
	else
		buf_printf(
			out,
			"The machine is reset; \"maint flush register-cache\" lets gdb see it.\n");
}

/* Groups of registers as they are told over the API, a line each. */
static void print_group(struct buf *out, struct json_object *obj, unsigned indent)
{
	json_object_object_foreach(obj, name, value)
	{
		if (json_object_is_type(value, json_type_object)) {
			buf_printf(out, "%*s%s\n", (int)indent, "", name);
			print_group(out, value, indent + 2);
		} else {
			buf_printf(out, "%*s%-14s %s\n", (int)indent, "", name,
				   json_object_get_string(value));
		}
	}
}

static void monitor_regs(struct vcpu *v, const char *rest, struct buf *out)
{
	struct json_object *regs = vm_registers(v, false);

	if (regs)
		print_group(out, regs, 0);
	json_object_put(regs);
}

static void print_walk(const struct mmu_inspect_walk *w, struct buf *out)
{
	char text[128];

	buf_printf(out, "cr3 0x%" PRIx64 "\n", w->cr3);
	for (unsigned k = 0; k < w->guest.nsteps; k++) {
		const struct mmu_walk_step *s = &w->guest.steps[k];

		mmu_format_guest_entry(w->paging, s->level, s->raw, text, sizeof(text));
		buf_printf(out, "level %u at gpa 0x%-10" PRIx64 " 0x%016" PRIx64 "  %s\n", s->level,
			   s->gpa, s->raw, text);
	}
	if (w->guest_result || w->why)
		buf_printf(out, "it ends here: %s\n", mmu_why_name(w->why));
	else if (w->in_slot)
		buf_printf(out, "gpa 0x%" PRIx64 ", memslot %u, hva 0x%" PRIx64 "\n", w->guest.gpa,
			   w->slot.id, w->hva);
	else
		buf_printf(out, "gpa 0x%" PRIx64 ", which is no memory\n", w->guest.gpa);
	if (!w->has_root)
		return;
	for (unsigned k = 0; k < w->nsteps; k++) {
		const struct mmu_host_step *s = &w->steps[k];

		mmu_format_spte(w->format, s->level, s->raw, text, sizeof(text));
		buf_printf(out, "ours: level %u at 0x%-14" PRIx64 " 0x%016" PRIx64 "  %s\n",
			   s->level, s->hpa, s->raw, text);
	}
}

static void monitor_mmu(struct vcpu *v, const char *rest, struct buf *out)
{
	struct mmu_inspect_walk walk;
	uint64_t addr;

	if (strncmp(rest, "walk ", 5) != 0 ||
	    api_addr_parse(rest + 5 + strspn(rest + 5, " "), &addr))
		buf_printf(out, "mmu walk ADDR, such as mmu walk 0xffffffff81000000\n");
	else if (vm_walk(v, addr, &walk))
		buf_printf(out, "the vCPU has no registers yet\n");
	else
		print_walk(&walk, out);
}

static void monitor_help(struct vcpu *v, const char *rest, struct buf *out);

static const struct {
	const char *name, *help;
	void (*fn)(struct vcpu *v, const char *rest, struct buf *out);
} commands[] = {
	{"help", "tells this", monitor_help},
	{"mmu", "mmu walk ADDR: an address through the guest's tables and ours", monitor_mmu},
	{"regs", "all registers of the current vCPU, decoded", monitor_regs},
	{"reset", "resets the machine, which stays stopped", monitor_reset},
};

static void monitor_help(struct vcpu *v, const char *rest, struct buf *out)
{
	for (size_t k = 0; k < ARRAY_SIZE(commands); k++)
		buf_printf(out, "%-16s %s\n", commands[k].name, commands[k].help);
}

static void target_monitor(void *target, unsigned vcpu, const char *command, struct buf *out)
{
	for (size_t k = 0; k < ARRAY_SIZE(commands); k++) {
		size_t len = strlen(commands[k].name);

		if (strncmp(command, commands[k].name, len) ||
		    (command[len] && command[len] != ' '))
			continue;
		commands[k].fn(vcpu_at(target, vcpu), command + len + strspn(command + len, " "),
			       out);
		return;
	}
	buf_printf(out, "There is no such command; \"monitor help\" lists those there are.\n");
}

static const struct gdb_target_ops target_ops = {
	.get_state = target_get_state,
	.set_state = target_set_state,
	.read = target_read,
	.write = target_write,
	.can_stop = target_can_stop,
	.resume = target_resume,
	.stop = target_stop,
	.kill = target_kill,
	.monitor = target_monitor,
};

/* ---- attaching ---------------------------------------------------------------------------------
 */

/* A machine with a vCPU in long mode is taken for an amd64 one. */
static enum gdb_arch present_arch(struct vm *vm)
{
	struct cpu_state s;

	for (unsigned k = 0; k < vm->cpus; k++) {
		if (!vm->engine->vcpu_get_state(vm->vcpus[k].engine, &s) && s.efer & X86_EFER_LMA)
			return GDB_ARCH_AMD64;
	}
	return GDB_ARCH_I386;
}

/* Takes @fd on success, with every vCPU held from then on. 0 or -errno. */
static int attach(struct vm *vm, int fd, const char *arch)
{
	struct vm_gdb *g = calloc(1, sizeof(*g));
	bool i386;

	if (!g)
		return -ENOMEM;
	g->vm = vm;
	g->fd = -1;
	vm_debug_hold(vm);
	i386 = arch && strcmp(arch, "auto") ? !strcmp(arch, "i386")
					    : present_arch(vm) == GDB_ARCH_I386;
	g->stub = gdb_stub_create(&target_ops, g, vm->cpus, i386 ? GDB_ARCH_I386 : GDB_ARCH_AMD64);
	g->readable = event_new(vm->base, fd, EV_READ | EV_PERSIST, on_readable, g);
	g->writable = event_new(vm->base, fd, EV_WRITE, on_writable, g);
	if (!g->stub || !g->readable || !g->writable || fd_set_nonblock(fd, true) ||
	    event_add(g->readable, NULL)) {
		vm_gdb_destroy(g);
		vm_debug_release(vm);
		return -ENOMEM;
	}
	g->fd = fd;
	vm->gdb = g;
	return 0;
}

void handle_machine_gdb(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	int pair[2];

	if (!vm)
		return;
	if (vm->gdb) {
		api_call_fail(call, API_KIND_INVALID_STATE, "a debugger is attached already");
		return;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		api_call_fail(call, API_KIND_LIMIT, "no socket: %s", strerror(errno));
		return;
	}
	if (attach(vm, pair[0], api_call_string(call, "arch"))) {
		close(pair[0]);
		close(pair[1]);
		api_call_fail(call, API_KIND_INTERNAL, "out of memory");
		return;
	}
	api_call_reply(call, NULL, pair[1]);
}
