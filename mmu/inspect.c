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

static void find_root(struct mmu_vm *vm, const struct mmu_context *c, struct mmu_inspect_walk *ret)
{
	ret->has_root = c->root.valid;
	if (!ret->has_root)
		return;
	ret->format = c->root_role.format;
	ret->root = sp_hpa(vm, c->root.sp);
}

static void host_walk(struct mmu_vm *vm, const struct mmu_context *c, uint64_t addr,
		      struct mmu_inspect_walk *ret)
{
	const struct vcpu_root *r = &c->root;
	unsigned top = r->frame ? 4 : r->role.level;
	hpa_t table = ret->root;

	/* A physical address beyond what so many levels tell apart. */
	if (!ret->has_root || (c->root_role.direct && addr >> (PAGE_SHIFT + 9 * top)))
		return;
	for (unsigned level = top; level; level--) {
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

/* Without L1's EPT: the gfn of an L2's walk is one of L2's. */
static int peek(struct mmu_vcpu *vcpu, struct mmu_context *c, struct walker *w)
{
	return c->ops->walk(vcpu, c, w);
}

static bool is_canonical(const struct mmu_context *c, uint64_t gva)
{
	unsigned top = c->cpu_role.levels == 5 ? 56 : 47;
	uint64_t high = gva >> top;

	return c->cpu_role.mode != MODE_64 || !high || high == ~0ull >> top;
}

const char *mmu_why_name(enum mmu_why why)
{
	static const char *const names[MMU_WHY_COUNT] = {
		[MMU_WHY_NONE] = "is mapped",
		[MMU_WHY_NOT_CANONICAL] = "is not canonical",
		[MMU_WHY_NOT_PRESENT] = "is not present",
		[MMU_WHY_RESERVED] = "has reserved bits set",
		[MMU_WHY_NO_MEMORY] = "lies in no memslot",
		[MMU_WHY_MISSING] = "lies in a page that is still on its way",
		[MMU_WHY_NESTED_EPT] = "is not mapped by L1's EPT",
	};

	return names[why];
}

static enum mmu_why why_faulted(struct mmu_vcpu *vcpu, const struct mmu_context *c,
				const struct walker *w, uint64_t *rsvd)
{
	unsigned level = w->level;
	uint64_t pte;

	if (w->missing)
		return MMU_WHY_MISSING;
	if (w->fault.nested && c->cpu_role.mode != MODE_EPT)
		return MMU_WHY_NESTED_EPT;
	if (c->cpu_role.mode == MODE_PAE && level == 3)
		return MMU_WHY_NOT_PRESENT;
	if (!slot_of(vcpu->vm, w->pte_gpa[level - 1] >> PAGE_SHIFT))
		return MMU_WHY_NO_MEMORY;
	pte = w->ptes[level - 1];
	if (!(pte & (c->cpu_role.mode == MODE_EPT ? EPT_RWX : 1)))
		return MMU_WHY_NOT_PRESENT;
	*rsvd = pte & c->rsvd->mask[level > 1 && (pte & SPTE_PS)][level - 1];
	return MMU_WHY_RESERVED;
}

static uint8_t allowed(const struct mmu_context *c, const struct walker *w)
{
	static const uint32_t access[] = {0, MMU_ACC_WRITE, MMU_ACC_FETCH};
	unsigned pkey = 0;
	uint8_t ret = 0;
	uint32_t code;

	if (c->cpu_role.mode == MODE_NONE)
		return MMU_MAY_READ | MMU_MAY_WRITE | MMU_MAY_FETCH | MMU_MAY_USER_READ |
		       MMU_MAY_USER_WRITE | MMU_MAY_USER_FETCH;
	if (c->cpu_role.mode == MODE_64)
		pkey = (unsigned)(w->ptes[w->level - 1] >> 59) & 15;
	for (unsigned i = 0; i < 6; i++)
		if (!access_denied(c, access[i % 3] | (i < 3 ? 0 : MMU_ACC_USER), w->granted, pkey,
				   &code))
			ret |= (uint8_t)(1u << i);
	return ret;
}

static void find_slot(struct mmu_vm *vm, gpa_t gpa, struct mmu_inspect_walk *ret)
{
	const struct memslot *slot = slot_of(vm, gpa >> PAGE_SHIFT);

	ret->in_slot = slot;
	if (!slot)
		return;
	slot_describe(slot, &ret->slot);
	ret->hva = slot_hva(slot, gpa >> PAGE_SHIFT) + (gpa & ~PAGE_MASK);
}

/* L2's walk has ended at w->gfn, a frame of L2's: through L1's EPT to one of L1's. */
static int through_ept(struct mmu_vcpu *vcpu, struct walker *w, struct mmu_inspect_walk *ret)
{
	struct mmu_context *ept = &vcpu->guest_mmu;
	struct mmu_walk_result r;
	struct walker n = {.access = MMU_ACC_PEEK};
	int ok;

	ret->ngpa = n.addr = w->gfn << PAGE_SHIFT | (w->addr & ~PAGE_MASK);
	ok = ept->ops->walk(vcpu, ept, &n);
	walk_record(ept, &n, n.addr, &r);
	ret->nsteps_ept = r.nsteps;
	memcpy(ret->ept, r.steps, sizeof(ret->ept));
	if (ok) {
		w->gfn = n.gfn;
	} else {
		w->fault = n.fault;
		w->missing = n.missing;
	}
	return ok;
}

static int guest_walk(struct mmu_vcpu *vcpu, struct mmu_context *c, struct walker *w,
		      struct mmu_inspect_walk *ret)
{
	int ok;

	if (!is_canonical(c, w->addr)) {
		ret->why = MMU_WHY_NOT_CANONICAL;
		return 0;
	}
	ok = peek(vcpu, c, w);
	walk_record(c, w, w->addr, &ret->guest);
	if (ok && ret->nested && !through_ept(vcpu, w, ret))
		ret->why = w->missing ? MMU_WHY_MISSING : MMU_WHY_NESTED_EPT;
	else if (!ok)
		ret->why = why_faulted(vcpu, c, w, &ret->rsvd);
	return ok && ret->why == MMU_WHY_NONE;
}

int mmu_inspect_walk(struct mmu_vcpu *vcpu, const struct mmu_regs *regs, gva_t gva,
		     struct mmu_inspect_walk *ret)
{
	struct walker w = {.access = MMU_ACC_PEEK};
	struct mmu_context scratch, *c;
	struct mmu_vm *vm = vcpu->vm;

	memset(ret, 0, sizeof(*ret));
	mmu_lock(vm);
	if (!regs && !vcpu->have_regs) {
		mmu_unlock(vm);
		return -EINVAL;
	}
	c = context_for(vcpu, regs, &scratch);
	w.addr = linear(c, gva);
	ret->paging = (enum mmu_paging)c->cpu_role.mode;
	ret->five_levels = c->cpu_role.levels == 5;
	ret->cr3 = c->cr3;
	ret->nested = vcpu->walk_mmu == &vcpu->nested_mmu;
	ret->guest_result = !guest_walk(vcpu, c, &w, ret);
	if (ret->guest_result) {
		ret->guest.fault = w.fault;
	} else {
		ret->guest.gpa = w.gfn << PAGE_SHIFT | (w.addr & ~PAGE_MASK);
		ret->guest.page_shift = w.page_shift;
		ret->guest.access = (uint8_t)w.granted;
		ret->allowed = allowed(c, &w);
		find_slot(vm, ret->guest.gpa, ret);
	}
	find_root(vm, vcpu->mmu, ret);
	if (ret->nested && ret->ngpa)
		host_walk(vm, vcpu->mmu, ret->ngpa, ret);
	else if (ret->why == MMU_WHY_NOT_CANONICAL)
		; /* the processor does not come so far */
	else if (!ret->nested &&
		 (!vcpu->mmu->root_role.direct || vcpu->mmu->cpu_role.mode == MODE_NONE))
		host_walk(vm, vcpu->mmu, w.addr, ret);
	else if (!ret->guest_result)
		host_walk(vm, vcpu->mmu, ret->guest.gpa, ret);
	mmu_unlock(vm);
	return 0;
}

void mmu_inspect_gpa(struct mmu_vcpu *vcpu, gpa_t gpa, struct mmu_inspect_walk *ret)
{
	struct mmu_vm *vm = vcpu->vm;

	memset(ret, 0, sizeof(*ret));
	mmu_lock(vm);
	ret->guest.gpa = gpa;
	find_slot(vm, gpa, ret);
	find_root(vm, &vcpu->root_mmu, ret);
	ret->by_gva = !vcpu->root_mmu.root_role.direct;
	if (!ret->by_gva)
		host_walk(vm, &vcpu->root_mmu, gpa, ret);
	mmu_unlock(vm);
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
	return is_canonical(c, addr) ? addr : ~0ull << (c->cpu_role.levels == 5 ? 56 : 47);
}

/* Bytes from @gfn on, at most @room, that are all in one slot or all in none. */
static uint64_t none_reach(struct mmu_vm *vm, gfn_t gfn, uint64_t room)
{
	const struct memslot *slot = slot_of(vm, gfn);
	struct slot_desc next;
	uint64_t end = room;

	if (slot)
		end = (slot->base + slot->npages - gfn) << PAGE_SHIFT;
	for (unsigned i = 0; !slot && i < vm->nr_slots; i++) {
		slot_describe(vm->sorted[i], &next);
		if (next.gpa > gfn << PAGE_SHIFT) {
			end = next.gpa - (gfn << PAGE_SHIFT);
			break;
		}
	}
	return MIN(end, room);
}

static bool continues(const struct mmu_map_range *r, uint64_t addr, const struct walker *w,
		      bool memory)
{
	return r->end + 1 == addr && r->gpa + (addr - r->start) == w->gfn << PAGE_SHIFT &&
	       r->access == w->granted && r->page_shift == w->page_shift && r->memory == memory;
}

/* The lock is dropped now and then: a big address space takes long. A call ends after so many. */
#define MAP_STEPS  4096
#define MAP_ROUNDS 32

/* One page or hole at list->next. False when the list is full, or (list->more is cleared) at the
 * address space's end. */
static bool map_step(struct mmu_vcpu *vcpu, struct mmu_context *c, struct mmu_map_list *list)
{
	struct walker w = {.addr = canonical_next(c, list->next), .access = MMU_ACC_PEEK};
	struct mmu_map_range *last = list->n ? &list->v[list->n - 1] : NULL;
	uint64_t size, end = space_end(c);
	bool memory;

	if (peek(vcpu, c, &w)) {
		memory = vcpu->walk_mmu != &vcpu->nested_mmu && slot_of(vcpu->vm, w.gfn);
		size = BIT(w.page_shift) - (w.addr & (BIT(w.page_shift) - 1));
		/* Without paging there is one range. */
		if (c->cpu_role.mode == MODE_NONE)
			size = none_reach(vcpu->vm, w.gfn, end - w.addr + 1);
		if (last && continues(last, w.addr, &w, memory)) {
			last->end += size;
		} else {
			if (list->n == list->max)
				return false;
			list->v[list->n++] = (struct mmu_map_range){
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
	list->more = end - w.addr >= size;
	list->next = w.addr + size;
	return list->more;
}

int mmu_inspect_map(struct mmu_vcpu *vcpu, const struct mmu_regs *regs, gva_t from,
		    struct mmu_map_list *list)
{
	struct mmu_context scratch, *c;
	struct mmu_vm *vm = vcpu->vm;
	bool go_on = true;

	if (!regs && !vcpu->have_regs)
		return -EINVAL;
	list->n = 0;
	list->next = from & PAGE_MASK;
	list->more = true;
	for (unsigned round = 0; go_on && round < MAP_ROUNDS; round++) {
		mmu_lock(vm);
		c = context_for(vcpu, regs, &scratch);
		if (list->next > space_end(c))
			go_on = list->more = false;
		for (unsigned steps = 0; go_on && steps < MAP_STEPS; steps++)
			go_on = map_step(vcpu, c, list);
		mmu_unlock(vm);
	}
	return 0;
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

void mmu_role_decode(uint32_t word, struct mmu_role_info *ret)
{
	const union page_role r = {.word = word};

	*ret = (struct mmu_role_info){
		.word = word,
		.level = r.level,
		.paging = (enum mmu_paging)r.mode,
		.format = (enum mmu_format)r.format,
		.quadrant = r.quadrant,
		.access = r.access,
		.key = r.pkey,
		.direct = r.direct,
		.nx = r.nx,
		.pse = r.pse,
		.wp = r.wp,
		.smep_andnot_wp = r.smep_andnot_wp,
		.smap_andnot_wp = r.smap_andnot_wp,
		.guest_mode = r.guest_mode,
		.ad_disabled = r.ad_disabled,
		.exec_only = r.exec_only,
		.global = r.global,
	};
}

static void page_describe(struct mmu_vm *vm, const struct shadow_page *sp, struct mmu_page_info *p)
{
	*p = (struct mmu_page_info){
		.index = sp_block(vm, sp),
		.gfn = sp->gfn,
		.hpa = sp_hpa(vm, sp),
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
	mmu_role_decode(sp->role.word, &p->role);
	if (!sp->frame)
		page_slots(vm, sp, p->slots);
}

size_t mmu_inspect_pages(struct mmu_vm *vm, uint32_t from, struct mmu_page_info *out, size_t max)
{
	size_t n = 0;

	mmu_lock(vm);
	for (; from < vm->arena.nr_touched && n < max; from++) {
		if (vm->arena.pages[from].used)
			page_describe(vm, &vm->arena.pages[from], &out[n++]);
	}
	mmu_unlock(vm);
	return n;
}

static void root_describe(struct mmu_vm *vm, const struct vcpu_root *r, struct mmu_root_info *out)
{
	*out = (struct mmu_root_info){.valid = r->valid, .cr3 = r->cr3};
	if (!r->valid)
		return;
	mmu_role_decode(r->role.word, &out->role);
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

	mmu_lock(vm);
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
	mmu_unlock(vm);
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

	mmu_lock(vm);
	*ret = (struct mmu_context_info){
		.page_fault = c->root_role.direct ? "direct_page_fault" : "shadow_page_fault",
		.gva_to_gpa = walk_name(c->cpu_role.mode),
		.paging = (enum mmu_paging)c->cpu_role.mode,
		.format = (enum mmu_format)c->root_role.format,
		.direct = c->root_role.direct,
		.root_level = c->cpu_role.levels,
		.shadow_root_level = c->root.frame ? 4 : c->root_role.level,
		.cpu_role = c->cpu_role.word,
		.cr3 = c->cr3,
		.pse = c->cpu_role.pse,
		.nx = c->cpu_role.nx,
		.wp = c->cpu_role.wp,
		.smep = c->cpu_role.smep,
		.smap = c->cpu_role.smap,
		.pke = c->cpu_role.pke,
		.la57 = c->cpu_role.levels == 5,
		.ad_disabled = c->cpu_role.ad_disabled,
		.exec_only = c->cpu_role.exec_only,
		.guest_mode = c->cpu_role.guest_mode,
		.needs_load = mmu_needs_load(vcpu),
	};
	mmu_role_decode(c->root_role.word, &ret->root_role);
	memcpy(ret->pdptr, c->pdptr, sizeof(ret->pdptr));
	if (c->rsvd)
		memcpy(ret->rsvd_bits, c->rsvd->mask, sizeof(ret->rsvd_bits));
	if (c->root.valid)
		ret->root_hpa = sp_hpa(vm, c->root.sp);
	for (unsigned i = 0; c->root.frame && i < 4; i++)
		ret->pae_root[i] = c->root.pd[i] ? sp_hpa(vm, c->root.pd[i]) : 0;
	mmu_unlock(vm);
}

/* ---- slots and reverse maps ---- */

/* The lock is dropped after so many frames: a slot may have many millions. */
#define SLOT_FRAMES 16384

/* Large frames within the slot, those that may be mapped by one entry, and those that are mapped,
 * from the @from-th on. Returns where to go on, 0 at the end. */
static uint64_t count_frames(const struct mmu_vm *vm, const struct memslot *slot, unsigned level,
			     uint64_t from, uint64_t ret[3])
{
	uint64_t pages = level_pages(level);
	gfn_t gfn = ALIGN_UP(slot->base, pages) + from * pages;

	for (uint64_t n = 0; gfn + pages <= slot->base + slot->npages; gfn += pages) {
		if (n++ == SLOT_FRAMES)
			return from + SLOT_FRAMES;
		ret[0]++;
		ret[1] += slot_max_level(vm, slot, gfn) >= level;
		ret[2] += slot_rmap(slot, gfn, level)->first != 0;
	}
	return 0;
}

/* All frames of a level; -ENOENT when the slot goes away meanwhile. */
static int count_level(struct mmu_vm *vm, uint32_t id, unsigned level, uint64_t ret[3])
{
	const struct memslot *slot;
	uint64_t at = 0;

	ret[0] = ret[1] = ret[2] = 0;
	do {
		mmu_lock(vm);
		slot = vm->by_id[id];
		at = slot ? count_frames(vm, slot, level, at, ret) : 0;
		mmu_unlock(vm);
	} while (at);
	return slot ? 0 : -ENOENT;
}

static bool aligned(const struct memslot *slot, unsigned level)
{
	return !(((slot->hva >> PAGE_SHIFT) ^ slot->base) & (level_pages(level) - 1));
}

int mmu_inspect_slot(struct mmu_vm *vm, uint32_t id, struct mmu_slot_info *ret)
{
	const struct memslot *slot;
	uint64_t n[NR_LEVELS][3];

	memset(ret, 0, sizeof(*ret));
	if (id > SLOT_MAX_ID)
		return -ENOENT;
	for (unsigned level = 1; level <= NR_LEVELS; level++)
		if (count_level(vm, id, level, n[level - 1]))
			return -ENOENT;
	mmu_lock(vm);
	slot = vm->by_id[id];
	if (slot) {
		slot_describe(slot, &ret->desc);
		ret->watchers = slot->watchers;
		ret->windows = (uint32_t)__atomic_load_n(&slot->pins, __ATOMIC_RELAXED);
		ret->host_aligned_2m = aligned(slot, 2);
		ret->host_aligned_1g = aligned(slot, 3);
	}
	mmu_unlock(vm);
	ret->mapped_4k = n[0][2];
	ret->large_2m_all = n[1][0];
	ret->large_2m = n[1][1];
	ret->mapped_2m = n[1][2];
	ret->large_1g_all = n[2][0];
	ret->large_1g = n[2][1];
	ret->mapped_1g = n[2][2];
	return slot ? 0 : -ENOENT;
}

ssize_t mmu_inspect_rmap(struct mmu_vm *vm, gfn_t gfn, size_t skip, struct mmu_rmap_info *out,
			 size_t max)
{
	const struct memslot *slot;
	struct mmu_role_info role;
	ssize_t n = 0;

	mmu_lock(vm);
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
			mmu_role_decode(sp->role.word, &role);
			out[n++] = (struct mmu_rmap_info){
				.hpa = (hpa_t)(uintptr_t)spte_of_id(vm, id),
				.raw = spte_read(spte_of_id(vm, id)),
				.level = sp->role.level,
				.format = (enum mmu_format)sp->role.format,
				.table_gfn = sp->gfn,
				.table_role = role,
				.index = (uint16_t)((id - 1) % PT_ENTRIES),
			};
		}
	}
	mmu_unlock(vm);
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

const char *mmu_level_name(enum mmu_paging paging, unsigned level)
{
	static const char *const x86[] = {"PTE", "PDE", "PDPTE", "PML4E", "PML5E"};
	static const char *const ept[] = {"EPT PTE", "EPT PDE", "EPT PDPTE", "EPT PML4E",
					  "EPT PML5E"};

	if (level < 1 || level > MMU_MAX_LEVEL)
		return "?";
	return (paging == MMU_PAGING_EPT ? ept : x86)[level - 1];
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
	mmu_lock(vm);
	vm->trace = fn;
	vm->trace_arg = arg;
	mmu_unlock(vm);
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
