/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* System instructions in every mode and operand size, against what the manual says (SDM 2). */
#include "tests/unit/cpu/sys/sys.h"

static struct tiny *t;

static int setup(void **state)
{
	t = tiny_create(MIB(16), 21);
	return 0;
}

static int teardown(void **state)
{
	tiny_destroy(t);
	return 0;
}

/* ---- modes and sizes --------------------------------------------------------------------------- */

#define AT   0x7000u /* a memory operand, by RBX */
#define SP   0x6f00u
#define NONE 0u      /* prefixes */
#define OPSZ 0x66u
#define REXW 0x48u
#define MEM  (-1)

/* An instruction in a mode, with one prefix: one way to say one thing. */
struct way {
	enum tiny_mode mode;
	uint8_t prefix;
};

static const struct way ways[] = {
	{TINY_LONG, NONE},   {TINY_LONG, OPSZ},	  {TINY_LONG, REXW},   {TINY_PROT32, NONE},
	{TINY_PROT32, OPSZ}, {TINY_PROT16, NONE}, {TINY_PROT16, OPSZ},
};

static unsigned width(const struct way *w)
{
	bool small = w->mode == TINY_PROT16;

	if (w->prefix == REXW)
		return 8;
	return (w->prefix == OPSZ) != small ? 2 : 4;
}

static void begin(const struct way *w, unsigned cpl)
{
	sys_mode(t, w->mode, cpl);
	memset(t->s->gpr, 0, sizeof(t->s->gpr));
	t->s->gpr[X86_RBX] = AT;
	t->s->gpr[X86_RSP] = SP;
	memset(t->mem + AT, 0, 1024);
}

/* @op without prefix; with @reg >= 0 a ModRM byte follows, of [RBX] or (@rm >= 0) of a register. */
static int run(const struct way *w, const char *op, int reg, int rm)
{
	static const char starts[] = "\xf3\xf2";
	uint8_t code[16];
	unsigned n = 0, len = 0;

	if (w->prefix == OPSZ)
		code[n++] = OPSZ;
	while (*op && strchr(starts, *op))
		code[n++] = (uint8_t)*op++;
	if (w->prefix == REXW)
		code[n++] = REXW;
	len = op[0] == 0x0f ? (op[1] == 0x01 && reg < 0 ? 3 : 2) : 1;
	memcpy(code + n, op, len);
	n += len;
	if (reg >= 0)
		code[n++] = (uint8_t)(reg << 3 | (rm >= 0 ? 0xc0 | rm : w->mode == TINY_PROT16 ? 7 : 3));
	return sys_code(t, code, n);
}

static bool is_long(const struct way *w)
{
	return w->mode == TINY_LONG;
}

#define FOR_WAYS(w) for (const struct way *w = ways; w < ways + ARRAY_SIZE(ways); w++)

/* ---- plain ones -------------------------------------------------------------------------------- */

/* What is refused at CPL 3, and changes nothing that can be seen at CPL 0. */
static void test_privileged(void **state)
{
	static const struct {
		const char *op;
		int reg;
	} rows[] = {{"\x0f\x08", -1}, {"\x0f\x09", -1}, {"\x0f\x01", 7}}; /* INVD WBINVD INVLPG */

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		FOR_WAYS(w) {
			begin(w, 0);
			assert_int_equal(run(w, rows[n].op, rows[n].reg, MEM), SYS_DONE);
			begin(w, 3);
			assert_int_equal(run(w, rows[n].op, rows[n].reg, MEM), SYS_FAULT(13, 0));
		}
	}
}

static void test_stac_clac(void **state)
{
	FOR_WAYS(w) {
		if (w->prefix == OPSZ)
			continue; /* #UD: both have no prefix */
		begin(w, 0);
		assert_int_equal(run(w, "\x0f\x01\xcb", -1, MEM), SYS_DONE);
		assert_true(t->s->rflags & X86_FLAG_AC);
		t->s->rip = w->mode == TINY_PROT16 ? 0x8000 : TINY_CODE;
		assert_int_equal(run(w, "\x0f\x01\xca", -1, MEM), SYS_DONE);
		assert_false(t->s->rflags & X86_FLAG_AC);
		begin(w, 3);
		assert_int_equal(run(w, "\x0f\x01\xca", -1, MEM), SYS_FAULT(6, 0));
		begin(w, 3);
		assert_int_equal(run(w, "\x0f\x01\xcb", -1, MEM), SYS_FAULT(6, 0));
	}
}

static void test_identity(void **state)
{
	FOR_WAYS(w) {
		uint32_t out[4];

		begin(w, 3);
		t->s->gpr[X86_RAX] = 0x80000000;
		t->s->gpr[X86_RBX] = t->s->gpr[X86_RCX] = t->s->gpr[X86_RDX] = is_long(w) ? ~0ull : ~0u;
		assert_int_equal(run(w, "\x0f\xa2", -1, MEM), SYS_DONE);
		cpu_cpuid(t->cpu, 0x80000000, 0, out);
		assert_int_equal(t->s->gpr[X86_RAX], out[0]);
		assert_int_equal(t->s->gpr[X86_RBX], out[1]);
		assert_int_equal(t->s->gpr[X86_RCX], out[2]);
		assert_int_equal(t->s->gpr[X86_RDX], out[3]);
		/* RDTSCP: ECX is TSC_AUX; not for CPL 3 with CR4.TSD. */
		begin(w, 3);
		t->s->tsc_aux = 0x1234567;
		assert_int_equal(run(w, "\x0f\x01\xf9", -1, MEM), SYS_DONE);
		assert_int_equal(t->s->gpr[X86_RCX], 0x1234567);
		begin(w, 3);
		t->s->cr4 |= X86_CR4_TSD;
		assert_int_equal(run(w, "\x0f\x01\xf9", -1, MEM), SYS_FAULT(13, 0));
		begin(w, 3);
		t->s->tsc_aux = 0x89abcdef;
		assert_int_equal(run(w, "\xf3\x0f\xc7", 7, 0), SYS_DONE); /* RDPID */
		assert_int_equal(t->s->gpr[X86_RAX], 0x89abcdef);
	}
}

static void test_random(void **state)
{
	FOR_WAYS(w) {
		for (int reg = 6; reg < 8; reg++) { /* RDRAND, RDSEED */
			begin(w, 3);
			t->c->rand_seed = 1;
			t->s->gpr[X86_RAX] = 0xffffffff00000000;
			t->s->rflags |= X86_FLAGS_ARITH;
			assert_int_equal(run(w, "\x0f\xc7", reg, 0), SYS_DONE);
			assert_int_equal(t->s->rflags & X86_FLAGS_ARITH, X86_FLAG_CF);
			assert_int_not_equal(t->s->gpr[X86_RAX], 0xffffffff00000000);
			if (width(w) == 4)
				assert_int_equal(t->s->gpr[X86_RAX] >> 32, 0);
			if (width(w) == 2)
				assert_int_equal(t->s->gpr[X86_RAX] >> 16, 0xffffffff0000);
		}
	}
}

static void test_wrmsr(void **state)
{
	FOR_WAYS(w) {
		begin(w, 0);
		t->s->gpr[X86_RCX] = X86_MSR_STAR;
		t->s->gpr[X86_RDX] = 0x00230010;
		t->s->gpr[X86_RAX] = 0x12345678;
		assert_int_equal(run(w, "\x0f\x30", -1, MEM), SYS_DONE);
		assert_int_equal(t->s->star, 0x0023001012345678);
		begin(w, 0);
		t->s->gpr[X86_RCX] = X86_MSR_LSTAR;
		t->s->gpr[X86_RDX] = 0x80000000; /* not canonical */
		assert_int_equal(run(w, "\x0f\x30", -1, MEM), SYS_FAULT(13, 0));
		begin(w, 3);
		t->s->gpr[X86_RCX] = X86_MSR_STAR;
		assert_int_equal(run(w, "\x0f\x30", -1, MEM), SYS_FAULT(13, 0));
		begin(w, 0);
		t->s->star = 0x0023001012345678;
		t->s->gpr[X86_RCX] = X86_MSR_STAR;
		assert_int_equal(run(w, "\x0f\x32", -1, MEM), SYS_DONE); /* RDMSR */
		assert_int_equal(t->s->gpr[X86_RAX], 0x12345678);
		assert_int_equal(t->s->gpr[X86_RDX], 0x00230010);
	}
}

/* ---- tables and selectors ---------------------------------------------------------------------- */

static void test_store_selector(void **state)
{
	FOR_WAYS(w) {
		for (int reg = 0; reg < 2; reg++) { /* SLDT, STR */
			uint16_t want = reg ? TINY_TR : 0x58;

			begin(w, 0);
			t->s->ldtr.sel = 0x58;
			memset(t->mem + AT, 0xee, 16);
			cpu_state_changed(t->cpu);
			assert_int_equal(run(w, "\x0f\x00", reg, MEM), SYS_DONE);
			assert_int_equal(sys_get(t, AT, 4), 0xeeee0000 | want); /* 16 bits */
			begin(w, 0);
			t->s->ldtr.sel = 0x58;
			t->s->gpr[X86_RAX] = is_long(w) ? ~0ull : ~0u;
			assert_int_equal(run(w, "\x0f\x00", reg, 0), SYS_DONE);
			assert_int_equal(t->s->gpr[X86_RAX],
					 width(w) != 2 ? want
						       : (is_long(w) ? ~0xffffull : 0xffff0000) | want);
			/* UMIP refuses it at CPL 3. */
			begin(w, 3);
			t->s->cr4 |= X86_CR4_UMIP;
			assert_int_equal(run(w, "\x0f\x00", reg, MEM), SYS_FAULT(13, 0));
		}
	}
}

static void test_store_table(void **state)
{
	FOR_WAYS(w) {
		for (int reg = 0; reg < 2; reg++) { /* SGDT, SIDT */
			const struct cpu_table *want = reg ? &t->s->idtr : &t->s->gdtr;

			begin(w, 0);
			memset(t->mem + AT, 0xee, 16);
			assert_int_equal(run(w, "\x0f\x01", reg, MEM), SYS_DONE);
			assert_int_equal(sys_get(t, AT, 2), want->limit);
			assert_int_equal(sys_get(t, AT + 2, 4), want->base);
			assert_int_equal(sys_get(t, AT + 6, 4), is_long(w) ? want->base >> 32 : 0xeeeeeeee);
			begin(w, 3);
			t->s->cr4 |= X86_CR4_UMIP;
			assert_int_equal(run(w, "\x0f\x01", reg, MEM), SYS_FAULT(13, 0));
		}
	}
}

static void test_far_pointers(void **state)
{
	static const struct {
		const char *op;
		unsigned seg;
		bool legacy;
	} rows[] = {{"\xc4", X86_ES, true},	 {"\xc5", X86_DS, true},
		    {"\x0f\xb2", X86_SS, false}, {"\x0f\xb4", X86_FS, false},
		    {"\x0f\xb5", X86_GS, false}};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		FOR_WAYS(w) {
			unsigned size = width(w);
			uint64_t offset = 0x1122334455667788 & (size == 8 ? ~0ull : BIT(size * 8) - 1);

			if (rows[n].legacy && is_long(w))
				continue; /* VEX */
			begin(w, 0);
			t->s->seg[rows[n].seg].sel = 0x99;
			sys_put(t, AT, offset, 8);
			sys_put(t, AT + size, TINY_DS, 2);
			assert_int_equal(run(w, rows[n].op, 1, MEM), SYS_DONE);
			assert_int_equal(t->s->gpr[X86_RCX], offset);
			assert_int_equal(t->s->seg[rows[n].seg].sel, TINY_DS);
			/* Beyond the table: neither register changes. */
			begin(w, 0);
			sys_put(t, AT, offset, 8);
			sys_put(t, AT + size, 0x100, 2);
			assert_int_equal(run(w, rows[n].op, 1, MEM), SYS_FAULT(13, 0x100));
			assert_int_equal(t->s->gpr[X86_RCX], 0);
		}
	}
}

static void test_pop_segment(void **state)
{
	static const struct {
		const char *op;
		unsigned seg;
		bool legacy;
	} rows[] = {{"\x07", X86_ES, true}, {"\x17", X86_SS, true}, {"\x1f", X86_DS, true},
		    {"\x0f\xa1", X86_FS, false}, {"\x0f\xa9", X86_GS, false}};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		FOR_WAYS(w) {
			unsigned size = is_long(w) && w->prefix != OPSZ ? 8 : width(w);

			if (rows[n].legacy && is_long(w))
				continue; /* #UD */
			begin(w, 0);
			t->s->seg[rows[n].seg].sel = 0x99;
			sys_put(t, SP, 0xfffffffffff00000 | TINY_DS, 8);
			assert_int_equal(run(w, rows[n].op, -1, MEM), SYS_DONE);
			assert_int_equal(t->s->seg[rows[n].seg].sel, TINY_DS);
			assert_int_equal(t->s->gpr[X86_RSP], SP + size);
			assert_int_equal(t->s->int_shadow_movss, rows[n].seg == X86_SS);
			begin(w, 0);
			sys_put(t, SP, 0, 8);
			assert_int_equal(run(w, rows[n].op, -1, MEM),
					 rows[n].seg == X86_SS ? SYS_FAULT(13, 0) : SYS_DONE);
		}
	}
}

static void test_bases(void **state)
{
	static const unsigned seg[] = {X86_FS, X86_GS};

	for (unsigned k = 0; k < 4; k++) { /* RDFSBASE RDGSBASE WRFSBASE WRGSBASE */
		FOR_WAYS(w) {
			uint64_t v = 0x00007abcdef12345, *base = &t->s->seg[seg[k & 1]].base;
			bool ud = !is_long(w);

			begin(w, 3);
			t->s->cr4 |= X86_CR4_FSGSBASE;
			if (k < 2)
				*base = v;
			t->s->gpr[X86_RAX] = v;
			if (w->prefix == OPSZ)
				continue; /* 66 is left open */
			assert_int_equal(run(w, "\xf3\x0f\xae", (int)k, 0), ud ? SYS_FAULT(6, 0) : SYS_DONE);
			if (ud)
				continue;
			v = width(w) == 8 ? v : (uint32_t)v;
			assert_int_equal(k < 2 ? t->s->gpr[X86_RAX] : *base, v);
			begin(w, 3);
			assert_int_equal(run(w, "\xf3\x0f\xae", (int)k, 0), SYS_FAULT(6, 0)); /* CR4 */
		}
	}
}

/* ---- protection keys, XCR0, extended state ------------------------------------------------------ */

static void test_pkru(void **state)
{
	FOR_WAYS(w) {
		if (w->prefix == OPSZ)
			continue;
		begin(w, 3);
		t->s->cr4 |= X86_CR4_PKE;
		t->s->gpr[X86_RAX] = 0x55555554;
		assert_int_equal(run(w, "\x0f\x01\xef", -1, MEM), SYS_DONE); /* WRPKRU */
		assert_int_equal(t->s->pkru, 0x55555554);
		begin(w, 3);
		t->s->cr4 |= X86_CR4_PKE;
		t->s->pkru = 0x50;
		t->s->gpr[X86_RDX] = 7;
		assert_int_equal(run(w, "\x0f\x01\xee", -1, MEM), SYS_DONE); /* RDPKRU */
		assert_int_equal(t->s->gpr[X86_RAX], 0x50);
		assert_int_equal(t->s->gpr[X86_RDX], 0);
		for (unsigned k = 0; k < 2; k++) {
			const char *op = k ? "\x0f\x01\xef" : "\x0f\x01\xee";

			begin(w, 3);
			assert_int_equal(run(w, op, -1, MEM), SYS_FAULT(6, 0)); /* no CR4.PKE */
			begin(w, 3);
			t->s->cr4 |= X86_CR4_PKE;
			t->s->gpr[X86_RCX] = 1;
			assert_int_equal(run(w, op, -1, MEM), SYS_FAULT(13, 0));
		}
		t->s->pkru = 0;
	}
}

static void test_xcr0(void **state)
{
	static const struct {
		uint32_t index, value;
		unsigned cpl;
		int result;
	} rows[] = {
		{0, X86_XCR0_X87 | X86_XCR0_SSE, 0, SYS_DONE},
		{0, X86_XCR0_X87, 0, SYS_DONE},
		{0, X86_XCR0_SSE, 0, SYS_FAULT(13, 0)},		     /* without x87 */
		{0, X86_XCR0_X87 | X86_XCR0_AVX, 0, SYS_FAULT(13, 0)}, /* AVX without SSE */
		{0, X86_XCR0_X87 | BIT(8), 0, SYS_FAULT(13, 0)},	     /* not for XCR0 */
		{1, X86_XCR0_X87, 0, SYS_FAULT(13, 0)},
		{0, X86_XCR0_X87, 3, SYS_FAULT(13, 0)},
	};

	FOR_WAYS(w) {
		if (w->prefix == OPSZ)
			continue;
		for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
			begin(w, rows[n].cpl);
			t->s->cr4 |= X86_CR4_OSXSAVE;
			t->s->gpr[X86_RCX] = rows[n].index;
			t->s->gpr[X86_RAX] = rows[n].value;
			assert_int_equal(run(w, "\x0f\x01\xd1", -1, MEM), rows[n].result);
			if (rows[n].result == SYS_DONE)
				assert_int_equal(t->s->xcr0, rows[n].value);
		}
		begin(w, 3);
		t->s->cr4 |= X86_CR4_OSXSAVE;
		t->s->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE;
		t->s->gpr[X86_RDX] = 1;
		assert_int_equal(run(w, "\x0f\x01\xd0", -1, MEM), SYS_DONE); /* XGETBV */
		assert_int_equal(t->s->gpr[X86_RAX], 3);
		assert_int_equal(t->s->gpr[X86_RDX], 0);
		begin(w, 0);
		assert_int_equal(run(w, "\x0f\x01\xd0", -1, MEM), SYS_FAULT(6, 0)); /* no OSXSAVE */
	}
}

/* Save, spoil, restore: what the manual calls the state component is back. */
static void test_xsave(void **state)
{
	static const struct {
		const char *op;
		int save;
		const char *back;
		int restore;
	} rows[] = {{"\x0f\xae", 4, "\x0f\xae", 5},  /* XSAVE, XRSTOR */
		    {"\x0f\xae", 6, "\x0f\xae", 5},  /* XSAVEOPT */
		    {"\x0f\xc7", 4, "\x0f\xae", 5},  /* XSAVEC */
		    {"\x0f\xc7", 5, "\x0f\xc7", 3}}; /* XSAVES, XRSTORS */

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		FOR_WAYS(w) {
			struct cpu_fx was;

			if (w->prefix == OPSZ)
				continue;
			begin(w, 0);
			t->s->cr0 &= ~(X86_CR0_TS | X86_CR0_EM);
			t->s->cr4 |= X86_CR4_OSXSAVE | X86_CR4_OSFXSR;
			t->s->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE;
			t->s->gpr[X86_RAX] = 3;
			t->s->fx.fcw = 0x27f;
			t->s->fx.mxcsr = 0x1fa0;
			for (unsigned k = 0; k < 8; k++)
				t->s->fx.xmm[k].q[0] = k + 1;
			was = t->s->fx;
			assert_int_equal(run(w, rows[n].op, rows[n].save, MEM), SYS_DONE);
			assert_int_equal(sys_get(t, AT + 512, 8), 3);
			assert_int_equal(sys_get(t, AT, 2), 0x27f);
			assert_int_equal(sys_get(t, AT + 160 + 16, 8), 2);
			assert_int_equal(sys_get(t, AT + 520, 8),
					 rows[n].op[1] == '\xc7' ? BIT(63) | 3 : 0); /* XCOMP_BV */
			memset(t->s->fx.xmm, 0xaa, 8 * 16);
			t->s->fx.fcw = 0x37f;
			t->s->fx.mxcsr = 0x1f80;
			t->s->gpr[X86_RAX] = 3;
			t->s->rip = w->mode == TINY_PROT16 ? 0x8000 : TINY_CODE;
			assert_int_equal(run(w, rows[n].back, rows[n].restore, MEM), SYS_DONE);
			assert_memory_equal(t->s->fx.xmm, was.xmm, 8 * 16);
			assert_int_equal(t->s->fx.fcw, was.fcw);
			assert_int_equal(t->s->fx.mxcsr, was.mxcsr);
			/* 64-byte alignment; and what only CPL 0 may do. */
			t->s->gpr[X86_RBX] = AT + 16;
			assert_int_equal(run(w, rows[n].op, rows[n].save, MEM), SYS_FAULT(13, 0));
			begin(w, 3);
			t->s->cr4 |= X86_CR4_OSXSAVE;
			assert_int_equal(run(w, rows[n].op, rows[n].save, MEM),
					 rows[n].restore == 3 ? SYS_FAULT(13, 0) : SYS_DONE);
		}
	}
}

/* ---- INTO, string I/O --------------------------------------------------------------------------- */

static void test_into(void **state)
{
	FOR_WAYS(w) {
		begin(w, 0);
		t->s->rflags |= X86_FLAG_OF;
		assert_int_equal(run(w, "\xce", -1, MEM), is_long(w) ? SYS_FAULT(6, 0) : SYS_FAULT(4, 0));
		if (is_long(w))
			continue;
		begin(w, 0);
		assert_int_equal(run(w, "\xce", -1, MEM), SYS_DONE);
	}
}

static void test_string_ports(void **state)
{
	static const char *const rep[] = {"", "\xf3", "\xf2"};

	for (unsigned k = 0; k < 4 * ARRAY_SIZE(rep); k++) {
		FOR_WAYS(w) {
			const char op[] = {(char)(0x6c + k % 4), 0};
			unsigned size = k & 1 ? MIN(width(w), 4u) : 1;
			bool rep_on = k >= 4;
			char code[4] = "";

			strcpy(code, rep[k / 4]);
			strcat(code, op);
			begin(w, 0);
			t->s->gpr[X86_RDX] = 0x1f0;
			t->s->gpr[X86_RCX] = 3;
			t->s->gpr[X86_RSI] = t->s->gpr[X86_RDI] = AT;
			assert_int_equal(run(w, code, -1, MEM), SYS_EXIT(CPU_EXIT_IO));
			assert_int_equal(cpu_exit(t->cpu)->io.port, 0x1f0);
			assert_int_equal(cpu_exit(t->cpu)->io.size, size);
			assert_int_equal(cpu_exit(t->cpu)->io.in, k % 4 < 2);
			assert_true(cpu_exit(t->cpu)->io.string);
			assert_int_equal(cpu_exit(t->cpu)->io.rep, rep_on);
			/* No bitmap in the TSS: #GP at CPL 3 before memory is looked at, and with a count of 0. */
			for (unsigned count = 0; count < 2; count++) {
				begin(w, 3);
				t->s->gpr[X86_RDX] = 0x1f0;
				t->s->gpr[X86_RCX] = count;
				t->s->gpr[X86_RSI] = t->s->gpr[X86_RDI] = MIB(32);
				sys_put(t, TINY_TSS + 0x66, 0xffff, 2);
				assert_int_equal(run(w, code, -1, MEM), SYS_FAULT(13, 0));
			}
			/* Without privilege to check, a count of 0 does nothing. */
			begin(w, 0);
			if (rep_on)
				assert_int_equal(run(w, code, -1, MEM), SYS_DONE);
		}
	}
}

/* ---- orders of faults that the host's silicon showed ------------------------------------------- */

static void test_orders(void **state)
{
	static const struct way long64 = {TINY_LONG, NONE}, prot = {TINY_PROT32, NONE};

	/* FXSAVE at CPL 3 with SMAP on is an access of the user's. */
	begin(&long64, 3);
	t->s->cr4 |= X86_CR4_SMAP | X86_CR4_OSFXSR;
	assert_int_equal(run(&long64, "\x0f\xae", 0, MEM), SYS_DONE);
	/* With 67 and REX.B, mod 0 and SIB base 5 is no base. */
	begin(&long64, 3);
	t->s->gpr[X86_R13] = 0x100;
	sys_put(t, AT, 0x77, 4);
	assert_int_equal(sys_asm(t, "\x67\x41\x8b\x04\x25\x00\x70\x00\x00"), SYS_DONE);
	assert_int_equal(t->s->gpr[X86_RAX], 0x77);
	/* ARPL that changes nothing does not write. */
	begin(&prot, 3);
	t->s->seg[X86_DS].attr = (t->s->seg[X86_DS].attr & ~0xfu) | 1; /* read-only */
	cpu_state_changed(t->cpu);
	sys_put(t, AT, 0x13, 2);
	t->s->gpr[X86_RAX] = 3;
	assert_int_equal(run(&prot, "\x63", 0, MEM), SYS_DONE);
	assert_int_equal(t->s->rflags & X86_FLAG_ZF, 0);
	/* LLDT's level before its operand's segment. */
	begin(&prot, 3);
	t->s->seg[X86_SS].limit = 0;
	assert_int_equal(sys_asm(t, "\x36\x0f\x00\x13"), SYS_FAULT(13, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_privileged),     cmocka_unit_test(test_stac_clac),
		cmocka_unit_test(test_identity),       cmocka_unit_test(test_random),
		cmocka_unit_test(test_wrmsr),	       cmocka_unit_test(test_store_selector),
		cmocka_unit_test(test_store_table),    cmocka_unit_test(test_far_pointers),
		cmocka_unit_test(test_pop_segment),    cmocka_unit_test(test_bases),
		cmocka_unit_test(test_pkru),	       cmocka_unit_test(test_xcr0),
		cmocka_unit_test(test_xsave),	       cmocka_unit_test(test_into),
		cmocka_unit_test(test_string_ports),   cmocka_unit_test(test_orders),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
