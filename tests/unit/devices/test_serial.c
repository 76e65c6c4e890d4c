/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The UART: FIFOs, interrupts by priority, loopback, batching and back-pressure. */
#include "test_devices.h"

#include "devices/serial.h"

static struct clock clk;
static struct probe probe;
static struct irq_router router;
static struct serial uart;
static char sent[4096];
static size_t sent_len;
static unsigned outputs, rooms;

static void output(void *opaque, const uint8_t *data, size_t len)
{
	assert_true(sent_len + len < sizeof(sent));
	memcpy(sent + sent_len, data, len);
	sent_len += len;
	outputs++;
}

static void input_ready(void *opaque)
{
	rooms++;
}

static int setup(void **state)
{
	struct serial_config cfg = {.output = output, .input_ready = input_ready, .clock = &clk};

	sent_len = 0;
	outputs = rooms = 0;
	probe = (struct probe){0};
	manual_clock(&clk);
	if (irq_router_init(&router, &probe_ops, &probe))
		return -1;
	irq_line_init(&cfg.irq, &router, 4);
	return serial_init(&uart, &cfg);
}

static int teardown(void **state)
{
	serial_finish(&uart);
	irq_router_finish(&router);
	clock_finish(&clk);
	return 0;
}

static uint8_t get(unsigned reg)
{
	return in8(&serial_ops, &uart, reg);
}

static void put(unsigned reg, uint8_t value)
{
	out8(&serial_ops, &uart, reg, value);
}

static size_t type(const char *text)
{
	return serial_input(&uart, (const uint8_t *)text, strlen(text));
}

static void test_registers(void **state)
{
	assert_int_equal(get(2), 0x01);
	assert_int_equal(get(5), 0x60);
	assert_int_equal(get(6), 0xb0);
	put(7, 0x5a);
	assert_int_equal(get(7), 0x5a);
	put(1, 0xff);
	assert_int_equal(get(1), 0x0f); /* as a 16550 is told from others */
	put(1, 0);
	put(3, 0x80);
	put(0, 0x01);
	put(1, 0x02);
	assert_int_equal(get(0), 0x01);
	assert_int_equal(get(1), 0x02);
	put(3, 0x03);
	assert_int_equal(get(1), 0x00);
	put(2, 0x01);
	assert_int_equal(get(2), 0xc1);
	put(2, 0x00);
	assert_int_equal(get(2), 0x01);
	assert_int_equal(uart.s.divisor, 0x201);
}

static void test_output(void **state)
{
	for (const char *p = "hello\n"; *p; p++)
		put(0, (uint8_t)*p);
	assert_int_equal(outputs, 0);
	run_to(&clk, SERIAL_FLUSH_NS);
	assert_int_equal(outputs, 1);
	assert_memory_equal(sent, "hello\n", 6);
	for (unsigned i = 0; i < SERIAL_OUT_BATCH; i++)
		put(0, 'x');
	assert_int_equal(outputs, 2);
	put(0, 'y');
	serial_flush(&uart);
	assert_int_equal(outputs, 3);
	run_to(&clk, 100000000);
	assert_int_equal(outputs, 3);
	assert_int_equal(sent_len, 6 + SERIAL_OUT_BATCH + 1);
}

static void test_thre(void **state)
{
	unsigned rises;

	put(1, 0x02);
	assert_false(probe.level[4]); /* OUT2 keeps the gate shut */
	put(4, 0x08);
	assert_true(probe.level[4]);
	assert_int_equal(get(2), 0x02); /* reading takes it back */
	assert_false(probe.level[4]);
	assert_int_equal(get(2), 0x01);
	rises = probe.rises[4];
	put(0, 'a');
	assert_true(probe.level[4]);
	put(0, 'b'); /* a fresh edge, though nobody read the first */
	assert_int_equal(probe.rises[4], rises + 2);
	put(1, 0);
	assert_false(probe.level[4]);
	put(1, 0x02); /* enabling it with an empty register says so */
	assert_true(probe.level[4]);
}

static void test_receive(void **state)
{
	put(4, 0x08);
	put(1, 0x01);
	/* Without the FIFO, one byte at a time. */
	assert_int_equal(type("xyz"), 1);
	assert_true(probe.level[4]);
	assert_int_equal(get(2), 0x04);
	assert_int_equal(get(5) & 1, 1);
	assert_int_equal(rooms, 0);
	assert_int_equal(get(0), 'x');
	assert_int_equal(rooms, 1);
	assert_false(probe.level[4]);
	assert_int_equal(get(0), 0);
	/* With it, up to the trigger level. */
	put(2, 0x81); /* 8 */
	assert_int_equal(type("1234567"), 7);
	assert_false(probe.level[4]);
	assert_int_equal(type("8"), 1);
	assert_int_equal(get(2), 0xc4);
	for (char c = '1'; c < '8'; c++)
		assert_int_equal(get(0), c);
	assert_false(probe.level[4]);
	/* What stays below it times out. */
	run_to(&clk, clock_now(&clk) + 20000000);
	assert_true(probe.level[4]);
	assert_int_equal(get(2), 0xcc);
	assert_int_equal(get(0), '8');
	assert_false(probe.level[4]);
	run_to(&clk, clock_now(&clk) + 20000000);
	assert_false(probe.level[4]);
	assert_int_equal(type("0123456789abcdefgh"), 16);
	assert_int_equal(type("gh"), 0);
	for (unsigned i = 0; i < 16; i++)
		get(0);
	assert_int_equal(rooms, 2);
	assert_int_equal(get(5), 0x60);
	type("abc");
	put(2, 0x83); /* clear */
	assert_int_equal(get(5) & 1, 0);
}

static void test_line_status(void **state)
{
	put(4, 0x08);
	put(2, 0x01);
	put(1, 0x07);
	assert_int_equal(get(2), 0xc2);
	serial_break(&uart);
	assert_int_equal(get(2), 0xc6); /* before data and THRE */
	assert_int_equal(get(5), 0x60 | 0x80 | 0x10 | 0x01);
	assert_int_equal(get(2), 0xc4);
	assert_int_equal(get(0), 0);
	assert_int_equal(get(2), 0xc1);
}

static void test_loopback(void **state)
{
	put(4, 0x1a); /* loop, OUT2, RTS: what Linux looks for */
	assert_int_equal(get(6) & 0xf0, 0x90);
	put(4, 0x10);
	assert_int_equal(get(6), 0x09); /* DCD and CTS fell */
	assert_int_equal(get(6), 0x00);
	put(4, 0x14);
	assert_int_equal(get(6), 0x40); /* RI: no delta on its rise */
	put(4, 0x10);
	assert_int_equal(get(6), 0x04);
	put(0, 'q');
	assert_int_equal(type("z"), 0);
	assert_int_equal(get(5) & 1, 1);
	put(0, 'r');
	assert_int_equal(get(5) & 3, 3); /* overrun */
	assert_int_equal(get(5) & 2, 0);
	assert_int_equal(get(0), 'r');
	serial_flush(&uart);
	assert_int_equal(sent_len, 0);
	put(1, 0x08);
	put(4, 0x18);
	assert_true(probe.level[4]);
	assert_int_equal(get(2), 0x00);
	get(6);
	assert_false(probe.level[4]);
}

static void test_state(void **state)
{
	struct serial_state st;

	put(4, 0x08);
	put(2, 0x01);
	put(1, 0x01);
	type("ab");
	serial_save(&uart, &st);
	serial_reset(&uart);
	assert_false(probe.level[4]);
	assert_int_equal(get(5), 0x60);
	assert_int_equal(serial_load(&uart, &st), 0);
	assert_true(probe.level[4]);
	assert_int_equal(get(0), 'a');
	assert_int_equal(get(0), 'b');
	st.rx_len = 17;
	assert_int_equal(serial_load(&uart, &st), -EINVAL);
	st.rx_len = 2;
	st.fcr = 0;
	assert_int_equal(serial_load(&uart, &st), -EINVAL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers),   T(test_output),   T(test_thre),  T(test_receive),
		T(test_line_status), T(test_loopback), T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
