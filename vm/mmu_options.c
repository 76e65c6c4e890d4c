/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the definition says of the MMU: mechanisms by name, bounds. */
#include "vm/vm_internal.h"

#include <string.h>

static const struct mechanism {
	const char *name;
	uint32_t off;
} mechanisms[] = {
	{"unsync", MMU_NO_UNSYNC},
	{"prefetch", MMU_NO_PREFETCH},
	{"root-cache", MMU_NO_ROOT_CACHE},
	{"flood", MMU_NO_FLOOD},
	{"mmio-cache", MMU_NO_MMIO_CACHE},
	{"targeted", MMU_NO_TARGETED},
	{"collapse", MMU_NO_COLLAPSE},
	{"large", MMU_NO_LARGE},
	{"split", MMU_NO_SPLIT},
	{"eager-split", MMU_NO_EAGER_SPLIT},
	{"parallel", MMU_NO_PARALLEL},
	{"reclaim", MMU_NO_RECLAIM},
};

static const char *mechanism_at(const void *data, size_t i)
{
	return ((const struct mechanism *)data)[i].name;
}

static int unknown(const char *word, size_t len, struct api_error *err)
{
	char name[32] = {0};
	const char *near;

	memcpy(name, word, MIN(len, sizeof(name) - 1));
	near = api_nearest(name, mechanism_at, ARRAY_SIZE(mechanisms), mechanisms);
	if (near)
		return api_error_field(err, "mmu_disable",
				       "unknown mechanism \"%s\": is it \"%s\" that is meant?",
				       name, near);
	return api_error_field(err, "mmu_disable", "unknown mechanism \"%s\"", name);
}

static int disable(const char *words, uint32_t *ret_off, struct api_error *err)
{
	while (*words) {
		size_t len = strcspn(words, ","), i = 0;

		while (i < ARRAY_SIZE(mechanisms) && (strlen(mechanisms[i].name) != len ||
						      memcmp(mechanisms[i].name, words, len)))
			i++;
		if (i == ARRAY_SIZE(mechanisms))
			return unknown(words, len, err);
		*ret_off |= mechanisms[i].off;
		words += len + (words[len] == ',');
	}
	return 0;
}

int vm_mmu_options(const struct machine_def *def, struct engine_config *config,
		   struct api_error *err)
{
	static const uint8_t levels[] = {
		[MACHINE_MMU_PAGE_1G] = 3, [MACHINE_MMU_PAGE_2M] = 2, [MACHINE_MMU_PAGE_4K] = 1};

	config->policy = def->mmu == MACHINE_MMU_SHADOW ? MMU_POLICY_SHADOW : MMU_POLICY_TDP;
	config->tdp_format = def->tdp_format == MACHINE_TDP_NPT ? MMU_FORMAT_NPT : MMU_FORMAT_EPT;
	config->mmu_table_bytes = def->mmu_tables;
	config->mmu_max_level = levels[def->mmu_max_page];
	return def->mmu_disable ? disable(def->mmu_disable, &config->mmu_disable, err) : 0;
}
