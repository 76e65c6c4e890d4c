/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* GDB's protocol against a target that only plays one: packets in, packets out. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vm/gdb_stub.h"

#define VCPUS 2
#define BASE  0x1000u
#define BYTES 0x2000u

/* Two vCPUs, and memory at BASE. */
struct target {
	struct gdb_stub *stub;
	struct cpu_state state[VCPUS];
	uint8_t memory[BYTES];
	enum gdb_action action[VCPUS];
	struct cpu_host_debug debug;
	unsigned resumed, stopped, killed;
	bool stop_at_once;
	char command[64];
};

static void get_state(void *target, unsigned vcpu, struct cpu_state *ret_state)
{
	*ret_state = ((struct target *)target)->state[vcpu];
}

static int set_state(void *target, unsigned vcpu, const struct cpu_state *state)
{
	((struct target *)target)->state[vcpu] = *state;
	return 0;
}

static size_t within(gva_t gva, size_t len, struct buf *why)
{
	if (gva < BASE || gva >= BASE + BYTES) {
		buf_printf(why, "nothing is there");
		return 0;
	}
	return MIN(len, (size_t)(BASE + BYTES - gva));
}

static size_t read_memory(void *target, unsigned vcpu, gva_t gva, void *data, size_t len,
			  struct buf *why)
{
	size_t n = within(gva, len, why);

	memcpy(data, ((struct target *)target)->memory + (n ? gva - BASE : 0), n);
	return n;
}

static size_t write_memory(void *target, unsigned vcpu, gva_t gva, const void *data, size_t len,
			   struct buf *why)
{
	size_t n = within(gva, len, why);

	memcpy(((struct target *)target)->memory + (n ? gva - BASE : 0), data, n);
	return n;
}

static void resume(void *target, const struct gdb_resume *resume)
{
	const struct gdb_stop stop = {.vcpu = 1, .signal = GDB_STOP_SIGTRAP};
	struct target *t = target;

	assert_int_equal(resume->vcpus, VCPUS);
	memcpy(t->action, resume->action, sizeof(t->action));
	t->debug = *resume->debug;
	t->resumed++;
	if (t->stop_at_once)
		gdb_stub_stopped(t->stub, &stop);
}

static void stop(void *target)
{
	((struct target *)target)->stopped++;
}

static void kill_machine(void *target)
{
	((struct target *)target)->killed++;
}

static void monitor(void *target, unsigned vcpu, const char *command, struct buf *out)
{
	struct target *t = target;

	snprintf(t->command, sizeof(t->command), "%s", command);
	if (!strcmp(command, "much"))
		for (unsigned k = 0; k < 3000; k++)
			buf_printf(out, "line %u\n", k);
	else
		buf_printf(out, "vCPU %u", vcpu);
}

static int can_stop(void *target, const struct cpu_host_debug *debug)
{
	return debug->watches > CPU_HOST_WATCHES || debug->breakpoints > CPU_HOST_BREAKPOINTS;
}

static const struct gdb_target_ops ops = {
	.get_state = get_state,
	.set_state = set_state,
	.read = read_memory,
	.write = write_memory,
	.can_stop = can_stop,
	.resume = resume,
	.stop = stop,
	.kill = kill_machine,
	.monitor = monitor,
};

/* ---- talking -----------------------------------------------------------------------------------
 */

static struct target *start(enum gdb_arch arch)
{
	struct target *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	for (unsigned k = 0; k < VCPUS; k++) {
		t->state[k].rip = 0xffffffff81000000 + k;
		t->state[k].rflags = X86_FLAG_ONE;
		t->state[k].efer = X86_EFER_LMA;
		t->state[k].fx.mxcsr_mask = 0xffff;
	}
	t->stub = gdb_stub_create(&ops, t, VCPUS, arch);
	assert_non_null(t->stub);
	return t;
}

static void finish(struct target *t)
{
	gdb_stub_destroy(t->stub);
	free(t);
}

static int send_raw(struct target *t, const char *data)
{
	return gdb_stub_input(t->stub, data, strlen(data));
}

static int send(struct target *t, const char *body)
{
	char packet[2 * GDB_PACKET_MAX];
	uint8_t sum = 0;

	for (const char *p = body; *p; p++)
		sum = (uint8_t)(sum + (uint8_t)*p);
	snprintf(packet, sizeof(packet), "$%s#%02x", body, sum);
	return send_raw(t, packet);
}

/* All that came, and it is gone then. */
static const char *output(struct target *t)
{
	static char text[4 * GDB_PACKET_MAX];
	struct buf *out = gdb_stub_output(t->stub);

	assert_true(out->len < sizeof(text));
	memcpy(text, out->data ? out->data : "", out->len);
	text[out->len] = 0;
	buf_consume(out, out->len);
	return text;
}

/* The body of the one packet that answers @body; its checksum is looked at. */
static const char *ask(struct target *t, const char *body)
{
	static char answer[GDB_PACKET_MAX + 1];
	const char *text;
	unsigned sum, want = 0;
	char *hash;

	assert_int_equal(send(t, body), 0);
	text = output(t);
	if (*text == '+')
		text++;
	assert_int_equal(*text, '$');
	hash = strchr(text, '#');
	assert_non_null(hash);
	assert_int_equal(sscanf(hash + 1, "%2x", &sum), 1);
	assert_int_equal(hash[3], 0);
	snprintf(answer, sizeof(answer), "%.*s", (int)(hash - text - 1), text + 1);
	for (const char *p = answer; *p; p++)
		want += (uint8_t)*p;
	assert_int_equal(want & 0xff, sum);
	return answer;
}

#define expect(t, body, want) assert_string_equal(ask(t, body), want)

/* ---- framing -----------------------------------------------------------------------------------
 */

static void test_checksum_and_acks(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);

	send_raw(t, "$qC#b4");
	assert_string_equal(output(t), "+$QC1#c5");
	/* The last packet again. */
	send_raw(t, "-");
	assert_string_equal(output(t), "$QC1#c5");
	send_raw(t, "+");
	assert_string_equal(output(t), "");
	send_raw(t, "$qC#b5");
	assert_string_equal(output(t), "-");
	send_raw(t, "$qC#zz");
	assert_string_equal(output(t), "-");
	/* Byte by byte, with noise between packets. */
	for (const char *p = "xy+$qC#b4"; *p; p++)
		assert_int_equal(gdb_stub_input(t->stub, p, 1), 0);
	assert_string_equal(output(t), "+$QC1#c5");
	finish(t);
}

static void test_no_ack(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);

	send(t, "QStartNoAckMode");
	assert_string_equal(output(t), "+$OK#9a");
	send_raw(t, "+");
	/* From now on a checksum means nothing, and nothing is sent again. */
	send_raw(t, "$qC#00");
	assert_string_equal(output(t), "$QC1#c5");
	send_raw(t, "-");
	assert_string_equal(output(t), "");
	finish(t);
}

static void test_bounds(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);
	char *big = malloc(GDB_PACKET_MAX + 3);

	memset(big, 'm', GDB_PACKET_MAX + 2);
	big[0] = '$';
	big[GDB_PACKET_MAX + 1] = '#';
	big[GDB_PACKET_MAX + 2] = 0;
	assert_int_equal(send_raw(t, big), 0);
	finish(t);
	t = start(GDB_ARCH_AMD64);
	big[GDB_PACKET_MAX + 1] = 'm';
	assert_int_equal(send_raw(t, big), -EPROTO);
	finish(t);
	free(big);
	/* Asked again and again, and nothing is read: it ends. */
	t = start(GDB_ARCH_AMD64);
	for (unsigned k = 0; k < GDB_OUTPUT_MAX / 1000; k++)
		if (send(t, "g"))
			break;
	assert_int_equal(send(t, "g"), -ENOBUFS);
	finish(t);
}

static void test_unknown(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);
	static const char *const bodies[] = {"",      "qCRC:0,1", "vMustReplyEmpty",
					     "vRun;", "Z9,1,1",	  "qTStatus",
					     "!",     "R00",	  "qXfer:memory-map:read::0,10",
					     "QSetX"};

	for (size_t k = 0; k < ARRAY_SIZE(bodies); k++)
		expect(t, bodies[k], "");
	finish(t);
}

static void test_malformed(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);
	static const char *const bodies[] = {
		"m",
		"m1000",
		"m1000,",
		"mg,1",
		"m1000,1x",
		"M1000,2:12",
		"M1000,1:1",
		"M1000,1",
		"M1000,ffffffffffffffff:00",
		"X1000,2:a",
		"X1000",
		"p",
		"pffffffff",
		"p-1",
		"P0",
		"P0=12",
		"Pfff=00",
		"P0=zzzzzzzzzzzzzzzz",
		"G12",
		"Gzz",
		"Z0",
		"Z0,",
		"Z0,1",
		"Z2,1000,0",
		"Z2,1000,ffffffff",
		"Z2,ffffffffffffffff,8",
		"Z0,1,1;X1,0",
		"H",
		"Hx1",
		"Hg3",
		"Hg-2",
		"T3",
		"T",
		"vCont;",
		"vCont;x",
		"vCont;c:7",
		"vCont;t",
		"vContc",
		"vCont;C",
		"qRcmd,1",
		"qRcmd,zz",
		"qThreadExtraInfo,9",
		"qXfer:features:read:target.xml:",
		"qXfer:features:read:target.xml:1",
		"qXfer:threads:read::zz,1",
		"c12345678901234567",
		"Czz",
		"S",
	};

	for (size_t k = 0; k < ARRAY_SIZE(bodies); k++) {
		const char *answer = ask(t, bodies[k]);

		if (strcmp(bodies[k], "vContc") != 0 && answer[0] != 'E')
			fail_msg("%s: %s", bodies[k], answer);
	}
	assert_int_equal(t->resumed, 0);
	finish(t);
}

/* ---- registers and memory ----------------------------------------------------------------------
 */

static void test_registers(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);

	t->state[0].gpr[X86_RBX] = 0x1122334455667788;
	t->state[0].seg[X86_CS].sel = 0x33;
	t->state[0].cr3 = 0xabcd000;
	t->state[1].gpr[X86_RBX] = 7;
	expect(t, "p1", "8877665544332211");
	expect(t, "p12", "33000000");
	expect(t, "P1=0100000000000000", "OK");
	assert_int_equal(t->state[0].gpr[X86_RBX], 1);
	expect(t, "Hg2", "OK");
	expect(t, "p1", "0700000000000000");
	/* What has hidden parts is not written; the same value is no write. */
	expect(t, "P12=00000000", "OK");
	assert_int_equal(ask(t, "P12=10000000")[0], 'E');
	/* No address that the processor cannot hold, and bit 1 of the flags stays set. */
	assert_int_equal(ask(t, "P10=0000000000000080")[0], 'E');
	expect(t, "P11=ffffffff", "OK");
	assert_int_equal(t->state[1].rflags & (X86_FLAG_ONE | X86_FLAG_VM | X86_FLAG_CF),
			 X86_FLAG_ONE | X86_FLAG_CF);
	finish(t);
}

static void test_all_registers_round(void **state)
{
	for (enum gdb_arch arch = GDB_ARCH_AMD64; arch <= GDB_ARCH_I386; arch++) {
		struct target *t = start(arch);
		char write[GDB_PACKET_MAX + 2] = "G";
		uint8_t value[GDB_REG_BYTES];
		size_t bytes = 0;

		for (unsigned n = 0; n < gdb_reg_count(arch); n++) {
			assert_int_equal(gdb_reg_get(arch, n, &t->state[0], value),
					 gdb_reg_size(arch, n));
			bytes += gdb_reg_size(arch, n);
		}
		assert_int_equal(gdb_reg_size(arch, gdb_reg_count(arch)), 0);
		snprintf(write + 1, sizeof(write) - 1, "%s", ask(t, "g"));
		assert_int_equal(strlen(write + 1), 2 * bytes);
		memcpy(write + 1, "efbeadde", 8);
		expect(t, write, "OK");
		assert_int_equal(t->state[0].gpr[X86_RAX], 0xdeadbeef);
		assert_string_equal(ask(t, "g"), write + 1);
		finish(t);
	}
}

/* Tag word 3 is empty, 0 valid, 1 zero, 2 special. */
static void test_x87_tags(void **state)
{
	struct cpu_state s = {.fx = {.fsw = 7 << 11, .ftw = 0xc0}};
	uint8_t value[GDB_REG_BYTES];
	const unsigned ftag = 34; /* after 24 integer registers, ST(0) to ST(7), fctrl, fstat */

	s.fx.st[0].lo = 1ull << 63;
	s.fx.st[0].hi = 0x3fff;
	gdb_reg_get(GDB_ARCH_AMD64, ftag, &s, value);
	/* Top is 7: physical 7 is ST(0), a number; physical 6 is ST(7), a zero. */
	assert_int_equal(value[0] | value[1] << 8, 0x1fff);
	value[1] = 0xff;
	assert_int_equal(gdb_reg_set(GDB_ARCH_AMD64, ftag, &s, value), 0);
	assert_int_equal(s.fx.ftw, 0);
}

static void test_memory(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);
	static const char binary[] = "X1000,4:a}\x03}\x04\x01";

	memcpy(t->memory, "umbra", 5);
	expect(t, "m1000,5", "756d627261");
	expect(t, "m2ffe,10", "0000");
	expect(t, "m1000,0", "");
	expect(t, "m10,4", "E0e");
	expect(t, "M1001,2:4142", "OK");
	assert_memory_equal(t->memory, "uABra", 5);
	expect(t, "M2fff,2:4142", "E0e");
	expect(t, binary, "OK");
	assert_memory_equal(t->memory, "a#$\x01", 4);
	expect(t, "X1000,0:", "OK");
	/* A debugger that says so reads why. */
	assert_non_null(strstr(ask(t, "qSupported:error-message+"), "PacketSize=4000"));
	expect(t, "m10,4", "E.nothing is there");
	finish(t);
}

/* ---- stopping and going ------------------------------------------------------------------------
 */

static void test_continue_and_stop(void **state)
{
	struct gdb_stop stop_ = {.vcpu = 1, .signal = GDB_STOP_SIGTRAP};
	struct target *t = start(GDB_ARCH_AMD64);

	expect(t, "?", "T05thread:1;core:0;");
	ask(t, "qSupported:swbreak+;hwbreak+;xmlRegisters=i386");
	expect(t, "Z0,ffffffff81000001,1", "OK");
	expect(t, "Z1,ffffffff81000005,1", "OK");
	assert_int_equal(send(t, "vCont;c"), 0);
	assert_string_equal(output(t), "+");
	assert_true(gdb_stub_running(t->stub));
	assert_int_equal(t->action[0], GDB_CONTINUE);
	assert_int_equal(t->debug.breakpoints, 2);
	stop_.reason = GDB_STOPPED_BREAKPOINT;
	stop_.gva = 0xffffffff81000001;
	gdb_stub_stopped(t->stub, &stop_);
	assert_non_null(strstr(output(t), "$T05thread:2;core:1;swbreak:;#"));
	/* A stop that nobody waits for is not told. */
	gdb_stub_stopped(t->stub, &stop_);
	assert_string_equal(output(t), "");
	/* The stopped thread is the one in use. */
	expect(t, "qC", "QC2");
	t->stop_at_once = true;
	send(t, "s");
	assert_non_null(strstr(output(t), "+$T05thread:2;"));
	assert_int_equal(t->action[0], GDB_CONTINUE);
	assert_int_equal(t->action[1], GDB_STEP);
	finish(t);
}

static void test_vcont_actions(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);

	t->stop_at_once = true;
	send(t, "vCont;s:2");
	assert_int_equal(t->action[0], GDB_HOLD);
	assert_int_equal(t->action[1], GDB_STEP);
	send(t, "vCont;s:1;c");
	assert_int_equal(t->action[0], GDB_STEP);
	assert_int_equal(t->action[1], GDB_CONTINUE);
	send(t, "vCont;t:1;C05");
	assert_int_equal(t->action[0], GDB_HOLD);
	assert_int_equal(t->action[1], GDB_CONTINUE);
	send(t, "vCont;c:-1;s:1");
	assert_int_equal(t->action[0], GDB_CONTINUE);
	/* The older packets, for the thread that Hc chose; with an address. */
	output(t);
	expect(t, "Hc1", "OK");
	send(t, "c1234");
	assert_int_equal(t->action[0], GDB_CONTINUE);
	assert_int_equal(t->action[1], GDB_HOLD);
	assert_int_equal(t->state[0].rip, 0x1234);
	assert_int_equal(t->resumed, 5);
	finish(t);
}

static void test_interrupt(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);

	send_raw(t, "\x03");
	assert_int_equal(t->stopped, 0);
	send(t, "c");
	output(t);
	send_raw(t, "\x03");
	assert_int_equal(t->stopped, 1);
	assert_non_null(strstr(output(t), "$T02thread:1;"));
	/* A packet amid a run stops it too, untold. */
	send(t, "c");
	output(t);
	expect(t, "qC", "QC1");
	assert_int_equal(t->stopped, 2);
	assert_false(gdb_stub_running(t->stub));
	finish(t);
}

static void test_watchpoints(void **state)
{
	struct gdb_stop stop_ = {
		.signal = GDB_STOP_SIGTRAP, .reason = GDB_STOPPED_WATCH, .gva = 0x2000};
	struct target *t = start(GDB_ARCH_AMD64);

	expect(t, "Z3,2000,4", "OK");
	expect(t, "Z4,3000,8", "OK");
	expect(t, "Z2,4000,1", "OK");
	expect(t, "Z2,5000,1", "OK");
	expect(t, "Z2,6000,1", "E1c");
	expect(t, "Z2,5000,1", "OK"); /* it is there already */
	expect(t, "z2,7000,1", "OK"); /* it is gone already */
	send(t, "c");
	output(t);
	assert_int_equal(t->debug.watches, 4);
	assert_int_equal(t->debug.watch[0].access, CPU_WATCH_READ);
	gdb_stub_stopped(t->stub, &stop_);
	assert_non_null(strstr(output(t), "rwatch:2000;"));
	expect(t, "z3,2000,4", "OK");
	send(t, "c");
	assert_int_equal(t->debug.watches, 3);
	finish(t);
}

static void test_many_breakpoints(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);
	char body[64];

	for (unsigned k = 0; k < CPU_HOST_BREAKPOINTS; k++) {
		snprintf(body, sizeof(body), "Z0,%x,1", 0x1000 + k);
		expect(t, body, "OK");
	}
	expect(t, "Z0,9999,1", "E1c");
	expect(t, "z0,1000,1", "OK");
	expect(t, "Z0,9999,1", "OK");
	send(t, "c");
	assert_int_equal(t->debug.breakpoints, CPU_HOST_BREAKPOINTS);
	for (unsigned k = 0; k < CPU_HOST_BREAKPOINTS; k++)
		assert_int_not_equal(t->debug.breakpoint[k], 0x1000);
	finish(t);
}

/* ---- the rest ----------------------------------------------------------------------------------
 */

static void test_threads(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);

	t->state[1].activity = CPU_HALTED;
	expect(t, "qfThreadInfo", "m1,2");
	expect(t, "qsThreadInfo", "l");
	expect(t, "T2", "OK");
	expect(t, "qAttached", "1");
	assert_non_null(strstr(ask(t, "qXfer:threads:read::0,fff"), "<thread id=\"2\" core=\"1\""));
	assert_non_null(strstr(ask(t, "qXfer:threads:read::0,fff"), "halted"));
	expect(t, "qXfer:threads:read::fff,10", "l");
	finish(t);
}

/* Read in small pieces it is what it is in one. */
static void test_description(void **state)
{
	for (enum gdb_arch arch = GDB_ARCH_AMD64; arch <= GDB_ARCH_I386; arch++) {
		struct target *t = start(arch);
		struct buf whole = {0}, pieces = {0};
		char body[64];

		gdb_describe(arch, &whole);
		for (unsigned at = 0;; at += 100) {
			const char *answer;

			snprintf(body, sizeof(body), "qXfer:features:read:target.xml:%x,64", at);
			answer = ask(t, body);
			buf_printf(&pieces, "%s", answer + 1);
			if (*answer == 'l')
				break;
			assert_int_equal(*answer, 'm');
		}
		assert_string_equal(whole.data, pieces.data);
		assert_non_null(strstr(whole.data, arch ? ">i386<" : ">i386:x86-64<"));
		/* Nothing that would have to be escaped. */
		assert_null(strpbrk(whole.data, "#$}*"));
		buf_finish(&whole);
		buf_finish(&pieces);
		finish(t);
	}
}

static void test_monitor(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);
	const char *text;
	unsigned packets = 0;

	send(t, "qRcmd,68656c70");
	assert_string_equal(t->command, "help");
	assert_non_null(strstr(output(t), "$O764350552030#"));
	send(t, "qRcmd,6d756368");
	for (text = output(t); (text = strstr(text, "$O")); text++)
		packets++;
	assert_true(packets > 3); /* in pieces, then the OK */
	finish(t);
}

static void test_the_end(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);

	send(t, "c");
	output(t);
	gdb_stub_print(t->stub, "hi");
	assert_string_equal(output(t), "$O6869#2c");
	gdb_stub_ended(t->stub, false, 0);
	assert_string_equal(output(t), "$W00#b7");
	finish(t);
	t = start(GDB_ARCH_AMD64);
	send(t, "c");
	output(t);
	gdb_stub_ended(t->stub, true, 33);
	assert_non_null(strstr(output(t), "$X0b#"));
	finish(t);
	/* While it stood still: told at the next packet, and then it is over. */
	t = start(GDB_ARCH_AMD64);
	gdb_stub_ended(t->stub, false, 3);
	assert_string_equal(output(t), "");
	assert_int_equal(send(t, "g"), 1);
	assert_non_null(strstr(output(t), "$W03#"));
	finish(t);
}

static void test_detach_and_kill(void **state)
{
	struct target *t = start(GDB_ARCH_AMD64);

	assert_int_equal(send(t, "D"), 1);
	assert_non_null(strstr(output(t), "$OK#9a"));
	assert_int_equal(t->killed, 0);
	finish(t);
	t = start(GDB_ARCH_AMD64);
	assert_int_equal(send(t, "k"), 1);
	assert_string_equal(output(t), "+");
	assert_int_equal(t->killed, 1);
	finish(t);
	t = start(GDB_ARCH_AMD64);
	assert_int_equal(send(t, "vKill;1"), 1);
	assert_int_equal(t->killed, 1);
	finish(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_checksum_and_acks),
		cmocka_unit_test(test_no_ack),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_all_registers_round),
		cmocka_unit_test(test_x87_tags),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_continue_and_stop),
		cmocka_unit_test(test_vcont_actions),
		cmocka_unit_test(test_interrupt),
		cmocka_unit_test(test_watchpoints),
		cmocka_unit_test(test_many_breakpoints),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_description),
		cmocka_unit_test(test_monitor),
		cmocka_unit_test(test_the_end),
		cmocka_unit_test(test_detach_and_kill),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
