/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Roots: built for a context's role and CR3, cached, switched, and kept in step at flushes. */
#include <errno.h>
#include <string.h>

#include "mmu/mmu_internal.h"

/*
 * 4- and 5-level guests, and direct tables: the root is a shadow page, shared between vCPUs. 32-bit
 * and PAE guests: a vCPU's own two upper pages (the frame) lead to four level-2 shadow pages, the
 * quadrants of the guest's page directory or its four page directories.
 */

static bool is_framed(const struct mmu_context *c)
{
	return c->root_role.mode == MODE_32 || c->root_role.mode == MODE_PAE;
}

static bool root_matches(const struct mmu_vm *vm, const struct mmu_context *c,
			 const struct vcpu_root *r)
{
	if (!r->valid || r->role.word != c->root_role.word)
		return false;
	if (r->sp->invalid || (r->absent && r->generation != vm->generation))
		return false;
	for (unsigned i = 0; r->frame && i < 4; i++) {
		if (r->pd[i] && r->pd[i]->invalid)
			return false;
	}
	if (c->root_role.direct)
		return true;
	if (c->root_role.mode == MODE_PAE)
		return !memcmp(r->pdptr, c->pdptr, sizeof(r->pdptr));
	return (r->cr3 ^ c->cr3) < PAGE_SIZE;
}

static void root_release(struct mmu_vm *vm, struct vcpu_root *r)
{
	if (!r->valid)
		return;
	if (!r->sp->frame) {
		sp_put_root(vm, r->sp);
	} else {
		for (unsigned i = 0; i < 4; i++) {
			if (r->pd[i])
				sp_put_root(vm, r->pd[i]);
		}
		if (r->frame)
			frame_free(vm, r->frame);
		frame_free(vm, r->sp);
	}
	memset(r, 0, sizeof(*r));
}

void roots_drop(struct mmu_vcpu *vcpu, struct mmu_context *c, bool cached_only)
{
	for (unsigned i = 0; i < NR_PREV; i++)
		root_release(vcpu->vm, &c->prev[i]);
	if (!cached_only)
		root_release(vcpu->vm, &c->root);
}

struct shadow_page *root_start(const struct mmu_context *c, uint64_t addr)
{
	const struct vcpu_root *r = &c->root;

	if (!r->valid || (r->frame == NULL && r->sp->frame))
		return NULL;
	return r->frame ? r->pd[addr >> 30 & 3] : r->sp;
}

/* ---- switching ---- */

static void root_remember(struct mmu_vcpu *vcpu, struct mmu_context *c)
{
	if (!c->root.valid)
		return;
	if (vcpu->vm->disable & MMU_NO_ROOT_CACHE) {
		root_release(vcpu->vm, &c->root);
		return;
	}
	root_release(vcpu->vm, &c->prev[NR_PREV - 1]);
	memmove(&c->prev[1], &c->prev[0], (NR_PREV - 1) * sizeof(c->prev[0]));
	c->prev[0] = c->root;
	memset(&c->root, 0, sizeof(c->root));
}

void roots_flushed(struct mmu_context *c)
{
	for (unsigned i = 0; i < NR_PREV; i++)
		c->prev[i].flushed = true;
}

/* With PCIDs: what the vCPU may have cached by this root, it may have cached with this PCID. */
static void root_use(struct mmu_vcpu *vcpu, struct mmu_context *c, enum root_sync sync)
{
	struct vcpu_root *r = &c->root;

	if (sync == ROOT_SYNC)
		roots_flushed(c);
	if (sync == ROOT_SYNC || r->flushed || (r->cr3 ^ c->cr3) & ~PAGE_MASK)
		sync_root(vcpu->vm, r);
	r->flushed = false;
	r->cr3 = c->cr3;
}

void root_switch(struct mmu_vcpu *vcpu, enum root_sync sync)
{
	struct mmu_context *c = vcpu->mmu;
	struct vcpu_root found = {0};

	if (root_matches(vcpu->vm, c, &c->root)) {
		root_use(vcpu, c, sync);
		return;
	}
	for (unsigned i = 0; i < NR_PREV; i++) {
		if (!root_matches(vcpu->vm, c, &c->prev[i]))
			continue;
		found = c->prev[i];
		memmove(&c->prev[i], &c->prev[i + 1], (NR_PREV - 1 - i) * sizeof(found));
		memset(&c->prev[NR_PREV - 1], 0, sizeof(found));
		STAT(vcpu, root_cache_hit);
		break;
	}
	root_remember(vcpu, c);
	c->root = found;
	root_use(vcpu, c, sync);
	/* Due in any case: the processor's root has changed. */
	__atomic_store_n(&vcpu->need_load, true, __ATOMIC_SEQ_CST);
	batch_commit(vcpu->vm);
}

/* ---- building ---- */

/* NULL: no memory there, every access will fault as the walker says. */
static struct shadow_page *root_page(struct mmu_vcpu *vcpu, gfn_t gfn, union page_role role)
{
	struct mmu_vm *vm = vcpu->vm;
	struct shadow_page *sp;

	if (!role.direct && !slot_of(vm, gfn))
		return NULL;
	sp = sp_get(vm, gfn, role);
	sp->root_count++;
	sp_add_users(vm, sp, vcpu->bit);
	return sp;
}

static void build_framed(struct mmu_vcpu *vcpu, struct mmu_context *c)
{
	struct vcpu_root *r = &c->root;
	struct mmu_vm *vm = vcpu->vm;

	r->sp = frame_alloc(vm);
	r->frame = frame_alloc(vm);
	r->sp->users = r->frame->users = vcpu->bit;
	r->sp->role = r->frame->role = c->root_role;
	r->sp->role.level = 4;
	r->frame->role.level = 3;
	spte_write(&sp_table(vm, r->sp)[0], spte_make_table(MMU_FORMAT_X86, sp_hpa(vm, r->frame)));
	for (unsigned i = 0; i < 4; i++) {
		union page_role role = c->root_role;
		gfn_t gfn = (uint32_t)c->cr3 >> PAGE_SHIFT;

		if (role.mode == MODE_32) {
			role.quadrant = i;
		} else {
			if (!(c->pdptr[i] & 1))
				continue;
			gfn = (c->pdptr[i] & BITS(51, 12)) >> PAGE_SHIFT;
		}
		r->pd[i] = root_page(vcpu, gfn, role);
		if (!r->pd[i]) {
			r->absent = true;
			continue;
		}
		spte_write(&sp_table(vm, r->frame)[i],
			   spte_make_table(MMU_FORMAT_X86, sp_hpa(vm, r->pd[i])));
	}
}

static void build_single(struct mmu_vcpu *vcpu, struct mmu_context *c)
{
	gfn_t gfn = c->root_role.direct ? 0 : (c->cr3 & BITS(51, 12)) >> PAGE_SHIFT;
	struct vcpu_root *r = &c->root;

	r->sp = root_page(vcpu, gfn, c->root_role);
	if (!r->sp) {
		/* An empty table of the vCPU's own. */
		r->absent = true;
		r->sp = frame_alloc(vcpu->vm);
		r->sp->users = vcpu->bit;
		r->sp->role = c->root_role;
	}
}

static int root_build(struct mmu_vcpu *vcpu, struct mmu_context *c)
{
	struct vcpu_root *r = &c->root;

	if (arena_make_room(vcpu->vm, 8))
		return -ENOMEM;
	r->cr3 = c->cr3;
	r->role = c->root_role;
	r->generation = vcpu->vm->generation;
	memcpy(r->pdptr, c->pdptr, sizeof(r->pdptr));
	if (is_framed(c))
		build_framed(vcpu, c);
	else
		build_single(vcpu, c);
	r->valid = true;
	STAT(vcpu, root_built);
	return 0;
}

bool mmu_needs_load(struct mmu_vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->need_load, __ATOMIC_SEQ_CST);
}

/*
 * SDM volume 3, "Extended-Page-Table Pointer": write-back, the length of the walk less one. A and D
 * bits are in use only where they are wanted: with them every read of a guest table counts as a
 * write.
 */
static uint64_t eptp_of(const struct mmu_root *root)
{
	return root->hpa | 6 | (root->level - 1ull) << 3 | (root->pml ? BIT(6) : 0);
}

int mmu_load(struct mmu_vcpu *vcpu, struct mmu_root *ret)
{
	struct mmu_context *c = vcpu->mmu;
	struct mmu_vm *vm = vcpu->vm;
	int r = 0;

	if (!vcpu->have_regs && mmu_get_policy(vm) != MMU_POLICY_KERNEL)
		return -EINVAL;
	mmu_lock(vm);
	if (vm->policy == MMU_POLICY_KERNEL) {
		__atomic_store_n(&vcpu->need_load, false, __ATOMIC_SEQ_CST);
		goto look_at_ring;
	}
	if (!root_matches(vcpu->vm, c, &c->root)) {
		root_release(vm, &c->root);
		r = root_build(vcpu, c);
	}
	if (!r) {
		__atomic_store_n(&vcpu->need_load, false, __ATOMIC_SEQ_CST);
		ret->format = c->root_role.format;
		ret->hpa = sp_hpa(vm, c->root.sp);
		ret->level = c->root.frame ? 4 : c->root_role.level;
		ret->pml = vm->pml && ret->format == MMU_FORMAT_EPT && !c->root_role.guest_mode;
		ret->tag = ret->format == MMU_FORMAT_EPT ? eptp_of(ret) : ret->hpa;
	}
look_at_ring:
	if (!r && unlikely(vcpu->ring) && dirty_ring_is_full(vcpu)) {
		__atomic_store_n(&vcpu->need_load, true, __ATOMIC_SEQ_CST);
		r = MMU_RING_FULL;
	}
	batch_commit(vm);
	mmu_unlock(vm);
	return r;
}

void mmu_unload(struct mmu_vcpu *vcpu)
{
	struct mmu_vm *vm = vcpu->vm;

	mmu_lock(vm);
	__atomic_store_n(&vcpu->need_load, true, __ATOMIC_SEQ_CST);
	roots_drop(vcpu, &vcpu->root_mmu, false);
	roots_drop(vcpu, &vcpu->guest_mmu, false);
	batch_commit(vm);
	mmu_unlock(vm);
}

/* ---- control registers and flushes ---- */

void mmu_new_cr3(struct mmu_vcpu *vcpu, uint64_t cr3, const uint64_t pdptr[4])
{
	enum root_sync sync = cr3 & BIT(63) ? ROOT_KEEP : ROOT_SYNC;
	struct mmu_context *c = vcpu->walk_mmu;
	struct mmu_vm *vm = vcpu->vm;

	cr3 &= ~BIT(63);
	STAT(vcpu, cr3_load);
	vcpu->regs.cr3 = cr3;
	if (pdptr)
		memcpy(vcpu->regs.pdptr, pdptr, sizeof(vcpu->regs.pdptr));
	mmu_lock(vm);
	c->cr3 = cr3;
	memcpy(c->pdptr, vcpu->regs.pdptr, sizeof(c->pdptr));
	/* Otherwise it is only what the emulation's walks begin with. */
	if (!c->root_role.direct && c == vcpu->mmu) {
		if (sync == ROOT_SYNC)
			STAT(vcpu, tlb_flush);
		root_switch(vcpu, sync);
	}
	mmu_unlock(vm);
}

int mmu_read_pdptrs(struct mmu_vcpu *vcpu, const struct mmu_regs *regs, uint64_t cr3,
		    uint64_t ret_pdptr[4])
{
	uint64_t high = regs->maxphyaddr < 52 ? BITS(51, regs->maxphyaddr) : 0;
	uint64_t rsvd = BITS(63, 52) | high | BITS(8, 5) | BITS(2, 1), v[4];

	if (slot_read(vcpu->vm, cr3 & BITS(31, 5), v, sizeof(v)))
		memset(v, 0xff, sizeof(v));
	for (unsigned i = 0; i < 4; i++) {
		if (v[i] & 1 && v[i] & rsvd)
			return 1;
	}
	memcpy(ret_pdptr, v, sizeof(v));
	return 0;
}

void mmu_invlpg(struct mmu_vcpu *vcpu, gva_t gva)
{
	struct mmu_context *c = vcpu->mmu;
	struct mmu_vm *vm = vcpu->vm;
	struct shadow_page *sp;
	unsigned i = 0;

	STAT(vcpu, invlpg);
	if (c->root_role.direct)
		return;
	mmu_lock(vm);
	roots_flushed(c); /* globals, whatever the PCID */
	sp = shadow_lookup(vm, c, gva, &i);
	if (sp && sp->unsync)
		sync_entry(vm, sp, i);
	batch_commit(vm);
	mmu_unlock(vm);
}

void mmu_flush_guest_tlb(struct mmu_vcpu *vcpu)
{
	struct mmu_vm *vm = vcpu->vm;

	STAT(vcpu, tlb_flush);
	if (vcpu->mmu->root_role.direct)
		return;
	mmu_lock(vm);
	roots_flushed(vcpu->mmu);
	sync_root(vm, &vcpu->mmu->root);
	mmu_unlock(vm);
}

void mmu_invpcid(struct mmu_vcpu *vcpu, enum mmu_invpcid type, uint32_t pcid, gva_t gva)
{
	struct mmu_context *c = vcpu->walk_mmu;
	bool current = (c->cr3 & c->pcid_mask) == pcid;

	if (type == MMU_INVPCID_ADDRESS && current) {
		mmu_invlpg(vcpu, gva);
	} else if (current || type == MMU_INVPCID_ALL || type == MMU_INVPCID_ALL_GLOBAL) {
		mmu_flush_guest_tlb(vcpu);
	} else {
		mmu_lock(vcpu->vm);
		roots_flushed(vcpu->mmu);
		mmu_unlock(vcpu->vm);
	}
}
