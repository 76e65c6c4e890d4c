/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Thunks: the guest's own SIMD and x87 instructions, encoded anew, in executable memory. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/fp_internal.h"

#define ARENA_SIZE  MIB(32)
#define HASH_BITS   12
#define THUNK_MAX   160 /* bytes */
#define THUNK_ALIGN 16

struct thunk {
	struct thunk *next;
	uint32_t off;
	uint32_t len;
};

/*
 * One arena a process: thunks hold nothing of a machine. Pages are writable at rw, executable at
 * rx. It stays when its last user goes: a process that has locked itself up cannot map another.
 */
struct cpu_thunks {
	uint8_t *rw, *rx;
	size_t used;
	struct thunk *hash[1u << HASH_BITS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cpu_thunks *arena; /* under lock */

static int map_arena(struct cpu_thunks *t)
{
	int fd = memfd_create("umbra-thunks", MFD_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	t->rw = t->rx = MAP_FAILED;
	if (ftruncate(fd, ARENA_SIZE) < 0)
		ret = -errno;
	if (!ret) {
		t->rw = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (t->rw == MAP_FAILED)
			ret = -errno;
	}
	if (!ret) {
		t->rx = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
		if (t->rx == MAP_FAILED)
			ret = -errno;
	}
	if (ret && t->rw != MAP_FAILED)
		munmap(t->rw, ARENA_SIZE);
	close(fd);
	return ret;
}

int cpu_prepare(void)
{
	int ret = 0;

	pthread_mutex_lock(&lock);
	if (!arena) {
		struct cpu_thunks *t = calloc(1, sizeof(*t));

		ret = t ? map_arena(t) : -ENOMEM;
		if (ret)
			free(t);
		else
			arena = t;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

int cpu_thunks_init(struct cpu *c)
{
	int ret = cpu_prepare();

	if (!ret)
		c->thunks = arena;
	return ret;
}

static unsigned hash_bytes(const uint8_t *p, unsigned len)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (unsigned n = 0; n < len; n++)
		h = (h ^ p[n]) * 0x100000001b3ull;
	return (unsigned)(h >> 32) & ((1u << HASH_BITS) - 1);
}

/* The one thunk with these bytes; NULL when there is no room. */
static void *intern(struct cpu_thunks *t, const uint8_t *code, unsigned len)
{
	struct thunk **head = &t->hash[hash_bytes(code, len)];
	struct thunk *k;

	pthread_mutex_lock(&lock);
	for (k = *head; k; k = k->next)
		if (k->len == len && memcmp(t->rw + k->off, code, len) == 0)
			break;
	if (!k && t->used + len <= ARENA_SIZE && (k = malloc(sizeof(*k)))) {
		k->off = (uint32_t)t->used;
		k->len = len;
		k->next = *head;
		*head = k;
		memcpy(t->rw + k->off, code, len);
		t->used = ALIGN_UP(t->used + len, THUNK_ALIGN);
	}
	pthread_mutex_unlock(&lock);
	return k ? t->rx + k->off : NULL;
}

/* ---- emitting -------------------------------------------------------------------------------- */

struct emit {
	uint8_t code[THUNK_MAX];
	unsigned len;
};

static void put(struct emit *e, const void *bytes, unsigned len)
{
	assert(e->len + len <= THUNK_MAX);
	memcpy(e->code + e->len, bytes, len);
	e->len += len;
}
#define PUT(e, ...) put(e, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put32(struct emit *e, uint32_t v)
{
	put(e, &v, 4);
}

#define OFF_R1	 offsetof(struct cpu_insn, r1)
#define OFF_R2	 offsetof(struct cpu_insn, r2)
#define OFF_R3	 offsetof(struct cpu_insn, r3)
#define OFF_ARG	 offsetof(struct cpu_insn, arg)
#define OFF_YMMH ((uint32_t)offsetof(struct cpu, s.ymmh))
#define OFF_XMM	 ((uint32_t)offsetof(struct cpu, s.fx.xmm))
#define OFF_ST	 ((uint32_t)offsetof(struct cpu, s.fx.st))
#define OFF_FL	 ((uint32_t)offsetof(struct cpu, fl))
static_assert(OFF_R3 < 128 && OFF_ARG < 128, "an 8-bit displacement");
static_assert(offsetof(struct cpu, s.gpr) == 0, "GPRs are at their operand's offset");

enum reg_class { CLASS_NONE, CLASS_XMM, CLASS_MMX, CLASS_GPR, CLASS_YMM };

/* A ModRM operand in its register form. */
struct operand {
	enum reg_class cls;
	unsigned num;  /* of the register in the thunk: 1 or 2, RCX */
	unsigned slot; /* OFF_R1 or OFF_R2; of VEX also OFF_R3 and OFF_ARG */
	bool write;
	bool read; /* of VEX's */
};

/* movzbl slot(%rsi),%eax */
static void put_slot(struct emit *e, unsigned slot)
{
	PUT(e, 0x0f, 0xb6, 0x46, (uint8_t)slot);
}

static void put_load(struct emit *e, const struct operand *o)
{
	uint8_t modrm = (uint8_t)(0x84 | o->num << 3); /* disp32(%rdi,%rax) */

	if (o->cls == CLASS_NONE)
		return;
	put_slot(e, o->slot);
	switch (o->cls) {
	case CLASS_XMM:
		PUT(e, 0x0f, 0x10, modrm, 0x07);
		put32(e, OFF_XMM);
		break;
	case CLASS_MMX:
		PUT(e, 0x0f, 0x6f, modrm, 0x07);
		put32(e, OFF_ST);
		break;
	default: PUT(e, 0x48, 0x8b, 0x0c, 0x07); /* mov (%rdi,%rax),%rcx */
	}
}

static void put_store(struct emit *e, const struct operand *o)
{
	uint8_t modrm = (uint8_t)(0x84 | o->num << 3);

	if (o->cls == CLASS_NONE || !o->write)
		return;
	put_slot(e, o->slot);
	switch (o->cls) {
	case CLASS_XMM:
		PUT(e, 0x0f, 0x11, modrm, 0x07);
		put32(e, OFF_XMM);
		break;
	case CLASS_MMX:
		PUT(e, 0x0f, 0x7f, modrm, 0x07);
		put32(e, OFF_ST);
		PUT(e, 0x66, 0xc7, 0x84,
		    0x07); /* movw $-1: what a written register's exponent is */
		put32(e, OFF_ST + 8);
		PUT(e, 0xff, 0xff);
		break;
	default: PUT(e, 0x48, 0x89, 0x0c, 0x07);
	}
}

/* The instruction itself. @reg and @rm are what goes into ModRM; memory is (%rdx), or (%r8). */
static void put_insn(struct emit *e, const struct cpu_dec *d, int reg, int rm, bool mem_r8)
{
	const ZydisDecodedInstruction *zi = &d->zi;
	unsigned op_at = 0, modrm_at = zi->raw.modrm.offset;
	uint8_t modrm = d->bytes[modrm_at], rex = 0;

	for (unsigned n = 0; n < zi->raw.prefix_count; n++)
		if (zi->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
			put(e, &zi->raw.prefixes[n].value, 1);
	op_at = zi->raw.prefix_count;
	if (zi->raw.rex.W)
		rex = 0x48;
	if (reg >= 0)
		modrm = (uint8_t)((modrm & 0xc7) | reg << 3);
	if (zi->raw.modrm.mod == 3) {
		if (rm >= 0)
			modrm = (uint8_t)((modrm & 0xf8) | rm);
	} else {
		modrm = (uint8_t)((modrm & 0x38) | (mem_r8 ? 0 : 2));
		rex |= mem_r8 ? 0x41 : 0;
	}
	if (rex)
		put(e, &rex, 1);
	put(e, d->bytes + op_at, modrm_at - op_at);
	put(e, &modrm, 1);
	for (unsigned n = 0; n < ARRAY_SIZE(zi->raw.imm); n++)
		if (zi->raw.imm[n].size)
			put(e, d->bytes + zi->raw.imm[n].offset, zi->raw.imm[n].size / 8);
}

static enum reg_class reg_class(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_XMM: return CLASS_XMM;
	case ZYDIS_REGCLASS_YMM: return CLASS_YMM;
	case ZYDIS_REGCLASS_MMX: return CLASS_MMX;
	default: return CLASS_GPR;
	}
}

static uint8_t operand_slot(ZydisRegister r)
{
	if (reg_class(r) == CLASS_GPR)
		return cpu_reg_offset(r);
	return (uint8_t)(ZydisRegisterGetId(r) * 16);
}

/* Find the operands that ModRM names; what is written goes into i->arg. */
static void find_operands(const struct cpu_dec *d, struct cpu_insn *i, struct operand *reg,
			  struct operand *rm)
{
	for (unsigned n = 0; n < d->zi.operand_count_visible; n++) {
		const ZydisDecodedOperand *z = &d->op[n];
		bool is_rm = z->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
		struct operand *o = is_rm ? rm : reg;
		static const uint8_t dest[] = {0, THUNK_DEST_XMM, THUNK_DEST_MMX, THUNK_DEST_GPR};

		if (z->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		if (!is_rm && z->encoding != ZYDIS_OPERAND_ENCODING_MODRM_REG)
			continue;
		o->cls = reg_class(z->reg.value);
		o->slot = is_rm ? OFF_R2 : OFF_R1;
		o->num = is_rm && o->cls != CLASS_GPR ? 2 : 1;
		o->write = z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
		if (o->cls == CLASS_MMX)
			i->arg |= THUNK_USES_MMX;
		if (o->write)
			i->arg |= dest[o->cls] | (is_rm ? THUNK_DEST_RM : 0);
		*(is_rm ? &i->r2 : &i->r1) = operand_slot(z->reg.value);
	}
}

static void put_store_flags(struct emit *e)
{
	PUT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto %al: the form of cpu.fl */
}

cpu_thunk_fn cpu_thunk_simd(const struct cpu_dec *d, struct cpu_insn *i, unsigned how)
{
	struct operand reg = {0}, rm = {0};
	struct emit e = {.len = 0};
	bool mem = d->zi.raw.modrm.mod != 3;

	find_operands(d, i, &reg, &rm);
	if (how & THUNK_XMM0_IN) {
		PUT(&e, 0x0f, 0x10, 0x87);
		put32(&e, OFF_XMM);
	}
	put_load(&e, &reg);
	put_load(&e, &rm);
	if (how & THUNK_AX_DX_IN) {
		PUT(&e, 0x49, 0x89, 0xd0);	 /* mov %rdx,%r8 */
		PUT(&e, 0x48, 0x8b, 0x07);	 /* mov RAX(%rdi),%rax */
		PUT(&e, 0x48, 0x8b, 0x57, 0x10); /* mov RDX(%rdi),%rdx */
	}
	put_insn(&e, d, reg.cls ? (int)reg.num : -1, rm.cls ? (int)rm.num : -1,
		 mem && (how & THUNK_AX_DX_IN));
	if (how & THUNK_FLAGS_OUT) {
		i->arg |= THUNK_DEST_FL;
		put_store_flags(&e);
		PUT(&e, 0x66, 0x89, 0x87); /* mov %ax,fl(%rdi) */
		put32(&e, OFF_FL);
	}
	if (how & THUNK_CX_OUT)
		PUT(&e, 0x48, 0x89, 0x4f, 0x08);
	if (how & THUNK_XMM0_OUT) {
		PUT(&e, 0x0f, 0x11, 0x87);
		put32(&e, OFF_XMM);
	}
	put_store(&e, &reg);
	put_store(&e, &rm);
	if (i->arg & THUNK_USES_MMX)
		PUT(&e, 0x0f, 0x77); /* emms: the host's x87 registers are free again */
	if (how & THUNK_TAIL)
		PUT(&e, 0x48, 0x83, 0xc6, sizeof(struct cpu_insn), 0xff,
		    0x26); /* add $,%rsi; jmp *(%rsi) */
	else
		PUT(&e, 0xc3);
	return (cpu_thunk_fn)intern(d->c->thunks, e.code, e.len);
}

/* ---- VEX ------------------------------------------------------------------------------------- */

enum { VEX_REG, VEX_RM, VEX_V, VEX_IS4, VEX_OPERANDS };

static void put_vex_load(struct emit *e, const struct operand *o)
{
	const uint8_t modrm = (uint8_t)(0x84 | o->num << 3);

	if (o->cls == CLASS_NONE || !o->read)
		return;
	if (o->cls == CLASS_GPR) {
		put_load(e, o);
		return;
	}
	put_slot(e, o->slot);
	PUT(e, 0xc5, 0xf8, 0x10, modrm, 0x07); /* vmovups disp32(%rdi,%rax),%xmm */
	put32(e, OFF_XMM);
	if (o->cls == CLASS_YMM) {
		/* vinsertf128 $1,disp32(%rdi,%rax),%ymm,%ymm */
		PUT(e, 0xc4, 0xe3, (uint8_t)(0x05 | (~o->num & 15) << 3), 0x18, modrm, 0x07);
		put32(e, OFF_YMMH);
		PUT(e, 0x01);
	}
}

/* Written whole: the instruction itself has zeroed the upper half where it does. */
static void put_vex_store(struct emit *e, const struct operand *o)
{
	const uint8_t modrm = (uint8_t)(0x84 | o->num << 3);

	if (o->cls == CLASS_NONE || !o->write)
		return;
	if (o->cls == CLASS_GPR) {
		put_store(e, o);
		return;
	}
	put_slot(e, o->slot);
	PUT(e, 0xc5, 0xf8, 0x11, modrm, 0x07);
	put32(e, OFF_XMM);
	PUT(e, 0xc4, 0xe3, 0x7d, 0x19, modrm, 0x07); /* vextractf128 $1,%ymm,disp32(%rdi,%rax) */
	put32(e, OFF_YMMH);
	PUT(e, 0x01);
}

/* Outside 64-bit mode VEX.W of a GPR operand does nothing; the host would obey it. */
static bool ignores_w(const struct cpu_dec *d)
{
	const uint8_t op = d->zi.opcode;

	if ((d->mode & CPU_MODE_CODE) == CPU_MODE_CODE64)
		return false;
	switch (d->zi.raw.vex.m_mmmm) {
	case 1: return op == 0x6e || op == 0x7e || op == 0x2a || op == 0x2c || op == 0x2d;
	case 3: return op == 0x16 || op == 0x22;
	default: return false;
	}
}

static void put_vex_insn(struct emit *e, const struct cpu_dec *d, const struct operand *o,
			 bool mem_r8)
{
	const ZydisDecodedInstruction *zi = &d->zi;
	uint8_t modrm = d->bytes[zi->raw.modrm.offset],
		vvvv = o[VEX_V].cls ? (uint8_t)o[VEX_V].num : 0;
	bool mem = zi->raw.modrm.mod != 3, w = zi->raw.vex.W && !ignores_w(d);

	if (o[VEX_REG].cls)
		modrm = (uint8_t)((modrm & 0xc7) | o[VEX_REG].num << 3);
	if (mem)
		modrm = (uint8_t)((modrm & 0x38) | (mem_r8 ? 0 : 2));
	else if (o[VEX_RM].cls)
		modrm = (uint8_t)((modrm & 0xf8) | o[VEX_RM].num);
	PUT(e, 0xc4, (uint8_t)((mem && mem_r8 ? 0xc0 : 0xe0) | zi->raw.vex.m_mmmm),
	    (uint8_t)(w << 7 | (~vvvv & 15) << 3 | zi->raw.vex.L << 2 | zi->raw.vex.pp), zi->opcode,
	    modrm);
	if (o[VEX_IS4].cls)
		PUT(e, (uint8_t)(o[VEX_IS4].num << 4));
	else if (zi->raw.imm[0].size)
		put(e, d->bytes + zi->raw.imm[0].offset, zi->raw.imm[0].size / 8);
}

static void find_vex_operands(const struct cpu_dec *d, struct cpu_insn *i,
			      struct operand o[VEX_OPERANDS])
{
	static const uint8_t slot[VEX_OPERANDS] = {OFF_R1, OFF_R2, OFF_R3, OFF_ARG};

	for (unsigned n = 0; n < d->zi.operand_count_visible; n++) {
		const ZydisDecodedOperand *z = &d->op[n];
		unsigned which;

		if (z->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (z->encoding) {
		case ZYDIS_OPERAND_ENCODING_MODRM_REG: which = VEX_REG; break;
		case ZYDIS_OPERAND_ENCODING_MODRM_RM: which = VEX_RM; break;
		case ZYDIS_OPERAND_ENCODING_NDSNDD: which = VEX_V; break;
		default: which = VEX_IS4;
		}
		o[which] = (struct operand){
			.cls = reg_class(z->reg.value),
			.num = which + 1,
			.slot = slot[which],
			.write = z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE,
			.read = z->actions & ZYDIS_OPERAND_ACTION_MASK_READ,
		};
		if (o[which].cls == CLASS_GPR)
			o[which].num = 1;
		if (o[which].cls == CLASS_GPR && o[which].write)
			i->arg |= THUNK_DEST_GPR;
		if (which == VEX_IS4)
			i->arg = operand_slot(z->reg.value);
		else
			*((uint8_t *)i + slot[which]) = operand_slot(z->reg.value);
	}
}

cpu_thunk_fn cpu_thunk_avx(const struct cpu_dec *d, struct cpu_insn *i, unsigned how)
{
	struct operand o[VEX_OPERANDS] = {0};
	struct emit e = {.len = 0};

	i->r1 = i->r2 = i->r3 = 0;
	find_vex_operands(d, i, o);
	for (unsigned n = 0; n < VEX_OPERANDS; n++)
		put_vex_load(&e, &o[n]);
	if (how & THUNK_AX_DX_IN) {
		PUT(&e, 0x49, 0x89, 0xd0);	 /* mov %rdx,%r8 */
		PUT(&e, 0x48, 0x8b, 0x07);	 /* mov RAX(%rdi),%rax */
		PUT(&e, 0x48, 0x8b, 0x57, 0x10); /* mov RDX(%rdi),%rdx */
	}
	put_vex_insn(&e, d, o, how & THUNK_AX_DX_IN);
	if (how & THUNK_FLAGS_OUT) {
		put_store_flags(&e);
		PUT(&e, 0x66, 0x89, 0x87); /* mov %ax,fl(%rdi) */
		put32(&e, OFF_FL);
	}
	if (how & THUNK_CX_OUT)
		PUT(&e, 0x48, 0x89, 0x4f, 0x08);
	if (how & THUNK_XMM0_OUT) {
		PUT(&e, 0xc5, 0xf8, 0x11, 0x87);
		put32(&e, OFF_XMM);
		PUT(&e, 0xc4, 0xe3, 0x7d, 0x19, 0x87);
		put32(&e, OFF_YMMH);
		PUT(&e, 0x01);
	}
	for (unsigned n = 0; n < VEX_OPERANDS; n++)
		put_vex_store(&e, &o[n]);
	if (d->zi.raw.vex.L)
		PUT(&e, 0xc5, 0xf8, 0x77); /* vzeroupper: the host's code is legacy SSE */
	if (how & THUNK_TAIL)
		PUT(&e, 0x48, 0x83, 0xc6, sizeof(struct cpu_insn), 0xff, 0x26);
	else
		PUT(&e, 0xc3);
	return (cpu_thunk_fn)intern(d->c->thunks, e.code, e.len);
}

cpu_thunk_x87_fn cpu_thunk_x87(const struct cpu_dec *d, unsigned how)
{
	struct emit e = {.len = 0};

	PUT(&e, 0x48, 0x0f, 0xae, 0x0e); /* fxrstor64 (%rsi) */
	if (how) {
		/* movzwl (%rdi),%eax; add $0x7f,%al (OF); sahf (the others) */
		PUT(&e, 0x0f, 0xb7, 0x07, 0x04, 0x7f, 0x9e);
	}
	put_insn(&e, d, -1, -1, false);
	if (how & THUNK_X87_FLAGS_OUT) {
		put_store_flags(&e);
		PUT(&e, 0x66, 0x89, 0x07); /* mov %ax,(%rdi) */
	}
	PUT(&e, 0x48, 0x0f, 0xae, 0x06); /* fxsave64 (%rsi) */
	PUT(&e, 0xdb, 0xe3, 0xc3);	 /* fninit; ret */
	return (cpu_thunk_x87_fn)intern(d->c->thunks, e.code, e.len);
}
