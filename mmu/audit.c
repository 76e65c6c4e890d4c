/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks every invariant of DESIGN.md against the structures as they are. For tests and debug
 * builds. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "mmu/mmu_internal.h"

struct audit {
	struct mmu_vm *vm;
	unsigned n;
	char *text;
	size_t size;
	uint64_t leaves, links, shadows, unsync; /* seen from the entries' side */
};

__attribute__((format(printf, 2, 3))) static void violated(struct audit *a, const char *fmt, ...)
{
	va_list ap;

	if (a->n++ || !a->size)
		return;
	va_start(ap, fmt);
	vsnprintf(a->text, a->size, fmt, ap);
	va_end(ap);
}

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond))                                                                       \
			violated(a, __VA_ARGS__);                                                  \
	} while (0)

/* Page, role, entry: what every message begins with. */
#define AT	       "gfn %llx role %08x [%u]: "
#define AT_ARGS(sp, i) (unsigned long long)(sp)->gfn, (sp)->role.word, (unsigned)(i)

static bool rmap_has(struct mmu_vm *vm, const struct rmap_head *head, uint32_t id)
{
	const struct rmap_link *link = link_of_id(vm, id);

	/* Neighbours agree; that the whole list hangs together is checked from its head. */
	if (link->prev ? link_of_id(vm, link->prev)->next != id : head->first != id)
		return false;
	return !link->next || link_of_id(vm, link->next)->prev == id;
}

/* Present, not reserved, and accessed: but in ROM, where nobody can set that. */
static bool gpte_may_be_used(struct audit *a, const struct shadow_page *sp, uint64_t gpte)
{
	return gpte_present(sp->role, gpte) &&
	       !gpte_reserved(a->vm, sp->role, sp->role.level, gpte) &&
	       (gpte_accessed(sp->role, gpte) || slot_of(a->vm, sp->gfn)->flags & SLOT_READONLY);
}

/* ---- leaves ---- */

static void audit_writable(struct audit *a, const struct shadow_page *sp, unsigned i, uint64_t spte,
			   const struct memslot *slot)
{
	gfn_t gfn = sp_gfn(a->vm, sp, i);
	bool seen = dirty_by_d(a->vm, sp) && !(spte & EPT_D);

	CHECK(!(slot->flags & SLOT_READONLY), AT "writable in a read-only slot", AT_ARGS(sp, i));
	for (gfn_t g = gfn; g < gfn + level_pages(sp->role.level); g++) {
		struct shadow_page *table;

		if (slot_shadows(slot, g)) {
			for_each_shadow(a->vm, table, g)
				CHECK(table->unsync, AT "guest table %llx is writable",
				      AT_ARGS(sp, i), (unsigned long long)g);
		}
		CHECK(seen || dirty_is_known(a->vm, slot, g),
		      AT "writable, and a client says clean", AT_ARGS(sp, i));
	}
}

static void audit_leaf_gpte(struct audit *a, const struct shadow_page *sp, unsigned i,
			    uint64_t spte)
{
	hva_t hva = sp_gpte_hva(a->vm, sp, i);
	unsigned has, may;
	uint64_t gpte;

	if (sp->unsync || !hva)
		return;
	gpte = gpte_load(sp->role, hva);
	CHECK(gpte_may_be_used(a, sp, gpte), AT "leaf for guest entry %llx", AT_ARGS(sp, i),
	      (unsigned long long)gpte);
	may = gpte_access(sp->role, gpte);
	if (sp->role.format == MMU_FORMAT_EPT)
		has = (spte & EPT_R ? MMU_MAP_USER : 0) | (spte & EPT_W ? MMU_MAP_WRITE : 0) |
		      (spte & EPT_X ? MMU_MAP_EXEC : 0);
	else
		has = spte_x86_access(spte);
	/* WP = 0: a user's read-only page as a supervisor's writable one. */
	if (!sp->role.wp && !sp->role.smap_andnot_wp && !(has & MMU_MAP_USER) && may & MMU_MAP_USER)
		may |= MMU_MAP_WRITE;
	CHECK(!(has & ~may), AT "grants %x, the guest's entry %x", AT_ARGS(sp, i), has, may);
	if (sp->role.format == MMU_FORMAT_X86)
		CHECK(!((spte ^ gpte_extra_spte_bits(sp->role, gpte)) & (SPTE_PK | SPTE_G)),
		      AT "key or G bit", AT_ARGS(sp, i));
}

static gfn_t gpte_frame(const struct shadow_page *sp, unsigned i, uint64_t gpte)
{
	if (sp->role.mode != MODE_32)
		return (gpte & BITS(51, 12)) >> PAGE_SHIFT & ~(level_pages(sp->role.level) - 1);
	if (sp->role.level == 1)
		return (gpte & BITS(31, 12)) >> PAGE_SHIFT;
	return ((gpte & BITS(31, 22)) >> PAGE_SHIFT) + ((gpte & BITS(20, 13)) >> 13 << 20) +
	       (i & 1) * PT_ENTRIES;
}

static void audit_leaf(struct audit *a, const struct shadow_page *sp, unsigned i, uint64_t spte)
{
	struct mmu_vm *vm = a->vm;
	gfn_t gfn = sp_gfn(vm, sp, i);
	const struct memslot *slot = slot_of(vm, gfn);

	a->leaves++;
	CHECK(spte_is_present(spte, sp->role.format), AT "a leaf that grants nothing",
	      AT_ARGS(sp, i));
	if (!slot) {
		violated(a, AT "maps gfn %llx, which is in no slot", AT_ARGS(sp, i),
			 (unsigned long long)gfn);
		return;
	}
	CHECK(spte_pfn(spte) == slot_hva(slot, gfn) >> PAGE_SHIFT, AT "frame", AT_ARGS(sp, i));
	CHECK(rmap_has(vm, slot_rmap(slot, gfn, sp->role.level), spte_id(vm, sp, i)),
	      AT "not in the reverse map of %llx", AT_ARGS(sp, i), (unsigned long long)gfn);
	CHECK(sp_maps_slot(sp, slot), AT "maps slot %u, not noted", AT_ARGS(sp, i), slot->id);
	CHECK(gfn - slot->base + level_pages(sp->role.level) <= slot->npages,
	      AT "reaches over the slot's end", AT_ARGS(sp, i));
	if (spte & SPTE_W)
		audit_writable(a, sp, i, spte, slot);
	if (!sp->role.direct) {
		hva_t hva = sp_gpte_hva(vm, sp, i);

		audit_leaf_gpte(a, sp, i, spte);
		if (!sp->unsync && hva)
			CHECK(gpte_frame(sp, i, gpte_load(sp->role, hva)) == gfn,
			      AT "maps %llx, not the guest's frame", AT_ARGS(sp, i),
			      (unsigned long long)gfn);
	}
}

/* ---- table entries ---- */

static void audit_child_gpte(struct audit *a, const struct shadow_page *sp, unsigned i,
			     const struct shadow_page *child)
{
	hva_t hva = sp_gpte_hva(a->vm, sp, i);
	unsigned access = sp->role.access;
	uint64_t gpte;
	bool large;

	if (!hva)
		return;
	gpte = gpte_load(sp->role, hva);
	large = gpte & SPTE_PS && (sp->role.mode != MODE_32 || sp->role.pse);
	CHECK(gpte_may_be_used(a, sp, gpte), AT "leads on for guest entry %llx", AT_ARGS(sp, i),
	      (unsigned long long)gpte);
	CHECK(child->role.direct == large, AT "child's kind", AT_ARGS(sp, i));
	if (large) {
		CHECK(child->gfn == gpte_frame(sp, i, gpte),
		      AT "child's first frame is %llx for %llx", AT_ARGS(sp, i),
		      (unsigned long long)child->gfn, (unsigned long long)gpte);
		return;
	}
	CHECK(child->gfn == (gpte & (sp->role.mode == MODE_32 ? BITS(31, 12) : BITS(51, 12))) >> 12,
	      AT "child's table", AT_ARGS(sp, i));
	if (sp->role.mode == MODE_EPT)
		access &= (gpte & EPT_R ? MMU_MAP_USER : 0) | (gpte & EPT_W ? MMU_MAP_WRITE : 0) |
			  (gpte & EPT_X ? MMU_MAP_EXEC : 0);
	else
		access &= (gpte & SPTE_W ? MMU_MAP_WRITE : 0) | (gpte & SPTE_U ? MMU_MAP_USER : 0) |
			  (sp->role.nx && gpte & SPTE_XD ? 0 : MMU_MAP_EXEC);
	CHECK(child->role.access == access, AT "child inherits %x, not %x", AT_ARGS(sp, i),
	      child->role.access, access);
}

static void audit_table(struct audit *a, const struct shadow_page *sp, unsigned i, uint64_t spte)
{
	struct mmu_vm *vm = a->vm;
	const struct shadow_page *child = sp_of_hpa(vm, spte & SPTE_FRAME);

	a->links++;
	if (child - vm->arena.pages >= vm->arena.nr_touched || !child->used || child->invalid ||
	    child->frame) {
		violated(a, AT "leads to a page that is not in use", AT_ARGS(sp, i));
		return;
	}
	CHECK(child->role.level + 1 == sp->role.level, AT "child's level", AT_ARGS(sp, i));
	CHECK(rmap_has(vm, &child->parents, spte_id(vm, sp, i)), AT "child does not know",
	      AT_ARGS(sp, i));
	CHECK(!(sp->users & ~child->users), AT "child has users %llx, not %llx", AT_ARGS(sp, i),
	      (unsigned long long)child->users, (unsigned long long)sp->users);
	if (child->unsync || child->unsync_children)
		CHECK(bitmap_test(sp->unsync_bitmap, i), AT "unsynced below, not marked",
		      AT_ARGS(sp, i));
	if (sp->role.direct)
		CHECK(child->role.direct && child->gfn == sp_gfn(vm, sp, i), AT "direct child",
		      AT_ARGS(sp, i));
	else
		audit_child_gpte(a, sp, i, child);
}

static void audit_mmio(struct audit *a, const struct shadow_page *sp, unsigned i, uint64_t spte)
{
	if (spte_mmio_gen(spte) != a->vm->generation % MMIO_GEN_MODULO)
		return;
	CHECK(!slot_of(a->vm, spte_mmio_gfn(spte)), AT "MMIO entry for memory", AT_ARGS(sp, i));
}

/* ---- pages ---- */

static bool is_hashed(struct mmu_vm *vm, const struct shadow_page *sp)
{
	const struct shadow_page *at;

	list_for_each_entry (at, sp_hash_head(vm, sp->gfn), hash) {
		if (at == sp)
			return true;
	}
	return false;
}

static void audit_rmap_list(struct audit *a, const struct rmap_head *head, uint64_t *total)
{
	uint32_t id, next, n = 0;

	rmap_for_each(a->vm, head, id, next)
	{
		CHECK(spte_read(spte_of_id(a->vm, id)), "a reverse map holds an empty entry");
		if (++n > head->count)
			break;
	}
	CHECK(n == head->count, "a reverse map counts %u, has %u", head->count, n);
	*total += n;
}

static void audit_page(struct audit *a, struct shadow_page *sp, uint64_t *linked)
{
	struct mmu_vm *vm = a->vm;
	uint32_t present = 0, marked = 0;

	for (unsigned i = 0; i < PT_ENTRIES; i++) {
		uint64_t spte = spte_read(&sp_table(vm, sp)[i]);

		marked += bitmap_test(sp->unsync_bitmap, i);
		if (bitmap_test(sp->unsync_bitmap, i))
			CHECK(spte_is_present(spte, sp->role.format), AT "marked unsynced, empty",
			      AT_ARGS(sp, i));
		if (!spte)
			continue;
		present++;
		if (spte_is_mmio(spte))
			audit_mmio(a, sp, i, spte);
		else if (spte_is_leaf(spte, sp->role.level))
			audit_leaf(a, sp, i, spte);
		else
			audit_table(a, sp, i, spte);
	}
	CHECK(present == sp->present, AT "counts %u entries, has %u", AT_ARGS(sp, 0), sp->present,
	      present);
	a->unsync += sp->unsync;
	CHECK(marked == sp->unsync_children, AT "counts %u unsynced, has %u", AT_ARGS(sp, 0),
	      sp->unsync_children, marked);
	CHECK(!sp->unsync || (sp->role.level == 1 && !sp->role.direct), AT "unsync",
	      AT_ARGS(sp, 0));
	CHECK(!sp->invalid || (!present && sp->root_count), AT "invalid", AT_ARGS(sp, 0));
	CHECK(sp->invalid || is_hashed(vm, sp), AT "not in the hash", AT_ARGS(sp, 0));
	audit_rmap_list(a, &sp->parents, linked);
	if (!sp->role.direct && !sp->invalid) {
		const struct memslot *slot = slot_of(vm, sp->gfn);

		a->shadows++;
		CHECK(slot && slot_shadows(slot, sp->gfn), AT "shadows an unprotected frame",
		      AT_ARGS(sp, 0));
	}
}

/* ---- slots and roots ---- */

static void audit_slot(struct audit *a, const struct memslot *slot, uint64_t *mapped,
		       uint64_t *shadows)
{
	for (unsigned level = 1; level <= NR_LEVELS; level++) {
		gfn_t step = level_pages(level), gfn = ALIGN_DOWN(slot->base, step);

		for (; gfn < slot->base + slot->npages; gfn += step)
			audit_rmap_list(a, slot_rmap(slot, MAX(gfn, slot->base), level), mapped);
	}
	for (uint64_t i = 0; i < slot->npages; i++)
		*shadows += (slot->shadowed[i] & 0xffff) + (slot->shadowed[i] >> 16);
	for (unsigned level = 2; level <= NR_LEVELS; level++) {
		unsigned shift = 9 * (level - 1);
		gfn_t gfn = slot->base;

		while (gfn < slot->base + slot->npages) {
			gfn_t end = MIN(ALIGN_DOWN(gfn, level_pages(level)) + level_pages(level),
					slot->base + slot->npages);
			uint32_t n = 0;

			for (gfn_t g = gfn; g < end; g++)
				n += (slot->shadowed[g - slot->base] & 0xffff) +
				     (slot->shadowed[g - slot->base] >> 16);
			CHECK(n == slot->no_large[level - 1]
						 [(gfn >> shift) - (slot->base >> shift)],
			      "large frame %llx counts %u tables, has %u", (unsigned long long)gfn,
			      slot->no_large[level - 1][(gfn >> shift) - (slot->base >> shift)], n);
			gfn = end;
		}
	}
}

/* Under MMU_POLICY_KERNEL the kernel logs what is watched; else nobody but us does. */
static void audit_log(struct audit *a, const struct memslot *slot)
{
	if (mmu_is_kernels(a->vm))
		CHECK(slot->kernel_logs || !slot_is_logged(slot),
		      "slot %u is not logged by the kernel", slot->id);
	else
		CHECK(!slot->kernel_logs, "slot %u is logged by a kernel of before", slot->id);
}

static uint32_t root_refs(const struct vcpu_root *r, const struct shadow_page *sp)
{
	uint32_t n = 0;

	if (!r->valid)
		return 0;
	n += r->sp == sp && !sp->frame;
	for (unsigned i = 0; i < 4; i++)
		n += r->pd[i] == sp;
	return n;
}

static void audit_roots(struct audit *a, const struct shadow_page *sp)
{
	const struct mmu_vcpu *vcpu;
	uint32_t n = 0;

	list_for_each_entry (vcpu, &a->vm->vcpus, link) {
		const struct mmu_context *contexts[] = {&vcpu->root_mmu, &vcpu->guest_mmu};

		for (unsigned c = 0; c < ARRAY_SIZE(contexts); c++) {
			uint32_t here = root_refs(&contexts[c]->root, sp);

			for (unsigned i = 0; i < NR_PREV; i++)
				here += root_refs(&contexts[c]->prev[i], sp);
			if (here)
				CHECK(sp->users & vcpu->bit,
				      AT "root of a vCPU not among its users", AT_ARGS(sp, 0));
			n += here;
		}
	}
	CHECK(n == sp->root_count, AT "counts %u roots, has %u", AT_ARGS(sp, 0), sp->root_count, n);
}

static void audit_counters(struct audit *a)
{
	const struct mmu_vm_stats *s = &a->vm->stats;

	CHECK(s->pages_4k + s->pages_2m + s->pages_1g == a->leaves,
	      "pages_* say %llu, there are %llu",
	      (unsigned long long)(s->pages_4k + s->pages_2m + s->pages_1g),
	      (unsigned long long)a->leaves);
	CHECK(s->mmu_unsync == a->unsync, "mmu_unsync");
	CHECK(s->mmu_table_pages == a->vm->arena.nr_used, "mmu_table_pages");
}

unsigned mmu_audit(struct mmu_vm *vm, char *text, size_t size)
{
	struct audit audit = {.vm = vm, .text = text, .size = size}, *a = &audit;
	uint64_t mapped = 0, linked = 0, shadows = 0;

	if (size)
		*text = '\0';
	mmu_lock(vm);
	CHECK(list_empty(&vm->pending) && !vm->batch.vcpus, "work left undone");
	for (uint32_t n = 0; n < vm->arena.nr_touched; n++) {
		struct shadow_page *sp = &vm->arena.pages[n];

		if (!sp->used || sp->frame)
			continue;
		audit_page(a, sp, &linked);
		audit_roots(a, sp);
	}
	for (uint32_t i = 0; i < vm->nr_slots; i++) {
		audit_slot(a, vm->sorted[i], &mapped, &shadows);
		audit_log(a, vm->sorted[i]);
	}
	CHECK(vm->policy != MMU_POLICY_KERNEL || !vm->arena.nr_used, "tables beside the kernel's");
	CHECK(mapped == a->leaves, "reverse maps have %llu leaves of %llu",
	      (unsigned long long)mapped, (unsigned long long)a->leaves);
	CHECK(linked == a->links, "parents have %llu links of %llu", (unsigned long long)linked,
	      (unsigned long long)a->links);
	CHECK(shadows == a->shadows, "slots count %llu shadows of %llu",
	      (unsigned long long)shadows, (unsigned long long)a->shadows);
	audit_counters(a);
	mmu_unlock(vm);
	return a->n;
}
