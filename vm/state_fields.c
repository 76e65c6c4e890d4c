/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The devices' sections of the saved state, field by field, for whoever compares two of them. */
#include <string.h>

#include "devices/board.h"
#include "vm/state.h"

#define SIZE_OF(type, member) sizeof(((struct type *)0)->member)
#define ONE(type, member)                                                                          \
	{                                                                                          \
#member, offsetof(struct type, member), SIZE_OF(type, member),                     \
			SIZE_OF(type, member), 1                                                   \
	}
#define EACH(type, member)                                                                         \
	{                                                                                          \
#member, offsetof(struct type, member), SIZE_OF(type, member[0]),                  \
			SIZE_OF(type, member[0]), SIZE_OF(type, member) / SIZE_OF(type, member[0]) \
	}
/* A member of each struct of an array. */
#define EVERY(type, array, member)                                                                 \
	{                                                                                          \
#array "." #member, offsetof(struct type, array[0].member),                        \
			SIZE_OF(type, array[0].member), SIZE_OF(type, array[0]),                   \
			SIZE_OF(type, array) / SIZE_OF(type, array[0])                             \
	}

#define CLOCK(m) ONE(clock_state, m)
static const struct state_field clock_fields[] = {CLOCK(now_ns), CLOCK(tsc_hz)};

#define PIT(m) EVERY(pit_state, counter, m)
static const struct state_field pit_fields[] = {
	PIT(start),
	PIT(held),
	PIT(count),
	PIT(next_count),
	PIT(latched),
	PIT(mode),
	PIT(rw),
	PIT(bcd),
	PIT(gate),
	PIT(running),
	PIT(counting),
	PIT(write_lsb),
	PIT(write_second),
	PIT(read_second),
	PIT(latched_bytes),
	PIT(status_latched),
	PIT(status),
	ONE(pit_state, fired),
	ONE(pit_state, port61),
};

#define RTC(m) ONE(rtc_state, m)
static const struct state_field rtc_fields[] = {
	RTC(epoch_ns), RTC(seen_ns), RTC(periodic_base), EACH(rtc_state, cmos), RTC(index),
};

#define SERIAL(m) ONE(serial_state, m)
static const struct state_field serial_fields[] = {
	SERIAL(ier),	 SERIAL(iir_thre),	 SERIAL(fcr),	 SERIAL(lcr),
	SERIAL(mcr),	 SERIAL(msr_delta),	 SERIAL(scr),	 SERIAL(lsr_error),
	SERIAL(divisor), EACH(serial_state, rx), SERIAL(rx_len), SERIAL(rx_timeout),
};

#define PM(m) ONE(acpi_pm_state, m)
static const struct state_field acpi_pm_fields[] = {
	PM(timer_seen), PM(pm1_sts), PM(pm1_en), PM(pm1_cnt), PM(gpe0_sts), PM(gpe0_en), PM(reset),
};

static const struct state_field debugexit_fields[] = {ONE(debugexit_state, matched)};

static const struct state_field fw_cfg_fields[] = {ONE(fw_cfg_state, key),
						   ONE(fw_cfg_state, offset)};

static const struct state_field testdev_fields[] = {
	ONE(testdev_state, latch), ONE(testdev_state, lines), EACH(testdev_state, mmio)};

#define CHIP(m) EVERY(pic_state, chip, m)
static const struct state_field pic_fields[] = {
	CHIP(irr),	 CHIP(isr),	     CHIP(imr),		CHIP(lines),
	CHIP(elcr),	 CHIP(lowest),	     CHIP(icw2),	CHIP(icw4),
	CHIP(init_step), CHIP(need_icw4),    CHIP(single),	CHIP(read_isr),
	CHIP(poll),	 CHIP(special_mask), CHIP(rotate_aeoi), CHIP(output),
};

static const struct state_field ioapic_fields[] = {
	EACH(ioapic_state, rte),
	ONE(ioapic_state, lines),
	ONE(ioapic_state, select),
	ONE(ioapic_state, id),
};

#define APIC(m) ONE(lapic_state, m)
static const struct state_field lapic_fields[] = {
	APIC(base),
	APIC(tsc_deadline),
	APIC(expire_ns),
	APIC(icr),
	APIC(tsc_offset),
	APIC(id),
	APIC(ldr),
	APIC(dfr),
	APIC(svr),
	APIC(tpr),
	APIC(esr),
	APIC(esr_pending),
	EACH(lapic_state, lvt),
	APIC(initial_count),
	APIC(divide),
	EACH(lapic_state, irr),
	EACH(lapic_state, isr),
	EACH(lapic_state, tmr),
	APIC(lint),
};

static const struct {
	const struct device_state_desc *desc;
	const struct state_field *fields;
	unsigned count;
} devices[] = {
#define ROW(name)                                                                                  \
	{                                                                                          \
		&name##_state_desc, name##_fields, ARRAY_SIZE(name##_fields)                       \
	}
	ROW(clock),  ROW(pit),	   ROW(rtc), ROW(serial), ROW(acpi_pm), ROW(debugexit),
	ROW(fw_cfg), ROW(testdev), ROW(pic), ROW(ioapic), ROW(lapic),
#undef ROW
};

unsigned state_device_fields(const char *name, struct state_field out[STATE_FIELDS_MAX])
{
	for (unsigned n = 0; n < ARRAY_SIZE(devices); n++) {
		if (strcmp(devices[n].desc->name, name) != 0)
			continue;
		memcpy(out, devices[n].fields, devices[n].count * sizeof(*out));
		return devices[n].count;
	}
	return 0;
}
