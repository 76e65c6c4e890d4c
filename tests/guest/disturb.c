/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disturb HOW EVERY DEFINITION: runs a machine and disturbs it again and again, about every EVERY
 * instructions (0: never), from the loop's thread as the control plane would: "hold" only stops the
 * vCPUs, "pause" pauses and resumes, "stats" queries, "policy" switches between shadow and TDP.
 * Prints what a run must keep (with clock "instructions") as JSON on stderr; the console is stdout.
 */
#include <event2/event.h>
#include <json-c/json.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/guest/harness.h"

struct disturb {
	struct harness h;
	void (*act)(struct vm *vm);
	uint64_t every, next; /* instructions, of the vCPU that has the most */
	uint64_t count;
	int fd;
	sem_t begun;
	bool busy; /* atomic: from the wish for a disturbance to its end */
};

static void act_hold(struct vm *vm)
{
	vcpus_hold(vm);
	vcpus_release(vm);
}

static void act_pause(struct vm *vm)
{
	struct api_error err;

	if (!vm_pause(vm, &err))
		vm_resume(vm, &err);
}

static void act_stats(struct vm *vm)
{
	struct json_object *stats = json_object_new_object();
	struct api_error err;

	vm_stats(vm, stats, &err);
	json_object_put(stats);
}

static void act_policy(struct vm *vm)
{
	enum mmu_policy now = mmu_get_policy(vm->mmu);

	vcpus_hold(vm);
	if (vm->engine->set_policy(vm->engine_vm,
				   now == MMU_POLICY_TDP ? MMU_POLICY_SHADOW : MMU_POLICY_TDP))
		die("the policy cannot be switched");
	vcpus_release(vm);
}

static const struct {
	const char *name;
	void (*act)(struct vm *vm);
} ways[] = {{"hold", act_hold}, {"pause", act_pause}, {"stats", act_stats}, {"policy", act_policy}};

/*
 * On the vCPU's thread, at an exit: have the loop disturb. It waits until the loop has begun, so
 * that their number depends on no clock; the vCPU then runs on until it is held, somewhere.
 */
static void on_exit_trace(void *arg, const struct engine_trace_event *e)
{
	struct disturb *d = arg;
	uint64_t one = 1;

	if (e->icount < d->next || __atomic_load_n(&d->busy, __ATOMIC_SEQ_CST))
		return;
	__atomic_store_n(&d->busy, true, __ATOMIC_SEQ_CST);
	d->next = e->icount + d->every;
	if (write(d->fd, &one, sizeof(one)) == sizeof(one))
		sem_wait(&d->begun);
}

static void on_wanted(evutil_socket_t fd, short what, void *arg)
{
	struct disturb *d = arg;
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0)
		return;
	sem_post(&d->begun);
	d->count++;
	d->act(d->h.vm);
	__atomic_store_n(&d->busy, false, __ATOMIC_SEQ_CST);
}

static void no_command(struct harness *h, uint32_t command, uint32_t argument)
{
}

static const struct harness_ops ops = {.command = no_command};

static void report(struct disturb *d, int status)
{
	static const char *const kept[] = {"instructions", "memory_sha256", "registers_sha256"};
	struct json_object *stats = harness_stats(&d->h), *out = json_object_new_object();

	for (unsigned k = 0; k < ARRAY_SIZE(kept); k++)
		json_object_object_add(out, kept[k],
				       json_object_get(json_object_object_get(stats, kept[k])));
	json_object_object_add(out, "status", json_object_new_int(status));
	json_object_object_add(out, "disturbed", json_object_new_uint64(d->count));
	fprintf(stderr, "%s\n", json_object_to_json_string_ext(out, JSON_C_TO_STRING_PLAIN));
	json_object_put(stats);
	json_object_put(out);
}

int main(int argc, char **argv)
{
	static struct disturb d;
	struct event *wanted;
	int status;

	if (argc != 4)
		die("usage: disturb hold|pause|stats|policy EVERY DEFINITION");
	for (unsigned k = 0; k < ARRAY_SIZE(ways); k++) {
		if (!strcmp(ways[k].name, argv[1]))
			d.act = ways[k].act;
	}
	if (!d.act)
		die("%s: no such way", argv[1]);
	d.every = d.next = strtoull(argv[2], NULL, 0);
	d.fd = eventfd(0, EFD_CLOEXEC);
	sem_init(&d.begun, 0, 0);
	harness_create(&d.h, argv[3], &ops, &d);
	wanted = event_new(d.h.base, d.fd, EV_READ | EV_PERSIST, on_wanted, &d);
	if (d.fd < 0 || !wanted || event_add(wanted, NULL))
		die("no event");
	if (d.every)
		d.h.vm->engine->set_trace(d.h.vm->engine_vm, on_exit_trace, &d);
	status = harness_run(&d.h);
	report(&d, status);
	event_free(wanted);
	harness_destroy(&d.h);
	sem_destroy(&d.begun);
	close(d.fd);
	return 0;
}
