/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ACPI tables. Layouts: ACPI 6.4, chapter 5.2. */
#include "vm/acpi.h"

#include <errno.h>
#include <string.h>

#include "devices/board.h"
#include "vm/acpi_aml.h"
#include "vm/checksum.h"

#define PACKED __attribute__((packed))

struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem_id[6], oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} PACKED;

struct acpi_rsdp {
	char signature[8];
	uint8_t checksum; /* of the first 20 bytes */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt, length;
	uint64_t xsdt;
	uint8_t extended_checksum, reserved[3];
} PACKED;

struct acpi_gas {
	uint8_t space, bits, offset, access;
	uint64_t address;
} PACKED;

struct acpi_fadt {
	struct acpi_header h;
	uint32_t facs, dsdt;
	uint8_t reserved0, profile;
	uint16_t sci_int;
	uint32_t smi_cmd;
	uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	uint32_t pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base;
	uint8_t cst_cnt;
	uint16_t c2_latency, c3_latency, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
	uint16_t boot_arch;
	uint8_t reserved1;
	uint32_t flags;
	struct acpi_gas reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor;
	uint64_t x_facs, x_dsdt;
	struct acpi_gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe0;
	struct acpi_gas x_gpe1, sleep_control, sleep_status;
	uint64_t hypervisor_id;
} PACKED;

struct acpi_facs {
	char signature[4];
	uint32_t length, hardware_signature, waking_vector, global_lock, flags;
	uint64_t x_waking_vector;
	uint8_t version, reserved[31];
} PACKED;

struct madt_lapic {
	uint8_t type, length, uid, apic_id;
	uint32_t flags;
} PACKED;

struct madt_ioapic {
	uint8_t type, length, id, reserved;
	uint32_t address, gsi_base;
} PACKED;

struct madt_override {
	uint8_t type, length, bus, source;
	uint32_t gsi;
	uint16_t flags;
} PACKED;

struct madt_nmi {
	uint8_t type, length, uid;
	uint16_t flags;
	uint8_t lint;
} PACKED;

struct madt_x2apic {
	uint8_t type, length;
	uint16_t reserved;
	uint32_t apic_id, flags, uid;
} PACKED;

struct madt_x2apic_nmi {
	uint8_t type, length;
	uint16_t flags;
	uint32_t uid;
	uint8_t lint, reserved[3];
} PACKED;

static_assert(sizeof(struct acpi_header) == 36 && sizeof(struct acpi_rsdp) == 36 &&
		      sizeof(struct acpi_fadt) == 276 && sizeof(struct acpi_facs) == 64,
	      "the layouts are the specification's");

#define FADT_WBINVD	  BIT(0)
#define FADT_PROC_C1	  BIT(2)
#define FADT_SLP_BUTTON	  BIT(5) /* no fixed sleep button; the power button is fixed */
#define FADT_RESET_REG	  BIT(10)
#define BOOT_LEGACY	  BIT(0) /* devices on ISA that no probe finds: COM1, RTC */
#define BOOT_NO_VGA	  BIT(2)
#define MADT_PCAT	  BIT(0) /* there are two 8259s as well */
#define MADT_ENABLED	  BIT(0)
#define INTI_LEVEL_HIGH	  0xd
#define XAPIC_IDS	  255 /* from here on, ids need the x2APIC's entries */
#define GAS_IO		  1
#define LATENCY_NONE(min) ((min) + 1) /* above the limit: the state does not exist */

static size_t table_begin(struct buf *b, const char *signature, uint8_t revision)
{
	struct acpi_header h = {
		.revision = revision,
		.oem_id = {'U', 'M', 'B', 'R', 'A', ' '},
		.oem_table_id = {'U', 'M', 'B', 'R', 'A', 'V', 'M', ' '},
		.oem_revision = 1,
		.creator_id = {'U', 'M', 'B', 'R'},
		.creator_revision = 1,
	};
	static const uint8_t zeros[16];
	size_t at;

	buf_append(b, zeros, -b->len & 15);
	at = b->len;
	memcpy(h.signature, signature, 4);
	buf_append(b, &h, sizeof(h));
	return at;
}

static void table_end(struct buf *b, size_t at)
{
	struct acpi_header *h;

	if (b->failed)
		return;
	h = (struct acpi_header *)(b->data + at);
	h->length = (uint32_t)(b->len - at);
	h->checksum = checksum8(h, b->len - at);
}

static void add_facs(struct buf *b)
{
	struct acpi_facs f = {.signature = {'F', 'A', 'C', 'S'}, .length = sizeof(f), .version = 2};

	buf_append(b, &f, sizeof(f));
}

static void add_device(struct buf *b, const char *name, const char *hid, uint16_t port,
		       uint8_t ports, unsigned irq)
{
	size_t dev = aml_device_begin(b, name), crs;

	aml_name(b, "_HID");
	aml_eisaid(b, hid);
	aml_name(b, "_UID");
	aml_integer(b, 1);
	aml_name(b, "_CRS");
	crs = aml_resources_begin(b);
	aml_io(b, port, ports);
	aml_irq(b, irq);
	aml_resources_end(b, crs);
	aml_end(b, dev);
}

static size_t add_dsdt(struct buf *b)
{
	size_t at = table_begin(b, "DSDT", 2), scope, pkg;

	aml_name(b, "_S5_");
	pkg = aml_package_begin(b, 4);
	aml_integer(b, BOARD_SLP_TYP_S5);
	aml_integer(b, BOARD_SLP_TYP_S5);
	aml_integer(b, 0);
	aml_integer(b, 0);
	aml_end(b, pkg);
	scope = aml_scope_begin(b, "\\_SB_");
	add_device(b, "COM1", "PNP0501", BOARD_PORT_COM1, 8, BOARD_IRQ_COM1);
	add_device(b, "RTC_", "PNP0B00", BOARD_PORT_RTC, 2, BOARD_IRQ_RTC);
	aml_end(b, scope);
	table_end(b, at);
	return at;
}

static struct acpi_gas gas(uint16_t port, uint8_t bytes)
{
	/* Access sizes: 1 is a byte, 2 a word, 3 four bytes. Event and GPE blocks are accessed by
	 * halves. */
	return (struct acpi_gas){GAS_IO, (uint8_t)(bytes * 8), 0, bytes == 1 ? 1 : 2, port};
}

static size_t add_fadt(struct buf *b, gpa_t facs, gpa_t dsdt)
{
	size_t at = table_begin(b, "FACP", 6);
	struct acpi_fadt f = {
		.facs = (uint32_t)facs,
		.dsdt = (uint32_t)dsdt,
		.profile = 4, /* enterprise server */
		.sci_int = BOARD_GSI_SCI,
		/* No SMI command: the machine is in ACPI mode from the start. */
		.pm1a_evt = BOARD_PM1A_EVT,
		.pm1a_cnt = BOARD_PM1A_CNT,
		.pm_tmr = BOARD_PM_TMR,
		.gpe0 = BOARD_GPE0,
		.pm1_evt_len = 4,
		.pm1_cnt_len = 2,
		.pm_tmr_len = 4,
		.gpe0_len = 4,
		.c2_latency = LATENCY_NONE(100),
		.c3_latency = LATENCY_NONE(1000),
		.century = BOARD_CMOS_CENTURY,
		.boot_arch = BOOT_LEGACY | BOOT_NO_VGA,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_RESET_REG,
		.reset_reg = gas(BOARD_PORT_RESET, 1),
		.reset_value = ACPI_RESET_VALUE,
		/* The FACS has one address only, by the specification; the DSDT has both. */
		.x_dsdt = dsdt,
		.x_pm1a_evt = gas(BOARD_PM1A_EVT, 4),
		.x_pm1a_cnt = gas(BOARD_PM1A_CNT, 2),
		.x_pm_tmr = gas(BOARD_PM_TMR, 4),
		.x_gpe0 = gas(BOARD_GPE0, 4),
	};

	f.x_pm_tmr.access = 3;
	buf_append(b, (char *)&f + sizeof(f.h), sizeof(f) - sizeof(f.h));
	table_end(b, at);
	return at;
}

static void add_processors(struct buf *b, unsigned cpus)
{
	unsigned i;

	for (i = 0; i < cpus; i++) {
		struct madt_lapic l = {0, sizeof(l), (uint8_t)i, (uint8_t)i, MADT_ENABLED};
		struct madt_x2apic x = {9, sizeof(x), 0, i, MADT_ENABLED, i};

		if (i < XAPIC_IDS)
			buf_append(b, &l, sizeof(l));
		else
			buf_append(b, &x, sizeof(x));
	}
}

static size_t add_madt(struct buf *b, unsigned cpus)
{
	size_t at = table_begin(b, "APIC", 5);
	uint32_t head[2] = {(uint32_t)BOARD_LAPIC_BASE, MADT_PCAT};
	struct madt_ioapic io = {
		1, sizeof(io), (uint8_t)BOARD_IOAPIC_ID(cpus), 0, (uint32_t)BOARD_IOAPIC_BASE, 0};
	struct madt_override pit = {2, sizeof(pit), 0, BOARD_IRQ_PIT, BOARD_GSI_PIT, 0};
	struct madt_override sci = {
		2, sizeof(sci), 0, BOARD_IRQ_SCI, BOARD_GSI_SCI, INTI_LEVEL_HIGH};
	struct madt_nmi nmi = {4, sizeof(nmi), 0xff, 0, 1};
	struct madt_x2apic_nmi xnmi = {10, sizeof(xnmi), 0, ~0u, 1, {0}};

	buf_append(b, head, sizeof(head));
	add_processors(b, cpus);
	buf_append(b, &io, sizeof(io));
	buf_append(b, &pit, sizeof(pit));
	buf_append(b, &sci, sizeof(sci));
	buf_append(b, &nmi, sizeof(nmi));
	if (cpus > XAPIC_IDS)
		buf_append(b, &xnmi, sizeof(xnmi));
	table_end(b, at);
	return at;
}

static void fill_rsdp(struct buf *b, size_t start, gpa_t rsdt, gpa_t xsdt)
{
	struct acpi_rsdp r = {
		.signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '},
		.oem_id = {'U', 'M', 'B', 'R', 'A', ' '},
		.revision = 2,
		.rsdt = (uint32_t)rsdt,
		.length = sizeof(r),
		.xsdt = xsdt,
	};

	r.checksum = checksum8(&r, 20);
	r.extended_checksum = checksum8(&r, sizeof(r));
	memcpy(b->data + start, &r, sizeof(r));
}

/* Offsets are counted from the image's own start, which is at @base. */
static void build(const struct acpi_config *cfg, gpa_t base, struct buf *b)
{
	static const uint8_t rsdp_room[64]; /* and the FACS wants to be aligned to 64 */
	uint64_t x[2];
	uint32_t r[2];
	size_t rsdt, xsdt, facs;
	unsigned i;

	buf_append(b, rsdp_room, sizeof(rsdp_room));
	facs = b->len;
	add_facs(b);
	x[0] = base + add_fadt(b, base + facs, base + add_dsdt(b));
	x[1] = base + add_madt(b, cfg->cpus);
	for (i = 0; i < 2; i++)
		r[i] = (uint32_t)x[i];
	rsdt = table_begin(b, "RSDT", 1);
	buf_append(b, r, sizeof(r));
	table_end(b, rsdt);
	xsdt = table_begin(b, "XSDT", 1);
	buf_append(b, x, sizeof(x));
	table_end(b, xsdt);
	if (!b->failed)
		fill_rsdp(b, 0, base + rsdt, base + xsdt);
}

int acpi_build(const struct acpi_config *cfg, gpa_t base, struct buf *out)
{
	struct buf b = {0};
	int ret;

	build(cfg, base, &b);
	ret = b.failed ? -ENOMEM : buf_append(out, b.data, b.len);
	buf_finish(&b);
	return ret;
}
