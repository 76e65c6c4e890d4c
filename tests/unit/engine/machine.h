/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine of an engine's for its tests: RAM, tables, and a host that records. */
#ifndef UMBRA_TESTS_ENGINE_MACHINE_H
#define UMBRA_TESTS_ENGINE_MACHINE_H

#include "engine/engine.h"

#define M_RAM	   MIB(32)
#define M_GDT	   0x1000ull
#define M_IDT	   0x2000ull
#define M_TABLES   0x10000ull /* identity map of 1 GiB; the root is here */
#define M_PT	   0x40000ull /* the tables of M_FAR: PT, then whatever the test needs */
#define M_STACK	   0x80000ull
#define M_CODE	   0x100000ull
#define M_HANDLERS 0x120000ull /* HLT, 16 bytes apart, by vector */
#define M_DATA	   0x200000ull
#define M_FAR	   0x20000000ull /* linear; 2 MiB mapped by 4-KiB entries at M_PT, none present */
#define M_MMIO	   0x10000000ull /* no memory; in the identity map */

#define M_PORT_TEXT 0xe9 /* bytes written go to machine.text */
#define M_PORT_STOP 0xf4 /* an access makes vcpu_run() return */

enum m_mode { M_LONG, M_PAE, M_32 };

struct machine {
	const struct engine_ops *ops;
	struct engine_vm *vm;
	struct mmu_vm *mmu;
	struct engine_cpu_model model;
	uint8_t *ram;
	enum m_mode mode;

	/* What the host saw; atomic where another thread looks. */
	unsigned pio_count, msr_count;
	uint32_t mmio_count;
	struct {
		uint16_t port;
		bool in;
		unsigned size;
		uint32_t data;
	} pio;
	struct {
		gpa_t gpa;
		bool write;
		unsigned size;
		uint64_t data;
	} mmio;
	char text[256]; /* what came out of M_PORT_TEXT */
	size_t text_len;
	bool stop_on_mmio;   /* MMIO makes vcpu_run() return */
	uint64_t read_value; /* what ports, MMIO and MSRs answer */
	bool msr_gp;	     /* but MSRs do not: #GP */
	int kvm_fd;	     /* -1: the soft engine's */
	int irq;	     /* atomic: the vector that is pending, or -1 */
};

struct m_options {
	enum mmu_policy policy;
	unsigned vcpus; /* 0: 1 */
	uint32_t disable;
	/* The kvm engine, with the host's clock; then: */
	bool kvm, help;
	enum engine_irqchip irqchip;
};

/* What records; its priv is a struct machine. */
extern const struct engine_host m_host;

/* Aborts when it cannot. Soft: clock "instructions". RAM is slot 0 at 0. */
struct machine *m_create(const struct m_options *o);
/* The same, but NULL with a sentence when the engine cannot be made. */
struct machine *m_try_create(const struct m_options *o, struct engine_error *err);
/* Why this host cannot run tests of the kvm engine; NULL: it can. */
const char *m_kvm_missing(void);
/* First thing in a test that needs it: skipped, and said why. After <cmocka.h>. */
#define NEEDS_KVM                                                                                  \
	do {                                                                                       \
		if (m_kvm_missing()) {                                                             \
			print_message("SKIP: %s\n", m_kvm_missing());                              \
			skip();                                                                    \
		}                                                                                  \
	} while (0)
void m_destroy(struct machine *m);
struct engine_vcpu *m_vcpu(struct machine *m, unsigned n);
/* vCPU @n at M_CODE + @offset in @mode, CPL 0, RBX = M_DATA. Makes the tables for the mode. */
void m_start(struct machine *m, unsigned n, enum m_mode mode, uint64_t offset);
/* The same, but false with the engine's words when it fails. */
bool m_try_start(struct machine *m, unsigned n, enum m_mode mode, char *why, size_t size);
void m_code(struct machine *m, uint64_t offset, const uint8_t *code, const uint8_t *end);
#define m_text(m, offset, name) m_code(m, offset, name, name##_end)
/* The entry for M_FAR + (@page << 12), as the mode has it. */
void m_map(struct machine *m, unsigned page, uint64_t entry);
/* The soft engine's only. */
struct cpu_state *m_state(struct machine *m, unsigned n);
static inline uint32_t *m_word(struct machine *m, gpa_t gpa)
{
	return (uint32_t *)(m->ram + gpa);
}

#endif
