/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text of an instruction, for reports and inspection. */
#include "cpu/core.h"

unsigned cpu_disassemble(const struct cpu *c, const uint8_t *bytes, unsigned len, uint64_t rip,
			 char *text, size_t text_len)
{
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisMachineMode mode = ZYDIS_MACHINE_MODE_LEGACY_16;
	ZydisStackWidth stack = ZYDIS_STACK_WIDTH_16;
	ZydisDecodedInstruction zi;
	ZydisFormatter f;
	ZydisDecoder z;

	if (text_len)
		text[0] = 0;
	switch (c->mode & CPU_MODE_CODE) {
	case CPU_MODE_CODE64:
		mode = ZYDIS_MACHINE_MODE_LONG_64;
		stack = ZYDIS_STACK_WIDTH_64;
		break;
	case CPU_MODE_CODE32:
		mode = ZYDIS_MACHINE_MODE_LEGACY_32;
		stack = ZYDIS_STACK_WIDTH_32;
		break;
	}
	ZydisDecoderInit(&z, mode, stack);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, bytes, len, &zi, op)))
		return 0;
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	if (text_len && !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(
				&f, &zi, op, zi.operand_count_visible, text, text_len, rip, NULL)))
		return 0;
	return zi.length;
}
