/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/engine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/soft/soft_internal.h"

/* ---- the host ------------------------------------------------------------------------------- */

static void host_pio(void *priv, unsigned vcpu, uint16_t port, bool in, unsigned size,
		     uint32_t *data)
{
	struct machine *m = priv;

	m->pio_count++;
	m->pio.port = port;
	m->pio.in = in;
	m->pio.size = size;
	if (in)
		*data = (uint32_t)m->read_value;
	m->pio.data = *data;
	if (port == M_PORT_TEXT && !in && m->text_len < sizeof(m->text) - 1)
		m->text[m->text_len++] = (char)*data;
	if (port == M_PORT_STOP)
		m->ops->vcpu_kick(m_vcpu(m, vcpu));
}

static void host_mmio(void *priv, unsigned vcpu, gpa_t gpa, bool write, unsigned size, void *data)
{
	struct machine *m = priv;

	m->mmio.gpa = gpa;
	m->mmio.write = write;
	m->mmio.size = size;
	m->mmio.data = 0;
	if (!write)
		memcpy(data, &m->read_value, size);
	memcpy(&m->mmio.data, data, size);
	__atomic_fetch_add(&m->mmio_count, 1, __ATOMIC_SEQ_CST);
	if (m->stop_on_mmio)
		m->ops->vcpu_kick(m_vcpu(m, vcpu));
}

static int host_irq_pending(void *priv, unsigned vcpu)
{
	struct machine *m = priv;

	return __atomic_load_n(&m->irq, __ATOMIC_SEQ_CST);
}

static int host_irq_ack(void *priv, unsigned vcpu)
{
	struct machine *m = priv;

	return __atomic_exchange_n(&m->irq, -1, __ATOMIC_SEQ_CST);
}

static int host_msr_read(void *priv, unsigned vcpu, uint32_t index, uint64_t *value)
{
	struct machine *m = priv;

	m->msr_count++;
	*value = m->read_value;
	return m->msr_gp || index == 0x12345678; /* #GP */
}

static int host_msr_write(void *priv, unsigned vcpu, uint32_t index, uint64_t value)
{
	struct machine *m = priv;

	m->msr_count++;
	return 0;
}

static void host_tsc_offset(void *priv, unsigned vcpu, uint64_t offset)
{
}

static void host_init(void *priv, unsigned vcpu)
{
}

static uint64_t host_cr8_read(void *priv, unsigned vcpu)
{
	return 0;
}

static void host_cr8_write(void *priv, unsigned vcpu, uint64_t value)
{
}

static void host_eoi(void *priv, uint8_t vector)
{
}

static bool host_pic_pending(void *priv)
{
	return false;
}

static int host_pic_ack(void *priv)
{
	return -1;
}

const struct engine_host m_host = {
	.pio = host_pio,
	.mmio = host_mmio,
	.irq_pending = host_irq_pending,
	.irq_ack = host_irq_ack,
	.msr_read = host_msr_read,
	.msr_write = host_msr_write,
	.tsc_offset = host_tsc_offset,
	.init = host_init,
	.cr8_read = host_cr8_read,
	.cr8_write = host_cr8_write,
	.eoi = host_eoi,
	.pic_pending = host_pic_pending,
	.pic_ack = host_pic_ack,
};

/* ---- the machine ---------------------------------------------------------------------------- */

static void put64(struct machine *m, gpa_t at, uint64_t v)
{
	memcpy(m->ram + at, &v, 8);
}

/* The GDT, and gates to handlers that halt. */
static void make_system(struct machine *m)
{
	static const uint64_t gdt[] = {0, 0x00af9b000000ffff, 0x00cf9b000000ffff,
				       0x00cf93000000ffff};

	memcpy(m->ram + M_GDT, gdt, sizeof(gdt));
	for (unsigned v = 0; v < 256; v++) {
		uint64_t at = M_HANDLERS + 16ull * v;

		m->ram[at] = 0xf4;
		put64(m, M_IDT + 16 * v,
		      (at & 0xffff) | 8 << 16 | 0x8eull << 40 | (at >> 16 & 0xffff) << 48);
		put64(m, M_IDT + 16 * v + 8, 0);
	}
}

static void make_tables(struct machine *m, enum m_mode mode)
{
	uint64_t pd = M_TABLES + 0x2000;

	m->mode = mode;
	memset(m->ram + M_TABLES, 0, 0x8000);
	memset(m->ram + M_PT, 0, PAGE_SIZE);
	if (mode == M_32) {
		for (uint32_t n = 0; n < 256; n++)
			m_word(m, M_TABLES)[n] = n << 22 | 0x87;
		m_word(m, M_TABLES)[M_FAR >> 22] = M_PT | 7;
		return;
	}
	put64(m, M_TABLES, (M_TABLES + 0x1000) | 7);
	put64(m, M_TABLES + 0x1000, pd | (mode == M_PAE ? 1 : 7));
	for (uint64_t n = 0; n < 512; n++)
		put64(m, pd + n * 8, n << 21 | 0x87);
	put64(m, pd + (M_FAR >> 21) * 8, M_PT | 7);
}

void m_map(struct machine *m, unsigned page, uint64_t entry)
{
	if (m->mode == M_32)
		m_word(m, M_PT)[page] = (uint32_t)entry;
	else
		put64(m, M_PT + page * 8, entry);
}

const char *m_kvm_missing(void)
{
	static char why[128];
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = fd < 0 ? -1 : ioctl(fd, KVM_CREATE_VM, 0);

	why[0] = 0;
	if (vm < 0)
		snprintf(why, sizeof(why), "%s: %s", fd < 0 ? "/dev/kvm" : "KVM_CREATE_VM",
			 strerror(errno));
	if (vm >= 0)
		close(vm);
	if (fd >= 0)
		close(fd);
	return why[0] ? why : NULL;
}

struct machine *m_try_create(const struct m_options *o, struct engine_error *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct engine_config config = {
		.vcpus = o->vcpus ? o->vcpus : 1,
		.policy = o->kvm ? MMU_POLICY_KERNEL : o->policy,
		.clock = o->kvm ? ENGINE_CLOCK_HOST : ENGINE_CLOCK_INSTRUCTIONS,
		.ram_bytes = M_RAM,
		.rand_seed = 1,
		.mmu_disable = o->disable,
		.host = &m_host,
		.host_priv = m,
		.help = o->help,
		.irqchip = o->irqchip,
	};
	struct slot_desc slot = {.size = M_RAM};

	if (!m)
		abort();
	m->ops = o->kvm ? &engine_kvm : &engine_soft;
	m->kvm_fd = config.kvm_fd = o->kvm ? open("/dev/kvm", O_RDWR | O_CLOEXEC) : -1;
	m->irq = -1;
	engine_cpu_model_init(&m->model, config.vcpus, 1000000000);
	config.model = &m->model;
	m->ram = mmap(NULL, M_RAM, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->ram == MAP_FAILED)
		abort();
	if (m->ops->create(&config, &m->vm, err)) {
		m_destroy(m);
		return NULL;
	}
	m->mmu = m->ops->mmu(m->vm);
	slot.host = m->ram;
	if (slot_add(m->mmu, &slot)) {
		snprintf(err->text, sizeof(err->text), "%s", m->ops->error(m->vm));
		m_destroy(m);
		return NULL;
	}
	make_system(m);
	return m;
}

struct machine *m_create(const struct m_options *o)
{
	struct engine_error err;
	struct machine *m = m_try_create(o, &err);

	if (!m) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	return m;
}

void m_destroy(struct machine *m)
{
	m->ops->destroy(m->vm);
	munmap(m->ram, M_RAM);
	if (m->kvm_fd >= 0)
		close(m->kvm_fd);
	free(m);
}

struct engine_vcpu *m_vcpu(struct machine *m, unsigned n)
{
	return m->ops->vcpu(m->vm, n);
}

struct cpu_state *m_state(struct machine *m, unsigned n)
{
	return cpu_state(m_vcpu(m, n)->cpu);
}

void m_code(struct machine *m, uint64_t offset, const uint8_t *code, const uint8_t *end)
{
	if (slot_write(m->mmu, M_CODE + offset, code, (uint64_t)(end - code)))
		abort();
}

static struct cpu_seg flat(uint16_t sel, uint32_t attr)
{
	return (struct cpu_seg){.limit = 0xffffffff, .sel = sel, .attr = attr};
}

bool m_try_start(struct machine *m, unsigned n, enum m_mode mode, char *why, size_t size)
{
	struct engine_vcpu *v = m_vcpu(m, n);
	struct cpu_state s;
	int ret;

	make_tables(m, mode);
	ret = m->ops->vcpu_reset(v);
	if (!ret)
		ret = m->ops->vcpu_get_state(v, &s);
	if (ret) {
		snprintf(why, size, "%s", m->ops->vcpu_error(v));
		return false;
	}
	for (unsigned k = 0; k < 6; k++)
		s.seg[k] = flat(0x18, 0xc093);
	s.seg[X86_CS] = mode == M_LONG ? flat(0x08, 0xa09b) : flat(0x10, 0xc09b);
	s.gdtr = (struct cpu_table){.base = M_GDT, .limit = 31};
	s.idtr = (struct cpu_table){.base = M_IDT, .limit = 0xfff};
	s.rip = M_CODE;
	s.rflags = X86_FLAG_ONE;
	s.gpr[X86_RBX] = M_DATA;
	s.gpr[X86_RSP] = M_STACK - 0x1000 * n;
	s.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET;
	s.cr3 = mode == M_PAE ? M_TABLES + 0x1000 : M_TABLES;
	s.cr4 = mode == M_32 ? X86_CR4_PSE : X86_CR4_PAE;
	if (mode == M_LONG)
		s.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
	if (mode == M_PAE)
		memcpy(s.pdptr, m->ram + M_TABLES + 0x1000, sizeof(s.pdptr));
	s.activity = CPU_ACTIVE;
	ret = m->ops->vcpu_set_state(v, &s);
	if (ret)
		snprintf(why, size, "%s", m->ops->vcpu_error(v));
	return !ret;
}

void m_start(struct machine *m, unsigned n, enum m_mode mode, uint64_t offset)
{
	struct cpu_state s;
	char why[1024];

	if (!m_try_start(m, n, mode, why, sizeof(why))) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
	if (!offset)
		return;
	if (m->ops->vcpu_get_state(m_vcpu(m, n), &s))
		abort();
	s.rip += offset;
	if (m->ops->vcpu_set_state(m_vcpu(m, n), &s))
		abort();
}
