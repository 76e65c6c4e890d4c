/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which engine runs a machine, and why. */
#include "vm/choose_engine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vm/vm_internal.h"

/* ---- what a definition says of an engine
 * ------------------------------------------------------------------------------------------ */

static int refuse(struct api_error *err, enum api_kind kind, const char *field, const char *fmt,
		  ...) __attribute__((format(printf, 4, 5)));

/* engine "kvm" cannot be had: the kind, and the field that asks for what it cannot. */
static int refuse(struct api_error *err, enum api_kind kind, const char *field, const char *fmt,
		  ...)
{
	char text[sizeof(err->text)];
	va_list ap;
	int ret;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ret = api_error_set(err, kind, "%s", text);
	snprintf(err->field, sizeof(err->field), "%s", field);
	return ret;
}

/* Fields that speak of our own MMU and clock. The kernel's has no such switches. */
static int check_own(const struct machine_def *def, struct api_error *err)
{
	const struct {
		const char *field;
		bool given;
	} own[] = {
		{"mmu_disable", def->mmu_disable && *def->mmu_disable},
		{"mmu_max_page", def->mmu_max_page != MACHINE_MMU_PAGE_1G},
		{"mmu_tables", def->mmu_tables != 0},
		{"tdp_format", def->tdp_format != MACHINE_TDP_EPT},
	};

	if (def->clock == MACHINE_CLOCK_INSTRUCTIONS)
		return refuse(err, API_KIND_NOT_SUPPORTED, "clock",
			      "engine \"kvm\" cannot count instructions: clock \"instructions\" "
			      "needs engine \"soft\"");
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (own[i].given)
			return refuse(err, API_KIND_NOT_SUPPORTED, own[i].field,
				      "engine \"kvm\" cannot honour \"%s\": the tables are the "
				      "kernel's; it needs engine \"soft\"",
				      own[i].field);
	if (def->dirty_ring & (def->dirty_ring - 1))
		return api_error_field(err, "dirty_ring",
				       "a dirty ring of %lld entries: it must be a power of two",
				       (long long)def->dirty_ring);
	return 0;
}

static int kvm_options(const struct machine_def *def, const struct machine_files *files,
		       struct engine_config *config, struct api_error *err)
{
	int ret = check_own(def, err);

	if (ret)
		return ret;
	config->policy = def->mmu == MACHINE_MMU_SHADOW ? MMU_POLICY_SHADOW
			 : def->mmu == MACHINE_MMU_TDP	? MMU_POLICY_TDP
							: MMU_POLICY_KERNEL;
	config->kvm_fd = files->kvm;
	config->irqchip = def->irqchip == MACHINE_IRQCHIP_SPLIT ? ENGINE_IRQCHIP_SPLIT
								: ENGINE_IRQCHIP_KERNEL;
	config->dirty_ring = (uint32_t)def->dirty_ring;
	config->help = def->kvm_help;
	return 0;
}

int vm_engine_options(const struct engine_ops *ops, const struct machine_def *def,
		      const struct machine_files *files, struct engine_config *config,
		      struct api_error *err)
{
	return ops == &engine_kvm ? kvm_options(def, files, config, err)
				  : vm_mmu_options(def, config, err);
}

/* ---- is kvm to be had
 * ------------------------------------------------------------------------------------------ */

/* There is no descriptor: why. */
static int no_device(const struct machine_def *def, const struct machine_files *files,
		     struct api_error *err)
{
	int e = files->kvm_error;

	if (files->kvm_use == MACHINE_KVM_NEVER)
		return refuse(err, API_KIND_DENIED, "engine",
			      "no machine may use kvm on this host: umbrad.conf says "
			      "kvm = never");
	if (def->engine == MACHINE_ENGINE_SOFT)
		return refuse(err, API_KIND_DENIED, "engine",
			      "the definition's engine is \"soft\": with \"auto\" or \"kvm\" the "
			      "machine could use /dev/kvm");
	if (!e)
		return refuse(err, API_KIND_NOT_SUPPORTED, "engine",
			      "the machine was started without /dev/kvm, which could not run it "
			      "then");
	return refuse(err, e == EACCES || e == EPERM ? API_KIND_DENIED : API_KIND_NOT_SUPPORTED,
		      "engine", "/dev/kvm: %s", strerror(e));
}

/* A host's kernel may answer anything: what is no refusal of the machine is the host's lack. */
static enum api_kind kind_of(int ret)
{
	switch (-ret) {
	case ENODEV:
	case ENOTTY:
	case ENOENT:
	case ENXIO:
	case EINVAL: return API_KIND_NOT_SUPPORTED;
	case ENOMEM:
	case EBUSY: return API_KIND_LIMIT; /* somebody else has it: later it may be free */
	default: return api_kind_from_errno(ret);
	}
}

int vm_engine_error(struct api_error *err, const struct engine_ops *ops, int ret,
		    const struct engine_error *why)
{
	if (ops != &engine_kvm)
		return api_error_set(err, API_KIND_INTERNAL, "engine \"%s\": %s", ops->name,
				     why->text[0] ? why->text : strerror(-ret));
	return refuse(err, kind_of(ret), "engine", "engine \"%s\": %s", ops->name,
		      why->text[0] ? why->text : strerror(-ret));
}

/* What the definition asks of the processor by name, and this KVM cannot show. */
static int check_cpu(const char *words, const struct engine_config *config, struct api_error *err)
{
	char missing[512];
	int n = config->model ? engine_kvm_cpu_check(config->kvm_fd, config->model, missing,
						     sizeof(missing))
			      : 0;

	for (; n > 0 && words && *words; words += strspn(words, ",")) {
		size_t len = strcspn(words, ",");

		for (const char *m = missing; *words == '+' && *m; m += strspn(m, " ")) {
			size_t m_len = strcspn(m, " ");

			if (m_len == len - 1 && !memcmp(m, words + 1, m_len))
				return refuse(err, API_KIND_NOT_SUPPORTED, "cpu",
					      "this host's KVM cannot show the feature \"%.*s\"",
					      (int)m_len, m);
			m += m_len;
		}
		words += len;
	}
	return 0;
}

int vm_engine_allowed(const struct engine_ops *ops, const struct machine_def *def,
		      const struct machine_files *files, const struct engine_config *config,
		      struct api_error *err)
{
	struct engine_config c = *config;
	struct engine_error why = {""};
	int ret = vm_engine_options(ops, def, files, &c, err);

	if (ret || ops != &engine_kvm)
		return ret;
	if (files->kvm < 0)
		return no_device(def, files, err);
	ret = ops->probe(&c, &why);
	return ret ? vm_engine_error(err, ops, ret, &why) : check_cpu(def->cpu, &c, err);
}

/* ---- the choice
 * ------------------------------------------------------------------------------------------ */

static void take(struct engine_choice *ret, const struct engine_ops *ops, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void take(struct engine_choice *ret, const struct engine_ops *ops, const char *fmt, ...)
{
	va_list ap;

	*ret = (struct engine_choice){.ops = ops};
	va_start(ap, fmt);
	vsnprintf(ret->why, sizeof(ret->why), fmt, ap);
	va_end(ap);
}

/* kvm could run it; does the host want that? */
static void take_auto(struct engine_choice *ret, const struct machine_files *files)
{
	struct engine_error why = {""};
	bool hardware = engine_kvm_has_hardware(&why);

	if (files->kvm_use == MACHINE_KVM_HARDWARE && !hardware) {
		take(ret, &engine_soft, "%s; kvm = always in umbrad.conf overrides", why.text);
		return;
	}
	take(ret, &engine_kvm, "%s",
	     hardware ? "/dev/kvm can run this machine, with hardware virtualization"
		      : "umbrad.conf says kvm = always");
	ret->may_fall_back = true;
}

int vm_choose_engine(struct engine_choice *ret, const struct machine_def *def,
		     const struct machine_files *files, const struct engine_config *config,
		     struct api_error *err)
{
	struct api_error no = {0};
	int r;

	if (def->engine == MACHINE_ENGINE_SOFT) {
		take(ret, &engine_soft, "the definition says so");
		return 0;
	}
	r = vm_engine_allowed(&engine_kvm, def, files, config, &no);
	if (def->engine == MACHINE_ENGINE_KVM) {
		if (r)
			*err = no;
		else
			take(ret, &engine_kvm, "the definition says so");
		ret->may_kvm = true;
		return r;
	}
	if (r)
		take(ret, &engine_soft, "%s", no.text);
	else
		take_auto(ret, files);
	ret->may_kvm = !r;
	return 0;
}

bool vm_engine_fall_back(struct engine_choice *choice, struct api_error *err)
{
	struct api_error was = *err;

	if (!choice->may_fall_back)
		return false;
	take(choice, &engine_soft, "kvm failed: %s", was.text);
	choice->may_kvm = true;
	*err = (struct api_error){0};
	return true;
}
