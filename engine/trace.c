/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exits as a stream: one listener a machine. */
#include "engine/engine_internal.h"

void engine_trace_init(struct engine_trace *t)
{
	*t = (struct engine_trace){0};
	pthread_rwlock_init(&t->lock, NULL);
}

void engine_trace_finish(struct engine_trace *t)
{
	pthread_rwlock_destroy(&t->lock);
}

void engine_trace_set(struct engine_trace *t, engine_trace_fn fn, void *arg)
{
	pthread_rwlock_wrlock(&t->lock);
	t->fn = fn;
	t->arg = arg;
	__atomic_store_n(&t->on, fn != NULL, __ATOMIC_RELAXED);
	pthread_rwlock_unlock(&t->lock);
}

void engine_trace_tell(struct engine_trace *t, const struct engine_trace_event *e)
{
	pthread_rwlock_rdlock(&t->lock);
	if (t->fn)
		t->fn(t->arg, e);
	pthread_rwlock_unlock(&t->lock);
}
