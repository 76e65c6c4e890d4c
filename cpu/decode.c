/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes to struct cpu_insn: Zydis decodes, the families' tables choose the handlers. */
#include <pthread.h>
#include <string.h>

#include "cpu/core.h"

static const struct cpu_op_table *const families[] = {
	&cpu_ops_alu,	  &cpu_ops_mov,	  &cpu_ops_shift, &cpu_ops_bits,   &cpu_ops_string,
	&cpu_ops_control, &cpu_ops_stack, &cpu_ops_misc,  &cpu_ops_system, &cpu_ops_segment,
	&cpu_ops_fpu,	  &cpu_ops_sse,	  &cpu_ops_avx,	  &cpu_ops_xsave,
};

#define ROWS_MAX 4096

/* Rows by mnemonic: those of mnemonic m are rows[first[m]] up to rows[first[m + 1]]. */
static const struct cpu_op *rows[ROWS_MAX];
static uint16_t first[ZYDIS_MNEMONIC_MAX_VALUE + 2];
static pthread_once_t rows_once = PTHREAD_ONCE_INIT;

static void build_rows(void)
{
	unsigned n = 0;

	for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
		first[m] = (uint16_t)n;
		for (unsigned f = 0; f < ARRAY_SIZE(families); f++) {
			for (unsigned k = 0; k < families[f]->count; k++) {
				if (families[f]->op[k].mnemonic == m && n < ROWS_MAX)
					rows[n++] = &families[f]->op[k];
			}
		}
	}
	first[ZYDIS_MNEMONIC_MAX_VALUE + 1] = (uint16_t)n;
}

void cpu_decode_init(struct cpu *c)
{
	pthread_once(&rows_once, build_rows);
}

/* ---- registers --------------------------------------------------------------------------------
 */

uint8_t cpu_reg_offset(ZydisRegister reg)
{
	unsigned n;

	if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
		return (uint8_t)((reg - ZYDIS_REGISTER_RAX) * 8);
	if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
		return (uint8_t)((reg - ZYDIS_REGISTER_EAX) * 8);
	if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
		return (uint8_t)((reg - ZYDIS_REGISTER_AX) * 8);
	/* AL CL DL BL, AH CH DH BH, SPL BPL SIL DIL, R8B.. */
	n = (unsigned)(reg - ZYDIS_REGISTER_AL);
	if (n < 4)
		return (uint8_t)(n * 8);
	if (n < 8)
		return (uint8_t)((n - 4) * 8 + 1);
	return (uint8_t)((n - 4) * 8);
}

uint8_t cpu_reg_slot(ZydisRegister reg)
{
	if (reg == ZYDIS_REGISTER_NONE)
		return CPU_SLOT_ZERO;
	if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP || reg == ZYDIS_REGISTER_IP)
		return CPU_SLOT_BIP;
	return cpu_reg_offset(reg) / 8;
}

static uint8_t reg_operand(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64: return cpu_reg_offset(reg);
	default: return (uint8_t)ZydisRegisterGetId(reg);
	}
}

/* ---- handlers of the decoder's own -------------------------------------------------------------
 */

void cpu_op_ud(struct cpu *c, const struct cpu_insn *i)
{
	cpu_fault(c, i, X86_VEC_UD);
}

void cpu_op_nm(struct cpu *c, const struct cpu_insn *i)
{
	cpu_fault(c, i, X86_VEC_NM);
}

static void op_too_long(struct cpu *c, const struct cpu_insn *i)
{
	cpu_fault_err(c, i, X86_VEC_GP, 0);
}

/* The block's end where no branch is: idx counts all its instructions. */
static void op_fall(struct cpu *c, const struct cpu_insn *i)
{
	CPU_GOTO(c, 0, c->bip + i->off);
}

static void op_fall_wrap(struct cpu *c, const struct cpu_insn *i)
{
	CPU_GOTO(c, 0, (uint32_t)(c->bip + i->off));
}

static void op_fall_out(struct cpu *c, const struct cpu_insn *i)
{
	CPU_JUMP(c, cpu_rip_wrap(c, c->bip + i->off));
}

/* Preludes: arg is 1 for a write, imm the size of the access. */
#define CHECK_WRITE	  1u
#define CHECK_ALIGN_SHIFT 8 /* alignment - 1, or 0 */
static void op_check_segment(struct cpu *c, const struct cpu_insn *i)
{
	/* SSE's alignment before the segment's limit, which may be #SS. */
	if (unlikely(cpu_lin(c, i) & (i->arg >> CHECK_ALIGN_SHIFT)))
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	cpu_seg_check(c, i, i->seg, cpu_ea(c, i), (unsigned)i->imm, i->arg & CHECK_WRITE);
	CPU_NEXT(c, i);
}

static void op_check_alignment(struct cpu *c, const struct cpu_insn *i)
{
	uint64_t lin = cpu_lin(c, i);

	/* An address that is not canonical is the access's own fault, which comes first. */
	if (unlikely(lin & (i->imm - 1)) && cpu_lin_canonical(c, lin) &&
	    cpu_lin_canonical(c, lin + i->imm - 1))
		cpu_fault_err(c, i, X86_VEC_AC, 0);
	CPU_NEXT(c, i);
}

/* ---- operands ---------------------------------------------------------------------------------
 */

static void fill_memory(const struct cpu_decoder *d, struct cpu_insn *i,
			const ZydisDecodedOperand *op)
{
	i->flags |= CPU_INSN_MEM;
	i->base = cpu_reg_slot(op->mem.base);
	i->index = cpu_reg_slot(op->mem.index);
	i->scale = op->mem.scale == 8 ? 3 : op->mem.scale / 2;
	i->disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
	if (i->base == CPU_SLOT_BIP)
		i->disp += i->off + i->len;
	i->seg = (uint8_t)(op->mem.segment - ZYDIS_REGISTER_ES);
	if ((d->c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 && i->seg < X86_FS)
		i->seg = CPU_SEG_NONE;
}

static bool encoded_memory(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
	       (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ||
		op->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64);
}

/* A SIB byte without base; with 67 and REX.B Zydis makes it R13D. */
static bool has_no_base(const ZydisDecodedInstruction *zi)
{
	return zi->attributes & ZYDIS_ATTRIB_HAS_SIB && zi->raw.modrm.mod == 0 &&
	       zi->raw.sib.base == 5;
}

static void fill_operands(const struct cpu_decoder *d, struct cpu_dec *dec, struct cpu_insn *i)
{
	unsigned regs = 0;
	bool imm = false;

	for (unsigned k = 0; k < dec->zi.operand_count; k++) {
		ZydisDecodedOperand *op = &dec->op[k];

		if (encoded_memory(op)) {
			if (has_no_base(&dec->zi)) {
				op->mem.base = ZYDIS_REGISTER_NONE;
				op->mem.disp.has_displacement = true;
				op->mem.disp.value = dec->zi.raw.disp.value;
			}
			fill_memory(d, i, op);
		} else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			/* A stack access: where a non-canonical address is #SS. */
			if (op->mem.segment == ZYDIS_REGISTER_SS && !(i->flags & CPU_INSN_MEM))
				i->seg = X86_SS;
		} else if (k >= dec->zi.operand_count_visible) {
			continue;
		} else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && regs < 3) {
			uint8_t r = reg_operand(op->reg.value);

			*(regs == 0 ? &i->r1 : regs == 1 ? &i->r2 : &i->r3) = r;
			regs++;
		} else if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && !imm) {
			i->imm = op->imm.value.u;
			if (op->imm.is_relative)
				i->imm += i->off + i->len;
			imm = true;
		}
	}
}

/* ---- preludes ---------------------------------------------------------------------------------
 */

/*
 * Bit tests with a register index reach beyond the operand: their handlers check what they touch.
 * Hints and undefined opcodes touch nothing.
 */
static bool checks_itself(const struct cpu_dec *dec)
{
	switch (dec->zi.mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC: return dec->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
	case ZYDIS_MNEMONIC_ARPL:
	case ZYDIS_MNEMONIC_INVLPG:
	case ZYDIS_MNEMONIC_INVPCID:
	case ZYDIS_MNEMONIC_LGDT:
	case ZYDIS_MNEMONIC_LIDT:
	case ZYDIS_MNEMONIC_LLDT:
	case ZYDIS_MNEMONIC_LMSW:
	case ZYDIS_MNEMONIC_LTR:
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_PREFETCH:
	case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHT0:
	case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2:
	case ZYDIS_MNEMONIC_PREFETCHW:
	case ZYDIS_MNEMONIC_PREFETCHWT1: return true;
	default: return false;
	}
}

/* Bytes that the segment check is about. */
static unsigned checked_bytes(const struct cpu_dec *dec, const ZydisDecodedOperand *op)
{
	switch (dec->zi.mnemonic) {
	case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_CLFLUSHOPT:
	case ZYDIS_MNEMONIC_CLWB: return 1;
	/* The rest is checked piece by piece. */
	case ZYDIS_MNEMONIC_BOUND: return op->size / 16;
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNSAVE: return op->size == 14 * 8 || op->size == 94 * 8 ? 2 : 4;
	default: return op->size / 8;
	}
}

/* Two- and four-byte pointers to memory are aligned as their parts (SDM 3A, table 6-7). */
static unsigned alignment(const struct cpu_dec *dec, const ZydisDecodedOperand *op)
{
	unsigned bytes = op->size / 8;

	switch (dec->zi.mnemonic) {
	case ZYDIS_MNEMONIC_BOUND: return bytes / 2;
	case ZYDIS_MNEMONIC_MOVSXD: return dec->zi.operand_width == 16 ? 2 : 4;
	case ZYDIS_MNEMONIC_LGDT:
	case ZYDIS_MNEMONIC_LIDT:
	case ZYDIS_MNEMONIC_SGDT:
	case ZYDIS_MNEMONIC_SIDT: return 1;
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNSAVE: return dec->zi.operand_width == 16 ? 2 : 4;
	case ZYDIS_MNEMONIC_CALL:
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_LDS:
	case ZYDIS_MNEMONIC_LES:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	case ZYDIS_MNEMONIC_LSS:
		if (bytes == 6 || bytes == 10)
			return bytes - 2;
		return dec->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR && bytes == 4 ? 2 : bytes;
	case ZYDIS_MNEMONIC_CMPXCHG16B: return 1; /* #GP of its own */
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_VCVTPH2PS:
	case ZYDIS_MNEMONIC_VCVTPS2PH: return 1;
	default: break;
	}
	if (bytes == 10)
		return 8; /* FLD, FSTP m80; FBLD */
	return bytes > 8 || (bytes & (bytes - 1)) ? 1 : bytes;
}

/* Legacy SSE's 16-byte operands, but for those that need no alignment, and AVX's aligned moves. */
static bool is_aligned_sse(const struct cpu_dec *dec, const ZydisDecodedOperand *op)
{
	switch (dec->zi.mnemonic) {
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTPS: return true;
	case ZYDIS_MNEMONIC_CMPXCHG16B:
	case ZYDIS_MNEMONIC_INVPCID:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM: return false;
	default: return op->size == 128 && dec->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	}
}

static unsigned sse_alignment(const struct cpu_dec *dec, const ZydisDecodedOperand *op)
{
	return is_aligned_sse(dec, op) ? op->size / 8 : 1;
}

/* Put the checks that the mode needs before @i. Returns how many parts they are. */
static unsigned add_preludes(const struct cpu_decoder *d, const struct cpu_dec *dec,
			     const struct cpu_insn *i, struct cpu_insn *out)
{
	uint32_t mode = d->c->mode;
	unsigned n = 0;

	for (unsigned k = 0; k < dec->zi.operand_count; k++) {
		const ZydisDecodedOperand *op = &dec->op[k];
		bool write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

		if (!encoded_memory(op) || op->mem.type == ZYDIS_MEMOP_TYPE_AGEN || !op->size ||
		    checks_itself(dec))
			continue;
		if ((mode & CPU_MODE_CODE) != CPU_MODE_CODE64 &&
		    (!(mode & CPU_MODE_FLAT) || i->seg >= X86_FS || (write && i->seg == X86_CS))) {
			out[n] = *i;
			out[n].fn = op_check_segment;
			out[n].imm = checked_bytes(dec, op);
			out[n++].arg =
				(uint16_t)((write ? CHECK_WRITE : 0) |
					   (sse_alignment(dec, op) - 1) << CHECK_ALIGN_SHIFT);
		}
		if (mode & CPU_MODE_AC && alignment(dec, op) > 1) {
			out[n] = *i;
			out[n].fn = op_check_alignment;
			out[n++].imm = alignment(dec, op);
		}
		break;
	}
	return n;
}

/* ---- one instruction --------------------------------------------------------------------------
 */

static void set_machine_mode(ZydisDecoder *z, const struct cpu *c)
{
	switch (c->mode & CPU_MODE_CODE) {
	case CPU_MODE_CODE64:
		ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
		break;
	case CPU_MODE_CODE32:
		ZydisDecoderInit(z,
				 c->mode & CPU_MODE_LMA ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
							: ZYDIS_MACHINE_MODE_LEGACY_32,
				 c->mode & CPU_MODE_SS32 ? ZYDIS_STACK_WIDTH_32
							 : ZYDIS_STACK_WIDTH_16);
		break;
	default:
		ZydisDecoderInit(z,
				 c->mode & CPU_MODE_LMA	   ? ZYDIS_MACHINE_MODE_LONG_COMPAT_16
				 : c->mode & CPU_MODE_PROT ? ZYDIS_MACHINE_MODE_LEGACY_16
							   : ZYDIS_MACHINE_MODE_REAL_16,
				 c->mode & CPU_MODE_SS32 ? ZYDIS_STACK_WIDTH_32
							 : ZYDIS_STACK_WIDTH_16);
		break;
	}
	/* What CPUID does not show decodes as what it was before. */
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_LZCNT, cpu_has(c, CPU_FEAT_ABM));
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_TZCNT, cpu_has(c, CPU_FEAT_BMI1));
}

static bool pick(struct cpu_dec *dec, struct cpu_insn *i)
{
	const struct cpu_insn before = *i;
	unsigned m = dec->zi.mnemonic;

	if (!cpu_isa_shown(dec->c, dec->zi.meta.isa_set, m))
		return false;
	for (unsigned k = first[m]; k < first[m + 1]; k++) {
		*i = before;
		dec->n_extra = 0;
		if (rows[k]->pick(dec, i, rows[k]->arg))
			return true;
	}
	*i = before;
	return false;
}

/* Direct branches within the page may be linked, where rip needs no looking at. */
static bool may_chain(const struct cpu_decoder *d, const struct cpu_dec *dec,
		      const struct cpu_insn *i)
{
	uint64_t target = d->page_off + i->imm;

	return d->c->mode & CPU_MODE_FLAT && target < PAGE_SIZE &&
	       ((d->c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 || dec->zi.operand_width == 32);
}

static void bad_insn(struct cpu_insn *i, cpu_op_fn fn)
{
	i->fn = fn;
	i->len = 1;
	i->flags = CPU_INSN_END;
}

/* Returns the number of parts at @out. */
static unsigned make_insn(struct cpu_decoder *d, struct cpu_dec *dec, struct cpu_insn *out)
{
	struct cpu_insn i = out[0];
	unsigned pre;

	i.len = dec->zi.length;
	i.size = dec->zi.operand_width / 8;
	i.asize = dec->zi.address_width / 8;
	if (dec->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK)
		i.flags |= CPU_INSN_LOCK;
	if (dec->zi.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
		i.flags |= CPU_INSN_REP;
	if (dec->zi.attributes & ZYDIS_ATTRIB_HAS_REPNE)
		i.flags |= CPU_INSN_REPNE;
	if (dec->zi.attributes & ZYDIS_ATTRIB_HAS_REX)
		i.flags |= CPU_INSN_REX;
	if (dec->zi.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
		i.flags |= CPU_INSN_END;
	fill_operands(d, dec, &i);
	dec->chain = may_chain(d, dec, &i);
	pre = add_preludes(d, dec, &i, out);
	out[pre] = i;
	dec->end = &out[pre + 1];
	dec->n_extra = 0;
	dec->bare = false;
	if (!pick(dec, &out[pre])) {
		out[0] = out[pre];
		out[0].fn = cpu_op_ud;
		out[0].flags |= CPU_INSN_END;
		return 1;
	}
	if (dec->bare && pre) {
		out[0] = out[pre];
		pre = 0;
	}
	for (unsigned k = 1; k <= dec->n_extra; k++) {
		out[pre + k].idx = i.idx;
		out[pre + k].off = i.off;
		out[pre + k].len = i.len;
	}
	return pre + 1 + dec->n_extra;
}

static void add_end(struct cpu_decoder *d)
{
	struct cpu_insn *i = &d->insn[d->parts++];

	memset(i, 0, sizeof(*i));
	i->idx = (uint8_t)d->n;
	i->off = (uint16_t)d->used;
	i->flags = CPU_INSN_END;
	if (!(d->c->mode & CPU_MODE_FLAT) || d->page_off + d->used >= PAGE_SIZE)
		i->fn = op_fall_out;
	else
		i->fn = (d->c->mode & CPU_MODE_CODE) == CPU_MODE_CODE64 ? op_fall : op_fall_wrap;
}

bool cpu_decode(struct cpu_decoder *d)
{
	struct cpu_dec dec = {.c = d->c, .mode = d->c->mode};
	ZydisDecoder z;
	bool open = true;

	set_machine_mode(&z, d->c);
	d->n = d->parts = d->used = 0;
	while (open && d->n < d->max && d->used < d->len) {
		struct cpu_insn *i = &d->insn[d->parts];
		unsigned left = d->len - d->used, n = 1;
		ZyanStatus status;

		memset(i, 0, CPU_PARTS_MAX * sizeof(*i));
		i->idx = (uint8_t)d->n;
		i->off = (uint16_t)d->used;
		i->base = i->index = CPU_SLOT_ZERO;
		i->seg = CPU_SEG_NONE;
		dec.bytes = d->bytes + d->used;
		status = ZydisDecoderDecodeFull(&z, dec.bytes, MIN(left, 15u), &dec.zi, dec.op);
		if (ZYAN_SUCCESS(status)) {
			n = make_insn(d, &dec, i);
		} else if (status == ZYDIS_STATUS_NO_MORE_DATA && left < 15) {
			break;
		} else {
			bool too_long = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ||
					status == ZYDIS_STATUS_NO_MORE_DATA;

			bad_insn(i, too_long ? op_too_long : cpu_op_ud);
		}
		d->parts += n;
		d->n++;
		d->used += i->len;
		open = !(d->insn[d->parts - 1].flags & CPU_INSN_END) && !(i->flags & CPU_INSN_END);
	}
	if (!d->n)
		return false;
	add_end(d);
	return true;
}
