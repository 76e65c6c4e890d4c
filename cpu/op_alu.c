/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two-operand and one-operand arithmetic: ADD..CMP, TEST, INC, DEC, NEG, NOT, ADCX, ADOX, XADD,
 * CMPXCHG. */
#include "cpu/op_int.h"

/* Whether an operation puts its result somewhere, or only sets flags. */
enum { DROP, KEEP };

/* The handlers of one two-operand operation, by size (log2) and, with memory, by address kind. */
struct alu_forms {
	cpu_op_fn rr[4], ri[4];
	cpu_op_fn rm[4][OP_EA_KINDS], mr[4][OP_EA_KINDS], mi[4][OP_EA_KINDS];
	cpu_op_fn lock[4]; /* memory destination; arg 1: the source is imm */
};

/* Of one one-operand operation. */
struct unary_forms {
	cpu_op_fn r[4], m[4][OP_EA_KINDS], lock[4];
};

/*
 * What an operation does to values: returns the result and sets c->fl from the host's own flags.
 * Names: {add,or,and,sub,xor,cmp,test}{8,16,32,64} and, with the carry loaded first,
 * {adc,sbb}{8,..64}.
 */
#define DEFINE_VALUE(name, insn, bits, carry)                                                      \
	OP_INLINE uint##bits##_t name##bits(struct cpu *c, uint##bits##_t a, uint##bits##_t b)     \
	{                                                                                          \
		uint16_t fl;                                                                       \
		__asm__(carry insn " %[b],%[a]" OP_ASM_OUT                                         \
			: [a] "+r"(a), "=a"(fl)                                                    \
			: [b] "r"(b), [old] "m"(c->fl)                                             \
			: "cc");                                                                   \
		c->fl = fl;                                                                        \
		return a;                                                                          \
	}

/* The register forms. Names: add64_rr, add64_ri and so on. */
#define DEFINE_ALU_REG(name, bits, keep)                                                           \
	static void name##bits##_rr(struct cpu *c, const struct cpu_insn *i)                       \
	{                                                                                          \
		uint##bits##_t v =                                                                 \
			name##bits(c, CPU_REG##bits(c, i->r1), CPU_REG##bits(c, i->r2));           \
		if (keep)                                                                          \
			op_put##bits(c, i->r1, v);                                                 \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void name##bits##_ri(struct cpu *c, const struct cpu_insn *i)                       \
	{                                                                                          \
		uint##bits##_t v = name##bits(c, CPU_REG##bits(c, i->r1), (uint##bits##_t)i->imm); \
		if (keep)                                                                          \
			op_put##bits(c, i->r1, v);                                                 \
		CPU_NEXT(c, i);                                                                    \
	}

/* What each memory form does at host address p. Names: add64_rm_at, add64_mr_at, add64_mi_at .. */
#define DEFINE_ALU_AT(name, bits, keep)                                                            \
	OP_INLINE void name##bits##_rm_at(struct cpu *c, const struct cpu_insn *i, void *p)        \
	{                                                                                          \
		uint##bits##_t v = name##bits(c, CPU_REG##bits(c, i->r1), cpu_raw_ld##bits(p));    \
		if (keep)                                                                          \
			op_put##bits(c, i->r1, v);                                                 \
	}                                                                                          \
	OP_INLINE void name##bits##_mr_at(struct cpu *c, const struct cpu_insn *i, void *p)        \
	{                                                                                          \
		uint##bits##_t v = name##bits(c, cpu_raw_ld##bits(p), CPU_REG##bits(c, i->r1));    \
		if (keep)                                                                          \
			cpu_raw_st##bits(p, v);                                                    \
	}                                                                                          \
	OP_INLINE void name##bits##_mi_at(struct cpu *c, const struct cpu_insn *i, void *p)        \
	{                                                                                          \
		uint##bits##_t v = name##bits(c, cpu_raw_ld##bits(p), (uint##bits##_t)i->imm);     \
		if (keep)                                                                          \
			cpu_raw_st##bits(p, v);                                                    \
	}

/* One memory form by one address kind. Names: add64_rm_OP_EA_BASE, .. ; its slow twin:
 * add64_rm_slow. */
#define DEFINE_MEM_KIND(form, bits, write, kind)                                                   \
	static void form##_##kind(struct cpu *c, const struct cpu_insn *i)                         \
	{                                                                                          \
		void *p = op_try(c, op_lin(c, i, kind), (bits) / 8, write);                        \
		if (unlikely(!p)) {                                                                \
			form##_slow(c, i);                                                         \
			return;                                                                    \
		}                                                                                  \
		form##_at(c, i, p);                                                                \
		CPU_NEXT(c, i);                                                                    \
	}
#define DEFINE_MEM_FORM(form, bits, write)                                                         \
	OP_SLOW form##_slow(struct cpu *c, const struct cpu_insn *i)                               \
	{                                                                                          \
		uint16_t fl = c->fl;                                                               \
		void *p = op_mem(c, i, (bits) / 8, write);                                         \
		form##_at(c, i, p);                                                                \
		if (write)                                                                         \
			op_mem_done(c, i, p, fl);                                                  \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	DEFINE_MEM_KIND(form, bits, write, OP_EA_BASE)                                             \
	DEFINE_MEM_KIND(form, bits, write, OP_EA_INDEX)                                            \
	DEFINE_MEM_KIND(form, bits, write, OP_EA_ANY)

#define DEFINE_ALU(name, insn, bits, carry, keep)                                                  \
	DEFINE_VALUE(name, insn, bits, carry)                                                      \
	DEFINE_ALU_REG(name, bits, keep)                                                           \
	DEFINE_ALU_AT(name, bits, keep)                                                            \
	DEFINE_MEM_FORM(name##bits##_rm, bits, false)                                              \
	DEFINE_MEM_FORM(name##bits##_mr, bits, keep)                                               \
	DEFINE_MEM_FORM(name##bits##_mi, bits, keep)

/*
 * LOCK: the host's locked instruction where the memory is, or compare-and-swap where the access is
 * bounced. Names: {add,or,adc,sbb,and,sub,xor}{8,..64}_lock.
 */
#define DEFINE_ALU_LOCK(name, insn, bits, carry)                                                   \
	static void name##bits##_lock(struct cpu *c, const struct cpu_insn *i)                     \
	{                                                                                          \
		uint##bits##_t *p = cpu_mem_rw(c, i, cpu_lin(c, i), (bits) / 8);                   \
		uint##bits##_t b = i->arg ? (uint##bits##_t)i->imm : CPU_REG##bits(c, i->r1);      \
		uint16_t fl;                                                                       \
		if (likely((void *)p != c->bounce)) {                                              \
			__asm__ volatile(carry "lock " insn " %[b],%[p]" OP_ASM_OUT                \
					 : [p] "+m"(*p), "=&a"(fl)                                 \
					 : [b] "r"(b), [old] "m"(c->fl)                            \
					 : "cc", "memory");                                        \
			c->fl = fl;                                                                \
			CPU_NEXT(c, i);                                                            \
		}                                                                                  \
		for (;;) {                                                                         \
			uint##bits##_t old = *p, want;                                             \
			uint16_t old_fl = c->fl;                                                   \
			want = name##bits(c, old, b);                                              \
			fl = c->fl;                                                                \
			c->fl = old_fl;                                                            \
			if (cpu_mem_cmpxchg(c, i, &old, &want))                                    \
				break;                                                             \
		}                                                                                  \
		c->fl = fl;                                                                        \
		CPU_NEXT(c, i);                                                                    \
	}

/* The same for one operand. Names: {inc,dec,neg,not}{8,..64} and _r, _m_OP_EA_*, _m_slow, _lock. */
#define DEFINE_UNARY(name, insn, bits)                                                             \
	OP_INLINE uint##bits##_t name##bits(struct cpu *c, uint##bits##_t a)                       \
	{                                                                                          \
		uint16_t fl = c->fl;                                                               \
		__asm__(OP_ASM_IN insn " %[a]" OP_ASM_OUT : [a] "+r"(a), "+a"(fl) : : "cc");       \
		c->fl = fl;                                                                        \
		return a;                                                                          \
	}                                                                                          \
	DEFINE_UNARY_FORMS(name, insn, bits)
/* INC and DEC keep CF, NEG sets all, so the others need not be loaded first. */
#define DEFINE_UNARY_QUICK(name, insn, bits, carry)                                                \
	OP_INLINE uint##bits##_t name##bits(struct cpu *c, uint##bits##_t a)                       \
	{                                                                                          \
		uint16_t fl;                                                                       \
		__asm__(carry insn " %[a]" OP_ASM_OUT                                              \
			: [a] "+r"(a), "=a"(fl)                                                    \
			: [old] "m"(c->fl)                                                         \
			: "cc");                                                                   \
		c->fl = fl;                                                                        \
		return a;                                                                          \
	}                                                                                          \
	DEFINE_UNARY_FORMS(name, insn, bits)
#define DEFINE_UNARY_FORMS(name, insn, bits)                                                       \
	static void name##bits##_r(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		op_put##bits(c, i->r1, name##bits(c, CPU_REG##bits(c, i->r1)));                    \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	OP_INLINE void name##bits##_m_at(struct cpu *c, const struct cpu_insn *i, void *p)         \
	{                                                                                          \
		cpu_raw_st##bits(p, name##bits(c, cpu_raw_ld##bits(p)));                           \
	}                                                                                          \
	DEFINE_MEM_FORM(name##bits##_m, bits, true)                                                \
	static void name##bits##_lock(struct cpu *c, const struct cpu_insn *i)                     \
	{                                                                                          \
		uint##bits##_t *p = cpu_mem_rw(c, i, cpu_lin(c, i), (bits) / 8);                   \
		uint16_t fl = c->fl;                                                               \
		if (likely((void *)p != c->bounce)) {                                              \
			__asm__ volatile(OP_ASM_IN "lock " insn " %[p]" OP_ASM_OUT                 \
					 : [p] "+m"(*p), "+a"(fl)                                  \
					 :                                                         \
					 : "cc", "memory");                                        \
			c->fl = fl;                                                                \
			CPU_NEXT(c, i);                                                            \
		}                                                                                  \
		for (;;) {                                                                         \
			uint##bits##_t old = *p, want;                                             \
			uint16_t old_fl = c->fl;                                                   \
			want = name##bits(c, old);                                                 \
			fl = c->fl;                                                                \
			c->fl = old_fl;                                                            \
			if (cpu_mem_cmpxchg(c, i, &old, &want))                                    \
				break;                                                             \
		}                                                                                  \
		c->fl = fl;                                                                        \
		CPU_NEXT(c, i);                                                                    \
	}

#define SIZES(DEFINE, name, ...)                                                                   \
	DEFINE(name, #name "b", 8, ##__VA_ARGS__)                                                  \
	DEFINE(name, #name "w", 16, ##__VA_ARGS__)                                                 \
	DEFINE(name, #name "l", 32, ##__VA_ARGS__)                                                 \
	DEFINE(name, #name "q", 64, ##__VA_ARGS__)

SIZES(DEFINE_ALU, add, "", KEEP)
SIZES(DEFINE_ALU, or, "", KEEP)
SIZES(DEFINE_ALU, adc, OP_ASM_CARRY_IN, KEEP)
SIZES(DEFINE_ALU, sbb, OP_ASM_CARRY_IN, KEEP)
SIZES(DEFINE_ALU, and, "", KEEP)
SIZES(DEFINE_ALU, sub, "", KEEP)
SIZES(DEFINE_ALU, xor, "", KEEP)
SIZES(DEFINE_ALU, cmp, "", DROP)
SIZES(DEFINE_ALU, test, "", DROP)
SIZES(DEFINE_ALU_LOCK, add, "")
SIZES(DEFINE_ALU_LOCK, or, "")
SIZES(DEFINE_ALU_LOCK, adc, OP_ASM_CARRY_IN)
SIZES(DEFINE_ALU_LOCK, sbb, OP_ASM_CARRY_IN)
SIZES(DEFINE_ALU_LOCK, and, "")
SIZES(DEFINE_ALU_LOCK, sub, "")
SIZES(DEFINE_ALU_LOCK, xor, "")
SIZES(DEFINE_UNARY_QUICK, inc, OP_ASM_CARRY_IN)
SIZES(DEFINE_UNARY_QUICK, dec, OP_ASM_CARRY_IN)
SIZES(DEFINE_UNARY_QUICK, neg, "")
SIZES(DEFINE_UNARY, not )

#define KINDS(form)                                                                                \
	{                                                                                          \
		form##_OP_EA_BASE, form##_OP_EA_INDEX, form##_OP_EA_ANY                            \
	}
#define ALL_SIZES(name, form)                                                                      \
	{                                                                                          \
		name##8_##form, name##16_##form, name##32_##form, name##64_##form                  \
	}
#define ALL_KINDS(name, form)                                                                      \
	{                                                                                          \
		KINDS(name##8_##form), KINDS(name##16_##form), KINDS(name##32_##form),             \
			KINDS(name##64_##form)                                                     \
	}
#define ALU_ROW(name)                                                                              \
	.rr = ALL_SIZES(name, rr), .ri = ALL_SIZES(name, ri), .rm = ALL_KINDS(name, rm),           \
	.mr = ALL_KINDS(name, mr), .mi = ALL_KINDS(name, mi)

enum { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP, ALU_TEST };
static const struct alu_forms alu_forms[] = {
	[ALU_ADD] = {ALU_ROW(add), .lock = ALL_SIZES(add, lock)},
	[ALU_OR] = {ALU_ROW(or), .lock = ALL_SIZES(or, lock)},
	[ALU_ADC] = {ALU_ROW(adc), .lock = ALL_SIZES(adc, lock)},
	[ALU_SBB] = {ALU_ROW(sbb), .lock = ALL_SIZES(sbb, lock)},
	[ALU_AND] = {ALU_ROW(and), .lock = ALL_SIZES(and, lock)},
	[ALU_SUB] = {ALU_ROW(sub), .lock = ALL_SIZES(sub, lock)},
	[ALU_XOR] = {ALU_ROW(xor), .lock = ALL_SIZES(xor, lock)},
	[ALU_CMP] = {ALU_ROW(cmp)},
	[ALU_TEST] = {ALU_ROW(test)},
};

enum { UNARY_INC, UNARY_DEC, UNARY_NEG, UNARY_NOT };
#define UNARY_ROW(name)                                                                            \
	{                                                                                          \
		.r = ALL_SIZES(name, r), .m = ALL_KINDS(name, m), .lock = ALL_SIZES(name, lock)    \
	}
static const struct unary_forms unary_forms[] = {
	[UNARY_INC] = UNARY_ROW(inc),
	[UNARY_DEC] = UNARY_ROW(dec),
	[UNARY_NEG] = UNARY_ROW(neg),
	[UNARY_NOT] = UNARY_ROW(not ),
};

/* XOR and SUB of a register with itself: zero, whatever was there. */
static void zero_idiom(struct cpu *c, const struct cpu_insn *i)
{
	CPU_REG64(c, i->r1) = 0;
	c->fl = CPU_FL_ZF | CPU_FL_PF | 0x200;
	CPU_NEXT(c, i);
}

static bool pick_alu(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	const struct alu_forms *f = &alu_forms[arg];
	unsigned log = op_size_log(op_bytes(d, 0));
	enum op_ea kind = op_ea_kind(i);

	if (op_locked(i)) {
		i->fn = op_is_mem(d, 0) ? f->lock[log] : NULL;
		i->arg = op_is_imm(d, 1);
	} else if (op_is_mem(d, 0)) {
		i->fn = op_is_imm(d, 1) ? f->mi[log][kind] : f->mr[log][kind];
	} else if (op_is_mem(d, 1)) {
		i->fn = f->rm[log][kind];
	} else if (op_is_imm(d, 1)) {
		i->fn = f->ri[log];
	} else if ((arg == ALU_XOR || arg == ALU_SUB) && log >= 2 && i->r1 == i->r2) {
		i->fn = zero_idiom;
	} else {
		i->fn = f->rr[log];
	}
	return i->fn;
}

static bool pick_unary(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	const struct unary_forms *f = &unary_forms[arg];
	unsigned log = op_size_log(op_bytes(d, 0));

	if (op_is_mem(d, 0))
		i->fn = op_locked(i) ? f->lock[log] : f->m[log][op_ea_kind(i)];
	else
		i->fn = op_locked(i) ? NULL : f->r[log];
	return i->fn;
}

/* ---- ADCX, ADOX: one flag each, the others stay -------------------------------------------------
 */

/* Names: adcx32, adcx64, adox32, adox64: a + b + the flag, with all flags passed through the host.
 */
#define DEFINE_ADX(name, bits, insn)                                                               \
	static void name##bits(struct cpu *c, const struct cpu_insn *i)                            \
	{                                                                                          \
		uint16_t fl;                                                                       \
		uint##bits##_t a, b = i->flags & CPU_INSN_MEM ? cpu_ld##bits(c, i, cpu_lin(c, i))  \
							      : CPU_REG##bits(c, i->r2);           \
		a = CPU_REG##bits(c, i->r1);                                                       \
		fl = c->fl;                                                                        \
		__asm__(OP_ASM_IN insn " %[b],%[a]" OP_ASM_OUT                                     \
			: [a] "+r"(a), "+a"(fl)                                                    \
			: [b] "r"(b)                                                               \
			: "cc");                                                                   \
		c->fl = fl;                                                                        \
		op_put##bits(c, i->r1, a);                                                         \
		CPU_NEXT(c, i);                                                                    \
	}
DEFINE_ADX(adcx, 32, "adcxl")
DEFINE_ADX(adcx, 64, "adcxq")
DEFINE_ADX(adox, 32, "adoxl")
DEFINE_ADX(adox, 64, "adoxq")

static bool pick_adx(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[2][2] = {{adcx32, adcx64}, {adox32, adox64}};

	i->fn = fn[arg][op_bytes(d, 0) == 8];
	return true;
}

/* ---- XADD, CMPXCHG ------------------------------------------------------------------------------
 */

/* Names: xadd{8,..64}_r, _m, _lock; the memory forms change the register only after the store. */
#define DEFINE_XADD(name, insn, bits)                                                              \
	static void xadd##bits##_r(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		uint##bits##_t a = CPU_REG##bits(c, i->r1);                                        \
		uint##bits##_t sum = add##bits(c, a, CPU_REG##bits(c, i->r2));                     \
		op_put##bits(c, i->r2, a);                                                         \
		op_put##bits(c, i->r1, sum);                                                       \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void xadd##bits##_m(struct cpu *c, const struct cpu_insn *i)                        \
	{                                                                                          \
		void *p = cpu_mem_rw(c, i, cpu_lin(c, i), (bits) / 8);                             \
		uint16_t fl = c->fl;                                                               \
		uint##bits##_t a = cpu_raw_ld##bits(p);                                            \
		cpu_raw_st##bits(p, add##bits(c, a, CPU_REG##bits(c, i->r1)));                     \
		op_mem_done(c, i, p, fl);                                                          \
		op_put##bits(c, i->r1, a);                                                         \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void xadd##bits##_lock(struct cpu *c, const struct cpu_insn *i)                     \
	{                                                                                          \
		uint##bits##_t *p = cpu_mem_rw(c, i, cpu_lin(c, i), (bits) / 8);                   \
		uint##bits##_t b = CPU_REG##bits(c, i->r1), old = b;                               \
		if (likely((void *)p != c->bounce)) {                                              \
			__asm__ volatile("lock " insn " %[b],%[p]"                                 \
					 : [p] "+m"(*p), [b] "+r"(old)                             \
					 :                                                         \
					 : "cc", "memory");                                        \
		} else {                                                                           \
			uint##bits##_t found, want;                                                \
			do {                                                                       \
				found = *p;                                                        \
				want = (uint##bits##_t)(found + b);                                \
			} while (!cpu_mem_cmpxchg(c, i, &found, &want));                           \
			old = found;                                                               \
		}                                                                                  \
		add##bits(c, old, b);                                                              \
		op_put##bits(c, i->r1, old);                                                       \
		CPU_NEXT(c, i);                                                                    \
	}
SIZES(DEFINE_XADD, xadd)

static bool pick_xadd(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[3][4] = {
		ALL_SIZES(xadd, r),
		ALL_SIZES(xadd, m),
		ALL_SIZES(xadd, lock),
	};
	unsigned log = op_size_log(op_bytes(d, 0));

	if (!op_is_mem(d, 0) && op_locked(i))
		return false;
	i->fn = fn[!op_is_mem(d, 0) ? 0 : op_locked(i) ? 2 : 1][log];
	return true;
}

/* Names: cmpxchg{8,..64}_r, _m, _lock. Silicon does not touch a register destination that differs.
 */
#define DEFINE_CMPXCHG(name, insn, bits)                                                           \
	static void cmpxchg##bits##_r(struct cpu *c, const struct cpu_insn *i)                     \
	{                                                                                          \
		uint##bits##_t src = CPU_REG##bits(c, i->r2), dst = CPU_REG##bits(c, i->r1);       \
		uint##bits##_t acc = CPU_REG##bits(c, 0);                                          \
		cmp##bits(c, acc, dst);                                                            \
		if (acc == dst)                                                                    \
			op_put##bits(c, i->r1, src);                                               \
		else                                                                               \
			op_put##bits(c, 0, dst);                                                   \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void cmpxchg##bits##_m(struct cpu *c, const struct cpu_insn *i)                     \
	{                                                                                          \
		void *p = cpu_mem_rw(c, i, cpu_lin(c, i), (bits) / 8);                             \
		uint##bits##_t acc = CPU_REG##bits(c, 0), old = cpu_raw_ld##bits(p);               \
		if (acc == old)                                                                    \
			cpu_raw_st##bits(p, CPU_REG##bits(c, i->r1));                              \
		cpu_mem_done(c, i, p);                                                             \
		cmp##bits(c, acc, old);                                                            \
		if (acc != old)                                                                    \
			op_put##bits(c, 0, old);                                                   \
		CPU_NEXT(c, i);                                                                    \
	}                                                                                          \
	static void cmpxchg##bits##_lock(struct cpu *c, const struct cpu_insn *i)                  \
	{                                                                                          \
		uint##bits##_t *p = cpu_mem_rw(c, i, cpu_lin(c, i), (bits) / 8);                   \
		uint##bits##_t acc = CPU_REG##bits(c, 0), want = CPU_REG##bits(c, i->r1),          \
			       old = acc;                                                          \
		if (likely((void *)p != c->bounce)) {                                              \
			__asm__ volatile("lock " insn " %[want],%[p]"                              \
					 : [p] "+m"(*p), "+a"(old)                                 \
					 : [want] "r"(want)                                        \
					 : "cc", "memory");                                        \
		} else {                                                                           \
			uint##bits##_t found, put;                                                 \
			do {                                                                       \
				found = *p;                                                        \
				put = found == acc ? want : found;                                 \
			} while (!cpu_mem_cmpxchg(c, i, &found, &put));                            \
			old = found;                                                               \
		}                                                                                  \
		cmp##bits(c, acc, old);                                                            \
		if (acc != old)                                                                    \
			op_put##bits(c, 0, old);                                                   \
		CPU_NEXT(c, i);                                                                    \
	}
SIZES(DEFINE_CMPXCHG, cmpxchg)

static bool pick_cmpxchg(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	static const cpu_op_fn fn[3][4] = {
		ALL_SIZES(cmpxchg, r),
		ALL_SIZES(cmpxchg, m),
		ALL_SIZES(cmpxchg, lock),
	};
	unsigned log = op_size_log(op_bytes(d, 0));

	if (!op_is_mem(d, 0) && op_locked(i))
		return false;
	i->fn = fn[!op_is_mem(d, 0) ? 0 : op_locked(i) ? 2 : 1][log];
	return true;
}

static void finish_cmpxchg_double(struct cpu *c, const struct cpu_insn *i, bool same,
				  const uint64_t old[2])
{
	bool wide = i->size == 8;

	c->fl = (uint16_t)((c->fl & ~CPU_FL_ZF) | (same ? CPU_FL_ZF : 0));
	if (same)
		return;
	c->s.gpr[X86_RAX] = wide ? old[0] : (uint32_t)old[0];
	c->s.gpr[X86_RDX] = wide ? old[1] : old[0] >> 32;
}

/* One try of 8 bytes at a real address; *old becomes what was there. */
static bool cmpxchg8_at(void *p, uint64_t *old, uint64_t want, bool locked)
{
	uint64_t found = *old;

	if (locked)
		__asm__ volatile("lock cmpxchgq %2,%1"
				 : "+a"(found), "+m"(*(uint64_t *)p)
				 : "r"(want)
				 : "cc", "memory");
	else
		__asm__ volatile("cmpxchgq %2,%1"
				 : "+a"(found), "+m"(*(uint64_t *)p)
				 : "r"(want)
				 : "cc", "memory");
	want = *old;
	*old = found;
	return found == want;
}

static bool cmpxchg16_at(void *p, uint64_t old[2], const uint64_t want[2])
{
	bool same;

	__asm__ volatile("lock cmpxchg16b %1\n\tsete %0"
			 : "=q"(same), "+m"(*(unsigned __int128 *)p), "+a"(old[0]), "+d"(old[1])
			 : "b"(want[0]), "c"(want[1])
			 : "cc", "memory");
	return same;
}

/* CMPXCHG8B, CMPXCHG16B. Their write is always done, with the old value when it differs. */
static __attribute__((noinline)) void do_cmpxchg_double(struct cpu *c, const struct cpu_insn *i)
{
	const uint64_t *g = c->s.gpr;
	bool wide = i->size == 8, same;
	uint64_t acc[2], want[2], old[2] = {0, 0};
	uint64_t lin = cpu_lin(c, i);
	void *p;

	if (wide && (lin & 15))
		cpu_fault_err(c, i, X86_VEC_GP, 0);
	p = cpu_mem_rw(c, i, lin, wide ? 16 : 8);
	acc[0] = wide ? g[X86_RAX] : (uint32_t)g[X86_RAX] | g[X86_RDX] << 32;
	acc[1] = wide ? g[X86_RDX] : 0;
	want[0] = wide ? g[X86_RBX] : (uint32_t)g[X86_RBX] | g[X86_RCX] << 32;
	want[1] = wide ? g[X86_RCX] : 0;
	if (likely(p != c->bounce)) {
		old[0] = acc[0];
		old[1] = acc[1];
		same = wide ? cmpxchg16_at(p, old, want)
			    : cmpxchg8_at(p, old, want[0], op_locked(i));
	} else {
		const uint64_t *put;

		do {
			old[0] = ((uint64_t *)p)[0];
			if (wide)
				old[1] = ((uint64_t *)p)[1];
			same = old[0] == acc[0] && old[1] == acc[1];
			put = same ? want : old;
		} while (!cpu_mem_cmpxchg(c, i, old, put));
	}
	finish_cmpxchg_double(c, i, same, old);
}

static void cmpxchg_double(struct cpu *c, const struct cpu_insn *i)
{
	do_cmpxchg_double(c, i);
	CPU_NEXT(c, i);
}

static bool pick_cmpxchg_double(struct cpu_dec *d, struct cpu_insn *i, uint16_t arg)
{
	i->size = (uint8_t)arg;
	i->fn = cmpxchg_double;
	return op_is_mem(d, 0);
}

static const struct cpu_op ops[] = {
	{ZYDIS_MNEMONIC_ADD, ALU_ADD, pick_alu},
	{ZYDIS_MNEMONIC_OR, ALU_OR, pick_alu},
	{ZYDIS_MNEMONIC_ADC, ALU_ADC, pick_alu},
	{ZYDIS_MNEMONIC_SBB, ALU_SBB, pick_alu},
	{ZYDIS_MNEMONIC_AND, ALU_AND, pick_alu},
	{ZYDIS_MNEMONIC_SUB, ALU_SUB, pick_alu},
	{ZYDIS_MNEMONIC_XOR, ALU_XOR, pick_alu},
	{ZYDIS_MNEMONIC_CMP, ALU_CMP, pick_alu},
	{ZYDIS_MNEMONIC_TEST, ALU_TEST, pick_alu},
	{ZYDIS_MNEMONIC_INC, UNARY_INC, pick_unary},
	{ZYDIS_MNEMONIC_DEC, UNARY_DEC, pick_unary},
	{ZYDIS_MNEMONIC_NEG, UNARY_NEG, pick_unary},
	{ZYDIS_MNEMONIC_NOT, UNARY_NOT, pick_unary},
	{ZYDIS_MNEMONIC_ADCX, 0, pick_adx},
	{ZYDIS_MNEMONIC_ADOX, 1, pick_adx},
	{ZYDIS_MNEMONIC_XADD, 0, pick_xadd},
	{ZYDIS_MNEMONIC_CMPXCHG, 0, pick_cmpxchg},
	{ZYDIS_MNEMONIC_CMPXCHG8B, 4, pick_cmpxchg_double},
	{ZYDIS_MNEMONIC_CMPXCHG16B, 8, pick_cmpxchg_double},
};
const struct cpu_op_table cpu_ops_alu = {ops, ARRAY_SIZE(ops)};
