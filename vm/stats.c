/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a machine counted, and the last it knew, as JSON. */
#include "vm/vm_internal.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- statistics --------------------------------------------------------------------------------
 */

static void add_u64(struct json_object *o, const char *name, uint64_t value)
{
	json_object_object_add(o, name, json_object_new_uint64(value));
}

static void add_schema(struct json_object *o, const struct mmu_stat_desc *desc, size_t n,
		       const void *values)
{
	const uint64_t *v = values;

	for (size_t k = 0; k < n; k++)
		add_u64(o, desc[k].name, v[k]);
}

static struct json_object *vcpu_stats_json(struct vm *vm, struct vcpu *v,
					   struct engine_vcpu_stats *sum)
{
	struct json_object *o = json_object_new_object(), *exits = json_object_new_object();
	struct engine_vcpu_stats st;

	vm->engine->vcpu_stats(v->engine, &st);
	for (unsigned k = 0; k < CPU_EXIT_REASONS; k++) {
		sum->cpu.exit_count[k] += st.cpu.exit_count[k];
		if (st.cpu.exit_count[k])
			add_u64(exits, cpu_exit_name(k), st.cpu.exit_count[k]);
	}
	add_u64(o, "instructions", vm->engine->vcpu_icount(v->engine));
	json_object_object_add(o, "exits", exits);
	add_u64(o, "exits_total", st.cpu.exits);
	add_u64(o, "entries", st.entries);
	add_u64(o, "emulated", st.emulated);
	add_u64(o, "irq_injections", st.irqs);
	add_u64(o, "halt_exits", st.halts);
	add_u64(o, "tlb_flush_asked", st.tlb_flush_asked);
	add_u64(o, "tlb_flush_ipis", st.tlb_flush_ipis);
	add_u64(o, "pml_entries", st.pml_entries);
	add_u64(o, "pml_full", st.pml_full);
	add_u64(o, "waits", st.waits);
	add_u64(o, "tlb_misses", st.cpu.tlb_misses);
	add_u64(o, "tlb_flushes", st.cpu.tlb_flushes);
	add_u64(o, "walks", st.cpu.walks);
	add_u64(o, "blocks_decoded", st.cpu.blocks_decoded);
	add_u64(o, "blocks_dropped", st.cpu.blocks_dropped);
	add_u64(o, "smc_invalidations", st.cpu.smc_invalidations);
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
		vm->engine->vcpu_get_state(vm->vcpus[k].engine, &s);
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
	struct json_object *o = json_object_new_object();
	struct mmu_vm_stats st;
	struct mmu_vcpu_stats one, sum = {0};
	size_t n;
	const struct mmu_stat_desc *desc = mmu_vm_stats_schema(&n);

	mmu_vm_read_stats(vm->mmu, &st);
	add_schema(o, desc, n, &st);
	desc = mmu_vcpu_stats_schema(&n);
	for (unsigned k = 0; k < vm->cpus; k++) {
		vm->engine->vcpu_mmu_stats(vm->vcpus[k].engine, &one);
		for (size_t i = 0; i < n; i++)
			((uint64_t *)&sum)[i] += ((const uint64_t *)&one)[i];
	}
	add_schema(o, desc, n, &sum);
	json_object_object_add(stats, "mmu", o);
}

int vm_stats_add(struct vm *vm, struct json_object *stats)
{
	struct json_object *vcpus = json_object_new_array(), *exits = json_object_new_object();
	struct engine_vcpu_stats sum = {0};
	uint64_t insns = 0, total = 0, ran = vm->ran_ns;

	if (vm_runs(vm))
		ran += clock_host_ns(NULL) - vm->started_ns;
	for (unsigned k = 0; k < vm->cpus; k++) {
		json_object_array_add(vcpus, vcpu_stats_json(vm, &vm->vcpus[k], &sum));
		insns += vm->engine->vcpu_icount(vm->vcpus[k].engine);
	}
	for (unsigned k = 0; k < CPU_EXIT_REASONS; k++) {
		total += sum.cpu.exit_count[k];
		if (sum.cpu.exit_count[k])
			add_u64(exits, cpu_exit_name(k), sum.cpu.exit_count[k]);
	}
	json_object_object_add(stats, "engine", json_object_new_string(vm->engine->name));
	json_object_object_add(stats, "policy",
			       json_object_new_string(mmu_get_policy(vm->mmu) == MMU_POLICY_TDP
							      ? "tdp"
							      : "shadow"));
	json_object_object_add(stats, "boot",
			       json_object_new_string(boot_protocol_name(vm->boot.protocol)));
	json_object_object_add(stats, "debugger", json_object_new_boolean(vm->debug_stopped));
	add_u64(stats, "instructions", insns);
	add_u64(stats, "wall_ns", ran);
	if (vm->clock_ready)
		add_u64(stats, "guest_ns", clock_now(&vm->clock));
	json_object_object_add(stats, "exits", exits);
	add_u64(stats, "exits_total", total);
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

	vm->engine->vcpu_get_state(v->engine, &s);
	json_object_object_add(o, "vcpu", json_object_new_int((int)vcpu));
	json_object_object_add(o, "registers", registers_json(&s));
	json_object_object_add(o, "instructions", instructions_json(vm, v, &s));
	return o;
}
