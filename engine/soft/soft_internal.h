/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The soft engine's inside: what its files share. */
#ifndef UMBRA_ENGINE_SOFT_INTERNAL_H
#define UMBRA_ENGINE_SOFT_INTERNAL_H

#include <pthread.h>

#include "engine/engine.h"

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
	uint64_t mmu_cr3; /* the one that the MMU was told of, inside soft_emulate() */

	/* The last two faults that the MMU said to try again, see soft_no_progress(). */
	struct {
		uint64_t icount, rip, addr[2];
		unsigned weight;
	} again;
	char error[160];
	struct engine_vcpu_stats stats;
	uint8_t *msr_bitmap; /* 4 KiB */
};

struct engine_vm {
	struct engine_config config;
	struct cpu_domain *domain;
	struct mmu_vm *mmu;
	unsigned count;
	struct engine_vcpu *vcpus;
	enum mmu_policy policy; /* what the controls of the vCPUs are set up for */
};

/* run.c */
enum engine_exit soft_vcpu_run(struct engine_vcpu *v, uint64_t budget);
void soft_request(struct engine_vcpu *v, uint32_t request);
extern const struct mmu_ops soft_mmu_ops;

/* exit.c: what to do after an exit. */
enum soft_next {
	SOFT_RESUME,
	SOFT_HALT,
	SOFT_SHUTDOWN,
	SOFT_DEBUG,
	SOFT_ERROR, /* v->error is filled */
};
enum soft_next soft_handle_exit(struct engine_vcpu *v, const struct cpu_exit *exit);
/* The registers as the MMU wants them; cheap when nothing changed. */
void soft_sync_mmu(struct engine_vcpu *v);
/* Set the processor's controls for the machine's policy. */
void soft_set_controls(struct engine_vcpu *v);
void soft_new_cr3(struct engine_vcpu *v);
enum soft_next soft_fail(struct engine_vcpu *v, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* emulate.c */
enum soft_next soft_emulate(struct engine_vcpu *v);

#endif
