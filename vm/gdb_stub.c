/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* GDB's remote serial protocol: framing, and a row for each packet. */
#include "vm/gdb_stub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* As GDB numbers them, not this host. */
#define GDB_EINVAL 22
#define GDB_EFAULT 14
#define GDB_ENOSPC 28

enum phase { BETWEEN, BODY, SUM_HIGH, SUM_LOW };

struct gdb_stub {
	const struct gdb_target_ops *ops;
	void *target;
	unsigned vcpus;
	enum gdb_arch arch;

	enum phase phase;
	uint8_t sum;			 /* of the body */
	bool sum_ok;			 /* it is what was sent */
	char packet[GDB_PACKET_MAX + 1]; /* NUL behind it */
	size_t len;

	struct buf out;
	struct buf reply; /* the body of the next reply */
	size_t last_len;  /* of the last packet in @last, for a "-" */
	char *last;
	bool no_ack, next_no_ack, done;
	bool silent;	 /* nothing is to answer this packet: its reply is the stop, or none */
	bool error_text; /* the debugger reads "E.text" everywhere */

	bool running;
	bool ended, crashed;
	int status;	  /* when ended */
	unsigned general; /* the vCPU of g, m and so on */
	unsigned resume;  /* of c and s; GDB_ALL: every one */
	struct gdb_stop stop;
	struct cpu_host_debug debug;
	bool soft[CPU_HOST_BREAKPOINTS]; /* set by Z0; else by Z1 */
	bool says_swbreak, says_hwbreak;
	struct buf features, threads; /* XML, made when first asked for */
};

#define GDB_ALL (~0u)

/* ---- replies -----------------------------------------------------------------------------------
 */

static void put_packet(struct gdb_stub *s, const char *body, size_t len)
{
	uint8_t sum = 0;
	size_t start = s->out.len;

	for (size_t k = 0; k < len; k++)
		sum = (uint8_t)(sum + (uint8_t)body[k]);
	buf_append(&s->out, "$", 1);
	buf_append(&s->out, body, len);
	buf_printf(&s->out, "#%02x", sum);
	if (s->no_ack || s->out.failed)
		return;
	free(s->last);
	s->last_len = s->out.len - start;
	s->last = malloc(s->last_len);
	if (s->last)
		memcpy(s->last, s->out.data + start, s->last_len);
	else
		s->last_len = 0;
}

static void put_text(struct gdb_stub *s, const char *text)
{
	buf_append(&s->reply, text, strlen(text));
}

static void put_error(struct gdb_stub *s, unsigned number)
{
	buf_truncate(&s->reply, 0);
	buf_printf(&s->reply, "E%02x", number);
}

/* A sentence where the debugger can read one. "#", "$" and such cannot stand in a packet. */
static void put_error_text(struct gdb_stub *s, unsigned number, const char *text)
{
	if (!s->error_text) {
		put_error(s, number);
		return;
	}
	buf_truncate(&s->reply, 0);
	put_text(s, "E.");
	for (; *text; text++)
		buf_append(&s->reply, strchr("#$}*", *text) ? " " : text, 1);
}

static void put_ok(struct gdb_stub *s)
{
	put_text(s, "OK");
}

static void put_hex(struct buf *out, const void *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = data;

	if (buf_reserve(out, 2 * len))
		return;
	for (size_t k = 0; k < len; k++) {
		char two[2] = {digits[p[k] >> 4], digits[p[k] & 15]};

		buf_append(out, two, 2);
	}
}

/* ---- reading a packet --------------------------------------------------------------------------
 */

/* What is left of a packet's body. */
struct args {
	const char *at, *end;
};

static int hex_digit(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool args_empty(const struct args *a)
{
	return a->at == a->end;
}

static bool args_skip(struct args *a, char c)
{
	if (args_empty(a) || *a->at != c)
		return false;
	a->at++;
	return true;
}

/* One to sixteen hexadecimal digits. */
static bool args_number(struct args *a, uint64_t *value)
{
	const char *start = a->at;

	*value = 0;
	while (!args_empty(a) && hex_digit(*a->at) >= 0) {
		if (a->at - start == 16)
			return false;
		*value = *value << 4 | (unsigned)hex_digit(*a->at++);
	}
	return a->at != start;
}

/* Exactly @len bytes, as twice as many digits. */
static bool args_bytes(struct args *a, uint8_t *data, size_t len)
{
	if ((size_t)(a->end - a->at) < 2 * len)
		return false;
	for (size_t k = 0; k < len; k++, a->at += 2) {
		int high = hex_digit(a->at[0]), low = hex_digit(a->at[1]);

		if (high < 0 || low < 0)
			return false;
		data[k] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* "p1.2" is understood, though we do not offer processes. GDB_ALL for -1; 0 is the one in use. */
static bool args_thread(struct gdb_stub *s, struct args *a, unsigned *vcpu)
{
	uint64_t id;

	if (args_skip(a, '-')) {
		*vcpu = GDB_ALL;
		return args_number(a, &id) && id == 1;
	}
	if (!args_number(a, &id) || id > s->vcpus)
		return false;
	*vcpu = id ? (unsigned)id - 1 : s->general;
	return true;
}

/* "ADDR,LEN" */
static bool args_range(struct args *a, uint64_t *addr, uint64_t *len)
{
	return args_number(a, addr) && args_skip(a, ',') && args_number(a, len);
}

/* ---- going and stopping ------------------------------------------------------------------------
 */

static void put_stop(struct gdb_stub *s)
{
	const struct gdb_stop *stop = &s->stop;
	const struct cpu_host_debug *d = &s->debug;

	buf_printf(&s->reply, "T%02xthread:%x;core:%x;", (unsigned)stop->signal, stop->vcpu + 1,
		   stop->vcpu);
	if (stop->reason == GDB_STOPPED_WATCH) {
		const char *kind = "watch";

		for (unsigned n = 0; n < d->watches; n++)
			if (d->watch[n].gva == stop->gva)
				kind = d->watch[n].access == CPU_WATCH_WRITE  ? "watch"
				       : d->watch[n].access == CPU_WATCH_READ ? "rwatch"
									      : "awatch";
		buf_printf(&s->reply, "%s:%llx;", kind, (unsigned long long)stop->gva);
	}
	if (stop->reason != GDB_STOPPED_BREAKPOINT)
		return;
	for (unsigned n = 0; n < d->breakpoints; n++) {
		if (d->breakpoint[n] != stop->gva)
			continue;
		if (s->soft[n] ? s->says_swbreak : s->says_hwbreak)
			put_text(s, s->soft[n] ? "swbreak:;" : "hwbreak:;");
		return;
	}
}

void gdb_stub_stopped(struct gdb_stub *s, const struct gdb_stop *stop)
{
	if (!s->running || s->ended)
		return;
	s->running = false;
	s->stop = *stop;
	s->general = stop->vcpu;
	s->resume = GDB_ALL;
	buf_truncate(&s->reply, 0);
	put_stop(s);
	put_packet(s, s->reply.data, s->reply.len);
}

void gdb_stub_print(struct gdb_stub *s, const char *text)
{
	if (!s->running || s->ended)
		return;
	buf_truncate(&s->reply, 0);
	put_text(s, "O");
	put_hex(&s->reply, text, MIN(strlen(text), (size_t)GDB_PACKET_MAX / 2 - 1));
	put_packet(s, s->reply.data, s->reply.len);
}

static void put_end(struct gdb_stub *s)
{
	buf_truncate(&s->reply, 0);
	if (s->crashed)
		put_text(s, "X0b"); /* SIGSEGV, as the nearest to a triple fault */
	else
		buf_printf(&s->reply, "W%02x", (unsigned)s->status & 0xff);
	put_packet(s, s->reply.data, s->reply.len);
}

void gdb_stub_ended(struct gdb_stub *s, bool crashed, int status)
{
	if (s->ended)
		return;
	s->ended = true;
	s->crashed = crashed;
	s->status = status;
	/* Who does not wait hears of it at the next packet. */
	if (s->running)
		put_end(s);
	s->running = false;
}

bool gdb_stub_running(const struct gdb_stub *s)
{
	return s->running;
}

static void go(struct gdb_stub *s, const enum gdb_action *action)
{
	const struct gdb_resume resume = {
		.vcpus = s->vcpus,
		.action = action,
		.debug = &s->debug,
	};

	s->silent = true;
	s->running = true;
	s->ops->resume(s->target, &resume);
}

/* c, C, s and S: those that Hc chose. "c ADDR", "C SIG;ADDR". */
static void on_go(struct gdb_stub *s, enum gdb_action what, struct args a)
{
	enum gdb_action action[GDB_VCPUS_MAX];
	struct cpu_state state;
	unsigned vcpu = s->resume == GDB_ALL ? s->general : s->resume;
	uint64_t addr;

	if (!args_empty(&a)) {
		if (!args_number(&a, &addr) || !args_empty(&a)) {
			put_error(s, GDB_EINVAL);
			return;
		}
		s->ops->get_state(s->target, vcpu, &state);
		state.rip = addr;
		if (s->ops->set_state(s->target, vcpu, &state)) {
			put_error(s, GDB_EINVAL);
			return;
		}
	}
	for (unsigned k = 0; k < s->vcpus; k++)
		action[k] = s->resume == GDB_ALL ? GDB_CONTINUE : GDB_HOLD;
	action[vcpu] = what;
	go(s, action);
}

static void on_continue(struct gdb_stub *s, struct args a)
{
	on_go(s, GDB_CONTINUE, a);
}

static void on_step(struct gdb_stub *s, struct args a)
{
	on_go(s, GDB_STEP, a);
}

/* No signal can be delivered to a vCPU: it goes on without. */
static bool skip_signal(struct args *a)
{
	uint64_t signal;

	return args_number(a, &signal) && (args_skip(a, ';') || args_empty(a));
}

static void on_continue_signal(struct gdb_stub *s, struct args a)
{
	if (skip_signal(&a))
		on_go(s, GDB_CONTINUE, a);
	else
		put_error(s, GDB_EINVAL);
}

static void on_step_signal(struct gdb_stub *s, struct args a)
{
	if (skip_signal(&a))
		on_go(s, GDB_STEP, a);
	else
		put_error(s, GDB_EINVAL);
}

/* One ";ACTION[:THREAD]": the first that names a vCPU counts, one without a thread is for the rest.
 */
static bool take_action(struct gdb_stub *s, struct args *a, enum gdb_action *action, bool *given)
{
	unsigned vcpu = GDB_ALL;
	enum gdb_action what;
	uint64_t signal;
	char c;

	if (!args_skip(a, ';') || args_empty(a))
		return false;
	c = *a->at++;
	switch (c) {
	case 'c':
	case 'C': what = GDB_CONTINUE; break;
	case 's':
	case 'S': what = GDB_STEP; break;
	case 't': what = GDB_HOLD; break;
	default: return false;
	}
	if ((c == 'C' || c == 'S') && !args_number(a, &signal))
		return false;
	if (args_skip(a, ':') && !args_thread(s, a, &vcpu))
		return false;
	for (unsigned k = 0; k < s->vcpus; k++) {
		if (given[k] || (vcpu != GDB_ALL && vcpu != k))
			continue;
		given[k] = true;
		action[k] = what;
	}
	return true;
}

static void on_vcont(struct gdb_stub *s, struct args a)
{
	enum gdb_action action[GDB_VCPUS_MAX] = {GDB_HOLD};
	bool given[GDB_VCPUS_MAX] = {false}, any = false;

	while (!args_empty(&a))
		if (!take_action(s, &a, action, given)) {
			put_error(s, GDB_EINVAL);
			return;
		}
	for (unsigned k = 0; k < s->vcpus; k++)
		any |= action[k] != GDB_HOLD;
	if (any)
		go(s, action);
	else
		put_error(s, GDB_EINVAL);
}

static void on_vcont_query(struct gdb_stub *s, struct args a)
{
	put_text(s, "vCont;c;C;s;S;t");
}

static void on_why(struct gdb_stub *s, struct args a)
{
	put_stop(s);
}

/* Ctrl-C. */
static void interrupt(struct gdb_stub *s)
{
	const struct gdb_stop stop = {.vcpu = s->general, .signal = GDB_STOP_SIGINT};

	if (!s->running)
		return;
	s->ops->stop(s->target);
	gdb_stub_stopped(s, &stop);
}

/* ---- registers ---------------------------------------------------------------------------------
 */

static void on_read_registers(struct gdb_stub *s, struct args a)
{
	struct cpu_state state;
	uint8_t value[GDB_REG_BYTES];

	s->ops->get_state(s->target, s->general, &state);
	for (unsigned n = 0; n < gdb_reg_count(s->arch); n++)
		put_hex(&s->reply, value, gdb_reg_get(s->arch, n, &state, value));
}

/* Those that are not for a debugger to write keep their values. */
static void on_write_registers(struct gdb_stub *s, struct args a)
{
	struct cpu_state state;
	uint8_t value[GDB_REG_BYTES];
	int ret = 0;

	s->ops->get_state(s->target, s->general, &state);
	for (unsigned n = 0; n < gdb_reg_count(s->arch) && !args_empty(&a) && !ret; n++) {
		if (!args_bytes(&a, value, gdb_reg_size(s->arch, n)))
			ret = -EINVAL;
		else if (gdb_reg_set(s->arch, n, &state, value) == -EINVAL)
			ret = -EINVAL;
	}
	if (!ret && !args_empty(&a))
		ret = -EINVAL;
	if (!ret)
		ret = s->ops->set_state(s->target, s->general, &state);
	if (ret)
		put_error(s, GDB_EINVAL);
	else
		put_ok(s);
}

static void on_read_register(struct gdb_stub *s, struct args a)
{
	struct cpu_state state;
	uint8_t value[GDB_REG_BYTES];
	uint64_t n;

	if (!args_number(&a, &n) || n >= gdb_reg_count(s->arch)) {
		put_error(s, GDB_EINVAL);
		return;
	}
	s->ops->get_state(s->target, s->general, &state);
	put_hex(&s->reply, value, gdb_reg_get(s->arch, (unsigned)n, &state, value));
}

static void on_write_register(struct gdb_stub *s, struct args a)
{
	struct cpu_state state;
	uint8_t value[GDB_REG_BYTES] = {0};
	uint64_t n;
	int ret;

	if (!args_number(&a, &n) || n >= gdb_reg_count(s->arch) || !args_skip(&a, '=') ||
	    !args_bytes(&a, value, gdb_reg_size(s->arch, (unsigned)n)) || !args_empty(&a)) {
		put_error(s, GDB_EINVAL);
		return;
	}
	s->ops->get_state(s->target, s->general, &state);
	ret = gdb_reg_set(s->arch, (unsigned)n, &state, value);
	if (!ret)
		ret = s->ops->set_state(s->target, s->general, &state);
	if (ret == -EROFS)
		put_text(s, "E.segment and control registers cannot be written");
	else if (ret)
		put_text(s, "E.the processor has no such value for it");
	else
		put_ok(s);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static void on_read_memory(struct gdb_stub *s, struct args a)
{
	_cleanup_(buf_finish) struct buf why = {0};
	uint8_t data[GDB_PACKET_MAX / 2];
	uint64_t addr, len;
	size_t n;

	if (!args_range(&a, &addr, &len) || !args_empty(&a)) {
		put_error(s, GDB_EINVAL);
		return;
	}
	len = MIN(len, (uint64_t)sizeof(data));
	n = len ? s->ops->read(s->target, s->general, addr, data, len, &why) : 0;
	if (len && !n)
		put_error_text(s, GDB_EFAULT, why.data ? why.data : "");
	else
		put_hex(&s->reply, data, n);
}

static void write_memory(struct gdb_stub *s, uint64_t addr, const uint8_t *data, size_t len)
{
	_cleanup_(buf_finish) struct buf why = {0};

	if (s->ops->write(s->target, s->general, addr, data, len, &why) < len)
		put_error_text(s, GDB_EFAULT, why.data ? why.data : "");
	else
		put_ok(s);
}

static void on_write_memory(struct gdb_stub *s, struct args a)
{
	uint8_t data[GDB_PACKET_MAX / 2];
	uint64_t addr, len;

	if (!args_range(&a, &addr, &len) || !args_skip(&a, ':') || len > sizeof(data) ||
	    !args_bytes(&a, data, len) || !args_empty(&a))
		put_error(s, GDB_EINVAL);
	else
		write_memory(s, addr, data, len);
}

/* Binary: "}" escapes the next byte, which is XORed with 0x20. */
static void on_write_binary(struct gdb_stub *s, struct args a)
{
	uint8_t data[GDB_PACKET_MAX];
	uint64_t addr, len;
	size_t n = 0;

	if (!args_range(&a, &addr, &len) || !args_skip(&a, ':')) {
		put_error(s, GDB_EINVAL);
		return;
	}
	while (!args_empty(&a)) {
		bool escaped = args_skip(&a, '}');

		if (escaped && args_empty(&a))
			break;
		data[n++] = (uint8_t)(*a.at++ ^ (escaped ? 0x20 : 0));
	}
	if (n != len)
		put_error(s, GDB_EINVAL);
	else
		write_memory(s, addr, data, n); /* of no byte: does it exist? */
}

/* ---- breakpoints and watchpoints ---------------------------------------------------------------
 */

static int set_breakpoint(struct gdb_stub *s, gva_t gva, bool soft, bool on)
{
	struct cpu_host_debug *d = &s->debug;
	unsigned n = 0;

	while (n < d->breakpoints && (d->breakpoint[n] != gva || s->soft[n] != soft))
		n++;
	if (on == (n < d->breakpoints))
		return 0;
	if (on && n == CPU_HOST_BREAKPOINTS)
		return -ENOSPC;
	if (on) {
		d->breakpoint[d->breakpoints++] = gva;
		s->soft[n] = soft;
	} else {
		d->breakpoints--;
		d->breakpoint[n] = d->breakpoint[d->breakpoints];
		s->soft[n] = s->soft[d->breakpoints];
	}
	return 0;
}

static int set_watch(struct gdb_stub *s, gva_t gva, uint64_t len, uint8_t access, bool on)
{
	struct cpu_host_debug *d = &s->debug;
	unsigned n = 0;

	if (!len || len > PAGE_SIZE || gva + len < gva)
		return -EINVAL;
	while (n < d->watches &&
	       (d->watch[n].gva != gva || d->watch[n].len != len || d->watch[n].access != access))
		n++;
	if (on == (n < d->watches))
		return 0;
	if (on && n == CPU_HOST_WATCHES)
		return -ENOSPC;
	if (on) {
		d->watch[n].gva = gva;
		d->watch[n].len = (uint32_t)len;
		d->watch[n].access = access;
		d->watches++;
	} else {
		d->watch[n] = d->watch[--d->watches];
	}
	return 0;
}

static int change_point(struct gdb_stub *s, uint64_t type, gva_t gva, uint64_t kind, bool on)
{
	static const uint8_t access[] = {[2] = CPU_WATCH_WRITE,
					 [3] = CPU_WATCH_READ,
					 [4] = CPU_WATCH_READ | CPU_WATCH_WRITE};

	return type < 2 ? set_breakpoint(s, gva, type == 0, on)
			: set_watch(s, gva, kind, access[type], on);
}

/* "TYPE,ADDR,KIND": kind is a watchpoint's length. No conditions and commands are offered. */
static void set_point(struct gdb_stub *s, struct args *a, bool on)
{
	uint64_t type, addr, kind;
	int ret;

	if (!args_number(a, &type) || !args_skip(a, ',') || !args_range(a, &addr, &kind) ||
	    !args_empty(a)) {
		put_error(s, GDB_EINVAL);
		return;
	}
	if (type > 4)
		return; /* an empty reply: not supported */
	ret = change_point(s, type, addr, kind, on);
	if (!ret && on && s->ops->can_stop(s->target, &s->debug)) {
		change_point(s, type, addr, kind, false);
		ret = -ENOSPC;
	}
	if (ret == -ENOSPC)
		put_error(s, GDB_ENOSPC);
	else if (ret)
		put_error(s, GDB_EINVAL);
	else
		put_ok(s);
}

static void on_insert(struct gdb_stub *s, struct args a)
{
	set_point(s, &a, true);
}

static void on_remove(struct gdb_stub *s, struct args a)
{
	set_point(s, &a, false);
}

/* ---- threads -----------------------------------------------------------------------------------
 */

static void on_thread(struct gdb_stub *s, struct args a)
{
	unsigned vcpu;
	char what;

	if (args_empty(&a)) {
		put_error(s, GDB_EINVAL);
		return;
	}
	what = *a.at++;
	if ((what != 'g' && what != 'c') || !args_thread(s, &a, &vcpu) || !args_empty(&a)) {
		put_error(s, GDB_EINVAL);
		return;
	}
	if (what == 'c')
		s->resume = vcpu;
	else if (vcpu != GDB_ALL)
		s->general = vcpu;
	put_ok(s);
}

static void on_alive(struct gdb_stub *s, struct args a)
{
	unsigned vcpu;

	if (args_thread(s, &a, &vcpu) && args_empty(&a) && vcpu != GDB_ALL)
		put_ok(s);
	else
		put_error(s, GDB_EINVAL);
}

static void on_thread_info(struct gdb_stub *s, struct args a)
{
	put_text(s, "m");
	for (unsigned k = 0; k < s->vcpus; k++)
		buf_printf(&s->reply, "%s%x", k ? "," : "", k + 1);
}

static void on_more_threads(struct gdb_stub *s, struct args a)
{
	put_text(s, "l");
}

static void on_current_thread(struct gdb_stub *s, struct args a)
{
	buf_printf(&s->reply, "QC%x", s->general + 1);
}

static const char *activity(const struct cpu_state *state)
{
	switch (state->activity) {
	case CPU_HALTED: return "halted";
	case CPU_SHUTDOWN: return "shut down";
	case CPU_WAIT_FOR_SIPI: return "waits for SIPI";
	default: return "running";
	}
}

static void describe_thread(struct gdb_stub *s, unsigned vcpu, char *text, size_t size)
{
	struct cpu_state state;

	s->ops->get_state(s->target, vcpu, &state);
	snprintf(text, size, "vCPU %u, %s, CPL %u", vcpu, activity(&state),
		 (unsigned)(state.seg[X86_SS].attr >> 5 & 3));
}

static void on_thread_extra(struct gdb_stub *s, struct args a)
{
	char text[64];
	unsigned vcpu;

	if (!args_thread(s, &a, &vcpu) || !args_empty(&a) || vcpu == GDB_ALL) {
		put_error(s, GDB_EINVAL);
		return;
	}
	describe_thread(s, vcpu, text, sizeof(text));
	put_hex(&s->reply, text, strlen(text));
}

/* ---- queries -----------------------------------------------------------------------------------
 */

static bool has_word(struct args a, const char *word)
{
	size_t len = strlen(word);

	for (; (size_t)(a.end - a.at) >= len; a.at++) {
		const char *after = a.at + len;

		if (!memcmp(a.at, word, len) && (after == a.end || *after == ';'))
			return true;
		a.at = memchr(a.at, ';', (size_t)(a.end - a.at));
		if (!a.at)
			return false;
	}
	return false;
}

static void on_supported(struct gdb_stub *s, struct args a)
{
	args_skip(&a, ':');
	s->says_swbreak = has_word(a, "swbreak+");
	s->says_hwbreak = has_word(a, "hwbreak+");
	s->error_text = has_word(a, "error-message+");
	buf_printf(&s->reply,
		   "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;"
		   "vContSupported+;swbreak+;hwbreak+",
		   GDB_PACKET_MAX);
}

static void on_no_ack(struct gdb_stub *s, struct args a)
{
	s->next_no_ack = true;
	put_ok(s);
}

static void on_attached(struct gdb_stub *s, struct args a)
{
	put_text(s, "1"); /* so that it detaches at its end, and kills nothing */
}

/* "OFFSET,LENGTH" of @text. */
static void put_part(struct gdb_stub *s, struct args *a, const struct buf *text)
{
	uint64_t offset, len;

	if (!args_range(a, &offset, &len) || !args_empty(a) || text->failed) {
		put_error(s, GDB_EINVAL);
		return;
	}
	len = MIN(len, (uint64_t)GDB_PACKET_MAX - 1);
	offset = MIN(offset, (uint64_t)text->len);
	put_text(s, len < text->len - offset ? "m" : "l");
	if (offset < text->len)
		buf_append(&s->reply, text->data + offset, MIN(len, text->len - offset));
}

static void on_features(struct gdb_stub *s, struct args a)
{
	if (!s->features.len)
		gdb_describe(s->arch, &s->features);
	put_part(s, &a, &s->features);
}

/* Made anew whenever it is read from its start: states change. */
static void on_threads(struct gdb_stub *s, struct args a)
{
	char text[64];

	if (a.at < a.end && *a.at == '0') {
		buf_finish(&s->threads);
		s->threads = (struct buf){0};
		buf_printf(&s->threads, "<?xml version=\"1.0\"?>\n<threads>\n");
		for (unsigned k = 0; k < s->vcpus; k++) {
			describe_thread(s, k, text, sizeof(text));
			buf_printf(&s->threads,
				   "<thread id=\"%x\" core=\"%u\" name=\"vCPU %u\">%s</thread>\n",
				   k + 1, k, k, text);
		}
		buf_printf(&s->threads, "</threads>\n");
	}
	put_part(s, &a, &s->threads);
}

/* What it prints goes ahead of the reply, in pieces. */
static void on_monitor(struct gdb_stub *s, struct args a)
{
	_cleanup_(buf_finish) struct buf out = {0};
	_cleanup_(buf_finish) struct buf piece = {0};
	const size_t most = GDB_PACKET_MAX / 2 - 1;
	char command[512];
	size_t len = (size_t)(a.end - a.at) / 2;

	if (len >= sizeof(command) || !args_bytes(&a, (uint8_t *)command, len) || !args_empty(&a)) {
		put_error(s, GDB_EINVAL);
		return;
	}
	command[len] = 0;
	s->ops->monitor(s->target, s->general, command, &out);
	for (size_t at = 0; at < MIN(out.len, (size_t)GDB_MONITOR_MAX / 4); at += most) {
		buf_truncate(&piece, 0);
		buf_append(&piece, "O", 1);
		put_hex(&piece, out.data + at, MIN(out.len - at, most));
		put_packet(s, piece.data, piece.len);
	}
	put_ok(s);
}

/* ---- the end -----------------------------------------------------------------------------------
 */

static void on_detach(struct gdb_stub *s, struct args a)
{
	put_ok(s);
	s->done = true;
}

static void on_kill(struct gdb_stub *s, struct args a)
{
	s->silent = true;
	s->done = true;
	s->ops->kill(s->target);
}

static void on_vkill(struct gdb_stub *s, struct args a)
{
	put_ok(s);
	s->done = true;
	s->ops->kill(s->target);
}

/* ---- dispatch ----------------------------------------------------------------------------------
 */

/*
 * How a packet begins; what follows is the handler's, from the delimiter on. One with a beginning
 * in common with another's stands before it.
 */
static const struct {
	const char *name;
	void (*fn)(struct gdb_stub *s, struct args a);
} packets[] = {
	{"qSupported", on_supported},
	{"qXfer:features:read:target.xml:", on_features},
	{"qXfer:threads:read::", on_threads},
	{"qfThreadInfo", on_thread_info},
	{"qsThreadInfo", on_more_threads},
	{"qThreadExtraInfo,", on_thread_extra},
	{"qC", on_current_thread},
	{"qAttached", on_attached},
	{"qRcmd,", on_monitor},
	{"QStartNoAckMode", on_no_ack},
	{"vCont?", on_vcont_query},
	{"vCont", on_vcont},
	{"vKill", on_vkill},
	{"?", on_why},
	{"c", on_continue},
	{"C", on_continue_signal},
	{"s", on_step},
	{"S", on_step_signal},
	{"g", on_read_registers},
	{"G", on_write_registers},
	{"p", on_read_register},
	{"P", on_write_register},
	{"m", on_read_memory},
	{"M", on_write_memory},
	{"X", on_write_binary},
	{"Z", on_insert},
	{"z", on_remove},
	{"H", on_thread},
	{"T", on_alive},
	{"D", on_detach},
	{"k", on_kill},
};

/* A single letter is a whole name; "qC" is none for "qCRC:". */
static bool names(const struct gdb_stub *s, const char *name)
{
	size_t len = strlen(name);
	char last = name[len - 1], next;

	if (s->len < len || memcmp(s->packet, name, len))
		return false;
	next = s->packet[len];
	return len == 1 || !((last | 0x20) >= 'a' && (last | 0x20) <= 'z') || s->len == len ||
	       next == ':' || next == ';' || next == ',';
}

/* What is not known gets the empty reply that says so. */
static void dispatch(struct gdb_stub *s)
{
	buf_truncate(&s->reply, 0);
	s->silent = false;
	if (s->ended) {
		put_end(s);
		s->done = true;
		return;
	}
	/* All packets are for a machine that stands still; so it does then, untold. */
	if (s->running) {
		s->ops->stop(s->target);
		s->running = false;
		s->stop = (struct gdb_stop){.vcpu = s->general, .signal = GDB_STOP_SIGINT};
	}
	for (size_t k = 0; k < ARRAY_SIZE(packets); k++) {
		struct args a = {s->packet + strlen(packets[k].name), s->packet + s->len};

		if (!names(s, packets[k].name))
			continue;
		packets[k].fn(s, a);
		break;
	}
	if (!s->silent)
		put_packet(s, s->reply.data ? s->reply.data : "", s->reply.len);
}

/* ---- framing -----------------------------------------------------------------------------------
 */

static void end_packet(struct gdb_stub *s)
{
	s->packet[s->len] = 0;
	if (!s->no_ack) {
		buf_append(&s->out, s->sum_ok ? "+" : "-", 1);
		if (!s->sum_ok)
			return;
	}
	dispatch(s);
	if (s->next_no_ack) {
		s->no_ack = true;
		s->next_no_ack = false;
	}
}

static void between(struct gdb_stub *s, uint8_t c)
{
	if (c == '$') {
		s->phase = BODY;
		s->len = 0;
		s->sum = 0;
	} else if (c == 3) {
		interrupt(s);
	} else if (c == '-' && !s->no_ack) {
		buf_append(&s->out, s->last, s->last_len);
	}
}

static int take(struct gdb_stub *s, uint8_t c)
{
	int digit = hex_digit(c);

	switch (s->phase) {
	case BETWEEN: between(s, c); break;
	case BODY:
		if (c == '#') {
			s->phase = SUM_HIGH;
		} else if (s->len == GDB_PACKET_MAX) {
			return -EPROTO;
		} else {
			s->packet[s->len++] = (char)c;
			s->sum = (uint8_t)(s->sum + c);
		}
		break;
	case SUM_HIGH:
		s->sum_ok = digit == s->sum >> 4;
		s->phase = SUM_LOW;
		break;
	case SUM_LOW:
		s->sum_ok &= digit == (s->sum & 15);
		s->phase = BETWEEN;
		end_packet(s);
		break;
	}
	return 0;
}

int gdb_stub_input(struct gdb_stub *s, const void *data, size_t len)
{
	const uint8_t *p = data;
	int ret = 0;

	for (size_t k = 0; k < len && !ret && !s->done; k++) {
		ret = take(s, p[k]);
		if (!ret && (s->out.failed || s->reply.failed))
			ret = -ENOMEM;
		if (!ret && s->out.len > GDB_OUTPUT_MAX)
			ret = -ENOBUFS;
	}
	return ret ? ret : s->done;
}

struct buf *gdb_stub_output(struct gdb_stub *s)
{
	return &s->out;
}

struct gdb_stub *gdb_stub_create(const struct gdb_target_ops *ops, void *target, unsigned vcpus,
				 enum gdb_arch arch)
{
	struct gdb_stub *s;

	assert(vcpus && vcpus <= GDB_VCPUS_MAX);
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->ops = ops;
	s->target = target;
	s->vcpus = vcpus;
	s->arch = arch;
	s->resume = GDB_ALL;
	s->stop.signal = GDB_STOP_SIGTRAP;
	return s;
}

void gdb_stub_destroy(struct gdb_stub *s)
{
	if (!s)
		return;
	buf_finish(&s->out);
	buf_finish(&s->reply);
	buf_finish(&s->features);
	buf_finish(&s->threads);
	free(s->last);
	free(s);
}
