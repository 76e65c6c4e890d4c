/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The registers as GDB numbers them: a register's number is its row in the table. */
#include "vm/gdb_regs.h"

#include <errno.h>
#include <string.h>

#include "vm/reg_names.h"

/* Where a description's registers stand; GDB knows all but the last by these names. */
enum feature { CORE, SSE, AVX, SEGMENTS, SYSTEM, FEATURES };

static const char *const feature_names[FEATURES] = {
	[CORE] = "org.gnu.gdb.i386.core",  [SSE] = "org.gnu.gdb.i386.sse",
	[AVX] = "org.gnu.gdb.i386.avx",	   [SEGMENTS] = "org.gnu.gdb.i386.segments",
	[SYSTEM] = "org.umbra.x86.system",
};

/* What a debugger may write into a register. */
enum rule {
	ANY,
	CANONICAL, /* an address in long mode */
	FLAGS,	   /* rflags: what MOV to the flags could set */
	MXCSR,	   /* no bit outside mxcsr_mask */
	TAGS,	   /* the x87 tag word, of which the state has the abridged form */
	NEVER,	   /* has hidden parts or side effects */
};

struct row {
	const char *name, *type;
	uint16_t offset; /* in struct cpu_state, little-endian as over the wire */
	uint8_t size;	 /* there */
	uint8_t wire;	 /* over the wire; what the state does not have is zero */
	uint8_t feature;
	uint8_t rule;
};

#define ROW(name_, type_, wire_, feature_, rule_, size_, member)                                   \
	{                                                                                          \
		.name = (name_), .type = (type_), .offset = offsetof(struct cpu_state, member),    \
		.size = (size_), .wire = (wire_), .feature = (feature_), .rule = (rule_)           \
	}
/* A whole member; its low half for i386. */
#define WHOLE(name, type, feature, rule, member) ROW(name, type, 8, feature, rule, 8, member)
#define HALF(name, type, feature, rule, member)	 ROW(name, type, 4, feature, rule, 4, member)

#define SEG(name, n) ROW(name, "int32", 4, CORE, NEVER, 2, seg[n].sel)
#define SEGS                                                                                       \
	SEG("cs", X86_CS), SEG("ss", X86_SS), SEG("ds", X86_DS), SEG("es", X86_ES),                \
		SEG("fs", X86_FS), SEG("gs", X86_GS)

#define ST(n)			ROW("st" #n, "i387_ext", 10, CORE, ANY, 10, fx.st[n])
#define X87(name, size, member) ROW(name, "int", 4, CORE, ANY, size, member)
/* The selector is in bits 47:32 of the pointer. */
#define X87_SEG(name_, member)                                                                     \
	{                                                                                          \
		.name = (name_), .type = "int", .offset = offsetof(struct cpu_state, member) + 4,  \
		.size = 2, .wire = 4, .feature = CORE, .rule = ANY                                 \
	}
#define FPU                                                                                        \
	ST(0), ST(1), ST(2), ST(3), ST(4), ST(5), ST(6), ST(7), X87("fctrl", 2, fx.fcw),           \
		X87("fstat", 2, fx.fsw), ROW("ftag", "int", 4, CORE, TAGS, 1, fx.ftw),             \
		X87_SEG("fiseg", fx.fip), X87("fioff", 4, fx.fip), X87_SEG("foseg", fx.fdp),       \
		X87("fooff", 4, fx.fdp), X87("fop", 2, fx.fop)

#define XMM(n)	       ROW("xmm" #n, "vec128", 16, SSE, ANY, 16, fx.xmm[n])
#define YMMH(n)	       ROW("ymm" #n "h", "uint128", 16, AVX, ANY, 16, ymmh[n])
#define MXCSR_ROW      ROW("mxcsr", "i386_mxcsr", 4, SSE, MXCSR, 4, fx.mxcsr)
#define EIGHT(of)      of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7)
#define NEXT_EIGHT(of) of(8), of(9), of(10), of(11), of(12), of(13), of(14), of(15)

#define GPR(name, n)   WHOLE(name, "int64", CORE, ANY, gpr[n])
#define GPR32(name, n) HALF(name, "int32", CORE, ANY, gpr[n])

static const struct row amd64_rows[] = {
	GPR("rax", X86_RAX),
	GPR("rbx", X86_RBX),
	GPR("rcx", X86_RCX),
	GPR("rdx", X86_RDX),
	GPR("rsi", X86_RSI),
	GPR("rdi", X86_RDI),
	WHOLE("rbp", "data_ptr", CORE, ANY, gpr[X86_RBP]),
	WHOLE("rsp", "data_ptr", CORE, ANY, gpr[X86_RSP]),
	GPR("r8", 8),
	GPR("r9", 9),
	GPR("r10", 10),
	GPR("r11", 11),
	GPR("r12", 12),
	GPR("r13", 13),
	GPR("r14", 14),
	GPR("r15", 15),
	WHOLE("rip", "code_ptr", CORE, CANONICAL, rip),
	ROW("eflags", "i386_eflags", 4, CORE, FLAGS, 4, rflags),
	SEGS,
	FPU,
	EIGHT(XMM),
	NEXT_EIGHT(XMM),
	MXCSR_ROW,
	EIGHT(YMMH),
	NEXT_EIGHT(YMMH),
	WHOLE("fs_base", "int64", SEGMENTS, CANONICAL, seg[X86_FS].base),
	WHOLE("gs_base", "int64", SEGMENTS, CANONICAL, seg[X86_GS].base),
	WHOLE("k_gs_base", "int64", SYSTEM, CANONICAL, kernel_gs_base),
	WHOLE("cr0", "x86_cr0", SYSTEM, NEVER, cr0),
	WHOLE("cr2", "int64", SYSTEM, ANY, cr2),
	WHOLE("cr3", "int64", SYSTEM, NEVER, cr3),
	WHOLE("cr4", "x86_cr4", SYSTEM, NEVER, cr4),
	WHOLE("cr8", "int64", SYSTEM, NEVER, cr8),
	WHOLE("efer", "x86_efer", SYSTEM, NEVER, efer),
};

static const struct row i386_rows[] = {
	GPR32("eax", X86_RAX),
	GPR32("ecx", X86_RCX),
	GPR32("edx", X86_RDX),
	GPR32("ebx", X86_RBX),
	HALF("esp", "data_ptr", CORE, ANY, gpr[X86_RSP]),
	HALF("ebp", "data_ptr", CORE, ANY, gpr[X86_RBP]),
	GPR32("esi", X86_RSI),
	GPR32("edi", X86_RDI),
	HALF("eip", "code_ptr", CORE, ANY, rip),
	ROW("eflags", "i386_eflags", 4, CORE, FLAGS, 4, rflags),
	SEGS,
	FPU,
	EIGHT(XMM),
	MXCSR_ROW,
	EIGHT(YMMH),
	HALF("fs_base", "int32", SYSTEM, ANY, seg[X86_FS].base),
	HALF("gs_base", "int32", SYSTEM, ANY, seg[X86_GS].base),
	HALF("cr0", "x86_cr0", SYSTEM, NEVER, cr0),
	HALF("cr2", "int32", SYSTEM, ANY, cr2),
	HALF("cr3", "int32", SYSTEM, NEVER, cr3),
	HALF("cr4", "x86_cr4", SYSTEM, NEVER, cr4),
	HALF("efer", "x86_efer", SYSTEM, NEVER, efer),
};

static const struct {
	const char *name;
	const struct row *rows;
	unsigned n;
	uint8_t word; /* bytes */
} archs[] = {
	[GDB_ARCH_AMD64] = {"i386:x86-64", amd64_rows, ARRAY_SIZE(amd64_rows), 8},
	[GDB_ARCH_I386] = {"i386", i386_rows, ARRAY_SIZE(i386_rows), 4},
};

unsigned gdb_reg_count(enum gdb_arch arch)
{
	return archs[arch].n;
}

unsigned gdb_reg_size(enum gdb_arch arch, unsigned regnum)
{
	return regnum < archs[arch].n ? archs[arch].rows[regnum].wire : 0;
}

/* ---- values ------------------------------------------------------------------------------------
 */

/*
 * The tag word says of each physical register: 0 valid, 1 zero, 2 special, 3 empty (SDM 1 8.1.7).
 * The state has only "not empty", so the rest is found out as FXSAVE's readers do.
 */
static unsigned tag_of(const struct cpu_state *s, unsigned phys)
{
	unsigned pos = (phys - (s->fx.fsw >> 11)) & 7;
	unsigned exponent = (unsigned)s->fx.st[pos].hi & 0x7fff;

	if (!(s->fx.ftw >> phys & 1))
		return 3;
	if (exponent == 0)
		return s->fx.st[pos].lo ? 2 : 1;
	return exponent == 0x7fff || !(s->fx.st[pos].lo >> 63) ? 2 : 0;
}

static uint16_t full_tags(const struct cpu_state *s)
{
	unsigned tags = 0;

	for (unsigned phys = 0; phys < 8; phys++)
		tags |= tag_of(s, phys) << (2 * phys);
	return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t tags)
{
	unsigned abridged = 0;

	for (unsigned phys = 0; phys < 8; phys++)
		if ((tags >> (2 * phys) & 3) != 3)
			abridged |= 1u << phys;
	return (uint8_t)abridged;
}

unsigned gdb_reg_get(enum gdb_arch arch, unsigned regnum, const struct cpu_state *s,
		     uint8_t value[GDB_REG_BYTES])
{
	const struct row *r = &archs[arch].rows[regnum];
	uint16_t tags;

	memset(value, 0, GDB_REG_BYTES);
	if (r->rule == TAGS) {
		tags = full_tags(s);
		memcpy(value, &tags, sizeof(tags));
	} else {
		memcpy(value, (const uint8_t *)s + r->offset, r->size);
	}
	return r->wire;
}

static bool canonical(const struct cpu_state *s, uint64_t va)
{
	unsigned shift = s->cr4 & X86_CR4_LA57 ? 64 - 57 : 64 - 48;

	if (!(s->efer & X86_EFER_LMA))
		return va <= UINT32_MAX;
	return (uint64_t)((int64_t)(va << shift) >> shift) == va;
}

/* VM and the interrupt flags of virtual-8086 mode go with segments that are not written here. */
#define FLAGS_WRITABLE                                                                             \
	(X86_FLAGS_ARITH | X86_FLAG_TF | X86_FLAG_IF | X86_FLAG_DF | X86_FLAG_IOPL | X86_FLAG_NT | \
	 X86_FLAG_RF | X86_FLAG_AC | X86_FLAG_ID)

int gdb_reg_set(enum gdb_arch arch, unsigned regnum, struct cpu_state *s,
		const uint8_t value[GDB_REG_BYTES])
{
	const struct row *r = &archs[arch].rows[regnum];
	uint8_t now[GDB_REG_BYTES];
	uint64_t v;

	gdb_reg_get(arch, regnum, s, now);
	if (!memcmp(now, value, r->wire))
		return 0;
	memcpy(&v, value, sizeof(v));
	switch (r->rule) {
	case NEVER: return -EROFS;
	case CANONICAL:
		if (!canonical(s, v))
			return -EINVAL;
		break;
	case MXCSR:
		if (v & UINT32_MAX & ~(uint64_t)s->fx.mxcsr_mask)
			return -EINVAL;
		break;
	case FLAGS: s->rflags = (s->rflags & ~FLAGS_WRITABLE) | (v & FLAGS_WRITABLE); return 0;
	case TAGS: s->fx.ftw = abridged_tags((uint16_t)v); return 0;
	default: break;
	}
	memcpy((uint8_t *)s + r->offset, value, r->size);
	return 0;
}

/* ---- the description ---------------------------------------------------------------------------
 */

static void add_flags(struct buf *out, const char *id, unsigned size, const struct reg_bit *bits)
{
	buf_printf(out, "<flags id=\"%s\" size=\"%u\">", id, size);
	for (; bits->name; bits++)
		buf_printf(out, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", bits->name,
			   bits->bit, bits->bit);
	buf_printf(out, "</flags>\n");
}

/* The forms that GDB shows a vector register in. */
static void add_vector_types(struct buf *out)
{
	static const struct {
		const char *id, *type, *field;
		unsigned count;
	} forms[] = {
		{"v4f", "ieee_single", "v4_float", 4}, {"v2d", "ieee_double", "v2_double", 2},
		{"v16i8", "int8", "v16_int8", 16},     {"v8i16", "int16", "v8_int16", 8},
		{"v4i32", "int32", "v4_int32", 4},     {"v2i64", "int64", "v2_int64", 2},
	};

	for (size_t k = 0; k < ARRAY_SIZE(forms); k++)
		buf_printf(out, "<vector id=\"%s\" type=\"%s\" count=\"%u\"/>\n", forms[k].id,
			   forms[k].type, forms[k].count);
	buf_printf(out, "<union id=\"vec128\">");
	for (size_t k = 0; k < ARRAY_SIZE(forms); k++)
		buf_printf(out, "<field name=\"%s\" type=\"%s\"/>", forms[k].field, forms[k].id);
	buf_printf(out, "<field name=\"uint128\" type=\"uint128\"/></union>\n");
}

static void add_types(struct buf *out, enum feature feature, unsigned word)
{
	switch (feature) {
	case CORE: add_flags(out, "i386_eflags", 4, reg_rflags_bits); break;
	case SSE:
		add_vector_types(out);
		add_flags(out, "i386_mxcsr", 4, reg_mxcsr_bits);
		break;
	case SYSTEM:
		add_flags(out, "x86_cr0", word, reg_cr0_bits);
		add_flags(out, "x86_cr4", word, reg_cr4_bits);
		add_flags(out, "x86_efer", word, reg_efer_bits);
		break;
	default: break;
	}
}

static bool has_feature(enum gdb_arch arch, enum feature feature)
{
	for (unsigned n = 0; n < archs[arch].n; n++)
		if (archs[arch].rows[n].feature == feature)
			return true;
	return false;
}

void gdb_describe(enum gdb_arch arch, struct buf *out)
{
	buf_printf(out,
		   "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
		   "<target version=\"1.0\">\n<architecture>%s</architecture>\n",
		   archs[arch].name);
	for (enum feature f = 0; f < FEATURES; f++) {
		if (!has_feature(arch, f))
			continue;
		buf_printf(out, "<feature name=\"%s\">\n", feature_names[f]);
		add_types(out, f, archs[arch].word);
		for (unsigned n = 0; n < archs[arch].n; n++) {
			const struct row *r = &archs[arch].rows[n];

			if (r->feature == f)
				buf_printf(out,
					   "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" "
					   "regnum=\"%u\"/>\n",
					   r->name, 8u * r->wire, r->type, n);
		}
		buf_printf(out, "</feature>\n");
	}
	buf_printf(out, "</target>\n");
}
