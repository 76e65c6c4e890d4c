/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The payload kit: what kit.h promises. */
#include "kit/kit.h"

#define COM1	   0x3f8
#define DEBUG_EXIT 0xf4
#define APIC_ICR   0xfee00300ull
#define APIC_ICR2  0xfee00310ull
#define APIC_SVR   0xfee000f0ull
#define APIC_ID	   0xfee00020ull

struct multiboot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
};

static struct kit_gate idt[32];
struct kit_pointer kit_idt_pointer = {sizeof(idt) - 1, (uint64_t)idt};
extern const uint64_t kit_stubs[32];
extern const char kit_trampoline[], kit_trampoline_end[];
extern uint32_t kit_started;

static uint64_t heap = KIT_HEAP, heap_end;
static void (*cpu_fn)(unsigned cpu);
static uint32_t arrived, generation, returned;

void kit_entry(unsigned cpu, const struct multiboot_info *info);
void kit_exception(unsigned vector, uint64_t error, uint64_t rip, uint64_t cr2);

/* ---- output and end ---- */

static void put(char c)
{
	asm volatile("outb %0, %1" ::"a"(c), "Nd"((uint16_t)COM1));
}

void kit_text(const char *text)
{
	while (*text)
		put(*text++);
}

static void number(uint64_t n, unsigned base)
{
	char digits[24];
	unsigned k = 0;

	do {
		digits[k++] = "0123456789abcdef"[n % base];
		n /= base;
	} while (n);
	while (k)
		put(digits[--k]);
}

void kit_number(uint64_t n)
{
	number(n, 10);
}

void kit_hex(uint64_t n)
{
	kit_text("0x");
	number(n, 16);
}

void kit_result(const char *name, uint64_t value)
{
	kit_text(name);
	put(' ');
	kit_number(value);
	put('\n');
}

void kit_exit(unsigned status)
{
	kit_out(DEBUG_EXIT, status);
	for (;;)
		asm volatile("cli; hlt");
}

void kit_check(bool good, const char *text)
{
	if (good)
		return;
	kit_text("FAIL ");
	kit_text(text);
	put('\n');
	kit_exit(1);
}

void kit_exception(unsigned vector, uint64_t error, uint64_t rip, uint64_t cr2)
{
	kit_text("exception ");
	kit_number(vector);
	kit_text(" error ");
	kit_hex(error);
	kit_text(" rip ");
	kit_hex(rip);
	kit_text(" cr2 ");
	kit_hex(cr2);
	put('\n');
	kit_exit(KIT_EXCEPTION);
}

/* ---- start ---- */

static void fill_idt(void)
{
	for (unsigned k = 0; k < 32; k++)
		idt[k] = (struct kit_gate){
			.low = (uint16_t)kit_stubs[k],
			.selector = 8,
			.flags = 0x8e00,
			.middle = (uint16_t)(kit_stubs[k] >> 16),
			.high = (uint32_t)(kit_stubs[k] >> 32),
		};
}

/* The arguments behind the payload's own name. */
static const char *arguments(const struct multiboot_info *info)
{
	const char *c = info->flags & 4 ? (const char *)(uint64_t)info->cmdline : "";

	while (*c && *c != ' ')
		c++;
	return *c ? c + 1 : c;
}

void kit_entry(unsigned cpu, const struct multiboot_info *info)
{
	if (cpu) {
		cpu_fn(cpu);
		__atomic_fetch_add(&returned, 1, __ATOMIC_SEQ_CST);
		for (;;)
			asm volatile("cli; hlt");
	}
	fill_idt();
	heap_end = 0x100000 + ((uint64_t)info->mem_upper << 10);
	kit_exit((unsigned)payload(arguments(info)));
}

/* ---- processors ---- */

static void send_ipi(unsigned cpu, uint32_t what)
{
	*(volatile uint32_t *)APIC_ICR2 = cpu << 24;
	*(volatile uint32_t *)APIC_ICR = what;
	while (*(volatile uint32_t *)APIC_ICR & 1 << 12)
		kit_pause();
}

void kit_on_cpus(unsigned n, void (*fn)(unsigned cpu))
{
	char *to = (char *)KIT_TRAMPOLINE;

	for (const char *from = kit_trampoline; from < kit_trampoline_end; from++)
		*to++ = *from;
	cpu_fn = fn;
	*(volatile uint32_t *)APIC_SVR = 0x1ff;
	for (unsigned cpu = 1; cpu < n; cpu++) {
		send_ipi(cpu, 0x4500);
		send_ipi(cpu, 0x4600 | KIT_TRAMPOLINE >> 12);
	}
	while (__atomic_load_n(&kit_started, __ATOMIC_SEQ_CST) < n)
		kit_pause();
	fn(0);
	while (__atomic_load_n(&returned, __ATOMIC_SEQ_CST) < n - 1)
		kit_pause();
}

void kit_barrier(unsigned n)
{
	uint32_t now = __atomic_load_n(&generation, __ATOMIC_SEQ_CST);

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == n) {
		__atomic_store_n(&arrived, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&generation, now + 1, __ATOMIC_SEQ_CST);
		return;
	}
	while (__atomic_load_n(&generation, __ATOMIC_SEQ_CST) == now)
		kit_pause();
}

unsigned kit_cpus(void)
{
	uint32_t a = 1, b, c = 0, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	b = b >> 16 & 0xff; /* logical processors in the package */
	return b < 1 ? 1 : b > KIT_CPUS ? KIT_CPUS : b;
}

/* ---- memory and tables ---- */

void *kit_pages(size_t n)
{
	uint64_t at = heap;

	heap += n * PAGE;
	kit_check(heap <= heap_end, "out of memory");
	return (void *)at;
}

void *kit_page(void)
{
	uint64_t *page = kit_pages(1);

	for (unsigned k = 0; k < PAGE / 8; k++)
		page[k] = 0;
	return page;
}

uint64_t *kit_space(void)
{
	uint64_t *pml4 = kit_page();

	pml4[0] = kit_pml4[0];
	return pml4;
}

uint64_t *kit_entry_of(uint64_t *pml4, uint64_t gva, unsigned level)
{
	uint64_t *table = pml4;

	for (unsigned l = 4; l > level; l--) {
		uint64_t *entry = &table[gva >> (12 + 9 * (l - 1)) & 511];

		if (!(*entry & PT_P))
			*entry = (uint64_t)kit_page() | PT_P | PT_W | PT_U;
		table = (uint64_t *)(*entry & PT_FRAME);
	}
	return &table[gva >> (12 + 9 * (level - 1)) & 511];
}

void kit_map(uint64_t *pml4, uint64_t gva, uint64_t gpa, uint64_t bits)
{
	*kit_entry_of(pml4, gva, 1) = gpa | bits;
}

/* What the compiler may call. */
void *memset(void *at, int c, size_t n);
void *memcpy(void *restrict to, const void *restrict from, size_t n);

void *memset(void *at, int c, size_t n)
{
	void *to = at;

	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return at;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	void *at = to;

	asm volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n)::"memory");
	return to;
}
