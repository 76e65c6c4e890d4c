/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which engine runs a machine, and why. */
#ifndef UMBRA_VM_CHOOSE_ENGINE_H
#define UMBRA_VM_CHOOSE_ENGINE_H

#include "api/machine_def.h"
#include "engine/engine.h"

struct engine_choice {
	const struct engine_ops *ops;
	/* @ops is kvm, and the definition would be as content with soft. */
	bool may_fall_back;
	bool may_kvm;  /* whatever @ops is: kvm could run the machine, and nobody forbids it */
	char why[240]; /* the reason for @ops, for people: no full stop */
};

/*
 * What @def says of @ops' engine into @config: policy and MMU, and for kvm the descriptor,
 * interrupt controllers, dirty ring and help. Under kvm @policy is MMU_POLICY_KERNEL, or what the
 * definition insists on: the engine's probe() and create() refuse what the kernel does not do. 0,
 * or -errno with *err and its field: that engine cannot honour the definition. Always possible,
 * also in the sandbox.
 */
int vm_engine_options(const struct engine_ops *ops, const struct machine_def *def,
		      const struct machine_files *files, struct engine_config *config,
		      struct api_error *err);
/*
 * By the definition, the host's word (files->kvm_use) and what this host's /dev/kvm (files->kvm)
 * can. @config is as the caller has it before vm_engine_options(), with the processor model; it is
 * not changed. Before the sandbox. 0, or -errno with *err: what is explicitly wanted cannot be had
 * (kinds not-supported, denied, invalid-params, …), in the field that asks for it.
 */
int vm_choose_engine(struct engine_choice *ret, const struct machine_def *def,
		     const struct machine_files *files, const struct engine_config *config,
		     struct api_error *err);
/*
 * The chosen engine could not be made, *err says how. True: @choice is soft now, try again; *err is
 * zero, its text part of the new reason. False: there is no other.
 */
bool vm_engine_fall_back(struct engine_choice *choice, struct api_error *err);
/* What @ops' probe() or create() answered, as an error of the API. Returns its -errno. */
int vm_engine_error(struct api_error *err, const struct engine_ops *ops, int ret,
		    const struct engine_error *why);
/*
 * May the machine go over to @ops while it runs? As vm_choose_engine() for a definition that names
 * that engine, but nothing is opened, so that it is possible in the sandbox: engine "soft" in the
 * definition has no way to kvm. 0, or -errno with *err.
 */
int vm_engine_allowed(const struct engine_ops *ops, const struct machine_def *def,
		      const struct machine_files *files, const struct engine_config *config,
		      struct api_error *err);

#endif
