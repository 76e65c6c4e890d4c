/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine's saved state: sections written, read, checked, compared. */
#include "vm/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "vm/vm_internal.h"

/* ---- the container ------------------------------------------------------------------------------
 */

static const char magic[8] = "UMBRA-VM";
#define FORM_VERSION 1u

struct form_header {
	char magic[8];
	uint32_t version, zero;
};

struct section_header {
	char name[24];
	uint32_t instance, version, flags, crc;
	uint64_t length;
};
static_assert(sizeof(struct form_header) == 16 && sizeof(struct section_header) == 48, "the form");

/* More than a machine of MACHINE_CPUS_MAX vCPUs has. */
#define SECTIONS_MAX 1024

/* A section in the bytes that are being read, which are not aligned to anything. */
struct section {
	struct section_header head;
	const uint8_t *data;
};

struct index {
	unsigned count;
	struct section section[SECTIONS_MAX];
};

static uint32_t checksum(const struct section_header *head, const void *data)
{
	struct section_header h = *head;
	uLong crc;

	h.crc = 0;
	crc = crc32_z(0, (const void *)&h, sizeof(h));
	return (uint32_t)crc32_z(crc, data, h.length);
}

static void put_section(struct buf *out, struct section_header *head, const void *data)
{
	static const char zeroes[8];

	head->crc = checksum(head, data);
	buf_append(out, head, sizeof(*head));
	buf_append(out, data, head->length);
	buf_append(out, zeroes, ALIGN_UP(head->length, (uint64_t)8) - head->length);
}

static struct section_header named(const char *name, unsigned instance, uint32_t version)
{
	struct section_header h = {
		.instance = instance, .version = version, .flags = VM_STATE_MANDATORY};

	snprintf(h.name, sizeof(h.name), "%s", name);
	return h;
}

static int refuse(struct api_error *err, const struct section_header *h, const char *what)
{
	return api_error_set(err, API_KIND_INVALID_PARAMS, "saved state: section %.24s %u: %s",
			     h->name, h->instance, what);
}

static const struct section *find(const struct index *x, const char *name, unsigned instance)
{
	for (unsigned n = 0; n < x->count; n++)
		if (x->section[n].head.instance == instance &&
		    !strcmp(x->section[n].head.name, name))
			return &x->section[n];
	return NULL;
}

/* The name is a word of ours: printable, and zeroes to its end. */
static bool name_ok(const struct section_header *h)
{
	size_t len = strnlen(h->name, sizeof(h->name));

	if (!len || len == sizeof(h->name))
		return false;
	for (size_t n = 0; n < sizeof(h->name); n++)
		if (n < len ? h->name[n] <= ' ' || h->name[n] > '~' : h->name[n] != 0)
			return false;
	return true;
}

static int check_section(const struct index *x, const struct section *s, struct api_error *err)
{
	if (s->head.flags & ~(uint32_t)VM_STATE_MANDATORY)
		return refuse(err, &s->head, "unknown flags");
	if (s->head.crc != checksum(&s->head, s->data))
		return refuse(err, &s->head, "the checksum is wrong");
	if (find(x, s->head.name, s->head.instance))
		return refuse(err, &s->head, "comes twice");
	if (x->count == SECTIONS_MAX)
		return refuse(err, &s->head, "too many sections");
	return 0;
}

static int broken(struct api_error *err, const char *what)
{
	return api_error_set(err, API_KIND_INVALID_PARAMS, "saved state: %s", what);
}

static int check_header(const uint8_t *data, size_t len, struct api_error *err)
{
	struct form_header form;

	if (len < sizeof(form))
		return broken(err, "it is cut short");
	memcpy(&form, data, sizeof(form));
	if (memcmp(form.magic, magic, sizeof(magic)) != 0 || form.zero)
		return broken(err, "it is none");
	if (form.version != FORM_VERSION)
		return api_error_set(err, API_KIND_NOT_SUPPORTED,
				     "saved state: version %u of the form is not known",
				     form.version);
	return 0;
}

/* All sections up to "end", which is the last thing there is. */
static int read_index(const uint8_t *data, size_t len, struct index *x, struct api_error *err)
{
	size_t at = sizeof(struct form_header);
	int ret = check_header(data, len, err);

	x->count = 0;
	while (!ret) {
		struct section s;

		if (len - at < sizeof(s.head))
			return broken(err, "it is cut short");
		memcpy(&s.head, data + at, sizeof(s.head));
		at += sizeof(s.head);
		if (!name_ok(&s.head))
			return broken(err, "a section has no proper name");
		if (s.head.length > len - at || ALIGN_UP(s.head.length, (uint64_t)8) > len - at)
			return refuse(err, &s.head, "it is cut short");
		s.data = data + at;
		at += ALIGN_UP(s.head.length, (uint64_t)8);
		ret = check_section(x, &s, err);
		if (!ret && !strcmp(s.head.name, "end"))
			return at == len ? 0 : broken(err, "bytes follow its end");
		if (!ret)
			x->section[x->count++] = s;
	}
	return ret;
}

/* ---- the machine section ------------------------------------------------------------------------
 */

struct machine_section {
	uint32_t cpus, leaves;
	uint64_t ram_below_4g, ram_above_4g;
	struct cpu_cpuid leaf[ENGINE_CPUID_MAX]; /* vCPU 0's */
};
#define MACHINE_VERSION 1u
#define MACHINE_FIXED	offsetof(struct machine_section, leaf)
static_assert(sizeof(struct cpu_cpuid) == 24 && MACHINE_FIXED == 24, "no padding");

static const struct state_field machine_fields[] = {
	{"cpus", offsetof(struct machine_section, cpus), 4, 4, 1},
	{"ram_below_4g", offsetof(struct machine_section, ram_below_4g), 8, 8, 1},
	{"ram_above_4g", offsetof(struct machine_section, ram_above_4g), 8, 8, 1},
};

static size_t fill_machine(const struct vm *vm, struct machine_section *m)
{
	memset(m, 0, sizeof(*m));
	m->cpus = vm->cpus;
	m->ram_below_4g = vm->ram_below_4g;
	m->ram_above_4g = vm->ram_above_4g;
	m->leaves = vm->engine->vcpu_cpuid(vm->vcpus[0].engine, m->leaf);
	return MACHINE_FIXED + m->leaves * sizeof(m->leaf[0]);
}

static int check_cpuid(const struct section_header *h, const struct machine_section *want,
		       const struct machine_section *here, struct api_error *err)
{
	char what[512];

	return vm_cpuid_differences(want->leaf, want->leaves, here->leaf, here->leaves, what,
				    sizeof(what))
		       ? refuse(err, h, what)
		       : 0;
}

static int check_machine(struct vm *vm, const struct index *x, unsigned flags,
			 struct api_error *err)
{
	const struct section *s = find(x, "machine", 0);
	struct machine_section want = {0}, here;

	if (!s)
		return broken(err, "there is no section machine");
	if (s->head.version != MACHINE_VERSION)
		return refuse(err, &s->head, "its version is not known");
	if (s->head.length < MACHINE_FIXED || s->head.length > sizeof(want))
		return refuse(err, &s->head, "its length is wrong");
	memcpy(&want, s->data, s->head.length);
	if (want.leaves > ENGINE_CPUID_MAX ||
	    s->head.length != MACHINE_FIXED + want.leaves * sizeof(want.leaf[0]))
		return refuse(err, &s->head, "its length is wrong");
	fill_machine(vm, &here);
	if (want.cpus != here.cpus)
		return refuse(err, &s->head, "another number of vCPUs");
	if (want.ram_below_4g != here.ram_below_4g || want.ram_above_4g != here.ram_above_4g)
		return refuse(err, &s->head, "another size of memory");
	return flags & VM_STATE_OTHER_CPUID ? 0 : check_cpuid(&s->head, &want, &here, err);
}

/* ---- saving -------------------------------------------------------------------------------------
 */

static void put_machine(const struct vm *vm, struct buf *out)
{
	struct section_header h = named("machine", 0, MACHINE_VERSION);
	struct machine_section m;

	h.length = fill_machine(vm, &m);
	put_section(out, &h, &m);
}

static int put_vcpu(struct vcpu *v, struct buf *out, struct api_error *err)
{
	const struct engine_ops *engine = v->vm->engine;
	struct section_header h = named("vcpu", v->index, STATE_CPU_VERSION);
	struct cpu_state s;
	void *data;

	/* What is asked of the vCPU and not done yet (INIT, SIPI, half an access) becomes state. */
	if (engine->vcpu_run(v->engine, 0) == ENGINE_EXIT_ERROR ||
	    engine->vcpu_get_state(v->engine, &s))
		return api_error_set(err, API_KIND_INTERNAL, "vCPU %u: %s", v->index,
				     engine->vcpu_error(v->engine));
	h.length = state_cpu_size();
	data = malloc(h.length);
	if (!data)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	state_cpu_encode(&s, data);
	put_section(out, &h, data);
	free(data);
	return 0;
}

static int put_device(const struct board_state_row *row, struct buf *out, struct api_error *err)
{
	struct section_header h = named(row->desc->name, row->instance, row->desc->version);
	void *data = calloc(1, row->desc->size);

	if (!data)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	h.length = row->desc->size;
	row->save(row->dev, data);
	put_section(out, &h, data);
	free(data);
	return 0;
}

/* What the guest reads of the paravirtual clock, while the machine stands still. */
static void put_kvm_clock(struct vm *vm, struct buf *out)
{
	struct section_header h = named("kvm-clock", 0, 1);

	if (!engine_cpu_model_shows(&vm->model, "kvmclock"))
		return;
	h.flags = 0;
	h.length = sizeof(vm->kvmclock_ns);
	put_section(out, &h, &vm->kvmclock_ns);
}

static int put_all(struct vm *vm, struct buf *out, struct api_error *err)
{
	struct section_header end = named("end", 0, 1);
	struct form_header form = {.version = FORM_VERSION};
	struct board_state_row row;
	int ret = 0;

	memcpy(form.magic, magic, sizeof(magic));
	buf_append(out, &form, sizeof(form));
	put_machine(vm, out);
	/* Before the devices: what a vCPU still has to do may concern them. */
	for (unsigned k = 0; !ret && k < vm->cpus; k++)
		ret = put_vcpu(&vm->vcpus[k], out, err);
	for (unsigned i = 0; !ret && !board_state_row(vm->board, i, &row); i++)
		ret = put_device(&row, out, err);
	put_kvm_clock(vm, out);
	put_section(out, &end, "");
	if (!ret && out->failed)
		ret = api_error_set(err, API_KIND_INTERNAL, "out of memory");
	return ret;
}

int vm_state_save(struct vm *vm, struct buf *out, struct api_error *err)
{
	size_t was = out->len;
	int ret = put_all(vm, out, err);

	if (ret)
		buf_truncate(out, was);
	return ret;
}

/* ---- loading ------------------------------------------------------------------------------------
 */

/* Everything decoded and checked, before anything is changed. */
struct loading {
	struct index index;
	uint64_t kvm_clock_ns;
	bool has_kvm_clock;
	struct cpu_state cpu[];
};

static int decode_vcpus(struct vm *vm, struct loading *l, struct api_error *err)
{
	struct cpu_cpuid leaves[ENGINE_CPUID_MAX];
	char text[80];

	for (unsigned k = 0; k < vm->cpus; k++) {
		const struct section *s = find(&l->index, "vcpu", k);
		struct section_header missing = named("vcpu", k, 0);
		const char *bad;

		if (!s)
			return refuse(err, &missing, "is missing");
		if (s->head.version != STATE_CPU_VERSION)
			return refuse(err, &s->head, "its version is not known");
		if (s->head.length != state_cpu_size())
			return refuse(err, &s->head, "its length is wrong");
		bad = state_cpu_decode(s->data, leaves,
				       vm->engine->vcpu_cpuid(vm->vcpus[k].engine, leaves),
				       &l->cpu[k]);
		if (bad) {
			snprintf(text, sizeof(text), "%s has a value that no processor has", bad);
			return refuse(err, &s->head, text);
		}
	}
	return 0;
}

static int check_devices(struct vm *vm, const struct index *x, struct api_error *err)
{
	struct board_state_row row;

	for (unsigned i = 0; !board_state_row(vm->board, i, &row); i++) {
		struct section_header missing = named(row.desc->name, row.instance, 0);
		const struct section *s = find(x, row.desc->name, row.instance);

		if (!s)
			return refuse(err, &missing, "is missing");
		if (s->head.version != row.desc->version)
			return refuse(err, &s->head, "its version is not known");
		if (s->head.length != row.desc->size)
			return refuse(err, &s->head, "its length is wrong");
	}
	return 0;
}

static bool is_device(struct vm *vm, const struct section_header *h)
{
	struct board_state_row row;

	for (unsigned i = 0; !board_state_row(vm->board, i, &row); i++)
		if (row.instance == h->instance && !strcmp(row.desc->name, h->name))
			return true;
	return false;
}

static int check_unknown(struct vm *vm, struct loading *l, struct api_error *err)
{
	for (unsigned n = 0; n < l->index.count; n++) {
		const struct section *s = &l->index.section[n];
		const struct section_header *h = &s->head;

		if (!strcmp(h->name, "kvm-clock") && !h->instance && h->version == 1 &&
		    h->length == sizeof(l->kvm_clock_ns)) {
			memcpy(&l->kvm_clock_ns, s->data, sizeof(l->kvm_clock_ns));
			l->has_kvm_clock = true;
			continue;
		}
		if (!(h->flags & VM_STATE_MANDATORY) ||
		    (!strcmp(h->name, "machine") && !h->instance) ||
		    (!strcmp(h->name, "vcpu") && h->instance < vm->cpus) || is_device(vm, h))
			continue;
		return refuse(err, h, "it is not known here");
	}
	return 0;
}

static int load_device(const struct board_state_row *row, const struct section *s,
		       struct api_error *err)
{
	void *data = malloc(row->desc->size); /* aligned */
	int ret;

	if (!data)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	memcpy(data, s->data, row->desc->size);
	ret = row->load(row->dev, data);
	free(data);
	return ret ? refuse(err, &s->head, "it has a value that the device cannot have") : 0;
}

static int load_vcpu(struct vcpu *v, struct cpu_state *s, struct api_error *err)
{
	const struct engine_ops *engine = v->vm->engine;

	s->cr8 = lapic_get_cr8(board_lapic(v->vm->board, v->index));
	if (!engine->vcpu_set_state(v->engine, s))
		return 0;
	return api_error_set(err, API_KIND_NOT_SUPPORTED, "saved state: section vcpu %u: %s",
			     v->index, engine->vcpu_error(v->engine));
}

static int load_all(struct vm *vm, struct loading *l, struct api_error *err)
{
	struct board_state_row row;
	int ret = 0;

	for (unsigned i = 0; !ret && !board_state_row(vm->board, i, &row); i++)
		ret = load_device(&row, find(&l->index, row.desc->name, row.instance), err);
	for (unsigned k = 0; !ret && k < vm->cpus; k++)
		ret = load_vcpu(&vm->vcpus[k], &l->cpu[k], err);
	if (!ret && l->has_kvm_clock)
		vm->kvmclock_ns = l->kvm_clock_ns;
	return ret;
}

static int read_all(struct vm *vm, struct loading *l, const struct buf *b, unsigned flags,
		    struct api_error *err)
{
	int ret = read_index((const uint8_t *)b->data, b->len, &l->index, err);

	if (!ret)
		ret = check_machine(vm, &l->index, flags, err);
	if (!ret)
		ret = decode_vcpus(vm, l, err);
	if (!ret)
		ret = check_devices(vm, &l->index, err);
	return ret ? ret : check_unknown(vm, l, err);
}

/* Back to what the machine was: its own state is one that loads. */
static void restore(struct vm *vm, struct loading *l, const struct buf *before)
{
	struct api_error none;

	if (!read_all(vm, l, before, 0, &none) && !load_all(vm, l, &none))
		return;
	vm_request_end(vm, VM_REASON_ENGINE, 0, 0, "after a state that could not be loaded: %s",
		       none.text);
}

int vm_state_load(struct vm *vm, const void *data, size_t len, unsigned flags,
		  struct api_error *err)
{
	struct loading *l = calloc(1, sizeof(*l) + vm->cpus * sizeof(l->cpu[0]));
	const struct buf given = {.data = (char *)(uintptr_t)data, .len = len};
	struct buf before = {0};
	int ret;

	if (!l)
		return api_error_set(err, API_KIND_INTERNAL, "out of memory");
	ret = read_all(vm, l, &given, flags, err);
	if (!ret)
		ret = vm_state_save(vm, &before, err);
	if (!ret) {
		ret = load_all(vm, l, err);
		if (ret)
			restore(vm, l, &before);
	}
	buf_finish(&before);
	free(l);
	return ret;
}

/* ---- comparing ----------------------------------------------------------------------------------
 */

struct comparison {
	void (*fn)(void *arg, const struct vm_state_diff *diff);
	void *arg;
	int count;
};

static void tell(struct comparison *c, const char *what, const char *a, const char *b)
{
	const struct vm_state_diff diff = {what, a, b};

	c->count++;
	if (c->fn)
		c->fn(c->arg, &diff);
}

static void tell_numbers(struct comparison *c, const struct section *s, const struct state_field *f,
			 unsigned element, const uint64_t value[2])
{
	char what[96], text[2][24];
	int n = snprintf(what, sizeof(what), "%s%u.%s", s->head.name, s->head.instance, f->name);

	if (f->count > 1)
		snprintf(what + n, sizeof(what) - (size_t)n, "[%u]", element);
	for (unsigned k = 0; k < 2; k++)
		snprintf(text[k], sizeof(text[k]), "0x%" PRIx64, value[k]);
	tell(c, what, text[0], text[1]);
}

static void compare_field(struct comparison *c, const struct section *a, const struct section *b,
			  const struct state_field *f)
{
	for (unsigned k = 0; k < f->count; k++) {
		size_t at = f->offset + (size_t)k * f->stride;
		uint64_t value[2] = {0};

		if (at + f->size > a->head.length || at + f->size > b->head.length)
			return;
		memcpy(&value[0], a->data + at, f->size);
		memcpy(&value[1], b->data + at, f->size);
		if (value[0] != value[1])
			tell_numbers(c, a, f, k, value);
	}
}

static void compare_sections(struct comparison *c, const struct section *a, const struct section *b)
{
	struct state_field fields[STATE_FIELDS_MAX];
	bool is_vcpu = !strcmp(a->head.name, "vcpu") && a->head.length == state_cpu_size() &&
		       b->head.length == a->head.length;
	unsigned count =
		is_vcpu ? state_cpu_fields(fields) : state_device_fields(a->head.name, fields);
	bool is_machine = !strcmp(a->head.name, "machine");
	char what[40];

	/* CPUID has its own words: vm_cpuid_differences(). */
	if (is_machine) {
		memcpy(fields, machine_fields, sizeof(machine_fields));
		count = ARRAY_SIZE(machine_fields);
	}
	if (count && a->head.version == b->head.version &&
	    (is_machine || a->head.length == b->head.length)) {
		for (unsigned n = 0; n < count; n++)
			if (!is_vcpu || state_cpu_visible(a->data, b->data, &fields[n]))
				compare_field(c, a, b, &fields[n]);
		return;
	}
	if (a->head.length == b->head.length && !memcmp(a->data, b->data, a->head.length))
		return;
	snprintf(what, sizeof(what), "%s%u", a->head.name, a->head.instance);
	tell(c, what, "other bytes", "other bytes");
}

static void compare_indices(struct comparison *c, const struct index *a, const struct index *b)
{
	char what[40];

	for (unsigned n = 0; n < a->count; n++) {
		const struct section_header *h = &a->section[n].head;
		const struct section *other = find(b, h->name, h->instance);

		if (other) {
			compare_sections(c, &a->section[n], other);
			continue;
		}
		snprintf(what, sizeof(what), "%s%u", h->name, h->instance);
		tell(c, what, "present", "absent");
	}
	for (unsigned n = 0; n < b->count; n++) {
		const struct section_header *h = &b->section[n].head;

		if (find(a, h->name, h->instance))
			continue;
		snprintf(what, sizeof(what), "%s%u", h->name, h->instance);
		tell(c, what, "absent", "present");
	}
}

int vm_state_compare(const struct buf *a, const struct buf *b,
		     void (*fn)(void *arg, const struct vm_state_diff *diff), void *arg)
{
	struct index *x = calloc(2, sizeof(*x));
	struct comparison c = {.fn = fn, .arg = arg};
	struct api_error err;
	int ret = -ENOMEM;

	if (!x)
		return ret;
	ret = -EINVAL;
	if (!read_index((const uint8_t *)a->data, a->len, &x[0], &err) &&
	    !read_index((const uint8_t *)b->data, b->len, &x[1], &err)) {
		compare_indices(&c, &x[0], &x[1]);
		ret = c.count;
	}
	free(x);
	return ret;
}
