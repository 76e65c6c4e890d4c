/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The processor model: an Intel server core without AVX-512, TSX, PMU and VMX; or one that AMD
 * signs. */
#include "engine/cpu_model.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Family 6, model 6Ah (a server core that newer kernels know as not needing most mitigations),
 * stepping 6. */
#define SIGNATURE 0x000606a6u
/* Family 19h, model 21h. */
#define SIGNATURE_AMD 0x00a20f12u
#define BASIC_MAX     0x16u
#define BASIC_MAX_AMD 0xdu
#define EXT_MAX	      0x80000008u
#define HYPER_LEAF    0x40000000u
#define XSAVE_MIN     576u /* legacy region and header; YMM and PKRU follow */
#define YMM_BYTES     256u
#define PKRU_BYTES    8u

enum { EAX, EBX, ECX, EDX };

/*
 * A feature by name, and where CPUID shows it. HOST: the interpreter lets the host execute it. AVX:
 * so too, and it is shown only with AVX and XSAVE. KVM: the kernel's, when it is wished for.
 */
enum { ALWAYS, HOST, AVX, INTEL, WISH, KVM };
struct feature {
	const char *name;
	uint32_t leaf, subleaf;
	uint8_t reg, bit;
	uint8_t need;
};
static const struct feature features[] = {
	{"fpu", 1, 0, EDX, 0, ALWAYS},
	{"vme", 1, 0, EDX, 1, ALWAYS},
	{"de", 1, 0, EDX, 2, ALWAYS},
	{"pse", 1, 0, EDX, 3, ALWAYS},
	{"tsc", 1, 0, EDX, 4, ALWAYS},
	{"msr", 1, 0, EDX, 5, ALWAYS},
	{"pae", 1, 0, EDX, 6, ALWAYS},
	{"mce", 1, 0, EDX, 7, ALWAYS},
	{"cx8", 1, 0, EDX, 8, ALWAYS},
	{"apic", 1, 0, EDX, 9, ALWAYS},
	{"sep", 1, 0, EDX, 11, ALWAYS},
	{"mtrr", 1, 0, EDX, 12, ALWAYS},
	{"pge", 1, 0, EDX, 13, ALWAYS},
	{"mca", 1, 0, EDX, 14, ALWAYS},
	{"cmov", 1, 0, EDX, 15, ALWAYS},
	{"pat", 1, 0, EDX, 16, ALWAYS},
	{"pse36", 1, 0, EDX, 17, ALWAYS},
	{"clfsh", 1, 0, EDX, 19, ALWAYS},
	{"mmx", 1, 0, EDX, 23, ALWAYS},
	{"fxsr", 1, 0, EDX, 24, ALWAYS},
	{"sse", 1, 0, EDX, 25, ALWAYS},
	{"sse2", 1, 0, EDX, 26, ALWAYS},
	{"sse3", 1, 0, ECX, 0, HOST},
	{"pclmul", 1, 0, ECX, 1, HOST},
	{"ssse3", 1, 0, ECX, 9, HOST},
	{"fma", 1, 0, ECX, 12, AVX},
	{"cx16", 1, 0, ECX, 13, HOST},
	{"pcid", 1, 0, ECX, 17, ALWAYS},
	{"sse4.1", 1, 0, ECX, 19, HOST},
	{"sse4.2", 1, 0, ECX, 20, HOST},
	{"x2apic", 1, 0, ECX, 21, ALWAYS},
	{"movbe", 1, 0, ECX, 22, ALWAYS},
	{"popcnt", 1, 0, ECX, 23, HOST},
	{"tsc-deadline", 1, 0, ECX, 24, ALWAYS},
	{"aes", 1, 0, ECX, 25, HOST},
	{"xsave", 1, 0, ECX, 26, ALWAYS},
	{"avx", 1, 0, ECX, 28, AVX},
	{"f16c", 1, 0, ECX, 29, AVX},
	{"rdrand", 1, 0, ECX, 30, ALWAYS},
	{"hypervisor", 1, 0, ECX, 31, ALWAYS},
	{"arat", 6, 0, EAX, 2, ALWAYS},
	{"fsgsbase", 7, 0, EBX, 0, ALWAYS},
	{"tsc-adjust", 7, 0, EBX, 1, ALWAYS},
	{"bmi1", 7, 0, EBX, 3, HOST},
	{"avx2", 7, 0, EBX, 5, AVX},
	{"fdp-excptn-only", 7, 0, EBX, 6, HOST},
	{"smep", 7, 0, EBX, 7, ALWAYS},
	{"bmi2", 7, 0, EBX, 8, HOST},
	{"erms", 7, 0, EBX, 9, ALWAYS},
	{"invpcid", 7, 0, EBX, 10, ALWAYS},
	{"fcs-fds-deprecated", 7, 0, EBX, 13, HOST},
	{"rdseed", 7, 0, EBX, 18, ALWAYS},
	{"adx", 7, 0, EBX, 19, HOST},
	{"smap", 7, 0, EBX, 20, ALWAYS},
	{"clflushopt", 7, 0, EBX, 23, ALWAYS},
	{"clwb", 7, 0, EBX, 24, ALWAYS},
	{"sha", 7, 0, EBX, 29, HOST},
	{"umip", 7, 0, ECX, 2, ALWAYS},
	{"pku", 7, 0, ECX, 3, ALWAYS},
	{"la57", 7, 0, ECX, 16, WISH},
	{"rdpid", 7, 0, ECX, 22, ALWAYS},
	{"fsrm", 7, 0, EDX, 4, ALWAYS},
	{"serialize", 7, 0, EDX, 14, ALWAYS},
	/* With ARCH_CAPABILITIES' IBRS_ALL: a guest then needs no retpolines. */
	{"spec-ctrl", 7, 0, EDX, 26, INTEL},
	{"arch-capabilities", 7, 0, EDX, 29, INTEL},
	{"xsaveopt", 0xd, 1, EAX, 0, ALWAYS},
	{"xsavec", 0xd, 1, EAX, 1, ALWAYS},
	{"xgetbv1", 0xd, 1, EAX, 2, ALWAYS},
	{"xsaves", 0xd, 1, EAX, 3, ALWAYS},
	{"kvmclock", 0x40000001, 0, EAX, 3, KVM},
	{"lahf-lm", 0x80000001, 0, ECX, 0, ALWAYS},
	{"abm", 0x80000001, 0, ECX, 5, HOST},
	{"prefetchw", 0x80000001, 0, ECX, 8, ALWAYS},
	{"syscall", 0x80000001, 0, EDX, 11, ALWAYS},
	{"nx", 0x80000001, 0, EDX, 20, ALWAYS},
	{"gbpages", 0x80000001, 0, EDX, 26, ALWAYS},
	{"rdtscp", 0x80000001, 0, EDX, 27, ALWAYS},
	{"lm", 0x80000001, 0, EDX, 29, ALWAYS},
	{"invtsc", 0x80000007, 0, EDX, 8, ALWAYS},
};
static_assert(ARRAY_SIZE(features) <= 128, "struct engine_cpu_model.off has two words");

static bool is_off(const struct engine_cpu_model *m, unsigned row)
{
	return m->off[row / 64] >> row % 64 & 1;
}

static void set_off(struct engine_cpu_model *m, unsigned row, bool off)
{
	if (off)
		m->off[row / 64] |= BIT(row % 64);
	else
		m->off[row / 64] &= ~BIT(row % 64);
}

static bool host_has(const struct feature *f)
{
	uint32_t r[4];

	if (!__get_cpuid_count(f->leaf, f->subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX]))
		return false;
	return r[f->reg] >> f->bit & 1;
}

static int row_named(const char *name, size_t len);

static bool is_shown(const struct engine_cpu_model *m, unsigned row)
{
	const struct feature *f = &features[row];

	if (is_off(m, row))
		return false;
	if (f->need == AVX) /* the compiler's function knows whether the host's kernel saves YMM */
		return __builtin_cpu_supports("avx") && host_has(f) &&
		       engine_cpu_model_shows(m, "xsave") &&
		       !is_off(m, (unsigned)row_named("avx", 3));
	if (f->need == INTEL)
		return !m->amd;
	if (f->need == KVM)
		return m->kvm && !m->common;
	return f->need != HOST || host_has(f);
}

void engine_cpu_model_init(struct engine_cpu_model *m, unsigned vcpus, uint64_t tsc_hz)
{
	*m = (struct engine_cpu_model){
		.vcpus = vcpus,
		.tsc_hz = tsc_hz,
		.crystal_hz = ENGINE_CRYSTAL_HZ,
		.maxphyaddr = 46,
	};
	for (unsigned n = 0; n < ARRAY_SIZE(features); n++)
		set_off(m, n, features[n].need == WISH || features[n].need == KVM);
}

static int row_named(const char *name, size_t len)
{
	for (unsigned n = 0; n < ARRAY_SIZE(features); n++) {
		if (strlen(features[n].name) == len && !memcmp(features[n].name, name, len))
			return (int)n;
	}
	return -EINVAL;
}

/* "name=value" with this name? Its value and how long it is, or NULL. */
static const char *value_of(const char *word, size_t len, const char *name, size_t *ret_len)
{
	size_t n = strlen(name);

	if (len <= n || memcmp(word, name, n) || word[n] != '=')
		return NULL;
	*ret_len = len - n - 1;
	return word + n + 1;
}

static bool is_word(const char *value, size_t len, const char *word)
{
	return len == strlen(word) && !memcmp(value, word, len);
}

static bool take_word(struct engine_cpu_model *m, const char *word, size_t len)
{
	size_t n;
	const char *v;
	int row;

	if (len > 1 && (*word == '-' || *word == '+')) {
		row = row_named(word + 1, len - 1);
		if (row >= 0)
			set_off(m, (unsigned)row, *word == '-');
		return row >= 0;
	}
	if (is_word(word, len, "common")) {
		m->common = true;
		return true;
	}
	v = value_of(word, len, "vendor", &n);
	if (v) {
		m->amd = is_word(v, n, "AuthenticAMD");
		return m->amd || is_word(v, n, "GenuineIntel");
	}
	v = value_of(word, len, "maxphyaddr", &n);
	if (!v || n != 2 || v[0] < '0' || v[0] > '9' || v[1] < '0' || v[1] > '9')
		return false;
	m->maxphyaddr = (uint8_t)((v[0] - '0') * 10 + v[1] - '0');
	return m->maxphyaddr >= 32 && m->maxphyaddr <= 52;
}

int engine_cpu_model_mask(struct engine_cpu_model *m, const char *text, const char **ret_bad)
{
	struct engine_cpu_model new = *m;

	while (*text) {
		size_t len = strcspn(text, ",");

		if (!take_word(&new, text, len)) {
			if (ret_bad)
				*ret_bad = text;
			return -EINVAL;
		}
		text += len + (text[len] == ',');
	}
	*m = new;
	return 0;
}

static const struct cpu_cpuid *leaf_of(const struct cpu_cpuid *leaves, unsigned n, uint32_t leaf,
				       uint32_t subleaf)
{
	for (unsigned k = 0; k < n; k++)
		if (leaves[k].leaf == leaf &&
		    (leaves[k].subleaf == subleaf || leaves[k].subleaf == CPU_CPUID_ANY))
			return &leaves[k];
	return NULL;
}

static uint32_t *reg_of(struct cpu_cpuid *e, unsigned reg)
{
	return reg == EAX ? &e->eax : reg == EBX ? &e->ebx : reg == ECX ? &e->ecx : &e->edx;
}

void engine_cpu_model_limit(struct engine_cpu_model *m, const struct cpu_cpuid *leaves, unsigned n)
{
	const struct cpu_cpuid *widths = leaf_of(leaves, n, 0x80000008u, 0);

	for (unsigned k = 0; k < ARRAY_SIZE(features); k++) {
		const struct feature *f = &features[k];
		const struct cpu_cpuid *e = leaf_of(leaves, n, f->leaf, f->subleaf);
		struct cpu_cpuid copy = e ? *e : (struct cpu_cpuid){0};

		if (!(*reg_of(&copy, f->reg) >> f->bit & 1))
			set_off(m, k, true);
	}
	if (widths && (widths->eax & 0xff) >= 32)
		m->maxphyaddr = (uint8_t)MIN((uint32_t)m->maxphyaddr, widths->eax & 0xff);
}

unsigned engine_cpu_model_missing(const struct engine_cpu_model *a,
				  const struct engine_cpu_model *b, char *names, size_t size)
{
	unsigned count = 0;
	size_t len = 0;

	if (size)
		names[0] = 0;
	for (unsigned k = 0; k < ARRAY_SIZE(features); k++) {
		if (!is_shown(a, k) || is_shown(b, k))
			continue;
		if (len < size)
			len += (size_t)snprintf(names + len, size - len, "%s%s", count ? " " : "",
						features[k].name);
		count++;
	}
	if (a->maxphyaddr > b->maxphyaddr) {
		if (len < size)
			snprintf(names + len, size - len, "%smaxphyaddr=%u", count ? " " : "",
				 a->maxphyaddr);
		count++;
	}
	return count;
}

static const char *name_of(const struct cpu_cpuid *e, unsigned reg, unsigned bit)
{
	for (unsigned k = 0; k < ARRAY_SIZE(features); k++) {
		const struct feature *f = &features[k];

		if (f->leaf == e->leaf && f->reg == reg && f->bit == bit &&
		    (e->subleaf == f->subleaf || e->subleaf == CPU_CPUID_ANY))
			return f->name;
	}
	return NULL;
}

unsigned engine_cpu_feature_names(const struct cpu_cpuid *leaves, unsigned n, char *names,
				  size_t size)
{
	unsigned count = 0, others = 0;
	size_t len = 0;

	if (size)
		names[0] = 0;
	for (unsigned k = 0; k < n * 4 * 32; k++) {
		struct cpu_cpuid e = leaves[k / 128];
		unsigned reg = k / 32 % 4;
		const char *name = name_of(&e, reg, k % 32);

		if (!(*reg_of(&e, reg) >> k % 32 & 1))
			continue;
		count++;
		others += !name;
		if (name && len < size)
			len += (size_t)snprintf(names + len, size - len, "%s%s", len ? " " : "",
						name);
	}
	if (others && len < size)
		snprintf(names + len, size - len, "%s%u others", len ? ", " : "", others);
	return count;
}

/* ---- leaves -------------------------------------------------------------------------------------
 */

struct leaves {
	const struct engine_cpu_model *m;
	struct cpu_cpuid *out;
	unsigned n;
};

static struct cpu_cpuid *add(struct leaves *l, uint32_t leaf, uint32_t subleaf, const uint32_t r[4])
{
	struct cpu_cpuid *e = &l->out[l->n++];

	*e = (struct cpu_cpuid){leaf, subleaf, r[EAX], r[EBX], r[ECX], r[EDX]};
	for (unsigned n = 0; n < ARRAY_SIZE(features); n++) {
		const struct feature *f = &features[n];
		uint32_t bit = 1u << f->bit;

		if (f->leaf != leaf ||
		    (subleaf == CPU_CPUID_ANY ? f->subleaf != 0 : f->subleaf != subleaf) ||
		    !is_shown(l->m, n))
			continue;
		*reg_of(e, f->reg) |= bit;
	}
	return e;
}

#define ADD(l, leaf, subleaf, a, b, c, d)                                                          \
	add(l, leaf, subleaf,                                                                      \
	    (const uint32_t[4]){(uint32_t)(a), (uint32_t)(b), (uint32_t)(c), (uint32_t)(d)})

bool engine_cpu_model_shows(const struct engine_cpu_model *m, const char *name)
{
	int row = row_named(name, strlen(name));

	return row >= 0 && is_shown(m, (unsigned)row);
}

/* Bits of an APIC id that tell processors of a package apart. */
static unsigned id_bits(unsigned vcpus)
{
	unsigned bits = 0;

	while (1u << bits < vcpus)
		bits++;
	return bits;
}

static void add_text(struct leaves *l, uint32_t leaf, const char *text, size_t len)
{
	uint32_t r[4] = {0};

	memcpy(r, text, MIN(len, sizeof(r)));
	add(l, leaf, CPU_CPUID_ANY, r);
}

/* A level of cache. @bits: of the APIC id, within which processors share it. */
static void add_cache(struct leaves *l, unsigned sub, unsigned type_level, unsigned sets,
		      unsigned bits)
{
	unsigned ways = type_level >> 5 == 1 ? 8 : 16;
	unsigned cores = MIN((1u << id_bits(l->m->vcpus)) - 1, 63u);

	ADD(l, 4, sub, type_level | BIT(8) | ((1u << bits) - 1) << 14 | cores << 26,
	    63 | (ways - 1) << 22, sets - 1, 0);
}

static void add_caches(struct leaves *l)
{
	add_cache(l, 0, 1 | 1 << 5, 64, 0);			  /* 32 KiB data */
	add_cache(l, 1, 2 | 1 << 5, 64, 0);			  /* 32 KiB instructions */
	add_cache(l, 2, 3 | 2 << 5, 1024, 0);			  /* 1 MiB */
	add_cache(l, 3, 3 | 3 << 5, 16384, id_bits(l->m->vcpus)); /* 16 MiB, shared */
	ADD(l, 4, 4, 0, 0, 0, 0);
}

static void add_threads(struct leaves *l, unsigned id)
{
	unsigned bits = id_bits(l->m->vcpus);

	ADD(l, 0xb, 0, 0, 1, 1 << 8 | 0, id);
	ADD(l, 0xb, 1, bits, l->m->vcpus, 2 << 8 | 1, id);
}

static void add_xsave(struct leaves *l)
{
	bool pku = engine_cpu_model_shows(l->m, "pku"), avx = engine_cpu_model_shows(l->m, "avx");
	uint32_t pkru_offset = XSAVE_MIN + (avx ? YMM_BYTES : 0);
	uint32_t size = pkru_offset + (pku ? PKRU_BYTES : 0);
	uint64_t components =
		X86_XCR0_X87 | X86_XCR0_SSE | (avx ? X86_XCR0_AVX : 0) | (pku ? X86_XCR0_PKRU : 0);

	if (!engine_cpu_model_shows(l->m, "xsave")) {
		ADD(l, 0xd, CPU_CPUID_ANY, 0, 0, 0, 0);
		return;
	}
	ADD(l, 0xd, 0, components, size, size, 0);
	ADD(l, 0xd, 1, 0, 0, 0, 0);
	if (avx)
		ADD(l, 0xd, 2, YMM_BYTES, XSAVE_MIN, 0, 0);
	if (pku)
		ADD(l, 0xd, 9, PKRU_BYTES, pkru_offset, 0, 0);
}

/*
 * TSC frequency = crystal * numerator / denominator, the nearest fraction whose product with the
 * crystal in kHz stays within 32 bits, as Linux computes it.
 */
static void add_tsc(struct leaves *l)
{
	uint64_t crystal = l->m->crystal_hz / 1000, tsc = l->m->tsc_hz / 1000, best = ~0ull;
	uint32_t num = 0, den = 1, mhz = (uint32_t)(l->m->tsc_hz / 1000000);

	for (uint64_t d = 1; crystal && d <= 65536; d++) {
		uint64_t n = (tsc * d + crystal / 2) / crystal, got, off;

		if (n * crystal > 0xffffffffull)
			break;
		got = crystal * n * 1000 / d;
		off = got > l->m->tsc_hz ? got - l->m->tsc_hz : l->m->tsc_hz - got;
		if (n && off < best) {
			best = off;
			num = (uint32_t)n;
			den = (uint32_t)d;
		}
	}
	ADD(l, 0x15, CPU_CPUID_ANY, num ? den : 0, num, num ? l->m->crystal_hz : 0, 0);
	ADD(l, 0x16, CPU_CPUID_ANY, mhz & 0xffff, mhz & 0xffff, 100, 0);
}

static void add_vendor(struct leaves *l, uint32_t leaf, uint32_t max)
{
	if (l->m->amd)
		ADD(l, leaf, CPU_CPUID_ANY, max, 0x68747541, 0x444d4163, 0x69746e65);
	else if (leaf == 0)
		ADD(l, leaf, CPU_CPUID_ANY, max, 0x756e6547, 0x6c65746e, 0x49656e69);
	else
		ADD(l, leaf, CPU_CPUID_ANY, max, 0, 0, 0);
}

/* AMD repeats most of leaf 1's EDX, and tells caches and cores its own way. */
static void add_extended_amd(struct leaves *l)
{
	struct cpu_cpuid *e = ADD(l, 0x80000001u, CPU_CPUID_ANY, SIGNATURE_AMD, 0, 0, 0);

	for (unsigned n = 0; n < l->n; n++) {
		if (l->out[n].leaf == 1)
			e->edx |= l->out[n].edx & 0x0183f3ffu;
	}
	if (l->m->vcpus > 1)
		e->ecx |= BIT(1);
	ADD(l, 0x80000005u, CPU_CPUID_ANY, 0, 0, 32u << 24 | 8 << 16 | 1 << 8 | 64,
	    32u << 24 | 8 << 16 | 1 << 8 | 64);
}

static void add_extended(struct leaves *l)
{
	static const char brand[48] = "Umbra software processor";
	unsigned linear = engine_cpu_model_shows(l->m, "la57") ? 57 : 48;

	add_vendor(l, 0x80000000u, EXT_MAX);
	if (l->m->amd) {
		add_extended_amd(l);
	} else {
		ADD(l, 0x80000001u, CPU_CPUID_ANY, 0, 0, 0, 0);
		ADD(l, 0x80000005u, CPU_CPUID_ANY, 0, 0, 0, 0);
	}
	for (unsigned n = 0; n < 3; n++)
		add_text(l, 0x80000002u + n, brand + 16 * n, 16);
	ADD(l, 0x80000006u, CPU_CPUID_ANY, 0, 0, 1024u << 16 | 8 << 12 | 64, 0);
	ADD(l, 0x80000007u, CPU_CPUID_ANY, 0, 0, 0, 0);
	ADD(l, 0x80000008u, CPU_CPUID_ANY, l->m->maxphyaddr | linear << 8, 0,
	    l->m->amd ? (l->m->vcpus - 1) | id_bits(l->m->vcpus) << 12 : 0, 0);
}

/* "KVMKVMKVM"; the clock's MSRs of 0x4b564d00, and that its readings agree between processors. */
static void add_kvm(struct leaves *l)
{
	ADD(l, HYPER_LEAF, CPU_CPUID_ANY, HYPER_LEAF + 1, 0x4b4d564b, 0x564b4d56, 0x4d);
	ADD(l, HYPER_LEAF + 1, CPU_CPUID_ANY, BIT(24), 0, 0, 0);
}

unsigned engine_cpu_model_cpuid(const struct engine_cpu_model *m, unsigned id,
				struct cpu_cpuid out[ENGINE_CPUID_MAX])
{
	static const uint8_t empty[] = {3,   5,	   8,	 9,    0xa,  0xc, 0xe,
					0xf, 0x10, 0x11, 0x12, 0x13, 0x14};
	struct leaves l = {.m = m, .out = out};
	unsigned siblings = 1u << id_bits(m->vcpus);
	struct cpu_cpuid *e;

	add_vendor(&l, 0, m->amd ? BASIC_MAX_AMD : BASIC_MAX);
	e = ADD(&l, 1, CPU_CPUID_ANY, m->amd ? SIGNATURE_AMD : SIGNATURE,
		8 << 8 | MIN(siblings, 255u) << 16 | id << 24, 0, 0);
	if (m->vcpus > 1)
		e->edx |= BIT(28);
	if (m->amd) {
		ADD(&l, 2, CPU_CPUID_ANY, 0, 0, 0, 0);
		ADD(&l, 4, CPU_CPUID_ANY, 0, 0, 0, 0);
		add_threads(&l, id);
	} else {
		ADD(&l, 2, CPU_CPUID_ANY, 0xff01, 0xf0, 0, 0); /* see leaf 4 */
		add_caches(&l);
		add_threads(&l, id);
	}
	ADD(&l, 6, CPU_CPUID_ANY, 0, 0, 0, 0);
	ADD(&l, 7, 0, 0, 0, 0, 0);
	for (unsigned n = 0; n < ARRAY_SIZE(empty); n++)
		ADD(&l, empty[n], CPU_CPUID_ANY, 0, 0, 0, 0);
	add_xsave(&l);
	if (!m->amd)
		add_tsc(&l);
	if (engine_cpu_model_shows(m, "kvmclock"))
		add_kvm(&l);
	else if (engine_cpu_model_shows(m, "hypervisor"))
		ADD(&l, HYPER_LEAF, CPU_CPUID_ANY, HYPER_LEAF, 0x72626d55, 0x626d5561,
		    0x6d556172); /* UmbraUmbraUm */
	add_extended(&l);
	return l.n;
}
