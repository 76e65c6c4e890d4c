/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* L0's breakpoints, watchpoints and steps (cpu_set_host_debug). */
#include <errno.h>

#include "cpu/cpu_internal.h"
#include "tests/unit/cpu/sys/sys.h"

#define FAR_PT	0x40000ull
#define FAR_LIN 0x40000000ull /* 1 GiB: mapped by the test in 4 KiB pages */

static struct tiny *t;
static struct cpu_host_debug dbg;

static int setup(void **state)
{
	t = tiny_create(MIB(16), 12);
	memset(&dbg, 0, sizeof(dbg));
	return 0;
}

static int teardown(void **state)
{
	tiny_destroy(t);
	return 0;
}

static void start(enum tiny_mode mode)
{
	sys_mode(t, mode, 0);
	t->s->gpr[X86_RBX] = TINY_DATA;
	memset(t->mem + TINY_DATA, 0, 2 * PAGE_SIZE);
}

static void set(void)
{
	assert_int_equal(cpu_set_host_debug(t->cpu, &dbg), 0);
}

static void breakpoint(gva_t gva)
{
	dbg.breakpoint[dbg.breakpoints++] = gva;
	set();
}

static void watch(gva_t gva, uint32_t len, uint8_t access)
{
	dbg.watches = 1;
	dbg.watch[0].gva = gva;
	dbg.watch[0].len = len;
	dbg.watch[0].access = access;
	set();
}

static enum cpu_exit_reason run(void)
{
	cpu_state_changed(t->cpu);
	return tiny_run(t, 100000);
}

/* The next stop of the debugger's. */
static void stops(unsigned kind, gva_t gva)
{
	assert_int_equal(run(), CPU_EXIT_DEBUG);
	assert_int_equal(cpu_exit(t->cpu)->debug.kind, kind);
	assert_int_equal(cpu_exit(t->cpu)->debug.gva, gva);
}

/* ---- breakpoints --------------------------------------------------------------------------------
 */

TINY_TEXT(count, 64, "mov $3, %ecx; 1: inc %eax; dec %ecx; jnz 1b; hlt"); /* inc at 5 */

static void test_breakpoint(void **state)
{
	start(TINY_LONG);
	tiny_text(t, count);
	t->s->gpr[X86_RAX] = 0;
	breakpoint(TINY_CODE + 5);
	for (unsigned n = 0; n < 3; n++) {
		stops(CPU_DEBUG_BREAKPOINT, TINY_CODE + 5);
		assert_int_equal(t->s->gpr[X86_RAX], n);
		assert_int_equal(t->s->rip, TINY_CODE + 5);
	}
	assert_int_equal(run(), CPU_EXIT_HLT);
	assert_int_equal(cpu_icount(t->cpu), 1 + 9 + 1);
	/* Taken away: blocks again. */
	assert_int_equal(cpu_set_host_debug(t->cpu, NULL), 0);
	t->s->rip = TINY_CODE;
	assert_int_equal(run(), CPU_EXIT_HLT);
}

/* Set while the block has long been decoded and its jumps are linked. */
static void test_breakpoint_in_hot_code(void **state)
{
	start(TINY_LONG);
	tiny_text(t, count);
	assert_int_equal(run(), CPU_EXIT_HLT);
	t->s->rip = TINY_CODE;
	assert_int_equal(run(), CPU_EXIT_HLT);
	t->s->rip = TINY_CODE;
	breakpoint(TINY_CODE + 7); /* dec */
	stops(CPU_DEBUG_BREAKPOINT, TINY_CODE + 7);
}

TINY_TEXT(far_call, 64, "mov $1000, %ecx; 1: call *%rbx; dec %ecx; jnz 1b; hlt");

/* Only the page with the breakpoint goes one instruction at a time; the other stays in blocks. */
static void test_breakpoint_costs_its_page(void **state)
{
	uint64_t decoded;

	start(TINY_LONG);
	tiny_text(t, far_call);
	t->mem[TINY_DATA] = 0xc3; /* ret */
	assert_int_equal(run(), CPU_EXIT_HLT);
	decoded = cpu_stats(t->cpu)->blocks_decoded;
	t->s->rip = TINY_CODE;
	breakpoint(TINY_DATA + 8); /* never reached */
	assert_int_equal(run(), CPU_EXIT_HLT);
	assert_int_equal(cpu_stats(t->cpu)->blocks_decoded, decoded + 1); /* RET by itself */
	dbg.breakpoint[0] = TINY_DATA;
	set();
	t->s->rip = TINY_CODE;
	stops(CPU_DEBUG_BREAKPOINT, TINY_DATA);
	stops(CPU_DEBUG_BREAKPOINT, TINY_DATA);
}

TINY_TEXT(touch, 64, "mov (%rbx), %eax; hlt");

/* The instruction faults to L0 and comes again: it was reported already. */
static void test_breakpoint_before_exit(void **state)
{
	uint64_t *ept = tiny_ept(t, TINY_DATA), e = *ept;

	start(TINY_LONG);
	tiny_text(t, touch);
	breakpoint(TINY_CODE);
	*ept = 0;
	stops(CPU_DEBUG_BREAKPOINT, TINY_CODE);
	assert_int_equal(run(), CPU_EXIT_TDP_VIOLATION);
	assert_int_equal(run(), CPU_EXIT_TDP_VIOLATION);
	*ept = e;
	assert_int_equal(run(), CPU_EXIT_HLT);
	/* The same place once more is another instruction. */
	t->s->rip = TINY_CODE;
	stops(CPU_DEBUG_BREAKPOINT, TINY_CODE);
}

static void test_too_many(void **state)
{
	dbg.breakpoints = CPU_HOST_BREAKPOINTS + 1;
	assert_int_equal(cpu_set_host_debug(t->cpu, &dbg), -E2BIG);
	dbg.breakpoints = 0;
	dbg.watches = CPU_HOST_WATCHES + 1;
	assert_int_equal(cpu_set_host_debug(t->cpu, &dbg), -E2BIG);
}

/* By linear address: CS has a base in real mode. */
static void test_breakpoint_real(void **state)
{
	start(TINY_REAL);
	t->s->seg[X86_CS].base = 0x1000;
	t->s->seg[X86_CS].sel = 0x100;
	t->s->rip = 0x7000;
	memcpy(t->mem + 0x8000, "\x90\x90\xf4", 3);
	breakpoint(0x8001);
	stops(CPU_DEBUG_BREAKPOINT, 0x8001);
	assert_int_equal(t->s->rip, 0x7001);
	assert_int_equal(run(), CPU_EXIT_HLT);
}

/* ---- watchpoints --------------------------------------------------------------------------------
 */

struct form {
	const char *name;
	const uint8_t *code, *end;
	uint8_t access; /* how it accesses byte 17 after TINY_DATA */
};

TINY_TEXT(w_store, 64, "movl $1, 16(%rbx); hlt");
TINY_TEXT(w_load, 64, "mov 16(%rbx), %eax; hlt");
TINY_TEXT(w_rmw, 64, "addl $1, 16(%rbx); hlt");
TINY_TEXT(w_lock, 64, "lock xaddl %eax, 16(%rbx); hlt");
TINY_TEXT(w_cx, 64, "lock cmpxchg %ecx, 16(%rbx); hlt");
TINY_TEXT(w_cx16, 64, "lock cmpxchg16b 16(%rbx); hlt");
TINY_TEXT(w_push, 64, "lea 24(%rbx), %rsp; push %rax; hlt");
TINY_TEXT(w_pop, 64, "lea 16(%rbx), %rsp; pop %rax; hlt");
TINY_TEXT(w_call, 64, "lea 24(%rbx), %rsp; call 1f; 1: hlt");
TINY_TEXT(w_stos, 64, "mov %rbx, %rdi; mov $100, %ecx; rep stosb; hlt");
TINY_TEXT(w_movs, 64, "mov %rbx, %rdi; lea 2048(%rbx), %rsi; mov $100, %ecx; rep movsb; hlt");
TINY_TEXT(w_scas, 64, "mov %rbx, %rdi; mov $100, %ecx; mov $9, %al; repne scasb; hlt");
TINY_TEXT(w_xmm, 64, "movups %xmm0, 16(%rbx); hlt");
TINY_TEXT(w_ymm, 64, "vmovups %ymm0, (%rbx); hlt");
TINY_TEXT(w_mask, 64, "vmaskmovps %ymm0, %ymm1, (%rbx); hlt");
TINY_TEXT(w_gather, 64, "vpgatherdd %ymm1, (%rbx, %ymm2), %ymm0; hlt");
TINY_TEXT(w_fx, 64, "fxsave (%rbx); hlt");
TINY_TEXT(w_fstp, 64, "fld1; fstpt 16(%rbx); hlt");
TINY_TEXT(w_sgdt, 64, "sgdt 16(%rbx); hlt");
TINY_TEXT(w_bts, 64, "mov $130, %eax; bts %rax, (%rbx); hlt");
TINY_TEXT(w_xlat, 64, "mov $17, %al; xlat; hlt");
TINY_TEXT(w_enter, 64, "lea 24(%rbx), %rsp; enter $0, $0; hlt");

#define FORM(name, access)                                                                         \
	{                                                                                          \
#name, name, name##_end, access                                                    \
	}
static const struct form forms[] = {
	FORM(w_store, CPU_WATCH_WRITE),
	FORM(w_load, CPU_WATCH_READ),
	FORM(w_rmw, CPU_WATCH_READ | CPU_WATCH_WRITE),
	FORM(w_lock, CPU_WATCH_READ | CPU_WATCH_WRITE),
	FORM(w_cx, CPU_WATCH_READ | CPU_WATCH_WRITE),
	FORM(w_cx16, CPU_WATCH_READ | CPU_WATCH_WRITE),
	FORM(w_push, CPU_WATCH_WRITE),
	FORM(w_pop, CPU_WATCH_READ),
	FORM(w_call, CPU_WATCH_WRITE),
	FORM(w_stos, CPU_WATCH_WRITE),
	FORM(w_movs, CPU_WATCH_WRITE),
	FORM(w_scas, CPU_WATCH_READ),
	FORM(w_xmm, CPU_WATCH_WRITE),
	FORM(w_ymm, CPU_WATCH_WRITE),
	FORM(w_mask, CPU_WATCH_WRITE),
	FORM(w_gather, CPU_WATCH_READ),
	FORM(w_fx, CPU_WATCH_WRITE),
	FORM(w_fstp, CPU_WATCH_WRITE),
	FORM(w_sgdt, CPU_WATCH_WRITE),
	FORM(w_bts, CPU_WATCH_READ | CPU_WATCH_WRITE),
	FORM(w_xlat, CPU_WATCH_READ),
	FORM(w_enter, CPU_WATCH_WRITE),
};

static void vectors_on(void)
{
	t->s->cr4 |= X86_CR4_OSXSAVE | X86_CR4_OSFXSR;
	t->s->xcr0 = 7;
	/* All elements of the masks; indices 0, 2, .. of gather reach byte 16. */
	memset(&t->s->fx.xmm[0], 0xff, 16);
	memset(&t->s->fx.xmm[1], 0xff, 16);
	memset(t->s->ymmh[0], 0xff, 16);
	memset(t->s->ymmh[1], 0xff, 16);
	memset(&t->s->fx.xmm[2], 0, 16);
	memset(t->s->ymmh[2], 0, 16);
	((uint8_t *)&t->s->fx.xmm[2])[8] = 16;
}

/* Byte 17 after TINY_DATA is watched; how often it stops, and how at last. */
static unsigned stops_of(const struct form *f, uint8_t access, uint8_t *how)
{
	unsigned n = 0;

	*how = 0;
	start(TINY_LONG);
	vectors_on();
	tiny_code(t, f->code, (unsigned)(f->end - f->code));
	watch(TINY_DATA + 17, 1, access);
	while (run() == CPU_EXIT_DEBUG) {
		assert_int_equal(cpu_exit(t->cpu)->debug.kind, CPU_DEBUG_WATCH);
		assert_int_equal(cpu_exit(t->cpu)->debug.gva, TINY_DATA + 17);
		*how = cpu_exit(t->cpu)->debug.access;
		n++;
	}
	assert_int_equal(cpu_exit(t->cpu)->reason, CPU_EXIT_HLT);
	return n;
}

static void test_watch_forms(void **state)
{
	uint8_t how;

	for (unsigned k = 0; k < ARRAY_SIZE(forms); k++) {
		const struct form *f = &forms[k];

		if (stops_of(f, CPU_WATCH_READ | CPU_WATCH_WRITE, &how) != 1 || how != f->access)
			fail_msg("%s: %u", f->name, how);
		if (stops_of(f, CPU_WATCH_WRITE, &how) != !!(f->access & CPU_WATCH_WRITE))
			fail_msg("%s: writes", f->name);
		if (stops_of(f, CPU_WATCH_READ, &how) != !!(f->access & CPU_WATCH_READ))
			fail_msg("%s: reads", f->name);
	}
}

/* A repeated instruction stops after the element that met it. */
static void test_watch_rep(void **state)
{
	start(TINY_LONG);
	tiny_text(t, w_stos);
	watch(TINY_DATA + 17, 1, CPU_WATCH_WRITE);
	stops(CPU_DEBUG_WATCH, TINY_DATA + 17);
	assert_int_equal(t->s->gpr[X86_RCX], 100 - 18);
	assert_int_equal(run(), CPU_EXIT_HLT);
	assert_int_equal(t->s->gpr[X86_RCX], 0);
}

TINY_TEXT(cross, 64, "mov %rax, -4(%rbx); mov %rax, 100(%rbx); hlt");

/* The half behind a page's border, where the pages are no neighbours in the host. */
static void test_watch_across_pages(void **state)
{
	uint64_t *pt = (uint64_t *)(t->mem + FAR_PT);

	start(TINY_LONG);
	((uint64_t *)(t->mem + TINY_PML4 + 0x2000 + 0x1000))[0] = FAR_PT | 7;
	pt[0] = (TINY_DATA + PAGE_SIZE) | 7;
	pt[1] = TINY_DATA | 7;
	t->s->gpr[X86_RBX] = FAR_LIN + PAGE_SIZE;
	tiny_text(t, cross);
	watch(FAR_LIN + PAGE_SIZE + 3, 1, CPU_WATCH_WRITE);
	stops(CPU_DEBUG_WATCH, FAR_LIN + PAGE_SIZE + 3);
	assert_int_equal(run(), CPU_EXIT_HLT);
	/* And a range that begins before the access, over the border. */
	t->s->rip = TINY_CODE;
	watch(FAR_LIN + PAGE_SIZE - 100, 97, CPU_WATCH_WRITE);
	stops(CPU_DEBUG_WATCH, FAR_LIN + PAGE_SIZE - 100);
	assert_int_equal(run(), CPU_EXIT_HLT);
}

/* The top of the address space: the end of range and access is 0. */
static void test_watch_top(void **state)
{
	start(TINY_LONG);
	((uint64_t *)(t->mem + TINY_PML4))[511] = (TINY_PML4 + 0x1000) | 7;
	((uint64_t *)(t->mem + TINY_PML4 + 0x1000))[511] = (TINY_PML4 + 0x2000) | 7;
	((uint64_t *)(t->mem + TINY_PML4 + 0x2000))[511] = FAR_PT | 7;
	((uint64_t *)(t->mem + FAR_PT))[511] = TINY_DATA | 7;
	tiny_text(t, w_xmm);
	t->s->gpr[X86_RBX] = -32ull;
	watch(-8ull, 8, CPU_WATCH_WRITE);
	stops(CPU_DEBUG_WATCH, -8ull);
	assert_int_equal(run(), CPU_EXIT_HLT);
}

TINY_TEXT(int3, 64, "int3");

/* What the delivery of an event pushes. */
static void test_watch_delivery(void **state)
{
	start(TINY_LONG);
	tiny_text(t, int3);
	watch(TINY_STACK - 8, 8, CPU_WATCH_WRITE); /* SS */
	stops(CPU_DEBUG_WATCH, TINY_STACK - 8);
	assert_int_equal(t->s->rip, SYS_HANDLERS + 16 * 3);
	assert_int_equal(run(), CPU_EXIT_HLT);
	/* Its gate, which is read. */
	t->s->rip = TINY_CODE;
	t->s->gpr[X86_RSP] = TINY_STACK;
	watch(TINY_IDT + 16 * 3, 16, CPU_WATCH_READ);
	stops(CPU_DEBUG_WATCH, TINY_IDT + 16 * 3);
	assert_int_equal(run(), CPU_EXIT_HLT);
}

/* A descriptor that is loaded. */
TINY_TEXT(load_ds, 64, "mov %ax, %ds; hlt");

static void test_watch_descriptor(void **state)
{
	start(TINY_LONG);
	tiny_text(t, load_ds);
	t->s->gpr[X86_RAX] = TINY_DS;
	watch(TINY_GDT + TINY_DS, 8, CPU_WATCH_READ);
	stops(CPU_DEBUG_WATCH, TINY_GDT + TINY_DS);
	assert_int_equal(run(), CPU_EXIT_HLT);
}

/* An instruction that faults has not accessed anything. */
TINY_TEXT(push_mem, 64, "push (%rax)");

static void test_watch_fault(void **state)
{
	start(TINY_LONG);
	tiny_text(t, push_mem);
	t->s->gpr[X86_RAX] = TINY_DATA;
	t->s->gpr[X86_RSP] = 0x200000000ull; /* above all tables: #PF, then on the same: #DF, .. */
	t->c->exception_bitmap = BIT(X86_VEC_PF);
	t->c->pf_error_mask = t->c->pf_error_match = 0;
	watch(TINY_DATA, 8, CPU_WATCH_READ);
	assert_int_equal(run(), CPU_EXIT_EXCEPTION);
	t->s->gpr[X86_RSP] = TINY_STACK;
	stops(CPU_DEBUG_WATCH, TINY_DATA);
}

/* ---- steps --------------------------------------------------------------------------------------
 */

static void steps_to(uint64_t rip)
{
	stops(CPU_DEBUG_STEP, rip);
	assert_int_equal(t->s->rip, rip);
}

static void test_step(void **state)
{
	start(TINY_LONG);
	tiny_text(t, count);
	dbg.single_step = true;
	set();
	steps_to(TINY_CODE + 5);
	for (unsigned n = 0; n < 3; n++) {
		steps_to(TINY_CODE + 7);
		steps_to(TINY_CODE + 9);
		steps_to(TINY_CODE + (n < 2 ? 5 : 11));
	}
	/* HLT is one; the processor sleeps after it. */
	steps_to(TINY_CODE + 12);
	assert_int_equal(t->s->activity, CPU_HALTED);
	assert_int_equal(cpu_icount(t->cpu), 11);
}

/* One iteration of REP; then the instruction that follows. */
TINY_TEXT(rep3, 64, "rep stosb; nop; hlt");

static void test_step_rep(void **state)
{
	start(TINY_LONG);
	tiny_text(t, rep3);
	t->s->gpr[X86_RDI] = TINY_DATA;
	t->s->gpr[X86_RCX] = 3;
	dbg.single_step = true;
	set();
	steps_to(TINY_CODE);
	assert_int_equal(t->s->gpr[X86_RCX], 2);
	steps_to(TINY_CODE);
	steps_to(TINY_CODE + 2);
	assert_int_equal(t->s->gpr[X86_RCX], 0);
	steps_to(TINY_CODE + 3);
	assert_int_equal(cpu_icount(t->cpu), 2);
}

/* INT n and faults step into the handler; so does an interrupt that waits, before the instruction.
 */
static void test_step_events(void **state)
{
	start(TINY_LONG);
	tiny_asm(t, "\xcc\x0f\x0b"); /* int3; ud2 */
	dbg.single_step = true;
	set();
	steps_to(SYS_HANDLERS + 16 * 3);
	t->s->rip = TINY_CODE + 1;
	steps_to(SYS_HANDLERS + 16 * X86_VEC_UD);
	t->s->rip = TINY_CODE;
	t->s->event = (struct cpu_event){.valid = true, .type = CPU_EVENT_EXT_INTR, .vector = 0x40};
	steps_to(SYS_HANDLERS + 16 * 0x40);
	assert_int_equal(sys_word(t, 0, 8), TINY_CODE);
}

/* An instruction that L0 carries out is one step as well. */
static void test_step_over_exit(void **state)
{
	start(TINY_LONG);
	tiny_asm(t, "\xe4\x80\x90\xf4"); /* in al, 0x80; nop; hlt */
	dbg.single_step = true;
	set();
	assert_int_equal(run(), CPU_EXIT_IO);
	cpu_complete_in(t->cpu, 5);
	cpu_skip(t->cpu);
	steps_to(TINY_CODE + 2);
	steps_to(TINY_CODE + 3);
}

static enum cpu_mem_result em_read(void *ctx, gva_t gva, void *data, unsigned len, unsigned access,
				   struct cpu_fault *fault)
{
	memcpy(data, t->mem + gva, len);
	return CPU_MEM_OK;
}

static enum cpu_mem_result em_write(void *ctx, gva_t gva, const void *data, unsigned len,
				    unsigned access, struct cpu_fault *fault)
{
	memcpy(t->mem + gva, data, len);
	return CPU_MEM_OK;
}

static enum cpu_mem_result em_probe(void *ctx, gva_t gva, unsigned len, unsigned access,
				    struct cpu_fault *fault)
{
	return CPU_MEM_OK;
}

static const struct cpu_mem_ops em_ops = {.read = em_read, .write = em_write, .probe = em_probe};

/* cpu_emulate(): told at the next run; the guest's own data breakpoints meet it too. */
static void test_emulated(void **state)
{
	start(TINY_LONG);
	tiny_text(t, w_store);
	watch(TINY_DATA + 16, 1, CPU_WATCH_WRITE);
	cpu_state_changed(t->cpu);
	assert_int_equal(cpu_emulate(t->cpu, &em_ops, NULL), CPU_EMULATE_DONE);
	stops(CPU_DEBUG_WATCH, TINY_DATA + 16);
	assert_int_equal(run(), CPU_EXIT_HLT);
	memset(&dbg, 0, sizeof(dbg));
	dbg.single_step = true;
	set();
	t->s->rip = TINY_CODE;
	cpu_state_changed(t->cpu);
	assert_int_equal(cpu_emulate(t->cpu, &em_ops, NULL), CPU_EMULATE_DONE);
	steps_to(t->s->rip);
	cpu_set_host_debug(t->cpu, NULL);
	t->s->rip = TINY_CODE;
	t->s->dr[0] = TINY_DATA + 16;
	t->s->dr7 |= 1 | 1 << 16; /* enabled, writes */
	cpu_state_changed(t->cpu);
	assert_int_equal(cpu_emulate(t->cpu, &em_ops, NULL), CPU_EMULATE_DONE);
	assert_int_equal(t->s->pending_dbg, 1);
}

/* A REP that is emulated goes by one element while it is stepped. */
static void test_emulated_rep(void **state)
{
	start(TINY_LONG);
	tiny_text(t, rep3);
	t->s->gpr[X86_RDI] = TINY_DATA;
	t->s->gpr[X86_RCX] = 3;
	dbg.single_step = true;
	set();
	cpu_state_changed(t->cpu);
	assert_int_equal(cpu_emulate(t->cpu, &em_ops, NULL), CPU_EMULATE_DONE);
	assert_int_equal(t->s->gpr[X86_RCX], 2);
	steps_to(TINY_CODE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_breakpoint),
		TEST(test_breakpoint_in_hot_code),
		TEST(test_breakpoint_costs_its_page),
		TEST(test_breakpoint_before_exit),
		TEST(test_too_many),
		TEST(test_breakpoint_real),
		TEST(test_watch_forms),
		TEST(test_watch_rep),
		TEST(test_watch_across_pages),
		TEST(test_watch_top),
		TEST(test_watch_delivery),
		TEST(test_watch_descriptor),
		TEST(test_watch_fault),
		TEST(test_step),
		TEST(test_step_rep),
		TEST(test_step_events),
		TEST(test_step_over_exit),
		TEST(test_emulated),
		TEST(test_emulated_rep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
