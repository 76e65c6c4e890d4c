/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The saved state: what is saved comes back; what is broken, unknown or impossible is refused, with
 * the machine unchanged; the comparison names what differs. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <zlib.h>

#include "state_machine.h"

#define HEADER	16
#define SECTION 48

struct section {
	char name[24];
	uint32_t instance, version, flags, crc;
	uint64_t length;
};

static struct vm *vm;
static struct buf saved;
static struct api_error err;

static int setup(void **state)
{
	vm = state_machine_create();
	saved = (struct buf){0};
	return !vm || vm_state_save(vm, &saved, &err);
}

static int teardown(void **state)
{
	buf_finish(&saved);
	state_machine_destroy(vm);
	return 0;
}

/* ---- editing the bytes ---- */

static struct section *at(struct buf *b, size_t offset)
{
	return (struct section *)(b->data + offset);
}

static size_t find(struct buf *b, const char *name, unsigned instance)
{
	size_t offset = HEADER;

	while (strcmp(at(b, offset)->name, name) != 0 || at(b, offset)->instance != instance)
		offset += SECTION + ALIGN_UP(at(b, offset)->length, (uint64_t)8);
	return offset;
}

static void seal(struct section *s)
{
	s->crc = 0;
	s->crc = (uint32_t)crc32_z(crc32_z(0, (void *)s, SECTION), (void *)(s + 1), s->length);
}

static void insert(struct buf *b, const struct section *s, const char *data)
{
	struct buf out = {0};
	size_t end = find(b, "end", 0);

	buf_append(&out, b->data, end);
	buf_append(&out, s, SECTION);
	buf_append(&out, data, s->length);
	seal((struct section *)(out.data + end));
	buf_append(&out, b->data + end, b->len - end);
	buf_finish(b);
	*b = out;
}

static void drop(struct buf *b, const char *name, unsigned instance)
{
	size_t offset = find(b, name, instance);
	size_t len = SECTION + ALIGN_UP(at(b, offset)->length, (uint64_t)8);

	memmove(b->data + offset, b->data + offset + len, b->len - offset - len);
	b->len -= len;
}

/* It does not load, the error has the word, and the machine is what it was. */
static void refused(struct buf *b, const char *word)
{
	struct buf after = {0};

	assert_true(vm_state_load(vm, b->data, b->len, 0, &err) < 0);
	if (!strstr(err.text, word))
		fail_msg("\"%s\" has no \"%s\"", err.text, word);
	assert_int_equal(vm_state_save(vm, &after, &err), 0);
	assert_int_equal(after.len, saved.len);
	buf_finish(&after);
}

static struct buf copy(void)
{
	struct buf b = {0};

	assert_int_equal(buf_append(&b, saved.data, saved.len), 0);
	return b;
}

/* ---- tests ---- */

static void test_round_trip(void **state)
{
	struct cpu_state *s = state_machine_cpu(vm, 1);
	struct buf changed = {0};

	s->gpr[X86_RSI] = 0x1122334455667788;
	s->lstar = 0xffff800000001000;
	s->fx.xmm[15].q[1] = 7;
	s->ymmh[3][1] = 9;
	s->mtrr_var[15] = 0;
	s->event = (struct cpu_event){.valid = true, .type = CPU_EVENT_EXT_INTR, .vector = 0x41};
	s->nmi_pending = 2;
	s->activity = CPU_HALTED;
	board_pio_write(vm->board, BOARD_PORT_COM1 + 7, 1, 0x5a);
	assert_int_equal(vm_state_save(vm, &changed, &err), 0);
	assert_int_equal(vm_state_load(vm, saved.data, saved.len, 0, &err), 0);
	assert_int_equal(state_machine_cpu(vm, 1)->gpr[X86_RSI], 0);
	assert_int_equal(board_pio_read(vm->board, BOARD_PORT_COM1 + 7, 1), 0);
	assert_int_equal(vm_state_load(vm, changed.data, changed.len, 0, &err), 0);
	s = state_machine_cpu(vm, 1);
	assert_int_equal(s->gpr[X86_RSI], 0x1122334455667788);
	assert_int_equal(s->ymmh[3][1], 9);
	assert_int_equal(s->fx.xmm[15].q[1], 7);
	assert_int_equal(s->event.vector, 0x41);
	assert_int_equal(s->nmi_pending, 2);
	assert_int_equal(s->activity, CPU_HALTED);
	assert_int_equal(board_pio_read(vm->board, BOARD_PORT_COM1 + 7, 1), 0x5a);
	buf_finish(&changed);
}

/* The same machine is saved as the same bytes, whatever lies in what is not state. */
static void test_same_bytes(void **state)
{
	struct buf again = {0};

	state_machine_cpu(vm, 0)->event.vector = 0x77; /* not valid */
	state_machine_cpu(vm, 0)->seg[0].pad = 3;
	state_machine_cpu(vm, 0)->cr8 = 5;
	assert_int_equal(vm_state_save(vm, &again, &err), 0);
	assert_int_equal(again.len, saved.len);
	assert_memory_equal(again.data, saved.data, saved.len);
	buf_finish(&again);
}

static void test_every_cut(void **state)
{
	for (size_t len = 0; len < saved.len; len += len < 4096 ? 1 : 509)
		assert_true(vm_state_load(vm, saved.data, len, 0, &err) < 0);
}

/* A wrong bit anywhere is noticed: in a header, a section, its padding or its name. */
static void test_every_bit(void **state)
{
	struct buf b = copy();
	size_t testdev = find(&b, "testdev", 0) + SECTION;
	unsigned missed = 0;

	for (size_t n = 0; n<b.len; n += n> testdev && n < testdev + 0xff00 ? 4099 : 1) {
		b.data[n] = (char)(b.data[n] ^ 0x10);
		missed += !vm_state_load(vm, b.data, b.len, 0, &err);
		b.data[n] = (char)(b.data[n] ^ 0x10);
	}
	/* What fills a section up to 8 bytes says nothing. */
	assert_true(missed < 8 * 20);
	assert_int_equal(vm_state_load(vm, b.data, b.len, 0, &err), 0);
	buf_finish(&b);
}

static void test_sections(void **state)
{
	const struct section unknown = {.name = "dreams", .version = 1, .length = 8};
	struct section mandatory = unknown;
	struct buf b = copy();

	insert(&b, &unknown, "whatever");
	assert_int_equal(vm_state_load(vm, b.data, b.len, 0, &err), 0);
	insert(&b, &unknown, "whatever");
	refused(&b, "section dreams 0: comes twice");
	buf_finish(&b);
	b = copy();
	mandatory.flags = VM_STATE_MANDATORY;
	insert(&b, &mandatory, "whatever");
	refused(&b, "section dreams 0: it is not known here");
	buf_finish(&b);
	b = copy();
	drop(&b, "vcpu", 1);
	refused(&b, "section vcpu 1: is missing");
	buf_finish(&b);
	b = copy();
	drop(&b, "lapic", 0);
	refused(&b, "section lapic 0: is missing");
	buf_finish(&b);
	b = copy();
	at(&b, find(&b, "pit", 0))->version = 9;
	seal(at(&b, find(&b, "pit", 0)));
	refused(&b, "section pit 0: its version is not known");
	buf_finish(&b);
}

static void test_other_machine(void **state)
{
	struct buf b = copy();
	uint32_t *data = (uint32_t *)(at(&b, find(&b, "machine", 0)) + 1);

	data[0]++;
	seal(at(&b, find(&b, "machine", 0)));
	refused(&b, "another number of vCPUs");
	data[0]--;
	data[2]++;
	seal(at(&b, find(&b, "machine", 0)));
	refused(&b, "another size of memory");
	data[2]--;
	data[6 + 6 + 4] ^= BIT(0); /* leaf 1, ECX: SSE3 */
	seal(at(&b, find(&b, "machine", 0)));
	refused(&b, "sse3");
	assert_int_equal(vm_state_load(vm, b.data, b.len, VM_STATE_OTHER_CPUID, &err), 0);
	buf_finish(&b);
}

/* Values that no processor has, one at a time: each is refused by its name. */
static void test_impossible_registers(void **state)
{
	static const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{"cr0", X86_CR0_PG},
		{"cr0", BIT(33)},
		{"cr4", X86_CR4_PCIDE},
		{"cr4", X86_CR4_VMXE},
		{"cr3", BIT(60)},
		{"efer", BIT(12)},
		{"efer", BIT(1)},
		{"rflags", 0},
		{"rflags", X86_FLAG_ONE | X86_FLAG_VM},
		{"rip", BIT(40)},
		{"cs.attr", 0xa09b},
		{"es.base", BIT(32)},
		{"gs.base", BIT(60)},
		{"lstar", BIT(60)},
		{"fmask", BIT(32)},
		{"pat", 2},
		{"mtrr_def_type", 2},
		{"mxcsr", BIT(16)},
		{"xcr0", 0},
		{"xcr0", BIT(5) | 1},
		{"dr6", BIT(32)},
		{"dr7", BIT(32)},
		{"xss", 1},
		{"debugctl", BIT(2)},
		{"activity", 4},
		{"nmi_pending", 3},
		{"int_shadow_sti", 2},
		{"pending_dbg", BIT(12)},
		{"event.insn_len", 16},
	};
	struct state_field fields[STATE_FIELDS_MAX];
	unsigned n = state_cpu_fields(fields);

	for (unsigned k = 0; k < ARRAY_SIZE(rows); k++) {
		struct buf b = copy();
		struct section *s = at(&b, find(&b, "vcpu", 0));
		char word[8];
		bool found = false;

		for (unsigned f = 0; f < n; f++)
			if (!strcmp(fields[f].name, rows[k].name)) {
				memcpy((char *)(s + 1) + fields[f].offset, &rows[k].value,
				       fields[f].size);
				found = true;
			}
		assert_true(found);
		seal(s);
		/* Segments are told by their own name; RFLAGS with 0 is no event's. */
		snprintf(word, sizeof(word), "%.*s", (int)strcspn(rows[k].name, "."), rows[k].name);
		if (!strncmp(rows[k].name, "event", 5))
			snprintf(word, sizeof(word), "event");
		refused(&b, word);
		buf_finish(&b);
	}
}

/* The engine, or a device, refuses amid loading: everything is as before. */
static void test_undone(void **state)
{
	struct buf b = {0}, after = {0};

	board_pio_write(vm->board, BOARD_PORT_COM1 + 7, 1, 0x77);
	state_machine_cpu(vm, 0)->gpr[0] = 1;
	assert_int_equal(vm_state_save(vm, &b, &err), 0);
	state_machine_refuse(1);
	assert_true(vm_state_load(vm, saved.data, saved.len, 0, &err) < 0);
	assert_non_null(strstr(err.text, "section vcpu 1: it refuses"));
	assert_int_equal(vm_state_save(vm, &after, &err), 0);
	assert_int_equal(vm_state_compare(&b, &after, NULL, NULL), 0);
	assert_false(vm->end_requested);
	buf_finish(&b);
	buf_finish(&after);
}

static char told[512];

static void tell(void *arg, const struct vm_state_diff *d)
{
	size_t len = strlen(told);

	snprintf(told + len, sizeof(told) - len, "%s %s %s\n", d->what, d->a, d->b);
}

static void test_comparison(void **state)
{
	struct cpu_state *s = state_machine_cpu(vm, 1);
	struct buf b = {0};

	told[0] = 0;
	assert_int_equal(vm_state_compare(&saved, &saved, tell, NULL), 0);
	s->cr2 = 0x1000;
	s->mtrr_fix[3] = 6;
	s->seg[X86_GS].base = 0x10;
	board_pio_write(vm->board, BOARD_PORT_COM1 + 7, 1, 0x5a);
	lapic_set_cr8(board_lapic(vm->board, 0), 3);
	assert_int_equal(vm_state_save(vm, &b, &err), 0);
	assert_int_equal(vm_state_compare(&saved, &b, tell, NULL), 5);
	assert_string_equal(told, "vcpu1.gs.base 0x0 0x10\n"
				  "vcpu1.cr2 0x0 0x1000\n"
				  "vcpu1.mtrr_fix[3] 0x0 0x6\n"
				  "serial0.scr 0x0 0x5a\n"
				  "lapic0.tpr 0x0 0x30\n");
	drop(&b, "rtc", 0);
	told[0] = 0;
	assert_int_equal(vm_state_compare(&saved, &b, tell, NULL), 6);
	assert_non_null(strstr(told, "rtc0 present absent"));
	b.data[0] = 'X';
	assert_int_equal(vm_state_compare(&saved, &b, tell, NULL), -EINVAL);
	buf_finish(&b);
}

/* What an unusable segment hides is no difference. */
static void test_unusable_segment(void **state)
{
	struct cpu_seg *seg = &state_machine_cpu(vm, 0)->seg[X86_FS];
	struct buf a = {0}, b = {0};

	seg->attr = X86_ATTR_UNUSABLE;
	assert_int_equal(vm_state_save(vm, &a, &err), 0);
	*seg = (struct cpu_seg){.attr = X86_ATTR_UNUSABLE | 0xf3, .limit = 0xffff};
	assert_int_equal(vm_state_save(vm, &b, &err), 0);
	assert_int_equal(vm_state_compare(&a, &b, NULL, NULL), 0);
	seg->base = 0x1234; /* FS has one all the same */
	buf_truncate(&b, 0);
	assert_int_equal(vm_state_save(vm, &b, &err), 0);
	assert_int_equal(vm_state_compare(&a, &b, NULL, NULL), 1);
	buf_finish(&a);
	buf_finish(&b);
}

/* Every device has names for what it saves. */
static void test_all_devices_have_fields(void **state)
{
	struct state_field fields[STATE_FIELDS_MAX];
	struct board_state_row row;

	for (unsigned i = 0; !board_state_row(vm->board, i, &row); i++) {
		unsigned n = state_device_fields(row.desc->name, fields);

		assert_true(n > 0);
		for (unsigned k = 0; k < n; k++)
			assert_true(fields[k].offset + fields[k].size +
					    (size_t)fields[k].stride * (fields[k].count - 1) <=
				    row.desc->size);
	}
}

static void test_cpuid_differences(void **state)
{
	struct cpu_cpuid a[] = {{1, CPU_CPUID_ANY, 0, 0, BIT(0) | BIT(27), 0}, {7, 0, 0, 0, 0, 0}};
	struct cpu_cpuid b[] = {{1, CPU_CPUID_ANY, 0, 0, BIT(26), 0}, {7, 0, 0, BIT(16), 0, 0}};
	char text[200];

	assert_false(vm_cpuid_differences(a, 2, a, 2, text, sizeof(text)));
	assert_string_equal(text, "");
	assert_true(vm_cpuid_differences(a, 2, b, 2, text, sizeof(text)));
	assert_non_null(strstr(text, "less sse3"));
	assert_non_null(strstr(text, "more xsave"));
	/* OSXSAVE follows CR4. */
	a[0].ecx ^= BIT(0);
	assert_false(vm_cpuid_differences(a, 1, &b[1], 0, text, sizeof(text)));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_round_trip),
		TEST(test_same_bytes),
		TEST(test_every_cut),
		TEST(test_every_bit),
		TEST(test_sections),
		TEST(test_other_machine),
		TEST(test_impossible_registers),
		TEST(test_undone),
		TEST(test_comparison),
		TEST(test_unusable_segment),
		TEST(test_all_devices_have_fields),
		TEST(test_cpuid_differences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
