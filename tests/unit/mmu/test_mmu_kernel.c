/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MMU_POLICY_KERNEL: slots and the dirty log beside a kernel that runs the guest. The kernel here
 * is a model of KVM's log in its forms, and keeps the truth; engines come and go with clients
 * active.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "mmu/mmu.h"

#define PAGES	200u /* of a slot: no multiple of 64 */
#define WORDS	BITMAP_WORDS(PAGES)
#define SLOTS	3u
#define CLIENTS 3u
#define RING	1024u

enum form { PLAIN, MANUAL, INITIALLY_SET, RINGS, FORMS };

/* What the kernel knows of a slot. */
struct kernel_slot {
	bool there, logged;
	struct slot_desc desc;
	bool noticed_next[PAGES]; /* write-protected: the next write is noticed */
	uint64_t bits[WORDS];
};

struct kernel {
	enum form form;
	struct kernel_slot slot[SLOTS];
	uint64_t told[SLOTS][WORDS]; /* by collect, and not cleared since (MANUAL) */
	struct dirty_ring_entry ring[RING];
	unsigned ring_n;
	struct mmu_vcpu *vcpu;
	int fail_change, fail_collect, fail_protect; /* -errno for the next */
	unsigned kicks;
};

static struct kernel k;
static struct mmu_vm *vm;
static uint8_t *memory;
static struct dirty_client *client[CLIENTS];
static bool must[CLIENTS][SLOTS][PAGES]; /* written since the client cleared it */
static uint64_t seed;

static unsigned random_below(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)(seed >> 16) % n;
}

/* ---- the kernel ---- */

static void op_flush(void *priv, const struct mmu_flush *flush)
{
}

static void op_kick(void *priv, uint64_t vcpus)
{
	k.kicks++;
}

static void op_notify(void *priv, hva_t hva, uint64_t len)
{
}

static int taken_error(int *error)
{
	int r = *error;

	*error = 0;
	return r;
}

static void begin_log(struct kernel_slot *s, uint32_t id)
{
	bool set = k.form == INITIALLY_SET;

	memset(s->noticed_next, !set, sizeof(s->noticed_next));
	for (unsigned p = 0; p < PAGES; p++)
		set ? bitmap_set(s->bits, p) : bitmap_clear(s->bits, p);
	memcpy(k.told[id], s->bits, sizeof(s->bits));
}

static int op_slot_changed(void *priv, const struct slot_desc *from, const struct slot_desc *to)
{
	uint32_t id = from ? from->id : to->id;
	struct kernel_slot *s = &k.slot[id];
	int r = taken_error(&k.fail_change);

	assert_true(id < SLOTS && (from || to));
	assert_int_equal(s->there, from != NULL);
	if (from) {
		assert_int_equal(s->desc.gpa, from->gpa);
		assert_int_equal(s->desc.flags, from->flags);
	}
	if (r)
		return r;
	if (!to) {
		memset(s, 0, sizeof(*s));
		return 0;
	}
	s->there = true;
	s->desc = *to;
	/* What was logged goes when the slot is made anew. */
	if (to->flags & SLOT_LOGGED)
		begin_log(s, id);
	s->logged = to->flags & SLOT_LOGGED;
	return 0;
}

static int op_collect(void *priv, const struct slot_desc *slot, mmu_dirty_fn fn, void *arg)
{
	uint32_t id = slot->id;
	struct kernel_slot *s = &k.slot[id];
	int r = taken_error(&k.fail_collect);

	assert_true(s->logged);
	for (unsigned i = 0; i < WORDS && !r; i++) {
		uint64_t fresh = s->bits[i] & ~k.told[id][i];

		if (fresh)
			fn(arg, i, fresh);
		if (k.form == PLAIN) {
			for (unsigned p = i * 64; p < (i + 1) * 64 && p < PAGES; p++)
				s->noticed_next[p] = true;
			s->bits[i] = 0;
		} else {
			k.told[id][i] |= fresh;
		}
	}
	return r;
}

static void clear_page(uint32_t id, uint64_t page)
{
	if (k.form == PLAIN || k.form == RINGS || !bitmap_test(k.told[id], page))
		return;
	bitmap_clear(k.slot[id].bits, page);
	bitmap_clear(k.told[id], page);
	k.slot[id].noticed_next[page] = true;
}

static int op_protect(void *priv, const struct slot_desc *slot, const gfn_t *gfns, size_t n)
{
	int r = taken_error(&k.fail_protect);

	assert_true(k.slot[slot->id].logged);
	assert_int_equal(k.slot[slot->id].desc.gpa, slot->gpa);
	for (uint64_t p = 0; !gfns && p < PAGES && !r; p++)
		clear_page(slot->id, p);
	for (size_t i = 0; i < n && !r; i++) {
		assert_true(!i || gfns[i] > gfns[i - 1]);
		clear_page(slot->id, gfns[i] - (slot->gpa >> PAGE_SHIFT));
	}
	return r;
}

/* Handed back, so protected, and then told. */
static void op_drain(void *priv)
{
	struct dirty_ring_entry pages[RING];
	unsigned n = k.ring_n;

	memcpy(pages, k.ring, n * sizeof(*pages));
	k.ring_n = 0;
	for (unsigned i = 0; i < n; i++) {
		if (pages[i].slot_id < SLOTS)
			k.slot[pages[i].slot_id].noticed_next[pages[i].page] = true;
	}
	mmu_kernel_log(k.vcpu, pages, n);
}

static int op_collect_nothing(void *priv, const struct slot_desc *slot, mmu_dirty_fn fn, void *arg)
{
	return taken_error(&k.fail_collect);
}

static const struct mmu_ops bitmap_ops = {
	.flush_tlb = op_flush,
	.kick = op_kick,
	.notify_write = op_notify,
	.slot_changed = op_slot_changed,
	.dirty_collect = op_collect,
	.dirty_protect = op_protect,
};
static const struct mmu_ops ring_ops = {
	.flush_tlb = op_flush,
	.kick = op_kick,
	.notify_write = op_notify,
	.slot_changed = op_slot_changed,
	.dirty_collect = op_collect_nothing,
	.dirty_protect = op_protect,
	.drain_pml = op_drain,
};
static const struct mmu_ops soft_ops = {
	.flush_tlb = op_flush, .kick = op_kick, .notify_write = op_notify};

/* ---- engines ---- */

static const struct mmu_config kernels = {.policy = MMU_POLICY_KERNEL};
static const struct mmu_config softs = {.policy = MMU_POLICY_TDP};
static bool on_kernel;

static int attach_kernel(enum form form)
{
	int r;

	memset(&k, 0, sizeof(k));
	k.form = form;
	r = mmu_attach(vm, &kernels, form == RINGS ? &ring_ops : &bitmap_ops, NULL);
	if (!r)
		assert_int_equal(mmu_vcpu_create(vm, 0, &k.vcpu), 0);
	on_kernel = !r;
	return r;
}

static void attach_soft(void)
{
	assert_int_equal(mmu_attach(vm, &softs, &soft_ops, NULL), 0);
	assert_int_equal(mmu_vcpu_create(vm, 0, &k.vcpu), 0);
	on_kernel = false;
}

static void audit(void)
{
	char text[256];

	if (mmu_audit(vm, text, sizeof(text)))
		fail_msg("%s", text);
}

static void detach(void)
{
	audit();
	assert_int_equal(mmu_detach(vm), 0);
	mmu_vcpu_destroy(k.vcpu);
	k.vcpu = NULL;
	audit();
}

static gpa_t home(uint32_t id)
{
	return (gpa_t)id << 24;
}

static int add_slot(uint32_t id, gpa_t gpa, uint32_t flags)
{
	struct slot_desc d = {.id = id,
			      .flags = flags,
			      .gpa = gpa,
			      .size = PAGES << PAGE_SHIFT,
			      .host = memory + (size_t)id * (PAGES << PAGE_SHIFT)};

	return slot_add(vm, &d);
}

static void machine_make(void)
{
	memory = aligned_alloc(PAGE_SIZE, (size_t)SLOTS * (PAGES << PAGE_SHIFT));
	assert_non_null(memory);
	memset(must, 0, sizeof(must));
	assert_int_equal(mmu_vm_create(&kernels, NULL, NULL, &vm), 0);
	for (uint32_t id = 0; id < 2; id++)
		assert_int_equal(add_slot(id, home(id), 0), 0);
}

static void machine_unmake(void)
{
	for (unsigned c = 0; c < CLIENTS; c++) {
		dirty_client_destroy(client[c]);
		client[c] = NULL;
	}
	detach();
	mmu_vm_destroy(vm);
	free(memory);
}

static void client_make(unsigned c, uint32_t flags)
{
	char name[] = {(char)('a' + c), 0};

	assert_int_equal(dirty_client_create(vm, name, flags, &client[c]), 0);
	assert_int_equal(dirty_client_watch(client[c], DIRTY_ALL_SLOTS), 0);
	memset(must[c], 0, sizeof(must[c]));
}

/* ---- writes ---- */

static void written(uint32_t id, uint64_t page)
{
	for (unsigned c = 0; c < CLIENTS; c++)
		must[c][id][page] = client[c] != NULL;
}

/* By the kernel's vCPU, or the soft one's. */
static void guest_write(uint32_t id, uint64_t page)
{
	struct kernel_slot *s = &k.slot[id];
	struct slot_desc d;
	uint64_t one = 1;

	if (slot_get(vm, id, &d) || d.flags & SLOT_READONLY)
		return;
	if (!on_kernel) {
		assert_int_equal(mmu_guest_write(k.vcpu, d.gpa + (page << PAGE_SHIFT), &one, 8), 0);
	} else if (s->logged && s->noticed_next[page]) {
		s->noticed_next[page] = false;
		if (k.form == RINGS && k.ring_n == RING)
			op_drain(NULL);
		if (k.form == RINGS)
			k.ring[k.ring_n++] = (struct dirty_ring_entry){.slot_id = id, .page = page};
		else
			bitmap_set(s->bits, page);
	}
	written(id, page);
}

static void l0_write(uint32_t id, uint64_t page)
{
	struct slot_desc d;
	uint64_t one = 1;

	if (slot_get(vm, id, &d) || d.flags & SLOT_READONLY)
		return;
	assert_int_equal(slot_write(vm, d.gpa + (page << PAGE_SHIFT), &one, 8), 0);
	written(id, page);
}

/* ---- clients ---- */

static void check(unsigned c)
{
	uint64_t bits[WORDS];
	struct slot_desc d;

	for (uint32_t id = 0; client[c] && id < SLOTS; id++) {
		if (slot_get(vm, id, &d))
			continue;
		assert_int_equal(dirty_get(client[c], id, 0, PAGES, bits), 0);
		for (unsigned p = 0; p < PAGES; p++)
			assert_true(!must[c][id][p] || bitmap_test(bits, p));
	}
}

/* Some of what is dirty, in one of the ways. */
static void clear_some(unsigned c)
{
	uint32_t id = random_below(2);
	uint64_t bits[WORDS], first = random_below(PAGES),
			      n = random_below(PAGES - (unsigned)first);
	gfn_t gfns[48];
	struct slot_desc d;
	ssize_t got;

	if (!client[c])
		return;
	if (random_below(2)) {
		assert_int_equal(dirty_get(client[c], id, first, n, bits), 0);
		assert_int_equal(dirty_clear(client[c], id, first, n, bits), 0);
		for (uint64_t p = 0; p < n; p++)
			must[c][id][first + p] &= !bitmap_test(bits, p);
		return;
	}
	got = dirty_take(client[c], gfns, 1 + random_below(ARRAY_SIZE(gfns)));
	assert_true(got >= 0);
	for (ssize_t i = 0; i < got; i++) {
		for (id = 0; id < SLOTS; id++) {
			if (!slot_get(vm, id, &d) && gfns[i] - (d.gpa >> PAGE_SHIFT) < PAGES)
				must[c][id][gfns[i] - (d.gpa >> PAGE_SHIFT)] = false;
		}
	}
}

/* ---- tests ---- */

static void change_slots(void)
{
	static bool moved;

	switch (random_below(4)) {
	case 0:
		moved = !moved;
		assert_int_equal(slot_move(vm, 1, home(1) + (moved ? MIB(4) : 0)), 0);
		break;
	case 1:
		assert_int_equal(slot_set_flags(vm, 0, SLOT_READONLY), 0);
		assert_int_equal(slot_set_flags(vm, 0, 0), 0);
		break;
	default:
		if (slot_delete(vm, 2))
			assert_int_equal(add_slot(2, home(2), 0), 0);
		for (unsigned c = 0; c < CLIENTS; c++)
			memset(must[c][2], 0, sizeof(must[c][2]));
	}
}

static void one_step(void)
{
	unsigned c = random_below(CLIENTS), what = random_below(100);

	if (what < 45) {
		guest_write(random_below(SLOTS), random_below(PAGES));
	} else if (what < 60) {
		l0_write(random_below(SLOTS), random_below(PAGES));
	} else if (what < 80) {
		clear_some(c);
	} else if (what < 94) {
		check(c);
	} else if (what < 96) {
		change_slots();
	} else if (what < 98) {
		dirty_client_destroy(client[c]);
		client[c] = NULL;
	} else if (!client[c]) {
		client_make(c, random_below(2) ? DIRTY_INITIALLY_SET : 0);
	}
}

/* No page is missing, whatever the kernel's log is like. */
static void truth(void **state)
{
	for (unsigned form = 0; form < FORMS; form++) {
		seed = 0x9e3779b97f4a7c15 + form;
		machine_make();
		assert_int_equal(attach_kernel(form), 0);
		for (unsigned n = 0; n < 20000; n++)
			one_step();
		for (unsigned c = 0; c < CLIENTS; c++)
			check(c);
		machine_unmake();
	}
}

/* The same over changes of the engine, each at some point amid. */
static void engines(void **state)
{
	seed = 0x2545f4914f6cdd1d;
	machine_make();
	attach_soft();
	for (unsigned n = 0; n < 200; n++) {
		for (unsigned s = random_below(100); s; s--)
			one_step();
		detach();
		/* L0 goes on meanwhile. */
		l0_write(random_below(SLOTS), random_below(PAGES));
		if (n % 2)
			attach_soft();
		else
			assert_int_equal(attach_kernel(random_below(FORMS)), 0);
		check(random_below(CLIENTS));
	}
	machine_unmake();
}

/* What the kernel says is believed, and nothing else is told: but where it cannot say. */
static void exact(void **state)
{
	for (unsigned form = 0; form < FORMS; form++) {
		uint64_t bits[WORDS], page = 0;

		machine_make();
		assert_int_equal(attach_kernel(form), 0);
		guest_write(0, 3); /* before anybody watches */
		client_make(0, 0);
		assert_int_equal(dirty_count(client[0]), 0);
		guest_write(0, 7);
		guest_write(1, PAGES - 1);
		client_make(1, 0);
		assert_int_equal(dirty_count(client[0]), 2);
		assert_int_equal(dirty_count(client[1]), 0);
		client_make(2, DIRTY_INITIALLY_SET);
		assert_int_equal(dirty_count(client[2]), 2 * PAGES);
		guest_write(0, 7);
		assert_int_equal(dirty_count(client[1]), 1);
		assert_int_equal(dirty_find(client[1], 0, &page), 0);
		assert_int_equal(page, 7);
		assert_int_equal(dirty_get(client[1], 0, 0, PAGES, bits), 0);
		assert_int_equal(bits[0], BIT(7));
		assert_int_equal(dirty_clear(client[1], 0, 0, PAGES, bits), 0);
		assert_int_equal(dirty_count(client[1]), 0);
		assert_int_equal(dirty_count(client[0]), 2);
		guest_write(0, 7);
		assert_int_equal(dirty_count(client[1]), 1);
		machine_unmake();
	}
}

/* The log ends with its last watcher, and begins anew. */
static void log_ends(void **state)
{
	machine_make();
	assert_int_equal(attach_kernel(MANUAL), 0);
	assert_false(k.slot[0].logged);
	client_make(0, 0);
	client_make(1, 0);
	assert_true(k.slot[0].logged && k.slot[1].logged);
	assert_int_equal(dirty_client_unwatch(client[0], 0), 0);
	assert_true(k.slot[0].logged);
	assert_int_equal(dirty_client_unwatch(client[1], 0), 0);
	assert_false(k.slot[0].logged);
	assert_true(k.slot[1].logged);
	assert_int_equal(dirty_client_watch(client[0], 0), 0);
	assert_true(k.slot[0].logged);
	machine_unmake();
}

/* A failing kernel is told of, and costs no page. */
static void failures(void **state)
{
	uint64_t bits[WORDS];
	gfn_t gfns[4];

	machine_make();
	assert_int_equal(attach_kernel(MANUAL), 0);
	k.fail_change = -EBUSY;
	assert_int_equal(dirty_client_create(vm, "x", 0, &client[0]), 0);
	assert_int_equal(dirty_client_watch(client[0], 0), -EBUSY);
	k.fail_protect = -EIO;
	assert_int_equal(dirty_client_watch(client[0], 0), -EIO);
	assert_int_equal(dirty_client_watch(client[0], 0), 0);
	guest_write(0, 5);
	k.fail_collect = -EIO;
	assert_int_equal(dirty_get(client[0], 0, 0, PAGES, bits), -EIO);
	k.fail_collect = -EIO;
	assert_int_equal(dirty_take(client[0], gfns, 4), -EIO);
	assert_int_equal(dirty_get(client[0], 0, 0, PAGES, bits), 0);
	assert_int_equal(bits[0], BIT(5));
	k.fail_protect = -EIO;
	assert_int_equal(dirty_clear(client[0], 0, 0, PAGES, bits), -EIO);
	k.fail_protect = -EIO;
	assert_int_equal(dirty_take(client[0], gfns, 4), -EIO);
	assert_int_equal(dirty_take(client[0], gfns, 4), 1);
	assert_int_equal(gfns[0], 5);
	k.fail_change = -ENOSPC;
	assert_int_equal(add_slot(2, home(2), 0), -ENOSPC);
	assert_int_equal(add_slot(2, home(2), 0), 0);
	k.fail_change = -EBUSY;
	assert_int_equal(slot_move(vm, 2, home(3)), -EBUSY);
	k.fail_change = -EBUSY;
	assert_int_equal(slot_set_flags(vm, 2, SLOT_READONLY), -EBUSY);
	k.fail_change = -EBUSY;
	assert_int_equal(slot_delete(vm, 2), -EBUSY);
	audit();
	assert_int_equal(slot_delete(vm, 2), 0);
	machine_unmake();
}

/* A machine goes on where it was when the other engine will not have it. */
static void attach_fails(void **state)
{
	machine_make();
	attach_soft();
	client_make(0, 0);
	guest_write(0, 9);
	detach();
	memset(&k, 0, sizeof(k));
	k.form = MANUAL;
	k.fail_change = -ENOMEM;
	assert_int_equal(mmu_attach(vm, &kernels, &bitmap_ops, NULL), -ENOMEM);
	assert_int_equal(mmu_attach(vm, &kernels, &soft_ops, NULL), -EINVAL);
	attach_soft();
	assert_int_equal(mmu_attach(vm, &softs, &soft_ops, NULL), -EINVAL);
	assert_int_equal(dirty_count(client[0]), 1);
	machine_unmake();
}

/* Whose log is unreadable at the end counts as dirty whole. */
static void detach_fails(void **state)
{
	machine_make();
	assert_int_equal(attach_kernel(MANUAL), 0);
	client_make(0, 0);
	k.fail_collect = -EIO;
	assert_int_equal(mmu_detach(vm), -EIO);
	assert_true(dirty_count(client[0]) >= PAGES);
	mmu_vcpu_destroy(k.vcpu);
	attach_soft();
	machine_unmake();
}

/* Rings of a client are fed from the kernel's, and only where there are such. */
static void rings(void **state)
{
	struct mmu_root none;
	struct dirty_ring *ring;

	machine_make();
	assert_int_equal(attach_kernel(MANUAL), 0);
	client_make(0, 0);
	assert_int_equal(dirty_ring_enable(client[0], 64), -EOPNOTSUPP);
	detach();
	assert_int_equal(attach_kernel(RINGS), 0);
	assert_int_equal(dirty_ring_enable(client[0], 64), 0);
	ring = dirty_ring_get(k.vcpu);
	assert_non_null(ring);
	assert_int_equal(mmu_load(k.vcpu, &none), MMU_RETRY);
	for (unsigned p = 0; p < 40; p++)
		guest_write(0, p);
	assert_int_equal(dirty_count(client[0]), 40);
	assert_int_equal(ring->head, 40);
	assert_int_equal(ring->entries[39].page, 39);
	assert_true(mmu_needs_load(k.vcpu));
	assert_int_equal(mmu_load(k.vcpu, &none), MMU_RING_FULL);
	assert_true(dirty_ring_blocks(client[0]));
	ring->tail = ring->head;
	assert_int_equal(dirty_ring_reset(client[0]), 0);
	assert_int_equal(k.kicks, 1);
	assert_int_equal(mmu_load(k.vcpu, &none), MMU_RETRY);
	assert_int_equal(dirty_count(client[0]), 0);
	detach();
	/* They cannot be fed by a bitmap: not without telling who reads them. */
	assert_int_equal(attach_kernel(MANUAL), -EOPNOTSUPP);
	attach_soft();
	machine_unmake();
}

/* What the kernel's ring names may have gone meanwhile. */
static void stale_entries(void **state)
{
	static const struct dirty_ring_entry odd[] = {
		{.slot_id = 2, .page = 0},     {.slot_id = 511, .page = 0},
		{.slot_id = ~0u, .page = 1},   {.slot_id = 0, .page = PAGES},
		{.slot_id = 0, .page = ~0ull}, {.slot_id = 0, .page = 4}};

	machine_make();
	assert_int_equal(attach_kernel(RINGS), 0);
	client_make(0, 0);
	mmu_kernel_log(k.vcpu, odd, ARRAY_SIZE(odd));
	assert_int_equal(dirty_count(client[0]), 1);
	machine_unmake();
}

/* Policies are changed by changing the engine; PML is the processor's that we do not have. */
static void refused(void **state)
{
	machine_make();
	assert_int_equal(attach_kernel(PLAIN), 0);
	assert_int_equal(mmu_get_policy(vm), MMU_POLICY_KERNEL);
	assert_int_equal(mmu_set_policy(vm, MMU_POLICY_TDP), -EINVAL);
	assert_int_equal(dirty_set_notice(vm, DIRTY_NOTICE_PML), -EOPNOTSUPP);
	detach();
	attach_soft();
	assert_int_equal(mmu_set_policy(vm, MMU_POLICY_KERNEL), -EINVAL);
	machine_unmake();
}

/* The guest's tables are walked as ever, and A and D set as the processor would. */
static void walks(void **state)
{
	struct mmu_regs regs = {.cr0 = BIT(31) | BIT(16) | 1,
				.cr3 = 0x1000,
				.cr4 = BIT(5),
				.efer = BIT(10) | BIT(8),
				.maxphyaddr = 40};
	struct mmu_walk_result w;
	uint64_t *at;

	machine_make();
	memset(memory, 0, PAGES << PAGE_SHIFT);
	assert_int_equal(attach_kernel(MANUAL), 0);
	client_make(0, 0);
	at = (uint64_t *)memory;
	at[0x1000 / 8] = 0x2003;
	at[0x2000 / 8] = 0x3003;
	at[0x3000 / 8] = 0x4003;
	at[0x4000 / 8 + 5] = 0x7003;
	mmu_set_regs(k.vcpu, &regs);
	assert_int_equal(mmu_gva_to_gpa(k.vcpu, 0x5123, MMU_ACC_PEEK, &w), 0);
	assert_int_equal(w.gpa, 0x7123);
	assert_int_equal(dirty_count(client[0]), 0);
	assert_int_equal(mmu_gva_to_gpa(k.vcpu, 0x5123, MMU_ACC_WRITE, &w), 0);
	assert_int_equal(at[0x4000 / 8 + 5], 0x7063);
	assert_int_equal(dirty_count(client[0]), 4);
	assert_int_equal(mmu_gva_to_gpa(k.vcpu, 0x6000, 0, &w), 1);
	assert_int_equal(w.fault.vector, 14);
	machine_unmake();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(truth),	 cmocka_unit_test(engines),
		cmocka_unit_test(exact),	 cmocka_unit_test(log_ends),
		cmocka_unit_test(failures),	 cmocka_unit_test(attach_fails),
		cmocka_unit_test(detach_fails),	 cmocka_unit_test(rings),
		cmocka_unit_test(stale_entries), cmocka_unit_test(refused),
		cmocka_unit_test(walks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
