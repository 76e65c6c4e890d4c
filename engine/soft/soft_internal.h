/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The soft engine's inside: what its files share. */
#ifndef UMBRA_ENGINE_SOFT_INTERNAL_H
#define UMBRA_ENGINE_SOFT_INTERNAL_H

#include <pthread.h>

#include "engine/engine.h"
#include "engine/engine_internal.h"
#include "engine/guest_mem.h"

/* vcpu.requests */
#define SOFT_REQ_FLUSH_ALL    BIT(0)
#define SOFT_REQ_FLUSH_FRAMES BIT(1)
#define SOFT_REQ_NMI	      BIT(2)
#define SOFT_REQ_INIT	      BIT(3)
#define SOFT_REQ_SIPI	      BIT(4)
#define SOFT_REQ_KICK	      BIT(5) /* vcpu_run() returns */

#define SOFT_FLUSH_QUEUE 16

struct engine_vcpu {
	struct engine_vm *vm;
	unsigned id;
	struct cpu *cpu;
	struct mmu_vcpu *mmu;

	/*
	 * in_guest is set before requests is read and cleared after the processor has stopped; a
	 * requester sets a bit first, reads in_guest afterwards. So either the vCPU sees the bit
	 * before it enters, or the requester sees it inside and kicks.
	 */
	uint32_t requests;
	uint32_t in_guest;
	uint32_t entries_seq; /* counts entries, so that a requester knows that one has ended */
	/*
	 * The same for the modification log, which is emptied after guest mode is left: busy is set
	 * before in_guest; seq counts.
	 */
	uint32_t pml_busy, pml_seq;
	/*
	 * Waiting outside guest mode for somebody else (MMU_RING_FULL, MMU_WAIT): until wakes is no
	 * longer what it was before the MMU was asked, or there is a request.
	 */
	uint32_t wakes, waiting; /* atomic */
	uint32_t wakes_seen;
	pthread_mutex_t wait_lock;
	pthread_cond_t wait_cond;
	uint8_t sipi_vector;
	uint32_t nmis;	      /* sent, not looked at yet; atomic */
	unsigned nmi_pending; /* to be delivered: one latched by the processor, one by its APIC */

	pthread_mutex_t flush_lock;
	struct {
		hpa_t hpa;
		uint64_t len;
	} flush[SOFT_FLUSH_QUEUE];
	unsigned flush_count;

	struct mmu_root root;
	bool root_valid;
	struct guest_mem mem;

	/* The last two faults that the MMU said to try again, see retry() in exit.c. */
	struct {
		uint64_t icount, rip, addr[2];
		unsigned weight;
	} again;
	char error[160];
	struct engine_vcpu_stats stats;
	uint8_t *msr_bitmap; /* 4 KiB */
	uint64_t *pml;	     /* CPU_PML_ENTRIES */
	bool hold_irqs;	     /* a debugger steps */
};

struct engine_vm {
	struct engine_config config;
	struct cpu_domain *domain;
	struct mmu_vm *mmu;
	unsigned count;
	struct engine_vcpu *vcpus;
	struct engine_trace trace;
};

/* run.c */
enum engine_exit soft_vcpu_run(struct engine_vcpu *v, uint64_t budget);
void soft_request(struct engine_vcpu *v, uint32_t request);
/* Out of guest mode, or out of waiting, to look at everything again. Any thread. */
void soft_wake(struct engine_vcpu *v);
extern const struct mmu_ops soft_mmu_ops;

/* exit.c: what to do after an exit. */
enum soft_next {
	SOFT_RESUME,
	SOFT_HALT,
	SOFT_SHUTDOWN,
	SOFT_DEBUG,
	SOFT_WAIT,  /* for somebody else; then try again */
	SOFT_ERROR, /* v->error is filled */
};
enum soft_next soft_handle_exit(struct engine_vcpu *v, const struct cpu_exit *exit);
/* The registers as the MMU wants them. */
void soft_mmu_regs(struct engine_vcpu *v, struct mmu_regs *ret_regs);
/* Tell it; cheap when nothing changed. */
void soft_sync_mmu(struct engine_vcpu *v);
/* Set the processor's controls for the machine's policy. */
void soft_set_controls(struct engine_vcpu *v);
void soft_new_cr3(struct engine_vcpu *v);
enum soft_next soft_fail(struct engine_vcpu *v, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* emulate.c */
void soft_emulate_init(struct engine_vcpu *v);
enum soft_next soft_emulate(struct engine_vcpu *v);

/* trace.c: tell of the exit. */
void soft_trace_exit(struct engine_vcpu *v, const struct cpu_exit *e);

#endif
