/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SMBIOS (DMTF DSP0134): the structures that a 2.8 table must have, for a machine that has little.
 */
#include "vm/smbios.h"

#include <errno.h>
#include <string.h>

#include "vm/checksum.h"
#include "vm/memmap.h"

#define PACKED __attribute__((packed))

struct entry_2 {
	char anchor[4];
	uint8_t checksum, length, major, minor;
	uint16_t max_structure;
	uint8_t revision, formatted[5];
	char dmi_anchor[5];
	uint8_t dmi_checksum;
	uint16_t table_length;
	uint32_t table;
	uint16_t structures;
	uint8_t bcd_revision;
} PACKED;

struct entry_3 {
	char anchor[5];
	uint8_t checksum, length, major, minor, docrev, revision, reserved;
	uint32_t table_max;
	uint64_t table;
} PACKED;

struct header {
	uint8_t type, length;
	uint16_t handle;
} PACKED;

struct bios {
	struct header h;
	uint8_t vendor, version;
	uint16_t segment;
	uint8_t date, rom_size;
	uint64_t characteristics;
	uint8_t ext[2], major, minor, ec_major, ec_minor;
} PACKED;

struct system {
	struct header h;
	uint8_t manufacturer, product, version, serial, uuid[16], wakeup, sku, family;
} PACKED;

struct chassis {
	struct header h;
	uint8_t manufacturer, type, version, serial, asset, bootup, power, thermal, security;
	uint32_t oem;
	uint8_t height, cords, elements, element_length;
} PACKED;

struct processor {
	struct header h;
	uint8_t socket, type, family, manufacturer;
	uint64_t id;
	uint8_t version, voltage;
	uint16_t clock, max_mhz, mhz;
	uint8_t status, upgrade;
	uint16_t l1, l2, l3;
	uint8_t serial, asset, part, cores, enabled, threads;
	uint16_t characteristics, family2;
} PACKED;

struct array {
	struct header h;
	uint8_t location, use, correction;
	uint32_t capacity_kib;
	uint16_t error_handle, devices;
	uint64_t capacity;
} PACKED;

struct memory {
	struct header h;
	uint16_t array, error_handle, total_width, data_width, size;
	uint8_t form, set, locator, bank, type;
	uint16_t detail, speed;
	uint8_t manufacturer, serial, asset, part, attributes;
	uint32_t ext_size;
	uint16_t clock, min_mv, max_mv, mv;
} PACKED;

struct mapped {
	struct header h;
	uint32_t start_kib, end_kib;
	uint16_t array;
	uint8_t width;
	uint64_t start, end;
} PACKED;

struct bootinfo {
	struct header h;
	uint8_t reserved[6], status;
} PACKED;

static_assert(sizeof(struct entry_2) == 31 && sizeof(struct entry_3) == 24 &&
		      sizeof(struct bios) == 24 && sizeof(struct system) == 27 &&
		      sizeof(struct chassis) == 21 && sizeof(struct processor) == 42 &&
		      sizeof(struct array) == 23 && sizeof(struct memory) == 40 &&
		      sizeof(struct mapped) == 31 && sizeof(struct bootinfo) == 11,
	      "the layouts are the specification's");

#define HANDLE_ARRAY 0x1000
#define UNKNOWN	     2
#define NO_ERROR     0xfffe /* no structure tells of errors */

/* Up to now: the table's bytes, how many structures, the longest. */
struct table {
	struct buf b;
	uint16_t count, longest;
};

/* Append a structure and its strings, each ended by a NUL, all by another; @strings may be "". */
static void add(struct table *t, const void *s, const char *strings, size_t strings_len)
{
	const struct header *h = s;
	size_t at = t->b.len;

	buf_append(&t->b, s, h->length);
	/* Even with no string at all, two NULs end a structure. */
	buf_append(&t->b, strings, strings_len);
	buf_append(&t->b, "", 1);
	t->count++;
	t->longest = (uint16_t)MAX((size_t)t->longest, t->b.len - at);
}

/* sizeof counts the literal's own NUL, which ends its last string. */
#define ADD(t, s, strings) add(t, &(s), strings, sizeof(strings))

static void add_machine(struct table *t, unsigned cpus)
{
	uint8_t few = (uint8_t)MIN(cpus, 255u);
	struct bios bios = {
		.h = {0, sizeof(bios), 0x0000},
		.vendor = 1,
		.version = 2,
		.segment = 0xe000,
		.date = 3,
		.characteristics = BIT(3), /* none are told */
		.ext = {0, BIT(4)},	   /* a virtual machine */
		.ec_major = 0xff,
		.ec_minor = 0xff,
	};
	struct system sys = {
		.h = {1, sizeof(sys), 0x0100},
		.manufacturer = 1,
		.product = 2,
		.wakeup = 6, /* power switch */
	};
	struct chassis ch = {
		.h = {3, sizeof(ch), 0x0300},
		.manufacturer = 1,
		.type = 1, /* other */
		.bootup = 3,
		.power = 3,
		.thermal = 3,
		.security = UNKNOWN,
	};
	struct processor cpu = {
		.h = {4, sizeof(cpu), 0x0400},
		.socket = 1,
		.type = 3, /* central */
		.family = 1,
		.manufacturer = 2,
		.status = 0x41, /* populated, enabled */
		.upgrade = 1,
		.l1 = 0xffff,
		.l2 = 0xffff,
		.l3 = 0xffff,
		.cores = few,
		.enabled = few,
		.threads = few,
		.characteristics = BIT(2), /* 64 bits */
		.family2 = 1,
	};

	ADD(t, bios,
	    "Umbra\0" UMBRA_VERSION "\0"
	    "01/01/2026");
	ADD(t, sys, "Umbra\0Virtual machine");
	ADD(t, ch, "Umbra");
	ADD(t, cpu, "CPU 0\0Umbra");
}

static void add_mapped(struct table *t, uint16_t handle, uint64_t start, uint64_t len)
{
	struct mapped m = {
		.h = {19, sizeof(m), handle},
		.start_kib = 0xffffffff,
		.end_kib = 0xffffffff,
		.array = HANDLE_ARRAY,
		.width = 1,
		.start = start,
		.end = start + len - 1,
	};

	if ((m.end >> 10) < 0xffffffff) {
		m.start_kib = (uint32_t)(start >> 10);
		m.end_kib = (uint32_t)(m.end >> 10);
		m.start = m.end = 0;
	}
	add(t, &m, "", 1);
}

static void add_memory(struct table *t, const struct smbios_config *cfg)
{
	uint64_t total = cfg->ram_below_4g + cfg->ram_above_4g, mib = total >> 20;
	struct array arr = {
		.h = {16, sizeof(arr), HANDLE_ARRAY},
		.location = 1,
		.use = 3,	 /* system memory */
		.correction = 3, /* none */
		.capacity_kib = 0x80000000,
		.error_handle = NO_ERROR,
		.devices = 1,
		.capacity = total,
	};
	struct memory mem = {
		.h = {17, sizeof(mem), 0x1100},
		.array = HANDLE_ARRAY,
		.error_handle = NO_ERROR,
		.total_width = 0xffff,
		.data_width = 0xffff,
		.size = (uint16_t)(mib < 0x7fff ? mib : 0x7fff),
		.form = 9, /* DIMM */
		.locator = 1,
		.type = 7, /* RAM */
		.detail = BIT(1),
		.manufacturer = 2,
		.ext_size = mib < 0x7fff ? 0 : (uint32_t)MIN(mib, 0x7fffffffull),
	};

	if (total < GIB(1) * 2048) {
		arr.capacity_kib = (uint32_t)(total >> 10);
		arr.capacity = 0;
	}
	add(t, &arr, "", 1);
	ADD(t, mem, "DIMM 0\0Umbra");
	add_mapped(t, 0x1300, 0, cfg->ram_below_4g);
	if (cfg->ram_above_4g)
		add_mapped(t, 0x1301, MEMMAP_HIGH_START, cfg->ram_above_4g);
}

static void add_end(struct table *t)
{
	struct bootinfo bi = {.h = {32, sizeof(bi), 0x2000}};
	struct header end = {127, sizeof(end), 0x7f00};

	add(t, &bi, "", 1);
	add(t, &end, "", 1);
}

/* Both entry points, each at a multiple of 16, and the table after them. */
static int emit(const struct table *t, gpa_t base, struct buf *out)
{
	struct {
		struct entry_2 e2;
		uint8_t pad2;
		struct entry_3 e3;
		uint8_t pad3[8];
	} PACKED head = {
		.e2 = {.anchor = {'_', 'S', 'M', '_'},
		       .length = sizeof(head.e2),
		       .major = 2,
		       .minor = 8,
		       .max_structure = t->longest,
		       .dmi_anchor = {'_', 'D', 'M', 'I', '_'},
		       .table_length = (uint16_t)t->b.len,
		       .table = (uint32_t)(base + sizeof(head)),
		       .structures = t->count,
		       .bcd_revision = 0x28},
		.e3 = {.anchor = {'_', 'S', 'M', '3', '_'},
		       .length = sizeof(head.e3),
		       .major = 3,
		       .revision = 1,
		       .table_max = (uint32_t)t->b.len,
		       .table = base + sizeof(head)},
	};
	static_assert(sizeof(head) == 64, "the second entry point lies at a multiple of 16");

	head.e2.dmi_checksum = checksum8(head.e2.dmi_anchor, 15);
	head.e2.checksum = checksum8(&head.e2, sizeof(head.e2));
	head.e3.checksum = checksum8(&head.e3, sizeof(head.e3));
	if (buf_reserve(out, sizeof(head) + t->b.len))
		return -ENOMEM;
	buf_append(out, &head, sizeof(head));
	return buf_append(out, t->b.data, t->b.len);
}

int smbios_build(const struct smbios_config *cfg, gpa_t base, struct buf *out)
{
	struct table t = {0};
	int ret;

	add_machine(&t, cfg->cpus);
	add_memory(&t, cfg);
	add_end(&t);
	ret = t.b.failed ? -ENOMEM : emit(&t, base, out);
	buf_finish(&t.b);
	return ret;
}
