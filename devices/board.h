/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The standard set of devices, wired as a PC's, and the numbers that firmware tables publish. */
#ifndef UMBRA_DEVICES_BOARD_H
#define UMBRA_DEVICES_BOARD_H

#include "base/types.h"
#include "devices/acpi_pm.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/debugcon.h"
#include "devices/debugexit.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/irq.h"
#include "devices/lapic.h"
#include "devices/machine.h"
#include "devices/pic.h"
#include "devices/pit.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/testdev.h"

/* Ports */
#define BOARD_PORT_PIC_MASTER 0x20
#define BOARD_PORT_PIT	      0x40
#define BOARD_PORT_I8042_DATA 0x60
#define BOARD_PORT_SPEAKER    0x61
#define BOARD_PORT_I8042_CMD  0x64
#define BOARD_PORT_RTC	      0x70
#define BOARD_PORT_POST	      0x80 /* nobody answers; Linux writes there to pass time */
#define BOARD_PORT_SYSCTL     0x92
#define BOARD_PORT_PIC_SLAVE  0xa0
#define BOARD_PORT_TEST_LATCH 0xe0
#define BOARD_PORT_TEST_FLUSH 0xe4
#define BOARD_PORT_DEBUGCON   0xe9
#define BOARD_PORT_DEBUG_EXIT 0xf4
#define BOARD_PORT_COM1	      0x3f8
#define BOARD_PORT_ELCR	      0x4d0
#define BOARD_PORT_FW_CFG     0x510
#define BOARD_PORT_ACPI	      0x600
#define BOARD_PORT_RESET      0xcf9 /* FADT RESET_REG; value ACPI_RESET_VALUE */
#define BOARD_PORT_TEST_IRQ   0x2000
#define BOARD_PORT_SHUTDOWN   0x8900

/* FADT */
#define BOARD_PM1A_EVT	   (BOARD_PORT_ACPI + ACPI_PM_EVT)  /* 0x600, 4 bytes */
#define BOARD_PM1A_CNT	   (BOARD_PORT_ACPI + ACPI_PM_CNT)  /* 0x604, 2 bytes */
#define BOARD_PM_TMR	   (BOARD_PORT_ACPI + ACPI_PM_TMR)  /* 0x608, 4 bytes, 24 bits */
#define BOARD_GPE0	   (BOARD_PORT_ACPI + ACPI_PM_GPE0) /* 0x620, 4 bytes */
#define BOARD_SLP_TYP_S5   ACPI_PM_SLP_S5
#define BOARD_CMOS_CENTURY 0x32

/* MMIO */
#define BOARD_IOAPIC_BASE 0xfec00000ull
#define BOARD_LAPIC_BASE  LAPIC_DEFAULT_BASE
#define BOARD_TEST_MMIO	  0xff000000ull

/* ISA interrupts, and where they differ, their GSIs. SCI: level, active high in the MADT. */
#define BOARD_IRQ_PIT	      0
#define BOARD_IRQ_COM1	      4
#define BOARD_IRQ_RTC	      8
#define BOARD_IRQ_SCI	      9
#define BOARD_GSI_PIT	      2
#define BOARD_GSI_COM1	      4
#define BOARD_GSI_RTC	      8
#define BOARD_GSI_SCI	      9
#define BOARD_GSI_VIRTIO      16     /* first of 8 that no ISA device has */
#define BOARD_IOAPIC_ID(cpus) (cpus) /* the first id after the local APICs' */

/*
 * Whose the interrupt controllers are. What is not the board's own is passive here: it keeps the
 * saved state's form and checks it on loading, but nothing happens by it.
 */
enum board_chips {
	BOARD_CHIPS_OWN,
	BOARD_CHIPS_SPLIT,  /* the local APICs are somebody else's */
	BOARD_CHIPS_ENGINE, /* and the I/O APIC, the 8259s and the PIT */
};

struct board_config {
	struct clock *clock; /* borrowed */
	unsigned cpus;
	uint8_t phys_bits;
	bool x2apic;
	bool test_devices; /* 0xe0.., 0xf4, 0x8900, 0x2000.., 0xff000000 */
	uint64_t ram_below_4g, ram_above_4g;
	int64_t epoch_ns; /* Unix time when the clock is 0 */

	const struct machine_ops *machine_ops;
	const struct lapic_ops *lapic_ops; /* extint_ack and eoi may be NULL: the board's own */
	enum board_chips chips;
	/* Who takes messages, and with BOARD_CHIPS_ENGINE lines, where they are not taken here. */
	const struct irq_router_ops *irq_ops;
	/* BOARD_CHIPS_SPLIT: board_pic_pending() has changed. Any thread, device locks are held. */
	void (*pic_intr)(void *opaque);
	void *opaque; /* for the four above */

	void (*serial_output)(void *opaque, const uint8_t *data, size_t len);
	void (*serial_input_ready)(void *opaque);				/* may be NULL */
	void (*debugcon_output)(void *opaque, const uint8_t *data, size_t len); /* may be NULL */
	void *console_opaque;
};

struct board {
	struct board_config cfg;
	struct bus bus;
	struct irq_router router;
	struct lapic_bus lapics;
	struct pic pic;
	struct ioapic ioapic;
	struct pit pit;
	struct rtc rtc;
	struct serial com1;
	struct acpi_pm acpi_pm;
	struct i8042 i8042;
	struct debugexit debugexit;
	struct debugcon debugcon;
	struct fw_cfg fw_cfg;
	struct testdev testdev;
	bool pic_out;	/* atomic: INT of the master 8259 */
	unsigned ready; /* how many of the init list are up */
};

/* 0, -EINVAL or -ENOMEM. */
int board_create(const struct board_config *cfg, struct board **ret_board);
/* The vCPUs and the clock's loop have ended. */
void board_destroy(struct board *b);
/* As at power-on; vCPUs stopped. Wall time and CMOS survive. */
void board_reset(struct board *b);
/* Hand over all gathered console output. Call before the machine's end is announced. */
void board_flush(struct board *b);

static inline struct lapic *board_lapic(struct board *b, unsigned cpu)
{
	return &b->lapics.lapic[cpu];
}

/*
 * Other controllers from now on; vCPUs and the clock stopped. Whoever becomes the owner is to be
 * loaded with their state next.
 */
void board_set_chips(struct board *b, enum board_chips chips);
/* The GSIs that devices hold high. */
uint32_t board_irq_lines(struct board *b);
/* BOARD_CHIPS_SPLIT: do the 8259s ask for an interrupt? Cheap; any thread. */
static inline bool board_pic_pending(const struct board *b)
{
	return __atomic_load_n(&b->pic_out, __ATOMIC_SEQ_CST);
}
/* A local APIC that is not ours has ended the level-triggered interrupt @vector. */
void board_eoi(struct board *b, uint8_t vector);

/* Accesses of a vCPU, on its thread. MMIO knows the vCPU's own APIC page. */
static inline uint64_t board_pio_read(struct board *b, uint16_t port, unsigned size)
{
	return bus_read(&b->bus, BUS_PIO, port, size);
}
static inline void board_pio_write(struct board *b, uint16_t port, unsigned size, uint64_t value)
{
	bus_write(&b->bus, BUS_PIO, port, size, value);
}
uint64_t board_mmio_read(struct board *b, unsigned cpu, gpa_t gpa, unsigned size);
void board_mmio_write(struct board *b, unsigned cpu, gpa_t gpa, unsigned size, uint64_t value);

/*
 * The saved state: one row a device (a local APIC each vCPU), clock first, in the order of loading.
 * @save fills desc->size bytes; @load gives 0 or -EINVAL. Both want them aligned to 8.
 */
struct board_state_row {
	const struct device_state_desc *desc;
	unsigned instance;
	void *dev;
	void (*save)(void *dev, void *state);
	int (*load)(void *dev, const void *state);
};
/* Fills row @i; -ENOENT past the last. */
int board_state_row(struct board *b, unsigned i, struct board_state_row *ret_row);

#endif
