/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The local APICs: priorities, messages in every mode, both register interfaces, the timer. */
#include "test_devices.h"

#include "devices/lapic.h"

#define CPUS 4

enum { ID = 0x20, VERSION = 0x30, TPR = 0x80, PPR = 0xa0, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0 };
enum { SVR = 0xf0, ISR = 0x100, TMR = 0x180, IRR = 0x200, ESR = 0x280, ICR = 0x300 };
enum { ICR2 = 0x310, LVTT = 0x320, LVT0 = 0x350, LVT1 = 0x360, LVTERR = 0x370, TMICT = 0x380 };
enum { TMCCT = 0x390, TDCR = 0x3e0 };

static struct clock clk;
static struct lapic_bus apics;
static struct heard {
	unsigned kicks, nmis, inits, sipis;
	uint8_t sipi;
} heard[CPUS];
static unsigned eois, eoi_vector;

static void kick(void *opaque, unsigned cpu)
{
	heard[cpu].kicks++;
}

static void nmi(void *opaque, unsigned cpu)
{
	heard[cpu].nmis++;
}

static void init(void *opaque, unsigned cpu)
{
	heard[cpu].inits++;
}

static void sipi(void *opaque, unsigned cpu, uint8_t vector)
{
	heard[cpu].sipis++;
	heard[cpu].sipi = vector;
}

static int extint_ack(void *opaque)
{
	return 0x08;
}

static void eoi(void *opaque, uint8_t vector)
{
	eois++;
	eoi_vector = vector;
}

static const struct lapic_ops ops = {kick, nmi, init, sipi, extint_ack, eoi};

static struct lapic *cpu(unsigned i)
{
	return &apics.lapic[i];
}

static uint32_t get(unsigned i, unsigned reg)
{
	return (uint32_t)lapic_mmio_read(cpu(i), LAPIC_DEFAULT_BASE + reg, 4);
}

static void put(unsigned i, unsigned reg, uint32_t value)
{
	lapic_mmio_write(cpu(i), LAPIC_DEFAULT_BASE + reg, 4, value);
}

static int setup(void **state)
{
	struct lapic_config cfg = {
		.ops = &ops,
		.clock = &clk,
		.count = CPUS,
		.phys_bits = 40,
		.x2apic = true,
	};

	manual_clock(&clk);
	if (lapic_bus_init(&apics, &cfg))
		return -1;
	for (unsigned i = 0; i < CPUS; i++)
		put(i, SVR, 0x1ff);
	memset(heard, 0, sizeof(heard));
	eois = 0;
	return 0;
}

static int teardown(void **state)
{
	lapic_bus_finish(&apics);
	clock_finish(&clk);
	return 0;
}

static void ipi(unsigned from, uint32_t dest, uint32_t low)
{
	put(from, ICR2, dest << 24);
	put(from, ICR, low);
	assert_int_equal(get(from, ICR) & 0x1000, 0);
}

/* Into x2APIC mode. */
static void x2apic(unsigned i)
{
	uint64_t base;

	assert_int_equal(lapic_msr_read(cpu(i), LAPIC_MSR_BASE, &base), 0);
	assert_int_equal(lapic_msr_write(cpu(i), LAPIC_MSR_BASE, base | LAPIC_BASE_X2APIC), 0);
}

static int wrmsr(unsigned i, unsigned reg, uint64_t value)
{
	return lapic_msr_write(cpu(i), LAPIC_MSR_X2APIC + (reg >> 4), value);
}

static uint64_t rdmsr(unsigned i, unsigned reg)
{
	uint64_t value = 0;

	assert_int_equal(lapic_msr_read(cpu(i), LAPIC_MSR_X2APIC + (reg >> 4), &value), 0);
	return value;
}

static void test_priorities(void **state)
{
	assert_int_equal(lapic_pending(cpu(0)), -1);
	ipi(0, 0, 0x4041);
	ipi(0, 0, 0x4052);
	ipi(0, 0, 0x4051);
	assert_true(heard[0].kicks >= 3);
	assert_int_equal(get(0, IRR + 0x20), 1 << 1 | 1 << 17 | 1 << 18);
	assert_int_equal(lapic_pending(cpu(0)), 0x52);
	assert_int_equal(lapic_ack(cpu(0)), 0x52);
	assert_int_equal(get(0, PPR), 0x50);
	assert_int_equal(get(0, ISR + 0x20), 1 << 18);
	assert_int_equal(lapic_pending(cpu(0)), -1); /* same class */
	assert_int_equal(lapic_ack(cpu(0)), -1);
	ipi(0, 0, 0x4060);
	assert_int_equal(lapic_ack(cpu(0)), 0x60);
	put(0, EOI, 0);
	assert_int_equal(get(0, PPR), 0x50);
	put(0, EOI, 0);
	assert_int_equal(lapic_ack(cpu(0)), 0x51);
	put(0, EOI, 0);
	/* The task priority holds 0x41 back; CR8 is its upper half. */
	put(0, TPR, 0x4f);
	assert_int_equal(lapic_get_cr8(cpu(0)), 4);
	assert_int_equal(get(0, PPR), 0x4f);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	heard[0].kicks = 0;
	lapic_set_cr8(cpu(0), 3);
	assert_int_equal(heard[0].kicks, 1);
	assert_int_equal(get(0, TPR), 0x30);
	assert_int_equal(lapic_ack(cpu(0)), 0x41);
	put(0, EOI, 0);
	put(0, EOI, 0);
	assert_int_equal(eois, 0);
}

static void test_physical(void **state)
{
	ipi(0, 2, 0x40f0);
	assert_int_equal(lapic_ack(cpu(2)), 0xf0);
	assert_int_equal(lapic_pending(cpu(1)), -1);
	ipi(0, 0xff, 0x40e0);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(get(i, IRR + 0x70), 1);
	ipi(1, 0, 0xc40d1); /* all but self */
	ipi(1, 0, 0x840d2); /* all */
	ipi(1, 0, 0x440d3); /* self */
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(get(i, IRR + 0x60) >> 16, i == 1 ? 0xc : 0x6);
	/* The id is writable. */
	put(3, ID, 9u << 24);
	ipi(0, 9, 0x40d4);
	assert_int_equal(get(3, IRR + 0x60) >> 16, 0x16);
	put(3, SVR, 0xff);
	ipi(0, 9, 0x40d5);
	assert_int_equal(get(3, IRR + 0x60) >> 16, 0x16);
}

static void test_logical(void **state)
{
	for (unsigned i = 0; i < CPUS; i++)
		put(i, LDR, 0x01000000u << i);
	ipi(0, 0x0a, 0x4840);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(get(i, IRR + 0x20), i & 1);
	/* Clusters: 0 and 1 in cluster 2, the others in cluster 3. */
	for (unsigned i = 0; i < CPUS; i++) {
		put(i, DFR, 0);
		put(i, LDR, (i < 2 ? 0x20000000u : 0x30000000u) | 0x01000000u << (i & 1));
	}
	assert_int_equal(get(0, DFR), 0x0fffffff);
	ipi(0, 0x33, 0x4850);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(get(i, IRR + 0x20) >> 16, i >= 2);
	ipi(0, 0xff, 0x4860);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(get(i, IRR + 0x30), 1);
}

static void test_lowest(void **state)
{
	unsigned total = 0;

	put(0, TPR, 0x20);
	put(1, TPR, 0x10);
	put(2, TPR, 0x30);
	put(3, TPR, 0x20);
	for (unsigned i = 0; i < CPUS; i++)
		put(i, LDR, 0x01000000u << i);
	ipi(0, 0x0f, 0x4940);
	assert_int_equal(get(1, IRR + 0x20), 1);
	put(1, TPR, 0x20);
	for (unsigned v = 0x50; v < 0x80; v++)
		assert_int_equal(lapic_bus_msi(&apics, 0xfee0f004, 0x100 | v), 1);
	for (unsigned i = 0; i < CPUS; i++) {
		unsigned got = (unsigned)__builtin_popcount(get(i, IRR + 0x20) & 0xffff0000) +
			       (unsigned)__builtin_popcount(get(i, IRR + 0x30));

		assert_true(i == 2 ? got == 0 : got > 0);
		total += got;
	}
	assert_int_equal(total, 48);
}

static void test_modes(void **state)
{
	ipi(0, 1, 0x4400); /* NMI */
	assert_int_equal(heard[1].nmis, 1);
	ipi(0, 0, 0xcc500); /* INIT to all but self, assert */
	ipi(0, 0, 0xc8500); /* and the old de-assert */
	ipi(0, 0, 0xc4600 | 0x9a);
	for (unsigned i = 0; i < CPUS; i++) {
		assert_int_equal(heard[i].inits, i != 0);
		assert_int_equal(heard[i].sipis, i != 0);
		assert_int_equal(heard[i].sipi, i ? 0x9a : 0);
	}
	ipi(0, 1, 0x4200); /* SMI: ignored */
	assert_int_equal(lapic_pending(cpu(1)), -1);
	/* NMI and SIPI do not ask for the software enable. */
	put(1, SVR, 0xff);
	ipi(0, 1, 0x4400);
	assert_int_equal(heard[1].nmis, 2);
}

static void test_errors(void **state)
{
	put(0, LVTERR, 0xfe);
	ipi(0, 1, 0x400f);
	assert_int_equal(get(0, ESR), 0); /* not before it is written */
	put(0, ESR, 0);
	assert_int_equal(get(0, ESR), 0x20);
	assert_int_equal(lapic_ack(cpu(0)), 0xfe);
	put(0, EOI, 0);
	put(0, ESR, 0);
	assert_int_equal(get(0, ESR), 0);
	assert_int_equal(lapic_bus_msi(&apics, 0xfee00000, 5), 1);
	assert_int_equal(get(0, 0x3f0), 0);
	put(0, 0x000, 1);
	put(0, ESR, 0);
	assert_int_equal(get(0, ESR), 0xc0);
	/* An error vector that is itself an error. */
	put(0, LVTERR, 0x05);
	ipi(0, 1, 0x4000);
	put(0, ESR, 0);
	assert_int_equal(get(0, ESR), 0x60);
}

static void test_registers(void **state)
{
	assert_int_equal(get(2, ID), 2u << 24);
	assert_int_equal(get(0, VERSION), 0x50014);
	assert_int_equal(get(0, LVT0), 0x700);
	assert_int_equal(get(1, LVT0), 0x10000);
	put(0, LVTT, 0xffffffff);
	assert_int_equal(get(0, LVTT), 0x700ff);
	put(0, LVT1, 0xffffffff);
	assert_int_equal(get(0, LVT1), 0x1a7ff);
	put(0, LVT1, 0x400);
	put(0, SVR, 0xff); /* disabling masks them all, and keeps them so */
	assert_int_equal(get(0, LVT1), 0x10400);
	put(0, LVT1, 0x400);
	assert_int_equal(get(0, LVT1), 0x10400);
	put(0, SVR, 0x1ff);
	/* Narrow and odd accesses. */
	assert_int_equal(lapic_mmio_read(cpu(0), LAPIC_DEFAULT_BASE + VERSION + 2, 1), 5);
	assert_int_equal(lapic_mmio_read(cpu(0), LAPIC_DEFAULT_BASE + VERSION + 4, 4), 0);
	lapic_mmio_write(cpu(0), LAPIC_DEFAULT_BASE + TPR, 1, 0x55);
	lapic_mmio_write(cpu(0), LAPIC_DEFAULT_BASE + TPR + 4, 4, 0x55);
	assert_int_equal(get(0, TPR), 0);
	assert_true(lapic_decodes(cpu(0), 0xfee00fff));
	assert_false(lapic_decodes(cpu(0), 0xfee01000));
}

static void test_base(void **state)
{
	struct lapic *l = cpu(0);
	uint64_t base, v;

	assert_int_equal(lapic_msr_read(l, LAPIC_MSR_BASE, &base), 0);
	assert_true(base == 0xfee00900);
	lapic_msr_read(cpu(1), LAPIC_MSR_BASE, &v);
	assert_true(v == 0xfee00800);
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, base | 1), 1);
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, base | 1ull << 40), 1);
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, 0xfee00400), 1);
	assert_int_equal(lapic_msr_read(l, 0x802, &v), 1);
	/* Moved. */
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, 0xfee10900), 0);
	assert_true(lapic_decodes(l, 0xfee10020));
	assert_false(lapic_decodes(l, 0xfee00020));
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, base), 0);
	/* Off: no page, no messages; on again: as after a reset. */
	put(0, TPR, 0x33);
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, 0xfee00100), 0);
	assert_false(lapic_decodes(l, 0xfee00020));
	assert_int_equal(lapic_bus_msi(&apics, 0xfee00000, 0x41), 0);
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, 0xfee00d00), 1); /* not in one step */
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, base), 0);
	assert_int_equal(get(0, TPR), 0);
	assert_int_equal(get(0, SVR), 0xff);
	/* xAPIC to x2APIC, and never straight back. */
	x2apic(0);
	assert_false(lapic_decodes(l, 0xfee00020));
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, base), 1);
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, 0xfee00100), 0);
	apics.x2apic = false;
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, base), 0);
	assert_int_equal(lapic_msr_write(l, LAPIC_MSR_BASE, base | LAPIC_BASE_X2APIC), 1);
}

static void test_x2apic(void **state)
{
	uint64_t v = 77;

	for (unsigned i = 0; i < 3; i++)
		x2apic(i);
	assert_int_equal(rdmsr(2, ID), 2);
	assert_int_equal(rdmsr(2, LDR), 1 << 2);
	assert_int_equal(wrmsr(0, SVR, 0x1ff), 0);
	assert_int_equal(wrmsr(0, SVR, 1 << 12), 1);
	assert_int_equal(wrmsr(0, TPR, 0x100), 1);
	assert_int_equal(wrmsr(0, ID, 1), 1);
	assert_int_equal(wrmsr(0, LDR, 1), 1);
	assert_int_equal(wrmsr(0, DFR, 0), 1);
	assert_int_equal(wrmsr(0, EOI, 1), 1);
	assert_int_equal(wrmsr(0, ESR, 1), 1);
	assert_int_equal(wrmsr(0, ICR2, 0), 1);
	assert_int_equal(wrmsr(0, LVTT, 1ull << 32), 1);
	assert_int_equal(wrmsr(0, IRR, 0), 1);
	assert_int_equal(wrmsr(0, ICR, 1 << 20), 1);
	assert_int_equal(lapic_msr_read(cpu(0), 0x80b, &v), 1);
	assert_int_equal(lapic_msr_read(cpu(0), 0x80e, &v), 1);
	assert_int_equal(lapic_msr_read(cpu(0), 0x83f, &v), 1);
	assert_int_equal(lapic_msr_read(cpu(0), 0x8ff, &v), 1);
	assert_int_equal(v, 77);
	assert_int_equal(wrmsr(0, 0x3f0, 0x45), 0); /* SELF IPI */
	assert_int_equal(lapic_ack(cpu(0)), 0x45);
	assert_int_equal(wrmsr(0, EOI, 0), 0);
	assert_int_equal(wrmsr(0, ICR, 2ull << 32 | 0x4046), 0);
	assert_int_equal(lapic_ack(cpu(2)), 0x46);
	assert_true(rdmsr(0, ICR) == (2ull << 32 | 0x4046));
	/* Logical: bits within a cluster of sixteen. */
	assert_int_equal(wrmsr(0, ICR, 0x6ull << 32 | 0x4857), 0);
	assert_int_equal(lapic_ack(cpu(1)), 0x57);
	assert_int_equal(lapic_ack(cpu(2)), 0x57);
	/* 0xff is nobody's id here; all ones is everybody, the xAPIC one too. */
	assert_int_equal(wrmsr(0, ICR, 0xffull << 32 | 0x4068), 0);
	assert_int_equal(lapic_pending(cpu(1)), -1);
	assert_int_equal(wrmsr(0, ICR, 0xffffffffull << 32 | 0x4069), 0);
	assert_int_equal(lapic_ack(cpu(1)), 0x69);
	assert_int_equal(lapic_ack(cpu(3)), 0x69);
	assert_int_equal(rdmsr(0, TMCCT), 0);
}

static void test_level_eoi(void **state)
{
	assert_int_equal(lapic_bus_msi(&apics, 0xfee01000, 0xc071), 1);
	assert_int_equal(get(1, TMR + 0x30), 1 << 17);
	assert_int_equal(lapic_ack(cpu(1)), 0x71);
	put(1, EOI, 0);
	assert_int_equal(eois, 1);
	assert_int_equal(eoi_vector, 0x71);
	lapic_bus_msi(&apics, 0xfee01000, 0x71);
	assert_int_equal(get(1, TMR + 0x30), 0);
	lapic_ack(cpu(1));
	put(1, EOI, 0);
	assert_int_equal(eois, 1);
}

static void test_lint(void **state)
{
	/* ExtINT is open on the bootstrap processor alone. */
	lapic_lint(cpu(0), 0, true);
	lapic_lint(cpu(1), 0, true);
	assert_int_equal(lapic_pending(cpu(0)), LAPIC_EXTINT);
	assert_int_equal(lapic_pending(cpu(1)), -1);
	assert_int_equal(lapic_ack(cpu(0)), 0x08);
	assert_int_equal(lapic_pending(cpu(0)), LAPIC_EXTINT); /* a level */
	put(0, LVT0, 0x10700);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	put(0, LVT0, 0x700);
	lapic_lint(cpu(0), 0, false);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	put(0, LVT1, 0x400);
	lapic_lint(cpu(0), 1, true);
	lapic_lint(cpu(0), 1, true);
	assert_int_equal(heard[0].nmis, 1);
	lapic_lint(cpu(0), 1, false);
	/* Fixed, level-triggered. */
	put(0, LVT1, 0x8055);
	lapic_lint(cpu(0), 1, true);
	assert_int_equal(lapic_ack(cpu(0)), 0x55);
	put(0, EOI, 0);
	assert_int_equal(lapic_ack(cpu(0)), 0x55);
	lapic_lint(cpu(0), 1, false);
	put(0, EOI, 0);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	/* Off, the pins are INTR and NMI. */
	lapic_msr_write(cpu(0), LAPIC_MSR_BASE, 0xfee00100);
	lapic_lint(cpu(0), 0, true);
	lapic_lint(cpu(0), 1, true);
	assert_int_equal(lapic_ack(cpu(0)), 0x08);
	assert_int_equal(heard[0].nmis, 2);
	lapic_perf_interrupt(cpu(1));
	assert_int_equal(lapic_pending(cpu(1)), -1);
}

static void test_one_shot(void **state)
{
	put(0, TDCR, 0xb); /* by 1 */
	put(0, LVTT, 0x30);
	put(0, TMICT, 1000);
	assert_int_equal(get(0, TMCCT), 1000);
	run_to(&clk, 400);
	assert_int_equal(get(0, TMCCT), 600);
	run_to(&clk, 999);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	run_to(&clk, 1000);
	assert_int_equal(lapic_ack(cpu(0)), 0x30);
	put(0, EOI, 0);
	assert_int_equal(get(0, TMCCT), 0);
	assert_int_equal(get(0, TMICT), 1000);
	run_to(&clk, 10000);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	/* Divided, and the divisor changed on the way. */
	put(0, TDCR, 0x3); /* 16 */
	put(0, TMICT, 100);
	run_to(&clk, 10000 + 16 * 40);
	assert_int_equal(get(0, TMCCT), 60);
	put(0, TDCR, 0xa); /* 128 */
	assert_int_equal(get(0, TMCCT), 60);
	run_to(&clk, 10640 + 128 * 59);
	assert_int_equal(get(0, TMCCT), 1);
	run_to(&clk, 10640 + 128 * 60);
	assert_int_equal(lapic_ack(cpu(0)), 0x30);
	put(0, EOI, 0);
	/* Masked it counts in silence; zero stops. */
	put(0, LVTT, 0x10030);
	put(0, TMICT, 5);
	run_to(&clk, 100000);
	assert_int_equal(get(0, TMCCT), 0);
	put(0, LVTT, 0x30);
	put(0, TMICT, 1000);
	put(0, TMICT, 0);
	run_to(&clk, 1000000);
	assert_int_equal(lapic_pending(cpu(0)), -1);
}

static void test_periodic(void **state)
{
	unsigned n = 0;

	put(0, TDCR, 0xb);
	put(0, LVTT, 0x20030);
	put(0, TMICT, 100000);
	for (uint64_t t = 0; t <= 1050000; t += 1000) {
		run_to(&clk, t);
		if (lapic_pending(cpu(0)) < 0)
			continue;
		assert_int_equal(lapic_ack(cpu(0)), 0x30);
		put(0, EOI, 0);
		assert_int_equal(t % 100000, 0);
		n++;
	}
	assert_int_equal(n, 10);
	assert_int_equal(get(0, TMCCT), 50000);
	/* To one-shot and back: the counter goes on, then stays at zero. */
	put(0, LVTT, 0x30);
	assert_int_equal(get(0, TMCCT), 50000);
	run_to(&clk, 1200000);
	assert_int_equal(lapic_ack(cpu(0)), 0x30);
	put(0, EOI, 0);
	put(0, LVTT, 0x20030);
	assert_int_equal(get(0, TMCCT), 0);
	run_to(&clk, 2000000);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	/* A period of a nanosecond does not drown the clock. */
	put(0, TMICT, 1);
	heard[0].kicks = 0;
	run_to(&clk, 3000000);
	assert_in_range(heard[0].kicks, 20, 51);
}

static void test_deadline(void **state)
{
	uint64_t v = 1;

	assert_int_equal(lapic_msr_write(cpu(0), LAPIC_MSR_TSC_DEADLINE, 5000), 0);
	assert_int_equal(lapic_msr_read(cpu(0), LAPIC_MSR_TSC_DEADLINE, &v), 0);
	assert_int_equal(v, 0); /* not in that mode */
	put(0, LVTT, 0x40031);
	lapic_msr_write(cpu(0), LAPIC_MSR_TSC_DEADLINE, 5000);
	lapic_msr_read(cpu(0), LAPIC_MSR_TSC_DEADLINE, &v);
	assert_int_equal(v, 5000);
	put(0, TMICT, 10); /* ignored in this mode */
	assert_int_equal(get(0, TMCCT), 0);
	run_to(&clk, 2499);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	run_to(&clk, 2500);
	assert_int_equal(lapic_ack(cpu(0)), 0x31);
	put(0, EOI, 0);
	lapic_msr_read(cpu(0), LAPIC_MSR_TSC_DEADLINE, &v);
	assert_int_equal(v, 0);
	/* The past fires at once; zero disarms. */
	lapic_msr_write(cpu(0), LAPIC_MSR_TSC_DEADLINE, 1);
	assert_int_equal(lapic_ack(cpu(0)), 0x31);
	put(0, EOI, 0);
	lapic_msr_write(cpu(0), LAPIC_MSR_TSC_DEADLINE, 20000);
	lapic_msr_write(cpu(0), LAPIC_MSR_TSC_DEADLINE, 0);
	run_to(&clk, 10000);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	/* The guest's own TSC runs ahead by 10000. */
	lapic_set_tsc_offset(cpu(0), 10000);
	lapic_msr_write(cpu(0), LAPIC_MSR_TSC_DEADLINE, 40000);
	run_to(&clk, 14999);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	run_to(&clk, 15000);
	assert_int_equal(lapic_ack(cpu(0)), 0x31);
	put(0, EOI, 0);
	/* Far away is not now; leaving the mode disarms. */
	lapic_msr_write(cpu(0), LAPIC_MSR_TSC_DEADLINE, ~0ull);
	run_to(&clk, 16000);
	assert_int_equal(lapic_pending(cpu(0)), -1);
	put(0, LVTT, 0x31);
	assert_true(clock_next_deadline(&clk) == CLOCK_NEVER);
}

static void test_reset(void **state)
{
	x2apic(1);
	assert_int_equal(wrmsr(1, TPR, 0x20), 0);
	ipi(0, 1, 0x40f1);
	lapic_reset(cpu(1), LAPIC_RESET_INIT);
	assert_true(lapic_in_x2apic(cpu(1)));
	assert_int_equal(rdmsr(1, TPR), 0);
	assert_int_equal(rdmsr(1, LDR), 2);
	assert_int_equal(lapic_pending(cpu(1)), -1);
	lapic_reset(cpu(1), LAPIC_RESET_POWER_ON);
	assert_false(lapic_in_x2apic(cpu(1)));
	assert_int_equal(get(1, SVR), 0xff);
	put(0, ID, 7u << 24);
	lapic_reset(cpu(0), LAPIC_RESET_INIT);
	assert_int_equal(get(0, ID), 7u << 24);
	lapic_reset(cpu(0), LAPIC_RESET_POWER_ON);
	assert_int_equal(get(0, ID), 0);
}

static void test_state(void **state)
{
	struct lapic_state st, bad, again;

	put(0, TDCR, 0xb);
	put(0, LVTT, 0x20030);
	put(0, TMICT, 100000);
	ipi(0, 0, 0x4041);
	lapic_ack(cpu(0));
	ipi(0, 0, 0x4042);
	put(0, TPR, 0x10);
	lapic_save(cpu(0), &st);
	lapic_reset(cpu(0), LAPIC_RESET_POWER_ON);
	assert_int_equal(lapic_load(cpu(0), &st), 0);
	lapic_save(cpu(0), &again);
	assert_memory_equal(&st, &again, sizeof(st));
	assert_int_equal(lapic_pending(cpu(0)), -1);
	put(0, EOI, 0);
	assert_int_equal(lapic_pending(cpu(0)), 0x42);
	run_to(&clk, 100000);
	assert_int_equal(get(0, IRR + 0x10), 1 << 16);
	bad = st;
	bad.irr[0] = 1;
	assert_int_equal(lapic_load(cpu(0), &bad), -EINVAL);
	bad = st;
	bad.base |= LAPIC_BASE_X2APIC;
	bad.id = 5;
	assert_int_equal(lapic_load(cpu(0), &bad), -EINVAL);
	bad = st;
	bad.lvt[3] = 1u << 20;
	assert_int_equal(lapic_load(cpu(0), &bad), -EINVAL);
	bad = st;
	bad.base = 0x400;
	assert_int_equal(lapic_load(cpu(0), &bad), -EINVAL);
}

static void test_limits(void **state)
{
	struct lapic_config cfg = {.ops = &ops, .clock = &clk, .count = 0, .phys_bits = 40};
	struct lapic_bus b;

	assert_int_equal(lapic_bus_init(&b, &cfg), -EINVAL);
	cfg.count = LAPIC_MAX + 1;
	assert_int_equal(lapic_bus_init(&b, &cfg), -EINVAL);
	cfg.count = 1;
	cfg.phys_bits = 60;
	assert_int_equal(lapic_bus_init(&b, &cfg), -EINVAL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_priorities), T(test_physical),  T(test_logical),	  T(test_lowest),
		T(test_modes),	    T(test_errors),    T(test_registers), T(test_base),
		T(test_x2apic),	    T(test_level_eoi), T(test_lint),	  T(test_one_shot),
		T(test_periodic),   T(test_deadline),  T(test_reset),	  T(test_state),
		T(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
