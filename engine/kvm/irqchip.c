/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's interrupt controllers, timers and lines. */
#include "engine/kvm/kvm_internal.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "engine/kvm/chips.h"

/*
 * Global interrupts are the board's numbers but for two: the kernel's PIT drives its GSI 0, which a
 * PC wires to the 8259's IRQ 0 and the I/O APIC's pin 2. So the board's 2 is the kernel's 0, and
 * the other way round.
 */
#define GSI_PIT 2

static unsigned kernel_gsi(unsigned gsi)
{
	return gsi == GSI_PIT ? 0 : gsi == 0 ? GSI_PIT : gsi;
}

/*
 * With a split irqchip one route a vector that can be an interrupt's: the kernel keeps how many are
 * reserved in a byte, so that all 256 would be none.
 */
#define FIRST_VECTOR 16
#define EOI_ROUTES   (256 - FIRST_VECTOR)

struct routes {
	struct kvm_irq_routing head;
	struct kvm_irq_routing_entry entry[EOI_ROUTES];
};

static struct kvm_irq_routing_entry *add_route(struct routes *r, unsigned gsi, unsigned type)
{
	struct kvm_irq_routing_entry *e = &r->entry[r->head.nr++];

	*e = (struct kvm_irq_routing_entry){.gsi = gsi, .type = type};
	return e;
}

static void add_pin(struct routes *r, unsigned gsi, unsigned chip, unsigned pin)
{
	struct kvm_irq_routing_entry *e = add_route(r, gsi, KVM_IRQ_ROUTING_IRQCHIP);

	e->u.irqchip.irqchip = chip;
	e->u.irqchip.pin = pin;
}

/* As the board's own set_gsi(): the 8259s below 16, but for 0 and the cascade; the PIT at IRQ 0. */
static void add_board_pins(struct routes *r)
{
	for (unsigned gsi = 0; gsi < IRQ_GSI_COUNT; gsi++) {
		unsigned irq = gsi == GSI_PIT ? 0 : gsi;

		if (gsi && gsi < 16)
			add_pin(r, kernel_gsi(gsi),
				irq < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, irq & 7);
		add_pin(r, kernel_gsi(gsi), KVM_IRQCHIP_IOAPIC, gsi);
	}
}

/*
 * A split irqchip's kernel tells us of the EOIs of those vectors that are level-triggered in a
 * route below the number that KVM_CAP_SPLIT_IRQCHIP reserved. One route a vector, numbered by it,
 * to all processors: so none has ever to be taken back.
 */
static void add_eoi_vectors(struct routes *r, const struct engine_vm *vm)
{
	for (unsigned vector = FIRST_VECTOR; vector < 256; vector++) {
		struct kvm_irq_routing_entry *e;

		if (!(vm->eoi_vectors[vector / 32] & 1u << vector % 32))
			continue;
		e = add_route(r, vector - FIRST_VECTOR, KVM_IRQ_ROUTING_MSI);
		e->u.msi.address_lo = 0xfeeff000; /* all, physically */
		e->u.msi.data = 0xc000 | vector;  /* level, asserted, fixed */
	}
}

/* Under irq_lock, or while the machine is made. */
static int set_routes(struct engine_vm *vm)
{
	struct routes r = {0};

	if (vm->config.irqchip == ENGINE_IRQCHIP_SPLIT)
		add_eoi_vectors(&r, vm);
	else
		add_board_pins(&r);
	return kvm_call(vm->fd, KVM_SET_GSI_ROUTING, &r);
}

/* ---- gathered accesses --------------------------------------------------------------------- */

/* Every vCPU's mapping shows the machine's one ring. NULL: nothing is gathered. */
static struct kvm_coalesced_mmio_ring *ring_of(struct engine_vcpu *v)
{
	const struct engine_vm *vm = v->vm;

	if (!vm->config.gathered_port || !vm->caps.coalesced_pio || !vm->caps.coalesced_page)
		return NULL;
	return (void *)((char *)v->run + vm->caps.coalesced_page * PAGE_SIZE);
}

static int gather(struct engine_vm *vm)
{
	struct kvm_coalesced_mmio_zone zone = {
		.addr = vm->config.gathered_port, .size = 1, .pio = 1};

	if (!vm->config.gathered_port || !vm->caps.coalesced_pio || !vm->caps.coalesced_page)
		return 0;
	return kvm_call(vm->fd, KVM_REGISTER_COALESCED_MMIO, &zone);
}

void kvm_coalesced_drain(struct engine_vcpu *v)
{
	const struct engine_config *config = &v->vm->config;
	struct kvm_coalesced_mmio_ring *ring = ring_of(v);
	uint32_t first;

	if (!ring || likely(__atomic_load_n(&ring->first, __ATOMIC_RELAXED) ==
			    __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)))
		return;
	pthread_mutex_lock(&v->vm->gather_lock);
	for (first = ring->first; first != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);) {
		uint32_t data = ring->coalesced_mmio[first].data[0];

		config->host->pio(config->host_priv, v->id, config->gathered_port, false, 1, &data);
		first = (first + 1) % KVM_COALESCED_MMIO_MAX;
		__atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&v->vm->gather_lock);
}

/* ---- making --------------------------------------------------------------------------------- */

static int pit_create(struct engine_vm *vm)
{
	/* Port 0x61 too, as counter 2's gate and output are there. */
	struct kvm_pit_config config = {.flags = KVM_PIT_SPEAKER_DUMMY};
	/* A tick that finds the last one unserved is gone, as with our own PIT. */
	struct kvm_reinject_control reinject = {.pit_reinject = 0};
	int ret = kvm_call(vm->fd, KVM_CREATE_PIT2, &config);

	return ret ? ret : kvm_call(vm->fd, KVM_REINJECT_CONTROL, &reinject);
}

/* KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST of newer headers. */
#define X2APIC_NO_DIRECTED_EOI BIT(3)

/* The local APICs show no suppression of EOI broadcasts, as ours do not; where the kernel can. */
static int split_create(struct engine_vm *vm)
{
	int ret = kvm_enable_cap(vm->fd, KVM_CAP_SPLIT_IRQCHIP, EOI_ROUTES);

	if (!ret && (vm->caps.x2apic_api & X2APIC_NO_DIRECTED_EOI))
		ret = kvm_enable_cap(vm->fd, KVM_CAP_X2APIC_API, X2APIC_NO_DIRECTED_EOI);
	return ret;
}

int kvm_irqchip_create(struct engine_vm *vm)
{
	int ret;

	pthread_mutex_init(&vm->irq_lock, NULL);
	pthread_mutex_init(&vm->gather_lock, NULL);
	ret = gather(vm);
	if (ret)
		return ret;
	if (vm->config.irqchip == ENGINE_IRQCHIP_SPLIT)
		return split_create(vm);
	ret = kvm_call(vm->fd, KVM_CREATE_IRQCHIP, NULL);
	if (!ret)
		ret = set_routes(vm);
	return ret ? ret : pit_create(vm);
}

void kvm_irqchip_destroy(struct engine_vm *vm)
{
	pthread_mutex_destroy(&vm->irq_lock);
	pthread_mutex_destroy(&vm->gather_lock);
}

/* ---- lines and messages -------------------------------------------------------------------- */

/* Under irq_lock. */
static int set_line(struct engine_vm *vm, unsigned gsi, bool level)
{
	struct kvm_irq_level line = {.irq = kernel_gsi(gsi), .level = level};
	uint32_t bit = 1u << gsi;
	int ret;

	if (!!(vm->lines & bit) == level)
		return 0;
	ret = kvm_call(vm->fd, KVM_IRQ_LINE, &line);
	if (ret >= 0)
		vm->lines ^= bit;
	return MIN(ret, 0);
}

int kvm_set_gsi(struct engine_vm *vm, unsigned gsi, bool level)
{
	int ret;

	pthread_mutex_lock(&vm->irq_lock);
	ret = set_line(vm, gsi, level);
	pthread_mutex_unlock(&vm->irq_lock);
	return ret;
}

#define MSI_LEVEL BIT(15)

/* The EOI of @vector is to be told from now on. */
static int watch_eoi(struct engine_vm *vm, uint8_t vector)
{
	uint32_t *word = &vm->eoi_vectors[vector / 32], bit = 1u << vector % 32;
	int ret = 0;

	if (__atomic_load_n(word, __ATOMIC_ACQUIRE) & bit)
		return 0;
	pthread_mutex_lock(&vm->irq_lock);
	if (!(*word & bit)) {
		__atomic_fetch_or(word, bit, __ATOMIC_RELEASE);
		ret = set_routes(vm);
		if (ret)
			__atomic_fetch_and(word, ~bit, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&vm->irq_lock);
	return ret;
}

int kvm_msi(struct engine_vm *vm, uint64_t addr, uint32_t data)
{
	struct kvm_msi msi = {
		.address_lo = (uint32_t)addr,
		.address_hi = (uint32_t)(addr >> 32),
		.data = data,
	};
	int ret = 0;

	if (vm->config.irqchip == ENGINE_IRQCHIP_SPLIT && (data & MSI_LEVEL))
		ret = watch_eoi(vm, (uint8_t)data);
	/* How many took it; -errno where nobody was there to. */
	return ret ? ret : kvm_call(vm->fd, KVM_SIGNAL_MSI, &msi);
}

/* ---- without an exit, without a thread ------------------------------------------------------ */

int kvm_ioeventfd(struct engine_vm *vm, const struct engine_doorbell *bell, bool assign)
{
	struct kvm_ioeventfd io = {
		.addr = bell->addr, .len = bell->size, .datamatch = bell->data, .fd = bell->fd};

	if (!vm->caps.ioeventfd)
		return -EOPNOTSUPP;
	if (bell->pio)
		io.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (bell->match)
		io.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	if (!assign)
		io.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	return kvm_call(vm->fd, KVM_IOEVENTFD, &io);
}

int kvm_irqfd(struct engine_vm *vm, unsigned gsi, int fd, int resample_fd, bool assign)
{
	struct kvm_irqfd irq = {.fd = (uint32_t)fd, .gsi = kernel_gsi(gsi)};

	if (gsi >= IRQ_GSI_COUNT)
		return -EINVAL;
	/* With a split irqchip the routes are those of EOIs, and the line ends at our I/O APIC. */
	if (!vm->caps.irqfd || vm->config.irqchip == ENGINE_IRQCHIP_SPLIT ||
	    (resample_fd >= 0 && !vm->caps.irqfd_resample))
		return -EOPNOTSUPP;
	if (!assign) {
		irq.flags = KVM_IRQFD_FLAG_DEASSIGN;
	} else if (resample_fd >= 0) {
		irq.flags = KVM_IRQFD_FLAG_RESAMPLE;
		irq.resamplefd = (uint32_t)resample_fd;
	}
	return kvm_call(vm->fd, KVM_IRQFD, &irq);
}

/* ---- the 8259s' interrupt with a split irqchip ---------------------------------------------- */

void kvm_pic_intr(struct engine_vm *vm)
{
	const struct engine_config *config = &vm->config;

	if (!config->host->pic_pending(config->host_priv))
		return;
	for (unsigned k = 0; k < vm->count; k++)
		kvm_request(&vm->vcpus[k], KVM_REQ_LOOK);
}

/*
 * By the vCPU's events rather than KVM_INTERRUPT, as what that leaves pending is in no state that
 * can be saved: the 8259's request would be gone and the processor would not have it.
 */
static int inject(struct engine_vcpu *v, uint8_t vector)
{
	struct kvm_mp_state mp = {0};
	struct kvm_vcpu_events events = {0};
	int ret = kvm_call(v->fd, KVM_GET_VCPU_EVENTS, &events);

	if (ret)
		return ret;
	events.flags = 0;
	events.interrupt.injected = 1;
	events.interrupt.nr = vector;
	events.interrupt.soft = 0;
	ret = kvm_call(v->fd, KVM_SET_VCPU_EVENTS, &events);
	if (!ret)
		ret = kvm_call(v->fd, KVM_GET_MP_STATE, &mp);
	if (!ret && mp.mp_state == KVM_MP_STATE_HALTED) {
		mp.mp_state = KVM_MP_STATE_RUNNABLE;
		ret = kvm_call(v->fd, KVM_SET_MP_STATE, &mp);
	}
	return ret;
}

int kvm_pic_inject(struct engine_vcpu *v)
{
	const struct engine_config *config = &v->vm->config;
	int vector;

	v->run->request_interrupt_window = 0;
	if (likely(!config->host->pic_pending(config->host_priv)))
		return 0;
	/* The kernel's word of the last exit, LINT0 and interrupt shadow included. */
	if (!v->run->ready_for_interrupt_injection) {
		v->run->request_interrupt_window = 1;
		return 0;
	}
	v->run->ready_for_interrupt_injection = 0;
	vector = config->host->pic_ack(config->host_priv);
	return vector < 0 ? 0 : inject(v, (uint8_t)vector);
}

/* ---- state --------------------------------------------------------------------------------- */

#define MSR_APIC_BASE	 0x1b
#define MSR_TSC_ADJUST	 0x3b
#define MSR_TSC_DEADLINE 0x6e0

struct msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[3];
};

/* One at a time where they may be missing: the call stops at the first that is. */
static int get_msr(struct engine_vcpu *v, uint32_t index, uint64_t *ret_value)
{
	struct msrs m = {.head.nmsrs = 1, .entry[0].index = index};
	int ret = kvm_call(v->fd, KVM_GET_MSRS, &m);

	*ret_value = ret == 1 ? m.entry[0].data : 0;
	return MIN(ret, 0);
}

static int set_msr(struct engine_vcpu *v, uint32_t index, uint64_t value)
{
	struct msrs m = {.head.nmsrs = 1, .entry[0] = {.index = index, .data = value}};
	int ret = kvm_call(v->fd, KVM_SET_MSRS, &m);

	return ret < 0 ? ret : ret == 1 ? 0 : -EINVAL;
}

/*
 * With the interrupt of a count that has run out. Once more when that happened between the two
 * looks; a TSC deadline stays where it is until its interrupt is there.
 */
static int get_settled(struct engine_vcpu *v, struct kvm_lapic_state *ret_state)
{
	int ret = kvm_call(v->fd, KVM_GET_LAPIC, ret_state);

	while (!ret && kvm_lapic_reg(ret_state, KVM_LAPIC_INITIAL) &&
	       !(kvm_lapic_reg(ret_state, KVM_LAPIC_LVT) & BIT(18))) {
		uint32_t before = kvm_lapic_reg(ret_state, KVM_LAPIC_CURRENT), now;

		ret = kvm_settle(v);
		if (!ret)
			ret = kvm_call(v->fd, KVM_GET_LAPIC, ret_state);
		now = kvm_lapic_reg(ret_state, KVM_LAPIC_CURRENT);
		if (now <= before && (now || !before))
			break;
	}
	return ret;
}

static int lapic_get(struct engine_vcpu *v, uint64_t now_ns, struct lapic_state *ret_state)
{
	struct kvm_lapic_state s = {0};
	struct kvm_lapic_msrs msrs;
	int ret = get_msr(v, MSR_APIC_BASE, &msrs.base);

	if (!ret)
		ret = get_msr(v, MSR_TSC_ADJUST, &msrs.tsc_adjust);
	if (!ret)
		ret = get_msr(v, MSR_TSC_DEADLINE, &msrs.tsc_deadline);
	if (!ret)
		ret = get_settled(v, &s);
	if (!ret)
		kvm_lapic_from(&s, &msrs, now_ns, ret_state);
	return ret;
}

/* The base before the registers, whose form it decides; the deadline after the timer's mode. */
static int lapic_set(struct engine_vcpu *v, uint64_t now_ns, const struct lapic_state *state)
{
	struct kvm_lapic_state s;
	int ret = set_msr(v, MSR_APIC_BASE, state->base);

	kvm_lapic_to(state, now_ns, &s);
	if (!ret)
		ret = kvm_call(v->fd, KVM_SET_LAPIC, &s);
	if (!ret && v->vm->caps.tsc_deadline)
		ret = set_msr(v, MSR_TSC_DEADLINE, state->tsc_deadline);
	return ret;
}

static int get_chip(struct engine_vm *vm, unsigned id, struct kvm_irqchip *ret_chip)
{
	*ret_chip = (struct kvm_irqchip){.chip_id = id};
	return kvm_call(vm->fd, KVM_GET_IRQCHIP, ret_chip);
}

static int get_board_chips(struct engine_vm *vm, const struct engine_chips *chips)
{
	struct kvm_irqchip chip = {0};
	struct kvm_pit_state2 pit = {0};
	struct timespec now;
	int ret = kvm_call(vm->fd, KVM_GET_PIT2, &pit);

	if (ret)
		return ret;
	clock_gettime(CLOCK_MONOTONIC, &now);
	kvm_pit_from(&pit, chips->now_ns, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
		     chips->pit);
	for (unsigned which = 0; which < 2; which++) {
		ret = get_chip(vm, which ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER, &chip);
		if (ret)
			return ret;
		kvm_pic_from(&chip.chip.pic, which, &chips->pic->chip[which]);
	}
	ret = get_chip(vm, KVM_IRQCHIP_IOAPIC, &chip);
	if (!ret)
		kvm_ioapic_from(&chip.chip.ioapic, chips->lines, chips->ioapic);
	return ret;
}

int kvm_chips_save(struct engine_vm *vm, const struct engine_chips *ret_chips)
{
	int ret = ret_chips->ioapic ? get_board_chips(vm, ret_chips) : 0;

	for (unsigned k = 0; k < vm->count && !ret; k++)
		ret = lapic_get(&vm->vcpus[k], ret_chips->now_ns, &ret_chips->lapic[k]);
	return ret;
}

static int set_lines(struct engine_vm *vm, uint32_t lines)
{
	int ret = 0;

	pthread_mutex_lock(&vm->irq_lock);
	for (unsigned gsi = 0; gsi < IRQ_GSI_COUNT && !ret; gsi++)
		ret = set_line(vm, gsi, lines >> gsi & 1);
	pthread_mutex_unlock(&vm->irq_lock);
	return ret;
}

static int set_board_chips(struct engine_vm *vm, const struct engine_chips *chips)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
	struct kvm_pit_state2 pit;
	int ret;

	kvm_ioapic_to(chips->ioapic, &chip.chip.ioapic);
	ret = kvm_call(vm->fd, KVM_SET_IRQCHIP, &chip);
	/* The slave first: the kernel lets the one that is there interrupt the master anew. */
	for (unsigned n = 0; n < 2 && !ret; n++) {
		unsigned which = 1 - n;

		chip = (struct kvm_irqchip){
			.chip_id = which ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER,
		};
		kvm_pic_to(&chips->pic->chip[which], which, &chip.chip.pic);
		ret = kvm_call(vm->fd, KVM_SET_IRQCHIP, &chip);
	}
	kvm_pit_to(chips->pit, chips->now_ns, &pit);
	return ret ? ret : kvm_call(vm->fd, KVM_SET_PIT2, &pit);
}

/*
 * The lines first, to where they were when the state was taken, as each move is an edge: what those
 * do is undone by the chips' states. Then what has moved since.
 */
int kvm_chips_load(struct engine_vm *vm, const struct engine_chips *chips)
{
	int ret = 0;

	if (chips->ioapic)
		ret = set_lines(vm, chips->ioapic->lines);
	if (!ret && chips->ioapic)
		ret = set_board_chips(vm, chips);
	for (unsigned k = 0; k < vm->count && !ret; k++)
		ret = lapic_set(&vm->vcpus[k], chips->now_ns, &chips->lapic[k]);
	if (!ret && chips->ioapic)
		ret = set_lines(vm, chips->lines);
	return ret;
}

/* ---- kvmclock ------------------------------------------------------------------------------ */

int kvm_clock_save(struct engine_vm *vm, uint64_t *ret_ns)
{
	struct kvm_clock_data clock = {0};
	int ret = kvm_call(vm->fd, KVM_GET_CLOCK, &clock);

	if (!ret)
		*ret_ns = clock.clock;
	return ret;
}

/* And each guest processor's watchdog is told that it stood still; it may have no such clock. */
int kvm_clock_load(struct engine_vm *vm, uint64_t ns)
{
	struct kvm_clock_data clock = {.clock = ns};
	int ret = kvm_call(vm->fd, KVM_SET_CLOCK, &clock);

	for (unsigned k = 0; k < vm->count && !ret && vm->caps.kvmclock_ctrl; k++) {
		ret = kvm_call(vm->vcpus[k].fd, KVM_KVMCLOCK_CTRL, NULL);
		if (ret == -EINVAL)
			ret = 0;
	}
	return ret;
}

/* ---- who sleeps ---------------------------------------------------------------------------- */

int64_t kvm_vcpu_asleep(struct engine_vcpu *v)
{
	int64_t blocking = kvm_stats_read(v, "blocking");

	if (blocking <= 0)
		return blocking ? blocking : -EAGAIN;
	return kvm_stats_read(v, "halt_exits");
}
