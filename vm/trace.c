/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mmu.trace: faults and exits in a bounded ring with sequence numbers. */
#include "vm/vm_api.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "api/server.h"
#include "mmu/inspect.h"
#include "vm/vm_internal.h"
#include "vm/vm_json.h"

#define EVENTS_MAX  32768 /* kept; a power of two */
#define FORGOTTEN_S 60	  /* nobody has asked for so long: whoever began it has gone */
#define WHAT_FAULTS BIT(0)
#define WHAT_EXITS  BIT(1)

struct event_note {
	bool is_exit;
	union {
		struct mmu_trace_event fault;
		struct engine_trace_event exit;
	};
};

/* Made by the first call that begins to trace; the ring stays until the machine's end. */
struct vm_trace {
	pthread_mutex_t lock; /* a leaf: nothing is called under it */
	uint64_t last;	      /* number of the newest event; the first is 1 */
	struct event_note ring[EVENTS_MAX];
	/* The loop's own: */
	unsigned what; /* WHAT_* */
	struct event *forgotten;
};

/* ---- taking notes: on the vCPUs' threads ---- */

static struct event_note *next_note(struct vm_trace *t)
{
	return &t->ring[++t->last % EVENTS_MAX];
}

static void note_fault(void *arg, const struct mmu_trace_event *e)
{
	struct vm_trace *t = arg;
	struct event_note *n;

	pthread_mutex_lock(&t->lock);
	n = next_note(t);
	n->is_exit = false;
	n->fault = *e;
	pthread_mutex_unlock(&t->lock);
}

static void note_exit(void *arg, const struct engine_trace_event *e)
{
	struct vm_trace *t = arg;
	struct event_note *n;

	pthread_mutex_lock(&t->lock);
	n = next_note(t);
	n->is_exit = true;
	n->exit = *e;
	pthread_mutex_unlock(&t->lock);
}

/* ---- on and off: the loop ---- */

static void set_what(struct vm *vm, unsigned what)
{
	struct vm_trace *t = vm->trace;
	unsigned changed = t->what ^ what;

	if (changed & WHAT_FAULTS)
		mmu_trace_set(vm->mmu, what & WHAT_FAULTS ? note_fault : NULL, t);
	if (changed & WHAT_EXITS)
		vm->engine->set_trace(vm->engine_vm, what & WHAT_EXITS ? note_exit : NULL, t);
	t->what = what;
}

/* Faults are the MMU's to tell, which stays. */
void vm_trace_again(struct vm *vm)
{
	struct vm_trace *t = vm->trace;

	if (t && t->what & WHAT_EXITS)
		vm->engine->set_trace(vm->engine_vm, note_exit, t);
}

static void on_forgotten(evutil_socket_t fd, short what, void *arg)
{
	set_what(arg, 0);
}

static struct vm_trace *trace_of(struct vm *vm)
{
	struct vm_trace *t = vm->trace;

	if (t)
		return t;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->forgotten = evtimer_new(vm->base, on_forgotten, vm);
	if (!t->forgotten) {
		free(t);
		return NULL;
	}
	pthread_mutex_init(&t->lock, NULL);
	vm->trace = t;
	return t;
}

void vm_trace_destroy(struct vm *vm)
{
	struct vm_trace *t = vm->trace;

	if (!t)
		return;
	set_what(vm, 0);
	event_free(t->forgotten);
	pthread_mutex_destroy(&t->lock);
	free(t);
	vm->trace = NULL;
}

/* ---- telling ---- */

struct trace_filter {
	int64_t vcpu;	    /* -1: any */
	const char *result; /* NULL: any; exits do not pass */
	const char *reason; /* NULL: any; faults do not pass */
	uint64_t start, end;
};

static const char *result_name(int result)
{
	static const char *const names[] = {
		[MMU_RETRY] = "retry",	       [MMU_EMULATE] = "emulate",
		[MMU_INJECT] = "inject",       [MMU_MMIO] = "mmio",
		[MMU_WAIT] = "wait",	       [MMU_NESTED_EXIT] = "nested-exit",
		[MMU_RING_FULL] = "ring-full",
	};

	return result >= 0 && result < (int)ARRAY_SIZE(names) ? names[result] : "error";
}

static bool passes(const struct trace_filter *f, const struct event_note *n)
{
	uint64_t addr = n->is_exit ? n->exit.addr : n->fault.addr;
	uint32_t vcpu = n->is_exit ? n->exit.vcpu : n->fault.vcpu;

	if ((f->vcpu >= 0 && f->vcpu != vcpu) || addr < f->start || addr > f->end)
		return false;
	if (n->is_exit)
		return !f->result && (!f->reason || !strcmp(f->reason, n->exit.reason));
	return !f->reason && (!f->result || !strcmp(f->result, result_name(n->fault.result)));
}

/* "wu": what the access was. */
static void put_kind(struct json_object *o, uint32_t access)
{
	char text[3] = {access & MMU_ACC_FETCH	 ? 'x'
			: access & MMU_ACC_WRITE ? 'w'
						 : 'r',
			access & MMU_ACC_USER ? 'u' : 's'};

	put_string(o, "access", text);
}

static struct json_object *note_json(const struct event_note *n, uint64_t seq)
{
	struct json_object *o = json_object_new_object();

	put_u64(o, "seq", seq);
	put_string(o, "kind", n->is_exit ? "exit" : "fault");
	put_u64(o, "vcpu", n->is_exit ? n->exit.vcpu : n->fault.vcpu);
	if (n->is_exit) {
		put_string(o, "reason", n->exit.reason);
		put_addr(o, "rip", n->exit.rip);
		put_addr(o, "addr", n->exit.addr);
		if (n->exit.gva)
			put_addr(o, "gva", n->exit.gva);
		put_addr(o, "info", n->exit.info);
		put_u64(o, "icount", n->exit.icount);
		return o;
	}
	put_addr(o, "addr", n->fault.addr);
	put_kind(o, n->fault.access);
	put_bool(o, "present", n->fault.flags & MMU_PF_PRESENT);
	put_bool(o, "table", n->fault.flags & MMU_PF_TABLE);
	put_string(o, "result", result_name(n->fault.result));
	if (n->fault.result < 0)
		put(o, "errno", json_object_new_int(-n->fault.result));
	if (n->fault.gpa)
		put_addr(o, "gpa", n->fault.gpa);
	if (n->fault.result == MMU_INJECT)
		put_addr(o, "error_code", n->fault.error_code);
	put_bool(o, "fixed", n->fault.fixed);
	put_bool(o, "write_tracked", n->fault.write_tracked);
	return o;
}

/* Events after @since that pass, at most @max, copied under the lock in pieces. */
static void put_events(struct json_object *o, struct vm_trace *t, const struct trace_filter *f,
		       uint64_t since, size_t max)
{
	struct json_object *all = json_object_new_array();
	uint64_t at = since, lost = 0;
	struct event_note n;
	bool more = true;

	while (more && json_object_array_length(all) < max) {
		pthread_mutex_lock(&t->lock);
		at = MIN(at, t->last);
		more = at < t->last;
		if (t->last - at > EVENTS_MAX) {
			lost += t->last - at - EVENTS_MAX;
			at = t->last - EVENTS_MAX;
		}
		if (more)
			n = t->ring[++at % EVENTS_MAX];
		pthread_mutex_unlock(&t->lock);
		if (more && passes(f, &n))
			json_object_array_add(all, note_json(&n, at));
	}
	put(o, "events", all);
	put_u64(o, "next", at);
	put_u64(o, "lost", lost);
}

static uint64_t last_of(struct vm_trace *t)
{
	uint64_t last;

	pthread_mutex_lock(&t->lock);
	last = t->last;
	pthread_mutex_unlock(&t->lock);
	return last;
}

static const char *const whats[] = {"off", "faults", "exits", "all", NULL};

void handle_mmu_trace(struct api_call *call)
{
	const struct timeval soon = {.tv_sec = FORGOTTEN_S};
	const char *what = api_call_string(call, "what");
	struct trace_filter f = {
		.vcpu = api_call_int(call, "vcpu", -1),
		.result = api_call_string(call, "result"),
		.reason = api_call_string(call, "reason"),
		.start = api_call_addr(call, "start", 0),
		.end = api_call_addr(call, "end", ~0ull),
	};
	struct vm *vm = vm_of_call(call);
	struct vm_trace *t = vm ? trace_of(vm) : NULL;
	struct json_object *o;
	int64_t since;

	if (!vm || (f.vcpu >= 0 && !vcpu_of_call(call, vm)))
		return;
	if (!t) {
		api_call_fail(call, API_KIND_INTERNAL, "out of memory");
		return;
	}
	/* "all" is what there is to tell: exits to us. */
	if (what && !strcmp(what, "faults") && vm_mmu_is_kernels(vm)) {
		api_call_fail(call, API_KIND_NOT_SUPPORTED,
			      "engine kvm: the kernel deals with faults and tells nobody; exits "
			      "can be traced");
		return;
	}
	since = api_call_int(call, "since", (int64_t)last_of(t));
	/* The index in @whats is a mask of WHAT_*. */
	for (unsigned i = 0; what && whats[i]; i++)
		if (!strcmp(what, whats[i]))
			set_what(vm, i);
	if (t->what)
		evtimer_add(t->forgotten, &soon);
	else
		evtimer_del(t->forgotten);
	o = json_object_new_object();
	put_string(o, "what", whats[t->what]);
	put_events(o, t, &f, (uint64_t)since, (size_t)api_call_int(call, "max", 1024));
	api_call_reply(call, o, -1);
}
