/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a machine counted, and the last it knew, as JSON. */
#include "vm/vm_api.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/server.h"
#include "vm/vm_internal.h"
#include "vm/vm_json.h"

/* ---- statistics --------------------------------------------------------------------------------
 */

static void add_u64(struct json_object *o, const char *name, uint64_t value)
{
	json_object_object_add(o, name, json_object_new_uint64(value));
}

const char *vm_policy_name(const struct vm *vm)
{
	static const char *const names[] = {
		[MMU_POLICY_SHADOW] = "shadow",
		[MMU_POLICY_TDP] = "tdp",
		[MMU_POLICY_KERNEL] = "unknown",
	};

	return names[vm_mmu_is_kernels(vm) ? engine_kvm_mmu()->policy : mmu_get_policy(vm->mmu)];
}

static void put_tristate(struct json_object *o, const char *name, int8_t value)
{
	if (value < 0)
		put_string(o, name, "unknown");
	else
		put_bool(o, name, value);
}

struct json_object *vm_kernel_mmu_json(void)
{
	const struct engine_kvm_mmu *m = engine_kvm_mmu();
	struct json_object *o = json_object_new_object();

	put_string(o, "module", m->module);
	put_string(o, "form", m->form);
	put_tristate(o, "nested", m->nested);
	put_tristate(o, "tdp_mmu", m->tdp_mmu);
	put_tristate(o, "ad_bits", m->ad_bits);
	put_tristate(o, "pml", m->pml);
	put_tristate(o, "eager_split", m->eager_split);
	put_tristate(o, "mmio_caching", m->mmio_caching);
	put_tristate(o, "nx_huge_pages", m->nx_huge_pages);
	put_tristate(o, "large_pages", m->large_pages);
	put_string(o, "spte", "unknown");
	return o;
}

/* ---- counters that describe themselves: ours, and the kernel's beside ---- */

/* What is gathered of one object: the machine, or a vCPU. */
struct gather {
	struct json_object *values; /* NULL: only the schema */
	struct json_object *schema; /* NULL: only the values */
	const char *of;		    /* "vm", "vcpu" */
	bool sum;		    /* values are added to those that are there */
};

static void add_row(struct gather *g, const char *name, const char *type, const char *unit)
{
	struct json_object *o = json_object_new_object();

	put_string(o, "name", name);
	put_string(o, "type", type);
	put_string(o, "unit", unit);
	put_string(o, "of", g->of);
	json_object_array_add(g->schema, o);
}

static void add_value(struct gather *g, const char *name, uint64_t value)
{
	struct json_object *was;

	if (g->sum && json_object_object_get_ex(g->values, name, &was))
		value += json_object_get_uint64(was);
	add_u64(g->values, name, value);
}

/*
 * Of our counters those that are ours under kvm, too: the rest is what our tables bring, of which
 * there are none; where the kernel has one of the same name, it is the kernel's that is told.
 */
static bool is_told(const struct vm *vm, const char *name)
{
	static const char *const kept[] = {"mmu_lock_contended", "dirty_noticed"};

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (!strcmp(kept[i], name))
			return true;
	return !vm_mmu_is_kernels(vm);
}

static void gather_mmu(const struct vm *vm, struct gather *g, const struct mmu_stat_desc *d,
		       size_t n, const uint64_t *values)
{
	static const char *const types[] = {"cumulative", "instant", "peak"};
	static const char *const units[] = {"none", "bytes", "ns", "pages"};

	for (size_t i = 0; i < n; i++) {
		if (!is_told(vm, d[i].name))
			continue;
		if (g->schema)
			add_row(g, d[i].name, types[d[i].type], units[d[i].unit]);
		if (g->values)
			add_value(g, d[i].name, values[i]);
	}
}

static const char *unit_name(const struct engine_stat *s)
{
	static const char *const units[] = {"none", "bytes", "seconds", "cycles", "boolean"};

	if (s->unit == ENGINE_STAT_SECONDS && s->base == 10 && s->exponent == -9)
		return "ns";
	return units[s->unit];
}

/* Arrays of our own by reason are called "exits"; the kernel's one number is not to hide them. */
static const char *stat_name(const struct engine_stat *s)
{
	return strcmp(s->name, "exits") ? s->name : "kernel_exits";
}

static void gather_row(struct gather *g, const struct engine_stat *s)
{
	static const char *const types[] = {"cumulative", "instant", "peak", "linear_hist",
					    "log_hist"};
	struct json_object *o;

	add_row(g, stat_name(s), types[s->type], unit_name(s));
	o = json_object_array_get_idx(g->schema, json_object_array_length(g->schema) - 1);
	if (s->exponent && strcmp(unit_name(s), "ns")) {
		json_object_object_add(o, "base", json_object_new_int(s->base));
		json_object_object_add(o, "exponent", json_object_new_int(s->exponent));
	}
	if (s->type == ENGINE_STAT_LINEAR_HIST)
		add_u64(o, "bucket_size", s->bucket_size);
}

static void gather_one(void *arg, const struct engine_stat *s)
{
	struct gather *g = arg;
	struct json_object *all;

	if (g->schema)
		gather_row(g, s);
	if (!g->values)
		return;
	if (s->n == 1 && s->type < ENGINE_STAT_LINEAR_HIST) {
		add_value(g, stat_name(s), s->values[0]);
		return;
	}
	if (g->sum)
		return; /* each vCPU's own are told beside */
	all = json_object_new_array();
	for (unsigned i = 0; i < s->n; i++)
		json_object_array_add(all, json_object_new_uint64(s->values[i]));
	put(g->values, stat_name(s), all);
}

/* 0, or why the kernel's are missing. */
static int gather_all(struct vm *vm, struct vcpu *v, struct gather *g)
{
	struct mmu_vcpu_stats of_vcpu;
	struct mmu_vm_stats of_vm;
	const struct mmu_stat_desc *d;
	size_t n;

	if (v) {
		d = mmu_vcpu_stats_schema(&n);
		vm->engine->vcpu_mmu_stats(v->engine, &of_vcpu);
		gather_mmu(vm, g, d, n, (const uint64_t *)&of_vcpu);
	} else {
		d = mmu_vm_stats_schema(&n);
		mmu_vm_read_stats(vm->mmu, &of_vm);
		gather_mmu(vm, g, d, n, (const uint64_t *)&of_vm);
	}
	return vm->engine->stats
		       ? vm->engine->stats(vm->engine_vm, v ? v->engine : NULL, gather_one, g)
		       : 0;
}

static void put_missing(struct json_object *o, int ret)
{
	if (ret)
		put_string(
			o, "missing",
			ret == -EOPNOTSUPP
				? "the kernel does not tell its counters (KVM_CAP_BINARY_STATS_FD)"
				: "the kernel's counters could not be read");
}

/* ---- exits ---- */

/* How often each vCPU left, by reason: to us under kvm, where the kernel handles the rest. */
static uint64_t put_exits(const struct vm *vm, struct json_object *exits,
			  const struct engine_vcpu_stats *st)
{
	uint64_t total = 0;

	for (unsigned k = 0; k < CPU_EXIT_REASONS && !vm_mmu_is_kernels(vm); k++) {
		total += st->cpu.exit_count[k];
		if (st->cpu.exit_count[k])
			add_u64(exits, cpu_exit_name(k), st->cpu.exit_count[k]);
	}
	for (unsigned k = 0; k < ENGINE_KVM_EXITS; k++) {
		const char *name = engine_kvm_exit_name(k);

		total += st->kvm_exits[k];
		if (st->kvm_exits[k])
			add_u64(exits, name ? name : "other", st->kvm_exits[k]);
	}
	return total;
}

static void sum_exits(struct engine_vcpu_stats *sum, const struct engine_vcpu_stats *st)
{
	for (unsigned k = 0; k < CPU_EXIT_REASONS; k++)
		sum->cpu.exit_count[k] += st->cpu.exit_count[k];
	for (unsigned k = 0; k < ENGINE_KVM_EXITS; k++)
		sum->kvm_exits[k] += st->kvm_exits[k];
	sum->helped += st->helped;
	sum->help_runs += st->help_runs;
	sum->help_drops += st->help_drops;
}

static void add_helped(struct json_object *names, const struct vm *vm, struct vcpu *v)
{
	struct engine_helped list[128];
	unsigned n = vm->engine->vcpu_helped(v->engine, list, ARRAY_SIZE(list));

	for (unsigned k = 0; k < n; k++) {
		struct json_object *was = json_object_object_get(names, list[k].name);

		add_u64(names, list[k].name, list[k].count + json_object_get_uint64(was));
	}
}

/* What our processor did for the kernel; @v NULL: for all vCPUs. */
static void put_helped(struct json_object *o, const struct vm *vm, struct vcpu *v,
		       const struct engine_vcpu_stats *st)
{
	struct json_object *names = json_object_new_object();

	add_u64(o, "helped", st->helped);
	add_u64(o, "help_runs", st->help_runs);
	add_u64(o, "help_drops", st->help_drops);
	for (unsigned k = 0; k < vm->cpus; k++)
		if (!v || v == &vm->vcpus[k])
			add_helped(names, vm, &vm->vcpus[k]);
	put(o, "helped_by", names);
}

/* ---- mmu.stat ---- */

static struct json_object *vcpu_counters(struct vm *vm, struct vcpu *v, int *ret_missing)
{
	struct json_object *exits = json_object_new_object(), *o = json_object_new_object();
	struct gather g = {.values = o, .of = "vcpu"};
	struct engine_vcpu_stats st;

	*ret_missing = gather_all(vm, v, &g);
	vm->engine->vcpu_stats(v->engine, &st);
	put_exits(vm, exits, &st);
	put(o, "exits", exits);
	return o;
}

void handle_mmu_stat(struct api_call *call)
{
	struct json_object *o, *vcpus;
	struct vm *vm = vm_of_call(call);
	struct gather g = {.of = "vm"}, of_vcpus = {.of = "vcpu"};
	int missing, ignored;

	if (!vm)
		return;
	o = json_object_new_object();
	g.values = json_object_new_object();
	g.schema = of_vcpus.schema = json_object_new_array();
	vcpus = json_object_new_array();
	vcpus_hold(vm);
	put_string(o, "policy", vm_policy_name(vm));
	put(o, "time", json_object_new_double((double)clock_host_ns(NULL) / 1e9));
	gather_all(vm, &vm->vcpus[0], &of_vcpus);
	missing = gather_all(vm, NULL, &g);
	for (unsigned k = 0; k < vm->cpus; k++)
		json_object_array_add(vcpus, vcpu_counters(vm, &vm->vcpus[k], &ignored));
	vcpus_release(vm);
	put_missing(o, missing);
	put(o, "schema", g.schema);
	put(o, "vm", g.values);
	put(o, "vcpus", vcpus);
	api_call_reply(call, o, -1);
}

/* ---- machine.stats ---- */

/* What our processor counts: all of it, or (kvm) what it did for the kernel. */
static void put_processor(struct json_object *o, const struct engine_vcpu_stats *st)
{
	add_u64(o, "tlb_misses", st->cpu.tlb_misses);
	add_u64(o, "tlb_flushes", st->cpu.tlb_flushes);
	add_u64(o, "walks", st->cpu.walks);
	add_u64(o, "blocks_decoded", st->cpu.blocks_decoded);
	add_u64(o, "blocks_dropped", st->cpu.blocks_dropped);
	add_u64(o, "smc_invalidations", st->cpu.smc_invalidations);
}

static struct json_object *vcpu_stats_json(struct vm *vm, struct vcpu *v,
					   struct engine_vcpu_stats *sum)
{
	struct json_object *o = json_object_new_object(), *exits = json_object_new_object();
	struct gather kernel = {.of = "vcpu"};
	struct engine_vcpu_stats st;

	vm->engine->vcpu_stats(v->engine, &st);
	sum_exits(sum, &st);
	add_u64(o, "instructions", vm->engine->vcpu_icount(v->engine));
	json_object_object_add(o, "exits", exits);
	add_u64(o, "exits_total", put_exits(vm, exits, &st));
	add_u64(o, "entries", st.entries);
	add_u64(o, "waits", st.waits);
	put_processor(o, &st);
	if (vm_mmu_is_kernels(vm)) {
		add_u64(o, "kicks", st.kvm_kicks);
		put_helped(o, vm, v, &st);
		kernel.values = json_object_new_object();
		vm->engine->stats(vm->engine_vm, v->engine, gather_one, &kernel);
		put(o, "kernel", kernel.values);
		return o;
	}
	add_u64(o, "emulated", st.emulated);
	add_u64(o, "irq_injections", st.irqs);
	add_u64(o, "halt_exits", st.halts);
	add_u64(o, "tlb_flush_asked", st.tlb_flush_asked);
	add_u64(o, "tlb_flush_ipis", st.tlb_flush_ipis);
	add_u64(o, "pml_entries", st.pml_entries);
	add_u64(o, "pml_full", st.pml_full);
	return o;
}

static void sha_hex(EVP_MD_CTX *md, char text[65])
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	EVP_DigestFinal_ex(md, sum, &len);
	for (unsigned k = 0; k < 32; k++)
		sprintf(text + 2 * k, "%02x", sum[k]);
}

/* Pages that hold only zeros count as absent, so that touching one does not change the hash. */
static void hash_memory(struct vm *vm, EVP_MD_CTX *md)
{
	static const uint8_t zero[PAGE_SIZE];

	for (uint64_t at = 0; at < vm->ram_size;) {
		off_t data = lseek(vm->ram_fd, (off_t)at, SEEK_DATA);
		off_t hole = data < 0 ? -1 : lseek(vm->ram_fd, data, SEEK_HOLE);

		if (hole < 0)
			break;
		for (at = (uint64_t)data; at < (uint64_t)hole; at += PAGE_SIZE) {
			if (!memcmp(vm->ram + at, zero, PAGE_SIZE))
				continue;
			EVP_DigestUpdate(md, &at, sizeof(at));
			EVP_DigestUpdate(md, vm->ram + at, PAGE_SIZE);
		}
	}
}

static void add_hashes(struct vm *vm, struct json_object *stats)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	char text[65];

	if (!md)
		return;
	EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	hash_memory(vm, md);
	sha_hex(md, text);
	json_object_object_add(stats, "memory_sha256", json_object_new_string(text));
	EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	for (unsigned k = 0; k < vm->cpus; k++) {
		struct cpu_state s;

		memset(&s, 0, sizeof(s));
		if (vm->engine->vcpu_get_state(vm->vcpus[k].engine, &s)) {
			EVP_MD_CTX_free(md);
			return;
		}
		EVP_DigestUpdate(md, s.gpr, sizeof(s.gpr));
		EVP_DigestUpdate(md, &s.rip, sizeof(s.rip));
		EVP_DigestUpdate(md, &s.rflags, sizeof(s.rflags));
		EVP_DigestUpdate(md, s.seg, sizeof(s.seg));
		EVP_DigestUpdate(md, &s.cr0, sizeof(s.cr0));
		EVP_DigestUpdate(md, &s.cr2, sizeof(s.cr2));
		EVP_DigestUpdate(md, &s.cr3, sizeof(s.cr3));
		EVP_DigestUpdate(md, &s.cr4, sizeof(s.cr4));
		EVP_DigestUpdate(md, &s.fx, sizeof(s.fx));
		EVP_DigestUpdate(md, s.ymmh, sizeof(s.ymmh));
	}
	sha_hex(md, text);
	json_object_object_add(stats, "registers_sha256", json_object_new_string(text));
	EVP_MD_CTX_free(md);
}

/* The machine's, then the sum of the vCPUs'. */
static void add_mmu(struct vm *vm, struct json_object *stats)
{
	struct gather g = {.values = json_object_new_object(), .of = "vm"};

	put_missing(stats, gather_all(vm, NULL, &g));
	g.sum = true;
	for (unsigned k = 0; k < vm->cpus; k++)
		gather_all(vm, &vm->vcpus[k], &g);
	json_object_object_add(stats, "mmu", g.values);
}

int vm_stats_add(struct vm *vm, struct json_object *stats)
{
	struct json_object *vcpus = json_object_new_array(), *exits = json_object_new_object();
	struct engine_vcpu_stats sum = {0};
	uint64_t insns = 0, ran = vm->ran_ns;

	if (vm_runs(vm))
		ran += clock_host_ns(NULL) - vm->started_ns;
	for (unsigned k = 0; k < vm->cpus; k++) {
		json_object_array_add(vcpus, vcpu_stats_json(vm, &vm->vcpus[k], &sum));
		insns += vm->engine->vcpu_icount(vm->vcpus[k].engine);
	}
	put_string(stats, "engine", vm->engine->name);
	put_string(stats, "policy", vm_policy_name(vm));
	if (vm_mmu_is_kernels(vm)) {
		put(stats, "kernel_mmu", vm_kernel_mmu_json());
		put_helped(stats, vm, NULL, &sum);
	}
	put_string(stats, "boot", boot_protocol_name(vm->boot.protocol));
	put_bool(stats, "debugger", vm->debug_stopped);
	add_u64(stats, "instructions", insns);
	add_u64(stats, "wall_ns", ran);
	if (vm->clock_ready)
		add_u64(stats, "guest_ns", clock_now(&vm->clock));
	json_object_object_add(stats, "exits", exits);
	add_u64(stats, "exits_total", put_exits(vm, exits, &sum));
	add_mmu(vm, stats);
	json_object_object_add(stats, "vcpus", vcpus);
	if (vm->counts && vm->state == VM_ENDED)
		add_hashes(vm, stats);
	return 0;
}

/* ---- after a crash
 * ------------------------------------------------------------------------------- */

static void add_hex(struct json_object *o, const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "0x%016" PRIx64, value);
	json_object_object_add(o, name, json_object_new_string(text));
}

static void add_seg(struct json_object *o, const char *name, const struct cpu_seg *s)
{
	char text[96];

	snprintf(text, sizeof(text), "sel 0x%04x base 0x%016" PRIx64 " limit 0x%08x attr 0x%05x",
		 s->sel, s->base, s->limit, s->attr);
	json_object_object_add(o, name, json_object_new_string(text));
}

static struct json_object *registers_json(const struct cpu_state *s)
{
	static const char *const gpr[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
	static const char *const seg[6] = {"es", "cs", "ss", "ds", "fs", "gs"};
	struct json_object *o = json_object_new_object();

	add_hex(o, "rip", s->rip);
	add_hex(o, "rflags", s->rflags);
	for (unsigned k = 0; k < 16; k++)
		add_hex(o, gpr[k], s->gpr[k]);
	for (unsigned k = 0; k < 6; k++)
		add_seg(o, seg[k], &s->seg[k]);
	add_seg(o, "tr", &s->tr);
	add_seg(o, "ldtr", &s->ldtr);
	add_hex(o, "gdt_base", s->gdtr.base);
	add_hex(o, "idt_base", s->idtr.base);
	add_hex(o, "cr0", s->cr0);
	add_hex(o, "cr2", s->cr2);
	add_hex(o, "cr3", s->cr3);
	add_hex(o, "cr4", s->cr4);
	add_hex(o, "efer", s->efer);
	return o;
}

#define TRAIL		64 /* of what the processor remembers */
#define SHOWN		16
#define BLOCK_INSNS_MAX 64

/* The trail's instructions, of which the last SHOWN are kept. */
struct trail {
	struct vm *vm;
	struct vcpu *v;
	uint64_t base; /* of CS */
	char line[SHOWN][160];
	unsigned n;
};

/* Returns the next one's address, or 0 when this one leads elsewhere or cannot be read. */
static uint64_t trail_add(struct trail *t, uint64_t rip)
{
	/* What a block ends with: it is known by name, as the disassembler writes it. */
	static const char *const ends[] = {"j",	   "call", "ret", "loop", "int",
					   "iret", "sys",  "hlt", "ud"};
	const struct engine_ops *engine = t->vm->engine;
	char text[128];
	uint8_t bytes[15];
	unsigned len = engine->vcpu_peek(t->v->engine, t->base + rip, bytes, sizeof(bytes));

	if (!len)
		strcpy(text, "(not readable)");
	else if (!(len = engine->vcpu_disassemble(t->v->engine, bytes, len, rip, text,
						  sizeof(text))))
		strcpy(text, "(no instruction)");
	snprintf(t->line[t->n++ % SHOWN], sizeof(t->line[0]), "%016" PRIx64 "  %s", rip, text);
	for (unsigned k = 0; k < ARRAY_SIZE(ends); k++)
		if (!strncmp(text, ends[k], strlen(ends[k])))
			return 0;
	return len ? rip + len : 0;
}

/*
 * The processor remembers where blocks were entered and where instructions faulted; what lies
 * between is read from memory. Blocks that were chained to one another are one entry: of those only
 * the first is shown. @end is the instruction pointer, shown when @tried.
 */
static void trail_follow(struct trail *t, uint64_t end, bool tried)
{
	uint64_t rip[TRAIL];
	unsigned n = t->vm->engine->vcpu_history(t->v->engine, rip, TRAIL);

	for (unsigned k = 0; k < n; k++) {
		uint64_t next = k + 1 < n ? rip[k + 1] : end, at = rip[k];

		if (at == next)
			continue;
		for (unsigned i = 0; i < BLOCK_INSNS_MAX && at && (i == 0 || at != next); i++)
			at = trail_add(t, at);
	}
	if (tried)
		trail_add(t, end);
}

static struct json_object *instructions_json(struct vm *vm, struct vcpu *v,
					     const struct cpu_state *s)
{
	struct json_object *a = json_object_new_array();
	struct trail t = {.vm = vm, .v = v, .base = s->seg[X86_CS].base};

	trail_follow(&t, s->rip, vm->reason != VM_REASON_HALTED);
	for (unsigned k = t.n > SHOWN ? t.n - SHOWN : 0; k < t.n; k++)
		json_object_array_add(a, json_object_new_string(t.line[k % SHOWN]));
	return a;
}

struct json_object *vm_crash_detail(struct vm *vm, unsigned vcpu)
{
	struct json_object *o = json_object_new_object();
	struct vcpu *v = &vm->vcpus[vcpu];
	struct cpu_state s;

	json_object_object_add(o, "vcpu", json_object_new_int((int)vcpu));
	if (vm->engine->vcpu_get_state(v->engine, &s))
		return o;
	json_object_object_add(o, "registers", registers_json(&s));
	json_object_object_add(o, "instructions", instructions_json(vm, v, &s));
	return o;
}
