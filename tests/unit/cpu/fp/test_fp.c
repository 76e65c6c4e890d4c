/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* x87, MMX, SSE and AVX against the host: the same instruction, registers and memory on both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpu_internal.h"
#include "tests/unit/cpu/common/tiny.h"
#include "tests/unit/cpu/fp/native.h"

/* What a run varies. */
#define RUN_X87_UNMASKED BIT(0)
#define RUN_SSE_UNMASKED BIT(1)
#define RUN_ALIGN	 BIT(2)
#define RUN_GATHER	 BIT(3)
#define RUN_GATHER_Q	 BIT(4) /* indices of 8 bytes */

static struct tiny *t;
static uint64_t seed = 88172645463325252ull;
static unsigned cases, forms, bad;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull;
}

/* ---- operands: numbers at the edges of the formats ------------------------------------------- */

static uint64_t some_double(void)
{
	switch (rnd() % 10) {
	case 0: return 0;
	case 1: return BIT(63);
	case 2: return 0x7ff0000000000000;
	case 3: return 0xfff8000000000000;
	case 4: return 0x7ff0000000000001 + rnd() % 1000;
	case 5: return rnd() & 0x800fffffffffffff;
	case 6: return (rnd() & 0x800fffffffffffff) | (rnd() % 64 + 1) << 52;
	case 7: return (rnd() & 0x800fffffffffffff) | (2046 - rnd() % 64) << 52;
	case 8: return 0x3ff0000000000000 + (rnd() % 64 << 48);
	default: return rnd();
	}
}

static uint32_t some_float(void)
{
	switch (rnd() % 9) {
	case 0: return 0;
	case 1: return 0x80000000;
	case 2: return 0x7f800000;
	case 3: return 0xffc00000;
	case 4: return 0x7f800001 + (uint32_t)rnd() % 1000;
	case 5: return (uint32_t)rnd() & 0x807fffff;
	case 6: return ((uint32_t)rnd() & 0x807fffff) | ((uint32_t)rnd() % 32 + 1) << 23;
	case 7: return ((uint32_t)rnd() & 0x807fffff) | (254 - (uint32_t)rnd() % 32) << 23;
	default: return (uint32_t)rnd();
	}
}

static void some_vector(void *p)
{
	uint64_t q[2] = {rnd(), rnd()};
	uint32_t d[4];

	switch (rnd() % 3) {
	case 0:
		q[0] = some_double();
		q[1] = some_double();
		break;
	case 1:
		for (unsigned n = 0; n < 4; n++)
			d[n] = some_float();
		memcpy(q, d, 16);
		break;
	}
	memcpy(p, q, 16);
}

static void some_extended(void *st)
{
	uint64_t *p = st;
	uint64_t q = some_double();
	double d;
	long double l;

	p[0] = rnd();
	p[1] = rnd() & 0xffff;
	switch (rnd() % 6) {
	case 0: break;
	case 1: p[0] >>= 1; break;
	case 2: p[1] = 0; break;
	default:
		memcpy(&d, &q, 8);
		l = d;
		memset(p, 0, 16);
		memcpy(p, &l, 10);
	}
}

/* As the silicon itself would hold it. */
static void normalise(struct cpu_fx *fx)
{
	struct cpu_fx image = *fx;

	image.mxcsr = 0x1f80;
	__asm__ volatile("fxrstor64 %0\n\tfxsave64 %0\n\tfninit"
			 : "+m"(image)
			 :
			 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
			   "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	image.mxcsr = fx->mxcsr;
	*fx = image;
}

static void some_fx(struct cpu_fx *fx, unsigned run)
{
	memset(fx, 0, sizeof(*fx));
	fx->fcw = rnd() % 2 ? 0x37f : (uint16_t)((rnd() & 0xf00) | 0x7f);
	fx->fsw = rnd() & 0x7f40;
	if (run & RUN_X87_UNMASKED) {
		fx->fcw = (uint16_t)(rnd() & 0x1f7f);
		fx->fsw = rnd() & 0x7f7f;
		if (rnd() % 4)
			fx->fsw &= (uint16_t) ~(~fx->fcw & 0x3f); /* not pending yet */
	}
	fx->ftw = rnd() % 3 ? 0xff : (uint8_t)rnd();
	fx->fop = rnd() & 0x7ff;
	fx->fip = rnd() >> 20;
	fx->fdp = rnd() >> 20;
	for (unsigned n = 0; n < 8; n++)
		some_extended(&fx->st[n]);
	for (unsigned n = 0; n < 16; n++)
		some_vector(&fx->xmm[n]);
	fx->mxcsr = rnd() % 2 ? 0x1f80 | (rnd() & 0x3f) : 0x1f80 | (rnd() & 0xe07f);
	if (run & RUN_SSE_UNMASKED)
		fx->mxcsr = rnd() & 0xffff;
	normalise(fx);
}

/* ---- one case -------------------------------------------------------------------------------- */

static uint8_t data[NATIVE_DATA_SIZE], data_native[NATIVE_DATA_SIZE];

static uint64_t some_address(void)
{
	switch (rnd() % 8) {
	case 0: return NATIVE_DATA + NATIVE_DATA_SIZE - rnd() % 32;
	case 1: return NATIVE_DATA + PAGE_SIZE - rnd() % 32;
	case 2: return NATIVE_DATA + PAGE_SIZE + rnd() % 64;
	case 3: return NATIVE_DATA + NATIVE_DATA_SIZE + 64;
	default: return NATIVE_DATA + PAGE_SIZE + rnd() % 32 * 64;
	}
}

static void prepare(struct native *n, unsigned run)
{
	for (unsigned k = 0; k < 16; k++)
		n->gpr[k] = rnd() % 3 ? rnd() : rnd() % 40;
	n->gpr[X86_RSI] = n->gpr[X86_RDI] = some_address();
	n->gpr[X86_RSP] = TINY_STACK;
	n->rflags = (rnd() & X86_FLAGS_ARITH) | 0x202 | (run & RUN_ALIGN ? X86_FLAG_AC : 0);
	some_fx(&n->fx, run);
	for (unsigned k = 0; k < 16; k++)
		some_vector(n->ymmh[k]);
	if (run & RUN_GATHER) {
		uint32_t *index = n->fx.xmm[5].d, *upper = (uint32_t *)n->ymmh[5];
		bool wide = run & RUN_GATHER_Q;

		for (unsigned k = 0; k < 4; k++) {
			bool high = k % 2 && wide;

			index[k] = high ? -(index[k - 1] >> 31) : (uint32_t)(rnd() % 600) - 40;
			upper[k] = high ? -(upper[k - 1] >> 31) : (uint32_t)(rnd() % 600) - 40;
		}
	}
	for (unsigned k = 0; k < sizeof(data); k += 16)
		some_vector(data + k);
}

/* The same on ours. Returns the vector, -1 for none. */
static int emulate(const struct native *n, const uint8_t *code, unsigned len)
{
	struct cpu_state *s = t->s;
	enum cpu_exit_reason reason;

	memcpy(s->gpr, n->gpr, sizeof(s->gpr));
	s->rip = NATIVE_CODE;
	s->rflags = n->rflags;
	s->fx = n->fx;
	memcpy(s->ymmh, n->ymmh, sizeof(s->ymmh));
	s->event.valid = false;
	cpu_state_changed(t->cpu);
	memcpy(t->mem + NATIVE_DATA, data, sizeof(data));
	tiny_code(t, code, len);
	reason = tiny_run(t, 1);
	switch (reason) {
	case CPU_EXIT_ICOUNT: return -1;
	case CPU_EXIT_TDP_VIOLATION: return X86_VEC_PF;
	case CPU_EXIT_EXCEPTION: return cpu_exit(t->cpu)->exception.vector;
	default: return 1000 + (int)reason;
	}
}

static bool differ(const struct native *n, int vector)
{
	struct cpu_fx fx = n->fx;

	fx.mxcsr_mask = t->s->fx.mxcsr_mask;
	fx.pad = t->s->fx.pad;
	return vector != n->vector || memcmp(n->gpr, t->s->gpr, 4 * 8) ||
	       memcmp(n->gpr + 5, t->s->gpr + 5, 11 * 8) ||
	       ((n->rflags ^ t->s->rflags) & X86_FLAGS_ARITH) ||
	       memcmp(&fx, &t->s->fx, offsetof(struct cpu_fx, rest)) ||
	       (native_has_avx && memcmp(n->ymmh, t->s->ymmh, sizeof(n->ymmh))) ||
	       memcmp(data_native, t->mem + NATIVE_DATA, sizeof(data));
}

static void report(const char *name, const uint8_t *code, unsigned len, const struct native *n,
		   int vector)
{
	const uint64_t *a = (const uint64_t *)&n->fx, *b = (const uint64_t *)&t->s->fx;

	fprintf(stderr, "%s [", name);
	for (unsigned k = 0; k < len; k++)
		fprintf(stderr, "%02x", code[k]);
	fprintf(stderr, "]: vector %d, native %d; flags %llx, %llx\n", vector, n->vector,
		t->s->rflags & X86_FLAGS_ARITH, n->rflags & X86_FLAGS_ARITH);
	for (unsigned k = 0; k < 16; k++)
		if (n->gpr[k] != t->s->gpr[k] && k != X86_RSP)
			fprintf(stderr, "  gpr %u: %lx, native %lx\n", k, t->s->gpr[k], n->gpr[k]);
	for (unsigned k = 0; k < offsetof(struct cpu_fx, rest) / 8; k++)
		if (a[k] != b[k])
			fprintf(stderr, "  fx+%u: %016lx, native %016lx\n", k * 8, b[k], a[k]);
	for (unsigned k = 0; k < 32; k++)
		if (n->ymmh[k / 2][k % 2] != t->s->ymmh[k / 2][k % 2])
			fprintf(stderr, "  ymmh %u.%u: %016lx, native %016lx\n", k / 2, k % 2,
				t->s->ymmh[k / 2][k % 2], n->ymmh[k / 2][k % 2]);
}

static void one_case(const char *name, const uint8_t *code, unsigned len, unsigned run)
{
	struct native n;
	int vector;

	prepare(&n, run);
	vector = emulate(&n, code, len);
	memcpy((void *)NATIVE_DATA, data, sizeof(data));
	native_run(&n, code, len);
	memcpy(data_native, (void *)NATIVE_DATA, sizeof(data));
	/* The host tells #GP of a non-canonical address from other #GP no better; order with #AC is
	 * not ours. */
	if (vector == X86_VEC_AC && (n.vector == X86_VEC_GP || n.vector == X86_VEC_SS))
		return;
	cases++;
	if (differ(&n, vector) && bad++ < 20)
		report(name, code, len, &n, vector);
}

/* ---- all forms ------------------------------------------------------------------------------- */

static bool ours(const ZydisDecodedInstruction *zi)
{
	const struct cpu_op_table *tables[] = {&cpu_ops_fpu, &cpu_ops_sse, &cpu_ops_avx};

	if (zi->meta.category == ZYDIS_CATEGORY_STRINGOP || zi->meta.isa_set == ZYDIS_ISA_SET_SSE4A ||
	    zi->meta.isa_set == ZYDIS_ISA_SET_VAES || zi->meta.isa_set == ZYDIS_ISA_SET_VPCLMULQDQ)
		return false;
	for (unsigned n = 0; n < ARRAY_SIZE(tables); n++)
		for (unsigned k = 0; k < tables[n]->count; k++)
			if (tables[n]->op[k].mnemonic == zi->mnemonic)
				return true;
	return false;
}

static bool uses_rsp(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op)
{
	for (unsigned n = 0; n < zi->operand_count_visible; n++)
		if (op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op[n].reg.value) ==
			    ZYDIS_REGISTER_RSP)
			return true;
	return false;
}

/* prefix, REX, map, opcode, ModRM: try it if it is one of ours. */
static void one_form(const uint8_t *bytes, unsigned run, unsigned count)
{
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zi;
	ZydisDecoder z;
	uint8_t code[16];

	ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	memcpy(code, bytes, sizeof(code));
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, code, 15, &zi, op)) || !ours(&zi) ||
	    uses_rsp(&zi, op))
		return;
	forms++;
	for (unsigned n = 0; n < count; n++) {
		if (zi.raw.imm[0].size)
			code[zi.raw.imm[0].offset] = (uint8_t)rnd();
		one_case(ZydisMnemonicGetString(zi.mnemonic), code, zi.length, run);
	}
}

static void opcode(unsigned map, uint8_t prefix, uint8_t rex, unsigned op, unsigned run,
		   unsigned count)
{
	/* Register forms with two and with the same register, high ones; memory at (RSI). */
	static const struct {
		uint8_t rex, modrm;
	} shape[] = {{0, 0x06}, {0, 0xc3}, {0, 0xc0}, {0x45, 0xc1}};

	for (unsigned reg = 0; reg < 8; reg++)
		for (unsigned n = 0; n < ARRAY_SIZE(shape); n++) {
			uint8_t bytes[16] = {0}, r = rex | shape[n].rex;
			unsigned len = 0;

			if (prefix)
				bytes[len++] = prefix;
			if (r)
				bytes[len++] = r | 0x40;
			if (map)
				bytes[len++] = 0x0f;
			if (map > 1)
				bytes[len++] = map == 2 ? 0x38 : 0x3a;
			bytes[len++] = (uint8_t)op;
			bytes[len] = (uint8_t)(shape[n].modrm | reg << 3);
			one_form(bytes, run, count);
		}
}

static void all_forms(unsigned run)
{
	static const uint8_t prefix[] = {0, 0x66, 0xf2, 0xf3};
	const char *env = getenv("UMBRA_TEST_CASES");
	unsigned count = env ? (unsigned)atoi(env) : 2;

	native_catch();
	cases = forms = bad = 0;
	for (unsigned op = 0xd8; op < 0xe0; op++)
		opcode(0, 0, 0, op, run, count);
	for (unsigned map = 1; map < 4; map++)
		for (unsigned p = 0; p < ARRAY_SIZE(prefix); p++)
			for (unsigned w = 0; w < 2; w++)
				for (unsigned op = 0; op < 256; op++)
					if (map != 1 || (op != 0x38 && op != 0x3a))
						opcode(map, prefix[p], w ? 0x48 : 0, op, run,
						       count);
	print_message("%u forms, %u cases\n", forms, cases);
	assert_int_equal(bad, 0);
	assert_true(forms > 5000);
}

static void test_masked(void **state)
{
	all_forms(0);
}

static void test_x87_unmasked(void **state)
{
	all_forms(RUN_X87_UNMASKED);
}

static void test_sse_unmasked(void **state)
{
	all_forms(RUN_SSE_UNMASKED);
}

static void test_alignment_checks(void **state)
{
	t->s->cr0 |= X86_CR0_AM;
	cpu_state_changed(t->cpu);
	all_forms(RUN_ALIGN);
	t->s->cr0 &= ~X86_CR0_AM;
	cpu_state_changed(t->cpu);
}

/* ---- VEX ------------------------------------------------------------------------------------- */

/* In three-byte form: @b1 has R, X, B and the map, @b2 W, vvvv, L and pp. */
static void vex_opcode(uint8_t b1, uint8_t b2, unsigned op, unsigned run, unsigned count)
{
	/* Memory at (RSI), other registers, the same, high ones; the gathers' (RSI + xmm5 * 4). */
	static const struct {
		uint8_t rxb, modrm, sib;
	} shape[] = {{0xe0, 0x06, 0}, {0xe0, 0xc3, 0}, {0xe0, 0xc0, 0}, {0x40, 0xc1, 0},
		     {0xe0, 0x04, 0xae}};
	static const uint8_t vvvv[] = {0x78, 0x58, 0x08}; /* none or 0, 4, 14 */
	const bool group = b1 == 1 && op >= 0x71 && op <= 0x73;

	for (unsigned n = 0; n < ARRAY_SIZE(shape); n++)
		for (unsigned v = 0; v < ARRAY_SIZE(vvvv); v++)
			for (unsigned reg = 0; reg < 8; reg += group ? 1 : 3) {
				const uint8_t bytes[16] = {
					0xc4, (uint8_t)(shape[n].rxb | b1), (uint8_t)(b2 | vvvv[v]),
					(uint8_t)op, (uint8_t)(shape[n].modrm | reg << 3),
					shape[n].sib,
				};
				bool gather = b1 == 2 && op >= 0x90 && op <= 0x93;

				if (gather != (shape[n].sib != 0))
					continue;
				one_form(bytes,
					 run | (gather ? RUN_GATHER : 0) |
						 (op & 1 ? RUN_GATHER_Q : 0),
					 count);
			}
}

static void all_vex_forms(unsigned run)
{
	const char *env = getenv("UMBRA_TEST_CASES");
	unsigned count = env ? (unsigned)atoi(env) : 2;

	if (!native_has_avx)
		skip();
	native_catch();
	cases = forms = bad = 0;
	for (unsigned map = 1; map < 4; map++)
		for (unsigned b2 = 0; b2 < 16; b2++) /* W, L, pp */
			for (unsigned op = 0; op < 256; op++)
				vex_opcode((uint8_t)map, (uint8_t)((b2 & 8) << 4 | (b2 & 7)), op,
					   run, count);
	print_message("%u forms, %u cases\n", forms, cases);
	assert_int_equal(bad, 0);
	assert_true(forms > 5000);
}

static void test_vex(void **state)
{
	all_vex_forms(0);
}

static void test_vex_unmasked(void **state)
{
	all_vex_forms(RUN_SSE_UNMASKED);
}

static void test_vex_alignment_checks(void **state)
{
	t->s->cr0 |= X86_CR0_AM;
	cpu_state_changed(t->cpu);
	all_vex_forms(RUN_ALIGN);
	t->s->cr0 &= ~X86_CR0_AM;
	cpu_state_changed(t->cpu);
}

static int setup(void **state)
{
	native_init();
	t = tiny_create(MIB(4), 12);
	tiny_mode(t, TINY_LONG, 3);
	t->c->exception_bitmap = ~0u;
	t->s->cr4 |= X86_CR4_OSXSAVE;
	t->s->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX;
	for (uint64_t n = 0; n < 16; n++)
		*tiny_ept(t, NATIVE_DATA + NATIVE_DATA_SIZE + n * PAGE_SIZE) = 0;
	*tiny_ept(t, NATIVE_DATA - PAGE_SIZE) = 0;
	cpu_tlb_flush_all(t->cpu);
	cpu_state_changed(t->cpu);
	return 0;
}

static int teardown(void **state)
{
	tiny_destroy(t);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_masked),
		cmocka_unit_test(test_x87_unmasked),
		cmocka_unit_test(test_sse_unmasked),
		cmocka_unit_test(test_alignment_checks),
		cmocka_unit_test(test_vex),
		cmocka_unit_test(test_vex_unmasked),
		cmocka_unit_test(test_vex_alignment_checks),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
