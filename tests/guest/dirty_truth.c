/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes memory in every way there is, in rounds, and records in itself which pages it wrote. */
#include "dirty_truth.h"

#include "kit/kit.h"

#define HOT    16
#define SPACES 2
#define TABLES 8 /* of each level */

#define ALIAS KIT_WINDOW(1)
#define TREE  KIT_WINDOW(2)

#define HOT_WRITES	6000
#define HOT_WRITES_SLOW 320 /* where a kernel's emulator carries out each */

static struct truth *truth;
static unsigned hot_writes;
static uint8_t *cold, *hot, *code;
static uint64_t *space[SPACES];
static uint64_t *pd[TABLES], *pt[TABLES];
static uint64_t seeds[TRUTH_CPUS] = {0x9e3779b97f4a7c15, 0xd1b54a32d192ed03};

static void stamp(const volatile void *at, uint32_t round)
{
	__atomic_store_n(&truth->stamped[(uint64_t)at >> 12], round, __ATOMIC_RELAXED);
}

static uint64_t random_page(unsigned cpu)
{
	return kit_random(&seeds[cpu]) % TRUTH_COLD;
}

/* By the large identity mapping, and by one of 4-KiB pages. */
static void write_plain(unsigned cpu, uint32_t round)
{
	for (unsigned k = 0; k < 48; k++) {
		uint64_t *page = (uint64_t *)(cold + random_page(cpu) * PAGE);

		stamp(page, round);
		page[TRUTH_WORD_PLAIN + cpu] = round;
	}
	for (unsigned k = 0; k < 16; k++) {
		uint64_t at = random_page(cpu) * PAGE;

		stamp(cold + at, round);
		kit_at(ALIAS + at)[TRUTH_WORD_ALIAS + cpu] = round;
	}
}

/* More pages at once than a modification log of 512 entries holds. */
static void write_all(unsigned cpu, uint32_t round)
{
	for (uint64_t k = 0; k < TRUTH_COLD; k++) {
		stamp(cold + k * PAGE, round);
		kit_at((uint64_t)cold + k * PAGE)[TRUTH_WORD_PLAIN + cpu] = round;
	}
}

/* Again and again, while the clients clear. */
static void write_hot(unsigned cpu, uint32_t round)
{
	for (unsigned k = 0; k < hot_writes; k++) {
		uint64_t *page = (uint64_t *)(hot + kit_random(&seeds[cpu]) % HOT * PAGE);

		stamp(page, round);
		page[cpu]++;
		if (k % 16)
			continue;
		__atomic_fetch_add(&page[8], k, __ATOMIC_SEQ_CST);
		__atomic_exchange_n(&page[9 + cpu], round, __ATOMIC_SEQ_CST);
	}
}

/*
 * Pages that are tables at the same time: stamps in entries that are not present, and entries whose
 * A and D bits the processor has to set anew.
 */
static void write_tables(unsigned cpu, uint32_t round)
{
	for (uint64_t k = 0; k < TABLES; k++) {
		uint64_t gva = TREE + (k << 30) + (uint64_t)cpu * PAGE, at = PT_FRAME & pt[k][cpu];

		kit_at(gva)[TRUTH_WORD_TABLE + cpu] = round;
		stamp((void *)at, round);
		pd[k][256 + cpu] = (uint64_t)round << 8;
		stamp(pd[k], round);
		pt[k][256 + cpu] = (uint64_t)round << 8;
		if (k % 2 == round % 2) {
			__atomic_fetch_and(&pt[k][cpu], ~(PT_A | PT_D), __ATOMIC_SEQ_CST);
			__atomic_fetch_and(&pd[k][0], ~PT_A, __ATOMIC_SEQ_CST);
			kit_invlpg(gva);
		}
		stamp(pt[k], round);
		if (k % 3 == round % 3)
			kit_at(gva)[TRUTH_WORD_TABLE + cpu] = round;
	}
}

/* Over the border of two pages. */
static void write_across(unsigned cpu, uint32_t round)
{
	uint8_t *border = cold + (1 + random_page(cpu) % (TRUTH_COLD - 1)) * PAGE;
	uint8_t *to = border - 1600 + cpu * 64;
	uint64_t count = 160;

	asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(round + cpu) : "memory");
	stamp(border - PAGE, round);
	to = border - 8 - cpu * 16;
	count = 4;
	asm volatile("rep movsq" : "+D"(to), "+c"(count) : "S"(&truth->round) : "memory");
	stamp(border, round);
	border = cold + (1 + random_page(cpu) % (TRUTH_COLD - 1)) * PAGE;
	stamp(border, round);
	stamp(border - PAGE, round);
	*(volatile uint64_t *)(border - 4) = (uint64_t)round << 32 | round;
	border = cold + (1 + random_page(cpu) % (TRUTH_COLD - 1)) * PAGE;
	stamp(border, round);
	stamp(border - PAGE, round);
	asm volatile(
		"movd %0, %%xmm0; pshufd $0, %%xmm0, %%xmm0; movups %%xmm0, -8(%1)" ::"r"(round),
		"r"(border)
		: "memory");
	border = cold + (1 + random_page(cpu) % (TRUTH_COLD - 1)) * PAGE;
	stamp(border, round);
	stamp(border - PAGE, round);
	to = border - 3;
	count = 6;
	asm volatile("rep insb" : "+D"(to), "+c"(count) : "d"(KIT_DEVICE_BYTES) : "memory");
}

/* A page of code, written and then executed: mov $imm, %eax; ret. */
static void write_code(unsigned cpu, uint32_t round)
{
	uint8_t *at = code + cpu * 64;
	uint32_t (*run)(void) = (uint32_t(*)(void))at;

	stamp(code, round);
	at[0] = 0xb8;
	*(volatile uint32_t *)(at + 1) = round;
	at[5] = 0xc3;
	kit_check(run() == round, "stale code");
}

/* Stand still till the next round: outside guest mode, or within, writing nothing. */
static void finish(unsigned cpu, uint32_t round)
{
	if (cpu != TRUTH_SPINNER(round)) {
		kit_device(KIT_ROUND_DONE, cpu);
		return;
	}
	__atomic_store_n(&truth->done, round, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&truth->round, __ATOMIC_SEQ_CST) == round &&
	       !__atomic_load_n(&truth->stop, __ATOMIC_SEQ_CST))
		kit_pause();
}

static void work(unsigned cpu)
{
	while (!__atomic_load_n(&truth->stop, __ATOMIC_SEQ_CST)) {
		uint32_t round = __atomic_load_n(&truth->round, __ATOMIC_SEQ_CST);

		kit_cr3(space[round % SPACES]);
		if (round % 16 == 8 + cpu)
			write_all(cpu, round);
		write_plain(cpu, round);
		write_tables(cpu, round);
		if (cpu == round % TRUTH_CPUS)
			kit_device(KIT_ROUND_PART, cpu);
		write_hot(cpu, round);
		if (cpu != round % TRUTH_CPUS)
			kit_device(KIT_ROUND_PART, cpu);
		write_across(cpu, round);
		write_tables(cpu, round);
		write_code(cpu, round);
		write_plain(cpu, round);
		finish(cpu, round);
	}
	kit_cr3(kit_pml4);
}

int payload(const char *cmdline)
{
	hot_writes = *cmdline == 's' ? HOT_WRITES_SLOW : HOT_WRITES;
	truth = kit_pages((sizeof(*truth) + PAGE - 1) / PAGE);
	cold = kit_pages(TRUTH_COLD);
	hot = kit_pages(HOT);
	code = kit_page();
	truth->round = 1;
	truth->cold = (uint32_t)((uint64_t)cold >> 12);
	for (uint64_t k = 0; k < TRUTH_COLD; k++)
		kit_map(kit_pml4, ALIAS + k * PAGE, (uint64_t)cold + k * PAGE, PT_P | PT_W);
	for (uint64_t k = 0; k < TABLES; k++) {
		uint64_t gva = TREE + (k << 30);

		for (unsigned cpu = 0; cpu < TRUTH_CPUS; cpu++)
			kit_map(kit_pml4, gva + cpu * PAGE, (uint64_t)cold + (k * 2 + cpu) * PAGE,
				PT_P | PT_W);
		pd[k] = (uint64_t *)((uint64_t)kit_entry_of(kit_pml4, gva, 2) & PT_FRAME);
		pt[k] = (uint64_t *)((uint64_t)kit_entry_of(kit_pml4, gva, 1) & PT_FRAME);
	}
	for (unsigned k = 0; k < SPACES; k++) {
		space[k] = kit_space();
		space[k][1] = kit_pml4[1];
		space[k][2] = kit_pml4[2];
	}
	kit_on_cpus(TRUTH_CPUS, work);
	return 0;
}
