/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hostile saved states: whole ones, and sections with good checksums around any data. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "tests/unit/vm/state_machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

#define HEADER	16
#define SECTION 48

struct section {
	char name[24];
	uint32_t instance, version, flags, crc;
	uint64_t length;
};

static void must(bool good)
{
	if (!good)
		abort();
}

/* What was taken is a state that saves, and loads again as the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vm *vm = state_machine_create();
	struct buf first = {0}, again = {0};
	struct api_error err;

	must(vm != NULL);
	if (!vm_state_load(vm, data, size, 0, &err)) {
		must(!vm_state_save(vm, &first, &err));
		must(!vm_state_load(vm, first.data, first.len, 0, &err));
		must(!vm_state_save(vm, &again, &err));
		must(vm_state_compare(&first, &again, NULL, NULL) == 0);
	}
	must(!vm->end_requested);
	buf_finish(&first);
	buf_finish(&again);
	state_machine_destroy(vm);
	return 0;
}

/* Good checksums for whatever stands in the sections, as far as they can be followed. */
static void seal_all(uint8_t *data, size_t size)
{
	size_t at = HEADER;

	while (size >= SECTION && at <= size - SECTION) {
		struct section s;

		memcpy(&s, data + at, SECTION);
		if (s.length > size - at - SECTION)
			return;
		s.crc = 0;
		s.crc = (uint32_t)crc32_z(crc32_z(0, (void *)&s, SECTION), data + at + SECTION,
					  s.length);
		memcpy(data + at, &s, SECTION);
		at += SECTION + ALIGN_UP(s.length, (uint64_t)8);
	}
}

/* Nothing to begin with: a state of ours. Then data of sections is changed more often than form. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	struct vm *vm;
	struct buf b = {0};
	struct api_error err;
	size_t at, len;

	if (size < HEADER + SECTION) {
		vm = state_machine_create();
		if (vm && !vm_state_save(vm, &b, &err) && b.len <= max) {
			memcpy(data, b.data, b.len);
			size = b.len;
		}
		buf_finish(&b);
		if (vm)
			state_machine_destroy(vm);
		return size;
	}
	if (seed % 8 == 0) {
		size = LLVMFuzzerMutate(data, size, max);
	} else {
		at = seed / 8 % (size - 1);
		len = MIN(size - at, (size_t)(1 + seed % 64));
		LLVMFuzzerMutate(data + at, len, len);
	}
	if (seed % 4)
		seal_all(data, size);
	return size;
}
