/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looks at what there is, under the lock, and hands out copies. */
#include "mmu/inspect.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "mmu/mmu_internal.h"

_Static_assert((int)MMU_PAGING_EPT == (int)MODE_EPT && (int)MMU_PAGING_PAE == (int)MODE_PAE,
	       "the face's names are those inside");

/* ---- walks ---- */

static void host_walk(struct mmu_vm *vm, const struct mmu_context *c, uint64_t addr,
		      struct mmu_inspect_walk *ret)
{
	const struct vcpu_root *r = &c->root;
	hpa_t table;

	if (!r->valid)
		return;
	ret->has_root = true;
	ret->format = c->root_role.format;
	table = sp_hpa(vm, r->sp);
	for (unsigned level = r->frame ? 4 : r->role.level; level; level--) {
		struct mmu_host_step *s = &ret->steps[ret->nsteps++];

		s->level = (uint8_t)level;
		s->hpa = table + 8 * level_index(addr, level);
		s->raw = spte_read((const uint64_t *)(uintptr_t)s->hpa);
		if (spte_is_mmio(s->raw)) {
			ret->mmio = true;
			return;
		}
		if (!spte_is_present(s->raw, ret->format))
			return;
		table = s->raw & SPTE_FRAME;
		if (spte_is_leaf(s->raw, level)) {
			uint64_t offset = (level_pages(level) << PAGE_SHIFT) - 1;

			ret->present = true;
			ret->hpa = (table & ~offset) | (addr & offset);
			return;
		}
	}
}

/* The vCPU's walking context, or one made of @regs. */
static struct mmu_context *context_for(struct mmu_vcpu *vcpu, const struct mmu_regs *regs,
				       struct mmu_context *scratch)
{
	if (!regs)
		return vcpu->walk_mmu;
	memset(scratch, 0, sizeof(*scratch));
	scratch->translate_gpa = vcpu->walk_mmu->translate_gpa;
	context_set(vcpu, scratch, regs);
	return scratch;
}

static uint64_t linear(const struct mmu_context *c, uint64_t gva)
{
	return c->cpu_role.mode < MODE_64 ? (uint32_t)gva : gva;
}

static int peek(struct mmu_vcpu *vcpu, struct mmu_context *c, struct walker *w)
{
	int r = c->ops->walk(vcpu, c, w);

	if (r && c->translate_gpa && vcpu->walk_mmu == &vcpu->nested_mmu)
		r = nested_translate_final(vcpu, w);
	return r;
}

int mmu_inspect_walk(struct mmu_vcpu *vcpu, const struct mmu_regs *regs, gva_t gva,
		     struct mmu_inspect_walk *ret)
{
	struct walker w = {.access = MMU_ACC_PEEK};
	struct mmu_context scratch, *c;
	struct mmu_vm *vm = vcpu->vm;

	memset(ret, 0, sizeof(*ret));
	pthread_mutex_lock(&vm->lock);
	if (!regs && !vcpu->have_regs) {
		pthread_mutex_unlock(&vm->lock);
		return -EINVAL;
	}
	c = context_for(vcpu, regs, &scratch);
	w.addr = linear(c, gva);
	ret->paging = (enum mmu_paging)c->cpu_role.mode;
	ret->cr3 = c->cr3;
	ret->guest_result = !peek(vcpu, c, &w);
	walk_record(c, &w, w.addr, &ret->guest);
	if (ret->guest_result) {
		ret->guest.fault = w.fault;
	} else {
		const struct memslot *slot = slot_of(vm, w.gfn);

		ret->guest.gpa = w.gfn << PAGE_SHIFT | (w.addr & ~PAGE_MASK);
		ret->guest.page_shift = w.page_shift;
		ret->guest.access = (uint8_t)w.granted;
		ret->in_slot = slot;
		if (slot) {
			slot_describe(slot, &ret->slot);
			ret->hva = slot_hva(slot, w.gfn) + (w.addr & ~PAGE_MASK);
		}
	}
	if (!vcpu->mmu->root_role.direct || vcpu->mmu->cpu_role.mode == MODE_NONE)
		host_walk(vm, vcpu->mmu, w.addr, ret);
	else if (!ret->guest_result)
		host_walk(vm, vcpu->mmu, ret->guest.gpa, ret);
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

/* ---- the guest's address space ---- */

static uint64_t space_end(const struct mmu_context *c)
{
	return c->cpu_role.mode < MODE_64 ? BIT(32) - 1 : ~0ull;
}

/* How far an address can be skipped that faults at @level: the rest of that entry's reach. */
static uint64_t reach(const struct mmu_context *c, unsigned level)
{
	if (c->cpu_role.mode == MODE_32)
		return BIT(level == 2 ? 22 : 12);
	return level ? BIT(12 + 9 * (level - 1)) : PAGE_SIZE;
}

/* Sign extension's hole, in 4- and 5-level paging. */
static uint64_t canonical_next(const struct mmu_context *c, uint64_t addr)
{
	unsigned top = c->cpu_role.levels == 5 ? 56 : 47;

	if (c->cpu_role.mode == MODE_64 && addr >> top && addr >> top != ~0ull >> top)
		return ~0ull << top;
	return addr;
}

static bool continues(const struct mmu_map_range *r, uint64_t addr, const struct walker *w,
		      bool memory)
{
	return r->end + 1 == addr && r->gpa + (addr - r->start) == w->gfn << PAGE_SHIFT &&
	       r->access == w->granted && r->page_shift == w->page_shift && r->memory == memory;
}

/* The lock is dropped now and then: a big address space takes long. */
#define MAP_STEPS 4096

/* Walk on from *@addr; false at the end of the address space. */
static bool map_some(struct mmu_vcpu *vcpu, struct mmu_context *c, uint64_t *addr,
		     struct mmu_map_range *out, size_t max, size_t *n)
{
	uint64_t end = space_end(c);

	for (unsigned steps = 0; steps < MAP_STEPS; steps++) {
		struct walker w = {.addr = canonical_next(c, *addr), .access = MMU_ACC_PEEK};
		uint64_t size;

		if (peek(vcpu, c, &w)) {
			bool memory = slot_of(vcpu->vm, w.gfn);

			size = BIT(w.page_shift) - (w.addr & (BIT(w.page_shift) - 1));
			if (*n && continues(&out[*n - 1], w.addr, &w, memory)) {
				out[*n - 1].end += size;
			} else {
				if (*n == max)
					return false;
				out[(*n)++] = (struct mmu_map_range){
					.start = w.addr,
					.end = w.addr + size - 1,
					.gpa = w.gfn << PAGE_SHIFT,
					.access = (uint8_t)w.granted,
					.page_shift = w.page_shift,
					.memory = memory,
				};
			}
		} else {
			size = reach(c, w.level) - (w.addr & (reach(c, w.level) - 1));
		}
		if (end - w.addr < size)
			return false;
		*addr = w.addr + size;
	}
	return true;
}

ssize_t mmu_inspect_map(struct mmu_vcpu *vcpu, const struct mmu_regs *regs, gva_t from,
			struct mmu_map_range *out, size_t max)
{
	struct mmu_context scratch, *c;
	struct mmu_vm *vm = vcpu->vm;
	uint64_t addr;
	size_t n = 0;
	bool more;

	if (!regs && !vcpu->have_regs)
		return -EINVAL;
	addr = from & PAGE_MASK;
	do {
		pthread_mutex_lock(&vm->lock);
		c = context_for(vcpu, regs, &scratch);
		more = addr <= space_end(c) && map_some(vcpu, c, &addr, out, max, &n);
		pthread_mutex_unlock(&vm->lock);
	} while (more);
	return (ssize_t)n;
}

/* ---- pages, roots, contexts ---- */

static void page_slots(struct mmu_vm *vm, const struct shadow_page *sp, uint64_t *slots)
{
	for (unsigned i = 0; i < PT_ENTRIES; i++) {
		uint64_t spte = spte_read(&sp_table(vm, sp)[i]);

		if (spte_is_present(spte, sp->role.format) && spte_is_leaf(spte, sp->role.level))
			bitmap_set(slots, slot_of(vm, sp_gfn(vm, sp, i))->id);
	}
}

static void page_describe(struct mmu_vm *vm, const struct shadow_page *sp, struct mmu_page_info *p)
{
	*p = (struct mmu_page_info){
		.index = sp_block(vm, sp),
		.gfn = sp->gfn,
		.hpa = sp_hpa(vm, sp),
		.level = sp->role.level,
		.paging = (enum mmu_paging)sp->role.mode,
		.format = (enum mmu_format)sp->role.format,
		.quadrant = sp->role.quadrant,
		.access = sp->role.access,
		.key = sp->role.pkey,
		.direct = sp->role.direct,
		.nx = sp->role.nx,
		.pse = sp->role.pse,
		.wp = sp->role.wp,
		.smep_andnot_wp = sp->role.smep_andnot_wp,
		.smap_andnot_wp = sp->role.smap_andnot_wp,
		.guest_mode = sp->role.guest_mode,
		.ad_disabled = sp->role.ad_disabled,
		.invalid = sp->invalid,
		.unsync = sp->unsync,
		.frame = sp->frame,
		.root_count = sp->root_count,
		.parents = sp->parents.count,
		.present = sp->present,
		.unsync_children = sp->unsync_children,
		.flood = sp->flood,
		.users = sp->users,
	};
	if (!sp->frame)
		page_slots(vm, sp, p->slots);
}

size_t mmu_inspect_pages(struct mmu_vm *vm, uint32_t from, struct mmu_page_info *out, size_t max)
{
	size_t n = 0;

	pthread_mutex_lock(&vm->lock);
	for (; from < vm->arena.nr_touched && n < max; from++) {
		if (vm->arena.pages[from].used)
			page_describe(vm, &vm->arena.pages[from], &out[n++]);
	}
	pthread_mutex_unlock(&vm->lock);
	return n;
}

static void root_describe(struct mmu_vm *vm, const struct vcpu_root *r, struct mmu_root_info *out)
{
	*out = (struct mmu_root_info){.valid = r->valid, .cr3 = r->cr3, .role = r->role.word};
	if (!r->valid)
		return;
	out->hpa = sp_hpa(vm, r->sp);
	out->level = r->frame ? 4 : r->role.level;
	out->obsolete = r->sp->invalid;
	for (unsigned i = 0; r->frame && i < 4; i++)
		out->obsolete |= r->pd[i] && r->pd[i]->invalid;
}

size_t mmu_inspect_roots(struct mmu_vcpu *vcpu, struct mmu_root_info *out, size_t max)
{
	const struct mmu_context *contexts[] = {&vcpu->root_mmu, &vcpu->guest_mmu};
	struct mmu_vm *vm = vcpu->vm;
	size_t n = 0;

	pthread_mutex_lock(&vm->lock);
	for (unsigned c = 0; c < ARRAY_SIZE(contexts); c++) {
		for (unsigned i = 0; i <= NR_PREV && n < max; i++) {
			const struct vcpu_root *r =
				i ? &contexts[c]->prev[i - 1] : &contexts[c]->root;

			if (!r->valid)
				continue;
			root_describe(vm, r, &out[n]);
			out[n].current = !i && vcpu->mmu == contexts[c];
			out[n++].guest_mode = c;
		}
	}
	pthread_mutex_unlock(&vm->lock);
	return n;
}

static const char *walk_name(unsigned mode)
{
	static const char *const names[NR_MODES] = {"walk_none", "walk_32", "walk_pae", "walk_64",
						    "walk_ept"};

	return names[mode];
}

void mmu_inspect_context(struct mmu_vcpu *vcpu, enum mmu_which which, struct mmu_context_info *ret)
{
	const struct mmu_context *c = which == MMU_WHICH_CURRENT  ? vcpu->mmu
				      : which == MMU_WHICH_WALK	  ? vcpu->walk_mmu
				      : which == MMU_WHICH_GUEST  ? &vcpu->guest_mmu
				      : which == MMU_WHICH_NESTED ? &vcpu->nested_mmu
								  : &vcpu->root_mmu;
	struct mmu_vm *vm = vcpu->vm;

	pthread_mutex_lock(&vm->lock);
	*ret = (struct mmu_context_info){
		.page_fault = c->root_role.direct ? "direct_page_fault" : "shadow_page_fault",
		.gva_to_gpa = walk_name(c->cpu_role.mode),
		.paging = (enum mmu_paging)c->cpu_role.mode,
		.format = (enum mmu_format)c->root_role.format,
		.direct = c->root_role.direct,
		.root_level = c->cpu_role.levels,
		.shadow_root_level = c->root.frame ? 4 : c->root_role.level,
		.root_role = c->root_role.word,
		.cpu_role = c->cpu_role.word,
		.cr3 = c->cr3,
		.nx = c->cpu_role.nx,
		.wp = c->cpu_role.wp,
		.smep = c->cpu_role.smep,
		.smap = c->cpu_role.smap,
		.pke = c->cpu_role.pke,
		.la57 = c->cpu_role.levels == 5,
		.needs_load = mmu_needs_load(vcpu),
	};
	memcpy(ret->pdptr, c->pdptr, sizeof(ret->pdptr));
	if (c->rsvd)
		memcpy(ret->rsvd_bits, c->rsvd->mask, sizeof(ret->rsvd_bits));
	if (c->root.valid)
		ret->root_hpa = sp_hpa(vm, c->root.sp);
	for (unsigned i = 0; c->root.frame && i < 4; i++)
		ret->pae_root[i] = c->root.pd[i] ? sp_hpa(vm, c->root.pd[i]) : 0;
	pthread_mutex_unlock(&vm->lock);
}

/* ---- slots and reverse maps ---- */

/* Large frames within the slot, those that may be mapped by one entry, and those that are mapped.
 */
static void count_frames(const struct mmu_vm *vm, const struct memslot *slot, unsigned level,
			 uint64_t ret[3])
{
	uint64_t pages = level_pages(level);
	gfn_t gfn = ALIGN_UP(slot->base, pages);

	ret[0] = ret[1] = ret[2] = 0;
	for (; gfn + pages <= slot->base + slot->npages; gfn += pages) {
		ret[0]++;
		ret[1] += slot_max_level(vm, slot, gfn) >= level;
		ret[2] += slot_rmap(slot, gfn, level)->first != 0;
	}
}

int mmu_inspect_slot(struct mmu_vm *vm, uint32_t id, struct mmu_slot_info *ret)
{
	const struct memslot *slot;
	uint64_t n[3];

	memset(ret, 0, sizeof(*ret));
	pthread_mutex_lock(&vm->lock);
	slot = id <= SLOT_MAX_ID ? vm->by_id[id] : NULL;
	if (!slot) {
		pthread_mutex_unlock(&vm->lock);
		return -ENOENT;
	}
	slot_describe(slot, &ret->desc);
	ret->watchers = slot->watchers;
	ret->windows = (uint32_t)__atomic_load_n(&slot->pins, __ATOMIC_RELAXED);
	ret->host_aligned_2m = !(((slot->hva >> PAGE_SHIFT) ^ slot->base) & (level_pages(2) - 1));
	ret->host_aligned_1g = !(((slot->hva >> PAGE_SHIFT) ^ slot->base) & (level_pages(3) - 1));
	count_frames(vm, slot, 1, n);
	ret->mapped_4k = n[2];
	count_frames(vm, slot, 2, n);
	ret->large_2m_all = n[0];
	ret->large_2m = n[1];
	ret->mapped_2m = n[2];
	count_frames(vm, slot, 3, n);
	ret->large_1g_all = n[0];
	ret->large_1g = n[1];
	ret->mapped_1g = n[2];
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

ssize_t mmu_inspect_rmap(struct mmu_vm *vm, gfn_t gfn, size_t skip, struct mmu_rmap_info *out,
			 size_t max)
{
	const struct memslot *slot;
	ssize_t n = 0;

	pthread_mutex_lock(&vm->lock);
	slot = slot_of(vm, gfn);
	for (unsigned level = 1; slot && level <= NR_LEVELS; level++) {
		const struct rmap_head *head = slot_rmap(slot, gfn, level);
		uint32_t id, next;

		rmap_for_each(vm, head, id, next)
		{
			const struct shadow_page *sp = sp_of_id(vm, id);

			if (skip) {
				skip--;
				continue;
			}
			if ((size_t)n == max)
				break;
			out[n++] = (struct mmu_rmap_info){
				.hpa = (hpa_t)(uintptr_t)spte_of_id(vm, id),
				.raw = spte_read(spte_of_id(vm, id)),
				.level = sp->role.level,
				.format = (enum mmu_format)sp->role.format,
				.table_gfn = sp->gfn,
				.table_role = sp->role.word,
				.index = (uint16_t)((id - 1) % PT_ENTRIES),
			};
		}
	}
	pthread_mutex_unlock(&vm->lock);
	return slot ? n : -ENOENT;
}

/* ---- entries in words ---- */

struct words {
	char *buf;
	size_t size;
	int len;
};

__attribute__((format(printf, 2, 3))) static void say(struct words *w, const char *fmt, ...)
{
	size_t at = MIN((size_t)w->len, w->size);
	va_list ap;
	int n;

	if (w->len && at + 1 < w->size) {
		w->buf[at] = ' ';
		w->buf[at + 1] = '\0';
	}
	w->len += w->len != 0;
	at = MIN((size_t)w->len, w->size);
	va_start(ap, fmt);
	n = vsnprintf(at < w->size ? w->buf + at : NULL, w->size - at, fmt, ap);
	va_end(ap);
	w->len += n;
}

static void say_bits(struct words *w, uint64_t raw, const char *const names[], const uint8_t bits[])
{
	for (unsigned i = 0; names[i]; i++) {
		if (raw >> bits[i] & 1)
			say(w, "%s", names[i]);
	}
}

static const char *const x86_names[] = {"P", "RW", "US", "PWT", "PCD", "A", "D", "G", "XD", NULL};
static const uint8_t x86_bits[] = {0, 1, 2, 3, 4, 5, 6, 8, 63};
static const char *const ept_names[] = {"R", "W", "X", "IPAT", "A", "D", NULL};
static const uint8_t ept_bits[] = {0, 1, 2, 6, 8, 9};

static void say_target(struct words *w, unsigned level, bool leaf, uint64_t frame)
{
	static const char *const sizes[] = {"", "4K", "2M", "1G", "512G", "256T"};

	say(w, "%s %#llx", leaf ? sizes[MIN(level, 5u)] : "table", (unsigned long long)frame);
}

int mmu_format_guest_entry(enum mmu_paging paging, unsigned level, uint64_t raw, char *buf,
			   size_t size)
{
	struct words w = {.buf = buf, .size = size};
	bool ept = paging == MMU_PAGING_EPT, leaf = level == 1 || raw & SPTE_PS;

	if (size)
		*buf = '\0';
	if (!(raw & (ept ? EPT_RWX : 1))) {
		say(&w, "not present");
		return w.len;
	}
	if (paging == MMU_PAGING_PAE && level == 3) {
		say(&w, "P");
		say_target(&w, level, false, raw & BITS(51, 12));
		return w.len;
	}
	say_bits(&w, raw, ept ? ept_names : x86_names, ept ? ept_bits : x86_bits);
	if (paging == MMU_PAGING_LONG && leaf && raw & SPTE_PK)
		say(&w, "key %u", (unsigned)(raw >> 59) & 15);
	if (paging == MMU_PAGING_32 && leaf && level == 2)
		say(&w, "4M %#llx",
		    (unsigned long long)((raw & BITS(31, 22)) | (raw & BITS(20, 13)) << 19));
	else
		say_target(&w, level, leaf,
			   raw & (paging == MMU_PAGING_32 ? BITS(31, 12) : BITS(51, 12)));
	return w.len;
}

int mmu_format_spte(enum mmu_format format, unsigned level, uint64_t raw, char *buf, size_t size)
{
	struct words w = {.buf = buf, .size = size};
	bool ept = format == MMU_FORMAT_EPT;

	if (size)
		*buf = '\0';
	if (spte_is_mmio(raw)) {
		say(&w, "MMIO gpa %#llx generation %u",
		    (unsigned long long)(spte_mmio_gfn(raw) << PAGE_SHIFT), spte_mmio_gen(raw));
		return w.len;
	}
	if (!spte_is_present(raw, format)) {
		say(&w, "not present");
		return w.len;
	}
	say_bits(&w, raw, ept ? ept_names : x86_names, ept ? ept_bits : x86_bits);
	if (!ept && spte_is_leaf(raw, level) && raw & SPTE_PK)
		say(&w, "key %u", (unsigned)(raw >> 59) & 15);
	if (raw & SPTE_MMU_WRITABLE && spte_is_leaf(raw, level))
		say(&w, "mmu-writable");
	say_target(&w, level, spte_is_leaf(raw, level), raw & SPTE_FRAME);
	return w.len;
}

/* ---- trace ---- */

void mmu_trace_set(struct mmu_vm *vm, void (*fn)(void *arg, const struct mmu_trace_event *e),
		   void *arg)
{
	pthread_mutex_lock(&vm->lock);
	vm->trace = fn;
	vm->trace_arg = arg;
	pthread_mutex_unlock(&vm->lock);
}

void trace_fault(const struct mmu_vcpu *vcpu, const struct mmu_fault *f, int result)
{
	struct mmu_trace_event e = {
		.vcpu = vcpu->id,
		.addr = f->addr,
		.access = f->access,
		.flags = f->flags,
		.result = result,
		.gpa = f->gpa,
		.error_code = result == MMU_INJECT ? f->guest.error_code : 0,
		.fixed = f->fixed,
		.write_tracked = f->write_tracked,
	};

	vcpu->vm->trace(vcpu->vm->trace_arg, &e);
}
