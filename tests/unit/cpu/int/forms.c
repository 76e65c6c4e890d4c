/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of forms, and their encoding by hand: no decoder or assembler of anyone's is trusted
 * here. */
#include "forms.h"

#include <string.h>

#include "cpu/x86.h"

/* What a form's bytes look like. */
#define MODRM	 0x0001u /* has ModRM; reg is random unless ext is set */
#define NO_MEM	 0x0002u /* .. register operands only */
#define NO_REG	 0x0004u /* .. memory operand only */
#define BYTE	 0x0008u /* has an 8-bit twin: the opcode's last byte less one */
#define WIDE	 0x0010u /* 16, 32 and 64 bits */
#define WIDE32	 0x0020u /* 32 and 64 bits */
#define PUSHES	 0x0040u /* 16 and 64 bits, 64 by default */
#define IMM8	 0x0080u
#define IMMZ	 0x0100u  /* as wide as the operand, at most 4 */
#define LOCKS	 0x0200u  /* LOCK may stand before the memory form */
#define STRING	 0x0400u  /* RSI, RDI point to data, a prefix of REP may come */
#define VEX	 0x0800u  /* pp, mmmmm and W in .vex; vvvv random */
#define OFFSETS	 0x1000u  /* a bit offset in the register: mostly small */
#define STACK	 0x2000u  /* RSP and RBP point to data */
#define DIVIDES	 0x4000u  /* RDX mostly small */
#define PLUS_R	 0x8000u  /* register in the opcode's low bits */
#define ONLY64	 0x10000u /* always with REX.W */
#define IMM16	 0x20000u
#define LEVEL	 0x200000u /* ENTER's second immediate */
#define COUNTS	 0x100000u /* RCX mostly small */
#define NOT64	 0x40000u  /* 32-bit code only */
#define NOT32	 0x80000u  /* 64-bit code only */
#define ANY_FLAG (X86_FLAG_CF | X86_FLAG_PF | X86_FLAG_AF | X86_FLAG_ZF | X86_FLAG_SF | X86_FLAG_OF)

struct form {
	const char *name;
	uint8_t op[8]; /* prefix 66 F2 F3 first, if the form has one; a jump with what it skips */
	uint8_t op_len;
	int8_t ext; /* ModRM.reg, or -1 */
	uint32_t kind;
	uint8_t vex_pp, vex_map;
	uint64_t undefined;
};

#define OP1(a)		{a}, 1
#define OP2(a, b)	{a, b}, 2
#define OP3(a, b, c)	{a, b, c}, 3
#define OP4(a, b, c, d) {a, b, c, d}, 4
#define ALU(name, n)                                                                               \
	{name " rm,r", OP1((n)*8 + 1), -1, MODRM | BYTE | WIDE | LOCKS},                           \
		{name " r,rm", OP1((n)*8 + 3), -1, MODRM | BYTE | WIDE},                           \
		{name " rm,imm", OP1(0x81), n, MODRM | BYTE | WIDE | IMMZ | LOCKS},                \
		{name " rm,imm8", OP1(0x83), n, MODRM | WIDE | IMM8 | LOCKS},                      \
	{                                                                                          \
		name " acc,imm", OP1((n)*8 + 5), -1, BYTE | WIDE | IMMZ                            \
	}
/* OF after a rotate by more than one is anything: silicon leaves one by a constant, one by CL
 * differently. */
#define SHIFT(name, n)                                                                             \
	{                                                                                          \
		name " rm,imm",		  OP1(0xc1), n, MODRM | BYTE | WIDE | IMM8, 0, 0,          \
		(n) < 2 ? X86_FLAG_OF : 0},                                                        \
		{name " rm,1", OP1(0xd1), n, MODRM | BYTE | WIDE},                                 \
	{                                                                                          \
		name " rm,cl", OP1(0xd3), n, MODRM | BYTE | WIDE                                   \
	}
#define BIT_TEST(name, op, n, locks)                                                               \
	{name " rm,r", OP2(0x0f, op), -1, MODRM | WIDE | OFFSETS | locks},                         \
	{                                                                                          \
		name " rm,imm", OP2(0x0f, 0xba), n, MODRM | WIDE | IMM8 | locks                    \
	}
/* Over INC EAX, or through it. */
#define SKIP(name, op, kind)                                                                       \
	{                                                                                          \
		name, OP4(op, 2, 0xff, 0xc0), -1, kind                                             \
	}
#define CC(n)                                                                                      \
	SKIP("j " #n, 0x70 + (n), 0), {"cmov " #n, OP2(0x0f, 0x40 + (n)), -1, MODRM | WIDE},       \
	{                                                                                          \
		"set " #n, OP2(0x0f, 0x90 + (n)), 0, MODRM                                         \
	}

static const struct form forms[] = {
	ALU("add", 0),
	ALU("or", 1),
	ALU("adc", 2),
	ALU("sbb", 3),
	ALU("and", 4),
	ALU("sub", 5),
	ALU("xor", 6),
	ALU("cmp", 7),
	{"test rm,r", OP1(0x85), -1, MODRM | BYTE | WIDE},
	{"test rm,imm", OP1(0xf7), 0, MODRM | BYTE | WIDE | IMMZ},
	{"test acc,imm", OP1(0xa9), -1, BYTE | WIDE | IMMZ},
	{"inc", OP1(0xff), 0, MODRM | BYTE | WIDE | LOCKS},
	{"dec", OP1(0xff), 1, MODRM | BYTE | WIDE | LOCKS},
	{"not", OP1(0xf7), 2, MODRM | BYTE | WIDE | LOCKS},
	{"neg", OP1(0xf7), 3, MODRM | BYTE | WIDE | LOCKS},
	{"mul", OP1(0xf7), 4, MODRM | BYTE | WIDE},
	{"imul", OP1(0xf7), 5, MODRM | BYTE | WIDE},
	{"div", OP1(0xf7), 6, MODRM | BYTE | WIDE | DIVIDES, 0, 0, ANY_FLAG},
	{"idiv", OP1(0xf7), 7, MODRM | BYTE | WIDE | DIVIDES, 0, 0, ANY_FLAG},
	{"imul r,rm", OP2(0x0f, 0xaf), -1, MODRM | WIDE},
	{"imul r,rm,imm", OP1(0x69), -1, MODRM | WIDE | IMMZ},
	{"imul r,rm,imm8", OP1(0x6b), -1, MODRM | WIDE | IMM8},
	SHIFT("rol", 0),
	SHIFT("ror", 1),
	SHIFT("rcl", 2),
	SHIFT("rcr", 3),
	SHIFT("shl", 4),
	SHIFT("shr", 5),
	SHIFT("sal", 6),
	SHIFT("sar", 7),
	{"shld rm,r,imm", OP2(0x0f, 0xa4), -1, MODRM | WIDE | IMM8},
	{"shld rm,r,cl", OP2(0x0f, 0xa5), -1, MODRM | WIDE},
	{"shrd rm,r,imm", OP2(0x0f, 0xac), -1, MODRM | WIDE | IMM8},
	{"shrd rm,r,cl", OP2(0x0f, 0xad), -1, MODRM | WIDE},
	BIT_TEST("bt", 0xa3, 4, 0),
	BIT_TEST("bts", 0xab, 5, LOCKS),
	BIT_TEST("btr", 0xb3, 6, LOCKS),
	BIT_TEST("btc", 0xbb, 7, LOCKS),
	{"bsf", OP2(0x0f, 0xbc), -1, MODRM | WIDE},
	{"bsr", OP2(0x0f, 0xbd), -1, MODRM | WIDE},
	{"tzcnt", OP3(0xf3, 0x0f, 0xbc), -1, MODRM | WIDE},
	{"lzcnt", OP3(0xf3, 0x0f, 0xbd), -1, MODRM | WIDE},
	{"popcnt", OP3(0xf3, 0x0f, 0xb8), -1, MODRM | WIDE},
	{"xadd", OP2(0x0f, 0xc1), -1, MODRM | BYTE | WIDE | LOCKS},
	{"cmpxchg", OP2(0x0f, 0xb1), -1, MODRM | BYTE | WIDE | LOCKS},
	{"cmpxchg8b", OP2(0x0f, 0xc7), 1, MODRM | NO_REG | LOCKS},
	{"cmpxchg16b", OP2(0x0f, 0xc7), 1, MODRM | NO_REG | LOCKS | ONLY64 | NOT32},
	{"xchg", OP1(0x87), -1, MODRM | BYTE | WIDE | LOCKS},
	{"xchg acc,r", OP1(0x90), -1, PLUS_R | WIDE},
	{"mov rm,r", OP1(0x89), -1, MODRM | BYTE | WIDE},
	{"mov r,rm", OP1(0x8b), -1, MODRM | BYTE | WIDE},
	{"mov rm,imm", OP1(0xc7), 0, MODRM | BYTE | WIDE | IMMZ},
	{"mov r8,imm8", OP1(0xb0), -1, PLUS_R | IMM8},
	{"movzx r,rm8", OP2(0x0f, 0xb6), -1, MODRM | WIDE},
	{"movzx r,rm16", OP2(0x0f, 0xb7), -1, MODRM | WIDE},
	{"movsx r,rm8", OP2(0x0f, 0xbe), -1, MODRM | WIDE},
	{"movsx r,rm16", OP2(0x0f, 0xbf), -1, MODRM | WIDE},
	{"movsxd", OP1(0x63), -1, MODRM | WIDE | NOT32},
	{"movnti", OP2(0x0f, 0xc3), -1, MODRM | NO_REG | WIDE32},
	{"movbe r,m", OP3(0x0f, 0x38, 0xf0), -1, MODRM | NO_REG | WIDE},
	{"movbe m,r", OP3(0x0f, 0x38, 0xf1), -1, MODRM | NO_REG | WIDE},
	{"crc32 r,rm8", OP4(0xf2, 0x0f, 0x38, 0xf0), -1, MODRM | WIDE32},
	{"crc32 r,rm", OP4(0xf2, 0x0f, 0x38, 0xf1), -1, MODRM | WIDE},
	{"adcx", OP4(0x66, 0x0f, 0x38, 0xf6), -1, MODRM | WIDE32},
	{"adox", OP4(0xf3, 0x0f, 0x38, 0xf6), -1, MODRM | WIDE32},
	{"lea", OP1(0x8d), -1, MODRM | NO_REG | WIDE},
	{"bswap", OP2(0x0f, 0xc8), -1, PLUS_R | WIDE},
	{"andn", OP1(0xf2), -1, MODRM | VEX | WIDE32, 0, 2},
	{"blsr", OP1(0xf3), 1, MODRM | VEX | WIDE32, 0, 2},
	{"blsmsk", OP1(0xf3), 2, MODRM | VEX | WIDE32, 0, 2},
	{"blsi", OP1(0xf3), 3, MODRM | VEX | WIDE32, 0, 2},
	{"bextr", OP1(0xf7), -1, MODRM | VEX | WIDE32, 0, 2},
	{"bzhi", OP1(0xf5), -1, MODRM | VEX | WIDE32, 0, 2},
	{"pext", OP1(0xf5), -1, MODRM | VEX | WIDE32, 2, 2},
	{"pdep", OP1(0xf5), -1, MODRM | VEX | WIDE32, 3, 2},
	{"mulx", OP1(0xf6), -1, MODRM | VEX | WIDE32, 3, 2},
	{"sarx", OP1(0xf7), -1, MODRM | VEX | WIDE32, 2, 2},
	{"shlx", OP1(0xf7), -1, MODRM | VEX | WIDE32, 1, 2},
	{"shrx", OP1(0xf7), -1, MODRM | VEX | WIDE32, 3, 2},
	CC(0),
	CC(1),
	CC(2),
	CC(3),
	CC(4),
	CC(5),
	CC(6),
	CC(7),
	CC(8),
	CC(9),
	CC(10),
	CC(11),
	CC(12),
	CC(13),
	CC(14),
	CC(15),
	SKIP("jmp", 0xeb, 0),
	SKIP("loop", 0xe2, COUNTS),
	SKIP("loope", 0xe1, COUNTS),
	SKIP("loopne", 0xe0, COUNTS),
	SKIP("jcxz", 0xe3, COUNTS),
	{"call", {0xe8, 2, 0, 0, 0, 0xff, 0xc0}, 7, -1, STACK},
	{"jmp rm", OP1(0xff), 4, MODRM | PUSHES},
	{"call rm", OP1(0xff), 2, MODRM | PUSHES | STACK},
	{"ret", OP1(0xc3), -1, PUSHES | STACK},
	{"ret imm", OP1(0xc2), -1, IMM16 | PUSHES | STACK},
	{"cbw", OP1(0x98), -1, WIDE},
	{"cwd", OP1(0x99), -1, WIDE},
	{"lahf", OP1(0x9f), -1, 0},
	{"sahf", OP1(0x9e), -1, 0},
	{"clc", OP1(0xf8), -1, 0},
	{"stc", OP1(0xf9), -1, 0},
	{"cmc", OP1(0xf5), -1, 0},
	{"cld", OP1(0xfc), -1, 0},
	{"std", OP1(0xfd), -1, 0},
	{"movs", OP1(0xa5), -1, STRING | BYTE | WIDE},
	{"cmps", OP1(0xa7), -1, STRING | BYTE | WIDE},
	{"stos", OP1(0xab), -1, STRING | BYTE | WIDE},
	{"lods", OP1(0xad), -1, STRING | BYTE | WIDE},
	{"scas", OP1(0xaf), -1, STRING | BYTE | WIDE},
	{"push r", OP1(0x50), -1, PLUS_R | PUSHES | STACK},
	{"pop r", OP1(0x58), -1, PLUS_R | PUSHES | STACK},
	{"push imm8", OP1(0x6a), -1, IMM8 | PUSHES | STACK},
	{"push imm", OP1(0x68), -1, IMMZ | PUSHES | STACK},
	{"push rm", OP1(0xff), 6, MODRM | PUSHES | STACK},
	{"pop rm", OP1(0x8f), 0, MODRM | PUSHES | STACK},
	{"pushf", OP1(0x9c), -1, PUSHES | STACK},
	{"popf", OP1(0x9d), -1, PUSHES | STACK},
	{"leave", OP1(0xc9), -1, PUSHES | STACK},
	{"enter", OP1(0xc8), -1, IMM16 | LEVEL | PUSHES | STACK},
	{"xlat", OP1(0xd7), -1, STRING},
	{"nop rm", OP2(0x0f, 0x1f), 0, MODRM | WIDE},
	{"prefetch", OP2(0x0f, 0x18), 1, MODRM | NO_REG},
	{"clflush", OP2(0x0f, 0xae), 7, MODRM | NO_REG},
	{"lfence", OP3(0x0f, 0xae, 0xe8), -1, 0},
	{"mfence", OP3(0x0f, 0xae, 0xf0), -1, 0},
	{"ud2", OP2(0x0f, 0x0b), -1, 0},
	{"int3", OP1(0xcc), -1, 0},
	{"salc (invalid)", OP1(0xd6), -1, NOT32},
	{"daa (invalid)", OP1(0x27), -1, NOT32},
	{"pusha (invalid)", OP1(0x60), -1, NOT32},
	{"salc", OP1(0xd6), -1, NOT64},
	{"daa", OP1(0x27), -1, NOT64, 0, 0, X86_FLAG_OF},
	{"das", OP1(0x2f), -1, NOT64, 0, 0, X86_FLAG_OF},
	{"aaa", OP1(0x37), -1, NOT64, 0, 0, ANY_FLAG & ~(X86_FLAG_CF | X86_FLAG_AF)},
	{"aas", OP1(0x3f), -1, NOT64, 0, 0, ANY_FLAG & ~(X86_FLAG_CF | X86_FLAG_AF)},
	{"aam", OP1(0xd4), -1, NOT64 | IMM8, 0, 0, X86_FLAG_CF | X86_FLAG_AF | X86_FLAG_OF},
	{"aad", OP1(0xd5), -1, NOT64 | IMM8, 0, 0, X86_FLAG_CF | X86_FLAG_AF | X86_FLAG_OF},
	{"pusha", OP1(0x60), -1, NOT64 | PUSHES | STACK},
	{"popa", OP1(0x61), -1, NOT64 | PUSHES | STACK},
	{"inc r", OP1(0x40), -1, NOT64 | PLUS_R | WIDE},
	{"dec r", OP1(0x48), -1, NOT64 | PLUS_R | WIDE},
	{"bound", OP1(0x62), -1, NOT64 | MODRM | NO_REG | WIDE},
	{"into", OP1(0xce), -1, NOT64},
	{"push es", OP1(0x06), -1, NOT64 | PUSHES | STACK},
	{"alu 82", OP1(0x82), 2, NOT64 | MODRM | IMM8},
};

bool forms_has(unsigned n, unsigned bits)
{
	return !(forms[n].kind & (bits == 64 ? NOT64 : NOT32));
}

unsigned forms_count(void)
{
	return ARRAY_SIZE(forms);
}

uint64_t forms_random(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint64_t below(uint64_t *seed, uint64_t n)
{
	return forms_random(seed) % n;
}

/* Numbers that matter: edges, small ones, anything. */
static uint64_t interesting(uint64_t *seed)
{
	uint64_t v = forms_random(seed);

	switch (below(seed, 8)) {
	case 0: return v & 0xff;
	case 1: return 0;
	case 2: return ~0ull;
	case 3: return 1ull << (v & 63);
	case 4: return (1ull << (v & 63)) - 1;
	case 5: return (uint64_t)(int64_t)(int32_t)v;
	default: return v;
	}
}

/* Mostly well inside, sometimes over the middle of the two pages, at the end, outside, or not
 * canonical. */
static uint64_t pointer(uint64_t *seed, uint64_t data)
{
	bool low = data < BIT(32);

	switch (below(seed, 16)) {
	case 0: return data + PAGE_SIZE - 1 - below(seed, 16);
	case 1: return data + FORMS_DATA_PAGES * PAGE_SIZE - below(seed, 20);
	case 2: return data - below(seed, 16);
	case 3: return low ? (uint32_t)forms_random(seed) | BIT(31) : forms_random(seed) | BIT(62);
	case 4: return data + (below(seed, FORMS_DATA_PAGES * PAGE_SIZE - 64) & ~15ull);
	default: return data + 64 + below(seed, FORMS_DATA_PAGES * PAGE_SIZE - 256);
	}
}

struct encoder {
	const struct form *t;
	struct form_case *f;
	uint64_t *seed, data;
	unsigned bits, regs; /* 64 or 32; 16 or 8 */
	unsigned size;	     /* 1 2 4 8 */
	uint8_t rex;
	bool lock, mem;
	uint8_t prefix[6], n_prefix;
	uint8_t modrm[6], n_modrm;
	uint8_t op_low;
};

static void put(struct form_case *f, const void *bytes, unsigned n)
{
	memcpy(f->code + f->len, bytes, n);
	f->len += n;
}

static unsigned choose_size64(const struct form *t, uint64_t *seed)
{
	static const uint8_t wide[] = {2, 4, 8, 4, 8};

	if (t->kind & ONLY64)
		return 8;
	if (t->kind & BYTE && below(seed, 4) == 0)
		return 1;
	if (t->kind & PUSHES)
		return below(seed, 4) ? 8 : 2;
	if (t->kind & WIDE32)
		return below(seed, 2) ? 8 : 4;
	return t->kind & WIDE ? wide[below(seed, ARRAY_SIZE(wide))] : 4;
}

static unsigned choose_size(const struct form *t, uint64_t *seed, unsigned bits)
{
	unsigned size = choose_size64(t, seed);

	return size == 8 && bits == 32 ? 4 : size;
}

/* [base], [base+disp8], [base+disp32], [base+index*scale+disp8], [rip+..] never: the code moves. */
static void make_memory(struct encoder *e)
{
	uint64_t *g = e->f->regs.gpr, target = pointer(e->seed, e->data);
	unsigned base, index = (unsigned)below(e->seed, e->regs),
		       scale = (unsigned)below(e->seed, 4);
	bool sib = below(e->seed, 3) == 0, wide = below(e->seed, 2);
	int32_t disp = (int32_t)below(e->seed, 256) - 128;
	unsigned reg = e->modrm[0] >> 3 & 7;

	do
		base = (unsigned)below(e->seed, e->regs);
	while (base == X86_RSP && !(e->t->kind & STACK));
	if (index == X86_RSP || index == base)
		sib = false;
	if (wide)
		disp *= 100;
	if (e->t->kind & STACK && base == X86_RSP)
		disp = (int32_t)below(e->seed, 100);
	else if (!(e->t->kind & STRING))
		g[base] = target - (uint64_t)(int64_t)disp;
	if (sib) {
		g[index] = below(e->seed, 200);
		g[base] -= g[index] << scale;
	}
	e->rex |= (uint8_t)(base >> 3 | (sib ? (index >> 3) << 1 : 0));
	e->modrm[0] = (uint8_t)((wide ? 0x80 : 0x40) | reg << 3 |
				(sib || (base & 7) == 4 ? 4 : base & 7));
	e->n_modrm = 1;
	if (sib)
		e->modrm[e->n_modrm++] = (uint8_t)(scale << 6 | (index & 7) << 3 | (base & 7));
	else if ((base & 7) == 4)
		e->modrm[e->n_modrm++] = (uint8_t)(0x20 | (base & 7));
	if (!wide) {
		e->modrm[e->n_modrm++] = (uint8_t)disp;
	} else {
		/* room for SIB + disp32 is exactly what modrm[] has */
		memcpy(e->modrm + e->n_modrm, &disp, 4);
		e->n_modrm += 4;
	}
}

static void make_modrm(struct encoder *e)
{
	unsigned reg = (unsigned)below(e->seed, e->regs), rm = (unsigned)below(e->seed, e->regs);

	if (e->t->ext >= 0)
		reg = (unsigned)e->t->ext;
	e->rex |= (uint8_t)((reg >> 3) << 2);
	e->modrm[0] = (uint8_t)((reg & 7) << 3);
	e->mem = !(e->t->kind & NO_MEM) && (e->t->kind & NO_REG || below(e->seed, 2));
	if (e->mem) {
		make_memory(e);
		if (e->t->kind & OFFSETS && below(e->seed, 4))
			e->f->regs.gpr[reg] = below(e->seed, 4096) - 512;
		return;
	}
	e->modrm[0] |= (uint8_t)(0xc0 | (rm & 7));
	e->n_modrm = 1;
	e->rex |= (uint8_t)(rm >> 3);
}

static void make_registers(struct encoder *e)
{
	struct native_regs *r = &e->f->regs;
	uint64_t flags = forms_random(e->seed) & ANY_FLAG;

	for (unsigned k = 0; k < 16; k++)
		r->gpr[k] = interesting(e->seed);
	r->gpr[X86_RSP] = e->data + 1024 + (below(e->seed, 2048) & ~7ull);
	if (e->t->kind & STACK && below(e->seed, 4) == 0)
		r->gpr[X86_RSP] = pointer(e->seed, e->data);
	if (e->t->kind & STACK && below(e->seed, 8))
		r->gpr[X86_RBP] = e->data + 1024 + below(e->seed, 2048);
	if (e->t->kind & DIVIDES && below(e->seed, 4)) {
		r->gpr[X86_RDX] = below(e->seed, 3) - 1;
		if (below(e->seed, 2))
			r->gpr[X86_RAX] &= 0xff;
	}
	if (e->t->kind & COUNTS)
		r->gpr[X86_RCX] = (r->gpr[X86_RCX] & ~0xffffffffull) | below(e->seed, 3);
	r->rflags = flags | X86_FLAG_IF | X86_FLAG_ONE | (below(e->seed, 8) ? 0 : X86_FLAG_AC);
	if (e->t->kind & STRING) {
		r->gpr[X86_RSI] = pointer(e->seed, e->data);
		r->gpr[X86_RDI] = below(e->seed, 4) ? pointer(e->seed, e->data)
						    : r->gpr[X86_RSI] + below(e->seed, 32) - 16;
		r->gpr[X86_RBX] = pointer(e->seed, e->data) - 128;
		r->gpr[X86_RCX] = below(e->seed, 4) ? below(e->seed, 40) : below(e->seed, 3000);
		r->rflags |= below(e->seed, 3) ? 0 : X86_FLAG_DF;
	}
}

static void emit_vex(struct encoder *e)
{
	unsigned vvvv = (unsigned)below(e->seed, e->regs);
	uint8_t v[3] = {
		0xc4,
		(uint8_t)(((~e->rex & 7) << 5) | e->t->vex_map),
		(uint8_t)((e->size == 8 ? 0x80 : 0) | (~vvvv & 15) << 3 | e->t->vex_pp),
	};

	/* REX is W R X B; here R X B, inverted, from the top. */
	v[1] = (uint8_t)((e->rex & 4 ? 0 : 0x80) | (e->rex & 2 ? 0 : 0x40) |
			 (e->rex & 1 ? 0 : 0x20) | e->t->vex_map);
	if (e->bits == 32)
		v[1] |= 0xe0;
	put(e->f, v, 3);
	put(e->f, e->t->op, 1);
}

static void emit_legacy(struct encoder *e)
{
	uint8_t op[8],
		rex = (uint8_t)(0x40 | e->rex | (e->size == 8 && !(e->t->kind & PUSHES) ? 8 : 0));
	unsigned skip = e->t->op[0] == 0x66 || e->t->op[0] == 0xf2 || e->t->op[0] == 0xf3;

	memcpy(op, e->t->op, sizeof(op));
	if (e->size == 1)
		op[e->t->op_len - 1] -= 1;
	op[e->t->op_len - 1] |= e->op_low;
	put(e->f, e->prefix, e->n_prefix);
	if (e->size == 2)
		put(e->f, "\x66", 1);
	put(e->f, op, skip);
	if (e->bits == 64 && (rex != 0x40 || below(e->seed, 2)))
		put(e->f, &rex, 1);
	put(e->f, op + skip, e->t->op_len - skip);
}

static void emit_immediate(struct encoder *e)
{
	uint64_t imm = interesting(e->seed);

	if (e->t->kind & IMM16) {
		imm &= 0xff;
		put(e->f, &imm, 2);
		imm = below(e->seed, 3) ? 0 : below(e->seed, 40);
	}
	if (e->t->kind & (IMM8 | LEVEL))
		put(e->f, &imm, 1);
	else if (e->t->kind & IMMZ)
		put(e->f, &imm, e->size > 4 ? 4 : e->size);
}

void forms_make(unsigned n, const struct form_place *p, uint64_t *seed, struct form_case *f)
{
	struct encoder e = {
		.t = &forms[n],
		.f = f,
		.seed = seed,
		.data = p->data,
		.bits = p->bits,
		.regs = p->bits == 64 ? 16 : 8,
	};

	memset(f, 0, sizeof(*f));
	f->name = e.t->name;
	f->undefined = e.t->undefined;
	e.size = choose_size(e.t, seed, e.bits);
	make_registers(&e);
	if (e.t->kind & STRING && below(seed, 2))
		e.prefix[e.n_prefix++] = below(seed, 2) ? 0xf3 : 0xf2;
	if (e.t->kind & (STRING | COUNTS) && e.bits == 64 && below(seed, 8) == 0)
		e.prefix[e.n_prefix++] = 0x67;
	if (e.t->kind & MODRM)
		make_modrm(&e);
	if (e.t->kind & PLUS_R) {
		unsigned reg = (unsigned)below(seed, e.regs);

		e.op_low = reg & 7;
		e.rex |= (uint8_t)(reg >> 3);
	}
	if (e.mem && e.t->kind & LOCKS && below(seed, 3) == 0) {
		e.lock = true;
		e.prefix[e.n_prefix++] = 0xf0;
	}
	if (e.t->kind & VEX)
		emit_vex(&e);
	else
		emit_legacy(&e);
	put(f, e.modrm, e.n_modrm);
	emit_immediate(&e);
	for (unsigned k = 0; k < 16 && e.bits == 32; k++)
		f->regs.gpr[k] = k < 8 ? (uint32_t)f->regs.gpr[k] : 0;
}
