/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What processor the guest sees: the model, as far as this kernel can. */
#include "engine/kvm/kvm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* More than any kernel has to tell: its KVM_MAX_CPUID_ENTRIES is 256. */
#define ENTRIES_MAX 512

/*
 * What KVM can with its local APICs, whatever it lists (api.rst, KVM_GET_SUPPORTED_CPUID and
 * KVM_CAP_TSC_DEADLINE_TIMER); that somebody virtualizes is true anyhow.
 */
static void add_unlisted(struct cpu_cpuid *e, bool deadline)
{
	if (e->leaf == 1) {
		e->ecx |= BIT(31) | BIT(21) | (deadline ? BIT(24) : 0);
		e->edx |= BIT(9);
	} else if (e->leaf == 6) {
		e->eax |= BIT(2); /* the APIC timer never stops */
	}
}

static int ask(int kvm_fd, struct kvm_cpuid2 *c, struct cpu_cpuid *leaves)
{
	int deadline = kvm_check(kvm_fd, KVM_CAP_TSC_DEADLINE_TIMER), ret;

	if (deadline < 0)
		return deadline;
	c->nent = ENTRIES_MAX;
	ret = kvm_call(kvm_fd, KVM_GET_SUPPORTED_CPUID, c);
	if (ret)
		return ret;
	ret = (int)MIN(c->nent, (uint32_t)ENTRIES_MAX);
	for (int k = 0; k < ret; k++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[k];

		leaves[k] =
			(struct cpu_cpuid){e->function, e->index, e->eax, e->ebx, e->ecx, e->edx};
		add_unlisted(&leaves[k], deadline > 0);
	}
	return ret;
}

/*
 * KVM_GET_SUPPORTED_CPUID in our form: how many, or -errno. It takes long and is the host's, not
 * the descriptor's: asked once a process, and kept.
 */
static int supported(int kvm_fd, const struct cpu_cpuid **ret_leaves)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct cpu_cpuid *kept;
	static int n;
	struct kvm_cpuid2 *c;
	struct cpu_cpuid *leaves;
	int ret = -ENOMEM;

	pthread_mutex_lock(&lock);
	if (!kept) {
		c = calloc(1, sizeof(*c) + ENTRIES_MAX * sizeof(c->entries[0]));
		leaves = calloc(ENTRIES_MAX, sizeof(*leaves));
		if (c && leaves)
			ret = ask(kvm_fd, c, leaves);
		free(c);
		if (ret > 0) {
			n = ret;
			kept = realloc(leaves, (size_t)n * sizeof(*leaves)) ?: leaves;
		} else {
			free(leaves);
		}
	}
	*ret_leaves = kept;
	pthread_mutex_unlock(&lock);
	return kept ? n : ret;
}

int engine_kvm_cpu_limit(int kvm_fd, struct engine_cpu_model *model)
{
	const struct cpu_cpuid *leaves;
	int n = supported(kvm_fd, &leaves);

	if (n < 0)
		return n;
	engine_cpu_model_limit(model, leaves, (unsigned)n);
	return 0;
}

int engine_kvm_cpu_check(int kvm_fd, const struct engine_cpu_model *model, char *names, size_t size)
{
	struct engine_cpu_model limited = *model;
	int ret = engine_kvm_cpu_limit(kvm_fd, &limited);

	return ret ? ret : (int)engine_cpu_model_missing(model, &limited, names, size);
}

int kvm_cpuid_xcr0(int kvm_fd, uint64_t *ret_xcr0)
{
	const struct cpu_cpuid *leaves;
	int n = supported(kvm_fd, &leaves);

	if (n < 0)
		return n;
	*ret_xcr0 = 0;
	for (int k = 0; k < n; k++)
		if (leaves[k].leaf == 0xd && !leaves[k].subleaf)
			*ret_xcr0 = leaves[k].eax | (uint64_t)leaves[k].edx << 32;
	return 0;
}

int kvm_cpuid_setup(struct engine_vm *vm)
{
	vm->model = *vm->config.model;
	vm->model.kvm = true;
	vm->config.model = &vm->model;
	return engine_kvm_cpu_limit(vm->config.kvm_fd, &vm->model);
}

unsigned kvm_cpuid_leaves(const struct engine_vcpu *v, struct cpu_cpuid leaves[ENGINE_CPUID_MAX])
{
	const struct engine_vm *vm = v->vm;
	unsigned n = engine_cpu_model_cpuid(&vm->model, v->id, leaves);

	for (unsigned k = 0; k < vm->extras; k++) {
		const struct cpu_cpuid *x = &vm->extra[k];
		struct cpu_cpuid *e = leaves;

		while (e < leaves + n && (e->leaf != x->leaf || e->subleaf != x->subleaf))
			e++;
		if (e == leaves + n)
			continue;
		e->eax |= x->eax;
		e->ebx |= x->ebx;
		e->ecx |= x->ecx;
		e->edx |= x->edx;
	}
	return n;
}

/* What the kernel has added to what we set. */
static int read_back(struct engine_vcpu *v, const struct cpu_cpuid *set, unsigned n)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + ENTRIES_MAX * sizeof(c->entries[0]));
	struct engine_vm *vm = v->vm;
	int ret = -ENOMEM;

	if (c) {
		c->nent = ENTRIES_MAX;
		ret = kvm_call(v->fd, KVM_GET_CPUID2, c);
	}
	for (uint32_t k = 0; !ret && k < MIN(c->nent, (uint32_t)ENTRIES_MAX); k++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[k];
		struct cpu_cpuid x = {e->function, e->index, e->eax, e->ebx, e->ecx, e->edx};

		for (unsigned j = 0; j < n; j++) {
			if (set[j].leaf != x.leaf ||
			    (set[j].subleaf != x.subleaf && set[j].subleaf != CPU_CPUID_ANY))
				continue;
			x.subleaf = set[j].subleaf;
			x.eax &= ~set[j].eax;
			x.ebx &= ~set[j].ebx;
			x.ecx &= ~set[j].ecx;
			x.edx &= ~set[j].edx;
			if ((x.eax | x.ebx | x.ecx | x.edx) && vm->extras < ARRAY_SIZE(vm->extra))
				vm->extra[vm->extras++] = x;
			break;
		}
	}
	free(c);
	return ret;
}

int kvm_cpuid_set(struct engine_vcpu *v)
{
	struct cpu_cpuid leaves[ENGINE_CPUID_MAX];
	unsigned n = engine_cpu_model_cpuid(&v->vm->model, v->id, leaves);
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + n * sizeof(c->entries[0]));
	int ret;

	if (!c)
		return -ENOMEM;
	c->nent = n;
	for (unsigned k = 0; k < n; k++) {
		bool any = leaves[k].subleaf == CPU_CPUID_ANY;

		c->entries[k] = (struct kvm_cpuid_entry2){
			.function = leaves[k].leaf,
			.index = any ? 0 : leaves[k].subleaf,
			.flags = any ? 0 : KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = leaves[k].eax,
			.ebx = leaves[k].ebx,
			.ecx = leaves[k].ecx,
			.edx = leaves[k].edx,
		};
	}
	ret = kvm_call(v->fd, KVM_SET_CPUID2, c);
	free(c);
	return ret || v->id ? ret : read_back(v, leaves, n);
}

unsigned engine_kvm_cpu_extra(struct engine_vm *vm, char *names, size_t size)
{
	return engine_cpu_feature_names(vm->extra, vm->extras, names, size);
}
