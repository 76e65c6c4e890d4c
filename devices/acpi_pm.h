/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ACPI fixed hardware: PM1a blocks, PM timer, GPE0, power button, and the reset register 0xcf9. */
#ifndef UMBRA_DEVICES_ACPI_PM_H
#define UMBRA_DEVICES_ACPI_PM_H

#include <pthread.h>

#include "base/types.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"
#include "devices/machine.h"
#include "devices/state.h"

#define ACPI_PM_TIMER_HZ   3579545ull
#define ACPI_PM_TIMER_BITS 24 /* FADT: TMR_VAL_EXT is 0 */

/* The block of ports, as offsets from its base. */
#define ACPI_PM_EVT    0x00 /* status 2, enable 2 */
#define ACPI_PM_CNT    0x04 /* 2 */
#define ACPI_PM_TMR    0x08 /* 4 */
#define ACPI_PM_GPE0   0x20 /* status 2, enable 2 */
#define ACPI_PM_PORTS  0x24
#define ACPI_PM_SLP_S5 5 /* SLP_TYP for \_S5 */

#define ACPI_RESET_VALUE 0x06

struct acpi_pm_state {
	uint64_t timer_seen; /* ticks up to which TMR_STS is worked out */
	uint16_t pm1_sts, pm1_en, pm1_cnt;
	uint16_t gpe0_sts, gpe0_en;
	uint8_t reset; /* 4 ports from 0xcf8, of which 0xcf9 is it */
	uint8_t reserved[5];
};
extern const struct device_state_desc acpi_pm_state_desc;

struct acpi_pm {
	pthread_mutex_t lock;
	struct acpi_pm_state s;
	struct clock *clock;
	struct clock_timer timer;
	struct irq_line sci;
	const struct machine_ops *ops;
	void *opaque;
};

extern const struct bus_ops acpi_pm_ops;    /* ACPI_PM_PORTS ports; dev: struct acpi_pm */
extern const struct bus_ops acpi_reset_ops; /* 4 ports from 0xcf8, of which 0xcf9 is it */

int acpi_pm_init(struct acpi_pm *pm, struct clock *clock, const struct irq_line *sci,
		 const struct machine_ops *ops, void *opaque);
void acpi_pm_finish(struct acpi_pm *pm);
void acpi_pm_reset(struct acpi_pm *pm);
/* Press it. Returns whether the guest listens (PWRBTN_EN): false means it will not shut down. */
bool acpi_pm_power_button(struct acpi_pm *pm);
/* Raise a general-purpose event, 0..15. */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned bit);
void acpi_pm_save(struct acpi_pm *pm, struct acpi_pm_state *s);
int acpi_pm_load(struct acpi_pm *pm, const struct acpi_pm_state *s);

#endif
