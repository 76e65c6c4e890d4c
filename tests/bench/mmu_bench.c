/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Work that the MMU feels, to run inside a guest, statically linked. The host paces it by the
 * console, so that it can read the machine's counters in between: for each piece "ready NAME UNITS"
 * is printed and a line awaited, then the work is done and "done NAME" printed.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compute.h"

#define PAGE	     4096u
#define MIB(n)	     ((size_t)(n) << 20)
#define TOUCH_PAGES  64u /* of a mapping that is made, touched and given back */
#define AREA_MIB     64u
#define AREA	     MIB(AREA_MIB)
#define COPY	     MIB(4)
#define COPY_APART   MIB(32)
#define WRITE_ROUNDS 8u

static void nothing(unsigned units)
{
	(void)units;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void fork_exit(unsigned units)
{
	for (unsigned k = 0; k < units; k++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
}

/* The child is this program again, which ends at once. */
static void fork_exec(unsigned units)
{
	static char *const argv[] = {"/mmu_bench", "0", NULL};
	static char *const envp[] = {NULL};

	for (unsigned k = 0; k < units; k++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (!pid) {
			execve("/proc/self/exe", argv, envp);
			_exit(1);
		}
		waitpid(pid, NULL, 0);
	}
}

static uint8_t *map(size_t size, int advice)
{
	uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	madvise(p, size, advice);
	return p;
}

static void mmap_touch(unsigned units)
{
	for (unsigned k = 0; k < units; k++) {
		uint8_t *p = map(TOUCH_PAGES * PAGE, MADV_NOHUGEPAGE);

		for (unsigned i = 0; i < TOUCH_PAGES; i++)
			p[i * PAGE] = 1;
		munmap(p, TOUCH_PAGES * PAGE);
	}
}

/* A byte there and back between two processes: two switches a unit. */
static void ping_pong(unsigned units)
{
	int there[2], back[2];
	char byte = 0;
	pid_t pid;

	if (pipe(there) || pipe(back))
		die("pipe");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		close(there[1]);
		while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
			;
		_exit(0);
	}
	for (unsigned k = 0; k < units; k++)
		if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
			die("pipe");
	close(there[1]);
	waitpid(pid, NULL, 0);
	close(there[0]);
	close(back[0]);
	close(back[1]);
}

struct line {
	struct line *next;
	uint64_t pad[7];
};

static struct line *lines;

/* One cycle through all lines of the area. */
static void lines_prepare(int advice)
{
	uint64_t n = AREA / sizeof(*lines), at = 0;

	lines = (struct line *)map(AREA, advice);
	for (uint64_t k = 0; k < n; k++) {
		uint64_t to = (at * 5 + 12345) % n; /* n is a power of two */

		lines[at].next = &lines[to];
		at = to;
	}
}

static void lines_prepare_small(void)
{
	lines_prepare(MADV_NOHUGEPAGE);
}

static void lines_prepare_large(void)
{
	lines_prepare(MADV_HUGEPAGE);
}

static void lines_finish(void)
{
	munmap(lines, AREA);
}

/* Dependent loads, a unit is 1,000 of them. */
static void random_access(unsigned units)
{
	const struct line *l = lines;

	for (unsigned k = 0; k < units * 1000; k++)
		l = l->next;
	sink = (uint64_t)(uintptr_t)l;
}

static uint8_t *bytes;

static void copy_prepare(void)
{
	bytes = map(COPY_APART + COPY, MADV_NOHUGEPAGE);
	memset(bytes, 1, COPY_APART + COPY);
}

static void copy_finish(void)
{
	munmap(bytes, COPY_APART + COPY);
}

/* Words copied to 32 MiB further: both ends collide in a TLB that low address bits index. */
static void copy_apart(unsigned units)
{
	for (unsigned k = 0; k < units; k++)
		for (size_t at = 0; at < COPY; at += 8)
			*(volatile uint64_t *)(bytes + COPY_APART + at) =
				*(volatile uint64_t *)(bytes + at);
}

static void write_prepare(void)
{
	bytes = map(AREA, MADV_NOHUGEPAGE);
	memset(bytes, 1, AREA);
}

static void write_finish(void)
{
	munmap(bytes, AREA);
}

/* Every word of the area once, a unit is a MiB. */
static void write_all(unsigned units)
{
	for (size_t at = 0; at < MIB(units); at += 8)
		*(volatile uint64_t *)(bytes + at) = at;
}

static void sieve_units(unsigned units)
{
	for (unsigned k = 0; k < units; k++)
		sieve();
}

/* A unit is 64 KiB. */
static void sha256_units(unsigned units)
{
	for (unsigned k = 0; k < units; k++)
		sha256();
}

static const struct work {
	const char *name;
	void (*run)(unsigned units);
	unsigned units, rounds; /* units of a round; the host goes between rounds */
	void (*prepare)(void);
	void (*finish)(void);
} work[] = {
	{"nothing", nothing, 1, 4, NULL, NULL},
	{"sha256", sha256_units, 24, 1, sha256, NULL},
	{"sieve", sieve_units, 4, 1, sieve, NULL},
	{"fork+exit", fork_exit, 300, 1, NULL, NULL},
	{"fork+exec", fork_exec, 200, 1, NULL, NULL},
	{"mmap-touch-unmap", mmap_touch, 300, 1, NULL, NULL},
	{"context-switch", ping_pong, 4000, 1, NULL, NULL},
	{"random-4k", random_access, 4000, 1, lines_prepare_small, lines_finish},
	{"random-2m", random_access, 4000, 1, lines_prepare_large, lines_finish},
	{"copy-32M-apart", copy_apart, 24, 1, copy_prepare, copy_finish},
	{"write", write_all, AREA_MIB, WRITE_ROUNDS, write_prepare, write_finish},
	{"write-logged", write_all, AREA_MIB, WRITE_ROUNDS, write_prepare, write_finish},
	{"write-pml", write_all, AREA_MIB, WRITE_ROUNDS, write_prepare, write_finish},
};

static void measure(const struct work *w, unsigned units)
{
	char line[64];

	if (w->prepare)
		w->prepare();
	for (unsigned round = 0; round < w->rounds; round++) {
		printf("ready %s %u\n", w->name, units);
		fflush(stdout);
		if (!fgets(line, sizeof(line), stdin))
			exit(1);
		w->run(units);
		printf("done %s\n", w->name);
		fflush(stdout);
	}
	if (w->finish)
		w->finish();
}

/* mmu_bench [TIMES [NAME...]]: all pieces, or those named, with so many times the units. */
int main(int argc, char **argv)
{
	unsigned times = argc > 1 ? (unsigned)atoi(argv[1]) : 1;

	if (!times) /* the child of fork+exec */
		return 0;
	for (unsigned k = 0; k < sizeof(work) / sizeof(work[0]); k++) {
		bool wanted = argc <= 2, whole = work[k].run == write_all;

		for (int i = 2; i < argc; i++)
			wanted |= !strcmp(argv[i], work[k].name);
		if (wanted)
			measure(&work[k], whole ? work[k].units : work[k].units * times);
	}
	return 0;
}
