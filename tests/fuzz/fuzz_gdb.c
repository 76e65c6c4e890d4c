/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target over what a debugger may send: any bytes, in pieces, to a stub whose target only
 * plays a machine. The first byte chooses the architecture, whether checksums count, how long the
 * pieces are, and whether the vCPUs stop by themselves.
 */
#include <stdlib.h>
#include <string.h>

#include "vm/gdb_stub.h"

#define VCPUS 3u
#define BYTES 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct target {
	struct gdb_stub *stub;
	struct cpu_state state[VCPUS];
	uint8_t memory[BYTES];
	bool running, stops;
};

static void must(bool what)
{
	if (!what)
		abort();
}

/* Every call but stop() finds a vCPU there is, and all of them standing still. */
static struct target *target_of(void *priv, unsigned vcpu)
{
	struct target *t = priv;

	must(vcpu < VCPUS && !t->running);
	return t;
}

static void get_state(void *priv, unsigned vcpu, struct cpu_state *ret_state)
{
	*ret_state = target_of(priv, vcpu)->state[vcpu];
}

static int set_state(void *priv, unsigned vcpu, const struct cpu_state *state)
{
	struct target *t = target_of(priv, vcpu);

	/* What the stub lets nobody write. */
	must(t->state[vcpu].cr3 == state->cr3 && t->state[vcpu].efer == state->efer);
	must(state->rflags & X86_FLAG_ONE && !(state->rflags & X86_FLAG_VM));
	must(!(state->fx.mxcsr & ~state->fx.mxcsr_mask));
	t->state[vcpu] = *state;
	return state->rip == 0xbad ? -1 : 0;
}

static size_t read_memory(void *priv, unsigned vcpu, gva_t gva, void *data, size_t len,
			  struct buf *why)
{
	struct target *t = target_of(priv, vcpu);
	size_t n = gva < BYTES ? MIN(len, BYTES - gva) : 0;

	must(len <= GDB_PACKET_MAX);
	memcpy(data, t->memory + (n ? gva : 0), n);
	if (n < len)
		buf_printf(why, "$#}* at %llx", (unsigned long long)gva);
	return n;
}

static size_t write_memory(void *priv, unsigned vcpu, gva_t gva, const void *data, size_t len,
			   struct buf *why)
{
	struct target *t = target_of(priv, vcpu);
	size_t n = gva < BYTES ? MIN(len, BYTES - gva) : 0;

	memcpy(t->memory + (n ? gva : 0), data, n);
	return n;
}

static void stop_now(struct target *t, unsigned vcpu)
{
	const struct gdb_stop stop = {
		.vcpu = vcpu,
		.signal = GDB_STOP_SIGTRAP,
		.reason = vcpu,
		.gva = t->state[vcpu].rip,
	};

	t->running = false;
	gdb_stub_stopped(t->stub, &stop);
}

static void resume(void *priv, const struct gdb_resume *resume)
{
	struct target *t = target_of(priv, 0);
	const struct cpu_host_debug *d = resume->debug;
	bool any = false;

	must(resume->vcpus == VCPUS && d->breakpoints <= CPU_HOST_BREAKPOINTS &&
	     d->watches <= CPU_HOST_WATCHES);
	for (unsigned k = 0; k < VCPUS; k++)
		any |= resume->action[k] != GDB_HOLD;
	must(any);
	for (unsigned k = 0; k < d->watches; k++)
		must(d->watch[k].len && d->watch[k].access);
	t->running = true;
	if (t->stops)
		stop_now(t, (unsigned)d->breakpoints % VCPUS);
}

static void stop(void *priv)
{
	((struct target *)priv)->running = false;
}

static void kill_machine(void *priv)
{
	target_of(priv, 0);
}

static void monitor(void *priv, unsigned vcpu, const char *command, struct buf *out)
{
	target_of(priv, vcpu);
	for (size_t k = 0; k < 1000 && command[0] == 'l'; k++)
		buf_printf(out, "%s", command);
	buf_printf(out, "%s", command);
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

/* What goes out is acks and whole packets, each with a checksum that is right and within bounds. */
static void check_output(struct buf *out)
{
	const char *p = out->data, *end = out->len ? p + out->len : p;

	while (p < end) {
		const char *hash;
		uint8_t sum = 0;
		char text[3];

		if (*p == '+' || *p == '-') {
			p++;
			continue;
		}
		must(*p++ == '$');
		hash = memchr(p, '#', (size_t)(end - p));
		must(hash && end - hash >= 3 && hash - p <= GDB_PACKET_MAX + 64);
		while (p < hash)
			sum = (uint8_t)(sum + (uint8_t)*p++);
		memcpy(text, hash + 1, 2);
		text[2] = 0;
		must(strtoul(text, NULL, 16) == sum);
		p += 3;
	}
	buf_consume(out, out->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char no_ack[] = "$QStartNoAckMode#b0";
	struct target *t;
	size_t piece, n;
	int ret = 0;

	if (!size || size > MIB(1))
		return 0;
	t = calloc(1, sizeof(*t));
	must(t != NULL);
	for (unsigned k = 0; k < VCPUS; k++) {
		t->state[k].rflags = X86_FLAG_ONE;
		t->state[k].efer = data[0] & 1 ? 0 : X86_EFER_LMA;
		t->state[k].fx.mxcsr_mask = 0xffff;
	}
	t->stops = data[0] & 4;
	piece = data[0] & 8 ? 1 : 100;
	t->stub = gdb_stub_create(&ops, t, VCPUS, data[0] & 1 ? GDB_ARCH_I386 : GDB_ARCH_AMD64);
	must(t->stub != NULL);
	if (data[0] & 2)
		ret = gdb_stub_input(t->stub, no_ack, sizeof(no_ack) - 1);
	for (data++, size--; size && !ret; data += n, size -= n) {
		n = MIN(piece, size);
		ret = gdb_stub_input(t->stub, data, n);
		must(t->running == gdb_stub_running(t->stub));
		check_output(gdb_stub_output(t->stub));
		if (t->running && *data == 'x')
			stop_now(t, 1);
	}
	gdb_stub_ended(t->stub, false, 3);
	gdb_stub_destroy(t->stub);
	free(t);
	return 0;
}
