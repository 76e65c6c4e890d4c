/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every way in which an interrupt comes: PIT and RTC through 8259s and I/O APIC, the local APIC's
 * timer in its modes, lines by edge and level, messages between processors, priorities, NMI. What
 * it writes does not depend on time.
 */
#include "kit/kit.h"

#define APIC(reg)   (*(volatile uint32_t *)(0xfee00000ull + (reg)))
#define APIC_TPR    0x80
#define APIC_EOI    0xb0
#define APIC_SVR    0xf0
#define APIC_ISR    0x100
#define APIC_IRR    0x200
#define APIC_ICR    0x300
#define APIC_ICR2   0x310
#define APIC_TIMER  0x320
#define APIC_LINT0  0x350
#define APIC_COUNT  0x380
#define APIC_LEFT   0x390
#define APIC_DIVIDE 0x3e0
#define IOAPIC(reg) (*(volatile uint32_t *)(0xfec00000ull + (reg)))
#define MASKED	    0x10000u
#define LEVEL	    0x8000u

#define PIC_BASE  0x30 /* .. 0x3f */
#define VEC_TIMER 0x50
#define VEC_LINE  0x60
#define VEC_LOW	  0x71
#define VEC_HIGH  0x81
#define VEC_IPI	  0x91
#define VEC_OTHER 0xa1

#define NOTHING 0xed /* a port */

#define TICKS 5

struct frame {
	uint64_t rip, cs, rflags, rsp, ss;
};

static struct kit_gate idt[256];
static struct kit_pointer idt_pointer = {sizeof(idt) - 1, (uint64_t)idt};
static volatile uint32_t count[256], nmis, order[4], ordered;
static volatile uint32_t level; /* 0: edges are tried; 1..3: the line is high; 4: low again */

static void wrmsr(uint32_t index, uint64_t value)
{
	asm volatile("wrmsr" ::"c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static uint64_t rdtsc(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* ---- handlers ---- */

static void pic_end(bool slave)
{
	if (slave)
		kit_outb(0xa0, 0x20);
	kit_outb(0x20, 0x20);
}

__attribute__((interrupt)) static void on_pit(struct frame *f)
{
	count[PIC_BASE]++;
	pic_end(false);
}

static void rtc_flags(void)
{
	kit_outb(0x70, 0x0c);
	kit_inb(0x71);
}

__attribute__((interrupt)) static void on_rtc(struct frame *f)
{
	count[PIC_BASE + 8]++;
	rtc_flags();
	pic_end(true);
}

__attribute__((interrupt)) static void on_timer(struct frame *f)
{
	count[VEC_TIMER]++;
	APIC(APIC_EOI) = 0;
}

__attribute__((interrupt)) static void on_rtc_apic(struct frame *f)
{
	count[VEC_OTHER]++;
	rtc_flags();
	APIC(APIC_EOI) = 0;
}

/*
 * A line that stays high until its handler has run three times. Once more after that does not
 * count: Linux 6.18's I/O APIC, in kvm_pvm at least, brings one that was on its way.
 */
__attribute__((interrupt)) static void on_line(struct frame *f)
{
	if (!level || level > 3) {
		count[VEC_LINE] += !level;
	} else {
		count[VEC_LINE]++;
		if (++level > 3)
			kit_outb(0x2000 + 10, 0);
	}
	kit_inb(NOTHING); /* it is low before the end of the interrupt, on whatever runs this */
	APIC(APIC_EOI) = 0;
}

__attribute__((interrupt)) static void on_low(struct frame *f)
{
	order[ordered++ & 3] = VEC_LOW;
	APIC(APIC_EOI) = 0;
}

__attribute__((interrupt)) static void on_high(struct frame *f)
{
	order[ordered++ & 3] = VEC_HIGH;
	APIC(APIC_EOI) = 0;
}

__attribute__((interrupt)) static void on_ipi(struct frame *f)
{
	__atomic_fetch_add(&count[VEC_IPI], 1, __ATOMIC_SEQ_CST);
	APIC(APIC_EOI) = 0;
}

__attribute__((interrupt)) static void on_nmi(struct frame *f)
{
	__atomic_fetch_add(&nmis, 1, __ATOMIC_SEQ_CST);
}

static void set_gate(unsigned vector, void (*fn)(struct frame *f))
{
	uint64_t at = (uint64_t)fn;

	idt[vector] = (struct kit_gate){
		.low = (uint16_t)at,
		.selector = 8,
		.flags = 0x8e00,
		.middle = (uint16_t)(at >> 16),
		.high = (uint32_t)(at >> 32),
	};
}

static void load_idt(void)
{
	asm volatile("lidt %0" ::"m"(idt_pointer));
}

/* Sleep until it has happened @n times. */
static void await(volatile uint32_t *what, uint32_t n)
{
	for (;;) {
		asm volatile("cli");
		if (*what >= n)
			return;
		asm volatile("sti; hlt" ::: "memory");
	}
}

/*
 * Let come what is pending: a port that answers nothing makes any processor look. (A kvm_pvm looks
 * only after a batch of instructions; and of an EOI in the same batch as a HLT it tells nobody with
 * a split irqchip, so that nothing sleeps for a level here.)
 */
static void give_way(void)
{
	asm volatile("sti; inb %0, %%al; nop; cli" ::"N"(NOTHING) : "eax", "memory");
}

static void await_line(uint32_t n)
{
	while (count[VEC_LINE] < n)
		give_way();
	give_way();
}

/* ---- the ways ---- */

static void ioapic_set(unsigned pin, uint32_t low)
{
	IOAPIC(0) = 0x10 + pin * 2 + 1;
	IOAPIC(0x10) = 0;
	IOAPIC(0) = 0x10 + pin * 2;
	IOAPIC(0x10) = low;
}

static uint32_t ioapic_get(unsigned pin)
{
	IOAPIC(0) = 0x10 + pin * 2;
	return IOAPIC(0x10);
}

static void pic_setup(void)
{
	kit_outb(0x20, 0x11);
	kit_outb(0xa0, 0x11);
	kit_outb(0x21, PIC_BASE);
	kit_outb(0xa1, PIC_BASE + 8);
	kit_outb(0x21, 4);
	kit_outb(0xa1, 2);
	kit_outb(0x21, 1);
	kit_outb(0xa1, 1);
	kit_outb(0x21, 0xff);
	kit_outb(0xa1, 0xff);
}

static void pit_start(uint8_t mode, uint16_t n)
{
	kit_outb(0x43, (uint8_t)(0x30 | mode << 1));
	kit_outb(0x40, (uint8_t)n);
	kit_outb(0x40, (uint8_t)(n >> 8));
}

static void rtc_start(bool on)
{
	kit_outb(0x70, 0x0a);
	kit_outb(0x71, 0x29); /* 128 Hz */
	kit_outb(0x70, 0x0b);
	kit_outb(0x71, on ? 0x42 : 0x02);
	rtc_flags();
}

static void by_pic(void)
{
	APIC(APIC_SVR) = 0x1ff;
	APIC(APIC_LINT0) = 0x700; /* ExtINT */
	pic_setup();
	pit_start(2, 5966);
	kit_outb(0x21, 0xfe);
	await(&count[PIC_BASE], TICKS);
	kit_outb(0x21, 0xff);
	kit_text("pit, rate generator, by the 8259: ticks\n");
	pit_start(3, 5966);
	kit_outb(0x21, 0xfe);
	await(&count[PIC_BASE], count[PIC_BASE] + TICKS);
	kit_outb(0x21, 0xff);
	kit_text("pit, square wave, by the 8259: ticks\n");
	/* The kernel's counts on as before until there is a new count: so one of before may come
	 * too. */
	pit_start(0, 2000);
	kit_outb(0x21, 0xfe);
	await(&count[PIC_BASE], count[PIC_BASE] + 1);
	kit_text("pit, one shot, by the 8259\n");
	kit_outb(0x21, 0xfb);
	rtc_start(true);
	kit_outb(0xa1, 0xfe);
	await(&count[PIC_BASE + 8], TICKS);
	kit_outb(0xa1, 0xff);
	kit_outb(0x21, 0xff);
	rtc_start(false);
	kit_text("rtc by the slave 8259: ticks\n");
	APIC(APIC_LINT0) = MASKED;
}

static void by_ioapic(void)
{
	pit_start(2, 5966);
	count[VEC_TIMER] = 0;
	ioapic_set(2, VEC_TIMER);
	await(&count[VEC_TIMER], TICKS);
	ioapic_set(2, MASKED);
	kit_text("pit by the I/O APIC: ticks\n");
	ioapic_set(8, VEC_OTHER);
	rtc_start(true);
	await(&count[VEC_OTHER], TICKS);
	ioapic_set(8, MASKED);
	rtc_start(false);
	kit_text("rtc by the I/O APIC: ticks\n");
	give_way();
}

static void by_line(void)
{
	/* Edges: one interrupt each, whatever the level does meanwhile. */
	ioapic_set(11, VEC_LINE);
	for (unsigned n = 0; n < 4; n++) {
		kit_outb(0x2000 + 11, 1);
		give_way();
		kit_outb(0x2000 + 11, 0);
		give_way();
	}
	kit_result("line, edges:", count[VEC_LINE]);
	ioapic_set(11, MASKED);
	kit_outb(0x2000 + 11, 1);
	ioapic_set(11, VEC_LINE);
	give_way();
	kit_result("line, an edge while masked:", count[VEC_LINE]);
	kit_outb(0x2000 + 11, 0);
	ioapic_set(11, MASKED);
	/* A level interrupts again and again. */
	count[VEC_LINE] = 0;
	ioapic_set(10, VEC_LINE | LEVEL);
	for (unsigned n = 1; n <= 4; n++) {
		level = 1;
		kit_outb(0x2000 + 10, 1);
		await_line(3 * n);
	}
	kit_result("line, levels:", count[VEC_LINE]);
	kit_result("remote IRR after them:", ioapic_get(10) >> 14 & 1);
	ioapic_set(10, VEC_LINE | LEVEL | MASKED);
	level = 1;
	kit_outb(0x2000 + 10, 1);
	give_way();
	kit_result("line, a level while masked:", count[VEC_LINE]);
	ioapic_set(10, VEC_LINE | LEVEL);
	await_line(15);
	kit_result("line, unmasked:", count[VEC_LINE]);
	ioapic_set(10, MASKED);
}

static void by_timer(void)
{
	uint32_t ecx, eax = 1, ebx, edx;

	count[VEC_TIMER] = 0;
	APIC(APIC_DIVIDE) = 3; /* by 16 */
	APIC(APIC_TIMER) = VEC_TIMER;
	APIC(APIC_COUNT) = 10000;
	await(&count[VEC_TIMER], 1);
	give_way();
	kit_result("local APIC's timer, one shot:", count[VEC_TIMER]);
	kit_result("left of it:", APIC(APIC_LEFT));
	APIC(APIC_TIMER) = VEC_TIMER | 1 << 17;
	APIC(APIC_COUNT) = 200000;
	await(&count[VEC_TIMER], 1 + TICKS);
	APIC(APIC_TIMER) = VEC_TIMER | MASKED;
	APIC(APIC_COUNT) = 0;
	give_way();
	kit_text("local APIC's timer, periodic: ticks\n");
	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
	if (ecx & 1 << 24) {
		count[VEC_TIMER] = 0;
		APIC(APIC_TIMER) = VEC_TIMER | 2 << 17;
		asm volatile("mfence");
		for (uint32_t n = 1; n <= TICKS; n++) {
			wrmsr(0x6e0, rdtsc() + 1000000);
			await(&count[VEC_TIMER], n);
		}
		give_way();
		kit_result("local APIC's timer, TSC deadlines:", count[VEC_TIMER]);
		wrmsr(0x6e0, rdtsc() - 1);
		await(&count[VEC_TIMER], TICKS + 1);
		kit_result("a deadline of the past:", count[VEC_TIMER]);
		APIC(APIC_TIMER) = VEC_TIMER | MASKED;
	}
}

static void ipi(uint32_t cpu, uint32_t what)
{
	APIC(APIC_ICR2) = cpu << 24;
	APIC(APIC_ICR) = what;
}

static void by_message(void)
{
	ipi(0, 0x4000 | VEC_LOW);
	ipi(0, 0x4000 | VEC_HIGH);
	kit_result("pending:",
		   (APIC(APIC_IRR + 0x10 * (VEC_LOW / 32)) >> VEC_LOW % 32 & 1) +
			   (APIC(APIC_IRR + 0x10 * (VEC_HIGH / 32)) >> VEC_HIGH % 32 & 1));
	while (ordered < 2)
		give_way();
	kit_check(order[0] == VEC_HIGH && order[1] == VEC_LOW, "the higher first");
	APIC(APIC_TPR) = 0x70;
	ipi(0, 0x4000 | VEC_LOW);
	ipi(0, 0x4000 | VEC_HIGH);
	while (ordered < 3)
		give_way();
	give_way();
	kit_result("above the task's priority:", ordered - 2);
	asm volatile("mov %0, %%cr8" ::"r"(0ull));
	while (ordered < 4)
		give_way();
	kit_result("after CR8 = 0:", ordered - 2);
	APIC(APIC_ICR) = 0x44000 | VEC_IPI; /* to itself, by shorthand */
	await(&count[VEC_IPI], 1);
	kit_result("to itself:", count[VEC_IPI]);
	ipi(0, 0x4400);
	while (!nmis)
		kit_pause();
	kit_result("NMI to itself:", nmis);
	kit_result("in service at the end:", APIC(APIC_ISR + 0x10 * (VEC_IPI / 32)));
}

/* Each in turn sends to all others, which sleep. */
static void each_cpu(unsigned cpu)
{
	unsigned n = kit_cpus();

	load_idt();
	APIC(APIC_SVR) = 0x1ff;
	if (!cpu)
		count[VEC_IPI] = nmis = 0;
	kit_barrier(n);
	for (unsigned turn = 0; turn < n; turn++) {
		uint32_t want = (turn + 1) * (n - 1);

		if (cpu == turn)
			APIC(APIC_ICR) = 0xc4000 | VEC_IPI;
		/* Whoever has it sleeps no more: another may come late, so nobody sleeps for it. */
		while (__atomic_load_n(&count[VEC_IPI], __ATOMIC_SEQ_CST) < want) {
			give_way();
		}
		kit_barrier(n);
	}
	if (!cpu) {
		kit_result("between processors:", count[VEC_IPI] == n * (n - 1));
		APIC(APIC_ICR) = 0xc4400;
		while (__atomic_load_n(&nmis, __ATOMIC_SEQ_CST) < n - 1)
			kit_pause();
		kit_result("NMIs:", nmis == n - 1);
	}
	kit_barrier(n);
}

int payload(const char *cmdline)
{
	struct kit_gate *old;

	asm volatile("sidt %0" : "=m"(idt_pointer));
	old = (struct kit_gate *)idt_pointer.base;
	for (unsigned k = 0; k < 32; k++)
		idt[k] = old[k];
	idt_pointer = (struct kit_pointer){sizeof(idt) - 1, (uint64_t)idt};
	set_gate(2, on_nmi);
	set_gate(PIC_BASE, on_pit);
	set_gate(PIC_BASE + 8, on_rtc);
	set_gate(VEC_TIMER, on_timer);
	set_gate(VEC_LINE, on_line);
	set_gate(VEC_LOW, on_low);
	set_gate(VEC_HIGH, on_high);
	set_gate(VEC_IPI, on_ipi);
	set_gate(VEC_OTHER, on_rtc_apic);
	load_idt();
	by_pic();
	by_ioapic();
	by_line();
	by_timer();
	by_message();
	if (kit_cpus() > 1)
		kit_on_cpus(kit_cpus(), each_cpu);
	return 0;
}
