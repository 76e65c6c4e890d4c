/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A vCPU's registers in groups, decoded, as JSON. */
#include "vm/peek.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "api/schema.h"
#include "vm/reg_names.h"
#include "vm/vm_internal.h"

static void add_text(struct json_object *o, const char *name, const char *text)
{
	json_object_object_add(o, name, json_object_new_string(text));
}

static void add_value(struct json_object *o, const char *name, uint64_t value)
{
	json_object_object_add(o, name, api_addr_new(value));
}

/* "cr0", and "cr0_bits" with the names of those set. */
static void add_bits(struct json_object *o, const char *name, uint64_t value,
		     const struct reg_bit *bits)
{
	char text[256] = "", key[32];
	size_t at = 0;

	add_value(o, name, value);
	for (; bits->name; bits++)
		if (value & BIT(bits->bit))
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", at ? " " : "",
					       bits->name);
	snprintf(key, sizeof(key), "%s_bits", name);
	add_text(o, key, text);
}

static struct json_object *group(struct json_object *o, const char *name)
{
	struct json_object *g = json_object_new_object();

	json_object_object_add(o, name, g);
	return g;
}

/* ---- groups ------------------------------------------------------------------------------------
 */

static const char *mode_of(const struct cpu_state *s)
{
	const struct cpu_seg *cs = &s->seg[X86_CS];

	if (!(s->cr0 & X86_CR0_PE))
		return "real mode";
	if (s->rflags & X86_FLAG_VM)
		return "virtual-8086 mode";
	if (s->efer & X86_EFER_LMA)
		return cs->attr & X86_ATTR_L ? "64-bit mode" : "compatibility mode";
	return cs->attr & X86_ATTR_DB ? "32-bit protected mode" : "16-bit protected mode";
}

static const char *paging_of(const struct cpu_state *s)
{
	if (!(s->cr0 & X86_CR0_PG))
		return "none";
	if (s->efer & X86_EFER_LMA)
		return s->cr4 & X86_CR4_LA57 ? "5-level" : "4-level";
	return s->cr4 & X86_CR4_PAE ? "pae" : "32-bit";
}

static const char *activity_of(const struct cpu_state *s)
{
	static const char *const names[] = {
		[CPU_ACTIVE] = "running",
		[CPU_HALTED] = "halted",
		[CPU_SHUTDOWN] = "shut down",
		[CPU_WAIT_FOR_SIPI] = "waits for SIPI",
	};

	return names[s->activity];
}

static void add_general(struct json_object *o, const struct cpu_state *s)
{
	struct json_object *g = group(o, "general");

	for (unsigned k = 0; k < 16; k++)
		add_value(g, reg_gpr_names[k], s->gpr[k]);
	add_value(g, "rip", s->rip);
	add_bits(g, "rflags", s->rflags, reg_rflags_bits);
	json_object_object_add(g, "iopl", json_object_new_int((int)(s->rflags >> 12 & 3)));
}

/* Attributes as words (SDM 3A 3.4.5.1). */
static void say_segment(const struct cpu_seg *seg, char *text, size_t size)
{
	bool code = seg->attr & 8;
	const char *width = !code		     ? seg->attr & X86_ATTR_DB ? "32-bit" : "16-bit"
			    : seg->attr & X86_ATTR_L ? "64-bit"
			    : seg->attr & X86_ATTR_DB ? "32-bit"
						      : "16-bit";
	const char *rights = code ? (seg->attr & 2 ? "read" : "execute only")
				  : (seg->attr & 2 ? "write" : "read only");

	if (seg->attr & X86_ATTR_UNUSABLE)
		snprintf(text, size, "unusable");
	else if (!(seg->attr & X86_ATTR_S))
		snprintf(text, size, "system, type %u%s", (unsigned)seg->attr & 15,
			 seg->attr & X86_ATTR_P ? "" : ", not present");
	else
		snprintf(text, size, "%s, %s, %s%s, DPL %u%s", code ? "code" : "data", width,
			 rights, seg->attr & 4 ? (code ? ", conforming" : ", expand down") : "",
			 (unsigned)(seg->attr >> 5 & 3),
			 seg->attr & X86_ATTR_P ? "" : ", not present");
}

static void add_segment(struct json_object *o, const char *name, const struct cpu_seg *seg)
{
	struct json_object *g = group(o, name);
	char text[96];

	add_value(g, "selector", seg->sel);
	add_value(g, "base", seg->base);
	add_value(g, "limit", seg->limit);
	add_value(g, "attr", seg->attr);
	say_segment(seg, text, sizeof(text));
	add_text(g, "type", text);
}

static void add_segments(struct json_object *o, const struct cpu_state *s)
{
	struct json_object *g = group(o, "segments"), *t;

	for (unsigned k = 0; k < 6; k++)
		add_segment(g, reg_seg_names[k], &s->seg[k]);
	add_segment(g, "ldtr", &s->ldtr);
	add_segment(g, "tr", &s->tr);
	t = group(o, "tables");
	add_value(t, "gdt_base", s->gdtr.base);
	add_value(t, "gdt_limit", s->gdtr.limit);
	add_value(t, "idt_base", s->idtr.base);
	add_value(t, "idt_limit", s->idtr.limit);
}

static void add_control(struct json_object *o, const struct cpu_state *s)
{
	struct json_object *g = group(o, "control");
	char name[8];

	add_bits(g, "cr0", s->cr0, reg_cr0_bits);
	add_value(g, "cr2", s->cr2);
	add_value(g, "cr3", s->cr3);
	add_bits(g, "cr4", s->cr4, reg_cr4_bits);
	add_value(g, "cr8", s->cr8);
	add_bits(g, "efer", s->efer, reg_efer_bits);
	add_bits(g, "xcr0", s->xcr0, reg_xcr0_bits);
	if (s->cr4 & X86_CR4_PKE)
		add_value(g, "pkru", s->pkru);
	for (unsigned k = 0; !strcmp(paging_of(s), "pae") && k < 4; k++) {
		snprintf(name, sizeof(name), "pdpte%u", k);
		add_value(g, name, s->pdptr[k]);
	}
}

static void add_debug(struct json_object *o, const struct cpu_state *s)
{
	struct json_object *g = group(o, "debug");
	char name[8];

	for (unsigned k = 0; k < 4; k++) {
		snprintf(name, sizeof(name), "dr%u", k);
		add_value(g, name, s->dr[k]);
	}
	add_bits(g, "dr6", s->dr6, reg_dr6_bits);
	add_bits(g, "dr7", s->dr7, reg_dr7_bits);
}

static void add_msrs(struct json_object *o, const struct cpu_state *s)
{
	const struct {
		const char *name;
		uint64_t value;
	} msrs[] = {
		{"star", s->star},
		{"lstar", s->lstar},
		{"cstar", s->cstar},
		{"fmask", s->fmask},
		{"kernel_gs_base", s->kernel_gs_base},
		{"sysenter_cs", s->sysenter_cs},
		{"sysenter_esp", s->sysenter_esp},
		{"sysenter_eip", s->sysenter_eip},
		{"pat", s->pat},
		{"tsc_aux", s->tsc_aux},
		{"tsc_adjust", s->tsc_adjust},
		{"misc_enable", s->misc_enable},
		{"spec_ctrl", s->spec_ctrl},
		{"xss", s->xss},
		{"debugctl", s->debugctl},
		{"mtrr_def_type", s->mtrr_def_type},
	};
	struct json_object *g = group(o, "msrs");

	for (size_t k = 0; k < ARRAY_SIZE(msrs); k++)
		add_value(g, msrs[k].name, msrs[k].value);
}

/* The most significant digit first, as one number. */
static void add_wide(struct json_object *o, const char *name, unsigned k, const uint64_t *words,
		     unsigned n)
{
	char key[8], text[2 + 16 * 4 + 1] = "0x";
	size_t at = 2;

	while (n--)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%016" PRIx64, words[n]);
	snprintf(key, sizeof(key), "%s%u", name, k);
	add_text(o, key, text);
}

static void add_fpu(struct json_object *o, const struct cpu_state *s)
{
	struct json_object *g = group(o, "fpu");
	bool avx = s->xcr0 & X86_XCR0_AVX;
	char key[8], text[32];

	add_value(g, "fcw", s->fx.fcw);
	add_value(g, "fsw", s->fx.fsw);
	add_value(g, "ftw", s->fx.ftw);
	add_value(g, "fop", s->fx.fop);
	add_value(g, "fip", s->fx.fip);
	add_value(g, "fdp", s->fx.fdp);
	for (unsigned k = 0; k < 8; k++) {
		snprintf(key, sizeof(key), "st%u", k);
		snprintf(text, sizeof(text), "0x%04x%016" PRIx64, (unsigned)s->fx.st[k].hi & 0xffff,
			 s->fx.st[k].lo);
		add_text(g, key, text);
	}
	add_bits(g, "mxcsr", s->fx.mxcsr, reg_mxcsr_bits);
	for (unsigned k = 0; k < 16; k++) {
		const uint64_t ymm[4] = {s->fx.xmm[k].q[0], s->fx.xmm[k].q[1], s->ymmh[k][0],
					 s->ymmh[k][1]};

		add_wide(g, avx ? "ymm" : "xmm", k, ymm, avx ? 4 : 2);
	}
}

struct json_object *vm_registers(struct vcpu *v, bool fpu)
{
	struct json_object *o = json_object_new_object();
	struct cpu_state s;

	if (!o)
		return NULL;
	if (v->vm->engine->vcpu_get_state(v->engine, &s)) {
		json_object_put(o);
		return NULL;
	}
	json_object_object_add(o, "vcpu", json_object_new_int((int)v->index));
	add_text(o, "mode", mode_of(&s));
	json_object_object_add(o, "cpl", json_object_new_int((int)(s.seg[X86_SS].attr >> 5 & 3)));
	add_text(o, "paging", paging_of(&s));
	add_text(o, "activity", activity_of(&s));
	add_general(o, &s);
	add_segments(o, &s);
	add_control(o, &s);
	add_debug(o, &s);
	add_msrs(o, &s);
	if (fpu)
		add_fpu(o, &s);
	return o;
}
