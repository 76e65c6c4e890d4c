/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which exceptions an SSE operation has when overflow or underflow is not masked. The silicon then
 * answers differently from the masked case in which we run it: a tiny result is an underflow even
 * when exact, and inexact is said of the result as if exponents had no bounds (SDM 1 4.9.1.4 to
 * 4.9.1.6). x87 with its precision lowered rounds just so: it has 15 bits of exponent.
 */
#include <string.h>

#include "cpu/fp_internal.h"
#include "cpu/fp_simd.h"

#define PRE 0x07u /* invalid, denormal, zero divide: found before computing */
#define OE  0x08u
#define UE  0x10u
#define PE  0x20u

#define MXCSR_DAZ	BIT(6)
#define MXCSR_RC(mxcsr) ((mxcsr) >> 13 & 3)

struct eval {
	uint32_t guest; /* MXCSR */
	bool wide;	/* double */
	uint32_t flags; /* so far, of this stage */
};

/* A float or double in the low bits. */
static bool is_denormal(const struct eval *e, uint64_t v)
{
	if (e->wide)
		return (v & BITS(62, 52)) == 0 && (v & BITS(51, 0));
	return (v & BITS(30, 23)) == 0 && (v & BITS(22, 0));
}

static uint64_t flush(const struct eval *e, uint64_t v, bool wide)
{
	struct eval w = {.wide = wide};

	if ((e->guest & MXCSR_DAZ) && is_denormal(&w, v))
		v &= wide ? BIT(63) : BIT(31);
	return v;
}

static uint64_t load(const void *v, unsigned size, unsigned n)
{
	uint64_t q = 0;

	memcpy(&q, (const uint8_t *)v + n * size, size);
	return q;
}

static uint64_t get(const struct eval *e, const void *v, unsigned n)
{
	return load(v, e->wide ? 8 : 4, n);
}

/* Would rounding to the format's precision alone be inexact? */
static bool is_inexact(const struct eval *e, enum simd_arith op, uint64_t a, uint64_t b)
{
	uint16_t cw = (uint16_t)(0x7f | MXCSR_RC(e->guest) << 10), sw;
	bool from_double = e->wide || op == SIMD_ARITH_CVT;

	if (e->wide)
		cw |= 0x200; /* 53 bits; 0 is 24 */
	a = flush(e, a, from_double);
	b = flush(e, b, from_double);
	if (op == SIMD_ARITH_CVT) {
		double one = 1.0;

		memcpy(&b, &one, sizeof(b));
		op = SIMD_ARITH_MUL;
	}
	__asm__ volatile("fninit\n\tfldcw %0" : : "m"(cw));
	if (from_double)
		__asm__ volatile("fldl %0\n\tfldl %1" : : "m"(a), "m"(b));
	else
		__asm__ volatile("flds %0\n\tflds %1" : : "m"(a), "m"(b));
	/* ST(0) is b, ST(1) a. */
	switch (op) {
	case SIMD_ARITH_ADD: __asm__ volatile("fadd %%st(1),%%st" : : : "st"); break;
	case SIMD_ARITH_SUB: __asm__ volatile("fsubr %%st(1),%%st" : : : "st"); break;
	case SIMD_ARITH_DIV: __asm__ volatile("fdivr %%st(1),%%st" : : : "st"); break;
	default: __asm__ volatile("fmul %%st(1),%%st" : : : "st");
	}
	__asm__ volatile("fnstsw %0\n\tfninit" : "=m"(sw));
	return sw & PE;
}

#define SCALAR(insn) __asm__ volatile(insn " %1,%0" : "+x"(x) : "x"(y))

static __m128i execute(const struct eval *e, enum simd_arith op, __m128i x, __m128i y)
{
	switch (op) {
	case SIMD_ARITH_ADD:
		if (e->wide)
			SCALAR("addsd");
		else
			SCALAR("addss");
		break;
	case SIMD_ARITH_SUB:
		if (e->wide)
			SCALAR("subsd");
		else
			SCALAR("subss");
		break;
	case SIMD_ARITH_MUL:
		if (e->wide)
			SCALAR("mulsd");
		else
			SCALAR("mulss");
		break;
	case SIMD_ARITH_DIV:
		if (e->wide)
			SCALAR("divsd");
		else
			SCALAR("divss");
		break;
	default: __asm__ volatile("cvtsd2ss %1,%0" : "+x"(x) : "x"(x));
	}
	return x;
}

/* ---- a * b + c ------------------------------------------------------------------------------- */

/* (-1)^neg * m * 2^exp, m odd or 0. */
struct exact {
	bool neg;
	unsigned __int128 m;
	int exp;
};

static struct exact normal(struct exact x)
{
	while (x.m && !(x.m & 1)) {
		x.m >>= 1;
		x.exp++;
	}
	return x;
}

static struct exact unpack(const struct eval *e, uint64_t v)
{
	const unsigned bits = e->wide ? 52 : 23, top = e->wide ? 63 : 31;
	int exp = (int)(v >> bits & (e->wide ? 0x7ff : 0xff));
	uint64_t m = v & (BIT(bits) - 1);

	if (exp)
		m |= BIT(bits);
	else
		exp = 1;
	return normal((struct exact){v >> top & 1, m, exp});
}

static unsigned bit_length(unsigned __int128 v)
{
	unsigned n = 0;

	for (; v; v >>= 1)
		n++;
	return n;
}

/* Would rounding a * b + c to the format's precision alone be inexact? All are finite. */
static bool fma_inexact(const struct eval *e, uint64_t a, uint64_t b, uint64_t c)
{
	struct exact x = unpack(e, flush(e, a, e->wide)), y = unpack(e, flush(e, b, e->wide));
	struct exact z = unpack(e, flush(e, c, e->wide)), t;
	const unsigned precision = e->wide ? 53 : 24;

	x = (struct exact){x.neg != y.neg, x.m * y.m, x.exp + y.exp - (e->wide ? 1075 : 150)};
	if (!x.m || !z.m)
		return bit_length(x.m | z.m) > precision;
	if (x.exp > z.exp) {
		t = x;
		x = z;
		z = t;
	}
	/* z reaches so far up that x's lowest bit, which is 1, is too far away. */
	if ((unsigned)(z.exp - x.exp) + bit_length(z.m) > 112)
		return true;
	z.m <<= z.exp - x.exp;
	if (x.neg == z.neg)
		x.m += z.m;
	else
		x.m = x.m > z.m ? x.m - z.m : z.m - x.m;
	return bit_length(normal(x).m) > precision;
}

static __m128i run_fma(const struct eval *e, __m128i x, __m128i y, __m128i z)
{
	if (e->wide)
		__asm__ volatile("vfmadd213sd %2,%1,%0" : "+x"(x) : "x"(y), "x"(z));
	else
		__asm__ volatile("vfmadd213ss %2,%1,%0" : "+x"(x) : "x"(y), "x"(z));
	return x;
}

static void fma_element(struct eval *e, enum simd_arith op, unsigned n,
			const struct simd_operands *v)
{
	uint32_t run = (e->guest & MXCSR_CONTROL) | MXCSR_RESET, f;
	const uint64_t sign = e->wide ? BIT(63) : BIT(31);
	uint64_t a, b, c, result;
	const void *x = v->a, *y = v->b, *z = v->c;

	if (v->imm == 0) { /* 132 */
		x = v->c;
		z = v->a;
	} else if (v->imm == 1) { /* 213 */
		y = v->c;
		z = v->b;
	}
	a = get(e, x, n);
	b = get(e, y, n);
	c = get(e, z, n);
	if (op == SIMD_ARITH_FNMADD || op == SIMD_ARITH_FNMSUB)
		a ^= sign;
	if (op == SIMD_ARITH_FMSUB || op == SIMD_ARITH_FNMSUB ||
	    op == (n & 1 ? SIMD_ARITH_FMSUBADD : SIMD_ARITH_FMADDSUB))
		c ^= sign;
	if (!(e->guest & MXCSR_UM))
		run &= ~MXCSR_FZ;
	_mm_setcsr(run);
	result = (uint64_t)_mm_cvtsi128_si64(run_fma(e, _mm_cvtsi64_si128((long long)a),
						 _mm_cvtsi64_si128((long long)b),
						 _mm_cvtsi64_si128((long long)c)));
	f = _mm_getcsr() & MXCSR_FLAGS;
	_mm_setcsr(MXCSR_RESET);
	if (!e->wide)
		result = (uint32_t)result;
	if (!(e->guest & MXCSR_UM) && is_denormal(e, result))
		f |= UE;
	if (f & ~(e->guest >> 7) & (OE | UE))
		f = (f & ~PE) | (fma_inexact(e, a, b, c) ? PE : 0);
	e->flags |= f;
}

/* ---- float to half --------------------------------------------------------------------------- */

static void half_element(struct eval *e, uint64_t a, uint8_t imm)
{
	uint32_t run = (e->guest & MXCSR_CONTROL) | MXCSR_RESET, f, half;
	unsigned rc = imm & 4 ? MXCSR_RC(e->guest) : imm & 3u;
	__m128i x = _mm_cvtsi64_si128((long long)a);

	_mm_setcsr((run & ~0x6000u) | rc << 13);
	__asm__ volatile("vcvtps2ph $4,%1,%0" : "=x"(x) : "x"(x));
	half = (uint32_t)_mm_cvtsi128_si32(x) & 0xffff;
	f = _mm_getcsr() & MXCSR_FLAGS;
	_mm_setcsr(MXCSR_RESET);
	if (!(e->guest & MXCSR_UM) && (half & 0x7c00) == 0 && (half & 0x3ff))
		f |= UE;
	if (f & ~(e->guest >> 7) & (OE | UE))
		f = (f & ~PE) | (flush(e, a, false) & BITS(12, 0) ? PE : 0);
	e->flags |= f;
}

/* One element: add its exceptions, return its result with all masked. */
static uint64_t element(struct eval *e, enum simd_arith op, uint64_t a, uint64_t b)
{
	uint32_t run = (e->guest & MXCSR_CONTROL) | MXCSR_RESET, f;
	uint64_t result;

	if (!(e->guest & MXCSR_UM))
		run &= ~MXCSR_FZ;
	_mm_setcsr(run);
	result = (uint64_t)_mm_cvtsi128_si64(
		execute(e, op, _mm_cvtsi64_si128((long long)a), _mm_cvtsi64_si128((long long)b)));
	f = _mm_getcsr() & MXCSR_FLAGS;
	_mm_setcsr(MXCSR_RESET);
	if (!e->wide)
		result = (uint32_t)result;
	if (!(e->guest & MXCSR_UM) && is_denormal(e, result))
		f |= UE;
	if (f & ~(e->guest >> 7) & (OE | UE))
		f = (f & ~PE) | (is_inexact(e, op, a, b) ? PE : 0);
	e->flags |= f;
	return result;
}

/* The end of a stage: whether computing stops there; its exceptions join @all. */
static bool stage(struct eval *e, uint32_t *all)
{
	uint32_t unmasked = e->flags & ~(e->guest >> 7);

	*all |= unmasked & PRE ? e->flags & PRE : e->flags;
	e->flags = 0;
	return unmasked;
}

/* DPPS, DPPD: products, then sums of two, then the sum of those; each a stage. */
static uint32_t dot_product(struct eval *e, const struct simd_operands *o, unsigned count)
{
	const unsigned lane = e->wide ? 2 : 4;
	uint64_t v[8] = {0};
	uint32_t all = 0;

	for (unsigned k = 0; k < count; k++)
		if (o->imm >> (4 + k % lane) & 1)
			v[k] = element(e, SIMD_ARITH_MUL, get(e, o->a, k), get(e, o->b, k));
	for (unsigned n = lane; n > 1; n /= 2) {
		if (stage(e, &all))
			return all;
		count /= 2;
		for (unsigned k = 0; k < count; k++)
			v[k] = element(e, SIMD_ARITH_ADD, v[2 * k], v[2 * k + 1]);
	}
	stage(e, &all);
	return all;
}

/* Neighbours, of the first operand and then of the second. */
static void horizontal(struct eval *e, enum simd_arith op, const struct simd_operands *v,
		       unsigned count)
{
	for (unsigned k = 0; k < count; k += 2) {
		element(e, op, get(e, v->a, k), get(e, v->a, k + 1));
		element(e, op, get(e, v->b, k), get(e, v->b, k + 1));
	}
}

static unsigned elements(const struct eval *e, unsigned how)
{
	enum simd_arith op = SIMD_ARITH_OF(how);
	unsigned n = e->wide || op == SIMD_ARITH_CVT ? 2 : 4;

	return how & SIMD_SCALAR ? 1 : how & SIMD_256 ? 2 * n : n;
}

uint32_t cpu_simd_exceptions(uint32_t mxcsr, unsigned how, const struct simd_operands *v)
{
	struct eval e = {.guest = mxcsr, .wide = how & SIMD_PD};
	enum simd_arith op = SIMD_ARITH_OF(how);
	unsigned n = elements(&e, how);
	uint32_t all = 0;

	switch (op) {
	case SIMD_ARITH_DP: return dot_product(&e, v, n);
	case SIMD_ARITH_HADD: horizontal(&e, SIMD_ARITH_ADD, v, n); break;
	case SIMD_ARITH_HSUB: horizontal(&e, SIMD_ARITH_SUB, v, n); break;
	case SIMD_ARITH_CVT:
		for (unsigned k = 0; k < n; k++)
			element(&e, op, load(v->b, 8, k), 0);
		break;
	case SIMD_ARITH_CVT_HALF:
		for (unsigned k = 0; k < n; k++)
			half_element(&e, get(&e, v->a, k), v->imm);
		break;
	case SIMD_ARITH_ADDSUB:
		for (unsigned k = 0; k < n; k++)
			element(&e, k & 1 ? SIMD_ARITH_ADD : SIMD_ARITH_SUB, get(&e, v->a, k),
				get(&e, v->b, k));
		break;
	default:
		for (unsigned k = 0; k < n; k++) {
			if (op >= SIMD_ARITH_FMADD)
				fma_element(&e, op, k, v);
			else
				element(&e, op, get(&e, v->a, k), get(&e, v->b, k));
		}
	}
	stage(&e, &all);
	return all;
}
