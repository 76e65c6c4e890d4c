/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mmu.*: what the MMU holds, as JSON. */
#include "vm/vm_api.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/base64.h"
#include "api/server.h"
#include "base/bitmap.h"
#include "base/cleanup.h"
#include "mmu/inspect.h"
#include "vm/vm_internal.h"
#include "vm/vm_json.h"

/* ---- words ---- */

static const char *paging_name(enum mmu_paging paging, bool five_levels)
{
	static const char *const names[] = {"none", "32-bit", "pae", "4-level", "ept"};

	return paging == MMU_PAGING_LONG && five_levels ? "5-level" : names[paging];
}

static const char *format_name(enum mmu_format format)
{
	static const char *const names[] = {"x86", "ept", "npt"};

	return names[format];
}

/* "rwxu", of MMU_MAP_*; what is present may be read. */
static void put_access(struct json_object *o, unsigned access)
{
	char text[] = "r--s";

	if (access & MMU_MAP_WRITE)
		text[1] = 'w';
	if (access & MMU_MAP_EXEC)
		text[2] = 'x';
	if (access & MMU_MAP_USER)
		text[3] = 'u';
	put_string(o, "access", text);
}

/* "rwx" of three bits of MMU_MAY_*. */
static void put_allowed(struct json_object *o, const char *name, unsigned bits)
{
	char text[] = "---";

	for (unsigned i = 0; i < 3; i++)
		if (bits >> i & 1)
			text[i] = "rwx"[i];
	put_string(o, name, text);
}

static void put_page(struct json_object *o, unsigned shift)
{
	char text[16];

	snprintf(text, sizeof(text), "%u%c", 1u << (shift % 10), "BKMG"[shift / 10]);
	put_string(o, "page", text);
}

static void add_flag(struct json_object *flags, bool set, const char *name)
{
	if (set)
		json_object_array_add(flags, json_object_new_string(name));
}

static struct json_object *role_json(const struct mmu_role_info *r)
{
	struct json_object *o = json_object_new_object(), *flags = json_object_new_array();

	put_addr(o, "word", r->word);
	put_u64(o, "level", r->level);
	put_string(o, "paging", paging_name(r->paging, false));
	put_string(o, "format", format_name(r->format));
	put_access(o, r->access);
	put_bool(o, "direct", r->direct);
	if (r->paging == MMU_PAGING_32 && !r->direct)
		put_u64(o, "quadrant", r->quadrant);
	if (r->key)
		put_u64(o, "key", r->key);
	add_flag(flags, r->nx, "nx");
	add_flag(flags, r->wp, "wp");
	add_flag(flags, r->pse, "pse");
	add_flag(flags, r->smep_andnot_wp, "smep_andnot_wp");
	add_flag(flags, r->smap_andnot_wp, "smap_andnot_wp");
	add_flag(flags, r->guest_mode, "guest_mode");
	add_flag(flags, r->ad_disabled, "ad_disabled");
	add_flag(flags, r->exec_only, "exec_only");
	add_flag(flags, r->global, "global");
	put(o, "flags", flags);
	return o;
}

static void put_policy(struct vm *vm, struct json_object *o)
{
	put_string(o, "policy", vm_policy_name(vm));
}

static void put_unknown(struct vm *vm, struct json_object *o)
{
	if (vm_mmu_is_kernels(vm))
		put_string(o, "unknown", "the tables that map it are the kernel's (engine kvm)");
}

/* The vCPUs are held. False: the call is answered with what failed. */
static bool regs_of(struct api_call *call, struct vcpu *v, struct mmu_regs *regs)
{
	if (!v->vm->engine->vcpu_mmu_regs(v->engine, regs))
		return true;
	api_call_fail(call, API_KIND_INTERNAL, "the registers of vCPU %u: %s", v->index,
		      v->vm->engine->vcpu_error(v->engine));
	return false;
}

/* ---- walk ---- */

/*
 * The host frame behind a page of ours: /proc/self/pagemap (the kernel's admin-guide/mm/pagemap)
 * has it in bits 54:0 while bit 63 says present. Reads zero frames without CAP_SYS_ADMIN.
 */
static void put_hpa(struct json_object *o, const struct vm *vm, hva_t hva)
{
	int fd = vm->pagemap_fd;
	uint64_t entry;

	if (fd < 0 || pread(fd, &entry, sizeof(entry), (off_t)(hva >> PAGE_SHIFT) * 8) !=
			      (ssize_t)sizeof(entry))
		put_string(o, "hpa_unknown", "umbra-vm may not read /proc/self/pagemap");
	else if (!(entry & BIT(63)))
		put_string(o, "hpa_unknown",
			   "the host has no frame there yet, or it is swapped out");
	else if (!(entry & BITS(54, 0)))
		put_string(o, "hpa_unknown", "the host shows frames only to CAP_SYS_ADMIN");
	else
		put_addr(o, "hpa", (entry & BITS(54, 0)) << PAGE_SHIFT | (hva & ~PAGE_MASK));
}

static void put_steps(struct json_object *o, const char *name, enum mmu_paging paging,
		      const struct mmu_walk_step *steps, unsigned n)
{
	struct json_object *all = json_object_new_array();
	char bits[128];

	for (unsigned i = 0; i < n; i++) {
		struct json_object *s = json_object_new_object();
		bool reg = paging == MMU_PAGING_PAE && steps[i].level == 3;

		put_u64(s, "level", steps[i].level);
		put_string(s, "name", mmu_level_name(paging, steps[i].level));
		/* A PDPTE of PAE paging is in a register of the vCPU. */
		if (reg)
			put_u64(s, "register", steps[i].gpa);
		else
			put_addr(s, "gpa", steps[i].gpa);
		put_addr(s, "raw", steps[i].raw);
		mmu_format_guest_entry(paging, steps[i].level, steps[i].raw, bits, sizeof(bits));
		put_string(s, "bits", bits);
		json_object_array_add(all, s);
	}
	put(o, name, all);
}

/* Why the guest's walk ends, and at which entry. */
static struct json_object *fault_json(const struct mmu_inspect_walk *w)
{
	struct json_object *o = json_object_new_object();
	const struct mmu_walk_step *last =
		w->guest.nsteps ? &w->guest.steps[w->guest.nsteps - 1] : NULL;
	char text[160];

	if (w->why == MMU_WHY_NESTED_EPT)
		snprintf(text, sizeof(text), "ngpa %#llx %s",
			 (unsigned long long)w->guest.fault.cr2, mmu_why_name(w->why));
	else if (w->why == MMU_WHY_NO_MEMORY && last)
		snprintf(text, sizeof(text), "the table with the %s %s",
			 mmu_level_name(w->paging, last->level), mmu_why_name(w->why));
	else
		snprintf(text, sizeof(text), "the %s %s",
			 last ? mmu_level_name(w->paging, last->level) : "address",
			 mmu_why_name(w->why));
	put_string(o, "why", text);
	if (last)
		put_u64(o, "level", last->level);
	if (w->rsvd)
		put_addr(o, "reserved", w->rsvd);
	if (w->why == MMU_WHY_NOT_CANONICAL)
		put_string(o, "raises", "#GP(0)");
	else
		put_string(o, "raises", w->why == MMU_WHY_NESTED_EPT ? "EPT violation" : "#PF");
	if (last && w->why != MMU_WHY_NESTED_EPT)
		put_addr(o, "error_code", w->guest.fault.error_code);
	return o;
}

static struct json_object *guest_json(const struct mmu_inspect_walk *w)
{
	struct json_object *o = json_object_new_object();

	put_string(o, "paging", paging_name(w->paging, w->five_levels));
	put_addr(o, "cr3", w->cr3);
	put_steps(o, "steps", w->paging, w->guest.steps, w->guest.nsteps);
	if (w->nsteps_ept) {
		put_addr(o, "ngpa", w->ngpa);
		put_steps(o, "ept", MMU_PAGING_EPT, w->ept, w->nsteps_ept);
	}
	if (w->guest_result) {
		put(o, "fault", fault_json(w));
		return o;
	}
	put_addr(o, "gpa", w->guest.gpa);
	put_page(o, w->guest.page_shift);
	put_access(o, w->guest.access);
	put_allowed(o, "kernel_may", w->allowed & 7);
	put_allowed(o, "user_may", w->allowed >> 3);
	return o;
}

static struct json_object *slot_json(const struct slot_desc *d)
{
	struct json_object *o = json_object_new_object();

	put_u64(o, "id", d->id);
	put_addr(o, "gpa", d->gpa);
	put_addr(o, "size", d->size);
	put_addr(o, "hva", (uintptr_t)d->host);
	put_bool(o, "readonly", d->flags & SLOT_READONLY);
	return o;
}

static const char *tables_state(const struct vm *vm, const struct mmu_inspect_walk *w)
{
	return vm_mmu_is_kernels(vm) ? "unknown"
	       : !w->has_root	     ? "no-root"
	       : w->present	     ? "present"
	       : w->mmio	     ? "mmio"
	       : w->by_gva	     ? "by-gva"
	       : w->nsteps	     ? "empty"
				     : "not-walked";
}

static void put_host_steps(struct json_object *o, const struct mmu_inspect_walk *w)
{
	enum mmu_paging paging = w->format == MMU_FORMAT_EPT ? MMU_PAGING_EPT : MMU_PAGING_LONG;
	struct json_object *all = json_object_new_array();
	char bits[128];

	for (unsigned i = 0; i < w->nsteps; i++) {
		struct json_object *s = json_object_new_object();

		put_u64(s, "level", w->steps[i].level);
		put_string(s, "name", mmu_level_name(paging, w->steps[i].level));
		put_addr(s, "at", w->steps[i].hpa);
		put_addr(s, "raw", w->steps[i].raw);
		mmu_format_spte(w->format, w->steps[i].level, w->steps[i].raw, bits, sizeof(bits));
		put_string(s, "bits", bits);
		json_object_array_add(all, s);
	}
	put(o, "steps", all);
}

/* Whether the two ways end at the same byte, or (true as well) one of them has no end. */
static bool agrees(const struct mmu_inspect_walk *w)
{
	return !w->present || (w->in_slot && w->hpa == w->hva);
}

static struct json_object *tables_json(struct vm *vm, const struct mmu_inspect_walk *w)
{
	struct json_object *o = json_object_new_object();

	put_string(o, "state", tables_state(vm, w));
	put_unknown(vm, o);
	if (!w->has_root || w->by_gva)
		return o;
	put_string(o, "format", format_name(w->format));
	put_addr(o, "root", w->root);
	put_host_steps(o, w);
	if (w->present)
		put_addr(o, "hva", w->hpa);
	put_bool(o, "agrees", agrees(w));
	return o;
}

static void put_verdict(const struct vm *vm, struct json_object *o,
			const struct mmu_inspect_walk *w)
{
	char text[256];

	if (w->guest_result)
		snprintf(
			text, sizeof(text), "faults: %s",
			json_object_get_string(json_object_object_get(
				json_object_object_get(json_object_object_get(o, "guest"), "fault"),
				"why")));
	else if (!w->in_slot)
		snprintf(text, sizeof(text), "gpa %#llx is in no memslot: MMIO",
			 (unsigned long long)w->guest.gpa);
	else if (vm_mmu_is_kernels(vm))
		snprintf(text, sizeof(text),
			 "memory; whether the kernel maps it now is unknown: its tables are its "
			 "own");
	else if (!w->has_root)
		snprintf(text, sizeof(text),
			 "memory; the vCPU has no root now, its next entry "
			 "finds or builds one");
	else if (w->by_gva)
		snprintf(text, sizeof(text),
			 "memory; under shadow our tables map linear addresses: "
			 "\"mmu rmap\" shows those that map it");
	else if (!w->present)
		snprintf(text, sizeof(text),
			 "memory that our tables do not map yet: the first "
			 "access makes the entry");
	else if (agrees(w))
		snprintf(text, sizeof(text), "both ways end at the same byte");
	else
		snprintf(text, sizeof(text),
			 "our tables lead elsewhere: the guest has changed its "
			 "tables and not flushed its TLB yet");
	put_string(o, "verdict", text);
}

#define SHOWN_BYTES 64

/* What lies there: to the end of the line of 16 bytes that it takes, within the page. */
static void put_bytes(struct vm *vm, struct json_object *o, gpa_t gpa)
{
	uint64_t len = MIN((uint64_t)SHOWN_BYTES, PAGE_SIZE - (gpa & ~PAGE_MASK));
	uint8_t data[SHOWN_BYTES];
	char *text;

	if (slot_read(vm->mmu, gpa, data, len))
		return;
	text = base64_encode(data, len);
	if (text)
		put_string(o, "bytes", text);
	free(text);
}

static void reply_walk(struct api_call *call, struct vcpu *v, uint64_t addr,
		       const struct mmu_inspect_walk *w)
{
	struct json_object *o = json_object_new_object();
	bool gpa = api_call_bool(call, "gpa", false);
	struct vm *vm = v->vm;

	put_u64(o, "vcpu", v->index);
	put_policy(vm, o);
	put_addr(o, "addr", addr);
	put_string(o, "kind", gpa ? "gpa" : w->nested ? "ngva" : "gva");
	if (!gpa)
		put(o, "guest", guest_json(w));
	if (!w->guest_result)
		put_addr(o, "gpa", w->guest.gpa);
	if (w->in_slot) {
		put(o, "slot", slot_json(&w->slot));
		put_addr(o, "hva", w->hva);
		put_bytes(vm, o, w->guest.gpa);
		put_hpa(o, vm, w->hva);
	}
	put(o, "tables", tables_json(vm, w));
	put_verdict(vm, o, w);
	api_call_reply(call, o, -1);
}

void handle_mmu_walk(struct api_call *call)
{
	uint64_t addr = api_call_addr(call, "addr", 0);
	bool gpa = api_call_bool(call, "gpa", false), nested = api_call_bool(call, "nested", false);
	struct vm *vm = vm_of_call(call);
	struct vcpu *v = vm ? vcpu_of_call(call, vm) : NULL;
	struct mmu_inspect_walk w;
	struct mmu_regs regs;
	bool ok = true;
	int ret = 0;

	if (!v)
		return;
	if (gpa && nested) {
		api_call_fail(call, API_KIND_INVALID_PARAMS,
			      "an address is either a gpa or one of the guest's guest");
		return;
	}
	vcpus_hold(vm);
	if (gpa)
		mmu_inspect_gpa(vm->engine->vcpu_mmu(v->engine), addr, &w);
	else if ((ok = regs_of(call, v, &regs)))
		ret = mmu_inspect_walk(vm->engine->vcpu_mmu(v->engine), &regs, addr, &w);
	vcpus_release(vm);
	if (!ok)
		return;
	if (ret)
		api_call_fail(call, API_KIND_INTERNAL, "the vCPU has no registers");
	else if (nested && !w.nested)
		api_call_fail(call, API_KIND_INVALID_STATE, "vCPU %u runs no nested guest now",
			      v->index);
	else
		reply_walk(call, v, addr, &w);
}

/* ---- context and roots ---- */

static struct json_object *cpu_role_json(const struct mmu_context_info *c)
{
	struct json_object *o = json_object_new_object(), *flags = json_object_new_array();

	put_addr(o, "word", c->cpu_role);
	put_string(o, "paging", paging_name(c->paging, c->la57));
	add_flag(flags, c->pse, "pse");
	add_flag(flags, c->nx, "nx");
	add_flag(flags, c->wp, "wp");
	add_flag(flags, c->smep, "smep");
	add_flag(flags, c->smap, "smap");
	add_flag(flags, c->pke, "pke");
	add_flag(flags, c->la57, "la57");
	add_flag(flags, c->ad_disabled, "ad_disabled");
	add_flag(flags, c->exec_only, "exec_only");
	add_flag(flags, c->guest_mode, "guest_mode");
	put(o, "flags", flags);
	return o;
}

static struct json_object *addrs_json(const uint64_t *v, size_t n)
{
	struct json_object *all = json_object_new_array();

	for (size_t i = 0; i < n; i++)
		json_object_array_add(all, api_addr_new(v[i]));
	return all;
}

/* What L0 builds for the context, where that is us. */
static void put_our_side(struct json_object *o, const struct mmu_context_info *c)
{
	put_string(o, "page_fault", c->page_fault);
	put_string(o, "format", format_name(c->format));
	put_bool(o, "direct", c->direct);
	if (c->root_hpa)
		put_addr(o, "root_hpa", c->root_hpa);
	put_u64(o, "shadow_root_level", c->shadow_root_level);
	put(o, "root_role", role_json(&c->root_role));
	if (c->pae_root[0] || c->pae_root[1] || c->pae_root[2] || c->pae_root[3])
		put(o, "pae_root", addrs_json(c->pae_root, 4));
	put_bool(o, "needs_load", c->needs_load);
}

static struct json_object *context_json(struct vm *vm, const struct mmu_context_info *c)
{
	struct json_object *o = json_object_new_object(), *rsvd = json_object_new_array();

	put_string(o, "gva_to_gpa", c->gva_to_gpa);
	put_string(o, "paging", paging_name(c->paging, c->la57));
	put_u64(o, "root_level", c->root_level);
	put(o, "cpu_role", cpu_role_json(c));
	put_addr(o, "cr3", c->cr3);
	if (c->paging == MMU_PAGING_PAE)
		put(o, "pdptr", addrs_json(c->pdptr, 4));
	if (!vm_mmu_is_kernels(vm))
		put_our_side(o, c);
	put_unknown(vm, o);
	for (unsigned large = 0; large < 2; large++)
		json_object_array_add(rsvd, addrs_json(c->rsvd_bits[large], MMU_MAX_LEVEL));
	put(o, "rsvd_bits", rsvd);
	return o;
}

/* The index of an API_ENUM's value; -1: the parameter is absent. */
static int choice_of(struct api_call *call, const char *name, const char *const *choices)
{
	const char *value = api_call_string(call, name);

	for (int i = 0; value && choices[i]; i++)
		if (!strcmp(value, choices[i]))
			return i;
	return -1;
}

void handle_mmu_context(struct api_call *call)
{
	static const char *const names[] = {"current", "walk", "root", "guest", "nested", NULL};
	int which = MAX(choice_of(call, "which", names), 0);
	struct vm *vm = vm_of_call(call);
	struct vcpu *v = vm ? vcpu_of_call(call, vm) : NULL;
	struct mmu_context_info info;
	struct json_object *o;
	struct mmu_vcpu *mv;
	struct mmu_regs regs;
	bool ok;

	if (!v)
		return;
	vcpus_hold(vm);
	mv = vm->engine->vcpu_mmu(v->engine);
	ok = regs_of(call, v, &regs);
	if (ok && vm_mmu_is_kernels(vm))
		mmu_set_regs(mv, &regs); /* it hears of none otherwise */
	mmu_inspect_context(mv, (enum mmu_which)which, &info);
	vcpus_release(vm);
	if (!ok)
		return;
	/* Under TDP the MMU does not hear of each CR3. */
	if (info.direct && !info.guest_mode)
		info.cr3 = regs.cr3;
	o = context_json(vm, &info);
	put_u64(o, "vcpu", v->index);
	put_policy(vm, o);
	put_string(o, "which", names[which]);
	api_call_reply(call, o, -1);
}

#define ROOTS_MAX 16 /* of a vCPU: two contexts, the one in use and those cached */

void handle_mmu_roots(struct api_call *call)
{
	int64_t only = api_call_int(call, "vcpu", -1);
	struct vm *vm = vm_of_call(call);
	struct json_object *o, *all;

	if (!vm || (only >= 0 && !vcpu_of_call(call, vm)))
		return;
	o = json_object_new_object();
	all = json_object_new_array();
	vcpus_hold(vm);
	for (unsigned k = 0; k < vm->cpus; k++) {
		struct mmu_root_info r[ROOTS_MAX];
		size_t n = 0;

		if (only < 0 || only == k)
			n = mmu_inspect_roots(vm->engine->vcpu_mmu(vm->vcpus[k].engine), r,
					      ROOTS_MAX);
		for (size_t i = 0; i < n; i++) {
			struct json_object *e = json_object_new_object();

			put_u64(e, "vcpu", k);
			put_bool(e, "current", r[i].current);
			put_bool(e, "obsolete", r[i].obsolete);
			put_string(e, "of", r[i].guest_mode ? "guest_mmu" : "root_mmu");
			/* One root serves every CR3 where no guest table is behind it. */
			if (!r[i].role.direct)
				put_addr(e, "cr3", r[i].cr3);
			put_addr(e, "hpa", r[i].hpa);
			put_u64(e, "level", r[i].level);
			put(e, "role", role_json(&r[i].role));
			json_object_array_add(all, e);
		}
	}
	vcpus_release(vm);
	put(o, "roots", all);
	put_unknown(vm, o);
	api_call_reply(call, o, -1);
}

/* ---- slots ---- */

static struct json_object *large_json(uint64_t may, uint64_t of, bool aligned)
{
	struct json_object *o = json_object_new_object();

	put_u64(o, "may", may);
	put_u64(o, "all", of);
	put_bool(o, "aligned", aligned);
	return o;
}

static struct json_object *mapped_json(const struct mmu_slot_info *info)
{
	struct json_object *o = json_object_new_object();

	put_u64(o, "4k", info->mapped_4k);
	put_u64(o, "2m", info->mapped_2m);
	put_u64(o, "1g", info->mapped_1g);
	return o;
}

void handle_mmu_slots(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	struct json_object *o, *all;
	struct slot_desc desc = {0};

	if (!vm)
		return;
	o = json_object_new_object();
	all = json_object_new_array();
	while (!slot_next(vm->mmu, desc.gpa + desc.size, &desc)) {
		struct json_object *e = slot_json(&desc);
		struct mmu_slot_info info;

		if (mmu_inspect_slot(vm->mmu, desc.id, &info)) {
			json_object_put(e);
			continue;
		}
		put_u64(e, "watchers", info.watchers);
		put_u64(e, "windows", info.windows);
		put(e, "pages_2m",
		    large_json(info.large_2m, info.large_2m_all, info.host_aligned_2m));
		put(e, "pages_1g",
		    large_json(info.large_1g, info.large_1g_all, info.host_aligned_1g));
		if (!vm_mmu_is_kernels(vm))
			put(e, "mapped", mapped_json(&info));
		json_object_array_add(all, e);
	}
	put(o, "slots", all);
	put_unknown(vm, o);
	api_call_reply(call, o, -1);
}

/* ---- table pages ---- */

struct page_filter {
	int64_t level; /* 0: any */
	bool has_gfn;
	gfn_t gfn;
	const char *paging;		   /* NULL: any */
	int direct, unsync, invalid, root; /* -1: any */
};

static int tristate(struct api_call *call, const char *name)
{
	struct json_object *v;

	return json_object_object_get_ex(api_call_params(call), name, &v)
		       ? json_object_get_boolean(v)
		       : -1;
}

static bool page_passes(const struct page_filter *f, const struct mmu_page_info *p)
{
	const char *paging = paging_name(p->role.paging, false);

	return (!f->level || f->level == p->role.level) && (!f->has_gfn || f->gfn == p->gfn) &&
	       (!f->paging || !strcmp(f->paging, paging) ||
		(!strcmp(f->paging, "5-level") && p->role.level == 5)) &&
	       (f->direct < 0 || f->direct == p->role.direct) &&
	       (f->unsync < 0 || f->unsync == p->unsync) &&
	       (f->invalid < 0 || f->invalid == p->invalid) &&
	       (f->root < 0 || f->root == (p->root_count != 0));
}

static struct json_object *page_json(const struct mmu_page_info *p)
{
	struct json_object *o = json_object_new_object(), *slots = json_object_new_array();

	put_u64(o, "block", p->index);
	put_addr(o, "hpa", p->hpa);
	put_addr(o, "gfn", p->gfn);
	put(o, "role", role_json(&p->role));
	put_u64(o, "roots", p->root_count);
	put_u64(o, "parents", p->parents);
	put_u64(o, "present", p->present);
	put_bool(o, "unsync", p->unsync);
	put_u64(o, "unsync_children", p->unsync_children);
	put_u64(o, "flood", p->flood);
	put_bool(o, "invalid", p->invalid);
	put_bool(o, "frame", p->frame);
	put_addr(o, "users", p->users);
	for (unsigned id = 0; id <= SLOT_MAX_ID; id++)
		if (bitmap_test(p->slots, id))
			json_object_array_add(slots, json_object_new_int((int)id));
	put(o, "slots", slots);
	return o;
}

#define PAGES_AT_ONCE 64

/* Up to @limit pages that pass; where to go on, or 0 at the end. */
static uint64_t find_pages(struct vm *vm, const struct page_filter *f, uint32_t from, size_t limit,
			   struct json_object *all)
{
	struct mmu_page_info p[PAGES_AT_ONCE];
	size_t n;

	while ((n = mmu_inspect_pages(vm->mmu, from, p, PAGES_AT_ONCE))) {
		for (size_t i = 0; i < n; i++) {
			from = p[i].index + 1;
			if (!page_passes(f, &p[i]))
				continue;
			json_object_array_add(all, page_json(&p[i]));
			if (json_object_array_length(all) == limit)
				return from;
		}
		if (n < PAGES_AT_ONCE)
			break;
	}
	return 0;
}

void handle_mmu_pages(struct api_call *call)
{
	struct page_filter f = {
		.level = api_call_int(call, "level", 0),
		.has_gfn = json_object_object_get_ex(api_call_params(call), "gfn", NULL),
		.gfn = api_call_addr(call, "gfn", 0),
		.paging = api_call_string(call, "paging"),
		.direct = tristate(call, "direct"),
		.unsync = tristate(call, "unsync"),
		.invalid = tristate(call, "invalid"),
		.root = tristate(call, "root"),
	};
	struct vm *vm = vm_of_call(call);
	struct json_object *o, *all;
	struct mmu_vm_stats st;
	uint64_t next;

	if (!vm)
		return;
	o = json_object_new_object();
	all = json_object_new_array();
	next = find_pages(vm, &f, (uint32_t)api_call_int(call, "from", 0),
			  (size_t)api_call_int(call, "limit", 1024), all);
	put(o, "pages", all);
	if (next)
		put_u64(o, "next", next);
	mmu_vm_read_stats(vm->mmu, &st);
	put_u64(o, "total", st.mmu_table_pages);
	put_unknown(vm, o);
	api_call_reply(call, o, -1);
}

static struct json_object *spte_json(const struct mmu_rmap_info *r)
{
	struct json_object *o = json_object_new_object(), *table = json_object_new_object();
	char bits[128];

	put_u64(o, "level", r->level);
	put_addr(o, "at", r->hpa);
	put_addr(o, "raw", r->raw);
	mmu_format_spte(r->format, r->level, r->raw, bits, sizeof(bits));
	put_string(o, "bits", bits);
	put_u64(o, "index", r->index);
	put_addr(table, "gfn", r->table_gfn);
	put(table, "role", role_json(&r->table_role));
	put(o, "table", table);
	return o;
}

#define RMAPS_AT_ONCE 64

void handle_mmu_rmap(struct api_call *call)
{
	uint64_t gfn = api_call_addr(call, "gfn", 0);
	size_t from = (size_t)api_call_int(call, "from", 0);
	size_t limit = (size_t)api_call_int(call, "limit", 256), got = 0;
	struct vm *vm = vm_of_call(call);
	struct mmu_rmap_info r[RMAPS_AT_ONCE];
	struct json_object *o, *all;
	struct mmu_inspect_walk w;
	struct api_error err;
	ssize_t n;

	if (!vm)
		return;
	if (gfn >> (64 - PAGE_SHIFT) || mmu_inspect_rmap(vm->mmu, gfn, 0, r, 1) < 0) {
		api_error_field(&err, "gfn", "guest frame %#llx is in no memslot",
				(unsigned long long)gfn);
		api_call_error(call, &err);
		return;
	}
	o = json_object_new_object();
	all = json_object_new_array();
	do {
		n = mmu_inspect_rmap(vm->mmu, gfn, from + got, r,
				     MIN(limit - got, (size_t)RMAPS_AT_ONCE));
		for (ssize_t i = 0; i < n; i++)
			json_object_array_add(all, spte_json(&r[i]));
		got += n > 0 ? (size_t)n : 0;
	} while (n > 0 && got < limit);
	mmu_inspect_gpa(vm->engine->vcpu_mmu(vm->vcpus[0].engine), gfn << PAGE_SHIFT, &w);
	put_addr(o, "gfn", gfn);
	put_u64(o, "slot", w.slot.id);
	put_addr(o, "hva", w.hva);
	put(o, "sptes", all);
	put_unknown(vm, o);
	if (got == limit && mmu_inspect_rmap(vm->mmu, gfn, from + got, r, 1) == 1)
		put_u64(o, "next", from + got);
	api_call_reply(call, o, -1);
}

/* ---- the address space ---- */

#define RANGES_MAX 4096 /* the parameter "limit"'s bound */

static struct json_object *ranges_json(const struct mmu_map_list *list)
{
	struct json_object *all = json_object_new_array();

	for (size_t i = 0; i < list->n; i++) {
		const struct mmu_map_range *r = &list->v[i];
		struct json_object *o = json_object_new_object();

		put_addr(o, "start", r->start);
		put_addr(o, "end", r->end);
		put_addr(o, "gpa", r->gpa);
		put_access(o, r->access);
		put_page(o, r->page_shift);
		put_bool(o, "memory", r->memory);
		json_object_array_add(all, o);
	}
	return all;
}

void handle_mmu_map(struct api_call *call)
{
	uint64_t from = api_call_addr(call, "from", 0);
	struct mmu_map_list list = {.max = (size_t)api_call_int(call, "limit", 512)};
	struct vm *vm = vm_of_call(call);
	struct vcpu *v = vm ? vcpu_of_call(call, vm) : NULL;
	struct mmu_inspect_walk w;
	struct json_object *o;
	struct mmu_regs regs;
	struct mmu_vcpu *mv;
	int ret = 0;
	bool ok;

	if (!v)
		return;
	list.v = calloc(list.max, sizeof(*list.v));
	if (!list.v) {
		api_call_fail(call, API_KIND_INTERNAL, "out of memory");
		return;
	}
	vcpus_hold(vm);
	mv = vm->engine->vcpu_mmu(v->engine);
	ok = regs_of(call, v, &regs);
	if (ok)
		ret = mmu_inspect_map(mv, &regs, from, &list);
	if (ok && !ret)
		ret = mmu_inspect_walk(mv, &regs, from, &w);
	vcpus_release(vm);
	if (!ok || ret) {
		free(list.v);
		if (ret)
			api_call_fail(call, API_KIND_INTERNAL, "the vCPU has no registers");
		return;
	}
	o = json_object_new_object();
	put_u64(o, "vcpu", v->index);
	put_addr(o, "cr3", w.cr3);
	put_string(o, "paging", paging_name(w.paging, w.five_levels));
	put(o, "ranges", ranges_json(&list));
	if (list.more)
		put_addr(o, "next", list.next);
	free(list.v);
	api_call_reply(call, o, -1);
}

/* ---- audit and policy ---- */

void handle_mmu_audit(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	struct json_object *o;
	struct mmu_vm_stats st;
	char text[256] = "";
	unsigned n;

	if (!vm)
		return;
	n = mmu_audit(vm->mmu, text, sizeof(text));
	mmu_vm_read_stats(vm->mmu, &st);
	o = json_object_new_object();
	put_u64(o, "violations", n);
	if (n)
		put_string(o, "first", text);
	put_u64(o, "pages", st.mmu_table_pages);
	put_unknown(vm, o);
	api_call_reply(call, o, -1);
}

/* Whose tables they are was decided when the machine was made. */
static int refuse_policy(struct api_call *call, struct vm *vm)
{
	api_call_fail(call, API_KIND_NOT_SUPPORTED,
		      "under kvm the policy is the kernel's, which has %s (module %s)",
		      engine_kvm_mmu()->form, engine_kvm_mmu()->module);
	return -1;
}

static int switch_policy(struct api_call *call, struct vm *vm, enum mmu_policy policy)
{
	int ret;

	if (vm_mmu_is_kernels(vm))
		return refuse_policy(call, vm);
	vcpus_hold(vm);
	ret = vm->engine->set_policy(vm->engine_vm, policy);
	vcpus_release(vm);
	if (ret)
		api_call_fail(call, ret == -EBUSY ? API_KIND_INVALID_STATE : API_KIND_INTERNAL,
			      ret == -EBUSY ? "a vCPU runs a nested guest: the policy cannot be "
					      "switched now"
					    : "the policy was not switched: %s",
			      strerror(-ret));
	return ret;
}

void handle_mmu_policy(struct api_call *call)
{
	static const char *const names[] = {"shadow", "tdp", NULL};
	int want = choice_of(call, "policy", names);
	struct vm *vm = vm_of_call(call);
	struct json_object *o;
	const char *was;

	if (!vm)
		return;
	was = vm_policy_name(vm);
	if (want >= 0 && strcmp(names[want], was) &&
	    switch_policy(call, vm, want ? MMU_POLICY_TDP : MMU_POLICY_SHADOW))
		return;
	o = json_object_new_object();
	put_policy(vm, o);
	put_string(o, "was", was);
	if (vm_mmu_is_kernels(vm))
		put(o, "kernel", vm_kernel_mmu_json());
	api_call_reply(call, o, -1);
}
