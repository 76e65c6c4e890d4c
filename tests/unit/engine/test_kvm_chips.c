/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Interrupt controllers between devices/' form and the kernel's; then through a real kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/kvm/chips.h"
#include "tests/unit/engine/machine.h"

#define NOW 5000000000ull

static uint64_t seed = 88172645463325252ull;

static uint64_t any(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* ---- local APIC ---- */

static struct lapic_state some_lapic(bool x2apic, unsigned id)
{
	struct lapic_state s = {
		.base = LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | (id ? 0 : LAPIC_BASE_BSP) |
			(x2apic ? LAPIC_BASE_X2APIC : 0),
		.id = id,
		.ldr = x2apic ? 1u << id : (uint32_t)any() & 0xff000000,
		.dfr = x2apic || any() & 1 ? 0xffffffff : 0x0fffffff,
		.svr = 0x100 | (any() & 0xff),
		.tpr = any() & 0xff,
		.icr = (any() & LAPIC_ICR_BITS) |
		       (x2apic ? any() & 0xffffffff00000000 : any() & 0xff00000000000000),
		.divide = any() & 0xb,
		.initial_count = 1000000 + (any() & 0xffff),
		.expire_ns = CLOCK_NEVER,
	};

	for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
		s.lvt[i] = (uint32_t)any() & lapic_lvt_bits(i) & ~0x60000u;
	for (unsigned i = 0; i < 8; i++) {
		s.irr[i] = (uint32_t)any();
		s.isr[i] = (uint32_t)any();
		s.tmr[i] = (uint32_t)any();
	}
	s.irr[0] &= 0xffff0000;
	s.isr[0] &= 0xffff0000;
	return s;
}

static struct lapic_state lapic_round(const struct lapic_state *s)
{
	struct kvm_lapic_msrs msrs = {s->base, s->tsc_offset, s->tsc_deadline};
	struct kvm_lapic_state k;
	struct lapic_state back;

	kvm_lapic_to(s, NOW, &k);
	kvm_lapic_from(&k, &msrs, NOW, &back);
	return back;
}

static void test_lapic(void **state)
{
	for (unsigned n = 0; n < 1000; n++) {
		struct lapic_state s = some_lapic(n & 1, n % 8), back;

		s.expire_ns = NOW + (1000ull << ((((s.divide & 3) | (s.divide >> 1 & 4)) + 1) & 7));
		s.tsc_offset = any();
		back = lapic_round(&s);
		assert_memory_equal(&back, &s, sizeof(s));
	}
}

static void test_lapic_timer(void **state)
{
	struct lapic_state s = some_lapic(false, 0), back;
	struct kvm_lapic_state k;
	uint32_t value;

	/* One shot that is over: a count in the kernel would begin anew. */
	s.lvt[LAPIC_LVT_TIMER] = 0x40;
	s.divide = 0xb; /* by 1 */
	kvm_lapic_to(&s, NOW, &k);
	memcpy(&value, k.regs + 0x380, 4);
	assert_int_equal(value, 0);
	assert_true(lapic_round(&s).expire_ns == CLOCK_NEVER);
	/* Due already: at once, not never. */
	s.expire_ns = NOW - 5;
	kvm_lapic_to(&s, NOW, &k);
	memcpy(&value, k.regs + 0x390, 4);
	assert_int_equal(value, 1);
	/* No more is left than there was. */
	s.expire_ns = NOW + s.initial_count + 1000;
	kvm_lapic_to(&s, NOW, &k);
	memcpy(&value, k.regs + 0x390, 4);
	assert_int_equal(value, s.initial_count);
	/* A deadline is a TSC's value, in its mode only. */
	s.expire_ns = CLOCK_NEVER;
	s.lvt[LAPIC_LVT_TIMER] = 0x40 | 2 << 17;
	s.tsc_deadline = 0x123456789;
	back = lapic_round(&s);
	assert_int_equal(back.tsc_deadline, 0x123456789);
	s.lvt[LAPIC_LVT_TIMER] = 0x40;
	assert_int_equal(lapic_round(&s).tsc_deadline, 0);
}

/* ---- 8259s, I/O APIC ---- */

static struct pic_chip_state some_pic(unsigned which)
{
	struct pic_chip_state s = {
		.irr = any() & 0xff,
		.isr = any() & 0xff,
		.imr = any() & 0xff,
		.lines = any() & 0xff,
		.elcr = any() & (which ? 0xde : 0xf8),
		.lowest = any() & 7,
		.icw2 = any() & 0xf8,
		.icw4 = (any() & 0x12) | 1,
		.init_step = (uint8_t[]){0, 2, 3, 4}[any() & 3],
		.need_icw4 = any() & 1,
		.read_isr = any() & 1,
		.poll = any() & 1,
		.special_mask = any() & 1,
		.rotate_aeoi = any() & 1,
	};

	if (!which)
		s.lines = (s.lines & ~4u) | (s.irr & 4u);
	return s;
}

static void test_pic(void **state)
{
	for (unsigned n = 0; n < 1000; n++) {
		struct pic_chip_state s = some_pic(n & 1), back;
		struct kvm_pic_state k;

		kvm_pic_to(&s, n & 1, &k);
		assert_int_equal(k.elcr_mask, n & 1 ? 0xde : 0xf8);
		kvm_pic_from(&k, n & 1, &back);
		assert_memory_equal(&back, &s, sizeof(s));
	}
}

static struct ioapic_state some_ioapic(void)
{
	struct ioapic_state s = {
		.lines = any() & 0xffffff, .select = any() & 0xff, .id = (any() & 0xf) << 24};

	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		s.rte[pin] = any() & 0xff0000000001efff;
	return s;
}

static void test_ioapic(void **state)
{
	for (unsigned n = 0; n < 1000; n++) {
		struct ioapic_state s = some_ioapic(), back;
		struct kvm_ioapic_state k;

		kvm_ioapic_to(&s, &k);
		/* Only levels wait in the kernel; an edge would come a second time. */
		for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
			assert_int_equal(k.irr >> pin & 1,
					 (s.lines >> pin & 1) && (s.rte[pin] & BIT(15)));
		kvm_ioapic_from(&k, s.lines, &back);
		assert_memory_equal(&back, &s, sizeof(s));
	}
}

/* ---- PIT ---- */

static uint64_t ticks(uint64_t ns)
{
	return (uint64_t)((__uint128_t)ns * PIT_HZ / 1000000000);
}

static struct pit_state some_pit(void)
{
	struct pit_state s = {.fired = ticks(NOW), .port61 = 1};

	for (unsigned k = 0; k < PIT_COUNTERS; k++)
		s.counter[k] = (struct pit_counter_state){
			.start = ticks(NOW) - 100,
			.count = 5000,
			.mode = 2,
			.rw = 3,
			.gate = 1,
			.running = 1,
			.counting = 1,
		};
	return s;
}

static void test_pit(void **state)
{
	struct pit_state s = some_pit(), back;
	struct kvm_pit_state2 k;

	s.counter[1].read_second = 1;
	s.counter[1].latched = 0x1234;
	s.counter[1].latched_bytes = 2;
	s.counter[2].write_second = 1;
	s.counter[2].write_lsb = 0x77;
	s.counter[2].bcd = 1;
	s.port61 = 3;
	kvm_pit_to(&s, NOW, &k);
	k.channels[1].count_load_time = k.channels[2].count_load_time = 1000000;
	kvm_pit_from(&k, NOW, 1000000 + 1000000, &back);
	for (unsigned n = 0; n < PIT_COUNTERS; n++) {
		/* Counter 0's phase is not told; the others' is by the host's clock. */
		assert_int_equal(back.counter[n].start, ticks(NOW) - (n ? ticks(1000000) : 0));
		back.counter[n].start = s.counter[n].start;
	}
	assert_memory_equal(&back, &s, sizeof(s));
}

static void test_pit_one_shot(void **state)
{
	struct pit_state s = some_pit();
	struct kvm_pit_state2 k;

	/* What is left of it, with the tick that a load takes. */
	s.counter[0].mode = s.counter[2].mode = 0;
	kvm_pit_to(&s, NOW, &k);
	assert_int_equal(k.channels[0].count, 5000 + 1 - 100);
	assert_int_equal(k.channels[2].count, 5000 + 1 - 100);
	/* Over: once more rather than in another mode; OUT of the others at once. */
	s.counter[0].start = s.counter[2].start = 0;
	kvm_pit_to(&s, NOW, &k);
	assert_int_equal(k.channels[0].count, 5000);
	assert_int_equal(k.channels[0].mode, 0);
	assert_int_equal(k.channels[2].count, 1);
}

/* ---- through the kernel ---- */

struct chips {
	struct lapic_state lapic[2];
	struct pic_state pic;
	struct ioapic_state ioapic;
	struct pit_state pit;
};

static struct engine_chips all(struct chips *c, bool board)
{
	struct engine_chips e = {.now_ns = NOW, .lapic = c->lapic};

	if (board) {
		e.pic = &c->pic;
		e.ioapic = &c->ioapic;
		e.pit = &c->pit;
		e.lines = c->ioapic.lines;
	}
	return e;
}

static struct chips some_chips(void)
{
	struct chips c = {.pit = some_pit(), .ioapic = some_ioapic()};

	for (unsigned n = 0; n < 2; n++) {
		c.lapic[n] = some_lapic(false, n);
		/* Nothing that the kernel would act on: the timer and the pins stand still. */
		for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
			c.lapic[n].lvt[i] |= 0x10000;
		c.lapic[n].initial_count = 0;
		c.lapic[n].esr = 0;
		c.pic.chip[n] = (struct pic_chip_state){
			.imr = 0xff,
			.lowest = 3,
			.icw2 = n ? 0x70 : 0x08,
			.icw4 = 1,
			.need_icw4 = 1,
			.isr = 2,
			.elcr = n ? 0x0e : 0x20,
		};
	}
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		c.ioapic.rte[pin] |= BIT(16);
	c.ioapic.lines = 0xa00; /* 9 and 11 */
	c.pic.chip[1].lines = 0x0a;
	c.pic.chip[1].irr = 0x0a;
	return c;
}

static void through_kernel(enum engine_irqchip irqchip)
{
	const struct m_options o = {.kvm = true, .vcpus = 2, .irqchip = irqchip};
	bool board = irqchip == ENGINE_IRQCHIP_KERNEL;
	struct chips to = some_chips(), from = {0};
	struct engine_chips e;
	struct machine *m;

	NEEDS_KVM;
	m = m_create(&o);
	e = all(&to, board);
	assert_int_equal(m->ops->chips_load(m->vm, &e), 0);
	e = all(&from, board);
	e.lines = to.ioapic.lines;
	assert_int_equal(m->ops->chips_save(m->vm, &e), 0);
	for (unsigned n = 0; n < 2; n++) {
		from.lapic[n].tsc_offset = to.lapic[n].tsc_offset;
		assert_memory_equal(&from.lapic[n], &to.lapic[n], sizeof(to.lapic[n]));
	}
	if (board) {
		assert_memory_equal(&from.pic, &to.pic, sizeof(to.pic));
		assert_memory_equal(&from.ioapic, &to.ioapic, sizeof(to.ioapic));
		for (unsigned n = 0; n < PIT_COUNTERS; n++)
			from.pit.counter[n].start = to.pit.counter[n].start;
		assert_memory_equal(&from.pit, &to.pit, sizeof(to.pit));
	}
	m_destroy(m);
}

static void test_kernel(void **state)
{
	through_kernel(ENGINE_IRQCHIP_KERNEL);
}

static void test_split(void **state)
{
	through_kernel(ENGINE_IRQCHIP_SPLIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lapic),  cmocka_unit_test(test_lapic_timer),
		cmocka_unit_test(test_pic),    cmocka_unit_test(test_ioapic),
		cmocka_unit_test(test_pit),    cmocka_unit_test(test_pit_one_shot),
		cmocka_unit_test(test_kernel), cmocka_unit_test(test_split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
