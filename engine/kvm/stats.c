/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's binary statistics (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD), and what its
 * modules' parameters say of its MMU. */
#include "engine/kvm/kvm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* More of either no kernel has; the file says how many there are. */
#define DESCS_MAX     4096u
#define NAME_SIZE_MAX 256u
#define ITEMS_MAX     4096u

/* Later than Debian 12's headers know nothing: what is no type or unit here is told as none. */
#define TYPE_OF(flags) ((flags)&KVM_STATS_TYPE_MASK)
#define UNIT_OF(flags) ((flags)&KVM_STATS_UNIT_MASK)
#define BASE_OF(flags) ((flags)&KVM_STATS_BASE_MASK)

/* What a descriptor's file holds: the same for all vCPUs of a machine. */
struct schema {
	char *descs; /* @n of them, each @stride bytes */
	size_t stride;
	uint32_t n;
	uint32_t data_offset;
	size_t data_size; /* to the end of the last value */
};

struct kvm_stats {
	pthread_mutex_t lock;
	struct schema vm, vcpu; /* descs NULL: not read yet */
};

/* ---- the schema ---------------------------------------------------------------------------- */

static const struct kvm_stats_desc *desc_at(const struct schema *s, uint32_t i)
{
	return (const void *)(s->descs + i * s->stride);
}

static int read_exactly(int fd, void *to, size_t size, uint64_t at)
{
	ssize_t n = pread(fd, to, size, (off_t)at);

	return n == (ssize_t)size ? 0 : n < 0 ? -errno : -EIO;
}

/* Does every descriptor name something that can be read? */
static int schema_check(struct schema *s, size_t name_size)
{
	for (uint32_t i = 0; i < s->n; i++) {
		const struct kvm_stats_desc *d = desc_at(s, i);

		if (!d->size || d->size > ITEMS_MAX || d->offset % 8 || d->offset > BIT(24) ||
		    !*d->name || !memchr(d->name, 0, name_size))
			return -EIO;
		s->data_size = MAX(s->data_size, d->offset + d->size * sizeof(uint64_t));
	}
	return 0;
}

static int schema_read(int fd, struct schema *ret_schema)
{
	struct kvm_stats_header h;
	struct schema s = {0};
	int ret = read_exactly(fd, &h, sizeof(h), 0);

	if (ret)
		return ret;
	if (!h.name_size || h.name_size > NAME_SIZE_MAX || h.name_size % 8 ||
	    h.num_desc > DESCS_MAX)
		return -EIO;
	s.n = h.num_desc;
	s.stride = sizeof(struct kvm_stats_desc) + h.name_size;
	s.data_offset = h.data_offset;
	s.descs = malloc(s.n * s.stride + 1);
	if (!s.descs)
		return -ENOMEM;
	ret = read_exactly(fd, s.descs, s.n * s.stride, h.desc_offset);
	if (!ret)
		ret = schema_check(&s, h.name_size);
	if (ret) {
		free(s.descs);
		return ret;
	}
	*ret_schema = s;
	return 0;
}

/* ---- the files ----------------------------------------------------------------------------- */

static int open_file(int of, int *ret_fd)
{
	int ret = kvm_call_n(of, KVM_GET_STATS_FD, 0);

	if (ret < 0)
		return ret;
	*ret_fd = ret;
	return 0;
}

/* The machine's, or (@v not NULL) a vCPU's. */
static int stats_of(struct engine_vm *vm, struct engine_vcpu *v, int *ret_fd,
		    const struct schema **ret_schema)
{
	struct kvm_stats *st = vm->stats;
	struct schema *schema = v ? &st->vcpu : &st->vm;
	int ret = 0;

	*ret_fd = v ? v->stats_fd : vm->stats_fd;
	*ret_schema = schema;
	if (*ret_fd < 0)
		return -EOPNOTSUPP;
	/* Read when somebody first asks. */
	pthread_mutex_lock(&st->lock);
	if (!schema->descs)
		ret = schema_read(*ret_fd, schema);
	pthread_mutex_unlock(&st->lock);
	return ret;
}

int kvm_stats_open(struct engine_vm *vm)
{
	int ret;

	vm->stats = calloc(1, sizeof(*vm->stats));
	if (!vm->stats)
		return -ENOMEM;
	pthread_mutex_init(&vm->stats->lock, NULL);
	if (!vm->caps.binary_stats)
		return 0;
	ret = open_file(vm->fd, &vm->stats_fd);
	/* Now, since each request for a vCPU waits until that has left KVM_RUN. */
	for (unsigned k = 0; k < vm->count && !ret; k++)
		ret = open_file(vm->vcpus[k].fd, &vm->vcpus[k].stats_fd);
	return ret;
}

void kvm_stats_close(struct engine_vm *vm)
{
	struct kvm_stats *st = vm->stats;

	if (!st)
		return;
	for (unsigned k = 0; k < vm->count; k++) {
		if (vm->vcpus[k].stats_fd >= 0)
			close(vm->vcpus[k].stats_fd);
		vm->vcpus[k].stats_fd = -1;
	}
	if (vm->stats_fd >= 0)
		close(vm->stats_fd);
	vm->stats_fd = -1;
	free(st->vm.descs);
	free(st->vcpu.descs);
	pthread_mutex_destroy(&st->lock);
	free(st);
	vm->stats = NULL;
}

/* ---- values -------------------------------------------------------------------------------- */

static void tell(const struct kvm_stats_desc *d, const char *data, engine_stat_fn fn, void *arg)
{
	static const enum engine_stat_type types[] = {ENGINE_STAT_CUMULATIVE, ENGINE_STAT_INSTANT,
						      ENGINE_STAT_PEAK, ENGINE_STAT_LINEAR_HIST,
						      ENGINE_STAT_LOG_HIST};
	static const enum engine_stat_unit units[] = {ENGINE_STAT_PLAIN, ENGINE_STAT_BYTES,
						      ENGINE_STAT_SECONDS, ENGINE_STAT_CYCLES,
						      ENGINE_STAT_BOOLEAN};
	unsigned type = TYPE_OF(d->flags) >> KVM_STATS_TYPE_SHIFT;
	unsigned unit = UNIT_OF(d->flags) >> KVM_STATS_UNIT_SHIFT;
	struct engine_stat s = {
		.name = d->name,
		.type = type < ARRAY_SIZE(types) ? types[type] : ENGINE_STAT_INSTANT,
		.unit = unit < ARRAY_SIZE(units) ? units[unit] : ENGINE_STAT_PLAIN,
		.base = BASE_OF(d->flags) == KVM_STATS_BASE_POW2 ? 2 : 10,
		.exponent = d->exponent,
		.bucket_size = d->bucket_size,
		.n = d->size,
		.values = (const uint64_t *)(const void *)(data + d->offset),
	};

	fn(arg, &s);
}

int kvm_stats(struct engine_vm *vm, struct engine_vcpu *v, engine_stat_fn fn, void *arg)
{
	const struct schema *schema;
	char *data;
	int fd, ret = stats_of(vm, v, &fd, &schema);

	if (ret)
		return ret;
	data = malloc(schema->data_size + 1);
	if (!data)
		return -ENOMEM;
	ret = read_exactly(fd, data, schema->data_size, schema->data_offset);
	for (uint32_t i = 0; i < schema->n && !ret; i++)
		tell(desc_at(schema, i), data, fn, arg);
	free(data);
	return ret;
}

int64_t kvm_stats_read(struct engine_vcpu *v, const char *name)
{
	const struct schema *schema;
	uint64_t value;
	int fd, ret = stats_of(v->vm, v, &fd, &schema);

	if (ret)
		return ret;
	for (uint32_t i = 0; i < schema->n; i++) {
		const struct kvm_stats_desc *d = desc_at(schema, i);

		if (strcmp(d->name, name))
			continue;
		ret = read_exactly(fd, &value, sizeof(value), schema->data_offset + d->offset);
		return ret ? ret : (int64_t)(value & INT64_MAX);
	}
	return -EOPNOTSUPP;
}

/* ---- the kernel's MMU ---------------------------------------------------------------------- */

static struct engine_kvm_mmu kernels_mmu;
static pthread_once_t mmu_once = PTHREAD_ONCE_INIT;

/* "Y", "N" or a number: 1, 0; -1: there is no such. */
static int parameter(const char *module, const char *name)
{
	char path[96], text[16] = "";
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -1;
	return text[0] == 'Y' || (text[0] >= '1' && text[0] <= '9');
}

static bool have_module(const char *module)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/module/%s", module);
	return !access(path, F_OK);
}

static void read_mmu(void)
{
	/* By module: the parameter that says that there are two dimensions, and their form. */
	static const struct {
		const char *name, *tdp, *form;
	} modules[] = {
		{"kvm_intel", "ept", "ept"},
		{"kvm_amd", "npt", "npt"},
		{"kvm_pvm", NULL, NULL}, /* no hardware: it shadows, whatever is asked */
	};
	struct engine_kvm_mmu *m = &kernels_mmu;

	*m = (struct engine_kvm_mmu){
		.policy = MMU_POLICY_KERNEL,
		.form = "unknown",
		.module = "unknown",
		.nested = -1,
		.ad_bits = -1,
		.pml = -1,
		.large_pages = -1,
	};
	for (unsigned i = 0; i < ARRAY_SIZE(modules); i++) {
		const char *name = modules[i].name;
		int tdp = modules[i].tdp ? parameter(name, modules[i].tdp) : 0;

		if (!have_module(name))
			continue;
		m->module = name;
		m->nested = (int8_t)(modules[i].tdp ? parameter(name, "nested") : 0);
		m->ad_bits = (int8_t)parameter(name, "eptad");
		m->large_pages = modules[i].tdp ? 1 : -1;
		m->pml = (int8_t)(modules[i].tdp ? MAX(parameter(name, "pml"), 0) : 0);
		if (tdp >= 0) {
			m->policy = tdp ? MMU_POLICY_TDP : MMU_POLICY_SHADOW;
			m->form = tdp ? modules[i].form : "shadow";
		}
		break;
	}
	m->tdp_mmu = (int8_t)(m->policy == MMU_POLICY_TDP ? parameter("kvm", "tdp_mmu") : 0);
	m->eager_split = (int8_t)parameter("kvm", "eager_page_split");
	m->mmio_caching = (int8_t)parameter("kvm", "mmio_caching");
	m->nx_huge_pages = (int8_t)parameter("kvm", "nx_huge_pages");
}

const struct engine_kvm_mmu *engine_kvm_mmu(void)
{
	pthread_once(&mmu_once, read_mmu);
	return &kernels_mmu;
}

int kvm_policy_check(const struct engine_config *config, struct engine_error *err)
{
	const struct engine_kvm_mmu *m = engine_kvm_mmu();
	enum mmu_format form = m->form[0] == 'n' ? MMU_FORMAT_NPT : MMU_FORMAT_EPT;
	bool any = config->policy == MMU_POLICY_KERNEL;

	if (!any && config->policy != m->policy)
		return kvm_error(err, -EOPNOTSUPP,
				 "mmu %s: this host's KVM has %s (module %s), and no machine can "
				 "choose",
				 config->policy == MMU_POLICY_TDP ? "tdp" : "shadow", m->form,
				 m->module);
	if (config->policy == MMU_POLICY_TDP && config->tdp_format != MMU_FORMAT_X86 &&
	    config->tdp_format != form)
		return kvm_error(err, -EOPNOTSUPP, "tdp format %s: this host's KVM has %s",
				 config->tdp_format == MMU_FORMAT_NPT ? "npt" : "ept", m->form);
	if (config->mmu_disable)
		return kvm_error(err, -EOPNOTSUPP,
				 "mechanisms of the MMU can be turned off with engine soft only: "
				 "under kvm it is the kernel's");
	if (config->mmu_max_level && config->mmu_max_level < 3)
		return kvm_error(err, -EOPNOTSUPP,
				 "the largest page can be chosen with engine soft only: under kvm "
				 "it is the kernel that maps");
	if (config->mmu_table_bytes)
		return kvm_error(
			err, -EOPNOTSUPP,
			"memory for tables can be bounded with engine soft only: under kvm "
			"it is the kernel's");
	return 0;
}
