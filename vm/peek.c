/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest memory for whoever looks from outside: the API and the debugger. */
#include "vm/peek.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/base64.h"
#include "api/server.h"
#include "base/cleanup.h"
#include "mmu/inspect.h"
#include "vm/vm_api.h"
#include "vm/vm_internal.h"

#define INSN_BYTES_MAX 15

/* ---- by linear address -------------------------------------------------------------------------
 */

static void say_unmapped(struct vcpu *v, gva_t gva, const struct mmu_inspect_walk *w,
			 struct buf *why)
{
	const struct mmu_walk_step *last =
		w->guest.nsteps ? &w->guest.steps[w->guest.nsteps - 1] : NULL;
	struct cpu_state s;

	buf_printf(why, "0x%" PRIx64 " is not mapped: ", gva);
	if (last)
		buf_printf(why, "its level-%u entry at gpa 0x%" PRIx64 ", 0x%" PRIx64 ", ",
			   last->level, last->gpa, last->raw);
	buf_printf(why, "%s%s", last ? "" : "it ", mmu_why_name(w->why));
	/* With page-table isolation the user's tables lack most of the kernel. */
	if (!v->vm->engine->vcpu_get_state(v->engine, &s) && gva >> 63 &&
	    w->why != MMU_WHY_NOT_CANONICAL && (s.seg[X86_SS].attr & X86_ATTR_DPL) == X86_ATTR_DPL)
		buf_printf(why, " (vCPU %u is in user mode, whose tables may leave the kernel out)",
			   v->index);
}

int vm_walk(struct vcpu *v, gva_t gva, struct mmu_inspect_walk *ret_walk)
{
	const struct engine_ops *engine = v->vm->engine;
	struct mmu_regs regs;
	int ret = engine->vcpu_mmu_regs(v->engine, &regs);

	if (ret)
		return ret;
	return mmu_inspect_walk(engine->vcpu_mmu(v->engine), &regs, gva, ret_walk);
}

/* The gpa of a byte. 0 or -EFAULT with @why. */
static int translate(struct vcpu *v, gva_t gva, gpa_t *gpa, struct buf *why)
{
	struct mmu_inspect_walk walk;

	if (vm_walk(v, gva, &walk)) {
		buf_printf(why, "the vCPU has no registers yet");
		return -EFAULT;
	}
	if (walk.guest_result || walk.why) {
		say_unmapped(v, gva, &walk, why);
		return -EFAULT;
	}
	*gpa = walk.guest.gpa;
	return 0;
}

enum way { PEEK, POKE };

/* A piece within one page. 0 or -EFAULT. */
static int copy_piece(struct vm *vm, enum way way, gpa_t gpa, void *data, size_t len,
		      struct buf *why)
{
	int ret = way == PEEK ? slot_read(vm->mmu, gpa, data, len)
			      : slot_write(vm->mmu, gpa, data, len);

	if (ret == -EROFS)
		buf_printf(why, "gpa 0x%" PRIx64 " is read-only memory", gpa);
	else if (ret)
		buf_printf(why, "gpa 0x%" PRIx64 " is no memory: a device, or a hole", gpa);
	return ret ? -EFAULT : 0;
}

static size_t copy(struct vcpu *v, enum way way, gva_t gva, uint8_t *data, size_t len,
		   struct buf *why)
{
	size_t done = 0;

	while (done < len) {
		gva_t at = gva + done;
		size_t n = MIN(len - done, (size_t)(PAGE_SIZE - (at & ~PAGE_MASK)));
		gpa_t gpa;

		if (at < gva) {
			buf_printf(why, "the end of the address space");
			break;
		}
		if (translate(v, at, &gpa, why))
			break;
		if (copy_piece(v->vm, way, gpa, data + done, n, why)) {
			buf_printf(why, ", for 0x%" PRIx64, at);
			break;
		}
		done += n;
	}
	return done;
}

size_t vm_peek(struct vcpu *v, gva_t gva, void *data, size_t len, struct buf *why)
{
	return copy(v, PEEK, gva, data, len, why);
}

size_t vm_poke(struct vcpu *v, gva_t gva, const void *data, size_t len, struct buf *why)
{
	return copy(v, POKE, gva, (uint8_t *)(uintptr_t)data, len, why);
}

size_t vm_peek_gpa(struct vm *vm, gpa_t gpa, void *data, size_t len, struct buf *why)
{
	size_t done = 0;

	while (done < len) {
		gpa_t at = gpa + done;
		size_t n = MIN(len - done, (size_t)(PAGE_SIZE - (at & ~PAGE_MASK)));

		if (at < gpa || copy_piece(vm, PEEK, at, (uint8_t *)data + done, n, why))
			break;
		done += n;
	}
	return done;
}

/* ---- over the API ------------------------------------------------------------------------------
 */

static void add_fault(struct json_object *o, uint64_t addr, const struct buf *why)
{
	struct json_object *fault = json_object_new_object();

	json_object_object_add(fault, "addr", api_addr_new(addr));
	json_object_object_add(fault, "why", json_object_new_string(why->data ? why->data : ""));
	json_object_object_add(o, "fault", fault);
}

void handle_machine_read(struct api_call *call)
{
	_cleanup_(buf_finish) struct buf why = {0};
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_free_ char *text = NULL;
	struct vm *vm = vm_of_call(call);
	struct vcpu *v = vm ? vcpu_of_call(call, vm) : NULL;
	struct json_object *o;
	uint64_t addr;
	size_t len, n;
	bool gpa;

	if (!v)
		return;
	addr = api_call_addr(call, "addr", 0);
	len = (size_t)api_call_int(call, "length", 64);
	gpa = api_call_bool(call, "gpa", false);
	data = malloc(len);
	if (!data) {
		api_call_fail(call, API_KIND_INTERNAL, "out of memory");
		return;
	}
	vcpus_hold(vm);
	n = gpa ? vm_peek_gpa(vm, addr, data, len, &why) : vm_peek(v, addr, data, len, &why);
	vcpus_release(vm);
	text = base64_encode(data, n);
	o = json_object_new_object();
	if (!text || !o) {
		json_object_put(o);
		api_call_fail(call, API_KIND_INTERNAL, "out of memory");
		return;
	}
	json_object_object_add(o, "addr", api_addr_new(addr));
	json_object_object_add(o, "length", json_object_new_int64((int64_t)n));
	json_object_object_add(o, "data", json_object_new_string(text));
	if (n < len)
		add_fault(o, addr + n, &why);
	api_call_reply(call, o, -1);
}

static struct json_object *instruction(struct vcpu *v, uint64_t addr, const uint8_t *bytes,
				       unsigned have, unsigned *len)
{
	struct json_object *o = json_object_new_object();
	char text[160], hex[2 * INSN_BYTES_MAX + 1];
	unsigned n =
		v->vm->engine->vcpu_disassemble(v->engine, bytes, have, addr, text, sizeof(text));

	*len = n ? n : 1;
	for (unsigned k = 0; k < *len; k++)
		snprintf(hex + 2 * k, 3, "%02x", bytes[k]);
	json_object_object_add(o, "addr", api_addr_new(addr));
	json_object_object_add(o, "bytes", json_object_new_string(hex));
	json_object_object_add(o, "text", json_object_new_string(n ? text : "(bad)"));
	return o;
}

void handle_machine_disassemble(struct api_call *call)
{
	_cleanup_(buf_finish) struct buf why = {0};
	struct vm *vm = vm_of_call(call);
	struct vcpu *v = vm ? vcpu_of_call(call, vm) : NULL;
	struct json_object *o, *list;
	unsigned len = 0;
	uint64_t addr;
	int64_t count;
	bool gpa;

	if (!v)
		return;
	addr = api_call_addr(call, "addr", 0);
	count = api_call_int(call, "count", 10);
	gpa = api_call_bool(call, "gpa", false);
	o = json_object_new_object();
	list = json_object_new_array();
	vcpus_hold(vm);
	for (; count > 0; count--, addr += len) {
		uint8_t bytes[INSN_BYTES_MAX];
		size_t have;

		buf_truncate(&why, 0);
		have = gpa ? vm_peek_gpa(vm, addr, bytes, sizeof(bytes), &why)
			   : vm_peek(v, addr, bytes, sizeof(bytes), &why);
		if (!have) {
			add_fault(o, addr, &why);
			break;
		}
		json_object_array_add(list, instruction(v, addr, bytes, (unsigned)have, &len));
	}
	vcpus_release(vm);
	json_object_object_add(o, "instructions", list);
	api_call_reply(call, o, -1);
}

void handle_machine_registers(struct api_call *call)
{
	struct vm *vm = vm_of_call(call);
	struct vcpu *one = vm ? vcpu_of_call(call, vm) : NULL;
	struct json_object *o, *list, *regs = NULL;
	bool all, fpu;

	if (!one)
		return;
	all = api_call_bool(call, "all", false);
	fpu = api_call_bool(call, "fpu", false);
	o = json_object_new_object();
	list = json_object_new_array();
	vcpus_hold(vm);
	for (unsigned k = 0; k < vm->cpus; k++) {
		if (!all && one != &vm->vcpus[k])
			continue;
		one = &vm->vcpus[k];
		regs = vm_registers(one, fpu);
		if (!regs)
			break;
		json_object_array_add(list, regs);
	}
	vcpus_release(vm);
	json_object_object_add(o, "vcpus", list);
	if (regs) {
		api_call_reply(call, o, -1);
		return;
	}
	json_object_put(o);
	api_call_fail(call, API_KIND_INTERNAL, "the registers of vCPU %u: %s", one->index,
		      vm->engine->vcpu_error(one->engine));
}
