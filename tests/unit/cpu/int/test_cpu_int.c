/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Integer instructions against the host: the same instruction, registers and memory on both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "cpu/cpu.h"
#include "tests/unit/cpu/int/forms.h"

#define CASES 300u

/*
 * A sanitizer keeps its own tables where wild addresses may lead, so under one only ours runs, to
 * be watched by it.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COMPARE false
#else
#define COMPARE true
#endif

/* Linear addresses are the host's own: a shadow table maps each page to itself. */
struct fixture {
	struct cpu_domain *domain;
	struct cpu *cpu;
	unsigned bits; /* 64, 32 */
	uint8_t *data; /* FORMS_DATA_PAGES, with unmapped pages around */
	uint64_t *root;
};

static uint64_t *new_table(void)
{
	uint64_t *t = aligned_alloc(PAGE_SIZE, PAGE_SIZE);

	assert_non_null(t);
	return memset(t, 0, PAGE_SIZE);
}

static void map_page(uint64_t *root, uint64_t lin, uint64_t bits)
{
	uint64_t *t = root;

	for (unsigned level = 3; level; level--) {
		uint64_t *e = &t[lin >> (12 + 9 * level) & 511];

		if (!*e)
			*e = (uint64_t)new_table() | 7;
		t = (uint64_t *)(*e & PAGE_MASK);
	}
	t[lin >> 12 & 511] = (lin & PAGE_MASK) | bits;
}

static void set_segments(struct cpu_state *s, unsigned bits)
{
	for (unsigned k = 0; k < 6; k++)
		s->seg[k] = (struct cpu_seg){.sel = 0x2b, .limit = ~0u, .attr = 0xc0f3};
	s->seg[X86_CS] = bits == 64 ? (struct cpu_seg){.sel = 0x33, .limit = ~0u, .attr = 0xa0fb}
				    : (struct cpu_seg){.sel = 0x23, .limit = ~0u, .attr = 0xc0fb};
}

/* 64-bit or compatibility mode, CPL 3. Every exception leaves. */
static void set_up_cpu(struct fixture *f)
{
	static const struct cpu_cpuid cpuid[] = {
		{0, CPU_CPUID_ANY, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69},
		{1, CPU_CPUID_ANY, 0x50654, 0, ~0u & ~BIT(27), ~0u},
		{7, 0, 0, ~0u, 0, 0x4000},
		{0x80000000u, CPU_CPUID_ANY, 0x80000008u, 0, 0, 0},
		{0x80000001u, CPU_CPUID_ANY, 0, 0, 0x121, 0x2c100800},
		{0x80000008u, CPU_CPUID_ANY, 0x302e, 0, 0, 0},
	};
	struct cpu_controls *ctl;
	struct cpu_state *s;

	f->domain = cpu_domain_create();
	f->cpu = cpu_create(f->domain, cpuid, ARRAY_SIZE(cpuid));
	assert_non_null(f->cpu);
	cpu_reset(f->cpu, false);
	s = cpu_state(f->cpu);
	ctl = cpu_controls(f->cpu);
	set_segments(s, f->bits);
	s->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG;
	s->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
	s->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_SCE;
	s->activity = CPU_ACTIVE;
	ctl->paging = CPU_PAGING_SHADOW;
	ctl->root = (uint64_t)f->root;
	ctl->exception_bitmap = ~0u;
}

static int set_up(void **state, unsigned bits)
{
	struct fixture *f = calloc(1, sizeof(*f));
	/* Far from all that the process has, so that wild addresses meet nothing. */
	uint8_t *p = mmap((void *)(bits == 64 ? 0x200000000000 : 0x40000000),
			  (FORMS_DATA_PAGES + 2) * PAGE_SIZE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	f->bits = bits;
	f->data = p + PAGE_SIZE;
	mprotect(f->data, FORMS_DATA_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE);
	f->root = new_table();
	for (unsigned k = 0; k < FORMS_DATA_PAGES; k++)
		map_page(f->root, (uint64_t)f->data + k * PAGE_SIZE, 7 | BIT(63));
	set_up_cpu(f);
	*state = f;
	return 0;
}

static int set_up_64(void **state)
{
	return set_up(state, 64);
}

static int set_up_32(void **state)
{
	return set_up(state, 32);
}

static void free_table(uint64_t *t, unsigned level)
{
	for (unsigned k = 0; level && k < 512; k++)
		if (t[k])
			free_table((uint64_t *)(t[k] & PAGE_MASK), level - 1);
	free(t);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	cpu_destroy(f->cpu);
	cpu_domain_destroy(f->domain);
	free_table(f->root, 3);
	munmap(f->data - PAGE_SIZE, (FORMS_DATA_PAGES + 2) * PAGE_SIZE);
	free(f);
	return 0;
}

static void ours_start(struct fixture *f, uint64_t rip, struct native_regs *r)
{
	struct cpu_state *s = cpu_state(f->cpu);

	memcpy(s->gpr, r->gpr, sizeof(r->gpr));
	s->rip = rip;
	s->rflags = r->rflags;
	s->event.valid = false;
	s->pending_dbg = 0;
	set_segments(s, f->bits);
	r->fault = r->error = r->cr2 = 0;
	cpu_state_changed(f->cpu);
}

/*
 * The same on ours, by steps or as a block that ends where the host's code goes, which is not
 * mapped. A REP that was cut short goes on.
 */
static void ours_run(struct fixture *f, uint64_t rip, bool step, struct native_regs *r)
{
	struct cpu_state *s = cpu_state(f->cpu);
	const struct cpu_exit *e = cpu_exit(f->cpu);
	enum cpu_exit_reason reason;

	ours_start(f, rip, r);
	do
		reason = step ? cpu_step(f->cpu) : cpu_run(f->cpu);
	while (reason == CPU_EXIT_ICOUNT && s->rip != native_end());
	if (reason != CPU_EXIT_EXCEPTION && reason != CPU_EXIT_ICOUNT) {
		r->fault = 1000 + reason;
		r->error = s->rip - rip;
	} else if (s->rip != native_end()) {
		r->fault = 1 + e->exception.vector;
		r->error = e->exception.has_error ? e->exception.error : 0;
		r->cr2 = e->exception.vector == X86_VEC_PF ? e->exception.payload : 0;
	}
	memcpy(r->gpr, s->gpr, sizeof(r->gpr));
	r->rflags = s->rflags;
}

static void print_case(const struct form_case *c, const struct native_regs *native,
		       const struct native_regs *ours)
{
	print_message("%s:", c->name);
	for (unsigned k = 0; k < c->len; k++)
		print_message(" %02x", c->code[k]);
	print_message("\n");
	for (unsigned k = 0; k < 16; k++)
		print_message("  r%-2u %016lx  host %016lx  ours %016lx%s\n", k, c->regs.gpr[k],
			      native->gpr[k], ours->gpr[k],
			      native->gpr[k] != ours->gpr[k] ? " <" : "");
	print_message("  flags %lx  host %lx  ours %lx\n", c->regs.rflags, native->rflags,
		      ours->rflags);
	print_message("  fault host %lu %lx %lx  ours %lu %lx %lx\n", native->fault, native->error,
		      native->cr2, ours->fault, ours->error, ours->cr2);
}

static bool same(const struct form_case *c, const struct native_regs *a,
		 const struct native_regs *b)
{
	uint64_t flags =
		(X86_FLAGS_ARITH | X86_FLAG_DF | X86_FLAG_NT | X86_FLAG_AC) & ~c->undefined;

	return !memcmp(a->gpr, b->gpr, sizeof(a->gpr)) && !((a->rflags ^ b->rflags) & flags) &&
	       a->fault == b->fault && a->error == b->error && a->cr2 == b->cr2;
}

static bool one_case(struct fixture *f, struct form_case *c, uint64_t *seed)
{
	static uint8_t before[FORMS_DATA_PAGES * PAGE_SIZE], after[sizeof(before)];
	struct native_regs native = c->regs, ours = c->regs;
	uint64_t rip = native_place(c->code, c->len);
	bool ret_same, memory;

	cpu_domain_notify_write(f->domain, rip, 32);
	for (unsigned k = 0; k < sizeof(before) / 8; k++)
		((uint64_t *)before)[k] =
			forms_random(seed) & (k & 1 ? ~0ull : 0x0101010101010101ull);
	memcpy(f->data, before, sizeof(before));
	if (COMPARE)
		native_run(&native);
	/* POPF set TF or AC: what follows it is caught. */
	if ((native.fault == 1 + X86_VEC_DB && native.rflags & X86_FLAG_TF) ||
	    (native.fault == 1 + X86_VEC_AC && !(c->regs.rflags & X86_FLAG_AC)))
		return true;
	if (native.fault != 1 + X86_VEC_PF)
		native.cr2 = 0;
	if (native.cr2 >= 0x7ffffffff000)
		native.error &= ~X86_PF_P; /* Linux says so of every kernel address */
	memcpy(after, f->data, sizeof(after));
	memcpy(f->data, before, sizeof(before));
	ours_run(f, rip, forms_random(seed) & 1, &ours);
	memory = !memcmp(after, f->data, sizeof(after));
	ret_same = !COMPARE || (memory && same(c, &native, &ours));
	if (!ret_same) {
		print_case(c, &native, &ours);
		for (unsigned k = 0; k < sizeof(after); k++)
			if (after[k] != f->data[k]) {
				print_message("  memory +%x host %02x ours %02x\n", k, after[k],
					      f->data[k]);
				break;
			}
	}
	return ret_same;
}

static void every_form_agrees_with_the_host(void **state)
{
	struct fixture *f = *state;
	unsigned bad_forms = 0, cases = 0, count = 0;
	const struct form_place place = {.bits = f->bits, .data = (uint64_t)f->data};
	const char *only = getenv("FORM");

	native_init(f->bits); /* here: cmocka sets its own signal handlers before a test */
	map_page(f->root, native_place((const uint8_t *)"\x90", 1), 7);
	for (unsigned n = 0; n < forms_count(); n++) {
		uint64_t seed = n * 1000003ull + 7;
		unsigned bad = 0;

		for (unsigned k = 0; k < CASES && bad < 2; k++) {
			struct form_case c;

			if (!forms_has(n, f->bits))
				break;
			forms_make(n, &place, &seed, &c);
			if (only && strcmp(only, c.name))
				break;
			bad += !one_case(f, &c, &seed);
			cases++;
		}
		bad_forms += bad > 0;
		count += forms_has(n, f->bits);
	}
	print_message("%u-bit code: %u forms, %u cases, %u forms differ\n", f->bits, count, cases,
		      bad_forms);
	assert_int_equal(bad_forms, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_form_agrees_with_the_host, set_up_64,
						tear_down),
		cmocka_unit_test_setup_teardown(every_form_agrees_with_the_host, set_up_32,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
