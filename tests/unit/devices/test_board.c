/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The whole board: the map, interrupt paths, small devices, saved state, threads. */
#include "test_devices.h"

#include <pthread.h>

#include "devices/board.h"

#define CPUS 2

static struct clock clk;
static struct board *board;
static unsigned poweroffs, resets, shutdowns, exits, kicks[CPUS];
static uint32_t exit_value;
static char text[256];
static size_t text_len;

static void poweroff(void *opaque)
{
	poweroffs++;
}

static void reset(void *opaque)
{
	resets++;
}

static void do_exit(void *opaque, uint32_t value)
{
	exits++;
	exit_value = value;
}

static void do_shutdown(void *opaque)
{
	shutdowns++;
}

static void kick(void *opaque, unsigned cpu)
{
	__atomic_fetch_add(&kicks[cpu], 1, __ATOMIC_RELAXED);
}

static void nothing(void *opaque, unsigned cpu)
{
}

static void sipi(void *opaque, unsigned cpu, uint8_t vector)
{
}

static void output(void *opaque, const uint8_t *data, size_t len)
{
	if (text_len + len < sizeof(text))
		memcpy(text + text_len, data, len);
	text_len += len;
}

static const struct machine_ops machine_ops = {poweroff, reset, do_exit, do_shutdown};
static const struct lapic_ops lapic_ops = {
	.kick = kick, .nmi = nothing, .init = nothing, .sipi = sipi};

static struct board_config config(void)
{
	return (struct board_config){
		.clock = &clk,
		.cpus = CPUS,
		.phys_bits = 40,
		.x2apic = true,
		.test_devices = true,
		.ram_below_4g = MIB(128),
		.epoch_ns = 1700000000ll * 1000000000,
		.machine_ops = &machine_ops,
		.lapic_ops = &lapic_ops,
		.serial_output = output,
		.debugcon_output = output,
	};
}

static int setup(void **state)
{
	struct board_config cfg = config();

	poweroffs = resets = shutdowns = exits = 0;
	memset(kicks, 0, sizeof(kicks));
	memset(text, 0, sizeof(text));
	text_len = 0;
	manual_clock(&clk);
	return board_create(&cfg, &board);
}

static int teardown(void **state)
{
	board_destroy(board);
	board = NULL;
	clock_finish(&clk);
	return 0;
}

static uint32_t in(uint16_t port, unsigned size)
{
	return (uint32_t)board_pio_read(board, port, size);
}

static void out(uint16_t port, unsigned size, uint32_t value)
{
	board_pio_write(board, port, size, value);
}

static void test_small(void **state)
{
	for (const char *p = "Shut Shutdown"; *p; p++)
		out(0x8900, 1, (uint8_t)*p);
	assert_int_equal(shutdowns, 1);
	out(0xf4, 1, 0x7f);
	assert_int_equal(exit_value, 0x7f);
	out(0xf4, 4, 0x12345678);
	assert_int_equal(exit_value, 0x12345678);
	out(0xf4, 2, 0xffff);
	assert_int_equal(exits, 3);
	for (const char *p = "hi\nho"; *p; p++)
		out(0xe9, 1, (uint8_t)*p);
	assert_string_equal(text, "hi\n");
	board_flush(board);
	assert_string_equal(text, "hi\nho");
	assert_int_equal(in(0xe9, 1), 0xe9);
	out(0x64, 1, 0xfe);
	out(0x92, 1, 0x03);
	out(0xcf9, 1, 0x06);
	assert_int_equal(resets, 3);
	out(0x64, 1, 0xd1);
	out(0x64, 1, 0xff);
	out(0x92, 1, 0x02);
	assert_int_equal(resets, 3);
	assert_int_equal(in(0x64, 1), 0xfd);
	assert_int_equal(in(0x60, 1), 0xff);
	assert_int_equal(in(0x92, 1), 0x02);
	out(BOARD_PM1A_CNT, 2, BOARD_SLP_TYP_S5 << 10 | 1 << 13);
	assert_int_equal(poweroffs, 1);
	out(0xcf8, 4, 0x80000600); /* an address, not a reset */
	assert_int_equal(resets, 3);
	assert_int_equal(in(0xcf8, 4), 0xffffffff);
	assert_int_equal(in(0xcfc, 4), 0xffffffff);
	assert_int_equal(in(0x80, 1), 0xff);
	out(0x80, 1, 0);
	out(0xed, 1, 0);
}

static uint64_t fw_cfg(uint16_t key, unsigned len)
{
	uint64_t v = 0;

	out(0x510, 2, key);
	for (unsigned i = 0; i < len; i++)
		v |= (uint64_t)in(0x511, 1) << i * 8;
	return v;
}

static void test_fw_cfg(void **state)
{
	assert_int_equal(fw_cfg(5, 2), CPUS);
	assert_int_equal(fw_cfg(3, 8), MIB(128));
	assert_int_equal(fw_cfg(0x11, 4), 0);
	assert_int_equal(fw_cfg(0, 4), 0x554d4551);
	assert_int_equal(in(0x511, 1), 0); /* past the end */
	assert_int_equal(in(0x510, 2), 0xffff);
	out(0x510, 1, 5);
	assert_int_equal(in(0x511, 1), 0);
}

static void test_testdev(void **state)
{
	out(0xe0, 4, 0x11223344);
	assert_int_equal(in(0xe0, 4), 0x11223344);
	assert_int_equal(in(0xe0, 2), 0x3344);
	assert_int_equal(in(0xe2, 1), 0x22);
	out(0xe1, 1, 0x99);
	assert_int_equal(in(0xe0, 4), 0x11229944);
	out(0xe4, 4, 0x1000);
	board_mmio_write(board, 0, 0xff000000 + 0xfff8, 8, 0x1122334455667788);
	assert_true(board_mmio_read(board, 1, 0xff00fff8, 8) == 0x1122334455667788);
	assert_int_equal(board_mmio_read(board, 1, 0xff00fffe, 4), 0xffff1122);
	assert_int_equal(board_mmio_read(board, 1, 0xd0000000, 4), 0xffffffff);
}

static void ioapic_rte(unsigned pin, uint64_t rte)
{
	for (unsigned i = 0; i < 2; i++) {
		board_mmio_write(board, 0, 0xfec00000, 4, 0x11 + pin * 2 - i);
		board_mmio_write(board, 0, 0xfec00010, 4, i ? (uint32_t)rte : rte >> 32);
	}
}

static void test_pit_by_pic(void **state)
{
	struct lapic *l = board_lapic(board, 0);

	assert_int_equal(lapic_pending(l), -1);
	run_to(&clk, 60000000); /* as firmware left it: vector 8, 18 Hz */
	assert_int_equal(lapic_pending(l), LAPIC_EXTINT);
	assert_true(kicks[0] > 0);
	assert_int_equal(kicks[1], 0);
	assert_int_equal(lapic_pending(board_lapic(board, 1)), -1);
	assert_int_equal(lapic_ack(l), 8);
	assert_int_equal(lapic_pending(l), -1);
	out(0x20, 1, 0x20);
	run_to(&clk, 120000000);
	assert_int_equal(lapic_ack(l), 8);
}

static void test_by_ioapic(void **state)
{
	struct lapic *l = board_lapic(board, 1);

	board_mmio_write(board, 1, 0xfee000f0, 4, 0x1ff);
	ioapic_rte(BOARD_GSI_PIT, 1ull << 56 | 0x30);
	run_to(&clk, 60000000);
	assert_int_equal(lapic_ack(l), 0x30);
	board_mmio_write(board, 1, 0xfee000b0, 4, 0);
	/* Level: again and again until the line is let go. */
	ioapic_rte(BOARD_GSI_SCI, 1ull << 56 | 0x8041);
	out(BOARD_PM1A_EVT + 2, 2, 0x100);
	acpi_pm_power_button(&board->acpi_pm);
	assert_int_equal(lapic_ack(l), 0x41);
	board_mmio_write(board, 1, 0xfee000b0, 4, 0);
	assert_int_equal(lapic_ack(l), 0x41);
	out(BOARD_PM1A_EVT, 2, 0x100);
	board_mmio_write(board, 1, 0xfee000b0, 4, 0);
	assert_int_equal(lapic_pending(l), -1);
	/* Lines by port, above the ISA range too. */
	ioapic_rte(20, 1ull << 56 | 0x52);
	out(0x2000 + 20, 1, 1);
	assert_int_equal(lapic_ack(l), 0x52);
	assert_int_equal(irq_msi(&board->router, 0xfee01000, 0x63), 1);
	assert_int_equal(lapic_ack(l), 0x63);
}

/* All rows, end to end in one buffer. */
static size_t save_all(uint8_t *to, size_t cap)
{
	struct board_state_row row;
	size_t len = 0;

	for (unsigned i = 0; board_state_row(board, i, &row) == 0; i++) {
		assert_true(len + row.desc->size <= cap);
		row.save(row.dev, to + len);
		len += ALIGN_UP(row.desc->size, 8u);
	}
	return len;
}

static void test_state(void **state)
{
	const size_t cap = 1 << 20;
	uint8_t *a = calloc(1, cap), *b = calloc(1, cap);
	struct board_state_row row;
	struct board_config cfg;
	size_t len, at = 0;
	unsigned rows = 0;

	out(0x21, 1, 0xb8);
	out(0x3f9, 1, 0x05);
	out(0xe0, 4, 0xdeadbeef);
	out(0x2005, 1, 1);
	ioapic_rte(9, 0x8041);
	board_mmio_write(board, 1, 0xfee000f0, 4, 0x1ff);
	run_to(&clk, 70000000);
	clock_pause(&clk);
	len = save_all(a, cap);
	board_destroy(board);
	clock_finish(&clk);

	manual_clock(&clk);
	clock_pause(&clk);
	cfg = config();
	assert_int_equal(board_create(&cfg, &board), 0);
	for (; board_state_row(board, rows, &row) == 0; rows++) {
		assert_int_equal(row.load(row.dev, a + at), 0);
		at += ALIGN_UP(row.desc->size, 8u);
	}
	assert_int_equal(at, len);
	assert_int_equal(rows, 10 + CPUS);
	assert_int_equal(save_all(b, cap), len);
	assert_memory_equal(a, b, len);
	clock_resume(&clk);
	assert_int_equal(lapic_ack(board_lapic(board, 0)), 8);

	/* Hostile states may be refused or taken, but do no harm. */
	srand(1);
	for (unsigned round = 0; round < 300; round++) {
		at = 0;
		for (unsigned i = 0; board_state_row(board, i, &row) == 0; i++) {
			memcpy(b, a + at, row.desc->size);
			at += ALIGN_UP(row.desc->size, 8u);
			for (unsigned n = 0; i && n < 1 + round % 8; n++)
				b[(unsigned)rand() % row.desc->size] = (uint8_t)rand();
			if (i)
				row.load(row.dev, b);
		}
		for (unsigned i = 0; i < 50; i++) {
			in((uint16_t)(rand() % 0x700), 1);
			out((uint16_t)(rand() % 0x700), 1, (uint32_t)rand());
		}
		/* A saved counter may want a lot at once: only a few steps. */
		for (unsigned i = 0; i < 20 && clock_next_deadline(&clk) != CLOCK_NEVER; i++) {
			clock_advance(&clk, MIN(clock_next_deadline(&clk), 1000000000000ull));
			clock_run(&clk);
		}
		lapic_ack(board_lapic(board, 0));
	}
	free(a);
	free(b);
}

static void test_reset(void **state)
{
	out(0x2005, 1, 1);
	out(0x21, 1, 0);
	board_mmio_write(board, 0, 0xfee000f0, 4, 0x1ff);
	assert_int_equal(lapic_pending(board_lapic(board, 0)), LAPIC_EXTINT);
	board_reset(board);
	assert_int_equal(lapic_pending(board_lapic(board, 0)), -1);
	assert_int_equal(in(0x21, 1), 0xfa);
	assert_int_equal(board_mmio_read(board, 0, 0xfee000f0, 4), 0xff);
	run_to(&clk, clock_now(&clk) + 60000000);
	assert_int_equal(lapic_ack(board_lapic(board, 0)), 8);
}

static void test_config(void **state)
{
	struct board_config cfg = config();
	struct board *none = NULL;

	cfg.cpus = 0;
	assert_int_equal(board_create(&cfg, &none), -EINVAL);
	cfg = config();
	cfg.clock = NULL;
	assert_int_equal(board_create(&cfg, &none), -EINVAL);
	cfg = config();
	cfg.epoch_ns = -1;
	assert_int_equal(board_create(&cfg, &none), -EINVAL);
	assert_null(none);
	cfg = config();
	cfg.test_devices = false;
	assert_int_equal(board_create(&cfg, &none), 0);
	bus_write(&none->bus, BUS_PIO, 0xf4, 4, 0);
	assert_int_equal(exits, 0);
	board_destroy(none);
	board_destroy(NULL);
}

/* Chips that are somebody else's: what ours would do is told to him, or not done. */
static unsigned far_lines, far_msis, far_pic;
static uint32_t far_level;

static void far_set_gsi(void *opaque, unsigned gsi, bool level)
{
	far_lines++;
	far_level = level ? far_level | 1u << gsi : far_level & ~(1u << gsi);
}

static int far_msi(void *opaque, uint64_t addr, uint32_t data)
{
	far_msis++;
	return 1;
}

static void far_pic_intr(void *opaque)
{
	far_pic++;
}

static const struct irq_router_ops far_ops = {.set_gsi = far_set_gsi, .msi = far_msi};

static struct board *far_board(enum board_chips chips)
{
	struct board_config cfg = config();
	struct board *b;

	/* The other one's timers kick too. */
	board_destroy(board);
	board = NULL;
	far_lines = far_msis = far_pic = far_level = 0;
	cfg.chips = chips;
	assert_int_equal(board_create(&cfg, &b), -EINVAL);
	cfg.irq_ops = &far_ops;
	cfg.pic_intr = far_pic_intr;
	assert_int_equal(board_create(&cfg, &b), 0);
	return b;
}

static void test_chips_engine(void **state)
{
	struct board *b = far_board(BOARD_CHIPS_ENGINE);
	struct lapic_state lapic;
	struct pit_state pit;
	unsigned kicked;

	/* Neither the PIT nor a local APIC's timer ticks here, whatever is loaded. */
	pit_save(&b->pit, &pit);
	assert_int_equal(pit_load(&b->pit, &pit), 0);
	lapic_save(board_lapic(b, 0), &lapic);
	lapic.svr = 0x1ff;
	lapic.lvt[LAPIC_LVT_TIMER] = 0x20040;
	lapic.initial_count = 1000;
	lapic.expire_ns = clock_now(&clk) + 1000;
	assert_int_equal(lapic_load(board_lapic(b, 0), &lapic), 0);
	kicked = kicks[0];
	run_to(&clk, clock_now(&clk) + 200000000);
	assert_int_equal(kicks[0], kicked);
	assert_int_equal(far_lines, 0);
	/* Lines and messages leave. */
	board_pio_write(b, 0x2000 + 9, 1, 1);
	assert_int_equal(far_level, 1u << 9);
	assert_int_equal(board_irq_lines(b), 1u << 9);
	assert_int_equal(irq_msi(&b->router, 0xfee00000, 0x40), 1);
	assert_int_equal(far_msis, 1);
	/* Ours again: they tick from the state that they were given. */
	board_set_chips(b, BOARD_CHIPS_OWN);
	assert_int_equal(pit_load(&b->pit, &pit), 0);
	run_to(&clk, clock_now(&clk) + 200000000);
	assert_true(kicks[0] > kicked);
	assert_int_equal(lapic_pending(board_lapic(b, 0)), LAPIC_EXTINT);
	/* And no more: the PIT's line is left low. */
	board_set_chips(b, BOARD_CHIPS_ENGINE);
	assert_int_equal(board_irq_lines(b), 1u << 9);
	board_destroy(b);
}

static void test_chips_split(void **state)
{
	struct board *b = far_board(BOARD_CHIPS_SPLIT);

	/* The 8259s' INT goes out, not to the local APICs. */
	assert_false(board_pic_pending(b));
	run_to(&clk, clock_now(&clk) + 60000000);
	assert_true(board_pic_pending(b) && far_pic > 0);
	assert_int_equal(lapic_pending(board_lapic(b, 0)), -1);
	assert_int_equal(pic_ack(&b->pic), 8);
	assert_false(board_pic_pending(b));
	/* A level through the I/O APIC, until its EOI finds the line low. */
	board_mmio_write(b, 0, 0xfec00000, 4, 0x10 + 2 * 10);
	board_mmio_write(b, 0, 0xfec00010, 4, 0x8055);
	board_pio_write(b, 0x2000 + 10, 1, 1);
	assert_int_equal(far_msis, 1);
	board_eoi(b, 0x55);
	assert_int_equal(far_msis, 2);
	board_pio_write(b, 0x2000 + 10, 1, 0);
	board_eoi(b, 0x55);
	assert_int_equal(far_msis, 2);
	board_destroy(b);
}

/* Two vCPUs, the clock's loop and an input thread at once; TSan is the judge. */
static bool stop;

static void *vcpu(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg, seed = id + 1;
	struct lapic *l = board_lapic(board, id);

	board_mmio_write(board, id, 0xfee000f0, 4, 0x1ff);
	board_mmio_write(board, id, 0xfee003e0, 4, 0xb);
	board_mmio_write(board, id, 0xfee00320, 4, 0x20030);
	board_mmio_write(board, id, 0xfee00380, 4, 20000);
	for (unsigned i = 0; i < 3000; i++) {
		unsigned r = (unsigned)rand_r(&seed);
		int vector;

		board_mmio_write(board, id, 0xfee00310, 4, (r & 1) << 24);
		board_mmio_write(board, id, 0xfee00300, 4, 0x4000 | (0x40 + r % 0xb0));
		out((uint16_t)(0x2000 + r % 24), 1, r >> 8 & 1);
		ioapic_rte(r % 24, (uint64_t)(r & 1) << 56 | 0x8000 | (0x40 + r % 0x80));
		in(0x3fd, 1);
		out(0x3f8, 1, 'x');
		in(0x3f8, 1);
		in(0x40, 1);
		in(0x608, 4);
		in(0x71, 1);
		/* A level that nobody takes away would come for ever. */
		for (unsigned n = 0; n < 8 && (vector = lapic_ack(l)) >= 0; n++) {
			if (vector >= 0x30)
				board_mmio_write(board, id, 0xfee000b0, 4, 0);
			else
				out(0x20, 1, 0x20);
		}
	}
	return NULL;
}

static void *clock_loop(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		clock_advance(&clk, clock_now(&clk) + 10000);
		clock_run(&clk);
		serial_input(&board->com1, (const uint8_t *)"abc", 3);
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t cpu[CPUS], loop;

	stop = false;
	out(0x3f9, 1, 0x03);
	out(0x3fc, 1, 0x08);
	assert_int_equal(pthread_create(&loop, NULL, clock_loop, NULL), 0);
	for (uintptr_t i = 0; i < CPUS; i++)
		assert_int_equal(pthread_create(&cpu[i], NULL, vcpu, (void *)i), 0);
	for (unsigned i = 0; i < CPUS; i++)
		pthread_join(cpu[i], NULL);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(loop, NULL);
	assert_true(kicks[0] > 0 && kicks[1] > 0);
	assert_true(text_len > 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_small),	      T(test_fw_cfg),	   T(test_testdev), T(test_pit_by_pic),
		T(test_by_ioapic),    T(test_state),	   T(test_reset),   T(test_config),
		T(test_chips_engine), T(test_chips_split), T(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
