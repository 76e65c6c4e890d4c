/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The board's saved state as rows: one way to call every device's save and load. */
#include "devices/board.h"

#include <errno.h>

static void save_clock(void *dev, void *state)
{
	clock_save(dev, state);
}

static int load_clock(void *dev, const void *state)
{
	return clock_load(dev, state);
}

static void save_pit(void *dev, void *state)
{
	pit_save(dev, state);
}

static int load_pit(void *dev, const void *state)
{
	return pit_load(dev, state);
}

static void save_rtc(void *dev, void *state)
{
	rtc_save(dev, state);
}

static int load_rtc(void *dev, const void *state)
{
	return rtc_load(dev, state);
}

static void save_serial(void *dev, void *state)
{
	serial_save(dev, state);
}

static int load_serial(void *dev, const void *state)
{
	return serial_load(dev, state);
}

static void save_acpi_pm(void *dev, void *state)
{
	acpi_pm_save(dev, state);
}

static int load_acpi_pm(void *dev, const void *state)
{
	return acpi_pm_load(dev, state);
}

static void save_debugexit(void *dev, void *state)
{
	debugexit_save(dev, state);
}

static int load_debugexit(void *dev, const void *state)
{
	return debugexit_load(dev, state);
}

static void save_fw_cfg(void *dev, void *state)
{
	fw_cfg_save(dev, state);
}

static int load_fw_cfg(void *dev, const void *state)
{
	return fw_cfg_load(dev, state);
}

static void save_testdev(void *dev, void *state)
{
	testdev_save(dev, state);
}

static int load_testdev(void *dev, const void *state)
{
	return testdev_load(dev, state);
}

static void save_pic(void *dev, void *state)
{
	pic_save(dev, state);
}

static int load_pic(void *dev, const void *state)
{
	return pic_load(dev, state);
}

static void save_ioapic(void *dev, void *state)
{
	ioapic_save(dev, state);
}

static int load_ioapic(void *dev, const void *state)
{
	return ioapic_load(dev, state);
}

static void save_lapic(void *dev, void *state)
{
	lapic_save(dev, state);
}

static int load_lapic(void *dev, const void *state)
{
	return lapic_load(dev, state);
}

struct row {
	const struct device_state_desc *desc;
	size_t dev; /* in struct board */
	void (*save)(void *dev, void *state);
	int (*load)(void *dev, const void *state);
};

/*
 * Sources of interrupts before the controllers, in saving as in loading: what a source still has to
 * deliver when it is saved, or sets off while it is loaded, must not change what is in the
 * controllers' state.
 */
static const struct row rows[] = {
#define AT(member) offsetof(struct board, member)
	{&pit_state_desc, AT(pit), save_pit, load_pit},
	{&rtc_state_desc, AT(rtc), save_rtc, load_rtc},
	{&serial_state_desc, AT(com1), save_serial, load_serial},
	{&acpi_pm_state_desc, AT(acpi_pm), save_acpi_pm, load_acpi_pm},
	{&debugexit_state_desc, AT(debugexit), save_debugexit, load_debugexit},
	{&fw_cfg_state_desc, AT(fw_cfg), save_fw_cfg, load_fw_cfg},
	{&testdev_state_desc, AT(testdev), save_testdev, load_testdev},
	{&pic_state_desc, AT(pic), save_pic, load_pic},
	{&ioapic_state_desc, AT(ioapic), save_ioapic, load_ioapic},
#undef AT
};

int board_state_row(struct board *b, unsigned i, struct board_state_row *ret_row)
{
	unsigned lapic;

	if (i == 0) {
		*ret_row = (struct board_state_row){&clock_state_desc, 0, b->cfg.clock, save_clock,
						    load_clock};
		return 0;
	}
	if (--i < ARRAY_SIZE(rows)) {
		*ret_row = (struct board_state_row){rows[i].desc, 0, (char *)b + rows[i].dev,
						    rows[i].save, rows[i].load};
		return 0;
	}
	lapic = i - (unsigned)ARRAY_SIZE(rows);
	if (lapic >= b->lapics.count)
		return -ENOENT;
	*ret_row = (struct board_state_row){&lapic_state_desc, lapic, board_lapic(b, lapic),
					    save_lapic, load_lapic};
	return 0;
}
