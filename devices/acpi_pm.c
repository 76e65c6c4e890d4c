/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ACPI fixed hardware (ACPI 6.5, 4.8). The machine is always in ACPI mode: SCI_EN reads 1. */
#include "devices/acpi_pm.h"

#include <errno.h>
#include <string.h>

#define PM1_TMR	   BIT(0)
#define PM1_PWRBTN BIT(8)
#define PM1_STS	   0x8731u /* what a 1 clears */
#define PM1_EN	   0x0521u
#define CNT_SCI_EN BIT(0)
#define CNT_KEPT   0x1c06u /* SLP_TYP, GBL_RLS, BM_RLD */
#define CNT_SLP_EN BIT(13)

#define RESET_CPU BIT(2)

const struct device_state_desc acpi_pm_state_desc = {"acpi-pm", 1, sizeof(struct acpi_pm_state)};

/* TMR_STS comes up whenever the counter's top bit changes. */
#define HALF_TURN (1ull << (ACPI_PM_TIMER_BITS - 1))

static uint64_t ticks_now(const struct acpi_pm *pm)
{
	return clock_ns_to_ticks(clock_now(pm->clock), ACPI_PM_TIMER_HZ);
}

/* Status, SCI and timer. Locked. */
static void serve(struct acpi_pm *pm)
{
	uint64_t now = ticks_now(pm), next = CLOCK_NEVER;

	if (now / HALF_TURN != pm->s.timer_seen / HALF_TURN)
		pm->s.pm1_sts |= PM1_TMR;
	pm->s.timer_seen = now;
	irq_set(&pm->sci,
		(pm->s.pm1_sts & pm->s.pm1_en & PM1_EN) || (pm->s.gpe0_sts & pm->s.gpe0_en));
	if ((pm->s.pm1_en & PM1_TMR) && !(pm->s.pm1_sts & PM1_TMR))
		next = clock_ticks_to_ns((now / HALF_TURN + 1) * HALF_TURN, ACPI_PM_TIMER_HZ);
	clock_timer_arm(&pm->timer, next);
}

static void fire(void *opaque)
{
	struct acpi_pm *pm = opaque;

	pthread_mutex_lock(&pm->lock);
	serve(pm);
	pthread_mutex_unlock(&pm->lock);
}

static uint32_t timer_value(const struct acpi_pm *pm)
{
	return (uint32_t)(ticks_now(pm) & (BIT(ACPI_PM_TIMER_BITS) - 1));
}

/* The 16-bit register that holds the byte at @offset, or NULL. */
static uint16_t *reg_at(struct acpi_pm *pm, uint64_t offset)
{
	switch (offset & ~1ull) {
	case ACPI_PM_EVT: return &pm->s.pm1_sts;
	case ACPI_PM_EVT + 2: return &pm->s.pm1_en;
	case ACPI_PM_CNT: return &pm->s.pm1_cnt;
	case ACPI_PM_GPE0: return &pm->s.gpe0_sts;
	case ACPI_PM_GPE0 + 2: return &pm->s.gpe0_en;
	default: return NULL;
	}
}

static uint64_t pm_read(void *dev, uint64_t offset, unsigned size)
{
	struct acpi_pm *pm = dev;
	uint64_t value = 0;

	/* Timers are polled a lot, and have no state to guard. */
	if (offset >= ACPI_PM_TMR && offset < ACPI_PM_TMR + 4)
		return timer_value(pm) >> (offset - ACPI_PM_TMR) * 8;
	pthread_mutex_lock(&pm->lock);
	serve(pm);
	for (unsigned i = 0; i < size; i++) {
		const uint16_t *reg = reg_at(pm, offset + i);
		uint16_t word = reg ? *reg : 0;

		if (reg == &pm->s.pm1_cnt)
			word |= CNT_SCI_EN;
		value |= (uint64_t)(word >> (offset + i) % 2 * 8 & 0xff) << i * 8;
	}
	pthread_mutex_unlock(&pm->lock);
	return value;
}

static void write_byte(struct acpi_pm *pm, uint64_t offset, uint8_t byte)
{
	unsigned shift = offset % 2 * 8;
	uint16_t *reg = reg_at(pm, offset), bits = (uint16_t)(byte << shift);

	if (!reg)
		return;
	if (reg == &pm->s.pm1_sts)
		*reg &= ~(bits & PM1_STS);
	else if (reg == &pm->s.gpe0_sts)
		*reg &= ~bits;
	else
		*reg = (uint16_t)((*reg & ~(0xff << shift)) | bits);
}

static void pm_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct acpi_pm *pm = dev;
	bool off;

	pthread_mutex_lock(&pm->lock);
	serve(pm);
	for (unsigned i = 0; i < size; i++)
		write_byte(pm, offset + i, (uint8_t)(value >> i * 8));
	/* Of all sleeps there is only S5; the others' types do nothing. */
	off = (pm->s.pm1_cnt & CNT_SLP_EN) && (pm->s.pm1_cnt >> 10 & 7) == ACPI_PM_SLP_S5;
	pm->s.pm1_cnt &= CNT_KEPT;
	pm->s.pm1_en &= PM1_EN;
	serve(pm);
	pthread_mutex_unlock(&pm->lock);
	if (off)
		pm->ops->poweroff(pm->opaque);
}

/*
 * The register is the byte 0xcf9 alone. Wider accesses there are for PCI's configuration address,
 * which is absent, and must not look like a reset.
 */
static bool is_reset_register(uint64_t offset, unsigned size)
{
	return offset == 1 && size == 1;
}

static uint64_t reset_read(void *dev, uint64_t offset, unsigned size)
{
	struct acpi_pm *pm = dev;
	uint8_t value;

	if (!is_reset_register(offset, size))
		return bus_ones(size);
	pthread_mutex_lock(&pm->lock);
	value = pm->s.reset;
	pthread_mutex_unlock(&pm->lock);
	return value;
}

/* A rising RST_CPU resets, whether SYS_RST (bit 1) asks for a hard one or not. */
static void reset_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct acpi_pm *pm = dev;
	bool reset;

	if (!is_reset_register(offset, size))
		return;
	pthread_mutex_lock(&pm->lock);
	reset = (value & RESET_CPU) && !(pm->s.reset & RESET_CPU);
	pm->s.reset = value & 0x0e;
	pthread_mutex_unlock(&pm->lock);
	if (reset)
		pm->ops->reset(pm->opaque);
}

const struct bus_ops acpi_pm_ops = {pm_read, pm_write, 1 | 2 | 4};
const struct bus_ops acpi_reset_ops = {reset_read, reset_write, 1 | 2 | 4};

bool acpi_pm_power_button(struct acpi_pm *pm)
{
	bool heard;

	pthread_mutex_lock(&pm->lock);
	pm->s.pm1_sts |= PM1_PWRBTN;
	heard = pm->s.pm1_en & PM1_PWRBTN;
	serve(pm);
	pthread_mutex_unlock(&pm->lock);
	return heard;
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned bit)
{
	pthread_mutex_lock(&pm->lock);
	pm->s.gpe0_sts |= (uint16_t)BIT(bit & 15);
	serve(pm);
	pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_reset(struct acpi_pm *pm)
{
	pthread_mutex_lock(&pm->lock);
	pm->s = (struct acpi_pm_state){.timer_seen = ticks_now(pm)};
	serve(pm);
	pthread_mutex_unlock(&pm->lock);
}

int acpi_pm_init(struct acpi_pm *pm, struct clock *clock, const struct irq_line *sci,
		 const struct machine_ops *ops, void *opaque)
{
	int ret;

	memset(pm, 0, sizeof(*pm));
	pm->clock = clock;
	pm->sci = *sci;
	pm->ops = ops;
	pm->opaque = opaque;
	ret = -pthread_mutex_init(&pm->lock, NULL);
	if (ret)
		return ret;
	ret = clock_timer_init(clock, &pm->timer, fire, pm);
	if (ret) {
		pthread_mutex_destroy(&pm->lock);
		return ret;
	}
	acpi_pm_reset(pm);
	return 0;
}

void acpi_pm_finish(struct acpi_pm *pm)
{
	clock_timer_finish(&pm->timer);
	pthread_mutex_destroy(&pm->lock);
}

void acpi_pm_save(struct acpi_pm *pm, struct acpi_pm_state *s)
{
	pthread_mutex_lock(&pm->lock);
	serve(pm);
	*s = pm->s;
	pthread_mutex_unlock(&pm->lock);
}

int acpi_pm_load(struct acpi_pm *pm, const struct acpi_pm_state *s)
{
	if ((s->pm1_sts & ~PM1_STS) || (s->pm1_en & ~PM1_EN) || (s->pm1_cnt & ~CNT_KEPT) ||
	    (s->reset & ~0x0e) || s->timer_seen > ticks_now(pm))
		return -EINVAL;
	pthread_mutex_lock(&pm->lock);
	pm->s = *s;
	serve(pm);
	pthread_mutex_unlock(&pm->lock);
	return 0;
}
