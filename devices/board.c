/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A PC's devices: what is built, where it answers, how interrupts run between them. */
#include "devices/board.h"

#include <errno.h>
#include <stdlib.h>

/* Interrupts: lines to the 8259s and the I/O APIC; messages and INT to the local APICs. */

static void set_gsi(void *opaque, unsigned gsi, bool level)
{
	struct board *b = opaque;

	if (b->cfg.chips == BOARD_CHIPS_ENGINE) {
		b->cfg.irq_ops->set_gsi(b->cfg.opaque, gsi, level);
		return;
	}
	/* ISA IRQ 0 is GSI 2; no ISA device has GSI 0, and the 8259's own 2 is the cascade. */
	if (gsi == BOARD_GSI_PIT)
		pic_set_irq(&b->pic, BOARD_IRQ_PIT, level);
	else if (gsi && gsi < 16)
		pic_set_irq(&b->pic, gsi, level);
	ioapic_set_pin(&b->ioapic, gsi, level);
}

static int send_msi(void *opaque, uint64_t addr, uint32_t data)
{
	struct board *b = opaque;

	if (b->cfg.chips != BOARD_CHIPS_OWN)
		return b->cfg.irq_ops->msi(b->cfg.opaque, addr, data);
	return lapic_bus_msi(&b->lapics, addr, data);
}

static const struct irq_router_ops own_irq_ops = {.set_gsi = set_gsi, .msi = send_msi};

/* LINT0 of every processor hangs on the 8259s' INT, as in a PC's virtual-wire mode. */
static void pic_intr(void *opaque, bool level)
{
	struct board *b = opaque;

	__atomic_store_n(&b->pic_out, level, __ATOMIC_SEQ_CST);
	if (b->cfg.chips == BOARD_CHIPS_SPLIT)
		b->cfg.pic_intr(b->cfg.opaque);
	for (unsigned i = 0; b->cfg.chips == BOARD_CHIPS_OWN && i < b->lapics.count; i++)
		lapic_lint(&b->lapics.lapic[i], 0, level);
}

static void kick(void *opaque, unsigned cpu)
{
	struct board *b = opaque;

	b->cfg.lapic_ops->kick(b->cfg.opaque, cpu);
}

static void nmi(void *opaque, unsigned cpu)
{
	struct board *b = opaque;

	b->cfg.lapic_ops->nmi(b->cfg.opaque, cpu);
}

static void init(void *opaque, unsigned cpu)
{
	struct board *b = opaque;

	b->cfg.lapic_ops->init(b->cfg.opaque, cpu);
}

static void sipi(void *opaque, unsigned cpu, uint8_t vector)
{
	struct board *b = opaque;

	b->cfg.lapic_ops->sipi(b->cfg.opaque, cpu, vector);
}

static int extint_ack(void *opaque)
{
	struct board *b = opaque;

	if (b->cfg.lapic_ops->extint_ack)
		return b->cfg.lapic_ops->extint_ack(b->cfg.opaque);
	return pic_ack(&b->pic);
}

static void eoi(void *opaque, uint8_t vector)
{
	struct board *b = opaque;

	if (b->cfg.lapic_ops->eoi)
		b->cfg.lapic_ops->eoi(b->cfg.opaque, vector);
	else
		ioapic_eoi(&b->ioapic, vector);
}

static const struct lapic_ops board_lapic_ops = {
	.kick = kick,
	.nmi = nmi,
	.init = init,
	.sipi = sipi,
	.extint_ack = extint_ack,
	.eoi = eoi,
};

/* How each part comes up and goes down. */

static int bus_up(struct board *b)
{
	return bus_init(&b->bus);
}

static void bus_down(struct board *b)
{
	bus_finish(&b->bus);
}

static int router_up(struct board *b)
{
	return irq_router_init(&b->router, &own_irq_ops, b);
}

static void router_down(struct board *b)
{
	irq_router_finish(&b->router);
}

static int lapics_up(struct board *b)
{
	struct lapic_config cfg = {
		.ops = &board_lapic_ops,
		.opaque = b,
		.clock = b->cfg.clock,
		.count = b->cfg.cpus,
		.phys_bits = b->cfg.phys_bits,
		.x2apic = b->cfg.x2apic,
	};

	return lapic_bus_init(&b->lapics, &cfg);
}

static void lapics_down(struct board *b)
{
	lapic_bus_finish(&b->lapics);
}

static void lapics_reset(struct board *b)
{
	for (unsigned i = 0; i < b->lapics.count; i++)
		lapic_reset(&b->lapics.lapic[i], LAPIC_RESET_POWER_ON);
}

static int pic_up(struct board *b)
{
	return pic_init(&b->pic, pic_intr, b);
}

static void pic_down(struct board *b)
{
	pic_finish(&b->pic);
}

static void pic_again(struct board *b)
{
	pic_reset(&b->pic);
}

static int ioapic_up(struct board *b)
{
	return ioapic_init(&b->ioapic, &b->router, BOARD_IOAPIC_ID(b->cfg.cpus));
}

static void ioapic_down(struct board *b)
{
	ioapic_finish(&b->ioapic);
}

static void ioapic_again(struct board *b)
{
	ioapic_reset(&b->ioapic);
}

static int pit_up(struct board *b)
{
	struct irq_line line;

	irq_line_init(&line, &b->router, BOARD_GSI_PIT);
	return pit_init(&b->pit, b->cfg.clock, &line);
}

static void pit_down(struct board *b)
{
	pit_finish(&b->pit);
}

static void pit_again(struct board *b)
{
	pit_reset(&b->pit);
}

static int rtc_up(struct board *b)
{
	struct rtc_config cfg = {
		.clock = b->cfg.clock,
		.epoch_ns = b->cfg.epoch_ns,
		.ram_below_4g = b->cfg.ram_below_4g,
		.ram_above_4g = b->cfg.ram_above_4g,
		.cpus = b->cfg.cpus,
	};

	irq_line_init(&cfg.irq, &b->router, BOARD_GSI_RTC);
	return rtc_init(&b->rtc, &cfg);
}

static void rtc_down(struct board *b)
{
	rtc_finish(&b->rtc);
}

static void rtc_again(struct board *b)
{
	rtc_reset(&b->rtc);
}

static int com1_up(struct board *b)
{
	struct serial_config cfg = {
		.output = b->cfg.serial_output,
		.input_ready = b->cfg.serial_input_ready,
		.opaque = b->cfg.console_opaque,
		.clock = b->cfg.clock,
	};

	irq_line_init(&cfg.irq, &b->router, BOARD_GSI_COM1);
	return serial_init(&b->com1, &cfg);
}

static void com1_down(struct board *b)
{
	serial_finish(&b->com1);
}

static void com1_again(struct board *b)
{
	serial_reset(&b->com1);
}

static int acpi_pm_up(struct board *b)
{
	struct irq_line line;

	irq_line_init(&line, &b->router, BOARD_GSI_SCI);
	return acpi_pm_init(&b->acpi_pm, b->cfg.clock, &line, b->cfg.machine_ops, b->cfg.opaque);
}

static void acpi_pm_down(struct board *b)
{
	acpi_pm_finish(&b->acpi_pm);
}

static void acpi_pm_again(struct board *b)
{
	acpi_pm_reset(&b->acpi_pm);
}

static int simple_up(struct board *b)
{
	i8042_init(&b->i8042, b->cfg.machine_ops, b->cfg.opaque);
	debugexit_init(&b->debugexit, b->cfg.machine_ops, b->cfg.opaque);
	return 0;
}

static void simple_again(struct board *b)
{
	debugexit_reset(&b->debugexit);
}

static int debugcon_up(struct board *b)
{
	return debugcon_init(&b->debugcon, b->cfg.debugcon_output, b->cfg.console_opaque);
}

static void debugcon_down(struct board *b)
{
	debugcon_finish(&b->debugcon);
}

static void debugcon_again(struct board *b)
{
	debugcon_flush(&b->debugcon);
}

static int fw_cfg_up(struct board *b)
{
	uint64_t ram = b->cfg.ram_below_4g + b->cfg.ram_above_4g;
	int ret = fw_cfg_init(&b->fw_cfg);

	if (ret)
		return ret;
	/* These cannot fail: the keys are distinct and few. */
	fw_cfg_add(&b->fw_cfg, FW_CFG_SIGNATURE, 0x554d4551, 4);
	fw_cfg_add(&b->fw_cfg, FW_CFG_ID, 1, 4);
	fw_cfg_add(&b->fw_cfg, FW_CFG_RAM_SIZE, ram, 8);
	fw_cfg_add(&b->fw_cfg, FW_CFG_NB_CPUS, b->cfg.cpus, 2);
	fw_cfg_add(&b->fw_cfg, FW_CFG_MAX_CPUS, b->cfg.cpus, 2);
	return 0;
}

static void fw_cfg_down(struct board *b)
{
	fw_cfg_finish(&b->fw_cfg);
}

static void fw_cfg_again(struct board *b)
{
	fw_cfg_reset(&b->fw_cfg);
}

static int testdev_up(struct board *b)
{
	return testdev_init(&b->testdev, &b->router);
}

static void testdev_down(struct board *b)
{
	testdev_finish(&b->testdev);
}

static void testdev_again(struct board *b)
{
	testdev_reset(&b->testdev);
}

/* Where they answer. Ports that are not here, PCI's 0xcfc among them, read as ones. */
static const struct {
	enum bus_space space;
	uint64_t base, len;
	const struct bus_ops *ops;
	size_t dev; /* in struct board */
	bool test;  /* only with cfg.test_devices */
} map[] = {
#define AT(member) offsetof(struct board, member)
	{BUS_PIO, BOARD_PORT_PIC_MASTER, 2, &pic_master_ops, AT(pic), false},
	{BUS_PIO, BOARD_PORT_PIC_SLAVE, 2, &pic_slave_ops, AT(pic), false},
	{BUS_PIO, BOARD_PORT_ELCR, 2, &pic_elcr_ops, AT(pic), false},
	{BUS_PIO, BOARD_PORT_PIT, 4, &pit_ops, AT(pit), false},
	{BUS_PIO, BOARD_PORT_SPEAKER, 1, &pit_speaker_ops, AT(pit), false},
	{BUS_PIO, BOARD_PORT_I8042_DATA, 1, &i8042_data_ops, AT(i8042), false},
	{BUS_PIO, BOARD_PORT_I8042_CMD, 1, &i8042_command_ops, AT(i8042), false},
	{BUS_PIO, BOARD_PORT_SYSCTL, 1, &i8042_port92_ops, AT(i8042), false},
	{BUS_PIO, BOARD_PORT_RTC, 2, &rtc_ops, AT(rtc), false},
	{BUS_PIO, BOARD_PORT_DEBUGCON, 1, &debugcon_ops, AT(debugcon), false},
	{BUS_PIO, BOARD_PORT_COM1, SERIAL_PORTS, &serial_ops, AT(com1), false},
	{BUS_PIO, BOARD_PORT_FW_CFG, 2, &fw_cfg_ops, AT(fw_cfg), false},
	{BUS_PIO, BOARD_PORT_ACPI, ACPI_PM_PORTS, &acpi_pm_ops, AT(acpi_pm), false},
	{BUS_PIO, BOARD_PORT_RESET - 1, 4, &acpi_reset_ops, AT(acpi_pm), false},
	{BUS_MMIO, BOARD_IOAPIC_BASE, 0x1000, &ioapic_ops, AT(ioapic), false},
	{BUS_PIO, BOARD_PORT_DEBUG_EXIT, 4, &debugexit_ops, AT(debugexit), true},
	{BUS_PIO, BOARD_PORT_SHUTDOWN, 1, &shutdown_ops, AT(debugexit), true},
	{BUS_PIO, BOARD_PORT_TEST_LATCH, 4, &testdev_latch_ops, AT(testdev), true},
	{BUS_PIO, BOARD_PORT_TEST_FLUSH, 4, &testdev_flush_ops, AT(testdev), true},
	{BUS_PIO, BOARD_PORT_TEST_IRQ, IRQ_GSI_COUNT, &testdev_irq_ops, AT(testdev), true},
	{BUS_MMIO, BOARD_TEST_MMIO, TESTDEV_MMIO_SIZE, &testdev_mmio_ops, AT(testdev), true},
#undef AT
};

static int map_up(struct board *b)
{
	int ret = 0;

	for (size_t i = 0; i < ARRAY_SIZE(map) && !ret; i++) {
		struct bus_range r = {
			.base = map[i].base,
			.len = map[i].len,
			.ops = map[i].ops,
			.dev = (char *)b + map[i].dev,
		};

		if (!map[i].test || b->cfg.test_devices)
			ret = bus_register(&b->bus, map[i].space, &r);
	}
	return ret;
}

/* Sinks of interrupts before their sources; taken down, and reset, in the reverse order. */
static const struct {
	int (*up)(struct board *b);
	void (*down)(struct board *b);
	void (*reset)(struct board *b);
} parts[] = {
	{bus_up, bus_down, NULL},
	{router_up, router_down, NULL},
	{lapics_up, lapics_down, lapics_reset},
	{pic_up, pic_down, pic_again},
	{ioapic_up, ioapic_down, ioapic_again},
	{pit_up, pit_down, pit_again},
	{rtc_up, rtc_down, rtc_again},
	{com1_up, com1_down, com1_again},
	{acpi_pm_up, acpi_pm_down, acpi_pm_again},
	{simple_up, NULL, simple_again},
	{debugcon_up, debugcon_down, debugcon_again},
	{fw_cfg_up, fw_cfg_down, fw_cfg_again},
	{testdev_up, testdev_down, testdev_again},
	{map_up, NULL, NULL},
};

int board_create(const struct board_config *cfg, struct board **ret_board)
{
	struct board *b;

	if (!cfg->clock || !cfg->machine_ops || !cfg->lapic_ops || !cfg->serial_output)
		return -EINVAL;
	if (cfg->chips != BOARD_CHIPS_OWN && (!cfg->irq_ops || !cfg->pic_intr))
		return -EINVAL;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->cfg = *cfg;
	while (b->ready < ARRAY_SIZE(parts)) {
		int ret = parts[b->ready].up(b);

		if (ret) {
			board_destroy(b);
			return ret;
		}
		b->ready++;
	}
	board_set_chips(b, cfg->chips);
	*ret_board = b;
	return 0;
}

void board_destroy(struct board *b)
{
	if (!b)
		return;
	if (b->ready == ARRAY_SIZE(parts))
		board_flush(b);
	while (b->ready) {
		b->ready--;
		if (parts[b->ready].down)
			parts[b->ready].down(b);
	}
	free(b);
}

/* Sources first, so that their lines are where they belong when the controllers forget the past. */
void board_reset(struct board *b)
{
	for (size_t i = ARRAY_SIZE(parts); i-- > 0;)
		if (parts[i].reset)
			parts[i].reset(b);
}

void board_set_chips(struct board *b, enum board_chips chips)
{
	b->cfg.chips = chips;
	pit_set_passive(&b->pit, chips == BOARD_CHIPS_ENGINE);
	lapic_bus_set_passive(&b->lapics, chips != BOARD_CHIPS_OWN);
}

uint32_t board_irq_lines(struct board *b)
{
	uint32_t lines = 0;

	pthread_mutex_lock(&b->router.lock);
	for (unsigned gsi = 0; gsi < IRQ_GSI_COUNT; gsi++)
		lines |= (uint32_t) !!b->router.raised[gsi] << gsi;
	pthread_mutex_unlock(&b->router.lock);
	return lines;
}

void board_eoi(struct board *b, uint8_t vector)
{
	ioapic_eoi(&b->ioapic, vector);
}

void board_flush(struct board *b)
{
	serial_flush(&b->com1);
	debugcon_flush(&b->debugcon);
}

uint64_t board_mmio_read(struct board *b, unsigned cpu, gpa_t gpa, unsigned size)
{
	struct lapic *l = board_lapic(b, cpu);

	if (lapic_decodes(l, gpa))
		return lapic_mmio_read(l, gpa, size);
	return bus_read(&b->bus, BUS_MMIO, gpa, size);
}

void board_mmio_write(struct board *b, unsigned cpu, gpa_t gpa, unsigned size, uint64_t value)
{
	struct lapic *l = board_lapic(b, cpu);

	if (lapic_decodes(l, gpa))
		lapic_mmio_write(l, gpa, size, value);
	else
		bus_write(&b->bus, BUS_MMIO, gpa, size, value);
}
