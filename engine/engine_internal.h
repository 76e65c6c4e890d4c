/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the engines share. */
#ifndef UMBRA_ENGINE_INTERNAL_H
#define UMBRA_ENGINE_INTERNAL_H

#include <pthread.h>

#include "engine/engine.h"

/* trace.c: whoever listens to exits. Who tells reads the pair under the lock, and takes that only
 * when @on says so. */
struct engine_trace {
	bool on; /* atomic */
	pthread_rwlock_t lock;
	engine_trace_fn fn;
	void *arg;
};
void engine_trace_init(struct engine_trace *t);
void engine_trace_finish(struct engine_trace *t);
/* As engine_ops.set_trace. */
void engine_trace_set(struct engine_trace *t, engine_trace_fn fn, void *arg);
void engine_trace_tell(struct engine_trace *t, const struct engine_trace_event *e);
static inline bool engine_trace_on(const struct engine_trace *t)
{
	return unlikely(__atomic_load_n(&t->on, __ATOMIC_RELAXED));
}

/* peek.c: as engine_ops.vcpu_peek; @mmu knows the registers of now. */
unsigned engine_peek(struct mmu_vcpu *mmu, gva_t gva, void *data, unsigned len);

#endif
