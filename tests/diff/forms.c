/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every form that Zydis knows, found by decoding all opcodes with all prefixes that matter. */
#include "tests/diff/diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ZydisDecoder decoders[DIFF_MODES];

static const ZydisDecoder *decoder(enum diff_mode mode)
{
	static const ZydisMachineMode modes[] = {ZYDIS_MACHINE_MODE_LONG_64,
						 ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
						 ZYDIS_MACHINE_MODE_LONG_COMPAT_16};
	static const ZydisStackWidth widths[] = {ZYDIS_STACK_WIDTH_64, ZYDIS_STACK_WIDTH_32,
						 ZYDIS_STACK_WIDTH_16};

	static bool ready[DIFF_MODES];

	if (!ready[mode])
		ZydisDecoderInit(&decoders[mode], modes[mode], widths[mode]);
	ready[mode] = true;
	return &decoders[mode];
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h ^= v + 0x9e3779b97f4a7c15ull + (h << 6) + (h >> 2);
	return h * 0xff51afd7ed558ccdull;
}

bool diff_decode(enum diff_mode mode, const uint8_t *bytes, ZydisDecodedInstruction *zi,
		 ZydisDecodedOperand *op, uint64_t *key)
{
	const ZydisInstructionAttributes attr =
		ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
		ZYDIS_ATTRIB_HAS_REPNE;
	uint64_t h;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder(mode), bytes, 15, zi, op)))
		return false;
	/* With 67 and REX.B Zydis makes "no base" R13D. */
	for (unsigned k = 0; k < zi->operand_count; k++)
		if (op[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM &&
		    zi->attributes & ZYDIS_ATTRIB_HAS_SIB && zi->raw.modrm.mod == 0 &&
		    zi->raw.sib.base == 5) {
			op[k].mem.base = ZYDIS_REGISTER_NONE;
			op[k].mem.disp.has_displacement = true;
			op[k].mem.disp.value = zi->raw.disp.value;
		}
	h = mix(mix(mix(1, zi->mnemonic), zi->opcode_map), zi->encoding);
	h = mix(h, zi->attributes & attr);
	h = mix(h, zi->operand_width);
	/* One opcode for eight registers is one form. */
	if (!zi->operand_count_visible || op[0].encoding != ZYDIS_OPERAND_ENCODING_OPCODE)
		h = mix(h, zi->opcode);
	for (unsigned k = 0; k < zi->operand_count; k++) {
		const ZydisDecodedOperand *o = &op[k];

		if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			continue;
		h = mix(mix(mix(h, o->type), o->encoding), o->size);
		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
			h = mix(h, ZydisRegisterGetClass(o->reg.value));
			if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE ||
			    ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT)
				h = mix(h, o->reg.value);
		}
	}
	*key = h;
	return true;
}

/* ---- what cannot be compared ---------------------------------------------------------------------- */

static const struct {
	ZydisMnemonic mnemonic;
	const char *why;
} excluded[] = {
#define OTHER "its result is the machine's own (time, identity, randomness)"
	{ZYDIS_MNEMONIC_RDTSC, OTHER},
	{ZYDIS_MNEMONIC_RDTSCP, OTHER},
	{ZYDIS_MNEMONIC_RDRAND, OTHER},
	{ZYDIS_MNEMONIC_RDSEED, OTHER},
	{ZYDIS_MNEMONIC_RDPID, OTHER},
	{ZYDIS_MNEMONIC_CPUID, OTHER},
	{ZYDIS_MNEMONIC_XGETBV, OTHER},
#define STATE "the host's extended state differs from ours (AVX and more): tests/unit/cpu"
	{ZYDIS_MNEMONIC_XSAVE, STATE},
	{ZYDIS_MNEMONIC_XSAVE64, STATE},
	{ZYDIS_MNEMONIC_XSAVEC, STATE},
	{ZYDIS_MNEMONIC_XSAVEC64, STATE},
	{ZYDIS_MNEMONIC_XSAVEOPT, STATE},
	{ZYDIS_MNEMONIC_XSAVEOPT64, STATE},
	{ZYDIS_MNEMONIC_XRSTOR, STATE},
	{ZYDIS_MNEMONIC_XRSTOR64, STATE},
#define KERNEL "it calls the host's kernel"
	{ZYDIS_MNEMONIC_SYSCALL, KERNEL},
	{ZYDIS_MNEMONIC_SYSENTER, KERNEL},
	{ZYDIS_MNEMONIC_INT, KERNEL},
	{ZYDIS_MNEMONIC_INT1, KERNEL},
	{ZYDIS_MNEMONIC_INT3, KERNEL},
	{ZYDIS_MNEMONIC_INTO, KERNEL},
#define SEGMENT "it loads or reads descriptors of the host's tables: tests/unit/cpu/sys"
	{ZYDIS_MNEMONIC_LDS, SEGMENT},
	{ZYDIS_MNEMONIC_LES, SEGMENT},
	{ZYDIS_MNEMONIC_LFS, SEGMENT},
	{ZYDIS_MNEMONIC_LGS, SEGMENT},
	{ZYDIS_MNEMONIC_LSS, SEGMENT},
	{ZYDIS_MNEMONIC_LAR, SEGMENT},
	{ZYDIS_MNEMONIC_LSL, SEGMENT},
	{ZYDIS_MNEMONIC_VERR, SEGMENT},
	{ZYDIS_MNEMONIC_VERW, SEGMENT},
	{ZYDIS_MNEMONIC_IRET, SEGMENT},
	{ZYDIS_MNEMONIC_IRETD, SEGMENT},
	{ZYDIS_MNEMONIC_IRETQ, SEGMENT},
#define BASE "it changes what the test program itself lives on (FS base, UMIP emulation by the host)"
	{ZYDIS_MNEMONIC_RDFSBASE, BASE},
	{ZYDIS_MNEMONIC_RDGSBASE, BASE},
	{ZYDIS_MNEMONIC_WRFSBASE, BASE},
	{ZYDIS_MNEMONIC_WRGSBASE, BASE},
	{ZYDIS_MNEMONIC_SGDT, BASE},
	{ZYDIS_MNEMONIC_SIDT, BASE},
	{ZYDIS_MNEMONIC_SLDT, BASE},
	{ZYDIS_MNEMONIC_SMSW, BASE},
	{ZYDIS_MNEMONIC_STR, BASE},
	{ZYDIS_MNEMONIC_RDPKRU, "the host has no protection keys: tests/unit/cpu"},
	{ZYDIS_MNEMONIC_WRPKRU, "the host has no protection keys: tests/unit/cpu"},
};

static bool touches_segment(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op)
{
	for (unsigned k = 0; k < zi->operand_count_visible; k++)
		if (op[k].type == ZYDIS_OPERAND_TYPE_POINTER ||
		    (op[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		     ZydisRegisterGetClass(op[k].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
		     (op[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)))
			return true;
	return zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static const char *why_excluded(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op)
{
	for (size_t k = 0; k < ARRAY_SIZE(excluded); k++)
		if (zi->mnemonic == excluded[k].mnemonic)
			return excluded[k].why;
	return touches_segment(zi, op) ? SEGMENT : NULL;
}

static bool is_privileged(const ZydisDecodedInstruction *zi)
{
	return zi->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED || zi->mnemonic == ZYDIS_MNEMONIC_CLI ||
	       zi->mnemonic == ZYDIS_MNEMONIC_STI || zi->meta.category == ZYDIS_CATEGORY_IO ||
	       zi->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

/* ---- search ---------------------------------------------------------------------------------------- */

static void add(struct diff_forms *out, enum diff_mode mode, const uint8_t *bytes)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	static ZydisFormatter formatter;
	static bool ready;
	struct diff_form *f;
	uint64_t key;

	if (!diff_decode(mode, bytes, &zi, op, &key) || !diff_soft_shows(zi.meta.isa_set))
		return;
	for (size_t k = 0; k < out->count; k++)
		if (out->form[k].key == key)
			return;
	if (out->count == out->cap) {
		out->cap = out->cap ? out->cap * 2 : 1024;
		out->form = realloc(out->form, out->cap * sizeof(*out->form));
		if (!out->form)
			abort();
	}
	f = &out->form[out->count++];
	memset(f, 0, sizeof(*f));
	memcpy(f->bytes, bytes, zi.length);
	f->len = zi.length;
	f->key = key;
	f->excluded = why_excluded(&zi, op);
	f->privileged = is_privileged(&zi);
	f->mnemonic = zi.mnemonic;
	if (!ready)
		ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	ready = true;
	ZydisFormatterFormatInstruction(&formatter, &zi, op, zi.operand_count_visible, f->text,
					sizeof(f->text), 0x10000, NULL);
}

/* All ModRM bytes that can make a difference after @n bytes of prefixes and opcode. */
static void add_modrm(struct diff_forms *out, enum diff_mode mode, uint8_t *bytes, unsigned n)
{
	for (unsigned reg = 0; reg < 8; reg++) {
		bytes[n] = (uint8_t)(reg << 3 | 3); /* memory: [rbx], [ebx], [bp+di] */
		add(out, mode, bytes);
		for (unsigned rm = 0; rm < 8; rm++) {
			bytes[n] = (uint8_t)(0xc0 | reg << 3 | rm);
			add(out, mode, bytes);
		}
	}
	bytes[n] = 0;
}

static void add_legacy(struct diff_forms *out, enum diff_mode mode, const uint8_t *prefix, unsigned n)
{
	static const uint8_t maps[4][2] = {{0}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
	static const unsigned map_len[4] = {0, 1, 2, 2};

	for (unsigned map = 0; map < 4; map++) {
		for (unsigned opcode = 0; opcode < 256; opcode++) {
			uint8_t bytes[16] = {0};

			memcpy(bytes, prefix, n);
			memcpy(bytes + n, maps[map], map_len[map]);
			bytes[n + map_len[map]] = (uint8_t)opcode;
			add_modrm(out, mode, bytes, n + map_len[map] + 1);
		}
	}
}

static void add_vex_map(struct diff_forms *out, enum diff_mode mode, const uint8_t vex[3])
{
	for (unsigned opcode = 0; opcode < 256; opcode++) {
		uint8_t bytes[16] = {vex[0], vex[1], vex[2], (uint8_t)opcode};

		add_modrm(out, mode, bytes, 4);
		/* The gathers, which must have a SIB byte: [rbx + xmm5]. */
		bytes[4] = 0x04;
		bytes[5] = 0x2b;
		add(out, mode, bytes);
	}
}

/* BMI and AVX: maps, W, L and pp, with and without a register in VEX.vvvv. */
static void add_vex(struct diff_forms *out, enum diff_mode mode)
{
	for (unsigned map = 1; map < 4; map++)
		for (unsigned k = 0; k < 32; k++) {
			const uint8_t vex[3] = {0xc4, (uint8_t)(0xe0 | map),
						(uint8_t)((k & 8) << 4 | (k & 16 ? 15u : 14u) << 3 |
							  (k & 7))};

			add_vex_map(out, mode, vex);
		}
}

void diff_forms_find(enum diff_mode mode, struct diff_forms *out)
{
	static const uint8_t prefixes[][3] = {{0},    {0x66},       {0xf2},       {0xf3}, {0xf0},
					      {0xf0, 0x66}, {0x66, 0xf2}, {0x66, 0xf3}};
	static const unsigned prefix_len[] = {0, 1, 1, 1, 1, 2, 2, 2};

	for (unsigned p = 0; p < ARRAY_SIZE(prefix_len); p++) {
		uint8_t prefix[4];

		memcpy(prefix, prefixes[p], 3);
		add_legacy(out, mode, prefix, prefix_len[p]);
		if (mode == DIFF_64) {
			prefix[prefix_len[p]] = 0x48;
			add_legacy(out, mode, prefix, prefix_len[p] + 1);
		}
	}
	add_vex(out, mode);
}
