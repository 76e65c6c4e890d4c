/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A kit for 64-bit payloads in C, without a library: start, processors, tables, output, exit. */
#ifndef KIT_H
#define KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kit/device.h"
#include "kit/layout.h"

/*
 * The payload's own. Runs on processor 0 in long mode at CPL 0, interrupts off, CR0.WP set, the
 * first 4 GiB mapped to themselves by 2-MiB pages (PML4 entry 0; the others are free). What it
 * returns is the exit status: 0 is good (the machine's own status is then 1, as isa-debug-exit has
 * it). An exception ends the machine with KIT_EXCEPTION.
 */
int payload(const char *cmdline);
#define KIT_EXCEPTION 63

/* ---- output and end ---- */
void kit_text(const char *text);
void kit_number(uint64_t n);
void kit_hex(uint64_t n);
/* "name value\n" */
void kit_result(const char *name, uint64_t value);
_Noreturn void kit_exit(unsigned status);
/* Ends with status 1 and the text, unless @good. */
void kit_check(bool good, const char *text);

/* ---- processors ---- */
/* Start processors 1..n-1 in @fn(cpu), then run @fn(0); back when all have returned. Once. */
void kit_on_cpus(unsigned n, void (*fn)(unsigned cpu));
/* All @n processors are here. */
void kit_barrier(unsigned n);
/* How many the machine has, at most KIT_CPUS. */
unsigned kit_cpus(void);

/* ---- memory and tables ---- */
#define PAGE	 4096ull
#define PT_P	 1ull
#define PT_W	 2ull
#define PT_U	 4ull
#define PT_A	 0x20ull
#define PT_D	 0x40ull
#define PT_S	 0x80ull
#define PT_G	 0x100ull
#define PT_FRAME 0x000ffffffffff000ull

extern uint64_t kit_pml4[512];
/* A zeroed page; its address is its physical one. Ends the machine when there is none left. */
void *kit_page(void);
/* @n pages in a row, not touched. */
void *kit_pages(size_t n);
/* An address space of its own, which has what kit_pml4 has in entry 0. */
uint64_t *kit_space(void);
/* The entry for @gva at @level (1: PTE, 2: PDE, …), with the tables above made. */
uint64_t *kit_entry_of(uint64_t *pml4, uint64_t gva, unsigned level);
/* Map a 4-KiB page. */
void kit_map(uint64_t *pml4, uint64_t gva, uint64_t gpa, uint64_t bits);
/* A window of 512 GiB, which no other part uses: PML4 entry @n, 1..255. */
#define KIT_WINDOW(n) ((uint64_t)(n) << 39)

/* An entry of an IDT in long mode, and what LIDT takes. */
struct kit_gate {
	uint16_t low, selector, flags, middle;
	uint32_t high, reserved;
};
struct kit_pointer {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

static inline void kit_invlpg(uint64_t gva)
{
	asm volatile("invlpg (%0)" ::"r"(gva) : "memory");
}
static inline void kit_cr3(const uint64_t *pml4)
{
	asm volatile("mov %0, %%cr3" ::"r"(pml4) : "memory");
}
static inline void kit_pause(void)
{
	asm volatile("pause" ::: "memory");
}
static inline volatile uint64_t *kit_at(uint64_t gva)
{
	return (volatile uint64_t *)gva;
}
static inline void kit_outb(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static inline uint8_t kit_inb(uint16_t port)
{
	uint8_t value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void kit_out(uint16_t port, uint32_t value)
{
	asm volatile("out %0, %1" ::"a"(value), "Nd"(port) : "memory");
}
static inline uint32_t kit_in(uint16_t port)
{
	uint32_t value;

	asm volatile("in %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}
/* Ask the harness for something (kit/device.h); without a harness nothing happens. */
static inline void kit_device(uint32_t command, uint32_t argument)
{
	kit_out(KIT_DEVICE_ARGUMENT, argument);
	kit_out(KIT_DEVICE_COMMAND, command);
}

/* A fixed sequence of numbers. */
static inline uint64_t kit_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
