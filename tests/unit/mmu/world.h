/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The property tests' world: a machine with tables, slots and logs, and a model of what its
 * processors may have cached and its clients must be told. Shares no code with mmu/.
 */
#ifndef UMBRA_TESTS_WORLD_H
#define UMBRA_TESTS_WORLD_H

#include "machine.h"

/*
 * The first slot's frames: 0..15 are meant for tables of levels 1..4 in turn, 16..19 of level 5, 20
 * and 21 for PDPTEs, 24..39 for tables of an L1's EPT (levels in turn again); the rest is data.
 */
#define NR_TABLES  20u
#define PDPT_FRAME 20u
#define EPT_FRAME  24u
#define EPT_TABLES 16u
#define LOW_PAGES  64u

enum { SLOT_LOW, SLOT_BIG, SLOT_ROM, SLOT_GUEST, SLOT_HIGH, NR_WSLOTS };
#define BIG_GPA	   0x400000ull
#define BIG_PAGES  1024u
#define ROM_GPA	   0x1000000ull
#define ROM_PAGES  4u
#define GUEST_GPA  ((uint64_t)LOW_PAGES << 12)
#define HIGH_GPA   0x100000000ull /* PSE-36 and PAE reach it */
#define HIGH_PAGES 512u

#define NR_GVAS	   40u
#define NR_NGPAS   48u
#define NR_PCIDS   3u
#define NR_EPTS	   3u
#define NR_CLIENTS 3u
#define HISTORY	   32u
#define NR_SAID	   24u

/* Everything that a run is to have done or met; a kind that never happens is a hole in the test. */
#define WORLD_KINDS(X)                                                                             \
	X(shadow_none_ok)                                                                          \
	X(shadow_32_ok)                                                                            \
	X(shadow_32_fault)                                                                         \
	X(shadow_32_mmio)                                                                          \
	X(shadow_pae_ok)                                                                           \
	X(shadow_pae_fault)                                                                        \
	X(shadow_pae_mmio)                                                                         \
	X(shadow_4_ok)                                                                             \
	X(shadow_4_fault)                                                                          \
	X(shadow_4_mmio)                                                                           \
	X(shadow_5_ok)                                                                             \
	X(shadow_5_fault)                                                                          \
	X(shadow_5_mmio)                                                                           \
	X(ept_ok)                                                                                  \
	X(ept_fault)                                                                               \
	X(ept_mmio)                                                                                \
	X(npt_ok)                                                                                  \
	X(npt_fault)                                                                               \
	X(npt_mmio)                                                                                \
	X(nested_ok)                                                                               \
	X(nested_fault)                                                                            \
	X(nested_mmio)                                                                             \
	X(nested_violation)                                                                        \
	X(nested_misconfig)                                                                        \
	X(nested_stale)                                                                            \
	X(by_stale)                                                                                \
	X(by_emulation)                                                                            \
	X(by_nested_emulation)                                                                     \
	X(fault_reserved)                                                                          \
	X(fault_not_present)                                                                       \
	X(fault_rights)                                                                            \
	X(fault_key)                                                                               \
	X(fault_fetch)                                                                             \
	X(page_large)                                                                              \
	X(page_pse36)                                                                              \
	X(page_high)                                                                               \
	X(access_read)                                                                             \
	X(access_write)                                                                            \
	X(access_fetch)                                                                            \
	X(access_user)                                                                             \
	X(access_ac)                                                                               \
	X(access_implicit)                                                                         \
	X(write_to_table)                                                                          \
	X(table_by_guest)                                                                          \
	X(table_unpaged)                                                                           \
	X(table_by_emulator)                                                                       \
	X(table_by_cmpxchg)                                                                        \
	X(table_by_cmpxchg16)                                                                      \
	X(table_by_l0)                                                                             \
	X(table_refused)                                                                           \
	X(rewrite_used)                                                                            \
	X(intrusion)                                                                               \
	X(dma_copy)                                                                                \
	X(dma_window)                                                                              \
	X(invlpg)                                                                                  \
	X(invpcid)                                                                                 \
	X(cr3_flush)                                                                               \
	X(cr3_keep)                                                                                \
	X(cr3_pdptr_refused)                                                                       \
	X(registers)                                                                               \
	X(pkru)                                                                                    \
	X(width)                                                                                   \
	X(translate)                                                                               \
	X(translate_peek)                                                                          \
	X(translate_nested)                                                                        \
	X(slot_add)                                                                                \
	X(slot_delete)                                                                             \
	X(slot_move)                                                                               \
	X(slot_readonly)                                                                           \
	X(slot_writable)                                                                           \
	X(client_create)                                                                           \
	X(client_initially_set)                                                                    \
	X(client_destroy)                                                                          \
	X(client_watch)                                                                            \
	X(client_unwatch)                                                                          \
	X(log_get)                                                                                 \
	X(log_clear)                                                                               \
	X(log_take)                                                                                \
	X(log_pml)                                                                                 \
	X(log_protect)                                                                             \
	X(log_shared)                                                                              \
	X(log_note)                                                                                \
	X(ring_on)                                                                                 \
	X(ring_off)                                                                                \
	X(ring_harvest)                                                                            \
	X(ring_full)                                                                               \
	X(pml_undrained)                                                                           \
	X(policy_to_shadow)                                                                        \
	X(policy_to_tdp)                                                                           \
	X(policy_busy)                                                                             \
	X(mechanisms)                                                                              \
	X(zap_all)                                                                                 \
	X(unprotect)                                                                               \
	X(unload)                                                                                  \
	X(vcpu_replaced)                                                                           \
	X(enter_nested)                                                                            \
	X(enter_refused)                                                                           \
	X(leave_nested)                                                                            \
	X(invept_one)                                                                              \
	X(invept_all)

enum world_kind {
#define X(name) K_##name,
	WORLD_KINDS(X)
#undef X
		NR_KINDS
};

/* A translation that a processor may have cached. */
struct seen {
	uint64_t frame;
	uint32_t key;
	bool w, u, x, g, a, d;
};

struct history {
	unsigned n;
	bool any; /* overflown: anything goes */
	struct seen x[HISTORY];
};

struct ept_history {
	unsigned n;
	bool any;
	struct oracle_ept x[HISTORY / 4];
};

struct world {
	struct machine m;
	uint64_t rng, seed, op;
	const char *what;
	char said[NR_SAID][256]; /* the last operations */
	uint64_t gva[NR_GVAS], ngpa[NR_NGPAS];
	unsigned hot, hot_cpu; /* what most operations are about for a while */
	struct history past[NR_CPUS][NR_PCIDS][NR_GVAS];
	struct ept_history ept_past[NR_CPUS][NR_EPTS][NR_NGPAS];
	bool ept_stale[NR_CPUS][NR_EPTS]; /* changed since flushed: anything goes elsewhere */
	uint64_t eptp[NR_EPTS];
	bool exec_only;
	bool changed;		       /* memory or registers, since the last snapshot */
	uint64_t low[LOW_PAGES * 512]; /* as it was then */

	struct dirty_client *client[NR_CLIENTS];
	bool all[NR_CLIENTS], initially[NR_CLIENTS];
	bool watching[NR_CLIENTS][NR_WSLOTS];
	bool dirty[NR_CLIENTS][NR_WSLOTS][BIG_PAGES];
	int ring_client; /* or -1 */
	uint64_t shared[BIG_PAGES / 64], summary[1];
	bool is_shared;
	uint64_t truly_dirty, told_dirty, forgotten;

	/* Amid its operation another vCPU may store; NULL: none may. */
	const struct cpu *actor;
	bool intruded;
	bool undrained;
	uint64_t count[NR_KINDS];
};

/* ---- chance ---- */

uint64_t rnd(struct world *w);
uint64_t below(struct world *w, uint64_t n);
bool chance(struct world *w, unsigned percent);
struct cpu *any_cpu(struct world *w);
unsigned any_gva(struct world *w);

/* ---- telling ---- */

#define HIT(w, kind) ((w)->count[K_##kind]++)
/* What this operation does, for when it fails. */
__attribute__((format(printf, 2, 3))) void say(struct world *w, const char *fmt, ...);
void world_tell(const struct world *w);
#define WRONG(w, ...) fail_msg(__VA_ARGS__)
#define LL(x)	      ((unsigned long long)(x))

/* ---- the model ---- */

unsigned cpu_number(const struct cpu *c);
struct oracle_regs oracle_regs_of(const struct cpu *c);
struct region *region_of(struct world *w, uint64_t hpa);
struct region *region_by_id(struct world *w, uint32_t id);
bool region_refuses(struct world *w, gpa_t gpa); /* nothing there, or read-only */
bool model_read(void *priv, uint64_t gpa, unsigned size, uint64_t *value);
/* By the tables of now; a vCPU in L2: its own tables must not be asked so (see compose()). */
void translate_now(struct world *w, unsigned cpu, uint64_t gva, struct oracle_xlat *x);
void ept_now(struct world *w, unsigned ept, uint64_t ngpa, struct oracle_ept *x);

/* What an access of an L2 comes to by the tables of now. */
struct composed {
	struct oracle_xlat x; /* frame: ngpa */
	bool nested_exit, misconfig;
	uint64_t ngpa; /* of the exit */
	uint32_t code; /* of L2's fault, with ORACLE_FAULT; of the exit the qualification */
	gpa_t gpa;
};
void compose(struct world *w, const struct cpu *c, uint64_t la, unsigned access,
	     struct composed *out);

/* Note everything that may be cached now, if anything has changed. */
void snapshot(struct world *w);
enum keep { KEEP_GLOBALS, KEEP_NOTHING, KEEP_OTHERS /* only globals go */ };
void forget(struct world *w, unsigned cpu, unsigned pcid, unsigned gva, enum keep keep);
void forget_pcid(struct world *w, unsigned cpu, unsigned pcid, enum keep keep);
void forget_all(struct world *w, unsigned cpu);
void forget_ept(struct world *w, unsigned cpu, unsigned ept);
void share_globals(struct world *w, unsigned cpu);
/* Is the outcome of an access (no fault) one of a translation that may be cached? */
void check_outcome(struct world *w, struct cpu *c, unsigned g, uint64_t la, unsigned access,
		   const struct outcome *o);

void world_init(struct world *w, uint64_t seed);
void world_finish(struct world *w);

/* ---- what tables may hold ---- */

gpa_t table_of_level(struct world *w, unsigned level);
gpa_t ept_of_level(struct world *w, unsigned level);
unsigned level_of(gpa_t gpa);
bool is_ept_table(gpa_t gpa);
/* What a guest would put into the table at @gpa, entry @index; now and then something else. */
uint64_t any_entry(struct world *w, gpa_t gpa, unsigned index);
/* One that leads on and forbids nothing. */
uint64_t good_entry(struct world *w, gpa_t gpa, unsigned index);
unsigned any_index(struct world *w);
uint64_t any_cr3(struct world *w, const struct mmu_regs *r);

#endif
