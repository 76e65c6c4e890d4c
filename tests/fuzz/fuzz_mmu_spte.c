/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target over entries and their words: any bits at any level, in a buffer of any size;
 * and what is made of parts comes apart into the same.
 */
#include <stdlib.h>
#include <string.h>

#include "mmu/inspect.h"
#include "mmu/spte.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

/* As snprintf(): the length does not depend on the room, and the text ends within it. */
static void check_words(int (*format)(unsigned kind, unsigned level, uint64_t raw, char *buf,
				      size_t size),
			unsigned kind, unsigned level, uint64_t raw)
{
	char whole[512];
	int len = format(kind, level, raw, whole, sizeof(whole));

	check(len > 0 && (size_t)len < sizeof(whole) && strlen(whole) == (size_t)len);
	check(format(kind, level, raw, NULL, 0) == len);
	for (size_t room = 1; room <= (size_t)len + 1; room += 1 + room / 4) {
		char *part = malloc(room);

		check(part);
		check(format(kind, level, raw, part, room) == len);
		check(memchr(part, '\0', room));
		check(!strncmp(part, whole, strlen(part)));
		free(part);
	}
}

static int guest_words(unsigned kind, unsigned level, uint64_t raw, char *buf, size_t size)
{
	return mmu_format_guest_entry((enum mmu_paging)kind, level, raw, buf, size);
}

static int our_words(unsigned kind, unsigned level, uint64_t raw, char *buf, size_t size)
{
	return mmu_format_spte((enum mmu_format)kind, level, raw, buf, size);
}

static void check_parts(enum mmu_format format, unsigned level, uint64_t raw)
{
	uint64_t pfn = raw >> 12 & (BIT(MMU_HOST_WIDTH - 12) - 1);
	unsigned access = (unsigned)(raw & 7), gen = (unsigned)(raw >> 52);
	uint64_t leaf = spte_make_leaf(format, level, pfn, access | MMU_MAP_USER);
	uint64_t mmio = spte_make_mmio(format, pfn, access, gen);
	uint64_t table = spte_make_table(format, pfn << PAGE_SHIFT);

	check(spte_is_present(leaf, format) && spte_is_leaf(leaf, level) && !spte_is_mmio(leaf));
	check(spte_pfn(leaf) == pfn);
	check(!(leaf & SPTE_W) == !(access & MMU_MAP_WRITE));
	check(spte_is_mmio(mmio) && !spte_is_present(mmio, format));
	check(spte_mmio_gfn(mmio) == pfn && spte_mmio_gen(mmio) == gen % MMIO_GEN_MODULO);
	check(spte_is_present(table, format) && !spte_is_mmio(table));
	check(level == 1 || !spte_is_leaf(table, level));
	/* To take nothing away reduces nothing; to take W away does. */
	check(!spte_is_reduced(leaf, leaf, format));
	check(spte_is_reduced(leaf | SPTE_W, (leaf | SPTE_W) & ~SPTE_W, format));
	if (format != MMU_FORMAT_EPT) {
		check(spte_x86_access(leaf) == (access | MMU_MAP_USER));
		check(spte_x86_access(mmio) == access);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t raw;

	if (size < 1 + sizeof(raw))
		return 0;
	memcpy(&raw, data + 1, sizeof(raw));
	check_words(guest_words, data[0] % (MMU_PAGING_EPT + 1), data[0] >> 5, raw);
	check_words(our_words, data[0] % (MMU_FORMAT_NPT + 1), data[0] >> 5, raw);
	check_parts((enum mmu_format)(data[0] % (MMU_FORMAT_NPT + 1)), 1 + data[0] / 8 % 3, raw);
	return 0;
}
