/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The interrupt controllers of an engine that has its own, and the board's form of them. */
#include "vm/vm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum board_chips vm_board_chips(const struct vm *vm)
{
	if (!vm->engine->chips_load)
		return BOARD_CHIPS_OWN;
	return vm->def->irqchip == MACHINE_IRQCHIP_SPLIT ? BOARD_CHIPS_SPLIT : BOARD_CHIPS_ENGINE;
}

/* ---- lines and messages: the engine of now, as it may change while the machine is held ---- */

static void chips_set_gsi(void *opaque, unsigned gsi, bool level)
{
	struct vm *vm = opaque;
	int ret;

	/* While the machine is stopped the router remembers: vm_chips_store() tells. */
	if (!__atomic_load_n(&vm->chips_stored, __ATOMIC_SEQ_CST))
		return;
	ret = vm->engine->set_gsi(vm->engine_vm, gsi, level);
	if (ret)
		vm_request_end(vm, VM_REASON_ENGINE, 0, 0, "interrupt line %u: %s", gsi,
			       strerror(-ret));
}

static int chips_msi(void *opaque, uint64_t addr, uint32_t data)
{
	struct vm *vm = opaque;

	if (!__atomic_load_n(&vm->chips_stored, __ATOMIC_SEQ_CST))
		return lapic_bus_msi(&vm->board->lapics, addr, data);
	return vm->engine->msi(vm->engine_vm, addr, data);
}

const struct irq_router_ops vm_irq_ops = {.set_gsi = chips_set_gsi, .msi = chips_msi};

void vm_pic_intr(void *opaque)
{
	struct vm *vm = opaque;

	if (__atomic_load_n(&vm->chips_stored, __ATOMIC_SEQ_CST))
		vm->engine->pic_intr(vm->engine_vm);
}

/* ---- state ---- */

struct states {
	struct pic_state pic;
	struct ioapic_state ioapic;
	struct pit_state pit;
	struct lapic_state lapic[];
};

/* What of @s the engine has. */
static struct engine_chips chips_of(struct vm *vm, struct states *s)
{
	struct engine_chips chips = {
		.now_ns = clock_now(&vm->clock),
		.lines = board_irq_lines(vm->board),
		.lapic = s->lapic,
	};

	if (vm_board_chips(vm) == BOARD_CHIPS_ENGINE) {
		chips.pic = &s->pic;
		chips.ioapic = &s->ioapic;
		chips.pit = &s->pit;
	}
	return chips;
}

static struct states *states_new(struct vm *vm)
{
	return calloc(1, sizeof(struct states) + vm->cpus * sizeof(struct lapic_state));
}

static int into_board(struct vm *vm, const struct engine_chips *chips, struct api_error *err)
{
	struct board *b = vm->board;
	const char *bad = NULL;

	if (chips->pit && pit_load(&b->pit, chips->pit))
		bad = "PIT";
	if (chips->pic && pic_load(&b->pic, chips->pic))
		bad = "PIC";
	if (chips->ioapic && ioapic_load(&b->ioapic, chips->ioapic))
		bad = "I/O APIC";
	for (unsigned k = 0; k < vm->cpus; k++) {
		/* The wire from the 8259s is nowhere in the engine's state. */
		chips->lapic[k].lint = board_pic_pending(b);
		if (lapic_load(board_lapic(b, k), &chips->lapic[k]))
			bad = "local APIC";
	}
	if (!bad)
		return 0;
	return api_error_set(err, API_KIND_INTERNAL,
			     "engine %s: the %s has a state that ours cannot have",
			     vm->engine->name, bad);
}

static int clock_error(struct vm *vm, int ret, struct api_error *err)
{
	return ret ? api_error_set(err, API_KIND_INTERNAL, "engine %s: kvmclock: %s",
				   vm->engine->name, strerror(-ret))
		   : 0;
}

int vm_chips_fetch(struct vm *vm, struct api_error *err)
{
	struct engine_chips chips;
	struct states *s;
	int ret;

	if (!vm->chips_stored)
		return 0;
	__atomic_store_n(&vm->chips_stored, false, __ATOMIC_SEQ_CST);
	s = states_new(vm);
	if (!s)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	chips = chips_of(vm, s);
	ret = vm->engine->chips_save(vm->engine_vm, &chips);
	if (ret)
		api_error_set(err, API_KIND_INTERNAL, "engine %s: interrupt controllers: %s",
			      vm->engine->name, strerror(-ret));
	else
		ret = into_board(vm, &chips, err);
	free(s);
	if (!ret && engine_cpu_model_shows(&vm->model, "kvmclock"))
		ret = clock_error(vm, vm->engine->clock_save(vm->engine_vm, &vm->kvmclock_ns), err);
	return ret;
}

int vm_chips_store(struct vm *vm, struct api_error *err)
{
	struct board *b = vm->board;
	struct engine_chips chips;
	struct states *s;
	int ret;

	if (!vm->engine->chips_load)
		return 0;
	s = states_new(vm);
	if (!s)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	pit_save(&b->pit, &s->pit);
	pic_save(&b->pic, &s->pic);
	ioapic_save(&b->ioapic, &s->ioapic);
	for (unsigned k = 0; k < vm->cpus; k++)
		lapic_save(board_lapic(b, k), &s->lapic[k]);
	__atomic_store_n(&vm->chips_stored, true, __ATOMIC_SEQ_CST);
	chips = chips_of(vm, s);
	ret = vm->engine->chips_load(vm->engine_vm, &chips);
	free(s);
	if (ret)
		return api_error_set(err, API_KIND_INTERNAL, "engine %s: interrupt controllers: %s",
				     vm->engine->name, strerror(-ret));
	if (engine_cpu_model_shows(&vm->model, "kvmclock"))
		ret = clock_error(vm, vm->engine->clock_load(vm->engine_vm, vm->kvmclock_ns), err);
	return ret;
}
