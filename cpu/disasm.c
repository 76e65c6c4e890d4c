/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text of an instruction, for reports and inspection. */
#include "cpu/core.h"

static void init_decoder(const struct cpu *c, ZydisDecoder *z)
{
	switch (c->mode & CPU_MODE_CODE) {
	case CPU_MODE_CODE64:
		ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
		break;
	case CPU_MODE_CODE32:
		ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
		break;
	default: ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16); break;
	}
}

/* Of these none touches more than general registers, segments and memory, but by its operands. */
static bool is_plain(const ZydisDecodedInstruction *zi)
{
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_POPCNT:
	case ZYDIS_MNEMONIC_CRC32:
	case ZYDIS_MNEMONIC_LAR:
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW: return true;
	default: break;
	}
	switch (zi->meta.category) {
	case ZYDIS_CATEGORY_ADOX_ADCX:
	case ZYDIS_CATEGORY_BINARY:
	case ZYDIS_CATEGORY_BITBYTE:
	case ZYDIS_CATEGORY_BMI1:
	case ZYDIS_CATEGORY_BMI2:
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_CLFLUSHOPT:
	case ZYDIS_CATEGORY_CLWB:
	case ZYDIS_CATEGORY_CMOV:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_CONVERT:
	case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_FLAGOP:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_LOGICAL:
	case ZYDIS_CATEGORY_LZCNT:
	case ZYDIS_CATEGORY_NOP:
	case ZYDIS_CATEGORY_POP:
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_ROTATE:
	case ZYDIS_CATEGORY_SEMAPHORE:
	case ZYDIS_CATEGORY_SETCC:
	case ZYDIS_CATEGORY_SHIFT:
	case ZYDIS_CATEGORY_SMAP:
	case ZYDIS_CATEGORY_STRINGOP:
	case ZYDIS_CATEGORY_UNCOND_BR: return true;
	default: return false;
	}
}

static bool is_general(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op)
{
	for (unsigned n = 0; n < zi->operand_count; n++) {
		if (op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(op[n].reg.value)) {
		case ZYDIS_REGCLASS_GPR8:
		case ZYDIS_REGCLASS_GPR16:
		case ZYDIS_REGCLASS_GPR32:
		case ZYDIS_REGCLASS_GPR64:
		case ZYDIS_REGCLASS_FLAGS:
		case ZYDIS_REGCLASS_IP:
		case ZYDIS_REGCLASS_SEGMENT: break;
		default: return false;
		}
	}
	return is_plain(zi);
}

const char *cpu_mnemonic(const struct cpu *c, const uint8_t *bytes, unsigned len, bool *ret_general)
{
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zi;
	ZydisDecoder z;

	*ret_general = false;
	init_decoder(c, &z);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, bytes, len, &zi, op)))
		return "(bad)";
	*ret_general = is_general(&zi, op);
	return ZydisMnemonicGetString(zi.mnemonic);
}

unsigned cpu_disassemble(const struct cpu *c, const uint8_t *bytes, unsigned len, uint64_t rip,
			 char *text, size_t text_len)
{
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zi;
	ZydisFormatter f;
	ZydisDecoder z;

	if (text_len)
		text[0] = 0;
	init_decoder(c, &z);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, bytes, len, &zi, op)))
		return 0;
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	if (text_len && !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(
				&f, &zi, op, zi.operand_count_visible, text, text_len, rip, NULL)))
		return 0;
	return zi.length;
}
