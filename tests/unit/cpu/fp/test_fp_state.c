/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* x87, MMX and SSE where the host's user mode cannot go: gates, environments by mode, XSAVE's
 * layouts. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpu_internal.h"
#include "tests/unit/cpu/common/tiny.h"

static struct tiny *t;

/* One instruction where rip is, from state that the caller has prepared. -1, or the vector. */
static int step(const void *code, unsigned len)
{
	enum cpu_exit_reason reason;

	t->s->event.valid = false;
	cpu_state_changed(t->cpu);
	tiny_code(t, code, len);
	reason = tiny_run(t, 1);
	if (reason == CPU_EXIT_EXCEPTION)
		return cpu_exit(t->cpu)->exception.vector;
	assert_int_equal(reason, CPU_EXIT_ICOUNT);
	return -1;
}
#define STEP(bytes) step(bytes, sizeof(bytes) - 1)

static void mode(enum tiny_mode m, unsigned cpl)
{
	tiny_mode(t, m, cpl);
	t->c->exception_bitmap = ~0u;
	t->s->gpr[X86_RSI] = m == TINY_REAL || m == TINY_PROT16 ? 0x4000 : TINY_DATA;
}

static uint8_t *mem(void)
{
	return t->mem + t->s->gpr[X86_RSI];
}

#define FLD1	  "\xd9\xe8"
#define FWAIT	  "\x9b"
#define FNSTSW_AX "\xdf\xe0"
#define ADDPS	  "\x0f\x58\xc1"
#define ADDPS_MEM "\x0f\x58\x06" /* (rsi) */
#define PADDB_MMX "\x0f\xfc\xc1"
#define CVTPI2PS  "\x0f\x2a\xc1"
#define EMMS	  "\x0f\x77"
#define LDMXCSR	  "\x0f\xae\x16"
#define FXSAVE	  "\x0f\xae\x06"
#define FXRSTOR	  "\x0f\xae\x0e"
#define XSAVE	  "\x0f\xae\x26"
#define XSAVEOPT  "\x0f\xae\x36"
#define XRSTOR	  "\x0f\xae\x2e"
#define XSAVEC	  "\x0f\xc7\x26"
#define XSAVES	  "\x0f\xc7\x2e"
#define XRSTORS	  "\x0f\xc7\x1e"
#define FNSTENV	  "\xd9\x36"
#define FLDENV	  "\xd9\x26"
#define FNSAVE	  "\xdd\x36"
#define FRSTOR	  "\xdd\x26"

/* ---- gates (SDM 3A 2.5) ---------------------------------------------------------------------- */

static void test_gates(void **state)
{
	static const struct {
		uint64_t cr0, cr4_off;
		int x87, fwait, mmx, sse, mixed, fxsave;
	} row[] = {
		{0, 0, -1, -1, -1, -1, -1, -1},
		{X86_CR0_TS, 0, 7, -1, 7, 7, 7, 7},
		{X86_CR0_TS | X86_CR0_MP, 0, 7, 7, 7, 7, 7, 7},
		{X86_CR0_MP, 0, -1, -1, -1, -1, -1, -1},
		{X86_CR0_EM, 0, 7, -1, 6, 6, 6, 7},
		{X86_CR0_EM | X86_CR0_TS, 0, 7, -1, 6, 6, 6, 7},
		{0, X86_CR4_OSFXSR, -1, -1, -1, 6, 6, -1},
		{X86_CR0_TS, X86_CR4_OSFXSR, 7, -1, 7, 6, 6, 7},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(row); n++) {
		const uint64_t cr0 = row[n].cr0, cr4 = row[n].cr4_off;
		int got[6];

		for (unsigned k = 0; k < 6; k++) {
			mode(TINY_LONG, 0);
			t->s->cr0 = (t->s->cr0 & ~(X86_CR0_MP | X86_CR0_EM | X86_CR0_TS)) | cr0;
			t->s->cr4 &= ~cr4;
			got[k] = k == 0	  ? STEP(FLD1)
				 : k == 1 ? STEP(FWAIT)
				 : k == 2 ? STEP(PADDB_MMX)
				 : k == 3 ? STEP(ADDPS)
				 : k == 4 ? STEP(CVTPI2PS)
					  : STEP(FXSAVE);
		}
		assert_int_equal(got[0], row[n].x87);
		assert_int_equal(got[1], row[n].fwait);
		assert_int_equal(got[2], row[n].mmx);
		assert_int_equal(got[3], row[n].sse);
		assert_int_equal(got[4], row[n].mixed);
		assert_int_equal(got[5], row[n].fxsave);
	}
}

/* #UD and #NM come before what is wrong with the operand. */
static void test_gate_before_operand(void **state)
{
	mode(TINY_PROT32, 0);
	t->s->seg[X86_DS].limit = 0xfff;
	t->s->gpr[X86_RSI] = 0x2001;
	assert_int_equal(STEP(ADDPS_MEM), X86_VEC_GP);
	t->s->cr0 |= X86_CR0_TS;
	assert_int_equal(STEP(ADDPS_MEM), X86_VEC_NM);
	t->s->cr4 &= ~X86_CR4_OSFXSR;
	assert_int_equal(STEP(ADDPS_MEM), X86_VEC_UD);
	assert_int_equal(STEP(XSAVE), X86_VEC_UD);
	t->s->cr4 |= X86_CR4_OSXSAVE;
	assert_int_equal(STEP(XSAVE), X86_VEC_NM);
	t->s->cr0 &= ~X86_CR0_TS;
	assert_int_equal(STEP(XSAVE), X86_VEC_GP);
}

static void test_pending(void **state)
{
	mode(TINY_LONG, 0);
	t->s->fx.fcw = 0x37e;			 /* invalid unmasked .. */
	t->s->fx.fsw = 0x8081;			 /* .. and there */
	t->s->gpr[X86_RSI] = 0x8000000000000000; /* comes later */
	assert_int_equal(STEP(FLD1), X86_VEC_MF);
	assert_int_equal(STEP(FWAIT), X86_VEC_MF);
	assert_int_equal(STEP("\xd9\x06"), X86_VEC_MF); /* fld (rsi) */
	assert_int_equal(STEP(PADDB_MMX), X86_VEC_MF);
	assert_int_equal(STEP(CVTPI2PS), X86_VEC_MF);
	assert_int_equal(STEP(FNSTSW_AX), -1);
	assert_int_equal(t->s->gpr[X86_RAX] & 0xffff, 0x8081);
	t->s->rip = TINY_CODE;
	assert_int_equal(STEP("\xdb\xe2"), -1); /* fnclex */
	assert_int_equal(t->s->fx.fsw, 0);
	t->s->rip = TINY_CODE;
	assert_int_equal(STEP("\xd9\x06"), X86_VEC_GP);
}

static void test_sse_exceptions(void **state)
{
	mode(TINY_LONG, 3);
	t->s->fx.xmm[0].d[0] = 0x3f800000;
	t->s->fx.mxcsr = 0x1f80 & ~0x200u;			/* zero divide unmasked */
	assert_int_equal(STEP("\xf3\x0f\x5e\xc1"), X86_VEC_XM); /* divss xmm0, xmm1 = 0 */
	assert_int_equal(t->s->fx.mxcsr, 0x1d84);
	assert_int_equal(t->s->fx.xmm[0].d[0], 0x3f800000);
	t->s->fx.mxcsr = 0x1d80;
	t->s->cr4 &= ~X86_CR4_OSXMMEXCPT;
	assert_int_equal(STEP("\xf3\x0f\x5e\xc1"), X86_VEC_UD);
	t->s->fx.mxcsr = 0x1f80;
	assert_int_equal(STEP("\xf3\x0f\x5e\xc1"), -1);
	assert_int_equal(t->s->fx.mxcsr, 0x1f84);
	assert_int_equal(t->s->fx.xmm[0].d[0], 0x7f800000);
	/* Flags that the host still has from here must not show after the guest cleared its own. */
	t->s->rip = TINY_CODE;
	t->s->fx.mxcsr = 0x1f80;
	assert_int_equal(STEP(ADDPS), -1);
	assert_int_equal(t->s->fx.mxcsr, 0x1f80);
	t->s->rip = TINY_CODE;
	memcpy(mem(), "\x80\x1f\x01\x00", 4);
	assert_int_equal(STEP(LDMXCSR), X86_VEC_GP);
}

/* ---- environments ---------------------------------------------------------------------------- */

static void some_x87(void)
{
	struct cpu_fx *fx = &t->s->fx;

	fx->fcw = 0x27f;
	fx->fsw = 6 << 11 | 0x4700;
	fx->ftw = 0xc0;
	fx->fop = 0x5a5;
	fx->fip = 0x12345678;
	fx->fdp = 0x9abcdef0;
	for (unsigned n = 0; n < 8; n++) {
		fx->st[n].lo = BIT(63) | n;
		fx->st[n].hi = 0x3fff + n;
	}
	fx->st[1].lo = 0;
	fx->st[1].hi = 0;
}

static void check_env32(uint32_t ip, uint32_t cs, uint32_t dp, uint32_t ds)
{
	uint32_t e[7];

	memcpy(e, mem(), 28);
	assert_int_equal(e[0], 0xffff027f);
	assert_int_equal(e[1], 0xffff7700);
	assert_int_equal(e[2], 0xffff4fff); /* R6 valid, R7 zero */
	assert_int_equal(e[3], ip);
	assert_int_equal(e[4], cs);
	assert_int_equal(e[5], dp);
	assert_int_equal(e[6], ds);
}

static void test_environments(void **state)
{
	static const uint16_t prot16[7] = {0x27f, 0x7700, 0x4fff, 0x5678, 0, 0xdef0, 0};
	static const uint16_t real16[7] = {0x27f, 0x7700, 0x4fff, 0x5678, 0x45a5, 0xdef0, 0xc000};
	uint16_t zero = 0;

	mode(TINY_PROT32, 0);
	some_x87();
	assert_int_equal(STEP(FNSTENV), -1);
	check_env32(0x12345678, 0x5a5 << 16, 0x9abcdef0, 0xffff0000);
	assert_int_equal(t->s->fx.fcw, 0x27f);

	mode(TINY_PROT32, 0);
	some_x87();
	assert_int_equal(STEP("\x66" FNSTENV), -1);
	assert_memory_equal(mem(), prot16, 14);

	mode(TINY_REAL, 0);
	some_x87();
	assert_int_equal(STEP("\xd9\x34"), -1); /* (si) */
	assert_memory_equal(mem(), real16, 14);

	mode(TINY_REAL, 0);
	some_x87();
	assert_int_equal(STEP("\x66\xd9\x34"), -1);
	check_env32(0xffff5678, 0x1234 << 12 | 0x5a5, 0xffffdef0, 0x9abcu << 12);
	/* And back: the registers stay where they are while the top moves. */
	memcpy(mem() + 4, &zero, 2);
	t->s->rip = 0x8000;
	t->s->fx.fip = t->s->fx.fdp = t->s->fx.fop = 0;
	assert_int_equal(STEP("\x66\xd9\x24"), -1);
	assert_int_equal(t->s->fx.fip, 0x12345678);
	assert_int_equal(t->s->fx.fdp, 0x9abcdef0);
	assert_int_equal(t->s->fx.fop, 0x5a5);
	assert_int_equal(t->s->fx.fsw, 0);
	assert_int_equal(t->s->fx.ftw, 0xc0);
	assert_int_equal(t->s->fx.st[6].lo, BIT(63));
	assert_int_equal(t->s->fx.st[0].lo, BIT(63) | 2);
}

static void test_save_restore(void **state)
{
	struct cpu_fx before;

	mode(TINY_COMPAT32, 3);
	some_x87();
	before = t->s->fx;
	assert_int_equal(STEP(FNSAVE), -1);
	assert_int_equal(t->s->fx.fcw, 0x37f);
	assert_int_equal(t->s->fx.fsw, 0);
	assert_int_equal(t->s->fx.ftw, 0);
	assert_memory_equal(mem() + 28 + 10, &before.st[1], 10);
	t->s->rip = TINY_CODE;
	assert_int_equal(STEP(FRSTOR), -1);
	assert_memory_equal(&t->s->fx, &before, offsetof(struct cpu_fx, mxcsr));
	assert_memory_equal(t->s->fx.st, before.st, sizeof(before.st));
}

/* A fault in the middle of a store leaves everything as it was. */
static void test_save_faults(void **state)
{
	struct cpu_fx before;

	mode(TINY_PROT32, 0);
	t->s->seg[X86_DS].limit = TINY_DATA + 100;
	some_x87();
	before = t->s->fx;
	assert_int_equal(STEP(FNSAVE), X86_VEC_GP);
	assert_memory_equal(&t->s->fx, &before, sizeof(before));
	assert_int_equal(STEP(FXSAVE), X86_VEC_GP);
	assert_int_equal(STEP("\xdb\x3e"), -1); /* fstp m80 */
}

/* ---- FXSAVE, XSAVE --------------------------------------------------------------------------- */

static void some_xmm(void)
{
	for (unsigned n = 0; n < 16; n++)
		for (unsigned k = 0; k < 16; k++)
			t->s->fx.xmm[n].b[k] = (uint8_t)(n * 16 + k + 1);
}

static void test_fxsave_modes(void **state)
{
	mode(TINY_COMPAT32, 3);
	some_x87();
	some_xmm();
	memset(mem(), 0xee, 512);
	assert_int_equal(STEP(FXSAVE), -1);
	assert_memory_equal(mem() + 160, t->s->fx.xmm, 128);
	assert_int_equal(mem()[288], 0xee); /* XMM8 and on are 64-bit mode's */
	assert_int_equal(mem()[416], 0xee);
	t->s->rip = TINY_CODE;
	t->s->fx.xmm[7].q[0] = t->s->fx.xmm[8].q[0] = 0;
	assert_int_equal(STEP(FXRSTOR), -1);
	assert_int_equal(t->s->fx.xmm[7].q[0], 0x7877767574737271);
	assert_int_equal(t->s->fx.xmm[8].q[0], 0);

	mode(TINY_LONG, 3);
	some_xmm();
	t->s->fx.fip = 0x123456789abc;
	memset(mem(), 0xee, 512);
	assert_int_equal(STEP("\x48" FXSAVE), -1);
	assert_memory_equal(mem() + 160, t->s->fx.xmm, 256);
	assert_memory_equal(mem() + 8, &t->s->fx.fip, 8);
	assert_int_equal(mem()[416], 0xee);
	t->s->rip = TINY_CODE;
	assert_int_equal(STEP(FXSAVE), -1);
	assert_memory_equal(mem() + 8, "\xbc\x9a\x78\x56\0\0\0\0", 8);
	t->s->rip = TINY_CODE;
	t->s->gpr[X86_RSI] += 8;
	assert_int_equal(STEP(FXSAVE), X86_VEC_GP);
}

static void xsave_mode(unsigned cpl)
{
	mode(TINY_LONG, cpl);
	t->s->cr4 |= X86_CR4_OSXSAVE;
	t->s->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_PKRU;
	t->s->gpr[X86_RAX] = t->s->gpr[X86_RDX] = ~0ull;
	memset(mem(), 0, 4096);
	cpu_state_changed(t->cpu);
}

static uint64_t header(unsigned n)
{
	uint64_t v;

	memcpy(&v, mem() + 512 + 8 * n, 8);
	return v;
}

static void test_xsave_layouts(void **state)
{
	uint32_t pkru;

	xsave_mode(3);
	some_x87();
	some_xmm();
	t->s->pkru = 0x55;
	assert_int_equal(STEP(XSAVE), -1);
	assert_int_equal(header(0), 0x203);
	assert_int_equal(header(1), 0);
	memcpy(&pkru, mem() + 0xa80, 4);
	assert_int_equal(pkru, 0x55);

	xsave_mode(3);
	some_xmm();
	t->s->pkru = 0x55;
	memset(mem(), 0xee, 512);
	assert_int_equal(STEP(XSAVEC), -1);
	assert_int_equal(header(0), 0x202); /* x87 is as FNINIT leaves it */
	assert_int_equal(header(1), BIT(63) | 0x203);
	assert_int_equal(mem()[0], 0xee);
	memcpy(&pkru, mem() + 576, 4);
	assert_int_equal(pkru, 0x55);
	assert_int_equal(cpu_xsave_size(t->cpu, 0x203, true), 584);
	assert_int_equal(cpu_xsave_size(t->cpu, 0x203, false), 0xa88);
	assert_int_equal(cpu_xsave_size(t->cpu, 3, false), 576);

	/* Back, with other registers in between; what was in its initial state returns to it. */
	t->s->rip = TINY_CODE;
	memset(t->s->fx.xmm, 0xcc, 256);
	t->s->pkru = 0;
	some_x87();
	assert_int_equal(STEP(XRSTOR), -1);
	assert_int_equal(t->s->fx.xmm[15].b[15], 0);
	assert_int_equal(t->s->fx.xmm[15].b[14], 0xff);
	assert_int_equal(t->s->pkru, 0x55);
	assert_int_equal(t->s->fx.fcw, 0x37f);
	assert_int_equal(t->s->fx.st[0].lo, 0);

	xsave_mode(3);
	memset(mem(), 0xee, 512);
	t->s->pkru = 0x55;
	t->s->gpr[X86_RAX] = 3;
	assert_int_equal(STEP(XSAVEOPT), -1);
	assert_int_equal(header(0), 0);
	assert_int_equal(mem()[0], 0xee);
	assert_int_equal(mem()[24], 0x80); /* MXCSR goes by the mask alone */
	assert_int_equal(mem()[160], 0xee);
}

static void some_ymm(void)
{
	memset(t->s->ymmh, 0, sizeof(t->s->ymmh));
	for (unsigned n = 0; n < 16; n++)
		t->s->ymmh[n][1] = 0x1111111111111111ull * n;
}

static void test_xsave_avx(void **state)
{
	uint32_t pkru;

	xsave_mode(3);
	t->s->xcr0 |= X86_XCR0_AVX;
	some_ymm();
	t->s->pkru = 0x55;
	assert_int_equal(STEP(XSAVE), -1);
	assert_int_equal(header(0) & 0x204, 0x204);
	assert_memory_equal(mem() + 576, t->s->ymmh, 256);
	memcpy(&pkru, mem() + 0xa80, 4);
	assert_int_equal(pkru, 0x55);

	/* Compacted: PKRU follows AVX when the format has it, in use or not. */
	t->s->rip = TINY_CODE;
	memset(mem(), 0, 4096);
	assert_int_equal(STEP(XSAVEC), -1);
	assert_int_equal(header(1), BIT(63) | 0x207);
	assert_memory_equal(mem() + 576, t->s->ymmh, 256);
	memcpy(&pkru, mem() + 832, 4);
	assert_int_equal(pkru, 0x55);
	assert_int_equal(cpu_xsave_size(t->cpu, 0x207, true), 840);
	assert_int_equal(cpu_xsave_size(t->cpu, 7, false), 832);

	/* Back; then the initial configuration. */
	t->s->rip = TINY_CODE;
	memset(t->s->ymmh, 0xcc, 256);
	t->s->pkru = 0;
	assert_int_equal(STEP(XRSTOR), -1);
	assert_int_equal(t->s->ymmh[15][1], ~0ull);
	assert_int_equal(t->s->ymmh[15][0], 0);
	assert_int_equal(t->s->pkru, 0x55);
	t->s->rip = TINY_CODE;
	mem()[512] = 0;
	assert_int_equal(STEP(XRSTOR), -1);
	assert_int_equal(t->s->ymmh[15][1], 0);

	/* RFBM[2] alone takes MXCSR along in the standard format. */
	xsave_mode(3);
	t->s->xcr0 |= X86_XCR0_AVX;
	t->s->gpr[X86_RAX] = 4;
	t->s->fx.mxcsr = 0x1fa0;
	assert_int_equal(STEP(XSAVE), -1);
	assert_int_equal(mem()[24], 0xa0);
	t->s->rip = TINY_CODE;
	t->s->fx.mxcsr = 0x1f80;
	assert_int_equal(STEP(XRSTOR), -1);
	assert_int_equal(t->s->fx.mxcsr, 0x1fa0);
}

#define VADDPS	   "\xc5\xec\x58\xc1" /* ymm1,ymm2,ymm0 */
#define VZEROUPPER "\xc5\xf8\x77"
#define VZEROALL   "\xc5\xfc\x77"
#define VMOVAPS	   "\xc5\xfc\x28\x06" /* (rsi),ymm0 */
#define VMOVUPS	   "\xc5\xfc\x10\x06"
#define VMASKSTORE "\xc4\xe2\x75\x2e\x06" /* ymm0,ymm1,(rsi) */

static void avx_mode(enum tiny_mode m, unsigned cpl)
{
	mode(m, cpl);
	t->s->cr4 |= X86_CR4_OSXSAVE;
	t->s->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX;
}

static void test_avx_gates(void **state)
{
	if (!__builtin_cpu_supports("avx2"))
		skip();
	avx_mode(TINY_LONG, 3);
	assert_int_equal(STEP(VADDPS), -1);
	avx_mode(TINY_LONG, 3);
	t->s->cr4 &= ~X86_CR4_OSXSAVE;
	assert_int_equal(STEP(VADDPS), X86_VEC_UD);
	avx_mode(TINY_LONG, 3);
	t->s->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE;
	t->s->cr0 |= X86_CR0_TS;
	assert_int_equal(STEP(VADDPS), X86_VEC_UD);
	avx_mode(TINY_LONG, 3);
	t->s->cr0 |= X86_CR0_TS;
	assert_int_equal(STEP(VMOVUPS), X86_VEC_NM);
	assert_int_equal(STEP(VZEROUPPER), X86_VEC_NM);
	/* CR4.OSFXSR and CR0.EM are not VEX's. */
	avx_mode(TINY_LONG, 3);
	t->s->cr4 &= ~X86_CR4_OSFXSR;
	t->s->cr0 |= X86_CR0_EM;
	assert_int_equal(STEP(VADDPS), -1);
	/* VEX.vvvv where there is no such operand; no VEX in real mode; aligned moves. */
	avx_mode(TINY_LONG, 3);
	assert_int_equal(STEP("\xc5\xf4\x28\xc1"), X86_VEC_UD);
	avx_mode(TINY_REAL, 0);
	assert_int_equal(STEP(VADDPS), X86_VEC_UD);
	avx_mode(TINY_LONG, 3);
	t->s->gpr[X86_RSI] += 16;
	assert_int_equal(STEP(VMOVUPS), -1);
	t->s->rip = TINY_CODE;
	assert_int_equal(STEP(VMOVAPS), X86_VEC_GP);
}

static void test_avx_upper_halves(void **state)
{
	uint64_t before[16][2];

	if (!__builtin_cpu_supports("avx2"))
		skip();
	avx_mode(TINY_LONG, 3);
	some_ymm();
	memcpy(before, t->s->ymmh, sizeof(before));
	assert_int_equal(STEP(ADDPS), -1); /* legacy SSE keeps them */
	assert_memory_equal(t->s->ymmh, before, sizeof(before));
	/* Outside 64-bit mode YMM8 and up stay as they are. */
	avx_mode(TINY_COMPAT32, 3);
	some_xmm();
	some_ymm();
	assert_int_equal(STEP(VZEROUPPER), -1);
	assert_int_equal(t->s->ymmh[7][1], 0);
	assert_int_equal(t->s->ymmh[8][1], before[8][1]);
	assert_int_equal(t->s->fx.xmm[7].b[15] | t->s->fx.xmm[7].b[14], 0xff);
	t->s->rip = TINY_CODE;
	assert_int_equal(STEP(VZEROALL), -1);
	assert_int_equal(t->s->fx.xmm[7].q[0], 0);
	assert_int_equal(t->s->fx.xmm[8].b[14], 0x8f);
	avx_mode(TINY_LONG, 3);
	some_xmm();
	some_ymm();
	assert_int_equal(STEP(VZEROALL), -1);
	assert_int_equal(t->s->ymmh[15][1] | t->s->fx.xmm[15].q[1], 0);
}

/* A store that faults in its last element has stored none. */
static void test_avx_masked_store(void **state)
{
	if (!__builtin_cpu_supports("avx2"))
		skip();
	avx_mode(TINY_LONG, 3);
	t->s->gpr[X86_RSI] = MIB(2) - 28; /* the machine has pages of 2 MiB */
	memset(mem(), 0xee, 28);
	memset(t->s->fx.xmm, 0xff, sizeof(t->s->fx.xmm));
	memset(t->s->ymmh, 0xff, sizeof(t->s->ymmh));
	*tiny_ept(t, MIB(2)) &= ~7ull;
	cpu_tlb_flush_all(t->cpu);
	t->s->event.valid = false;
	cpu_state_changed(t->cpu);
	tiny_code(t, VMASKSTORE, sizeof(VMASKSTORE) - 1);
	assert_int_equal(tiny_run(t, 1), CPU_EXIT_TDP_VIOLATION);
	assert_int_equal(mem()[0], 0xee);
	t->s->ymmh[1][1] = 0x00000000ffffffff; /* the last element is masked off */
	t->s->rip = TINY_CODE;
	assert_int_equal(STEP(VMASKSTORE), -1);
	assert_int_equal(mem()[0], 0xff);
	*tiny_ept(t, MIB(2)) |= 7;
	cpu_tlb_flush_all(t->cpu);
}

static void test_xrstor_checks(void **state)
{
	static const struct {
		uint64_t bv, comp, rest;
		int rstor, rstors;
	} row[] = {
		{0, 0, 0, -1, X86_VEC_GP},
		{3, 0, 0, -1, X86_VEC_GP},
		{4, 0, 0, X86_VEC_GP, X86_VEC_GP},
		{0, 1, 0, X86_VEC_GP, X86_VEC_GP},
		{0, 0, 1, X86_VEC_GP, X86_VEC_GP},
		{3, BIT(63) | 3, 0, -1, -1},
		{3, BIT(63) | 1, 0, X86_VEC_GP, X86_VEC_GP},
		{0, BIT(63) | 4, 0, X86_VEC_GP, X86_VEC_GP},
		{0, BIT(63), 1, X86_VEC_GP, X86_VEC_GP},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(row); n++) {
		const uint64_t h[3] = {row[n].bv, row[n].comp, row[n].rest};

		xsave_mode(0);
		memcpy(mem() + 512, h, sizeof(h));
		assert_int_equal(STEP(XRSTOR), row[n].rstor);
		xsave_mode(0);
		memcpy(mem() + 512, h, sizeof(h));
		assert_int_equal(STEP(XRSTORS), row[n].rstors);
	}
	xsave_mode(3);
	assert_int_equal(STEP(XSAVES), X86_VEC_GP);
	xsave_mode(0);
	t->s->gpr[X86_RSI] += 16;
	assert_int_equal(STEP(XSAVES), X86_VEC_GP);
	xsave_mode(0);
	t->s->fx.mxcsr = 0x1fa0;
	assert_int_equal(STEP(XSAVES), -1);
	assert_int_equal(header(0), 2);
	/* MXCSR with reserved bits, where it is looked at. */
	xsave_mode(0);
	memset(mem() + 24, 0xff, 4);
	assert_int_equal(STEP(XRSTOR), X86_VEC_GP);
	t->s->gpr[X86_RAX] = 1;
	assert_int_equal(STEP(XRSTOR), -1);
}

/* ---- more than one thread -------------------------------------------------------------------- */

static void *decode_and_run(void *arg)
{
	struct tiny *m = tiny_create(MIB(4), 21);

	tiny_mode(m, TINY_LONG, 0);
	m->s->fx.xmm[1].d[0] = 0x3f800000;
	for (unsigned n = 0; n < 64; n++) {
		/* pshufd xmm0, xmm1, n; addss xmm2, xmm1; fld1; paddb */
		uint8_t code[] = {0x66, 0x0f, 0x70, 0xc1, (uint8_t)n, 0xf3, 0x0f, 0x58,
				  0xd1, 0xd9, 0xe8, 0x0f, 0xfc,	      0xc1, 0x0f, 0x77};

		m->s->rip = TINY_CODE;
		cpu_state_changed(m->cpu);
		tiny_code(m, code, sizeof(code));
		tiny_run(m, 5);
	}
	*(uint32_t *)arg = m->s->fx.xmm[2].d[0];
	tiny_destroy(m);
	return NULL;
}

static void test_threads(void **state)
{
	uint32_t sum[3];
	pthread_t id[3];

	for (unsigned n = 0; n < 3; n++)
		assert_int_equal(pthread_create(&id[n], NULL, decode_and_run, &sum[n]), 0);
	for (unsigned n = 0; n < 3; n++) {
		pthread_join(id[n], NULL);
		assert_int_equal(sum[n], 0x42800000); /* 64.0 */
	}
}

static int setup(void **state)
{
	t = tiny_create(MIB(4), 21);
	return 0;
}

static int teardown(void **state)
{
	tiny_destroy(t);
	return 0;
}

int main(void)
{
	/* clang-format off */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gates),
		cmocka_unit_test(test_gate_before_operand),
		cmocka_unit_test(test_pending),
		cmocka_unit_test(test_sse_exceptions),
		cmocka_unit_test(test_environments),
		cmocka_unit_test(test_save_restore),
		cmocka_unit_test(test_save_faults),
		cmocka_unit_test(test_fxsave_modes),
		cmocka_unit_test(test_xsave_layouts),
		cmocka_unit_test(test_xsave_avx),
		cmocka_unit_test(test_avx_gates),
		cmocka_unit_test(test_avx_upper_halves),
		cmocka_unit_test(test_avx_masked_store),
		cmocka_unit_test(test_xrstor_checks),
		cmocka_unit_test(test_threads),
	};
	/* clang-format on */

	return cmocka_run_group_tests(tests, setup, teardown);
}
